"""Contraction paths: searched once per structure with cotengra, and kept on disk.

A structure is what the search sees: which tensors share which indices, and their sizes. Angles,
examples and frequencies are not part of it, so that training, evaluating and sampling with one
circuit look a path up.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cotengra

#: The size that a path is searched for along the axis of terms; the number in a run differs.
REFERENCE_TERMS = 32
#: More slices of one contraction are not tried.
MOST_SLICES = 4096
#: Where rough trees have tensors of this many entries, none is refined, whatever the budget is.
_HOPELESS = 2.0**48
#: By how much refining may make the largest tensor of `_ROUGH` trees smaller; 2^4 was seen.
_REFINING = 2.0**8
#: Rough trees that are looked at before a search is given up; single ones were 2^30 too large.
_ROUGH = 8


def default_cache() -> Path:
    """`hypercircuit/paths` in the user's cache folder, by `XDG_CACHE_HOME` where it is set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hypercircuit" / "paths"


class FoundPath(NamedTuple):
    """A path, how long the search took, and how it went.

    **Attributes:**

    - `tree`: of cotengra.
    - `cached`: whether it came from the cache.
    - `refined`: whether more than a rough tree was looked for.
    """

    tree: Any
    seconds: float
    cached: bool
    refined: bool


@dataclasses.dataclass(frozen=True)
class PathSearch:
    """How contraction paths are searched.

    **Arguments:**

    - `repeats`: trees that cotengra's hyper-optimiser tries, at least 1; each one is refined by
      reconfiguring its subtrees.
    - `cache`: the folder that found paths are kept in; left out, `default_cache()`.
    - `seed`: of the settings that the search tries. Ties within a search are broken at random: it
      is the cache that gives the same structure the same path.

    **Raises:** `ValueError` if `repeats` is not positive.
    """

    repeats: int = 8
    cache: str | os.PathLike[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")

    def find(
        self,
        inputs: Sequence[tuple[str, ...]],
        output: tuple[str, ...],
        sizes: Mapping[str, int],
        largest: float = math.inf,
    ) -> FoundPath:
        """The tree of a contraction of several tensors.

        **Arguments:**

        - `largest`: entries of a tensor that can be afforded, slicing included. A rough tree that
          is far beyond is not refined, and not kept: another budget may allow more.
        """
        folder = Path(default_cache() if self.cache is None else self.cache)
        folder = folder / f"cotengra-{cotengra.__version__}-{self.repeats}-{self.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        optimiser = cotengra.ReusableHyperOptimizer(
            directory=str(folder),
            methods=("greedy",),
            minimize="combo",
            max_repeats=self.repeats,
            optlib="random",
            optlib_opts={"seed": self.seed},
            parallel=False,
            reconf_opts={},
        )
        _, missing = optimiser.hash_query(inputs, output, dict(sizes))
        if missing:
            most = min(_HOPELESS, _REFINING * largest)
            tree = self._rough(inputs, output, sizes, 1)
            if tree.max_size() >= most:
                tree = self._rough(inputs, output, sizes, _ROUGH)
            if tree.max_size() >= most:
                return FoundPath(tree, time.perf_counter() - begun, False, False)
        tree = optimiser.search(inputs, output, dict(sizes))
        return FoundPath(tree, time.perf_counter() - begun, not missing, True)

    def _rough(
        self,
        inputs: Sequence[tuple[str, ...]],
        output: tuple[str, ...],
        sizes: Mapping[str, int],
        repeats: int,
    ) -> Any:
        """The best of a few trees, not refined: whether a search is worth its time."""
        optimiser = cotengra.HyperOptimizer(
            methods=("greedy",),
            max_repeats=repeats,
            optlib="random",
            optlib_opts={"seed": self.seed},
            parallel=False,
            reconf_opts=None,
            slicing_opts=None,
            simulated_annealing_opts=None,
        )
        return optimiser.search(inputs, output, dict(sizes))


def slice_tree(tree: Any, largest: float, seed: int) -> Any:
    """A copy of the tree with at least one more index fixed where one is left: until no tensor
    exceeds `largest` or there are `MOST_SLICES` slices."""
    tree = tree.copy()
    while True:
        before = tree.nslices
        tree.slice_(target_slices=2, allow_outer=False, max_repeats=4, seed=seed)
        if tree.nslices == before:
            return tree
        tree.subtree_reconfigure_(seed=seed)
        if tree.max_size() <= largest or tree.nslices >= MOST_SLICES:
            return tree
