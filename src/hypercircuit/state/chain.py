"""Matrix product states of bounded bond dimension, one tensor per site.

       bond        bond        bond             axes of a tensor: (left, phys, right)
    0 --[ s0 ]------[ s1 ]------[ s2 ]-- 0      both ends of the chain are bond index 0

All tensors are stacked, (n_sites, bond, 2, bond); indices that a cut does not use are zero. What
the traced-out chain leaves of a cut are matrices on its bond, ket first:

    left[j + 1][r, r'] = sum A_j[l, s, r] conj(A_j[l', s, r']) left[j][l, l'],
    right[j][l, l']    = sum A_j[l, s, r] conj(A_j[l', s, r']) right[j + 1][r, r'].

A state is made from right-canonical tensors, whose `right` are identities, so that its norm is one
by construction; `left` takes one sweep. A sweep costs bond^3 per site: maps on the doubled bond,
which have bond^4 entries, are formed for hidden layers only (`moments.chain_site_maps`). What
rounding adds to the norm is divided out at every site: chains of any length stay normalised.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact

from .interchange import mps_to_quimb

#: Schmidt values below this share of the largest one are rounding.
_ROUNDING = 1e-13


class ChainMPS(eqx.Module):
    """A matrix product state of site tensors.

    **Attributes:**

    - `sites`: (n_sites, bond, 2, bond) tensors; `tensors()` are those without the ends' padding.
    - `left`, `right`: (n_sites + 1, bond, bond), the traced-out chain to either side of each cut.
    - `discarded`: (layers, n_sites - 1), the weight that truncation threw away at every bond in
      every layer, relative to the norm; no layers where nothing was truncated.
    - `correlation_range`: bits further apart than this many sites count as uncorrelated in
      `bit_cumulants`; None where no distance is known beyond which they are.
    """

    sites: Inexact[Array, "n_sites bond 2 bond"]
    left: Inexact[Array, "n_cuts bond bond"]
    right: Inexact[Array, "n_cuts bond bond"]
    discarded: Float[Array, "layers n_bonds"]
    correlation_range: int | None = eqx.field(static=True, default=None)

    @property
    def n_qubits(self) -> int:
        return len(self.sites)

    @property
    def max_bond(self) -> int:
        """The dimension that every bond is stored with."""
        return self.sites.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of its probabilities: float32 or float64."""
        return np.zeros(0, self.sites.dtype).real.dtype

    def tensors(self) -> list[jax.Array]:
        """The state site by site as MPS tensors (left, phys, right), the outer bonds 1."""
        sites = list(self.sites)
        sites[0] = sites[0][:1]
        sites[-1] = sites[-1][..., :1]
        return sites

    def to_quimb(self) -> Any:
        """The state as quimb's `MatrixProductState`, sites in the same order."""
        return mps_to_quimb(self.tensors())

    def to_statevector(self) -> jax.Array:
        """All 2^n_qubits amplitudes, site 0 most significant.

        **Raises:** `ValueError` above 24 qubits.
        """
        if self.n_qubits > 24:
            raise ValueError(
                f"a statevector of {self.n_qubits} qubits does not fit in memory; "
                "at most 24 qubits are written out"
            )
        state = jnp.ones((1, 1), self.sites.dtype)
        for tensor in self.tensors():
            state = jnp.tensordot(state, tensor, axes=1).reshape(-1, tensor.shape[-1])
        return state[:, 0]


def chain_mps(
    sites: Inexact[Array, "n_sites bond 2 bond"],
    discarded: Float[Array, "layers n_bonds"] | None = None,
    *,
    correlation_range: int | None = None,
    isometric: bool = True,
) -> ChainMPS:
    """The state of stacked right-canonical tensors; differentiable, jit-compatible.

    **Arguments:**

    - `discarded`: relative weights that were thrown away on the way, layer by layer.
    - `correlation_range`: see `ChainMPS`.
    - `isometric`: whether derivatives, too, are along right-canonical tensors. If not, the right
      parts are swept like the left ones, so that whatever does not depend on the bases of the
      bonds has its gradient.
    """
    n_sites, bond = sites.shape[:2]
    start = jnp.zeros((bond, bond), sites.dtype).at[0, 0].set(1)

    def site(left: jax.Array, tensor: jax.Array) -> tuple[jax.Array, tuple]:
        following = from_left(left, tensor)
        # One up to rounding, and its derivative is zero.
        total = lax.stop_gradient(jnp.trace(following).real)
        following = following / total
        return following, (following, total)

    _, (left, totals) = lax.scan(site, start, sites)
    if discarded is None:
        discarded = jnp.zeros((0, n_sites - 1), totals.dtype)
    sites = sites / jnp.sqrt(totals)[:, None, None, None]
    left = jnp.concatenate([start[None], left])
    right = jnp.broadcast_to(jnp.eye(bond, dtype=sites.dtype), (n_sites + 1, bond, bond))
    if not isometric:
        right = jnp.concatenate([swept(start, sites, left[:-1], to_right=False), start[None]])
    return ChainMPS(
        sites,
        left,
        right,
        discarded,
        correlation_range,
    )


def from_left(left: jax.Array, tensor: jax.Array) -> jax.Array:
    """Carry a matrix over one site to the right."""
    half = jnp.einsum("lm,lsr->msr", left, tensor)
    return jnp.einsum("msr,msq->rq", half, tensor.conj())


def from_right(right: jax.Array, tensor: jax.Array) -> jax.Array:
    """Carry a matrix over one site to the left."""
    half = jnp.einsum("lsr,rq->lsq", tensor, right)
    return jnp.einsum("lsq,msq->lm", half, tensor.conj())


def swept(start: jax.Array, sites: jax.Array, facing: jax.Array, *, to_right: bool) -> jax.Array:
    """Carry a matrix over all `sites`; `facing` is the other part at the cuts it arrives at."""
    carry_over = from_left if to_right else from_right

    def site(matrix: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
        tensor, other = inputs
        matrix = carry_over(matrix, tensor)
        # One up to rounding, whatever the bases of the bonds: its derivative is zero.
        matrix = matrix / lax.stop_gradient(jnp.sum(matrix * other).real)
        return matrix, matrix

    return lax.scan(site, start, (sites, facing), reverse=not to_right)[1]


def from_tensors(
    tensors: Sequence[Any], *, correlation_range: int | None = None, dtype: Any = None
) -> ChainMPS:
    """The state of any chain of tensors (left, phys, right), such as one that quimb made.

    It is normalised and brought into right-canonical form on the host, in double precision. Bonds
    become as narrow as they can be: only Schmidt values that are zero up to rounding are dropped.

    **Arguments:**

    - `dtype`: of the tensors; left out, that of what is given.

    **Raises:** `ValueError` for tensors that are no chain of qubits, or a norm of zero.
    """
    arrays = [np.asarray(tensor) for tensor in tensors]
    _check_chain(arrays)
    kind = np.result_type(*arrays) if dtype is None else np.dtype(dtype)
    double = np.complex128 if kind.kind == "c" else np.float64
    canonical, _ = right_canonical([array.astype(double) for array in arrays])
    bond = max(max(tensor.shape[0], tensor.shape[2]) for tensor in canonical)
    sites = np.zeros((len(canonical), bond, 2, bond), double)
    for tensor, site in zip(canonical, sites, strict=True):
        site[: tensor.shape[0], :, : tensor.shape[2]] = tensor
    return chain_mps(jnp.asarray(sites, kind), correlation_range=correlation_range)


def right_canonical(
    tensors: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Normalised right-canonical tensors of the same state, and its Schmidt values at every bond.

    On the host. The values of a bond are normalised, largest first; those that are zero up to
    rounding are left out, with their bond indices.

    **Raises:** `ValueError` for a norm of zero.
    """
    left: list[np.ndarray] = []
    carried = np.ones((1, 1))
    for tensor in tensors:
        tensor = np.tensordot(carried, tensor, axes=1)
        q, carried = np.linalg.qr(tensor.reshape(-1, tensor.shape[2]))
        left.append(q.reshape(tensor.shape[0], 2, -1))
        norm = np.linalg.norm(carried)
        if not norm > 0:
            raise ValueError("the tensors' norm is zero: this chain is no state")
        carried = carried / norm
    found, schmidt = [], []
    for tensor in reversed(left):
        tensor = np.tensordot(tensor, carried, axes=1)
        u, values, v = np.linalg.svd(tensor.reshape(len(tensor), -1), full_matrices=False)
        kept = values > _ROUNDING * values[0]
        values = values[kept] / np.linalg.norm(values[kept])
        found.append(v[kept].reshape(-1, 2, tensor.shape[2]))
        schmidt.append(values)
        carried = u[:, kept] * values
    # What is left is a phase, or a sign.
    found[-1] = np.tensordot(carried, found[-1], axes=1)
    return found[::-1], schmidt[-2::-1]


def _check_chain(tensors: Sequence[np.ndarray]) -> None:
    if not tensors:
        raise ValueError("a state needs at least one tensor, got none")
    for site, tensor in enumerate(tensors):
        if tensor.ndim != 3 or tensor.shape[1] != 2:
            raise ValueError(
                f"the tensor of site {site} must have axes (left, 2, right), got shape "
                f"{tensor.shape}"
            )
    for site, (one, other) in enumerate(itertools.pairwise(tensors)):
        if one.shape[2] != other.shape[0]:
            raise ValueError(
                f"the bond between sites {site} and {site + 1} must have one dimension, got "
                f"{one.shape[2]} and {other.shape[0]}"
            )
    if tensors[0].shape[0] != 1 or tensors[-1].shape[2] != 1:
        raise ValueError(
            f"the outer bonds must be 1, got {tensors[0].shape[0]} and {tensors[-1].shape[2]}"
        )
