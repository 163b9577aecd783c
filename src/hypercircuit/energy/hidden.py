"""The exact energy of networks with one hidden layer."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

from .._types import AnyArray
from ..circuit import Brickwork
from ..hamiltonian import HiddenTerms, LossHamiltonian
from ..state import ExactMPS
from .base import Batch, PreparedEnergy
from .hidden_chain import hidden_layout
from .hidden_connected import ConnectedHiddenWork, connected_hidden, plan_connected_hidden


class HiddenBatch(Batch):
    """One batch of examples, planned on the host."""

    weights: Float[AnyArray, " n"]
    work: ConnectedHiddenWork


class HiddenEnergy(PreparedEnergy):
    """See [`hypercircuit.Exact`][]; for networks with one hidden layer."""

    def __init__(
        self, hamiltonian: LossHamiltonian, circuit: Brickwork, batch_size: int, dtype: np.dtype
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        terms = hamiltonian.terms
        assert isinstance(terms, HiddenTerms)
        self.terms = terms
        self.layout = hidden_layout(hamiltonian)
        rows = np.arange(hamiltonian.n_examples)
        parts = [
            terms.neurons.inputs(hamiltonian.data, part)
            for part in np.array_split(rows, -(-len(rows) // 4096))
        ]
        self._n_terms = max(int(terms.basis.n_terms(terms.neurons, part).max()) for part in parts)
        self._n_levels = max(terms.basis.n_levels(terms.neurons, part) for part in parts)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> HiddenBatch:
        examples, weights = self.filled(examples, weights)
        work = plan_connected_hidden(
            self.hamiltonian,
            examples,
            weights != 0,
            n_terms=self._n_terms,
            n_levels=self._n_levels,
            dtype=self.dtype,
        )
        return HiddenBatch(weights, work)

    def of_state(self, mps: ExactMPS, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, HiddenBatch)
        outgoing = self.hamiltonian.network.layers[1].encoding
        return connected_hidden(self.terms, self.layout, outgoing, mps, batch.work)
