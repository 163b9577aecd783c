"""A contraction tree as few large operations: equal contractions of one level are done together.

A tree of 785 tensors has 784 contractions, and a program with as many small operations takes
minutes to compile. Most of them are alike: they take tensors of equal shapes and tie equal axes
together. Those that may run at the same time are stacked and become one operation.

    level 0    o o o o o o o o      one stack of leaves
    level 1     o   o   o   o       one operation on two halves of it
    level 2       o       o         one
    level 3           o             one
"""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int

#: The label of the axis along which terms are batched.
TERMS = "b"

Index = int | str
_LETTERS = string.ascii_letters.replace("Z", "")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A tensor: its stack, its place there, and what its axes are (the stack's own aside)."""

    pool: Hashable
    position: int
    indices: tuple[Index, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Fixed:
    """Leaves of one stack whose sliced axes are taken out; `which` numbers the sliced indices."""

    source: Hashable
    positions: Int[np.ndarray, " n"]
    axes: tuple[int, ...]
    which: Int[np.ndarray, "n axes"]


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """Equal contractions: rows of two stacks, and the sum over axes as an einsum."""

    left: Hashable
    left_rows: Int[np.ndarray, " n"]
    right: Hashable
    right_rows: Int[np.ndarray, " n"]
    equation: str


@dataclasses.dataclass(frozen=True)
class Size:
    """Numbers that grow with the terms that are contracted at once: fixed + terms * each."""

    fixed: int
    each: int

    def at(self, terms: int) -> int:
        return self.fixed + terms * self.each


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """The operations of one contraction, or of one slice of it.

    **Attributes:**

    - `fixed`: stacks of leaves, by name.
    - `steps`: per level and stack that is made, its operations.
    - `output`: the stack that holds the result.
    - `sliced`: dimensions of the sliced indices.
    - `multiplications`: of one slice, in numbers of the result's kind.
    - `entries`: of all tensors made for one slice, leaves included, and `largest` of them.
    """

    fixed: dict[Hashable, _Fixed]
    steps: tuple[tuple[Hashable, tuple[_Step, ...]], ...]
    output: Hashable
    output_axes: tuple[int, ...]
    sliced: tuple[int, ...]
    multiplications: Size
    entries: Size
    largest: Size

    @property
    def n_slices(self) -> int:
        return math.prod(self.sliced)

    @property
    def n_operations(self) -> int:
        return sum(len(steps) for _, steps in self.steps)

    def run(self, pools: Mapping[Hashable, jax.Array]) -> jax.Array:
        """The contraction of stacked leaves, slice after slice."""
        if not self.sliced:
            return self._slice(pools, np.zeros(0, np.int32))
        numbers = np.stack(np.unravel_index(np.arange(self.n_slices), self.sliced), 1)
        one = jax.checkpoint(self._slice)
        first = one(pools, jnp.asarray(numbers[0]))

        def add(total: jax.Array, values: jax.Array) -> tuple[jax.Array, None]:
            return total + one(pools, values), None

        return lax.scan(add, first, jnp.asarray(numbers[1:]))[0]

    def _slice(self, pools: Mapping[Hashable, jax.Array], values: Any) -> jax.Array:
        made = {name: _fix(pools[each.source], each, values) for name, each in self.fixed.items()}
        for name, steps in self.steps:
            parts = []
            for step in steps:
                left = _rows(made[step.left], step.left_rows)
                right = _rows(made[step.right], step.right_rows)
                parts.append(
                    jnp.einsum(step.equation, left, right, precision=lax.Precision.HIGHEST)
                )
            made[name] = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        return made[self.output][0].transpose(self.output_axes)


def _fix(pool: jax.Array, fixed: _Fixed, values: Any) -> jax.Array:
    stack = _rows(pool, fixed.positions)
    # From the last axis on, so that the others keep their numbers.
    for number in reversed(range(len(fixed.axes))):
        axis, chosen = fixed.axes[number], values[fixed.which[:, number]]
        stack = jax.vmap(
            lambda tensor, at, axis=axis: lax.dynamic_index_in_dim(tensor, at, axis, False)
        )(stack, chosen)
    return stack


def _rows(stack: jax.Array, rows: np.ndarray) -> jax.Array:
    if np.array_equal(rows, np.arange(len(stack))):
        return stack
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    if step > 0 and np.array_equal(rows, rows[0] + step * np.arange(len(rows))):
        return lax.slice_in_dim(stack, rows[0], rows[-1] + 1, step)
    return stack.at[rows].get(unique_indices=True, mode="promise_in_bounds")


def make_schedule(
    leaves: Sequence[Leaf],
    output: tuple[Index, ...],
    sizes: Mapping[Index, int],
    merges: Sequence[tuple[int, int]],
    sliced: Sequence[Index] = (),
) -> Schedule:
    """Group the contractions of a tree.

    **Arguments:**

    - `leaves`: the tensors; an index may occur in any number of them.
    - `output`: the indices that are left.
    - `sizes`: of the indices; that of `TERMS` is of no account.
    - `merges`: pairs of node numbers in an order in which they can be done: leaves are numbered
      first, then every merge's result.
    - `sliced`: indices that are fixed in a slice, and summed over by the slices.
    """
    counts: dict[Index, int] = {}
    for leaf in leaves:
        for index in leaf.indices:
            counts[index] = counts.get(index, 0) + 1
    kept = set(output)
    out = set(sliced)
    number = {index: place for place, index in enumerate(sliced)}

    fixed_rows: dict[Any, list[tuple[int, list[int]]]] = {}
    names: list[tuple[Any, int]] = []
    indices: list[tuple[Index, ...]] = []
    seen: list[dict[Index, int]] = []
    for leaf in leaves:
        axes = tuple(axis for axis, index in enumerate(leaf.indices) if index in out)
        stack = ("leaf", leaf.pool, axes)
        members = fixed_rows.setdefault(stack, [])
        names.append((stack, len(members)))
        members.append((leaf.position, [number[leaf.indices[axis]] for axis in axes]))
        rest = tuple(index for index in leaf.indices if index not in out)
        indices.append(rest)
        seen.append(dict.fromkeys(rest, 1))
    fixed = {
        name: _Fixed(
            name[1],
            np.array([position for position, _ in rows]),
            name[2],
            np.array([which for _, which in rows], np.int32).reshape(len(rows), -1),
        )
        for name, rows in fixed_rows.items()
    }

    def extent(present: Sequence[Index]) -> tuple[int, bool]:
        count = math.prod(sizes[index] for index in present if index != TERMS)
        return count, TERMS in present

    work, entries, largest = [0, 0], [0, 0], [0, 0]
    for rest in indices:
        count, batched = extent(rest)
        entries[batched] += count
        largest[batched] = max(largest[batched], count)

    levels = [0] * len(leaves)
    groups: dict[int, dict[Hashable, dict[tuple, list[tuple[int, int, int]]]]] = {}
    for left, right in merges:
        if str(_kind(indices[left], sizes)) > str(_kind(indices[right], sizes)):
            left, right = right, left
        level = 1 + max(levels[left], levels[right])
        together = dict(seen[left])
        for index, times in seen[right].items():
            together[index] = together.get(index, 0) + times
        remaining = {
            index for index, times in together.items() if times < counts[index] or index in kept
        }
        a, b = indices[left], indices[right]
        shared = [index for index in a if index in b and index in remaining]
        alone = [index for index in a if index not in b and index in remaining]
        alone_b = [index for index in b if index not in a and index in remaining]
        result = tuple(shared + alone + alone_b)
        letters = dict(zip(dict.fromkeys((*a, *b)), _LETTERS, strict=False))
        equation = "{},{}->{}".format(
            *("Z" + "".join(letters[index] for index in part) for part in (a, b, result))
        )
        node = len(indices)
        name = (level, _kind(result, sizes))
        names.append((name, -1))
        indices.append(result)
        seen.append({index: together[index] for index in result})
        levels.append(level)
        key = (names[left][0], names[right][0], equation)
        groups.setdefault(level, {}).setdefault(name, {}).setdefault(key, []).append(
            (node, left, right)
        )
        count, batched = extent(tuple(dict.fromkeys((*a, *b))))
        work[batched] += count
        count, batched = extent(result)
        entries[batched] += count
        largest[batched] = max(largest[batched], count)

    steps = []
    for level in sorted(groups):
        for made_name, kinds in groups[level].items():
            made, place = [], 0
            for (left_pool, right_pool, equation), nodes in kinds.items():
                for node, _, _ in nodes:
                    names[node] = (made_name, place)
                    place += 1
                rows = np.array([[names[left][1], names[right][1]] for _, left, right in nodes])
                made.append(_Step(left_pool, rows[:, 0], right_pool, rows[:, 1], equation))
            steps.append((made_name, tuple(made)))
    axes = tuple(indices[-1].index(index) for index in output)
    if len(axes) != len(indices[-1]):
        raise ValueError(f"indices {indices[-1]} are left, {output} were to be")
    return Schedule(
        fixed,
        tuple(steps),
        names[-1][0],
        axes,
        tuple(sizes[index] for index in sliced),
        Size(*work),
        Size(*entries),
        Size(*largest),
    )


def _kind(indices: Sequence[Index], sizes: Mapping[Index, int]) -> tuple:
    """What two stacks must agree in to be one: the sizes of their axes."""
    return tuple(TERMS if index == TERMS else sizes[index] for index in indices)
