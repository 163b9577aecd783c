"""The best network of a truncated operator that its true loss confirms.

A truncated operator is near the loss where its metric has weight, and may dip far below it
elsewhere, which is where an unrestricted search goes. Here the search stays near a product
distribution q, that of a trained state's bits: what it minimises is

    C(w) + strength * sum_j (max_b log q_j(b) - log q_j(w_j)),

again an operator, of two bonds more. The strength starts where the penalty outweighs the spread of
the operator's entries, and is lowered until the operator leads astray: until no network found has a
smaller *true* loss than the best so far, and the operator's lowest entry lies further below the
loss than errors at the starts explain. Then the search goes on between the two strengths. So the
radius of the trust region is decided by the loss and not by the operator.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Integer, UInt8

from ..hamiltonian.mpo import DiagonalMPO, additive, metric_weights
from .bit_search import beam_search, check_bits, improve

#: The first strength, in spreads of the entries over the starts per spread of the penalty.
_FIRST = 10.0
#: A round's strength over that of the next.
_FALL = 4.0

#: An entry this many of the starts' errors below the loss is none.
_ASTRAY = 4.0

Losses = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class TrustedMinimum:
    """The best network found near a distribution.

    **Attributes:**

    - `bits`: (n_sites,).
    - `value`: the operator's entry there.
    - `loss`: its true loss, not above the lowest of the starts.
    - `strengths`: of the penalty, one per round.
    - `losses`: smallest true loss of what every round found.
    - `seconds`: wall time.
    """

    bits: UInt8[np.ndarray, " n_sites"]
    value: float
    loss: float
    strengths: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float


def minimise_trusted(
    mpo: DiagonalMPO,
    losses: Losses,
    starts: Integer[np.ndarray, "n_starts n_sites"],
    probabilities: Float[np.ndarray, " n_sites"],
    *,
    width: int = 16,
    max_rounds: int = 8,
    seed: int = 0,
) -> TrustedMinimum:
    """Search an operator near a distribution for the network of the smallest true loss.

    **Arguments:**

    - `losses`: the true losses of networks (n, n_sites), such as `LossHamiltonian.losses`.
    - `starts`: networks to start from, such as samples of a trained state.
    - `probabilities`: that each bit is 1, see `around_state`; those within 1e-6 of 0 or 1 count as
      that far away.
    - `width`: of the beams, see `beam_search`, and of the best networks kept from round to round.
    - `max_rounds`: strengths tried at most.
    - `seed`: of the searches.

    **Raises:** `ValueError` without starts, and for bits or probabilities that do not fit the
    operator.
    """
    begin = time.perf_counter()
    starts = check_bits(mpo, starts)
    if len(starts) == 0:
        raise ValueError("starts must hold at least one network, got none")
    if max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1, got {max_rounds}")
    if len(probabilities) != mpo.n_sites:
        raise ValueError(
            f"probabilities must be one per site ({mpo.n_sites}), got {len(probabilities)}"
        )
    penalty = unlikeliness(probabilities)
    values, true = mpo.values(starts), np.asarray(losses(starts), np.float64)
    spread = float(penalty.values(starts).std()) or 1.0
    strength = _FIRST * (float(values.std()) or float(np.abs(values).max()) or 1.0) / spread
    best, best_loss = starts[true.argmin()], float(true.min())
    error = float(np.abs(values - true).max())
    safe, too_weak = strength, 0.0
    strengths, found_losses = [], []
    pool = starts
    for _ in range(max_rounds):
        held = mpo + penalty * strength
        swept = improve(held, pool, seed=seed)
        likely = swept.bits[np.argsort(swept.values, kind="stable")[:width]]
        joined = improve(held, beam_search(held, width, suffixes=likely)[0], seed=seed)
        bits = np.unique(np.concatenate([swept.bits, joined.bits]), axis=0)
        values, true = mpo.values(bits), np.asarray(losses(bits), np.float64)
        strengths.append(strength)
        found_losses.append(float(true.min()))
        lowest = int(held.values(bits).argmin())
        if true.min() < best_loss:
            best, best_loss = bits[true.argmin()], float(true.min())
            safe = strength
        elif true[lowest] - values[lowest] > _ASTRAY * error:
            too_weak = strength
        else:
            safe = strength
        strength = float(np.sqrt(safe * too_weak)) if too_weak else safe / _FALL
        pool = np.unique(np.concatenate([bits[np.argsort(true)[:width]], starts]), axis=0)
    return TrustedMinimum(
        best,
        float(mpo.values(best[None])[0]),
        best_loss,
        tuple(strengths),
        tuple(found_losses),
        time.perf_counter() - begin,
    )


def unlikeliness(probabilities: Float[np.ndarray, " n_sites"]) -> DiagonalMPO:
    """How much less likely bits are than the likeliest ones of a product distribution, in nats.

    An operator of bond dimension 2.

    **Arguments:**

    - `probabilities`: that each bit is 1; those within 1e-6 of 0 or 1 count as that far away.
    """
    logs = np.log(metric_weights(probabilities, len(probabilities)))
    costs = logs.max(1, keepdims=True) - logs
    parts = [(site, DiagonalMPO((cost[None, :, None],))) for site, cost in enumerate(costs)]
    return additive(parts, len(probabilities))
