"""A sweep: many runs of one configuration, each a member in a folder of its own.

sweep.json                      base configuration, axes, members, versions
members/0003-depth4-seed1/      a run folder, see `run`, and how far it is, see `study.members`
table.parquet, table.csv        one row a member, see `study.table`

A member needs nothing but its sweep's folder: `run_member` runs one in this process, here or on
another node, and `resume_sweep` runs in a pool of processes those that have no answer yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from ._files import read_json, write_text
from ._locks import Busy
from ._run_lock import refuse_held, run_holder
from ._versions import package_versions
from .config import Config, ConfigError, load_config
from .config.values import to_text
from .methods import Report, check_settings
from .run import train_run
from .run_diagnose import diagnostics_of
from .study.grid import Axis, combine, member_folders
from .study.members import (
    STATUSES,
    MemberState,
    begin_attempt,
    end_attempt,
    member_lock,
    member_state,
    with_tail,
)
from .study.pool import Job, JobEnd, available_cores, check_workers, run_pool
from .study.table import Row, flatten, write_table
from .train import Progress, StopSignals

_FORMAT = 1
#: Columns of the table under shorter names than in `result.json`.
_DIAGNOSED = {
    "discarded_weight": "diagnostics.discarded_weight",
    "max_discarded": "diagnostics.max_discarded_weight",
    "entropy_max": "diagnostics.max_entropy",
    "entropy_mean": "diagnostics.mean_entropy",
    "energy_error": "diagnostics.energy_error",
}


@dataclass(frozen=True)
class Member:
    """A member of a sweep.

    **Attributes:**

    - `number`: 0, 1, ...
    - `folder`: its run folder.
    - `values`: the settings of the axes, {"section.key": value}.
    """

    number: int
    folder: Path
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    def state(self) -> MemberState:
        """How far it is, from its files."""
        return member_state(self.folder)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that every configuration allows and that is not yet anywhere.

    **Attributes:**

    - `base`: what the members have in common: file and its text, profile, settings.
    - `grid`, `zipped`: the axes.
    - `folders`, `values`, `configs`: of every member.
    """

    base: Mapping[str, Any]
    grid: Sequence[Axis]
    zipped: Sequence[Axis]
    folders: Sequence[str]
    values: Sequence[Mapping[str, Any]]
    configs: Sequence[Config]

    def describe(self) -> str:
        """The members, one line each."""
        return "\n".join(self.folders)


def plan_sweep(
    path: str | Path,
    grid: Sequence[Axis],
    zipped: Sequence[Axis] = (),
    *,
    overrides: Sequence[str] = (),
    profile: str | None = None,
) -> SweepPlan:
    """The members of a sweep of the configuration file `path`.

    **Arguments:**

    - `grid`, `zipped`: see `study.grid`.
    - `overrides`, `profile`: of every member, see `load_config`.

    **Raises:** `ValueError` for axes that do not fit each other or `overrides`, an unknown key, a
    member whose configuration is refused (the message names it), or members that coincide.
    """
    settings = combine(grid, zipped)
    over = {override.partition("=")[0].strip() for override in overrides}
    for key in settings[0]:
        if key in over:
            raise ConfigError(f"{key} is both set and an axis of the sweep; leave one of them out")
    folders = member_folders(settings)
    configs: list[Config] = []
    seen: dict[str, str] = {}
    for folder, chosen in zip(folders, settings, strict=True):
        texts = [f"{key}={value}" for key, value in chosen.items()]
        try:
            config = load_config(path, [*overrides, *texts], profile)
            check_settings(config)
        except ValueError as error:
            raise ConfigError(f"member {folder}: {error}") from None
        text = json.dumps(config.to_dict() | {"slurm": {}}, sort_keys=True)
        if text in seen:
            raise ConfigError(
                f"members {seen[text]} and {folder} are the same run; leave one of the values out"
            )
        seen[text] = folder
        configs.append(config)
    base = {
        "config": str(path),
        "text": Path(path).read_text(encoding="utf-8"),
        "profile": profile,
        "set": list(overrides),
    }
    values = [{key: _value(config, key) for key in settings[0]} for config in configs]
    return SweepPlan(base, tuple(grid), tuple(zipped), folders, values, configs)


def _value(config: Config, key: str) -> Any:
    """The value of "section.key", or of "section.table.key"."""
    section, name, *option = key.split(".")
    value = config.to_dict()[section][name]
    return value[option[0]] if option else value


def write_sweep(plan: SweepPlan, folder: str | os.PathLike[str]) -> list[Member]:
    """Make the sweep's folder, or find the same sweep there.

    Members that have not finished take the plan's [slurm], which decides nothing of a run.

    **Raises:** `ConfigError` if the folder holds another sweep or something else.
    """
    folder = Path(folder)
    if (folder / "sweep.json").exists():
        members = read_sweep(folder)
        _refuse_another(folder, members, plan)
        for member, config in zip(members, plan.configs, strict=True):
            file = member.folder / "config.toml"
            if load_config(file).slurm != config.slurm and not member.state().ended:
                write_text(file, config.to_toml())
        return members
    if (folder / "config.toml").exists():
        raise ConfigError(f"{folder} belongs to a run; choose another --out")
    members = [
        Member(number, folder / "members" / name, values)
        for number, (name, values) in enumerate(zip(plan.folders, plan.values, strict=True))
    ]
    for member, config in zip(members, plan.configs, strict=True):
        member.folder.mkdir(parents=True, exist_ok=True)
        write_text(member.folder / "config.toml", config.to_toml())
    record = {
        "format": _FORMAT,
        "base": plan.base,
        "grid": [dataclasses.asdict(axis) for axis in plan.grid],
        "zip": [dataclasses.asdict(axis) for axis in plan.zipped],
        "members": [
            {"number": member.number, "folder": member.name, "values": member.values}
            for member in members
        ],
        "versions": package_versions(),
    }
    # Last: a folder with it is a whole sweep.
    write_text(folder / "sweep.json", json.dumps(record, indent=2) + "\n")
    return members


def _refuse_another(folder: Path, members: Sequence[Member], plan: SweepPlan) -> None:
    there, here = [member.name for member in members], list(plan.folders)
    if there != here:
        different = sorted(set(here) ^ set(there)) or here
        raise ConfigError(
            f"{folder} holds another sweep: it has {len(there)} members, this one {len(here)}, and "
            f"{different[0]} is in one of them only; choose another --out"
        )
    for member, config in zip(members, plan.configs, strict=True):
        for key, there, here in load_config(member.folder / "config.toml").differences(config):
            raise ConfigError(
                f"{folder} holds another sweep: {key} of {member.name} is {there!r} there and "
                f"{here!r} here; choose another --out"
            )


def read_sweep(folder: str | os.PathLike[str]) -> list[Member]:
    """The members of a sweep's folder, in order.

    **Raises:** `ConfigError` if it holds no sweep, or one of another format.
    """
    folder = Path(folder)
    file = folder / "sweep.json"
    if not file.exists():
        raise ConfigError(
            f"{file} is missing: {folder} is not the folder of a sweep; name the --out of a "
            "`hypercircuit sweep`"
        )
    record = read_json(file)
    if record.get("format") != _FORMAT:
        raise ConfigError(
            f"{file} has the format {record.get('format')!r}, this version reads {_FORMAT}; read "
            "it with the version that wrote it"
        )
    return [
        Member(each["number"], folder / "members" / each["folder"], each["values"])
        for each in record["members"]
    ]


def run_member(folder: str | os.PathLike[str], number: int) -> str:
    """Run one member of a sweep in this process, or what is missing of it; returns its status.

    What it prints goes to its `log.txt`. A run that has an answer is left alone. An error ends with
    the status "failed", its text in `outcome.json`.

    **Raises:** `ConfigError` for a number that the sweep does not have, `Busy` if another
    process runs the member.
    """
    members = read_sweep(folder)
    if not 0 <= number < len(members):
        raise ConfigError(
            f"the member must be 0 to {len(members) - 1}, got {number}; see `hypercircuit sweep "
            f"status {folder}`"
        )
    member = members[number]
    with StopSignals() as stop, member_lock(member.folder):
        before = member_state(member.folder, held=True)
        if before.ended:
            return before.status
        refuse_held(member.folder, run_holder(member.folder))
        begin_attempt(member.folder)
        begun = time.monotonic()
        status, message = "interrupted", f"stopped by {stop.requested} before the run"
        try:
            if stop.requested is None:
                status, message = _run_here(member)
        except Exception as error:
            traceback.print_exc()
            status, message = "failed", _in_words(error)
        except KeyboardInterrupt:
            status, message = "interrupted", "interrupted; the same command goes on"
        end_attempt(member.folder, status, message, time.monotonic() - begun)
    return status


def _run_here(member: Member) -> tuple[str, str]:
    config = load_config(member.folder / "config.toml")
    with jax.enable_x64(config.train.precision == "float64"):
        result = train_run(config, member.folder, report=_print)
    return result["status"], result.get("message") or ""


def _in_words(error: Exception) -> str:
    """The error's last lines; of bad input the message alone, which says what to do."""
    if isinstance(error, (ValueError, OSError)):
        return str(error)
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return "\n".join(lines[-3:])


def _print(message: str) -> None:
    print(message, flush=True)


def resume_sweep(
    folder: str | os.PathLike[str], *, workers: int | None = None, report: Report = print
) -> dict[str, int]:
    """Run the members that have no answer yet; returns how many have which status at the end.

    Members that another process runs are left to it. A stop signal saves the running members and
    ends them; a second interrupt kills them.

    **Arguments:**

    - `workers`: processes side by side, which share the cores; None is one per core.

    **Raises:** `ConfigError` if the folder holds no sweep; `ValueError` for less than one worker.
    """
    check_workers(workers)
    folder = Path(folder)
    members = read_sweep(folder)
    states = {member.name: member.state() for member in members}
    missing = [
        member
        for member in members
        if not states[member.name].ended and states[member.name].status != "running"
    ]
    workers = min(available_cores(), max(1, len(missing))) if workers is None else workers
    jobs = [
        Job(member.name, _command(folder, member.number), member.folder / "log.txt")
        for member in missing
    ]
    done = len(members) - len(missing)
    report(
        f"{len(members)} members, {len(missing)} to run in {workers} processes"
        + (f", {done} have ended or are running" if done else "")
    )
    by_name = {member.name: member for member in missing}
    terminal = sys.stderr.isatty()
    with (
        StopSignals() as stop,
        Progress(enabled=terminal).start(len(members), initial=done, unit="member") as display,
    ):
        say = display.write if terminal else report

        def note(end: JobEnd) -> None:
            nonlocal done
            done += 1
            say(f"{done}/{len(members)} {_end(by_name[end.name], end, stop)}")
            display.update(done)

        run_pool(jobs, workers=workers, stop=stop, on_end=note)
        gather_sweep(folder)  # a signal now may wait for the two files
    counts = count_states([member.state() for member in members])
    report(f"{describe_counts(counts)}; table in {folder / 'table.csv'}")
    if stop.requested is not None:
        report(f"stopped by {stop.requested}; the same command goes on")
    return counts


def _command(folder: Path, number: int) -> tuple[str, ...]:
    """The command that runs one member in a process of its own."""
    return (sys.executable, "-m", "hypercircuit.cli", "sweep", "member", str(folder), str(number))


def _end(member: Member, end: JobEnd, stop: StopSignals) -> str:
    """One line about a member whose process ended, after noting an end that it could not note."""
    state = member.state()
    if state.status in ("killed", "waiting") and not (stop.requested and state.attempts == 0):
        # Nobody else noted it: a member that is waiting died before it began.
        with contextlib.suppress(Busy), member_lock(member.folder):
            message = with_tail(end.describe(), member.folder)
            end_attempt(member.folder, "killed" if end.code < 0 else "failed", message, end.seconds)
        state = member.state()
    first = state.message.partition("\n")[0]
    return f"{member.name} {state.status} after {end.seconds:.0f} s" + (f": {first}" * bool(first))


def gather_sweep(folder: str | os.PathLike[str]) -> list[Row]:
    """Write `table.parquet` and `table.csv` of what the members have now; returns the rows."""
    return write_table(sweep_rows(folder), Path(folder) / "table")


def sweep_rows(folder: str | os.PathLike[str]) -> list[Row]:
    """One row a member, see `study.table`."""
    rows = []
    for member in read_sweep(folder):
        state = member.state()
        row: Row = {
            "member": member.number,
            "folder": member.name,
            "status": state.status,
            "error": state.message or None,
            "attempts": state.attempts,
        }
        row |= {
            key: to_text(value) if isinstance(value, (list, dict)) else value
            for key, value in member.values.items()
        }
        result = member.folder / "result.json"
        if state.status in ("finished", "non-finite") and result.exists():
            found = read_json(result)
            try:
                found["diagnostics"] = diagnostics_of(member.folder, found)
            except ValueError as error:
                row["error"] = f"{error}; write it again with `hypercircuit diagnose`"
            numbers = flatten({key: found[key] for key in found if key != "versions"})
            for column, name in _DIAGNOSED.items():
                if name in numbers:
                    numbers[column] = numbers.pop(name)
            row |= {"unit": found.get("unit"), **numbers}
        rows.append(row)
    return rows


def count_states(states: Sequence[MemberState]) -> dict[str, int]:
    """How many members have which status, in the order of `STATUSES`; none with 0."""
    counts = Counter(state.status for state in states)
    return {status: counts[status] for status in STATUSES if counts[status]}


def describe_counts(counts: Mapping[str, int]) -> str:
    """The counts in words."""
    return ", ".join(f"{number} {status}" for status, number in counts.items())


def describe_sweep(folder: str | os.PathLike[str]) -> str:
    """The counts, and below them what is running and the members that failed, with their errors."""
    members = read_sweep(folder)
    states = [member.state() for member in members]
    lines = [f"{len(members)} members: {describe_counts(count_states(states))}"]
    for member, state in zip(members, states, strict=True):
        if state.status in ("finished", "waiting"):
            continue
        step = f", saved at step {state.step}" if state.step is not None else ""
        again = f", attempt {state.attempts}" if state.attempts > 1 else ""
        lines.append(f"{member.name}  {state.status}{step}{again}")
        lines += [f"    {line}" for line in state.message.splitlines()]
    return "\n".join(lines)
