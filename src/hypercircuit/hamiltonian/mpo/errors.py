"""How far compressed operators are from the loss.

    measured      differences from the true losses of some networks
    compression   their root mean square over the metric's distribution of all networks

The latter holds whatever compressing did: truncation, the sketch, the fit of terms to a window of
the metric, and rounding. Its true value takes all 2^N networks; otherwise it is estimated.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float

#: Standard errors that are added to an estimate.
_SIGMAS = 3.0


@dataclasses.dataclass(frozen=True)
class MeasuredError:
    """How far operators were from the true loss of some networks, in the loss's unit.

    **Attributes:**

    - `mean`, `rms`, `max`: of the differences, the last one of their moduli.
    - `loss`: the networks' mean true loss.
    - `n_networks`: how many there were.
    - `mean_standard_error`, `rms_standard_error`: from the networks' number being finite, taking
      them as independent; NaN for one network.
    """

    mean: float
    rms: float
    max: float
    loss: float
    n_networks: int
    mean_standard_error: float
    rms_standard_error: float

    @classmethod
    def of(
        cls, found: Float[np.ndarray, " n_networks"], true: Float[np.ndarray, " n_networks"]
    ) -> MeasuredError:
        """Of networks whose losses by operators and by the classical forward pass are these."""
        difference, n = found - true, len(true)
        rms = float(np.sqrt((difference**2).mean()))
        of_mean = of_rms = math.nan
        if n > 1:
            of_mean = float(difference.std(ddof=1)) / math.sqrt(n)
            of_square = float((difference**2).std(ddof=1)) / math.sqrt(n)
            of_rms = of_square / (2 * rms) if rms > 0 else 0.0
        return cls(
            float(difference.mean()),
            rms,
            float(np.abs(difference).max()),
            float(true.mean()),
            n,
            of_mean,
            of_rms,
        )


@dataclasses.dataclass(frozen=True)
class CompressionError:
    """Root mean square distance of operators from the loss in the metric, in the loss's unit.

    **Attributes:**

    - `at_most`: the distance itself where all networks are counted. Otherwise an estimate of a
      bound: the root mean square on networks drawn from the metric's distribution and three of its
      standard errors, or what truncation threw away, if that is more; with the rounding of the
      losses that it was compared with, which are in single precision. It is as good as such
      estimates are: a rare network with a large error may not have been drawn.
    - `standard_error`: of the root mean square that was estimated; None where nothing was.
    """

    at_most: float
    standard_error: float | None = None

    @property
    def exact(self) -> bool:
        """Whether all networks are counted."""
        return self.standard_error is None

    @classmethod
    def estimated(cls, measured: MeasuredError, truncation: float) -> CompressionError:
        """From networks drawn from the metric's distribution and from what truncation counted."""
        found = measured.rms + _SIGMAS * measured.rms_standard_error
        rounding = float(np.finfo(np.float32).eps) * abs(measured.loss)
        return cls(max(found, truncation) + rounding, measured.rms_standard_error)
