"""The kernel for compressed operators: one matrix product per cell, value and gradient by scans.

A vector on (doubled bond of the state) x (bond of the operator) is swept over the cells,

    v'[y, b] = sum_{x, s, a} v[x, a] maps[s, x, y] W[a, s, b],

the large factor as one product of (y) x (a s) with (a s) x (b). The gradient is written out: with
the vectors r from the right, of the same form, the derivative in a cell's maps is
``sum_ab v[x, a] W[a, s, b] r[y, b]``. Vectors are scaled at every cell and the logs of the scales
kept, so that chains of any length neither over- nor underflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from .._types import AnyArray
from ..hamiltonian import DiagonalMPO
from ..state import ExactMPS

_HIGHEST = lax.Precision.HIGHEST
Operators = TypeVar("Operators")


class CellOperators(eqx.Module):
    """Operators of equal length in the cells of a state, padded to one bond dimension.

    **Attributes:**

    - `tensors`: (cell, operator, left, bits, right); both ends are bond 0.
    - `first`: the first cell of every operator.
    """

    tensors: Float[AnyArray, "n_cells operators bond 4 bond"]
    first: Int[AnyArray, " operators"]


def cell_operators(
    parts: list[tuple[int, DiagonalMPO]], bond: int, dtype: np.dtype
) -> tuple[CellOperators, ...]:
    """Lay out operators that start at some sites of the chain, those of equal length together.

    **Arguments:**

    - `parts`: every operator's first site, and the operator.
    - `bond`: what all bonds are padded to.
    """
    cells = ((start // 2, _cells(start, mpo)) for start, mpo in parts)
    return padded_groups(CellOperators, cells, bond, dtype)


def _cells(start: int, mpo: DiagonalMPO) -> list[np.ndarray]:
    """The operator's tensors cell by cell."""
    tensors = list(mpo.tensors)
    # A cell that the operator begins or ends within has an identity on its other site.
    if start % 2:
        tensors.insert(0, np.ones((1, 2, 1)))
    if len(tensors) % 2:
        tensors.append(np.ones((1, 2, 1)))
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return [np.tensordot(a, b, axes=1).reshape(len(a), 4, b.shape[2]) for a, b in pairs]


def padded_groups(
    kind: Callable[[np.ndarray, np.ndarray], Operators],
    parts: Iterable[tuple[int, Sequence[np.ndarray]]],
    bond: int,
    dtype: np.dtype,
) -> tuple[Operators, ...]:
    """Operators, by the place and the tensors of each, stacked with those of equal length."""
    groups: dict[int, list[tuple[int, np.ndarray]]] = {}
    for first, tensors in parts:
        padded = np.zeros((len(tensors), bond, tensors[0].shape[1], bond), dtype)
        for place, tensor in zip(padded, tensors, strict=True):
            place[: tensor.shape[0], :, : tensor.shape[2]] = tensor
        groups.setdefault(len(tensors), []).append((first, padded))
    every = (zip(*group, strict=True) for group in groups.values())
    return tuple(kind(np.stack(padded, axis=1), np.array(first)) for first, padded in every)


def expectations(mps: ExactMPS, operators: CellOperators) -> Float[Array, " operators"]:
    """The expectation of every operator in a state; differentiable in the state."""
    n_cells = len(operators.tensors)
    cells = operators.first + jnp.arange(n_cells)[:, None]
    left = mps.left[operators.first]
    right = mps.right[operators.first + n_cells]
    return _swept(mps.maps[cells], left, right, jnp.asarray(operators.tensors))


@jax.custom_vjp
def _swept(maps: jax.Array, left: jax.Array, right: jax.Array, tensors: jax.Array) -> jax.Array:
    vectors, logs, _ = _forward(maps, left, tensors)
    return _end(vectors, right) * jnp.exp(logs)


def _forward(
    maps: jax.Array, left: jax.Array, tensors: jax.Array
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """The vectors after all cells with the logs of their scales, and those before every cell."""
    n_operators, bond = len(left), tensors.shape[2]
    start = jnp.zeros((n_operators, left.shape[1], bond), left.dtype).at[:, :, 0].set(left)

    def cell(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        vectors, logs = carry
        moves, tensor = inputs
        spread = jnp.einsum("oxa,osxy->oyas", vectors, moves, precision=_HIGHEST)
        shape = spread.shape
        flat = spread.reshape(*shape[:2], -1)
        following = jnp.matmul(flat, tensor.reshape(shape[0], -1, bond), precision=_HIGHEST)
        scale = _scale(following)
        carry = following / scale[:, None, None], logs + jnp.log(scale)
        return carry, (vectors, logs)

    first = (start, jnp.zeros(n_operators, left.dtype))
    (vectors, logs), before = lax.scan(cell, first, (maps, tensors))
    return vectors, logs, before


def _end(vectors: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.sum(vectors[:, :, 0] * right, axis=1)


def _scale(vectors: jax.Array) -> jax.Array:
    largest = jnp.abs(vectors).max((1, 2))
    return jnp.where(largest > 0, largest, 1)


def _swept_forward(
    maps: jax.Array, left: jax.Array, right: jax.Array, tensors: jax.Array
) -> tuple[jax.Array, tuple]:
    vectors, logs, before = _forward(maps, left, tensors)
    value = _end(vectors, right) * jnp.exp(logs)
    return value, (maps, right, tensors, vectors, logs, before)


def _swept_backward(residuals: tuple, cotangent: jax.Array) -> tuple:
    maps, right, tensors, vectors, logs, before = residuals
    bond = tensors.shape[2]
    start = jnp.zeros((*right.shape, bond), right.dtype).at[:, :, 0].set(right)

    def cell(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        after, after_logs = carry
        moves, tensor, vectors, logs = inputs
        n_operators = len(after)
        flat = tensor.reshape(n_operators, -1, bond)
        opened = jnp.einsum("okb,oyb->oky", flat, after, precision=_HIGHEST)
        opened = opened.reshape(n_operators, bond, 4, -1)
        # Each factor's log alone may be large; their sum belongs to the derivative.
        factor = (cotangent * jnp.exp(logs + after_logs))[:, None, None, None]
        gradient = factor * jnp.einsum("oxa,oasy->osxy", vectors, opened, precision=_HIGHEST)
        following = jnp.einsum("osxy,oasy->oxa", moves, opened, precision=_HIGHEST)
        scale = _scale(following)
        carry = following / scale[:, None, None], after_logs + jnp.log(scale)
        return carry, gradient

    (after, after_logs), gradient = lax.scan(
        cell, (start, jnp.zeros_like(logs)), (maps, tensors, *before), reverse=True
    )
    to_left = (cotangent * jnp.exp(after_logs))[:, None] * after[:, :, 0]
    to_right = (cotangent * jnp.exp(logs))[:, None] * vectors[:, :, 0]
    # The operators are data: nothing is differentiated in them.
    return gradient, to_left, to_right, None


_swept.defvjp(_swept_forward, _swept_backward)
