"""The state after some qubits at one end of the chain were measured.

    sites   0 1 | 2 3 | 4 5 | 6 7 | ...        measured: 0 .. 2
            # #   # .   . .   . .

Their cells keep the maps of the outcome only, divided by its probability. The vectors that stand
for the traced-out chain change within twice the circuit's reach of the measured cells; further
away a product of traced maps is of rank one, and they are what they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .chain import ChainMPS
from .chain_condition import condition_chain
from .exact import ExactMPS

#: Outcomes less likely than rounding leave no state.
_FLOOR = {"float32": 1e-6, "float64": 1e-13}


def condition(
    mps: ExactMPS | ChainMPS, sites: Sequence[int], bits: Sequence[int]
) -> tuple[Float[Array, ""], ExactMPS | ChainMPS]:
    """The probability of an outcome and the state it leaves, on the same chain.

    An outcome that is impossible up to rounding leaves the state as it was, so that what is
    computed from it stays finite; its weight is its probability.

    **Arguments:**

    - `sites`: neighbouring sites that reach one end of the chain, in any order.
    - `bits`: the outcome of each.

    **Raises:** `ValueError` for sites elsewhere.
    """
    outcome = dict(zip(map(int, sites), map(int, bits), strict=True))
    first, last = min(outcome), max(outcome)
    touching = first == 0 or last == mps.n_qubits - 1
    if not touching or last - first + 1 != len(outcome) or len(outcome) != len(sites):
        raise ValueError(
            "sites must be neighbours that reach one end of the chain of "
            f"{mps.n_qubits} qubits, got {tuple(sites)}"
        )
    if isinstance(mps, ChainMPS):
        return condition_chain(mps, outcome, _FLOOR[mps.dtype.name])
    n_cells = mps.maps.shape[0]
    mask = np.ones((n_cells, 2, 2))
    for site, bit in outcome.items():
        np.moveaxis(mask[site // 2], site % 2, 0)[1 - bit] = 0
    cells = range(first // 2, last // 2 + 1)
    kept = jnp.asarray(mask[cells.start : cells.stop], mps.maps.dtype)
    maps = mps.maps.at[cells.start : cells.stop].multiply(kept.reshape(-1, 4, 1, 1))
    if first == 0:
        stop = min(n_cells, cells.stop + 2 * mps.reach)
        left = [mps.left[0]]
        for cell in range(stop):
            left.append(left[-1] @ maps[cell].sum(0))
        probability = left[cells.stop] @ mps.right[cells.stop]
    else:
        start = max(0, cells.start - 2 * mps.reach)
        right = [mps.right[-1]]
        for cell in range(n_cells - 1, start - 1, -1):
            right.append(maps[cell].sum(0) @ right[-1])
        right = right[::-1]
        probability = mps.left[cells.start] @ right[cells.start - start]
    possible = probability > _FLOOR[maps.dtype.name]
    # Never divide by what may be zero, in the branch that is not taken either.
    divisor = jnp.where(possible, probability, 1)
    if first == 0:
        changed = jnp.stack([left[0], *(each / divisor for each in left[1:])])
        new_left = jnp.concatenate([changed, mps.left[stop + 1 :]])
        maps, end = maps.at[0].divide(divisor), 0
        new_right = _right(maps, mps.right, range(cells.stop))
    else:
        changed = jnp.stack([*(each / divisor for each in right[:-1]), right[-1]])
        new_right = jnp.concatenate([mps.right[:start], changed])
        maps, end = maps.at[n_cells - 1].divide(divisor), n_cells - 1
        new_left = _left(maps, mps.left, range(cells.start, n_cells))
    tensors = mps.cells
    if tensors is not None:
        factors = kept[:, None, :, :, None].astype(tensors.dtype)
        changed = tensors.at[cells.start : cells.stop].multiply(factors)
        changed = changed.at[end].divide(jnp.sqrt(divisor).astype(tensors.dtype))
        tensors = jnp.where(possible, changed, tensors)
    return jnp.maximum(probability, 0), dataclasses.replace(
        mps,
        cells=tensors,
        maps=jnp.where(possible, maps, mps.maps),
        left=jnp.where(possible, new_left, mps.left),
        right=jnp.where(possible, new_right, mps.right),
        cumulants=None,
    )


def _right(maps: jax.Array, right: jax.Array, cells: range) -> jax.Array:
    for cell in reversed(cells):
        right = right.at[cell].set(maps[cell].sum(0) @ right[cell + 1])
    return right


def _left(maps: jax.Array, left: jax.Array, cells: range) -> jax.Array:
    for cell in cells:
        left = left.at[cell + 1].set(left[cell] @ maps[cell].sum(0))
    return left
