"""From a configuration to the problem it stands for: data, network, loss and circuit."""

from __future__ import annotations

import dataclasses

import numpy as np

from .bnn import Network
from .circuit import Brickwork
from .config import Config, ConfigError, make_network
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


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What a configuration stands for, before anything is compiled."""

    splits: Splits
    network: Network
    loss: Loss
    circuit: Brickwork


def build_problem(config: Config) -> Problem:
    """Load and transform the data and build the network that fits it.

    **Raises:** `ConfigError` if the parts do not fit; `DataFileError` for a bad data file.
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
    return Problem(splits, network, loss, Brickwork(config.circuit.depth, config.circuit.rotations))


def build_network(config: Config, data: Dataset) -> Network:
    """The configured network for the inputs and classes of `data`.

    **Raises:** `ConfigError` if its choices contradict each other.
    """
    settings = config.network
    return make_network(settings, data.n_inputs, settings.outputs or data.n_classes)


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
