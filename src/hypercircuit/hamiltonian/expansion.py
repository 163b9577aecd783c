"""How the functions of a loss are expanded in frequencies: strategies for `compile_loss`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FourierExtension:
    """Expand on the reachable interval; any inputs."""


@dataclasses.dataclass(frozen=True)
class Lattice:
    """Expand exactly on the lattice of reachable logits; inputs that are multiples of a step."""


Expansion = FourierExtension | Lattice
