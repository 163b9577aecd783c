"""A run: what a configuration builds, and the folder that its results go to.

config.toml        the resolved configuration
checkpoints/       parameters, optimiser and best network so far; the same command resumes
history.csv        energy, gradient norm and seconds of every step
evaluations.csv    the energy's error and the validation accuracy at every evaluation
angles.npz         the trained angles, (depth, n_qubits, kinds) in radians
best_network.npz   the best network found: see `save_network`
result.json        everything one compares runs by
training.png, weights.png
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ._files import write_atomically, write_text
from ._precision import check_precision
from .circuit import Brickwork
from .config import Config, ConfigError, load_config
from .decode import (
    decode,
    exact_energy,
    magnetisation_images,
    save_network,
    score_network,
)
from .energy import Cumulant, Exact, Statevector
from .energy.dense import check_statevector
from .hamiltonian import LossHamiltonian, compile_loss
from .problem import Problem, build_problem, describe_data
from .state import exact_mps, sample
from .study import plot_training, plot_weights
from .train import EnergyKind, Progress, Schedule, StopSignals, make_optimiser, train

Report = Callable[[str], None]
_PACKAGES = ("hypercircuit", "jax", "jaxlib", "optax", "equinox", "numpy", "quimb", "cotengra")


def train_run(
    config: Config, folder: str | os.PathLike[str], *, report: Report = print
) -> dict[str, Any]:
    """Carry out a run, or what is missing of it, and return its result.

    **Raises:** `ConfigError` if the folder belongs to another configuration.
    """
    folder = Path(folder)
    result_file = folder / "result.json"
    refuse_another(folder, config)
    if result_file.exists():
        result = json.loads(result_file.read_text())
        if result.get("command") == "restarts":
            raise ConfigError(f"{folder} belongs to restarts; choose another --out")
        if result["status"] == "finished":
            report(f"{folder} holds a finished run; choose another --out to train again")
            return result
    optimiser = make_optimiser(
        config.optimiser.name,
        config.optimiser.learning_rate,
        schedule=config.optimiser.schedule,
        schedule_options=config.optimiser.schedule_options,
        options=config.optimiser.options,
        steps=config.train.steps,
        clip_norm=config.optimiser.clip_norm,
    )
    begun = time.perf_counter()
    problem = build_problem(config)
    report(describe_data(config, problem))
    hamiltonian = compile_loss(
        problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
    )
    report(hamiltonian.describe())
    if config.energy.kind == "statevector":
        check_statevector(hamiltonian.n_qubits)
    # Only now: a folder is not taken by a run whose data or settings turned out to be wrong.
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.toml", config.to_toml())
    dtype = check_precision(np.dtype(config.train.precision))
    circuit, settings = problem.circuit, config.train
    key = jax.random.key(settings.seed)
    params = circuit.init(
        key,
        hamiltonian.n_qubits,
        how=config.circuit.init,
        scale=config.circuit.init_scale,
        dtype=dtype,
    )
    kinds: dict[str, EnergyKind] = {
        "exact": Exact(),
        "cumulant": Cumulant(config.energy.order),
        "statevector": Statevector(),
    }
    kind = kinds[config.energy.kind]
    report(
        f"brickwork of depth {circuit.depth} on {hamiltonian.n_qubits} qubits: exact bond "
        f"{circuit.max_bond}, {params.size} angles; energy {kind_name(config)}, "
        f"{settings.steps} steps of {settings.batch_size or hamiltonian.n_examples} examples"
    )
    trained = train(
        hamiltonian,
        circuit,
        energy=kind,
        optimiser=optimiser,
        schedule=Schedule(
            steps=settings.steps,
            batch_size=settings.batch_size,
            evaluate_every=settings.evaluate_every,
            checkpoint_every=settings.checkpoint_every,
            check_examples=config.energy.check_examples,
        ),
        seed=settings.seed,
        params=params,
        validation=problem.splits.validation,
        folder=folder,
        progress=Progress(),
    )
    trained.history.save(folder)
    result = {
        "status": trained.status,
        "message": trained.message,
        "n_qubits": hamiltonian.n_qubits,
        "depth": circuit.depth,
        "max_bond": circuit.max_bond,
        "n_parameters": int(params.size),
        "steps": trained.step,
        "seconds": trained.seconds,
        "compile_seconds": trained.compile_seconds,
        "spectral_error": hamiltonian.spectral_error,
        "seed": settings.seed,
    }
    result["data_fingerprint"] = hamiltonian.data.fingerprint
    result["versions"] = versions()
    if trained.status == "finished":
        angles = np.asarray(trained.params)
        write_atomically(folder / "angles.npz", lambda file: np.savez(file, angles=angles))
        sample_key = jax.random.fold_in(key, 1)
        result |= _decode_run(config, problem, hamiltonian, trained, sample_key, folder, report)
    if result["status"] == "finished":
        _plot_run(problem, trained, result, folder)
    result["total_seconds"] = time.perf_counter() - begun
    # Last, because a finished result ends the run.
    write_text(result_file, json.dumps(result, indent=2) + "\n")
    if result["status"] != "finished":
        report(result["message"])
        return result
    report(summary(result))
    report(f"results in {folder}")
    return result


def _decode_run(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    trained: Any,
    key: jax.Array,
    folder: Path,
    report: Report,
) -> dict[str, Any]:
    """Decode networks, write the best one, and evaluate the final energy exactly."""
    decoded = decode(
        problem.circuit,
        trained.params,
        problem.network,
        problem.loss,
        problem.splits,
        key,
        samples=config.decode.samples,
        beam=config.decode.beam,
        candidates=None if trained.best_bits is None else trained.best_bits[None],
    )
    save_network(folder / "best_network.npz", problem.network, decoded.bits)
    final = hamiltonian
    n_final = config.decode.final_examples
    if n_final and n_final < hamiltonian.n_examples:
        rows = np.random.default_rng(config.train.seed).permutation(hamiltonian.n_examples)
        final = hamiltonian.subset(np.sort(rows[:n_final]))
    report(
        f"decoded the best of {config.decode.samples + 2} networks: "
        f"{100 * decoded.best.validation_accuracy:.2f} % on the validation examples; "
        f"now the exact energy of {final.n_examples} examples"
    )
    begun = time.perf_counter()
    with StopSignals() as stop:
        energy = exact_energy(
            final,
            problem.circuit,
            trained.params,
            progress=Progress(),
            save=folder / "final_energy.json",
            stop=stop,
        )
    if energy is None:
        return {
            "status": "interrupted",
            "message": f"stopped by {stop.requested} during the final energy; the same command "
            "goes on with it",
        }
    last = {name: values[-1] for name, values in trained.history.evaluations.items()}
    return {
        "energy": energy,
        "energy_examples": final.n_examples,
        "energy_seconds": time.perf_counter() - begun,
        "energy_kind": kind_name(config),
        "check_error": _number(last.get("check_error")),
        "check_error_max": _number(last.get("check_error_max")),
        "best_loss": decoded.best.train_loss,
        "train_accuracy": decoded.best.train_accuracy,
        "validation_accuracy": decoded.best.validation_accuracy,
        "test_accuracy": decoded.best.test_accuracy,
        "best_log_probability": decoded.log_probability,
        "best": dataclasses.asdict(decoded.best),
        "most_likely": dataclasses.asdict(decoded.most_likely),
        "sample_mean": dataclasses.asdict(decoded.sample_mean),
        "vote": dataclasses.asdict(decoded.vote),
    }


def _plot_run(problem: Problem, trained: Any, result: dict[str, Any], folder: Path) -> None:
    unit = "nats" if problem.loss.name != "squared" else "squared logits"
    plot_training(trained.history, folder / "training.png", unit=unit, final=result)
    shape = problem.splits.train.image_shape
    if shape is not None:
        with np.load(folder / "best_network.npz") as arrays:
            weights = arrays["weights_0"].astype(np.float32)
        images = magnetisation_images(problem.circuit, trained.params, problem.network)
        plot_weights(weights, images, shape, folder / "weights.png")


def evaluate_run(
    folder: str | os.PathLike[str], overrides: list[str] | None = None
) -> dict[str, float]:
    """Loss and accuracy of a run's best network, on its own data or on other data.

    **Arguments:**

    - `overrides`: settings of the data section, such as `data.path=...`.
    """
    folder = Path(folder)
    config = _run_config(folder, overrides or [])
    problem = build_problem(config)
    with np.load(_expect(folder / "best_network.npz")) as arrays:
        bits = arrays["bits"]
    if len(bits) != problem.network.n_qubits:
        raise ConfigError(
            f"the run's network has {len(bits)} bits, the data needs {problem.network.n_qubits}; "
            "evaluate it on examples of the same size and classes"
        )
    scores = {}
    for name in ("train", "validation", "test"):
        part = getattr(problem.splits, name)
        loss, accuracy = score_network(problem.network, problem.loss, bits, part)
        scores[f"{name}_loss"], scores[f"{name}_accuracy"] = loss, accuracy
    return scores


def sample_run(
    folder: str | os.PathLike[str], n_samples: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw networks from a run's trained state: bits (n, n_qubits) and log-probabilities."""
    folder = Path(folder)
    config = _run_config(folder, [])
    with np.load(_expect(folder / "angles.npz")) as arrays:
        angles = arrays["angles"]
    with jax.enable_x64(angles.dtype == np.float64):
        mps = exact_mps(
            Brickwork(config.circuit.depth, config.circuit.rotations), jax.numpy.asarray(angles)
        )
        bits, log_probabilities = sample(mps, jax.random.key(seed), n_samples)
        return np.asarray(bits), np.asarray(log_probabilities)


def kind_name(config: Config) -> str:
    """The energy that a configuration trains with; squared errors are exact with either kind."""
    if config.energy.kind == "statevector":
        return Statevector().name
    if config.energy.kind == "exact" or config.loss.kind == "squared":
        return Exact().name
    return Cumulant(config.energy.order).name


def summary(result: dict[str, Any]) -> str:
    """A run's result in a few lines."""
    lines = [
        f"energy {result['energy']:.4f} (exact, {result['energy_examples']} examples, "
        f"spectral error at most {result['spectral_error']:.1e})",
        f"best network: loss {result['best_loss']:.4f}, accuracy "
        f"{100 * result['train_accuracy']:.2f} % train, "
        f"{100 * result['validation_accuracy']:.2f} % validation, "
        f"{100 * result['test_accuracy']:.2f} % test",
        f"mean of the samples {100 * result['sample_mean']['test_accuracy']:.2f} %, their vote "
        f"{100 * result['vote']['test_accuracy']:.2f} % test",
    ]
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """The versions that a result depends on, and the device it was made on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


def refuse_another(folder: Path, config: Config) -> None:
    """Compare the configuration with that of the run that the folder holds, if any."""
    file = folder / "config.toml"
    if not file.exists():
        return
    old, new = load_config(file).to_dict(), config.to_dict()
    changed = [
        f"{section}.{key} (there {old[section][key]!r}, here {new[section][key]!r})"
        for section in new
        for key in new[section]
        if old[section][key] != new[section][key]
    ]
    if changed:
        raise ConfigError(
            f"{folder} belongs to a run with other settings: {', '.join(changed)}; "
            "choose another --out, or resume with the same settings"
        )


def _run_config(folder: Path, overrides: list[str]) -> Config:
    wrong = [each for each in overrides if not each.startswith("data.")]
    if wrong:
        raise ConfigError(
            f"only settings of the data section can change here, got {wrong[0]!r}; "
            "train a new run for other settings"
        )
    return load_config(_expect(folder / "config.toml"), overrides)


def _expect(file: Path) -> Path:
    if not file.exists():
        raise ConfigError(
            f"{file} is missing: {file.parent} is not the folder of a finished run; "
            "name the --out of a `hypercircuit train` that ended"
        )
    return file


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
