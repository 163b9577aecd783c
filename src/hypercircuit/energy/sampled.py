"""The sampled energy: any network, from networks drawn from the Born distribution.

    w_s ~ p = |<w|psi>|^2,    f_s = loss of network w_s,    E ~ mean_s f_s,
    grad E = E[(f - b) grad log p] ~ 1/S sum_s (f_s - b_s) grad log p(w_s),
    b_s = mean of f over the other samples                            (leave one out)

A product needs no terms, so the losses come from the classical forward pass. Since E[grad log p]
is zero and b_s does not depend on w_s, the baseline keeps the gradient unbiased; it takes away the
share of its variance that comes from the size of the loss. What is left is the only error, and it
is returned as a standard error.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from .._types import Angles, AnyArray
from ..circuit import Chain
from ..hamiltonian import LossHamiltonian
from ..state import State, prepare_state, sample
from .base import Batch, PreparedEnergy

BASELINES = ("leave-one-out", "none")
#: Numbers that the forward pass of one group of sampled networks may hold at a time.
_AT_ONCE = 2**25


@dataclasses.dataclass(frozen=True)
class Sampled:
    """An unbiased energy for every network, with a standard error.

    **Arguments:**

    - `n_samples`: networks drawn per step, at least 2.
    - `baseline`: `"leave-one-out"`, or `"none"` for the plain log-derivative, whose variance is
      larger.

    **Raises:** `ValueError` for fewer samples or an unknown baseline.
    """

    n_samples: int = 32
    baseline: str = "leave-one-out"

    def __post_init__(self) -> None:
        if self.n_samples < 2:
            raise ValueError(
                f"n_samples must be at least 2, got {self.n_samples}; with one there is neither "
                "a baseline nor a standard error"
            )
        if self.baseline not in BASELINES:
            raise ValueError(
                f"baseline must be one of {', '.join(BASELINES)}, got {self.baseline!r}"
            )

    @property
    def name(self) -> str:
        return "sampled"

    def prepare(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> PreparedEnergy:
        """Fix the shapes for batches of `batch_size` examples of one loss."""
        return SampledEnergy(hamiltonian, circuit, batch_size, np.dtype(dtype), self)


class Estimate(NamedTuple):
    """A mean over samples and its standard error, both in the unit of what was averaged."""

    value: Float[AnyArray, ""]
    standard_error: Float[AnyArray, ""]


class SampledBatch(Batch):
    """One batch of examples, and the key from which networks are drawn."""

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n n_inputs"]
    y: Int[AnyArray, " n"]
    key: PRNGKeyArray


class SampledEnergy(PreparedEnergy):
    """See [`hypercircuit.Sampled`][].

    Batches come with one fixed key, so that a pass over the data sees the same networks in every
    batch; training gives each step's batch a key of its own by `with_key`.
    """

    site_tensors = True

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        batch_size: int,
        dtype: np.dtype,
        settings: Sampled,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.settings = settings
        network = hamiltonian.network
        widths = network.n_qubits + batch_size * sum(each.n_outputs for each in network.layers)
        self._networks_at_once = max(1, _AT_ONCE // widths)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> SampledBatch:
        examples, weights = self.filled(examples, weights)
        data = self.hamiltonian.data
        return SampledBatch(
            weights, data.x[examples].astype(self.dtype), data.y[examples], jax.random.key(0)
        )

    def with_key(self, batch: Batch, key: PRNGKeyArray) -> SampledBatch:
        assert isinstance(batch, SampledBatch)
        return dataclasses.replace(batch, key=key)

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, SampledBatch)
        bits, log_probabilities = sample(mps, batch.key, self.settings.n_samples)
        losses = self._losses(bits, batch)
        return log_derivative(losses, log_probabilities, self.settings.baseline)

    def estimate(self, params: Angles, batch: Batch) -> Estimate:
        """The batch's weighted energy, equal to `self(params, batch)`, and its standard error."""
        assert isinstance(batch, SampledBatch)
        mps = prepare_state(self.circuit, params)
        bits, _ = sample(mps, batch.key, self.settings.n_samples)
        return mean_of(self._losses(bits, batch) @ jnp.asarray(batch.weights))

    def _losses(
        self, bits: UInt8[Array, "n_samples n_qubits"], batch: SampledBatch
    ) -> Float[Array, "n_samples n"]:
        """Every network's loss on every example, some networks at a time."""
        network, loss = self.hamiltonian.network, self.hamiltonian.loss
        x, y = jnp.asarray(batch.x), jnp.asarray(batch.y)

        def some(bits: jax.Array) -> jax.Array:
            # Sums of whole numbers stay exact, so that ties fall as they do on the host.
            with jax.default_matmul_precision("highest"):
                logits = network.logits(bits, x, step=self.hamiltonian.data.step)
            return loss.value(logits, y)

        n_samples, size = len(bits), min(self._networks_at_once, len(bits))
        n_groups = -(-n_samples // size)
        if n_groups == 1:
            return some(bits)
        padded = jnp.pad(bits, ((0, n_groups * size - n_samples), (0, 0)))
        losses = lax.map(some, padded.reshape(n_groups, size, -1))
        return losses.reshape(n_groups * size, -1)[:n_samples]


def log_derivative(
    values: Float[Array, "n_samples ..."],
    log_probabilities: Float[Array, " n_samples"],
    baseline: str = "leave-one-out",
) -> Float[Array, ...]:
    """The samples' mean, with the gradient of the expectation it stands for.

    `values` count as constants: the gradient is ``mean_s (values_s - b_s) grad log p_s``, which is
    unbiased for functions that do not depend on the parameters (and for log p itself, whose own
    derivative is zero on average).

    **Arguments:**

    - `values`: of every sample.
    - `log_probabilities`: their differentiable natural logs of the probability.
    - `baseline`: `"leave-one-out"` or `"none"`.
    """
    values = lax.stop_gradient(values)
    n_samples = len(values)
    mean = values.mean(0)
    if baseline == "leave-one-out":
        # values_s - b_s = (values_s - mean) n / (n - 1)
        factors = (values - mean) / (n_samples - 1)
    else:
        factors = values / n_samples
    surrogate = jnp.tensordot(log_probabilities, factors, axes=1)
    return mean + (surrogate - lax.stop_gradient(surrogate))


def mean_of(values: Float[AnyArray, " n_samples"]) -> Estimate:
    """The mean of independent values and its standard error."""
    return Estimate(values.mean(), values.std(ddof=1) / np.sqrt(len(values)))


def sampled_energy(
    hamiltonian: LossHamiltonian,
    circuit: Chain,
    params: Angles,
    key: PRNGKeyArray,
    n_samples: int = 256,
) -> Estimate:
    """The energy over the whole data set from sampled networks, for losses that do not separate.

    The losses are those of the classical forward pass in NumPy, `LossHamiltonian.losses`.

    **Arguments:**

    - `key`: one that training did not use, so that the estimate is independent of what it saw.
    - `n_samples`: networks, at least 2; the standard error falls as one over its square root.

    **Raises:** `ValueError` for fewer samples.
    """
    if n_samples < 2:
        raise ValueError(
            f"n_samples must be at least 2, got {n_samples}; one has no standard error"
        )
    drawn, _ = sample(prepare_state(circuit, params), key, n_samples)
    bits = np.asarray(drawn)
    parts = [hamiltonian.losses(bits[start : start + 16]) for start in range(0, n_samples, 16)]
    return mean_of(np.concatenate(parts))
