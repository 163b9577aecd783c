"""The cumulant energy: exact cumulants, and an error that falls as theory says."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.bnn import Dense, Network
from hypercircuit.circuit import Brickwork
from hypercircuit.data import Dataset
from hypercircuit.energy import Cumulant
from hypercircuit.energy.cumulant import CumulantEnergy
from hypercircuit.energy.exact import QuadraticEnergy
from hypercircuit.energy.linear import linear_outputs
from hypercircuit.hamiltonian import LOSSES, LossHamiltonian, NoTerms, compile_loss
from hypercircuit.state import exact_mps
from problems import Problem

# Odd and even blocks, both orders, blocks that end inside a cell, encodings without symmetry.
CASES = {
    "product": (1, Problem("softmax", 3, 3, encoding=(-3.0, 1.0))),
    "reversed": (2, Problem("softmax", 4, 2, order="class-reversed", bias=False)),
    "entangled": (4, Problem("softmax", 3, 3, encoding=(0.5, -1.0), interval=(-1.4, 1.6))),
    "entangled-reversed": (4, Problem("softmax", 2, 5, order="class-reversed", bias=False)),
}


def random_angles(depth: int, n_qubits: int, dtype=jnp.float64) -> jax.Array:
    key = jax.random.key(17 * depth + n_qubits)
    return Brickwork(depth).init(key, n_qubits, how="uniform", dtype=dtype)


@functools.cache
def born(depth: int, n_qubits: int) -> np.ndarray:
    return oracles.born_probabilities(oracles.brickwork_statevector(random_angles(depth, n_qubits)))


def all_logits(problem: Problem) -> np.ndarray:
    """The logits of every network by brute force, (2^N, n_examples, n_outputs)."""
    bits = oracles.bits_table(problem.network.n_qubits)
    ordered = bits if problem.order == "class" else bits[:, ::-1]
    return oracles.linear_logits(
        ordered, problem.data.x, problem.n_outputs, *problem.encoding, problem.scale, problem.bias
    )


@eqx.filter_jit
def logit_cumulants(outputs, circuit, params, x, order):
    return outputs.cumulants(exact_mps(circuit, params), x, order)


def prepare(problem: Problem, depth: int, kind: Cumulant, *, batch_size=None, dtype=np.float64):
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    size = batch_size or problem.n_examples
    return kind.prepare(hamiltonian, Brickwork(depth), batch_size=size, dtype=dtype)


# ---------------------------------------------------------------- cumulants


@pytest.mark.parametrize("name", CASES)
def test_cumulants_equal_those_over_all_networks(name: str):
    depth, problem = CASES[name]
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    n_qubits = hamiltonian.n_qubits
    x = jnp.asarray(hamiltonian.inputs(np.arange(problem.n_examples)))
    found = logit_cumulants(
        linear_outputs(hamiltonian), Brickwork(depth), random_angles(depth, n_qubits), x, 4
    )
    values = np.moveaxis(all_logits(problem), 0, -1)
    for order, cumulant in enumerate(found, start=1):
        expected = oracles.joint_cumulant(born(depth, n_qubits), values, order)
        assert np.abs(expected).max() > 1e-2, "the case is too simple to tell anything"
        np.testing.assert_allclose(cumulant, expected, rtol=0, atol=1e-6 * 10 ** (order / 4))


# ---------------------------------------------------------------- the energy's error


def distribution(probabilities: np.ndarray) -> np.ndarray:
    """How probable each number of ones is for independent bits, by convolution."""
    counts = np.ones(1)
    for p in probabilities:
        counts = np.convolve(counts, [1 - p, p])
    return counts


def binary_problem(n_inputs: int, n_outputs: int, n_examples: int, scale: float, *, full: bool):
    """Images of zeros and ones (`full`: of ones), a linear network of +-1 weights."""
    rng = np.random.default_rng(n_inputs)
    x = np.ones((n_examples, n_inputs), np.float32)
    if not full:
        x = (rng.random(x.shape) < 0.7).astype(np.float32)
    n_classes = max(2, n_outputs)
    y = (np.arange(n_examples) ** 2 % n_classes).astype(np.int32)
    data = Dataset(x, y, n_classes, None, 1.0, "binary")
    return data, Network((Dense(n_inputs, n_outputs, bias=False),), logit_scale=scale)


def product_energies(ones: np.ndarray, data: Dataset, scale: float) -> np.ndarray:
    """Every example's energy of a product state of +-1 weights, exactly: (n_examples,).

    Args:
        ones: the probability of bit 1, shape (n_outputs, n_inputs).
    """
    energies = []
    for x, y in zip(data.x, data.y, strict=True):
        lit = x == 1
        weights = [distribution(row[lit]) for row in ones]
        logits = scale * (2 * np.arange(lit.sum() + 1) - lit.sum())
        if len(ones) == 1:
            energies.append(weights[0] @ np.logaddexp(0, (1 - 2 * y) * logits))
            continue
        joint = functools.reduce(np.multiply.outer, weights)
        log_sum = functools.reduce(np.logaddexp.outer, [logits] * len(ones))
        energies.append((joint * log_sum).sum() - weights[y] @ logits)
    return np.array(energies)


def product_angles(ones: np.ndarray) -> jax.Array:
    theta = 2 * np.arcsin(np.sqrt(ones.reshape(-1)))
    return jnp.asarray(np.stack([theta, 0.3 + theta], axis=1)[None])


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_order_four_is_far_more_accurate_than_order_two(n_outputs: int):
    """A product state of many inputs, neither near its start nor decided."""
    data, network = binary_problem(60, n_outputs, 6, 0.3, full=False)
    ones = np.random.default_rng(1).beta(1.5, 1.0, (n_outputs, 60))
    expected = product_energies(ones, data, 0.3)
    loss = Problem("softmax" if n_outputs > 1 else "logistic", n_outputs, 60).loss_object
    hamiltonian = compile_loss(network, data, loss)
    errors = {}
    for order in (2, 4):
        energy = Cumulant(order).prepare(
            hamiltonian, Brickwork(1), batch_size=len(data), dtype=np.float64
        )
        batch = energy.batch(np.arange(len(data)))
        errors[order] = np.abs(energy.value_function()(product_angles(ones), batch) - expected)
    assert 1e-5 < errors[2].mean() < 5e-3
    assert errors[4].mean() < 0.1 * errors[2].mean()


@pytest.mark.parametrize(
    ("name", "n_outputs", "order", "atol"),
    [
        ("pairwise-logistic", 3, 2, 5e-3),
        ("zero-one", 1, 2, 1e-2),
        ("zero-one", 3, 2, 1e-2),
        pytest.param("zero-one", 1, 4, 2e-3, marks=pytest.mark.slow),
        pytest.param("zero-one", 3, 4, 4e-3, marks=pytest.mark.slow),
        pytest.param("pairwise-logistic", 3, 4, 1e-3, marks=pytest.mark.slow),
        pytest.param("hinge", 3, 4, 1e-2, marks=pytest.mark.slow),
        pytest.param("squared-hinge", 1, 2, 5e-2, marks=pytest.mark.slow),
    ],
)
def test_losses_of_lattices_are_close_to_those_of_product_states(
    name: str, n_outputs: int, order: int, atol: float
):
    """Ties of outputs, and outputs of exactly zero, are as frequent as they are."""
    data, network = binary_problem(60, n_outputs, 6, 0.3, full=False)
    ones = np.random.default_rng(1).beta(1.5, 1.0, (n_outputs, 60)) ** 0.8
    ones = np.clip(ones - 0.1, 0, 1)
    loss = LOSSES[name]()
    hamiltonian = LossHamiltonian(network, data, loss, NoTerms("only cumulants are tested"))
    expected = []
    for x, y in zip(data.x, data.y, strict=True):
        lit = x == 1
        weights = [distribution(row[lit]) for row in ones]
        values = 0.3 * (2.0 * np.arange(lit.sum() + 1) - lit.sum())
        joint = functools.reduce(np.multiply.outer, weights).reshape(-1)
        grid = np.stack(np.meshgrid(*[values] * n_outputs, indexing="ij"), axis=-1)
        logits = grid.reshape(-1, 1, n_outputs)
        oracle = oracles.LOSSES[name.replace("-", "_")]
        expected.append(joint @ oracle(logits, np.array([y])))
    kind = Cumulant(order, n_nodes=24)
    energy = kind.prepare(hamiltonian, Brickwork(1), batch_size=len(data), dtype=np.float64)
    batch = energy.batch(np.arange(len(data)))
    found = energy.value_function()(product_angles(ones), batch)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_errors_fall_as_one_and_two_powers_of_the_number_of_inputs():
    """Fair bits have no odd cumulants, so of unit variance order two errs by the fourth, which
    is 1/n, and order four by the sixth and the fourth squared, which are 1/n^2."""
    sizes = np.array([16, 32, 64])
    errors: dict[int, list[float]] = {2: [], 4: []}
    for n_inputs in sizes:
        scale = 1.5 / np.sqrt(n_inputs)
        data, network = binary_problem(int(n_inputs), 1, 2, float(scale), full=True)
        ones = np.full((1, n_inputs), 0.5)
        expected = product_energies(ones, data, scale)
        hamiltonian = compile_loss(network, data, Problem("logistic", 1, 1).loss_object)
        for order, found in errors.items():
            kind = Cumulant(order, n_nodes=60)
            energy = kind.prepare(hamiltonian, Brickwork(1), batch_size=2, dtype=np.float64)
            values = energy.value_function()(product_angles(ones), energy.batch(np.arange(2)))
            found.append(np.abs(values - expected).max())
    for order, rate in ((2, -1), (4, -2)):
        slope = np.polyfit(np.log(sizes), np.log(errors[order]), 1)[0]
        assert abs(slope - rate) < 0.15, (order, errors[order])


def test_weights_that_are_certain_give_the_loss_of_their_network():
    problem = Problem("softmax", 3, 3, interval=(-1.4, 1.6))
    energy = prepare(problem, 1, Cumulant(2))
    bits = np.array([1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1])
    angles = jnp.asarray(np.stack([np.pi * bits, 0.2 + bits], axis=1)[None])
    found = energy.value_function()(angles, energy.batch(np.arange(problem.n_examples)))
    index = int("".join(map(str, bits)), 2)
    # What is left is the floor under the deviations and the softmax integral.
    np.testing.assert_allclose(found, problem.example_losses[index], rtol=0, atol=1e-4)


@pytest.mark.parametrize("order", [2, 4])
def test_entangled_energy_is_close_to_that_of_the_statevector(order: int):
    depth = 2
    problem = Problem("logistic", 1, 10, interval=(0.1, 0.6), scale=0.5)
    energy = prepare(problem, depth, Cumulant(order))
    params = random_angles(depth, problem.network.n_qubits)
    found = energy.value_function()(params, energy.batch(np.arange(problem.n_examples)))
    expected = born(depth, problem.network.n_qubits) @ problem.example_losses
    assert np.abs(found - expected).max() < {2: 2e-3, 4: 4e-4}[order]


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_squared_error_is_exact(n_outputs: int):
    problem = Problem("squared", n_outputs, 9 // n_outputs, encoding=(0.0, 1.0))
    energy = prepare(problem, 4, Cumulant(2))
    assert isinstance(energy, QuadraticEnergy)
    n_qubits = problem.network.n_qubits
    params = random_angles(4, n_qubits)
    found = energy.value_function()(params, energy.batch(np.arange(problem.n_examples)))
    expected = born(4, n_qubits) @ problem.example_losses
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("depth", "order", "loss"),
    [
        (2, 4, "logistic"),
        (4, 2, "softmax"),
        pytest.param(4, 4, "softmax", marks=pytest.mark.slow),
    ],
)
def test_gradient_equals_finite_differences(depth: int, order: int, loss: str):
    problem = Problem(loss, 3 if loss == "softmax" else 1, 3, interval=(-1.0, 1.5))
    energy = prepare(problem, depth, Cumulant(order, n_steps=80))
    batch = energy.batch(np.arange(problem.n_examples), np.linspace(0.1, 0.3, 7))
    params = random_angles(depth, problem.network.n_qubits)
    run = jax.jit(jax.value_and_grad(energy))
    _, gradient = run(params, batch)
    assert np.abs(gradient).max() > 1e-2
    rng = np.random.default_rng(depth)
    for _ in range(6):
        direction = rng.normal(size=params.shape)
        step = 1e-5
        above, _ = run(params + step * direction, batch)
        below, _ = run(params - step * direction, batch)
        assert abs((above - below) / (2 * step) - (gradient * direction).sum()) < 1e-6


def test_gradient_is_finite_where_all_weights_are_certain():
    problem = Problem("softmax", 3, 3)
    energy = prepare(problem, 1, Cumulant(4), dtype=np.float32)
    angles = jnp.zeros((1, problem.network.n_qubits, 2), jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(energy))(angles, energy.batch(np.arange(7)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# ---------------------------------------------------------------- batches


def test_batches_add_up_and_filling_counts_nothing():
    problem = CASES["product"][1]
    energy = prepare(problem, 1, Cumulant(2), batch_size=3)
    params = random_angles(1, problem.network.n_qubits)
    function, total = jax.jit(energy.__call__), 0.0
    each = energy.value_function()
    parts = []
    for rows, batch in energy.batches(np.arange(problem.n_examples)):
        assert batch.weights.shape == (3,)
        total += float(function(params, batch))
        parts.append(each(params, batch)[: len(rows)])
    assert [len(part) for part in parts] == [3, 3, 1]
    assert total == pytest.approx(np.concatenate(parts).mean(), abs=1e-12)


def test_energy_is_compiled_once(monkeypatch: pytest.MonkeyPatch):
    traced = []
    original = CumulantEnergy.per_example

    def counting(self, params, batch):
        traced.append(params.shape)
        return original(self, params, batch)

    monkeypatch.setattr(CumulantEnergy, "per_example", counting)
    problem = CASES["product"][1]
    energy = prepare(problem, 1, Cumulant(2), batch_size=3)
    function = energy.value_function()
    for seed, (_, batch) in enumerate(energy.batches(np.arange(problem.n_examples))):
        params = Brickwork(1).init(jax.random.key(seed), problem.network.n_qubits)
        function(params.astype(jnp.float64), batch)
    assert len(traced) == 1


def test_single_precision_is_kept_and_agrees_with_double():
    """Also where JAX has 64 bits: no part of the computation may widen."""
    problem = Problem("logistic", 1, 6, interval=(-1.4, 1.6))
    values = {}
    for dtype in (np.float32, np.float64):
        energy = prepare(problem, 1, Cumulant(4), dtype=dtype)
        params = random_angles(1, problem.network.n_qubits).astype(dtype)
        values[dtype] = energy.value_function()(params, energy.batch(np.arange(7)))
        assert values[dtype].dtype == dtype
    np.testing.assert_allclose(values[np.float32], values[np.float64], rtol=0, atol=2e-4)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 3}, "order must be 2 or 4, got 3"),
        ({"n_nodes": 3}, "n_nodes must be at least 4, got 3"),
        ({"n_steps": 0}, "n_steps must be at least 4, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, int], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        Cumulant(**arguments)


def test_batches_of_wrong_size_are_refused():
    problem = CASES["product"][1]
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Cumulant().prepare(hamiltonian, Brickwork(1), batch_size=0)
    energy = prepare(problem, 1, Cumulant(), batch_size=3)
    for rows in (np.arange(4), np.arange(0)):
        with pytest.raises(ValueError, match=f"takes 1 to 3 examples, got {len(rows)}"):
            energy.batch(rows)


def test_double_precision_needs_jax_to_have_it():
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"float64 needs jax.config.update"),
    ):
        prepare(CASES["product"][1], 1, Cumulant())
