"""`hypercircuit estimate`: the laws by themselves, and a real run within a factor of two."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from hypercircuit.circuit import Brickwork, FreeMPS, Truncated
from hypercircuit.cli import main
from hypercircuit.cluster import note_command
from hypercircuit.cluster.compile_cache import cache_settings
from hypercircuit.cluster.compile_clock import CompileClock, without_cache
from hypercircuit.cluster.cost import (
    FURTHER_COMPRESSIONS,
    LOAD_SHARE,
    SITE_FLOPS,
    STEP_FLOPS,
    Estimate,
    Sizes,
    Stage,
    exchange_seconds,
    extrapolate,
    measured_sizes,
    start_flops,
    step_flops,
    trust_checks,
)
from hypercircuit.config import load_config
from hypercircuit.hamiltonian import compile_loss
from hypercircuit.run_estimate import estimate_run, with_site_tensors
from problems import Problem

SIZES = Sizes(
    n_qubits=10,
    depth=4,
    doubled_bond=4,
    n_params=80,
    batch=100,
    n_examples=1000,
    frequencies=50.0,
    touched=5.0,
    samples=32,
    operator_bond=16,
    contraction_flops=1e9,
)
SITES = dataclasses.replace(SIZES, site_bond=6, truncations=2, example_flops=7e4)
SMALL = """
[data]
classes = [0, 1]
pixels = "binarise"
downsample = "pick"
rows = [8, 14, 20]
columns = [10, 14]
n_train = 500

[train]
steps = 200
batch_size = 50
evaluate_every = 100

[decode]
samples = 10
beam = 2
"""
#: In seconds of all cores: other processes of the machine do not count. JAX takes `time.time`.
PEAK = """
import resource, sys, time
time.perf_counter = time.time = time.process_time
from hypercircuit.cli import main
code = main(sys.argv[1:])
print("PEAK", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
raise SystemExit(code)
"""


def test_formulas():
    # By hand: the state's 6 N p D^2 = 3,840 operations, the optimiser's 10 P = 800.
    assert step_flops("cumulant", SIZES) == 3840 + 800 + 6 * 100 * 10 * 16
    assert step_flops("exact", SIZES) == 3840 + 800 + 24 * 100 * 50 * 5 * 16
    assert step_flops("sampled", SIZES) == 3840 + 800 + 6 * 32 * 160 + 2 * 32 * 1000
    assert step_flops("statevector", SIZES) == 800 + 18 * 40 * 1024
    assert step_flops("mpo", SIZES) == 3840 + 800 + 120 * (16 * 16 + 256 * 4)
    assert step_flops("contraction", SIZES) == 800 + 1e9
    assert start_flops("mpo", SIZES) == 50 * 1000 * 10 * 256
    assert start_flops("exact", SIZES) == 0
    with pytest.raises(ValueError, match="no formula for energy 'best'"):
        step_flops("best", SIZES)


def test_formulas_of_truncated_and_free_states():
    # By hand: the state's 300 N (q + 1) X^3, and the optimiser's 10 P = 800.
    state = 300 * 10 * 3 * 216 + 800
    assert step_flops("cumulant", SITES) == state + 96 * 100 * 10 * 216
    assert step_flops("exact", SITES) == state + 3 * 100 * 7e4
    assert step_flops("sampled", SITES) == state + 48 * 32 * 10 * 36 + 2 * 32 * 1000
    assert step_flops("statevector", SITES) == state + 48 * 1024 * 6
    assert step_flops("mpo", SITES) == state + 10 * (96 * 16 * 216 + 48 * 256 * 36)
    with pytest.raises(ValueError, match="no formula for energy 'contraction'"):
        step_flops("contraction", SITES)
    wider = dataclasses.replace(SITES, site_bond=24)
    assert step_flops("cumulant", wider) == pytest.approx(64 * step_flops("cumulant", SITES), 0.01)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(kind, SIZES) for kind in STEP_FLOPS if kind != "contraction"]
    + [(kind, SITES) for kind in SITE_FLOPS],
)
def test_more_qubits_are_more_work(kind: str, sizes: Sizes):
    larger = dataclasses.replace(sizes, n_qubits=20, touched=10.0, example_flops=14e4)
    assert step_flops(kind, larger) > 1.5 * step_flops(kind, sizes)


def test_what_takes_too_long_is_measured_with_fewer_examples():
    assert measured_sizes(100, 1e6, 20.0) == (100,)
    assert measured_sizes(100, 1e10, 20.0) == (6, 25)
    assert measured_sizes(12665, 1e13, 20.0) == (4, 16)
    # Differences of fewer are noise, unless each takes long.
    assert measured_sizes(100, 1e11, 20.0) == (4, 16)
    assert measured_sizes(100, 1e12, 20.0) == (1, 2)
    assert measured_sizes(12, 3e10, 20.0) == (12,)
    wide = dataclasses.replace(SIZES, n_qubits=785, site_bond=16, truncations=7)
    assert measured_sizes(100, step_flops("cumulant", wide), 20.0) == (4, 16)
    assert measured_sizes(3, 1e15, 20.0) == (3,)


def test_lines():
    assert extrapolate((100,), (3.0,), 100) == 3.0
    assert extrapolate((6, 25), (1.6, 3.5), 100) == pytest.approx(11.0)
    assert extrapolate((6, 25), (4.0, 3.5), 100) == 3.5


def test_operators_are_checked_every_few_steps_in_the_state_metric():
    # Before steps 10, 20, .. counted from 0, the last one being 99 or 100.
    assert trust_checks(100, 10) == 9
    assert trust_checks(101, 10) == 10
    assert trust_checks(10, 10) == 0


def test_suggestion():
    stages = (
        Stage("compile", "N", 1, 40.0, 2.0**30, "measured"),
        Stage("steps", "N", 1000, 0.2, 2.0**30, "measured"),
    )
    found = Estimate(stages, 1.5 * 2**30, 2.0**20, 1e9, 5e9, "cpu", 2)
    assert found.seconds == pytest.approx(240)
    assert found.seconds_per_step == 0.2
    assert found.suggested_minutes == 7
    assert found.suggested_bytes == 2.5 * 2**30
    assert "--time=0:07:00" in found.describe()
    assert "--mem=2560M" in found.describe()
    assert json.loads(json.dumps(found.to_dict()))["seconds"] == pytest.approx(240)


def test_start_with_compiled_programs():
    stages = (
        Stage("compile", "N", 1, 40.0, 2.0**30, "measured", 30.0),
        Stage("decoding", "N", 1, 20.0, 2.0**30, "measured", 10.0),
        Stage("steps", "N", 1000, 0.2, 2.0**30, "measured"),
    )
    found = Estimate(stages, 1.5 * 2**30, 2.0**20, 1e9, 5e9, "cpu", 2)
    assert (found.seconds, found.compiled) == (pytest.approx(260), 40)
    assert found.cached_seconds == pytest.approx(220 + LOAD_SHARE * 40)
    text = found.describe()
    assert "the run: 260 s at its first start" in text
    assert f"\n{220 + LOAD_SHARE * 40:.0f} s with its programs in the compile cache" in text
    # The job asks for the time of a first start.
    assert found.suggested_minutes == 8
    numbers = found.to_dict()
    assert numbers["cached_seconds"] == found.cached_seconds
    assert numbers["compiled_seconds"] == 40


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """JAX's compile cache, of every program."""
    wanted = cache_settings(tmp_path) | {"jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_programs_of_earlier_starts_are_not_read(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hypercircuit.cluster.compile_clock.MIN_COMPILE_SECONDS", 0.0)

    def programs() -> set[str]:
        return {path.name for path in cache.iterdir() if path.name.endswith("-cache")}

    def compile_it(number: int = 4) -> None:
        jax.jit(lambda x: x.T @ (x + number)).lower(np.ones((5, 4))).compile()

    with CompileClock() as clock:
        compile_it()
        kept = programs()
        assert kept
        assert clock.lap() > 0
        with without_cache():
            compile_it(5)
        assert clock.lap() > 0
        assert programs() == kept
        assert clock.lap() == 0
    compile_it(6)
    assert clock.lap() == 0
    assert programs() > kept


@pytest.mark.parametrize(
    ("circuit", "bond", "truncations"),
    [
        (Truncated(Brickwork(8), 5), 5, 3),
        (Truncated(Brickwork(4), 64), 4, 0),
        (Truncated(Brickwork(12), 64), 8, 0),
        (Truncated(Brickwork(12), 64, 0.01), 8, 5),
        (FreeMPS(5), 5, 0),
        (Brickwork(8), 0, 0),
    ],
)
def test_sizes_of_truncated_and_free_states(
    circuit: Brickwork | Truncated | FreeMPS, bond: int, truncations: int
):
    """Of 6 qubits, whose state has no bond above 8."""
    problem = Problem("logistic", 1, 5, step=0.5, n_examples=4)
    hamiltonian = compile_loss(problem.network, problem.data, problem.loss_object)
    depth = 1 if isinstance(circuit, FreeMPS) else circuit.depth
    sizes = dataclasses.replace(SIZES, depth=depth)
    found = with_site_tensors(sizes, hamiltonian, circuit)
    assert (found.site_bond, found.truncations) == (bond, truncations)
    assert (found.example_flops > 0) == (bond > 0)


def test_processes_of_a_node_need_their_memory_together():
    stages = (
        Stage("steps", "N", 100, 0.2, 2.0**30, "measured"),
        Stage("exchange", "N", 100, exchange_seconds(4_000_000), 2.0**30, "assumed"),
    )
    found = Estimate(stages, 2.0**30, 2.0**20, 1e9, 5e9, "cpu", 2, 4, 2)
    assert found.seconds_per_step == pytest.approx(0.2 + 0.001 + 0.08)
    assert found.suggested_bytes == 3 * 2**30
    text = found.describe()
    assert "peak 1.00 GiB in each of 4 processes" in text
    assert "--mem=3072M (1.5 x the peak, of 2 processes on a node)" in text


def test_processes_share_steps_and_the_final_energy_and_nothing_else(tmp_path: Path):
    (tmp_path / "small.toml").write_text(SMALL)
    words = ["train.batch_size=51", "decode.final_examples=300", "energy.check_examples=40"]
    words += ["circuit.depth=2"]
    config = load_config(tmp_path / "small.toml", words)
    alone, shared = (
        {stage.name: stage for stage in estimate_run(config, budget=0.1, processes=k).stages}
        for k in (1, 3)
    )
    assert alone["steps"].inputs == "14 qubits, cumulant, 51 examples"
    assert shared["steps"].inputs == "14 qubits, cumulant, 17 examples"
    # One process has batches of 200 and 100, three have one of 100 each.
    assert (alone["final energy"].count, shared["final energy"].count) == (2, 1)
    assert alone["final energy"].inputs == "200 examples each"
    assert shared["final energy"].inputs == "100 examples each"
    for name in ("first evaluation", "data and loss", "decoding"):
        assert alone[name].inputs == shared[name].inputs
    assert shared["first evaluation"].inputs == "40 examples checked"
    assert shared.keys() - alone.keys() == {"exchange"}
    assert shared["exchange"].count == 200
    # 14 cumulants of first and second order and as many of neighbours, beside 56 angles.
    assert shared["exchange"].inputs == "gradient and state of 3 processes"
    assert shared["exchange"].seconds_each == exchange_seconds(4 * (14 * 3 + 56))


@pytest.mark.parametrize(("metric", "steps"), [("state", 30), ("state", 11), ("uniform", 30)])
def test_further_compressions_are_assumed_in_the_state_metric(
    tmp_path: Path, metric: str, steps: int
):
    (tmp_path / "small.toml").write_text(SMALL)
    words = ["energy.kind=mpo", "mpo.max_bond=4", "mpo.samples=8", "train.batch_size=0"]
    words += [f"mpo.metric={metric}", "network.outputs=1", "loss.kind=logistic", "circuit.depth=1"]
    config = load_config(tmp_path / "small.toml", words)
    found = estimate_run(config, steps=steps, budget=0.1)
    stages = {stage.name: stage for stage in found.stages}
    checks = (steps - 1) // 10
    assert stages["trust region"].count == checks
    if metric == "uniform":
        assert "compressions" not in stages
        return
    more = stages["compressions"]
    assert (more.count, more.how) == (min(FURTHER_COMPRESSIONS, checks), "assumed")
    assert more.seconds_each == stages["preparation"].seconds_each
    assert f"{more.count} more, each as the first" in found.describe()
    assert stages["trust region"].seconds_each > 0


TRUNCATED = ("state.engine=truncated", "circuit.depth=8", "state.max_bond=5")
FREE = ("circuit.ansatz=free-mps",)
ONE = ("network.outputs=1", "loss.kind=logistic")
WHOLE = ("energy.kind=statevector", "train.batch_size=0")


def of_small(*settings: str) -> list[str]:
    return ["small.toml", *[word for each in settings for word in ("--set", each)]]


def command(*words: str, cwd: Path) -> str:
    hidden = {"HYPERCIRCUIT_COMPILE_CACHE": "off", "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words],
        cwd=cwd,
        env={**os.environ, **hidden},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["small.toml"], id="7 qubits a class"),
        pytest.param(
            ["--set", "train.steps=60", "--set", "train.evaluate_every=60"], id="7,850 qubits"
        ),
        pytest.param(of_small("energy.kind=sampled"), id="sampled"),
        pytest.param(of_small("energy.kind=exact"), id="exact"),
        pytest.param(of_small(*WHOLE), id="statevector"),
        pytest.param(of_small(*TRUNCATED), id="truncated"),
        pytest.param(of_small(*TRUNCATED, "energy.kind=exact"), id="truncated, exact"),
        pytest.param(of_small(*FREE, "state.max_bond=4"), id="free"),
        pytest.param(
            of_small("circuit.ansatz=graph", "circuit.depth=2", "energy.kind=contraction", *ONE),
            id="contraction",
        ),
    ],
)
def test_a_run_takes_what_was_estimated_within_a_factor_of_two(tmp_path: Path, settings: list[str]):
    (tmp_path / "small.toml").write_text(SMALL)
    text = command("estimate", *settings, "--json", cwd=tmp_path)
    estimate = json.loads(text[: text.index("PEAK")])
    run = command("train", *settings, "--out", "run", cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    peak = float(run.rpartition("PEAK")[2])
    step = (result["seconds"] - result["compile_seconds"]) / result["steps"]
    started = estimate["stages"][0]["seconds"]
    evaluations = sum(
        stage["seconds"] for stage in estimate["stages"] if stage["name"].endswith("evaluation")
    )
    steps = estimate["seconds_per_step"] + evaluations / result["steps"]
    assert 0.5 < estimate["peak_bytes"] / peak < 2
    assert 0.5 < (estimate["seconds"] - started) / result["total_seconds"] < 2
    assert 0.5 < steps / step < 2


def test_bad_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["estimate", "--steps", "0"]) == 2
    assert "steps must be at least 1, got 0" in capsys.readouterr().err
    assert main(["estimate", "--budget", "0"]) == 2
    assert "budget must be above 0 seconds, got 0" in capsys.readouterr().err
    assert main(["estimate", "--processes", "0"]) == 2
    assert "processes must be at least 1, got 0" in capsys.readouterr().err
    (tmp_path / "small.toml").write_text(SMALL)
    words = [str(tmp_path / "small.toml"), "--set", "train.batch_size=0"]
    words += ["--set", "energy.kind=statevector", "--set", "slurm.processes=2"]
    assert main(["estimate", *words]) == 2
    assert "trains in one process" in capsys.readouterr().err


def test_other_commands_have_no_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "config.toml"
    file.write_text(SMALL)
    note_command(tmp_path, "restarts")
    assert main(["estimate", str(file)]) == 2
    message = f"only `train` has an estimate, and {file} is of a folder for `restarts`"
    assert message in capsys.readouterr().err
    said: list[str] = []
    words = ["restarts.count=7", "mpo.max_bond=5", "slurm.processes=2", *WHOLE]
    with pytest.raises(ValueError, match="trains in one process"):
        estimate_run(load_config(file, words), report=said.append)
    begins = "this is an estimate of `hypercircuit train`; "
    assert said == [
        f"{begins}[restarts] is for `hypercircuit restarts`, of which there is none",
        f"{begins}[mpo] is for `hypercircuit compile` (or for energy.kind='mpo'), of which there "
        "is none",
    ]
