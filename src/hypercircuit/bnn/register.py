"""The register: which site of the qubit chain stores which bit of the network.

order="class" (default)             order="class-reversed"
site 0 ... fan_in-1 : output 0      the same chain read from its other end:
  its inputs' weights, its bias       the last output's bias is site 0
then output 1, and so on
"""

from __future__ import annotations

import dataclasses
import difflib
import functools

import numpy as np
from jaxtyping import Int, Integer

ORDERS = ("class", "class-reversed")


@dataclasses.dataclass(frozen=True)
class Register:
    """The immutable map between the sites of the chain and the bits of a dense layer.

    Every output owns one contiguous block of `fan_in` sites, laid out alike in every block.

    **Arguments:**

    - `n_inputs`, `n_outputs`: the layer's sizes.
    - `bias`: whether every output has a bias bit (its input index is `n_inputs`).
    - `order`: `"class"` or `"class-reversed"`.

    **Raises:** `ValueError` for an unknown order, with the nearest known one.
    """

    n_inputs: int
    n_outputs: int
    bias: bool = True
    order: str = "class"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            near = difflib.get_close_matches(self.order, ORDERS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"order must be one of {', '.join(ORDERS)}, got {self.order!r}; "
                f"did you mean {near!r}?"
            )

    @property
    def fan_in(self) -> int:
        """Sites per output."""
        return self.n_inputs + self.bias

    @property
    def n_qubits(self) -> int:
        return self.n_outputs * self.fan_in

    @functools.cached_property
    def block_outputs(self) -> Int[np.ndarray, " n_outputs"]:
        """The output that owns each block, blocks counted from site 0."""
        outputs = np.arange(self.n_outputs)
        return outputs if self.order == "class" else outputs[::-1].copy()

    @functools.cached_property
    def block_inputs(self) -> Int[np.ndarray, " fan_in"]:
        """The input index of each site in a block; `n_inputs` is the bias."""
        inputs = np.arange(self.fan_in)
        return inputs if self.order == "class" else inputs[::-1].copy()

    def role(self, site: int) -> str:
        """What a site stores, in words, such as `weight[output 3, input 17]`."""
        if not 0 <= site < self.n_qubits:
            raise ValueError(f"site must be in 0..{self.n_qubits - 1}, got {site}")
        block, position = divmod(site, self.fan_in)
        output, index = self.block_outputs[block], self.block_inputs[position]
        if index == self.n_inputs:
            return f"bias[output {output}]"
        return f"weight[output {output}, input {index}]"

    def to_table(self, values: Integer[np.ndarray, "*batch n_qubits"] | np.ndarray) -> np.ndarray:
        """Rearrange one value per site into (..., n_outputs, fan_in), the bias column last."""
        blocks = values.reshape(*values.shape[:-1], self.n_outputs, self.fan_in)
        inverse_outputs = np.argsort(self.block_outputs)
        inverse_inputs = np.argsort(self.block_inputs)
        return blocks[..., inverse_outputs, :][..., inverse_inputs]

    def from_table(self, table: np.ndarray) -> np.ndarray:
        """The inverse of `to_table`: (..., n_outputs, fan_in) to one value per site."""
        blocks = table[..., self.block_outputs, :][..., self.block_inputs]
        return blocks.reshape(*table.shape[:-2], self.n_qubits)
