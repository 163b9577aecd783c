"""The one check that float64 was meant."""

from __future__ import annotations

import jax
import numpy as np


def check_precision(dtype: np.dtype | type | str) -> np.dtype:
    """The dtype as NumPy's.

    **Raises:** `ValueError` for float64 while JAX would make float32 of it, or another type.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    if dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "float64 needs jax.config.update('jax_enable_x64', True) before any array is made; "
            "or use float32"
        )
    return dtype
