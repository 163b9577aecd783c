"""Runs and sweeps on a real Slurm: submitted, signalled, killed, cancelled, submitted again.

One cluster serves the module; its two nodes run one job each.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from hypercircuit.cli import main
from hypercircuit.cluster import JobScript
from hypercircuit.run_submit import folder_states
from hypercircuit.run_sweep import read_sweep
from slurm_cluster import ENDED, HOSTS, NODES, Cluster, processes_of, slurm_cluster, why_not
from test_sweep import CONFIG, write_points

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or "Slurm is here"),
]
#: Long enough to be met at work, short enough to wait for.
STEPS = 20000
MANY = 200
#: Of a run that two nodes share; so short that rounding does not grow.
SHARED = [
    "energy.kind=exact",
    "circuit.depth=2",
    "train.batch_size=21",
    "train.steps=1500",
    "train.checkpoint_every=300",
    "train.evaluate_every=500",
    "train.precision=float64",
    "optimiser.name=sgd",
    "optimiser.learning_rate=0.05",
]
LONG = [f"train.steps={STEPS}", "train.checkpoint_every=500", "train.evaluate_every=7000"]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("slurm")
    hosts = HOSTS.read_text()
    try:
        with slurm_cluster(folder) as cluster:
            yield cluster
    finally:
        left = processes_of(folder)
    assert not left, f"the cluster left the processes {left}"
    assert str(folder) not in HOSTS.read_text()
    assert HOSTS.read_text().startswith(hosts.rstrip())


@pytest.fixture
def cluster(
    started: Cluster, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    """The cluster for this process's commands, and its jobs, which share what they compile."""
    for name, value in started.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cache = tmp_path_factory.getbasetemp() / "slurm-compiled"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and its data."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.toml").write_text(CONFIG)
    write_points(folder / "points.npz")
    return folder


@pytest.fixture
def work(folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, the current one, in which an undisturbed run is on its way as a job."""
    monkeypatch.chdir(folder)
    if not (folder / "undisturbed").exists():
        assert main(["submit", "tiny.toml", "--out", "undisturbed", *settings(*LONG)]) == 0
    return folder


def wait_for(found, what: str, cluster: Cluster, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"no {what}\n{cluster.states()}\n{cluster.logs()}"
        time.sleep(0.05)


def sbatch(cluster: Cluster, script: str, folder: Path) -> str:
    """Submit a script as a user does, without anything of ours."""
    (folder / "script.sh").write_text(script)
    return cluster.run("sbatch", "--parsable", str(folder / "script.sh")).strip()


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def assert_undisturbed(folder: Path, other: Path, cluster: Cluster) -> None:
    """Two runs end in the same bits: parameters, optimiser, best so far, history, result."""
    cluster.wait(*(path.stem for path in (other / "slurm").glob("*.json")))
    states = []
    for each in (folder, other):
        with np.load(each / "checkpoints" / f"checkpoint-{STEPS:08d}.npz") as arrays:
            states.append({name: arrays[name] for name in arrays if name.startswith("state/")})
    assert states[0].keys() == states[1].keys()
    assert len(states[0]) > 4
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)
    histories = [
        np.loadtxt(each / "history.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
        for each in (folder, other)
    ]
    assert histories[0].shape == (STEPS, 3)
    np.testing.assert_array_equal(*histories)
    texts = [(each / "evaluations.csv").read_text() for each in (folder, other)]
    assert texts[0] == texts[1]
    results = [json.loads((each / "result.json").read_text()) for each in (folder, other)]
    for result in results:
        for name in [name for name in result if "seconds" in name]:
            del result[name]
    assert results[0] == results[1]


# ---------------------------------------------------------------- the cluster itself


def test_two_nodes_run_one_task_each(cluster: Cluster):
    said = cluster.run("srun", "-N2", "-n2", "bash", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME")
    assert sorted(said.split("\n")) == ["", *(f"{rank} {name}" for rank, name in enumerate(NODES))]


def test_daemons_run_while_the_cluster_is_up(cluster: Cluster):
    assert set(cluster.daemons.values()) <= set(processes_of(cluster.folder))


# ---------------------------------------------------------------- the job script


def script(command: str, folder: Path, requeues: int = 1) -> str:
    options = {"requeue": True, "open-mode": "append", "output": str(folder / "said")}
    return JobScript(options, ("export GREETING=hello",), command, requeues).text()


def said(folder: Path) -> str:
    path = folder / "said"
    return path.read_text() if path.exists() else ""


def test_command_that_a_signal_ends_before_it_listens_runs_again(cluster: Cluster, tmp_path: Path):
    again = "bash -c 'echo $GREETING; test -n \"$SLURM_RESTART_COUNT\" || exec sleep 200'"
    job = sbatch(cluster, script(again, tmp_path), tmp_path)
    wait_for(lambda: "hello" in said(tmp_path), "start", cluster)
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    assert cluster.wait(job) == {job: "COMPLETED"}
    lines = said(tmp_path).splitlines()
    # What follows, that it goes back to the queue, may be cut off by its doing so.
    assert lines[2] == f"job {job} ends with exit code 75"
    assert lines[-1] == f"job {job} ends with exit code 0"


def test_job_is_requeued_a_limited_number_of_times(cluster: Cluster, tmp_path: Path):
    job = sbatch(cluster, script("bash -c 'exit 75'", tmp_path), tmp_path)
    assert cluster.wait(job) == {job: "FAILED"}
    assert said(tmp_path).count("ends with exit code 75") == 2
    assert f"job {job} has been started 2 times; submit it again" in said(tmp_path)


def test_cancelled_job_stays_cancelled(cluster: Cluster, tmp_path: Path):
    patient = "bash -c 'trap \"exit 75\" TERM; echo $GREETING; sleep 200 & wait'"
    job = sbatch(cluster, script(patient, tmp_path), tmp_path)
    wait_for(lambda: "hello" in said(tmp_path), "start", cluster)
    cluster.run("scancel", job)
    assert cluster.wait(job) == {job: "CANCELLED"}
    assert "goes back" not in said(tmp_path)


def test_only_one_task_of_an_array_is_requeued(cluster: Cluster, tmp_path: Path):
    """The last task started has the array's own number for its SLURM_JOB_ID."""
    command = "bash -c '[ \"$SLURM_RESTART_COUNT$SLURM_ARRAY_TASK_ID\" != 4 ] || exit 75'"
    text = script(command, tmp_path).replace("#SBATCH", "#SBATCH --array=2,4\n#SBATCH", 1)
    job = sbatch(cluster, text, tmp_path)
    assert cluster.wait(job) == {f"{job}_2": "COMPLETED", f"{job}_4": "COMPLETED"}
    assert said(tmp_path).count(f"job {job}_4 on") == 2
    assert said(tmp_path).count(f"job {job}_2 on") == 1


# ---------------------------------------------------------------- runs


def test_signalled_and_requeued_run_is_the_undisturbed_one(work: Path, cluster: Cluster, capsys):
    """By the script of --dry-run, given to sbatch as it is."""
    assert main(["submit", "tiny.toml", "--out", "run", "--dry-run", *settings(*LONG)]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=run\n")
    job = sbatch(cluster, script, work)
    wait_for(lambda: list((work / "run" / "checkpoints").glob("*.npz")), "checkpoint", cluster)
    (state,), _ = folder_states("run")
    assert (state.status, state.last_job, state.node in NODES) == ("running", job, True)
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    result = work / "run" / "result.json"
    wait_for(result.exists, "interrupted result", cluster)
    stopped = json.loads(result.read_text())
    assert stopped["status"] == "interrupted"
    assert 500 < stopped["steps"] < STEPS
    # Waiting to start again it is not submitted a second time.
    assert main(["submit", "run"]) == 0
    assert f"not submitted: it is in the queue as job {job}" in capsys.readouterr().out
    assert cluster.wait(job) == {job: "COMPLETED"}
    log = (work / "run" / "slurm" / f"{job}.txt").read_text()
    assert re.search(rf"stopped by SIGUSR1 after step {stopped['steps']}\n", log)
    assert [int(start) for start in re.findall(r"start (\d)", log)] == [1, 2]

    assert_undisturbed(work / "run", work / "undisturbed", cluster)
    assert main(["status", "run"]) == 0
    words = capsys.readouterr().out.splitlines()[-1].split()
    assert words[:2] == ["run", "finished"]
    assert words[-2] == f"{STEPS}/{STEPS}"


def test_run_over_two_nodes_is_that_of_one_process(work: Path, cluster: Cluster, capsys):
    """Submitted, signalled, requeued; the one process computes without Slurm."""
    same = settings(*SHARED)
    command = ["submit", "tiny.toml", "--out", "nodes", *same]
    assert main([*command, *settings("slurm.processes=2", "slurm.nodes=2")]) == 0
    job, *_ = re.findall(r"job (\d+): train", capsys.readouterr().out)
    wait_for(lambda: list((work / "nodes" / "checkpoints").glob("*.npz")), "checkpoint", cluster)
    cluster.run("scancel", "--signal=TERM", "--batch", job)
    with jax.enable_x64(True):
        assert main(["train", "tiny.toml", "--out", "alone", *same]) == 0
    assert cluster.wait(job) == {job: "COMPLETED"}
    log = (work / "nodes" / "slurm" / f"{job}.txt").read_text()
    assert len(re.findall(r"stopped by SIGUSR1 after step \d+\n", log)) == 1
    assert [int(start) for start in re.findall(r"start (\d)", log)] == [1, 2]
    results = [json.loads((work / each / "result.json").read_text()) for each in ("nodes", "alone")]
    assert [result["processes"] for result in results] == [2, 1]
    for name in ("energy", "best_loss", "test_accuracy"):
        assert results[0][name] == pytest.approx(results[1][name], abs=1e-8), name
    energies = [
        np.loadtxt(work / each / "history.csv", delimiter=",", skiprows=1, usecols=1)
        for each in ("nodes", "alone")
    ]
    np.testing.assert_allclose(*energies, atol=1e-8)


def test_srun_with_another_number_of_processes_is_refused(cluster: Cluster, work: Path):
    command = [sys.executable, "-m", "hypercircuit.cli", "train", "tiny.toml", "--out", "wrong"]
    done = subprocess.run(
        ["srun", "-n2", *command, "--processes", "3"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "number of processes must be 3 (--processes), got 2" in done.stderr
    assert not (work / "wrong").exists()


# ---------------------------------------------------------------- sweeps


def test_killed_member_of_an_array_is_submitted_alone(cluster: Cluster, work: Path, capsys):
    """Of two members one is killed with -9 while it trains; submitted again it loses little."""
    axes = ["--zip", "train.seed=1,0", "--zip", f"train.steps=9,{STEPS}"]
    command = ["submit", "tiny.toml", "--out", "sweep", *axes, *settings(*LONG[1:])]
    assert (
        main([*command, *settings("slurm.parallel=2", "slurm.time=30", "slurm.memory=1000")]) == 0
    )
    first, *_ = re.findall(r"job (\d+): 2 members", capsys.readouterr().out)
    kept = (work / "sweep" / "slurm" / f"{first}_submission.sh").read_text()
    for option in ("array=0-1%2", "time=30", "mem=1000", "signal=B:USR1@120", "cpus-per-task=1"):
        assert f"#SBATCH --{option}\n" in kept
    assert main(["submit", "sweep"]) == 0
    assert "not submitted: 2 run or are in the queue" in capsys.readouterr().out

    short, long = (member.folder for member in read_sweep("sweep"))
    wait_for(lambda: list((long / "checkpoints").glob("*.npz")), "checkpoint", cluster)
    assert main(["status", "sweep"]) == 0
    running = next(
        line.split() for line in capsys.readouterr().out.splitlines() if long.name in line
    )
    assert running[1:4] == ["running", "running", f"{first}_1"]
    assert running[4] in NODES
    assert running[5].endswith(f"/{STEPS}")
    os.kill(json.loads((long / "attempt.json").read_text())["pid"], signal.SIGKILL)
    states = cluster.wait(first)
    assert states == {f"{first}_0": "COMPLETED", f"{first}_1": "FAILED"}
    finished = (short / "result.json").stat().st_mtime_ns
    assert main(["status", "sweep"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("2 members: 1 finished, 1 killed\n")
    assert "ended without a word" in shown
    lost_from = max(int(path.stem[-8:]) for path in (long / "checkpoints").glob("*.npz"))

    assert main(["submit", "sweep"]) == 0
    out = capsys.readouterr().out
    assert "not submitted: 1 have ended" in out
    second, *_ = re.findall(r"job (\d+): 1 members", out)
    kept = (work / "sweep" / "slurm" / f"{second}_submission.sh").read_text()
    assert "#SBATCH --array=1%2\n" in kept
    assert cluster.wait(second) == {f"{second}_1": "COMPLETED"}
    assert (short / "result.json").stat().st_mtime_ns == finished
    assert lost_from % 500 == 0
    assert lost_from > 0

    assert_undisturbed(long, work / "undisturbed", cluster)
    assert main(["submit", "sweep"]) == 0
    assert "not submitted: 2 have ended" in capsys.readouterr().out


def test_settings_that_the_cluster_refuses_are_told(cluster: Cluster, work: Path, capsys):
    command = ["submit", "tiny.toml", "--out", "refused", *settings("slurm.partition=none")]
    assert main(command) == 2
    assert "sbatch refused the job: " in (told := capsys.readouterr().err)
    assert "invalid partition" in told.lower()


@pytest.mark.slow
def test_none_of_many_members_is_lost(work: Path, cluster: Cluster, capsys):
    """Of 200 members some fail, some are killed, some are told to stop, and some hang before they
    start until Slurm's time limit ends them; submitted again, all 200 finish."""
    broken = {number for number in range(MANY) if number % 20 == 7}
    told = {number for number in range(MANY) if number % 40 == 13}
    hung = {number for number in range(MANY) if number % 60 == 29}
    killed = {number for number in range(MANY) if number % 25 == 3} - broken - told - hung
    (work / "later.npz").write_bytes(b"not yet")
    paths = ["later.npz" if number in broken else "points.npz" for number in range(MANY)]
    axes = [f"train.seed=0:{MANY}", f"data.path={','.join(paths)}"]
    zipped = [word for axis in axes for word in ("--zip", axis)]
    limits = settings("slurm.time=3", "slurm.grace=60", "slurm.requeues=0")
    # Deaf, as on a file system that does not answer.
    hang = "trap '' TERM USR1 && while [ ! -e released ]; do sleep 1; done"
    tasks = "|".join(map(str, sorted(hung)))
    setup = f"case $SLURM_ARRAY_TASK_ID in {tasks}) cd {work} && {hang};; esac"
    limits += settings(f"slurm.setup={json.dumps([setup])}")
    assert main(["submit", "tiny.toml", "--out", "many", *zipped, *limits]) == 0
    job, *_ = re.findall(rf"job (\d+): {MANY} members", capsys.readouterr().out)
    members = read_sweep("many")
    waiting = dict.fromkeys(killed, signal.SIGKILL) | dict.fromkeys(told, signal.SIGUSR1)

    def disturb() -> None:
        for number, sent in list(waiting.items()):
            path = members[number].folder / "attempt.json"
            if path.exists():
                del waiting[number]
                os.kill(json.loads(path.read_text())["pid"], sent)

    states = wait_until_ended(cluster, job, disturb)
    expected = ["finished"] * MANY
    for numbers, status in (
        (broken, "failed"),
        (told, "interrupted"),
        (hung, "waiting"),
        (killed, "killed"),
    ):
        for number in numbers:
            expected[number] = status
    assert [member.state().status for member in members] == expected
    assert {states[f"{job}_{number}"] for number in hung} == {"TIMEOUT"}
    # Exactly those without an answer are submitted again, and then there are 200 answers.
    write_points(work / "later.npz")
    (work / "released").touch()
    capsys.readouterr()
    assert main(["submit", "many"]) == 0
    left = broken | told | hung | killed
    again, count = re.findall(r"job (\d+): (\d+) members", capsys.readouterr().out)[0]
    assert int(count) == len(left)
    assert {name for name in cluster.states() if name.startswith(f"{again}_")} == {
        f"{again}_{number}" for number in left
    }
    wait_until_ended(cluster, again, lambda: None)
    assert [member.state().status for member in members] == ["finished"] * MANY
    assert main(["sweep", "table", "many"]) == 0
    with (work / "many" / "table.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [int(row["train.seed"]) for row in rows] == list(range(MANY))
    assert all(np.isfinite(float(row["energy"])) for row in rows)


def wait_until_ended(cluster: Cluster, job: str, meanwhile) -> dict[str, str]:
    """How the members of an array ended; the controller forgets their states after a while."""
    deadline = time.monotonic() + MANY * 60
    seen: dict[str, str] = {}
    while True:
        states = cluster.states()
        now = {name: state for name, state in states.items() if name.startswith(f"{job}_")}
        seen |= now
        if seen and set(now.values()) <= ENDED:
            return seen
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.1)
