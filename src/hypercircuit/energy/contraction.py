"""Energies of circuits on graphs: product terms contracted through quimb's cotengra.

Every structure (the light cone of one output's sites, and the axes that its operators carry) has
one path, which all examples, terms and steps share; see `hypercircuit.state.contraction`.

    losses that add up over outputs   a term is one frequency of one example and output
    losses of all outputs together    a term is one example; the frequencies of every output and the
                                      nodes of the integral are axes of the network
    one hidden layer                  a term is one example; heads, their frequencies and those of
                                      every neuron are axes of the network
    squared errors                    a term is one example; the first two derivatives in e of
                                      <exp(e z)> at e = 0 are the moments of z
    settings of global choices        the same with projectors on the choices' qubits
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Angles
from ..circuit import Ansatz, Noisy
from ..hamiltonian import FourierTerms, HiddenTerms, LossHamiltonian, QuadraticTerms, SectorTerms
from ..state.contraction import Budget, ContractionCost
from ..state.paths import PathSearch
from .base import Batch
from .contraction_blocks import ContractionEnergy
from .contraction_hidden import HiddenContraction
from .contraction_losses import AdditiveContraction, JointContraction, QuadraticContraction
from .sectors import SectorBatch


@dataclasses.dataclass(frozen=True)
class Contraction:
    """The exact energy on any graph; its only error is the compiled loss's spectral error.

    **Arguments:**

    - `max_bytes`: memory for the tensors of one contraction and its gradient. Terms are cut into
      batches and contractions into slices that keep it; what cannot be cut is refused.
    - `max_flops`: floating-point operations that value and gradient of one batch of examples may
      take; more are refused.
    - `repeats`: contraction trees tried for every structure.
    - `cache`: folder of the paths found, `hypercircuit/paths` in the user's cache folder if left
      out. Different searches do not mix in it.

    **Raises:** `ValueError` for a number that is not positive.
    """

    max_bytes: float = 2e9
    max_flops: float = 1e13
    repeats: int = 8
    cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _ = self.budget, self.search

    @property
    def name(self) -> str:
        return "contraction"

    @property
    def budget(self) -> Budget:
        return Budget(self.max_bytes, self.max_flops)

    @property
    def search(self) -> PathSearch:
        return PathSearch(self.repeats, self.cache)

    def prepare(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> ContractionEnergy:
        """Find the paths for batches of `batch_size` examples.

        **Raises:** `ValueError` if the budget cannot be kept, saying by how much, or for a loss
        without product terms.
        """
        if isinstance(circuit, Noisy):
            raise ValueError(
                "contractions have no errors of gates, got a noisy circuit; take Exact(), or the "
                "circuit without noise"
            )
        energy = _energy(
            hamiltonian, circuit, batch_size, np.dtype(dtype), self.budget, self.search, {}
        )
        energy.cost.check(self.budget)
        return energy

    def estimate(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> ContractionCost:
        """What `prepare` would accept or refuse: the cost of one batch, before any of it is run."""
        return _energy(
            hamiltonian, circuit, batch_size, np.dtype(dtype), self.budget, self.search, {}
        ).cost


def _energy(
    hamiltonian: LossHamiltonian,
    circuit: Ansatz,
    batch_size: int,
    dtype: np.dtype,
    budget: Budget,
    search: PathSearch,
    fixed: Mapping[int, int],
) -> ContractionEnergy:
    """The energy of a loss by its structure; for the arguments see `ContractionEnergy`."""
    terms = hamiltonian.terms
    kind: type[ContractionEnergy]
    if isinstance(terms, SectorTerms):
        kind = SectorContraction
    elif isinstance(terms, QuadraticTerms):
        kind = QuadraticContraction
    elif isinstance(terms, FourierTerms):
        kind = JointContraction if terms.joint else AdditiveContraction
    elif isinstance(terms, HiddenTerms):
        kind = HiddenContraction
    else:
        raise ValueError(
            f"Contraction() takes losses with product terms, got {terms.describe()}; sample the "
            "network, Sampled() with Brickwork"
        )
    return kind(hamiltonian, circuit, batch_size, dtype, budget, search, fixed)


class SectorContraction(ContractionEnergy):
    """Global choices: every setting's loss times the projector on the choices' qubits."""

    def plan(self) -> ContractionCost:
        assert isinstance(self.hamiltonian.terms, SectorTerms)
        sites = self.hamiltonian.network.global_sites
        self._energies = [
            _energy(
                sector.hamiltonian,
                self.circuit,
                self.batch_size,
                self.dtype,
                self.budget,
                self.search,
                dict(zip(sites, sector.bits, strict=True)),
            )
            for sector in self.hamiltonian.terms.sectors
        ]
        first, *others = (energy.cost for energy in self._energies)
        return sum(others, first)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> SectorBatch:
        batches = tuple(energy.batch(examples, weights) for energy in self._energies)
        return SectorBatch(batches[0].weights, batches)

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, SectorBatch)
        parts = [
            energy.per_example(params, inner)
            for energy, inner in zip(self._energies, batch.sectors, strict=True)
        ]
        return jnp.stack(parts).sum(0)
