"""Squared errors of linear networks as operators, without a sum over examples.

With p_j the metric's probability that bit j is 1 and s_j^2 = p_j (1 - p_j), the functions
phi_j = (w_j - p_j) / s_j are orthonormal in it, and the mean squared error of an output is

    constant + sum_j a_j phi_j + sum_{i < j} Q_ij phi_i phi_j.

The operator's bonds carry 1, the sum so far, and the combinations of the phi so far that the rest
of the chain needs. Their number at a cut is the rank of Q there; truncating its singular values
makes an error in the metric that is known exactly.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..._threads import one_lapack_thread
from .operator import Compressed, DiagonalMPO

#: What waits, the sum so far, and one combination of the bits.
LEAST_QUADRATIC = 3


@one_lapack_thread()
def quadratic_mpo(
    gains: Float[np.ndarray, "n_examples fan_in"],
    offset: Float[np.ndarray, " n_examples"],
    weights: Float[np.ndarray, "fan_in 2"],
    *,
    max_bond: int | None = None,
    tolerance: float = 0.0,
) -> Compressed:
    """The mean over examples of ``(offset + sum_j gains_j w_j)^2``.

    **Arguments:**

    - `weights`: the metric's distribution of every bit.
    - `max_bond`: largest bond kept, at least 3.
    - `tolerance`: root mean square error that may be made, as far as `max_bond` allows.

    **Raises:** `ValueError` for a `max_bond` under 3.
    """
    if max_bond is not None and max_bond < LEAST_QUADRATIC:
        raise ValueError(
            f"a quadratic form needs a max_bond of at least {LEAST_QUADRATIC}, got {max_bond}"
        )
    n_examples, n_sites = gains.shape
    ones = weights[:, 1]
    spread = np.sqrt(ones * (1 - ones))
    centred = offset + gains @ ones
    scaled = gains * spread
    form = 2 * scaled.T @ scaled / n_examples
    own = 0.5 * np.diag(form)
    # phi^2 = 1 + (1 - 2 p) / s phi, because a bit is its own square.
    linear = 2 * centred @ scaled / n_examples + own * (1 - 2 * ones) / spread
    constant = (centred**2).mean() + own.sum()
    values = np.stack([-ones / spread, (1 - ones) / spread], axis=1)

    share = tolerance**2 / max(n_sites - 1, 1)
    discarded = np.zeros(max(n_sites - 1, 0))
    kept_values: list[np.ndarray] = []
    tensors = []
    coupling = np.zeros((0, n_sites))  # from the features so far to the sites that are left
    for site in range(n_sites):
        phi = values[site]
        n_before = len(coupling)
        last = site == n_sites - 1
        rows = np.concatenate([coupling[:, 1:], form[site : site + 1, site + 1 :]])
        turn = np.zeros((n_before + 1, 0))
        following = np.zeros((0, rows.shape[1]))
        if not last:
            u, singular, v = np.linalg.svd(rows, full_matrices=False)
            tails = np.sqrt(np.cumsum((singular**2)[::-1])[::-1])
            keep = int((tails > max(np.sqrt(share), 1e-14 * singular[0])).sum())
            keep = min(keep, len(singular) if max_bond is None else max_bond - 2)
            discarded[site] = tails[keep] if keep < len(singular) else 0.0
            kept_values.append(singular[:keep])
            turn, following = u[:, :keep], singular[:keep, None] * v[:keep]
        tensor = np.zeros((2 + n_before, 2, 2 + turn.shape[1]))
        tensor[0, :, 0] = tensor[1, :, 1] = 1
        tensor[0, :, 1] = linear[site] * phi
        tensor[2:, :, 1] = coupling[:, :1] * phi
        tensor[2:, :, 2:] = turn[:n_before, None]
        tensor[0, :, 2:] = phi[:, None] * turn[n_before]
        tensors.append(tensor)
        coupling = following
    # Bond 0 waits, bond 1 holds the sum, which starts with the constant.
    tensors[0][0, :, 1] += constant
    tensors[0] = tensors[0][:1]
    tensors[-1] = tensors[-1][:, :, 1:2]
    error = float(np.sqrt((discarded**2).sum()))
    return Compressed(DiagonalMPO(tuple(tensors)), error, discarded, kept_values)
