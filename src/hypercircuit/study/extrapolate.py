"""What an energy tends to where nothing is discarded: a line through energies of several bonds.

A state psi that is truncated to phi, with the part chi (orthogonal to phi) of squared norm w thrown
away, has the energy::

    <phi|C|phi> = <psi|C|psi> + w (<phi|C|phi> - <chi|C|chi>) - 2 sqrt(w (1 - w)) Re <phi|C|chi>

It is linear in w where the last term vanishes: where phi is an eigenstate of C, as one that has
converged to networks of one loss nearly is. In general the energy's error goes as sqrt(w), and a
line misses the limit. The last term is at most 2 sqrt(w) s, with s the standard deviation of the
loss over the networks of phi. The w that a run records is the sum over all its truncations.

Of the mean energies E_i at discarded weights w_i, one pair per bond dimension at equal depth, the
line E = E_0 + a w is fitted by weighted least squares::

    (E_0, a) = (X^T W X)^-1 X^T W E,    X = [1  w],  W = diag(1 / v_i)

* v_i is the square of the standard error s_i of E_i. Standard errors of a few runs are themselves
  uncertain, and weights must not follow the ones that are small by chance: from n_i runs,
  v_i = (4 u + (n_i - 1) n_i s_i^2) / (4 + n_i - 1) / n_i, where u is the mean of the n_i s_i^2.
* E_0 is a sum c_i E_i. Its variance is sum c_i^2 s_i^2 times max(1, chi^2 / (m - 2)), with chi^2
  the sum of squared residuals in units of s_i over the m points: scatter about the line beyond the
  errors widens the interval.
* The interval is that of Student's t with the degrees of freedom of Welch and Satterthwaite,
  (sum c_i^2 s_i^2)^2 / sum (c_i^4 s_i^4 / (n_i - 1)).
* Without standard errors all weights are equal, and the variance is that of the residuals, with
  m - 2 degrees of freedom: the interval is of the fit only, and nothing tests the line.

Conditions: the same problem and depth; states near eigenstates of C, s well below
sqrt(w) |<phi|C|phi> - <chi|C|chi>|; small discarded weights (`study.aggregate` takes those up to
0.1); runs that reach comparable optima at every bond dimension (what an optimiser misses does not
vanish with w); and errors of the w_i that are small beside their spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

_PRIOR_DEGREES = 4


@dataclass(frozen=True)
class Extrapolation:
    """An energy at discarded weight zero.

    **Attributes:**

    - `energy`, `error`: E_0 and its standard error, in the loss's unit per example.
    - `low`, `high`, `confidence`: its interval.
    - `slope`: a, in that unit per squared norm.
    - `chi_squared`: chi^2 / (m - 2), about 1 where a line fits; None without standard errors.
    - `n_points`: m.
    """

    energy: float
    error: float
    low: float
    high: float
    confidence: float
    slope: float
    chi_squared: float | None
    n_points: int


def extrapolate(
    discarded: Float[np.ndarray, " m"],
    energies: Float[np.ndarray, " m"],
    errors: Float[np.ndarray, " m"] | None = None,
    runs: Shaped[np.ndarray, " m"] | None = None,
    *,
    confidence: float = 0.95,
) -> Extrapolation:
    """The energy at discarded weight zero, from three or more different discarded weights.

    **Arguments:**

    - `discarded`: w_i, squared norms, at least 0.
    - `energies`: E_i, in the loss's unit per example.
    - `errors`: their standard errors, above 0; None takes the scatter about the line.
    - `runs`: from how many runs each standard error comes, at least 2; None if they are known well.
    - `confidence`: of the interval, between 0 and 1.

    **Raises:** `ValueError` for fewer than three different discarded weights, a value that is not
    finite, or an argument out of range.
    """
    w, e = np.asarray(discarded, float), np.asarray(energies, float)
    if len(np.unique(w)) < 3:
        raise ValueError(
            f"an extrapolation needs three different discarded weights, got {w.tolist()}; run more "
            "bond dimensions"
        )
    if not (np.isfinite(w).all() and np.isfinite(e).all() and (w >= 0).all()):
        raise ValueError(
            f"discarded weights and energies must be finite, weights at least 0, got {w.tolist()} "
            f"and {e.tolist()}; leave the others out"
        )
    if errors is not None and not (np.asarray(errors) > 0).all():
        raise ValueError(f"errors must be above 0, got {list(errors)}; leave all of them out")
    if runs is not None and (errors is None or not (np.asarray(runs) >= 2).all()):
        raise ValueError(f"runs must be at least 2 with errors, got {list(runs)}; leave them out")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; usual is 0.95")
    m = len(w)
    design = np.stack([np.ones(m), w], 1)
    weights = np.ones(m) if errors is None else 1 / _shrunk(np.asarray(errors), runs)
    coefficients = np.linalg.pinv(np.sqrt(weights)[:, None] * design) * np.sqrt(weights)
    line = coefficients @ e
    residuals = e - design @ line
    c = coefficients[0]
    if errors is None:
        chi_squared = None
        variance = float(residuals @ residuals) / (m - 2) * float(c @ c)
        degrees = float(m - 2)
    else:
        s2 = np.asarray(errors) ** 2
        chi_squared = float(np.sum(residuals**2 / s2)) / (m - 2)
        variance = float(np.sum(c**2 * s2))
        degrees = np.inf
        if runs is not None:
            degrees = variance**2 / float(np.sum(c**4 * s2**2 / (np.asarray(runs) - 1)))
        variance *= max(1.0, chi_squared)
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf(0.5 + confidence / 2, degrees)) * error
    energy = float(line[0])
    return Extrapolation(
        energy, error, energy - reach, energy + reach, confidence, float(line[1]), chi_squared, m
    )


def _shrunk(
    errors: Float[np.ndarray, " m"], runs: Shaped[np.ndarray, " m"] | None
) -> Float[np.ndarray, " m"]:
    """The variances v_i that the weights are made of."""
    if runs is None:
        return errors**2
    n = np.asarray(runs, float)
    single = n * errors**2
    return (_PRIOR_DEGREES * single.mean() + (n - 1) * single) / (_PRIOR_DEGREES + n - 1) / n
