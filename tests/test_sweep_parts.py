"""The parts of a sweep: grids of settings, files of a member, pools of processes, tables."""

import csv
import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import pyarrow.parquet
import pytest

from hypercircuit._locks import Busy
from hypercircuit.study.grid import Axis, combine, member_folders, parse_axis
from hypercircuit.study.members import (
    begin_attempt,
    end_attempt,
    member_lock,
    member_state,
)
from hypercircuit.study.pool import Job, JobEnd, available_cores, run_pool, worker_environment
from hypercircuit.study.table import flatten, tidy, write_table
from hypercircuit.train import StopSignals

# ---------------------------------------------------------------- grids


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("circuit.depth=2,4,8", ["2", "4", "8"]),
        ("circuit.depth = 2", ["2"]),
        ("train.seed=0:4", ["0", "1", "2", "3"]),
        ("train.seed=7,0:5:2", ["7", "0", "2", "4"]),
        ("train.seed=3:-2:-2", ["3", "1", "-1"]),
        ("loss.kind=softmax, hinge", ["softmax", "hinge"]),
        ('data.path="a,b.npz",c.npz', ['"a,b.npz"', "c.npz"]),
        ("data.path='it\\',d.npz", ["'it\\'", "d.npz"]),
        (r'data.path="say \",\"",b', [r'"say \",\""', "b"]),
        ("data.path=o'clock.npz,b", ["o'clock.npz", "b"]),
        ("network.hidden=[],[3],[3,4]", ["[]", "[3]", "[3,4]"]),
        ("data.rows=[[1,2],[3]],[4]", ["[[1,2],[3]]", "[4]"]),
        (
            'network.choices=[{set="gate",of=[1,2]}],[]',
            ['[{set="gate",of=[1,2]}]', "[]"],
        ),
        ("objective.beta=0.0,1e-3", ["0.0", "1e-3"]),
        ("optimiser.options.b1=0.8,0.9", ["0.8", "0.9"]),
        ("data.path='12:30'", ["'12:30'"]),
    ],
)
def test_axis_is_split_into_values(text: str, values: list[str]):
    axis = parse_axis(text)
    assert axis.values == tuple(values)
    assert axis.key == text.partition("=")[0].strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("circuit.depth", "an axis is section.key=values, got 'circuit.depth'"),
        ("circuit.depth=", "an axis is section.key=values"),
        ("=2", "an axis is section.key=values"),
        ("circuit.depth=2,,4", "has an empty value; leave the comma out"),
        ("circuit.depth=2,", "has an empty value"),
        ("train.seed=0:4:0", "has a range with step 0"),
        ("train.seed=4:0", "the range 4:0 with no integers in it"),
        ("train.seed=0:99999", "the range 0:99999 with 99999 integers in it"),
        ("network.hidden=[3,4", "opens what it does not close; add ']' to it"),
        ('data.path="a,b', "opens what it does not close; add '\"' to it"),
    ],
)
def test_wrong_axis_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace("]", r"\]")):
        parse_axis(text)


def test_grid_combines_and_zip_advances_together():
    grid = [Axis("a.x", ("1", "2"))]
    zipped = [Axis("b.y", ("3", "4")), Axis("b.z", ("5", "6"))]
    assert combine(grid, zipped) == [
        {"a.x": "1", "b.y": "3", "b.z": "5"},
        {"a.x": "1", "b.y": "4", "b.z": "6"},
        {"a.x": "2", "b.y": "3", "b.z": "5"},
        {"a.x": "2", "b.y": "4", "b.z": "6"},
    ]
    assert combine([Axis("a.x", ("1", "2")), Axis("b.y", ("3",))]) == [
        {"a.x": "1", "b.y": "3"},
        {"a.x": "2", "b.y": "3"},
    ]


@pytest.mark.parametrize(
    ("grid", "zipped", "message"),
    [
        ([], [], "a sweep needs at least one axis"),
        ([Axis("a.x", ("1",)), Axis("a.x", ("2",))], [], "a.x is given twice"),
        ([parse_axis("a.x=2,4,2")], [], "a.x has the value 2 twice; leave one of them out"),
        ([parse_axis("a.x=0:3,1")], [], "a.x has the value 1 twice"),
        ([Axis("a.x", ("1",))], [Axis("a.x", ("2",))], "a.x is given twice"),
        ([], [Axis("a.x", ("1",)), Axis("b.y", ("1", "2"))], "must be of one length"),
        (
            [Axis(f"a.x{n}", tuple(map(str, range(101)))) for n in range(2)],
            [],
            "at most 10000 members, got 10201",
        ),
    ],
)
def test_axes_that_do_not_fit_are_refused(grid, zipped, message: str):
    with pytest.raises(ValueError, match=message):
        combine(grid, zipped)


def test_folders_are_numbered_short_and_plain():
    assert member_folders([{"circuit.depth": "4", "train.seed": "0"}]) == ["0000-depth4-seed0"]
    settings = [{"state.max_bond": "4", "mpo.max_bond": value} for value in ("8", "9")]
    assert member_folders(settings)[1] == "0001-state_max_bond4-mpo_max_bond9"
    odd = member_folders([{"data.path": '"/a/für b.npz"', "network.hidden": "[3,4]"}])[0]
    assert odd == "0000-pathf_r_b.npz-hidden3_4"
    long = member_folders([{"data.path": "x" * 200}])[0]
    assert len(long) == 60


# ---------------------------------------------------------------- members


def _hold(folder: Path, held, release) -> None:
    with member_lock(folder):
        begin_attempt(folder)
        held.set()
        release.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)


def test_status_follows_the_files(tmp_path: Path):
    """Waiting, running in another process, killed with it, then again, failed and finished."""
    assert member_state(tmp_path).status == "waiting"
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(60)
    state = member_state(tmp_path)
    assert (state.status, state.attempts, state.ended) == ("running", 1, False)
    assert f"process {process.pid} on " in state.message
    with (
        pytest.raises(Busy, match=f"is being run by process {process.pid}"),
        member_lock(tmp_path),
    ):
        pass
    (tmp_path / "log.txt").write_text("first\n\nthe last words\n")
    release.set()
    process.join(60)
    state = member_state(tmp_path)
    assert state.status == "killed"
    assert "ended without a word" in state.message
    assert state.message.endswith("first\nthe last words")

    with member_lock(tmp_path):
        begin_attempt(tmp_path)
        assert member_state(tmp_path).status == "running"
        end_attempt(tmp_path, "failed", "no such file", 1.5)
    (tmp_path / "checkpoints").mkdir()
    for step in (250, 1000):
        (tmp_path / "checkpoints" / f"checkpoint-{step:08d}.npz").write_bytes(b"")
    state = member_state(tmp_path)
    assert (state.status, state.message, state.attempts, state.step) == (
        "failed",
        "no such file",
        2,
        1000,
    )
    (tmp_path / "result.json").write_text(json.dumps({"status": "finished"}))
    assert member_state(tmp_path).status == "finished"
    assert member_state(tmp_path).ended


def test_diverged_member_is_not_run_again(tmp_path: Path):
    with member_lock(tmp_path):
        begin_attempt(tmp_path)
        end_attempt(tmp_path, "non-finite", "lower optimiser.learning_rate", 1.0)
    assert member_state(tmp_path).ended


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "result.json cannot be read: Expecting property name"),
        ("[1]", "result.json cannot be read: an object is needed"),
        ('{"energy": 0.5}', "result.json does not say how the run ended"),
        (None, "result.json is missing, though the run finished"),
    ],
)
def test_broken_result_is_a_failure_that_names_the_file(
    text: str | None, message: str, tmp_path: Path
):
    with member_lock(tmp_path):
        begin_attempt(tmp_path)
        end_attempt(tmp_path, "finished", "", 1.0)
    file = tmp_path / "result.json"
    if text is not None:
        file.write_text(text)
    state = member_state(tmp_path)
    assert (state.status, state.ended) == ("failed", False)
    assert state.message.startswith(f"{tmp_path}/{message}")
    assert "run it again: `hypercircuit sweep resume`" in state.message
    with member_lock(tmp_path):
        begin_attempt(tmp_path)
        assert not file.exists()
        end_attempt(tmp_path, "failed", "no such file", 1.0)
    assert member_state(tmp_path).message == "no such file"


def test_broken_notes_of_an_attempt_are_none(tmp_path: Path):
    for name in ("attempt.json", "outcome.json"):
        (tmp_path / name).write_text("{")
    assert member_state(tmp_path).status == "waiting"


def test_run_without_an_attempt_is_seen(tmp_path: Path):
    """As `hypercircuit train` in the member's folder leaves it."""
    result = {"status": "interrupted", "message": "stopped by SIGTERM"}
    (tmp_path / "result.json").write_text(json.dumps(result))
    state = member_state(tmp_path)
    assert (state.status, state.message, state.ended) == (
        "interrupted",
        "stopped by SIGTERM",
        False,
    )


# ---------------------------------------------------------------- pools


def python(name: str, code: str, folder: Path) -> Job:
    return Job(name, (sys.executable, "-c", code), folder / f"{name}.txt")


def test_one_jobs_end_is_its_own(tmp_path: Path):
    codes = {
        "killed": "import os; print('here', flush=True); os.kill(os.getpid(), 9)",
        "wrong": "raise SystemExit(3)",
        "aborted": "import os; os.abort()",
        "fine": "import os; print(os.environ['PJRT_NPROC'])",
    }
    jobs = [python(name, code, tmp_path) for name, code in codes.items()]
    seen: list[str] = []
    with StopSignals() as stop:
        ended = run_pool(jobs, workers=3, stop=stop, on_end=lambda end: seen.append(end.name))
    assert seen == [end.name for end in ended]
    found = {end.name: end for end in ended}
    assert {name: end.code for name, end in found.items()} == {
        "killed": -9,
        "wrong": 3,
        "aborted": -6,
        "fine": 0,
    }
    assert found["killed"].describe() == "killed by SIGKILL: out of memory, or by hand"
    assert found["aborted"].describe() == "killed by SIGABRT"
    assert found["wrong"].describe() == "ended with exit code 3"
    assert (tmp_path / "killed.txt").read_text() == "here\n"
    assert int((tmp_path / "fine.txt").read_text()) == max(1, available_cores() // 3)


@pytest.mark.slow
def test_no_job_of_many_is_lost(tmp_path: Path):
    codes = [0, 3, -9, -6]
    ends = [
        "pass",
        "raise SystemExit(3)",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os.abort()",
    ]
    jobs = [python(f"{number}", ends[number * 7 % 4], tmp_path) for number in range(200)]
    with StopSignals() as stop:
        ended = run_pool(jobs, workers=3, stop=stop, on_end=lambda end: None)
    found = {int(end.name): end.code for end in ended}
    assert found == {number: codes[number * 7 % 4] for number in range(200)}


def test_stop_signal_ends_running_jobs_and_starts_no_more(tmp_path: Path):
    patient = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    jobs = [python(f"job{number}", patient, tmp_path) for number in range(3)]

    def stop_when_ready() -> None:
        while not all(
            (tmp_path / f"job{number}.txt").exists()
            and (tmp_path / f"job{number}.txt").read_text() == "ready\n"
            for number in range(2)
        ):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_ready, daemon=True).start()
    ended: list[JobEnd] = []
    with StopSignals() as stop:
        run_pool(jobs, workers=2, stop=stop, on_end=ended.append)
    assert sorted((end.name, end.code) for end in ended) == [("job0", 75), ("job1", 75)]
    assert not (tmp_path / "job2.txt").exists()


def test_pool_without_workers_is_refused():
    with StopSignals() as stop, pytest.raises(ValueError, match="workers must be at least 1, got"):
        run_pool([], workers=0, stop=stop, on_end=print)


def test_error_in_the_callback_leaves_no_process(tmp_path: Path):
    jobs = [
        python("short", "pass", tmp_path),
        python("long", "import os, time; print(os.getpid(), flush=True); time.sleep(60)", tmp_path),
    ]

    def fail(end: JobEnd) -> None:
        while not (tmp_path / "long.txt").read_text():
            pass
        raise ZeroDivisionError

    with StopSignals() as stop, pytest.raises(ZeroDivisionError):
        run_pool(jobs, workers=2, stop=stop, on_end=fail)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "long.txt").read_text()), 0)


def test_workers_share_the_cores_and_keep_lower_limits():
    cores = available_cores()
    found = worker_environment(1, {"HOME": "/x", "OMP_NUM_THREADS": "100000"})
    assert found["OMP_NUM_THREADS"] == found["PJRT_NPROC"] == str(cores)
    assert found["HOME"] == "/x"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in found
    many = worker_environment(10 * cores, {"OMP_NUM_THREADS": "many"})
    assert many["OPENBLAS_NUM_THREADS"] == many["OMP_NUM_THREADS"] == "1"
    assert worker_environment(1, {"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"
    assert float(worker_environment(4, {})["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == 0.225


# ---------------------------------------------------------------- tables


def test_numbers_are_flattened():
    result = {"energy": 0.5, "unit": "nats", "kl": None, "best": {"test": {"n": 3}}, "rows": [1]}
    assert flatten(result) == {"energy": 0.5, "best.test.n": 3}


def test_columns_have_one_type():
    rows = [
        {"a": 1, "b": 1, "c": 1, "d": True, "e": None},
        {"a": 2, "b": 0.5, "c": "x", "d": False, "f": "only here"},
    ]
    assert tidy(rows) == [
        {"a": 1, "b": 1.0, "c": "1", "d": True, "e": None, "f": None},
        {"a": 2, "b": 0.5, "c": "x", "d": False, "e": None, "f": "only here"},
    ]


def test_table_is_written_and_read_back(tmp_path: Path):
    rows = [
        {"member": 0, "status": "finished", "energy": 0.25, "error": None},
        {"member": 1, "status": "failed", "error": 'says "no",\nthen ends'},
    ]
    written = write_table(rows, tmp_path / "table")
    table = pyarrow.parquet.read_table(tmp_path / "table.parquet")
    assert table.to_pylist() == written
    assert [str(kind) for kind in table.schema.types] == ["int64", "string", "double", "string"]
    with open(tmp_path / "table.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["energy"] for row in read] == ["0.25", ""]
    assert read[1]["error"] == rows[1]["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.parquet"]


def test_empty_table_is_written(tmp_path: Path):
    assert write_table([], tmp_path / "table") == []
    assert pyarrow.parquet.read_table(tmp_path / "table.parquet").num_rows == 0
