"""Which network, loss, energy and data fit each other, as far as it is known without the data.

What depends on the examples themselves (how far their outputs reach, which classes a file has) is
checked when the loss is compiled.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from .._cores import machine_memory
from ..bnn import Network
from ..circuit import Brickwork
from ..hamiltonian import LOSSES, Loss
from ..hamiltonian.compile import MAX_SECTORS, separable_losses
from ..hamiltonian.diagonal import MAX_QUBITS
from ..hamiltonian.mpo import check_route
from ..state.exact import exact_bytes
from .network import make_network
from .sections import MNIST_SIDE, DataConfig
from .values import ConfigError

if TYPE_CHECKING:
    from .config import Config

MNIST_CLASSES, _MNIST_TRAIN = 10, 60_000
#: Bytes that no node has: larger exact states are refused wherever the configuration is read.
_NO_NODE = 2**43
#: Where an exact state is computed it may take so many, or half of the machine's if that is more.
_EXACT_BYTES = 2**35


def known_classes(data: DataConfig) -> int | None:
    """The number of classes, or None if only the file of `data.path` knows it."""
    if data.classes or data.n_classes:
        return len(data.classes) or data.n_classes
    if data.path:
        return None
    return 2 if data.source == "gaussians" else MNIST_CLASSES


def known_inputs(data: DataConfig) -> int | None:
    """The number of inputs, or None if only the file of `data.path` knows it."""
    if data.downsample == "pick":
        return len(data.rows) * len(data.columns)
    if data.downsample == "mean":
        return data.size[0] * data.size[1]
    if data.path:
        return None
    return 2 if data.source == "gaussians" else MNIST_SIDE**2


def check_fit(config: "Config") -> None:
    """Refuse values of different sections that cannot go together.

    Raises:
        ConfigError: with the values at fault and the remedy.
    """
    _check_numbers(config.data)
    settings, data = config.network, config.data
    n_outputs = settings.outputs or known_classes(data) or 2
    # Whatever a network refuses does not depend on how wide its layers are.
    narrow = dataclasses.replace(settings, hidden=tuple(min(n, 2) for n in settings.hidden))
    network = make_network(narrow, 1, n_outputs)
    contracted = config.circuit.ansatz == "graph" or config.energy.kind == "contraction"
    if contracted or config.energy.kind in ("exact", "statevector"):
        _check_separates(config, network)
    if contracted:
        _check_contracted(config, network)
    if contracted and config.noise.present:
        raise ConfigError(
            "noise.multiplier and noise.readout must be 0 with contractions "
            "(energy.kind='contraction', circuit.ansatz='graph'), whose gates do not err, got "
            f"{config.noise.multiplier:g} and {config.noise.readout:g}; set "
            "circuit.ansatz='brickwork' and another energy.kind"
        )
    bounded = config.state.engine == "truncated" or config.circuit.ansatz == "free-mps"
    if bounded and config.noise.present:
        raise ConfigError(
            "noise.multiplier and noise.readout must be 0 with state.engine='truncated' and "
            "circuit.ansatz='free-mps', whose states are pure, got "
            f"{config.noise.multiplier:g} and {config.noise.readout:g}; set state.engine='exact' "
            "and circuit.ansatz='brickwork', or evaluate the trained truncated run with "
            "`hypercircuit noise`"
        )
    if contracted or config.energy.kind not in ("sampled", "auto"):
        _check_settings(config, network)
    if config.energy.kind == "cumulant":
        _check_order(config, network)
    if config.energy.kind == "statevector":
        _check_enumerable(config, n_outputs)
    if config.energy.kind == "mpo":
        _check_compressed(config, n_outputs)
    if config.loss.kind == "zero-one" and data.source == "gaussians" and not settings.hidden:
        raise ConfigError(
            "loss.kind='zero-one' of a network without hidden layers needs inputs on a lattice, "
            "and the points of data.source='gaussians' are real numbers; set a smooth loss such "
            "as loss.kind='logistic'"
        )
    _check_depth(config)


def check_exact_size(
    depth: int, rotations: str, n_qubits: int, precision: str, *, remedy: str, here: bool
) -> None:
    """Refuse a circuit too deep for its exact state.

    **Arguments:**

    - `here`: whether this machine computes it; else any node might.
    - `remedy`: what to do about it, the end of the message.

    **Raises:** `ConfigError` with the depth and what its state would take.
    """
    circuit = Brickwork(depth, rotations)
    n_bytes = exact_bytes(circuit, n_qubits, np.dtype(precision))
    most = max(_EXACT_BYTES, (machine_memory() or 0) / 2) if here else _NO_NODE
    if n_bytes > most:
        raise ConfigError(
            f"the exact state of depth {depth} has a bond of 2^{circuit.reach} between cells of "
            f"two qubits and takes at least {n_bytes / 2**30:.3g} GiB for {n_qubits} qubits, more "
            f"than {most / 2**30:.3g} GiB; {remedy}"
        )


def _check_depth(config: "Config") -> None:
    """As far as it is known how many qubits there are: one cell, if nothing is."""
    n_inputs, n_classes = known_inputs(config.data), known_classes(config.data)
    n_qubits = 2
    if n_inputs is not None and (config.network.outputs or n_classes):
        outputs = config.network.outputs or n_classes or 2
        n_qubits = make_network(config.network, n_inputs, outputs).n_qubits
    check_chain_size(config, n_qubits)


def check_chain_size(config: "Config", n_qubits: int, *, here: bool = False) -> None:
    """Refuse a `circuit.depth` whose exact state would not fit in memory.

    **Arguments:**

    - `here`: as for `check_exact_size`.

    **Raises:** `ConfigError` with the remedy.
    """
    if config.circuit.ansatz != "brickwork" or config.state.engine != "exact":
        return
    check_exact_size(
        config.circuit.depth,
        config.circuit.rotations,
        n_qubits,
        config.train.precision,
        remedy=f"lower circuit.depth={config.circuit.depth}, or set state.engine='truncated' and "
        "state.max_bond, such as 16",
        here=here,
    )


def _check_numbers(data: DataConfig) -> None:
    """How many examples are asked for, where it is known how many there are."""
    if data.path:
        return
    total = data.n_points if data.source == "gaussians" else _MNIST_TRAIN
    if data.n_validation >= total:
        raise ConfigError(
            f"data.n_validation must be less than the {total} examples of "
            f"data.source={data.source!r}, got {data.n_validation}; leave some to train on"
        )
    held_out = data.n_validation or max(1, total // 12)
    if data.validation == "none":
        held_out = 0
    if data.n_train > total - held_out:
        raise ConfigError(
            f"data.n_train must be at most the {total - held_out} training examples of "
            f"data.source={data.source!r}, got {data.n_train}; set data.n_train=0 for all of them"
        )


def _check_separates(config: "Config", network: Network) -> None:
    kind, loss, order = config.energy.kind, config.loss.kind, config.network.order
    instead = "set energy.kind='sampled', or 'cumulant', an approximation"
    if config.circuit.ansatz == "graph":
        kind, instead = "contraction", f"set circuit.ansatz='brickwork' and {instead[4:]}"
    if network.n_hidden > 1:
        raise ConfigError(
            f"energy.kind={kind!r} needs at most one hidden layer, got "
            f"network.hidden={list(config.network.hidden)}; {instead}"
        )
    if network.n_hidden and order.startswith("class"):
        raise ConfigError(
            f"energy.kind={kind!r} of a network with a hidden layer needs its qubits neuron by "
            f"neuron, got network.order={order!r}; set network.order='neuron' or "
            "'neuron-reversed'"
        )
    if network.n_hidden and LOSSES[loss]().form(network.n_outputs) == "joint":
        raise ConfigError(
            f"energy.kind={kind!r} does not go with loss.kind={loss!r} of {network.n_outputs} "
            f"outputs and a hidden layer; set loss.kind to one of "
            f"{', '.join(separable_losses(network.n_outputs))}, or {instead}"
        )


def _check_contracted(config: "Config", network: Network) -> None:
    circuit = config.circuit
    if circuit.ansatz == "graph" and circuit.edges == "architecture" and not network.global_sites:
        raise ConfigError(
            "circuit.edges='architecture' ties the qubits of network-wide choices to every neuron, "
            "got network.choices without any; add one, such as "
            "{ set = \"encoding\", options = [[-1, 1], [0, 1]] }, or set circuit.edges='ring'"
        )


def _check_settings(config: "Config", network: Network) -> None:
    n_settings = 2 ** len(network.global_sites)
    if n_settings > MAX_SECTORS:
        raise ConfigError(
            f"network.choices of scope network and layer have {n_settings} settings, but "
            f"energy.kind={config.energy.kind!r} evaluates them one by one and at most "
            f"{MAX_SECTORS}; choose among fewer, or set energy.kind='sampled'"
        )


def _check_order(config: "Config", network: Network) -> None:
    by_neuron = network.n_hidden == 1 and not config.network.order.startswith("class")
    if config.energy.order > 2 and network.n_hidden and not by_neuron:
        raise ConfigError(
            f"energy.order={config.energy.order} with hidden layers needs one of them and its "
            f"qubits neuron by neuron, got network.hidden={list(config.network.hidden)} and "
            f"network.order={config.network.order!r}; set energy.order=2"
        )


def _check_compressed(config: "Config", n_outputs: int) -> None:
    n_inputs = known_inputs(config.data)
    if n_inputs is None:
        return
    network = make_network(config.network, n_inputs, n_outputs)
    check_compressed(config, network, LOSSES[config.loss.kind]())


def check_compressed(config: "Config", network: Network, loss: Loss) -> None:
    """Refuse a loss that energy.kind='mpo' does not compress.

    **Raises:** `ConfigError` with the losses that are compressed.
    """
    try:
        check_route(network, loss, config.mpo.max_bond)
    except ValueError as error:
        raise ConfigError(f"energy.kind='mpo': {error}; or set another energy.kind") from error


def _check_enumerable(config: "Config", n_outputs: int) -> None:
    n_inputs = known_inputs(config.data)
    if n_inputs is None:
        return
    n_qubits = make_network(config.network, n_inputs, n_outputs).n_qubits
    if n_qubits > MAX_QUBITS:
        raise ConfigError(
            f"energy.kind='statevector' takes at most {MAX_QUBITS} qubits, got {n_qubits} of "
            f"{n_inputs} inputs, network.hidden={list(config.network.hidden)} and {n_outputs} "
            "outputs; set energy.kind='exact' or 'cumulant', or a smaller network"
        )
