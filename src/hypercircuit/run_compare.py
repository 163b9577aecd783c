"""The comparison of a sweep's runs, by bond dimension and depth or any other settings.

comparison.json          everything below, in numbers
comparison.csv, .md      one row per group of equal settings, seeds averaged over
against_<key>.png        every quantity against a setting, for each of the axes
extrapolation.png        energies against discarded weight and lines to zero, where there are any

The formulas are in `study.aggregate` (convergence, minima) and `study.extrapolate`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._files import write_text
from .config import ConfigError
from .methods import Report
from .run_sweep import describe_counts, read_sweep, sweep_rows
from .study.aggregate import (
    SEEDS,
    Group,
    check_convergence,
    choose_axes,
    extrapolate_groups,
    find_minima,
    is_over_all,
    make_groups,
    varying_keys,
)
from .study.comparison_plots import plot_against, plot_extrapolation
from .study.extrapolate import Extrapolation
from .study.remarks import (
    describe_discarded,
    describe_interval,
    describe_subsets,
    describe_success,
    describe_threshold,
    in_words,
)

#: Columns of the table that a comparison averages, and two more: `energy_above_minimum` of a known
#: minimum, and `training_seconds`, which are `seconds` without `compile_seconds`. A resumed run
#: knows the compilation of its last process only.
QUANTITIES = (
    "energy",
    "energy_above_minimum",
    "energy_standard_error",
    "energy_error",
    "best_loss",
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
    "discarded_weight",
    "max_discarded",
    "entropy_max",
    "entropy_mean",
    "training_seconds",
    "compile_seconds",
    "seconds",
    "total_seconds",
)
_BOND_KEYS = ("state.max_bond", "mpo.max_bond")


@dataclasses.dataclass(frozen=True)
class ComparisonSettings:
    """How a sweep is compared.

    **Attributes:**

    - `axes`: one or two settings of the sweep to draw quantities against; empty chooses numbers
      that vary, bond dimension and depth first. Settings that vary and are no axis are curves of
      their own; seeds are averaged over unless they are an axis.
    - `minimum`: the smallest loss of any network, in the loss's unit; None is the best that a run
      of the same problem (data, network, loss) found.
    - `distance`: a run succeeds if its energy, over all training examples, ends at most this far
      above the minimum, above 0.
    - `tolerance`: difference of energies that counts as none, in the loss's unit, at least 0.
    - `threshold`: discarded weight above which a result is called truncated, and a series of bond
      dimensions that ends there not converged; a squared norm, above 0.
    - `points`: bond dimensions that the extrapolation goes through at most, at least 3.

    **Raises:** `ValueError` for a number out of range or more than two axes.
    """

    axes: Sequence[str] = ()
    minimum: float | None = None
    distance: float = 1e-4
    tolerance: float = 1e-4
    threshold: float = 1e-3
    points: int = 4

    def __post_init__(self) -> None:
        if len(self.axes) > 2 or len(set(self.axes)) < len(self.axes):
            raise ValueError(
                f"axes must be one or two different settings, got {', '.join(self.axes)}; others "
                "that vary are curves of their own"
            )
        if self.minimum is not None and not math.isfinite(self.minimum):
            raise ValueError(f"minimum must be finite, got {self.minimum}; leave it out")
        for name, usual in (("distance", "1e-4"), ("threshold", "1e-3")):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value}; usual is {usual}")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance must be at least 0, got {self.tolerance}; usual is 1e-4")
        if self.points < 3:
            raise ValueError(f"points must be at least 3, got {self.points}; usual is 4")


def compare_run(
    folder: str | os.PathLike[str],
    settings: ComparisonSettings | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Compare what the members of a sweep have now; returns what `comparison.json` holds.

    **Arguments:**

    - `out`: folder of the comparison; None is `compare` in the sweep's folder.

    **Raises:** `ConfigError` if the folder holds no sweep, if no member has ended, or for an axis
    that the sweep does not have; `ValueError` if nothing but seeds varies.
    """
    settings = settings or ComparisonSettings()
    comparison, fits = compare_sweep(folder, settings)
    out = Path(folder) / "compare" if out is None else Path(out)
    out.mkdir(parents=True, exist_ok=True)
    records, unit = comparison["rows"], comparison["unit"]
    for key in comparison["axes"]:
        plot_against(
            key, records, out / f"against_{key}.png", unit=unit, distance=settings.distance
        )
    if fits:
        plot_extrapolation(fits, out / "extrapolation.png", unit=unit)
    text = markdown(comparison)
    write_text(out / "comparison.md", text)
    write_text(out / "comparison.csv", _csv(records))
    write_text(out / "comparison.json", json.dumps(comparison, indent=2) + "\n")
    report(text.rstrip("\n"))
    report(f"\ncomparison in {out}")
    return comparison


#: Settings, rows and line of every series whose energies go to a limit.
Fits = list[tuple[Mapping[str, Any], list[Mapping[str, Any]], Extrapolation]]


def compare_sweep(
    folder: str | os.PathLike[str], settings: ComparisonSettings
) -> tuple[dict[str, Any], Fits]:
    """What `compare_run` writes, and the lines of its extrapolations; writes nothing.

    **Raises:** as `compare_run`.
    """
    keys = list(read_sweep(folder)[0].values)
    rows = _rows(folder, settings)
    ended = [row for row in rows if row["status"] in ("finished", "non-finite")]
    if not ended:
        raise ConfigError(
            f"no member of {folder} has a result yet; see `hypercircuit sweep status {folder}`"
        )
    axes = _axes(settings, rows, keys)
    others = [key for key in varying_keys(rows, keys) if key not in (*axes, *SEEDS)]
    minima = _minima(settings, rows, keys)
    group_keys = [*axes[1:], *others, axes[0]]
    groups = make_groups(rows, group_keys)
    unit = "/".join(sorted({row["unit"] for row in ended if row.get("unit")}))
    records = [_record(group, minima, settings.distance) for group in groups]
    counts = {
        status: sum(row["status"] == status for row in rows)
        for status in dict.fromkeys(row["status"] for row in rows)
    }
    comparison: dict[str, Any] = {
        "command": "compare",
        "sweep": str(folder),
        "status": counts,
        "axes": axes,
        "averaged": [key for key in SEEDS if key in keys and key not in axes],
        "unit": unit,
        "minimum": settings.minimum,
        "settings": dataclasses.asdict(settings),
        "rows": records,
        "series": [],
        "warnings": [],
    }
    missing = len(rows) - len(ended)
    if missing:
        comparison["warnings"].append(
            f"{missing} of {len(rows)} members have no result ({describe_counts(counts)}): what "
            "follows is of the others"
        )
    subsets = describe_subsets(ended)
    if subsets:
        comparison["warnings"].append(subsets)
    fits = _compare_bonds(comparison, groups, records, settings, unit)
    return comparison, fits


def _rows(folder: str | os.PathLike[str], settings: ComparisonSettings) -> list[dict[str, Any]]:
    """The rows of the sweep's table, with what a comparison derives from them."""
    rows = sweep_rows(folder)
    for member, row in zip(read_sweep(folder), rows, strict=True):
        file = member.folder / "config.toml"
        if file.exists():
            decode = tomllib.loads(file.read_text(encoding="utf-8")).get("decode", {})
            row["decode.final_examples"] = decode.get("final_examples", 0)
        times = row.get("seconds"), row.get("compile_seconds")
        if times[0] is not None and times[1] is not None:
            row["training_seconds"] = times[0] - times[1]
        if settings.minimum is not None and row.get("energy") is not None and is_over_all(row):
            row["energy_above_minimum"] = row["energy"] - settings.minimum
    return rows


def _axes(
    settings: ComparisonSettings, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> list[str]:
    for axis in settings.axes:
        if axis not in keys:
            raise ConfigError(
                f"the sweep has no axis {axis!r}; it has {', '.join(keys)}: name one of these"
            )
    return list(settings.axes) or choose_axes(rows, keys)


def _minima(
    settings: ComparisonSettings, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> dict[int, float]:
    """The minimum of every member's problem."""
    if settings.minimum is None:
        found = find_minima(rows, keys)
        return {row["member"]: value for row, value in zip(rows, found, strict=True)}
    problem = [
        key
        for key in varying_keys(rows, keys)
        if key.partition(".")[0] in ("data", "network", "loss")
    ]
    if problem:
        raise ConfigError(
            f"minimum={settings.minimum} is that of one problem, and {problem[0]} varies in the "
            "sweep; leave it out to take the best that was found of each"
        )
    return {row["member"]: settings.minimum for row in rows}


def _record(group: Group, minima: Mapping[int, float], distance: float) -> dict[str, Any]:
    record: dict[str, Any] = {
        "settings": dict(group.settings),
        "members": len(group.rows),
        "ended": len(group.ended),
    }
    for name in QUANTITIES:
        found = group.summary(name)
        if found is not None:
            record[name] = dataclasses.asdict(found)
    success = group.success([minima[row["member"]] for row in group.ended], distance)
    if success is not None:
        record["success"] = dataclasses.asdict(success)
    return record


def _compare_bonds(
    comparison: dict[str, Any],
    groups: Sequence[Group],
    records: Sequence[Mapping[str, Any]],
    settings: ComparisonSettings,
    unit: str,
) -> Fits:
    """Fill in `series` and `warnings`: convergence and limits of groups of equal other settings."""
    keys = list(groups[0].settings)
    bond_key = next((key for key in _BOND_KEYS if key in keys), None)
    if bond_key != "state.max_bond":
        comparison["warnings"] += describe_discarded(groups, settings.threshold)
    if bond_key is None:
        return []
    series: dict[str, list[int]] = {}
    for at, group in enumerate(groups):
        rest = {key: value for key, value in group.settings.items() if key != bond_key}
        series.setdefault(in_words(rest), []).append(at)
    fits: list[tuple[Mapping[str, Any], list[Mapping[str, Any]], Extrapolation]] = []
    for places in series.values():
        chosen = [groups[at] for at in places]
        rest = {key: value for key, value in chosen[0].settings.items() if key != bond_key}
        verdict = check_convergence(
            chosen,
            bond_key,
            tolerance=settings.tolerance,
            threshold=settings.threshold,
            unit=unit,
        )
        lead = f"{in_words(rest)}: " if rest else ""
        if verdict.warning:
            comparison["warnings"].append(lead + verdict.warning)
        if bond_key == "state.max_bond":
            # The largest bond dimension is what the verdict is about.
            below = [each for each in chosen if each.settings[bond_key] not in verdict.bonds[-1:]]
            comparison["warnings"] += describe_discarded(below, settings.threshold)
        entry: dict[str, Any] = {
            "settings": rest,
            "bond_key": bond_key,
            "convergence": dataclasses.asdict(verdict),
        }
        if bond_key == "state.max_bond":
            fit = extrapolate_groups(chosen, points=settings.points)
            if isinstance(fit, Extrapolation):
                entry["extrapolation"] = dataclasses.asdict(fit)
                drawn = [
                    records[at]
                    for at in places
                    if "energy" in records[at] and "discarded_weight" in records[at]
                ]
                fits.append((rest, drawn, fit))
                if fit.chi_squared is not None and fit.chi_squared > 4:
                    comparison["warnings"].append(
                        f"{lead}the energies lie off a line in the discarded weight (chi^2 per "
                        f"degree of freedom {fit.chi_squared:.2g}): its limit is a guess"
                    )
            else:
                entry["no_extrapolation"] = fit
        comparison["series"].append(entry)
    return fits


_COLUMNS = (
    ("energy", "energy", "{:.6f}", 1.0),
    ("energy_above_minimum", "above the minimum", "{:.1e}", 1.0),
    ("best_loss", "best loss", "{:.6f}", 1.0),
    ("test_accuracy", "test accuracy (%)", "{:.2f}", 100.0),
    ("discarded_weight", "discarded weight", "{:.1e}", 1.0),
    ("entropy_max", "largest entropy (nats)", "{:.3f}", 1.0),
    ("training_seconds", "training (s)", "{:.1f}", 1.0),
    ("compile_seconds", "compilation (s)", "{:.1f}", 1.0),
)


_LOSSES = ("energy", "energy_above_minimum", "best_loss")


def markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as Markdown: warnings, the table, limits."""
    rows, settings = comparison["rows"], comparison["settings"]
    lines = [f"**Warning**: {warning}  " for warning in comparison["warnings"]]
    if lines:
        lines.append("")
    keys = list(rows[0]["settings"])
    shown = [column for column in _COLUMNS if any(column[0] in row for row in rows)]
    unit = comparison["unit"]
    header = [*keys, "runs"]
    for name, words, _, _ in shown:
        header.append(f"{words} ({unit})" if name in _LOSSES and unit else words)
    with_success = any("success" in row for row in rows)
    if with_success:
        header.insert(len(keys) + 1, "success")
    lines.append(f"| {' | '.join(header)} |")
    lines.append(f"|{'---|' * len(header)}")
    for row in rows:
        ended = str(row["ended"]) + (
            f" of {row['members']}" if row["ended"] < row["members"] else ""
        )
        cells = [*(str(value) for value in row["settings"].values()), ended]
        if with_success:
            cells.append(_share(row))
        for name, _, form, factor in shown:
            cells.append(_cell(row.get(name), form, factor))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Means ± standard errors over the runs of a group."]
    if with_success:
        lines.append(describe_success(comparison["minimum"], settings["distance"]))
    lines.append(describe_threshold(settings["threshold"]))
    if any(key == "circuit.depth" for key in keys):
        lines.append("Depth 1 is the product state, the mean-field baseline.")
    limits = [each for each in comparison["series"] if "extrapolation" in each]
    if limits:
        lines += [
            "",
            f"| series | energy at discarded weight 0 ({unit}) | 95 % interval | interval of | "
            "points |",
        ]
        lines.append("|---|---|---|---|---|")
        for each in limits:
            fit = each["extrapolation"]
            lines.append(
                f"| {in_words(each['settings']) or 'all runs'} | {fit['energy']:.6f} ± "
                f"{fit['error']:.1g} | {fit['low']:.6f} to {fit['high']:.6f} | "
                f"{describe_interval(fit)} | {fit['n_points']} |"
            )
    refused = [each for each in comparison["series"] if "no_extrapolation" in each]
    if refused:
        lines.append("")
    for each in refused:
        words = in_words(each["settings"]) or "all runs"
        lines.append(f"No extrapolation of {words}: {each['no_extrapolation']}  ")
    return "\n".join(lines) + "\n"


def _share(row: Mapping[str, Any]) -> str:
    found = row.get("success")
    if found is None:
        return ""
    return (
        f"{100 * found['probability']:.0f} % [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"
    )


def _cell(found: Mapping[str, Any] | None, form: str, factor: float) -> str:
    if found is None:
        return ""
    text = form.format(factor * found["mean"])
    error = found["standard_error"]
    return text if error is None else f"{text} ± {factor * error:.1g}"


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    """One row a group: its settings, then `quantity_mean`, `quantity_standard_error`, ..."""
    rows = []
    for record in records:
        row = {**record["settings"], "members": record["members"], "ended": record["ended"]}
        for name in ("success", *QUANTITIES):
            for part, value in record.get(name, {}).items():
                row[f"{name}_{part}"] = value
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
