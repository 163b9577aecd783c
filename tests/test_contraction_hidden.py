"""Contracted energies of networks with one hidden layer on graphs: brute force, slopes, chains."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from hidden_problems import (
    ACTIVATION,
    ENCODING,
    GATE,
    OWN_ACTIVATION,
    OWN_ENCODING,
    SCALE,
    SKIP,
    TWO_ENCODINGS,
    Hidden,
)
from hypercircuit.circuit import Brickwork, Graph
from hypercircuit.config import Config
from hypercircuit.energy import Contraction, Exact
from hypercircuit.hamiltonian import FourierExtension, Lattice
from hypercircuit.problem import build_problem
from hypercircuit.run import train_run

slow = pytest.mark.slow


def graph_of(name: str, n: int) -> Graph:
    """Graphs without symmetry, or whose centre is no end."""
    if name == "mixed":
        return Graph([(n - 1, 0), (0, 3), (3, n - 2), (1, 2), (4, 1)], 3, "ry", schedule="all")
    makers = {"ring": Graph.ring, "tree": Graph.tree, "star": Graph.star}
    return makers[name](n, 3)


def start(graph: Graph, n_qubits: int):
    return graph.init(jax.random.key(1), n_qubits, how="uniform", dtype=np.float64)


def born(graph: Graph, params) -> np.ndarray:
    layers = [graph.layer(number) for number in range(1, graph.depth + 1)]
    return np.abs(oracles.graph_statevector(params, layers)) ** 2


@pytest.fixture(scope="module")
def kind(tmp_path_factory) -> Contraction:
    return Contraction(repeats=1, cache=tmp_path_factory.mktemp("paths"))


CASES = [
    # patterns of few incoming bits, a gate
    ("star", Hidden("logistic", (2, 2, 1), choices=(GATE,))),
    # a lattice, two outputs, reversed
    ("ring", Hidden("logistic", (2, 2, 2), 0.5, "relu", order="neuron-reversed")),
    # derivatives; skip connections; global choices
    ("tree", Hidden("squared", (2, 2, 2), 0.5, "relu", skip=True, bias=False)),
]
SLOW = [
    ("star", Hidden("logistic", (2, 2, 1), 0.25, choices=(GATE,), expansion=Lattice(), bias=False)),
    ("mixed", Hidden("sigmoid-squared", (2, 2, 1), choices=(GATE, ENCODING))),
    ("mixed", Hidden("sigmoid-squared", (2, 2, 1), choices=(ACTIVATION,), order="neuron-reversed")),
    ("tree", Hidden("logistic", (1, 2, 2), choices=(OWN_ACTIVATION,), order="neuron-reversed")),
    ("ring", Hidden("squared", (2, 2, 1), 0.5, choices=(OWN_ACTIVATION, GATE), bias=False)),
    ("mixed", Hidden("pairwise-logistic", (2, 1, 3), 0.5, choices=(GATE,), skip=True)),
    ("ring", Hidden("pairwise-logistic", (3, 1, 3), 0.5, "relu", expansion=Lattice())),
    ("ring", Hidden("logistic", (2, 2, 1), 0.5, "relu", choices=(SKIP, SCALE))),
    ("star", Hidden("logistic", (2, 2, 1), 0.5, choices=(SCALE, OWN_ENCODING))),
    ("ring", Hidden("zero-one", (2, 3, 1), 0.5, choices=(GATE,), bias=False)),
    ("star", Hidden("hinge", (4, 1, 1), 0.5, expansion=Lattice(), skip=True, idle=2)),
    (
        "ring",
        Hidden("logistic", (2, 2, 1), activation="tanh", expansion=FourierExtension(), skip=True),
    ),
    (
        "tree",
        Hidden(
            "logistic",
            (2, 2, 1),
            activation="tanh",
            choices=(TWO_ENCODINGS,),
            hidden_scale=0.3,
            expansion=FourierExtension(),
        ),
    ),
]


@pytest.mark.parametrize(
    ("graph", "case"),
    [*CASES, *(pytest.param(*each, marks=slow) for each in SLOW)],
    ids=lambda each: each if isinstance(each, str) else each.loss,
)
def test_energy_is_the_mean_loss(graph, case, kind):
    hamiltonian = case.compile()
    circuit = graph_of(graph, hamiltonian.n_qubits)
    params = start(circuit, hamiltonian.n_qubits)
    energy = kind.prepare(hamiltonian, circuit, batch_size=5, dtype=np.float64)
    found = energy.value_function()(params, energy.batch(np.arange(5)))
    expected = born(circuit, params) @ case.example_losses
    np.testing.assert_allclose(found, expected, atol=hamiltonian.spectral_error + 1e-9)


@pytest.mark.parametrize(
    "case",
    [
        Hidden("logistic", (3, 2, 1), 0.5, expansion=Lattice(), choices=(GATE,), bias=False),
        pytest.param(Hidden("squared", (2, 2, 1), choices=(ENCODING,)), marks=slow),
        pytest.param(Hidden("pairwise-logistic", (2, 1, 3), 0.5, skip=True), marks=slow),
    ],
    ids=lambda case: case.loss,
)
def test_gradient_is_that_of_finite_differences(case, kind):
    hamiltonian = case.compile()
    graph = Graph.ring(hamiltonian.n_qubits, 2)
    params = start(graph, hamiltonian.n_qubits)
    one_by_one = Contraction(6e4, repeats=1, cache=kind.cache)
    energy = one_by_one.prepare(hamiltonian, graph, batch_size=4, dtype=np.float64)
    batch = energy.batch(np.array([0, 3, 2]), np.array([0.5, 0.2, 0.3]))
    value, gradient = jax.jit(jax.value_and_grad(energy))(params, batch)
    weights = np.array([0.5, 0.2, 0.3])
    expected = born(graph, params) @ case.example_losses[:, [0, 3, 2]] @ weights
    np.testing.assert_allclose(value, expected, atol=hamiltonian.spectral_error + 1e-9)
    rng = np.random.default_rng(1)
    energy_of = jax.jit(energy)
    for _ in range(3):
        way = rng.normal(size=params.shape)
        slope = energy_of(params + 1e-5 * way, batch) - energy_of(params - 1e-5 * way, batch)
        np.testing.assert_allclose(np.vdot(gradient, way), slope / 2e-5, atol=1e-7)


@slow
@pytest.mark.parametrize("order", ["neuron", "neuron-reversed"])
def test_brickwork_energy_is_the_exact_one(order, kind):
    case = Hidden("logistic", (11, 3, 2), 0.5, "relu", order=order, choices=(GATE,))
    hamiltonian, circuit = case.compile(), Brickwork(3)
    params = circuit.init(jax.random.key(2), hamiltonian.n_qubits, how="uniform", dtype=np.float64)
    found = []
    for each in (kind, Exact()):
        energy = each.prepare(hamiltonian, circuit, batch_size=5, dtype=np.float64)
        found.append(energy.value_function()(params, energy.batch(np.arange(5))))
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


TINY = {
    "data": {
        "classes": [0, 1],
        "downsample": "mean",
        "size": [3, 2],
        "pixels": "binarise",
        "threshold": 60,
        "n_train": 40,
    },
    "network": {
        "outputs": 1,
        "hidden": [2],
        "choices": [{"set": "encoding", "options": [[-1, 1], [0, 1]]}, {"set": "gate"}],
    },
    "loss": {"kind": "logistic"},
    "circuit": {"ansatz": "graph", "edges": "architecture", "depth": 2},
    "train": {"steps": 4, "batch_size": 10, "evaluate_every": 2, "checkpoint_every": 2},
    "decode": {"samples": 5, "beam": 2},
}


def test_a_run_with_a_qubit_tied_to_every_neuron(tmp_path: Path, kind):
    config = Config.from_dict({**TINY, "energy": {"kind": "auto", "path_cache": str(kind.cache)}})
    problem = build_problem(config)
    circuit = problem.circuit
    assert isinstance(circuit, Graph)
    # Bit of the encoding, then per neuron six weights, a bias, a gate and an outgoing weight.
    ties = {edge for edge in circuit.edges if edge[0] == 0}
    assert ties == {(0, 1), (0, 10)}
    chains = {(i, i + 1) for first in (1, 10) for i in range(first, first + 8)}
    assert set(circuit.edges) == ties | chains
    with jax.enable_x64(False):
        result = train_run(config, tmp_path / "run", report=lambda line: None)
    assert result["status"] == "finished"
    assert result["energy_kind"] == "contraction"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["energy"] < 0.8
