"""The study of restarts as a command: folders, resuming, refusals."""

import json
import os
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
from hypercircuit.cli import INTERRUPTED, main

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "02_mnist_0_vs_1" / "config.toml"
CONFIG = """
[data]
classes = [0, 1]
downsample = "pick"
rows = [7, 14]
columns = [7, 14, 21]
n_train = 60

[network]
outputs = 1

[loss]
kind = "logistic"
tolerance = 1e-6

[circuit]
init = "uniform"

[energy]
kind = "statevector"

[train]
batch_size = 0
steps = 5
evaluate_every = 5

[decode]
samples = 5

[restarts]
count = 5
depths = [3]
max_iterations = 30
batch = 3
"""


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
    (folder / "tiny.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def finished(work: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(False):
        patch.chdir(work)
        assert main(["restarts", "tiny.toml"]) == 0
    return work / "runs" / "tiny-restarts"


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("hypercircuit: ")
    return said


def test_result_and_arrays_agree(finished: Path):
    result = json.loads((finished / "result.json").read_text())
    assert (result["command"], result["status"]) == ("restarts", "finished")
    assert (result["n_qubits"], result["n_examples"]) == (7, 60)
    # The product state is added to the depths that were asked for.
    assert [row["depth"] for row in result["rows"]] == [1, 3]
    with np.load(finished / "restarts.npz") as arrays:
        energies, minimum = arrays["energies"], float(arrays["minimum"])
        assert arrays["depths"].tolist() == [1, 3]
        assert energies.shape == arrays["status"].shape == (2, 5)
        assert arrays["best_bits"].shape == (7,)
        assert arrays["pauli_weights"].sum() == pytest.approx(1)
    assert minimum == result["minimum"]
    for row, values in zip(result["rows"], energies, strict=True):
        assert row["successes"] == np.sum(values - minimum <= 1e-4)
        assert row["low"] <= row["probability"] <= row["high"]
        assert row["median_energy"] == pytest.approx(np.median(values))
        assert sum(row["status"].values()) == row["n"] == 5
        assert row["seconds"] > 0
    for name in ("config.toml", "success.png", "losses.png", "spectrum.png"):
        assert (finished / name).exists()


def test_chosen_options_are_counted(work: Path, tmp_path: Path):
    choices = 'network.choices=[{set="encoding", options=[[0, 1], [-1, 1], [-3, 1]]}]'
    out = tmp_path / "out"
    arguments = ["restarts", str(work / "tiny.toml"), "--set", choices, "--out", str(out)]
    assert main(arguments) == 0
    for row in json.loads((out / "result.json").read_text())["rows"]:
        with np.load(out / f"depth{row['depth']}" / "restarts.npz") as file:
            states = [oracles.brickwork_statevector(angles) for angles in file["params"]]
        # The choice's two qubits are the first ones; code 3 is option 0 again.
        codes = [oracles.born_probabilities(state).reshape(4, -1).sum(1) for state in states]
        options = np.array([[code[0] + code[3], code[1], code[2]] for code in codes])
        found = row["architecture"]["encoding"]
        counts = np.bincount(options.argmax(1), minlength=3)
        assert found["chosen"] == dict(zip(("{0, 1}", "{-1, 1}", "{-3, 1}"), counts, strict=True))
        assert found["least_probability"] == pytest.approx(options.max(1).min(), abs=1e-5)


def test_finished_study_says_so(finished: Path, work: Path, capsys):
    assert main(["restarts", str(work / "tiny.toml"), "--out", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "holds finished restarts; choose another --out" in said
    assert "95 % interval" in said


def test_other_settings_and_other_commands_are_refused(finished: Path, work: Path, capsys):
    config = str(work / "tiny.toml")
    said = failed(capsys, "restarts", config, "--set", "restarts.count=6", "--out", str(finished))
    assert "restarts.count (there 5, here 6)" in said
    out = str(work / "trained")
    assert main(["train", config, "--out", out]) == 0
    capsys.readouterr()
    assert "belongs to a training run" in failed(capsys, "restarts", config, "--out", out)
    assert "belongs to restarts" in failed(capsys, "train", config, "--out", str(finished))


def test_too_many_qubits_are_refused(work: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    config = str(work / "tiny.toml")
    arguments = [
        "--set",
        "data.rows=[3, 7, 14, 21]",
        "--set",
        "data.columns=[3, 7, 10, 14, 17, 21]",
    ]
    for command in ("restarts", "train"):
        said = failed(capsys, command, config, *arguments, "--out", str(out))
        assert "at most 24 qubits, got 25" in said
    assert not out.exists()


def test_rough_loss_is_refused(work: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    said = failed(
        capsys,
        "restarts",
        str(work / "tiny.toml"),
        *("--set", "restarts.success_distance=1e-7", "--set", "loss.tolerance=1e-4"),
        *("--out", str(out)),
    )
    assert "must be at most a tenth of restarts.success_distance=1e-07; set loss.tolerance=" in said
    assert not out.exists()


def test_minibatches_are_refused(work: Path, capsys):
    said = failed(capsys, "train", str(work / "tiny.toml"), "--set", "train.batch_size=10")
    assert "set train.batch_size=0, or energy.kind='exact'" in said


def test_terminated_study_goes_on(work: Path, tmp_path: Path):
    """SIGTERM in a process of its own while restarts run, then the same command."""
    out = tmp_path / "out"
    command = ["restarts", str(work / "tiny.toml"), "--set", "restarts.max_iterations=400"]
    command += ["--set", "restarts.count=40", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercircuit.cli", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    said, rest = process.communicate(timeout=240)
    assert first.startswith("step "), first + rest
    assert process.returncode == INTERRUPTED, rest
    assert "stopped by SIGTERM after" in said
    assert json.loads((out / "result.json").read_text())["status"] == "interrupted"
    with np.load(out / "depth1" / "restarts.npz") as stored:
        kept = stored["energies"]
    assert main(command) == 0
    with np.load(out / "restarts.npz") as arrays:
        energies = arrays["energies"][0]
    assert np.isfinite(energies).all()
    np.testing.assert_array_equal(energies[np.isfinite(kept)], kept[np.isfinite(kept)])


def test_committed_results_are_those_of_the_configuration():
    for file in EXPERIMENT.parent.glob("result*.json"):
        result = json.loads(file.read_text())
        assert (result["n_qubits"], result["n_examples"]) == (17, 12_665)
        assert all(row["n"] >= 100 for row in result["rows"])
