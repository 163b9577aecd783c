"""Losses per example as functions of the logits, in nats (squared error: logits squared)."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from ..bnn import Network
from ..data import Dataset


class Loss(abc.ABC):
    """A loss that compiles to a Hamiltonian; its classical value is its definition."""

    name: ClassVar[str]

    @abc.abstractmethod
    def value(
        self,
        logits: Float[np.ndarray, "*batch n_examples n_outputs"],
        y: Int[np.ndarray, " n_examples"],
    ) -> Float[np.ndarray, "*batch n_examples"]:
        """The loss of every example."""

    @abc.abstractmethod
    def predict(self, logits: Float[np.ndarray, "*batch n_outputs"]) -> Int[np.ndarray, "*batch"]:
        """The predicted labels."""

    @abc.abstractmethod
    def check(self, network: Network, data: Dataset) -> None:
        """Raise `ValueError` if the loss does not fit the network's outputs and the labels."""


@dataclasses.dataclass(frozen=True)
class Softmax(Loss):
    """Cross-entropy ``log sum_c exp(z_c) - z_y``, one output per class."""

    name: ClassVar[str] = "softmax"

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        highest = logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(logits - highest).sum(-1)) + highest[..., 0]
        return log_sum - _pick(logits, y)

    def predict(self, logits):  # type: ignore[no-untyped-def]
        return logits.argmax(-1)

    def check(self, network: Network, data: Dataset) -> None:
        if network.n_outputs != data.n_classes or network.n_outputs < 2:
            raise ValueError(
                "the softmax loss needs one output per class, got "
                f"{network.n_outputs} outputs for {data.n_classes} classes; "
                "for two classes and one output use Logistic()"
            )


@dataclasses.dataclass(frozen=True)
class Logistic(Loss):
    """Binary cross-entropy ``log(1 + exp(-(2 y - 1) z))`` of one output and labels 0, 1."""

    name: ClassVar[str] = "logistic"

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        return np.logaddexp(0, (1 - 2 * y).astype(logits.dtype) * logits[..., 0])

    def predict(self, logits):  # type: ignore[no-untyped-def]
        return (logits[..., 0] > 0).astype(np.int64)

    def check(self, network: Network, data: Dataset) -> None:
        if network.n_outputs != 1 or data.n_classes != 2:
            raise ValueError(
                "the logistic loss needs one output and two classes, got "
                f"{network.n_outputs} outputs and {data.n_classes} classes; "
                "for more classes use Softmax()"
            )


@dataclasses.dataclass(frozen=True)
class SquaredError(Loss):
    """``sum_c (z_c - t_c)^2``: t is one-hot, or -1 and +1 for one output and two classes."""

    name: ClassVar[str] = "squared"

    def value(self, logits, y):  # type: ignore[no-untyped-def]
        return ((logits - self.targets(y, logits.shape[-1])) ** 2).sum(-1)

    def predict(self, logits):  # type: ignore[no-untyped-def]
        if logits.shape[-1] == 1:
            return (logits[..., 0] > 0).astype(np.int64)
        return logits.argmax(-1)

    def targets(
        self, y: Int[np.ndarray, " n_examples"], n_outputs: int
    ) -> Float[np.ndarray, "n_examples n_outputs"]:
        """What each output should be."""
        if n_outputs == 1:
            return (2.0 * y - 1.0)[:, None].astype(np.float32)
        return (y[:, None] == np.arange(n_outputs)).astype(np.float32)

    def check(self, network: Network, data: Dataset) -> None:
        fits = network.n_outputs == (1 if data.n_classes == 2 else data.n_classes)
        if not (fits or network.n_outputs == data.n_classes):
            raise ValueError(
                "the squared error needs one output per class, or one output for two classes, "
                f"got {network.n_outputs} outputs for {data.n_classes} classes"
            )


LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in (Softmax, Logistic, SquaredError)}


def _pick(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    index = np.broadcast_to(y[:, None], (*logits.shape[:-1], 1))
    return np.take_along_axis(logits, index, axis=-1)[..., 0]
