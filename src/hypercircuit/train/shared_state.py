"""The exact state of a chain made by several devices, each a run of cells.

    cells       0 1 2 3 4 5 6 7 8 9
    device 0    o o o o o . .             o  its own
    device 1          . . o o o o o       .  margin: where the light cones of its own cells end

A cell's tensors and maps depend on its own angles only, the traced-out parts of the chain on
`reach` cells to either side, and bits further apart than the correlation range are independent. So
every device makes the state of a short chain of its own, which in its middle is that of the whole
one, and the middles are gathered.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._shards import AXIS
from .._types import Angles
from ..circuit import Brickwork
from ..energy import PreparedEnergy, exact_cumulants
from ..state import Band, ExactMPS, mps_of_cells


@dataclasses.dataclass(frozen=True)
class SharedState:
    """How the cells of a brickwork's exact state are shared out.

    **Attributes:**

    - `circuit`, `n_qubits`: of the whole chain.
    - `cumulant_order`: of the bits' cumulants that are computed with the state, at least 2.
    - `n_shares`: devices.
    - `with_maps`: whether the energy takes the state's maps, too.
    """

    circuit: Brickwork
    n_qubits: int
    cumulant_order: int
    n_shares: int
    with_maps: bool = False

    @property
    def n_cells(self) -> int:
        """Cells of the chain."""
        return (self.n_qubits + 1) // 2

    @property
    def own(self) -> int:
        """Cells that a device makes for all; the last device's are counted from the end."""
        return -(-self.n_cells // self.n_shares)

    @property
    def margin(self) -> int:
        """Cells beside these that have an influence on them."""
        # A cumulant spans order - 1 distances of up to 2 depth - 3 sites.
        return self.circuit.reach + (self.cumulant_order - 1) * (self.circuit.depth - 1)

    @property
    def width(self) -> int:
        """Cells that a device makes."""
        return self.own + 2 * self.margin

    @property
    def saves(self) -> bool:
        """Whether a share is less than the whole, and every device has one."""
        return self.width < self.n_cells and self.own * (self.n_shares - 1) < self.n_cells

    @property
    def exchanged(self) -> int:
        """Numbers that the devices gather: of all the cumulants, and of the maps if taken."""
        gaps, doubled = 1 + self.circuit.correlation_range, self.circuit.doubled_bond
        maps = self.n_cells * (4 * doubled**2 + 2 * doubled) if self.with_maps else 0
        return self.n_qubits * sum(gaps**n for n in range(self.cumulant_order)) + maps

    def part(self, params: Angles, share: jax.Array | int) -> tuple[ExactMPS, jax.Array]:
        """The state of a device's cells, of which the own ones are the whole chain's.

        **Returns:** the state, with cumulants, and where the own cells begin in it.
        """
        first = jnp.minimum(share * self.own, self.n_cells - self.own)
        start = jnp.clip(first - self.margin, 0, self.n_cells - self.width)
        cells = self.circuit.cells(params, (start, self.width))
        mps = mps_of_cells(cells, self.circuit, 2 * self.width)
        cumulants = exact_cumulants(mps, self.cumulant_order)
        return dataclasses.replace(mps, cumulants=cumulants), first - start

    def __call__(self, params: Angles) -> ExactMPS:
        """The whole state, on every device; a collective function for `Shards.map`."""
        part, offset = self.part(params, lax.axis_index(AXIS))
        return self.whole(part, offset, lambda own: lax.all_gather(own, AXIS))

    def alone(self, params: Angles) -> ExactMPS:
        """What one device does for it: a state of the first device's cells again and again."""
        part, offset = self.part(params, 0)
        return self.whole(part, offset, lambda own: jnp.stack([own] * self.n_shares))

    def whole(
        self, part: ExactMPS, offset: jax.Array, gather: Callable[[jax.Array], jax.Array]
    ) -> ExactMPS:
        """The chain's state of all devices' own cells, which `gather` stacks.

        What an energy does not take of it, XLA does not gather.
        """

        def joined(values: jax.Array, axis: int = 0, per_cell: int = 1) -> jax.Array:
            own = lax.dynamic_slice_in_dim(values, per_cell * offset, per_cell * self.own, axis)
            parts = list(gather(own))
            # The last device begins with cells of the one before.
            twice = per_cell * (self.own * self.n_shares - self.n_cells)
            parts[-1] = lax.slice_in_dim(parts[-1], twice, None, axis=axis)
            return jnp.concatenate(parts, axis)

        assert part.cells is not None
        assert part.cumulants is not None
        probabilities, bands = part.cumulants
        rows = [probabilities, *(band.values for band in bands)]
        shapes = [row.shape[:-1] for row in rows]
        flat = jnp.concatenate([row.reshape(-1, row.shape[-1]) for row in rows])
        flat = joined(flat, 1, 2)[:, : self.n_qubits]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        found = [
            values.reshape(*shape, self.n_qubits)
            for values, shape in zip(jnp.split(flat, ends[:-1]), shapes, strict=True)
        ]
        bands = tuple(
            Band(band.powers, values) for band, values in zip(bands, found[1:], strict=True)
        )
        return ExactMPS(
            joined(part.cells),
            joined(part.maps),
            # What stands at an end of the chain stands at the ends of every part.
            jnp.concatenate([part.left[:1], joined(part.left[1:])]),
            jnp.concatenate([joined(part.right[:-1]), part.right[-1:]]),
            self.n_qubits,
            part.reach,
            part.correlation_range,
            (found[0].reshape(-1), bands),
        )


def shared_state(energy: PreparedEnergy, n_shares: int) -> SharedState | None:
    """How devices share the state of an energy; None where each makes all of it.

    So it is with truncated, free and noisy states, with chains too short to be shared out, with
    states that settings of global choices condition, and with energies that take no cumulants, of
    whose work the state is a small part.
    """
    if not (isinstance(energy.circuit, Brickwork) and energy.cumulant_order and n_shares > 1):
        return None
    n_qubits = energy.hamiltonian.n_qubits
    shared = SharedState(
        energy.circuit, n_qubits, energy.cumulant_order, n_shares, energy.takes_maps
    )
    return shared if shared.saves else None
