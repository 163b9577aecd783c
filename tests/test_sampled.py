"""The sampled energy: unbiased in value and gradient, for any network, with an honest error."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oracles
from compilation import equal_programs_compiled_once
from hypercircuit.bnn import (
    Dense,
    Encoding,
    Network,
    activation_choice,
    encoding_choice,
    neuron_gates,
    scale_choice,
    skip_choice,
)
from hypercircuit.circuit import Brickwork
from hypercircuit.data import Dataset
from hypercircuit.energy import (
    Cumulant,
    Exact,
    Sampled,
    choose_energy,
    log_derivative,
    sampled_energy,
)
from hypercircuit.energy.sampled import SampledEnergy
from hypercircuit.hamiltonian import LOSSES, LossHamiltonian, Softmax, compile_loss
from hypercircuit.state import exact_mps, log_probability, sample
from hypercircuit.train import Progress, Schedule, TrainResult, train
from problems import ORACLE_NAMES, Problem

ENCODINGS = ((-1.0, 1.0), (-2.0, 1.0), (0.5, -1.0))
FUNCTIONS = ("tanh", "hardtanh", "sigmoid")
NETWORK = Network(
    (
        Dense(3, 2, bias=False, encoding=Encoding(*ENCODINGS[0])),
        Dense(2, 1, bias=False, encoding=Encoding(*ENCODINGS[1])),
        Dense(1, 2, bias=False, encoding=Encoding(*ENCODINGS[2])),
    ),
    logit_scale=1.6,
    choices=(activation_choice(FUNCTIONS),),
)
N_QUBITS = 12
CIRCUIT = Brickwork(3)
QUIET = Progress(enabled=False)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with equal_programs_compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def data(n_examples: int = 5) -> Dataset:
    rng = np.random.default_rng(4)
    x = rng.uniform(-0.7, 1.6, (n_examples, 3)).astype(np.float32)
    y = np.resize([1, 0, 0], n_examples).astype(np.int32)
    return Dataset(x=x, y=y, n_classes=2, image_shape=None, step=None, name="deep")


@functools.cache
def hamiltonian() -> LossHamiltonian:
    """Two hidden layers and a choice of their function: nothing that separates."""
    return compile_loss(NETWORK, data(), Softmax())


@functools.cache
def example_losses() -> np.ndarray:
    """The loss of every network and example by brute force, (2^N, n_examples)."""
    logits = oracles.network_logits(
        oracles.bits_table(N_QUBITS),
        data().x,
        (3, 2, 1, 2),
        encodings=ENCODINGS,
        logit_scale=1.6,
        choices=[{"setting": "activation", "options": FUNCTIONS, "scope": "network"}],
        bias=False,
    )
    return np.stack(
        [
            oracles.softmax_cross_entropy(logits[:, i : i + 1], data().y[i : i + 1])
            for i in range(5)
        ],
        axis=1,
    )


@functools.cache
def angles() -> np.ndarray:
    rng = np.random.default_rng(8)
    return np.pi / 2 + 0.6 * rng.standard_normal((3, N_QUBITS, 2))


@functools.cache
def exact_energies() -> np.ndarray:
    state = oracles.brickwork_statevector(angles())
    return oracles.born_probabilities(state) @ example_losses()


def prepared(n_samples: int, baseline: str = "leave-one-out", **changes) -> SampledEnergy:
    arguments = {"batch_size": 5, "dtype": np.float64} | changes
    return Sampled(n_samples, baseline).prepare(hamiltonian(), CIRCUIT, **arguments)


def draws(energy: SampledEnergy, function, n_draws: int):
    """`function(params, batch)` for many keys, (n_draws, ...)."""
    batch = energy.batch(np.arange(5))
    keys = jax.random.split(jax.random.key(17), n_draws)
    params = jnp.asarray(angles())
    return jax.jit(jax.vmap(lambda key: function(params, energy.with_key(batch, key))))(keys)


# ---------------------------------------------------------------- losses in JAX


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_the_same_in_jax(name: str, n_outputs: int):
    if n_outputs == 1 and name in ("softmax", "pairwise-logistic"):
        return
    rng = np.random.default_rng(n_outputs)
    logits = 2 * rng.standard_normal((4, 6, n_outputs))
    logits[0, 0] = 0.5  # ties
    y = np.resize([1, 0, 2, 0], 6).astype(np.int32) % max(2, n_outputs)
    loss = LOSSES[name]()
    value = jax.jit(loss.value)(jnp.asarray(logits), jnp.asarray(y))
    assert value.shape == (4, 6)
    expected = oracles.mean_loss(ORACLE_NAMES[name], logits, y)
    np.testing.assert_allclose(value.mean(1), expected, rtol=1e-12)
    np.testing.assert_allclose(loss.value(logits, y).mean(1), expected, rtol=1e-12)
    single = loss.value(jnp.asarray(logits, jnp.float32), jnp.asarray(y))
    assert single.dtype == jnp.float32
    np.testing.assert_array_equal(jax.jit(loss.predict)(jnp.asarray(logits)), loss.predict(logits))


def test_losses_of_sampled_networks_are_those_of_the_oracle():
    energy = prepared(40)
    batch = energy.batch(np.arange(5))
    bits, _ = sample(exact_mps(CIRCUIT, jnp.asarray(angles())), jax.random.key(2), 40)
    numbers = np.asarray(bits) @ (2 ** np.arange(N_QUBITS)[::-1])
    assert len(set(numbers)) > 30
    expected = example_losses()[numbers]
    np.testing.assert_allclose(energy._losses(bits, batch), expected, rtol=1e-6)
    energy._networks_at_once = 7
    np.testing.assert_allclose(energy._losses(bits, batch), expected, rtol=1e-6)


def test_forward_pass_in_jax_is_that_of_the_oracle():
    """Gates, skip, scale and encoding choices, biases, five layers."""
    pairs = ((-3.0, 1.0), (0.0, 1.0), (0.5, -1.0))
    deep = Network(
        (Dense(3, 2), Dense(2, 4), Dense(4, 1), Dense(1, 2)), activation="sign", hidden_scale=0.3
    )
    gated = Network(
        (Dense(3, 4), Dense(4, 2)),
        activation="relu",
        choices=(
            skip_choice(),
            scale_choice((0.2, 0.9)),
            neuron_gates(),
            encoding_choice([Encoding(*each) for each in pairs], scope="neuron"),
        ),
        order="class",
    )
    choices = [
        {"setting": "skip", "options": (False, True), "scope": "network"},
        {"setting": "logit_scale", "options": (0.2, 0.9), "scope": "network"},
        {"setting": "gate", "options": (False, True), "scope": "neuron"},
        {"setting": "encoding", "options": pairs, "scope": "neuron"},
    ]
    for network, sizes, settings in (
        (deep, (3, 2, 4, 1, 2), {"logit_scale": 0.3, "hidden_scale": 0.3}),
        (gated, (3, 4, 2), {"activation": "relu", "choices": choices}),
    ):
        bits = np.random.default_rng(1).integers(0, 2, (30, network.n_qubits), np.uint8)
        x = np.random.default_rng(2).uniform(-1, 1.5, (6, 3))
        found = jax.jit(network.logits)(jnp.asarray(bits), jnp.asarray(x))
        expected = oracles.network_logits(bits, x, sizes, **settings)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_ties_fall_as_those_of_the_oracle():
    """Sums of tenths that are zero but for rounding: sign(0) is +1."""
    network = Network((Dense(4, 3, bias=False), Dense(3, 2, bias=False)), order="class")
    bits = np.random.default_rng(1).integers(0, 2, (64, network.n_qubits), np.uint8)
    x = np.array([[3, 1, 2, 2], [1, 2, 3, 0], [7, 3, 4, 0]]) / 10
    logits = jax.jit(lambda b, each: network.logits(b, each, step=0.1))
    found = logits(jnp.asarray(bits), jnp.asarray(x, jnp.float32))
    # Ten times as large, the inputs are whole and the signs the same.
    expected = oracles.network_logits(bits, np.rint(10 * x), (4, 3, 2), bias=False, logit_scale=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# ---------------------------------------------------------------- the estimate


def test_values_are_unbiased_and_their_error_is_the_standard_error():
    deviations = {}
    for n_samples in (4, 16, 64):
        energy = prepared(n_samples)
        values, errors = draws(energy, lambda p, b, energy=energy: energy.estimate(p, b), 1500)
        off = np.asarray(values) - exact_energies().mean()
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(1500)
        deviations[n_samples] = np.sqrt((off**2).mean())
        # The squares of standard errors are unbiased; 1500 draws know them to a few per cent.
        ratio = (np.asarray(errors) ** 2).mean() / deviations[n_samples] ** 2
        assert abs(ratio - 1) < 0.15
    slope = np.polyfit(np.log(list(deviations)), np.log(list(deviations.values())), 1)[0]
    assert abs(slope + 0.5) < 0.03


@functools.cache
def jacobians(baseline: str) -> np.ndarray:
    """The gradient of every example's energy in many draws, (draws, examples, angles)."""
    energy = prepared(5, baseline)
    found = draws(energy, jax.jacrev(energy.per_example), 3000)
    return np.asarray(found).reshape(3000, 5, -1)


@functools.cache
def exact_jacobian() -> np.ndarray:
    def energies(parameters: np.ndarray) -> np.ndarray:
        state = oracles.brickwork_statevector(parameters)
        return oracles.born_probabilities(state) @ example_losses()

    return np.stack(
        [
            oracles.finite_difference_gradient(lambda p, i=i: energies(p)[i], angles(), 1e-5)
            for i in range(5)
        ]
    ).reshape(5, -1)


@pytest.mark.parametrize("baseline", ["leave-one-out", "none"])
def test_gradients_of_all_examples_are_unbiased(baseline: str):
    found, expected = jacobians(baseline), exact_jacobian()
    mean, error = found.mean(0), found.std(0) / np.sqrt(len(found))
    # The Rz of the last layer change no probability at all.
    still = error < 1e-12
    assert still.sum() == 5 * N_QUBITS
    np.testing.assert_allclose(mean[still], 0, atol=1e-12)
    np.testing.assert_allclose(expected[still], 0, atol=1e-9)
    scores = ((mean - expected)[~still]) / error[~still]
    assert np.abs(scores).max() < 4.5
    assert 0.6 < np.sqrt((scores**2).mean()) < 1.4
    # The test would see a gradient of another size.
    assert np.abs(expected[~still] / error[~still]).max() > 8


def test_baseline_takes_most_of_the_variance_away():
    with_baseline, without = (jacobians(kind).var(0).sum() for kind in ("leave-one-out", "none"))
    assert with_baseline < 0.5 * without


def test_gradient_error_falls_with_the_root_of_the_samples():
    deviations = {}
    expected = exact_jacobian().mean(0)
    for n_samples in (16, 64, 256):
        energy = prepared(n_samples)
        found = np.asarray(draws(energy, jax.grad(energy), 200)).reshape(200, -1)
        deviations[n_samples] = np.sqrt(((found - expected) ** 2).sum(1).mean())
    slope = np.polyfit(np.log(list(deviations)), np.log(list(deviations.values())), 1)[0]
    # Leaving one out makes few samples a little worse than the root.
    assert abs(slope + 0.5) < 0.04


def test_log_probabilities_of_a_draw_have_the_right_gradient():
    def total(function, params):
        return (function(exact_mps(CIRCUIT, params)) * jnp.arange(6.0)).sum()

    params = jnp.asarray(angles())
    bits, _ = sample(exact_mps(CIRCUIT, params), jax.random.key(3), 6)
    key = jax.random.key(3)
    drawn = jax.jit(jax.grad(lambda p: total(lambda mps: sample(mps, key, 6)[1], p)))(params)
    given = jax.jit(jax.grad(lambda p: total(lambda mps: log_probability(mps, bits), p)))(params)
    np.testing.assert_allclose(drawn, given, rtol=1e-12, atol=1e-12)


def test_log_derivative_in_a_closed_form():
    """A fair coin's two sides, one sample of each: f = 3 and 1, grad log p = +1 and -1 times g."""
    values = jnp.asarray([[3.0, 10.0], [1.0, 10.0]])

    def estimate(theta, baseline):
        return log_derivative(values, jnp.stack([theta, -theta]), baseline)

    for baseline, expected in {"leave-one-out": [2.0, 0.0], "none": [1.0, 0.0]}.items():
        mean, slope = jax.jvp(lambda t, b=baseline: estimate(t, b), (0.0,), (1.0,))
        np.testing.assert_allclose(mean, [2.0, 10.0])
        np.testing.assert_allclose(slope, expected)


def test_batches_agree_with_the_examples_one_by_one():
    energy = prepared(6, batch_size=4)
    params = jnp.asarray(angles())
    rows = np.array([3, 0, 4])
    batch = energy.batch(rows, np.array([0.5, 0.2, 0.3]))
    each = energy.per_example(params, batch)
    for place, row in enumerate(rows):
        alone = energy.per_example(params, energy.batch(np.array([row])))
        assert each[place] == pytest.approx(float(alone[0]), rel=1e-12)
    weighted = float(each[:3] @ np.array([0.5, 0.2, 0.3]))
    assert energy(params, batch) == pytest.approx(weighted, rel=1e-12)
    value, error = energy.estimate(params, batch)
    assert value == pytest.approx(float(energy(params, batch)), rel=1e-12)
    assert error > 0
    other = energy.with_key(batch, jax.random.key(5))
    assert energy(params, other) != energy(params, batch)
    assert energy(params, other) == energy(params, energy.with_key(batch, jax.random.key(5)))


def test_keys_change_nothing_where_nothing_is_drawn():
    problem = Problem("logistic", 1, 3)
    compiled = compile_loss(problem.network, problem.data, problem.loss_object)
    energy = Exact().prepare(compiled, Brickwork(1), batch_size=2)
    batch = energy.batch(np.arange(2))
    assert energy.with_key(batch, jax.random.key(1)) is batch


def test_energy_of_the_whole_data_set():
    params = jnp.asarray(angles())
    value, error = sampled_energy(hamiltonian(), CIRCUIT, params, jax.random.key(6), 2000)
    expected = exact_energies().mean()
    variance = oracles.born_probabilities(oracles.brickwork_statevector(angles())) @ (
        (example_losses().mean(1) - expected) ** 2
    )
    assert error == pytest.approx(np.sqrt(variance / 2000), rel=0.1)
    assert abs(value - expected) < 4 * error
    with refuses("n_samples must be at least 2, got 1"):
        sampled_energy(hamiltonian(), CIRCUIT, params, jax.random.key(6), 1)


def test_settings_out_of_range_are_refused():
    with refuses("n_samples must be at least 2, got 1; with one there is neither a baseline"):
        Sampled(1)
    with refuses("baseline must be one of leave-one-out, none, got 'mean'"):
        Sampled(8, "mean")


# ---------------------------------------------------------------- the choice


@functools.cache
def linear(loss: str = "logistic") -> LossHamiltonian:
    problem = Problem(loss, 1, 4, n_examples=20, interval=(-0.4, 1.0))
    return compile_loss(problem.network, problem.data, problem.loss_object)


def test_choice_says_why():
    reason = "2 hidden layers do not separate; exact are networks with none or one"
    assert choose_energy(hamiltonian()) == (Sampled(), f"sampled: {reason}")
    assert choose_energy(hamiltonian(), Sampled(7)) == (Sampled(7), f"sampled: {reason}")
    kind, why = choose_energy(hamiltonian(), Cumulant(4))
    assert (kind, why) == (Sampled(), f"sampled (in place of cumulant-4): {reason}")
    kind, why = choose_energy(linear())
    assert kind == Exact()
    assert why == "exact: the loss separates"
    kind, why = choose_energy(linear(), Cumulant())
    assert kind == Cumulant()
    assert why == "cumulant-2: as preferred; the loss separates"
    kind, why = choose_energy(linear("squared"))
    assert (kind, why) == (Exact(), "exact: first and second moments are all a squared error takes")


def test_exact_energy_refuses_what_is_chosen_to_be_sampled():
    with pytest.raises(ValueError, match=r"2 hidden layers do not separate.*use Sampled"):
        Exact().prepare(hamiltonian(), CIRCUIT, batch_size=5)


# ---------------------------------------------------------------- training

SCHEDULE = Schedule(steps=40, batch_size=3, evaluate_every=20, checkpoint_every=5, check_examples=4)


def run(folder: Path | None = None, compiled: LossHamiltonian | None = None, **changes):
    arguments = {
        "energy": Sampled(16),
        "optimiser": optax.adam(0.1),
        "schedule": SCHEDULE,
        "seed": 5,
        "folder": folder,
        "progress": QUIET,
    } | changes
    return train(compiled or hamiltonian(), CIRCUIT, **arguments)


@functools.cache
def undisturbed() -> TrainResult:
    return run(validation=data(9))


def test_deep_network_trains():
    result = undisturbed()
    assert result.status == "finished"
    start = jnp.asarray(CIRCUIT.init(jax.random.key(5), N_QUBITS))
    energies = [
        oracles.energy(oracles.brickwork_statevector(params), example_losses().mean(1))
        for params in (start, result.params)
    ]
    assert energies[1] < energies[0] - 0.1
    assert energies[1] >= example_losses().mean(1).min()
    evaluations = result.history.evaluations
    assert evaluations.keys() == {
        "step",
        "check_energy",
        "check_standard_error",
        "validation_loss",
        "validation_accuracy",
    }
    assert (evaluations["check_standard_error"] > 0).all()


def test_evaluation_of_what_separates_compares_with_the_exact_energy():
    for loss in ("logistic", "squared"):
        schedule = dataclasses.replace(SCHEDULE, steps=6, evaluate_every=2)
        result = run(compiled=linear(loss), energy=Sampled(64), schedule=schedule)
        row = result.history.evaluations
        scores = row["check_error"] / row["check_standard_error"]
        assert (np.abs(scores) < 4).all()
        assert (np.abs(scores) > 1e-3).all()
        assert len(set(scores)) == 3, "every evaluation draws anew"


def test_resumed_run_is_the_undisturbed_one_bit_for_bit(tmp_path: Path):
    run(tmp_path, schedule=dataclasses.replace(SCHEDULE, steps=20), validation=data(9))
    resumed = run(tmp_path, validation=data(9))
    np.testing.assert_array_equal(resumed.params, undisturbed().params)
    arrays, wanted = resumed.history.to_arrays(), undisturbed().history.to_arrays()
    for name in wanted.keys() - {"seconds"}:
        np.testing.assert_array_equal(arrays[name], wanted[name], err_msg=name)
    with pytest.raises(ValueError, match=r"made with samples=Sampled\(n_samples=16, .*n_samples=8"):
        run(tmp_path, energy=Sampled(8))


def test_steps_draw_different_networks():
    """With all examples in the batch and no learning, only the draw differs."""
    schedule = dataclasses.replace(SCHEDULE, steps=4, batch_size=5)
    energy = run(optimiser=optax.sgd(0.0), schedule=schedule).history.energy
    assert len(set(energy)) == 4
    again = run(optimiser=optax.sgd(0.0), schedule=schedule).history.energy
    np.testing.assert_array_equal(energy, again)
    other = run(optimiser=optax.sgd(0.0), schedule=schedule, seed=6).history.energy
    assert not set(energy) & set(other)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(784, 64, 10), (784, 64, 32, 10)])
@pytest.mark.parametrize("depth", [1, 4])
def test_full_size_fits_in_memory(sizes: tuple[int, ...], depth: int):
    """50,890 qubits and more: value and gradient of 32 networks and 100 examples in 2 GB."""
    rng = np.random.default_rng(0)
    x = (rng.random((100, 784)) < 0.19).astype(np.float32)
    y = rng.integers(0, 10, 100).astype(np.int32)
    examples = Dataset(x=x, y=y, n_classes=10, image_shape=None, step=1.0, name="full size")
    network = Network(tuple(itertools.starmap(Dense, itertools.pairwise(sizes))), logit_scale=0.2)
    compiled, circuit = compile_loss(network, examples, Softmax()), Brickwork(depth)
    params = circuit.init(jax.random.key(0), network.n_qubits, dtype=jnp.float32)
    energy = Sampled(32).prepare(compiled, circuit, batch_size=100, dtype=np.float32)
    batch = energy.batch(np.arange(100))
    function = jax.jit(jax.value_and_grad(energy)).lower(params, batch).compile()
    assert function.memory_analysis().temp_size_in_bytes < 2e9
    value, gradient = function(params, batch)
    assert 1 < value < 10
    assert np.isfinite(gradient).all()
