"""The section of a configuration that says how Slurm carries a run out."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .sections import Section
from .values import ConfigError, Rule, at_least, at_most, setting

_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d(:\d\d)?)?")
#: Slurm sends a signal up to this much earlier than asked, in seconds (manual of sbatch, --signal).
SIGNAL_LEAD = 60
_MEMORY = re.compile(r"(\d+)([KMGT]?)")
#: Python with JAX takes more, before any data; a smaller number is one in another unit.
_LEAST_MEGABYTES = 256
#: Options of sbatch that are not free, and what to do instead.
_OWN_OPTIONS = {
    **{name: f"set slurm.{name}" for name in ("partition", "account", "qos", "constraint", "time")},
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "set slurm.memory"),
    **dict.fromkeys(("gpus", "gres", "gpus-per-task"), "set slurm.gpus"),
    "comment": "by it the queue's jobs are known as a folder's",
    "job-name": "it is the folder's name",
    "wrap": "the script runs hypercircuit",
    "cpus-per-task": "set slurm.cpus",
    "gpus-per-node": "set slurm.gpus",
    "array": "the members that are missing decide it; set slurm.parallel for their number",
    "signal": "set slurm.grace",
    "requeue": "set slurm.requeues",
    "no-requeue": "set slurm.requeues=0",
    "open-mode": "the files of requeued jobs are appended to",
    "output": "it goes to the folder's slurm/",
    "error": "it goes to the folder's slurm/",
    "nodes": "set slurm.nodes",
    "ntasks": "set slurm.processes",
    "ntasks-per-node": "set slurm.processes and slurm.nodes",
}
_OPTION = re.compile(r"[a-z][a-z-]*[a-z]")


def _megabytes(memory: str) -> float:
    """As Slurm reads it."""
    match = _MEMORY.fullmatch(memory)
    assert match is not None
    return float(match[1]) * {"K": 2**-10, "": 1, "M": 1, "G": 2**10, "T": 2**20}[match[2]]


@dataclass(frozen=True)
class SlurmConfig(Section):
    """What `hypercircuit submit` asks Slurm for; it decides nothing of a run's results.

    Attributes:
        partition: of the cluster; "" is its default, as of the other names.
        account: that the time is charged to.
        qos: quality of service.
        constraint: features that the nodes must have, such as "avx512".
        time: limit of one job, "90" minutes, "12:00:00" or "2-00:00:00"; "" is the partition's.
        memory: of every node for one job, such as "16G", at least "256M"; without a unit in
            megabytes; "0" is all that a node has, "" the cluster's default.
        cpus: cores of one process, at least 1.
        gpus: accelerators of one process.
        gpu_type: such as "a100"; "" takes any.
        processes: of one run, which share its examples out; srun starts them.
        nodes: that the processes are spread over; 0 leaves it to Slurm.
        parallel: members of a sweep that may run at a time; 0 is as many as fit.
        setup: lines of shell that the job runs first, such as "module load cuda".
        python: command that starts Python in the job, such as
            "apptainer exec --nv image.sif python"; "" is the interpreter that submits.
        grace: seconds before the time limit at which a run is asked to save and end, 10..65535;
            longer than one step and one checkpoint.
        requeues: how often a job that was asked to end goes back to the queue by itself; 0 never.
        options: further options of sbatch, as { nice = 100, exclusive = true }.
    """

    section: ClassVar[str] = "slurm"
    partition: str = setting("")
    account: str = setting("")
    qos: str = setting("")
    constraint: str = setting("")
    time: str = setting(
        "",
        Rule(
            "minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S",
            lambda v: not v or _TIME.fullmatch(v) is not None,
            'for example "12:00:00"',
        ),
    )
    memory: str = setting(
        "",
        Rule(
            "a number with K, M, G or T",
            lambda v: not v or _MEMORY.fullmatch(v) is not None,
            'for example "16G"',
        ),
        Rule(
            f"at least {_LEAST_MEGABYTES}M",
            lambda v: not v or _megabytes(v) == 0 or _megabytes(v) >= _LEAST_MEGABYTES,
            'a number without a unit is one of megabytes; write for example "16G", or "0" for all '
            "the memory of a node",
        ),
    )
    cpus: int = setting(1, at_least(1))
    gpus: int = setting(0, at_least(0))
    gpu_type: str = setting("")
    processes: int = setting(1, at_least(1))
    nodes: int = setting(0, at_least(0, "0 leaves it to Slurm"))
    parallel: int = setting(0, at_least(0, "0 is as many as fit"))
    setup: tuple[str, ...] = setting(())
    python: str = setting("")
    grace: int = setting(120, at_least(10), at_most(65535))
    requeues: int = setting(50, at_least(0, "0 never requeues"))
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpu_type and not self.gpus:
            raise ConfigError(
                f"slurm.gpu_type={self.gpu_type!r} is used only with slurm.gpus above 0; set "
                "slurm.gpus=1"
            )
        if self.nodes > self.processes:
            raise ConfigError(
                f"slurm.nodes must be at most slurm.processes={self.processes}, got {self.nodes}; "
                "every node runs at least one process"
            )
        seconds = self.seconds
        if seconds is not None and seconds <= self.grace + SIGNAL_LEAD:
            raise ConfigError(
                f"slurm.time must be more than slurm.grace={self.grace} s and the {SIGNAL_LEAD} s "
                f"that Slurm's signal may come earlier, got {self.time!r} ({seconds} s): the run "
                "would be asked to end as soon as it starts; raise it, or lower slurm.grace"
            )
        words = self.python.split()
        if words and "=" in words[0]:
            raise ConfigError(
                f"slurm.python must start with a program, got {words[0]!r} in {self.python!r}; "
                f"write 'env {self.python}', or 'export {words[0]}' as a line of slurm.setup"
            )
        for name, value in self.options.items():
            if not _OPTION.fullmatch(name):
                raise ConfigError(
                    f"slurm.options must have long names as sbatch writes them, got {name!r}; for "
                    'example "mail-type"'
                )
            if name in _OWN_OPTIONS:
                raise ConfigError(
                    f"slurm.options must leave {name!r} to hypercircuit, got {value!r}; "
                    f"{_OWN_OPTIONS[name]}"
                )
            if not isinstance(value, (str, int, float)):
                raise ConfigError(
                    f"slurm.options.{name} must be a string, number or true, got {value!r}"
                )

    @property
    def seconds(self) -> int | None:
        """`time` in seconds; None without a limit."""
        days, dash, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")] if rest else []
        if dash:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:
            hours, (minutes, seconds) = 0, (*parts, 0, 0)[:2]
        found = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
        return found or None  # 0 asks for no limit
