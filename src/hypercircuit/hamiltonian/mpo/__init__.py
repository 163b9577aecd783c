"""The loss Hamiltonian as one compressed diagonal matrix product operator."""

from .compressed import (
    CompressedLoss as CompressedLoss,
    MeasuredError as MeasuredError,
    Part as Part,
    compress_loss as compress_loss,
)
from .operator import (
    Compressed as Compressed,
    DiagonalMPO as DiagonalMPO,
    additive as additive,
    compress as compress,
    from_diagonal as from_diagonal,
    identity as identity,
    overlap as overlap,
)
