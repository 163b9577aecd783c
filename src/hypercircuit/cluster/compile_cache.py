"""The folder of compiled programs that the starts of a run share.

JAX keeps what XLA compiled under a key of program, options, versions and device. On the CPU that
code is made for the instructions and the tuning of one processor model, and loaded on another one
it may end in illegal instructions or a warning at every start; the nodes of a cluster often are of
several models and see the same home folder. The folder's name therefore carries the versions, a
digest of the processor and the cores that a process may use, over which programs share their work::

    $XDG_CACHE_HOME/hypercircuit/xla/jaxlib-0.10.2-x86_64-5f2c9a51d0b3-4cores/

`HYPERCIRCUIT_COMPILE_CACHE` names another base, or is `off`. JAX's own `JAX_COMPILATION_CACHE_DIR`
and `JAX_ENABLE_COMPILATION_CACHE`, where they are set, are left alone.

A file that cannot be read back (the job was killed while it was written) costs a warning and a
compilation; `remove_unreadable` takes such files out, so that it is the next start's only one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import zlib
from collections.abc import Mapping
from pathlib import Path

from .._cores import CPULimit

VARIABLE = "HYPERCIRCUIT_COMPILE_CACHE"
JAX_VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
#: Programs that compile faster than this are not kept: reading them takes as long.
MIN_COMPILE_SECONDS = 0.2
_ZSTD = b"\x28\xb5\x2f\xfd"
_SUFFIX = "-cache"
_PART = 2**20


@dataclasses.dataclass(frozen=True)
class CacheUse:
    """What a folder of compiled programs takes: programs, bytes, and those that are unreadable."""

    programs: int
    bytes: int
    unreadable: tuple[Path, ...] = ()


def processor(cpuinfo: str | os.PathLike[str] = "/proc/cpuinfo") -> str:
    """A digest of the processor's model and instructions, of 12 hexadecimal digits."""
    wanted = ("vendor_id", "model name", "cpu family", "model", "flags", "Features", "CPU part")
    found: dict[str, str] = {}
    try:
        lines = Path(cpuinfo).read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            # The first core's: what a program is compiled for.
            found.setdefault(name.strip(), " ".join(sorted(value.split())))
    described = f"{platform.machine()} {platform.processor()} {sorted(found.items())}"
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def cache_base(environment: Mapping[str, str]) -> Path | None:
    """The folder in which the machines' folders lie, or None where it is off.

    **Raises:** `ValueError` for a relative path, which would be another folder in every job.
    """
    chosen = environment.get(VARIABLE, "").strip()
    if chosen.lower() == "off":
        return None
    if chosen:
        base = Path(chosen).expanduser()
        if not base.is_absolute():
            raise ValueError(
                f"{VARIABLE} must be an absolute path or off, got {chosen!r}; a relative one is "
                f"another folder wherever a job starts: {VARIABLE}={Path(chosen).resolve()}"
            )
        return base
    user = environment.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "hypercircuit" / "xla"


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """This machine's folder of compiled programs; None where it is off or JAX's own is set."""
    if any(environment.get(name) for name in JAX_VARIABLES):
        return None
    base = cache_base(environment)
    if base is None:
        return None
    version = importlib.metadata.version("jaxlib")
    cores = CPULimit.of_process().usable
    return base / f"jaxlib-{version}-{platform.machine()}-{processor()}-{cores}cores"


def cache_settings(folder: Path) -> dict[str, str | float | int]:
    """The options of `jax.config` that make JAX keep compiled programs in `folder`."""
    return {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": MIN_COMPILE_SECONDS,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }


def make_cache(folder: Path) -> str | None:
    """Make the folder, for its user only; returns why it cannot be used, None if it can.

    A program that another user could write would be run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written to"
    return None


def cache_use(folder: Path, *, check: bool = False) -> CacheUse:
    """What a folder of compiled programs takes; with `check`, every one is read, 0.1 GB/s."""
    programs, size, unreadable = 0, 0, []
    for path in sorted(folder.rglob(f"*{_SUFFIX}")):
        try:
            size += path.stat().st_size
            programs += 1
            if check and not _readable(path):
                unreadable.append(path)
        except FileNotFoundError:
            # Another process took it out.
            continue
    return CacheUse(programs, size, tuple(unreadable))


def remove_unreadable(folder: Path, *, most_bytes: int = 2**26) -> list[Path]:
    """Delete programs that cannot be read back, unless there are more than `most_bytes` to read.

    JAX never replaces a file that is there, so that one cut off in the middle would stay. One that
    another process is just writing may be deleted too: it will be compiled once more.
    """
    if not folder.is_dir() or cache_use(folder).bytes > most_bytes:
        return []
    bad = cache_use(folder, check=True).unreadable
    for path in bad:
        path.unlink(missing_ok=True)
    return list(bad)


def _readable(path: Path) -> bool:
    """Whether a program's compression is complete and its check sum right."""
    with open(path, "rb") as file:
        start = file.read(4)
        if start == _ZSTD:
            # Where JAX found that package; what is known without it is that there is more.
            return path.stat().st_size > len(_ZSTD)
        unpack = zlib.decompressobj()
        try:
            unpack.decompress(start)
            while part := file.read(_PART):
                unpack.decompress(part)
        except zlib.error:
            return False
        return unpack.eof
