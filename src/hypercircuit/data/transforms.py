"""Pure maps from a Dataset to a new one: classes, pixel values, pixel positions.

Each keeps the name and states the `step` of its result. Apply one to all parts of a task
with `map_splits`:

    map_splits(load_mnist(), lambda dataset: binarise(dataset, 127))
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

from .dataset import Dataset, Splits

_LARGEST_PIXEL = 255
_BLOCK_ELEMENTS = 1 << 20


def map_splits(splits: Splits, function: Callable[[Dataset], Dataset]) -> Splits:
    """Apply one transform to the training, validation and test examples.

    Training examples that stand in for validation examples do so in the result.

    Args:
        splits: the three parts.
        function: a map from Dataset to Dataset.

    Raises:
        ValueError: if `function` raises it, or makes the parts differ in format.
    """
    train = function(splits.train)
    validation = function(splits.validation) if splits.held_out else train
    return Splits(train, validation, function(splits.test))


def select_classes(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """Keep the examples of some classes and relabel them 0..len(classes)-1.

    Args:
        dataset: any data.
        classes: at least two different labels; classes[k] becomes label k.

    Raises:
        ValueError: if fewer than two classes are given, one is repeated or unknown, or one
            has no example in `dataset`.
    """
    if len(classes) < 2:
        raise ValueError(f"classes must name at least 2 classes, got {classes}; add another label")
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes must differ, got {classes}; name each class once")
    relabelled = np.full(dataset.n_classes, -1, dtype=np.int32)
    counts = np.bincount(dataset.y, minlength=dataset.n_classes)
    for label, chosen in enumerate(classes):
        if not 0 <= chosen < dataset.n_classes:
            raise ValueError(
                f"classes must lie in 0..{dataset.n_classes - 1}, got {chosen}; "
                f"'{dataset.name}' has {dataset.n_classes} classes"
            )
        if counts[chosen] == 0:
            raise ValueError(
                f"classes must each have an example, got {chosen}, which has none in "
                f"'{dataset.name}'; leave it out or take more examples"
            )
        relabelled[chosen] = label
    labels = relabelled[dataset.y]
    kept = labels >= 0
    return dataclasses.replace(dataset, x=dataset.x[kept], y=labels[kept], n_classes=len(classes))


def scale_pixels(dataset: Dataset) -> Dataset:
    """Scale raw pixels to [0, 1]: x -> x / 255, float32 with step 1/255.

    Args:
        dataset: uint8 pixels.

    Raises:
        ValueError: if the inputs are not uint8.
    """
    if dataset.x.dtype != np.uint8:
        raise ValueError(
            f"dataset must hold uint8 pixels, got {dataset.x.dtype.name} in '{dataset.name}'; "
            "its inputs are features already, leave scale_pixels out"
        )
    x = np.divide(dataset.x, np.float32(_LARGEST_PIXEL), dtype=np.float32)
    return dataclasses.replace(dataset, x=x, step=1 / _LARGEST_PIXEL)


def quantise(dataset: Dataset, levels: int) -> Dataset:
    """Round inputs to the nearest of equidistant levels 0, step, .., 1, step = 1/(levels - 1).

    Raw pixels are divided by 255 first. A real input halfway between two levels goes to the
    one that is an even multiple of the step; no raw pixel lies halfway.

    Args:
        dataset: uint8 pixels, or float32 inputs in [0, 1].
        levels: number of levels, at least 2.

    Raises:
        ValueError: if `levels` is less than 2 or a real input lies outside [0, 1].
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}; 2 gives black and white")
    x, intervals = dataset.x, levels - 1
    if x.dtype == np.uint8:
        pixels = np.arange(_LARGEST_PIXEL + 1)
        table = (np.rint(pixels * intervals / _LARGEST_PIXEL) / intervals).astype(np.float32)
        rounded = _by_blocks(x, lambda block: table[block], dataset.n_inputs)
    else:
        if x.min() < 0 or x.max() > 1:
            raise ValueError(
                f"dataset must hold inputs in [0, 1], got {x.min()}..{x.max()} in "
                f"'{dataset.name}'; rescale them, or start from uint8 pixels"
            )
        rounded = x * np.float32(intervals)
        np.rint(rounded, out=rounded)
        rounded /= np.float32(intervals)
    return dataclasses.replace(dataset, x=rounded, step=1 / intervals)


def binarise(dataset: Dataset, threshold: float | int) -> Dataset:
    """Threshold inputs: 1 where x > threshold, else 0, float32 with step 1.0.

    Args:
        dataset: any data.
        threshold: in the units of the inputs: 127 for raw pixels, 0.5 for scaled ones. At
            least the smallest and less than the largest input.

    Raises:
        ValueError: if all inputs lie on one side of `threshold`.
    """
    with np.errstate(over="ignore"):
        above = dataset.x > threshold
    if above.all() or not above.any():
        raise ValueError(
            f"threshold must be at least the smallest and less than the largest input, "
            f"{dataset.x.min()} and {dataset.x.max()} in '{dataset.name}', got {threshold}; "
            "give it in the units of the inputs, 127 for raw pixels, 0.5 for scaled ones"
        )
    return dataclasses.replace(dataset, x=above.astype(np.float32), step=1.0)


def downsample_mean(dataset: Dataset, shape: tuple[int, int]) -> Dataset:
    """Average every image over a coarser grid of equal rectangles.

    Output pixel (i, j) is the mean of the image, a piecewise constant function, over rectangle
    (i, j); an input pixel that a border cuts counts with its fraction inside:

        out[i, j] = sum_rc A[i, r] x[r, c] B[j, c],    rows of A and B sum to 1

    Args:
        dataset: images; the result is in the units of their pixels, float32.
        shape: (height, width) of the result, each at least 1 and at most that of the image.

    Returns:
        Images of the new shape. Where both sizes divide those of the image, the step is the
        old one divided by the number of averaged pixels; otherwise it is None.

    Raises:
        ValueError: if the inputs are not images, or `shape` is out of range.
    """
    height, width = _image_shape(dataset)
    rows, columns = shape
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(
            f"shape must lie between (1, 1) and the image shape {(height, width)}, got {shape}; "
            "images can only be made smaller"
        )
    row_weights, column_weights = _overlaps(height, rows), _overlaps(width, columns)
    divides = height % rows == 0 and width % columns == 0
    step = None
    if dataset.step is not None and divides:
        step = dataset.step * (rows * columns) / (height * width)

    def average(block: np.ndarray) -> np.ndarray:
        images = block.reshape(-1, width).astype(np.float64)
        narrow = (images @ column_weights.T).reshape(-1, height, columns)
        means = (row_weights @ narrow).reshape(len(block), -1)
        return means if step is None else np.rint(means / step) * step

    x = _by_blocks(dataset.x, average, rows * columns)
    return dataclasses.replace(dataset, x=x, image_shape=(rows, columns), step=step)


def pick_pixels(dataset: Dataset, rows: Sequence[int], columns: Sequence[int]) -> Dataset:
    """Keep the pixels where the given rows and columns of every image cross.

    Args:
        dataset: images; values, dtype and step are kept.
        rows: at least one, different, in 0..height-1; (3, 10, 17, 24) for rows and columns
            reduces MNIST to the 4 x 4 images of arXiv:2301.08292.
        columns: likewise in 0..width-1.

    Raises:
        ValueError: if the inputs are not images, or `rows` or `columns` is empty, has a
            repeat, or is out of range.
    """
    height, width = _image_shape(dataset)
    for argument, positions, size in (("rows", rows, height), ("columns", columns, width)):
        if not positions or len(set(positions)) < len(positions):
            raise ValueError(
                f"{argument} must name at least one pixel position, each once, got {positions}; "
                f"choose from 0..{size - 1}"
            )
        if min(positions) < 0 or max(positions) >= size:
            raise ValueError(
                f"{argument} must lie in 0..{size - 1} for images of shape {(height, width)}, "
                f"got {positions}; count from 0"
            )
    inputs = np.add.outer(np.asarray(rows) * width, np.asarray(columns)).ravel()
    return dataclasses.replace(
        dataset, x=dataset.x[:, inputs], image_shape=(len(rows), len(columns))
    )


def _image_shape(dataset: Dataset) -> tuple[int, int]:
    if dataset.image_shape is None:
        raise ValueError(
            f"dataset must hold images, got image_shape=None in '{dataset.name}'; "
            "set image_shape=(height, width) when it is made"
        )
    return dataset.image_shape


def _overlaps(size: int, parts: int) -> Float64[np.ndarray, "parts size"]:
    """Share of each of `size` pixels in the mean over each of `parts` equal intervals.

    Counted in units of 1/parts of a pixel, every border is an integer.
    """
    pixel_start = np.arange(size) * parts
    part_start = np.arange(parts)[:, None] * size
    first = np.maximum(pixel_start, part_start)
    last = np.minimum(pixel_start + parts, part_start + size)
    return np.maximum(last - first, 0) / size


def _by_blocks(
    x: np.ndarray, function: Callable[[np.ndarray], np.ndarray], n_outputs: int
) -> np.ndarray:
    """Apply `function` to blocks of rows, to bound the memory of intermediate arrays."""
    out = np.empty((len(x), n_outputs), dtype=np.float32)
    rows = max(1, _BLOCK_ELEMENTS // x.shape[1])
    for start in range(0, len(x), rows):
        out[start : start + rows] = function(x[start : start + rows])
    return out
