"""All 2^N entries of a compiled loss, for few qubits: the reference, never the training path.

Every term is a product over sites, so each half of the chain is tabulated by itself and a matrix
product over (example, term) joins the halves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .hidden import HiddenTerms
from .hidden_diagonal import hidden_diagonal
from .losses import SquaredError, output_targets
from .spectral import FourierSum
from .terms import FourierTerms, QuadraticTerms, SectorTerms, Terms

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
    terms = hamiltonian.terms
    if isinstance(terms, SectorTerms):
        return _sectors(hamiltonian, terms)
    if isinstance(terms, QuadraticTerms):
        return _squared(hamiltonian) / hamiltonian.n_examples
    if isinstance(terms, FourierTerms):
        if terms.joint:
            return _joint(hamiltonian, terms) / hamiltonian.n_examples
        if hamiltonian.loss.form(hamiltonian.network.n_outputs) == "pairs":
            return _pairs(hamiltonian, terms) / hamiltonian.n_examples
        return _additive(hamiltonian, terms) / hamiltonian.n_examples
    if isinstance(terms, HiddenTerms):
        return hidden_diagonal(hamiltonian) / hamiltonian.n_examples
    raise ValueError(f"there is no compiled operator: {terms.describe()}")


def _sectors(hamiltonian: LossHamiltonian, terms: SectorTerms) -> np.ndarray:
    """Every setting's diagonal in the place of its bits, which lie at one end of the chain."""
    sites = hamiltonian.network.global_sites
    n_left = hamiltonian.n_qubits - len(sites)
    at_start = min(sites) == 0
    shape = (2 ** len(sites), 2**n_left) if at_start else (2**n_left, 2 ** len(sites))
    total = np.empty(shape)
    known: list[tuple[Terms, np.ndarray]] = []
    for sector in terms.sectors:
        inner = sector.hamiltonian
        values = next((values for each, values in known if each is inner.terms), None)
        if values is None:
            values = diagonal(inner)
            if isinstance(inner.terms, HiddenTerms):
                # It spans the whole chain; the choices' qubits play no role in it.
                values = values.reshape(shape)[(0,) if at_start else (slice(None), 0)]
            known.append((inner.terms, values))
        bits = [bit for _, bit in sorted(zip(sites, sector.bits, strict=True))]
        code = int("".join(map(str, bits)), 2)
        total[(code,) if at_start else (slice(None), code)] = values
    return total.reshape(-1)


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
    total = np.zeros(2 ** network.layers[0].n_bits)
    for part in _parts(hamiltonian, 2**network.register.blocks.fan_in):
        logits = _block_logits(hamiltonian, part)
        for block, output in enumerate(network.register.blocks.outputs):
            values = ((logits - targets[part, output, None]) ** 2).sum(0)
            _spread(total, values, block, network.n_outputs)
    return total


def _additive(hamiltonian: LossHamiltonian, terms: FourierTerms) -> np.ndarray:
    """Losses that add up over outputs, block by block, each block cut in two halves."""
    network = hamiltonian.network
    blocks = network.register.blocks
    scale = network.logit_scale
    cut = blocks.fan_in // 2
    x = hamiltonian.inputs(np.arange(hamiltonian.n_examples))
    left = scale * x[:, :cut] @ _weights(hamiltonian, cut).T - terms.origin[:, None]
    right = scale * x[:, cut:] @ _weights(hamiltonian, blocks.fan_in - cut).T
    targets = output_targets(hamiltonian.data.y, network.n_outputs).astype(int)
    parts = np.zeros((network.n_outputs, left.shape[1], right.shape[1]))
    # Terms of many examples side by side are the inner axis of one large real matrix product.
    at_once = max(1, _ENTRIES_AT_ONCE // (8 * max(len(t.coefficients) for t in terms.tables)))
    at_once = max(1, at_once // (left.shape[1] + right.shape[1]))
    for index, table in enumerate(terms.tables):
        rows = np.flatnonzero(terms.table == index)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            turned = _powers(table, left[part])
            second = _powers(table, right[part]).reshape(-1, right.shape[1])
            second = np.concatenate([second.real, second.imag])
            for output in range(network.n_outputs):
                coefficients = table.coefficients[:, targets[part, output]].T
                first = (turned * coefficients[:, :, None]).reshape(-1, left.shape[1])
                parts[output] += np.concatenate([first.real, -first.imag]).T @ second
    total = np.zeros(2 ** (network.n_outputs * blocks.fan_in))
    for block, output in enumerate(blocks.outputs):
        _spread(total, parts[output].reshape(-1), block, network.n_outputs)
    return total


def _powers(table: FourierSum, logits: np.ndarray) -> np.ndarray:
    """The phases exp(i nu_k z) of every frequency, (examples, frequencies, bitstrings)."""
    n_terms = len(table.coefficients)
    base = np.exp(1j * table.spacing * logits)
    phases = np.empty((len(logits), n_terms, logits.shape[1]), complex)
    phases[:, 0] = 1
    for k in range(1, n_terms):
        np.multiply(phases[:, k - 1], base, out=phases[:, k])
    return phases


def _pairs(hamiltonian: LossHamiltonian, terms: FourierTerms) -> np.ndarray:
    """Functions of the differences between the true class's logit and each other one."""
    blocks = hamiltonian.network.register.blocks
    size, n_blocks = 2**blocks.fan_in, len(blocks.outputs)
    logits = _block_logits(hamiltonian, slice(None))
    total = np.zeros((size,) * n_blocks)
    for i, label in enumerate(hamiltonian.data.y):
        table = terms.tables[terms.table[i]]
        frequencies = table.spacing * np.arange(len(table.coefficients))
        turned = np.exp(1j * np.outer(frequencies, logits[i]))
        start = np.exp(-1j * frequencies * terms.origin[i]) * table.coefficients[:, 1]
        own = int(np.flatnonzero(blocks.outputs == label)[0])
        values = ((start[:, None] * turned).T @ turned.conj()).real
        for other in range(n_blocks):
            if other != own:
                shape = [size if block in (own, other) else 1 for block in range(n_blocks)]
                total += (values if own < other else values.T).reshape(shape)
    return total.reshape(-1)


def _joint(hamiltonian: LossHamiltonian, terms: FourierTerms) -> np.ndarray:
    """Integrals or sums of products over all outputs: softmax and zero-one loss."""
    blocks = hamiltonian.network.register.blocks
    size, n_outputs = 2**blocks.fan_in, len(blocks.outputs)
    cut = n_outputs // 2
    total = np.zeros((size**cut, size ** (n_outputs - cut)))
    flat = total.reshape(-1)
    weight = terms.integral.step if terms.integral is not None else 1.0
    for part in _parts(hamiltonian, size):
        logits = _block_logits(hamiltonian, part)
        labels = hamiltonian.data.y[part]
        if terms.integral is not None:
            for block, output in enumerate(blocks.outputs):
                values = -logits[labels == output].sum(0)
                _spread(flat, values, block, n_outputs)
        for i, (row, label) in enumerate(zip(logits, labels, strict=True)):
            example = part.start + i
            factor = _factors(terms.tables[terms.table[example]], row, terms.origin[example])
            own, other = (
                (factor[: terms.ranks], factor[terms.ranks :])
                if terms.ranks
                else (
                    factor,
                    factor,
                )
            )
            each = [own if output == label else other for output in blocks.outputs]
            total -= weight * (_outer(each[:cut], len(own)).T @ _outer(each[cut:], len(own)))
    if terms.integral is not None:
        constant = terms.integral.constants.sum() * hamiltonian.n_examples + terms.shift.sum()
    else:
        constant = hamiltonian.n_examples
    return flat + constant


def _factors(table: FourierSum, logits: np.ndarray, origin: float) -> np.ndarray:
    return table(logits - origin).T


def _outer(factors: list[np.ndarray], n_nodes: int) -> np.ndarray:
    """The products of one entry of each factor, node by node: (n_nodes, product of sizes)."""
    result = np.ones((n_nodes, 1))
    for factor in factors:
        result = (result[:, :, None] * factor[:, None, :]).reshape(
            len(factor), math.prod((result.shape[1], factor.shape[1]))
        )
    return result
