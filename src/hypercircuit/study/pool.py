"""A pool of processes: every job is a command in a process of its own.

What ends one job, a signal or the kernel short of memory, ends nothing else. The jobs are started
in order, at most `workers` at a time::

    ended = run_pool(jobs, workers=4, stop=signals, on_end=print)

A stop signal starts nothing more and asks the running jobs to end (SIGTERM, again every few
seconds, since a process that is just starting may not hear the first); a second interrupt kills
them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._cores import CPULimit
from ..train import StopSignals

_LOOK_EVERY, _ASK_EVERY = 0.05, 5.0
_THREAD_LIMITS = (
    "PJRT_NPROC",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@dataclass(frozen=True)
class Job:
    """A command, its name, and the file that what it prints is added to."""

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: its exit code, or minus the number of the signal that ended it."""

    name: str
    code: int
    seconds: float

    def describe(self) -> str:
        """The end in words."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        name = signal.Signals(-self.code).name
        memory = ": out of memory, or by hand" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"


def available_cores() -> int:
    """The cores that this process may use: affinity, quota and Slurm's."""
    return CPULimit.of_process().usable


def check_workers(workers: int | None) -> None:
    """Refuse a pool without workers; None is as many as there are cores."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}; leave it out for all cores")


def worker_environment(workers: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of one of `workers` processes that share the cores and the accelerator.

    Threads are limited to a worker's share of the cores; lower limits of `environment` stay.
    """
    share = max(1, available_cores() // workers)
    limits = {}
    for name in _THREAD_LIMITS:
        old = environment.get(name, "")
        limits[name] = str(min(share, int(old)) if old.isdigit() and int(old) else share)
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / workers:.3f}"} if workers > 1 else {}
    return {**memory, **environment, **limits}


def run_pool(
    jobs: Sequence[Job],
    *,
    workers: int,
    stop: StopSignals,
    on_end: Callable[[JobEnd], object],
) -> list[JobEnd]:
    """Run the jobs and return how those that were started ended, in that order.

    `on_end` is called after every job, in this process.

    **Raises:** `ValueError` for less than one worker; `OSError` for a command that is not there;
    `KeyboardInterrupt` at the second interrupt. The jobs that run then are killed.
    """
    check_workers(workers)
    environment = worker_environment(workers, os.environ)
    waiting = list(reversed(jobs))
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    ended: list[JobEnd] = []
    asked = -_ASK_EVERY
    try:
        while running or (waiting and stop.requested is None):
            while waiting and len(running) < workers and stop.requested is None:
                job = waiting.pop()
                running[job.name] = (_start(job, environment), time.monotonic())
            now = time.monotonic()
            if stop.requested is not None and now - asked >= _ASK_EVERY:
                asked = now
                for process, _ in running.values():
                    process.terminate()
            for name, (process, begun) in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[name]
                    ended.append(JobEnd(name, code, time.monotonic() - begun))
                    on_end(ended[-1])
            time.sleep(_LOOK_EVERY)
    except BaseException:
        for process, _ in running.values():
            process.kill()
        for process, _ in running.values():
            process.wait()
        raise
    return ended


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with open(job.log, "ab") as log:
        # A session of its own: an interrupt of the terminal reaches this process alone.
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
