"""A loss compressed into operators, with its errors, as a folder.

config.toml        the resolved configuration
run.lock           held by the process that works here
mpo.npz            the operators and their report, see `hamiltonian.mpo.load_compressed`
mpo_<metric>.npz   with a state: the operators of the other metric, for comparison
report.json        the report; errors against bond dimension and metric; singular values
bonds.png, singular_values.png, error_bond.png, optima.png and, with a state, error_metric.png
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ._files import read_json, write_text
from ._precision import check_precision
from ._run_lock import hold_run, refuse_held, run_holder
from ._shards import Shards
from ._versions import versions
from .config import Config, ConfigError
from .hamiltonian import LossHamiltonian, compile_loss
from .hamiltonian.mpo import (
    MEMORY,
    CompressedLoss,
    Request,
    around_state,
    check_route,
    compress_loss,
    load_same,
    report_text,
    saved_report,
    uniform_networks,
)
from .methods import Report
from .problem import Problem, build_problem, describe_data
from .run import SAME_COMMAND, expect, marginals_run, refuse_another, run_config, sample_run, silent
from .study import (
    BondError,
    Optimum,
    cut_spectra,
    errors_against_bond,
    further_truncation,
    optima_against_bond,
    other_data,
    plot_bond_profile,
    plot_error_against_bond,
    plot_error_against_metric,
    plot_optima,
    plot_singular_values,
)
from .train import Progress, StopSignals, agree_to_stop

_MAIN = "mpo.npz"
#: Samples of the state that a search starts from, beside random networks.
_STARTS = 32
_WORDS = {"uniform": "uniform", "state": "state-adapted"}


class _StoppedError(Exception):
    """A signal came while an operator was made."""


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """What is used of a run: its samples, its bits' probabilities, its best network.

    The fingerprint of its training data is None where the run does not say it.
    """

    folder: Path
    digest: str
    data_fingerprint: str | None
    probabilities: np.ndarray
    samples: np.ndarray
    best: np.ndarray


def compile_run(
    config: Config,
    folder: str | os.PathLike[str],
    *,
    state: str | os.PathLike[str] | None = None,
    report: Report = print,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Compress the configured problem's loss, measure its errors, and write the folder.

    The result's `status` is `"finished"` or `"interrupted"`: operators that are complete by then
    are kept, and the same call goes on from them.

    **Arguments:**

    - `state`: the folder of a finished run of the same network. Errors are measured on samples of
      its trained state and at its best network, and the uniform metric is compared with the
      state's.
      A state of other data is taken too, and the report says so.
    - `mesh`: of `device_mesh()`, to share the terms out over devices. Of several processes all call
      this alike; process 0 writes and reports, the others end when the operators are made.

    **Raises:** `ConfigError` if the folder belongs to another configuration, state or command, if
    the metric needs a state, or if the state is of another network; `ValueError` for a loss that
    is not compressed.
    """
    folder = Path(folder)
    settings = config.mpo
    shards = None if mesh is None else Shards(mesh)
    first = shards is None or shards.first
    if not first:
        report = silent
    if settings.metric == "state" and state is None:
        raise ConfigError(
            "mpo.metric='state' needs a trained state; name the folder of a finished run with "
            "--state RUN, or set mpo.metric='uniform'"
        )
    trained = None if state is None else _read_state(config, Path(state))
    finished, who = _finished(folder, config, trained), run_holder(folder)
    if shards is not None:
        shards.check_same(
            f"the settings of the operators and the state of {folder}",
            f"{config.to_toml()}{trained and trained.digest}{finished is not None}{who}".encode(),
            SAME_COMMAND,
        )
    if finished is not None:
        report(f"{folder} holds a compiled loss; choose another --out to compile it again")
        report(_text(finished))
        return finished
    dtype = check_precision(np.dtype(config.train.precision))
    begun = time.perf_counter()
    refuse_held(folder, who)
    with contextlib.ExitStack() as held, StopSignals() as stop:
        problem = build_problem(config)
        check_route(problem.network, problem.loss, settings.max_bond)
        report(describe_data(problem))
        hamiltonian = compile_loss(
            problem.network, problem.splits.train, problem.loss, tolerance=config.loss.tolerance
        )
        report(hamiltonian.describe())
        if trained is not None and len(trained.probabilities) != hamiltonian.n_qubits:
            raise ConfigError(
                f"the state in {trained.folder} has {len(trained.probabilities)} qubits, the "
                f"network {hamiltonian.n_qubits}; name a run on inputs and classes of this number"
            )
        held.enter_context(hold_run(folder, report, shards))
        main = _metric(config, trained)
        metrics = [main]
        if trained is not None:
            metrics.append("uniform" if main == "state" else "state")
        made: dict[str, CompressedLoss] = {}
        for metric in metrics:
            name = _MAIN if metric == main else f"mpo_{metric}.npz"
            probabilities = None
            if metric == "state":
                assert trained is not None
                probabilities = trained.probabilities
            request = Request(
                settings.max_bond,
                settings.tolerance,
                probabilities,
                config.train.seed,
                dtype.name,
                MEMORY,
            )
            try:
                made[metric] = _operator(
                    hamiltonian, request, folder, name, config, trained, report, stop, shards
                )
            except _StoppedError:
                return _interrupted(f"while the {_WORDS[metric]} operator was made", stop, report)
            if agree_to_stop(stop, shards):
                return _interrupted(f"after the {_WORDS[metric]} operator", stop, report)
        if not first:
            return {"status": "finished"}
        result = _study(config, problem, made, trained, folder, report, stop)
        if stop.requested is not None:
            return _interrupted("during the study of errors", stop, report)
        result["total_seconds"] = time.perf_counter() - begun
        # Last, because a report ends the work.
        write_text(folder / "report.json", json.dumps(result, indent=2) + "\n")
    report(_text(result))
    report(f"results in {folder}")
    return result


def _metric(config: Config, trained: _State | None) -> str:
    """Of the main operator."""
    if config.mpo.metric != "auto":
        return config.mpo.metric
    return "uniform" if trained is None else "state"


def _finished(folder: Path, config: Config, trained: _State | None) -> dict[str, Any] | None:
    refuse_another(folder, config)
    file = folder / "report.json"
    if not file.exists():
        if (folder / "result.json").exists() or (folder / "checkpoints").exists():
            raise ConfigError(f"{folder} belongs to a run; choose another --out")
        return None
    try:
        result = read_json(file)
    except ValueError:
        return None  # of a command that has to be finished again
    there = None if result["state"] is None else result["state"]["sha256"]
    if there != (None if trained is None else trained.digest):
        was = "no state" if there is None else f"the state in {result['state']['folder']}"
        raise ConfigError(
            f"{folder} belongs to {was}; choose another --out, or name the same --state"
        )
    return result


def _read_state(config: Config, folder: Path) -> _State:
    """The state of a finished run of this network.

    **Raises:** `ConfigError` for the state of another network or an unfinished run.
    """
    there = run_config(folder, []).to_dict()["network"]
    here = config.to_dict()["network"]
    changed = [
        f"network.{key} (there {there[key]!r}, here {here[key]!r})"
        for key in here
        if there[key] != here[key]
    ]
    if changed:
        raise ConfigError(
            f"the state in {folder} is of another network: {', '.join(changed)}; name a run of "
            "this network"
        )
    with np.load(expect(folder / "best_network.npz")) as arrays:
        best = arrays["bits"]
    probabilities = around_state(marginals_run(folder))
    samples, _ = sample_run(folder, config.mpo.networks, seed=config.train.seed)
    digest = hashlib.sha256(expect(folder / "angles.npz").read_bytes()).hexdigest()
    result = read_json(expect(folder / "result.json"))
    fingerprint = result.get("data_fingerprint")
    return _State(folder, digest, fingerprint, probabilities, samples, best)


def _operator(
    hamiltonian: LossHamiltonian,
    request: Request,
    folder: Path,
    name: str,
    config: Config,
    trained: _State | None,
    report: Report,
    stop: StopSignals,
    shards: Shards | None,
) -> CompressedLoss:
    """The operators that the folder holds, or that are made now and written there."""
    path = folder / name
    first = shards is None or shards.first
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_same(path, hamiltonian, request)
    for warning in caught:
        report(str(warning.message))
    if shards is not None:
        shards.check_same(f"the state of {path}", f"{found is None}".encode(), SAME_COMMAND)
    if found is not None:
        report(f"read {path}: {found.describe()}")
        if not first:
            return found
        errors = _errors(found, config, trained)
        if saved_report(path) != errors:
            found.save(path, report=errors)  # it was made beside another state
        return found
    with _Display(stop, shards) as display:
        found = compress_loss(
            hamiltonian,
            request.max_bond,
            tolerance=request.tolerance,
            probabilities=request.probabilities,
            seed=request.seed,
            dtype=np.dtype(request.dtype),
            memory=request.memory,
            progress=display.advance,
            mesh=None if shards is None else shards.mesh,
        )
    if not first:
        return found
    report(f"{found.describe()}, {found.seconds:.1f} s")
    # Only now: a folder is not taken by a loss that has no operator.
    write_text(folder / "config.toml", config.to_toml())
    found.save(path, report=_errors(found, config, trained))
    return found


def _errors(found: CompressedLoss, config: Config, trained: _State | None) -> dict[str, Any]:
    """The report of an operator."""
    return found.report(
        state=None if trained is None else trained.samples,
        best=None if trained is None else trained.best,
        n_networks=config.mpo.networks,
    )


class _Display:
    """Progress in sites, which a stop signal ends."""

    def __init__(self, stop: StopSignals, shards: Shards | None) -> None:
        self._stop, self._shards = stop, shards
        self._display: Any = None

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *error: object) -> None:
        if self._display is not None:
            self._display.close()

    def advance(self, done: int, total: int) -> None:
        if self._display is None:
            first = self._shards is None or self._shards.first
            self._display = Progress(enabled=first).start(total, unit="site")
        self._display.update(done)
        if agree_to_stop(self._stop, self._shards):
            raise _StoppedError


def _study(
    config: Config,
    problem: Problem,
    made: dict[str, CompressedLoss],
    trained: _State | None,
    folder: Path,
    report: Report,
    stop: StopSignals,
) -> dict[str, Any]:
    """Errors and optima against bond dimension and metric, as figures and for JSON."""
    settings = config.mpo
    main_metric = _metric(config, trained)
    main = made[main_metric]
    hamiltonian = main.hamiltonian
    unit = hamiltonian.loss.unit
    networks = {
        "uniform": uniform_networks(settings.networks, hamiltonian.n_qubits, config.train.seed)
    }
    if trained is not None:
        networks["state"] = trained.samples
    losses = {name: hamiltonian.losses(bits) for name, bits in networks.items()}
    rows: dict[str, list[BondError]] = {}
    optima: dict[str, list[Optimum]] = {}
    splits = problem.splits
    data = {"train": splits.train, "test": splits.test}
    for metric, each in made.items():
        report(f"now the error of the {_WORDS[metric]} operator against its bond dimension")
        rows[metric] = errors_against_bond(each, settings.studied_bonds, networks, losses)
        if stop.requested is not None:
            return {}
        report(f"now the minimum of the {_WORDS[metric]} operator over single networks")
        optima[metric] = optima_against_bond(
            each,
            settings.studied_bonds,
            data,
            starts=None if trained is None else trained.samples[:_STARTS],
            probabilities=None if trained is None else trained.probabilities,
            seed=config.train.seed,
        )
        if stop.requested is not None:
            return {}
    spectra = cut_spectra(main)
    found = saved_report(folder / _MAIN)
    parts = [(part["start"], part["bonds"]) for part in found["parts"]]
    plot_bond_profile(parts, folder / "bonds.png", max_bond=settings.max_bond)
    plot_singular_values(spectra, folder / "singular_values.png", unit=unit)
    plot_error_against_bond(
        rows[main_metric],
        folder / "error_bond.png",
        unit=unit,
        spectral_error=hamiltonian.spectral_error,
        metric=_WORDS[main_metric],
    )
    if len(rows) > 1:
        by_words = {_WORDS[metric]: each for metric, each in rows.items()}
        plot_error_against_metric(by_words, folder / "error_metric.png", unit=unit)
    best = None if trained is None else float(hamiltonian.losses(trained.best[None])[0])
    named = {_WORDS[metric]: each for metric, each in optima.items()}
    plot_optima(named, folder / "optima.png", unit=unit, trained=best)
    return {
        "command": "compile",
        "status": "finished",
        "message": "",
        "metric": main_metric,
        "state": None
        if trained is None
        else {
            "folder": str(trained.folder),
            "sha256": trained.digest,
            "data_fingerprint": trained.data_fingerprint,
        },
        "report": found,
        "errors_against_bond": {
            metric: [row.to_dict() for row in each] for metric, each in rows.items()
        },
        "optima_against_bond": {
            metric: [row.to_dict() for row in each] for metric, each in optima.items()
        },
        "singular_values": [
            {"site": spectrum.site, "values": spectrum.values.tolist()} for spectrum in spectra
        ],
        "versions": versions(),
    }


def _interrupted(when: str, stop: StopSignals, report: Report) -> dict[str, Any]:
    message = f"stopped by {stop.requested} {when}; the same command goes on"
    report(message)
    return {"command": "compile", "status": "interrupted", "message": message}


def _text(result: dict[str, Any]) -> str:
    """The report and the errors against bond dimension as readable lines."""
    lines = [report_text(result["report"])]
    other = other_data(result)
    if other is not None:
        lines.append(
            f"  the state in {result['state']['folder']} was trained on other data (fingerprint "
            f"{other[:16]}); losses and errors are those of the data above"
        )
    lines.append("")
    unit = result["report"]["unit"]
    for metric, rows in result["errors_against_bond"].items():
        lines.append(f"{_WORDS[metric]} metric, rms error in {unit} (+- standard error) on")
        names = list(rows[0]["measured"])
        words = {"uniform": "uniform networks", "state": "samples of the state"}
        header = "".join(f"{words[name]:>26}" for name in names)
        lines.append(f"{'bond':>6}{'MB':>10}{'further':>12}{header}")
        for row in rows:
            shown = "".join(
                f"{each['rms']:>15.3g} +-{each['rms_standard_error']:>8.1g}"
                for each in (row["measured"][name] for name in names)
            )
            further = further_truncation(row)
            lines.append(
                f"{row['max_bond']:>6}{row['n_bytes'] / 1e6:>10.2f}"
                f"{f'{further:.2g}' if further else 'none':>12}{shown}"
            )
        lines.append(
            "  further: rms in the metric of truncating the operator of bond "
            f"{rows[-1]['max_bond']} further; its own error comes on top, and the measured ones "
            "hold all of it"
        )
    for metric, rows in result["optima_against_bond"].items():
        lines.append(f"{_WORDS[metric]} metric, the minimum over single networks ({unit})")
        lines.append(
            f"{'bond':>6}{'operator':>12}{'true loss':>12}{'train':>10}{'test':>10}{'s':>8}"
        )
        lines += [_optimum_text(row["max_bond"], row) for row in rows]
        if rows[0]["trusted"] is not None:
            lines.append(f"{_WORDS[metric]} metric, the same near the state, by true loss ({unit})")
            lines += [_optimum_text(row["max_bond"], row["trusted"]) for row in rows]
    return "\n".join(lines)


def _optimum_text(max_bond: int, found: dict[str, Any]) -> str:
    train, test = (f"{100 * found['accuracies'][name]:.2f} %" for name in ("train", "test"))
    return (
        f"{max_bond:>6}{found['value']:>12.4g}{found['loss']:>12.4g}{train:>10}{test:>10}"
        f"{found['seconds']:>8.1f}"
    )
