"""The truncated MPS against statevectors and a gate-by-gate truncation in plain NumPy."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from hypercircuit import DiagonalMPO
from hypercircuit.circuit import Brickwork, Truncated
from hypercircuit.energy.site_operators import site_expectations, site_operators
from hypercircuit.state import bit_probabilities, correlations, prepare_state, truncated_tensors
from hypercircuit.state.splitting import move

SCHEMES = ["sweep", "parallel"]


def random_angles(depth: int, n: int, seed: int = 0, kinds: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (depth, n, kinds))


def with_rz(angles: np.ndarray) -> np.ndarray:
    """Angles of both rotations, those of Rz zero where there is none."""
    return np.concatenate([angles, np.zeros_like(angles)], -1) if angles.shape[2] == 1 else angles


def amplitudes(tensors) -> np.ndarray:
    found = np.ones((1, 1))
    for tensor in tensors.site_tensors():
        found = np.tensordot(found, np.asarray(tensor), 1).reshape(-1, tensor.shape[2])
    return found[:, 0]


def truncated(angles: np.ndarray, max_bond: int, **settings):
    circuit = Brickwork(len(angles), "ry" if angles.shape[2] == 1 else "ry-rz")
    make = jax.jit(lambda p: truncated_tensors(circuit, p, max_bond=max_bond, **settings))
    return make(jnp.asarray(angles))


class Value:
    """A sum of <Z>, <ZZ> of neighbours and an operator with weights of their own."""

    def __init__(self, n: int, bond: int = 3) -> None:
        rng = np.random.default_rng(n)
        self.z, self.zz = rng.normal(size=n), rng.normal(size=n - 1)
        bonds = [1, *[bond] * (n - 1), 1]
        self.tensors = [
            rng.normal(size=(left, 2, right)) / np.sqrt(bond)
            for left, right in itertools.pairwise(bonds)
        ]

    def of(self, ansatz: Truncated, params: jax.Array) -> jax.Array:
        state = prepare_state(ansatz, params)
        mpo = DiagonalMPO(tuple(tensor.astype(params.dtype) for tensor in self.tensors))
        (operators,) = site_operators([(0, mpo)], 3, np.dtype(params.dtype))
        mean = 1 - 2 * bit_probabilities(state)
        pairs = correlations(state)[1, 1:] + mean[1:] * mean[:-1]
        return self.z @ mean + self.zz @ pairs + site_expectations(state, operators).sum()

    def of_amplitudes(self, psi: np.ndarray) -> float:
        bits = oracles.bits_table(len(self.z)).astype(int)
        signs = 1 - 2 * bits
        diagonal = signs @ self.z + (signs[:, 1:] * signs[:, :-1]) @ self.zz
        carried = np.ones((len(bits), 1))
        for tensor, column in zip(self.tensors, bits.T, strict=True):
            carried = np.einsum("kl,lkr->kr", carried, tensor[:, column])
        return oracles.energy(psi, diagonal + carried[:, 0])


def value_and_gradient(n: int, ansatz: Truncated):
    return jax.jit(jax.value_and_grad(functools.partial(Value(n).of, ansatz)))


# ---------------------------------------------------------------- the state


@pytest.mark.parametrize(
    ("depth", "n", "max_bond", "cutoff", "kinds"),
    [
        (8, 9, 4, 0.0, 2),
        (7, 8, 4, 0.0, 1),
        (9, 7, 3, 0.0, 2),
        (6, 6, 1, 0.0, 2),
        (7, 9, 4, 0.02, 2),
    ],
)
def test_sweep_is_the_best_truncation_gate_by_gate(depth, n, max_bond, cutoff, kinds):
    angles = random_angles(depth, n, seed=n, kinds=kinds)
    found = truncated(angles, max_bond, cutoff=cutoff)
    exact_layers = 2 * (max_bond.bit_length() - 1) + 1
    expected, discarded = oracles.truncated_brickwork(
        with_rz(angles), max_bond, cutoff, exact_layers
    )
    psi = amplitudes(found)
    np.testing.assert_allclose(np.linalg.norm(psi), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(abs(np.vdot(expected, psi)), 1, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.discarded, discarded, rtol=0, atol=1e-10)
    assert float(found.discarded_weight) > 1e-3
    if cutoff:
        without = oracles.truncated_brickwork(with_rz(angles), max_bond, 0.0, exact_layers)
        assert abs(np.vdot(without[0], psi)) < 1 - 1e-4, "the cutoff must drop something"


def test_parallel_truncates_all_pairs_of_a_layer_gate_by_gate():
    """State, energy and discarded weights; the energy depends on which vectors are kept."""
    angles, value = random_angles(8, 8, seed=5), Value(8)
    found = truncated(angles, 4, scheme="parallel")
    expected, discarded = oracles.parallel_brickwork(angles, 4, exact_layers=5)
    psi = amplitudes(found)
    np.testing.assert_allclose(abs(np.vdot(expected, psi)), 1, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.discarded, discarded, rtol=0, atol=1e-10)
    ansatz = Truncated(Brickwork(8), 4, scheme="parallel")
    energy = jax.jit(functools.partial(value.of, ansatz))(jnp.asarray(angles))
    assert abs(energy - value.of_amplitudes(expected)) < 1e-9
    swept, _ = oracles.truncated_brickwork(angles, 4)
    assert abs(energy - value.of_amplitudes(swept)) > 1e-3, "the schemes must differ"


def test_parallel_converges_with_the_bond_as_sweep_does():
    angles = random_angles(9, 10, seed=4)
    exact = oracles.brickwork_statevector(angles)
    errors = {
        scheme: np.array(
            [
                1 - abs(np.vdot(exact, amplitudes(truncated(angles, b, scheme=scheme)))) ** 2
                for b in (4, 8)
            ]
        )
        for scheme in SCHEMES
    }
    assert (np.diff(errors["parallel"]) < 0).all()
    assert (errors["parallel"] < 1.5 * errors["sweep"] + 1e-3).all(), errors


@pytest.mark.parametrize(("scheme", "depths"), [("sweep", range(1, 9)), ("parallel", [6, 7, 8])])
def test_nothing_discarded_is_exact(scheme: str, depths):
    """Bond 4 holds every state of four or five sites; the scheme makes layer 6 and later ones."""
    for depth in depths:
        n, kinds = (4, 1) if depth % 3 == 0 else (5, 2)
        angles = random_angles(depth, n, seed=depth, kinds=kinds)
        found = truncated(angles, 16, scheme=scheme)
        expected = oracles.brickwork_statevector(with_rz(angles))
        np.testing.assert_allclose(amplitudes(found), expected, rtol=0, atol=1e-12)
        # Unused bond indices have a weight of the square of the floor, eps^(4/3).
        assert float(found.discarded_weight) < 1e-20


@pytest.mark.parametrize("scheme", ["sweep", pytest.param("parallel", marks=pytest.mark.slow)])
def test_states_are_made_side_by_side(scheme: str):
    angles = jnp.asarray(np.stack([random_angles(6, 6, seed) for seed in (1, 2)]))
    one = functools.partial(truncated_tensors, Brickwork(6), max_bond=2, scheme=scheme)
    both = jax.jit(jax.vmap(one))(angles)
    for number in (0, 1):
        alone = one(angles[number])
        mine = jax.tree.map(lambda values, k=number: values[k], both)
        np.testing.assert_allclose(
            abs(np.vdot(amplitudes(alone), amplitudes(mine))), 1, rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(mine.discarded, alone.discarded, atol=1e-12)


@pytest.mark.parametrize(("n", "depth", "max_bond"), [(1, 3, 1), (2, 4, 5), (3, 7, 2), (5, 8, 4)])
def test_short_chains_are_exact_at_any_depth(n: int, depth: int, max_bond: int):
    angles = random_angles(depth, n, seed=n)
    found = truncated(angles, max_bond)
    psi, expected = amplitudes(found), oracles.brickwork_statevector(angles)
    np.testing.assert_allclose(abs(np.vdot(expected, psi)), 1, rtol=0, atol=1e-12)
    assert not np.asarray(found.discarded).any()


# ---------------------------------------------------------------- the gradient


@pytest.mark.parametrize(
    ("scheme", "n", "kinds"),
    [("sweep", 5, 2), pytest.param("parallel", 4, 1, marks=pytest.mark.slow)],
)
def test_gradient_is_exact_where_nothing_is_discarded(scheme: str, n: int, kinds: int):
    """Bond 4 holds every state of so few sites; the cutoff, far below any weight, makes layers 6
    and 7 go through the scheme."""
    angles = random_angles(7, n, seed=2, kinds=kinds)
    value = Value(n)

    def expected(angles: np.ndarray) -> float:
        return value.of_amplitudes(oracles.brickwork_statevector(with_rz(angles)))

    circuit = Brickwork(7, "ry" if kinds == 1 else "ry-rz")
    ansatz = Truncated(circuit, 4, 1e-30, scheme)
    energy, gradient = value_and_gradient(n, ansatz)(jnp.asarray(angles))
    np.testing.assert_allclose(energy, expected(angles), rtol=1e-11)
    differences = oracles.finite_difference_gradient(expected, angles, 1e-5)
    np.testing.assert_allclose(gradient, differences, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("scheme", "cutoff"),
    [("sweep", 0.02), pytest.param("parallel", 0.0, marks=pytest.mark.slow)],
)
def test_gradient_is_that_of_the_truncated_state(scheme: str, cutoff: float):
    n, depth = 8, 8
    angles = random_angles(depth, n, seed=3)
    ansatz = Truncated(Brickwork(depth), 4, cutoff, scheme)
    descend = value_and_gradient(n, ansatz)
    energy, gradient = descend(jnp.asarray(angles))
    rng = np.random.default_rng(0)
    for _ in range(6):
        direction = rng.normal(size=angles.shape)
        ahead, behind = (descend(jnp.asarray(angles + s * direction))[0] for s in (1e-6, -1e-6))
        np.testing.assert_allclose(
            (gradient * direction).sum(), (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-6
        )
    single, of_single = descend(jnp.asarray(angles, jnp.float32))
    assert of_single.dtype == jnp.float32
    np.testing.assert_allclose(single, energy, rtol=0, atol=2e-4)
    error = np.linalg.norm(of_single - gradient) / np.linalg.norm(gradient)
    assert error < 2e-3


def degenerate_angles(depth: int, n: int) -> dict[str, np.ndarray]:
    """Product states, and Bell pairs and GHZ states with exactly equal singular values."""
    zero = np.zeros((depth, n, 2))
    half = zero + np.array([np.pi / 2, 0])
    bell, ghz = zero.copy(), zero.copy()
    bell[0, ::2, 0] = np.pi / 2
    ghz[0, 0, 0] = np.pi / 2
    return {"zero": zero, "half": half, "bell": bell, "ghz": ghz}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_degenerate_singular_values_leave_the_gradient_finite(scheme: str, dtype: type):
    n, depth = 6, 7
    descend = value_and_gradient(n, Truncated(Brickwork(depth), 2, scheme=scheme))
    for name, angles in degenerate_angles(depth, n).items():
        energy, gradient = descend(jnp.asarray(angles, dtype))
        assert np.isfinite(gradient).all(), name
        if name in ("zero", "half"):
            expected = Value(n).of_amplitudes(oracles.brickwork_statevector(angles))
            np.testing.assert_allclose(energy, expected, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("smallest", [1e-1, 1e-9, 1e-13, 0])
@pytest.mark.parametrize("complex_", [True, False])
def test_what_a_centre_moves_over_is_not_changed(complex_: bool, smallest: float):
    """Both sides of the floor, about 4e-11 in double precision, with the gradient of A C."""
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_ else 0)

    left, right = np.linalg.qr(draw(6, 3))[0], np.linalg.qr(draw(3, 3))[0]
    matrix = jnp.asarray(left * [1, 0.5, smallest] @ right)
    isometry, rest = jax.jit(move)(matrix)
    np.testing.assert_allclose(isometry @ rest, matrix, atol=1e-14)
    kept = np.linalg.svd(isometry, compute_uv=False)
    np.testing.assert_allclose(kept, [1, 1, min(1, smallest / 2.0 ** (-52 * 2 / 3))], atol=1e-3)
    outer, inner = draw(6, 6), draw(3, 3)

    def between(isometry: jax.Array, rest: jax.Array) -> jax.Array:
        own = isometry.conj().T @ outer @ isometry
        return jnp.trace(own @ rest @ inner @ rest.conj().T).real

    found = jax.grad(lambda m: between(*move(m)))(matrix)
    expected = jax.grad(lambda m: between(jnp.eye(6), m))(matrix)
    np.testing.assert_allclose(found, expected, atol=1e-4 if smallest < 1e-8 else 1e-12)


def test_centres_move_side_by_side_in_single_precision():
    """Good, badly conditioned and singular matrices, one by one, in a batch and under vmap."""
    rng = np.random.default_rng(3)
    matrices = rng.normal(size=(4, 6, 3)) + 1j * rng.normal(size=(4, 6, 3))
    matrices[1, :, 2] *= 1e-6
    matrices[2, :, 2] = 0
    matrices[3, :, 1:] = 0
    matrices = jnp.asarray(matrices, np.complex64)

    def product(matrix: jax.Array) -> jax.Array:
        isometry, rest = move(matrix)
        return isometry @ rest

    along = jnp.asarray(rng.normal(size=(4, 6, 3)), np.complex64)
    for act in (product, jax.vmap(product), lambda m: jnp.stack([product(each) for each in m])):
        found, pullback = jax.vjp(act, matrices)
        np.testing.assert_allclose(found, matrices, atol=1e-5)
        np.testing.assert_allclose(pullback(along)[0], along, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("n", "depth", "max_bond"),
    [(6, 5, 4), pytest.param(5, 9, 4, marks=pytest.mark.slow), (6, 9, 8)],
)
def test_layers_without_truncation_have_the_exact_gradient_at_product_states(
    n: int, depth: int, max_bond: int, dtype: type
):
    """So few layers that none truncates, and so few sites."""
    ansatz = Truncated(Brickwork(depth), max_bond)
    assert ansatz.exact_layers(n) == depth
    descend = value_and_gradient(n, ansatz)
    value = Value(n)

    def expected(angles: np.ndarray) -> float:
        return value.of_amplitudes(oracles.brickwork_statevector(angles))

    for name, angles in degenerate_angles(depth, n).items():
        _, gradient = descend(jnp.asarray(angles, dtype))
        differences = oracles.finite_difference_gradient(expected, angles, 1e-5)
        # Rounding over the floor of singular values, see `splitting`.
        atol = np.finfo(dtype).eps ** (1 / 3)
        np.testing.assert_allclose(gradient, differences, rtol=0, atol=atol, err_msg=name)


# ---------------------------------------------------------------- compiling


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_program_does_not_grow_with_the_chain(scheme: str):
    def count(n: int) -> int:
        circuit = Brickwork(8)

        def total(params: jax.Array) -> jax.Array:
            state = truncated_tensors(circuit, params, max_bond=4, scheme=scheme)
            return jnp.abs(state.tensors[:, 0, 0, 0]).sum()

        shape = jax.ShapeDtypeStruct((8, n, 2), jnp.float32)
        return jax.jit(jax.grad(total)).lower(shape).as_text().count("stablehlo.")

    # The derivative of one product over the sites takes log2(sites) steps; nothing else grows.
    assert count(8000) < 1.1 * count(64)


def test_steps_of_training_compile_once():
    traced = []

    def energy(params: jax.Array) -> jax.Array:
        traced.append(params.shape)
        state = truncated_tensors(Brickwork(4), params, max_bond=2)
        return jnp.abs(state.tensors[0, 0]).sum()

    step = jax.jit(energy)
    for seed in range(3):
        step(jnp.asarray(random_angles(4, 6, seed)))
    assert len(traced) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_fifty_thousand_sites(scheme: str):
    n = 50_000
    circuit = Truncated(Brickwork(8), 4, scheme=scheme)
    params = circuit.init(jax.random.key(0), n, how="uniform")
    weights = np.random.default_rng(0).normal(size=n).astype(np.float32) / n

    def energy(params: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = prepare_state(circuit, params)
        return bit_probabilities(state) @ weights, state.sites

    (value, sites), gradient = jax.jit(jax.value_and_grad(energy, has_aux=True))(params)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    tensors = np.asarray(sites, np.complex128)
    left, log_norm = np.eye(1, 4)[0][:, None] * np.eye(1, 4), 0.0
    for tensor in tensors:
        left = np.einsum("lm,lsr,msq->rq", left, tensor, tensor.conj(), optimize=True)
        scale = np.trace(left).real
        left, log_norm = left / scale, log_norm + np.log(scale)
    assert abs(log_norm) < 1e-7 * n


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bond": 0}, "max_bond must be at least 1, got 0"),
        ({"max_bond": 2, "cutoff": 1.0}, "cutoff must be from 0 to less than 1, got 1.0"),
        ({"max_bond": 2, "scheme": "zip"}, "scheme must be one of sweep, parallel"),
    ],
)
def test_refusals(settings: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        truncated_tensors(Brickwork(2), jnp.zeros((2, 4, 2)), **settings)
