"""What errors do to a trained state: the same angles under growing noise, every network counted."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Angles, AnyArray
from ..bnn import Network
from ..circuit import Brickwork, Noise, Noisy
from ..data import Dataset
from ..energy import PreparedEnergy
from ..energy.base import Batch
from ..energy.dense import probability_halves
from ..hamiltonian import Loss
from ..state import exact_mps

#: Networks whose outputs are computed side by side.
_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Resilience:
    """States of one circuit under errors; axes (multipliers, states).

    **Attributes:**

    - `multipliers`: factors on the rates of the gates' errors.
    - `energies`: mean loss, in the loss's unit per example.
    - `best_probabilities`: that one of the best networks is drawn.
    - `accuracies`: expected share of examples that a drawn network classifies correctly.
    """

    multipliers: Float[np.ndarray, " multipliers"]
    energies: Float[np.ndarray, "multipliers states"]
    best_probabilities: Float[np.ndarray, "multipliers states"]
    accuracies: Float[np.ndarray, "multipliers states"]


def resilience(
    circuit: Brickwork,
    params: Float[AnyArray, "states depth n_qubits kinds"],
    noise: Noise,
    multipliers: Float[np.ndarray, " multipliers"],
    losses: Float[np.ndarray, " networks"],
    accuracies: Float[np.ndarray, " networks"],
    *,
    distance: float = 1e-4,
) -> Resilience:
    """Re-evaluate the angles of several states at every multiplier of the errors of gates, exactly.

    **Arguments:**

    - `noise`: the errors at multiplier 1; those of the readout are not multiplied.
    - `losses`, `accuracies`: of every network, site 0 the most significant bit.
    - `distance`: the best networks are those at most this far above the smallest loss.

    **Raises:** `ValueError` if the exact mixed state is too large.
    """
    best = losses <= losses.min() + distance
    columns = np.stack([losses, best, accuracies], axis=1)

    @jax.jit
    def evaluate(multiplier: Float[Array, ""], params: Float[Array, "states ..."]) -> jax.Array:
        rates = (multiplier * noise.one_qubit, multiplier * noise.two_qubit)
        noisy = Noisy(circuit, Noise(*rates, jnp.asarray(noise.readout)))

        def one(own: Angles) -> jax.Array:
            left, right = probability_halves(exact_mps(noisy, own))
            return (left @ right.T).reshape(-1) @ jnp.asarray(columns, own.dtype)

        return jax.lax.map(one, params)

    params = jnp.asarray(params)
    found = [evaluate(jnp.asarray(each, params.dtype), params) for each in multipliers]
    table = np.asarray(jnp.stack(found), np.float64)
    return Resilience(np.asarray(multipliers), table[..., 0], table[..., 1], table[..., 2])


def mixed_energies(
    prepared: PreparedEnergy,
    circuit: Brickwork,
    params: Float[AnyArray, "states depth n_qubits kinds"],
    noise: Noise,
    multipliers: Float[np.ndarray, " multipliers"],
) -> Float[np.ndarray, "multipliers states"]:
    """The energies alone, exact in the doubled picture, of any number of qubits.

    **Arguments:**

    - `prepared`: `Exact().prepare(hamiltonian, Noisy(circuit, noise), ...)`.

    **Raises:** `ValueError` if the exact mixed state is too large.
    """

    @jax.jit
    def evaluate(multiplier: Float[Array, ""], own: Angles, batch: Batch) -> jax.Array:
        # Without errors after CX the doubled bond is smaller: that is known before compilation.
        two_qubit = multiplier * noise.two_qubit if noise.two_qubit else 0.0
        rates = (multiplier * noise.one_qubit, two_qubit, jnp.asarray(noise.readout))
        mps = exact_mps(Noisy(circuit, Noise(*rates)), own)
        return jnp.sum(batch.weights * prepared.of_state(mps, batch))

    found = np.zeros((len(multipliers), len(params)))
    for _, batch in prepared.batches(np.arange(prepared.hamiltonian.n_examples)):
        for row, multiplier in enumerate(multipliers):
            for column, own in enumerate(params):
                at = jnp.asarray(multiplier, own.dtype)
                found[row, column] += float(evaluate(at, jnp.asarray(own), batch))
    return found


def every_accuracy(network: Network, loss: Loss, data: Dataset) -> Float[np.ndarray, " networks"]:
    """The accuracy of all 2^n_qubits networks on `data`, site 0 the most significant bit."""
    n_qubits = network.n_qubits
    x = data.x.astype(np.float32, copy=False)
    shifts = np.arange(n_qubits)[::-1]
    found = np.zeros(2**n_qubits)
    for start in range(0, 2**n_qubits, _AT_ONCE):
        codes = np.arange(start, min(start + _AT_ONCE, 2**n_qubits))
        bits = (codes[:, None] >> shifts & 1).astype(np.uint8)
        predicted = loss.predict(network.logits(bits, x, step=data.step))
        found[codes] = (predicted == data.y).mean(-1)
    return found
