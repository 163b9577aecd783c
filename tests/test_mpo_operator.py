"""Diagonal matrix product operators against brute force over all bitstrings."""

import itertools

import numpy as np
import pytest

import oracles
from hypercircuit.hamiltonian.mpo import (
    DiagonalMPO,
    additive,
    compress,
    from_diagonal,
    identity,
    overlap,
)
from mpos import brute_force_diagonal, phase_sum, random_mpo, weights_of

BONDS = (1, 2, 3, 5, 4, 3, 2, 1)
PROBABILITIES = {
    "uniform": None,
    "asymmetric": np.array([0.1, 0.7, 0.35, 0.92, 0.5, 0.24, 0.66]),
    "nearly decided": np.array([1.0, 0.0, 0.999, 0.3, 0.002, 1.0, 0.6]),
}
METRICS = pytest.mark.parametrize("probabilities", PROBABILITIES.values(), ids=PROBABILITIES)


@pytest.fixture
def mpo() -> DiagonalMPO:
    return random_mpo(BONDS, seed=3)


def rms(values: np.ndarray, probabilities: np.ndarray | None) -> float:
    n_sites = len(values).bit_length() - 1
    return float(np.sqrt(weights_of(probabilities, n_sites) @ values**2))


# ---------------------------------------------------------------- entries


def test_diagonal_is_the_product_of_matrices(mpo: DiagonalMPO):
    np.testing.assert_allclose(mpo.diagonal(), brute_force_diagonal(mpo.tensors), rtol=1e-12)


def test_values_at_bitstrings(mpo: DiagonalMPO):
    bits = oracles.bits_table(7)
    order = np.random.default_rng(0).permutation(len(bits))[:50]
    expected = brute_force_diagonal(mpo.tensors)[order]
    np.testing.assert_allclose(mpo.values(bits[order]), expected, rtol=1e-12)
    np.testing.assert_allclose(mpo.values(bits[order].astype(np.uint8)), expected, rtol=1e-12)


def test_values_without_rows_and_where_a_vector_vanishes(mpo: DiagonalMPO):
    assert mpo.values(np.zeros((0, 7), int)).shape == (0,)
    tensors = list(mpo.tensors)
    tensors[3] = tensors[3] * np.array([0.0, 1.0])[:, None]
    values = DiagonalMPO(tuple(tensors)).values(oracles.bits_table(7))
    assert (values.reshape(8, 2, 8)[:, 0] == 0).all()
    assert (values.reshape(8, 2, 8)[:, 1] != 0).all()


def test_shape_in_numbers(mpo: DiagonalMPO):
    assert (mpo.n_sites, mpo.max_bond, mpo.bonds) == (7, 5, BONDS)
    assert mpo.n_bytes == 8 * 2 * sum(a * b for a, b in itertools.pairwise(BONDS))
    single = mpo.astype(np.float32)
    assert single.n_bytes == mpo.n_bytes // 2
    np.testing.assert_allclose(single.diagonal(), mpo.diagonal(), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- sums


@METRICS
def test_norm_mean_and_overlap(mpo: DiagonalMPO, probabilities: np.ndarray | None):
    other = random_mpo((1, 2, 2, 3, 2, 4, 2, 1), seed=8)
    weights = weights_of(probabilities, 7)
    first, second = mpo.diagonal(), other.diagonal()
    assert mpo.norm(probabilities) == pytest.approx(rms(first, probabilities))
    assert mpo.mean(probabilities) == pytest.approx(weights @ first)
    value, log = overlap(mpo, other, probabilities)
    assert value * np.exp(log) == pytest.approx(weights @ (first * second))


def test_sum_product_with_a_number_and_mirror_image(mpo: DiagonalMPO):
    other = random_mpo((1, 2, 2, 3, 2, 4, 2, 1), seed=8)
    total = mpo + other
    np.testing.assert_allclose(total.diagonal(), mpo.diagonal() + other.diagonal(), atol=1e-12)
    assert total.bonds == (1, 4, 5, 8, 6, 7, 4, 1)
    np.testing.assert_allclose((mpo * -2.5).diagonal(), -2.5 * mpo.diagonal())
    mirrored = mpo.diagonal().reshape((2,) * 7).transpose(*range(7)[::-1]).reshape(-1)
    np.testing.assert_allclose(mpo.reversed().diagonal(), mirrored, rtol=1e-12)


def test_one_site():
    first, second = random_mpo((1, 1), seed=1), random_mpo((1, 1), seed=2)
    np.testing.assert_allclose((first + second).diagonal(), first.diagonal() + second.diagonal())
    np.testing.assert_allclose(compress(first).mpo.diagonal(), first.diagonal())
    np.testing.assert_allclose(from_diagonal(first.diagonal()).mpo.diagonal(), first.diagonal())
    assert first.singular_values() == []


def test_identity():
    np.testing.assert_array_equal(identity(5, -0.3).diagonal(), np.full(32, -0.3))


@pytest.mark.parametrize(
    ("starts", "n_sites"), [((0, 3, 6), 8), ((1, 4), 8), ((5, 0), 8), ((0,), 3), ((), 4)]
)
def test_additive_operator_of_parts(starts: tuple[int, ...], n_sites: int):
    shapes = ((1, 2, 3, 1), (1, 3, 2, 1), (1, 1))
    parts = [(s, random_mpo(b, seed=s)) for s, b in zip(starts, shapes, strict=False)]
    expected = np.zeros(2**n_sites)
    bits = oracles.bits_table(n_sites)
    for start, part in parts:
        expected += part.values(bits[:, start : start + part.n_sites])
    found = additive(parts, n_sites)
    np.testing.assert_allclose(found.diagonal(), expected, rtol=1e-12, atol=1e-12)
    assert found.max_bond <= 2 + 3


# ---------------------------------------------------------------- truncation


@METRICS
@pytest.mark.parametrize("max_bond", [1, 2, 3])
def test_error_is_the_true_one_and_at_most_what_the_cuts_lose(
    mpo: DiagonalMPO, probabilities: np.ndarray | None, max_bond: int
):
    found = compress(mpo, max_bond=max_bond, probabilities=probabilities)
    assert found.mpo.max_bond == max_bond
    assert found.error == pytest.approx(np.sqrt((found.discarded**2).sum()))
    true = rms(found.mpo.diagonal() - mpo.diagonal(), probabilities)
    assert found.error == pytest.approx(true, rel=1e-7)
    assert found.error > 1e-4 * mpo.norm(probabilities)


@METRICS
def test_no_cut_loses_more_than_the_quasi_optimal_factor(
    mpo: DiagonalMPO, probabilities: np.ndarray | None
):
    """At most sqrt(cuts) times the best, which is at least the largest error of a single cut."""
    roots = np.sqrt(weights_of(probabilities, 7))
    best = 0.0
    for cut in range(1, 7):
        values = np.linalg.svd((roots * mpo.diagonal()).reshape(2**cut, -1), compute_uv=False)
        best = max(best, float(np.sqrt((values[2:] ** 2).sum())))
    error = compress(mpo, max_bond=2, probabilities=probabilities).error
    assert best * (1 - 1e-9) <= error <= np.sqrt(6) * best


@METRICS
def test_singular_values_are_those_of_the_weighted_matrix(
    mpo: DiagonalMPO, probabilities: np.ndarray | None
):
    roots = np.sqrt(weights_of(probabilities, 7))
    found = mpo.singular_values(probabilities)
    assert len(found) == 6
    for cut, values in enumerate(found, start=1):
        true = np.linalg.svd((roots * mpo.diagonal()).reshape(2**cut, -1), compute_uv=False)
        np.testing.assert_allclose(values, true[: len(values)], rtol=1e-8, atol=1e-12 * true[0])
        np.testing.assert_allclose(true[len(values) :], 0, atol=1e-12 * true[0])


@METRICS
@pytest.mark.parametrize("tolerance", [1e-6, 0.05, 0.6])
def test_tolerance_is_respected(
    mpo: DiagonalMPO, probabilities: np.ndarray | None, tolerance: float
):
    allowed = tolerance * mpo.norm(probabilities)
    found = compress(mpo, tolerance=allowed, probabilities=probabilities)
    true = rms(found.mpo.diagonal() - mpo.diagonal(), probabilities)
    assert true <= allowed * (1 + 1e-9)
    assert found.error == pytest.approx(true, rel=1e-6, abs=1e-12 * mpo.norm(probabilities))
    from_entries = from_diagonal(mpo.diagonal(), tolerance=allowed, probabilities=probabilities)
    true = rms(from_entries.mpo.diagonal() - mpo.diagonal(), probabilities)
    assert true <= allowed * (1 + 1e-9)


def test_the_limit_on_the_bond_comes_before_the_tolerance(mpo: DiagonalMPO):
    assert compress(mpo, max_bond=2, tolerance=1e-9).mpo.max_bond == 2
    loose = compress(mpo, max_bond=4, tolerance=0.9 * mpo.norm())
    assert loose.mpo.max_bond < 4
    assert loose.error <= 0.9 * mpo.norm()


@METRICS
def test_bond_that_is_not_needed_goes(mpo: DiagonalMPO, probabilities: np.ndarray | None):
    doubled = mpo + mpo * 0.5 + mpo * -0.25
    found = compress(doubled, probabilities=probabilities)
    # The bonds of a chain can be larger than the matrices of the diagonal have rank.
    assert found.mpo.max_bond <= mpo.max_bond
    np.testing.assert_allclose(found.mpo.diagonal(), 1.25 * mpo.diagonal(), rtol=1e-7, atol=1e-10)
    assert found.error < 1e-12 * mpo.norm(probabilities)


def test_nearly_degenerate_singular_values():
    """Two products of equal weight, one slightly heavier: a bond of 1 keeps the heavier one."""
    zeros = DiagonalMPO(tuple(np.array([[[1.0], [0.0]]]) for _ in range(6)))
    ones = DiagonalMPO(tuple(np.array([[[0.0], [1.0]]]) for _ in range(6)))
    for difference in (1e-9, 0.0):
        both = zeros + ones * (1 + difference)
        found = compress(both, max_bond=1)
        true = rms(found.mpo.diagonal() - both.diagonal(), None)
        assert found.error == pytest.approx(true, rel=1e-6)
        assert found.error == pytest.approx(rms(zeros.diagonal(), None), rel=1e-6)


def test_zero_operator(mpo: DiagonalMPO):
    nothing = mpo * 0.0
    found = compress(nothing, tolerance=0.1)
    assert (found.error, found.mpo.max_bond) == (0.0, 1)
    np.testing.assert_array_equal(found.mpo.diagonal(), np.zeros(128))
    assert (nothing.norm(), nothing.mean()) == (0.0, 0.0)
    cancelled = compress(mpo + mpo * -1.0)
    np.testing.assert_allclose(cancelled.mpo.diagonal(), 0, atol=1e-13 * mpo.norm())
    assert from_diagonal(np.zeros(16)).mpo.bonds == (1, 1, 1, 1, 1)


@pytest.mark.parametrize("scale", [1e-180, 1e180])
@pytest.mark.parametrize("site", [0, 3, 6])
def test_truncation_of_very_small_and_large_operators(mpo: DiagonalMPO, scale: float, site: int):
    tensors = list(mpo.tensors)
    tensors[site] = tensors[site] * scale
    found = compress(DiagonalMPO(tuple(tensors)), max_bond=2)
    expected = compress(mpo, max_bond=2)
    np.testing.assert_allclose(found.mpo.diagonal() / scale, expected.mpo.diagonal(), rtol=1e-8)
    assert found.error / scale == pytest.approx(expected.error)


@METRICS
@pytest.mark.parametrize("max_bond", [None, 3])
def test_operator_from_its_entries(probabilities: np.ndarray | None, max_bond: int | None):
    entries = np.random.default_rng(5).normal(size=128) + np.arange(128) / 40
    found = from_diagonal(entries, max_bond=max_bond, probabilities=probabilities)
    true = rms(found.mpo.diagonal() - entries, probabilities)
    if max_bond is None:
        np.testing.assert_allclose(found.mpo.diagonal(), entries, atol=1e-8)
        assert found.mpo.bonds == (1, 2, 4, 8, 8, 4, 2, 1)
    else:
        assert found.mpo.max_bond == max_bond
        assert found.error == pytest.approx(true, rel=1e-7)


# ---------------------------------------------------------------- long chains


def test_ten_thousand_sites_of_waves():
    """Two cosines of a sum over all bits: values, norm, mean, sum and truncation."""
    n_sites = 10_000
    rng = np.random.default_rng(7)
    gains = rng.normal(size=n_sites)
    frequencies, coefficients = np.array([0.4, 1.1]), np.array([0.8, -0.3])
    waves = phase_sum(gains, frequencies, coefficients)
    bits = rng.integers(0, 2, (5, n_sites))
    expected = np.cos(np.outer(bits @ gains, frequencies)) @ coefficients
    np.testing.assert_allclose(waves.values(bits), expected, atol=1e-10)
    # Uniform bits spread the sum so far that the cosines are as good as independent.
    assert waves.norm() == pytest.approx(np.sqrt(0.5 * (coefficients**2).sum()), rel=1e-6)
    doubled = waves + waves * 0.5
    found = compress(doubled, max_bond=4)
    np.testing.assert_allclose(found.mpo.values(bits), 1.5 * expected, atol=1e-9)
    assert found.error < 1e-12
    assert found.mpo.norm() == pytest.approx(1.5 * waves.norm(), rel=1e-9)
    smaller = compress(waves, max_bond=2)
    # The weaker wave goes; near the right end it is not orthogonal to the other one yet.
    assert 0.3 * np.sqrt(0.5) * (1 - 1e-6) <= smaller.error < 0.31 * np.sqrt(0.5)


def test_ten_thousand_sites_of_random_products():
    """Random products of norm 1: their entries are tiny but for the largest, and none is nan."""
    n_sites = 10_000
    rng = np.random.default_rng(8)
    products = []
    for _ in range(3):
        factors = rng.normal(size=(n_sites, 2))
        factors /= np.sqrt((factors**2).mean(1, keepdims=True))
        products.append(DiagonalMPO(tuple(f.reshape(1, 2, 1) for f in factors)))
    assert products[0].norm() == pytest.approx(1.0, rel=1e-9)
    total = products[0] + products[1] * 2.0 + products[2] * -0.5
    # Products of other factors have practically no overlap.
    assert total.norm() == pytest.approx(np.sqrt(1 + 4 + 0.25), rel=1e-9)
    found = compress(total, max_bond=1)
    # Near the right end the three are not orthogonal yet, so that a little more than 1.25 is lost.
    assert np.sqrt(1.25) <= found.error < np.sqrt(1.3)
    assert found.mpo.norm() == pytest.approx(np.sqrt(5.25 - found.error**2), rel=1e-9)
    assert np.isfinite(total.mean())
    values = total.values(rng.integers(0, 2, (3, n_sites)))
    np.testing.assert_array_equal(values, 0)
    decided = np.full(n_sites, 1.0)
    assert np.isfinite(compress(identity(n_sites), probabilities=decided).mpo.norm(decided))


# ---------------------------------------------------------------- errors


def test_tensors_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one tensor, got none"):
        DiagonalMPO(())
    with pytest.raises(ValueError, match=r"tensor of site 1 .* left=2, got shape \(3, 2, 1\)"):
        DiagonalMPO((np.ones((1, 2, 2)), np.ones((3, 2, 1))))
    with pytest.raises(ValueError, match=r"tensor of site 0 .* got shape \(1, 3, 1\)"):
        DiagonalMPO((np.ones((1, 3, 1)),))
    with pytest.raises(ValueError, match="last tensor's right bond must be 1, got 2"):
        DiagonalMPO((np.ones((1, 2, 2)),))
    with pytest.raises(ValueError, match=r"tensor of site 1 is complex \(complex128\).* real part"):
        DiagonalMPO((np.ones((1, 2, 1)), np.full((1, 2, 1), 1j)))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="site 1 has entries that are not finite numbers"):
            DiagonalMPO((np.ones((1, 2, 1)), np.full((1, 2, 1), value)))


def test_operators_and_bits_that_do_not_fit(mpo: DiagonalMPO):
    with pytest.raises(ValueError, match=r"one column per site \(7\), got shape \(4, 6\)"):
        mpo.values(np.zeros((4, 6), int))
    spins = np.array([[1, -1, 1, 1, -1, -1, -1]])
    with pytest.raises(ValueError, match=r"bits must be 0 or 1, got values from -1 to 1; a spin"):
        mpo.values(spins)
    with pytest.raises(ValueError, match="bits must be 0 or 1, got values from 0 to 2"):
        mpo.values(1 - spins)
    with pytest.raises(ValueError, match="on 7 and 3 sites do not add up"):
        mpo + identity(3)
    with pytest.raises(ValueError, match="on 7 and 3 sites do not multiply"):
        overlap(mpo, identity(3))
    with pytest.raises(ValueError, match=r"2\^25 entries; at most 24 .* use values"):
        identity(25).diagonal()
    with pytest.raises(ValueError, match="power of two, got 12"):
        from_diagonal(np.ones(12))
    with pytest.raises(ValueError, match="power of two, got 0"):
        from_diagonal(np.ones(0))
    with pytest.raises(ValueError, match=r"must not overlap and lie in 0\.\.6, got one at 2"):
        additive([(0, identity(3)), (2, identity(2))], 7)
    with pytest.raises(ValueError, match="got one at 6"):
        additive([(6, identity(3))], 7)


@pytest.mark.usefixtures("unchecked_types")
def test_bonds_that_are_not_whole(mpo: DiagonalMPO):
    for attempt, given in ((compress, mpo), (from_diagonal, mpo.diagonal())):
        with pytest.raises(ValueError, match=r"max_bond must be a whole number, got 2\.5"):
            attempt(given, max_bond=2.5)
        assert attempt(given, max_bond=np.int64(2)).mpo.max_bond == 2


@pytest.mark.parametrize(("entry", "norm"), [(2.0, r"10\^903"), (0.5, r"10\^-903")])
def test_operators_whose_norm_is_no_number(entry: float, norm: str):
    long = DiagonalMPO((np.full((1, 2, 1), entry),) * 3000)
    with pytest.raises(ValueError, match=f"norm is about {norm}, which no float64 holds; multiply"):
        compress(long)
    zeros = DiagonalMPO((*long.tensors, np.zeros((1, 2, 1))))
    found = compress(zeros, max_bond=1)
    assert (found.error, found.mpo.norm()) == (0, 0)


def test_limits_and_metrics_that_make_no_sense(mpo: DiagonalMPO):
    for attempt in (
        lambda **limits: compress(mpo, **limits),
        lambda **limits: from_diagonal(mpo.diagonal(), **limits),
    ):
        with pytest.raises(ValueError, match="max_bond must be at least 1, got 0"):
            attempt(max_bond=0)
        with pytest.raises(ValueError, match=r"tolerance must not be negative, got -0\.1"):
            attempt(tolerance=-0.1)
        with pytest.raises(ValueError, match="tolerance must not be negative, got nan"):
            attempt(tolerance=float("nan"))
        with pytest.raises(ValueError, match=r"one probability per site \(7\), got shape \(6,\)"):
            attempt(probabilities=np.full(6, 0.5))
        with pytest.raises(ValueError, match=r"lie in 0\.\.1, got values from 0\.5 to 1\.2"):
            attempt(probabilities=np.array([0.5] * 6 + [1.2]))
    with pytest.raises(ValueError, match=r"lie in 0\.\.1"):
        mpo.norm(np.array([0.5] * 6 + [np.nan]))
