"""Figures of a comparison: quantities against a setting, and lines to discarded weight zero."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .extrapolate import Extrapolation
from .remarks import in_words

#: Title, column, label of the axis, and factor of the panels of `plot_against`, in their order.
PANELS = (
    ("Energy", "energy", "{unit} per example", 1.0),
    ("Energy above the minimum", "energy_above_minimum", "{unit} per example", 1.0),
    ("Best network's loss", "best_loss", "{unit} per example", 1.0),
    ("Test accuracy", "test_accuracy", "%", 100.0),
    ("Success", "success", "% of runs", 100.0),
    ("Discarded weight", "discarded_weight", "squared norm", 1.0),
    ("Largest entanglement entropy", "entropy_max", "nats", 1.0),
    ("Training time without compilation", "training_seconds", "seconds", 1.0),
    ("Compilation time", "compile_seconds", "seconds", 1.0),
)
#: Quantities that may span decades: medians and quartiles, logarithmic axes where they do.
_SKEWED = ("energy_above_minimum", "discarded_weight", "training_seconds", "compile_seconds")
_GREY = "0.45"
#: Inches that a letter of a legend takes at most, and the line before it with the gaps.
_LETTER, _LINE = 0.07, 0.7
#: Letters of a setting's value, for instance a file's path, that figures show.
_LETTERS = 24
#: Letters of a title's line, and values of an axis that are named.
_TITLE, _NAMED = 44, 12


def choose_panels(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, float]]:
    """The panels of the quantities that the rows have.

    Energies are drawn above the minimum where every run's distance from it is known.
    """
    known = all(row.get("energy_above_minimum") for row in rows if row.get("energy"))
    hidden = "energy" if known else "energy_above_minimum"
    return [
        panel for panel in PANELS if panel[1] != hidden and any(row.get(panel[1]) for row in rows)
    ]


def plot_against(
    key: str,
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    unit: str,
    distance: float,
    names: Sequence[str] | None = None,
) -> None:
    """Every quantity that a comparison has, against one setting, a curve per other settings.

    Means with standard errors; medians with quartiles of distances from the minimum, discarded
    weights and seconds, on logarithmic axes where they span a decade; exact intervals of
    probabilities, side by side at every value. The product state is grey and dashed.

    **Arguments:**

    - `rows`: of `comparison.json`: `settings`, and a summary under the name of every quantity.
    - `distance`: of a success from the minimum.
    - `names`: the quantities to draw; None is all that there are.
    """
    shown = [panel for panel in choose_panels(rows) if names is None or panel[1] in names]
    columns = min(3, len(shown))
    bands = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * bands + 0.7), layout="constrained")
    panels = figure.subplots(bands, columns, squeeze=False).ravel()
    curves = _curves(key, rows)
    values = list(dict.fromkeys(row["settings"][key] for row in rows))
    numeric = all(isinstance(value, (int, float)) for value in values)
    if numeric:
        values.sort()
    place = {value: (value if numeric else at) for at, value in enumerate(values)}
    spread = _spread(values, numeric, len(curves))
    for axes, (title, name, label, factor) in zip(panels, shown, strict=False):
        for number, (_, color, style, points) in enumerate(curves):
            found = [row for row in points if row.get(name)]
            if not found:
                continue
            summaries = [row[name] for row in found]
            if name == "success":
                slots = np.array([values.index(row["settings"][key]) for row in found])
                _draw_shares(axes, slots, summaries, color, number, len(curves), len(values))
                continue
            x = spread(np.array([place[row["settings"][key]] for row in found], float), number)
            _draw(axes, x, summaries, factor, color, style, quartiles=name in _SKEWED)
        if name == "success":
            known = any(row.get("energy_above_minimum") for row in rows)
            title = f"Success: within {distance:g} of the {'minimum' if known else 'best found'}"
            axes.set_ylim(-4, 104)
            _slots(axes, values)
        else:
            _ticks(axes, values, numeric)
        if name in _SKEWED:
            label += _logarithmic(axes, [row[name]["median"] for row in rows if row.get(name)])
        axes.set(title=title, xlabel=key, ylabel=label.format(unit=unit))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles = [
        matplotlib.lines.Line2D([], [], color=color, ls=style, marker="o", ms=4, label=words)
        for words, color, style, _ in curves
        if words
    ]
    if handles:
        widest = max(_LETTER * len(str(handle.get_label())) for handle in handles) + _LINE
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=int(np.clip(figure.get_figwidth() // widest, 1, len(handles))),
            frameon=False,
            fontsize=9,
        )
    figure.savefig(path, dpi=130)


def _short(value: Any) -> str:
    """A value in at most so many letters that figures have room for, cut in front."""
    words = str(value)
    return words if len(words) <= _LETTERS else "…" + words[1 - _LETTERS :]


def _in_short(settings: Mapping[str, Any]) -> str:
    return in_words({name: _short(value) for name, value in settings.items()})


def _curves(
    key: str, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Any, str, list[Mapping[str, Any]]]]:
    """Name, colour, line and points of every curve."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    shown = {}
    for row in rows:
        rest = {name: value for name, value in row["settings"].items() if name != key}
        note = " (product state)" if rest.get("circuit.depth") == 1 else ""
        words = in_words(rest) + note
        shown[words] = _in_short(rest) + note
        found.setdefault(words, []).append(row)
    entangled = [words for words in found if not words.endswith("(product state)")]
    shades = np.linspace(0.1, 0.85, max(1, len(entangled)))
    colors = dict(zip(entangled, matplotlib.colormaps["viridis"](shades), strict=True))
    return [
        (shown[words], colors.get(words, _GREY), "-" if words in colors else "--", points)
        for words, points in found.items()
    ]


def _spread(values: Sequence[Any], numeric: bool, n_curves: int) -> Any:
    """A function that moves the points of a curve aside a little, so that bars do not overlap."""
    offsets = (np.arange(n_curves) - (n_curves - 1) / 2) * 0.02
    if numeric and _is_logarithmic(values):
        return lambda x, number: x * 2 ** (1.5 * offsets[number])
    step = np.diff(np.sort(np.array(values, float))).min() if numeric and len(values) > 1 else 1.0
    return lambda x, number: x + step * offsets[number]


def _draw(
    axes: Axes,
    x: np.ndarray,
    points: Sequence[Mapping[str, Any]],
    factor: float,
    color: Any,
    style: str,
    *,
    quartiles: bool,
) -> None:
    """One curve with its bars; `quartiles` draws medians and quartiles in place of means."""
    if quartiles:
        middle, low, high = (
            np.array([point[name] for point in points]) for name in ("median", "low", "high")
        )
    else:
        middle = np.array([point["mean"] for point in points])
        error = np.array([point["standard_error"] or 0 for point in points])
        low, high = middle - error, middle + error
    axes.errorbar(
        x,
        factor * middle,
        yerr=factor * np.stack([middle - low, high - middle]).clip(0),
        color=color,
        ls=style,
        marker="o",
        ms=4,
        lw=1.2,
        capsize=2,
    )


def _draw_shares(
    axes: Axes,
    slots: np.ndarray,
    points: Sequence[Mapping[str, Any]],
    color: Any,
    number: int,
    n_curves: int,
    n_slots: int,
) -> None:
    """The shares of one curve and their intervals, beside those of the others in every slot."""
    x = slots + 0.8 * ((number + 0.5) / n_curves - 0.5)
    width = float(np.clip(130 / (n_slots * n_curves), 1, 7))
    share, low, high = (
        np.array([100 * point[name] for point in points]) for name in ("probability", "low", "high")
    )
    axes.errorbar(
        x, share, yerr=[share - low, high - share], fmt="none", color=color, lw=width, alpha=0.35
    )
    axes.plot(x, share, "o", color=color, ms=float(np.clip(width, 2.5, 5)))


def _slots(axes: Axes, values: Sequence[Any]) -> None:
    """Equal room for every value, and the names of at most twelve."""
    axes.set_xlim(-0.5, len(values) - 0.5)
    for edge in range(1, len(values)):
        axes.axvline(edge - 0.5, color="0.9", lw=0.8, zorder=0)
    named = range(0, len(values), -(-len(values) // _NAMED))
    axes.set_xticks(named, [_short(values[at]) for at in named])


def _is_logarithmic(values: Sequence[Any]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= 8


def _logarithmic(axes: Axes, values: Sequence[float]) -> str:
    """Make the values' axis logarithmic if they span a decade; a note on those that are 0."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) < 10 * min(positive):
        return ""
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    if len(positive) == len(values):
        return ""
    return " (0 not drawn)" if min(values) == 0 else " (0 and less not drawn)"


def _ticks(axes: Axes, values: Sequence[Any], numeric: bool) -> None:
    if not numeric:
        axes.set_xticks(range(len(values)), [_short(value) for value in values])
        return
    if _is_logarithmic(values):
        axes.set_xscale("log", base=2)
    if len(values) <= _NAMED:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def plot_extrapolation(
    series: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], Extrapolation]],
    path: str | os.PathLike[str],
    *,
    unit: str,
) -> None:
    """Energies against discarded weight, and the fitted lines down to zero, a panel per series.

    Discarded weights over twice the largest one that is fitted are not drawn.

    **Arguments:**

    - `series`: settings, rows of `comparison.json` with `energy` and `discarded_weight`, and fit.
    """
    columns = min(3, len(series))
    bands = -(-len(series) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * bands), layout="constrained")
    panels = figure.subplots(bands, columns, squeeze=False).ravel()
    for axes, (settings, rows, fit) in zip(panels, series, strict=False):
        fitted = sorted(rows, key=lambda row: row["discarded_weight"]["mean"])
        weights = np.array([row["discarded_weight"]["mean"] for row in fitted])
        energies = np.array([row["energy"]["mean"] for row in fitted])
        errors = np.array([row["energy"]["standard_error"] or 0 for row in fitted])
        used = np.arange(len(fitted)) < fit.n_points
        near = weights <= 2 * weights[used].max()  # the others would squeeze the line together
        for chosen, color, label in (
            (used, "#1f5fa8", "fitted"),
            (near & ~used, "0.6", "not fitted"),
        ):
            if chosen.any():
                axes.errorbar(
                    weights[chosen],
                    energies[chosen],
                    yerr=errors[chosen],
                    fmt="o",
                    ms=4,
                    capsize=2,
                    color=color,
                    label=label,
                )
        line = np.array([0, weights[used].max()])
        axes.plot(line, fit.energy + fit.slope * line, color="#1f5fa8", lw=1)
        axes.errorbar(
            [0],
            [fit.energy],
            yerr=[[fit.energy - fit.low], [fit.high - fit.energy]],
            fmt="D",
            ms=5,
            capsize=4,
            color="#d1495b",
            label=f"limit and {100 * fit.confidence:.0f} % interval"
            + " of the fit only" * (fit.chi_squared is None),
        )
        axes.set(
            title=textwrap.fill(_in_short(settings), _TITLE) or "all runs",
            xlabel="discarded weight (squared norm)",
            ylabel=f"energy ({unit} per example)",
        )
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 3))
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(series) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=130)
