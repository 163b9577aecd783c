"""What this process may use of the machine: cores and memory, by affinity, cgroups and Slurm.

A machine's cores and bytes are not those of a job: an affinity mask (`taskset`, Slurm's task
plugins), a cgroup's quota (containers, Slurm's cgroup plugin) and Slurm's own variables each say
less. The least of them counts.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path

#: Version 1 of cgroups writes a number near 2^63 where there is no limit.
_NO_LIMIT = 2**60


@dataclasses.dataclass(frozen=True)
class CPULimit:
    """How many cores a process may use.

    **Attributes:**

    - `machine`: of the machine.
    - `affinity`: that the scheduler of the operating system may place this process on.
    - `quota`: cores' worth of time that its cgroup may use, or None.
    - `slurm`: `SLURM_CPUS_PER_TASK`, or None.
    """

    machine: int
    affinity: int
    quota: float | None = None
    slurm: int | None = None

    @property
    def usable(self) -> int:
        """The threads that a computation should have, at least 1."""
        limits = [self.affinity]
        if self.quota is not None:
            limits.append(math.ceil(self.quota))
        if self.slurm is not None:
            limits.append(self.slurm)
        return max(1, min(limits))

    @classmethod
    def of_process(cls, environment: Mapping[str, str] | None = None) -> CPULimit:
        """The limits of this process, Slurm's taken from `environment`."""
        machine = os.cpu_count() or 1
        affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
        slurm = positive(os.environ if environment is None else environment, "SLURM_CPUS_PER_TASK")
        return cls(machine, affinity, cgroup_quota(), slurm)


def positive(environment: Mapping[str, str], name: str) -> int | None:
    """A variable that is a positive integer; None where it is not there or is no such number."""
    text = environment.get(name, "").strip()
    return int(text) if text.isdigit() and int(text) > 0 else None


def cgroup_quota(root: str | os.PathLike[str] = "/") -> float | None:
    """Cores' worth of time per second that the process's cgroup and its parents allow, or None."""
    found = []
    for folder in _folders(Path(root), "cpu"):
        text = _text(folder / "cpu.max").split()
        if len(text) == 2 and text[0] != "max":
            found.append(float(text[0]) / float(text[1]))
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def cgroup_memory(root: str | os.PathLike[str] = "/") -> int | None:
    """Bytes of memory that the process's cgroup and its parents allow, or None."""
    found = []
    for folder in _folders(Path(root), "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(folder / name)
            if text.isdigit() and int(text) < _NO_LIMIT:
                found.append(int(text))
    return min(found, default=None)


def machine_memory(root: str | os.PathLike[str] = "/") -> int | None:
    """Bytes of memory of the machine, or None where it does not say."""
    for line in _text(Path(root) / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def slurm_memory(environment: Mapping[str, str], cores: int) -> int | None:
    """Bytes of memory that Slurm gave to the job on a node, or None."""
    node = positive(environment, "SLURM_MEM_PER_NODE")
    if node is not None:
        return node * 2**20
    per_core = positive(environment, "SLURM_MEM_PER_CPU")
    if per_core is None:
        return None
    return per_core * 2**20 * (positive(environment, "SLURM_CPUS_ON_NODE") or cores)


def _folders(root: Path, controller: str) -> list[Path]:
    """Where the limits of the process's cgroup stand, in both versions, its parents included."""
    folders = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controller
        else:
            continue
        # In a container the path may be that of the host: only the parts that are there count.
        parts = Path(path.strip("/")).parts
        folders += [base.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]
    return folders


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
