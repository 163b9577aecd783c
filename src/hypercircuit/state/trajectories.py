"""Quantum trajectories: pure states of a noisy chain, one for each draw of its errors.

Each gate of a trajectory fails with its probability and is then followed by a random Pauli; a bit
that will be read wrongly is flipped by an X at the end. Paulis after a CX merge with the rotations
that follow,

    rotation -> [X] P_2 Rz P_1 Ry P_0,      P_0 after the CX, P_1 after Ry, P_2 after Rz,

so that a trajectory is the brickwork itself with other one-qubit matrices, and costs what the pure
state costs, where the exact mixed state has a doubled bond of 5^reach; a deep one can be truncated.
The mean of the Born distributions of trajectories is the distribution of the mixed state.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, PRNGKeyArray

from .._types import Angles
from ..circuit import Noisy, Truncated
from ..circuit.brickwork import rotation_matrices
from ..circuit.export import layer_pairs
from .chain import ChainMPS
from .exact import ExactMPS, mps_of_cells
from .truncated import truncated_mps

#: The identity, X, i Y and Z: real matrices, since a global phase means nothing.
_PAULIS = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, 1], [-1, 0]], [[1, 0], [0, -1]]])


def trajectory_mps(
    circuit: Noisy, params: Angles, key: PRNGKeyArray, truncated: Truncated | None = None
) -> ExactMPS | ChainMPS:
    """The pure state of one draw of the errors; differentiable in the angles.

    Its bits are those that are read, wrong ones included.

    **Arguments:**

    - `truncated`: the circuit without noise as its state is truncated; left out, it is exact.

    **Raises:** `ValueError` for parameters of another shape.
    """
    n_qubits = params.shape[1]
    if params.shape != circuit.shape(n_qubits):
        raise ValueError(
            f"params must have shape {circuit.shape(n_qubits)} for {n_qubits} qubits, "
            f"got {params.shape}"
        )
    gates = trajectory_gates(circuit, params, key)
    if truncated is not None:
        return truncated_mps(truncated, params, gates)
    cells = circuit.circuit.cells_of(gates)
    return mps_of_cells(cells, circuit.circuit, n_qubits)


def trajectory_gates(
    circuit: Noisy, params: Angles, key: PRNGKeyArray
) -> Inexact[Array, "depth n_qubits 2 2"]:
    """The one-qubit matrices of a trajectory, errors merged."""
    depth, n_qubits, kinds = params.shape
    noise = circuit.noise
    after_cx, after_rotation, at_end = jax.random.split(key, 3)
    table = jnp.asarray(_PAULIS, params.dtype)
    gates = table[_pairs_of_errors(circuit, n_qubits, after_cx)]
    errors = table[_errors(after_rotation, noise.one_qubit, 4, (kinds, depth, n_qubits))]
    gates = errors[0] @ rotation_matrices(params[..., :1]) @ gates
    if kinds == 2:
        turns = rotation_matrices(params.at[..., 0].set(0))
        gates = errors[1].astype(turns.dtype) @ turns @ gates.astype(turns.dtype)
    wrong = jax.random.bernoulli(at_end, noise.readout, (n_qubits,))
    flips = table[wrong.astype(int)].astype(gates.dtype)
    return gates.at[-1].set(flips @ gates[-1])


def _errors(
    key: PRNGKeyArray, rate: float | jax.Array, n_paulis: int, shape: tuple[int, ...]
) -> jax.Array:
    """Numbers of Paulis, 0 the identity: with probability `rate` one of the others."""
    fails, which = jax.random.split(key)
    found = jax.random.randint(which, shape, 1, n_paulis)
    return jnp.where(jax.random.bernoulli(fails, rate, shape), found, 0)


def _pairs_of_errors(circuit: Noisy, n_qubits: int, key: PRNGKeyArray) -> jax.Array:
    """The Paulis after the CX of every layer, (depth, n_qubits)."""
    found = jnp.zeros((circuit.depth, n_qubits), int)
    for number in range(2, circuit.depth + 1):
        pairs = np.array(layer_pairs(circuit.circuit, number, n_qubits), int).reshape(-1, 2)
        own = jax.random.fold_in(key, number)
        both = _errors(own, circuit.noise.two_qubit, 16, (len(pairs),))
        found = found.at[number - 1, pairs[:, 0]].set(both // 4)
        found = found.at[number - 1, pairs[:, 1]].set(both % 4)
    return found
