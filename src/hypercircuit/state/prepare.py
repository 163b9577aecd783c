"""From an ansatz and its parameters to a matrix product state."""

from __future__ import annotations

from typing import TypeAlias

from .._types import Angles
from ..circuit import Ansatz, FreeMPS, Truncated
from .chain import ChainMPS, chain_mps
from .exact import ExactMPS, exact_mps
from .truncated import truncated_mps

#: A state as a chain of cells, exact, or of site tensors.
State: TypeAlias = ExactMPS | ChainMPS


def prepare_state(ansatz: Ansatz, params: Angles) -> State:
    """The state that an ansatz makes of `params`; differentiable, jit-compatible.

    A `Brickwork` is exact, `Truncated` keeps a bounded bond, `FreeMPS` is its own tensors.

    **Raises:** `ValueError` for a graph, which has no matrix product state here.
    """
    if isinstance(ansatz, FreeMPS):
        return chain_mps(ansatz.tensors(params))
    if isinstance(ansatz, Truncated):
        return truncated_mps(ansatz, params)
    return exact_mps(ansatz, params)
