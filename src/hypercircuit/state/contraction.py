"""Expectations of product operators on graph circuits, by one contraction per structure.

An operator of the network is a product over sites of factors d (two numbers by the site's bit). Its
factors carry labelled axes: `TERMS` for the terms that are evaluated together, and further ones
such as the frequencies of one output, over which the contraction sums. Everything else of the
network, and the path through it, is shared by all terms.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .balance import balance
from .paths import MOST_SLICES, REFERENCE_TERMS, PathSearch, slice_tree
from .schedule import TERMS, Index, Leaf, Schedule, make_schedule
from .worldlines import Worldlines

#: Value and gradient keep every tensor of a slice and one number for each of its entries.
_KEPT = 2
#: A value, its backward pass (twice the work), and the values computed again for it.
_WITH_GRADIENT = 4
#: A tensor without axes, for networks of one tensor.
_ONE = ("one",)
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a value and its gradient may take.

    **Arguments:**

    - `max_bytes`: of memory, for the tensors of one contraction; above 0. Terms are cut into
      batches, and contractions into slices, until it is kept.
    - `max_flops`: floating-point operations of one batch of examples; above 0.
    """

    max_bytes: float = 2e9
    max_flops: float = 1e13

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")


@dataclasses.dataclass(frozen=True)
class ContractionCost:
    """What value and gradient of one batch of examples cost, known before any of it is run.

    **Attributes:**

    - `flops`: floating-point operations, real ones.
    - `bytes`: largest memory of the tensors at any time, those kept for the gradient included.
    - `terms`: product terms (or examples, for losses of all outputs together) of the batch, and
      `terms_at_once` of them.
    - `slices`: of each contraction.
    - `width`: log2 of the entries of the largest tensor of one term.
    - `n_tensors`, `n_operations`: of the network, and of the compiled program.
    - `path_seconds`: what the search took, and whether it was `cached`.
    - `refined`: whether the path was looked for with care; one that is far too large is not, and
      its numbers are larger than they might be.
    """

    flops: float
    bytes: float
    terms: int
    terms_at_once: int
    slices: int
    width: float
    n_tensors: int
    n_operations: int
    path_seconds: float
    cached: bool
    refined: bool = True

    def __add__(self, other: ContractionCost) -> ContractionCost:
        """Of two contractions after one another."""
        wider = self if self.width >= other.width else other
        return ContractionCost(
            self.flops + other.flops,
            max(self.bytes, other.bytes),
            self.terms + other.terms,
            wider.terms_at_once,
            max(self.slices, other.slices),
            wider.width,
            self.n_tensors + other.n_tensors,
            self.n_operations + other.n_operations,
            self.path_seconds + other.path_seconds,
            self.cached and other.cached,
            self.refined and other.refined,
        )

    def times(self, n: int) -> ContractionCost:
        """Of the same contraction done `n` times."""
        return dataclasses.replace(self, flops=n * self.flops, terms=n * self.terms)

    def derived(self, order: int) -> ContractionCost:
        """With derivatives in forward mode, each of which at most doubles the work."""
        factor = 2**order
        return dataclasses.replace(self, flops=factor * self.flops, bytes=factor * self.bytes)

    def describe(self) -> str:
        """Everything in one line."""
        sliced = f", {self.slices} slices each" if self.slices > 1 else ""
        found = "from the cache" if self.cached else f"found in {self.path_seconds:.1f} s"
        found += "" if self.refined else ", a rough one"
        return (
            f"contraction of {self.n_tensors} tensors in {self.n_operations} operations (path "
            f"{found}): {self.terms} terms, {self.terms_at_once} at once{sliced}, largest tensor "
            f"2^{self.width:.1f} entries a term; value and gradient of a batch take "
            f"{_si(self.flops)}flops and {_si(self.bytes)}bytes"
        )

    def check(self, budget: Budget) -> None:
        """Refuse what exceeds a budget.

        **Raises:** `ValueError` that says what is too large and what to change.
        """
        fix = (
            "lower circuit.depth, take a graph whose cuts cross fewer edges (a smaller grid, "
            "schedule 'colours'), or fewer examples a batch"
        )
        rough = "" if self.refined else ", by a rough path"
        if self.bytes > budget.max_bytes:
            how = f"even in {self.slices} slices" if self.slices > 1 else "in one piece"
            if self.slices == 1 and self.bytes > MOST_SLICES * budget.max_bytes:
                how += f", for which {MOST_SLICES} slices would not make up"
            raise ValueError(
                f"the contraction needs {_si(self.bytes)}bytes {how} "
                f"(largest tensor 2^{self.width:.1f} entries a term{rough}), max_bytes is "
                f"{_si(budget.max_bytes)}bytes; raise max_bytes, {fix}"
            )
        if self.flops > budget.max_flops:
            raise ValueError(
                f"value and gradient of a batch take {_si(self.flops)}flops ({self.terms} terms, "
                f"{self.slices} slices each, largest tensor 2^{self.width:.1f} entries a "
                f"term{rough}), max_flops is {_si(budget.max_flops)}flops; raise max_flops, {fix}"
            )


def _si(value: float) -> str:
    for unit, prefix in _UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {prefix}" if value < 1000 * unit else f"{value:.1e} "
    return f"{value:.3g} "


@dataclasses.dataclass(frozen=True, eq=False)
class Contraction:
    """A network, the path through it and how many terms are contracted at once.

    **Attributes:**

    - `lines`: the circuit's part of the network.
    - `labels`: the axes that the factor of each of `lines.sites` carries.
    - `extras`: stacks of further tensors, the axes of each.
    - `schedule`: the path, made ready.
    - `terms_at_once`: length of the axis `TERMS` for one contraction.
    - `cost`: of all terms asked for.
    """

    lines: Worldlines
    labels: tuple[tuple[str, ...], ...]
    extras: tuple[tuple[tuple[str, ...], ...], ...]
    schedule: Schedule
    terms_at_once: int
    cost: ContractionCost

    def __call__(
        self,
        gates: jax.Array,
        operators: Mapping[tuple[str, ...], jax.Array],
        extras: Sequence[jax.Array] = (),
    ) -> jax.Array:
        """The contraction, over the axes of the output.

        **Arguments:**

        - `gates`: `lines.gates(params)`.
        - `operators`: per kind of labels (see `kind_of`) the factors (sites, *axes, 2) of the sites
          that carry it, in rising order.
        - `extras`: the stacks of further tensors.
        """
        return self.schedule.run(self._pools(gates, operators, extras))

    def _pools(
        self,
        gates: jax.Array,
        operators: Mapping[tuple[str, ...], jax.Array],
        extras: Sequence[jax.Array],
    ) -> dict[Any, jax.Array]:
        stacks = self.lines.stacks(gates)
        number = {site: place for place, site in enumerate(self.lines.sites)}
        order: dict[tuple[str, ...], dict[int, int]] = {}
        for site, labels in zip(self.lines.sites, self.labels, strict=True):
            of_kind = order.setdefault(kind_of(labels), {})
            of_kind[site] = len(of_kind)
        pools: dict[Any, jax.Array] = {("extra", n): each for n, each in enumerate(extras)}
        pools[_ONE] = jnp.ones(1, gates.real.dtype)
        groups: dict[Any, list[tuple[int, int]]] = {}
        for tensor in self.lines.tensors:
            if tensor.site >= 0:
                kind = kind_of(self.labels[number[tensor.site]])
                row = (tensor.position, order[kind][tensor.site])
                groups.setdefault((tensor.pool, kind), []).append(row)
        for place in {tensor.pool for tensor in self.lines.tensors if tensor.site < 0}:
            pools[("plain", place)] = stacks[place]
        for (pool, kind), rows in groups.items():
            members, places = np.array(rows).T
            stack, factors = stacks[pool][members], operators[kind][places]
            flat = stack.reshape(*stack.shape[:2], -1)
            made = jnp.einsum("n...s,nsx->n...x", factors, flat)
            pools[("site", pool, kind)] = made.reshape(*factors.shape[:-1], *stack.shape[2:])
        return pools


def kind_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels without what follows a colon: sites of several outputs may differ in it."""
    return tuple(label.split(":")[0] for label in labels)


def plan_contraction(
    lines: Worldlines,
    labels: Mapping[int, Sequence[str]],
    output: Sequence[str],
    sizes: Mapping[str, int],
    *,
    extras: Sequence[Sequence[Sequence[str]]] = (),
    terms: int,
    itemsize: int,
    budget: Budget,
    search: PathSearch,
    only_value: bool = False,
) -> Contraction:
    """Find a path and cut terms and indices so that the budget of memory is kept, if possible.

    **Arguments:**

    - `labels`: of the factor of every one of `lines.sites`, by qubit within the cone.
    - `output`: labels that are left; others are summed over.
    - `sizes`: of the labels other than `TERMS`.
    - `terms`: how many there are in all.
    - `itemsize`: bytes of a number of the result's kind.
    - `only_value`: no gradient is taken.

    The result's `cost.check(budget)` says whether the budget is kept.
    """
    leaves: list[Leaf] = []
    counter: dict[Any, int] = {}
    for tensor in lines.tensors:
        if tensor.site < 0:
            leaves.append(Leaf(("plain", tensor.pool), tensor.position, tensor.indices))
            continue
        own = tuple(labels[tensor.site])
        pool = ("site", tensor.pool, kind_of(own))
        position = counter.setdefault(pool, 0)
        counter[pool] += 1
        leaves.append(Leaf(pool, position, (*own, *tensor.indices)))
    for number, stack in enumerate(extras):
        leaves += [Leaf(("extra", number), n, tuple(each)) for n, each in enumerate(stack)]
    folded: dict[Index, int] = {index: 4 for tensor in lines.tensors for index in tensor.indices}
    dims: dict[Index, int] = {TERMS: REFERENCE_TERMS}
    dims.update(folded)
    dims.update(sizes)
    used = {index for leaf in leaves for index in leaf.indices}
    name = {index: str(index) for index in used}
    begun = time.perf_counter()
    if len(leaves) == 1:
        leaves.append(Leaf(_ONE, 0, ()))
    inputs = [tuple(name[index] for index in leaf.indices) for leaf in leaves]
    kept = itemsize * (1 if only_value else _KEPT)
    flops_each = (8 if itemsize in (8, 16) else 2) * (1 if only_value else _WITH_GRADIENT)
    # Every entry of a tensor is held in some slice, and takes an operation.
    largest = min(MOST_SLICES * budget.max_bytes / kept, budget.max_flops / flops_each)
    tree, seconds, cached, refined = search.find(
        inputs,
        tuple(output),
        {name[index]: dims[index] for index in used},
        largest * REFERENCE_TERMS,
    )
    back = {text: index for index, text in name.items()}

    def schedule_of(tree: Any) -> Schedule:
        sliced = [back[text] for text in tree.sliced_inds]
        rest = [[index for index in leaf.indices if index not in sliced] for leaf in leaves]
        merges = [(int(a), int(b)) for a, b in tree.get_ssa_path()]
        merges = balance(merges, rest, output, dims)
        return make_schedule(leaves, tuple(output), dims, merges, sliced)

    schedule = schedule_of(tree)
    while schedule.largest.at(1) > 4:
        excess = kept * schedule.entries.at(1) / budget.max_bytes
        # A slice of s is no smaller than an s-th of the whole.
        if excess <= 1 or excess * schedule.n_slices > MOST_SLICES:
            break
        target = schedule.largest.at(1) / max(2.0, excess)
        sliced = slice_tree(_with_one_term(tree), target, search.seed)
        if sliced.nslices == schedule.n_slices:
            break
        tree = sliced
        schedule = schedule_of(tree)
    spare = budget.max_bytes / kept - schedule.entries.fixed
    at_once = max(1, min(terms, int(spare // max(1, schedule.entries.each))))
    at_once = -(-terms // -(-terms // at_once))
    batches = -(-terms // at_once)
    cost = ContractionCost(
        flops=float(flops_each)
        * batches
        * schedule.n_slices
        * schedule.multiplications.at(at_once),
        bytes=float(kept) * schedule.entries.at(at_once),
        terms=terms,
        terms_at_once=at_once,
        slices=schedule.n_slices,
        width=math.log2(max(1, schedule.largest.at(1))),
        n_tensors=len(leaves),
        n_operations=schedule.n_operations,
        path_seconds=seconds if cached else time.perf_counter() - begun,
        cached=cached,
        refined=refined,
    )
    own_labels = tuple(tuple(labels[site]) for site in lines.sites)
    stacks = tuple(tuple(tuple(each) for each in stack) for stack in extras)
    return Contraction(lines, own_labels, stacks, schedule, at_once, cost)


def _with_one_term(tree: Any) -> Any:
    """The same tree with one term, so that its sizes are those of a slice."""
    import cotengra

    sizes = dict(tree.size_dict)
    if TERMS in sizes:
        sizes[TERMS] = 1
    sliced = list(tree.sliced_inds)
    fresh = cotengra.ContractionTree.from_path(
        tree.inputs, tree.output, sizes, ssa_path=tree.get_ssa_path()
    )
    for index in sliced:
        fresh.remove_ind_(index)
    return fresh


def in_batches(
    function: Any, arguments: Any, terms: int, terms_at_once: int, *, keep: bool = False
) -> jax.Array:
    """A function of arrays whose first axis is that of the terms, some terms at a time.

    The terms are padded to whole batches. For a gradient, each batch's tensors are made anew
    unless `keep`.
    """
    if terms_at_once >= terms:
        return function(arguments)
    batches = -(-terms // terms_at_once)
    missing = batches * terms_at_once - terms

    def split(values: jax.Array) -> jax.Array:
        values = jnp.concatenate([values, jnp.repeat(values[:1], missing, 0)])
        return values.reshape(batches, terms_at_once, *values.shape[1:])

    body = function if keep else jax.checkpoint(function)
    results = lax.map(body, jax.tree.map(split, arguments))
    return jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:])[:terms], results)
