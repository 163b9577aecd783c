"""The cumulant energy: every logit's distribution from its first cumulants, by matrix products.

Means, variances and (order 4) third and fourth cumulants of all logits are exact: correlations of
a shallow circuit have finite range, so they are banded sums. What is approximate is the
distribution they stand for, and that logits of different outputs are taken as independent:

    p(z) = N(z; m, s^2) [1 + k3 / 6 He3(x) + k4 / 24 He4(x)],   x = (z - m) / s,

integrated with Gauss-Hermite nodes in place of the frequencies of the exact energy.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import AnyArray
from ..circuit import Brickwork
from ..hamiltonian import (
    LossHamiltonian,
    OutputLoss,
    QuadraticTerms,
    SectorTerms,
    Softmax,
    output_targets,
)
from ..state import ExactMPS
from .base import Batch, PreparedEnergy
from .exact import QuadraticEnergy
from .linear import linear_outputs
from .sectors import SectorEnergy

#: Width in standard deviations and nats of what the softmax integral is taken over.
_DEVIATIONS = 5.0
_TAIL = 10.0


@dataclasses.dataclass(frozen=True)
class Cumulant:
    """An approximate energy at the speed of matrix products; squared errors stay exact.

    Its error is measured, not bounded: the training loop compares it with the exact energy on a
    fixed subset at every evaluation.

    **Arguments:**

    - `order`: 2 (mean and variance) or 4.
    - `n_nodes`: Gauss-Hermite nodes per logit.
    - `n_steps`: nodes of the softmax integral.

    **Raises:** `ValueError` for another order or fewer than 4 nodes or steps.
    """

    order: int = 2
    n_nodes: int = 16
    n_steps: int = 40

    def __post_init__(self) -> None:
        if self.order not in (2, 4):
            raise ValueError(f"order must be 2 or 4, got {self.order}")
        for name in ("n_nodes", "n_steps"):
            if getattr(self, name) < 4:
                raise ValueError(f"{name} must be at least 4, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        return f"cumulant-{self.order}"

    def prepare(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Brickwork,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> PreparedEnergy:
        """Fix the shapes for batches of `batch_size` examples of one compiled loss."""
        arguments = (hamiltonian, circuit, batch_size, np.dtype(dtype))
        if isinstance(hamiltonian.terms, SectorTerms):
            return SectorEnergy(*arguments, self)
        if isinstance(hamiltonian.terms, QuadraticTerms):
            return QuadraticEnergy(*arguments)
        return CumulantEnergy(*arguments, self)


class CumulantBatch(Batch):
    """One batch of examples."""

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n fan_in"]
    y: Int[AnyArray, " n"]
    targets: Bool[AnyArray, "n outputs"]


class CumulantEnergy(PreparedEnergy):
    """See [`hypercircuit.Cumulant`][]."""

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Brickwork,
        batch_size: int,
        dtype: np.dtype,
        settings: Cumulant,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.settings = settings
        self.outputs = linear_outputs(hamiltonian)
        nodes, weights = np.polynomial.hermite_e.hermegauss(settings.n_nodes)
        self._nodes = nodes.astype(dtype)
        self._weights = (weights / weights.sum()).astype(dtype)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> CumulantBatch:
        examples, weights = self.filled(examples, weights)
        x = self.hamiltonian.inputs(examples).astype(self.dtype)
        y = self.hamiltonian.data.y[examples]
        targets = output_targets(y, self.hamiltonian.network.n_outputs)
        return CumulantBatch(weights, x, y, targets)

    def of_state(self, mps: ExactMPS, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, CumulantBatch)
        mean, *higher = self.outputs.cumulants(mps, batch.x, self.settings.order)
        # A logit that is all but decided keeps a tiny width, so that the gradient stays finite.
        deviation = jnp.sqrt(jnp.maximum(higher[0], 1e-8))
        density = jnp.broadcast_to(self._weights, (*mean.shape, len(self._weights)))
        if self.settings.order == 4:
            x = self._nodes
            skewness = (higher[1] / deviation**3)[..., None]
            kurtosis = (higher[2] / deviation**4)[..., None]
            factor = 1 + skewness / 6 * (x**3 - 3 * x) + kurtosis / 24 * (x**4 - 6 * x**2 + 3)
            density = density * factor
        logits = mean[..., None] + deviation[..., None] * self._nodes
        if isinstance(self.hamiltonian.loss, Softmax):
            own = jnp.take_along_axis(mean, batch.y[:, None], axis=1)[:, 0]
            return self._log_sum(mean, deviation, logits, density) - own
        loss = self.hamiltonian.loss
        assert isinstance(loss, OutputLoss)
        expected = jnp.einsum("ncq,ncqt->nct", density, loss.pointwise(logits))
        return jnp.where(batch.targets, expected[..., 1], expected[..., 0]).sum(1)

    def _log_sum(
        self, mean: jax.Array, deviation: jax.Array, logits: jax.Array, density: jax.Array
    ) -> jax.Array:
        """``E log sum_c exp(z_c)`` of independent logits by the Frullani integral.

        The integral is the same around any reference logit; around one close to the sum it needs
        few steps. Its width follows the widest logit, and the reference is spread as wide, which
        changes nothing in the integral either but leaves only smooth functions to sum up.
        """
        n_steps = self.settings.n_steps
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


def _gumbel(v: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.exp(jnp.minimum(v, 4.5)))
