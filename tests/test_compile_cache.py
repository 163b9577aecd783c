"""The folder of compiled programs: where it is, what spoils it, and that a second start uses it."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from hypercircuit._cores import CPULimit
from hypercircuit.cluster.compile_cache import (
    cache_base,
    cache_folder,
    cache_use,
    make_cache,
    processor,
    remove_unreadable,
)

PROGRAM = """
import os, sys
import jax, jax.numpy as jnp
from hypercircuit.cluster.compile_cache import cache_folder, cache_settings, remove_unreadable
folder = cache_folder(os.environ)
removed = remove_unreadable(folder)
for name, value in cache_settings(folder).items():
    jax.config.update(name, value)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
value = jax.jit(lambda a: jnp.sin(a) @ a)(jnp.ones((3, 3)))
print(len(removed), sum(name.endswith("/cache_hits") for name in hits), float(value[0, 0]))
"""


def test_where_it_is(tmp_path: Path):
    chosen = {"HYPERCIRCUIT_COMPILE_CACHE": str(tmp_path)}
    assert cache_base(chosen) == tmp_path
    folder = cache_folder(chosen)
    assert folder is not None
    assert folder.parent == tmp_path
    assert folder.name.endswith(f"{processor()}-{CPULimit.of_process().usable}cores")
    assert cache_base({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "hypercircuit" / "xla"
    assert cache_folder({"HYPERCIRCUIT_COMPILE_CACHE": "off"}) is None
    assert cache_folder({"JAX_COMPILATION_CACHE_DIR": "/other"}) is None
    with pytest.raises(ValueError, match="must be an absolute path or off, got 'here'"):
        cache_base({"HYPERCIRCUIT_COMPILE_CACHE": "here"})


def test_other_processors_have_other_folders(tmp_path: Path):
    texts = (
        "model name : A\nflags : fpu sse2 avx2\n",
        "model name : A\nflags : fpu sse2 avx2 avx512f\n",
        "model name : B\nflags : fpu sse2 avx2\n",
        # Clock rates, and the order in which a kernel lists the instructions, do not matter.
        "model name : A\ncpu MHz : 7\nflags : sse2 fpu avx2\n",
    )
    found = []
    for number, text in enumerate(texts):
        path = tmp_path / str(number)
        path.write_text(text)
        found.append(processor(path))
    assert len(set(found[:3])) == 3
    assert found[3] == found[0]
    assert len(processor(tmp_path / "nothing")) == 12


def test_unreadable_programs_are_found_and_removed(tmp_path: Path):
    whole = zlib.compress(bytes(range(256)) * 40)
    contents = {"good": whole, "cut": whole[:-5], "empty": b"", "noise": b"no program"}
    for name, content in contents.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    (tmp_path / "other").write_bytes(b"")
    use = cache_use(tmp_path, check=True)
    assert use.programs == 4
    assert use.bytes == sum(map(len, contents.values()))
    assert {path.name for path in use.unreadable} == {"cut-cache", "empty-cache", "noise-cache"}
    assert remove_unreadable(tmp_path, most_bytes=3) == []
    assert len(remove_unreadable(tmp_path)) == 3
    assert cache_use(tmp_path, check=True).unreadable == ()
    assert remove_unreadable(tmp_path / "nothing") == []


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    assert make_cache(tmp_path / "new" / "er") is None
    problem = make_cache(tmp_path / "file" / "inside")
    assert problem is not None
    assert "cannot be made" in problem


def test_second_start_compiles_nothing_and_a_spoilt_program_does_no_harm(tmp_path: Path):
    environment = {"HYPERCIRCUIT_COMPILE_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}

    def start() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**_plain(), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    first, second = start(), start()
    assert first[:2] == ["0", "0"]
    assert int(second[1]) > 0
    programs = sorted(tmp_path.rglob("*-cache"))
    assert programs
    for path in programs:
        path.write_bytes(path.read_bytes()[:-7])
    third, fourth = start(), start()
    assert third[:2] == [str(len(programs)), "0"]
    assert fourth[:2] == second[:2]
    assert first[2] == second[2] == third[2] == fourth[2]


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
