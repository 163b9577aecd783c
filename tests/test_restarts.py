"""Restarts side by side: the stopping rule, independence of batches, resuming, what fails."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import oracles
from hypercircuit.circuit import Brickwork
from hypercircuit.energy import Cumulant, Exact, Statevector
from hypercircuit.hamiltonian import LossHamiltonian, compile_loss
from hypercircuit.train import Progress, RestartResult, restarts
from hypercircuit.train.lbfgs import LBFGS
from problems import PROBLEMS

QUIET = Progress(enabled=False)


@pytest.fixture(scope="module")
def hamiltonian() -> LossHamiltonian:
    problem = PROBLEMS["logistic-real"]
    return compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-8)


@pytest.fixture(scope="module")
def found(hamiltonian: LossHamiltonian) -> RestartResult:
    return restarts(hamiltonian, Brickwork(2), n_restarts=12, batch=5, seed=3, progress=QUIET)


def test_energies_and_norms_are_those_of_the_angles(hamiltonian, found: RestartResult):
    diagonal = hamiltonian.diagonal()
    prepared = Statevector().prepare(hamiltonian, Brickwork(2), batch_size=7, dtype=np.float64)
    batch = prepared.batch(np.arange(7))
    for params, energy, norm in zip(
        found.params, found.energies, found.gradient_norms, strict=True
    ):
        state = oracles.brickwork_statevector(params)
        assert energy == pytest.approx(oracles.energy(state, diagonal), rel=1e-11)
        gradient = jax.grad(prepared)(jnp.asarray(params), batch)
        assert norm == pytest.approx(float(jnp.linalg.norm(gradient)), rel=1e-6, abs=1e-12)


def test_stopping_rule_holds_for_every_restart(found: RestartResult, hamiltonian):
    assert found.finished
    assert found.message == ""
    assert set(found.status) <= {"converged", "max-iterations", "stalled"}
    assert found.status.count("converged") >= 9
    for status, norm, iterations in zip(
        found.status, found.gradient_norms, found.iterations, strict=True
    ):
        assert (status == "converged") == (norm <= 1e-6)
        assert (status == "max-iterations") == (iterations == 500 and norm > 1e-6)
    # A converged restart of a product-like landscape ends at some network's loss; some at the best.
    assert found.energies.min() == pytest.approx(hamiltonian.diagonal().min(), abs=1e-6)
    assert (found.energies >= hamiltonian.diagonal().min() - 1e-12).all()


def test_starts_are_uniform_and_depend_on_seed_and_number_alone(hamiltonian):
    arguments = {"max_iterations": 0, "progress": QUIET}
    few = restarts(hamiltonian, Brickwork(3), n_restarts=3, batch=2, seed=3, **arguments)
    many = restarts(hamiltonian, Brickwork(3), n_restarts=40, batch=7, seed=3, **arguments)
    other = restarts(hamiltonian, Brickwork(3), n_restarts=3, seed=4, **arguments)
    np.testing.assert_array_equal(few.params, many.params[:3])
    assert not np.any(few.params == other.params)
    assert few.status == ("max-iterations",) * 3
    angles = many.params.ravel()
    assert ((angles >= 0) & (angles < 2 * np.pi)).all()
    # Mean and variance of a uniform angle, four standard errors either way.
    n = len(angles)
    assert abs(angles.mean() - np.pi) < 4 * np.pi / np.sqrt(3 * n)
    assert abs(angles.var() - np.pi**2 / 3) < 4 * np.pi**2 * np.sqrt(4 / 45 / n)


def test_batching_does_not_change_a_restart(hamiltonian, found: RestartResult):
    again = restarts(
        hamiltonian,
        Brickwork(2),
        n_restarts=12,
        batch=5,
        seed=3,
        max_iterations=8,
        progress=QUIET,
    )
    for n_restarts, batch in ((4, 1), (7, 30)):
        other = restarts(
            hamiltonian,
            Brickwork(2),
            n_restarts=n_restarts,
            batch=batch,
            seed=3,
            max_iterations=8,
            progress=QUIET,
        )
        np.testing.assert_allclose(other.energies, again.energies[:n_restarts], atol=1e-8)


def test_as_good_as_scipy(hamiltonian, found: RestartResult):
    """Convergence in about as many iterations as a reference implementation of L-BFGS."""
    prepared = Statevector().prepare(hamiltonian, Brickwork(2), batch_size=7, dtype=np.float64)
    batch = prepared.batch(np.arange(7))
    value = jax.jit(jax.value_and_grad(lambda p: prepared(p.reshape(2, 8, 2), batch)))
    starts = restarts(
        hamiltonian, Brickwork(2), n_restarts=12, seed=3, max_iterations=0, progress=QUIET
    ).params
    reference = []
    for start in starts:
        result = scipy.optimize.minimize(
            lambda x: tuple(np.asarray(each, float) for each in value(jnp.asarray(x))),
            start.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": 1e-7, "ftol": 0, "maxiter": 500, "maxcor": 10},
        )
        reference.append(result.nit)
    assert np.median(found.iterations) < 1.5 * np.median(reference)


def test_line_search_on_a_valley():
    """Rosenbrock's function, from its usual start: the minimum, in a known number of steps."""

    def rosenbrock(p):
        x, y = p[0, 0]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    search = LBFGS().init(jnp.asarray([[[-1.2, 1.0]]]))
    step = jax.jit(lambda s: LBFGS().step(s, rosenbrock))
    values, moves = [], 0
    for _ in range(100):
        search, moved, given_up = step(search)
        assert not (moved and given_up)
        moves += int(moved) * (float(search.value) > 1e-14)
        values.append(float(search.value))
    assert values[0] == pytest.approx(24.2)
    assert (np.diff(values) <= 1e-14).all()
    np.testing.assert_allclose(search.params, [[[1.0, 1.0]]], atol=1e-6)
    assert moves <= 80


@pytest.mark.parametrize("kind", [Exact(), Cumulant(4)])
def test_other_energies_of_all_the_examples(hamiltonian, kind):
    result = restarts(
        hamiltonian,
        Brickwork(1),
        energy=kind,
        n_restarts=3,
        seed=1,
        max_iterations=40,
        progress=QUIET,
    )
    assert result.finished
    prepared = kind.prepare(hamiltonian, Brickwork(1), batch_size=7, dtype=np.float64)
    value = jax.jit(prepared)(jnp.asarray(result.params[1]), prepared.batch(np.arange(7)))
    assert result.energies[1] == pytest.approx(float(value), rel=1e-9)


@pytest.mark.parametrize("optimiser", [optax.adam(0.05), optax.lbfgs()], ids=["adam", "lbfgs"])
def test_other_optimisers(hamiltonian, optimiser):
    """Against the same optax loop written out for one restart."""
    result = restarts(
        hamiltonian,
        Brickwork(2),
        optimiser=optimiser,
        n_restarts=3,
        batch=2,
        max_iterations=15,
        progress=QUIET,
    )
    prepared = Statevector().prepare(hamiltonian, Brickwork(2), batch_size=7, dtype=np.float64)
    batch = prepared.batch(np.arange(7))

    def value_fn(p):
        return prepared(p, batch)

    params = Brickwork(2).init(
        jax.random.fold_in(jax.random.key(0), 1), 8, how="uniform", dtype=np.float64
    )
    state = optimiser.init(params)
    full = optax.with_extra_args_support(optimiser)

    @jax.jit
    def update(params, state):
        value, gradient = jax.value_and_grad(value_fn)(params)
        updates, state = full.update(
            gradient, state, params, value=value, grad=gradient, value_fn=value_fn
        )
        return optax.apply_updates(params, updates), state

    for _ in range(15):
        params, state = update(params, state)
    np.testing.assert_allclose(result.params[1], params, atol=1e-9)
    assert (result.iterations == 15).all()


def test_interrupted_call_goes_on(hamiltonian, found: RestartResult, tmp_path, monkeypatch):
    arguments = {"n_restarts": 12, "batch": 5, "seed": 3, "folder": tmp_path, "progress": QUIET}
    original = np.savez

    def savez(*args, **keywords):
        original(*args, **keywords)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(np, "savez", savez)
    first = restarts(hamiltonian, Brickwork(2), **arguments)
    monkeypatch.undo()
    assert "stopped by SIGTERM after" in first.message
    assert not first.finished
    assert 0 < first.status.count("not-run") < 12
    assert np.isnan(first.energies).sum() == first.status.count("not-run")

    second = restarts(hamiltonian, Brickwork(2), **arguments)
    assert second.finished
    done = np.flatnonzero(np.array(first.status) != "not-run")
    np.testing.assert_array_equal(second.params[done], first.params[done])
    np.testing.assert_allclose(second.energies, found.energies, atol=1e-4)
    assert second.seconds > first.seconds
    third = restarts(hamiltonian, Brickwork(2), **arguments)
    np.testing.assert_array_equal(third.params, second.params)
    fewer = restarts(hamiltonian, Brickwork(2), **(arguments | {"n_restarts": 2}))
    np.testing.assert_array_equal(fewer.energies, second.energies[:2])
    with pytest.raises(ValueError, match="holds restarts with seed=3, this call has seed=4"):
        restarts(hamiltonian, Brickwork(2), **(arguments | {"seed": 4}))


def test_non_finite_restart_is_a_status(hamiltonian):
    result = restarts(
        hamiltonian,
        Brickwork(1),
        optimiser=optax.chain(optax.sgd(1e200), optax.scale(1e200)),
        n_restarts=2,
        max_iterations=20,
        progress=QUIET,
    )
    assert result.status == ("non-finite",) * 2
    assert np.isfinite(result.params).all()
    assert np.isfinite(result.energies).all()
    assert (result.iterations < 20).all()


def test_single_precision_ends_without_converging_to_rounding(hamiltonian):
    result = restarts(
        hamiltonian,
        Brickwork(2),
        n_restarts=4,
        gradient_norm=0.0,
        dtype=np.float32,
        progress=QUIET,
    )
    assert result.params.dtype == np.float32
    assert set(result.status) <= {"stalled", "max-iterations", "converged"}
    assert "stalled" in result.status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_restarts": 0}, "n_restarts must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"max_iterations": -1}, "max_iterations must be at least 0, got -1"),
        ({"gradient_norm": -1.0}, "gradient_norm must be at least 0, got -1.0; 0 runs all"),
        ({"init": "zeros"}, "how must be one of"),
    ],
)
def test_wrong_arguments(hamiltonian, arguments, message):
    with pytest.raises(ValueError, match=message):
        restarts(hamiltonian, Brickwork(1), **arguments)
