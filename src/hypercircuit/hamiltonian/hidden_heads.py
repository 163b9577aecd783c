"""The heads of a network with one hidden layer: what adds up to them, and their loss's expansion.

A *head* is an output, or for losses of pairs the difference of two. It is a sum over hidden
neurons and biases (and skip connections), and its loss a Fourier sum of it, or for the squared
error a polynomial of second degree.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int

from ..bnn import Encoding, Network
from ..data import Dataset
from .expansion import Expansion, FourierExtension
from .hidden_basis import Neurons, bit_patterns
from .losses import Logistic, Loss, OutputLoss, SquaredError, ZeroOne
from .spectral import FourierSum, PointwiseIntegrand, fit_extension, fourier_extension, lattice_sum

#: More frequencies of a head than this are not tried.
MAX_OUTPUT_TERMS = 768


class DoesNotCompile(Exception):
    """Why a loss has no terms."""


@dataclasses.dataclass(frozen=True, eq=False)
class Summands:
    """What one hidden neuron and the output biases add to a head, by their own bits' patterns.

    **Attributes:**

    - `bits`: the patterns of a neuron's choices, then of its weights to the head's outputs.
    - `function`, `encoding`: the numbers of every pattern's activation function and of the
      encoding of its incoming weights.
    - `factor`: what the pattern multiplies the activation with.
    - `bias_bits`, `bias`: the patterns of the head's output biases, and what they add.
    - `skip_factor`: what a skip weight's value is multiplied with.
    - `n_outgoing`: the outputs that a head is made of, 1 or 2.
    """

    bits: Int[np.ndarray, "patterns n_bits"]
    function: Int[np.ndarray, " patterns"]
    encoding: Int[np.ndarray, " patterns"]
    factor: Float[np.ndarray, " patterns"]
    bias_bits: Int[np.ndarray, "bias_patterns n_bias_bits"]
    bias: Float[np.ndarray, " bias_patterns"]
    skip_factor: float
    n_outgoing: int

    @property
    def paired(self) -> bool:
        """Whether heads are differences of two outputs."""
        return self.n_outgoing == 2


@dataclasses.dataclass(frozen=True, eq=False)
class HeadSum:
    """The loss of one head as a linear function of exponentials, or of a jet.

    **Attributes:**

    - `frequency`: radians per unit of the head's value; None for the jet (1, u, u^2/2).
    - `coefficients`: per frequency (or degree) and target.
    """

    frequency: Float[np.ndarray, " terms"] | None
    coefficients: Complex[np.ndarray, "terms 2"]

    @property
    def n_terms(self) -> int:
        return len(self.coefficients)

    def factors(self, values: Any, xp: Any = np) -> tuple[Any, Any]:
        """The real and imaginary parts of what summands turn into, terms first."""
        if self.frequency is None:
            real = xp.stack([xp.ones_like(values), values, values**2 / 2])
            return real, xp.zeros_like(real)
        angle = xp.asarray(self.frequency, values.dtype).reshape(-1, *[1] * values.ndim) * values
        return xp.cos(angle), xp.sin(angle)


def summands_of(
    network: Network, *, paired: bool
) -> tuple[tuple[str, ...], tuple[Encoding, ...], Summands, np.ndarray]:
    """Activation functions, encodings of incoming weights, what neurons add to a head, heads."""
    n_outputs = network.n_outputs
    pairs = list(itertools.combinations(range(n_outputs), 2))
    heads = np.array(pairs if paired else [(c, -1) for c in range(n_outputs)])
    settings = network.neuron_settings(0)
    n_choice_bits = (len(settings) - 1).bit_length()
    encoding, scale = network.layers[1].encoding, network.logit_scale
    signs = np.array([1.0, -1.0] if paired else [1.0])
    bits = bit_patterns(n_choice_bits + len(signs))
    code = np.repeat(np.arange(len(settings)), 2 ** len(signs))
    names = tuple(dict.fromkeys(each.activation for each in settings))
    encodings = tuple(dict.fromkeys(each.encoding for each in settings))
    gate = np.array([float(each.gate) for each in settings])[code]
    outgoing = encoding.low + encoding.step * bits[:, n_choice_bits:]
    bias_bits = bit_patterns(len(signs) if network.layers[1].bias else 0)
    bias = (encoding.low + encoding.step * bias_bits) @ signs[: bias_bits.shape[1]]
    summands = Summands(
        bits,
        np.array([names.index(each.activation) for each in settings])[code],
        np.array([encodings.index(each.encoding) for each in settings])[code],
        scale * gate * (outgoing @ signs),
        bias_bits,
        scale * bias,
        scale,
        len(signs),
    )
    return names, encodings, summands, heads


@dataclasses.dataclass(frozen=True)
class Reach:
    """What a head can reach over all examples and networks.

    **Attributes:**

    - `lowest`, `highest`: its values' range.
    - `step`: of the lattice on which all values lie, or None.
    - `half_range`: the largest absolute pre-activation, before the hidden scale.
    - `added`: the largest absolute value of biases and skip connections together.
    """

    lowest: float
    highest: float
    step: float | None
    half_range: float
    added: float


def reach_of(network: Network, data: Dataset, neurons: Neurons, summands: Summands) -> Reach:
    """Go through all examples."""
    encoding, scale = network.layers[1].encoding, network.logit_scale
    z_low = z_high = np.zeros(len(neurons.encodings))
    skip_low = skip_high = 0.0
    for part in np.array_split(np.arange(len(data)), -(-len(data) // 4096)):
        inputs = neurons.inputs(data, part)
        low, high = neurons.reach(inputs)
        z_low, z_high = np.minimum(z_low, low.min(1)), np.maximum(z_high, high.max(1))
        if network.skip:
            x = inputs[:, : network.n_inputs]
            both = scale * np.stack([encoding.low * x, encoding.high * x])
            skip_low = min(skip_low, float(both.min(0).sum(1).min()))
            skip_high = max(skip_high, float(both.max(0).sum(1).max()))
    if summands.paired:
        skip_low, skip_high = skip_low - skip_high, skip_high - skip_low
    added_low = float(summands.bias.min()) + skip_low
    added_high = float(summands.bias.max()) + skip_high
    # Activations rise monotonically, so the ends of the range are reached at its ends.
    ends = neurons.activate(np.stack([z_low, z_high], axis=1))
    ends = ends[summands.function, summands.encoding] * summands.factor[:, None]
    n_hidden = network.layers[0].n_outputs
    lowest = n_hidden * float(ends.min()) + added_low
    highest = n_hidden * float(ends.max()) + added_high
    step = _head_lattice(network, neurons, summands)
    if step is not None and (highest - lowest) / step > 2 * MAX_OUTPUT_TERMS:
        step = None
    half_range = float(np.maximum(-z_low, z_high).max())
    return Reach(lowest, highest, step, half_range, max(abs(added_low), abs(added_high)))


def _head_lattice(network: Network, neurons: Neurons, summands: Summands) -> float | None:
    """The step of the lattice on which a head's values lie, from what generates them."""
    units: list[float | None] = [None] * len(neurons.encodings)
    if neurons.step is not None:
        both = np.array([[each.low, each.high] for each in neurons.encodings])
        units = [_common_step(each) for each in neurons.scale * neurons.step * both]
    of_neuron = []
    for function, encoding, factor in zip(
        summands.function, summands.encoding, summands.factor, strict=True
    ):
        values = _generators(neurons.names[function], units[encoding])
        if values is None and factor != 0:
            return None
        of_neuron.append(factor * (np.zeros(1) if values is None else values))
    joined = np.concatenate(of_neuron)
    differences = [joined - joined[0], summands.bias - summands.bias[0]]
    if network.skip:
        if neurons.step is None:
            return None
        last = network.layers[1].encoding
        values = np.array([last.low, last.high])
        differences.append(network.logit_scale * neurons.step * values)
    return _common_step(np.concatenate(differences))


def _generators(name: str, unit: float | None) -> np.ndarray | None:
    """Values whose differences generate those of all values of a function, if it has a lattice."""
    if name == "sign":
        return np.array([-1.0, 1.0])
    if unit is None or name not in ("relu", "hardtanh"):
        return None
    return np.array([0.0, unit] if name == "relu" else [0.0, unit, 1.0, -1.0])


def _common_step(values: np.ndarray) -> float | None:
    """The largest number of which all `values` are multiples, None if it is too small."""
    step = 0.0
    largest = float(np.abs(values).max(initial=0.0))
    for value in np.abs(values).tolist():
        a, b = step, value
        while b > 1e-6 * largest:
            a, b = b, math.fmod(a, b)
            if a - b < 1e-6 * largest:
                b = 0.0
        step = a
    if step < 1e-4 * largest or step == 0:
        return None
    multiples = values / step
    return step if np.abs(multiples - np.rint(multiples)).max() < 1e-6 else None


def jet_sum(loss: SquaredError, n_outputs: int) -> HeadSum:
    """``(o - t)^2 = t^2 - 2 t o + 2 (o^2 / 2)`` for both targets."""
    targets = np.array([-1.0, 1.0]) if n_outputs == 1 else np.array([0.0, 1.0])
    return HeadSum(None, np.stack([targets**2, -2 * targets, np.full(2, 2.0)]).astype(complex))


def head_sum(
    loss: Loss,
    reach: Reach,
    tolerance: float,
    n_heads: int,
    expansion: Expansion | None,
    *,
    small: bool,
) -> tuple[HeadSum, float]:
    """The Fourier sum of a head's loss over everything that it can reach, and its error.

    **Arguments:**

    - `small`: keep the coefficients small rather than few, for exponentials that have errors.
    """
    pointwise = loss if isinstance(loss, OutputLoss | ZeroOne) else Logistic()
    curvature = slope = None
    if isinstance(pointwise, OutputLoss):
        curvature, slope = pointwise.curvature, pointwise.slope
    middle, half = (reach.lowest + reach.highest) / 2, (reach.highest - reach.lowest) / 2
    half = max(half, 1e-3)
    jumps = curvature is None and slope is None
    step = None if isinstance(expansion, FourierExtension) else reach.step
    if jumps and step is None:
        raise DoesNotCompile(
            f"the {loss.name} loss jumps, so it needs outputs on a lattice: the sign activation, "
            "or relu or hardtanh of quantised inputs; or use a smooth loss such as Logistic()"
        )
    centred = PointwiseIntegrand(
        lambda z: pointwise.pointwise(z + middle), curvature, slope, n_heads
    )
    guess = 8
    if not jumps:
        guess = math.ceil((half + 3) * centred.highest_frequency(tolerance) / math.pi) + 2
    if step is not None:
        n_points = round((reach.highest - reach.lowest) / step) + 1
        n_terms = (n_points + 2) // 2
        if jumps or n_terms <= max(2 * guess, 64):
            integrand = PointwiseIntegrand(pointwise.pointwise, curvature, slope, n_heads)
            table = lattice_sum(integrand, reach.lowest, step, n_points, n_terms)
            return _turned(table, reach.lowest), table.error
    cutoff = max((0.1 / max(1.0, half) if small else 1e-3) * tolerance, 1e-14)
    n_terms = max(guess // 2, 4)
    while n_terms <= MAX_OUTPUT_TERMS:
        table = fit_extension(centred, half, n_terms, cutoff=cutoff)
        if table.error <= 0.7 * tolerance:
            table = fourier_extension(centred, half, n_terms, cutoff=cutoff, slack=0.1 * tolerance)
            if table.error <= tolerance:
                return _turned(table, middle), table.error
        n_terms = math.ceil(1.3 * n_terms)
    raise ValueError(
        f"tolerance {tolerance} needs more than {MAX_OUTPUT_TERMS} frequencies for outputs up to "
        f"{half:.3g}; raise the tolerance, lower logit_scale, or quantise the inputs"
    )


def _turned(table: FourierSum, origin: float) -> HeadSum:
    """The same sum with phases that count from zero."""
    frequency = table.spacing * np.arange(len(table.coefficients))
    return HeadSum(frequency, table.coefficients * np.exp(-1j * frequency * origin)[:, None])
