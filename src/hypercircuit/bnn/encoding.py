"""The map from a stored bit to the weight value it stands for."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Integer


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Bit 0 stands for `low`, bit 1 for `high`: ``w = low + (high - low) * bit``.

    **Arguments:**

    - `low`, `high`: two different finite weight values; the default is the +-1 network.

    **Raises:** `ValueError` if a value is not finite or both are equal.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(
                f"Encoding needs two finite weight values, got low={self.low}, high={self.high}"
            )
        if self.low == self.high:
            raise ValueError(
                f"Encoding needs two different weight values, got low=high={self.low}; "
                "a bit that changes nothing cannot be trained"
            )

    @property
    def step(self) -> float:
        """The change of the weight when its bit goes from 0 to 1."""
        return self.high - self.low

    @property
    def middle(self) -> float:
        """The weight's mean over a fair bit."""
        return 0.5 * (self.low + self.high)

    def decode(self, bits: Integer[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """The weight values of `bits`, as float32."""
        return np.where(bits == 0, np.float32(self.low), np.float32(self.high))
