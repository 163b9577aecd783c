"""A member of a sweep: a run folder that tells by itself how far the run is.

config.toml   what to run, resolved; written before any member starts
member.lock   held by the process that runs the member, for as long as it lives
attempt.json  that process: attempt, host, pid, time of its start
outcome.json  how the attempt ended, if there was time to say: status, message, seconds
log.txt       what all the attempts printed
result.json   and the other files of a run, see `hypercircuit.run`

A status is read from these files alone, on any node, and nothing else keeps one:

| status | files |
|---|---|
| finished | `result.json` says so |
| running | the lock is held, or the run's own |
| failed | `result.json` is broken, or missing where `outcome.json` promises one |
| interrupted, failed, killed, non-finite | `outcome.json` says so; without any attempt |
| | `result.json` of a `hypercircuit train` in the folder |
| killed | an attempt without an outcome |
| waiting | none of these |

The kernel gives the lock back however its process ends, also on another node of a cluster, if the
file system has locks (NFS does).
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .._files import read_json, write_text
from .._locks import FileLock, holder
from .._run_lock import run_holder

#: Statuses of members whose run has an answer: they are not run again.
ENDED = ("finished", "non-finite")
STATUSES = ("finished", "running", "waiting", "interrupted", "non-finite", "failed", "killed")
_LOCK = "member.lock"
_AGAIN = "run it again: `hypercircuit sweep resume` for a member of a sweep, else `train`"


@dataclass(frozen=True)
class MemberState:
    """What the files of a member say.

    **Attributes:**

    - `status`: one of `STATUSES`.
    - `message`: why it is not finished, in one or a few lines; may be empty.
    - `attempts`: how often it was started.
    - `step`: of the last checkpoint, or None.
    """

    status: str
    message: str
    attempts: int
    step: int | None

    @property
    def ended(self) -> bool:
        """Whether the run has an answer, which another attempt would only repeat."""
        return self.status in ENDED


def member_lock(folder: Path) -> FileLock:
    """To hold a member while its run lasts.

    **Raises:** on entry `Busy` if another process holds it, `NoLocks` where the file system has no
    locks.
    """
    return FileLock(folder / _LOCK, f"{folder} is being run")


def _who(folder: Path) -> str:
    attempt = _read(folder / "attempt.json")
    return f"process {attempt['pid']} on {attempt['host']}" if attempt else "another process"


def begin_attempt(folder: Path) -> None:
    """Note that this process, which holds the lock, starts the member; remove a broken result."""
    if _result(folder)[1]:
        (folder / "result.json").unlink()
    before = _read(folder / "attempt.json").get("attempt", 0)
    attempt = {
        "attempt": before + 1,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _now(),
    }
    job = {name: os.environ[name] for name in _SLURM if name in os.environ}
    (folder / "outcome.json").unlink(missing_ok=True)
    write_text(folder / "attempt.json", json.dumps(attempt | job, indent=2) + "\n")


_SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURMD_NODENAME")


def end_attempt(folder: Path, status: str, message: str, seconds: float) -> None:
    """Note how the attempt ended; `seconds` is its wall time."""
    outcome = {"status": status, "message": message, "seconds": seconds, "ended": _now()}
    write_text(folder / "outcome.json", json.dumps(outcome, indent=2) + "\n")


def member_state(folder: Path, *, held: bool = False) -> MemberState:
    """What a member's files say now; `held` if this process has its lock."""
    # A run that `hypercircuit train` carries out in the folder is no attempt of the sweep.
    who = (None if held else holder(folder / _LOCK)) or run_holder(folder)
    outcome, attempt = _read(folder / "outcome.json"), _read(folder / "attempt.json")
    attempts, step = attempt.get("attempt", 0), _last_step(folder)
    result, broken = _result(folder)
    if result.get("status") == "finished":
        return MemberState("finished", "", attempts, step)
    if who is not None:
        return MemberState("running", f"by {who}", attempts, step)
    if broken:
        return MemberState("failed", f"{broken}; {_AGAIN}", attempts, step)
    if outcome.get("status") == "finished":
        message = f"{folder / 'result.json'} is missing, though the run finished; {_AGAIN}"
        return MemberState("failed", message, attempts, step)
    if outcome:
        return MemberState(outcome["status"], outcome["message"], attempts, step)
    if attempt:
        message = (
            f"{_who(folder)} ended without a word: killed, out of memory, or its node went down"
        )
        return MemberState("killed", with_tail(message, folder), attempts, step)
    if result:
        return MemberState(result["status"], result.get("message") or "", attempts, step)
    return MemberState("waiting", "", 0, None)


def with_tail(message: str, folder: Path, lines: int = 3, *, log: str = "log.txt") -> str:
    """The message and below it the last lines of the member's log."""
    try:
        with open(folder / log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            tail = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return message
    return "\n".join([message, *[line for line in tail if line.strip()][-lines:]])


def _last_step(folder: Path) -> int | None:
    names = [path.stem.rpartition("-")[2] for path in folder.glob("checkpoints/checkpoint-*.npz")]
    return max((int(name) for name in names if name.isdigit()), default=None)


def _result(folder: Path) -> tuple[dict[str, Any], str]:
    """The run's result, {} if there is none, and what is wrong with its file, empty if nothing."""
    file = folder / "result.json"
    try:
        result = read_json(file)
    except FileNotFoundError:
        return {}, ""
    except ValueError as error:
        return {}, str(error)
    if not isinstance(result.get("status"), str):
        return {}, f"{file} does not say how the run ended"
    return result, ""


def _read(path: Path) -> dict[str, Any]:
    """A note of an attempt, {} if there is none or it is broken."""
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
