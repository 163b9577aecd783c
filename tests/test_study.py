"""Success probabilities, loss histograms and the spectrum of a loss, against formulas."""

import itertools
import math
import types

import numpy as np
import pytest

import oracles
from hypercircuit.study import (
    loss_histogram,
    pauli_coefficients,
    pauli_weights,
    plot_losses,
    plot_pauli_weights,
    plot_success,
    success_probability,
)
from problems import PROBLEMS


def tail(n: int, k: int, p: float) -> float:
    """The probability of at least k successes of n."""
    return sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


def test_success_counts_what_is_close_enough():
    energies = np.array([0.5, 0.50009, 0.5002, 0.7, np.nan, np.inf, 0.49999])
    found = success_probability(energies, 0.5)
    assert (found.n, found.successes, found.confidence) == (7, 3, 0.95)
    assert found.probability == pytest.approx(3 / 7)
    assert success_probability(energies, 0.5, distance=0.2001).successes == 5


@pytest.mark.parametrize(("n", "k", "confidence"), [(35, 26, 0.95), (310, 282, 0.95), (9, 1, 0.8)])
def test_interval_is_the_exact_one(n: int, k: int, confidence: float):
    """At its ends the observed count lies just at the edge of either tail."""
    energies = np.where(np.arange(n) < k, 0.0, 1.0)
    found = success_probability(energies, 0.0, confidence=confidence)
    half = (1 - confidence) / 2
    assert tail(n, k, found.low) == pytest.approx(half, rel=1e-6)
    assert 1 - tail(n, k + 1, found.high) == pytest.approx(half, rel=1e-6)


def test_interval_of_all_and_of_none():
    twelve = success_probability(np.zeros(12), 0.0)
    assert (twelve.high, twelve.low) == (1.0, pytest.approx(0.025 ** (1 / 12)))
    none = success_probability(np.ones(12), 0.0)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 12)))


def test_histogram_puts_every_restart_in_one_bin():
    minimum = 0.3
    distances = np.array([0.0, -1e-15, 1e-12, 3e-8, 0.5e-4, 0.5e-4, 0.02, 5.0])
    energies = np.append(minimum + distances, np.nan)
    found = loss_histogram(energies, minimum, bins_per_decade=1)
    np.testing.assert_allclose(found.edges, 10.0 ** np.arange(-8, 1))
    assert found.counts.tolist() == [4, 0, 0, 2, 0, 0, 1, 1]
    assert found.n_missing == 1


def test_coefficients_by_definition():
    rng = np.random.default_rng(1)
    diagonal = rng.normal(size=32)
    bits = oracles.bits_table(5)
    found = pauli_coefficients(diagonal)
    for index, subset in enumerate(itertools.product((0, 1), repeat=5)):
        signs = np.prod((1.0 - 2.0 * bits)[:, np.array(subset) == 1], axis=1)
        assert found[index] == pytest.approx(np.mean(signs * diagonal))


def test_weights_of_a_known_polynomial():
    z = 1.0 - 2.0 * oracles.bits_table(4)
    losses = 7 + 2 * z[:, 1] + z[:, 3] - 3 * z[:, 0] * z[:, 2] + z.prod(1)
    np.testing.assert_allclose(pauli_weights(losses), [0, 5 / 15, 9 / 15, 0, 1 / 15], atol=1e-15)
    np.testing.assert_array_equal(pauli_weights(np.full(8, 2.5)), 0)


def test_squared_error_is_quadratic():
    weights = pauli_weights(PROBLEMS["squared-one"].diagonal)
    assert weights[1] + weights[2] == pytest.approx(1)
    assert weights.min() >= 0


def test_weights_sum_to_the_variance():
    diagonal = PROBLEMS["softmax-quarters"].diagonal
    squares = pauli_coefficients(diagonal) ** 2
    assert squares[1:].sum() == pytest.approx(diagonal.var())
    assert pauli_weights(diagonal).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: success_probability(np.zeros(0), 0.0), "at least one restart, got none"),
        (lambda: success_probability(np.zeros(2), 0.0, distance=0.0), "distance must be above 0"),
        (lambda: success_probability(np.zeros(2), 0.0, confidence=1.0), "between 0 and 1, got 1"),
        (lambda: loss_histogram(np.zeros(2), 0.0, lowest=2.0), "below highest, got 2.0 and 1.0"),
        (lambda: loss_histogram(np.zeros(2), 0.0, bins_per_decade=0), "at least 1, got 0"),
        (lambda: pauli_coefficients(np.zeros(6)), r"must have 2\^N entries, got 6"),
    ],
)
def test_wrong_arguments(call: types.FunctionType, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_figures_are_written(tmp_path):
    rng = np.random.default_rng(0)
    rows, histograms = [], {}
    for depth in (1, 2, 6):
        energies = 0.3 + rng.choice([1e-6, 3e-4], 20)
        found = success_probability(energies, 0.3)
        rows.append({"depth": depth, "success_distance": 1e-4, **vars(found)})
        histograms[depth] = loss_histogram(energies, 0.3)
    plot_success(rows, tmp_path / "success.png")
    plot_losses(histograms, tmp_path / "losses.png", unit="nats", distance=1e-4)
    plot_pauli_weights(pauli_weights(rng.normal(size=64)), tmp_path / "spectrum.png")
    for path in tmp_path.iterdir():
        assert path.read_bytes()[:4] == b"\x89PNG"
