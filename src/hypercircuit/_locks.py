"""Locks of files, which the kernel gives back however their holder ends.

Also on another node of a cluster, if the file system has locks: NFS has, Lustre with `flock`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

#: Whoever only looks whether a lock is held has it for a moment.
_TRIES, _PAUSE = 20, 0.1


class Busy(ValueError):
    """Another process holds the lock."""


class NoLocks(ValueError):
    """The file system, or the operating system, has no locks."""


class FileLock:
    """Hold a file's lock for the length of a block: a context manager.

    The file keeps the words "process PID on HOST" of its last holder.

    **Arguments:**

    - `path`: of the file, in a folder that exists.
    - `doing`: what the holder does, for the message: "RUN is being trained".

    **Raises:** on entry `Busy` if another process holds it, `NoLocks` where there are none.
    """

    def __init__(self, path: Path, doing: str) -> None:
        self._path, self._doing = path, doing
        self._file: int | None = None

    def __enter__(self) -> FileLock:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            for tried in range(_TRIES):
                if _try(self._path, file, exclusive=True):
                    break
                if tried == _TRIES - 1:
                    holder = os.pread(file, 1024, 0).decode() or "another process"
                    raise Busy(f"{self._doing} by {holder}; wait for its end")
                time.sleep(_PAUSE)
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


def is_locked(path: Path) -> bool:
    """Whether another process, or another block of this one, holds the file's lock.

    **Raises:** `NoLocks` where there are none.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try(path, file, exclusive=False)
    finally:
        os.close(file)


def _try(path: Path, file: int, *, exclusive: bool) -> bool:
    try:
        import fcntl  # Windows has none
    except ImportError as error:
        raise NoLocks(f"{path} cannot be locked: this operating system has no flock") from error
    how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise NoLocks(
            f"{path} cannot be locked ({error}); put the folder on a file system with locks"
        ) from error
    return True


@contextlib.contextmanager
def hold_run(folder: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Make the folder of a run and hold it, so that no other process trains there meanwhile.

    Where there are no locks the run goes on all the same, and says so.

    **Raises:** `Busy` if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(folder / "run.lock", f"{folder} is being trained"))
        except NoLocks as error:
            report(f"{error}; make sure that no other process trains there")
        yield
