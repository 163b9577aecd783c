"""One page about a run, a study or a sweep: an HTML file that needs nothing but itself.

It shows what the folder holds: of a run that is not finished what there is of it, and in place of
a file that is missing or broken a note that says so. Nothing on the page depends on the time: the
same folder gives the same bytes.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ._files import write_text
from .circuit import Brickwork, Graph
from .config import Config, ConfigError, load_config
from .decode import score_networks
from .methods import Report
from .problem import Problem, build_problem, describe_data
from .run import marginals_run, sample_run
from .run_compare import ComparisonSettings, compare_sweep
from .run_sweep import describe_counts, read_sweep, sweep_rows
from .state import exact_mps
from .state.diagnostics import entanglement
from .study.members import MemberState, member_state
from .study.report import studies, sweeps, training
from .study.report.html import Html, join, tag
from .study.report.page import Page, details, facts, grid, paragraph, preformatted, table
from .train import History, Progress, latest_metadata

#: What a broken file raises when it is read or understood.
_BROKEN = (
    ValueError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
)
_CHUNK = 16
#: Entropies are computed for the page where no diagnostics are: up to this bond and this much work.
_MOST_BOND, _MOST_WORK = 16, 1e8


@dataclass(frozen=True)
class ReportSettings:
    """How much a page computes beside what its folder holds.

    **Attributes:**

    - `samples`: networks drawn from a run's state for the histogram of losses; 0 leaves it out.
    - `examples`: training examples that they are scored on, chosen with the run's seed.
    - `seed`: of the draw.

    **Raises:** `ValueError` for a number out of range.
    """

    samples: int = 200
    examples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0 or self.samples == 1:
            raise ValueError(
                f"samples must be 0 or at least 2, got {self.samples}; 0 leaves the histogram out"
            )
        if self.examples < 1:
            raise ValueError(f"examples must be at least 1, got {self.examples}; usual is 1000")


def report_run(
    folder: str | os.PathLike[str],
    settings: ReportSettings | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    report: Report = print,
) -> Path:
    """Write the page about a folder of `train`, `restarts`, `compile`, `noise` or `sweep`.

    **Arguments:**

    - `out`: the file; None is `report.html` in the folder.

    Returns its path.

    **Raises:** `ConfigError` if the folder holds none of these.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is not a folder; name the --out of a `hypercircuit train` or `sweep`"
        )
    settings = settings or ReportSettings()
    made = _page(folder, settings, report)
    for note in made.notes:
        report(f"note: {note}")
    path = folder / "report.html" if out is None else Path(out)
    content = made.render()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, content)
    report(f"{path}, {len(content.encode()) / 1e6:.2f} MB")
    return path


def _page(folder: Path, settings: ReportSettings, report: Report) -> Page:
    if (folder / "sweep.json").exists():
        return _sweep_page(folder)
    source = _Folder(folder)
    result = source.json("result.json")
    if result.get("command") == "restarts" or any(folder.glob("depth*/restarts.npz")):
        return _restarts_page(source, result)
    compiled = source.json("report.json")
    if compiled.get("command") == "compile":
        return _compile_page(source, compiled)
    if source.has("config.toml") or result:
        return _run_page(source, result, settings, report)
    if source.has("noise.json"):
        page = Page(source.name, "noise", "finished", notes=source.notes)
        _add_noise(page, source)
        _add_versions(page, source.json("noise.json"))
        return page
    raise ConfigError(
        f"{folder} holds no run, study or sweep: it has no config.toml, result.json, report.json, "
        "noise.json or sweep.json; name the --out of a hypercircuit command"
    )


@dataclass
class _Folder:
    """A folder whose files are read one by one; what cannot be read becomes a note."""

    path: Path
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def attempt(self, what: str, make: Callable[[], Any]) -> Any:
        """What `make` returns; None and a note if a file that it needs is broken."""
        try:
            return make()
        except _BROKEN as error:
            words = str(error) or type(error).__name__
            if isinstance(error, (LookupError, TypeError, AttributeError)):
                words = f"unexpected content ({type(error).__name__}: {words})"
            self.notes.append(f"{what}: {words}")
            return None

    def json(self, name: str) -> dict[str, Any]:
        """A file of JSON, {} if there is none or it is broken."""
        if not self.has(name):
            return {}

        def read() -> dict[str, Any]:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("an object is needed")
            return found

        if any(note.startswith(f"{name} cannot be read") for note in self.notes):
            return {}
        return self.attempt(f"{name} cannot be read", read) or {}

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file, {} if there is none or it is broken."""
        if not self.has(name):
            return {}

        def read() -> dict[str, np.ndarray]:
            with np.load(self.path / name, allow_pickle=False) as file:
                return {each: file[each] for each in file.files}

        return self.attempt(f"{name} cannot be read", read) or {}

    def config(self) -> Config | None:
        """The configuration, None if it cannot be read."""
        if not self.has("config.toml"):
            self.notes.append("config.toml is missing: settings, weights and samples are left out")
            return None
        return self.attempt("config.toml", lambda: load_config(self.path / "config.toml"))

    def text(self, name: str) -> str | None:
        """A file's text, None if there is none."""
        path = self.path / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


# ---------------------------------------------------------------- training runs


def _run_page(
    source: _Folder, result: dict[str, Any], settings: ReportSettings, report: Report
) -> Page:
    notes = source.notes
    state = source.attempt("the run's status", lambda: member_state(source.path))
    state = state or MemberState("unknown", "", 0, None)
    status, message = _status(state, source)
    page = Page(source.name, "training run", status, message=message, notes=notes)
    config = source.config()
    table_ = {} if config is None else config.to_dict()
    history, history_source = _history(source)
    diagnostics = {**(result.get("diagnostics") or {}), **source.json("diagnostics.json")}
    problem = None
    if config is not None and result.get("status") == "finished":
        report("now the data, for weights and samples")
        problem = source.attempt("the data cannot be read", lambda: build_problem(config))
    page.lead = _lead(result, problem)
    unit = training.plain(str(result.get("unit") or "the loss's unit"))
    samples = None
    if problem is not None and config is not None and settings.samples and _trained(source):
        samples = source.attempt(
            "the histogram of samples",
            lambda: _samples(source, config, problem, settings, report),
        )
    attempt = source.attempt
    page.add(
        "Summary",
        attempt("the summary", lambda: training.summary(result, table_)),
        _fingerprint(result),
    )
    page.add(
        "Results and their errors",
        attempt(
            "the results",
            lambda: training.results(
                result, table_, history=history, diagnostics=diagnostics, samples=samples
            ),
        ),
    )
    if history is not None:
        page.add(
            "Training",
            attempt(
                "the training curves",
                lambda: training.training_curves(page, history, result, history_source, unit=unit),
            ),
        )
    networks: list[Html | None] = [attempt("the scores", lambda: training.scores(result, unit))]
    if samples is not None:
        networks.append(grid([training.sample_histogram(page, samples, unit)]))
    page.add("Networks", *networks)
    if _trained(source) and problem is not None:
        report("now the marginals")
        marginals = attempt("the marginals", lambda: 1 - 2 * marginals_run(source.path))
        if marginals is not None:
            _add_weights(page, source, problem, marginals)
    page.add(
        "Architecture", attempt("the architecture", lambda: training.architecture(page, result))
    )
    if result.get("status") == "finished":
        _add_entanglement(page, source, problem, diagnostics)
    _add_noise(page, source)
    _add_config(page, source, config)
    _add_versions(page, result)
    return page


def _trained(source: _Folder) -> bool:
    return source.has("angles.npz")


def _status(state: MemberState, source: _Folder) -> tuple[str, str]:
    """How far a run is, and why no further."""
    saved = "" if state.step is None else f"saved at step {state.step}"
    if state.status in ("finished", "unknown"):
        return state.status, state.message
    if state.status == "waiting":
        if not saved:
            return "not begun", "the folder has settings and no results"
        return "unfinished", f"{saved}; running now, or ended without a word"
    return state.status, "\n".join(part for part in (state.message, saved) if part)


def _history(source: _Folder) -> tuple[History | None, str]:
    """What was recorded, and where it stands: the files of the end, or the last checkpoint."""
    if source.has("history.csv"):
        return source.attempt("the history", lambda: History.load(source.path)), "history.csv"

    def saved() -> tuple[History | None, str]:
        found = latest_metadata(source.path / "checkpoints")
        if found is None or "history" not in found:
            return None, ""
        step = found["step"]
        return History.from_arrays(found["history"]), f"checkpoint of step {step}"

    return source.attempt("the checkpoints", saved) or (None, "")


def _lead(result: Mapping[str, Any], problem: Problem | None) -> str:
    if problem is None:
        return ""
    network = problem.network
    sizes = [network.n_inputs, *(layer.n_outputs for layer in network.layers)]
    circuit = problem.circuit
    names = {
        "Brickwork": "brickwork",
        "Noisy": "noisy brickwork",
        "Truncated": "truncated brickwork",
        "FreeMPS": "free matrix product state",
    }
    ansatz = circuit.describe() if isinstance(circuit, Graph) else names[type(circuit).__name__]
    return (
        f"A {'-'.join(map(str, sizes))} binary network as a {ansatz} of {network.n_qubits} qubits, "
        f"trained on {describe_data(problem)}."
    )


def _fingerprint(result: Mapping[str, Any]) -> Html | None:
    found = result.get("data_fingerprint")
    if not found:
        return None
    return paragraph("Data fingerprint (SHA-256): ", tag("code", found))


def _samples(
    source: _Folder, config: Config, problem: Problem, settings: ReportSettings, report: Report
) -> training.Samples:
    """Draw networks and score them; the run's best network on the same examples."""
    report(f"now {settings.samples} networks drawn from the trained state")
    bits, _ = sample_run(source.path, settings.samples, seed=settings.seed)
    data = problem.splits.train
    n_all, n_examples = len(data), min(settings.examples, len(data))
    rows = np.random.default_rng(config.train.seed).permutation(n_all)[:n_examples]
    part = data.take(np.sort(rows))
    with np.load(source.path / "best_network.npz") as arrays:
        bits = np.concatenate([arrays["bits"][None], bits])
    losses = []
    with Progress().start(len(bits), unit="network") as display:
        for start in range(0, len(bits), _CHUNK):
            chosen = bits[start : start + _CHUNK]
            losses.append(score_networks(problem.network, problem.loss, chosen, part)[:, 0])
            display.update(start + len(chosen))
    found = np.concatenate(losses)
    return training.Samples(found[1:], float(found[0]), n_examples, n_all, settings.seed)


def _add_weights(page: Page, source: _Folder, problem: Problem, marginals: np.ndarray) -> None:
    network = problem.network

    def images() -> Html | None:
        shape = problem.splits.train.image_shape
        if shape is None:
            return None
        with np.load(source.path / "best_network.npz") as arrays:
            weights = arrays["weights_0"].astype(np.float32)
        sites = network.register.weights[0][:, : network.n_inputs]
        return training.weight_images(training.Weights(weights, marginals[sites], shape))

    def figure() -> Html:
        roles = None
        if len(marginals) <= 40:
            roles = [network.register.role(site) for site in range(len(marginals))]
        return training.marginals_figure(page, marginals, roles)

    page.add(
        "Weights and marginals",
        source.attempt("the weight images", images),
        source.attempt("the marginals", figure),
    )


def _add_entanglement(
    page: Page, source: _Folder, problem: Problem | None, diagnostics: Mapping[str, Any]
) -> None:
    arrays = source.arrays("diagnostics.npz")
    origin = "diagnostics.npz, diagnostics.json"
    if "entropy" not in arrays and problem is not None and _trained(source):
        found = source.attempt("the entropies", lambda: _entropies(source, problem))
        if isinstance(found, str):
            page.add("Entanglement", paragraph(found))
            return
        if found is not None:
            arrays = {**arrays, "entropy": found}
            origin = "angles.npz, computed for this page"
    if "entropy" in arrays:
        page.add(
            "Entanglement",
            source.attempt(
                "the entanglement",
                lambda: training.entanglement(page, arrays["entropy"], arrays, diagnostics, origin),
            ),
        )


def _entropies(source: _Folder, problem: Problem) -> np.ndarray | str:
    """The entropy of every bond where it is cheap, or why there is none."""
    circuit = problem.circuit
    if not isinstance(circuit, Brickwork):
        return (
            "Entropies are computed here for circuits on a chain, without noise and with their "
            f"exact state; this one is a {type(circuit).__name__}."
        )
    with np.load(source.path / "angles.npz") as arrays:
        angles = arrays["angles"]
    bond = circuit.max_bond
    if bond > _MOST_BOND or bond**3 * angles.shape[1] > _MOST_WORK:
        return f"Not computed here: {angles.shape[1]} qubits with bond {bond}."
    with jax.enable_x64(angles.dtype == np.float64):
        state = exact_mps(circuit, jax.numpy.asarray(angles))
        return entanglement(state).entropy


# ---------------------------------------------------------------- studies


def _restarts_page(source: _Folder, result: dict[str, Any]) -> Page:
    status, message = str(result.get("status", "unfinished")), str(result.get("message") or "")
    if not result:
        depths = sorted(path.parent.name for path in source.path.glob("depth*/restarts.npz"))
        message = f"no result yet; restarts saved of {', '.join(depths)}"
    page = Page(source.name, "restarts", status, message=message, notes=source.notes)
    config = source.config()
    unit = "nats" if result.get("loss") else "the loss's unit"
    arrays = source.arrays("restarts.npz")
    attempt = source.attempt
    page.add(
        "Summary",
        attempt("the summary", lambda: studies.restarts_summary(result)),
        _fingerprint(result),
    )
    page.add(
        "Success and its errors",
        attempt("the results", lambda: studies.restarts_results(result, unit)),
    )
    page.add(
        "Restarts by depth",
        attempt("the table", lambda: studies.restarts_table(result, unit)),
        attempt("the figures", lambda: studies.restarts_figures(page, result, arrays, unit)),
    )
    _add_noise(page, source)
    _add_config(page, source, config)
    _add_versions(page, result)
    return page


def _compile_page(source: _Folder, compiled: dict[str, Any]) -> Page:
    page = Page(
        source.name,
        "compressed loss",
        str(compiled.get("status")),
        message=str(compiled.get("message") or ""),
        notes=source.notes,
    )
    config = source.config()
    attempt = source.attempt
    if compiled.get("report"):
        page.add("Summary", attempt("the summary", lambda: studies.compile_summary(compiled)))
        page.add(
            "Results and their errors",
            attempt("the results", lambda: studies.compile_results(compiled)),
        )
        page.add(
            "Figures",
            attempt("the figures", lambda: studies.compile_figures(page, compiled)),
        )
    _add_config(page, source, config)
    _add_versions(page, compiled)
    return page


def _add_noise(page: Page, source: _Folder) -> None:
    noise = source.json("noise.json")
    if noise:
        page.add(
            "Resilience to noise",
            source.attempt("noise.json", lambda: studies.noise(page, noise)),
        )


# ---------------------------------------------------------------- sweeps


def _sweep_page(folder: Path) -> Page:
    source = _Folder(folder)
    members = read_sweep(folder)
    rows = sweep_rows(folder)
    counts = sweeps.count(rows)
    page = Page(
        source.name,
        f"sweep of {len(members)} runs",
        "finished" if set(counts) == {"finished"} else "not all finished",
        message=describe_counts(counts),
        notes=source.notes,
    )
    record = source.json("sweep.json")
    keys = list(members[0].values) if members else []
    anchors = {row["member"]: f"member-{row['member']}" for row in rows}
    page.add("Summary", sweeps.summary(record, rows, keys))
    page.add("Failed and unfinished runs", sweeps.failures(rows, anchors))
    saved = source.json("compare/comparison.json").get("settings", {})
    comparison = source.attempt(
        "no comparison",
        lambda: compare_sweep(folder, ComparisonSettings(**saved)),
    )
    if comparison is not None:
        page.add(
            "Comparison",
            source.attempt("the comparison", lambda: sweeps.comparison(page, *comparison)),
        )
    page.add("Runs", sweeps.member_table(rows, keys, anchors))
    page.add(
        "Every run",
        join(
            sweeps.member(
                row, keys, anchors[row["member"]], source.text(f"members/{row['folder']}/log.txt")
            )
            for row in rows
        ),
    )
    base = record.get("base") or {}
    page.add(
        "Configuration",
        paragraph(
            "Of every run, before the settings of the sweep: ", tag("code", base.get("config"))
        ),
        details("The file", preformatted(str(base.get("text", ""))), printed=False),
    )
    _add_versions(page, record)
    return page


# ---------------------------------------------------------------- settings and versions


def _add_config(page: Page, source: _Folder, config: Config | None) -> None:
    blocks: list[Html] = []
    if config is not None:
        default, found = Config().to_dict(), config.to_dict()
        changed = [
            [tag("code", f"{section}.{key}"), json.dumps(value), json.dumps(default[section][key])]
            for section, settings in found.items()
            for key, value in settings.items()
            if value != default[section][key]
        ]
        if changed:
            caption = "Settings that differ from the defaults"
            blocks.append(
                table(
                    ["setting", "here", "default"],
                    [[row[0], tag("span", row[1]), row[2]] for row in changed],
                    caption=caption,
                )
            )
        else:
            blocks.append(paragraph("Every setting is the default."))
    whole = source.text("config.toml")
    if whole is not None:
        blocks.append(details("config.toml, every setting", preformatted(whole), printed=False))
    page.add("Configuration", *blocks)


def _add_versions(page: Page, result: Mapping[str, Any]) -> None:
    versions: Any = result.get("versions")
    if not isinstance(versions, dict) or not versions:
        return
    page.add("Versions", facts((name, version) for name, version in versions.items()))
