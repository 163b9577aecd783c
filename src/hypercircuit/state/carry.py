"""Covariances of all pairs of sites up to a distance, by matrices carried along a chain.

A Hermitian matrix that stands for all sites up to one goes over the next as two products,

    Y[r, q] = sum_{l, m, s} A[l, s, r] X[l, m] conj A[m, s, q].

Real and imaginary part lie beside each other in every matrix, as [l, part, m], so that a product
with a site's tensor is one product of real matrices and nothing needs to be put together:

    half [l, (p s q)] = X [l, (p m)] C [(p m), (p s q)]              C, D: the tensor as a real map
    Y [(r p), q]      = D [(r p), (l p s)] half [(l p s), q]

The matrices that start in a block of neighbouring sites are carried over all distances, then those
of the next: on CPUs so few that they stay in the cache, unless the bond or the distance is large.
The gradient is written out: every matrix that is carried, forwards or backwards, is Hermitian, and
so the two derivatives with respect to A are one.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

#: Bytes of the matrices of one block at all distances, on CPUs and on accelerators; a block has at
#: least as many sites as there are distances.
BLOCK_BYTES, ACCELERATOR_BLOCK_BYTES = 2**23, 2**28
#: If those of all blocks take more bytes than this, the backward pass makes them again, block by
#: block.
KEPT_BYTES = 2**31

_product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def covariances_at_distances(
    starting: Inexact[Array, "n_sites bond bond"],
    ending: Inexact[Array, "n_sites bond bond"],
    tensors: Inexact[Array, "n_sites bond 2 bond"],
    reach: int,
) -> Float[Array, "reach n_sites"]:
    """``sum_{l, m} X[l, m] E[l, m]`` of the sites i - g and i, g = 1..reach; 0 where i < g.

    X is the matrix that starts at i - g, carried over the sites between, E the one that ends at i.

    **Arguments:**

    - `starting`: after each site, Hermitian (axes: ket, bra); so is its derivative.
    - `ending`: before each site, Hermitian, or the gradient is wrong.
    - `tensors`: axes (left, phys, right), real or complex as the others are.
    """
    n_sites, bond, _ = starting.shape
    if reach >= n_sites:
        found = covariances_at_distances(starting, ending, tensors, n_sites - 1)
        return jnp.pad(found, ((0, reach - n_sites + 1), (0, 0)))
    if reach == 0:
        return jnp.zeros((0, n_sites), starting.real.dtype)
    x, e, a = _parts(starting, 2), _parts(ending, 2), _parts(tensors, 2)
    # The product of the imaginary parts is subtracted.
    e = e * jnp.asarray([1, -1], e.dtype)[: e.shape[2], None]
    bytes_of_one = reach * bond * bond * x.shape[2] * x.dtype.itemsize
    on_cpu = jax.default_backend() == "cpu"
    block_bytes = BLOCK_BYTES if on_cpu else ACCELERATOR_BLOCK_BYTES
    block = min(n_sites, max(reach, block_bytes // bytes_of_one))
    n_blocks = -(-n_sites // block)
    x = _split(x, 0, n_blocks, block)
    # Matrices that start at a block's sites end, and are carried over, one site later or more.
    after = [_split(each, 1, n_blocks + 1, block) for each in (e, a)]
    e, a = (jnp.concatenate([each[:-1], each[1:, : reach - 1]], 1) for each in after)
    keep = n_blocks * block * bytes_of_one <= KEPT_BYTES
    found = jnp.moveaxis(_in_blocks(x, e, a, reach, keep), 1, 0).reshape(reach, -1)
    # From the sites where pairs start to those where they end.
    start = jnp.arange(n_sites) - jnp.arange(1, reach + 1)[:, None]
    return jnp.where(start < 0, 0, jnp.take_along_axis(found, jnp.maximum(start, 0), axis=1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _in_blocks(
    x: Float[Array, "blocks block bond parts bond"],
    e: Float[Array, "blocks window bond parts bond"],
    a: Float[Array, "blocks window bond parts 2 bond"],
    reach: int,
    keep: bool,
) -> Float[Array, "blocks reach block"]:
    def block(_: None, given: tuple) -> tuple[None, jax.Array]:
        x, e, a = given
        return None, _forwards(x, e, *_maps(a), reach)[0]

    return lax.scan(block, None, (x, e, a))[1]


def _in_blocks_forward(
    x: jax.Array, e: jax.Array, a: jax.Array, reach: int, keep: bool
) -> tuple[jax.Array, tuple]:
    if not keep:
        return _in_blocks(x, e, a, reach, keep), (x, e, a)

    def block(_: None, given: tuple) -> tuple[None, tuple]:
        x, e, a = given
        return None, _forwards(x, e, *_maps(a), reach)

    found, carried = lax.scan(block, None, (x, e, a))[1]
    return found, (carried, e, a)


def _in_blocks_backward(reach: int, keep: bool, saved: tuple, given: jax.Array) -> tuple:
    def block(_: None, given: tuple) -> tuple[None, tuple]:
        saved, e, a, weights = given
        before, after = _maps(a)
        carried = saved if keep else _forwards(saved, e, before, after, reach)[1]
        return None, _backwards(carried, weights, e, before, after)

    return lax.scan(block, None, (*saved, given))[1]


_in_blocks.defvjp(_in_blocks_forward, _in_blocks_backward)


def _forwards(
    x: jax.Array, e: jax.Array, before: jax.Array, after: jax.Array, reach: int
) -> tuple[jax.Array, jax.Array]:
    """Sums with `e` (reach, block) and the carried matrices (reach, block, bond, parts, bond)."""

    def distance(x: jax.Array, start: jax.Array) -> tuple[jax.Array, tuple]:
        here = functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=len(x))
        total = jnp.sum(x * here(e), (1, 2, 3))
        half = _product(x.reshape(*x.shape[:2], -1), here(before))
        carried = _product(here(after), half.reshape(len(x), -1, x.shape[1]))
        return carried.reshape(x.shape), (total, x)

    return lax.scan(distance, x, jnp.arange(reach))[1]


def _backwards(
    carried: jax.Array, weights: jax.Array, e: jax.Array, before: jax.Array, after: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Derivatives with respect to a block's first matrices, `e` and the tensors."""
    reach, n, bond, n_parts, _ = carried.shape
    before_t, after_t = before.mT, after.mT

    def distance(derivatives: tuple, given: tuple) -> tuple[tuple, None]:
        of_x, of_e, of_maps = derivatives
        x, weight, start = given
        here = functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=n)

        def added(total: jax.Array, more: jax.Array) -> jax.Array:
            return lax.dynamic_update_slice_in_dim(total, here(total) + more, start, 0)

        half = _product(x.reshape(n, bond, -1), here(before)).reshape(n, -1, bond)
        of_maps = added(of_maps, _product(half, of_x.reshape(n, bond, -1)))
        of_half = _product(here(after_t), of_x.reshape(n, -1, bond))
        of_x = _product(of_half.reshape(n, bond, -1), here(before_t)).reshape(x.shape)
        weight = weight[:, None, None, None]
        return (of_x + weight * here(e), added(of_e, weight * x), of_maps), None

    start = (
        jnp.zeros_like(carried[0]),
        jnp.zeros_like(e),
        jnp.zeros((len(e), 2 * n_parts * bond, n_parts * bond), e.dtype),
    )
    given = (carried, weights, jnp.arange(reach))
    (of_x, of_e, of_maps), _ = lax.scan(distance, start, given, reverse=True)
    # [l, part of half, s, part of the derivative, r], of a Hermitian derivative read by columns.
    of_maps = of_maps.reshape(len(e), bond, n_parts, 2, n_parts, bond)
    real = of_maps[:, :, 0, :, 0]
    if n_parts == 1:
        return of_x, of_e, 2 * real[:, :, None]
    real = real - of_maps[:, :, 1, :, 1]
    imaginary = -of_maps[:, :, 1, :, 0] - of_maps[:, :, 0, :, 1]
    return of_x, of_e, 2 * jnp.stack([real, imaginary], 2)


def _maps(a: Float[Array, "n_sites bond parts 2 bond"]) -> tuple[jax.Array, jax.Array]:
    """C and D of the module: (n_sites, parts bond, 2 parts bond) both."""
    n_sites, bond, n_parts = a.shape[:3]
    turned = a.transpose(0, 4, 2, 1, 3)
    if n_parts == 1:
        before, after = a, turned
    else:
        real, imaginary = a[:, :, 0], a[:, :, 1]
        before = jnp.stack([jnp.stack([real, -imaginary], 2), jnp.stack([imaginary, real], 2)], 1)
        real, imaginary = turned[:, :, 0], turned[:, :, 1]
        after = jnp.stack([jnp.stack([real, -imaginary], 3), jnp.stack([imaginary, real], 3)], 2)
    shape = (n_sites, n_parts * bond, 2 * n_parts * bond)
    return before.reshape(shape), after.reshape(shape)


def _parts(values: jax.Array, axis: int) -> jax.Array:
    """Real and, if there is one, imaginary part along a new axis."""
    both = (values.real, values.imag) if jnp.iscomplexobj(values) else (values,)
    return jnp.stack(both, axis)


def _split(values: jax.Array, first: int, n_blocks: int, block: int) -> jax.Array:
    """Sites from `first` on as (n_blocks, block, ..), zeros where there are none."""
    size = n_blocks * block
    values = values[first : first + size]
    padding = ((0, size - len(values)), *((0, 0),) * (values.ndim - 1))
    return jnp.pad(values, padding).reshape(n_blocks, block, *values.shape[1:])
