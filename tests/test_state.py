"""The exact MPS, its environments, moments and samples, against statevectors in plain NumPy."""

import functools
import itertools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.circuit import Brickwork
from hypercircuit.state import (
    Band,
    ExactMPS,
    bit_cumulants,
    bit_probabilities,
    condition,
    correlations,
    exact_mps,
    joint_probabilities,
    log_probability,
    marginals,
    most_likely,
    sample,
)
from hypercircuit.state.exact import hermitian_basis

SIGMAS = 4.5
# (depth, n_qubits, rotations): even and odd chains, chains shorter and longer than a light cone
CASES = [
    (1, 3, "ry-rz"),
    (1, 1, "ry"),
    (2, 4, "ry-rz"),
    (2, 7, "ry"),
    (3, 1, "ry-rz"),
    (3, 8, "ry-rz"),
    (4, 9, "ry-rz"),
    (4, 2, "ry"),
    (5, 3, "ry-rz"),
    (6, 5, "ry"),
]
LONG_TO_COMPILE = [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in [(3, 9, "ry"), (5, 9, "ry-rz"), (6, 9, "ry-rz"), (7, 8, "ry"), (8, 9, "ry-rz")]
]
every_case = pytest.mark.parametrize(("depth", "n_qubits", "rotations"), [*CASES, *LONG_TO_COMPILE])


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


@eqx.filter_jit
def _prepare(circuit: Brickwork, params: jax.Array) -> ExactMPS:
    return exact_mps(circuit, params)


@functools.cache
def prepare(
    depth: int, n_qubits: int, rotations: str = "ry-rz", dtype=jnp.float64
) -> tuple[ExactMPS, np.ndarray]:
    """A state with different angles everywhere, and its statevector by the oracle."""
    circuit = Brickwork(depth, rotations)
    key = jax.random.key(100 * depth + n_qubits)
    params = circuit.init(key, n_qubits, how="uniform", dtype=jnp.float64)
    angles = np.zeros((depth, n_qubits, 2))
    angles[..., : params.shape[2]] = params
    return _prepare(circuit, params.astype(dtype)), oracles.brickwork_statevector(angles)


def long_mps(depth: int, n_qubits: int, scale: float = 0.4, dtype=jnp.float32) -> ExactMPS:
    circuit = Brickwork(depth)
    params = circuit.init(jax.random.key(depth), n_qubits, scale=scale, dtype=jnp.float32)
    return _prepare(circuit, params.astype(dtype))


def bit_numbers(bits: jax.Array) -> np.ndarray:
    """The index of each bitstring, site 0 most significant."""
    bits = np.asarray(bits).astype(np.int64)
    return bits @ (1 << np.arange(bits.shape[1])[::-1])


# ---------------------------------------------------------------- the MPS


@every_case
def test_statevector_and_norm(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    amplitudes = np.asarray(mps.to_statevector())
    np.testing.assert_allclose(amplitudes, state, rtol=0, atol=1e-14)
    assert np.linalg.norm(amplitudes) == pytest.approx(1, abs=1e-13)


@every_case
def test_tensors_are_an_mps(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    tensors = [np.asarray(tensor) for tensor in mps.tensors()]
    assert len(tensors) == n_qubits
    assert [tensor.shape[1] for tensor in tensors] == [2] * n_qubits
    assert tensors[0].shape[0] == tensors[-1].shape[2] == 1
    for left, right in itertools.pairwise(tensors):
        assert left.shape[2] == right.shape[0] <= 2 * 2 ** ((depth - 1) // 2)
    contracted = np.ones((1, 1))
    for tensor in tensors:
        contracted = np.einsum("wl,lpr->wpr", contracted, tensor).reshape(-1, tensor.shape[2])
    np.testing.assert_allclose(contracted[:, 0], state, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("depth", "n_qubits", "rotations"), [(2, 4, "ry-rz"), (4, 9, "ry-rz")])
def test_quimb_holds_the_same_state(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    dense = np.asarray(mps.to_quimb().to_dense()).reshape(-1)
    np.testing.assert_allclose(dense, state, rtol=0, atol=1e-14)


@every_case
def test_environments_equal_sweeps(depth: int, n_qubits: int, rotations: str):
    mps, _ = prepare(depth, n_qubits, rotations)
    traced = np.asarray(mps.maps).sum(1)
    left = [np.eye(traced.shape[1])[0]]
    for move in traced:
        left.append(left[-1] @ move)
    right = [np.asarray(mps.right[-1])]
    for move in traced[::-1]:
        right.insert(0, move @ right[0])
    np.testing.assert_allclose(mps.left, left, rtol=0, atol=1e-13)
    np.testing.assert_allclose(mps.right, right, rtol=0, atol=1e-13)
    norms = (np.asarray(mps.left) * np.asarray(mps.right)).sum(1)
    np.testing.assert_allclose(norms, 1, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("depth", "n_qubits", "rotations"),
    [(3, 8, "ry-rz"), (4, 9, "ry-rz"), pytest.param(6, 16, "ry", marks=pytest.mark.slow)],
)
def test_a_gap_of_two_light_cones_has_rank_one(depth: int, n_qubits: int, rotations: str):
    mps, _ = prepare(depth, n_qubits, rotations)
    traced, gap = np.asarray(mps.maps).sum(1), 2 * mps.reach
    for first in range(len(traced) - gap + 1):
        move = np.linalg.multi_dot(traced[first : first + gap])
        outer = np.outer(mps.right[first], mps.left[first + gap])
        np.testing.assert_allclose(move, outer, rtol=0, atol=1e-13)
        assert np.linalg.matrix_rank(move, tol=1e-10) == 1
    # One cell fewer is not enough.
    move = np.linalg.multi_dot([*traced[1:gap], np.eye(traced.shape[1])])
    assert np.abs(move - np.outer(mps.right[1], mps.left[gap])).max() > 1e-6


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("bond", [1, 2, 4])
def test_hermitian_basis_is_orthonormal_and_complete(bond: int, real: bool):
    basis = hermitian_basis(bond, real=real)
    assert len(basis) == (bond * (bond + 1) // 2 if real else bond**2)
    np.testing.assert_allclose(basis, basis.conj().swapaxes(1, 2), atol=0)
    overlaps = np.einsum("xab,yab->xy", basis.conj(), basis)
    np.testing.assert_allclose(overlaps, np.eye(len(basis)), atol=1e-15)


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_float32_stays_float32(depth: int):
    mps, state = prepare(depth, 9, dtype=jnp.float32)
    assert {mps.maps.dtype, mps.left.dtype, mps.right.dtype} == {jnp.dtype(jnp.float32)}
    assert mps.cells.dtype == jnp.complex64
    np.testing.assert_allclose(mps.to_statevector(), state, rtol=0, atol=2e-6)


def test_long_chains_keep_their_norm():
    mps = long_mps(4, 50_001)
    norms = np.asarray((mps.left * mps.right).sum(1))
    assert len(norms) == 25_002
    np.testing.assert_allclose(norms, 1, rtol=0, atol=5e-6)


def test_statevector_refuses_long_chains():
    with refuses("a statevector of 25 qubits does not fit in memory; at most 24 qubits"):
        long_mps(1, 25).to_statevector()


# ---------------------------------------------------------------- moments


@every_case
def test_marginals_and_correlations(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    expected = oracles.marginals(state)
    np.testing.assert_allclose(jax.jit(marginals)(mps), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        jax.jit(bit_probabilities)(mps), (1 - expected) / 2, rtol=0, atol=1e-13
    )
    band = np.asarray(jax.jit(correlations)(mps))
    assert band.shape == (mps.correlation_range + 1, n_qubits)
    table = np.zeros((n_qubits, n_qubits))
    for distance, row in enumerate(band):
        assert not row[:distance].any()
        for site in range(distance, n_qubits):
            table[site - distance, site] = table[site, site - distance] = row[site]
    np.testing.assert_allclose(table, oracles.correlations(state), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("depth", "n_qubits", "rotations", "sites"),
    [
        (1, 5, "ry", (1, 0)),
        (2, 7, "ry-rz", (0, 1, 2)),
        (3, 8, "ry", (-1,)),
        (4, 8, "ry", (0,)),
        (4, 9, "ry-rz", (-2, -1)),
        (5, 9, "ry", (-1, -3, -2)),
    ],
)
def test_condition(depth: int, n_qubits: int, rotations: str, sites: tuple[int, ...]):
    """The measured state is the projected statevector, maps and tensors alike."""
    mps, state = prepare(depth, n_qubits, rotations)
    sites = tuple(site % n_qubits for site in sites)
    outcome = (1, 0, 1)[: len(sites)]
    bits = oracles.bits_table(n_qubits)
    kept = (bits[:, sites] == outcome).all(1)
    expected = oracles.born_probabilities(state) * kept
    probability, measured = jax.jit(lambda m: condition(m, sites, outcome))(mps)
    np.testing.assert_allclose(probability, expected.sum(), rtol=0, atol=1e-13)
    expected /= expected.sum()
    ones = np.asarray(jax.jit(bit_probabilities)(measured))
    np.testing.assert_allclose(ones, expected @ bits, rtol=0, atol=1e-12)
    logs = jax.jit(log_probability)(measured, jnp.asarray(bits[kept][::3]))
    np.testing.assert_allclose(np.exp(logs), expected[kept][::3], rtol=0, atol=1e-12)
    overlap = np.abs(np.vdot(measured.to_statevector(), state * kept)) ** 2
    np.testing.assert_allclose(overlap, float(probability), rtol=1e-11)


def test_condition_refuses_sites_inside_the_chain():
    mps, _ = prepare(2, 7, "ry")
    for sites in ((1,), (0, 2), (3, 4)):
        with pytest.raises(ValueError, match="neighbours that reach one end of the chain of 7"):
            condition(mps, sites, (0,) * len(sites))


@pytest.mark.parametrize(("depth", "n_qubits"), [(1, 6), (3, 7), (4, 8)])
@pytest.mark.parametrize("sites", [[[2], [5]], [[0, 1], [4, 5]], [[3, 2, 1], [5, 4, 3]]])
def test_joint_probabilities(depth: int, n_qubits: int, sites: list[list[int]]):
    mps, state = prepare(depth, n_qubits, "ry-rz")
    table = np.asarray(joint_probabilities(mps, np.array(sites)))
    probabilities = oracles.born_probabilities(state)
    bits = oracles.bits_table(n_qubits)
    for group, row in zip(sites, table, strict=True):
        for code, pattern in enumerate(oracles.bits_table(len(group))):
            expected = probabilities[(bits[:, group] == pattern).all(1)].sum()
            np.testing.assert_allclose(row[code], expected, rtol=0, atol=1e-13)


def test_joint_probabilities_refuse_scattered_sites():
    mps, _ = prepare(2, 7, "ry")
    with pytest.raises(ValueError, match="must be neighbours in one direction"):
        joint_probabilities(mps, np.array([[0, 2]]))


def _sites(band: Band, index: tuple[int, ...]) -> list[int]:
    """The distinct sites of an entry of a band; the first one may lie before the chain."""
    *gaps, last = index
    return [last - sum(gap + 1 for gap in gaps[m:]) for m in range(len(gaps) + 1)]


def _joint(probabilities: np.ndarray, centred: np.ndarray, sites: list[int]) -> float:
    """The joint cumulant of two to four bits by its definition."""

    def moment(*chosen: int) -> float:
        return float(probabilities @ np.prod(centred[:, chosen], axis=1))

    if len(sites) < 4:
        return moment(*sites)
    a, b, c, d = sites
    pairs = [((a, b), (c, d)), ((a, c), (b, d)), ((a, d), (b, c))]
    return moment(a, b, c, d) - sum(moment(*p) * moment(*q) for p, q in pairs)


@pytest.mark.parametrize(
    ("depth", "n_qubits", "rotations"),
    [
        (1, 3, "ry-rz"),
        (2, 7, "ry"),
        (4, 9, "ry-rz"),
        pytest.param(3, 8, "ry-rz", marks=pytest.mark.slow),
        pytest.param(4, 8, "ry", marks=pytest.mark.slow),
    ],
)
def test_cumulants_to_fourth_order(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    probabilities = oracles.born_probabilities(state)
    bits = oracles.bits_table(n_qubits).astype(float)
    mean, bands = _cumulants(mps)
    np.testing.assert_allclose(mean, probabilities @ bits, rtol=0, atol=1e-13)
    centred = bits - probabilities @ bits
    weights = np.random.default_rng(depth).normal(size=n_qubits)
    totals = dict.fromkeys((2, 3, 4), 0.0)
    for band in bands:
        values = np.asarray(band.values)
        reach = mps.correlation_range
        assert values.shape == (reach,) * (len(band.powers) - 1) + (n_qubits,)
        expected = np.zeros_like(values)
        for index in np.ndindex(values.shape):
            sites = _sites(band, index)
            if sites[0] < 0:
                continue
            repeated = [s for s, q in zip(sites, band.powers, strict=True) for _ in range(q)]
            expected[index] = _joint(probabilities, centred, repeated)
            totals[len(repeated)] += band.multiplicity * values[index] * np.prod(weights[repeated])
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13, err_msg=str(band.powers))
    # Together they make the cumulants of any linear form of the bits.
    for order, total in totals.items():
        exact = oracles.joint_cumulant(probabilities, bits @ weights, order)
        assert total == pytest.approx(exact, abs=1e-12)


def _cumulants(mps: ExactMPS) -> tuple[jax.Array, list[Band]]:
    """`bit_cumulants` to order four, compiled."""
    powers: list[tuple[int, ...]] = []

    def values(mps: ExactMPS) -> tuple[jax.Array, list[jax.Array]]:
        mean, bands = bit_cumulants(mps, 4)
        powers.extend(band.powers for band in bands)
        return mean, [band.values for band in bands]

    mean, arrays = jax.jit(values)(mps)
    return mean, [Band(p, a) for p, a in zip(powers, arrays, strict=True)]


def test_cumulants_stay_float32():
    mps, _ = prepare(2, 5, dtype=jnp.float32)
    mean, bands = _cumulants(mps)
    assert {mean.dtype, *(band.values.dtype for band in bands)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("order", [2, 3, 4])
def test_bands_are_listed_by_order_and_power(order: int):
    mps, _ = prepare(2, 4)
    shapes = eqx.filter_eval_shape(lambda m: [b.powers for b in bit_cumulants(m, order)[1]], mps)
    expected = [(2,), (1, 1), (3,), (2, 1), (1, 2), (1, 1, 1), (4,), (3, 1), (2, 2), (1, 3)]
    expected += [(2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 1, 1, 1)]
    assert [tuple(s) for s in shapes] == [p for p in expected if sum(p) <= order]


@pytest.mark.parametrize("order", [1, 5])
def test_cumulants_refuse_orders(order: int):
    with refuses(f"order must be 2, 3 or 4, got {order}"):
        bit_cumulants(prepare(2, 4)[0], order)


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("depth", "n_qubits", "rotations"), [(1, 3, "ry-rz"), (2, 7, "ry"), (4, 5, "ry-rz")]
)
def test_sample_frequencies_are_born_probabilities(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    probabilities, shots = oracles.born_probabilities(state), 40_000
    bits, log_probabilities = sample(mps, jax.random.key(11), shots)
    assert (bits.shape, bits.dtype) == ((shots, n_qubits), jnp.uint8)
    numbers = bit_numbers(bits)
    counts = np.bincount(numbers, minlength=2**n_qubits)
    # Pearson's chi-square with its exact mean and variance for finite samples
    likely = probabilities * shots > 1
    observed = np.append(counts[likely], counts[~likely].sum())
    expected = np.append(probabilities[likely], probabilities[~likely].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - shots * expected) ** 2 / (shots * expected)).sum()
    k = len(expected)
    variance = 2 * (k - 1) + ((1 / expected).sum() - k**2 - 2 * k + 2) / shots
    assert abs(statistic - (k - 1)) < SIGMAS * np.sqrt(variance)
    # and every marginal within its own error
    mean = probabilities @ oracles.bits_table(n_qubits)
    error = np.sqrt(mean * (1 - mean) / shots)
    assert (np.abs(np.asarray(bits).mean(0) - mean) < SIGMAS * error).all()
    np.testing.assert_allclose(
        log_probabilities, np.log(probabilities[numbers]), rtol=0, atol=1e-10
    )


def test_sampling_error_falls_with_the_root_of_the_shots():
    mps, state = prepare(2, 7, "ry")
    probabilities = oracles.born_probabilities(state)
    exact = probabilities @ oracles.bits_table(7)
    shots = np.array([100, 1600, 25_600])
    errors = []
    for n in shots:  # ten runs of seven sites each
        runs = [sample(mps, jax.random.key(k), int(n))[0].mean(0) - exact for k in range(10)]
        errors.append(np.sqrt(np.mean(np.square(runs))))
    slope = np.polyfit(np.log(shots), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.08


def test_keys_decide_the_samples():
    mps, _ = prepare(4, 9)
    first, again, other = (np.asarray(sample(mps, jax.random.key(k), 50)[0]) for k in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(np.unique(first, axis=0)) > 10


@pytest.mark.parametrize(
    ("depth", "n_qubits", "rotations"),
    [(1, 1, "ry"), (2, 7, "ry"), (3, 8, "ry-rz"), (4, 9, "ry-rz")],
)
def test_log_probability(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    bits = oracles.bits_table(n_qubits)
    logs = log_probability(mps, jnp.asarray(bits))
    np.testing.assert_allclose(
        np.exp(logs), oracles.born_probabilities(state), rtol=1e-9, atol=1e-15
    )


def test_log_probability_has_the_right_gradient():
    circuit = Brickwork(3)
    params = circuit.init(jax.random.key(8), 5, how="uniform", dtype=jnp.float64)
    bits = np.array([[0, 1, 1, 0, 1]])
    number = bit_numbers(bits)[0]
    gradient = jax.jit(jax.grad(lambda p: log_probability(exact_mps(circuit, p), bits)[0]))(params)

    def reference(angles: np.ndarray) -> float:
        return float(np.log(np.abs(oracles.brickwork_statevector(angles)[number]) ** 2))

    expected = oracles.finite_difference_gradient(reference, params, 1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("depth", "n_qubits", "rotations"), [(2, 4, "ry-rz"), (6, 5, "ry"), (2, 7, "ry")]
)
def test_wide_beams_list_all_networks_in_order(depth: int, n_qubits: int, rotations: str):
    mps, state = prepare(depth, n_qubits, rotations)
    probabilities = oracles.born_probabilities(state)
    bits, logs = most_likely(mps, 2**n_qubits)
    np.testing.assert_allclose(np.exp(logs), np.sort(probabilities)[::-1], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(probabilities[bit_numbers(bits)], np.exp(logs), atol=1e-12)
    assert len(np.unique(bit_numbers(bits))) == 2**n_qubits


@pytest.mark.parametrize("width", [1, 3])
def test_narrow_beams_find_the_best_network_of_product_states(width: int):
    mps, state = prepare(1, 9)
    bits, logs = most_likely(mps, width)
    assert bits.shape == (width, 9)
    probabilities = oracles.born_probabilities(state)
    assert bit_numbers(bits)[0] == probabilities.argmax()
    np.testing.assert_allclose(np.exp(logs)[0], probabilities.max(), rtol=1e-12)


def test_narrow_beams_report_true_probabilities():
    mps, state = prepare(4, 9)
    bits, logs = most_likely(mps, 5)
    probabilities = oracles.born_probabilities(state)
    np.testing.assert_allclose(np.exp(logs), probabilities[bit_numbers(bits)], rtol=1e-10)
    assert (np.diff(logs) <= 0).all()
    assert probabilities.max() / 3 < np.exp(logs[0]) <= probabilities.max() * (1 + 1e-12)


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_no_underflow_at_50000_qubits(depth: int):
    mps = long_mps(depth, 50_000)
    bits, logs = sample(mps, jax.random.key(2), 3)
    best, best_logs = most_likely(mps, 2)
    assert logs.dtype == best_logs.dtype == jnp.float32
    assert np.isfinite(logs).all()
    assert np.isfinite(best_logs).all()
    # Typical networks are a bit likelier than 2^-N, the most likely one much more.
    assert -50_000 * np.log(2) < np.min(logs) <= np.max(logs) < np.min(best_logs) < 0
    networks = jnp.concatenate([bits, best])
    again = np.asarray(log_probability(mps, networks))
    np.testing.assert_allclose(again, np.append(logs, best_logs), rtol=1e-6)
    precise = log_probability(long_mps(depth, 50_000, dtype=jnp.float64), networks)
    np.testing.assert_allclose(again, precise, rtol=2e-5)


def test_refusals():
    mps, _ = prepare(2, 4)
    with refuses("n_samples must be at least 1, got 0"):
        sample(mps, jax.random.key(0), 0)
    with refuses("width must be at least 1, got -1"):
        most_likely(mps, -1)
    with refuses("bits must have one column per qubit (4), got shape (3, 5)"):
        log_probability(mps, jnp.zeros((3, 5), jnp.uint8))
