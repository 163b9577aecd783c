"""Marginals and correlations of the bits in a chain of site tensors, many sites at once.

For two bits the matrix that stands for the left part, with the first bit's deviation inserted, is
carried over the sites between them (`carry.py`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .carry import covariances_at_distances
from .chain import ChainMPS


def bit_probabilities(mps: ChainMPS) -> Float[Array, " n_qubits"]:
    """The probability that each bit is 1."""
    return joint_probabilities(mps, np.arange(mps.n_qubits)[:, None])[:, 1]


def joint_probabilities(
    mps: ChainMPS, sites: Int[np.ndarray, "groups bits"]
) -> Float[Array, "groups codes"]:
    """The joint distribution of groups of neighbouring sites in rising order."""
    # [group, code, ket, bra]
    state = mps.left[sites[:, 0]][:, None]
    for position in range(sites.shape[1]):
        tensor = mps.sites[sites[:, position]]
        half = jnp.einsum("gclm,glsr->gcsmr", state, tensor)
        state = jnp.einsum("gcsmr,gmsq->gcsrq", half, tensor.conj())
        state = state.reshape(len(sites), -1, *state.shape[3:])
    table = jnp.einsum("gcrq,grq->gc", state, mps.right[sites[:, -1] + 1]).real
    return table / table.sum(1, keepdims=True)


def deviations(mps: ChainMPS) -> tuple[Float[Array, " n_qubits"], Float[Array, "n_qubits 2"]]:
    """The probabilities of 1, and each bit's two values less its mean."""
    probabilities = bit_probabilities(mps)
    return probabilities, jnp.stack([-probabilities, 1 - probabilities], axis=1)


def inserted_from_left(mps: ChainMPS, values: Float[Array, "n_qubits 2"]) -> jax.Array:
    """After every site the left part with a function of the site's bit inserted."""
    half = jnp.einsum("nlm,nlsr,ns->nmsr", mps.left[:-1], mps.sites, values)
    return jnp.einsum("nmsr,nmsq->nrq", half, mps.sites.conj())


def inserted_from_right(mps: ChainMPS, values: Float[Array, "n_qubits 2"]) -> jax.Array:
    """Before every site the right part with a function of the site's bit inserted."""
    half = jnp.einsum("nlsr,nrq,ns->nlsq", mps.sites, mps.right[1:], values)
    return jnp.einsum("nlsq,nmsq->nlm", half, mps.sites.conj())


def pair_covariances(
    mps: ChainMPS, reach: int
) -> tuple[
    Float[Array, " n_qubits"],
    Float[Array, " n_qubits"],
    Float[Array, "reach n_qubits"],
]:
    """Probabilities, variances, and the covariances of bits (i - g, i), g = 1..reach."""
    probabilities, values = deviations(mps)
    covariances = covariances_at_distances(
        inserted_from_left(mps, values), inserted_from_right(mps, values), mps.sites, reach
    )
    return probabilities, probabilities * (1 - probabilities), covariances
