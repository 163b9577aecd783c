"""The table of examples that every loader returns and every transform maps.

An image of height h and width w is one row of h * w inputs, row by row from the top left:

    x[example, row * width + column]        image_shape = (height, width)

`step` states on which lattice the inputs lie. With binary weights the pre-activations of a
network then lie on a lattice too, and a finite Fourier sum reproduces any loss exactly.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Integer

_LATTICE_TOLERANCE = 1e-6
_CHECKED_ELEMENTS = 1 << 17


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled examples; immutable, compared by identity.

    The arrays are kept as read-only views, so they must not be changed through another
    reference afterwards.

    Attributes:
        x: inputs, shape (n_examples, n_inputs): uint8 raw pixels in 0..255, or float32 features.
        y: labels in 0..n_classes-1, shape (n_examples,), int32.
        n_classes: number of classes, at least 2; a class may have no example here.
        image_shape: (height, width) when a row of `x` is an image, else None.
        step: every input is an integer multiple of this positive number: 1.0 for raw or
            binarised pixels, 1/255 for pixels scaled to [0, 1], 1/(levels - 1) for
            quantised ones; None when the inputs are real-valued.
        name: what error messages and result tables call the data.

    Raises:
        ValueError: if an array has the wrong dtype or shape, is empty or not finite, if a
            label or input breaks the rule above, or if an argument is out of range.
    """

    x: np.ndarray
    y: np.ndarray
    n_classes: int
    image_shape: tuple[int, int] | None
    step: float | None
    name: str

    def __post_init__(self) -> None:
        _check_inputs(self.x)
        _check_labels(self.y, len(self.x), self.n_classes)
        _check_image_shape(self.image_shape, self.x.shape[1])
        _check_step(self.x, self.step)
        object.__setattr__(self, "x", _read_only(self.x))
        object.__setattr__(self, "y", _read_only(self.y))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.x)

    @property
    def n_inputs(self) -> int:
        """Number of inputs of one example."""
        return self.x.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of dtypes, shapes and bytes of `x` and `y`.

        Equal on every platform: the bytes are hashed in little-endian order.
        """
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            portable = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{array.dtype.name}{array.shape}".encode())
            digest.update(portable.data)
        return digest.hexdigest()

    def take(self, indices: Integer[np.ndarray, " m"] | Sequence[int]) -> "Dataset":
        """The examples at `indices`, in that order; repeats are allowed.

        Args:
            indices: positions in 0..len(self)-1, at least one.

        Raises:
            ValueError: if `indices` is empty, not a list of integers, or out of range.
        """
        rows = np.asarray(indices)
        if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in "iu":
            raise ValueError(
                "indices must be a non-empty list of integers, got "
                f"{rows.dtype.name} of shape {rows.shape}; "
                "turn a mask into indices with np.flatnonzero(mask)"
            )
        if rows.min() < 0 or rows.max() >= len(self):
            raise ValueError(
                f"indices must lie in 0..{len(self) - 1}, got {rows.min()}..{rows.max()}; "
                f"'{self.name}' has {len(self)} examples"
            )
        return Dataset(
            self.x[rows], self.y[rows], self.n_classes, self.image_shape, self.step, self.name
        )


@dataclass(frozen=True, eq=False)
class Splits:
    """Training, validation and test examples of one task.

    Attributes:
        train: examples that the loss is made of.
        validation: examples that choose between runs, settings and stopping times. Where none
            are held out it is `train` itself, and the choice is made on the training examples.
        test: examples that are looked at once, at the end.

    Raises:
        ValueError: if the three differ in inputs, dtype, classes, image shape or step.
    """

    train: Dataset
    validation: Dataset
    test: Dataset

    @property
    def held_out(self) -> bool:
        """Whether the validation examples are others than the training examples."""
        return self.validation is not self.train

    def __post_init__(self) -> None:
        expected = _format(self.train)
        for part, dataset in (("validation", self.validation), ("test", self.test)):
            for field, value in _format(dataset).items():
                if value != expected[field]:
                    raise ValueError(
                        f"{part} must have the {field} of train, {expected[field]}, got {value}; "
                        "apply the same transforms to all three, for instance with map_splits"
                    )


def _format(dataset: Dataset) -> dict[str, object]:
    return {
        "n_inputs": dataset.n_inputs,
        "dtype": dataset.x.dtype.name,
        "n_classes": dataset.n_classes,
        "image_shape": dataset.image_shape,
        "step": dataset.step,
    }


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _check_inputs(x: np.ndarray) -> None:
    if x.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"x must be uint8 or float32, got {x.dtype.name}; "
            "use x.astype(np.float32), or np.uint8 for raw pixels"
        )
    if x.ndim != 2:
        raise ValueError(
            f"x must have shape (n_examples, n_inputs), got {x.shape}; "
            "flatten images with x.reshape(len(x), -1) and pass image_shape"
        )
    if x.size == 0:
        raise ValueError(
            f"x must hold at least one example and one input, got shape {x.shape}; "
            "check the selection that made it"
        )
    if x.dtype == np.float32 and not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(
            f"x must be finite, got {x[row, column]} at x[{row}, {column}]; "
            "remove or fill in that example"
        )


def _check_labels(y: np.ndarray, n_examples: int, n_classes: int) -> None:
    if n_classes < 2:
        raise ValueError(
            f"n_classes must be at least 2, got {n_classes}; one class leaves nothing to learn"
        )
    if y.dtype != np.int32:
        raise ValueError(f"y must be int32, got {y.dtype.name}; use y.astype(np.int32)")
    if y.shape != (n_examples,):
        raise ValueError(
            f"y must have shape ({n_examples},), one label a row of x, got {y.shape}; "
            "pass class numbers, not one-hot rows, for the same examples as x"
        )
    if y.min() < 0 or y.max() >= n_classes:
        raise ValueError(
            f"y must lie in 0..{n_classes - 1} for n_classes={n_classes}, "
            f"got {y.min()}..{y.max()}; renumber the labels or raise n_classes"
        )


def _check_image_shape(image_shape: tuple[int, int] | None, n_inputs: int) -> None:
    if image_shape is None:
        return
    if len(image_shape) != 2 or min(image_shape) < 1 or math.prod(image_shape) != n_inputs:
        raise ValueError(
            f"image_shape must be (height, width) with height * width = {n_inputs}, the number "
            f"of inputs, got {image_shape}; use None when the inputs are not an image"
        )


def _check_step(x: np.ndarray, step: float | None) -> None:
    if x.dtype == np.uint8:
        if step != 1.0:
            raise ValueError(
                f"step must be 1.0 for uint8 x, got {step}; "
                "convert raw pixels with scale_pixels, quantise or binarise"
            )
        return
    if step is None:
        return
    if not (math.isfinite(step) and step > 0):
        raise ValueError(
            f"step must be positive and finite, got {step}; use None for real-valued inputs"
        )
    rows = max(1, _CHECKED_ELEMENTS // x.shape[1])
    for start in range(0, len(x), rows):
        multiple = x[start : start + rows] / np.float64(step)
        error = np.abs(multiple - np.rint(multiple))
        wrong = error > _LATTICE_TOLERANCE * np.maximum(1.0, np.abs(multiple))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"step must divide every input, got step={step} and "
                f"x[{start + row}, {column}] = {x[start + row, column]}; "
                "use None for real-valued inputs"
            )
