"""From losses to operators: Fourier sums with their error, product terms, the loss Hamiltonian."""

from .compile import (
    FourierExtension as FourierExtension,
    Lattice as Lattice,
    LossHamiltonian as LossHamiltonian,
    Spectrum as Spectrum,
    compile_loss as compile_loss,
)
from .losses import (
    LOSSES as LOSSES,
    Logistic as Logistic,
    Loss as Loss,
    Softmax as Softmax,
    SquaredError as SquaredError,
)
from .spectral import (
    FourierSum as FourierSum,
    FrullaniIntegrand as FrullaniIntegrand,
    LogisticIntegrand as LogisticIntegrand,
    fit_extension as fit_extension,
    fourier_extension as fourier_extension,
    lattice_sum as lattice_sum,
)
