"""Figures of one run for a page: one panel each, as wide as a phone, thinned to few points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.ticker
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Readable on light and dark paper.
BLUE, RED, GREEN = "#2f7fd1", "#d9534f", "#2f9e77"
#: Points of a curve; more are thinned out.
MOST_POINTS = 600
_SIZE = (4.4, 3.0)


def thin(
    x: Float[np.ndarray, " n"] | Int[np.ndarray, " n"], y: Float[np.ndarray, " n"], most: int
) -> Int[np.ndarray, " kept"]:
    """Positions of at most `most` points that keep a curve's ends and every bin's extremes.

    **Arguments:**

    - `x`: increasing; bins hold equally many points.
    - `most`: at least 4.
    """
    if len(x) <= most:
        return np.arange(len(x))
    values = np.where(np.isfinite(y), y, np.nan)
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), (most - 2) // 2):
        if np.isfinite(values[part]).any():
            kept |= {int(part[np.nanargmin(values[part])]), int(part[np.nanargmax(values[part])])}
    return np.array(sorted(kept))


def draw_curves(
    path: Path,
    curves: Sequence[Mapping[str, Any]],
    *,
    xlabel: str,
    ylabel: str,
    logarithmic: bool = False,
    levels: Sequence[tuple[str, float, str]] = (),
    zero: bool = False,
) -> None:
    """Curves with a legend above them.

    **Arguments:**

    - `curves`: `x`, `y`, `label`, `color`, and matplotlib's other settings of a line.
    - `logarithmic`: if all values are positive.
    - `levels`: name, value and style of horizontal lines.
    - `zero`: whether the vertical axis starts at zero.
    """
    figure, axes = _figure()
    for curve in curves:
        more = {key: value for key, value in curve.items() if key not in ("x", "y")}
        x, y = np.asarray(curve["x"]), np.asarray(curve["y"], np.float64)
        at = thin(x, y, MOST_POINTS)
        axes.plot(x[at], y[at], **{"lw": 1.2, **more})
    for name, value, style in levels:
        axes.axhline(value, color=RED, lw=1, ls=style, label=name)
    values = np.concatenate([np.asarray(curve["y"], np.float64) for curve in curves])
    if np.isnan(values).any():
        # Gaps at the ends count: figures of the same bonds have the same axis.
        places = np.concatenate([np.asarray(curve["x"], np.float64) for curve in curves])
        margin = 0.05 * np.ptp(places)
        axes.set_xlim(places.min() - margin, places.max() + margin)
    values = values[np.isfinite(values)]
    if logarithmic and len(values) and min(values.min(), *(v for _, v, _ in levels), 1) > 0:
        axes.set_yscale("log")
        if values.max() < 100 * values.min():
            axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.2g"))
        axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    elif zero:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _finish(figure, axes, path)


def draw_histogram(
    path: Path,
    counts: Sequence[tuple[str, Int[np.ndarray, " bins"]]],
    edges: Float[np.ndarray, " edges"],
    *,
    xlabel: str,
    ylabel: str,
    levels: Sequence[tuple[str, float, str]] = (),
    logarithmic: bool = False,
) -> None:
    """Counts as steps; `levels` are vertical lines: name, place, style."""
    figure, axes = _figure()
    for (name, heights), color in zip(counts, (BLUE, GREEN), strict=False):
        label = name or None
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.6, label=label)
    for name, value, style in levels:
        axes.axvline(value, color=RED, lw=1.3, ls=style, label=name)
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    else:
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _finish(figure, axes, path)


def draw_bars(path: Path, values: Float[np.ndarray, " n"], *, xlabel: str, ylabel: str) -> None:
    """One bar per site, between -1 and 1."""
    figure, axes = _figure()
    axes.bar(np.arange(len(values)), values, color=BLUE)
    axes.axhline(0, color="0.35", lw=0.8)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-1.05, 1.05))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    _finish(figure, axes, path)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    lines = len(axes.get_legend_handles_labels()[0])
    if lines:
        figure.set_figheight(_SIZE[1] + 0.19 * (lines - 1))
        figure.legend(loc="outside upper left", frameon=False, fontsize=9, ncols=1)
    figure.savefig(path)
