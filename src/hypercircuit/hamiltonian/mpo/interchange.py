"""Diagonal operators to and from quimb, and in HDF5 files.

In quimb's `MatrixProductOperator` the tensor of a site carries a delta in its physical legs,

          |k                  k = b = w:  T[w]
    ----[ T ]----             k != b:     0
          |b

and its `MatrixProductState` holds the diagonal as a vector of 2^N amplitudes. Sites keep their
order: site 0 is the leftmost and the most significant bit.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._hdf5 import read_chain, write_chain
from ..._quimb import chain_arrays, without_outer_bonds
from .operator import DiagonalMPO

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator, MatrixProductState

_KIND = "diagonal MPO"
_AXES = ("left", "bit", "right")


def mpo_to_quimb(mpo: DiagonalMPO) -> MatrixProductOperator:
    """quimb's operator with the same entries on its diagonal and zeros elsewhere."""
    from quimb.tensor import MatrixProductOperator

    arrays = []
    for tensor in mpo.tensors:
        left, _, right = tensor.shape
        array = np.zeros((left, 2, 2, right), tensor.dtype)
        for bit in range(2):
            array[:, bit, bit] = tensor[:, bit]
        arrays.append(array)
    return MatrixProductOperator(without_outer_bonds(arrays), shape="ludr")


def diagonal_to_quimb(mpo: DiagonalMPO) -> MatrixProductState:
    """quimb's state whose 2^N amplitudes are the operator's entries; it is not normalised."""
    from quimb.tensor import MatrixProductState

    return MatrixProductState(without_outer_bonds(mpo.tensors), shape="lpr")


def mpo_from_quimb(network: Any, *, tolerance: float = 1e-10) -> DiagonalMPO:
    """The diagonal operator of quimb's operator, or of a state that holds a diagonal.

    **Arguments:**

    - `network`: `MatrixProductOperator` that is diagonal, or `MatrixProductState`; index and tag
      names, the order of axes and of tensors are its own.
    - `tolerance`: largest norm of its off-diagonal part in units of its norm (both
      Hilbert-Schmidt) that is left out.

    **Raises:** `TypeError` for another object; `ValueError` for an operator that is not diagonal, a
    physical dimension other than 2, complex tensors or a chain that is not open.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    is_operator = hasattr(network, "upper_ind")
    legs = ("upper_ind", "lower_ind") if is_operator else ("site_ind",)
    wanted = "a MatrixProductOperator or MatrixProductState"
    arrays = chain_arrays(network, legs, wanted)
    for site, array in enumerate(arrays):
        if array.shape[1:-1] != (2,) * len(legs):
            raise ValueError(
                f"site {site} has physical dimensions {array.shape[1:-1]}; a qubit has 2"
            )
        if np.iscomplexobj(array) and array.imag.any():
            raise ValueError(
                f"the tensor of site {site} has imaginary parts up to {np.abs(array.imag).max()}; "
                "a DiagonalMPO is real, turn the phases of its bonds away first"
            )
    arrays = [np.ascontiguousarray(array.real) for array in arrays]
    if is_operator:
        _check_diagonal(arrays, tolerance)
        arrays = [np.stack([a[:, 0, 0], a[:, 1, 1]], axis=1) for a in arrays]
    return DiagonalMPO(tuple(arrays))


def save_mpo(path: str | os.PathLike[str], mpo: DiagonalMPO, *, fingerprint: str = "") -> None:
    """Write an operator to an HDF5 file, one group per site, atomically.

    **Arguments:**

    - `fingerprint`: what the operator was made of, for example that of the data; kept with it.
    """
    attributes = {"fingerprint": fingerprint}
    write_chain(path, mpo.tensors, kind=_KIND, axes=_AXES, attributes=attributes)


def load_mpo(path: str | os.PathLike[str], *, fingerprint: str | None = None) -> DiagonalMPO:
    """Read what `save_mpo` wrote.

    **Arguments:**

    - `fingerprint`: refuse an operator that was saved with another one; any will do, if left out.

    **Raises:** `FileNotFoundError`; `ValueError` for a file of another format, version, kind or
    fingerprint, or one that was cut off or altered.
    """
    tensors, attributes = read_chain(path, kind=_KIND, axes=_AXES)
    found = attributes.get("fingerprint", "")
    if fingerprint is not None and found != fingerprint:
        raise ValueError(
            f"the operator in {path} was made of something else: its fingerprint is {found!r}, "
            f"expected {fingerprint!r}"
        )
    return DiagonalMPO(tuple(tensors))


def _check_diagonal(arrays: list[np.ndarray], tolerance: float) -> None:
    """Weigh the part with different bits at one site at least, by a sweep over squared norms."""
    off_entries = [np.abs(array[:, [0, 1], [1, 0]]).max() for array in arrays]
    if not any(off_entries):
        return
    diagonal, off = np.ones((1, 1)), np.zeros((1, 1))
    for array in arrays:
        same, different = array[:, [0, 1], [0, 1]], array[:, [0, 1], [1, 0]]
        off = _squared(off, same) + _squared(off, different) + _squared(diagonal, different)
        diagonal = _squared(diagonal, same)
        scale = max(np.abs(diagonal).max(), np.abs(off).max()) or 1.0
        diagonal, off = diagonal / scale, off / scale
    squared = max(float(off[0, 0]), 0.0)
    share = np.sqrt(squared / (squared + max(float(diagonal[0, 0]), 0.0) or 1.0))
    if share > tolerance:
        site = int(np.argmax(off_entries))
        difference = np.abs(arrays[site][:, [0, 1], [1, 0]])
        left, first, right = np.unravel_index(difference.argmax(), difference.shape)
        value = arrays[site][left, first, 1 - first, right]
        raise ValueError(
            f"the operator is not diagonal: the largest off-diagonal entry of its tensors is "
            f"{value} at site {site}, bits ({first}, {1 - first}), and its off-diagonal part has "
            f"{share:.3g} of its norm; tolerance is {tolerance}"
        )


def _squared(vector: np.ndarray, tensor: np.ndarray) -> np.ndarray:
    """Move a doubled bond over a tensor (left, entry, right)."""
    half = np.tensordot(vector, tensor, axes=1)
    return np.tensordot(tensor, half, axes=((0, 1), (0, 1)))
