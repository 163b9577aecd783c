"""What a page shows of restarts, of compressed losses, and of states under noise."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..operator_plots import plot_bond_profile, plot_singular_values
from ..operators import CutSpectrum, further_truncation, other_data
from ..plots import plot_losses, plot_pauli_weights, plot_success
from ..success import loss_histogram
from .curves import BLUE, GREEN, RED, draw_curves
from .html import Content, Html, join, number, tag
from .page import NOT_USED, Errors, Page, column_table, facts, grid, paragraph, result, table

_METRICS = {"uniform": "uniform metric", "state": "state-adapted metric"}
_SETS = {
    "metric": "networks of the metric",
    "uniform": "uniformly random networks",
    "state": "samples of the state",
    "best": "the run's best network",
}


# ---------------------------------------------------------------- restarts


def restarts_summary(found: Mapping[str, Any]) -> Html | None:
    """What was restarted."""
    if not found:
        return None
    rows = found.get("rows") or []
    return facts(
        [
            ("qubits", number(found.get("n_qubits"))),
            ("training examples", _known(found, "n_examples")),
            ("loss", found.get("loss")),
            ("smallest loss of all networks", number(found.get("minimum"))),
            ("networks that near it", number(found.get("networks_within_distance"))),
            ("restarts", number(sum(row["n"] for row in rows))),
            ("all of them", number(sum(row["seconds"] for row in rows), ".3g", "s")),
            ("precision", found.get("precision")),
            ("seed", number(found.get("seed"))),
        ]
    )


def restarts_results(found: Mapping[str, Any], unit: str) -> Html | None:
    """The success of every depth, with the errors that belong to it."""
    rows = found.get("rows") or []
    spectral: Content = NOT_USED
    if found.get("spectral_error") is not None:
        spectral = join(
            ["at most ", number(found["spectral_error"], ".2g"), f" {unit}, for every network"]
        )
    shown = []
    for row in rows:
        status = ", ".join(f"{count} {name}" for name, count in row["status"].items())
        shown.append(
            result(
                "Depth 1, the product state" if row["depth"] == 1 else f"Depth {row['depth']}",
                join([number(row["probability"], ".1%"), " successful"]),
                f"{row['successes']} of {row['n']} restarts within {row['success_distance']:g} "
                f"{unit} of the minimum",
                Errors(
                    spectral=spectral,
                    sampling=join(
                        [
                            f"{100 * row['confidence']:.0f} % interval ",
                            number(row["low"], ".1%"),
                            " to ",
                            number(row["high"], ".1%"),
                        ]
                    ),
                    check=join(
                        [
                            "median energy ",
                            number(row["median_energy"] - found["minimum"], ".2g"),
                            f" above the minimum; {status}",
                        ]
                    ),
                ),
            )
        )
    return grid(shown, "results")


def restarts_table(found: Mapping[str, Any], unit: str) -> Html | None:
    """One row per depth."""
    rows = found.get("rows") or []
    if not rows:
        return None
    header = [
        "depth",
        "restarts",
        "successes",
        "share",
        "95 % interval",
        f"median energy ({unit})",
        "median iterations",
        "seconds",
    ]
    body = [
        [
            row["depth"],
            row["n"],
            row["successes"],
            number(row["probability"], ".1%"),
            join([number(row["low"], ".1%"), " to ", number(row["high"], ".1%")]),
            number(row["median_energy"]),
            number(row["median_iterations"], "g"),
            number(row["seconds"], ".1f"),
        ]
        for row in rows
    ]
    return table(header, body, caption="Source: result.json")


def restarts_figures(
    page: Page, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray], unit: str
) -> Html | None:
    """Success against depth, where the restarts ended, the loss's order, the chosen options."""
    rows = found.get("rows") or []
    if not rows:
        return None
    figures = [
        page.figure(
            functools.partial(plot_success, rows),
            "Success probability",
            "Share of restarts that end near the minimum, with its exact interval, against depth.",
            source="result.json",
            columns={
                name: np.array([row[name] for row in rows])
                for name in ("depth", "n", "successes", "probability", "low", "high")
            },
        )
    ]
    if "energies" in arrays:
        depths = [int(depth) for depth in arrays["depths"]]
        minimum = float(arrays["minimum"])
        histograms = {
            depth: loss_histogram(energies, minimum)
            for depth, energies in zip(depths, arrays["energies"], strict=True)
        }
        edges = next(iter(histograms.values())).edges
        distance = rows[0]["success_distance"]
        figures.append(
            page.figure(
                functools.partial(plot_losses, histograms, unit=unit, distance=distance),
                "Where the restarts ended",
                f"Final energy above the smallest loss of all networks, in {unit} per example.",
                source="restarts.npz",
                columns={
                    "from": edges[:-1],
                    "to": edges[1:],
                    **{f"depth {depth}": each.counts for depth, each in histograms.items()},
                },
            )
        )
    if "pauli_weights" in arrays:
        weights = arrays["pauli_weights"]
        figures.append(
            page.figure(
                functools.partial(plot_pauli_weights, weights),
                "Order of the loss",
                "Share of the loss's variance in products of k Pauli Z.",
                source="restarts.npz",
                columns={"k": np.arange(1, len(weights)), "share": weights[1:]},
            )
        )
    chosen = _chosen(rows)
    whole = grid(figures)
    return join([whole or "", *chosen])


def _chosen(rows: Sequence[Mapping[str, Any]]) -> list[Html]:
    names = list(dict.fromkeys(name for row in rows for name in row.get("architecture", {})))
    tables = []
    for name in names:
        own = [row for row in rows if name in row.get("architecture", {})]
        options = list(own[0]["architecture"][name]["chosen"])
        body = [
            [
                row["depth"],
                *(row["architecture"][name]["chosen"].get(option, 0) for option in options),
                number(row["architecture"][name]["least_probability"], ".3f"),
            ]
            for row in own
        ]
        header = ["depth", *options, "least probability"]
        tables.append(table(header, body, caption=f"Restarts that chose each option of {name}"))
    return tables


# ---------------------------------------------------------------- compressed losses


def compile_summary(found: Mapping[str, Any]) -> Html:
    """What was compressed."""
    own = found["report"]
    return facts(
        [
            ("qubits", number(own["n_qubits"])),
            ("training examples", number(own["n_examples"])),
            ("loss", own["loss"]),
            ("metric", _METRICS.get(found["metric"], found["metric"])),
            ("operators", number(len(own["parts"]))),
            ("bond dimension", number(own["max_bond"])),
            ("size", number(own["n_bytes"] / 1e6, ".3g", "MB")),
            ("compression", number(own["seconds"], ".3g", "s")),
            ("all of the last start", number(found.get("total_seconds"), ".3g", "s")),
            ("state of", (found.get("state") or {}).get("folder")),
            ("state trained on", "other data" if other_data(found) else None),
        ]
    )


def compile_results(found: Mapping[str, Any]) -> Html | None:
    """The measured error on every set of networks beside the kinds of error."""
    own = found["report"]
    errors, unit = own["errors"], own["unit"]
    in_metric = _compression(errors.get("compression") or {})
    shown = []
    for name, measured in own["measured"].items():
        sampling: Content = "one network"
        if measured["rms_standard_error"] is not None:
            sampling = join(
                [
                    "rms ± ",
                    number(measured["rms_standard_error"], ".2g"),
                    f" from {measured['n_networks']} networks",
                ]
            )
        compression: Content = join(
            [
                "rms ",
                number(measured["rms"], ".3g"),
                ", mean ",
                number(measured["mean"], ".2g"),
                ", largest ",
                number(measured["max"], ".3g"),
            ]
        )
        if name == "metric" and in_metric is not None:
            compression = join([compression, "; ", in_metric])
        shown.append(
            result(
                f"Loss on {_SETS.get(name, name)}",
                number(measured["loss"], ".6g", f"{unit} per example"),
                "mean true loss; the operator's differs by the compression error",
                Errors(
                    spectral=join(
                        [
                            "at most ",
                            number(errors.get("spectral"), ".2g"),
                            ", of the compiled terms",
                        ]
                    ),
                    compression=compression,
                    sampling=sampling,
                ),
            )
        )
    return grid(shown, "results")


def _compression(found: Mapping[str, Any]) -> Html | None:
    """The error over all of the metric's networks; of older reports, what truncation counted."""
    if found.get("at_most") is not None:
        error = number(found["at_most"], ".2g")
        if found["exact"]:
            return join([error, " rms in the metric, counted over all networks"])
        about = "rms in the metric, estimated, three standard errors included"
        return join(["at most ", error, f" {about}"])
    if found.get("truncation_at_most") is not None:
        return join(["truncation at most ", number(found["truncation_at_most"], ".2g")])
    return None


def compile_figures(page: Page, found: Mapping[str, Any]) -> Html | None:
    """Bonds, singular values, errors and optima against bond dimension."""
    own = found["report"]
    unit, source = own["unit"], "report.json"
    parts = [(part["start"], part["bonds"]) for part in own["parts"]]
    asked = own["settings"]["max_bond"]
    figures = [
        page.figure(
            functools.partial(_bond_profile, parts, asked),
            "Bond profile",
            "Bond dimension at every cut of every operator.",
            source=source,
            columns={"cut": np.arange(len(parts[0][1])), "bond": np.array(parts[0][1])},
        )
    ]
    spectra = [
        CutSpectrum(each["site"], np.array(each["values"]))
        for each in found.get("singular_values") or []
    ]
    if spectra:
        rows = [
            [spectrum.site, place, f"{value:.6g}"]
            for spectrum in spectra
            for place, value in list(enumerate(spectrum.values, 1))[:8]
        ]
        figures.append(
            page.figure(
                functools.partial(plot_singular_values, spectra, unit=unit),
                "Singular values",
                f"At a few cuts, in the metric; {unit} per example.",
                source=source,
                numbers=table(
                    ["cut", "number", "singular value"], rows, caption="The first 8 of every cut"
                ),
            )
        )
    for metric, each in (found.get("errors_against_bond") or {}).items():
        figures.append(_error_figure(page, metric, each, unit, source, own))
    optima = found.get("optima_against_bond") or {}
    if optima:
        figures.append(_optima_figure(page, optima, unit, source))
    return grid(figures)


def _bond_profile(parts: Sequence[tuple[int, Sequence[int]]], asked: int, path: Path) -> None:
    plot_bond_profile(parts, path, max_bond=asked)


def _error_figure(
    page: Page,
    metric: str,
    rows: Sequence[Mapping[str, Any]],
    unit: str,
    source: str,
    own: Mapping[str, Any],
) -> Html:
    bonds = np.array([row["max_bond"] for row in rows])
    names = list(rows[0]["measured"])
    columns: dict[str, Any] = {
        "bond": bonds,
        "further truncation, in the metric": np.array([further_truncation(row) for row in rows]),
    }
    curves = []
    for name, color in zip(names, (BLUE, RED, GREEN), strict=False):
        rms = np.array([row["measured"][name]["rms"] for row in rows])
        columns[f"rms on {_SETS.get(name, name)}"] = rms
        columns[f"± ({name})"] = np.array(
            [row["measured"][name]["rms_standard_error"] or np.nan for row in rows]
        )
        label = f"measured on {_SETS.get(name, name)}"
        curves.append({"x": bonds, "y": rms, "label": label, "color": color, "marker": "o"})
    words = _METRICS.get(metric, metric)
    return page.figure(
        functools.partial(
            draw_curves,
            curves=curves,
            xlabel="bond dimension",
            ylabel=f"rms error ({unit} per example)",
            logarithmic=True,
        ),
        f"Error against bond dimension, {words}",
        f"Root mean square error in {unit} per example; the spectral error, at most "
        f"{own['errors']['spectral']:.2g}, comes on top.",
        source=source,
        columns=columns,
    )


def _optima_figure(
    page: Page, optima: Mapping[str, Sequence[Mapping[str, Any]]], unit: str, source: str
) -> Html:
    """True losses of what was found; the operators' own entries in the table only."""
    curves, tables = [], []
    for (metric, rows), color in zip(optima.items(), (BLUE, GREEN), strict=False):
        words = _METRICS.get(metric, metric)
        bonds = np.array([row["max_bond"] for row in rows])
        columns: dict[str, Any] = {
            "bond": bonds,
            "operator's entry": np.array([row["value"] for row in rows]),
            "true loss": np.array([row["loss"] for row in rows]),
            "test accuracy": np.array([row["accuracies"]["test"] for row in rows]),
        }
        curves.append(
            {"x": bonds, "y": columns["true loss"], "label": words, "color": color, "marker": "o"}
        )
        near = [row.get("trusted") for row in rows]
        if all(near):
            losses = np.array([each["loss"] for each in near if each])
            columns["true loss near the state"] = losses
            curves.append(
                {
                    "x": bonds,
                    "y": losses,
                    "label": f"{words}, near the state",
                    "color": color,
                    "marker": "s",
                    "ls": "--",
                }
            )
        tables += [paragraph(words), column_table(columns)]
    return page.figure(
        functools.partial(
            draw_curves,
            curves=curves,
            xlabel="bond dimension",
            ylabel=f"true loss ({unit} per example)",
            logarithmic=True,
        ),
        "The minimum of the operators",
        f"True loss, in {unit} per example, of the best single network that a classical search "
        "found in the operators.",
        source=source,
        numbers=join(tables),
    )


# ---------------------------------------------------------------- noise


def _known(found: Mapping[str, Any], name: str, form: str = ".6g") -> Html | None:
    return None if found.get(name) is None else number(found[name], form)


def noise(page: Page, found: Mapping[str, Any]) -> Html | None:
    """Energy, and where networks are counted probability of the best and accuracy, under noise."""
    rows = found["rows"]
    depths = sorted({row["depth"] for row in rows})
    shades = (BLUE, GREEN, RED, "#b07aa1", "#e0a030", "#59a5a5")
    figures = []
    for name, words, label, factor in (
        ("energy", "Energy under noise", "energy (loss's unit per example)", 1),
        ("best_probability", "Probability of the best networks", "probability (%)", 100),
        ("accuracy", "Expected test accuracy", "accuracy (%)", 100),
    ):
        if name not in rows[0]:
            continue
        spread: dict[str, Any] = {}
        errors = [row.get("energy_standard_error") for row in rows]
        if name == "energy" and any(error is not None for error in errors):
            spread = {"standard error": np.array(errors, np.float64)}
        curves = []
        for at, depth in enumerate(depths):
            own = [row for row in rows if row["depth"] == depth]
            curves.append(
                {
                    "x": np.array([row["multiplier"] for row in own]),
                    "y": factor * np.array([row[name] for row in own]),
                    "label": "depth 1, product state" if depth == 1 else f"depth {depth}",
                    "color": shades[at % len(shades)],
                    "marker": "o",
                    "ms": 3.5,
                }
            )
        figures.append(
            page.figure(
                functools.partial(
                    draw_curves, curves=curves, xlabel="noise multiplier p", ylabel=label
                ),
                words,
                "Mean over the states of a depth; smallest and largest value below.",
                source="noise.json",
                columns={
                    "depth": [row["depth"] for row in rows],
                    "p": np.array([row["multiplier"] for row in rows]),
                    "mean": factor * np.array([row[name] for row in rows]),
                    "smallest": factor * np.array([row[f"{name}_low"] for row in rows]),
                    "largest": factor * np.array([row[f"{name}_high"] for row in rows]),
                    **spread,
                },
            )
        )
    checks = [
        result(
            f"Energy at depth {check['depth']}, p = {check['multiplier']:g}",
            number(check["exact"], ".6g"),
            "the first state, exact in the doubled picture",
            Errors(
                sampling="not used: exact",
                check=join(
                    [
                        f"{check['trajectories']} trajectories give ",
                        number(check["energy"]),
                        " ± ",
                        number(check["standard_error"], ".2g"),
                    ]
                ),
            ),
        )
        for check in found.get("trajectories") or []
    ]
    known = facts(
        [
            ("depolarising error after one-qubit gates", number(found.get("one_qubit"), "g", "p")),
            ("after two-qubit gates", number(found.get("two_qubit"), "g", "p")),
            ("readout error", number(found.get("readout"), "g")),
            ("energies", found.get("method")),
            ("training examples", _known(found, "n_examples")),
            ("trajectories", _known(found, "n_trajectories")),
            ("smallest loss of all networks", _known(found, "minimum")),
            ("its test accuracy", _known(found, "best_accuracy", ".2%")),
            ("mean loss of all networks", _known(found, "uniform_energy")),
        ]
    )
    warnings = [tag("p", warning, class_="note") for warning in found.get("warnings") or []]
    return join([known, *warnings, grid(figures) or "", grid(checks, "results") or ""])
