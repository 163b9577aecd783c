"""Pages about runs and sweeps: their structure, their numbers, and how a browser shows them."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypercircuit.bnn import save_network
from hypercircuit.cli import main
from hypercircuit.config import ConfigError, load_config
from hypercircuit.problem import build_problem
from hypercircuit.run_report import ReportSettings, report_run
from hypercircuit.run_sweep import plan_sweep, write_sweep
from hypercircuit.study.grid import parse_axis
from hypercircuit.study.members import end_attempt
from hypercircuit.study.report.curves import thin
from hypercircuit.study.report.html import Html, number, tag
from hypercircuit.train import History

CONFIG = """
[data]
classes = [0, 1]
downsample = "pick"
rows = [3, 10, 17, 24]
columns = [5, 14, 22]
n_train = 40

[network]
outputs = 1
choices = [{ set = "encoding", options = [[-1, 1], [0, 1]] }]

[loss]
kind = "logistic"

[circuit]
depth = 4

[train]
batch_size = 10
"""
HOSTILE = "</pre><script>alert('&\"')</script><img src=x onerror=alert(1)>\x00"
VOID = ("meta", "img", "br")
FEW = ReportSettings(samples=12, examples=30)


class Tree(HTMLParser):
    """What a page holds; fails on elements that are not closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(attributes) == len(dict(attributes))
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def tree(path: Path) -> Tree:
    """A page whose structure is right."""
    content = path.read_text(encoding="utf-8")
    found = Tree(content)
    assert not re.search(r"(src|href|action|data)=.?(https?:)?//|@import|url\(['\"]?h", content)
    assert "http://" not in content
    assert not {name for name, _ in found.elements} & {"script", "link", "iframe", "object"}
    ids = [each["id"] for _, each in found.elements if each.get("id")]
    assert len(ids) == len(set(ids))
    for _, each in found.elements:
        assert not any(name.startswith("on") for name in each)
        target = each.get("href") or ""
        if target.startswith("#"):
            assert target[1:] in ids
    for each in found.all("img"):
        assert each["alt"]
        assert each["src"].startswith("data:image/png;base64,")
    for each in found.all("svg"):
        assert each["aria-label"]
    return found


def make_run(folder: Path, config_text: str = CONFIG) -> dict[str, Any]:
    """A finished run's folder, without training."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(config_text)
    config = load_config(folder / "config.toml")
    (folder / "config.toml").write_text(config.to_toml())
    network = build_problem(config).network
    rng = np.random.default_rng(3)
    shape = (config.circuit.depth, network.n_qubits, 2)
    angles = rng.normal(size=shape).astype(np.float32)
    np.savez(folder / "angles.npz", angles=angles)
    bits = rng.integers(0, 2, network.n_qubits).astype(np.uint8)
    save_network(folder / "best_network.npz", network, bits)
    history = History()
    steps = np.arange(1, 2001)
    history.record_steps(
        steps,
        energy=1 / np.sqrt(steps) + rng.normal(size=2000) ** 2 / 50,
        gradient_norm=1 / steps,
        seconds=steps / 7,
    )
    for step, accuracy in ((1000, 0.71), (2000, 0.83)):
        history.record_evaluation(
            step,
            {
                "validation_accuracy": accuracy,
                "validation_loss": 0.4,
                "check_error": -2e-4,
                "check_error_max": 1.25e-3,
                "check_energy_exact": 0.31,
            },
        )
    history.save(folder)
    score = {
        f"{part}_{what}": value
        for part, value in (("train", 0.8125), ("validation", 0.8), ("test", 0.7875))
        for what, value in (("loss", 1 - value), ("accuracy", value))
    }
    result = {
        "status": "finished",
        "message": "",
        "n_qubits": network.n_qubits,
        "depth": 4,
        "max_bond": 4,
        "n_parameters": int(angles.size),
        "steps": 2000,
        "seconds": 285.5,
        "compile_seconds": 2.5,
        "energy_kind": "cumulant-2",
        "loss": "logistic",
        "unit": "nats",
        "spectral_error": 0.000791367951,
        "seed": 0,
        "data_fingerprint": "b47859b6",
        "versions": {"hypercircuit": "0.1.0", "jax": "0.10.2"},
        "check_error": -0.0002087116241455078,
        "check_error_max": 0.0022804737091064453,
        "energy": 0.3790380343226146,
        "energy_standard_error": None,
        "energy_examples": 40,
        "energy_seconds": 1.5,
        "best_loss": 0.36789953502308237,
        **{name: value for name, value in score.items() if name.endswith("accuracy")},
        "best_log_probability": -7.25,
        "best": score,
        "sample_mean": score,
        "architecture": {"encoding": {"{-1, 1}": 0.2, "{0, 1}": 0.8}},
        "total_seconds": 300.25,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    make_run(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return report_run(run, FEW, report=lambda message: None)


def make_sweep(folder: Path, n: int) -> None:
    """A sweep of n runs: finished, but for one that failed and one that is waiting."""
    config = folder / "base.toml"
    config.write_text(CONFIG)
    axes = [parse_axis("circuit.depth=1,2"), parse_axis(f"train.seed=0:{n // 2}")]
    members = write_sweep(plan_sweep(config, axes), folder / "sweep")
    for member in members[:-1]:
        depth, seed = member.values["circuit.depth"], member.values["train.seed"]
        if member.number == 1:
            end_attempt(member.folder, "failed", HOSTILE, 1.5)
            (member.folder / "log.txt").write_text(f"line\n{HOSTILE}")
            continue
        energy = 0.5 - 0.05 * depth + 0.001 * seed
        result = {
            "status": "finished",
            "energy": energy,
            "best_loss": energy - 0.01,
            "test_accuracy": 0.8,
            "spectral_error": 1e-4,
            "check_error": 2e-4,
            "seconds": 2.0 + seed,
            "total_seconds": 4.0,
            "unit": "nats",
        }
        (member.folder / "result.json").write_text(json.dumps(result))


# ---------------------------------------------------------------- parts


def test_text_is_escaped_and_html_is_not():
    assert tag("p", HOSTILE, class_='a"b').count("<") == 2
    assert "\x00" not in tag("p", HOSTILE)
    assert tag("p", Html("<b>1</b>"), hidden=True, id=None) == "<p hidden><b>1</b></p>"
    assert tag("img", src="x") == '<img src="x">'


def test_numbers_keep_their_value():
    assert number(0.3790380343226146) == '<data value="0.3790380343226146">0.379038</data>'
    assert "1\u202f234" in number(1234)
    assert "12.50\u00a0%" in number(0.125, ".2%")
    assert "not a number" in number(math.nan)
    assert number(None) == "&ndash;"


def test_thinning_keeps_ends_and_extremes():
    rng = np.random.default_rng(0)
    y = rng.normal(size=16000)
    y[7000], y[9000], y[40] = 50, -60, np.nan
    kept = thin(np.arange(16000), y, 600)
    assert len(kept) <= 600
    assert {0, 7000, 9000, 15999} <= set(kept.tolist())
    assert np.all(np.diff(kept) > 0)
    for part in np.array_split(np.arange(16000), 299):
        own = np.intersect1d(kept, part)
        assert np.nanmax(y[own]) == np.nanmax(y[part])
        assert np.nanmin(y[own]) == np.nanmin(y[part])
    assert thin(np.arange(5), y[:5], 600).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": -1}, "samples must be 0 or at least 2, got -1"),
        ({"samples": 1}, "samples must be 0 or at least 2, got 1"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, int], words: str):
    with pytest.raises(ValueError, match=words):
        ReportSettings(**settings)


# ---------------------------------------------------------------- runs


def test_page_of_a_run_is_whole(run: Path, page: Path):
    found = tree(page)
    for title in (
        "Summary",
        "Results and their errors",
        "Training",
        "Networks",
        "Weights and marginals",
        "Architecture",
        "Entanglement",
        "Configuration",
        "Versions",
    ):
        assert title in found.words
    assert len(found.all("svg")) == len(found.all("figure")) == 8
    # One neuron: its weights, its marginals, and the two scales.
    assert len(found.all("img")) == 4
    assert "12 networks drawn from the trained state (seed 0), scored on 30 of 40" in found.text
    assert not found.all("p") or "note" not in [each.get("class") for each in found.all("p")]
    assert page.stat().st_size < 400_000


def test_numbers_are_those_of_the_result(run: Path, page: Path):
    result = json.loads((run / "result.json").read_text())
    values = {each["value"] for each in tree(page).all("data")}
    for name in ("energy", "best_loss", "spectral_error", "check_error", "check_error_max"):
        assert repr(result[name]) in values
    for name in ("n_qubits", "seconds", "test_accuracy", "n_parameters", "seed"):
        assert repr(result[name]) in values


def test_every_result_has_every_kind_of_error(page: Path):
    content = page.read_text()
    cards = re.findall(r'<article class="result">.*?</article>', content, re.S)
    assert len(cards) == 4
    for card in cards:
        kinds = re.findall(r"<dt>(.*?)</dt>", card)
        assert kinds == [
            "spectral",
            "MPO compression",
            "MPS truncation",
            "sampling",
            "optimisation, check",
        ]
        assert len(re.findall(r"<dd>.+?</dd>", card)) == 5
    assert "at most" in cards[0]
    assert "0.0023" in cards[1]
    assert "at most" not in cards[1]  # cumulants have no terms


def test_same_folder_gives_the_same_bytes(run: Path, page: Path, tmp_path: Path):
    again = report_run(run, FEW, out=tmp_path / "a" / "b.html", report=lambda message: None)
    assert again.read_bytes() == page.read_bytes()


def test_diagnostics_are_shown_and_their_error_counts(run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    entropy = np.array([0.1, 0.625, 0.2])
    np.savez(
        folder / "diagnostics.npz",
        entropy=entropy,
        spectrum=np.array([[1.0, 0.0, 0.0], [0.9, 0.4, 0.17], [0.97, 0.2, 1e-12]]),
        correlations=np.array([1.0, 0.1, 0.01]),
        discarded=np.array([[0, 1e-3, 0], [1e-5, 0, 0]]),
        mutual_information=np.array([0.3, 0.01, 0.0, 0.02]),
    )
    numbers = {
        "energy_error": 0.00321,
        "energy_error_from": "the exact state",
        "compared_examples": 17,
        "discarded_weight": 0.00101,
        "discarded_weight_is": "estimated",
        "correlation_length": 0.5,
    }
    (folder / "diagnostics.json").write_text(json.dumps(numbers))
    path = report_run(folder, ReportSettings(samples=0), report=lambda message: None)
    found = tree(path)
    assert "from the exact state, 17 examples" in found.text
    assert "diagnostics.npz" in found.text
    assert "Schmidt spectrum" in found.text
    assert "discarded weight in all (an estimate)" in found.text
    assert {"0.00321", "0.625"} <= {each["value"] for each in found.all("data")}
    assert "Losses of sampled networks" not in found.text


def test_hostile_words_stay_words(run: Path, tmp_path: Path):
    folder = tmp_path / "<b>&run"
    shutil.copytree(run, folder)
    result = json.loads((folder / "result.json").read_text())
    result |= {
        "status": "non-finite",
        "message": HOSTILE,
        "unit": HOSTILE,
        "loss": HOSTILE,
        "data_fingerprint": HOSTILE,
        "architecture": {HOSTILE: {HOSTILE: 0.25, "$\\frac{": 0.75}},
        "versions": {HOSTILE: HOSTILE},
    }
    (folder / "result.json").write_text(json.dumps(result))
    found = tree(report_run(folder, FEW, report=lambda message: None))
    assert "<b>&run" in found.text
    assert "<script>alert" in found.text
    assert "non-finite" in found.words


def test_what_is_missing_or_broken_is_noted(run: Path, tmp_path: Path):
    folder = tmp_path / "broken"
    shutil.copytree(run, folder)
    (folder / "history.csv").write_text("step,energy\n1,x\n")
    (folder / "best_network.npz").write_bytes(b"PK broken")
    (folder / "noise.json").write_text("[1]")
    (folder / "diagnostics.npz").write_bytes(b"")
    lines: list[str] = []
    found = tree(report_run(folder, FEW, report=lines.append))
    for words in ("history.csv", "noise.json cannot be read", "diagnostics.npz cannot be read"):
        assert words in found.text
        assert any(words in line for line in lines if line.startswith("note: "))
    assert "the weight images" in found.text
    (folder / "result.json").write_text("{")
    (folder / "config.toml").write_text("[data")
    found = tree(report_run(folder, FEW, report=lines.append))
    assert "result.json cannot be read" in found.text
    assert "config.toml" in found.text


def test_unfinished_runs_say_so(run: Path, tmp_path: Path):
    folder = tmp_path / "begun"
    folder.mkdir()
    shutil.copy(run / "config.toml", folder)
    found = tree(report_run(folder, report=lambda message: None))
    assert "not begun" in found.words
    (folder / "result.json").write_text('{"status": "interrupted", "message": "by SIGTERM"}')
    found = tree(report_run(folder, report=lambda message: None))
    assert "interrupted" in found.words
    assert "by SIGTERM" in found.text


def test_folders_without_results_are_refused(tmp_path: Path, capsys):
    with pytest.raises(ConfigError, match="holds no run, study or sweep"):
        report_run(tmp_path)
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder; name the --out of" in capsys.readouterr().err


def test_restarts_and_noise_have_pages(tmp_path: Path):
    experiment = Path(__file__).parents[1] / "experiments" / "07_noise"
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("result.json", "noise.json"):
        shutil.copy(experiment / name, folder)
    found = tree(report_run(folder, report=lambda message: None))
    result = json.loads((folder / "result.json").read_text())
    values = {each["value"] for each in found.all("data")}
    for row in result["rows"]:
        assert {repr(row["low"]), repr(row["high"])} <= values
    assert "Resilience to noise" in found.words
    assert "config.toml is missing" in found.text


# ---------------------------------------------------------------- sweeps


@pytest.mark.parametrize("n", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_page_of_a_sweep(tmp_path: Path, capsys, n: int):
    make_sweep(tmp_path, n)
    assert main(["report", str(tmp_path / "sweep")]) == 0
    path = tmp_path / "sweep" / "report.html"
    assert path.stat().st_size < 1_500_000
    found = tree(path)
    assert "not all finished" in found.words
    assert f"{n - 2} finished, 1 waiting, 1 failed" in found.text
    assert "<script>alert" in found.text
    links = [each["href"] for each in found.all("a")]
    assert {f"#member-{number}" for number in range(n)} <= set(links)
    assert any("Energy against circuit.depth" in words for words in found.words)
    assert ("(100 values)" in found.text) == (n == 200)
    assert found.text.count("not used") >= (n - 2) * 3


# ---------------------------------------------------------------- in a browser


PROBE = """<script>addEventListener("load", () => {
const box = (each) => each.getBoundingClientRect();
document.body.setAttribute("data-seen", JSON.stringify({
  width: document.documentElement.clientWidth,
  scroll: document.documentElement.scrollWidth,
  figures: [...document.querySelectorAll("figure svg")].map(e => [box(e).width, box(e).height]),
  images: [...document.images].map(e => [e.naturalWidth, box(e).width]),
  ticks: [...document.querySelectorAll("figure svg text")].map(e => box(e).height),
  heading: document.querySelector("h1").innerText,
  wide: [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre") &&
    box(e).right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 90)),
}));
});</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    return found


def browse(chromium: str, folder: Path, page: Path, *arguments: str) -> str:
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            *arguments,
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def framed(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with a probe, in a frame of any width: windows have a smallest one."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "probed.html").write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    return folder


@pytest.mark.parametrize("width", [360, 1200])
def test_browser_shows_the_page(chromium: str, framed: Path, width: int):
    probed = (framed / "probed.html").read_text()
    host = framed / f"host{width}.html"
    source = tag("iframe", srcdoc=probed, width=width, height=800, style="border:0")
    collect = (
        "<script>addEventListener('load', () => document.body.append("
        "document.querySelector('iframe').contentDocument.body.dataset.seen))</script>"
    )
    host.write_text(f"<!DOCTYPE html><html><body>{source}{collect}</body></html>")
    dumped = browse(chromium, framed, host, "--window-size=1300,900", "--dump-dom")
    seen = json.loads(re.search(r"</script>\s*(\{.*\})\s*</body>", dumped, re.S)[1])
    assert seen["width"] == width
    assert seen["scroll"] == width, seen["wide"]
    assert not seen["wide"]
    assert seen["heading"] == "tiny"
    assert len(seen["figures"]) == 8
    for figure_width, height in seen["figures"]:
        assert figure_width > 280
        assert height > 150
    assert len(seen["images"]) == 4
    for natural, shown in seen["images"]:
        assert natural > 0
        assert shown > 40
    assert min(seen["ticks"]) > 6


def test_browser_prints_the_page(chromium: str, page: Path, tmp_path: Path):
    file = tmp_path / "page.pdf"
    browse(chromium, tmp_path, page, f"--print-to-pdf={file}", "--no-pdf-header-footer")
    content = file.read_bytes()
    assert content.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 3 <= pages <= 12
    # What is folded away for good, such as the whole configuration, fills no paper.
    opened = tmp_path / "opened.html"
    opened.write_text(page.read_text().replace('class="unprinted"', ""))
    browse(chromium, tmp_path, opened, f"--print-to-pdf={file}", "--no-pdf-header-footer")
    assert len(re.findall(rb"/Type\s*/Page\b", file.read_bytes())) > pages
