"""Where examples come from: shipped MNIST, files in the MNIST formats, pure transforms.

A `Dataset` is a table of inputs and labels; `Splits` are three of them. Loaders return
`Splits`, transforms map a `Dataset` to a new one, and `map_splits` applies a transform to
all three parts:

    load_mnist / load_files / load_idx / make_gaussians -> Splits
    map_splits(splits, transform) -> Splits
"""

from .dataset import Dataset, Splits
from .file_access import DataFileError
from .files import load_files, load_idx
from .gaussians import make_gaussians
from .idx import read_idx
from .mnist import load_mnist
from .split import split_validation
from .transforms import (
    binarise,
    downsample_mean,
    map_splits,
    pick_pixels,
    quantise,
    scale_pixels,
    select_classes,
)

__all__ = [
    "DataFileError",
    "Dataset",
    "Splits",
    "binarise",
    "downsample_mean",
    "load_files",
    "load_idx",
    "load_mnist",
    "make_gaussians",
    "map_splits",
    "pick_pixels",
    "quantise",
    "read_idx",
    "scale_pixels",
    "select_classes",
    "split_validation",
]
