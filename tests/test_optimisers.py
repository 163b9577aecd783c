"""Optimisers and schedules by name: all of optax, and nothing that is not there."""

import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hypercircuit.train.optimisers import (
    make_optimiser,
    make_schedule,
    optimiser_names,
    schedule_names,
)


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def _descend(optimiser: optax.GradientTransformation, steps: int) -> np.ndarray:
    """Return the parameters after some steps on sum_i i x_i^2 / 2."""
    weights = jnp.asarray([1.0, 2.0, 3.0])
    params = jnp.asarray([1.0, -2.0, 0.5])
    state = optimiser.init(params)
    for _ in range(steps):
        updates, state = optimiser.update(weights * params, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


def test_names_are_optimisers():
    names = optimiser_names()
    assert {"adam", "adamw", "sgd", "lion", "rmsprop", "rprop", "yogi"} <= set(names)
    assert not {"clip", "scale_by_adam", "chain", "scale_by_learning_rate"} & set(names)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion", "rmsprop", "rprop", "adabelief"])
def test_equals_optax(name: str):
    optimiser = make_optimiser(name, 0.1, steps=5)
    np.testing.assert_array_equal(
        _descend(optimiser, 4), _descend(getattr(optax, name)(learning_rate=0.1), 4)
    )


def test_options_schedule_and_clipping_are_used():
    optimiser = make_optimiser(
        "sgd",
        0.1,
        schedule="linear",
        schedule_options={"end_value": 0.02},
        options={"momentum": 0.5, "nesterov": True},
        steps=4,
        clip_norm=0.3,
    )
    rates = optax.linear_schedule(0.1, 0.02, 4)
    expected = optax.chain(
        optax.clip_by_global_norm(0.3), optax.sgd(rates, momentum=0.5, nesterov=True)
    )
    np.testing.assert_array_equal(_descend(optimiser, 4), _descend(expected, 4))
    assert not np.array_equal(
        _descend(make_optimiser("sgd", 0.1, steps=4), 4), _descend(expected, 4)
    )


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, optax.constant_schedule(0.2)),
        ("cosine", {}, optax.cosine_decay_schedule(0.2, 40)),
        ("cosine", {"alpha": 0.1}, optax.cosine_decay_schedule(0.2, 40, alpha=0.1)),
        ("linear", {}, optax.linear_schedule(0.2, 0.0, 40)),
        ("exponential", {}, optax.exponential_decay(0.2, 40, 0.01)),
        ("warmup_cosine", {}, optax.warmup_cosine_decay_schedule(0.0, 0.2, 2, 40)),
        (
            "warmup_cosine",
            {"warmup_steps": 9, "init_value": 0.1},
            optax.warmup_cosine_decay_schedule(0.1, 0.2, 9, 40),
        ),
        ("onecycle", {}, optax.cosine_onecycle_schedule(40, 0.2)),
        (
            "polynomial_schedule",
            {"end_value": 0.1, "power": 2.0},
            optax.polynomial_schedule(0.2, 0.1, 2.0, 40),
        ),
        (
            "piecewise_constant_schedule",
            {"boundaries_and_scales": {"7": 0.5, "20": 0.1}},
            optax.piecewise_constant_schedule(0.2, {7: 0.5, 20: 0.1}),
        ),
        (
            "sgdr_schedule",
            {"cosine_kwargs": [{"init_value": 0.0, "warmup_steps": 3, "decay_steps": 40}]},
            optax.warmup_cosine_decay_schedule(0.0, 0.2, 3, 40),
        ),
    ],
)
def test_schedules(name: str, options: dict, expected: optax.Schedule):
    schedule = make_schedule(name, 0.2, steps=40, options=options)
    for step in (0, 1, 6, 8, 21, 39):
        assert float(schedule(step)) == float(expected(step))


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "exponential", "onecycle"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_finite_rates(name: str, steps: int):
    assert np.isfinite(float(make_schedule(name, 0.2, steps=steps)(0)))
    assert np.isfinite(float(make_schedule("warmup_cosine", 0.2, steps=steps)(0)))


def test_schedule_names():
    names = schedule_names()
    assert {"cosine", "cosine_decay_schedule", "sgdr_schedule"} <= set(names)
    assert not {"join_schedules", "inject_hyperparams"} & set(names)


def test_unknown_optimisers():
    with refuses("name must be an optax optimiser, got 'adm'; did you mean 'adam'?"):
        make_optimiser("adm", 0.1, steps=3)
    with refuses("got 'scale_by_adam' (optax has it, but it is no optimiser); did you mean"):
        make_optimiser("scale_by_adam", 0.1, steps=3)
    with refuses("got 'zzzz'; known are adabelief, adadelta"):
        make_optimiser("zzzz", 0.1, steps=3)
    with refuses("name='lbfgs' with options={} and schedule='constant' must run on gradients"):
        make_optimiser("lbfgs", 0.1, steps=3)
    with refuses("try schedule='constant', or choose another optimiser"):
        make_optimiser("rprop", 0.1, schedule="cosine", steps=3)


def test_wrong_options():
    with refuses("options of 'adam' has no 'beta1'; known are b1, b2, eps"):
        make_optimiser("adam", 0.1, options={"beta1": 0.9}, steps=3)
    with refuses("options of 'sgd' has no 'momentun'; did you mean 'momentum'?"):
        make_optimiser("sgd", 0.1, options={"momentun": 0.9}, steps=3)
    with refuses("options of 'sgd' must not hold 'learning_rate', got 0.3; set learning_rate"):
        make_optimiser("sgd", 0.1, options={"learning_rate": 0.3}, steps=3)
    with refuses("name='adam' with options={'b1': 'x'} and schedule='constant' must run on"):
        make_optimiser("adam", 0.1, options={"b1": "x"}, steps=3)


def test_wrong_schedules():
    with refuses("schedule must be a schedule of optax, got 'cosin'; did you mean 'cosine'?"):
        make_optimiser("adam", 0.1, schedule="cosin", steps=3)
    with refuses("schedule_options of 'cosine' has no 'alpa'; did you mean 'alpha'?"):
        make_schedule("cosine", 0.1, steps=3, options={"alpa": 0.9})
    with refuses("schedule_options of 'onecycle' must not hold 'peak_value', got 3; set learn"):
        make_schedule("onecycle", 0.1, steps=3, options={"peak_value": 3})
    with refuses("schedule_options of 'polynomial_schedule' must hold 'end_value', got {}; add it"):
        make_schedule("polynomial_schedule", 0.1, steps=3)
    with refuses("schedule='warmup_cosine' with schedule_options={'warmup_steps': 9} and steps=3"):
        make_schedule("warmup_cosine", 0.1, steps=3, options={"warmup_steps": 9})
    with refuses("must give finite learning rates, got nan"):
        make_schedule("cosine", 0.1, steps=3, options={"alpha": float("nan")})


def test_wrong_numbers():
    with refuses("learning_rate must be finite and above 0, got 0.0; for example 0.05"):
        make_optimiser("adam", 0.0, steps=3)
    with refuses("learning_rate must be finite and above 0, got nan"):
        make_schedule("cosine", float("nan"), steps=3)
    with refuses("steps must be at least 1, got 0; it is the length of the run"):
        make_optimiser("adam", 0.1, steps=0)
    with refuses("clip_norm must be at least 0, got -1; 0 turns clipping off"):
        make_optimiser("adam", 0.1, steps=3, clip_norm=-1)
