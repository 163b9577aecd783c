"""What can be said about a matrix product state besides its energy.

entanglement        Schmidt values s_k of every bond, and -sum_k s_k^2 log s_k^2 in nats
correlation length  from the decay of the connected correlations <ZZ> with the distance
mutual information  of measured architecture qubits, all together or one by one, and every other
                    measured qubit, in nats

All of it is computed on the host or in one pass, outside of any training step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from . import chain_moments
from .chain import ChainMPS, from_tensors, right_canonical
from .condition import condition
from .moments import bit_probabilities
from .prepare import State

#: Correlations below this share of the variance are rounding.
_NOISE = {"float32": 1e-5, "float64": 1e-12}


@dataclasses.dataclass(frozen=True, eq=False)
class Entanglement:
    """The Schmidt decomposition at every bond.

    **Attributes:**

    - `spectrum`: the Schmidt values of a bond, normalised, largest first, then zeros.
    - `entropy`: of the squared values, in nats.
    - `norm`: of the state as its tensors stand, which should be one.
    """

    spectrum: Float[np.ndarray, "n_bonds values"]
    entropy: Float[np.ndarray, " n_bonds"]
    norm: float


@dataclasses.dataclass(frozen=True, eq=False)
class CorrelationDecay:
    """How correlations fall with the distance.

    **Attributes:**

    - `profile`: root mean square over all pairs of a distance of ``<Z_i Z_j> - <Z_i><Z_j>``, for
      distances 0, 1, ..
    - `length`: sites over which it falls by a factor e, from a straight line through the logs of
      the profile at distances 1 and above, as far as it exceeds rounding; 0 where at most one
      distance does, infinite where it does not fall.
    """

    profile: Float[np.ndarray, " distances"]
    length: float


def entanglement(state: State) -> Entanglement:
    """The Schmidt values and entropies of all bonds, in double precision."""
    tensors = [np.asarray(tensor, np.complex128) for tensor in state.tensors()]
    log_norm, left = 0.0, np.ones((1, 1), np.complex128)
    for tensor in tensors:
        half = np.tensordot(left, tensor, axes=(0, 0))
        left = np.tensordot(half, tensor.conj(), axes=((0, 1), (0, 1)))
        total = np.trace(left).real
        log_norm, left = log_norm + np.log(total), left / total
    _, values = right_canonical(tensors)
    widest = max((len(each) for each in values), default=1)
    spectrum = np.zeros((len(values), widest))
    for row, each in zip(spectrum, values, strict=True):
        row[: len(each)] = each
    weights = spectrum**2
    logs = np.log(np.where(weights > 0, weights, 1))
    return Entanglement(spectrum, -(weights * logs).sum(1) + 0.0, float(np.exp(log_norm / 2)))


def correlation_decay(state: State, distances: int = 32) -> CorrelationDecay:
    """The correlations' profile up to a distance, and the length that it stands for."""
    mps = state if isinstance(state, ChainMPS) else from_tensors(state.tensors())
    reach = min(distances, mps.n_qubits - 1)
    _, variances, pairs = jax.jit(chain_moments.pair_covariances, static_argnums=1)(mps, reach)
    rows = [4 * np.asarray(variances, np.float64)]
    rows += [4 * np.asarray(row, np.float64)[r:] for r, row in enumerate(pairs, 1)]
    profile = np.array([np.sqrt(np.mean(row**2)) for row in rows])
    return CorrelationDecay(profile, _length(profile, _NOISE[mps.dtype.name]))


def _length(profile: np.ndarray, noise: float) -> float:
    seen = profile[1:] > noise * max(profile[0], noise)
    last = len(seen) if seen.all() else int(seen.argmin())
    if last < 2:
        return 0.0
    slope = np.polyfit(np.arange(1, last + 1), np.log(profile[1 : last + 1]), 1)[0]
    return float(-1 / slope) if slope < 0 else float("inf")


#: Qubits whose settings are measured one by one.
MOST_MEASURED = 12


def mutual_information(state: State, sites: Sequence[int]) -> Float[np.ndarray, " n_qubits"]:
    """The mutual information of some measured qubits and each measured qubit, in nats.

    For one of `sites` itself it is that qubit's own entropy.

    **Arguments:**

    - `sites`: at most `MOST_MEASURED` neighbouring sites that reach one end of the chain.

    **Raises:** `ValueError` for other sites.
    """
    if not 1 <= len(sites) <= MOST_MEASURED:
        raise ValueError(f"sites must be 1 to {MOST_MEASURED} of them, got {len(sites)}")
    chances, given = [], []
    for code in range(2 ** len(sites)):
        bits = [code >> shift & 1 for shift in reversed(range(len(sites)))]
        probability, after = condition(state, sites, bits)
        chances.append(float(probability))
        given.append(np.asarray(bit_probabilities(after), np.float64))
    weights = np.array(chances) / np.sum(chances)
    ones = np.clip(np.stack(given), 0, 1)
    # Impossible outcomes leave the state as it was and weigh nothing.
    whole = np.clip(weights @ ones, 0, 1)
    return np.maximum(_binary_entropy(whole) - weights @ _binary_entropy(ones), 0)


#: Sites between qubits of which pairs are looked at.
PAIR_REACH = 32


def pair_information(
    state: State, sites: Sequence[int], distances: int = PAIR_REACH
) -> Float[np.ndarray, " n_qubits"]:
    """The largest mutual information that a measured qubit has with one of some others, in nats.

    What it shares with all of them together is at least that. For one of `sites` itself it is that
    qubit's own entropy, and not a number where none of them is near enough.

    **Arguments:**

    - `sites`: any number, anywhere.
    - `distances`: of the pairs that are looked at, at most.
    """
    mps = state if isinstance(state, ChainMPS) else from_tensors(state.tensors())
    reach = min(distances, mps.n_qubits - 1)
    ones, _, covariances = jax.jit(chain_moments.pair_covariances, static_argnums=1)(mps, reach)
    p, chosen = np.asarray(ones, np.float64), np.zeros(mps.n_qubits, bool)
    chosen[list(sites)] = True
    found = np.where(chosen, _binary_entropy(p), np.nan)
    for gap, row in enumerate(np.asarray(covariances, np.float64), 1):
        first, second, joint = p[:-gap], p[gap:], row[gap:] + p[:-gap] * p[gap:]
        four = np.stack([joint, first - joint, second - joint, 1 - first - second + joint])
        four = np.clip(four, 0, 1)
        shared = _binary_entropy(first) + _binary_entropy(second) - _entropy(four)
        sides = (found[:-gap], chosen[:-gap]), (found[gap:], chosen[gap:])
        for (here, own), (_, other) in (sides, sides[::-1]):
            np.fmax(here, np.where(other & ~own, np.maximum(shared, 0), np.nan), out=here)
    return found


def _entropy(chances: np.ndarray) -> np.ndarray:
    return -(chances * np.log(np.where(chances > 0, chances, 1))).sum(0)


def _binary_entropy(p: np.ndarray) -> np.ndarray:
    return _entropy(np.stack([p, 1 - p]))
