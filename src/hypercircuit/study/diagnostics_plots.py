"""The figure of a state's diagnostics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

_BLUE, _RED = "#1f5fa8", "#d1495b"


def plot_entropy(
    numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> None:
    """The entropy of every bond, correlations against distance, and discarded weights by bond.

    **Arguments:**

    - `numbers`, `arrays`: of [`hypercircuit.study.Diagnostics`][].
    """
    discarded = arrays.get("discarded")
    n_panels = 2 if discarded is None or not discarded.size else 3
    figure = Figure(figsize=(4.5 * n_panels, 3.4), layout="constrained")
    panels = figure.subplots(1, n_panels)
    entropy = arrays["entropy"]
    panels[0].plot(np.arange(len(entropy)) + 0.5, entropy, color=_BLUE, lw=0.9)
    panels[0].set(xlabel="site", ylabel="entropy (nats)", title="Entanglement at every bond")
    panels[0].set_ylim(bottom=0)
    profile = arrays["correlations"][1:]
    shown = np.flatnonzero(profile > 0)
    panels[1].semilogy(shown + 1, profile[shown], "o-", ms=3, color=_BLUE)
    length = numbers["correlation_length"]
    panels[1].set(
        xlabel="distance (sites)",
        ylabel="rms of <ZZ> - <Z><Z>",
        title="Correlations" + ("" if length is None else f", length {length:.2g} sites"),
    )
    if n_panels == 3:
        assert discarded is not None
        total = discarded.sum(0)
        shown = np.flatnonzero(total > 0)
        if len(shown):
            panels[2].semilogy(shown + 0.5, total[shown], ".", ms=3, color=_RED)
        panels[2].set(
            xlabel="site",
            ylabel="discarded weight",
            title=f"Truncation, {numbers['discarded_weight']:.2g} in all",
        )
    figure.savefig(path, dpi=120)
