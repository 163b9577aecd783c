"""Hidden neurons whose light cones are disjoint: every neuron is a number per frequency and head.

The chain kernel sweeps through the incoming weights of all neurons at once, with neurons as its
blocks, and ends at the first cut between cells that lies among a neuron's last incoming weights
and its own bits:

    left --[ window ]-- ... --[ window ]--|--[ own bits ]-- right
             incoming weights            cut  once per state: q for every head and pattern

A last incoming weight that shares its cell with an own bit counts among those. The last neuron and
the output biases, which are neighbours, are one block.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._types import AnyArray
from ..hamiltonian import CHUNK, HeadSum, HiddenTerms, LossHamiltonian
from ..state import ExactMPS
from ..state.moments import SiteMaps, site_maps
from .chain import WorkItems, sweep, window_maps
from .hidden_chain import HiddenLayout, in_order, multiply_terms, patterns_before
from .plan import WindowList, pack_items, window_list


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronGroup:
    """Neurons whose first site has the same parity; sites and cells count from a virtual cell.

    **Attributes:**

    - `neurons`: their numbers.
    - `start`: the first cell of each, `lead` cells before its first site's.
    - `front`: sites from there to the first site.
    - `n_cells`: cells to the cut.
    - `shared`: 1 if the last incoming weight lies behind the cut.
    """

    neurons: Int[np.ndarray, " neurons"]
    start: Int[np.ndarray, " neurons"]
    front: int
    n_cells: int
    shared: int


def neuron_groups(layout: HiddenLayout, cells_per_window: int) -> tuple[NeuronGroup, ...]:
    """The groups of a layout, with whole windows up to the cut."""
    first = layout.first_sites + 2
    groups = []
    for parity in np.unique(first % 2).tolist():
        neurons = np.flatnonzero(first % 2 == parity)
        shared = (parity + layout.fan_in) % 2
        n_cells = (parity + layout.fan_in - shared) // 2
        lead = -n_cells % cells_per_window
        groups.append(
            NeuronGroup(
                neurons,
                first[neurons] // 2 - lead,
                parity + 2 * lead,
                n_cells + lead,
                shared,
            )
        )
    return tuple(groups)


def separated_neurons(
    layout: HiddenLayout, inputs: Float[np.ndarray, "n fan_in"], reach: int
) -> Bool[np.ndarray, " n"]:
    """Whether the light cones of an example's neurons are pairwise disjoint."""
    active = np.concatenate([inputs != 0, np.ones((len(inputs), 1), bool)], axis=1)
    offset = active.argmax(1)[:, None]
    first = layout.first_sites[1:]
    gap = (first + offset) // 2 - (first - 1) // 2
    return np.all(gap > 2 * reach, axis=1)


class SeparatedHiddenWork(eqx.Module):
    """The chain work of a batch.

    **Attributes:**

    - `items`, `place`: the kernel's work, and block and slot of each item.
    - `real`, `imag`: the levels' coefficients for both bits of a shared last incoming weight.
    - `values`: every activation function on every level, in every encoding.
    - `head`, `target`: the heads of each example.
    - `wanted`: rows that are not there to fill up the batch.
    """

    items: WorkItems
    place: Int[AnyArray, "n groups chunks 2"]
    real: Float[AnyArray, "n groups chunks chunk levels 2"]
    imag: Float[AnyArray, "n groups chunks chunk levels 2"]
    values: Float[AnyArray, "n encodings functions levels"]
    head: Int[AnyArray, "n each"]
    target: Int[AnyArray, "n each"]
    wanted: Bool[AnyArray, " n"]


def in_chunks(n_terms: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The chunks that hold so many frequencies."""
    return np.maximum(-(-n_terms // CHUNK), 1)


def window_lists(
    layout: HiddenLayout,
    groups: tuple[NeuronGroup, ...],
    inputs: Float[np.ndarray, "n fan_in"],
    cells_per_window: int,
    reach: int,
) -> list[WindowList]:
    """The windows that each group visits; the last one ends at the cut."""
    lists = []
    for group in groups:
        kept = inputs[:, : layout.fan_in - group.shared]
        cells = np.pad(kept, ((0, 0), (group.front, 0))).reshape(len(inputs), group.n_cells, 2)
        lists.append(window_list(cells, cells_per_window, reach, whole=True))
    return lists


def plan_separated_hidden(
    hamiltonian: LossHamiltonian,
    layout: HiddenLayout,
    groups: tuple[NeuronGroup, ...],
    examples: np.ndarray,
    wanted: np.ndarray,
    *,
    cells_per_window: int,
    reach: int,
    capacity: int,
    n_windows: int,
    most_chunks: int,
    n_levels: int,
    dtype: np.dtype,
) -> SeparatedHiddenWork:
    """Lay out a batch; shapes depend on the arguments' sizes and not on the examples."""
    terms = hamiltonian.terms
    assert isinstance(terms, HiddenTerms)
    inputs = terms.neurons.inputs(hamiltonian.data, examples)
    n_chunks = in_chunks(terms.basis.n_terms(terms.neurons, inputs))
    cardinals = terms.basis.cardinals(terms.neurons, inputs, n_chunks * CHUNK)
    assert cardinals.frequency is not None
    assert cardinals.coefficients is not None
    n, n_groups = len(examples), len(groups)
    shape = (n, most_chunks * CHUNK)
    frequency = np.zeros(shape)
    frequency[:, : cardinals.frequency.shape[1]] = cardinals.frequency
    coefficients = np.zeros((*shape, n_levels), complex)
    _, n_terms, found = cardinals.coefficients.shape
    coefficients[:, :n_terms, :found] = cardinals.coefficients
    turn = np.exp(1j * frequency * inputs[:, -1:])
    both = np.zeros((n, n_groups, *coefficients.shape[1:], 2), complex)
    for number, group in enumerate(groups):
        both[:, number, ..., 0] = coefficients
        if group.shared:
            both[:, number, ..., 1] = coefficients * turn[:, :, None]
    both = both.reshape(n, n_groups, most_chunks, CHUNK, n_levels, 2)

    lists = window_lists(layout, groups, inputs, cells_per_window, reach)
    width = max(len(group.neurons) for group in groups)
    offsets = [
        np.concatenate([group.start, np.repeat(group.start[:1], width - len(group.start))])
        for group in groups
    ]
    counts = np.where(wanted, n_chunks, 0)
    position = np.repeat(np.arange(n), counts)
    chunk = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_item = frequency.reshape(n, most_chunks, CHUNK)[position, chunk]
    items, index = pack_items(
        lists,
        offsets,
        np.repeat(np.arange(n_groups), len(position)),
        np.tile(position, n_groups),
        np.tile(of_item, (n_groups, 1)),
        np.full(n_groups * len(position), -1),
        capacity=capacity * n_groups,
        n_windows=n_windows,
        dtype=dtype,
    )
    place = np.zeros((n, n_groups, most_chunks, 2), np.int32)
    of_group = np.repeat(np.arange(n_groups), len(position))
    place[np.tile(position, n_groups), of_group, np.tile(chunk, n_groups)] = np.stack(
        [index.block, index.slot], axis=1
    )
    values = np.zeros((*cardinals.values.shape[:3], n_levels))
    values[..., :found] = cardinals.values
    head, target = terms.heads_of(np.asarray(hamiltonian.data.y)[examples])
    return SeparatedHiddenWork(
        items,
        place,
        both.real.astype(dtype),
        both.imag.astype(dtype),
        values.astype(dtype),
        head,
        target,
        wanted,
    )


def separated_hidden(
    terms: HiddenTerms,
    layout: HiddenLayout,
    groups: tuple[NeuronGroup, ...],
    cells_per_window: int,
    mps: ExactMPS,
    work: SeparatedHiddenWork,
) -> Float[Array, " n"]:
    """The energy of every example, neuron by neuron."""
    head_sum, summands = terms.sum, terms.summands
    state = _after_virtual_cell(in_order(layout, mps))
    sites = site_maps(state)
    with jax.default_matmul_precision("highest"):
        real, imag = sweep(window_maps(state, cells_per_window), work.items)
        at = work.place[..., 0], work.place[..., 1]
        path = "ngcqxf,ngcftb->ngqtbx"
        levels = jnp.einsum(path, real[at], work.real) - jnp.einsum(path, imag[at], work.imag)
        turns = terms.turns(work.values, jnp)
        last = layout.n_hidden - 1
        parts = []
        for number, group in enumerate(groups):
            of_group = levels[:, number, : len(group.neurons)]
            right = sites.right[layout.first_sites[group.neurons] + 2 + layout.stride]
            after = jnp.broadcast_to(
                right[:, None, None], (len(right), len(terms.heads), 1, right.shape[1])
            )
            own = _own_vectors(sites, layout, group, group.neurons, after)
            joint = jnp.einsum("nqtbx,qnepbx->nqept", of_group, own[..., 0, :][:, work.head])
            values = _complex("knpt,nqept->knqe", turns, joint)
            parts.append(values[:, :, group.neurons != last])
            if last in group.neurons:
                own = _own_vectors(
                    sites, layout, group, np.array([last]), _bias_vectors(sites, layout)[None]
                )
                mine = of_group[:, np.flatnonzero(group.neurons == last)[0]]
                joint = jnp.einsum("ntbx,nepbzx->neptz", mine, own[0][work.head])
                by_bias = _complex("knpt,neptz->knez", turns, joint)
                parts.append(_with_bias(head_sum, summands.bias, by_bias)[:, :, None])
        values = jnp.concatenate(parts, axis=2)
        if terms.basis.exact:
            # Frequency zero is the total probability: dividing by it takes out rounding errors.
            values = values / jnp.where(work.wanted[:, None, None], values[0].real, 1)
        sums = _product(head_sum, values)
        coefficients = jnp.asarray(head_sum.coefficients, sums.dtype)[:, work.target]
        return jnp.where(work.wanted, jnp.sum((coefficients * sums).real, axis=(0, 2)), 0)


def _after_virtual_cell(mps: ExactMPS) -> ExactMPS:
    """The state with one more cell in front, which holds only zeros; its maps alone."""
    doubled = mps.maps.shape[-1]
    map_ = jnp.zeros_like(mps.maps[:1]).at[0, 0].set(jnp.eye(doubled, dtype=mps.maps.dtype))
    return dataclasses.replace(
        mps,
        cells=None,
        maps=jnp.concatenate([map_, mps.maps]),
        left=jnp.concatenate([mps.left[:1], mps.left]),
        right=jnp.concatenate([mps.right[:1], mps.right]),
        n_qubits=mps.n_qubits + 2,
        cumulants=None,
    )


def _own_vectors(
    sites: SiteMaps,
    layout: HiddenLayout,
    group: NeuronGroup,
    neurons: np.ndarray,
    after: Float[Array, "neurons heads bias_patterns size"],
) -> Float[Array, "neurons heads patterns 2 bias_patterns doubled"]:
    """Vectors at the cut before the own bits for every pattern, from those after them."""
    n_sites, n_heads, n_patterns, _ = layout.own.shape
    n_bias, size = after.shape[-2:]
    shape = (n_patterns, 2, n_bias)
    own = np.broadcast_to(layout.own[:, :, :, None, None], (n_sites, n_heads, *shape, 2))
    if group.shared:
        first = np.broadcast_to(np.eye(2)[:, None], (1, n_heads, *shape, 2))
        own = np.concatenate([first, own])
    allowed = own.reshape(len(own), n_heads, -1, 2)
    start = layout.first_sites[neurons] + 2 + layout.fan_in - group.shared
    maps = sites.maps[start + np.arange(len(own))[:, None]]
    end = jnp.broadcast_to(after[:, :, None, None], (len(neurons), n_heads, *shape, size))
    vectors = patterns_before(maps, allowed, end.reshape(len(neurons), n_heads, -1, size))
    return vectors.reshape(len(neurons), n_heads, *shape, size)[..., : size // 2]


def _bias_vectors(
    sites: SiteMaps, layout: HiddenLayout
) -> Float[Array, "heads bias_patterns size"]:
    """Vectors at the cut before the output biases."""
    at = layout.start + 2 + layout.stride * layout.n_hidden + np.arange(len(layout.biases) + 1)
    end = jnp.broadcast_to(sites.right[at[-1]], (*layout.biases.shape[1:3], sites.right.shape[1]))
    return patterns_before(sites.maps[at[:-1]], layout.biases, end)


def _complex(path: str, turns: tuple[jax.Array, jax.Array], joint: jax.Array) -> jax.Array:
    return jax.lax.complex(*(jnp.einsum(path, part, joint) for part in turns))


def _with_bias(head_sum: HeadSum, bias: np.ndarray, by_bias: jax.Array) -> jax.Array:
    """Sum over the patterns of the biases what each of them turns the last neuron into."""
    turns = jax.lax.complex(*head_sum.factors(jnp.asarray(bias, by_bias.real.dtype), jnp))
    return multiply_terms(head_sum, "z", turns, "nez", by_bias, "ne")


def _product(head_sum: HeadSum, values: Complex[Array, "terms n neurons each"]) -> jax.Array:
    """The product over all neurons, pair by pair."""
    while values.shape[2] > 1:
        odd = values[:, :, :1] if values.shape[2] % 2 else values[:, :, :0]
        pairs = values[:, :, odd.shape[2] :]
        joined = multiply_terms(head_sum, "nqe", pairs[:, :, ::2], "nqe", pairs[:, :, 1::2], "nqe")
        values = jnp.concatenate([odd, joined], axis=2)
    return values[:, :, 0]
