"""Noise in configurations and runs: training with errors, and finished runs under them."""

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from compilation import equal_programs_compiled_once
from hypercircuit.bnn import Dense, Network
from hypercircuit.circuit import Brickwork, Noise, Noisy
from hypercircuit.cli import main
from hypercircuit.config import Config, ConfigError, load_config
from hypercircuit.data import Dataset
from hypercircuit.decode import exact_energy
from hypercircuit.energy import too_few_trajectories
from hypercircuit.hamiltonian import Logistic, compile_loss
from hypercircuit.problem import build_problem
from hypercircuit.run import summary
from hypercircuit.run_noise import noise_run
from hypercircuit.run_report import report_run
from hypercircuit.study import every_accuracy, resilience

CONFIG = """
[data]
classes = [0, 1]
downsample = "pick"
rows = [7, 14]
columns = [7, 14]
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
steps = 4
evaluate_every = 4

[decode]
samples = 5

[restarts]
count = 2
depths = [2]
max_iterations = 5
batch = 2
"""


@pytest.fixture(autouse=True)
def _in_single_precision() -> Iterator[None]:
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with equal_programs_compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "tiny.toml"
    path.write_text(CONFIG)
    return path


def silent(message: str) -> None:
    pass


# ---------------------------------------------------------------- the study


def test_resilience_against_density_matrices():
    rng = np.random.default_rng(0)
    circuit = Brickwork(3)
    losses, accuracies = rng.random(16), rng.random(16)
    with jax.enable_x64(True):
        params = np.stack(
            [
                circuit.init(jax.random.key(each), 4, how="uniform", dtype=np.float64)
                for each in range(2)
            ]
        )
        noise = Noise(0.02, 0.05, 0.03)
        at = np.array([0.0, 2.0])
        found = resilience(circuit, params, noise, at, losses, accuracies, distance=0.1)
    pairs = [[], [(0, 1), (2, 3)], [(1, 2)]]
    for row, multiplier in enumerate(found.multipliers):
        for state, angles in enumerate(params):
            table = oracles.noisy_probabilities(
                angles, pairs, 0.02 * multiplier, 0.05 * multiplier, 0.03
            )
            assert abs(found.energies[row, state] - table @ losses) < 1e-12
            best = table[losses <= losses.min() + 0.1].sum()
            assert abs(found.best_probabilities[row, state] - best) < 1e-12
            assert abs(found.accuracies[row, state] - table @ accuracies) < 1e-12


def test_every_accuracy_is_that_of_the_oracle():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, 3)).astype(np.float32)
    y = np.array([1, 0, 0, 1, 0, 0, 0], np.int32)
    data = Dataset(x=x, y=y, n_classes=2, image_shape=None, step=None, name="points")
    network = Network((Dense(3, 1),))
    logits = oracles.linear_logits(oracles.bits_table(4), x, 1, -1.0, 1.0, 0.3)
    expected = ((logits[..., 0] > 0) == y).mean(1)
    np.testing.assert_allclose(every_accuracy(network, Logistic(), data), expected, atol=1e-12)


@pytest.mark.slow
def test_noise_of_restarts(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = str(tmp_path / "run")
    assert main(["restarts", str(config), "--out", run]) == 0
    capsys.readouterr()
    out = tmp_path / "noise"
    arguments = [
        "--multipliers",
        "2,0",
        "--readout",
        "0.01",
        "--trajectories",
        "40",
        "--out",
        str(out),
    ]
    assert main(["noise", run, *arguments]) == 0
    said = capsys.readouterr().out
    assert "results in" in said
    result = json.loads((out / "noise.json").read_text())
    assert [(row["depth"], row["multiplier"]) for row in result["rows"]] == [
        (1, 0.0),
        (1, 2.0),
        (2, 0.0),
        (2, 2.0),
    ]
    for calm, noisy in zip(result["rows"][::2], result["rows"][1::2], strict=True):
        assert result["minimum"] <= calm["energy"] < noisy["energy"]
        assert calm["energy_low"] <= calm["energy"] <= calm["energy_high"]
    for check in result["trajectories"]:
        assert (check["trajectories"], check["multiplier"]) == (40, 2.0)
        assert abs(check["energy"] - check["exact"]) < 4.5 * check["standard_error"]
    with open(out / "noise.csv") as file:
        assert [float(row["energy"]) for row in csv.DictReader(file)] == [
            row["energy"] for row in result["rows"]
        ]
    assert (out / "noise.png").stat().st_size > 10_000


@pytest.mark.slow
def test_run_trained_with_noise(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The stored energy is that of the noisy state, and samples are its samples."""
    run = tmp_path / "run"
    settings = [
        "--set",
        "circuit.depth=3",
        "--set",
        "noise.multiplier=20",
        "--set",
        "noise.readout=0.02",
    ]
    assert main(["train", str(config), "--out", str(run), *settings]) == 0
    said = capsys.readouterr().out
    assert "errors after one-qubit gates 0.02, after CX 0.075, readout 0.02" in said
    result = json.loads((run / "result.json").read_text())
    assert result["noise"] == {"one_qubit": 0.02, "two_qubit": 0.075, "readout": 0.02}
    assert summary(result)
    problem = build_problem(load_config(run / "config.toml"))
    with np.load(run / "angles.npz") as arrays:
        angles = arrays["angles"]
    hamiltonian = compile_loss(problem.network, problem.splits.train, problem.loss, tolerance=1e-6)
    pairs = [[], [(0, 1), (2, 3)], [(1, 2), (3, 4)]]
    table = oracles.noisy_probabilities(angles, pairs, 0.02, 0.075, 0.02)
    assert abs(result["energy"] - table @ hamiltonian.diagonal()) < 2e-6
    noisy = Noisy(Brickwork(3), Noise(0.02, 0.075, 0.02))
    energy = exact_energy(hamiltonian, noisy, jax.numpy.asarray(angles))
    assert abs(energy - result["energy"]) < 2e-5
    assert main(["sample", str(run), "-n", "3"]) == 0
    with np.load(run / "samples.npz") as arrays:
        codes = arrays["bits"] @ (2 ** np.arange(5)[::-1])
        np.testing.assert_allclose(np.exp(arrays["log_probability"]), table[codes], rtol=1e-3)
    assert main(["export", str(run), str(tmp_path / "c.qasm")]) == 0


# ---------------------------------------------------------------- without counting networks


def finished_run(folder: Path, config: Path, *settings: str) -> tuple[Config, np.ndarray]:
    """A folder as `hypercircuit train` leaves it, as far as noise reads it, and its angles."""
    chosen = load_config(config, settings)
    circuit = Brickwork(chosen.circuit.depth, chosen.circuit.rotations)
    angles = np.asarray(circuit.init(jax.random.key(3), 5, how="uniform"))
    folder.mkdir()
    (folder / "config.toml").write_text(chosen.to_toml())
    (folder / "result.json").write_text('{"status": "finished"}')
    np.savez(folder / "angles.npz", angles=angles)
    return chosen, angles


def oracle_energies(chosen: Config, angles: np.ndarray, rates: list[tuple]) -> np.ndarray:
    problem = build_problem(chosen)
    hamiltonian = compile_loss(problem.network, problem.splits.train, problem.loss, tolerance=1e-6)
    pairs = [[], [(0, 1), (2, 3)], [(1, 2), (3, 4)]]
    losses = hamiltonian.diagonal()
    return np.array([oracles.noisy_probabilities(angles, pairs, *each) @ losses for each in rates])


def test_many_qubits_have_the_exact_energy(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hypercircuit.run_noise.MAX_QUBITS", 4)
    chosen, angles = finished_run(tmp_path / "run", config, "circuit.depth=3")
    options = {"readout": 0.05, "trajectories": 200, "out": tmp_path / "noise"}
    result = noise_run(tmp_path / "run", [20.0, 0.0], **options, report=silent)
    (check,) = result["trajectories"]
    assert abs(check["energy"] - check["exact"]) < 4.5 * check["standard_error"]
    assert check["exact"] == result["rows"][1]["energy"]
    assert result["method"] == "exact in the doubled picture"
    expected = oracle_energies(chosen, angles, [(0.0, 0.0, 0.05), (0.02, 0.075, 0.05)])
    found = np.array([row["energy"] for row in result["rows"]])
    assert [row["multiplier"] for row in result["rows"]] == [0, 20]
    np.testing.assert_allclose(found, expected, atol=3e-6)
    assert "best_probability" not in result["rows"][0]
    assert result["rows"][0]["energy_standard_error"] is None
    assert (tmp_path / "noise" / "noise.png").stat().st_size > 5_000
    page = report_run(tmp_path / "noise", report=silent).read_text()
    assert "exact in the doubled picture" in page


def test_truncated_runs_have_trajectories(config: Path, tmp_path: Path):
    """At a bond that nothing is truncated to, the mean is the exact energy within its error."""
    settings = (
        "circuit.depth=3",
        "state.engine=truncated",
        "state.max_bond=4",
        "energy.kind=exact",
    )
    chosen, angles = finished_run(tmp_path / "run", config, *settings)
    result = noise_run(tmp_path / "run", [0.0, 20.0], trajectories=250, report=silent)
    assert result["method"] == "means over trajectories"
    expected = oracle_energies(chosen, angles, [(0.0, 0.0, 0.0), (0.02, 0.075, 0.0)])
    calm, noisy = result["rows"]
    assert calm["energy_standard_error"] < 1e-6
    assert abs(calm["energy"] - expected[0]) < 3e-6
    assert 0 < noisy["energy_standard_error"] < 0.1
    assert abs(noisy["energy"] - expected[1]) < 4 * noisy["energy_standard_error"]
    assert result["warnings"] == []
    said: list[str] = []
    result = noise_run(
        tmp_path / "run",
        [1.0],
        trajectories=2,
        examples=7,
        out=tmp_path / "few",
        report=said.append,
    )
    assert result["n_examples"] == 7
    assert "about 0 of 2 trajectories have an error" in result["warnings"][0]
    assert any(line.startswith("warning: depth 3, p = 1: about 0 of 2") for line in said)


def test_rare_errors_need_many_trajectories():
    """5 qubits of depth 3: 30 rotations and four CX."""
    noisy = Noisy(Brickwork(3), Noise(0.01, 0.02, 0.03))
    share = 1 - 0.99**30 * 0.98**4 * 0.97**5
    needed = math.ceil(100 / share)
    assert too_few_trajectories(noisy, 5, needed) == ""
    assert f"take at least {needed} trajectories" in too_few_trajectories(noisy, 5, 50)
    assert too_few_trajectories(Noisy(Brickwork(3), Noise()), 5, 2) == ""


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (
            ["circuit.ansatz=free-mps", "energy.kind=exact"],
            {},
            "got a run with circuit.ansatz='free-mps'; train one with circuit.ansatz='brickwork'",
        ),
        ([], {"examples": 5}, "examples=5 is for more than 20 qubits and for truncated states"),
        ([], {"examples": -1}, "examples must be at least 0, got -1; 0 is all of them"),
        ([], {"trajectories": 1}, "trajectories must be 0 or at least 2, got 1; usual is 400"),
        (
            ["network.hidden=[2,2]", "state.engine=truncated", "energy.kind=sampled"],
            {},
            "lower state.max_bond, or train with state.engine='exact' and circuit.depth=8",
        ),
    ],
)
def test_runs_without_energies_under_noise_are_refused(
    settings: list[str], options: dict, message: str, config: Path, tmp_path: Path
):
    finished_run(tmp_path / "run", config, *settings)
    with pytest.raises(ConfigError, match=re.escape(message)):
        noise_run(tmp_path / "run", [1.0], report=silent, **options)


@pytest.mark.parametrize(
    ("noise", "more", "message"),
    [
        ({"multiplier": -1.0}, {}, "noise.multiplier must be at least 0"),
        ({"readout": 0.7}, {}, "noise.readout must be at most 0.5"),
        ({"multiplier": 300.0}, {}, "makes a probability of 1.125"),
        (
            {"multiplier": 1.0},
            {"circuit": {"ansatz": "graph"}, "energy": {"kind": "contraction"}},
            "noise.multiplier and noise.readout must be 0 with contractions",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(noise: dict, more: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict({"noise": noise, **more})


def test_deep_noisy_circuits_are_refused_before_a_run(config: Path, tmp_path: Path, capsys):
    settings = ["--set", "noise.multiplier=1", "--set", "circuit.depth=14"]
    assert main(["train", str(config), "--out", str(tmp_path / "run"), *settings]) == 2
    assert "has a doubled bond of 15625" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_restarts_with_noise_are_refused(config: Path, tmp_path: Path, capsys):
    arguments = ["--out", str(tmp_path / "run"), "--set", "noise.multiplier=1"]
    assert main(["restarts", str(config), *arguments]) == 2
    assert "evaluate the finished restarts with `hypercircuit noise`" in capsys.readouterr().err


@pytest.mark.parametrize("multipliers", [[], [-1.0], [1.0, 1.0]])
def test_wrong_multipliers_are_refused(multipliers: list[float], tmp_path: Path):
    with pytest.raises(ConfigError, match="multipliers must be different numbers of at least 0"):
        noise_run(tmp_path, multipliers, report=silent)


def test_noise_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["noise", str(tmp_path)]) == 2
    assert "config.toml is missing" in capsys.readouterr().err
