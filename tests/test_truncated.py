"""The truncated MPS against statevectors in plain NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.circuit import Brickwork
from hypercircuit.state import truncated_tensors


@pytest.mark.parametrize("scheme", ["sweep", "parallel"])
def test_nothing_discarded_is_exact(scheme: str):
    circuit, n_qubits = Brickwork(5), 3
    params = circuit.init(jax.random.key(1), n_qubits, how="uniform", dtype=jnp.float64)
    state = jax.jit(lambda p: truncated_tensors(circuit, p, max_bond=8, scheme=scheme))(params)
    found = np.ones((1, 1))
    for tensor in state.site_tensors():
        found = np.tensordot(found, np.asarray(tensor), 1).reshape(-1, tensor.shape[2])
    expected = oracles.brickwork_statevector(params)
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-13)
    assert float(state.discarded_weight) < 1e-25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bond": 0}, "max_bond must be at least 1, got 0"),
        ({"max_bond": 2, "cutoff": 1.0}, "cutoff must be from 0 to less than 1, got 1.0"),
        ({"max_bond": 2, "scheme": "zip"}, "scheme must be one of sweep, parallel"),
    ],
)
def test_refusals(settings: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        truncated_tensors(Brickwork(2), jnp.zeros((2, 4, 2)), **settings)
