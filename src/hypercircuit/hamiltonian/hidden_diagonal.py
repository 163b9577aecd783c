"""All 2^N entries of a compiled loss of a network with one hidden layer.

A head is a sum over hidden neurons, biases and skip weights, all neurons alike: its distinct values
are those of an `Arrangement`. There are two ways from there.

* Where pre-activations are resolved exactly, the head's loss is a function of its value, looked up
  for every distinct value and example.
* Otherwise, and where that is less work, every exponential is a product over neurons: the chain
  is cut in two halves, and a matrix product over (example, frequency) joins their products.

Examples that occur several times are evaluated once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int

from .arrangement import Arrangement
from .hidden import HiddenTerms
from .hidden_basis import Patterns, bit_patterns
from .hidden_values import Cubics, cubics

if TYPE_CHECKING:
    from .compile import LossHamiltonian

_ENTRIES_AT_ONCE = 2**19
_VALUES_AT_ONCE = 2**16
#: The degrees that meet in a product of two jets.
_DEGREES = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0))
#: What looking up a value costs, in terms of a matrix product of complex numbers.
_LOOKUP = 60

#: What a factor's bits make of each example and term.
Table = Complex[np.ndarray, "_ examples terms"]


def hidden_diagonal(hamiltonian: LossHamiltonian) -> Float[np.ndarray, " n_networks"]:
    """The sum over all examples, (2^N,)."""
    terms = hamiltonian.terms
    assert isinstance(terms, HiddenTerms)
    total = np.zeros((2,) * hamiltonian.n_qubits)
    x, y = np.asarray(hamiltonian.data.x), np.asarray(hamiltonian.data.y)
    _, distinct, counts = np.unique(
        np.column_stack([y, x]), axis=0, return_index=True, return_counts=True
    )
    heads, targets = terms.heads_of(y[distinct])
    losses = cubics(terms.sum) if terms.basis.exact else None
    for number in range(len(terms.heads)):
        rows, place = np.nonzero(heads == number)
        sites = _factor_sites(hamiltonian, terms, number)
        order = np.argsort([each.min() if len(each) else -1 for each in sites], kind="stable")
        n_bits = [len(sites[i]) for i in order]
        # All neurons are of one kind.
        n_neurons = hamiltonian.network.layers[0].n_outputs
        kinds = [max(0, int(i) - n_neurons + 1) for i in order]
        of_kinds = [sites[0], *sites[n_neurons:]]
        head = _Head(distinct[rows], targets[rows, place], counts[rows], of_kinds)
        whole = Arrangement.of(kinds, n_bits)
        halves = _halves(kinds, n_bits)
        products = halves[0].size * halves[1].size * terms.sum.n_terms
        if losses is not None and _LOOKUP * whole.size <= products:
            values = _looked_up(hamiltonian, terms, head, whole, losses)
        else:
            values = _joined(hamiltonian, terms, head, halves)
        shape = np.ones(hamiltonian.n_qubits, int)
        shape[np.concatenate(sites)] = 2
        total += values.reshape(shape)
    return total.reshape(-1)


class _Head(NamedTuple):
    """One head's examples.

    **Attributes:**

    - `examples`, `targets`, `counts`: their rows, their targets and how often each occurs.
    - `sites`: the sites of one factor of every kind.
    """

    examples: Int[np.ndarray, " n"]
    targets: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " n"]
    sites: list[np.ndarray]

    def sort(self, tables: list[np.ndarray]) -> list[np.ndarray]:
        """Every kind's table with its bits in the order of their sites."""
        return [_sorted_bits(*each) for each in zip(tables, self.sites, strict=True)]


def _halves(kinds: list[int], n_bits: list[int]) -> tuple[Arrangement, Arrangement]:
    """The arrangement cut into two of about as many bits."""
    cumulated = np.cumsum(n_bits)
    cut = int(np.argmin(np.maximum(cumulated, cumulated[-1] - cumulated))) + 1
    return Arrangement.of(kinds[:cut], n_bits[:cut]), Arrangement.of(kinds[cut:], n_bits[cut:])


def _looked_up(
    hamiltonian: LossHamiltonian,
    terms: HiddenTerms,
    head: _Head,
    whole: Arrangement,
    losses: list[Cubics],
) -> np.ndarray:
    """A head's summed loss for all patterns of its bits, value by value."""
    total = np.zeros(whole.size)
    at_once = max(1, _VALUES_AT_ONCE // whole.size)
    tabulated = max(1, _ENTRIES_AT_ONCE // max(2 ** len(each) for each in head.sites))
    for target, loss in enumerate(losses):
        mine = np.flatnonzero(head.targets == target)
        for rows in (mine[i : i + tabulated] for i in range(0, len(mine), tabulated)):
            tables = head.sort(_summands(hamiltonian, terms, head.examples[rows]))
            for start in range(0, len(rows), at_once):
                part = slice(start, start + at_once)
                counts = head.counts[rows[part]]
                some = [each[:, part] for each in tables]
                values = whole.combine(some, np.add, np.zeros(len(counts)))
                total += np.einsum("vn,n->v", loss(values), counts)
    return total[whole.place]


def _joined(
    hamiltonian: LossHamiltonian,
    terms: HiddenTerms,
    head: _Head,
    halves: tuple[Arrangement, Arrangement],
) -> np.ndarray:
    """A head's summed loss for all patterns of its bits, from products of exponentials."""
    total = np.zeros((halves[0].size, halves[1].size))
    at_once = max(1, _ENTRIES_AT_ONCE // (terms.sum.n_terms * max(total.shape)))
    jets = terms.sum.frequency is None
    join = _jet_product if jets else np.multiply
    for start in range(0, len(head.examples), at_once):
        part = slice(start, start + at_once)
        examples = head.examples[part]
        tables = head.sort(_factors(hamiltonian, terms, examples))
        one = np.zeros((len(examples), terms.sum.n_terms), complex)
        one[:, 0 if jets else slice(None)] = 1
        left, right = (half.combine(tables, join, one) for half in halves)
        weights = terms.sum.coefficients[:, head.targets[part]].T * head.counts[part, None]
        total += _join(terms, left, right, weights)
    return total[halves[0].place[:, None], halves[1].place].reshape(-1)


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


def _added(
    hamiltonian: LossHamiltonian, terms: HiddenTerms, examples: np.ndarray
) -> list[Float[np.ndarray, "_ examples"]]:
    """What the biases and the skip weights add to a head, as far as there are any."""
    network = hamiltonian.network
    added = []
    if network.layers[1].bias:
        bias = terms.summands.bias[:, None]
        added.append(np.broadcast_to(bias, (len(bias), len(examples))))
    if network.register.skip is not None:
        encoding = network.layers[1].encoding
        x = terms.neurons.inputs(hamiltonian.data, examples)[:, : network.n_inputs]
        signed = np.concatenate([x, -x], axis=1) if terms.paired else x
        weights = encoding.low + encoding.step * bit_patterns(signed.shape[1])
        added.append(terms.summands.skip_factor * weights @ signed.T)
    return added


def _summands(
    hamiltonian: LossHamiltonian, terms: HiddenTerms, examples: np.ndarray
) -> list[Float[np.ndarray, "_ examples"]]:
    """What a neuron, the biases and the skip weights add to a head."""
    neurons, summands = terms.neurons, terms.summands
    inputs = neurons.inputs(hamiltonian.data, examples)
    none = np.zeros(len(inputs), np.int64)
    values = Patterns(inputs.shape[1]).cardinals(neurons, inputs, none).values
    # (examples, own patterns, incoming patterns)
    neuron = summands.factor[:, None] * values[:, summands.encoding, summands.function]
    neuron = np.ascontiguousarray(neuron.transpose(2, 1, 0)).reshape(-1, len(inputs))
    return [neuron, *_added(hamiltonian, terms, examples)]


def _factors(hamiltonian: LossHamiltonian, terms: HiddenTerms, examples: np.ndarray) -> list[Table]:
    """What a neuron, the biases and the skip weights turn every term into."""
    factors = [_neuron(hamiltonian, terms, examples)]
    for values in _added(hamiltonian, terms, examples):
        real, imag = terms.sum.factors(values)
        factors.append(np.moveaxis(real + 1j * imag, 0, -1))
    return factors


def _neuron(hamiltonian: LossHamiltonian, terms: HiddenTerms, examples: np.ndarray) -> Table:
    """A hidden neuron's table, incoming bits before its own."""
    neurons = terms.neurons
    inputs = neurons.inputs(hamiltonian.data, examples)
    n_terms = terms.basis.n_terms(neurons, inputs)
    cardinals = terms.basis.cardinals(neurons, inputs, n_terms)
    # (terms, examples, own patterns, levels)
    real, imag = terms.turns(cardinals.values)
    levels = real + 1j * imag
    if cardinals.frequency is not None and cardinals.coefficients is not None:
        sums = inputs @ bit_patterns(inputs.shape[1]).T
        resolved = np.empty((len(inputs), sums.shape[1], levels.shape[-1]))
        for i, frequency in enumerate(cardinals.frequency):
            phase = np.outer(sums[i], frequency)
            weights = cardinals.coefficients[i]
            resolved[i] = np.cos(phase) @ weights.real - np.sin(phase) @ weights.imag
        levels = np.einsum("knpt,nwt->knpw", levels, resolved, optimize=True)
    # (terms, examples, own patterns, incoming patterns)
    table = np.ascontiguousarray(levels.transpose(3, 2, 1, 0))
    return table.reshape(-1, *table.shape[2:])


def _sorted_bits(table: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """The same with bits in the order of their sites."""
    axes = np.argsort(sites, kind="stable")
    split = table.reshape(*(2,) * len(sites), *table.shape[1:])
    rest = range(len(sites), split.ndim)
    return split.transpose(*axes, *rest).reshape(table.shape)


def _jet_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of polynomials, cut off after the second degree."""
    product = np.zeros(np.broadcast_shapes(a.shape, b.shape), complex)
    for i, j in _DEGREES:
        product[..., i + j] += a[..., i] * b[..., j]
    return product


def _join(terms: HiddenTerms, left: Table, right: Table, weights: np.ndarray) -> np.ndarray:
    """``Re sum_nk c_nk (left_nk right_nk)`` over the products of both halves."""
    if terms.sum.frequency is None:
        total = np.zeros((len(left), len(right)))
        for i, j in _DEGREES:
            total += (left[..., i] * weights[:, i + j]).real @ right[..., j].real.T
        return total
    # Real and imaginary parts side by side: Re(a b) is the scalar product of conj(a) and b.
    weighted = np.conj(left * weights).reshape(len(left), -1).view(float)
    return weighted @ right.reshape(len(right), -1).view(float).T
