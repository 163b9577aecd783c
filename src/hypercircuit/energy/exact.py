"""The exact energy: every product term of every example, with the expansion's certificate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import AnyArray
from ..circuit import Ansatz, Chain, FreeMPS, Truncated
from ..hamiltonian import (
    CHUNK,
    FourierTerms,
    HiddenTerms,
    LossHamiltonian,
    NoTerms,
    QuadraticTerms,
    SectorTerms,
    SquaredError,
)
from ..state import ChainMPS, ExactMPS, State
from .base import Batch, PreparedEnergy
from .chain import WorkItems, sweep, window_maps
from .connected import ConnectedWork, connected_sums, plan_connected
from .forms import linear_forms
from .hidden import HiddenEnergy, hidden_operations
from .linear import linear_outputs, mean_outputs
from .plan import Layout, frequency_chunks, pack_items, separated, window_list
from .sectors import SectorEnergy
from .site_exact import MOST_OPERATIONS, SiteExactEnergy, operations
from .site_moments import swept_cumulants
from .tables import Tables, build_tables, chunk_phases


@dataclasses.dataclass(frozen=True)
class Exact:
    """All terms of the compiled loss: its only error is the compiled loss's spectral error."""

    @property
    def name(self) -> str:
        return "exact"

    def prepare(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> PreparedEnergy:
        """Fix the shapes for batches of `batch_size` examples of one compiled loss."""
        terms = hamiltonian.terms
        arguments = (hamiltonian, circuit, batch_size, np.dtype(dtype))
        if isinstance(terms, SectorTerms):
            return SectorEnergy(*arguments, self)
        if isinstance(terms, QuadraticTerms):
            return QuadraticEnergy(*arguments)
        if isinstance(terms, FourierTerms):
            site_tensors = isinstance(circuit, (Truncated, FreeMPS))
            kind = SiteExactEnergy if site_tensors else ExactEnergy
            return kind(*arguments)
        if isinstance(terms, HiddenTerms):
            return HiddenEnergy(*arguments)
        raise ValueError(f"there is no exact energy: {terms.describe()}; use Sampled()")


def why_not_exact(hamiltonian: LossHamiltonian, circuit: Ansatz) -> str | None:
    """Why an energy has no exact value to be compared with, or None where it has one.

    Some losses have no product terms; in states of site tensors those of hidden layers, and those
    of all outputs together, have a cost that large registers and bonds do not allow.
    """
    if isinstance(hamiltonian.terms, NoTerms):
        return hamiltonian.terms.reason
    if not isinstance(circuit, (Truncated, FreeMPS)):
        return None
    for work in site_operations(hamiltonian, circuit):
        if work > MOST_OPERATIONS:
            return (
                f"an example takes {work:.0e} floating-point operations in a state of bond "
                f"{circuit.max_bond}, more than {MOST_OPERATIONS:.0e}"
            )
    return None


def site_operations(
    hamiltonian: LossHamiltonian, circuit: Truncated | FreeMPS
) -> tuple[float, ...]:
    """Floating-point operations of the dearest example's exact energy in a state of site tensors.

    A number for every sector of the choices; 0 for squared errors, which need only moments.
    """
    terms, found = hamiltonian.terms, []
    parts = terms.sectors if isinstance(terms, SectorTerms) else ()
    for each in (sector.hamiltonian for sector in parts) if parts else (hamiltonian,):
        work = 0.0
        if isinstance(each.terms, HiddenTerms):
            work = hidden_operations(each, circuit)
        if isinstance(each.terms, FourierTerms):
            work = operations(each, circuit.max_bond)
        found.append(work)
    return tuple(found)


class SeparatedWork(eqx.Module):
    """The chain work of examples whose outputs are independent.

    **Attributes:**

    - `items`: the kernel's work.
    - `place`: (n, groups, chunks, 2) block and slot of each item.
    - `chunk`: (n, chunks) the coefficients' chunk.
    - `cos`, `sin`: (n, chunks, CHUNK) the phases of all-zero bits.
    - `end`: (n, groups, outputs) the cut after the last window of every block.
    """

    items: WorkItems
    place: Int[AnyArray, "n groups chunks 2"]
    chunk: Int[AnyArray, "n chunks"]
    cos: Float[AnyArray, "n chunks chunk"]
    sin: Float[AnyArray, "n chunks chunk"]
    end: Int[AnyArray, "n groups width"]


class ExactBatch(Batch):
    """One batch of examples, planned on the host; `rows` are those of its linear forms."""

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "rows fan_in"]
    y: Int[AnyArray, " n"]
    targets: Bool[AnyArray, "rows blocks"]
    shift: Float[AnyArray, " rows"]
    separated: Bool[AnyArray, " rows"]
    work: SeparatedWork
    connected: ConnectedWork | None


class QuadraticBatch(Batch):
    """One batch of examples of a loss that is a quadratic form."""

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n fan_in"]
    targets: Float[AnyArray, "n outputs"]


class QuadraticEnergy(PreparedEnergy):
    """Squared error from exact means and variances: ``var z + (mean z - t)^2``, summed."""

    site_tensors = True
    takes_maps = False

    def __init__(
        self, hamiltonian: LossHamiltonian, circuit: Chain, batch_size: int, dtype: np.dtype
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.outputs = linear_outputs(hamiltonian)

    @property
    def cumulant_order(self) -> int:
        return 2

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> QuadraticBatch:
        examples, weights = self.filled(examples, weights)
        loss = self.hamiltonian.loss
        assert isinstance(loss, SquaredError)
        targets = loss.targets(
            self.hamiltonian.data.y[examples], self.hamiltonian.network.n_outputs
        )
        x = self.hamiltonian.inputs(examples)
        return QuadraticBatch(weights, x.astype(self.dtype), targets.astype(self.dtype))

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, QuadraticBatch)
        if isinstance(mps, ChainMPS):
            mean, variance = swept_cumulants(self.outputs, mps, jnp.asarray(batch.x))
        else:
            mean, variance = self.outputs.cumulants(mps, batch.x, 2)
        return (variance + (mean - batch.targets) ** 2).sum(1)


class ExactEnergy(PreparedEnergy):
    """See [`hypercircuit.Exact`][]; plans batches on the host, evaluates them on the device."""

    def __init__(
        self, hamiltonian: LossHamiltonian, circuit: Chain, batch_size: int, dtype: np.dtype
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.forms = linear_forms(hamiltonian)
        self.layout, terms = self.forms.layout, self.forms.terms
        self.tables, self._first_chunk = build_tables(terms, self.dtype)
        self.cells_per_window = 2 if self.circuit.reach <= 1 else 1
        counts = np.sort(terms.n_terms // CHUNK)[::-1]
        self._most_chunks = int(counts[0])
        n_rows = batch_size * self.forms.per_example
        self._capacity = int(counts[np.arange(n_rows) % len(counts)].sum())
        # Losses that add up over outputs need no more than each output's own distribution.
        self._independent = np.ones(len(terms.table), bool)
        if terms.joint and self.circuit.correlation_range > 0:
            self._independent = self._in_parts(
                lambda x: separated(self.layout, x, self.circuit.reach)
            )
        self._n_windows = self._longest_list()

    def _longest_list(self) -> int:
        """At least as many windows as any row visits."""
        if self.forms.per_example == 1:
            return max(1, int(self._in_parts(self._list_lengths).max()))
        # Two blocks a row: from their non-zero inputs, instead of listing all pairs.
        rows = np.array_split(np.arange(self.hamiltonian.n_examples), 64)
        inputs = (self.hamiltonian.inputs(part) for part in rows if len(part))
        most = 2 * max(int((x != 0).sum(1).max()) for x in inputs)
        n_windows = -(-self.layout.groups[0].n_cells // self.cells_per_window)
        return max(1, min(n_windows, most * max(1, 2 * self.circuit.reach)))

    def _in_parts(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        n_rows = len(self.forms.terms.table)
        parts = np.array_split(np.arange(n_rows), -(-n_rows * self.layout.fan_in // 2**22))
        return np.concatenate([function(self.forms.inputs(part)) for part in parts if len(part)])

    def _lists(self, inputs: np.ndarray) -> list:
        return [
            window_list(
                self.layout.cell_inputs(inputs, group, group.n_cells),
                self.cells_per_window,
                self.circuit.reach,
            )
            for group in self.layout.groups
        ]

    def _list_lengths(self, inputs: np.ndarray) -> np.ndarray:
        return np.max([part.length for part in self._lists(inputs)], axis=0)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> ExactBatch:
        examples, weights = self.filled(examples, weights)
        rows = self.forms.rows(examples)
        inputs = self.forms.inputs(rows)
        # Rows that only fill up the batch get no work.
        wanted = np.repeat(weights != 0, self.forms.per_example)
        independent = self._independent[rows] & wanted
        connected = None
        if not self._independent.all():
            connected = plan_connected(
                self.forms,
                self.circuit.reach,
                rows,
                wanted & ~independent,
                self._phases(rows, inputs),
                n_items=self._capacity,
                doubled=self.doubled,
                dtype=self.dtype,
            )
        return ExactBatch(
            weights,
            inputs.astype(self.dtype),
            self.hamiltonian.data.y[examples],
            self.forms.targets(rows),
            self.forms.terms.shift[rows].astype(self.dtype),
            independent,
            self._plan_separated(rows, inputs, independent),
            connected,
        )

    @functools.cached_property
    def doubled(self) -> int:
        """The dimension of the doubled bond in its real basis."""
        return self.circuit.doubled_bond

    def _phases(
        self, examples: np.ndarray, inputs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per example: the chunks' numbers and the cosines and sines of all-zero bits' phases."""
        zeros = self.forms.outputs.base * inputs.sum(1)
        terms = self.forms.terms
        return chunk_phases(
            self.tables, self._first_chunk, terms, examples, zeros, self._most_chunks
        )

    def _plan_separated(
        self, examples: np.ndarray, inputs: np.ndarray, independent: np.ndarray
    ) -> SeparatedWork:
        lists = self._lists(inputs)
        offsets = [self.layout.offsets(group) for group in self.layout.groups]
        position, chunk, frequency = frequency_chunks(self.forms.terms, examples)
        wanted = independent[position]
        position, chunk, frequency = position[wanted], chunk[wanted], frequency[wanted]
        n_groups, n_items = len(lists), len(position)
        items, index = pack_items(
            lists,
            offsets,
            np.repeat(np.arange(n_groups), n_items),
            np.tile(position, n_groups),
            np.tile(self.forms.outputs.gain * frequency, (n_groups, 1)),
            np.full(n_groups * n_items, -1),
            capacity=self._capacity * n_groups,
            n_windows=self._n_windows,
            dtype=self.dtype,
        )
        place = np.zeros((len(examples), n_groups, self._most_chunks, 2), np.int32)
        group = np.repeat(np.arange(n_groups), n_items)
        columns = np.tile(position, n_groups), group, np.tile(chunk, n_groups)
        place[columns] = np.stack([index.block, index.slot], axis=1)
        end = np.stack([part.end for part in lists], axis=1)
        return SeparatedWork(
            items,
            place,
            *self._phases(examples, inputs),
            end[:, :, None].astype(np.int32) + np.stack(offsets).astype(np.int32),
        )

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, ExactBatch)
        assert isinstance(mps, ExactMPS)
        sums = _separated_sums(
            self.tables, self.layout, mps, self.cells_per_window, batch.work, batch.separated
        )
        targets = batch.targets
        if self.tables.weights is None:
            each = jnp.where(targets, sums[..., 1], sums[..., 0]).sum(1)
            return each.reshape(-1, self.forms.per_example).sum(1)
        joint = jnp.prod(self.tables.nodes(sums, targets[..., None]), axis=1)
        if batch.connected is not None:
            entangled = connected_sums(self.tables, self.layout, mps, batch.connected, targets)
            joint = jnp.where(batch.separated[:, None], joint, entangled)
        assert self.tables.constants is not None
        value = (self.tables.constants - self.tables.weights * joint).sum(1) + batch.shift
        if self.forms.terms.integral is None:
            return value
        mean = mean_outputs(self.forms.outputs, mps, batch.x)
        return value - jnp.take_along_axis(mean, batch.y[:, None], axis=1)[:, 0]


def _separated_sums(
    tables: Tables,
    layout: Layout,
    mps: ExactMPS,
    cells_per_window: int,
    work: SeparatedWork,
    present: Bool[AnyArray, " n"],
) -> Float[Array, "n blocks targets"]:
    """``E[f(z)]`` of every block and target function, each block by itself; 1 if not `present`."""
    state = window_maps(mps, cells_per_window)
    real, imag = sweep(state, work.items)
    at = work.place[..., 0], work.place[..., 1]
    right = state.right[work.end]
    # (n, groups, chunks, outputs, doubled, CHUNK) -> (n, groups, outputs, chunks, CHUNK)
    real = jnp.einsum("ngqcxf,ngcx->ngcqf", real[at], right)
    imag = jnp.einsum("ngqcxf,ngcx->ngcqf", imag[at], right)
    # Frequency zero is the total probability: dividing by it takes out the rounding error that
    # all frequencies share, which the softmax integral would add up over its whole plateau.
    norm = jnp.where(present[:, None, None, None, None], real[:, :, :, :1, :1], 1)
    real, imag = real / norm, imag / norm
    cos, sin = work.cos[:, None, None], work.sin[:, None, None]
    turned_real, turned_imag = real * cos - imag * sin, real * sin + imag * cos
    n, groups, width = real.shape[:3]
    shape = (n, groups * width, *real.shape[3:])
    sums = tables.contract(work.chunk, turned_real.reshape(shape), turned_imag.reshape(shape))
    column = np.zeros(layout.n_blocks, int)
    for number, group in enumerate(layout.groups):
        column[group.blocks] = number * width + np.arange(len(group.blocks))
    return jnp.where(present[:, None, None], sums[:, column], 1)
