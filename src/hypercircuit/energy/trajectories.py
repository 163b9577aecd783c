"""The energy of a noisy chain from trajectories, where the exact mixed state is too large."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._types import Angles
from ..circuit import Noise, Noisy, Truncated
from ..state.trajectories import trajectory_mps
from .base import Batch, PreparedEnergy
from .sampled import Estimate, SampledEnergy, mean_of

#: Trajectories with an error from which a standard error can be trusted.
ENOUGH_ERRING = 100


def erring_share(circuit: Noisy, n_qubits: int) -> float:
    """The probability that a trajectory has an error at all."""
    noise, (depth, _, kinds) = circuit.noise, circuit.shape(n_qubits)
    pairs = sum((n_qubits - layer % 2) // 2 for layer in range(2, depth + 1))
    calm = (1 - noise.one_qubit) ** (depth * n_qubits * kinds) * (1 - noise.two_qubit) ** pairs
    return float(1 - calm * (1 - noise.readout) ** n_qubits)


def too_few_trajectories(circuit: Noisy, n_qubits: int, n_trajectories: int) -> str:
    """A warning where so few trajectories err that their spread says little; else empty.

    Most trajectories have no error and give the same energy. A handful of others estimates the
    mean without bias, but a standard error from them is mostly too small.
    """
    share = erring_share(circuit, n_qubits)
    if share == 0 or share * n_trajectories >= ENOUGH_ERRING:
        return ""
    return (
        f"about {share * n_trajectories:.0f} of {n_trajectories} trajectories have an error, and "
        f"so few mostly understate the standard error; take at least "
        f"{math.ceil(ENOUGH_ERRING / share)} trajectories"
    )


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
    - `n_trajectories`: at least 2; the standard error falls as one over its square root. Where
      errors are rare, few trajectories understate it, see `too_few_trajectories`.
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
    def values(noise: Noise, params: Angles, batch: Batch) -> jax.Array:
        def one(own: PRNGKeyArray) -> jax.Array:
            state = trajectory_mps(Noisy(circuit.circuit, noise), params, own, truncated)
            return jnp.sum(batch.weights * prepared.of_state(state, batch))

        return jax.lax.map(one, keys, batch_size=min(at_once, n_trajectories))

    total = np.zeros(n_trajectories)
    for _, batch in prepared.batches(np.arange(prepared.hamiltonian.n_examples)):
        total += np.asarray(values(circuit.noise, params, batch), np.float64)
    return mean_of(total)
