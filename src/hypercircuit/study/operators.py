"""How the error of compressed losses depends on their bond dimension and their metric."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ..data import Dataset
from ..hamiltonian import LossHamiltonian
from ..hamiltonian.mpo import (
    CompressedLoss,
    MeasuredError,
    Part,
    compress,
    error_entry,
    parts_values,
)
from .ground_state import minimise
from .trusted_search import minimise_trusted

#: Cuts whose singular values are shown.
_MOST_CUTS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class BondError:
    """A compressed loss truncated further, to at most one bond dimension.

    **Attributes:**

    - `max_bond`: the widest bond that is left.
    - `n_bytes`: of its tensors.
    - `further_truncation`: what the further truncation threw away, a root mean square in the
      metric; for parts that share sites (settings of choices) a bound on it, the sum of their own.
      The compressed loss's own error is not in it: it is 0 at the widest bond.
    - `measured`: the errors on every set of networks, against their true losses; all are in them.
    """

    max_bond: int
    n_bytes: int
    further_truncation: float
    measured: dict[str, MeasuredError]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "max_bond": self.max_bond,
            "n_bytes": self.n_bytes,
            "further_truncation": self.further_truncation,
            "measured": {name: error_entry(each) for name, each in self.measured.items()},
        }


def further_truncation(row: Mapping[str, Any]) -> float:
    """That of an entry of `BondError.to_dict`; older files call it truncation_error."""
    return row["further_truncation" if "further_truncation" in row else "truncation_error"]


def other_data(result: Mapping[str, Any]) -> str | None:
    """The fingerprint of the data that the state of a study was trained on, if others than here.

    **Arguments:**

    - `result`: of `hypercircuit compile`, whose older files do not say it.
    """
    there = (result.get("state") or {}).get("data_fingerprint")
    return None if there == result["report"]["data_fingerprint"] else there


@dataclasses.dataclass(frozen=True, eq=False)
class CutSpectrum:
    """The singular values of one part at one cut, in the metric.

    **Attributes:**

    - `site`: of the register, left of the cut.
    - `values`: those that were kept, from the largest.
    """

    site: int
    values: Float[np.ndarray, " bond"]


def truncated(
    compressed: CompressedLoss, max_bond: int
) -> tuple[tuple[Part, ...], Float[np.ndarray, " n_parts"]]:
    """The parts with at most this bond dimension, and the error that it makes in each.

    The errors are root mean squares in the metric, relative to the compressed loss.

    **Raises:** `ValueError` for a `max_bond` under 1.
    """
    parts, errors = [], []
    for part in compressed.parts:
        if part.mpo.max_bond <= max_bond:
            parts.append(part)
            errors.append(0.0)
            continue
        found = compress(part.mpo, max_bond=max_bond, probabilities=_metric_of(compressed, part))
        parts.append(Part(part.start, found.mpo))
        errors.append(found.error)
    return tuple(parts), np.array(errors)


def errors_against_bond(
    compressed: CompressedLoss,
    bonds: Sequence[int],
    networks: Mapping[str, Integer[np.ndarray, "n_networks n_qubits"]],
    losses: Mapping[str, Float[np.ndarray, " n_networks"]] | None = None,
) -> list[BondError]:
    """Truncate a compressed loss to each bond dimension and measure what that does.

    **Arguments:**

    - `bonds`: from which those above the widest bond count as the widest, once.
    - `networks`: sets of networks, by name.
    - `losses`: their true losses, where they are known already.
    """
    if losses is None:
        losses = {name: compressed.hamiltonian.losses(bits) for name, bits in networks.items()}
    widest = max(part.mpo.max_bond for part in compressed.parts)
    rows = []
    for bond in sorted({min(bond, widest) for bond in bonds}):
        parts, errors = truncated(compressed, bond)
        rows.append(
            BondError(
                bond,
                sum(part.mpo.n_bytes for part in parts),
                _together(compressed, parts, errors),
                {
                    name: MeasuredError.of(parts_values(parts, bits), losses[name])
                    for name, bits in networks.items()
                },
            )
        )
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class FoundNetwork:
    """A network that a classical search found in an operator.

    **Attributes:**

    - `bits`: the network.
    - `value`: the operator's entry there; it may lie below the loss where the metric is thin.
    - `loss`: the network's true loss.
    - `accuracies`: of the network on every data set, by name.
    - `seconds`: of the search.
    """

    bits: Integer[np.ndarray, " n_qubits"]
    value: float
    loss: float
    accuracies: dict[str, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the bits."""
        return {
            "value": self.value,
            "loss": self.loss,
            "accuracies": self.accuracies,
            "seconds": self.seconds,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """The best networks that classical searches found in a truncated operator.

    **Attributes:**

    - `max_bond`: of the operator.
    - `anywhere`: the smallest entry found, see `minimise`.
    - `trusted`: near a state and confirmed by the true loss, see `minimise_trusted`; None without a
      state.
    """

    max_bond: int
    anywhere: FoundNetwork
    trusted: FoundNetwork | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the bits."""
        near = None if self.trusted is None else self.trusted.to_dict()
        return {"max_bond": self.max_bond} | self.anywhere.to_dict() | {"trusted": near}


def optima_against_bond(
    compressed: CompressedLoss,
    bonds: Sequence[int],
    data: Mapping[str, Dataset],
    *,
    starts: Integer[np.ndarray, "n_starts n_qubits"] | None = None,
    probabilities: Float[np.ndarray, " n_qubits"] | None = None,
    seed: int = 0,
) -> list[Optimum]:
    """Minimise a compressed loss, truncated to each bond dimension, over single networks.

    **Arguments:**

    - `data`: what the networks' accuracies are measured on.
    - `starts`: samples of a state to start from, beside random networks; see `minimise`.
    - `probabilities`: of the state's bits: near them the search is repeated inside a trust region.
    """
    widest = max(part.mpo.max_bond for part in compressed.parts)
    found = []
    for bond in sorted({min(bond, widest) for bond in bonds}):
        parts, _ = truncated(compressed, bond)
        smaller = dataclasses.replace(compressed, parts=parts)
        best = minimise(
            smaller.mpo(), probabilities=compressed.probabilities, starts=starts, seed=seed
        )
        loss = float(compressed.hamiltonian.losses(best.bits[None])[0])
        anywhere = _found(smaller, best.bits, best.value, loss, best.seconds, data)
        near = None
        if starts is not None and probabilities is not None:
            near = trusted_optimum(smaller, data, starts, probabilities, seed=seed)
        found.append(Optimum(bond, anywhere, near))
    return found


def trusted_optimum(
    compressed: CompressedLoss,
    data: Mapping[str, Dataset],
    starts: Integer[np.ndarray, "n_starts n_qubits"],
    probabilities: Float[np.ndarray, " n_qubits"],
    *,
    seed: int = 0,
) -> FoundNetwork:
    """The classical optimum beside a trained state: see `minimise_trusted`.

    **Arguments:**

    - `data`: what the network's accuracies are measured on.
    - `starts`: samples of the state.
    - `probabilities`: of the state's bits, see `around_state`.
    """
    best = minimise_trusted(
        compressed.mpo(), compressed.hamiltonian.losses, starts, probabilities, seed=seed
    )
    return _found(compressed, best.bits, best.value, best.loss, best.seconds, data)


def _found(
    compressed: CompressedLoss,
    bits: np.ndarray,
    value: float,
    loss: float,
    seconds: float,
    data: Mapping[str, Dataset],
) -> FoundNetwork:
    accuracies = {
        name: _accuracy(compressed.hamiltonian, bits[None], each) for name, each in data.items()
    }
    return FoundNetwork(bits, value, loss, accuracies, seconds)


def cut_spectra(compressed: CompressedLoss) -> list[CutSpectrum]:
    """Singular values at evenly spaced cuts: of one part inside it, of more in their middles."""
    parts = [part for part in compressed.parts if part.mpo.n_sites > 1]
    if len(parts) == 1:
        inner = parts[0].mpo.n_sites - 1
        n_cuts = min(_MOST_CUTS, inner)
        cuts = np.unique(np.linspace(0, inner, n_cuts + 2)[1:-1].astype(int))
        chosen = [(parts[0], cuts)]
    else:
        picked = {round(k) for k in np.linspace(0, len(parts) - 1, _MOST_CUTS)} if parts else set()
        middle = {k: (parts[k].mpo.n_sites - 1) // 2 for k in sorted(picked)}
        chosen = [(parts[k], np.array([cut])) for k, cut in middle.items()]
    spectra = []
    for part, cuts in chosen:
        values = part.mpo.singular_values(_metric_of(compressed, part))
        spectra += [CutSpectrum(part.start + int(cut), values[cut]) for cut in cuts]
    return spectra


def _accuracy(hamiltonian: LossHamiltonian, bits: np.ndarray, data: Dataset) -> float:
    x = data.x.astype(np.float32, copy=False)
    logits = hamiltonian.network.logits(bits, x, step=data.step)[0]
    return float((hamiltonian.loss.predict(logits) == data.y).mean())


def _together(
    compressed: CompressedLoss, parts: Sequence[Part], errors: Float[np.ndarray, " n_parts"]
) -> float:
    """The error of all parts in the metric, in which bits of different parts are independent."""
    ordered = sorted(parts, key=lambda part: part.start)
    if any(one.stop > other.start for one, other in itertools.pairwise(ordered)):
        return float(errors.sum())
    means = np.zeros(len(parts))
    for number, (before, after) in enumerate(zip(compressed.parts, parts, strict=True)):
        if after is not before:
            metric = _metric_of(compressed, before)
            means[number] = after.mpo.mean(metric) - before.mpo.mean(metric)
    variances = np.maximum(errors**2 - means**2, 0)
    return math.sqrt(variances.sum() + means.sum() ** 2)


def _metric_of(compressed: CompressedLoss, part: Part) -> np.ndarray | None:
    if compressed.probabilities is None:
        return None
    return compressed.probabilities[part.start : part.stop]
