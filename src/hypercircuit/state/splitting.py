"""Two ways to split a matrix into an isometry and the rest, with gradients that stay finite.

    truncate:   M = U S V^H  ->  A = U_K,          C = A^H M     (K: what is kept, D: the rest)
    move:       M = U S V^H  ->  A = U min(1, S/floor),  C = max(S, floor) V^H,  A C = M,
                or A = Q, C = R of M = Q R, if no value is below the floor

A matrix product state only means what is invariant under unitary changes of its bond bases, so a
derivative of `A` may be taken in the gauge A^H dA = 0: how the kept vectors turn among themselves
is dropped, and with it every difference of two kept singular values, degenerate or not. From the
eigenvectors of M M^H,

    dA = U_D X,   dC = A^H dM + dA^H M,
    X_ji = (s_i (U^H dM V)_ji + s_j conj (U^H dM V)_ij) / (s_i^2 - s_j^2),   i in K, j in D.

Only differences of a kept and a discarded value enter, as 1 / (s_i - s_j) and 1 / (s_i + s_j),
each broadened to x / (x^2 + width^2) with a width of some roundings of the largest value: zero, and
hence finite, where a truncation is ambiguous.

`move` discards nothing, so it can do better. A singular value below the floor keeps its column
in a different gauge: weight `floor` in C, length s/floor in A. Both factors are then smooth in M
where a direction has no weight at all, as at a product state, and what the state may become there
is not lost to the gradient:

    dC = U_K^H dM,   dA = (dM - A dC) C^-1,   K: values above the floor, other rows of dC zero.

Where no value can be below it, as 1 / |R^-1| bounds them, A and C are Q and R of a QR
decomposition, which takes a third of the time, and the same rule holds with Q for U_K. One matrix
with a value below the floor sends all of a batch the other way, and `vmap` goes both.

The floor, eps^(2/3) of the largest value, balances its square, by which A misses being an isometry
as seen by the state, against the rounding errors eps / floor of the gradient.

The backward rules use saved factors and are products of matrices only.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact, Int

#: Widths of the broadened differences, in roundings of the largest singular value.
_WIDTH = 100
Matrices = Inexact[Array, "*batch _ _"]


def adjoint(matrix: jax.Array) -> jax.Array:
    """The conjugate transpose of the last two axes."""
    return jnp.swapaxes(matrix, -1, -2).conj()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def truncate(
    matrix: Matrices, rank: Int[Array, "*batch"], max_bond: int, cutoff: float
) -> tuple[Matrices, Matrices, Matrices, Float[Array, "*batch"]]:
    """The best approximation A C of a bounded rank, A an isometry.

    **Arguments:**

    - `matrix`: (..., rows, columns), square and not zero.
    - `rank`: how many singular values to keep at most (...), up to `max_bond`.
    - `max_bond`: columns of A and rows of C, at most the number of rows of the matrix.
    - `cutoff`: singular values whose square is below this share of the sum of squares are dropped
      as well: their columns of A and rows of C are zero. The largest always stays.

    **Returns:** A (..., rows, max_bond); C (..., max_bond, columns); the right isometry V_K^H
    (..., max_bond, columns), a constant to the gradient; and the share of the squared norm thrown
    away (...), a constant as well.
    """
    return _truncate_forward(matrix, rank, max_bond, cutoff)[0]


def _truncate_forward(matrix: jax.Array, rank: jax.Array, max_bond: int, cutoff: float) -> tuple:
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    kept = _kept(values, rank, cutoff)
    squares = values**2
    weight = jnp.sum(jnp.where(kept, 0, squares), -1) / jnp.sum(squares, -1)
    shown = kept[..., :max_bond]
    isometry = left[..., :, :max_bond] * shown[..., None, :]
    constant = right[..., :max_bond, :] * shown[..., :, None]
    rest = values[..., :max_bond, None] * constant
    return (isometry, rest, constant, weight), (left, values, right, rank)


def _truncate_backward(max_bond: int, cutoff: float, factors: tuple, given: tuple) -> tuple:
    left, values, right, rank = factors
    # JAX pairs a cotangent with a tangent without conjugation, the formulas here with it.
    of_isometry, of_rest = given[0].conj(), given[1].conj()
    kept = _kept(values, rank, cutoff)
    shown = kept[..., :max_bond]
    pairs = ~kept[..., :, None] & shown[..., None, :]
    s_kept, s_all = values[..., None, :max_bond], values[..., :, None]
    width = _WIDTH * jnp.finfo(values.dtype).eps * values[..., :1, None]
    difference = jnp.where(pairs, _inverse(s_kept - s_all, width), 0)
    total = jnp.where(pairs, _inverse(s_kept + s_all, width), 0)
    turned = adjoint(left) @ of_isometry + s_all * (right @ adjoint(of_rest))
    direct = (difference + total) / 2 * turned
    mirrored = (difference - total) / 2 * turned
    left_kept = left[..., :, :max_bond]
    isometry = left_kept * shown[..., None, :]
    found = isometry @ of_rest + left @ (direct @ right[..., :max_bond, :])
    found = found + left_kept @ (adjoint(mirrored) @ right)
    return found.conj(), None


truncate.defvjp(_truncate_forward, _truncate_backward)


@jax.custom_vjp
def move(matrix: Matrices) -> tuple[Matrices, Matrices]:
    """The matrix (..., rows, columns <= rows) as A (..., rows, columns) and C, A C = matrix.

    A^H A is the identity up to singular values below the floor, which shorten their column.
    """
    return _move_forward(matrix)[0]


def _move_forward(matrix: jax.Array) -> tuple:
    q, r = jnp.linalg.qr(matrix)
    identity = jnp.broadcast_to(jnp.eye(r.shape[-1], dtype=r.dtype), r.shape)
    inverse = lax.linalg.triangular_solve(r, identity, left_side=True)
    # The smallest singular value is not below 1 / |R^-1|, the largest not above |R|.
    inside = jnp.all(_norm(r) * _norm(inverse) * _relative_floor(matrix) <= 1)
    return lax.cond(inside, lambda: ((q, r), (q, inverse)), lambda: _by_values(q, r))


def _by_values(q: jax.Array, r: jax.Array) -> tuple:
    left, values, right = jnp.linalg.svd(r)
    left = q @ left
    floor = _relative_floor(r) * values[..., :1]
    weights = jnp.maximum(values, floor)
    isometry = left * (values / weights)[..., None, :]
    used = left * (values >= floor)[..., None, :]
    inverse = adjoint(right) / weights[..., None, :]
    return (isometry, weights[..., :, None] * right), (used, inverse)


def _move_backward(factors: tuple, given: tuple) -> tuple:
    used, inverse = factors
    of_isometry, of_rest = given[0].conj(), given[1].conj()
    ambient = of_isometry @ adjoint(inverse)
    found = ambient + used @ (of_rest - adjoint(used) @ ambient)
    return (found.conj(),)


move.defvjp(_move_forward, _move_backward)


def without_scale(matrix: Matrices) -> Matrices:
    """The matrix over its norm, which the gradient takes for a constant.

    Right wherever only the direction of the state matters.
    """
    squares = jnp.sum(matrix.real**2 + jnp.imag(matrix) ** 2, (-2, -1), keepdims=True)
    return matrix / lax.stop_gradient(jnp.sqrt(squares))


def _kept(values: jax.Array, rank: jax.Array, cutoff: float) -> jax.Array:
    squares = values**2
    large = squares >= cutoff * jnp.sum(squares, -1, keepdims=True)
    position = jnp.arange(values.shape[-1])
    return (position < rank[..., None]) & (large | (position == 0))


def _norm(matrix: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.abs(matrix) ** 2, (-2, -1)))


def _relative_floor(matrix: jax.Array) -> float:
    return float(jnp.finfo(matrix.dtype).eps ** (2 / 3))


def _inverse(x: jax.Array, width: jax.Array) -> jax.Array:
    return x / (x**2 + width**2)
