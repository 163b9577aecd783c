"""The package's own figures: time, error and memory of every main operation, one table each.

Every problem is measured in a process of its own: compile time apart from run time, one warm-up,
then the median of some repeats, each waited for; the peak memory is that of the whole process,
data and imports included. The network is a linear one on MNIST, logit scale 0.3, softmax loss
and float32 unless the table says otherwise; the circuit is the brickwork of the given depth.

    problem (name, group) --- worker process ---> rows ---> OUTPUT.json ---> tables in README.md

Measure everything, or some groups or problems, then put the tables into the README:

    python benchmarks/figures.py --output figures.json
    python benchmarks/figures.py --only exact cumulant-step-depth-4 --output figures.json
    python benchmarks/figures.py --table figures.json

A later run replaces the rows of what it measures and keeps the others; every row carries the
commit, versions and device that it was measured with. To add a problem, write a function that
returns rows and list it in ``PROBLEMS``, and its columns in ``GROUPS``.
"""

import argparse
import dataclasses
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import reporting
from reporting import Column

LOGIT_SCALE = 0.3
BATCH_SIZE = 100
N_HIDDEN_IMAGES = 32
THRESHOLD = 127
"""Raw pixels above it are 1 in the hidden network's inputs, all others 0."""
TOLERANCE = 1e-3
"""Spectral error that is asked for, in nats."""
ERROR_LEVELS = 16
"""Grey levels of the images on which an approximation's error is measured: on their lattice the
expansion is exact to 1e-9 nats, so that what is measured is the approximation's error alone."""
DEPTHS = (1, 4)
CHAIN_SIZES = (64, 50_000)
OPERATOR_SIZES = ((785, 128), (8_000, 32), (50_000, 32))
"""Qubits and bond dimension of the operators whose energy is timed."""
RESUME_STEPS = 20
RESUMES = 3
"""Of the runs that are killed: half of the steps, and repeats."""
RESUME_SETTINGS = {
    7850: ["--set", "decode.final_examples=100"],
    50890: ["experiments/04_mnist_hidden/config.toml", "--set", "decode.final_examples=100"],
}
TRUNCATED_SIZES = ((64, 16, 16), (1_000, 16, 16), (8_000, 16, 16), (50_000, 8, 4))
"""Qubits, depth and bond dimension of the truncated states that are timed."""
TRUNCATED_OPERATOR_BOND = 16
PEER_SIZE = (1_000, 16, 16)
"""Qubits, depth and bond dimension at which truncated states of others are timed."""
OVERLAP_SIZE = (40, 12, 16)
"""The same where the exact state, of bond 64, is at hand."""
OVERLAP_SEEDS = 5
CHAIN_NON_ZEROS = 24
"""Inputs of an example of the chain problem that are 1; the same number at every size."""
COMPILE_REPEATS = 3
N_SAMPLES = 1000
N_ERROR_IMAGES = 40
TRAINING_STEPS = 300
N_PRECISION_IMAGES = 20
LABELS_PER_DIGIT = 6
PACKAGES = ("hypercircuit", "jax", "jaxlib", "numpy", "equinox", "optax", "quimb")

Row = dict[str, Any]


class Problem(NamedTuple):
    """One thing to measure.

    Attributes:
        group: the table that its rows stand in.
        measure: returns the rows, given the number of timed repeats.
        double: whether JAX's 64-bit mode is on.
    """

    group: str
    measure: Callable[[int], list[Row]]
    double: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
    """A table of the README."""

    title: str
    columns: tuple[Column, ...]


# ---------------------------------------------------------------- measuring


def compile_function(function, *arguments):
    """Compile a JAX function for these arguments, anew, and return it with the seconds taken.

    Tracing, lowering and compiling count.
    """
    import jax

    jax.clear_caches()
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def median_seconds(function, repeats):
    """Call a function once to warm up, then ``repeats`` times, and return the median time."""
    import jax

    jax.block_until_ready(function())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# ---------------------------------------------------------------- problems' parts


def mnist_images(n_examples, *, part="train"):
    """Return the first images of a part of MNIST with pixels scaled to [0, 1]."""
    import hypercircuit

    dataset = getattr(hypercircuit.load_mnist(), part)
    return hypercircuit.scale_pixels(dataset.take(np.arange(n_examples)))


def linear_network(n_inputs, n_outputs):
    """Return the linear network with biases of this size."""
    import hypercircuit

    return hypercircuit.Network((hypercircuit.Dense(n_inputs, n_outputs),), logit_scale=LOGIT_SCALE)


def softmax_hamiltonian(data, *, expansion=None):
    """Return the compiled softmax loss of the linear network that fits the data."""
    import hypercircuit

    network = linear_network(data.n_inputs, data.n_classes)
    return hypercircuit.compile_loss(
        network, data, hypercircuit.Softmax(), tolerance=TOLERANCE, expansion=expansion
    )


def start_params(circuit, n_qubits, dtype=np.float32):
    """Return the angles that training starts from."""
    import jax

    return circuit.init(jax.random.key(0), n_qubits, dtype=dtype)


def relabel(data, n_outputs):
    """Return the images with labels for ``n_outputs`` classes, made from digits and row numbers.

    One output: whether the digit is odd. Fewer than ten: the digit modulo ``n_outputs``. More:
    six labels a digit, by the row number modulo six.
    """
    digits = data.y
    if n_outputs <= 2:
        labels = digits % 2
    elif n_outputs <= 10:
        labels = digits % n_outputs
    else:
        labels = digits * LABELS_PER_DIGIT + np.arange(len(data)) % LABELS_PER_DIGIT
    return dataclasses.replace(data, y=labels.astype(np.int32), n_classes=max(2, n_outputs))


def step_row(hamiltonian, kind, depth, repeats):
    """Measure value and gradient of an energy on one batch of all examples."""
    import jax

    import hypercircuit

    circuit = hypercircuit.Brickwork(depth)
    energy = kind.prepare(hamiltonian, circuit, batch_size=hamiltonian.n_examples)
    rows = np.arange(hamiltonian.n_examples)
    batch = energy.batch(rows)
    params = start_params(circuit, hamiltonian.n_qubits)
    step, compile_seconds = compile_function(jax.value_and_grad(energy), params, batch)
    value, gradient = step(params, batch)
    assert bool(np.isfinite(gradient).all()), "the gradient must be finite"
    return {
        "n_qubits": hamiltonian.n_qubits,
        "depth": depth,
        "energy_kind": kind.name,
        "n_examples": hamiltonian.n_examples,
        "value": float(value),
        "compile_seconds": compile_seconds,
        "plan_seconds": median_seconds(lambda: energy.batch(rows), repeats),
        "seconds_per_step": median_seconds(lambda: step(params, batch), repeats),
    }


# ---------------------------------------------------------------- problems


def exact_step(repeats, *, depth):
    """The exact value and gradient of 100 images on 7,850 qubits."""
    import hypercircuit

    data = mnist_images(BATCH_SIZE)
    start = time.perf_counter()
    hamiltonian = softmax_hamiltonian(data)
    loss_seconds = time.perf_counter() - start
    row = step_row(hamiltonian, hypercircuit.Exact(), depth, repeats)
    expansion = {
        "spectral_error": hamiltonian.spectral_error,
        "mean_frequencies": float(hamiltonian.terms.n_terms.mean()),
        "loss_compile_seconds": loss_seconds,
    }
    return [row | expansion]


def scaling_step(repeats, *, n_outputs):
    """The exact value and gradient of 100 images, with more and more outputs of 785 qubits."""
    import hypercircuit

    data = relabel(mnist_images(BATCH_SIZE), n_outputs)
    network = linear_network(data.n_inputs, n_outputs)
    loss = hypercircuit.Logistic() if n_outputs == 1 else hypercircuit.Softmax()
    hamiltonian = hypercircuit.compile_loss(network, data, loss, tolerance=TOLERANCE)
    row = step_row(hamiltonian, hypercircuit.Exact(), max(DEPTHS), repeats)
    scaling = {
        "n_outputs": n_outputs,
        "loss": loss.name,
        "spectral_error": hamiltonian.spectral_error,
        "mean_frequencies": float(hamiltonian.terms.n_terms.mean()),
        "seconds_per_qubit": row["seconds_per_step"] / hamiltonian.n_qubits,
    }
    return [row | scaling]


def chain_compile(repeats, *, n_qubits):
    """One program on a short and a long chain: state, correlations, energy and gradient.

    The loss is the logistic one of a single output with binarised inputs, of which the same
    number is 1 at every size.
    """
    import jax

    import hypercircuit

    rng = np.random.default_rng(0)
    x = np.zeros((BATCH_SIZE, n_qubits - 1), np.float32)
    for row in x:
        row[rng.choice(n_qubits - 1, CHAIN_NON_ZEROS, replace=False)] = 1
    labels = rng.integers(0, 2, BATCH_SIZE).astype(np.int32)
    data = hypercircuit.Dataset(x, labels, 2, None, 1.0, "chain")
    hamiltonian = hypercircuit.compile_loss(
        linear_network(n_qubits - 1, 1), data, hypercircuit.Logistic(), tolerance=TOLERANCE
    )
    circuit = hypercircuit.Brickwork(max(DEPTHS))
    energy = hypercircuit.Exact().prepare(hamiltonian, circuit, batch_size=BATCH_SIZE)
    batch = energy.batch(np.arange(BATCH_SIZE))
    params = start_params(circuit, n_qubits)

    def program(params, batch):
        state = hypercircuit.exact_mps(circuit, params)
        return hypercircuit.correlations(state), jax.value_and_grad(energy)(params, batch)

    seconds = []
    for _ in range(COMPILE_REPEATS):
        compiled, compile_seconds = compile_function(program, params, batch)
        seconds.append(compile_seconds)
    return [
        {
            "n_qubits": n_qubits,
            "depth": circuit.depth,
            "compile_seconds": statistics.median(seconds),
            "seconds_per_step": median_seconds(lambda: compiled(params, batch), repeats),
        }
    ]


def samples(repeats, *, depth):
    """1,000 networks of 7,850 bits from the Born distribution, with their log-probabilities."""
    import jax

    import hypercircuit

    circuit = hypercircuit.Brickwork(depth)
    n_qubits = linear_network(784, 10).n_qubits
    params, key = start_params(circuit, n_qubits), jax.random.key(1)

    def draw(params, key):
        return hypercircuit.sample(hypercircuit.exact_mps(circuit, params), key, N_SAMPLES)

    compiled, compile_seconds = compile_function(draw, params, key)
    bits, log_probabilities = compiled(params, key)
    state = hypercircuit.exact_mps(circuit, params)
    recomputed = hypercircuit.log_probability(state, bits)
    return [
        {
            "n_qubits": n_qubits,
            "depth": depth,
            "n_samples": N_SAMPLES,
            "compile_seconds": compile_seconds,
            "seconds": median_seconds(lambda: compiled(params, key), repeats),
            "mean_log_probability": float(log_probabilities.mean()),
            "log_probability_error": float(abs(recomputed - log_probabilities).max()),
        }
    ]


def cumulant_step(repeats, *, order, depth):
    """The cumulant value and gradient of 100 images on 7,850 qubits."""
    import hypercircuit

    hamiltonian = softmax_hamiltonian(mnist_images(BATCH_SIZE))
    return [step_row(hamiltonian, hypercircuit.Cumulant(order), depth, repeats)]


def hidden_step(repeats, *, kind_name, depth):
    """Value and gradient of a batch of full-MNIST images on 784-64-10, sign: 50,890 qubits."""
    import hypercircuit

    kinds = {
        "exact": (hypercircuit.Exact(), N_HIDDEN_IMAGES),
        "cumulant": (hypercircuit.Cumulant(2), BATCH_SIZE),
        "sampled": (hypercircuit.Sampled(), BATCH_SIZE),
    }
    kind, n_images = kinds[kind_name]
    data = hypercircuit.binarise(hypercircuit.load_mnist().train, THRESHOLD).take(
        np.arange(n_images)
    )
    layers = (hypercircuit.Dense(784, 64), hypercircuit.Dense(64, 10))
    network = hypercircuit.Network(layers, logit_scale=0.2)
    hamiltonian = hypercircuit.compile_loss(network, data, hypercircuit.Logistic())
    return [step_row(hamiltonian, kind, depth, repeats)]


def random_operator(n_qubits, bond):
    """Return an operator on the whole chain with normal entries that neither grow nor vanish."""
    import hypercircuit

    rng = np.random.default_rng(0)

    def tensor(site):
        left, right = 1 if site == 0 else bond, 1 if site == n_qubits - 1 else bond
        return (rng.normal(size=(left, 2, right)) / np.sqrt(2 * bond)).astype(np.float32)

    return hypercircuit.DiagonalMPO(tuple(tensor(site) for site in range(n_qubits)))


def operator_step(repeats, *, n_qubits, bond, depth=4):
    """Value and gradient of one random operator on the whole chain."""
    import jax
    import jax.numpy as jnp

    import hypercircuit
    from hypercircuit.energy.operators import cell_operators, expectations

    mpo = random_operator(n_qubits, bond)
    (operators,) = jax.device_put(cell_operators([(0, mpo)], bond, np.dtype(np.float32)))
    circuit = hypercircuit.Brickwork(depth)
    params = start_params(circuit, n_qubits)

    def energy(params, operators):
        return jnp.sum(expectations(hypercircuit.exact_mps(circuit, params), operators))

    compiled, compile_seconds = compile_function(jax.value_and_grad(energy), params, operators)
    return [
        {
            "n_qubits": n_qubits,
            "depth": depth,
            "bond": bond,
            "operator_bytes": mpo.n_bytes,
            "compile_seconds": compile_seconds,
            "seconds_per_step": median_seconds(lambda: compiled(params, operators), repeats),
        }
    ]


def truncated_step(repeats, *, n_qubits, depth, max_bond, scheme):
    """Truncated state at random angles and its energy with an operator: forward, then gradient."""
    import jax
    import jax.numpy as jnp

    import hypercircuit
    from hypercircuit._threads import one_lapack_thread
    from hypercircuit.energy.site_operators import site_expectations, site_operators

    mpo = random_operator(n_qubits, TRUNCATED_OPERATOR_BOND)
    laid_out = site_operators([(0, mpo)], TRUNCATED_OPERATOR_BOND, np.dtype(np.float32))
    (operators,) = jax.device_put(laid_out)
    circuit = hypercircuit.Truncated(hypercircuit.Brickwork(depth), max_bond, scheme=scheme)
    params = circuit.init(jax.random.key(0), n_qubits, how="uniform")

    def energy(params, operators):
        state = hypercircuit.prepare_state(circuit, params)
        return jnp.sum(site_expectations(state, operators)), jnp.sum(state.discarded)

    with one_lapack_thread():
        forward, forward_compile = compile_function(energy, params, operators)
        forward_seconds = median_seconds(lambda: forward(params, operators), repeats)
        descend = jax.value_and_grad(energy, has_aux=True)
        step, compile_seconds = compile_function(descend, params, operators)
        (_, discarded), gradient = step(params, operators)
        seconds = median_seconds(lambda: step(params, operators), repeats)
    assert bool(np.isfinite(gradient).all()), "the gradient must be finite"
    return [
        {
            "n_qubits": n_qubits,
            "depth": depth,
            "bond": max_bond,
            "scheme": scheme,
            "forward_compile_seconds": forward_compile,
            "forward_seconds": forward_seconds,
            "compile_seconds": compile_seconds,
            "seconds_per_step": seconds,
            "step_over_forward": seconds / forward_seconds,
            "discarded_weight": float(discarded),
        }
    ]


def quimb_truncated(angles, max_bond, *, alternate):
    """Return quimb's ``CircuitMPS`` of the brickwork at these angles, complex64.

    Every second layer's CX are applied from right to left if ``alternate``, so that the
    orthogonality centre need not go back.
    """
    import quimb.tensor as qtn

    depth, n_qubits, _ = angles.shape
    circuit = qtn.CircuitMPS(n_qubits, max_bond=max_bond, cutoff=0.0, dtype="complex64")
    for layer in range(1, depth + 1):
        controls = range(layer % 2, n_qubits - 1, 2)
        backwards = alternate and layer % 2 == 0
        for control in reversed(controls) if backwards else controls:
            circuit.apply_gate("CX", control, control + 1)
        for site, (theta, phi) in enumerate(angles[layer - 1]):
            circuit.apply_gate("RY", float(theta), site)
            circuit.apply_gate("RZ", float(phi), site)
    return circuit.psi


def truncated_peers(repeats):
    """The same truncated states by hypercircuit and quimb: time, and infidelity to the exact one.

    Angles are uniformly random; quimb runs once, without a warm-up.
    """
    import jax

    import hypercircuit
    from hypercircuit._threads import one_lapack_thread
    from hypercircuit.state import truncated_tensors

    def angles(depth, n_qubits, seed, dtype=np.float32):
        circuit = hypercircuit.Brickwork(depth)
        return circuit.init(jax.random.key(seed), n_qubits, how="uniform", dtype=dtype)

    def ours(params, max_bond, scheme):
        circuit = hypercircuit.Brickwork(params.shape[0])
        return truncated_tensors(circuit, params, max_bond=max_bond, scheme=scheme)

    def infidelities(make):
        n_qubits, depth, max_bond = OVERLAP_SIZE
        found = []
        for seed in range(OVERLAP_SEEDS):
            wide = angles(depth, n_qubits, seed, np.float64)
            exact = ours(wide, 2 ** (depth // 2), "sweep").to_quimb()
            state = make(wide.astype(np.float32), max_bond).astype("complex128")
            found.append(1 - abs(exact.H @ state) ** 2 / abs((exact.H @ exact) * (state.H @ state)))
        return {"infidelity": float(np.mean(found)), "infidelities": [float(f) for f in found]}

    n_qubits, depth, max_bond = PEER_SIZE
    params = angles(depth, n_qubits, 0)
    rows = []
    with one_lapack_thread():
        for scheme in ("sweep", "parallel"):
            run, compile_seconds = compile_function(
                functools.partial(ours, max_bond=max_bond, scheme=scheme), params
            )
            seconds = median_seconds(functools.partial(run, params), repeats)
            jitted = jax.jit(functools.partial(ours, scheme=scheme), static_argnames="max_bond")
            error = infidelities(lambda p, bond, f=jitted: f(p, max_bond=bond).to_quimb())
            name = f"hypercircuit, {scheme}"
            row = {"implementation": name, "seconds": seconds, "compile_seconds": compile_seconds}
            rows.append(row | error)
        for alternate in (True, False):
            start = time.perf_counter()
            quimb_truncated(np.asarray(params), max_bond, alternate=alternate)
            seconds = time.perf_counter() - start
            error = infidelities(
                lambda p, bond, a=alternate: quimb_truncated(np.asarray(p), bond, alternate=a)
            )
            order = "layers back and forth" if alternate else "layers from left to right"
            rows.append(
                {"implementation": f"quimb CircuitMPS, {order}", "seconds": seconds} | error
            )
    fastest = min(row["seconds"] for row in rows if row["implementation"].startswith("quimb"))
    sizes = {"n_qubits": n_qubits, "depth": depth, "bond": max_bond}
    return [sizes | row | {"speed": fastest / row["seconds"]} for row in rows]


def compression(repeats, *, bond):
    """All 12,665 training images of the digits 0 and 1, 785 qubits, in the uniform metric."""
    import hypercircuit

    splits = hypercircuit.load_mnist(n_validation=0)
    data = hypercircuit.scale_pixels(hypercircuit.select_classes(splits.train, (0, 1)))
    network = linear_network(data.n_inputs, 1)
    hamiltonian = hypercircuit.compile_loss(network, data, hypercircuit.Logistic())
    found = hypercircuit.compress_loss(hamiltonian, bond)
    return [
        {
            "n_qubits": hamiltonian.n_qubits,
            "n_examples": hamiltonian.n_examples,
            "bond": bond,
            "seconds": found.seconds,
            "operator_bytes": found.n_bytes,
            "rms_error": found.measured.rms,
            "loss": found.measured.loss,
            "spectral_error": hamiltonian.spectral_error,
        }
    ]


def train_angles(circuit):
    """Train the angles with the cumulant energy of order two for ``TRAINING_STEPS`` steps.

    Data, optimiser and rate are those of the main job, its schedule shortened.
    """
    import hypercircuit

    hamiltonian = softmax_hamiltonian(mnist_images(len(hypercircuit.load_mnist().train)))
    schedule = hypercircuit.Schedule(
        steps=TRAINING_STEPS,
        batch_size=BATCH_SIZE,
        evaluate_every=TRAINING_STEPS,
        checkpoint_every=TRAINING_STEPS,
        check_examples=1,
    )
    settings = hypercircuit.Config().optimiser
    optimiser = hypercircuit.make_optimiser(
        settings.name, settings.learning_rate, schedule=settings.schedule, steps=TRAINING_STEPS
    )
    trained = hypercircuit.train(
        hamiltonian,
        circuit,
        energy=hypercircuit.Cumulant(2),
        optimiser=optimiser,
        schedule=schedule,
        params=start_params(circuit, hamiltonian.n_qubits),
    )
    return trained.params


def cumulant_error(repeats, *, depth):
    """The cumulant energies of 40 test images of 16 grey levels against the exact ones."""
    import jax.numpy as jnp

    import hypercircuit

    circuit = hypercircuit.Brickwork(depth)
    images = mnist_images(N_ERROR_IMAGES, part="test")
    data = hypercircuit.quantise(images, ERROR_LEVELS)
    hamiltonian = softmax_hamiltonian(data, expansion=hypercircuit.Lattice())

    def energies(kind, params):
        energy = kind.prepare(hamiltonian, circuit, batch_size=len(data), dtype=np.float64)
        values = energy.value_function()(params, energy.batch(np.arange(len(data))))
        return np.asarray(values)

    states = {"start": start_params(circuit, hamiltonian.n_qubits)}
    states[f"after {TRAINING_STEPS} steps"] = train_angles(circuit)
    rows = []
    for state, angles in states.items():
        params = jnp.asarray(angles, jnp.float64)
        exact = energies(hypercircuit.Exact(), params)
        for order in (2, 4):
            error = energies(hypercircuit.Cumulant(order), params) - exact
            rows.append(
                {
                    "n_qubits": hamiltonian.n_qubits,
                    "depth": depth,
                    "order": order,
                    "state": state,
                    "n_examples": len(data),
                    "exact_energy": float(exact.mean()),
                    "mean_error": float(error.mean()),
                    "mean_absolute_error": float(np.abs(error).mean()),
                    "largest_error": float(np.abs(error).max()),
                    "spectral_error": hamiltonian.spectral_error,
                }
            )
    return rows


def precision(repeats, *, depth):
    """The exact energies and gradient of 20 images in float32 against float64."""
    import jax

    import hypercircuit

    circuit = hypercircuit.Brickwork(depth)
    data = mnist_images(N_PRECISION_IMAGES)
    hamiltonian = softmax_hamiltonian(data)
    rows = np.arange(len(data))
    values, gradients = [], []
    for dtype in (np.float32, np.float64):
        # The angles are those of float32 in both, so that only the arithmetic differs.
        params = start_params(circuit, hamiltonian.n_qubits).astype(dtype)
        energy = hypercircuit.Exact().prepare(
            hamiltonian, circuit, batch_size=len(data), dtype=dtype
        )
        batch = energy.batch(rows)
        value = energy.value_function()(params, batch)
        gradient = jax.jit(jax.grad(energy))(params, batch)
        assert value.dtype == gradient.dtype == dtype, "64-bit mode must not widen float32"
        values.append(np.asarray(value, np.float64))
        gradients.append(np.asarray(gradient, np.float64))
    difference = values[0] - values[1]
    return [
        {
            "n_qubits": hamiltonian.n_qubits,
            "depth": depth,
            "n_examples": len(data),
            "energy": float(values[1].mean()),
            "energy_difference": float(abs(difference.mean())),
            "largest_difference": float(np.abs(difference).max()),
            "gradient_difference": float(
                np.linalg.norm(gradients[0] - gradients[1]) / np.linalg.norm(gradients[1])
            ),
        }
    ]


def checkpoints(repeats, *, n_qubits):
    """A run's state and the history of 6,000 steps: written, and read as a resumed run does."""
    import jax
    import optax

    import hypercircuit
    from hypercircuit.train import load_latest_checkpoint, save_checkpoint

    params = start_params(hypercircuit.Brickwork(max(DEPTHS)), n_qubits)
    state = (params, optax.adam(0.1).init(params), np.zeros(n_qubits, np.uint8), 0.5, 0.9)
    history = hypercircuit.History()
    for step in range(1, 6001):
        history.record_step(step, energy=1 / step, gradient_norm=1.0, seconds=float(step))
    metadata = {"history": history.to_arrays()}
    writing, reading = [], []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(repeats + 1):
            begun = time.perf_counter()
            path = save_checkpoint(folder, step, state, metadata)
            writing.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            jax.block_until_ready(load_latest_checkpoint(folder, state))
            reading.append(time.perf_counter() - begun)
        n_bytes = path.stat().st_size
    return [
        {
            "n_qubits": n_qubits,
            "depth": max(DEPTHS),
            "save_seconds": statistics.median(writing[1:]),
            "load_seconds": statistics.median(reading[1:]),
            "n_bytes": n_bytes,
        }
    ]


def resume(repeats, *, n_qubits, settings):
    """A run that is killed at half of its steps, and its second half beside as many fresh steps.

    Both halves do everything that a command does, with compiled programs from the cache.
    """
    command = [Path(sys.executable).with_name("hypercircuit"), "train", *settings]
    options = {"stdout": subprocess.DEVNULL}
    fresh, resumed = [], []

    def begun(folder, steps):
        return [
            *command,
            *("--set", f"train.steps={steps}", "--out", str(folder)),
            *("--set", f"train.evaluate_every={RESUME_STEPS}"),
            *("--set", f"train.checkpoint_every={RESUME_STEPS}"),
        ]

    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYPERCIRCUIT_COMPILE_CACHE"] = str(Path(folder) / "cache")
        for number in range(min(repeats, RESUMES) + 1):
            start = time.perf_counter()
            subprocess.run(
                begun(Path(folder) / f"fresh{number}", RESUME_STEPS), check=True, **options
            )
            fresh.append(time.perf_counter() - start)
            cut = Path(folder) / f"cut{number}"
            with subprocess.Popen(begun(cut, 2 * RESUME_STEPS), **options) as running:
                while not (cut / "checkpoints" / f"checkpoint-{RESUME_STEPS:08d}.npz").exists():
                    if running.poll() is not None:
                        raise RuntimeError("the run ended before its checkpoint")
                    time.sleep(0.01)
                running.kill()
            start = time.perf_counter()
            subprocess.run(begun(cut, 2 * RESUME_STEPS), check=True, **options)
            resumed.append(time.perf_counter() - start)
    row = {"n_qubits": n_qubits, "depth": max(DEPTHS), "steps": RESUME_STEPS}
    # The first runs compile.
    row["fresh_seconds"] = statistics.median(fresh[1:])
    row["resumed_seconds"] = statistics.median(resumed[1:])
    row["added_seconds"] = row["resumed_seconds"] - row["fresh_seconds"]
    return [row]


def shared_step(repeats, *, kind, images):
    """One process with one core against two with one core each; the load is that of the start."""
    script = Path(__file__).with_name("shared_step.py")
    row = {"kind": kind, "images": images, "load": os.getloadavg()[0]}
    energies = []
    for processes in (1, 2):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        commands = [
            [sys.executable, script, kind, *map(str, (images, processes, number))]
            for number in range(processes)
        ]
        running = [
            subprocess.Popen([*each, address, str(10 * repeats)], stdout=subprocess.PIPE, text=True)
            for each in commands
        ]
        found = [each.communicate()[0] for each in running]
        if any(each.returncode for each in running):
            raise RuntimeError(f"a process of {processes} failed")
        times, values = zip(
            *(map(float, each.splitlines()[-1].split()) for each in found), strict=True
        )
        row[f"seconds_{processes}"] = max(times)
        energies.extend(values)
    row["ratio"] = row["seconds_1"] / row["seconds_2"]
    row["energy_difference"] = max(energies) - min(energies)
    return [row]


def _problems() -> dict[str, Problem]:
    """Return every problem by its name."""
    found = {}
    for depth in DEPTHS:
        suffix = f"depth-{depth}"
        measure = functools.partial(exact_step, depth=depth)
        found[f"exact-{suffix}"] = Problem("exact", measure)
        measure = functools.partial(samples, depth=depth)
        found[f"sampling-{suffix}"] = Problem("sampling", measure)
        for order in (2, 4):
            measure = functools.partial(cumulant_step, order=order, depth=depth)
            found[f"cumulant-step-order-{order}-{suffix}"] = Problem("cumulant-step", measure)
        for kind in ("exact", "cumulant", "sampled"):
            measure = functools.partial(hidden_step, kind_name=kind, depth=depth)
            found[f"hidden-{kind}-{suffix}"] = Problem("hidden", measure)
        measure = functools.partial(cumulant_error, depth=depth)
        found[f"cumulant-error-{suffix}"] = Problem("cumulant-error", measure, double=True)
        measure = functools.partial(precision, depth=depth)
        found[f"precision-{suffix}"] = Problem("precision", measure, double=True)
    for n_outputs in (1, 2, 10, 64):
        measure = functools.partial(scaling_step, n_outputs=n_outputs)
        found[f"scaling-{n_outputs}"] = Problem("scaling", measure)
    for n_qubits, bond in OPERATOR_SIZES:
        measure = functools.partial(operator_step, n_qubits=n_qubits, bond=bond)
        found[f"operator-step-{n_qubits}-{bond}"] = Problem("operator-step", measure)
    for n_qubits, depth, bond in TRUNCATED_SIZES:
        for scheme in ("sweep", "parallel"):
            measure = functools.partial(
                truncated_step, n_qubits=n_qubits, depth=depth, max_bond=bond, scheme=scheme
            )
            found[f"truncated-{n_qubits}-{scheme}"] = Problem("truncated", measure)
    # In 64-bit mode for the exact states; what is timed is complex64.
    found["truncated-peers"] = Problem("truncated-peers", truncated_peers, double=True)
    for bond in (32, 64, 128):
        found[f"compression-{bond}"] = Problem(
            "compression", functools.partial(compression, bond=bond)
        )
    for n_qubits in (7850, 50890):
        measure = functools.partial(checkpoints, n_qubits=n_qubits)
        found[f"checkpoint-{n_qubits}"] = Problem("checkpoint", measure)
    for n_qubits, settings in RESUME_SETTINGS.items():
        measure = functools.partial(resume, n_qubits=n_qubits, settings=settings)
        found[f"resume-{n_qubits}"] = Problem("resume", measure)
    for kind, images in (
        ("cumulant", 100),
        ("cumulant", 500),
        ("cumulant", 2000),
        ("exact", 100),
        ("exact", 400),
    ):
        measure = functools.partial(shared_step, kind=kind, images=images)
        found[f"processes-{kind}-{images}"] = Problem("processes", measure)
    for n_qubits in CHAIN_SIZES:
        measure = functools.partial(chain_compile, n_qubits=n_qubits)
        found[f"compile-{n_qubits}"] = Problem("compile", measure)
    return found


PROBLEMS = _problems()


# ---------------------------------------------------------------- tables

_QUBITS = Column("qubits", "n_qubits", "{:,}")
_DEPTH = Column("depth", "depth")
_COMPILE = Column("compile (s)", "compile_seconds", "{:.1f}")
_PLAN = Column("plan on the host (ms)", "plan_seconds", "{:.1f}", 1e3)
_MEMORY = Column("peak memory (GB)", "peak_memory_bytes", "{:.2f}", 1e-9)
_SPECTRAL = Column("spectral error (nats)", "spectral_error", "{:.1e}")
_FREQUENCIES = Column("frequencies (mean)", "mean_frequencies", "{:.0f}")

GROUPS = {
    "exact": Group(
        f"Exact energy and gradient, {BATCH_SIZE} images, softmax",
        (
            _QUBITS,
            _DEPTH,
            Column("step (s)", "seconds_per_step", "{:.2f}"),
            _PLAN,
            _COMPILE,
            Column("compile the loss (s)", "loss_compile_seconds", "{:.1f}"),
            _MEMORY,
            _FREQUENCIES,
            _SPECTRAL,
        ),
    ),
    "scaling": Group(
        f"Cost against the number of qubits, exact, {BATCH_SIZE} images, depth {max(DEPTHS)}: "
        "outputs of 785 qubits each",
        (
            _QUBITS,
            Column("outputs", "n_outputs"),
            Column("loss", "loss"),
            _FREQUENCIES,
            Column("step (s)", "seconds_per_step", "{:.3f}"),
            Column("step per qubit (µs)", "seconds_per_qubit", "{:.1f}", 1e6),
            _COMPILE,
            _MEMORY,
            _SPECTRAL,
        ),
    ),
    "compile": Group(
        "Compile time against the number of qubits: exact MPS, correlations, energy and gradient",
        (
            _QUBITS,
            _DEPTH,
            Column("compile (s)", "compile_seconds", "{:.2f}"),
            Column("times the shortest chain's", "compile_ratio", "{:.2f}"),
            Column("step (ms)", "seconds_per_step", "{:.1f}", 1e3),
            _MEMORY,
        ),
    ),
    "sampling": Group(
        f"{N_SAMPLES:,} samples with log-probabilities",
        (
            _QUBITS,
            _DEPTH,
            Column("all samples (s)", "seconds", "{:.2f}"),
            _COMPILE,
            Column("mean log-probability (nats)", "mean_log_probability", "{:.1f}"),
            Column("largest difference when recomputed (nats)", "log_probability_error", "{:.1e}"),
            _MEMORY,
        ),
    ),
    "cumulant-step": Group(
        f"Cumulant energy and gradient, {BATCH_SIZE} images, softmax",
        (
            _QUBITS,
            _DEPTH,
            Column("energy", "energy_kind"),
            Column("step (ms)", "seconds_per_step", "{:.1f}", 1e3),
            _PLAN,
            _COMPILE,
            _MEMORY,
        ),
    ),
    "hidden": Group(
        "Energy and gradient of 784-64-10 with sign activations, one-vs-rest logistic loss",
        (
            _QUBITS,
            _DEPTH,
            Column("energy", "energy_kind"),
            Column("images", "n_examples"),
            Column("step (s)", "seconds_per_step", "{:.2f}"),
            _PLAN,
            _COMPILE,
            _MEMORY,
        ),
    ),
    "operator-step": Group(
        "Energy and gradient of one operator on the whole chain, independent of the examples",
        (
            _QUBITS,
            _DEPTH,
            Column("bond dimension", "bond"),
            Column("step (ms)", "seconds_per_step", "{:.0f}", 1e3),
            Column("operator (MB)", "operator_bytes", "{:.0f}", 1e-6),
            _COMPILE,
            _MEMORY,
        ),
    ),
    "truncated": Group(
        "Truncated state at random angles with its energy of an operator of bond "
        f"{TRUNCATED_OPERATOR_BOND}, complex64",
        (
            _QUBITS,
            _DEPTH,
            Column("max_bond", "bond"),
            Column("scheme", "scheme"),
            Column("forward (s)", "forward_seconds", "{:.2f}"),
            Column("with gradient (s)", "seconds_per_step", "{:.2f}"),
            Column("times the forward", "step_over_forward", "{:.1f}"),
            _COMPILE,
            _MEMORY,
            Column("load", "load_before", "{:.0f}"),
        ),
    ),
    "truncated-peers": Group(
        "Truncated state of {} qubits, depth {}, max_bond {}, cutoff 0, forward; infidelity to the "
        "exact state of {} qubits, depth {}, max_bond {}, mean of {} random circuits".format(
            *PEER_SIZE, *OVERLAP_SIZE, OVERLAP_SEEDS
        ),
        (
            Column("implementation", "implementation"),
            Column("forward (s)", "seconds", "{:.2f}"),
            Column("times as fast as quimb's best", "speed", "{:.1f}"),
            _COMPILE,
            Column("infidelity", "infidelity", "{:.4f}"),
            Column("load", "load_before", "{:.0f}"),
        ),
    ),
    "compression": Group(
        "Compressing the logistic loss of MNIST 0 against 1 in the uniform metric",
        (
            _QUBITS,
            Column("images", "n_examples", "{:,}"),
            Column("bond dimension", "bond"),
            Column("seconds", "seconds", "{:.0f}"),
            Column("rms error, uniform networks (nats)", "rms_error", "{:.1e}"),
            Column("their mean loss (nats)", "loss", "{:.2f}"),
            Column("operator (MB)", "operator_bytes", "{:.0f}", 1e-6),
            _MEMORY,
            _SPECTRAL,
        ),
    ),
    "checkpoint": Group(
        "A checkpoint of Adam's state and 6,000 steps of history",
        (
            _QUBITS,
            _DEPTH,
            Column("write (ms)", "save_seconds", "{:.0f}", 1e3),
            Column("read (ms)", "load_seconds", "{:.0f}", 1e3),
            Column("file (MB)", "n_bytes", "{:.1f}", 1e-6),
            _MEMORY,
        ),
    ),
    "resume": Group(
        "A run killed at half of its steps and started again, beside a fresh run of as many steps; "
        "whole commands, final energies of 100 images and compiled programs from the cache",
        (
            _QUBITS,
            _DEPTH,
            Column("steps", "steps"),
            Column("fresh run (s)", "fresh_seconds", "{:.1f}"),
            Column("resumed run (s)", "resumed_seconds", "{:.1f}"),
            Column("added (s)", "added_seconds", "{:+.1f}"),
            Column("load", "load_before", "{:.0f}"),
        ),
    ),
    "processes": Group(
        "One step shared by two processes of one core each, 7,850 qubits, depth 4",
        (
            Column("energy", "kind"),
            Column("images", "images"),
            Column("one process (s)", "seconds_1", "{:.3f}"),
            Column("two processes (s)", "seconds_2", "{:.3f}"),
            Column("ratio", "ratio", "{:.2f}"),
            Column("difference of energies (nats)", "energy_difference", "{:.1e}"),
            Column("load before", "load", "{:.1f}"),
        ),
    ),
    "cumulant-error": Group(
        f"Cumulant energy against the exact one, {N_ERROR_IMAGES} test images of {ERROR_LEVELS} "
        "grey levels, float64",
        (
            _DEPTH,
            Column("state", "state"),
            Column("order", "order"),
            Column("exact energy (nats)", "exact_energy", "{:.4f}"),
            Column("mean error (nats)", "mean_error", "{:+.1e}"),
            Column("mean absolute error (nats)", "mean_absolute_error", "{:.1e}"),
            Column("largest error (nats)", "largest_error", "{:.1e}"),
            _SPECTRAL,
        ),
    ),
    "precision": Group(
        f"Exact energy in float32 against float64, {N_PRECISION_IMAGES} images",
        (
            _QUBITS,
            _DEPTH,
            Column("energy (nats)", "energy", "{:.4f}"),
            Column("difference (nats)", "energy_difference", "{:.1e}"),
            Column("largest of an image (nats)", "largest_difference", "{:.1e}"),
            Column("gradient, relative", "gradient_difference", "{:.1e}"),
        ),
    ),
}


def add_compile_ratios(rows):
    """Return the rows with their compile time over that of the fewest qubits."""
    shortest = min(rows, key=lambda row: row["n_qubits"])
    return [
        row | {"compile_ratio": row["compile_seconds"] / shortest["compile_seconds"]}
        for row in rows
    ]


def to_markdown(rows):
    """Return all rows as Markdown: a table for each group, then where the numbers come from."""
    lines = []
    for name, group in GROUPS.items():
        measured = [row for row in rows if row["group"] == name and row["status"] == "ok"]
        failed = [row for row in rows if row["group"] == name and row["status"] != "ok"]
        if name == "compile" and measured:
            measured = add_compile_ratios(measured)
        if not measured and not failed:
            continue
        lines += [f"**{group.title}** (`{name}`)", ""]
        if measured:
            lines += [reporting.to_markdown(group.columns, measured), ""]
        lines += [f"`{row['problem']}`: {row['status']}\n" for row in failed]
    return "\n".join([*lines, *origins(rows)])


def origins(rows):
    """Return one line for every commit, device and set of versions among the rows."""
    found = {}
    for row in rows:
        described = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        line = f"Commit {row['commit']}; {described}; {row['device']}"
        found.setdefault(line, []).append(row["load_before"])
    return [
        f"{line}; load before each problem {min(loads):.1f} to {max(loads):.1f}."
        for line, loads in found.items()
    ]


# ---------------------------------------------------------------- command line


def run_worker(name, result, repeats):
    """Measure one problem in this process and write its rows to the file ``result``."""
    import jax

    problem = PROBLEMS[name]
    jax.config.update("jax_enable_x64", problem.double)
    reporting.write_result(result, {"rows": problem.measure(repeats)})


def run_problem(name, repeats):
    """Measure one problem in a new process and return its rows with their origin."""
    origin = {
        "problem": name,
        "group": PROBLEMS[name].group,
        "commit": reporting.commit(),
        "versions": reporting.versions(PACKAGES),
        "device": reporting.machine(),
        "load_before": reporting.load(),
        "repeats": repeats,
    }
    result = reporting.run_in_process(__file__, ["--worker", name, "--repeats", str(repeats)])
    rows = result.pop("rows", [{}])
    if "device" in result:
        result["device"] = f"{result['device']}, {origin['device']}"
    return [origin | result | row for row in rows]


def choose(names):
    """Return the names of the problems that are named themselves or by their group."""
    return [name for name, problem in PROBLEMS.items() if {name, problem.group} & set(names)]


def keep_others(output, measured):
    """Return the rows of an output file whose problems are not measured now."""
    if output is None or not output.exists():
        return []
    return [row for row in json.loads(output.read_text()) if row["problem"] not in measured]


def parse_arguments():
    """Return the command line; ``--worker`` and ``--result`` are how the script calls itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[*GROUPS, *PROBLEMS],
        default=list(GROUPS),
        help=f"groups ({', '.join(GROUPS)}) or problems ({', '.join(PROBLEMS)})",
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed calls after the warm-up")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.json", help="add the rows to FILE.json"
    )
    parser.add_argument(
        "--table", type=Path, metavar="FILE.json", help="put its tables into the README, no runs"
    )
    parser.add_argument("--worker", choices=PROBLEMS, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Run one worker, or fill the README from a file of rows, or measure the chosen problems."""
    arguments = parse_arguments()
    if arguments.worker:
        run_worker(arguments.worker, arguments.result, arguments.repeats)
        return
    if arguments.table:
        reporting.write_section("figures", to_markdown(json.loads(arguments.table.read_text())))
        return
    measured = choose(arguments.only)
    rows = keep_others(arguments.output, measured)
    for name in measured:
        new = run_problem(name, arguments.repeats)
        rows += new
        print(f"{name}: {new[0]['status']}", file=sys.stderr, flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps(rows, indent=2) + "\n")
    print(to_markdown(rows))


if __name__ == "__main__":
    main()
