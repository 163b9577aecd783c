"""The same energy and gradient in several libraries: one table of time, error and memory.

The problem is the binary logistic loss of a linear network with N - 1 inputs, a bias, weights
and bias in {-1, +1} and logits z = 0.3 (w.x + b). Each example's loss is expanded as
sum_k Re c_k exp(i nu_k z), and every exponential is a product over the N sites:

    E(theta) = Re sum_t c_t <psi(theta)| (x)_j diag(d_tj(0), d_tj(1)) |psi(theta)>

``factors[t, j, bit]`` is d and ``coefficients[t]`` is c; every implementation gets these two
arrays and the angles (depth, N, 2), in radians, and returns E and its gradient in the angles.
The circuit is the brickwork: CX on one parity of neighbouring pairs, then Ry, then Rz.

Each implementation runs in its own process, so that its compile time and peak memory are its
own and a time limit can end it; what the limit ends is reported as a lower bound. To add an
implementation, write a function with the signature ``Implementation`` and list it in
``IMPLEMENTATIONS``.

Run it in an environment with the ``bench`` extra:

    python benchmarks/peers.py --n-qubits 16 32 --timeout 600 --output peers
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
LOGIT_SCALE = 0.3
N_EXAMPLES = 20
ZERO_FRACTION = 0.8
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
        spectral_error: largest error of the expanded loss over the reachable logits, in nats.
    """

    angles: np.ndarray
    factors: np.ndarray
    coefficients: np.ndarray
    examples: np.ndarray
    labels: np.ndarray
    spectral_error: float


Implementation = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Measurement]
"""peer(angles, factors, coefficients, repeats) -> Measurement"""


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
    examples = rng.uniform(size=(N_EXAMPLES, n_qubits - 1))
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
        angles, factors.reshape(-1, n_qubits, 2), coefficients, examples, labels, spectral_error
    )


# ---------------------------------------------------------------- implementations


def measure(energy, angles, factors, coefficients, repeats):
    """Compile and time the value and gradient of a JAX function of the three arrays."""
    import jax
    import jax.numpy as jnp

    arguments = tuple(jnp.asarray(array) for array in (angles, factors, coefficients))
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


def quimb_circuit_mps(angles, factors, coefficients, repeats):
    """quimb's ``CircuitMPS``: every CX is applied and split by an SVD, with the exact bond kept."""
    import jax.numpy as jnp
    import quimb.tensor as qtn

    depth, n_qubits, _ = angles.shape

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

    return measure(_quimb_energy(make_state), angles, factors, coefficients, repeats)


def quimb_split_gates(angles, factors, coefficients, repeats):
    """quimb's ``Circuit`` with split CX gates, contracted site by site: an exact MPS, no SVD.

    CX is a constant, so its split into two factors of bond 2 is not differentiated.
    """
    import quimb.tensor as qtn

    depth, n_qubits, _ = angles.shape

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

    return measure(_quimb_energy(make_state), angles, factors, coefficients, repeats)


def tensorcircuit_mps(angles, factors, coefficients, repeats):
    """TensorCircuit-NG's ``MPSCircuit`` with its jax backend, with the exact bond kept."""
    import jax
    import jax.numpy as jnp
    import tensorcircuit

    tensorcircuit.set_backend("jax")
    tensorcircuit.set_dtype("complex128")
    depth, n_qubits, _ = angles.shape

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

    return measure(energy, angles, factors, coefficients, repeats)


IMPLEMENTATIONS: dict[str, Implementation] = {
    "quimb-split-gates": quimb_split_gates,
    "quimb-circuit-mps": quimb_circuit_mps,
    "tensorcircuit-mps": tensorcircuit_mps,
}


# ---------------------------------------------------------------- reference


def load_oracles():
    """Import tests/oracles.py by its path; it does not import the package."""
    path = REPOSITORY / "tests" / "oracles.py"
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
    """Return the first finished row with a finite gradient in the form of a reference, or None."""
    for row in rows:
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


# ---------------------------------------------------------------- processes


def run_worker(arguments):
    """Measure one implementation in this process and write the row to ``arguments.result``."""
    import jax

    jax.config.update("jax_enable_x64", True)
    problem = logistic_problem(arguments.n_qubits[0], arguments.depth, arguments.seed)
    implementation = IMPLEMENTATIONS[arguments.worker]
    measurement = implementation(
        problem.angles, problem.factors, problem.coefficients, arguments.repeats
    )
    finite = bool(np.isfinite(measurement.gradient).all())
    row = {
        "status": "ok" if finite else "gradient is not finite",
        "value": measurement.value,
        "gradient": measurement.gradient.ravel().tolist(),
        "compile_seconds": measurement.compile_seconds,
        "seconds_per_step": measurement.seconds_per_step,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": f"{jax.devices()[0].platform}: {jax.devices()[0].device_kind}",
    }
    Path(arguments.result).write_text(json.dumps(row))


def run_implementation(name, n_qubits, arguments):
    """Measure one implementation in a new process that ends after ``arguments.timeout`` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "row.json"
        command = [sys.executable, str(Path(__file__).resolve())]
        command += ["--worker", name, "--result", str(result), "--n-qubits", str(n_qubits)]
        command += ["--depth", str(arguments.depth), "--seed", str(arguments.seed)]
        command += ["--repeats", str(arguments.repeats)]
        row = {"name": name, "n_qubits": n_qubits}
        try:
            completed = subprocess.run(
                command, timeout=arguments.timeout, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            limit = arguments.timeout
            return row | {"status": f"did not finish in {limit:g} s", "lower_bound_seconds": limit}
        if completed.returncode != 0:
            lines = completed.stderr.strip().splitlines() or ["no message"]
            return row | {"status": f"failed: {lines[-1]}"}
        return row | json.loads(result.read_text())


# ---------------------------------------------------------------- report


def commit():
    """Return the commit of the repository, with ``-dirty`` for changed files."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    return completed.stdout.strip() or "no commit"


def versions():
    """Return the version of Python and of every installed package that takes part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def format_entry(row, key, pattern, factor=1.0):
    """Return ``row[key] * factor`` as text, or a dash where it is missing."""
    return pattern.format(row[key] * factor) if key in row else "-"


def to_markdown(report):
    """Return the report as a Markdown table with a line on each problem and on the machine."""
    lines = [
        "| qubits | implementation | compile (s) | step (ms) | peak memory (MiB) "
        "| value error | gradient error | status |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if "lower_bound_seconds" in row:
            compiling = f"> {row['lower_bound_seconds']:g}"
        else:
            compiling = format_entry(row, "compile_seconds", "{:.1f}")
        cells = [
            str(row["n_qubits"]),
            row["name"],
            compiling,
            format_entry(row, "seconds_per_step", "{:.1f}", 1e3),
            format_entry(row, "peak_memory_bytes", "{:.0f}", 2.0**-20),
            format_entry(row, "value_error", "{:.1e}"),
            format_entry(row, "gradient_error", "{:.1e}"),
            row["status"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
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
    rows, problems = [], []
    for n_qubits in arguments.n_qubits:
        problem = logistic_problem(n_qubits, arguments.depth, arguments.seed)
        size_rows = []
        for name in arguments.implementations:
            row = run_implementation(name, n_qubits, arguments)
            size_rows.append(row)
            compiling = format_entry(row, "compile_seconds", ", compiled in {:.1f} s")
            print(f"{n_qubits} qubits, {name}: {row['status']}{compiling}", file=sys.stderr)
        if n_qubits <= STATEVECTOR_LIMIT:
            reference = statevector_reference(problem)
        else:
            reference = agreement_reference(size_rows)
        rows += [add_errors(row, reference) for row in size_rows]
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
        "commit": commit(),
        "versions": versions(),
        "device": ", ".join([*devices, f"{os.cpu_count()} cores", platform.machine()]),
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
    parser.add_argument("--worker", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Run one worker, or the benchmark with its report."""
    arguments = parse_arguments()
    if arguments.worker:
        run_worker(arguments)
        return
    report = run_benchmark(arguments)
    table = to_markdown(report)
    print(table)
    if arguments.output:
        arguments.output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
        arguments.output.with_suffix(".md").write_text(table + "\n")


if __name__ == "__main__":
    main()
