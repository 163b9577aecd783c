"""Flatter contraction trees of the same cost.

    ((((a b) c) d) e) f    ->    ((a b) (c d)) (e f)       where no contraction gets dearer

A product of many tensors that share an index, or a chain, can be contracted in any order; searches
return the order that builds one tensor up. In a flat tree many contractions are independent, and
equal ones are done together (`schedule.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Index = int | str


def balance(
    merges: Sequence[tuple[int, int]],
    inputs: Sequence[Sequence[Index]],
    output: Sequence[Index],
    sizes: Mapping[Index, int],
) -> list[tuple[int, int]]:
    """Turn ``(a b) c`` into ``a (b c)`` wherever that makes a tree flatter and not dearer.

    **Arguments:**

    - `merges`: pairs of node numbers; inputs are numbered first, then every merge's result.
    - `inputs`: the indices of every tensor, sliced ones left out.
    """
    counts: dict[Index, int] = {}
    for present in inputs:
        for index in present:
            counts[index] = counts.get(index, 0) + 1
    for index in output:
        counts[index] = counts.get(index, 0) + 1
    open_ = [dict.fromkeys(present, 1) for present in inputs]
    children: dict[int, tuple[int, int]] = {}
    depth = [0] * len(inputs)

    def union(a: int, b: int) -> tuple[dict[Index, int], float]:
        """What is open after a contraction, and the numbers it multiplies."""
        joined = dict(open_[a])
        for index, times in open_[b].items():
            joined[index] = joined.get(index, 0) + times
        work = math.prod(float(sizes[index]) for index in joined)
        return {index: times for index, times in joined.items() if times < counts[index]}, work

    work: dict[int, float] = {}
    for left, right in merges:
        node = len(open_)
        joined, effort = union(left, right)
        open_.append(joined)
        children[node], work[node] = (left, right), effort
        depth.append(1 + max(depth[left], depth[right]))
    root = len(open_) - 1
    changed = True
    while changed:
        changed = False
        for node in _post_order(children, root):
            first, second = children[node]
            if depth[first] < depth[second]:
                first, second = second, first
            while first in children:
                deep, other = children[first]
                if depth[deep] < depth[other]:
                    deep, other = other, deep
                if depth[deep] <= max(depth[other], depth[second]):
                    break
                before = open_[first], work[first]
                joined, effort = union(other, second)
                open_[first] = joined
                _, total = union(deep, first)
                if effort + total > work[first] + work[node] or _entries(joined, sizes) > _entries(
                    before[0], sizes
                ):
                    open_[first] = before[0]
                    break
                # The node `first` now stands for the two shallow ones.
                children[first], work[first] = (other, second), effort
                depth[first] = 1 + max(depth[other], depth[second])
                first, second = (deep, first) if depth[deep] >= depth[first] else (first, deep)
                children[node], work[node] = (first, second), total
                changed = True
            depth[node] = 1 + max(depth[first], depth[second])
    number = {leaf: leaf for leaf in range(len(inputs))}
    result: list[tuple[int, int]] = []
    for node in _post_order(children, root):
        number[node] = len(inputs) + len(result)
        left, right = children[node]
        result.append((number[left], number[right]))
    return result


def _entries(present: Mapping[Index, int], sizes: Mapping[Index, int]) -> float:
    return math.prod(float(sizes[index]) for index in present)


def _post_order(children: Mapping[int, tuple[int, int]], root: int) -> list[int]:
    """Merges, children before parents."""
    order, stack = [], [root]
    while stack:
        node = stack.pop()
        if node in children:
            order.append(node)
            stack.extend(children[node])
    return order[::-1]
