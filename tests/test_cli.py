"""The command line: commands, exit codes and what a user who errs is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from compilation import equal_programs_compiled_once
from hypercircuit.circuit import Brickwork, to_qasm
from hypercircuit.cli import INTERRUPTED, main
from hypercircuit.config import load_config
from hypercircuit.run import run_fingerprint
from hypercircuit.state import exact_mps, load_mps, log_probability

CONFIG = """
[data]
classes = [0, 1]
downsample = "pick"
rows = [7, 14, 20]
columns = [7, 14, 21]
n_train = 300

[network]
outputs = 1

[loss]
kind = "logistic"

[circuit]
depth = 2

[energy]
check_examples = 10

[train]
batch_size = 50
steps = 100000
evaluate_every = 1000
checkpoint_every = 1000

[decode]
samples = 10
beam = 2

[profiles.smoke.train]
steps = 12
evaluate_every = 6
"""
EXACT = ["--set", "energy.kind=exact", "--set", "circuit.depth=1"]


@pytest.fixture(autouse=True)
def _in_single_precision() -> Iterator[None]:
    """What a user's command runs in."""
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with equal_programs_compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run made by `hypercircuit train tiny.toml --profile smoke`."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(False):
        patch.chdir(folder)
        assert main(["train", "tiny.toml", "--profile", "smoke"]) == 0
    return folder / "runs" / "tiny"


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused; returns what it says."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hypercircuit: ")
    assert captured.err.count("\n") == 1
    return captured.err


# ---------------------------------------------------------------- train


def test_default_folder_is_named_after_the_config(finished: Path):
    result = json.loads((finished / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["steps"] == 12


def test_second_call_says_that_the_run_is_finished(
    finished: Path, config: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["train", config, "--profile", "smoke", "--out", str(finished)]) == 0
    assert "holds a finished run; choose another --out" in capsys.readouterr().out


def test_other_settings_are_refused(
    finished: Path, config: str, capsys: pytest.CaptureFixture[str]
):
    said = failed(capsys, "train", config, "--set", "train.steps=13", "--out", str(finished))
    assert "train.steps (there 12, here 13)" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.step=5"], "did you mean 'steps'?"),
        (["--set", "optimizer.name=adam"], "did you mean 'optimiser'?"),
        (["--set", "loss.kind=softmux"], "did you mean 'softmax'?"),
        (["--set", "train.steps"], "an override is section.key=value"),
        (["--profile", "smok"], "unknown profile 'smok'"),
        (["--set", "optimiser.name=adamm"], "did you mean 'adam'?"),
        (["--set", "data.path=no-such.npz", "--set", "data.rows=[1, 2]"], "no-such.npz"),
    ],
)
def test_wrong_input_is_refused_and_no_folder_made(
    arguments: list[str],
    message: str,
    config: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    assert message in failed(capsys, "train", config, "--out", str(out), *arguments)
    assert not out.exists()


def test_missing_config_is_refused(capsys: pytest.CaptureFixture[str]):
    assert "'absent.toml' does not exist" in failed(capsys, "train", "absent.toml")


def test_damaged_data_is_reported(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "damaged.npz"
    path.write_bytes(b"PK\x03\x04 but no archive")
    said = failed(capsys, "train", config, "--set", f"data.path={path}")
    assert "damaged.npz must be an .npz archive" in said


def test_unwritable_folder_is_reported(config: str, tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["train", config, "--profile", "smoke", "--out", str(tmp_path / "file" / "out")]
    assert "file" in failed(capsys, *arguments)


def test_energy_that_is_not_finite_ends_with_one(config: str, tmp_path: Path, capsys):
    out = tmp_path / "out"
    settings = ["optimiser.learning_rate=3e38", "optimiser.schedule=constant", "train.steps=50"]
    arguments = [each for setting in settings for each in ("--set", setting)]
    assert main(["train", config, *EXACT, *arguments, "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "lower optimiser.learning_rate" in said
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "non-finite"
    assert result["message"] in said
    assert len((out / "history.csv").read_text().splitlines()) == 1 + result["steps"]


def test_embedded_job_needs_no_config(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    seen = {}

    def train_run(config, folder, *, report, mesh):
        seen.update(config=config, folder=folder)
        return {"status": "interrupted"}

    monkeypatch.setattr("hypercircuit.cli.train_run", train_run)
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == INTERRUPTED == 75
    assert seen["folder"] == Path("runs/mnist")
    assert (seen["config"].circuit.depth, seen["config"].data.classes) == (4, ())


def test_terminated_command_resumes_to_the_same_result(config: str, tmp_path: Path):
    """SIGTERM in a process of its own, then the same command, against an undisturbed run."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = ["train", config, *EXACT, "--set", "train.steps=500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercircuit.cli", *command, "--out", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    said, rest = process.communicate(timeout=120)
    assert first.startswith("step 1/500 energy"), first + rest
    assert process.returncode == INTERRUPTED, rest
    assert "stopped by SIGTERM after step" in said
    assert json.loads((out / "result.json").read_text())["status"] == "interrupted"
    assert len(list((out / "checkpoints").iterdir())) >= 1

    for folder in (out, whole):
        again = [sys.executable, "-m", "hypercircuit.cli", *command, "--out", str(folder)]
        subprocess.run(again, check=True, timeout=120)
    results = [json.loads((folder / "result.json").read_text()) for folder in (out, whole)]
    for result in results:
        for name in [name for name in result if name.endswith("seconds")]:
            del result[name]
    assert results[0] == results[1]
    assert results[0]["steps"] == 500
    for name in ("angles.npz", "best_network.npz"):
        with np.load(out / name) as found, np.load(whole / name) as expected:
            for key in expected:
                np.testing.assert_array_equal(found[key], expected[key])
    assert (out / "evaluations.csv").read_text() == (whole / "evaluations.csv").read_text()


@pytest.mark.slow
def test_double_precision_command(config: str, tmp_path: Path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "hypercircuit.cli"]
    train = [*command, "train", config, *EXACT, "--profile", "smoke", "--out", str(out)]
    subprocess.run([*train, "--set", "train.precision=float64"], check=True, timeout=300)
    subprocess.run([*command, "sample", str(out), "-n", "5"], check=True, timeout=300)
    with np.load(out / "angles.npz") as angles, np.load(out / "samples.npz") as samples:
        assert angles["angles"].dtype == samples["log_probability"].dtype == np.float64


# ---------------------------------------------------------------- evaluate and sample


def test_evaluate_prints_a_table(finished: Path, capsys: pytest.CaptureFixture[str]):
    result = json.loads((finished / "result.json").read_text())
    assert main(["evaluate", str(finished)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["examples", "loss", "accuracy"]
    for name, row in zip(("train", "validation", "test"), rows[1:], strict=True):
        loss, accuracy = result["best"][f"{name}_loss"], result[f"{name}_accuracy"]
        assert row == [name, f"{loss:.4f}", f"{100 * accuracy:.2f}", "%"]


def test_evaluate_on_a_file(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", x=images, y=np.arange(40) % 2)
    settings = [f"data.path={tmp_path / 'own.npz'}", "data.n_validation=0", "data.n_train=0"]
    overrides = [each for setting in settings for each in ("--set", setting)]
    assert main(["evaluate", str(finished), *overrides]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "train",
        "validation",
        "test",
    ]


def test_evaluate_refuses_other_settings(finished: Path, capsys: pytest.CaptureFixture[str]):
    said = failed(capsys, "evaluate", str(finished), "--set", "network.logit_scale=1")
    assert "only settings of the data section can change here" in said
    assert "did you mean 'path'?" in failed(
        capsys, "evaluate", str(finished), "--set", "data.pth=x"
    )


@pytest.mark.parametrize("command", [["evaluate", "."], ["sample", ".", "-n", "3"]])
def test_folder_without_a_run_is_refused(
    command: list[str], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert "config.toml is missing" in failed(capsys, *command)


def test_sample_writes_bits_and_their_probabilities(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["sample", str(finished), "-n", "50", "--seed", "3"]) == 0
    assert "50 networks of 10 bits, log-probabilities" in capsys.readouterr().out
    other = tmp_path / "other.npz"
    assert main(["sample", str(finished), "-n", "50", "--seed", "3", "--out", str(other)]) == 0
    with np.load(finished / "samples.npz") as file, np.load(other) as again:
        bits, found = file["bits"], file["log_probability"]
        assert (int(file["seed"]), str(file["fingerprint"])) == (3, run_fingerprint(finished))
        np.testing.assert_array_equal(bits, again["bits"])
    assert bits.shape == (50, 10)
    assert bits.dtype == np.uint8
    with np.load(finished / "angles.npz") as file:
        mps = exact_mps(Brickwork(2), jax.numpy.asarray(file["angles"]))
    np.testing.assert_allclose(found, log_probability(mps, jax.numpy.asarray(bits)), atol=1e-4)
    assert not list(tmp_path.glob("*.partial"))


def test_sample_refuses_what_cannot_be(finished: Path, tmp_path: Path, capsys):
    assert "n_samples must be at least 1, got 0" in failed(
        capsys, "sample", str(finished), "-n", "0"
    )
    out = str(tmp_path / "absent" / "samples.npz")
    assert "absent" in failed(capsys, "sample", str(finished), "-n", "1", "--out", out)


# ---------------------------------------------------------------- export


def test_export_writes_what_the_suffix_says(finished: Path, tmp_path: Path, capsys):
    qasm, npz = tmp_path / "circuit.qasm", tmp_path / "network.npz"
    assert main(["export", str(finished), str(qasm), str(npz), "--measure"]) == 0
    assert "the circuit of 10 qubits" in capsys.readouterr().out
    with np.load(finished / "angles.npz") as file:
        assert qasm.read_text() == to_qasm(
            Brickwork(2), jax.numpy.asarray(file["angles"]), measure=True
        )
    with np.load(npz) as file, np.load(finished / "best_network.npz") as best:
        assert file.files == best.files
        for name in best.files:
            np.testing.assert_array_equal(file[name], best[name])
        assert file["labels"].tolist() == [0, 1]
        notes = json.loads(str(file["preprocessing"]))
    assert (notes["rows"], notes["columns"], notes["n_inputs"]) == ([7, 14, 20], [7, 14, 21], 9)


def test_export_says_that_a_circuit_is_not_truncated(finished: Path, tmp_path: Path, capsys):
    run, qasm = tmp_path / "run", tmp_path / "circuit.qasm"
    shutil.copytree(finished, run)
    config = load_config(run / "config.toml", ["state.engine=truncated", "state.max_bond=1"])
    (run / "config.toml").write_text(config.to_toml())
    lines = [
        "this is the circuit without truncation: it prepares the exact state of the angles;",
        "the energy in result.json belongs to the state truncated to max_bond 1",
    ]
    result = json.loads((run / "result.json").read_text())
    for known, words in ((None, ""), (0.0625, ", discarded weight 0.062")):
        if known is not None:
            diagnostics = {"diagnostics": {"discarded_weight": known}}
            (run / "result.json").write_text(json.dumps(result | diagnostics))
        assert main(["export", str(run), str(qasm)]) == 0
        notes = "\n".join(lines) + words
        assert f"{notes}\n" in capsys.readouterr().out
        header, _, gates = qasm.read_text().partition('include "stdgates.inc";')
        assert header == "OPENQASM 3.0;\n// " + notes.replace("\n", "\n// ") + "\n"
    assert main(["export", str(finished), str(qasm)]) == 0
    assert qasm.read_text() == f'OPENQASM 3.0;\ninclude "stdgates.inc";{gates}'
    assert "truncat" not in capsys.readouterr().out


@pytest.mark.parametrize("settings", [[], ["state.engine=truncated", "state.max_bond=1"]])
def test_export_writes_the_state(settings: list[str], finished: Path, tmp_path: Path, capsys):
    run, file = tmp_path / "run", tmp_path / "state.h5"
    shutil.copytree(finished, run)
    config = load_config(run / "config.toml", settings)
    (run / "config.toml").write_text(config.to_toml())
    assert main(["export", str(run), str(file)]) == 0
    assert f"the state of 10 qubits, bond dimension {1 if settings else 2}: {file}" in (
        capsys.readouterr().out
    )
    tensors = load_mps(file)
    assert [tensor.shape[1] for tensor in tensors] == [2] * 10
    state = np.ones((1, 1))
    for tensor in tensors:
        state = np.tensordot(state, tensor, axes=1).reshape(-1, tensor.shape[2])
    assert np.linalg.norm(state) == pytest.approx(1, abs=1e-5)
    if not settings:
        with np.load(finished / "angles.npz") as arrays:
            expected = oracles.brickwork_statevector(arrays["angles"].astype(np.float64))
        np.testing.assert_allclose(state[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["circuit.ansatz=graph", "circuit.edges=ring", "energy.kind=contraction"],
            "circuit.ansatz='graph' is no chain of matrices; export the circuit as .qasm",
        ),
        (["noise.multiplier=1"], "with [noise] the state is mixed, no matrix product state"),
    ],
)
def test_export_refuses_states_that_are_no_chain(
    settings: list[str], message: str, finished: Path, tmp_path: Path, capsys
):
    run, file = tmp_path / "run", tmp_path / "state.h5"
    shutil.copytree(finished, run)
    config = load_config(run / "config.toml", settings)
    (run / "config.toml").write_text(config.to_toml())
    assert message in failed(capsys, "export", str(run), str(file))
    assert not file.exists()


def test_export_writes_a_sampled_network(finished: Path, tmp_path: Path, capsys):
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    samples, npz, model = (tmp_path / name for name in ("s.npz", "n.npz", "n.onnx"))
    assert main(["sample", str(finished), "-n", "5", "--out", str(samples)]) == 0
    chosen = ["--samples", str(samples), "--row", "3"]
    assert main(["export", str(finished), str(npz), str(model), *chosen]) == 0
    assert "network 3 of" in capsys.readouterr().out
    with np.load(samples) as drawn, np.load(npz) as network:
        np.testing.assert_array_equal(network["bits"], drawn["bits"][3])
    assert len(onnx.load(model).graph.input) == 1
    with np.load(samples) as drawn:
        arrays = dict(drawn) | {"fingerprint": np.array("other")}
    np.savez(samples, **arrays)
    assert "samples of another run" in failed(capsys, "export", str(finished), str(npz), *chosen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["network.pt"], "a file's suffix says what to write: .qasm, .h5, .npz or .onnx"),
        (["network.npz", "--measure"], "--measure is for circuits"),
        (["c.qasm", "--row", "0"], "--samples and --row choose a network"),
        (["network.npz", "--row", "0"], "--samples FILE.npz and --row N go together"),
        (["network.npz", "--samples", "absent.npz", "--row", "0"], "absent.npz does not exist"),
    ],
)
def test_export_refuses_what_it_would_ignore(
    arguments: list[str], message: str, finished: Path, capsys
):
    assert message in failed(capsys, "export", str(finished), *arguments)
