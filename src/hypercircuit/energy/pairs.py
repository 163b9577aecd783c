"""Probabilities and pair covariances of all bits, cell by cell: the fast way to two cumulants.

The same numbers as `bit_cumulants(mps, 2)`. The chain is the last axis of every array here, so
that the many small contractions are long loops over cells and not many small matrix products.

    left -[cell k, b - p]-[traced]- .. -[cell k + m, b' - p']- right
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..state import Band, ExactMPS, bit_cumulants


def exact_cumulants(
    mps: ExactMPS, order: int
) -> tuple[Float[Array, " n_qubits"], tuple[Band, ...]]:
    """The same numbers as `bit_cumulants(mps, order)`: what the state knows, or the fast way."""
    known = mps.cumulants
    if known is not None and max(sum(band.powers) for band in known[1]) == order:
        return known
    return pair_cumulants(mps) if order == 2 else bit_cumulants(mps, order)


def pair_cumulants(mps: ExactMPS) -> tuple[Float[Array, " n_qubits"], tuple[Band, ...]]:
    """The bits' probabilities, variances and covariances, see `hypercircuit.state.Band`."""
    n_qubits, reach = mps.n_qubits, mps.correlation_range
    maps = jnp.moveaxis(mps.maps, 0, -1)
    left, right = mps.left[:-1].T, mps.right[1:].T
    traced = maps.sum(0)
    # arriving[b0 b1, y]: the left part with a cell's bits fixed
    arriving = _apply(left, maps)
    joint = (arriving * right).sum(1)
    ones = jnp.stack([joint[2] + joint[3], joint[1] + joint[3]])
    zeros = jnp.stack([joint[0] + joint[1], joint[0] + joint[2]])
    total = joint.sum(0)
    ones, zeros = ones / total, zeros / total
    probabilities = _interleave(ones)[:n_qubits]
    variances = Band((2,), _interleave(ones * zeros)[:n_qubits])
    if reach == 0:
        return probabilities, (variances,)
    deviations = (
        (-ones[0], -ones[0], zeros[0], zeros[0]),
        (-ones[1], zeros[1], -ones[1], zeros[1]),
    )
    weights = jnp.stack([jnp.stack(each) for each in deviations])
    departing = _sum(maps[:, :, y] * right[y] for y in range(len(right)))
    starting = _sum(weights[:, b, None] * arriving[b] for b in range(4))
    ending = _sum(weights[:, b, None] * departing[b] for b in range(4))
    inside = (weights[0] * weights[1] * joint).sum(0)
    # found[k][s, s']: covariance of bit s of the cell k places before with bit s' of each cell
    found = []
    for k in range(1, reach // 2 + 2):
        starting = _shift(starting)
        found.append((starting[:, None] * ending[None]).sum(2))
        if k <= reach // 2:
            starting = _apply(starting, traced)
    rows = []
    for distance in range(1, reach + 1):
        row = []
        for later in (0, 1):
            earlier = (later - distance) % 2
            k = (distance - later + earlier) // 2
            row.append(found[k - 1][earlier, later] if k else inside)
        rows.append(_interleave(jnp.stack(row)))
    covariances = Band((1, 1), jnp.stack(rows)[:, :n_qubits])
    return probabilities, (variances, covariances)


def _apply(vectors: jax.Array, maps: jax.Array) -> jax.Array:
    """Row vectors (.., x, n) times maps (.., x, y, n), a few elements at every n."""
    terms = (vectors[..., x, None, :] * maps[..., x, :, :] for x in range(maps.shape[-3]))
    return _sum(terms)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms)


def _shift(values: jax.Array) -> jax.Array:
    """Move the chain one cell to the right, zeros coming in."""
    return jnp.pad(values[..., :-1], [(0, 0)] * (values.ndim - 1) + [(1, 0)])


def _interleave(values: jax.Array) -> jax.Array:
    """Two rows of cells to one row of sites."""
    return values.T.reshape(-1)
