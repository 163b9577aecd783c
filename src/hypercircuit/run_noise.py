"""Resilience: the trained angles of a finished run under growing noise, without training again.

noise.json      everything; one row per depth and multiplier: means over states, smallest and
                largest value, and what the noise is
noise.csv       the rows as a table
noise.png       energy, probability of the best networks and expected accuracy against noise
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

from ._files import write_text
from .circuit import Brickwork, Noise, Noisy
from .config import Config, ConfigError
from .energy import Statevector, trajectory_energy
from .hamiltonian import compile_loss
from .methods import Report
from .problem import build_problem, describe_data
from .run import expect, run_config, versions
from .study import Resilience, every_accuracy, plot_resilience, resilience

#: Up to this many qubits every network's loss and accuracy are written out.
MAX_QUBITS = 20


def noise_run(
    folder: str | os.PathLike[str],
    multipliers: Sequence[float],
    *,
    readout: float = 0.0,
    trajectories: int = 0,
    out: str | os.PathLike[str] | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Evaluate a run's states exactly at every multiplier of the published error rates.

    Of `hypercircuit train` that is one state; of `hypercircuit restarts`, at every depth all
    restarts that succeeded (the best one where none did). The best networks are those within
    `restarts.success_distance` of the smallest loss.

    **Arguments:**

    - `multipliers`: factors on `noise.one_qubit` and `noise.two_qubit` of the run's configuration.
    - `readout`: probability that a bit is read as its opposite, the same at every multiplier.
    - `trajectories`: also average so many trajectories of every depth's first state at the largest
      multiplier, a check of the exact energy by other means; 0 leaves it out.
    - `out`: a folder for the results; left out, the run's own.

    **Raises:** `ConfigError` for a folder without a finished run, a circuit that is no chain, more
    than 20 qubits or a multiplier that makes no probability.
    """
    folder, begun = Path(folder), time.perf_counter()
    if trajectories < 0 or trajectories == 1:
        raise ConfigError(f"trajectories must be 0 or at least 2, got {trajectories}")
    if not multipliers or min(multipliers) < 0 or len(set(multipliers)) < len(multipliers):
        raise ConfigError(
            f"multipliers must be different numbers of at least 0, got {list(multipliers)}"
        )
    config = run_config(folder, [])
    done = json.loads(expect(folder / "result.json").read_text())
    if done["status"] != "finished":
        raise ConfigError(f"{folder} holds no finished run: {done['status']}; finish it first")
    if config.circuit.ansatz != "brickwork" or config.state.engine != "exact":
        raise ConfigError(
            "noise is that of exact brickworks, got a run with "
            f"circuit.ansatz={config.circuit.ansatz!r} and state.engine={config.state.engine!r}"
        )
    rates = config.noise
    noise = Noise(rates.one_qubit, rates.two_qubit, float(readout))
    Noise(max(multipliers) * rates.one_qubit, max(multipliers) * rates.two_qubit)
    with jax.enable_x64(True):
        problem = build_problem(config)
        if problem.network.n_qubits > MAX_QUBITS:
            raise ConfigError(
                f"every network is counted, of at most {MAX_QUBITS} qubits, got "
                f"{problem.network.n_qubits}; take exact_energy(hamiltonian, Noisy(circuit, "
                "noise), params) for the energy alone"
            )
        report(describe_data(problem))
        hamiltonian = compile_loss(
            problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
        )
        losses = hamiltonian.diagonal()
        accuracies = every_accuracy(problem.network, problem.loss, problem.splits.test)
        report(
            f"enumerated {len(losses)} networks: best loss {losses.min():.6f} (test accuracy "
            f"{100 * accuracies[losses.argmin()]:.2f} %), mean {losses.mean():.4f} "
            f"({100 * accuracies.mean():.2f} %)"
        )
        rows, checks = [], []
        for depth, params in _states(folder, config, done):
            circuit = Brickwork(depth, config.circuit.rotations)
            found = resilience(
                circuit,
                params,
                noise,
                np.array(sorted(multipliers)),
                losses,
                accuracies,
                distance=config.restarts.success_distance,
            )
            rows += _rows(depth, found)
            first, last = rows[-len(multipliers)], rows[-1]
            report(
                f"depth {depth}, {len(params)} states: energy {first['energy']:.6f} at p = "
                f"{first['multiplier']:g}, {last['energy']:.4f} at p = {last['multiplier']:g}"
            )
            if trajectories:
                prepared = Statevector().prepare(
                    hamiltonian, circuit, batch_size=hamiltonian.n_examples, dtype=np.float64
                )
                largest = max(multipliers)
                noisy = Noisy(
                    circuit,
                    Noise(largest * noise.one_qubit, largest * noise.two_qubit, noise.readout),
                )
                state, key = jax.numpy.asarray(params[0]), jax.random.key(config.train.seed)
                mean = trajectory_energy(prepared, noisy, state, key, trajectories)
                checks.append(
                    {
                        "depth": depth,
                        "multiplier": largest,
                        "trajectories": trajectories,
                        "energy": float(mean.value),
                        "standard_error": float(mean.standard_error),
                        "exact": float(found.energies[-1, 0]),
                    }
                )
                report(
                    f"depth {depth}, first state at p = {largest:g}: {checks[-1]['exact']:.5f}, "
                    f"{trajectories} trajectories {mean.value:.5f} +- {mean.standard_error:.5f}"
                )
    result: dict[str, Any] = {
        "command": "noise",
        "one_qubit": rates.one_qubit,
        "two_qubit": rates.two_qubit,
        "readout": float(readout),
        "n_qubits": problem.network.n_qubits,
        "minimum": float(losses.min()),
        "best_accuracy": float(accuracies[losses.argmin()]),
        "best_networks": int((losses <= losses.min() + config.restarts.success_distance).sum()),
        "uniform_energy": float(losses.mean()),
        "uniform_accuracy": float(accuracies.mean()),
        "seconds": time.perf_counter() - begun,
        "versions": versions(),
        "rows": rows,
        "trajectories": checks,
    }
    out = folder if out is None else Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "noise.json", json.dumps(result, indent=2) + "\n")
    write_text(out / "noise.csv", _csv(rows))
    plot_resilience(
        rows,
        out / "noise.png",
        unit=problem.loss.unit,
        minimum=result["minimum"],
    )
    report(noise_table(rows))
    report(f"results in {out}")
    return result


def noise_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table of text."""
    lines = [
        f"{'depth':>5}{'states':>8}{'p':>7}{'energy':>11}{'best networks':>15}{'accuracy':>11}"
    ]
    for row in rows:
        lines.append(
            f"{row['depth']:>5}{row['states']:>8}{row['multiplier']:>7.3g}{row['energy']:>11.5f}"
            f"{100 * row['best_probability']:>13.2f} %{100 * row['accuracy']:>9.2f} %"
        )
    return "\n".join(lines)


def _states(folder: Path, config: Config, done: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
    """The depths of a run and the angles of their states."""
    if done.get("command") != "restarts":
        with np.load(expect(folder / "angles.npz")) as arrays:
            yield config.circuit.depth, arrays["angles"][None].astype(np.float64)
        return
    for row in done["rows"]:
        with np.load(expect(folder / f"depth{row['depth']}" / "restarts.npz")) as arrays:
            params, energies = arrays["params"], arrays["energies"]
        energies = np.where(np.isfinite(energies), energies, np.inf)
        kept = energies <= done["minimum"] + row["success_distance"]
        if not kept.any():
            kept = np.arange(len(energies)) == energies.argmin()
        yield row["depth"], params[kept].astype(np.float64)


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
