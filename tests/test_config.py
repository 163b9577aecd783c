"""Configuration: layers, names, types, ranges and values that must fit each other."""

import dataclasses
import json
import pickle
import re
import tomllib
from pathlib import Path

import pytest
import tomli_w

from hypercircuit.config import (
    Config,
    ConfigError,
    DataConfig,
    TrainConfig,
    check_chain_size,
    fit,
    load_config,
)
from hypercircuit.config.values import fold_lists

EXPERIMENT = """
[data]
classes = [3, 8]
pixels = "binarise"
threshold = 100

[network]
outputs = 1

[loss]
kind = "logistic"

[optimiser]
learning_rate = 1

[optimiser.options]
b1 = 0.8

[profiles.smoke]
train = { steps = 5, batch_size = 7 }
data.n_train = 70

[profiles.long.train]
steps = 90000
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(EXPERIMENT)
    return path


def refuses(message: str):
    return pytest.raises(ConfigError, match=re.escape(message))


def test_defaults_are_the_main_job():
    config = load_config()
    assert config == Config() == Config.from_dict({})
    assert (config.circuit.depth, config.train.steps, config.loss.kind) == (4, 1500, "softmax")
    assert config.network.encoding == (-1.0, 1.0)
    assert (config.data.path, config.data.n_classes, config.data.n_validation) == ("", 0, 0)


def test_layers_replace_each_other(experiment: Path):
    plain = load_config(experiment)
    assert plain.data.classes == (3, 8)
    assert plain.train.steps == 1500
    assert type(plain.optimiser.learning_rate) is float
    smoke = load_config(experiment, profile="smoke")
    assert (smoke.train.steps, smoke.train.batch_size, smoke.data.n_train) == (5, 7, 70)
    assert smoke.data.threshold == 100
    over = load_config(str(experiment), ["train.steps=6", "train.steps = 8"], profile="smoke")
    assert (over.train.steps, over.train.batch_size) == (8, 7)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("data.path=/tmp/a#b c", "data", "path", "/tmp/a#b c"),
        ("data.path=2024-01-31", "data", "path", str(Path.cwd() / "2024-01-31")),
        ("data.path=", "data", "path", ""),
        ('data.path="12"', "data", "path", str(Path.cwd() / "12")),
        ("data.path=1\n[train]", "data", "path", str(Path.cwd() / "1\n[train]")),
        ("data.classes=[4,7]", "data", "classes", (4, 7)),
        ("network.encoding=[0, 1]", "network", "encoding", (0.0, 1.0)),
        ("network.bias=false", "network", "bias", False),
        ("optimiser.options={b1=0.7}", "optimiser", "options", {"b1": 0.7}),
        ("optimiser.options.b2=0.7", "optimiser", "options", {"b2": 0.7}),
        ("optimiser.learning_rate=1", "optimiser", "learning_rate", 1.0),
        ("optimiser.schedule=onecycle", "optimiser", "schedule", "onecycle"),
    ],
)
def test_override_values(override: str, section: str, key: str, value: object):
    config = load_config(None, [override])
    found = getattr(getattr(config, section), key)
    assert found == value
    assert type(found) is type(value)


def test_relative_data_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "5f3e").touch()
    (work / "clothes.npz").symlink_to(tmp_path / "store" / "5f3e")
    (work / "inner").symlink_to(tmp_path / "store")
    monkeypatch.chdir(work)
    root = tmp_path.resolve()
    for given, expected in (
        ("clothes.npz", root / "work" / "clothes.npz"),
        ("../clothes.npz", root / "clothes.npz"),
        ("inner/../clothes.npz", root / "clothes.npz"),
        (".", root / "work"),
        ("..", root),
    ):
        assert load_config(None, [f"data.path={given}"]).data.path == str(expected)
    (tmp_path / "config.toml").write_text('[data]\npath = "clothes.npz"\n')
    config = load_config(tmp_path / "config.toml")
    assert config.data.path == str(root / "work" / "clothes.npz")
    (tmp_path / "resolved.toml").write_text(config.to_toml())
    monkeypatch.chdir(tmp_path)
    assert load_config(tmp_path / "resolved.toml") == config
    assert load_config(tmp_path / "resolved.toml", ["data.path="]).data.path == ""


def test_override_of_one_option_keeps_the_others(experiment: Path):
    config = load_config(experiment, ["optimiser.options.b2=0.9"])
    assert config.optimiser.options == {"b1": 0.8, "b2": 0.9}
    assert load_config(experiment).optimiser.options == {"b1": 0.8}


def test_path_replaces_the_source_of_a_lower_layer(tmp_path: Path):
    path = tmp_path / "config.toml"
    values = {"data": {"source": "gaussians", "n_points": 60}, "network": {"outputs": 1}}
    config = Config.from_dict({**values, "loss": {"kind": "logistic"}})
    path.write_text(config.to_toml())
    own = load_config(path, ["data.path=/a.npz"]).data
    assert (own.path, own.source, own.n_points) == ("/a.npz", "mnist", 10_000)
    assert load_config(path, ["data.path="]) == config
    path.write_text(config.to_toml() + "\n[profiles.own]\ndata.path = '/b.npz'\n")
    profile = load_config(path, profile="own")
    assert (profile.data.path, profile.data.source) == ("/b.npz", "mnist")
    path.write_text(profile.to_toml())
    back = load_config(path, ["data.source=gaussians", "data.n_points=60"])
    assert back == config
    with refuses("data.source is used only without data.path, got data.source='gaussians' and"):
        load_config(path, ["data.source=gaussians", "data.path=/c.npz"])


def test_short_lists_stand_on_one_line(tmp_path: Path):
    tricky = ["a[", "], ", "x = [\n1,\n]"]
    options = [[-1.0, 1.0], [0.0, 1.0]]
    values = {
        "data": {"path": "/x", "downsample": "pick", "rows": [1, 3], "columns": list(range(80))},
        "network": {"choices": [{"set": "encoding", "options": options, "name": tricky[2]}]},
        "optimiser": {"options": {"b1": 0.5, "tricky": tricky, "nested": [[], [[1], [2, 3]]]}},
    }
    text = fold_lists(tomli_w.dumps(values))
    assert tomllib.loads(text) == values
    assert "rows = [1, 3]\n" in text
    assert "columns = [\n    0,\n" in text
    assert "nested = [[], [[1], [2, 3]]]\n" in text
    del values["optimiser"], values["network"]["choices"][0]["name"]
    values["data"]["columns"] = [2]
    config = Config.from_dict(values | {"network": {"hidden": [3], "outputs": 2}})
    assert "hidden = [3]\n" in config.to_toml()


def test_resolved_config_is_read_back(experiment: Path, tmp_path: Path):
    config = load_config(experiment, ["optimiser.learning_rate=1e-17"], profile="smoke")
    path = tmp_path / "resolved.toml"
    path.write_text(config.to_toml())
    assert load_config(path) == config
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(load_config(path)) == hash(config)
    assert "profiles" not in config.to_dict()


def test_config_is_immutable_and_keeps_no_reference():
    options = {"b1": 0.8}
    config = Config.from_dict({"optimiser": {"options": options}})
    options["b1"] = 0.0
    config.to_dict()["optimiser"]["options"]["b1"] = 1.0
    assert config.optimiser.options == {"b1": 0.8}
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.train.steps = 3  # type: ignore[misc]


def test_unknown_names():
    with refuses("unknown section 'optimizer'; did you mean 'optimiser'?"):
        Config.from_dict({"optimizer": {}})
    with refuses("unknown section 'zzz'; known are data, network, loss, circuit"):
        Config.from_dict({"zzz": {}})
    with refuses("unknown key 'step' in section 'train'; did you mean 'steps'?"):
        Config.from_dict({"train": {"step": 3}})
    with refuses("unknown key 'learning_rate' in section 'train'; did you mean 'optimiser.l"):
        Config.from_dict({"train": {"learning_rate": 0.1}})
    with refuses("unknown key 'qqq' in section 'loss'; known are kind, tolerance"):
        Config.from_dict({"loss": {"qqq": 3}})
    with refuses("unknown key 'section' in section 'loss'; known are kind, tolerance"):
        Config.from_dict({"loss": {"section": "loss"}})


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "steps", "many", "train.steps must be an integer, got 'many'; for example"),
        ("train", "steps", True, "train.steps must be an integer, got True; for example"),
        ("train", "steps", 1e4, "train.steps must be an integer, got 10000.0; write 10000"),
        ("train", "steps", 0, "train.steps must be at least 1, got 0; the default is 1500"),
        ("train", "seed", 2**32, "train.seed must be at most 4294967295, got 4294967296"),
        ("train", "evaluate_every", 0, "at least 1, got 0; for the end only, set it to train"),
        ("train", "precision", "float-32", "got 'float-32'; did you mean 'float32'?"),
        ("data", "path", 3, "data.path must be a string, got 3; put it between quotes"),
        ("data", "pixels", "scaled", "got 'scaled'; did you mean 'scale'?"),
        ("data", "classes", 3, "data.classes must be a list of integers, got 3; for example"),
        ("data", "classes", [3, 0.5], "data.classes[1] must be an integer, got 0.5"),
        ("data", "classes", [3, 3], "data.classes must be distinct values, got [3, 3]; leave"),
        ("data", "classes", [3], "must be empty or at least two labels, got [3]; leave it empty"),
        ("data", "classes", [-1, 3], "data.classes must be integers of at least 0, got [-1, 3]"),
        (
            "data",
            "size",
            [7],
            "data.size must be a list of 2 integers, got [7]; for example data.size = [28, 28]",
        ),
        ("data", "n_classes", 1, "data.n_classes must be 0 or at least 2, got 1; 0 counts the"),
        ("data", "n_classes", -3, "data.n_classes must be 0 or at least 2, got -3"),
        ("data", "n_validation", -1, "at least 0, got -1; 0 is a twelfth of the training"),
        ("data", "levels", 1, "data.levels must be at least 2, got 1; the default is 2"),
        ("network", "bias", 1, "network.bias must be true or false, got 1; for example"),
        ("network", "encoding", [1, 1], "network.encoding must be distinct values"),
        ("network", "encoding", [0, "a"], "network.encoding[1] must be a finite number, got 'a'"),
        ("network", "logit_scale", 0, "network.logit_scale must be above 0, got 0; the default"),
        ("loss", "tolerance", 1, "loss.tolerance must be below 1, got 1; a loss is of the order"),
        (
            "loss",
            "tolerance",
            0.0,
            "loss.tolerance must be at least 1e-10, got 0.0; for exact sums",
        ),
        ("loss", "tolerance", float("nan"), "loss.tolerance must be a finite number, got nan"),
        ("energy", "order", 3, "energy.order must be one of 2, 4, got 3; the default is 2"),
        ("circuit", "depth", 0, "got 0; depth 1 is the product state"),
        ("optimiser", "options", 3, "optimiser.options must be a table, got 3; for example"),
        ("optimiser", "options", {"a": [None]}, "optimiser.options.a[0] must be a string, number"),
        ("optimiser", "options", {1: 2}, "optimiser.options must be a table with strings as names"),
        ("optimiser", "clip_norm", -1.0, "at least 0, got -1.0; 0 turns clipping off"),
    ],
)
def test_wrong_types_and_ranges(section: str, key: str, value: object, message: str):
    with refuses(message):
        Config.from_dict({section: {key: value}})


def test_sections_check_themselves():
    with refuses("data.threshold must be at most 254, got 255"):
        DataConfig(threshold=255)
    with refuses("train.batch_size must be at least 0, got -1; 0 is all the examples"):
        dataclasses.replace(TrainConfig(), batch_size=-1)


PAIRWISE = "pairwise-logistic"
POINTS = {"source": "gaussians", "n_points": 60}
MANY_CHOICES = [{"set": "logit_scale", "options": [0.1 * (n + 1) for n in range(512)]}]


def test_choices_come_back_from_toml(tmp_path):
    path = tmp_path / "config.toml"
    choices = [
        {"set": "activation", "options": ["relu", "sign"], "scope": "neuron"},
        {"set": "encoding", "options": [[0, 1], [-1.5, 1]], "scope": "neuron"},
    ]
    config = Config.from_dict({"network": {"hidden": [4], "choices": choices}})
    assert list(config.network.choices) == choices
    path.write_text(config.to_toml())
    assert load_config(path) == config


def test_activations_of_every_hidden_layer(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_text('[network]\nhidden = [5, 4]\nactivation = ["relu", "sign"]\n')
    config = load_config(path)
    assert config.network.activation == ("relu", "sign")
    path.write_text(config.to_toml())
    assert load_config(path) == config
    assert hash(load_config(path)) == hash(config)
    over = load_config(path, ['network.activation=["tanh", "relu"]'])
    assert over.network.activation == ("tanh", "relu")
    assert load_config(path, ["network.activation=tanh"]).network.activation == "tanh"


@pytest.mark.parametrize(
    ("hidden", "activation", "message"),
    [
        (
            [5, 4],
            ["relu"],
            "one per hidden layer, got 1 names, ['relu'], and 2 hidden layers, netw",
        ),
        ([5], ["relu", "sign"], "2 names, ['relu', 'sign'], and 1 hidden layers, network.hidden=["),
        ([5, 4], ["sign", "rely"], "must be one of 'sign', 'relu', 'sigmoid', 'tanh', 'hardtanh'"),
        ([5, 4], ["sign", "rely"], "or a list of them, got ['sign', 'rely']; did you mean 'relu'?"),
        ([5, 4], ["sign", 3], "network.activation[1] must be a string, got 3; put it between"),
        ([5, 4], "rely", "got 'rely'; did you mean 'relu'?"),
        ([5, 4], 3, "network.activation must be a string, got 3; put it between quotes"),
    ],
)
def test_wrong_activations(hidden: list, activation: object, message: str):
    with refuses(message):
        Config.from_dict({"network": {"hidden": hidden, "activation": activation}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": {"outputs": 1}}, "network.outputs=1 needs exactly two classes, got 10; set"),
        (
            {"network": {"outputs": 3}},
            "network.outputs must be the number of classes, 10, got 3; set network.outputs=0",
        ),
        (
            {"data": {"classes": [0, 1]}, "network": {"outputs": 1}},
            "loss.kind='softmax' needs at least two outputs, got network.outputs=1; set loss",
        ),
        (
            {"data": {"classes": [0, 1]}, "network": {"outputs": 1}, "loss": {"kind": PAIRWISE}},
            "loss.kind='pairwise-logistic' needs at least two outputs, got network.outputs=1",
        ),
        (
            {"network": {"activation": "relu"}},
            'network.activation is used only with hidden layers, got network.activation="relu"',
        ),
        (
            {"network": {"choices": [{"set": "gates"}]}},
            "network.choices[0]: set must be one of activation, encoding, logit_scale, hidden_s",
        ),
        (
            {"network": {"choices": {"set": "gate"}}},
            "network.choices must be a list of tables, got {'set': 'gate'}; write [[network.choi",
        ),
        ({"data": {"classes": [8, 10]}}, "data.classes must be labels 0..9 of the embedded MNIST"),
        (
            {"data": {"downsample": "pick", "rows": [3, 10]}},
            "data.downsample='pick' needs data.rows and data.columns, got rows=[3, 10] and col",
        ),
        (
            {"data": {"downsample": "pick", "rows": [3], "columns": [28]}},
            "data.columns must be at most 27 for the embedded MNIST, got [28]; count from 0",
        ),
        (
            {"data": {"downsample": "mean", "size": [7, 29]}},
            "data.size must be at most [28, 28] for the embedded MNIST, got [7, 29]",
        ),
        (
            {"data": {"n_classes": 12}},
            "data.n_classes is used only with data.path, got data.n_classes=12 and data.path=''; "
            "leave data.n_classes at 0, or set data.path",
        ),
        (
            {"data": {"path": "x", "n_classes": 12, "classes": [3, 12]}},
            "data.classes must be labels less than data.n_classes=12, got [3, 12]; leave the",
        ),
        (
            {"data": {"path": "x", "n_classes": 12}, "network": {"outputs": 10}},
            "network.outputs must be the number of classes, 12, got 10; set network.outputs=0",
        ),
        ({"data": {"levels": 4}}, "data.levels is used only with data.pixels='quantise', got"),
        ({"data": {"threshold": 4}}, "data.threshold is used only with data.pixels='binarise'"),
        ({"data": {"size": [7, 7]}}, "data.size is used only with data.downsample='mean'"),
        ({"data": {"rows": [7]}}, "data.rows is used only with data.downsample='pick'"),
        ({"data": {"columns": [7]}}, "data.columns is used only with data.downsample='pick'"),
        (
            {"circuit": {"init": "uniform", "init_scale": 0.2}},
            "circuit.init_scale is used only with circuit.init='near-uniform'",
        ),
        (
            {"energy": {"kind": "statevector"}},
            "energy.kind='statevector' is the energy of all the examples at once, got "
            "train.batch_size=100; set train.batch_size=0",
        ),
        (
            {"energy": {"kind": "exact", "order": 4}},
            "energy.order is used only with energy.kind='cumulant', got energy.order=4 and",
        ),
        (
            {"data": {"n_train": 50}},
            "train.batch_size must be at most data.n_train=50, got 100; set train.batch_size=50",
        ),
        ({"train": 3}, "train must be a section, got 3; write [train]"),
        (
            {"network": {"order": "neuron"}},
            "[network]: order 'neuron' is for networks with one hidden layer, got 0; use 'class'",
        ),
        (
            {"network": {"order": "neuron-reversed", "hidden": [5, 3]}},
            "order 'neuron-reversed' is for networks with one hidden layer, got 2; use 'class'",
        ),
        (
            {"network": {"choices": [{"set": "gate"}]}},
            "[network]: choice 'gate' has scope 'neuron', but the network has no hidden layer",
        ),
        (
            {"network": {"hidden": [3], "choices": [{"set": "gate", "layer": 1}]}},
            "[network]: choice 'gate': layer must be in 0..0, got 1",
        ),
        (
            {"network": {"choices": [{"set": "activation", "options": ["relu", "sign"]}]}},
            "[network]: choice 'activation' sets activation, but the network has no hidden layer",
        ),
        (
            {"network": {"hidden": [3, 2]}, "energy": {"kind": "exact"}},
            "energy.kind='exact' needs at most one hidden layer, got network.hidden=[3, 2]; set "
            "energy.kind='sampled', or 'cumulant', an approximation",
        ),
        (
            {"network": {"hidden": [3], "order": "class"}, "energy": {"kind": "exact"}},
            "needs its qubits neuron by neuron, got network.order='class'; set network.order='neu",
        ),
        (
            {"network": {"hidden": [3]}, "energy": {"kind": "exact"}},
            "energy.kind='exact' does not go with loss.kind='softmax' of 10 outputs and a hidden "
            "layer; set loss.kind to one of logistic, pairwise-logistic, squared, ",
        ),
        (
            {
                "network": {"hidden": [3]},
                "loss": {"kind": "zero-one"},
                "energy": {"kind": "statevector"},
                "train": {"batch_size": 0},
            },
            "energy.kind='statevector' does not go with loss.kind='zero-one' of 10 outputs and a",
        ),
        (
            {"network": {"hidden": [3, 2]}, "energy": {"order": 4}},
            "energy.order=4 with hidden layers needs one of them and its qubits neuron by neuron, "
            "got network.hidden=[3, 2] and network.order='auto'; set energy.order=2",
        ),
        (
            {"network": {"hidden": [3], "order": "class-reversed"}, "energy": {"order": 4}},
            "got network.hidden=[3] and network.order='class-reversed'; set energy.order=2",
        ),
        (
            {"network": {"choices": MANY_CHOICES}},
            "network.choices of scope network and layer have 512 settings, but energy.kind='cumul",
        ),
        (
            {"energy": {"kind": "statevector"}, "train": {"batch_size": 0}},
            "energy.kind='statevector' takes at most 24 qubits, got 7850 of 784 inputs, network.h",
        ),
        (
            {"data": POINTS, "network": {"outputs": 1}, "loss": {"kind": "zero-one"}},
            "loss.kind='zero-one' of a network without hidden layers needs inputs on a lattice, an",
        ),
        (
            {"data": POINTS | {"n_validation": 60}},
            "data.n_validation must be less than the 60 examples of data.source='gaussians', got",
        ),
        (
            {"data": POINTS | {"n_train": 56}, "train": {"batch_size": 5}},
            "data.n_train must be at most the 55 training examples of data.source='gaussians', g",
        ),
        (
            {"data": {"n_validation": 60_000}},
            "data.n_validation must be less than the 60000 examples of data.source='mnist', got 6",
        ),
        (
            {"data": {"n_train": 60_000}},
            "data.n_train must be at most the 55000 training examples of data.source='mnist', got",
        ),
        (
            {"data": {"n_train": 60_001, "validation": "none"}},
            "data.n_train must be at most the 60000 training examples of data.source='mnist', got",
        ),
        (
            {
                "data": POINTS,
                "network": {"outputs": 1},
                "loss": {"kind": "logistic"},
                "circuit": {"depth": 30},
            },
            "GiB; lower circuit.depth=30, or set state.engine='truncated' and state.max_bond, such",
        ),
        (
            {"data": {"path": "x"}, "circuit": {"depth": 24}},
            "the exact state of depth 24 has a bond of 2^11 between cells of two qubits and takes",
        ),
        ({"circuit": {"depth": 3000}}, "of 2^1499 between cells of two qubits and takes at least"),
    ],
)
def test_values_that_contradict_each_other(values: dict, message: str):
    with refuses(message):
        Config.from_dict(values)


def test_memory_is_that_of_the_machine_that_computes(monkeypatch: pytest.MonkeyPatch):
    """A configuration for a large node can be read anywhere."""
    config = Config.from_dict({"circuit": {"depth": 12}})
    check_chain_size(config, 7850)
    for memory, most in ((2**34, 32), (2**37, 64)):
        monkeypatch.setattr(fit, "machine_memory", lambda memory=memory: memory)
        with refuses(f"takes at least 184 GiB for 7850 qubits, more than {most} GiB; lower"):
            check_chain_size(config, 7850, here=True)
    monkeypatch.setattr(fit, "machine_memory", lambda: 2**39)
    check_chain_size(config, 7850, here=True)


@pytest.mark.parametrize(
    "values",
    [
        {"network": {"hidden": [3], "order": "neuron-reversed"}, "energy": {"order": 4}},
        {"network": {"hidden": [3]}, "loss": {"kind": PAIRWISE}, "energy": {"kind": "exact"}},
        {"network": {"hidden": [3, 2]}, "energy": {"kind": "auto"}},
        {"network": {"choices": MANY_CHOICES}, "energy": {"kind": "sampled"}},
        {"data": POINTS, "network": {"hidden": [2], "outputs": 1}, "loss": {"kind": "zero-one"}},
        {"data": {"n_train": 60_000, "validation": "none"}},
        {"circuit": {"depth": 12}},
        {"circuit": {"depth": 30}, "state": {"engine": "truncated"}},
        {"data": POINTS | {"n_train": 0}, "train": {"batch_size": 5}, "circuit": {"depth": 12}},
        {"data": {"path": "x", "n_train": 99_999, "n_validation": 70_000}},
        {
            "data": {"path": "x"},
            "energy": {"kind": "statevector"},
            "train": {"batch_size": 0},
        },
        {
            "data": POINTS,
            "energy": {"kind": "statevector"},
            "train": {"batch_size": 0},
            "network": {"hidden": [4], "outputs": 1},
            "loss": {"kind": "squared"},
        },
    ],
)
def test_values_that_fit_each_other(values: dict):
    assert Config.from_dict(values) == Config.from_dict(Config.from_dict(values).to_dict())


def test_own_data_leaves_classes_to_the_data():
    values = {
        "data": {"path": "x", "classes": [3, 12]},
        "network": {"outputs": 1},
        "loss": {"kind": "logistic"},
    }
    assert Config.from_dict(values).data.classes == (3, 12)
    values["data"]["classes"] = []
    assert Config.from_dict(values).network.outputs == 1


def test_profiles(experiment: Path):
    with refuses(f"unknown profile 'smok' of {experiment}; the file has: 'smoke', 'long'"):
        load_config(experiment, profile="smok")
    with refuses("profile 'smoke' needs a config file that defines it; give the file"):
        load_config(profile="smoke")
    with refuses("override 'profiles.smoke.train=3': section 'profiles' is read from a config"):
        load_config(experiment, ["profiles.smoke.train=3"])
    experiment.write_text("[profiles.other.train]\nstep = 3\n")
    with refuses("in profiles.other: unknown key 'step' in section 'train'; did you mean"):
        load_config(experiment)
    experiment.write_text("[train]\nsteps = 3\n")
    with refuses("the file has: none"):
        load_config(experiment, profile="smoke")
    experiment.write_text("profiles = 3\n")
    with refuses("profiles must be a table, got 3; write [profiles.NAME]"):
        load_config(experiment)
    experiment.write_text("[profiles]\nsmoke = 3\n")
    with refuses("in profiles.smoke: a configuration must be a table of sections, got 3"):
        load_config(experiment)


def test_files(tmp_path: Path):
    with refuses("absent.toml' does not exist; check the path"):
        load_config(tmp_path / "absent.toml")
    with refuses("must be a readable text file"):
        load_config(tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"\xff\xfe")
    with refuses("must be a readable text file"):
        load_config(bad)
    bad.write_text("[train]\nsteps = \n")
    with refuses("bad.toml' must be TOML: Invalid value (at line 2"):
        load_config(bad)
    bad.write_text("[train]\nstep = 3\n")
    with refuses("bad.toml: unknown key 'step'"):
        load_config(bad)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "an override is section.key=value, as train.steps=1000"),
        ("steps=3", "an override is section.key=value"),
        ("train..=3", "an override is section.key=value"),
        ("train.step=3", "override 'train.step=3': unknown key 'step' in section 'train'; did you"),
        ("trian.steps=3", "unknown section 'trian'; did you mean 'train'?"),
        ("train.steps=many", "train.steps must be an integer, got 'many'"),
        ("train.steps.a=3", "train.steps.a is not a key; did you mean 'train.steps'?"),
        ("optimiser.options.a.b=3", "did you mean 'optimiser.options'?"),
        ("data.classes=[1, 2", "the value must be TOML"),
    ],
)
def test_wrong_overrides(override: str, message: str):
    with refuses(message):
        load_config(None, [override])
