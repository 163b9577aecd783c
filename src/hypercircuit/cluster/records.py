"""Which jobs a folder was submitted as, in the folder itself.

slurm/12.json             job 12: when, the command, and the members of an array's tasks
slurm/12_submission.sh    the script that Slurm was given
slurm/12.txt, 13_4.txt    what the script printed; a requeued job appends to it
slurm/command             what `submit` was asked to do with a run: train, restarts or compile
slurm/array_1.sh, ...     scripts that `submit --dry-run` wrote, where there are several
slurm/submission.lock     locked while jobs of this folder are submitted
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from .._files import write_text
from .._locks import FileLock

FOLDER = "slurm"


@dataclass(frozen=True)
class Submission:
    """One job or array.

    **Attributes:**

    - `job`: its number.
    - `command`: of hypercircuit, as "train" or "sweep member".
    - `submitted`: time, ISO 8601.
    - `tasks`: the indices of an array, empty for a job.
    - `offset`: number of the member of task 0.
    """

    job: str
    command: str
    submitted: str
    tasks: tuple[int, ...] = ()
    offset: int = 0


def submission_lock(folder: Path) -> FileLock:
    """Nobody else submits jobs of this folder for the length of the block.

    **Raises:** on entry `Busy` if another process does, `NoLocks` where the file system has no
    locks.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    return FileLock(folder / FOLDER / "submission.lock", f"jobs of {folder} are being submitted")


def note_command(folder: Path, command: str) -> None:
    """Keep what a run's jobs are to do, for the next `submit` of its folder and for `status`."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_text(folder / FOLDER / "command", f"{command}\n")


def read_command(folder: Path) -> str:
    """What `note_command` kept; "" if nothing."""
    try:
        return (folder / FOLDER / "command").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def write_submission(folder: Path, submission: Submission) -> None:
    """Note a submission in its folder."""
    text = json.dumps(dataclasses.asdict(submission)) + "\n"
    write_text(folder / FOLDER / f"{submission.job}.json", text)


def read_submissions(folder: Path) -> list[Submission]:
    """All that the folder was submitted as, the oldest first."""
    found = []
    for path in (folder / FOLDER).glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        found.append(Submission(**values | {"tasks": tuple(values["tasks"])}))
    return sorted(found, key=lambda each: (each.submitted, int(each.job)))
