"""Hidden neurons whose blocks are correlated: a vector on the doubled bond, neuron by neuron.

    vector --[ levels of z ]--[ own bits ]--[ levels of z ]--[ own bits ]-- ... --[ biases ]--
             J_t = sum_m W_mt T_m           R_p

for every example, head and frequency. Right for every depth and register; the work is done one
example at a time, so that memory is bounded by one, and again in the backward pass.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._types import AnyArray
from ..bnn import Encoding
from ..hamiltonian import HeadSum, HiddenTerms, LossHamiltonian
from ..state import State
from .hidden_chain import HiddenLayout, multiply_terms, ordered_maps, pattern_maps
from .site_scan import segmented_scan


class ConnectedHiddenWork(eqx.Module):
    """What the examples of a batch need.

    **Attributes:**

    - `frequency`, `real`, `imag`: as in `hamiltonian.hidden_basis.Cardinals`, None for patterns.
    - `values`: every activation function on every level, in every encoding.
    - `inputs`: what incoming weights multiply.
    - `head`, `target`: the heads of each example.
    - `wanted`: rows that are not there to fill up the batch.
    """

    frequency: Float[AnyArray, "n terms"] | None
    real: Float[AnyArray, "n terms levels"] | None
    imag: Float[AnyArray, "n terms levels"] | None
    values: Float[AnyArray, "n encodings functions levels"]
    inputs: Float[AnyArray, "n fan_in"]
    head: Int[AnyArray, "n each"]
    target: Int[AnyArray, "n each"]
    wanted: AnyArray


def plan_connected_hidden(
    hamiltonian: LossHamiltonian,
    examples: np.ndarray,
    wanted: np.ndarray,
    *,
    n_terms: int,
    n_levels: int,
    dtype: np.dtype,
) -> ConnectedHiddenWork:
    """Lay out a batch; shapes depend on `n_terms` and `n_levels` only."""
    terms = hamiltonian.terms
    assert isinstance(terms, HiddenTerms)
    inputs = terms.neurons.inputs(hamiltonian.data, examples)
    counts = np.full(len(examples), n_terms)
    cardinals = terms.basis.cardinals(terms.neurons, inputs, counts)
    head, target = terms.heads_of(np.asarray(hamiltonian.data.y)[examples])
    pad = ((0, 0), (0, 0), (0, n_levels - cardinals.values.shape[-1]))
    frequency = real = imag = None
    if cardinals.frequency is not None and cardinals.coefficients is not None:
        frequency = cardinals.frequency.astype(dtype)
        padded = np.pad(cardinals.coefficients, pad)
        real, imag = padded.real.astype(dtype), padded.imag.astype(dtype)
    return ConnectedHiddenWork(
        frequency,
        real,
        imag,
        np.pad(cardinals.values, ((0, 0), *pad)).astype(dtype),
        inputs.astype(dtype),
        head,
        target,
        wanted,
    )


def connected_hidden(
    terms: HiddenTerms,
    layout: HiddenLayout,
    outgoing: Encoding,
    mps: State,
    work: ConnectedHiddenWork,
) -> Float[Array, " n"]:
    """The energy of every example, all correlations included."""
    sites = ordered_maps(layout, mps)
    size = sites.maps.shape[-1]
    block = layout.first_sites[:, None] + np.arange(layout.stride)
    incoming = sites.maps[block[:, : layout.fan_in]]
    own = pattern_maps(jnp.swapaxes(sites.maps[block[:, layout.fan_in :]], 0, 1), layout.own)
    biases = pattern_maps(sites.maps[layout.bias_sites], layout.biases)
    end = layout.start + layout.stride * layout.n_hidden + len(layout.biases)
    skip = None
    if layout.skip is not None:
        end = int(layout.skip.max()) + 1
        skip = sites.maps[layout.skip.ravel()]
    if work.frequency is None:
        incoming = _patterns(incoming)

    def example(item: ConnectedHiddenWork) -> jax.Array:
        head_sum, summands = terms.sum, terms.summands
        each = len(item.head)
        start = jnp.broadcast_to(sites.left[layout.start], (head_sum.n_terms, each, size))
        start = start.astype(jnp.result_type(start, jnp.complex64))
        if head_sum.frequency is None:
            start = start.at[1:].set(0)
        turns = jax.lax.complex(*terms.turns(item.values, jnp))

        def neuron(vector: jax.Array, maps: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            levels = maps[0] if item.frequency is None else _levels(maps[0], item)
            resolved = jnp.einsum("kex,txy->kety", vector, levels.astype(vector.dtype))
            turned = multiply_terms(head_sum, "pt", turns, "ety", resolved, "epy")
            chosen = maps[1][item.head].astype(vector.dtype)
            return jnp.einsum("kepy,epyz->kez", turned, chosen), None

        vector, _ = jax.lax.scan(jax.checkpoint(neuron), start, (incoming, own))
        bias = _factors(head_sum, jnp.asarray(summands.bias, item.values.dtype))
        moved = jnp.einsum("kex,ebxy->keby", vector, biases[item.head].astype(vector.dtype))
        vector = multiply_terms(head_sum, "b", bias, "eby", moved, "ey")
        if skip is not None:
            vector = _skip(terms, layout, outgoing, skip, item, vector)
        sums = jnp.einsum("kex,x->ek", vector, sites.right[end].astype(vector.dtype))
        if terms.basis.exact:
            # Frequency zero is the total probability: dividing by it takes out rounding errors.
            sums = sums / sums[:, :1].real
        coefficients = jnp.asarray(head_sum.coefficients, sums.dtype)[:, item.target].T
        return jnp.sum((coefficients * sums).real)

    def one(item: ConnectedHiddenWork) -> jax.Array:
        zero = jnp.zeros((), item.values.dtype)
        return jax.lax.cond(item.wanted, jax.checkpoint(example), lambda _: zero, item)

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, jax.tree.map(jnp.asarray, work))


def _patterns(maps: Float[Array, "blocks sites 2 size size"]) -> jax.Array:
    """The products of the maps of all sites for every pattern of their bits."""
    product = maps[:, 0]
    for site in range(1, maps.shape[1]):
        product = jnp.einsum("hpxy,hbyz->hpbxz", product, maps[:, site])
        product = product.reshape(len(product), -1, *product.shape[-2:])
    return product


def _levels(maps: Float[Array, "sites 2 size size"], item: ConnectedHiddenWork) -> jax.Array:
    """The map of one neuron's incoming weights for every level, (levels, size, size)."""
    size = maps.shape[-1]
    frequency: jax.Array = jnp.asarray(item.frequency)
    shape = (len(frequency), size, size)
    real = jnp.broadcast_to(jnp.eye(size, dtype=maps.dtype), shape)

    def step(
        product: tuple[jax.Array, jax.Array], site: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        map_, value = site
        angle = (frequency * value)[:, None, None]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        off = [jnp.einsum("mxy,yz->mxz", part, map_[0]) for part in product]
        on = [jnp.einsum("mxy,yz->mxz", part, map_[1]) for part in product]
        return (off[0] + cos * on[0] - sin * on[1], off[1] + cos * on[1] + sin * on[0]), None

    real, imag = segmented_scan(step, (real, jnp.zeros(shape, maps.dtype)), (maps, item.inputs))
    return jnp.einsum("mt,mxy->txy", item.real, real) - jnp.einsum("mt,mxy->txy", item.imag, imag)


def _factors(head_sum: HeadSum, values: jax.Array) -> jax.Array:
    return jax.lax.complex(*head_sum.factors(values, jnp))


def _skip(
    terms: HiddenTerms,
    layout: HiddenLayout,
    outgoing: Encoding,
    maps: jax.Array,
    item: ConnectedHiddenWork,
    vector: jax.Array,
) -> jax.Array:
    """Carry on through the weights from inputs to outputs."""
    assert layout.skip is not None
    n_outputs, n_inputs = layout.skip.shape
    output = np.repeat(np.arange(n_outputs), n_inputs)
    heads = terms.heads
    signs = (heads[:, 0] == output[:, None]).astype(float) - (heads[:, 1] == output[:, None])
    weights = terms.summands.skip_factor * np.array([outgoing.low, outgoing.high])
    table = jnp.asarray(signs[:, :, None] * weights, item.values.dtype)
    inputs = jnp.tile(item.inputs[:n_inputs], n_outputs)

    def step(vector: jax.Array, site: tuple) -> tuple[jax.Array, None]:
        map_, values, x = site
        moved = jnp.einsum("kex,bxy->keby", vector, map_.astype(vector.dtype))
        turns = _factors(terms.sum, x * values[item.head])
        return multiply_terms(terms.sum, "eb", turns, "eby", moved, "ey"), None

    return jax.lax.scan(step, vector, (maps, table, inputs))[0]
