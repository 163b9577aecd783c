"""Dataset, Splits, the validation split and the shipped MNIST."""

import dataclasses
import hashlib
import re
import struct

import numpy as np
import pytest

from hypercircuit.data import (
    DataFileError,
    Dataset,
    Splits,
    load_mnist,
    mnist,
    split_validation,
)


def example(n_examples=5, shape=(2, 3), n_classes=3):
    x = np.arange(n_examples * shape[0] * shape[1], dtype=np.uint8).reshape(n_examples, -1)
    y = (np.arange(n_examples) % n_classes).astype(np.int32)
    return Dataset(x, y, n_classes, shape, 1.0, "example")


@pytest.fixture(scope="module")
def digits():
    return load_mnist()


def test_dataset_reports_its_size():
    dataset = example()
    assert len(dataset) == 5
    assert dataset.n_inputs == 6
    assert dataset.image_shape == (2, 3)


def test_arrays_are_read_only_and_the_callers_array_is_left_as_it_was():
    x = np.ones((2, 3), dtype=np.float32)
    dataset = Dataset(x, np.array([0, 1], dtype=np.int32), 2, None, None, "ones")
    with pytest.raises(ValueError, match="read-only"):
        dataset.x[0, 0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        dataset.y[0] = 1
    assert x.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.n_classes = 4


def test_take_follows_the_given_order():
    dataset = example()
    for indices in ([4, 0, 4], np.array([4, 0, 4], dtype=np.uint16)):
        taken = dataset.take(indices)
        np.testing.assert_array_equal(taken.x, dataset.x[[4, 0, 4]])
        np.testing.assert_array_equal(taken.y, [1, 0, 1])
        assert (taken.n_classes, taken.image_shape, taken.step) == (3, (2, 3), 1.0)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], r"indices must be a non-empty list of integers, got float64 of shape \(0,\)"),
        ([0, 5], r"indices must lie in 0\.\.4, got 0\.\.5; 'example' has 5 examples"),
        ([-1, 2], r"indices must lie in 0\.\.4, got -1\.\.2"),
        ([True, False], r"got bool of shape \(2,\); turn a mask into indices with np.flatnonzero"),
    ],
)
def test_take_refuses_wrong_indices(indices, message):
    with pytest.raises(ValueError, match=message):
        example().take(indices)


def test_fingerprint_follows_content_alone():
    dataset = example()
    assert re.fullmatch("[0-9a-f]{64}", dataset.fingerprint)
    assert dataset.fingerprint is dataset.fingerprint
    assert example().fingerprint == dataset.fingerprint
    assert dataclasses.replace(dataset, name="other").fingerprint == dataset.fingerprint
    transposed = np.asfortranarray(dataset.x)
    assert dataclasses.replace(dataset, x=transposed).fingerprint == dataset.fingerprint
    others = [
        dataset.take([0, 1, 2, 4, 3]),
        dataset.take([0, 1, 2, 3]),
        dataclasses.replace(dataset, x=dataset.x.astype(np.float32)),
        dataclasses.replace(dataset, y=dataset.y[::-1]),
        Dataset(dataset.x.reshape(10, 3), np.tile(dataset.y, 2), 3, None, 1.0, "example"),
    ]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_fingerprint_is_the_documented_hash():
    dataset = example()
    digest = hashlib.sha256(b"uint8(5, 6)" + bytes(range(30)) + b"int32(5,)")
    digest.update(struct.pack("<5i", 0, 1, 2, 0, 1))
    assert dataset.fingerprint == digest.hexdigest()


FLOATS = np.array([[0.0, 0.25, 0.5], [1.0, -0.75, 2.0]], dtype=np.float32)
LABELS = np.array([0, 1], dtype=np.int32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": FLOATS.astype(np.float64)}, "x must be uint8 or float32, got float64; use x.astype"),
        ({"x": FLOATS[None]}, r"x must have shape \(n_examples, n_inputs\), got \(1, 2, 3\); flat"),
        ({"x": FLOATS[:0]}, r"x must hold at least one example .* got shape \(0, 3\); check"),
        ({"x": FLOATS[:, :0]}, r"x must hold at least one example .* got shape \(2, 0\)"),
        ({"x": FLOATS / np.float32([[1], [np.nan]])}, r"x must be finite, got nan at x\[1, 0\]"),
        ({"n_classes": 1}, "n_classes must be at least 2, got 1; one class leaves nothing"),
        ({"y": LABELS.astype(np.int64)}, r"y must be int32, got int64; use y.astype\(np.int32\)"),
        ({"y": LABELS[:1]}, r"y must have shape \(2,\), one label a row of x, got \(1,\); pass"),
        ({"y": LABELS[:, None]}, r"y must have shape \(2,\), .*, got \(2, 1\)"),
        ({"y": LABELS + 1}, r"y must lie in 0\.\.1 for n_classes=2, got 1\.\.2; renumber"),
        ({"y": LABELS - 1}, r"y must lie in 0\.\.1 for n_classes=2, got -1\.\.0"),
        ({"image_shape": (2, 2)}, r"height \* width = 3, .* got \(2, 2\); use None when"),
        ({"image_shape": (-1, -3)}, r"height \* width = 3, .* got \(-1, -3\)"),
        ({"step": 0.0}, "step must be positive and finite, got 0.0; use None for real-valued"),
        ({"step": float("inf")}, "step must be positive and finite, got inf"),
        ({"step": 0.5}, r"step must divide every input, got step=0.5 and x\[0, 1\] = 0.25; use"),
        (
            {"x": FLOATS.astype(np.int8).astype(np.uint8), "step": None},
            "step must be 1.0 for uint8",
        ),
    ],
)
def test_dataset_refuses_wrong_arguments(changes, message):
    fields = {
        "x": FLOATS,
        "y": LABELS,
        "n_classes": 2,
        "image_shape": (1, 3),
        "step": 0.25,
        "name": "quarters",
    }
    Dataset(**fields)
    with pytest.raises(ValueError, match=message):
        Dataset(**{**fields, **changes})


def test_step_is_checked_in_every_row():
    x = np.zeros((5000, 100), dtype=np.float32)
    x[4321, 98] = 0.4
    y = np.zeros(5000, dtype=np.int32)
    with pytest.raises(ValueError, match=r"got step=1.0 and x\[4321, 98\] = 0.4"):
        Dataset(x, y, 2, None, 1.0, "zeros")


@pytest.mark.parametrize("step", [1 / 255, 1 / 3, 1 / (255 * 49), 0.1])
def test_step_admits_float32_rounding_and_no_more(step):
    multiples = (np.arange(-700, 701) * step).astype(np.float32)[:, None]
    y = np.zeros(len(multiples), dtype=np.int32)
    assert Dataset(multiples, y, 2, None, step, "multiples").step == step
    with pytest.raises(ValueError, match="step must divide every input"):
        Dataset(multiples, y, 2, None, step * 1.001, "multiples")


def test_splits_must_agree_in_format():
    dataset = example()
    assert Splits(dataset, dataset, dataset).test is dataset
    narrow = Dataset(dataset.x[:, :4], dataset.y, 3, (2, 2), 1.0, "narrow")
    real = dataclasses.replace(dataset, x=dataset.x.astype(np.float32))
    cases = [
        (narrow, r"test must have the n_inputs of train, 6, got 4; .* map_splits"),
        (real, "test must have the dtype of train, uint8, got float32"),
        (dataclasses.replace(dataset, n_classes=4), "test must have the n_classes of train, 3"),
        (dataclasses.replace(dataset, image_shape=(3, 2)), r"image_shape of train, \(2, 3\)"),
    ]
    for other, message in cases:
        with pytest.raises(ValueError, match=message):
            Splits(dataset, dataset, other)
    with pytest.raises(ValueError, match=r"validation must have the step of train, 1.0, got None"):
        Splits(real, dataclasses.replace(real, step=None), real)


def test_split_is_disjoint_complete_and_deterministic():
    x = np.arange(97, dtype=np.float32)[:, None]
    whole = Dataset(x, np.zeros(97, dtype=np.int32), 2, None, None, "rows")
    train, validation = split_validation(whole, 30, seed=4)
    assert (len(train), len(validation)) == (67, 30)
    assert (train.name, validation.name) == ("rows-train", "rows-validation")
    np.testing.assert_array_equal(np.sort(np.concatenate([train.x, validation.x]), axis=0), x)
    assert (np.diff(train.x[:, 0]) > 0).all()
    assert (np.diff(validation.x[:, 0]) > 0).all()
    again = split_validation(whole, 30, seed=4)
    assert again[0].fingerprint == train.fingerprint
    assert again[1].fingerprint == validation.fingerprint
    assert split_validation(whole, 30, seed=5)[1].fingerprint != validation.fingerprint
    smaller = split_validation(whole, 10, seed=4)[1]
    assert set(smaller.x[:, 0]) < set(validation.x[:, 0])


@pytest.mark.parametrize("n_validation", [-1, 0, 5, 6])
def test_split_refuses_wrong_sizes(n_validation):
    message = f"n_validation must be at least 1 and less than the 5 .* got {n_validation}; leave"
    with pytest.raises(ValueError, match=message):
        split_validation(example(), n_validation)


def test_split_refuses_a_negative_seed():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1; choose"):
        split_validation(example(), 2, seed=-1)


def test_mnist_has_the_published_counts(digits):
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (55000, 5000, 10000)
    assert digits.train.x.dtype == np.uint8
    for part in (digits.train, digits.validation, digits.test):
        assert (part.n_inputs, part.n_classes, part.image_shape, part.step) == (
            784,
            10,
            (28, 28),
            1.0,
        )
    trained = np.bincount(digits.train.y) + np.bincount(digits.validation.y)
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(trained, published)
    published = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(digits.test.y), published)
    assert digits.test.y[0] == 7


def idx_bytes(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def md5(array):
    return hashlib.md5(idx_bytes(array), usedforsecurity=False).hexdigest()


def test_mnist_is_bit_for_bit_the_original(digits):
    order = np.random.default_rng(0).permutation(60000)
    x, y = np.empty((60000, 784), dtype=np.uint8), np.empty(60000, dtype=np.uint8)
    for part, rows in ((digits.validation, order[:5000]), (digits.train, order[5000:])):
        x[np.sort(rows)], y[np.sort(rows)] = part.x, part.y
    assert y[0] == 5
    assert md5(x.reshape(-1, 28, 28)) == "6bbc9ace898e44ae57da46a324031adb"
    assert md5(y) == "a25bea736e30d166cdddb491f175f624"
    assert md5(digits.test.x.reshape(-1, 28, 28)) == "2646ac647ad5339dbf082846283269ea"
    assert md5(digits.test.y.astype(np.uint8)) == "27ae3e4e09519cfbb04c329615203637"


def test_mnist_split_follows_its_arguments(digits):
    other = load_mnist(n_validation=7, seed=3)
    assert (len(other.train), len(other.validation)) == (59993, 7)
    assert other.test.fingerprint == digits.test.fingerprint
    message = "n_validation must be at least 1 and less than the 60000 training rows of 'mnist'"
    with pytest.raises(ValueError, match=message):
        load_mnist(n_validation=60000)


def test_mnist_checksum_is_verified(monkeypatch):
    monkeypatch.setattr(mnist, "_SHA256", "0" * 64)
    with pytest.raises(DataFileError, match=r"mnist.npz must have the SHA-256 0000.*reinstall"):
        load_mnist()
