"""Matrix product states of any origin as plain arrays: to and from quimb, and in HDF5 files.

A state is a sequence of tensors with axes (left, phys, right), the outer bonds 1, as
`ExactMPS.tensors` gives them; site 0 is the leftmost and the most significant bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._hdf5 import read_chain, write_chain
from .._quimb import chain_arrays, without_outer_bonds

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductState

_KIND = "MPS"
_AXES = ("left", "phys", "right")


def mps_to_quimb(tensors: Sequence[Any]) -> MatrixProductState:
    """quimb's state with the same amplitudes, from NumPy or JAX arrays.

    **Raises:** `ValueError` for tensors that are no chain.
    """
    from quimb.tensor import MatrixProductState

    arrays = [np.asarray(tensor) for tensor in tensors]
    _check_chain(arrays)
    return MatrixProductState(without_outer_bonds(arrays), shape="lpr")


def mps_from_quimb(mps: Any) -> tuple[np.ndarray, ...]:
    """The tensors of quimb's `MatrixProductState`, (left, phys, right), left to right.

    Index and tag names, the order of axes and of tensors are its own; nothing is normalised.

    **Raises:** `TypeError` for another object; `ValueError` for a chain that is periodic, skips
    sites or branches.
    """
    return tuple(chain_arrays(mps, ("site_ind",), "a MatrixProductState"))


def save_mps(path: str | os.PathLike[str], tensors: Sequence[Any]) -> None:
    """Write a state to an HDF5 file, one group per site, atomically.

    **Raises:** `ValueError` for tensors that are no chain.
    """
    arrays = [np.asarray(tensor) for tensor in tensors]
    _check_chain(arrays)
    write_chain(path, arrays, kind=_KIND, axes=_AXES)


def load_mps(path: str | os.PathLike[str]) -> tuple[np.ndarray, ...]:
    """Read what `save_mps` wrote.

    **Raises:** `FileNotFoundError`; `ValueError` for a file of another format, version or kind, or
    one that was cut off or altered.
    """
    tensors, _ = read_chain(path, kind=_KIND, axes=_AXES)
    _check_chain(tensors)
    return tuple(tensors)


def _check_chain(tensors: Sequence[np.ndarray]) -> None:
    if not tensors:
        raise ValueError("a state needs at least one tensor, got none")
    right = 1
    for site, tensor in enumerate(tensors):
        if tensor.ndim != 3 or tensor.shape[0] != right:
            raise ValueError(
                f"the tensor of site {site} must have axes (left, phys, right) with left={right}, "
                f"got shape {tensor.shape}"
            )
        right = tensor.shape[2]
    if right != 1:
        raise ValueError(f"the last tensor's right bond must be 1, got {right}")
