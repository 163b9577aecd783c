"""NumPy .npz archives of examples, read without pickle."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from .file_access import DataFileError, FileArray, read_bytes

_UNREADABLE = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """All arrays of an .npz archive by name; pickled objects are refused.

    Raises:
        DataFileError: if the file is missing, empty, damaged, or holds pickled objects.
    """
    content = io.BytesIO(read_bytes(path))
    if not zipfile.is_zipfile(content):
        raise DataFileError(
            f"{path} must be an .npz archive, found a corrupt file or another format; "
            "write it with np.savez_compressed"
        )
    content.seek(0)
    arrays = {}
    try:
        with np.load(content, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = np.asarray(archive[name])
    except _UNREADABLE as error:
        raise DataFileError(
            f"{path} must hold plain arrays, found one that cannot be read ({error}); "
            "write numbers, not objects, with np.savez_compressed"
        ) from error
    return arrays


def train_and_test_arrays(
    path: Path, arrays: Mapping[str, np.ndarray]
) -> tuple[tuple[FileArray, FileArray], tuple[FileArray, FileArray]]:
    """The (images, labels) pairs for training and test, by either set of keys.

    Keys x_train, y_train, x_test, y_test hold the four arrays. Keys x, y hold all rows,
    training rows first: n_train of them, or without that key all but the last seventh.

    Raises:
        DataFileError: if keys are missing, lengths differ, or n_train is out of range.
    """

    def rows(key: str, first: int = 0, last: int | None = None) -> FileArray:
        values = arrays[key] if first == 0 and last is None else arrays[key][first:last]
        return FileArray(f"{path}[{key}]", values, first)

    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        return (rows("x_train"), rows("y_train")), (rows("x_test"), rows("y_test"))
    if not {"x", "y"} <= arrays.keys():
        raise DataFileError(
            f"{path} must hold the keys x, y or x_train, y_train, x_test, y_test, "
            f"found {', '.join(sorted(arrays)) or 'no key'}; rename the arrays"
        )
    x, y = arrays["x"], arrays["y"]
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataFileError(
            f"{path} must hold one label an image, found x of shape {x.shape} and y of shape "
            f"{y.shape}; write rows of both in the same order"
        )
    n_train = _n_train(path, arrays.get("n_train"), len(x))
    return (rows("x", 0, n_train), rows("y", 0, n_train)), (rows("x", n_train), rows("y", n_train))


def _n_train(path: Path, n_train: np.ndarray | None, n_examples: int) -> int:
    if n_examples < 2:
        raise DataFileError(
            f"{path} must hold at least 2 examples, one to train and one to test, "
            f"found {n_examples}; add examples"
        )
    if n_train is None:
        return n_examples - max(1, n_examples // 7)
    if n_train.size != 1 or n_train.dtype.kind not in "iu" or not 1 <= n_train < n_examples:
        raise DataFileError(
            f"{path} must hold n_train as one integer in 1..{n_examples - 1}, "
            f"found {n_train.tolist()}; leave it out to test on the last seventh"
        )
    return int(n_train.item())
