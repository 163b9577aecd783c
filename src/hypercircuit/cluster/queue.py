"""What Slurm's queue says about jobs: a snapshot through squeue, and through sacct their ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

_SECONDS = 120
#: States of jobs that run or are about to.
ACTIVE = ("RUNNING", "COMPLETING", "CONFIGURING")


class NoSlurm(ValueError):
    """Slurm's programs are not here, or do not answer."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or one task of an array, that waits or runs.

    **Attributes:**

    - `job`, `task`: the job's number, and the task's in an array.
    - `state`: Slurm's word for it, as "PENDING".
    - `node`: where it runs, "" while it waits.
    - `reason`: why it waits.
    - `comment`: what the script gave as its comment.
    """

    job: str
    task: int | None
    state: str
    node: str
    reason: str
    comment: str

    @property
    def name(self) -> str:
        """What Slurm's commands take: "12", or "12_3" in an array."""
        return self.job if self.task is None else f"{self.job}_{self.task}"


def require(program: str) -> None:
    """Refuse a machine without one of Slurm's programs.

    **Raises:** `NoSlurm`, with what to do.
    """
    if shutil.which(program) is None:
        raise NoSlurm(
            f"{program} is not found: there is no Slurm on this machine; log in to a node of the "
            "cluster that submits jobs (and load its Slurm module, if it has one), or write a "
            "script with --dry-run and take it there"
        )


def ask(*command: str) -> str:
    """What one of Slurm's programs prints.

    **Raises:** `NoSlurm` if it is not there, does not answer, or fails.
    """
    require(command[0])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise NoSlurm(
            f"{command[0]} gave no answer within {_SECONDS} seconds; try again later"
        ) from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        # The last line says what it came to; each begins with the program's name.
        said = (
            lines[-1].removeprefix(f"{command[0]}: ") if lines else f"exit code {done.returncode}"
        )
        raise NoSlurm(f"{command[0]} failed: {said}")
    return done.stdout


def queued_jobs() -> list[QueuedJob]:
    """This user's jobs that wait, run or are being ended, every task of an array by itself.

    **Raises:** `NoSlurm`.
    """
    answer = ask(
        "squeue",
        "--noheader",
        "--array",
        f"--user={os.getuid()}",
        "--format=%i|%T|%N|%r|%k",
    )
    found = []
    for line in answer.splitlines():
        name, state, node, reason, comment = line.split("|", 4)
        job, _, task = name.partition("_")
        number = int(task) if task.isdigit() else None
        found.append(QueuedJob(job, number, state, node, reason, comment))
    return found


def endings(jobs: Iterable[str]) -> dict[str, str]:
    """Slurm's word for how jobs ended, {"12_3": "OUT_OF_MEMORY"}; {} where it keeps no accounts."""
    wanted = ",".join(sorted(set(jobs)))
    if not wanted:
        return {}
    try:
        answer = ask(
            "sacct",
            "--noheader",
            "--allocations",
            "--parsable2",
            f"--jobs={wanted}",
            "--format=JobID,State",
        )
    except NoSlurm:
        return {}
    lines = [line.split("|") for line in answer.splitlines() if "|" in line]
    # "CANCELLED by 1000"
    return {name: state.split()[0] for name, state, *_ in lines if state.split()}
