"""Reports, files and the cache of compressed losses, against brute force over all networks."""

import dataclasses
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import oracles
from hypercircuit._files import write_atomically
from hypercircuit.data import Dataset
from hypercircuit.hamiltonian import Hinge, LossHamiltonian, SquaredHinge, compile_loss
from hypercircuit.hamiltonian.mpo import (
    CompressedLoss,
    MeasuredError,
    compress_loss,
    load_compressed,
    load_same,
    make_report,
    report_text,
    saved_report,
    uniform_networks,
)
from hypercircuit.hamiltonian.mpo.compressed import _Work
from hypercircuit.study import cut_spectra, errors_against_bond, truncated
from problems import PROBLEMS, Problem

#: One of every route: all entries, terms streamed, a quadratic form, settings of choices.
NAMES = ("logistic-halves", "logistic-wide", "pairwise-sparse", "squared-wide", "encoding-wide")
ALL = PROBLEMS | {
    "squared-wide": Problem("squared", 2, 8, encoding=(-3.0, 1.0), interval=(-0.5, 1.0), scale=0.2),
    "encoding-wide": Problem(
        "logistic", 1, 11, encodings=((-1.0, 1.0), (-3.0, 1.0)), zeros=0.6, scale=0.4
    ),
}


def hamiltonian_of(name: str) -> LossHamiltonian:
    problem = ALL[name]
    return compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-4)


def metric_of(n_qubits: int) -> np.ndarray:
    """Probabilities that differ from bit to bit."""
    return np.random.default_rng(3).uniform(0.05, 0.9, n_qubits)


@pytest.fixture(scope="module")
def made() -> Iterator[Callable[[str, bool], CompressedLoss]]:
    known: dict[tuple[str, bool], CompressedLoss] = {}

    def make(name: str, weighted: bool) -> CompressedLoss:
        if (name, weighted) not in known:
            hamiltonian = hamiltonian_of(name)
            probabilities = metric_of(hamiltonian.n_qubits) if weighted else None
            known[name, weighted] = compress_loss(
                hamiltonian, 5, probabilities=probabilities, seed=4
            )
        return known[name, weighted]

    with pytest.MonkeyPatch.context() as patch:
        # The routes of more examples, on few.
        patch.setattr("hypercircuit.hamiltonian.mpo.compressed._CHEAP_ENTRIES", 0)
        yield make


def indices(bits: np.ndarray) -> np.ndarray:
    return bits.astype(int) @ (1 << np.arange(bits.shape[1])[::-1])


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_report_holds_the_errors_of_brute_force(name: str, weighted: bool, made):
    compressed, problem = made(name, weighted), ALL[name]
    n_qubits = problem.network.n_qubits
    rng = np.random.default_rng(5)
    state = (rng.random((40, n_qubits)) < metric_of(n_qubits)).astype(np.uint8)
    report = compressed.report(state=state, best=state[7], n_networks=90)
    error = compressed.mpo().diagonal() - problem.diagonal
    # The forward pass is in single precision.
    rounding = 1e-6 * problem.diagonal.max()
    sets = {
        "uniform": uniform_networks(90, n_qubits, 4),
        "state": state,
        "best": state[7:8],
    }
    for key, bits in sets.items():
        each, found = error[indices(bits)], report["measured"][key]
        assert found["n_networks"] == len(bits)
        assert found["rms"] == pytest.approx(np.sqrt(np.mean(each**2)), rel=1e-4, abs=rounding)
        assert found["mean"] == pytest.approx(each.mean(), rel=1e-4, abs=rounding)
        assert found["max"] == pytest.approx(np.abs(each).max(), rel=1e-4, abs=rounding)
        assert found["loss"] == pytest.approx(problem.diagonal[indices(bits)].mean(), rel=1e-5)
    spread = error[indices(sets["uniform"])].std(ddof=1) / math.sqrt(90)
    assert report["measured"]["uniform"]["mean_standard_error"] == pytest.approx(spread, rel=1e-3)
    assert report["measured"]["best"]["rms_standard_error"] is None
    # All networks together, by the metric's weights, within 5 standard errors.
    ones = metric_of(n_qubits) if weighted else np.full(n_qubits, 0.5)
    table = oracles.bits_table(n_qubits)
    weights = np.where(table == 1, ones, 1 - ones).prod(1)
    exact = math.sqrt(weights @ error**2)
    metric = report["measured"]["metric"]
    assert abs(metric["rms"] - exact) < 5 * metric["rms_standard_error"] + rounding
    # Kinds that are kept apart.
    errors = report["errors"]
    assert errors["spectral"] == compressed.hamiltonian.spectral_error
    assert errors["compression"]["exact"]
    assert errors["compression"]["standard_error"] is None
    assert errors["compression"]["at_most"] == pytest.approx(exact, rel=1e-4, abs=rounding)
    assert errors["sampling"]["state"] == report["measured"]["state"]["rms_standard_error"]
    assert errors["state_truncation"] is errors["optimisation"] is None
    assert report["n_bytes"] == 8 * sum(t.size for p in compressed.parts for t in p.mpo.tensors)
    assert report["data_fingerprint"] == problem.data.fingerprint
    assert [part["start"] for part in report["parts"]] == [p.start for p in compressed.parts]
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("weighted", [False, True])
def test_truncation_error_is_the_true_one_where_nothing_is_sketched(weighted: bool, made):
    compressed = made("logistic-halves", weighted)
    n_qubits = compressed.hamiltonian.n_qubits
    error = compressed.mpo().diagonal() - compressed.hamiltonian.diagonal()
    ones = metric_of(n_qubits) if weighted else np.full(n_qubits, 0.5)
    weights = np.where(oracles.bits_table(n_qubits) == 1, ones, 1 - ones).prod(1)
    found = compressed.report()["errors"]["compression"]["at_most"]
    assert found == pytest.approx(math.sqrt(weights @ error**2), rel=1e-9)
    assert found > 1e-5


def test_standard_errors_are_those_of_many_draws():
    rng = np.random.default_rng(0)
    draws = rng.gamma(2.0, 0.3, (600, 400)) - 0.4
    found = [MeasuredError.of(each, np.zeros(400)) for each in draws]
    for name in ("mean", "rms"):
        spread = np.std([getattr(each, name) for each in found])
        claimed = np.mean([getattr(each, f"{name}_standard_error") for each in found])
        assert claimed == pytest.approx(spread, rel=0.12)
    one = MeasuredError.of(np.array([0.5]), np.array([0.75]))
    assert (one.rms, one.mean, one.max, one.loss) == (0.25, -0.25, 0.25, 0.75)
    assert math.isnan(one.rms_standard_error)
    assert math.isnan(one.mean_standard_error)
    none = MeasuredError.of(np.ones(3), np.ones(3))
    assert (none.rms, none.rms_standard_error) == (0.0, 0.0)


def test_report_as_text(made):
    compressed = made("encoding-wide", True)
    bits = uniform_networks(6, 13, 1)
    text = report_text(compressed.report(state=bits, best=bits[0]))
    for words in (
        "logistic loss of 7 examples on 13 qubits as 2 operators in a product distribution's",
        f"data          {ALL['encoding-wide'].data.fingerprint[:16]}",
        "bonds         at most",
        "spectral      at most",
        "compression   ",
        "rms in the metric, counted over all networks",
        "the metric's networks",
        "uniform networks",
        "samples of the state",
        "best network found",
        "state truncation and optimisation are no errors of an operator",
    ):
        assert words in text
    assert "samples of the state" not in report_text(compressed.report())


def test_report_refuses_networks_that_do_not_fit(made):
    compressed = made("logistic-halves", False)
    with pytest.raises(ValueError, match=r"state must hold bits of 11 qubits.*got shape \(3, 5\)"):
        compressed.report(state=np.zeros((3, 5), np.uint8))
    with pytest.raises(ValueError, match=r"best must hold bits of 11 qubits"):
        compressed.report(best=np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match=r"got shape \(0, 11\)"):
        compressed.report(state=np.zeros((0, 11), np.uint8))
    with pytest.raises(ValueError, match="n_networks must be at least 1, got 0"):
        make_report(compressed, n_networks=0)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_file_comes_back_bit_for_bit(name: str, weighted: bool, made, tmp_path: Path):
    compressed, path = made(name, weighted), tmp_path / "own.npz"
    report = compressed.report(n_networks=10)
    compressed.save(path, report=report)
    # Another compilation of the same problem is the same loss.
    hamiltonian = hamiltonian_of(name)
    found = load_compressed(path, hamiltonian)
    assert found.hamiltonian is hamiltonian
    assert len(found.parts) == len(compressed.parts)
    for one, other in zip(found.parts, compressed.parts, strict=True):
        assert one.start == other.start
        for a, b in zip(one.mpo.tensors, other.mpo.tensors, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    bits = uniform_networks(20, hamiltonian.n_qubits, 8)
    np.testing.assert_array_equal(found.values(bits), compressed.values(bits))
    if weighted:
        np.testing.assert_array_equal(found.probabilities, compressed.probabilities)
    else:
        assert found.probabilities is None
    for field in dataclasses.fields(CompressedLoss):
        if field.name not in ("hamiltonian", "parts", "probabilities"):
            assert getattr(found, field.name) == getattr(compressed, field.name)
    assert saved_report(path) == report
    assert found.report(n_networks=10) == report
    assert [each.name for each in tmp_path.iterdir()] == ["own.npz"]


def test_file_without_a_report_of_its_own_gets_one(made, tmp_path: Path):
    compressed = made("logistic-halves", False)
    compressed.save(tmp_path / "own.npz")
    assert saved_report(tmp_path / "own.npz") == compressed.report()


def changed_data(data: Dataset) -> Dataset:
    x = data.x.copy()
    x[2, 3] += 0.5
    return dataclasses.replace(data, x=x)


def test_file_of_another_loss_is_refused(made, tmp_path: Path):
    path = tmp_path / "own.npz"
    made("logistic-halves", False).save(path)
    here = hamiltonian_of("logistic-halves")
    data, network, loss = here.data, here.network, here.loss
    wider = dataclasses.replace(network, logit_scale=0.71)
    smaller = Dataset(data.x, data.y, 2, None, 0.25, "problem")
    others = {
        "data fingerprint": compile_loss(network, changed_data(data), loss),
        "number of examples": here.subset(np.arange(5)),
        "step of the inputs": compile_loss(network, smaller, loss),
        "network": compile_loss(wider, data, loss),
        "loss": compile_loss(network, data, SquaredHinge()),
        "terms": compile_loss(network, dataclasses.replace(data, step=None), loss),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=rf"is of another loss: .*{name} \(.* here\)") as said:
            load_compressed(path, other)
        if name == "network":
            assert "logit_scale=0.7," in str(said.value)
            assert "logit_scale=0.71," in str(said.value)
            assert "fingerprint" not in str(said.value)
    real = ALL["logistic-real"]
    rough, fine = (
        compile_loss(real.network, real.data, loss, tolerance=each) for each in (1e-2, 1e-6)
    )
    compress_loss(rough, 3).save(path)
    with pytest.raises(ValueError, match=r"spectral error \(.* in the file, .* here\)"):
        load_compressed(path, fine)


def rewritten(path: Path, change: Callable[[dict], None], *, seal: bool) -> None:
    """Change a file's header, and make its digest fit again or not."""
    from hypercircuit.hamiltonian.mpo.files import _digest

    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop("header").tobytes())
    change(header)
    text = json.dumps(header).encode()
    digest = arrays.pop("digest")
    if seal:
        digest = np.frombuffer(_digest(text, arrays), np.uint8)
    np.savez(path, header=np.frombuffer(text, np.uint8), digest=digest, **arrays)


def test_file_of_another_format_is_refused(made, tmp_path: Path):
    path = tmp_path / "own.npz"
    made("logistic-halves", False).save(path)
    rewritten(path, lambda header: header.update(format=1, version="9.0"), seal=True)
    with pytest.raises(ValueError, match=r"must have format 2, got 1; read it with .*\(9\.0\)"):
        load_compressed(path, hamiltonian_of("logistic-halves"))
    with pytest.raises(ValueError, match="must have format 2, got 1"):
        saved_report(path)


def test_damaged_file_is_refused(made, tmp_path: Path):
    path = tmp_path / "own.npz"
    compressed = made("logistic-halves", True)
    compressed.save(path)
    hamiltonian = compressed.hamiltonian
    content = path.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"own\.npz is damaged.*compress the loss again"):
            load_compressed(path, hamiltonian)
    inside = content.index(b"part0/tensors.npy") + 300
    for place in (inside, content.index(b'"format"') + 3, content.index(b"part0/bonds") + 150):
        flipped = bytearray(content)
        flipped[place] ^= 0x40
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="is damaged"):
            load_compressed(path, hamiltonian)
    path.write_bytes(content)
    rewritten(path, lambda header: header.update(seconds=0.1), seal=False)
    with pytest.raises(ValueError, match="its digest does not match its content"):
        load_compressed(path, hamiltonian)
    np.savez(path, x=np.arange(3))
    with pytest.raises(ValueError, match="damaged or no file of a compressed loss"):
        load_compressed(path, hamiltonian)
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array([{"a": 1}], object), digest=np.zeros(3))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="damaged or no file of a compressed loss"):
        load_compressed(path, hamiltonian)
    with pytest.raises(FileNotFoundError):
        load_compressed(tmp_path / "absent.npz", hamiltonian)


def test_failed_write_leaves_the_file_before(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"before"))

    def fail(file: io.BufferedWriter) -> None:
        file.write(b"half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- the cache


def refuse_to_compress(*_: object) -> None:
    raise AssertionError("the loss was compressed again")


def test_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "cache"
    hamiltonian = hamiltonian_of("logistic-wide")
    first = compress_loss(hamiltonian, 4, seed=2, cache=folder)
    plain = compress_loss(hamiltonian, 4, seed=2)
    monkeypatch.setattr(_Work, "parts", refuse_to_compress)
    second = compress_loss(hamiltonian_of("logistic-wide"), 4, seed=2, cache=str(folder))
    bits = uniform_networks(30, hamiltonian.n_qubits, 1)
    np.testing.assert_array_equal(second.values(bits), first.values(bits))
    np.testing.assert_array_equal(plain.values(bits), first.values(bits))
    assert second.measured == first.measured
    assert second.seconds == first.seconds
    (file,) = folder.iterdir()
    assert re.fullmatch(r"mpo-[0-9a-f]{32}\.npz", file.name)


def test_any_change_misses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = hamiltonian_of("logistic-halves")
    probabilities = metric_of(here.n_qubits)
    known = {"tolerance": 1e-3, "probabilities": probabilities, "seed": 1, "memory": 1 << 20}
    compress_loss(here, 4, **known, cache=tmp_path)
    other = probabilities.copy()
    other[3] += 1e-9
    network, data, loss = here.network, here.data, here.loss
    relabelled = data.y.copy()
    relabelled[0] = 1 - relabelled[0]
    misses = [
        (here, 5, known),
        (here, 4, known | {"tolerance": 2e-3}),
        (here, 4, known | {"probabilities": None}),
        (here, 4, known | {"probabilities": other}),
        (here, 4, known | {"seed": 2}),
        (here, 4, known | {"memory": 1 << 21}),
        (here, 4, known | {"dtype": np.float64}),
        (compile_loss(network, changed_data(data), loss), 4, known),
        (compile_loss(network, dataclasses.replace(data, y=relabelled), loss), 4, known),
        (compile_loss(network, dataclasses.replace(data, step=None), loss), 4, known),
        (compile_loss(dataclasses.replace(network, logit_scale=0.8), data, loss), 4, known),
        (compile_loss(network, data, Hinge()), 4, known),
        (here.subset(np.arange(6)), 4, known),
    ]
    for number, (hamiltonian, bond, settings) in enumerate(misses):
        compress_loss(hamiltonian, bond, **settings, cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == number + 2
    monkeypatch.setattr(_Work, "parts", refuse_to_compress)
    for hamiltonian, bond, settings in [(here, 4, known), *misses]:
        compress_loss(hamiltonian, bond, **settings, cache=tmp_path)


def test_another_version_misses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = hamiltonian_of("logistic-halves")
    compress_loss(here, 3, cache=tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.0")
    compress_loss(here, 3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = hamiltonian_of("logistic-halves")
    first = compress_loss(here, 3, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.warns(RuntimeWarning, match="compressed again: .*is damaged"):
        again = compress_loss(here, 3, cache=tmp_path)
    np.testing.assert_array_equal(again.mpo().diagonal(), first.mpo().diagonal())
    monkeypatch.setattr(_Work, "parts", refuse_to_compress)
    compress_loss(here, 3, cache=tmp_path)


def test_bad_arguments_are_refused_before_the_cache(tmp_path: Path):
    here = hamiltonian_of("logistic-halves")
    with pytest.raises(ValueError, match="max_bond must be at least 1, got 0"):
        compress_loss(here, 0, cache=tmp_path)
    with pytest.raises(ValueError, match="one probability per site"):
        compress_loss(here, 3, probabilities=np.full(4, 0.5), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_file_of_another_request_is_not_the_same(made, tmp_path: Path):
    from hypercircuit.hamiltonian.mpo import Request

    compressed, path = made("logistic-halves", True), tmp_path / "own.npz"
    same = Request(5, 0.0, metric_of(11), 4, "float32", compressed.memory)
    assert load_same(path, compressed.hamiltonian, same) is None
    compressed.save(path)
    assert load_same(path, compressed.hamiltonian, same) is not None
    for change in ({"max_bond": 6}, {"probabilities": None}, {"seed": 5}):
        other = dataclasses.replace(same, **change)
        assert load_same(path, compressed.hamiltonian, other) is None


# ---------------------------------------------------------------- error against bond dimension


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_errors_against_bond_are_those_of_brute_force(name: str, weighted: bool, made):
    compressed, problem = made(name, weighted), ALL[name]
    n_qubits = problem.network.n_qubits
    networks = {"uniform": uniform_networks(50, n_qubits, 4)}
    rows = errors_against_bond(compressed, [2, 3, 900], networks)
    widest = max(part.mpo.max_bond for part in compressed.parts)
    assert [row.max_bond for row in rows] == [2, 3, widest]
    ones = metric_of(n_qubits) if weighted else np.full(n_qubits, 0.5)
    weights = np.where(oracles.bits_table(n_qubits) == 1, ones, 1 - ones).prod(1)
    before = compressed.mpo().diagonal()
    for row in rows:
        parts, errors = truncated(compressed, row.max_bond)
        assert all(part.mpo.max_bond <= row.max_bond for part in parts)
        after = dataclasses.replace(compressed, parts=parts).mpo().diagonal()
        distance = math.sqrt(weights @ (after - before) ** 2)
        # A bound for parts that share sites, the error itself for others.
        assert distance <= row.further_truncation * (1 + 1e-6) + 1e-12
        if name != "encoding-wide":
            assert distance == pytest.approx(row.further_truncation, rel=1e-6, abs=1e-12)
        assert row.further_truncation <= errors.sum() * (1 + 1e-9)
        each = (after - problem.diagonal)[indices(networks["uniform"])]
        assert row.measured["uniform"].rms == pytest.approx(
            np.sqrt(np.mean(each**2)), rel=1e-4, abs=1e-6 * problem.diagonal.max()
        )
        assert row.n_bytes == 8 * sum(t.size for part in parts for t in part.mpo.tensors)
        assert json.loads(json.dumps(row.to_dict()))["max_bond"] == row.max_bond
    assert rows[0].further_truncation > 0
    assert rows[-1].further_truncation == 0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["logistic-wide", "squared-wide"])
def test_singular_values_are_those_of_the_matrix(name: str, weighted: bool, made):
    compressed = made(name, weighted)
    spectra = cut_spectra(compressed)
    # One operator is cut at several places, several are cut in their middles.
    assert len(spectra) == (5 if name == "logistic-wide" else 2)
    assert len({spectrum.site for spectrum in spectra}) == len(spectra)
    for spectrum in spectra:
        part = next(p for p in compressed.parts if p.start <= spectrum.site < p.stop - 1)
        n_sites = part.mpo.n_sites
        ones = np.full(n_sites, 0.5)
        if weighted:
            ones = metric_of(compressed.hamiltonian.n_qubits)[part.start : part.stop]
        weights = np.where(oracles.bits_table(n_sites) == 1, ones, 1 - ones).prod(1)
        matrix = (part.mpo.diagonal() * np.sqrt(weights)).reshape(
            2 ** (spectrum.site - part.start + 1), -1
        )
        expected = np.linalg.svd(matrix, compute_uv=False)[: len(spectrum.values)]
        np.testing.assert_allclose(spectrum.values, expected, rtol=1e-8, atol=1e-14)
        assert len(spectrum.values) <= 5
