"""The command line.

``train | restarts | compile | sweep | compare | report | submit | status | evaluate | sample |
export | noise | diagnose | estimate | doctor``

Exit codes: 0 done, 1 the energy became non-finite, 2 bad input, 75 stopped early by a signal: the
same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ._devices import require_devices
from ._files import write_atomically
from .cli_cluster import add_cluster_commands
from .cli_submit import add_submit_commands
from .cli_sweep import INTERRUPTED, add_sweep_commands, spell_out
from .cluster import connect, end_alone
from .cluster.compile_cache import cache_folder, cache_settings, make_cache, remove_unreadable
from .cluster.threads import limit_threads
from .config import load_config
from .run import diagnose_run, evaluate_run, run_fingerprint, sample_run, train_run
from .run_compile import compile_run
from .run_export import export_run
from .run_noise import TRAJECTORIES, noise_run
from .run_report import ReportSettings, report_run
from .run_restarts import restarts_run
from .train import stop_where_nothing_is_lost


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Without `arguments` it is the command of this process, whose threads and compile cache it sets.
    """
    words = spell_out(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    computes = getattr(options, "computes", True)
    if not computes:
        # An accelerator's memory belongs to the processes that this one starts.
        jax.config.update("jax_platforms", "cpu")
    try:
        with stop_where_nothing_is_lost():
            if arguments is None:
                limit_threads(os.environ)
                if computes:
                    _keep_programs()
            # `train`, `restarts` and `compile` first meet the other processes, in `connect`.
            if computes and getattr(options, "needs_devices", not hasattr(options, "coordinator")):
                require_devices()
            return options.run(options)
    except (ValueError, OSError) as error:
        print(f"hypercircuit: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("hypercircuit: interrupted; the same command continues", file=sys.stderr)
        code = INTERRUPTED
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        code = 1
    end_alone(code)
    return code


def _keep_programs() -> None:
    """Keep compiled programs for the next start, where that is possible."""
    try:
        folder = cache_folder(os.environ)
        if folder is None:
            return
        problem = make_cache(folder)
        if problem is None:
            remove_unreadable(folder)
            for name, value in cache_settings(folder).items():
                jax.config.update(name, value)
    except (OSError, RuntimeError) as error:
        problem = str(error)
    if problem is not None:
        print(f"hypercircuit: no compile cache: {problem}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hypercircuit",
        description="Train binary neural networks in quantum superposition with tensor networks.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train", help="train a hypercircuit; without CONFIG, the embedded full-MNIST job"
    )
    train.add_argument("config", nargs="?", metavar="CONFIG.toml")
    _add_settings(train)
    train.add_argument("--profile", help="a [profiles.NAME] table of the config, such as smoke")
    train.add_argument("--out", metavar="DIR", help="run folder (default: runs/<config's name>)")
    _add_processes(train)
    train.set_defaults(run=_train)

    restarts = commands.add_parser(
        "restarts", help="success probability of many restarts at several depths, up to 24 qubits"
    )
    restarts.add_argument("config", metavar="CONFIG.toml")
    _add_settings(restarts)
    restarts.add_argument("--profile", help="a [profiles.NAME] table of the config")
    restarts.add_argument(
        "--out", metavar="DIR", help="run folder (default: runs/<config's name>-restarts)"
    )
    _add_processes(restarts)
    restarts.set_defaults(run=_restarts)

    compile_ = commands.add_parser(
        "compile", help="compress the loss into one operator and report its errors"
    )
    compile_.add_argument("config", metavar="CONFIG.toml")
    _add_settings(compile_)
    compile_.add_argument("--profile", help="a [profiles.NAME] table of the config")
    compile_.add_argument("--out", metavar="DIR", help="folder (default: runs/<config's name>-mpo)")
    compile_.add_argument(
        "--state", metavar="RUN", help="a finished run: its trained state weighs and tests errors"
    )
    _add_processes(compile_)
    compile_.set_defaults(run=_compile)

    add_sweep_commands(commands)
    add_submit_commands(commands)
    add_cluster_commands(commands)

    evaluate = commands.add_parser("evaluate", help="score a run's best network")
    evaluate.add_argument("folder", metavar="RUN")
    _add_settings(evaluate)
    evaluate.set_defaults(run=_evaluate)

    sample = commands.add_parser("sample", help="draw networks from a trained state")
    sample.add_argument("folder", metavar="RUN")
    sample.add_argument("-n", type=int, required=True, metavar="N", help="how many")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--out", metavar="FILE.npz", help="default: RUN/samples.npz")
    sample.set_defaults(run=_sample)

    page = commands.add_parser("report", help="write one HTML page about a run, a study or a sweep")
    page.add_argument("folder", metavar="RUN|SWEEP")
    defaults = ReportSettings()
    page.add_argument(
        "--samples",
        type=int,
        default=defaults.samples,
        metavar="N",
        help=f"networks drawn for the histogram of losses; 0: none (default: {defaults.samples})",
    )
    page.add_argument(
        "--examples",
        type=int,
        default=defaults.examples,
        metavar="N",
        help=f"training examples that they are scored on (default: {defaults.examples})",
    )
    page.add_argument("--seed", type=int, default=defaults.seed, help="of the draw")
    page.add_argument("--out", metavar="FILE.html", help="default: report.html in the folder")
    page.set_defaults(run=_page)

    export = commands.add_parser(
        "export", help="write the trained circuit, state, operator or network for other programs"
    )
    export.add_argument("folder", metavar="RUN", help="of `train` or `compile`, or RUN/mpo.npz")
    export.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="*.qasm: the circuit, OpenQASM 3; *.h5: the state of a chain, or the operator of "
        "`compile`; *.npz or *.onnx: the best network",
    )
    export.add_argument("--measure", action="store_true", help="of *.qasm: measure all qubits")
    export.add_argument(
        "--samples", metavar="FILE.npz", help="a network of this file of `sample`, see --row"
    )
    export.add_argument("--row", type=int, metavar="N", help="which one, counted from 0")
    export.set_defaults(run=_export)

    noise = commands.add_parser(
        "noise",
        help="evaluate a run's angles under growing noise",
        description="Evaluate a run's angles under growing noise. Up to 20 qubits every network is "
        "counted; of more, and of truncated states, there is the energy: exact in the doubled "
        "picture where the circuit is shallow enough, else the mean of trajectories.",
    )
    noise.add_argument("folder", metavar="RUN", help="of `train` or `restarts`")
    noise.add_argument(
        "--multipliers",
        type=_numbers,
        default=[0.25 * step for step in range(9)],
        metavar="P,P,...",
        help="factors on noise.one_qubit and noise.two_qubit (default: 0,0.25,...,2)",
    )
    noise.add_argument(
        "--readout", type=float, default=0.0, metavar="Q", help="probability of a wrong bit"
    )
    noise.add_argument(
        "--trajectories",
        type=int,
        default=0,
        metavar="N",
        help=f"check an energy of every depth by so many trajectories; where energies are means of "
        f"trajectories, their number (default: {TRAJECTORIES}). Errors are rare: few trajectories, "
        "such as 50, understate the standard error",
    )
    noise.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help="of more than 20 qubits and truncated states: training examples that energies are "
        "means over (default: decode.final_examples; 0: all)",
    )
    noise.add_argument("--out", metavar="DIR", help="default: RUN")
    noise.set_defaults(run=_noise)
    diagnose = commands.add_parser(
        "diagnose", help="entanglement, correlations and truncation errors of a trained state"
    )
    diagnose.add_argument("folder", metavar="RUN")
    diagnose.set_defaults(run=_diagnose)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="section.key=value",
        dest="settings",
        help="override a setting; may be repeated",
    )


def _add_processes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "many processes", "one run on several machines or devices; under srun nothing is needed"
    )
    group.add_argument(
        "--processes", type=int, default=0, metavar="N", help="refuse to start with another number"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, without srun")
    group.add_argument("--process-id", type=int, metavar="I", help="0 to N - 1, without srun")


def _mesh(options: argparse.Namespace) -> Mesh | None:
    """The devices of all processes, None for a single one."""
    return connect(
        expected=options.processes, coordinator=options.coordinator, process_id=options.process_id
    )


def _train(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.settings, options.profile)
    if config.train.precision == "float64":
        jax.config.update("jax_enable_x64", True)
    folder = options.out
    if folder is None:
        folder = Path("runs") / (Path(options.config).stem if options.config else "mnist")
    result = train_run(config, folder, report=_report, mesh=_mesh(options))
    return {"finished": 0, "interrupted": INTERRUPTED}.get(result["status"], 1)


def _restarts(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.settings, options.profile)
    if config.train.precision == "float64":
        jax.config.update("jax_enable_x64", True)
    folder = options.out or Path("runs") / f"{Path(options.config).stem}-restarts"
    result = restarts_run(config, folder, report=_report, mesh=_mesh(options))
    return {"finished": 0}.get(result["status"], INTERRUPTED)


def _compile(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.settings, options.profile)
    if config.train.precision == "float64":
        jax.config.update("jax_enable_x64", True)
    folder = options.out or Path("runs") / f"{Path(options.config).stem}-mpo"
    mesh = _mesh(options)
    result = compile_run(config, folder, state=options.state, report=_report, mesh=mesh)
    return {"finished": 0}.get(result["status"], INTERRUPTED)


def _evaluate(options: argparse.Namespace) -> int:
    scores = evaluate_run(options.folder, options.settings)
    print(f"{'examples':<12}{'loss':>10}{'accuracy':>12}")
    for name in [key.removesuffix("_loss") for key in scores if key.endswith("_loss")]:
        accuracy = f"{100 * scores[f'{name}_accuracy']:.2f} %"
        print(f"{name:<12}{scores[f'{name}_loss']:>10.4f}{accuracy:>12}")
    return 0


def _sample(options: argparse.Namespace) -> int:
    bits, log_probabilities = sample_run(options.folder, options.n, seed=options.seed)
    path = Path(options.out) if options.out else Path(options.folder) / "samples.npz"
    arrays: dict[str, Any] = {
        "bits": bits,
        "log_probability": log_probabilities,
        "seed": np.int64(options.seed),
        "fingerprint": np.array(run_fingerprint(options.folder)),
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    print(
        f"{options.n} networks of {bits.shape[1]} bits, log-probabilities "
        f"{log_probabilities.min():.1f} to {log_probabilities.max():.1f} nats: {path}"
    )
    return 0


def _page(options: argparse.Namespace) -> int:
    settings = ReportSettings(options.samples, options.examples, options.seed)
    report_run(options.folder, settings, out=options.out, report=_report)
    return 0


def _export(options: argparse.Namespace) -> int:
    export_run(
        options.folder,
        options.files,
        measure=options.measure,
        samples=options.samples,
        row=options.row,
        report=_report,
    )
    return 0


def _noise(options: argparse.Namespace) -> int:
    noise_run(
        options.folder,
        options.multipliers,
        readout=options.readout,
        trajectories=options.trajectories,
        examples=options.examples,
        out=options.out,
        report=_report,
    )
    return 0


def _numbers(text: str) -> list[float]:
    """Numbers separated by commas."""
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"numbers separated by commas are needed, got {text!r}"
        ) from error


def _diagnose(options: argparse.Namespace) -> int:
    diagnose_run(options.folder, report=_report)
    return 0


def _report(message: str) -> None:
    print(message, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
