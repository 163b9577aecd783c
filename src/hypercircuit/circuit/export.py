"""Circuits as OpenQASM 3 text, gate by gate in the order of time.

    OPENQASM 3.0;
    include "stdgates.inc";
    qubit[5] q;                 q[i] is site i
    ry(0.25) q[0];              layer 1: rotations only
    rz(-1.5) q[0];
    ...
    cx q[0], q[1];              layer 2: CX, then rotations
    ...
    bit[5] c;                   on request
    c = measure q;              c[i] is the bit of site i

The CX of layer 1 act on |0...0>, do nothing and are left out, as in the states computed here.
Angles are written with the digits that give back the same number. Readers that count qubit 0 as
the least significant bit, such as Qiskit, list amplitudes with the sites reversed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from .._files import write_atomically
from .._types import AnyArray
from .brickwork import Brickwork
from .graph import Edge, Graph

#: Angles in radians, of NumPy or JAX.
HostAngles = Float[AnyArray, "depth n_qubits kinds"]


def to_qasm(
    circuit: Brickwork | Graph,
    params: HostAngles,
    *,
    measure: bool = False,
    notes: Sequence[str] = (),
) -> str:
    """The circuit with these angles as OpenQASM 3.

    **Arguments:**

    - `measure`: end with the measurement of every qubit into `c`.
    - `notes`: lines of comment below the version, without their `//`.

    **Raises:** `ValueError` for angles of another shape or that are not finite.
    """
    return "".join(qasm_lines(circuit, params, measure=measure, notes=notes))


def save_qasm(
    path: str | os.PathLike[str],
    circuit: Brickwork | Graph,
    params: HostAngles,
    *,
    measure: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Write `to_qasm` line by line to a file, atomically; the text is never held as a whole."""
    lines = qasm_lines(circuit, params, measure=measure, notes=notes)
    write_atomically(path, lambda file: file.writelines(line.encode() for line in lines))


def qasm_lines(
    circuit: Brickwork | Graph,
    params: HostAngles,
    *,
    measure: bool = False,
    notes: Sequence[str] = (),
) -> Iterator[str]:
    """The lines of `to_qasm`, each with its end."""
    angles = np.asarray(params, np.float64)
    n_qubits = angles.shape[1]
    if angles.shape != circuit.shape(n_qubits):
        raise ValueError(
            f"params must have shape {circuit.shape(n_qubits)} for {n_qubits} qubits, "
            f"got {angles.shape}"
        )
    if not np.isfinite(angles).all():
        layer, site, kind = np.argwhere(~np.isfinite(angles))[0].tolist()
        raise ValueError(
            f"params must be finite, got {angles[layer, site, kind]} at [{layer}, {site}, {kind}]"
        )
    return _lines(circuit, angles, measure, notes)


def layer_pairs(circuit: Brickwork | Graph, number: int, n_qubits: int) -> tuple[Edge, ...]:
    """The CX (control, target) of layer `number`, counted from 1, in the order of time."""
    if isinstance(circuit, Graph):
        return circuit.layer(number)
    if number == 1:
        return ()
    return tuple((site, site + 1) for site in range(number % 2, n_qubits - 1, 2))


def _lines(
    circuit: Brickwork | Graph, angles: np.ndarray, measure: bool, notes: Sequence[str]
) -> Iterator[str]:
    n_qubits = angles.shape[1]
    yield "OPENQASM 3.0;\n"
    for line in "\n".join(notes).splitlines():
        yield f"// {line}\n"
    yield f'include "stdgates.inc";\nqubit[{n_qubits}] q;\n'
    for number, layer in enumerate(angles.tolist(), start=1):
        for control, target in layer_pairs(circuit, number, n_qubits):
            yield f"cx q[{control}], q[{target}];\n"
        for site, (theta, *phi) in enumerate(layer):
            yield f"ry({theta!r}) q[{site}];\n"
            if phi:
                yield f"rz({phi[0]!r}) q[{site}];\n"
    if measure:
        yield f"bit[{n_qubits}] c;\nc = measure q;\n"
