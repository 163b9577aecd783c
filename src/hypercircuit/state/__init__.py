"""What the circuit makes: exact and truncated MPS, the Born distribution, samples, moments."""

from .born import (
    Born as Born,
    born as born,
    graph_statevector as graph_statevector,
)
from .chain import (
    ChainMPS as ChainMPS,
    chain_mps as chain_mps,
    from_tensors as from_tensors,
)
from .condition import condition as condition
from .exact import (
    Band as Band,
    ExactMPS as ExactMPS,
    exact_mps as exact_mps,
    mps_of_cells as mps_of_cells,
)
from .interchange import (
    load_mps as load_mps,
    mps_from_quimb as mps_from_quimb,
    mps_to_quimb as mps_to_quimb,
    save_mps as save_mps,
)
from .moments import (
    bit_cumulants as bit_cumulants,
    bit_probabilities as bit_probabilities,
    correlations as correlations,
    joint_probabilities as joint_probabilities,
    marginals as marginals,
)
from .prepare import State as State, prepare_state as prepare_state
from .sampling import (
    log_probability as log_probability,
    most_likely as most_likely,
    sample as sample,
)
from .trajectories import trajectory_mps as trajectory_mps
from .truncated import TruncatedTensors as TruncatedTensors, truncated_tensors as truncated_tensors
from .truncation import (
    SCHEMES as SCHEMES,
    Parallel as Parallel,
    Sweep as Sweep,
    TruncationScheme as TruncationScheme,
)
