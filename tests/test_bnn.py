"""Networks without any quantum: encodings, the register, decoding, the forward pass."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.bnn import (
    PUBLISHED_ENCODINGS,
    Choice,
    Dense,
    Encoding,
    Layer,
    Network,
    Option,
    activation_choice,
    choice_from_dict,
    encoding_choice,
    neuron_gates,
    scale_choice,
    skip_choice,
)

ORDERS = ("class", "class-reversed")


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


# ---------------------------------------------------------------- encoding


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-3.0, 1.0), (0.5, -2.0)])
def test_encoding(low: float, high: float):
    encoding = Encoding(low, high)
    assert encoding.step == high - low
    assert encoding.middle == (low + high) / 2
    values = encoding.decode(np.array([[0, 1, 1], [1, 0, 0]], np.uint8))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [[low, high, high], [high, low, low]])


def test_default_encoding_is_plus_minus_one():
    assert Encoding() == Encoding(-1.0, 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_encoding_refuses_values_that_are_not_finite(value: float):
    with refuses(f"needs two finite weight values, got low=0.5, high={value}"):
        Encoding(0.5, value)
    with refuses(f"needs two finite weight values, got low={value}, high=0.5"):
        Encoding(value, 0.5)


def test_encoding_refuses_equal_values():
    with refuses("needs two different weight values, got low=high=0.25"):
        Encoding(0.25, 0.25)


# ---------------------------------------------------------------- register

CLASS_ROLES = [
    "weight[output 0, input 0]",
    "weight[output 0, input 1]",
    "bias[output 0]",
    "weight[output 1, input 0]",
    "weight[output 1, input 1]",
    "bias[output 1]",
    "weight[output 2, input 0]",
    "weight[output 2, input 1]",
    "bias[output 2]",
]
NEURON_ROLES = [
    "activation[bit 0]",
    "weight[layer 0, output 0, input 0]",
    "bias[layer 0, output 0]",
    "gate[neuron 0, bit 0]",
    "weight[layer 1, output 0, input 0]",
    "weight[layer 0, output 1, input 0]",
    "bias[layer 0, output 1]",
    "gate[neuron 1, bit 0]",
    "weight[layer 1, output 0, input 1]",
    "bias[layer 1, output 0]",
    "skip[output 0, input 0]",
]


def roles(network: Network) -> list[str]:
    return [network.register.role(site) for site in range(network.n_qubits)]


def test_roles_class_by_class():
    assert roles(Network((Dense(2, 3),))) == CLASS_ROLES
    assert roles(Network((Dense(2, 3),), order="class-reversed")) == CLASS_ROLES[::-1]


@pytest.mark.parametrize("order", ["auto", "neuron", "neuron-reversed"])
def test_roles_neuron_by_neuron(order: str):
    choices = (activation_choice(["relu", "sign"]), neuron_gates())
    network = Network((Dense(1, 2), Dense(2, 1)), choices=choices, skip=True, order=order)
    expected = NEURON_ROLES[::-1] if order.endswith("reversed") else NEURON_ROLES
    assert roles(network) == expected


def test_roles_layer_by_layer():
    layers = (Dense(1, 2, bias=False), Dense(2, 1, bias=False))
    assert roles(Network(layers, order="class")) == [
        "weight[layer 0, output 0, input 0]",
        "weight[layer 0, output 1, input 0]",
        "weight[layer 1, output 0, input 0]",
        "weight[layer 1, output 0, input 1]",
    ]


@pytest.mark.parametrize("order", ["class", "neuron", "class-reversed", "neuron-reversed"])
def test_every_site_has_one_role(order: str):
    choices = (
        activation_choice(["relu", "sign", "tanh"], scope="neuron"),
        neuron_gates(),
        skip_choice(),
        encoding_choice(PUBLISHED_ENCODINGS),
    )
    network = Network((Dense(3, 2), Dense(2, 4, bias=False)), choices=choices, order=order)
    register = network.register
    assert register.skip is not None
    sites = [*register.weights, *register.choices, register.skip]
    everything = np.concatenate([each.ravel() for each in sites])
    assert sorted(everything.tolist()) == list(range(network.n_qubits))
    assert network.n_qubits == 2 * 4 + 4 * 2 + 2 * 2 + 2 + 1 + 2 + 4 * 3
    assert (
        register.architecture.tolist()
        == np.concatenate([each.ravel() for each in register.choices]).tolist()
    )
    assert len(set(roles(network))) == network.n_qubits


@pytest.mark.parametrize("order", ORDERS)
def test_blocks(order: str):
    network = Network((Dense(2, 2),), order=order, choices=(scale_choice([0.1, 0.2, 0.5]),))
    blocks = network.register.blocks
    reverse = order == "class-reversed"
    assert blocks.start == (0 if reverse else 2)
    assert blocks.outputs.tolist() == ([1, 0] if reverse else [0, 1])
    assert blocks.inputs.tolist() == ([2, 1, 0] if reverse else [0, 1, 2])
    assert blocks.fan_in == 3
    assert network.global_sites == ((7, 6) if reverse else (0, 1))


def test_only_linear_networks_lie_in_blocks():
    with refuses("only linear networks lie in blocks, got 2 layers"):
        Network((Dense(2, 2), Dense(2, 1))).register.blocks  # noqa: B018


@pytest.mark.parametrize("site", [-1, 9])
def test_role_refuses_sites_outside_the_chain(site: int):
    with refuses(f"site must be in 0..8, got {site}"):
        Network((Dense(2, 3),)).register.role(site)


@pytest.mark.parametrize(
    ("order", "near"), [("clas", "class"), ("class-reverse", "class-reversed")]
)
def test_network_refuses_unknown_orders(order: str, near: str):
    with refuses(f"got {order!r}; did you mean {near!r}?"):
        Network((Dense(2, 3),), order=order)


# ---------------------------------------------------------------- choices


def test_codes_beyond_the_list_start_again():
    choice = activation_choice(["relu", "sign", "tanh"])
    assert choice.n_bits == 2
    names = [option.activation for option in choice.by_code]
    assert names == ["relu", "sign", "tanh", "relu"]
    assert [option.label for option in neuron_gates().options] == ["gate off", "gate on"]
    assert encoding_choice(PUBLISHED_ENCODINGS).options[3].label == "{-3, 1}"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Option(), "an Option must set something"),
        (lambda: Option(activation="rely"), "got 'rely'; did you mean 'relu'?"),
        (lambda: Option(logit_scale=0.0), "logit_scale must be a positive finite number, got 0.0"),
        (lambda: activation_choice(["relu"]), "needs at least two options, got 1"),
        (lambda: activation_choice(["relu", "sign"], scope="all"), "scope must be one of network"),
        (
            lambda: Choice("mixed", (Option(activation="relu"), Option(skip=True))),
            "must set the same things, got activation and skip",
        ),
        (
            lambda: Choice("gate", (Option(gate=True), Option(gate=False))),
            "gate cannot have scope 'network'; it can have neuron",
        ),
    ],
)
def test_choices_refuse(build, message: str):
    with refuses(message):
        build()


@pytest.mark.parametrize(
    ("values", "choice"),
    [
        (
            {"set": "activation", "options": ["relu", "sign"], "scope": "neuron"},
            activation_choice(["relu", "sign"], scope="neuron"),
        ),
        (
            {"set": "encoding", "options": [[0, 1], [-3, 1]], "scope": "neuron", "layer": 1},
            encoding_choice([Encoding(0.0, 1.0), Encoding(-3.0, 1.0)], scope="neuron", layer=1),
        ),
        (
            {"set": "encoding", "options": [[0, 1], [-1, 1]], "name": "weights"},
            encoding_choice([Encoding(0.0, 1.0), Encoding(-1.0, 1.0)], name="weights"),
        ),
        ({"set": "gate"}, neuron_gates()),
        ({"set": "skip"}, skip_choice()),
        (
            {"set": "logit_scale", "options": [0.1, 1], "name": "logit scale"},
            scale_choice([0.1, 1.0]),
        ),
        (
            {
                "name": "both",
                "options": [
                    {"activation": "relu", "logit_scale": 1},
                    {"activation": "sign", "logit_scale": 0.3},
                ],
            },
            Choice(
                "both",
                (
                    Option(activation="relu", logit_scale=1.0),
                    Option(activation="sign", logit_scale=0.3),
                ),
            ),
        ),
    ],
)
def test_choices_from_plain_values(values: dict, choice: Choice):
    assert choice_from_dict(values) == choice


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sett": "gate"}, "a choice has no entry 'sett'; did you mean 'set'?"),
        ({"set": "activate", "options": [1, 2]}, "got 'activate'; did you mean 'activation'?"),
        ({"set": "activation"}, "options must be a list of two or more options, got None"),
        ({"options": ["relu", "sign"]}, "an option must be a table such as"),
        ({"options": [{"gain": 1}, {"gain": 2}]}, "an option cannot set 'gain'"),
        ({"set": "encoding", "options": [[1], [2]]}, "an encoding must be a pair such as [-1, 1]"),
        ({"set": "gate", "options": [0, 1]}, "gate must be true or false, got 0"),
        ({"set": "logit_scale", "options": [[1], [2]]}, "logit_scale takes numbers, got [1]"),
        ({"set": "encoding", "options": [["a", 1], [0, 1]]}, "encoding takes numbers, got 'a'"),
        ({"set": "activation", "options": ["sign", "sign"]}, "options must differ from one ano"),
        ({"set": "gate", "layer": 1.7}, "layer must be an integer, got 1.7"),
        ({"set": "gate", "scope": ["a"]}, "scope must be one of network, layer, neuron, got ['a"),
    ],
)
def test_choices_from_plain_values_refuse(values: dict, message: str):
    with refuses(message):
        choice_from_dict(values)


HIDDEN = (Dense(3, 2), Dense(2, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": (Dense(2, 2),), "choices": (neuron_gates(),)}, "has no hidden layer"),
        ({"layers": (Dense(2, 2),), "choices": (skip_choice(),)}, "skip needs a hidden layer"),
        ({"choices": (neuron_gates(), neuron_gates())}, "different names, got 'gate' twice"),
        (
            {"choices": (neuron_gates(), neuron_gates(name="other"))},
            "gate of layer 0 is set by two choices, the second is 'other'",
        ),
        ({"choices": (neuron_gates(layer=1),)}, "layer must be in 0..0, got 1"),
        (
            {"choices": (encoding_choice(PUBLISHED_ENCODINGS, scope="neuron", layer=1),)},
            "layer must be in 0..0, got 1; outputs have no choices of their own, a layer's "
            "encoding has scope 'layer'",
        ),
        (
            {
                "layers": (Dense(2, 2),),
                "choices": (encoding_choice(PUBLISHED_ENCODINGS, scope="neuron"),),
            },
            "has no hidden layer; outputs have no choices of their own",
        ),
        (
            {
                "choices": (
                    encoding_choice(PUBLISHED_ENCODINGS, scope="neuron"),
                    encoding_choice(PUBLISHED_ENCODINGS, name="other"),
                )
            },
            "encoding of layer 0 is set by two choices, the second is 'other'",
        ),
        ({"activation": ("sign", "relu")}, "one name or one per hidden layer (1)"),
        ({"layers": (Dense(3, 2), Dense(3, 1))}, "layer 0 has 2 outputs but layer 1 3 inputs"),
        ({"layers": ()}, "at least one Dense layer, got none"),
        ({"hidden_scale": 0.0}, "hidden_scale must be a positive finite number, got 0.0"),
        (
            {"layers": (Dense(3, 2), Dense(2, 2), Dense(2, 1)), "order": "neuron"},
            "order 'neuron' is for networks with one hidden layer, got 2; use 'class'",
        ),
    ],
)
def test_hidden_networks_refuse(arguments: dict, message: str):
    with refuses(message):
        Network(**({"layers": HIDDEN} | arguments))


# ---------------------------------------------------------------- the forward pass

ENCODED = ((0.0, 1.0), (-1.0, 1.0), (-3.0, 1.0))
#: Name -> keyword arguments of the network, and of the oracle where they differ.
NETWORKS: dict[str, tuple[dict, dict]] = {
    "plain": ({}, {}),
    "neuron-reversed": ({"order": "neuron-reversed", "activation": "relu"}, {}),
    "class": ({"order": "class", "activation": "tanh", "hidden_scale": 0.4}, {}),
    "skip": ({"skip": True, "activation": "sigmoid", "order": "class-reversed"}, {}),
    "choices": (
        {
            "activation": "hardtanh",
            "choices": (
                encoding_choice([Encoding(*each) for each in ENCODED]),
                neuron_gates(),
                skip_choice(),
            ),
        },
        {
            "choices": [
                {"setting": "encoding", "options": ENCODED, "scope": "network"},
                {"setting": "gate", "options": [False, True], "scope": "neuron"},
                {"setting": "skip", "options": [False, True], "scope": "network"},
            ]
        },
    ),
    "own encodings": (
        {
            "choices": (
                neuron_gates(),
                encoding_choice([Encoding(*each) for each in ENCODED], scope="neuron"),
            ),
            "skip": True,
            "order": "neuron-reversed",
            "activation": "tanh",
        },
        {
            "choices": [
                {"setting": "gate", "options": [False, True], "scope": "neuron"},
                {"setting": "encoding", "options": ENCODED, "scope": "neuron"},
            ]
        },
    ),
    "own activations": (
        {
            "choices": (
                activation_choice(["relu", "tanh", "sigmoid"], scope="neuron"),
                scale_choice([0.2, 1.3]),
            ),
            "order": "neuron-reversed",
        },
        {
            "choices": [
                {
                    "setting": "activation",
                    "options": ["relu", "tanh", "sigmoid"],
                    "scope": "neuron",
                },
                {"setting": "logit_scale", "options": [0.2, 1.3], "scope": "network"},
            ]
        },
    ),
}


@pytest.mark.parametrize("namespace", [np, jnp])
@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_logits(name: str, namespace):
    given, described = NETWORKS[name]
    network = Network((Dense(3, 2), Dense(2, 3)), logit_scale=0.7, **given)
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2, (40, network.n_qubits)).astype(np.uint8)
    x = rng.normal(size=(6, 3))
    expected = oracles.network_logits(
        bits,
        x,
        (3, 2, 3),
        logit_scale=0.7,
        **({"order": "neuron"} | given | {"choices": ()} | described),
    )
    logits = network.logits(namespace.asarray(bits), namespace.asarray(x))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("own", [(), ENCODED])
def test_deep_logits(own: tuple):
    layers = (Dense(3, 2), Dense(2, 4, bias=True, encoding=Encoding(-2.0, 1.0)), Dense(4, 2))
    choices = ()
    if own:
        encodings = [Encoding(*each) for each in own]
        choices = (encoding_choice(encodings, scope="neuron", layer=1), neuron_gates())
    network = Network(layers, activation="tanh", hidden_scale=0.6, choices=choices)
    rng = np.random.default_rng(6)
    bits = rng.integers(0, 2, (20, network.n_qubits)).astype(np.uint8)
    x = rng.normal(size=(5, 3))
    expected = oracles.network_logits(
        bits,
        x,
        (3, 2, 4, 2),
        encodings=[(-1, 1), (-2, 1), (-1, 1)],
        activation="tanh",
        hidden_scale=0.6,
        logit_scale=0.3,
        choices=[
            {"setting": "encoding", "options": own, "scope": "neuron", "layer": 1},
            {"setting": "gate", "options": [False, True], "scope": "neuron"},
        ][: len(choices)],
    )
    np.testing.assert_allclose(network.logits(bits, x), expected, rtol=0, atol=1e-12)


def test_settings_of_a_neuron_count_its_choices_in_order():
    both = (Option(activation="relu", gate=True), Option(activation="tanh", gate=False))
    choices = (
        Choice("both", both, "neuron"),
        encoding_choice([Encoding(-3.0, 1.0), Encoding(0.0, 1.0)], scope="neuron"),
        scale_choice([0.1, 1.0]),
    )
    settings = Network(HIDDEN, choices=choices).neuron_settings(0)
    assert [each.activation for each in settings] == ["relu", "relu", "tanh", "tanh"]
    assert [each.encoding.low for each in settings] == [-3.0, 0.0, -3.0, 0.0]
    assert [each.gate for each in settings] == [True, True, False, False]


def test_sectors_are_the_networks_they_stand_for():
    given, _ = NETWORKS["choices"]
    network = Network((Dense(3, 2), Dense(2, 3)), **given)
    rng = np.random.default_rng(7)
    x = rng.normal(size=(4, 3))
    seen = set()
    for setting, settled in network.sectors():
        bits = rng.integers(0, 2, (10, network.n_qubits)).astype(np.uint8)
        bits[:, network.global_sites] = setting
        np.testing.assert_array_equal(settled.logits(bits, x), network.logits(bits, x))
        assert settled.global_sites == ()
        seen.add(setting)
    assert len(seen) == 8


def test_ties_on_a_lattice_are_free_of_rounding():
    x = (np.array([[3, 7, 10]]) / 255).astype(np.float32)
    network = Network((Dense(3, 1, bias=False), Dense(1, 1, bias=False)), logit_scale=1.0)
    bits = np.array([[1, 1, 0, 1], [0, 0, 1, 1]], np.uint8)
    assert network.logits(bits, x, step=1 / 255).ravel().tolist() == [1.0, 1.0]


# ---------------------------------------------------------------- layers and networks


@pytest.mark.parametrize(("bias", "fan_in", "n_bits"), [(True, 5, 15), (False, 4, 12)])
def test_dense_sizes(bias: bool, fan_in: int, n_bits: int):
    dense = Dense(4, 3, bias)
    assert (dense.fan_in, dense.n_bits) == (fan_in, n_bits)
    network = Network((dense,))
    assert (network.n_inputs, network.n_outputs, network.n_qubits) == (4, 3, n_bits)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3), "Dense.n_inputs must be at least 1, got 0"),
        ((4, -2), "Dense.n_outputs must be at least 1, got -2"),
    ],
)
def test_dense_refuses_empty_layers(sizes: tuple[int, int], message: str):
    with refuses(message):
        Dense(*sizes)


def test_decode_by_hand():
    dense = Dense(2, 2, encoding=Encoding(-3.0, 1.0))
    bits = np.array([[1, 0, 0, 1, 1, 0]], np.uint8)
    forward = Network((dense,)).decode(bits).layers[0]
    np.testing.assert_array_equal(forward.weights, [[[1, -3], [1, 1]]])
    np.testing.assert_array_equal(forward.biases, [[-3, -3]])
    backward = Network((dense,), order="class-reversed").decode(bits).layers[0]
    np.testing.assert_array_equal(backward.weights, [[[-3, 1], [-3, -3]]])
    np.testing.assert_array_equal(backward.biases, [[1, 1]])


def test_decode_without_bias():
    layer = Network((Dense(3, 2, bias=False),)).decode(np.zeros((4, 6), np.uint8)).layers[0]
    assert isinstance(layer, Layer)
    assert layer.weights.shape == (4, 2, 3)
    assert layer.biases is None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits(order: str, bias: bool, dtype: type):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 3)).astype(dtype)
    network = Network((Dense(3, 2, bias, Encoding(-2.0, 1.0)),), logit_scale=0.7, order=order)
    bits = rng.integers(0, 2, (9, network.n_qubits)).astype(np.uint8)
    logits = network.logits(bits, x)
    assert logits.dtype == dtype
    ordered = bits if order == "class" else bits[:, ::-1]
    expected = oracles.linear_logits(ordered, x, 2, -2, 1, 0.7, bias)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=20 * np.finfo(dtype).eps)


def test_order_changes_the_logits():
    x = np.array([[1.0, 0.25, -0.5]])
    bits = np.array([[1, 0, 0, 0, 1, 1, 0, 0]], np.uint8)
    dense = Dense(3, 2)
    forward = Network((dense,)).logits(bits, x)
    backward = Network((dense,), order="class-reversed").logits(bits, x)
    assert np.abs(forward - backward).min() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logit_scale": 0.0}, "logit_scale must be a positive finite number, got 0.0"),
        ({"logit_scale": -0.3}, "logit_scale must be a positive finite number, got -0.3"),
        ({"logit_scale": float("nan")}, "logit_scale must be a positive finite number, got nan"),
        ({"logit_scale": float("inf")}, "logit_scale must be a positive finite number, got inf"),
        ({"order": "neuron"}, "is for networks with one hidden layer, got 0; use 'class'"),
    ],
)
def test_network_refuses(arguments: dict, message: str):
    with refuses(message):
        Network(**({"layers": (Dense(4, 3),)} | arguments))


def test_network_refuses_wrong_shapes():
    network = Network((Dense(4, 3),))
    with refuses("bits must have one column per qubit (15), got shape (2, 14)"):
        network.decode(np.zeros((2, 14), np.uint8))
    with refuses("x must have one column per input (4), got shape (6, 5)"):
        network.logits(np.zeros((2, 15), np.uint8), np.zeros((6, 5), np.float32))


def test_choices_of_one_layer_set_that_layer_alone():
    """Layer-scope choices and a list of one's own, against plain networks."""
    first, second = Encoding(0.0, 1.0), Encoding(-3.0, 0.5)
    own = Choice(
        "both",
        (
            Option(logit_scale=0.2, hidden_scale=0.7),
            Option(logit_scale=1.1, hidden_scale=0.4),
            Option(logit_scale=0.9, hidden_scale=1.3),
        ),
    )
    choices = (
        encoding_choice([first, second], scope="layer", layer=1),
        activation_choice(["tanh", "relu"], scope="layer"),
        own,
    )
    network = Network((Dense(2, 3), Dense(3, 2)), choices=choices)
    rng = np.random.default_rng(9)
    x = rng.normal(size=(4, 2))
    for code in range(16):
        setting = [code >> 3 & 1, code >> 2 & 1, code >> 1 & 1, code & 1]
        bits = rng.integers(0, 2, (5, network.n_qubits)).astype(np.uint8)
        bits[:, :4] = setting
        option = own.options[(2 * setting[2] + setting[3]) % 3]
        plain = Network(
            (Dense(2, 3), Dense(3, 2, encoding=(first, second)[setting[0]])),
            activation=("tanh", "relu")[setting[1]],
            logit_scale=option.logit_scale,
            hidden_scale=option.hidden_scale,
        )
        np.testing.assert_allclose(
            network.logits(bits, x), plain.logits(bits[:, 4:], x), rtol=0, atol=1e-13
        )
