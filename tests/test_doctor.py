"""`hypercircuit doctor`: every problem is made, and named with its remedy."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hypercircuit._cores import CPULimit
from hypercircuit.cli import main
from hypercircuit.cluster.compile_cache import CacheUse
from hypercircuit.cluster.doctor import Surroundings, examine, exit_code, look, slurm_seconds

HEALTHY = Surroundings(
    environment={},
    cpu=CPULimit(8, 8),
    memory_machine=2**35,
    memory_cgroup=None,
    huge_pages="always",
    devices=(("cpu", "cpu", None),),
    device_error="",
    drivers=(),
    blas=(("openblas", 8),),
    requirements=("jax>=0.10", "numpy>=2.4"),
    versions={"hypercircuit": "0.1.0", "jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.10"},
    cache="/cache",
    cache_problem=None,
    cache_use=CacheUse(3, 2**20),
    folder="/work",
    folder_problem=None,
    free_bytes=2**40,
    clock_offset=0.01,
    seconds_left=None,
    now=1.7e9,
)
JOB = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8", "SLURM_NTASKS": "1"}
IN_JOB = CPULimit(8, 8, slurm=8)


def test_a_healthy_machine():
    findings = examine(HEALTHY)
    assert {finding.state for finding in findings} == {"ok"}
    assert exit_code(findings) == 0
    job = dataclasses.replace(HEALTHY, environment=JOB, cpu=IN_JOB, seconds_left=7200.0)
    assert {finding.state for finding in examine(job)} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "name", "state", "said"),
    [
        ({"devices": (), "device_error": "no cuda"}, "devices", "wrong", "no cuda"),
        ({"drivers": ("/dev/nvidiactl",)}, "devices", "warning", "has an accelerator"),
        ({"environment": {"SLURM_GPUS_ON_NODE": "2"}}, "devices", "wrong", "gave 2 accelerators"),
        ({"cpu": CPULimit(8, 1, slurm=4)}, "cores", "warning", "srun --cpus-per-task=4"),
        ({"environment": {"PJRT_NPROC": "x"}}, "XLA threads", "wrong", "'x' is no number"),
        ({"environment": {"NPROC": "2"}}, "XLA threads", "warning", "unset NPROC"),
        ({"environment": {"NPROC": "9"}}, "XLA threads", "warning", "wait for each other"),
        (
            {"environment": {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}},
            "XLA threads",
            "warning",
            "unset XLA_FLAGS",
        ),
        ({"blas": (("openblas", 64),)}, "openblas threads", "warning", "64, by its default, on 8"),
        (
            {"environment": {"OMP_NUM_THREADS": "1"}, "blas": (("openblas", 1),)},
            "openblas threads",
            "warning",
            "unset OMP_NUM_THREADS",
        ),
        (
            {"environment": JOB | {"SLURM_NTASKS": "4"}, "cpu": IN_JOB},
            "Slurm",
            "warning",
            "--cpus-per-task=32",
        ),
        (
            {"environment": JOB | {"SLURM_NTASKS": "4"}, "cpu": IN_JOB},
            "Slurm",
            "warning",
            "`srun hypercircuit train ... --processes 4`",
        ),
        ({"environment": {"SLURM_JOB_ID": "7"}}, "Slurm cores", "warning", "--cpus-per-task=N"),
        ({"memory_cgroup": 2**30}, "memory", "warning", "1.0 GiB usable"),
        ({"environment": {"SLURM_MEM_PER_NODE": "512"}}, "memory", "warning", "Slurm 0.5"),
        ({"memory_machine": None}, "memory", "warning", "unknown"),
        ({"versions": HEALTHY.versions | {"numpy": None}}, "numpy", "wrong", "not installed"),
        ({"versions": HEALTHY.versions | {"numpy": "2.3.9"}}, "numpy", "wrong", "needs >= 2.4"),
        ({"versions": HEALTHY.versions | {"jaxlib": "0.9.1"}}, "jaxlib", "wrong", "jaxlib==0.10.2"),
        ({"cache": None}, "compile cache", "warning", "off"),
        ({"cache_problem": "/c is full"}, "compile cache", "warning", "/c is full"),
        (
            {"cache_use": CacheUse(2, 9, (Path("/cache/a"),))},
            "compile cache",
            "warning",
            "rm /cache/a",
        ),
        ({"cache_use": CacheUse(2, 2**35)}, "compile cache", "warning", "rm -r /cache"),
        ({"folder_problem": "No locks available"}, "output folder", "wrong", "-o flock"),
        ({"free_bytes": 2**20}, "output folder", "warning", "free some space"),
        ({"clock_offset": -90.0}, "clock", "warning", "-90 s ahead"),
        ({"seconds_left": 120.0}, "time limit", "warning", "longer --time"),
    ],
)
def test_problems(changes: dict[str, Any], name: str, state: str, said: str):
    findings = examine(dataclasses.replace(HEALTHY, **changes))
    (finding,) = [each for each in findings if each.name == name]
    assert finding.state == state
    assert said in finding.describe()
    assert finding.remedy
    assert exit_code(findings) == int(state == "wrong")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"huge_pages": "madvise"}, "export GLIBC_TUNABLES=glibc.malloc.hugetlb=1,"),
        (
            {
                "huge_pages": "madvise",
                "environment": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0:glibc.malloc.perturb=1"},
            },
            "glibc.malloc.perturb=1:glibc.malloc.hugetlb=1,",
        ),
        (
            {
                "huge_pages": "madvise",
                "environment": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
            },
            "asked for",
        ),
        ({"huge_pages": "madvise", "devices": (("gpu", "H200", 2**37),)}, None),
        ({"huge_pages": None}, None),
    ],
)
def test_huge_pages_are_a_hint(changes: dict[str, Any], said: str | None):
    findings = examine(dataclasses.replace(HEALTHY, **changes))
    found = [each for each in findings if each.name == "huge pages"]
    assert len(found) == int(said is not None)
    assert {finding.state for finding in findings} == {"ok"}
    assert said is None or said in found[0].describe()


def test_processes_that_srun_started_are_one_run():
    environment = JOB | {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}
    findings = examine(dataclasses.replace(HEALTHY, environment=environment, cpu=IN_JOB))
    (finding,) = [each for each in findings if each.name == "Slurm"]
    assert finding.state == "ok"
    assert "one run of all of them" in finding.describe()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784.0), ("2:03:04", 7384.0), ("03:04", 184.0), ("UNLIMITED", None)],
)
def test_slurm_times(text: str, seconds: float | None):
    assert slurm_seconds(text) == seconds


def test_this_machine(tmp_path: Path):
    cache = tmp_path / "cache"
    end = int(time.time()) + 600
    found = look(
        tmp_path / "not" / "yet",
        {"HYPERCIRCUIT_COMPILE_CACHE": str(cache), "SLURM_JOB_END_TIME": str(end)},
    )
    assert found.folder == str(tmp_path)
    assert found.folder_problem is None
    assert found.devices
    assert found.versions["jax"]
    assert found.requirements
    assert found.cache == str(cache)
    assert found.seconds_left == pytest.approx(600, abs=60)
    assert list(tmp_path.iterdir()) == [cache]
    assert not [each for each in examine(found) if each.state == "wrong"]


@pytest.mark.parametrize("command", ["doctor", "train"])
def test_platform_without_a_plugin(tmp_path: Path, command: str):
    """JAX itself ends in an assertion without words."""
    words = {"doctor": (), "train": ("--out", "run")}[command]
    done = subprocess.run(
        [sys.executable, "-m", "hypercircuit.cli", command, *words],
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cuda", "HYPERCIRCUIT_COMPILE_CACHE": "off"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    reason = "no plugin is installed for these platforms (JAX_PLATFORMS=cuda)"
    remedy = "unset JAX_PLATFORMS, or install the plugin of the platform that it names"
    if command == "doctor":
        assert done.returncode == 1, done.stderr
        assert f"wrong    devices        JAX finds none: {reason}\n" in done.stdout
        assert remedy in done.stdout
    else:
        assert done.returncode == 2, done.stderr
        assert done.stderr == f"hypercircuit: JAX finds no device: {reason}; {remedy}\n"
    assert not (tmp_path / "run").exists()


def test_commands_without_a_device_end_before_they_begin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def local_devices() -> None:
        raise RuntimeError("no GPU\nand more")

    monkeypatch.setattr("jax.local_devices", local_devices)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    assert main(["sample", "nowhere", "-n", "1"]) == 2
    assert "hypercircuit: JAX finds no device: no GPU; unset JAX_PL" in capsys.readouterr().err


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HYPERCIRCUIT_COMPILE_CACHE", "off")
    assert main(["doctor", "--out", str(tmp_path), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {"name", "state", "text", "remedy"} == lines[0].keys()
    monkeypatch.setenv("PJRT_NPROC", "many")
    assert main(["doctor", "--out", str(tmp_path)]) == 1
    assert "'many' is no number of threads" in capsys.readouterr().out
