"""The MNIST database of handwritten digits, shipped with the package (see DATA_CARD.md).

Source: Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/, licence CC BY-SA 3.0.
"""

import hashlib
import io
from importlib import resources

import numpy as np

from .dataset import Dataset, Splits
from .file_access import DataFileError
from .split import hold_out

_SHA256 = "fb7a5fe1299ec263c94f93f9d4da93701acf7b0ffb46eec71450105808405a3a"
_N_TRAIN = 60_000
_N_CLASSES = 10
_IMAGE_SHAPE = (28, 28)


def load_mnist(*, n_validation: int = 5000, seed: int = 0) -> Splits:
    """Load the 70,000 MNIST digits as raw pixels: 60,000 to train and validate, 10,000 to test.

    Args:
        n_validation: number of the 60,000 training rows set aside for validation, in
            1..59999; 0 is none, and the validation part is then the training part itself.
        seed: non-negative seed of the choice of validation rows.

    Returns:
        Splits of uint8 pixels in 0..255 (0 is background), 28 x 28, ten classes.

    Raises:
        ValueError: if `n_validation` or `seed` is out of range.
        DataFileError: if the shipped file is not the one described in the data card.
    """
    content = resources.files(__package__).joinpath("mnist.npz").read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise DataFileError(
            f"mnist.npz must have the SHA-256 {_SHA256}, found {found}; "
            "reinstall the package, its copy of the data is damaged"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        x = archive["x"].reshape(-1, _IMAGE_SHAPE[0] * _IMAGE_SHAPE[1])
        y = archive["y"].astype(np.int32)
    whole = Dataset(x[:_N_TRAIN], y[:_N_TRAIN], _N_CLASSES, _IMAGE_SHAPE, 1.0, "mnist")
    test = Dataset(x[_N_TRAIN:], y[_N_TRAIN:], _N_CLASSES, _IMAGE_SHAPE, 1.0, "mnist-test")
    train, validation = hold_out(whole, n_validation, seed=seed)
    return Splits(train, validation, test)
