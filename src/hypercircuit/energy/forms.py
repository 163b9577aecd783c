"""The linear forms whose Fourier sums make up a loss, and where their sites lie in the chain.

blocks   one row an example: every output's block of sites sees the same inputs
pairs    one row a wrong class: a single form over all blocks, x in the true class's block and
         -x in the other's, so that the form's value is z_y - z_c
"""

from __future__ import annotations

import abc
import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from ..hamiltonian import FourierTerms, LossHamiltonian, output_targets
from .linear import LinearOutputs, linear_outputs
from .plan import Layout


@dataclasses.dataclass(frozen=True, eq=False)
class LinearForms(abc.ABC):
    """What the exact energy of a linear network is planned from; rows are counted from 0.

    **Attributes:**

    - `hamiltonian`: the compiled loss.
    - `outputs`: how bits make logits.
    - `layout`: the blocks of sites that a row's form or forms live on.
    - `terms`: the Fourier sums row by row.
    - `per_example`: rows of one example, whose losses add up.
    """

    hamiltonian: LossHamiltonian
    outputs: LinearOutputs
    layout: Layout
    terms: FourierTerms
    per_example: int

    def rows(self, examples: Int[np.ndarray, " n"]) -> Int[np.ndarray, " rows"]:
        """The rows of some examples, example by example."""
        return (examples[:, None] * self.per_example + np.arange(self.per_example)).reshape(-1)

    @abc.abstractmethod
    def inputs(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n fan_in"]:
        """What the bits of a block are multiplied with."""

    @abc.abstractmethod
    def targets(self, rows: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n blocks"]:
        """Which of two functions a block's form is put into."""


class BlockForms(LinearForms):
    """Every output by itself."""

    def inputs(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n fan_in"]:
        return self.hamiltonian.inputs(rows)

    def targets(self, rows: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n blocks"]:
        targets = output_targets(self.hamiltonian.data.y[rows], self.layout.n_blocks)
        return targets[:, self.hamiltonian.network.register.blocks.outputs]


class PairForms(LinearForms):
    """Differences of two outputs: row e * (classes - 1) + k is example e and wrong class k."""

    def inputs(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n fan_in"]:
        example, number = np.divmod(rows, self.per_example)
        y = self.hamiltonian.data.y[example]
        other = number + (number >= y)
        x = self.hamiltonian.inputs(example)
        result = np.zeros((len(rows), len(self.outputs.block_of), x.shape[1]))
        result[np.arange(len(rows)), self.outputs.block_of[y]] = x
        result[np.arange(len(rows)), self.outputs.block_of[other]] = -x
        return result.reshape(len(rows), -1)

    def targets(self, rows: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n blocks"]:
        return np.ones((len(rows), 1), bool)


def linear_forms(hamiltonian: LossHamiltonian) -> LinearForms:
    """The forms of a linear network's loss, by the loss's structure."""
    terms = hamiltonian.terms
    assert isinstance(terms, FourierTerms)
    outputs = linear_outputs(hamiltonian)
    n_outputs = hamiltonian.network.n_outputs
    if hamiltonian.loss.form(n_outputs) != "pairs":
        layout = Layout(outputs.start, outputs.fan_in, n_outputs)
        return BlockForms(hamiltonian, outputs, layout, terms, 1)
    layout = Layout(outputs.start, outputs.fan_in * n_outputs, 1)
    rows = np.repeat(np.arange(hamiltonian.n_examples), n_outputs - 1)
    return PairForms(hamiltonian, outputs, layout, terms.subset(rows), n_outputs - 1)
