"""Any set of labelled images in the formats in which MNIST is distributed."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import Dataset, Splits
from .file_access import DataFileError
from .idx import read_idx
from .npz import read_npz, train_and_test_arrays
from .split import split_validation

_LARGEST_LABEL = 255


def load_files(
    path: str | os.PathLike[str], *, n_validation: int | None = None, seed: int = 0
) -> Splits:
    """Load labelled images from a folder of IDX files or from an .npz file.

    A folder holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte
    and t10k-labels-idx1-ubyte; a dot may replace the hyphen before "idx", and each may be
    compressed, with .gz at the end. An .npz file holds x_train, y_train, x_test and y_test,
    or x and y with the training rows first: as many as the integer n_train states, or
    without it all but the last seventh.

    Images are (n, height, width) or rows of inputs (n, n_inputs). Integers in 0..255 become
    uint8 with step 1.0, real numbers become float32 with step None.

    Args:
        path: the folder or the .npz file.
        n_validation: number of training rows set aside for validation, at least 1 and less
            than all; None sets aside one twelfth (5,000 of MNIST's 60,000), at least 1.
        seed: non-negative seed of the choice of validation rows.

    Returns:
        Splits named after `path`, with one class more than the largest label.

    Raises:
        DataFileError: if a file is missing, damaged, or breaks a rule above.
        ValueError: if `n_validation` or `seed` is out of range.
    """
    path = Path(path)
    if path.is_dir():
        name = path.resolve().name
        train, test = _idx_examples(path, "train"), _idx_examples(path, "t10k")
    elif path.suffix == ".npz":
        name = path.stem
        (x_train, y_train), (x_test, y_test) = train_and_test_arrays(path, read_npz(path))
        train = _examples(path, x_train, path, y_train)
        test = _examples(path, x_test, path, y_test)
    else:
        raise DataFileError(
            f"{path} must be a folder of IDX files or an .npz file, "
            f"found {'another kind of file' if path.exists() else 'nothing there'}; check the path"
        )
    if train.image_shape != test.image_shape or train.x.dtype != test.x.dtype:
        raise DataFileError(
            f"{path} must hold training and test images of one shape and type, found "
            f"{train.image_shape} {train.x.dtype.name} and "
            f"{test.image_shape} {test.x.dtype.name}; convert one of them"
        )
    n_classes = 1 + int(max(train.y.max(), test.y.max()))
    if n_classes < 2:
        raise DataFileError(
            f"{path} must hold labels of at least 2 classes, found only 0; add the other classes"
        )
    whole = train.dataset(n_classes, name)
    if n_validation is None:
        n_validation = max(1, len(whole) // 12)
    training, validation = split_validation(whole, n_validation, seed=seed)
    return Splits(training, validation, test.dataset(n_classes, f"{name}-test"))


@dataclass(frozen=True)
class _Examples:
    """Images and labels of one part, in the types of a Dataset."""

    x: np.ndarray
    y: np.ndarray
    image_shape: tuple[int, ...]

    def dataset(self, n_classes: int, name: str) -> Dataset:
        """The examples as a Dataset."""
        return Dataset(
            self.x,
            self.y,
            n_classes,
            (self.image_shape[0], self.image_shape[1]) if len(self.image_shape) == 2 else None,
            1.0 if self.x.dtype == np.uint8 else None,
            name,
        )


def _idx_examples(folder: Path, part: str) -> _Examples:
    images, labels = _find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)
    return _examples(images, read_idx(images), labels, read_idx(labels))


def _find(folder: Path, stem: str, rank: int) -> Path:
    names = [f"{stem}{mark}idx{rank}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataFileError(
        f"{folder} must hold one of {', '.join(names)}, found none of them; "
        "add the file or correct its name"
    )


def _examples(
    image_path: Path, images: np.ndarray, label_path: Path, labels: np.ndarray
) -> _Examples:
    """Check and convert the images and labels of one part."""
    if images.ndim not in (2, 3) or images.size == 0:
        raise DataFileError(
            f"{image_path} must hold images of shape (n, height, width) or (n, n_inputs), "
            f"not empty, found shape {images.shape}; reshape them, colours to one channel"
        )
    if labels.ndim != 1:
        raise DataFileError(
            f"{label_path} must hold labels of shape (n,), found shape {labels.shape}; "
            "write class numbers, not one-hot rows"
        )
    if len(images) != len(labels):
        raise DataFileError(
            f"{label_path} must hold one label an image, found {len(labels)} labels for "
            f"{len(images)} images in {image_path}; take both files from one release"
        )
    x = _inputs(image_path, images.reshape(len(images), -1))
    return _Examples(x, _labels(label_path, labels), images.shape[1:])


def _inputs(path: Path, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "iub":
        if x.min() < 0 or x.max() > np.iinfo(np.uint8).max:
            raise DataFileError(
                f"{path} must hold integer pixels in 0..255, found {x.min()}..{x.max()}; "
                "write other values as real numbers"
            )
        return x.astype(np.uint8, copy=False)
    if x.dtype.kind != "f":
        raise DataFileError(
            f"{path} must hold numbers as images, found {x.dtype}; write uint8 or float32"
        )
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise DataFileError(
            f"{path} must hold images that are finite in float32, "
            f"found {x[~np.isfinite(x)][0]}; remove or fill in those examples"
        )
    return x


def _labels(path: Path, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "iubf":
        raise DataFileError(
            f"{path} must hold numbers as labels, found {y.dtype}; number the classes from 0"
        )
    for wrong, rule in (
        (y != np.floor(y), "whole numbers"),
        (y < 0, "labels of at least 0"),
        (y > _LARGEST_LABEL, f"labels of at most {_LARGEST_LABEL}"),
    ):
        if wrong.any():
            raise DataFileError(
                f"{path} must hold {rule}, found {y[wrong][0]} at row {np.flatnonzero(wrong)[0]}; "
                "number the classes from 0"
            )
    return y.astype(np.int32)
