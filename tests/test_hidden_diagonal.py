"""The enumeration of networks with one hidden layer: distinct values, lookups and products."""

import itertools

import numpy as np
import pytest

from hypercircuit.bnn import Dense, Network, activation_choice, neuron_gates
from hypercircuit.data import Dataset
from hypercircuit.hamiltonian import LOSSES, compile_loss, hidden_diagonal
from hypercircuit.hamiltonian.arrangement import Arrangement, Run
from hypercircuit.hamiltonian.hidden_heads import HeadSum
from hypercircuit.hamiltonian.hidden_values import cubics


@pytest.mark.parametrize(("count", "n_patterns"), [(1, 4), (2, 8), (3, 4), (4, 2)])
def test_a_run_has_every_multiset_once(count: int, n_patterns: int):
    run = Run.of(0, count, n_patterns)
    table = np.random.default_rng(0).normal(size=(n_patterns, 3))
    whole = Arrangement.of([0] * count, [n_patterns.bit_length() - 1] * count)
    found = whole.combine([table], np.add, np.zeros(3))
    assert (
        len(found)
        == run.size
        == len(list(itertools.combinations_with_replacement(range(n_patterns), count)))
    )
    sequences = np.array(list(itertools.product(range(n_patterns), repeat=count)))
    np.testing.assert_allclose(found[whole.place], table[sequences].sum(1), atol=1e-14)


def test_factors_of_several_kinds_keep_their_order():
    rng = np.random.default_rng(1)
    tables = [rng.normal(size=(4, 2)), rng.normal(size=(2, 2)), rng.normal(size=(8, 2))]
    kinds = [2, 0, 0, 1]
    whole = Arrangement.of(kinds, [3, 2, 2, 1])
    found = whole.combine(tables, np.multiply, np.ones(2))
    assert whole.size == 8 * 10 * 2 == len(found)
    expected = np.ones((1, 2))
    for kind in kinds:
        expected = (expected[:, None] * tables[kind]).reshape(-1, 2)
    np.testing.assert_allclose(found[whole.place], expected, atol=1e-14)


@pytest.mark.parametrize("n_terms", [1, 2, 21])
def test_looked_up_losses_are_those_of_the_sum(n_terms: int):
    rng = np.random.default_rng(n_terms)
    coefficients = rng.normal(size=(n_terms, 2)) + 1j * rng.normal(size=(n_terms, 2))
    total = HeadSum(0.37 * np.arange(n_terms), coefficients)
    values = rng.uniform(-60, 60, (5, 40))
    phases = np.exp(1j * total.frequency * values[..., None])
    for target, loss in enumerate(cubics(total)):
        expected = (phases @ coefficients[:, target]).real
        np.testing.assert_allclose(loss(values), expected, rtol=0, atol=1e-11)


def test_looked_up_jets_are_parabolas():
    coefficients = np.array([[1.0, 0.5], [-2.0, 0.25], [2.0, 3.0]]).astype(complex)
    values = np.linspace(-7, 5, 13)
    for target, loss in enumerate(cubics(HeadSum(None, coefficients))):
        c = coefficients[:, target].real
        np.testing.assert_allclose(loss(values), c[0] + c[1] * values + c[2] * values**2 / 2)


def test_a_grid_that_is_too_fine_is_not_made():
    assert cubics(HeadSum(np.array([0.0, 1e-3, 4e4]), np.ones((3, 2), complex))) is None


@pytest.mark.parametrize(
    ("loss", "outputs", "step", "changes"),
    [
        ("sigmoid-squared", 1, None, {"choices": (activation_choice(["sigmoid", "relu"]),)}),
        ("logistic", 1, 0.5, {"choices": (neuron_gates(),), "order": "neuron-reversed"}),
        ("squared", 2, None, {"activation": "tanh", "skip": True}),
        ("zero-one", 1, 0.5, {"activation": "relu"}),
        ("pairwise-logistic", 3, 0.5, {"activation": "sign"}),
    ],
)
def test_both_ways_agree_also_on_repeated_examples(
    loss: str, outputs: int, step: float | None, changes: dict, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(4)
    x = rng.uniform(-1.2, 1.6, (4, 2))
    x = x if step is None else step * np.round(x / step)
    rows = [0, 1, 2, 1, 3, 1, 0]
    y = np.array([1, 0, 0, 2])[rows] % max(2, outputs)
    y[3] = 1 - y[1]  # the same inputs with another label
    data = Dataset(x[rows].astype(np.float32), y.astype(np.int32), max(2, outputs), None, step, "x")
    neurons = 2 if outputs > 1 else 3
    network = Network((Dense(2, neurons), Dense(neurons, outputs)), **changes)
    found = []
    for cost in (0, np.inf):
        monkeypatch.setattr(hidden_diagonal, "_LOOKUP", cost)
        hamiltonian = compile_loss(network, data, LOSSES[loss](), tolerance=1e-6)
        found.append(hamiltonian.diagonal())
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-9)
    bits = np.random.default_rng(5).integers(0, 2, (200, network.n_qubits))
    places = bits @ 2 ** np.arange(network.n_qubits)[::-1]
    expected = hamiltonian.losses(bits.astype(np.uint8))
    np.testing.assert_allclose(found[0][places], expected, rtol=0, atol=2e-6)
