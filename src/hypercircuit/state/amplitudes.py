"""Gates on all the amplitudes of a few qubits, site 0 most significant; differentiable."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Inexact

#: 2^n_qubits of them.
Amplitudes = Inexact[Array, " amplitudes"]


def with_cx(state: Amplitudes, n_qubits: int, pair: tuple[int, int]) -> Amplitudes:
    """CX on a pair of sites, the control first."""
    front = jnp.moveaxis(state.reshape((2,) * n_qubits), pair, (0, 1))
    return jnp.moveaxis(jnp.stack([front[0], front[1][::-1]]), (0, 1), pair).reshape(-1)


def with_gates(state: Amplitudes, gates: Inexact[Array, "n_qubits 2 2"]) -> Amplitudes:
    """A gate on every site."""
    for site in range(len(gates)):
        parts = state.reshape(2**site, 2, -1)
        state = jnp.einsum("ab,lbr->lar", gates[site], parts).reshape(-1)
    return state
