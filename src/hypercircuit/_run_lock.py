"""One command at a time in the folder of a run: `run.lock`, held by process 0 of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ._locks import Busy, FileLock, NoLocks, busy, holder
from ._shards import Shards

RUN_LOCK = "run.lock"
_Seen = TypeVar("_Seen")


def run_holder(folder: Path) -> str | None:
    """Which process works in the folder; None where none does, or where that cannot be known."""
    with contextlib.suppress(NoLocks, PermissionError):
        return holder(folder / RUN_LOCK)
    return None


def refuse_held(folder: Path, who: str | None) -> None:
    """Refuse a folder that `run_holder` found to be in use, before any work is done.

    **Raises:** `Busy`.
    """
    if who is not None:
        raise busy(f"{folder} is in use", who)


@contextlib.contextmanager
def hold_run(
    folder: Path, report: Callable[[str], None], shards: Shards | None = None
) -> Iterator[None]:
    """Make the folder and hold it for the length of the block; of several processes all call this.

    Where there are no locks the work goes on all the same, and says so.

    **Raises:** `Busy`, in all processes, if another run holds it.
    """
    with contextlib.ExitStack() as held:
        refused: Busy | None = None
        if shards is None or shards.first:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(FileLock(folder / RUN_LOCK, f"{folder} is in use"))
            except NoLocks as error:
                report(f"{error}; make sure that nothing else works there")
            except Busy as error:
                refused = error
        number = int(refused is not None)
        if number if shards is None else shards.largest(number):
            raise refused or busy(f"{folder} is in use", "another run")
        yield


def seen_by_first(look: Callable[[], _Seen | None], shards: Shards | None) -> _Seen | None:
    """What `look` finds, if it finds anything in process 0; collective.

    The other processes look after it, and only where it found something.
    """
    if shards is None or not shards.several_processes:
        return look()
    found = look() if shards.first else None
    if not shards.largest(int(found is not None)):
        return None
    return found if shards.first else look()
