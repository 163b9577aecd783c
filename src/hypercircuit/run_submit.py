"""Runs and sweeps as jobs of Slurm: what is missing of a folder is submitted, and looked after.

A run is a job, a sweep an array whose tasks are its missing members. The folder keeps which jobs it
was submitted as (see `cluster.records`), the scripts and what they printed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ._files import read_json, write_text
from ._run_lock import run_holder
from .cluster import (
    ACTIVE,
    JobScript,
    NoSlurm,
    QueuedJob,
    Submission,
    array_text,
    endings,
    note_command,
    queued_jobs,
    read_command,
    read_submissions,
    submission_lock,
    submit_script,
    write_submission,
)
from .cluster.records import FOLDER
from .cluster.script import ARRAY_SIZE
from .config import Config, ConfigError, SlurmConfig, load_config
from .methods import Report, check_settings, check_shared
from .run import refuse_another
from .run_sweep import Member, describe_counts, read_sweep
from .study.members import STATUSES, MemberState, with_tail
from .train import CHECKPOINTS, History, latest_metadata

COMMANDS = ("train", "restarts", "compile")
_RESULTS = {"train": "result.json", "restarts": "result.json", "compile": "report.json"}
_COMMENT = "hypercircuit"


@dataclass(frozen=True)
class PlannedJob:
    """A job that is not submitted yet.

    **Attributes:**

    - `script`: of the job.
    - `command`: of hypercircuit that it runs.
    - `tasks`: of an array, empty for a single job.
    - `offset`: number of the member of task 0.
    """

    script: JobScript
    command: str
    tasks: tuple[int, ...] = ()
    offset: int = 0


@dataclass(frozen=True)
class JobPlan:
    """What is to be submitted of a folder, and in words what is not.

    **Attributes:**

    - `note`: a setting that has no effect, in words, or "".
    """

    folder: Path
    jobs: tuple[PlannedJob, ...]
    left_out: str
    note: str = ""

    def text(self) -> str:
        """The script; of several arrays one that submits theirs, see `write_scripts`."""
        if len(self.jobs) == 1:
            return self.jobs[0].script.text()
        lines = [f"sbatch {shlex.quote(str(path))}\n" for path in self._paths()]
        return f"#!/bin/bash\n# {len(lines)} job arrays, a script each.\n" + "".join(lines)

    def write_scripts(self) -> None:
        """Make the folder for what jobs print, and of several arrays their scripts in it."""
        (self.folder / FOLDER).mkdir(exist_ok=True)
        if len(self.jobs) > 1:
            for job, path in zip(self.jobs, self._paths(), strict=True):
                write_text(path, job.script.text())

    def _paths(self) -> list[Path]:
        return [self.folder / FOLDER / f"array_{n}.sh" for n in range(1, len(self.jobs) + 1)]


def prepare_run(config: Config, folder: str | os.PathLike[str], command: str = "train") -> None:
    """Make a run's folder, from which its job will run `command`.

    The folder of a finished run stays as it is.

    **Raises:** `ConfigError` if the folder belongs to something else, for settings that training
    would refuse, or if `data.path` does not exist.
    """
    folder = Path(folder)
    if (folder / "sweep.json").exists():
        raise ConfigError(f"{folder} belongs to a sweep; choose another --out")
    check_settings(config)
    check_data(config)
    refuse_another(folder, config)
    note_command(folder, command)
    if not _has_finished(folder, command):
        write_text(folder / "config.toml", config.to_toml())


def plan_jobs(
    folder: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    command: str | None = None,
    ask_queue: bool = True,
) -> JobPlan:
    """The jobs for what is missing of a run's or a sweep's folder.

    Finished runs are left out, and what runs or waits in the queue.

    **Arguments:**

    - `overrides`: of [slurm], "slurm.time=2:00:00", for these jobs.
    - `command`: of a run, one of `COMMANDS`; None is the one it was submitted with, or else
      "train".
    - `ask_queue`: without it nothing is taken to be in the queue.

    **Raises:** `ConfigError` if the folder holds neither, for an override of another section, or
    if `data.path` of what is missing does not exist; `NoSlurm` if the queue does not answer.
    """
    folder = Path(folder).absolute()
    wrong = [each for each in overrides if not each.startswith(f"{SlurmConfig.section}.")]
    if wrong:
        raise ConfigError(
            f"only settings of slurm can change for a folder, got {wrong[0]!r}; submit the config "
            "with another --out for other settings"
        )
    queue = _queue_of(folder) if ask_queue else {}
    if (folder / "sweep.json").exists():
        if command is not None:
            raise ConfigError(
                f"{folder} holds a sweep, whose members are trained; leave --command out"
            )
        return _plan_sweep(folder, overrides, queue)
    return _plan_run(folder, overrides, command or _command_of(folder), queue)


def _command_of(folder: Path) -> str:
    """What `submit` was last asked to do with a run."""
    submissions = read_submissions(folder)
    return read_command(folder) or (submissions[-1].command if submissions else "train")


def _has_finished(folder: Path, command: str) -> bool:
    result = _read(folder / _RESULTS[command])
    return bool(result) and result.get("status", "finished") == "finished"


def _plan_run(
    folder: Path, overrides: Sequence[str], command: str, queue: Mapping[int | None, QueuedJob]
) -> JobPlan:
    config = _config_of(folder, overrides)
    if _has_finished(folder, command):
        return JobPlan(folder, (), "it has finished")
    if None in queue:
        job = queue[None]
        return JobPlan(folder, (), f"it is in the queue as job {job.name} ({job.state.lower()})")
    who = run_holder(folder)
    if who is not None:
        return JobPlan(folder, (), f"it is in use by {who}")
    line = f"{command} {shlex.quote(str(folder / 'config.toml'))} --out {shlex.quote(str(folder))}"
    if command == "train" and config.slurm.processes > 1:
        check_shared(config)
    check_data(config)
    options = _options(config.slurm, folder, "%j", 0)
    note = ""
    if config.slurm.parallel:
        note = (
            f"slurm.parallel={config.slurm.parallel} has no effect: it limits the members of a "
            "sweep, and this is one run"
        )
    return JobPlan(folder, (PlannedJob(_script(config.slurm, options, line), command),), "", note)


def check_data(config: Config, whose: str = "") -> None:
    """Refuse to submit what would only find out in its job that there are no data.

    **Arguments:**

    - `whose`: configuration it is, the beginning of the message.

    **Raises:** `ConfigError` if `data.path` does not exist here.
    """
    path = config.data.path
    if path and not Path(path).exists():
        raise ConfigError(
            f"{whose}data.path must exist where the job is submitted, found no {path}; correct it, "
            "or put the data there, on a file system that the nodes see too"
        )


def _config_of(folder: Path, overrides: Sequence[str]) -> Config:
    file = folder / "config.toml"
    if not file.exists():
        raise ConfigError(
            f"{folder} holds neither a run nor a sweep (no config.toml, no sweep.json); name a "
            "configuration file, or the folder of a run or a sweep"
        )
    return load_config(file, overrides)


def _plan_sweep(
    folder: Path, overrides: Sequence[str], queue: Mapping[int | None, QueuedJob]
) -> JobPlan:
    members = read_sweep(folder)
    arrays: dict[tuple[str, int], tuple[SlurmConfig, list[int]]] = {}
    left_out = {"have ended": 0, "run or are in the queue": 0}
    for member in members:
        state = member.state()
        if state.ended:
            left_out["have ended"] += 1
        elif member.number in queue or state.status == "running":
            left_out["run or are in the queue"] += 1
        else:
            config = _config_of(member.folder, overrides)
            slurm = config.slurm
            check_data(config, f"member {member.name}: ")
            if slurm.processes > 1:
                raise ConfigError(
                    f"every member of a sweep is one process, got slurm.processes="
                    f"{slurm.processes}; set slurm.processes=1: members run side by side"
                )
            offset = member.number // ARRAY_SIZE * ARRAY_SIZE
            key = json.dumps(dataclasses.asdict(slurm), sort_keys=True), offset
            arrays.setdefault(key, (slurm, []))[1].append(member.number - offset)
    jobs = []
    for (_, offset), (slurm, tasks) in arrays.items():
        number = f"$((SLURM_ARRAY_TASK_ID + {offset}))" if offset else "$SLURM_ARRAY_TASK_ID"
        line = f'sweep member {shlex.quote(str(folder))} "{number}"'
        options = _options(slurm, folder, "%A_%a", offset)
        options["array"] = array_text(tasks, slurm.parallel)
        script = _script(slurm, options, line)
        jobs.append(PlannedJob(script, "sweep member", tuple(tasks), offset))
    words = ", ".join(f"{number} {what}" for what, number in left_out.items() if number)
    return JobPlan(folder, tuple(jobs), words)


def _options(slurm: SlurmConfig, folder: Path, log: str, offset: int) -> dict[str, Any]:
    """The options of sbatch, by their long names."""
    found: dict[str, Any] = {
        "job-name": folder.name,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "time": slurm.time,
        "mem": slurm.memory,
        "nodes": slurm.nodes or (1 if slurm.processes == 1 else ""),
        "ntasks": slurm.processes,
        "cpus-per-task": slurm.cpus,
    }
    if slurm.gpus:
        kind = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
        each = "node" if slurm.processes == 1 else "task"
        found[f"gpus-per-{each}"] = f"{kind}{slurm.gpus}"
    found |= {
        "signal": f"B:USR1@{slurm.grace}",
        "requeue" if slurm.requeues else "no-requeue": True,
        "open-mode": "append",
        # Slurm would read %j in the folder's name as the job's number.
        "output": f"{str(folder / FOLDER).replace('%', '%%')}/{log}.txt",
        "comment": _comment(folder, offset),
    }
    return {name: value for name, value in found.items() if value != ""} | slurm.options


def _comment(folder: Path, offset: int) -> str:
    """By which the queue's jobs are known as this folder's, whoever gave the script to sbatch."""
    return f"{_COMMENT} {offset} {folder}"


def _script(slurm: SlurmConfig, options: Mapping[str, Any], line: str) -> JobScript:
    python = slurm.python or shlex.quote(sys.executable)
    command = f"{python} -m hypercircuit.cli {line}"
    stop_signal = ""
    if slurm.processes > 1:
        # srun hands USR1 on (at TERM and HUP it kills) and ends with the largest exit code; a
        # process that has ended must not end the others, which may still save.
        stop_signal = "USR1"
        command = (
            f"srun --ntasks={slurm.processes} --cpus-per-task={slurm.cpus} --kill-on-bad-exit=0 "
            f"{command} --processes {slurm.processes}"
        )
    return JobScript(options, slurm.setup, command, slurm.requeues, stop_signal)


def submit_folder(
    folder: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    command: str | None = None,
    report: Report = print,
) -> list[Submission]:
    """Submit what is missing of a run's or a sweep's folder; see `plan_jobs`.

    **Raises:** `NoSlurm` without Slurm or submitit; `ValueError` if sbatch refuses, or while
    another process submits jobs of the folder.
    """
    folder = Path(folder).absolute()
    if not (folder / "sweep.json").exists():
        _config_of(folder, ())
        if command is not None:
            note_command(folder, command)
    made = []
    with submission_lock(folder):
        plan = plan_jobs(folder, overrides=overrides, command=command)
        for job in plan.jobs:
            number = submit_script(job.script, folder)
            submitted = datetime.now(UTC).isoformat(timespec="microseconds")
            submission = Submission(number, job.command, submitted, job.tasks, job.offset)
            write_submission(folder, submission)
            made.append(submission)
            what = f"{len(job.tasks)} members" if job.tasks else job.command
            report(f"job {number}: {what}")
    if plan.left_out:
        report(f"not submitted: {plan.left_out}")
    if plan.note:
        report(plan.note)
    if made:
        report(f"see `hypercircuit status {folder}`; what the jobs print is in {folder / FOLDER}")
    return made


# ---------------------------------------------------------------- status


def _queue_of(folder: Path) -> dict[int | None, QueuedJob]:
    """The folder's jobs that wait or run, by member; None is the job of a run.

    **Raises:** `NoSlurm`.
    """
    offsets = {each.job: each.offset for each in read_submissions(folder)}
    found: dict[int | None, QueuedJob] = {}
    for job in queued_jobs():
        words = job.comment.split(" ", 2)
        ours = len(words) == 3 and words[0] == _COMMENT and words[2] == str(folder)
        offset = int(words[1]) if ours else offsets.get(job.job)
        if offset is None or (not ours and _is_another(job, folder)):
            continue
        found[None if job.task is None else job.task + offset] = job
    return found


def _is_another(job: QueuedJob, folder: Path) -> bool:
    """Whether a job with a number of ours says that it is another folder's: numbers come again."""
    return job.comment.startswith(f"{_COMMENT} ") and not job.comment.endswith(f" {folder}")


@dataclass(frozen=True)
class FolderState:
    """How far a run or a member is, by its files and by the queue.

    **Attributes:**

    - `name`, `status`, `message`: see `study.members.MemberState`.
    - `job`: its job in the queue, or None.
    - `last_job`, `node`: that job, or else the one that ran it last, and where; "" if unknown.
    - `step`, `steps`: updates done by the last checkpoint, and in all; None where there are none.
    - `energy`: the final one, or the last of the last checkpoint, in the loss's unit.
    """

    name: str
    status: str
    message: str
    job: QueuedJob | None
    last_job: str
    node: str
    step: int | None
    steps: int | None
    energy: float | None


def folder_states(folder: str | os.PathLike[str]) -> tuple[list[FolderState], str]:
    """The states of a run (one) or a sweep's members, and why the queue is unknown, if it is.

    **Raises:** `ConfigError` if the folder holds neither.
    """
    folder = Path(folder).absolute()
    unknown, queue = "", {}
    try:
        queue = _queue_of(folder)
    except NoSlurm as error:
        unknown = f"the queue is not known: {error}"
    if not (folder / "sweep.json").exists():
        return [_run_state(folder, queue.get(None), known=not unknown)], unknown
    members = read_sweep(folder)
    submitted = _last_jobs(folder)
    states = [_member_state(member, queue.get(member.number), submitted) for member in members]
    return _with_endings(states), unknown


def _last_jobs(folder: Path) -> dict[int, str]:
    """The last job of every member that was submitted."""
    return {
        task + each.offset: f"{each.job}_{task}"
        for each in read_submissions(folder)
        for task in each.tasks
    }


def _member_state(
    member: Member, job: QueuedJob | None, submitted: Mapping[int, str]
) -> FolderState:
    state: MemberState = member.state()
    attempt = _read(member.folder / "attempt.json")
    array, task = attempt.get("SLURM_ARRAY_JOB_ID"), attempt.get("SLURM_ARRAY_TASK_ID")
    last = job.name if job else submitted.get(member.number, f"{array}_{task}" if array else "")
    step, steps, energy = _progress(member.folder)
    node = job.node if job else attempt.get("SLURMD_NODENAME", attempt.get("host", ""))
    return _in_the_queue_again(
        FolderState(member.name, state.status, state.message, job, last, node, step, steps, energy)
    )


def _run_state(folder: Path, job: QueuedJob | None, *, known: bool) -> FolderState:
    """Whether a run runs is the word of its lock and of the queue."""
    _config_of(folder, ())
    submissions = read_submissions(folder)
    result = _read(folder / _RESULTS[_command_of(folder)])
    last = submissions[-1].job if submissions else ""
    status, message = "waiting", ""
    if result:
        status, message = result.get("status", "finished"), result.get("message") or ""
    if status in ("finished", "non-finite"):
        pass
    elif (who := run_holder(folder)) is not None:
        status, message = "running", "" if job is not None else f"by {who}"
    elif job is not None and job.state in ACTIVE:
        status, message = "running", ""
    elif job is None and last and status == "waiting" and known:
        status = "failed"
        message = with_tail(
            f"job {last} ended without a result", folder / FOLDER, log=f"{last}.txt"
        )
    step, steps, energy = _progress(folder)
    if status == "waiting" and step is not None and job is None and not last:
        status, message = "killed", "ended without a word: killed, out of memory, or its node died"
    node = job.node if job else ""
    state = FolderState(
        folder.name, status, message, job, job.name if job else last, node, step, steps, energy
    )
    return _with_endings([_in_the_queue_again(state)])[0]


def _in_the_queue_again(state: FolderState) -> FolderState:
    """What ended before its new job began is waiting, and its message is that of the time before.

    Between the job's start and its own first word it still waits.
    """
    if state.job is None or state.status not in ("interrupted", "failed", "killed"):
        return state
    before = f"{state.status} before: {state.message}" if state.message else ""
    return dataclasses.replace(state, status="waiting", message=before)


def _with_endings(states: list[FolderState]) -> list[FolderState]:
    """Slurm's word added to the members that ended without a result, where it keeps accounts."""
    ended = [
        state.last_job
        for state in states
        if state.job is None and state.last_job and state.status not in ("finished", "running")
    ]
    words = endings(ended)
    return [
        dataclasses.replace(
            state, message=f"Slurm: {words[state.last_job]}\n{state.message}".rstrip()
        )
        if state.last_job in ended and words.get(state.last_job, "COMPLETED") != "COMPLETED"
        else state
        for state in states
    ]


def _progress(folder: Path) -> tuple[int | None, int | None, float | None]:
    """Steps done, steps in all, and the energy."""
    result = _read(folder / "result.json")
    steps = load_config(folder / "config.toml").train.steps
    if result.get("status") == "finished" and "energy" in result:
        return result["steps"], steps, result["energy"]
    found = latest_metadata(folder / CHECKPOINTS)
    if found is None:
        return None, None, None
    energies = History.from_arrays(found["history"]).energy
    return found["step"], steps, float(energies[-1]) if len(energies) else None


def describe_states(folder: str | os.PathLike[str]) -> str:
    """Queue state and progress of a run or of every member of a sweep, as a table of text."""
    states, unknown = folder_states(folder)
    width = max(len(state.name) for state in states)
    lines = []
    if (Path(folder) / "sweep.json").exists():
        found = Counter(state.status for state in states)
        counts = {status: found[status] for status in STATUSES if found[status]}
        waiting = sum(state.job is not None and state.job.state not in ACTIVE for state in states)
        queued = f", {waiting} of them in the queue" if waiting else ""
        lines.append(f"{len(states)} members: {describe_counts(counts)}{queued}")
    lines.append(
        f"{'':<{width}}  {'status':<12}{'queue':<12}{'job':<12}{'node':<10}"
        f"{'step':>13}{'energy':>12}"
    )
    for state in states:
        queue = state.job.state.lower() if state.job else "-"
        step = "-" if state.step is None else f"{state.step}/{state.steps}"
        energy = "-" if state.energy is None else f"{state.energy:.6g}"
        lines.append(
            f"{state.name:<{width}}  {state.status:<12}{queue:<12}{state.last_job or '-':<12}"
            f"{state.node or '-':<10}{step:>13}{energy:>12}"
        )
        message = state.message if state.status not in ("finished", "running") else ""
        if state.job is not None and state.job.state == "PENDING":
            message = f"waits: {state.job.reason}\n{message}"
        lines += [f"    {line}" for line in message.splitlines()]
    return "\n".join(lines + [unknown] * bool(unknown))


def _read(path: Path) -> dict[str, Any]:
    """A file of a run, {} if there is none or it is broken."""
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
