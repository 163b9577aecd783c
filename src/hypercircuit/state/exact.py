"""The exact matrix product state of a shallow circuit, held as two-site cells.

    bond            bond            bond           MPS axes: (left, phys, right)
    ----[ s0 s1 ]------[ s0 s1 ]------[ s0 s1 ]--  a cell: (left, s0, s1, right)
         cell 0         cell 1         cell 2

The left end of the chain is the bond index 0, the right end a sum over the bond index. The state
is a unitary circuit acting on |0...0>, so its norm is one by construction. For diagonal
observables everything that is needed is the map a cell makes on the *doubled* bond, a Hermitian
matrix written in an orthonormal real basis:

    B[s0 s1]: X  ->  A[s0 s1]^T X conj(A[s0 s1]),      a real (bond^2 x bond^2) matrix,

(bond (bond + 1) / 2 for real circuits). Cells further apart than twice the circuit's reach have
disjoint light cones; hence a product of 2 * reach maps summed over their bits is exactly
right[j] left[k]^T, and `left` and `right`, the vectors that replace a traced-out part of the
chain, depend on `reach` neighbouring cells only: they need no sweep over the chain.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from .._types import Angles, CellMaps, CellTensors, CutVectors
from ..circuit import Ansatz, Brickwork, Noisy
from .interchange import mps_to_quimb
from .mixed import noisy_maps

#: No machine holds the exact state of a larger reach, and no float its size.
_MOST_REACH = 100


class Band(eqx.Module):
    """Joint cumulants of one pattern of powers, see `hypercircuit.state.moments`.

    `values` has one axis per gap (gap 1 first) and the site axis last; `multiplicity` counts the
    orderings of the bits, n! / (q_1! .. q_k!).
    """

    powers: tuple[int, ...] = eqx.field(static=True)
    values: Float[Array, "*gaps n_qubits"]

    @property
    def multiplicity(self) -> int:
        return math.factorial(sum(self.powers)) // math.prod(map(math.factorial, self.powers))


class ExactMPS(eqx.Module):
    """An exact MPS of cells and its maps on the doubled bond.

    **Attributes:**

    - `cells`: (n_cells, bond, 2, 2, bond) tensors; None for the mixed state of a noisy circuit,
      which has no amplitudes.
    - `maps`: (n_cells, 4, doubled, doubled) real maps on the doubled bond, one per bit pair.
    - `left`, `right`: (n_cells + 1, doubled): the traced-out chain to either side of each cut.
    - `n_qubits`: sites of the chain; an odd chain has one idle padding site at its end.
    - `reach`: cells that a cell's light cone extends to either side.
    - `correlation_range`: bits further apart than this many sites are independent.
    - `cumulants`: the bits' probabilities and bands, where they were computed with the state.
    """

    cells: CellTensors | None
    maps: CellMaps
    left: CutVectors
    right: CutVectors
    n_qubits: int = eqx.field(static=True)
    reach: int = eqx.field(static=True)
    correlation_range: int = eqx.field(static=True)
    cumulants: tuple[Float[Array, " n_qubits"], tuple[Band, ...]] | None = None

    @property
    def dtype(self) -> np.dtype:
        """Of its probabilities: float32 or float64."""
        return np.dtype(self.maps.dtype)

    def tensors(self) -> list[jax.Array]:
        """The state site by site as MPS tensors (left, phys, right), no SVD involved.

        Inside a cell the bond index is (s1, right bond), so that the second tensor is a delta;
        for odd depths that bond is up to twice the smallest possible.

        **Raises:** `ValueError` for a mixed state.
        """
        cells = self._amplitudes()
        n_cells, bond = cells.shape[:2]
        eye = jnp.eye(2 * bond, dtype=cells.dtype).reshape(2, bond, 2, bond)
        second = eye.reshape(2 * bond, 2, bond)
        sites = []
        for k in range(n_cells):
            sites.append(cells[k].reshape(bond, 2, 2 * bond))
            sites.append(second)
        sites[0] = sites[0][:1]
        if self.n_qubits % 2 == 1:
            sites.pop()
            last = sites[-1].reshape(-1, 2, 2, bond)
            sites[-1] = last[:, :, 0].sum(-1, keepdims=True)
        else:
            sites[-1] = sites[-1].sum(-1, keepdims=True)
        return sites

    def _amplitudes(self) -> CellTensors:
        if self.cells is None:
            raise ValueError(
                "the mixed state of a noisy circuit has no amplitudes; take that of the circuit "
                "without noise, or probabilities (marginals, sample, log_probability)"
            )
        return self.cells

    def to_quimb(self) -> Any:
        """The state as quimb's `MatrixProductState`, sites in the same order."""
        return mps_to_quimb(self.tensors())

    def to_statevector(self) -> jax.Array:
        """All 2^n_qubits amplitudes, site 0 most significant.

        **Raises:** `ValueError` above 24 qubits or for a mixed state.
        """
        if self.n_qubits > 24:
            raise ValueError(
                f"a statevector of {self.n_qubits} qubits does not fit in memory; "
                "at most 24 qubits are written out"
            )
        state = jnp.ones((1, 1), self._amplitudes().dtype)
        for tensor in self.tensors():
            state = jnp.tensordot(state, tensor, axes=1).reshape(-1, tensor.shape[-1])
        return state[:, 0]


def exact_mps(circuit: Ansatz, params: Angles) -> ExactMPS:
    """The exact state that `circuit` prepares with `params`; differentiable, jit-compatible.

    **Raises:** `ValueError` for an ansatz that is not an exact chain, or a noisy one that is too
    deep.
    """
    if isinstance(circuit, Noisy):
        maps, start, end = noisy_maps(circuit, params)
        left, right = _environments(maps, circuit.reach, start, end)
        return ExactMPS(
            None, maps, left, right, params.shape[1], circuit.reach, circuit.correlation_range
        )
    if not isinstance(circuit, Brickwork):
        raise ValueError(
            f"only a chain (Brickwork) has an exact matrix product state here, got "
            f"{type(circuit).__name__}; use born(circuit, params), Contraction() for energies of "
            "graphs, or prepare_state for states of site tensors"
        )
    return mps_of_cells(circuit.cells(params), circuit, params.shape[1])


def exact_bytes(circuit: Brickwork, n_qubits: int, dtype: np.dtype) -> float:
    """Bytes that the state's maps take while they are made: at the least, without a gradient.

    The maps, what becomes of them halfway, and the basis, in 128 bits, of the doubled bond.
    """
    if circuit.reach > _MOST_REACH:
        return math.inf
    n_cells, doubled, bond = (n_qubits + 1) // 2, circuit.doubled_bond, 2.0**circuit.reach
    halfway = bond**2 * (2 if circuit.rotations == "ry-rz" else 1)
    return n_cells * 4 * doubled * (doubled + halfway) * dtype.itemsize + 16 * doubled * bond**2


def mps_of_cells(cells: CellTensors, circuit: Brickwork, n_qubits: int) -> ExactMPS:
    """The state of these cells, which some unitary gates in the places of `circuit` made."""
    n_cells, bond = cells.shape[:2]
    maps = doubled_maps(cells.reshape(n_cells, bond, 4, bond))
    basis = hermitian_basis(bond, real=not jnp.iscomplexobj(cells))
    end = jnp.asarray(basis.sum((1, 2)).real, maps.dtype)
    start = jnp.zeros(len(end), maps.dtype).at[0].set(1.0)
    left, right = _environments(maps, circuit.reach, start, end)
    return ExactMPS(cells, maps, left, right, n_qubits, circuit.reach, circuit.correlation_range)


def hermitian_basis(bond: int, *, real: bool) -> np.ndarray:
    """An orthonormal basis of Hermitian (real symmetric) matrices, (size, bond, bond).

    The first `bond` elements are the diagonal units.
    """
    basis = []
    for i in range(bond):
        unit = np.zeros((bond, bond), complex)
        unit[i, i] = 1
        basis.append(unit)
    for i in range(bond):
        for j in range(i + 1, bond):
            symmetric = np.zeros((bond, bond), complex)
            symmetric[i, j] = symmetric[j, i] = np.sqrt(0.5)
            basis.append(symmetric)
            if not real:
                antisymmetric = np.zeros((bond, bond), complex)
                antisymmetric[i, j], antisymmetric[j, i] = -1j * np.sqrt(0.5), 1j * np.sqrt(0.5)
                basis.append(antisymmetric)
    stacked = np.stack(basis)
    return stacked.real if real else stacked


def doubled_maps(
    tensors: Inexact[Array, "n bond codes bond"],
) -> Float[Array, "n codes doubled doubled"]:
    """What tensors do to Hermitian matrices on their bond, in an orthonormal basis of these."""
    real = not jnp.iscomplexobj(tensors)
    basis = jnp.asarray(hermitian_basis(tensors.shape[-1], real=real), tensors.dtype)
    half = jnp.einsum("xab,nasr->nsxrb", basis, tensors)
    full = jnp.einsum("nsxrb,nbst->nsxrt", half, tensors.conj())
    return jnp.einsum("yrt,nsxrt->nsxy", basis.conj(), full).real


def _environments(
    maps: jax.Array, reach: int, start: jax.Array, end: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The vectors `left` and `right` at every cut, from `reach` cells to either side.

    `start` and `end` stand at the two ends of the chain.
    """
    n_cells, _, doubled, _ = maps.shape
    # A chain continued beyond either end by cells that hand on `start` and `end` unchanged.
    padding = jnp.broadcast_to(jnp.outer(end, start), (reach, doubled, doubled))
    traced = jnp.concatenate([padding, maps.sum(1), padding])
    left = jnp.broadcast_to(start, (n_cells + 1, doubled))
    right = jnp.broadcast_to(end, (n_cells + 1, doubled))
    for k in range(reach):
        left = jnp.einsum("nx,nxy->ny", left, traced[k : k + n_cells + 1])
        stop = 2 * reach - k
        right = jnp.einsum("nxy,ny->nx", traced[stop - 1 : stop + n_cells], right)
    return left, right
