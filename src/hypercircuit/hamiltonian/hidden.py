"""Networks with one hidden layer: Fourier sums of an output, each a product over hidden neurons.

One output, or the difference of two, is a sum over neurons h,

    o = sum_h factor_h * activation_h(scale * z_h) + bias + skip,

and a loss of it a sum  Re sum_k c_k exp(i nu_k o).  Every exponential is a product over neurons of
a function of z_h and of a few bits of the neuron's own (its choices and outgoing weights), and
the function of z_h is resolved by cardinal functions of the sum s_h of the inputs whose bits are 1
(`hidden_basis.py`):

    exp(i nu_k o) = prod_h [ sum_t exp(i nu_k factor_h a_ht) D_t(s_h) ] * exp(i nu_k (bias + skip)),

where a neuron's own choices set factor_h (its gate), the activation a_h and the encoding, by which
a_ht is the activation of s_ht.

A squared error takes the *jet* (1, u, u^2/2) of every summand u in place of the exponentials;
jets multiply like polynomials cut off after the second degree.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..bnn import Network
from ..data import Dataset
from .expansion import Expansion, FourierExtension, Lattice
from .hidden_basis import (
    MAX_PATTERN_SITES,
    ExtensionLevels,
    HiddenBasis,
    LatticeLevels,
    Neurons,
    Patterns,
    extension_levels,
    neurons_of,
)
from .hidden_heads import (
    DoesNotCompile,
    HeadSum,
    Reach,
    Summands,
    head_sum,
    jet_sum,
    reach_of,
    summands_of,
)
from .losses import Loss, SquaredError
from .terms import NoTerms, Terms

#: More frequencies of a pre-activation than this are not tried.
MAX_HIDDEN_TERMS = 128
#: Nor are grids finer than this.
_MAX_POINTS = 2**20
#: A bound above this says nothing about a loss of order one.
_USELESS = 1.0
#: Bounds on the second derivatives of activations between their kinks, and where these are; no
#: activation is steeper than 1.
_CURVATURES = {"relu": 0.0, "hardtanh": 0.0, "sigmoid": 0.0963, "tanh": 0.7699}
_KINKS = {"relu": (0.0,), "hardtanh": (-1.0, 1.0)}
#: Shares of the largest singular value under which others are dropped: for functions with kinks,
#: which leave large coefficients otherwise, and for smooth ones.
_KINKED_CUTOFF, _SMOOTH_CUTOFFS = 1e-2, (1e-4, 1e-7)


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenTerms(Terms):
    """The loss of a network with one hidden layer, head by head.

    A *head* is an output, or for losses of pairs the difference of two.

    **Attributes:**

    - `basis`, `neurons`: how pre-activations are resolved.
    - `summands`: what neurons and biases add to a head.
    - `heads`: (n_heads, 2) the outputs of each head, the second one subtracted; -1 for none.
    - `sum`: a head's loss.
    - `bound`: the certificate.
    """

    basis: HiddenBasis
    neurons: Neurons
    summands: Summands
    heads: Int[np.ndarray, "n_heads 2"]
    sum: HeadSum
    bound: float

    @property
    def error(self) -> float:
        return self.bound

    @property
    def paired(self) -> bool:
        """Whether heads are differences of two outputs."""
        return self.summands.paired

    def heads_of(
        self, y: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, "n each"], Int[np.ndarray, "n each"]]:
        """The heads that enter the loss of examples with these labels, and their targets."""
        n_heads = len(self.heads)
        if self.paired:
            first, second = self.heads.T
            mine = (first == y[:, None]) | (second == y[:, None])
            head = np.nonzero(mine)[1].reshape(len(y), -1)
            return head, (first[head] == y[:, None]).astype(np.int64)
        head = np.broadcast_to(np.arange(n_heads), (len(y), n_heads))
        return head, (y[:, None] == (np.arange(n_heads) if n_heads > 1 else 1)).astype(np.int64)

    def added(self, values: Any, xp: Any = np) -> Any:
        """What a neuron adds to a head, by the pattern of its own bits and by level.

        **Arguments:**

        - `values`: of `Cardinals`, (..., encodings, functions, levels), NumPy or JAX.

        **Returns:** (..., patterns, levels).
        """
        own = self.summands
        factor = xp.asarray(own.factor, values.dtype)[:, None]
        return factor * values[..., own.encoding, own.function, :]

    @property
    def mask(self) -> Float[np.ndarray, "patterns levels"] | None:
        """1 for the levels that resolve a pattern's encoding, 0 for others; None if all do."""
        belongs = self.basis.belongs(self.neurons)
        return None if belongs is None else belongs[self.summands.encoding]

    def turns(self, values: Any, xp: Any = np) -> tuple[Any, Any]:
        """What every pattern of a neuron's own bits makes of the levels: real and imaginary parts.

        **Arguments:**

        - `values`: as for `added`.

        **Returns:** two arrays (terms, ..., patterns, levels).
        """
        turned = self.sum.factors(self.added(values, xp), xp)
        if self.mask is None:
            return turned
        mask = xp.asarray(self.mask, values.dtype)
        return mask * turned[0], mask * turned[1]

    def describe(self) -> str:
        kind = "a jet" if self.sum.frequency is None else f"{self.sum.n_terms} frequencies"
        n_encodings = len(self.neurons.encodings)
        each = f" in {n_encodings} encodings" if n_encodings > 1 else ""
        return f"one hidden layer, {kind} of each output on {self.basis.describe()}{each}"


def hidden_terms(
    network: Network,
    data: Dataset,
    loss: Loss,
    tolerance: float,
    expansion: Expansion | None,
    separable: tuple[str, ...],
) -> Terms:
    """Expand a loss of a network with one hidden layer; see [`hypercircuit.compile_loss`][].

    **Arguments:**

    - `separable`: the names of the losses that compile, for refusals.
    """
    try:
        return _hidden_terms(network, data, loss, tolerance, expansion, separable)
    except DoesNotCompile as refusal:
        return NoTerms(str(refusal))


def _hidden_terms(
    network: Network,
    data: Dataset,
    loss: Loss,
    tolerance: float,
    expansion: Expansion | None,
    separable: tuple[str, ...],
) -> Terms:
    if network.order.startswith("class"):
        raise DoesNotCompile(
            f"order {network.order!r} scatters a hidden neuron's weights over the chain; exact is "
            "order 'neuron' or 'neuron-reversed'"
        )
    form = loss.form(network.n_outputs)
    if form == "joint":
        raise DoesNotCompile(
            f"the {loss.name} loss of {network.n_outputs} outputs does not separate over a shared "
            f"hidden layer; these losses do: {', '.join(separable)}"
        )
    names, encodings, summands, heads = summands_of(network, paired=form == "pairs")
    neurons = neurons_of(network, data, names, encodings)
    if isinstance(expansion, Lattice) and neurons.step is None:
        raise ValueError(
            "a lattice expansion needs inputs (and 1, with a bias) that are integer multiples of "
            f"data.step, got step={data.step}; quantise or binarise the data, or use "
            "FourierExtension()"
        )
    reach = reach_of(network, data, neurons, summands)
    basis = _exact_basis(neurons, data, network.layers[0].fan_in, expansion)
    if basis is None and "sign" in names:
        raise DoesNotCompile(
            "sign jumps, so on real-valued inputs no expansion of it has a useful error bound; "
            f"quantise or binarise the inputs, use at most {MAX_PATTERN_SITES} of them, or an "
            "energy that needs no expansion (Sampled(), Cumulant())"
        )
    n_heads = len(heads) if form == "outputs" else network.n_outputs - 1
    if form == "quadratic":
        assert isinstance(loss, SquaredError)
        n_heads = network.n_outputs
        total, error = jet_sum(loss, network.n_outputs), 0.0
    else:
        share = tolerance if basis is not None else 0.5 * tolerance
        total, error = head_sum(loss, reach, share, n_heads, expansion, small=basis is None)
    if basis is None:
        basis, more = _extension(neurons, summands, total, reach, network, tolerance, n_heads)
        error += more
    if error > _USELESS:
        raise DoesNotCompile(
            f"{MAX_HIDDEN_TERMS} frequencies of {', '.join(names)} of pre-activations up to "
            f"{neurons.scale * reach.half_range:.3g} leave an error bound of {error:.3g} "
            f"{loss.unit}; quantise or binarise the inputs, use at most {MAX_PATTERN_SITES} "
            "of them, or lower hidden_scale"
        )
    return HiddenTerms(basis, neurons, summands, heads, total, error)


def _exact_basis(
    neurons: Neurons, data: Dataset, fan_in: int, expansion: Expansion | None
) -> HiddenBasis | None:
    """The levels that are exact for any activation, if there are any."""
    if isinstance(expansion, FourierExtension):
        return None
    if isinstance(expansion, Lattice):
        return LatticeLevels()
    if neurons.step is not None:
        if fan_in > MAX_PATTERN_SITES:
            return LatticeLevels()
        largest = int(neurons.n_points(neurons.inputs(data, np.arange(len(data)))).max())
        return LatticeLevels() if largest < 2**fan_in else Patterns(fan_in)
    return Patterns(fan_in) if fan_in <= MAX_PATTERN_SITES else None


def _extension(
    neurons: Neurons,
    summands: Summands,
    total: HeadSum,
    reach: Reach,
    network: Network,
    tolerance: float,
    n_heads: int,
) -> tuple[HiddenBasis, float]:
    """The shortest extension of pre-activations whose error is within half of the tolerance.

    Functions with kinks converge slowly: the longest extension is taken then, with its error.
    """
    half = max(reach.half_range, 1e-3)
    n_hidden = network.layers[0].n_outputs
    kinked = any(name in _KINKS for name in neurons.names)
    share = 0.5 * tolerance / n_heads
    n_terms, best = 8, None
    while True:
        for cutoff in (_KINKED_CUTOFF,) if kinked else _SMOOTH_CUTOFFS:
            basis = extension_levels(half, n_terms, cutoff=cutoff)
            error = n_heads * _extension_error(
                basis, neurons, summands, total, half, n_hidden, reach, share
            )
            if best is None or error < best[1]:
                best = basis, error
        assert best is not None
        if best[1] <= 0.5 * tolerance or n_terms >= MAX_HIDDEN_TERMS:
            return best
        n_terms = min(math.ceil(1.5 * n_terms), MAX_HIDDEN_TERMS)


def _extension_error(
    basis: ExtensionLevels,
    neurons: Neurons,
    summands: Summands,
    total: HeadSum,
    half: float,
    n_hidden: int,
    reach: Reach,
    tolerance: float,
) -> float:
    """A bound on a head's error from the largest error of every neuron's factor.

    The factors' errors are measured on a grid that holds all kinks; between its points they grow
    by no more than the second derivatives of the sums and of the functions allow. Where the error
    may be within the tolerance the grid is chosen fine enough to show it.
    """
    functions, factors = _distinct(summands)
    at_levels = neurons.activate(basis.points)[functions] * factors[:, None]
    # (terms, patterns, levels) -> (levels, terms * patterns)
    real, imag = (
        basis.weights @ part.reshape(-1, len(basis.points)).T for part in total.factors(at_levels)
    )
    shape = (total.n_terms, len(factors))
    mu = basis.spacing * np.arange(len(basis.weights))[:, None]
    curvature = (mu**2 * (np.abs(real) + np.abs(imag))).sum(0).reshape(shape)
    curvature += _curvatures(neurons, total, functions, factors, np.abs(at_levels).max(1))
    kinks = [kink / neurons.scale for name in neurons.names for kink in _KINKS.get(name, ())]

    def differences(n_points: int) -> np.ndarray:
        grid = np.unique(np.concatenate([half * np.linspace(-1, 1, n_points), kinks]))
        largest = np.zeros(shape)
        for z in np.array_split(grid[np.abs(grid) <= half], -(-n_points // 4096)):
            exact = total.factors(neurons.activate(z)[functions] * factors[:, None])
            phase = np.outer(z, mu)
            cos, sin = np.cos(phase), np.sin(phase)
            found = np.hypot(
                cos @ real.real - sin @ real.imag - exact[0].reshape(-1, len(z)).T,
                cos @ imag.real - sin @ imag.imag - exact[1].reshape(-1, len(z)).T,
            )
            largest = np.maximum(largest, found.max(0).reshape(shape))
        return largest

    def bound(largest: np.ndarray, n_points: int) -> float:
        between = (2 * half / (n_points - 1)) ** 2 / 8 if n_points else 0.0
        errors = (largest + between * curvature).max(1)
        return _head_error(total, errors, np.abs(at_levels).max(), n_hidden, reach.added)

    n_points = 40 * len(basis.weights) + 1
    largest = differences(n_points)
    measured = bound(largest, 0)
    if measured > 0.9 * tolerance:
        return bound(largest, n_points)
    while bound(largest, n_points) > measured + 0.1 * tolerance and n_points < _MAX_POINTS:
        n_points *= 2
    return bound(differences(n_points), n_points)


def _head_error(
    total: HeadSum, errors: np.ndarray, largest: float, n_hidden: int, added: float
) -> float:
    """The error of a head's loss when every neuron's factors have `errors`, term by term."""
    weight = np.abs(total.coefficients).max(1)
    if total.frequency is not None:
        return float(weight @ np.expm1(n_hidden * np.log1p(errors)))
    sizes = np.array([1, largest, largest**2 / 2])
    wide = true = np.array([1, added, added**2 / 2])
    for _ in range(n_hidden):
        wide, true = _jet_product(wide, sizes + errors), _jet_product(true, sizes)
    return float(weight @ (wide - true))


def _curvatures(
    neurons: Neurons,
    total: HeadSum,
    functions: np.ndarray,
    factors: np.ndarray,
    largest: np.ndarray,
) -> np.ndarray:
    """Bounds on the second derivative in z of what summands turn into, (terms, patterns)."""
    slope = neurons.scale * np.abs(factors)
    bend = np.array([_CURVATURES[neurons.names[each]] for each in functions])
    bend = neurons.scale * slope * bend
    if total.frequency is None:
        return np.stack([0 * slope, bend, slope**2 + largest * bend])
    return (total.frequency[:, None] * slope) ** 2 + total.frequency[:, None] * bend


def _distinct(summands: Summands) -> tuple[np.ndarray, np.ndarray]:
    """The different functions that a neuron's patterns make of a pre-activation."""
    rows = np.unique(np.stack([summands.function, summands.factor], axis=1), axis=0)
    return rows[:, 0].astype(int), rows[:, 1]


def _jet_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.convolve(a, b)[:3]
