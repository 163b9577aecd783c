"""Which energy a compiled loss is trained with, and why."""

from __future__ import annotations

from ..circuit import Ansatz, Brickwork
from ..hamiltonian import LossHamiltonian, NoTerms, QuadraticTerms
from .base import EnergyKind
from .cumulant import Cumulant
from .exact import Exact, why_not_exact
from .sampled import Sampled


def choose_energy(
    hamiltonian: LossHamiltonian,
    preferred: EnergyKind | None = None,
    circuit: Ansatz | None = None,
) -> tuple[EnergyKind, str]:
    """A strategy that can evaluate the loss, and a sentence that says why it was chosen.

    **Arguments:**

    - `preferred`: what to use where the loss separates, such as `Cumulant()`, or a `Sampled` with
      a number of samples of one's own; left out, `Exact()`.

    - `circuit`: what makes the state; left out, an exact chain. In truncated and free states fewer
      losses are evaluated exactly.

    A loss without product terms is sampled whatever is preferred.
    """
    terms = hamiltonian.terms
    reason = why_not_exact(hamiltonian, Brickwork(1) if circuit is None else circuit)
    if reason is not None:
        separates = not isinstance(terms, NoTerms)
        if isinstance(preferred, Sampled) or (separates and isinstance(preferred, Cumulant)):
            return preferred, f"{preferred.name}: {reason}"
        instead = "" if preferred is None else f" (in place of {preferred.name})"
        return Sampled(), f"{Sampled().name}{instead}: {reason}"
    if preferred is not None:
        return preferred, f"{preferred.name}: as preferred; the loss separates"
    if isinstance(terms, QuadraticTerms):
        return Exact(), f"{Exact().name}: first and second moments are all a squared error takes"
    return Exact(), f"{Exact().name}: the loss separates"
