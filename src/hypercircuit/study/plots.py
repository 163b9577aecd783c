"""Figures of a run, drawn without a display."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.ticker
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ..train import History

_ENERGY, _EXACT, _ACCURACY = "#1f5fa8", "#d1495b", "#2a7f62"


def plot_training(
    history: History, path: str | os.PathLike[str], *, unit: str, final: Mapping[str, Any]
) -> None:
    """Energy against step, the exact energy of the check examples, and accuracies.

    **Arguments:**

    - `unit`: the loss's unit, such as `nats`.
    - `final`: result entries; `energy` with `energy_examples`, and `*_accuracy`, are drawn where
      present.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, energies = np.asarray(history.step), np.asarray(history.energy)
    left.plot(steps, energies, color=_ENERGY, alpha=0.25, lw=0.8, label="energy, minibatch")
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
        left.axhline(
            final["energy"],
            color=_EXACT,
            lw=1,
            ls="--",
            label=f"exact, final, {final['energy_examples']:.0f} examples",
        )
    left.set(xlabel="step", ylabel=f"energy ({unit} per example)", title="Energy")
    if len(energies) and energies.min() > 0:
        left.set_yscale("log")
        left.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
        left.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.2g"))
        left.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    left.legend(frameon=False, fontsize=8)
    if "validation_accuracy" in evaluations:
        right.plot(
            at,
            100 * np.asarray(evaluations["validation_accuracy"]),
            "o-",
            ms=4,
            color=_ACCURACY,
            label="likeliest network, validation",
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
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def plot_weights(
    weights: Float[np.ndarray, "n_outputs n_inputs"],
    magnetisation: Float[np.ndarray, "n_outputs n_inputs"],
    image_shape: tuple[int, int],
    path: str | os.PathLike[str],
) -> None:
    """Each output's weights as an image, above the marginals <Z> of their qubits."""
    n_outputs = len(weights)
    figure = Figure(figsize=(max(4.0, 1.1 * n_outputs), 3.0), layout="constrained")
    rows = figure.subplots(2, n_outputs, squeeze=False)
    reach = np.abs(weights).max()
    for output in range(n_outputs):
        rows[0, output].imshow(
            weights[output].reshape(image_shape), cmap="gray", vmin=-reach, vmax=reach
        )
        shown = rows[1, output].imshow(
            magnetisation[output].reshape(image_shape), cmap="RdBu", vmin=-1, vmax=1
        )
        rows[0, output].set_title(str(output), fontsize=9)
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
    rows[0, 0].set_ylabel("best network")
    rows[1, 0].set_ylabel(r"marginal $\langle Z\rangle$")
    figure.colorbar(shown, ax=rows[1, :], shrink=0.8)
    figure.savefig(path, dpi=130)


def plot_architecture(
    choices: Sequence[tuple[str, Sequence[str], Float[np.ndarray, "copies options"]]],
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
