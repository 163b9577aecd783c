"""The loss Hamiltonian as one compressed diagonal matrix product operator."""

from .compressed import (
    CompressedLoss as CompressedLoss,
    MeasuredError as MeasuredError,
    Part as Part,
    compress_loss as compress_loss,
)
from .interchange import (
    diagonal_to_quimb as diagonal_to_quimb,
    load_mpo as load_mpo,
    mpo_from_quimb as mpo_from_quimb,
    mpo_to_quimb as mpo_to_quimb,
    save_mpo as save_mpo,
)
from .operator import (
    Compressed as Compressed,
    DiagonalMPO as DiagonalMPO,
    additive as additive,
    compress as compress,
    from_diagonal as from_diagonal,
    identity as identity,
    metric_weights as metric_weights,
    overlap as overlap,
)
