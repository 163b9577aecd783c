"""The kernel for compressed operators on chains of site tensors.

    ket     --A--A--A--        an environment E[b, l, l'] at a cut: operator, ket and bra bond
    operator--W--W--W--
    bra     --A*-A*-A*-        E'[b, r, r'] = sum E[a, l, l'] A[l, s, r] W[a, s, b] A*[l', s, r']

is carried over the sites as three matrix products, bond^3 work per operator bond; the doubled bond
as one index, with its maps of bond^4 entries, is never formed. The gradient is written out: with
R[b, r, r'] from the right, of the same form, the derivative in the bra's tensor is

    G[l', s, r'] = sum E[a, l, l'] A[l, s, r] W[a, s, b] R[b, r, r'],

and since environments of diagonal real operators are Hermitian in (ket, bra), that in the ket is
its conjugate: one more product, and no second set of environments. They are scaled at every site,
the logs of the scales kept, so that chains of any length neither over- nor underflow.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from .._types import AnyArray
from ..hamiltonian import DiagonalMPO
from ..state import ChainMPS
from .operators import padded_groups

_HIGHEST = lax.Precision.HIGHEST


class SiteOperators(eqx.Module):
    """Operators on equally many sites, padded to one bond dimension.

    **Attributes:**

    - `tensors`: (site, operator, left, bit, right); both ends are bond 0.
    - `first`: the first site of every operator.
    """

    tensors: Float[AnyArray, "n_sites operators bond 2 bond"]
    first: Int[AnyArray, " operators"]


def site_operators(
    parts: list[tuple[int, DiagonalMPO]], bond: int, dtype: np.dtype
) -> tuple[SiteOperators, ...]:
    """Lay out operators that start at some sites of the chain, those of equal length together.

    **Arguments:**

    - `parts`: every operator's first site, and the operator.
    - `bond`: what all bonds are padded to.
    """
    sites = ((start, mpo.tensors) for start, mpo in parts)
    return padded_groups(SiteOperators, sites, bond, dtype)


def site_expectations(mps: ChainMPS, operators: SiteOperators) -> Float[Array, " operators"]:
    """The expectation of every operator in a state; differentiable in the state."""
    n_sites = len(operators.tensors)
    sites = operators.first + jnp.arange(n_sites)[:, None]
    left = mps.left[operators.first]
    right = mps.right[operators.first + n_sites]
    return _swept(mps.sites[sites], left, right, jnp.asarray(operators.tensors))


@jax.custom_vjp
def _swept(tensors: jax.Array, left: jax.Array, right: jax.Array, ops: jax.Array) -> jax.Array:
    environments, logs, _ = _forward(tensors, left, ops)
    return _end(environments, right) * jnp.exp(logs)


def _opened(left: jax.Array, bond: int) -> jax.Array:
    """A matrix on the bond where the operators' bond is 0."""
    shape = (len(left), bond, *left.shape[1:])
    return jnp.zeros(shape, left.dtype).at[:, 0].set(left)


def _forward(
    tensors: jax.Array, left: jax.Array, ops: jax.Array
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """The environments after all sites with the logs of their scales, and those before each."""

    def site(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        environments, logs = carry
        tensor, op = inputs
        ket = jnp.einsum("oalm,olsr->oasmr", environments, tensor, precision=_HIGHEST)
        ket = _times(op, ket, "oasb,oasx->obsx")
        following = jnp.einsum("obsmr,omsq->obrq", ket, tensor.conj(), precision=_HIGHEST)
        scale = _scale(following)
        carry = following / scale[:, None, None, None], logs + jnp.log(scale)
        return carry, (environments, logs)

    start = (_opened(left, ops.shape[2]), jnp.zeros(len(left), left.real.dtype))
    (environments, logs), before = lax.scan(site, start, (tensors, ops))
    return environments, logs, before


def _times(op: jax.Array, values: jax.Array, how: str) -> jax.Array:
    """A real operator tensor times complex values (operator, bond, bit, ..)."""
    flat = values.reshape(*values.shape[:3], -1)
    if not jnp.iscomplexobj(values):
        found = jnp.einsum(how, op, flat, precision=_HIGHEST)
    else:
        # As real numbers: half the work of taking the operator for complex.
        parts = jnp.concatenate([flat.real, flat.imag], axis=-1)
        found = jnp.einsum(how, op, parts, precision=_HIGHEST)
        found = lax.complex(*jnp.split(found, 2, axis=-1))
    return found.reshape(*found.shape[:3], *values.shape[3:])


def _end(environments: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.sum(environments[:, 0] * right, axis=(1, 2)).real


def _scale(environments: jax.Array) -> jax.Array:
    largest = jnp.abs(environments).max((1, 2, 3))
    return jnp.where(largest > 0, largest, 1)


def _swept_forward(
    tensors: jax.Array, left: jax.Array, right: jax.Array, ops: jax.Array
) -> tuple[jax.Array, tuple]:
    environments, logs, before = _forward(tensors, left, ops)
    value = _end(environments, right) * jnp.exp(logs)
    return value, (tensors, right, ops, environments, logs, before)


def _swept_backward(residuals: tuple, cotangent: jax.Array) -> tuple:
    tensors, right, ops, environments, logs, before = residuals

    def site(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        after, after_logs = carry
        tensor, op, environments, logs = inputs
        ket = jnp.einsum("olsr,obrq->obslq", tensor, after, precision=_HIGHEST)
        ket = _times(op, ket, "oasb,obsx->oasx")
        # Each factor's log alone may be large; their sum belongs to the derivative.
        factor = (cotangent * jnp.exp(logs + after_logs))[:, None, None, None]
        bra = jnp.einsum("oalm,oaslq->omsq", environments, ket, precision=_HIGHEST)
        following = jnp.einsum("oaslq,omsq->oalm", ket, tensor.conj(), precision=_HIGHEST)
        scale = _scale(following)
        carry = following / scale[:, None, None, None], after_logs + jnp.log(scale)
        return carry, 2 * factor * bra.conj()

    start = (_opened(right, ops.shape[2]), jnp.zeros_like(logs))
    (after, after_logs), gradient = lax.scan(site, start, (tensors, ops, *before), reverse=True)
    to_left = (cotangent * jnp.exp(after_logs))[:, None, None] * after[:, 0]
    to_right = (cotangent * jnp.exp(logs))[:, None, None] * environments[:, 0]
    # The operators are data: nothing is differentiated in them.
    return gradient, to_left, to_right, None


_swept.defvjp(_swept_forward, _swept_backward)
