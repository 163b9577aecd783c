"""The commands to know before a job is submitted: ``doctor`` and ``estimate``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import jax

from .cluster import read_command
from .cluster.doctor import examine, exit_code, look
from .config import ConfigError, load_config
from .run_estimate import estimate_run


def add_cluster_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor` and `estimate` to the command line."""
    doctor = commands.add_parser(
        "doctor", help="devices, cores, threads, Slurm, versions: what is wrong and how to mend it"
    )
    doctor.add_argument("--out", metavar="DIR", default=".", help="where results would go")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor, needs_devices=False)

    estimate = commands.add_parser(
        "estimate",
        help="memory and time that `train` will take, from a short measurement",
        description="Memory and time that `train` will take on a machine like this one, from a "
        "short measurement of its parts. There is no estimate of `restarts` and `compile`; the "
        "members of a sweep are runs of `train`: estimate one of them with --set.",
    )
    estimate.add_argument("config", nargs="?", metavar="CONFIG.toml")
    estimate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        dest="settings",
        help="override a setting; may be repeated",
    )
    estimate.add_argument("--profile", help="a [profiles.NAME] table of the config")
    estimate.add_argument("--steps", type=int, metavar="N", help="default: train.steps")
    estimate.add_argument(
        "--budget",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="for timing steps, compiling not counted (default: 20)",
    )
    estimate.add_argument(
        "--processes", type=int, metavar="K", help="of the run (default: slurm.processes)"
    )
    estimate.add_argument("--json", action="store_true", help="print the estimate as JSON")
    estimate.set_defaults(run=_estimate)


def _doctor(options: argparse.Namespace) -> int:
    findings = examine(look(options.out))
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(finding.describe() for finding in findings))
    return exit_code(findings)


def _estimate(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.settings, options.profile)
    command = read_command(Path(options.config).parent) if options.config else ""
    if command not in ("", "train"):
        raise ConfigError(
            f"only `train` has an estimate, and {options.config} is of a folder for `{command}`; "
            "let that command run for some minutes and look at its progress and memory"
        )
    with jax.enable_x64(config.train.precision == "float64"):
        found = estimate_run(
            config,
            steps=options.steps,
            budget=options.budget,
            processes=options.processes,
            report=_report,
        )
    print(json.dumps(found.to_dict(), indent=2) if options.json else found.describe())
    return 0


def _report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
