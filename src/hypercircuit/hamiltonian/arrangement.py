"""All values that a chain of equal factors can take, each of them once.

Neurons of one layer make the same of their own bits. What several of them make together, a sum or
a product, depends on the *multiset* of their bit patterns only: 3,876 instead of 65,536 values for
four neurons of 16 patterns each. Neighbouring factors of one kind are a run; an arrangement
is a sequence of runs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Neighbouring factors of one kind.

    **Attributes:**

    - `kind`: which kind.
    - `steps`: for every factor after the first one, the multisets of the factors before it, and
      the pattern that is added to each.
    - `place`: the multiset of all patterns one after the other, the first factor's most
      significant.
    - `size`: how many multisets there are.
    """

    kind: int
    steps: tuple[tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]], ...]
    place: Int[np.ndarray, " patterns"]
    size: int

    @classmethod
    def of(cls, kind: int, count: int, n_patterns: int) -> Run:
        """A run of `count` factors of `n_patterns` patterns each."""
        sets = np.arange(n_patterns)[:, None]
        place = np.arange(n_patterns)
        steps = []
        for n in range(2, count + 1):
            # Sequences that do not fall stand for multisets: only patterns from the last on follow.
            last = sets[:, -1]
            before = np.repeat(np.arange(len(sets)), n_patterns - last)
            added = np.concatenate([np.arange(first, n_patterns) for first in last])
            steps.append((before, added))
            powers = n_patterns ** np.arange(n)[::-1]
            more = np.column_stack([sets[before], added])
            # Where a multiset goes when any pattern is added to it.
            each = np.repeat(sets, n_patterns, axis=0)
            each = np.column_stack([each, np.tile(np.arange(n_patterns), len(sets))])
            insert = np.searchsorted(more @ powers, np.sort(each, axis=1) @ powers)
            place = insert.reshape(-1, n_patterns)[place].reshape(-1)
            sets = more
        return cls(kind, tuple(steps), place, len(sets))


@dataclasses.dataclass(frozen=True, eq=False)
class Arrangement:
    """A sequence of factors.

    **Attributes:**

    - `runs`: its runs.
    - `place`: where the value of every pattern of all bits stands in `combine`'s result.
    - `size`: how many values there are.
    """

    runs: tuple[Run, ...]
    place: Int[np.ndarray, " patterns"]
    size: int

    @classmethod
    def of(cls, kinds: Sequence[int], n_bits: Sequence[int]) -> Arrangement:
        """Factors of these kinds, each with its number of bits."""
        runs, place, size = [], np.zeros(1, int), 1
        for (kind, bits), group in itertools.groupby(zip(kinds, n_bits, strict=True)):
            run = Run.of(kind, len(list(group)), 2**bits)
            place = (place[:, None] * run.size + run.place).reshape(-1)
            runs.append(run)
            size *= run.size
        return cls(tuple(runs), place, size)

    def combine(
        self,
        tables: Sequence[np.ndarray],
        join: Callable[[np.ndarray, np.ndarray], np.ndarray],
        start: np.ndarray,
    ) -> np.ndarray:
        """Every value once, along the first axis.

        **Arguments:**

        - `tables`: what each kind makes of its patterns, which are the first axis.
        - `join`: the sum or product of two of them, entry by entry.
        - `start`: its neutral element, without the first axis.
        """
        result = start[None]
        for run in self.runs:
            several = table = tables[run.kind]
            for before, added in run.steps:
                several = join(several[before], table[added])
            result = join(result[:, None], several) if len(result) > 1 else several
            result = result.reshape(-1, *result.shape[-start.ndim :])
        return result
