"""Marginals, correlations and cumulants of the bits, exact and without a sweep over the chain.

Bits further apart than the circuit's correlation range are independent, so a joint cumulant of
several bits vanishes as soon as a gap between neighbouring ones exceeds that range. What is left
is a band: for gaps g_1 .. g_{k-1} in 1..range and powers q_1 .. q_k,

    band[g_1, .., g_{k-1}, i] = cumulant(b_{j_1} q_1 times, .., b_{j_k} q_k times),
    j_k = i,  j_{m} = j_{m+1} - g_m,

stored at its last site i, zero where j_1 < 0.
"""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int

from . import chain_moments
from .chain import ChainMPS
from .exact import Band, ExactMPS, doubled_maps, hermitian_basis


class SiteMaps(eqx.Module):
    """The maps on the doubled bond site by site.

    Inside a cell the cut also remembers the cell's first bit, so vectors at every cut have
    length 2 * doubled; in a chain of site tensors they have length doubled. Axes: `maps`
    (site, bit, in, out); `left`, `right` (cut, size).
    """

    maps: Float[Array, "n_sites 2 size size"]
    left: Float[Array, "n_cuts size"]
    right: Float[Array, "n_cuts size"]


def site_maps(mps: ExactMPS) -> SiteMaps:
    """Split every cell's maps into one map per site; the padding site of odd chains included."""
    n_cells, _, doubled, _ = mps.maps.shape
    size = 2 * doubled
    eye = jnp.eye(size, dtype=mps.maps.dtype).reshape(2, doubled, size)
    first = jnp.zeros((2, size, size), mps.maps.dtype).at[:, :doubled].set(eye)
    pairs = mps.maps.reshape(n_cells, 2, 2, doubled, doubled)
    second = jnp.swapaxes(pairs, 1, 2).reshape(n_cells, 2, size, doubled)
    second = jnp.pad(second, ((0, 0), (0, 0), (0, 0), (0, doubled)))
    maps = jnp.stack([jnp.broadcast_to(first, (n_cells, 2, size, size)), second], axis=1)

    pad = ((0, 0), (0, doubled))
    left_outer, right_outer = jnp.pad(mps.left, pad), jnp.pad(mps.right, pad)
    left_inner = jnp.concatenate([mps.left[:-1], mps.left[:-1]], axis=1)
    right_inner = jnp.einsum("nbxy,ny->nx", second, right_outer[1:])
    left = jnp.stack([left_outer[:-1], left_inner], axis=1).reshape(2 * n_cells, size)
    right = jnp.stack([right_outer[:-1], right_inner], axis=1).reshape(2 * n_cells, size)
    return SiteMaps(
        maps.reshape(2 * n_cells, 2, size, size),
        jnp.concatenate([left, left_outer[-1:]]),
        jnp.concatenate([right, right_outer[-1:]]),
    )


def chain_site_maps(
    sites: Inexact[Array, "n_sites bond 2 bond"],
    left: Inexact[Array, "n_left bond bond"],
    right: Inexact[Array, "n_right bond bond"],
) -> SiteMaps:
    """The same of site tensors and of traced-out parts of their chain: bond^4 entries a site."""
    real = not jnp.iscomplexobj(sites)
    basis = jnp.asarray(hermitian_basis(sites.shape[-1], real=real), sites.dtype)
    return SiteMaps(
        doubled_maps(sites),
        jnp.einsum("xab,nab->nx", basis.conj(), left).real,
        jnp.einsum("xab,nab->nx", basis, right).real,
    )


def bit_probabilities(mps: ExactMPS | ChainMPS) -> Float[Array, " n_qubits"]:
    """The probability that each bit is 1."""
    if isinstance(mps, ChainMPS):
        return chain_moments.bit_probabilities(mps)
    sites = site_maps(mps)
    ones = jnp.einsum("nx,nxy,ny->n", sites.left[:-1], sites.maps[:, 1], sites.right[1:])
    return ones[: mps.n_qubits]


def marginals(mps: ExactMPS | ChainMPS) -> Float[Array, " n_qubits"]:
    """The expectation of Pauli Z on every site, ``1 - 2 p(bit = 1)``."""
    return 1 - 2 * bit_probabilities(mps)


def joint_probabilities(
    mps: ExactMPS | ChainMPS, sites: Int[np.ndarray, "groups bits"]
) -> Float[Array, "groups codes"]:
    """The joint distribution of groups of neighbouring bits, a group's first most significant.

    **Raises:** `ValueError` if a group's sites are not neighbours, rising or falling.
    """
    n_bits = sites.shape[1]
    steps = np.diff(sites, axis=1)
    if n_bits > 1 and not (np.abs(steps).max() == 1 and (steps == steps[:1, :1]).all()):
        raise ValueError(f"sites of a group must be neighbours in one direction, got {sites}")
    falling = n_bits > 1 and steps[0, 0] < 0
    ordered = sites[:, ::-1] if falling else sites
    if isinstance(mps, ChainMPS):
        table = chain_moments.joint_probabilities(mps, ordered)
    else:
        table = _joint_table(site_maps(mps), ordered)
    if falling:
        axes = (0, *range(n_bits, 0, -1))
        table = table.reshape(len(sites), *(2,) * n_bits).transpose(axes)
    return table.reshape(len(sites), 2**n_bits)


def _joint_table(chain: SiteMaps, sites: Int[np.ndarray, "groups bits"]) -> jax.Array:
    vectors = chain.left[sites[:, 0]][:, None]
    for position in range(sites.shape[1]):
        maps = chain.maps[sites[:, position]]
        vectors = jnp.einsum("gcx,gsxy->gcsy", vectors, maps)
        vectors = vectors.reshape(len(sites), -1, vectors.shape[-1])
    return jnp.einsum("gcx,gx->gc", vectors, chain.right[sites[:, -1] + 1])


def correlations(mps: ExactMPS | ChainMPS) -> Float[Array, "distances n_qubits"]:
    """Connected correlations ``<Z_i Z_j> - <Z_i><Z_j>`` of all pairs that have any.

    Entry [r, i] belongs to the pair (i - r, i), r = 0..range, and is zero where i < r; pairs
    further apart than the range are exactly uncorrelated in an exact state.
    """
    single, *pairs = bit_cumulants(mps, 2)[1]
    return 4 * jnp.concatenate([single.values[None], *(pair.values for pair in pairs)])


def bit_cumulants(
    mps: ExactMPS | ChainMPS, order: int
) -> tuple[Float[Array, " n_qubits"], tuple[Band, ...]]:
    """The bits' probabilities (first cumulants) and all bands of order 2..`order`.

    The bands of one order are listed by their powers, in lexicographic order from the highest
    power: (2), (1, 1), (3), (2, 1), ...

    **Arguments:**

    - `order`: 2, 3 or 4; 2 for states of site tensors.

    **Raises:** `ValueError` for another order.
    """
    if order not in (2, 3, 4):
        raise ValueError(f"order must be 2, 3 or 4, got {order}")
    if isinstance(mps, ChainMPS):
        return _chain_cumulants(mps, order)
    n_qubits = mps.n_qubits
    sites = site_maps(mps)
    reach = mps.correlation_range
    probabilities = jnp.einsum("nx,nxy,ny->n", sites.left[:-1], sites.maps[:, 1], sites.right[1:])
    traced = sites.maps.sum(1)
    deviations = jnp.stack([-probabilities, 1 - probabilities], axis=1)
    inserted = [
        jnp.einsum("ns,nsxy->nxy", deviations**power, sites.maps) for power in range(1, order + 1)
    ]

    def moments(powers: tuple[int, ...]) -> jax.Array:
        state = jnp.einsum("nx,nxy->ny", sites.left[:-1], inserted[powers[0] - 1])
        for power in powers[1:]:
            arriving = []
            for _ in range(reach):
                state = _shift(state)
                arriving.append(state)
                state = jnp.einsum("...nx,nxy->...ny", state, traced)
            state = jnp.stack(arriving, axis=-3)
            state = jnp.einsum("...nx,nxy->...ny", state, inserted[power - 1])
        return jnp.einsum("...nx,nx->...n", state, sites.right[1:])[..., :n_qubits]

    bands = []
    variances, covariances = moments((2,)), None
    for total in range(2, order + 1):
        for powers in _compositions(total):
            if len(powers) > 1 and reach == 0:
                continue
            values = moments(powers)
            if powers == (1, 1):
                covariances = values
            if total == 4:
                values = values - _pairings(powers, variances, covariances, reach)
            bands.append(Band(powers, values))
    return probabilities[:n_qubits], tuple(bands)


def _chain_cumulants(
    mps: ChainMPS, order: int
) -> tuple[Float[Array, " n_qubits"], tuple[Band, ...]]:
    if order > 2:
        raise ValueError(
            f"order must be 2 for a state of site tensors (ChainMPS), got {order}; take 2, or an "
            "exact state of a shallow circuit"
        )
    reach = mps.n_qubits - 1 if mps.correlation_range is None else mps.correlation_range
    probabilities, variances, covariances = chain_moments.pair_covariances(mps, reach)
    bands = (Band((2,), variances), Band((1, 1), covariances))
    return probabilities, bands if reach else bands[:1]


def _compositions(total: int) -> list[tuple[int, ...]]:
    """All ordered ways to write `total` as a sum of positive powers, fewest parts first."""
    found = []
    for parts in range(1, total + 1):
        for powers in itertools.product(range(total, 0, -1), repeat=parts):
            if sum(powers) == total:
                found.append(powers)
    return found


def _shift(values: jax.Array, by: int = 1) -> jax.Array:
    """Move entries `by` sites to the right along the second-to-last axis, zeros coming in."""
    pad = [(0, 0)] * values.ndim
    pad[-2] = (by, 0)
    return jnp.pad(values, pad)[..., : values.shape[-2], :]


def _pairings(
    powers: tuple[int, ...], variances: jax.Array, covariances: jax.Array | None, reach: int
) -> jax.Array:
    """The three products of two covariances that a fourth moment exceeds its cumulant by."""
    n_qubits = variances.shape[-1]
    n_gaps = len(powers) - 1
    table = variances[None]
    if covariances is not None:
        table = jnp.concatenate([table, covariances])
    labels = [site for site, power in enumerate(powers) for _ in range(power)]
    gaps = jnp.meshgrid(*[jnp.arange(1, reach + 1)] * n_gaps, indexing="ij") if n_gaps else []
    # offset[m]: how far the m-th distinct site lies to the left of the last one
    offsets = [sum(gaps[m:], start=jnp.zeros((), int)) for m in range(n_gaps + 1)]
    position = jnp.arange(n_qubits)

    def covariance(a: int, b: int) -> jax.Array:
        distance = offsets[a] - offsets[b]
        site = position - offsets[b][..., None]
        value = table[jnp.minimum(distance, reach)[..., None], jnp.maximum(site, 0)]
        return jnp.where((site >= 0) & (distance <= reach)[..., None], value, 0)

    total = jnp.zeros((), variances.dtype)
    for a, b, c, d in ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)):
        first = covariance(*sorted((labels[a], labels[b])))
        second = covariance(*sorted((labels[c], labels[d])))
        total = total + first * second
    return total
