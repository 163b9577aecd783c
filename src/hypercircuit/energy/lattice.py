"""Where a step function should be cut when its argument lies on a lattice.

A sum of weights of two values on a lattice of inputs takes equally spaced values. A continuous
density in its place is split best halfway between the last point below the jump and the first one
above it (the continuity correction).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..bnn import Encoding, Network
from ..data import Dataset

_SNAP = 1e-6


def input_cuts(
    data: Dataset,
    network: Network,
    encoding: Encoding,
    x: Float[np.ndarray, "n fan_in"],
    *,
    positive: bool,
) -> tuple[Float[np.ndarray, " n"], float]:
    """The cuts of the first layer's sums of some examples, and half the lattice's spacing.

    Both are in units of weight times input, zero without a lattice.

    **Arguments:**

    - `encoding`: of the weights.
    - `x`: inputs, the bias's included.
    - `positive`: whether the jump lies just above zero and not just below.
    """
    step = data.step
    if step is None or (network.layers[0].bias and abs(1 / step - round(1 / step)) > _SNAP):
        return np.zeros(len(x)), 0.0
    spacing = abs(encoding.step) * step
    return _cuts(encoding.low * x.sum(1) / spacing, positive) * spacing, spacing / 2


def sign_cut(
    network: Network, layer: int, encoding: Encoding, *, positive: bool
) -> tuple[float, float]:
    """The same for a layer whose inputs are +1 or -1 and whose weights +-high; else zeros.

    `layer` is at least 1. The bias counts as one of the inputs.
    """
    before = [
        each
        for each in network.choices
        if each.scope == "neuron" and each.layer < layer and each.settings != ("encoding",)
    ]
    last = layer == len(network.layers) - 1
    if (
        network.activations[layer - 1] != "sign"
        or before
        or encoding.low != -encoding.high
        or (last and network.has_skip)
    ):
        return 0.0, 0.0
    spacing = abs(encoding.step)
    n_inputs = network.layers[layer].fan_in
    cut = _cuts(np.array([encoding.low * n_inputs / spacing]), positive)
    return float(cut[0]) * spacing, spacing / 2


def _cuts(origin: np.ndarray, positive: bool) -> np.ndarray:
    """Halfway below the first of the points origin + integers that is >= 0, or > 0."""
    first = origin - np.floor(origin)
    first = np.where(first > 1 - _SNAP, 0.0, first)
    if positive:
        first = np.where(first < _SNAP, 1.0, first)
    return first - 0.5
