"""Softmax of outputs whose blocks are correlated: products of maps instead of numbers.

Where the light cones of neighbouring blocks overlap, a block's Fourier sum is not a number but a
matrix from the cut at its left end to the cut at its right end. The kernel starts once from every
unit vector. A block that ends in the middle of a cell leaves that cell's second bit open; the next
block, which owns it, closes it.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import AnyArray
from ..hamiltonian import CHUNK
from ..state import ExactMPS
from .chain import WorkItems, sweep, window_maps
from .forms import LinearForms
from .plan import Layout, frequency_chunks, pack_items, window_list
from .tables import Tables


class ConnectedWork(eqx.Module):
    """The chain work of examples whose outputs are correlated.

    **Attributes:**

    - `items`, `place`: as for separated examples; `place` is (n, groups, rows, chunks, 2).
    - `chunk`, `cos`, `sin`: as for separated examples.
    - `frequency`: (n, chunks, CHUNK) angle per unit input.
    - `first`, `last`: (n,) the inputs of a block's first and last site.
    """

    items: WorkItems
    place: Int[AnyArray, "n groups rows chunks 2"]
    chunk: Int[AnyArray, "n chunks"]
    cos: Float[AnyArray, "n chunks chunk"]
    sin: Float[AnyArray, "n chunks chunk"]
    frequency: Float[AnyArray, "n chunks chunk"]
    first: Float[AnyArray, " n"]
    last: Float[AnyArray, " n"]


def plan_connected(
    forms: LinearForms,
    reach: int,
    examples: np.ndarray,
    wanted: np.ndarray,
    phases: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    n_items: int,
    doubled: int,
    dtype: np.dtype,
) -> ConnectedWork:
    """Lay out the `wanted` ones of `examples`; shapes depend on the arguments' sizes only."""
    layout, inputs = forms.layout, forms.inputs(examples)
    lists, offsets = [], []
    for group in layout.groups:
        n_whole = (layout.fan_in - group.parity) // 2
        cells = layout.cell_inputs(inputs, group, group.n_cells)
        lists.append(
            window_list(
                cells[:, group.parity : group.parity + n_whole],
                1,
                reach,
                first_cell=group.parity,
                whole=True,
            )
        )
        offsets.append(layout.offsets(group))
    position, chunk, frequency = frequency_chunks(forms.terms, examples)
    frequency = forms.outputs.gain * frequency
    most_chunks = phases[0].shape[1]
    by_example = np.zeros((len(examples), most_chunks, CHUNK), dtype)
    by_example[position, chunk] = frequency
    kept = wanted[position]
    of_group, row, kept = (
        part.ravel()
        for part in np.meshgrid(
            np.arange(len(lists)), np.arange(doubled), np.flatnonzero(kept), indexing="ij"
        )
    )
    items, index = pack_items(
        lists,
        offsets,
        of_group,
        position[kept],
        frequency[kept],
        row,
        capacity=n_items * len(lists) * doubled,
        n_windows=max(1, (layout.fan_in + 1) // 2),
        dtype=dtype,
    )
    place = np.zeros((len(examples), len(lists), doubled, most_chunks, 2), np.int32)
    place[position[kept], of_group, row, chunk[kept]] = np.stack([index.block, index.slot], axis=1)
    return ConnectedWork(
        items,
        place,
        *phases,
        by_example,
        inputs[:, 0].astype(dtype),
        inputs[:, -1].astype(dtype),
    )


def connected_sums(
    tables: Tables,
    layout: Layout,
    mps: ExactMPS,
    work: ConnectedWork,
    targets: Bool[AnyArray, "n blocks"],
) -> Float[Array, "n nodes"]:
    """``E[prod_c f_c(z_c)]`` at every node, all correlations included."""
    real, imag = sweep(window_maps(mps, 1), work.items)
    at = work.place[..., 0], work.place[..., 1]
    vectors = jax.lax.complex(real, imag)[at]
    # (n, groups, rows, chunks, outputs, out, CHUNK) -> (groups, n, outputs, rows, out, chunks, f)
    matrices = jnp.transpose(vectors, (1, 0, 4, 2, 5, 3, 6))
    matrices = matrices * jax.lax.complex(work.cos, work.sin)[:, None, None, None]
    by_block: dict[int, jax.Array] = {}
    for number, group in enumerate(layout.groups):
        block = matrices[number][:, : len(group.blocks)]
        if (group.parity + layout.fan_in) % 2 == 1:
            cells = layout.first_cell(group.blocks) + layout.fan_in // 2
            block = _open_last(block, work, mps.maps[cells])
        if group.parity == 1:
            block = _open_first(block, work)
        n, width, rows, columns = block.shape[:4]
        flat = block.reshape(n, width * rows * columns, *block.shape[4:])
        sums = tables.contract(work.chunk, flat.real, flat.imag)
        sums = sums.reshape(n, width, rows, columns, -1)
        for place, number_in_chain in enumerate(group.blocks.tolist()):
            own = targets[:, number_in_chain, None, None, None]
            by_block[number_in_chain] = tables.nodes(sums[:, place], own)
    start, end = _ends(layout, mps)
    state = jnp.broadcast_to(start[:, None], (len(work.first), len(start), 1))
    for number in range(layout.n_blocks):
        state = jnp.einsum("nxt,nxyt->nyt", state, by_block[number])
    return jnp.einsum("nyt,y->nt", state, end)


def _ends(layout: Layout, mps: ExactMPS) -> tuple[jax.Array, jax.Array]:
    """The vectors before the first and after the last block; a shared cell's second bit is open."""
    start = mps.left[layout.start // 2]
    if layout.start % 2 == 1:
        maps = mps.maps[layout.start // 2].reshape(2, 2, len(start), len(start))
        start = jnp.einsum("x,stxy->ty", start, maps).reshape(-1)
    stop = layout.start + layout.fan_in * layout.n_blocks
    end = mps.right[(stop + 1) // 2]
    return start, jnp.concatenate([end, end]) if stop % 2 == 1 else end


def _turn(work: ConnectedWork, inputs: jax.Array) -> jax.Array:
    """``exp(i nu x)`` of one site, (n, chunks, CHUNK)."""
    angle = work.frequency * inputs[:, None, None]
    return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))


def _open_first(block: jax.Array, work: ConnectedWork) -> jax.Array:
    """Rows (first bit, row) of a block whose first site is the second of a cell."""
    turned = block * _turn(work, work.first)[:, None, None, None]
    return jnp.concatenate([block, turned], axis=2)


def _open_last(block: jax.Array, work: ConnectedWork, maps: jax.Array) -> jax.Array:
    """Columns (next block's first bit, column) of a block that ends with the first of a cell."""
    width, _, doubled, _ = maps.shape
    split = maps.reshape(width, 2, 2, doubled, doubled)
    moved = jnp.einsum("ncxyqf,cstyz->stncxzqf", block, split.astype(block.dtype))
    opened = moved[0] + moved[1] * _turn(work, work.last)[:, None, None, None]
    return jnp.concatenate([opened[0], opened[1]], axis=3)
