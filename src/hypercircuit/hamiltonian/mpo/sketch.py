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

On several devices each has a share of the terms; the columns, all that a site needs of the others'
terms, are summed over the devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from ..._precision import check_precision
from ..._shards import AXIS, Shards
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
    shards: Shards | None = None,
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
    - `shards`: the devices that share the terms out; left out, one.
    """
    dtype = check_precision(dtype)
    n_sites = terms.n_sites
    weights = metric_weights(probabilities, n_sites)
    rng = np.random.default_rng(seed)
    strings = (rng.random((bond, n_sites)) < weights[:, 1]).astype(np.int64)

    roots = np.sqrt(weights).astype(dtype)
    columns: jax.Array | np.ndarray = np.zeros((bond, bond), dtype)
    columns[0] = terms.values(strings)
    work = _Work(terms, strings, dtype, shards)
    coefficients = work.start()
    # Near the end few strings are left: every one is looked at, whatever it weighs.
    n_last = min(int(np.log2(bond)), n_sites)
    enumerated = False
    tensors: list[np.ndarray] = []
    for start in range(0, n_sites, _GROUP):
        if not enumerated and n_sites - start <= n_last + _GROUP:
            strings[:, n_sites - n_last :] = np.resize(_all_strings(n_last), (bond, n_last))
            strings[:, :start] = 0
            work = _Work(terms, strings, dtype, shards)
            columns, enumerated = work.columns(coefficients), True
        stop = min(start + _GROUP, n_sites)
        coefficients, columns, isometries = work.advance(
            coefficients, columns, roots[start:stop], start
        )
        tensors.extend(np.asarray(isometries, np.float64))
        if progress is not None:
            progress(stop, n_sites)
    # Nothing is left of the strings, so that all columns are one.
    tensors[0] = tensors[0][:1]
    tensors[-1] = tensors[-1] @ np.asarray(columns, np.float64).mean(1)[:, None]
    plain = [t / np.sqrt(q)[:, None] for t, q in zip(tensors, weights, strict=True)]
    return DiagonalMPO(tuple(plain))


class _Work:
    """The terms, on one device or shared out over several."""

    def __init__(
        self,
        terms: PhaseTerms,
        strings: Int[np.ndarray, "n n_sites"],
        dtype: np.dtype,
        shards: Shards | None,
    ) -> None:
        self.shards, self.dtype, self.bond = shards, dtype, len(strings)
        shares = [terms] if shards is None else terms.share(len(shards))
        self.n_terms = max(share.n_terms for share in shares)
        own = [0] if shards is None else [number for number, _ in shards.own]
        self._plans = [_Plan(shares, number, strings, dtype) for number in own]
        self._advance = _advance if shards is None else _shared_advance(shards)

    def start(self) -> jax.Array:
        """Every term's coefficients at the chain's start, (n_terms, 2, bond) on every device."""
        shape = (self.n_terms, 2, self.bond)
        if self.shards is None:
            return _first_coefficients(shape, self.dtype)
        make = functools.partial(_first_coefficients, (len(self.shards), *shape), self.dtype)
        return jax.jit(make, out_shardings=self.shards.split)()

    def columns(self, coefficients: jax.Array) -> jax.Array | np.ndarray:
        """The rest of the operator at all strings in the basis so far, from every term."""
        if self.shards is None:
            return self._plans[0].columns(coefficients)
        own = [shard.data[0] for shard in coefficients.addressable_shards]
        parts = [plan.columns(each) for plan, each in zip(self._plans, own, strict=True)]
        return np.asarray(self.shards.gather(self.shards.stack(parts))).sum(0)

    def advance(
        self,
        coefficients: jax.Array,
        columns: jax.Array | np.ndarray,
        roots: np.ndarray,
        start: int,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Move the cut over the group of sites from `start`; groups come in order."""
        groups = [plan.group(start) for plan in self._plans]
        terms = groups[0] if self.shards is None else self.shards.stack(groups)
        strings = self._plans[0].strings(start)
        return self._advance(coefficients, *terms, columns, roots, strings)


def _first_coefficients(shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    return jnp.zeros(shape, dtype).at[..., 0, 0].set(1)


class _Plan:
    """Lays out, group by group of sites, the terms of one share that the group's bits turn.

    The arrays of all shares have the same shapes.
    """

    def __init__(
        self,
        shares: Sequence[PhaseTerms],
        number: int,
        strings: Int[np.ndarray, "n n_sites"],
        dtype: np.dtype,
    ) -> None:
        self.shares, self.number, self.dtype = shares, number, dtype
        self.terms = shares[number]
        self.n_terms = max(share.n_terms for share in shares)
        self.n_rows = max(len(share.example) for share in shares)
        terms = self.terms
        n_blocks, fan_in = terms.sign.shape[1], terms.gains.shape[1]
        self._strings = strings.reshape(len(strings), n_blocks, fan_in).astype(np.float64)
        # What the sites of every block that are left add to each example's phase.
        self._left = np.einsum("ej,mbj->bem", terms.gains, self._strings, optimize=True)
        self._firsts = [
            np.searchsorted(share.row, np.arange(len(share.example) + 1)) for share in shares
        ]
        self._first = self._firsts[number]

    def strings(self, start: int) -> np.ndarray:
        # The bits of the group, (site, string).
        sites = _sites(self.terms, start)
        return self._strings.reshape(len(self._strings), -1)[:, sites].T.astype(self.dtype)

    def columns(self, coefficients: jax.Array) -> jax.Array:
        """The rest of the operator at all strings in the basis so far, from the share's terms."""
        terms = self.terms
        sums = np.einsum("rb,brm->rm", terms.sign, self._left[:, terms.example])
        total = jnp.zeros((coefficients.shape[2], len(self._strings)), self.dtype)
        for start in range(0, terms.n_terms, _TERMS_AT_ONCE):
            part = slice(start, min(start + _TERMS_AT_ONCE, terms.n_terms))
            rest = np.exp(1j * terms.frequency[part, None] * sums[terms.row[part]])
            rest *= terms.coefficient[part, None]
            signed = np.stack([rest.real, -rest.imag], axis=1).astype(self.dtype)
            total += jnp.einsum("tca,tcm->am", coefficients[part], signed, precision=_HIGH)
        return total

    def group(self, start: int) -> tuple[np.ndarray, ...]:
        """What `_advance` takes for the sites from `start`; groups come in order."""
        terms = self.terms
        n_blocks = terms.sign.shape[1]
        blocks, inputs = np.divmod(_sites(terms, start), terms.gains.shape[1])
        of_shares = [_gains(share, start) for share in self.shares]
        gains = of_shares[self.number]
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
        most = max(
            int(np.diff(first)[each.any(1)].sum())
            for each, first in zip(of_shares, self._firsts, strict=True)
        )
        padded = _bucket(most, self.n_terms)
        local = np.repeat(np.arange(len(rows)), counts)
        index = np.full(padded, self.n_terms)
        index[:n_active] = _ranges(self._first[rows], counts)
        row_of = np.zeros(padded, int)
        row_of[:n_active] = local
        frequency, coefficient = np.zeros(padded), np.zeros(padded, complex)
        chosen = index[:n_active]
        frequency[:n_active] = terms.frequency[chosen]
        coefficient[:n_active] = terms.coefficient[chosen]
        fill = ((0, self.n_rows - len(rows)), (0, 0))
        return (
            index.astype(np.int32),
            row_of.astype(np.int32),
            frequency.astype(self.dtype),
            np.stack([coefficient.real, coefficient.imag], 1).astype(self.dtype),
            np.pad(gains[rows], fill).astype(self.dtype),
            np.pad(right, fill).astype(self.dtype),
        )


def _sites(terms: PhaseTerms, start: int) -> np.ndarray:
    return np.arange(start, min(start + _GROUP, terms.n_sites))


def _gains(terms: PhaseTerms, start: int) -> np.ndarray:
    # What a bit that is 1 adds to each row's phase, (row, site of the group).
    blocks, inputs = np.divmod(_sites(terms, start), terms.gains.shape[1])
    return terms.sign[:, blocks] * terms.gains[np.ix_(terms.example, inputs)]


def _move(
    coefficients: jax.Array,
    index: jax.Array,
    row_of: jax.Array,
    frequency: jax.Array,
    term_coefficient: jax.Array,
    gains: jax.Array,
    right: jax.Array,
    columns: jax.Array,
    roots: jax.Array,
    strings: jax.Array,
    *,
    axis: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Move the cut over a group of sites; returns coefficients, columns and (site, 2, bond, bond).

    The isometries' axes are (site, left, bit, right). `axis` is that of the devices which share the
    terms out.
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
        if axis is not None:
            flips = jax.lax.psum(flips, axis)
        zero = jnp.where(bits == 1, columns - flips, columns)
        one = jnp.where(bits == 1, columns, columns + flips)
        both = jnp.stack([zero * root[0], one * root[1]], axis=1).reshape(2 * bond, -1)
        isometry = jnp.linalg.qr(both)[0]
        if axis is not None:
            # Where devices round differently, that of the first one holds.
            isometry = jax.lax.psum(isometry * (jax.lax.axis_index(axis) == 0), axis)
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


_advance = jax.jit(_move, donate_argnums=0)


def _shared_advance(shards: Shards) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    # `_move` on all devices: what belongs to terms has a leading axis of devices.
    def move(*values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        own = [value[0] for value in values[:-3]]
        coefficients, columns, isometries = _move(*own, *values[-3:], axis=AXIS)
        return coefficients[None], columns, isometries

    split, whole = PartitionSpec(AXIS), PartitionSpec()
    shared = jax.shard_map(
        move,
        mesh=shards.mesh,
        in_specs=(*[split] * 7, *[whole] * 3),
        out_specs=(split, whole, whole),
        check_vma=False,
    )
    return jax.jit(shared, donate_argnums=0)


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
