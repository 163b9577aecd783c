"""The deterministic choice of validation examples, or of none."""

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


def hold_out(dataset: Dataset, n_validation: int, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split as `split_validation` does, or hold out nothing.

    Args:
        dataset: the examples to divide.
        n_validation: as in `split_validation`, or 0: both parts are then `dataset` itself, so
            that all its examples are trained on and whatever is chosen is chosen on them.
        seed: as in `split_validation`.
    """
    if n_validation == 0:
        return dataset, dataset
    return split_validation(dataset, n_validation, seed=seed)
