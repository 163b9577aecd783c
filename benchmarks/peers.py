"""The same energy and gradient in several libraries: one table of time, error and memory.

The problem is the binary logistic loss of a linear network with N - 1 inputs, a bias, weights
and bias in {-1, +1} and logits z = 0.3 (w.x + b). Each example's loss is expanded as
sum_k Re c_k exp(i nu_k z), and every exponential is a product over the N sites:

    E(theta) = Re sum_t c_t <psi(theta)| (x)_j diag(d_tj(0), d_tj(1)) |psi(theta)>

``factors[t, j, bit]`` is d and ``coefficients[t]`` is c. Every implementation gets the same terms
and the angles (depth, N, 2), in radians, and returns E and its gradient in the angles. The circuit
is the brickwork: CX on one parity of neighbouring pairs, then Ry, then Rz. The peers read the
arrays, hypercircuit the frequencies and inputs that the arrays were made from.

Each implementation runs in its own process, so that its compile time and peak memory are its
own and a time limit can end it; what the limit ends is reported as a lower bound. To add an
implementation, write a function with the signature ``Implementation`` and list it in
``IMPLEMENTATIONS``.

Run it in an environment with the ``bench`` extra, then put the table into the README:

    python benchmarks/peers.py --n-qubits 16 32 --timeout 600 --output peers
    python benchmarks/peers.py --table peers.json
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import reporting

OURS = "hypercircuit"
STEPS = 100
"""Number of steps whose time, compiling included, the implementations are compared by."""
LOGIT_SCALE = 0.3
N_EXAMPLES = 20
ZERO_FRACTION = 0.8
INPUT_LEVELS = 256
"""Inputs are multiples of 1/256, hence exact in float32, in which a data set stores them."""
N_FREQUENCIES = 9
EXACT_BOND = 4
"""Largest bond of the brickwork up to depth 4: two CX cross each cut."""
STATEVECTOR_LIMIT = 16
"""Largest number of qubits at which the NumPy statevector checks the results."""
CHECKED_ANGLES = 16
"""Number of gradient entries that are checked by the parameter-shift rule."""
PACKAGES = ("hypercircuit", "jax", "jaxlib", "numpy", "quimb", "cotengra", "tensorcircuit-ng")


class Measurement(NamedTuple):
    """What one implementation computed, and how long it took.

    Attributes:
        value: energy, in nats per example.
        gradient: derivative of the energy in the angles, shape (depth, n_qubits, 2).
        compile_seconds: tracing, lowering and compiling together, without imports.
        seconds_per_step: median time of one value and gradient after a warm-up.
    """

    value: float
    gradient: np.ndarray
    compile_seconds: float
    seconds_per_step: float


class Problem(NamedTuple):
    """One benchmark problem.

    Attributes:
        angles: radians, shape (depth, n_qubits, 2).
        factors: diagonal site factors, complex, shape (n_terms, n_qubits, 2).
        coefficients: complex, shape (n_terms,).
        examples: inputs in [0, 1], shape (n_examples, n_qubits - 1).
        labels: 0 or 1, shape (n_examples,).
        frequencies: multiples of the second one, shape (n_frequencies,).
        series: complex coefficients of log(1 + exp(-z)), shape (n_frequencies,).
        spectral_error: largest error of the expanded loss over the reachable logits, in nats.
    """

    angles: np.ndarray
    factors: np.ndarray
    coefficients: np.ndarray
    examples: np.ndarray
    labels: np.ndarray
    frequencies: np.ndarray
    series: np.ndarray
    spectral_error: float


Implementation = Callable[[Problem, int], Measurement]
"""implementation(problem, repeats) -> Measurement"""


# ---------------------------------------------------------------- problem


def expand_logistic(largest_logit, n_frequencies):
    """Fit log(1 + exp(-z)) on abs(z) <= largest_logit by Re sum_k c_k exp(i nu_k z).

    The frequencies are nu_k = pi k / (2 largest_logit), k = 0 .. n_frequencies - 1: a period of
    twice the interval leaves the function free outside it, so least squares converges
    geometrically (Fourier extension).

    Returns:
        frequencies (n_frequencies,), coefficients (n_frequencies,) complex, and the largest
        error on a grid that is finer than the one fitted.
    """
    frequencies = np.pi * np.arange(n_frequencies) / (2 * largest_logit)

    def basis(logits):
        phases = np.outer(logits, frequencies)
        return np.hstack([np.cos(phases), -np.sin(phases)])

    nodes = largest_logit * np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    solution = np.linalg.lstsq(basis(nodes), np.logaddexp(0.0, -nodes), rcond=1e-12)[0]
    grid = np.linspace(-largest_logit, largest_logit, 4001)
    error = np.abs(basis(grid) @ solution - np.logaddexp(0.0, -grid)).max()
    return frequencies, solution[:n_frequencies] + 1j * solution[n_frequencies:], error


def logistic_problem(n_qubits, depth, seed):
    """Make the loss of a random data set as product terms, and random angles."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-np.pi, np.pi, size=(depth, n_qubits, 2))
    examples = rng.integers(1, INPUT_LEVELS + 1, size=(N_EXAMPLES, n_qubits - 1)) / INPUT_LEVELS
    examples[rng.uniform(size=examples.shape) < ZERO_FRACTION] = 0.0
    labels = rng.integers(0, 2, size=N_EXAMPLES)

    inputs = np.hstack([examples, np.ones((N_EXAMPLES, 1))])
    largest_logit = LOGIT_SCALE * inputs.sum(axis=1).max()
    frequencies, series, spectral_error = expand_logistic(largest_logit, N_FREQUENCIES)
    signed_inputs = (2 * labels - 1)[:, None] * inputs
    phases = LOGIT_SCALE * frequencies[None, :, None] * signed_inputs[:, None, :]
    factors = np.exp(1j * phases[..., None] * np.array([-1.0, 1.0]))
    coefficients = np.tile(series, N_EXAMPLES) / N_EXAMPLES
    return Problem(
        angles,
        factors.reshape(-1, n_qubits, 2),
        coefficients,
        examples,
        labels,
        frequencies,
        series,
        spectral_error,
    )


# ---------------------------------------------------------------- implementations


def measure(energy, arguments, repeats):
    """Compile and time the value and gradient of a JAX function in its first argument."""
    import jax

    arguments = jax.device_put(arguments)
    start = time.perf_counter()
    step = jax.jit(jax.value_and_grad(energy)).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start

    value, gradient = jax.block_until_ready(step(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(step(*arguments))
        seconds.append(time.perf_counter() - start)
    return Measurement(
        float(value), np.asarray(gradient), compile_seconds, float(np.median(seconds))
    )


def brickwork_pairs(layer, n_qubits):
    """Return the 0-based (control, target) pairs of layer 1..depth."""
    return [(site, site + 1) for site in range(layer % 2, n_qubits - 1, 2)]


def rotation_gates(angles):
    """Return Rz(phi) Ry(theta) of every layer and site, shape (depth, n_qubits, 2, 2)."""
    import jax.numpy as jnp

    cosine, sine = jnp.cos(angles[..., 0] / 2), jnp.sin(angles[..., 0] / 2)
    rotation = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
    phase = jnp.exp(0.5j * angles[..., 1])
    return jnp.stack([jnp.conj(phase), phase], -1)[..., None] * rotation


def hypercircuit_exact(problem, repeats):
    """hypercircuit's exact energy, with the problem's series in place of its own expansion.

    Its frequencies come in chunks, so the series is filled up with zeros, which cost as much as
    any other term. Planning the batch on the host counts as compiling.
    """
    import hypercircuit
    from hypercircuit.hamiltonian import CHUNK, FourierTerms
    from hypercircuit.hamiltonian.spectral import FourierSum

    depth, n_qubits, _ = problem.angles.shape
    network = hypercircuit.Network((hypercircuit.Dense(n_qubits - 1, 1),), logit_scale=LOGIT_SCALE)
    data = hypercircuit.Dataset(
        problem.examples.astype(np.float32),
        problem.labels.astype(np.int32),
        n_classes=2,
        image_shape=None,
        step=1 / INPUT_LEVELS,
        name="peers",
    )
    start = time.perf_counter()
    missing = -len(problem.series) % CHUNK
    by_label = np.stack([problem.series.conj(), problem.series], axis=1)
    table = FourierSum(
        problem.frequencies[1], np.pad(by_label, ((0, missing), (0, 0))), problem.spectral_error
    )
    zeros = np.zeros(len(data))
    terms = FourierTerms((table,), np.zeros(len(data), int), zeros, zeros, "extension", None)
    hamiltonian = hypercircuit.LossHamiltonian(network, data, hypercircuit.Logistic(), terms)
    energy = hypercircuit.Exact().prepare(
        hamiltonian, hypercircuit.Brickwork(depth), batch_size=len(data), dtype=np.float64
    )
    batch = energy.batch(np.arange(len(data)))
    planning_seconds = time.perf_counter() - start
    measurement = measure(energy, (problem.angles, batch), repeats)
    return measurement._replace(compile_seconds=planning_seconds + measurement.compile_seconds)


def measure_peer(energy, problem, repeats):
    """Measure an energy function of the angles, factors and coefficients."""
    return measure(energy, (problem.angles, problem.factors, problem.coefficients), repeats)


def _quimb_energy(make_state):
    """Return the energy function of a quimb MPS made from the angles by ``make_state``."""
    import jax
    import jax.numpy as jnp

    def energy(angles, factors, coefficients):
        state = make_state(angles)
        bra = state.H

        def term(site_factors):
            ket = state.copy()
            for site in range(ket.L):
                ket.gate_(jnp.diag(site_factors[site]), site, contract=True)
            return (bra | ket).contract(all, optimize="greedy")

        return jnp.sum(coefficients * jax.vmap(term)(factors)).real

    return energy


def quimb_circuit_mps(problem, repeats):
    """quimb's ``CircuitMPS``: every CX is applied and split by an SVD, with the exact bond kept."""
    import jax.numpy as jnp
    import quimb.tensor as qtn

    depth, n_qubits, _ = problem.angles.shape

    def make_state(angles):
        gates = rotation_gates(angles)
        circuit = qtn.CircuitMPS(
            n_qubits, max_bond=EXACT_BOND, cutoff=0.0, dtype="complex128", to_backend=jnp.asarray
        )
        for layer in range(1, depth + 1):
            for control, target in brickwork_pairs(layer, n_qubits):
                circuit.cx(control, target)
            for site in range(n_qubits):
                circuit.apply_gate_raw(gates[layer - 1, site], (site,))
        return circuit.psi

    return measure_peer(_quimb_energy(make_state), problem, repeats)


def quimb_split_gates(problem, repeats):
    """quimb's ``Circuit`` with split CX gates, contracted site by site: an exact MPS, no SVD.

    CX is a constant, so its split into two factors of bond 2 is not differentiated.
    """
    import quimb.tensor as qtn

    depth, n_qubits, _ = problem.angles.shape

    def make_state(angles):
        gates = rotation_gates(angles)
        circuit = qtn.Circuit(n_qubits, gate_contract="split-gate", dtype="complex128")
        for layer in range(1, depth + 1):
            for control, target in brickwork_pairs(layer, n_qubits):
                circuit.cx(control, target)
            for site in range(n_qubits):
                circuit.apply_gate_raw(gates[layer - 1, site], (site,), contract=True)
        state = circuit.psi
        for site in range(n_qubits):
            state ^= state.site_tag(site)
        state.fuse_multibonds_()
        return state.view_as_(
            qtn.MatrixProductState, L=n_qubits, cyclic=False, site_tag_id="I{}", site_ind_id="k{}"
        )

    return measure_peer(_quimb_energy(make_state), problem, repeats)


def tensorcircuit_mps(problem, repeats):
    """TensorCircuit-NG's ``MPSCircuit`` with its jax backend, with the exact bond kept."""
    import jax
    import jax.numpy as jnp
    import tensorcircuit

    tensorcircuit.set_backend("jax")
    tensorcircuit.set_dtype("complex128")
    depth, n_qubits, _ = problem.angles.shape

    def energy(angles, factors, coefficients):
        gates = rotation_gates(angles)
        circuit = tensorcircuit.MPSCircuit(n_qubits, split={"max_singular_values": EXACT_BOND})
        for layer in range(1, depth + 1):
            for control, target in brickwork_pairs(layer, n_qubits):
                circuit.cx(control, target)
            for site in range(n_qubits):
                circuit.unitary(site, unitary=gates[layer - 1, site])
        tensors = circuit.get_tensors()
        center = circuit.get_center_position()

        def term(site_factors):
            scaled = [
                tensor * site_factors[site][None, :, None] for site, tensor in enumerate(tensors)
            ]
            ket = tensorcircuit.MPSCircuit(n_qubits, tensors=scaled, center_position=center)
            return ket.proj_with_mps(circuit)

        return jnp.sum(coefficients * jax.vmap(term)(factors)).real

    return measure_peer(energy, problem, repeats)


IMPLEMENTATIONS: dict[str, Implementation] = {
    OURS: hypercircuit_exact,
    "quimb-split-gates": quimb_split_gates,
    "quimb-circuit-mps": quimb_circuit_mps,
    "tensorcircuit-mps": tensorcircuit_mps,
}


# ---------------------------------------------------------------- reference


def load_oracles():
    """Import tests/oracles.py by its path; it does not import the package."""
    path = reporting.REPOSITORY / "tests" / "oracles.py"
    specification = importlib.util.spec_from_file_location("oracles", path)
    oracles = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(oracles)
    return oracles


def statevector_reference(problem):
    """Compute the energy, some gradient entries and the unexpanded loss with the statevector.

    The parameter-shift rule dE/dt = (E(t + pi/2) - E(t - pi/2)) / 2 is exact for Ry and Rz.

    Returns:
        a dictionary with ``value``, ``loss`` (the energy of the logistic loss itself),
        ``entries`` (flat positions in the gradient) and ``gradient`` at these entries.
    """
    oracles = load_oracles()
    n_qubits = problem.angles.shape[1]
    diagonal = np.zeros(2**n_qubits)
    for coefficient, sites in zip(problem.coefficients, problem.factors, strict=True):
        product = np.ones(1, dtype=np.complex128)
        for site_factor in sites:
            product = np.kron(product, site_factor)
        diagonal += (coefficient * product).real
    bits = oracles.bits_table(n_qubits)
    logits = oracles.linear_logits(bits, problem.examples, 1, -1.0, 1.0, LOGIT_SCALE)
    losses = oracles.binary_logistic(logits, problem.labels)

    def energy(angles):
        return oracles.energy(oracles.brickwork_statevector(angles), diagonal)

    entries = np.unique(np.linspace(0, problem.angles.size - 1, CHECKED_ANGLES).astype(int))
    gradient = []
    for entry in entries:
        shift = np.zeros(problem.angles.size)
        shift[entry] = np.pi / 2
        shift = shift.reshape(problem.angles.shape)
        gradient.append((energy(problem.angles + shift) - energy(problem.angles - shift)) / 2)
    state = oracles.brickwork_statevector(problem.angles)
    return {
        "name": "NumPy statevector",
        "value": float(oracles.energy(state, diagonal)),
        "loss": float(oracles.energy(state, losses)),
        "entries": entries.tolist(),
        "gradient": [float(derivative) for derivative in gradient],
    }


def agreement_reference(rows):
    """Return the first finished row with a finite gradient, a peer's if possible, or None."""
    for row in sorted(rows, key=lambda row: row["name"] == OURS):
        if row["status"] == "ok":
            gradient = row["gradient"]
            return {
                "name": row["name"],
                "value": row["value"],
                "entries": list(range(len(gradient))),
                "gradient": gradient,
            }
    return None


def add_errors(row, reference):
    """Return the row with its distance from the reference in place of its gradient."""
    kept = {key: entry for key, entry in row.items() if key != "gradient"}
    if reference is None or "value" not in row:
        return kept
    kept["value_error"] = abs(row["value"] - reference["value"])
    if row["status"] != "ok":
        return kept
    entries = np.asarray(reference["entries"])
    difference = np.asarray(row["gradient"])[entries] - np.asarray(reference["gradient"])
    return kept | {"gradient_error": float(np.abs(difference).max())}


def total_seconds(row):
    """Return the time of compiling and ``STEPS`` steps, a lower bound if the limit ended it."""
    if "seconds_per_step" in row:
        return row["compile_seconds"] + STEPS * row["seconds_per_step"]
    return row.get("lower_bound_seconds")


def add_ratios(rows):
    """Return the rows of one size with their total time, and it as a multiple of ours."""
    totals = {row["name"]: total_seconds(row) for row in rows}
    ours = totals.get(OURS)
    completed = []
    for row in rows:
        total = totals[row["name"]]
        added = {} if total is None else {"total_seconds": total}
        if total is not None and ours is not None:
            added["ratio"] = total / ours
        completed.append(row | added)
    return completed


# ---------------------------------------------------------------- processes


def run_worker(arguments):
    """Measure one implementation in this process and write the row to ``arguments.result``."""
    import jax

    jax.config.update("jax_enable_x64", True)
    problem = logistic_problem(arguments.n_qubits[0], arguments.depth, arguments.seed)
    measurement = IMPLEMENTATIONS[arguments.worker](problem, arguments.repeats)
    finite = bool(np.isfinite(measurement.gradient).all())
    row = {
        "status": "ok" if finite else "gradient is not finite",
        "value": measurement.value,
        "gradient": measurement.gradient.ravel().tolist(),
        "compile_seconds": measurement.compile_seconds,
        "seconds_per_step": measurement.seconds_per_step,
    }
    reporting.write_result(arguments.result, row)


def run_implementation(name, n_qubits, arguments):
    """Measure one implementation in a new process that ends after ``arguments.timeout`` seconds."""
    command = ["--worker", name, "--n-qubits", str(n_qubits), "--depth", str(arguments.depth)]
    command += ["--seed", str(arguments.seed), "--repeats", str(arguments.repeats)]
    row = reporting.run_in_process(__file__, command, timeout=arguments.timeout)
    return {"name": name, "n_qubits": n_qubits} | row


# ---------------------------------------------------------------- report


def to_markdown(report):
    """Return the report as a Markdown table with a line on each problem and on the machine."""
    columns = [
        reporting.Column("qubits", "n_qubits"),
        reporting.Column("implementation", "name"),
        reporting.Column("compile (s)", "compile_seconds", "{:.1f}"),
        reporting.Column("step (ms)", "seconds_per_step", "{:.1f}", 1e3),
        reporting.Column(f"compile + {STEPS} steps (s)", "total", "{}"),
        reporting.Column("times ours", "times_ours", "{}"),
        reporting.Column("peak memory (MiB)", "peak_memory_bytes", "{:.0f}", 2.0**-20),
        reporting.Column("value error", "value_error", "{:.1e}"),
        reporting.Column("gradient error", "gradient_error", "{:.1e}"),
        reporting.Column("status", "status"),
    ]
    shown = []
    for row in report["rows"]:
        bound = "> " if "lower_bound_seconds" in row else ""
        texts = {}
        if "total_seconds" in row:
            texts["total"] = f"{bound}{row['total_seconds']:.1f}"
        if "ratio" in row:
            texts["times_ours"] = f"{bound}{row['ratio']:.1f}"
        shown.append(row | texts)
    lines = [reporting.to_markdown(columns, shown), ""]
    for problem in report["problems"]:
        lines.append(
            f"{problem['n_qubits']} qubits, depth {report['depth']}: {problem['n_terms']} product "
            f"terms, spectral error {problem['spectral_error']:.1e} nats, errors against "
            f"{problem['reference']}."
        )
    described = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines.append(f"Commit {report['commit']}; {described}; {report['device']}; complex128.")
    return "\n".join(lines)


def run_benchmark(arguments):
    """Measure every chosen implementation at every size and return the report as a dictionary."""
    rows, problems, load_before = [], [], reporting.load()
    for n_qubits in arguments.n_qubits:
        problem = logistic_problem(n_qubits, arguments.depth, arguments.seed)
        size_rows = []
        for name in arguments.implementations:
            row = run_implementation(name, n_qubits, arguments)
            size_rows.append(row)
            print(f"{n_qubits} qubits, {name}: {row['status']}", file=sys.stderr)
        if n_qubits <= STATEVECTOR_LIMIT:
            reference = statevector_reference(problem)
        else:
            reference = agreement_reference(size_rows)
        rows += add_ratios([add_errors(row, reference) for row in size_rows])
        problems.append(
            {
                "n_qubits": n_qubits,
                "n_terms": len(problem.coefficients),
                "spectral_error": float(problem.spectral_error),
                "reference": reference["name"] if reference else "nothing (none finished)",
                "reference_value": reference["value"] if reference else None,
                "loss": reference.get("loss") if reference else None,
            }
        )
    devices = sorted({row["device"] for row in rows if "device" in row})
    return {
        "commit": reporting.commit(),
        "versions": reporting.versions(PACKAGES),
        "device": ", ".join([*devices, reporting.machine()]),
        "load_before": load_before,
        "depth": arguments.depth,
        "seed": arguments.seed,
        "repeats": arguments.repeats,
        "problems": problems,
        "rows": rows,
    }


def parse_arguments():
    """Return the command line; ``--worker`` and ``--result`` are how the script calls itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-qubits", type=int, nargs="+", default=[16, 32])
    parser.add_argument(
        "--depth", type=int, default=4, choices=range(1, 5), help="layers; the bond is exact to 4"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the data and the angles")
    parser.add_argument("--repeats", type=int, default=20, help="timed steps after the warm-up")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds per process")
    parser.add_argument(
        "--implementations", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS)
    )
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    parser.add_argument(
        "--table", type=Path, metavar="REPORT.json", help="put its table into the README, no runs"
    )
    parser.add_argument("--worker", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Run one worker, or fill the README from a report, or run the benchmark."""
    arguments = parse_arguments()
    if arguments.worker:
        run_worker(arguments)
        return
    if arguments.table:
        reporting.write_section("peers", to_markdown(json.loads(arguments.table.read_text())))
        return
    report = run_benchmark(arguments)
    table = to_markdown(report)
    print(table)
    if arguments.output:
        arguments.output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
        arguments.output.with_suffix(".md").write_text(table + "\n")


if __name__ == "__main__":
    main()
