"""Compiled losses against all 2^N losses by brute force, and the errors they state."""

import dataclasses
import re

import numpy as np
import pytest

import hypercircuit.hamiltonian.linear as linear
import oracles
from hypercircuit.bnn import (
    Choice,
    Dense,
    Encoding,
    Network,
    Option,
    activation_choice,
    encoding_choice,
)
from hypercircuit.data import Dataset
from hypercircuit.hamiltonian import (
    CHUNK,
    LOSSES,
    FourierExtension,
    FourierTerms,
    FrullaniIntegrand,
    Lattice,
    Logistic,
    Loss,
    LossHamiltonian,
    PairwiseLogistic,
    PointwiseIntegrand,
    QuadraticTerms,
    SectorTerms,
    Softmax,
    SquaredError,
    compile_loss,
    fourier_extension,
    lattice_sum,
)
from hypercircuit.hamiltonian.spectral import Integrand
from problems import LATTICES, ORACLE_NAMES, PROBLEMS, Problem


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def compiled(problem: Problem, **options) -> LossHamiltonian:
    return compile_loss(problem.network, problem.data, problem.loss_object, **options)


LOGISTIC = PointwiseIntegrand(Logistic().pointwise, 0.25, None)


def dataset(x, y, n_classes: int = 2, step: float | None = None) -> Dataset:
    x = np.asarray(x)
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    return Dataset(x, np.asarray(y, np.int32), n_classes, None, step, "test")


# ---------------------------------------------------------------- the losses' own values


@pytest.mark.parametrize(
    ("name", "n_outputs"), [("softmax", 3), ("logistic", 1), ("squared", 3), ("squared", 1)]
)
def test_loss_values(name: str, n_outputs: int):
    logits = np.random.default_rng(3).normal(scale=3, size=(4, 5, n_outputs))
    y = np.array([1, 0, 0, 1, 0] if n_outputs == 1 else [2, 0, 0, 1, 0])
    values = LOSSES[name]().value(logits, y)
    assert values.shape == (4, 5)
    for i in range(5):
        expected = oracles.mean_loss(ORACLE_NAMES[name], logits[:, i : i + 1], y[i : i + 1])
        np.testing.assert_allclose(values[:, i], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_large_logits_do_not_overflow(name: str):
    n_outputs = 1 if name == "logistic" else 2
    logits = np.array([[1e4], [-1e4]]) * np.array([1.0, -1.0])[:n_outputs]
    values = LOSSES[name]().value(logits, np.array([1, 1]))
    expected = [0.0, 1e4] if name == "logistic" else [2e4, 0.0]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


def test_predictions():
    logits = np.array([[0.3, -1.0, 0.2], [-2.0, -1.0, -3.0]])
    for loss in (Softmax(), SquaredError()):
        assert loss.predict(logits).tolist() == [0, 1]
    one = np.array([[0.4], [-0.1], [0.0]])
    for loss in (Logistic(), SquaredError()):
        assert loss.predict(one).tolist() == [1, 0, 0]


def test_squared_targets():
    y = np.array([1, 0, 0])
    np.testing.assert_array_equal(SquaredError().targets(y, 1), [[1], [-1], [-1]])
    np.testing.assert_array_equal(SquaredError().targets(y, 2), [[0, 1], [1, 0], [1, 0]])


# ---------------------------------------------------------------- all 2^N entries


@pytest.mark.parametrize("name", PROBLEMS)
def test_diagonal_within_the_certificate(name: str):
    problem = PROBLEMS[name]
    hamiltonian = compiled(problem, tolerance=1e-3)
    diagonal = hamiltonian.diagonal()
    assert diagonal.shape == (2**hamiltonian.n_qubits,)
    error = np.abs(diagonal - problem.diagonal).max()
    assert np.ptp(problem.diagonal) > 0.1
    if problem.loss == "squared":
        assert isinstance(hamiltonian.terms, (QuadraticTerms, SectorTerms))
        assert (hamiltonian.spectral_error, error < 1e-13) == (0.0, True)
        return
    if isinstance(hamiltonian.terms, SectorTerms):
        assert error <= hamiltonian.spectral_error <= 1e-3
        return
    spectrum = hamiltonian.terms
    assert isinstance(spectrum, FourierTerms)
    assert hamiltonian.spectral_error == spectrum.errors.max() <= 1e-3
    assert error <= spectrum.errors.mean() + 1e-14
    assert spectrum.kind == ("extension" if problem.step is None else "lattice")
    if problem.step is not None:
        assert error < 1e-9


@pytest.mark.parametrize("name", ["softmax-real", "softmax-blank", "logistic-real"])
@pytest.mark.parametrize("tolerance", [0.1, 1e-3, pytest.param(1e-6, marks=pytest.mark.slow)])
def test_every_examples_error_is_certified(name: str, tolerance: float):
    problem = PROBLEMS[name]
    for row in range(problem.n_examples):
        one = compile_loss(
            problem.network, problem.data.take([row]), problem.loss_object, tolerance=tolerance
        )
        error = np.abs(one.diagonal() - problem.example_losses[:, row]).max()
        assert error <= one.spectral_error + 1e-14 <= tolerance + 1e-14


SMOOTH = ("softmax", "logistic")


@pytest.mark.parametrize(
    "name",
    [n for n in LATTICES if PROBLEMS[n].loss in SMOOTH and not PROBLEMS[n].scales],
)
def test_extension_on_lattice_inputs(name: str):
    problem = PROBLEMS[name]
    hamiltonian = compiled(problem, tolerance=1e-4, expansion=FourierExtension())
    assert isinstance(hamiltonian.terms, FourierTerms)
    assert hamiltonian.terms.kind == "extension"
    error = np.abs(hamiltonian.diagonal() - problem.diagonal).max()
    assert 1e-12 < error <= hamiltonian.spectral_error <= 1e-4


@pytest.mark.parametrize("encoding", [(-1.0, 1.0), (0.0, 1.0), (1.0, -3.0), (-2.0, -0.5)])
@pytest.mark.parametrize("step", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_lattices_are_exact_for_every_encoding(
    encoding: tuple[float, float], step: float, name: str
):
    problem = Problem(
        name,
        2 if name == "softmax" else 1,
        3,
        step=step,
        interval=(-3 * step, 5 * step),
        encoding=encoding,
        scale=0.45,
    )
    assert (problem.data.x != 0).any(1).all()
    hamiltonian = compiled(problem, tolerance=0.5, expansion=Lattice())
    assert hamiltonian.spectral_error < 1e-9
    np.testing.assert_allclose(hamiltonian.diagonal(), problem.diagonal, rtol=0, atol=1e-9)


def test_lattice_is_exact_without_any_input():
    problem = Problem("softmax", 3, 2, step=0.5, bias=False, blank=1)
    hamiltonian = compiled(problem)
    error = np.abs(hamiltonian.diagonal() - problem.diagonal).max()
    assert error <= hamiltonian.spectral_error


@pytest.mark.parametrize("levels", [3, 255])
def test_steps_that_binary_numbers_round_are_exact_too(levels: int):
    multiples = np.random.default_rng(levels).integers(0, levels + 1, (4, 5))
    data = dataset(multiples / levels, [1, 0, 0, 1], step=1 / levels)
    network = Network((Dense(5, 1),), logit_scale=0.7)
    hamiltonian = compile_loss(network, data, Logistic(), expansion=Lattice())
    logits = oracles.linear_logits(oracles.bits_table(6), multiples / levels, 1, -1, 1, 0.7)
    expected = oracles.binary_logistic(logits, data.y)
    np.testing.assert_allclose(hamiltonian.diagonal(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["softmax-blank", "logistic-halves", "squared-one"])
def test_subsets(name: str):
    problem = PROBLEMS[name]
    rows = np.array([5, 0, 2, 5])
    subset = compiled(problem).subset(rows)
    assert subset.n_examples == 4
    expected = problem.example_losses[:, rows].mean(1)
    atol = subset.spectral_error + 1e-12
    np.testing.assert_allclose(subset.diagonal(), expected, rtol=0, atol=atol)


def test_inputs_follow_the_sites():
    problem = Problem("logistic", 1, 3, step=0.5, order="class-reversed")
    x = compiled(problem).inputs(np.array([4, 1]))
    assert x.dtype == np.float64
    np.testing.assert_array_equal(x[:, 0], 1)
    np.testing.assert_array_equal(x[:, 1:], problem.data.x[[4, 1], ::-1])


def test_raw_pixels_are_a_lattice():
    x = np.array([[3, 0, 1, 2], [0, 255, 0, 1], [7, 7, 0, 0]], np.uint8)
    data = dataset(x, [0, 1, 0], step=1.0)
    network = Network((Dense(4, 1, encoding=Encoding(-1.0, 2.0)),), logit_scale=0.01)
    hamiltonian = compile_loss(network, data, Logistic(), expansion=Lattice())
    logits = oracles.linear_logits(oracles.bits_table(5), x, 1, -1, 2, 0.01)
    expected = oracles.binary_logistic(logits, data.y)
    np.testing.assert_allclose(hamiltonian.diagonal(), expected, rtol=0, atol=1e-12)


def test_orders_permute_the_diagonal():
    forward = PROBLEMS["softmax-quarters"]
    backward = dataclasses.replace(forward, order="class-reversed")
    first, second = compiled(forward).diagonal(), compiled(backward).diagonal()
    reversed_bits = oracles.bits_table(10)[:, ::-1].astype(int) @ (1 << np.arange(10)[::-1])
    np.testing.assert_allclose(second, first[reversed_bits], rtol=0, atol=1e-12)
    assert np.abs(second - first).max() > 0.1


@pytest.mark.parametrize("name", ["softmax-reversed", "logistic-halves", "squared-one"])
def test_classical_losses(name: str):
    problem = PROBLEMS[name]
    bits = oracles.bits_table(problem.network.n_qubits)
    losses = compiled(problem).losses(bits)
    np.testing.assert_allclose(losses, problem.diagonal, rtol=3e-6)


def test_large_lattices_give_way_to_the_extension():
    x = np.random.default_rng(4).integers(0, 256, (3, 12)) / 255
    data = dataset(x, [1, 0, 0], step=1 / 255)
    network = Network((Dense(12, 1),), logit_scale=0.1)
    automatic = compile_loss(network, data, Logistic()).terms
    lattice = compile_loss(network, data, Logistic(), expansion=Lattice()).terms
    assert automatic is not None
    assert lattice is not None
    assert (automatic.kind, lattice.kind) == ("extension", "lattice")
    assert automatic.n_terms.max() < lattice.n_terms.min() / 10
    assert set(automatic.n_terms % CHUNK) == {0}


def test_wider_logits_take_more_terms():
    rows = np.array([[0.3, 1.0], [2.0, 3.0], [30.0, 45.0]])
    data = dataset(rows, [0, 1, 0])
    network = Network((Dense(2, 1),), logit_scale=1.0)
    spectrum = compile_loss(network, data, Logistic(), tolerance=0.1).terms
    assert isinstance(spectrum, FourierTerms)
    assert (np.diff(spectrum.n_terms) >= 0).all()
    assert spectrum.n_terms[-1] > spectrum.n_terms[0]


def test_descriptions():
    problem = PROBLEMS["logistic-halves"]
    text = compiled(problem).describe()
    assert text.startswith(
        "logistic loss of 7 examples on 11 qubits: lattice with 32 to 32 frequencies (mean 32), "
        "spectral error at most "
    )
    text = compiled(PROBLEMS["squared-one"]).describe()
    assert text == "squared loss of 7 examples on 7 qubits: a quadratic form, exact"


# ---------------------------------------------------------------- rates and certificates


@pytest.mark.parametrize(("half_range", "terms"), [(3.0, range(4, 17, 3)), (9.0, range(7, 26, 6))])
def test_fourier_extension_converges_geometrically(half_range: float, terms: range):
    integrand = LOGISTIC
    z = np.linspace(-half_range, half_range, 10_007)
    errors = []
    for n_terms in terms:
        table = fourier_extension(integrand, half_range, n_terms, cutoff=1e-14)
        error = np.abs(table(z) - integrand.targets(z)).max()
        assert table.error == pytest.approx(error, rel=0.2)
        errors.append(error)
    rates = np.diff(np.log(errors)) / terms.step
    assert (rates < -0.5).all()
    # a straight line: no single step departs from the mean rate by a third
    np.testing.assert_allclose(rates, rates.mean(), rtol=0.34)


@pytest.mark.parametrize(("half_range", "n_terms", "slack"), [(3.0, 7, 1e-6), (9.0, 12, 1e-6)])
def test_certificates_are_bounds_and_tight(half_range: float, n_terms: int, slack: float):
    integrand = LOGISTIC
    table = fourier_extension(integrand, half_range, n_terms, cutoff=1e-14, slack=slack)
    z = np.random.default_rng(n_terms).uniform(-half_range, half_range, 40_000)
    error = np.abs(table(z) - integrand.targets(z)).max()
    assert error <= table.error <= 1.05 * error + slack


def test_more_margin_than_none():
    """The extension needs far fewer terms than the plain periodic continuation."""
    integrand, z = LOGISTIC, np.linspace(-3, 3, 2001)
    period = np.linspace(-3, 3, 400, endpoint=False)
    values = np.fft.rfft(integrand.targets(period), axis=0)[:16]
    phase = np.exp(1j * np.pi / 3 * np.outer(z + 3, np.arange(16)))
    weight = np.where(np.arange(16) == 0, 1, 2) / 400
    plain = np.abs((phase * weight @ values).real - integrand.targets(z)).max()
    assert plain > 1e-2
    assert fourier_extension(integrand, 3.0, 16, cutoff=1e-14).error < 1e-11


@pytest.mark.parametrize("n_outputs", [2, 5])
@pytest.mark.parametrize("half_range", [1.5, 6.0])
def test_softmax_certificate_bounds_products(n_outputs: int, half_range: float):
    integrand = FrullaniIntegrand(half_range, n_outputs, 1e-4)
    table = fourier_extension(integrand, half_range, 24, cutoff=1e-10, slack=1e-6)
    rng = np.random.default_rng(n_outputs)
    z = rng.uniform(-half_range, half_range, (4000, n_outputs))
    z[: 2 * n_outputs] = half_range * rng.choice([-1, 1], (2 * n_outputs, n_outputs))
    factors = table(z.reshape(-1)).reshape(*z.shape, -1)
    value = integrand.constants.sum() - integrand.step * factors.prod(1).sum(1)
    error = np.abs(value - np.log(np.exp(z).sum(1))).max()
    assert error <= table.error + integrand.quadrature_error
    assert integrand.quadrature_error == 1e-4


@pytest.mark.parametrize("n_outputs", [2, 3, 10])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6, 1e-9])
def test_trapezoid_rule_keeps_its_tolerance(n_outputs: int, tolerance: float):
    integrand = FrullaniIntegrand(4.0, n_outputs, tolerance)
    error = _trapezoid_error(integrand)
    assert tolerance / 1000 < error <= tolerance


def test_trapezoid_rule_converges_exponentially():
    """The aliasing error falls as exp(-pi^2 / step), the rate of |Gamma(2 pi i / step)|."""
    integrands = [FrullaniIntegrand(4.0, 3, 10.0**-k) for k in range(4, 11)]
    inverse = np.array([1 / integrand.step for integrand in integrands])
    errors = np.array([_trapezoid_error(integrand) for integrand in integrands])
    slope = np.polyfit(inverse, np.log(errors * np.sqrt(inverse)), 1)[0]
    assert abs(slope / -(np.pi**2) - 1) < 0.15


def _trapezoid_error(integrand: FrullaniIntegrand) -> float:
    """The largest error of the quadrature alone, over random and extreme logits."""
    z = np.random.default_rng(6).uniform(-4, 4, (3000, integrand.n_outputs))
    z[0], z[1] = -4, 4
    shifted = np.minimum(z[:, :, None] + integrand.nodes, 6.7)
    product = np.exp(-np.exp(shifted)).prod(1)
    value = integrand.constants.sum() - integrand.step * product.sum(1)
    return float(np.abs(value - np.log(np.exp(z).sum(1))).max())


class _Jumps(Integrand):
    """Discontinuous functions: a sign and a zero-one loss."""

    def targets(self, z):
        return np.stack([np.sign(z), (z > 0.9).astype(float)], axis=1)

    def combine(self, values):
        return values

    def loss_error(self, combined, each):
        return combined

    def highest_frequency(self, tolerance):
        return 1 / tolerance

    curvatures = None
    quadrature_error = 0.0


@pytest.mark.parametrize(("n_points", "n_terms"), [(1, 1), (8, 5), (9, 5), (9, 32)])
def test_lattice_sums_are_exact_for_any_function(n_points: int, n_terms: int):
    table = lattice_sum(_Jumps(), -1.3, 0.4, n_points, n_terms)
    distance = 0.4 * np.arange(n_points)
    np.testing.assert_allclose(table(distance), _Jumps().targets(-1.3 + distance), atol=1e-13)
    assert table.error < 1e-13
    assert table.coefficients.shape == (n_terms, 2)


def test_lattice_sums_refuse_too_few_terms():
    with refuses("5 terms are exact on at most 9 lattice points, got 10"):
        lattice_sum(_Jumps(), 0.0, 1.0, 10, 5)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1e-3, float("nan"), 2.0, 1e-11])
def test_refuses_tolerances(tolerance: float):
    with refuses(f"tolerance must be at least 1e-10 and below 1, got {tolerance}; for exact sums"):
        compiled(PROBLEMS["logistic-real"], tolerance=tolerance)


def test_refuses_other_inputs():
    with refuses("the network has 5 inputs but the data 7; build the network for the"):
        compile_loss(Network((Dense(5, 1),)), PROBLEMS["logistic-real"].data, Logistic())


@pytest.mark.parametrize(("step", "bias"), [(None, True), (None, False), (0.3, True), (2.0, True)])
def test_refuses_lattices_without_a_step(step: float | None, bias: bool):
    data = dataset(np.array([[1, 2], [0, 3], [1, 1]]) * (step or 0.7), [0, 1, 0], step=step)
    with refuses(f"integer multiples of data.step, got step={step}; quantise or binarise"):
        compile_loss(Network((Dense(2, 1, bias),)), data, Logistic(), expansion=Lattice())


def test_a_step_that_misses_one_is_a_lattice_without_bias():
    data = dataset(np.array([[2.0, -4.0], [0.0, 6.0], [2.0, 2.0]]), [0, 1, 0], step=2.0)
    network = Network((Dense(2, 1, False),))
    spectrum = compile_loss(network, data, Logistic(), expansion=Lattice()).terms
    assert isinstance(spectrum, FourierTerms)
    assert spectrum.kind == "lattice"


@pytest.mark.parametrize(
    ("loss", "n_outputs", "n_classes", "message"),
    [
        (Softmax(), 3, 2, "the softmax loss needs one output per class, got 3 outputs for 2"),
        (Softmax(), 1, 2, "got 1 outputs for 2 classes; for two classes and one output use Log"),
        (Logistic(), 2, 3, "the logistic loss needs one output per class, or one output for two"),
        (Logistic(), 1, 3, "got 1 outputs for 3 classes"),
        (PairwiseLogistic(), 1, 2, "pairwise-logistic loss needs one output per class, got 1"),
        (SquaredError(), 1, 3, "the squared loss needs one output per class, or one output for"),
        (SquaredError(), 3, 2, "got 3 outputs for 2 classes"),
    ],
)
def test_losses_refuse_outputs(loss: Loss, n_outputs: int, n_classes: int, message: str):
    data = dataset([[0.5, 1.0], [0.25, 0.0]], [1, 0], n_classes)
    with refuses(message):
        compile_loss(Network((Dense(2, n_outputs),)), data, loss)


def test_refuses_tolerances_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    # As if no sum of any length were good enough; trying them all takes minutes.
    monkeypatch.setattr(linear, "_widest_table", lambda *arguments: (None, 0.0))
    data = dataset([[300.0, 500.0], [0.25, 0.0]], [1, 0])
    with refuses("tolerance 0.001 needs more than 1024 frequencies for logits up to 240; raise"):
        compile_loss(Network((Dense(2, 1, False),)), data, Logistic())


def test_diagonal_refuses_long_chains():
    data = dataset(np.ones((2, 25)), [1, 0])
    hamiltonian = compile_loss(Network((Dense(25, 1, False),)), data, Logistic())
    with refuses("a diagonal of 25 qubits has 2^25 entries; at most 24 qubits are written out"):
        hamiltonian.diagonal()


def test_layer_choices_and_lists_of_ones_own_compile():
    """Sectors of a hidden network: layer scopes, a folded code and joint settings."""
    own = Choice(
        "both",
        (
            Option(logit_scale=0.2, hidden_scale=0.7),
            Option(logit_scale=1.1, hidden_scale=0.4),
            Option(logit_scale=0.9, hidden_scale=1.3),
        ),
    )
    choices = (
        encoding_choice([Encoding(0.0, 1.0), Encoding(-3.0, 0.5)], scope="layer", layer=1),
        activation_choice(["tanh", "relu"], scope="layer"),
        own,
    )
    rng = np.random.default_rng(3)
    data = dataset(rng.normal(size=(4, 2)), [1, 0, 0, 1])
    for order in ("neuron", "neuron-reversed"):
        network = Network((Dense(2, 2), Dense(2, 1)), choices=choices, order=order)
        hamiltonian = compile_loss(network, data, Logistic(), tolerance=1e-4)
        exact = hamiltonian.losses(oracles.bits_table(network.n_qubits))
        error = np.abs(hamiltonian.diagonal() - exact).max()
        assert error <= hamiltonian.spectral_error + 1e-6
        assert hamiltonian.spectral_error <= 1e-4
