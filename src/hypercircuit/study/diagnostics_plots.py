"""The figure of a state's diagnostics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_BLUE, _RED = "#1f5fa8", "#d1495b"
#: Weights, squares of Schmidt values, at and below this are rounding and not drawn.
ROUNDING = 1e-16


def plot_entropy(
    numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> None:
    """Entropies, Schmidt values and discarded weights by bond, and correlations by distance.

    **Arguments:**

    - `numbers`, `arrays`: of [`hypercircuit.study.Diagnostics`][].
    """
    discarded = arrays.get("discarded")
    truncated = discarded is not None and discarded.size > 0
    figure = Figure(figsize=(9.5, 6.4) if truncated else (13.5, 3.4), layout="constrained")
    panels = figure.subplots(*((2, 2) if truncated else (1, 3))).reshape(-1)
    entropy = arrays["entropy"]
    bonds = np.arange(1, len(entropy) + 1)
    marks = {"marker": "o", "ms": 4 if len(bonds) <= 100 else 1.5, "lw": 0.9}
    panels[0].plot(bonds, entropy, color=_BLUE, **marks)
    panels[0].set(ylabel="entropy (nats)", title="Entanglement at every bond")
    panels[0].set_ylim(bottom=0)
    curves = schmidt_curves(arrays["spectrum"])
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, max(1, len(curves))))
    for (rank, values), colour in zip(curves.items(), colours, strict=True):
        panels[1].semilogy(bonds, values, color=colour, label=f"{rank}", **marks)
    panels[1].set(ylabel="Schmidt value", title="Schmidt values by rank")
    if curves:
        panels[1].legend(frameon=False, fontsize=8, ncols=2, title="rank", title_fontsize=8)
    _draw_correlations(panels[2], arrays["correlations"][1:], numbers["correlation_length"])
    if truncated:
        assert discarded is not None
        panels[3].semilogy(bonds, above_rounding(discarded.sum(0)), color=_RED, **marks)
        about = " (estimates)" if numbers.get("discarded_weight_is") == "estimated" else ""
        panels[3].set(
            ylabel="discarded weight",
            title=f"Truncation, {numbers['discarded_weight']:.2g} in all{about}",
        )
    for at, axes in enumerate(panels):
        axes.spines[["top", "right"]].set_visible(False)
        if at != 2:
            axes.set(xlabel="bond (qubits to its left)", xlim=(0, len(bonds) + 1))
    figure.savefig(path, dpi=120)


def schmidt_curves(
    spectrum: Float[np.ndarray, "n_bonds values"],
) -> dict[int, Float[np.ndarray, " n_bonds"]]:
    """The largest Schmidt values and those of ranks 4, 8, 16, .. by bond, NaN where rounding."""
    n_values = spectrum.shape[1]
    ranks = {1, 2, 3, n_values, *(2**power for power in range(2, 20))}
    found = {
        rank: np.sqrt(above_rounding(spectrum[:, rank - 1] ** 2))
        for rank in sorted(ranks)
        if rank <= n_values
    }
    return {rank: values for rank, values in found.items() if np.isfinite(values).any()}


def above_rounding(weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The weights that are more than rounding, NaN in place of the others."""
    return np.where(weights > ROUNDING, weights, np.nan)


def _draw_correlations(axes: Axes, profile: np.ndarray, length: float | None) -> None:
    shown = np.flatnonzero(profile > 0)
    axes.semilogy(shown + 1, profile[shown], "o-", ms=4, lw=0.9, color=_BLUE)
    axes.set(
        xlabel="distance (sites)",
        ylabel="rms of <ZZ> - <Z><Z>",
        title="Correlations" + ("" if length is None else f", length {length:.2g} sites"),
    )
