"""Networks with one hidden layer: compiled losses against brute force, energies against states."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
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
    SMOOTH,
    THREE_ENCODINGS,
    TWO_ACTIVATIONS,
    TWO_ENCODINGS,
    Hidden,
)
from hypercircuit.bnn import (
    ACTIVATIONS,
    PUBLISHED_ENCODINGS,
    Dense,
    Network,
    activation_choice,
    encoding_choice,
)
from hypercircuit.circuit import Brickwork, FreeMPS, Truncated
from hypercircuit.data import Dataset, binarise, load_mnist
from hypercircuit.energy import (
    Cumulant,
    Exact,
    Sampled,
    choose_energy,
    hidden as hidden_energy,
    why_not_exact,
)
from hypercircuit.hamiltonian import (
    FourierExtension,
    HiddenTerms,
    Lattice,
    Logistic,
    NoTerms,
    SigmoidSquared,
    compile_loss,
    hidden,
)
from hypercircuit.state import prepare_state


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


KINKED = ("relu", "hardtanh")


# ---------------------------------------------------------------- the table


def _table() -> list[Hidden]:
    """All losses x activations x ways to resolve a pre-activation; the rest takes turns."""
    losses = [
        ("logistic", 1),
        ("sigmoid-squared", 2),
        ("hinge", 1),
        ("squared-hinge", 1),
        ("zero-one", 1),
        ("squared", 1),
        ("squared", 2),
        ("logistic", 2),
        ("pairwise-logistic", 3),
    ]
    ways = [(0.5, Lattice()), (None, None), (None, FourierExtension())]
    orders = itertools.cycle(["neuron", "neuron-reversed", "neuron-reversed", "neuron", "neuron"])
    encodings = itertools.cycle(
        [
            ((-1.0, 1.0), (-1.0, 1.0)),
            ((-3.0, 1.0), (0.0, 1.0)),
            ((0.0, 1.0), (0.5, -1.0)),
            ((-1.0, 1.0), (-2.0, 1.0)),
        ]
    )
    biases = itertools.cycle([True, False, True, True, False, True, False])
    scales = itertools.cycle([1.0, 0.6])
    table = []
    for (loss, n_outputs), activation, (step, expansion) in itertools.product(
        losses, ACTIVATIONS, ways
    ):
        lattice = expansion is not None and step is not None
        if isinstance(expansion, FourierExtension) and (
            activation == "sign" or (activation in KINKED and loss != "sigmoid-squared")
        ):
            continue
        if loss == "zero-one" and not (
            activation == "sign" or (lattice and activation in ("relu", "hardtanh"))
        ):
            continue
        table.append(
            Hidden(
                loss,
                (2, 2 if n_outputs < 3 else 1, n_outputs),
                step,
                activation,
                order=next(orders),
                encodings=next(encodings),
                bias=next(biases),
                hidden_scale=next(scales) if loss != "zero-one" else 1.0,
                logit_scale=0.5,
                expansion=expansion,
                tolerance=0.02 if loss == "hinge" else 1e-3,
            )
        )
    return table


CHOICES = [
    Hidden("logistic", (2, 2, 1), choices=(GATE,), step=0.5),
    Hidden("logistic", (2, 2, 1), choices=(GATE,), expansion=Lattice(), step=0.25, bias=False),
    Hidden("sigmoid-squared", (2, 2, 1), choices=(ACTIVATION, GATE)),
    Hidden("sigmoid-squared", (2, 2, 1), choices=(GATE, ENCODING), order="neuron-reversed"),
    Hidden("logistic", (1, 2, 2), choices=(OWN_ACTIVATION,), order="neuron-reversed"),
    Hidden("logistic", (2, 2, 1), choices=(GATE, OWN_ACTIVATION), bias=False),
    Hidden("squared", (2, 2, 1), choices=(OWN_ACTIVATION, GATE), bias=False, step=0.5),
    Hidden("logistic", (2, 2, 1), activation="relu", choices=(SKIP, SCALE), step=0.5),
    Hidden("pairwise-logistic", (2, 1, 3), choices=(GATE,), skip=True, step=0.5),
    Hidden("logistic", (2, 2, 1), activation="tanh", skip=True, order="neuron-reversed"),
    Hidden("squared", (2, 2, 2), activation="relu", skip=True, bias=False, order="neuron-reversed"),
    Hidden("zero-one", (4, 1, 1), activation="relu", skip=True, step=0.5),
    Hidden("zero-one", (2, 3, 1), choices=(GATE,), step=0.5, bias=False),
    Hidden("logistic", (2, 2, 1), choices=(OWN_ENCODING,)),
    Hidden("logistic", (2, 2, 1), 0.5, choices=(TWO_ENCODINGS, GATE, OWN_ACTIVATION), bias=False),
    Hidden("pairwise-logistic", (2, 1, 2), 0.5, choices=(GATE, OWN_ENCODING), skip=True),
    Hidden("logistic", (2, 2, 1), choices=(SCALE, OWN_ENCODING), order="neuron-reversed"),
]


def _own_encodings() -> list[Hidden]:
    """The table again with neurons that choose their encoding, by itself or beside other choices.

    The layer's own encoding, which no neuron uses, stays as it is.
    """
    ways = itertools.cycle(
        [
            (2, (TWO_ENCODINGS,)),
            (1, (GATE, THREE_ENCODINGS)),
            (1, (TWO_ENCODINGS, TWO_ACTIVATIONS, GATE)),
            (2, (TWO_ENCODINGS,)),
            (1, (SCALE, THREE_ENCODINGS)),
        ]
    )
    table = []
    for case, (n_hidden, choices) in zip(_table(), ways, strict=False):
        if case.loss == "zero-one":
            choices = tuple(each for each in choices if each is not TWO_ACTIVATIONS)
        scale = case.hidden_scale
        if isinstance(case.expansion, FourierExtension):
            choices = tuple(SMOOTH if each is TWO_ACTIVATIONS else each for each in choices)
            # Three times the weights would need as many frequencies more.
            scale *= 0.3
        sizes = (case.sizes[0], min(n_hidden, case.sizes[1]), case.sizes[2])
        table.append(dataclasses.replace(case, sizes=sizes, choices=choices, hidden_scale=scale))
    return table


@pytest.mark.parametrize(
    "case",
    [
        *_table(),
        *CHOICES,
        *(
            pytest.param(case, marks=pytest.mark.slow)
            if case.expansion == FourierExtension()
            else case
            for case in _own_encodings()
        ),
    ],
    ids=lambda case: case.loss,
)
def test_diagonal_against_every_network(case: Hidden):
    hamiltonian = case.compile()
    assert not isinstance(hamiltonian.terms, NoTerms), hamiltonian.terms
    error = np.abs(hamiltonian.diagonal() - case.brute_force()).max()
    assert error <= max(hamiltonian.spectral_error, 1e-9)
    if not (case.activation in KINKED and isinstance(case.expansion, FourierExtension)):
        assert hamiltonian.spectral_error <= case.tolerance


def test_lattices_are_exact_whatever_the_tolerance():
    case = Hidden("logistic", (3, 2, 1), step=0.5, tolerance=0.9)
    assert case.compile().spectral_error < 1e-12
    error = np.abs(case.compile().diagonal() - case.brute_force()).max()
    assert error < 1e-12


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_tolerances_are_kept_and_mean_something(activation: str):
    errors = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        case = Hidden(
            "logistic",
            (3, 2, 1),
            activation=activation,
            tolerance=tolerance,
            expansion=FourierExtension(),
            bias=False,
        )
        hamiltonian = case.compile()
        assert hamiltonian.spectral_error <= tolerance
        errors.append(np.abs(hamiltonian.diagonal() - case.brute_force()).max())
    assert errors[2] < errors[1] < errors[0]


def test_kinks_on_real_inputs_leave_an_error_that_is_reported():
    case = Hidden("logistic", (11, 1, 1), activation="relu", bias=False)
    hamiltonian = case.compile()
    error = np.abs(hamiltonian.diagonal() - case.brute_force()).max()
    assert case.tolerance < hamiltonian.spectral_error < 0.1
    assert 1e-6 < error < hamiltonian.spectral_error
    assert "spectral error at most" in hamiltonian.describe()
    assert "Fourier extension" in hamiltonian.describe()


def test_subsets_keep_the_expansion():
    case = Hidden("logistic", (2, 2, 2), step=0.5, activation="relu")
    whole = case.compile()
    parts = [whole.subset(np.array(rows)) for rows in ([3, 0], [1, 2, 4])]
    mixed = (2 * parts[0].diagonal() + 3 * parts[1].diagonal()) / 5
    np.testing.assert_allclose(mixed, whole.diagonal(), rtol=0, atol=1e-12)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            Hidden("softmax", (2, 2, 3), step=0.5),
            "the softmax loss of 3 outputs does not separate over a shared hidden layer; these "
            "losses do: logistic, pairwise-logistic, squared, sigmoid-squared, hinge, "
            "squared-hinge",
        ),
        (Hidden("zero-one", (2, 2, 3)), "the zero-one loss of 3 outputs does not separate"),
        (Hidden("zero-one", (2, 2, 1), activation="tanh"), "needs outputs on a lattice: the sign"),
        (Hidden("zero-one", (2, 2, 1), activation="relu"), "relu or hardtanh of quantised inputs"),
        (Hidden("logistic", (2, 2, 1), order="class"), "exact is order 'neuron' or 'neuron-rev"),
        (Hidden("logistic", (11, 1, 1)), "sign jumps, so on real-valued inputs no expansion"),
        (Hidden("logistic", (11, 1, 1)), "use at most 10 of them, or an energy that needs no"),
    ],
)
def test_what_does_not_separate_says_why(case: Hidden, reason: str):
    hamiltonian = case.compile()
    assert isinstance(hamiltonian.terms, NoTerms)
    assert reason in hamiltonian.terms.reason
    with refuses(f"there is no exact energy: no product terms ({hamiltonian.terms.reason})"):
        Exact().prepare(hamiltonian, Brickwork(1), batch_size=2)


def test_useless_bounds_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hidden, "_USELESS", 1e-4)
    monkeypatch.setattr(hidden, "MAX_HIDDEN_TERMS", 16)
    terms = Hidden("logistic", (11, 1, 1), activation="relu", bias=False).compile().terms
    assert isinstance(terms, NoTerms)
    assert terms.reason.startswith("16 frequencies of relu of pre-activations up to 7.47 ")
    assert "leave an error bound of 0.0" in terms.reason
    assert "nats; quantise or binarise the inputs" in terms.reason


def test_refusals():
    with refuses("integer multiples of data.step, got step=None; quantise or binarise"):
        Hidden("logistic", (2, 2, 1), expansion=Lattice()).compile()
    with refuses("tolerance 0.0001 needs more than 768 frequencies for outputs up to"):
        Hidden("hinge", (2, 2, 1), activation="tanh", tolerance=1e-4).compile()


# ---------------------------------------------------------------- energies

# (depth, case, whether neurons are independent)
TELLING = [
    (2, Hidden("logistic", (2, 2, 2), activation="tanh", order="neuron-reversed"), False),
    (3, Hidden("pairwise-logistic", (2, 1, 3), 0.5, "relu", skip=True), False),
    (4, Hidden("logistic", (2, 2, 1), 0.5, expansion=Lattice(), choices=(GATE,)), False),
    (5, Hidden("squared", (2, 2, 2), 0.5, "hardtanh", order="neuron-reversed"), False),
    (2, Hidden("sigmoid-squared", (2, 2, 1), choices=(ACTIVATION, GATE)), None),
    (2, Hidden("logistic", (2, 2, 1), 0.5, choices=(TWO_ENCODINGS, GATE), bias=False), False),
    (1, Hidden("squared", (3, 2, 2), 0.5, "relu", (OWN_ENCODING,), expansion=Lattice()), True),
    (1, Hidden("pairwise-logistic", (3, 1, 3), 0.5, "relu", expansion=Lattice()), True),
    (2, Hidden("logistic", (5, 2, 1), 0.5, expansion=Lattice(), idle=3, choices=(GATE,)), True),
    (3, Hidden("squared", (7, 2, 1), 0.5, "relu", expansion=Lattice(), idle=6, bias=False), True),
    (
        4,
        Hidden("logistic", (7, 2, 1), 0.5, order="neuron-reversed", bias=False, idle=6),
        True,
    ),
]
SLOW = [
    (1, Hidden("logistic", (2, 2, 2), activation="tanh"), False),
    (1, Hidden("squared", (2, 2, 1), activation="sigmoid", skip=True), False),
    (3, Hidden("logistic", (2, 2, 2), activation="tanh", order="neuron-reversed"), False),
    (4, Hidden("pairwise-logistic", (2, 1, 3), 0.5, "relu", skip=True), False),
    (4, Hidden("squared", (2, 2, 1), choices=(OWN_ACTIVATION,), order="neuron-reversed"), False),
    (5, Hidden("logistic", (3, 2, 1), 0.5, expansion=Lattice()), False),
    (5, Hidden("pairwise-logistic", (2, 1, 3), order="neuron-reversed", skip=True), False),
    (4, Hidden("sigmoid-squared", (2, 2, 1), choices=(ACTIVATION, GATE)), None),
    (3, Hidden("logistic", (2, 2, 1), choices=(SKIP, SCALE), activation="tanh"), None),
    (2, Hidden("logistic", (3, 2, 1), activation="relu", expansion=FourierExtension()), False),
    (1, Hidden("squared", (2, 2, 2), 0.5, "hardtanh", choices=(GATE,)), True),
    (1, Hidden("logistic", (2, 3, 2), 0.5, "tanh", bias=False, expansion=Lattice()), True),
    (2, Hidden("logistic", (5, 2, 2), 0.5, order="neuron-reversed", idle=3), True),
    (3, Hidden("logistic", (7, 2, 1), 0.5, expansion=Lattice(), idle=6), True),
    (4, Hidden("pairwise-logistic", (6, 2, 2), 0.5, expansion=Lattice(), idle=5), True),
    (
        4,
        Hidden("logistic", (2, 2, 1), 0.5, choices=(GATE, OWN_ENCODING), order="neuron-reversed"),
        False,
    ),
    (
        2,
        Hidden(
            "sigmoid-squared",
            (5, 2, 1),
            activation="tanh",
            choices=(TWO_ENCODINGS, SMOOTH),
            expansion=FourierExtension(),
            order="neuron-reversed",
            idle=4,
            bias=False,
        ),
        True,
    ),
    (
        3,
        Hidden(
            "squared",
            (2, 2, 1),
            activation="tanh",
            choices=(THREE_ENCODINGS,),
            expansion=FourierExtension(),
        ),
        False,
    ),
    (2, Hidden("pairwise-logistic", (5, 2, 2), 0.5, choices=(TWO_ENCODINGS,), idle=4), True),
    (4, Hidden("logistic", (7, 2, 1), 0.5, idle=6, choices=(SCALE,), expansion=Lattice()), None),
    (
        4,
        Hidden(
            "sigmoid-squared",
            (8, 2, 1),
            activation="tanh",
            expansion=FourierExtension(),
            idle=6,
            bias=False,
        ),
        True,
    ),
    (5, Hidden("logistic", (9, 2, 1), 0.5, expansion=Lattice(), idle=8, bias=False), True),
]


def oracle_energy(params: np.ndarray, diagonal: np.ndarray) -> float:
    angles = np.zeros((*params.shape[:2], 2))
    angles[..., : params.shape[2]] = params
    return float(oracles.energy(oracles.brickwork_statevector(angles), diagonal))


@pytest.mark.parametrize(
    ("depth", "case", "separated"),
    [*TELLING, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
)
def test_energy_and_gradient(depth: int, case: Hidden, separated: bool | None):
    hamiltonian = case.compile()
    diagonal = hamiltonian.diagonal()
    circuit = Brickwork(depth, "ry" if depth == 5 or (depth == 4 and not separated) else "ry-rz")
    n_qubits = hamiltonian.n_qubits
    params = circuit.init(jax.random.key(depth), n_qubits, how="uniform", dtype=jnp.float64)
    energy = Exact().prepare(hamiltonian, circuit, batch_size=3, dtype=np.float64)
    if separated is not None:
        assert isinstance(hamiltonian.terms, HiddenTerms)
        assert energy.separated == separated

    # Five examples in batches of three: the second batch is padded.
    function = jax.jit(jax.value_and_grad(lambda p, b: energy(p, b)))
    parts = [function(params, batch) for _, batch in energy.batches(np.arange(5))]
    assert len(parts) == 2
    value = float(sum(value for value, _ in parts))
    gradient = np.asarray(sum(gradient for _, gradient in parts))
    assert value == pytest.approx(oracle_energy(params, diagonal), rel=0, abs=1e-10)
    direction = np.random.default_rng(depth).normal(size=params.shape)
    ahead, behind = (oracle_energy(params + s * direction, diagonal) for s in (1e-5, -1e-5))
    slope = (ahead - behind) / 2e-5
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=0, abs=1e-7)


@pytest.mark.parametrize(
    "case",
    [
        Hidden("logistic", (2, 2, 1), activation="tanh"),
        pytest.param(
            Hidden("logistic", (5, 2, 1), 0.5, expansion=Lattice(), idle=3), marks=pytest.mark.slow
        ),
    ],
)
def test_float32_and_every_example_by_itself(case: Hidden):
    hamiltonian = case.compile()
    circuit = Brickwork(2)
    params = circuit.init(jax.random.key(1), hamiltonian.n_qubits, how="uniform")
    energy = Exact().prepare(hamiltonian, circuit, batch_size=3, dtype=np.float32)
    batch = energy.batch(np.array([4, 1]), np.array([0.3, 1.2]))
    floats = [leaf.dtype for leaf in jax.tree.leaves(batch) if leaf.dtype.kind == "f"]
    assert set(floats) == {np.dtype(np.float32)}
    each = energy.value_function()(params, batch)
    assert each.dtype == jnp.float32
    assert each[2] == 0
    for row, value in zip([4, 1], each[:2], strict=True):
        alone = hamiltonian.subset(np.array([row])).diagonal()
        assert value == pytest.approx(oracle_energy(params, alone), rel=0, abs=1e-5)


# ---------------------------------------------------------------- states of site tensors


def of_tensors(ansatz: FreeMPS | Truncated, params: np.ndarray, diagonal: np.ndarray) -> float:
    amplitudes = np.asarray(prepare_state(ansatz, params).to_statevector())
    return float(np.abs(amplitudes) ** 2 @ diagonal)


@pytest.mark.parametrize(
    ("ansatz", "case"),
    [
        (FreeMPS(3), Hidden("logistic", (2, 2, 1), activation="tanh", order="neuron-reversed")),
        (FreeMPS(2), Hidden("pairwise-logistic", (2, 1, 3), 0.5, "relu", skip=True)),
        (
            Truncated(Brickwork(4, "ry"), 2),
            Hidden("logistic", (2, 2, 1), 0.5, bias=False, order="neuron-reversed"),
        ),
        (FreeMPS(2, real=True), Hidden("squared", (2, 2, 2), 0.5, "relu", (OWN_ENCODING,))),
        (FreeMPS(3), Hidden("sigmoid-squared", (2, 2, 1), choices=(ACTIVATION, GATE))),
        (FreeMPS(1), Hidden("logistic", (3, 2, 1), 0.5, "tanh", expansion=Lattice())),
        pytest.param(
            Truncated(Brickwork(5), 3),
            Hidden("pairwise-logistic", (2, 1, 3), 0.5, "relu", skip=True),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            FreeMPS(3),
            Hidden("logistic", (2, 2, 1), choices=(SKIP, SCALE), order="neuron-reversed"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Truncated(Brickwork(6), 4, 0.0, "parallel"),
            Hidden("logistic", (2, 2, 1), 0.5, choices=(TWO_ENCODINGS, GATE), bias=False),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_energy_and_gradient_in_states_of_site_tensors(ansatz, case: Hidden):
    hamiltonian = case.compile()
    diagonal, n_qubits = hamiltonian.diagonal(), hamiltonian.n_qubits
    params = ansatz.init(jax.random.key(3), n_qubits, how="uniform", dtype=jnp.float64)
    energy = Exact().prepare(hamiltonian, ansatz, batch_size=3, dtype=np.float64)
    function = jax.jit(jax.value_and_grad(lambda p, b: energy(p, b)))
    parts = [function(params, batch) for _, batch in energy.batches(np.arange(5))]
    value, gradient = (sum(each) for each in zip(*parts, strict=True))
    assert abs(value - of_tensors(ansatz, params, diagonal)) < 1e-10
    direction = np.random.default_rng(0).normal(size=params.shape)
    ahead, behind = (of_tensors(ansatz, params + s * direction, diagonal) for s in (1e-5, -1e-5))
    assert abs(np.sum(gradient * direction) - (ahead - behind) / 2e-5) < 1e-7


def test_what_hidden_layers_cost_in_site_tensors(monkeypatch: pytest.MonkeyPatch):
    hamiltonian = Hidden("logistic", (3, 2, 1), 0.5, expansion=Lattice()).compile()
    ansatz = FreeMPS(4)
    assert why_not_exact(hamiltonian, ansatz) is None
    wide, narrow = (hidden_energy.hidden_operations(hamiltonian, FreeMPS(b)) for b in (8, 4))
    assert 16 < wide / narrow < 64
    # Complex matrices of size 16 meet their frequencies at four sites of two neurons.
    basis, terms = hamiltonian.terms.basis, hamiltonian.terms
    inputs = terms.neurons.inputs(hamiltonian.data, np.arange(5))
    products = 2 * 4 * basis.n_terms(terms.neurons, inputs).max() * 16 * 16**3
    assert products < narrow < 1.5 * products
    kind, why = choose_energy(hamiltonian, None, FreeMPS(256))
    assert isinstance(kind, Sampled)
    assert "floating-point operations in a state of bond 256, more than 2e+10" in why
    assert choose_energy(hamiltonian, Cumulant(), FreeMPS(256))[0] == Cumulant()
    monkeypatch.setattr(hidden_energy, "MOST_BYTES", 2**14)
    with refuses("of 11 sites at max_bond=4 take 0.0 GiB, more than 0 GiB; take a smaller bond"):
        Exact().prepare(hamiltonian, ansatz, batch_size=2)


# ---------------------------------------------------------------- full size


@pytest.mark.slow
def test_the_published_gaussian_task():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 10_000)
    x = rng.normal(size=(10_000, 2)) + np.where(y[:, None] == 1, 1.0, -1.0) * [1.0, -0.5]
    data = Dataset(x.astype(np.float32), y.astype(np.int32), 2, None, None, "gaussian")
    network = Network(
        (Dense(2, 4), Dense(4, 1)),
        logit_scale=1.0,
        choices=(activation_choice(["sigmoid", "relu"]),),
    )
    hamiltonian = compile_loss(network, data, SigmoidSquared())
    assert hamiltonian.n_qubits == 18
    diagonal = hamiltonian.diagonal()
    bits = rng.integers(0, 2, (100, 18)).astype(np.uint8)
    places = bits @ (2 ** np.arange(17, -1, -1))
    errors = np.abs(diagonal[places] - hamiltonian.losses(bits))
    assert errors.max() <= hamiltonian.spectral_error + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_mnist_against_samples(own: bool):
    data = binarise(load_mnist().train, 127)
    choices = (encoding_choice(PUBLISHED_ENCODINGS, scope="neuron"),) if own else ()
    network = Network((Dense(784, 64), Dense(64, 10)), logit_scale=0.2, choices=choices)
    hamiltonian = compile_loss(network, data, Logistic())
    n_qubits = 50_890 + 128 * own
    assert hamiltonian.n_qubits == n_qubits
    circuit = Brickwork(1)
    params = circuit.init(jax.random.key(3), n_qubits, scale=0.4)
    energy = Exact().prepare(hamiltonian, circuit, batch_size=4, dtype=np.float32)
    assert energy.separated
    rows = np.array([5, 100, 2000, 30_000])
    each = np.asarray(energy.value_function()(params, energy.batch(rows)))
    ones = np.sin(np.asarray(params)[0, :, 0] / 2) ** 2
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(20):
        bits = (rng.random((100, n_qubits)) < ones).astype(np.uint8)
        logits = network.logits(bits, data.x[rows])
        samples.append(Logistic().value(logits, data.y[rows]))
    drawn = np.concatenate(samples)
    deviation = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(each - drawn.mean(0)) < 4 * deviation)
