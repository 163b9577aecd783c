"""What a loss Hamiltonian is made of, so that energies know how to evaluate it.

FourierTerms     linear networks: Fourier sums of every output's logit
HiddenTerms      one hidden layer: products over neurons (in `hidden.py`)
QuadraticTerms   squared errors of linear networks: first and second moments
SectorTerms      one Hamiltonian per setting of the network's and layers' choices
NoTerms          nothing that separates: such networks are sampled
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from .spectral import FourierSum, FrullaniIntegrand

if TYPE_CHECKING:
    from .compile import LossHamiltonian

#: Frequencies come in groups of this size, so that work of different length can be batched.
CHUNK = 32


class Terms(abc.ABC):
    """How a compiled loss is written as operators that a chain can evaluate."""

    @property
    def error(self) -> float:
        """Bound on the error of an example's loss, over all examples and networks."""
        return 0.0

    def subset(self, examples: Int[np.ndarray, " n"]) -> Terms:
        """The same for some of the examples."""
        return self

    @abc.abstractmethod
    def describe(self) -> str:
        """The kind and the size in a few words."""


@dataclasses.dataclass(frozen=True, eq=False)
class FourierTerms(Terms):
    """The Fourier sums of every example of a linear network.

    **Attributes:**

    - `tables`: the distinct sums; their term counts are multiples of `CHUNK`.
    - `table`: (n_examples,) which sum an example uses.
    - `origin`: (n_examples,) the logit from which its phases count.
    - `shift`: (n_examples,) the logit that the functions take for zero; the softmax integral is
      taken around the middle of the reachable range, zero otherwise.
    - `kind`: `"extension"` or `"lattice"`.
    - `integral`: the nodes of the softmax integral, or None for other losses.
    - `ranks`: lattice points of the zero-one loss of several outputs, whose functions are, for
      every point t, whether the logit is t (the true class) and whether it is below t (others).

    A loss with neither adds up over outputs, with one function per target.
    """

    tables: tuple[FourierSum, ...]
    table: Int[np.ndarray, " n_examples"]
    origin: Float[np.ndarray, " n_examples"]
    shift: Float[np.ndarray, " n_examples"]
    kind: str
    integral: FrullaniIntegrand | None = None
    ranks: int = 0

    @property
    def joint(self) -> bool:
        """Whether the loss is made of products over all outputs."""
        return self.integral is not None or self.ranks > 0

    @property
    def errors(self) -> Float[np.ndarray, " n_examples"]:
        """The certificate of every example."""
        extra = self.integral.quadrature_error if self.integral else 0.0
        return np.array([table.error for table in self.tables])[self.table] + extra

    @property
    def error(self) -> float:
        return float(self.errors.max())

    @property
    def n_terms(self) -> Int[np.ndarray, " n_examples"]:
        return np.array([len(table.coefficients) for table in self.tables])[self.table]

    def subset(self, examples: Int[np.ndarray, " n"]) -> FourierTerms:
        return dataclasses.replace(
            self,
            table=self.table[examples],
            origin=self.origin[examples],
            shift=self.shift[examples],
        )

    def describe(self) -> str:
        counts = self.n_terms
        return (
            f"{self.kind} with {counts.min()} to {counts.max()} frequencies "
            f"(mean {counts.mean():.0f})"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticTerms(Terms):
    """A quadratic form in the outputs, exact from first and second moments."""

    def describe(self) -> str:
        return "a quadratic form, exact"


@dataclasses.dataclass(frozen=True, eq=False)
class Sector:
    """One setting of the choices: their `bits` on `LossHamiltonian.global_sites`, and the loss."""

    bits: tuple[int, ...]
    hamiltonian: LossHamiltonian


@dataclasses.dataclass(frozen=True, eq=False)
class SectorTerms(Terms):
    """A sum over the settings of global choices: projector on their qubits times a loss."""

    sectors: tuple[Sector, ...]

    @property
    def error(self) -> float:
        return max(sector.hamiltonian.spectral_error for sector in self.sectors)

    def subset(self, examples: Int[np.ndarray, " n"]) -> SectorTerms:
        return SectorTerms(
            tuple(Sector(each.bits, each.hamiltonian.subset(examples)) for each in self.sectors)
        )

    def describe(self) -> str:
        kinds = list(dict.fromkeys(each.hamiltonian.terms.describe() for each in self.sectors))
        shown = "; ".join(kinds[:2])
        more = f"; and {len(kinds) - 2} more" if len(kinds) > 2 else ""
        return f"{len(self.sectors)} settings of the choices, {shown}{more}"


@dataclasses.dataclass(frozen=True, eq=False)
class NoTerms(Terms):
    """A loss that does not separate; `reason` says why, and what can be done."""

    reason: str

    def describe(self) -> str:
        return f"no product terms ({self.reason})"
