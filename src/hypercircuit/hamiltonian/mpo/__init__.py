"""The loss Hamiltonian as one compressed diagonal matrix product operator."""

from .compressed import (
    MEMORY as MEMORY,
    CompressedLoss as CompressedLoss,
    Part as Part,
    check_route as check_route,
    compress_loss as compress_loss,
    parts_values as parts_values,
)
from .errors import CompressionError as CompressionError, MeasuredError as MeasuredError
from .files import (
    Request as Request,
    load_compressed as load_compressed,
    load_same as load_same,
    save_compressed as save_compressed,
    saved_report as saved_report,
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
    around_state as around_state,
    compress as compress,
    from_diagonal as from_diagonal,
    identity as identity,
    metric_weights as metric_weights,
    overlap as overlap,
)
from .report import (
    error_entry as error_entry,
    make_report as make_report,
    report_text as report_text,
    uniform_networks as uniform_networks,
)
