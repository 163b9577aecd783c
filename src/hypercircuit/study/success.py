"""How often restarts reach the minimum, with exact intervals, and where they end."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest


@dataclasses.dataclass(frozen=True)
class Success:
    """A share of restarts with its confidence interval.

    **Attributes:**

    - `n`, `successes`: restarts, and those that ended close enough to the minimum.
    - `probability`: their share.
    - `low`, `high`: the exact (Clopper-Pearson) interval of the probability.
    - `confidence`: of that interval.
    """

    n: int
    successes: int
    probability: float
    low: float
    high: float
    confidence: float


@dataclasses.dataclass(frozen=True, eq=False)
class LossHistogram:
    """Restarts counted by the distance at which they ended above the minimum.

    **Attributes:**

    - `edges`: bin edges, equally spaced logarithms, in the loss's unit.
    - `counts`: restarts per bin; those below the first edge are in the first bin.
    - `n_missing`: restarts that ended without a finite energy, in no bin.
    """

    edges: Float[np.ndarray, " n_edges"]
    counts: Int[np.ndarray, " n_bins"]
    n_missing: int


def success_probability(
    energies: Float[np.ndarray, " n"],
    minimum: float,
    *,
    distance: float = 1e-4,
    confidence: float = 0.95,
) -> Success:
    """The share of energies at most `distance` above the minimum.

    **Arguments:**

    - `energies`: what the restarts ended with; one that is not finite is a failure.
    - `minimum`: the smallest loss of any network.
    - `distance`: in the loss's unit, above 0.
    - `confidence`: of the two-sided Clopper-Pearson interval, between 0 and 1.

    **Raises:** `ValueError` without energies or for an argument out of range.
    """
    if len(energies) == 0:
        raise ValueError("energies must hold at least one restart, got none; run some first")
    if not distance > 0:
        raise ValueError(f"distance must be above 0, got {distance}; the published one is 1e-4")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; usual is 0.95")
    successes = int(np.sum(np.asarray(energies) - minimum <= distance))
    test = binomtest(successes, len(energies))
    interval = test.proportion_ci(confidence_level=confidence, method="exact")
    share = successes / len(energies)
    return Success(
        len(energies), successes, share, float(interval.low), float(interval.high), confidence
    )


def loss_histogram(
    energies: Float[np.ndarray, " n"],
    minimum: float,
    *,
    lowest: float = 1e-8,
    highest: float = 1.0,
    bins_per_decade: int = 4,
) -> LossHistogram:
    """Count restarts by the logarithm of their distance above the minimum.

    **Arguments:**

    - `lowest`, `highest`: the range of the edges in the loss's unit; what ends nearer or further
      is counted in the outermost bins.
    - `bins_per_decade`: at least 1.

    **Raises:** `ValueError` for a range or number of bins that is empty.
    """
    if not 0 < lowest < highest:
        raise ValueError(
            f"lowest must be above 0 and below highest, got {lowest} and {highest}; for example "
            "1e-8 and 1"
        )
    if bins_per_decade < 1:
        raise ValueError(f"bins_per_decade must be at least 1, got {bins_per_decade}")
    n_bins = max(1, round(bins_per_decade * np.log10(highest / lowest)))
    edges = np.geomspace(lowest, highest, n_bins + 1)
    finite = np.asarray(energies)[np.isfinite(energies)]
    distances = np.clip(finite - minimum, lowest, np.nextafter(highest, 0))
    counts, _ = np.histogram(distances, edges)
    return LossHistogram(edges, counts, len(energies) - len(finite))
