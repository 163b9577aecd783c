"""From a compiled loss to compressed operators, with an honest error.

Routes, by what the loss is made of:

    quadratic form          squared errors of linear networks, exact up to the bond dimension
    streamed terms          additive and pairwise losses of linear networks (`sketch.py`)
    all entries             anything else on few qubits, and everything on very few
    settings of choices     one operator for each, times the projector on the choices' qubits

The loss is the sum of the parts: an additive loss has one operator per output, on that output's
sites alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from ..._shards import Shards
from ...bnn import Network
from ..compile import LossHamiltonian
from ..losses import Loss, SquaredError
from ..terms import FourierTerms, QuadraticTerms, SectorTerms, Terms
from .errors import CompressionError, MeasuredError
from .operator import (
    Compressed,
    DiagonalMPO,
    additive,
    check_truncation,
    compress,
    from_diagonal,
    metric_weights,
)
from .phases import PhaseTerms, phase_terms
from .quadratic import LEAST_QUADRATIC, quadratic_mpo
from .sketch import sketch

#: Up to here all entries are written out and decomposed.
_FEW_QUBITS = 12
#: Up to here they are for losses without another route, and for those whose entries times terms
#: are so few that the sketch would take longer.
MOST_ENTRIES = 20
_CHEAP_ENTRIES = 1 << 32
#: The sketch's bond dimension: over that of the result, and what is added, for wide ones and for
#: narrow ones.
_WIDE, _NARROW = (1.25, 8), (0.5, 56)
#: Losses, of all networks on some examples, that are written out between two words of progress.
_AT_ONCE = 1 << 26
#: Losses, of all networks on all examples, that are evaluated to count an error.
_COUNTED = 1 << 27
#: Networks drawn from the metric to estimate it.
_DRAWN = 2048
#: Bytes of the coefficients of the terms that are held at once, with what is made of them.
MEMORY = 4 << 30
#: Arrays of the coefficients' size that a step of the sketch holds, at most.
_COPIES = 4
#: Networks drawn to measure an error elsewhere.
MEASURED = 256
#: Networks whose losses are evaluated at once, and losses of their examples where those are few.
_NETWORKS_AT_ONCE, _LOSSES_AT_ONCE = 256, 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """An operator on a run of sites of the register, from `start`."""

    start: int
    mpo: DiagonalMPO

    @property
    def stop(self) -> int:
        return self.start + self.mpo.n_sites


@dataclasses.dataclass(frozen=True, eq=False)
class CompressedLoss:
    """A loss as a sum of compressed operators; it is an approximation of `hamiltonian`.

    **Attributes:**

    - `hamiltonian`: the compiled loss.
    - `parts`: the operators, in float64.
    - `probabilities`: (n_qubits,) that each bit is 1 in the metric, or None for the uniform one.
    - `max_bond`, `tolerance`, `seed`, `dtype`, `memory`: what was asked for, see `compress_loss`.
    - `truncation_errors`: what truncation threw away in every part, root mean squares in the
      metric. The errors of the sketch and of rounding are not in them.
    - `compression`: the root mean square error in the metric, with all that compressing did.
    - `measured`: the error on networks drawn from the metric's distribution; it holds all errors,
      the spectral one included.
    - `seconds`: the time it took, also where it was read from a file.
    """

    hamiltonian: LossHamiltonian
    parts: tuple[Part, ...]
    probabilities: Float[np.ndarray, " n_qubits"] | None
    max_bond: int
    tolerance: float
    seed: int
    dtype: str
    memory: int
    truncation_errors: tuple[float, ...]
    compression: CompressionError
    measured: MeasuredError
    seconds: float

    @property
    def n_bytes(self) -> int:
        """Of all tensors in float64."""
        return sum(part.mpo.n_bytes for part in self.parts)

    @property
    def metric(self) -> str:
        return "uniform" if self.probabilities is None else "product"

    def values(
        self, bits: Integer[np.ndarray, "n_networks n_qubits"]
    ) -> Float[np.ndarray, " n_networks"]:
        """The compressed loss of networks."""
        return parts_values(self.parts, bits)

    def error_at(self, bits: Integer[np.ndarray, "n_networks n_qubits"]) -> MeasuredError:
        """The differences from the networks' true losses by the classical forward pass."""
        return _measure(self.hamiltonian, self.parts, bits)

    def report(
        self,
        *,
        state: Integer[np.ndarray, "n_samples n_qubits"] | None = None,
        best: Integer[np.ndarray, " n_qubits"] | None = None,
        n_networks: int = MEASURED,
    ) -> dict[str, Any]:
        """Size, settings and errors for JSON, see `hamiltonian.mpo.report`.

        **Arguments:**

        - `state`: samples of a state, on which the error is measured too.
        - `best`: the best network found, likewise.
        - `n_networks`: uniformly random networks, likewise.
        """
        from .report import make_report

        return make_report(self, state=state, best=best, n_networks=n_networks)

    def save(self, path: str | os.PathLike[str], *, report: dict[str, Any] | None = None) -> None:
        """Write one file that `load_compressed` reads; an older one is replaced in one go.

        **Arguments:**

        - `report`: to be kept in the file; made by `report()` if left out.
        """
        from .files import save_compressed

        save_compressed(self, path, report=report)

    def mpo(self) -> DiagonalMPO:
        """All parts as one operator on the whole chain.

        Outputs' operators side by side take two bonds more than the widest; parts that share
        sites add up their bonds.
        """
        n_qubits = self.hamiltonian.n_qubits
        chains: list[list[Part]] = []
        for part in sorted(self.parts, key=lambda part: part.start):
            free = (chain for chain in chains if chain[-1].stop <= part.start)
            chain = next(free, None)
            if chain is None:
                chains.append([part])
            else:
                chain.append(part)
        total: DiagonalMPO | None = None
        for chain in chains:
            one = chain[0].mpo
            if one.n_sites < n_qubits:
                one = additive([(part.start, part.mpo) for part in chain], n_qubits)
            total = one if total is None else total + one
        assert total is not None
        return total

    def describe(self) -> str:
        """Size and errors in one line."""
        unit = self.hamiltonian.loss.unit
        several = "s" if len(self.parts) > 1 else ""
        return (
            f"{len(self.parts)} operator{several} of bond dimension at most "
            f"{max(part.mpo.max_bond for part in self.parts)} in the {self.metric} metric, "
            f"{self.n_bytes / 1e6:.1f} MB, rms error {self.measured.rms:.3g} {unit} on networks "
            f"drawn from it (mean loss {self.measured.loss:.3g})"
        )


def compress_loss(
    hamiltonian: LossHamiltonian,
    max_bond: int,
    *,
    tolerance: float = 0.0,
    probabilities: Float[np.ndarray, " n_qubits"] | None = None,
    seed: int = 0,
    dtype: np.dtype | type = np.float32,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] | None = None,
    cache: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
) -> CompressedLoss:
    """Compress the complete data set's loss into operators of at most this bond dimension.

    **Arguments:**

    - `max_bond`: of every part.
    - `tolerance`: root mean square error, in the loss's unit and in the metric, that truncation may
      make, as far as `max_bond` allows: less is kept where it suffices.
    - `probabilities`: the metric: that each bit is 1 in the product distribution in which errors
      are weighed, such as the Born distribution's marginals; left out, all networks weigh the same.
    - `seed`: of the bitstrings that the range finder looks at.
    - `dtype`: of the large matrix products; float64 needs JAX's x64 mode.
    - `memory`: bytes of terms held at once by a device, at least those of one example; more terms
      are compressed in several goes.
    - `progress`: is told sites done and sites in all.
    - `cache`: a folder in which results are kept under the hash of everything that decides them
      (data, network, loss, terms, metric, settings, version of the package): one that is there is
      read, any other is compressed and written.
    - `mesh`: of `device_mesh()`, to share streamed terms out over devices, with an error of the
      same size; of several processes all call this alike. Not with `cache`.

    **Raises:** `ValueError` for a loss that has no route, with those that have, and for arguments
    out of range.
    """
    check_truncation(max_bond, tolerance)
    weights = metric_weights(probabilities, hamiltonian.n_qubits)
    dtype = np.dtype(dtype)
    if cache is not None and mesh is not None:
        raise ValueError(
            f"a cache is that of one device, got cache={os.fspath(cache)!r} and a mesh of "
            f"{mesh.devices.size}; leave one out"
        )
    if cache is not None:
        from .files import Request, cached

        request = Request(max_bond, tolerance, probabilities, seed, dtype.name, memory)
        return cached(
            cache,
            hamiltonian,
            request,
            lambda: compress_loss(
                hamiltonian,
                max_bond,
                tolerance=tolerance,
                probabilities=probabilities,
                seed=seed,
                dtype=dtype,
                memory=memory,
                progress=progress,
            ),
        )
    begun = time.perf_counter()
    shards = None if mesh is None else Shards(mesh)
    work = _Work(max_bond, tolerance, seed, dtype, memory, progress, shards)
    parts, errors = work.parts(hamiltonian, weights)
    rng = np.random.default_rng([seed, 1])
    bits = (rng.random((_DRAWN, len(weights))) < weights[:, 1]).astype(np.uint8)

    def pause() -> None:
        """Between networks that are measured: a word of progress may end the work."""
        if progress is not None:
            progress(hamiltonian.n_qubits, hamiltonian.n_qubits)

    measured = _measure(hamiltonian, parts, bits, pause)
    compression = _compression_error(
        hamiltonian, parts, weights, sum(errors), measured, work.entries, pause
    )
    return CompressedLoss(
        hamiltonian,
        tuple(parts),
        probabilities,
        max_bond,
        tolerance,
        seed,
        dtype.name,
        memory,
        tuple(errors),
        compression,
        measured,
        time.perf_counter() - begun,
    )


def check_route(network: Network, loss: Loss, max_bond: int) -> None:
    """Refuse a loss that is not compressed.

    **Raises:** `ValueError` with the losses that are, or with the least `max_bond`.
    """
    n_qubits, form = network.n_qubits, loss.form(network.n_outputs)
    if network.n_hidden == 0 and form != "joint":
        if form == "quadratic" and n_qubits > _FEW_QUBITS and max_bond < LEAST_QUADRATIC:
            raise ValueError(
                f"the squared loss needs a max_bond of at least {LEAST_QUADRATIC}, got {max_bond}"
            )
        return
    if network.n_hidden < 2 and n_qubits <= MOST_ENTRIES:
        return
    layers, outputs = network.n_hidden, network.n_outputs
    raise ValueError(
        f"the {loss.name} loss of a network with {layers} hidden layer{'s' * (layers != 1)}, "
        f"{outputs} output{'s' * (outputs != 1)} and {n_qubits} qubits is not compressed into "
        "operators; possible are logistic (also one-vs-rest), pairwise-logistic, squared, "
        "sigmoid-squared, hinge, squared-hinge and, with one output, zero-one without hidden "
        f"layers, and all losses with at most one up to {MOST_ENTRIES} qubits"
    )


@dataclasses.dataclass
class _Work:
    max_bond: int
    tolerance: float
    seed: int
    dtype: np.dtype
    memory: int
    progress: Callable[[int, int], None] | None
    shards: Shards | None
    #: The losses of all networks, once they are written out.
    entries: np.ndarray | None = None

    def parts(
        self, hamiltonian: LossHamiltonian, weights: np.ndarray
    ) -> tuple[list[Part], list[float]]:
        """The parts and the truncation error of each."""
        terms = hamiltonian.terms
        check_route(hamiltonian.network, hamiltonian.loss, self.max_bond)
        if _by_entries(hamiltonian):
            return self._entries(hamiltonian, weights)
        if isinstance(terms, QuadraticTerms):
            return self._quadratic(hamiltonian, weights)
        if isinstance(terms, SectorTerms):
            return self._sectors(hamiltonian, terms, weights)
        return self._streamed(hamiltonian, weights)

    def _entries(
        self, hamiltonian: LossHamiltonian, weights: np.ndarray
    ) -> tuple[list[Part], list[float]]:
        n_examples, n_sites = hamiltonian.n_examples, hamiltonian.n_qubits
        n_goes = min(n_examples, -(-(n_examples << n_sites) // _AT_ONCE))
        entries = np.zeros(2**n_sites)
        for go, rows in enumerate(np.array_split(np.arange(n_examples), n_goes)):
            if self.progress is not None:
                self.progress(go * n_sites // n_goes, n_sites)
            entries += len(rows) / n_examples * hamiltonian.subset(rows).diagonal()
        self.entries = entries
        found = from_diagonal(
            entries,
            max_bond=self.max_bond,
            tolerance=self.tolerance,
            probabilities=weights[:, 1],
        )
        if self.progress is not None:
            self.progress(n_sites, n_sites)
        return [Part(0, found.mpo)], [found.error]

    def _quadratic(
        self, hamiltonian: LossHamiltonian, weights: np.ndarray
    ) -> tuple[list[Part], list[float]]:
        network, loss = hamiltonian.network, hamiltonian.loss
        assert isinstance(loss, SquaredError)
        blocks, encoding = network.register.blocks, network.layers[0].encoding
        x = hamiltonian.inputs(np.arange(hamiltonian.n_examples))
        gains = network.logit_scale * encoding.step * x
        base = network.logit_scale * encoding.low * x.sum(1)
        targets = loss.targets(hamiltonian.data.y, network.n_outputs)
        parts, errors = [], []
        for block, output in enumerate(blocks.outputs):
            start = blocks.start + block * blocks.fan_in
            found = quadratic_mpo(
                gains,
                base - targets[:, output],
                weights[start : start + blocks.fan_in],
                max_bond=self.max_bond,
                tolerance=self.tolerance / math.sqrt(len(blocks.outputs)),
            )
            parts.append(Part(start, found.mpo))
            errors.append(found.error)
        return parts, errors

    def _streamed(
        self, hamiltonian: LossHamiltonian, weights: np.ndarray
    ) -> tuple[list[Part], list[float]]:
        parts, errors = [], []
        pieces = list(phase_terms(hamiltonian, weights))
        total = sum(piece.terms.n_sites for piece in pieces)
        done = 0
        for piece in pieces:
            sites = slice(piece.start, piece.start + piece.terms.n_sites)

            def advance(site: int, _: int, done: int = done) -> None:
                if self.progress is not None:
                    self.progress(done + site, total)

            tolerance = self.tolerance / math.sqrt(len(pieces))
            found = self._terms(piece.terms, weights[sites, 1], tolerance, advance)
            parts.append(Part(piece.start, found.mpo))
            errors.append(found.error)
            done += piece.terms.n_sites
        return parts, errors

    def _terms(
        self,
        terms: PhaseTerms,
        ones: np.ndarray,
        tolerance: float,
        progress: Callable[[int, int], None],
    ) -> Compressed:
        widest = 2 ** min((terms.n_sites + 1) // 2, 30)
        bond = _width(min(self.max_bond, widest))
        each = terms.fitting(self.memory, _COPIES * 2 * bond * self.dtype.itemsize)
        sums = list(terms.split(each * (1 if self.shards is None else len(self.shards))))
        total: DiagonalMPO | None = None
        joins = 0.0
        for number, part in enumerate(sums):

            def advance(site: int, n_sites: int, number: int = number) -> None:
                progress((number * n_sites + site) // len(sums), n_sites)

            one = sketch(
                part,
                bond,
                probabilities=ones,
                seed=self.seed,
                dtype=self.dtype,
                progress=advance,
                shards=self.shards,
            )
            if total is not None:
                joined = compress(total + one, max_bond=bond, probabilities=ones)
                joins += joined.error
                one = joined.mpo
            total = one
        assert total is not None
        found = compress(total, max_bond=self.max_bond, tolerance=tolerance, probabilities=ones)
        return dataclasses.replace(found, error=found.error + joins)

    def _sectors(
        self, hamiltonian: LossHamiltonian, terms: SectorTerms, weights: np.ndarray
    ) -> tuple[list[Part], list[float]]:
        sites = hamiltonian.network.global_sites
        parts, errors = [], []
        known: dict[int, tuple[DiagonalMPO, float]] = {}
        for sector in terms.sectors:
            inner = sector.hamiltonian
            if id(inner.terms) not in known:
                found, each = self.parts(inner, weights)
                chain = [(part.start, part.mpo) for part in found]
                known[id(inner.terms)] = (
                    additive(chain, hamiltonian.n_qubits),
                    math.sqrt(sum(error**2 for error in each)),
                )
            mpo, error = known[id(inner.terms)]
            tensors = list(mpo.tensors)
            for site, bit in zip(sites, sector.bits, strict=True):
                tensors[site] = tensors[site] * np.array([1 - bit, bit])[:, None]
            parts.append(Part(0, DiagonalMPO(tuple(tensors))))
            chance = math.prod(
                float(weights[site, bit]) for site, bit in zip(sites, sector.bits, strict=True)
            )
            errors.append(error * math.sqrt(chance))
        return parts, errors


def _width(bond: int) -> int:
    """The sketch's bond dimension for a result of this one.

    A pattern of bits is in the sketch if one of as many strings as it is wide has it, so that few
    strings miss patterns that are rare but matter; where bonds are narrow more of them cost little.
    """
    return max(math.ceil(over * bond) + added for over, added in (_WIDE, _NARROW))


def _by_entries(hamiltonian: LossHamiltonian) -> bool:
    """Whether all entries are written out, for want of another route or because it is cheaper."""
    n_qubits, terms = hamiltonian.n_qubits, hamiltonian.terms
    n_terms = _n_terms(hamiltonian)
    if n_qubits <= _FEW_QUBITS or n_terms is None:
        return True
    if n_qubits > MOST_ENTRIES or isinstance(terms, QuadraticTerms):
        return False
    return n_terms << n_qubits <= _CHEAP_ENTRIES


def _n_terms(hamiltonian: LossHamiltonian) -> int | None:
    """Of all examples, outputs and settings; None if the entries are the only route."""
    terms = hamiltonian.terms
    if isinstance(terms, SectorTerms):
        inner = [sector.hamiltonian for sector in terms.sectors]
        if not all(_streams(each.terms) for each in inner):
            return None
        return sum(_n_terms(each) or 0 for each in inner)
    if not _streams(terms):
        return None
    each = terms.n_terms.sum() if isinstance(terms, FourierTerms) else hamiltonian.n_examples
    return int(each) * hamiltonian.network.n_outputs


def _streams(terms: Terms) -> bool:
    """Whether there is a route for any number of qubits."""
    return isinstance(terms, QuadraticTerms) or (
        isinstance(terms, FourierTerms) and not terms.joint
    )


def parts_values(
    parts: Sequence[Part], bits: Integer[np.ndarray, "n_networks n_qubits"]
) -> Float[np.ndarray, " n_networks"]:
    """The sum of the parts' entries at the networks' bits."""
    total = np.zeros(len(bits))
    for part in parts:
        total += part.mpo.values(bits[:, part.start : part.stop])
    return total


def _measure(
    hamiltonian: LossHamiltonian,
    parts: Sequence[Part],
    bits: np.ndarray,
    pause: Callable[[], None] = lambda: None,
) -> MeasuredError:
    true = []
    for start in range(0, len(bits), _NETWORKS_AT_ONCE):
        pause()
        true.append(hamiltonian.losses(bits[start : start + _NETWORKS_AT_ONCE]))
    return MeasuredError.of(parts_values(parts, bits), np.concatenate(true))


def _compression_error(
    hamiltonian: LossHamiltonian,
    parts: Sequence[Part],
    weights: np.ndarray,
    truncation: float,
    measured: MeasuredError,
    written: np.ndarray | None,
    pause: Callable[[], None],
) -> CompressionError:
    """Counted over all networks where they are few enough, estimated otherwise.

    `written` are the losses of all networks, if they were written out.
    """
    n_qubits = hamiltonian.n_qubits
    if written is not None:
        (part,) = parts
        difference = part.mpo.diagonal() - written
        return CompressionError(math.sqrt(_chances(weights) @ difference**2))
    n_losses = (hamiltonian.n_examples * hamiltonian.network.n_outputs) << n_qubits
    if n_qubits > MOST_ENTRIES or n_losses > _COUNTED:
        return CompressionError.estimated(measured, truncation)
    entries = np.zeros(2**n_qubits)
    for part in parts:
        rest = 2 ** (n_qubits - part.stop)
        entries.reshape(2**part.start, -1, rest)[...] += part.mpo.diagonal()[:, None]
    at_once = max(_NETWORKS_AT_ONCE, _LOSSES_AT_ONCE // hamiltonian.n_examples)
    for start in range(0, 2**n_qubits, at_once):
        pause()
        codes = np.arange(start, min(start + at_once, 2**n_qubits))
        bits = ((codes[:, None] >> np.arange(n_qubits)[::-1]) & 1).astype(np.uint8)
        entries[codes] -= hamiltonian.losses(bits)
    return CompressionError(math.sqrt(_chances(weights) @ entries**2))


def _chances(weights: np.ndarray) -> np.ndarray:
    """The metric's distribution of all networks, site 0 most significant."""
    return functools.reduce(lambda a, b: np.outer(a, b).ravel(), weights)
