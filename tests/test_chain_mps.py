"""States of site tensors: their moments, samples and measurements, and the free MPS."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.circuit import Brickwork, FreeMPS
from hypercircuit.state import (
    ChainMPS,
    bit_cumulants,
    bit_probabilities,
    born,
    carry,
    condition,
    correlations,
    exact_mps,
    from_tensors,
    joint_probabilities,
    load_mps,
    log_probability,
    most_likely,
    mps_from_quimb,
    prepare_state,
    sample,
    save_mps,
)
from hypercircuit.state.carry import covariances_at_distances

N = 9


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def free(bond: int, n: int = N, *, real: bool = False, dtype: type = np.float64, seed: int = 3):
    ansatz = FreeMPS(bond, real=real)
    return ansatz, ansatz.init(jax.random.key(seed), n, how="uniform", dtype=dtype)


def state(bond: int = 5, **settings: object) -> ChainMPS:
    return prepare_state(*free(bond, **settings))


def chances(mps: ChainMPS) -> np.ndarray:
    return np.abs(np.asarray(mps.to_statevector())) ** 2


def brickwork(depth: int, n: int = N) -> tuple[ChainMPS, np.ndarray]:
    """A brickwork's state as site tensors, and its amplitudes by brute force."""
    params = np.random.default_rng(depth).uniform(0, 6, (depth, n, 2))
    circuit = Brickwork(depth)
    exact = exact_mps(circuit, jnp.asarray(params))
    mps = from_tensors(exact.tensors(), correlation_range=circuit.correlation_range)
    return mps, oracles.brickwork_statevector(params)


# ---------------------------------------------------------------- conversions


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_site_tensors_of_a_brickwork_are_its_state(depth: int):
    mps, psi = brickwork(depth)
    assert mps.max_bond <= 2 ** (depth // 2)
    np.testing.assert_allclose(abs(np.vdot(psi, mps.to_statevector())), 1, atol=1e-12)
    rows = jnp.einsum("nlsr,nmsr->nlm", mps.sites, mps.sites.conj())
    used = np.abs(mps.sites).max((2, 3)) > 0
    np.testing.assert_allclose(rows, np.eye(mps.max_bond) * used[:, :, None], atol=1e-12)


def test_files_and_quimb_hold_the_same_state(tmp_path):
    mps = state()
    save_mps(tmp_path / "state.h5", mps.tensors())
    for tensors in (load_mps(tmp_path / "state.h5"), mps_from_quimb(mps.to_quimb())):
        found = from_tensors(tensors).to_statevector()
        np.testing.assert_allclose(
            abs(np.vdot(np.asarray(found), mps.to_statevector())), 1, atol=1e-12
        )


def test_chains_that_are_no_state_are_refused():
    with refuses("a state needs at least one tensor, got none"):
        from_tensors([])
    with refuses("the outer bonds must be 1, got 2 and 1"):
        from_tensors([np.ones((2, 2, 1))])
    with refuses("the bond between sites 0 and 1 must have one dimension, got 2 and 3"):
        from_tensors([np.ones((1, 2, 2)), np.ones((3, 2, 1))])
    with refuses("the tensors' norm is zero"):
        from_tensors([np.zeros((1, 2, 1))])


# ---------------------------------------------------------------- moments


@pytest.mark.parametrize("kept_bytes", [0, 2**31])
@pytest.mark.parametrize(
    ("n_sites", "reach", "block"),
    [(11, 3, 1), (11, 3, 5), (7, 6, 1), (4, 6, 9), (2, 1, 1), (1, 2, 1)],
)
@pytest.mark.parametrize("complex_", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_covariances_of_pairs_and_their_gradient(
    complex_: bool,
    n_sites: int,
    reach: int,
    block: int,
    kept_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
):
    """Autodiff of single pairs, and all of it side by side."""
    bytes_of_one = reach * 16 * 8 * (2 if complex_ else 1)
    monkeypatch.setattr(carry, "BLOCK_BYTES", block * bytes_of_one)
    monkeypatch.setattr(carry, "KEPT_BYTES", kept_bytes)
    rng = np.random.default_rng(2)

    def draw(*shape: int) -> jax.Array:
        found = rng.normal(size=shape)
        return jnp.asarray(found + 1j * rng.normal(size=shape) if complex_ else found)

    tensors = draw(n_sites, 4, 2, 4) / 3
    starting, ending = draw(n_sites, 4, 4), draw(n_sites, 4, 4)
    starting, ending = starting + starting.conj().mT, ending + ending.conj().mT
    weights = jnp.asarray(rng.normal(size=(reach, n_sites)))

    def expected(starting: jax.Array, ending: jax.Array, tensors: jax.Array) -> jax.Array:
        found = np.zeros((reach, n_sites)).tolist()
        for first in range(n_sites):
            x = starting[first]
            for last in range(first + 1, min(n_sites, first + reach + 1)):
                found[last - first - 1][last] = (x * ending[last]).sum().real
                x = jnp.einsum("lsr,lm,msq->rq", tensors[last], x, tensors[last].conj())
        return jnp.array(found)

    def descended(function, *given: jax.Array) -> tuple:
        value, pullback = jax.vjp(function, *given)
        return value, *pullback(weights)

    def found(*given: jax.Array) -> tuple:
        return descended(lambda *x: covariances_at_distances(*x, reach), *given)

    given = (starting, ending, tensors)
    true = descended(expected, *given)
    twice = [jnp.stack([each, 2 * each]) for each in given]
    beside = jax.jit(jax.vmap(found))(*twice)
    for one, two, each in zip(found(*given), beside, true, strict=True):
        np.testing.assert_allclose(one, each, atol=1e-12)
        np.testing.assert_allclose(two[0], each, atol=1e-12)


@pytest.mark.parametrize("bond", [1, 3, 16])
def test_moments_equal_the_statevector(bond: int):
    mps = state(bond)
    psi = np.asarray(mps.to_statevector())
    np.testing.assert_allclose(np.linalg.norm(psi), 1, atol=1e-12)
    np.testing.assert_allclose(1 - 2 * bit_probabilities(mps), oracles.marginals(psi), atol=1e-12)
    banded, expected = np.asarray(correlations(mps)), oracles.correlations(psi)
    for r in range(N):
        np.testing.assert_allclose(banded[r, r:], np.diagonal(expected, r), atol=1e-12)
    pairs = joint_probabilities(mps, np.array([[3, 4], [7, 8]]))
    np.testing.assert_allclose(pairs[0], oracles.pair_probabilities(psi, 3, 4).ravel(), atol=1e-12)
    falling = joint_probabilities(mps, np.array([[8, 7]]))
    np.testing.assert_allclose(
        falling[0], oracles.pair_probabilities(psi, 7, 8).T.ravel(), atol=1e-12
    )


def test_correlations_of_a_brickwork_end_at_its_range():
    mps, psi = brickwork(3)
    found = np.asarray(correlations(mps))
    assert len(found) == 2 * 3 - 3 + 1
    for r, row in enumerate(found):
        np.testing.assert_allclose(row[r:], np.diagonal(oracles.correlations(psi), r), atol=1e-12)
    with refuses("order must be 2 for a state of site tensors (ChainMPS), got 4"):
        bit_cumulants(mps, 4)


# ---------------------------------------------------------------- samples


def test_log_probabilities_equal_the_statevector_and_finite_differences():
    ansatz, params = free(4, 7)
    bits = oracles.bits_table(7).astype(np.uint8)

    def weighted(p):
        mps = prepare_state(ansatz, p)
        return log_probability(mps, jnp.asarray(bits)) @ np.linspace(-1, 1, 128) / 128

    mps = prepare_state(ansatz, params)
    np.testing.assert_allclose(np.exp(log_probability(mps, jnp.asarray(bits))), chances(mps))
    direction = np.random.default_rng(0).normal(size=params.shape)
    function = jax.jit(jax.value_and_grad(weighted))
    ahead, behind = (function(params + s * direction)[0] for s in (1e-6, -1e-6))
    slope = (function(params)[1] * direction).sum()
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_follow_the_statevector(dtype: type):
    mps = state(3, n=4, dtype=dtype)
    bits, logs = sample(mps, jax.random.key(1), 4000)
    table = chances(mps).astype(np.float64)
    codes = np.asarray(bits) @ (2 ** np.arange(4)[::-1])
    counts = np.bincount(codes, minlength=16)
    sigma = np.sqrt(4000 * table * (1 - table)) + 1
    assert (np.abs(counts - 4000 * table) < 5 * sigma).all()
    np.testing.assert_allclose(np.exp(logs), table[codes], rtol=1e-5)


def test_a_wide_beam_finds_the_likeliest():
    mps = state()
    bits, logs = most_likely(mps, 256)
    table = np.sort(chances(mps))[::-1]
    np.testing.assert_allclose(np.exp(logs[:9]), table[:9], rtol=1e-10)
    np.testing.assert_allclose(log_probability(mps, bits), logs, atol=1e-10)


# ---------------------------------------------------------------- measurements


@pytest.mark.parametrize("isometric", [True, False])
@pytest.mark.parametrize(
    ("sites", "bits"), [((0,), (1,)), ((2, 0, 1), (0, 1, 0)), ((8,), (0,)), ((7, 8), (1, 0))]
)
def test_a_measured_state_is_the_projected_one(sites: tuple, bits: tuple, isometric: bool):
    from hypercircuit.state import chain_mps

    mps = chain_mps(state().sites, isometric=isometric)
    table = chances(mps).reshape((2,) * N)
    index = [slice(None)] * N
    for site, bit in zip(sites, bits, strict=True):
        index[site] = slice(bit, bit + 1)
    kept = np.zeros_like(table)
    kept[tuple(index)] = table[tuple(index)]
    probability, after = condition(mps, sites, bits)
    np.testing.assert_allclose(probability, kept.sum(), atol=1e-12)
    kept /= kept.sum()
    np.testing.assert_allclose(chances(after), kept.ravel(), atol=1e-12)
    expected = [kept.sum(tuple(j for j in range(N) if j != i))[1] for i in range(N)]
    np.testing.assert_allclose(bit_probabilities(after), expected, atol=1e-12)
    norms = np.einsum("nlm,nlm->n", after.left, after.right)
    np.testing.assert_allclose(norms, 1, atol=1e-12)
    drawn, logs = sample(after, jax.random.key(0), 8)
    np.testing.assert_allclose(
        np.exp(logs), kept.ravel()[np.asarray(drawn) @ (2 ** np.arange(N)[::-1])], rtol=1e-9
    )


def test_an_impossible_outcome_leaves_the_state():
    zero = from_tensors([np.array([1.0, 0.0]).reshape(1, 2, 1)] * 4)
    probability, after = condition(zero, (0,), (1,))
    assert probability == 0
    np.testing.assert_array_equal(after.sites, zero.sites)


# ---------------------------------------------------------------- the free MPS


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("bond", [1, 2, 5, 16])
def test_tensors_are_right_canonical_and_bonds_as_wide_as_the_chain_allows(bond: int, real: bool):
    ansatz, params = free(bond, real=real)
    tensors = np.asarray(ansatz.tensors(params))
    rows = np.einsum("nlsr,nmsr->nlm", tensors, tensors.conj())
    used = np.arange(bond) < ansatz.bonds(N)[:-1, None]
    np.testing.assert_allclose(rows, np.eye(bond) * used[:, :, None], atol=1e-13)
    assert ansatz.bonds(N).tolist() == [min(bond, 2**k) for k in (0, 1, 2, 3, 4, 4, 3, 2, 1, 0)]
    assert np.isrealobj(tensors) == real


@pytest.mark.parametrize(
    ("dtype", "step", "rtol"), [(np.float64, 1e-6, 1e-6), (np.float32, 1e-2, 2e-3)]
)
@pytest.mark.parametrize("how", ["uniform", "near-uniform", "product"])
@pytest.mark.parametrize("real", [True, False])
def test_gradients_equal_finite_differences(real, how, dtype, step, rtol):
    ansatz = FreeMPS(4, real=real)
    settings = {"how": "near-uniform", "scale": 0.0} if how == "product" else {"how": how}
    params = ansatz.init(jax.random.key(5), 7, dtype=dtype, **settings)
    weights = np.random.default_rng(1).normal(size=128)

    def energy(p):
        psi = prepare_state(ansatz, p).to_statevector()
        return jnp.sum(jnp.abs(psi) ** 2 * weights.astype(dtype))

    function = jax.jit(jax.value_and_grad(energy))
    direction = np.random.default_rng(2).normal(size=params.shape).astype(dtype)
    direction /= np.linalg.norm(direction)
    value, gradient = function(params)
    assert value.dtype == dtype
    ahead, behind = (function(params + dtype(s) * direction)[0] for s in (step, -step))
    slope = float((gradient * direction).sum())
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=rtol, atol=10 * rtol**2)


def test_badly_conditioned_parameters_still_make_a_normalised_state():
    ansatz, params = free(6, dtype=np.float32)
    params = params.at[1].set(params[0] + 1e-5 * params[1]) * 1e20
    tensors = np.asarray(ansatz.tensors(params))
    rows = np.einsum("nlsr,nmsr->nlm", tensors, tensors.conj())
    used = np.arange(6) < ansatz.bonds(N)[:-1, None]
    np.testing.assert_allclose(rows, np.eye(6) * used[:, :, None], atol=1e-5)
    gradient = jax.grad(lambda p: bit_probabilities(prepare_state(ansatz, p)).sum())(params)
    assert jnp.isfinite(gradient).all()


def test_the_near_uniform_start_is_near_uniform():
    ansatz = FreeMPS(8)
    params = ansatz.init(jax.random.key(0), N, scale=0.0, dtype=np.float64)
    np.testing.assert_allclose(chances(prepare_state(ansatz, params)), 2.0**-N, rtol=1e-12)
    noisy = ansatz.init(jax.random.key(0), N, scale=0.05, dtype=np.float64)
    table = chances(prepare_state(ansatz, noisy)) * 2**N
    assert 0.01 < table.std() < 0.8


def test_bad_arguments_are_refused():
    with refuses("max_bond must be at least 1, got 0"):
        FreeMPS(0)
    with refuses("n_qubits must be at least 1, got 0"):
        FreeMPS(2).init(jax.random.key(0), 0)
    with refuses("how must be one of near-uniform, uniform, got 'zero'"):
        FreeMPS(2).init(jax.random.key(0), 3, how="zero")
    with refuses("params must have shape (2, 3, 8) for 3 qubits, got (2, 3, 4)"):
        FreeMPS(2).tensors(jnp.zeros((2, 3, 4)))


def test_the_norm_of_a_long_chain_stays_one_in_float32():
    ansatz = FreeMPS(3)
    params = ansatz.init(jax.random.key(0), 20_000, how="uniform", dtype=np.float32)
    mps = jax.jit(lambda p: prepare_state(ansatz, p))(params)
    np.testing.assert_allclose(np.asarray(jnp.trace(mps.left, axis1=1, axis2=2)), 1, atol=1e-5)
    _, logs = sample(mps, jax.random.key(1), 3)
    assert (logs < -5000).all()
    assert jnp.isfinite(logs).all()


def test_the_born_distribution_of_a_free_mps():
    ansatz, params = free(4, 6)
    state = born(ansatz, params)
    table = chances(prepare_state(ansatz, params))
    expected = [table.reshape(2**i, 2, -1).sum((0, 2)) @ [1, -1] for i in range(6)]
    np.testing.assert_allclose(state.marginals(), expected, atol=1e-12)
    bits, logs = state.sample(jax.random.key(0), 5)
    np.testing.assert_allclose(state.log_probability(bits), logs, atol=1e-12)
