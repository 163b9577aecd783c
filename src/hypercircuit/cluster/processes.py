"""How the processes of one run meet, before any of them computes.

    srun --ntasks=2 hypercircuit train CONFIG           found out from Slurm's variables
    --coordinator HOST:PORT --processes 2 --process-id I  on any machines, I = 0 on HOST
    neither                                             one process

Two commands that were meant to be one run but do not know of each other would train the same thing
twice and write the same files. So the number of processes can be stated, and is compared with what
there is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from .._devices import require_devices
from .._shards import device_mesh
from .transport import threads, yield_to_computation

#: Seconds until a process that does not answer counts as lost; its fellows then end too.
_HEARTBEAT = 100
#: Seconds that processes which have ended their part wait for process 0's figures and searches.
_SHUTDOWN = 7 * 24 * 3600


def connect(
    *,
    expected: int = 0,
    coordinator: str | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Mesh | None:
    """Join the processes of this run, and return the mesh of all their devices.

    To be called before anything is computed. The mesh is None for a single device.

    **Arguments:**

    - `expected`: the number of processes; 0 takes what there is.
    - `coordinator`: HOST:PORT that process 0 opens and all others reach; left out, what srun says.
    - `process_id`: this process's number, 0 to `expected - 1`; with `coordinator` only.
    - `environment`: of variables, that of the process.

    **Raises:** `ValueError` for another number of processes than `expected`, arguments that do not
    go together, or without a device.
    """
    variables = os.environ if environment is None else environment
    if expected < 0:
        raise ValueError(f"the number of processes must be at least 0, got {expected}")
    if coordinator is not None:
        if expected < 1 or process_id is None or not 0 <= process_id < expected:
            raise ValueError(
                f"--coordinator {coordinator} needs --processes N and --process-id I with "
                f"0 <= I < N, got N={expected} and I={process_id}"
            )
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"--coordinator must be HOST:PORT, got {coordinator!r}")
        if expected > 1:
            _initialise(coordinator, expected, process_id)
    else:
        if process_id is not None:
            raise ValueError(
                f"--process-id {process_id} needs --coordinator HOST:PORT; srun needs neither"
            )
        found = tasks_of_step(variables)
        _refuse_other(expected, found)
        if found > 1:
            _initialise(devices=devices_of_task(variables))
    before = threads()
    require_devices()
    _refuse_other(expected, jax.process_count())
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        yield_to_computation(before)
    mesh = device_mesh()
    return mesh if mesh.devices.size > 1 else None


def end_alone(code: int) -> None:
    """After an error: end this process, if it is one of several, without waiting for the others.

    A usual exit waits for them, and they for what this process will not do any more; so they notice
    that it is gone, and end too.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def tasks_of_step(variables: Mapping[str, str]) -> int:
    """How many processes srun started this one with, 1 outside of it.

    A batch script itself is one process, whatever `--ntasks` it asked for.
    """
    return int(variables.get("SLURM_STEP_NUM_TASKS", "1"))


def _refuse_other(expected: int, found: int) -> None:
    if expected and expected != found:
        raise ValueError(
            f"the number of processes must be {expected} (--processes), got "
            f"{found}: {expected} independent runs instead of one; start it as `srun "
            f"--ntasks={expected} hypercircuit ...`, or every process with --coordinator "
            f"HOST:PORT --processes {expected} --process-id I"
        )


def devices_of_task(variables: Mapping[str, str]) -> list[int] | None:
    """Which of the accelerators that this task of srun sees are its own; None without any.

    All of them where Slurm divided them among the tasks (`--gpus-per-task`); otherwise the node's
    tasks divide what they all see. JAX by itself would take one per task.

    **Raises:** `ValueError` if the node has more tasks than accelerators.
    """
    visible = [name for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not visible:
        return None
    if "SLURM_GPUS_PER_TASK" in variables:
        return list(range(len(visible)))
    tasks = [
        int(count)
        for count, times in re.findall(
            r"(\d+)(?:\(x(\d+)\))?", variables.get("SLURM_STEP_TASKS_PER_NODE", "1")
        )
        for _ in range(int(times or 1))
    ][int(variables.get("SLURM_NODEID", "0"))]
    if tasks > len(visible):
        raise ValueError(
            f"{tasks} processes on this node share {len(visible)} GPUs "
            f"(CUDA_VISIBLE_DEVICES={','.join(visible)}); ask for one a process with "
            "--gpus-per-task=1, or start fewer processes"
        )
    share = len(visible) // tasks
    first = int(variables.get("SLURM_LOCALID", "0")) * share
    return list(range(first, first + share))


def _initialise(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    devices: list[int] | None = None,
) -> None:
    jax.distributed.initialize(
        coordinator,
        processes,
        process_id,
        devices,
        heartbeat_timeout_seconds=_HEARTBEAT,
        shutdown_timeout_seconds=_SHUTDOWN,
    )
