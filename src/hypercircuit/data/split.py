"""The deterministic choice of validation examples."""

import dataclasses

import numpy as np

from .dataset import Dataset


def split_validation(
    dataset: Dataset, n_validation: int, *, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Split examples into a training and a validation part, without overlap.

    The validation part is the first `n_validation` entries of a seeded permutation; both
    parts keep the order of `dataset`.

    Args:
        dataset: the examples to divide.
        n_validation: size of the validation part, in 1..len(dataset)-1.
        seed: non-negative seed of `numpy.random.default_rng`.

    Returns:
        The training part and the validation part, named "<name>-train" and
        "<name>-validation".

    Raises:
        ValueError: if `n_validation` or `seed` is out of range.
    """
    if not 1 <= n_validation < len(dataset):
        raise ValueError(
            f"n_validation must be at least 1 and less than the {len(dataset)} training rows "
            f"of '{dataset.name}', got {n_validation}; leave examples for both parts"
        )
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}; choose a non-negative integer")
    order = np.random.default_rng(seed).permutation(len(dataset))
    validation = dataset.take(np.sort(order[:n_validation]))
    train = dataset.take(np.sort(order[n_validation:]))
    return (
        dataclasses.replace(train, name=f"{dataset.name}-train"),
        dataclasses.replace(validation, name=f"{dataset.name}-validation"),
    )
