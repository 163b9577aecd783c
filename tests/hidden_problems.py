"""Small networks with one hidden layer shared by several test modules, with their losses by brute
force; as in `problems.py`, nothing about them is symmetric.
"""

import dataclasses
import functools

import numpy as np

import oracles
from hypercircuit.bnn import (
    Choice,
    Dense,
    Encoding,
    Network,
    activation_choice,
    encoding_choice,
    neuron_gates,
    scale_choice,
    skip_choice,
)
from hypercircuit.data import Dataset
from hypercircuit.hamiltonian import LOSSES, Expansion, LossHamiltonian, compile_loss
from problems import ORACLE_NAMES


@dataclasses.dataclass(frozen=True)
class Hidden:
    """A network with one hidden layer, five examples and a loss.

    Args:
        loss: name of the loss.
        sizes: inputs, hidden neurons, outputs.
        step: the lattice of the inputs, or None for real-valued ones.
        choices: (setting, options, scope), in the register's order.
        idle: inputs at the start of every example that are zero; the next one is not.
    """

    loss: str
    sizes: tuple[int, int, int]
    step: float | None = None
    activation: str = "sign"
    choices: tuple[tuple[str, tuple, str], ...] = ()
    skip: bool = False
    order: str = "neuron"
    encodings: tuple[tuple[float, float], ...] = ((-1.0, 1.0), (-1.0, 1.0))
    bias: bool = True
    logit_scale: float = 0.6
    hidden_scale: float = 1.0
    expansion: Expansion | None = None
    tolerance: float = 1e-3
    idle: int = 0

    @functools.cached_property
    def data(self) -> Dataset:
        n_inputs, _, n_outputs = self.sizes
        rng = np.random.default_rng(10 * n_inputs + n_outputs)
        x = rng.uniform(-1.2, 1.6, (5, n_inputs)) * (rng.random((5, n_inputs)) >= 0.2)
        if self.step is not None:
            x = self.step * np.round(x / self.step)
        if self.idle:
            x[:, : self.idle] = 0
            x[:, self.idle] = np.where(x[:, self.idle] == 0, self.step or 0.7, x[:, self.idle])
        n_classes = max(2, n_outputs)
        y = np.array([1, 0, 0, 2, 0], np.int32) % n_classes
        return Dataset(x.astype(np.float32), y, n_classes, None, self.step, "hidden")

    @property
    def network(self) -> Network:
        n_inputs, n_hidden, n_outputs = self.sizes
        first, second = (Encoding(*each) for each in self.encodings)
        return Network(
            (
                Dense(n_inputs, n_hidden, self.bias, first),
                Dense(n_hidden, n_outputs, self.bias, second),
            ),
            activation=self.activation,
            logit_scale=self.logit_scale,
            hidden_scale=self.hidden_scale,
            skip=self.skip,
            choices=tuple(choice(*each) for each in self.choices),
            order=self.order,
        )

    def compile(self) -> LossHamiltonian:
        return compile_loss(
            self.network,
            self.data,
            LOSSES[self.loss](),
            tolerance=self.tolerance,
            expansion=self.expansion,
        )

    @functools.cached_property
    def example_losses(self) -> np.ndarray:
        """The loss of every network and example, (2^N, n_examples)."""
        logits = oracles.network_logits(
            oracles.bits_table(self.network.n_qubits),
            self.data.x,
            self.sizes,
            bias=self.bias,
            encodings=self.encodings,
            activation=self.activation,
            hidden_scale=self.hidden_scale,
            logit_scale=self.logit_scale,
            choices=[
                {"setting": setting, "options": options, "scope": scope}
                for setting, options, scope in self.choices
            ],
            skip=self.skip,
            order=self.order,
        )
        name, y = ORACLE_NAMES[self.loss], self.data.y
        columns = [
            oracles.mean_loss(name, logits[:, i : i + 1], y[i : i + 1]) for i in range(len(y))
        ]
        return np.stack(columns, axis=1)

    def brute_force(self) -> np.ndarray:
        """The mean loss of every network."""
        return self.example_losses.mean(axis=1)


def choice(setting: str, options: tuple, scope: str) -> Choice:
    if setting == "activation":
        return activation_choice(options, scope=scope)
    if setting == "encoding":
        return encoding_choice([Encoding(*each) for each in options], scope=scope)
    if setting == "gate":
        return neuron_gates()
    return skip_choice() if setting == "skip" else scale_choice(options)


GATE = ("gate", (0, 1), "neuron")
OWN_ACTIVATION = ("activation", ("sign", "relu", "tanh"), "neuron")
TWO_ACTIVATIONS = ("activation", ("relu", "sign"), "neuron")
SMOOTH = ("activation", ("tanh", "sigmoid"), "neuron")
ACTIVATION = ("activation", ("sigmoid", "relu"), "network")
ENCODING = ("encoding", ((-1.0, 1.0), (-3.0, 1.0), (0.0, 1.0)), "network")
PUBLISHED = ((0.0, 1.0), (-1.0, 1.0), (-2.0, 1.0), (-3.0, 1.0))
OWN_ENCODING = ("encoding", PUBLISHED, "neuron")
THREE_ENCODINGS = ("encoding", ((-1.0, 1.0), (-2.0, 1.0), (0.0, 1.0)), "neuron")
TWO_ENCODINGS = ("encoding", ((-3.0, 1.0), (0.5, -1.0)), "neuron")
SKIP = ("skip", (False, True), "network")
SCALE = ("logit_scale", (0.3, 0.8), "network")
