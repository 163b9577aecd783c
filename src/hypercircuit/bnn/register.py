"""The register: which site of the qubit chain stores which bit of the network.

order="class"   network choices | layer by layer, output by output: weights, bias, own choices
order="neuron"  network choices | hidden neuron by hidden neuron: its weights, its bias, its own
                choices, its outgoing weights | the outputs' biases        (one hidden layer)

The weights of a skip connection come last, output by output. An order that ends in "-reversed" is
the same chain read from its other end. For a linear network "class" is class by class:

    site 0 ... fan_in-1 : output 0      its inputs' weights, then its bias; then output 1, ...
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Int

ORDERS = ("class", "neuron", "class-reversed", "neuron-reversed")


@dataclasses.dataclass(frozen=True, eq=False)
class Register:
    """The immutable map between the sites of the chain and the bits of a network.

    **Attributes:**

    - `n_qubits`: sites of the chain.
    - `weights`: per layer the site of every weight, (outputs, fan-in), a bias as last column.
    - `biases`: per layer whether there is such a column.
    - `choices`: per choice its sites, (copies, bits).
    - `choice_names`: their names.
    - `skip`: the sites of the skip connection, (outputs, inputs), or None.
    """

    n_qubits: int
    weights: tuple[Int[np.ndarray, "_ _"], ...]
    biases: tuple[bool, ...]
    choices: tuple[Int[np.ndarray, "_ _"], ...] = ()
    choice_names: tuple[str, ...] = ()
    skip: Int[np.ndarray, "outputs inputs"] | None = None

    @functools.cached_property
    def architecture(self) -> Int[np.ndarray, " n"]:
        """The sites of all architecture qubits."""
        return np.concatenate([np.zeros(0, int), *(sites.ravel() for sites in self.choices)])

    def role(self, site: int) -> str:
        """What a site stores, in words, such as `weight[output 3, input 17]`."""
        if not 0 <= site < self.n_qubits:
            raise ValueError(f"site must be in 0..{self.n_qubits - 1}, got {site}")
        for number, (sites, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            layer = f"layer {number}, " if len(self.weights) > 1 else ""
            for output, index in np.argwhere(sites == site).tolist():
                if bias and index == sites.shape[1] - 1:
                    return f"bias[{layer}output {output}]"
                return f"weight[{layer}output {output}, input {index}]"
        if self.skip is not None:
            for output, index in np.argwhere(self.skip == site).tolist():
                return f"skip[output {output}, input {index}]"
        for name, sites in zip(self.choice_names, self.choices, strict=True):
            for copy, bit in np.argwhere(sites == site).tolist():
                of = f"neuron {copy}, " if len(sites) > 1 else ""
                return f"{name}[{of}bit {bit}]"
        return "a qubit fixed by a choice"

    @functools.cached_property
    def blocks(self) -> Blocks:
        """Where a linear network's outputs lie in the chain.

        **Raises:** `ValueError` for a network with hidden layers.
        """
        if len(self.weights) != 1:
            raise ValueError(f"only linear networks lie in blocks, got {len(self.weights)} layers")
        sites = self.weights[0]
        return Blocks(int(sites.min()), np.argsort(sites[:, 0]), np.argsort(sites[0]))


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """A linear network's chain: every output owns one run of `fan_in` sites, laid out alike.

    **Attributes:**

    - `start`: the first block's first site.
    - `outputs`: the output that owns each block, blocks counted from the chain's start.
    - `inputs`: the input of each site in a block; the bias counts as the last input.
    """

    start: int
    outputs: Int[np.ndarray, " n_outputs"]
    inputs: Int[np.ndarray, " fan_in"]

    @property
    def fan_in(self) -> int:
        return len(self.inputs)


@dataclasses.dataclass
class RegisterBuilder:
    """Hands out sites from left to right."""

    n_qubits: int = 0

    def take(self, *shape: int) -> Int[np.ndarray, ...]:
        """The next sites, as an array of this shape."""
        size = int(np.prod(shape))
        sites = np.arange(self.n_qubits, self.n_qubits + size).reshape(shape)
        self.n_qubits += size
        return sites


def reverse(register: Register) -> Register:
    """The same register read from its other end."""

    def turn(sites: np.ndarray) -> np.ndarray:
        return register.n_qubits - 1 - sites

    return dataclasses.replace(
        register,
        weights=tuple(map(turn, register.weights)),
        choices=tuple(map(turn, register.choices)),
        skip=None if register.skip is None else turn(register.skip),
    )
