"""The classical optimum of a diagonal operator: the best network it knows of.

What a trained state reached is judged by what a search over single bitstrings finds in the same
operator: `minimise` for chains of any length, and `dmrg`, quimb's, where it fits.

A truncated operator is near the loss where its metric has weight, and may dip below it elsewhere:
the bits found are a network whose loss is to be evaluated by itself.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8

from ..hamiltonian.mpo import DiagonalMPO, metric_weights
from .bit_search import Improved, beam_search, check_bits, improve


@dataclasses.dataclass(frozen=True, eq=False)
class GroundState:
    """The best bitstring that a search found.

    **Attributes:**

    - `bits`: (n_sites,).
    - `value`: the operator's entry there, in its unit.
    - `history`: lowest entry so far, before the first sweep and after each.
    - `starts`: (n,) what every start of the first round of sweeps ended with, sorted.
    - `evaluations`: entries of the operator that were compared.
    - `seconds`: wall time.
    """

    bits: UInt8[np.ndarray, " n_sites"]
    value: float
    history: Float[np.ndarray, " n_records"]
    starts: Float[np.ndarray, " n_starts"]
    evaluations: int
    seconds: float


def minimise(
    mpo: DiagonalMPO,
    *,
    probabilities: Float[np.ndarray, " n_sites"] | None = None,
    starts: Integer[np.ndarray, "n_given n_sites"] | None = None,
    n_random: int = 32,
    width: int = 32,
    block: int = 2,
    temperatures: Sequence[float] | Float[np.ndarray, " n"] = (),
    max_sweeps: int = 100,
    max_rounds: int = 10,
    seed: int = 0,
) -> GroundState:
    """Search for the bitstring with the smallest entry.

    Starts are the given bitstrings, random ones, and those of beam searches that rank beginnings
    by the mean over the rest. All are improved by sweeps (`improve`). Then beam searches recombine
    them, their right parts ranking the beginnings, and the results are swept again, until a
    round brings nothing. The best entry never rises. With a width of 2^n_sites it is the minimum.

    **Arguments:**

    - `probabilities`: that each bit is 1: half of the random starts and a second beam search come
      from this product distribution, for example a state's marginals or the operator's metric;
      all are uniform if left out.
    - `starts`: given bitstrings, such as samples of a trained state.
    - `n_random`: random starts.
    - `width`: of the beams; 0 leaves the beam searches out.
    - `block`, `temperatures`, `max_sweeps`: see `improve`; only the first round is heated.
    - `max_rounds`: of recombination.
    - `seed`: of all draws.

    **Raises:** `ValueError` for arguments out of range, or if nothing is left to start from.
    """
    for name, number in (("n_random", n_random), ("width", width), ("max_rounds", max_rounds)):
        if number < 0:
            raise ValueError(f"{name} must not be negative, got {number}")
    weights = metric_weights(probabilities, mpo.n_sites)
    begin = time.perf_counter()
    rng = np.random.default_rng(seed)
    n_sites = mpo.n_sites
    pool = [np.zeros((0, n_sites), np.uint8)]
    evaluations = 0
    if starts is not None:
        pool.append(check_bits(mpo, starts))
    biased = 0 if probabilities is None else n_random // 2
    pool.append(rng.integers(0, 2, (n_random - biased, n_sites), np.uint8))
    if biased:
        pool.append((rng.random((biased, n_sites)) < weights[:, 1]).astype(np.uint8))
    if width:
        for metric in (None,) if probabilities is None else (None, probabilities):
            bits, _ = beam_search(mpo, width, probabilities=metric)
            pool.append(bits)
            evaluations += 2 * width * n_sites
    first = np.unique(np.concatenate(pool), axis=0)
    if len(first) == 0:
        raise ValueError("there is nothing to start from: give starts, n_random or a width above 0")

    def sweeps(bits: np.ndarray, heats: Sequence[float] | np.ndarray = ()) -> Improved:
        return improve(
            mpo, bits, block=block, max_sweeps=max_sweeps, temperatures=heats, seed=seed + 1
        )

    found = sweeps(first, temperatures)
    evaluations += found.evaluations
    ends = np.sort(found.values)
    history = [found.history.min(1)]
    bits, values = found.bits, found.values
    for _ in range(max_rounds if width else 0):
        order = np.argsort(values, kind="stable")[:width]
        bits, values = bits[order], values[order]
        recombined, _ = beam_search(mpo, width, suffixes=bits)
        found = sweeps(recombined)
        evaluations += 2 * width * len(bits) * n_sites + found.evaluations
        history.append(found.history.min(1))
        finished = not found.values.min() < values[0]
        bits, index = np.unique(np.concatenate([bits, found.bits]), axis=0, return_index=True)
        values = np.concatenate([values, found.values])[index]
        if finished:
            break
    best = int(values.argmin())
    return GroundState(
        bits[best],
        float(values[best]),
        np.minimum.accumulate(np.concatenate(history)),
        ends,
        evaluations,
        time.perf_counter() - begin,
    )
