"""Contracted energies: against brute force, other energies, finite differences; budgets, cones."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oracles
from hypercircuit.bnn import Dense, Network
from hypercircuit.circuit import Brickwork, Graph
from hypercircuit.config import Config, ConfigError, load_config
from hypercircuit.energy import MPO, Contraction, Exact, Sampled, Statevector
from hypercircuit.hamiltonian import Logistic, Softmax, compile_loss
from hypercircuit.problem import build_problem
from hypercircuit.run import marginals_run, sample_run, train_run
from hypercircuit.state.balance import balance
from hypercircuit.state.contraction import Budget, ContractionCost, in_batches, plan_contraction
from hypercircuit.state.paths import PathSearch, default_cache
from hypercircuit.state.worldlines import as_graph, worldlines
from hypercircuit.train import LBFGS, KLPenalty, Schedule, train
from problems import PROBLEMS, Problem

GRAPHS = {
    "ring": lambda n: Graph.ring(n, 4),
    "star": lambda n: Graph.star(n, 3, centre=1),
    "tree": lambda n: Graph.tree(n, 3),
    "path": lambda n: Graph.path(n, 4),
    "mixed": lambda n: Graph([(n - 1, 0), (0, 3), (3, n - 2), (1, 2)], 3, "ry", schedule="all"),
}
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("paths")


@pytest.fixture
def kind(cache):
    return Contraction(repeats=1, cache=cache)


def compiled(name: str):
    problem = PROBLEMS[name]
    return compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-4)


def angles(graph, n_qubits, seed=1):
    return graph.init(jax.random.key(seed), n_qubits, how="uniform", dtype=np.float64)


def probabilities(graph, params):
    layers = [graph.layer(number) for number in range(1, graph.depth + 1)]
    return np.abs(oracles.graph_statevector(params, layers)) ** 2


def energies(kind, hamiltonian, circuit, params):
    n = hamiltonian.n_examples
    energy = kind.prepare(hamiltonian, circuit, batch_size=n, dtype=np.float64)
    return np.asarray(energy.value_function()(params, energy.batch(np.arange(n))))


# ---------------------------------------------------------------- product operators


@pytest.mark.parametrize(
    ("name", "max_bytes"),
    [
        ("ring", 2e3),
        ("star", 2e9),
        *(
            pytest.param(*each, marks=slow)
            for each in (("ring", 2e9), ("star", 2e3), ("mixed", 2e9), ("mixed", 2e3))
        ),
    ],
)
def test_product_operators(name, max_bytes, cache):
    n_qubits, sites, n_terms = 7, [1, 4, 5], 5
    graph = GRAPHS[name](n_qubits)
    params = angles(graph, n_qubits)
    lines = worldlines(graph, sites)
    network = plan_contraction(
        lines,
        dict.fromkeys(lines.sites, ("b",)),
        ("b",),
        {},
        terms=n_terms,
        itemsize=16,
        budget=Budget(max_bytes),
        search=PathSearch(1, cache),
    )
    if name == "ring":
        assert (network.cost.slices > 1) == (max_bytes == 2e3)
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, n_terms, len(sites), 2))
    factors = factors[0] + 1j * factors[1]

    @jax.jit
    def values(params):
        def some(part):
            return network(lines.gates(params), {("b",): jnp.swapaxes(part, 0, 1)})

        return in_batches(some, jnp.asarray(factors), n_terms, network.terms_at_once)

    table, bits = probabilities(graph, params), oracles.bits_table(n_qubits)
    for found, term in zip(values(params), factors, strict=True):
        diagonal = np.prod([term[k][bits[:, site]] for k, site in enumerate(sites)], axis=0)
        np.testing.assert_allclose(found, table @ diagonal, atol=1e-12)


def test_light_cone_leaves_the_rest_out():
    graph = Graph.ring(100, 3)
    assert worldlines(graph, [50]).qubits == (48, 49, 50, 51)
    assert worldlines(Graph.ring(100, 1), [7, 3]).qubits == (3, 7)
    star = worldlines(Graph.star(50, 2, centre=9), [3])
    assert star.qubits == (3, 9)


def test_centre_has_one_index_a_layer():
    lines = worldlines(Graph.star(40, 3), range(40))
    centre = lines.tensors[0]
    assert len(centre.indices) == 2
    assert len(lines.tensors) == 40


def test_names_of_qubits_do_not_matter():
    graph = Graph.ring(100, 4)
    assert worldlines(graph, [20, 21]).key == worldlines(graph, [60, 61]).key
    assert worldlines(graph, [20, 21]).key != worldlines(graph, [21, 22]).key


def test_balance_flattens_a_product():
    n = 16
    inputs = [("u", f"v{k}") for k in range(n)] + [(f"v{k}",) for k in range(n)]
    sizes = {"u": 4} | {f"v{k}": 4 for k in range(n)}
    merges = [(k, n + k) for k in range(n)]
    merges += [(2 * n, 2 * n + 1)] + [(3 * n + k, 2 * n + 2 + k) for k in range(n - 2)]
    flat = balance(merges, inputs, ("u",), sizes)
    depth = [0] * len(inputs)
    for a, b in flat:
        depth.append(1 + max(depth[a], depth[b]))
    assert sorted(node for pair in flat for node in pair) == list(range(len(depth) - 1))
    assert depth[-1] <= 6


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("problem", "graph"),
    [
        ("logistic-real", "ring"),
        pytest.param("squared-two", "star", marks=slow),
        pytest.param("zero-one-three", "tree", marks=slow),
        pytest.param("encoding-choice", "mixed", marks=slow),
        pytest.param("one-vs-rest", "star", marks=slow),
        pytest.param("sigmoid-squared-two", "ring", marks=slow),
        pytest.param("pairwise", "ring", marks=slow),
        pytest.param("pairwise-lattice", "mixed", marks=slow),
        pytest.param("softmax-reversed", "ring", marks=slow),
        pytest.param("softmax-quarters", "mixed", marks=slow),
        pytest.param("softmax-blank", "star", marks=slow),
        pytest.param("softmax-choices", "ring", marks=slow),
        pytest.param("softmax-choices-reversed", "tree", marks=slow),
        pytest.param("squared-choice", "ring", marks=slow),
        pytest.param("squared-one", "tree", marks=slow),
        pytest.param("zero-one-reversed", "mixed", marks=slow),
    ],
)
def test_energy_is_the_mean_loss(problem, graph, kind):
    hamiltonian = compiled(problem)
    circuit = GRAPHS[graph](hamiltonian.n_qubits)
    params = angles(circuit, hamiltonian.n_qubits)
    expected = probabilities(circuit, params) @ PROBLEMS[problem].example_losses
    found = energies(kind, hamiltonian, circuit, params)
    np.testing.assert_allclose(found, expected, atol=hamiltonian.spectral_error + 1e-9)


@slow
@pytest.mark.parametrize("problem", ["logistic-gaps", "softmax-sparse-odd"])
def test_brickwork_energy_is_the_exact_one(problem, kind):
    hamiltonian, circuit = compiled(problem), Brickwork(4)
    params = circuit.init(jax.random.key(2), hamiltonian.n_qubits, how="uniform", dtype=np.float64)
    exact = energies(Exact(), hamiltonian, circuit, params)
    np.testing.assert_allclose(energies(kind, hamiltonian, circuit, params), exact, atol=1e-9)


@pytest.mark.parametrize(
    ("problem", "max_bytes"),
    [
        ("logistic-gaps", 2e5),
        pytest.param("softmax-choice-even", 2e9, marks=slow),
        pytest.param("squared-two", 2e9, marks=slow),
    ],
)
def test_gradient_is_that_of_finite_differences(problem, max_bytes, cache):
    hamiltonian = compiled(problem)
    graph = Graph.ring(hamiltonian.n_qubits, 3)
    params = angles(graph, hamiltonian.n_qubits)
    kind = Contraction(max_bytes, repeats=1, cache=cache)
    energy = kind.prepare(hamiltonian, graph, batch_size=4, dtype=np.float64)
    if max_bytes < 1e9:
        assert energy.cost.terms_at_once < energy.cost.terms
    batch = energy.batch(np.array([0, 3, 5]), np.array([0.5, 0.2, 0.3]))
    gradient = jax.jit(jax.grad(energy))(params, batch)
    value = jax.jit(energy)
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = rng.normal(size=params.shape)
        slope = value(params + 1e-5 * direction, batch) - value(params - 1e-5 * direction, batch)
        np.testing.assert_allclose(np.vdot(gradient, direction), slope / 2e-5, atol=1e-7)


def grid_with_bias():
    problem = Problem("logistic", 1, 6, step=0.25, encoding=(-3.0, 1.0))
    return problem, Graph.grid(2, 3, 5, "ry", bias=True)


def centred_on_an_encoding():
    problem = Problem("squared", 2, 2, encodings=((-1.0, 1.0), (-3.0, 1.0)))
    centres = sorted(map(int, problem.network.global_sites))
    others = [site for site in range(problem.network.n_qubits) if site not in centres]
    # Neurons of unequal length, one of them read backwards.
    return problem, Graph.centred(centres, [others[:2], others[:1:-1]], 3)


@pytest.mark.parametrize("build", [grid_with_bias, centred_on_an_encoding])
def test_energy_and_gradient_are_those_of_the_statevector(build, kind):
    problem, graph = build()
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-6)
    n_qubits, n = hamiltonian.n_qubits, hamiltonian.n_examples
    params = np.asarray(angles(graph, n_qubits))
    losses = problem.example_losses
    weights = np.linspace(1, 2, n) / np.linspace(1, 2, n).sum()

    def expected(values):
        # The oracle rotates by Ry and Rz.
        missing = [(0, 0), (0, 0), (0, 2 - values.shape[2])]
        return probabilities(graph, np.pad(values, missing)) @ losses @ weights

    energy = kind.prepare(hamiltonian, graph, batch_size=n, dtype=np.float64)
    batch = energy.batch(np.arange(n), weights)
    value, gradient = jax.jit(jax.value_and_grad(energy))(params, batch)
    bound = hamiltonian.spectral_error + 1e-9
    np.testing.assert_allclose(value, expected(params), atol=bound)
    slopes = oracles.finite_difference_gradient(expected, params, 1e-5)
    assert np.abs(slopes).max() > 0.01
    # A slope is a difference of energies, (E(angle + pi/2) - E(angle - pi/2)) / 2.
    np.testing.assert_allclose(gradient, slopes, atol=bound + 1e-7)


@slow
def test_float32_is_close(kind):
    hamiltonian = compiled("logistic-real")
    graph = Graph.ring(hamiltonian.n_qubits, 4)
    params = angles(graph, hamiltonian.n_qubits)
    exact = energies(kind, hamiltonian, graph, params)
    energy = kind.prepare(hamiltonian, graph, batch_size=7, dtype=np.float32)
    found = energy.value_function()(params.astype(np.float32), energy.batch(np.arange(7)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=1e-5)


# ---------------------------------------------------------------- cost and refusals


def linear_problem(n_inputs, kind=Logistic):
    problem = PROBLEMS["logistic-real"]
    rng = np.random.default_rng(0)
    data = problem.data
    data = type(data)(
        x=rng.uniform(size=(2, n_inputs)).astype(np.float32),
        y=np.array([0, 1], np.int32),
        n_classes=2,
        image_shape=None,
        step=None,
        name="wide",
    )
    return compile_loss(Network((Dense(n_inputs, 1, bias=False),), logit_scale=0.1), data, kind())


def test_cost_says_what_a_batch_takes(kind):
    hamiltonian = linear_problem(36)
    graph = Graph.grid(6, 6, 4)
    cost = kind.estimate(hamiltonian, graph, batch_size=2)
    assert cost.n_tensors >= 36
    assert cost.flops > 1e5
    assert cost.terms == 64
    assert not cost.cached
    assert "terms" in cost.describe()
    assert "flops" in cost.describe()
    again = kind.estimate(hamiltonian, graph, batch_size=2)
    assert again.cached
    assert (again.flops, again.bytes) == (cost.flops, cost.bytes)
    assert kind.estimate(hamiltonian, graph, batch_size=1).flops < cost.flops


@slow
def test_too_much_memory_is_refused(cache):
    hamiltonian = linear_problem(100)
    graph = Graph.grid(10, 10, 5)
    with pytest.raises(ValueError, match=r"needs .*bytes .*max_bytes is 1 Mbytes; raise max_bytes"):
        Contraction(1e6, repeats=1, cache=cache).prepare(hamiltonian, graph, batch_size=1)


@pytest.mark.parametrize(
    ("slices", "n_bytes", "refined", "words"),
    [
        (64, 1e6, True, "needs 1 Mbytes even in 64 slices (largest tensor 2^20.0 entries a term),"),
        (1, 1e6, True, "needs 1 Mbytes in one piece (largest tensor 2^20.0 entries a term),"),
        (1, 1e9, True, "1 Gbytes in one piece, for which 4096 slices would not make up (largest"),
        (1, 1e9, False, "(largest tensor 2^20.0 entries a term, by a rough path), max_bytes is"),
    ],
)
def test_refusal_says_what_was_tried(slices, n_bytes, refined, words):
    cost = ContractionCost(1e6, n_bytes, 8, 1, slices, 20.0, 5, 4, 0.1, False, refined)
    with pytest.raises(ValueError, match=re.escape(words)):
        cost.check(Budget(max_bytes=1e5))
    assert ("a rough one" in cost.describe()) is not refined
    with pytest.raises(ValueError, match=re.escape("take 1 Mflops (8 terms, ")):
        cost.check(Budget(max_bytes=1e12, max_flops=1e5))


def test_no_path_is_refined_for_a_budget_far_below_it(tmp_path, monkeypatch):
    edges = [(i, j) for i in range(10) for j in range(i)]
    hamiltonian, graph = linear_problem(10), Graph(edges, 2, schedule="all")
    small = Contraction(max_bytes=0.01, repeats=1, cache=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("cotengra.ReusableHyperOptimizer.search", None)
        with pytest.raises(ValueError, match=r"4096 slices would not make up .*by a rough path"):
            small.prepare(hamiltonian, graph, batch_size=1)
    # Nothing of that is kept for a budget that allows the contraction.
    cost = Contraction(repeats=1, cache=tmp_path).estimate(hamiltonian, graph, batch_size=1)
    assert cost.refined
    assert not cost.cached


def test_too_many_operations_are_refused(cache):
    with pytest.raises(ValueError, match=r"take .*flops .*max_flops is 1 Mflops; raise max_flops"):
        Contraction(max_flops=1e6, repeats=1, cache=cache).prepare(
            linear_problem(36), Graph.grid(6, 6, 4), batch_size=1
        )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"max_bytes": 0.0}, "max_bytes must be above 0"),
        ({"max_flops": -1.0}, "max_flops must be above 0"),
        ({"repeats": 0}, "repeats must be at least 1"),
    ],
)
def test_settings_are_checked(arguments, match):
    with pytest.raises(ValueError, match=match):
        Contraction(**arguments)


def test_cache_is_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "hypercircuit" / "paths"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "hypercircuit" / "paths"


def test_what_does_not_separate_is_refused(kind):
    data = PROBLEMS["softmax-real"].data
    network = Network((Dense(3, 2), Dense(2, 3)), activation="tanh")
    hamiltonian = compile_loss(network, data, Softmax())
    with pytest.raises(ValueError, match="takes losses with product terms, got"):
        kind.prepare(hamiltonian, Graph.ring(hamiltonian.n_qubits, 2), batch_size=1)


def test_a_state_is_refused(kind):
    hamiltonian = compiled("logistic-real")
    energy = kind.prepare(hamiltonian, Brickwork(2), batch_size=1, dtype=np.float64)
    with pytest.raises(ValueError, match="starts from the circuit's angles"):
        energy.of_state.__wrapped__(energy, None, None)


def test_brickwork_is_a_path():
    assert as_graph(Brickwork(3, "ry"), 5) == Graph.path(5, 3, "ry")


# ---------------------------------------------------------------- training


def test_training_lowers_the_energy(kind, tmp_path):
    hamiltonian = compiled("logistic-real")
    graph = Graph.ring(hamiltonian.n_qubits, 3)
    settings = {
        "energy": kind,
        "optimiser": optax.adam(0.2),
        "validation": PROBLEMS["logistic-real"].data,
        "folder": tmp_path,
    }
    short, long = (Schedule(steps, 7, 10, 10) for steps in (10, 20))
    train(hamiltonian, graph, schedule=short, **settings)
    result = train(hamiltonian, graph, schedule=long, **settings)
    assert result.step == 20
    history = result.history
    assert history.energy[-1] < history.energy[0] - 0.05
    assert result.best_bits is not None
    with pytest.raises(ValueError, match="graph"):
        train(hamiltonian, Graph.star(hamiltonian.n_qubits, 3), schedule=long, **settings)


def test_graphs_train_on_contractions_only(kind):
    hamiltonian = compiled("logistic-real")
    graph = Graph.ring(hamiltonian.n_qubits, 2)
    for chains in (Exact(), MPO(), Sampled(), Statevector()):
        with pytest.raises(ValueError, match=rf"trained with Contraction\(\), got {chains.name}"):
            train(hamiltonian, graph, energy=chains, optimiser=optax.adam(0.1))
    with pytest.raises(ValueError, match="leave the penalty out"):
        train(hamiltonian, graph, energy=kind, optimiser=optax.adam(0.1), penalty=KLPenalty(0.1))


@slow
def test_lbfgs_descends_on_a_graph(kind):
    hamiltonian = compiled("logistic-real")
    graph = Graph.path(hamiltonian.n_qubits, 2)
    schedule = Schedule(8, 0, 8, 8)
    result = train(hamiltonian, graph, energy=kind, optimiser=LBFGS(), schedule=schedule)
    assert result.history.energy[-1] < result.history.energy[0]


TINY = {
    "data": {
        "classes": [0, 1],
        "downsample": "mean",
        "size": [3, 3],
        "pixels": "binarise",
        "n_train": 60,
    },
    "network": {"outputs": 1},
    "loss": {"kind": "logistic"},
    "circuit": {"ansatz": "graph", "edges": "grid", "depth": 3},
    "energy": {"kind": "contraction"},
    "train": {"steps": 4, "batch_size": 20, "evaluate_every": 2, "checkpoint_every": 2},
    "decode": {"samples": 5, "beam": 2},
}


def test_a_run_on_an_image_grid(tmp_path, cache):
    values = {**TINY, "energy": {"kind": "contraction", "path_cache": str(cache)}}
    said: list[str] = []
    with jax.enable_x64(False):
        result = train_run(Config.from_dict(values), tmp_path / "run", report=said.append)
        bits, logs = sample_run(tmp_path / "run", 2000)
        ones = marginals_run(tmp_path / "run")
    assert result["status"] == "finished"
    assert result["energy_kind"] == "contraction"
    assert result["max_bond"] is None
    assert 0 < result["energy"] < 1
    assert any("graph of depth 3 with 13 edges in 4 colours" in line for line in said)
    assert any(line.startswith("contraction of ") for line in said)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "finished"
    assert bits.shape == (2000, 10)
    assert (np.asarray(logs) < 0).all()
    np.testing.assert_allclose(bits.mean(0), ones, atol=4 * 0.5 / 2000**0.5)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        *(
            (
                {"energy": {"kind": kind}},
                f"energy.kind must be .* got '{kind}', an energy of chains",
            )
            for kind in ("cumulant", "exact", "mpo", "sampled", "statevector")
        ),
        ({"energy": {"kind": "auto", "samples": 8}}, "energy.samples is not used with circuit"),
        (
            {"network": {"outputs": 1, "hidden": [3, 2]}},
            r"one hidden layer, got network.hidden=\[3, 2\]; set circuit.ansatz='brickwork'",
        ),
        (
            {"circuit": {}, "network": {"outputs": 1, "hidden": [2], "order": "class"}},
            "energy.kind='contraction' of a network with a hidden layer needs its qubits neuron by",
        ),
        (
            {"network": {"hidden": [2]}, "loss": {"kind": "softmax"}},
            "energy.kind='contraction' does not go with loss.kind='softmax'",
        ),
        ({"circuit": {"ansatz": "graph", "edges": "architecture"}}, "network.choices without any"),
        ({"objective": {"beta": 0.1}}, "objective.beta must be 0 with circuit.ansatz='graph'"),
        ({"circuit": {"ansatz": "graph", "edges": "pairs"}}, "needs circuit.pairs"),
        ({"circuit": {"ansatz": "graph", "pairs": [[0, 1]]}}, "circuit.edges='pairs'"),
        ({"circuit": {"pairs": 3}}, r"pairs of integers, got 3; .* = \[\[0, 1\], \[1, 2\]\]"),
        ({"circuit": {"pairs": [[0, 1, 2]]}}, r"circuit.pairs\[0\] must be a list of 2 integers"),
        ({"circuit": {"edges": "tree"}}, "circuit.ansatz='graph'"),
        (
            {"circuit": {}, "energy": {"kind": "exact", "max_bytes": 1e6}},
            "used only for contractions",
        ),
    ],
)
def test_contradictions_in_a_configuration(changes, match):
    with pytest.raises(ConfigError, match=match):
        Config.from_dict({**TINY, **changes})


def test_budget_is_checked_before_a_folder_is_made(tmp_path, cache):
    energy = {"kind": "contraction", "path_cache": str(cache), "max_flops": 1e3}
    config = Config.from_dict({**TINY, "energy": energy})
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"take .*flops .*max_flops is 1 kflops"),
    ):
        train_run(config, tmp_path / "run", report=lambda line: None)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "graph.toml"
    circuit = {"ansatz": "graph", "depth": 3}
    values = {**TINY, "circuit": circuit, "energy": {"kind": "auto"}}
    path.write_text(Config.from_dict(values).to_toml())
    return path


@pytest.mark.parametrize(
    ("settings", "graph"),
    [
        (["circuit.edges=tree"], Graph.tree(10, 3)),
        (["circuit.edges=star", "circuit.centre=4"], Graph.star(10, 3, centre=4)),
        (
            ["circuit.edges=pairs", "circuit.pairs=[[0, 7], [7, 3]]", "circuit.schedule=all"],
            Graph([(0, 7), (7, 3)], 3, schedule="all"),
        ),
    ],
)
def test_settings_choose_a_graph(settings, graph, config_file):
    assert build_problem(load_config(config_file, settings)).circuit == graph


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["circuit.edges=star", "circuit.centre=10"], r"edges='star': centre must be in 0\.\.9"),
        (["circuit.edges=pairs", "circuit.pairs=[[0, 12]]"], "lead to qubit 12, the register has"),
    ],
)
def test_graphs_that_leave_the_register_are_refused(settings, match, config_file):
    with pytest.raises(ConfigError, match=match):
        build_problem(load_config(config_file, settings))
