"""What is said about a state: against its statevector."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from hypercircuit import (
    PUBLISHED_ENCODINGS,
    Brickwork,
    Dataset,
    Dense,
    Network,
    SquaredError,
    activation_choice,
    compile_loss,
    encoding_choice,
)
from hypercircuit.circuit import Truncated
from hypercircuit.state import from_tensors, prepare_state
from hypercircuit.state.diagnostics import (
    correlation_decay,
    entanglement,
    mutual_information,
    pair_information,
)
from hypercircuit.study import diagnose, discarded_weights
from hypercircuit.study.diagnostics_plots import above_rounding, plot_entropy, schmidt_curves

N, DEPTH = 9, 4


@pytest.fixture(scope="module")
def deep() -> tuple:
    """A state without symmetries, and the probabilities of all bit strings, site 0 first."""
    angles = np.random.default_rng(3).normal(size=(DEPTH, N, 2))
    state = prepare_state(Brickwork(DEPTH), jax.numpy.asarray(angles))
    vector = oracles.brickwork_statevector(angles)
    return state, vector, oracles.born_probabilities(vector).reshape((2,) * N)


def shannon(chances: np.ndarray) -> float:
    chances = chances[chances > 1e-15]
    return float(-np.sum(chances * np.log(chances)))


def information(probabilities: np.ndarray, some: list[int], other: int) -> float:
    """I(some; other) = H(some) + H(other) - H(some, other); H(other) if it is one of them."""

    def entropy(kept: set[int]) -> float:
        rest = tuple(set(range(N)) - kept)
        return shannon(probabilities.sum(rest).ravel())

    return entropy(set(some)) + entropy({other}) - entropy({*some, other})


def test_entropies_of_a_circuit(deep: tuple):
    state, vector, _ = deep
    found = entanglement(state)
    assert found.norm == pytest.approx(1, abs=1e-12)
    for cut in range(1, N):
        values = np.linalg.svd(vector.reshape(2**cut, -1), compute_uv=False)
        assert found.entropy[cut - 1] == pytest.approx(shannon(values**2), abs=1e-10)
        length = min(len(values), found.spectrum.shape[1])
        np.testing.assert_allclose(found.spectrum[cut - 1, :length], values[:length], atol=1e-7)


def test_entropies_are_those_of_the_whole_state():
    rng = np.random.default_rng(1)
    bonds = (1, 2, 3, 5, 2, 1)
    tensors = [
        rng.normal(size=(left, 2, right)) + 1j * rng.normal(size=(left, 2, right))
        for left, right in itertools.pairwise(bonds)
    ]
    whole = np.ones((1, 1))
    for tensor in tensors:
        whole = np.tensordot(whole, tensor, axes=1).reshape(-1, tensor.shape[2])
    found = entanglement(from_tensors(tensors)).entropy
    assert len(found) == 4
    for cut, entropy in enumerate(found, 1):
        values = np.linalg.svd(whole.reshape(2**cut, -1), compute_uv=False)
        weights = values**2 / np.sum(values**2)
        weights = weights[weights > 1e-15]
        assert entropy == pytest.approx(-np.sum(weights * np.log(weights)), abs=1e-10)


@pytest.mark.parametrize("sites", [[0], [0, 1, 2], [8, 7]])
def test_information_shared_with_all_of_some_qubits(deep: tuple, sites: list[int]):
    state, _, probabilities = deep
    expected = [information(probabilities, sites, other) for other in range(N)]
    np.testing.assert_allclose(mutual_information(state, sites), expected, atol=1e-10)
    assert max(np.delete(expected, sites)) > 1e-3


@pytest.mark.parametrize(("sites", "reach"), [([4], 8), ([1, 6], 8), ([1, 6], 2), ([0, 8, 5], 3)])
def test_information_shared_with_one_of_some_qubits(deep: tuple, sites: list[int], reach: int):
    state, _, probabilities = deep
    expected = [
        information(probabilities, [site], site)
        if site in sites
        else max(
            [information(probabilities, [one], site) for one in sites if abs(one - site) <= reach],
            default=np.nan,
        )
        for site in range(N)
    ]
    np.testing.assert_allclose(pair_information(state, sites, reach), expected, atol=1e-10)
    assert np.nanmax(np.delete(expected, sites)) > 1e-3


def test_correlations_fall_with_the_distance(deep: tuple):
    state, _, probabilities = deep
    signs = 1.0 - 2.0 * oracles.bits_table(N)
    weights = probabilities.ravel()
    means = weights @ signs
    covariance = (signs * weights[:, None]).T @ signs - np.outer(means, means)
    decay = correlation_decay(state, 5)
    for gap, value in enumerate(decay.profile):
        expected = np.sqrt(np.mean(np.diagonal(covariance, gap) ** 2))
        assert value == pytest.approx(expected, abs=1e-10)
    logs = np.log(decay.profile[1:])
    assert decay.length == pytest.approx(-1 / np.polyfit(np.arange(1, 6), logs, 1)[0])


@pytest.mark.parametrize("own", [False, True])
def test_architecture_of_network_and_neurons(own: bool):
    """What is measured together, what one by one, and the larger of both for every other qubit."""
    choices = (encoding_choice(PUBLISHED_ENCODINGS[:2]),)
    if own:
        choices += (activation_choice(["sigmoid", "relu"], scope="neuron"),)
    network = Network((Dense(2, 2), Dense(2, 1)), choices=choices)
    n = network.n_qubits
    angles = jax.numpy.asarray(np.random.default_rng(5).normal(size=(2, n, 2)))
    x = np.array([[0.0, 1.0], [1.0, 0.5]], np.float32)
    data = Dataset(x, np.array([0, 1], np.int32), 2, None, None, "two")
    found = diagnose(compile_loss(network, data, SquaredError()), Brickwork(2), angles)
    state = prepare_state(Brickwork(2), angles)
    together, single = list(network.global_sites), []
    expected = mutual_information(state, together)
    if own:
        single = network.register.choices[1].ravel().tolist()
        expected = np.fmax(expected, pair_information(state, single))
    np.testing.assert_allclose(found.arrays["mutual_information"], expected, atol=1e-12)
    assert found.numbers["architecture_sites"] == sorted(together + single)
    assert len(found.numbers["architecture_measured"]) == 1 + own
    assert found.numbers["mutual_information_is"] == ("at least" if own else "exactly")
    others = np.delete(expected, together + single)
    assert found.numbers["max_mutual_information"] == pytest.approx(others.max())
    assert others.max() > 1e-3


def test_figure_of_a_state_whose_correlations_do_not_fall(tmp_path: Path):
    arrays = {
        "entropy": np.array([0.1, 0.2]),
        "correlations": np.array([1.0, 0.5, 0.5]),
        "spectrum": np.array([[1.0, 0.0], [0.8, 0.6]]),
    }
    plot_entropy({"correlation_length": None}, arrays, tmp_path / "entropy.png")
    assert (tmp_path / "entropy.png").stat().st_size > 1000


def test_rounding_is_not_drawn():
    spectrum = np.zeros((3, 6))
    spectrum[:, :4] = [[1.0, 0.0, 0.0, 0.0], [0.8, 0.6, 1e-9, 0.0], [0.9, 0.4, 0.15, 1e-3]]
    curves = schmidt_curves(spectrum)
    assert list(curves) == [1, 2, 3, 4]
    np.testing.assert_allclose(curves[2], [np.nan, 0.6, 0.4])
    np.testing.assert_allclose(curves[3], [np.nan, np.nan, 0.15])
    np.testing.assert_allclose(above_rounding(np.array([1e-36, 0.0, 1e-9])), [np.nan, np.nan, 1e-9])


def test_weights_of_parallel_truncation_are_estimates():
    circuit = Brickwork(5)
    angles = circuit.init(jax.random.key(1), 6, how="uniform")
    for scheme, word in (("sweep", "exact"), ("parallel", "estimated")):
        found = discarded_weights(Truncated(circuit, 2, scheme=scheme), angles)
        assert found["discarded_weight_is"] == word
        assert found["discarded_weight"] > 0
