"""The contracted energy of a network with one hidden layer, whatever ties its neurons together.

An example's loss is a sum over heads e and frequencies k of products over neurons, and a neuron's
factor a sum over the frequencies m of its pre-activation (`hamiltonian/hidden.py`):

    sum_(e, k) C_ek  prod_h [ sum_m V_k(m, own bits of h) prod_j exp(i mu_m x_j bit_j) ]
                     prod_a exp(i nu_k x_a value(bit_a))             (biases, skip connections)

All of these are axes of one network per example: k and e are shared by everything, m by the
incoming weights of one neuron, and V holds the neuron's own bits as axes. One structure serves all
heads: every outgoing weight has the axis of its neuron's bit, and a factor that is one unless it
leads to the head's output. Where the levels are patterns of few incoming weights, their bits are
axes of V in place of m. A squared error takes two derivatives in s of <exp(s o)> at s = 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Angles, AnyArray
from ..hamiltonian import HiddenTerms
from ..state.contraction import ContractionCost, in_batches
from ..state.schedule import TERMS
from .base import Batch
from .contraction_blocks import ContractionEnergy, turns, with_derivatives
from .hidden import largest_sizes
from .hidden_connected import ConnectedHiddenWork, plan_connected_hidden

_M, _E, _K, _FIRST, _SECOND, _BIT = "m", "e", "k", "first", "second", "bit"


class HiddenContractionBatch(Batch):
    """One batch of examples, planned on the host."""

    weights: Float[AnyArray, " n"]
    work: ConnectedHiddenWork


class HiddenContraction(ContractionEnergy):
    """Losses that add up over the outputs of a network with one hidden layer, or pairs of them."""

    def plan(self) -> ContractionCost:
        terms, network = self.hamiltonian.terms, self.hamiltonian.network
        assert isinstance(terms, HiddenTerms)
        self._terms = terms
        n_terms, n_levels, active = largest_sizes(self.hamiltonian)
        self._n_terms, self._n_levels = n_terms, n_levels
        register = network.register
        incoming, outgoing = register.weights
        n_hidden, fan_in = incoming.shape
        self._n_hidden = n_hidden
        # One of the incoming weights at least carries the axis of the frequencies.
        active[0] |= not active.any()
        patterns = n_terms == 0
        self._active = np.arange(fan_in) if patterns else np.flatnonzero(active)
        labels: dict[int, tuple[str, ...]] = {}
        bits: list[list[str]] = [[] for _ in range(n_hidden)]
        #: Rows of the incoming weights' factors in the order of the sites.
        self._incoming = _in_site_order(
            incoming[:, self._active], np.arange(len(self._active))[None]
        )
        choices = np.concatenate([np.zeros((n_hidden, 0), int), *register.choices], axis=1)
        bit_sites = np.concatenate([incoming, choices], 1) if patterns else choices
        for h in range(n_hidden):
            if not patterns:
                labels |= {int(s): (TERMS, f"{_M}:{h}") for s in incoming[h, self._active]}
            for place, site in enumerate(bit_sites[h].tolist()):
                labels[site] = (f"{_BIT}:{h}.{place}",)
                bits[h].append(f"{_BIT}:{h}.{place}")
            ends = [_FIRST, _SECOND] if terms.paired else [_FIRST]
            bits[h] += [f"{end}:{h}" for end in ends]
            own = (TERMS, _E, *(f"{end}:{h}" for end in ends))
            labels |= {int(site): own for site in outgoing[:, h]}
        self._n_bits = n_hidden * bit_sites.shape[1]
        outputs = np.arange(network.n_outputs)[:, None]
        self._outgoing = _in_site_order(outgoing[:, :n_hidden], outputs)
        self._added = self._added_sites()
        labels |= {int(site): (TERMS, _E, _K) for site in self._added[0]}
        each = terms.heads_of(np.zeros(1, int))[0].shape[1]
        own_m = [] if patterns else [_M]
        sizes = {_E: each, _K: self._n_frequencies}
        sizes |= {f"{_M}:{h}": 2 * n_terms - 1 for h in range(n_hidden) if not patterns}
        sizes |= dict.fromkeys((bit for own in bits for bit in own), 2)
        self._lines, placed = self.cone(labels)
        self._network = self.network(
            self._lines,
            placed,
            self.batch_size,
            sizes,
            extras=(
                [(TERMS, _K, *(f"{m}:{h}" for m in own_m), *bits[h]) for h in range(n_hidden)],
                [(TERMS, _E, _K)],
            ),
            output=(TERMS, _E),
            order=0 if terms.sum.frequency is not None else 2,
        )
        return self._network.cost

    @property
    def _n_frequencies(self) -> int:
        """Of a head; a squared error is one exponential, whose derivatives are taken."""
        return 1 if self._terms.sum.frequency is None else self._terms.sum.n_terms

    def _added_sites(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sites of biases and skip connections, in rising order, with output and input.

        The input behind the last one is 1.
        """
        network = self.hamiltonian.network
        register, n_inputs = network.register, network.n_inputs
        found = [np.zeros((3, 0), int)]
        outputs = np.arange(network.n_outputs)
        if network.layers[1].bias:
            found.append(np.stack([register.weights[1][:, -1], outputs, 0 * outputs + n_inputs]))
        if register.skip is not None:
            inputs = self._active[self._active < n_inputs]
            grid = np.meshgrid(outputs, inputs, indexing="ij")
            found.append(np.stack([register.skip[:, inputs], *grid]).reshape(3, -1))
        sites, output, input_ = np.concatenate(found, axis=1)
        order = np.argsort(sites)
        return sites[order], output[order], input_[order]

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> Batch:
        examples, weights = self.filled(examples, weights)
        work = plan_connected_hidden(
            self.hamiltonian,
            examples,
            weights != 0,
            n_terms=self._n_terms,
            n_levels=self._n_levels,
            dtype=self.dtype,
        )
        return HiddenContractionBatch(weights, work)

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, HiddenContractionBatch)
        head_sum = self._terms.sum
        gates = self._lines.gates(params)
        coefficients = jnp.asarray(head_sum.coefficients, self._complex)

        def some(item: ConnectedHiddenWork) -> jax.Array:
            # (terms, n, each)
            mine = jnp.moveaxis(coefficients[:, jnp.asarray(item.target)], 0, -1)
            if head_sum.frequency is not None:
                frequency = jnp.asarray(head_sum.frequency, self.dtype)
                return self._contracted(gates, item, 1j * frequency, mine).real.sum(1)
            ones = jnp.ones((*mine.shape[:-1], 1), self._complex)

            def generating(s: jax.Array) -> jax.Array:
                return self._contracted(gates, item, s.astype(self._complex)[None], ones).real

            moments = with_derivatives(generating, 2, self.dtype)
            jet = jnp.stack([moments[0], moments[1], moments[2] / 2], axis=-1)
            return (mine.real * jet).sum((1, 2))

        work = jax.tree.map(jnp.asarray, batch.work)
        return in_batches(some, work, self.batch_size, self._network.terms_at_once)

    @property
    def _complex(self) -> np.dtype:
        return np.result_type(self.dtype, np.complex64)

    def _contracted(
        self, gates: jax.Array, item: ConnectedHiddenWork, rates: jax.Array, coefficients: jax.Array
    ) -> jax.Array:
        """``sum_k coefficients_k <exp(rates_k head)>``, (n, each)."""
        operators = {
            (TERMS, _E, *self._ends): self._outgoing_factors(item),
            (_BIT,): jnp.broadcast_to(jnp.eye(2, dtype=self.dtype), (self._n_bits, 2, 2)),
            (): jnp.asarray(self.projector),
            (TERMS, _E, _K): self._added_factors(item, rates),
        }
        values = jnp.exp(rates[:, None, None, None] * self._terms.added(item.values, jnp))
        mask = self._terms.mask
        if mask is not None:
            values = jnp.asarray(mask, self.dtype) * values
        n, n_bits = len(item.values), self._terms.summands.bits.shape[1]
        if item.frequency is None:
            # (k, n, patterns of own bits, patterns of incoming ones)
            own = jnp.moveaxis(values, (3, 2), (2, 3))
        else:
            frequency = jnp.concatenate([item.frequency, -item.frequency[:, 1:]], axis=1)
            angle = frequency[:, :, None] * item.inputs[:, None, self._active]
            operators[TERMS, _M] = turns(angle)[self._incoming]
            assert item.real is not None
            assert item.imag is not None
            weight = jax.lax.complex(jnp.asarray(item.real), jnp.asarray(item.imag))
            # Re sum_m W_m exp(i mu_m) as an operator: both signs of every frequency but zero.
            half = weight[:, 1:] / 2
            weight = jnp.concatenate([weight[:, :1].real, half, half.conj()], axis=1)
            own = jnp.einsum("nmt,knpt->knmp", weight, values.astype(weight.dtype))
        n_own = () if item.frequency is None else own.shape[2:3]
        n_in = len(self._active) if item.frequency is None else 0
        own = jnp.swapaxes(own, 0, 1).reshape(n, len(rates), *n_own, *[2] * (n_in + n_bits))
        stack = jnp.broadcast_to(own, (self._n_hidden, *own.shape))
        return self._network(gates, operators, (stack, coefficients[None]))

    @property
    def _ends(self) -> tuple[str, ...]:
        return (_FIRST, _SECOND) if self._terms.paired else (_FIRST,)

    def _outgoing_factors(self, item: ConnectedHiddenWork) -> Float[Array, "sites n each *bits 2"]:
        """The bit of the neuron for weights that lead to the head's outputs, one for others."""
        found = []
        for end in range(len(self._ends)):
            output = jnp.asarray(self._terms.heads)[item.head, end]
            mine = (output == self._outgoing[:, None, None])[..., None, None]
            found.append(jnp.where(mine, jnp.eye(2, dtype=self.dtype), 1))
        if len(found) == 1:
            return found[0]
        return found[0][..., :, None, :] * found[1][..., None, :, :]

    def _added_factors(self, item: ConnectedHiddenWork, rates: jax.Array) -> Array:
        """``exp(rates_k x value(bit))`` with the sign of the head's outputs, zero for others."""
        _, output, input_ = self._added
        network, summands = self.hamiltonian.network, self._terms.summands
        encoding = network.layers[1].encoding
        signs = jnp.zeros((len(output), *item.head.shape), self.dtype)
        for end, sign in zip(range(len(self._ends)), (1.0, -1.0), strict=False):
            head = jnp.asarray(self._terms.heads)[item.head, end]
            signs = signs + sign * (head == output[:, None, None])
        n_inputs = network.n_inputs
        ones = jnp.ones((len(item.inputs), 1), self.dtype)
        x = jnp.concatenate([item.inputs[:, :n_inputs], ones], axis=1)[:, input_].T
        value = summands.skip_factor * np.array([encoding.low, encoding.high])
        exponent = (signs * x[:, :, None])[..., None, None] * jnp.asarray(value, self.dtype)
        return jnp.exp(rates[:, None] * exponent)


def _in_site_order(sites: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values that belong to some sites, in the rising order of these."""
    return np.broadcast_to(values, sites.shape).ravel()[np.argsort(sites.ravel())]
