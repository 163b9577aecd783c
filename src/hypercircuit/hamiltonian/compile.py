"""From a network and a data set to the loss Hamiltonian, without enumerating networks."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float, Int, Integer

from ..bnn import Network
from ..data import Dataset
from .losses import Loss, Softmax, SquaredError
from .spectral import (
    FourierSum,
    FrullaniIntegrand,
    Integrand,
    LogisticIntegrand,
    fit_extension,
    fourier_extension,
    lattice_sum,
)

#: Frequencies come in groups of this size, so that work of different length can be batched.
CHUNK = 32
#: The least error that rounding lets a Fourier extension reach.
MIN_TOLERANCE = 1e-10
_LATTICE_TOLERANCE = 2e-10


@dataclasses.dataclass(frozen=True)
class FourierExtension:
    """Expand on the reachable interval; any inputs."""


@dataclasses.dataclass(frozen=True)
class Lattice:
    """Expand exactly on the lattice of reachable logits; inputs that are multiples of a step."""


Expansion = FourierExtension | Lattice


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """The Fourier sums of every example.

    **Attributes:**

    - `tables`: the distinct sums; their term counts are multiples of `CHUNK`.
    - `table`: (n_examples,) which sum an example uses.
    - `origin`: (n_examples,) the logit from which its phases count.
    - `shift`: (n_examples,) the logit that the functions take for zero; the softmax integral is
      taken around the middle of the reachable range, zero otherwise.
    - `kind`: `"extension"` or `"lattice"`.
    - `integral`: the nodes of the softmax integral, or None for losses of one logit.
    """

    tables: tuple[FourierSum, ...]
    table: Int[np.ndarray, " n_examples"]
    origin: Float[np.ndarray, " n_examples"]
    shift: Float[np.ndarray, " n_examples"]
    kind: str
    integral: FrullaniIntegrand | None

    @property
    def errors(self) -> Float[np.ndarray, " n_examples"]:
        """The certificate of every example."""
        extra = self.integral.quadrature_error if self.integral else 0.0
        return np.array([table.error for table in self.tables])[self.table] + extra

    @property
    def n_terms(self) -> Int[np.ndarray, " n_examples"]:
        return np.array([len(table.coefficients) for table in self.tables])[self.table]


@dataclasses.dataclass(frozen=True, eq=False)
class LossHamiltonian:
    """The diagonal operator whose entry at a bitstring is that network's mean loss.

    **Attributes:**

    - `network`, `data`, `loss`: what was compiled.
    - `spectrum`: the product terms; None for the squared error, a quadratic form that the energy
      evaluates exactly from first and second moments.
    - `spectral_error`: bound on the difference between this operator's and the true loss of an
      example, the largest over examples and over all networks, in the loss's unit.
    """

    network: Network
    data: Dataset
    loss: Loss
    spectrum: Spectrum | None
    spectral_error: float

    @property
    def n_qubits(self) -> int:
        return self.network.n_qubits

    @property
    def n_examples(self) -> int:
        return len(self.data)

    def inputs(self, examples: Integer[np.ndarray, " n"]) -> Float[np.ndarray, "n fan_in"]:
        """Some examples' inputs in the order of the sites of a block; the bias's input is 1.

        In float64; inputs with a step are its exact multiples.
        """
        x = _exact_inputs(self.data, examples)
        if self.network.layers[0].bias:
            x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        return x[:, self.network.register.block_inputs]

    def subset(self, examples: Integer[np.ndarray, " n"]) -> LossHamiltonian:
        """The mean loss of the examples with these row numbers, same expansion."""
        spectrum = self.spectrum
        error = 0.0
        if spectrum is not None:
            spectrum = dataclasses.replace(
                spectrum,
                table=spectrum.table[examples],
                origin=spectrum.origin[examples],
                shift=spectrum.shift[examples],
            )
            error = float(spectrum.errors.max())
        data = self.data.take(examples)
        return LossHamiltonian(self.network, data, self.loss, spectrum, error)

    def losses(
        self, bits: Integer[np.ndarray, "n_networks n_qubits"]
    ) -> Float[np.ndarray, " n_networks"]:
        """The true mean loss of each network over the data, by the classical forward pass."""
        totals = np.zeros(len(bits))
        for start in range(0, self.n_examples, 4096):
            part = slice(start, start + 4096)
            logits = self.network.logits(bits, self.data.x[part].astype(np.float32, copy=False))
            totals += self.loss.value(logits, self.data.y[part]).sum(-1)
        return totals / self.n_examples

    def diagonal(self) -> Float[np.ndarray, " n_networks"]:
        """The compiled operator's 2^n_qubits entries, site 0 most significant.

        Computed once and kept, read-only.

        **Raises:** `ValueError` above 24 qubits.
        """
        return self._diagonal

    @functools.cached_property
    def _diagonal(self) -> np.ndarray:
        from .diagonal import diagonal

        entries = diagonal(self)
        entries.setflags(write=False)
        return entries

    def describe(self) -> str:
        """The certificate and the size of the expansion in one line."""
        head = f"{self.loss.name} loss of {self.n_examples} examples on {self.n_qubits} qubits"
        if self.spectrum is None:
            return f"{head}: a quadratic form, exact"
        terms = self.spectrum.n_terms
        return (
            f"{head}: {self.spectrum.kind} with {terms.min()} to {terms.max()} frequencies "
            f"(mean {terms.mean():.0f}), spectral error at most {self.spectral_error:.3g} "
            "for every network"
        )


def compile_loss(
    network: Network,
    data: Dataset,
    loss: Loss,
    *,
    tolerance: float = 1e-3,
    expansion: Expansion | None = None,
) -> LossHamiltonian:
    """Compile the data set's mean loss into a diagonal operator on the network's qubits.

    **Arguments:**

    - `network`, `data`, `loss`: the network's inputs and outputs must fit the data and loss.
    - `tolerance`: largest allowed error of an example's loss for any network, in the loss's unit.
      Lattice expansions are exact to about 1e-9 whatever it says.
    - `expansion`: `Lattice()` or `FourierExtension()`; left out, the lattice is used when the
      inputs have a step and it needs at most twice the frequencies.

    **Raises:** `ValueError` if the parts do not fit, the tolerance is out of range, the lattice
    is asked for on inputs without a step, or the tolerance cannot be reached.
    """
    if data.n_inputs != network.n_inputs:
        raise ValueError(
            f"the network has {network.n_inputs} inputs but the data {data.n_inputs}; "
            "build the network for the transformed data"
        )
    if not MIN_TOLERANCE <= tolerance < 1:
        raise ValueError(
            f"tolerance must be at least {MIN_TOLERANCE} and below 1, got {tolerance}; for exact "
            "sums quantise the inputs and use Lattice()"
        )
    loss.check(network, data)
    if isinstance(loss, SquaredError):
        return LossHamiltonian(network, data, loss, None, 0.0)
    ranges = _reachable(network, data)
    lattice = _lattice(network, data, ranges)
    if isinstance(expansion, Lattice) and lattice is None:
        raise ValueError(
            "a lattice expansion needs inputs (and 1, with a bias) that are integer multiples of "
            f"data.step, got step={data.step}; quantise or binarise the data, or use "
            "FourierExtension()"
        )
    if isinstance(expansion, FourierExtension):
        lattice = None
    if lattice is not None and expansion is None:
        half = ranges.half + (0 if isinstance(loss, Softmax) else np.abs(ranges.middle))
        extended = _n_terms_guess(half, loss, tolerance)
        if np.mean(_round_up((lattice + 1) // 2)) > 2 * extended:
            lattice = None
    if lattice is not None:
        spectrum = _lattice_spectrum(network, data, loss, ranges, lattice)
    else:
        spectrum = _extension_spectrum(network, loss, ranges, tolerance)
    return LossHamiltonian(network, data, loss, spectrum, float(spectrum.errors.max()))


@dataclasses.dataclass(frozen=True)
class _Ranges:
    """The logits an example can reach: `middle` +- `half`, from weights of either bit."""

    middle: Float[np.ndarray, " n_examples"]
    half: Float[np.ndarray, " n_examples"]
    lowest: Float[np.ndarray, " n_examples"]


def _exact_inputs(data: Dataset, examples: np.ndarray) -> np.ndarray:
    """Inputs in float64, free of the float32 rounding of multiples of a step."""
    x = data.x[examples].astype(np.float64)
    if data.step is None:
        return x
    per_unit = round(1 / data.step)
    if abs(data.step * per_unit - 1) < 1e-6:
        return np.rint(x * per_unit) / per_unit
    return np.rint(x / data.step) * data.step


def _reachable(network: Network, data: Dataset) -> _Ranges:
    encoding, bias = network.layers[0].encoding, float(network.layers[0].bias)
    rows = np.array_split(np.arange(len(data)), -(-len(data) // 4096))
    sums = [(x.sum(1), np.abs(x).sum(1)) for x in (_exact_inputs(data, part) for part in rows)]
    total = np.concatenate([each for each, _ in sums]) + bias
    absolute = np.concatenate([each for _, each in sums]) + bias
    middle = network.logit_scale * encoding.middle * total
    half = network.logit_scale * abs(encoding.step) / 2 * absolute
    return _Ranges(middle, half, middle - half)


def _lattice(network: Network, data: Dataset, ranges: _Ranges) -> np.ndarray | None:
    """How many equally spaced values each example's logit takes, or None without a lattice."""
    if data.step is None:
        return None
    if network.layers[0].bias and abs(1 / data.step - round(1 / data.step)) > 1e-6:
        return None
    spacing = network.logit_scale * abs(network.layers[0].encoding.step) * data.step
    return np.rint(2 * ranges.half / spacing).astype(np.int64) + 1


def _round_up(n_terms: np.ndarray) -> np.ndarray:
    return np.maximum(-(-n_terms // CHUNK) * CHUNK, CHUNK)


def _n_terms_guess(half: float | np.ndarray, loss: Loss, tolerance: float) -> int:
    """About how many frequencies a Fourier extension needs, from the decay of the spectrum."""
    decay = math.pi / 2 if isinstance(loss, Softmax) else math.pi
    highest = math.log(10 / tolerance) / decay
    n_terms = np.ceil((np.atleast_1d(half) + 3) * highest / math.pi).astype(np.int64)
    return round(float(np.mean(_round_up(n_terms))))


def _lattice_spectrum(
    network: Network, data: Dataset, loss: Loss, ranges: _Ranges, n_points: np.ndarray
) -> Spectrum:
    assert data.step is not None
    spacing = network.logit_scale * abs(network.layers[0].encoding.step) * data.step
    centred = isinstance(loss, Softmax)
    starts = -ranges.half if centred else ranges.lowest
    integrand = _integrand(network, loss, ranges, _LATTICE_TOLERANCE)
    keys = np.stack([n_points, np.rint(starts / spacing * 2**20).astype(np.int64)], axis=1)
    _, first, table = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    n_terms = _round_up((n_points + 2) // 2)
    tables = tuple(
        lattice_sum(
            integrand,
            float(starts[i]),
            spacing,
            int(n_points[i]),
            int(n_terms[i]),
        )
        for i in first
    )
    integral = integrand if isinstance(integrand, FrullaniIntegrand) else None
    shift = ranges.middle if centred else np.zeros_like(ranges.middle)
    return Spectrum(tables, table.reshape(-1), ranges.lowest, shift, "lattice", integral)


def _extension_spectrum(
    network: Network, loss: Loss, ranges: _Ranges, tolerance: float
) -> Spectrum:
    centred = isinstance(loss, Softmax)
    half = ranges.half if centred else ranges.half + np.abs(ranges.middle)
    half = np.maximum(half, 1e-3)
    # A tenth of the tolerance for the softmax integral, the rest for the sums.
    integrand = _integrand(network, loss, ranges, 0.1 * tolerance)
    tables: list[FourierSum] = []
    limits: list[float] = []
    n_terms = CHUNK
    most_terms = 4 * _n_terms_guess(float(half.max()), loss, tolerance)
    while not limits or limits[-1] < half.max():
        table, limit = _widest_table(
            integrand, n_terms, 0.9 * tolerance, float(half.max()), limits[-1] if limits else 0.0
        )
        if table is not None:
            tables.append(table)
            limits.append(limit)
        n_terms += CHUNK
        if n_terms > most_terms:
            raise ValueError(
                f"tolerance {tolerance} needs more than {most_terms} frequencies for logits up to "
                f"{half.max():.3g}; raise the tolerance or lower logit_scale"
            )
    table_index = np.searchsorted(np.array(limits), half)
    origin = ranges.middle if centred else np.zeros_like(half)
    integral = integrand if isinstance(integrand, FrullaniIntegrand) else None
    return Spectrum(tuple(tables), table_index, origin, origin, "extension", integral)


def _widest_table(
    integrand: Integrand, n_terms: int, tolerance: float, widest: float, narrowest: float
) -> tuple[FourierSum | None, float]:
    """The sum of `n_terms` on the widest interval on which it keeps the tolerance."""
    cutoff = max(1e-3 * tolerance, 1e-14)
    low, high = narrowest, widest
    for _ in range(6):
        # Each further group of frequencies widens the interval by about this much.
        step = 2 * CHUNK / 3 if low == narrowest else (high - low) / 2
        trial = min(low + step, high) if high == widest else (low + high) / 2
        table = fit_extension(integrand, trial, n_terms, cutoff=cutoff)
        if table.error <= 0.7 * tolerance:
            low = trial
        else:
            high = trial
        if high - low <= 0.05 * high:
            break
    if low <= narrowest:
        return None, low
    table = fourier_extension(integrand, low, n_terms, cutoff=cutoff, slack=0.1 * tolerance)
    return (table, low) if table.error <= tolerance else (None, narrowest)


def _integrand(network: Network, loss: Loss, ranges: _Ranges, tolerance: float) -> Integrand:
    if isinstance(loss, Softmax):
        return FrullaniIntegrand(max(float(ranges.half.max()), 1e-3), network.n_outputs, tolerance)
    return LogisticIntegrand()
