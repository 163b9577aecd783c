"""The penalty: the divergence of the Born distribution from a product prior, and its beta."""

import dataclasses
import functools
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
from hypercircuit.circuit import Brickwork
from hypercircuit.energy import Cumulant, Exact, Sampled
from hypercircuit.hamiltonian import LossHamiltonian, compile_loss
from hypercircuit.state import exact_mps
from hypercircuit.train import KLPenalty, Progress, Schedule, TrainResult, train
from hypercircuit.train.objective import PENALTY, step_key
from problems import Problem

#: A squared error, whose exact energy compiles fast.
PROBLEM = Problem("squared", 1, 7, n_examples=20, interval=(-0.4, 1.0), scale=0.4)
N_QUBITS = 8
PRIOR = np.random.default_rng(0).uniform(0.2, 0.9, N_QUBITS)
ENTANGLED = Brickwork(3)
QUIET = Progress(enabled=False)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with equal_programs_compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


@functools.cache
def angles(depth: int) -> np.ndarray:
    return np.pi / 2 + 0.7 * np.random.default_rng(depth).standard_normal((depth, N_QUBITS, 2))


def divergence(parameters: np.ndarray, prior: np.ndarray | float = 0.5) -> float:
    """KL(Born distribution || prior) in nats by brute force."""
    born = oracles.born_probabilities(oracles.brickwork_statevector(parameters))
    bits = oracles.bits_table(N_QUBITS)
    of_bits = np.where(bits == 1, prior, 1 - np.asarray(prior)).prod(1)
    return float((born * np.log(born / of_bits)).sum())


def draws(penalty: KLPenalty, circuit: Brickwork, parameters: np.ndarray, n_draws: int):
    """Value, standard error and gradient of many draws."""

    def one(params, key):
        mps = exact_mps(circuit, params)
        value, error = penalty.estimate(mps, key)
        gradient = jax.grad(lambda p: penalty.of_state(exact_mps(circuit, p), key))(params)
        return penalty.of_state(mps, key), value, error, gradient

    keys = jax.random.split(jax.random.key(12), n_draws)
    both = jax.jit(jax.vmap(functools.partial(one, jnp.asarray(parameters))))
    return tuple(np.asarray(part) for part in both(keys))


# ---------------------------------------------------------------- value and gradient


@pytest.mark.parametrize("prior", [0.3, PRIOR], ids=["scalar", "per qubit"])
@pytest.mark.parametrize("depth", [1, 3])
def test_value_and_gradient_are_unbiased(depth: int, prior):
    n_draws = 1500
    penalty = KLPenalty(1.0, prior, n_samples=6)
    values, estimates, errors, gradients = draws(penalty, Brickwork(depth), angles(depth), n_draws)
    np.testing.assert_allclose(values, estimates, rtol=1e-12)
    expected = divergence(angles(depth), prior)
    off = values - expected
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(n_draws)
    assert (errors**2).mean() == pytest.approx((off**2).mean(), rel=0.2)
    assert expected > 20 * off.std() / np.sqrt(n_draws)

    exact = oracles.finite_difference_gradient(lambda p: divergence(p, prior), angles(depth), 1e-5)
    mean, error = gradients.mean(0), gradients.std(0) / np.sqrt(n_draws)
    still = error < 1e-12
    # The Rz of the last layer change no probability.
    assert still[-1, :, 1].all()
    assert still.sum() <= 2 * N_QUBITS
    np.testing.assert_allclose(mean[still], 0, atol=1e-12)
    np.testing.assert_allclose(exact[still], 0, atol=1e-8)
    scores = (mean - exact)[~still] / error[~still]
    assert np.abs(scores).max() < 4.5
    assert 0.6 < np.sqrt((scores**2).mean()) < 1.4
    assert np.abs(exact[~still] / error[~still]).max() > 20


def test_error_falls_with_the_root_of_the_samples():
    deviations = {}
    mps = jax.jit(lambda p: exact_mps(ENTANGLED, p))(jnp.asarray(angles(3)))
    keys = jax.random.split(jax.random.key(4), 800)
    for n_samples in (4, 16, 64):
        penalty = KLPenalty(1.0, PRIOR, n_samples)
        estimate = jax.vmap(lambda key, penalty=penalty: penalty.estimate(mps, key))
        values = np.asarray(jax.jit(estimate)(keys).value)
        deviations[n_samples] = np.sqrt(((values - divergence(angles(3), PRIOR)) ** 2).mean())
    slope = np.polyfit(np.log(list(deviations)), np.log(list(deviations.values())), 1)[0]
    assert abs(slope + 0.5) < 0.05


@pytest.mark.parametrize("prior", [0.3, PRIOR], ids=["scalar", "per qubit"])
def test_closed_form_of_a_product_state(prior):
    """With probabilities sin^2(theta / 2) of bit 1 the divergence adds up over qubits."""
    theta = angles(1)[0, :, 0]
    one = np.sin(theta / 2) ** 2
    zero_prior = 1 - np.asarray(prior)
    closed = (one * np.log(one / prior) + (1 - one) * np.log((1 - one) / zero_prior)).sum()
    assert closed == pytest.approx(divergence(angles(1), prior), rel=1e-10)
    mps = exact_mps(Brickwork(1), jnp.asarray(angles(1)))
    value, error = KLPenalty(1.0, prior, n_samples=20_000).estimate(mps, jax.random.key(1))
    assert abs(float(value) - closed) < 4 * float(error) < 0.1


def test_prior_of_the_state_itself_costs_nothing():
    one = np.sin(angles(1)[0, :, 0] / 2) ** 2
    mps = exact_mps(Brickwork(1), jnp.asarray(angles(1)))
    value, error = KLPenalty(1.0, one, n_samples=50).estimate(mps, jax.random.key(1))
    assert abs(value) < 1e-12
    assert error < 1e-12


def test_prior_of_every_network():
    bits = oracles.bits_table(N_QUBITS)
    for prior in (0.3, PRIOR):
        expected = np.log(np.where(bits == 1, prior, 1 - np.asarray(prior))).sum(1)
        np.testing.assert_allclose(KLPenalty(1.0, prior).log_prior(bits), expected, rtol=1e-12)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("beta", [-0.1, float("nan"), float("inf")])
def test_beta_out_of_range_is_refused(beta: float):
    with refuses(f"beta must be a finite number of at least 0, got {beta}"):
        KLPenalty(beta)
    with refuses(f"beta must start at a finite number of at least 0, got {beta}"):
        KLPenalty(optax.constant_schedule(beta))


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.5, float("nan")])
def test_prior_out_of_range_is_refused(wrong: float):
    message = f"prior must lie within (0, 1), got {wrong}; networks that the prior rules out"
    with refuses(message):
        KLPenalty(0.1, wrong)
    with refuses(message):
        KLPenalty(0.1, np.array([0.5, wrong, 0.2]))


def test_other_settings_are_refused():
    with refuses("n_samples must be at least 2, got 1"):
        KLPenalty(0.1, n_samples=1)
    with refuses("prior must hold one probability per qubit (8), got shape (7,)"):
        run(penalty=KLPenalty(0.1, np.full(7, 0.5)))


# ---------------------------------------------------------------- training

SCHEDULE = Schedule(steps=12, batch_size=6, evaluate_every=4, checkpoint_every=3, check_examples=5)
FALLING = optax.linear_schedule(0.5, 0.0, 10)


@functools.cache
def hamiltonian() -> LossHamiltonian:
    return compile_loss(PROBLEM.network, PROBLEM.data, PROBLEM.loss_object)


@functools.cache
def logistic() -> LossHamiltonian:
    problem = dataclasses.replace(PROBLEM, loss="logistic")
    return compile_loss(problem.network, problem.data, problem.loss_object)


def run(
    folder: Path | None = None, compiled: LossHamiltonian | None = None, **changes
) -> TrainResult:
    arguments = {
        "energy": Exact(),
        "penalty": KLPenalty(FALLING, PRIOR, n_samples=8),
        "optimiser": optax.adam(0.1),
        "schedule": SCHEDULE,
        "seed": 2,
        "params": jnp.asarray(angles(3)),
        "folder": folder,
        "progress": QUIET,
    } | changes
    return train(compiled or hamiltonian(), ENTANGLED, **arguments)


@functools.cache
def undisturbed() -> TrainResult:
    return run()


def test_history_holds_the_divergence_and_beta():
    result = undisturbed()
    evaluations = result.history.evaluations
    assert evaluations.keys() == {"step", "kl", "kl_standard_error", "beta"}
    np.testing.assert_allclose(evaluations["beta"], [0.35, 0.15, 0.0], atol=1e-12)
    off = evaluations["kl"][-1] - divergence(np.asarray(result.params), PRIOR)
    assert 0 < abs(off) < 4 * evaluations["kl_standard_error"][-1]


def test_every_step_records_its_divergence_and_beta():
    history = undisturbed().history
    assert history.more.keys() == {"kl", "beta"}
    expected = [float(FALLING(step)) for step in range(len(history))]
    np.testing.assert_allclose(history.more["beta"], expected, atol=1e-7)
    mps = exact_mps(ENTANGLED, jnp.asarray(angles(3)))
    penalty = KLPenalty(FALLING, PRIOR, n_samples=8)
    estimate = penalty.estimate(mps, step_key(2, PENALTY, 0))
    assert history.more["kl"][0] == pytest.approx(float(estimate.value), rel=1e-6)
    assert not run(penalty=None, schedule=Schedule(steps=1, batch_size=20)).history.more


def test_beta_reaches_the_update():
    """With plain gradient steps the penalty's share of a step is beta times its gradient."""
    schedule = Schedule(steps=1, batch_size=20)
    penalty = KLPenalty(optax.linear_schedule(0.25, 0.0, 10), PRIOR, n_samples=8)
    whole, alone = (
        run(penalty=each, schedule=schedule, optimiser=optax.sgd(1.0)) for each in (penalty, None)
    )

    def of_angles(params: jax.Array) -> jax.Array:
        return penalty.of_state(exact_mps(ENTANGLED, params), step_key(2, PENALTY, 0))

    gradient = jax.jit(jax.grad(of_angles))(jnp.asarray(angles(3)))
    np.testing.assert_allclose(whole.params - alone.params, -0.25 * gradient, atol=1e-12)
    assert np.abs(gradient).max() > 0.1
    # The history's energy is without the penalty, its gradient norm that of the step.
    assert whole.history.energy[0] == pytest.approx(alone.history.energy[0], rel=1e-12)
    norm = np.linalg.norm(whole.params - angles(3))
    assert whole.history.gradient_norm[0] == pytest.approx(norm, rel=1e-9)


def test_beta_is_a_function_of_the_step():
    """Beta 0 from the third step on: the step is that of the energy alone."""
    switched = KLPenalty(optax.piecewise_constant_schedule(0.4, {2: 0.0}), PRIOR, n_samples=8)
    schedule = Schedule(steps=3, batch_size=20)
    descend = {"optimiser": optax.sgd(0.5), "schedule": schedule}
    whole = run(penalty=switched, **descend)
    first = run(penalty=switched, **(descend | {"schedule": Schedule(steps=2, batch_size=20)}))
    rest = run(
        penalty=None,
        params=first.params,
        **(descend | {"schedule": Schedule(steps=1, batch_size=20)}),
    )
    np.testing.assert_allclose(whole.params, rest.params, atol=1e-12)
    assert whole.history.energy[-1] == pytest.approx(rest.history.energy[0], rel=1e-12)


def test_penalty_alone_leads_to_the_prior():
    """A large beta drowns the loss: the state becomes the prior's."""
    result = run(
        penalty=KLPenalty(20.0, PRIOR, n_samples=64),
        schedule=Schedule(steps=150, batch_size=20, evaluate_every=150),
        optimiser=optax.adam(optax.cosine_decay_schedule(0.1, 150)),
    )
    assert divergence(angles(3), PRIOR) > 1.5
    assert divergence(np.asarray(result.params), PRIOR) < 0.03


@pytest.mark.parametrize("kind", [Cumulant(2), Sampled(8)], ids=["cumulant", "sampled"])
def test_works_with_any_energy(kind):
    compiled = hamiltonian() if isinstance(kind, Sampled) else logistic()
    result = run(compiled=compiled, energy=kind, schedule=dataclasses.replace(SCHEDULE, steps=4))
    assert result.status == "finished"
    assert {"kl", "beta", "check_error"} <= result.history.evaluations.keys()


def test_resumed_run_is_the_undisturbed_one_bit_for_bit(tmp_path: Path):
    run(tmp_path, schedule=dataclasses.replace(SCHEDULE, steps=8))
    resumed = run(tmp_path)
    np.testing.assert_array_equal(resumed.params, undisturbed().params)
    arrays, wanted = resumed.history.to_arrays(), undisturbed().history.to_arrays()
    for name in wanted.keys() - {"seconds"}:
        np.testing.assert_array_equal(arrays[name], wanted[name], err_msg=name)
    for other in (None, KLPenalty(0.1, PRIOR, 8), KLPenalty(FALLING, 1 - PRIOR, 8)):
        with pytest.raises(ValueError, match=r"was made with penalty=KL with beta 0\.5 0\.45"):
            run(tmp_path, penalty=other)
