"""Small asymmetric problems shared by several test modules, with their losses by brute force.

Every problem has unequal sizes, unbalanced labels and inputs of different size; none is symmetric
under a reversal of the chain, a swap of outputs or a flip of all bits.
"""

import dataclasses
import functools

import numpy as np

import oracles
from hypercircuit.bnn import Dense, Encoding, Network, encoding_choice, scale_choice
from hypercircuit.data import Dataset
from hypercircuit.hamiltonian import LOSSES, Loss

ORACLE_NAMES = {
    "softmax": "softmax_cross_entropy",
    "logistic": "logistic",
    "squared": "squared_error",
    "sigmoid-squared": "sigmoid_squared",
    "hinge": "hinge",
    "squared-hinge": "squared_hinge",
    "pairwise-logistic": "pairwise_logistic",
    "zero-one": "zero_one",
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A linear network with a data set and a loss.

    Args:
        loss: name of the loss.
        n_outputs: outputs of the network.
        n_inputs: inputs of the network.
        step: the lattice of the inputs, or None for real-valued ones.
        interval: where inputs are drawn from.
        zeros: share of the inputs set to zero.
        idle: inputs at the start and at the end of every example that are zero.
        blank: number of an example without any input, or None.
        encodings: options of an architecture choice of the encoding.
        scales: options of an architecture choice of the logit scale.
    """

    loss: str
    n_outputs: int
    n_inputs: int
    step: float | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    encoding: tuple[float, float] = (-1.0, 1.0)
    bias: bool = True
    order: str = "class"
    scale: float = 0.7
    zeros: float = 0.0
    idle: tuple[int, int] = (0, 0)
    blank: int | None = None
    n_examples: int = 7
    encodings: tuple[tuple[float, float], ...] = ()
    scales: tuple[float, ...] = ()

    @property
    def n_classes(self) -> int:
        return max(2, self.n_outputs)

    @functools.cached_property
    def data(self) -> Dataset:
        rng = np.random.default_rng(10 * self.n_inputs + self.n_outputs)
        x = rng.uniform(*self.interval, (self.n_examples, self.n_inputs))
        x *= rng.random(x.shape) >= self.zeros
        if self.step is not None:
            x = self.step * np.round(x / self.step)
        x[:, : self.idle[0]] = 0
        x[:, self.n_inputs - self.idle[1] :] = 0
        if self.blank is not None:
            x[self.blank] = 0
        y = np.resize([1, 0, 0, 2, 0, 3, 0], self.n_examples) % self.n_classes
        return Dataset(
            x=x.astype(np.float32),
            y=y.astype(np.int32),
            n_classes=self.n_classes,
            image_shape=None,
            step=self.step,
            name="problem",
        )

    @functools.cached_property
    def network(self) -> Network:
        dense = Dense(self.n_inputs, self.n_outputs, self.bias, Encoding(*self.encoding))
        choices = []
        if self.encodings:
            choices.append(encoding_choice([Encoding(*each) for each in self.encodings]))
        if self.scales:
            choices.append(scale_choice(self.scales))
        return Network((dense,), logit_scale=self.scale, order=self.order, choices=tuple(choices))

    @property
    def loss_object(self) -> Loss:
        return LOSSES[self.loss]()

    @functools.cached_property
    def example_losses(self) -> np.ndarray:
        """The loss of every network and example by brute force, (2^N, n_examples)."""
        bits = oracles.bits_table(self.network.n_qubits)
        if self.encodings or self.scales:
            choices = [
                {"setting": setting, "options": options, "scope": "network"}
                for setting, options in (
                    ("encoding", self.encodings),
                    ("logit_scale", self.scales),
                )
                if options
            ]
            logits = oracles.network_logits(
                bits,
                self.data.x,
                (self.n_inputs, self.n_outputs),
                bias=self.bias,
                encodings=[self.encoding],
                logit_scale=self.scale,
                choices=choices,
                order=self.order,
            )
        else:
            ordered = bits if self.order == "class" else bits[:, ::-1]
            logits = oracles.linear_logits(
                ordered, self.data.x, self.n_outputs, *self.encoding, self.scale, self.bias
            )
        columns = [
            oracles.mean_loss(ORACLE_NAMES[self.loss], logits[:, i : i + 1], self.data.y[i : i + 1])
            for i in range(self.n_examples)
        ]
        return np.stack(columns, axis=1)

    @property
    def diagonal(self) -> np.ndarray:
        """The mean loss of every network by brute force, (2^N,)."""
        return self.example_losses.mean(axis=1)


PROBLEMS = {
    # losses of all outputs together
    "softmax-real": Problem("softmax", 3, 3, interval=(-1.4, 1.6)),
    "softmax-reversed": Problem("softmax", 3, 2, interval=(-1.4, 1.6), order="class-reversed"),
    "softmax-quarters": Problem("softmax", 2, 4, step=0.25, encoding=(-3.0, 1.0)),
    "softmax-integers": Problem(
        "softmax", 4, 2, step=1.0, interval=(-3.4, 4.4), bias=False, scale=0.3
    ),
    "softmax-blank": Problem("softmax", 3, 3, bias=False, blank=2, encoding=(0.5, -1.0)),
    "softmax-one-site": Problem("softmax", 3, 1, bias=False, interval=(-1.0, 2.0), blank=4),
    "softmax-sparse": Problem("softmax", 2, 9, bias=False, zeros=0.6),
    "softmax-sparse-odd": Problem("softmax", 3, 5, bias=False, zeros=0.5, blank=5),
    "softmax-apart": Problem("softmax", 2, 8, bias=False, idle=(2, 3), order="class-reversed"),
    "softmax-five": Problem("softmax", 5, 2, step=0.5, scale=0.4),
    # losses of one output
    "logistic-real": Problem("logistic", 1, 7, encoding=(-3.0, 1.0), zeros=0.4),
    "logistic-halves": Problem("logistic", 1, 10, step=0.5, zeros=0.7, interval=(-1.2, 2.2)),
    "logistic-wide": Problem("logistic", 1, 16, step=0.5, order="class-reversed", scale=0.4),
    "logistic-gaps": Problem("logistic", 1, 11, zeros=0.75, bias=False, order="class-reversed"),
    # losses that add up over outputs
    "one-vs-rest": Problem("logistic", 3, 2, interval=(-1.4, 1.6), scale=0.5),
    "one-vs-rest-lattice": Problem("logistic", 3, 3, step=0.5, order="class-reversed"),
    "sigmoid-squared": Problem("sigmoid-squared", 1, 6, interval=(-1.4, 1.6)),
    "sigmoid-squared-two": Problem("sigmoid-squared", 3, 3, encoding=(-3.0, 1.0), zeros=0.3),
    "hinge-lattice": Problem("hinge", 2, 4, step=0.5, encoding=(0.0, 1.0)),
    "squared-hinge-lattice": Problem("squared-hinge", 1, 8, step=0.25, zeros=0.4),
    "zero-one": Problem("zero-one", 1, 9, step=0.5, interval=(-1.2, 1.4), zeros=0.3),
    # losses of all outputs together, on lattices
    "zero-one-three": Problem("zero-one", 3, 3, step=0.5, interval=(-1.2, 1.4), zeros=0.3),
    "zero-one-reversed": Problem(
        "zero-one", 3, 4, step=0.25, bias=False, order="class-reversed", encoding=(-3.0, 1.0)
    ),
    "zero-one-sparse": Problem(
        "zero-one", 2, 7, step=1.0, bias=False, idle=(2, 2), interval=(0, 3)
    ),
    # differences of outputs
    "pairwise": Problem("pairwise-logistic", 3, 3, interval=(-1.4, 1.6), scale=0.5),
    "pairwise-lattice": Problem(
        "pairwise-logistic", 4, 2, step=0.5, order="class-reversed", zeros=0.4
    ),
    "pairwise-sparse": Problem("pairwise-logistic", 2, 8, bias=False, idle=(2, 3)),
    "pairwise-choice": Problem(
        "pairwise-logistic", 2, 3, encodings=((-1.0, 1.0), (0.0, 1.0), (-3.0, 0.5))
    ),
    # architecture qubits
    "encoding-choice": Problem(
        "logistic", 1, 5, encodings=((0.0, 1.0), (-1.0, 1.0), (-2.0, 1.0), (-3.0, 1.0))
    ),
    "encoding-choice-reversed": Problem(
        "logistic",
        1,
        6,
        encodings=((-1.0, 1.0), (-3.0, 1.0)),
        order="class-reversed",
        zeros=0.5,
    ),
    "softmax-choices": Problem(
        "softmax",
        2,
        3,
        interval=(-1.4, 1.6),
        encodings=((-1.0, 1.0), (0.0, 1.0), (-3.0, 0.5)),
        scales=(0.3, 0.8),
    ),
    "softmax-choices-reversed": Problem(
        "softmax", 3, 2, step=0.5, scales=(0.2, 0.9), bias=False, order="class-reversed"
    ),
    "softmax-choice-even": Problem("softmax", 2, 4, bias=False, scales=(0.2, 0.9), zeros=0.4),
    "squared-choice": Problem("squared", 2, 3, encodings=((-1.0, 1.0), (-2.0, 1.0))),
    # quadratic losses
    "squared-real": Problem("squared", 3, 3, encoding=(0.0, 1.0), interval=(-1.4, 1.6)),
    "squared-one": Problem("squared", 1, 6, encoding=(-2.0, 1.0), order="class-reversed"),
    "squared-two": Problem("squared", 2, 3, bias=False, interval=(-0.5, 1.0)),
}

#: Problems whose inputs lie on a lattice that float32 represents exactly.
LATTICES = tuple(name for name, problem in PROBLEMS.items() if problem.step is not None)
