"""The statevector energy against a Kronecker statevector and brute-force losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oracles
from hypercircuit.circuit import Brickwork
from hypercircuit.energy import Cumulant, Exact, Statevector
from hypercircuit.energy.dense import halves
from hypercircuit.hamiltonian import compile_loss
from hypercircuit.train import Progress, Schedule, train
from problems import PROBLEMS

#: Of 8, 10, 11, 17, 1 (no cell to the left) and 12 qubits.
NAMES = ("logistic-real", "softmax-sparse-odd", "logistic-gaps", "softmax-quarters", "squared-real")


def compiled(name: str, tolerance: float = 1e-6):
    problem = PROBLEMS[name]
    return compile_loss(problem.network, problem.data, problem.loss_object, tolerance=tolerance)


def angles(depth: int, n_qubits: int, dtype=np.float64, kinds: int = 2) -> np.ndarray:
    rng = np.random.default_rng(100 * depth + n_qubits)
    return rng.uniform(0, 2 * np.pi, (depth, n_qubits, kinds)).astype(dtype)


def prepare(hamiltonian, circuit, dtype=np.float64):
    prepared = Statevector().prepare(
        hamiltonian, circuit, batch_size=hamiltonian.n_examples, dtype=dtype
    )
    return prepared, prepared.batch(np.arange(hamiltonian.n_examples))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", NAMES[:2])
def test_equals_the_kronecker_statevector(name: str, depth: int, dtype):
    hamiltonian = compiled(name)
    params = angles(depth, hamiltonian.n_qubits, dtype)
    prepared, batch = prepare(hamiltonian, Brickwork(depth), dtype)
    found = jax.jit(prepared)(jnp.asarray(params), batch)
    assert found.dtype == dtype
    state = oracles.brickwork_statevector(params)
    # Against the same operator up to rounding, and the true losses within the certificate.
    expected = oracles.energy(state, hamiltonian.diagonal())
    assert float(found) == pytest.approx(expected, rel=2e-6 if dtype == np.float32 else 1e-12)
    true = oracles.energy(state, PROBLEMS[name].diagonal)
    rounding = 1e-5 if dtype == np.float32 else 1e-12
    assert abs(float(found) - true) <= hamiltonian.spectral_error + rounding


@pytest.mark.parametrize("depth", [9, 10])
def test_bonds_too_large_for_products(depth: int):
    hamiltonian = compiled("logistic-real")
    params = angles(depth, hamiltonian.n_qubits)
    prepared, batch = prepare(hamiltonian, Brickwork(depth))
    expected = oracles.energy(oracles.brickwork_statevector(params), hamiltonian.diagonal())
    assert float(prepared(jnp.asarray(params), batch)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("depth", [1, 3, 4, 6])
def test_circuit_without_phases(depth: int):
    hamiltonian = compiled("logistic-gaps")
    params = angles(depth, hamiltonian.n_qubits, kinds=1)
    prepared, batch = prepare(hamiltonian, Brickwork(depth, "ry"))
    full = np.concatenate([params, np.zeros_like(params)], axis=2)
    expected = oracles.energy(oracles.brickwork_statevector(full), hamiltonian.diagonal())
    assert float(prepared(jnp.asarray(params), batch)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4, 7, 10])
def test_halves_join_to_the_state(n_qubits: int):
    params = angles(4, n_qubits)
    left, right = halves(Brickwork(4).cells(jnp.asarray(params)), n_qubits)
    expected = oracles.brickwork_statevector(params)
    np.testing.assert_allclose((left @ right.T).reshape(-1), expected, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 4])
def test_agrees_with_the_product_terms(name: str, depth: int):
    hamiltonian = compiled(name)
    params = jnp.asarray(angles(depth, hamiltonian.n_qubits))
    prepared, batch = prepare(hamiltonian, Brickwork(depth))
    exact = Exact().prepare(
        hamiltonian, Brickwork(depth), batch_size=hamiltonian.n_examples, dtype=np.float64
    )
    other = jax.jit(exact)(params, exact.batch(np.arange(hamiltonian.n_examples)))
    assert float(prepared(params, batch)) == pytest.approx(float(other), rel=1e-9)


@pytest.mark.parametrize(("depth", "start"), [(1, 0.0), (4, 0.0), (4, None), (9, None)])
def test_gradient_equals_finite_differences(depth: int, start: float | None):
    hamiltonian = compiled("logistic-gaps")
    params = angles(depth, hamiltonian.n_qubits)
    if start is not None:
        params = np.full_like(params, start)  # a product state: all amplitudes but one vanish
    prepared, batch = prepare(hamiltonian, Brickwork(depth))
    value = jax.jit(lambda p: prepared(p, batch))
    found = jax.jit(jax.grad(value))(jnp.asarray(params))
    if depth > 4:
        found = np.asarray(found)
        rows = [(0, 0, 0), (3, 5, 1), (8, 9, 0)]
        for row in rows:
            step = np.zeros(params.shape)
            step[row] = 1e-5
            above, below = (float(value(jnp.asarray(params + s))) for s in (step, -step))
            assert (above - below) / 2e-5 == pytest.approx(found[row], abs=1e-9)
        return
    expected = oracles.finite_difference_gradient(
        lambda p: float(value(jnp.asarray(p))), params, 1e-5
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_gradient_in_single_precision():
    hamiltonian = compiled("logistic-gaps")
    params = angles(4, hamiltonian.n_qubits)
    gradients = []
    for dtype in (np.float32, np.float64):
        prepared, batch = prepare(hamiltonian, Brickwork(4), dtype)
        gradients.append(jax.jit(jax.grad(prepared))(jnp.asarray(params, dtype), batch))
    np.testing.assert_allclose(*gradients, atol=3e-6)


def test_losses_are_written_out_once(monkeypatch: pytest.MonkeyPatch):
    hamiltonian = compiled("logistic-gaps")
    first = hamiltonian.diagonal()
    assert not first.flags.writeable

    def fails(_):
        raise AssertionError("computed again")

    monkeypatch.setattr("hypercircuit.hamiltonian.diagonal.diagonal", fails)
    assert hamiltonian.diagonal() is first
    prepared, batch = prepare(hamiltonian, Brickwork(2))
    assert prepared.batch(np.arange(hamiltonian.n_examples)[::-1]) is batch


def test_per_example_and_batches_add_up_to_the_energy():
    hamiltonian = compiled("logistic-gaps")
    params = jnp.asarray(angles(2, hamiltonian.n_qubits))
    prepared, batch = prepare(hamiltonian, Brickwork(2))
    values = prepared.per_example(params, batch)
    assert values.shape == (hamiltonian.n_examples,)
    assert float((batch.weights * values).sum()) == pytest.approx(float(prepared(params, batch)))
    ((_, only),) = prepared.batches(np.arange(hamiltonian.n_examples))
    assert only is batch


def test_minibatches_are_refused():
    hamiltonian = compiled("logistic-gaps")
    with pytest.raises(ValueError, match=r"batch_size must be 7, .*, got 3; .*no minibatches"):
        Statevector().prepare(hamiltonian, Brickwork(2), batch_size=3)
    prepared, _ = prepare(hamiltonian, Brickwork(2))
    with pytest.raises(ValueError, match="examples must be all 7 of them, each once, got 2"):
        prepared.batch(np.arange(2))
    with pytest.raises(ValueError, match=r"weights must all be 1/7, got 0.0 to 0.5"):
        prepared.batch(np.arange(7), np.array([0.5, 0.5, 0, 0, 0, 0, 0]))


def test_too_many_qubits_are_refused():
    problem = PROBLEMS["softmax-quarters"]
    big = type(problem)("squared", 5, 4)
    hamiltonian = compile_loss(big.network, big.data, big.loss_object)
    with pytest.raises(ValueError, match="at most 24 qubits, got 25"):
        Statevector().prepare(hamiltonian, Brickwork(1), batch_size=7)


def test_trains_on_all_the_examples():
    hamiltonian = compiled("logistic-gaps")
    arguments = {"optimiser": optax.adam(0.1), "progress": Progress(enabled=False)}
    schedule = Schedule(steps=5, batch_size=0)
    params = jnp.asarray(angles(2, hamiltonian.n_qubits))
    found, expected = (
        train(
            hamiltonian,
            Brickwork(2),
            energy=energy,
            params=params,
            schedule=schedule,
            **arguments,
        )
        for energy in (Statevector(), Exact())
    )
    np.testing.assert_allclose(found.params, expected.params, atol=1e-8)
    with pytest.raises(ValueError, match=r"set train\.batch_size=0"):
        train(
            hamiltonian,
            Brickwork(2),
            energy=Statevector(),
            params=params,
            schedule=Schedule(steps=5, batch_size=3),
            **arguments,
        )


def test_batch_size_of_the_schedule():
    assert Schedule(batch_size=0).batch_size == 0
    with pytest.raises(ValueError, match="batch_size must be at least 0, got -1; 0 is all"):
        Schedule(batch_size=-1)
    assert Cumulant().name != Statevector().name == "statevector"
