"""The entanglement of a matrix product state at every bond, on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def bond_entropies(tensors: Sequence[np.ndarray]) -> Float[np.ndarray, " n_bonds"]:
    """The entropy of every bond, ``-sum_k s_k^2 log s_k^2`` of its Schmidt values, in nats.

    A sweep to the left makes the right part of every bond orthonormal; the singular values met on
    the way back are the Schmidt values.

    **Arguments:**

    - `tensors`: of the sites, (left, phys, right), of any norm above zero.
    """
    carried, orthonormal = np.ones((1, 1)), []
    for tensor in reversed(tensors):
        whole = np.tensordot(np.asarray(tensor), carried, axes=1)
        left = whole.shape[0]
        q, r = np.linalg.qr(whole.reshape(left, -1).T)
        orthonormal.append(q.T.reshape(-1, *whole.shape[1:]))
        carried = r.T / np.abs(r).max()
    entropies, carried = [], carried / np.abs(carried).max()
    for tensor in reversed(orthonormal[1:]):
        whole = np.tensordot(carried, tensor, axes=1)
        matrix = whole.reshape(-1, whole.shape[-1])
        _, values, right = np.linalg.svd(matrix, full_matrices=False)
        weights = values**2 / np.sum(values**2)
        weights = weights[weights > 0]
        entropies.append(float(-(weights * np.log(weights)).sum()) + 0.0)
        carried = values[:, None] * right / values[0]
    return np.array(entropies)
