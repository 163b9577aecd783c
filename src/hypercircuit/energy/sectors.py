"""Global architecture choices: one energy per setting, weighted with the setting's probability.

    <psi|C|psi> = sum_s p_s <psi_s|C_s|psi_s>,      psi_s = the state after s was measured

The choice qubits lie at one end of the chain, so that the state after measuring them differs from
the whole one in a few neighbouring cells only.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import AnyArray
from ..circuit import Chain
from ..hamiltonian import LossHamiltonian, SectorTerms
from ..state import State, condition
from .base import Batch, EnergyKind, PreparedEnergy


class SectorBatch(Batch):
    """One batch per setting of the choices."""

    weights: Float[AnyArray, " n"]
    sectors: tuple[Batch, ...]


class SectorEnergy(PreparedEnergy):
    """The energies of all settings, each in the state conditioned on it."""

    site_tensors = True

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        batch_size: int,
        dtype: np.dtype,
        strategy: EnergyKind,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        assert isinstance(hamiltonian.terms, SectorTerms)
        self.sites = hamiltonian.network.global_sites
        self.bits = [sector.bits for sector in hamiltonian.terms.sectors]
        self.energies = [
            strategy.prepare(sector.hamiltonian, circuit, batch_size=batch_size, dtype=dtype)
            for sector in hamiltonian.terms.sectors
        ]

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> SectorBatch:
        batches = tuple(energy.batch(examples, weights) for energy in self.energies)
        return SectorBatch(batches[0].weights, batches)

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, SectorBatch)
        total = jnp.zeros(len(batch.weights), mps.dtype)
        for bits, energy, inner in zip(self.bits, self.energies, batch.sectors, strict=True):
            probability, state = condition(mps, self.sites, bits)
            total = total + probability * energy.of_state(state, inner)
        return total
