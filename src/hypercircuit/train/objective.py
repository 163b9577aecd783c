"""What training minimises: the energy, or the energy and a penalty on the Born distribution.

With q(w) = |<w|psi>|^2 and a product prior over the bits, prior(w) = prod_j prior_j(w_j),

    objective = E_q[loss] + beta * KL(q || prior),    KL = E_q[log q(w) - log prior(w)].

Losses are means over n examples, so beta = 1 / n is the evidence lower bound of n independent
examples (divided by -n). Samples come with their log-probabilities, and since E_q[grad log q] = 0,

    grad KL = E_q[(log q - log prior - b) grad log q].
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from .._types import Angles, AnyArray
from ..energy import Batch, Estimate, PreparedEnergy, log_derivative, mean_of
from ..state import State, prepare_state, sample

#: What a step's random keys are for.
ENERGY, PENALTY, CHECK, CHECK_PENALTY = range(4)


def step_key(seed: int, purpose: int, step: ArrayLike) -> PRNGKeyArray:
    """A random key that is a function of the seed, of what it is for and of the step."""
    # The key of the seed itself draws the start angles and, once training ends, networks.
    key = jax.random.fold_in(jax.random.key(seed), 2**20 + purpose)
    return jax.random.fold_in(key, step)


@dataclasses.dataclass(frozen=True, eq=False)
class KLPenalty:
    """``beta * KL(Born distribution || product prior)``, in nats of the whole register.

    **Arguments:**

    - `beta`: a number, at least 0, or a schedule: an optax-like function of the number of updates
      done. In units of the loss per nat; 1 / (number of examples) is the evidence lower bound.
    - `prior`: the probability of bit 1, within (0, 1): of all qubits, or one per qubit.
    - `n_samples`: networks drawn per step, at least 2; they are not those of a sampled energy.

    **Raises:** `ValueError` for a value out of range.
    """

    beta: float | Callable[[ArrayLike], ArrayLike]
    prior: float | Float[AnyArray, " n_qubits"] = 0.5
    n_samples: int = 64

    def __post_init__(self) -> None:
        first = float(self.at(0))
        if not (math.isfinite(first) and first >= 0):
            what = "start at" if callable(self.beta) else "be"
            raise ValueError(f"beta must {what} a finite number of at least 0, got {first}")
        prior = np.asarray(self.prior, np.float64)
        wrong = prior[~((prior > 0) & (prior < 1))]
        if wrong.size:
            raise ValueError(
                f"prior must lie within (0, 1), got {wrong.flat[0]}; networks that the prior "
                "rules out would cost infinitely much"
            )
        if self.n_samples < 2:
            raise ValueError(
                f"n_samples must be at least 2, got {self.n_samples}; with one there is neither "
                "a baseline nor a standard error"
            )

    def at(self, step: ArrayLike) -> Float[Array, ""]:
        """Beta after `step` updates."""
        return jnp.asarray(self.beta(step) if callable(self.beta) else self.beta, float)

    def check(self, n_qubits: int) -> None:
        """Raise `ValueError` if the prior is for another number of qubits."""
        shape = np.shape(self.prior)
        if shape not in ((), (n_qubits,)):
            raise ValueError(
                f"prior must hold one probability per qubit ({n_qubits}), got shape {shape}"
            )

    def log_prior(self, bits: Integer[AnyArray, "n n_qubits"]) -> Float[Array, " n"]:
        """The natural log of every network's prior probability."""
        ones = np.broadcast_to(np.asarray(self.prior, np.float64), bits.shape[1:])
        zeros, slope = np.log1p(-ones), np.log(ones) - np.log1p(-ones)
        return zeros.sum() + (bits * jnp.asarray(slope, float)).sum(1)

    def of_state(self, mps: State, key: PRNGKeyArray) -> Float[Array, ""]:
        """An unbiased estimate of the divergence, in nats, with an unbiased gradient."""
        excess, log_probabilities = self._sampled(mps, key)
        return log_derivative(excess, log_probabilities)

    def estimate(self, mps: State, key: PRNGKeyArray) -> Estimate:
        """The value of `of_state` and its standard error."""
        return mean_of(self._sampled(mps, key)[0])

    def _sampled(self, mps: State, key: PRNGKeyArray) -> tuple[jax.Array, jax.Array]:
        bits, log_probabilities = sample(mps, key, self.n_samples)
        excess = log_probabilities - self.log_prior(bits).astype(log_probabilities.dtype)
        return excess, log_probabilities

    def describe(self) -> str:
        """The settings in one line; what a checkpoint compares."""
        steps = (0, 1, 10, 100, 1000, 10_000)
        several = callable(self.beta)
        beta = " ".join(f"{float(self.at(step)):g}" for step in (steps if several else (0,)))
        prior = f"{self.prior:g}" if np.ndim(self.prior) == 0 else _digest(self.prior)
        return f"KL with beta {beta}, prior {prior}, {self.n_samples} samples"


def _digest(prior: AnyArray) -> str:
    return hashlib.sha256(np.asarray(prior, np.float64).tobytes()).hexdigest()[:12]


class Parts(NamedTuple):
    """What an objective is made of.

    **Attributes:**

    - `energy`: of the batch.
    - `penalty`: the divergence, `kl`, from this step's samples, and its weight, `beta`; empty
      without a penalty.
    """

    energy: Float[Array, ""]
    penalty: dict[str, Float[Array, ""]]


class Objective:
    """The function of the angles that a step descends; all randomness comes from `seed` and step.

    **Arguments:**

    - `energy`: prepared for the batches.
    - `penalty`: or None for the energy alone.
    - `seed`: of the keys.

    **Raises:** `ValueError` if the prior is for another number of qubits.
    """

    def __init__(self, energy: PreparedEnergy, penalty: KLPenalty | None, seed: int) -> None:
        if penalty is not None:
            if energy.graphs:
                raise ValueError(
                    "a KL penalty draws networks from a chain in every step, which contractions do "
                    "not offer; leave the penalty out (objective.beta=0), or take Brickwork and "
                    "another energy"
                )
            penalty.check(energy.hamiltonian.n_qubits)
        self.energy, self.penalty, self.seed = energy, penalty, seed

    def __call__(
        self, params: Angles, batch: Batch, step: Integer[AnyArray, ""]
    ) -> tuple[Float[Array, ""], Parts]:
        """The objective after `step` updates, and its parts; pure and differentiable."""
        batch = self.energy.with_key(batch, step_key(self.seed, ENERGY, step))
        energy = self.energy(params, batch)
        if self.penalty is None:
            return energy, Parts(energy, {})
        mps = prepare_state(self.energy.circuit, params)
        divergence = self.penalty.of_state(mps, step_key(self.seed, PENALTY, step))
        beta = self.penalty.at(step).astype(energy.dtype)
        return energy + beta * divergence, Parts(energy, {"kl": divergence, "beta": beta})
