"""Which windows of the chain each example visits: host-side planning of the chain kernel's work.

Every output owns a block of `fan_in` neighbouring sites. Cells start at even sites, so a block of
odd length starts in the middle of a cell every other time; blocks that start alike form a *group*
and share their lists of windows.

    sites   0 1 | 2 3 | 4 5 | 6 7 | 8 9      fan_in = 5
    block   0 0   0 0   0 1   1 1   1 1      block 0: parity 0;  block 1: parity 1
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Int

from ..hamiltonian import CHUNK, FourierTerms
from .chain import WorkItems

ITEMS_PER_BLOCK = 16


@dataclasses.dataclass(frozen=True)
class Group:
    """Blocks that start at the same parity.

    **Attributes:**

    - `parity`: 1 if the blocks start with the second site of a cell.
    - `blocks`: their numbers in the chain.
    - `n_cells`: cells that hold at least one of a block's sites.
    """

    parity: int
    blocks: Int[np.ndarray, " n_blocks"]
    n_cells: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the blocks of a register, the first one at site `start`, lie on the cells."""

    start: int
    fan_in: int
    n_blocks: int

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        blocks = np.arange(self.n_blocks)
        parity = (self.start + blocks * self.fan_in) % 2
        return tuple(
            Group(p, blocks[parity == p], (self.fan_in + p + 1) // 2)
            for p in np.unique(parity).tolist()
        )

    @property
    def width(self) -> int:
        """The number of blocks of the largest group."""
        return max(len(group.blocks) for group in self.groups)

    def first_cell(self, block: np.ndarray) -> np.ndarray:
        return (self.start + block * self.fan_in) // 2

    def offsets(self, group: Group) -> Int[np.ndarray, " width"]:
        """The blocks' first cells, the first one repeated to fill up to `width`."""
        cells = self.first_cell(group.blocks)
        return np.concatenate([cells, np.repeat(cells[:1], self.width - len(cells))])

    def cell_inputs(
        self, inputs: Float[np.ndarray, "n fan_in"], group: Group, n_cells: int
    ) -> Float[np.ndarray, "n n_cells 2"]:
        """The inputs cell by cell, zero at sites of other blocks."""
        after = 2 * n_cells - group.parity - self.fan_in
        padded = np.pad(inputs, ((0, 0), (group.parity, after)))
        return padded.reshape(len(inputs), n_cells, 2)


def separated(
    layout: Layout, inputs: Float[np.ndarray, "n fan_in"], reach: int
) -> Bool[np.ndarray, " n"]:
    """Whether the light cones of an example's blocks are pairwise disjoint.

    Then the outputs are independent random variables and their blocks' expectations multiply.
    """
    n_examples = len(inputs)
    first = np.full((n_examples, layout.n_blocks), 10**9)
    last = np.full((n_examples, layout.n_blocks), -(10**9))
    for group in layout.groups:
        active = (layout.cell_inputs(inputs, group, group.n_cells) != 0).any(-1)
        found = active.any(1)
        start = np.where(found, active.argmax(1), first[:, 0])
        stop = np.where(found, group.n_cells - 1 - active[:, ::-1].argmax(1), last[:, 0])
        base = layout.first_cell(group.blocks)
        first[:, group.blocks] = start[:, None] + base
        last[:, group.blocks] = stop[:, None] + base
    gap = first[:, 1:] - np.maximum.accumulate(last, axis=1)[:, :-1]
    return np.all(gap > 2 * reach, axis=1)


@dataclasses.dataclass(frozen=True)
class WindowList:
    """The windows one group visits, per example, left-aligned.

    Axes: (example, window); `inputs` has the window's sites as a third axis.
    """

    cell: Int[np.ndarray, "n windows"]
    previous: Int[np.ndarray, "n windows"]
    reset: Bool[np.ndarray, "n windows"]
    inputs: Float[np.ndarray, "n windows sites"]
    length: Int[np.ndarray, " n"]
    end: Int[np.ndarray, " n"]


def window_list(
    cells: Float[np.ndarray, "n n_cells 2"],
    cells_per_window: int,
    reach: int,
    *,
    first_cell: int = 0,
    whole: bool = False,
) -> WindowList:
    """Choose the windows that hold a non-zero input, and those in gaps too short to reset.

    **Arguments:**

    - `cells`: inputs cell by cell.
    - `first_cell`: the number of the first of these cells within the block.
    - `whole`: visit the first and the last window too, so that the list spans all cells.
    """
    n_examples, n_cells, _ = cells.shape
    n_windows = -(-n_cells // cells_per_window)
    padded = np.pad(cells, ((0, 0), (0, n_windows * cells_per_window - n_cells), (0, 0)))
    inputs = padded.reshape(n_examples, n_windows, 2 * cells_per_window)
    active = (inputs != 0).any(-1)
    if whole and n_windows:
        active[:, [0, -1]] = True
    long_gap = max(1, -(-2 * reach // cells_per_window))
    active = _fill_short_gaps(active, long_gap)
    length = active.sum(1)
    widest = max(1, int(length.max(initial=0)))
    order = np.argsort(~active, axis=1, kind="stable")[:, :widest]
    if n_windows == 0:
        order = np.zeros((n_examples, 1), int)
        inputs = np.zeros((n_examples, 1, 2 * cells_per_window), cells.dtype)
    cell = order * cells_per_window
    previous = np.concatenate([cell[:, :1], cell[:, :-1] + cells_per_window], axis=1)
    listed = np.arange(order.shape[1]) < length[:, None]
    reset = (cell != previous) & listed
    last = np.take_along_axis(cell, np.maximum(length - 1, 0)[:, None], axis=1)[:, 0]
    end = np.where(length > 0, last + cells_per_window, cell[:, 0])
    chosen = np.take_along_axis(inputs, order[:, :, None], axis=1)
    return WindowList(
        cell + first_cell, previous + first_cell, reset, chosen, length, end + first_cell
    )


def _fill_short_gaps(active: np.ndarray, long_gap: int) -> np.ndarray:
    """Mark the inactive windows of gaps shorter than `long_gap` as active."""
    position = np.arange(active.shape[1])
    before = np.maximum.accumulate(np.where(active, position, -(10**9)), axis=1)
    after = np.where(active, position, 10**9)
    after = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
    return active | (after - before - 1 < long_gap)


@dataclasses.dataclass(frozen=True)
class ItemIndex:
    """Where each work item belongs: its place in the blocks and what it is a part of."""

    block: Int[np.ndarray, " items"]
    slot: Int[np.ndarray, " items"]


def pack_items(
    lists: list[WindowList],
    offsets: list[Int[np.ndarray, " width"]],
    which_list: Int[np.ndarray, " items"],
    example: Int[np.ndarray, " items"],
    frequency: Float[np.ndarray, "items frequencies"],
    row: Int[np.ndarray, " items"],
    *,
    capacity: int,
    n_windows: int,
    dtype: np.dtype,
) -> tuple[WorkItems, ItemIndex]:
    """Sort items by length into blocks of fixed shape, empty blocks at the end."""
    n_items = len(example)
    length = np.stack([part.length for part in lists])[which_list, example]
    order = np.argsort(length, kind="stable")
    size = ITEMS_PER_BLOCK
    n_blocks = -(-capacity // size)
    used = -(-n_items // size)
    block, slot = np.divmod(np.arange(n_items), size)
    sites = lists[0].inputs.shape[2]
    width = len(offsets[0])
    cell = np.zeros((n_blocks, n_windows, size), np.int32)
    previous = np.zeros_like(cell)
    reset = np.zeros(cell.shape, bool)
    active = np.zeros(cell.shape, bool)
    inputs = np.zeros((*cell.shape, sites), dtype)
    frequencies = np.zeros((n_blocks, size, frequency.shape[1]), dtype)
    offset = np.zeros((n_blocks, size, width), np.int32)
    rows = np.full((n_blocks, size), -1, np.int32)
    lengths = np.zeros(n_blocks, np.int32)
    for number, part in enumerate(lists):
        mine = which_list[order] == number
        of, b, s = example[order][mine], block[mine], slot[mine]
        columns = part.cell.shape[1]
        cell[b, :columns, s] = part.cell[of]
        previous[b, :columns, s] = part.previous[of]
        reset[b, :columns, s] = part.reset[of]
        active[b, :columns, s] = np.arange(columns) < part.length[of][:, None]
        inputs[b, :columns, s] = part.inputs[of]
        offset[b, s] = offsets[number]
    frequencies[block, slot] = frequency[order]
    rows[block, slot] = row[order]
    np.maximum.at(lengths, block, length[order])
    work = WorkItems(
        cell,
        previous,
        reset,
        active,
        inputs,
        frequencies,
        offset,
        rows,
        lengths,
        np.asarray(used, np.int32),
    )
    index = ItemIndex(np.empty(n_items, np.int32), np.empty(n_items, np.int32))
    index.block[order] = block
    index.slot[order] = slot
    return work, index


def frequency_chunks(
    terms: FourierTerms, examples: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " items"], Int[np.ndarray, " items"], Float[np.ndarray, "items chunk"]]:
    """Split each example's frequencies into chunks: (position in `examples`, chunk, frequency).

    Frequencies are in radians per unit of logit.
    """
    counts = terms.n_terms[examples] // CHUNK
    position = np.repeat(np.arange(len(examples)), counts)
    chunk = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
    spacing = np.array([table.spacing for table in terms.tables])[terms.table[examples]]
    frequency = spacing[position, None] * (chunk[:, None] * CHUNK + np.arange(CHUNK))
    return position, chunk, frequency
