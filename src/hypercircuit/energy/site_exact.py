"""The exact energy of linear networks in states of site tensors.

Losses that add up over outputs take the characteristic function of every block of sites, one
environment per frequency. Losses of all outputs together are products over the blocks,

    E[prod_c f_c(z_c)] at a node:   E -> Hermitian part of sum_k c_k (block with exp(i nu_k z_c)) E

block after block, with one environment per node before a block and per node and frequency within
it, because blocks of a truncated or free state are correlated at any distance. That is many more
sweeps than the exact state of a shallow circuit needs: it is meant for final energies, and for
training where the bond and the register are small.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._types import AnyArray
from ..circuit import Chain
from ..hamiltonian import CHUNK, LossHamiltonian
from ..state import ChainMPS, State
from .base import Batch, PreparedEnergy
from .forms import linear_forms
from .linear import mean_outputs
from .plan import frequency_chunks
from .site_scan import carry_products, in_groups
from .tables import build_tables, chunk_phases

#: An example's floating-point operations beyond which exact values are not taken for comparison.
MOST_OPERATIONS = 2e10


def operations(hamiltonian: LossHamiltonian, bond: int) -> float:
    """Floating-point operations of the dearest example's energy, roughly."""
    forms = linear_forms(hamiltonian)
    layout, terms = forms.layout, forms.terms
    sweeps = float(terms.n_terms.max()) * forms.per_example
    blocks = layout.n_blocks
    if terms.joint:
        tables, _ = build_tables(terms, np.dtype(np.float32))
        assert tables.constants is not None
        blocks = 1 + (layout.n_blocks - 1) * len(tables.constants)
    return 32.0 * bond**3 * layout.fan_in * blocks * sweeps


class SiteBatch(Batch):
    """One batch of examples; `rows` are those of its linear forms.

    **Attributes:**

    - `frequency`: angle per unit input of every frequency.
    - `chunk`: the coefficients' chunks.
    - `cos`, `sin`: the phases of all-zero bits.
    """

    weights: Float[AnyArray, " n"]
    x: Float[AnyArray, "rows fan_in"]
    y: Int[AnyArray, " n"]
    targets: Bool[AnyArray, "rows blocks"]
    shift: Float[AnyArray, " rows"]
    frequency: Float[AnyArray, "rows chunks chunk"]
    chunk: Int[AnyArray, "rows chunks"]
    cos: Float[AnyArray, "rows chunks chunk"]
    sin: Float[AnyArray, "rows chunks chunk"]


class SiteExactEnergy(PreparedEnergy):
    """All product terms of a linear network's loss in a truncated or free state."""

    site_tensors = True

    def __init__(
        self, hamiltonian: LossHamiltonian, circuit: Chain, batch_size: int, dtype: np.dtype
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        self.forms = linear_forms(hamiltonian)
        self.layout = self.forms.layout
        self.tables, self._first_chunk = build_tables(self.forms.terms, self.dtype)
        self._most_chunks = int(self.forms.terms.n_terms.max()) // CHUNK

    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> SiteBatch:
        examples, weights = self.filled(examples, weights)
        rows = self.forms.rows(examples)
        inputs, terms = self.forms.inputs(rows), self.forms.terms
        position, chunk, frequency = frequency_chunks(terms, rows)
        every = np.zeros((len(rows), self._most_chunks, CHUNK), self.dtype)
        every[position, chunk] = self.forms.outputs.gain * frequency
        zeros = self.forms.outputs.base * inputs.sum(1)
        return SiteBatch(
            weights,
            inputs.astype(self.dtype),
            self.hamiltonian.data.y[examples],
            self.forms.targets(rows),
            terms.shift[rows].astype(self.dtype),
            every,
            *chunk_phases(self.tables, self._first_chunk, terms, rows, zeros, self._most_chunks),
        )

    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        assert isinstance(batch, SiteBatch)
        assert isinstance(mps, ChainMPS)
        tables = self.tables
        if tables.weights is None:
            sums = self._sums(mps, batch)
            each = jnp.where(batch.targets, sums[..., 1], sums[..., 0]).sum(1)
            return each.reshape(-1, self.forms.per_example).sum(1)
        assert tables.constants is not None
        joint = self._joint(mps, batch)
        value = (tables.constants - tables.weights * joint).sum(1) + batch.shift
        if self.forms.terms.integral is None:
            return value
        mean = mean_outputs(self.forms.outputs, mps, jnp.asarray(batch.x))
        return value - jnp.take_along_axis(mean, batch.y[:, None], axis=1)[:, 0]

    def _blocks(self) -> Int[np.ndarray, "fan_in blocks"]:
        """The sites of every block."""
        layout = self.layout
        first = layout.start + layout.fan_in * np.arange(layout.n_blocks)
        return first + np.arange(layout.fan_in)[:, None]

    def _sums(self, mps: ChainMPS, batch: SiteBatch) -> Float[Array, "rows blocks targets"]:
        """``E[f(z)]`` of every block by itself, for every target function."""
        sites = self._blocks()
        tensors = mps.sites[sites]
        left, right = mps.left[sites[0]], mps.right[sites[-1] + 1]
        n_blocks, bond = sites.shape[1], mps.max_bond
        n_frequencies = self._most_chunks * CHUNK

        def some(x: jax.Array, frequency: jax.Array) -> jax.Array:
            shape = (n_blocks, *frequency.shape, bond, bond)
            start = jnp.broadcast_to(left[:, None, None], shape)
            found = carry_products(start, tensors, x.T, frequency)
            values = jnp.einsum("bnflm,blm->nbf", found, right)
            # Frequency zero is the total probability: what rounding made of it is divided out.
            return values / values[..., :1].real

        n_bytes = n_blocks * n_frequencies * bond**2 * 2 * self.dtype.itemsize
        frequency = jnp.asarray(batch.frequency).reshape(len(batch.x), -1)
        values = in_groups(some, n_bytes, jnp.asarray(batch.x), frequency)
        values = values.reshape(*values.shape[:2], -1, CHUNK)
        turned = values * jax.lax.complex(batch.cos, batch.sin)[:, None]
        return self.tables.contract(jnp.asarray(batch.chunk), turned.real, turned.imag)

    def _coefficients(
        self, batch: SiteBatch, own: Bool[AnyArray, " rows"]
    ) -> Complex[Array, "rows frequencies nodes"]:
        """What the products of a block are summed with, all-zero bits' phases included."""
        tables = self.tables
        real, imag = (part[batch.chunk] for part in (tables.real, tables.imag))
        flag = jnp.asarray(own)[:, None, None, None]
        table = jax.lax.complex(tables.nodes(real, flag), tables.nodes(imag, flag))
        table = table * jax.lax.complex(batch.cos, batch.sin)[..., None]
        return table.reshape(len(table), -1, table.shape[-1])

    def _joint(self, mps: ChainMPS, batch: SiteBatch) -> Float[Array, "rows nodes"]:
        """``E[prod_c f_c(z_c)]`` at every node."""
        sites, bond = self._blocks(), mps.max_bond
        n_rows, n_frequencies = len(batch.x), self._most_chunks * CHUNK
        x = jnp.asarray(batch.x)
        frequency = jnp.asarray(batch.frequency).reshape(n_rows, -1)
        n_bytes = n_frequencies * bond**2 * 2 * self.dtype.itemsize
        environments = jnp.broadcast_to(mps.left[sites[0, 0]], (n_rows, 1, bond, bond))
        for block in range(sites.shape[1]):
            tensors = mps.sites[sites[:, block]][:, None]
            coefficients = self._coefficients(batch, batch.targets[:, block])
            # Before the first block all nodes have one environment.
            n_nodes, width = environments.shape[1], coefficients.shape[-1] // environments.shape[1]

            def some(
                start: jax.Array,
                x: jax.Array,
                frequency: jax.Array,
                coefficients: jax.Array,
                tensors: jax.Array = tensors,
            ) -> jax.Array:
                shape = (1, *frequency.shape, bond, bond)
                start = jnp.broadcast_to(start[None, :, None], shape)
                found = carry_products(start, tensors, x.T, frequency)[0]
                summed = jnp.einsum("nflm,nfu->nulm", found, coefficients)
                return (summed + jnp.swapaxes(summed, -1, -2).conj()) / 2

            split = coefficients.reshape(n_rows, n_frequencies, n_nodes, width)
            split = jnp.moveaxis(split, 2, 1).reshape(n_rows * n_nodes, n_frequencies, width)
            found = in_groups(
                some,
                n_bytes,
                environments.reshape(n_rows * n_nodes, bond, bond),
                jnp.repeat(x, n_nodes, axis=0),
                jnp.repeat(frequency, n_nodes, axis=0),
                split,
            )
            environments = found.reshape(n_rows, n_nodes * width, bond, bond)
        right = mps.right[sites[-1, -1] + 1]
        return jnp.einsum("nulm,lm->nu", environments, right).real
