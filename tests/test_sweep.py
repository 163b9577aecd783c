"""Sweeps as a user meets them: planned, run in processes, killed, failed, resumed, gathered."""

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from hypercircuit.cli import INTERRUPTED, main
from hypercircuit.run_sweep import read_sweep, resume_sweep, run_member

CONFIG = """
[data]
path = "points.npz"
n_classes = 2
validation = "none"

[network]
outputs = 1

[loss]
kind = "logistic"

[circuit]
depth = 1

[energy]
kind = "statevector"
check_examples = 10

[train]
batch_size = 0
steps = 4
evaluate_every = 4
checkpoint_every = 4

[decode]
samples = 5
beam = 2

[profiles.long.train]
steps = 1000000
evaluate_every = 1000000
checkpoint_every = 1000000
"""


@pytest.fixture(autouse=True)
def _compiled_once(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The members' processes share what they compile."""
    cache = tmp_path_factory.getbasetemp() / "sweeps-compiled"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and its data, the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    write_points(tmp_path / "points.npz")
    return tmp_path


def write_points(path: Path) -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3 % 2
    points = rng.integers(0, 256, (60, 3)) // (1 + labels[:, None])
    np.savez(path, x=points.astype(np.uint8), y=labels)


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------- planned


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "circuit.dept=1,2"], "did you mean 'depth'?"),
        (["--grid", "circuitt.depth=1,2"], "did you mean 'circuit'?"),
        (["--grid", "loss.kind=logistic,hinje"], "did you mean 'hinge'?"),
        (["--grid", "circuit.depth=1,0"], "member 0001-depth0: override 'circuit.depth=0'"),
        (["--grid", "network.hidden=3,4"], "network.hidden must be a list of integers"),
        (["--grid", "optimiser.name=adam,adamm"], "member 0001-nameadamm: "),
        (["--grid", "energy.kind=cumulant,mpo", "--set", "train.batch_size=5"], "0001-kindmpo"),
        (["--grid", "circuit.depth=1,2", "--set", "circuit.depth=3"], "is both set and an axis"),
        (["--grid", "objective.beta=0,0.0"], "0000-beta0 and 0001-beta0.0 are the same run"),
        (["--grid", "circuit.depth=1", "--zip", "circuit.depth=2"], "circuit.depth is given twice"),
        ([], "a sweep needs at least one axis"),
        (["--grid", "circuit.depth=1", "--workers", "0"], "workers must be at least 1, got 0"),
        (["--grid", "circuit.depth=1", "--profile", "none"], "unknown profile 'none'"),
    ],
)
def test_wrong_sweep_is_refused_before_anything_starts(
    arguments: list[str], message: str, work: Path, capsys: pytest.CaptureFixture[str]
):
    assert message in failed(capsys, "sweep", "tiny.toml", *arguments)
    assert not (work / "runs").exists()


def test_dry_run_lists_the_members(work: Path, capsys: pytest.CaptureFixture[str]):
    grid = ["--grid", "circuit.depth=1,2", "--zip", "train.seed=0:2", "--zip", "train.steps=4,5"]
    assert main(["sweep", "tiny.toml", *grid, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0000-depth1-seed0-steps4",
        "0001-depth1-seed1-steps5",
        "0002-depth2-seed0-steps4",
        "0003-depth2-seed1-steps5",
    ]
    assert not (work / "runs").exists()


def test_folders_that_hold_something_else_are_refused(work: Path, capsys, monkeypatch):
    def nothing(folder, *, workers, report):
        return {"waiting": 2}

    command = ["sweep", "tiny.toml", "--out", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("hypercircuit.cli_sweep.resume_sweep", nothing)
        for _ in range(2):
            assert main([*command, "--grid", "circuit.depth=1,2"]) == INTERRUPTED
    assert "it has 2 members, this one 3, and 0002-depth3 is in one of them only" in failed(
        capsys, *command, "--grid", "circuit.depth=1:4"
    )
    assert "train.steps of 0000-depth1 is 4 there and 5 here; choose another --out" in failed(
        capsys, *command, "--grid", "circuit.depth=1,2", "--set", "train.steps=5"
    )
    (work / "run").mkdir()
    (work / "run" / "config.toml").write_text("")
    assert "run belongs to a run; choose another --out" in failed(
        capsys, "sweep", "tiny.toml", "--out", "run", "--grid", "circuit.depth=1,2"
    )
    for action in (["status"], ["resume"], ["table"], ["member"]):
        last = ["0"] if action == ["member"] else []
        assert "is not the folder of a sweep" in failed(capsys, "sweep", *action, "run", *last)
    record = json.loads((work / "out" / "sweep.json").read_text())
    assert record["base"]["text"] == CONFIG
    assert record["grid"] == [{"key": "circuit.depth", "values": ["1", "2"]}]
    assert record["versions"]["jax"]
    (work / "out" / "sweep.json").write_text(json.dumps(record | {"format": 2}))
    assert "has the format 2, this version reads 1" in failed(capsys, "sweep", "status", "out")
    (work / "out" / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="the member must be 0 to 1, got 2"):
        run_member("out", 2)


# ---------------------------------------------------------------- run


def test_members_fail_are_killed_and_resumed_alone(work: Path, capsys):
    """Of four members one is killed with -9 and one finds no data; the others finish."""
    axes = ["--zip", "train.seed=0:4", "--zip", "data.path=" + 3 * "points.npz," + "later.npz"]
    attempt = work / "out" / "members" / "0000-seed0-pathpoints.npz" / "attempt.json"

    def kill() -> None:
        while not attempt.exists():
            time.sleep(0.01)
        os.kill(json.loads(attempt.read_text())["pid"], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    assert main(["sweep", "tiny.toml", *axes, "--out", "out", "--workers", "2"]) == 1
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == "4 members, 4 to run in 2 processes"
    assert [line.partition(" ")[0] for line in lines[1:5]] == ["1/4", "2/4", "3/4", "4/4"]
    assert lines[5:] == ["2 finished, 1 failed, 1 killed; table in out/table.csv"]

    assert main(["sweep", "status", "out"]) == 0
    status = capsys.readouterr().out
    assert "4 members: 2 finished, 1 failed, 1 killed" in status
    assert "0000-seed0-pathpoints.npz  killed\n    killed by SIGKILL: out of memory" in status
    assert "0003-seed3-pathlater.npz  failed\n" in status
    assert "later.npz" in status.split("failed\n")[1]
    table = pyarrow.parquet.read_table(work / "out" / "table.parquet").to_pylist()
    assert [row["status"] for row in table] == ["killed", "finished", "finished", "failed"]
    assert [row["energy"] is None for row in table] == [True, False, False, True]
    assert "later.npz" in table[3]["error"]

    write_points(work / "later.npz")
    said_now: list[str] = []
    before = (work / "out/members/0001-seed1-pathpoints.npz/result.json").stat().st_mtime_ns
    counts = resume_sweep("out", workers=2, report=said_now.append)
    assert counts == {"finished": 4}
    assert said_now[0] == "4 members, 2 to run in 2 processes, 2 have ended or are running"
    after = (work / "out/members/0001-seed1-pathpoints.npz/result.json").stat().st_mtime_ns
    assert after == before
    table = pyarrow.parquet.read_table(work / "out" / "table.parquet").to_pylist()
    assert [row["attempts"] for row in table] == [2, 1, 1, 2]
    for member, row in zip(read_sweep("out"), table, strict=True):
        result = json.loads((member.folder / "result.json").read_text())
        assert row["member"] == row["train.seed"] == result["seed"] == member.number
        assert row["data.path"] == str(work / ("later.npz" if member.number == 3 else "points.npz"))
        assert row["energy"] == result["energy"]
        assert row["best.test_loss"] == result["best"]["test_loss"]
        assert row["unit"] == "nats"
    # The same data by another name, another seed: the runs are different ones.
    assert len({row["energy"] for row in table}) > 1
    with open(work / "out" / "table.csv", newline="") as file:
        assert [float(row["energy"]) for row in csv.DictReader(file)] == [
            row["energy"] for row in table
        ]
    assert run_member("out", 0) == "finished"  # at once: it has an answer

    broken, missing, later, diagnosed = (member.folder for member in read_sweep("out"))
    (broken / "result.json").write_text("{\n")
    (missing / "result.json").unlink()
    (diagnosed / "diagnostics.json").write_text("{")
    capsys.readouterr()
    assert main(["sweep", "status", "out"]) == 0
    status = capsys.readouterr().out
    assert "4 members: 2 finished, 2 failed" in status
    assert f"{broken.name}  failed, saved at step 4, attempt 2\n" in status
    assert f"{broken}/result.json cannot be read: Expecting property name" in status
    assert f"{missing}/result.json is missing, though the run finished; run it again" in status
    assert main(["compare", "out", "--axis", "train.seed"]) == 0
    assert "2 of 4 members have no result (2 failed, 2 finished)" in capsys.readouterr().out
    assert main(["report", "out"]) == 0
    page = (work / "out" / "report.html").read_text()
    assert f"{later.name}" in page
    assert "result.json cannot be read" in page
    assert resume_sweep("out", workers=2, report=lambda message: None) == {"finished": 4}
    rows = pyarrow.parquet.read_table(work / "out" / "table.parquet").to_pylist()
    assert [row["energy"] for row in rows] == [row["energy"] for row in table]
    assert "diagnostics.json cannot be read" in rows[3]["error"]


def test_stop_signal_saves_the_members(work: Path, capsys: pytest.CaptureFixture[str]):
    grid = ["--grid", "train.seed=0:3", "--profile", "long"]
    logs = [work / "out" / "members" / f"000{n}-seed{n}" / "log.txt" for n in range(2)]

    def stop() -> None:
        while not all(log.exists() and "\nstep " in log.read_text() for log in logs):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert main(["sweep", "tiny.toml", *grid, "--workers", "2", "--out", "out"]) == INTERRUPTED
    said = capsys.readouterr().out
    assert "2 interrupted" in said
    assert "stopped by SIGTERM; the same command goes on" in said
    members = read_sweep("out")
    assert [member.state().status for member in members] == [
        "interrupted",
        "interrupted",
        "waiting",
    ]
    for member in members[:2]:
        step = member.state().step
        assert step is not None
        assert step >= 1
    assert main(["sweep", "status", "out"]) == 0
    assert "0001-seed1  interrupted, saved at step " in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_of_truncated_states_has_the_columns_that_a_comparison_reads(work: Path):
    state = '\n[state]\nengine = "truncated"\nmax_bond = 2\ndiagnostics = true\n'
    (work / "truncated.toml").write_text(CONFIG.replace("depth = 1", "depth = 6") + state)
    axes = ["--grid", "train.seed=3"]
    assert main(["sweep", "truncated.toml", *axes, "--out", "out", "--workers", "1"]) == 0
    row = pyarrow.parquet.read_table(work / "out" / "table.parquet").to_pylist()[0]
    for name in ("discarded_weight", "max_discarded", "entropy_max", "entropy_mean"):
        assert row[name] >= 0
    assert "energy_error" in row
    assert "diagnostics.max_entropy" not in row
