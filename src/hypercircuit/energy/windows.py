"""Joint moments of the bits around the end of every hidden neuron's weights.

    .. weight weight | own choices | outgoing weights ..       read from the right if reversed
       `n_weights`      `n_choice`     `n_outputs`             bits of a window

A neuron's pre-activation is correlated with its choices and outgoing weights through the last
weights only, those within the state's correlation range. All windows are swept at once.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..state import ChainMPS, ExactMPS, State
from ..state.moments import SiteMaps, site_maps


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Where the windows lie.

    **Attributes:**

    - `starts`: every window's first site from the chain's left end.
    - `n_weights`, `n_choice`, `n_outputs`: their bits, in this order unless `is_reversed`.
    """

    starts: Int[np.ndarray, " n_windows"]
    n_weights: int
    n_choice: int
    n_outputs: int
    is_reversed: bool

    @property
    def length(self) -> int:
        return self.n_weights + self.n_choice + self.n_outputs


@dataclasses.dataclass(frozen=True, eq=False)
class JointMoments:
    """Moments of choices and outgoing bits, by themselves and with each of the weights' bits.

    The axis `with_weight` holds first the moment itself, then its covariance with the bit of each
    of the window's weights. Codes count the choice bits' values, the first bit most significant.

    **Attributes:**

    - `codes`: of the code's projector, its probability.
    - `single`: of that times an outgoing bit.
    - `pairs`: of that times two outgoing bits.
    """

    codes: Float[Array, "codes with_weight windows"]
    single: Float[Array, "codes with_weight windows outputs"]
    pairs: Float[Array, "codes with_weight windows outputs outputs"]


class _WindowMaps(eqx.Module):
    """All windows of an exact state, from the weights to the outgoing bits: maps on vectors.

    Axes: `sites` (position, window, bit, in, out); `left`, `right` (position, window, in).
    """

    sites: jax.Array
    left: jax.Array
    right: jax.Array

    @property
    def mirrored(self) -> _WindowMaps:
        sites = jnp.swapaxes(self.sites[::-1], -1, -2)
        return _WindowMaps(sites, self.right[::-1], self.left[::-1])

    @staticmethod
    def moved(state: jax.Array, site: jax.Array) -> jax.Array:
        """What (.., window, in) becomes behind a site, for both of its bits: bits come first."""
        return jnp.einsum("...hx,hsxy->s...hy", state, site)

    @staticmethod
    def met(state: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.einsum("...hx,hx->...h", state, right)


class _WindowTensors(eqx.Module):
    """The same of a chain of site tensors, on matrices: bond^3 a site, and no maps are formed.

    Axes: `sites` (position, window, left, bit, right); `left`, `right` (.., window, ket, bra).
    """

    sites: jax.Array
    left: jax.Array
    right: jax.Array

    @property
    def mirrored(self) -> _WindowTensors:
        sites = jnp.swapaxes(self.sites[::-1], 2, 4)
        return _WindowTensors(sites, self.right[::-1], self.left[::-1])

    @staticmethod
    def moved(state: jax.Array, site: jax.Array) -> jax.Array:
        half = jnp.einsum("...hlm,hlsr->s...hmr", state, site)
        return jnp.einsum("s...hmr,hmsq->s...hrq", half, site.conj())

    @staticmethod
    def met(state: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.einsum("...hlm,hlm->...h", state, right).real


def windows_between(
    weights: Int[np.ndarray, "n fan_in"],
    choices: Int[np.ndarray, "n bits"],
    outgoing: Int[np.ndarray, "n outputs"],
    reach: int,
) -> Windows:
    """The windows of neurons whose bits lie on these sites, weights within `reach` of the rest."""
    is_reversed = bool(weights.shape[1] > 1 and weights[0, 0] > weights[0, -1])
    rest = np.concatenate([choices, outgoing], axis=1)
    n_weights = min(reach, weights.shape[1]) if rest.shape[1] else 0
    sites = np.concatenate([weights[:, weights.shape[1] - n_weights :], rest], axis=1)
    if rest.shape[1] and weights.shape[1] == 1:
        is_reversed = bool(weights[0, 0] > rest[0, 0])
    assert (np.diff(sites, axis=1) == (-1 if is_reversed else 1)).all(), "windows in one piece"
    starts = sites.min(1) if sites.shape[1] else np.zeros(len(weights), int)
    return Windows(starts, n_weights, choices.shape[1], outgoing.shape[1], is_reversed)


def joint_moments(mps: State, windows: Windows) -> JointMoments:
    """Sweep over the windows from the weights to the outgoing bits."""
    if windows.length == 0:
        codes = jnp.ones((1, 1, len(windows.starts)), mps.dtype)
        return JointMoments(codes, codes[..., None][..., :0], codes[..., None, None][..., :0, :0])
    found: _WindowMaps | _WindowTensors
    found = _of_chain(mps, windows) if isinstance(mps, ChainMPS) else _of_cells(mps, windows)
    return _swept(found.mirrored if windows.is_reversed else found, windows)


def _swept(found: _WindowMaps | _WindowTensors, windows: Windows) -> JointMoments:
    n_weights, n_outputs = windows.n_weights, windows.n_outputs
    # [with_weight, window, ..]
    state = found.left[0][None]
    for j in range(n_weights):
        both = found.moved(state, found.sites[j])
        traced = both.sum(0)
        one = found.met(both[1, 0], found.right[j + 1])
        one = one.reshape(one.shape + (1,) * (state.ndim - 2))
        state = jnp.concatenate([traced, (both[1, 0] - one * traced[0])[None]])
    # [code, with_weight, window, ..]
    state = state[None]
    for j in range(n_weights, n_weights + windows.n_choice):
        both = jnp.moveaxis(found.moved(state, found.sites[j]), 0, 1)
        state = both.reshape(-1, *both.shape[2:])
    first = n_weights + windows.n_choice
    codes = found.met(state, found.right[first])
    if n_outputs == 0:
        return JointMoments(codes, codes[..., None][..., :0], codes[..., None, None][..., :0, :0])

    def advance(carry: jax.Array, step: tuple) -> tuple[jax.Array, jax.Array]:
        """Slot 0 holds the state, slot 1 + c the state with output c's bit inserted."""
        number, site, right = step
        both = found.moved(carry, site)
        carry = both.sum(0)
        carry = jax.lax.dynamic_update_index_in_dim(carry, both[1, :, :, 0], number + 1, axis=2)
        return carry, found.met(both[1], right)

    # [code, with_weight, slot, window, ..]
    start = jnp.expand_dims(state, 2)
    slots = jnp.zeros_like(start, shape=(*state.shape[:2], n_outputs, *state.shape[2:]))
    steps = (jnp.arange(n_outputs), found.sites[first:], found.right[first + 1 :])
    _, ones = jax.lax.scan(advance, jnp.concatenate([start, slots], axis=2), steps)
    # [code, with_weight, window, output, slot]
    ones = jnp.transpose(ones, (1, 2, 4, 0, 3))
    single, lower = ones[..., 0], ones[..., 1:]
    own = single[..., None] * jnp.eye(n_outputs, dtype=single.dtype)
    return JointMoments(codes, single, lower + jnp.swapaxes(lower, -1, -2) + own)


def _of_chain(mps: ChainMPS, windows: Windows) -> _WindowTensors:
    sites = np.arange(windows.length)[:, None] + windows.starts
    cuts = np.arange(windows.length + 1)[:, None] + windows.starts
    return _WindowTensors(mps.sites[sites], mps.left[cuts], mps.right[cuts])


def _of_cells(mps: ExactMPS, windows: Windows) -> _WindowMaps:
    length, starts = windows.length, windows.starts
    n_cells = len(mps.maps)
    n_window_cells = min((length + 2) // 2, n_cells)
    first = np.minimum(starts // 2, n_cells - n_window_cells)
    cells = first[:, None] + np.arange(n_window_cells)
    cuts = first[:, None] + np.arange(n_window_cells + 1)

    def of_cells(maps: jax.Array, left: jax.Array, right: jax.Array) -> SiteMaps:
        return site_maps(
            dataclasses.replace(mps, cells=None, maps=maps, left=left, right=right, cumulants=None)
        )

    every = jax.vmap(of_cells)(mps.maps[cells], mps.left[cuts], mps.right[cuts])
    row, offset = np.arange(len(starts)), starts - 2 * first
    sites = offset + np.arange(length)[:, None]
    between = offset + np.arange(length + 1)[:, None]
    return _WindowMaps(every.maps[row, sites], every.left[row, between], every.right[row, between])
