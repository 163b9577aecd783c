"""The cumulant energy: every logit's distribution from its first cumulants, by matrix products.

Means, variances and (order 4) third and fourth cumulants of all logits are exact: correlations of
a shallow circuit have finite range, so they are banded sums. What is approximate is the
distribution they stand for, and that logits of different outputs are taken as independent:

    p(z) = N(z; m, s^2) [1 + k3 / 6 He3(x) + k4 / 24 He4(x)],   x = (z - m) / s,

integrated with Gauss-Hermite nodes in place of the frequencies of the exact energy.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from .._types import AnyArray
from ..circuit import Chain, FreeMPS, Truncated
from ..hamiltonian import LossHamiltonian, Sector, SectorTerms, SquaredError
from ..hamiltonian.compile import MAX_SECTORS
from ..state import State
from .base import Batch, PreparedEnergy
from .cumulant_hidden import HiddenCumulantEnergy
from .exact import QuadraticEnergy
from .expected import ExpectedLoss, Labels, Outputs, labels
from .lattice import input_cuts
from .linear import linear_outputs
from .sectors import SectorEnergy


@dataclasses.dataclass(frozen=True)
class Cumulant:
    """An approximate energy at the speed of matrix products, for every loss and any network.

    Squared errors of linear networks stay exact. Elsewhere the error is measured, not bounded: the
    training loop compares it with the exact energy on a fixed subset at every evaluation, where
    there is one. Softmax and the zero-one loss of several outputs have none on a hidden layer.

    With hidden layers neurons are taken as independent; see
    `hypercircuit.energy.cumulant_hidden`. Global choices are evaluated setting by setting.

    **Arguments:**

    - `order`: 2 (mean and variance) or 4.
    - `n_nodes`: Gauss-Hermite nodes per logit.
    - `n_steps`: nodes of the softmax integral.

    **Raises:** `ValueError` for another order or fewer than 4 nodes or steps; `prepare` for order
    4 on layers that are not in order "neuron" or in truncated and free states, and for more than
    256 settings of global choices.
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
        circuit: Chain,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> PreparedEnergy:
        """Fix the shapes for batches of `batch_size` examples of one compiled loss."""
        network = hamiltonian.network
        if network.global_sites and not isinstance(hamiltonian.terms, SectorTerms):
            hamiltonian = _with_sectors(hamiltonian)
        arguments = (hamiltonian, circuit, batch_size, np.dtype(dtype))
        if isinstance(hamiltonian.terms, SectorTerms):
            return SectorEnergy(*arguments, self)
        if not network.n_hidden and isinstance(hamiltonian.loss, SquaredError):
            return QuadraticEnergy(*arguments)
        if self.order > 2 and isinstance(circuit, (Truncated, FreeMPS)):
            raise ValueError(
                f"order must be 2 for a {type(circuit).__name__} state, got {self.order}; "
                "use Cumulant(2)"
            )
        if network.n_hidden:
            return HiddenCumulantEnergy(*arguments, self)
        return CumulantEnergy(*arguments, self)


class CumulantBatch(Batch):
    """One batch of examples."""

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "n fan_in"]
    labels: Labels


class CumulantEnergy(PreparedEnergy):
    """See [`hypercircuit.Cumulant`][]; linear networks."""

    site_tensors = True
    takes_maps = False

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        batch_size: int,
        dtype: np.dtype,
        settings: Cumulant,
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.settings = settings
        self.outputs = linear_outputs(hamiltonian)
        self.expected = ExpectedLoss(
            hamiltonian.loss,
            hamiltonian.network.n_outputs,
            settings.n_nodes,
            settings.n_steps,
            self.dtype,
        )
        self.half_step = hamiltonian.network.logit_scale * self._cuts(np.arange(1))[1]

    def _cuts(self, examples: np.ndarray) -> tuple[np.ndarray, float]:
        data, network = self.hamiltonian.data, self.hamiltonian.network
        x = self.hamiltonian.inputs(examples)
        return input_cuts(data, network, network.layers[0].encoding, x, positive=True)

    @property
    def cumulant_order(self) -> int:
        return self.settings.order

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> CumulantBatch:
        examples, weights = self.filled(examples, weights)
        network = self.hamiltonian.network
        x = self.hamiltonian.inputs(examples)
        cut = network.logit_scale * self._cuts(examples)[0]
        known = labels(self.hamiltonian.data.y[examples], network.n_outputs, cut, self.dtype)
        return CumulantBatch(weights, x.astype(self.dtype), known)

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, CumulantBatch)
        cumulants = self.outputs.cumulants(mps, batch.x, self.settings.order)
        return self.expected(Outputs(cumulants, None, self.half_step), batch.labels)


def _with_sectors(hamiltonian: LossHamiltonian) -> LossHamiltonian:
    """The settings of the global choices, for a loss that was not compiled setting by setting."""
    network = hamiltonian.network
    n_sectors = 2 ** len(network.global_sites)
    if n_sectors > MAX_SECTORS:
        raise ValueError(
            f"the choices of scope network and layer have {n_sectors} settings, of which at most "
            f"{MAX_SECTORS} are evaluated one by one; choose among fewer, or use Sampled()"
        )
    sectors = (
        Sector(bits, dataclasses.replace(hamiltonian, network=settled))
        for bits, settled in network.sectors()
    )
    return dataclasses.replace(hamiltonian, terms=SectorTerms(tuple(sectors)))
