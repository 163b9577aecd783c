"""The free MPS: no circuit, the tensors of a matrix product state are the parameters.

Site j's parameters are a matrix X_j of (left) x (bit, right), and its tensor is X_j with the rows
made orthonormal from the first to the last,

    A_j = L_j^-1 X_j,   X_j X_j^H = L_j L_j^H  (Cholesky),      so that   A_j A_j^H = 1.

The state is right-canonical, and its norm one, by construction and without a sweep: all sites at
once. The inverse of a triangular matrix has no differences of eigenvalues or singular values in its
derivative, which stays finite where those are equal. Every state of this bond dimension is reached.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact, PRNGKeyArray

from .._precision import check_precision
from .._types import Angles
from .brickwork import INITIALISERS

#: Passes of the orthogonalisation: the first one is shifted, for matrices of any condition
#: (Fukaya et al., SIAM J. Sci. Comput. 42, A477, 2020).
_PASSES = 3


class FreeMPS(eqx.Module):
    """A matrix product state of bond dimension `max_bond` whose tensors are the parameters.

    Parameters are an array (max_bond, n_qubits, k), row l of site j's matrix being
    ``[l, j, :]`` in the order (bit, right bond) or, for complex states, (bit, right bond, real and
    imaginary part). They have no unit; multiplying a site's matrix by a number changes nothing. The
    bonds near the ends are as narrow as the chain allows, and what lies beyond is not used.

    **Arguments:**

    - `max_bond`: at least 1, the product state.
    - `real`: whether amplitudes are real.

    **Raises:** `ValueError` if `max_bond` is not positive.
    """

    max_bond: int = eqx.field(static=True)
    real: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.max_bond < 1:
            raise ValueError(
                f"max_bond must be at least 1, got {self.max_bond}; 1 is the product state"
            )

    @property
    def kinds(self) -> int:
        """Numbers per entry of a tensor: 1 for real states, 2 for complex ones."""
        return 1 if self.real else 2

    @property
    def doubled_bond(self) -> int:
        """The dimension of the doubled bond, in its basis of real numbers."""
        return self.max_bond * (self.max_bond + 1) // 2 if self.real else self.max_bond**2

    def shape(self, n_qubits: int) -> tuple[int, int, int]:
        """The shape of the parameters for a chain of `n_qubits`."""
        return (self.max_bond, n_qubits, 2 * self.max_bond * self.kinds)

    def bonds(self, n_qubits: int) -> np.ndarray:
        """The dimension of every cut, both ends included: (n_qubits + 1,)."""
        cuts = np.arange(n_qubits + 1)
        widest = np.minimum(np.minimum(cuts, n_qubits - cuts), 30)
        return np.minimum(self.max_bond, 2**widest)

    def init(
        self,
        key: PRNGKeyArray,
        n_qubits: int,
        *,
        how: str = "near-uniform",
        scale: float = 0.1,
        dtype: np.dtype | type = np.float32,
    ) -> Angles:
        """Random start parameters.

        **Arguments:**

        - `how`: `"uniform"` draws every tensor from the Haar measure; `"near-uniform"` adds normal
          noise to a state in which every network is equally likely, and whose bonds forget what
          they carry within log2(max_bond) sites.
        - `scale`: the noise's standard deviation, as a share of the largest entry
          (`"near-uniform"` only).
        """
        if n_qubits < 1:
            raise ValueError(f"n_qubits must be at least 1, got {n_qubits}")
        dtype = check_precision(dtype)
        shape = self.shape(n_qubits)
        noise = jax.random.normal(key, shape, dtype)
        if how == "uniform":
            return noise
        if how != "near-uniform":
            raise ValueError(f"how must be one of {', '.join(INITIALISERS)}, got {how!r}")
        bond = self.max_bond
        rows = np.arange(bond)
        start = np.zeros((bond, 1, 2, bond, self.kinds), dtype)
        for bit in (0, 1):
            start[rows, 0, bit, rows // 2, 0] = (-1.0) ** (bit * (rows % 2))
        return jnp.asarray(start.reshape(bond, 1, -1)) + scale * noise

    def tensors(self, params: Angles) -> Inexact[Array, "n_qubits bond 2 bond"]:
        """Right-canonical tensors (site, left, phys, right), zero where a bond is narrower.

        **Raises:** `ValueError` for parameters of another shape.
        """
        bond, n_qubits, _ = params.shape
        if params.shape != self.shape(n_qubits):
            raise ValueError(
                f"params must have shape {self.shape(n_qubits)} for {n_qubits} qubits, "
                f"got {params.shape}"
            )
        numbers = jnp.swapaxes(params, 0, 1).reshape(n_qubits, bond, 2, bond, self.kinds)
        if self.real:
            tensors = numbers[..., 0]
        else:
            tensors = jax.lax.complex(numbers[..., 0], numbers[..., 1])
        # Behind a barrier: the compiler would evaluate all that follows from constants by itself.
        bonds = jax.lax.optimization_barrier(jnp.asarray(self.bonds(n_qubits), np.int32))
        used = jnp.arange(bond) < bonds[:, None]
        tensors = tensors * used[:-1, :, None, None] * used[1:, None, None, :]
        rows = _orthonormal(tensors.reshape(n_qubits, bond, -1), used[:-1])
        return rows.reshape(n_qubits, bond, 2, bond)


@jax.custom_vjp
def _orthonormal(
    matrices: Inexact[Array, "n rows columns"], used: Bool[Array, "n rows"]
) -> Inexact[Array, "n rows columns"]:
    """Orthonormal rows of the same span, one after the other; rows that are not used are zero."""
    return _factorised(matrices, used)[0]


def _factorised(matrices: jax.Array, used: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A and L of ``X = L A``; rows that are not used are those of the identity in L."""
    n_rows = matrices.shape[1]
    epsilon = jnp.finfo(matrices.dtype).eps
    eye = jnp.eye(n_rows, dtype=matrices.dtype)
    idle = jnp.where(used[:, :, None], 0, eye)
    # The largest entry to one: what follows is then free of over- and underflow.
    largest = jnp.abs(matrices).max((1, 2))[:, None, None]
    largest = jnp.where(largest > 0, largest, 1)
    rows, total = matrices / largest, None
    for number in range(_PASSES):
        gram = jnp.einsum("nlc,nmc->nlm", rows, rows.conj()) + idle
        if number == 0:
            gram = gram + 10 * matrices.shape[2] * epsilon * eye
        lower = jnp.linalg.cholesky(gram)
        rows = jax.scipy.linalg.solve_triangular(lower, rows, lower=True)
        total = lower if total is None else total @ lower
    assert total is not None
    return rows, total * largest


def _orthonormal_forward(matrices: jax.Array, used: jax.Array) -> tuple[jax.Array, tuple]:
    rows, lower = _factorised(matrices, used)
    return rows, (rows, lower)


def _orthonormal_backward(residuals: tuple, cotangent: jax.Array) -> tuple:
    """With K = L^-1 dX A^H, dA = L^-1 dX - (K - W) A, where W, the part of K that is not lower
    triangular with a real diagonal, is made skew-Hermitian."""
    rows, lower = residuals
    gradient = cotangent.conj()
    inner = gradient @ jnp.swapaxes(rows, 1, 2).conj()
    outer = jnp.swapaxes(inner, 1, 2).conj()
    diagonal = jnp.eye(inner.shape[1], dtype=inner.dtype) * (inner - outer) / 2
    through = jnp.triu(inner, 1) - jnp.triu(outer, 1) + diagonal - inner
    found = jax.scipy.linalg.solve_triangular(
        lower, gradient + through @ rows, trans="C", lower=True
    )
    return found.conj(), None


_orthonormal.defvjp(_orthonormal_forward, _orthonormal_backward)
