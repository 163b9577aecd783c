"""Closed forms of E[f(z)] for a nearly Gaussian z: ramps, steps and the activation functions.

Everything is built from the ramps ``E[max(z, 0)^k]``, z normal, whose derivatives in the mean are
ramps again (k = 0 is the distribution function and goes on with Hermite polynomials):

    d/dm E[max(z, 0)^k] = k E[max(z, 0)^(k-1)],    E[max(z, 0)^0] = Phi(m / s).

Derivatives give the Gram-Charlier corrections for a skewness and an excess kurtosis, and Stein's
identity ``Cov(y, f(z)) = Cov(y, z) E[f'(z)]``. They are taken in units of the deviation s, so that
nothing overflows when z is all but decided.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Values = Float[Array, "*shape"]

#: A variable that is all but decided keeps this much variance, so that gradients stay finite.
MIN_VARIANCE = 1e-8
#: Beyond these values of skewness and excess kurtosis the Gram-Charlier density is no density.
_MAX_SKEWNESS = 3.0
_MAX_KURTOSIS = 9.0

# The logistic function as a mixture of normal distribution functions, to 4e-9 (J. F. Monahan and
# L. A. Stefanski, in Handbook of the Logistic Distribution, 1989): weights and inverse deviations.
_MIXTURE = np.array(
    [
        (0.003246343272134, 1.365340806296348),
        (0.051517477033972, 1.059523971016916),
        (0.195077912673858, 0.830791313765644),
        (0.315569823632818, 0.650732166639391),
        (0.274149576158423, 0.508135425366489),
        (0.131076880695470, 0.396313345166341),
        (0.027912418727972, 0.308904252267995),
        (0.001449567805354, 0.238212616409306),
    ]
)


@dataclasses.dataclass(frozen=True, eq=False)
class NearlyNormal:
    """Variables given by their first two or four cumulants; expectations of functions of them.

    **Attributes:** `skewness` and `kurtosis` (in excess of a normal's) are None at order two.
    """

    mean: jax.Array
    deviation: jax.Array
    skewness: jax.Array | None = None
    kurtosis: jax.Array | None = None

    @classmethod
    def of(cls, cumulants: tuple[jax.Array, ...]) -> NearlyNormal:
        """From mean and variance, for order four also the third and fourth cumulant."""
        deviation = jnp.sqrt(jnp.maximum(cumulants[1], MIN_VARIANCE))
        if len(cumulants) == 2:
            return cls(cumulants[0], deviation)
        skewness = jnp.clip(cumulants[2] / deviation**3, -_MAX_SKEWNESS, _MAX_SKEWNESS)
        kurtosis = jnp.clip(cumulants[3] / deviation**4, -2.0, _MAX_KURTOSIS)
        return cls(cumulants[0], deviation, skewness, kurtosis)

    def shifted(self, by: jax.Array | float, sign: float = 1.0) -> NearlyNormal:
        """The variables ``by + sign * z`` with sign +1 or -1."""
        skewness = None if self.skewness is None else sign * self.skewness
        return NearlyNormal(by + sign * self.mean, self.deviation, skewness, self.kurtosis)

    def column(self) -> NearlyNormal:
        """The same variables with one more axis at the end."""

        def stretch(values: jax.Array | None) -> jax.Array | None:
            return None if values is None else values[..., None]

        skewness, kurtosis = stretch(self.skewness), stretch(self.kurtosis)
        return NearlyNormal(self.mean[..., None], self.deviation[..., None], skewness, kurtosis)

    def density(self, nodes: np.ndarray, weights: np.ndarray) -> Float[Array, "*shape nodes"]:
        """Quadrature weights at `mean + deviation * nodes` from Gauss-Hermite ones."""
        found = jnp.broadcast_to(weights, (*self.mean.shape, len(weights)))
        if self.skewness is None or self.kurtosis is None:
            return found
        third, fourth = nodes**3 - 3 * nodes, nodes**4 - 6 * nodes**2 + 3
        skewness, kurtosis = self.skewness[..., None], self.kurtosis[..., None]
        return found * (1 + skewness / 6 * third + kurtosis / 24 * fourth)

    def ramp(self, power: int) -> Values:
        """``E[max(z, 0)^power]``; power 0 is the probability that z is positive."""
        return self._corrected(lambda n: _ramp(self.mean, self.deviation, power, n))

    def activation(self, name: str, power: int, threshold: jax.Array | float = 0.0) -> Values:
        """``E[f(z)^power]`` of an activation function.

        **Arguments:**

        - `threshold`: from where on `"sign"` is +1; between two points of a lattice.
        """
        return self._corrected(lambda n: self._activation(name, power, threshold, n))

    def slope(self, name: str, power: int, threshold: jax.Array | float = 0.0) -> Values:
        """``deviation * E[(f^power)'(z)]``, of a Gaussian."""
        return self._activation(name, power, threshold, 1)

    def _corrected(self, function: Callable[[int], jax.Array]) -> jax.Array:
        value = function(0)
        if self.skewness is None or self.kurtosis is None:
            return value
        return value + self.skewness / 6 * function(3) + self.kurtosis / 24 * function(4)

    def _activation(
        self, name: str, power: int, threshold: jax.Array | float, derivative: int
    ) -> jax.Array:
        mean, deviation = self.mean, self.deviation
        if name == "sign":
            if power % 2 == 0:
                return jnp.full_like(mean, float(derivative == 0))
            value = 2 * _ramp(mean - threshold, deviation, 0, derivative)
            return value - 1 if derivative == 0 else value
        if name == "relu":
            return _ramp(mean, deviation, power, derivative)
        if name == "hardtanh":
            return _hardtanh(mean, deviation, power, derivative)
        return _logistic(mean, deviation, _POLYNOMIALS[name](power), name, derivative)


def _step(u: jax.Array, derivative: int) -> jax.Array:
    """The derivatives of the normal distribution function."""
    if derivative == 0:
        return 0.5 * jax.lax.erfc(-math.sqrt(0.5) * u)
    hermite, before = jnp.ones_like(u), jnp.zeros_like(u)
    for n in range(derivative - 1):
        hermite, before = u * hermite - n * before, hermite
    return (-1) ** (derivative - 1) * hermite * jnp.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)


def _ramp(mean: jax.Array, deviation: jax.Array, power: int, derivative: int) -> jax.Array:
    """``s^n d^n/dm^n E[max(z, 0)^k]``."""
    u = mean / deviation
    if derivative > power:
        steep = deviation**power * _step(u, derivative - power)
        return math.factorial(power) * steep
    moments = [_step(u, 0)]
    density = deviation * _step(u, 1)
    for k in range(1, power - derivative + 1):
        variance = (k - 1) * deviation**2 * moments[-2] if k > 1 else density
        moments.append(mean * moments[-1] + variance)
    return math.perm(power, derivative) * deviation**derivative * moments[-1]


def _hardtanh(mean: jax.Array, deviation: jax.Array, power: int, derivative: int) -> jax.Array:
    """By symmetry from the negative side, where the ramps do not cancel."""
    value = jnp.full_like(mean, float((-1) ** power if derivative == 0 else 0))
    negative = -jnp.abs(mean)
    for k in range(1, power + 1):
        lower = (-1) ** (power - k) * _ramp(negative + 1, deviation, k, derivative)
        upper = _ramp(negative - 1, deviation, k, derivative)
        value = value + math.comb(power, k) * (lower - upper)
    return jnp.where(mean > 0, (-1) ** (power + derivative) * value, value)


def _logistic(
    mean: jax.Array, deviation: jax.Array, polynomial: np.ndarray, name: str, derivative: int
) -> jax.Array:
    """A polynomial in d/dm applied to E[sigmoid(z)] or E[tanh(z)].

    Powers reduce to derivatives: ``f^k = f^(k-1) - (f^(k-1))' / (k - 1)`` for the sigmoid and
    ``f^k = f^(k-2) - (f^(k-1))' / (k - 1)`` for tanh.
    """
    steepness = 2.0 if name == "tanh" else 1.0
    value = jnp.zeros_like(mean)
    for weight, inverse in _MIXTURE.tolist():
        width = jnp.sqrt((steepness * inverse) ** -2 + deviation**2)
        u = mean / width
        for n, coefficient in enumerate(polynomial.tolist()):
            if coefficient != 0:
                order = n + derivative
                scale = (deviation / width) ** derivative / width**n
                value = value + steepness * weight * coefficient * scale * _step(u, order)
    constant = 0.0
    if derivative == 0 and name == "tanh":
        # tanh(z) = 2 sigmoid(2 z) - 1, and constants go through the recursion by themselves.
        constant = -polynomial[0] + float(polynomial[0] == 0)
    return value + constant


def _sigmoid_polynomial(power: int) -> np.ndarray:
    """Coefficients of derivatives of sigmoid that make up sigmoid^power."""
    found = np.array([1.0])
    for k in range(2, power + 1):
        found = np.append(found, 0) - np.append(0, found) / (k - 1)
    return found


def _tanh_polynomial(power: int) -> np.ndarray:
    """Coefficients of derivatives of tanh that make up tanh^power (less 1 for even powers)."""
    before, found = np.zeros(1), np.array([1.0])
    for k in range(2, power + 1):
        following = -np.append(0, found) / (k - 1)
        following[: len(before)] += before
        before, found = found, following
    return found


_POLYNOMIALS = {"sigmoid": _sigmoid_polynomial, "tanh": _tanh_polynomial}
