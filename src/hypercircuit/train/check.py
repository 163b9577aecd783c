"""The errors of what is trained with, measured at every evaluation.

check_energy                         the energy on a fixed subset of the examples
check_energy_exact, check_error,     the exact energy on them, if there is one, the difference
check_error_max                      from it, and the largest difference of an example
check_standard_error                 of the energy, where networks are sampled; of an approximate
                                     energy's check_error, where only samples can be compared with
kl, kl_standard_error, beta          the penalty, if there is one
mpo_rms, mpo_max, mpo_compressions   of compressed operators: their error on networks drawn from the
                                     state (check_error is its mean), and how often they were made
mpo_rms_worst                        the largest of their errors since the last evaluation
"""

from __future__ import annotations

import jax
import numpy as np

from .._types import Angles
from ..circuit import Chain
from ..energy import (
    Contraction,
    EnergyKind,
    Exact,
    MPOEnergy,
    Sampled,
    SampledEnergy,
    Statevector,
    why_not_exact,
)
from ..hamiltonian import LossHamiltonian, QuadraticTerms
from ..state import prepare_state
from .objective import CHECK, CHECK_PENALTY, KLPenalty, step_key

#: Networks drawn to measure an approximate energy's error where there is no exact one.
_REFERENCE_SAMPLES = 256


class EnergyCheck:
    """Compares an energy with the exact one, where there is one, on examples drawn with `seed`."""

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        kind: EnergyKind,
        *,
        n_examples: int,
        seed: int,
        dtype: np.dtype,
    ) -> None:
        n_examples = min(n_examples, hamiltonian.n_examples)
        rows = np.random.default_rng(seed).permutation(hamiltonian.n_examples)[:n_examples]
        energy = kind.prepare(hamiltonian, circuit, batch_size=n_examples, dtype=dtype)
        self.seed, self._energy, self._batch = seed, energy, energy.batch(rows)
        self._values = energy.value_function()
        self._estimate = jax.jit(energy.estimate) if isinstance(energy, SampledEnergy) else None
        self._exact = self._sampled = None
        if why_not_exact(hamiltonian, circuit) is not None:
            if self._estimate is None:
                reference = Sampled(_REFERENCE_SAMPLES).prepare(
                    hamiltonian, circuit, batch_size=n_examples, dtype=dtype
                )
                assert isinstance(reference, SampledEnergy)
                self._sampled = (reference, jax.jit(reference.estimate), reference.batch(rows))
        else:
            exact = Exact().prepare(hamiltonian, circuit, batch_size=n_examples, dtype=dtype)
            self._exact = (exact.value_function(), exact.batch(rows))

    def measure(self, params: Angles, step: int) -> dict[str, float]:
        """The errors after `step` updates, by name."""
        batch = self._energy.with_key(self._batch, step_key(self.seed, CHECK, step))
        row: dict[str, float] = {}
        values = np.asarray(self._values(params, batch), np.float64)
        row["check_energy"] = float(values.mean())
        if self._estimate is not None:
            row["check_standard_error"] = float(self._estimate(params, batch).standard_error)
        if self._sampled is not None:
            reference, estimate, drawn = self._sampled
            key = step_key(self.seed, CHECK, step)
            found = estimate(params, reference.with_key(drawn, key))
            row["check_error"] = row["check_energy"] - float(found.value)
            row["check_standard_error"] = float(found.standard_error)
        if self._exact is not None:
            function, exact_batch = self._exact
            exact = np.asarray(function(params, exact_batch), np.float64)
            row["check_energy_exact"] = float(exact.mean())
            row["check_error"] = float((values - exact).mean())
            row["check_error_max"] = float(np.abs(values - exact).max())
        return row


class MPOCheck:
    """Measures compressed operators on networks drawn from the state."""

    def __init__(self, energy: MPOEnergy, seed: int) -> None:
        self.energy, self.seed = energy, seed

    def measure(self, params: Angles, step: int) -> dict[str, float]:
        """The errors after `step` updates, by name."""
        found = self.energy.measure(params, step_key(self.seed, CHECK, step))
        spread = max(found.rms**2 - found.mean**2, 0.0) ** 0.5
        return {
            "check_error": found.mean,
            "check_standard_error": spread / (found.n_networks - 1) ** 0.5,
            "mpo_rms": found.rms,
            "mpo_max": found.max,
            "mpo_compressions": float(self.energy.n_compressions),
        }


class PenaltyCheck:
    """Measures a penalty with samples that no update saw."""

    def __init__(self, circuit: Chain, penalty: KLPenalty, seed: int) -> None:
        self.penalty, self.seed = penalty, seed
        self._estimate = jax.jit(lambda p, key: penalty.estimate(prepare_state(circuit, p), key))

    def measure(self, params: Angles, step: int) -> dict[str, float]:
        """The divergence after `step` updates, and the beta of the last of them."""
        kl, error = self._estimate(params, step_key(self.seed, CHECK_PENALTY, step))
        beta = float(self.penalty.at(step - 1))
        return {"kl": float(kl), "kl_standard_error": float(error), "beta": beta}


def needs_check(kind: EnergyKind, hamiltonian: LossHamiltonian) -> bool:
    """Whether a strategy has an error of its own on this loss."""
    if isinstance(kind, (Exact, Statevector, Contraction)):
        return False
    # All strategies without samples take a squared error's moments exactly.
    return isinstance(kind, Sampled) or not isinstance(hamiltonian.terms, QuadraticTerms)
