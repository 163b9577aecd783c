"""How a network with one hidden layer lies on the chain, always read in the order of its neurons.

    | incoming weights, bias | choices | outgoing weights | next neuron ... | output biases | skip |
    |<------- fan_in ------->|<-------- own bits -------->|

A register that is reversed is read on the mirrored state, so that energies know one order only.
The *own bits* of a neuron (and the output biases) do not depend on the example: for every head and
every pattern of the bits that matter to it, the others are traced out.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..hamiltonian import HeadSum, HiddenTerms, LossHamiltonian
from ..state import ChainMPS, ExactMPS, State
from ..state.moments import SiteMaps, chain_site_maps, site_maps


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenLayout:
    """Sites of a network with one hidden layer in the order of its neurons.

    **Attributes:**

    - `mirrored`: whether the register runs from the other end of the chain.
    - `start`: the first neuron's first site; a neuron has `fan_in` incoming weights and
      `stride` sites in all.
    - `own`: (sites, heads, patterns, 2) whether a neuron's own site may have this bit, for every
      head and pattern.
    - `biases`: the same for the output biases; no sites without them.
    - `skip`: (n_outputs, n_inputs) the sites of skip weights, or None.
    """

    mirrored: bool
    start: int
    fan_in: int
    stride: int
    n_hidden: int
    own: Float[np.ndarray, "sites heads patterns 2"]
    biases: Float[np.ndarray, "bias_sites heads bias_patterns 2"]
    skip: Int[np.ndarray, "n_outputs n_inputs"] | None

    @property
    def first_sites(self) -> Int[np.ndarray, " n_hidden"]:
        return self.start + self.stride * np.arange(self.n_hidden)

    @property
    def bias_sites(self) -> Int[np.ndarray, " bias_sites"]:
        return self.start + self.stride * self.n_hidden + np.arange(len(self.biases))


def hidden_layout(hamiltonian: LossHamiltonian) -> HiddenLayout:
    """Read the layout off a network and the heads of its loss."""
    terms = hamiltonian.terms
    assert isinstance(terms, HiddenTerms)
    network = hamiltonian.network
    register = network.register
    mirrored = network.order.endswith("-reversed")
    end = 2 * ((register.n_qubits + 1) // 2) - 1

    def forward(sites: np.ndarray) -> np.ndarray:
        return end - sites if mirrored else sites

    incoming, outgoing = (forward(sites) for sites in register.weights)
    n_hidden, fan_in = incoming.shape
    start = int(incoming[0, 0])
    choices = [forward(sites)[0] - start - fan_in for sites in register.choices]
    choice_sites = np.concatenate([np.zeros(0, int), *choices])
    weight_sites = outgoing[:, 0] - start - fan_in
    n_own = len(choice_sites) + len(weight_sites)
    summands = terms.summands

    def allowed(n_sites: int, sites: list[np.ndarray], patterns: np.ndarray) -> np.ndarray:
        table = np.ones((n_sites, len(terms.heads), len(patterns), 2))
        for head, of_bits in enumerate(sites):
            for bit, site in enumerate(of_bits):
                table[site, head] = patterns[:, bit, None] == np.arange(2)
        return table

    outputs = [head[head >= 0] for head in terms.heads]
    own = allowed(
        n_own,
        [np.concatenate([choice_sites, weight_sites[each]]) for each in outputs],
        summands.bits,
    )
    n_biases = network.n_outputs if network.layers[1].bias else 0
    biases = allowed(n_biases, outputs if n_biases else [], summands.bias_bits)
    return HiddenLayout(
        mirrored,
        start,
        fan_in,
        fan_in + n_own,
        n_hidden,
        own,
        biases,
        None if register.skip is None else forward(register.skip),
    )


def in_order(layout: HiddenLayout, mps: ExactMPS) -> ExactMPS:
    """The state whose sites count as in `layout`; of a mirrored one only the maps are of use."""
    if not layout.mirrored:
        return mps
    n_cells, _, doubled, _ = mps.maps.shape
    maps = mps.maps[::-1].reshape(n_cells, 2, 2, doubled, doubled).transpose(0, 2, 1, 4, 3)
    return dataclasses.replace(
        mps,
        maps=maps.reshape(n_cells, 4, doubled, doubled),
        left=mps.right[::-1],
        right=mps.left[::-1],
        n_qubits=2 * n_cells,
        cumulants=None,
    )


def ordered_maps(layout: HiddenLayout, mps: State) -> SiteMaps:
    """The site maps of the state whose sites count as in `layout`."""
    if not isinstance(mps, ChainMPS):
        return site_maps(in_order(layout, mps))
    chain = chain_site_maps(mps.sites, mps.left, mps.right)
    if not layout.mirrored:
        return chain
    maps, left, right = chain.maps, chain.left, chain.right
    if mps.n_qubits % 2:
        # Odd chains of cells have one idle site at their end, and a layout counts it.
        eye = jnp.eye(maps.shape[-1], dtype=maps.dtype)
        maps = jnp.concatenate([maps, jnp.stack([eye, jnp.zeros_like(eye)])[None]])
        left, right = (jnp.concatenate([each, each[-1:]]) for each in (left, right))
    return SiteMaps(jnp.swapaxes(maps[::-1], -1, -2), right[::-1], left[::-1])


def patterns_before(
    maps: Float[Array, "sites *blocks 2 size size"],
    allowed: Float[np.ndarray, "sites heads patterns 2"],
    end: Float[Array, "*blocks heads patterns size"],
) -> Float[Array, "*blocks heads patterns size"]:
    """Vectors at the cut before some sites for every pattern of their bits, from those after."""

    def step(vectors: jax.Array, site: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        map_, table = site
        return jnp.einsum("epb,...bxy,...epy->...epx", table, map_, vectors), None

    table = jnp.asarray(allowed, maps.dtype)
    return jax.lax.scan(step, end, (maps, table), reverse=True)[0]


def pattern_maps(
    maps: Float[Array, "sites *blocks 2 size size"],
    allowed: Float[np.ndarray, "sites heads patterns 2"],
) -> Float[Array, "*blocks heads patterns size size"]:
    """The product of the maps of some sites for every pattern of their bits."""
    size = maps.shape[-1]
    shape = (*maps.shape[1:-3], *allowed.shape[1:3], size, size)
    start = jnp.broadcast_to(jnp.eye(size, dtype=maps.dtype), shape)

    def step(product: jax.Array, site: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        map_, table = site
        return jnp.einsum("...epwx,epb,...bxy->...epwy", product, table, map_), None

    return jax.lax.scan(step, start, (maps, jnp.asarray(allowed, maps.dtype)))[0]


def multiply_terms(
    head_sum: HeadSum, a: str, turns: jax.Array, b: str, vectors: jax.Array, result: str
) -> jax.Array:
    """Multiply exponentials frequency by frequency, or jets like polynomials; terms come first."""
    if head_sum.frequency is not None:
        return jnp.einsum(f"k{a},k{b}->k{result}", turns, vectors)
    total = [jnp.zeros((), vectors.dtype)] * 3
    for i in range(3):
        for j in range(3 - i):
            total[i + j] = total[i + j] + jnp.einsum(f"{a},{b}->{result}", turns[i], vectors[j])
    return jnp.stack(total)
