"""The published brickwork ansatz (arXiv:2301.08292) as one batched computation.

From |0...0>, layer d = 1..depth applies CX (control left) on neighbouring pairs of one parity,
then Ry(theta) and Rz(phi) on every qubit:

    site   0   1   2   3   4   5
    d=1        o---x   o---x           pairs (2,3),(4,5).. counted from 1: between cells
          R R  R R  R R
    d=2    o---x   o---x   o---x       pairs (1,2),(3,4)..: inside a cell
          R R  R R  R R
    cell  [ 0 ]   [ 1 ]   [ 2 ]

Two sites form a cell. With CX = sum_a P_a (x) X^a every CX between cells adds one bond index of
dimension two, so a cell's circuit column is contracted by itself, in time order, for all cells at
once: an exact MPS without any SVD. The CX of layer 1 act on |0> controls and do nothing, hence a
bond of 2^((depth - 1) // 2) between cells.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray

from .._precision import check_precision
from .._types import Angles, CellTensors

ROTATIONS = {"ry-rz": 2, "ry": 1}
INITIALISERS = ("near-uniform", "uniform")


class Brickwork(eqx.Module):
    """The published ansatz with `depth` layers; `depth=1` is a product state.

    Parameters are an array (depth, n_qubits, k) of angles in radians: Ry's theta and, for k = 2,
    Rz's phi.

    **Arguments:**

    - `depth`: at least 1.
    - `rotations`: `"ry-rz"` (published) or `"ry"`, whose state and arithmetic are real.

    **Raises:** `ValueError` if `depth` is not positive or `rotations` unknown.
    """

    depth: int = eqx.field(static=True)
    rotations: str = eqx.field(static=True, default="ry-rz")

    def __check_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(
                f"depth must be at least 1, got {self.depth}; depth 1 is the product state"
            )
        if self.rotations not in ROTATIONS:
            raise ValueError(
                f"rotations must be one of {', '.join(ROTATIONS)}, got {self.rotations!r}"
            )

    @property
    def reach(self) -> int:
        """How many cells a cell's past light cone extends to either side."""
        return (self.depth - 1) // 2

    @property
    def max_bond(self) -> int:
        """The largest bond of the exact MPS, reached inside the cells: 2^(depth // 2)."""
        return 2 ** (self.depth // 2)

    @property
    def doubled_bond(self) -> int:
        """The dimension of the doubled bond between cells, in its basis of real numbers."""
        bond = 2**self.reach
        return bond**2 if self.rotations == "ry-rz" else bond * (bond + 1) // 2

    @property
    def correlation_range(self) -> int:
        """The largest distance in sites at which two bits can be correlated at all."""
        return 2 * self.depth - 3 if self.depth > 1 else 0

    def shape(self, n_qubits: int) -> tuple[int, int, int]:
        """The shape of the parameters for a chain of `n_qubits`."""
        return (self.depth, n_qubits, ROTATIONS[self.rotations])

    def init(
        self,
        key: PRNGKeyArray,
        n_qubits: int,
        *,
        how: str = "near-uniform",
        scale: float = 0.1,
        dtype: np.dtype | type = np.float32,
    ) -> Angles:
        """Random start angles.

        **Arguments:**

        - `how`: `"uniform"` draws every angle from [0, 2 pi) (the published start);
          `"near-uniform"` sets the last layer's theta to pi/2, so that every network starts about
          equally likely, and adds normal noise to all angles.
        - `scale`: the noise's standard deviation in radians (`"near-uniform"` only).
        """
        if n_qubits < 1:
            raise ValueError(f"n_qubits must be at least 1, got {n_qubits}")
        return start_angles(key, self.shape(n_qubits), how, scale, dtype)

    def cells(self, params: Angles, part: tuple[jax.Array | int, int] | None = None) -> CellTensors:
        """The exact MPS as cell tensors (n_cells, bond, 2, 2, bond).

        An odd chain is padded by one qubit that stays |0> and touches nothing.

        **Arguments:**

        - `part`: the first of the cells that are wanted, and how many; left out, all of them.
        """
        _, n_qubits, _ = params.shape
        if params.shape != self.shape(n_qubits):
            raise ValueError(
                f"params must have shape {self.shape(n_qubits)} for {n_qubits} qubits, "
                f"got {params.shape}"
            )
        if part is None:
            return self.cells_of(rotation_matrices(params))
        first, n_cells = part
        params = jnp.pad(params, ((0, 0), (0, n_qubits % 2), (0, 0)))
        own = lax.dynamic_slice_in_dim(params, 2 * first, 2 * n_cells, axis=1)
        has_pair = 2 * (first + jnp.arange(n_cells)) + 1 < n_qubits
        return self._cells(rotation_matrices(own), has_pair)

    def cells_of(self, gates: Inexact[Array, "depth n_qubits 2 2"]) -> CellTensors:
        """The cells with any one-qubit gates in the places of the rotations."""
        depth, n_qubits = gates.shape[:2]
        if n_qubits % 2 == 1:
            idle = jnp.broadcast_to(jnp.eye(2, dtype=gates.dtype), (depth, 1, 2, 2))
            gates = jnp.concatenate([gates, idle], axis=1)
        has_pair = 2 * jnp.arange(gates.shape[1] // 2) + 1 < n_qubits
        return self._cells(gates, has_pair)

    def _cells(
        self, gates: Inexact[Array, "depth n_sites 2 2"], has_pair: Bool[Array, " n_cells"]
    ) -> CellTensors:
        """A cell for every two gates of a layer; a cell that is no pair has no CX inside."""
        depth, n_cells = gates.shape[0], len(has_pair)
        # The cells are the last axis: sums of two products each, not many small matrix products.
        gates = jnp.moveaxis(gates.reshape(depth, n_cells, 2, 2, 2), 1, -1)

        # state[left bonds, s0, s1, right bonds, cell]
        first, second = gates[0, :, :, 0]
        state = first[None, :, None, None] * second[None, None, :, None]
        for layer in range(2, depth + 1):
            if layer % 2 == 0:
                flipped = jnp.stack([state[:, 0], state[:, 1, ::-1]], 1)
                state = jnp.where(has_pair, flipped, state)
            else:
                # A new left bond says whether s0 is flipped, a new right one is s1.
                state = jnp.stack([state, state[:, ::-1]], 1)
                zero = jnp.zeros_like(state[:, :, :, 0])
                state = jnp.stack(
                    [
                        jnp.stack([state[:, :, :, 0], zero], -2),
                        jnp.stack([zero, state[:, :, :, 1]], -2),
                    ],
                    3,
                )
                bonds = state.shape[0] * 2
                state = state.reshape(bonds, 2, 2, bonds, n_cells)
            first, second = gates[layer - 1]
            state = jnp.stack([row[0] * state[:, 0] + row[1] * state[:, 1] for row in first], 1)
            state = jnp.stack(
                [row[0] * state[:, :, 0] + row[1] * state[:, :, 1] for row in second], 2
            )
        return jnp.moveaxis(state, -1, 0)


def start_angles(
    key: PRNGKeyArray,
    shape: tuple[int, int, int],
    how: str,
    scale: float,
    dtype: np.dtype | type,
) -> Angles:
    """Random start angles of a shape, see `Brickwork.init`."""
    check_precision(dtype)
    if how == "uniform":
        return jax.random.uniform(key, shape, dtype, 0.0, 2 * jnp.pi)
    if how == "near-uniform":
        noise = scale * jax.random.normal(key, shape, dtype)
        return noise.at[-1, :, 0].add(jnp.pi / 2)
    raise ValueError(f"how must be one of {', '.join(INITIALISERS)}, got {how!r}")


def rotation_matrices(angles: Float[Array, "*batch kinds"]) -> jax.Array:
    """Rz(phi) Ry(theta) as (*batch, 2, 2) matrices, real when there is no Rz."""
    half = angles / 2
    cos, sin = jnp.cos(half[..., 0]), jnp.sin(half[..., 0])
    if angles.shape[-1] == 1:
        return jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    minus = jax.lax.complex(jnp.cos(half[..., 1]), -jnp.sin(half[..., 1]))
    plus = minus.conj()
    rows = [jnp.stack([minus * cos, -minus * sin], -1), jnp.stack([plus * sin, plus * cos], -1)]
    return jnp.stack(rows, -2)
