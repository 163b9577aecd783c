"""How a hidden neuron's pre-activation z is resolved: cardinal functions on a few levels.

Incoming bits enter through one sum s, and their encoding makes z of it,

    s = sum_j x_j bit_j,      z = low * sum_j x_j + (high - low) * s.

Any function g of one neuron's pre-activation is written as

    g(z) = sum_t g(z_t) D_t(s),      D_t(s) = Re sum_m W_mt exp(i mu_m (s - origin)),

and every exponential is a product over the neuron's incoming weights. Where neurons choose their
encoding, only the values g(z_t) depend on the setting.

* On a *lattice* (inputs that are multiples of a step) D_t is the indicator of the t-th value: exact
  for any activation. Values with equal activations in every encoding share a level: two are left
  of them for sign in one encoding, at most one more for each further encoding.
* With few incoming weights the levels are the *patterns* of their bits: exact for any inputs.
* Otherwise D_t comes from least squares on an interval of z (a Fourier *extension*), once for every
  encoding; its error depends on g and is bounded in `hidden.py`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int

from ..bnn import ACTIVATIONS, Encoding, Network
from ..data import Dataset
from .linear import exact_inputs

#: Up to this many incoming weights, biases included, all their patterns are tabulated.
MAX_PATTERN_SITES = 10


class Cardinals(NamedTuple):
    """The levels of some examples and how incoming weights lead to them.

    **Attributes:**

    - `frequency`: angle per unit input of an incoming bit that is 1 instead of 0, or None if the
      levels are the patterns of the incoming bits, the first one most significant.
    - `coefficients`: W, with the phases of all-zero bits and of the origin.
    - `values`: every activation function on every level, in every encoding.
    """

    frequency: Float[np.ndarray, "n terms"] | None
    coefficients: Complex[np.ndarray, "n terms levels"] | None
    values: Float[np.ndarray, "n encodings functions levels"]


@dataclasses.dataclass(frozen=True)
class Neurons:
    """What the hidden neurons of a network have in common.

    **Attributes:**

    - `encodings`: of incoming weights and biases that occur.
    - `bias`: whether the last incoming weight is a bias.
    - `scale`: the network's hidden scale.
    - `names`: the activation functions that occur.
    - `step`: the lattice of inputs and bias, or None.
    """

    encodings: tuple[Encoding, ...]
    bias: bool
    scale: float
    names: tuple[str, ...]
    step: float | None

    def inputs(
        self, data: Dataset, examples: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n fan_in"]:
        """What the incoming weights multiply, in float64."""
        x = exact_inputs(data, examples)
        return np.concatenate([x, np.ones((len(x), 1))], axis=1) if self.bias else x

    def activate(self, z: np.ndarray) -> np.ndarray:
        """Every function on pre-activations `z`; what is zero but for rounding counts as zero."""
        z = np.where(np.abs(z) < 1e-9 * (self.step or 1e-3), 0.0, z)
        return np.stack([ACTIVATIONS[name](self.scale * z) for name in self.names])

    def encoded(self, total: np.ndarray | int, sums: np.ndarray) -> np.ndarray:
        """What each encoding makes of all inputs' `total` and the `sums` of those with a bit 1.

        **Returns:** (encodings, ...), the other axes those of `sums`.
        """
        return np.stack([each.low * total + each.step * sums for each in self.encodings])

    def reach(
        self, inputs: Float[np.ndarray, "n fan_in"]
    ) -> tuple[Float[np.ndarray, "encodings n"], Float[np.ndarray, "encodings n"]]:
        """The least and the largest pre-activation of every example."""
        ends = np.stack([np.minimum(inputs, 0).sum(1), np.maximum(inputs, 0).sum(1)])
        z = self.encoded(inputs.sum(1), ends)
        return z.min(1), z.max(1)

    def n_points(self, inputs: Float[np.ndarray, "n fan_in"]) -> Int[np.ndarray, " n"]:
        """How many equally spaced values the pre-activation takes."""
        assert self.step is not None
        total = np.rint(np.abs(inputs) / self.step).sum(1)
        return total.astype(np.int64) + 1


def neurons_of(
    network: Network, data: Dataset, names: tuple[str, ...], encodings: tuple[Encoding, ...]
) -> Neurons:
    """Read the description off a network."""
    dense = network.layers[0]
    step = data.step
    if step is not None and dense.bias and abs(1 / step - round(1 / step)) > 1e-6:
        step = None
    return Neurons(encodings, dense.bias, network.hidden_scale, names, step)


class HiddenBasis(abc.ABC):
    """A way to resolve pre-activations.

    **Attributes:**

    - `exact`: whether it is for any activation; the levels' probabilities add up to one then.
    """

    exact: ClassVar[bool] = True

    @abc.abstractmethod
    def n_terms(
        self, neurons: Neurons, inputs: Float[np.ndarray, "n fan_in"]
    ) -> Int[np.ndarray, " n"]:
        """How many frequencies each example takes at least; zero if there are none."""

    @abc.abstractmethod
    def cardinals(
        self,
        neurons: Neurons,
        inputs: Float[np.ndarray, "n fan_in"],
        n_terms: Int[np.ndarray, " n"],
    ) -> Cardinals:
        """The levels of some examples; what is beyond an example's `n_terms` is zero."""

    @abc.abstractmethod
    def n_levels(self, neurons: Neurons, inputs: Float[np.ndarray, "n fan_in"]) -> int:
        """The largest number of levels of these examples."""

    def belongs(self, neurons: Neurons) -> Float[np.ndarray, "encodings levels"] | None:
        """1 for the levels that resolve an encoding and 0 for others; None if all always do."""
        return None

    @abc.abstractmethod
    def describe(self) -> str:
        """The kind and the size in a few words."""


@dataclasses.dataclass(frozen=True)
class Patterns(HiddenBasis):
    """One level for every pattern of the bits of `fan_in` incoming weights."""

    fan_in: int

    def n_terms(self, neurons: Neurons, inputs: np.ndarray) -> np.ndarray:
        return np.zeros(len(inputs), np.int64)

    def n_levels(self, neurons: Neurons, inputs: np.ndarray) -> int:
        return 2**self.fan_in

    def cardinals(self, neurons: Neurons, inputs: np.ndarray, n_terms: np.ndarray) -> Cardinals:
        # Whole numbers are added before they are multiplied: ties stay ties.
        unit = neurons.step or 1.0
        counts = inputs if neurons.step is None else np.rint(inputs / unit)
        sums = counts @ bit_patterns(self.fan_in).T
        values = neurons.activate(unit * neurons.encoded(counts.sum(1, keepdims=True), sums))
        return Cardinals(None, None, values.transpose(2, 1, 0, 3))

    def describe(self) -> str:
        return f"{2**self.fan_in} patterns of a neuron's weights"


@dataclasses.dataclass(frozen=True)
class LatticeLevels(HiddenBasis):
    """The values of every example's own lattice, those with equal activations in one level."""

    def n_terms(self, neurons: Neurons, inputs: np.ndarray) -> np.ndarray:
        return (neurons.n_points(inputs) + 2) // 2

    def n_levels(self, neurons: Neurons, inputs: np.ndarray) -> int:
        keys = {(points, total) for points, total in self._keys(neurons, inputs)}
        return max(_lattice_levels(neurons, *key)[0].shape[-1] for key in keys)

    @staticmethod
    def _keys(neurons: Neurons, inputs: np.ndarray) -> list[tuple[int, int]]:
        """An example's number of points, and its least sum in steps."""
        assert neurons.step is not None
        least = np.minimum(np.rint(inputs / neurons.step), 0).sum(1).astype(np.int64)
        return list(zip(neurons.n_points(inputs).tolist(), least.tolist(), strict=True))

    def cardinals(self, neurons: Neurons, inputs: np.ndarray, n_terms: np.ndarray) -> Cardinals:
        assert neurons.step is not None
        parts = []
        for (points, least), terms in zip(self._keys(neurons, inputs), n_terms, strict=True):
            values, level = _lattice_levels(neurons, points, least)
            parts.append((_lattice_weights(points, int(terms), level), values))
        widest = max(values.shape[-1] for _, values in parts)
        most = int(n_terms.max())
        coefficients = np.zeros((len(parts), most, widest), complex)
        levels = np.zeros((len(parts), len(neurons.encodings), len(neurons.names), widest))
        for i, (weights, values) in enumerate(parts):
            coefficients[i, : len(weights), : weights.shape[1]] = weights
            levels[i, ..., : values.shape[-1]] = values
        frequency = 2 * np.pi / ((2 * n_terms - 1) * neurons.step)[:, None] * np.arange(most)
        frequency *= np.arange(most) < n_terms[:, None]
        # The phases of all-zero bits, counted from the lowest sum.
        angle = -frequency * np.minimum(inputs, 0).sum(1)[:, None]
        return Cardinals(frequency, coefficients * np.exp(1j * angle)[:, :, None], levels)

    def describe(self) -> str:
        return "the lattice of pre-activations"


@functools.lru_cache(maxsize=65536)
def _lattice_levels(
    neurons: Neurons, n_points: int, least: int
) -> tuple[Float[np.ndarray, "encodings functions levels"], Int[np.ndarray, " n_points"]]:
    """The distinct activations on a lattice, and which of them each point has."""
    assert neurons.step is not None
    total = n_points - 1 + 2 * least
    z = neurons.step * neurons.encoded(total, least + np.arange(n_points))
    values = np.swapaxes(neurons.activate(z), 0, 1)
    # Activations are monotonic, so equal ones are neighbours.
    new = np.abs(np.diff(values)).max((0, 1)) > 1e-12
    level = np.concatenate([[0], np.cumsum(new)])
    return values[..., np.concatenate([[True], new])], level


@functools.lru_cache(maxsize=1024)
def _lattice_weights_of(
    n_points: int, n_terms: int, level: bytes
) -> Complex[np.ndarray, "terms levels"]:
    period = 2 * n_terms - 1
    of_point = np.frombuffer(level, np.int64)
    phase = np.outer(np.arange(n_terms), np.arange(n_points))
    weights = np.exp(-2j * np.pi / period * (phase % period)) / period
    weights[1:] *= 2
    first = np.flatnonzero(np.diff(of_point, prepend=-1))
    return np.add.reduceat(weights, first, axis=1)


def _lattice_weights(
    n_points: int, n_terms: int, level: Int[np.ndarray, " n_points"]
) -> Complex[np.ndarray, "terms levels"]:
    return _lattice_weights_of(n_points, n_terms, level.astype(np.int64).tobytes())


@dataclasses.dataclass(frozen=True, eq=False)
class ExtensionLevels(HiddenBasis):
    """Least squares on [-half_range, half_range], one for all examples and encodings.

    Frequencies and levels are those of the first encoding, then of the second, and so on.

    **Attributes:**

    - `spacing`: of the frequencies, in radians per unit of pre-activation.
    - `points`: the levels.
    - `weights`: W.
    """

    exact: ClassVar[bool] = False

    spacing: float
    points: Float[np.ndarray, " levels"]
    weights: Complex[np.ndarray, "terms levels"]

    def n_terms(self, neurons: Neurons, inputs: np.ndarray) -> np.ndarray:
        return np.full(len(inputs), len(neurons.encodings) * len(self.weights))

    def n_levels(self, neurons: Neurons, inputs: np.ndarray) -> int:
        return len(neurons.encodings) * len(self.points)

    def cardinals(self, neurons: Neurons, inputs: np.ndarray, n_terms: np.ndarray) -> Cardinals:
        n, most, n_encodings = len(inputs), int(n_terms.max()), len(neurons.encodings)
        each_terms, each_levels = self.weights.shape
        frequency = np.zeros((n, most))
        coefficients = np.zeros((n, most, n_encodings * each_levels), complex)
        mu = self.spacing * np.arange(each_terms)
        for number, encoding in enumerate(neurons.encodings):
            terms = slice(number * each_terms, (number + 1) * each_terms)
            levels = slice(number * each_levels, (number + 1) * each_levels)
            frequency[:, terms] = encoding.step * mu
            turn = np.exp(1j * np.outer(encoding.low * inputs.sum(1), mu))
            coefficients[:, terms, levels] = turn[:, :, None] * self.weights
        values = np.tile(neurons.activate(self.points), n_encodings)
        values = np.broadcast_to(values, (n, n_encodings, *values.shape))
        return Cardinals(frequency, coefficients, values)

    def belongs(self, neurons: Neurons) -> np.ndarray | None:
        n_encodings = len(neurons.encodings)
        return np.repeat(np.eye(n_encodings), len(self.points), 1) if n_encodings > 1 else None

    def describe(self) -> str:
        return f"a Fourier extension of {len(self.weights)} frequencies"


def extension_levels(half_range: float, n_terms: int, *, cutoff: float) -> ExtensionLevels:
    """The least-squares operator of `n_terms` frequencies, as cardinal functions.

    **Arguments:**

    - `cutoff`: singular values under this share of the largest are dropped.
    """
    points = half_range * np.sin(np.pi / 2 * np.linspace(-1, 1, 4 * n_terms + 1))
    spacing = math.pi / (1.3 * half_range)
    phase = np.outer(points, spacing * np.arange(n_terms))
    design = np.concatenate([np.cos(phase), -np.sin(phase[:, 1:])], axis=1)
    inverse = np.linalg.pinv(design, rcond=cutoff)
    weights = inverse[:n_terms].astype(complex)
    weights[1:] += 1j * inverse[n_terms:]
    return ExtensionLevels(spacing, points, weights)


def bit_patterns(n_bits: int) -> Int[np.ndarray, "patterns n_bits"]:
    """All patterns of `n_bits` bits, the first one most significant."""
    return np.arange(2**n_bits)[:, None] >> np.arange(n_bits)[::-1] & 1
