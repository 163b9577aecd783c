"""The losses of linear networks as products of phases, fitted to what a metric's networks reach.

A compiled loss holds Fourier sums that are good for every logit that any network can reach. Most
networks of a product distribution reach much less: an example's logit has mean mu and deviation
sigma under it, and beyond `WINDOW` sigma hardly any weight. A sum on that window alone needs fewer
frequencies, and the fewer the narrower the distribution: that is what is compressed. On lattices
it is exact on the window, otherwise a least-squares fit as good there as the compiled sum.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Complex, Float, Int, Real

from ..compile import LossHamiltonian
from ..losses import OutputLoss, PairwiseLogistic, ZeroOne, output_targets
from ..terms import FourierTerms

#: Deviations of a logit to either side of its mean that a sum is fitted to.
WINDOW = 6.0
#: The least half-width of a window, in logits: a decided logit must be free to move a little.
_MIN_HALF = 0.5
#: Stands for the half-width of a window that holds all that can be reached.
_EVERYTHING = 1 << 20
_TERMS_AT_ONCE = 1 << 14


@dataclasses.dataclass(frozen=True, eq=False)
class PhaseTerms:
    """A sum of products of phases on a chain of blocks of equal length.

        C(w) = Re sum_t coefficient_t exp(i frequency_t sum_bj sign[r, b] gains[e, j] w_bj)

    with r the row of term t and e the example of row r.

    **Attributes:**

    - `gains`: (n_examples, fan_in), the phase per unit frequency of a bit that is 1.
    - `example`, `sign`: of every row, the latter -1, 0 or 1 for every block.
    - `row`, `frequency`, `coefficient`: of every term, row by row.
    """

    gains: Float[np.ndarray, "n_examples fan_in"]
    example: Int[np.ndarray, " n_rows"]
    sign: Int[np.ndarray, "n_rows n_blocks"]
    row: Int[np.ndarray, " n_terms"]
    frequency: Float[np.ndarray, " n_terms"]
    coefficient: Complex[np.ndarray, " n_terms"]

    @property
    def n_sites(self) -> int:
        return self.sign.shape[1] * self.gains.shape[1]

    @property
    def n_terms(self) -> int:
        return len(self.row)

    def values(
        self, bits: Real[np.ndarray, "n_networks n_sites"]
    ) -> Float[np.ndarray, " n_networks"]:
        """The sum at bitstrings, term by term."""
        blocks = bits.reshape(len(bits), self.sign.shape[1], -1).astype(np.float64)
        per_example = np.einsum("ej,mbj->ebm", self.gains, blocks, optimize=True)
        totals = np.zeros(len(bits))
        for start in range(0, self.n_terms, _TERMS_AT_ONCE):
            part = slice(start, start + _TERMS_AT_ONCE)
            rows = self.row[part]
            sums = np.einsum("rb,rbm->rm", self.sign[rows], per_example[self.example[rows]])
            phases = self.frequency[part, None] * sums
            coefficient = self.coefficient[part]
            totals += coefficient.real @ np.cos(phases) - coefficient.imag @ np.sin(phases)
        return totals

    def fitting(self, memory: int, term_bytes: int) -> int:
        """How many terms of `term_bytes` each `memory` holds.

        **Raises:** `ValueError` if those of the longest row are more.
        """
        least = int(np.bincount(self.row).max()) * term_bytes
        if memory < least:
            raise ValueError(
                f"memory must hold the terms of one example, at least {least} bytes at this "
                f"max_bond, got {memory}; raise it or lower max_bond"
            )
        return memory // term_bytes

    def split(self, n_terms: int) -> Iterator[PhaseTerms]:
        """Sums of at most about `n_terms` terms of whole rows that add up to this one."""
        n_rows = len(self.example)
        first = np.searchsorted(self.row, np.arange(n_rows + 1))
        start = 0
        while start < n_rows:
            stop = int(np.searchsorted(first, first[start] + n_terms, side="right")) - 1
            stop = min(max(stop, start + 1), n_rows)
            yield self._rows(start, stop)
            start = stop

    def share(self, n_shares: int) -> list[PhaseTerms]:
        """That many sums of whole rows that add up to this one, with about as many terms each."""
        ends = self.row[np.arange(1, n_shares) * self.n_terms // n_shares]
        bounds = [0, *ends.tolist(), len(self.example)]
        return [self._rows(*bound) for bound in itertools.pairwise(bounds)]

    def _rows(self, start: int, stop: int) -> PhaseTerms:
        """The terms of a run of rows."""
        part = slice(*np.searchsorted(self.row, [start, stop]))
        examples, example = np.unique(self.example[start:stop], return_inverse=True)
        return dataclasses.replace(
            self,
            gains=self.gains[examples],
            example=example,
            sign=self.sign[start:stop],
            row=self.row[part] - start,
            frequency=self.frequency[part],
            coefficient=self.coefficient[part],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Terms and the site of the register where their chain starts."""

    start: int
    terms: PhaseTerms


def phase_terms(
    hamiltonian: LossHamiltonian, weights: Float[np.ndarray, "n_qubits 2"]
) -> Iterator[Piece]:
    """The additive or pairwise loss of a linear network, one piece per output or all pairs at once.

    **Arguments:**

    - `weights`: the metric's distribution of every bit.
    """
    network, blocks = hamiltonian.network, hamiltonian.network.register.blocks
    layer, scale = network.layers[0], network.logit_scale
    examples = np.arange(hamiltonian.n_examples)
    x = hamiltonian.inputs(examples)
    gains, base = scale * layer.encoding.step * x, scale * layer.encoding.low * x.sum(1)
    n_blocks, fan_in = len(blocks.outputs), blocks.fan_in
    ones = weights[blocks.start : blocks.start + n_blocks * fan_in, 1].reshape(n_blocks, fan_in)
    means, variances = gains @ ones.T, gains**2 @ (ones * (1 - ones)).T
    y = hamiltonian.data.y
    if isinstance(hamiltonian.loss, PairwiseLogistic):
        block_of = np.argsort(blocks.outputs)
        example = np.repeat(examples, n_blocks - 1)
        own = block_of[y][example]
        other = (own + 1 + np.tile(np.arange(n_blocks - 1), len(y))) % n_blocks
        sign = np.zeros((len(example), n_blocks), int)
        rows = np.arange(len(example))
        sign[rows, own], sign[rows, other] = 1, -1
        mean = means[example, own] - means[example, other]
        variance = variances[example, own] + variances[example, other]
        fit = _Fit(hamiltonian, example, np.zeros(len(example)), np.ones(len(example), int))
        yield Piece(blocks.start, fit.terms(gains, sign, mean, np.sqrt(variance)))
        return
    targets = output_targets(y, network.n_outputs).astype(int)
    for block, output in enumerate(blocks.outputs):
        fit = _Fit(hamiltonian, examples, base, targets[:, output])
        sign = np.ones((len(examples), 1), int)
        deviation = np.sqrt(variances[:, block])
        start = blocks.start + block * fan_in
        yield Piece(start, fit.terms(gains, sign, base + means[:, block], deviation))


class _Fit:
    """Fits every row's function of its logit, ``base`` plus the phases per unit frequency."""

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        example: Int[np.ndarray, " n_rows"],
        base: Float[np.ndarray, " n_rows"],
        target: Int[np.ndarray, " n_rows"],
    ) -> None:
        terms, loss = hamiltonian.terms, hamiltonian.loss
        assert isinstance(terms, FourierTerms)
        assert isinstance(loss, OutputLoss | PairwiseLogistic | ZeroOne)
        self._compiled, self._function = terms, loss.pointwise
        self._example, self._base, self._target = example, base, target
        self._n_examples = hamiltonian.n_examples
        self._step = None
        if terms.kind == "lattice":
            network, data = hamiltonian.network, hamiltonian.data
            assert data.step is not None
            self._step = abs(network.logit_scale * network.layers[0].encoding.step) * data.step

    def terms(
        self,
        gains: Float[np.ndarray, "n_examples fan_in"],
        sign: Int[np.ndarray, "n_rows n_blocks"],
        mean: Float[np.ndarray, " n_rows"],
        deviation: Float[np.ndarray, " n_rows"],
    ) -> PhaseTerms:
        """The terms of all rows, whose logits have this mean and deviation."""
        table = self._compiled.table[self._example]
        # Half-widths on a coarse scale, so that many rows share their frequencies.
        half = np.maximum(WINDOW * deviation, _MIN_HALF)
        width = np.ceil(np.log(half) / math.log(1.1)).astype(int)
        reach = 0.5 * np.abs(gains).sum(1)[self._example] * np.abs(sign).sum(1)
        width[half >= reach] = _EVERYTHING
        rows, frequencies, coefficients = [], [], []
        groups, group_of = np.unique(np.stack([table, width]), axis=1, return_inverse=True)
        for number, (index, exponent) in enumerate(groups.T):
            group = np.flatnonzero(group_of.ravel() == number)
            half_width = math.inf if exponent == _EVERYTHING else 1.1 ** int(exponent)
            spacing, fitted, centre = self._group(group, int(index), half_width, mean[group])
            frequency = spacing * np.arange(len(fitted))
            turned = fitted * np.exp(1j * np.outer(frequency, self._base[group] - centre))
            rows.append(np.tile(group, len(fitted)))
            frequencies.append(np.repeat(frequency, len(group)))
            coefficients.append(turned.reshape(-1) / self._n_examples)
        row, frequency, coefficient = map(np.concatenate, (rows, frequencies, coefficients))
        constant = coefficient[frequency == 0].real.sum()
        order = np.flatnonzero((frequency > 0) & (coefficient != 0))
        order = order[np.argsort(row[order], kind="stable")]
        return PhaseTerms(
            gains,
            self._example,
            sign,
            np.concatenate([[0], row[order]]),
            np.concatenate([[0.0], frequency[order]]),
            np.concatenate([[constant + 0j], coefficient[order]]),
        )

    def _group(
        self, group: np.ndarray, table: int, half: float, mean: np.ndarray
    ) -> tuple[float, Complex[np.ndarray, "n_terms n_rows"], np.ndarray]:
        """Spacing, coefficients and the logits from which phases count, for rows alike."""
        compiled = self._compiled.tables[table]
        target, base = self._target[group], self._base[group]
        limit = len(compiled.coefficients)
        if half == math.inf:
            pass
        elif self._step is not None:
            n = math.ceil(half / self._step)
            if n + 1 < limit:
                centre = base + self._step * np.round((mean - base) / self._step)
                values = self._values(centre, self._step * np.arange(-n, n + 1), target)
                fitted = np.fft.rfft(np.fft.ifftshift(values, axes=0), axis=0) / (2 * n + 1)
                fitted[1:] *= 2
                return 2 * math.pi / ((2 * n + 1) * self._step), fitted, centre
        else:
            found = self._smooth(mean, half, target, max(compiled.error, 1e-9), limit)
            if found is not None:
                return *found, mean
        origin = self._compiled.origin[self._example[group]]
        return compiled.spacing, compiled.coefficients[:, target], origin

    def _smooth(
        self, centre: np.ndarray, half: float, target: np.ndarray, tolerance: float, limit: int
    ) -> tuple[float, np.ndarray] | None:
        """Least squares with the fewest frequencies that reach the tolerance, if under `limit`."""
        margin = min(3.0, half)
        spacing = math.pi / (half + margin)
        n_terms = 4
        while n_terms < limit:
            nodes = half * np.sin(np.pi / 2 * np.linspace(-1, 1, 5 * n_terms))
            check = half * np.linspace(-1, 1, 8 * n_terms + 1)
            fit, shown = (_basis(points, spacing, n_terms) for points in (nodes, check))
            solved = np.linalg.lstsq(fit, self._values(centre, nodes, target), rcond=1e-7)[0]
            error = np.abs(shown @ solved - self._values(centre, check, target)).max()
            if error <= tolerance:
                coefficients = solved[:n_terms].astype(complex)
                coefficients[1:] -= 1j * solved[n_terms:]
                return spacing, coefficients
            n_terms = math.ceil(1.15 * n_terms)
        return None

    def _values(self, centre: np.ndarray, points: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The function of every row at points around its centre, (points, rows)."""
        z = centre + points[:, None]
        if self._step is not None:
            # A lattice point that is zero but for rounding must not fall beside a jump.
            z[np.abs(z) < 1e-9 * self._step] = 0
        both = self._function(z.reshape(-1)).reshape(*z.shape, 2)
        return np.where(target == 1, both[..., 1], both[..., 0])


def _basis(points: np.ndarray, spacing: float, n_terms: int) -> np.ndarray:
    phase = np.outer(points, spacing * np.arange(n_terms))
    return np.concatenate([np.cos(phase), np.sin(phase[:, 1:])], axis=1)
