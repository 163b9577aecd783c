"""Joint moments of the bits around the end of every hidden neuron's weights.

    .. weight weight | own choices | outgoing weights ..       read from the right if reversed
       `n_weights`      `n_choice`     `n_outputs`             bits of a window

A neuron's pre-activation is correlated with its choices and outgoing weights through the last
weights only, those within the state's correlation range. All windows are swept at once.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..state import ChainMPS, ExactMPS, State
from ..state.moments import SiteMaps, chain_site_maps, site_maps


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


@dataclasses.dataclass(frozen=True, eq=False)
class _WindowMaps:
    """Site maps of all windows, from the weights to the outgoing bits.

    Axes: `maps` (window, site, bit, in, out); `left`, `right` (window, cut, in).
    """

    maps: jax.Array
    left: jax.Array
    right: jax.Array


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
    n_windows, n_weights = len(windows.starts), windows.n_weights
    if windows.length == 0:
        codes = jnp.ones((1, 1, n_windows), mps.dtype)
        return JointMoments(codes, codes[..., None][..., :0], codes[..., None, None][..., :0, :0])
    sites = _window_maps(mps, windows)
    traced = sites.maps.sum(2)
    state = sites.left[:, 0][None]
    for j in range(n_weights):
        maps, right = sites.maps[:, j], sites.right[:, j + 1]
        one = jnp.einsum("hx,hxy,hy->h", sites.left[:, j], maps[:, 1], right)
        inserted = maps[:, 1] - one[:, None, None] * traced[:, j]
        new = jnp.einsum("hx,hxy->hy", state[0], inserted)
        state = jnp.concatenate([jnp.einsum("jhx,hxy->jhy", state, traced[:, j]), new[None]])
    state = state[None]
    for j in range(n_weights, n_weights + windows.n_choice):
        state = jnp.einsum("qjhx,hsxy->qsjhy", state, sites.maps[:, j])
        state = state.reshape(-1, *state.shape[2:])
    first = n_weights + windows.n_choice
    codes = jnp.einsum("qjhx,hx->qjh", state, sites.right[:, first])
    n_outputs = windows.n_outputs
    if n_outputs == 0:
        return JointMoments(codes, codes[..., None][..., :0], codes[..., None, None][..., :0, :0])

    def advance(carry: jax.Array, step: tuple) -> tuple[jax.Array, jax.Array]:
        """Slot 0 holds the state, slot 1 + c the state with output c's bit inserted."""
        number, maps, right = step
        one = jnp.einsum("qjhcx,hxy->qjhcy", carry, maps[:, 1])
        carry = jnp.einsum("qjhcx,hxy->qjhcy", carry, maps.sum(1))
        carry = jax.lax.dynamic_update_index_in_dim(carry, one[..., 0, :], number + 1, axis=3)
        return carry, jnp.einsum("qjhcx,hx->qjhc", one, right)

    slots = jnp.zeros((*state.shape[:3], n_outputs, state.shape[-1]), state.dtype)
    start = jnp.concatenate([state[..., None, :], slots], axis=3)
    steps = (
        jnp.arange(n_outputs),
        jnp.moveaxis(sites.maps[:, first:], 1, 0),
        jnp.moveaxis(sites.right[:, first + 1 :], 1, 0),
    )
    _, found = jax.lax.scan(advance, start, steps)
    found = jnp.moveaxis(found, 0, -2)
    single, lower = found[..., 0], found[..., 1:]
    own = single[..., None] * jnp.eye(n_outputs, dtype=single.dtype)
    return JointMoments(codes, single, lower + jnp.swapaxes(lower, -1, -2) + own)


def _window_maps(mps: State, windows: Windows) -> _WindowMaps:
    of_state = _of_chain if isinstance(mps, ChainMPS) else _of_cells
    found = of_state(mps, windows.starts, windows.length)  # type: ignore[arg-type]
    if not windows.is_reversed:
        return found
    maps = jnp.swapaxes(found.maps[:, ::-1], -1, -2)
    return _WindowMaps(maps, found.right[:, ::-1], found.left[:, ::-1])


def _of_chain(mps: ChainMPS, starts: Int[np.ndarray, " n_windows"], length: int) -> _WindowMaps:
    sites = starts[:, None] + np.arange(length)
    cuts = starts[:, None] + np.arange(length + 1)
    every = jax.vmap(chain_site_maps)(mps.sites[sites], mps.left[cuts], mps.right[cuts])
    return _WindowMaps(every.maps, every.left, every.right)


def _of_cells(mps: ExactMPS, starts: Int[np.ndarray, " n_windows"], length: int) -> _WindowMaps:
    n_cells = len(mps.maps)
    n_window_cells = min((length + 2) // 2, n_cells)
    first = np.minimum(starts // 2, n_cells - n_window_cells)
    cells = first[:, None] + np.arange(n_window_cells)
    cuts = first[:, None] + np.arange(n_window_cells + 1)

    def of_cells(maps: jax.Array, left: jax.Array, right: jax.Array) -> SiteMaps:
        return site_maps(dataclasses.replace(mps, cells=None, maps=maps, left=left, right=right))

    every = jax.vmap(of_cells)(mps.maps[cells], mps.left[cuts], mps.right[cuts])
    row, offset = np.arange(len(starts))[:, None], (starts - 2 * first)[:, None]
    maps = every.maps[row, offset + np.arange(length)]
    left, right = (each[row, offset + np.arange(length + 1)] for each in (every.left, every.right))
    return _WindowMaps(maps, left, right)
