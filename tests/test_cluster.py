"""Jobs without a cluster: scripts, settings, what is submitted, what the queue says."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hypercircuit import run_submit
from hypercircuit.cli import INTERRUPTED, main
from hypercircuit.cluster import (
    JobScript,
    NoSlurm,
    QueuedJob,
    Submission,
    array_text,
    endings,
    queued_jobs,
    read_submissions,
    submission_lock,
    write_submission,
)
from hypercircuit.config import ConfigError, SlurmConfig, load_config
from hypercircuit.run_submit import describe_states, folder_states, plan_jobs
from hypercircuit.run_sweep import read_sweep
from hypercircuit.study.members import begin_attempt, end_attempt, member_lock
from hypercircuit.train import stop_where_nothing_is_lost
from test_sweep import CONFIG, write_points


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    write_points(tmp_path / "points.npz")
    return tmp_path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found; `stand_in` puts some there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def stand_in(folder: Path, name: str, says: str, code: int = 0) -> None:
    """A program that says always the same."""
    path = folder / name
    lines = f"while read -r line; do echo \"$line\"; done <<'END'\n{says}\nEND\n" if says else ""
    path.write_text(f"#!/bin/sh\n{lines}exit {code}\n")
    path.chmod(0o755)


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["submit", *arguments, "--dry-run"]) == 0
    return capsys.readouterr().out


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------- scripts


@pytest.mark.parametrize(
    ("indices", "parallel", "text"),
    [
        ([0, 1, 2, 3], 0, "0-3"),
        ([7, 0, 2, 1], 0, "0-2,7"),
        ([5], 3, "5%3"),
        ([9, 3, 4], 2, "3-4,9%2"),
        (range(1000), 16, "0-999%16"),
    ],
)
def test_array_names_the_indices(indices, parallel: int, text: str):
    assert array_text(indices, parallel) == text


def test_script_is_shell_with_quoted_options():
    options = {"job-name": "a b", "requeue": True, "exclusive": False, "nice": 5}
    text = JobScript(options, ("module load cuda",), "python x.py", 3).text()
    assert text.startswith(
        "#!/bin/bash\n#SBATCH --job-name='a b'\n#SBATCH --requeue\n#SBATCH --nice=5\n\n"
    )
    assert "\nmodule load cuda\n" in text
    assert "exclusive" not in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("bash -c 'exit 3'", 3)])
def test_script_ends_as_its_command_does(command: str, code: int):
    text = JobScript({}, (), command, 0).text()
    environment = os.environ | {"SLURM_JOB_ID": "4"}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True)
    assert done.returncode == code
    assert f"job 4 ends with exit code {code}\n" in done.stdout


def run_script(
    tmp_path: Path, text: str, *, signal_after: float | None = None
) -> tuple[int, str, bool]:
    """Exit code, what it printed, and whether it asked to be requeued."""
    for name, says in (("squeue", "echo RUNNING"), ("scontrol", f"touch {tmp_path}/requeued")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"SLURM_JOB_ID": "4", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = subprocess.Popen(["bash", "-c", text], env=environment, stdout=subprocess.PIPE, text=True)
    if signal_after is not None:
        time.sleep(signal_after)
        job.send_signal(signal.SIGUSR1)
    printed, _ = job.communicate(timeout=60)
    return job.returncode, printed, (tmp_path / "requeued").exists()


@pytest.mark.parametrize("setup", [(), ("set -euo pipefail",)])
def test_interrupted_commands_are_requeued_whatever_the_setup_sets(tmp_path: Path, setup):
    text = JobScript({}, setup, "bash -c 'exit 75'", 3).text()
    code, printed, requeued = run_script(tmp_path, text)
    assert (code, requeued) == (75, True)
    assert "job 4 goes back to the queue" in printed


def test_signal_during_the_setup_requeues_before_anything_starts(tmp_path: Path):
    text = JobScript({}, ("sleep 2",), f"touch {tmp_path}/started", 3).text()
    code, _, requeued = run_script(tmp_path, text, signal_after=0.7)
    assert (code, requeued) == (75, True)
    assert not (tmp_path / "started").exists()


def test_every_setting_reaches_the_script(work: Path, capsys):
    values = {
        "partition": "long",
        "account": "physics",
        "qos": "low",
        "constraint": "avx512",
        "time": "2-12:00",
        "memory": "16G",
        "cpus": "4",
        "gpus": "2",
        "gpu_type": "a100",
        "setup": '["module load cuda", "export X=1"]',
        "python": "apptainer exec --nv image.sif python",
        "grace": "300",
        "requeues": "7",
        "options": '{ nice = 10, exclusive = true, "mail-type" = "END" }',
    }
    settings = [word for key in values for word in ("--set", f"slurm.{key}={values[key]}")]
    text = dry_run(capsys, "tiny.toml", "--out", "out", *settings)
    head, _, body = text.partition("\n\n")
    assert head.splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=out",
        "#SBATCH --partition=long",
        "#SBATCH --account=physics",
        "#SBATCH --qos=low",
        "#SBATCH --constraint=avx512",
        "#SBATCH --time=2-12:00",
        "#SBATCH --mem=16G",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --gpus-per-node=a100:2",
        "#SBATCH --signal=B:USR1@300",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={work}/out/slurm/%j.txt",
        f"#SBATCH --comment='hypercircuit 0 {work}/out'",
        "#SBATCH --nice=10",
        "#SBATCH --exclusive",
        "#SBATCH --mail-type=END",
    ]
    assert "\nmodule load cuda\nexport X=1\n" in body
    assert (
        "exec apptainer exec --nv image.sif python -m hypercircuit.cli train "
        f"{work}/out/config.toml --out {work}/out\n"
    ) in body
    assert "-ge 7 ]" in body
    assert (work / "out" / "slurm").is_dir()  # Slurm makes no folders


def test_run_of_several_processes(work: Path, capsys):
    wanted = ("processes=4", "nodes=2", "cpus=3", "gpus=1", "python=py")
    settings = [word for each in wanted for word in ("--set", f"slurm.{each}")]
    whole = failed(capsys, "submit", "tiny.toml", "--out", "whole", "--dry-run", *settings)
    assert "energy.kind='statevector' is the energy of all the examples at once" in whole
    exact = ("--set", "energy.kind=exact")
    text = dry_run(capsys, "tiny.toml", "--out", "out", *exact, *settings)
    for option in ("nodes=2", "ntasks=4", "cpus-per-task=3", "gpus-per-task=1"):
        assert f"#SBATCH --{option}\n" in text
    assert (
        "exec srun --ntasks=4 --cpus-per-task=3 --kill-on-bad-exit=0 py -m hypercircuit.cli train "
        f"{work}/out/config.toml --out {work}/out --processes 4\n"
    ) in text
    assert "    asked=USR1\n" in text
    text = dry_run(capsys, "tiny.toml", "--out", "out", *exact, "--set", "slurm.processes=2")
    assert "--nodes" not in text
    swept = (
        "submit",
        "tiny.toml",
        "--dry-run",
        "--grid",
        "train.seed=0:2",
        "--set",
        "slurm.processes=2",
    )
    assert "every member of a sweep is one process" in failed(capsys, *swept)


def test_no_requeue_and_other_commands(work: Path, capsys):
    text = dry_run(capsys, "tiny.toml", "--command", "restarts", "--set", "slurm.requeues=0")
    assert "#SBATCH --no-requeue\n" in text
    assert f"hypercircuit.cli restarts {work}/runs/tiny-restarts/config.toml" in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("time=soon", "slurm.time must be minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S, got 'soon'"),
        ("time=1:2", 'for example "12:00:00"'),
        ("memory=lots", "slurm.memory must be a number with K, M, G or T, got 'lots'"),
        ("memory=1", "slurm.memory must be at least 256M, got '1'; a number without a unit is one"),
        ("memory=2000K", "slurm.memory must be at least 256M, got '2000K'"),
        ("gpu_type=a100", "slurm.gpu_type='a100' is used only with slurm.gpus above 0"),
        ("grace=1", "slurm.grace must be at least 10"),
        ("cpus=0", "slurm.cpus must be at least 1"),
        ("options={ array = 3 }", "slurm.options must leave 'array' to hypercircuit"),
        ("options={ mem = 3 }", "set slurm.memory"),
        ("options={ ntasks = 3 }", "set slurm.processes"),
        ("nodes=2", "slurm.nodes must be at most slurm.processes=1, got 2"),
        ("options={ xy = [1] }", "slurm.options.xy must be a string, number or true, got [1]"),
        ("options={ n = 4 }", "slurm.options must have long names as sbatch writes them, got 'n'"),
        ("options={ comment = 'x' }", "by it the queue's jobs are known"),
        ("options={ gres = 'gpu:1' }", "set slurm.gpus"),
        ("time=3", "slurm.time must be more than slurm.grace=120 s and the 60 s"),
        ("python=OMP_NUM_THREADS=1 python", "write 'env OMP_NUM_THREADS=1 python'"),
        ("tme=5", "did you mean 'time'?"),
    ],
)
def test_wrong_settings_are_refused(setting: str, message: str, work: Path, capsys):
    assert message in failed(capsys, "submit", "tiny.toml", "--set", f"slurm.{setting}")
    assert not (work / "runs").exists()


def test_slurm_decides_nothing_of_a_run(work: Path, capsys):
    """The same folder takes other times and partitions, and no sweep goes over them."""
    dry_run(capsys, "tiny.toml", "--out", "out", "--set", "slurm.time=10")
    text = dry_run(capsys, "tiny.toml", "--out", "out", "--set", "slurm.time=20")
    assert "--time=20\n" in text
    assert load_config("out/config.toml").slurm.time == "20"
    sweep = ("tiny.toml", "--grid", "train.seed=0:2", "--out", "swept")
    dry_run(capsys, *sweep, "--set", "slurm.time=10")
    members = read_sweep("swept")
    (members[0].folder / "result.json").write_text('{"status": "finished"}')
    text = dry_run(capsys, *sweep, "--set", "slurm.time=20", "--set", "slurm.partition=long")
    assert "--time=20\n" in text
    assert "--partition=long\n" in text
    times = [load_config(member.folder / "config.toml").slurm.time for member in members]
    assert times == ["10", "20"]
    assert "with other settings" in failed(
        capsys, "submit", "tiny.toml", "--out", "out", "--set", "train.steps=5", "--dry-run"
    )
    assert "are the same run" in failed(
        capsys, "submit", "tiny.toml", "--grid", "slurm.time=10,20", "--out", "sweep"
    )
    one, other = (
        load_config("tiny.toml"),
        load_config("tiny.toml", ["slurm.cpus=2", "train.seed=4"]),
    )
    assert one.differences(other) == [("train.seed", 0, 4)]


# ---------------------------------------------------------------- what is submitted


def test_members_that_ended_run_or_wait_are_left_out(work: Path, capsys, programs: Path):
    text = dry_run(capsys, "tiny.toml", "--grid", "train.seed=0:7", "--out", "sweep")
    assert "#SBATCH --array=0-6\n" in text
    assert f'sweep member {work}/sweep "$SLURM_ARRAY_TASK_ID"\n' in text
    members = read_sweep("sweep")
    (members[1].folder / "result.json").write_text('{"status": "finished"}')
    begin_attempt(members[2].folder)  # killed
    begin_attempt(members[3].folder)
    end_attempt(members[3].folder, "failed", "no data", 1.0)
    write_submission(Path("sweep"), Submission("12", "sweep member", "2026-01-02", (0, 3, 4)))
    lines = [
        f"12_4|PENDING||Priority|hypercircuit 0 {work}/sweep",
        f"14_0|RUNNING|n7|None|hypercircuit 0 {work}/sweep",
        f"15_6|RUNNING|n7|None|hypercircuit 0 {work}/another",
        "16|RUNNING|n7|None|(null)",
    ]
    stand_in(programs, "squeue", "\n".join(lines))
    with member_lock(members[5].folder):
        plan = plan_jobs("sweep")
    (job,) = plan.jobs
    assert job.tasks == (2, 3, 6)
    assert plan.left_out == "1 have ended, 3 run or are in the queue"
    states, unknown = folder_states("sweep")
    assert unknown == ""
    assert [state.status for state in states] == [
        "waiting", "finished", "killed", "failed", "waiting", "waiting", "waiting",
    ]  # fmt: skip
    assert states[0].job == QueuedJob(
        "14", 0, "RUNNING", "n7", "None", f"hypercircuit 0 {work}/sweep"
    )
    assert [state.last_job for state in states] == ["14_0", "", "", "12_3", "12_4", "", ""]
    stand_in(programs, "sacct", "12_3|OUT_OF_MEMORY\n12_4|PENDING")
    shown = describe_states("sweep")
    assert shown.startswith(
        "7 members: 1 finished, 4 waiting, 1 failed, 1 killed, 1 of them in the"
    )
    assert "    Slurm: OUT_OF_MEMORY\n    no data\n" in shown
    assert "    waits: Priority\n" in shown


def test_members_in_the_queue_again_wait(work: Path, capsys, programs: Path, monkeypatch):
    dry_run(capsys, "tiny.toml", "--grid", "train.seed=0:2", "--out", "sweep")
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    for member in read_sweep("sweep"):
        begin_attempt(member.folder)
        end_attempt(member.folder, "failed", "no data", 1.0)
    lines = [
        f"12_0|PENDING||Resources|hypercircuit 0 {work}/sweep",
        f"12_1|RUNNING|n2|None|hypercircuit 0 {work}/sweep",
    ]
    stand_in(programs, "squeue", "\n".join(lines))
    states, _ = folder_states("sweep")
    assert [(state.status, state.node) for state in states] == [("waiting", ""), ("waiting", "n2")]
    words = [line.split() for line in describe_states("sweep").splitlines()]
    assert describe_states("sweep").startswith("2 members: 2 waiting, 1 of them in the queue\n")
    assert words[2] == ["0000-seed0", "waiting", "pending", "12_0", "-", "-", "-"]
    assert words[3:5] == [["waits:", "Resources"], ["failed", "before:", "no", "data"]]
    assert words[5][:5] == ["0001-seed1", "waiting", "running", "12_1", "n2"]
    stand_in(programs, "squeue", "")
    assert [(state.status, state.node) for state in folder_states("sweep")[0]] == [
        ("failed", "n7"),
        ("failed", "n7"),
    ]


def test_arrays_are_split_by_size_and_resources(work: Path, capsys, monkeypatch):
    """Slurm's indices end at MaxArraySize, and the jobs of an array have the same resources."""
    monkeypatch.setattr("hypercircuit.run_submit.ARRAY_SIZE", 4)
    axes = ["--zip", "train.seed=0:7", "--zip", "slurm.gpus=0,1,0,0,0,1,0"]
    text = dry_run(capsys, "tiny.toml", *axes, "--out", "sweep")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    scripts = [line.split()[1] for line in text.splitlines() if line.startswith("sbatch ")]
    assert scripts == [f"{work}/sweep/slurm/array_{number}.sh" for number in (1, 2, 3, 4)]
    assert "#SBATCH --array=0,2\n" in Path(scripts[2]).read_text()
    jobs = plan_jobs("sweep", ask_queue=False).jobs
    assert [(job.tasks, job.offset, job.script.options.get("gpus-per-node")) for job in jobs] == [
        ((0, 2, 3), 0, None),
        ((1,), 0, "1"),
        ((0, 2), 4, None),
        ((1,), 4, "1"),
    ]
    assert jobs[2].script.options["array"] == "0,2"
    assert '"$((SLURM_ARRAY_TASK_ID + 4))"' in jobs[2].script.command


def test_run_is_not_submitted_twice(work: Path, capsys, programs: Path):
    dry_run(capsys, "tiny.toml", "--out", "out")
    stand_in(programs, "squeue", f"5|PENDING||Resources|hypercircuit 0 {work}/out")
    plan = plan_jobs("out")
    assert plan.jobs == ()
    assert plan.left_out == "it is in the queue as job 5 (pending)"
    assert "waits: Resources" in describe_states("out")
    stand_in(programs, "squeue", f"5|RUNNING|n2|None|hypercircuit 0 {work}/out")
    assert folder_states("out")[0][0].status == "running"
    (work / "out" / "result.json").write_text('{"status": "finished"}')
    assert plan_jobs("out").left_out == "it has finished"


def test_what_a_run_is_for_is_kept(work: Path, capsys, programs: Path):
    """A script that was only printed is of the command that its folder stands for, too."""
    text = dry_run(capsys, "tiny.toml", "--out", "mpo", "--command", "compile")
    assert "hypercircuit.cli compile" in text
    assert "hypercircuit.cli compile" in dry_run(capsys, "mpo")
    (work / "mpo" / "report.json").write_text('{"format": 1}')
    stand_in(programs, "squeue", "")
    assert folder_states("mpo")[0][0].status == "finished"
    assert main(["submit", "mpo", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "nothing to submit: it has finished\n")


def test_job_without_a_result_failed(work: Path, capsys, programs: Path):
    dry_run(capsys, "tiny.toml", "--out", "out")
    stand_in(programs, "squeue", "")
    write_submission(Path("out"), Submission("5", "train", "2026-01-02T03:04:05"))
    (work / "out" / "slurm" / "5.txt").write_text("job 5 on n1, start 1\nKilled\n")
    stand_in(programs, "sacct", "5|CANCELLED by 1000")
    (state,), _ = folder_states("out")
    assert state.status == "failed"
    assert state.message.splitlines() == [
        "Slurm: CANCELLED",
        "job 5 ended without a result",
        "job 5 on n1, start 1",
        "Killed",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None), ("0", None), ("90", 5400), ("10:30", 630), ("1:00:05", 3605), ("2-0", 172800),
        ("1-02:30", 95400), ("1-02:30:10", 95410),
    ],
)  # fmt: skip
def test_limits_in_seconds(text: str, seconds: int | None):
    assert SlurmConfig(time=text, grace=10).seconds == seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out", "--set", "train.steps=5"], "only settings of slurm can change for a folder"),
        (["out", "--grid", "train.seed=0:2"], "--grid belongs to a configuration"),
        (["out", "--zip", "train.seed=0:2"], "--zip belongs to a configuration"),
        (["out", "--profile", "long"], "--profile belongs to a configuration"),
        (["programs"], "holds neither a run nor a sweep"),
        (["none.toml"], "config file 'none.toml' does not exist"),
        (["sweep", "--command", "train"], "leave --command out"),
        (["tiny.toml", "--out", "sweep"], "sweep belongs to a sweep; choose another --out"),
        (
            ["tiny.toml", "--grid", "train.seed=0:2", "--command", "compile"],
            "got --command compile",
        ),
        (["tiny.toml", "--set", "optimiser.name=adamm"], "adamm"),
        (
            ["tiny.toml", "--out", "new", "--set", "data.path=none.npz"],
            "hypercircuit: data.path must exist where the job is submitted, found no /",
        ),
        (
            ["tiny.toml", "--out", "new", "--zip", "data.path=points.npz,none.npz"],
            "member 0001-pathnone.npz: data.path must exist",
        ),
    ],
)
def test_what_cannot_be_submitted_is_refused(arguments: list[str], message: str, work, capsys):
    dry_run(capsys, "tiny.toml", "--out", "out")
    dry_run(capsys, "tiny.toml", "--grid", "train.seed=0:2", "--out", "sweep")
    (work / "programs").mkdir()
    assert message in failed(capsys, "submit", *arguments, "--dry-run")
    assert not (work / "new").exists()


def test_data_that_are_gone_are_missed_before_a_folder_is_submitted_again(work: Path, capsys):
    dry_run(capsys, "tiny.toml", "--out", "out")
    dry_run(capsys, "tiny.toml", "--grid", "train.seed=0:2", "--out", "sweep")
    (read_sweep("sweep")[0].folder / "result.json").write_text('{"status": "finished"}')
    (work / "points.npz").unlink()
    assert f"found no {work}/points.npz" in failed(capsys, "submit", "out", "--dry-run")
    message = failed(capsys, "submit", "sweep", "--dry-run")
    assert "hypercircuit: member 0001-seed1: data.path must exist" in message


def test_limit_of_members_is_said_to_do_nothing_for_a_run(work: Path, capsys, programs: Path):
    words = ["submit", "tiny.toml", "--out", "out", "--set", "slurm.parallel=4"]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "slurm.parallel=4 has no effect: it limits the members of a sweep" in said.err
    assert "has no effect" not in said.out
    assert "%4" not in said.out


def test_configurations_of_the_page_for_clusters_load(work: Path):
    page = Path(run_submit.__file__).parent / "cluster" / "README.md"
    blocks = re.findall(r"^```toml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3
    for block in blocks:
        (work / "mine.toml").write_text(block)
        assert load_config("mine.toml").slurm.time


def test_folder_with_a_percent_sign(work: Path, capsys):
    text = dry_run(capsys, "tiny.toml", "--out", "50%jobs")
    assert f"#SBATCH --output={work}/50%%jobs/slurm/%j.txt\n" in text
    assert f"#SBATCH --comment='hypercircuit 0 {work}/50%jobs'\n" in text


def test_machine_without_slurm_is_told_what_to_do(work: Path, capsys, programs: Path):
    message = "squeue is not found: there is no Slurm on this machine; log in to a node"
    assert message in failed(capsys, "submit", "tiny.toml", "--out", "out")
    assert main(["status", "out"]) == 0
    assert "the queue is not known: squeue is not found" in capsys.readouterr().out
    stand_in(programs, "squeue", "")
    assert "sbatch is not found: there is no Slurm" in failed(capsys, "submit", "out")
    lines = ["error: Unknown host", "error: DNS SRV lookup failed", "fatal: no configuration"]
    stand_in(programs, "squeue", "\n".join(f"squeue: {line}" for line in lines), code=1)
    with pytest.raises(NoSlurm, match=r"^squeue failed: fatal: no configuration$"):
        queued_jobs()
    assert endings(["5"]) == {}


def test_one_process_submits_at_a_time(tmp_path: Path):
    with (
        submission_lock(tmp_path),
        pytest.raises(ValueError, match="are being submitted by process"),
        submission_lock(tmp_path),
    ):
        pass
    with submission_lock(tmp_path):
        write_submission(tmp_path, Submission("10", "train", "2026-01-02"))
    write_submission(tmp_path, Submission("9", "train", "2026-01-02"))
    assert [each.job for each in read_submissions(tmp_path)] == ["9", "10"]
    assert json.loads((tmp_path / "slurm" / "9.json").read_text())["tasks"] == []


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_signal_with_nothing_to_save_ends_the_command_at_once(name: str, work, capsys, monkeypatch):
    def run(*arguments, **options):
        os.kill(os.getpid(), getattr(signal, name))
        raise AssertionError("not reached")

    monkeypatch.setattr("hypercircuit.cli_submit.describe_states", run)
    before = signal.getsignal(getattr(signal, name))
    assert main(["status", "out"]) == INTERRUPTED
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert signal.getsignal(getattr(signal, name)) is before


def test_handlers_of_others_stay():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with stop_where_nothing_is_lost():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_section_is_a_part_of_the_configuration():
    assert SlurmConfig().grace == 120
    with pytest.raises(ConfigError, match=r"slurm\.requeues must be at least 0"):
        SlurmConfig(requeues=-1)


def test_interrupted_result_is_no_word_about_a_later_attempt(
    work: Path, capsys, monkeypatch: pytest.MonkeyPatch, programs: Path
):
    """A run that was interrupted, started again and killed is not "interrupted" any more."""
    stand_in(programs, "squeue", "")
    few = ("train", "tiny.toml", "--out", "out", "--set", "train.checkpoint_every=2")

    class Killed(BaseException):
        """As a kill -9, which no code answers."""

    def kill(*arguments: object, **settings: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("hypercircuit.run._decode_run", kill)
        with pytest.raises(Killed):
            main([*few])
    (work / "out" / "result.json").write_text('{"status": "interrupted", "message": "by SIGTERM"}')
    assert folder_states("out")[0][0].status == "interrupted"
    with monkeypatch.context() as patched:
        patched.setattr("hypercircuit.run._decode_run", kill)
        with pytest.raises(Killed):
            main([*few])
    (state,), _ = folder_states("out")
    assert (state.status, state.step) == ("killed", state.steps)
