"""What `test_distributed` compares: small work on one device, on several, and in processes.

As a program it is one process of a run, ``python shared_work.py FOLDER PROCESSES ID COORDINATOR``,
and writes what it found to FOLDER/found-ID.npz and FOLDER/said-ID.json; with ``stop`` as a fifth
word only what a run says that is stopped.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from hidden_problems import Hidden
from hypercircuit import Brickwork, Cumulant, Exact, Progress, Sampled, Schedule, Statevector
from hypercircuit._shards import Shards
from hypercircuit.circuit import Chain
from hypercircuit.cluster import connect
from hypercircuit.cluster.transport import threads
from hypercircuit.config import Config
from hypercircuit.decode import exact_energy
from hypercircuit.energy import EnergyKind, PreparedEnergy
from hypercircuit.hamiltonian import LossHamiltonian, compile_loss
from hypercircuit.hamiltonian.mpo.phases import PhaseTerms
from hypercircuit.hamiltonian.mpo.sketch import sketch
from hypercircuit.run import train_run
from hypercircuit.train import KLPenalty, ShardedEnergy, TrainResult, restarts, train
from problems import Problem

PROBLEM = Problem("softmax", 3, 4, step=0.25, n_examples=7)
CIRCUIT = Brickwork(2)
STEPS = 6
RUN = {
    "data": {"source": "gaussians", "n_points": 61},
    "network": {"outputs": 1},
    "loss": {"kind": "logistic"},
    "circuit": {"depth": 2},
    "energy": {"kind": "exact"},
    "optimiser": {"name": "sgd", "learning_rate": 0.2},
    "train": {
        "steps": 4,
        "batch_size": 9,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "precision": "float64",
    },
    "decode": {"samples": 3, "beam": 2},
}
WEIGHTS = np.linspace(0.2, 0.7, 10)
QUIET = Progress(enabled=False)


def hamiltonian() -> LossHamiltonian:
    """The compiled loss of the problem."""
    return compile_loss(PROBLEM.network, PROBLEM.data, PROBLEM.loss_object)


def phases() -> PhaseTerms:
    """Terms of 11 rows on two blocks of 5 sites, which no even number of devices divides."""
    rng = np.random.default_rng(4)
    row = np.sort(rng.integers(0, 11, 43))
    row[-1] = 10
    return PhaseTerms(
        rng.normal(size=(7, 5)) * (rng.random((7, 5)) < 0.6),
        rng.integers(0, 7, 11),
        rng.integers(-1, 2, (11, 2)),
        row,
        rng.normal(size=43),
        rng.normal(size=43) + 1j * rng.normal(size=43),
    )


def descend(
    loss: LossHamiltonian,
    kind: EnergyKind,
    mesh: Mesh | None,
    *,
    folder: Path | None = None,
    steps: int = STEPS,
    evaluate_every: int = 3,
    seed: int = 3,
    penalty: KLPenalty | None = None,
    optimiser: optax.GradientTransformation | None = None,
) -> TrainResult:
    """Train with batches of 5 of the 7 examples, which no even number of devices divides."""
    params = CIRCUIT.init(jax.random.key(seed), loss.n_qubits, dtype=np.float64)
    return train(
        loss,
        CIRCUIT,
        energy=kind,
        # Not Adam, which blows up the rounding of gradients that are zero.
        optimiser=optimiser or optax.sgd(0.3, momentum=0.5),
        penalty=penalty,
        schedule=Schedule(steps, batch_size=5, evaluate_every=evaluate_every, checkpoint_every=2),
        seed=seed,
        params=params,
        validation=PROBLEM.data,
        folder=folder,
        progress=QUIET,
        mesh=mesh,
    )


def energies(mesh: Mesh | None) -> dict[str, np.ndarray]:
    """Energies whose state is shared out, with gradients, of other kinds than in training."""
    squared = Problem("squared", 3, 5, n_examples=7)
    errors = compile_loss(squared.network, squared.data, squared.loss_object)
    cases: dict[str, tuple[LossHamiltonian, Brickwork, EnergyKind]] = {
        "order-4": (hamiltonian(), Brickwork(1), Cumulant(4)),
        "squared": (errors, CIRCUIT, Exact()),
        "hidden": (Hidden("hinge", (2, 3, 2)).compile(), CIRCUIT, Cumulant()),
    }
    found = {}
    for name, (loss, circuit, kind) in cases.items():
        prepare = functools.partial(_prepared, loss, circuit, kind)
        energy = prepare(5) if mesh is None else ShardedEnergy(prepare, 5, Shards(mesh))
        params = circuit.init(jax.random.key(2), loss.n_qubits, how="uniform", dtype=np.float64)
        if isinstance(energy, ShardedEnergy):
            assert energy.state is not None, name
            params = energy.shards.replicate(params)
        descend_once = jax.jit(jax.value_and_grad(energy))
        value, gradient = descend_once(params, energy.batch(np.arange(5)))
        found[f"{name}-value"], found[f"{name}-gradient"] = np.asarray(value), np.asarray(gradient)
    return found


def _prepared(
    loss: LossHamiltonian, circuit: Brickwork, kind: EnergyKind, size: int
) -> PreparedEnergy:
    return kind.prepare(loss, circuit, batch_size=size, dtype=np.float64)


def work(mesh: Mesh | None, folder: Path) -> dict[str, np.ndarray]:
    """Everything that must not depend on the devices."""
    loss = hamiltonian()
    found = energies(mesh)
    kinds = {
        "cumulant": (Cumulant(), None),
        "sampled": (Sampled(6), KLPenalty(0.1, n_samples=5)),
    }
    for name, (kind, penalty) in kinds.items():
        result = descend(loss, kind, mesh, penalty=penalty)
        found[f"{name}-params"] = np.asarray(result.params)
        found[f"{name}-energy"] = result.history.energy
        found[f"{name}-bits"] = result.best_bits
    descend(loss, Cumulant(), mesh, folder=folder / "resumed", steps=4)
    resumed = descend(loss, Cumulant(), mesh, folder=folder / "resumed")
    found["resumed-params"] = np.asarray(resumed.params)
    params = jax.numpy.asarray(found["cumulant-params"])
    found["energy"] = np.asarray(exact_energy(loss, CIRCUIT, params, batch_size=2, mesh=mesh))
    many = restarts(
        loss,
        CIRCUIT,
        energy=Statevector(),
        n_restarts=5,
        batch=3,
        max_iterations=8,
        folder=folder / "restarts",
        progress=QUIET,
        mesh=mesh,
    )
    found["restarts-params"], found["restarts-energies"] = many.params, many.energies
    shards = None if mesh is None else Shards(mesh)
    # Nothing is truncated: directions without weight would differ.
    operator = sketch(phases(), 40, probabilities=WEIGHTS, dtype=np.float64, shards=shards)
    bits = np.random.default_rng(5).integers(0, 2, (40, len(WEIGHTS)))
    found["operator"] = operator.values(bits)
    return found


def stopped(mesh: Mesh | None, process: int, folder: Path) -> dict[str, Any]:
    """A long run in which process 1 gets SIGTERM before its ninth batch."""
    loss = hamiltonian()
    laid_out = 0
    original = Cumulant.prepare

    class Signalled(Cumulant):
        def prepare(
            self, hamiltonian: LossHamiltonian, circuit: Chain, *, batch_size: int, dtype: Any
        ) -> Any:
            prepared = original(self, hamiltonian, circuit, batch_size=batch_size, dtype=dtype)
            lay_out = prepared.batch

            def batch(examples: np.ndarray, weights: np.ndarray | None = None) -> Any:
                nonlocal laid_out
                laid_out += 1
                if process == 1 and laid_out == 9:
                    os.kill(os.getpid(), signal.SIGTERM)
                return lay_out(examples, weights)

            prepared.batch = batch
            return prepared

    where = folder / "stopped"
    result = descend(loss, Signalled(), mesh, folder=where, steps=1000, evaluate_every=1000)
    return {
        "step": result.step,
        "status": result.status,
        "message": result.message,
        "energies": [float(energy) for energy in result.history.energy],
    }


def refused(mesh: Mesh, process: int) -> list[str]:
    """What processes say that do not belong together."""
    messages = []
    for attempt in (
        lambda: descend(hamiltonian(), Cumulant(), mesh, seed=process),
        lambda: descend(hamiltonian(), Statevector(), mesh),
    ):
        try:
            attempt()
        except ValueError as error:
            messages.append(str(error))
    return messages


def main() -> None:
    folder, processes, process = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    jax.config.update("jax_enable_x64", True)
    if processes > 1:
        mesh = connect(expected=processes, coordinator=sys.argv[4], process_id=process)
    else:
        mesh = connect()
    assert mesh is not None
    said: dict[str, Any] = {"devices": len(Shards(mesh)), "reports": []}
    everything = sys.argv[5:] != ["stop"]
    if everything:
        np.savez(folder / f"found-{process}.npz", **work(mesh, folder))
    if processes > 1:
        policies = [os.sched_getscheduler(thread) for thread in threads()]
        said["batch_threads"] = policies.count(os.SCHED_BATCH)
        said["stopped"] = stopped(mesh, process, folder)
    if processes > 1 and everything:
        said["refused"] = refused(mesh, process)
        said["run"] = train_run(
            Config.from_dict(RUN), folder / "run", report=said["reports"].append, mesh=mesh
        )
    (folder / f"said-{process}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
