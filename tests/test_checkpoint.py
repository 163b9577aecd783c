"""Checkpoints: every bit comes back, and a file cut off is never chosen."""

import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hypercircuit.train import checkpoint
from hypercircuit.train.checkpoint import load_latest_checkpoint, save_checkpoint
from hypercircuit.train.history import History


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def _state(seed: int = 0) -> dict:
    params = {
        "angles": jax.random.normal(jax.random.key(seed), (3, 5, 2)),
        "phase": jnp.asarray([1e-45, -0.0, jnp.nan, jnp.inf, 1 / 3], jnp.float32),
    }
    return {
        "params": params,
        "optimiser": optax.adam(0.1).init(params),
        "key": jax.random.key(seed + 7),
        "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 3),
        "raw_key": jnp.asarray([1, 2**32 - 1], jnp.uint32),
        "order": np.random.default_rng(seed).permutation(11),
        "best": np.asarray([[1 / 3, 5e-324], [-0.0, np.nan]]),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.asarray([1.5, 2.5], ">f8"),
        "half": jnp.asarray([0.1, 3.0], jnp.bfloat16),
        "bits": np.asarray([True, False]),
        "complex": jnp.asarray([1 + 2j], jnp.complex64),
        "scalar": np.float32(0.1),
        "empty": np.zeros((0, 4), np.float32),
        "numbers": (seed, 0.1, True, 2 - 1j),
    }


def _bits(leaf: object) -> tuple:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return (str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes())
    array = np.asarray(leaf)
    return (str(array.dtype), array.shape, array.tobytes())


def _assert_same_bits(left: object, right: object) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        assert isinstance(a, jax.Array) or type(a) is type(b)
        assert _bits(a) == _bits(b)


def _load(folder: Path, like: object) -> tuple:
    loaded = load_latest_checkpoint(folder, like)
    assert loaded is not None
    return loaded


def test_every_bit_comes_back(tmp_path: Path):
    state = _state()
    path = save_checkpoint(tmp_path / "run", 500, state, {"seed": 3, "text": "é", "nan": np.nan})
    assert path == tmp_path / "run" / "checkpoint-00000500.npz"
    loaded, metadata = _load(tmp_path / "run", _state(seed=1))
    _assert_same_bits(loaded, state)
    assert {key: metadata[key] for key in ("seed", "text", "step")} == {
        "seed": 3,
        "text": "é",
        "step": 500,
    }
    assert np.isnan(metadata["nan"])
    assert jax.random.bits(loaded["key"]) == jax.random.bits(state["key"])


def test_float64_comes_back(tmp_path: Path):
    with jax.enable_x64(True):
        state = {"angles": jnp.asarray([1 / 3, 5e-324]), "count": jnp.asarray(2**40)}
        save_checkpoint(tmp_path, 1, state, {})
        like = jax.eval_shape(lambda: state)
        _assert_same_bits(_load(tmp_path, like)[0], state)
    with refuses("leaf 'angles' must have dtype float64, got float32: JAX holds no 64 bits; set"):
        load_latest_checkpoint(tmp_path, like)


def test_abstract_like(tmp_path: Path):
    state = {"key": jax.random.key(3, impl="rbg"), "half": jnp.asarray([0.1], jnp.bfloat16)}
    save_checkpoint(tmp_path, 1, state, {})
    _assert_same_bits(_load(tmp_path, jax.eval_shape(lambda: state))[0], state)


def test_loaded_state_is_independent(tmp_path: Path):
    state = {"angles": jnp.arange(4.0), "best": np.arange(4.0)}
    save_checkpoint(tmp_path, 1, state, {})
    first = _load(tmp_path, state)[0]
    first["best"][0] = 9.0
    _assert_same_bits(_load(tmp_path, state)[0], state)
    assert state["best"][0] == 0.0


def test_numpy_opens_the_file(tmp_path: Path):
    path = save_checkpoint(tmp_path, 7, _state(), {"history": {"x": np.arange(2)}, "seed": 3})
    with np.load(path) as file:
        np.testing.assert_array_equal(
            file["state/params/angles"], np.asarray(_state()["params"]["angles"])
        )
        header = json.loads(file["header"].tobytes())
        assert {name[:6] for name in file.files} == {"state/", "metada", "header", "digest"}
    assert (header["step"], header["metadata"]["seed"]) == (7, 3)
    assert header["leaves"]["keys"] == {"dtype": "key<rbg>", "shape": [3], "impl": "rbg"}


def test_metadata_holds_a_history(tmp_path: Path):
    history = History()
    history.record_step(1, energy=1 / 3, gradient_norm=np.nan, seconds=0.5)
    history.record_evaluation(1, {"error": 1e-3})
    metadata = {"history": history.to_arrays(), "list": [np.float32(0.1), {"a": (1, None)}]}
    save_checkpoint(tmp_path, 1, {}, metadata)
    loaded = _load(tmp_path, {})[1]
    assert list(loaded["history"]) == list(history.to_arrays())
    restored = History.from_arrays(loaded["history"])
    for name, column in history.to_arrays().items():
        assert restored.to_arrays()[name].tobytes() == column.tobytes()
    assert loaded["list"][0] == np.float32(0.1)
    assert loaded["list"][1] == {"a": [1, None]}


def test_last_two_are_kept_and_leftovers_cleared(tmp_path: Path):
    (tmp_path / ".checkpoint-00000003.npz.tmp").write_bytes(b"half")
    (tmp_path / "checkpoint-notes.npz").write_bytes(b"mine")
    for step in (5, 10, 15, 100_000_000):
        save_checkpoint(tmp_path, step, {"x": np.asarray(step)}, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-00000015.npz", "checkpoint-100000000.npz", "checkpoint-notes.npz"]
    assert _load(tmp_path, {"x": np.asarray(0)})[1] == {"step": 100_000_000}


def test_saving_the_same_step_again_replaces(tmp_path: Path):
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path, 5, {"x": value}, {})
    assert _load(tmp_path, {"x": 0.0})[0] == {"x": 2.0}


def test_nothing_to_load(tmp_path: Path):
    assert load_latest_checkpoint(tmp_path / "absent", {}) is None
    assert load_latest_checkpoint(tmp_path, {}) is None


# --- damage -------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, bytes]:
    """Return the later of two checkpoints, and its content."""
    save_checkpoint(tmp_path, 5, {"x": np.arange(3.0), "key": jax.random.key(5)}, {"n": 5})
    path = save_checkpoint(tmp_path, 10, {"x": np.arange(3.0), "key": jax.random.key(9)}, {"n": 10})
    return path, path.read_bytes()


LIKE = {"x": np.zeros(3), "key": jax.random.key(0)}


def test_cut_off_at_any_byte_is_never_chosen(pair: tuple[Path, bytes]):
    path, content = pair
    offsets = {0, 1, 2, 3, 4, 10, len(content) - 1, len(content) - 2, len(content) - 22}
    for offset in sorted(offsets | set(range(5, len(content), 37))):
        path.write_bytes(content[:offset])
        with pytest.warns(RuntimeWarning, match=r"checkpoint-00000010.npz of step 10 is damaged"):
            assert _load(path.parent, LIKE)[1]["n"] == 5
    path.write_bytes(content)
    assert _load(path.parent, LIKE)[1]["n"] == 10


def test_changed_bytes_change_nothing_or_are_found(pair: tuple[Path, bytes]):
    path, content = pair
    whole = _load(path.parent, LIKE)
    n_found = 0
    for offset in range(0, len(content), 23):
        changed = bytearray(content)
        changed[offset] ^= 0x55
        path.write_bytes(changed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state, metadata = _load(path.parent, LIKE)
        if caught:
            n_found += 1
            assert metadata["n"] == 5
        else:  # a byte without meaning, such as a time stamp of the zip file
            assert metadata == whole[1]
            _assert_same_bits(state, whole[0])
    assert n_found > len(content) // 23 * 0.7


def test_digest_finds_a_consistent_forgery(pair: tuple[Path, bytes]):
    path, _ = pair
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, "state/x": np.asarray([0.0, 1.0, 3.0])})
    with pytest.warns(RuntimeWarning, match="its digest does not match its content"):
        assert _load(path.parent, LIKE)[1]["n"] == 5
    np.savez(path, **arrays)
    assert _load(path.parent, LIKE)[1]["n"] == 10


def test_all_damaged_is_none(pair: tuple[Path, bytes]):
    path, _ = pair
    path.write_bytes(b"")
    path.with_name("checkpoint-00000005.npz").write_bytes(b"PK")
    with pytest.warns(RuntimeWarning, match="is skipped") as caught:
        assert load_latest_checkpoint(path.parent, LIKE) is None
    assert len(caught) == 2


def test_resumed_run_replaces_a_damaged_later_checkpoint(pair: tuple[Path, bytes]):
    path, content = pair
    path.write_bytes(content[:-50])
    save_checkpoint(path.parent, 7, LIKE, {"n": 7})
    names = sorted(found.name for found in path.parent.iterdir())
    assert names == ["checkpoint-00000005.npz", "checkpoint-00000007.npz"]
    assert _load(path.parent, LIKE)[1]["n"] == 7


def test_intact_later_checkpoint_is_not_overrun(pair: tuple[Path, bytes]):
    path, _ = pair
    with refuses("step must be at least that of the latest checkpoint, 10, got 7; resume from"):
        save_checkpoint(path.parent, 7, LIKE, {})
    assert _load(path.parent, LIKE)[1]["n"] == 10


def test_error_while_writing_leaves_no_trace(pair: tuple[Path, bytes], monkeypatch):
    path, content = pair

    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(KeyboardInterrupt):
                save_checkpoint(path.parent, 15, LIKE, {})
        assert sorted(f.name for f in path.parent.iterdir()) == [
            "checkpoint-00000005.npz",
            "checkpoint-00000010.npz",
        ]
    assert path.read_bytes() == content


KILLED = """
import io, os, signal
import numpy as np
from hypercircuit.train.checkpoint import save_checkpoint

state = {"x": np.arange(3.0), "more": np.zeros(1000)}
save_checkpoint("FOLDER", 20, state, {"n": 20})
savez = np.savez

def die_half_way(file, **arrays):
    buffer = io.BytesIO()
    savez(buffer, **arrays)
    file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

np.savez = die_half_way
save_checkpoint("FOLDER", 30, state, {"n": 30})
"""


def test_kill_while_writing(tmp_path: Path):
    script = KILLED.replace("FOLDER", str(tmp_path))
    process = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert process.returncode == -9, process.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".checkpoint-00000030.npz.tmp", "checkpoint-00000020.npz"]
    like = {"x": np.zeros(3), "more": np.zeros(1000)}
    assert _load(tmp_path, like)[1]["n"] == 20
    save_checkpoint(tmp_path, 30, like, {"n": 30})
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz", ".npz"]


# --- refusals ------------------------------------------------------------------------------


def test_wrong_like(tmp_path: Path):
    save_checkpoint(tmp_path, 5, {"a": {"x": np.zeros((3, 2), np.float32)}}, {})
    with pytest.raises(
        ValueError, match=r"leaf 'a/x' of .* must have shape \[2, 3\], got \[3, 2\]"
    ):
        load_latest_checkpoint(tmp_path, {"a": {"x": np.zeros((2, 3), np.float32)}})
    with refuses("must have dtype float64, got float32; resume with the configuration"):
        load_latest_checkpoint(tmp_path, {"a": {"x": np.zeros((3, 2))}})
    with refuses("has no leaf 'a/y'; resume with"):
        load_latest_checkpoint(tmp_path, {"a": {"x": np.zeros((3, 2), np.float32), "y": 0}})
    with refuses("has a leaf 'a/x' that is not wanted; resume with"):
        load_latest_checkpoint(tmp_path, {})
    save_checkpoint(tmp_path, 6, {"key": jax.random.key(0)}, {})
    with refuses("must have dtype key<rbg>, got key<fry>; resume with"):
        load_latest_checkpoint(tmp_path, {"key": jax.random.key(0, impl="rbg")})


def test_wrong_state(tmp_path: Path):
    with refuses("leaf 'f' of the state must be an array or a number, got <function"):
        save_checkpoint(tmp_path, 5, {"f": lambda: 0}, {})
    with refuses("leaf 'f' of the state must hold numbers, got dtype <U1; put it in the metadata"):
        save_checkpoint(tmp_path, 5, {"f": np.asarray(["a"])}, {})
    with refuses("leaf 'f' of the state must fit in 64 bits, got 9223372036854775808; put it"):
        save_checkpoint(tmp_path, 5, {"f": 2**63}, {})
    with refuses("leaf 'a/b' of the state must have a path of its own, got two; rename the key"):
        save_checkpoint(tmp_path, 5, {"a": {"b": 1}, "a/b": 2}, {})
    assert not list(tmp_path.iterdir())


def test_wrong_step_and_metadata(tmp_path: Path):
    with refuses("step must be at least 0, got -1; it counts the updates done"):
        save_checkpoint(tmp_path, -1, {}, {})
    with refuses("metadata['step'] must be the step, 5, got 4; leave it out"):
        save_checkpoint(tmp_path, 5, {}, {"step": 4})
    with refuses(
        "metadata must hold only what JSON can and arrays of numbers, got {1} of type set"
    ):
        save_checkpoint(tmp_path, 5, {}, {"x": {1}})
    with refuses("got an array of dtype <U1; convert it"):
        save_checkpoint(tmp_path, 5, {}, {"x": np.asarray(["a"])})
    assert not list(tmp_path.iterdir())


def test_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_FORMAT", 2)
        save_checkpoint(tmp_path, 5, {}, {})
    with refuses("must have format 1, got 2; resume with the version of hypercircuit that wrote"):
        load_latest_checkpoint(tmp_path, {})


def test_fifty_thousand_qubits_take_less_than_a_second(tmp_path: Path):
    params = jnp.ones((4, 50_890, 2))
    state = {"params": params, "optimiser": optax.adam(0.1).init(params), "key": jax.random.key(0)}
    times = []
    for step in (1, 2, 3):
        start = time.perf_counter()
        save_checkpoint(tmp_path, step, state, {})
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0
    start = time.perf_counter()
    _assert_same_bits(_load(tmp_path, state)[0], state)
    assert time.perf_counter() - start < 2.0
