"""The brickwork circuit: its gates, order of sites, initial angles and bonds."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.circuit import Brickwork

ROTATIONS = ("ry-rz", "ry")


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def uniform_params(circuit: Brickwork, n_qubits: int, dtype=jnp.float64) -> jax.Array:
    key = jax.random.key(100 * circuit.depth + n_qubits)
    return circuit.init(key, n_qubits, how="uniform", dtype=dtype)


def oracle_state(params: jax.Array) -> np.ndarray:
    """The oracle's statevector; circuits without Rz have all its angles zero."""
    angles = np.zeros((*params.shape[:2], 2))
    angles[..., : params.shape[2]] = params
    return oracles.brickwork_statevector(angles)


@eqx.filter_jit
def _cells(circuit: Brickwork, params: jax.Array) -> jax.Array:
    return circuit.cells(params)


def circuit_cells(circuit: Brickwork, params: jax.Array) -> np.ndarray:
    return np.asarray(_cells(circuit, params))


def contract(cells: np.ndarray, n_qubits: int) -> np.ndarray:
    """Amplitudes from cells: bond 0 enters at the left, the right bond is summed over."""
    state = np.zeros((1, cells.shape[1]))
    state[0, 0] = 1
    for cell in cells:
        state = np.einsum("wl,lstr->wstr", state, cell).reshape(-1, cell.shape[-1])
    amplitudes = state.sum(1)
    if n_qubits % 2:
        assert np.abs(amplitudes[1::2]).max() < 1e-15, "the padding site must stay |0>"
        amplitudes = amplitudes[0::2]
    return amplitudes


# Every depth, both rotations and both parities of the chain; test_state.py has further ones.
TELLING = {
    (1, 4, "ry"),
    (2, 1, "ry-rz"),
    (2, 5, "ry-rz"),
    (3, 4, "ry-rz"),
    (3, 9, "ry"),
    (4, 6, "ry"),
    (4, 7, "ry-rz"),
    (5, 2, "ry"),
    (5, 7, "ry-rz"),
    (6, 8, "ry-rz"),
}


@pytest.mark.parametrize(
    ("depth", "n_qubits", "rotations"),
    [
        pytest.param(d, n, r, marks=[] if (d, n, r) in TELLING else pytest.mark.slow)
        for d in range(1, 7)
        for n in range(1, 10)
        for r in ROTATIONS
    ],
)
def test_state_equals_the_oracle(depth: int, n_qubits: int, rotations: str):
    circuit = Brickwork(depth, rotations)
    params = uniform_params(circuit, n_qubits)
    cells = circuit_cells(circuit, params)
    bond = 2**circuit.reach
    assert cells.shape == ((n_qubits + 1) // 2, bond, 2, 2, bond)
    assert np.iscomplexobj(cells) == (rotations == "ry-rz")
    np.testing.assert_allclose(contract(cells, n_qubits), oracle_state(params), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("depth", "flips", "expected"),
    [
        # flips: (layer, site) of the Ry(pi); expected: the only bitstring with a non-zero amplitude
        (1, [(1, 1)], "01000"),
        (2, [(1, 0)], "11000"),
        (2, [(1, 1)], "01000"),
        (2, [(1, 2)], "00110"),
        (2, [(1, 4)], "00001"),
        (2, [(2, 2)], "00100"),
        (3, [(1, 0)], "11100"),
        (3, [(2, 3)], "00011"),
        (3, [(3, 1)], "01000"),
        (4, [(1, 0)], "10110"),
    ],
)
def test_gates_by_hand(depth: int, flips: list[tuple[int, int]], expected: str):
    circuit = Brickwork(depth)
    params = np.zeros(circuit.shape(5))
    for layer, site in flips:
        params[layer - 1, site, 0] = np.pi
    amplitudes = contract(circuit_cells(circuit, jnp.asarray(params)), 5)
    probabilities = np.abs(amplitudes) ** 2
    assert probabilities[int(expected, 2)] == pytest.approx(1, abs=1e-15)


def test_rz_turns_the_one():
    params = jnp.asarray([[[0.4, 1.1], [0.9, -0.3], [2.1, 0.5]]])
    amplitudes = contract(circuit_cells(Brickwork(1), params), 3)
    ratio = amplitudes[0b100] / amplitudes[0b000]
    assert ratio == pytest.approx(np.tan(0.2) * np.exp(1.1j), abs=1e-15)


@pytest.mark.parametrize("depth", range(1, 7))
def test_correlation_range_bounds_every_correlation(depth: int):
    circuit = Brickwork(depth)
    table = oracles.correlations(oracle_state(uniform_params(circuit, 11)))
    first, second = np.nonzero(np.abs(table) > 1e-10)
    farthest = np.abs(first - second).max()
    assert farthest == max(0, 2 * depth - 3)
    assert farthest <= circuit.correlation_range <= farthest + 2


@pytest.mark.parametrize(
    ("depth", "reach", "max_bond"),
    [(1, 0, 1), (2, 0, 2), (3, 1, 2), (4, 1, 4), (5, 2, 4), (6, 2, 8), (8, 3, 16)],
)
def test_bonds(depth: int, reach: int, max_bond: int):
    circuit = Brickwork(depth)
    assert (circuit.reach, circuit.max_bond) == (reach, max_bond)


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_max_bond_is_the_oracles_largest_rank(depth: int):
    state = oracle_state(uniform_params(Brickwork(depth), 10))
    ranks = [
        int((np.linalg.svd(state.reshape(2**cut, -1), compute_uv=False) > 1e-10).sum())
        for cut in range(1, 10)
    ]
    assert max(ranks) == Brickwork(depth).max_bond
    assert max(ranks[1::2]) == 2 ** Brickwork(depth).reach


# ---------------------------------------------------------------- initial angles


@pytest.mark.parametrize(("rotations", "dtype"), [("ry-rz", jnp.float32), ("ry", jnp.float64)])
def test_init_shapes(rotations: str, dtype: type):
    circuit = Brickwork(3, rotations)
    shape = (3, 7, 2 if rotations == "ry-rz" else 1)
    assert circuit.shape(7) == shape
    for how in ("uniform", "near-uniform"):
        params = circuit.init(jax.random.key(5), 7, how=how, dtype=dtype)
        assert (params.shape, params.dtype) == (shape, dtype)


def test_init_is_float32_unless_asked():
    assert Brickwork(2).init(jax.random.key(5), 7).dtype == jnp.float32


def test_uniform_angles_fill_the_circle():
    params = np.asarray(Brickwork(2).init(jax.random.key(6), 5000, how="uniform"))
    assert params.min() >= 0
    assert params.max() < 2 * np.pi
    counts = np.histogram(params, bins=10, range=(0, 2 * np.pi))[0]
    chi_square = ((counts - params.size / 10) ** 2 / (params.size / 10)).sum()
    assert abs(chi_square - 9) < 4.5 * np.sqrt(18)


def test_near_uniform_angles_spread_as_asked():
    params = np.array(Brickwork(3).init(jax.random.key(7), 3000, scale=0.25, dtype=jnp.float64))
    params[-1, :, 0] -= np.pi / 2
    n = params.size
    assert abs(params.mean()) < 4.5 * 0.25 / np.sqrt(n)
    assert abs(params.std() - 0.25) < 4.5 * 0.25 / np.sqrt(2 * n)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_near_uniform_without_noise_makes_all_networks_equally_likely(depth: int):
    params = Brickwork(depth).init(jax.random.key(0), 5, scale=0.0, dtype=jnp.float64)
    probabilities = np.abs(oracle_state(params)) ** 2
    np.testing.assert_allclose(probabilities, 1 / 32, rtol=1e-12)


def test_keys_decide_the_angles():
    circuit = Brickwork(2)
    first, again, other = (circuit.init(jax.random.key(k), 6) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("depth", [0, -3])
def test_refuses_depths(depth: int):
    with refuses(f"depth must be at least 1, got {depth}; depth 1 is the product state"):
        Brickwork(depth)


def test_refuses_rotations():
    with refuses("rotations must be one of ry-rz, ry, got 'rx'"):
        Brickwork(2, "rx")


def test_refuses_starts():
    with refuses("n_qubits must be at least 1, got 0"):
        Brickwork(2).init(jax.random.key(0), 0)
    with refuses("how must be one of near-uniform, uniform, got 'zeros'"):
        Brickwork(2).init(jax.random.key(0), 4, how="zeros")
    with refuses("dtype must be float32 or float64, got float16"):
        Brickwork(2).init(jax.random.key(0), 4, dtype=np.float16)
    with jax.enable_x64(False), refuses("float64 needs jax.config.update('jax_enable_x64', True)"):
        Brickwork(2).init(jax.random.key(0), 4, dtype=np.float64)


@pytest.mark.parametrize(("depth", "rotations", "found"), [(3, "ry-rz", 2), (2, "ry", 2)])
def test_refuses_params_of_another_circuit(depth: int, rotations: str, found: int):
    circuit = Brickwork(depth, rotations)
    with refuses(f"params must have shape {circuit.shape(6)} for 6 qubits, got (2, 6, {found})"):
        circuit.cells(jnp.zeros((2, 6, found)))
