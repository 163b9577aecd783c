"""Runs in groups of equal settings: what they reach on average, how often, and how surely.

Rows are those of a sweep's table, see `table`. Runs whose settings agree in the chosen keys are one
group; what distinguishes them, seeds above all, is averaged over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .extrapolate import Extrapolation, extrapolate
from .success import Success, success_probability

#: Settings that only choose among equals: averaged over unless one asks for them.
SEEDS = ("train.seed", "data.split_seed")
#: Sections whose settings change what the smallest loss is.
_PROBLEM = ("data", "network", "loss")
#: Discarded weights up to here are rounding.
NOTHING = 1e-12
#: Largest discarded weight that a line goes through. The squared overlap with the exact state is
#: about exp(-w), which is off its line 1 - w by w^2 / 2: 5 % of w here, and all of it at w = 2.
LARGEST_FITTED = 0.1


@dataclass(frozen=True)
class Summary:
    """A quantity over the runs of a group.

    **Attributes:**

    - `n`: runs that have it and where it is finite.
    - `mean`, `standard_error`: of these; None for the error of a single run.
    - `low`, `median`, `high`: quartiles.
    """

    n: int
    mean: float
    standard_error: float | None
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Group:
    """The runs of equal settings.

    **Attributes:**

    - `settings`: {key: value}.
    - `rows`: all of them.
    """

    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @property
    def ended(self) -> list[Mapping[str, Any]]:
        """The rows that have an answer."""
        return [row for row in self.rows if row["status"] in ("finished", "non-finite")]

    def summary(self, column: str) -> Summary | None:
        """Mean and quartiles of a column, or None where no run has it."""
        values = np.array([row[column] for row in self.ended if row.get(column) is not None], float)
        values = values[np.isfinite(values)]
        n = len(values)
        if n == 0:
            return None
        low, median, high = (float(each) for each in np.quantile(values, (0.25, 0.5, 0.75)))
        if values.min() == values.max():  # exactly, where sums would round
            return Summary(n, low, 0.0 if n > 1 else None, low, median, high)
        error = float(values.std(ddof=1)) / math.sqrt(n)
        return Summary(n, float(values.mean()), error, low, median, high)

    def energy_error(self) -> float | None:
        """The standard error of the mean energy: from the scatter of the runs, or of a single run
        the one that it reports (of a sampled energy); None if neither is known.
        """
        energy, reported = self.summary("energy"), self.summary("energy_standard_error")
        if energy is not None and energy.n > 1:
            return energy.standard_error
        return None if reported is None else reported.mean

    def success(self, minima: Sequence[float], distance: float) -> Success | None:
        """The share of runs that end at most `distance` above the minimum of their problem.

        **Arguments:**

        - `minima`: of every row of `ended`. A run whose energy is not finite is a failure. None is
          returned where a minimum is not finite, or an energy is over some training examples only:
          those of the minimum are others.
        """
        if not self.ended or not np.isfinite(minima).all():
            return None
        if not all(is_over_all(row) for row in self.ended):
            return None
        energies = [row.get("energy") for row in self.ended]
        above = [
            (math.inf if energy is None else energy) - minimum
            for energy, minimum in zip(energies, minima, strict=True)
        ]
        return success_probability(np.array(above, float), 0.0, distance=distance)


def is_over_all(row: Mapping[str, Any]) -> bool:
    """Whether a run's energy is a mean over all training examples, as the losses of networks are.

    `train_examples` says how many there are. Results of older versions lack it; there the setting
    `decode.final_examples` decides: 0 is all, and a run that used fewer than it asked for used all.
    Without either a number of examples is taken for a part of them. A run without an energy is
    judged by what it would have used.
    """
    used, asked = row.get("energy_examples"), row.get("decode.final_examples")
    used = (asked or None) if used is None else used
    if used is None:
        return True
    if row.get("train_examples") is not None:
        return used >= row["train_examples"]
    return asked is not None and (asked == 0 or used < asked)


def make_groups(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Group]:
    """The rows by their values of `keys`, in ascending order of these."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        Group(dict(zip(keys, values, strict=True)), found[values])
        for values in sorted(found, key=lambda values: tuple(map(_order, values)))
    ]


def _order(value: Any) -> tuple[bool, Any]:
    return (True, value) if isinstance(value, str) else (False, value)


def varying_keys(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """The keys that have more than one value in the rows."""
    return [key for key in keys if len({row[key] for row in rows}) > 1]


def choose_axes(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """At most two axes of a comparison: numeric keys that vary, bond dimension and depth first.

    **Raises:** `ValueError` if none is left but seeds.
    """
    numeric = [
        key
        for key in varying_keys(rows, keys)
        if key not in SEEDS and all(_is_number(row[key]) for row in rows)
    ]
    first = [key for key in ("state.max_bond", "mpo.max_bond", "circuit.depth") if key in numeric]
    chosen = [*first, *(key for key in numeric if key not in first)][:2]
    if not chosen:
        raise ValueError(
            f"nothing to compare along: of {', '.join(keys)} no number but seeds varies; name one "
            "with --axis"
        )
    return chosen


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def find_minima(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[float]:
    """Of every row the smallest loss that any row of the same problem found.

    A problem is what data, network and loss of the `keys` say. Losses of single networks count, and
    energies over all training examples that are no estimates. Infinite where there is none.
    """
    names = [key for key in keys if key.partition(".")[0] in _PROBLEM]
    best: dict[tuple[Any, ...], float] = {}
    problems = [tuple(row[key] for key in names) for row in rows]
    for problem, row in zip(problems, rows, strict=True):
        found = [row.get("best_loss")]
        if row.get("energy_standard_error") is None and is_over_all(row):
            found.append(row.get("energy"))
        for value in found:
            if value is not None and math.isfinite(value):
                best[problem] = min(best.get(problem, math.inf), value)
    return [best.get(problem, math.inf) for problem in problems]


@dataclass(frozen=True)
class Convergence:
    """Whether energies still change with the bond dimension.

    With the two largest bond dimensions b < B of a series, mean energies E_b and E_B of standard
    errors s_b and s_B (0 of a single run)::

        converged  =  at most 1e-12 is discarded at B,  or
                      |E_B - E_b| <= max(tolerance, 2 sqrt(s_b^2 + s_B^2))
                      and the mean discarded weight at B is at most `threshold`

    where the last condition is left out if the runs record no discarded weight. The first and the
    last are for bond dimensions of states; of operators (mpo.max_bond) the energies decide.

    **Attributes:**

    - `converged`: None if there is only one bond dimension with energies.
    - `warning`: the sentence for the user, or "".
    - `bonds`: the bond dimensions compared, the larger one last.
    - `difference`, `limit`: E_B - E_b and what it may be, or None.
    - `discarded`: mean discarded weight at B, or None.
    """

    converged: bool | None
    warning: str
    bonds: Sequence[float | int]
    difference: float | None
    limit: float | None
    discarded: float | None


def check_convergence(
    groups: Sequence[Group], bond_key: str, *, tolerance: float, threshold: float, unit: str
) -> Convergence:
    """Compare the two largest bond dimensions of a series of groups that differ in `bond_key`."""
    points = [(group.settings[bond_key], group) for group in groups if group.summary("energy")]
    points.sort(key=lambda point: point[0])
    if not points:
        return Convergence(None, "no run has an energy", (), None, None, None)
    bonds = [bond for bond, _ in points[-2:]]
    last = points[-1][1].summary("energy")
    state = bond_key == "state.max_bond"
    weight = points[-1][1].summary("discarded_weight") if state else None
    discarded = None if weight is None else weight.mean
    if discarded is not None and discarded <= NOTHING:
        return Convergence(True, "", bonds, None, None, discarded)
    reasons = []
    difference = limit = None
    if len(points) > 1:
        before = points[-2][1].summary("energy")
        assert last is not None
        assert before is not None
        spread = math.hypot(*(group.energy_error() or 0 for _, group in points[-2:]))
        difference, limit = last.mean - before.mean, max(tolerance, 2 * spread)
        if abs(difference) > limit:
            reasons.append(
                f"the energies of {bond_key} = {bonds[0]} and {bonds[1]} differ by "
                f"{difference:+.2g} {unit}, more than {limit:.2g}"
            )
    if discarded is not None and discarded > threshold:
        reasons.append(
            f"at {bond_key} = {bonds[-1]} the discarded weight is {discarded:.2g}, above "
            f"{threshold:.2g}"
        )
    if reasons:
        warning = f"not converged in bond dimension: {'; '.join(reasons)}"
        return Convergence(False, warning, bonds, difference, limit, discarded)
    if len(points) == 1:
        warning = f"convergence unknown: {bond_key} = {bonds[0]} is the only one with energies"
        return Convergence(None, warning, bonds, None, None, discarded)
    return Convergence(True, "", bonds, difference, limit, discarded)


def extrapolate_groups(groups: Sequence[Group], *, points: int = 4) -> Extrapolation | str:
    """The energy of a series of groups where nothing is discarded, or why there is none.

    Only discarded weights up to `LARGEST_FITTED` count. Standard errors are those of
    `Group.energy_error`, all of several runs or all of single ones; otherwise the scatter about the
    line stands in for them.

    **Arguments:**

    - `points`: how many groups, those of the smallest discarded weights, the line goes through.
    """
    found = []
    for group in groups:
        energy, weight = group.summary("energy"), group.summary("discarded_weight")
        if energy is not None and weight is not None:
            found.append((weight.mean, energy, group.energy_error()))
    if not found:
        return "the runs record no discarded weight"
    found.sort(key=lambda each: each[0])
    if found[0][0] <= NOTHING:
        return "nothing is discarded at the largest bond dimension: its energy is the limit"
    small = [each for each in found[:points] if each[0] <= LARGEST_FITTED]
    different = len({weight for weight, _, _ in small})
    if different < 3:
        return (
            f"a line needs three different discarded weights of at most {LARGEST_FITTED:g}, got "
            f"{different}; run more bond dimensions"
        )
    weights = np.array([weight for weight, _, _ in small])
    energies = np.array([energy.mean for _, energy, _ in small])
    runs = np.array([energy.n for _, energy, _ in small])
    errors = np.array([error or 0 for _, _, error in small], float)
    if not (errors > 0).all() or len({n > 1 for n in runs}) > 1:
        return extrapolate(weights, energies)
    return extrapolate(weights, energies, errors, runs if runs[0] > 1 else None)
