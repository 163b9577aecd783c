"""A chain of site tensors after some qubits at one of its ends were measured.

The measured sites keep the outcome's tensors only. From a measurement at the left end the traced
left part changes at every cut, from one at the right end the right part, each by one sweep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .chain import ChainMPS, from_left, from_right, swept


def condition_chain(
    mps: ChainMPS, outcome: Mapping[int, int], floor: float
) -> tuple[Float[Array, ""], ChainMPS]:
    """See `hypercircuit.state.condition`; the sites of `outcome` are neighbours at one end."""
    n_qubits, first, last = mps.n_qubits, min(outcome), max(outcome)
    mask = np.ones((n_qubits, 2))
    for site, bit in outcome.items():
        mask[site, 1 - bit] = 0
    sites = mps.sites * jnp.asarray(mask, mps.dtype)[:, None, :, None]
    left, right = list(mps.left[first : last + 2]), list(mps.right[first : last + 2])
    for number, site in enumerate(range(first, last + 1), 1):
        left[number] = from_left(left[number - 1], sites[site])
    for number, site in reversed(list(enumerate(range(first, last + 1)))):
        right[number] = from_right(right[number + 1], sites[site])
    probability = jnp.sum(left[0] * right[0]).real
    possible = probability > floor
    # Never divide by what may be zero, in the branch that is not taken either.
    divisor = jnp.where(possible, probability, 1)
    # The site at the chain's end is divided, so that the cuts' parts towards it are.
    if first == 0:
        within_left = jnp.stack([left[0], *(each / divisor for each in left[1:])])
        within_right = jnp.stack([right[0] / divisor, *right[1:]])
        later = swept(within_left[-1], sites[last + 1 :], mps.right[last + 2 :], to_right=True)
        new_left = jnp.concatenate([within_left, later])
        new_right = jnp.concatenate([within_right, mps.right[last + 2 :]])
        scaled = 0
    else:
        within_left = jnp.stack([*left[:-1], left[-1] / divisor])
        within_right = jnp.stack([*(each / divisor for each in right[:-1]), right[-1]])
        earlier = swept(within_right[0], sites[:first], mps.left[:first], to_right=False)
        new_left = jnp.concatenate([mps.left[:first], within_left])
        new_right = jnp.concatenate([earlier, within_right])
        scaled = n_qubits - 1
    sites = sites.at[scaled].divide(jnp.sqrt(divisor).astype(sites.dtype))
    return jnp.maximum(probability, 0), dataclasses.replace(
        mps,
        sites=jnp.where(possible, sites, mps.sites),
        left=jnp.where(possible, new_left, mps.left),
        right=jnp.where(possible, new_right, mps.right),
    )
