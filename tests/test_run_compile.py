"""Compressing a loss as a command: folders, reports, figures, refusals, interruption."""

import copy
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from compilation import equal_programs_compiled_once
from hypercircuit.circuit import Brickwork
from hypercircuit.cli import INTERRUPTED, main
from hypercircuit.config import Config, ConfigError, load_config
from hypercircuit.hamiltonian import compile_loss
from hypercircuit.hamiltonian.mpo import load_compressed, load_mpo, saved_report
from hypercircuit.problem import build_problem
from hypercircuit.run import marginals_run, sample_run
from hypercircuit.run_compile import _text, compile_run
from hypercircuit.state import exact_mps

CONFIG = """
[data]
path = "PATH"
classes = [0, 1]
n_train = 60

[network]
outputs = 1

[loss]
kind = "logistic"

[circuit]
depth = 2

[energy]
check_examples = 5

[mpo]
max_bond = 8
metric = "uniform"
networks = 100

[train]
batch_size = 20
steps = 12
evaluate_every = 12
checkpoint_every = 12

[decode]
samples = 5
beam = 2
"""
FIGURES = ("bonds.png", "singular_values.png", "error_bond.png", "optima.png")
ADAPTED = ["--set", "mpo.metric=state"]


@pytest.fixture(autouse=True)
def _in_single_precision() -> Iterator[None]:
    """What a user's command runs in."""
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with equal_programs_compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(6)
    y = np.resize([0, 2, 1, 0, 1, 2, 0], 140)
    images = rng.integers(0, 256, (3, 3, 5))[y] // 2 + rng.integers(0, 128, (140, 3, 5))
    np.savez(folder / "own.npz", x=images.astype(np.uint8), y=y)
    (folder / "tiny.toml").write_text(CONFIG.replace("PATH", str(folder / "own.npz")))
    return folder


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    """What a finished run leaves behind, its bits decided to different degrees."""
    folder = work / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(load_config(work / "tiny.toml").to_toml())
    rng = np.random.default_rng(2)
    angles = rng.normal(0, 0.35, (2, 16, 2))
    angles[1, :, 0] += np.pi * rng.integers(0, 2, 16)
    np.savez(folder / "angles.npz", angles=angles.astype(np.float32))
    np.savez(folder / "best_network.npz", bits=rng.integers(0, 2, 16, np.uint8))
    fingerprint = loss_of(folder).data.fingerprint
    (folder / "result.json").write_text(json.dumps({"data_fingerprint": fingerprint}))
    return folder


@pytest.fixture(scope="module")
def plain(work: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(False):
        patch.chdir(work)
        assert main(["compile", "tiny.toml"]) == 0
    return work / "runs" / "tiny-mpo"


@pytest.fixture(scope="module")
def adapted(work: Path, trained: Path) -> Path:
    out = work / "adapted"
    command = ["compile", str(work / "tiny.toml"), *ADAPTED, "--state", str(trained)]
    with jax.enable_x64(False):
        assert main([*command, "--out", str(out)]) == 0
    return out


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("hypercircuit: ")
    assert said.count("\n") == 1
    return said


def loss_of(folder: Path):
    config = load_config(folder / "config.toml")
    problem = build_problem(config)
    return compile_loss(
        problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
    )


def test_folder_holds_operator_report_and_figures(plain: Path):
    assert {path.name for path in plain.iterdir()} == {
        "config.toml",
        "mpo.npz",
        "report.json",
        "run.lock",
        *FIGURES,
    }
    result = json.loads((plain / "report.json").read_text())
    assert (result["command"], result["status"], result["metric"]) == (
        "compile",
        "finished",
        "uniform",
    )
    assert result["state"] is None
    hamiltonian = loss_of(plain)
    found = load_compressed(plain / "mpo.npz", hamiltonian)
    assert found.max_bond == 8
    assert saved_report(plain / "mpo.npz") == result["report"] == found.report(n_networks=100)
    # Above 12 qubits the terms are streamed, and 2^16 networks can still be counted.
    error = found.mpo().diagonal() - hamiltonian.diagonal()
    measured = result["report"]["measured"]["uniform"]
    bound = 5 * measured["rms_standard_error"] + hamiltonian.spectral_error
    assert abs(measured["rms"] - np.sqrt(np.mean(error**2))) < bound
    rows = result["errors_against_bond"]["uniform"]
    assert [row["max_bond"] for row in rows] == [1, 2, 4, 8]
    assert rows[-1]["further_truncation"] == 0
    assert rows[-1]["measured"]["uniform"] == measured
    assert rows[0]["further_truncation"] > rows[1]["further_truncation"] > 0
    optima = result["optima_against_bond"]["uniform"]
    assert [row["max_bond"] for row in optima] == [1, 2, 4, 8]
    entries = found.mpo().diagonal()
    np.testing.assert_allclose(optima[-1]["value"], entries.min(), rtol=1e-9)
    np.testing.assert_allclose(
        optima[-1]["loss"], hamiltonian.diagonal()[entries.argmin()], atol=1e-5
    )
    assert 0.5 < optima[-1]["accuracies"]["train"] <= 1
    assert len(result["singular_values"]) == 5
    for name in FIGURES:
        assert (plain / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_state_weighs_and_tests(adapted: Path, trained: Path):
    result = json.loads((adapted / "report.json").read_text())
    hamiltonian = loss_of(adapted)
    found = load_compressed(adapted / "mpo.npz", hamiltonian)
    with np.load(trained / "angles.npz") as arrays:
        mps = exact_mps(Brickwork(2), jax.numpy.asarray(arrays["angles"]))
    born = np.abs(np.asarray(mps.to_statevector())) ** 2
    table = np.arange(2**16)[:, None] >> np.arange(16)[::-1] & 1
    np.testing.assert_allclose(found.probabilities, np.clip(born @ table, 0.02, 0.98), atol=1e-5)
    np.testing.assert_allclose(marginals_run(trained), born @ table, atol=1e-5)
    samples, _ = sample_run(trained, 100)
    with np.load(trained / "best_network.npz") as arrays:
        best = arrays["bits"]
    measured = result["report"]["measured"]
    assert measured["state"]["rms"] == found.error_at(samples).rms
    assert measured["best"]["max"] == abs(found.values(best[None]) - hamiltonian.losses(best[None]))
    # Both metrics at the same bond dimensions, on the same networks.
    other = load_compressed(adapted / "mpo_uniform.npz", hamiltonian)
    assert other.probabilities is None
    rows = result["errors_against_bond"]
    assert list(rows) == ["state", "uniform"]
    for metric, operator in (("state", found), ("uniform", other)):
        assert [row["max_bond"] for row in rows[metric]] == [1, 2, 4, 8]
        assert rows[metric][-1]["measured"]["state"]["rms"] == operator.error_at(samples).rms
    on_state = {metric: each[-1]["measured"]["state"]["rms"] for metric, each in rows.items()}
    on_uniform = {metric: each[-1]["measured"]["uniform"]["rms"] for metric, each in rows.items()}
    assert on_state["state"] < on_state["uniform"]
    assert on_uniform["uniform"] < on_uniform["state"]
    for name in (*FIGURES, "error_metric.png"):
        assert (adapted / name).exists()


def test_report_is_printed(plain: Path, work: Path, capsys):
    assert main(["compile", str(work / "tiny.toml"), "--out", str(plain)]) == 0
    said = capsys.readouterr().out
    for words in (
        "holds a compiled loss; choose another --out",
        "logistic loss of 60 examples on 16 qubits as 1 operator in the uniform metric",
        "spectral      at most",
        "uniform metric, rms error in nats (+- standard error) on",
        "  further: rms in the metric of truncating the operator of bond 8 further; its own error",
    ):
        assert words in said
    assert re.search(r"^ +8 +\d\.\d\d +none ", said, re.M)
    # Reports of before the key was renamed say the same.
    result = json.loads((plain / "report.json").read_text())
    older = copy.deepcopy(result)
    for row in older["errors_against_bond"]["uniform"]:
        row["truncation_error"] = row.pop("further_truncation")
    assert _text(older) == _text(result)


def test_export_writes_the_operator(plain: Path, adapted: Path, tmp_path: Path, capsys):
    file, other = tmp_path / "operator.h5", tmp_path / "other.h5"
    assert main(["export", str(plain), str(file)]) == 0
    assert f"the operator of 16 qubits, bond dimension 8: {file}" in capsys.readouterr().out
    hamiltonian = loss_of(plain)
    fingerprint = hamiltonian.data.fingerprint
    bits = np.random.default_rng(4).integers(0, 2, (20, 16))
    expected = load_compressed(plain / "mpo.npz", hamiltonian).values(bits)
    found = load_mpo(file, fingerprint=fingerprint).values(bits)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert main(["export", str(adapted / "mpo_uniform.npz"), str(other)]) == 0
    found = load_mpo(other, fingerprint=fingerprint).values(bits)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    capsys.readouterr()
    said = failed(capsys, "export", str(plain), str(tmp_path / "circuit.qasm"))
    assert "mpo.npz holds operators, which are written as .h5, got" in said
    assert "name the folder of a `train` for circuits and networks" in said


def test_state_of_other_data_is_named(adapted: Path, trained: Path):
    result = json.loads((adapted / "report.json").read_text())
    own = result["report"]["data_fingerprint"]
    assert result["state"]["data_fingerprint"] == own
    assert "other data" not in _text(result)
    result["state"]["data_fingerprint"] = "0123456789abcdef0123"
    words = (
        f"the state in {trained} was trained on other data (fingerprint 0123456789abcdef); "
        "losses and errors are those of the data above"
    )
    assert words in _text(result)
    del result["state"]["data_fingerprint"]
    assert "other data" not in _text(result)


def test_metric_of_a_state_needs_one(work: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    said = failed(capsys, "compile", str(work / "tiny.toml"), *ADAPTED, "--out", str(out))
    assert "mpo.metric='state' needs a trained state; name the folder" in said
    assert "--state RUN, or set mpo.metric='uniform'" in said
    assert not out.exists()


def test_states_that_do_not_fit_are_refused(
    work: Path, trained: Path, tmp_path: Path, plain: Path, capsys
):
    out = tmp_path / "out"
    command = ["compile", str(work / "tiny.toml"), "--out", str(out)]
    said = failed(capsys, *command, "--state", str(tmp_path))
    assert "config.toml is missing" in said
    said = failed(capsys, *command, "--state", str(plain))
    assert "best_network.npz is missing" in said
    scaled = [*command, "--set", "network.logit_scale=0.5"]
    said = failed(capsys, *scaled, "--state", str(trained))
    assert "is of another network: network.logit_scale (there 0.3, here 0.5)" in said
    smaller = [*command, "--set", "data.downsample=pick"]
    smaller += ["--set", "data.rows=[0, 2]", "--set", "data.columns=[0, 1, 2, 3, 4]"]
    assert "has 16 qubits, the network 11" in failed(capsys, *smaller, "--state", str(trained))
    assert not out.exists()


def test_folders_of_others_are_refused(plain: Path, trained: Path, work: Path, capsys):
    config = str(work / "tiny.toml")
    command = ["compile", config, "--out", str(plain)]
    said = failed(capsys, *command, "--set", "mpo.max_bond=9")
    assert "mpo.max_bond (there 8, here 9)" in said
    said = failed(capsys, *command, "--state", str(trained))
    assert "belongs to no state; choose another --out, or name the same --state" in said
    assert "belongs to a run" in failed(capsys, "compile", config, "--out", str(trained))


def test_loss_without_an_operator_is_refused(work: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    settings = ["data.classes=[0, 1, 2]", "network.outputs=3", "loss.kind=softmax"]
    arguments = [each for setting in settings for each in ("--set", setting)]
    said = failed(capsys, "compile", str(work / "tiny.toml"), *arguments, "--out", str(out))
    assert "3 outputs and 48 qubits is not compressed into operators" in said
    assert not out.exists()


def test_training_refuses_a_loss_without_an_operator_before_it_is_compiled(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr("hypercircuit.run.compile_loss", None)
    config = CONFIG.replace("check_examples = 5", 'kind = "mpo"').replace("networks = 100", "")
    config = config.replace("batch_size = 20", "batch_size = 0").replace("PATH", f"{work}/own.npz")
    (tmp_path / "mpo.toml").write_text(config)
    command = ["train", str(tmp_path / "mpo.toml"), "--out", str(tmp_path / "out")]
    said = failed(capsys, *command, "--set", "network.hidden=[4]")
    assert "energy.kind='mpo': the logistic loss of a network with 1 hidden layer, 1 output" in said
    assert "69 qubits is not compressed into operators" in said
    assert "or set another energy.kind" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "when", "kept"),
    [
        ("spectral error at most", "while the uniform operator was made", []),
        ("in the uniform metric", "after the uniform operator", ["mpo.npz"]),
        ("now the error", "during the study of errors", ["mpo.npz", "mpo_state.npz"]),
    ],
)
def test_stopped_command_goes_on(
    word: str,
    when: str,
    kept: list[str],
    work: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
):
    """A signal at some message, then the same command."""
    out = tmp_path / "out"
    said: list[str] = []

    def report(message: str) -> None:
        said.append(message)
        if word in message:
            signal.raise_signal(signal.SIGTERM)

    config = load_config(work / "tiny.toml")
    result = compile_run(config, out, state=trained, report=report)
    assert result["status"] == "interrupted"
    assert f"stopped by SIGTERM {when}" in result["message"] == said[-1]
    assert sorted(path.name for path in out.glob("*.npz")) == kept
    assert not (out / "report.json").exists()

    monkeypatch.setattr("hypercircuit.cli._report", said.append)
    said.clear()
    command = ["compile", str(work / "tiny.toml"), "--state", str(trained), "--out", str(out)]
    assert main(command) == 0
    assert [f"read {out / name}" in "\n".join(said) for name in kept] == [True] * len(kept)
    assert (out / "error_metric.png").exists()


def test_interruption_has_its_exit_code(work: Path, monkeypatch: pytest.MonkeyPatch):
    seen = {}

    def compile_run(config, folder, *, state, report, mesh):
        seen.update(folder=folder, state=state)
        return {"status": "interrupted"}

    monkeypatch.setattr("hypercircuit.cli.compile_run", compile_run)
    assert main(["compile", str(work / "tiny.toml"), "--state", "there"]) == INTERRUPTED
    assert seen == {"folder": Path("runs/tiny-mpo"), "state": "there"}


def test_damaged_operator_is_made_again(work: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    command = ["compile", str(work / "tiny.toml"), "--out", str(out)]
    assert main(command) == 0
    (out / "report.json").unlink()
    content = (out / "mpo.npz").read_bytes()
    (out / "mpo.npz").write_bytes(content[:-100])
    capsys.readouterr()
    assert main(command) == 0
    assert "the loss is compressed again:" in capsys.readouterr().out
    assert len((out / "mpo.npz").read_bytes()) == pytest.approx(len(content), abs=100)


def test_several_operators_in_one_folder(work: Path, tmp_path: Path):
    out = tmp_path / "out"
    settings = ["data.classes=[0, 1, 2]", "network.outputs=3", "loss.kind=squared"]
    settings += ["mpo.bonds=[3, 5]", "mpo.tolerance=1e-3"]
    arguments = [each for setting in settings for each in ("--set", setting)]
    assert main(["compile", str(work / "tiny.toml"), *arguments, "--out", str(out)]) == 0
    result = json.loads((out / "report.json").read_text())
    assert [part["start"] for part in result["report"]["parts"]] == [0, 16, 32]
    assert [each["site"] for each in result["singular_values"]] == [7, 23, 39]
    rows = result["errors_against_bond"]["uniform"]
    assert [row["max_bond"] for row in rows] == [3, 5, result["report"]["max_bond"]]


@pytest.mark.slow
def test_state_of_a_real_run(work: Path, tmp_path: Path):
    config, run, out = str(work / "tiny.toml"), str(tmp_path / "run"), tmp_path / "out"
    assert main(["train", config, "--out", run]) == 0
    assert main(["compile", config, *ADAPTED, "--state", run, "--out", str(out)]) == 0
    measured = json.loads((out / "report.json").read_text())["report"]["measured"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert measured["best"]["loss"] == pytest.approx(result["best_loss"], rel=1e-5)
    assert measured["state"]["rms"] < measured["uniform"]["rms"]


def test_studied_bonds():
    def studied(**settings: object) -> tuple[int, ...]:
        return Config.from_dict({"mpo": settings}).mpo.studied_bonds

    assert studied() == (8, 16, 32, 64)
    assert studied(max_bond=3) == (1, 3)
    assert studied(max_bond=1) == (1,)
    assert studied(max_bond=20, bonds=[12, 5]) == (5, 12, 20)
    with pytest.raises(ConfigError, match=r"at most mpo\.max_bond=20, got \[12, 21\]"):
        studied(max_bond=20, bonds=[12, 21])
    with pytest.raises(ConfigError, match=r"mpo\.metric must be one of 'auto', 'state', 'uniform'"):
        studied(metric="born")
