"""The Fourier coefficients of a compiled loss as device arrays, and the softmax quadrature."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..hamiltonian import CHUNK, FourierTerms, LossHamiltonian


class Tables(eqx.Module):
    """Coefficients in chunks of `CHUNK` frequencies, every table's chunks in a row.

    **Attributes:**

    - `real`, `imag`: (chunks, CHUNK, targets); one more chunk of zeros stands at the end.
    - `weights`, `constants`: the softmax quadrature, ``sum_u (constants_u - weights_u prod)``;
      None for losses that add up over outputs.
    """

    real: Float[Array, "chunks chunk targets"]
    imag: Float[Array, "chunks chunk targets"]
    weights: Float[Array, " targets"] | None
    constants: Float[Array, " targets"] | None

    def contract(
        self,
        chunk: Int[Array, "n chunks_each"],
        real: Float[Array, "n outputs chunks_each chunk"],
        imag: Float[Array, "n outputs chunks_each chunk"],
    ) -> Float[Array, "n outputs targets"]:
        """``Re sum_k c_k phi_k`` for every target, with each example's own coefficients."""
        n, outputs = real.shape[:2]
        highest = jax.lax.Precision.HIGHEST

        def dot(values: jax.Array, table: jax.Array) -> jax.Array:
            flat = table[chunk].reshape(n, -1, table.shape[-1])
            return jnp.einsum(
                "ncf,nft->nct", values.reshape(n, outputs, -1), flat, precision=highest
            )

        return dot(real, self.real) - dot(imag, self.imag)


def fourier_terms(hamiltonian: LossHamiltonian) -> FourierTerms:
    """The Fourier sums of a compiled loss that has them."""
    assert isinstance(hamiltonian.terms, FourierTerms)
    return hamiltonian.terms


def build_tables(hamiltonian: LossHamiltonian, dtype: np.dtype) -> tuple[Tables, np.ndarray]:
    """The tables and the number of each table's first chunk."""
    terms = fourier_terms(hamiltonian)
    stacked = np.concatenate([table.coefficients for table in terms.tables])
    chunks = stacked.reshape(-1, CHUNK, stacked.shape[-1])
    chunks = np.concatenate([chunks, np.zeros_like(chunks[:1])])
    counts = np.array([len(table.coefficients) // CHUNK for table in terms.tables])
    weights = constants = None
    if terms.integral is not None:
        constants = jnp.asarray(terms.integral.constants, dtype)
        weights = jnp.full(len(constants), terms.integral.step, dtype)
    tables = Tables(
        jnp.asarray(chunks.real, dtype), jnp.asarray(chunks.imag, dtype), weights, constants
    )
    return tables, np.cumsum(counts) - counts
