"""Linear networks: every logit is one linear form, and a loss becomes Fourier sums of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from ..bnn import Network
from ..data import Dataset
from .expansion import Expansion, FourierExtension, Lattice
from .losses import Loss, OutputLoss, PairwiseLogistic, Softmax, ZeroOne
from .spectral import (
    FourierSum,
    FrullaniIntegrand,
    Integrand,
    PointwiseIntegrand,
    fit_extension,
    fourier_extension,
    lattice_sum,
)
from .terms import CHUNK, FourierTerms

#: More frequencies than this are not tried.
MAX_TERMS = 1024
#: Values of a logit beyond which the zero-one loss of several outputs is refused.
MAX_RANKS = 4096
_LATTICE_TOLERANCE = 2e-10


def linear_terms(
    network: Network, data: Dataset, loss: Loss, tolerance: float, expansion: Expansion | None
) -> FourierTerms:
    """Expand a loss of a linear network; see [`hypercircuit.compile_loss`][]."""
    ranges = _reachable(network, data)
    if isinstance(loss, PairwiseLogistic):
        # Of the difference of two logits, which have the same range.
        ranges = _Ranges(np.zeros_like(ranges.middle), 2 * ranges.half, -2 * ranges.half)
    lattice = _lattice(network, data, ranges)
    if lattice is None and isinstance(expansion, Lattice):
        raise ValueError(
            "a lattice expansion needs inputs (and 1, with a bias) that are integer multiples of "
            f"data.step, got step={data.step}; quantise or binarise the data, or use "
            "FourierExtension()"
        )
    jumps = isinstance(loss, ZeroOne)
    if jumps and (lattice is None or isinstance(expansion, FourierExtension)):
        raise ValueError(
            "the zero-one loss jumps, so it needs a lattice: quantise or binarise the data "
            f"(got step={data.step}), or use a smooth loss such as Logistic()"
        )
    if isinstance(expansion, FourierExtension):
        lattice = None
    if lattice is not None and expansion is None and not jumps:
        half = ranges.half + (0 if isinstance(loss, Softmax) else np.abs(ranges.middle))
        extended = _n_terms_guess(half, _integrand(network, loss, ranges, tolerance), tolerance)
        if np.mean(_round_up((lattice + 1) // 2)) > 2 * extended:
            lattice = None
    if lattice is not None and jumps and network.n_outputs > 1:
        return _rank_spectrum(network, data, ranges, lattice)
    if lattice is not None:
        return _lattice_spectrum(network, data, loss, ranges, lattice)
    return _extension_spectrum(network, loss, ranges, tolerance)


def exact_inputs(data: Dataset, examples: np.ndarray) -> np.ndarray:
    """Inputs in float64, free of the float32 rounding of multiples of a step."""
    x = data.x[examples].astype(np.float64)
    if data.step is None:
        return x
    per_unit = round(1 / data.step)
    if abs(data.step * per_unit - 1) < 1e-6:
        return np.rint(x * per_unit) / per_unit
    return np.rint(x / data.step) * data.step


@dataclasses.dataclass(frozen=True)
class _Ranges:
    """The logits an example can reach: `middle` +- `half`, from weights of either bit."""

    middle: Float[np.ndarray, " n_examples"]
    half: Float[np.ndarray, " n_examples"]
    lowest: Float[np.ndarray, " n_examples"]


def _reachable(network: Network, data: Dataset) -> _Ranges:
    encoding, bias = network.layers[0].encoding, float(network.layers[0].bias)
    rows = np.array_split(np.arange(len(data)), -(-len(data) // 4096))
    sums = [(x.sum(1), np.abs(x).sum(1)) for x in (exact_inputs(data, part) for part in rows)]
    total = np.concatenate([each for each, _ in sums]) + bias
    absolute = np.concatenate([each for _, each in sums]) + bias
    middle = network.logit_scale * encoding.middle * total
    half = network.logit_scale * abs(encoding.step) / 2 * absolute
    return _Ranges(middle, half, middle - half)


def _lattice(network: Network, data: Dataset, ranges: _Ranges) -> np.ndarray | None:
    """How many equally spaced values each example's logit takes, or None without a lattice."""
    if data.step is None:
        return None
    if network.layers[0].bias and abs(1 / data.step - round(1 / data.step)) > 1e-6:
        return None
    spacing = network.logit_scale * abs(network.layers[0].encoding.step) * data.step
    return np.rint(2 * ranges.half / spacing).astype(np.int64) + 1


def _round_up(n_terms: np.ndarray) -> np.ndarray:
    return np.maximum(-(-n_terms // CHUNK) * CHUNK, CHUNK)


def _n_terms_guess(half: float | np.ndarray, integrand: Integrand, tolerance: float) -> int:
    """About how many frequencies a Fourier extension needs, from the decay of the spectrum."""
    highest = integrand.highest_frequency(tolerance)
    n_terms = np.ceil((np.atleast_1d(half) + 3) * highest / math.pi).astype(np.int64)
    return round(float(np.mean(_round_up(n_terms))))


def _lattice_spectrum(
    network: Network, data: Dataset, loss: Loss, ranges: _Ranges, n_points: np.ndarray
) -> FourierTerms:
    assert data.step is not None
    spacing = network.logit_scale * abs(network.layers[0].encoding.step) * data.step
    centred = isinstance(loss, Softmax)
    starts = -ranges.half if centred else ranges.lowest
    integrand = _integrand(network, loss, ranges, _LATTICE_TOLERANCE)
    keys = np.stack([n_points, np.rint(starts / spacing * 2**20).astype(np.int64)], axis=1)
    _, first, table = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    n_terms = _round_up((n_points + 2) // 2)
    tables = tuple(
        lattice_sum(
            integrand,
            float(starts[i]),
            spacing,
            int(n_points[i]),
            int(n_terms[i]),
        )
        for i in first
    )
    integral = integrand if isinstance(integrand, FrullaniIntegrand) else None
    shift = ranges.middle if centred else np.zeros_like(ranges.middle)
    return FourierTerms(tables, table.reshape(-1), ranges.lowest, shift, "lattice", integral)


def _rank_spectrum(
    network: Network, data: Dataset, ranges: _Ranges, n_points: np.ndarray
) -> FourierTerms:
    """Of every lattice point t, counted from an example's lowest: is z there, is z below."""
    assert data.step is not None
    spacing = network.logit_scale * abs(network.layers[0].encoding.step) * data.step
    n_ranks = int(n_points.max())
    if n_ranks > MAX_RANKS:
        raise ValueError(
            f"the zero-one loss of {network.n_outputs} outputs needs at most {MAX_RANKS} values "
            f"per logit, the data give {n_ranks}; use fewer pixel levels or a smooth loss"
        )
    tables = []
    sizes, table = np.unique(_round_up((n_points + 2) // 2), return_inverse=True)
    for n_terms in sizes.tolist():
        period = 2 * n_terms - 1
        point, rank = np.arange(period)[:, None], np.arange(n_ranks)
        values = np.concatenate([point == rank, point < rank], axis=1).astype(float)
        coefficients = np.fft.rfft(values, axis=0) / period
        coefficients[1:] *= 2
        rounding = 4e-16 * math.log2(period) * n_ranks * network.n_outputs
        tables.append(FourierSum(2 * math.pi / (period * spacing), coefficients, rounding))
    zero = np.zeros_like(ranges.middle)
    lowest = ranges.lowest
    return FourierTerms(tuple(tables), table, lowest, zero, "lattice", ranks=n_ranks)


def _extension_spectrum(
    network: Network, loss: Loss, ranges: _Ranges, tolerance: float
) -> FourierTerms:
    centred = isinstance(loss, Softmax)
    half = ranges.half if centred else ranges.half + np.abs(ranges.middle)
    half = np.maximum(half, 1e-3)
    # A tenth of the tolerance for the softmax integral, the rest for the sums.
    integrand = _integrand(network, loss, ranges, 0.1 * tolerance)
    tables: list[FourierSum] = []
    limits: list[float] = []
    n_terms = CHUNK
    most_terms = min(4 * _n_terms_guess(float(half.max()), integrand, tolerance), MAX_TERMS)
    while not limits or limits[-1] < half.max():
        table, limit = _widest_table(
            integrand, n_terms, 0.9 * tolerance, float(half.max()), limits[-1] if limits else 0.0
        )
        if table is not None:
            tables.append(table)
            limits.append(limit)
        n_terms += CHUNK
        if n_terms > most_terms:
            raise ValueError(
                f"tolerance {tolerance} needs more than {most_terms} frequencies for logits up to "
                f"{half.max():.3g}; raise the tolerance, lower logit_scale, or quantise the inputs"
            )
    table_index = np.searchsorted(np.array(limits), half)
    origin = ranges.middle if centred else np.zeros_like(half)
    integral = integrand if isinstance(integrand, FrullaniIntegrand) else None
    return FourierTerms(tuple(tables), table_index, origin, origin, "extension", integral)


def _widest_table(
    integrand: Integrand, n_terms: int, tolerance: float, widest: float, narrowest: float
) -> tuple[FourierSum | None, float]:
    """The sum of `n_terms` on the widest interval on which it keeps the tolerance."""
    cutoff = max(1e-3 * tolerance, 1e-14)
    low, high = narrowest, widest
    for _ in range(6):
        # Each further group of frequencies widens the interval by about this much.
        step = 2 * CHUNK / 3 if low == narrowest else (high - low) / 2
        trial = min(low + step, high) if high == widest else (low + high) / 2
        table = fit_extension(integrand, trial, n_terms, cutoff=cutoff)
        if table.error <= 0.7 * tolerance:
            low = trial
        else:
            high = trial
        if high - low <= 0.05 * high:
            break
    if low <= narrowest:
        return None, low
    table = fourier_extension(integrand, low, n_terms, cutoff=cutoff, slack=0.1 * tolerance)
    return (table, low) if table.error <= tolerance else (None, narrowest)


def _integrand(network: Network, loss: Loss, ranges: _Ranges, tolerance: float) -> Integrand:
    if isinstance(loss, Softmax):
        return FrullaniIntegrand(max(float(ranges.half.max()), 1e-3), network.n_outputs, tolerance)
    if isinstance(loss, PairwiseLogistic):
        return PointwiseIntegrand(loss.pointwise, 0.25, None, network.n_outputs - 1)
    if isinstance(loss, OutputLoss):
        return PointwiseIntegrand(loss.pointwise, loss.curvature, loss.slope, network.n_outputs)
    assert isinstance(loss, ZeroOne)
    return PointwiseIntegrand(loss.pointwise, None, None)
