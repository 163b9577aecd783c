"""Product operators carried along chains of site tensors, and scans whose memory is bounded.

The environment of a term on (ket bond, bra bond) passes a site as two matrix products,

    E'[r, q] = sum_s d_s sum_lm E[l, m] A[l, s, r] conj(A[m, s, q]),      d_s = exp(i nu x_s),

all terms, examples and frequencies side by side as rows of one large product. Products of phases
are bounded by one, so nothing overflows at any length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, Inexact

_HIGHEST = lax.Precision.HIGHEST
#: Bytes of the environments that are carried side by side; about twice the root of the number of
#: sites as much is held for the gradient.
_GROUP_BYTES = 2**24


def segmented_scan(step: Callable[[Any, Any], tuple[Any, None]], carry: Any, xs: Any) -> Any:
    """`lax.scan` for the last carry, which keeps only some of the others for the gradient.

    About as many as the root of the number of steps: one per segment, and those of the segment
    that is being differentiated.
    """
    length = len(jax.tree.leaves(xs)[0])
    size = max(1, int(length**0.5))
    whole = length // size * size

    @jax.checkpoint
    def segment(carry: Any, xs: Any) -> tuple[Any, None]:
        return lax.scan(step, carry, xs)

    segments = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), xs)
    carry, _ = lax.scan(segment, carry, segments)
    if whole < length:
        carry, _ = segment(carry, jax.tree.map(lambda x: x[whole:], xs))
    return carry


def carry_products(
    start: Inexact[Array, "blocks items frequencies bond bond"],
    tensors: Inexact[Array, "n_sites blocks bond 2 bond"],
    inputs: Float[Array, "n_sites items"],
    frequency: Float[Array, "items frequencies"],
) -> Complex[Array, "blocks items frequencies bond bond"]:
    """Environments after the products ``exp(i nu x . bits)`` over `n_sites` sites.

    **Arguments:**

    - `tensors`: of every block of sites; the blocks share the inputs.
    - `inputs`, `frequency`: what the bits multiply, and angles per unit of it.
    """
    shape = start.shape
    n_blocks, bond = shape[0], shape[-1]
    kind = jnp.result_type(start, jnp.complex64)

    def site(environments: jax.Array, inputs: tuple) -> tuple[jax.Array, None]:
        tensor, x = inputs
        angle = (x[:, None] * frequency).reshape(-1)
        turns = jnp.stack([jnp.ones_like(angle), jnp.exp(1j * angle)], axis=1).astype(kind)
        ket = jnp.einsum("btlm,blsr->btsmr", environments, tensor, precision=_HIGHEST)
        ket = ket * turns[:, :, None, None]
        return jnp.einsum("btsmr,bmsq->btrq", ket, tensor.conj(), precision=_HIGHEST), None

    flat = start.reshape(n_blocks, -1, bond, bond).astype(kind)
    return segmented_scan(site, flat, (tensors, inputs)).reshape(shape)


def in_groups(function: Callable[..., Any], n_bytes: int, *items: jax.Array) -> Any:
    """``function(*items)``, some items at a time along their first axis.

    **Arguments:**

    - `function`: treats items independently.
    - `n_bytes`: of one item's environments.
    """
    n_items = len(items[0])
    size = max(1, min(n_items, _GROUP_BYTES // max(1, n_bytes)))
    n_groups = -(-n_items // size)
    if n_groups == 1:
        return function(*items)
    missing = n_groups * size - n_items

    def grouped(values: jax.Array) -> jax.Array:
        padded = jnp.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), mode="edge")
        return padded.reshape(n_groups, size, *values.shape[1:])

    found = lax.map(jax.checkpoint(lambda each: function(*each)), tuple(map(grouped, items)))
    return found.reshape(n_groups * size, *found.shape[2:])[:n_items]
