"""The commands of sweeps: ``sweep CONFIG | status | resume | table | member`` and ``compare``."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .run_compare import ComparisonSettings, compare_run
from .run_sweep import (
    describe_sweep,
    gather_sweep,
    plan_sweep,
    read_sweep,
    resume_sweep,
    run_member,
    write_sweep,
)
from .study.grid import parse_axis
from .study.pool import check_workers

INTERRUPTED = 75
_ACTIONS = ("run", "status", "resume", "table", "member")


def spell_out(arguments: Sequence[str]) -> list[str]:
    """Write `sweep CONFIG` as `sweep run CONFIG`, which is how it is parsed."""
    words = list(arguments)
    if words[:1] == ["sweep"] and words[1:] and words[1] not in (*_ACTIONS, "-h", "--help"):
        words.insert(1, "run")
    return words


def add_sweep_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sweep` and its actions to the command line."""
    sweep = commands.add_parser("sweep", help="train many settings of one config, side by side")
    actions = sweep.add_subparsers(required=True, metavar="CONFIG.toml | ACTION")

    run = actions.add_parser(
        "run", help="run a sweep; the word may be left out: hypercircuit sweep CONFIG.toml ..."
    )
    run.add_argument("config", metavar="CONFIG.toml")
    run.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="section.key=values",
        help="2,4,8 or 0:10 or [],[4]; repeated axes are combined each with each",
    )
    run.add_argument(
        "--zip",
        action="append",
        default=[],
        dest="zipped",
        metavar="section.key=values",
        help="axes that advance together",
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        dest="settings",
        help="override a setting of every member; may be repeated",
    )
    run.add_argument("--profile", help="a [profiles.NAME] table of the config")
    run.add_argument("--out", metavar="DIR", help="default: runs/<config's name>-sweep")
    run.add_argument("--dry-run", action="store_true", help="list the members and end")
    _add_workers(run)
    run.set_defaults(run=_run, computes=False)

    for name, help_, action in (
        ("status", "how far the members are, and the errors of those that failed", _status),
        ("table", "gather the results into table.parquet and table.csv now", _table),
        ("resume", "run the members that have no answer yet", _resume),
        ("member", "run one member in this process; what it prints goes to its log.txt", _member),
    ):
        parser = actions.add_parser(name, help=help_)
        parser.add_argument("folder", metavar="SWEEP")
        if name == "resume":
            _add_workers(parser)
        if name == "member":
            parser.add_argument("number", type=int, metavar="NUMBER")
        parser.set_defaults(run=action, computes=name == "member")

    compare = commands.add_parser(
        "compare", help="tables and figures of a sweep, by bond dimension and depth"
    )
    compare.add_argument("folder", metavar="SWEEP")
    compare.add_argument(
        "--axis",
        action="append",
        default=[],
        dest="axes",
        metavar="section.key",
        help="a setting to compare along, at most two (default: numbers that vary, bond first)",
    )
    compare.add_argument(
        "--minimum",
        type=float,
        help="smallest loss of any network (default: the best found in the sweep)",
    )
    defaults = ComparisonSettings()
    for name, kind, words in (
        ("distance", float, "largest distance of a success from the minimum"),
        ("tolerance", float, "difference of energies that counts as converged"),
        ("threshold", float, "discarded weight above which a result is not converged"),
        ("points", int, "bond dimensions that the extrapolation goes through"),
    ):
        default = getattr(defaults, name)
        compare.add_argument(
            f"--{name}", type=kind, default=default, help=f"{words} (default: {default:g})"
        )
    compare.add_argument("--out", metavar="DIR", help="default: SWEEP/compare")
    compare.set_defaults(run=_compare, needs_devices=False)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes side by side, which share the cores (default: one per core)",
    )


def _run(options: argparse.Namespace) -> int:
    plan = plan_sweep(
        options.config,
        [parse_axis(text) for text in options.grid],
        [parse_axis(text) for text in options.zipped],
        overrides=options.settings,
        profile=options.profile,
    )
    if options.dry_run:
        print(plan.describe())
        return 0
    check_workers(options.workers)
    folder = options.out or Path("runs") / f"{Path(options.config).stem}-sweep"
    write_sweep(plan, folder)
    return _exit_code(resume_sweep(folder, workers=options.workers, report=_report))


def _resume(options: argparse.Namespace) -> int:
    return _exit_code(resume_sweep(options.folder, workers=options.workers, report=_report))


def _exit_code(counts: Mapping[str, int]) -> int:
    """0 if all members finished, 75 if some are still to come, 1 if all ended but some failed."""
    if counts.keys() & {"interrupted", "waiting", "running"}:
        return INTERRUPTED
    return 0 if counts.keys() <= {"finished"} else 1


def _status(options: argparse.Namespace) -> int:
    print(describe_sweep(options.folder))
    return 0


def _table(options: argparse.Namespace) -> int:
    rows = gather_sweep(options.folder)
    print(f"{len(rows)} members: {Path(options.folder) / 'table.parquet'} and .csv")
    return 0


def _member(options: argparse.Namespace) -> int:
    members = read_sweep(options.folder)
    if 0 <= options.number < len(members):
        log = members[options.number].folder / "log.txt"
        print(f"what this member prints goes to {log}")
        _print_to(log)
    status = run_member(options.folder, options.number)
    return {"finished": 0, "non-finite": 1, "interrupted": INTERRUPTED}.get(status, 2)


def _compare(options: argparse.Namespace) -> int:
    settings = ComparisonSettings(
        tuple(options.axes),
        options.minimum,
        options.distance,
        options.tolerance,
        options.threshold,
        options.points,
    )
    compare_run(options.folder, settings, out=options.out, report=_report)
    return 0


def _print_to(log: Path) -> None:
    """Send what this process and its libraries print to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable()


def _report(message: str) -> None:
    print(message, flush=True)
