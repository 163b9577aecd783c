"""Minimising a diagonal operator over bitstrings at a cost linear in the length of the chain.

Sites are grouped into cells of `block` neighbouring bits. Everything to the left of a pair of
cells is one vector of the bond, and so is everything to the right,

    left[k]            cell k       cell k + 1        right[k + 2]
    ( w_0 .. ) ------[ a bits ]-----[ b bits ]------- ( .. w_{N-1} )

so that the operator's entries at all 4^block settings of the pair's bits are one small matrix
product. A sweep moves the pair along the chain and keeps the best setting of each: the entry never
rises, and a bitstring that a sweep leaves alone is minimal under every change of two neighbouring
cells. With block 1 these are the flips of single bits and of pairs. A sweep of n starts costs
O(n N 2^block / block chi^2) operations, and all starts share the matrix products. In memory are the
cells, 2^(block - 1) / block times the operator, and the vectors, 2 n N / block chi numbers.

**Why this is DMRG.** Two-site DMRG (S. R. White, Phys. Rev. Lett. 69, 2863 (1992); U. Schollwoeck,
Ann. Phys. 326, 96 (2011)) replaces two tensors by the lowest eigenvector of an effective operator.
For a diagonal operator that one is block diagonal in the two bits, so the lowest eigenvector lies
in one block, that is the bits get definite values, but for degenerate blocks. At bond 1 a block is
a single number, the operator's entry if all other sites hold bits: the eigenvector is the smallest
of four diagonal entries, which is a step of this sweep at block 1. At larger bonds the first sweep
from the left leaves definite bits behind it, which a bond of 1 can hold; what the bond buys is that
the bits are first chosen with the lowest state of the right block in place of one bitstring. After
one sweep the state is a bitstring, and what follows are pair flips. Here beams that are ranked with
many right ends (`beam_search`) take the place of the first sweep, and larger cells search further.

All vectors are scaled and the logs of the scales kept, so that nothing over- or underflows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8

from ..hamiltonian.mpo import DiagonalMPO, metric_weights
from ..hamiltonian.mpo.operator import scaled

#: Bits of a cell; a pair of cells has 4^block settings.
MAX_BLOCK = 6
#: A change must win this many rounding errors of the entries compared.
_ROUNDING = 64 * np.finfo(np.float64).eps
#: Logs of scales are cut off here where temperatures need them as numbers.
_MAX_LOG = 690.0


@dataclasses.dataclass(frozen=True, eq=False)
class Improved:
    """What sweeps made of a batch of bitstrings.

    **Attributes:**

    - `bits`: (n_starts, n_sites), the best that every start passed through.
    - `values`: (n_starts,) the operator's entries there.
    - `history`: (1 + sweeps, n_starts) lowest entry so far, before the first sweep and after each.
    - `evaluations`: entries of the operator that were compared.
    - `converged`: (n_starts,) whether the last sweep changed nothing.
    """

    bits: UInt8[np.ndarray, "n_starts n_sites"]
    values: Float[np.ndarray, " n_starts"]
    history: Float[np.ndarray, "n_records n_starts"]
    evaluations: int
    converged: np.ndarray


def improve(
    mpo: DiagonalMPO,
    bits: Integer[np.ndarray, "n_starts n_sites"],
    *,
    block: int = 2,
    max_sweeps: int = 100,
    temperatures: Sequence[float] | Float[np.ndarray, " n"] = (),
    seed: int = 0,
) -> Improved:
    """Sweep from left to right and back until no change of two neighbouring cells helps.

    **Arguments:**

    - `bits`: the starts, all swept together.
    - `block`: neighbouring bits of a cell, 1 to 6.
    - `max_sweeps`: at most so many without temperature, one sweep being one direction.
    - `temperatures`: in the operator's unit, falling; one sweep each before the others draws the
      pair's setting from exp(-entry / temperature) (heat bath), S. Kirkpatrick, C. D. Gelatt and
      M. P. Vecchi, Science 220, 671 (1983).
    - `seed`: of these draws.

    **Raises:** `ValueError` for bits that do not fit and arguments out of range.
    """
    bits = check_bits(mpo, bits)
    if len(bits) == 0:
        raise ValueError("bits must hold at least one start, got none")
    if not 1 <= block <= MAX_BLOCK:
        raise ValueError(
            f"block must be 1 to {MAX_BLOCK} bits, got {block}; a pair of cells has 4^block "
            "settings"
        )
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1, got {max_sweeps}")
    heats = np.asarray(temperatures, np.float64)
    if not (np.isfinite(heats).all() and (heats > 0).all()):
        raise ValueError(f"temperatures must be above 0, got {heats.tolist()}")
    values = mpo.values(bits)
    if not np.isfinite(values).all():
        raise ValueError(
            "the operator has entries that are not finite numbers at the starts; scale it first"
        )
    chain = _Chain(mpo, bits, block)
    rng = np.random.default_rng(seed)
    best_bits, best = bits.copy(), values.copy()
    history = [best.copy()]
    changed = np.ones(len(bits), bool)
    for sweep in range(len(heats) + max_sweeps):
        temperature = heats[sweep] if sweep < len(heats) else None
        current, changed = chain.sweep(temperature, rng)
        better = current < best
        best_bits[better] = chain.bits()[better]
        best = np.where(better, current, best)
        history.append(best.copy())
        if temperature is None and not changed.any():
            break
    # Entries by sweeps and by `values` differ in rounding; a start is kept where that decides.
    found = mpo.values(best_bits)
    worse = found > values
    best_bits[worse], found[worse] = bits[worse], values[worse]
    return Improved(best_bits, found, np.array(history), chain.evaluations, ~changed)


class _Chain:
    """The cells of an operator, the bits of every start and their vectors at every cut."""

    def __init__(self, mpo: DiagonalMPO, bits: np.ndarray, block: int) -> None:
        self.block, self.n_sites = block, mpo.n_sites
        self.cells = _cells(mpo, block)
        n_cells, n_starts = len(self.cells), len(bits)
        self.digits = np.zeros((n_starts, n_cells), np.int64)
        for cell, start in enumerate(range(0, mpo.n_sites, block)):
            for site in range(start, min(start + block, mpo.n_sites)):
                self.digits[:, cell] = 2 * self.digits[:, cell] + bits[:, site]
        self.rows = np.arange(n_starts)
        one = (np.ones((n_starts, 1)), np.zeros(n_starts))
        self.left, self.right = [one] * (n_cells + 1), [one] * (n_cells + 1)
        for cell in range(n_cells - 1, 0, -1):
            vectors, logs = self.right[cell + 1]
            grown = self._grow_left(cell, vectors)
            chosen = grown[self.rows, :, self.digits[:, cell]]
            self.right[cell] = scaled(chosen, logs)
        self.forward = True
        self.evaluations = 0

    def bits(self) -> np.ndarray:
        columns = []
        for cell, start in enumerate(range(0, self.n_sites, self.block)):
            width = min(self.block, self.n_sites - start)
            shifts = np.arange(width - 1, -1, -1)
            columns.append(self.digits[:, cell, None] >> shifts & 1)
        return np.concatenate(columns, axis=1).astype(np.uint8)

    def sweep(
        self, temperature: float | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Go once along the chain; returns the entries at its end and which starts changed."""
        n_pairs = len(self.cells) - 1
        changed = np.zeros(len(self.rows), bool)
        for k in range(n_pairs) if self.forward else range(n_pairs - 1, -1, -1):
            (left, left_logs), (right, right_logs) = self.left[k], self.right[k + 2]
            # (n, first bits, bond) and (n, bond, second bits)
            first = self._grow_right(k, left)
            second = self._grow_left(k + 1, right)
            entries = np.matmul(first, second).reshape(len(self.rows), -1)
            n_second = second.shape[2]
            logs = left_logs + right_logs
            current = self.digits[:, k] * n_second + self.digits[:, k + 1]
            if temperature is None:
                chosen = entries.argmin(1)
                gain = entries[self.rows, current] - entries[self.rows, chosen]
                size = np.zeros(len(self.rows))
                for a, b in (np.divmod(current, n_second), np.divmod(chosen, n_second)):
                    size += np.abs(first[self.rows, a] * second[self.rows, :, b]).sum(1)
                chosen = np.where(gain > _ROUNDING * size, chosen, current)
            else:
                above = entries - entries.min(1, keepdims=True)
                scales = np.exp(np.minimum(logs, _MAX_LOG))[:, None]
                noise = rng.gumbel(size=entries.shape)
                chosen = (above * scales / temperature - noise).argmin(1)
            changed |= chosen != current
            self.digits[:, k], self.digits[:, k + 1] = np.divmod(chosen, n_second)
            if self.forward:
                vectors = first[self.rows, self.digits[:, k]]
                self.left[k + 1] = scaled(vectors, left_logs)
            else:
                vectors = second[self.rows, :, self.digits[:, k + 1]]
                self.right[k + 1] = scaled(vectors, right_logs)
            self.evaluations += entries.size
        self.forward = not self.forward
        with np.errstate(over="ignore", invalid="ignore"):
            return entries[self.rows, chosen] * np.exp(logs), changed

    def _grow_right(self, cell: int, vectors: np.ndarray) -> np.ndarray:
        tensor = self.cells[cell]
        grown = vectors @ tensor.reshape(tensor.shape[0], -1)
        return grown.reshape(len(vectors), *tensor.shape[1:])

    def _grow_left(self, cell: int, vectors: np.ndarray) -> np.ndarray:
        tensor = self.cells[cell]
        grown = vectors @ tensor.reshape(-1, tensor.shape[2]).T
        return grown.reshape(len(vectors), *tensor.shape[:2])


def beam_search(
    mpo: DiagonalMPO,
    width: int,
    *,
    probabilities: Float[np.ndarray, " n_sites"] | None = None,
    suffixes: Integer[np.ndarray, "n_suffixes n_sites"] | None = None,
) -> tuple[UInt8[np.ndarray, "n n_sites"], Float[np.ndarray, " n"]]:
    """Build bitstrings from the left and keep the `width` most promising beginnings.

    A beginning is ranked by the mean of the entries over its continuations, drawn from a product
    distribution, or by the lowest entry among given continuations. In the second case the result
    is never above the lowest entry of `suffixes`, at any width: its beginning is ranked at least
    as well at every cut. With a width of 2^n_sites the result is the exact minimum.

    **Arguments:**

    - `probabilities`: that each bit is 1, for the mean; uniform if left out.
    - `suffixes`: bitstrings whose right parts are the continuations, in place of the mean.

    **Returns:** distinct bitstrings, best first, and their entries.

    **Raises:** `ValueError` for a width below 1 and for what does not fit the operator.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if suffixes is None:
        factors = metric_weights(probabilities, mpo.n_sites)[:, :, None]
    elif probabilities is not None:
        raise ValueError("give probabilities or suffixes, not both: only one ranks beginnings")
    elif len(suffixes) == 0:
        raise ValueError("suffixes must hold at least one bitstring, got none")
    else:
        strings = check_bits(mpo, suffixes).T
        factors = np.stack([1.0 - strings, 1.0 * strings], axis=1)
    ends = _right_ends(mpo, factors)
    vectors = np.ones((1, 1))
    parents, last_bits = [], []
    for site, tensor in enumerate(mpo.tensors):
        grown = vectors @ tensor.reshape(tensor.shape[0], -1).astype(np.float64)
        # Candidate 2 k + b continues beginning k by bit b.
        grown = grown.reshape(-1, tensor.shape[2])
        scores = (grown @ ends[site + 1]).min(1)
        keep = np.arange(len(scores))
        if len(scores) > width:
            keep = np.argpartition(scores, width - 1)[:width]
        parents.append(keep // 2)
        last_bits.append((keep % 2).astype(np.uint8))
        vectors = grown[keep]
        vectors = vectors / (np.abs(vectors).max() or 1.0)
    row = np.arange(len(vectors))
    bits = np.zeros((len(vectors), mpo.n_sites), np.uint8)
    for site in range(mpo.n_sites - 1, -1, -1):
        bits[:, site] = last_bits[site][row]
        row = parents[site][row]
    values = mpo.values(bits)
    order = np.argsort(values, kind="stable")
    return bits[order], values[order]


def check_bits(mpo: DiagonalMPO, bits: np.ndarray) -> np.ndarray:
    """The bits as uint8.

    **Raises:** `ValueError` unless there is one column per site and all are 0 or 1.
    """
    bits = np.asarray(bits)
    if bits.ndim != 2 or bits.shape[1] != mpo.n_sites:
        raise ValueError(
            f"bits must have one column per site ({mpo.n_sites}), got shape {bits.shape}"
        )
    if not ((bits == 0) | (bits == 1)).all():
        raise ValueError(f"bits must be 0 or 1, got values from {bits.min()} to {bits.max()}")
    return bits.astype(np.uint8)


def _cells(mpo: DiagonalMPO, block: int) -> list[np.ndarray]:
    """Tensors (left, settings, right) of `block` sites, two cells at least."""
    cells = []
    for start in range(0, mpo.n_sites, block):
        cell = np.eye(mpo.tensors[start].shape[0])
        left = len(cell)
        for tensor in mpo.tensors[start : start + block]:
            cell = np.tensordot(cell, tensor.astype(np.float64), axes=1)
            cell = cell.reshape(-1, tensor.shape[2])
        cells.append(cell.reshape(left, -1, cell.shape[1]))
    if len(cells) == 1:
        cells.append(np.ones((1, 1, 1)))
    return cells


def _right_ends(
    mpo: DiagonalMPO, factors: Float[np.ndarray, "n_sites 2 n_ends"]
) -> list[np.ndarray]:
    """Vectors (bond, end) at every cut, the bits to its right weighted; one scale for all ends."""
    ends = [np.ones((1, factors.shape[2]))]
    for tensor, weights in zip(mpo.tensors[::-1], factors[::-1], strict=True):
        vectors = sum(
            (tensor[:, bit].astype(np.float64) @ ends[-1]) * weights[bit] for bit in range(2)
        )
        ends.append(vectors / (np.abs(vectors).max() or 1.0))
    return ends[::-1]
