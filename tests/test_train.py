"""The training loop: it learns, and neither a kill nor a wrong step spoils what it has."""

import dataclasses
import functools
import importlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oracles
from compilation import equal_programs_compiled_once
from hypercircuit._versions import changed_versions, source_digest
from hypercircuit.circuit import Brickwork
from hypercircuit.energy import Cumulant, Exact
from hypercircuit.energy.cumulant import CumulantEnergy
from hypercircuit.hamiltonian import LossHamiltonian, compile_loss
from hypercircuit.train import Progress, Schedule, TrainResult, train
from hypercircuit.train.loop import CHECKPOINTS, example_order
from hypercircuit.train.progress import ProgressDisplay
from problems import Problem

PROBLEM = Problem("logistic", 1, 8, n_examples=43, interval=(-0.4, 1.0))
VALIDATION = dataclasses.replace(PROBLEM, n_examples=31, interval=(-0.5, 1.0)).data
CIRCUIT = Brickwork(2)
SCHEDULE = Schedule(steps=30, batch_size=10, evaluate_every=6, checkpoint_every=5, check_examples=9)
KINDS = {"cumulant": Cumulant(2), "exact": Exact()}
SEED = 3
QUIET = Progress(enabled=False)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with equal_programs_compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@functools.cache
def hamiltonian() -> LossHamiltonian:
    return compile_loss(PROBLEM.network, PROBLEM.data, PROBLEM.loss_object)


def run(kind: str = "cumulant", folder: Path | None = None, **changes) -> TrainResult:
    """Thirty steps of double precision, or what `changes` make of them."""
    arguments = {
        "energy": KINDS[kind],
        "optimiser": optax.adam(0.1),
        "schedule": SCHEDULE,
        "seed": SEED,
        "params": CIRCUIT.init(jax.random.key(SEED), 9, dtype=jnp.float64),
        "validation": VALIDATION,
        "folder": folder,
        "progress": QUIET,
    } | changes
    return train(hamiltonian(), CIRCUIT, **arguments)


@functools.cache
def undisturbed(kind: str = "cumulant") -> TrainResult:
    return run(kind)


def assert_same(found: TrainResult, expected: TrainResult) -> None:
    """Bit for bit, times aside."""
    assert found.status == expected.status
    assert found.step == expected.step
    np.testing.assert_array_equal(found.params, expected.params)
    np.testing.assert_array_equal(found.best_bits, expected.best_bits)
    assert found.best_accuracy == expected.best_accuracy
    arrays, wanted = found.history.to_arrays(), expected.history.to_arrays()
    assert list(arrays) == list(wanted)
    for name in wanted.keys() - {"seconds"}:
        np.testing.assert_array_equal(arrays[name], wanted[name], err_msg=name)


@dataclasses.dataclass(frozen=True)
class SignalAfter(Progress):
    """A progress that sends this process a signal when `step` steps are done."""

    step: int = 0
    number: int = signal.SIGTERM

    def start(
        self, steps: int, *, initial: int = 0, unit: str = "step", energy: str = "energy"
    ) -> ProgressDisplay:
        return _Signalling(self)


class _Signalling(ProgressDisplay):
    def __init__(self, setting: SignalAfter) -> None:
        self.setting = setting

    def update(self, step: int, *, energy: float, gradient_norm: float) -> None:
        if step == self.setting.step:
            os.kill(os.getpid(), self.setting.number)

    def evaluated(self, accuracy: float, *, on: str = "val") -> None:
        pass

    def write(self, message: str) -> None:
        pass

    def close(self) -> None:
        pass


# ---------------------------------------------------------------- the order of examples


def test_every_example_comes_once_an_epoch():
    for epoch in range(3):
        steps = range(8 * epoch, 8 * (epoch + 1))
        batches = [example_order(24, 3, 7, step) for step in steps]
        assert sorted(np.concatenate(batches)) == list(range(24))


def test_an_incomplete_last_batch_is_dropped():
    batches = [example_order(11, 4, 0, step) for step in range(2)]
    assert len(set(np.concatenate(batches))) == 8
    assert len(example_order(11, 4, 0, 2)) == 4


def test_order_depends_on_seed_and_step_alone():
    first, again = (example_order(50, 10, 1, 17) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != example_order(50, 10, 2, 17)).any()
    assert (first != example_order(50, 10, 1, 12)).any(), "an epoch has an order of its own"


def test_more_than_all_examples_are_all_of_them():
    assert sorted(example_order(5, 100, 0, 3)) == list(range(5))


# ---------------------------------------------------------------- what training reports


@pytest.mark.parametrize("kind", KINDS)
def test_energy_falls(kind: str):
    result = undisturbed(kind)
    assert result.status == "finished"
    assert result.message == ""
    assert result.step == 30
    energy = result.history.energy
    assert len(energy) == 30
    assert energy[-5:].mean() < energy[:5].mean() - 0.1
    assert 0 < result.compile_seconds < result.seconds
    assert (np.diff(result.history.seconds) >= 0).all()
    np.testing.assert_array_equal(result.history.evaluations["step"], [6, 12, 18, 24, 30])


def test_evaluations_hold_the_difference_from_the_exact_energy():
    result = undisturbed("cumulant")
    last = {name: column[-1] for name, column in result.history.evaluations.items()}
    rows = np.random.default_rng(SEED).permutation(PROBLEM.n_examples)[:9]
    state = oracles.brickwork_statevector(result.params)
    expected = (oracles.born_probabilities(state) @ PROBLEM.example_losses)[rows].mean()
    assert abs(last["check_energy_exact"] - expected) < hamiltonian().spectral_error
    assert last["check_error"] == pytest.approx(
        last["check_energy"] - last["check_energy_exact"], abs=1e-12
    )
    assert 1e-6 < abs(last["check_error"]) <= last["check_error_max"] < 0.05


def test_exact_training_has_no_error_to_measure():
    names = undisturbed("exact").history.evaluations.keys()
    assert names == {"step", "validation_loss", "validation_accuracy"}


def test_first_energy_and_gradient_norm_are_those_of_the_first_batch():
    rows = example_order(PROBLEM.n_examples, 10, SEED, 0)
    start = CIRCUIT.init(jax.random.key(SEED), 9, dtype=jnp.float64)
    losses = PROBLEM.example_losses[:, rows].mean(1)

    def energy(angles: np.ndarray) -> float:
        return oracles.energy(oracles.brickwork_statevector(angles), losses)

    history = undisturbed("exact").history
    assert abs(history.energy[0] - energy(np.asarray(start))) < hamiltonian().spectral_error
    gradient = oracles.finite_difference_gradient(energy, start, 1e-5)
    assert history.gradient_norm[0] == pytest.approx(np.linalg.norm(gradient), abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_best_network_is_the_likeliest_of_the_best_evaluation(kind: str):
    result = undisturbed(kind)
    evaluations = result.history.evaluations
    best = evaluations["validation_loss"].argmin()
    logits = oracles.linear_logits(result.best_bits[None], VALIDATION.x, 1, -1, 1, PROBLEM.scale)
    loss = oracles.binary_logistic(logits, VALIDATION.y)[0]
    accuracy = ((logits[0, :, 0] > 0) == VALIDATION.y).mean()
    assert evaluations["validation_loss"][best] == pytest.approx(loss, abs=1e-6)
    assert evaluations["validation_accuracy"][best] == accuracy == result.best_accuracy


def test_step_is_traced_once(monkeypatch: pytest.MonkeyPatch):
    """One trace for the step and one for each function of the evaluations."""
    traced: list[int] = []
    original = CumulantEnergy.per_example

    def counting(self, params, batch):
        traced.append(id(self))
        return original(self, params, batch)

    monkeypatch.setattr(CumulantEnergy, "per_example", counting)
    result = run()
    assert result.step == 30
    assert len(traced) == len(set(traced)) == 2


def test_defaults_are_single_precision_and_no_validation():
    schedule = Schedule(steps=2, batch_size=100, evaluate_every=2)
    result = run("exact", params=None, validation=None, schedule=schedule)
    assert result.params.dtype == jnp.float32
    assert result.params.shape == (2, 9, 2)
    assert result.best_bits is None
    assert np.isnan(result.best_accuracy)


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_is_the_undisturbed_one_bit_for_bit(kind: str, tmp_path: Path):
    first = run(kind, tmp_path, schedule=dataclasses.replace(SCHEDULE, steps=12))
    assert first.step == 12
    assert_same(run(kind, tmp_path), undisturbed(kind))


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGTERM, 7),
        (signal.SIGINT, 18),
        (signal.SIGUSR1, 6),
        (signal.SIGUSR2, 10),
        (signal.SIGHUP, 29),
    ],
)
def test_signal_leaves_a_run_that_the_same_call_finishes(number: int, step: int, tmp_path: Path):
    before = signal.getsignal(number)
    stopped = run(folder=tmp_path, progress=SignalAfter(step=step, number=number))
    assert stopped.status == "interrupted"
    assert stopped.message == f"stopped by {signal.Signals(number).name} after step {step}"
    assert stopped.step == len(stopped.history) == step
    assert signal.getsignal(number) is before
    assert (tmp_path / CHECKPOINTS / f"checkpoint-{step:08d}.npz").exists()
    assert_same(run(folder=tmp_path), undisturbed())


def test_checkpoint_of_other_code_is_taken_with_a_warning(tmp_path: Path, monkeypatch):
    run(folder=tmp_path, schedule=dataclasses.replace(SCHEDULE, steps=12))
    there = source_digest()
    loop = importlib.import_module("hypercircuit.train.loop")
    monkeypatch.setattr(loop, "source_digest", lambda: "other")
    message = rf"of step 12 in .* other code or another device: source {there} \(now other\);"
    with pytest.warns(RuntimeWarning, match=message):
        found = run(folder=tmp_path)
    assert_same(found, undisturbed())
    assert changed_versions({"jax": "1", "old": "2"}, {"jax": "3", "numpy": "4"}) == [
        "jax 1 (now 3)",
        "numpy unknown (now 4)",
        "old 2 (now unknown)",
    ]


def test_truncated_checkpoint_loses_its_own_steps_alone(tmp_path: Path):
    """A kill while the newest is written, on a disk that renames before it writes."""
    run(folder=tmp_path, schedule=dataclasses.replace(SCHEDULE, steps=12))
    newest = tmp_path / CHECKPOINTS / "checkpoint-00000012.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="of step 12 is damaged"):
        assert_same(run(folder=tmp_path), undisturbed())


def test_finished_run_is_only_read(tmp_path: Path):
    schedule = dataclasses.replace(SCHEDULE, steps=6)
    first = run("exact", tmp_path, schedule=schedule)
    files = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz"))
    assert_same(run("exact", tmp_path, schedule=schedule), first)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")) == files


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    with jax.enable_x64(True):
        run("cumulant", folder, schedule=Schedule(steps=1, batch_size=10, evaluate_every=2))
    return folder


def refused(message: str, checkpoint: Path, problem: Problem = PROBLEM, **changes) -> None:
    compiled = compile_loss(problem.network, problem.data, problem.loss_object)
    arguments = {
        "energy": Cumulant(2),
        "optimiser": optax.adam(0.1),
        "schedule": SCHEDULE,
        "seed": SEED,
        "params": CIRCUIT.init(jax.random.key(SEED), 9, dtype=jnp.float64),
    }
    with pytest.raises(ValueError, match=message):
        train(compiled, CIRCUIT, folder=checkpoint, **(arguments | changes))


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ("seed=3, this run has seed=4", {"seed": 4}),
        ("energy=cumulant-2, this run has energy=exact", {"energy": Exact()}),
        ("batch_size=10, this run has batch_size=43", {"schedule": Schedule(batch_size=50)}),
        ("loss=logistic, this run has loss=squared", {"loss": "squared"}),
        ("network=", {"scale": 0.6}),
        ("network=", {"encoding": (0.0, 1.0)}),
        ("network=", {"order": "class-reversed"}),
    ],
)
def test_checkpoint_of_another_problem_is_refused(settings: str, changes: dict, checkpoint: Path):
    of_problem = changes.keys() & {field.name for field in dataclasses.fields(Problem)}
    problem = dataclasses.replace(PROBLEM, **{name: changes[name] for name in of_problem})
    others = {name: changes[name] for name in changes.keys() - of_problem}
    message = f"was made with {settings}.*; resume with the same settings"
    refused(message, checkpoint, problem, **others)


def test_checkpoint_of_other_data_is_refused(checkpoint: Path):
    message = "data have changed since the checkpoint in .* choose an empty folder"
    refused(message, checkpoint, dataclasses.replace(PROBLEM, interval=(-0.3, 1.0)))


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("must have dtype float32, got float64", {"params": None}),
        ("is not wanted", {"optimiser": optax.sgd(0.1)}),
    ],
)
def test_checkpoint_of_another_state_is_refused(message: str, changes: dict, checkpoint: Path):
    refused(message, checkpoint, **changes)


# ---------------------------------------------------------------- what is not finite


def test_update_that_is_not_finite_is_not_made():
    start = CIRCUIT.init(jax.random.key(0), 9, dtype=jnp.float32)
    optimiser = optax.chain(optax.sgd(1e38), optax.scale(1e10))
    result = run(params=start, optimiser=optimiser, validation=None)
    assert result.status == "non-finite"
    assert re.match(
        r"the update made the angles non-finite at step 1; the angles before that step are kept. "
        r"In a new folder, lower optimiser.learning_rate, set optimiser.clip_norm, or use "
        r"train.precision='float64'",
        result.message,
    )
    assert result.step == len(result.history) == 0
    np.testing.assert_array_equal(result.params, start)


def test_angles_before_the_wrong_step_are_kept_and_saved(tmp_path: Path):
    def update(updates, state, params=None):
        return jax.tree.map(lambda u: -0.1 * u / (state < 4), updates), state + 1

    optimiser = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
    schedule = dataclasses.replace(SCHEDULE, checkpoint_every=100)
    first, again = (
        run(folder=tmp_path, optimiser=optimiser, schedule=schedule, validation=None)
        for _ in range(2)
    )
    for result in (first, again):
        assert result.status == "non-finite"
        assert "at step 5" in result.message
        assert result.step == len(result.history) == 4
        assert np.isfinite(result.params).all()
        np.testing.assert_array_equal(result.params, first.params)


def test_energy_that_is_not_finite_is_reported():
    start = CIRCUIT.init(jax.random.key(0), 9, dtype=jnp.float64).at[0, 0, 0].set(jnp.nan)
    result = run(params=start, validation=None)
    assert result.status == "non-finite"
    assert "the energy was nan and its gradient norm nan at step 1" in result.message


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "name",
    # All the examples are a batch of size 0.
    [field.name for field in dataclasses.fields(Schedule) if field.name != "batch_size"],
)
def test_schedule_out_of_range_is_refused(name: str):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Schedule(**{name: 0})


# ---------------------------------------------------------------- the whole ansatz


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Cumulant(2), Cumulant(4), Exact()])
def test_entangled_softmax_trains_and_resumes(kind: Cumulant | Exact, tmp_path: Path):
    problem = Problem("softmax", 3, 3, n_examples=40)
    compiled = compile_loss(problem.network, problem.data, problem.loss_object)

    def go(steps: int, folder: Path | None) -> TrainResult:
        return train(
            compiled,
            Brickwork(4),
            energy=kind,
            optimiser=optax.adam(0.1),
            schedule=Schedule(steps=steps, batch_size=8, evaluate_every=4, check_examples=5),
            validation=problem.data,
            folder=folder,
            progress=QUIET,
        )

    whole = go(12, None)
    assert whole.history.energy[-3:].mean() < whole.history.energy[:3].mean()
    go(8, tmp_path)
    assert_same(go(12, tmp_path), whole)
