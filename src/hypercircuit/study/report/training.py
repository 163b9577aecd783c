"""What a page shows of a training run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import to_hex

from ...train import History
from ..diagnostics_plots import above_rounding, schmidt_curves
from ..plots import plot_architecture
from .curves import BLUE, GREEN, RED, draw_bars, draw_curves, draw_histogram
from .html import Content, Html, clean, join, number, tag
from .page import NOT_USED, Errors, Page, facts, grid, paragraph, result, table
from .svg import image

#: Neurons whose weights are shown.
MOST_UNITS = 20
_WINDOWS = 40


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Networks drawn from a trained state, and what they are worth.

    **Attributes:**

    - `losses`: of every network, the mean over the scored examples.
    - `best`: loss of the run's best network on the same examples.
    - `n_examples`, `n_all`: scored examples, and training examples in all.
    - `seed`: of the draw.
    """

    losses: Float[np.ndarray, " n"]
    best: float
    n_examples: int
    n_all: int
    seed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """The first layer as images.

    **Attributes:**

    - `weights`: of the best network.
    - `marginals`: ⟨Z⟩ of their qubits.
    - `shape`: of an image.
    """

    weights: Float[np.ndarray, "units n_inputs"]
    marginals: Float[np.ndarray, "units n_inputs"]
    shape: tuple[int, int]


def summary(found: Mapping[str, Any], config: Mapping[str, Any]) -> Html | None:
    """What was run, and how long it took."""
    if not found:
        return None
    seconds = functools.partial(_seconds, found)
    noise = found.get("noise")
    rates = None
    if noise:
        rates = ", ".join(f"{name.replace('_', '-')} {rate:g}" for name, rate in noise.items())
    batch = config.get("train", {}).get("batch_size")
    return facts(
        [
            ("qubits", number(found.get("n_qubits"))),
            ("depth (1 is the product state)", _given(found, "depth")),
            ("bond of the state", _given(found, "max_bond")),
            ("parameters", _given(found, "n_parameters")),
            ("loss", _words(found, "loss")),
            ("energy in training", _words(found, "energy_kind")),
            ("errors of gates and readout", rates),
            ("steps", _given(found, "steps")),
            ("examples per step", None if batch is None else (number(batch) if batch else "all")),
            ("training", seconds("seconds")),
            ("compilation, within it", seconds("compile_seconds")),
            ("final energy", seconds("energy_seconds")),
            ("all of the last start", seconds("total_seconds")),
            ("seed", _given(found, "seed")),
        ]
    )


def _given(found: Mapping[str, Any], name: str, form: str = ".6g") -> Html | None:
    return None if found.get(name) is None else number(found[name], form)


def _words(found: Mapping[str, Any], name: str) -> str | None:
    return None if found.get(name) is None else str(found[name])


def _seconds(found: Mapping[str, Any], name: str) -> Html | None:
    return None if found.get(name) is None else number(found[name], ".3g", "s")


# ---------------------------------------------------------------- results and their errors


def results(
    found: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    history: History | None,
    diagnostics: Mapping[str, Any],
    samples: Samples | None,
) -> Html | None:
    """Every result with the errors that belong to it."""
    unit = f"{found.get('unit') or 'loss'} per example"
    shown = [
        _final_energy(found, config, diagnostics, unit),
        _training_energy(found, config, history, diagnostics, unit),
        _best_network(found, unit),
        _sample_mean(samples, unit),
        _classical(found, unit),
    ]
    return grid(shown, "results")


def _final_energy(
    found: Mapping[str, Any], config: Mapping[str, Any], diagnostics: Mapping[str, Any], unit: str
) -> Html | None:
    energy = found.get("energy")
    if energy is None:
        return None
    error = found.get("energy_standard_error")
    about = [f"mean over {_count(found.get('energy_examples'))} training examples"]
    about.append("exact in the state" if error is None else "from samples of the state")
    if found.get("energy_state"):
        about.append(f"of {found['energy_state']}")
    best, kind = found.get("best_loss"), str(found.get("energy_kind"))
    gap: Content = "distance from the minimum unknown"
    if best is not None:
        gap = join(
            [
                "distance from the minimum unknown; the best network found has ",
                number(best),
                " on all training examples",
            ]
        )
    sampling: Content = NOT_USED
    if error is not None:
        sampling = join([number(error, ".2g"), " (standard error)"])
    return result(
        "Final energy",
        number(energy, ".6g", unit),
        ", ".join(about),
        Errors(
            spectral=_spectral(found) if error is None else NOT_USED,
            compression="not used: evaluated with the uncompressed terms"
            if kind.startswith("mpo")
            else NOT_USED,
            truncation=_truncation(config, diagnostics),
            sampling=sampling,
            check=gap,
        ),
    )


def _training_energy(
    found: Mapping[str, Any],
    config: Mapping[str, Any],
    history: History | None,
    diagnostics: Mapping[str, Any],
    unit: str,
) -> Html | None:
    if history is None or not len(history):
        return None
    kind = str(found.get("energy_kind") or config.get("energy", {}).get("kind") or "unknown")
    window = max(1, len(history) // _WINDOWS)
    mean = float(history.energy[-window:].mean())
    check: Content = "not measured"
    if found.get("check_error") is not None:
        n = config.get("energy", {}).get("check_examples")
        examples = f" on {n} check examples" if n is not None else ""
        check = join(
            [
                "mean ",
                number(found["check_error"], ".2g"),
                _largest(found.get("check_error_max")),
                f" against the reference{examples}",
            ]
        )
        if found.get("check_standard_error") is not None:
            check = join(
                [
                    check,
                    ", itself sampled ± ",
                    number(found["check_standard_error"], ".2g"),
                ]
            )
    elif not kind.startswith(("cumulant", "sampled", "mpo")):
        check = "not needed: the energy is exact in the state"
    compression: Content = NOT_USED
    if found.get("mpo_rms") is not None:
        compression = join(
            [
                "rms ",
                number(found["mpo_rms"], ".2g"),
                _largest(found.get("mpo_max")),
                " on samples of the state",
            ]
        )
    elif kind.startswith("mpo"):
        compression = "not measured yet"
    if found.get("mpo_trusted") is False:
        compression = join([compression, "; ", _distrusted(found["mpo"])])
    spectral: Content = NOT_USED
    if kind.startswith("mpo"):
        spectral = _spectral(found, "of the compiled terms")
    elif not kind.startswith(("cumulant", "sampled")):
        spectral = _spectral(found)
    sampling: Content = NOT_USED
    if kind.startswith("sampled"):
        n = config.get("energy", {}).get("samples")
        sampling = f"of {n} samples a step; see the scatter of the curve"
    about = "on each step's own examples"
    if kind.startswith("mpo"):
        about = "energy of the compressed operators, all examples"
    last = "the last step" if window == 1 else f"the last {_count(window)} steps"
    return result(
        f"Energy in training ({kind})",
        number(mean, ".6g", unit),
        f"mean of {last}, {about}",
        Errors(spectral, compression, _truncation(config, diagnostics), sampling, check),
    )


def _best_network(found: Mapping[str, Any], unit: str) -> Html | None:
    if found.get("best_loss") is None:
        return None
    accuracies = join(
        (
            join([part, " ", number(found[f"{part}_accuracy"], ".2%")])
            for part in ("train", "validation", "test")
            if found.get(f"{part}_accuracy") is not None
        ),
        ", ",
    )
    classical = (found.get("classical") or {}).get("loss")
    gap: Content = "distance from the minimum unknown"
    if classical is not None:
        gap = join(["distance from the minimum unknown; classical search ", number(classical)])
    return result(
        "Best network",
        number(found["best_loss"], ".6g", unit),
        join(["loss on all training examples; accuracy: ", accuracies]),
        Errors(check=gap),
    )


def _sample_mean(samples: Samples | None, unit: str) -> Html | None:
    if samples is None or len(samples.losses) < 2:
        return None
    n = len(samples.losses)
    error = float(samples.losses.std(ddof=1) / np.sqrt(n))
    return result(
        f"Mean of {_count(n)} samples drawn for this page",
        number(float(samples.losses.mean()), ".6g", unit),
        f"loss on {_count(samples.n_examples)} of {_count(samples.n_all)} training examples; other "
        f"draws (seed {samples.seed}) than the run's own samples below",
        Errors(sampling=join([number(error, ".2g"), " (standard error of the mean)"])),
    )


def _classical(found: Mapping[str, Any], unit: str) -> Html | None:
    classical = found.get("classical")
    if not classical:
        return None
    accuracies = join(
        (
            join([part, " ", number(value, ".2%")])
            for part, value in (classical.get("accuracies") or {}).items()
        ),
        ", ",
    )
    compression: Content = "not used: the true loss"
    if classical.get("value") is not None:
        compression = join(
            ["not used: the true loss; the operator has ", number(classical["value"]), " there"]
        )
    return result(
        "Classical search near the state",
        number(classical.get("loss"), ".6g", unit),
        join(["true loss of the network found in the operators; accuracy: ", accuracies]),
        Errors(compression=compression, check="a search: no bound on what it missed"),
    )


def _largest(value: float | None) -> Content:
    return "" if value is None else join([", largest ", number(value, ".2g")])


def _distrusted(operators: Mapping[str, Any]) -> Html:
    """What is said of operators that ended outside their trust region."""
    return join(
        [
            "not to be trusted at the end: rms ",
            number(operators.get("rms"), ".2g"),
            f", mpo.trust={operators.get('trust'):g} of their loss is ",
            number(operators.get("limit"), ".2g"),
        ]
    )


def _spectral(found: Mapping[str, Any], whose: str = "for every network") -> Content:
    error = found.get("spectral_error")
    if error is None:
        return "not recorded"
    if error == 0:
        return "0: the terms are exact"
    return join(["at most ", number(error, ".2g"), f", {whose}"])


def _truncation(config: Mapping[str, Any], diagnostics: Mapping[str, Any]) -> Content:
    if diagnostics.get("energy_error") is not None:
        n = diagnostics.get("compared_examples")
        return join(
            [
                "± ",
                number(diagnostics["energy_error"], ".2g"),
                f" (from {diagnostics.get('energy_error_from')}"
                + (f", {_count(n)} examples)" if n else ")"),
                "; discarded weight ",
                number(diagnostics.get("discarded_weight"), ".2g"),
                _estimated(diagnostics),
            ]
        )
    if diagnostics.get("discarded_weight") is not None:
        weight = number(diagnostics["discarded_weight"], ".2g")
        return join(["not measured; discarded weight ", weight, _estimated(diagnostics)])
    if config.get("state", {}).get("engine") == "truncated":
        return "not measured"
    return NOT_USED


def _estimated(diagnostics: Mapping[str, Any]) -> str:
    """What stands behind a discarded weight that is none of the state itself."""
    return " (an estimate)" if diagnostics.get("discarded_weight_is") == "estimated" else ""


def _count(value: Any) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)


# ---------------------------------------------------------------- figures


def training_curves(
    page: Page, history: History, found: Mapping[str, Any], source: str, *, unit: str
) -> Html | None:
    """Energy, accuracy, gradient norm, penalty and measured errors against the step."""
    if not len(history):
        return None
    more = history.more
    figures: list[Html | None] = [_energy_figure(page, history, found, source, unit)]
    figures.append(_accuracy_figure(page, history, found))
    figures.append(
        page.figure(
            functools.partial(
                draw_curves,
                curves=[
                    {
                        "x": history.step,
                        "y": history.gradient_norm,
                        "label": "gradient norm",
                        "color": BLUE,
                    }
                ],
                xlabel="step",
                ylabel=f"norm ({unit} per radian)",
                logarithmic=True,
            ),
            "Gradient",
            "Euclidean norm of every step's gradient, before clipping.",
            source=source,
            columns={"step": history.step, "gradient norm": history.gradient_norm},
        )
    )
    figures.append(_error_figure(page, history, unit))
    if "kl" in more:
        figures.append(
            page.figure(
                functools.partial(
                    draw_curves,
                    curves=[
                        {"x": history.step, "y": more["kl"], "label": "divergence", "color": BLUE}
                    ],
                    xlabel="step",
                    ylabel="divergence (nats)",
                ),
                "Penalty",
                "Kullback-Leibler divergence from the prior in nats, from every step's samples.",
                source=source,
                columns={
                    "step": history.step,
                    "divergence (nats)": more["kl"],
                    **({"beta": more["beta"]} if "beta" in more else {}),
                },
            )
        )
    return grid(figures)


def _energy_figure(
    page: Page, history: History, found: Mapping[str, Any], source: str, unit: str
) -> Html:
    steps, energies = history.step, history.energy
    own, caption = "energy of a step's examples", "Mean loss over the Born distribution"
    if str(found.get("energy_kind")).startswith("mpo"):
        own = "energy of the compressed operators, all examples"
        caption = "Mean over the Born distribution of the compressed operators, all examples"
    curves: list[dict[str, Any]] = [
        {
            "x": steps,
            "y": energies,
            "label": own,
            "color": BLUE,
            "alpha": 0.4 if len(steps) > _WINDOWS else 1.0,
            "lw": 0.8,
        }
    ]
    window = max(1, len(steps) // _WINDOWS)
    if window > 1:
        smooth = np.convolve(energies, np.full(window, 1 / window), "valid")
        curves.append(
            {
                "x": steps[window - 1 :],
                "y": smooth,
                "label": f"mean of {window} steps",
                "color": BLUE,
                "lw": 1.6,
            }
        )
    evaluations = history.evaluations
    if "check_energy_exact" in evaluations:
        curves.append(
            {
                "x": evaluations["step"],
                "y": evaluations["check_energy_exact"],
                "label": "reference, check examples",
                "color": RED,
                "marker": "o",
                "ms": 4,
                "ls": "",
            }
        )
    levels = []
    if found.get("energy") is not None:
        how = "exact" if found.get("energy_standard_error") is None else "sampled"
        levels.append((f"final, {how}: {found['energy']:.4g}", float(found["energy"]), "--"))
    return page.figure(
        functools.partial(
            draw_curves,
            curves=curves,
            xlabel="step",
            ylabel=f"energy ({unit} per example)",
            logarithmic=True,
            levels=levels,
        ),
        "Energy",
        f"{caption}, in {unit} per example, while training.",
        source=source,
        columns={"step": steps, f"{own} ({unit} per example)": energies},
    )


def _accuracy_figure(page: Page, history: History, found: Mapping[str, Any]) -> Html | None:
    evaluations = history.evaluations
    curves = [
        {
            "x": evaluations["step"],
            "y": 100 * evaluations[f"{part}_accuracy"],
            "label": f"likeliest network, {part}",
            "color": color,
            "marker": "o",
            "ms": 4,
        }
        for part, color in (("train", BLUE), ("validation", GREEN))
        if f"{part}_accuracy" in evaluations and len(evaluations["step"])
    ]
    levels = [
        (f"best network, {part}: {100 * value:.2f} %", 100 * value, style)
        for part, style in (("train", ":"), ("validation", "--"), ("test", "-"))
        if (value := found.get(f"{part}_accuracy")) is not None
    ]
    if not curves:
        return None
    names = [name for name in evaluations if name.endswith(("step", "_accuracy", "_loss"))]
    return page.figure(
        functools.partial(
            draw_curves, curves=curves, levels=levels, xlabel="step", ylabel="accuracy (%)"
        ),
        "Accuracy",
        "Share of right answers in percent, at every evaluation.",
        source="evaluations.csv",
        columns={name.replace("_", " "): evaluations[name] for name in names},
    )


def _error_figure(page: Page, history: History, unit: str) -> Html | None:
    evaluations = history.evaluations
    curves = [
        {
            "x": evaluations["step"],
            "y": np.abs(evaluations[name]),
            "label": label,
            "color": color,
            "marker": marker,
            "ms": 4,
        }
        for name, label, color, marker in (
            ("check_error", "estimator, mean over check examples", BLUE, "o"),
            ("check_error_max", "estimator, largest", RED, "s"),
            ("mpo_rms", "MPO compression, rms on samples", GREEN, "^"),
        )
        if name in evaluations and np.isfinite(evaluations[name]).any()
    ]
    if not curves:
        return None
    names = [
        name
        for name in evaluations
        if name == "step" or name.startswith(("check_error", "check_standard", "mpo_"))
    ]
    return page.figure(
        functools.partial(
            draw_curves,
            curves=curves,
            xlabel="step",
            ylabel=f"error ({unit} per example)",
            logarithmic=True,
        ),
        "Measured errors of the training energy",
        f"Absolute values in {unit} per example, each kind a curve of its own.",
        source="evaluations.csv",
        columns={name.replace("_", " "): evaluations[name] for name in names},
    )


def scores(found: Mapping[str, Any], unit: str) -> Html | None:
    """Loss and accuracy of the networks that a state was decoded to."""
    names = {
        "best": "best network",
        "most_likely": "likeliest network",
        "sample_mean": "mean of the run's samples",
        "vote": "majority vote of the run's samples",
    }
    parts = [
        part
        for part in ("train", "validation", "test")
        if any((found.get(name) or {}).get(f"{part}_loss") is not None for name in names)
    ]
    rows = [
        [
            words,
            *(
                cell
                for part in parts
                for cell in (
                    number(found[name].get(f"{part}_loss"), ".4f"),
                    number(found[name].get(f"{part}_accuracy"), ".2%"),
                )
            ),
        ]
        for name, words in names.items()
        if found.get(name)
    ]
    if not rows:
        return None
    header = ["network", *(f"{part} {what}" for part in parts for what in ("loss", "accuracy"))]
    log = found.get("best_log_probability")
    whole = table(header, rows, caption=f"Losses in {unit} per example. Source: result.json")
    if log is None:
        return whole
    return join(
        [
            whole,
            paragraph("Born probability of the best network: e to the power of ", number(log), "."),
        ]
    )


def sample_histogram(page: Page, samples: Samples, unit: str) -> Html:
    """Where the losses of the samples lie."""
    losses = samples.losses
    low, high = (float(f([f(losses), samples.best])) for f in (np.min, np.max))
    if not high > low:
        low, high = low - 1e-6 * max(1.0, abs(low)), high + 1e-6 * max(1.0, abs(high))
    edges = np.linspace(low, high, 31)
    counts, _ = np.histogram(losses, edges)
    mean = float(losses.mean())
    return page.figure(
        functools.partial(
            draw_histogram,
            counts=[("", counts)],
            edges=edges,
            xlabel=f"loss ({unit} per example)",
            ylabel="networks",
            levels=[
                (f"best network: {samples.best:.4g}", samples.best, "-"),
                (f"mean of the samples: {mean:.4g}", mean, "--"),
            ],
        ),
        "Losses of sampled networks",
        f"{_count(len(losses))} networks drawn from the trained state (seed {samples.seed}), "
        f"scored on {_count(samples.n_examples)} of {_count(samples.n_all)} training examples; "
        f"{unit} per example.",
        source="angles.npz, drawn for this page",
        columns={"from": edges[:-1], "to": edges[1:], "networks": counts},
    )


def weight_images(weights: Weights, source: str = "best_network.npz, angles.npz") -> Html:
    """The weights of every neuron, and below them the marginals of their qubits."""
    shown = min(len(weights.weights), MOST_UNITS)
    reach = float(np.abs(weights.weights).max()) or 1.0
    units = []
    for unit in range(shown):
        best, marginal = (
            np.asarray(each[unit], np.float64).reshape(weights.shape)
            for each in (weights.weights, weights.marginals)
        )
        units.append(
            tag(
                "div",
                f"neuron {unit}",
                image(
                    best, colours="gray", reach=reach, alt=f"Weights of neuron {unit}, best network"
                ),
                image(
                    marginal, colours="RdBu", reach=1.0, alt=f"Marginals of neuron {unit}'s weights"
                ),
            )
        )
    ramp = np.linspace(-1, 1, 64)[None]
    scales = join(
        tag(
            "p",
            low,
            image(ramp, colours=colours, reach=1.0, alt=f"Scale from {low} to {high}"),
            high,
            class_="scale",
        )
        for low, high, colours in (
            (f"weight {-reach:g}", f"{reach:g}", "gray"),
            ("⟨Z⟩ −1 (bit 1)", "1 (bit 0)", "RdBu"),
        )
    )
    of = (
        f"The first {shown} of {len(weights.weights)} neurons"
        if shown < len(weights.weights)
        else "Every neuron"
    )
    words = paragraph(
        f"{of} of the first layer: above the weights of the best network, below the marginals "
        "⟨Z⟩ of their qubits; pale is undecided. Source: ",
        tag("code", source),
    )
    return join([words, scales, tag("div", *units, class_="images")])


def marginals_figure(
    page: Page, marginals: Float[np.ndarray, " n_qubits"], roles: Sequence[str] | None
) -> Html:
    """How decided the qubits are: a bar each where they are few, a histogram otherwise."""
    if len(marginals) <= 40:
        columns: dict[str, Any] = {"site": np.arange(len(marginals))}
        if roles is not None:
            columns["stores"] = np.array(roles)
        return page.figure(
            functools.partial(draw_bars, values=marginals, xlabel="site", ylabel="⟨Z⟩"),
            "Marginals",
            "⟨Z⟩ of every qubit: 1 is surely bit 0, −1 surely bit 1, 0 undecided.",
            source="angles.npz",
            columns={**columns, "⟨Z⟩": marginals},
        )
    edges = np.linspace(-1, 1, 41)
    counts, _ = np.histogram(np.clip(marginals, -1, 1), edges)
    decided = float(np.mean(np.abs(marginals) > 0.9))
    return page.figure(
        functools.partial(
            draw_histogram,
            counts=[("", counts)],
            edges=edges,
            xlabel="⟨Z⟩",
            ylabel="qubits",
            logarithmic=True,
        ),
        "Marginals",
        f"⟨Z⟩ of all {_count(len(marginals))} qubits: 1 is surely bit 0, −1 surely bit 1; "
        f"{100 * decided:.1f} % are decided by more than 0.9.",
        source="angles.npz",
        columns={"from": edges[:-1], "to": edges[1:], "qubits": counts},
    )


def architecture(page: Page, found: Mapping[str, Any]) -> Html | None:
    """The probabilities of the options of every choice, as `result.json` has them."""
    choices = found.get("architecture")
    if not choices:
        return None
    by_neuron = found.get("architecture_by_neuron") or {}
    figures = []
    for name, options in choices.items():
        labels = list(options)
        copies = by_neuron.get(name)
        probabilities = (
            np.array([copies[label] for label in labels]).T
            if copies
            else np.array([[options[label] for label in labels]])
        )
        drawn = [(plain(name), [plain(label) for label in labels], probabilities)]
        figures.append(
            page.figure(
                functools.partial(plot_architecture, drawn),
                f"Choice: {name}",
                "Born probability of every option"
                + (f", the mean over {len(probabilities)} neurons." if copies else "."),
                source="result.json",
                columns={"option": np.array(labels), "probability": list(options.values())},
            )
        )
    return grid(figures)


def plain(words: str) -> str:
    """Words that matplotlib draws as they are, without formulas."""
    return clean(words).replace("$", r"\$")


def entanglement(
    page: Page,
    entropies: Float[np.ndarray, " n_bonds"],
    arrays: Mapping[str, Float[np.ndarray, ...]],
    numbers: Mapping[str, Any],
    source: str,
) -> Html:
    """The entropy of every bond, and what else the diagnostics hold."""
    bonds: Int[np.ndarray, " n_bonds"] = np.arange(1, len(entropies) + 1)
    figures = [
        page.figure(
            functools.partial(
                draw_curves,
                curves=[{"x": bonds, "y": entropies, "color": BLUE}],
                xlabel="bond (qubits to its left)",
                ylabel="entropy (nats)",
                zero=True,
            ),
            "Entanglement entropy",
            "Of the cut at every bond of the trained state, in nats.",
            source=source,
            columns={"bond": bonds, "entropy (nats)": entropies},
        )
    ]
    spectrum = arrays.get("spectrum")
    if spectrum is not None and spectrum.size:
        values = schmidt_curves(spectrum)
        shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, max(1, len(values))))
        figures.append(
            page.figure(
                functools.partial(
                    draw_curves,
                    curves=[
                        {"x": bonds, "y": own, "label": f"rank {rank}", "color": to_hex(shade)}
                        for (rank, own), shade in zip(values.items(), shades, strict=True)
                    ],
                    xlabel="bond (qubits to its left)",
                    ylabel="Schmidt value",
                    logarithmic=True,
                ),
                "Schmidt spectrum",
                "The largest Schmidt values of the cut at every bond, and those of some further "
                "ranks; their squares add up to one.",
                source=source,
                columns={"bond": bonds} | {f"rank {rank}": own for rank, own in values.items()},
            )
        )
    profile = arrays.get("correlations")
    if profile is not None and np.any(profile[1:] > 0):
        distance = np.arange(1, len(profile))
        figures.append(
            page.figure(
                functools.partial(
                    draw_curves,
                    curves=[{"x": distance, "y": profile[1:], "color": BLUE, "marker": "o"}],
                    xlabel="distance (sites)",
                    ylabel="rms of ⟨ZZ⟩ − ⟨Z⟩⟨Z⟩",
                    logarithmic=True,
                ),
                "Correlations",
                "Root mean square over all pairs of a distance.",
                source=source,
                columns={"distance": distance, "rms": profile[1:]},
            )
        )
    discarded = arrays.get("discarded")
    if discarded is not None and discarded.size:
        total = discarded.reshape(-1, discarded.shape[-1]).sum(0)
        places = np.arange(1, len(total) + 1)
        figures.append(
            page.figure(
                functools.partial(
                    draw_curves,
                    curves=[{"x": places, "y": above_rounding(total), "color": RED, "marker": "."}],
                    xlabel="bond (qubits to its left)",
                    ylabel="discarded weight (squared norm)",
                    logarithmic=True,
                ),
                "Discarded weight",
                "What truncation threw away at every bond, summed over layers; a squared norm"
                f"{_estimated(numbers)}. Gaps: rounding, or nothing.",
                source=source,
                columns={"bond": places, "discarded weight": total},
            )
        )
    shared = arrays.get("mutual_information")
    if shared is not None and shared.size:
        sites = np.arange(len(shared))
        measured = " and ".join(numbers.get("architecture_measured", ["the architecture qubits"]))
        figures.append(
            page.figure(
                functools.partial(
                    draw_curves,
                    curves=[{"x": sites, "y": shared, "color": BLUE}],
                    xlabel="site",
                    ylabel="mutual information (nats)",
                    zero=True,
                ),
                "Information shared with the architecture qubits",
                "Of every measured qubit, in nats; for one of them its own entropy. Measured are "
                f"{measured}" + ("; gaps: none is near enough." if np.isnan(shared).any() else "."),
                source=source,
                columns={"site": sites, "mutual information (nats)": shared},
            )
        )
    names = {
        "correlation_length": "correlation length (sites)",
        "norm_error": "norm off by",
        "discarded_weight": "discarded weight in all",
        "max_discarded_weight": "largest discarded weight",
        "energy_at_max_bond": "energy of the compared examples",
        "energy_at_twice_max_bond": "the same at twice the bond dimension",
        "energy_exact": "the same of the exact state",
        "difference_standard_error": "standard error of the difference over examples",
        "log_overlap_with_twice_max_bond": "log overlap with twice the bond dimension",
        "log_overlap_with_exact": "log overlap with the exact state",
        "max_mutual_information": "largest shared information (nats)",
    }
    known = [
        ("largest entropy (nats)", number(float(entropies.max(initial=0.0)), ".4g")),
        ("mean entropy (nats)", number(float(entropies.mean()) if len(entropies) else 0.0, ".4g")),
        *(
            (
                words + (_estimated(numbers) if "discarded" in name else ""),
                number(numbers[name], ".4g"),
            )
            for name, words in names.items()
            if numbers.get(name) is not None
        ),
    ]
    figures_shown = grid(figures)
    assert figures_shown is not None
    return join([facts(known), figures_shown])
