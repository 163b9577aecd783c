"""The published two-dimensional task: four Gaussian clouds of two classes.

            x1
      o  2 |        class 0  x  around (-1, -2)
    -------+-1---o----   class 1  o  around (-2, 1), (1, 1) and (2, -2), a third each
           |         x0
        x  |    o        covariance 0.1 times the identity

Source: arXiv:2301.08292, the toy problem of its hyperparameter study.
"""

import numpy as np

from .dataset import Dataset, Splits
from .split import hold_out

_CENTRES = ((-1.0, -2.0), (-2.0, 1.0), (1.0, 1.0), (2.0, -2.0))
_VARIANCE = 0.1


def make_gaussians(
    n_points: int = 10_000, *, n_validation: int | None = None, n_test: int = 1000, seed: int = 0
) -> Splits:
    """Draw points in the plane: class 0 from one Gaussian cloud, class 1 from three.

    Both classes are equally likely, and so are the clouds of class 1; every point is drawn
    independently. The clouds lie around (-1, -2) for class 0 and (-2, 1), (1, 1), (2, -2) for
    class 1, with variance 0.1 in both directions.

    Args:
        n_points: training and validation points, at least 1.
        n_validation: points among them set aside for validation; None is one twelfth, at least
            1; 0 is none, and the validation part is then the training part itself.
        n_test: further points to test on, at least 1.
        seed: non-negative seed of the points and of the choice of validation points.

    Returns:
        Splits of float32 points, shape (n, 2), without a lattice.

    Raises:
        ValueError: if an argument is out of range.
    """
    for name, value in (("n_points", n_points), ("n_test", n_test)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; the default is 10000")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}; choose a non-negative integer")
    rng = np.random.default_rng(seed)
    whole, test = _draw(rng, n_points, "gaussians"), _draw(rng, n_test, "gaussians-test")
    if n_validation is None:
        n_validation = max(1, n_points // 12)
    train, validation = hold_out(whole, n_validation, seed=seed)
    return Splits(train, validation, test)


def _draw(rng: np.random.Generator, n: int, name: str) -> Dataset:
    y = rng.integers(0, 2, n)
    cloud = np.where(y == 0, 0, 1 + rng.integers(0, 3, n))
    x = np.array(_CENTRES)[cloud] + np.sqrt(_VARIANCE) * rng.standard_normal((n, 2))
    return Dataset(x.astype(np.float32), y.astype(np.int32), 2, None, None, name)
