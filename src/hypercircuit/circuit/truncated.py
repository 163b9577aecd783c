"""A chain's circuit whose state is kept at a bounded bond dimension."""

from __future__ import annotations

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray

from .._types import Angles
from .brickwork import Brickwork

#: The schemes by which a truncated state is made, see `hypercircuit.state.truncation`.
SCHEME_NAMES = ("sweep", "parallel")


class Truncated(eqx.Module):
    """A brickwork whose state is truncated on the way: the ansatz and how it is approximated.

    Parameters are those of the circuit. The state is normalised; the weight that truncation threw
    away is recorded with it, bond by bond and layer by layer.

    **Arguments:**

    - `circuit`: the brickwork, of any depth.
    - `max_bond`: the largest bond dimension, at least 1.
    - `cutoff`: relative weight below which singular values are dropped though `max_bond` has room;
      at least 0 and below 1.
    - `scheme`: "sweep" or "parallel", see `hypercircuit.state.truncation`.

    **Raises:** `ValueError` naming the argument that is out of range.
    """

    circuit: Brickwork = eqx.field(static=True)
    max_bond: int = eqx.field(static=True)
    cutoff: float = eqx.field(static=True, default=0.0)
    scheme: str = eqx.field(static=True, default="sweep")

    def __check_init__(self) -> None:
        if self.max_bond < 1:
            raise ValueError(
                f"max_bond must be at least 1, got {self.max_bond}; for an exact state take the "
                "circuit itself"
            )
        if not 0 <= self.cutoff < 1:
            raise ValueError(f"cutoff must be from 0 to below 1, got {self.cutoff}")
        if self.scheme not in SCHEME_NAMES:
            raise ValueError(
                f"scheme must be one of {', '.join(SCHEME_NAMES)}, got {self.scheme!r}"
            )

    @property
    def depth(self) -> int:
        return self.circuit.depth

    @property
    def rotations(self) -> str:
        return self.circuit.rotations

    @property
    def doubled_bond(self) -> int:
        """The dimension of the doubled bond, in its basis of real numbers."""
        bond = self.max_bond
        return bond**2 if self.rotations == "ry-rz" else bond * (bond + 1) // 2

    @property
    def correlation_range(self) -> int:
        """That of the circuit; what truncation adds beyond it counts as an error of truncation."""
        return self.circuit.correlation_range

    def shape(self, n_qubits: int) -> tuple[int, int, int]:
        """The shape of the parameters for a chain of `n_qubits`."""
        return self.circuit.shape(n_qubits)

    def exact_layers(self, n_qubits: int) -> int:
        """How many of the first layers are made without a decomposition.

        2 floor(log2 bond) + 1, or all, with the smallest one of `max_bond`, the circuit's exact
        bond and the chain's, 2^(n_qubits // 2); all of them where `max_bond` is at least the
        chain's and `cutoff` zero.
        """
        if not self.cutoff and self.max_bond >= 2 ** (n_qubits // 2):
            return self.depth
        bond = min(self.max_bond, self.circuit.max_bond, 2 ** (n_qubits // 2))
        return min(self.depth, 2 * (bond.bit_length() - 1) + 1)

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
