"""Noisy hypercircuits: a chain wrapped with the errors of its gates and of its readout.

    ---*---[ D2 ]---[Ry]--[D1]--[Rz]--[D1]---          after every CX the two-qubit channel D2,
       |   [ D2 ]                                      after every Ry and Rz the channel D1,
    ---x---[ D2 ]---[Ry]--[D1]--[Rz]--[D1]---          at the end each bit flips at random

The depolarising channels are those of the published noisy runs (arXiv:2301.08292, simulated with
PastaQ): with the probability q that a gate fails, a Pauli other than the identity is applied, each
of the 3 (of one qubit) or 15 (of two) equally often,

    D1(rho) = (1 - q) rho + q/3 sum_P P rho P  = (1 - 4q/3) rho + 4q/3 (1/2 tr rho),
    D2(rho) = (1 - q) rho + q/15 sum_P P rho P = (1 - 16q/15) rho + 16q/15 (1/4 tr rho),

so that q = 3/4 and q = 15/16 depolarise completely. Qiskit's `depolarizing_error(x, n)` has the
same channel with x = 4q/3 and x = 16q/15. The CX of layer 1, which do nothing to |0...0>, are no
gates here and make no error (the published runs have them, and their errors).
"""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._types import Angles
from .brickwork import Brickwork

Rate = float | Float[Array, ""]
#: The published rates at multiplier 1.
PUBLISHED_ONE_QUBIT, PUBLISHED_TWO_QUBIT = 0.001, 0.00375


class Noise(eqx.Module):
    """Probabilities of errors.

    **Arguments:**

    - `one_qubit`: that a Ry or Rz is followed by a random Pauli X, Y or Z.
    - `two_qubit`: that a CX is followed by a random one of the 15 pairs of Paulis.
    - `readout`: that a bit is read as its opposite, at most 1/2.

    Numbers, or JAX scalars to differentiate by or to compile once for many.

    **Raises:** `ValueError` for a number out of range.
    """

    one_qubit: Rate = 0.0
    two_qubit: Rate = 0.0
    readout: Rate = 0.0

    def __check_init__(self) -> None:
        for name, most in (("one_qubit", 1.0), ("two_qubit", 1.0), ("readout", 0.5)):
            rate = getattr(self, name)
            if isinstance(rate, float) and not 0 <= rate <= most:
                raise ValueError(f"{name} is a probability from 0 to {most:g}, got {rate:g}")

    @staticmethod
    def published(multiplier: float = 1.0, *, readout: float = 0.0) -> Noise:
        """The rates of the published noisy runs, 0.001 and 0.00375, times `multiplier`."""
        if multiplier < 0:
            raise ValueError(f"multiplier must be at least 0, got {multiplier:g}")
        return Noise(PUBLISHED_ONE_QUBIT * multiplier, PUBLISHED_TWO_QUBIT * multiplier, readout)

    def describe(self) -> str:
        """The rates in a few words."""
        return (
            f"errors after one-qubit gates {self.one_qubit:g}, after CX {self.two_qubit:g}, "
            f"readout {self.readout:g}"
        )


class Noisy(eqx.Module):
    """A chain whose gates and readout err; its state is mixed.

    `exact_mps` of it gives the exact distribution over networks, and so do all energies, moments
    and samples that are made of it. Parameters are those of the circuit.

    **Arguments:**

    - `circuit`: the brickwork.
    - `noise`: the probabilities of its errors.
    """

    circuit: Brickwork
    noise: Noise

    @property
    def depth(self) -> int:
        return self.circuit.depth

    @property
    def rotations(self) -> str:
        return self.circuit.rotations

    @property
    def reach(self) -> int:
        """That of the circuit: errors do not widen light cones."""
        return self.circuit.reach

    @property
    def correlation_range(self) -> int:
        """That of the circuit."""
        return self.circuit.correlation_range

    @property
    def max_bond(self) -> int:
        """That of the circuit without errors."""
        return self.circuit.max_bond

    @property
    def terms(self) -> int:
        """Products of one-qubit maps that a CX and its errors are a sum of."""
        rate = self.noise.two_qubit
        return 4 if isinstance(rate, float) and rate == 0 else 5

    @property
    def doubled_bond(self) -> int:
        """The dimension of the doubled bond between cells.

        Real circuits need only what is even under transposition, see `state/mixed.py`.
        """
        size = self.terms**self.reach
        if self.rotations == "ry-rz":
            return size
        return (size + (self.terms - 2) ** self.reach) // 2

    def shape(self, n_qubits: int) -> tuple[int, int, int]:
        """The shape of the parameters for a register of `n_qubits`."""
        return self.circuit.shape(n_qubits)

    def init(
        self,
        key: PRNGKeyArray,
        n_qubits: int,
        *,
        how: str = "near-uniform",
        scale: float = 0.1,
        dtype: np.dtype | type = np.float32,
    ) -> Angles:
        """Random start angles, see [`hypercircuit.Brickwork.init`][]."""
        return self.circuit.init(key, n_qubits, how=how, scale=scale, dtype=dtype)


#: What has an exact chain of maps on the doubled bond.
Chain = Brickwork | Noisy


def depolarising_factor(rate: Rate, n_qubits: int) -> jax.Array | float:
    """What a depolarising channel leaves of every Pauli but the identity."""
    n_paulis = 4**n_qubits
    return 1 - rate * n_paulis / (n_paulis - 1)
