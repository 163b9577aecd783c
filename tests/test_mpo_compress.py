"""Compressing losses: every route against the diagonal, and reported against true errors."""

import dataclasses
import re

import numpy as np
import pytest

from hypercircuit.bnn import Dense, Network
from hypercircuit.data import Dataset
from hypercircuit.hamiltonian import LOSSES, compile_loss, compress_loss
from hypercircuit.hamiltonian.mpo import compress
from hypercircuit.hamiltonian.mpo.operator import metric_weights
from hypercircuit.hamiltonian.mpo.phases import phase_terms
from hypercircuit.hamiltonian.mpo.quadratic import quadratic_mpo
from hypercircuit.hamiltonian.mpo.sketch import sketch
from problems import Problem

STREAMED = {
    "logistic": Problem("logistic", 1, 8, zeros=0.4, n_examples=9),
    "one-vs-rest": Problem("logistic", 3, 3, zeros=0.2),
    "reversed": Problem("logistic", 2, 4, order="class-reversed"),
    "pairwise": Problem("pairwise-logistic", 3, 2, zeros=0.2),
    "squared": Problem("squared", 2, 4),
    "sigmoid-squared": Problem("sigmoid-squared", 1, 7),
    "zero-one": Problem("zero-one", 1, 7, step=0.25),
    "hinge": Problem("hinge", 1, 7, step=0.25, encoding=(-3.0, 1.0)),
    "squared-hinge": Problem("squared-hinge", 1, 6, bias=False),
    "encodings": Problem("logistic", 1, 6, encodings=((-1.0, 1.0), (-3.0, 1.0), (0.0, 1.0))),
    "encodings of two outputs": Problem(
        "squared", 2, 3, encodings=((-1.0, 1.0), (-3.0, 1.0)), order="class-reversed"
    ),
}
ENUMERATED = {
    "softmax": Problem("softmax", 3, 2),
    "zero-one of three classes": Problem("zero-one", 3, 2, step=0.5),
}


def compiled(problem):
    return compile_loss(problem.network, problem.data, LOSSES[problem.loss]())


def noise(x, y, step=None):
    y = np.asarray(y, np.int32)
    return Dataset(np.asarray(x, np.float32), y, max(2, int(y.max()) + 1), None, step, "noise")


def asymmetric(n):
    """A metric whose probabilities all differ."""
    return np.random.default_rng(n).permutation(np.linspace(0.08, 0.85, n))


def weights_of(probabilities, n):
    """The product distribution of all 2^n bitstrings, site 0 most significant."""
    total = np.ones(1)
    for one in np.full(n, 0.5) if probabilities is None else probabilities:
        total = np.outer(total, [1 - one, one]).ravel()
    return total


def rms(difference, probabilities):
    n = int(np.log2(len(difference)))
    return np.sqrt((weights_of(probabilities, n) * difference**2).sum())


@pytest.fixture
def streaming(monkeypatch):
    """The routes of large problems, on few qubits."""
    for name in ("_FEW_QUBITS", "_CHEAP_ENTRIES"):
        monkeypatch.setattr(f"hypercircuit.hamiltonian.mpo.compressed.{name}", 0)


@pytest.fixture
def estimating(monkeypatch):
    """Errors as those of large problems, on few qubits."""
    monkeypatch.setattr("hypercircuit.hamiltonian.mpo.compressed._COUNTED", 0)


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("metric", ["uniform", "product"])
def test_every_streamed_route_without_truncation_is_the_diagonal(name, metric):
    hamiltonian = compiled(STREAMED[name])
    n = hamiltonian.n_qubits
    probabilities = asymmetric(n) if metric == "product" else None
    found = compress_loss(hamiltonian, 2**n, probabilities=probabilities, dtype=np.float64)
    np.testing.assert_allclose(found.mpo().diagonal(), hamiltonian.diagonal(), atol=1e-10)
    assert found.measured.rms <= hamiltonian.spectral_error + 1e-5
    bits = np.random.default_rng(1).integers(0, 2, (5, n))
    np.testing.assert_allclose(found.values(bits), found.mpo().values(bits), atol=1e-12)


#: Qubits whose rare patterns matter, with a metric that makes them rare.
HONEST = {
    "logistic": Problem("logistic", 1, 12, zeros=0.3, n_examples=15, scale=0.6),
    "hinge": Problem("hinge", 1, 12, zeros=0.5, n_examples=12, step=0.25),
    "pairwise": Problem("pairwise-logistic", 3, 3, zeros=0.2, n_examples=9, scale=0.6),
}


@pytest.mark.usefixtures("streaming", "estimating")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["uniform", "product"])
@pytest.mark.parametrize("name", HONEST)
def test_the_true_error_of_a_sketch_is_within_the_estimated_one(name, metric, dtype):
    problem = HONEST[name]
    hamiltonian = compile_loss(
        problem.network, problem.data, LOSSES[problem.loss](), tolerance=1e-7
    )
    n = hamiltonian.n_qubits
    probabilities = asymmetric(n) if metric == "product" else None
    rounding = 1e-6 * hamiltonian.diagonal().max()  # of the forward pass, in single precision
    for max_bond in (2, 5, 12):
        for seed in range(2):
            found = compress_loss(
                hamiltonian, max_bond, probabilities=probabilities, seed=seed, dtype=dtype
            )
            true = rms(found.mpo().diagonal() - hamiltonian.diagonal(), probabilities)
            error = found.compression
            assert not error.exact
            assert error.standard_error == found.measured.rms_standard_error
            assert error.at_most >= sum(found.truncation_errors)
            assert true <= error.at_most <= 2 * true + rounding


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("name", HONEST)
def test_the_error_of_a_sketch_is_counted_over_all_networks(name):
    hamiltonian = compiled(HONEST[name])
    probabilities = asymmetric(hamiltonian.n_qubits)
    found = compress_loss(hamiltonian, 4, probabilities=probabilities)
    true = rms(found.mpo().diagonal() - hamiltonian.diagonal(), probabilities)
    assert found.compression.exact
    np.testing.assert_allclose(found.compression.at_most, true, rtol=1e-4)


@pytest.mark.usefixtures("streaming", "estimating")
def test_an_estimated_error_holds_a_sketch_that_misses_rare_patterns(monkeypatch):
    monkeypatch.setattr("hypercircuit.hamiltonian.mpo.compressed._width", lambda bond: bond + 2)
    hamiltonian = compiled(HONEST["hinge"])
    probabilities = asymmetric(hamiltonian.n_qubits)
    for seed in range(5):
        found = compress_loss(hamiltonian, 8, probabilities=probabilities, seed=seed)
        true = rms(found.mpo().diagonal() - hamiltonian.diagonal(), probabilities)
        assert true > 2 * sum(found.truncation_errors)
        assert true <= found.compression.at_most


@pytest.mark.parametrize("name", [*STREAMED, *ENUMERATED])
def test_few_qubits_are_truncated_with_the_true_error(name):
    hamiltonian = compiled((STREAMED | ENUMERATED)[name])
    probabilities = asymmetric(hamiltonian.n_qubits)
    exact = compress_loss(hamiltonian, 64)
    np.testing.assert_allclose(exact.mpo().diagonal(), hamiltonian.diagonal(), atol=1e-10)
    found = compress_loss(hamiltonian, 4, probabilities=probabilities)
    true = rms(found.mpo().diagonal() - hamiltonian.diagonal(), probabilities)
    np.testing.assert_allclose(found.truncation_errors, [true], rtol=1e-8, atol=1e-12)
    assert found.compression.exact
    np.testing.assert_allclose(found.compression.at_most, true, rtol=1e-12)


@pytest.mark.usefixtures("streaming")
def test_a_tolerance_keeps_less_where_that_suffices():
    hamiltonian = compiled(STREAMED["logistic"])
    wide = compress_loss(hamiltonian, 16, dtype=np.float64)
    narrow = compress_loss(hamiltonian, 16, tolerance=1e-2, dtype=np.float64)
    assert narrow.parts[0].mpo.max_bond < wide.parts[0].mpo.max_bond
    assert 0 < narrow.truncation_errors[0] <= 1e-2


@pytest.mark.usefixtures("streaming")
def test_terms_in_several_goes_make_the_same_operator():
    hamiltonian = compiled(STREAMED["logistic"])
    whole = compress_loss(hamiltonian, 32, dtype=np.float64)
    parts = compress_loss(hamiltonian, 32, dtype=np.float64, memory=1 << 18)
    np.testing.assert_allclose(whole.mpo().diagonal(), parts.mpo().diagonal(), atol=1e-10)


def test_an_adapted_metric_is_better_where_it_was_adapted():
    hamiltonian = compiled(Problem("logistic", 1, 9, zeros=0.1, n_examples=12, scale=1.5))
    n = hamiltonian.n_qubits
    narrow = np.where(np.arange(n) % 3 == 0, 0.03, 0.96)
    uniform = compress_loss(hamiltonian, 3)
    adapted = compress_loss(hamiltonian, 3, probabilities=narrow)
    errors = [each.mpo().diagonal() - hamiltonian.diagonal() for each in (uniform, adapted)]
    there = [rms(error, narrow) for error in errors]
    everywhere = [rms(error, None) for error in errors]
    assert there[1] < 0.3 * there[0]
    assert everywhere[0] < everywhere[1]


@pytest.mark.parametrize(
    ("loss", "step"),
    [
        ("logistic", None),
        ("logistic", 1 / 16),
        ("pairwise-logistic", None),
        ("pairwise-logistic", 1 / 16),
        ("hinge", 1 / 16),
    ],
)
def test_terms_fitted_to_a_window_are_right_where_the_metric_is(loss, step):
    rng = np.random.default_rng(3)
    x = rng.random((30, 60)) * (rng.random((30, 60)) < 0.6)
    if step is not None:
        x = step * np.round(x / step)
    n_outputs = 1 if loss != "pairwise-logistic" else 3
    y = (np.arange(30) % max(2, n_outputs)).astype(np.int32)
    data = noise(x, y, step)
    network = Network((Dense(60, n_outputs),), logit_scale=0.4)
    hamiltonian = compile_loss(network, data, LOSSES[loss](), tolerance=1e-2)
    ones = asymmetric(hamiltonian.n_qubits)
    weights = metric_weights(ones, hamiltonian.n_qubits)
    (piece,) = phase_terms(hamiltonian, weights)
    assert piece.terms.n_terms < hamiltonian.terms.n_terms.sum() * max(1, n_outputs - 1)
    bits = (rng.random((200, hamiltonian.n_qubits)) < ones).astype(int)
    difference = piece.terms.values(bits) - hamiltonian.losses(bits)
    assert np.abs(difference).max() < 2 * max(hamiltonian.spectral_error, 1e-6)


@pytest.mark.slow
def test_a_sketch_of_a_long_chain_neither_overflows_nor_vanishes():
    rng = np.random.default_rng(0)
    n = 10_000
    x = (rng.random((4, n)) * (rng.random((4, n)) < 0.03)).astype(np.float32)
    data = noise(x, [0, 1, 1, 0])
    network = Network((Dense(n, 1, bias=False),), logit_scale=0.1)
    hamiltonian = compile_loss(network, data, LOSSES["logistic"]())
    ones = rng.uniform(0.05, 0.95, n)
    (piece,) = phase_terms(hamiltonian, metric_weights(ones, n))
    mpo = compress(sketch(piece.terms, 24, probabilities=ones), max_bond=16, probabilities=ones).mpo
    bits = (rng.random((50, n)) < ones).astype(int)
    true = hamiltonian.losses(bits)
    assert np.sqrt(((mpo.values(bits) - true) ** 2).mean()) < 0.03 * true.mean()


@pytest.mark.parametrize("max_bond", [None, 4])
def test_a_quadratic_form_has_the_error_it_reports(max_bond):
    rng = np.random.default_rng(5)
    gains, offset, ones = rng.normal(size=(6, 7)), rng.normal(size=6), asymmetric(7)
    weights = metric_weights(ones, 7)
    found = quadratic_mpo(gains, offset, weights, max_bond=max_bond)
    bits = (np.arange(2**7)[:, None] >> np.arange(7)[::-1]) & 1
    true = ((offset[:, None] + gains @ bits.T) ** 2).mean(0)
    error = rms(found.mpo.diagonal() - true, ones)
    if max_bond is None:
        assert error < 1e-12
    else:
        assert found.mpo.max_bond == max_bond
        np.testing.assert_allclose(found.error, error, rtol=1e-8)


def test_losses_without_a_route_are_refused_with_those_that_have_one():
    rng = np.random.default_rng(0)
    data = noise(rng.random((5, 12)), [0, 1, 1, 0, 1])
    hamiltonian = compile_loss(Network((Dense(12, 2),)), data, LOSSES["softmax"]())
    with pytest.raises(ValueError, match=r"softmax .* 26 qubits .* pairwise-logistic"):
        compress_loss(hamiltonian, 8)
    with pytest.raises(ValueError, match="max_bond must be at least 1, got 0"):
        compress_loss(hamiltonian, 0)
    with pytest.raises(ValueError, match=re.escape("tolerance must not be negative, got -1")):
        compress_loss(hamiltonian, 4, tolerance=-1.0)
    with pytest.raises(
        ValueError, match=re.escape("one probability per site (26), got shape (3,)")
    ):
        compress_loss(hamiltonian, 4, probabilities=np.full(3, 0.5))


@pytest.mark.usefixtures("unchecked_types")
def test_a_bond_that_is_not_whole_is_refused_at_once():
    with pytest.raises(ValueError, match=r"max_bond must be a whole number, got 4\.5"):
        compress_loss(compiled(STREAMED["logistic"]), 4.5)


@pytest.mark.usefixtures("streaming")
def test_memory_holds_the_terms_of_one_example_at_least():
    hamiltonian = compiled(dataclasses.replace(STREAMED["one-vs-rest"], n_inputs=13))
    message = r"terms of one example, at least (\d+) bytes at this max_bond, got 0; raise it or"
    with pytest.raises(ValueError, match=message) as refused:
        compress_loss(hamiltonian, 4, memory=0)
    least = int(re.search(message, str(refused.value))[1])
    with pytest.raises(ValueError, match=f"at least {least} bytes .* got {least - 1}"):
        compress_loss(hamiltonian, 4, memory=least - 1)
    pieces = list(phase_terms(hamiltonian, metric_weights(None, hamiltonian.n_qubits)))
    assert pieces[0].terms.fitting(least, 1) == least


def test_progress_is_told_where_all_entries_are_written_out(monkeypatch):
    problem = STREAMED["logistic"]
    whole = compress_loss(compiled(problem), 4, dtype=np.float64).mpo().diagonal()
    monkeypatch.setattr("hypercircuit.hamiltonian.mpo.compressed._AT_ONCE", 1000)
    told = []
    found = compress_loss(
        compiled(problem),
        4,
        dtype=np.float64,
        progress=lambda done, all_: told.append((done, all_)),
    )
    n_sites = compiled(problem).n_qubits
    assert told[0] == (0, n_sites)
    assert told[-1] == (n_sites, n_sites)
    assert len(told) > 3
    np.testing.assert_allclose(found.mpo().diagonal(), whole, atol=1e-12)


@pytest.mark.usefixtures("streaming")
def test_progress_is_told_of_all_sites():
    told = []
    problem = dataclasses.replace(STREAMED["one-vs-rest"], n_inputs=5)
    found = compress_loss(
        compiled(problem), 4, progress=lambda done, all_: told.append((done, all_))
    )
    assert told[-1] == (18, 18)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(found.parts) == 3
