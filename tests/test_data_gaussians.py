"""The published task of Gaussian clouds, and training without held-out examples."""

import numpy as np
import pytest

from hypercircuit.config import Config, ConfigError
from hypercircuit.data import load_mnist, make_gaussians, split_validation
from hypercircuit.data.split import hold_out
from hypercircuit.problem import load_splits

CENTRES = np.array([[-1.0, -2.0], [-2.0, 1.0], [1.0, 1.0], [2.0, -2.0]])


def whole(splits) -> tuple[np.ndarray, np.ndarray]:
    parts = (splits.train, splits.validation)
    return np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts])


def test_format():
    splits = make_gaussians()
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [9167, 833, 1000]
    train = splits.train
    assert (train.x.dtype, train.n_classes, train.image_shape, train.step) == (
        np.float32,
        2,
        None,
        None,
    )
    assert (train.name, splits.test.name) == ("gaussians-train", "gaussians-test")


def test_clouds_have_the_published_moments():
    """Counts, means and covariances, four standard errors either way."""
    x, y = whole(make_gaussians(20_000, seed=3))
    n = len(x)
    nearest = np.argmin(((x[:, None] - CENTRES) ** 2).sum(2), axis=1)
    # The centres are over six standard deviations apart: no point is on the wrong side.
    np.testing.assert_array_equal(y, nearest > 0)
    for cloud, share in enumerate((1 / 2, 1 / 6, 1 / 6, 1 / 6)):
        points = x[nearest == cloud].astype(float)
        m = len(points)
        assert abs(m / n - share) < 4 * np.sqrt(share * (1 - share) / n)
        assert np.abs(points.mean(0) - CENTRES[cloud]).max() < 4 * np.sqrt(0.1 / m)
        covariance = np.cov(points.T)
        assert np.abs(np.diag(covariance) - 0.1).max() < 4 * 0.1 * np.sqrt(2 / m)
        assert abs(covariance[0, 1]) < 4 * 0.1 / np.sqrt(m)


def test_seed_decides_everything():
    first, again, other = (make_gaussians(50, seed=seed) for seed in (1, 1, 2))
    for part in ("train", "validation", "test"):
        assert getattr(first, part).fingerprint == getattr(again, part).fingerprint
        assert getattr(first, part).fingerprint != getattr(other, part).fingerprint


def test_nothing_held_out():
    splits = make_gaussians(50, n_validation=0)
    assert splits.train is splits.validation
    assert len(splits.train) == 50
    data = splits.test
    assert hold_out(data, 0) == (data, data)
    for held, expected in zip(
        hold_out(data, 9, seed=2), split_validation(data, 9, seed=2), strict=True
    ):
        assert held.fingerprint == expected.fingerprint
    assert len(load_mnist(n_validation=0).train) == 60_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_points": 0}, "n_points must be at least 1, got 0"),
        ({"n_test": 0}, "n_test must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"n_points": 5, "n_validation": 5}, "n_validation must be at least 1 and less than the 5"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_gaussians(**arguments)


def config(**data) -> Config:
    return Config.from_dict({"data": data})


def test_configured():
    splits = load_splits(config(source="gaussians", n_points=60, split_seed=4))
    expected = make_gaussians(60, seed=4)
    assert splits.train.fingerprint == expected.train.fingerprint
    splits = load_splits(config(source="gaussians", n_points=60, validation="none"))
    assert splits.train is not None
    assert splits.validation.fingerprint == splits.train.fingerprint
    assert len(splits.train) == 60


def test_all_the_mnist_images_of_two_digits():
    """12,665 zeros and ones: the number of the published task."""
    pick = {"downsample": "pick", "rows": [3, 10], "columns": [10, 17]}
    splits = load_splits(config(classes=[0, 1], validation="none", **pick))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12_665, 12_665, 2115)
    few = load_splits(config(classes=[0, 1], validation="none", n_train=100, **pick))
    assert few.validation.fingerprint == few.train.fingerprint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "gausians"}, "did you mean 'gaussians'"),
        ({"n_points": 10}, "data.n_points is used only with data.source='gaussians'"),
        ({"source": "gaussians", "path": "x.npz"}, "data.source is used only without data.path"),
        ({"source": "gaussians", "classes": [0, 1]}, "data.classes is of no use with"),
        ({"source": "gaussians", "pixels": "binarise"}, "data.pixels is of no use with"),
        ({"validation": "none", "n_validation": 5}, "used only with data.validation='split'"),
    ],
)
def test_wrong_configuration(data, message):
    with pytest.raises(ConfigError, match=message):
        config(**data)
