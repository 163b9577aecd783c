"""Chains of equal tensors (site, left, phys, right) and their canonical forms.

Both ends of a chain are the bond index 0; unused bond indices are zero. A canonical form is one
`lax.scan` over the sites, scaled at each so that nothing over- or underflows at any length.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from .._types import ChainTensors
from .splitting import move, without_scale


def mirrored(chain: ChainTensors) -> ChainTensors:
    """The chain read from right to left."""
    return jnp.swapaxes(chain[::-1], 1, 3)


def end_bond(chain: ChainTensors) -> jax.Array:
    """The matrix at an end of the chain: (bond, bond), one at index 0."""
    bond = chain.shape[1]
    return jnp.zeros((bond, bond), chain.dtype).at[0, 0].set(1)


def left_canonical(chain: ChainTensors) -> tuple[ChainTensors, jax.Array]:
    """The normalised chain with sum_{l,s} conj A[l,s,r] A[l,s,r'] = delta, phase included.

    Exactly so for bond indices whose weight is above the floor of `move`; below it the state's
    weight is less than its rounding.

    **Returns:** the chain, and the centre matrix to the left of every site (n_sites, bond, bond):
    the old right part starts there where the new left part ends.
    """
    _, bond, _, _ = chain.shape
    closed = chain[-1] * (jnp.arange(bond) == 0)
    chain = chain.at[-1].set(closed)

    def step(centre: jax.Array, tensor: jax.Array) -> tuple[jax.Array, tuple]:
        joined = jnp.einsum("xl,lsr->xsr", centre, tensor).reshape(2 * bond, bond)
        isometry, rest = move(without_scale(joined))
        return rest, (isometry.reshape(bond, 2, bond), centre)

    end, (found, centres) = lax.scan(step, end_bond(chain), chain)
    return found.at[-1].multiply(phase(end)), centres


def right_canonical(chain: ChainTensors) -> ChainTensors:
    """The normalised chain with sum_{s,r} A[l,s,r] conj A[l',s,r] = delta, phase included."""
    return mirrored(left_canonical(mirrored(chain))[0])


def phase(end: jax.Array) -> jax.Array:
    """The phase of what a sweep leaves at the end of the chain."""
    return end[0, 0] / jnp.abs(end[0, 0])
