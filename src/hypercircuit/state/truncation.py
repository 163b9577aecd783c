"""How a layer of CX is brought back to a bounded bond: strategies for `truncated_tensors`.

A layer acts on disjoint pairs of neighbours. Idle sites |0> fill up the chain, one before it in
layers whose first pair starts at site 1, so that every layer is one batch of equal cells:

    pairs (0,1) (2,3) ..    [ 0   1 ][ 2   3 ][ 4   . ]
    pairs (1,2) (3,4) ..    [ .   0 ][ 1   2 ][ 3   4 ]

In every cell the two tensors and what is left of them are joined, CX applied, and the joined tensor
truncated at its singular values. These are the state's Schmidt coefficients, and the truncation the
best one, as far as everything outside the cell is isometric: exactly so for `Sweep`,
approximately for `Parallel`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

from .._types import ChainTensors
from .canonical import end_bond, left_canonical, mirrored, phase, right_canonical
from .splitting import adjoint, move, truncate, without_scale

Discarded = Float[Array, "layers bonds"]
#: Single-qubit gates after the CX of every layer.
Gates = Inexact[Array, "layers n_sites 2 2"]
#: Residuals of more layers than fit into so many bytes are computed again in the backward pass.
KEPT_BYTES = 2**30


class TruncationScheme(eqx.Module):
    """How layers of CX and rotations act on a chain whose bonds cannot grow."""

    @abc.abstractmethod
    def evolve(
        self, chain: ChainTensors, gates: Gates, first_layer: int, cutoff: float
    ) -> tuple[ChainTensors, Discarded]:
        """The chain after some layers, in any gauge, and what each threw away at each bond.

        **Arguments:**

        - `chain`: any gauge, not zero.
        - `gates`: of the layers `first_layer`, `first_layer + 1`, .., counted from 1.
        - `cutoff`: see `truncated_tensors`.
        """


class Sweep(TruncationScheme):
    """Pair after pair with an orthogonality centre that moves exactly.

    The first layer is swept from one end, the second back from the other, and so on; each
    truncation is the best one of the state at that moment. Two decompositions a pair, one after
    the other: (2 bond x 2 bond) where it truncates, (2 bond x bond) to move on.
    """

    def evolve(
        self, chain: ChainTensors, gates: Gates, first_layer: int, cutoff: float
    ) -> tuple[ChainTensors, Discarded]:
        n_layers, n_sites = gates.shape[:2]
        numbers = first_layer + jnp.arange(n_layers)
        # The last layer is swept from left to right.
        backwards = (n_layers - 1 - jnp.arange(n_layers)) % 2 == 1
        starts = jnp.where(backwards, n_sites - numbers, numbers) % 2
        gates = jnp.where(backwards[:, None, None, None], gates[:, ::-1], gates)
        if n_layers % 2 == 0:
            chain = mirrored(chain)
        chain = mirrored(right_canonical(chain))

        def layer(chain: jax.Array, given: tuple) -> tuple[jax.Array, jax.Array]:
            gate, start, backward = given
            chain, discarded = self._sweep(mirrored(chain), start, backward, cutoff)
            return _rotated(chain, gate), jnp.where(backward, discarded[::-1], discarded)

        return lax.scan(_frugal(layer, chain, n_layers), chain, (gates, starts, backwards))

    def _sweep(
        self, chain: jax.Array, start: jax.Array, backward: jax.Array, cutoff: float
    ) -> tuple[jax.Array, jax.Array]:
        """One layer's CX from left to right: a right-canonical chain becomes left-canonical."""
        n_sites, bond, _, _ = chain.shape
        cells, has_pair = _to_cells(chain, start)

        def step(centre: jax.Array, given: tuple) -> tuple[jax.Array, tuple]:
            (first, second), pair = given
            joined = jnp.einsum("xl,lsm->xsm", centre, first)
            joined = jnp.einsum("xsm,mtr->xstr", joined, second)
            joined = jnp.where(pair, _cx(joined, backward), joined)
            matrix = joined.reshape(2 * bond, 2 * bond)
            isometry, rest, _, discarded = truncate(
                without_scale(matrix), _rank(pair, bond), bond, cutoff
            )
            tall = without_scale(rest.reshape(2 * bond, bond))
            moved, centre = move(tall)
            pieces = jnp.stack([isometry.reshape(bond, 2, bond), moved.reshape(bond, 2, bond)])
            return centre, (pieces, discarded)

        end, (cells, discarded) = lax.scan(step, end_bond(chain), (cells, has_pair))
        chain = _from_cells(cells, start, n_sites)
        return chain.at[-1].multiply(phase(end)), _at_bonds(discarded, start, n_sites)


class Parallel(TruncationScheme):
    """All pairs of a layer at once, one decomposition each: nothing is swept between layers.

    Hastings' form of the time-evolving block decimation (arXiv:0903.3253): with right isometries
    B and the centre matrix to the left of each cell, the joined tensor is truncated with the centre
    while the new tensors are made without it, so that no singular value is divided by. Other
    cells' truncations of the same layer, and of those before it, spoil the isometries by an amount
    of the order of what they threw away; the discarded weights are then estimates.
    """

    def evolve(
        self, chain: ChainTensors, gates: Gates, first_layer: int, cutoff: float
    ) -> tuple[ChainTensors, Discarded]:
        n_layers, n_sites, bond = *gates.shape[:2], chain.shape[1]
        starts = (first_layer + jnp.arange(n_layers)) % 2
        chain = right_canonical(chain)
        _, centres = left_canonical(chain)
        ends = jnp.broadcast_to(end_bond(chain), (2, bond, bond))
        before = jnp.concatenate([ends[:1], centres[1::2], ends])
        at_even = jnp.concatenate([centres[::2], ends])
        n_cells = n_sites // 2 + 1
        # Cells start at sites 0, 2, .. or, with an idle site first, at 1, 3, ..
        centres = jnp.where(starts[0] == 1, before[:n_cells], at_even[:n_cells])

        def layer(state: tuple, given: tuple) -> tuple[tuple, jax.Array]:
            chain, centres = state
            gate, start = given
            cells, has_pair = _to_cells(chain, start)
            joined = jnp.einsum("nlsm,nmtr->nlstr", cells[:, 0], cells[:, 1])
            joined = jnp.where(has_pair[:, None, None, None, None], _cx(joined, False), joined)
            weighted = jnp.einsum("nxl,nlstr->nxstr", centres, joined)
            matrices = without_scale(weighted.reshape(-1, 2 * bond, 2 * bond))
            isometry, rest, constant, discarded = truncate(
                adjoint(matrices), _rank(has_pair, bond), bond, cutoff
            )
            # Only C^H C of a centre matters: a constant isometry makes it square again.
            inner = adjoint(without_scale(rest @ lax.stop_gradient(adjoint(constant))))
            first = joined.reshape(-1, 2 * bond, 2 * bond) @ isometry
            second = adjoint(isometry)
            shape = (-1, bond, 2, bond)
            cells = jnp.stack([first.reshape(shape), second.reshape(shape)], 1)
            chain = _rotated(_from_cells(cells, start, n_sites), gate)
            # The next cells begin inside these: at the next one's, if there was no idle site.
            later = jnp.concatenate([ends[:1], inner[:-1]])
            centres = jnp.where(start == 1, inner, later)
            return (chain, centres), _at_bonds(discarded, start, n_sites)

        run = _frugal(layer, chain, n_layers)
        (chain, _), discarded = lax.scan(run, (chain, centres), (gates, starts))
        return chain, discarded


#: The schemes by the names that configurations use.
SCHEMES: dict[str, TruncationScheme] = {"sweep": Sweep(), "parallel": Parallel()}


def _to_cells(chain: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The chain as (n_cells, 2, bond, 2, bond) after `start` idle sites; which cells are pairs."""
    n_sites, bond, _, _ = chain.shape
    n_cells = n_sites // 2 + 1
    idle = jnp.zeros((bond, 2, bond), chain.dtype).at[0, 0, 0].set(1)
    padded = jnp.broadcast_to(idle, (2 * n_cells, bond, 2, bond))
    padded = lax.dynamic_update_slice(padded, chain, (start, 0, 0, 0))
    first = 2 * jnp.arange(n_cells) - start
    has_pair = (first >= 0) & (first + 1 < n_sites)
    return padded.reshape(n_cells, 2, bond, 2, bond), has_pair


def _rank(has_pair: jax.Array, bond: int) -> jax.Array:
    """A bond to an idle site is cut off with it: nothing, no derivative either, may leave by it."""
    return jnp.where(has_pair, bond, 1)


def _from_cells(cells: jax.Array, start: jax.Array, n_sites: int) -> jax.Array:
    padded = cells.reshape(-1, *cells.shape[2:])
    position = jnp.arange(len(padded)) - start
    idle = (position < 0) | (position >= n_sites)
    # The phases that idle sites took up belong to the state.
    factor = jnp.prod(jnp.where(idle, padded[:, 0, 0, 0], 1))
    chain = lax.dynamic_slice_in_dim(padded, start, n_sites)
    return chain.at[0].multiply(factor / jnp.abs(factor))


def _at_bonds(discarded: jax.Array, start: jax.Array, n_sites: int) -> jax.Array:
    """What cells threw away, put at the bonds (n_sites - 1) inside them."""
    padded = jnp.stack([discarded, jnp.zeros_like(discarded)], 1).reshape(-1)
    return lax.dynamic_slice_in_dim(padded, start, n_sites - 1)


def _cx(joined: jax.Array, backward: jax.Array | bool) -> jax.Array:
    """CX on tensors (..., left, s, t, right), its control s or, backward, t."""
    forward = jnp.stack([joined[..., 0, :, :], joined[..., 1, ::-1, :]], -3)
    reverse = jnp.stack([joined[..., 0, :], joined[..., ::-1, 1, :]], -2)
    return jnp.where(backward, reverse, forward)


def _rotated(chain: jax.Array, gates: jax.Array) -> jax.Array:
    return jnp.einsum("nst,nltr->nlsr", gates, chain)


def _frugal(layer: Callable, chain: jax.Array, n_layers: int) -> Callable:
    """The layer, computed again in the backward pass where its factors would fill the memory."""
    kept_bytes = 4 * chain.size * chain.dtype.itemsize * n_layers
    return jax.checkpoint(layer) if kept_bytes > KEPT_BYTES else layer
