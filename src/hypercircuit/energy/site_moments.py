"""Means and variances of linear forms in a chain of site tensors, correlations of any distance.

The variance of ``z = sum_j x_j b_j`` takes one sweep per example: M, the left part with
``sum_{i<j} x_i (b_i - p_i)`` inserted, meets the deviation of every later bit,

    Var z = sum_j x_j^2 Var b_j + 2 sum_j x_j <M_j, deviation of b_j, right part>.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..state import ChainMPS
from ..state.chain_moments import deviations, inserted_from_left, inserted_from_right
from .site_scan import in_groups, segmented_scan

if TYPE_CHECKING:
    from .linear import LinearOutputs


def swept_cumulants(
    outputs: LinearOutputs, mps: ChainMPS, x: Float[Array, "n fan_in"]
) -> tuple[Float[Array, "n outputs"], Float[Array, "n outputs"]]:
    """The mean and the variance of every form over the Born distribution, exactly."""
    probabilities, values = deviations(mps)
    n_outputs = len(outputs.block_of)
    first = outputs.start + outputs.stride * np.asarray(outputs.block_of)
    sites = first + np.arange(outputs.fan_in)[:, None]
    starting = inserted_from_left(mps, values)[sites]
    ending = inserted_from_right(mps, values)[sites]
    tensors, bond = mps.sites[sites], mps.max_bond

    def some(x: jax.Array) -> jax.Array:
        def site(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            inserted, total = carry
            tensor, from_left, from_right, x = inputs
            met = jnp.einsum("cnlm,clm->nc", inserted, from_right).real
            half = jnp.einsum("cnlm,clsr->cnmsr", inserted, tensor)
            inserted = jnp.einsum("cnmsr,cmsq->cnrq", half, tensor.conj())
            inserted = inserted + x[:, None, None] * from_left[:, None]
            return (inserted, total + x[:, None] * met), None

        zero = jnp.zeros((n_outputs, len(x), bond, bond), tensors.dtype)
        start = (zero, jnp.zeros((len(x), n_outputs), x.dtype))
        return segmented_scan(site, start, (tensors, starting, ending, x.T))[1]

    n_bytes = n_outputs * bond**2 * tensors.dtype.itemsize
    pairs = in_groups(some, n_bytes, x)
    own = jnp.einsum("nj,cj->nc", x**2, outputs.rows(probabilities * (1 - probabilities)))
    return outputs.mean(probabilities, x), outputs.gain**2 * (own + 2 * pairs)
