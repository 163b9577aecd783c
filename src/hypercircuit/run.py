"""A run: what a configuration builds, and the folder that its results go to.

config.toml        the resolved configuration
run.lock           held by the process that works here
checkpoints/       parameters, optimiser and best network so far; the same command resumes
history.csv        energy, gradient norm and seconds of every step (and the penalty's kl and beta)
evaluations.csv    the energy's error and the validation accuracy at every evaluation (the training
                   accuracy, if no validation examples are held out)
angles.npz         the trained angles, (depth, n_qubits, kinds) in radians; or the parameters of a
                   free MPS, see `FreeMPS`
best_network.npz   the best network found: see `save_network`
result.json        everything one compares runs by
training.png, weights.png, architecture.png
diagnostics.json, diagnostics.npz, entropy.png   with state.diagnostics, see `run_diagnose`
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ._files import read_json, write_atomically, write_text
from ._precision import check_precision
from ._run_lock import hold_run, refuse_held, run_holder, seen_by_first
from ._shards import Shards
from ._threads import one_lapack_thread
from ._types import Angles
from ._versions import versions
from .bnn import save_network
from .circuit import Ansatz, FreeMPS, Graph, Noisy, Truncated
from .config import Config, ConfigError, check_chain_size, load_config
from .decode import (
    ChosenOptions,
    architecture,
    decode,
    exact_energy,
    full_energy,
    magnetisation_images,
    score_network,
)
from .energy import (
    MPO,
    Contraction,
    EnergyKind,
    Statevector,
    sampled_energy,
    why_not_exact,
)
from .hamiltonian import LossHamiltonian, compile_loss
from .hamiltonian.mpo import CompressedLoss, around_state, load_compressed
from .methods import (
    Report,
    born_state,
    check_budget,
    check_shared,
    configured_contraction,
    configured_energy,
    configured_optimiser,
    configured_penalty,
    warn_of_start,
)
from .problem import (
    Problem,
    build_chain,
    build_problem,
    class_labels,
    describe_data,
    describe_preprocessing,
)
from .run_diagnose import describe_diagnostics, write_diagnostics
from .state import Born
from .study import (
    discarded_weights,
    plot_architecture,
    plot_training,
    plot_weights,
    trusted_optimum,
)
from .train import (
    LBFGS,
    OPERATORS,
    KLPenalty,
    Progress,
    Schedule,
    StopSignals,
    TrainResult,
    agree_to_stop,
    train,
)

#: Samples of the state that the classical search starts from.
_STARTS = 32
#: How processes of one run come to do the same.
SAME_COMMAND = "start all processes with the same command, and with a folder that all of them see"


@one_lapack_thread()
def train_run(
    config: Config,
    folder: str | os.PathLike[str],
    *,
    report: Report = print,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Carry out a run, or what is missing of it, and return its result.

    With a `mesh` of several processes all of them call this; process 0 writes and reports, and
    the others return the result of training.

    A stop signal is answered at the next step of training, at the next batch of the final energy,
    or after the stage before or between them.

    **Raises:** `ConfigError` if the folder belongs to another configuration; `Busy` (a
    `ValueError`) if another process works there.
    """
    folder = Path(folder)
    shards = None if mesh is None else Shards(mesh)
    first = shards is None or shards.first
    if not first:
        report = silent
    finished, who = _finished_result(folder, config), run_holder(folder)
    if shards is not None:
        shards.check_same(
            f"the settings of the run and the state of {folder}",
            f"{config.to_toml()}{finished is not None}{who}".encode(),
            SAME_COMMAND,
        )
    if finished is not None:
        report(f"{folder} holds a finished run; choose another --out to train again")
        return finished
    refuse_held(folder, who)
    if shards is not None and shards.several_processes:
        check_shared(config)
    optimiser = configured_optimiser(config)
    penalty = configured_penalty(config)
    check_precision(config.train.precision)
    begun = time.perf_counter()
    with contextlib.ExitStack() as held, StopSignals() as stop:
        problem = build_problem(config)
        check_chain_size(config, problem.network.n_qubits, here=True)
        report(describe_data(problem))
        hamiltonian = compile_loss(
            problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
        )
        report(hamiltonian.describe())
        kind = configured_energy(config, hamiltonian, problem.circuit, report)
        if isinstance(kind, (Statevector, MPO)):
            mesh = shards = None  # all the examples at once: nothing to share out
        if isinstance(kind, Contraction):
            check_budget(config, problem, hamiltonian, kind, report)
        # Only now: a folder is not taken by a run whose data or settings turned out to be wrong.
        held.enter_context(hold_run(folder, report, shards))
        # Another process may have been here while the data were read.
        finished = seen_by_first(lambda: _finished_result(folder, config), shards)
        if finished is not None:
            report(f"{folder} holds a finished run by now")
            return finished
        if first:
            # That of an attempt that was interrupted is no word about this one.
            (folder / "result.json").unlink(missing_ok=True)
            write_text(folder / "config.toml", config.to_toml())
        if agree_to_stop(stop, shards):
            result = _interrupted(stop, "before training")
        else:
            trained = _train(
                config, problem, hamiltonian, kind, optimiser, penalty, folder, report, mesh
            )
            result = _training_result(problem, hamiltonian, kind, trained, config.train.seed)
            result["processes"] = jax.process_count()
            result["devices"] = 1 if shards is None else len(shards)
            if trained.status == "finished" and first:
                result |= _decode_run(
                    config, problem, hamiltonian, trained, folder, report, stop, mesh
                )
            elif trained.status == "finished" and not agree_to_stop(stop, shards):
                # The other processes' part of the decoding is their share of the final energy.
                circuit, params = problem.circuit, trained.params
                _final_energy(config, hamiltonian, circuit, params, folder, report, stop, mesh)
            if result["status"] == "finished" and isinstance(kind, MPO):
                result |= _of_operators(config, problem, hamiltonian, trained, folder, report, stop)
        result["total_seconds"] = time.perf_counter() - begun
        if not first:
            return result
        # Last, because a finished result ends the run.
        write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")
    if result["status"] != "finished":
        report(result["message"])
        return result
    report(summary(result))
    report(f"results in {folder}")
    return result


def _finished_result(folder: Path, config: Config) -> dict[str, Any] | None:
    refuse_another(folder, config)
    result_file = folder / "result.json"
    if not result_file.exists():
        return None
    try:
        result = read_json(result_file)
    except ValueError:
        return None  # of a run that has to be finished again
    if result.get("command") == "restarts":
        raise ConfigError(f"{folder} belongs to restarts; choose another --out")
    return result if result.get("status") == "finished" else None


def _train(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    kind: EnergyKind,
    optimiser: optax.GradientTransformation | LBFGS,
    penalty: KLPenalty | None,
    folder: Path,
    report: Report,
    mesh: Mesh | None,
) -> TrainResult:
    circuit, settings = problem.circuit, config.train
    params = circuit.init(
        jax.random.key(settings.seed),
        hamiltonian.n_qubits,
        how=config.circuit.init,
        scale=config.circuit.init_scale,
        dtype=np.dtype(settings.precision),
    )
    report(
        f"{_described(circuit, hamiltonian.n_qubits)}, {params.size} parameters; "
        f"energy {kind.name}, "
        f"{settings.steps} steps of {settings.batch_size or hamiltonian.n_examples} examples"
    )
    warn_of_start(config, circuit, hamiltonian.n_qubits, report)
    trained = train(
        hamiltonian,
        circuit,
        energy=kind,
        optimiser=optimiser,
        penalty=penalty,
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
        progress=Progress(enabled=jax.process_index() == 0),
        mesh=mesh,
    )
    if jax.process_index() != 0:
        return trained
    trained.history.save(folder)
    if trained.status == "finished":
        angles = np.asarray(trained.params)
        write_atomically(folder / "angles.npz", lambda file: np.savez(file, angles=angles))
    return trained


def _described(circuit: Ansatz, n_qubits: int) -> str:
    """The ansatz and its state in words."""
    if isinstance(circuit, Graph):
        return f"{circuit.describe()}, on {n_qubits} qubits"
    if isinstance(circuit, FreeMPS):
        return f"free MPS of bond {circuit.max_bond} on {n_qubits} qubits"
    brickwork = f"brickwork of depth {circuit.depth} on {n_qubits} qubits"
    if isinstance(circuit, Truncated):
        exact = circuit.circuit.max_bond
        return f"{brickwork}: truncated to bond {circuit.max_bond} of {exact}"
    noise = f", with {circuit.noise.describe()}" if isinstance(circuit, Noisy) else ""
    return f"{brickwork}: exact bond {circuit.max_bond}{noise}"


def _training_result(
    problem: Problem,
    hamiltonian: LossHamiltonian,
    kind: EnergyKind,
    trained: TrainResult,
    seed: int,
) -> dict[str, Any]:
    evaluations = trained.history.evaluations
    last = {name: values[-1] for name, values in evaluations.items() if len(values)}
    result = {
        "status": trained.status,
        "message": trained.message,
        "n_qubits": hamiltonian.n_qubits,
        "ansatz": type(problem.circuit).__name__,
        "depth": None if isinstance(problem.circuit, FreeMPS) else problem.circuit.depth,
        "max_bond": None if isinstance(problem.circuit, Graph) else problem.circuit.max_bond,
        "noise": _rates(problem.circuit),
        "n_parameters": int(np.size(trained.params)),
        "steps": trained.step,
        "seconds": trained.seconds,
        "compile_seconds": trained.compile_seconds,
        "energy_kind": kind.name,
        "loss": hamiltonian.loss.name,
        "unit": hamiltonian.loss.unit,
        "spectral_error": hamiltonian.spectral_error,
        "seed": seed,
        "data_fingerprint": hamiltonian.data.fingerprint,
        "train_examples": hamiltonian.n_examples,
        "versions": versions(),
    }
    for name in (
        "check_error",
        "check_error_max",
        "check_standard_error",
        "mpo_rms",
        "mpo_max",
        "mpo_compressions",
        "kl",
        "beta",
    ):
        result[name] = _number(last.get(name))
    return result


def _decode_run(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    trained: TrainResult,
    folder: Path,
    report: Report,
    stop: StopSignals,
    mesh: Mesh | None,
) -> dict[str, Any]:
    """Decode networks, write the best one, and evaluate the final energy."""
    circuit, params, network = problem.circuit, trained.params, problem.network
    key = jax.random.fold_in(jax.random.key(config.train.seed), 1)
    state = born_state(config, circuit, params)
    decoded = decode(
        circuit,
        params,
        network,
        problem.loss,
        problem.splits,
        key,
        samples=config.decode.samples,
        beam=config.decode.beam,
        candidates=None if trained.best_bits is None else trained.best_bits[None],
        state=state,
    )
    train_data = problem.splits.train
    save_network(
        folder / "best_network.npz",
        network,
        decoded.bits,
        labels=class_labels(config, train_data),
        preprocessing=describe_preprocessing(config, train_data),
    )
    accuracy, where = decoded.best.validation_accuracy, "validation"
    if accuracy is None:
        accuracy, where = decoded.best.train_accuracy, "training"
    report(
        f"decoded the best of {config.decode.samples + 2} networks: {100 * accuracy:.2f} % on the "
        f"{where} examples"
    )
    choices = architecture(circuit, params, network, state)
    for choice in choices:
        report(choice.describe())
    if agree_to_stop(stop, None if mesh is None else Shards(mesh)):
        return _interrupted(stop, "after decoding")
    energy = _final_energy(config, hamiltonian, circuit, params, folder, report, stop, mesh)
    if energy is None:
        return _interrupted(stop, "during the final energy")
    result: dict[str, Any] = energy | {
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
    if choices:
        result["architecture"] = {
            each.name: dict(zip(each.options, each.probabilities.mean(0).tolist(), strict=True))
            for each in choices
        }
        result["architecture_by_neuron"] = {
            each.name: dict(zip(each.options, each.probabilities.T.tolist(), strict=True))
            for each in choices
            if len(each.probabilities) > 1
        }
    shown = result | {"energy_kind": config.energy.kind}
    _plot_run(problem, trained, shown, choices, folder, state)
    if config.state.diagnostics:
        result["diagnostics"] = _diagnose(config, hamiltonian, circuit, params, folder)
        report(describe_diagnostics(result["diagnostics"]))
    elif isinstance(circuit, Truncated):
        result["diagnostics"] = discarded_weights(circuit, params)
    return result


def _of_operators(
    config: Config,
    problem: Problem,
    hamiltonian: LossHamiltonian,
    trained: TrainResult,
    folder: Path,
    report: Report,
    stop: StopSignals,
) -> dict[str, Any]:
    """What the last operators are worth at the end, for `result.json`; they are saved with it."""
    if stop.requested is not None:
        return _interrupted(stop, "before the operators were measured")
    operators = load_compressed(folder / OPERATORS, hamiltonian)
    state = born_state(config, problem.circuit, trained.params)
    key = jax.random.fold_in(jax.random.key(config.train.seed), 4)
    samples = np.asarray(state.sample(key, config.mpo.networks)[0])
    with np.load(folder / "best_network.npz") as arrays:
        best = arrays["bits"]
    found = operators.report(state=samples, best=best)
    operators.save(folder / OPERATORS, report=found)
    if stop.requested is not None:
        return _interrupted(stop, "before the classical search")
    at_end = found["measured"]["state"]
    limit = config.mpo.trust * abs(at_end["loss"])
    return {
        "mpo_trusted": at_end["rms"] <= limit,
        "mpo": {
            "rms": at_end["rms"],
            "limit": limit,
            "trust": config.mpo.trust,
            "errors": found["errors"],
            "measured": found["measured"],
        },
        "classical": _classical(config, problem, operators, state, report),
    }


def _classical(
    config: Config,
    problem: Problem,
    operators: CompressedLoss,
    state: Born,
    report: Report,
) -> dict[str, Any]:
    """The best network of the last operators near the trained state, for `result.json`."""
    key = jax.random.fold_in(jax.random.key(config.train.seed), 3)
    starts = np.asarray(state.sample(key, _STARTS)[0])
    probabilities = around_state((1 - np.asarray(state.marginals())) / 2)
    splits = problem.splits
    data = {"train": splits.train, "test": splits.test}
    found = trusted_optimum(operators, data, starts, probabilities, seed=config.train.seed)
    report(
        f"classical search of the operators near the state: loss {found.loss:.4f}, "
        f"{100 * found.accuracies['test']:.2f} % test, {found.seconds:.0f} s"
    )
    return found.to_dict()


def _diagnose(
    config: Config, hamiltonian: LossHamiltonian, circuit: Ansatz, params: Angles, folder: Path
) -> dict[str, Any]:
    n_examples, seed = config.energy.check_examples, config.train.seed
    hamiltonian = of_final_examples(config, hamiltonian)  # the error stands beside their energy
    return write_diagnostics(folder, hamiltonian, circuit, params, n_examples=n_examples, seed=seed)


def diagnose_run(folder: str | os.PathLike[str], *, report: Report = print) -> dict[str, Any]:
    """Diagnose the trained state of a run and write the files into its folder.

    **Raises:** `ConfigError` for a folder without a trained state; `ValueError` for a graph.
    """
    folder = Path(folder)
    config = run_config(folder, [])
    with np.load(expect(folder / "angles.npz")) as arrays:
        angles = arrays["angles"]
    with jax.enable_x64(angles.dtype == np.float64):
        problem = build_problem(config)
        hamiltonian = compile_loss(
            problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
        )
        params = jax.numpy.asarray(angles)
        numbers = _diagnose(config, hamiltonian, problem.circuit, params, folder)
    report(describe_diagnostics(numbers))
    return numbers


def of_final_examples(
    config: Config, hamiltonian: LossHamiltonian, n_final: int | None = None
) -> LossHamiltonian:
    """The loss of the examples that the energy of the end is a mean over, or of `n_final` ones."""
    n_final = config.decode.final_examples if n_final is None else n_final
    if not n_final or n_final >= hamiltonian.n_examples:
        return hamiltonian
    rows = np.random.default_rng(config.train.seed).permutation(hamiltonian.n_examples)
    return hamiltonian.subset(np.sort(rows[:n_final]))


def _final_energy(
    config: Config,
    hamiltonian: LossHamiltonian,
    circuit: Ansatz,
    params: Angles,
    folder: Path,
    report: Report,
    stop: StopSignals,
    mesh: Mesh | None,
) -> dict[str, Any] | None:
    """The energy of the end, exact where it can be; None if a signal ended it."""
    hamiltonian = of_final_examples(config, hamiltonian)
    n_examples = hamiltonian.n_examples
    begun = time.perf_counter()
    error = None
    chain: Any = circuit
    reason = why_not_exact(hamiltonian, circuit)
    if reason is not None and config.energy.kind != "statevector":
        report(
            f"now the energy of {n_examples} examples, from {config.decode.energy_samples} "
            f"samples: {reason}"
        )
        key = jax.random.fold_in(jax.random.key(config.train.seed), 2)
        n_samples = config.decode.energy_samples
        estimate = sampled_energy(hamiltonian, chain, params, key, n_samples)
        energy: float | None = float(estimate.value)
        error = float(estimate.standard_error)
    elif config.energy.kind == "statevector":
        prepared = Statevector().prepare(
            hamiltonian, chain, batch_size=n_examples, dtype=np.dtype(params.dtype)
        )
        energy = full_energy(prepared, params)
    else:
        report(f"now the exact energy of {n_examples} examples")
        # Contractions keep to the size of batch whose cost was checked before the run.
        graph = isinstance(circuit, Graph)
        energy = exact_energy(
            hamiltonian,
            circuit,
            params,
            batch_size=(config.train.batch_size or n_examples) if graph else 200,
            progress=Progress(enabled=jax.process_index() == 0),
            save=folder / "final_energy.json",
            stop=stop,
            mesh=mesh,
            kind=configured_contraction(config) if graph else None,
        )
    if energy is None:
        return None
    return {
        "energy": energy,
        "energy_standard_error": error,
        "energy_state": _energy_state(circuit),
        "energy_examples": n_examples,
        "energy_seconds": time.perf_counter() - begun,
    }


def silent(message: str) -> None:
    """What processes report that leave it to process 0."""


def _energy_state(circuit: Ansatz) -> str:
    """Which state the final energy belongs to."""
    if isinstance(circuit, Truncated):
        return f"the circuit's state truncated to bond {circuit.max_bond}, normalised"
    if isinstance(circuit, FreeMPS):
        return f"the matrix product state of bond {circuit.max_bond} itself"
    if isinstance(circuit, Noisy):
        return "the circuit's exact mixed state, errors included"
    return "the circuit's exact state"


def _interrupted(stop: StopSignals, when: str) -> dict[str, Any]:
    return {
        "status": "interrupted",
        "message": f"stopped by {stop.requested} {when}; the same command goes on",
    }


def _plot_run(
    problem: Problem,
    trained: TrainResult,
    result: dict[str, Any],
    choices: list[ChosenOptions],
    folder: Path,
    state: Born,
) -> None:
    plot_training(trained.history, folder / "training.png", unit=problem.loss.unit, final=result)
    if choices:
        plot_architecture(
            [(each.name, each.options, each.probabilities) for each in choices],
            folder / "architecture.png",
        )
    shape = problem.splits.train.image_shape
    if shape is not None:
        with np.load(folder / "best_network.npz") as arrays:
            weights = arrays["weights_0"].astype(np.float32)
        images = magnetisation_images(problem.circuit, trained.params, problem.network, state)
        plot_weights(weights, images, shape, folder / "weights.png")


def evaluate_run(
    folder: str | os.PathLike[str], overrides: list[str] | None = None
) -> dict[str, float]:
    """Loss and accuracy of a run's best network, on its own data or on other data.

    Without scores on validation examples if none are held out.

    **Arguments:**

    - `overrides`: settings of the data section, such as `data.path=...`.
    """
    folder = Path(folder)
    config = run_config(folder, overrides or [])
    problem = build_problem(config)
    with np.load(expect(folder / "best_network.npz")) as arrays:
        bits = arrays["bits"]
    if len(bits) != problem.network.n_qubits:
        raise ConfigError(
            f"the run's network has {len(bits)} bits, the data needs {problem.network.n_qubits}; "
            "evaluate it on examples of the same size and classes"
        )
    scores = {}
    parts = ("train", "validation", "test") if problem.splits.held_out else ("train", "test")
    for name in parts:
        part = getattr(problem.splits, name)
        loss, accuracy = score_network(problem.network, problem.loss, bits, part)
        scores[f"{name}_loss"], scores[f"{name}_accuracy"] = loss, accuracy
    return scores


def sample_run(
    folder: str | os.PathLike[str], n_samples: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw networks from a run's trained state: bits (n, n_qubits) and log-probabilities."""
    with _trained_state(Path(folder)) as (state, _):
        bits, log_probabilities = state.sample(jax.random.key(seed), n_samples)
        return np.asarray(bits), np.asarray(log_probabilities)


def run_fingerprint(folder: str | os.PathLike[str]) -> str:
    """A digest of a run's configuration and trained angles, which its samples carry."""
    folder = Path(folder)
    digest = hashlib.sha256(expect(folder / "config.toml").read_bytes())
    with np.load(expect(folder / "angles.npz")) as arrays:
        digest.update(arrays["angles"].tobytes())
    return digest.hexdigest()


def marginals_run(folder: str | os.PathLike[str]) -> np.ndarray:
    """The probability that each bit is 1 in a run's trained state, (n_qubits,)."""
    with _trained_state(Path(folder)) as (state, n_qubits):
        bits = state.joint_probabilities(np.arange(n_qubits)[:, None])
        return np.asarray(bits[:, 1], np.float64)


@contextlib.contextmanager
def _trained_state(folder: Path) -> Iterator[tuple[Born, int]]:
    """A run's state and its qubits, in the precision of training until the end of the block."""
    config = run_config(folder, [])
    with np.load(expect(folder / "angles.npz")) as arrays:
        angles = arrays["angles"]
    with jax.enable_x64(angles.dtype == np.float64), one_lapack_thread():
        if config.circuit.ansatz == "graph":
            circuit = build_problem(config).circuit
        else:
            circuit = build_chain(config, angles.shape[1])
        yield born_state(config, circuit, jax.numpy.asarray(angles)), angles.shape[1]


def summary(result: dict[str, Any]) -> str:
    """A run's result in a few lines."""
    error = f"exact, {result['energy_examples']} examples"
    if result["energy_standard_error"] is not None:
        error = f"+- {result['energy_standard_error']:.2g}, {result['energy_examples']} examples"
    elif result["spectral_error"] > 0:
        error += f", spectral error at most {result['spectral_error']:.1e}"
    if "bond" in result.get("energy_state", ""):
        error += f", of {result['energy_state']}"
    accuracies = [
        f"{100 * result[f'{part}_accuracy']:.2f} % {part}"
        for part in ("train", "validation", "test")
        if result[f"{part}_accuracy"] is not None
    ]
    lines = [
        f"energy {result['energy']:.4f} ({error})",
        f"best network: loss {result['best_loss']:.4f}, accuracy {', '.join(accuracies)}",
        f"mean of the samples {100 * result['sample_mean']['test_accuracy']:.2f} %, their vote "
        f"{100 * result['vote']['test_accuracy']:.2f} % test",
    ]
    if result.get("mpo_trusted") is False:
        operators = result["mpo"]
        lines.insert(
            1,
            "the operators it was trained on are not to be trusted at the end: rms error "
            f"{operators['rms']:.2g} on samples of the state, mpo.trust={operators['trust']:g} of "
            f"their loss is {operators['limit']:.2g}",
        )
    return "\n".join(lines)


def refuse_another(folder: Path, config: Config) -> None:
    """Compare the configuration with that of the run that the folder holds, if any."""
    file = folder / "config.toml"
    if not file.exists():
        return
    changed = [
        f"{key} (there {there!r}, here {here!r})"
        for key, there, here in load_config(file).differences(config)
    ]
    if changed:
        raise ConfigError(
            f"{folder} belongs to a run with other settings: {', '.join(changed)}; "
            "choose another --out, or resume with the same settings"
        )


def run_config(folder: Path, overrides: list[str]) -> Config:
    """The configuration of a run; only settings of its data can be overridden."""
    wrong = [each for each in overrides if not each.startswith("data.")]
    if wrong:
        raise ConfigError(
            f"only settings of the data section can change here, got {wrong[0]!r}; "
            "train a new run for other settings"
        )
    return load_config(expect(folder / "config.toml"), overrides)


def expect(file: Path) -> Path:
    """The file, or a `ConfigError` that says that its folder holds no finished run."""
    if not file.exists():
        raise ConfigError(
            f"{file} is missing: {file.parent} is not the folder of a finished run; "
            "name the --out of a `hypercircuit train` that ended"
        )
    return file


def _rates(circuit: Ansatz) -> dict[str, float] | None:
    """The probabilities of errors, None without any."""
    if not isinstance(circuit, Noisy):
        return None
    noise = circuit.noise
    rates = {"one_qubit": noise.one_qubit, "two_qubit": noise.two_qubit, "readout": noise.readout}
    return {name: float(rate) for name, rate in rates.items()}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
