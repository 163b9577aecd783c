"""Resilience: the trained angles of a finished run under growing noise, without training again.

noise.json      everything; one row per depth and multiplier: means over states, smallest and
                largest value, and what the noise is
noise.csv       the rows as a table
noise.png       energy, probability of the best networks and expected accuracy against noise

Up to 20 qubits every network is counted. Of more qubits, and of truncated states, there is the
energy alone: exact in the doubled picture where the circuit is shallow enough, else the mean of
trajectories, and of a loss that does not separate the mean of samples, both with a standard error.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ._files import read_json, write_text
from ._threads import one_lapack_thread
from .circuit import Brickwork, Noise, Noisy, Truncated
from .config import Config, ConfigError
from .energy import (
    Exact,
    PreparedEnergy,
    Statevector,
    erring_share,
    sampled_energy,
    too_few_trajectories,
    trajectory_energy,
    why_not_exact,
)
from .hamiltonian import LossHamiltonian, compile_loss
from .methods import Report
from .problem import Problem, build_problem, describe_data
from .run import expect, of_final_examples, run_config, versions
from .state.mixed import check_size
from .study import Resilience, every_accuracy, mixed_energies, plot_resilience, resilience

#: Up to this many qubits every network's loss and accuracy are written out.
MAX_QUBITS = 20
#: Trajectories where they are needed and their number is left out.
TRAJECTORIES = 400
#: Examples of a batch, and trajectories side by side, of large registers.
_BATCH, _AT_ONCE = 50, 4


def noise_run(
    folder: str | os.PathLike[str],
    multipliers: Sequence[float],
    *,
    readout: float = 0.0,
    trajectories: int = 0,
    examples: int | None = None,
    out: str | os.PathLike[str] | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Evaluate a run's states at every multiplier of the published error rates.

    Of `hypercircuit train` that is one state; of `hypercircuit restarts`, at every depth all
    restarts that succeeded (the best one where none did). The best networks are those within
    `restarts.success_distance` of the smallest loss.

    **Arguments:**

    - `multipliers`: factors on `noise.one_qubit` and `noise.two_qubit` of the run's configuration.
    - `readout`: probability that a bit is read as its opposite, the same at every multiplier.
    - `trajectories`: also average so many trajectories of every depth's first state at the largest
      multiplier, a check of the exact energy by other means; 0 leaves it out. Where there is no
      exact energy, the trajectories of every multiplier, 0 is 400. Few of them understate the
      standard error, since errors are rare: a warning says how many are enough.
    - `examples`: of more than 20 qubits or truncated states, training examples that energies are
      means over, chosen with the run's seed; None is `decode.final_examples`, 0 all of them.
    - `out`: a folder for the results; left out, the run's own.

    **Raises:** `ConfigError` for a folder without a finished run, a circuit that is no brickwork,
    an energy that can be had in none of these ways, or a multiplier that makes no probability.
    """
    folder, begun = Path(folder), time.perf_counter()
    if trajectories < 0 or trajectories == 1:
        raise ConfigError(
            f"trajectories must be 0 or at least 2, got {trajectories}; usual is {TRAJECTORIES}"
        )
    if examples is not None and examples < 0:
        raise ConfigError(f"examples must be at least 0, got {examples}; 0 is all of them")
    if not multipliers or min(multipliers) < 0 or len(set(multipliers)) < len(multipliers):
        raise ConfigError(
            f"multipliers must be different numbers of at least 0, got {list(multipliers)}"
        )
    config = run_config(folder, [])
    done = read_json(expect(folder / "result.json"))
    status = done.get("status", "no status")
    if status != "finished":
        raise ConfigError(f"{folder} holds no finished run: {status}; finish it first")
    if config.circuit.ansatz != "brickwork":
        raise ConfigError(
            "noise is that of the gates of brickworks, got a run with "
            f"circuit.ansatz={config.circuit.ansatz!r}; train one with circuit.ansatz='brickwork'"
        )
    rates = config.noise
    noise = Noise(rates.one_qubit, rates.two_qubit, float(readout))
    Noise(max(multipliers) * rates.one_qubit, max(multipliers) * rates.two_qubit)
    at = np.array(sorted(multipliers))
    problem = build_problem(config)
    counted = problem.network.n_qubits <= MAX_QUBITS and config.state.engine == "exact"
    if counted and examples is not None:
        raise ConfigError(
            f"examples={examples} is for more than {MAX_QUBITS} qubits and for truncated states; "
            "leave it out: every network is counted, on all the examples"
        )
    report(describe_data(problem))
    result: dict[str, Any] = {
        "command": "noise",
        "one_qubit": rates.one_qubit,
        "two_qubit": rates.two_qubit,
        "readout": float(readout),
        "n_qubits": problem.network.n_qubits,
    }
    # Enumeration is cheap enough for double precision; large registers keep that of training.
    in_double = counted or config.train.precision == "float64"
    with jax.enable_x64(in_double), one_lapack_thread():
        hamiltonian = compile_loss(
            problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
        )
        if counted:
            states = _states(folder, config, done, np.dtype(np.float64))
            found = _counted(config, problem, hamiltonian, states, noise, at, trajectories, report)
        else:
            hamiltonian = of_final_examples(config, hamiltonian, examples)
            states = _states(folder, config, done, np.dtype(config.train.precision))
            found = _energies(config, hamiltonian, states, noise, at, trajectories, report)
    result |= found | {"seconds": time.perf_counter() - begun, "versions": versions()}
    out = folder if out is None else Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "noise.json", json.dumps(result, indent=2) + "\n")
    write_text(out / "noise.csv", _csv(result["rows"]))
    plot_resilience(
        result["rows"],
        out / "noise.png",
        unit=problem.loss.unit,
        minimum=result.get("minimum"),
    )
    report(noise_table(result["rows"]))
    for warning in result["warnings"]:
        report(f"warning: {warning}")
    report(f"results in {out}")
    return result


def _counted(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    states: Iterator[tuple[int, np.ndarray]],
    noise: Noise,
    multipliers: np.ndarray,
    trajectories: int,
    report: Report,
) -> dict[str, Any]:
    """Energies, probabilities and accuracies with every network counted."""
    losses = hamiltonian.diagonal()
    accuracies = every_accuracy(problem.network, problem.loss, problem.splits.test)
    best = losses.argmin()
    report(
        f"enumerated {len(losses)} networks: best loss {losses.min():.6f} (test accuracy "
        f"{100 * accuracies[best]:.2f} %), mean {losses.mean():.4f} "
        f"({100 * accuracies.mean():.2f} %)"
    )
    rows, checks, warnings = [], [], []
    distance = config.restarts.success_distance
    for depth, params in states:
        circuit = Brickwork(depth, config.circuit.rotations)
        found = resilience(
            circuit, params, noise, multipliers, losses, accuracies, distance=distance
        )
        rows += _rows(depth, found)
        _report_depth(rows[-len(multipliers) :], report)
        if trajectories:
            prepared = Statevector().prepare(
                hamiltonian, circuit, batch_size=hamiltonian.n_examples, dtype=np.float64
            )
            noisy, exact = _noisy(circuit, noise, multipliers[-1]), float(found.energies[-1, 0])
            key = jax.random.key(config.train.seed)
            check, few = _check(prepared, noisy, params[0], key, trajectories, exact, report)
            checks.append(check | {"multiplier": float(multipliers[-1])})
            warnings += few
    return {
        "method": "every network counted in the exact mixed state",
        "n_examples": hamiltonian.n_examples,
        "minimum": float(losses.min()),
        "best_accuracy": float(accuracies[best]),
        "best_networks": int((losses <= losses.min() + distance).sum()),
        "uniform_energy": float(losses.mean()),
        "uniform_accuracy": float(accuracies.mean()),
        "rows": rows,
        "trajectories": checks,
        "warnings": warnings,
    }


def _energies(
    config: Config,
    hamiltonian: LossHamiltonian,
    states: Iterator[tuple[int, np.ndarray]],
    noise: Noise,
    multipliers: np.ndarray,
    trajectories: int,
    report: Report,
) -> dict[str, Any]:
    """Energies alone, in the way that the circuit and the loss allow."""
    n_examples, n_qubits = hamiltonian.n_examples, hamiltonian.n_qubits
    size, dtype = min(_BATCH, n_examples), np.dtype(config.train.precision)
    key = jax.random.key(config.train.seed)
    rows, methods, checks, warnings = [], [], [], []
    for depth, params in states:
        circuit = Brickwork(depth, config.circuit.rotations)
        largest = _noisy(circuit, noise, multipliers[-1])
        method, reason = _method(config, hamiltonian, largest, dtype)
        methods.append(method)
        report(f"now the energies of {n_examples} examples at depth {depth}: {method}{reason}")
        errors = None
        if method == MIXED:
            prepared = Exact().prepare(hamiltonian, largest, batch_size=size, dtype=dtype)
            energies = mixed_energies(prepared, circuit, params, noise, multipliers)
            if trajectories:
                pure = Exact().prepare(hamiltonian, circuit, batch_size=size, dtype=dtype)
                exact = float(energies[-1, 0])
                check, few = _check(pure, largest, params[0], key, trajectories, exact, report)
                checks.append(check | {"multiplier": float(multipliers[-1])})
                warnings += few
        else:
            energies, errors = np.zeros((2, len(multipliers), len(params)))
            chain, n_drawn = _chain(config, circuit), trajectories or TRAJECTORIES
            if method == TRAJECTORIES_OF:
                prepared = Exact().prepare(hamiltonian, chain, batch_size=size, dtype=dtype)
            for row, multiplier in enumerate(multipliers):
                noisy = _noisy(circuit, noise, multiplier)
                for column, own in enumerate(jax.numpy.asarray(params)):
                    if method == TRAJECTORIES_OF:
                        # Without errors all of them are the same.
                        n = n_drawn if erring_share(noisy, n_qubits) else 2
                        mean = trajectory_energy(prepared, noisy, own, key, n, at_once=_AT_ONCE)
                    else:
                        n = config.decode.energy_samples
                        mean = sampled_energy(hamiltonian, noisy, own, key, n)
                    energies[row, column] = mean.value
                    errors[row, column] = mean.standard_error
                few_of = too_few_trajectories(noisy, n_qubits, n_drawn)
                if few_of and method == TRAJECTORIES_OF:
                    warnings.append(f"depth {depth}, p = {multiplier:g}: {few_of}")
        rows += _energy_rows(depth, multipliers, energies, errors)
        _report_depth(rows[-len(multipliers) :], report)
    drawn = TRAJECTORIES_OF in methods
    return {
        "method": "; ".join(dict.fromkeys(methods)),
        "n_examples": n_examples,
        "n_trajectories": (trajectories or TRAJECTORIES) if drawn else None,
        "rows": rows,
        "trajectories": checks,
        "warnings": warnings,
    }


MIXED = "exact in the doubled picture"
TRAJECTORIES_OF = "means over trajectories"
SAMPLES_OF = "means over samples of the exact mixed state"


def _chain(config: Config, circuit: Brickwork) -> Any:
    state = config.state
    if state.engine == "exact":
        return circuit
    return Truncated(circuit, state.max_bond, state.cutoff, state.scheme)


def _check(
    prepared: PreparedEnergy,
    noisy: Noisy,
    params: np.ndarray,
    key: PRNGKeyArray,
    trajectories: int,
    exact: float,
    report: Report,
) -> tuple[dict[str, Any], list[str]]:
    """The mean of trajectories beside the exact energy, and a warning where they are few."""
    depth, n_qubits, _ = params.shape
    angles = jax.numpy.asarray(params)
    mean = trajectory_energy(prepared, noisy, angles, key, trajectories, at_once=_AT_ONCE)
    report(
        f"depth {depth}, first state at the largest p: {exact:.5f}, {trajectories} trajectories "
        f"{mean.value:.5f} +- {mean.standard_error:.5f}"
    )
    few = too_few_trajectories(noisy, n_qubits, trajectories)
    check = {
        "depth": depth,
        "trajectories": trajectories,
        "energy": float(mean.value),
        "standard_error": float(mean.standard_error),
        "exact": exact,
    }
    return check, [f"depth {depth}: {few}"] if few else []


def _method(
    config: Config, hamiltonian: LossHamiltonian, largest: Noisy, dtype: np.dtype
) -> tuple[str, str]:
    """How the energies can be had, and why no better.

    **Raises:** `ConfigError` where they cannot.
    """
    state = config.state
    if state.engine == "truncated":
        inexact = why_not_exact(hamiltonian, _chain(config, largest.circuit))
        why = "the run's states are truncated"
        remedy = "lower state.max_bond, or train with state.engine='exact' and circuit.depth=8"
    else:
        inexact = why_not_exact(hamiltonian, largest)
        try:
            check_size(largest, hamiltonian.n_qubits, dtype)
        except ValueError as error:
            why, remedy = str(error).partition(", more than")[0], "lower circuit.depth"
        else:
            if inexact is None:
                return MIXED, ""
            return SAMPLES_OF, f": {inexact}"
    if inexact is not None:
        raise ConfigError(
            f"this run's energies under noise can be had neither in the doubled picture ({why}) "
            f"nor from trajectories, which need a loss with an exact energy ({inexact}); {remedy}"
        )
    return TRAJECTORIES_OF, f": {why}"


def _noisy(circuit: Brickwork, noise: Noise, multiplier: float) -> Noisy:
    factor = float(multiplier)
    return Noisy(circuit, Noise(factor * noise.one_qubit, factor * noise.two_qubit, noise.readout))


def _report_depth(rows: Sequence[dict[str, Any]], report: Report) -> None:
    first, last = rows[0], rows[-1]
    report(
        f"depth {first['depth']}, {first['states']} states: energy {first['energy']:.6f} at p = "
        f"{first['multiplier']:g}, {last['energy']:.4f} at p = {last['multiplier']:g}"
    )


def _energy_rows(
    depth: int, multipliers: np.ndarray, energies: np.ndarray, errors: np.ndarray | None
) -> list[dict[str, Any]]:
    """One row a multiplier: the mean over states, and of their standard errors."""
    rows = []
    for number, values in enumerate(energies):
        row: dict[str, Any] = {
            "depth": depth,
            "states": len(values),
            "multiplier": float(multipliers[number]),
            "energy": float(values.mean()),
            "energy_low": float(values.min()),
            "energy_high": float(values.max()),
        }
        # Not that of independent draws: every state has the same ones. None of an exact energy.
        row["energy_standard_error"] = None if errors is None else float(errors[number].mean())
        rows.append(row)
    return rows


def noise_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table of text."""
    first = rows[0]
    header = f"{'depth':>5}{'states':>8}{'p':>7}{'energy':>11}"
    if "energy_standard_error" in first:
        header += f"{'+-':>10}"
    if "best_probability" in first:
        header += f"{'best networks':>15}{'accuracy':>11}"
    lines = [header]
    for row in rows:
        line = f"{row['depth']:>5}{row['states']:>8}{row['multiplier']:>7.3g}{row['energy']:>11.5f}"
        if "energy_standard_error" in row:
            error = row["energy_standard_error"]
            line += f"{'exact':>10}" if error is None else f"{error:>10.1e}"
        if "best_probability" in row:
            line += f"{100 * row['best_probability']:>13.2f} %{100 * row['accuracy']:>9.2f} %"
        lines.append(line)
    return "\n".join(lines)


def _states(
    folder: Path, config: Config, done: dict[str, Any], dtype: np.dtype
) -> Iterator[tuple[int, np.ndarray]]:
    """The depths of a run and the angles of their states."""
    if done.get("command") != "restarts":
        with np.load(expect(folder / "angles.npz")) as arrays:
            yield config.circuit.depth, arrays["angles"][None].astype(dtype)
        return
    for row in done["rows"]:
        with np.load(expect(folder / f"depth{row['depth']}" / "restarts.npz")) as arrays:
            params, energies = arrays["params"], arrays["energies"]
        energies = np.where(np.isfinite(energies), energies, np.inf)
        kept = energies <= done["minimum"] + row["success_distance"]
        if not kept.any():
            kept = np.arange(len(energies)) == energies.argmin()
        yield row["depth"], params[kept].astype(dtype)


def _rows(depth: int, found: Resilience) -> list[dict[str, Any]]:
    rows = []
    for number, multiplier in enumerate(found.multipliers.tolist()):
        row: dict[str, Any] = {
            "depth": depth,
            "states": found.energies.shape[1],
            "multiplier": multiplier,
        }
        for name, table in (
            ("energy", found.energies),
            ("best_probability", found.best_probabilities),
            ("accuracy", found.accuracies),
        ):
            values = table[number]
            row |= {
                name: float(values.mean()),
                f"{name}_low": float(values.min()),
                f"{name}_high": float(values.max()),
            }
        rows.append(row)
    return rows


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
