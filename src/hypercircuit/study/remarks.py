"""What a comparison says of runs whose numbers mean less than they seem to, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .aggregate import Group, is_over_all

#: What a truncated result is called by, and the settings.
_PLACES = {"depth": "circuit.depth", "bond": "state.max_bond"}


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings as a curve is called: `depth 4, learning_rate 0.1`."""
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items())


def describe_discarded(groups: Sequence[Group], threshold: float) -> list[str]:
    """A warning of every group whose runs discard more than `threshold` on average.

    It names the depth and the bond dimension, as the runs record them, and the other settings.
    """
    found = []
    for group in groups:
        weight = group.summary("discarded_weight")
        if weight is None or not weight.mean > threshold:
            continue
        places = []
        for name, key in _PLACES.items():
            column = "max_bond" if name == "bond" else name
            values = {row[column] for row in group.ended if row.get(column) is not None}
            if key in group.settings:
                values = {group.settings[key]}
            if values:
                places.append(f"{name} {', '.join(map(str, sorted(values)))}")
        others = {
            key: value for key, value in group.settings.items() if key not in _PLACES.values()
        }
        place = ", ".join([*places, *([in_words(others)] if others else [])]) or "all runs"
        found.append(f"{place}: truncated result, discards {weight.mean:.2g}")
    return found


def describe_subsets(rows: Sequence[Mapping[str, Any]]) -> str:
    """A warning of energies that are means over some training examples only, or ""."""
    some = [row for row in rows if row.get("energy_examples") and not is_over_all(row)]
    if not some:
        return ""
    used = _range([row["energy_examples"] for row in some])
    total = _range([row["train_examples"] for row in some if row.get("train_examples") is not None])
    words = (
        f"energies of {len(some)} of {len(rows)} runs are over {used} training examples "
        f"{f'of {total}' if total else 'only'}, losses of networks over all: these energies count "
        "neither for the best found nor as success"
    )
    if len({row.get("train.seed", row.get("seed")) for row in some}) > 1:
        words += (
            "; each seed chooses other examples, so that means over seeds, and differences between "
            "seeds, mix what the runs reach with what the examples are"
        )
    return words


def _range(numbers: Sequence[Any]) -> str:
    low, high = (min(numbers), max(numbers)) if numbers else (0, 0)
    return f"{low:g}" * (high > 0) + f" to {high:g}" * (high > low)


def describe_success(minimum: float | None, distance: float) -> str:
    """What counts as success; `minimum` None is the best that the sweep found."""
    against = "the best found" if minimum is None else f"the minimum {minimum:g}"
    return (
        f"Success: an energy over all training examples within {distance:g} of {against}, with the "
        "exact 95 % interval."
    )


def describe_threshold(threshold: float) -> str:
    """What is warned of as a truncated result."""
    return f"Truncated results discard a squared norm of more than {threshold:g} on average."


def describe_interval(fit: Mapping[str, Any]) -> str:
    """What the interval of an extrapolation is of."""
    if fit["chi_squared"] is None:
        return "the fit only (single runs: no seeds' scatter, no chi^2)"
    return f"the runs' errors and the fit (chi^2 per degree of freedom {fit['chi_squared']:.2g})"
