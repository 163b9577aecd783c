"""A run's folder is held by one process at a time, and what the others are told."""

import dataclasses
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hypercircuit import run
from hypercircuit._locks import Busy, FileLock, NoLocks, holder
from hypercircuit._run_lock import hold_run, run_holder
from hypercircuit.cli import main
from hypercircuit.config import Config, ConfigError
from hypercircuit.run import train_run
from hypercircuit.run_sweep import read_sweep, run_member
from hypercircuit.study.members import member_state
from test_run import changed
from test_sweep import CONFIG, write_points

HOLD = """
import sys, time
from pathlib import Path
from hypercircuit._run_lock import hold_run
with hold_run(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    write_points(tmp_path / "points.npz")
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_lock_of_another_process_ends_with_it(tmp_path: Path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        words = f"process {process.pid} on {os.uname().nodename}"
        assert run_holder(folder) == words
        with pytest.raises(Busy, match=f"run is in use by {words}; wait for its end"):
            train_run(changed(), folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run_holder(folder) is None
    assert files(folder) == ["run.lock"]
    with hold_run(folder, print):
        assert f"process {os.getpid()} on" in (run_holder(folder) or "")


@pytest.mark.parametrize("command", ["train", "restarts", "compile"])
def test_commands_are_refused_and_change_nothing(work: Path, command: str, capsys):
    with hold_run(work / "out", print):
        assert main([command, "tiny.toml", "--out", "out"]) == 2
    assert f"out is in use by process {os.getpid()} on" in capsys.readouterr().err
    assert files(work / "out") == ["run.lock"]


def test_folder_that_was_taken_while_the_data_were_read(tmp_path: Path, monkeypatch):
    """By a run of the same settings, which finished, or of others, which did not."""
    config, result = changed(), {"status": "finished", "energy": 0.25}
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=7))
    original = run.compile_loss

    def taken_by(folder: Path, theirs: Config) -> None:
        def compile_loss(*args, **options):
            folder.mkdir()
            (folder / "config.toml").write_text(theirs.to_toml())
            if theirs is config:
                (folder / "result.json").write_text(json.dumps(result))
            return original(*args, **options)

        monkeypatch.setattr(run, "compile_loss", compile_loss)

    said: list[str] = []
    taken_by(tmp_path / "same", config)
    assert train_run(config, tmp_path / "same", report=said.append) == result
    assert said[-1] == f"{tmp_path / 'same'} holds a finished run by now"
    taken_by(tmp_path / "other", other)
    with pytest.raises(ConfigError, match=r"other settings: train.seed \(there 7, here 0\)"):
        train_run(config, tmp_path / "other", report=said.append)
    assert (tmp_path / "other" / "config.toml").read_text() == other.to_toml()


def test_run_without_locks_goes_on_and_says_so(tmp_path: Path, monkeypatch):
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    with hold_run(tmp_path / "run", said.append):
        assert run_holder(tmp_path / "run") is None
    assert "run.lock cannot be locked ([Errno 37] No locks available)" in said[0]
    assert "make sure that nothing else works there" in said[0]
    with pytest.raises(NoLocks):
        holder(tmp_path / "run" / "run.lock")


def test_file_of_another_user_is_named(tmp_path: Path, monkeypatch):
    def refused(path: str, *rest: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refused)
    with (
        pytest.raises(NoLocks, match=r"run.lock cannot be opened for writing \(Permission denied"),
        FileLock(tmp_path / "run.lock", "in use"),
    ):
        pass
    assert run_holder(tmp_path) is None


def test_member_that_a_plain_run_holds_is_running(work: Path):
    """The sweep leaves it alone, and does not call it failed."""
    assert main(["sweep", "tiny.toml", "--grid", "train.seed=0:2", "--out", "s", "--dry-run"]) == 0
    assert main(["submit", "tiny.toml", "--grid", "train.seed=0:2", "--out", "s", "--dry-run"]) == 0
    member = read_sweep("s")[0]
    with hold_run(member.folder, print):
        state = member_state(member.folder)
        assert (state.status, state.attempts) == ("running", 0)
        assert f"process {os.getpid()}" in state.message
        with pytest.raises(Busy, match="is in use by process"):
            run_member("s", 0)
    assert not (member.folder / "outcome.json").exists()
    assert member_state(member.folder).status == "waiting"


def test_run_outside_of_the_queue_is_seen(work: Path, capsys):
    """`status` says that it runs, `submit` leaves it alone."""
    assert main(["submit", "tiny.toml", "--out", "out", "--dry-run"]) == 0
    capsys.readouterr()
    with hold_run(work / "out", print):
        assert main(["status", "out"]) == 0
        assert re.search(r"^out +running ", capsys.readouterr().out, re.MULTILINE)
        assert main(["submit", "out", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert f"it is in use by process {os.getpid()}" in told.out + told.err
    assert "#SBATCH" not in told.out
