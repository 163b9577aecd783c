"""From losses to operators: Fourier sums with their error, product terms, the loss Hamiltonian."""

from .compile import LossHamiltonian as LossHamiltonian, compile_loss as compile_loss
from .expansion import (
    Expansion as Expansion,
    FourierExtension as FourierExtension,
    Lattice as Lattice,
)
from .hidden import HiddenTerms as HiddenTerms
from .hidden_basis import Patterns as Patterns
from .hidden_heads import HeadSum as HeadSum
from .losses import (
    LOSSES as LOSSES,
    Hinge as Hinge,
    Logistic as Logistic,
    Loss as Loss,
    OutputLoss as OutputLoss,
    PairwiseLogistic as PairwiseLogistic,
    SigmoidSquared as SigmoidSquared,
    Softmax as Softmax,
    SquaredError as SquaredError,
    SquaredHinge as SquaredHinge,
    ZeroOne as ZeroOne,
    output_targets as output_targets,
)
from .mpo import (
    CompressedLoss as CompressedLoss,
    DiagonalMPO as DiagonalMPO,
    MeasuredError as MeasuredError,
    compress_loss as compress_loss,
    load_compressed as load_compressed,
    load_mpo as load_mpo,
    save_mpo as save_mpo,
)
from .spectral import (
    FourierSum as FourierSum,
    FrullaniIntegrand as FrullaniIntegrand,
    PointwiseIntegrand as PointwiseIntegrand,
    fit_extension as fit_extension,
    fourier_extension as fourier_extension,
    lattice_sum as lattice_sum,
)
from .terms import (
    CHUNK as CHUNK,
    FourierTerms as FourierTerms,
    NoTerms as NoTerms,
    QuadraticTerms as QuadraticTerms,
    Sector as Sector,
    SectorTerms as SectorTerms,
    Terms as Terms,
)
