"""Checkpoints: one file per saved state, complete or not there at all.

A checkpoint is an uncompressed npz file that `numpy.load` opens::

    checkpoint-00000500.npz
        state/<path of a leaf>    one array per leaf of the state, as state/params/angles
        metadata/<number>         the arrays that the metadata holds
        header                    JSON (UTF-8 bytes): format, step, metadata, and dtype,
                                  shape and PRNG implementation of every leaf
        digest                    SHA-256 of the header and of all arrays

It is written to a temporary name in the same folder, flushed to the disk and then
renamed, so a kill at any moment leaves the previous checkpoint in force; the digest
finds what a failing disk or a copy cut off. The last two are kept. Values come
back bit for bit, PRNG keys included.
"""

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

_FORMAT = 1
_KEEP = 2
_NAME = re.compile(r"checkpoint-(\d{8,})\.npz")
_ARRAY = "__array__"
_NUMBERS = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}
"""Python numbers and the dtype in which they are stored."""


class _DamagedError(Exception):
    """The file is not a complete checkpoint."""


def save_checkpoint(
    folder: str | Path, step: int, state: PyTree, metadata: Mapping[str, Any]
) -> Path:
    """Write `checkpoint-<step>.npz` in one go and delete all but the last two.

    Damaged checkpoints of later steps, which a resumed run left behind, are deleted too.

    Args:
        folder: of the run; it is made if it does not exist. One process writes to it.
        step: number of updates done, at least 0.
        state: pytree of arrays (JAX, NumPy, typed PRNG keys) and Python numbers, each
            complete on this process.
        metadata: what JSON can hold (names are strings; tuples come back as lists),
            and arrays at any depth, such as `History.to_arrays()`.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: `step` is negative; a leaf of the state is no array or number, or
            lies in part on other processes; the metadata holds something else or the
            name "step" with another value; or the folder holds an intact checkpoint
            of a later step, which belongs to another run.
    """
    folder = Path(folder)
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}; it counts the updates done")
    if metadata.get("step", step) != step:
        raise ValueError(
            f"metadata['step'] must be the step, {step}, got {metadata['step']!r}; leave it out"
        )
    leaves, arrays = _flatten(state)
    text = _dump_metadata({**metadata, "step": step}, arrays)
    header = {"format": _FORMAT, "step": step, "leaves": leaves, "metadata": json.loads(text)}
    header_bytes = json.dumps(header).encode()
    digest = _digest(header_bytes, arrays)

    folder.mkdir(parents=True, exist_ok=True)
    _refuse_later(folder, step)
    path = folder / f"checkpoint-{step:08d}.npz"
    temporary = folder / f".{path.name}.tmp"
    try:
        with temporary.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                header=np.frombuffer(header_bytes, np.uint8),
                digest=np.frombuffer(digest, np.uint8),
                **arrays,
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    _prune(folder, step)
    return path


def load_latest_checkpoint(
    folder: str | Path, like: PyTree
) -> tuple[PyTree, dict[str, Any]] | None:
    """Read the latest intact checkpoint of a folder.

    Args:
        folder: where `save_checkpoint` wrote; it need not exist.
        like: pytree of the structure, shapes and dtypes of the saved state: an example,
            or `jax.ShapeDtypeStruct`s. Its values are not used; a leaf on several
            devices gives its sharding.

    Returns:
        The state and the metadata (with "step"), or None where there is no intact
        checkpoint. NumPy leaves of `like` come back as NumPy, Python numbers as
        Python numbers, all others as JAX arrays.

    Warns:
        RuntimeWarning: a file is damaged and an older one is tried in its place.

    Raises:
        ValueError: the state has other leaves, shapes or dtypes than `like`, or a
            newer version of the package wrote the file.
    """
    for path, header, arrays in _intact(Path(folder)):
        return _unflatten(path, header["leaves"], arrays, like), _load_metadata(header, arrays)
    return None


def _intact(folder: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, np.ndarray]]]:
    """Path, header and arrays of every intact checkpoint, the latest first."""
    for step, path in sorted(_find(folder), reverse=True):
        try:
            header, arrays = _read(path)
        except FileNotFoundError:
            continue
        except _DamagedError as error:
            warnings.warn(
                f"checkpoint {path} of step {step} is damaged ({error}) and is skipped; "
                "the one before it is tried",
                RuntimeWarning,
                stacklevel=2,
            )
            continue
        yield path, header, arrays


def latest_metadata(folder: str | Path) -> dict[str, Any] | None:
    """Read the metadata (with "step") of the latest intact checkpoint, None if there is none.

    It needs no example of the state, and may look while another process trains: damaged files are
    passed over in silence.
    """
    for _, path in sorted(_find(Path(folder)), reverse=True):
        try:
            return _load_metadata(*_read(path))
        except (OSError, _DamagedError):
            continue
    return None


# --- the state as named arrays -----------------------------------------------------------


def _named_leaves(state: PyTree) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _describe(name: str, leaf: Any) -> dict[str, Any]:
    """Return dtype and shape of a leaf, as the header stores them."""
    if type(leaf) in _NUMBERS:
        if type(leaf) is int and not -(2**63) <= leaf < 2**63:
            raise ValueError(
                f"leaf {name!r} of the state must fit in 64 bits, got {leaf}; put it in "
                "the metadata"
            )
        return {"dtype": _NUMBERS[type(leaf)], "shape": []}
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)):
        raise ValueError(
            f"leaf {name!r} of the state must be an array or a number, got {leaf!r}; keep only "
            "arrays, for example with equinox.filter(state, equinox.is_array)"
        )
    if not _is_key(leaf) and (leaf.dtype.kind in "OSUMm" or leaf.dtype.fields is not None):
        raise ValueError(
            f"leaf {name!r} of the state must hold numbers, got dtype {leaf.dtype}; put it in "
            "the metadata"
        )
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def _flatten(state: PyTree) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    leaves: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for name, leaf in _named_leaves(state):
        if name in leaves:
            raise ValueError(
                f"leaf {name!r} of the state must have a path of its own, got two; rename the "
                "key that contains '/'"
            )
        leaves[name] = _describe(name, leaf)
        if _is_key(leaf):
            leaves[name]["impl"] = str(jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            raise ValueError(
                f"leaf {name!r} of the state must be complete on this process, got sharding "
                f"{leaf.sharding}; replicate it before saving"
            )
        values[name] = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    host = jax.device_get(values)
    return leaves, {f"state/{name}": _native(np.asarray(leaf)) for name, leaf in host.items()}


def _native(array: np.ndarray) -> np.ndarray:
    """Return the bytes of bfloat16 and its like as integers, for which npz has a name."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def _unflatten(
    path: Path, saved: Mapping[str, Any], arrays: Mapping[str, np.ndarray], like: PyTree
) -> PyTree:
    wanted = {name: _describe(name, leaf) for name, leaf in _named_leaves(like)}
    hint = "resume with the configuration and the code that saved it, or choose a new folder"
    for name in [name for name in wanted if name not in saved]:
        raise ValueError(f"checkpoint {path} has no leaf {name!r}; {hint}")
    for name in [name for name in saved if name not in wanted]:
        raise ValueError(f"checkpoint {path} has a leaf {name!r} that is not wanted; {hint}")
    for name, description in wanted.items():
        for what in ("shape", "dtype"):
            if saved[name][what] != description[what]:
                raise ValueError(
                    f"leaf {name!r} of checkpoint {path} must have {what} {description[what]}, "
                    f"got {saved[name][what]}; {hint}"
                )
    leaves = [
        _restore(name, arrays[f"state/{name}"], leaf, saved[name].get("impl"))
        for name, leaf in _named_leaves(like)
    ]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), leaves)


def _restore(name: str, array: np.ndarray, like: Any, impl: str | None) -> Any:
    """Return one leaf as the kind of object that `like` is."""
    if type(like) in _NUMBERS:
        return array.item()
    if isinstance(like, (np.ndarray, np.generic)):
        viewed = array.view(like.dtype)
        return viewed if isinstance(like, np.ndarray) else viewed[()]
    if _is_key(like):
        value = jax.random.wrap_key_data(jnp.array(array), impl=impl)
    else:
        value = jnp.array(array.view(like.dtype))
    if value.dtype != like.dtype:
        raise ValueError(
            f"leaf {name!r} must have dtype {like.dtype}, got {value.dtype}: JAX holds no 64 bits; "
            "set jax_enable_x64"
        )
    if isinstance(like, jax.Array) and len(like.sharding.device_set) > 1:
        return jax.device_put(value, like.sharding)
    return value


# --- metadata: JSON, with its arrays beside it ---------------------------------------------


def _dump_metadata(metadata: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """Return the JSON text, and put the arrays that it refers to into `arrays`."""

    def to_reference(value: Any) -> Any:
        if not isinstance(value, (np.ndarray, np.generic, jax.Array)) or _is_key(value):
            raise TypeError(f"{value!r} of type {type(value).__name__}")
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"an array of dtype {array.dtype}")
        name = f"metadata/{len(arrays)}"
        arrays[name] = array
        return {_ARRAY: name}

    try:
        return json.dumps(metadata, default=to_reference)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metadata must hold only what JSON can and arrays of numbers, got {error}; convert it"
        ) from error


def _load_metadata(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    def from_reference(value: dict[str, Any]) -> Any:
        return arrays[value[_ARRAY]] if value.keys() == {_ARRAY} else value

    return json.loads(json.dumps(header["metadata"]), object_hook=from_reference)


# --- files ---------------------------------------------------------------------------------


def _digest(header: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256(header)
    for name, array in sorted(arrays.items()):
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return header and arrays of an intact file.

    Raises:
        _DamagedError: anything at all is wrong with the content.
        ValueError: the file is intact, but of a newer format.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header_bytes = arrays.pop("header").tobytes()
        expected = arrays.pop("digest").tobytes()
    except Exception as error:  # a damaged zip file raises half a dozen kinds
        raise _DamagedError(f"{type(error).__name__}: {error}") from error
    if _digest(header_bytes, arrays) != expected:
        raise _DamagedError("its digest does not match its content")
    header = json.loads(header_bytes)
    if header["format"] != _FORMAT:
        raise ValueError(
            f"checkpoint {path} must have format {_FORMAT}, got {header['format']}; resume with "
            "the version of hypercircuit that wrote it"
        )
    return header, arrays


def _find(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return [(int(match.group(1)), path) for match, path in matches if match]


def _refuse_later(folder: Path, step: int) -> None:
    for later, path in _find(folder):
        if later <= step:
            continue
        try:
            _read(path)
        except _DamagedError:
            continue
        raise ValueError(
            f"step must be at least that of the latest checkpoint, {later}, got {step}; resume "
            f"from {path}, or choose a new folder"
        )


def _prune(folder: Path, step: int) -> None:
    """Keep the last two up to `step`; later ones are damaged. Clear what a kill left."""
    found = sorted(_find(folder))
    kept = [path for number, path in found if number <= step][-_KEEP:]
    for _, path in found:
        if path not in kept:
            path.unlink(missing_ok=True)
    for path in folder.glob(".checkpoint-*.npz.tmp"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
