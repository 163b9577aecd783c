"""Circuits on graphs: which gates there are, their states, and what these say about networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.circuit import Brickwork, Graph
from hypercircuit.state import born, exact_mps, graph_statevector
from hypercircuit.state.born import _Contracted
from hypercircuit.state.contraction import Budget
from hypercircuit.state.paths import PathSearch

GRAPHS = {
    "ring": (Graph.ring(7, 4), 7),
    "ring-real": (Graph.ring(6, 5, "ry"), 6),
    "tree": (Graph.tree(9, 4), 9),
    "star": (Graph.star(7, 3, centre=2), 7),
    "grid": (Graph.grid(2, 3, 5, bias=True), 7),
    "grid-all": (Graph.grid(2, 3, 3, schedule="all"), 6),
    "centred": (Graph.centred([0, 1], [[2, 3, 4], [7, 6, 5]], 3), 8),
    "with-idle-qubit": (Graph([(3, 1), (1, 4)], 3, schedule="all"), 6),
}


graph_statevector_jit = jax.jit(graph_statevector, static_argnums=0)


slow = pytest.mark.slow


def layers(graph):
    return [graph.layer(number) for number in range(1, graph.depth + 1)]


def angles(graph, n_qubits, seed=3):
    return graph.init(jax.random.key(seed), n_qubits, how="uniform", dtype=np.float64)


# ---------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("n_qubits", "depth"), [(5, 4), pytest.param(5, 1, marks=slow), pytest.param(6, 5, marks=slow)]
)
def test_path_is_the_brickwork(n_qubits, depth):
    params = angles(Graph.path(n_qubits, depth), n_qubits)
    expected = oracles.brickwork_statevector(params)
    found = graph_statevector_jit(Graph.path(n_qubits, depth), params)
    np.testing.assert_allclose(found, expected, atol=1e-13)
    state = jax.jit(lambda p: exact_mps(Brickwork(depth), p).to_statevector())(params)
    np.testing.assert_allclose(state, expected, atol=1e-13)


def test_path_has_the_parameters_of_the_brickwork():
    key = jax.random.key(5)
    for how in ("near-uniform", "uniform"):
        ours = Graph.path(6, 3, "ry").init(key, 6, how=how, dtype=np.float64)
        theirs = Brickwork(3, "ry").init(key, 6, how=how, dtype=np.float64)
        np.testing.assert_array_equal(ours, theirs)


def test_layers_of_a_ring_of_five():
    graph = Graph.ring(5, 5)
    assert layers(graph) == [
        (),
        ((0, 1), (2, 3)),
        ((1, 2), (3, 4)),
        ((4, 0),),
        ((0, 1), (2, 3)),
    ]


def test_layers_of_a_star_apply_every_edge():
    assert layers(Graph.star(4, 3, centre=1)) == [(), *[((1, 0), (1, 2), (1, 3))] * 2]


def test_tree_edges():
    assert Graph.tree(6, 2).edges == ((0, 1), (0, 2), (1, 3), (1, 4), (2, 5))


def test_grid_layers_make_pairs_then_squares():
    graph = Graph.grid(3, 4, 5, bias=True)
    assert graph.layer(2) == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11))
    assert graph.layer(3) == ((0, 4), (1, 5), (2, 6), (3, 7), (11, 12))
    assert graph.layer(4) == ((1, 2), (5, 6), (9, 10))
    assert graph.layer(5) == ((4, 8), (5, 9), (6, 10), (7, 11))


def test_grid_copies_are_apart():
    graph = Graph.grid(2, 2, 3, bias=True, copies=2, start=1)
    assert graph.least_qubits == 11
    assert not any(a < 6 <= b for a, b in graph.edges)
    assert graph.edges[0] == (1, 2)


def test_centred_ties_every_centre_to_every_neuron():
    graph = Graph.centred([0, 1], [[2, 3], [4, 5]], 2)
    assert set(graph.edges) == {(0, 1), (0, 2), (0, 4), (1, 2), (1, 4), (2, 3), (4, 5)}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Graph([(0, 1)], 0), "depth must be at least 1, got 0"),
        (lambda: Graph([(0, 1)], 1, "rx"), "rotations must be one of"),
        (lambda: Graph([(0, 1)], 1, schedule="some"), "schedule must be one of colours, all"),
        (lambda: Graph([(0, 0)], 1), r"two different qubits counted from 0, got \(0, 0\)"),
        (lambda: Graph([(-1, 0)], 1), r"got \(-1, 0\)"),
        (lambda: Graph([(0, 1), (1, 0)], 1), r"must be there once, got \(1, 0\) again"),
        (lambda: Graph([(0, 1), (1, 2)], 1, colours=[0, 0]), r"colour 0 again at \(1, 2\)"),
        (lambda: Graph([(0, 1)], 1, colours=[1]), "from 0 without gaps"),
        (lambda: Graph.ring(2, 1), "at least 3 qubits, got 2"),
        (lambda: Graph.star(4, 1, centre=4), r"centre must be in 0..3, got 4"),
        (lambda: Graph.grid(0, 3, 1), "must be at least 1, got 0, 3, 1"),
        (lambda: Graph.centred([], [[0]], 1), "at least one architecture qubit, got none"),
        (lambda: Graph.ring(5, 2).shape(4), "lead to qubit 4, the register has 4 qubits"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.usefixtures("unchecked_types")
def test_edges_that_are_no_whole_numbers_are_refused():
    with pytest.raises(ValueError, match=r"two different qubits counted from 0, got \(0\.5, 1\)"):
        Graph([(0.5, 1)], 2)
    with pytest.raises(ValueError, match=r"two different qubits counted from 0, got \('r',\)"):
        Graph("ring", 2)
    assert Graph(np.array([[0, 1], [1, 2]]), 2).edges == ((0, 1), (1, 2))


# ---------------------------------------------------------------- states


@pytest.mark.parametrize(
    "name",
    [
        "ring",
        "with-idle-qubit",
        *(
            pytest.param(name, marks=slow)
            for name in ("ring-real", "tree", "star", "grid", "grid-all", "centred")
        ),
    ],
)
def test_statevector(name):
    graph, n_qubits = GRAPHS[name]
    params = angles(graph, n_qubits)
    expected = oracles.graph_statevector(params, layers(graph))
    np.testing.assert_allclose(graph_statevector_jit(graph, params), expected, atol=1e-13)


def test_statevector_refuses_many_qubits():
    with pytest.raises(ValueError, match="25 qubits does not fit"):
        graph_statevector(Graph.ring(25, 1), jnp.zeros((1, 25, 2)))


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return PathSearch(repeats=1, cache=tmp_path_factory.mktemp("paths"))


def by_amplitudes(graph, params, search):
    return born(graph, params)


def by_contractions(graph, params, search):
    return _Contracted(graph, params, Budget(), search)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("ring", by_amplitudes),
        pytest.param("star", by_amplitudes, marks=slow),
        pytest.param("ring", by_contractions, marks=slow),
        pytest.param("star", by_contractions, marks=slow),
    ],
)
def test_born_distribution(name, how, search):
    graph, n_qubits = GRAPHS[name]
    params = angles(graph, n_qubits)
    state = oracles.graph_statevector(params, layers(graph))
    table, bits = np.abs(state) ** 2, oracles.bits_table(n_qubits)
    sites = np.array([[1, 4], [5, 2]])
    found = how(graph, params, search)
    np.testing.assert_allclose(found.marginals(), oracles.marginals(state), atol=1e-12)
    joint = found.joint_probabilities(sites)
    for row, (i, j) in zip(joint, sites, strict=True):
        np.testing.assert_allclose(
            row, oracles.pair_probabilities(state, i, j).reshape(-1), atol=1e-12
        )
    chosen = bits[[3, 77, 100]]
    np.testing.assert_allclose(
        found.log_probability(chosen), np.log(table[[3, 77, 100]]), rtol=1e-10
    )
    best, logs = found.most_likely(64)
    np.testing.assert_array_equal(best[0], bits[table.argmax()])
    np.testing.assert_allclose(logs[0], np.log(table.max()))
    drawn, logs = found.sample(jax.random.key(1), 500)
    codes = np.asarray(drawn, int) @ 2 ** np.arange(n_qubits)[::-1]
    np.testing.assert_allclose(logs, np.log(table[codes]), rtol=1e-9)
    # Mean and deviation of the energy that the logs are themselves.
    mean = table @ np.log(table)
    deviation = np.sqrt(table @ (np.log(table) - mean) ** 2 / 500)
    assert abs(np.mean(logs) - mean) < 4 * deviation


@slow
def test_large_register_is_sampled_by_contractions(search):
    graph = Graph.ring(30, 3)
    params = graph.init(jax.random.key(0), 30, how="uniform", dtype=np.float64)
    found = born(graph, params, search=search)
    drawn, logs = found.sample(jax.random.key(1), 6)
    assert drawn.shape == (6, 30)
    assert len(np.unique(np.asarray(drawn), axis=0)) > 1
    np.testing.assert_allclose(found.log_probability(drawn), logs, rtol=1e-9)
    best, best_logs = found.most_likely(6)
    assert best_logs[0] >= logs.max()
    np.testing.assert_allclose(found.log_probability(best), best_logs, rtol=1e-9)


def test_decoding_refuses_what_is_too_much(search):
    graph = Graph.ring(30, 3)
    params = graph.init(jax.random.key(0), 30)
    found = born(graph, params, budget=Budget(max_flops=1e4), search=search)
    with pytest.raises(ValueError, match=r"30 contractions of 7 networks.*max_flops is 10 kflops"):
        found.check(7)


def test_graph_has_no_matrix_product_state():
    with pytest.raises(Exception, match="Graph"):
        exact_mps(Graph.ring(5, 2), jnp.zeros((2, 5, 2)))
