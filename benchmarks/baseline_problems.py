"""The networks, data and scores that every method in ``baselines.py`` shares, in plain NumPy.

A network is a list of tables of -1 and +1, one per layer, of shape (outputs, inputs + 1). The last
column is the bias, so every layer's input has a last entry of 1:

    linear    z = 0.3 table_0 [x, 1]                              grey pixels in [0, 1]
    hidden    z = 0.2 table_1 [sign(table_0 [x, 1]), 1]           pixels 0 or 1, sign(0) = +1
"""

import dataclasses
import time
from typing import NamedTuple

import numpy as np

N_PIXELS, N_CLASSES = 784, 10
THRESHOLD = 127
"""Raw pixels above it are 1 in the hidden network's inputs, all others 0."""
ROWS_AT_ONCE = 11_000

Tables = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A binary network's shape.

    Attributes:
        name: what the command line calls it.
        widths: inputs, hidden units if there are any, outputs.
        logit_scale: positive factor on the outputs.
        binary_pixels: whether pixels are thresholded; otherwise they are grey, in [0, 1].
    """

    name: str
    widths: tuple[int, ...]
    logit_scale: float
    binary_pixels: bool

    @property
    def shapes(self):
        """Shapes of the tables, the bias column included."""
        return [(out, width + 1) for width, out in zip(self.widths, self.widths[1:], strict=False)]


NETWORKS = {
    "linear": NetworkSpec("linear", (N_PIXELS, N_CLASSES), 0.3, binary_pixels=False),
    "hidden": NetworkSpec("hidden", (N_PIXELS, 64, N_CLASSES), 0.2, binary_pixels=True),
}


class Part(NamedTuple):
    """Examples with a last input of 1, float32 (n, inputs + 1), and labels (n,)."""

    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network to train and its data.

    Attributes:
        spec: the network.
        loss: name of the loss to train on, of ``LOSSES``.
        splits: the package's data sets, pixels transformed.
        train, validation, test: the same examples as arrays.
    """

    spec: NetworkSpec
    loss: str
    splits: object
    train: Part
    validation: Part
    test: Part


def load_problem(network, loss):
    """Load full MNIST (55,000, 5,000 and 10,000 examples) as the network's inputs."""
    import hypercircuit

    spec = NETWORKS[network]

    def transform(dataset):
        if spec.binary_pixels:
            return hypercircuit.binarise(dataset, THRESHOLD)
        return hypercircuit.scale_pixels(dataset)

    splits = hypercircuit.map_splits(hypercircuit.load_mnist(), transform)
    parts = [
        Part(with_ones(part.x.astype(np.float32)), part.y)
        for part in (splits.train, splits.validation, splits.test)
    ]
    return Problem(spec, loss, splits, *parts)


# ---------------------------------------------------------------- forward pass, losses


def with_ones(x):
    """Append an input that is always 1."""
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


def to_signs(values):
    """Return +1 where a value is at least 0 and -1 elsewhere, float32."""
    return np.where(values >= 0, np.float32(1), np.float32(-1))


def random_tables(spec, rng):
    """Draw every weight and bias as -1 or +1, with equal odds."""
    return [rng.choice(np.array([-1, 1], np.float32), shape) for shape in spec.shapes]


def logits(spec, tables, x):
    """Return the outputs (n, n_classes) of a network; x has its column of ones."""
    for table in tables[:-1]:
        x = with_ones(to_signs(x @ table.T))
    return np.float32(spec.logit_scale) * (x @ tables[-1].T)


def softmax_loss(z, y):
    """Cross-entropy log sum_c exp(z_c) - z_y of logits (n_classes, n), nats per example."""
    highest = z.max(axis=0)
    return np.log(np.exp(z - highest).sum(axis=0)) + highest - z[y, np.arange(len(y))]


def one_vs_rest_loss(z, y):
    """Sum over outputs of log(1 + exp(-s_c z_c)), s_c = +1 for the label's output, else -1.

    Its arguments are those of ``softmax_loss``. log(1 + exp(z)) - z = log(1 + exp(-z)).
    """
    losses = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
    return losses.sum(axis=0) - z[y, np.arange(len(y))]


LOSSES = {"softmax": softmax_loss, "one-vs-rest": one_vs_rest_loss}


# ---------------------------------------------------------------- scores


def score_part(spec, tables, part):
    """Return both mean losses, in nats per example, and the accuracy on one part of the data."""
    totals = np.zeros(3)
    for start in range(0, len(part.y), ROWS_AT_ONCE):
        y = part.y[start : start + ROWS_AT_ONCE]
        z = logits(spec, tables, part.x[start : start + ROWS_AT_ONCE]).T.astype(np.float64)
        totals += (softmax_loss(z, y).sum(), one_vs_rest_loss(z, y).sum(), (z.argmax(0) == y).sum())
    return totals / len(part.y)


def score(problem, tables):
    """Return the training losses and all accuracies of a binary network, as entries of a row."""
    assert all(np.isin(table, (-1, 1)).all() for table in tables), "weights must be -1 or +1"
    found = [
        score_part(problem.spec, tables, part)
        for part in (problem.train, problem.validation, problem.test)
    ]
    return _entries(*found)


def score_ensemble(problem, networks):
    """Return the same entries for the mean predicted probabilities of several networks."""
    found = []
    for part in (problem.train, problem.validation, problem.test):
        softmax = np.zeros((N_CLASSES, len(part.y)))
        logistic = np.zeros((N_CLASSES, len(part.y)))
        for tables in networks:
            z = logits(problem.spec, tables, part.x).T.astype(np.float64)
            exponentials = np.exp(z - z.max(axis=0))
            softmax += exponentials / exponentials.sum(axis=0) / len(networks)
            logistic += 1 / (1 + np.exp(-z)) / len(networks)
        right = np.arange(N_CLASSES)[:, None] == part.y
        tiny = np.finfo(np.float64).tiny
        one_vs_rest = -np.log(np.maximum(np.where(right, logistic, 1 - logistic), tiny)).sum(0)
        cross_entropy = -np.log(np.maximum(softmax[right.argmax(0), np.arange(len(part.y))], tiny))
        hits = softmax.argmax(axis=0) == part.y
        found.append(np.array([cross_entropy.mean(), one_vs_rest.mean(), hits.mean()]))
    return _entries(*found)


def _entries(train, validation, test):
    return {
        "softmax_loss": float(train[0]),
        "one_vs_rest_loss": float(train[1]),
        "train_accuracy": float(train[2]),
        "validation_softmax_loss": float(validation[0]),
        "validation_one_vs_rest_loss": float(validation[1]),
        "validation_accuracy": float(validation[2]),
        "test_accuracy": float(test[2]),
    }


class Clock:
    """Wall time of one training run, from the moment it is made."""

    def __init__(self, seconds):
        self.seconds, self._begun = seconds, time.perf_counter()

    @property
    def elapsed(self):
        """Seconds since the start."""
        return time.perf_counter() - self._begun

    @property
    def fraction(self):
        """Share of the time that is used, at most 1."""
        return min(1.0, self.elapsed / self.seconds)


class Selection:
    """The network of lowest validation loss among those looked at, about every so often."""

    def __init__(self, problem, clock, evaluations):
        self._problem, self._clock, self._evaluations = problem, clock, evaluations
        self._looked, self._loss = 0, np.inf
        self.tables: Tables | None = None

    @property
    def due(self):
        """Whether it is time for another look."""
        return self._clock.fraction * self._evaluations >= self._looked + 1

    def look(self, tables):
        """Keep a copy of the network if it is the best one so far."""
        self._looked += 1
        part = self._problem.validation
        z = logits(self._problem.spec, tables, part.x).T
        loss = LOSSES[self._problem.loss](z, part.y).mean()
        if loss < self._loss:
            self._loss, self.tables = loss, [np.array(table) for table in tables]
