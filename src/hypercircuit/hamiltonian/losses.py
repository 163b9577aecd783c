"""Losses per example as functions of the logits, for NumPy and JAX arrays alike.

How a loss is built decides how it compiles:

    outputs     a sum over outputs of a function of that output's logit and its target
    pairs       a sum over the wrong classes c of a function of z_y - z_c
    joint       a function of all logits, made of products over outputs by an integral or a sum
    quadratic   first and second moments of the outputs are all it takes

An output's target is 1 for the example's class and 0 for the others; a network with one output
for two classes has the label itself as its target.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from .._types import AnyArray
from ..bnn import Network
from ..bnn.activation import namespace
from ..data import Dataset


class Loss(abc.ABC):
    """A loss that compiles to a Hamiltonian; its classical value is its definition.

    **Attributes:**

    - `name`: what configurations call it.
    - `unit`: the unit of its values.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "nats"

    @abc.abstractmethod
    def form(self, n_outputs: int) -> str:
        """`"outputs"`, `"pairs"`, `"joint"` or `"quadratic"`, see the module's text."""

    @abc.abstractmethod
    def value(
        self,
        logits: Float[AnyArray, "*batch n_examples n_outputs"],
        y: Int[AnyArray, " n_examples"],
    ) -> Float[AnyArray, "*batch n_examples"]:
        """The loss of every example; NumPy or JAX, as `logits` are."""

    def predict(self, logits: Float[AnyArray, "*batch n_outputs"]) -> Int[AnyArray, "*batch"]:
        """The predicted labels: the largest logit, or whether a single one is positive."""
        if logits.shape[-1] == 1:
            return (logits[..., 0] > 0).astype(int)
        return logits.argmax(-1)

    def check(self, network: Network, data: Dataset) -> None:
        """Raise `ValueError` if the loss does not fit the network's outputs and the labels."""
        fits = network.n_outputs == data.n_classes or (network.n_outputs, data.n_classes) == (1, 2)
        if not fits:
            raise ValueError(
                f"the {self.name} loss needs one output per class, or one output for two classes, "
                f"got {network.n_outputs} outputs for {data.n_classes} classes"
            )


class OutputLoss(Loss):
    """A sum over outputs of one function of the logit per target, 0 or 1."""

    #: Bounds on the second derivative (or, with a kink, on the first) in z; None where there is
    #: no bound.
    curvature: ClassVar[float | None] = None
    slope: ClassVar[float | None] = None

    def form(self, n_outputs: int) -> str:
        return "outputs"

    @abc.abstractmethod
    def pointwise(self, z: Float[Any, "*shape"]) -> Float[Any, "*shape 2"]:
        """The loss of one output for target 0 and for target 1; NumPy or JAX."""

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        both = self.pointwise(logits.reshape(-1)).reshape(*logits.shape, 2)
        chosen = output_targets(y, logits.shape[-1])
        return namespace(logits).where(chosen, both[..., 1], both[..., 0]).sum(-1)


@dataclasses.dataclass(frozen=True)
class Softmax(Loss):
    """Cross-entropy ``log sum_c exp(z_c) - z_y``, one output per class."""

    name: ClassVar[str] = "softmax"

    def form(self, n_outputs: int) -> str:
        return "joint"

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        xp = namespace(logits)
        highest = logits.max(-1, keepdims=True)
        log_sum = xp.log(xp.exp(logits - highest).sum(-1)) + highest[..., 0]
        return log_sum - _pick(logits, y)

    def check(self, network: Network, data: Dataset) -> None:
        if network.n_outputs != data.n_classes or network.n_outputs < 2:
            raise ValueError(
                "the softmax loss needs one output per class, got "
                f"{network.n_outputs} outputs for {data.n_classes} classes; "
                "for two classes and one output use Logistic()"
            )


@dataclasses.dataclass(frozen=True)
class Logistic(OutputLoss):
    """Cross-entropy ``log(1 + exp(-s z))`` with s = +1 for target 1 and -1 for target 0.

    With several outputs it is the one-vs-rest loss, a sum over outputs.
    """

    name: ClassVar[str] = "logistic"
    curvature: ClassVar[float | None] = 0.25

    def pointwise(self, z: Any) -> Any:
        xp = namespace(z)
        zero = xp.zeros((), z.dtype)
        return xp.stack([xp.logaddexp(zero, z), xp.logaddexp(zero, -z)], axis=-1)


@dataclasses.dataclass(frozen=True)
class SigmoidSquared(OutputLoss):
    """``(sigmoid(z) - t)^2``, summed over outputs: the loss of the published Gaussian task."""

    name: ClassVar[str] = "sigmoid-squared"
    unit: ClassVar[str] = "squared probability"
    # |f''| <= 2 max s'^2 + 2 max |s''| with s' <= 1/4 and |s''| <= 0.0963.
    curvature: ClassVar[float | None] = 0.318

    def pointwise(self, z: Any) -> Any:
        xp = namespace(z)
        probability = 0.5 * (1 + xp.tanh(0.5 * z))
        return xp.stack([probability**2, (1 - probability) ** 2], axis=-1)


@dataclasses.dataclass(frozen=True)
class Hinge(OutputLoss):
    """``max(0, 1 - s z)`` with s = +1 for target 1 and -1 for target 0, summed over outputs."""

    name: ClassVar[str] = "hinge"
    unit: ClassVar[str] = "logits"
    slope: ClassVar[float | None] = 1.0

    def pointwise(self, z: Any) -> Any:
        xp = namespace(z)
        return xp.stack([xp.maximum(0, 1 + z), xp.maximum(0, 1 - z)], axis=-1)


@dataclasses.dataclass(frozen=True)
class SquaredHinge(OutputLoss):
    """``max(0, 1 - s z)^2`` with s = +1 for target 1 and -1 for target 0, summed over outputs."""

    name: ClassVar[str] = "squared-hinge"
    unit: ClassVar[str] = "squared logits"
    curvature: ClassVar[float | None] = 2.0

    def pointwise(self, z: Any) -> Any:
        xp = namespace(z)
        return xp.stack([xp.maximum(0, 1 + z) ** 2, xp.maximum(0, 1 - z) ** 2], axis=-1)


@dataclasses.dataclass(frozen=True)
class PairwiseLogistic(Loss):
    """``sum_{c != y} log(1 + exp(-(z_y - z_c)))``, one output per class."""

    name: ClassVar[str] = "pairwise-logistic"

    def form(self, n_outputs: int) -> str:
        return "pairs"

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        xp = namespace(logits)
        own = _pick(logits, y)[..., None]
        each = xp.logaddexp(xp.zeros((), logits.dtype), logits - own)
        return xp.where(output_targets(y, logits.shape[-1]), 0, each).sum(-1)

    def pointwise(self, gap: Any) -> Any:
        """The loss of one gap z_c - z_y and of one gap z_y - z_c; NumPy or JAX."""
        return Logistic().pointwise(gap)

    def check(self, network: Network, data: Dataset) -> None:
        if network.n_outputs != data.n_classes or network.n_outputs < 2:
            raise ValueError(
                "the pairwise-logistic loss needs one output per class, got "
                f"{network.n_outputs} outputs for {data.n_classes} classes; "
                "for two classes and one output use Logistic()"
            )


@dataclasses.dataclass(frozen=True)
class SquaredError(Loss):
    """``sum_c (z_c - t_c)^2``: t is one-hot, or -1 and +1 for one output and two classes."""

    name: ClassVar[str] = "squared"
    unit: ClassVar[str] = "squared logits"

    def form(self, n_outputs: int) -> str:
        return "quadratic"

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        return ((logits - self.targets(y, logits.shape[-1])) ** 2).sum(-1)

    def targets(
        self, y: Int[AnyArray, " n_examples"], n_outputs: int
    ) -> Float[AnyArray, "n_examples n_outputs"]:
        """What each output should be."""
        if n_outputs == 1:
            return (2.0 * y - 1.0)[:, None].astype(np.float32)
        return output_targets(y, n_outputs).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ZeroOne(Loss):
    """The classification error: 0 where the true class has the largest logit alone, else 1.

    With one output it is 0 where the label is `predict`'s; ties of several outputs are errors.
    """

    name: ClassVar[str] = "zero-one"
    unit: ClassVar[str] = "error rate"

    def form(self, n_outputs: int) -> str:
        return "outputs" if n_outputs == 1 else "joint"

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        if logits.shape[-1] == 1:
            return (self.predict(logits) != y).astype(logits.dtype)
        own = _pick(logits, y)[..., None]
        beaten = output_targets(y, logits.shape[-1]) | (logits < own)
        return (~beaten.all(-1)).astype(logits.dtype)

    def pointwise(self, z: Any) -> Any:
        """The error of a single output for label 0 and for label 1."""
        return namespace(z).stack([z > 0, z <= 0], axis=-1).astype(z.dtype)


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss
    for loss in (
        Softmax,
        Logistic,
        PairwiseLogistic,
        SquaredError,
        SigmoidSquared,
        Hinge,
        SquaredHinge,
        ZeroOne,
    )
}


def output_targets(
    y: Int[AnyArray, " n_examples"], n_outputs: int
) -> Bool[AnyArray, "n_examples n_outputs"]:
    """Whether each output's target is 1, (n_examples, n_outputs)."""
    if n_outputs == 1:
        return (y == 1)[:, None]
    return y[:, None] == np.arange(n_outputs)


def _pick(logits: Any, y: Any) -> Any:
    """The logit of every example's own class."""
    xp = namespace(logits)
    index = xp.broadcast_to(y[:, None], (*logits.shape[:-1], 1))
    return xp.take_along_axis(logits, index, axis=-1)[..., 0]
