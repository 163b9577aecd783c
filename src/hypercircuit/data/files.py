"""Any set of labelled images in the formats in which MNIST is distributed."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import Dataset, Splits
from .file_access import DataFileError, FileArray
from .idx import read_idx
from .npz import read_npz, train_and_test_arrays
from .split import hold_out

_LARGEST_LABEL = 255
_IDX_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_RANKS = {"images": 3, "labels": 1}


def load_files(
    path: str | os.PathLike[str],
    *,
    n_classes: int | None = None,
    n_validation: int | None = None,
    seed: int = 0,
) -> Splits:
    """Load labelled images from IDX files of the usual names or from an .npz file.

    A folder of IDX files holds train-images-idx3-ubyte, train-labels-idx1-ubyte,
    t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte; a dot may replace the hyphen before
    "idx", and each may be compressed, with .gz at the end. Any one of the four stands for
    the set; the other three lie beside it. An .npz file holds x_train, y_train, x_test and
    y_test, or x and y with the training rows first: as many as the integer n_train states,
    or without it all but the last seventh.

    Images are (n, height, width) or rows of inputs (n, n_inputs). Integers in 0..255 become
    uint8 with step 1.0, real numbers become float32 with step None.

    Args:
        path: the folder, one of the four IDX files, or the .npz file.
        n_classes: number of classes, at least 2; labels are 0..n_classes-1, and a class may
            have no example. None takes one more than the largest label, and requires an
            example of each class among the training rows.
        n_validation: number of training rows set aside for validation, at least 1 and less
            than all; None sets aside one twelfth (5,000 of MNIST's 60,000), at least 1; 0 sets
            aside none, and the validation part is then the training part itself.
        seed: non-negative seed of the choice of validation rows.

    Returns:
        Splits named after the folder or the .npz file.

    Raises:
        DataFileError: if a file is missing, damaged, or breaks a rule above.
        ValueError: if `n_classes`, `n_validation` or `seed` is out of range.
    """
    path = Path(path)
    if path.is_dir():
        name, (train, test) = path.resolve().name, _idx_folder(path)
    elif path.suffix == ".npz":
        name, (train, test) = path.stem, train_and_test_arrays(path, read_npz(path))
    elif path.is_file() and (spelling := _idx_spelling(path.name)) is not None:
        name, (train, test) = path.parent.resolve().name, _idx_folder(path.parent, spelling)
    else:
        standard = ", ".join(_idx_name(stem, "-", "") for stem in _IDX_STEMS)
        raise DataFileError(
            f"{path} must be a folder of IDX files, an .npz file or one of {standard} (or .gz), "
            f"found {'another kind or name of file' if path.exists() else 'nothing there'}; "
            "check the path, or read IDX files of other names with load_idx"
        )
    return _splits(name, train, test, n_classes, n_validation, seed)


def load_idx(
    train_images: str | os.PathLike[str],
    train_labels: str | os.PathLike[str],
    test_images: str | os.PathLike[str],
    test_labels: str | os.PathLike[str],
    *,
    n_classes: int | None = None,
    n_validation: int | None = None,
    seed: int = 0,
) -> Splits:
    """Load labelled images from four IDX files of any names, compressed where they end in .gz.

    Args:
        train_images: file of the training images, as in `load_files`.
        train_labels: file of their labels.
        test_images: file of the test images.
        test_labels: file of their labels.
        n_classes: as in `load_files`.
        n_validation: as in `load_files`.
        seed: as in `load_files`.

    Returns:
        Splits named after the file of the training images, without .gz.

    Raises:
        DataFileError: if a file is missing, damaged, or breaks a rule of `load_files`.
        ValueError: if `n_classes`, `n_validation` or `seed` is out of range.
    """
    name = Path(train_images).name.removesuffix(".gz")
    train = _idx_array(Path(train_images)), _idx_array(Path(train_labels))
    test = _idx_array(Path(test_images)), _idx_array(Path(test_labels))
    return _splits(name, train, test, n_classes, n_validation, seed)


_Pair = tuple[FileArray, FileArray]


def _splits(
    name: str,
    train_arrays: _Pair,
    test_arrays: _Pair,
    n_classes: int | None,
    n_validation: int | None,
    seed: int,
) -> Splits:
    """Check images and labels, within and between the two parts, and split them."""
    if n_classes is not None and n_classes < 2:
        raise ValueError(
            f"n_classes must be at least 2, got {n_classes}; leave it out to count the labels"
        )
    train, test = _examples(*train_arrays, n_classes), _examples(*test_arrays, n_classes)
    if train.image_shape != test.image_shape or train.x.dtype != test.x.dtype:
        raise DataFileError(
            f"{train_arrays[0].name} and {test_arrays[0].name} must hold images of one shape and "
            f"type, found {train.image_shape} {train.x.dtype.name} and "
            f"{test.image_shape} {test.x.dtype.name}; convert one of them"
        )
    if n_classes is None:
        n_classes = _count_classes(train_arrays[1], train.y, test_arrays[1], test.y)
    whole = train.dataset(n_classes, name)
    if n_validation is None:
        n_validation = max(1, len(whole) // 12)
    training, validation = hold_out(whole, n_validation, seed=seed)
    return Splits(training, validation, test.dataset(n_classes, f"{name}-test"))


def _count_classes(
    train: FileArray, y_train: np.ndarray, test: FileArray, y_test: np.ndarray
) -> int:
    """One more than the largest label, if every class has a training example.

    A gap in the labels shows a damaged label, or a set that lacks a class.
    """
    largest = int(max(y_train.max(), y_test.max()))
    if largest == 0:
        raise DataFileError(
            f"{train.name} must hold labels of at least 2 classes, found only 0; "
            "add the other classes"
        )
    missing = np.flatnonzero(np.bincount(y_train, minlength=largest + 1) == 0)
    if missing.size:
        file, y = (train, y_train) if y_train.max() == largest else (test, y_test)
        row = file.first_row + int(y.argmax())
        raise DataFileError(
            f"{train.name} must hold every class up to the largest label, {largest} at row {row} "
            f"of {file.name}, found no example of class {missing[0]}; correct that label, or "
            "pass n_classes (data.n_classes in a configuration)"
        )
    return largest + 1


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


def _idx_name(stem: str, mark: str, end: str) -> str:
    """Usual name of an IDX file: "train-images", "-", ".gz" -> train-images-idx3-ubyte.gz."""
    return f"{stem}{mark}idx{_RANKS[stem.split('-')[1]]}-ubyte{end}"


_SPELLINGS = [(mark, end) for end in ("", ".gz") for mark in "-."]


def _idx_spelling(name: str) -> tuple[str, str] | None:
    """The (mark, end) with which `name` is one of the four usual names, else None."""
    for spelling in _SPELLINGS:
        if any(name == _idx_name(stem, *spelling) for stem in _IDX_STEMS):
            return spelling
    return None


def _idx_folder(folder: Path, first: tuple[str, str] = _SPELLINGS[0]) -> tuple[_Pair, _Pair]:
    """The four arrays of a folder; where a file is there twice, `first` is the spelling taken."""
    spellings = [first, *(other for other in _SPELLINGS if other != first)]
    arrays = [_idx_array(_find(folder, stem, spellings)) for stem in _IDX_STEMS]
    return (arrays[0], arrays[1]), (arrays[2], arrays[3])


def _find(folder: Path, stem: str, spellings: list[tuple[str, str]]) -> Path:
    names = [_idx_name(stem, *spelling) for spelling in spellings]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataFileError(
        f"{folder} must hold one of {', '.join(names)}, found none of them; "
        "add the file or correct its name"
    )


def _idx_array(path: Path) -> FileArray:
    return FileArray(str(path), read_idx(path))


def _examples(image_file: FileArray, label_file: FileArray, n_classes: int | None) -> _Examples:
    """Check and convert the images and labels of one part."""
    images, labels = image_file.values, label_file.values
    if images.ndim not in (2, 3) or images.size == 0:
        raise DataFileError(
            f"{image_file.name} must hold images of shape (n, height, width) or (n, n_inputs), "
            f"not empty, found shape {images.shape}; reshape them, colours to one channel"
        )
    if labels.ndim != 1:
        raise DataFileError(
            f"{label_file.name} must hold labels of shape (n,), found shape {labels.shape}; "
            "write class numbers, not one-hot rows"
        )
    if len(images) != len(labels):
        raise DataFileError(
            f"{label_file.name} must hold one label an image, found {len(labels)} labels for "
            f"{len(images)} images in {image_file.name}; take both files from one release"
        )
    x = _inputs(image_file.name, images.reshape(len(images), -1))
    return _Examples(x, _labels(label_file, n_classes), images.shape[1:])


def _inputs(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "iub":
        if x.min() < 0 or x.max() > np.iinfo(np.uint8).max:
            raise DataFileError(
                f"{name} must hold integer pixels in 0..255, found {x.min()}..{x.max()}; "
                "write other values as real numbers"
            )
        return x.astype(np.uint8, copy=False)
    if x.dtype.kind != "f":
        raise DataFileError(
            f"{name} must hold numbers as images, found {x.dtype}; write uint8 or float32"
        )
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise DataFileError(
            f"{name} must hold images that are finite in float32, "
            f"found {x[~np.isfinite(x)][0]}; remove or fill in those examples"
        )
    return x


def _labels(file: FileArray, n_classes: int | None) -> np.ndarray:
    y = file.values
    if y.dtype.kind not in "iubf":
        raise DataFileError(
            f"{file.name} must hold numbers as labels, found {y.dtype}; number the classes from 0"
        )
    limit, limit_rule, limit_fix = _LARGEST_LABEL, f"labels of at most {_LARGEST_LABEL}", ""
    if n_classes is not None:
        limit, limit_rule = n_classes - 1, f"labels less than n_classes, {n_classes}"
        limit_fix = "correct that label, or pass a larger n_classes"
    for wrong, rule, fix in (
        (y != np.floor(y), "whole numbers", ""),
        (y < 0, "labels of at least 0", ""),
        (y > limit, limit_rule, limit_fix),
    ):
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            raise DataFileError(
                f"{file.name} must hold {rule}, found {y[row]} at row {file.first_row + row}; "
                f"{fix or 'number the classes from 0'}"
            )
    return y.astype(np.int32)
