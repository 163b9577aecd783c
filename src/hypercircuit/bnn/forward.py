"""The exact classical forward pass of a batch of binary networks, for NumPy and JAX arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float, Integer

from .activation import ACTIVATIONS, namespace


class Layer(NamedTuple):
    """The values of one dense layer: `weights` (networks, out, in), `biases` (networks, out)."""

    weights: Float[Any, "n_networks outputs inputs"]
    biases: Float[Any, "n_networks outputs"] | None


class Parameters(NamedTuple):
    """Everything that bitstrings decide about networks.

    An axis that would repeat one value has length one.

    **Attributes:**

    - `layers`: weights and biases.
    - `names`: the activation functions that occur.
    - `activations`: per hidden layer, which of them each neuron has.
    - `gates`: per hidden layer, 0 for neurons that are switched off and 1 for others.
    - `hidden_scale`, `logit_scale`: factors on pre-activations and outputs.
    - `skip`: the weights from inputs to outputs, all zero where the connection is off.
    """

    layers: tuple[Layer, ...]
    names: tuple[str, ...]
    activations: tuple[Integer[Any, "_ _"], ...]
    gates: tuple[Float[Any, "_ _"], ...]
    hidden_scale: Float[Any, "_ 1"]
    logit_scale: Float[Any, "_ 1"]
    skip: Float[Any, "_ _ _"] | None


def forward(
    parameters: Parameters, x: Float[Any, "n_examples n_inputs"], *, step: float | None = None
) -> Float[Any, "n_networks n_examples n_outputs"]:
    """The logits, in the precision of `x`; see [`hypercircuit.Network.logits`][]."""
    xp = namespace(parameters.layers[0].weights)
    dtype = x.dtype
    per_unit = 1.0
    if step is not None:
        per_unit = lattice_unit(step)
        x = xp.rint(x * per_unit)
    z = _first(xp, parameters.layers[0], x, per_unit)
    hidden_scale = parameters.hidden_scale[:, None].astype(dtype)
    for layer, options, gates in zip(
        parameters.layers[1:], parameters.activations, parameters.gates, strict=True
    ):
        z = hidden_scale * z
        values = ACTIVATIONS[parameters.names[0]](z)
        for number, name in enumerate(parameters.names[1:], start=1):
            values = xp.where(options[:, None] == number, ACTIVATIONS[name](z), values)
        values = values * gates[:, None].astype(dtype)
        z = values @ xp.swapaxes(layer.weights, 1, 2).astype(dtype)
        if layer.biases is not None:
            z = z + layer.biases[:, None].astype(dtype)
    if parameters.skip is not None:
        z = z + _first(xp, Layer(parameters.skip, None), x, per_unit)
    return parameters.logit_scale[:, None].astype(dtype) * z


def lattice_unit(step: float) -> float:
    """How many steps of a lattice make one, a whole number if that is what was meant."""
    inverse = round(1 / step)
    return float(inverse) if abs(step * inverse - 1) < 1e-6 else 1 / step


def _first(xp: Any, layer: Layer, x: Any, per_unit: float) -> Any:
    """One large product for all networks; `x` counts steps of which `per_unit` make one."""
    n_networks, n_outputs, n_inputs = layer.weights.shape
    flat = layer.weights.reshape(n_networks * n_outputs, n_inputs).astype(x.dtype)
    z = xp.moveaxis((x @ flat.T).reshape(len(x), n_networks, n_outputs), 0, 1)
    if layer.biases is not None:
        # Whole numbers are added before they are divided, so that equal sums stay equal.
        z = z + layer.biases[:, None].astype(x.dtype) * xp.asarray(per_unit, x.dtype)
    return z / xp.asarray(per_unit, x.dtype) if per_unit != 1 else z
