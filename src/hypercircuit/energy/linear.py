"""First cumulants of linear forms in runs of bits, exact for any state of the chain.

The outputs of a linear network are such forms, and so are a hidden layer's pre-activations:

    z_c = gain * sum_j x_j bit_cj + base * sum_j x_j,

where the bits of form c are `fan_in` neighbouring sites, and the runs of all forms lie at equal
distances.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..bnn import Encoding
from ..hamiltonian import LossHamiltonian
from ..state import Band, ChainMPS, State, bit_cumulants, bit_probabilities
from .pairs import exact_cumulants
from .site_moments import swept_cumulants

_HIGHEST = jax.lax.Precision.HIGHEST


class LinearOutputs(eqx.Module):
    """Linear forms of runs of bits, see the module's text.

    **Attributes:**

    - `gain`, `base`: change per unit input of a bit that is 1 instead of 0, and of a bit 0.
    - `block_of`: the run of every form, counted from the chain's start.
    - `start`, `stride`, `fan_in`: the first run's first site, from one run to the next, and sites
      per run.
    """

    gain: float = eqx.field(static=True)
    base: float = eqx.field(static=True)
    start: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    fan_in: int = eqx.field(static=True)
    block_of: Int[np.ndarray, " outputs"]

    def rows(self, values: Float[Array, "*axes n_qubits"]) -> Float[Array, "*axes outputs fan_in"]:
        """One value per site, form by form."""
        n_outputs = len(self.block_of)
        needed = (n_outputs - 1) * self.stride + self.fan_in
        values = values[..., self.start : self.start + needed]
        filler = [(0, 0)] * (values.ndim - 1) + [(0, n_outputs * self.stride - needed)]
        blocks = jnp.pad(values, filler).reshape(*values.shape[:-1], n_outputs, self.stride)
        blocks = blocks[..., : self.fan_in]
        if np.array_equal(self.block_of, np.arange(n_outputs)):
            return blocks
        return blocks[..., self.block_of, :]

    def mean_weights(
        self, probabilities: Float[Array, " n_qubits"]
    ) -> Float[Array, "outputs fan_in"]:
        """The mean factors of the inputs."""
        return self.gain * self.rows(probabilities) + self.base

    def mean(
        self, probabilities: Float[Array, " n_qubits"], x: Float[Array, "n fan_in"]
    ) -> Float[Array, "n outputs"]:
        """The mean forms from the probabilities that bits are 1."""
        weights = self.mean_weights(probabilities)
        return jnp.einsum("nj,cj->nc", x, weights, precision=_HIGHEST)

    def cumulants(
        self, mps: State, x: Float[Array, "n fan_in"], order: int
    ) -> tuple[Float[Array, "n outputs"], ...]:
        """The first `order` cumulants of every form over the Born distribution.

        They are exact, except that in a truncated state correlations beyond the circuit's range,
        which only truncation makes, are left out.
        """
        if isinstance(mps, ChainMPS):
            if mps.correlation_range is None and order == 2:
                return swept_cumulants(self, mps, jnp.asarray(x))
            probabilities, bands = bit_cumulants(mps, order)
        else:
            probabilities, bands = exact_cumulants(mps, order)
        return self.of_bits(probabilities, bands, x, order)

    def of_bits(
        self,
        probabilities: Float[Array, " n_qubits"],
        bands: tuple[Band, ...],
        x: Float[Array, "n fan_in"],
        order: int,
    ) -> tuple[Float[Array, "n outputs"], ...]:
        """The same from the cumulants of the bits."""
        totals = [self.mean(probabilities, x)]
        features = _Features(x)
        for total in range(2, order + 1):
            value = jnp.zeros_like(totals[0])
            for band in bands:
                if sum(band.powers) != total:
                    continue
                products = features(band.powers, len(band.values) if band.values.ndim > 1 else 0)
                inside = jnp.moveaxis(self.rows(band.values), -2, 0)
                value = value + band.multiplicity * jnp.einsum(
                    "nk,ck->nc",
                    products.reshape(len(x), -1),
                    inside.reshape(len(inside), -1),
                    precision=_HIGHEST,
                )
            totals.append(self.gain**total * value)
        return tuple(totals)

    def recoded(
        self,
        cumulants: tuple[Float[Array, "n outputs"], ...],
        x: Float[Array, "n fan_in"],
        other: LinearOutputs,
    ) -> tuple[Float[Array, "n outputs"], ...]:
        """The cumulants of the same bits' forms in another encoding."""
        total = x.sum(1, keepdims=True)
        ratio = other.gain / self.gain
        mean = ratio * (cumulants[0] - self.base * total) + other.base * total
        return mean, *(ratio**n * each for n, each in enumerate(cumulants[1:], 2))

    def spread(
        self, probabilities: Float[Array, " n_qubits"], variances: Float[Array, "n fan_in"]
    ) -> Float[Array, "n outputs"]:
        """What independent inputs that vary themselves add to the variances: E[w^2] Var(x)."""
        low, high = self.base, self.base + self.gain
        squares = (high**2 - low**2) * self.rows(probabilities) + low**2
        return jnp.einsum("nj,cj->nc", variances, squares, precision=_HIGHEST)


class _Features:
    """Products ``x_i^q x_{i-g}^q' ..`` within a block, laid out like the bands of cumulants."""

    def __init__(self, x: jax.Array) -> None:
        self.x = x
        self._known: dict[tuple[int, ...], jax.Array] = {}

    def __call__(self, powers: tuple[int, ...], reach: int) -> jax.Array:
        """(n, *gaps, fan_in), zero where a site would lie before the block."""
        if powers not in self._known:
            if len(powers) == 1:
                self._known[powers] = self.x ** powers[0]
            else:
                earlier = self(powers[:-1], reach)
                size = earlier.shape[-1]
                pads = [(0, 0)] * (earlier.ndim - 1)
                shifted = [
                    jnp.pad(earlier, [*pads, (gap, 0)])[..., :size] for gap in range(1, reach + 1)
                ]
                last = (self.x ** powers[-1]).reshape(len(self.x), *[1] * len(powers[1:]), size)
                self._known[powers] = jnp.stack(shifted, axis=-2) * last
        return self._known[powers]


def linear_forms(
    sites: Int[np.ndarray, "outputs fan_in"], encoding: Encoding, scale: float
) -> LinearOutputs:
    """The forms whose weights lie on `sites`; inputs in the order of the sites of a run."""
    runs = np.sort(sites, axis=1)
    starts = runs[:, 0]
    order = np.argsort(starts)
    strides = np.unique(np.diff(starts[order]))
    assert len(strides) < 2, "runs of equal distance"
    assert (np.diff(runs, axis=1) == 1).all(), "runs of neighbouring sites"
    return LinearOutputs(
        gain=scale * encoding.step,
        base=scale * encoding.low,
        start=int(starts.min()),
        stride=int(strides[0]) if len(strides) else sites.shape[1],
        fan_in=sites.shape[1],
        block_of=np.argsort(order),
    )


def linear_outputs(hamiltonian: LossHamiltonian) -> LinearOutputs:
    """The outputs of a linear network."""
    network = hamiltonian.network
    sites = network.register.weights[0]
    return linear_forms(sites, network.layers[0].encoding, network.logit_scale)


def mean_outputs(outputs: LinearOutputs, mps: State, x: jax.Array) -> jax.Array:
    """The mean logits of a state, (n, outputs)."""
    return outputs.mean(bit_probabilities(mps), x)
