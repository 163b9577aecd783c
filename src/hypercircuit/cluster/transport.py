"""The thread that carries numbers between processes, and the core that it shares with computation.

Gloo, which does so on CPUs, has one thread per process that asks without pause for as long as
something has arrived that the computation has not come to yet. A wake-up puts it in the place of
the computation, on a process's only core until the scheduler's next tick: 4 ms for every sum of two
processes, however small, where 0.3 are enough. As a batch thread it interrupts nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_TASKS = Path("/proc/self/task")
#: Seconds until the thread, once started, waits for its sockets.
_START = 0.3
#: Where the kernel says that a thread waits for sockets, by its versions.
_WAITING = ("ep_poll", "do_epoll_wait")


def threads() -> set[int]:
    """The threads of this process; empty where the system does not list them (outside Linux)."""
    try:
        return {int(task.name) for task in _TASKS.iterdir()}
    except OSError:
        return set()


def yield_to_computation(before: set[int]) -> set[int]:
    """Make batch threads of those that wait for sockets, of all started since `before`.

    To be called when JAX's backend has started. Returns the threads, none where it has no Gloo or
    the system does not say what threads wait for.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return set()
    end = time.monotonic() + _START
    found = _made_batch(threads() - before)
    while not found and time.monotonic() < end:
        time.sleep(0.01)
        found = _made_batch(threads() - before)
    return found


def _made_batch(candidates: set[int]) -> set[int]:
    """Those of some threads that wait for sockets; any may end meanwhile, or be out of reach."""
    found = set()
    for thread in candidates:
        with contextlib.suppress(OSError):
            if (_TASKS / str(thread) / "wchan").read_text() in _WAITING:
                os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
                found.add(thread)
    return found
