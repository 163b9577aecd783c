"""Energies of truncated and free states: every kernel against brute force and each other."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hypercircuit.circuit import Brickwork, FreeMPS, Truncated
from hypercircuit.energy import (
    MPO,
    Contraction,
    Cumulant,
    Exact,
    Sampled,
    Statevector,
)
from hypercircuit.energy.linear import linear_outputs
from hypercircuit.energy.site_moments import swept_cumulants
from hypercircuit.energy.site_operators import site_expectations, site_operators
from hypercircuit.energy.site_scan import in_groups, segmented_scan
from hypercircuit.hamiltonian import DiagonalMPO, compile_loss
from hypercircuit.state import prepare_state
from hypercircuit.study import diagnose, diagnostics
from problems import PROBLEMS

N = 9
#: Operators of unequal length; the last one spans the chain.
RUNS = ((0, 4), (4, 4), (3, 3), (1, 8), (8, 1), (0, 9))


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def random_operator(rng: np.random.Generator, n_sites: int, bond: int = 3) -> DiagonalMPO:
    bonds = [1, *(min(bond, 2**k, 2 ** (n_sites - k)) for k in range(1, n_sites)), 1]
    shapes = itertools.pairwise(bonds)
    return DiagonalMPO(tuple(rng.normal(size=(left, 2, right)) for left, right in shapes))


def chances(ansatz, params) -> np.ndarray:
    return np.abs(np.asarray(prepare_state(ansatz, params).to_statevector())) ** 2


def compiled(name: str):
    problem = PROBLEMS[name]
    return compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-3)


def uniform(ansatz, n: int, dtype: type = np.float64) -> jax.Array:
    return ansatz.init(jax.random.key(n), n, how="uniform", dtype=dtype)


def slope(function, params, *, step: float = 1e-5) -> tuple[float, float]:
    """The derivative along a direction by the gradient and by finite differences."""
    direction = np.random.default_rng(1).normal(size=params.shape)
    ahead, behind = (function(params + s * direction)[0] for s in (step, -step))
    return float((function(params)[1] * direction).sum()), float((ahead - behind) / (2 * step))


# ---------------------------------------------------------------- operators


@pytest.mark.parametrize("real", [pytest.param(True, marks=pytest.mark.slow), False])
def test_operators_equal_the_statevector_and_finite_differences(real: bool):
    rng = np.random.default_rng(0)
    parts = [(start, random_operator(rng, length)) for start, length in RUNS]
    operators = site_operators(parts, 5, np.dtype(np.float64))
    ansatz = FreeMPS(5, real=real)
    params = uniform(ansatz, N)

    def value(p):
        mps = prepare_state(ansatz, p)
        return sum(site_expectations(mps, each).sum() for each in operators)

    table = chances(ansatz, params)
    expected = sum(
        table.reshape(2**start, 2**mpo.n_sites, -1).sum((0, 2)) @ mpo.diagonal()
        for start, mpo in parts
    )
    function = jax.jit(jax.value_and_grad(value))
    np.testing.assert_allclose(function(params)[0], expected, rtol=1e-11)
    np.testing.assert_allclose(*slope(function, params), rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_operators_stay_finite_where_their_factors_do_not(factor: float):
    rng = np.random.default_rng(0)
    tensors = [rng.uniform(0.5, 1.5, (1, 2, 1)) * factor for _ in range(400)]
    tensors[::2] = [tensor / factor**2 for tensor in tensors[::2]]
    order = np.argsort([tensor.max() for tensor in tensors], kind="stable")
    mpo = DiagonalMPO(tuple(tensors[k] for k in order))
    (operators,) = site_operators([(0, mpo)], 1, np.dtype(np.float64))
    ansatz = FreeMPS(1)
    params = uniform(ansatz, 400)
    found, gradient = jax.value_and_grad(
        lambda p: site_expectations(prepare_state(ansatz, p), operators).sum()
    )(params)
    ones = np.abs(np.asarray(ansatz.tensors(params))[:, 0, 1, 0]) ** 2
    means = [t[0, 0, 0] * (1 - p) + t[0, 1, 0] * p for t, p in zip(mpo.tensors, ones, strict=True)]
    np.testing.assert_allclose(found, np.exp(np.log(means).sum()), rtol=1e-9)
    assert jnp.isfinite(gradient).all()


# ---------------------------------------------------------------- product terms

#: One loss of every form: all outputs together, additive, pairs of outputs, quadratic, sectors.
FORMS = ("softmax-reversed", "one-vs-rest", "squared-two")
SLOW = (
    "logistic-halves",
    "zero-one-three",
    "pairwise",
    "softmax-choices-reversed",
    "encoding-choice",
    "encoding-choice-reversed",
    "squared-choice",
    "softmax-sparse-odd",
)


@pytest.mark.parametrize("name", [*FORMS, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_exact_energies_equal_brute_force(name: str):
    hamiltonian, problem = compiled(name), PROBLEMS[name]
    ansatz = FreeMPS(3)
    params = uniform(ansatz, hamiltonian.n_qubits)
    table = chances(ansatz, params)
    energy = Exact().prepare(
        hamiltonian, ansatz, batch_size=hamiltonian.n_examples, dtype=np.float64
    )
    batch = energy.batch(np.arange(hamiltonian.n_examples))
    function = jax.jit(jax.value_and_grad(lambda p: energy(p, batch)))
    found = function(params)[0]
    np.testing.assert_allclose(found, table @ hamiltonian.diagonal(), atol=1e-11)
    assert abs(found - table @ problem.diagonal) <= hamiltonian.spectral_error + 1e-12
    np.testing.assert_allclose(*slope(function, params), rtol=1e-6, atol=1e-9)


def test_every_kind_of_energy_agrees():
    hamiltonian = compiled("one-vs-rest")
    ansatz, n = FreeMPS(4), hamiltonian.n_examples
    params = uniform(ansatz, hamiltonian.n_qubits)
    expected = chances(ansatz, params) @ hamiltonian.diagonal()

    def prepared(kind):
        return kind.prepare(hamiltonian, ansatz, batch_size=n, dtype=np.float64)

    whole = prepared(Statevector())
    np.testing.assert_allclose(whole(params, whole.whole()), expected, atol=1e-12)
    mpo = prepared(MPO(max_bond=64))
    mpo.compress(mpo.metric(params))
    np.testing.assert_allclose(mpo(params, mpo.whole()), expected, atol=1e-10)
    sampled = prepared(Sampled(2000))
    found = sampled.estimate(params, sampled.batch(np.arange(n)))
    assert abs(found.value - expected) < 4 * found.standard_error
    cumulant = prepared(Cumulant(2))
    error = jax.jit(cumulant)(params, cumulant.batch(np.arange(n))) - expected
    assert 0 < abs(error) < 0.01


def test_cumulants_know_correlations_of_any_distance():
    hamiltonian = compiled("one-vs-rest")
    ansatz = FreeMPS(4)
    params = uniform(ansatz, hamiltonian.n_qubits)
    outputs = linear_outputs(hamiltonian)
    x = hamiltonian.inputs(np.arange(hamiltonian.n_examples))
    mean, variance = swept_cumulants(outputs, prepare_state(ansatz, params), jnp.asarray(x))
    network, table = hamiltonian.network, chances(ansatz, params)
    bits = (np.arange(len(table))[:, None] >> np.arange(network.n_qubits)[::-1] & 1).astype(
        np.uint8
    )
    logits = network.logits(bits, hamiltonian.data.x.astype(np.float64))
    expected = np.einsum("w,wno->no", table, logits)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    second = np.einsum("w,wno->no", table, (logits - expected) ** 2)
    np.testing.assert_allclose(variance, second, atol=1e-6)


# ---------------------------------------------------------------- truncated states


@pytest.mark.parametrize(("depth", "bond"), [(5, 4), pytest.param(7, 3, marks=pytest.mark.slow)])
def test_truncated_energies_are_within_their_reported_error(depth: int, bond: int):
    hamiltonian = compiled("logistic-halves")
    ansatz = Truncated(Brickwork(depth), bond)
    params = uniform(ansatz, hamiltonian.n_qubits)
    numbers = diagnose(hamiltonian, ansatz, params).numbers
    exact = chances(Brickwork(depth), params) @ hamiltonian.diagonal()
    own = chances(ansatz, params) @ hamiltonian.diagonal()
    np.testing.assert_allclose(numbers["energy_at_max_bond"], own, atol=1e-11)
    np.testing.assert_allclose(numbers["energy_exact"], exact, atol=1e-11)
    assert abs(own - exact) <= numbers["energy_error"] + 1e-12
    if bond >= ansatz.circuit.max_bond:
        assert numbers["discarded_weight"] < 1e-12
        np.testing.assert_allclose(numbers["log_overlap_with_exact"], 0, atol=1e-10)
    else:
        assert numbers["discarded_weight"] > 1e-3
        assert numbers["log_overlap_with_exact"] < -1e-3


@pytest.mark.slow
def test_error_from_twice_the_bond_covers_that_of_the_exact_state(monkeypatch):
    """The estimate for circuits too deep for their exact state; nothing guarantees it."""
    monkeypatch.setattr(diagnostics, "_EXACT_BOND", 0)
    monkeypatch.setattr(diagnostics, "_EXACT_QUBITS", 0)
    hamiltonian = compiled("logistic-halves")
    ansatz = Truncated(Brickwork(5), 2)
    params = uniform(ansatz, hamiltonian.n_qubits)
    numbers = diagnose(hamiltonian, ansatz, params).numbers
    assert numbers["energy_error_from"] == "twice the difference from twice the bond dimension"
    assert "energy_exact" not in numbers
    exact = chances(Brickwork(5), params) @ hamiltonian.diagonal()
    difference = abs(numbers["energy_at_max_bond"] - exact)
    assert 1e-4 < difference <= numbers["energy_error"] < 10 * difference


@pytest.mark.parametrize("exact_bond", [8, 0])
def test_error_on_some_examples_is_one_for_all(exact_bond: int, monkeypatch):
    """The difference of some examples alone is not: this draw of them misses the energy of all."""
    monkeypatch.setattr(diagnostics, "_EXACT_BOND", exact_bond)
    monkeypatch.setattr(diagnostics, "_EXACT_QUBITS", 0)
    problem = dataclasses.replace(PROBLEMS["logistic-halves"], n_examples=40)
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-3)
    circuit = Brickwork(5)
    ansatz = Truncated(circuit, 2)
    params = uniform(ansatz, hamiltonian.n_qubits)
    numbers = diagnose(hamiltonian, ansatz, params, n_examples=8, seed=2).numbers
    assert (numbers["compared_examples"], numbers["energy_error_examples"]) == (8, 40)
    diagonal = hamiltonian.diagonal()
    difference = abs((chances(ansatz, params) - chances(circuit, params)) @ diagonal)
    rows = np.sort(np.random.default_rng(2).permutation(40)[:8])
    better = circuit if exact_bond else Truncated(circuit, 4)
    change = chances(ansatz, params) - chances(better, params)
    each = [change @ hamiltonian.subset(rows[i : i + 1]).diagonal() for i in range(8)]
    factor = 1 if exact_bond else 2
    error = np.std(each, ddof=1) / np.sqrt(8)
    assert numbers["difference_standard_error"] == pytest.approx(error)
    assert numbers["energy_error_from"].endswith(" and three standard errors over examples")
    shown = factor * abs(np.mean(each))
    assert numbers["energy_error"] == pytest.approx(shown + factor * 3 * error)
    assert difference <= numbers["energy_error"]
    if exact_bond:
        assert shown < difference


def test_error_of_a_deep_circuit_is_found_by_enumeration():
    """The exact bond is 16, and few examples miss the energy of all: every network is evaluated."""
    problem = dataclasses.replace(PROBLEMS["one-vs-rest"], n_examples=20)
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-3)
    circuit = Brickwork(8)
    ansatz = Truncated(circuit, 2)
    params = uniform(ansatz, hamiltonian.n_qubits)
    numbers = diagnose(hamiltonian, ansatz, params, n_examples=3).numbers
    exact, own = (chances(each, params) @ hamiltonian.diagonal() for each in (circuit, ansatz))
    np.testing.assert_allclose(numbers["energy_of_all"], own, atol=1e-10)
    np.testing.assert_allclose(numbers["energy_of_all_exact"], exact, atol=1e-10)
    np.testing.assert_allclose(numbers["energy_error"], abs(own - exact), atol=1e-10)
    assert numbers["energy_error"] > 1e-3
    assert numbers["energy_error_from"] == "the exact state, all networks enumerated"
    assert numbers["difference_standard_error"] == 0


def test_error_is_never_below_rounding():
    hamiltonian = compiled("logistic-halves")
    ansatz = Truncated(Brickwork(2), 4)
    params = uniform(ansatz, hamiltonian.n_qubits)
    numbers = diagnose(hamiltonian, ansatz, params, n_examples=1).numbers
    assert numbers["compared_examples"] == 2
    whole = diagnose(hamiltonian, ansatz, params).numbers
    assert whole["difference_standard_error"] == 0
    assert whole["energy_error_from"] == "the exact state, all networks enumerated"
    least = 8 * np.finfo(np.float64).eps * abs(whole["energy_of_all"])
    assert least <= whole["energy_error"] < 1e3 * least


# ---------------------------------------------------------------- refusals and helpers


def test_what_these_states_do_not_evaluate_is_refused():
    with refuses("takes exact states (Brickwork), got FreeMPS; for states of bounded bond use"):
        Contraction().prepare(compiled("one-vs-rest"), FreeMPS(2), batch_size=2)
    with refuses("order must be 2 for a FreeMPS state, got 4"):
        Cumulant(4).prepare(compiled("one-vs-rest"), FreeMPS(2), batch_size=2)
    with refuses("max_bond must be at least 1, got 0"):
        Truncated(Brickwork(3), 0)
    with refuses("cutoff must be from 0 to below 1, got 1.0"):
        Truncated(Brickwork(3), 2, 1.0)
    with refuses("scheme must be one of sweep, parallel, got 'zip'"):
        Truncated(Brickwork(3), 2, 0.0, "zip")


@pytest.mark.parametrize("length", [1, 4, 7])
def test_a_segmented_scan_is_a_scan(length: int):
    xs = jnp.linspace(0.5, 1.5, length)

    def both(xs):
        found = segmented_scan(lambda c, x: (jnp.sin(c) * x + 1, None), jnp.ones(()), xs)
        return found

    carry = 1.0
    for x in np.asarray(xs):
        carry = np.sin(carry) * x + 1
    np.testing.assert_allclose(both(xs), carry, rtol=1e-12)
    ahead, behind = both(xs + 1e-6), both(xs - 1e-6)
    np.testing.assert_allclose(jax.grad(both)(xs).sum(), (ahead - behind) / 2e-6, rtol=1e-6)


def test_items_in_groups_are_all_items():
    items = jnp.arange(10.0).reshape(5, 2)
    found = in_groups(lambda each: each**2, 2**23, items)
    np.testing.assert_array_equal(found, items**2)
