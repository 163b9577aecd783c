"""The diagnostics of a run's state, as files in its folder.

diagnostics.json   entropies, correlation length, mutual information, errors of truncation
diagnostics.npz    the profiles that they come from, see `hypercircuit.study.Diagnostics`
entropy.png        entanglement, Schmidt values, correlations and discarded weights
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._files import read_json, write_atomically, write_text
from ._threads import one_lapack_thread
from ._types import Angles
from .circuit import Ansatz
from .hamiltonian import LossHamiltonian
from .study import diagnose, plot_entropy


def write_diagnostics(
    folder: Path,
    hamiltonian: LossHamiltonian,
    circuit: Ansatz,
    params: Angles,
    *,
    n_examples: int,
    seed: int,
) -> dict[str, Any]:
    """Diagnose a state, write the files, and return the numbers."""
    with one_lapack_thread():
        found = diagnose(hamiltonian, circuit, params, n_examples=n_examples, seed=seed)
    arrays: dict[str, Any] = found.arrays
    write_atomically(folder / "diagnostics.npz", lambda file: np.savez_compressed(file, **arrays))
    plot_entropy(found.numbers, found.arrays, folder / "entropy.png")
    write_text(folder / "diagnostics.json", json.dumps(found.numbers, indent=2) + "\n")
    return found.numbers


def diagnostics_of(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the state of a run: what its result holds, and what `diagnose` found later.

    **Arguments:**

    - `folder`: of the run.
    - `result`: what its result.json holds.

    **Raises:** `ValueError` if diagnostics.json is broken.
    """
    file = folder / "diagnostics.json"
    later = read_json(file) if file.exists() else {}
    return {**(result.get("diagnostics") or {}), **later}


def describe_diagnostics(numbers: dict[str, Any]) -> str:
    """The numbers in a few lines."""
    length = numbers["correlation_length"]
    sites = "not to be told" if length is None else f"{length:.3g} sites"
    lines = [
        f"entropy at most {numbers['max_entropy']:.4f} nats, {numbers['mean_entropy']:.4f} on "
        f"average; correlation length {sites}; norm off by "
        f"{numbers['norm_error']:.1e}"
    ]
    if "max_mutual_information" in numbers:
        lines.append(
            "the qubit that shares most with the architecture qubits shares "
            f"{numbers['mutual_information_is']} {numbers['max_mutual_information']:.2g} nats"
        )
    if "discarded_weight" in numbers:
        about = " (estimated)" if numbers.get("discarded_weight_is") == "estimated" else ""
        lines.append(
            f"discarded weight {numbers['discarded_weight']:.2e}{about}; energy of "
            f"{numbers['compared_examples']} examples {numbers['energy_at_max_bond']:.6f}, that "
            f"of all {numbers['energy_error_examples']} off by at most about "
            f"{numbers['energy_error']:.1e} (from {numbers['energy_error_from']})"
        )
    return "\n".join(lines)
