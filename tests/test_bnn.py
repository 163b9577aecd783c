"""Networks without any quantum: encodings, the register, decoding, the forward pass."""

import re

import numpy as np
import pytest

import oracles
from hypercircuit.bnn import Dense, Encoding, Layer, Network, Register

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

FORWARD_ROLES = [
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


@pytest.mark.parametrize(
    ("order", "roles"), [("class", FORWARD_ROLES), ("class-reversed", FORWARD_ROLES[::-1])]
)
def test_roles_in_the_chain(order: str, roles: list[str]):
    register = Register(n_inputs=2, n_outputs=3, order=order)
    assert (register.fan_in, register.n_qubits) == (3, 9)
    assert [register.role(site) for site in range(9)] == roles


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bias", [True, False])
def test_table_agrees_with_the_roles(order: str, bias: bool):
    register = Register(n_inputs=4, n_outputs=3, bias=bias, order=order)
    table = register.to_table(np.arange(register.n_qubits))
    assert table.shape == (3, 4 + bias)
    for output in range(3):
        for index in range(4):
            role = f"weight[output {output}, input {index}]"
            assert register.role(int(table[output, index])) == role
        if bias:
            assert register.role(int(table[output, 4])) == f"bias[output {output}]"


@pytest.mark.parametrize("order", ORDERS)
def test_table_and_chain_are_inverse(order: str):
    register = Register(n_inputs=4, n_outputs=3, order=order)
    values = np.random.default_rng(1).integers(0, 2, (5, 2, 15)).astype(np.uint8)
    table = register.to_table(values)
    assert table.shape == (5, 2, 3, 5)
    np.testing.assert_array_equal(register.from_table(table), values)
    np.testing.assert_array_equal(register.to_table(register.from_table(table)), table)


@pytest.mark.parametrize("order", ORDERS)
def test_blocks(order: str):
    register = Register(n_inputs=3, n_outputs=2, order=order)
    assert register.block_outputs.tolist() == ([0, 1] if order == "class" else [1, 0])
    assert register.block_inputs.tolist() == ([0, 1, 2, 3] if order == "class" else [3, 2, 1, 0])


@pytest.mark.parametrize("site", [-1, 9])
def test_role_refuses_sites_outside_the_chain(site: int):
    with refuses(f"site must be in 0..8, got {site}"):
        Register(2, 3).role(site)


@pytest.mark.parametrize(
    ("order", "near"), [("clas", "class"), ("class-reverse", "class-reversed")]
)
def test_register_refuses_unknown_orders(order: str, near: str):
    with refuses(
        f"order must be one of class, class-reversed, got {order!r}; did you mean {near!r}?"
    ):
        Register(2, 3, order=order)


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
    forward = Network((dense,)).decode(bits)
    np.testing.assert_array_equal(forward.weights, [[[1, -3], [1, 1]]])
    np.testing.assert_array_equal(forward.biases, [[-3, -3]])
    backward = Network((dense,), order="class-reversed").decode(bits)
    np.testing.assert_array_equal(backward.weights, [[[-3, 1], [-3, -3]]])
    np.testing.assert_array_equal(backward.biases, [[1, 1]])


def test_decode_without_bias():
    layer = Network((Dense(3, 2, bias=False),)).decode(np.zeros((4, 6), np.uint8))
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
        ({"layers": ()}, "exactly one Dense layer (a linear network), got 0"),
        (
            {"layers": (Dense(4, 3), Dense(3, 2))},
            "exactly one Dense layer (a linear network), got 2",
        ),
        ({"logit_scale": 0.0}, "logit_scale must be a positive finite number, got 0.0"),
        ({"logit_scale": -0.3}, "logit_scale must be a positive finite number, got -0.3"),
        ({"logit_scale": float("nan")}, "logit_scale must be a positive finite number, got nan"),
        ({"logit_scale": float("inf")}, "logit_scale must be a positive finite number, got inf"),
        ({"order": "neuron"}, "order must be one of class, class-reversed, got 'neuron'"),
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
