"""Decoding: the best network is the best, and its scores are those of a plain forward pass."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.bnn import (
    PUBLISHED_ENCODINGS,
    Dense,
    Network,
    activation_choice,
    encoding_choice,
    neuron_gates,
    save_network,
    skip_choice,
)
from hypercircuit.circuit import Brickwork
from hypercircuit.data import Dataset, Splits
from hypercircuit.decode import (
    ChosenOptions,
    Score,
    architecture,
    decode,
    exact_energy,
    full_energy,
    magnetisation_images,
    score_network,
)
from hypercircuit.energy import Cumulant, Exact
from hypercircuit.hamiltonian import compile_loss
from hypercircuit.state import exact_mps, most_likely, sample
from hypercircuit.train import StopSignals
from problems import ORACLE_NAMES, Problem

CIRCUIT = Brickwork(2)
KEY = jax.random.key(5)
SAMPLES = 37
PROBLEMS = {
    "softmax": Problem("softmax", 3, 3, encoding=(0.5, -1.0), order="class-reversed"),
    "logistic": Problem("logistic", 1, 9),
    "squared": Problem("squared", 3, 3, bias=False),
}


def examples(problem: Problem, n_examples: int) -> Dataset:
    """Random inputs whose labels a linear rule gives, with some noise."""
    rng = np.random.default_rng(n_examples)
    x = rng.uniform(-1, 1, (n_examples, problem.n_inputs))
    rule = np.random.default_rng(0).normal(size=(problem.n_inputs, problem.n_classes))
    y = (x @ rule + 0.3 * rng.normal(size=(n_examples, problem.n_classes))).argmax(1)
    return Dataset(
        x.astype(np.float32), y.astype(np.int32), problem.n_classes, None, None, "examples"
    )


@functools.cache
def splits(name: str) -> Splits:
    """More training examples than are evaluated at once."""
    return Splits(*(examples(PROBLEMS[name], n) for n in (5000, 150, 80)))


@functools.cache
def angles(name: str) -> jax.Array:
    n_qubits = PROBLEMS[name].network.n_qubits
    return CIRCUIT.init(jax.random.key(n_qubits), n_qubits, how="uniform", dtype=jnp.float64)


def logits(problem: Problem, bits: np.ndarray, x: np.ndarray) -> np.ndarray:
    ordered = bits if problem.order == "class" else bits[:, ::-1]
    return oracles.linear_logits(
        ordered, x, problem.n_outputs, *problem.encoding, problem.scale, problem.bias
    )


def predictions(values: np.ndarray) -> np.ndarray:
    return values.argmax(-1) if values.shape[-1] > 1 else (values[..., 0] > 0).astype(int)


def scores(problem: Problem, bits: np.ndarray, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy of every network by plain NumPy."""
    values = logits(problem, bits, data.x)
    losses = oracles.mean_loss(ORACLE_NAMES[problem.loss], values, data.y)
    return losses, (predictions(values) == data.y).mean(1)


def flat(score: Score) -> np.ndarray:
    return np.array(dataclasses.astuple(score))


@functools.cache
def decoded(name: str):
    problem = PROBLEMS[name]
    return decode(
        CIRCUIT,
        angles(name),
        problem.network,
        problem.loss_object,
        splits(name),
        KEY,
        samples=SAMPLES,
        beam=4,
    )


@functools.cache
def pool(name: str) -> np.ndarray:
    """The candidates: the likeliest network first, then the samples."""
    mps = exact_mps(CIRCUIT, angles(name))
    drawn, _ = sample(mps, KEY, SAMPLES)
    likeliest, _ = most_likely(mps, 4)
    return np.concatenate([likeliest[:1], drawn])


@pytest.mark.parametrize("name", PROBLEMS)
def test_best_candidate_has_the_lowest_validation_loss(name: str):
    problem, data = PROBLEMS[name], splits(name)
    tables = [
        scores(problem, pool(name), part) for part in (data.train, data.validation, data.test)
    ]
    best = tables[1][0].argmin()
    found = decoded(name)
    np.testing.assert_array_equal(found.bits, pool(name)[best])
    expected = np.array([[loss, accuracy] for loss, accuracy in tables])
    np.testing.assert_allclose(flat(found.best), expected[:, :, best].ravel(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(flat(found.most_likely), expected[:, :, 0].ravel(), atol=2e-6)
    np.testing.assert_allclose(
        flat(found.sample_mean), expected[:, :, 1:].mean(-1).ravel(), atol=2e-6
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_vote_is_the_majority_of_the_samples(name: str):
    problem, expected = PROBLEMS[name], []
    for part in (splits(name).train, splits(name).validation, splits(name).test):
        values = logits(problem, pool(name)[1:], part.x)
        ballots = predictions(values)
        counts = np.stack([(ballots == label).sum(0) for label in range(problem.n_classes)])
        mean = values.mean(0, keepdims=True)
        expected.append(oracles.mean_loss(ORACLE_NAMES[problem.loss], mean, part.y)[0])
        expected.append((counts.argmax(0) == part.y).mean())
    np.testing.assert_allclose(flat(decoded(name).vote), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", PROBLEMS)
def test_log_probability_is_that_of_the_statevector(name: str):
    state = oracles.brickwork_statevector(angles(name))
    index = int("".join(map(str, decoded(name).bits)), 2)
    expected = np.log(oracles.born_probabilities(state)[index])
    assert decoded(name).log_probability == pytest.approx(expected, abs=1e-9)


def test_further_candidates_compete_and_do_not_vote():
    name, problem = "softmax", PROBLEMS["softmax"]
    bits = oracles.bits_table(problem.network.n_qubits)
    best = bits[scores(problem, bits, splits(name).validation)[0].argmin()]
    found = decode(
        CIRCUIT,
        angles(name),
        problem.network,
        problem.loss_object,
        splits(name),
        KEY,
        samples=SAMPLES,
        beam=4,
        candidates=np.stack([bits[0], best]),
    )
    np.testing.assert_array_equal(found.bits, best)
    assert found.vote == decoded(name).vote
    assert found.sample_mean == decoded(name).sample_mean
    assert found.best.validation_loss < decoded(name).best.validation_loss


def test_training_loss_ranks_without_validation_examples():
    name, problem, data = "softmax", PROBLEMS["softmax"], splits("softmax")
    found = decode(
        CIRCUIT,
        angles(name),
        problem.network,
        problem.loss_object,
        Splits(data.train, data.train, data.test),
        KEY,
        samples=SAMPLES,
        beam=4,
    )
    losses, accuracies = scores(problem, pool(name), data.train)
    best = losses.argmin()
    np.testing.assert_array_equal(found.bits, pool(name)[best])
    assert (found.best.validation_loss, found.best.validation_accuracy) == (None, None)
    assert (found.vote.validation_loss, found.vote.validation_accuracy) == (None, None)
    assert found.best.train_loss == pytest.approx(losses[best], abs=2e-6)
    assert found.best.train_accuracy == accuracies[best]
    assert found.vote.test_accuracy == decoded(name).vote.test_accuracy


def test_score_of_one_network():
    problem, data = PROBLEMS["logistic"], splits("logistic").test
    bits = np.array([1, 0, 0, 1, 1, 1, 0, 1, 0, 1], np.uint8)
    losses, accuracies = scores(problem, bits[None], data)
    loss, accuracy = score_network(problem.network, problem.loss_object, bits, data)
    assert loss == pytest.approx(losses[0], abs=2e-6)
    assert accuracy == accuracies[0]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (Problem("softmax", 3, 4), np.int8),
        (Problem("softmax", 3, 4, bias=False, encoding=(0.0, 127.0)), np.int8),
        (Problem("softmax", 3, 4, order="class-reversed", encoding=(0.5, -1.25)), np.float32),
        (Problem("logistic", 1, 7, encoding=(-1.0, 128.0)), np.float32),
    ],
)
def test_saved_arrays_reproduce_the_logits(problem: Problem, kind: type, tmp_path: Path):
    bits = np.random.default_rng(2).integers(0, 2, problem.network.n_qubits).astype(np.uint8)
    path = tmp_path / "best_network.npz"
    save_network(path, problem.network, bits)
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays.keys() == {"bits", "weights_0", "encoding_0", "logit_scale"} | (
        {"biases_0"} if problem.bias else set()
    )
    assert arrays["bits"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["bits"], bits)
    assert arrays["weights_0"].dtype == kind
    assert arrays["weights_0"].shape == (problem.n_outputs, problem.n_inputs)
    x = problem.data.x.astype(np.float64)
    z = x @ arrays["weights_0"].T.astype(np.float64)
    if problem.bias:
        assert arrays["biases_0"].dtype == kind
        z = z + arrays["biases_0"]
    expected = logits(problem, bits[None], x)[0]
    np.testing.assert_allclose(arrays["logit_scale"] * z, expected, rtol=0, atol=1e-9)
    assert [file.name for file in tmp_path.iterdir()] == ["best_network.npz"]


@pytest.mark.parametrize("scope", ["network", "neuron"])
def test_saved_hidden_networks_reproduce_the_logits(tmp_path: Path, scope: str):
    choices = (
        activation_choice(["relu", "tanh"], scope="neuron"),
        neuron_gates(),
        skip_choice(),
        encoding_choice(PUBLISHED_ENCODINGS, scope=scope),
    )
    network = Network((Dense(3, 4), Dense(4, 2)), choices=choices, hidden_scale=0.4)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 3))
    for bits in rng.integers(0, 2, (6, network.n_qubits)).astype(np.uint8):
        save_network(tmp_path / "network.npz", network, bits)
        with np.load(tmp_path / "network.npz", allow_pickle=False) as file:
            saved = dict(file)
        z = saved["hidden_scale"] * (x @ saved["weights_0"].T + saved["biases_0"])
        functions = {"relu": lambda v: np.maximum(v, 0), "tanh": np.tanh}
        columns = zip(saved["activation_0"], z.T, strict=True)
        hidden = np.stack([functions[str(name)](column) for name, column in columns], 1)
        z = (saved["gates_0"] * hidden) @ saved["weights_1"].T + saved["biases_1"]
        z = saved["logit_scale"] * (z + x @ saved["skip"].T)
        np.testing.assert_allclose(z, network.logits(bits[None], x)[0], rtol=0, atol=1e-12)


def test_architecture_is_the_born_distribution_of_the_options():
    choices = (
        encoding_choice(PUBLISHED_ENCODINGS[:3]),
        neuron_gates(),
        activation_choice(["relu", "tanh", "sign"], scope="neuron"),
    )
    network = Network((Dense(1, 2), Dense(2, 1)), choices=choices, order="neuron-reversed")
    circuit = Brickwork(3)
    params = circuit.init(jax.random.key(8), network.n_qubits, how="uniform", dtype=jnp.float64)
    found = {each.name: each for each in architecture(circuit, params, network)}
    born = oracles.born_probabilities(oracles.brickwork_statevector(np.asarray(params)))
    bits = oracles.bits_table(network.n_qubits)[:, ::-1]  # read from the register's start
    codes = 2 * bits[:, 0] + bits[:, 1]
    expected = [born[codes % 3 == option].sum() for option in range(3)]
    np.testing.assert_allclose(found["encoding"].probabilities, [expected], atol=1e-12)
    # after the choice: weight, bias, gate, two activation bits, outgoing weight, of each neuron
    for neuron, start in enumerate((2, 8)):
        gate = bits[:, start + 2]
        expected = [born[gate == option].sum() for option in range(2)]
        np.testing.assert_allclose(found["gate"].probabilities[neuron], expected, atol=1e-12)
        codes = 2 * bits[:, start + 3] + bits[:, start + 4]
        expected = [born[codes % 3 == option].sum() for option in range(3)]
        np.testing.assert_allclose(found["activation"].probabilities[neuron], expected, atol=1e-12)


def test_choices_in_words():
    one = ChosenOptions("encoding", ("{-1, 1}", "{-3, 1}"), np.array([[0.04, 0.96]]))
    assert one.describe() == "the search chose {-3, 1} for encoding with probability 0.96"
    table = np.array([[0.7, 0.3], [0.1, 0.9], [0.2, 0.8]])
    several = ChosenOptions("encoding", ("{-1, 1}", "{-3, 1}"), table)
    assert several.describe() == (
        "the search chose encoding of 3 neurons: {-3, 1} for 2, {-1, 1} for 1, "
        "with probability 0.80 on average"
    )


def test_marginals_are_laid_out_as_the_weights_are():
    problem = PROBLEMS["softmax"]
    found = magnetisation_images(CIRCUIT, angles("softmax"), problem.network)
    z = oracles.marginals(oracles.brickwork_statevector(angles("softmax")))
    expected = z[::-1].reshape(3, 4)[:, :3]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


# ---------------------------------------------------------------- energies of all examples


def test_full_energy_is_the_mean_over_the_examples():
    problem = Problem("logistic", 1, 6, interval=(-1.0, 1.5))
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    params = Brickwork(1).init(jax.random.key(0), 7, how="uniform", dtype=jnp.float64)
    energies = {}
    for size in (3, 7):
        prepared = Cumulant().prepare(hamiltonian, Brickwork(1), batch_size=size, dtype=np.float64)
        each = prepared.value_function()(params, prepared.batch(np.arange(size)))
        energies[size] = full_energy(prepared, params)
    assert energies[7] == pytest.approx(float(each.mean()), abs=1e-12)
    assert energies[3] == pytest.approx(energies[7], abs=1e-12)


@pytest.mark.parametrize("batch_size", [3, 200])
def test_exact_energy_of_all_examples_is_that_of_the_statevector(batch_size: int):
    """On a lattice, so that the expansion has no error of its own."""
    problem = Problem("logistic", 1, 8, step=0.5, zeros=0.5, interval=(-1.2, 2.2))
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    params = CIRCUIT.init(jax.random.key(1), 9, how="uniform", dtype=jnp.float64)
    found = exact_energy(hamiltonian, CIRCUIT, params, batch_size=batch_size)
    state = oracles.brickwork_statevector(params)
    assert found == pytest.approx(oracles.energy(state, problem.diagonal), abs=1e-8)
    assert found == pytest.approx(oracles.energy(state, hamiltonian.diagonal()), abs=1e-9)


def test_stopped_pass_over_the_examples_goes_on(tmp_path: Path):
    problem = Problem("squared", 1, 6)
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    circuit = Brickwork(1)
    prepared = Exact().prepare(hamiltonian, circuit, batch_size=2, dtype=np.float64)
    params = circuit.init(jax.random.key(0), 7, how="uniform", dtype=jnp.float64)
    path = tmp_path / "sums.json"
    stop = StopSignals()
    stop.requested = "SIGTERM"
    for done in (2, 4, 6):
        assert full_energy(prepared, params, save=path, stop=stop) is None
        assert json.loads(path.read_text())["done"] == done
    expected = full_energy(prepared, params)
    assert full_energy(prepared, params, save=path, stop=stop) == expected
    assert full_energy(prepared, params, save=path) == expected
    # Sums of other angles count for nothing.
    other = full_energy(prepared, params + 1)
    assert full_energy(prepared, params + 1, save=path) == other != expected
