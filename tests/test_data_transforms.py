"""Transforms against plain loops on images that are not square and classes that are unequal."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from hypercircuit.data import (
    Dataset,
    Splits,
    binarise,
    downsample_mean,
    map_splits,
    pick_pixels,
    quantise,
    scale_pixels,
    select_classes,
)

LABELS = np.array([2, 0, 2, 4, 1, 2, 0, 4, 2, 2, 4], dtype=np.int32)


@pytest.fixture
def raw():
    x = np.random.default_rng(8).integers(0, 256, (11, 4 * 6), dtype=np.uint8)
    x[0, :2] = 0, 255
    return Dataset(x, LABELS, 5, (4, 6), 1.0, "noise")


@pytest.fixture
def every_pixel_value():
    x = np.arange(256, dtype=np.uint8)[:, None]
    return Dataset(x, np.zeros(256, dtype=np.int32), 2, (1, 1), 1.0, "values")


def real_copy(dataset, scale=1.0):
    x = dataset.x * np.float32(scale)
    return dataclasses.replace(dataset, x=x, step=None)


def test_select_classes_relabels_in_the_given_order(raw):
    before = raw.fingerprint
    chosen = select_classes(raw, (4, 0, 2))
    rows = [i for i in range(11) if LABELS[i] in (4, 0, 2)]
    np.testing.assert_array_equal(chosen.x, raw.x[rows])
    np.testing.assert_array_equal(chosen.y, [2, 1, 2, 0, 2, 1, 0, 2, 2, 0])
    assert (chosen.n_classes, chosen.image_shape, chosen.step) == (3, (4, 6), 1.0)
    assert chosen.y.dtype == np.int32
    assert dataclasses.replace(raw).fingerprint == before


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), r"classes must name at least 2 classes, got \(\); add another label"),
        ((2,), r"classes must name at least 2 classes, got \(2,\)"),
        ((2, 0, 2), r"classes must differ, got \(2, 0, 2\); name each class once"),
        ((2, 5), r"classes must lie in 0\.\.4, got 5; 'noise' has 5 classes"),
        ((-1, 2), r"classes must lie in 0\.\.4, got -1"),
        ((2, 3), "classes must each have an example, got 3, which has none in 'noise'; leave"),
    ],
)
def test_select_classes_refuses(raw, classes, message):
    with pytest.raises(ValueError, match=message):
        select_classes(raw, classes)


def test_scale_pixels_is_correctly_rounded(every_pixel_value):
    scaled = scale_pixels(every_pixel_value)
    expected = np.array([float(Fraction(k, 255)) for k in range(256)], dtype=np.float32)
    np.testing.assert_array_equal(scaled.x[:, 0], expected)
    assert (scaled.x.dtype, scaled.step) == (np.float32, 1 / 255)


def test_scale_pixels_refuses_features(raw):
    with pytest.raises(ValueError, match="must hold uint8 pixels, got float32 in 'noise'; its"):
        scale_pixels(scale_pixels(raw))


@pytest.mark.parametrize("levels", [2, 3, 4, 7, 16, 256])
def test_quantise_takes_the_nearest_level(every_pixel_value, levels):
    ladder = [Fraction(k, levels - 1) for k in range(levels)]
    nearest = [min(ladder, key=lambda level: abs(level - Fraction(k, 255))) for k in range(256)]
    expected = np.array([float(level) for level in nearest], dtype=np.float32)
    for dataset in (every_pixel_value, scale_pixels(every_pixel_value)):
        quantised = quantise(dataset, levels)
        np.testing.assert_array_equal(quantised.x[:, 0], expected)
        assert (quantised.x.dtype, quantised.step) == (np.float32, 1 / (levels - 1))
        assert len(np.unique(quantised.x)) == levels


def test_quantise_crosses_blocks():
    x = np.random.default_rng(1).integers(0, 256, (1500, 784), dtype=np.uint8)
    dataset = Dataset(x, np.zeros(1500, dtype=np.int32), 2, (28, 28), 1.0, "many")
    np.testing.assert_array_equal(quantise(dataset, 2).x, x > 127)


def test_quantise_refuses(raw):
    with pytest.raises(ValueError, match="levels must be at least 2, got 1; 2 gives black"):
        quantise(raw, 1)
    for scale in (2 / 255, -1 / 255):
        with pytest.raises(
            ValueError, match=r"inputs in \[0, 1\], got .* in 'noise'; rescale them"
        ):
            quantise(real_copy(raw, scale), 4)


def test_binarise_is_strict_and_in_the_units_of_the_inputs(every_pixel_value):
    for threshold in (127, 127.5):
        binary = binarise(every_pixel_value, threshold)
        np.testing.assert_array_equal(binary.x[:, 0], [0.0] * 128 + [1.0] * 128)
        assert (binary.x.dtype, binary.step) == (np.float32, 1.0)
    scaled = scale_pixels(every_pixel_value)
    np.testing.assert_array_equal(binarise(scaled, 51 / 255).x[:, 0], [0.0] * 52 + [1.0] * 204)
    np.testing.assert_array_equal(binarise(every_pixel_value, 0).x[:, 0], [0.0] + [1.0] * 255)


@pytest.mark.parametrize("threshold", [1, 127, -0.1, 1e300, float("nan")])
def test_binarise_refuses_a_threshold_outside_the_inputs(raw, threshold):
    message = (
        rf"threshold must be at least the smallest .*, 0.0 and 1.0 in 'noise', got {threshold}"
    )
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        binarise(scale_pixels(raw), threshold)
    with pytest.raises(ValueError, match="0 and 255 in 'noise', got 300; give it in the units"):
        binarise(raw, 300)


def area_mean(images, shape):
    """Mean over equal rectangles, by repeating pixels until the rectangles are whole."""
    (n, height, width), (rows, columns) = images.shape, shape
    fine = np.repeat(np.repeat(images.astype(np.float64), rows, axis=1), columns, axis=2)
    return fine.reshape(n, rows, height, columns, width).mean(axis=(2, 4)).reshape(n, -1)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 4), (4, 5), (3, 6), (4, 6), (1, 5)])
def test_downsample_mean(raw, shape):
    divides = 4 % shape[0] == 0 and 6 % shape[1] == 0
    area = 24 / (shape[0] * shape[1])
    for dataset in (raw, scale_pixels(raw), real_copy(raw, 0.37)):
        small = downsample_mean(dataset, shape)
        expected = area_mean(dataset.x.reshape(-1, 4, 6), shape)
        np.testing.assert_allclose(small.x, expected, rtol=2e-7, atol=1e-9)
        assert (small.x.dtype, small.image_shape) == (np.float32, shape)
        if divides and dataset.step is not None:
            assert small.step == pytest.approx(dataset.step / area, rel=1e-15)
        else:
            assert small.step is None


def test_downsample_mean_is_exact_on_the_lattice(raw):
    small = downsample_mean(raw, (2, 2))
    sums = raw.x.astype(int).reshape(-1, 2, 2, 2, 3).sum(axis=(2, 4)).reshape(-1, 4)
    assert small.step == 1 / 6
    np.testing.assert_array_equal(small.x, (sums / 6).astype(np.float32))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (5, 6), (4, 7)])
def test_downsample_mean_refuses_other_shapes(raw, shape):
    message = rf"shape must lie between \(1, 1\) and the image shape \(4, 6\), got \({shape[0]}, "
    with pytest.raises(ValueError, match=message):
        downsample_mean(raw, shape)


def test_pick_pixels_keeps_the_crossings(raw):
    picked = pick_pixels(raw, (3, 0), (5, 1, 2))
    images = raw.x.reshape(-1, 4, 6)
    expected = [[image[r, c] for r in (3, 0) for c in (5, 1, 2)] for image in images]
    np.testing.assert_array_equal(picked.x, expected)
    assert (picked.image_shape, picked.step, picked.x.dtype) == ((2, 3), 1.0, np.uint8)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ((), (1,), r"rows must name at least one pixel position, each once, got \(\); choose"),
        ((1,), (2, 2), r"columns must name at least one .* got \(2, 2\); choose from 0\.\.5"),
        ((4,), (1,), r"rows must lie in 0\.\.3 for images of shape \(4, 6\), got \(4,\); count"),
        ((1,), (-1, 2), r"columns must lie in 0\.\.5 for images .* got \(-1, 2\)"),
    ],
)
def test_pick_pixels_refuses(raw, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        pick_pixels(raw, rows, columns)


@pytest.mark.parametrize(
    "transform",
    [lambda d: downsample_mean(d, (2, 2)), lambda d: pick_pixels(d, (0,), (1,))],
)
def test_image_transforms_need_images(raw, transform):
    table = dataclasses.replace(raw, image_shape=None)
    with pytest.raises(ValueError, match="must hold images, got image_shape=None in 'noise'; set"):
        transform(table)


def test_map_splits_transforms_every_part(raw):
    splits = Splits(raw, raw.take([4, 0]), raw.take([7, 1, 5]))
    binary = map_splits(splits, lambda dataset: binarise(dataset, 127))
    for before, after in (
        (splits.train, binary.train),
        (splits.validation, binary.validation),
        (splits.test, binary.test),
    ):
        np.testing.assert_array_equal(after.x, before.x > 127)
        np.testing.assert_array_equal(after.y, before.y)
        assert after.name == "noise"


def test_map_splits_keeps_the_examples_that_stand_in(raw):
    whole = Splits(raw, raw, raw.take([7, 1, 5]))
    assert not whole.held_out
    assert Splits(raw, raw.take([4, 0]), raw).held_out
    mapped = map_splits(whole, lambda dataset: binarise(dataset, 127))
    assert not mapped.held_out
    assert mapped.validation is mapped.train


def test_map_splits_refuses_transforms_that_disagree(raw):
    splits = Splits(raw, raw.take([0, 1]), raw.take([0, 1, 2]))
    with pytest.raises(ValueError, match="test must have the n_inputs of train, 6, got 12"):
        map_splits(splits, lambda d: pick_pixels(d, range(1 if len(d) != 3 else 2), range(6)))
