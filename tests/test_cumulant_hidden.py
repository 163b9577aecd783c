"""The cumulant energy of networks with hidden layers, against all networks by brute force."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit.bnn import (
    Dense,
    Encoding,
    Network,
    activation_choice,
    encoding_choice,
    neuron_gates,
    scale_choice,
)
from hypercircuit.circuit import Brickwork, FreeMPS, Truncated
from hypercircuit.data import Dataset
from hypercircuit.energy import Cumulant
from hypercircuit.energy.cumulant_hidden import HiddenCumulantEnergy
from hypercircuit.energy.gaussian import NearlyNormal
from hypercircuit.energy.pairs import pair_cumulants
from hypercircuit.energy.sectors import SectorEnergy
from hypercircuit.hamiltonian import LOSSES, LossHamiltonian, NoTerms
from hypercircuit.state import bit_cumulants, exact_mps, prepare_state

UNEQUAL = ((-1.0, 1.0), (0.5, -1.0))
THREE = ((-3.0, 1.0), (0.0, 1.0), (0.5, -1.0))


@dataclasses.dataclass(frozen=True)
class Hidden:
    """A small network with hidden layers, asymmetric in every respect.

    Neurons of the layer `coded` choose among `own_codings`, if there are any.
    """

    sizes: tuple[int, ...]
    loss: str = "pairwise-logistic"
    order: str = "neuron"
    activation: str = "hardtanh"
    hidden_scale: float = 0.15
    scale: float = 0.6
    bias: bool = True
    skip: bool = False
    step: float | None = None
    encodings: tuple[tuple[float, float], ...] = UNEQUAL
    gates: bool = False
    activations: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()
    codings: tuple[tuple[float, float], ...] = ()
    own_codings: tuple[tuple[float, float], ...] = ()
    coded: int = 0
    n_examples: int = 4

    @property
    def n_classes(self) -> int:
        return max(2, self.sizes[-1])

    @functools.cached_property
    def data(self) -> Dataset:
        rng = np.random.default_rng(sum(self.sizes))
        x = rng.uniform(-1.0, 1.5, (self.n_examples, self.sizes[0]))
        if self.step is not None:
            x = self.step * np.round(x / self.step)
        y = np.resize([1, 0, 0, 2], self.n_examples) % self.n_classes
        return Dataset(
            x.astype(np.float32), y.astype(np.int32), self.n_classes, None, self.step, "hidden"
        )

    @functools.cached_property
    def network(self) -> Network:
        pairs = zip(self.sizes, self.sizes[1:], self.encodings, strict=False)
        layers = tuple(Dense(a, b, self.bias, Encoding(*e)) for a, b, e in pairs)
        choices = []
        if self.codings:
            choices.append(encoding_choice([Encoding(*each) for each in self.codings]))
        if self.scales:
            choices.append(scale_choice(self.scales))
        if self.gates:
            choices.append(neuron_gates())
        if self.activations:
            choices.append(activation_choice(self.activations, scope="neuron"))
        if self.own_codings:
            own = [Encoding(*each) for each in self.own_codings]
            choices.append(encoding_choice(own, scope="neuron", layer=self.coded, name="own"))
        return Network(
            layers,
            activation=self.activation,
            logit_scale=self.scale,
            hidden_scale=self.hidden_scale,
            skip=self.skip,
            choices=tuple(choices),
            order=self.order,
        )

    @functools.cached_property
    def hamiltonian(self) -> LossHamiltonian:
        return LossHamiltonian(
            self.network, self.data, LOSSES[self.loss](), NoTerms("only cumulants are tested")
        )

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """All networks' logits, (2^N, n_examples, n_outputs)."""
        choices = []
        if self.codings:
            choices.append(("encoding", self.codings, "network"))
        if self.scales:
            choices.append(("logit_scale", self.scales, "network"))
        if self.gates:
            choices.append(("gate", (0, 1), "neuron"))
        if self.activations:
            choices.append(("activation", self.activations, "neuron"))
        if self.own_codings:
            choices.append(("encoding", self.own_codings, "neuron", self.coded))
        return oracles.network_logits(
            oracles.bits_table(self.network.n_qubits),
            self.data.x,
            self.sizes,
            bias=self.bias,
            encodings=self.encodings[: len(self.sizes) - 1],
            activation=self.activation,
            hidden_scale=self.hidden_scale,
            logit_scale=self.scale,
            choices=[
                dict(zip(("setting", "options", "scope", "layer"), each, strict=False))
                for each in choices
            ],
            skip=self.skip,
            order=self.order,
        )

    def energies(self, probabilities: np.ndarray) -> np.ndarray:
        """Every example's energy by the oracle's losses."""
        names = {
            "logistic": "logistic",
            "squared": "squared_error",
            "softmax": "softmax_cross_entropy",
        }
        name = names.get(self.loss, self.loss.replace("-", "_"))
        y = self.data.y
        return np.array(
            [
                probabilities @ oracles.mean_loss(name, self.logits[:, i : i + 1], y[i : i + 1])
                for i in range(len(y))
            ]
        )


def angles(depth: int, n_qubits: int, dtype=jnp.float64) -> jax.Array:
    key = jax.random.key(17 * depth + n_qubits)
    return Brickwork(depth).init(key, n_qubits, how="uniform", dtype=dtype)


def born(depth: int, n_qubits: int) -> np.ndarray:
    return oracles.born_probabilities(oracles.brickwork_statevector(angles(depth, n_qubits)))


def prepare(problem: Hidden, depth: int, kind: Cumulant | None = None, dtype=np.float64):
    return (kind or Cumulant()).prepare(
        problem.hamiltonian, Brickwork(depth), batch_size=problem.n_examples, dtype=dtype
    )


def outputs(energy: HiddenCumulantEnergy, params: jax.Array, n_examples: int):
    """Mean, variance and covariance of the outputs."""

    @jax.jit
    def found(params, batch):
        each = energy.outputs(exact_mps(energy.circuit, params), batch)
        return *each.cumulants, each.covariance

    return found(params, energy.batch(np.arange(n_examples)))


# ---------------------------------------------------------------- outputs' moments

# While nothing saturates, a neuron is linear and only bits of different blocks that are
# correlated across a boundary are left out: product states are then exact.
LINEAR = {
    "product": (1, Hidden((2, 2, 3)), 1e-5, 1e-5),
    "product-choices": (
        1,
        Hidden((2, 2, 2), gates=True, activations=("hardtanh", "relu"), order="neuron-reversed"),
        0.05,
        0.05,
    ),
    "product-encodings": (
        1,
        Hidden((2, 2, 2), own_codings=THREE, hidden_scale=0.05, order="neuron-reversed"),
        1e-5,
        1e-5,
    ),
    "product-class": (1, Hidden((2, 3, 2), order="class", bias=False, skip=True), 1e-5, 1e-5),
    "entangled": (4, Hidden((3, 1, 4), order="neuron"), 1e-5, 2e-2),
    "entangled-reversed": (
        2,
        Hidden((3, 2, 2), gates=True, order="neuron-reversed", bias=False),
        5e-4,
        2e-2,
    ),
    "entangled-encodings": (
        2,
        Hidden((4, 1, 2), own_codings=THREE, hidden_scale=0.05, gates=True),
        5e-4,
        5e-3,
    ),
    "entangled-class": (2, Hidden((4, 2, 2), order="class-reversed", bias=False), 1e-2, 2e-2),
}


@pytest.mark.parametrize("name", LINEAR)
def test_moments_of_outputs_equal_those_over_all_networks(name: str):
    depth, problem, mean_error, variance_error = LINEAR[name]
    n_qubits = problem.network.n_qubits
    energy = prepare(problem, depth)
    mean, variance, covariance = outputs(energy, angles(depth, n_qubits), problem.n_examples)
    probabilities = born(depth, n_qubits)
    expected = np.einsum("w,wnc->nc", probabilities, problem.logits)
    deviations = problem.logits - expected
    pairs = np.einsum("w,wnc,wnd->ncd", probabilities, deviations, deviations)
    own = np.einsum("ncc->nc", pairs)
    assert np.abs(expected).max() > 0.03
    assert own.min() > 1e-3, "the case is too simple to tell anything"
    np.testing.assert_allclose(mean, expected, rtol=0, atol=mean_error)
    np.testing.assert_allclose(variance, own, rtol=0, atol=variance_error)
    apart = ~np.eye(pairs.shape[-1], dtype=bool)
    np.testing.assert_allclose(
        covariance[:, apart], pairs[:, apart], rtol=0, atol=2 * variance_error
    )


def sign_mean(n_inputs: int) -> tuple[Hidden, jax.Array, float, float]:
    """One sign neuron with one outgoing weight in a product state: angles, exact mean, variance."""
    problem = Hidden(
        (n_inputs, 1, 1), "logistic", activation="sign", bias=False, step=1.0, n_examples=1
    )
    x = np.ones((1, n_inputs), np.float32)
    problem.__dict__["data"] = Dataset(x, np.ones(1, np.int32), 2, None, 1.0, "ones")
    ones = np.append(np.full(n_inputs, 0.5 + 0.4 / np.sqrt(n_inputs)), 0.8)
    counts = np.ones(1)
    for p in ones[:-1]:
        counts = np.convolve(counts, [1 - p, p])
    z = 2 * np.arange(n_inputs + 1) - n_inputs
    mean = counts @ np.where(z >= 0, 1.0, -1.0)
    low, high = problem.encodings[1]
    weight = 0.2 * low + 0.8 * high
    square = 0.2 * low**2 + 0.8 * high**2
    theta = 2 * np.arcsin(np.sqrt(ones))
    params = jnp.asarray(np.stack([theta, 0.3 + theta], axis=1)[None])
    scale = problem.scale
    return problem, params, scale * weight * mean, scale**2 * (square - (weight * mean) ** 2)


def test_error_falls_with_the_number_of_inputs():
    """A sum of n bits is normal to 1/n here; even and odd n have a tie at zero or none."""
    sizes = np.array([9, 16, 37, 64, 129])
    errors = []
    for n_inputs in sizes:
        problem, params, mean, variance = sign_mean(int(n_inputs))
        found = outputs(prepare(problem, 1), params, 1)
        errors.append([abs(found[0] - mean).item(), abs(found[1] - variance).item()])
    for each in np.transpose(errors):
        slope = np.polyfit(np.log(sizes), np.log(each), 1)[0]
        assert abs(slope + 1) < 0.25, errors
    assert np.max(errors) < 5e-3


# ---------------------------------------------------------------- energies


@pytest.mark.parametrize(
    ("depth", "problem", "atol"),
    [
        (1, Hidden((10, 1, 1), "squared", activation="sign", step=1.0, n_examples=3), 0.08),
        (4, Hidden((7, 1, 2), "hinge", activation="sigmoid", hidden_scale=0.5), 0.03),
        (2, Hidden((3, 2, 1), "logistic", scales=(0.3, 0.9), codings=UNEQUAL, bias=False), 5e-3),
        (2, Hidden((3, 2, 1), "logistic", own_codings=THREE, bias=False), 5e-3),
        pytest.param(
            1,
            Hidden(
                (2, 2, 2, 1),
                "logistic",
                order="class",
                encodings=(*UNEQUAL, (-1.0, 1.0)),
                own_codings=THREE,
                coded=1,
                bias=False,
            ),
            0.02,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            2,
            Hidden((3, 2, 3), "softmax", activation="relu", gates=True, bias=False),
            0.05,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            1,
            Hidden((3, 2, 2, 1), "squared-hinge", order="class", encodings=(*UNEQUAL, (-1.0, 1.0))),
            0.02,
            marks=pytest.mark.slow,
        ),
        # Outputs of two neurons are far from normal, which a loss with a jump shows most.
        pytest.param(
            1, Hidden((3, 2, 3), "zero-one", activation="tanh"), 0.12, marks=pytest.mark.slow
        ),
    ],
)
def test_energy_is_close_to_that_of_the_statevector(depth: int, problem: Hidden, atol: float):
    energy = prepare(problem, depth)
    assert isinstance(energy, SectorEnergy if problem.scales else HiddenCumulantEnergy)
    n_qubits = problem.network.n_qubits
    batch = energy.batch(np.arange(problem.n_examples))
    found = energy.value_function()(angles(depth, n_qubits), batch)
    expected = problem.energies(born(depth, n_qubits))
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "own",
    [(), pytest.param(((-3.0, 1.0), (-1.0, 1.0), (2.0, -1.0)), marks=pytest.mark.slow)],
)
def test_certain_weights_give_the_loss_of_their_network_and_a_finite_gradient(own: tuple):
    """Sums of exactly zero occur, where a sign neuron is +1."""
    problem = Hidden(
        (3, 2, 1),
        "logistic",
        activation="sign",
        step=1.0,
        gates=True,
        encodings=((-1.0, 1.0),) * 2,
        own_codings=own,
    )
    n_qubits = problem.network.n_qubits
    bits = (np.arange(n_qubits) ** 2 % 7 < 4).astype(np.uint8)
    index = int("".join(map(str, bits)), 2)
    expected = oracles.mean_loss("logistic", problem.logits[index], problem.data.y)
    for dtype, atol in ((np.float64, 1e-5), (np.float32, 1e-3)):
        energy = prepare(problem, 1, dtype=dtype)
        params = jnp.asarray(np.stack([np.pi * bits, 0.2 + bits], axis=1)[None], dtype)
        batch = energy.batch(np.arange(problem.n_examples))
        value, gradient = jax.jit(jax.value_and_grad(energy))(params, batch)
        assert value.dtype == gradient.dtype == dtype
        np.testing.assert_allclose(value, expected, rtol=0, atol=atol)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("depth", "order", "problem"),
    [
        (2, 2, Hidden((3, 2, 3), activation="sign", gates=True, step=1.0)),
        (2, 2, Hidden((3, 2, 2), activation="sign", own_codings=THREE, step=1.0)),
        pytest.param(
            1,
            2,
            Hidden(
                (3, 2, 2, 1),
                "logistic",
                order="class",
                encodings=(*UNEQUAL, (-1.0, 1.0)),
                own_codings=THREE,
                coded=1,
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            2,
            4,
            Hidden((3, 2, 1), "logistic", activation="relu", own_codings=UNEQUAL),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            4,
            2,
            Hidden((3, 2, 2), "logistic", activation="relu", skip=True),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            1, 4, Hidden((3, 2, 2), "logistic", activation="tanh"), marks=pytest.mark.slow
        ),
    ],
)
def test_gradient_equals_finite_differences(depth: int, order: int, problem: Hidden):
    energy = prepare(problem, depth, Cumulant(order))
    batch = energy.batch(np.arange(problem.n_examples), np.linspace(0.1, 0.4, problem.n_examples))
    params = angles(depth, problem.network.n_qubits)
    run = jax.jit(jax.value_and_grad(energy))
    _, gradient = run(params, batch)
    assert np.abs(gradient).max() > 1e-2
    rng = np.random.default_rng(depth)
    for _ in range(5):
        direction = rng.normal(size=params.shape)
        above, _ = run(params + 1e-5 * direction, batch)
        below, _ = run(params - 1e-5 * direction, batch)
        assert abs((above - below) / 2e-5 - (gradient * direction).sum()) < 1e-6


# ---------------------------------------------------------------- states of site tensors


@pytest.mark.parametrize(
    ("depth", "problem"),
    [
        (3, Hidden((2, 2, 2), gates=True, own_codings=UNEQUAL, order="neuron-reversed")),
        (2, Hidden((3, 2, 3), "softmax", skip=True)),
        (3, Hidden((3, 2, 2), "logistic", order="class-reversed", bias=False)),
        (2, Hidden((3, 2, 1), "logistic", scales=(0.3, 0.9), codings=UNEQUAL, bias=False)),
        pytest.param(
            2,
            Hidden((2, 2, 2, 1), "logistic", order="class", encodings=(*UNEQUAL, (-1.0, 1.0))),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_site_tensors_of_a_circuit_have_the_energies_of_its_cells(depth: int, problem: Hidden):
    n, n_qubits = problem.n_examples, problem.network.n_qubits
    params = angles(depth, n_qubits)
    found = []
    for circuit in (Brickwork(depth), Truncated(Brickwork(depth), 2 ** (depth // 2))):
        energy = Cumulant().prepare(problem.hamiltonian, circuit, batch_size=n, dtype=np.float64)
        function = jax.jit(lambda p, b, energy=energy: energy.per_example(p, b))
        found.append(function(params, energy.batch(np.arange(n))))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("ansatz", "problem", "atol"),
    [
        (FreeMPS(3), Hidden((7, 1, 2), "hinge", activation="sigmoid", hidden_scale=0.5), 0.03),
        (
            Truncated(Brickwork(5), 2),
            Hidden((3, 2, 1), "logistic", own_codings=THREE, bias=False),
            0.02,
        ),
        pytest.param(
            FreeMPS(2),
            Hidden((3, 2, 2), "logistic", order="class", bias=False, skip=True),
            0.03,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_energy_in_site_tensors_is_close_to_brute_force(ansatz, problem: Hidden, atol: float):
    n, n_qubits = problem.n_examples, problem.network.n_qubits
    params = ansatz.init(jax.random.key(2), n_qubits, how="uniform", dtype=jnp.float64)
    energy = Cumulant().prepare(problem.hamiltonian, ansatz, batch_size=n, dtype=np.float64)
    batch = energy.batch(np.arange(n))
    amplitudes = np.asarray(prepare_state(ansatz, params).to_statevector())
    expected = problem.energies(np.abs(amplitudes) ** 2)
    found = energy.value_function()(params, batch)
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    run = jax.jit(jax.value_and_grad(energy))
    _, gradient = run(params, batch)
    direction = np.random.default_rng(1).normal(size=params.shape)
    above, below = (run(params + s * direction, batch)[0] for s in (1e-5, -1e-5))
    assert abs((above - below) / 2e-5 - (gradient * direction).sum()) < 1e-6


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("name", oracles.ACTIVATIONS)
def test_activation_moments_equal_quadrature(name: str):
    """Means, deviations and powers, with and without skewness and kurtosis, and slopes."""
    u = np.linspace(-12, 12, 200_002)
    weights = np.exp(-(u**2) / 2)
    weights /= weights.sum()
    factor = 1 + 0.2 / 6 * (u**3 - 3 * u) + 0.3 / 24 * (u**4 - 6 * u**2 + 3)
    mean, deviation = np.array([0.3, -1.2, 3.0, 0.0, -20.0]), np.array([0.5, 4.0, 0.01, 1.0, 7.0])
    shape = jnp.asarray(mean), jnp.asarray(deviation**2)
    higher = jnp.asarray(0.2 * deviation**3), jnp.asarray(0.3 * deviation**4)
    normal, skewed = NearlyNormal.of(shape), NearlyNormal.of((*shape, *higher))
    z = mean[:, None] + deviation[:, None] * u
    values = np.vectorize(oracles.ACTIVATIONS[name], otypes=[float])(z)
    for power in (1, 2, 3, 4):
        for found, expected in (
            (normal.activation(name, power), values**power @ weights),
            (skewed.activation(name, power), values**power @ (weights * factor)),
            (normal.slope(name, power), values**power @ (weights * u)),
        ):
            tolerance = 2e-4 if name == "sign" else 1e-6
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize(
    "depth", [1, 2, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 4))]
)
def test_pair_cumulants_equal_those_site_by_site(depth: int):
    for n_qubits in (1, 2, 7, 12):
        mps = exact_mps(Brickwork(depth), angles(depth, n_qubits))
        probabilities, bands = pair_cumulants(mps)
        expected, expected_bands = bit_cumulants(mps, 2)
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-12)
        for found, band in zip(bands, expected_bands, strict=True):
            assert found.powers == band.powers
            np.testing.assert_allclose(found.values, band.values, rtol=0, atol=1e-12)


# ---------------------------------------------------------------- refusals


def test_fourth_order_layer_by_layer_is_refused():
    problem = Hidden((2, 2, 2), order="class")
    with pytest.raises(ValueError, match=re.escape("order 4 of the cumulants needs one hidden")):
        prepare(problem, 1, Cumulant(4))


def test_too_many_settings_of_choices_are_refused():
    problem = Hidden((2, 2, 2), scales=tuple(np.linspace(0.1, 1, 512)))
    with pytest.raises(ValueError, match="have 512 settings, of which at most 256"):
        prepare(problem, 1)
