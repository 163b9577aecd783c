"""The loss of a head as a function of its value, tabulated so that it is quick to evaluate.

With frequencies k * spacing the loss is a trigonometric polynomial: two Fourier transforms give
its values and slopes on a fine grid over one period, and in between it is the cubic with these
ends, whose error is at most h^4 / 384 times a bound on the fourth derivative.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Complex, Float

from .hidden_heads import HeadSum

#: The largest error of the cubics, in the loss's unit.
_TOLERANCE = 1e-13
#: Finer grids are not made.
_MOST_POINTS = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class Cubics:
    """The loss of one target, or the parabola of a jet.

    **Attributes:**

    - `per_unit`: cells of the grid per unit of the head's value.
    - `powers`: the coefficients of every cell, lowest degree first; one cell is everywhere.
    """

    per_unit: float
    powers: Float[np.ndarray, "degrees cells"]

    def __call__(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        position = values * self.per_unit
        if self.powers.shape[1] == 1:
            within, cells = position, np.zeros(1, int)
        else:
            whole = np.floor(position)
            within = position - whole
            # The number of cells is a power of two, so that this is the remainder.
            cells = whole.astype(np.int64) & (self.powers.shape[1] - 1)
        result = self.powers[-1][cells]
        for coefficients in self.powers[-2::-1]:
            result = result * within
            result += coefficients[cells]
        return result


def cubics(total: HeadSum) -> list[Cubics] | None:
    """The loss of each target, or None if the grid would be too fine."""
    if total.frequency is None:
        degrees = total.coefficients.real * np.array([1.0, 1.0, 0.5])[:, None]
        return [Cubics(1.0, column[:, None]) for column in degrees.T]
    spacing = float(total.frequency[1]) if total.n_terms > 1 else 1.0
    fourth = float((np.abs(total.coefficients).max(1) * total.frequency**4).sum())
    period = 2 * np.pi / spacing
    finest = (384 * _TOLERANCE / fourth) ** 0.25 if fourth > 0 else period
    n_points = 2 ** max(1, int(np.ceil(np.log2(max(period / finest, 2 * total.n_terms)))))
    if n_points > _MOST_POINTS:
        return None
    return [
        _cubics(column, 1j * total.frequency * column, n_points, period)
        for column in total.coefficients.T
    ]


def _cubics(
    coefficients: Complex[np.ndarray, " terms"],
    slopes: Complex[np.ndarray, " terms"],
    n_points: int,
    period: float,
) -> Cubics:
    value = np.fft.ifft(coefficients, n_points).real * n_points
    # Per cell, not per unit.
    slope = np.fft.ifft(slopes, n_points).real * period
    rise, following = np.roll(value, -1) - value, np.roll(slope, -1)
    powers = np.stack(
        [value, slope, 3 * rise - 2 * slope - following, slope + following - 2 * rise]
    )
    return Cubics(n_points / period, powers)
