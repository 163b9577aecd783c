"""A study of restarts: the success probability against depth, as a folder that can be resumed.

config.toml            the resolved configuration
run.lock               held by the process that works here
depth<D>/restarts.npz  the restarts of one depth as they end; the same command goes on from them
restarts.npz           depths; energies, gradient norms, iterations and status by depth and restart;
                       the minimum, a network that attains it, and the weights of the loss
result.json            one row per depth: successes, probability, interval, seconds, and how many
                       restarts chose each option of an architecture choice
success.png, losses.png, spectrum.png
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ._files import read_json, write_atomically, write_text
from ._precision import check_precision
from ._run_lock import hold_run, refuse_held, run_holder, seen_by_first
from ._shards import Shards
from ._versions import versions
from .bnn import Network
from .circuit import Brickwork
from .config import Config, ConfigError, check_exact_size
from .decode import architectures
from .energy.dense import check_statevector
from .hamiltonian import LossHamiltonian, compile_loss
from .methods import Report
from .problem import build_problem, describe_data
from .run import SAME_COMMAND, refuse_another, silent
from .study import (
    loss_histogram,
    pauli_weights,
    plot_losses,
    plot_pauli_weights,
    plot_success,
    success_probability,
)
from .train import Progress, RestartResult, StopSignals, restarts


def restarts_run(
    config: Config,
    folder: str | os.PathLike[str],
    *,
    report: Report = print,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Restart the configured problem at every depth, or what is missing of that.

    The result's `status` is `"finished"` or `"interrupted"`. With a `mesh` of several processes all
    of them call this, and process 0 writes and reports.

    **Raises:** `ConfigError` if the folder belongs to another configuration or to a training run,
    or if the loss is compiled too roughly for the success distance; `ValueError` above 24 qubits,
    and `Busy`, which is one, if another process is at work in the folder.
    """
    folder = Path(folder)
    shards = None if mesh is None else Shards(mesh)
    first = shards is None or shards.first
    if not first:
        report = silent
    finished, who = _finished(folder, config), run_holder(folder)
    if shards is not None:
        shards.check_same(
            f"the settings of the restarts and the state of {folder}",
            f"{config.to_toml()}{finished is not None}{who}".encode(),
            SAME_COMMAND,
        )
    if finished is not None:
        report(f"{folder} holds finished restarts; choose another --out to run them again")
        report(table(finished["rows"]))
        return finished
    refuse_held(folder, who)
    _refuse_unused(config)
    problem = build_problem(config)
    check_statevector(problem.network.n_qubits)
    deepest, n_qubits = max(config.restarts.depths), problem.network.n_qubits
    check_exact_size(
        deepest,
        config.circuit.rotations,
        n_qubits,
        config.train.precision,
        remedy=f"leave {deepest} out of restarts.depths, or train it with `hypercircuit train` and "
        "state.engine='truncated'",
        here=True,
    )
    check_precision(config.train.precision)
    report(describe_data(problem))
    hamiltonian = compile_loss(
        problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
    )
    report(hamiltonian.describe())
    settings = config.restarts
    if hamiltonian.spectral_error > settings.success_distance / 10:
        raise ConfigError(
            f"the spectral error, {hamiltonian.spectral_error:.2g}, must be at most a tenth of "
            f"restarts.success_distance={settings.success_distance:g}; set "
            f"loss.tolerance={settings.success_distance / 100:g}"
        )
    with hold_run(folder, report, shards):
        # Another process may have been here while the data were read.
        finished = seen_by_first(lambda: _finished(folder, config), shards)
        if finished is not None:
            report(f"{folder} holds finished restarts by now")
            return finished
        if first:
            write_text(folder / "config.toml", config.to_toml())
        return _carry_out(config, hamiltonian, folder, report, mesh)


def _finished(folder: Path, config: Config) -> dict[str, Any] | None:
    """The result that the folder holds, if it is one of restarts that finished."""
    refuse_another(folder, config)
    result_file = folder / "result.json"
    if result_file.exists():
        try:
            result = read_json(result_file)
        except ValueError:
            return None  # of restarts that have to be finished again
        if result.get("command") != "restarts":
            raise ConfigError(f"{folder} belongs to a training run; choose another --out")
        return result if result.get("status") == "finished" else None
    if (folder / "checkpoints").exists():
        raise ConfigError(f"{folder} belongs to a training run; choose another --out")
    return None


def _carry_out(
    config: Config, hamiltonian: LossHamiltonian, folder: Path, report: Report, mesh: Mesh | None
) -> dict[str, Any]:
    """The restarts at every depth, their files and figures."""
    settings, first = config.restarts, mesh is None or Shards(mesh).first
    depths = sorted({1, *settings.depths})
    if 1 not in settings.depths:
        report("depth 1, the product state, is added: it belongs beside every other depth")
    begun = time.perf_counter()
    losses = hamiltonian.diagonal()
    minimum = float(losses.min())
    near = int(np.sum(losses <= minimum + settings.success_distance))
    report(
        f"enumerated {len(losses)} networks in {time.perf_counter() - begun:.1f} s: minimum "
        f"{minimum:.6f}, {near} of them within {settings.success_distance:g}"
    )
    found: dict[int, RestartResult] = {}
    result = _header(config, hamiltonian, minimum, near)
    for depth in depths:
        circuit = Brickwork(depth, config.circuit.rotations)
        done = restarts(
            hamiltonian,
            circuit,
            n_restarts=settings.count,
            seed=config.train.seed,
            max_iterations=settings.max_iterations,
            gradient_norm=settings.gradient_norm,
            batch=settings.batch,
            init=config.circuit.init,
            dtype=np.dtype(config.train.precision),
            folder=folder / f"depth{depth}",
            progress=Progress(enabled=first),
            mesh=mesh,
        )
        if not done.finished:
            result |= {"status": "interrupted", "message": done.message}
            break
        found[depth] = done
        row = _row(depth, done, minimum, settings.success_distance)
        if hamiltonian.network.choices:
            row["architecture"] = _chosen(circuit, done, hamiltonian.network)
        result["rows"].append(row)
        report(
            f"depth {depth}: {row['successes']} of {row['n']} restarts within "
            f"{settings.success_distance:g} of the minimum, {row['seconds']:.0f} s"
        )
    if not first:
        return result
    with StopSignals():  # a signal now may wait for the few files
        if found:
            _save(folder, hamiltonian, found, config)
            plot_success(result["rows"], folder / "success.png")
        # Last, because a finished result ends the study.
        write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")
    report(table(result["rows"]))
    report(result["message"] or f"results in {folder}")
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """The success probabilities as a table of text, one line per depth."""
    lines = [
        f"{'depth':>5}{'restarts':>10}{'success':>10}{'95 % interval':>18}"
        f"{'median energy':>16}{'iterations':>12}{'seconds':>9}"
    ]
    for row in rows:
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f} %"
        lines.append(
            f"{row['depth']:>5}{row['n']:>10}{100 * row['probability']:>8.1f} %{interval:>18}"
            f"{row['median_energy']:>16.6f}{row['median_iterations']:>12.0f}{row['seconds']:>9.1f}"
        )
    return "\n".join(lines)


def _header(
    config: Config, hamiltonian: LossHamiltonian, minimum: float, near: int
) -> dict[str, Any]:
    """What a result holds before any depth has run."""
    return {
        "command": "restarts",
        "status": "finished",
        "message": "",
        "n_qubits": hamiltonian.n_qubits,
        "n_examples": hamiltonian.n_examples,
        "loss": hamiltonian.loss.name,
        "spectral_error": hamiltonian.spectral_error,
        "minimum": minimum,
        "networks_within_distance": near,
        "seed": config.train.seed,
        "precision": config.train.precision,
        "data_fingerprint": hamiltonian.data.fingerprint,
        "versions": versions(),
        "rows": [],
    }


def _refuse_unused(config: Config) -> None:
    """Settings that restarts do not use, and the energy they always use."""
    if config.energy.kind != "statevector":
        raise ConfigError(
            f"restarts minimise the statevector energy, got energy.kind={config.energy.kind!r}; "
            "set energy.kind='statevector' and train.batch_size=0"
        )
    if config.state.engine != "exact":
        raise ConfigError(
            f"restarts take exact states, got state.engine={config.state.engine!r}; set "
            "state.engine='exact'"
        )
    if config.circuit.ansatz != "brickwork":
        raise ConfigError(
            f"restarts take chains, got circuit.ansatz={config.circuit.ansatz!r}; set "
            "circuit.ansatz='brickwork'"
        )
    if config.noise.present:
        raise ConfigError(
            "restarts are of circuits without errors, got noise.multiplier="
            f"{config.noise.multiplier:g} and noise.readout={config.noise.readout:g}; leave them "
            "out, and evaluate the finished restarts with `hypercircuit noise`"
        )
    default = Config().to_dict()
    found = config.to_dict()
    for section, key, instead in (
        ("circuit", "depth", "restarts.depths"),
        ("state", "diagnostics", "hypercircuit train"),
        ("circuit", "init_scale", "circuit.init='uniform', the published start"),
        *(("objective", key, "hypercircuit train") for key in found["objective"]),
        *(("optimiser", key, "hypercircuit train") for key in found["optimiser"]),
    ):
        if found[section][key] != default[section][key]:
            raise ConfigError(
                f"{section}.{key} is not used by restarts, got {found[section][key]!r}; leave it "
                f"out, and see {instead}"
            )


def _row(depth: int, done: RestartResult, minimum: float, distance: float) -> dict[str, Any]:
    success = success_probability(done.energies, minimum, distance=distance)
    finite = done.energies[np.isfinite(done.energies)]
    return {
        "depth": depth,
        **dataclasses.asdict(success),
        "success_distance": distance,
        "median_energy": float(np.median(finite)) if len(finite) else float("nan"),
        "median_iterations": float(np.median(done.iterations)),
        "total_iterations": int(done.iterations.sum()),
        "status": {name: done.status.count(name) for name in sorted(set(done.status))},
        "seconds": done.seconds,
    }


def _chosen(circuit: Brickwork, done: RestartResult, network: Network) -> dict[str, Any]:
    """Per choice how many restarts end with each option, and how sure the least sure one is.

    A restart's option is the one with the largest probability, the mean over a choice's copies.
    """
    states = architectures(circuit, done.params, network)
    found = {}
    for number, choice in enumerate(network.choices):
        mean = np.stack([state[number].probabilities.mean(0) for state in states])
        counts = np.bincount(mean.argmax(1), minlength=mean.shape[1]).tolist()
        found[choice.name] = {
            "chosen": dict(zip(states[0][number].options, counts, strict=True)),
            "least_probability": float(mean.max(1).min()),
        }
    return found


def _save(
    folder: Path, hamiltonian: LossHamiltonian, found: dict[int, RestartResult], config: Config
) -> None:
    """Write the arrays and the figures that show them."""
    losses = hamiltonian.diagonal()
    minimum, best = float(losses.min()), int(losses.argmin())
    weights = pauli_weights(losses)
    arrays: dict[str, Any] = {
        "depths": np.array(list(found)),
        "energies": np.stack([each.energies for each in found.values()]),
        "gradient_norms": np.stack([each.gradient_norms for each in found.values()]),
        "iterations": np.stack([each.iterations for each in found.values()]),
        "status": np.array([each.status for each in found.values()]),
        "minimum": minimum,
        "best_bits": (best >> np.arange(hamiltonian.n_qubits)[::-1] & 1).astype(np.uint8),
        "pauli_weights": weights,
    }
    write_atomically(folder / "restarts.npz", lambda file: np.savez_compressed(file, **arrays))
    histograms = {depth: loss_histogram(each.energies, minimum) for depth, each in found.items()}
    unit = hamiltonian.loss.unit
    distance = config.restarts.success_distance
    plot_losses(histograms, folder / "losses.png", unit=unit, distance=distance)
    plot_pauli_weights(weights, folder / "spectrum.png")
