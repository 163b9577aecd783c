"""L-BFGS as steps of one evaluation each, for many members side by side.

The direction is optax's `scale_by_lbfgs`. optax's own line search, a loop inside an update, makes
every member of a vmapped batch wait for the longest search and evaluates both branches of its
search at every step (4 to 12 times slower here). This one is unrolled over time instead: a step
evaluates one trial point, and then either moves there or narrows the interval [low, high] of step
lengths t, for the weak Wolfe conditions

    f(t) <= f(0) + 1e-4 t f'(0)      else high = t, t from a parabola or the middle
    f'(t) >= 0.9 f'(0)               else low = t, t doubled or the middle

(Lewis and Overton, Math. Program. 141, 135 (2013)); where rounding hides the descent, the first
condition is that of Hager and Zhang, on slopes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from .._types import Angles

_DECREASE, _CURVATURE = 1e-4, 0.9
_MOST_TRIALS = 30


class Search(eqx.Module):
    """The current point, the direction from it, and what the line search knows."""

    params: Float[Array, "*places depth n_qubits kinds"]
    value: Float[Array, "*places"]
    gradient: Float[Array, "*places depth n_qubits kinds"]
    direction: Float[Array, "*places depth n_qubits kinds"]
    memory: Any
    trial: Float[Array, "*places"]
    low: Float[Array, "*places"]
    high: Float[Array, "*places"]
    n_trials: Int[Array, "*places"]


@dataclasses.dataclass(frozen=True)
class LBFGS:
    """L-BFGS with a line search of one evaluation a step.

    **Arguments:**

    - `memory_size`: updates that the curvature is estimated from.

    **Raises:** `ValueError` for a memory of less than one update.
    """

    memory_size: int = 10

    def __post_init__(self) -> None:
        if self.memory_size < 1:
            raise ValueError(f"memory_size must be at least 1, got {self.memory_size}")

    def init(self, params: Angles) -> Search:
        """A search whose first step evaluates `params` and moves nowhere."""
        memory = optax.scale_by_lbfgs(self.memory_size).init(params)
        zero, nowhere = jnp.zeros((), params.dtype), jnp.zeros_like(params)
        count = jnp.zeros((), int)
        infinite = zero + jnp.inf
        return Search(params, infinite, nowhere, nowhere, memory, zero, zero, infinite, count)

    def step(
        self, search: Search, value_fn: Callable[[Angles], jax.Array]
    ) -> tuple[Search, Bool[Array, ""], Bool[Array, ""]]:
        """Evaluate one trial point: the next search, whether it moved, whether it gave up."""
        slope = _dot(search.direction, search.gradient)
        trial = search.params + search.trial * search.direction
        value, gradient = jax.value_and_grad(value_fn)(trial)
        end_slope = _dot(search.direction, gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(end_slope)
        rise = value - search.value
        decreased = rise <= _DECREASE * search.trial * slope
        noise = 100 * jnp.finfo(value.dtype).eps * jnp.abs(search.value)
        flat = (rise <= noise) & (end_slope <= (2 * _DECREASE - 1) * slope)
        short = finite & (decreased | flat)
        accepted = short & (end_slope >= _CURVATURE * slope) | jnp.isinf(search.value)
        given_up = ~accepted & (search.n_trials + 1 >= _MOST_TRIALS)
        # A point that only ran out of trials is still good if it is lower.
        moved = accepted | (given_up & short & (rise < 0))
        given_up = given_up & ~moved

        low = jnp.where(short, search.trial, search.low)
        high = jnp.where(short, search.high, search.trial)
        parabola = -slope * search.trial**2 / (2 * (rise - slope * search.trial))
        inside = jnp.clip(parabola, 0.1 * search.trial, 0.5 * search.trial)
        inside = jnp.where(finite & (low == 0), inside, (low + high) / 2)
        following = jnp.where(jnp.isfinite(high), inside, 2 * search.trial)
        narrowed = dataclasses.replace(
            search, trial=following, low=low, high=high, n_trials=search.n_trials + 1
        )
        there = self._from(trial, value, gradient, search.memory)
        chosen = jax.tree.map(lambda a, b: jnp.where(moved, a, b), there, narrowed)
        return chosen, moved, given_up

    def _from(self, params: Angles, value: jax.Array, gradient: Angles, memory: Any) -> Search:
        update = optax.scale_by_lbfgs(self.memory_size).update
        scaled, memory = update(gradient, memory, params)
        descends = _dot(scaled, gradient) > 0
        direction = -jnp.where(descends, scaled, gradient)
        zero, one = jnp.zeros_like(value), jnp.ones_like(value)
        count = jnp.zeros((), int)
        return Search(params, value, gradient, direction, memory, one, zero, one * jnp.inf, count)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b)
