"""The exact energy of networks with one hidden layer: two ways, picked once for a data set.

Where the light cones of all neurons are disjoint for every example, neurons are independent and
their expectations multiply (`hidden_separated.py`); otherwise, or with a skip connection or few
incoming weights, a vector is carried from neuron to neuron (`hidden_connected.py`). In states of
site tensors, whose bits are correlated at any distance, it always is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import AnyArray
from ..circuit import Chain, FreeMPS, Truncated
from ..hamiltonian import CHUNK, HiddenTerms, LossHamiltonian, Patterns
from ..state import ChainMPS, State
from .base import Batch, PreparedEnergy
from .hidden_chain import hidden_layout
from .hidden_connected import ConnectedHiddenWork, connected_hidden, plan_connected_hidden
from .hidden_separated import (
    SeparatedHiddenWork,
    in_chunks,
    neuron_groups,
    plan_separated_hidden,
    separated_hidden,
    separated_neurons,
    window_lists,
)

#: Bytes of matrices on the doubled bond beyond which an energy is refused.
MOST_BYTES = 2**33


def hidden_bytes(
    hamiltonian: LossHamiltonian, circuit: Truncated | FreeMPS, n_terms: int, dtype: np.dtype
) -> float:
    """Bytes of an energy and its gradient in site tensors, roughly.

    The maps of all sites, which take twice their own size while they are made and are read once by
    neuron; and one neuron's matrices at every frequency, real and imaginary, at about twice the
    root of its incoming weights as many sites (`segmented_scan`).
    """
    fan_in = hamiltonian.network.register.weights[0].shape[1]
    kept = 10 * hamiltonian.n_qubits + 4 * n_terms * fan_in**0.5
    return kept * circuit.doubled_bond**2 * dtype.itemsize


def hidden_operations(hamiltonian: LossHamiltonian, circuit: Truncated | FreeMPS) -> float:
    """Floating-point operations of the dearest example's energy in site tensors, roughly.

    The frequencies of every neuron are carried through its incoming weights as real and imaginary
    matrices on the doubled bond; patterns of few bits are all multiplied out.
    """
    terms = hamiltonian.terms
    assert isinstance(terms, HiddenTerms)
    most, n_levels, _ = largest_sizes(hamiltonian)
    n_hidden, fan_in = hamiltonian.network.register.weights[0].shape
    products = n_levels if isinstance(terms.basis, Patterns) else 4 * most * fan_in
    # The heads' frequencies meet the levels of every neuron, for every pattern of its own bits.
    met = 8.0 * terms.sum.n_terms * len(terms.heads) * n_levels * (1 + len(terms.summands.bits))
    return n_hidden * (4.0 * products * circuit.doubled_bond**3 + met * circuit.doubled_bond**2)


def largest_sizes(hamiltonian: LossHamiltonian) -> tuple[int, int, Bool[np.ndarray, " fan_in"]]:
    """Over all examples: the most frequencies and levels of a pre-activation, and which incoming
    weights have an input that is not always zero."""
    terms = hamiltonian.terms
    assert isinstance(terms, HiddenTerms)
    most = n_levels = 0
    active = np.zeros(hamiltonian.network.register.weights[0].shape[1], bool)
    for part in _in_parts(np.arange(hamiltonian.n_examples)):
        inputs = terms.neurons.inputs(hamiltonian.data, part)
        most = max(most, int(terms.basis.n_terms(terms.neurons, inputs).max()))
        n_levels = max(n_levels, terms.basis.n_levels(terms.neurons, inputs))
        active |= (inputs != 0).any(0)
    return most, n_levels, active


def _in_parts(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // 4096))


class HiddenBatch(Batch):
    """One batch of examples, planned on the host."""

    weights: Float[AnyArray, " n"]
    work: ConnectedHiddenWork | SeparatedHiddenWork


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """The largest sizes over all examples, which batches are padded to."""

    n_terms: int
    n_levels: int
    n_windows: int
    capacity: int


class HiddenEnergy(PreparedEnergy):
    """See [`hypercircuit.Exact`][]; for networks with one hidden layer.

    **Attributes:**

    - `separated`: whether neurons are independent for every example.

    **Raises:** `ValueError` for a state of site tensors whose matrices would not fit in memory.
    """

    site_tensors = True

    def __init__(
        self, hamiltonian: LossHamiltonian, circuit: Chain, batch_size: int, dtype: np.dtype
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        terms = hamiltonian.terms
        assert isinstance(terms, HiddenTerms)
        self.terms = terms
        self.layout = hidden_layout(hamiltonian)
        parts = _in_parts(np.arange(hamiltonian.n_examples))
        self.separated = not isinstance(terms.basis, Patterns) and self.layout.skip is None
        if isinstance(circuit, (Truncated, FreeMPS)):
            self.separated = False
        else:
            self._cells_per_window = 2 if self.circuit.reach <= 1 else 1
            self._groups = neuron_groups(self.layout, self._cells_per_window)
        if self.separated and self.circuit.correlation_range > 0:
            self.separated = all(
                separated_neurons(self.layout, self._inputs(part), self.circuit.reach).all()
                for part in parts
            )
        self._sizes = self._measure(parts)
        if isinstance(circuit, (Truncated, FreeMPS)):
            self._check_memory(circuit)

    def _check_memory(self, circuit: Truncated | FreeMPS) -> None:
        n_terms = 0 if isinstance(self.terms.basis, Patterns) else self._sizes.n_terms
        n_bytes = hidden_bytes(self.hamiltonian, circuit, n_terms, self.dtype)
        if n_bytes > MOST_BYTES:
            raise ValueError(
                f"the matrices on the doubled bond of {self.hamiltonian.n_qubits} sites at "
                f"max_bond={circuit.max_bond} take {n_bytes / 2**30:.1f} GiB, more than "
                f"{MOST_BYTES / 2**30:.0f} GiB; take a smaller bond, energy.kind='cumulant', or "
                "'sampled'"
            )

    def _inputs(self, examples: np.ndarray) -> np.ndarray:
        return self.terms.neurons.inputs(self.hamiltonian.data, examples)

    def _measure(self, parts: list[np.ndarray]) -> _Sizes:
        basis, neurons = self.terms.basis, self.terms.neurons
        counts, n_levels, n_windows = [], 0, 1
        for part in parts:
            inputs = self._inputs(part)
            counts.append(basis.n_terms(neurons, inputs))
            n_levels = max(n_levels, basis.n_levels(neurons, inputs))
            if self.separated:
                lists = self._lists(inputs)
                n_windows = max(n_windows, *(int(each.length.max()) for each in lists))
        n_terms = np.concatenate(counts)
        if not self.separated:
            return _Sizes(int(n_terms.max()), n_levels, 0, 0)
        chunks = np.sort(in_chunks(n_terms))[::-1]
        capacity = int(chunks[np.arange(self.batch_size) % len(chunks)].sum())
        return _Sizes(int(chunks[0]) * CHUNK, n_levels, n_windows, capacity)

    def _lists(self, inputs: np.ndarray) -> list:
        return window_lists(
            self.layout, self._groups, inputs, self._cells_per_window, self.circuit.reach
        )

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> HiddenBatch:
        examples, weights = self.filled(examples, weights)
        sizes = self._sizes
        # Rows that only fill up the batch get no work.
        wanted = weights != 0
        work: ConnectedHiddenWork | SeparatedHiddenWork
        if self.separated:
            work = plan_separated_hidden(
                self.hamiltonian,
                self.layout,
                self._groups,
                examples,
                wanted,
                cells_per_window=self._cells_per_window,
                reach=self.circuit.reach,
                capacity=sizes.capacity,
                n_windows=sizes.n_windows,
                most_chunks=sizes.n_terms // CHUNK,
                n_levels=sizes.n_levels,
                dtype=self.dtype,
            )
        else:
            work = plan_connected_hidden(
                self.hamiltonian,
                examples,
                wanted,
                n_terms=sizes.n_terms,
                n_levels=sizes.n_levels,
                dtype=self.dtype,
            )
        return HiddenBatch(weights, work)

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, HiddenBatch)
        if isinstance(batch.work, SeparatedHiddenWork):
            assert not isinstance(mps, ChainMPS)
            return separated_hidden(
                self.terms, self.layout, self._groups, self._cells_per_window, mps, batch.work
            )
        outgoing = self.hamiltonian.network.layers[1].encoding
        return connected_hidden(self.terms, self.layout, outgoing, mps, batch.work)
