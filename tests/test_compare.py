"""Comparing the runs of a sweep: groups, success, convergence, the limit of no truncation."""

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from hypercircuit.cli import main
from hypercircuit.run_compare import ComparisonSettings, compare_run
from hypercircuit.run_report import report_run
from hypercircuit.run_sweep import gather_sweep, sweep_rows
from hypercircuit.study.aggregate import (
    Group,
    check_convergence,
    choose_axes,
    extrapolate_groups,
    find_minima,
    is_over_all,
    make_groups,
)
from hypercircuit.study.comparison_plots import choose_panels, plot_against
from hypercircuit.study.extrapolate import Extrapolation, extrapolate

WEIGHTS = np.array([3e-2, 1e-2, 2e-3, 1e-4])
SPREADS = np.array([0.02, 0.01, 0.008, 0.006])

# ---------------------------------------------------------------- extrapolation


def test_line_is_recovered():
    found = extrapolate(WEIGHTS, 0.6 - 2.5 * WEIGHTS)
    assert found.energy == pytest.approx(0.6, abs=1e-12)
    assert found.slope == pytest.approx(-2.5, abs=1e-9)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert found.chi_squared is None
    assert found.n_points == 4


def test_known_errors_weigh_the_points():
    """Against NumPy's weighted polynomials, whose errors are those of the given ones."""
    energies = np.array([0.7, 0.62, 0.612, 0.601])
    line, covariance = np.polyfit(WEIGHTS, energies, 1, w=1 / SPREADS, cov="unscaled")
    found = extrapolate(WEIGHTS, energies, SPREADS)
    chi = np.sum(((energies - np.polyval(line, WEIGHTS)) / SPREADS) ** 2) / 2
    assert found.chi_squared == pytest.approx(chi)
    assert chi < 1
    assert found.energy == pytest.approx(line[1])
    assert found.error == pytest.approx(math.sqrt(covariance[1, 1]))
    assert found.high - found.energy == pytest.approx(1.959964 * found.error)
    # Scatter beyond the errors widens them.
    wide = extrapolate(WEIGHTS, energies, SPREADS / 100)
    assert wide.chi_squared == pytest.approx(1e4 * chi)
    assert wide.error == pytest.approx(found.error * math.sqrt(chi))


def test_scatter_stands_in_for_errors():
    """Against SciPy's linear regression."""
    energies = np.array([0.7, 0.62, 0.612, 0.601])
    line = stats.linregress(WEIGHTS, energies)
    found = extrapolate(WEIGHTS, energies, confidence=0.9)
    assert found.energy == pytest.approx(line.intercept)
    assert found.error == pytest.approx(line.intercept_stderr)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.95, 2) * found.error)


@pytest.mark.parametrize(("runs", "least", "most"), [(3, 0.95, 1), (10, 0.94, 0.98)])
def test_interval_covers_the_limit(runs: int, least: float, most: float):
    """Of 800 sets of runs; conservative with few runs, since scatter widens the interval."""
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(800):
        energies = 1 + 2 * WEIGHTS[:, None] + SPREADS[:, None] * rng.normal(size=(4, runs))
        errors = energies.std(1, ddof=1) / math.sqrt(runs)
        found = extrapolate(WEIGHTS, energies.mean(1), errors, np.full(4, runs))
        covered.append(found.low <= 1 <= found.high)
    # Three standard errors of the share are 0.023.
    assert least - 0.023 < np.mean(covered) <= most


def test_interval_covers_the_limit_with_scatter_alone():
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(800):
        found = extrapolate(WEIGHTS, 1 + 2 * WEIGHTS + 0.01 * rng.normal(size=4))
        covered.append(found.low <= 1 <= found.high)
    assert abs(np.mean(covered) - 0.95) < 0.023


def test_errors_fall_with_the_square_root_of_the_runs():
    errors = []
    for runs in (100, 400):
        energies = 1 + 2 * WEIGHTS
        errors.append(
            extrapolate(WEIGHTS, energies, SPREADS / math.sqrt(runs), np.full(4, runs)).error
        )
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"discarded": WEIGHTS[:2], "energies": WEIGHTS[:2]}, "three different discarded weights"),
        ({"discarded": np.ones(4), "energies": WEIGHTS}, "three different discarded weights"),
        ({"energies": np.array([1, 2, np.nan, 3])}, "must be finite"),
        ({"discarded": -WEIGHTS}, "weights at least 0"),
        ({"errors": np.array([1.0, 1, 0, 1])}, "errors must be above 0"),
        ({"errors": SPREADS, "runs": np.array([3, 3, 3, 1])}, "runs must be at least 2"),
        ({"runs": np.full(4, 3)}, "runs must be at least 2 with errors"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, got 1.0"),
    ],
)
def test_wrong_points_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        extrapolate(**{"discarded": WEIGHTS, "energies": WEIGHTS, **arguments})


# ---------------------------------------------------------------- groups


def row(**values: Any) -> dict[str, Any]:
    return {"status": "finished", **values}


def test_groups_average_what_ended():
    rows = [
        row(k=2, energy=1.0),
        row(k=1, energy=3.0),
        row(k=2, energy=2.0, seconds=5),
        row(k=2, energy=6.0),
        {"status": "failed", "k": 2, "energy": 100.0},
        {"status": "non-finite", "k": 2},
    ]
    first, second = make_groups(rows, ["k"])
    assert (first.settings, second.settings) == ({"k": 1}, {"k": 2})
    assert (len(second.rows), len(second.ended)) == (5, 4)
    found = second.summary("energy")
    assert found is not None
    assert (found.n, found.mean) == (3, 3.0)
    assert found.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    assert (found.low, found.median, found.high) == (1.5, 2.0, 4.0)
    seconds = second.summary("seconds")
    assert seconds is not None
    assert (seconds.n, seconds.standard_error) == (1, None)
    assert second.summary("absent") is None


def test_success_counts_runs_without_a_finite_energy_as_failures():
    group = Group({}, [row(energy=1.0), row(energy=1.00009), row(energy=1.1), row(energy=None)])
    found = group.success([1.0] * 4, 1e-4)
    assert found is not None
    interval = stats.binomtest(2, 4).proportion_ci(method="exact")
    assert (found.successes, found.n) == (2, 4)
    assert (found.low, found.high) == (interval.low, interval.high)
    # Every run is measured by the minimum of its own problem.
    other = group.success([1.0, 1.0, 1.1, 1.0], 1e-4)
    assert other is not None
    assert other.successes == 3
    assert group.success([math.inf] * 4, 1e-4) is None


def test_minimum_is_the_best_of_the_same_problem():
    rows = [
        row(**{"loss.kind": "hinge", "circuit.depth": 1, "energy": 0.5, "best_loss": 0.4}),
        row(**{"loss.kind": "hinge", "circuit.depth": 2, "energy": 0.3, "best_loss": None}),
        row(**{"loss.kind": "softmax", "circuit.depth": 1, "energy": 0.9, "best_loss": 0.8}),
        # Below the minimum by its sampling error.
        row(
            **{"loss.kind": "softmax", "circuit.depth": 2, "energy": 0.1, "best_loss": 0.7},
            energy_standard_error=0.5,
        ),
    ]
    assert find_minima(rows, ["circuit.depth", "loss.kind"]) == [0.3, 0.3, 0.7, 0.7]
    assert find_minima(rows, ["circuit.depth"]) == [0.3] * 4


@pytest.mark.parametrize(
    ("row", "whole"),
    [
        ({"energy": 1.0}, True),
        ({"energy": 1.0, "energy_examples": 200, "train_examples": 200}, True),
        ({"energy": 1.0, "energy_examples": 199, "train_examples": 200}, False),
        # Results of older versions, with and without a configuration.
        ({"energy": 1.0, "energy_examples": 200, "decode.final_examples": 0}, True),
        ({"energy": 1.0, "energy_examples": 200, "decode.final_examples": 500}, True),
        ({"energy": 1.0, "energy_examples": 200, "decode.final_examples": 200}, False),
        ({"energy": 1.0, "energy_examples": 200}, False),
        # Runs without an energy.
        ({"energy": None, "decode.final_examples": 0}, True),
        ({"energy": None, "decode.final_examples": 100}, False),
        ({"energy": None, "decode.final_examples": 100, "train_examples": 90}, True),
        ({"energy": None, "decode.final_examples": 100, "train_examples": 110}, False),
    ],
)
def test_energies_over_some_examples_are_told_from_those_over_all(row, whole: bool):
    assert is_over_all(row) is whole


def test_axes_are_numbers_that_vary_bond_and_depth_first():
    rows = [
        {"train.steps": n, "circuit.depth": n, "state.max_bond": n, "train.seed": n, "b": 1, "c": s}
        for n, s in ((1, "x"), (2, "y"))
    ]
    assert choose_axes(rows, list(rows[0])) == ["state.max_bond", "circuit.depth"]
    assert choose_axes(rows, ["train.seed", "train.steps"]) == ["train.steps"]
    with pytest.raises(ValueError, match=r"of train\.seed, b, c no number but seeds varies"):
        choose_axes(rows, ["train.seed", "b", "c"])


@pytest.mark.parametrize(
    ("points", "converged", "words"),
    [
        # {bond: (energies, discarded weight)}
        ({2: ([0.5], 1e-4), 4: ([0.5], 1e-5)}, True, ""),
        (
            {2: ([0.5], 1e-4), 4: ([0.49], 1e-5), 1: ([0.4899], 0.1)},
            False,
            "state.max_bond = 2 and 4 differ by -0.01 nats, more than 0.0001",
        ),
        ({2: ([0.48, 0.52], 1e-4), 4: ([0.47, 0.51], 1e-5)}, True, ""),
        ({2: ([0.4999, 0.5001], 1e-4), 4: ([0.4899, 0.4901], 1e-5)}, False, "differ by -0.01"),
        ({2: ([0.5], 0.1), 4: ([0.5], 0.01)}, False, "the discarded weight is 0.01, above 0.001"),
        ({2: ([0.5], 0.1), 4: ([0.4], 0.0)}, True, ""),
        ({2: ([0.5], None), 4: ([0.5], None)}, True, ""),
        ({4: ([0.5], None)}, None, "convergence unknown: state.max_bond = 4 is the only one"),
        ({4: ([0.5], 0.1)}, False, "the discarded weight is 0.1"),
        ({4: ([None], None)}, None, "no run has an energy"),
    ],
)
def test_convergence(points, converged, words: str):
    groups = [
        Group(
            {"state.max_bond": bond},
            [row(energy=energy, discarded_weight=weight) for energy in energies],
        )
        for bond, (energies, weight) in points.items()
    ]
    found = check_convergence(groups, "state.max_bond", tolerance=1e-4, threshold=1e-3, unit="nats")
    assert found.converged is converged
    assert words in found.warning
    assert bool(found.warning) == bool(words)


def group_of(weight: float | None, energies: list[float]) -> Group:
    return Group({}, [row(energy=energy, discarded_weight=weight) for energy in energies])


def test_limit_of_groups_takes_the_smallest_discarded_weights():
    groups = [
        group_of(weight, [1 + weight - 0.01, 1 + weight + 0.01]) for weight in (3e-2, 1e-2, 1e-3)
    ]
    off = group_of(0.09, [9.0, 9.1])
    found = extrapolate_groups([off, *groups], points=3)
    assert isinstance(found, Extrapolation)
    assert found.energy == pytest.approx(1, abs=1e-12)
    assert found.chi_squared is not None
    worse = extrapolate_groups([off, *groups], points=4)
    assert isinstance(worse, Extrapolation)
    assert abs(worse.energy - 1) > 0.01
    # No line goes through large weights, however many points it may have.
    far = [group_of(weight, [9.0, 9.1]) for weight in (0.11, 0.5, 2.4)]
    assert extrapolate_groups([*far, *groups], points=6) == found
    single = [group_of(weight, [1 + weight]) for weight in (3e-2, 1e-2, 1e-3)]
    alone = extrapolate_groups(single)
    assert isinstance(alone, Extrapolation)
    assert alone.chi_squared is None
    sampled = [
        Group({}, [row(energy=1 + w, discarded_weight=w, energy_standard_error=0.5)])
        for w in (3e-2, 1e-2, 1e-3)
    ]
    known = extrapolate_groups(sampled)
    assert isinstance(known, Extrapolation)
    assert known.chi_squared == pytest.approx(0, abs=1e-12)
    assert 0.3 < known.error < 0.5
    for wanted, some in (
        ("nothing is discarded", [*groups, group_of(0.0, [1.0])]),
        ("record no discarded weight", [group_of(None, [1.0])]),
        ("three different discarded weights of at most 0.1, got 2; run more", groups[:2]),
        ("of at most 0.1, got 2; run more bond dimensions", [*far, *groups[:2]]),
        ("of at most 0.1, got 1", [groups[0]] * 4),
    ):
        why = extrapolate_groups(some)
        assert isinstance(why, str)
        assert wanted in why


# ---------------------------------------------------------------- the command


def make_sweep(folder: Path, values: dict[str, list[Any]], result) -> None:
    """A sweep's folder whose members hold what `result` says of their settings; None is missing."""
    members = []
    for number, chosen in enumerate(itertools.product(*values.values())):
        settings = dict(zip(values, chosen, strict=True))
        member = folder / "members" / f"{number:04d}"
        member.mkdir(parents=True)
        found = result(settings)
        if found is not None:
            (member / "result.json").write_text(json.dumps({"status": "finished", **found}))
        members.append({"number": number, "folder": member.name, "values": settings})
    (folder / "sweep.json").write_text(json.dumps({"format": 1, "members": members}))


def truncated(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Energies on a line in the discarded weight, its limit 0.5 at depth 4 and 0.6 at depth 1."""
    depth, bond, seed = settings.values()
    if (depth, bond, seed) == (4, 2, 2):
        return None
    weight = 0.0 if depth == 1 else 0.04 / bond**2
    energy = (0.6 if depth == 1 else 0.5) + 3 * weight + 1e-5 * (seed - 1)
    return {
        "unit": "nats",
        "energy": energy,
        "energy_standard_error": None,
        "best_loss": energy - 0.001,
        "test_accuracy": 0.9,
        "discarded_weight": weight,
        "entropy_max": math.log(bond),
        "seconds": 2.0 * bond,
        "compile_seconds": 0.5,
    }


def test_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    grid = {"circuit.depth": [1, 4], "state.max_bond": [1, 2, 4, 8], "train.seed": [0, 1, 2]}
    make_sweep(tmp_path / "sweep", grid, truncated)
    assert main(["compare", str(tmp_path / "sweep"), "--distance", "0.0021"]) == 0
    said = capsys.readouterr().out
    assert "**Warning**: 1 of 24 members have no result (23 finished, 1 waiting)" in said
    assert "depth 4: not converged in bond dimension: the energies of state.max_bond = 4 and 8" in (
        said
    )
    assert "**Warning**: depth 1" not in said
    for bond, weight in ((1, "0.04"), (2, "0.01"), (4, "0.0025")):
        assert f"depth 4, bond {bond}: truncated result, discards {weight}  \n" in said
    assert said.count("not converged") == 1
    assert "Truncated results discard a squared norm of more than 0.001 on average." in said
    assert "the runs' errors and the fit (chi^2 per degree of freedom 0.3" in said
    assert "No extrapolation of depth 1: nothing is discarded" in said
    out = tmp_path / "sweep" / "compare"
    assert (out / "comparison.md").read_text() in said
    assert "| 4 | 2 | 2 of 3 | 0 % [0, 84] | 0.529995 ± 5e-06 |" in said
    for name in ("against_state.max_bond", "against_circuit.depth", "extrapolation"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    found = json.loads((out / "comparison.json").read_text())
    assert found["axes"] == ["state.max_bond", "circuit.depth"]
    assert found["averaged"] == ["train.seed"]
    rows = {tuple(each["settings"].values()): each for each in found["rows"]}
    assert set(rows) == set(itertools.product([1, 4], [1, 2, 4, 8]))
    widest = rows[4, 8]
    assert widest["energy"]["mean"] == pytest.approx(0.5 + 3 * 0.04 / 64)
    assert widest["energy"]["standard_error"] == pytest.approx(1e-5 / math.sqrt(3))
    assert widest["entropy_max"]["mean"] == math.log(8)
    assert [widest[name]["mean"] for name in ("seconds", "training_seconds")] == [16, 15.5]
    # The best loss found is 0.000 999 below the lowest energy; depth 4 at bond 8 ends in reach.
    assert widest["success"]["probability"] == 1
    assert rows[4, 4]["success"]["successes"] == 0
    product, entangled = found["series"]
    assert product["settings"] == {"circuit.depth": 1}
    assert product["convergence"]["converged"] is True
    assert "nothing is discarded" in product["no_extrapolation"]
    assert entangled["convergence"]["converged"] is False
    assert entangled["extrapolation"]["energy"] == pytest.approx(0.5, abs=1e-5)
    assert entangled["extrapolation"]["low"] < 0.5 < entangled["extrapolation"]["high"]
    with open(out / "comparison.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(each["energy_mean"]) for each in table] == [
        each["energy"]["mean"] for each in found["rows"]
    ]


@pytest.mark.parametrize("n_curves", [1, 2, 9])
@pytest.mark.parametrize("panels", [["energy"], None])
def test_legends_of_long_values_stay_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_curves: int, panels: list[str] | None
):
    summary = {"mean": 0.5, "standard_error": 0.1, "median": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {
            "settings": {
                "state.max_bond": bond,
                "circuit.depth": 4,
                "data.path": f"/a/long/folder/of/many/names/{number}/images-of-ten-digits.npz",
            },
            "energy": summary,
            "best_loss": summary,
            "compile_seconds": summary,
        }
        for number in range(n_curves)
        for bond in (2, 4)
    ]
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: drawn.append(self))
    plot_against(
        "state.max_bond", rows, tmp_path / "x.png", unit="nats", distance=0.1, names=panels
    )
    (figure,) = drawn
    figure.draw_without_rendering()
    legend = figure.legends[0]
    assert len(legend.get_texts()) == n_curves
    inside, frame = legend.get_window_extent(), figure.bbox
    assert frame.x0 <= inside.x0 < inside.x1 <= frame.x1
    assert len(figure.axes[0].containers) == n_curves


def subsets(settings: dict[str, Any]) -> dict[str, Any]:
    """As result_785.json of experiment 06: energies of 200 images, one of them below every loss."""
    bond, seed = settings.values()
    return {
        "unit": "nats",
        "seed": seed,
        "energy": {0: 0.003, 1: 0.0114}[seed] - 1e-5 * bond,
        "energy_standard_error": None,
        "energy_examples": 200,
        "best_loss": 0.0041 + 1e-5 * bond,
        "discarded_weight": 0.04 / bond**2,
    }


@pytest.mark.parametrize("size", ["recorded", "configured", "unknown"])
def test_energies_over_some_examples_are_no_minima_and_no_success(tmp_path: Path, size: str):
    known = {"train_examples": 12665} if size == "recorded" else {}
    make_sweep(
        tmp_path,
        {"state.max_bond": [1, 2, 4], "train.seed": [0, 1]},
        lambda settings: subsets(settings) | known,
    )
    if size == "configured":
        for member in (tmp_path / "members").iterdir():
            (member / "config.toml").write_text("[decode]\nfinal_examples = 200\n")
    for minimum in (None, 0.0002):
        found = compare_run(tmp_path, ComparisonSettings(minimum=minimum), report=lambda text: None)
        assert not any(
            "success" in each or "energy_above_minimum" in each for each in found["rows"]
        )
    said = (tmp_path / "compare" / "comparison.md").read_text()
    assert "success |" not in said
    assert "Success:" not in said
    examples = "200 training examples " + ("of 12665" if known else "only")
    report_run(tmp_path, report=lambda text: None)
    for text in (said, (tmp_path / "report.html").read_text()):
        assert (
            f"energies of 6 of 6 runs are over {examples}, losses of networks over all: these "
            "energies count neither for the best found nor as success; each seed chooses other "
            "examples"
        ) in text
    rows = sweep_rows(tmp_path)
    assert find_minima(rows, ["state.max_bond"]) == [pytest.approx(0.00411)] * 6


def test_energies_over_all_examples_of_older_results_count(tmp_path: Path):
    make_sweep(tmp_path, {"state.max_bond": [1, 2, 4], "train.seed": [0, 1]}, subsets)
    for member in (tmp_path / "members").iterdir():
        (member / "config.toml").write_text("[decode]\nfinal_examples = 0\n")
    found = compare_run(tmp_path, report=lambda text: None)
    assert [each["success"]["successes"] for each in found["rows"]] == [1, 1, 1]
    assert not any("examples" in warning for warning in found["warnings"])


def test_extrapolations_are_titled_by_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of single runs, whose interval is of the fit only; long settings take several lines."""
    paths = [f"/a/long/folder/of/many/names/{name}-images-of-digits.npz" for name in "ab"]
    values = {"circuit.depth": [4, 8], "data.path": paths, "state.max_bond": [1, 2, 4, 8]}

    def result(settings: dict[str, Any]) -> dict[str, Any]:
        depth, _, bond = settings.values()
        return {"energy": 0.5, "discarded_weight": 0.02 * depth / bond**2}

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: drawn.append(self))
    make_sweep(tmp_path, values, result)
    compare_run(tmp_path, report=lambda text: None)
    figure = drawn[-1]
    figure.draw_without_rendering()
    for axes, (depth, name) in zip(figure.axes, itertools.product((4, 8), "ab"), strict=False):
        title = axes.get_title()
        assert title.replace("\n", " ") == f"depth {depth}, path …/{name}-images-of-digits.npz"
        inside = axes.title.get_window_extent()
        assert figure.bbox.x0 <= inside.x0 < inside.x1 <= figure.bbox.x1
    said = (tmp_path / "compare" / "comparison.md").read_text()
    assert said.count("the fit only (single runs: no seeds' scatter, no chi^2)") == 4


def test_energies_are_drawn_above_a_known_minimum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a logarithmic axis, so that bond 1 does not hide 1e-5; the shares side by side."""
    above = {1: 0.1, 2: 1e-3, 4: 1e-5}

    def result(settings: dict[str, Any]) -> dict[str, Any]:
        bond, depth, seed = settings.values()
        return {"energy": 0.25 + above[bond] * (1 + seed) * depth, "best_loss": 0.25}

    grid = {"state.max_bond": [1, 2, 4], "circuit.depth": [2, 4], "train.seed": [0, 1, 2]}
    make_sweep(tmp_path, grid, result)
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: drawn.append(self))
    found = compare_run(tmp_path, ComparisonSettings(minimum=0.25), report=lambda text: None)
    assert [each["energy_above_minimum"]["median"] for each in found["rows"][:3]] == pytest.approx(
        [0.4, 4e-3, 4e-5], rel=1e-9
    )
    panels = {axes.get_title(): axes for axes in drawn[0].axes}
    assert "Energy" not in panels
    energies = panels["Energy above the minimum"]
    assert energies.get_yscale() == "log"
    assert [round(line.get_ydata()[0], 9) for line in energies.containers[0].lines[:1]] == [0.4]
    shares = panels["Success: within 0.0001 of the minimum"]
    places = np.sort(
        np.concatenate([line.get_xdata() for line in shares.lines if line.get_ls() == "None"])
    )
    assert np.diff(places).min() > 0.3
    plain = compare_run(tmp_path, report=lambda text: None)
    assert [panel[0] for panel in choose_panels(plain["rows"])][:1] == ["Energy"]
    assert "Success: within 0.0001 of the best found" in {
        axes.get_title() for axes in drawn[-1].axes
    }


def test_other_axes_and_a_known_minimum(tmp_path: Path, capsys):
    grid = {
        "loss.kind": ["hinge", "logistic"],
        "optimiser.learning_rate": [0.1, 0.2],
        "data.split_seed": [0, 1],
    }

    def result(settings: dict[str, Any]) -> dict[str, Any]:
        kind, rate, seed = settings.values()
        return {"unit": "nats", "energy": len(kind) + rate + seed, "best_loss": None}

    make_sweep(tmp_path, grid, result)
    out = tmp_path / "elsewhere"
    found = compare_run(tmp_path, out=out, report=print)
    assert found["axes"] == ["optimiser.learning_rate"]
    assert [tuple(each["settings"].values()) for each in found["rows"]] == [
        ("hinge", 0.1),
        ("hinge", 0.2),
        ("logistic", 0.1),
        ("logistic", 0.2),
    ]
    # Another split of the data is another problem: 0.1 is best in both of them.
    assert [each["success"]["successes"] for each in found["rows"]] == [2, 0, 2, 0]
    assert found["series"] == found["warnings"] == []
    assert (out / "against_optimiser.learning_rate.png").exists()
    by_kind = compare_run(
        tmp_path, ComparisonSettings(axes=["loss.kind"]), out=out, report=lambda text: None
    )
    assert (out / "against_loss.kind.png").exists()
    assert list(by_kind["rows"][0]["settings"]) == ["optimiser.learning_rate", "loss.kind"]
    capsys.readouterr()
    for arguments, message in (
        (["--minimum", "5"], "minimum=5.0 is that of one problem, and loss.kind varies"),
        (["--axis", "train.seed"], "the sweep has no axis 'train.seed'; it has loss.kind,"),
        (["--points", "2"], "points must be at least 3, got 2"),
        (["--distance", "0"], "distance must be above 0, got 0.0"),
        (["--tolerance", "-1"], "tolerance must be at least 0, got -1.0"),
        (["--threshold", "nan"], "threshold must be above 0, got nan"),
        (["--minimum", "nan"], "minimum must be finite, got nan"),
        (["--axis", "a", "--axis", "a"], "axes must be one or two different settings, got a, a"),
    ):
        assert main(["compare", str(tmp_path), *arguments]) == 2
        assert message in capsys.readouterr().err


def test_truncation_is_warned_of_without_a_bond_axis(tmp_path: Path):
    """In the report too, which shows the warnings of the same comparison."""
    weights = {2: 1e-5, 4: 3e-3, 8: 0.02}

    def result(settings: dict[str, Any]) -> dict[str, Any]:
        depth, seed = settings.values()
        diagnostics = {"discarded_weight": weights[depth] * (1 + 0.5 * seed)}
        return {"energy": 0.5, "depth": depth, "max_bond": 3, "diagnostics": diagnostics}

    make_sweep(tmp_path, {"circuit.depth": [2, 4, 8], "train.seed": [-1, 1]}, result)
    found = compare_run(tmp_path, report=lambda text: None)
    assert found["warnings"] == [
        "depth 4, bond 3: truncated result, discards 0.003",
        "depth 8, bond 3: truncated result, discards 0.02",
    ]
    less = compare_run(tmp_path, ComparisonSettings(threshold=0.01), report=lambda text: None)
    assert len(less["warnings"]) == 1
    report_run(tmp_path, report=lambda text: None)
    page = (tmp_path / "report.html").read_text()
    assert "depth 8, bond 3: truncated result, discards 0.02" in page


def test_later_diagnoses_are_in_the_table(tmp_path: Path):
    """Those of diagnostics.json, which `hypercircuit diagnose` writes beside a finished result."""

    def result(settings: dict[str, Any]) -> dict[str, Any]:
        return {"energy": 0.5, "diagnostics": {"discarded_weight": 0.25}}

    make_sweep(tmp_path, {"circuit.depth": [2, 4]}, result)
    numbers = {"discarded_weight": 0.125, "max_entropy": 0.7, "energy_error": 0.01}
    (tmp_path / "members" / "0001" / "diagnostics.json").write_text(json.dumps(numbers))
    first, second = gather_sweep(tmp_path)
    assert (first["discarded_weight"], first["energy_error"]) == (0.25, None)
    assert [second[name] for name in ("discarded_weight", "entropy_max", "energy_error")] == [
        0.125,
        0.7,
        0.01,
    ]


def test_bonds_of_operators_are_judged_by_energies():
    """Nothing discarded from a state says nothing about the operator."""
    groups = [
        Group({"mpo.max_bond": bond}, [row(energy=energy, discarded_weight=weight)])
        for bond, energy, weight in ((2, 0.5, 0.0), (4, 0.4, 0.0))
    ]
    found = check_convergence(groups, "mpo.max_bond", tolerance=1e-4, threshold=1e-3, unit="nats")
    assert found.converged is False
    assert "differ by -0.1" in found.warning


def test_known_minimum_replaces_the_best_found(tmp_path: Path):
    grid = {"circuit.depth": [1, 2], "train.seed": [0, 1]}
    make_sweep(tmp_path, grid, lambda settings: {"energy": 0.1 * settings["circuit.depth"]})
    for minimum, successes in ((None, [2, 0]), (0.2, [2, 2]), (0.0, [0, 0])):
        found = compare_run(tmp_path, ComparisonSettings(minimum=minimum), report=lambda text: None)
        assert [each["success"]["successes"] for each in found["rows"]] == successes


def test_sweep_without_results_is_refused(tmp_path: Path):
    make_sweep(tmp_path, {"circuit.depth": [1, 2]}, lambda settings: None)
    with pytest.raises(ValueError, match=r"no member of .* has a result yet"):
        compare_run(tmp_path)
