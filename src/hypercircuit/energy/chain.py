"""The chain kernel: expectations of product operators swept through the doubled bond.

A work item follows one example at `CHUNK` frequencies along a list of *windows* (a few
neighbouring cells), for all blocks of one parity at once:

    vector --[ window ]--[ window ]--- gap ---[ window ]-->
              sum over bit patterns of        a long gap resets: the light cones are disjoint,
              exp(i nu x . bits) * maps       so the map is right[end of last] left[start of next]

Windows whose inputs are all zero are never visited. The maps of a window for all its bit patterns
are tabulated once per state, so the frequencies enter through one matrix product per window:
(blocks * doubled^2) x patterns times patterns x (2 * frequencies).

Real and imaginary parts are kept apart; everything is real arithmetic. The gradient is written
out: blocks of items are recomputed in the backward pass, so that memory is bounded by one block.
"""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._types import AnyArray
from ..state import ExactMPS

Vectors = tuple[jax.Array, jax.Array]


class WindowMaps(eqx.Module):
    """What the chain kernel reads from a state.

    **Attributes:**

    - `maps`: (n_cells, doubled, doubled, patterns) for the window that starts at each cell; the
      window's first bit is the most significant of the pattern.
    - `left`, `right`: the traced-out chain at every cut, padded beyond the chain's end.
    """

    maps: Float[Array, "n_cells doubled doubled patterns"]
    left: Float[Array, "n_cuts doubled"]
    right: Float[Array, "n_cuts doubled"]


class WorkItems(eqx.Module):
    """Blocks of work items of similar length; their number and length may vary
    without recompiling.

    **Attributes:**

    - `cell`: start cell of every window, counted from the start cell of the item's block.
    - `previous`: the cut after the previous window, likewise.
    - `reset`: whether a long gap lies between the two.
    - `active`: whether the item has such a window at all.
    - `inputs`: what the window's bits multiply.
    - `frequency`: angle per unit input of every frequency.
    - `offset`: start cells of the blocks that share the item's windows.
    - `row`: unit vector to start from, or -1 for the traced-out chain to the left.
    """

    cell: Int[AnyArray, "blocks windows items"]
    previous: Int[AnyArray, "blocks windows items"]
    reset: Bool[AnyArray, "blocks windows items"]
    active: Bool[AnyArray, "blocks windows items"]
    inputs: Float[AnyArray, "blocks windows items sites"]
    frequency: Float[AnyArray, "blocks items frequencies"]
    offset: Int[AnyArray, "blocks items outputs"]
    row: Int[AnyArray, "blocks items"]
    lengths: Int[AnyArray, " blocks"]
    n_blocks: Int[AnyArray, ""]


def window_maps(mps: ExactMPS, cells_per_window: int) -> WindowMaps:
    """Tabulate the maps of every window of `cells_per_window` cells (1 or 2)."""
    n_cells, _, doubled, _ = mps.maps.shape
    maps = mps.maps
    if cells_per_window == 2:
        # Beyond the end the chain goes on with cells that hold only zeros.
        virtual = jnp.outer(mps.right[-1], mps.left[0])
        after = jnp.concatenate([maps[1:], jnp.zeros((1, 4, doubled, doubled), maps.dtype)])
        after = after.at[-1, 0].set(virtual)
        maps = jnp.einsum("nsxy,ntyz->nstxz", maps, after).reshape(n_cells, 16, doubled, doubled)
    elif cells_per_window != 1:
        raise ValueError(f"cells_per_window must be 1 or 2, got {cells_per_window}")
    extra = ((0, cells_per_window), (0, 0))
    return WindowMaps(
        jnp.moveaxis(maps, 1, -1),
        jnp.pad(mps.left, extra, mode="edge"),
        jnp.pad(mps.right, extra, mode="edge"),
    )


def sweep(state: WindowMaps, items: WorkItems) -> Vectors:
    """Carry every item's vector through its windows.

    Returns the real and imaginary parts, each (blocks, items, outputs, doubled, frequencies).
    """
    return _sweep(state, jax.tree.map(jnp.asarray, items))


@jax.custom_vjp
def _sweep(state: WindowMaps, items: WorkItems) -> Vectors:
    return _sweep_forward(state, items)[0]


def phases(inputs: jax.Array, frequency: jax.Array) -> jax.Array:
    """``exp(i nu x . bits)`` of all bit patterns: (items, patterns, 2 * frequencies)."""
    angle = inputs[:, :, None] * frequency[:, None, :]
    # A materialised (items, 2, ..) factor per site, joined by outer products: stacking single
    # patterns would make the compiler evaluate the same products over and over.
    ones, zeros = jnp.ones_like(angle), jnp.zeros_like(angle)
    real, imag = lax.optimization_barrier(
        (jnp.stack([ones, jnp.cos(angle)], 2), jnp.stack([zeros, jnp.sin(angle)], 2))
    )
    a, b = real[:, 0], imag[:, 0]
    n_items, n_frequencies = frequency.shape
    for site in range(1, inputs.shape[1]):
        c, d = real[:, site, None], imag[:, site, None]
        a, b = a[:, :, None], b[:, :, None]
        a, b = (part.reshape(n_items, -1, n_frequencies) for part in (a * c - b * d, a * d + b * c))
    return jnp.concatenate([a, b], axis=-1)


def _window(
    maps: jax.Array,
    left: jax.Array,
    right: jax.Array,
    vectors: Vectors,
    reset: jax.Array,
    active: jax.Array,
    turns: jax.Array,
) -> Vectors:
    """One window for a block of items: maps (items, outputs, doubled, doubled, patterns)."""
    n_items, n_outputs, doubled, _, patterns = maps.shape
    entering = jnp.einsum("icx,icxyp->icyp", left, maps)
    after_gap = right[..., :, None, None] * entering[:, :, None]
    maps = jnp.where(reset[:, None, None, None, None], after_gap, maps)
    # At full precision also where matrix units default to less.
    moves = jnp.einsum(
        "imp,ipf->imf",
        maps.reshape(n_items, n_outputs * doubled * doubled, patterns),
        turns,
        precision=lax.Precision.HIGHEST,
    ).reshape(n_items, n_outputs, doubled, doubled, -1)
    new_real, new_imag = _contract(moves, *vectors)
    keep = active[:, None, None, None]
    return jnp.where(keep, new_real, vectors[0]), jnp.where(keep, new_imag, vectors[1])


@jax.custom_vjp
def _contract(moves: jax.Array, real: jax.Array, imag: jax.Array) -> Vectors:
    """Vectors (.., x, f) times complex matrices (.., x, y, [real f, imaginary f]).

    Written out over x and y, and with its transpose, so that both compile to fused loops over
    the contiguous frequencies.
    """
    move_real, move_imag = jnp.split(moves, 2, axis=-1)
    new_real = new_imag = jnp.zeros((), moves.dtype)
    for x in range(moves.shape[2]):
        a, b = real[:, :, x, None], imag[:, :, x, None]
        new_real += a * move_real[:, :, x] - b * move_imag[:, :, x]
        new_imag += a * move_imag[:, :, x] + b * move_real[:, :, x]
    return new_real, new_imag


def _contract_forward(moves: jax.Array, real: jax.Array, imag: jax.Array) -> tuple:
    return _contract(moves, real, imag), (moves, real, imag)


def _contract_backward(residuals: tuple, cotangents: Vectors) -> tuple:
    moves, real, imag = residuals
    move_real, move_imag = jnp.split(moves, 2, axis=-1)
    to_real = to_imag = jnp.zeros((), moves.dtype)
    for y in range(moves.shape[3]):
        a, b = cotangents[0][:, :, y, None], cotangents[1][:, :, y, None]
        to_real += a * move_real[:, :, :, y] + b * move_imag[:, :, :, y]
        to_imag += b * move_real[:, :, :, y] - a * move_imag[:, :, :, y]
    a, b = cotangents[0][:, :, None], cotangents[1][:, :, None]
    c, d = real[:, :, :, None], imag[:, :, :, None]
    to_moves = jnp.concatenate([a * c + b * d, b * c - a * d], axis=-1)
    return to_moves, to_real, to_imag


_contract.defvjp(_contract_forward, _contract_backward)


def _gathered(state: WindowMaps, block: WorkItems, step: jax.Array) -> tuple:
    cell = block.cell[step][:, None] + block.offset
    previous = block.previous[step][:, None] + block.offset
    return cell, previous, (state.maps[cell], state.left[cell], state.right[previous])


def _start(state: WindowMaps, block: WorkItems) -> Vectors:
    doubled = state.maps.shape[1]
    traced = state.left[block.cell[0][:, None] + block.offset]
    unit = jax.nn.one_hot(block.row, doubled, dtype=traced.dtype)[:, None]
    start = jnp.where((block.row < 0)[:, None, None], traced, unit)
    shape = (*start.shape, block.frequency.shape[-1])
    return jnp.broadcast_to(start[..., None], shape), jnp.zeros(shape, start.dtype)


def _run_block(
    state: WindowMaps, block: WorkItems, *, keep: bool
) -> tuple[Vectors, Vectors | None]:
    """Sweep one block; with `keep`, also return the vectors before every window."""
    start = _start(state, block)
    n_windows = block.cell.shape[0]
    history = (
        jax.tree.map(lambda v: jnp.zeros((n_windows, *v.shape), v.dtype), start) if keep else None
    )

    def body(step: jax.Array, carry: tuple) -> tuple:
        vectors, history = carry
        if keep:
            history = jax.tree.map(lambda h, v: h.at[step].set(v), history, vectors)
        _, _, (maps, left, right) = _gathered(state, block, step)
        turns = phases(block.inputs[step], block.frequency)
        reset, active = block.reset[step], block.active[step]
        return _window(maps, left, right, vectors, reset, active, turns), history

    return lax.fori_loop(0, block.lengths, body, (start, history))


def _select(items: WorkItems, index: jax.Array) -> WorkItems:
    """Block number `index`, `n_blocks` aside."""
    parts = eqx.tree_at(lambda w: w.n_blocks, items, jnp.broadcast_to(0, items.lengths.shape))
    return jax.tree.map(lambda leaf: leaf[index], parts)


def _sweep_forward(state: WindowMaps, items: WorkItems) -> tuple[Vectors, tuple]:
    n_blocks, n_items, n_outputs = items.offset.shape
    shape = (n_blocks, n_items, n_outputs, state.maps.shape[1], items.frequency.shape[-1])
    empty = jnp.zeros(shape, state.maps.dtype)

    def body(index: jax.Array, results: Vectors) -> Vectors:
        vectors, _ = _run_block(state, _select(items, index), keep=False)
        return jax.tree.map(lambda r, v: r.at[index].set(v), results, vectors)

    return lax.fori_loop(0, items.n_blocks, body, (empty, empty)), (state, items)


def _sweep_backward(residuals: tuple, cotangents: Vectors) -> tuple:
    state, items = residuals

    def block_body(index: jax.Array, gradient: WindowMaps) -> WindowMaps:
        block = _select(items, index)
        _, history = _run_block(state, block, keep=True)
        cotangent = jax.tree.map(lambda c: c[index], cotangents)

        def body(count: jax.Array, carry: tuple) -> tuple:
            cotangent, gradient = carry
            step = block.lengths - 1 - count
            cell, previous, gathered = _gathered(state, block, step)
            turns = phases(block.inputs[step], block.frequency)
            vectors = jax.tree.map(lambda h: h[step], history)
            run = functools.partial(
                _window, reset=block.reset[step], active=block.active[step], turns=turns
            )
            _, pull = jax.vjp(run, *gathered, vectors)
            maps, left, right, cotangent = pull(cotangent)
            gradient = WindowMaps(
                gradient.maps.at[cell].add(maps),
                gradient.left.at[cell].add(left),
                gradient.right.at[previous].add(right),
            )
            return cotangent, gradient

        cotangent, gradient = lax.fori_loop(0, block.lengths, body, (cotangent, gradient))
        traced = jnp.where((block.row < 0)[:, None, None], cotangent[0].sum(-1), 0)
        start = block.cell[0][:, None] + block.offset
        return eqx.tree_at(lambda g: g.left, gradient, gradient.left.at[start].add(traced))

    zero = jax.tree.map(jnp.zeros_like, state)
    return lax.fori_loop(0, items.n_blocks, block_body, zero), None


_sweep.defvjp(_sweep_forward, _sweep_backward)
