"""Activation functions of hidden neurons, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: An array of NumPy or JAX.
AnyArray = Any


def namespace(values: AnyArray) -> Any:
    """`jax.numpy` for JAX arrays and `numpy` for all others."""
    return jnp if isinstance(values, jax.Array) else np


def _sign(z: AnyArray) -> AnyArray:
    xp = namespace(z)
    return xp.where(z >= 0, xp.ones_like(z), -xp.ones_like(z))


def _relu(z: AnyArray) -> AnyArray:
    return namespace(z).maximum(z, 0)


def _sigmoid(z: AnyArray) -> AnyArray:
    return 0.5 * (1 + namespace(z).tanh(0.5 * z))


def _tanh(z: AnyArray) -> AnyArray:
    return namespace(z).tanh(z)


def _hardtanh(z: AnyArray) -> AnyArray:
    return namespace(z).clip(z, -1, 1)


#: Functions of the pre-activation, for NumPy and JAX arrays. ``sign(0)`` is +1, so that a sign
#: neuron is never silent.
ACTIVATIONS: dict[str, Callable[[AnyArray], AnyArray]] = {
    "sign": _sign,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "hardtanh": _hardtanh,
}


def check_activation(name: str) -> str:
    """Return `name` if it is known.

    **Raises:** `ValueError` with the nearest known name.
    """
    if name not in ACTIVATIONS:
        near = difflib.get_close_matches(name, ACTIVATIONS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}; "
            f"did you mean {near!r}?"
        )
    return name
