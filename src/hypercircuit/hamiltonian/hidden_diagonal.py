"""All 2^N entries of a compiled loss of a network with one hidden layer.

A head's exponentials are products over hidden neurons, biases and skip weights. Each of these is
tabulated over its own bits for every example and frequency; the chain is cut between two of them,
and one matrix product over (example, frequency) joins the two halves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .hidden import HiddenTerms
from .hidden_basis import bit_patterns

if TYPE_CHECKING:
    from .compile import LossHamiltonian

_ENTRIES_AT_ONCE = 2**22


def hidden_diagonal(hamiltonian: LossHamiltonian) -> np.ndarray:
    """The sum over all examples, (2^N,)."""
    terms = hamiltonian.terms
    assert isinstance(terms, HiddenTerms)
    total = np.zeros((2,) * hamiltonian.n_qubits)
    heads, targets = terms.heads_of(np.asarray(hamiltonian.data.y))
    for number in range(len(terms.heads)):
        examples, place = np.nonzero(heads == number)
        sites, values = _head(hamiltonian, terms, number, examples, targets[examples, place])
        shape = np.ones(hamiltonian.n_qubits, int)
        shape[sites] = 2
        total += values.reshape(shape)
    return total.reshape(-1)


def _head(
    hamiltonian: LossHamiltonian,
    terms: HiddenTerms,
    number: int,
    examples: np.ndarray,
    targets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The sites that matter to a head, in order, and its summed loss over their bits."""
    sites = _factor_sites(hamiltonian, terms, number)
    first = np.array([each.min() if len(each) else -1 for each in sites])
    order = np.argsort(first, kind="stable")
    cumulated = np.cumsum([len(sites[i]) for i in order])
    cut = int(np.argmin(np.maximum(cumulated, cumulated[-1] - cumulated))) + 1
    n_left = int(cumulated[cut - 1])
    n_right = int(cumulated[-1]) - n_left
    result = np.zeros((2**n_left, 2**n_right))
    n_terms = terms.sum.n_terms
    largest = n_terms * 2 ** max(n_left, n_right)
    at_once = max(1, _ENTRIES_AT_ONCE // largest)
    for start in range(0, len(examples), at_once):
        part = slice(start, start + at_once)
        factors = _factors(hamiltonian, terms, number, examples[part])
        ordered = [_sorted_bits(factors[i], sites[i]) for i in order]
        left = _product(terms, ordered[:cut], len(examples[part]))
        right = _product(terms, ordered[cut:], len(examples[part]))
        weights = terms.sum.coefficients[:, targets[part]].T
        result += _join(terms, left, right, weights)
    return np.sort(np.concatenate(sites)), result.reshape(-1)


def _factor_sites(
    hamiltonian: LossHamiltonian, terms: HiddenTerms, number: int
) -> list[np.ndarray]:
    """The sites of every hidden neuron, of the head's biases and of its skip weights."""
    network = hamiltonian.network
    register = network.register
    outputs = [int(each) for each in terms.heads[number] if each >= 0]
    incoming, outgoing = register.weights
    sites = [
        np.concatenate(
            [incoming[h], *(choice[h] for choice in register.choices), outgoing[outputs, h]]
        )
        for h in range(len(incoming))
    ]
    if network.layers[1].bias:
        sites.append(outgoing[outputs, -1])
    if register.skip is not None:
        sites.append(register.skip[outputs].ravel())
    return sites


def _factors(
    hamiltonian: LossHamiltonian, terms: HiddenTerms, number: int, examples: np.ndarray
) -> list[np.ndarray]:
    """What every factor's bits make of each example and term, (examples, terms, patterns)."""
    network = hamiltonian.network
    summands = terms.summands
    neuron = _neuron(hamiltonian, terms, examples)
    factors = [neuron] * network.layers[0].n_outputs
    if network.layers[1].bias:
        real, imag = terms.sum.factors(summands.bias)
        factors.append(np.broadcast_to(real + 1j * imag, (len(examples), *real.shape)))
    if network.register.skip is not None:
        encoding = network.layers[1].encoding
        x = terms.neurons.inputs(hamiltonian.data, examples)[:, : network.n_inputs]
        signed = np.concatenate([x, -x], axis=1) if terms.paired else x
        bits = bit_patterns(signed.shape[1])
        values = summands.skip_factor * signed @ (encoding.low + encoding.step * bits).T
        real, imag = terms.sum.factors(values)
        factors.append(np.moveaxis(real + 1j * imag, 0, 1))
    return factors


def _neuron(hamiltonian: LossHamiltonian, terms: HiddenTerms, examples: np.ndarray) -> np.ndarray:
    """A hidden neuron's factor, incoming bits before its own, (examples, terms, patterns)."""
    neurons = terms.neurons
    inputs = neurons.inputs(hamiltonian.data, examples)
    n_terms = terms.basis.n_terms(neurons, inputs)
    cardinals = terms.basis.cardinals(neurons, inputs, n_terms)
    # (terms, examples, own patterns, levels)
    real, imag = terms.turns(cardinals.values)
    levels = np.moveaxis(real + 1j * imag, 0, 1)
    if cardinals.frequency is not None and cardinals.coefficients is not None:
        sums = inputs @ bit_patterns(inputs.shape[1]).T
        resolved = np.empty((len(inputs), sums.shape[1], levels.shape[-1]))
        for i, frequency in enumerate(cardinals.frequency):
            phase = np.outer(sums[i], frequency)
            weights = cardinals.coefficients[i]
            resolved[i] = np.cos(phase) @ weights.real - np.sin(phase) @ weights.imag
        levels = np.einsum("nkpt,nwt->nkpw", levels, resolved, optimize=True)
    return np.swapaxes(levels, 2, 3).reshape(len(inputs), terms.sum.n_terms, -1)


def _sorted_bits(factor: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """The same with bits in the order of their sites."""
    shape = factor.shape
    axes = np.argsort(sites, kind="stable")
    if (np.diff(axes) > 0).all():
        return factor
    split = factor.reshape(*shape[:2], *(2,) * len(sites))
    return split.transpose(0, 1, *(axes + 2)).reshape(shape)


def _product(terms: HiddenTerms, factors: list[np.ndarray], n: int) -> np.ndarray:
    """The product of neighbouring factors over all their bits."""
    result = np.zeros((n, terms.sum.n_terms, 1), complex)
    result[:, 0 if terms.sum.frequency is None else slice(None)] = 1
    for factor in factors:
        if terms.sum.frequency is None:
            product = np.zeros((n, 3, result.shape[2], factor.shape[2]), complex)
            for i in range(3):
                for j in range(3 - i):
                    product[:, i + j] += result[:, i, :, None] * factor[:, j, None, :]
        else:
            product = result[:, :, :, None] * factor[:, :, None, :]
        result = product.reshape(n, terms.sum.n_terms, -1)
    return result


def _join(
    terms: HiddenTerms, left: np.ndarray, right: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """``Re sum_nk c_nk (left_nk right_nk)`` over the bits of both halves."""
    if terms.sum.frequency is None:
        total = np.zeros((left.shape[2], right.shape[2]))
        for i in range(3):
            for j in range(3 - i):
                total += (left[:, i] * weights[:, i + j, None]).real.T @ right[:, j].real
        return total
    weighted = (left * weights[:, :, None]).reshape(-1, left.shape[2])
    flat = right.reshape(-1, right.shape[2])
    return weighted.real.T @ flat.real - weighted.imag.T @ flat.imag
