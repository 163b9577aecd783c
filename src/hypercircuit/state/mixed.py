"""The maps on the doubled bond of a noisy circuit: its exact distribution over networks.

A site's density matrix is held as real numbers r_P, rho = 1/2 sum_P r_P P over the Paulis
P = 1, X, Y, Z. On these a rotation turns (X, Y, Z), a one-qubit error shrinks them, and |0><0| is
(1, 0, 0, 1). A CX between cells is a sum of products of maps on its two sites,

    CX rho CX = sum_ab (P_a . P_b) (x) (X^a . X^b),      a, b in {0, 1}: four terms,

of which real ones are the combinations (00), (11), (01 + 10) and i (01 - 10). With errors,

    D2(CX rho CX) = (1 - e) CX rho CX + e (E (x) E) rho,        E = trace and replace by 1/2,

since E (x) E after a unitary is E (x) E: five terms, one more than without errors (E is no
combination of the others, so five is the least). Cells are contracted in time order as in the
brickwork, all at once; the doubled bond is 5^reach where that of the pure state is 4^reach:

    depth          1-2    3-4    5-6    7-8    9-10
    pure             1      4     16     64     256
    with errors      1      5     25    125     625        (4^reach without errors after CX)

Under transposition Y changes its sign. Without Rz every map of a cell keeps this parity, and so
does the diagonal, so that only even bond indices are kept (4 of 5, 17 of 25, 76 of 125).

Summed over its bits, a cell whose outer CX are missing is an identity for the vectors `start`
(the control to the left is |0>) and `end` (the target to the right is |+>, and there are no errors
there): the vectors at the ends of the chain, and those from which light cones start.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Angles, CellMaps
from ..circuit.noise import Noisy, depolarising_factor

#: The most bytes that the cells may take while they are made.
MAX_BYTES = 4e9
_PAULIS = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


class DoubledMaps(NamedTuple):
    """Maps on the doubled bond, and the vectors at the two ends of the chain."""

    maps: CellMaps
    start: Float[Array, " doubled"]
    end: Float[Array, " doubled"]


def noisy_maps(circuit: Noisy, params: Angles) -> DoubledMaps:
    """The maps of every cell of a noisy chain; differentiable in angles and rates.

    **Raises:** `ValueError` for parameters of another shape, or if the doubled bond is too large.
    """
    depth, n_qubits, _ = params.shape
    if params.shape != circuit.shape(n_qubits):
        raise ValueError(
            f"params must have shape {circuit.shape(n_qubits)} for {n_qubits} qubits, "
            f"got {params.shape}"
        )
    check_size(circuit, n_qubits, np.dtype(params.dtype))
    noise, terms = circuit.noise, circuit.terms
    n_cells = (n_qubits + 1) // 2
    # An odd chain's idle site at the end touches nothing and makes no errors.
    real = np.arange(2 * n_cells).reshape(n_cells, 2) < n_qubits
    left_maps, right_maps = (jnp.asarray(each[:terms], params.dtype) for each in _terms())
    shrink = jnp.asarray(depolarising_factor(noise.one_qubit, 1), params.dtype)
    rotate = _rotations(params, jnp.where(real, shrink, 1), n_cells)
    error = 1 - jnp.asarray(depolarising_factor(noise.two_qubit, 2), params.dtype)
    within = _noisy_cx(error)
    identity = jnp.eye(16, dtype=params.dtype)
    within = jnp.where(real[:, 1, None, None], within, identity).reshape(n_cells, 4, 4, 4, 4)
    # No CX leaves the last cell.
    outgoing = jnp.where(np.arange(n_cells) < n_cells - 1, error, 0)[:, None]
    share = jnp.concatenate([jnp.broadcast_to(1 - outgoing, (n_cells, 4)), outgoing], axis=1)[
        :, :terms
    ]
    controls = share[:, :, None, None] * left_maps

    # state[cell, left bonds, Pauli of s0, Pauli of s1, right bonds]
    zero = jnp.asarray([1.0, 0, 0, 1], params.dtype)
    state = jnp.einsum("nup,p,nvq,q->nuv", rotate[0, :, 0], zero, rotate[0, :, 1], zero)
    state = state[:, None, :, :, None]
    for layer in range(2, depth + 1):
        if layer % 2 == 0:
            state = jnp.einsum("nuvpq,nlpqr->nluvr", within, state)
        else:
            bonds = state.shape[1] * terms
            state = jnp.einsum("aup,nbvq,nlpqr->nlauvrb", right_maps, controls, state)
            state = state.reshape(n_cells, bonds, 4, 4, bonds)
        state = jnp.einsum(
            "nup,nvq,nlpqr->nluvr", rotate[layer - 1, :, 0], rotate[layer - 1, :, 1], state
        )
    kept = _kept(circuit)
    state = state[:, kept][..., kept]
    contrast = jnp.where(real, 1 - 2 * jnp.asarray(noise.readout, params.dtype), 1)
    read = _readout(contrast)
    maps = jnp.einsum("nsu,ntv,nluvr->nstlr", read[:, 0], read[:, 1], state)
    doubled = len(kept)
    start, end = (jnp.asarray(each[kept], params.dtype) for each in _ends(terms, circuit.reach))
    return DoubledMaps(maps.reshape(n_cells, 4, doubled, doubled), start, end)


def check_size(circuit: Noisy, n_qubits: int, dtype: np.dtype) -> None:
    """Refuse a doubled bond whose cells would not fit in `MAX_BYTES`.

    **Raises:** `ValueError` with the size and what to do.
    """
    n_cells, bond = (n_qubits + 1) // 2, circuit.terms**circuit.reach
    size = float(n_cells) * 16 * bond**2 * dtype.itemsize
    if size > MAX_BYTES:
        raise ValueError(
            f"the exact noisy state of depth {circuit.depth} has a doubled bond of {bond} and "
            f"takes {size / 1e9:.3g} GB for {n_qubits} qubits, more than {MAX_BYTES / 1e9:g} GB; "
            "lower the depth, or train without [noise] and average trajectories "
            "(`hypercircuit noise`, trajectory_energy)"
        )


def _rotations(params: Angles, shrink: jax.Array, n_cells: int) -> jax.Array:
    """Ry and Rz with their errors on (1, X, Y, Z), (depth, cell, site, 4, 4)."""
    depth, n_qubits, kinds = params.shape
    angles = jnp.pad(params, ((0, 0), (0, 2 * n_cells - n_qubits), (0, 0)))
    angles = angles.reshape(depth, n_cells, 2, kinds)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    empty = jnp.zeros((depth, n_cells, 2, 4, 4), params.dtype).at[..., 0, 0].set(1)

    def turn(kind: int, first: int, second: int) -> jax.Array:
        """From the first axis towards the second one; the third axis stays."""
        (third,) = {1, 2, 3} - {first, second}
        c, s = cos[..., kind], sin[..., kind]
        found = empty.at[..., first, first].set(c).at[..., second, second].set(c)
        found = found.at[..., second, first].set(s).at[..., first, second].set(-s)
        found = found.at[..., third, third].set(1)
        return found * jnp.stack([jnp.ones_like(shrink), *[shrink] * 3], axis=-1)[..., None]

    rotated = turn(0, 3, 1)
    return turn(1, 1, 2) @ rotated if kinds == 2 else rotated


def _noisy_cx(error: jax.Array) -> jax.Array:
    """CX and its errors on pairs of Paulis, (16, 16)."""
    shrink = jnp.concatenate([jnp.ones(1, error.dtype), jnp.full(15, 1 - error)])
    return shrink[:, None] * jnp.asarray(_cx_on_paulis(), error.dtype)


def _readout(contrast: jax.Array) -> jax.Array:
    """The probabilities of a bit's values from (1, X, Y, Z), (cell, site, 2, 4)."""
    half = jnp.zeros((*contrast.shape, 2, 4), contrast.dtype).at[..., 0].set(0.5)
    signs = jnp.asarray([0.5, -0.5], contrast.dtype)
    return half.at[..., 3].set(contrast[..., None] * signs)


def _on_paulis(ket: np.ndarray, bra: np.ndarray) -> np.ndarray:
    """The map rho -> ket rho bra of one qubit on (1, X, Y, Z), (4, 4)."""
    return np.einsum("uab,bc,pcd,da->up", _PAULIS, ket, _PAULIS, bra) / 2


@functools.cache
def _terms() -> tuple[np.ndarray, np.ndarray]:
    """The five products (control's, target's) of maps that a CX with errors is made of."""
    projectors = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]]], complex)
    controls: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for kinds, found, sign in ((projectors, controls, 1), (_PAULIS[:2], targets, -1)):
        zero, one = kinds
        above, below = _on_paulis(zero, one), _on_paulis(one, zero)
        found += [_on_paulis(zero, zero).real, _on_paulis(one, one).real]
        found += [np.sqrt(0.5) * (above + below).real]
        found += [sign * np.sqrt(0.5) * (1j * (above - below)).real]
        found.append(np.diag([1.0, 0, 0, 0]))
    return np.stack(controls), np.stack(targets)


@functools.cache
def _cx_on_paulis() -> np.ndarray:
    """CX on pairs of Paulis, (16, 16), the control's more significant."""
    controls, targets = _terms()
    return np.einsum("kup,kvq->uvpq", controls[:4], targets[:4]).reshape(16, 16)


def _ends(terms: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors on the doubled bond at the left and at the right end of the chain."""
    start, end = np.eye(terms)[0], np.array([1, 1, np.sqrt(2), 0, 1])[:terms]
    return _power(start, reach), _power(end, reach)


def _kept(circuit: Noisy) -> np.ndarray:
    """The bond indices that matter: those of even parity for a real circuit, else all."""
    signs = np.array([1, 1, 1, -1, 1])[: circuit.terms]
    parity = _power(signs, circuit.reach)
    return np.flatnonzero(parity > 0) if circuit.rotations == "ry" else np.arange(len(parity))


def _power(vector: np.ndarray, times: int) -> np.ndarray:
    """The Kronecker power of a vector."""
    found = np.ones(1, vector.dtype)
    for _ in range(times):
        found = np.kron(found, vector)
    return found
