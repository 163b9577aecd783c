"""Chains of tensors in HDF5 files.

    /                    attributes: format, format_version, kind, axes, n_sites and those added;
                         sha256, of the attributes before it and all tensors
    /site_000000/tensor  the tensor of site 0
    /site_000001/tensor  ...

Sites are numbered from the left, site 0 being the most significant bit; sorted names are in site
order. A file is written under another name first, so that a reader never meets half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ._files import write_atomically

FORMAT = "hypercircuit chain"
FORMAT_VERSION = 2
#: What h5py raises for files that were cut off or altered.
_DAMAGES = (OSError, KeyError, RuntimeError, TypeError, AttributeError, UnicodeDecodeError)


def write_chain(
    path: str | os.PathLike[str],
    tensors: Sequence[np.ndarray],
    *,
    kind: str,
    axes: Sequence[str],
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write one group per site.

    **Arguments:**

    - `kind`: what the chain is; only the same kind is read back.
    - `axes`: names of a tensor's axes.
    - `attributes`: more of them for the file.
    """
    import h5py

    arrays = [np.asarray(tensor) for tensor in tensors]
    head: dict[str, str | int] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "axes": ",".join(axes),
        "n_sites": len(arrays),
        **(attributes or {}),
    }
    digest = _digest({name: str(value) for name, value in head.items()}, arrays)

    def fill(file: BinaryIO) -> None:
        with h5py.File(file.name, "w") as store:
            store.attrs.update({**head, "sha256": digest})
            for site, array in enumerate(arrays):
                group = store.create_group(_site_name(site))
                group.create_dataset("tensor", data=array).attrs["axes"] = ",".join(axes)

    write_atomically(path, fill)


def read_chain(
    path: str | os.PathLike[str], *, kind: str, axes: Sequence[str]
) -> tuple[list[np.ndarray], dict[str, str]]:
    """The tensors in site order and the file's attributes.

    **Raises:** `FileNotFoundError`; `ValueError` for a file that is not HDF5, not of this format,
    version, kind or axes, that lacks sites, was cut off or altered.
    """
    import h5py

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file")
    try:
        arrays, found = _read(path, kind, axes)
    except _DAMAGES as error:
        raise ValueError(f"{path} is damaged ({error}); write it again") from error
    digest = found.pop("sha256", None)
    if digest != _digest(found, arrays):
        raise ValueError(
            f"{path} has been altered since it was written: its content does not have the digest "
            "that stands in it; write it again"
        )
    return arrays, found


def _read(
    path: str | os.PathLike[str], kind: str, axes: Sequence[str]
) -> tuple[list[np.ndarray], dict[str, str]]:
    """The tensors and the attributes as they stand in the file."""
    import h5py

    with h5py.File(path, "r") as store:
        found = {name: str(value) for name, value in store.attrs.items()}
        expected = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "kind": kind,
            "axes": ",".join(axes),
        }
        for name, value in expected.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{path} has {name} {found.get(name, 'none')!r}; expected {value!r}"
                )
        names = [_site_name(site) for site in range(int(found["n_sites"]))]
        missing = [name for name in names if f"{name}/tensor" not in store]
        if missing or len(store) != len(names):
            raise ValueError(
                f"{path} names {len(names)} sites, but holds {len(store)} and lacks "
                f"{missing[0] if missing else 'none'}; it is damaged, write it again"
            )
        return [store[name]["tensor"][()] for name in names], found


def _digest(attributes: Mapping[str, str], arrays: Sequence[np.ndarray]) -> str:
    """Of names and values of attributes, and kind, shape and entries of arrays."""
    digest = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _site_name(site: int) -> str:
    return f"site_{site:06d}"
