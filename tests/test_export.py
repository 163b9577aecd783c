"""What leaves the package: circuits as OpenQASM 3, networks as npz and ONNX files."""

import json
import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from hypercircuit.bnn import (
    PUBLISHED_ENCODINGS,
    Dense,
    Encoding,
    Network,
    activation_choice,
    encoding_choice,
    neuron_gates,
    save_network,
    save_onnx,
    scale_choice,
    skip_choice,
    to_onnx,
)
from hypercircuit.circuit import Brickwork, Graph, save_qasm, to_qasm

CIRCUITS = {
    "brickwork": (Brickwork(4), 6),
    "brickwork-odd": (Brickwork(5), 5),
    "brickwork-real": (Brickwork(3, "ry"), 5),
    "product": (Brickwork(1), 3),
    "ring": (Graph.ring(5, 4), 5),
    "star": (Graph.star(6, 3, centre=4), 6),
    "one-qubit": (Brickwork(3), 1),
}


def angles(circuit, n_qubits, dtype=np.float64):
    return circuit.init(jax.random.key(8), n_qubits, how="uniform", dtype=dtype)


def statevector(circuit, params):
    n_qubits = params.shape[1]
    layers = [
        circuit.layer(number)
        if isinstance(circuit, Graph)
        else [(site, site + 1) for site in range(number % 2, n_qubits - 1, 2)]
        for number in range(1, circuit.depth + 1)
    ]
    return oracles.graph_statevector(params, layers)


# ---------------------------------------------------------------- OpenQASM 3

LINE = re.compile(r"(cx) q\[(\d+)\], q\[(\d+)\];|(ry|rz)\((\S+)\) q\[(\d+)\];")


@pytest.mark.parametrize("name", CIRCUITS)
def test_qasm_makes_the_state_gate_by_gate(name: str):
    circuit, n_qubits = CIRCUITS[name]
    params = angles(circuit, n_qubits)
    head, *gates = to_qasm(circuit, params).split(f"qubit[{n_qubits}] q;\n")
    assert head == 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
    bits = oracles.bits_table(n_qubits).astype(int)
    powers = 2 ** np.arange(n_qubits)[::-1]
    state = np.zeros(2**n_qubits, complex)
    state[0] = 1
    for line in gates[0].splitlines():
        cx, control, target, rotation, angle, site = LINE.fullmatch(line).groups()
        if cx:
            flipped = bits.copy()
            flipped[:, int(target)] ^= bits[:, int(control)]
            state = state[flipped @ powers]
        else:
            pauli = {"ry": oracles.PAULI_Y, "rz": oracles.PAULI_Z}[rotation]
            gate = oracles.rotation(pauli, float(angle))
            state = oracles.apply_gate(state, gate, int(site), n_qubits)
    np.testing.assert_allclose(state, statevector(circuit, params), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", CIRCUITS)
def test_qiskit_reads_the_same_state(name: str):
    pytest.importorskip("qiskit_qasm3_import", reason="needs the extra qiskit")
    from qiskit import qasm3
    from qiskit.quantum_info import Statevector

    circuit, n_qubits = CIRCUITS[name]
    params = angles(circuit, n_qubits)
    read = qasm3.loads(to_qasm(circuit, params))
    # Qiskit's qubit 0 is the least significant bit of an index.
    found = Statevector(read.reverse_bits()).data
    np.testing.assert_allclose(found, statevector(circuit, params), rtol=0, atol=1e-12)


def test_qiskit_reads_the_measurement():
    pytest.importorskip("qiskit_qasm3_import", reason="needs the extra qiskit")
    from qiskit import qasm3
    from qiskit.primitives import StatevectorSampler

    params = np.pi * np.array([[[0.0], [1.0], [1.0]]])  # surely the bits 0, 1, 1
    read = qasm3.loads(to_qasm(Brickwork(1, "ry"), jax.numpy.asarray(params), measure=True))
    counts = StatevectorSampler(seed=1).run([read], shots=20).result()[0].data.c.get_counts()
    assert counts == {"110": 20}  # Qiskit prints the last bit first


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_angles_come_back_digit_for_digit(dtype: type):
    circuit = Brickwork(2)
    params = np.asarray(angles(circuit, 3, dtype)).copy()
    params[1, 2] = [-1e-30, 3e-7]
    text = to_qasm(circuit, jax.numpy.asarray(params))
    found = np.array([float(each) for each in re.findall(r"r[yz]\((\S+)\)", text)], dtype)
    np.testing.assert_array_equal(found, params.ravel())


def test_notes_are_comments_of_the_header():
    circuit = Brickwork(2)
    params = angles(circuit, 3)
    plain = to_qasm(circuit, params)
    version, rest = plain.split("\n", 1)
    noted = to_qasm(circuit, params, notes=["one", "two\nh q[0];"])
    assert noted == f"{version}\n// one\n// two\n// h q[0];\n{rest}"


def test_large_circuit_streams_in_seconds(tmp_path: Path):
    circuit, n_qubits = Brickwork(4), 50_890
    params = angles(circuit, n_qubits, np.float32)
    begun = time.perf_counter()
    save_qasm(tmp_path / "large.qasm", circuit, params, measure=True)
    assert time.perf_counter() - begun < 20
    with open(tmp_path / "large.qasm") as file:
        lines = file.readlines()
    n_pairs = 25_445 + 25_444 + 25_445
    assert len(lines) == 3 + n_pairs + 8 * n_qubits + 2
    assert lines[-1] == "c = measure q;\n"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((2, 4, 1), 0.5, r"params must have shape \(2, 4, 2\) for 4 qubits, got \(2, 4, 1\)"),
        ((2, 4, 2), np.nan, r"params must be finite, got nan at \[0, 0, 0\]"),
    ],
)
def test_angles_that_are_no_circuit_are_refused(shape, value, message: str, tmp_path: Path):
    params = jax.numpy.full(shape, value)
    with pytest.raises(ValueError, match=message):
        save_qasm(tmp_path / "no.qasm", Brickwork(2), params)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- ONNX

ALL = ("sign", "relu", "sigmoid", "tanh", "hardtanh")
#: Networks of every kind, and the lattice of their inputs.
NETWORKS = {
    "linear": (Network((Dense(4, 3),)), None),
    "linear-one-output": (
        Network((Dense(5, 1, False, Encoding(-3.0, 1.0)),), logit_scale=1.0),
        None,
    ),
    "linear-lattice": (Network((Dense(4, 3),), logit_scale=0.7), 0.25),
    "linear-choices": (
        Network(
            (Dense(3, 2),),
            choices=(encoding_choice(PUBLISHED_ENCODINGS), scale_choice([0.2, 0.9])),
        ),
        None,
    ),
    **{
        f"hidden-{name}": (
            Network((Dense(4, 5), Dense(5, 2)), activation=name, hidden_scale=0.4),
            None,
        )
        for name in ALL
    },
    "hidden-lattice": (Network((Dense(4, 6), Dense(6, 3)), skip=True), 1 / 3),
    "hidden-own": (
        Network(
            (Dense(3, 6), Dense(6, 2, False)),
            hidden_scale=0.6,
            choices=(
                activation_choice(ALL, scope="neuron"),
                neuron_gates(),
                encoding_choice([Encoding(-1.0, 1.0), Encoding(0.5, -1.5)], scope="neuron"),
                skip_choice(),
            ),
        ),
        None,
    ),
    "two-hidden": (
        Network(
            (Dense(3, 4), Dense(4, 5, False), Dense(5, 2)),
            activation=("relu", "tanh"),
            hidden_scale=0.7,
            skip=True,
            choices=(
                neuron_gates(layer=1),
                activation_choice(["sign", "hardtanh"], scope="neuron", layer=0),
            ),
        ),
        None,
    ),
}


def evaluated(model, x):
    reference = pytest.importorskip("onnx.reference")
    return reference.ReferenceEvaluator(model).run(None, {"x": x})[0]


def inputs(network, step, n=9):
    x = np.random.default_rng(4).normal(size=(n, network.n_inputs))
    return (x if step is None else step * np.rint(2 * x)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_has_the_logits_of_the_network(name: str):
    pytest.importorskip("onnx", reason="needs the extra onnx")
    network, step = NETWORKS[name]
    x = inputs(network, step)
    for bits in np.random.default_rng(5).integers(0, 2, (5, network.n_qubits), np.uint8):
        model = to_onnx(network, bits, step=step)
        found = evaluated(model, x)
        expected = network.logits(bits[None], x, step=step)[0]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_onnx_keeps_ties_of_a_lattice():
    """A sum of weights times thirds that is zero is zero, so that its sign is +1."""
    pytest.importorskip("onnx", reason="needs the extra onnx")
    network = Network((Dense(6, 1, False), Dense(1, 1, False)), logit_scale=1.0)
    x = np.float32(1 / 3) * np.array([[1, 2, 3, 3, 2, 1], [1, 1, 1, 1, 1, 2]], np.float32)
    bits = np.array([1, 1, 1, 0, 0, 0, 1], np.uint8)
    found = evaluated(to_onnx(network, bits, step=1 / 3), x)
    np.testing.assert_array_equal(found, [[1], [-1]])


def test_onnx_against_the_oracle():
    pytest.importorskip("onnx", reason="needs the extra onnx")
    network = Network(
        (Dense(3, 2), Dense(2, 3)),
        logit_scale=0.4,
        hidden_scale=0.8,
        choices=(activation_choice(ALL), skip_choice(), neuron_gates()),
    )
    bits = np.random.default_rng(6).integers(0, 2, (6, network.n_qubits), np.uint8)
    x = inputs(network, None, 4)
    expected = oracles.network_logits(
        bits,
        x,
        (3, 2, 3),
        logit_scale=0.4,
        hidden_scale=0.8,
        order="neuron",
        choices=[
            {"setting": "activation", "options": ALL, "scope": "network"},
            {"setting": "skip", "options": (False, True), "scope": "network"},
            {"setting": "gate", "options": (0.0, 1.0), "scope": "neuron"},
        ],
    )
    for row, logits in zip(bits, expected, strict=True):
        found = evaluated(to_onnx(network, row), x)
        np.testing.assert_allclose(found, logits, rtol=2e-6, atol=2e-6)


def test_onnx_file_says_what_its_numbers_mean(tmp_path: Path):
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    network, _ = NETWORKS["linear"]
    bits = np.zeros(network.n_qubits, np.uint8)
    save_onnx(
        tmp_path / "n.onnx", network, bits, labels=(3, 5, 8), preprocessing={"pixels": "scale"}
    )
    model = onnx.load(tmp_path / "n.onnx")
    notes = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert notes == {"labels": [3, 5, 8], "preprocessing": {"pixels": "scale"}}
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert (dimensions[0].dim_param, dimensions[1].dim_value) == ("n", 4)
    assert evaluated(model, np.zeros((0, 4), np.float32)).shape == (0, 3)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    network, _ = NETWORKS["linear"]
    with pytest.raises(ValueError, match=r"pip install 'hypercircuit\[onnx\]'"):
        to_onnx(network, np.zeros(network.n_qubits, np.uint8))


# ---------------------------------------------------------------- npz


def test_npz_holds_encodings_labels_and_preprocessing(tmp_path: Path):
    own = encoding_choice([Encoding(-1.0, 1.0), Encoding(0.5, -1.5)], scope="neuron")
    network = Network((Dense(2, 3), Dense(3, 2, encoding=Encoding(-3.0, 1.0))), choices=(own,))
    bits = np.random.default_rng(7).integers(0, 2, network.n_qubits).astype(np.uint8)
    bits[network.register.choices[0][:, 0]] = [1, 0, 1]
    save_network(tmp_path / "n.npz", network, bits, labels=(4, 9), preprocessing={"rows": [1, 2]})
    with np.load(tmp_path / "n.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["encoding_0"], [[0.5, -1.5], [-1, 1], [0.5, -1.5]])
        np.testing.assert_array_equal(file["encoding_1"], [[-3, 1], [-3, 1]])
        np.testing.assert_array_equal(file["labels"], [4, 9])
        assert json.loads(str(file["preprocessing"])) == {"rows": [1, 2]}
        stored = bits[network.register.weights[0]]
        rows = np.arange(3)[:, None]
        values = file["encoding_0"][rows, stored]
        np.testing.assert_array_equal(values[:, :-1], file["weights_0"])
        np.testing.assert_array_equal(values[:, -1], file["biases_0"])
