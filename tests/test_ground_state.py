"""Searches for the smallest entry of a diagonal operator against all entries."""

import itertools
import time

import numpy as np
import pytest

import oracles
from hypercircuit.hamiltonian.mpo import DiagonalMPO, from_diagonal, identity
from hypercircuit.study import (
    beam_search,
    dmrg,
    dmrg_bytes,
    improve,
    minimise,
    minimise_trusted,
)
from hypercircuit.study.bit_search import _Chain
from hypercircuit.study.dmrg import _most_likely
from mpos import capped_bonds, phase_sum, random_mpo, weights_of
from problems import PROBLEMS


def index_of(bits: np.ndarray) -> np.ndarray:
    return bits.astype(int) @ 2 ** np.arange(bits.shape[-1])[::-1]


def random_bits(n: int, n_sites: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (n, n_sites))


def neighbours(bits: np.ndarray, block: int) -> np.ndarray:
    """All bitstrings that differ in two neighbouring cells at most."""
    found = []
    for start in range(0, max(len(bits) - block, 1), block):
        sites = np.arange(start, min(start + 2 * block, len(bits)))
        for setting in itertools.product((0, 1), repeat=len(sites)):
            other = bits.copy()
            other[sites] = setting
            found.append(other)
    return np.array(found)


# ---------------------------------------------------------------- sweeps


@pytest.mark.parametrize("n_sites", [3, 7, 10])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_sweeps_end_where_no_change_of_two_cells_helps(n_sites: int, block: int):
    mpo = random_mpo(capped_bonds(n_sites, 5), seed=n_sites)
    diagonal = mpo.diagonal()
    starts = random_bits(9, n_sites, seed=1)
    found = improve(mpo, starts, block=block)
    assert found.converged.all()
    np.testing.assert_allclose(found.values, diagonal[index_of(found.bits)], rtol=1e-10)
    np.testing.assert_allclose(found.history[0], diagonal[index_of(starts)], rtol=1e-10)
    np.testing.assert_allclose(found.history[-1], found.values, rtol=1e-10)
    assert (np.diff(found.history, axis=0) <= 0).all()
    for bits, value in zip(found.bits, found.values, strict=True):
        others = diagonal[index_of(neighbours(bits, block))]
        assert value <= others.min() + 1e-12 * np.abs(diagonal).max()


def test_starts_do_not_disturb_each_other():
    mpo = random_mpo(capped_bonds(9, 4), seed=2)
    starts = random_bits(6, 9, seed=4)
    together = improve(mpo, starts)
    for start, bits in zip(starts, together.bits, strict=True):
        np.testing.assert_array_equal(improve(mpo, start[None]).bits[0], bits)


def test_comparisons_are_counted():
    """Cells of 2, 2, 2 and 1 bits: 16 + 16 + 8 settings of pairs for every start and sweep."""
    found = improve(random_mpo(capped_bonds(7, 4), seed=1), random_bits(3, 7, seed=1), block=2)
    assert found.evaluations == 3 * 40 * (len(found.history) - 1)


def test_sweeps_that_are_cut_short_say_so():
    mpo = random_mpo(capped_bonds(12, 4), seed=5)
    found = improve(mpo, random_bits(20, 12, seed=2), block=1, max_sweeps=1)
    assert len(found.history) == 2
    assert not found.converged.all()


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("n_sites", [1, 2])
def test_shortest_chains(n_sites: int, block: int):
    mpo = random_mpo(capped_bonds(n_sites, 3), seed=3)
    found = improve(mpo, random_bits(4, n_sites, seed=1), block=block)
    np.testing.assert_allclose(found.values, mpo.diagonal().min())
    assert minimise(mpo).value == pytest.approx(mpo.diagonal().min())


@pytest.mark.parametrize("value", [-0.3, 0.0, 2.0])
def test_nothing_moves_where_all_entries_are_equal(value: float):
    flat = identity(6, 0.75 * value) + identity(6, 0.25 * value)
    starts = random_bits(5, 6, seed=1)
    found = improve(flat, starts)
    np.testing.assert_array_equal(found.bits, starts)
    assert len(found.history) == 2


@pytest.mark.parametrize("scale", [1e-200, -1.0, 1e200])
def test_scale_does_not_matter(scale: float):
    mpo = random_mpo(capped_bonds(9, 4), seed=6)
    starts = random_bits(7, 9, seed=2)
    expected = improve(mpo * np.sign(scale), starts)
    found = improve(mpo * scale, starts)
    np.testing.assert_array_equal(found.bits, expected.bits)
    np.testing.assert_allclose(found.values / abs(scale), expected.values, rtol=1e-9)


# ---------------------------------------------------------------- temperature


def test_heat_bath_draws_from_the_gibbs_distribution():
    """On two sites a pair is the whole chain, so that one step draws exactly."""
    mpo = random_mpo((1, 2, 1), seed=9)
    temperature, n = 1.3, 40_000
    chain = _Chain(mpo, np.zeros((n, 2), np.uint8), 1)
    values, _ = chain.sweep(temperature, np.random.default_rng(1))
    np.testing.assert_allclose(values, mpo.values(chain.bits()), rtol=1e-10)
    expected = np.exp(-mpo.diagonal() / temperature)
    expected /= expected.sum()
    counts = np.bincount(index_of(chain.bits()), minlength=4)
    sigma = np.sqrt(n * expected * (1 - expected))
    assert (np.abs(counts - n * expected) < 4 * sigma).all()


def test_heat_leaves_a_trap_that_flips_do_not():
    """All zeros have -1, all ones -2, everything else 0."""
    zeros = DiagonalMPO(tuple(np.array([[[1.0], [0.0]]]) for _ in range(6)))
    ones = DiagonalMPO(tuple(np.array([[[0.0], [1.0]]]) for _ in range(6)))
    trap = zeros * -1.0 + ones * -2.0
    starts = np.zeros((16, 6), int)
    assert (improve(trap, starts, block=1).values == -1).all()
    heated = improve(trap, starts, block=1, temperatures=np.geomspace(2, 0.3, 40), seed=3)
    assert heated.values.min() == -2
    assert (np.diff(heated.history, axis=0) <= 0).all()
    again = improve(trap, starts, block=1, temperatures=np.geomspace(2, 0.3, 40), seed=3)
    np.testing.assert_array_equal(heated.bits, again.bits)


# ---------------------------------------------------------------- beams


@pytest.mark.parametrize("probabilities", [None, np.array([0.2, 0.9, 0.4, 0.7, 0.55, 0.05])])
def test_narrowest_beam_follows_conditional_means(probabilities: np.ndarray | None):
    mpo = random_mpo(capped_bonds(6, 4), seed=3)
    table, q = oracles.bits_table(6), weights_of(probabilities, 6)
    begin: list[int] = []
    for _ in range(6):
        means = []
        for bit in (0, 1):
            rows = (table[:, : len(begin) + 1] == [*begin, bit]).all(1)
            means.append(np.average(mpo.diagonal()[rows], weights=q[rows]))
        begin.append(int(np.argmin(means)))
    bits, values = beam_search(mpo, 1, probabilities=probabilities)
    np.testing.assert_array_equal(bits, [begin])
    np.testing.assert_allclose(values, mpo.values(np.array([begin])))


def test_narrowest_beam_follows_given_ends():
    mpo = random_mpo(capped_bonds(6, 4), seed=4)
    ends = random_bits(5, 6, seed=8)
    begin: list[int] = []
    for site in range(6):
        scores = []
        for bit in (0, 1):
            whole = ends.copy()
            whole[:, : site + 1] = [*begin, bit]
            scores.append(mpo.values(whole).min())
        begin.append(int(np.argmin(scores)))
    bits, _ = beam_search(mpo, 1, suffixes=ends)
    np.testing.assert_array_equal(bits, [begin])


@pytest.mark.parametrize("n_sites", [5, 9, 12])
def test_wide_enough_beam_is_exact(n_sites: int):
    mpo = random_mpo(capped_bonds(n_sites, 6), seed=n_sites + 1)
    bits, values = beam_search(mpo, 2**n_sites)
    np.testing.assert_allclose(values, np.sort(mpo.diagonal()), rtol=1e-9, atol=1e-9)
    assert len(np.unique(bits, axis=0)) == 2**n_sites
    np.testing.assert_allclose(values, mpo.values(bits))


@pytest.mark.parametrize("width", [1, 3, 10])
def test_beam_is_at_least_as_good_as_its_ends(width: int):
    for seed in range(8):
        mpo = random_mpo(capped_bonds(10, 5), seed=seed)
        ends = improve(mpo, random_bits(6, 10, seed), block=1).bits
        bits, values = beam_search(mpo, width, suffixes=ends)
        assert bits.shape == (width, 10)
        assert values[0] <= mpo.values(ends).min() + 1e-9
        assert (np.diff(values) >= 0).all()


# ---------------------------------------------------------------- the whole search


@pytest.mark.parametrize("n_sites", [4, 8, 11, 12])
def test_minimum_of_random_operators(n_sites: int):
    for seed in range(6):
        mpo = random_mpo(capped_bonds(n_sites, 3 + seed), seed=100 * n_sites + seed)
        diagonal = mpo.diagonal()
        found = minimise(mpo, seed=seed)
        assert found.value == pytest.approx(diagonal.min(), rel=1e-9)
        assert index_of(found.bits) == diagonal.argmin()
        assert found.history[-1] == pytest.approx(found.value)
        assert (np.diff(found.history) <= 0).all()
        assert found.starts.min() >= found.value - 1e-9
        assert found.evaluations > 0
        assert found.seconds > 0


@pytest.mark.parametrize("name", ["softmax-real", "logistic-halves", "zero-one-three"])
def test_best_network_of_a_loss(name: str):
    """Ties between networks of a zero-one loss are no trouble."""
    diagonal = PROBLEMS[name].diagonal
    found = minimise(from_diagonal(diagonal).mpo)
    assert found.value == pytest.approx(diagonal.min(), abs=1e-9)
    assert diagonal[index_of(found.bits)] == pytest.approx(diagonal.min(), abs=1e-9)


@pytest.mark.parametrize("start", ["random", "given", "metric", "mean"])
def test_minimum_from_several_starts(start: str):
    mpo = random_mpo(capped_bonds(10, 4), seed=21).astype(np.float32)
    minimum = mpo.diagonal().min()
    options = {
        "random": {"n_random": 64, "width": 0},
        "given": {"n_random": 0, "width": 0, "starts": random_bits(64, 10, seed=3)},
        "metric": {"n_random": 64, "width": 0, "probabilities": np.linspace(0.1, 0.8, 10)},
        "mean": {"n_random": 0, "width": 1024},
    }
    found = minimise(mpo, block=2, **options[start])
    assert found.value == pytest.approx(minimum, rel=1e-6)


def test_better_than_any_given_start():
    mpo = random_mpo(capped_bonds(12, 6), seed=30)
    diagonal = mpo.diagonal()
    best = oracles.bits_table(12)[[diagonal.argmin()]]
    found = minimise(mpo, starts=best, n_random=0, width=1, block=1)
    assert found.value == pytest.approx(diagonal.min())
    np.testing.assert_array_equal(found.bits, best[0])


def test_same_seed_same_result():
    mpo = random_mpo(capped_bonds(12, 6), seed=31)
    options = {"n_random": 3, "width": 2, "block": 1, "temperatures": (50.0, 5.0)}
    first, second = minimise(mpo, seed=4, **options), minimise(mpo, seed=4, **options)
    np.testing.assert_array_equal(first.bits, second.bits)
    np.testing.assert_array_equal(first.history, second.history)


# ---------------------------------------------------------------- DMRG


@pytest.mark.parametrize("sites", [1, 2])
@pytest.mark.parametrize("max_bond", [1, 6])
def test_dmrg_ends_in_a_bitstring_that_pair_flips_leave_alone(sites: int, max_bond: int):
    for seed in range(3):
        mpo = random_mpo(capped_bonds(8, 5), seed=40 + seed)
        found = dmrg(mpo, max_bond, sites=sites, seed=seed)
        assert found.converged
        assert found.probability == pytest.approx(1.0, abs=1e-6)
        assert found.energy == pytest.approx(found.value, rel=1e-8)
        assert found.value == pytest.approx(mpo.diagonal()[index_of(found.bits)])
        assert found.history[-1] == found.energy
        assert minimise(mpo).value <= found.energy + 1e-9 * abs(found.energy)
        if sites == 2:
            polished = improve(mpo, found.bits[None], block=1)
            np.testing.assert_array_equal(polished.bits[0], found.bits)


@pytest.mark.parametrize("seed", range(4))
def test_dmrg_and_the_search_agree_on_small_operators(seed: int):
    mpo = random_mpo(capped_bonds(9, 5), seed=60 + seed)
    energies = [dmrg(mpo, 8, seed=start).energy for start in range(4)]
    assert minimise(mpo).value == pytest.approx(min(energies), rel=1e-8)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_dmrg_of_operators_with_scale_at_one_end(scale: float):
    mpo = random_mpo(capped_bonds(7, 4), seed=1)
    tensors = list(mpo.tensors)
    tensors[0], tensors[-1] = tensors[0] * scale, tensors[-1] / scale
    found = dmrg(DiagonalMPO(tuple(tensors)), 4)
    expected = dmrg(mpo, 4)
    assert found.energy == pytest.approx(expected.energy, rel=1e-8)


def test_most_likely_bitstring_of_a_state():
    rng = np.random.default_rng(12)
    bonds = (1, 2, 4, 3, 2, 2, 1)
    tensors = [
        rng.normal(size=(a, 2, b)) + 1j * rng.normal(size=(a, 2, b))
        for a, b in itertools.pairwise(bonds)
    ]
    state = np.ones((1, 1))
    for tensor in tensors:
        state = np.tensordot(state, tensor, axes=1).reshape(-1, tensor.shape[2])
    born = np.abs(state[:, 0]) ** 2
    born /= born.sum()
    bits, probability = _most_likely(tensors, 64)
    assert index_of(bits) == born.argmax()
    assert probability == pytest.approx(born.max())


def test_memory_of_dmrg():
    mpo = random_mpo(capped_bonds(40, 8), seed=1)
    sizes = [dmrg_bytes(mpo, max_bond) for max_bond in (1, 4, 16, 64)]
    assert sizes == sorted(sizes)
    # The environments of bond 64 alone, where nothing limits it.
    assert sizes[-1] > 28 * 64**2 * 8 * 8
    assert dmrg_bytes(mpo, 64, sites=1) < dmrg_bytes(mpo, 64, sites=2)
    message = r"DMRG at max_bond 64 on 40 sites of bond 8 needs about .* GiB, more than max_bytes"
    with pytest.raises(ValueError, match=message):
        dmrg(mpo, 64, max_bytes=sizes[-1] - 1)


# ---------------------------------------------------------------- errors


def test_arguments_that_make_no_sense():
    mpo = random_mpo(capped_bonds(6, 4), seed=1)
    bits = random_bits(3, 6, seed=1)
    too_large = DiagonalMPO(tuple(tensor * 1e100 for tensor in mpo.tensors))
    cases = [
        (lambda: improve(mpo, bits[:, :5]), r"one column per site \(6\), got shape \(3, 5\)"),
        (lambda: improve(mpo, bits - 1), "bits must be 0 or 1, got values from -1 to 0"),
        (lambda: improve(mpo, bits, block=0), "block must be 1 to 6 bits, got 0"),
        (lambda: improve(mpo, bits, block=9), "block must be 1 to 6 bits, got 9"),
        (lambda: improve(mpo, bits, max_sweeps=0), "max_sweeps must be at least 1, got 0"),
        (lambda: improve(mpo, bits[:0]), "bits must hold at least one start, got none"),
        (
            lambda: improve(mpo, bits, temperatures=(1.0, 0.0)),
            r"temperatures must be above 0, got \[1\.0, 0\.0\]",
        ),
        (lambda: improve(too_large, bits), "entries that are not finite"),
        (lambda: beam_search(mpo, 0), "width must be at least 1, got 0"),
        (
            lambda: beam_search(mpo, 2, suffixes=bits, probabilities=np.full(6, 0.5)),
            "probabilities or suffixes, not both",
        ),
        (lambda: beam_search(mpo, 2, suffixes=bits[:0]), "at least one bitstring, got none"),
        (lambda: beam_search(mpo, 2, probabilities=np.full(5, 0.5)), "one probability per site"),
        (lambda: minimise(mpo, n_random=-1), "n_random must not be negative, got -1"),
        (lambda: minimise(mpo, max_rounds=-2), "max_rounds must not be negative, got -2"),
        (lambda: minimise(mpo, n_random=0, width=0), "nothing to start from"),
        (lambda: minimise(mpo, width=0, probabilities=np.full(5, 0.5)), "one probability per site"),
        (lambda: dmrg(mpo, 0), "max_bond must be at least 1, got 0"),
        (lambda: dmrg(mpo, 2, sites=3), "sites must be 1 or 2, got 3"),
        (lambda: dmrg(mpo, 2, max_sweeps=0), "max_sweeps must be at least 1, got 0"),
        (lambda: dmrg(mpo, 2, tolerance=0.0), r"tolerance must be above 0, got 0\.0"),
        (lambda: dmrg(mpo, 2, beam=0), "beam must be at least 1, got 0"),
        (lambda: dmrg(identity(2), 2), "at least 3 sites, got 2; use minimise"),
    ]
    for attempt, message in cases:
        with pytest.raises(ValueError, match=message):
            attempt()


# ---------------------------------------------------------------- full size


@pytest.mark.slow
@pytest.mark.parametrize(("n_sites", "bond", "limit"), [(785, 32, 60), (10_000, 16, 120)])
def test_long_chains(n_sites: int, bond: int, limit: float, capsys: pytest.CaptureFixture):
    """Waves of different gains: the minimum is near that of every wave by itself."""
    rng = np.random.default_rng(5)
    coefficients = rng.normal(size=bond // 2) / bond
    waves = None
    for coefficient, frequency in zip(coefficients, rng.uniform(0.5, 4, bond // 2), strict=True):
        gains = rng.normal(size=n_sites) / np.sqrt(n_sites)
        wave = phase_sum(gains, np.array([frequency]), np.array([coefficient]))
        waves = wave if waves is None else waves + wave
    assert waves is not None
    assert waves.max_bond == bond
    lowest = -np.abs(coefficients).sum()
    begin = time.perf_counter()
    found = minimise(waves)
    seconds = time.perf_counter() - begin
    with capsys.disabled():
        print(f"\n{n_sites} sites, bond {bond}: {found.value:.6f}, {seconds:.1f} s")
        print(f"every wave at its own minimum: {lowest:.6f}")
    assert lowest <= found.value < 0.98 * lowest
    assert found.value == pytest.approx(waves.values(found.bits[None])[0])
    assert (np.diff(found.history) <= 0).all()
    assert seconds < limit


# ---------------------------------------------------------------- near a state


def with_false_minimum(seed: int) -> tuple[DiagonalMPO, np.ndarray, np.ndarray, np.ndarray]:
    """An operator whose smallest entry is no loss; the losses; the likely bits; their state."""
    n_sites = 9
    losses = random_mpo(capped_bonds(n_sites, 4), seed=seed).diagonal()
    losses = 1 + losses / np.abs(losses).max()
    likely = oracles.bits_table(n_sites)[losses.argsort()[12]].astype(np.uint8)
    false = 1 - likely
    dip = DiagonalMPO(tuple(np.eye(2)[bit][None, :, None] for bit in false))
    return from_diagonal(losses).mpo + dip * -3.0, losses, likely, np.where(likely == 1, 0.8, 0.2)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_search_near_a_state_is_not_led_astray_by_what_is_no_loss(seed: int):
    mpo, losses, _, probabilities = with_false_minimum(seed)

    def true(bits: np.ndarray) -> np.ndarray:
        return losses[index_of(bits)]

    assert true(minimise(mpo).bits[None])[0] > losses.min() + 0.1
    starts = (np.random.default_rng(1).random((6, 9)) < probabilities).astype(np.uint8)
    found = minimise_trusted(mpo, true, starts, probabilities)
    assert found.loss == true(found.bits[None])[0] < true(starts).min()
    np.testing.assert_allclose(found.value, found.loss, rtol=1e-9, atol=1e-12)
    assert found.loss < np.quantile(losses, 0.02)
    assert len(found.strengths) == len(found.losses) == 8


def test_a_search_near_a_state_keeps_the_best_start_if_nothing_is_better():
    mpo, losses, _, probabilities = with_false_minimum(3)
    best = oracles.bits_table(9)[losses.argmin()][None].astype(np.uint8)
    found = minimise_trusted(mpo, lambda bits: losses[index_of(bits)], best, probabilities)
    assert (found.bits == best[0]).all()
    assert found.loss == losses.min()


def test_a_search_near_a_state_needs_starts():
    mpo, losses, _, probabilities = with_false_minimum(3)
    none = np.zeros((0, 9), np.uint8)
    with pytest.raises(ValueError, match="starts must hold at least one network, got none"):
        minimise_trusted(mpo, lambda bits: losses[index_of(bits)], none, probabilities)
    with pytest.raises(ValueError, match="max_rounds must be at least 1, got 0"):
        minimise_trusted(
            mpo,
            lambda bits: losses[index_of(bits)],
            np.ones((1, 9), np.uint8),
            probabilities,
            max_rounds=0,
        )
