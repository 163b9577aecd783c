"""Perfect sampling, log-probabilities and likely networks of a chain of site tensors.

As for the exact chain bits are drawn from left to right; a sample is a vector on one bond, since
its left part is pure. It is divided by the norm of the drawn bit at every site.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .chain import ChainMPS

FLOOR = 1e-30
#: The log-probability of beams that do not exist yet; finite, so that sums stay defined.
IMPOSSIBLE = -1e30


def draw(mps: ChainMPS, key: jax.Array, n_samples: int) -> tuple[jax.Array, jax.Array]:
    """See `hypercircuit.state.sample`."""

    def site(carry: tuple, inputs: tuple) -> tuple[Any, Any]:
        tensor, right, index = inputs
        moved, weights = _extended(carry[0], tensor, right)
        uniform = jax.random.uniform(jax.random.fold_in(key, index), (n_samples,), weights.dtype)
        chosen = (uniform * weights.sum(1) >= weights[:, 0]).astype(jnp.int32)
        return _advance(carry[1], moved, weights, chosen), chosen

    inputs = (mps.sites, mps.right[1:], jnp.arange(mps.n_qubits))
    (_, logs), chosen = lax.scan(site, _start(mps, n_samples), inputs)
    return chosen.T.astype(jnp.uint8), logs[:, 0]


def follow(mps: ChainMPS, bits: jax.Array) -> jax.Array:
    """See `hypercircuit.state.log_probability`."""

    def site(carry: tuple, inputs: tuple) -> tuple[Any, None]:
        tensor, right, chosen = inputs
        moved, weights = _extended(carry[0], tensor, right)
        return _advance(carry[1], moved, weights, chosen), None

    inputs = (mps.sites, mps.right[1:], bits.T.astype(jnp.int32))
    (_, logs), _ = lax.scan(site, _start(mps, len(bits)), inputs)
    return logs[:, 0]


def beam(mps: ChainMPS, width: int) -> tuple[jax.Array, jax.Array]:
    """See `hypercircuit.state.most_likely`."""

    def extend(carry: tuple, inputs: tuple) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        tensor, right = inputs
        moved, weights = _extended(carry[0], tensor, right)
        logs = carry[1]
        totals = jnp.maximum(weights.sum(1, keepdims=True), FLOOR)
        scores = logs[:, :1] + jnp.log(jnp.maximum(weights / totals, FLOOR))
        _, best = lax.top_k(scores.reshape(-1), width)
        parent, chosen = (best // 2).astype(jnp.int32), (best % 2).astype(jnp.int32)
        carry = _advance(logs[parent], moved[parent], weights[parent], chosen)
        return carry, (parent, chosen)

    vectors, logs = _start(mps, width)
    logs = logs.at[1:, 0].set(IMPOSSIBLE)
    (_, logs), (parents, chosen) = lax.scan(extend, (vectors, logs), (mps.sites, mps.right[1:]))

    def trace_back(place: jax.Array, step: tuple) -> tuple[jax.Array, jax.Array]:
        parent, chosen = step
        return parent[place], chosen[place]

    _, path = lax.scan(
        trace_back, jnp.arange(width, dtype=jnp.int32), (parents, chosen), reverse=True
    )
    return path.T.astype(jnp.uint8), logs[:, 0]


def _start(mps: ChainMPS, n_samples: int) -> tuple[jax.Array, jax.Array]:
    vectors = jnp.zeros((n_samples, mps.max_bond), mps.sites.dtype).at[:, 0].set(1)
    return vectors, jnp.zeros((n_samples, 2), mps.dtype)


def _extended(
    vectors: jax.Array, tensor: jax.Array, right: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Every vector with either bit, and the probabilities of the two."""
    moved = jnp.einsum("ml,lsr->msr", vectors, tensor)
    traced = jnp.einsum("msr,rq->msq", moved, right)
    return moved, jnp.maximum(jnp.einsum("msq,msq->ms", traced, moved.conj()).real, 0)


def _advance(
    logs: jax.Array, moved: jax.Array, weights: jax.Array, chosen: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Take each vector's chosen bit and divide by its norm."""
    weight = jnp.take_along_axis(weights, chosen[:, None], axis=1)
    total = jnp.maximum(weights.sum(1, keepdims=True), FLOOR)
    taken = jnp.take_along_axis(moved, chosen[:, None, None], axis=1)[:, 0]
    share = jnp.maximum(weight / total, FLOOR)
    norm = jnp.sqrt(jnp.maximum(weight, FLOOR)).astype(moved.dtype)
    return taken / norm, add(logs, jnp.log(share[:, 0]))


def add(total: jax.Array, value: jax.Array) -> jax.Array:
    """Kahan's compensated sum: columns total and compensation."""
    corrected = value - total[:, 1]
    summed = total[:, 0] + corrected
    return jnp.stack([summed, (summed - total[:, 0]) - corrected], axis=1)
