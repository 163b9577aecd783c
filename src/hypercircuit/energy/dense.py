"""The statevector energy: the loss of all 2^N networks against the Born distribution.

The chain is cut between two cells near its middle. Each half is contracted from its end,

    A[x, i]: amplitudes of the left half's bits x,      B[y, i]: of the right half's bits y,

with the bond index i of the cut, so that psi[x, y] = sum_i A[x, i] B[y, i]. With C[x, y] the loss
of network (x, y) there are two ways to the energy sum_xy |psi[x, y]|^2 C[x, y]:

    small bond    |psi|^2 = sum_k L[x, k] R[y, k] with bond^2 real products k of the amplitudes,
                  so the energy is sum_yk (C^T L)[y, k] R[y, k]: one matrix product, in which C is
                  shared by all the states of a batch, and no array of 2^N entries is made
    large bond    psi = A B^T written out, then squared and summed

The energy is exact for the compiled loss; it is the reference for up to 24 qubits.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Angles, AnyArray, CellTensors
from ..circuit import Brickwork, Chain
from ..hamiltonian import LossHamiltonian
from ..hamiltonian.diagonal import MAX_QUBITS
from ..state import ChainMPS, ExactMPS, State, prepare_state
from .base import Batch, CompleteEnergy, PreparedEnergy

#: The largest bond of the cut for which the bond's real products are cheaper than amplitudes.
_SMALL_BOND = 8


@dataclasses.dataclass(frozen=True)
class Statevector:
    """The exact energy of the complete data from all 2^N losses, for at most 24 qubits.

    It is one energy of all the examples at once and knows no minibatches: its only batch holds
    every example. It agrees with `Exact()` up to rounding, whatever the spectral error of the
    compiled loss, because both evaluate the same operator.
    """

    @property
    def name(self) -> str:
        return "statevector"

    def prepare(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        *,
        batch_size: int,
        dtype: np.dtype | type = np.float32,
    ) -> PreparedEnergy:
        """Write out the losses of all networks, once for each compiled loss.

        **Arguments:**

        - `batch_size`: `hamiltonian.n_examples`; there is no other batch.

        **Raises:** `ValueError` above 24 qubits or for another batch size.
        """
        return StatevectorEnergy(hamiltonian, circuit, batch_size, np.dtype(dtype))


class StatevectorBatch(Batch):
    """All the examples, of equal weight, and the loss of every network (left half, right half)."""

    weights: Float[AnyArray, " n"]
    losses: Float[AnyArray, "n_left n_right"]


class StatevectorEnergy(CompleteEnergy):
    """See [`hypercircuit.Statevector`][]."""

    site_tensors = True

    def __init__(
        self, hamiltonian: LossHamiltonian, circuit: Chain, batch_size: int, dtype: np.dtype
    ) -> None:
        check_statevector(hamiltonian.n_qubits)
        super().__init__(hamiltonian, circuit, batch_size, dtype)

    def whole(self) -> StatevectorBatch:
        """The one batch there is."""
        return self._batch

    @functools.cached_property
    def _batch(self) -> StatevectorBatch:
        n_left = 4 ** (((self.hamiltonian.n_qubits + 1) // 2) // 2)
        losses = self.hamiltonian.diagonal().astype(self.dtype).reshape(n_left, -1)
        weights = np.full(self.batch_size, 1 / self.batch_size, self.dtype)
        return StatevectorBatch(weights, jnp.asarray(losses))

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> StatevectorBatch:
        """The one batch there is; the order of the examples is of no account.

        **Raises:** `ValueError` unless every example is in it once, all of one weight.
        """
        self.check_complete(examples, weights)
        return self._batch

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        """The energy of the complete data once for every example: there are no others here."""
        return jnp.broadcast_to(self._of(mps, batch), batch.weights.shape)

    def __call__(self, params: Angles, batch: Batch) -> Float[Array, ""]:
        if isinstance(self.circuit, Brickwork):
            return self._of_cells(self.circuit.cells(params), batch)
        return self._of(prepare_state(self.circuit, params), batch)

    def _of(self, mps: State, batch: Batch) -> Float[Array, ""]:
        if isinstance(mps, ChainMPS):
            return self._of_sites(mps, batch)
        return self._of_cells(mps.cells, batch) if mps.cells is not None else _of_maps(mps, batch)

    def _of_sites(self, mps: ChainMPS, batch: Batch) -> Float[Array, ""]:
        assert isinstance(batch, StatevectorBatch)
        psi = mps.to_statevector().reshape(batch.losses.shape)
        return jnp.sum((psi.real**2 + psi.imag**2) * batch.losses)

    def _of_cells(self, cells: CellTensors, batch: Batch) -> Float[Array, ""]:
        assert isinstance(batch, StatevectorBatch)
        left, right = halves(cells, self.hamiltonian.n_qubits)
        if left.shape[1] > _SMALL_BOND:
            psi = left @ right.T
            return jnp.sum((psi.real**2 + psi.imag**2) * batch.losses)
        products = batch.losses.T @ _bond_products(left, conjugate=False)
        return jnp.sum(products * _bond_products(right, conjugate=True))


def check_statevector(n_qubits: int) -> None:
    """Refuse more qubits than can be written out.

    **Raises:** `ValueError` above 24 qubits.
    """
    if n_qubits > MAX_QUBITS:
        raise ValueError(
            f"the statevector energy takes at most {MAX_QUBITS} qubits, got {n_qubits}; use "
            "energy.kind='exact' or 'cumulant', or a smaller network"
        )


def halves(cells: CellTensors, n_qubits: int) -> tuple[jax.Array, jax.Array]:
    """The amplitudes of the left and the right half for every bond index of the cut.

    Of shapes (4^n, bond) and (2^(n_qubits - 2 n), bond), n = n_cells // 2, site 0 most
    significant. A single cell is all right half.
    """
    n_cells, bond = cells.shape[:2]
    cut = n_cells // 2
    left = jnp.zeros((1, bond), cells.dtype).at[0, 0].set(1)
    for k in range(cut):
        left = jnp.tensordot(left, cells[k], axes=1).reshape(-1, bond)
    right = jnp.ones((bond, 1), cells.dtype)
    for k in reversed(range(cut, n_cells)):
        cell = cells[k]
        if k == n_cells - 1 and n_qubits % 2 == 1:
            cell = cell[:, :, :1]  # the idle site stays 0
        right = jnp.tensordot(cell, right, axes=1).reshape(bond, -1)
    return left, right.T


def _of_maps(mps: ExactMPS, batch: Batch) -> Float[Array, ""]:
    """The energy of a mixed state: its probabilities are sums over the doubled bond."""
    assert isinstance(batch, StatevectorBatch)
    left, right = probability_halves(mps)
    return jnp.sum((batch.losses.T @ left) * right)


def probability_halves(mps: ExactMPS) -> tuple[jax.Array, jax.Array]:
    """Arrays (4^n, doubled) and (2^(n_qubits - 2 n), doubled), n = n_cells // 2.

    The products over the doubled bond of their rows are the probabilities of all networks.
    """
    n_cells, _, doubled, _ = mps.maps.shape
    cut = n_cells // 2
    left, right = mps.left[:1], mps.right[-1:].T
    for k in range(cut):
        left = jnp.einsum("mx,sxy->msy", left, mps.maps[k]).reshape(-1, doubled)
    for k in reversed(range(cut, n_cells)):
        maps = mps.maps[k]
        if k == n_cells - 1 and mps.n_qubits % 2 == 1:
            maps = maps[::2]  # the idle site stays 0
        right = jnp.einsum("sxy,ym->xsm", maps, right).reshape(doubled, -1)
    return left, right.T


def _bond_products(amplitudes: jax.Array, *, conjugate: bool) -> jax.Array:
    """Real numbers whose products over both halves sum up to |psi|^2, (n, bond^2).

    With q_ij = a_i conj(a_j), |sum_i a_i b_i|^2 = sum_ij Re q_ij(a) Re q_ij(b) - Im Im. Re q is
    symmetric in ij and Im q antisymmetric, so Re + Im of one half and Re - Im of the other, which
    `conjugate` asks for, give the same sum: the mixed products cancel.
    """
    real, imaginary = amplitudes.real, amplitudes.imag
    if not jnp.iscomplexobj(amplitudes):
        products = real[:, :, None] * real[:, None, :]
    else:
        if conjugate:
            imaginary = -imaginary
        first, second = real - imaginary, real + imaginary
        products = real[:, :, None] * first[:, None, :] + imaginary[:, :, None] * second[:, None, :]
    return products.reshape(len(amplitudes), -1)
