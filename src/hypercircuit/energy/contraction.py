"""Energies of circuits on graphs: product terms contracted through quimb's cotengra.

Every structure (the light cone of one output's sites, and the axes that its operators carry) has
one path, which all examples, terms and steps share; see `hypercircuit.state.contraction`.

    losses that add up over outputs   a term is one frequency of one example and output
    losses of all outputs together    a term is one example; the frequencies of every output and the
                                      nodes of the integral are axes of the network
    squared errors                    a term is one example; the first two derivatives in e of
                                      <exp(e z)> at e = 0 are the moments of z
    settings of global choices        the same with projectors on the choices' qubits
"""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._types import Angles, AnyArray
from ..circuit import Ansatz, Brickwork, Graph, Noisy
from ..circuit.brickwork import rotation_matrices
from ..hamiltonian import (
    CHUNK,
    FourierTerms,
    LossHamiltonian,
    QuadraticTerms,
    SectorTerms,
    SquaredError,
)
from ..state import State
from ..state.contraction import (
    Budget,
    Contraction as Network,
    ContractionCost,
    in_batches,
    plan_contraction,
)
from ..state.paths import PathSearch
from ..state.schedule import TERMS
from ..state.worldlines import Worldlines, as_graph, worldlines
from .base import Batch, PreparedEnergy
from .forms import linear_forms
from .plan import frequency_chunks


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

        **Raises:** `ValueError` if the budget cannot be kept, saying by how much, or for terms
        that are not products over sites of a linear network.
        """
        if isinstance(circuit, Noisy):
            raise ValueError(
                "contractions have no errors of gates, got a noisy circuit; take Exact(), or the "
                "circuit without noise"
            )
        energy = _prepared(hamiltonian, circuit, batch_size, np.dtype(dtype), self, {})
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
        return _prepared(hamiltonian, circuit, batch_size, np.dtype(dtype), self, {}).cost


class ContractionEnergy(PreparedEnergy):
    """See [`hypercircuit.Contraction`][].

    **Attributes:**

    - `cost`: of value and gradient of one batch.
    """

    graphs = True
    cost: ContractionCost

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        batch_size: int,
        dtype: np.dtype,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        assert isinstance(circuit, (Brickwork, Graph))
        self.graph = as_graph(circuit, hamiltonian.n_qubits)

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        """Refused: contractions start from the angles.

        **Raises:** `ValueError`, always.
        """
        raise ValueError(
            "a contraction starts from the circuit's angles, not from a matrix product state; "
            "call per_example(params, batch), or take Exact() for a state"
        )

    @abc.abstractmethod
    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        """The energy of every example in the state that the circuit makes of `params`."""


def _prepared(
    hamiltonian: LossHamiltonian,
    circuit: Ansatz,
    batch_size: int,
    dtype: np.dtype,
    settings: Contraction,
    fixed: Mapping[int, int],
) -> ContractionEnergy:
    """An energy times the projector on the bits `fixed`, by site."""
    terms = hamiltonian.terms
    arguments = (hamiltonian, circuit, batch_size, dtype, settings)
    if isinstance(terms, SectorTerms):
        return SectorContraction(*arguments)
    if isinstance(terms, QuadraticTerms):
        return QuadraticContraction(*arguments, fixed)
    if isinstance(terms, FourierTerms) and terms.joint:
        return JointContraction(*arguments, fixed)
    if isinstance(terms, FourierTerms):
        return AdditiveContraction(*arguments, fixed)
    raise ValueError(
        f"Contraction() takes linear networks (Fourier terms of any loss, squared errors) and "
        f"global choices in them, got {terms.describe()}; for a chain use Exact(), for any "
        "network Sampled(), both with Brickwork"
    )


class _Blocks:
    """Expectations of operators on the sites of one block at a time, for every block.

    Blocks whose networks are alike share a path and a program.

    **Attributes:**

    - `active`: the inputs of a block that are not zero in every example.
    - `costs`: of all blocks.
    """

    def __init__(
        self,
        energy: ContractionEnergy,
        settings: Contraction,
        fixed: Mapping[int, int],
        *,
        start: int,
        fan_in: int,
        n_blocks: int,
        active: np.ndarray,
        terms: int,
    ) -> None:
        self.active, self.terms, self.dtype = active, terms, energy.dtype
        self.kinds = energy.circuit.rotations
        self.alike: list[tuple[Network, np.ndarray, np.ndarray]] = []
        bits = [fixed[site] for site in sorted(fixed)]
        self.projector = np.eye(2)[np.array(bits, int)].astype(energy.dtype)
        found: dict[tuple, list[tuple[int, Worldlines, dict[int, tuple[str, ...]]]]] = {}
        for block in range(n_blocks):
            sites = start + block * fan_in + active
            lines = worldlines(energy.graph, [*sites.tolist(), *fixed])
            place = {qubit: number for number, qubit in enumerate(lines.qubits)}
            labels: dict[int, tuple[str, ...]] = {place[int(site)]: (TERMS,) for site in sites}
            labels |= {place[site]: () for site in fixed}
            key = (lines.key, tuple(sorted(labels.items())))
            found.setdefault(key, []).append((block, lines, labels))
        self.cost: ContractionCost | None = None
        for members in found.values():
            _, lines, labels = members[0]
            network = plan_contraction(
                lines,
                labels,
                (TERMS,),
                {},
                terms=terms,
                itemsize=2 * energy.dtype.itemsize,
                budget=settings.budget,
                search=settings.search,
            )
            blocks = np.array([block for block, _, _ in members])
            qubits = np.array([each.qubits for _, each, _ in members])
            self.alike.append((network, blocks, qubits))
            cost = network.cost.times(len(members))
            self.cost = cost if self.cost is None else self.cost + cost

    def total(self, params: Angles, function, per_block) -> jax.Array:  # type: ignore[no-untyped-def]
        """The sum over blocks of ``function(contract, arguments of the block)``.

        `contract` takes factors (sites, terms, 2) of at most `terms_at_once` terms; `per_block`
        are arrays whose first axis is that of the blocks.
        """
        total = None
        for network, blocks, qubits in self.alike:

            def one(arguments, network=network):  # type: ignore[no-untyped-def]
                own, rest = arguments
                gates = rotation_matrices(params[:, own])

                def contract(factors: jax.Array) -> jax.Array:
                    operators = {(TERMS,): factors, (): jnp.asarray(self.projector)}
                    return network(gates, operators)

                return function(contract, network.terms_at_once, rest)

            chosen = jax.tree.map(lambda each, blocks=blocks: jnp.asarray(each)[blocks], per_block)
            arguments = (jnp.asarray(qubits), chosen)
            if len(blocks) == 1:
                part = one(jax.tree.map(lambda each: each[0], arguments))
            else:
                part = jax.lax.map(jax.checkpoint(one), arguments).sum(0)
            total = part if total is None else total + part
        assert total is not None
        return total


def _active_inputs(hamiltonian: LossHamiltonian) -> np.ndarray:
    """The inputs of a block that are not zero in all examples; at least one."""
    found = np.zeros(hamiltonian.network.register.blocks.fan_in, bool)
    n_examples = hamiltonian.n_examples
    for part in np.array_split(np.arange(n_examples), -(-n_examples // 4096)):
        found |= (hamiltonian.inputs(part) != 0).any(0)
    found[0] |= not found.any()
    return np.flatnonzero(found)


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

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        batch_size: int,
        dtype: np.dtype,
        settings: Contraction,
        fixed: Mapping[int, int],
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.forms = linear_forms(hamiltonian)
        layout, terms = self.forms.layout, self.forms.terms
        active = _active_inputs(hamiltonian)
        repeated = layout.fan_in // hamiltonian.network.register.blocks.fan_in
        fan_in = layout.fan_in // repeated
        active = (fan_in * np.arange(repeated)[:, None] + active).reshape(-1)
        counts = np.sort(terms.n_terms)[::-1]
        n_rows = batch_size * self.forms.per_example
        self._capacity = int(counts[np.arange(n_rows) % len(counts)].sum())
        self._blocks = _Blocks(
            self,
            settings,
            fixed,
            start=layout.start,
            fan_in=layout.fan_in,
            n_blocks=layout.n_blocks,
            active=active,
            terms=self._capacity,
        )
        assert self._blocks.cost is not None
        self.cost = self._blocks.cost
        longest = max(len(table.coefficients) for table in terms.tables)
        self._table = np.stack(
            [
                np.pad(table.coefficients, ((0, longest - len(table.coefficients)), (0, 0)))
                for table in terms.tables
            ]
        )

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
            inputs[:, self._blocks.active].astype(self.dtype),
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
                value = contract(_turns(angle[:, None] * x[row]))
                return weight[:, 0] * value.real - weight[:, 1] * value.imag

            arguments = (jnp.asarray(batch.row), jnp.asarray(batch.angle), weight)
            values = in_batches(terms, arguments, len(batch.row), at_once)
            return jax.ops.segment_sum(values, batch.row, n_rows)

        total = self._blocks.total(params, block, batch.weight)
        return total.reshape(-1, self.forms.per_example).sum(1)


def _turns(angle: jax.Array) -> Complex[Array, "sites terms 2"]:
    """The factors ``exp(i angle bit)`` from angles (terms, sites)."""
    turned = jax.lax.complex(jnp.cos(angle.T), jnp.sin(angle.T))
    return jnp.stack([jnp.ones_like(turned), turned], axis=-1)


def _moments(blocks: _Blocks, gain: float, order: int, params: Angles, x, function, rest):  # type: ignore[no-untyped-def]
    """The sum over blocks of a function of ``<1>, <y>, .. <y^order>`` of every example.

    y is the block's linear form without its middle, ``gain sum_j x_j (bit_j - 1/2)``.
    """
    x = jnp.asarray(x)

    def block(contract, at_once, rest):  # type: ignore[no-untyped-def]
        def terms(x):  # type: ignore[no-untyped-def]
            half = 0.5 * gain * x.T

            def generating(e: jax.Array) -> tuple[jax.Array, ...]:
                factors = jnp.exp(e * jnp.stack([-half, half], axis=-1))
                return (contract(factors).real,)

            found = generating
            for _ in range(order):

                def derived(e, before=found):  # type: ignore[no-untyped-def]
                    values, slopes = jax.jvp(before, (e,), (jnp.ones_like(e),))
                    return (*values, slopes[-1])

                found = derived
            return jnp.stack(found(jnp.zeros((), x.dtype)), axis=1)

        return function(in_batches(terms, x, len(x), at_once), rest)

    return blocks.total(params, block, rest)


class QuadraticBatch(Batch):
    """One batch of examples: inputs of the active sites, and per block what is aimed at, counted
    from the middle of the form's range."""

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n sites"]
    aims: Float[AnyArray, "blocks n"]


class QuadraticContraction(ContractionEnergy):
    """Squared errors from first and second moments."""

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        batch_size: int,
        dtype: np.dtype,
        settings: Contraction,
        fixed: Mapping[int, int],
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self._blocks = _output_blocks(self, settings, fixed)
        assert self._blocks.cost is not None
        # Two derivatives in forward mode: at most four times the work of the value.
        self.cost = _deeper(self._blocks.cost, 4)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> QuadraticBatch:
        examples, weights = self.filled(examples, weights)
        loss, network = self.hamiltonian.loss, self.hamiltonian.network
        assert isinstance(loss, SquaredError)
        targets = loss.targets(self.hamiltonian.data.y[examples], network.n_outputs)
        x = self.hamiltonian.inputs(examples)
        middle = network.logit_scale * network.layers[0].encoding.middle * x.sum(1)
        aims = targets[:, network.register.blocks.outputs].T - middle
        return QuadraticBatch(
            weights, x[:, self._blocks.active].astype(self.dtype), aims.astype(self.dtype)
        )

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, QuadraticBatch)

        def squared(moments: jax.Array, aim: jax.Array) -> jax.Array:
            return moments[:, 2] - 2 * aim * moments[:, 1] + aim**2 * moments[:, 0]

        gain = _gain(self.hamiltonian)
        return _moments(self._blocks, gain, 2, params, batch.x, squared, batch.aims)


def _gain(hamiltonian: LossHamiltonian) -> float:
    return hamiltonian.network.logit_scale * hamiltonian.network.layers[0].encoding.step


def _output_blocks(
    energy: ContractionEnergy, settings: Contraction, fixed: Mapping[int, int]
) -> _Blocks:
    """One block an output, one term an example."""
    blocks = energy.hamiltonian.network.register.blocks
    return _Blocks(
        energy,
        settings,
        fixed,
        start=blocks.start,
        fan_in=blocks.fan_in,
        n_blocks=len(blocks.outputs),
        active=_active_inputs(energy.hamiltonian),
        terms=energy.batch_size,
    )


def _deeper(cost: ContractionCost, factor: int) -> ContractionCost:
    return dataclasses.replace(cost, flops=factor * cost.flops, bytes=factor * cost.bytes)


class JointBatch(Batch):
    """One batch of examples of a loss of all outputs together.

    **Attributes:**

    - `x`: (n, sites) inputs of the active sites.
    - `table`, `spacing`, `start`: the example's Fourier sum, the spacing of its frequencies and
      the form's value at all-zero bits from the sum's origin.
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

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        batch_size: int,
        dtype: np.dtype,
        settings: Contraction,
        fixed: Mapping[int, int],
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self._fixed = dict(fixed)
        self.forms = linear_forms(hamiltonian)
        terms, layout = self.forms.terms, self.forms.layout
        longest = max(len(table.coefficients) for table in terms.tables)
        table = np.stack(
            [
                np.pad(each.coefficients, ((0, longest - len(each.coefficients)), (0, 0)))
                for each in terms.tables
            ]
        )
        # Re sum_k c_k exp(i k) as an operator: both signs of every frequency.
        self._table = np.concatenate([table, table.conj()], axis=1) / 2
        self._numbers = np.concatenate([np.arange(longest), -np.arange(longest)])
        if terms.integral is not None:
            self._constant = float(terms.integral.constants.sum())
            node_weights = np.full(len(terms.integral.constants), terms.integral.step)
        else:
            self._constant, node_weights = 1.0, np.ones(terms.ranks)
        self._node_weights = node_weights
        self._active = _active_inputs(hamiltonian)
        blocks = range(layout.n_blocks)
        sites = {
            layout.start + block * layout.fan_in + int(place): (TERMS, f"k:{block}")
            for block in blocks
            for place in self._active
        }
        self._lines = worldlines(self.graph, [*sites, *fixed])
        place = {qubit: number for number, qubit in enumerate(self._lines.qubits)}
        labels: dict[int, tuple[str, ...]] = {place[site]: own for site, own in sites.items()}
        labels |= {place[site]: () for site in fixed}
        bits = [fixed[site] for site in sorted(fixed)]
        self._projector = np.eye(2)[np.array(bits, int)].astype(self.dtype)
        self._network = plan_contraction(
            self._lines,
            labels,
            (TERMS,),
            {**{f"k:{block}": 2 * longest for block in blocks}, "u": len(node_weights)},
            extras=([(TERMS, f"k:{block}", "u") for block in blocks], [("u",)]),
            terms=batch_size,
            itemsize=2 * self.dtype.itemsize,
            budget=settings.budget,
            search=settings.search,
        )
        self.cost = self._network.cost
        self._blocks = None
        if terms.integral is not None or fixed:
            self._blocks = _output_blocks(self, settings, fixed)
            assert self._blocks.cost is not None
            self.cost = self.cost + _deeper(self._blocks.cost, 2)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> JointBatch:
        examples, weights = self.filled(examples, weights)
        terms = self.forms.terms
        inputs = self.forms.inputs(examples)
        spacing = np.array([each.spacing for each in terms.tables])[terms.table[examples]]
        start = self.forms.outputs.base * inputs.sum(1) - terms.origin[examples]
        phase = np.exp(1j * np.outer(start * spacing, self._numbers))
        network = self.hamiltonian.network
        middle = network.logit_scale * network.layers[0].encoding.middle * inputs.sum(1)
        return JointBatch(
            weights,
            inputs[:, self._active].astype(self.dtype),
            terms.table[examples].astype(np.int32),
            spacing.astype(self.dtype),
            np.stack([phase.real, phase.imag], axis=2).astype(self.dtype),
            self.forms.targets(examples).T,
            terms.shift[examples].astype(self.dtype),
            middle.astype(self.dtype),
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
            turned = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
            factors = jnp.moveaxis(jnp.stack([jnp.ones_like(turned), turned], -1), 2, 0)
            factors = jnp.tile(factors, (n_blocks, 1, 1, 1))
            sums = table[index] * jax.lax.complex(phase[..., 0], phase[..., 1])[..., None]
            if ranks:
                sums = jnp.where(
                    own.T[:, :, None, None], sums[None, ..., :ranks], sums[None, ..., ranks:]
                )
            else:
                sums = jnp.broadcast_to(sums, (n_blocks, *sums.shape))
            operators = {(TERMS, "k"): factors, (): jnp.asarray(self._projector)}
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
        first[0] = 1
        rest = (batch.own, first)
        if not self._fixed:
            first[0] = 0
            joint = joint - shift
        gain = _gain(self.hamiltonian)
        return _moments(self._blocks, gain, 1, params, batch.x, linear, rest) - joint


class SectorBatch(Batch):
    """One batch per setting of the choices."""

    weights: Float[AnyArray, " n"]
    sectors: tuple[Batch, ...]


class SectorContraction(ContractionEnergy):
    """Global choices: every setting's loss times the projector on the choices' qubits."""

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        batch_size: int,
        dtype: np.dtype,
        settings: Contraction,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        assert isinstance(hamiltonian.terms, SectorTerms)
        sites = hamiltonian.network.global_sites
        self._energies = [
            _prepared(
                sector.hamiltonian,
                circuit,
                batch_size,
                dtype,
                settings,
                dict(zip(map(int, sites), sector.bits, strict=True)),
            )
            for sector in hamiltonian.terms.sectors
        ]
        self.cost = self._energies[0].cost
        for energy in self._energies[1:]:
            self.cost = self.cost + energy.cost

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
