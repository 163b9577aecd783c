"""Perfect sampling from the Born distribution, log-probabilities and the most likely networks.

Bits are drawn cell by cell from left to right. The vector that stands for the part already drawn
is divided by its probability at every cell, so nothing under- or overflows at any length.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8

from .chain import ChainMPS
from .chain_sampling import FLOOR, IMPOSSIBLE, add, beam, draw as draw_bits, follow as follow_bits
from .exact import ExactMPS


@eqx.filter_jit
def sample(
    mps: ExactMPS | ChainMPS, key: PRNGKeyArray, n_samples: int
) -> tuple[UInt8[Array, "n_samples n_qubits"], Float[Array, " n_samples"]]:
    """Independent bitstrings from ``|<w|psi>|^2`` and the natural logs of their probabilities.

    **Raises:** `ValueError` if `n_samples` is not positive.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    if isinstance(mps, ChainMPS):
        return draw_bits(mps, key, n_samples)
    n_cells = mps.maps.shape[0]

    def draw(carry: tuple, cell: tuple) -> tuple[Any, Any]:
        vectors, log_probabilities = carry
        maps, right, index = cell
        weights = jnp.maximum(jnp.einsum("mx,sxy,y->ms", vectors, maps, right), 0)
        uniform = jax.random.uniform(jax.random.fold_in(key, index), (n_samples,), weights.dtype)
        cumulative = jnp.cumsum(weights, axis=1)
        chosen = (uniform[:, None] * cumulative[:, -1:] >= cumulative[:, :-1]).sum(1)
        return _advance(vectors, log_probabilities, maps, weights, chosen), chosen

    start = _start(mps, n_samples)
    cells = (mps.maps, mps.right[1:], jnp.arange(n_cells))
    (_, log_probabilities), chosen = lax.scan(draw, start, cells)
    return _to_bits(chosen.T, mps.n_qubits), log_probabilities[:, 0]


@eqx.filter_jit
def log_probability(
    mps: ExactMPS | ChainMPS, bits: Integer[Array, "n_samples n_qubits"]
) -> Float[Array, " n_samples"]:
    """The natural log of the Born probability of each bitstring; differentiable.

    Probabilities under about 1e-30 per cell (or site) are clipped there.
    """
    if bits.shape[1] != mps.n_qubits:
        raise ValueError(
            f"bits must have one column per qubit ({mps.n_qubits}), got shape {bits.shape}"
        )
    if isinstance(mps, ChainMPS):
        return follow_bits(mps, bits)
    padded = jnp.pad(bits, ((0, 0), (0, mps.n_qubits % 2))).astype(jnp.int32)
    chosen = 2 * padded[:, 0::2] + padded[:, 1::2]

    def follow(carry: tuple, cell: tuple) -> tuple[Any, Any]:
        vectors, log_probabilities = carry
        maps, right, chosen = cell
        weights = jnp.maximum(jnp.einsum("mx,sxy,y->ms", vectors, maps, right), 0)
        return _advance(vectors, log_probabilities, maps, weights, chosen), None

    start = _start(mps, bits.shape[0])
    (_, log_probabilities), _ = lax.scan(follow, start, (mps.maps, mps.right[1:], chosen.T))
    return log_probabilities[:, 0]


@eqx.filter_jit
def most_likely(
    mps: ExactMPS | ChainMPS, width: int = 16
) -> tuple[UInt8[Array, "width n_qubits"], Float[Array, " width"]]:
    """Likely bitstrings by beam search, best first, with the logs of their probabilities.

    From left to right the `width` prefixes of largest probability (the rest of the chain traced
    out) are kept. For a product state the first result is the most likely bitstring for any
    width; for entangled states it is the best one found, and exact once `width` reaches the
    number of distinct prefixes.

    **Raises:** `ValueError` if `width` is not positive.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if isinstance(mps, ChainMPS):
        return beam(mps, width)

    def extend(carry: tuple, cell: tuple) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        vectors, log_probabilities = carry
        maps, right = cell
        weights = jnp.maximum(jnp.einsum("mx,sxy,y->ms", vectors, maps, right), 0)
        totals = jnp.maximum(weights.sum(1, keepdims=True), FLOOR)
        scores = log_probabilities[:, :1] + jnp.log(jnp.maximum(weights / totals, FLOOR))
        _, best = lax.top_k(scores.reshape(-1), width)
        parent, chosen = best // 4, best % 4
        carry = _advance(vectors[parent], log_probabilities[parent], maps, weights[parent], chosen)
        return carry, (parent.astype(jnp.int32), chosen.astype(jnp.int32))

    vectors, log_probabilities = _start(mps, width)
    log_probabilities = log_probabilities.at[1:, 0].set(IMPOSSIBLE)
    cells = (mps.maps, mps.right[1:])
    (_, log_probabilities), (parents, chosen) = lax.scan(
        extend, (vectors, log_probabilities), cells
    )

    def trace_back(beam: jax.Array, step: tuple) -> tuple[jax.Array, jax.Array]:
        parent, chosen = step
        return parent[beam], chosen[beam]

    _, path = lax.scan(
        trace_back, jnp.arange(width, dtype=jnp.int32), (parents, chosen), reverse=True
    )
    return _to_bits(path.T, mps.n_qubits), log_probabilities[:, 0]


def _start(mps: ExactMPS, n_samples: int) -> tuple[jax.Array, jax.Array]:
    vectors = jnp.broadcast_to(mps.left[0], (n_samples, mps.left.shape[1]))
    return vectors, jnp.zeros((n_samples, 2), vectors.dtype)


def _advance(
    vectors: jax.Array,
    log_probabilities: jax.Array,
    maps: jax.Array,
    weights: jax.Array,
    chosen: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Apply each sample's chosen map and divide by the probability of that choice."""
    weight = jnp.take_along_axis(weights, chosen[:, None], axis=1)
    total = jnp.maximum(weights.sum(1, keepdims=True), FLOOR)
    moved = jnp.einsum("mx,sxy->msy", vectors, maps)
    moved = jnp.take_along_axis(moved, chosen[:, None, None], axis=1)[:, 0]
    share = jnp.maximum(weight / total, FLOOR)
    return moved / jnp.maximum(weight, FLOOR), add(log_probabilities, jnp.log(share[:, 0]))


def _to_bits(chosen: jax.Array, n_qubits: int) -> jax.Array:
    bits = jnp.stack([chosen // 2, chosen % 2], axis=-1).astype(jnp.uint8)
    return bits.reshape(chosen.shape[0], -1)[:, :n_qubits]
