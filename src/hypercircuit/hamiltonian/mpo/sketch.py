"""Compressing sums of very many product terms in one pass over the chain.

    C(w) = Re sum_t c_t exp(i nu_t sum_j g_{r(t) j} w_j)

Term t has a frequency nu_t and the phases of row r(t) of the data. From left to right a basis of
functions of the bits so far is kept, orthonormal in the metric, together with every term's
coefficients L in it; a site doubles the basis, and a range finder picks the part that matters:

    Y[(a, w_j), s] = sum_t L_t[a] exp(i nu_t g_j w_j) c_t exp(i nu_t sum_{i > j} g_i s_i),

the columns of the rest of the operator at bitstrings s drawn from the metric's distribution. With
Y = Q R the isometry Q is the site's tensor, and L is projected onto it, so that errors of all sites
are orthogonal to each other and nothing grows or vanishes along the chain.

Two things make a pass cheap. The columns of the next site are Q^T Y already, but for the bit at
which the string is cut; flipping it concerns the rows whose input there is not zero. And rows whose
inputs are zero for several sites need one product of their coefficients for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..._precision import check_precision
from ..._threads import one_lapack_thread
from .operator import DiagonalMPO, metric_weights
from .phases import PhaseTerms

#: Neighbouring sites between two updates of the coefficients of idle rows.
_GROUP = 4
_TERMS_AT_ONCE = 1 << 14
#: Below this, a step's terms cost less than compiling another program.
_SMALL = 1 << 13
#: Rounding the products off to less than their type would end up in the operator.
_HIGH = jax.lax.Precision.HIGHEST


@one_lapack_thread()
def sketch(
    terms: PhaseTerms,
    bond: int,
    *,
    probabilities: Float[np.ndarray, " n_sites"] | None = None,
    seed: int = 0,
    dtype: np.dtype | type = np.float32,
    progress: Callable[[int, int], None] | None = None,
) -> DiagonalMPO:
    """The terms' sum as an operator of this bond dimension, see the module's text.

    The result is nearly as close, in the metric, as an operator of somewhat smaller bond dimension
    can be: make it wider than needed and truncate with `compress`. But for its last tensor it is
    orthonormal from the left in the metric.

    **Arguments:**

    - `bond`: of all cuts but those near the ends.
    - `probabilities`: of the metric.
    - `dtype`: of the large products; float64 needs JAX's x64 mode.
    - `progress`: is told sites done and sites in all.
    """
    dtype = check_precision(dtype)
    n_sites = terms.n_sites
    weights = metric_weights(probabilities, n_sites)
    rng = np.random.default_rng(seed)
    strings = (rng.random((bond, n_sites)) < weights[:, 1]).astype(np.int64)

    roots = jnp.asarray(np.sqrt(weights), dtype)
    coefficients = jnp.zeros((terms.n_terms, 2, bond), dtype).at[:, 0, 0].set(1)
    columns = jnp.zeros((bond, bond), dtype)
    columns = columns.at[0].set(jnp.asarray(terms.values(strings), dtype))
    plan = _Plan(terms, strings, dtype)
    # Near the end few strings are left: every one is looked at, whatever it weighs.
    n_last = min(int(np.log2(bond)), n_sites)
    enumerated = False
    tensors: list[np.ndarray] = []
    for start in range(0, n_sites, _GROUP):
        if not enumerated and n_sites - start <= n_last + _GROUP:
            strings[:, n_sites - n_last :] = np.resize(_all_strings(n_last), (bond, n_last))
            strings[:, :start] = 0
            plan, enumerated = _Plan(terms, strings, dtype), True
            columns = plan.columns(coefficients)
        work = plan.group(start)
        stop = min(start + _GROUP, n_sites)
        coefficients, columns, isometries = _advance(
            coefficients, columns, roots[start:stop], *work
        )
        tensors.extend(np.asarray(isometries, np.float64))
        if progress is not None:
            progress(stop, n_sites)
    # Nothing is left of the strings, so that all columns are one.
    tensors[0] = tensors[0][:1]
    tensors[-1] = tensors[-1] @ np.asarray(columns, np.float64).mean(1)[:, None]
    plain = [t / np.sqrt(q)[:, None] for t, q in zip(tensors, weights, strict=True)]
    return DiagonalMPO(tuple(plain))


class _Plan:
    """Lays out, group by group of sites, the terms that the group's bits turn."""

    def __init__(
        self, terms: PhaseTerms, strings: Int[np.ndarray, "n n_sites"], dtype: np.dtype
    ) -> None:
        self.terms, self.dtype = terms, dtype
        n_blocks, fan_in = terms.sign.shape[1], terms.gains.shape[1]
        self._strings = strings.reshape(len(strings), n_blocks, fan_in).astype(np.float64)
        # What the sites of every block that are left add to each example's phase.
        self._left = np.einsum("ej,mbj->bem", terms.gains, self._strings, optimize=True)
        self._first = np.searchsorted(terms.row, np.arange(len(terms.example) + 1))

    def columns(self, coefficients: jax.Array) -> jax.Array:
        """The rest of the operator at all strings in the basis so far, from every term."""
        terms = self.terms
        sums = np.einsum("rb,brm->rm", terms.sign, self._left[:, terms.example])
        total = jnp.zeros((coefficients.shape[2], len(self._strings)), self.dtype)
        for start in range(0, terms.n_terms, _TERMS_AT_ONCE):
            part = slice(start, start + _TERMS_AT_ONCE)
            rest = np.exp(1j * terms.frequency[part, None] * sums[terms.row[part]])
            rest *= terms.coefficient[part, None]
            signed = np.stack([rest.real, -rest.imag], axis=1).astype(self.dtype)
            total += jnp.einsum("tca,tcm->am", coefficients[part], signed, precision=_HIGH)
        return total

    def group(self, start: int) -> tuple[np.ndarray, ...]:
        """What `_advance` takes for the sites from `start`; groups come in order."""
        terms = self.terms
        n_blocks, fan_in = terms.sign.shape[1], terms.gains.shape[1]
        sites = np.arange(start, min(start + _GROUP, terms.n_sites))
        blocks, inputs = np.divmod(sites, fan_in)
        gains = terms.sign[:, blocks] * terms.gains[np.ix_(terms.example, inputs)]
        rows = np.flatnonzero(gains.any(1))
        # Everything to the right of the group, in double precision.
        for block in np.unique(blocks):
            done = inputs[blocks == block]
            self._left[block] -= terms.gains[:, done] @ self._strings[:, block, done].T
        right = np.zeros((len(rows), len(self._strings)))
        example = terms.example[rows]
        for block in range(blocks[-1], n_blocks):
            right += terms.sign[rows, block][:, None] * self._left[block, example]
        counts = self._first[rows + 1] - self._first[rows]
        n_active = int(counts.sum())
        padded = _bucket(n_active, terms.n_terms)
        local = np.repeat(np.arange(len(rows)), counts)
        index = np.full(padded, terms.n_terms)
        index[:n_active] = _ranges(self._first[rows], counts)
        row_of = np.zeros(padded, int)
        row_of[:n_active] = local
        frequency, coefficient = np.zeros(padded), np.zeros(padded, complex)
        chosen = index[:n_active]
        frequency[:n_active] = terms.frequency[chosen]
        coefficient[:n_active] = terms.coefficient[chosen]
        fill = ((0, len(terms.example) - len(rows)), (0, 0))
        strings = self._strings.reshape(len(self._strings), -1)[:, sites].T
        return (
            index.astype(np.int32),
            row_of.astype(np.int32),
            frequency.astype(self.dtype),
            np.stack([coefficient.real, coefficient.imag], 1).astype(self.dtype),
            np.pad(gains[rows], fill).astype(self.dtype),
            np.pad(right, fill).astype(self.dtype),
            strings.astype(self.dtype),
        )


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _advance(
    coefficients: jax.Array,
    columns: jax.Array,
    roots: jax.Array,
    index: jax.Array,
    row_of: jax.Array,
    frequency: jax.Array,
    term_coefficient: jax.Array,
    gains: jax.Array,
    right: jax.Array,
    strings: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Move the cut over a group of sites; returns coefficients, columns and (site, 2, bond, bond).

    The isometries' axes are (site, left, bit, right).
    """
    bond = columns.shape[0]
    n_sites = strings.shape[0]
    # What fills the index up reads some term, which its coefficient of zero silences.
    active = coefficients.at[index].get(mode="clip", indices_are_sorted=True)
    # The rest of every term at every string, from the group's start, conjugated.
    angle = right + jnp.matmul(gains, strings, precision=_HIGH)
    phase = frequency[:, None] * angle[row_of]
    real, imag = jnp.cos(phase), -jnp.sin(phase)
    a, b = term_coefficient[:, :1], -term_coefficient[:, 1:]
    rest = jnp.stack([a * real - b * imag, a * imag + b * real], axis=1)
    product = jnp.eye(bond, dtype=columns.dtype)

    def site(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        active, rest, columns, product = carry
        root, bits, gain = inputs
        turn = frequency * gain[row_of]
        cos, sin = jnp.cos(turn)[:, None], jnp.sin(turn)[:, None]
        # Strings whose bit here is 1 leave that bit behind; `rest` is conjugated.
        c = jnp.where(bits == 1, cos, 1)
        s = jnp.where(bits == 1, sin, 0)
        real, imag = rest[:, 0], rest[:, 1]
        rest = jnp.stack([c * real - s * imag, s * real + c * imag], axis=1)
        x, y = active[:, 0], active[:, 1]
        less = -2 * jnp.sin(0.5 * turn)[:, None] ** 2  # cos - 1 without its cancellation
        change = jnp.stack([less * x - sin * y, less * y + sin * x], axis=1)
        flat_change = change.reshape(-1, bond)
        flips = jnp.matmul(flat_change.T, rest.reshape(flat_change.shape[0], -1), precision=_HIGH)
        zero = jnp.where(bits == 1, columns - flips, columns)
        one = jnp.where(bits == 1, columns, columns + flips)
        both = jnp.stack([zero * root[0], one * root[1]], axis=1).reshape(2 * bond, -1)
        isometry = jnp.linalg.qr(both)[0]
        tensor = isometry.reshape(bond, 2, bond)
        columns = jnp.matmul(isometry.T, both, precision=_HIGH)
        on_zero, on_one = root[0] * tensor[:, 0], root[1] * tensor[:, 1]
        flat = active.reshape(-1, bond)
        moved = jnp.matmul(flat, on_zero + on_one, precision=_HIGH)
        moved = moved + jnp.matmul(flat_change, on_one, precision=_HIGH)
        product = jnp.matmul(product, on_zero + on_one, precision=_HIGH)
        return (moved.reshape(active.shape), rest, columns, product), tensor

    carry = (active, rest, columns, product)
    (active, _, columns, product), isometries = jax.lax.scan(
        site, carry, (roots[:n_sites], strings, gains.T)
    )
    idle = jnp.matmul(coefficients.reshape(-1, bond), product, precision=_HIGH)
    coefficients = (
        idle.reshape(coefficients.shape).at[index].set(active, mode="drop", indices_are_sorted=True)
    )
    return coefficients, columns, isometries


def _all_strings(n_sites: int) -> np.ndarray:
    """All bitstrings of this length, (2^n_sites, n_sites)."""
    return (np.arange(2**n_sites)[:, None] >> np.arange(n_sites)[::-1]) & 1


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """All the numbers of the ranges of these starts and lengths, one after the other."""
    if not len(counts):
        return np.zeros(0, int)
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)


def _bucket(count: int, largest: int) -> int:
    """The least of a few sizes that holds `count`, so that few programs are compiled."""
    size = largest
    while True:
        smaller = int((0.7 if size > _SMALL else 0.2) * size)
        if smaller < max(count, 16):
            return size
        size = smaller
