"""The diagnostics of a trained state: entanglement, correlations, and what truncation cost.

Truncation is judged by the same parameters at twice the bond dimension, and exactly where the
circuit is shallow enough, or all networks of all examples can be enumerated. If the error at least
halves with every doubling,

    |E(chi) - E| <= 2 |E(chi) - E(2 chi)|,

which is the estimate where the exact state is out of reach. The differences d_i of examples are
measured on n of the N examples that the energy is a mean over. Where n < N, three standard errors
of their mean are added before the factor f (2, or 1 of the exact state), so that the error is that
of all the examples, and it is never below the rounding of the energy::

    error = f (|mean_i d_i| + 3 std(d_i) / sqrt(n)) + 3 standard errors of energies that are sampled

Enumeration takes all N examples, and the error is the difference itself.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from .._types import Angles
from ..bnn import Network
from ..circuit import Ansatz, Chain, Graph, Noisy, Truncated
from ..energy import (
    Cumulant,
    EnergyKind,
    Exact,
    Sampled,
    SampledEnergy,
    Statevector,
    why_not_exact,
)
from ..hamiltonian import LossHamiltonian
from ..state import ChainMPS, State, prepare_state
from ..state.diagnostics import (
    MOST_MEASURED,
    PAIR_REACH,
    correlation_decay,
    entanglement,
    mutual_information,
    pair_information,
)

#: Exact bonds up to this are evaluated for comparison.
_EXACT_BOND = 8
#: All networks of circuits of so many qubits are, if their examples have so many losses.
_EXACT_QUBITS = 20
_EXACT_LOSSES = 2**33
_SAMPLES = 1024
#: Energies are equal up to so many units of rounding.
_ROUNDING = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnostics:
    """What is known about a trained state.

    **Attributes:**

    - `numbers`: a few of them, for result.json.
    - `arrays`: the profiles, for an npz file: `entropy` (nats) and `spectrum` by bond,
      `correlations` by distance, `discarded` by layer and bond, `mutual_information` (nats) of
      architecture qubits and every qubit.
    """

    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray]


def diagnose(
    hamiltonian: LossHamiltonian,
    circuit: Ansatz,
    params: Angles,
    *,
    n_examples: int = 100,
    seed: int = 0,
) -> Diagnostics:
    """Everything about the state that a chain makes of `params`.

    **Arguments:**

    - `hamiltonian`: of the examples whose mean energy the error is reported for.
    - `n_examples`: of those energies that truncation errors are measured with, drawn with `seed`;
      two if it is less. The error is for all examples of `hamiltonian` nevertheless, see the
      module; `difference_standard_error` is what the other examples leave open of the mean
      difference, 0 if none is left out.

    **Raises:** `ValueError` for a graph and for a noisy circuit.
    """
    if isinstance(circuit, Graph):
        raise ValueError(
            f"diagnostics are those of matrix product states, got a {circuit.describe()}"
        )
    if isinstance(circuit, Noisy):
        raise ValueError(
            "diagnostics are those of pure states, got a noisy circuit; take a run without [noise]"
        )
    state = jax.jit(lambda p: prepare_state(circuit, p))(params)
    found, decay = entanglement(state), correlation_decay(state)
    numbers: dict[str, Any] = {
        "max_entropy": float(found.entropy.max(initial=0.0)),
        "mean_entropy": float(found.entropy.mean()) if len(found.entropy) else 0.0,
        "max_entropy_bond": int(found.entropy.argmax()) if len(found.entropy) else None,
        "correlation_length": decay.length if np.isfinite(decay.length) else None,
        "norm_error": abs(found.norm - 1),
    }
    arrays = {
        "entropy": found.entropy,
        "spectrum": found.spectrum,
        "correlations": decay.profile,
    }
    numbers |= _architecture(hamiltonian.network, state, arrays)
    if isinstance(circuit, Truncated):
        assert isinstance(state, ChainMPS)
        arrays["discarded"] = np.asarray(state.discarded, np.float64)
        numbers |= _weights(circuit, arrays["discarded"])
        numbers |= _truncation(hamiltonian, circuit, params, state, n_examples, seed)
    return Diagnostics(numbers, arrays)


def discarded_weights(circuit: Truncated, params: Angles) -> dict[str, Any]:
    """The squared norm that truncation throws away: `discarded_weight`, summed over layers and
    bonds, `max_discarded_weight`, the largest at one bond of one layer, and `discarded_weight_is`:
    "exact", or "estimated" by the scheme "parallel" where its truncations act on each other.
    """
    state = jax.jit(lambda p: prepare_state(circuit, p))(params)
    assert isinstance(state, ChainMPS)
    return _weights(circuit, np.asarray(state.discarded, np.float64))


def _weights(circuit: Truncated, discarded: np.ndarray) -> dict[str, Any]:
    return {
        "discarded_weight": float(discarded.sum()),
        "max_discarded_weight": float(discarded.max(initial=0.0)),
        "discarded_weight_is": "estimated" if circuit.scheme == "parallel" else "exact",
    }


def _architecture(network: Network, state: State, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the architecture qubits share with the others, as numbers and in `arrays`.

    The choices of the network and its layers are measured all together; those of neurons, which are
    many and lie among their weights, one by one, which is a lower bound.
    """
    together = sorted(map(int, network.global_sites))
    every = sorted(map(int, network.register.architecture))
    if not every:
        return {}
    numbers: dict[str, Any] = {"architecture_sites": every}
    shared = np.full(network.n_qubits, np.nan)
    single = sorted(set(every) - set(together))
    if len(together) > MOST_MEASURED:
        single, together = every, []
    if together:
        shared = mutual_information(state, together)
        # A pure state's two parts share twice the entropy of the cut between them.
        entropy, cut = arrays["entropy"], together[-1] if together[0] == 0 else together[0] - 1
        if 0 <= cut < len(entropy):
            numbers["architecture_quantum_information"] = 2 * float(entropy[cut])
    if single:
        shared = np.fmax(shared, pair_information(state, single))
    numbers["architecture_measured"] = [
        *(["choices of the network and its layers, together"] if together else []),
        *([f"qubits one by one, within {PAIR_REACH} sites"] if single else []),
    ]
    others = np.nan_to_num(np.delete(shared, every))
    arrays["mutual_information"] = shared
    numbers["max_mutual_information"] = float(others.max(initial=0.0))
    numbers["sum_mutual_information"] = float(others.sum())
    numbers["mutual_information_is"] = "at least" if single else "exactly"
    return numbers


def _truncation(
    hamiltonian: LossHamiltonian,
    circuit: Truncated,
    params: Angles,
    state: ChainMPS,
    n_examples: int,
    seed: int,
) -> dict[str, Any]:
    """The energy and the overlap with less truncation, and with none where that is possible."""
    n_examples = max(2, n_examples)  # one has no standard error
    rows = np.random.default_rng(seed).permutation(hamiltonian.n_examples)[:n_examples]
    part = hamiltonian.subset(np.sort(rows))
    wider = dataclasses.replace(circuit, max_bond=2 * circuit.max_bond)
    kind = _kind(part, wider)
    own, own_error = _energies(kind, part, circuit, params, seed)
    better, better_error = _energies(kind, part, wider, params, seed)
    sampling = own_error + better_error
    difference, factor = own - better, 2
    source = "twice the difference from twice the bond dimension"
    numbers: dict[str, Any] = {
        "compared_examples": part.n_examples,
        "compared_energy_kind": kind.name,
        "energy_at_max_bond": float(own.mean()),
        "energy_at_twice_max_bond": float(better.mean()),
        "log_overlap_with_twice_max_bond": _log_overlap(
            state, jax.jit(lambda p: prepare_state(wider, p))(params)
        ),
    }
    exact = circuit.circuit
    if exact.max_bond <= _EXACT_BOND and (
        why_not_exact(part, exact) is None or not isinstance(kind, Exact)
    ):
        values, error = _energies(kind, part, exact, params, seed)
        sampling = own_error + error
        difference, factor, source = own - values, 1, "the exact state"
        numbers["energy_exact"] = float(values.mean())
        whole = jax.jit(lambda p: prepare_state(exact, p))(params)
        numbers["log_overlap_with_exact"] = _log_overlap(state, whole)
    open_ = 0.0
    if _enumerable(hamiltonian):
        values, own = _enumerated(hamiltonian, (exact, circuit), params)
        sampling, difference, factor = 0.0, own - values, 1
        source = "the exact state, all networks enumerated"
        numbers["energy_of_all"], numbers["energy_of_all_exact"] = float(own[0]), float(values[0])
    elif part.n_examples < hamiltonian.n_examples:
        open_ = float(difference.std(ddof=1)) / math.sqrt(part.n_examples)
        source += " and three standard errors over examples"
    rounding = _ROUNDING * float(np.finfo(params.dtype).eps) * abs(float(own.mean()))
    error = factor * (abs(float(difference.mean())) + 3 * open_) + sampling
    return numbers | {
        "difference_standard_error": open_,
        "energy_error": max(error, rounding),
        "energy_error_examples": hamiltonian.n_examples,
        "energy_error_from": source,
    }


def _enumerable(hamiltonian: LossHamiltonian) -> bool:
    n_qubits = hamiltonian.n_qubits
    return n_qubits <= _EXACT_QUBITS and hamiltonian.n_examples * 2**n_qubits <= _EXACT_LOSSES


def _enumerated(
    hamiltonian: LossHamiltonian, circuits: tuple[Chain, ...], params: Angles
) -> list[np.ndarray]:
    """The energy of all examples in the states of some circuits, arrays of one number."""
    size, dtype = hamiltonian.n_examples, np.dtype(params.dtype)
    energies = [
        Statevector().prepare(hamiltonian, circuit, batch_size=size, dtype=dtype)
        for circuit in circuits
    ]
    batch = energies[0].batch(np.arange(size))
    return [np.array([jax.jit(energy)(params, batch)], np.float64) for energy in energies]


def _kind(hamiltonian: LossHamiltonian, circuit: Chain) -> EnergyKind:
    """What energies are compared with: without noise where that is possible."""
    if why_not_exact(hamiltonian, circuit) is None:
        return Exact()
    return Sampled(_SAMPLES) if hamiltonian.network.n_hidden else Cumulant(2)


def _energies(
    kind: EnergyKind, hamiltonian: LossHamiltonian, circuit: Chain, params: Angles, seed: int
) -> tuple[np.ndarray, float]:
    """The energy of every example, and three standard errors of the mean where it is sampled."""
    size = min(100, hamiltonian.n_examples)
    energy = kind.prepare(hamiltonian, circuit, batch_size=size, dtype=np.dtype(params.dtype))
    function, error = energy.value_function(), 0.0
    values = []
    for rows, batch in energy.batches(np.arange(hamiltonian.n_examples)):
        batch = energy.with_key(batch, jax.random.key(seed))
        values.append(np.asarray(function(params, batch), np.float64)[: len(rows)])
        if isinstance(energy, SampledEnergy):
            error += 3 * float(energy.estimate(params, batch).standard_error)
    return np.concatenate(values), error


def _log_overlap(one: Any, other: Any) -> float:
    """The natural log of ``|<one|other>|^2`` of two normalised states, on the host."""
    log, carried = 0.0, np.ones((1, 1), complex)
    for a, b in zip(one.tensors(), other.tensors(), strict=True):
        half = np.tensordot(carried, np.asarray(a, complex).conj(), axes=(0, 0))
        carried = np.tensordot(half, np.asarray(b, complex), axes=((0, 1), (0, 1)))
        size = np.abs(carried).max()
        if size == 0:
            return float("-inf")
        log, carried = log + np.log(size), carried / size
    return float(2 * (log + np.log(abs(carried[0, 0]))))
