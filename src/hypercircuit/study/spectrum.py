"""How the loss of all networks spreads over products of Pauli Z.

A diagonal operator of N qubits is sum_S c_S prod_{j in S} Z_j over the 2^N subsets S of the sites;
the coefficients c_S are the Walsh-Hadamard transform of its diagonal. The squared coefficients sum
up to the mean squared loss over uniformly random networks, those of non-empty S to its variance.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def pauli_coefficients(diagonal: Float[np.ndarray, " n_networks"]) -> Float[np.ndarray, " n"]:
    """The coefficient of every product of Pauli Z, the mean at index 0.

    The set bits of an index name the sites of its product, site 0 most significant.

    **Raises:** `ValueError` unless the length is a power of two.
    """
    size = len(diagonal)
    n_qubits = size.bit_length() - 1
    if size != 2**n_qubits:
        raise ValueError(
            f"diagonal must have 2^N entries, got {size}; take LossHamiltonian.diagonal()"
        )
    values = np.array(diagonal, np.float64)
    for site in range(n_qubits):
        pairs = values.reshape(2**site, 2, -1)
        zero, one = pairs[:, 0].copy(), pairs[:, 1].copy()
        pairs[:, 0], pairs[:, 1] = zero + one, zero - one
    return values / size


def pauli_weights(diagonal: Float[np.ndarray, " n_networks"]) -> Float[np.ndarray, " n_orders"]:
    """The share of the loss's variance in products of k Pauli Z, for k = 0..N.

    Entry 0 is zero, since a constant has no variance; the others sum up to one, unless all losses
    are equal and every entry is zero.
    """
    squares = pauli_coefficients(diagonal) ** 2
    n_qubits = len(squares).bit_length() - 1
    orders = np.bitwise_count(np.arange(len(squares)))
    weights = np.bincount(orders, squares, minlength=n_qubits + 1)
    weights[0] = 0.0
    total = weights.sum()
    return weights / total if total > 0 else weights
