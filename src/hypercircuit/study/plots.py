"""Figures of runs and studies, drawn without a display."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..train import History
from .success import LossHistogram

#: Units whose weights are drawn.
_MOST_UNITS = 20
_ENERGY, _EXACT, _ACCURACY = "#1f5fa8", "#d1495b", "#2a7f62"


def plot_training(
    history: History, path: str | os.PathLike[str], *, unit: str, final: Mapping[str, Any]
) -> None:
    """Energy against step, the exact energy of the check examples, and accuracies.

    With a penalty also its divergence and beta.

    **Arguments:**

    - `unit`: the loss's unit, such as `nats`.
    - `final`: result entries; `energy` with `energy_examples`, and `*_accuracy`, are drawn where
      present and not None, and `energy_kind` says what the steps' energies are.
    """
    penalised = "kl" in history.more
    figure = Figure(figsize=(13.5 if penalised else 9, 3.6), layout="constrained")
    left, right, *rest = figure.subplots(1, 3 if penalised else 2)
    steps, energies = np.asarray(history.step), np.asarray(history.energy)
    label = "energy, minibatch"
    if final.get("energy_kind") == "mpo":
        label = "energy of the compressed operators, all examples"
    left.plot(steps, energies, color=_ENERGY, alpha=0.25, lw=0.8, label=label)
    window = max(1, len(steps) // 40)
    if window > 1:
        smooth = np.convolve(energies, np.full(window, 1 / window), "valid")
        left.plot(steps[window - 1 :], smooth, color=_ENERGY, label=f"mean of {window} steps")
    evaluations = history.evaluations
    at = np.asarray(evaluations.get("step", []))
    if "check_energy_exact" in evaluations:
        left.plot(
            at,
            evaluations["check_energy_exact"],
            "o",
            ms=4,
            color=_EXACT,
            label="exact, check examples",
        )
    if "energy" in final:
        kind = "exact" if final.get("energy_standard_error") is None else "sampled"
        left.axhline(
            final["energy"],
            color=_EXACT,
            lw=1,
            ls="--",
            label=f"{kind}, final, {final['energy_examples']:.0f} examples",
        )
    left.set(xlabel="step", ylabel=f"energy ({unit} per example)", title="Energy")
    if len(energies) and energies.min() > 0:
        left.set_yscale("log")
        left.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
        left.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.2g"))
        left.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    left.legend(frameon=False, fontsize=8)
    for part in ("train", "validation"):
        if f"{part}_accuracy" in evaluations:
            right.plot(
                at,
                100 * np.asarray(evaluations[f"{part}_accuracy"]),
                "o-",
                ms=4,
                color=_ACCURACY,
                label=f"likeliest network, {part}",
            )
    for name, style in (("train", ":"), ("validation", "--"), ("test", "-")):
        value = final.get(f"{name}_accuracy")
        if value is not None:
            right.axhline(
                100 * value,
                color="0.35",
                lw=1,
                ls=style,
                label=f"best network, {name}: {100 * value:.2f} %",
            )
    right.set(xlabel="step", ylabel="accuracy (%)", title="Accuracy")
    if right.lines:
        right.legend(frameon=False, fontsize=8, loc="lower right")
    for axes in (left, right, *rest):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in rest:
        _plot_penalty(history, axes)
    figure.savefig(path, dpi=130)


def _plot_penalty(history: History, axes: Axes) -> None:
    """The divergence from the prior, and its weight on an axis of its own."""
    steps, more, evaluations = history.step, history.more, history.evaluations
    axes.plot(steps, more["kl"], color=_ENERGY, alpha=0.4, lw=0.8, label="KL, a step's samples")
    if "kl" in evaluations:
        axes.errorbar(
            evaluations["step"],
            evaluations["kl"],
            yerr=evaluations["kl_standard_error"],
            fmt="o",
            ms=4,
            color=_EXACT,
            label="KL, an evaluation's samples",
        )
    axes.set(xlabel="step", ylabel="divergence from the prior (nats)", title="Penalty")
    weight = axes.twinx()
    weight.plot(steps, more["beta"], color=_ACCURACY, ls="--", lw=1, label="beta (right axis)")
    weight.set_ylabel("beta")
    weight.set_ylim(bottom=0)
    weight.spines["top"].set_visible(False)
    lines = [*axes.get_legend_handles_labels()[0], *weight.get_legend_handles_labels()[0]]
    axes.legend(handles=lines, frameon=False, fontsize=8)


def plot_weights(
    weights: Float[np.ndarray, "units n_inputs"],
    magnetisation: Float[np.ndarray, "units n_inputs"],
    image_shape: tuple[int, int],
    path: str | os.PathLike[str],
) -> None:
    """The first layer's weights, unit by unit, above the marginals <Z> of their qubits."""
    shown = min(len(weights), _MOST_UNITS)
    columns = min(shown, 10)
    bands = -(-shown // columns)
    figure = Figure(figsize=(max(4.0, 1.1 * columns), 2.6 * bands + 0.4), layout="constrained")
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    reach = np.abs(weights).max()
    for unit in range(shown):
        band, column = divmod(unit, columns)
        above, below = panels[2 * band, column], panels[2 * band + 1, column]
        for axes in (above, below):
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
        above.imshow(weights[unit].reshape(image_shape), cmap="gray", vmin=-reach, vmax=reach)
        image = magnetisation[unit].reshape(image_shape)
        marginals = below.imshow(image, cmap="RdBu", vmin=-1, vmax=1)
        above.set_title(str(unit), fontsize=9)
        if column == 0:
            above.set_ylabel("best network")
            below.set_ylabel(r"marginal $\langle Z\rangle$")
    figure.colorbar(marginals, ax=panels[1::2, :].ravel().tolist(), shrink=0.8)
    if shown < len(weights):
        figure.suptitle(f"the first {shown} of {len(weights)} neurons", fontsize=9)
    figure.savefig(path, dpi=130)


def plot_architecture(
    choices: Sequence[tuple[str, Sequence[str], Float[np.ndarray, "_ _"]]],
    path: str | os.PathLike[str],
) -> None:
    """The probability of every option, one panel a choice; copies of a choice as points.

    **Arguments:**

    - `choices`: name, options in words, and probabilities (copies, options) of each.
    """
    figure = Figure(figsize=(max(3.6, 3.0 * len(choices)), 3.0), layout="constrained")
    panels = figure.subplots(1, len(choices), squeeze=False)[0]
    for axes, (name, options, probabilities) in zip(panels, choices, strict=True):
        position = np.arange(len(options))
        mean = probabilities.mean(0)
        axes.bar(position, mean, color=_ENERGY, alpha=0.35 if len(probabilities) > 1 else 0.9)
        if len(probabilities) > 1:
            spread = np.linspace(-0.3, 0.3, len(probabilities))
            for option in position:
                axes.plot(option + spread, probabilities[:, option], ".", ms=3, color=_EXACT)
        for option in position:
            axes.text(option, mean[option] + 0.02, f"{mean[option]:.2f}", ha="center", fontsize=8)
        axes.set(ylim=(0, 1.1), xticks=position, title=name, ylabel="Born probability")
        axes.set_xticklabels(options, fontsize=8, rotation=20 if len(options) > 3 else 0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def plot_success(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """The share of successful restarts against depth, with its exact interval.

    **Arguments:**

    - `rows`: one per depth, with `depth`, `n`, `probability`, `low`, `high`, `confidence` and
      `success_distance`.
    """
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    depths = [row["depth"] for row in rows]
    shares = 100 * np.array([row["probability"] for row in rows])
    low, high = (100 * np.array([row[name] for row in rows]) for name in ("low", "high"))
    axes.errorbar(
        depths,
        shares,
        yerr=[shares - low, high - shares],
        fmt="o",
        color=_ENERGY,
        capsize=4,
        label=f"share and {100 * rows[0]['confidence']:.0f} % interval (exact binomial)",
    )
    for depth, share, row in zip(depths, shares, rows, strict=True):
        axes.annotate(
            f"{row['successes']}/{row['n']}",
            (depth, share),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    distance = rows[0]["success_distance"]
    axes.set(
        xlabel="depth (layers; 1 is the product state)",
        ylabel=f"restarts within {distance:g} of the minimum (%)",
        ylim=(-3, 103),
        xticks=depths,
        xlim=(min(depths) - 0.5, max(depths) + 0.9),
    )
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def plot_resilience(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    unit: str,
    minimum: float | None,
) -> None:
    """Energy, probability of the best networks and expected accuracy against noise, by depth.

    **Arguments:**

    - `rows`: one per depth and multiplier, with `depth`, `multiplier`, and for each quantity
      `energy`, `best_probability` and `accuracy` its mean over states and `_low` and `_high`;
      the energy alone, perhaps with its `energy_standard_error`, where networks are not counted.
    - `unit`: the loss's unit, such as `nats`.
    - `minimum`: the loss of the best network, where it is known.
    """
    quantities = (
        ("energy", f"energy ({unit})", 1),
        ("best_probability", "probability of the best networks (%)", 100),
        ("accuracy", "expected test accuracy (%)", 100),
    )
    panels = [each for each in quantities if each[0] in rows[0]]
    figure = Figure(figsize=(4 * len(panels), 3.8), layout="constrained")
    depths = sorted({row["depth"] for row in rows})
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(depths)))
    subplots = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, label, factor) in zip(subplots, panels, strict=True):
        for depth, colour in zip(depths, colours, strict=True):
            own = [row for row in rows if row["depth"] == depth]
            at = [row["multiplier"] for row in own]
            mean, low, high = (
                factor * np.array([row[name + end] for row in own]) for end in ("", "_low", "_high")
            )
            axes.plot(at, mean, "o-", ms=3.5, color=colour, label=f"depth {depth}")
            axes.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)
            if name == "energy" and own[0].get("energy_standard_error") is not None:
                errors = [row["energy_standard_error"] for row in own]
                axes.errorbar(at, mean, errors, fmt="none", color=colour, capsize=2)
        axes.set(xlabel="noise multiplier p", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        if name == "energy":
            if minimum is not None:
                axes.axhline(minimum, color="0.5", lw=0.8, ls=":", label="best network")
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def plot_losses(
    histograms: Mapping[int, LossHistogram],
    path: str | os.PathLike[str],
    *,
    unit: str,
    distance: float,
) -> None:
    """Where the restarts of every depth ended above the minimum, one histogram per depth.

    **Arguments:**

    - `histograms`: by depth, with equal edges.
    - `unit`: the loss's unit.
    - `distance`: the largest distance of a success, drawn as a line.
    """
    figure = Figure(figsize=(6.4, 1.1 + 1.1 * len(histograms)), layout="constrained")
    rows = figure.subplots(len(histograms), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (depth, histogram) in zip(rows, sorted(histograms.items()), strict=True):
        axes.stairs(histogram.counts, histogram.edges, fill=True, color=_ENERGY, alpha=0.8)
        axes.axvline(distance, color=_EXACT, ls="--", lw=1)
        name = "product state" if depth == 1 else f"depth {depth}"
        total = int(histogram.counts.sum()) + histogram.n_missing
        axes.set_title(f"{name}, {total} restarts", fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    rows[0].set_xscale("log")
    rows[0].annotate(
        f"dashed: success, at most {distance:g}",
        (1, 1),
        xycoords="axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=_EXACT,
    )
    rows[-1].set_xlabel(f"final energy minus the minimum over all networks ({unit} per example)")
    figure.supylabel("restarts", fontsize=10)
    figure.savefig(path, dpi=130)


def plot_pauli_weights(
    weights: Float[np.ndarray, " n_orders"], path: str | os.PathLike[str]
) -> None:
    """The share of the loss's variance in products of k Pauli Z, against k."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    orders = np.arange(1, len(weights))
    shown = weights[1:] > 1e-16
    axes.plot(orders[shown], weights[1:][shown], "o-", color=_ENERGY, ms=5)
    axes.set(
        xlabel="Pauli Z in the product, k",
        ylabel="share of the loss's variance",
        yscale="log",
    )
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
