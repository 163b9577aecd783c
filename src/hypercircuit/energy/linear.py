"""First and second moments of the outputs of a linear network, exact for any state of the chain."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..hamiltonian import LossHamiltonian
from ..state import ExactMPS, bit_cumulants, bit_probabilities

_HIGHEST = jax.lax.Precision.HIGHEST


class LinearOutputs(eqx.Module):
    """Logits ``z_c = gain * sum_j x_j bit_cj + base * sum_j x_j`` of the blocks of a register.

    **Attributes:**

    - `gain`, `base`: logit per unit input of a bit that is 1 instead of 0, and of a bit 0.
    - `block_of`: the block in the chain of every output.
    - `start`, `fan_in`: the first block's first site, and sites per block.
    """

    gain: float = eqx.field(static=True)
    base: float = eqx.field(static=True)
    start: int = eqx.field(static=True)
    fan_in: int = eqx.field(static=True)
    block_of: Int[np.ndarray, " outputs"]

    def rows(self, values: Float[Array, "*axes n_qubits"]) -> Float[Array, "*axes outputs fan_in"]:
        """One value per site, output by output."""
        n_outputs = len(self.block_of)
        values = values[..., self.start : self.start + n_outputs * self.fan_in]
        blocks = values.reshape(*values.shape[:-1], n_outputs, self.fan_in)
        return blocks[..., self.block_of, :]

    def mean(
        self, probabilities: Float[Array, " n_qubits"], x: Float[Array, "n fan_in"]
    ) -> Float[Array, "n outputs"]:
        """The mean logits from the probabilities that bits are 1."""
        weights = self.gain * self.rows(probabilities) + self.base
        return jnp.einsum("nj,cj->nc", x, weights, precision=_HIGHEST)

    def cumulants(
        self, mps: ExactMPS, x: Float[Array, "n fan_in"], order: int
    ) -> tuple[Float[Array, "n outputs"], ...]:
        """The first `order` cumulants of every logit over the Born distribution, exactly."""
        probabilities, bands = bit_cumulants(mps, order)
        totals = [self.mean(probabilities, x)]
        features = _Features(x)
        for total in range(2, order + 1):
            value = jnp.zeros_like(totals[0])
            for band in bands:
                if sum(band.powers) != total:
                    continue
                products = features(band.powers, mps.correlation_range)
                inside = jnp.moveaxis(self.rows(band.values), -2, 0)
                value = value + band.multiplicity * jnp.einsum(
                    "nk,ck->nc",
                    products.reshape(len(x), -1),
                    inside.reshape(len(inside), -1),
                    precision=_HIGHEST,
                )
            totals.append(self.gain**total * value)
        return tuple(totals)


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


def linear_outputs(hamiltonian: LossHamiltonian) -> LinearOutputs:
    """Read the outputs' description off a network."""
    network = hamiltonian.network
    encoding = network.layers[0].encoding
    blocks = network.register.blocks
    return LinearOutputs(
        gain=network.logit_scale * encoding.step,
        base=network.logit_scale * encoding.low,
        start=blocks.start,
        fan_in=blocks.fan_in,
        block_of=np.argsort(blocks.outputs),
    )


def mean_outputs(outputs: LinearOutputs, mps: ExactMPS, x: jax.Array) -> jax.Array:
    """The mean logits of a state, (n, outputs)."""
    return outputs.mean(bit_probabilities(mps), x)
