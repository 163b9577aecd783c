"""The exact energy of every circuit that a sweep of few qubits trained in truncated states.

    python experiments/06_bond_dimension/exact.py SWEEP OUT.csv

One row per member: the energy of the truncated state and of the same angles without truncation, on
all examples, with the error that the run reports (`state.diagnostics`, or `hypercircuit diagnose`);
and the same two on the examples from which that error was estimated.
"""

import csv
import json
import sys
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import hypercircuit as hc  # noqa: E402  (float64 comes first)
from hypercircuit.config import load_config  # noqa: E402
from hypercircuit.hamiltonian import compile_loss  # noqa: E402
from hypercircuit.problem import build_problem  # noqa: E402
from hypercircuit.run_diagnose import diagnostics_of  # noqa: E402

sweep, out = Path(sys.argv[1]), Path(sys.argv[2])
folders = [path.parent for path in sorted(sweep.glob("members/*/result.json"))]
hamiltonian, energies, rows = None, {}, []


def exact_energy(loss, depth, angles):
    """Of the circuit's exact state, on all examples of `loss`."""
    key = id(loss), depth
    if key not in energies:
        prepared = hc.Statevector().prepare(
            loss, hc.Brickwork(depth), batch_size=loss.n_examples, dtype=np.float64
        )
        energies[key] = jax.jit(prepared), prepared.batch(np.arange(loss.n_examples))
    function, batch = energies[key]
    return float(function(angles, batch))


parts = {}
for folder in folders:
    config = load_config(folder / "config.toml")
    found = json.loads((folder / "result.json").read_text())
    if found["status"] != "finished":
        continue
    if hamiltonian is None:
        problem = build_problem(config)
        hamiltonian = compile_loss(
            problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
        )
        best = float(hamiltonian.diagonal().min())
    depth, seed = config.circuit.depth, config.train.seed
    with np.load(folder / "angles.npz") as arrays:
        angles = arrays["angles"]
    diagnosed = diagnostics_of(folder, found)
    if seed not in parts:  # as in `hypercircuit.study.diagnose`
        chosen = np.random.default_rng(seed).permutation(hamiltonian.n_examples)
        parts[seed] = hamiltonian.subset(np.sort(chosen[: diagnosed["compared_examples"]]))
    rows.append(
        {
            "depth": depth,
            "max_bond": config.state.max_bond,
            "seed": seed,
            "minimum": best,
            "energy": found["energy"],
            "exact_energy": exact_energy(hamiltonian, depth, angles),
            "compared_energy": diagnosed["energy_at_max_bond"],
            "compared_exact_energy": exact_energy(parts[seed], depth, angles),
            "reported_error": diagnosed["energy_error"],
            "error_from": diagnosed["energy_error_from"],
            "best_loss": found["best_loss"],
            "discarded_weight": diagnosed["discarded_weight"],
            "max_entropy": diagnosed["max_entropy"],
        }
    )
    print(rows[-1], flush=True)
with out.open("w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
