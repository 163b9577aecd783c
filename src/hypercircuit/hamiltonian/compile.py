"""From a network and a data set to the loss Hamiltonian, without enumerating networks."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Integer

from ..bnn import Network
from ..data import Dataset
from .expansion import Expansion
from .hidden import hidden_terms
from .linear import exact_inputs, linear_terms
from .losses import LOSSES, Loss
from .terms import NoTerms, QuadraticTerms, Sector, SectorTerms, Terms

#: The least error that rounding lets a Fourier extension reach.
MIN_TOLERANCE = 1e-10
#: More settings of global choices than this are not compiled one by one.
MAX_SECTORS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class LossHamiltonian:
    """The diagonal operator whose entry at a bitstring is that network's mean loss.

    **Attributes:**

    - `network`, `data`, `loss`: what was compiled.
    - `terms`: the operators that energies evaluate, see `hypercircuit.hamiltonian.terms`.
    """

    network: Network
    data: Dataset
    loss: Loss
    terms: Terms

    @property
    def n_qubits(self) -> int:
        return self.network.n_qubits

    @property
    def n_examples(self) -> int:
        return len(self.data)

    @property
    def spectral_error(self) -> float:
        """Bound on the difference between this operator's and the true loss of an example, the
        largest over examples and over all networks, in the loss's unit."""
        return self.terms.error

    def inputs(self, examples: Integer[np.ndarray, " n"]) -> Float[np.ndarray, "n fan_in"]:
        """Some examples' inputs in the order of the sites of a block; the bias's input is 1.

        For linear networks. In float64; inputs with a step are its exact multiples.
        """
        x = exact_inputs(self.data, examples)
        if self.network.layers[0].bias:
            x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        return x[:, self.network.register.blocks.inputs]

    def subset(self, examples: Integer[np.ndarray, " n"]) -> LossHamiltonian:
        """The mean loss of the examples with these row numbers, same expansion."""
        return dataclasses.replace(
            self, data=self.data.take(examples), terms=self.terms.subset(examples)
        )

    def losses(
        self, bits: Integer[np.ndarray, "n_networks n_qubits"]
    ) -> Float[np.ndarray, " n_networks"]:
        """The true mean loss of each network over the data, by the classical forward pass."""
        totals = np.zeros(len(bits))
        for start in range(0, self.n_examples, 4096):
            part = slice(start, start + 4096)
            x = self.data.x[part].astype(np.float32, copy=False)
            logits = self.network.logits(bits, x, step=self.data.step)
            totals += self.loss.value(logits, self.data.y[part]).sum(-1)
        return totals / self.n_examples

    def diagonal(self) -> Float[np.ndarray, " n_networks"]:
        """The compiled operator's 2^n_qubits entries, site 0 most significant.

        Computed once and kept, read-only.

        **Raises:** `ValueError` above 24 qubits.
        """
        return self._diagonal

    @functools.cached_property
    def _diagonal(self) -> np.ndarray:
        from .diagonal import diagonal

        entries = diagonal(self)
        entries.setflags(write=False)
        return entries

    def describe(self) -> str:
        """The certificate and the size of the expansion in one line."""
        line = (
            f"{self.loss.name} loss of {self.n_examples} examples on {self.n_qubits} qubits: "
            f"{self.terms.describe()}"
        )
        if self.spectral_error > 0:
            line += f", spectral error at most {self.spectral_error:.3g} for every network"
        return line


def compile_loss(
    network: Network,
    data: Dataset,
    loss: Loss,
    *,
    tolerance: float = 1e-3,
    expansion: Expansion | None = None,
) -> LossHamiltonian:
    """Compile the data set's mean loss into a diagonal operator on the network's qubits.

    **Arguments:**

    - `network`, `data`, `loss`: the network's inputs and outputs must fit the data and loss.
    - `tolerance`: largest allowed error of an example's loss for any network, in the loss's unit.
      Lattice expansions are exact to about 1e-9 whatever it says.
    - `expansion`: `Lattice()` or `FourierExtension()`; left out, the lattice is used when the
      inputs have a step and it needs at most twice the frequencies.

    A network whose loss does not separate compiles to `NoTerms`, which says why: such networks
    train on samples.

    **Raises:** `ValueError` if the parts do not fit, the tolerance is out of range, the lattice
    is asked for on inputs without a step, or the tolerance cannot be reached.
    """
    if data.n_inputs != network.n_inputs:
        raise ValueError(
            f"the network has {network.n_inputs} inputs but the data {data.n_inputs}; "
            "build the network for the transformed data"
        )
    if not MIN_TOLERANCE <= tolerance < 1:
        raise ValueError(
            f"tolerance must be at least {MIN_TOLERANCE} and below 1, got {tolerance}; for exact "
            "sums quantise the inputs and use Lattice()"
        )
    loss.check(network, data)
    terms: Terms
    if network.global_sites:
        terms = _sector_terms(network, data, loss, tolerance, expansion)
    else:
        terms = _terms(network, data, loss, tolerance, expansion)
    return LossHamiltonian(network, data, loss, terms)


def _terms(
    network: Network, data: Dataset, loss: Loss, tolerance: float, expansion: Expansion | None
) -> Terms:
    """The terms of a network without global choices."""
    form = loss.form(network.n_outputs)
    if network.n_hidden > 1:
        return NoTerms(
            f"{network.n_hidden} hidden layers do not separate; exact are networks with none or one"
        )
    if network.n_hidden == 1:
        return hidden_terms(
            network, data, loss, tolerance, expansion, separable_losses(network.n_outputs)
        )
    if form == "quadratic":
        return QuadraticTerms()
    return linear_terms(network, data, loss, tolerance, expansion)


def _sector_terms(
    network: Network, data: Dataset, loss: Loss, tolerance: float, expansion: Expansion | None
) -> Terms:
    n_sectors = 2 ** len(network.global_sites)
    if n_sectors > MAX_SECTORS:
        return NoTerms(
            f"{n_sectors} settings of the choices of scope network and layer are more than the "
            f"{MAX_SECTORS} that are compiled one by one"
        )
    known: list[tuple[Network, Terms]] = []
    sectors = []
    for bits, settled in network.sectors():
        # Codes beyond the end of a list repeat its options.
        terms = next((terms for before, terms in known if before == settled), None)
        if terms is None:
            terms = _terms(settled, data, loss, tolerance, expansion)
            known.append((settled, terms))
        if isinstance(terms, NoTerms):
            return terms
        sectors.append(Sector(bits, LossHamiltonian(settled, data, loss, terms)))
    return SectorTerms(tuple(sectors))


def separable_losses(n_outputs: int) -> tuple[str, ...]:
    """The losses that compile for networks with one hidden layer."""
    return tuple(name for name, loss in LOSSES.items() if loss().form(n_outputs) != "joint")
