"""One network as plain numbers: arrays for npz files, and ONNX for inference elsewhere.

    x --+-- Gemm -- (hidden_scale) -- activation -- (gates) -- Gemm --+-- (logit_scale) -- logits
        |                                                             |
        +------------------------- Gemm (skip) -----------------------+

Every choice is settled: the weights are those of the encoding that the bits select, each neuron
has its activation and its gate. What would multiply by one is left out of the graph. On a lattice
of inputs the first sums count whole steps, as in `Network.logits`, so that ties stay ties.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from .._files import write_atomically
from .forward import lattice_unit
from .network import Network

if TYPE_CHECKING:
    from onnx import ModelProto

#: ONNX's operators of 2022, which every common runtime reads.
_OPSET, _IR_VERSION = 17, 8


def network_arrays(network: Network, bits: UInt8[np.ndarray, " n_qubits"]) -> dict[str, np.ndarray]:
    """Everything that the bits stand for, array by array; see [`hypercircuit.save_network`][]."""
    parameters = network.decode(bits[None])
    dtype = _weight_dtype(network)
    arrays: dict[str, Any] = {"bits": bits.astype(np.uint8)}
    for number, layer in enumerate(parameters.layers):
        arrays[f"weights_{number}"] = layer.weights[0].astype(dtype)
        if layer.biases is not None:
            arrays[f"biases_{number}"] = layer.biases[0].astype(dtype)
        arrays[f"encoding_{number}"] = _encoding(network, bits, number)
    hidden = zip(parameters.activations, parameters.gates, strict=True)
    for number, (options, gates) in enumerate(hidden):
        n_neurons = network.layers[number].n_outputs
        names = np.array(parameters.names)[np.broadcast_to(options[0], n_neurons)]
        arrays[f"activation_{number}"] = names
        arrays[f"gates_{number}"] = np.broadcast_to(gates[0], n_neurons).astype(np.int8)
    if parameters.skip is not None:
        arrays["skip"] = parameters.skip[0].astype(dtype)
    if network.n_hidden:
        arrays["hidden_scale"] = np.float64(parameters.hidden_scale[0, 0])
    arrays["logit_scale"] = np.float64(parameters.logit_scale[0, 0])
    return arrays


def save_network(
    path: str | os.PathLike[str],
    network: Network,
    bits: UInt8[np.ndarray, " n_qubits"],
    *,
    labels: Sequence[int] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Write a network to an npz file.

    Its arrays: `bits` (uint8, one per qubit, site 0 first); per layer l `weights_l` (outputs,
    inputs) and `biases_l` (outputs), int8 if all weight values are whole and float32 if not, and
    `encoding_l` (outputs, 2), the values of bit 0 and bit 1 of every row; per hidden layer
    `activation_l` and `gates_l`, one per neuron, and `hidden_scale`; `skip` (outputs, inputs) if
    there are such weights; `logit_scale`. Weights and biases are values, in the encoding that a
    choice selected. With x the inputs,

        z_l = weights_l @ a_(l-1) + biases_l,   a_l = gates_l * activation_l(hidden_scale * z_l),
        logits = logit_scale * (z_last + skip @ x).

    **Arguments:**

    - `labels`: what the classes are called, `labels`; the class is that of the largest logit, of
      one logit the second class where it is above zero.
    - `preprocessing`: how examples become inputs, as JSON text in `preprocessing`.
    """
    arrays = network_arrays(network, bits)
    if labels is not None:
        arrays["labels"] = np.asarray(labels)
    if preprocessing is not None:
        arrays["preprocessing"] = np.array(json.dumps(preprocessing))
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def to_onnx(
    network: Network,
    bits: UInt8[np.ndarray, " n_qubits"],
    *,
    step: float | None = None,
    labels: Sequence[int] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> ModelProto:
    """The network as an ONNX model: input `x` (n, n_inputs), output `logits` (n, n_outputs).

    Both are float32 and n is free; x is the example as it was trained on. Operators of opset 17.

    **Arguments:**

    - `step`: the inputs' lattice (`Dataset.step`): inputs are rounded to it, and first-layer sums
      are taken in whole steps, as in [`hypercircuit.Network.logits`][].
    - `labels`, `preprocessing`: kept as JSON in the model's metadata.

    **Raises:** `ValueError` without the package onnx.
    """
    onnx = _onnx()
    arrays = network_arrays(network, bits)
    graph = _Graph(onnx)
    per_unit = 1.0 if step is None else lattice_unit(step)
    inputs = "x"
    if step is not None:
        inputs = graph.add("Round", graph.times("x", per_unit), name="in_steps")
    value = _first(graph, inputs, arrays["weights_0"], arrays.get("biases_0"), per_unit)
    for number in range(network.n_hidden):
        value = graph.times(value, float(arrays["hidden_scale"]))
        value = _activated(graph, value, arrays[f"activation_{number}"])
        value = graph.times(value, arrays[f"gates_{number}"])
        weights, biases = (arrays.get(f"{name}_{number + 1}") for name in ("weights", "biases"))
        assert weights is not None
        value = graph.dense(value, weights, biases)
    if "skip" in arrays:
        value = graph.add("Add", value, _first(graph, inputs, arrays["skip"], None, per_unit))
    graph.end(graph.times(value, float(arrays["logit_scale"])), "logits")
    model = graph.model(network.n_inputs, network.n_outputs)
    notes = {"labels": labels, "preprocessing": preprocessing}
    onnx.helper.set_model_props(
        model,
        {
            name: json.dumps(list(note) if name == "labels" else note)
            for name, note in notes.items()
            if note is not None
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def save_onnx(
    path: str | os.PathLike[str],
    network: Network,
    bits: UInt8[np.ndarray, " n_qubits"],
    *,
    step: float | None = None,
    labels: Sequence[int] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Write `to_onnx` to a file, atomically."""
    model = to_onnx(network, bits, step=step, labels=labels, preprocessing=preprocessing)
    write_atomically(path, lambda file: file.write(model.SerializeToString()))


def _encoding(network: Network, bits: np.ndarray, number: int) -> np.ndarray:
    """The weight values (outputs, 2) that bits 0 and 1 of a layer's rows stand for."""
    ends = []
    for bit in (0, 1):
        changed = bits.copy()
        changed[network.register.weights[number]] = bit
        ends.append(network.decode(changed[None]).layers[number].weights[0][:, 0])
    return np.stack(ends, axis=1).astype(_weight_dtype(network))


def _weight_dtype(network: Network) -> type[np.generic]:
    """Whole-numbered weights of any setting fit in int8."""
    encodings = [layer.encoding for layer in network.layers]
    options = [option.encoding for choice in network.choices for option in choice.options]
    encodings += [each for each in options if each is not None]
    values = np.array([[each.low, each.high] for each in encodings])
    whole = (values == np.rint(values)).all() and np.abs(values).max() < 128
    return np.int8 if whole else np.float32


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ValueError(
            "ONNX files need the package onnx, which is not installed; "
            "pip install 'hypercircuit[onnx]'"
        ) from error
    return onnx


class _Graph:
    """Collects nodes and constants; values are known by their names."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: Any, dtype: type[np.generic] = np.float32) -> str:
        name = f"constant_{len(self._constants)}"
        tensor = self._onnx.numpy_helper.from_array(np.asarray(values, dtype), name)
        self._constants.append(tensor)
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"value_{len(self._nodes)}"
        node = self._onnx.helper.make_node(operator, list(inputs), [name], **attributes)
        self._nodes.append(node)
        return name

    def times(self, value: str, factor: Any) -> str:
        if np.all(np.asarray(factor) == 1):
            return value
        return self.add("Mul", value, self.constant(factor))

    def dense(self, value: str, weights: np.ndarray, biases: np.ndarray | None) -> str:
        constants = [self.constant(each) for each in (weights, biases) if each is not None]
        return self.add("Gemm", value, *constants, transB=1)

    def end(self, value: str, name: str) -> None:
        self.add("Identity", value, name=name)

    def model(self, n_inputs: int, n_outputs: int) -> Any:
        helper, single = self._onnx.helper, self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("x", single, ["n", n_inputs])],
            [helper.make_tensor_value_info("logits", single, ["n", n_outputs])],
            self._constants,
        )
        return helper.make_model(
            graph,
            producer_name="hypercircuit",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )


def _first(
    graph: _Graph,
    inputs: str,
    weights: np.ndarray,
    biases: np.ndarray | None,
    per_unit: float,
) -> str:
    """A product with the inputs, which count steps of which `per_unit` make one."""
    scaled = None if biases is None else biases * np.float32(per_unit)
    value = graph.dense(inputs, weights, scaled)
    return value if per_unit == 1 else graph.add("Div", value, graph.constant(per_unit))


def _activated(graph: _Graph, value: str, names: np.ndarray) -> str:
    """Every neuron's own function; all that occur are applied to all neurons."""
    first, *others = dict.fromkeys(names.tolist())
    found = _activation(graph, value, first)
    for name in others:
        mask = graph.constant(names == name, np.bool_)
        found = graph.add("Where", mask, _activation(graph, value, name), found)
    return found


def _activation(graph: _Graph, value: str, name: str) -> str:
    if name == "sign":  # +1 at zero, which ONNX's Sign maps to zero
        above = graph.add("GreaterOrEqual", value, graph.constant(0.0))
        return graph.add("Where", above, graph.constant(1.0), graph.constant(-1.0))
    if name == "hardtanh":
        return graph.add("Clip", value, graph.constant(-1.0), graph.constant(1.0))
    operators = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    return graph.add(operators[name], value)
