"""Runs: what a configuration builds, and what its folder holds."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from hypercircuit.circuit import Brickwork, Truncated
from hypercircuit.cli import main
from hypercircuit.config import Config, ConfigError, load_config
from hypercircuit.methods import warn_of_start
from hypercircuit.problem import build_problem, load_splits
from hypercircuit.run import evaluate_run, sample_run, train_run
from hypercircuit.run_diagnose import diagnostics_of
from hypercircuit.train import History

TINY = {
    "data": {
        "classes": [0, 1],
        "downsample": "pick",
        "rows": [7, 14, 20],
        "columns": [7, 14, 21],
        "n_train": 500,
    },
    "network": {"outputs": 1},
    "loss": {"kind": "logistic"},
    "circuit": {"depth": 2},
    "energy": {"check_examples": 20},
    "optimiser": {"learning_rate": 0.2},
    "train": {"steps": 20, "evaluate_every": 10, "checkpoint_every": 10},
    "decode": {"samples": 20, "beam": 4},
}
FILES = {
    "angles.npz",
    "best_network.npz",
    "checkpoints",
    "config.toml",
    "evaluations.csv",
    "final_energy.json",
    "history.csv",
    "result.json",
    "run.lock",
    "training.png",
    "weights.png",
}
REQUIRED = {
    "status",
    "n_qubits",
    "depth",
    "max_bond",
    "n_parameters",
    "steps",
    "seconds",
    "compile_seconds",
    "energy",
    "spectral_error",
    "best_loss",
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
    "seed",
    "versions",
}


def changed(**sections: dict) -> Config:
    return Config.from_dict(
        TINY | {name: TINY.get(name, {}) | new for name, new in sections.items()}
    )


def data_config(**values: object) -> Config:
    """The whole MNIST with its images changed, for a squared error that any size fits."""
    return Config.from_dict({"data": values, "train": {"batch_size": 1}})


@pytest.mark.parametrize(
    ("scale", "max_bond", "words"),
    [
        (0.0, 2, "warning: circuit.init_scale=0 starts at a product state, where the gradient of"),
        (0.0, 4, ""),
        (0.1, 2, ""),
    ],
)
def test_start_without_the_exact_gradient_is_warned_of(scale: float, max_bond: int, words: str):
    """Bond 2 truncates from layer 4 on, bond 4 not before layer 6."""
    config = changed(circuit={"depth": 5, "init_scale": scale}, state={"engine": "truncated"})
    said: list[str] = []
    warn_of_start(config, Truncated(Brickwork(5), max_bond), 10, said.append)
    assert len(said) == bool(words)
    if words:
        assert said[0].startswith(words)
        assert "truncating layers 4 to 5 may miss" in said[0]
        assert said[0].endswith("above 0, such as 0.1, or state.engine='exact'")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    """A finished run of 10 qubits, its result and what it reported."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "tiny"
    said: list[str] = []
    with jax.enable_x64(False):
        result = train_run(Config.from_dict(TINY), folder, report=said.append)
    return folder, result, said


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


# ---------------------------------------------------------------- a run and its folder


def test_folder_holds_the_documented_files(tiny: tuple):
    folder, _, _ = tiny
    assert {path.name for path in folder.iterdir()} == FILES
    assert load_config(folder / "config.toml") == Config.from_dict(TINY)
    history = History.load(folder)
    assert len(history) == 20
    np.testing.assert_array_equal(history.evaluations["step"], [10, 20])
    assert history.energy[-5:].mean() < history.energy[:5].mean() - 0.05
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    assert sorted(names) == ["checkpoint-00000010.npz", "checkpoint-00000020.npz"]


def test_result_is_complete_and_stored(tiny: tuple):
    folder, result, _ = tiny
    assert result.keys() >= REQUIRED
    assert json.loads((folder / "result.json").read_text()) == result
    expected = {
        "status": "finished",
        "n_qubits": 10,
        "depth": 2,
        "max_bond": 2,
        "n_parameters": 40,
        "steps": 20,
        "seed": 0,
        "energy_examples": 500,
        "train_examples": 500,
    }
    assert {name: result[name] for name in expected} == expected
    assert 0 < result["compile_seconds"] < result["seconds"] < result["total_seconds"]
    assert 0 < result["spectral_error"] <= 1e-3
    assert result["versions"].keys() >= {"hypercircuit", "jax", "numpy", "python", "device"}
    assert abs(result["check_error"]) <= result["check_error_max"] < 0.1


@pytest.mark.slow
def test_every_neuron_chooses_its_encoding(tmp_path: Path):
    chosen = {"set": "encoding", "scope": "neuron", "options": [[-1, 1], [-3, 1], [0, 1]]}
    config = changed(
        data={"n_train": 40},
        network={"hidden": [2], "choices": [{"set": "gate"}, chosen]},
        circuit={"depth": 1},
        train={"steps": 2, "batch_size": 20, "evaluate_every": 2, "checkpoint_every": 2},
    )
    said: list[str] = []
    with jax.enable_x64(False):
        result = train_run(config, tmp_path / "run", report=said.append)
    assert result["n_qubits"] == 2 * (10 + 1 + 2 + 1) + 1
    own = result["architecture_by_neuron"]["encoding"]
    assert list(own) == ["{-1, 1}", "{-3, 1}", "{0, 1}"]
    np.testing.assert_allclose(np.sum(list(own.values()), axis=0), [1, 1], atol=1e-5)
    means = result["architecture"]["encoding"]
    assert means == pytest.approx({name: np.mean(each) for name, each in own.items()})
    assert any(line.startswith("the search chose encoding of 2 neurons: ") for line in said)
    width, height = png_size(tmp_path / "run" / "architecture.png")
    assert width > height > 100
    with np.load(tmp_path / "run" / "best_network.npz") as file:
        pairs = [
            set(np.append(*row)) for row in zip(file["weights_0"], file["biases_0"], strict=True)
        ]
    assert all(any(pair <= {low, high} for low, high in chosen["options"]) for pair in pairs)


def test_result_is_that_of_the_stored_angles_and_network(tiny: tuple):
    folder, result, _ = tiny
    splits = load_splits(Config.from_dict(TINY))
    with np.load(folder / "angles.npz") as file:
        state = oracles.brickwork_statevector(file["angles"])
    bits = oracles.bits_table(10)
    losses = oracles.binary_logistic(
        oracles.linear_logits(bits, splits.train.x, 1, -1, 1, 0.3), splits.train.y
    )
    assert abs(oracles.energy(state, losses) - result["energy"]) < result["spectral_error"] + 1e-5
    with np.load(folder / "best_network.npz") as file:
        index = int("".join(map(str, file["bits"])), 2)
    assert result["best_loss"] == pytest.approx(losses[index], abs=1e-5)
    assert result["best_loss"] < result["energy"] < losses.mean()
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        logits = oracles.linear_logits(bits[index : index + 1], part.x, 1, -1, 1, 0.3)
        accuracy = ((logits[0, :, 0] > 0) == part.y).mean()
        # Single precision may decide a logit of zero otherwise.
        assert abs(result[f"{name}_accuracy"] - accuracy) < 1.5 / len(part)


def test_figures_show_something(tiny: tuple):
    folder, _, _ = tiny
    for name, least in (("training.png", (1000, 400)), ("weights.png", (500, 350))):
        width, height = png_size(folder / name)
        assert width >= least[0]
        assert height >= least[1]
        assert (folder / name).stat().st_size > 8000


def test_report_states_data_certificate_and_circuit(tiny: tuple):
    folder, _, said = tiny
    text = "\n".join(said)
    for pattern in (
        r"mnist-train: 500 training, \d+ validation and 2115 test examples",
        r"logistic loss of 500 examples on 10 qubits: .* spectral error at most",
        r"brickwork of depth 2 on 10 qubits: exact bond 2, 40 parameters; energy cumulant-2, 20",
        r"energy \d\.\d+ \(exact, 500 examples, spectral error at most",
        rf"results in {re.escape(str(folder))}",
    ):
        assert re.search(pattern, text), pattern


def test_finished_run_is_not_repeated(tiny: tuple):
    folder, result, _ = tiny
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    said: list[str] = []
    assert train_run(Config.from_dict(TINY), folder, report=said.append) == result
    assert said == [f"{folder} holds a finished run; choose another --out to train again"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_settings_in_the_same_folder_are_refused(tiny: tuple):
    config = changed(train={"steps": 21}, circuit={"depth": 3})
    message = (
        r"belongs to a run with other settings: circuit.depth \(there 2, here 3\), "
        r"train.steps \(there 20, here 21\); choose another --out"
    )
    with pytest.raises(ConfigError, match=message):
        train_run(config, tiny[0])


def test_double_precision_is_refused_before_the_data_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr("hypercircuit.run.build_problem")
    with jax.enable_x64(False), pytest.raises(ValueError, match="float64 needs"):
        train_run(changed(train={"precision": "float64"}), tmp_path / "run", report=[].append)


def test_wrong_run_does_not_take_the_folder(tmp_path: Path):
    folder = tmp_path / "run"
    for config in (
        changed(data={"n_train": 50_000}),
        changed(optimiser={"name": "no-such-optimiser"}),
    ):
        with pytest.raises(ValueError, match=r"n_train must be at most the|name must be an optax"):
            train_run(config, folder, report=[].append)
        assert not folder.exists()


def test_training_examples_that_stand_in_are_not_called_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    values = {"n_train": 60, "validation": "none"}
    config = changed(
        data=values,
        train={"batch_size": 20, "steps": 4, "evaluate_every": 2},
        decode={"samples": 3},
    )
    said: list[str] = []
    with jax.enable_x64(False):
        result = train_run(config, tmp_path, report=said.append)
    text = "\n".join(said)
    assert result["validation_accuracy"] is None
    for name in ("best", "most_likely", "sample_mean", "vote"):
        assert result[name]["validation_loss"] is result[name]["validation_accuracy"] is None
        assert 0 < result[name]["train_accuracy"] <= 1
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert "60 training, no validation (the training examples stand in) and" in text
    assert re.search(r"best of 5 networks: \d+\.\d\d % on the training examples", text)
    assert re.search(r"accuracy \d+\.\d\d % train, \d+\.\d\d % test\n", text)
    evaluations = History.load(tmp_path).evaluations
    assert evaluations.keys() >= {"train_loss", "train_accuracy"}
    assert not [name for name in evaluations if name.startswith("validation")]
    assert re.search(r"best train \d+\.\d\d%", capsys.readouterr().err)
    assert evaluate_run(tmp_path).keys() == {
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
    }
    assert main(["evaluate", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["examples", "train", "test"]


# ---------------------------------------------------------------- evaluate and sample


def test_evaluation_repeats_the_scores_of_the_run(tiny: tuple):
    folder, result, _ = tiny
    scores = evaluate_run(folder)
    for name in ("train", "validation", "test"):
        assert scores[f"{name}_accuracy"] == result[f"{name}_accuracy"]
        assert scores[f"{name}_loss"] == pytest.approx(result["best"][f"{name}_loss"], abs=1e-5)


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the size of MNIST: class 0 dark in the middle, class 1 bright."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (140, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 2, 140)
    images[labels == 0, 10:18, 10:18] = 0
    path = tmp_path_factory.mktemp("data") / "own.npz"
    np.savez(path, x=images, y=labels)
    return path


def test_evaluation_on_other_data(tiny: tuple, own_data: Path):
    folder, _, _ = tiny
    overrides = [f"data.path={own_data}", "data.n_validation=20", "data.n_train=0"]
    scores = evaluate_run(folder, overrides)
    splits = load_splits(load_config(folder / "config.toml", overrides))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (100, 20, 20)
    with np.load(folder / "best_network.npz") as file:
        z = file["logit_scale"] * (splits.test.x @ file["weights_0"].T + file["biases_0"])[:, 0]
    assert scores["test_accuracy"] == ((z > 0) == splits.test.y).mean()
    losses = np.logaddexp(0, np.where(splits.test.y == 1, -z, z))
    assert scores["test_loss"] == pytest.approx(losses.mean(), abs=1e-5)


def test_evaluation_refuses_what_does_not_fit(tiny: tuple, tmp_path: Path):
    with pytest.raises(ConfigError, match="only settings of the data section can change here, got"):
        evaluate_run(tiny[0], ["network.bias=false"])
    with pytest.raises(ConfigError, match="has 10 bits, the data needs 7; evaluate it on examples"):
        evaluate_run(tiny[0], ["data.rows=[3, 9]"])
    with pytest.raises(ConfigError, match=r"config.toml is missing: .* is not the folder of a"):
        evaluate_run(tmp_path)


def test_samples_are_seeded_and_their_probabilities_those_of_the_state(tiny: tuple):
    folder = tiny[0]
    bits, log_probabilities = sample_run(folder, 300, seed=1)
    assert bits.shape == (300, 10)
    with np.load(folder / "angles.npz") as file:
        assert file["angles"].dtype == np.float32
        state = oracles.brickwork_statevector(file["angles"])
    indices = bits @ 2 ** np.arange(9, -1, -1)
    expected = np.log(oracles.born_probabilities(state)[indices])
    np.testing.assert_allclose(log_probabilities, expected, rtol=0, atol=1e-4)
    again, _ = sample_run(folder, 300, seed=1)
    np.testing.assert_array_equal(bits, again)
    assert (sample_run(folder, 300, seed=2)[0] != bits).any()


def test_unfinished_run_has_nothing_to_sample(tmp_path: Path):
    (tmp_path / "config.toml").write_text(Config().to_toml())
    with pytest.raises(ConfigError, match=r"angles.npz is missing: .* that ended"):
        sample_run(tmp_path, 1)


def test_evaluation_of_a_run_on_points_needs_the_path_alone(tmp_path: Path):
    """The stored `data.source` is that of the run, not of the examples in the file."""
    values = {
        "data": {"source": "gaussians", "n_points": 40},
        "network": {"outputs": 1, "logit_scale": 1},
        "loss": {"kind": "logistic"},
        "circuit": {"depth": 1},
        "train": {"steps": 2, "batch_size": 10, "evaluate_every": 2, "checkpoint_every": 2},
        "decode": {"samples": 2, "beam": 2},
    }
    with jax.enable_x64(False):
        train_run(Config.from_dict(values), tmp_path / "run", report=[].append)
    x = np.random.default_rng(3).normal(size=(60, 2)).astype(np.float32)
    y = (x[:, 0] > 0.3).astype(int)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    override = f"data.path={tmp_path / 'own.npz'}"
    scores = evaluate_run(tmp_path / "run", [override])
    test = load_splits(load_config(None, [override])).test
    with np.load(tmp_path / "run" / "best_network.npz") as file:
        z = (test.x @ file["weights_0"].T + file["biases_0"])[:, 0]
    assert scores["test_accuracy"] == ((z > 0) == test.y).mean()


# ---------------------------------------------------------------- data


def test_classes_come_before_the_number_of_training_examples():
    splits = load_splits(Config.from_dict(TINY))
    assert len(splits.train) == 500
    assert set(splits.train.y) == {0, 1}


@pytest.mark.parametrize(
    ("settings", "n_inputs", "step", "levels"),
    [
        ({}, 784, 1 / 255, None),
        ({"pixels": "binarise", "threshold": 90}, 784, 1.0, {0, 1}),
        ({"pixels": "quantise", "levels": 5}, 784, 0.25, {0, 0.25, 0.5, 0.75, 1}),
        ({"downsample": "mean", "size": [7, 14]}, 98, 1 / 255 / 8, None),
        ({"downsample": "mean", "size": [5, 5], "pixels": "binarise"}, 25, 1.0, {0, 1}),
        ({"downsample": "mean", "size": [4, 4], "pixels": "quantise", "levels": 3}, 16, 0.5, None),
        ({"downsample": "pick", "rows": [3, 10], "columns": [5, 9, 20]}, 6, 1 / 255, None),
    ],
)
def test_pixels_are_transformed(settings: dict, n_inputs: int, step: float, levels: set | None):
    splits = load_splits(data_config(n_train=300, n_validation=59_000, **settings))
    for part in (splits.train, splits.validation, splits.test):
        assert part.n_inputs == n_inputs
        assert part.step == pytest.approx(step)
        assert part.x.min() == 0
        assert part.x.max() <= 1
    if levels is not None:
        assert set(np.unique(splits.train.x).tolist()) == levels


def test_no_validation_size_is_a_twelfth(own_data: Path):
    assert len(load_splits(data_config(n_validation=0)).validation) == 5000
    own = load_splits(data_config(n_validation=0, path=str(own_data)))
    assert (len(own.train), len(own.validation), len(own.test)) == (110, 10, 20)


def test_hidden_layers_have_their_own_activations(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.savez(tmp_path / "real.npz", x=x, y=np.arange(30) % 3)
    values = {
        "data": {"path": str(tmp_path / "real.npz"), "n_validation": 5},
        "network": {"hidden": [3, 2], "activation": ["relu", "sign"]},
        "energy": {"kind": "sampled"},
    }
    network = build_problem(Config.from_dict(values)).network
    assert network.activations == ("relu", "sign")
    bits = np.random.default_rng(1).integers(0, 2, (6, network.n_qubits))
    first, second, last = (1.0 - 2.0 * (bits[:, sites] == 0) for sites in network.register.weights)
    ones = np.ones((6, len(x), 1))
    inputs = np.broadcast_to(x, (6, *x.shape))
    z = np.concatenate([inputs, ones], axis=2) @ first.swapaxes(1, 2)
    z = np.concatenate([np.maximum(z, 0), ones], axis=2) @ second.swapaxes(1, 2)
    z = np.concatenate([np.where(z >= 0, 1, -1), ones], axis=2) @ last.swapaxes(1, 2)
    np.testing.assert_allclose(network.logits(bits, x), 0.3 * z, atol=1e-5)


def test_real_inputs_are_taken_as_they_are(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.savez(tmp_path / "real.npz", x=x, y=np.arange(30) % 3)
    problem = build_problem(data_config(path=str(tmp_path / "real.npz"), n_validation=5))
    np.testing.assert_array_equal(problem.splits.test.x, x[26:])
    assert problem.network.n_qubits == 15


def test_parts_that_do_not_fit_are_refused(own_data: Path):
    values = {
        "data": {"path": str(own_data), "n_validation": 5},
        "network": {"outputs": 3},
    }
    message = "network.outputs, loss.kind and data.classes do not fit: the softmax loss needs"
    with pytest.raises(ConfigError, match=message):
        build_problem(Config.from_dict(values))


# ---------------------------------------------------------------- the shape of the main job


def all_pixels(depth: int, n_train: int) -> Config:
    return Config.from_dict(
        {
            "data": {"n_train": n_train},
            "circuit": {"depth": depth},
            "energy": {"check_examples": 5},
            "train": {"steps": 4, "batch_size": 20, "evaluate_every": 2, "checkpoint_every": 2},
            "decode": {"samples": 8, "beam": 2, "final_examples": 20},
        }
    )


@pytest.mark.parametrize("depth", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_softmax_of_all_pixels_and_classes(depth: int, tmp_path: Path):
    with jax.enable_x64(False):
        result = train_run(all_pixels(depth, 100), tmp_path, report=[].append)
    assert result["status"] == "finished"
    assert result["n_qubits"] == 7850
    assert result["max_bond"] == 2 ** (depth // 2)
    assert (result["energy_examples"], result["train_examples"]) == (20, 100)
    assert 0.5 < result["energy"] < 5
    assert abs(result["check_error"]) <= result["check_error_max"] < 0.05
    assert result["spectral_error"] <= 1e-3
    with np.load(tmp_path / "best_network.npz") as file:
        assert file["weights_0"].shape == (10, 784)
        assert set(np.unique(file["biases_0"])) <= {-1, 1}
    width, height = png_size(tmp_path / "weights.png")
    assert width > 1400
    assert height > 350
    assert (tmp_path / "weights.png").stat().st_size > 50_000


# ---------------------------------------------------------------- states of bounded bond

BOUNDED = {
    "truncated": {"circuit": {"depth": 6}, "state": {"engine": "truncated", "max_bond": 3}},
    "free": {
        "circuit": {"ansatz": "free-mps", "depth": 4},
        "state": {"max_bond": 3, "diagnostics": True},
        "energy": {"kind": "sampled", "check_examples": 20},
    },
}


@pytest.mark.parametrize("name", ["truncated", pytest.param("free", marks=pytest.mark.slow)])
def test_states_of_bounded_bond_train_resume_and_decode(name: str, tmp_path: Path):
    config = changed(**BOUNDED[name])
    whole = train_run(config, tmp_path / "whole", report=lambda _: None)
    assert whole["status"] == "finished"
    history = History.load(tmp_path / "whole")
    assert np.mean(history.energy[-5:]) < np.mean(history.energy[:5])
    assert whole["train_accuracy"] > 0.8
    assert "bond 3" in whole["energy_state"]
    bits, logs = sample_run(tmp_path / "whole", 5)
    assert bits.shape == (5, 10)
    assert (logs < 0).all()
    # The checkpoint of a run that ended halfway is gone on from, bit for bit.
    half = tmp_path / "half"
    half.mkdir()
    (half / "checkpoints").mkdir()
    kept = tmp_path / "whole" / "checkpoints" / "checkpoint-00000010.npz"
    (half / "checkpoints" / kept.name).write_bytes(kept.read_bytes())
    resumed = train_run(config, half, report=lambda _: None)
    assert resumed["energy"] == whole["energy"]
    assert resumed["best"] == whole["best"]


@pytest.mark.slow
def test_hidden_layers_train_in_states_of_bounded_bond(tmp_path: Path):
    config = changed(
        network={"outputs": 1, "hidden": [2]},
        circuit={"depth": 4},
        state={"engine": "truncated", "max_bond": 2},
        energy={"check_examples": 7},
        train={"steps": 2, "evaluate_every": 2, "checkpoint_every": 2},
    )
    result = train_run(config, tmp_path, report=lambda _: None)
    assert result["energy_kind"] == "cumulant-2"
    # Compared with the exact energy, of which nothing is sampled.
    assert result["energy_standard_error"] is None
    assert 0 < abs(result["check_error"]) < 0.05


def test_diagnostics_are_files_of_the_run(tmp_path: Path):
    config = changed(
        circuit={"depth": 5},
        state={"engine": "truncated", "max_bond": 2},
        train={"steps": 2, "evaluate_every": 2, "checkpoint_every": 2},
    )
    result = train_run(config, tmp_path, report=lambda _: None)
    weights = {"discarded_weight", "max_discarded_weight"}
    assert set(result["diagnostics"]) == {*weights, "discarded_weight_is"}
    assert result["diagnostics"]["discarded_weight_is"] == "exact"
    assert main(["diagnose", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "diagnostics.json").read_text())
    for name in weights:
        assert 0 < result["diagnostics"][name] == pytest.approx(numbers[name], rel=1e-5)
    assert numbers["energy_error_examples"] == result["energy_examples"]
    known = diagnostics_of(tmp_path, result)
    assert known == {**result["diagnostics"], **numbers}
    assert numbers["energy_error_from"] == "the exact state, all networks enumerated"
    assert numbers["energy_of_all"] == pytest.approx(result["energy"], abs=1e-5)
    difference = abs(numbers["energy_of_all"] - numbers["energy_of_all_exact"])
    assert difference == pytest.approx(numbers["energy_error"], abs=1e-6)
    with np.load(tmp_path / "diagnostics.npz") as arrays:
        assert arrays["entropy"].shape == (9,)
        assert arrays["discarded"].shape == (5, 9)
        np.testing.assert_allclose((arrays["spectrum"] ** 2).sum(1), 1, atol=1e-6)
    assert (tmp_path / "entropy.png").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"state": {"engine": "truncated"}, "circuit": {"ansatz": "free-mps", "depth": 4}},
            "state.engine='truncated' is for brickworks, got circuit.ansatz='free-mps'",
        ),
        ({"state": {"max_bond": 8}}, "state.max_bond is used only with state.engine='truncated'"),
        ({"state": {"cutoff": 1e-9}}, "state.cutoff is used only with state.engine='truncated'"),
        ({"circuit": {"ansatz": "free-mps", "depth": 8}}, "circuit.depth is not used"),
        (
            {"state": {"engine": "truncated"}, "energy": {"order": 4}},
            "energy.order must be 2 in states of bounded bond, got 4",
        ),
    ],
)
def test_settings_of_the_state_that_do_not_fit_are_refused(sections: dict, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        changed(**sections)
