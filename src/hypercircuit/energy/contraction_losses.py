"""The contracted energies of linear networks, by how a loss is made of product terms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._types import Angles, AnyArray
from ..hamiltonian import CHUNK, FourierTerms, LossHamiltonian, SquaredError
from ..state.contraction import ContractionCost, in_batches
from ..state.schedule import TERMS
from .base import Batch
from .contraction_blocks import Blocks, ContractionEnergy, active_places, turns
from .forms import linear_forms
from .linear import linear_outputs
from .plan import Layout, frequency_chunks


class AdditiveBatch(Batch):
    """One batch of examples: rows of linear forms, and terms that add up to their losses.

    **Attributes:**

    - `x`: (rows, sites) inputs of the active sites.
    - `row`: which row a term belongs to, and `angle` its angle per unit of input.
    - `weight`: (blocks, terms, 2) real and imaginary part of its coefficient, phases included.
    """

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "rows sites"]
    row: Int[AnyArray, " terms"]
    angle: Float[AnyArray, " terms"]
    weight: Float[AnyArray, "blocks terms 2"]


class AdditiveContraction(ContractionEnergy):
    """Losses that add up over outputs, or over pairs of them."""

    def plan(self) -> ContractionCost:
        self.forms = linear_forms(self.hamiltonian)
        layout, terms = self.forms.layout, self.forms.terms
        self._active = active_places(self.hamiltonian, layout)
        counts = np.sort(terms.n_terms)[::-1]
        n_rows = self.batch_size * self.forms.per_example
        self._capacity = int(counts[np.arange(n_rows) % len(counts)].sum())
        self._table = _coefficients(terms)
        self._blocks = Blocks(self, layout, self._active, self._capacity)
        return self._blocks.cost

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> AdditiveBatch:
        examples, weights = self.filled(examples, weights)
        forms, terms = self.forms, self.forms.terms
        rows = forms.rows(examples)
        inputs, targets = forms.inputs(rows), forms.targets(rows)
        position, chunk, frequency = frequency_chunks(terms, rows)
        # Rows that only fill up the batch get no work.
        wanted = np.repeat(weights != 0, forms.per_example)[position]
        position, chunk, frequency = position[wanted], chunk[wanted], frequency[wanted]
        start = forms.outputs.base * inputs.sum(1) - terms.origin[rows]
        phase = np.exp(1j * start[position, None] * frequency)
        number = chunk[:, None] * CHUNK + np.arange(CHUNK)
        table = terms.table[rows][position, None]
        size = self._capacity - position.size * CHUNK

        def flat(values: np.ndarray) -> np.ndarray:
            return np.pad(np.broadcast_to(values, frequency.shape).reshape(-1), (0, size))

        weight = np.stack(
            [
                flat(phase * self._table[table, number, targets[position, block, None].astype(int)])
                for block in range(forms.layout.n_blocks)
            ]
        )
        return AdditiveBatch(
            weights,
            inputs[:, self._active].astype(self.dtype),
            flat(position[:, None]).astype(np.int32),
            flat(forms.outputs.gain * frequency).astype(self.dtype),
            np.stack([weight.real, weight.imag], axis=2).astype(self.dtype),
        )

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, AdditiveBatch)
        x = jnp.asarray(batch.x)
        n_rows = len(x)

        def block(contract, at_once, weight):  # type: ignore[no-untyped-def]
            def terms(arguments):  # type: ignore[no-untyped-def]
                row, angle, weight = arguments
                value = contract(turns(angle[:, None] * x[row]))
                return weight[:, 0] * value.real - weight[:, 1] * value.imag

            arguments = (jnp.asarray(batch.row), jnp.asarray(batch.angle), weight)
            values = in_batches(terms, arguments, len(batch.row), at_once)
            return jax.ops.segment_sum(values, batch.row, n_rows)

        total = self._blocks.total(params, block, batch.weight)
        return total.reshape(-1, self.forms.per_example).sum(1)


class QuadraticBatch(Batch):
    """One batch of examples: inputs of the active sites, and per block what is aimed at, counted
    from the middle of the form's range."""

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n sites"]
    aims: Float[AnyArray, "blocks n"]


class QuadraticContraction(ContractionEnergy):
    """Squared errors from first and second moments."""

    def plan(self) -> ContractionCost:
        self.outputs = linear_outputs(self.hamiltonian)
        n_outputs = self.hamiltonian.network.n_outputs
        layout = Layout(self.outputs.start, self.outputs.fan_in, n_outputs)
        self._active = active_places(self.hamiltonian, layout)
        self._blocks = Blocks(self, layout, self._active, self.batch_size, order=2)
        return self._blocks.cost

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> QuadraticBatch:
        examples, weights = self.filled(examples, weights)
        loss, network = self.hamiltonian.loss, self.hamiltonian.network
        assert isinstance(loss, SquaredError)
        targets = loss.targets(self.hamiltonian.data.y[examples], network.n_outputs)
        x = self.hamiltonian.inputs(examples)
        aims = targets[:, network.register.blocks.outputs].T - _middle(self.hamiltonian, x)
        return QuadraticBatch(
            weights, x[:, self._active].astype(self.dtype), aims.astype(self.dtype)
        )

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, QuadraticBatch)

        def squared(moments: jax.Array, aim: jax.Array) -> jax.Array:
            return moments[:, 2] - 2 * aim * moments[:, 1] + aim**2 * moments[:, 0]

        return self._blocks.moments(params, self.outputs.gain, 2, batch.x, squared, batch.aims)


class JointBatch(Batch):
    """One batch of examples of a loss of all outputs together.

    **Attributes:**

    - `x`: (n, sites) inputs of the active sites.
    - `table`, `spacing`: the example's Fourier sum, and the spacing of its frequencies.
    - `phase`: real and imaginary part, at every frequency, of the factor of all-zero bits.
    - `own`: (blocks, n) whether a block is the true class's.
    - `shift`, `middle`: of the integral, and of the forms.
    """

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n sites"]
    table: Int[AnyArray, " n"]
    spacing: Float[AnyArray, " n"]
    phase: Float[AnyArray, "n frequencies 2"]
    own: Bool[AnyArray, "blocks n"]
    shift: Float[AnyArray, " n"]
    middle: Float[AnyArray, " n"]


class JointContraction(ContractionEnergy):
    """Softmax and zero-one loss: products over all outputs of Fourier sums.

    A block's frequencies k, positive and negative ones, are an axis that its sites share; a table
    (k, u) of coefficients ties it to the nodes u of the integral, which all blocks share.
    """

    def plan(self) -> ContractionCost:
        self.forms = linear_forms(self.hamiltonian)
        terms, layout = self.forms.terms, self.forms.layout
        table = _coefficients(terms)
        longest = table.shape[1]
        # Re sum_k c_k exp(i k) as an operator: both signs of every frequency.
        self._table = np.concatenate([table, table.conj()], axis=1) / 2
        self._numbers = np.concatenate([np.arange(longest), -np.arange(longest)])
        if terms.integral is not None:
            self._constant = float(terms.integral.constants.sum())
            self._node_weights = np.full(len(terms.integral.constants), terms.integral.step)
        else:
            self._constant, self._node_weights = 1.0, np.ones(terms.ranks)
        self._active = active_places(self.hamiltonian, layout)
        axes = [f"k:{block}" for block in range(layout.n_blocks)]
        self._lines, labels = self.cone(
            {
                layout.start + block * layout.fan_in + int(place): (TERMS, axis)
                for block, axis in enumerate(axes)
                for place in self._active
            }
        )
        self._network = self.network(
            self._lines,
            labels,
            self.batch_size,
            {**dict.fromkeys(axes, 2 * longest), "u": len(self._node_weights)},
            extras=([(TERMS, axis, "u") for axis in axes], [("u",)]),
        )
        self._blocks = None
        if terms.integral is None and not self.fixed:
            return self._network.cost
        self._blocks = Blocks(self, layout, self._active, self.batch_size, order=1)
        return self._network.cost + self._blocks.cost

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> JointBatch:
        examples, weights = self.filled(examples, weights)
        terms = self.forms.terms
        inputs = self.forms.inputs(examples)
        spacing = np.array([each.spacing for each in terms.tables])[terms.table[examples]]
        start = self.forms.outputs.base * inputs.sum(1) - terms.origin[examples]
        phase = np.exp(1j * np.outer(start * spacing, self._numbers))
        return JointBatch(
            weights,
            inputs[:, self._active].astype(self.dtype),
            terms.table[examples].astype(np.int32),
            spacing.astype(self.dtype),
            np.stack([phase.real, phase.imag], axis=2).astype(self.dtype),
            self.forms.targets(examples).T,
            terms.shift[examples].astype(self.dtype),
            _middle(self.hamiltonian, inputs).astype(self.dtype),
        )

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, JointBatch)
        gates = self._lines.gates(params)
        outputs, ranks = self.forms.outputs, self.forms.terms.ranks
        complex_dtype = np.result_type(self.dtype, np.complex64)
        table = jnp.asarray(self._table.astype(complex_dtype))
        numbers = jnp.asarray(self._numbers.astype(self.dtype))
        node_weights = jnp.asarray(self._node_weights.astype(self.dtype))[None]
        n_blocks = self.forms.layout.n_blocks

        def terms(arguments):  # type: ignore[no-untyped-def]
            x, index, spacing, phase, own = arguments
            angle = outputs.gain * (spacing[:, None] * numbers)[:, :, None] * x[:, None]
            factors = jnp.tile(turns(angle), (n_blocks, 1, 1, 1))
            sums = table[index] * jax.lax.complex(phase[..., 0], phase[..., 1])[..., None]
            if ranks:
                sums = jnp.where(
                    own.T[:, :, None, None], sums[None, ..., :ranks], sums[None, ..., ranks:]
                )
            else:
                sums = jnp.broadcast_to(sums, (n_blocks, *sums.shape))
            operators = {(TERMS, "k"): factors, (): jnp.asarray(self.projector)}
            return self._network(gates, operators, (sums, node_weights)).real

        each = (batch.x, batch.table, batch.spacing, batch.phase, batch.own.T)
        each = jax.tree.map(jnp.asarray, each)
        joint = in_batches(terms, each, self.batch_size, self._network.terms_at_once)
        if self._blocks is None:
            return self._constant - joint
        integral = self.forms.terms.integral is not None
        shift = batch.shift + self._constant

        def linear(moments: jax.Array, arguments: tuple[jax.Array, jax.Array]) -> jax.Array:
            # Every block knows the projector's probability; the first one reports it.
            own, first = arguments
            mean = jnp.where(own, moments[:, 1] + batch.middle * moments[:, 0], 0)
            return first * shift * moments[:, 0] - (mean if integral else 0)

        first = np.zeros(n_blocks, self.dtype)
        if self.fixed:
            first[0] = 1
        else:
            joint = joint - shift
        rest = (batch.own, first)
        return self._blocks.moments(params, outputs.gain, 1, batch.x, linear, rest) - joint


def _coefficients(terms: FourierTerms) -> Complex[np.ndarray, "tables frequencies targets"]:
    """All tables' coefficients, shorter ones filled up with zeros."""
    longest = max(len(table.coefficients) for table in terms.tables)
    return np.stack(
        [
            np.pad(table.coefficients, ((0, longest - len(table.coefficients)), (0, 0)))
            for table in terms.tables
        ]
    )


def _middle(hamiltonian: LossHamiltonian, x: Float[np.ndarray, "n fan_in"]) -> np.ndarray:
    """The linear forms of examples halfway between their least and their largest value."""
    network = hamiltonian.network
    return network.logit_scale * network.layers[0].encoding.middle * x.sum(1)
