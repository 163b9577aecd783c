"""Compressed losses on the disk: one file each, and a cache of them.

A file is an uncompressed npz archive, read without pickle:

    header               JSON (UTF-8 bytes): format, identity, request, report, and what the parts'
                         arrays do not say
    part<k>/bonds        of every cut of part k, both ends included
    part<k>/tensors      its tensors, one after the other, axes (left, 2, right)
    probabilities        of the metric; absent for the uniform one
    digest               SHA-256 of the header and of all arrays

The *identity* is that of the compiled loss: a file is read only for the loss that it was made of.
The *request* is the metric and the settings. Together with the package's version they name a
file of the cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..._files import write_atomically
from ..compile import LossHamiltonian
from .compressed import CompressedLoss, Part
from .errors import CompressionError, MeasuredError
from .operator import DiagonalMPO
from .report import metric_digest

FORMAT = 2
_SPECTRAL = "spectral error"


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a compression, see `compress_loss`."""

    max_bond: int
    tolerance: float
    probabilities: Float[np.ndarray, " n_qubits"] | None
    seed: int
    dtype: str
    memory: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, the metric by its hash."""
        return {
            "max_bond": self.max_bond,
            "tolerance": float(self.tolerance),
            "metric": metric_digest(self.probabilities),
            "seed": self.seed,
            "dtype": self.dtype,
            "memory": self.memory,
        }


def identity(hamiltonian: LossHamiltonian) -> dict[str, Any]:
    """What tells a compiled loss from others, by the words of messages."""
    data = hamiltonian.data
    return {
        "data fingerprint": data.fingerprint,
        "number of examples": hamiltonian.n_examples,
        "number of classes": data.n_classes,
        "step of the inputs": data.step,
        "network": repr(hamiltonian.network),
        "loss": repr(hamiltonian.loss),
        "terms": hamiltonian.terms.describe(),
        _SPECTRAL: hamiltonian.spectral_error,
    }


def save_compressed(
    compressed: CompressedLoss,
    path: str | os.PathLike[str],
    *,
    report: dict[str, Any] | None = None,
) -> None:
    """Write a compressed loss to one file, atomically.

    **Arguments:**

    - `report`: kept in the file; made by `CompressedLoss.report` if left out.
    """
    header = {
        "format": FORMAT,
        "version": importlib.metadata.version("hypercircuit"),
        "identity": identity(compressed.hamiltonian),
        "request": _request_of(compressed).to_dict(),
        "starts": [part.start for part in compressed.parts],
        "truncation_errors": list(compressed.truncation_errors),
        "compression": dataclasses.asdict(compressed.compression),
        "measured": dataclasses.asdict(compressed.measured),
        "seconds": compressed.seconds,
        "report": compressed.report() if report is None else report,
    }
    arrays = {}
    for number, part in enumerate(compressed.parts):
        tensors = [np.asarray(tensor, "<f8").reshape(-1) for tensor in part.mpo.tensors]
        arrays[f"part{number}/bonds"] = np.array(part.mpo.bonds, "<i8")
        arrays[f"part{number}/tensors"] = np.concatenate(tensors)
    if compressed.probabilities is not None:
        arrays["probabilities"] = np.asarray(compressed.probabilities, "<f8")
    text = json.dumps(header).encode()
    digest = np.frombuffer(_digest(text, arrays), np.uint8)
    write_atomically(
        path,
        lambda file: np.savez(
            file,
            allow_pickle=False,
            header=np.frombuffer(text, np.uint8),
            digest=digest,
            **arrays,
        ),
    )


def load_compressed(path: str | os.PathLike[str], hamiltonian: LossHamiltonian) -> CompressedLoss:
    """Read a compressed loss back, bit for bit.

    **Arguments:**

    - `hamiltonian`: the compiled loss that it was made of.

    **Raises:** `ValueError` for a file of another data set, network, loss, set of terms or format,
    saying what differs, and for a damaged one; `OSError` for one that cannot be read.
    """
    header, arrays = _read(path)
    there, here = header["identity"], identity(hamiltonian)
    different = [
        f"{name} ({there.get(name)} in the file, {value} here)"
        for name, value in here.items()
        if not _same(name, there.get(name), value)
    ]
    if different:
        raise ValueError(
            f"{path} is of another loss: {', '.join(different)}; load it with what it was made of, "
            "or compress this loss again"
        )
    request = header["request"]
    parts = []
    for number, start in enumerate(header["starts"]):
        bonds = arrays[f"part{number}/bonds"].tolist()
        flat = arrays[f"part{number}/tensors"]
        tensors, at = [], 0
        for left, right in itertools.pairwise(bonds):
            size = 2 * left * right
            tensors.append(flat[at : at + size].reshape(left, 2, right))
            at += size
        parts.append(Part(start, DiagonalMPO(tuple(tensors))))
    return CompressedLoss(
        hamiltonian,
        tuple(parts),
        arrays.get("probabilities"),
        request["max_bond"],
        request["tolerance"],
        request["seed"],
        request["dtype"],
        request["memory"],
        tuple(header["truncation_errors"]),
        CompressionError(**header["compression"]),
        MeasuredError(**header["measured"]),
        header["seconds"],
    )


def saved_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The report that a file holds; it takes no data set to read it.

    **Raises:** `ValueError` for a damaged file or one of another format; `OSError` for one that
    cannot be read.
    """
    return _read(path)[0]["report"]


def load_same(
    path: str | os.PathLike[str], hamiltonian: LossHamiltonian, request: Request
) -> CompressedLoss | None:
    """The file's compressed loss if it is of this loss and request, or None.

    None stands for no file, too; a damaged one is warned of.

    **Warns:** `RuntimeWarning` for a file that is there and cannot be used.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        found = load_compressed(path, hamiltonian)
    except ValueError as error:
        warnings.warn(f"the loss is compressed again: {error}", RuntimeWarning, stacklevel=2)
        return None
    return found if _request_of(found).to_dict() == request.to_dict() else None


def cached(
    folder: str | os.PathLike[str],
    hamiltonian: LossHamiltonian,
    request: Request,
    compress: Callable[[], CompressedLoss],
) -> CompressedLoss:
    """What the folder holds of this loss and request, or what `compress` makes, which is kept.

    **Warns:** `RuntimeWarning` for a damaged file, which is replaced.
    """
    folder = Path(folder)
    path = folder / cache_name(hamiltonian, request)
    found = load_same(path, hamiltonian, request)
    if found is None:
        found = compress()
        folder.mkdir(parents=True, exist_ok=True)
        found.save(path)
    return found


def cache_name(hamiltonian: LossHamiltonian, request: Request) -> str:
    """The file's name in a cache: the hash of everything that decides the result."""
    known = identity(hamiltonian)
    # Its last digits depend on the machine.
    known[_SPECTRAL] = f"{known[_SPECTRAL]:.2e}"
    everything = {
        "format": FORMAT,
        "version": importlib.metadata.version("hypercircuit"),
        "identity": known,
        "request": request.to_dict(),
    }
    text = json.dumps(everything, sort_keys=True).encode()
    return f"mpo-{hashlib.sha256(text).hexdigest()[:32]}.npz"


def _request_of(compressed: CompressedLoss) -> Request:
    return Request(
        compressed.max_bond,
        compressed.tolerance,
        compressed.probabilities,
        compressed.seed,
        compressed.dtype,
        compressed.memory,
    )


def _same(name: str, there: Any, here: Any) -> bool:
    if name == _SPECTRAL and there is not None:
        # Least squares of another machine differ in the last digits.
        return math.isclose(there, here, rel_tol=1e-3)
    return there == here


def _digest(header: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256(header)
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the other arrays of an intact file of this format."""
    again = "compress the loss again"
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            text = arrays.pop("header").tobytes()
            expected = arrays.pop("digest").tobytes()
        except Exception as error:  # a damaged zip file raises half a dozen kinds
            raise ValueError(
                f"{path} is damaged or no file of a compressed loss "
                f"({type(error).__name__}: {error}); {again}"
            ) from error
    if _digest(text, arrays) != expected:
        raise ValueError(f"{path} is damaged: its digest does not match its content; {again}")
    header = json.loads(text)
    if header["format"] != FORMAT:
        raise ValueError(
            f"{path} must have format {FORMAT}, got {header['format']}; read it with the version "
            f"of hypercircuit that wrote it ({header.get('version')}), or {again}"
        )
    return header, arrays
