"""Exact energies and gradients against statevectors, and the plan of the chain kernel's work.

Compilation dominates: every case compiles one function, its value and gradient together.
"""

import functools
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.bnn import (
    PUBLISHED_ENCODINGS,
    Dense,
    Network,
    encoding_choice,
    scale_choice,
)
from hypercircuit.circuit import Brickwork
from hypercircuit.data import Dataset
from hypercircuit.energy import Cumulant, Exact, PreparedEnergy, Statevector
from hypercircuit.energy.chain import window_maps
from hypercircuit.energy.linear import linear_outputs
from hypercircuit.energy.plan import (
    ITEMS_PER_BLOCK,
    Layout,
    frequency_chunks,
    pack_items,
    separated,
    window_list,
)
from hypercircuit.hamiltonian import (
    CHUNK,
    FourierExtension,
    FourierTerms,
    Logistic,
    LossHamiltonian,
    Softmax,
    compile_loss,
)
from hypercircuit.state import exact_mps
from problems import PROBLEMS, Problem

FLOAT64 = np.dtype(np.float64)


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


@functools.cache
def compiled(name: str) -> tuple[Problem, LossHamiltonian, np.ndarray]:
    """A problem, its Hamiltonian and the diagonal, which test_hamiltonian.py checks."""
    problem = PROBLEMS[name]
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object, tolerance=1e-3)
    return problem, hamiltonian, hamiltonian.diagonal()


def start(circuit: Brickwork, n_qubits: int, *, scale: float | None = None) -> jax.Array:
    key = jax.random.key(10 * circuit.depth + n_qubits)
    if scale is None:
        return circuit.init(key, n_qubits, how="uniform", dtype=jnp.float64)
    return circuit.init(key, n_qubits, scale=scale, dtype=jnp.float64)


def oracle_energy(params: np.ndarray, diagonal: np.ndarray) -> float:
    angles = np.zeros((*params.shape[:2], 2))
    angles[..., : params.shape[2]] = params
    return float(oracles.energy(oracles.brickwork_statevector(angles), diagonal))


def regime(energy: PreparedEnergy) -> str:
    """Which of the two ways to evaluate a softmax the examples with any inputs take."""
    rows = np.flatnonzero(energy.hamiltonian.data.x.any(1))
    flags = np.concatenate([energy.batch(rows[i : i + 1]).separated[:1] for i in range(len(rows))])
    return "separated" if flags.all() else "mixed" if flags.any() else "connected"


# ---------------------------------------------------------------- energies and gradients

# (depth, problem, rotations, scale of the noise around the uniform superposition, regime)
TELLING = [
    (1, "softmax-real", "ry-rz", None, "separated"),
    (2, "softmax-reversed", "ry-rz", None, "connected"),
    (2, "softmax-quarters", "ry", None, "mixed"),
    (3, "softmax-integers", "ry-rz", None, "connected"),
    (4, "softmax-blank", "ry", None, "connected"),
    (4, "softmax-apart", "ry-rz", None, "separated"),
    (2, "softmax-one-site", "ry", None, "connected"),
    (1, "logistic-real", "ry", None, "separated"),
    (4, "logistic-halves", "ry-rz", 0.0, "separated"),
    (5, "logistic-gaps", "ry", None, "separated"),
    (2, "squared-two", "ry-rz", None, None),
    (4, "squared-one", "ry-rz", None, None),
    (2, "one-vs-rest", "ry-rz", None, "separated"),
    (2, "zero-one-three", "ry-rz", None, "separated"),
    (2, "pairwise", "ry", None, None),
    (3, "softmax-choices-reversed", "ry-rz", None, None),
]
SLOW = [
    (4, "pairwise-sparse", "ry-rz", None, None),
    (4, "zero-one-sparse", "ry", None, "connected"),
    (4, "encoding-choice", "ry-rz", None, None),
    (2, "softmax-choices", "ry", None, None),
    (4, "one-vs-rest-lattice", "ry-rz", None, "separated"),
    (3, "hinge-lattice", "ry-rz", None, "separated"),
    (3, "zero-one-reversed", "ry-rz", None, "connected"),
    (1, "zero-one-three", "ry-rz", None, "separated"),
    (4, "pairwise-lattice", "ry-rz", None, None),
    (3, "pairwise-choice", "ry-rz", None, None),
    (2, "encoding-choice-reversed", "ry", None, None),
    (5, "encoding-choice-reversed", "ry-rz", None, None),
    (4, "softmax-choices", "ry-rz", None, None),
    (4, "softmax-choice-even", "ry-rz", None, None),
    (2, "squared-choice", "ry-rz", None, None),
    (4, "squared-choice", "ry", None, None),
    (2, "softmax-five", "ry-rz", None, "mixed"),
    (3, "softmax-sparse", "ry-rz", None, "mixed"),
    (3, "softmax-sparse-odd", "ry-rz", None, "connected"),
    (4, "softmax-real", "ry-rz", None, "connected"),
    (4, "softmax-quarters", "ry-rz", 0.0, "connected"),
    (4, "softmax-five", "ry", None, "connected"),
    (5, "softmax-reversed", "ry-rz", None, "connected"),
    (5, "softmax-blank", "ry-rz", None, "connected"),
    (2, "logistic-real", "ry-rz", 0.0, "separated"),
    (3, "logistic-gaps", "ry-rz", None, "separated"),
    (4, "softmax-one-site", "ry-rz", None, "connected"),
    (4, "logistic-wide", "ry-rz", None, "separated"),
    (6, "logistic-halves", "ry", None, "separated"),
    (3, "squared-real", "ry-rz", None, None),
    (5, "squared-real", "ry", None, None),
]


@pytest.mark.parametrize(
    ("depth", "name", "rotations", "scale", "expected_regime"),
    [*TELLING, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_energy_and_gradient(
    depth: int, name: str, rotations: str, scale: float | None, expected_regime: str | None
):
    problem, hamiltonian, diagonal = compiled(name)
    circuit = Brickwork(depth, rotations)
    params = start(circuit, hamiltonian.n_qubits, scale=scale)
    energy = Exact().prepare(hamiltonian, circuit, batch_size=4, dtype=np.float64)
    examples = np.arange(problem.n_examples)
    if expected_regime is not None:
        assert regime(energy) == expected_regime

    # Seven examples in batches of four: the second batch is padded.
    function = jax.jit(jax.value_and_grad(lambda p, b: energy(p, b)))
    parts = [function(params, batch) for _, batch in energy.batches(examples)]
    assert len(parts) == 2
    value = float(sum(value for value, _ in parts))
    gradient = np.asarray(sum(gradient for _, gradient in parts))

    exact = oracle_energy(params, diagonal)
    assert value == pytest.approx(exact, rel=0, abs=1e-10)
    truth = oracle_energy(params, problem.diagonal)
    assert abs(value - truth) <= hamiltonian.spectral_error + 1e-10
    rng = np.random.default_rng(depth)
    for _ in range(2):
        direction = rng.normal(size=params.shape)
        ahead = oracle_energy(params + 1e-5 * direction, diagonal)
        behind = oracle_energy(params - 1e-5 * direction, diagonal)
        slope = (ahead - behind) / 2e-5
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=0, abs=1e-7)


@pytest.mark.parametrize(
    ("depth", "name"),
    [
        (2, "softmax-reversed"),
        (3, "logistic-gaps"),
        pytest.param(1, "softmax-integers", marks=pytest.mark.slow),
        pytest.param(4, "squared-two", marks=pytest.mark.slow),
        pytest.param(4, "softmax-real", marks=pytest.mark.slow),
        pytest.param(4, "logistic-wide", marks=pytest.mark.slow),
        pytest.param(5, "logistic-real", marks=pytest.mark.slow),
    ],
)
def test_float32(depth: int, name: str):
    problem, hamiltonian, diagonal = compiled(name)
    circuit = Brickwork(depth)
    params = start(circuit, hamiltonian.n_qubits)
    energy = Exact().prepare(hamiltonian, circuit, batch_size=7, dtype=np.float32)
    batch = energy.batch(np.arange(problem.n_examples))
    floats = [leaf.dtype for leaf in jax.tree.leaves(batch) if leaf.dtype.kind == "f"]
    assert set(floats) == {np.dtype(np.float32)}
    value, gradient = jax.jit(jax.value_and_grad(lambda p, b: energy(p, b)))(
        params.astype(jnp.float32), batch
    )
    assert value.dtype == gradient.dtype == jnp.float32
    assert float(value) == pytest.approx(oracle_energy(params, diagonal), rel=0, abs=1e-4)
    direction = np.random.default_rng(depth).normal(size=params.shape)
    direction /= np.linalg.norm(direction)
    ahead, behind = (oracle_energy(params + s * direction, diagonal) for s in (1e-5, -1e-5))
    slope = float(np.sum(np.asarray(gradient) * direction))
    assert slope == pytest.approx((ahead - behind) / 2e-5, rel=0, abs=1e-4)


def test_batches_compile_once_and_average_to_the_full_energy():
    """Every example's own energy, unbiased minibatches, custom weights, one trace for all."""
    problem, hamiltonian, _ = compiled("softmax-sparse-odd")
    circuit = Brickwork(2)
    params = start(circuit, hamiltonian.n_qubits)
    energy = Exact().prepare(hamiltonian, circuit, batch_size=3, dtype=np.float64)
    probabilities = oracles.born_probabilities(oracles.brickwork_statevector(params))
    each = probabilities @ problem.example_losses
    assert np.ptp(each) > 0.1
    traces = []

    def counted(params, batch):
        traces.append(1)
        return energy.per_example(params, batch), energy(params, batch)

    compiled_once = jax.jit(counted)

    def function(params, batch) -> tuple[np.ndarray, float]:
        values, mean = compiled_once(params, batch)
        return np.asarray(values), float(mean)

    rng = np.random.default_rng(5)
    triples = [rng.permutation(7)[:3] for _ in range(3)] + [np.array([6, 0, 3])]
    for rows in triples:
        values, mean = function(params, energy.batch(rows))
        np.testing.assert_allclose(values, each[rows], rtol=0, atol=1e-3)
        assert mean == pytest.approx(values.mean(), rel=1e-12)
    # A short batch, a repeated example, weights of one's own.
    values, mean = function(params, energy.batch(np.array([4, 2]), np.array([0.3, 1.2])))
    assert mean == pytest.approx(0.3 * values[0] + 1.2 * values[1], rel=1e-12)
    repeated, _ = function(params, energy.batch(np.array([5, 5, 2])))
    assert repeated[0] == pytest.approx(repeated[1], rel=1e-12)
    assert repeated[2] == pytest.approx(values[1], rel=1e-12)
    # All minibatches of three out of six weigh every example alike.
    single = np.concatenate(
        [function(params, batch)[0][: len(rows)] for rows, batch in energy.batches(np.arange(7))]
    )
    np.testing.assert_allclose(single, each, rtol=0, atol=1e-3)
    minibatches = [
        function(params, energy.batch(np.array([a, b, c])))[1]
        for a in range(6)
        for b in range(a)
        for c in range(b)
    ]
    assert len(minibatches) == 20
    assert np.mean(minibatches) == pytest.approx(single[:6].mean(), rel=0, abs=1e-12)
    total = sum(function(params, batch)[1] for _, batch in energy.batches(np.arange(7)))
    assert total == pytest.approx(single.mean(), rel=0, abs=1e-12)
    assert len(traces) == 1


@pytest.mark.parametrize("depth", [1, 4])
def test_data_without_inputs_have_the_loss_of_a_guess(depth: int):
    data = Dataset(np.zeros((2, 3), np.float32), np.array([2, 0], np.int32), 3, None, None, "zero")
    network = Network((Dense(3, 3, bias=False),))
    hamiltonian = compile_loss(network, data, Softmax(), expansion=FourierExtension())
    circuit = Brickwork(depth)
    energy = Exact().prepare(hamiltonian, circuit, batch_size=2, dtype=np.float64)
    values = energy.value_function()(start(circuit, 9), energy.batch(np.arange(2)))
    np.testing.assert_allclose(values, np.log(3), rtol=0, atol=hamiltonian.spectral_error)


@pytest.mark.parametrize(
    ("depth", "name"),
    [
        (1, "squared-two"),
        (3, "softmax-reversed"),
        pytest.param(4, "softmax-blank", marks=pytest.mark.slow),
    ],
)
def test_moments_of_the_outputs(depth: int, name: str):
    problem, hamiltonian, _ = compiled(name)
    circuit = Brickwork(depth, "ry")
    params = start(circuit, hamiltonian.n_qubits)
    outputs = linear_outputs(hamiltonian)
    x = jnp.asarray(hamiltonian.inputs(np.arange(problem.n_examples)))
    moments = jax.jit(lambda p: outputs.cumulants(exact_mps(circuit, p), x, 4))(params)
    angles = np.zeros((*params.shape[:2], 2))
    angles[..., :1] = params
    probabilities = oracles.born_probabilities(oracles.brickwork_statevector(angles))
    bits = oracles.bits_table(hamiltonian.n_qubits)
    bits = bits if problem.order == "class" else bits[:, ::-1]
    logits = oracles.linear_logits(
        bits, problem.data.x, problem.n_outputs, *problem.encoding, problem.scale, problem.bias
    )
    for order, moment in enumerate(moments, start=1):
        expected = oracles.joint_cumulant(probabilities, np.moveaxis(logits, 0, -1), order)
        np.testing.assert_allclose(moment, expected, rtol=0, atol=1e-11)


# ---------------------------------------------------------------- refusals


def test_refusals():
    _, hamiltonian, _ = compiled("squared-one")
    circuit = Brickwork(1)
    for size in (0, -2):
        with refuses(f"batch_size must be at least 1, got {size}"):
            Exact().prepare(hamiltonian, circuit, batch_size=size)
    energy = Exact().prepare(hamiltonian, circuit, batch_size=3)
    for n in (0, 4):
        with refuses(f"a batch takes 1 to 3 examples, got {n}"):
            energy.batch(np.arange(n))
    with jax.enable_x64(False), refuses("float64 needs jax.config.update('jax_enable_x64', True)"):
        Exact().prepare(hamiltonian, circuit, batch_size=3, dtype=np.float64)
    with refuses("dtype must be float32 or float64, got float16"):
        Exact().prepare(hamiltonian, circuit, batch_size=3, dtype=np.float16)


def test_windows_refuse_sizes():
    with refuses("cells_per_window must be 1 or 2, got 3"):
        jax.eval_shape(lambda p: window_maps(exact_mps(Brickwork(1), p), 3), jnp.zeros((1, 2, 2)))


# ---------------------------------------------------------------- compile time


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "idle"), [(4, 0), (4, 3), (1, 0)])
def test_compile_time_does_not_depend_on_the_number_of_qubits(depth: int, idle: int):
    circuit = Brickwork(depth)

    def compile_seconds(n_qubits: int) -> float:
        n_inputs = n_qubits // 4
        x = np.random.default_rng(0).random((5, n_inputs)).astype(np.float32)
        x[:, :idle] = x[:, n_inputs - idle :] = 0
        data = Dataset(x, np.array([1, 0, 0, 3, 0], np.int32), 4, None, None, "long")
        network = Network((Dense(n_inputs, 4, bias=False),), logit_scale=20 / n_qubits)
        hamiltonian = compile_loss(network, data, Softmax())
        assert hamiltonian.n_qubits == n_qubits
        energy = Exact().prepare(hamiltonian, circuit, batch_size=2)
        function = jax.jit(jax.value_and_grad(lambda p, b: energy(p, b)))
        arguments = circuit.init(jax.random.key(0), n_qubits), energy.batch(np.array([0, 3]))
        begin = time.perf_counter()
        function.lower(*arguments).compile()
        return time.perf_counter() - begin

    compile_seconds(32)
    short, long = (min(compile_seconds(n) for _ in range(2)) for n in (64, 8192))
    assert 0.5 < long / short < 2


# ---------------------------------------------------------------- layout and plan

SIZES = [(1, 3), (2, 3), (3, 2), (4, 3), (5, 4), (7, 1)]


@pytest.mark.parametrize(("fan_in", "n_blocks"), SIZES)
def test_layout_agrees_with_the_sites(fan_in: int, n_blocks: int):
    layout = Layout(0, fan_in, n_blocks)
    blocks = np.concatenate([group.blocks for group in layout.groups])
    assert sorted(blocks.tolist()) == list(range(n_blocks))
    assert len(layout.groups) == (2 if fan_in % 2 and n_blocks > 1 else 1)
    inputs = np.arange(1.0, 2 * fan_in + 1).reshape(2, fan_in)
    for group in layout.groups:
        cells = layout.cell_inputs(inputs, group, group.n_cells)
        offsets = layout.offsets(group)
        assert len(offsets) == layout.width
        assert (layout.first_cell(group.blocks) == offsets[: len(group.blocks)]).all()
        assert (offsets[len(group.blocks) :] == offsets[0]).all()
        for block, offset in zip(group.blocks, offsets, strict=False):
            sites = np.arange(block * fan_in, (block + 1) * fan_in)
            assert group.parity == sites[0] % 2
            assert offset == sites[0] // 2
            assert group.n_cells == sites[-1] // 2 - sites[0] // 2 + 1
            chain = np.zeros((2, 2 * (offset + group.n_cells)))
            chain[:, sites] = inputs
            np.testing.assert_array_equal(cells.reshape(2, -1), chain[:, 2 * offset :])


@pytest.mark.parametrize("reach", [0, 1, 2])
@pytest.mark.parametrize(("fan_in", "n_blocks"), [(1, 3), (6, 3), (7, 3), (9, 2)])
def test_separated_compares_light_cones(fan_in: int, n_blocks: int, reach: int):
    rng = np.random.default_rng(fan_in + reach)
    inputs = rng.normal(size=(60, fan_in)) * (rng.random((60, fan_in)) < 0.25)
    inputs = inputs[inputs.any(1)]
    expected = []
    for row in inputs:
        cells = [
            {(block * fan_in + j) // 2 for j in np.flatnonzero(row)} for block in range(n_blocks)
        ]
        distances = [
            abs(a - b)
            for i, first in enumerate(cells)
            for second in cells[:i]
            for a in first
            for b in second
        ]
        expected.append(all(distance > 2 * reach for distance in distances))
    found = separated(Layout(0, fan_in, n_blocks), inputs, reach)
    assert found.tolist() == expected


def test_blocks_without_inputs_are_separated():
    assert separated(Layout(0, 6, 3), np.zeros((1, 6)), 1)[0]


def listed_windows(row: np.ndarray, cells_per_window: int, reach: int) -> tuple[list, list]:
    """Plain loops: the windows one row of cells visits, and which of them follow a long gap."""
    n_windows = -(-len(row) // cells_per_window)
    busy = [
        w for w in range(n_windows) if row[w * cells_per_window : (w + 1) * cells_per_window].any()
    ]
    visited, reset = [], []
    for w in busy:
        if visited:
            # A gap of 2 * reach cells or more separates the light cones.
            gap = w - visited[-1] - 1
            if gap and gap * cells_per_window < 2 * reach:
                between = range(visited[-1] + 1, w)
                visited += between
                reset += [False] * len(between)
                gap = 0
            reset.append(gap > 0)
        else:
            reset.append(False)
        visited.append(w)
    return visited, reset


@pytest.mark.parametrize("first_cell", [0, 1])
@pytest.mark.parametrize(("cells_per_window", "reach"), [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)])
def test_window_lists(cells_per_window: int, reach: int, first_cell: int):
    rng = np.random.default_rng(reach)
    cells = rng.normal(size=(50, 11, 2)) * (rng.random((50, 11, 2)) < 0.15)
    cells[0] = 0
    cells[1] = 1
    found = window_list(cells, cells_per_window, reach, first_cell=first_cell)
    padded = np.pad(cells, ((0, 0), (0, -11 % cells_per_window), (0, 0)))
    for i, row in enumerate(cells):
        visited, reset = listed_windows(row, cells_per_window, reach)
        n = len(visited)
        assert found.length[i] == n
        start_cells = [w * cells_per_window + first_cell for w in visited]
        assert found.cell[i, :n].tolist() == start_cells
        assert found.reset[i, :n].tolist() == reset
        assert not found.reset[i, n:].any()
        ends = [c + cells_per_window for c in start_cells]
        if n:
            assert found.previous[i, :n].tolist() == [start_cells[0], *ends[:-1]]
            assert found.end[i] == ends[-1]
        else:
            assert found.end[i] == found.cell[i, 0], "an empty example must end where it starts"
        for k, w in enumerate(visited):
            part = padded[i, w * cells_per_window : (w + 1) * cells_per_window]
            np.testing.assert_array_equal(found.inputs[i, k], part.reshape(-1))
    assert found.length[0] == 0
    assert found.length[1] == -(-11 // cells_per_window)


def test_short_gaps_by_hand():
    cells = np.zeros((1, 9, 2))
    cells[0, [1, 3, 6], [0, 1, 0]] = [0.5, -1.0, 2.0]
    found = window_list(cells, 1, 1)
    # One empty cell is visited at reach 1, two are skipped.
    assert found.cell[0, :4].tolist() == [1, 2, 3, 6]
    assert found.reset[0, :4].tolist() == [False, False, False, True]
    assert (found.length[0], found.end[0], found.previous[0, 3]) == (4, 7, 4)


def test_whole_lists_span_the_block():
    cells = np.zeros((2, 6, 2))
    cells[0, 2] = 1
    found = window_list(cells, 1, 1, first_cell=1, whole=True)
    assert found.length.tolist() == [4, 2]
    assert found.cell[0, :4].tolist() == [1, 2, 3, 6]
    assert found.cell[1, :2].tolist() == [1, 6]
    assert found.end.tolist() == [7, 7]


def test_lists_of_blocks_without_whole_cells():
    found = window_list(np.zeros((3, 0, 2)), 1, 1, first_cell=1, whole=True)
    assert found.length.tolist() == [0, 0, 0]
    assert found.end.tolist() == [1, 1, 1]


def test_packed_items_keep_what_belongs_together():
    rng = np.random.default_rng(8)
    layout = Layout(0, 7, 3)
    inputs = rng.normal(size=(5, 7)) * (rng.random((5, 7)) < 0.4)
    lists = [window_list(layout.cell_inputs(inputs, g, g.n_cells), 1, 1) for g in layout.groups]
    offsets = [layout.offsets(group) for group in layout.groups]
    which = rng.integers(0, 2, 21)
    example = rng.integers(0, 5, 21)
    frequency = rng.normal(size=(21, CHUNK))
    row = rng.integers(-1, 4, 21)
    items, index = pack_items(
        lists, offsets, which, example, frequency, row, capacity=50, n_windows=5, dtype=FLOAT64
    )
    assert items.cell.shape == (-(-50 // ITEMS_PER_BLOCK), 5, ITEMS_PER_BLOCK)
    assert items.n_blocks == -(-21 // ITEMS_PER_BLOCK)
    assert len(set(zip(index.block.tolist(), index.slot.tolist(), strict=True))) == 21
    longest = np.zeros(len(items.lengths), int)
    for i in range(21):
        b, s, part, e = index.block[i], index.slot[i], lists[which[i]], example[i]
        n = part.length[e]
        assert items.active[b, :, s].tolist() == [k < n for k in range(5)]
        assert items.cell[b, :n, s].tolist() == part.cell[e, :n].tolist()
        assert items.previous[b, :n, s].tolist() == part.previous[e, :n].tolist()
        assert items.reset[b, :n, s].tolist() == part.reset[e, :n].tolist()
        np.testing.assert_array_equal(items.inputs[b, :n, s], part.inputs[e, :n])
        np.testing.assert_array_equal(items.frequency[b, s], frequency[i])
        assert items.offset[b, s].tolist() == offsets[which[i]].tolist()
        assert items.row[b, s] == row[i]
        longest[b] = max(longest[b], n)
    assert items.lengths.tolist() == longest.tolist()
    assert items.active.sum() == sum(
        lists[w].length[e] for w, e in zip(which, example, strict=True)
    )


def test_frequency_chunks_list_every_frequency_once():
    x = np.array([[0.3, 1.0], [30.0, 45.0], [2.0, 3.0]], np.float32)
    data = Dataset(x, np.array([1, 0, 0], np.int32), 2, None, None, "ranges")
    network = Network((Dense(2, 1),), logit_scale=1.0)
    loss = PROBLEMS["logistic-real"].loss_object
    hamiltonian = compile_loss(network, data, loss, tolerance=0.1)
    spectrum = hamiltonian.terms
    assert isinstance(spectrum, FourierTerms)
    assert len(set(spectrum.n_terms.tolist())) > 1
    examples = np.array([1, 0, 1, 2])
    position, chunk, frequency = frequency_chunks(spectrum, examples)
    for place, example in enumerate(examples):
        table = spectrum.tables[spectrum.table[example]]
        mine = position == place
        order = np.argsort(chunk[mine])
        assert chunk[mine][order].tolist() == list(range(len(table.coefficients) // CHUNK))
        expected = table.spacing * np.arange(len(table.coefficients))
        np.testing.assert_allclose(frequency[mine][order].reshape(-1), expected, rtol=1e-14)


# ---------------------------------------------------------------- choices that are decided


@pytest.mark.parametrize("kind", [Exact(), Cumulant()], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("depth", "angle"),
    [
        (2, 1e-10),
        *(pytest.param(*p, marks=pytest.mark.slow) for p in ((1, 0.0), (1, 1e-3), (4, 0))),
    ],
)
def test_decided_choices_stay_finite(kind, depth: int, angle: float):
    """Choice qubits that are all but certain: other settings have no state left, in float32."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (5, 3)).astype(np.float32)
    data = Dataset(x, np.array([0, 1, 1, 0, 1], np.int32), 2, None, None, "test")
    choices = (encoding_choice(PUBLISHED_ENCODINGS), scale_choice([0.2, 0.9]))
    hamiltonian = compile_loss(Network((Dense(3, 1),), choices=choices), data, Logistic())
    circuit = Brickwork(depth)
    params = circuit.init(jax.random.key(2), hamiltonian.n_qubits, dtype=np.float32)
    params = params.at[:, :3].set(angle)
    found = []
    for each in (kind, Statevector()):
        prepared = each.prepare(hamiltonian, circuit, batch_size=5)
        batch = prepared.batch(np.arange(5))
        found.append(jax.jit(jax.value_and_grad(prepared))(params, batch))
    tolerance = 2e-3 if isinstance(kind, Exact) else 5e-2
    for value, expected in zip(*found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance)
