"""Functions of one logit as short Fourier sums, each with a bound on its error.

A sum  f(z) = Re sum_k c_k exp(i k nu (z - origin)),  k = 0 .. K-1,  is fitted

* on a *lattice*, when the inputs are multiples of a step: the logit takes M equally spaced values
  and 2 K - 1 >= M makes the sum exact for any function at all;
* as a *Fourier extension* otherwise: least squares on the reachable interval [-R, R] with the
  slightly longer period 2 (R + margin), which converges geometrically for smooth functions.

The errors are sup-norms over everything the logit can reach, so they hold for every network and
hence for every state. Softmax cross-entropy becomes a one-dimensional integral over products
(Frullani), with u = log t and g(v) = exp(-exp(v)):

    log sum_c exp(z_c) = integral du [ g(u) - prod_c g(z_c + u) ].
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float


@dataclasses.dataclass(frozen=True)
class FourierSum:
    """One table of coefficients (n_terms, n_targets) for frequencies ``k * spacing``.

    `error` bounds the loss it stands for, in the loss's unit, over all reachable logits.
    """

    spacing: float
    coefficients: Complex[np.ndarray, "n_terms n_targets"]
    error: float

    def __call__(self, z: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n n_targets"]:
        """The sum at distances `z` from its origin."""
        return _evaluate(self.coefficients, self.spacing, z)


class Integrand(abc.ABC):
    """The functions of one logit that a loss needs, and how their errors make the loss's."""

    @abc.abstractmethod
    def targets(self, z: np.ndarray) -> np.ndarray:
        """The functions' values, (n, n_targets)."""

    @abc.abstractmethod
    def combine(self, values: np.ndarray) -> np.ndarray:
        """The sums over targets whose largest error enters the loss to first order."""

    @abc.abstractmethod
    def loss_error(self, combined: float, each: np.ndarray) -> float:
        """The loss's error from the largest errors of the combined sums and of every target."""

    @property
    @abc.abstractmethod
    def curvatures(self) -> tuple[float, float] | None:
        """Bounds on the second derivatives in z of the exact combined sums and targets, if any."""

    @property
    def slopes(self) -> tuple[float, float] | None:
        """Bounds on their first derivatives, for functions with kinks."""
        return None

    @abc.abstractmethod
    def highest_frequency(self, tolerance: float) -> float:
        """About the frequency, in radians per unit of logit, that a tolerance asks for."""

    @property
    @abc.abstractmethod
    def quadrature_error(self) -> float:
        """The loss's error when every function is exact."""


@dataclasses.dataclass(frozen=True)
class PointwiseIntegrand(Integrand):
    """A function of one logit per label, such as ``log(1 + exp(z))`` and ``log(1 + exp(-z))``.

    **Arguments:**

    - `function`: from (n,) logits to (n, labels) values.
    - `curvature`: a bound on its second derivative, or None.
    - `slope`: a bound on its first derivative where the second has none (a kink), or None.
    - `n_outputs`: how many outputs' functions a loss adds up; their errors add up too.
    """

    function: Callable[[np.ndarray], np.ndarray]
    curvature: float | None
    slope: float | None
    n_outputs: int = 1

    def targets(self, z: np.ndarray) -> np.ndarray:
        return self.function(z)

    def combine(self, values: np.ndarray) -> np.ndarray:
        return values

    def loss_error(self, combined: float, each: np.ndarray) -> float:
        return self.n_outputs * combined

    @property
    def curvatures(self) -> tuple[float, float] | None:
        return None if self.curvature is None else (self.curvature, self.curvature)

    @property
    def slopes(self) -> tuple[float, float] | None:
        return None if self.slope is None else (self.slope, self.slope)

    @property
    def quadrature_error(self) -> float:
        return 0.0

    def highest_frequency(self, tolerance: float) -> float:
        if self.curvature is None:
            return 1 / tolerance
        # Analytic functions here have their poles at +-i pi or further away.
        smooth = math.log(10 / tolerance) / math.pi
        return smooth if self.curvature < 1 else max(smooth, math.sqrt(self.curvature / tolerance))


@dataclasses.dataclass(frozen=True)
class FrullaniIntegrand(Integrand):
    """``g(z + u)`` at the nodes u of the trapezoid rule for `n_outputs` logits in [-Z, Z].

    The error of the product is bounded to first order by Abel summation, since the product of the
    other factors falls monotonically in u from at most 1 to at least 0:
    ``|h sum_u e_u(z) P(u)| <= max_U |h sum_{u <= U} e_u(z)|``, per output; all higher orders
    together by ``h sum_u [(1 + eps_u)^C - 1 - C eps_u]`` with ``eps_u = max_z |e_u(z)|``.
    """

    half_range: float
    n_outputs: int
    tolerance: float

    @functools.cached_property
    def step(self) -> float:
        """The widest step whose aliasing error stays under half of the tolerance."""
        step = 1.0
        while self._aliasing(step) > 0.5 * self.tolerance:
            step *= 0.98
        return step

    @staticmethod
    def _aliasing(step: float) -> float:
        # Poisson summation; the transform of exp(-exp(u)) at w has modulus |Gamma(i w)|.
        w = 2 * math.pi * np.arange(1, 5) / step
        return float(4 * np.sqrt(2 * math.pi / w * np.exp(-math.pi * w)).sum())

    @functools.cached_property
    def nodes(self) -> Float[np.ndarray, " n_nodes"]:
        """The nodes u; what lies outside them is under a quarter of the tolerance each side."""
        log_count = math.log(self.n_outputs)
        tail = math.log(8 / self.tolerance)
        first = -self.half_range - log_count - tail
        last = max(0.0, self.half_range - log_count) + math.log(tail + 2)
        return first + self.step * np.arange(math.ceil((last - first) / self.step) + 1)

    @property
    def constants(self) -> Float[np.ndarray, " n_nodes"]:
        """The summands of the integral that do not depend on the network."""
        return self.step * _gumbel(self.nodes)

    def targets(self, z: np.ndarray) -> np.ndarray:
        return _gumbel(z[:, None] + self.nodes)

    def combine(self, values: np.ndarray) -> np.ndarray:
        return self.n_outputs * self.step * np.cumsum(values, axis=1)

    def loss_error(self, combined: float, each: np.ndarray) -> float:
        higher = np.expm1(self.n_outputs * np.log1p(each)) - self.n_outputs * each
        return float(combined + self.step * np.maximum(higher, 0).sum())

    @property
    def curvatures(self) -> tuple[float, float]:
        # |h sum g''(z + u)| is at most the variation of g' plus the quadrature's own error.
        return 2.0 * self.n_outputs, 1.0

    @property
    def quadrature_error(self) -> float:
        return self.tolerance

    def highest_frequency(self, tolerance: float) -> float:
        return math.log(10 / tolerance) / (math.pi / 2)


def fit_extension(
    integrand: Integrand, half_range: float, n_terms: int, *, cutoff: float
) -> FourierSum:
    """The least-squares sum on [-half_range, half_range] with the best of a few periods.

    Its error is measured on a coarse grid: an estimate, for a search; `fourier_extension`
    certifies.

    **Arguments:**

    - `n_terms`: frequencies, the constant included; at least 2.
    - `cutoff`: singular values under this share of the largest are dropped; it keeps the
      coefficients small, and rounding errors with them.
    """
    best: FourierSum | None = None
    z = half_range * np.sin(np.pi / 2 * np.linspace(0, 1, 5 * n_terms // 2))
    values = integrand.targets(z), integrand.targets(-z)
    check = half_range * np.linspace(0, 1, 5 * n_terms + 3)
    for margin in (3.0, 5.0):
        spacing = math.pi / (half_range + min(margin, half_range))
        coefficients = _least_squares(z, *values, spacing, n_terms, cutoff)
        table = FourierSum(spacing, coefficients, math.inf)
        error = integrand.loss_error(*_largest_errors(integrand, table, check))
        if best is None or error < best.error:
            best = dataclasses.replace(table, error=error)
    assert best is not None
    return best


def fourier_extension(
    integrand: Integrand,
    half_range: float,
    n_terms: int,
    *,
    cutoff: float,
    slack: float | None = None,
) -> FourierSum:
    """`fit_extension` with a certified error.

    **Arguments:**

    - `slack`: how much the certificate may add for what hides between the points of the grid on
      which the error is measured; the grid is chosen fine enough. Left out, a tenth of the error.
    """
    best = fit_extension(integrand, half_range, n_terms, cutoff=cutoff)
    if slack is None:
        slack = max(0.1 * best.error, 1e-14)
    # A loss that adds up over outputs adds up the slack as well.
    slack /= integrand.loss_error(1.0, np.zeros(1))
    # What the error can grow by between two grid points: from its second derivative, or its
    # first one where a kink leaves no other bound.
    order, exact = (2, integrand.curvatures) if integrand.curvatures else (1, integrand.slopes)
    if exact is None:
        raise ValueError("a function with jumps has no Fourier extension with a bounded error")
    combined_bound = (
        _derivatives(integrand.combine(best.coefficients), best.spacing, half_range, order).max()
        + exact[0]
    )
    each_bound = _derivatives(best.coefficients, best.spacing, half_range, order) + exact[1]
    widest = math.sqrt(8 * slack / combined_bound) if order == 2 else 2 * slack / combined_bound
    gap = min(half_range / (20 * n_terms), widest)
    grid = half_range * np.linspace(0, 1, math.ceil(half_range / gap) + 1)
    combined, each = _largest_errors(integrand, best, grid)
    between = gap**2 / 8 if order == 2 else gap / 2
    error = integrand.loss_error(combined + combined_bound * between, each + each_bound * between)
    return dataclasses.replace(best, error=error)


def lattice_sum(
    integrand: Integrand, start: float, step: float, n_points: int, n_terms: int
) -> FourierSum:
    """The exact sum on the lattice ``start + step * n``, n = 0 .. n_points-1, origin `start`.

    **Raises:** `ValueError` if ``2 * n_terms - 1`` frequencies are fewer than the points.
    """
    period = 2 * n_terms - 1
    if period < n_points:
        raise ValueError(
            f"{n_terms} terms are exact on at most {period} lattice points, got {n_points}"
        )
    points = start + step * np.arange(period)
    # A point that is zero but for rounding must not fall on the wrong side of a jump.
    points[np.abs(points) < 1e-9 * step] = 0
    values = integrand.targets(points)
    coefficients = np.fft.rfft(values, axis=0) / period
    coefficients[1:] *= 2
    table = FourierSum(2 * math.pi / (period * step), coefficients, 0.0)
    residual = np.abs(table(step * np.arange(n_points)) - values[:n_points])
    combined = float(np.abs(integrand.combine(residual)).max())
    return dataclasses.replace(table, error=integrand.loss_error(combined, residual.max(0)))


def _gumbel(v: np.ndarray) -> np.ndarray:
    return np.exp(-np.exp(np.minimum(v, 6.7)))


def _evaluate(coefficients: np.ndarray, spacing: float, z: np.ndarray) -> np.ndarray:
    phase = np.outer(z, spacing * np.arange(len(coefficients)))
    return np.cos(phase) @ coefficients.real - np.sin(phase) @ coefficients.imag


def _derivatives(
    coefficients: np.ndarray, spacing: float, half_range: float, order: int
) -> np.ndarray:
    """A bound on the first or second derivative in z of every column's sum over the range."""
    frequencies = spacing * np.arange(len(coefficients))[:, None]
    grid = np.linspace(-half_range, half_range, 64 * len(frequencies) + 1)
    derivative = (1j * frequencies) ** order * coefficients
    following = (frequencies ** (order + 1) * np.abs(coefficients)).sum(0)
    parts = np.array_split(grid, math.ceil(len(grid) / 4096))
    largest = np.max(
        [np.abs(_evaluate(derivative, spacing, part)).max(0) for part in parts], axis=0
    )
    return largest + following * half_range / (64 * len(frequencies))


def _largest_errors(
    integrand: Integrand, table: FourierSum, z: np.ndarray
) -> tuple[float, np.ndarray]:
    """The largest errors at +-z of the combined sums and of every target."""
    combined, each = 0.0, np.zeros(1)
    for part in np.array_split(z, math.ceil(len(z) / 4096)):
        phase = np.outer(part, table.spacing * np.arange(len(table.coefficients)))
        even = np.cos(phase) @ table.coefficients.real
        odd = np.sin(phase) @ table.coefficients.imag
        for residual in (
            even - odd - integrand.targets(part),
            even + odd - integrand.targets(-part),
        ):
            combined = max(combined, float(np.abs(integrand.combine(residual)).max()))
            each = np.maximum(each, np.abs(residual).max(0))
    return combined, each


def _least_squares(
    z: np.ndarray,
    right: np.ndarray,
    left: np.ndarray,
    spacing: float,
    n_terms: int,
    cutoff: float,
) -> np.ndarray:
    """Fit the even part by cosines and the odd part by sines on z > 0."""
    phase = np.outer(z, spacing * np.arange(n_terms))
    even = np.linalg.lstsq(np.cos(phase), (right + left) / 2, rcond=cutoff)[0]
    odd = np.linalg.lstsq(np.sin(phase[:, 1:]), (left - right) / 2, rcond=cutoff)[0]
    coefficients = even.astype(complex)
    coefficients[1:] += 1j * odd
    return coefficients
