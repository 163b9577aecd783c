"""The commands of clusters: ``submit`` and ``status``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .config import ConfigError, load_config
from .run_submit import COMMANDS, check_data, describe_states, plan_jobs, prepare_run, submit_folder
from .run_sweep import plan_sweep, write_sweep
from .study.grid import parse_axis


def add_submit_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `submit` and `status` to the command line."""
    submit = commands.add_parser(
        "submit", help="run a config, or what is missing of a run or a sweep, as Slurm jobs"
    )
    submit.add_argument(
        "target", metavar="CONFIG.toml | RUN | SWEEP", help="a configuration, or an existing folder"
    )
    for name, words in (
        ("grid", "of a new sweep, see `hypercircuit sweep`"),
        ("zip", "of a new sweep: axes that advance together"),
    ):
        submit.add_argument(
            f"--{name}",
            action="append",
            default=[],
            dest={"zip": "zipped"}.get(name, name),
            metavar="section.key=values",
            help=words,
        )
    submit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        dest="settings",
        help="override a setting, such as slurm.time=12:00:00; of a folder, those of slurm alone",
    )
    submit.add_argument("--profile", help="a [profiles.NAME] table of the config")
    submit.add_argument(
        "--out", metavar="DIR", help="default: as train, restarts, compile or sweep"
    )
    submit.add_argument(
        "--command", choices=COMMANDS, help="what to do with a config (default: train)"
    )
    submit.add_argument(
        "--dry-run",
        action="store_true",
        help="write the folder and print the script, which sbatch takes (of several arrays one "
        "that submits theirs), but submit nothing; the queue is not asked",
    )
    submit.set_defaults(run=_submit, computes=False)

    status = commands.add_parser(
        "status", help="queue state and progress of a run or of every member of a sweep"
    )
    status.add_argument("folder", metavar="RUN | SWEEP")
    status.set_defaults(run=_status, computes=False)


def _submit(options: argparse.Namespace) -> int:
    overrides, command = options.settings, options.command
    folder = Path(options.target)
    if not folder.is_dir():
        folder = _prepare(options)
        overrides = []
        command = None if options.grid or options.zipped else command or "train"
    else:
        for name in ("grid", "zipped", "profile", "out"):
            if getattr(options, name):
                raise ConfigError(
                    f"--{name.replace('zipped', 'zip')} belongs to a configuration, and {folder} "
                    "is a folder: what is missing of it is submitted; leave it out"
                )
    if options.dry_run:
        plan = plan_jobs(folder, overrides=overrides, command=command, ask_queue=False)
        if plan.jobs:
            plan.write_scripts()
            print(plan.text())
            if plan.note:
                print(f"hypercircuit: {plan.note}", file=sys.stderr)
        else:
            print(f"nothing to submit: {plan.left_out}", file=sys.stderr)
    else:
        submit_folder(folder, overrides=overrides, command=command, report=_report)
    return 0


def _prepare(options: argparse.Namespace) -> Path:
    """The folder of a new run or sweep, or of the same one there."""
    name = Path(options.target).stem
    if not options.grid and not options.zipped:
        config = load_config(options.target, options.settings, options.profile)
        ending = {"restarts": "-restarts", "compile": "-mpo"}.get(options.command, "")
        folder = Path(options.out or Path("runs") / f"{name}{ending}")
        prepare_run(config, folder, options.command or "train")
        return folder
    if options.command not in (None, "train"):
        raise ConfigError(
            f"the members of a sweep are trained, got --command {options.command}; leave it out"
        )
    plan = plan_sweep(
        options.target,
        [parse_axis(text) for text in options.grid],
        [parse_axis(text) for text in options.zipped],
        overrides=options.settings,
        profile=options.profile,
    )
    for member, config in zip(plan.folders, plan.configs, strict=True):
        check_data(config, f"member {member}: ")
    folder = Path(options.out or Path("runs") / f"{name}-sweep")
    write_sweep(plan, folder)
    return folder


def _status(options: argparse.Namespace) -> int:
    print(describe_states(options.folder))
    return 0


def _report(message: str) -> None:
    print(message, flush=True)
