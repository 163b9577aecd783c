"""What there is to know of a compressed loss: its size, how it was made, and its errors.

Errors of five kinds are never added up:

    spectral          a bound of the compiled terms, for every network: against the true loss
    compression       what compressing them did, a root mean square in the metric: counted over all
                      networks where they are few, estimated otherwise
    state truncation  not of an operator: states that are sampled may have one of their own
    sampling          the standard errors of what is measured on random networks
    optimisation      not of an operator: how far a state is from the best one

Measured are differences from true losses, by the classical forward pass: they hold the spectral
error and everything that compression did, the sketch and the fit in the metric's window included.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from .compressed import MEASURED, CompressedLoss
from .errors import MeasuredError
from .operator import metric_weights

_SETS = {
    "metric": "the metric's networks",
    "uniform": "uniform networks",
    "state": "samples of the state",
    "best": "best network found",
}


def make_report(
    compressed: CompressedLoss,
    *,
    state: Integer[np.ndarray, "n_samples n_qubits"] | None = None,
    best: Integer[np.ndarray, " n_qubits"] | None = None,
    n_networks: int = MEASURED,
) -> dict[str, Any]:
    """A dictionary that JSON can hold; what was not given or has no value is None.

    Losses and errors are in `unit` per example, sizes in bytes, and `parts` lists every operator:
    its first site, its bond dimension at every cut (both ends included) and what truncation threw
    away.

    **Arguments:**

    - `state`: samples of a state, on which the error is measured too.
    - `best`: the best network found, likewise.
    - `n_networks`: uniformly random networks, likewise.

    **Raises:** `ValueError` for bits of another number of qubits or no networks.
    """
    hamiltonian = compressed.hamiltonian
    n_qubits = hamiltonian.n_qubits
    if n_networks < 1:
        raise ValueError(f"n_networks must be at least 1, got {n_networks}")
    uniform = uniform_networks(n_networks, n_qubits, compressed.seed)
    sets = {"uniform": uniform, "state": state, "best": None if best is None else best[None]}
    measured: dict[str, Any] = {"metric": error_entry(compressed.measured)}
    for name, bits in sets.items():
        if bits is not None and (bits.shape[1] != n_qubits or not len(bits)):
            raise ValueError(
                f"{name} must hold bits of {n_qubits} qubits, one network a row, got shape "
                f"{bits.shape}"
            )
        measured[name] = None if bits is None else error_entry(compressed.error_at(bits))
    sampling = {
        name: None if each is None else each["rms_standard_error"]
        for name, each in measured.items()
    }
    return {
        "loss": hamiltonian.loss.name,
        "unit": hamiltonian.loss.unit,
        "n_examples": hamiltonian.n_examples,
        "n_qubits": n_qubits,
        "data_fingerprint": hamiltonian.data.fingerprint,
        "network": repr(hamiltonian.network),
        "metric": {
            "kind": compressed.metric,
            "sha256": metric_digest(compressed.probabilities),
        },
        "settings": {
            "max_bond": compressed.max_bond,
            "tolerance": compressed.tolerance,
            "seed": compressed.seed,
            "dtype": compressed.dtype,
            "memory": compressed.memory,
        },
        "parts": [
            {
                "start": part.start,
                "bonds": list(part.mpo.bonds),
                "n_bytes": part.mpo.n_bytes,
                "truncation_error": error,
            }
            for part, error in zip(compressed.parts, compressed.truncation_errors, strict=True)
        ],
        "max_bond": max(part.mpo.max_bond for part in compressed.parts),
        "n_bytes": compressed.n_bytes,
        "seconds": compressed.seconds,
        "errors": {
            "spectral": hamiltonian.spectral_error,
            "compression": {
                "at_most": compressed.compression.at_most,
                "exact": compressed.compression.exact,
                "standard_error": compressed.compression.standard_error,
            },
            "state_truncation": None,
            "sampling": sampling,
            "optimisation": None,
        },
        "measured": measured,
    }


def report_text(report: dict[str, Any]) -> str:
    """A report as readable lines."""
    unit, settings, errors = report["unit"], report["settings"], report["errors"]
    bonds = np.concatenate([part["bonds"] for part in report["parts"]])
    n_parts = len(report["parts"])
    kind = report["metric"]["kind"]
    metric = "the uniform metric" if kind == "uniform" else "a product distribution's metric"
    wanted = f"asked for at most {settings['max_bond']}"
    if settings["tolerance"] > 0:
        wanted += f" and {settings['tolerance']:g} {unit}"
    lines = [
        f"{report['loss']} loss of {report['n_examples']} examples on {report['n_qubits']} qubits "
        f"as {n_parts} {'operators' if n_parts > 1 else 'operator'} in {metric}",
        f"  data          {report['data_fingerprint'][:16]}",
        f"  bonds         at most {report['max_bond']}, mean {bonds.mean():.1f} ({wanted})",
        f"  size          {report['n_bytes'] / 1e6:.2f} MB, compressed in "
        f"{report['seconds']:.1f} s ({settings['dtype']}, seed {settings['seed']})",
        f"  spectral      at most {errors['spectral']:.2g} {unit}, of the compiled terms",
        f"  compression   {_compression(errors['compression'], unit)}",
        f"  measured against true losses, the errors above included ({unit}):",
        f"    {'':<22}{'networks':>9}{'rms':>11}{'+-':>9}{'mean':>11}{'+-':>9}{'max':>11}"
        f"{'true loss':>11}",
    ]
    for name, words in _SETS.items():
        each = report["measured"][name]
        if each is None:
            continue
        lines.append(
            f"    {words:<22}{each['n_networks']:>9}{each['rms']:>11.3g}"
            f"{_number(each['rms_standard_error']):>9}{each['mean']:>11.2g}"
            f"{_number(each['mean_standard_error']):>9}{each['max']:>11.3g}{each['loss']:>11.4g}"
        )
    lines.append("  state truncation and optimisation are no errors of an operator")
    return "\n".join(lines)


def error_entry(error: MeasuredError) -> dict[str, Any]:
    """A measured error for JSON, which has no NaN: None stands for it."""
    entry = {
        "n_networks": error.n_networks,
        "rms": error.rms,
        "rms_standard_error": error.rms_standard_error,
        "mean": error.mean,
        "mean_standard_error": error.mean_standard_error,
        "max": error.max,
        "loss": error.loss,
    }
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in entry.items()
    }


def uniform_networks(
    n_networks: int, n_qubits: int, seed: int
) -> Integer[np.ndarray, "n_networks n_qubits"]:
    """Uniformly random bits; a compressed loss of this seed has not seen them."""
    rng = np.random.default_rng([seed, 2])
    return rng.integers(0, 2, (n_networks, n_qubits), np.uint8)


def metric_digest(probabilities: Float[np.ndarray, " n_qubits"] | None) -> str | None:
    """SHA-256 of a metric's probabilities as they are used; None for the uniform metric."""
    if probabilities is None:
        return None
    ones = metric_weights(probabilities, len(probabilities))[:, 1]
    return hashlib.sha256(np.ascontiguousarray(ones, "<f8").data).hexdigest()


def _compression(error: dict[str, Any], unit: str) -> str:
    found = f"{error['at_most']:.2g} {unit} rms in the metric"
    if error["exact"]:
        return f"{found}, counted over all networks"
    return (
        f"at most {found}, an estimate: rms on the metric's networks and three standard errors "
        f"({error['standard_error']:.1g})"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1g}"
