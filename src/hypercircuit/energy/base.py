"""What every kind of energy offers to the training loop."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._precision import check_precision
from .._types import Angles, AnyArray
from ..circuit import Ansatz, Chain, ExactChain, FreeMPS, Graph, Truncated
from ..hamiltonian import LossHamiltonian
from ..state import State, prepare_state

_COMPLETE = "set train.batch_size=0, or take energy.kind='exact'"


class Batch(eqx.Module):
    """Examples laid out for one kind of energy; `weights` sum to one over a whole pass."""

    weights: eqx.AbstractVar[Float[AnyArray, " n"]]


class PreparedEnergy(abc.ABC):
    """An energy of fixed shapes: `batch` runs on the host, `of_state` under jit.

    **Arguments:**

    - `hamiltonian`: the compiled loss.
    - `circuit`: the hypercircuit, or a free MPS.
    - `batch_size`: examples per batch.
    - `dtype`: float32 or float64 (which needs JAX's x64 mode).

    **Raises:** `ValueError` for a circuit on a graph, if this kind of energy takes chains only, and
    for a truncated or free state, if it takes exact ones only.
    """

    #: Whether circuits on graphs are evaluated.
    graphs: ClassVar[bool] = False
    #: Whether states of site tensors are, those of `Truncated` and `FreeMPS`.
    site_tensors: ClassVar[bool] = False
    #: Whether `of_state` takes more from an exact state than the bits' cumulants.
    takes_maps: ClassVar[bool] = True

    def __init__(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Ansatz,
        batch_size: int,
        dtype: np.dtype,
    ) -> None:
        if isinstance(circuit, Graph) and not self.graphs:
            raise ValueError(
                f"{type(self).__name__} takes chains (Brickwork), got a {circuit.describe()}; use "
                "Contraction(), energy.kind='contraction'"
            )
        if isinstance(circuit, (Truncated, FreeMPS)) and not self.site_tensors:
            raise ValueError(
                f"{type(self).__name__} takes exact states (Brickwork), got "
                f"{type(circuit).__name__}; for states of bounded bond use Exact(), Cumulant() or "
                "Sampled(), energy.kind='exact', 'cumulant' or 'sampled'"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.hamiltonian = hamiltonian
        # Those that take chains only work with the chain's own attributes.
        self.circuit: ExactChain = circuit  # type: ignore[assignment]
        self.batch_size = batch_size
        self.dtype = check_precision(dtype)

    @property
    def cumulant_order(self) -> int:
        """Of the bits' cumulants that `of_state` takes from an exact state, 0 if it takes none."""
        return 0

    @abc.abstractmethod
    def batch(self, examples: np.ndarray, weights: np.ndarray | None = None) -> Batch:
        """Lay out the examples with these row numbers, at most `batch_size` of them."""

    def with_key(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        """The batch with the randomness of `key`, under jit; without any it stays as it is."""
        return batch

    @abc.abstractmethod
    def of_state(self, mps: State, batch: Batch) -> Float[Array, " n"]:
        """The energy of every example of a batch in a state; pure and differentiable."""

    def per_example(self, params: Angles, batch: Batch) -> Float[Array, " n"]:
        """The energy of every example in the state that the circuit makes of `params`."""
        return self.of_state(prepare_state(self.circuit, params), batch)

    def __call__(self, params: Angles, batch: Batch) -> Float[Array, ""]:
        """The batch's weighted energy: an unbiased estimate of the full-data energy."""
        return jnp.sum(batch.weights * self.per_example(params, batch))

    def filled(
        self, examples: np.ndarray, weights: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pad to `batch_size` rows by repeating the first one with weight zero."""
        n = len(examples)
        if not 1 <= n <= self.batch_size:
            raise ValueError(f"a batch takes 1 to {self.batch_size} examples, got {n}")
        if weights is None:
            weights = np.full(n, 1 / n)
        missing = self.batch_size - n
        padded = np.concatenate([examples, np.repeat(examples[:1], missing)])
        return padded, np.concatenate([weights, np.zeros(missing)]).astype(self.dtype)

    def batches(self, examples: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
        """All `examples` in batches, with weights that make the batches' energies add up."""
        for start in range(0, len(examples), self.batch_size):
            rows = examples[start : start + self.batch_size]
            yield rows, self.batch(rows, np.full(len(rows), 1 / len(examples)))

    def value_function(self) -> Callable[[Angles, Batch], jax.Array]:
        """`per_example`, compiled."""
        return jax.jit(self.per_example)


class CompleteEnergy(PreparedEnergy):
    """An energy of all the examples at once, which knows no minibatches.

    **Raises:** `ValueError` for another batch size.
    """

    def __init__(
        self, hamiltonian: LossHamiltonian, circuit: Chain, batch_size: int, dtype: np.dtype
    ) -> None:
        super().__init__(hamiltonian, circuit, batch_size, dtype)
        if batch_size != hamiltonian.n_examples:
            raise ValueError(
                f"batch_size must be {hamiltonian.n_examples}, all the examples, got {batch_size}; "
                f"this energy has no minibatches: {_COMPLETE}"
            )

    @abc.abstractmethod
    def whole(self) -> Batch:
        """The one batch there is."""

    def check_complete(self, examples: np.ndarray, weights: np.ndarray | None) -> None:
        """Raise `ValueError` unless every example is there once, all of one weight."""
        n_examples = self.hamiltonian.n_examples
        if not np.array_equal(np.sort(examples), np.arange(n_examples)):
            raise ValueError(
                f"examples must be all {n_examples} of them, each once, got {len(examples)}; "
                f"this energy has no minibatches: {_COMPLETE}"
            )
        if weights is not None and not np.allclose(weights, 1 / n_examples):
            raise ValueError(
                f"weights must all be 1/{n_examples}, got {np.min(weights)} to {np.max(weights)}; "
                "this energy is the plain mean: take energy.kind='exact' for another"
            )


@runtime_checkable
class EnergyKind(Protocol):
    """A strategy that evaluates energies, such as `Exact()` or `Cumulant()`."""

    @property
    def name(self) -> str: ...

    def prepare(
        self,
        hamiltonian: LossHamiltonian,
        circuit: Chain,
        *,
        batch_size: int,
        dtype: np.dtype | type = ...,
    ) -> PreparedEnergy: ...
