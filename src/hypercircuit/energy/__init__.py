"""The energy <psi|C|psi> of a compiled loss: strategies, each with its own error."""

from .base import (
    Batch as Batch,
    EnergyKind as EnergyKind,
    PreparedEnergy as PreparedEnergy,
)
from .cumulant import Cumulant as Cumulant
from .dense import Statevector as Statevector
from .exact import Exact as Exact
