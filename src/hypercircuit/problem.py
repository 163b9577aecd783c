"""From a configuration to the problem it stands for: data, network, loss and circuit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .bnn import Network
from .circuit import Ansatz, Brickwork, Chain, FreeMPS, Graph, Noise, Noisy, Truncated
from .config import Config, ConfigError, check_chain_size, check_compressed, make_network
from .data import (
    Dataset,
    Splits,
    binarise,
    downsample_mean,
    load_files,
    load_mnist,
    make_gaussians,
    map_splits,
    pick_pixels,
    quantise,
    scale_pixels,
    select_classes,
)
from .hamiltonian import LOSSES, Loss
from .state.mixed import check_size


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What a configuration stands for, before anything is compiled."""

    splits: Splits
    network: Network
    loss: Loss
    circuit: Ansatz


def build_problem(config: Config) -> Problem:
    """Load and transform the data and build the network that fits it.

    **Raises:** `ConfigError` if the parts do not fit, or if the loss is not compressed for
    energy.kind='mpo'; `DataFileError` for a bad data file.
    """
    splits = load_splits(config)
    network = build_network(config, splits.train)
    loss = LOSSES[config.loss.kind]()
    try:
        loss.check(network, splits.train)
    except ValueError as error:
        raise ConfigError(
            f"network.outputs, loss.kind and data.classes do not fit: {error}"
        ) from error
    if config.energy.kind == "mpo":
        check_compressed(config, network, loss)
    return Problem(splits, network, loss, build_circuit(config, network, splits.train))


def build_network(config: Config, data: Dataset) -> Network:
    """The configured network for the inputs and classes of `data`.

    **Raises:** `ConfigError` if its choices contradict each other.
    """
    settings = config.network
    return make_network(settings, data.n_inputs, settings.outputs or data.n_classes)


def build_circuit(config: Config, network: Network, data: Dataset) -> Ansatz:
    """The configured hypercircuit on the network's register.

    **Raises:** `ConfigError` for a graph that the register or the data does not have, or a noisy
    circuit too deep for it.
    """
    settings = config.circuit
    depth, rotations, n_qubits = settings.depth, settings.rotations, network.n_qubits
    if settings.ansatz != "graph":
        return build_chain(config, n_qubits)
    try:
        if settings.edges == "ring":
            graph = Graph.ring(n_qubits, depth, rotations)
        elif settings.edges == "tree":
            graph = Graph.tree(n_qubits, depth, rotations)
        elif settings.edges == "star":
            graph = Graph.star(n_qubits, depth, rotations, centre=settings.centre)
        elif settings.edges == "grid":
            graph = _grid(network, data, depth, rotations)
        elif settings.edges == "architecture":
            graph = Graph.centred(
                sorted(map(int, network.global_sites)), _neurons(network), depth, rotations
            )
        else:
            graph = Graph(settings.pairs, depth, rotations)
        if settings.schedule != "auto":
            graph = Graph(
                graph.edges, depth, rotations, schedule=settings.schedule, colours=graph.colours
            )
        graph.shape(n_qubits)
    except ValueError as error:
        raise ConfigError(f"circuit.edges={settings.edges!r}: {error}") from error
    return graph


def build_chain(config: Config, n_qubits: int) -> Chain:
    """The configured chain, with the configured errors of its gates if there are any.

    **Raises:** `ConfigError` for a circuit too deep for its exact state, mixed with errors.
    """
    settings, state, rates = config.circuit, config.state, config.noise
    if settings.ansatz == "free-mps":
        return FreeMPS(state.max_bond, real=settings.rotations == "ry")
    circuit = Brickwork(settings.depth, settings.rotations)
    if state.engine == "truncated":
        return Truncated(circuit, state.max_bond, state.cutoff, state.scheme)
    if not rates.present:
        check_chain_size(config, n_qubits)
        return circuit
    factor = rates.multiplier
    noisy = Noisy(circuit, Noise(factor * rates.one_qubit, factor * rates.two_qubit, rates.readout))
    try:
        check_size(noisy, n_qubits, np.dtype(config.train.precision))
    except ValueError as error:
        raise ConfigError(f"[noise]: {error}") from error
    return noisy


def bare_circuit(circuit: Ansatz) -> Brickwork | Graph:
    """The circuit of gates that an ansatz stands for: without errors, without truncation.

    **Raises:** `ValueError` for a free MPS, which has none.
    """
    if isinstance(circuit, FreeMPS):
        raise ValueError(
            "a free MPS is not made by a circuit; take a run with circuit.ansatz='brickwork' or "
            "'graph'"
        )
    return circuit.circuit if isinstance(circuit, (Noisy, Truncated)) else circuit


def _neurons(network: Network) -> list[list[int]]:
    """The sites of every neuron of the first layer, in rising order: its incoming weights and bias,
    in a network with one hidden layer also its own choices and its outgoing weights."""
    register = network.register
    own = [register.weights[0]]
    if network.n_hidden == 1:
        chosen = zip(network.choices, register.choices, strict=True)
        own += [sites for choice, sites in chosen if choice.scope == "neuron"]
        own.append(register.weights[1][:, : len(own[0])].T)
    return np.sort(np.concatenate(own, axis=1), axis=1).tolist()


def _grid(network: Network, data: Dataset, depth: int, rotations: str) -> Graph:
    """An image a block of a linear network."""
    if data.image_shape is None:
        raise ValueError("the examples are no images; take another graph")
    if network.n_hidden:
        raise ValueError(f"a grid is for linear networks, got {network.n_hidden} hidden layers")
    if network.order.endswith("-reversed"):
        raise ValueError(f"a grid starts with its first pixel, got network.order={network.order!r}")
    blocks = network.register.blocks
    height, width = data.image_shape
    bias = network.layers[0].bias
    return Graph.grid(
        height,
        width,
        depth,
        rotations,
        bias=bias,
        copies=len(blocks.outputs),
        start=blocks.start,
    )


def load_splits(config: Config) -> Splits:
    """The configured data: embedded MNIST, points or files, then classes, size and pixel values.

    Inputs that a file holds as real numbers are features already and are not scaled.
    """
    data = config.data
    if data.path:
        splits = load_files(
            data.path,
            n_classes=data.n_classes or None,
            n_validation=0 if data.validation == "none" else data.n_validation or None,
            seed=data.split_seed,
        )
    elif data.source == "gaussians":
        splits = make_gaussians(
            data.n_points,
            n_validation=0 if data.validation == "none" else data.n_validation or None,
            seed=data.split_seed,
        )
    else:
        n_validation = 0 if data.validation == "none" else data.n_validation or 5000
        splits = load_mnist(n_validation=n_validation, seed=data.split_seed)
    if data.classes:
        splits = map_splits(splits, lambda dataset: select_classes(dataset, data.classes))
    if data.n_train:
        if data.n_train > len(splits.train):
            raise ConfigError(
                f"data.n_train must be at most the {len(splits.train)} training examples, "
                f"got {data.n_train}"
            )
        kept = splits.train.take(np.arange(data.n_train))
        validation = splits.validation if splits.held_out else kept
        splits = dataclasses.replace(splits, train=kept, validation=validation)
    return map_splits(splits, lambda dataset: _transform(config, dataset))


def class_labels(config: Config, data: Dataset) -> list[int]:
    """What the data calls the classes 0, 1, .. of a network."""
    return list(config.data.classes) or list(range(data.n_classes))


def describe_preprocessing(config: Config, data: Dataset) -> dict[str, Any]:
    """How examples become inputs, in the words of the configuration's data section."""
    settings = config.data
    found: dict[str, Any] = {
        "source": settings.path or settings.source,
        "n_inputs": data.n_inputs,
        "downsample": settings.downsample,
    }
    if settings.downsample == "mean":
        found["size"] = list(settings.size)
    if settings.downsample == "pick":
        found |= {"rows": list(settings.rows), "columns": list(settings.columns)}
    found["pixels"] = settings.pixels
    if settings.pixels == "quantise":
        found["levels"] = settings.levels
    if settings.pixels == "binarise":
        found["threshold"] = settings.threshold
    found |= {
        "step": data.step,
        "image_shape": None if data.image_shape is None else list(data.image_shape),
        "order": "downsample (bytes are divided by 255 first, unless binarised), then pixels; "
        "images row by row; inputs that are real numbers already are not scaled",
    }
    return found


def describe_data(problem: Problem) -> str:
    """How many examples there are for what, in one line."""
    splits = problem.splits
    held_out = f"{len(splits.validation)} validation"
    if not splits.held_out:
        held_out = "no validation (the training examples stand in)"
    return (
        f"{splits.train.name}: {len(splits.train)} training, {held_out} and "
        f"{len(splits.test)} test examples"
    )


def _transform(config: Config, dataset: Dataset) -> Dataset:
    data = config.data
    if data.downsample == "pick":
        dataset = pick_pixels(dataset, data.rows, data.columns)
    if data.pixels == "binarise":
        if data.downsample == "mean":
            dataset = downsample_mean(dataset, data.size)
        return binarise(dataset, data.threshold)
    if dataset.x.dtype == np.uint8:
        dataset = scale_pixels(dataset)
    if data.downsample == "mean":
        dataset = downsample_mean(dataset, data.size)
    return quantise(dataset, data.levels) if data.pixels == "quantise" else dataset
