"""The energy <psi|C|psi> of a compiled loss: strategies, each with its own error."""

from .base import (
    Batch as Batch,
    CompleteEnergy as CompleteEnergy,
    EnergyKind as EnergyKind,
    PreparedEnergy as PreparedEnergy,
)
from .choose import choose_energy as choose_energy
from .contraction import (
    Contraction as Contraction,
    ContractionCost as ContractionCost,
)
from .contraction_blocks import ContractionEnergy as ContractionEnergy
from .cumulant import Cumulant as Cumulant
from .dense import Statevector as Statevector
from .exact import Exact as Exact, why_not_exact as why_not_exact
from .mpo import MPO as MPO, MPOEnergy as MPOEnergy
from .pairs import exact_cumulants as exact_cumulants
from .sampled import (
    Estimate as Estimate,
    Sampled as Sampled,
    SampledEnergy as SampledEnergy,
    log_derivative as log_derivative,
    mean_of as mean_of,
    sampled_energy as sampled_energy,
)
from .trajectories import (
    erring_share as erring_share,
    too_few_trajectories as too_few_trajectories,
    trajectory_energy as trajectory_energy,
)
