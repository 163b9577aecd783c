"""Hermitian matrices on a bond carried over one site, for all sites of a chain at once.

    Y[r, q] = sum_{l, m, s} A[l, s, r] X[l, m] conj A[m, s, q]

Real and imaginary parts are arrays of their own: XLA's products of small complex matrices take two
to three times as long as the four real ones on a CPU. The gradient takes X, and hence the
derivative with respect to Y, for Hermitian, which makes the two derivatives with respect to A one.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

#: A real array, or the real and the imaginary part of a complex one.
Parts: TypeAlias = tuple[Float[jax.Array, "..."], ...]


def parts(values: jax.Array) -> Parts:
    """A real array as it is, a complex one in two."""
    return (values.real, values.imag) if jnp.iscomplexobj(values) else (values,)


def real_trace(a: Parts, b: Parts) -> jax.Array:
    """The real part of ``sum_{l, m} a[l, m] b[l, m]`` for every site."""
    total = (a[0] * b[0]).sum((-2, -1))
    return total if len(a) == 1 else total - (a[1] * b[1]).sum((-2, -1))


@jax.custom_vjp
def carried(x: Parts, tensors: Parts) -> Parts:
    """Y of the module's text.

    **Arguments:**

    - `x`: (n, bond, bond), Hermitian.
    - `tensors`: (n, bond, 2, bond), axes (left, phys, right).
    """
    return _times(_transposed(_tall(tensors)), _tall(_half(x, tensors)))


def _carried_forward(x: Parts, tensors: Parts) -> tuple[Parts, tuple[Parts, Parts]]:
    return carried(x, tensors), (x, tensors)


def _carried_backward(saved: tuple[Parts, Parts], given: Parts) -> tuple[Parts, Parts]:
    x, tensors = saved
    # The derivative dL = Re(g dY) has g = given[0] - i given[1], of which the Hermitian part acts.
    g = _conjugate(given)
    g = tuple((a + b) / 2 for a, b in zip(g, _conjugate(_transposed(g)), strict=True))
    of_tensors = _times(_tall(_half(x, tensors)), _transposed(g))
    shape = tensors[0].shape
    of_tensors = tuple(2 * each.reshape(shape) for each in of_tensors)
    right = tuple(each.reshape(shape) for each in _times(_tall(tensors), g))
    of_x = _times(_wide(right), _conjugate(_transposed(_wide(tensors))))
    return _conjugate(of_x), _conjugate(of_tensors)


carried.defvjp(_carried_forward, _carried_backward)


def _half(x: Parts, tensors: Parts) -> Parts:
    """``sum_m X[l, m] conj A[m, s, q]`` (n, bond, 2, bond)."""
    found = _times(x, _conjugate(_wide(tensors)))
    return tuple(each.reshape(tensors[0].shape) for each in found)


def _times(a: Parts, b: Parts) -> Parts:
    assert len(a) == len(b), "both real or both complex"
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    if len(a) == 1:
        return (product(a[0], b[0]),)
    real = product(a[0], b[0]) - product(a[1], b[1])
    return real, product(a[0], b[1]) + product(a[1], b[0])


def _conjugate(a: Parts) -> Parts:
    return (a[0], *(-each for each in a[1:]))


def _transposed(a: Parts) -> Parts:
    return tuple(each.mT for each in a)


def _tall(a: Parts) -> Parts:
    """Left and physical axis in one."""
    return tuple(each.reshape(each.shape[0], -1, each.shape[-1]) for each in a)


def _wide(a: Parts) -> Parts:
    """Physical and right axis in one."""
    return tuple(each.reshape(*each.shape[:2], -1) for each in a)
