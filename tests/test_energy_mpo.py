"""The energy of compressed operators: kernel, strategy, trust region and L-BFGS in training."""

import dataclasses
import itertools
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oracles
from hypercircuit.circuit import Brickwork
from hypercircuit.config import Config, ConfigError
from hypercircuit.energy import MPO, Sampled, Statevector
from hypercircuit.energy.operators import cell_operators, expectations
from hypercircuit.hamiltonian import DiagonalMPO, compile_loss
from hypercircuit.hamiltonian.mpo import load_compressed, saved_report
from hypercircuit.problem import build_problem
from hypercircuit.run import summary, train_run
from hypercircuit.run_report import report_run
from hypercircuit.state import exact_mps
from hypercircuit.study import plot_training
from hypercircuit.train import LBFGS, Progress, Schedule, train
from problems import PROBLEMS, Problem

N = 9
#: Operators that begin and end within cells, of unequal length, on a chain of odd length.
RUNS = ((0, 4), (4, 4), (3, 3), (1, 8), (5, 4), (8, 1))


def random_operator(rng: np.random.Generator, n_sites: int, bond: int = 3) -> DiagonalMPO:
    bonds = [1, *(min(bond, 2**k, 2 ** (n_sites - k)) for k in range(1, n_sites)), 1]
    shapes = itertools.pairwise(bonds)
    return DiagonalMPO(tuple(rng.normal(size=(left, 2, right)) for left, right in shapes))


def expected(params: np.ndarray, parts: list[tuple[int, DiagonalMPO]]) -> float:
    """The sum of all expectations from the statevector."""
    chances = np.abs(oracles.brickwork_statevector(params)) ** 2
    total = 0.0
    for start, mpo in parts:
        marginal = chances.reshape(2**start, 2**mpo.n_sites, -1).sum((0, 2))
        total += marginal @ mpo.diagonal()
    return total


def value(params, circuit, operators):
    mps = exact_mps(circuit, params)
    return sum(expectations(mps, each).sum() for each in operators)


@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_kernel_equals_the_statevector_and_finite_differences(depth: int, kinds: int):
    rng = np.random.default_rng(depth)
    parts = [(start, random_operator(rng, length)) for start, length in RUNS]
    operators = cell_operators(parts, 5, np.dtype(np.float64))
    circuit = Brickwork(depth, "ry-rz" if kinds == 2 else "ry")
    params = rng.uniform(0, 2 * np.pi, (depth, N, kinds))
    oracle_params = params if kinds == 2 else np.concatenate([params, 0 * params], axis=2)
    function = jax.jit(jax.value_and_grad(lambda p: value(p, circuit, operators)))
    found, gradient = function(jnp.asarray(params))
    np.testing.assert_allclose(found, expected(oracle_params, parts), rtol=1e-11)
    direction = rng.normal(size=params.shape)
    ahead, behind = (function(jnp.asarray(params + s * direction))[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(
        (gradient * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8
    )


def test_gradient_in_float32_is_that_of_the_statevector():
    rng = np.random.default_rng(7)
    parts = [(start, random_operator(rng, length)) for start, length in RUNS]
    operators = cell_operators(parts, 5, np.dtype(np.float32))
    circuit, params = Brickwork(3), rng.uniform(0, 2 * np.pi, (3, N, 2))
    with jax.enable_x64(False):
        function = jax.jit(jax.value_and_grad(lambda p: value(p, circuit, operators)))
        found, gradient = function(jnp.asarray(params, jnp.float32))
    assert found.dtype == gradient.dtype == np.float32
    np.testing.assert_allclose(found, expected(params, parts), rtol=1e-5, atol=1e-5)
    slopes = oracles.finite_difference_gradient(lambda p: expected(p, parts), params, 1e-5)
    scale = np.abs(slopes).max()
    np.testing.assert_allclose(gradient / scale, slopes / scale, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_kernel_stays_finite_where_its_factors_do_not(factor: float):
    rng = np.random.default_rng(0)
    n_sites = 400
    tensors = [rng.uniform(0.5, 1.5, (1, 2, 1)) * factor for _ in range(n_sites)]
    tensors[::2] = [tensor / factor**2 for tensor in tensors[::2]]
    # The first half of all factors comes first: partial products reach 1e600.
    order = np.argsort([tensor.max() for tensor in tensors], kind="stable")
    mpo = DiagonalMPO(tuple(tensors[k] for k in order))
    (operators,) = cell_operators([(0, mpo)], 1, np.dtype(np.float64))
    circuit = Brickwork(1)
    params = jnp.asarray(rng.uniform(0.5, 2.5, (1, n_sites, 2)))
    found, gradient = jax.value_and_grad(lambda p: value(p, circuit, [operators]))(params)
    ones = np.asarray(np.sin(params[0, :, 0] / 2) ** 2)
    means = [t[0, 0, 0] * (1 - p) + t[0, 1, 0] * p for t, p in zip(mpo.tensors, ones, strict=True)]
    log = np.log(means).sum()
    np.testing.assert_allclose(found, np.exp(log), rtol=1e-9)
    slopes = np.exp(log) / np.array(means) * [t[0, 1, 0] - t[0, 0, 0] for t in mpo.tensors]
    slopes *= np.asarray(np.sin(params[0, :, 0])) / 2
    np.testing.assert_allclose(gradient[0, :, 0], slopes, rtol=1e-8)


# ---------------------------------------------------------------- strategy


def compiled(problem: Problem = PROBLEMS["logistic-real"]):
    return compile_loss(problem.network, problem.data, problem.loss_object)


def prepared(hamiltonian, circuit, **settings):
    energy = MPO(**settings).prepare(
        hamiltonian, circuit, batch_size=hamiltonian.n_examples, dtype=np.float64
    )
    return energy


@pytest.mark.parametrize("name", ["logistic-real", "softmax-sparse-odd", "squared-real"])
@pytest.mark.parametrize("metric", ["state", "uniform"])
def test_without_truncation_it_is_the_statevector_energy(name: str, metric: str):
    hamiltonian = compiled(PROBLEMS[name])
    circuit, n = Brickwork(4), hamiltonian.n_qubits
    params = jnp.asarray(np.random.default_rng(n).uniform(0, 6, (4, n, 2)))
    energy = prepared(hamiltonian, circuit, max_bond=2**n, metric=metric)
    energy.compress(energy.metric(params))
    batch = energy.batch(np.arange(hamiltonian.n_examples))
    exact = Statevector().prepare(
        hamiltonian, circuit, batch_size=hamiltonian.n_examples, dtype=np.float64
    )
    reference = exact(params, exact.batch(np.arange(hamiltonian.n_examples)))
    np.testing.assert_allclose(energy(params, batch), reference, atol=1e-10)
    np.testing.assert_allclose(energy.per_example(params, batch), reference, atol=1e-10)


def test_measured_error_is_that_of_samples():
    hamiltonian = compiled()
    circuit, n = Brickwork(1), hamiltonian.n_qubits
    params = circuit.init(jax.random.key(0), n, dtype=np.float64)
    energy = prepared(hamiltonian, circuit, max_bond=2, samples=4000)
    energy.compress(energy.metric(params))
    chances = np.abs(oracles.brickwork_statevector(np.asarray(params))) ** 2
    difference = energy.compressed.mpo().diagonal() - hamiltonian.diagonal()
    found = energy.measure(params, jax.random.key(1))
    assert found.n_networks == 4000
    np.testing.assert_allclose(found.rms, np.sqrt(chances @ difference**2), rtol=0.1)
    np.testing.assert_allclose(found.loss, chances @ hamiltonian.diagonal(), rtol=0.02)
    assert energy.limit(dataclasses.replace(found, loss=-2.0)) == pytest.approx(0.04)
    energy.fresh_error = 0.1
    assert energy.limit(dataclasses.replace(found, loss=-2.0)) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "born"}, "metric must be one of state, uniform, got 'born'"),
        ({"max_bond": 0}, "max_bond must be at least 1, got 0"),
        ({"trust": -0.1}, "trust must not be negative, got -0.1"),
        ({"samples": 1}, "samples must be at least 2, got 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MPO(**settings)


@pytest.mark.usefixtures("unchecked_types")
def test_numbers_that_are_not_whole_are_refused():
    with pytest.raises(ValueError, match=r"max_bond must be a whole number, got 4\.5"):
        MPO(max_bond=4.5)
    with pytest.raises(ValueError, match=r"check_every must be a whole number, got 2\.0"):
        MPO(check_every=2.0)


def test_minibatches_are_refused():
    hamiltonian = compiled()
    with pytest.raises(ValueError, match=r"batch_size must be 7, .*, got 3; .*no minibatches"):
        MPO().prepare(hamiltonian, Brickwork(1), batch_size=3)
    energy = prepared(hamiltonian, Brickwork(1))
    with pytest.raises(ValueError, match="call compress first"):
        energy.batch(np.arange(7))


# ---------------------------------------------------------------- training

#: Of 14 qubits: more than are written out entry by entry.
TASK = Problem("logistic", 1, 13, zeros=0.1, n_examples=12, scale=1.5)
KIND = MPO(max_bond=3, trust=0.02, check_every=3, samples=16)


def run(folder: Path | None = None, optimiser=None, **changes):
    schedule = {"steps": 12, "batch_size": 0, "evaluate_every": 4, "checkpoint_every": 4} | changes
    return train(
        compiled(TASK),
        Brickwork(2),
        energy=KIND,
        optimiser=optimiser or optax.adam(0.2),
        schedule=Schedule(**schedule),
        seed=3,
        params=Brickwork(2).init(jax.random.key(1), 14, dtype=np.float64),
        validation=TASK.data,
        folder=folder,
        progress=Progress(enabled=False),
    )


def test_the_operators_follow_the_state():
    evaluations = run().history.evaluations
    assert evaluations["mpo_compressions"][-1] > 1
    assert evaluations["mpo_rms"][-1] < 0.1
    assert set(evaluations) >= {"check_error", "check_standard_error", "mpo_max"}


@pytest.mark.parametrize("optimiser", [None, LBFGS(5)])
def test_a_resumed_run_is_the_undisturbed_one(optimiser, tmp_path: Path):
    whole = run(optimiser=optimiser)
    first = run(tmp_path, optimiser=optimiser, steps=7, checkpoint_every=7)
    assert first.step == 7
    second = run(tmp_path, optimiser=optimiser)
    np.testing.assert_array_equal(second.params, whole.params)
    np.testing.assert_array_equal(second.history.energy, whole.history.energy)
    for name, values in whole.history.evaluations.items():
        if name in ("mpo_compressions", "mpo_rms", "check_error"):
            np.testing.assert_array_equal(second.history.evaluations[name][-1], values[-1])


def test_what_cannot_be_trusted_at_once_is_not_compressed_again_and_again():
    kind = MPO(max_bond=2, trust=1e-6, check_every=2, samples=16)
    result = train(
        compiled(TASK),
        Brickwork(1),
        energy=kind,
        optimiser=optax.sgd(0.0),
        schedule=Schedule(steps=8, batch_size=0, evaluate_every=8),
        params=Brickwork(1).init(jax.random.key(1), 14, dtype=np.float64),
        progress=Progress(enabled=False),
    )
    assert result.history.evaluations["mpo_compressions"][-1] <= 2


def test_a_violated_trust_region_is_said_and_recorded_in_the_uniform_metric(capsys):
    kind = MPO(max_bond=1, metric="uniform", trust=1e-9, check_every=2, samples=16)
    narrow = MPO(max_bond=16, metric="uniform", trust=0.5, check_every=2, samples=16)
    for each, said in ((kind, 1), (narrow, 0)):
        evaluations = train(
            compiled(TASK),
            Brickwork(1),
            energy=each,
            optimiser=optax.adam(0.3),
            schedule=Schedule(steps=8, batch_size=0, evaluate_every=8),
            params=Brickwork(1).init(jax.random.key(1), 14, dtype=np.float64),
            progress=Progress(log_seconds=0),
        ).history.evaluations
        shown = capsys.readouterr().err
        assert evaluations["mpo_compressions"][-1] == 1
        assert evaluations["mpo_rms_worst"][-1] >= evaluations["mpo_rms"][-1]
        assert "energy of the operators" in shown
        assert shown.count("is more than mpo.trust=1e-09 of their loss") == said
        assert shown.count("for less take mpo.metric='state', raise mpo.max_bond=1 or") == said


def test_a_signal_while_compressing_ends_before_the_next_step(monkeypatch, tmp_path: Path):
    from hypercircuit.energy import mpo

    compress = mpo.compress_loss

    def interrupted(*arguments, progress, **settings):
        signal.raise_signal(signal.SIGTERM)
        progress(1, 10)
        return compress(*arguments, progress=progress, **settings)

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(mpo, "compress_loss", interrupted)
    stopped = run(tmp_path)
    assert (stopped.status, stopped.step) == ("interrupted", 0)
    assert "stopped by SIGTERM after step 0" in stopped.message
    monkeypatch.undo()
    np.testing.assert_array_equal(run(tmp_path).params, run().params)


def test_lbfgs_descends_the_exact_energy():
    hamiltonian = compiled(TASK)
    result = train(
        hamiltonian,
        Brickwork(1),
        energy=Statevector(),
        optimiser=LBFGS(),
        schedule=Schedule(steps=60, batch_size=0, evaluate_every=60),
        params=Brickwork(1).init(jax.random.key(1), 14, dtype=np.float64),
        progress=Progress(enabled=False),
    )
    energies = result.history.energy
    assert (np.diff(energies) <= 1e-12).all()
    assert result.history.gradient_norm[-1] < 1e-6


def test_lbfgs_refuses_estimates():
    hamiltonian = compiled(TASK)
    for energy, size in ((Sampled(4), 0), (MPO(), 5)):
        with pytest.raises(
            ValueError, match=r"L-BFGS needs an energy that is no estimate|minibatches"
        ):
            train(
                hamiltonian,
                Brickwork(1),
                energy=energy,
                optimiser=LBFGS(),
                schedule=Schedule(steps=1, batch_size=size),
            )


# ---------------------------------------------------------------- configuration

WITH_MPO = {
    "energy": {"kind": "mpo"},
    "train": {"batch_size": 0},
    "loss": {"kind": "logistic"},
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"energy": {"kind": "mpo"}}, "energy.kind='mpo' is the energy of all the examples"),
        ({"mpo": {"trust": 0.5}}, "mpo.trust is used only with energy.kind='mpo'"),
        (
            {"energy": {"kind": "mpo"}, "train": {"batch_size": 0}},
            "softmax loss of a network with 0 hidden layers, 10 outputs and 7850 qubits is not",
        ),
        (
            WITH_MPO | {"energy": {"kind": "mpo", "check_examples": 5}},
            "energy.check_examples is not used with energy.kind='mpo'",
        ),
        (
            WITH_MPO | {"loss": {"kind": "squared"}, "mpo": {"max_bond": 2}},
            "squared loss needs a max_bond of at least 3, got 2",
        ),
        (
            {"optimiser": {"name": "lbfgs"}},
            "'lbfgs' needs an energy that is no estimate, got train.batch_size=100",
        ),
        (
            {"optimiser": {"name": "lbfgs", "learning_rate": 0.3}},
            "optimiser.learning_rate is not used with optimiser.name='lbfgs'",
        ),
        (
            {"optimiser": {"name": "lbfgs", "options": {"decay": 0.3}}},
            "options has the key 'decay', which lbfgs does not know",
        ),
    ],
)
def test_contradictions_are_refused(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(values)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A run on operators that cannot be trusted: its result, folder and messages."""
    folder = tmp_path_factory.mktemp("run")
    pick = {"downsample": "pick", "rows": [4, 11, 17], "columns": [6, 13, 20, 24]}
    config = Config.from_dict(
        WITH_MPO
        | {
            "data": {"classes": [0, 1], "n_train": 90, "validation": "none", **pick},
            "network": {"outputs": 1},
            "loss": {"kind": "logistic"},
            "circuit": {"depth": 2},
            "mpo": {"max_bond": 16, "trust": 1e-12},
            "train": {"steps": 3, "batch_size": 0, "evaluate_every": 3, "checkpoint_every": 3},
        }
    )
    messages: list[str] = []
    kinds: list[str] = []

    def plotted(*arguments, final, **more) -> None:
        kinds.append(final["energy_kind"])
        plot_training(*arguments, final=final, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hypercircuit.run.plot_training", plotted)
        result = train_run(config, folder, report=messages.append)
    # The figure of training names what its energies are.
    assert kinds == ["mpo"]
    return result, folder, messages, config


def test_a_run_carries_the_classical_optimum_of_its_operators(trained):
    result, _, messages, config = trained
    found = result["classical"]
    problem = build_problem(config)
    losses = compile_loss(problem.network, problem.splits.train, problem.loss).diagonal()
    assert losses.min() - 1e-6 <= found["loss"] <= np.quantile(losses, 1e-3)
    assert set(found["accuracies"]) == {"train", "test"}
    assert any(text.startswith("classical search of the operators") for text in messages)


def test_a_run_says_whether_its_operators_are_trusted_at_the_end(trained):
    result, folder, messages, config = trained
    found = result["mpo"]
    state = found["measured"]["state"]
    assert found["trust"] == 1e-12
    assert found["limit"] == pytest.approx(1e-12 * state["loss"])
    assert found["rms"] == state["rms"] > found["limit"]
    assert result["mpo_trusted"] is False
    assert "the operators it was trained on are not to be trusted at the end" in messages[-2]
    assert "not to be trusted" not in summary(result | {"mpo_trusted": True})
    # Its report is the one that the operators' file holds, with the state and the best network.
    report = saved_report(folder / "mpo.npz")
    assert report["errors"] == found["errors"]
    assert report["measured"] == found["measured"]
    with np.load(folder / "best_network.npz") as arrays:
        best = arrays["bits"][None]
    problem = build_problem(config)
    hamiltonian = compile_loss(
        problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
    )
    operators = load_compressed(folder / "mpo.npz", hamiltonian)
    assert report["measured"]["best"]["rms"] == operators.error_at(best).rms
    assert state["n_networks"] == 256
    assert state["loss"] == pytest.approx(result["energy"], abs=0.2)
    page = report_run(folder).read_text()
    assert "not to be trusted" in page
    assert "energy of the compressed operators, all examples" in page
