"""The energy of a noisy chain from trajectories, where the exact mixed state is too large."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._types import Angles
from ..circuit import Noisy, Truncated
from ..state.trajectories import trajectory_mps
from .base import Batch, PreparedEnergy
from .sampled import Estimate, SampledEnergy, mean_of


def trajectory_energy(
    prepared: PreparedEnergy,
    circuit: Noisy,
    params: Angles,
    key: PRNGKeyArray,
    n_trajectories: int = 256,
    *,
    at_once: int = 16,
) -> Estimate:
    """The mean energy of independent trajectories and its standard error; unbiased.

    **Arguments:**

    - `prepared`: an energy of the complete data that makes no sampling error of its own, prepared
      for the circuit without noise, `kind.prepare(hamiltonian, circuit.circuit, ...)`, or for that
      of a bounded bond, `Truncated(circuit.circuit, max_bond)`: then trajectories are truncated,
      and the error does not count what truncation changes.
    - `key`: of the errors.
    - `n_trajectories`: at least 2; the standard error falls as one over its square root.
    - `at_once`: trajectories computed side by side.

    **Raises:** `ValueError` for fewer trajectories, or an energy prepared otherwise.
    """
    if n_trajectories < 2:
        raise ValueError(
            f"n_trajectories must be at least 2, got {n_trajectories}; one has no standard error"
        )
    if isinstance(prepared, SampledEnergy):
        raise ValueError(
            "trajectories need an energy without samples, got Sampled(); take Statevector() or "
            "Exact(), or sampled_energy of the noisy circuit"
        )
    truncated = prepared.circuit if isinstance(prepared.circuit, Truncated) else None
    if circuit.circuit != (prepared.circuit if truncated is None else truncated.circuit):
        raise ValueError(
            f"the energy is prepared for {prepared.circuit}, the trajectories are those of "
            f"{circuit.circuit}; prepare it for the circuit without noise"
        )
    keys = jax.random.split(key, n_trajectories)

    @jax.jit
    def values(params: Angles, batch: Batch) -> jax.Array:
        def one(own: PRNGKeyArray) -> jax.Array:
            state = trajectory_mps(circuit, params, own, truncated)
            return jnp.sum(batch.weights * prepared.of_state(state, batch))

        return jax.lax.map(one, keys, batch_size=min(at_once, n_trajectories))

    total = np.zeros(n_trajectories)
    for _, batch in prepared.batches(np.arange(prepared.hamiltonian.n_examples)):
        total += np.asarray(values(params, batch), np.float64)
    return mean_of(total)
