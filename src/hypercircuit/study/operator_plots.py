"""Figures of compressed losses, drawn without a display."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .operators import BondError, CutSpectrum, Optimum

#: Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SETS = {
    "metric": "networks of the metric",
    "uniform": "uniformly random networks",
    "state": "samples of the state",
}


def plot_bond_profile(
    parts: Sequence[tuple[int, Sequence[int]]], path: str | os.PathLike[str], *, max_bond: int
) -> None:
    """The bond dimension at every cut.

    **Arguments:**

    - `parts`: the first site and the bond dimensions (both ends included) of every operator.
    - `max_bond`: what was asked for, drawn as a line.
    """
    figure, axes = _figure()
    for number, (start, bonds) in enumerate(parts):
        sites = start + np.arange(len(bonds))
        axes.plot(sites, bonds, color=_COLOURS[number % 6], lw=1.3, drawstyle="steps-mid")
    axes.axhline(max_bond, color="0.35", ls="--", lw=1, label=f"asked for at most {max_bond}")
    axes.set(
        xlabel="cut (qubits to its left)",
        ylabel="bond dimension",
        title=f"Bond profile of {len(parts)} operator{'s' if len(parts) > 1 else ''}",
        ylim=(0, 1.15 * max(max_bond, *(max(bonds) for _, bonds in parts))),
    )
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(path, dpi=130)


def plot_singular_values(
    spectra: Sequence[CutSpectrum], path: str | os.PathLike[str], *, unit: str
) -> None:
    """The singular values at a few cuts, in the metric, from the largest."""
    figure, axes = _figure()
    for number, spectrum in enumerate(spectra):
        axes.plot(
            np.arange(1, len(spectrum.values) + 1),
            spectrum.values,
            color=_COLOURS[number],
            marker=_MARKERS[number],
            ms=3,
            lw=1,
            label=f"{spectrum.site} and {spectrum.site + 1}",
        )
    axes.set(
        xlabel="number of the singular value",
        ylabel=f"singular value ({unit} per example)",
        yscale="log",
        title="Singular values in the metric",
    )
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, fontsize=8, title="between qubits", title_fontsize=8)
    figure.savefig(path, dpi=130)


def plot_error_against_bond(
    rows: Sequence[BondError],
    path: str | os.PathLike[str],
    *,
    unit: str,
    spectral_error: float,
    metric: str,
) -> None:
    """Root mean square errors of one operator against the bond dimension it is truncated to.

    **Arguments:**

    - `spectral_error`: the compiled terms' bound, drawn as a line where it is not zero.
    - `metric`: the operator's metric in words.
    """
    figure, axes = _figure()
    for number, name in enumerate(rows[0].measured):
        _line(axes, rows, name, number, f"measured, {_SETS.get(name, name)}")
    further = [(row.max_bond, row.further_truncation) for row in rows if row.further_truncation > 0]
    if further:
        bonds, errors = zip(*further, strict=True)
        label = f"further truncation, from bond {rows[-1].max_bond}, in the metric"
        axes.plot(bonds, errors, color="0.35", marker="x", ls=":", lw=1, ms=5, label=label)
    if spectral_error > 0:
        axes.axhline(
            spectral_error, color="0.35", ls="--", lw=1, label="spectral, at most, compiled terms"
        )
    _bond_axes(axes, rows)
    axes.set(
        ylabel=f"root mean square error ({unit} per example)",
        title=f"Error against bond dimension, {metric} metric",
    )
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def plot_error_against_metric(
    rows: Mapping[str, Sequence[BondError]], path: str | os.PathLike[str], *, unit: str
) -> None:
    """Operators of two metrics at equal bond dimension, one panel per set of networks.

    **Arguments:**

    - `rows`: by the metric in words, measured on the same sets of networks.
    """
    names = list(next(iter(rows.values()))[0].measured)
    figure = Figure(figsize=(4.3 * len(names), 3.9), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for number, (metric, each) in enumerate(rows.items()):
            _line(axes, each, name, number, f"{metric} metric")
        loss = next(iter(rows.values()))[0].measured[name].loss
        axes.axhline(loss, color="0.35", ls=":", lw=1, label="the networks' mean true loss")
        _bond_axes(axes, [row for each in rows.values() for row in each])
        axes.set_title(f"on {_SETS.get(name, name)}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"root mean square error ({unit} per example)")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def plot_optima(
    optima: Mapping[str, Sequence[Optimum]],
    path: str | os.PathLike[str],
    *,
    unit: str,
    trained: float | None = None,
) -> None:
    """The networks that a classical search found in operators of every bond dimension.

    **Arguments:**

    - `optima`: by the metric in words.
    - `trained`: the true loss of the best network of a trained state.
    """
    figure, axes = _figure()
    for number, (metric, rows) in enumerate(optima.items()):
        bonds = [row.max_bond for row in rows]
        style: dict[str, Any] = {"color": _COLOURS[number], "ms": 4}
        found = [row.anywhere for row in rows]
        losses, values = [each.loss for each in found], [each.value for each in found]
        axes.plot(bonds, losses, marker=_MARKERS[number], label=f"{metric}: true loss", **style)
        axes.plot(bonds, values, marker="x", ls=":", lw=1, label=f"{metric}: operator", **style)
        near = [(row.max_bond, row.trusted.loss) for row in rows if row.trusted is not None]
        if near:
            label = f"{metric}: true loss, near the state"
            axes.plot(*zip(*near, strict=True), marker="+", ls="--", lw=1, label=label, **style)
    if trained is not None:
        axes.axhline(
            trained, color="0.35", ls="--", lw=1, label="best network of the trained state"
        )
    every = sorted({row.max_bond for rows in optima.values() for row in rows})
    axes.set(xlabel="bond dimension", xscale="log", ylabel=f"loss ({unit} per example)")
    axes.set_xticks(every, [str(bond) for bond in every])
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_yscale("symlog", linthresh=1e-2)
    axes.grid(axis="y", color="0.9")
    axes.set_title("The minimum of the operators over single networks")
    figure.set_figheight(4.8)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.0, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line(axes: Axes, rows: Sequence[BondError], name: str, number: int, label: str) -> None:
    found = [(row.max_bond, row.measured[name]) for row in rows]
    axes.errorbar(
        [bond for bond, _ in found],
        [each.rms for _, each in found],
        yerr=[each.rms_standard_error if each.n_networks > 1 else 0.0 for _, each in found],
        color=_COLOURS[number],
        marker=_MARKERS[number],
        ms=4,
        lw=1.2,
        capsize=3,
        label=label,
    )


def _bond_axes(axes: Axes, rows: Sequence[BondError]) -> None:
    bonds = sorted({row.max_bond for row in rows})
    axes.set(xlabel="bond dimension", xscale="log", yscale="log")
    axes.set_xticks(bonds, [str(bond) for bond in bonds])
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.grid(axis="y", color="0.9")
