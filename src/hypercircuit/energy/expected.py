"""Expected losses of outputs that are known by their first cumulants.

Hinges and the zero-one loss have closed forms; the other losses are summed over Gauss-Hermite
nodes. Outputs vary together where they share hidden neurons: losses of differences of outputs use
their covariance; softmax corrects the independent value to first order in it; the zero-one loss of
several outputs takes them as independent.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import AnyArray
from ..hamiltonian import (
    Hinge,
    Logistic,
    Loss,
    OutputLoss,
    PairwiseLogistic,
    Softmax,
    SquaredError,
    SquaredHinge,
    ZeroOne,
    output_targets,
)
from .gaussian import NearlyNormal

#: Width in standard deviations and nats of what the softmax integral is taken over.
_DEVIATIONS = 5.0
_TAIL = 10.0


class Labels(eqx.Module):
    """What the losses know of a batch's examples.

    **Attributes:**

    - `y`, `targets`: labels, and whether each output's target is 1.
    - `cut`: where a single output turns positive, halfway between two points of its lattice.
    """

    y: Int[AnyArray, " n"]
    targets: Bool[AnyArray, "n outputs"]
    cut: Float[AnyArray, " n"]


def labels(y: np.ndarray, n_outputs: int, cut: np.ndarray, dtype: np.dtype) -> Labels:
    """Lay out some examples' labels."""
    return Labels(y, output_targets(y, n_outputs), cut.astype(dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs' distribution.

    **Attributes:**

    - `cumulants`: the first two or four, (n, outputs) each.
    - `covariance`: (n, outputs, outputs), or None for independent outputs.
    - `half_step`: half the spacing of their lattice, zero without one.
    """

    cumulants: tuple[jax.Array, ...]
    covariance: jax.Array | None = None
    half_step: float = 0.0


class ExpectedLoss:
    """The mean of a loss over the distribution of the outputs, example by example."""

    def __init__(self, loss: Loss, n_outputs: int, n_nodes: int, n_steps: int, dtype: np.dtype):
        self.loss, self.n_outputs, self.n_steps = loss, n_outputs, n_steps
        nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
        self._nodes = nodes.astype(dtype)
        self._weights = (weights / weights.sum()).astype(dtype)

    @property
    def needs_covariance(self) -> bool:
        """Whether the covariance of different outputs enters."""
        return isinstance(self.loss, PairwiseLogistic | Softmax)

    def __call__(self, outputs: Outputs, examples: Labels) -> Float[Array, " n"]:
        loss = self.loss
        z = NearlyNormal.of(outputs.cumulants)
        if isinstance(loss, SquaredError):
            high, low = 1.0, -1.0 if self.n_outputs == 1 else 0.0
            target = jnp.where(examples.targets, high, low).astype(z.mean.dtype)
            return (outputs.cumulants[1] + (z.mean - target) ** 2).sum(1)
        if isinstance(loss, PairwiseLogistic):
            return self._pairs(outputs, examples)
        if isinstance(loss, Softmax):
            return self._softmax(z, outputs.covariance, examples)
        if isinstance(loss, ZeroOne) and self.n_outputs > 1:
            return self._zero_one(z, outputs.half_step, examples)
        if isinstance(loss, ZeroOne):
            positive = z.shifted(-examples.cut[:, None]).ramp(0)
            both = jnp.stack([positive, 1 - positive], axis=-1)
        elif isinstance(loss, Hinge | SquaredHinge):
            power = 2 if isinstance(loss, SquaredHinge) else 1
            both = jnp.stack(
                [z.shifted(1.0).ramp(power), z.shifted(1.0, -1.0).ramp(power)], axis=-1
            )
        else:
            assert isinstance(loss, OutputLoss)
            both = self._nodal(z, loss)
        return jnp.where(examples.targets, both[..., 1], both[..., 0]).sum(1)

    def _values(self, z: NearlyNormal) -> tuple[jax.Array, jax.Array]:
        """The nodes and their weights, (*shape, nodes)."""
        values = z.mean[..., None] + z.deviation[..., None] * self._nodes
        return values, z.density(self._nodes, self._weights)

    def _nodal(self, z: NearlyNormal, loss: OutputLoss) -> jax.Array:
        values, density = self._values(z)
        return jnp.einsum("ncq,ncqt->nct", density, loss.pointwise(values))

    def _pairs(self, outputs: Outputs, examples: Labels) -> jax.Array:
        own, others = _own(outputs.cumulants, examples.y), outputs.cumulants
        gaps = [a + (-1) ** n * b for n, (a, b) in enumerate(zip(own, others, strict=True), 1)]
        if outputs.covariance is not None:
            index = examples.y[:, None, None]
            shared = jnp.take_along_axis(outputs.covariance, index, axis=1)[:, 0]
            gaps[1] = gaps[1] - 2 * shared
        each = self._nodal(NearlyNormal.of(tuple(gaps)), Logistic())[..., 1]
        return jnp.where(examples.targets, 0, each).sum(1)

    def _zero_one(self, z: NearlyNormal, half_step: float, examples: Labels) -> jax.Array:
        """``1 - E[prod_{c != y} P(z_c < z_y)]`` over the nodes of z_y."""
        values, density = self._values(z)
        own, weight = (
            jnp.take_along_axis(each, examples.y[:, None, None], axis=1)
            for each in (values, density)
        )
        below = z.column().shifted(own - half_step, -1.0).ramp(0)
        below = jnp.where(examples.targets[..., None], 1, jnp.clip(below, 0, 1))
        return 1 - (weight[:, 0] * jnp.prod(below, axis=1)).sum(1)

    def _softmax(
        self, z: NearlyNormal, covariance: jax.Array | None, examples: Labels
    ) -> jax.Array:
        own = _own((z.mean,), examples.y)[0][:, 0]
        value = self._log_sum(z) - own
        if covariance is None:
            return value
        # Price's theorem: d E[f] / d Cov(z_c, z_d) = E[d^2 f / dz_c dz_d], here -p_c p_d.
        smooth = z.mean / jnp.sqrt(1 + np.pi / 8 * z.deviation**2)
        p = jax.nn.softmax(smooth, axis=1)
        apart = 1 - jnp.eye(self.n_outputs, dtype=p.dtype)
        return value - 0.5 * jnp.einsum("ncd,nc,nd,cd->n", covariance, p, p, apart)

    def _log_sum(self, z: NearlyNormal) -> jax.Array:
        """``E log sum_c exp(z_c)`` of independent logits by the Frullani integral.

        The integral is the same around any reference logit; around one close to the sum it needs
        few steps. Its width follows the widest logit, and the reference is spread as wide, which
        changes nothing in the integral either but leaves only smooth functions to sum up.
        """
        n_steps, mean, deviation = self.n_steps, z.mean, z.deviation
        logits, density = self._values(z)
        reference = jax.lax.stop_gradient(
            jax.nn.logsumexp(mean + jnp.minimum(deviation**2 / 2, 2 * deviation), axis=1)
        )
        widest = jax.lax.stop_gradient(deviation.max(1))
        spread = _DEVIATIONS * widest
        first, last = -spread - _TAIL, spread + 3.0
        step = (last - first) / (n_steps - 1)
        nodes = first[:, None] + step[:, None] * jnp.arange(n_steps, dtype=mean.dtype)
        shifted = (logits - reference[:, None, None])[..., None] + nodes[:, None, None]
        factors = jnp.einsum("ncq,ncqu->ncu", density, _gumbel(shifted))
        around = _gumbel(nodes[:, None] + (widest[:, None] * self._nodes)[..., None])
        compared = jnp.einsum("q,nqu->nu", self._weights, around)
        integrand = compared - jnp.prod(factors, axis=1)
        return reference + step * integrand.sum(1)


def _own(values: tuple[jax.Array, ...], y: jax.Array) -> tuple[jax.Array, ...]:
    """The true class's entries, (n, 1) each."""
    return tuple(jnp.take_along_axis(each, y[:, None], axis=1) for each in values)


def _gumbel(v: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.exp(jnp.minimum(v, 4.5)))
