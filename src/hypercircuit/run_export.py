"""What a run has found, in the formats of other programs; the file's suffix says which.

.qasm   the trained circuit as OpenQASM 3
.h5     the trained state of a chain as a matrix product state, see `load_mps`; of a folder of
        `compile`, or of a file of operators such as RUN/mpo.npz, the operator, see `load_mpo`
.npz    a network: weights, biases and settings as arrays, see `save_network`
.onnx   a network for inference elsewhere, see `to_onnx`
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from ._files import read_json
from .bnn import save_network, save_onnx
from .circuit import Ansatz, Graph, Noisy, Truncated, save_qasm
from .config import ConfigError
from .hamiltonian import compile_loss
from .hamiltonian.mpo import load_compressed, save_mpo
from .methods import Report
from .problem import bare_circuit, build_problem, class_labels, describe_preprocessing
from .run import expect, run_config, run_fingerprint
from .run_diagnose import diagnostics_of
from .state import prepare_state, save_mps

_CIRCUIT, _CHAIN, _NETWORKS = ".qasm", ".h5", (".npz", ".onnx")
#: What `compile` leaves in a folder: the operator, and the last file of all.
_OPERATOR, _COMPILED = "mpo.npz", "report.json"


def export_run(
    folder: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    *,
    measure: bool = False,
    samples: str | os.PathLike[str] | None = None,
    row: int | None = None,
    report: Report = print,
) -> None:
    """Write a finished run's circuit (`.qasm`), state (`.h5`) or network (`.npz`, `.onnx`).

    The circuit of a run with a truncated state is the whole one; the file and the report say so.
    The state is that of a chain, truncated where the run's is, in HDF5: a tensor per site with axes
    (left, phys, right), site 0 first. Where `folder` is one of `compile`, or a file of operators
    (such as the `mpo.npz` of a run that was trained on them), the operator is written instead: axes
    (left, bit, right), with the data's fingerprint.

    **Arguments:**

    - `measure`: end circuits with the measurement of every qubit.
    - `samples`, `row`: a network of a file that `hypercircuit sample` wrote for this run, rows
      counted from 0; left out, the run's best network.

    **Raises:** `ConfigError` for another suffix, a folder without a finished run, samples of
    another run, the state of a graph or a noisy circuit, or an argument that no file uses.
    """
    folder = Path(folder)
    paths = [Path(file) for file in files]
    _check(paths, measure, samples, row)
    if folder.is_file() or (folder / _COMPILED).exists():
        _export_operator(folder if folder.is_file() else folder / _OPERATOR, paths, report)
        return
    config = run_config(folder, [])
    with np.load(expect(folder / "angles.npz")) as arrays:
        angles = arrays["angles"]
    bits = None
    if any(path.suffix in _NETWORKS for path in paths):
        bits = _best(folder) if samples is None else _sampled(folder, Path(samples), row)
    problem = build_problem(config)
    data = problem.splits.train
    labels, preprocessing = class_labels(config, data), describe_preprocessing(config, data)
    for path in paths:
        if path.suffix == _CIRCUIT:
            circuit = problem.circuit
            notes = _untruncated(folder, circuit) if isinstance(circuit, Truncated) else ()
            save_qasm(path, bare_circuit(circuit), angles, measure=measure, notes=notes)
            for note in notes:
                report(note)
            what = f"the circuit of {angles.shape[1]} qubits"
        elif path.suffix == _CHAIN:
            what = _export_state(path, problem.circuit, angles)
        else:
            assert bits is not None
            chosen = "the best network" if samples is None else f"network {row} of {samples}"
            what = f"{chosen}, {len(bits)} bits"
            if path.suffix == ".npz":
                save_network(
                    path, problem.network, bits, labels=labels, preprocessing=preprocessing
                )
            else:
                save_onnx(
                    path,
                    problem.network,
                    bits,
                    step=data.step,
                    labels=labels,
                    preprocessing=preprocessing,
                )
        report(f"{what}: {path}")


def _export_state(path: Path, circuit: Ansatz, angles: np.ndarray) -> str:
    """Write the state of a chain; returns what it is, in words."""
    if isinstance(circuit, Graph):
        raise ConfigError(
            f"{path}: the state of circuit.ansatz='graph' is no chain of matrices; "
            "export the circuit as .qasm, or train circuit.ansatz='brickwork'"
        )
    if isinstance(circuit, Noisy):
        raise ConfigError(
            f"{path}: with [noise] the state is mixed, no matrix product state; export the circuit "
            "as .qasm, or train without noise"
        )
    with jax.enable_x64(angles.dtype == np.float64):
        state = prepare_state(circuit, jax.numpy.asarray(angles))
        tensors = [np.asarray(tensor) for tensor in state.tensors()]
    save_mps(path, tensors)
    bond = max(tensor.shape[2] for tensor in tensors)
    return f"the state of {len(tensors)} qubits, bond dimension {bond}"


def _export_operator(source: Path, paths: Sequence[Path], report: Report) -> None:
    """Write the compressed loss of a file as one operator."""
    for path in paths:
        if path.suffix != _CHAIN:
            raise ConfigError(
                f"{source} holds operators, which are written as .h5, got {str(path)!r}; name the "
                "folder of a `train` for circuits and networks"
            )
    config = run_config(source.parent, [])
    problem = build_problem(config)
    hamiltonian = compile_loss(
        problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
    )
    mpo = load_compressed(source, hamiltonian).mpo()
    for path in paths:
        save_mpo(path, mpo, fingerprint=hamiltonian.data.fingerprint)
        report(f"the operator of {mpo.n_sites} qubits, bond dimension {mpo.max_bond}: {path}")


def _untruncated(folder: Path, circuit: Truncated) -> list[str]:
    """That the circuit prepares another state than the one that was trained, in two lines."""
    file = folder / "result.json"
    result = read_json(file) if file.exists() else {}
    weight = diagnostics_of(folder, result).get("discarded_weight")
    known = "" if weight is None else f", discarded weight {weight:.2g}"
    return [
        "this is the circuit without truncation: it prepares the exact state of the angles;",
        "the energy in result.json belongs to the state truncated to max_bond "
        f"{circuit.max_bond}{known}",
    ]


def _check(
    paths: Sequence[Path],
    measure: bool,
    samples: str | os.PathLike[str] | None,
    row: int | None,
) -> None:
    if not paths:
        raise ConfigError("export needs at least one file to write, such as circuit.qasm")
    for path in paths:
        if path.suffix not in (_CIRCUIT, _CHAIN, *_NETWORKS):
            raise ConfigError(
                f"a file's suffix says what to write: .qasm, .h5, .npz or .onnx; got {str(path)!r}"
            )
    suffixes = {path.suffix for path in paths}
    if measure and _CIRCUIT not in suffixes:
        raise ConfigError("--measure is for circuits, and no .qasm file is asked for")
    if (samples is not None or row is not None) and not suffixes & set(_NETWORKS):
        raise ConfigError("--samples and --row choose a network, and no .npz or .onnx is asked for")
    if (samples is None) != (row is None):
        raise ConfigError(
            "--samples FILE.npz and --row N go together: they name one sampled network"
        )


def _best(folder: Path) -> np.ndarray:
    with np.load(expect(folder / "best_network.npz")) as arrays:
        return arrays["bits"]


def _sampled(folder: Path, file: Path, row: int | None) -> np.ndarray:
    if not file.exists():
        raise ConfigError(f"{file} does not exist; write it with `hypercircuit sample`")
    with np.load(file) as arrays:
        if "fingerprint" not in arrays or "bits" not in arrays:
            raise ConfigError(f"{file} holds no samples of `hypercircuit sample`")
        bits, fingerprint = arrays["bits"], str(arrays["fingerprint"])
    if fingerprint != run_fingerprint(folder):
        raise ConfigError(f"{file} holds samples of another run than {folder}; sample this one")
    assert row is not None
    if not 0 <= row < len(bits):
        raise ConfigError(f"--row must be in 0..{len(bits) - 1}, got {row}")
    return bits[row]
