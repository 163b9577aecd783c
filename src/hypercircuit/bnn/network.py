"""Binary networks as classical objects: their layers and their exact forward pass.

A network holds no weights: those are bits, one qubit each. For a dense layer with inputs x,

    z_c = scale * (sum_j w_cj x_j + b_c),      w, b in {low, high}.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Integer

from .encoding import Encoding
from .register import Register


@dataclasses.dataclass(frozen=True)
class Dense:
    """One dense layer of bits.

    **Arguments:**

    - `n_inputs`, `n_outputs`: positive sizes.
    - `bias`: whether every output has a bias bit (an input that is always 1).
    - `encoding`: what bits 0 and 1 stand for, weights and biases alike.
    """

    n_inputs: int
    n_outputs: int
    bias: bool = True
    encoding: Encoding = dataclasses.field(default_factory=Encoding)

    def __post_init__(self) -> None:
        for name in ("n_inputs", "n_outputs"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"Dense.{name} must be at least 1, got {value}")

    @property
    def fan_in(self) -> int:
        """Bits per output: the inputs' weights and, if there is one, the bias."""
        return self.n_inputs + self.bias

    @property
    def n_bits(self) -> int:
        return self.n_outputs * self.fan_in


@dataclasses.dataclass(frozen=True)
class Layer:
    """The decoded values of one dense layer: `weights` (out, in) and `biases` (out,) or None."""

    weights: Float[np.ndarray, "*batch n_outputs n_inputs"]
    biases: Float[np.ndarray, "*batch n_outputs"] | None


@dataclasses.dataclass(frozen=True)
class Network:
    """A binary network and the order in which its bits lie on the qubit chain.

    **Arguments:**

    - `layers`: the dense layers; a linear network has one, and one is what this version takes.
    - `logit_scale`: positive factor on the outputs (logits in nats when the loss is a
      cross-entropy).
    - `order`: the register's order, see [`hypercircuit.Register`][].

    **Raises:** `ValueError` naming the argument at fault.
    """

    layers: tuple[Dense, ...]
    logit_scale: float = 0.3
    order: str = "class"
    register: Register = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if len(self.layers) != 1:
            raise ValueError(
                f"layers must hold exactly one Dense layer (a linear network), "
                f"got {len(self.layers)}"
            )
        if not (math.isfinite(self.logit_scale) and self.logit_scale > 0):
            raise ValueError(
                f"logit_scale must be a positive finite number, got {self.logit_scale}"
            )
        register = Register(
            n_inputs=self.layers[0].n_inputs,
            n_outputs=self.layers[0].n_outputs,
            bias=self.layers[0].bias,
            order=self.order,
        )
        object.__setattr__(self, "register", register)

    @property
    def n_qubits(self) -> int:
        return self.register.n_qubits

    @property
    def n_inputs(self) -> int:
        return self.layers[0].n_inputs

    @property
    def n_outputs(self) -> int:
        return self.layers[0].n_outputs

    def decode(self, bits: Integer[np.ndarray, "*batch n_qubits"]) -> Layer:
        """The weights and biases that bitstrings (site 0 first) stand for."""
        if bits.shape[-1] != self.n_qubits:
            raise ValueError(
                f"bits must have one column per qubit ({self.n_qubits}), got shape {bits.shape}"
            )
        table = self.layers[0].encoding.decode(self.register.to_table(bits))
        if not self.layers[0].bias:
            return Layer(table, None)
        return Layer(table[..., :-1], table[..., -1])

    def logits(
        self,
        bits: Integer[np.ndarray, "n_networks n_qubits"],
        x: Float[np.ndarray, "n_examples n_inputs"],
    ) -> Float[np.ndarray, "n_networks n_examples n_outputs"]:
        """The exact classical forward pass of a batch of networks on a batch of examples."""
        if x.shape[-1] != self.n_inputs:
            raise ValueError(
                f"x must have one column per input ({self.n_inputs}), got shape {x.shape}"
            )
        layer = self.decode(bits)
        weights = layer.weights.reshape(-1, self.n_inputs)
        z = (x @ weights.T.astype(x.dtype)).reshape(len(x), len(bits), self.n_outputs)
        z = np.moveaxis(z, 0, 1)
        if layer.biases is not None:
            z = z + layer.biases[:, None].astype(x.dtype)
        return np.asarray(self.logit_scale, x.dtype) * z
