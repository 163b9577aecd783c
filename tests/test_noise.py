"""Noisy circuits, exact and by trajectories, against density matrices in plain NumPy."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.bnn import Dense, Network, neuron_gates
from hypercircuit.circuit import Brickwork, Noise, Noisy, Truncated
from hypercircuit.energy import Contraction, Exact, Sampled, Statevector, trajectory_energy
from hypercircuit.hamiltonian import LOSSES, compile_loss
from hypercircuit.state import (
    condition,
    correlations,
    exact_mps,
    log_probability,
    marginals,
    most_likely,
    prepare_state,
    sample,
    trajectory_mps,
)
from problems import PROBLEMS, Problem

#: Depth, qubits, rotations and the probabilities of errors, all different.
CASES = {
    "product": (1, 3, "ry-rz", (0.11, 0.2, 0.03)),
    "pairs": (2, 5, "ry-rz", (0.07, 0.23, 0.0)),
    "three": (3, 6, "ry-rz", (0.04, 0.3, 0.08)),
    "real": (4, 5, "ry", (0.09, 0.17, 0.02)),
    "no-cx-errors": (4, 5, "ry-rz", (0.12, 0.0, 0.05)),
    "real-no-cx-errors": (3, 4, "ry", (0.12, 0.0, 0.0)),
    "two-bonds": (5, 5, "ry-rz", (0.02, 0.12, 0.01)),
    "two-bonds-real": (6, 6, "ry", (0.02, 0.05, 0.0)),
    "one-qubit": (3, 1, "ry-rz", (0.1, 0.2, 0.1)),
}

SMALL = Problem("logistic", 1, 4, encoding=(-3.0, 1.0), order="class-reversed")


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def case(name: str):
    depth, n_qubits, rotations, rates = CASES[name]
    circuit = Brickwork(depth, rotations)
    params = circuit.init(jax.random.key(depth), n_qubits, how="uniform", dtype=np.float64)
    return Noisy(circuit, Noise(*rates)), params


def layers(circuit, n_qubits: int):
    """The published pairs, without those of layer 1."""
    return [
        [(site, site + 1) for site in range(number % 2, n_qubits - 1, 2)] if number > 1 else []
        for number in range(1, circuit.depth + 1)
    ]


def oracle(noisy: Noisy, params) -> np.ndarray:
    noise = noisy.noise
    pairs = layers(noisy, params.shape[1])
    return oracles.noisy_probabilities(
        params, pairs, noise.one_qubit, noise.two_qubit, noise.readout
    )


prepare = eqx.filter_jit(exact_mps)


def probabilities(mps) -> np.ndarray:
    bits = oracles.bits_table(mps.n_qubits)
    return np.exp(log_probability(mps, jnp.asarray(bits)))


# ---------------------------------------------------------------- the exact state


@pytest.mark.parametrize("name", CASES)
def test_distribution_is_the_density_matrix_diagonal(name: str):
    noisy, params = case(name)
    mps = prepare(noisy, params)
    expected = oracle(noisy, params)
    np.testing.assert_allclose(probabilities(mps), expected, rtol=0, atol=1e-12)
    assert mps.maps.shape[-1] == noisy.doubled_bond


@pytest.mark.parametrize("name", ["three", "two-bonds", "two-bonds-real", "no-cx-errors"])
def test_traced_ends_are_exact_at_every_cut(name: str):
    """The vectors from light cones are those of a sweep over the whole chain."""
    noisy, _ = case(name)
    params = noisy.init(jax.random.key(2), 13, how="uniform", dtype=np.float64)
    mps = prepare(noisy, params)
    left, right = [mps.left[0]], [mps.right[-1]]
    traced = mps.maps.sum(1)
    for cell in range(len(traced)):
        left.append(left[-1] @ traced[cell])
        right.append(traced[-1 - cell] @ right[-1])
    np.testing.assert_allclose(mps.left, jnp.stack(left), rtol=0, atol=1e-12)
    np.testing.assert_allclose(mps.right, jnp.stack(right[::-1]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(jnp.einsum("nx,nx->n", mps.left, mps.right), 1, atol=1e-12)


def test_moments_are_those_of_the_distribution():
    noisy, params = case("three")
    mps = prepare(noisy, params)
    table = oracle(noisy, params)
    values = 1.0 - 2 * oracles.bits_table(mps.n_qubits)
    np.testing.assert_allclose(jax.jit(marginals)(mps), table @ values, rtol=0, atol=1e-12)
    covariance = np.einsum("w,wi,wj->ij", table, values, values)
    covariance -= np.outer(table @ values, table @ values)
    found = jax.jit(correlations)(mps)
    for distance, row in enumerate(np.asarray(found)):
        expected = np.diagonal(covariance, distance)
        np.testing.assert_allclose(row[distance:], expected, rtol=0, atol=1e-12)


def test_conditioned_state():
    noisy, params = case("three")
    mps = prepare(noisy, params)
    table = oracle(noisy, params).reshape((2,) * 6)
    weight, after = condition(mps, (0, 1), (1, 0))
    np.testing.assert_allclose(weight, table[1, 0].sum(), rtol=0, atol=1e-12)
    found = probabilities(after).reshape((2,) * 6)
    np.testing.assert_allclose(found[1, 0], table[1, 0] / table[1, 0].sum(), rtol=0, atol=1e-12)


def test_samples_and_the_likeliest_network():
    noisy, params = case("two-bonds")
    mps, table = prepare(noisy, params), oracle(noisy, params)
    bits, logs = sample(mps, jax.random.key(3), 4000)
    codes = np.asarray(bits) @ (2 ** np.arange(5)[::-1])
    np.testing.assert_allclose(np.exp(logs), table[codes], rtol=1e-10)
    counts = np.bincount(codes, minlength=32)
    error = np.sqrt(4000 * table * (1 - table))
    assert np.abs((counts - 4000 * table) / error).max() < 4.5
    best, _ = most_likely(mps, 32)
    assert best[0] @ (2 ** np.arange(5)[::-1]) == table.argmax()


# ---------------------------------------------------------------- limits and rates


@pytest.mark.parametrize("rotations", ["ry-rz", "ry"])
def test_without_errors_it_is_the_pure_state(rotations: str):
    circuit = Brickwork(5, rotations)
    params = circuit.init(jax.random.key(1), 7, how="uniform", dtype=np.float64)
    noisy = Noisy(circuit, Noise())
    assert noisy.doubled_bond == circuit.doubled_bond
    mixed, pure = prepare(noisy, params), prepare(circuit, params)
    np.testing.assert_allclose(probabilities(mixed), probabilities(pure), rtol=0, atol=1e-13)


@pytest.mark.parametrize("rates", [(0.75, 0.0, 0.0), (0.0, 0.0, 0.5), (0.75, 15 / 16, 0.2)])
def test_complete_depolarisation_is_uniform(rates: tuple[float, float, float]):
    circuit = Brickwork(4)
    params = circuit.init(jax.random.key(1), 5, how="uniform", dtype=np.float64)
    found = probabilities(prepare(Noisy(circuit, Noise(*rates)), params))
    np.testing.assert_allclose(found, 1 / 32, rtol=0, atol=1e-14)


def test_pauli_rates_in_numbers():
    """A surely 1 bit after one failing Ry is 0 with probability 2 q / 3: X and Y flip it."""
    circuit = Brickwork(1, "ry")
    params = jnp.full((1, 1, 1), np.pi)
    mps = exact_mps(Noisy(circuit, Noise(0.3)), params)
    np.testing.assert_allclose(probabilities(mps), [0.2, 0.8], rtol=0, atol=1e-14)


@pytest.mark.parametrize("which", ["one_qubit", "two_qubit", "readout"])
def test_distance_from_the_pure_state_grows_with_slope_one(which: str):
    circuit = Brickwork(4)
    params = circuit.init(jax.random.key(6), 5, how="uniform", dtype=np.float64)
    pure = probabilities(prepare(circuit, params))
    rates = np.array([1e-5, 1e-4, 1e-3])
    mixed = [prepare(Noisy(circuit, Noise(**{which: jnp.asarray(r)})), params) for r in rates]
    distances = [np.abs(probabilities(each) - pure) for each in mixed]
    slopes = np.diff(np.log([each.sum() for each in distances])) / np.diff(np.log(rates))
    np.testing.assert_allclose(slopes, 1, atol=0.01)


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
def test_gradients_against_finite_differences(dtype: type):
    noisy, params = case("three")
    values = jnp.asarray(np.random.default_rng(0).normal(size=64))
    bits = jnp.asarray(oracles.bits_table(6))

    def energy(params, rates):
        mps = exact_mps(Noisy(noisy.circuit, Noise(*rates)), params)
        return jnp.exp(log_probability(mps, bits)) @ values.astype(params.dtype)

    rates = jnp.asarray(CASES["three"][3])
    gradient = jax.jit(jax.grad(energy, argnums=(0, 1)))
    by_angles, by_rates = gradient(params.astype(dtype), rates.astype(dtype))
    atol = 1e-8 if dtype == np.float64 else 2e-5
    reference = jax.jit(energy)

    def of_angles(flat):
        return float(reference(jnp.asarray(flat).reshape(params.shape), rates))

    def of_rates(flat):
        return float(reference(params, jnp.asarray(flat)))

    expected = oracles.finite_difference_gradient(of_angles, np.asarray(params).ravel(), 1e-5)
    np.testing.assert_allclose(by_angles.ravel(), expected, rtol=0, atol=atol)
    expected = oracles.finite_difference_gradient(of_rates, np.asarray(rates), 1e-6)
    np.testing.assert_allclose(by_rates, expected, rtol=0, atol=atol)


# ---------------------------------------------------------------- trajectories


@pytest.mark.parametrize("rotations", ["ry-rz", pytest.param("ry", marks=pytest.mark.slow)])
def test_trajectories_average_to_the_density_matrix(rotations: str):
    """Every probability within 4.5 standard errors of the exact one, fixed keys."""
    circuit, n = Brickwork(3, rotations), 4000
    noisy = Noisy(circuit, Noise(0.03, 0.2, 0.02))
    params = circuit.init(jax.random.key(4), 4, how="uniform", dtype=np.float64)
    table = oracle(noisy, params)

    @jax.jit
    def born(key):
        return jnp.abs(trajectory_mps(noisy, params, key).to_statevector()) ** 2

    keys = jax.random.split(jax.random.key(9), n)
    found = np.asarray(jax.lax.map(born, keys, batch_size=500))
    np.testing.assert_allclose(found.sum(1), 1, rtol=0, atol=1e-12)
    error = found.std(0, ddof=1) / np.sqrt(n)
    assert np.abs((found.mean(0) - table) / error).max() < 4.5
    # A single rate less would be seen.
    fewer = oracle(Noisy(circuit, Noise(0.03, 0.1, 0.02)), params)
    assert np.abs((found.mean(0) - fewer) / error).max() > 4.5


def test_trajectory_without_errors_is_the_state():
    circuit = Brickwork(3)
    params = circuit.init(jax.random.key(4), 3, how="uniform", dtype=np.float64)
    run = jax.jit(lambda key: trajectory_mps(Noisy(circuit, Noise()), params, key).to_statevector())
    expected = oracles.brickwork_statevector(params)
    np.testing.assert_allclose(run(jax.random.key(0)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "kind", [Statevector(), pytest.param(Exact(), marks=pytest.mark.slow)], ids=["all", "terms"]
)
def test_energies_of_noisy_chains(kind):
    """The exact energy is the oracle's, and that of trajectories agrees within its error."""
    problem = SMALL
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-9)
    circuit = Brickwork(3)
    n_qubits, n_examples = hamiltonian.n_qubits, hamiltonian.n_examples
    noisy = Noisy(circuit, Noise(0.05, 0.1, 0.02))
    params = circuit.init(jax.random.key(1), n_qubits, how="uniform", dtype=np.float64)
    pairs = layers(circuit, n_qubits)
    expected = oracles.noisy_probabilities(params, pairs, 0.05, 0.1, 0.02) @ problem.diagonal
    prepared = kind.prepare(hamiltonian, noisy, batch_size=n_examples, dtype=np.float64)
    batch = prepared.batch(np.arange(n_examples))
    assert abs(float(jax.jit(prepared)(params, batch)) - expected) < 1e-7
    pure = kind.prepare(hamiltonian, circuit, batch_size=n_examples, dtype=np.float64)
    found = trajectory_energy(pure, noisy, params, jax.random.key(2), 600, at_once=100)
    assert abs(float(found.value) - expected) < 4.5 * float(found.standard_error)
    assert abs(float(jax.jit(pure)(params, batch)) - expected) > 4.5 * float(found.standard_error)


@pytest.mark.slow
def test_truncated_trajectories():
    """Without truncation they are the exact ones; with it, those of the truncated engine."""
    problem = SMALL
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-9)
    circuit, key = Brickwork(5), jax.random.key(2)
    n_qubits, n_examples = hamiltonian.n_qubits, hamiltonian.n_examples
    noisy = Noisy(circuit, Noise(0.2, 0.3, 0.1))
    params = circuit.init(jax.random.key(1), n_qubits, how="uniform", dtype=np.float64)
    kept, cut = (
        jax.jit(lambda key, bond=bond: trajectory_mps(noisy, params, key, Truncated(circuit, bond)))
        for bond in (4, 2)
    )
    exact = np.abs(trajectory_mps(noisy, params, key).to_statevector()) ** 2
    assert np.abs(exact - np.abs(prepare_state(circuit, params).to_statevector()) ** 2).max() > 0.01
    np.testing.assert_allclose(np.abs(kept(key).to_statevector()) ** 2, exact, rtol=0, atol=1e-12)
    pure = Exact().prepare(
        hamiltonian, Truncated(circuit, 2), batch_size=n_examples, dtype=np.float64
    )
    found = trajectory_energy(pure, noisy, params, key, 5, at_once=3)
    states = [np.abs(cut(own).to_statevector()) ** 2 for own in jax.random.split(key, 5)]
    each = np.array(states) @ hamiltonian.diagonal()
    np.testing.assert_allclose(found.value, each.mean(), rtol=0, atol=1e-10)
    assert all(state.discarded.max() > 1e-3 for state in map(cut, jax.random.split(key, 2)))
    other = Exact().prepare(hamiltonian, Truncated(Brickwork(4), 2), batch_size=n_examples)
    with refuses("prepare it for the circuit without noise"):
        trajectory_energy(other, noisy, params, key, 5)


# ---------------------------------------------------------------- exact energies of every kind

HIDDEN = Network((Dense(2, 2), Dense(2, 1)), activation="tanh", choices=(neuron_gates(),))
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "depth", "rotations"),
    [
        pytest.param("softmax-sparse-odd", 3, "ry-rz", marks=slow),
        pytest.param("softmax-apart", 3, "ry", marks=slow),
        pytest.param("logistic-real", 4, "ry-rz", marks=slow),
        pytest.param("softmax-choices-reversed", 3, "ry-rz", marks=slow),
        ("logistic-gaps", 3, "ry"),
        pytest.param("hidden", 3, "ry-rz", marks=slow),
    ],
)
def test_exact_energy_and_gradient_of_terms(name: str, depth: int, rotations: str):
    """Against the loss of every network and the noisy distribution, with choices and layers."""
    if name == "hidden":
        network, loss, data = HIDDEN, LOSSES["logistic"](), PROBLEMS["squared-one"].data
        data = dataclasses.replace(data, x=data.x[:, :2], image_shape=None)
    else:
        problem = PROBLEMS[name]
        network, loss, data = problem.network, problem.loss_object, problem.data
    hamiltonian = compile_loss(network, data, loss, tolerance=1e-6)
    n_qubits, n_examples = hamiltonian.n_qubits, hamiltonian.n_examples
    noisy = Noisy(Brickwork(depth, rotations), Noise(0.05, 0.1, 0.02))
    params = noisy.init(jax.random.key(1), n_qubits, how="uniform", dtype=np.float64)
    table = probabilities(prepare(noisy, params))
    prepared = Exact().prepare(hamiltonian, noisy, batch_size=n_examples, dtype=np.float64)
    batch = prepared.batch(np.arange(n_examples))
    value, gradient = jax.jit(jax.value_and_grad(prepared))(params, batch)
    assert abs(float(value) - table @ hamiltonian.diagonal()) < 1e-11
    step, at = 1e-5, (0, 2, 0)
    ends = [jax.jit(prepared)(params.at[at].add(sign * step), batch) for sign in (1, -1)]
    assert abs(float(gradient[at]) - float(ends[0] - ends[1]) / (2 * step)) < 1e-8


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"one_qubit": -0.1}, "one_qubit is a probability from 0 to 1, got -0.1"),
        ({"two_qubit": 1.5}, "two_qubit is a probability from 0 to 1, got 1.5"),
        ({"readout": 0.6}, "readout is a probability from 0 to 0.5, got 0.6"),
    ],
)
def test_rates_out_of_range_are_refused(arguments: dict, message: str):
    with refuses(message):
        Noise(**arguments)


def test_published_rates():
    noise = Noise.published(2.0, readout=0.01)
    assert (noise.one_qubit, noise.two_qubit, noise.readout) == (0.002, 0.0075, 0.01)
    with refuses("multiplier must be at least 0, got -1"):
        Noise.published(-1.0)


def test_deep_circuits_are_refused_with_the_cost():
    noisy = Noisy(Brickwork(12), Noise.published())
    with refuses("has a doubled bond of 3125 and takes"):
        exact_mps(noisy, noisy.init(jax.random.key(0), 17))


def test_mixed_state_has_no_amplitudes():
    noisy, params = case("pairs")
    mps = prepare(noisy, params)
    with refuses("the mixed state of a noisy circuit has no amplitudes"):
        mps.to_statevector()
    with refuses("the mixed state of a noisy circuit has no amplitudes"):
        mps.to_quimb()


def test_trajectory_energies_that_cannot_be_are_refused():
    problem = SMALL
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    circuit = Brickwork(2)
    params = circuit.init(jax.random.key(1), hamiltonian.n_qubits)
    size = {"batch_size": hamiltonian.n_examples, "dtype": np.float32}
    key, noisy = jax.random.key(0), Noisy(circuit, Noise(0.1))
    prepared = Exact().prepare(hamiltonian, circuit, **size)
    with refuses("n_trajectories must be at least 2, got 1"):
        trajectory_energy(prepared, noisy, params, key, 1)
    with refuses("trajectories need an energy without samples"):
        trajectory_energy(Sampled().prepare(hamiltonian, circuit, **size), noisy, params, key)
    with refuses("prepare it for the circuit without noise"):
        trajectory_energy(Exact().prepare(hamiltonian, noisy, **size), noisy, params, key)
    with refuses("contractions have no errors of gates"):
        Contraction().prepare(hamiltonian, noisy, **size)
