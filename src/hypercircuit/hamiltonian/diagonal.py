"""All 2^N entries of a compiled loss, for few qubits: the reference, never the training path.

Every term is a product over sites, so each half of the chain is tabulated by itself and a matrix
product over (example, term) joins the halves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .losses import Softmax, SquaredError
from .spectral import FourierSum

if TYPE_CHECKING:
    from .compile import LossHamiltonian

MAX_QUBITS = 24
_ENTRIES_AT_ONCE = 2**24


def diagonal(hamiltonian: LossHamiltonian) -> np.ndarray:
    """See [`hypercircuit.LossHamiltonian.diagonal`][]."""
    if hamiltonian.n_qubits > MAX_QUBITS:
        raise ValueError(
            f"a diagonal of {hamiltonian.n_qubits} qubits has 2^{hamiltonian.n_qubits} entries; "
            f"at most {MAX_QUBITS} qubits are written out, use an energy or losses(bits) instead"
        )
    if isinstance(hamiltonian.loss, SquaredError):
        return _squared(hamiltonian) / hamiltonian.n_examples
    if isinstance(hamiltonian.loss, Softmax):
        return _softmax(hamiltonian) / hamiltonian.n_examples
    return _one_output(hamiltonian) / hamiltonian.n_examples


def _weights(hamiltonian: LossHamiltonian, n_sites: int) -> np.ndarray:
    """The weights of all bitstrings of `n_sites` sites, (2^n_sites, n_sites)."""
    codes = np.arange(2**n_sites)[:, None] >> np.arange(n_sites)[::-1]
    encoding = hamiltonian.network.layers[0].encoding
    return encoding.low + encoding.step * (codes & 1)


def _block_logits(hamiltonian: LossHamiltonian, part: slice) -> np.ndarray:
    """What a block's bits make of each example, (n_examples, 2^fan_in)."""
    x = hamiltonian.inputs(np.arange(hamiltonian.n_examples)[part])
    return hamiltonian.network.logit_scale * x @ _weights(hamiltonian, x.shape[1]).T


def _parts(hamiltonian: LossHamiltonian, entries_each: int) -> list[slice]:
    size = max(1, _ENTRIES_AT_ONCE // entries_each)
    return [slice(i, i + size) for i in range(0, hamiltonian.n_examples, size)]


def _spread(total: np.ndarray, values: np.ndarray, block: int, n_outputs: int) -> None:
    """Add a function of one block's bits to the diagonal, in place."""
    size = len(values)
    total.reshape(size**block, size, size ** (n_outputs - 1 - block))[...] += values[:, None]


def _squared(hamiltonian: LossHamiltonian) -> np.ndarray:
    network = hamiltonian.network
    loss = hamiltonian.loss
    assert isinstance(loss, SquaredError)
    targets = loss.targets(hamiltonian.data.y, network.n_outputs)
    total = np.zeros(2**network.n_qubits)
    for part in _parts(hamiltonian, 2**network.register.fan_in):
        logits = _block_logits(hamiltonian, part)
        for block, output in enumerate(network.register.block_outputs):
            values = ((logits - targets[part, output, None]) ** 2).sum(0)
            _spread(total, values, block, network.n_outputs)
    return total


def _one_output(hamiltonian: LossHamiltonian) -> np.ndarray:
    spectrum = hamiltonian.spectrum
    assert spectrum is not None
    fan_in = hamiltonian.n_qubits
    scale = hamiltonian.network.logit_scale
    cut = fan_in // 2
    x = hamiltonian.inputs(np.arange(hamiltonian.n_examples))
    left = scale * x[:, :cut] @ _weights(hamiltonian, cut).T - spectrum.origin[:, None]
    right = scale * x[:, cut:] @ _weights(hamiltonian, fan_in - cut).T
    total = np.zeros((left.shape[1], right.shape[1]))
    # Terms of many examples side by side are the inner axis of one large real matrix product.
    at_once = max(1, _ENTRIES_AT_ONCE // (8 * max(len(t.coefficients) for t in spectrum.tables)))
    at_once = max(1, at_once // (left.shape[1] + right.shape[1]))
    for index, table in enumerate(spectrum.tables):
        rows = np.flatnonzero(spectrum.table == index)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            coefficients = table.coefficients[:, hamiltonian.data.y[part]].T
            first = _powers(table, left[part]) * coefficients[:, :, None]
            second = _powers(table, right[part])
            first, second = first.reshape(-1, left.shape[1]), second.reshape(-1, right.shape[1])
            first = np.concatenate([first.real, -first.imag])
            total += first.T @ np.concatenate([second.real, second.imag])
    return total.reshape(-1)


def _powers(table: FourierSum, logits: np.ndarray) -> np.ndarray:
    """The phases exp(i nu_k z) of every frequency, (examples, frequencies, bitstrings)."""
    n_terms = len(table.coefficients)
    base = np.exp(1j * table.spacing * logits)
    phases = np.empty((len(logits), n_terms, logits.shape[1]), complex)
    phases[:, 0] = 1
    for k in range(1, n_terms):
        np.multiply(phases[:, k - 1], base, out=phases[:, k])
    return phases


def _softmax(hamiltonian: LossHamiltonian) -> np.ndarray:
    spectrum = hamiltonian.spectrum
    assert spectrum is not None
    assert spectrum.integral is not None
    integral = spectrum.integral
    register = hamiltonian.network.register
    size, n_outputs = 2**register.fan_in, register.n_outputs
    cut = n_outputs // 2
    total = np.zeros((size**cut, size ** (n_outputs - cut)))
    flat = total.reshape(-1)
    for part in _parts(hamiltonian, size):
        logits = _block_logits(hamiltonian, part)
        labels = hamiltonian.data.y[part]
        for block, output in enumerate(register.block_outputs):
            values = -logits[labels == output].sum(0)
            _spread(flat, values, block, n_outputs)
        for i, row in enumerate(logits):
            example = part.start + i
            factor = _factors(
                spectrum.tables[spectrum.table[example]], row, spectrum.origin[example]
            )
            left = _outer([factor] * cut)
            right = _outer([factor] * (n_outputs - cut))
            total -= integral.step * (left.T @ right)
    return flat + integral.constants.sum() * hamiltonian.n_examples + spectrum.shift.sum()


def _factors(table: FourierSum, logits: np.ndarray, origin: float) -> np.ndarray:
    return table(logits - origin).T


def _outer(factors: list[np.ndarray]) -> np.ndarray:
    """The products of one entry of each factor, node by node: (n_nodes, product of sizes)."""
    result = np.ones((len(factors[0]), 1))
    for factor in factors:
        result = (result[:, :, None] * factor[:, None, :]).reshape(
            len(factor), math.prod((result.shape[1], factor.shape[1]))
        )
    return result
