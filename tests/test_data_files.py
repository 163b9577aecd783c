"""IDX and .npz files: round trips through an independent writer, and everything wrong."""

import gzip
import re
import struct
import zipfile

import numpy as np
import pytest

from hypercircuit.config import load_config
from hypercircuit.data import DataFileError, load_files, load_idx, read_idx
from hypercircuit.problem import load_splits

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    header = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_folder(folder, parts, *, mark="-", compress=False):
    folder.mkdir(exist_ok=True)
    for part, (images, labels) in parts.items():
        for kind, rank, array in (("images", 3, images), ("labels", 1, labels)):
            content = idx_bytes(array)
            name = f"{part}-{kind}{mark}idx{rank}-ubyte"
            if compress:
                name, content = name + ".gz", gzip.compress(content, mtime=0)
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def parts():
    generator = np.random.default_rng(11)
    return {
        "train": (
            generator.integers(0, 256, (26, 3, 5), dtype=np.uint8),
            np.array([3, 0, 0, 1, 0, 3, 0, 0, 1, 0, 2, 0, 3] * 2, dtype=np.uint8),
        ),
        "t10k": (
            generator.integers(0, 256, (4, 3, 5), dtype=np.uint8),
            np.array([1, 0, 0, 3], dtype=np.uint8),
        ),
    }


def assert_holds(splits, parts, n_validation, name):
    (x_train, y_train), (x_test, y_test) = parts["train"], parts["t10k"]
    flat = x_train.reshape(len(x_train), -1)
    chosen = np.sort(np.random.default_rng(6).permutation(len(flat))[:n_validation])
    np.testing.assert_array_equal(splits.validation.x, flat[chosen])
    np.testing.assert_array_equal(splits.validation.y, y_train[chosen])
    np.testing.assert_array_equal(splits.train.x, np.delete(flat, chosen, axis=0))
    np.testing.assert_array_equal(splits.train.y, np.delete(y_train, chosen))
    np.testing.assert_array_equal(splits.test.x, x_test.reshape(len(x_test), -1))
    np.testing.assert_array_equal(splits.test.y, y_test)
    assert splits.train.n_classes == 4
    names = [splits.train.name, splits.validation.name, splits.test.name]
    assert names == [f"{name}-train", f"{name}-validation", f"{name}-test"]


@pytest.mark.parametrize("kind", list(CODES))
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_read_idx_round_trip(tmp_path, kind, shape):
    array = (np.arange(np.prod(shape)).reshape(shape) * 5 + 2).astype(kind)
    path = tmp_path / "array"
    path.write_bytes(idx_bytes(array))
    found = read_idx(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.dtype(kind)
    assert found.dtype.isnative
    compressed = tmp_path / "array.gz"
    compressed.write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    np.testing.assert_array_equal(read_idx(str(compressed)), array)


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("compress", [False, True])
def test_folder_round_trip(tmp_path, parts, mark, compress):
    folder = write_folder(tmp_path / "clothes.v2", parts, mark=mark, compress=compress)
    splits = load_files(folder, n_validation=7, seed=6)
    assert_holds(splits, parts, 7, "clothes.v2")
    assert splits.train.image_shape == (3, 5)
    assert (splits.train.x.dtype, splits.train.step) == (np.uint8, 1.0)


NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("mark", "compress"), [("-", False), (".", True)])
def test_one_idx_file_stands_for_the_set(tmp_path, monkeypatch, parts, name, mark, compress):
    folder = write_folder(tmp_path / "clothes", parts, mark=mark, compress=compress)
    name = name.replace("-idx", f"{mark}idx") + (".gz" if compress else "")
    assert_holds(load_files(folder / name, n_validation=7, seed=6), parts, 7, "clothes")
    monkeypatch.chdir(folder)
    assert_holds(load_files(name, n_validation=7, seed=6), parts, 7, "clothes")


def test_the_named_spelling_is_taken_first(tmp_path, parts):
    (x, y), test = parts["train"], parts["t10k"]
    folder = write_folder(tmp_path / "clothes", {"train": (x[:20], y[:20]), "t10k": test})
    for name in NAMES[:2]:
        array = {"images": x, "labels": y}[name.split("-")[1]]
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    named = load_files(folder / f"{NAMES[1]}.gz", n_validation=7, seed=6)
    assert_holds(named, parts, 7, "clothes")
    assert len(load_files(folder, n_validation=7).train) == 13


def test_sibling_of_an_idx_file_is_missing(tmp_path, parts):
    folder = write_folder(tmp_path / "clothes", parts)
    (folder / NAMES[2]).unlink()
    with pytest.raises(DataFileError, match="clothes must hold one of t10k-images-idx3-ubyte, "):
        load_files(folder / NAMES[0])


@pytest.mark.parametrize(
    "name",
    ["emnist-train-images-idx3-ubyte", "train-images-idx1-ubyte", "train-images-idx3-ubyte.zip"],
)
def test_idx_file_of_another_name(tmp_path, parts, name):
    folder = write_folder(tmp_path / "clothes", parts)
    (folder / NAMES[0]).rename(folder / name)
    message = (
        f"{name} must be a folder of IDX files, an .npz file or one of {', '.join(NAMES)} (or "
        ".gz), found another kind or name of file; check the path, or read IDX files of other "
        "names with load_idx"
    )
    with pytest.raises(DataFileError, match=re.escape(message)):
        load_files(folder / name)


def test_idx_files_of_any_names(tmp_path, parts):
    folder = write_folder(tmp_path / "clothes", parts)
    paths = []
    for name, new in zip(NAMES, ("a.v2.gz", "b", "c.bin", "d.gz"), strict=True):
        content = (folder / name).read_bytes()
        paths.append(tmp_path / new)
        paths[-1].write_bytes(gzip.compress(content, mtime=0) if new.endswith(".gz") else content)
    splits = load_idx(*paths, n_validation=7, seed=6)
    assert_holds(splits, parts, 7, "a.v2")
    assert splits.train.image_shape == (3, 5)
    default = load_idx(*map(str, paths), n_classes=9)
    assert (len(default.validation), default.test.n_classes) == (2, 9)
    with pytest.raises(DataFileError, match=r"d\.gz must hold one label an image, found 4 labels"):
        load_idx(paths[0], paths[1], paths[0], paths[3])
    with pytest.raises(DataFileError, match="absent must be a file, found none there"):
        load_idx(*paths[:3], tmp_path / "absent")


def test_labels_must_be_less_than_n_classes(tmp_path, parts):
    folder = write_folder(tmp_path / "clothes", parts)
    assert load_files(folder, n_classes=4).validation.n_classes == 4
    assert load_files(folder, n_classes=300).train.n_classes == 300
    message = (
        "train-labels-idx1-ubyte must hold labels less than n_classes, 3, found 3 at row 0; "
        "correct that label, or pass a larger n_classes"
    )
    with pytest.raises(DataFileError, match=message):
        load_files(folder, n_classes=3)
    with pytest.raises(ValueError, match="n_classes must be at least 2, got 1; leave it out to"):
        load_files(folder, n_classes=1)


def test_rows_are_counted_in_the_file(tmp_path, parts):
    path = tmp_path / "clothes.npz"
    x, y = (np.concatenate([parts["train"][k], parts["t10k"][k]]) for k in (0, 1))
    y[28] = 200
    np.savez(path, x=x, y=y, n_train=26)
    with pytest.raises(DataFileError, match=r"clothes.npz\[y\] .* 4, found 200 at row 28; correct"):
        load_files(path, n_classes=4)
    with pytest.raises(
        DataFileError, match=r"label, 200 at row 28 of .*clothes.npz\[y\], found no"
    ):
        load_files(path)


@pytest.mark.parametrize(("part", "row"), [("train", 5), ("t10k", 2)])
def test_a_gap_in_the_labels_is_refused(tmp_path, parts, part, row):
    parts[part][1][row] = 200
    folder = write_folder(tmp_path / "clothes", parts)
    message = (
        "train-labels-idx1-ubyte must hold every class up to the largest label, 200 at row "
        f"{row} of .*{part}-labels-idx1-ubyte, found no example of class 4; correct that label, "
        r"or pass n_classes \(data.n_classes in a configuration\)"
    )
    with pytest.raises(DataFileError, match=message):
        load_files(folder)
    assert load_files(folder, n_classes=201).train.n_classes == 201


def test_a_class_without_examples_needs_n_classes(tmp_path, parts):
    labels = parts["train"][1]
    labels[labels == 2] = 0
    folder = write_folder(tmp_path / "clothes", parts)
    with pytest.raises(DataFileError, match="found no example of class 2; correct that label, or"):
        load_files(folder)
    assert load_files(folder, n_classes=5).train.n_classes == 5


def test_configured_files(tmp_path, parts):
    path = tmp_path / "clothes.npz"
    (x_train, y_train), (x_test, y_test) = parts["train"], parts["t10k"]
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    small = load_splits(load_config(None, [f"data.path={path}"]))
    assert (len(small.train), len(small.validation), small.train.n_classes) == (24, 2, 4)
    overrides = [f"data.path={path}", "data.n_classes=6", "data.n_validation=7"]
    chosen = load_splits(load_config(None, overrides))
    assert (len(chosen.train), len(chosen.validation), chosen.train.n_classes) == (19, 7, 6)
    overrides[1] = "data.n_classes=2"
    with pytest.raises(DataFileError, match=r"npz\[y_train\] .* n_classes, 2, found 3 at row 0"):
        load_splits(load_config(None, overrides))


def test_default_validation_is_a_twelfth(tmp_path, parts):
    folder = write_folder(tmp_path / "clothes", parts)
    assert len(load_files(folder).validation) == 2
    with pytest.raises(ValueError, match="n_validation must be at least 1 and less than the 26"):
        load_files(folder, n_validation=26)


def test_npz_with_n_train(tmp_path, parts):
    path = tmp_path / "clothes.npz"
    x, y = (np.concatenate([parts["train"][k], parts["t10k"][k]]) for k in (0, 1))
    np.savez(path, x=x, y=y, n_train=26)
    assert_holds(load_files(path, n_validation=7, seed=6), parts, 7, "clothes")


def test_npz_without_n_train_tests_on_the_last_seventh(tmp_path, parts):
    path = tmp_path / "clothes.npz"
    x, y = (np.concatenate([parts["train"][k], parts["t10k"][k]]) for k in (0, 1))
    np.savez_compressed(path, x=x, y=y)
    assert_holds(load_files(path, n_validation=7, seed=6), parts, 7, "clothes")
    np.savez(path, x=x[:3], y=[0, 1, 1])
    assert len(load_files(path).test) == 1


def test_npz_with_keras_keys(tmp_path, parts):
    path = tmp_path / "clothes.npz"
    (x_train, y_train), (x_test, y_test) = parts["train"], parts["t10k"]
    np.savez(
        path,
        x_train=x_train.astype(np.int64),
        y_train=y_train.astype(np.float64),
        x_test=x_test.astype(np.int64),
        y_test=y_test.astype(np.float64),
    )
    splits = load_files(path, n_validation=7, seed=6)
    assert_holds(splits, parts, 7, "clothes")
    assert splits.train.x.dtype == np.uint8


def test_npz_with_real_features(tmp_path):
    path = tmp_path / "features.npz"
    x = np.random.default_rng(2).normal(size=(14, 5))
    np.savez(path, x=x, y=np.arange(14) % 3)
    splits = load_files(path)
    assert (splits.train.step, splits.train.image_shape, splits.train.n_classes) == (None, None, 3)
    np.testing.assert_array_equal(splits.test.x, x[12:].astype(np.float32))


def test_missing_path_and_other_kinds_of_file(tmp_path):
    with pytest.raises(
        DataFileError, match=r"absent must be a folder .* found nothing there; check"
    ):
        load_files(tmp_path / "absent")
    with pytest.raises(DataFileError, match=r"absent.npz must be a file, found none there; check"):
        load_files(tmp_path / "absent.npz")
    with pytest.raises(DataFileError, match="absent must be a file, found none there"):
        read_idx(tmp_path / "absent")
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(DataFileError, match=r"table.csv must be a folder .* found another kind"):
        load_files(tmp_path / "table.csv")


def test_incomplete_folder(tmp_path, parts):
    folder = write_folder(tmp_path / "clothes", parts)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    message = (
        "clothes must hold one of t10k-labels-idx1-ubyte, t10k-labels.idx1-ubyte, "
        "t10k-labels-idx1-ubyte.gz, t10k-labels.idx1-ubyte.gz, found none of them; add the file"
    )
    with pytest.raises(DataFileError, match=message):
        load_files(folder)


WHOLE = idx_bytes(np.arange(24, dtype=np.int16).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", "a must hold data, found an empty file; download it again"),
        ("a.gz", b"", "a.gz must hold data, found an empty file"),
        ("a.gz", gzip.compress(b"", mtime=0), "a.gz must hold data, found an empty file"),
        ("a.gz", WHOLE, "a.gz must be a complete gzip file, found a corrupt one .*; download"),
        (
            "a.gz",
            gzip.compress(WHOLE, mtime=0)[:-9],
            "must be a complete gzip file, found a corrupt one",
        ),
        (
            "a.gz",
            gzip.compress(WHOLE, mtime=0)[:-8] + b"\1" * 8,
            "found a corrupt one .CRC check failed",
        ),
        ("a.gz", gzip.compress(WHOLE, mtime=0)[:12] + b"\xff" * 40, "found a corrupt one"),
        (
            "a",
            gzip.compress(WHOLE, mtime=0),
            r"a must start with the IDX magic number .* found \(31, 139",
        ),
        ("a", b"\0\1" + WHOLE[2:], r"found \(0, 1, 11, 3\); a gzip file needs .gz at the end"),
        ("a", b"\0\0\7" + WHOLE[3:], r"found \(0, 0, 7, 3\)"),
        ("a", b"\0\0\10\0", r"rank of at least 1\), found \(0, 0, 8, 0\)"),
        ("a", b"\0\0\10", r"found \(0, 0, 8\)"),
        (
            "a",
            WHOLE[:15],
            "a must have a header of 16 bytes for rank 3, found a truncated file of 15",
        ),
        ("a", WHOLE[:-1], r"must hold 48 bytes .* shape \(2, 3, 4\), found 47, a truncated file"),
        ("a", WHOLE + b"\0", r"must hold 48 bytes .* found 49, a longer file; download it again"),
        ("a", b"\0\0\10\4" + b"\xff" * 16, "found 0, a truncated file"),
    ],
)
def test_damaged_idx_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        read_idx(tmp_path / name)


def image(*shape):
    return np.zeros(shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("part", "which", "array", "message"),
    [
        ("train", 1, image(25), "labels-idx1-ubyte must hold one label an image, found 25 labels"),
        (
            "t10k",
            0,
            image(5, 3, 5),
            "found 4 labels for 5 images in .*t10k-images-idx3-ubyte; take",
        ),
        ("t10k", 0, image(4, 5, 3), r"one shape and type, found \(3, 5\) uint8 and \(5, 3\) uint8"),
        ("t10k", 0, image(4, 3, 5).astype("f4"), r"and \(3, 5\) float32; convert one of them"),
        ("train", 0, image(26), r"train-images.* must hold images of shape .* found shape \(26,\)"),
        ("train", 0, image(26, 3, 5, 3), r"found shape \(26, 3, 5, 3\); reshape them, colours"),
        ("train", 0, image(0, 3, 5), r"not empty, found shape \(0, 3, 5\)"),
        (
            "train",
            1,
            image(26, 4),
            r"must hold labels of shape \(n,\), found shape \(26, 4\); write",
        ),
        (
            "train",
            1,
            np.arange(26, dtype="i1") - 2,
            "labels of at least 0, found -2 at row 0; number",
        ),
        ("train", 1, np.arange(26, dtype="i2") * 20, "labels of at most 255, found 260 at row 13"),
        ("t10k", 1, np.array([0, 1, 1.5, 2]), "must hold whole numbers, found 1.5 at row 2"),
        ("t10k", 1, np.array([0, 1, np.nan, 2]), "must hold whole numbers, found nan at row 2"),
        ("t10k", 1, np.array([0, np.inf, 1, 2]), "labels of at most 255, found inf at row 1"),
        (
            "train",
            0,
            image(26, 3, 5).astype("i2") - 7,
            r"integer pixels in 0\.\.255, found -7\.\.-7",
        ),
        ("train", 0, image(26, 3, 5).astype("i2") + 256, r"found 256\.\.256; write other values"),
        ("train", 0, np.full((26, 3, 5), np.nan), "finite in float32, found nan; remove or fill"),
        ("train", 0, np.full((26, 3, 5), 1e39), "finite in float32, found inf"),
    ],
)
def test_inconsistent_folders(tmp_path, parts, part, which, array, message):
    changed = list(parts[part])
    changed[which] = array
    folder = write_folder(tmp_path / "clothes", {**parts, part: tuple(changed)})
    with pytest.raises(DataFileError, match=message):
        load_files(folder)


def test_one_class_is_refused(tmp_path):
    parts = {part: (image(3, 2, 2), image(3)) for part in ("train", "t10k")}
    with pytest.raises(DataFileError, match="labels of at least 2 classes, found only 0; add"):
        load_files(write_folder(tmp_path / "zeros", parts))


X, Y = image(8, 2, 3), np.arange(8) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "labels": Y}, "must hold the keys x, y or x_train, .* found labels, x; rename"),
        ({}, "found no key"),
        ({"x_train": X, "y_train": Y}, "found x_train, y_train; rename"),
        (
            {"x": X, "y": Y[:7]},
            r"one label an image, found x of shape \(8, 2, 3\) and y of .*\(7,\)",
        ),
        ({"x": X, "y": 1}, r"one label an image, .* y of shape \(\)"),
        ({"x": X[:1], "y": Y[:1]}, "at least 2 examples, one to train and one to test, found 1"),
        (
            {"x": X, "y": Y, "n_train": 8},
            r"n_train as one integer in 1\.\.7, found 8; leave it out",
        ),
        ({"x": X, "y": Y, "n_train": 0}, r"n_train as one integer in 1\.\.7, found 0"),
        ({"x": X, "y": Y, "n_train": 4.5}, r"n_train as one integer in 1\.\.7, found 4.5"),
        ({"x": X, "y": Y, "n_train": [2, 3]}, r"in 1\.\.7, found \[2, 3\]"),
        ({"x": X.astype("U1"), "y": Y}, "must hold numbers as images, found <U1; write uint8"),
        ({"x": X, "y": Y.astype("U1")}, "must hold numbers as labels, found <U1; number"),
        (
            {"x": X, "y": Y.astype(object)},
            "must hold plain arrays, .*Object arrays.*; write numbers",
        ),
    ],
)
def test_wrong_npz_content(tmp_path, arrays, message):
    path = tmp_path / "clothes.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataFileError, match=message):
        load_files(path)


def test_damaged_npz_files(tmp_path):
    path = tmp_path / "clothes.npz"
    path.write_bytes(b"")
    with pytest.raises(DataFileError, match=r"clothes.npz must hold data, found an empty file"):
        load_files(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(DataFileError, match=r"must be an .npz archive, found a corrupt file"):
        load_files(path)
    np.savez(path, x=X, y=Y)
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(DataFileError, match=r"must be an .npz archive, found a corrupt file"):
        load_files(path)
    path.write_bytes(content[:150] + b"\7" * 20 + content[170:])
    with pytest.raises(
        DataFileError, match="must hold plain arrays, found one that cannot be read"
    ):
        load_files(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"text")
        archive.writestr("y", b"text")
    with pytest.raises(DataFileError, match=r"one label an image, found x of shape \(\) and"):
        load_files(path)
