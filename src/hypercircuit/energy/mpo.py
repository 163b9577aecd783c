"""The energy of the complete data set from compressed operators, inside a trust region.

Operators compressed in the metric of the current Born distribution's marginals are good near it and
nowhere else. So their error is measured on networks drawn from the state as it moves, and when it
exceeds a share of the energy, the loss is compressed anew around where the state is then.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from .._types import Angles, AnyArray
from ..circuit import Chain, FreeMPS, Truncated
from ..hamiltonian import CompressedLoss, LossHamiltonian, MeasuredError, compress_loss
from ..hamiltonian.mpo import MEMORY, Request, around_state, load_same
from ..state import ChainMPS, ExactMPS, State, bit_probabilities, prepare_state, sample
from .base import Batch, CompleteEnergy
from .operators import CellOperators, cell_operators, expectations
from .site_operators import SiteOperators, site_expectations, site_operators

METRICS = ("state", "uniform")

#: How much worse than right after compressing the error may become, at least.
_WORSE = 1.5

SitesDone = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class MPO:
    """The energy of all the examples from operators of bounded bond dimension.

    A step's cost does not depend on the number of examples; compressing and measuring see them all.
    It is an approximation: its error is measured on samples of the state, and final energies are
    evaluated with the uncompressed terms.

    **Arguments:**

    - `max_bond`: of the operators.
    - `tolerance`: see [`hypercircuit.compress_loss`][].
    - `metric`: `"state"` compresses around the Born distribution's marginals and again when the
      state has left the region where that is good; `"uniform"` compresses once, for all networks
      alike.
    - `trust`: the root mean square error on samples of the state, as a share of their mean loss,
      beyond which the loss is compressed again (in the uniform metric: a notice is given). Where
      not even a fresh compression is that good, the limit is 1.5 times its error.
    - `check_every`: steps between two measurements of that error.
    - `samples`: networks drawn for each of them.

    **Raises:** `ValueError` naming the argument that is out of range.
    """

    max_bond: int = 64
    tolerance: float = 0.0
    metric: str = "state"
    trust: float = 0.02
    check_every: int = 10
    samples: int = 64

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        for name, least in (("max_bond", 1), ("check_every", 1), ("samples", 2)):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name in ("tolerance", "trust"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        return "mpo"

    def prepare(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> MPOEnergy:
        """An energy that holds no operators yet: see `MPOEnergy.compress`.

        **Arguments:**

        - `batch_size`: `hamiltonian.n_examples`; there is no other batch.
        """
        return MPOEnergy(self, hamiltonian, circuit, batch_size, np.dtype(dtype))


class MPOBatch(Batch):
    """All the examples, of equal weight, and the operators."""

    weights: Float[AnyArray, " n"]
    operators: tuple[CellOperators, ...] | tuple[SiteOperators, ...]


class MPOEnergy(CompleteEnergy):
    """See [`hypercircuit.MPO`][].

    **Attributes:**

    - `compressed`: the operators in use, None before the first `compress`.
    - `n_compressions`: how often the loss was compressed.
    - `fresh_error`: the root mean square error on samples right after the last compression.
    """

    site_tensors = True

    def __init__(
        self,
        kind: MPO,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        batch_size: int,
        dtype: np.dtype,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.kind = kind
        self.compressed: CompressedLoss | None = None
        self.n_compressions = 0
        self.fresh_error = 0.0
        self._batch: MPOBatch | None = None

    def metric(self, params: Angles) -> Float[np.ndarray, " n_qubits"] | None:
        """The probabilities around which the loss is compressed at these angles."""
        if self.kind.metric == "uniform":
            return None
        return around_state(np.asarray(_probabilities(self.circuit, params), np.float64))

    def compress(
        self,
        probabilities: Float[np.ndarray, " n_qubits"] | None,
        progress: SitesDone | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Compress the loss in the metric of `probabilities` and use that from now on.

        **Arguments:**

        - `path`: a file that is read if it holds these operators, and else written.
        """
        dtype = np.dtype(self.dtype)
        tolerance, max_bond = self.kind.tolerance, self.kind.max_bond
        found = None
        if path is not None:
            request = Request(max_bond, tolerance, probabilities, 0, dtype.name, MEMORY)
            found = load_same(path, self.hamiltonian, request)
        if found is None:
            found = compress_loss(
                self.hamiltonian,
                max_bond,
                tolerance=tolerance,
                probabilities=probabilities,
                dtype=dtype,
                progress=progress,
            )
            if path is not None:
                found.save(path)
        self.compressed = found
        self.n_compressions += 1
        parts = [(part.start, part.mpo) for part in found.parts]
        site_tensors = isinstance(self.circuit, (Truncated, FreeMPS))
        lay_out = site_operators if site_tensors else cell_operators
        operators = lay_out(parts, self._padded_bond, self.dtype)
        weights = np.full(self.batch_size, 1 / self.batch_size, self.dtype)
        self._batch = jax.device_put(MPOBatch(weights, operators))

    @property
    def _padded_bond(self) -> int:
        """One for all compressions, so that the step is compiled once."""
        widest = 2 ** min((self.hamiltonian.n_qubits + 1) // 2, 30)
        # Two bonds more where the operators of outputs are joined to one for each setting.
        return min(self.kind.max_bond, widest) + 2 * bool(self.hamiltonian.network.global_sites)

    def measure(self, params: Angles, key: PRNGKeyArray) -> MeasuredError:
        """The operators' error on networks drawn from the state."""
        assert self.compressed is not None, "compress first"
        bits = _samples(self.circuit, params, key, self.kind.samples)
        return self.compressed.error_at(np.asarray(bits))

    def limit(self, found: MeasuredError) -> float:
        """The error beyond which the loss is compressed again."""
        return max(self.kind.trust * abs(found.loss), _WORSE * self.fresh_error)

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> MPOBatch:
        """The one batch there is; the order of the examples is of no account.

        **Raises:** `ValueError` unless every example is in it once, all of one weight.
        """
        self.check_complete(examples, weights)
        return self.whole()

    def whole(self) -> MPOBatch:
        """The one batch there is.

        **Raises:** `ValueError` before the first `compress`.
        """
        if self._batch is None:
            raise ValueError("there are no operators yet; call compress first")
        return self._batch

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        """The energy of the complete data once for every example: there are no others here."""
        return jnp.broadcast_to(self._energy(mps, batch), batch.weights.shape)

    def __call__(self, params: Angles, batch: Batch) -> Float[Array, ""]:
        return self._energy(prepare_state(self.circuit, params), batch)

    def _energy(self, mps: State, batch: Batch) -> Float[Array, ""]:
        assert isinstance(batch, MPOBatch)
        total = jnp.zeros((), self.dtype)
        for operators in batch.operators:
            if isinstance(operators, SiteOperators):
                assert isinstance(mps, ChainMPS)
                total = total + site_expectations(mps, operators).sum()
            else:
                assert isinstance(mps, ExactMPS)
                total = total + expectations(mps, operators).sum()
        return total


@eqx.filter_jit
def _probabilities(circuit: Chain, params: Angles) -> Float[Array, " n_qubits"]:
    return bit_probabilities(prepare_state(circuit, params))


@eqx.filter_jit
def _samples(
    circuit: Chain, params: Angles, key: PRNGKeyArray, n: int
) -> UInt8[Array, "n n_qubits"]:
    return sample(prepare_state(circuit, params), key, n)[0]
