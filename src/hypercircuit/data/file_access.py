"""Reading the bytes of a data file, with one error type for all that can be wrong."""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np


class DataFileError(ValueError):
    """A data file is missing, damaged, or does not follow its format."""


class FileArray(NamedTuple):
    """Rows of an array in a file, and what error messages call them.

    Attributes:
        name: the path of the file, with the key of the array where there are several.
        values: the rows.
        first_row: position in the file of the first of them.
    """

    name: str
    values: np.ndarray
    first_row: int = 0


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, decompressed when its name ends in ".gz".

    Raises:
        DataFileError: if the file is missing or empty, or its gzip stream is damaged.
    """
    if not path.is_file():
        raise DataFileError(f"{path} must be a file, found none there; check the path")
    content = path.read_bytes()
    if path.suffix == ".gz" and content:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataFileError(
                f"{path} must be a complete gzip file, found a corrupt one ({error}); "
                "download it again, or remove .gz from the name if it is not compressed"
            ) from error
    if not content:
        raise DataFileError(f"{path} must hold data, found an empty file; download it again")
    return content
