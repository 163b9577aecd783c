"""Locks of files, which the kernel gives back however their holder ends.

Between the nodes of a cluster they hold where the file system carries them: NFS does, Lustre when
it is mounted with `flock`. With Lustre's `localflock` or NFS's `local_lock` every node has its own,
and with NFS 3 the lock of a node that went down stays until it is back, or the file is removed.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import TracebackType

#: Whoever only looks whether a lock is held has it for a moment.
_TRIES, _PAUSE = 20, 0.1


class Busy(ValueError):
    """Another process holds the lock."""


class NoLocks(ValueError):
    """The file system or the operating system has no locks, or the file cannot be opened."""


class FileLock:
    """Hold a file's lock for the length of a block: a context manager.

    The file keeps the words "process PID on HOST" of its last holder.

    **Arguments:**

    - `path`: of the file, in a folder that exists.
    - `doing`: what the holder does, for the message: "RUN is in use".

    **Raises:** on entry `Busy` if another process holds it, `NoLocks` where there are none.
    """

    def __init__(self, path: Path, doing: str) -> None:
        self._path, self._doing = path, doing
        self._file: int | None = None

    def __enter__(self) -> FileLock:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError as error:
            raise NoLocks(
                f"{self._path} cannot be opened for writing ({error.strerror}); ask its owner for "
                "the right to write, or take another folder"
            ) from error
        try:
            for tried in range(_TRIES):
                if _try(self._path, file, exclusive=True):
                    break
                if tried == _TRIES - 1:
                    raise busy(self._doing, _holder(file))
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


def holder(path: Path) -> str | None:
    """Which process, or other block of this one, holds the file's lock: "process PID on HOST".

    **Raises:** `NoLocks` where there are none.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _try(path, file, exclusive=False) else _holder(file)
    finally:
        os.close(file)


def busy(doing: str, who: str) -> Busy:
    """The error that says who holds a lock."""
    return Busy(f"{doing} by {who}; wait for its end")


def _holder(file: int) -> str:
    return os.pread(file, 1024, 0).decode() or "another process"


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
