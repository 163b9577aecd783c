"""The Fourier coefficients of a compiled loss as device arrays, and how products are summed."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import AnyArray
from ..hamiltonian import CHUNK, FourierTerms
from .plan import frequency_chunks


class Tables(eqx.Module):
    """Coefficients in chunks of `CHUNK` frequencies, every table's chunks in a row.

    **Attributes:**

    - `real`, `imag`: (chunks, CHUNK, targets); one more chunk of zeros stands at the end.
    - `weights`, `constants`: a loss made of products, ``sum_u (constants_u - weights_u prod)``;
      None for losses that add up over outputs.
    - `ranks`: nodes whose function is another one for the true class, see `FourierTerms`; or 0.
    """

    real: Float[Array, "chunks chunk targets"]
    imag: Float[Array, "chunks chunk targets"]
    weights: Float[Array, " nodes"] | None
    constants: Float[Array, " nodes"] | None
    ranks: int = eqx.field(static=True)

    def nodes(
        self, sums: Float[Array, "*axes targets"], own: Bool[AnyArray, ...]
    ) -> Float[Array, "*axes nodes"]:
        """The factors of the products at every node, by whether the output is the true class."""
        if self.ranks == 0:
            return sums
        return jnp.where(own, sums[..., : self.ranks], sums[..., self.ranks :])

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


def build_tables(terms: FourierTerms, dtype: np.dtype) -> tuple[Tables, np.ndarray]:
    """The tables and the number of each table's first chunk."""
    stacked = np.concatenate([table.coefficients for table in terms.tables])
    chunks = stacked.reshape(-1, CHUNK, stacked.shape[-1])
    chunks = np.concatenate([chunks, np.zeros_like(chunks[:1])])
    counts = np.array([len(table.coefficients) // CHUNK for table in terms.tables])
    weights = constants = None
    if terms.integral is not None:
        constants = jnp.asarray(terms.integral.constants, dtype)
        weights = jnp.full(len(constants), terms.integral.step, dtype)
    elif terms.ranks:
        # One minus the probability of being right, summed over the true class's value.
        constants = jnp.zeros(terms.ranks, dtype).at[0].set(1)
        weights = jnp.ones(terms.ranks, dtype)
    real, imag = jnp.asarray(chunks.real, dtype), jnp.asarray(chunks.imag, dtype)
    tables = Tables(real, imag, weights, constants, terms.ranks)
    return tables, np.cumsum(counts) - counts


def chunk_phases(
    tables: Tables,
    first_chunk: np.ndarray,
    terms: FourierTerms,
    rows: Int[np.ndarray, " n"],
    zeros: Float[np.ndarray, " n"],
    most_chunks: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per row the chunks' numbers and the cosines and sines of all-zero bits' phases.

    **Arguments:**

    - `first_chunk`: of every table, see `build_tables`.
    - `zeros`: the rows' forms where all bits are zero.
    - `most_chunks`: what the number of chunks is padded to, with the chunk of zeros.
    """
    dtype = tables.real.dtype
    position, chunk, frequency = frequency_chunks(terms, rows)
    angle = (zeros - terms.origin[rows])[position, None] * frequency
    shape = (len(rows), most_chunks)
    number = np.full(shape, len(tables.real) - 1, np.int32)
    number[position, chunk] = first_chunk[terms.table[rows]][position] + chunk
    cos, sin = np.zeros((*shape, CHUNK), dtype), np.zeros((*shape, CHUNK), dtype)
    cos[position, chunk], sin[position, chunk] = np.cos(angle), np.sin(angle)
    return number, cos, sin
