"""What a page shows of a sweep: how far its runs are, their results, and the comparison."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..comparison_plots import PANELS, choose_panels, plot_against, plot_extrapolation
from ..extrapolate import Extrapolation
from ..members import STATUSES
from ..remarks import describe_interval, describe_success, describe_threshold, in_words
from .html import NONE, Content, Html, join, number, tag
from .page import (
    NOT_USED,
    Errors,
    Page,
    details,
    facts,
    grid,
    paragraph,
    preformatted,
    result as result_card,
    table,
)

Row = Mapping[str, Any]
#: Settings, rows and line of a series, see `plot_extrapolation`.
Fit = tuple[Mapping[str, Any], Sequence[Row], Extrapolation]
_LOG_LINES = 20
_SECONDS = "seconds, compilation included"
#: Values of a setting that are listed in full; of more, the first ones and the last.
_LISTED = 12
#: Columns of a run's errors: the kind, and the columns of the sweep's table that may hold it.
_ERRORS = (
    ("spectral", ("spectral_error",)),
    ("compression", ("mpo_rms",)),
    ("truncation", ("diagnostics.energy_error", "energy_error", "discarded_weight")),
    ("sampling", ("energy_standard_error",)),
    ("check", ("check_error",)),
)
_HEADERS = (
    "spectral, at most",
    "MPO compression, rms",
    "MPS truncation",
    "sampling, ±",
    "check of the training energy",
)


def count(rows: Sequence[Row]) -> dict[str, int]:
    """How many runs have which status."""
    found = Counter(row["status"] for row in rows)
    return {status: found[status] for status in STATUSES if found[status]}


def summary(record: Mapping[str, Any], rows: Sequence[Row], keys: Sequence[str]) -> Html:
    """How far the runs are, and what they differ in."""
    seconds = [row["total_seconds"] for row in rows if row.get("total_seconds") is not None]
    axes = [
        [
            tag("code", key),
            _values(list(dict.fromkeys(str(row.get(key)) for row in rows))),
        ]
        for key in keys
    ]
    base = record.get("base") or {}
    known = facts(
        [
            ("runs", number(len(rows))),
            *((status, number(found)) for status, found in count(rows).items()),
            ("all of the last starts", number(sum(seconds), ".3g", "s") if seconds else None),
            ("settings of", base.get("config")),
            ("profile", base.get("profile")),
            ("set", ", ".join(base.get("set") or []) or None),
        ]
    )
    body = [[key, tag("span", values)] for key, values in axes]
    return join([known, table(["setting", "values"], body)])


def _values(values: Sequence[str]) -> str:
    if len(values) <= _LISTED:
        return ", ".join(values)
    return f"{', '.join(values[: _LISTED - 2])}, ..., {values[-1]} ({len(values)} values)"


def failures(rows: Sequence[Row], anchors: Mapping[int, str]) -> Html | None:
    """The runs without a result, with their last words."""
    missing = [row for row in rows if row["status"] not in ("finished", "waiting")]
    if not missing:
        return None
    return join(
        [
            *(
                join(
                    [
                        tag(
                            "p",
                            tag("a", row["folder"], href=f"#{anchors[row['member']]}"),
                            f": {row['status']}",
                        ),
                        preformatted(str(row.get("error") or "without a word")),
                    ]
                )
                for row in missing
            )
        ]
    )


def member_table(
    rows: Sequence[Row], keys: Sequence[str], anchors: Mapping[int, str]
) -> Html | None:
    """One row a run: settings, results, and every kind of error in a column of its own."""
    header = ["run", *keys, "status", "energy", *_HEADERS, "best loss", "test", _SECONDS]
    body = [
        [
            tag("a", row["folder"], href=f"#{anchors[row['member']]}"),
            *(_setting(row.get(key)) for key in keys),
            row["status"],
            number(row.get("energy")),
            *_error_cells(row),
            number(row.get("best_loss")),
            number(row.get("test_accuracy"), ".2%"),
            number(row.get("seconds"), ".3g"),
        ]
        for row in rows
    ]
    units = "/".join(sorted({str(row["unit"]) for row in rows if row.get("unit")}))
    caption = f"Energies, losses and their errors in {units or 'the unit of the loss'} per example"
    return table(header, body, caption=caption)


def _setting(value: Any) -> Content:
    return NONE if value is None else str(value)


def _error_cells(row: Row) -> list[Content]:
    if row["status"] not in ("finished", "non-finite"):
        return [NONE] * len(_ERRORS)
    cells: list[Content] = []
    for kind, names in _ERRORS:
        name = next((each for each in names if row.get(each) is not None), None)
        if name is None or (kind == "spectral" and row.get("energy_standard_error") is not None):
            cells.append(NOT_USED)
        elif name == "discarded_weight":
            cells.append(join(["discarded weight ", number(row[name], ".2g")]))
        else:
            cells.append(number(row[name], ".2g"))
    return cells


def member(row: Row, keys: Sequence[str], anchor: str, log: str | None) -> Html:
    """A run in full, folded: settings, message, every number of its result, its log's end."""
    known = ("member", "folder", "status", "error", "attempts", *keys)
    numbers = [
        (name, number(value))
        for name, value in row.items()
        if name not in known and value is not None
    ]
    lines = (log or "").splitlines()[-_LOG_LINES:]
    return details(
        join([row["folder"], f": {row['status']}"]),
        facts((tag("code", key), _setting(row.get(key))) for key in keys),
        preformatted(str(row["error"])) if row.get("error") else "",
        facts(numbers) if numbers else "",
        details(f"The last {len(lines)} lines of its log", preformatted("\n".join(lines)))
        if lines
        else "",
        name=anchor,
        printed=False,
    )


def comparison(
    page: Page,
    found: Mapping[str, Any],
    fits: Sequence[Fit],
) -> Html:
    """Warnings, limits, one figure per quantity and axis, and the table of groups."""
    unit, rows = found["unit"], found["rows"]
    settings = found["settings"]
    blocks: list[object] = [
        tag("p", f"Warning: {warning}", class_="note", role="note") for warning in found["warnings"]
    ]
    averaged = f" over {' and '.join(found['averaged'])}" if found["averaged"] else ""
    words = [
        f"Means{averaged} ± standard errors; in figures medians and quartiles of times, discarded "
        "weights and distances from the minimum."
    ]
    if any(row.get("success") for row in rows):
        words.append(describe_success(found["minimum"], settings["distance"]))
    words.append(describe_threshold(settings["threshold"]))
    words.append("Depth 1 is the product state, the mean-field baseline.")
    blocks.append(paragraph(" ".join(words)))
    blocks.append(_limits(found, unit))
    figures = []
    for key in found["axes"]:
        for title, name, label, factor in choose_panels(rows):
            figures.append(
                page.figure(
                    functools.partial(_panel, key, rows, unit, settings["distance"], name),
                    f"{title} against {key}",
                    f"In {label.format(unit=unit)}.",
                    source="result.json of every run",
                    numbers=_group_table(rows, [(title, name, factor)]),
                )
            )
    if fits:
        figures.append(
            page.figure(
                functools.partial(_lines, fits, unit),
                "Energy without truncation",
                "Energies against discarded weight, and the fitted lines down to none.",
                source="result.json of every run",
                numbers=_group_table(
                    rows,
                    [("energy", "energy", 1.0), ("discarded weight", "discarded_weight", 1.0)],
                ),
            )
        )
    blocks.append(grid(figures) or "")
    quantities = [
        (title, name, factor)
        for title, name, _, factor in PANELS
        if any(row.get(name) for row in rows)
    ]
    blocks.append(_group_table(rows, quantities))
    return join(blocks)


def _panel(
    key: str, rows: Sequence[Row], unit: str, distance: float, name: str, path: Path
) -> None:
    plot_against(key, rows, path, unit=unit, distance=distance, names=[name])


def _lines(fits: Sequence[Fit], unit: str, path: Path) -> None:
    plot_extrapolation(fits, path, unit=unit)


def _limits(found: Mapping[str, Any], unit: str) -> Html:
    """The extrapolated energies, each with what is known of its errors."""
    cards = []
    for each in found["series"]:
        fit = each.get("extrapolation")
        words = in_words(each["settings"]) or "all runs"
        if fit is None:
            reason = each.get("no_extrapolation")
            if reason:
                cards.append(paragraph(f"{words}: no extrapolation, {reason}"))
            continue
        cards.append(
            result_card(
                f"Energy without truncation, {words}",
                number(fit["energy"], ".6g", f"{unit} per example"),
                f"from {fit['n_points']} bond dimensions, a line in the discarded weight",
                Errors(
                    spectral="of every run: see the table",
                    truncation=join(
                        [
                            "95 % interval ",
                            number(fit["low"]),
                            " to ",
                            number(fit["high"]),
                            f", of {describe_interval(fit)}",
                        ]
                    ),
                    sampling="not in the interval"
                    if fit["chi_squared"] is None
                    else "within the interval, from the runs of a group",
                    check="not bounded: runs may end in local minima",
                ),
            )
        )
    return grid(cards, "results") or Html("")


def _group_table(rows: Sequence[Row], quantities: Sequence[tuple[str, str, float]]) -> Html:
    keys = list(rows[0]["settings"])
    header = [*keys, "runs", *(title for title, _, _ in quantities)]
    body = [
        [
            *(_setting(value) for value in row["settings"].values()),
            row["ended"]
            if row["ended"] == row["members"]
            else f"{row['ended']} of {row['members']}",
            *(_summary(row.get(name), factor) for _, name, factor in quantities),
        ]
        for row in rows
    ]
    return table(header, body)


def _summary(found: Mapping[str, Any] | None, factor: float) -> Content:
    if found is None:
        return NONE
    if "probability" in found:
        return (
            f"{100 * found['probability']:.0f} % "
            f"[{100 * found['low']:.0f}, {100 * found['high']:.0f}]"
        )
    shown = number(factor * found["mean"], ".6g")
    error = found["standard_error"]
    return shown if error is None else join([shown, " ± ", number(factor * error, ".1g")])
