"""The IDX array format, in which MNIST and its relatives are distributed.

    byte   0 1       2             3        4 ...              4 + 4 ndim ...
           0 0   type code   ndim = rank   ndim big-endian    big-endian elements,
                                           uint32 sizes       last axis fastest

Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from .file_access import DataFileError, read_bytes

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> Shaped[np.ndarray, "..."]:
    """Read one IDX file into an array of its own shape, in the native byte order.

    Args:
        path: the file; decompressed when its name ends in ".gz".

    Returns:
        A uint8, int8, int16, int32, float32 or float64 array.

    Raises:
        DataFileError: if the file is missing, empty, damaged, not IDX, shorter or longer
            than its header states.
    """
    path = Path(path)
    content = read_bytes(path)
    if content[:2] != b"\0\0" or len(content) < 4 or content[2] not in _DTYPES or not content[3]:
        raise DataFileError(
            f"{path} must start with the IDX magic number (0, 0, type code, rank of at least 1), "
            f"found {tuple(content[:4])}; a gzip file needs .gz at the end of its name"
        )
    dtype, rank = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataFileError(
            f"{path} must have a header of {start} bytes for rank {rank}, "
            f"found a truncated file of {len(content)}; download it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    expected, found = math.prod(shape) * dtype.itemsize, len(content) - start
    if found != expected:
        raise DataFileError(
            f"{path} must hold {expected} bytes of elements for shape {shape}, "
            f"found {found}, a {'truncated' if found < expected else 'longer'} file; "
            "download it again"
        )
    elements = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return elements.astype(dtype.newbyteorder("="))
