"""What a machine or a job offers to a run, what is wrong with it, and how to mend it.

`look` collects what there is once (`Surroundings`), `examine` judges it: one `Finding` a line, ok,
a warning (the run works, slowly or not as meant) or wrong (it does not). The judgement reads
nothing but the `Surroundings`.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from .._cores import (
    CPULimit,
    cgroup_memory,
    machine_memory,
    positive,
    slurm_memory,
)
from .._devices import REMEDY, NoDevices, find_devices
from .compile_cache import (
    JAX_VARIABLES,
    VARIABLE,
    CacheUse,
    cache_base,
    cache_folder,
    cache_use,
    make_cache,
)
from .threads import BLAS_VARIABLES, XLA_VARIABLES

OK, WARNING, WRONG = "ok", "warning", "wrong"
_GIB = 2**30
#: Less free space than this may not hold a run's checkpoints.
_LITTLE_SPACE = 2**30
_LARGE_CACHE = 10 * _GIB
#: A clock this far from that of the output folder's server confuses what is newer.
_CLOCK_SECONDS = 60.0
_LITTLE_TIME = 600.0
_OPERATOR = re.compile(r"^([A-Za-z0-9_.-]+)\s*(?:\[[^]]*\])?\s*>=\s*([0-9][0-9.]*)")
#: Devices that JAX would use if its plugin were installed, by what the driver leaves behind.
_DRIVERS = {"/dev/nvidiactl": 'pip install "jax[cuda12]"', "/dev/kfd": "pip install jax-rocm7-pjrt"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line: what was looked at, `state` (ok, warning, wrong), what it is and the remedy."""

    name: str
    state: str
    text: str
    remedy: str = ""

    def describe(self) -> str:
        """The line, and below it how to mend it."""
        line = f"{self.state:<8} {self.name:<14} {self.text}"
        return f"{line}\n{'':<24}{self.remedy}" if self.remedy else line


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What `examine` judges.

    **Attributes:**

    - `environment`: the variables.
    - `cpu`: the limits of cores; `memory_machine`, `memory_cgroup`: bytes, None if unknown or none.
    - `huge_pages`: who gets them from Linux, "always", "madvise" or "never"; None elsewhere.
    - `devices`: (platform, kind, bytes of memory or None) of JAX's; `device_error` why there are
      none; `drivers`: of accelerators that the machine has, those of `_DRIVERS`.
    - `blas`: (library, threads).
    - `requirements`: of the package, as ``numpy>=2.4``; `versions`: installed, None if not.
    - `cache`, `cache_problem`, `cache_use`: the folder of compiled programs, None if it is off; why
      it cannot be used; what it holds.
    - `folder`: of results, `folder_problem` what failed in it, `free_bytes` its space, and
      `clock_offset` seconds that its server's clock is ahead.
    - `seconds_left`: until the job's time limit, None outside of Slurm or without a limit.
    - `now`: seconds since 1970.
    """

    environment: Mapping[str, str]
    cpu: CPULimit
    memory_machine: int | None
    memory_cgroup: int | None
    huge_pages: str | None
    devices: tuple[tuple[str, str, int | None], ...]
    device_error: str
    drivers: tuple[str, ...]
    blas: tuple[tuple[str, int], ...]
    requirements: tuple[str, ...]
    versions: Mapping[str, str | None]
    cache: str | None
    cache_problem: str | None
    cache_use: CacheUse
    folder: str
    folder_problem: str | None
    free_bytes: int
    clock_offset: float
    seconds_left: float | None
    now: float


def examine(found: Surroundings) -> list[Finding]:
    """Judge the surroundings, line by line."""
    return [
        _devices(found),
        _cores(found),
        *_threads(found),
        *_slurm(found),
        _memory(found),
        *_huge_pages(found),
        *_versions(found),
        _cache(found),
        _folder(found),
        *_time(found),
    ]


def exit_code(findings: list[Finding]) -> int:
    """1 if anything is wrong, else 0."""
    return int(any(finding.state == WRONG for finding in findings))


def _devices(found: Surroundings) -> Finding:
    if not found.devices:
        return Finding(
            "devices",
            WRONG,
            f"JAX finds none: {found.device_error}",
            REMEDY,
        )
    parts = []
    for platform, kind, size in found.devices:
        memory = "" if size is None else f", {size / _GIB:.1f} GiB"
        parts.append(f"{kind} ({platform}{memory})")
    text = ", ".join(parts)
    if found.drivers and all(platform == "cpu" for platform, *_ in found.devices):
        if found.environment.get("JAX_PLATFORMS") == "cpu":
            return Finding("devices", OK, f"{text}; accelerators are off, JAX_PLATFORMS=cpu")
        return Finding(
            "devices",
            WARNING,
            f"{text}, though the machine has an accelerator ({', '.join(found.drivers)})",
            "; ".join(_DRIVERS[driver] for driver in found.drivers),
        )
    wanted = found.environment.get("SLURM_GPUS_ON_NODE", "0")
    if wanted not in ("", "0") and all(platform == "cpu" for platform, *_ in found.devices):
        return Finding(
            "devices",
            WRONG,
            f"{text}, though Slurm gave {wanted} accelerators to the job",
            'install the plugin, for NVIDIA pip install "jax[cuda12]"; in a container, --nv',
        )
    return Finding("devices", OK, text)


def _cores(found: Surroundings) -> Finding:
    cpu = found.cpu
    parts = [f"{cpu.usable} usable of {cpu.machine}"]
    if cpu.affinity < cpu.machine:
        parts.append(f"affinity {cpu.affinity}")
    if cpu.quota is not None:
        parts.append(f"cgroup quota {cpu.quota:g}")
    if cpu.slurm is not None:
        parts.append(f"SLURM_CPUS_PER_TASK {cpu.slurm}")
    if cpu.slurm is not None and cpu.affinity < cpu.slurm:
        return Finding(
            "cores",
            WARNING,
            f"{', '.join(parts)}: the process is bound to fewer cores than the task has",
            f"start it with srun --cpus-per-task={cpu.slurm} --cpu-bind=cores, without taskset",
        )
    return Finding("cores", OK, ", ".join(parts))


def _threads(found: Surroundings) -> list[Finding]:
    environment, cores = found.environment, found.cpu.usable
    name = next((each for each in XLA_VARIABLES if environment.get(each)), None)
    number = found.cpu.affinity if name is None else positive(environment, name)
    flags = environment.get("XLA_FLAGS", "")
    findings = []
    if name is not None and number is None:
        findings.append(
            Finding(
                "XLA threads",
                WRONG,
                f"{name}={environment[name]!r} is no number of threads",
                f"unset {name}; hypercircuit follows the job's cores",
            )
        )
    elif re.search(r"xla_cpu_multi_thread_eigen=(false|0)\b", flags):
        state = OK if cores == 1 else WARNING
        remedy = "" if cores == 1 else "unset XLA_FLAGS to use all cores in large products"
        text = "1 in large products: XLA_FLAGS has --xla_cpu_multi_thread_eigen=false"
        findings.append(Finding("XLA threads", state, text, remedy))
    else:
        findings.append(_thread_count("XLA threads", number or 1, cores, name or "the affinity"))
    blas_name = next((each for each in BLAS_VARIABLES if environment.get(each)), "its default")
    findings += [
        _thread_count(f"{library} threads", n, cores, blas_name) for library, n in found.blas
    ]
    return findings


def _thread_count(name: str, number: int, cores: int, source: str) -> Finding:
    text = f"{number}, by {source}"
    if number > cores:
        return Finding(
            name,
            WARNING,
            f"{text}, on {cores} cores: they wait for each other",
            f"ask Slurm for --cpus-per-task={number}, or unset the variable",
        )
    if number < cores and source != "its default":
        return Finding(
            name, WARNING, f"{text}, of {cores} cores", f"unset {source} to use all of them"
        )
    return Finding(name, OK, text)


def _slurm(found: Surroundings) -> list[Finding]:
    environment = found.environment
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return [Finding("Slurm", OK, "not inside a job")]
    nodes = positive(environment, "SLURM_JOB_NUM_NODES") or positive(environment, "SLURM_NNODES")
    tasks = positive(environment, "SLURM_NTASKS") or 1
    steps = environment.get("SLURM_STEP_NUM_TASKS", "")
    text = f"job {job}, {nodes or 1} nodes, {tasks} tasks"
    findings = []
    if steps.isdigit() and int(steps) > 1:
        text += (
            f"; srun started {steps} processes: train, restarts and compile are one run of all of "
            "them"
        )
        findings.append(Finding("Slurm", OK, text))
    elif tasks > 1:
        findings.append(
            Finding(
                "Slurm",
                WARNING,
                f"{text}: a command without srun uses one task's cores; the others are paid for "
                "and idle",
                f"`srun hypercircuit train ... --processes {tasks}` for one run of {tasks} "
                f"processes, or --ntasks=1 --cpus-per-task={tasks * (found.cpu.slurm or 1)}",
            )
        )
    else:
        findings.append(Finding("Slurm", OK, text))
    if found.cpu.slurm is None:
        findings.append(
            Finding(
                "Slurm cores",
                WARNING,
                f"SLURM_CPUS_PER_TASK is not set: {found.cpu.usable} threads, by affinity, even if "
                "the job has fewer cores",
                "submit with --cpus-per-task=N",
            )
        )
    return findings


def _memory(found: Surroundings) -> Finding:
    slurm = slurm_memory(found.environment, found.cpu.usable)
    named = {"machine": found.memory_machine, "cgroup": found.memory_cgroup, "Slurm": slurm}
    known = {name: size for name, size in named.items() if size is not None}
    if not known:
        return Finding("memory", WARNING, "unknown", "look at the machine's description")
    least = min(known, key=lambda name: known[name])
    text = f"{known[least] / _GIB:.1f} GiB usable ("
    text += ", ".join(f"{name} {size / _GIB:.1f}" for name, size in known.items()) + ")"
    if known[least] < 2 * _GIB:
        return Finding(
            "memory",
            WARNING,
            f"{text}: little more than JAX and the data need",
            "ask for more, --mem=4G; `hypercircuit estimate CONFIG` says how much",
        )
    return Finding("memory", OK, text)


def _huge_pages(found: Surroundings) -> list[Finding]:
    """Pages of 2 MiB for large arrays, whose memory every step asks for anew."""
    tunables = found.environment.get("GLIBC_TUNABLES", "")
    asked = re.search(r"\bglibc\.malloc\.hugetlb=[12]\b", tunables)
    if found.huge_pages != "madvise" or any(platform != "cpu" for platform, *_ in found.devices):
        return []
    if asked:
        return [Finding("huge pages", OK, "asked for in GLIBC_TUNABLES")]
    return [
        Finding(
            "huge pages",
            OK,
            "only for programs that ask; steps of several GiB may be a fifth faster with them",
            f"export GLIBC_TUNABLES={tunables and tunables + ':'}glibc.malloc.hugetlb=1, "
            "with glibc 2.35 or newer",
        )
    ]


def _versions(found: Surroundings) -> list[Finding]:
    findings = []
    for requirement in found.requirements:
        match = _OPERATOR.match(requirement)
        if match is None or ";" in requirement:
            continue
        name, least = match.groups()
        here = found.versions.get(name)
        install = f'pip install "{name}>={least}"'
        if here is None:
            findings.append(Finding(name, WRONG, f"not installed, needs >= {least}", install))
        elif _numbers(here) < _numbers(least):
            findings.append(Finding(name, WRONG, f"{here}, needs >= {least}", install))
    jax_, jaxlib = found.versions.get("jax"), found.versions.get("jaxlib")
    if jax_ and jaxlib and _numbers(jax_)[:2] != _numbers(jaxlib)[:2]:
        text = f"jaxlib {jaxlib} beside jax {jax_}"
        findings.append(Finding("jaxlib", WRONG, text, f'pip install "jaxlib=={jax_}"'))
    if findings:
        return findings
    shown = ", ".join(f"{name} {found.versions.get(name)}" for name in ("hypercircuit", "jax"))
    return [Finding("versions", OK, f"{shown}, and all others at least the lower bounds")]


def _numbers(version: str) -> tuple[int, ...]:
    """1.10.2.dev3 as (1, 10, 2)."""
    numbers = []
    for part in version.split("."):
        digits = re.match(r"\d+", part)
        if digits is None:
            break
        numbers.append(int(digits.group()))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _cache(found: Surroundings) -> Finding:
    name, use = "compile cache", found.cache_use
    if found.cache is None:
        return Finding(
            name,
            WARNING,
            "off: every start compiles again",
            f"unset {VARIABLE} and JAX_ENABLE_COMPILATION_CACHE",
        )
    if found.cache_problem is not None:
        return Finding(
            name,
            WARNING,
            f"{found.cache_problem}; every start compiles again",
            f"export {VARIABLE}=/a/folder/that/all/nodes/see",
        )
    text = f"{found.cache}: {use.programs} programs, {use.bytes / 2**20:.0f} MiB"
    if use.unreadable:
        files = " ".join(str(path) for path in use.unreadable[:3])
        more = " ..." if len(use.unreadable) > 3 else ""
        return Finding(
            name, WARNING, f"{text}, {len(use.unreadable)} unreadable", f"rm {files}{more}"
        )
    if use.bytes > _LARGE_CACHE:
        return Finding(name, WARNING, text, f"rm -r {found.cache}; it is filled again as needed")
    return Finding(name, OK, text)


def _folder(found: Surroundings) -> Finding:
    name = "output folder"
    if found.folder_problem is not None:
        return Finding(
            name,
            WRONG,
            f"{found.folder}: {found.folder_problem}",
            "choose another --out: a file system with locks and renames, such as NFS or Lustre "
            "mounted with -o flock",
        )
    text = f"{found.folder}: {found.free_bytes / _GIB:.1f} GiB free, locks and renames work"
    if found.free_bytes < _LITTLE_SPACE:
        return Finding(name, WARNING, text, "free some space: a full disk ends a checkpoint")
    return Finding(name, OK, text)


def _time(found: Surroundings) -> list[Finding]:
    moment = datetime.datetime.fromtimestamp(found.now, datetime.UTC)
    text = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    findings = [Finding("clock", OK, text)]
    if abs(found.clock_offset) > _CLOCK_SECONDS:
        findings = [
            Finding(
                "clock",
                WARNING,
                f"{text}; the output folder's server is {found.clock_offset:+.0f} s ahead",
                "tell the administrators that the clocks differ (chrony, ntp)",
            )
        ]
    left = found.seconds_left
    if left is not None:
        state = WARNING if left < _LITTLE_TIME else OK
        remedy = "submit with a longer --time; a run saves before and is requeued" * (state != OK)
        findings.append(Finding("time limit", state, f"{left / 60:.0f} min left", remedy))
    return findings


def look(
    folder: str | os.PathLike[str] = ".", environment: Mapping[str, str] | None = None
) -> Surroundings:
    """Collect what `examine` judges; writes a small file into `folder` (or its nearest parent).

    **Raises:** `ValueError` for a compile cache that is named by a relative path.
    """
    environment = dict(os.environ if environment is None else environment)
    devices, error = _look_for_devices()
    there = Path(folder).absolute()
    while not there.is_dir():
        there = there.parent
    problem, offset = _try_folder(there)
    requirements = _try(lambda: importlib.metadata.requires("hypercircuit"), None) or []
    cache, cache_problem, use = _look_at_cache(environment)
    return Surroundings(
        environment=environment,
        cpu=CPULimit.of_process(environment),
        memory_machine=machine_memory(),
        memory_cgroup=cgroup_memory(),
        huge_pages=_look_for_huge_pages(),
        devices=devices,
        device_error=error,
        drivers=tuple(driver for driver in _DRIVERS if Path(driver).exists()),
        blas=tuple(
            sorted({(each["internal_api"], each["num_threads"]) for each in threadpool_info()})
        ),
        requirements=tuple(each for each in requirements if "extra" not in each),
        versions=_look_for_versions(requirements),
        cache=cache,
        cache_problem=cache_problem,
        cache_use=use,
        folder=str(there),
        folder_problem=problem,
        free_bytes=shutil.disk_usage(there).free,
        clock_offset=offset,
        seconds_left=_seconds_left(environment),
        now=time.time(),
    )


def _look_for_devices() -> tuple[tuple[tuple[str, str, int | None], ...], str]:
    try:
        devices = find_devices()
    except NoDevices as error:
        return (), str(error)
    found = []
    for device in devices:
        statistics: Any = _try(device.memory_stats, None) or {}
        found.append((device.platform, device.device_kind, statistics.get("bytes_limit")))
    return tuple(found), ""


def _look_for_huge_pages() -> str | None:
    try:
        modes = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    # As "always [madvise] never".
    chosen = re.search(r"\[(\w+)\]", modes)
    return chosen and chosen[1]


def _look_for_versions(requirements: list[str]) -> dict[str, str | None]:
    names = {"hypercircuit", "jaxlib"}
    names |= {match[1] for each in requirements if (match := _OPERATOR.match(each))}
    versions: dict[str, str | None] = {}
    for name in sorted(names):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _look_at_cache(environment: Mapping[str, str]) -> tuple[str | None, str | None, CacheUse]:
    own = environment.get(JAX_VARIABLES[0])
    disabled = environment.get(JAX_VARIABLES[1], "").lower() in ("0", "false", "no", "off")
    folder = Path(own) if own else cache_folder(environment)
    if disabled or folder is None:
        return None, None, CacheUse(0, 0)
    problem = make_cache(folder)
    base = folder if own else cache_base(environment)
    assert base is not None
    if problem is not None:
        return str(base), problem, CacheUse(0, 0)
    return str(base), None, cache_use(base, check=True)


def _try_folder(folder: Path) -> tuple[str | None, float]:
    """What fails of writing, locking and renaming in a folder; and its clock's lead in seconds."""
    offset = 0.0
    try:
        with tempfile.TemporaryDirectory(prefix=".hypercircuit-doctor-", dir=folder) as inside:
            first, second = Path(inside, "first"), Path(inside, "second")
            second.write_text("old")
            now = time.time()
            first.write_text("new")
            offset = first.stat().st_mtime - now
            os.replace(first, second)
            if second.read_text() != "new":
                return "a file is not replaced by a rename", offset
            with open(second, "a") as file:
                _lock(file.fileno())
    except OSError as error:
        return f"{error.strerror or error}", offset
    return None, offset


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _seconds_left(environment: Mapping[str, str]) -> float | None:
    end = positive(environment, "SLURM_JOB_END_TIME")
    if end is not None:
        return end - time.time()
    job = environment.get("SLURM_JOB_ID")
    if not job or shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--job", job, "--format", "%L"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return slurm_seconds(done.stdout.strip())


def slurm_seconds(text: str) -> float | None:
    """Slurm's D-H:M:S, H:M:S or M:S in seconds; None where it is no time, as UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)


def _try(function: Callable[[], Any], instead: Any) -> Any:
    try:
        return function()
    except (importlib.metadata.PackageNotFoundError, NotImplementedError, RuntimeError):
        return instead
