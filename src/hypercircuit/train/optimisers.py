"""Optimisers and learning-rate schedules by their optax names.

Everything that optax offers with a learning rate is reached by its own name, so a
configuration file and the optax documentation use the same words. From Python any
`optax.GradientTransformation` can be handed to the training loop instead.

An update is::

    gradient -> clip_by_global_norm(clip_norm) -> optimiser(schedule(step)) -> params
"""

import inspect
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import jax
import jax.numpy as jnp
import optax

_SHORT_SCHEDULES: Mapping[str, str] = {
    "constant": "constant_schedule",
    "cosine": "cosine_decay_schedule",
    "linear": "linear_schedule",
    "exponential": "exponential_decay",
    "warmup_cosine": "warmup_cosine_decay_schedule",
    "onecycle": "cosine_onecycle_schedule",
}
"""Short name -> optax schedule."""


def optimiser_names() -> tuple[str, ...]:
    """Return the names of the optax optimisers: its transformations with a learning rate."""
    transformations = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)
    return tuple(
        name
        for name, function in inspect.getmembers(optax, inspect.isfunction)
        if not name.startswith(("_", "scale_by_"))
        and inspect.signature(function).return_annotation in transformations
        and "learning_rate" in inspect.signature(function).parameters
    )


def schedule_names() -> tuple[str, ...]:
    """Return the short names of schedules, then the names of all optax schedules.

    `optax.join_schedules` takes functions and is left out: a configuration holds none.
    """
    full = (
        name
        for name, function in inspect.getmembers(optax.schedules, inspect.isfunction)
        if inspect.signature(function).return_annotation == optax.Schedule
        and "schedules" not in inspect.signature(function).parameters
    )
    return (*_SHORT_SCHEDULES, *full)


def make_optimiser(
    name: str,
    learning_rate: float | int,
    *,
    schedule: str = "constant",
    schedule_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    steps: int,
    clip_norm: float | int = 0.0,
) -> optax.GradientTransformation:
    """Build an optax optimiser and its schedule from names and plain values.

    Args:
        name: an optax optimiser, one of `optimiser_names()`, such as "adam".
        learning_rate: the schedule's main rate (see `make_schedule`), above 0.
        schedule: one of `schedule_names()`.
        schedule_options: further arguments of the schedule.
        options: further arguments of the optimiser, such as {"b1": 0.8}.
        steps: updates of the whole run, at least 1; the length of the schedule.
        clip_norm: largest global norm of the gradient; 0 is no clipping.

    Returns:
        A gradient transformation, tried on a small array, whose `update` needs no
        more than gradient, state and parameters.

    Raises:
        ValueError: an unknown name or option (the message has the nearest known
            one), a value out of range, or an optimiser that cannot run on gradients
            and parameters alone (`optax.lbfgs`).
    """
    known = optimiser_names()
    if name not in known:
        reason = "" if not hasattr(optax, name) else " (optax has it, but it is no optimiser)"
        raise ValueError(
            f"name must be an optax optimiser, got {name!r}{reason}; "
            f"{_suggest(name.removeprefix('scale_by_'), known)}"
        )
    if not 0 <= clip_norm < math.inf:
        raise ValueError(f"clip_norm must be at least 0, got {clip_norm}; 0 turns clipping off")
    rates = make_schedule(schedule, learning_rate, steps=steps, options=schedule_options)
    function = getattr(optax, name)
    arguments = dict(options or {})
    _check_arguments("options", name, function, arguments, {"learning_rate": "learning_rate"})
    fixed_rate = schedule in ("constant", "constant_schedule")  # all that rprop and sm3 accept
    rate: float | int | optax.Schedule = learning_rate if fixed_rate else rates
    try:
        optimiser = function(learning_rate=rate, **arguments)
        _try_update(optimiser)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"name={name!r} with options={arguments} and schedule={schedule!r} must run on "
            f"gradients and parameters alone, but optax says: {error}; correct the options, try "
            "schedule='constant', or choose another optimiser"
        ) from error
    if clip_norm > 0:
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimiser)
    return optimiser


def make_schedule(
    name: str,
    learning_rate: float | int,
    *,
    steps: int,
    options: Mapping[str, Any] | None = None,
) -> optax.Schedule:
    """Build a learning-rate schedule: a function of the step, counted from 0.

    `learning_rate` is the schedule's highest rate: its `peak_value` where it has one,
    else its `value` or `init_value`. `steps` is its `decay_steps` or `transition_steps`.
    What is left out of `options` is taken from optax, except

    ====================  =======================================================
    linear                end_value = 0
    exponential           decay_rate = 0.01: a hundredth of the rate at the end
    schedules with a      init_value = 0; warmup_steps = a twentieth of `steps`
    warm-up
    sgdr_schedule         peak_value = learning_rate in every cycle
    ====================  =======================================================

    Args:
        name: one of `schedule_names()`.
        learning_rate: the highest rate, above 0.
        steps: updates of the whole run, at least 1.
        options: further arguments of the optax schedule.

    Returns:
        The schedule; its rates at the first and the last step are finite.

    Raises:
        ValueError: an unknown name or option (the message has the nearest known
            one), a missing option, or a value out of range.
    """
    known = schedule_names()
    if name not in known:
        raise ValueError(
            f"schedule must be a schedule of optax, got {name!r}; {_suggest(name, known)}"
        )
    if not 0 < learning_rate < math.inf:
        raise ValueError(
            f"learning_rate must be finite and above 0, got {learning_rate}; for example 0.05"
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; it is the length of the run")
    function = getattr(optax.schedules, _SHORT_SCHEDULES.get(name, name))
    parameters = inspect.signature(function).parameters
    given = dict(options or {})
    main = next((key for key in ("peak_value", "value", "init_value") if key in parameters), None)
    defaults: dict[str, Any] = {"end_value": 0.0} if name in ("linear", "linear_schedule") else {}
    if name in ("exponential", "exponential_decay"):
        defaults["decay_rate"] = 0.01
    if "warmup_steps" in parameters:
        defaults |= {"init_value": 0.0, "warmup_steps": steps // 20}
    for key in ("decay_steps", "transition_steps"):
        if key in parameters:
            defaults[key] = steps
    fixed = {} if main is None else {main: learning_rate}
    _check_arguments(
        "schedule_options", name, function, given, dict.fromkeys(fixed, "learning_rate"), defaults
    )
    try:
        schedule = function(**{**defaults, **_with_cycles(given, learning_rate), **fixed})
        rates = [float(schedule(step)) for step in (0, steps - 1)]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"schedule={name!r} with schedule_options={given} and steps={steps}: optax says: "
            f"{error}; correct schedule_options"
        ) from error
    if not all(map(math.isfinite, rates)):
        raise ValueError(
            f"schedule={name!r} with schedule_options={given} must give finite learning rates, "
            f"got {rates[0]} at the first and {rates[1]} at the last of steps={steps}"
        )
    return schedule


def _with_cycles(options: dict[str, Any], learning_rate: float) -> dict[str, Any]:
    """Return options with what TOML cannot express: integer keys, and the rate of cycles."""
    options = dict(options)
    if isinstance(options.get("boundaries_and_scales"), Mapping):
        scales = options["boundaries_and_scales"]
        options["boundaries_and_scales"] = {int(step): scale for step, scale in scales.items()}
    if isinstance(options.get("cosine_kwargs"), list):
        cycles = options["cosine_kwargs"]
        options["cosine_kwargs"] = [{"peak_value": learning_rate, **cycle} for cycle in cycles]
    return options


def _check_arguments(
    argument: str,
    name: str,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    reserved: Mapping[str, str],
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Compare the names in `given` with the signature of an optax function.

    `reserved` maps a parameter to the argument of this module that sets it.

    Raises:
        ValueError: an option is unknown, set elsewhere or missing.
    """
    parameters = inspect.signature(function).parameters
    free = [key for key in parameters if key not in reserved]
    for key in given:
        if key in reserved:
            raise ValueError(
                f"{argument} of {name!r} must not hold {key!r}, got {given[key]!r}; set "
                f"{reserved[key]} instead"
            )
        if key not in free:
            raise ValueError(f"{argument} of {name!r} has no {key!r}; {_suggest(key, free)}")
    for key in free:
        required = parameters[key].default is inspect.Parameter.empty
        if required and key not in given and key not in (defaults or {}):
            raise ValueError(f"{argument} of {name!r} must hold {key!r}, got {dict(given)}; add it")


def _try_update(optimiser: optax.GradientTransformation) -> None:
    """Trace one update of a small array, without computing it."""
    params = jax.ShapeDtypeStruct((3, 2), jnp.float32)
    state = jax.eval_shape(optimiser.init, params)
    jax.eval_shape(lambda g, s, p: optimiser.update(g, s, p), params, state, params)


def _suggest(name: str, known: tuple[str, ...] | list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
