"""Threads as many as a job's cores, and the limits that they follow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hypercircuit._cores import (
    CPULimit,
    cgroup_memory,
    cgroup_quota,
    machine_memory,
    slurm_memory,
)
from hypercircuit.cluster.threads import thread_settings

#: The busiest thread's share of a matrix product's work, and what was set.
MEASURE = """
import json, os, sys
from hypercircuit.cluster.threads import limit_threads
said = limit_threads(os.environ)
import jax, jax.numpy as jnp
from threadpoolctl import threadpool_info
def ticks():
    found = {}
    for task in os.listdir("/proc/self/task"):
        fields = open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()
        found[task] = int(fields[11]) + int(fields[12])
    return found
function = jax.jit(lambda a: a @ a)
a = jnp.ones((1024, 1024))
function(a).block_until_ready()
before = ticks()
for _ in range(25):
    function(a).block_until_ready()
spent = [now - before.get(task, 0) for task, now in ticks().items()]
blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
print(json.dumps({"share": max(spent) / sum(spent), "set": said, "blas": blas}))
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("limit", "usable"),
    [
        (CPULimit(128, 128), 128),
        (CPULimit(128, 16), 16),
        (CPULimit(128, 128, slurm=4), 4),
        (CPULimit(128, 2, slurm=4), 2),
        (CPULimit(128, 128, quota=2.5), 3),
        (CPULimit(128, 128, quota=0.5), 1),
        (CPULimit(128, 64, quota=8.0, slurm=4), 4),
    ],
)
def test_the_least_limit_counts(limit: CPULimit, usable: int):
    assert limit.usable == usable


@pytest.mark.parametrize("text", ["", "0", "-3", "4(x2)"])
def test_variables_that_are_no_number_limit_nothing(text: str):
    assert CPULimit.of_process({"SLURM_CPUS_PER_TASK": text}).slurm is None


def test_the_users_own_numbers_stay():
    limit = CPULimit(128, 128, slurm=4)
    assert thread_settings({}, CPULimit(128, 4, slurm=4)) == {}
    everything = thread_settings({}, limit)
    assert everything["PJRT_NPROC"] == everything["OMP_NUM_THREADS"] == "4"
    assert "NPROC" not in everything
    own = thread_settings({"NPROC": "9", "OPENBLAS_NUM_THREADS": "1"}, limit)
    assert own == {"NUMBA_NUM_THREADS": "4"}


@pytest.mark.parametrize(
    ("files", "quota", "memory"),
    [
        ({}, None, None),
        (
            {
                "proc/self/cgroup": "0::/slurm/job_7/step_0",
                "sys/fs/cgroup/slurm/job_7/cpu.max": "350000 100000",
                "sys/fs/cgroup/slurm/job_7/step_0/cpu.max": "max 100000",
                "sys/fs/cgroup/slurm/job_7/memory.max": "8589934592",
                "sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max",
            },
            3.5,
            2**33,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/b\n0::/",
                "sys/fs/cgroup/cpu/b/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/b/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4294967296",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            2.0,
            2**32,
        ),
    ],
    ids=["none", "version 2", "version 1"],
)
def test_cgroups(tmp_path: Path, files: dict[str, str], quota: float | None, memory: int | None):
    root = tree(tmp_path, files)
    assert cgroup_quota(root) == quota
    assert cgroup_memory(root) == memory


def test_memory(tmp_path: Path):
    assert machine_memory(tree(tmp_path, {"proc/meminfo": "MemTotal:  2048 kB"})) == 2**21
    assert machine_memory(tmp_path / "nothing") is None
    assert slurm_memory({"SLURM_MEM_PER_NODE": "4096"}, 2) == 2**32
    assert slurm_memory({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "4"}, 2) == 2**32
    assert slurm_memory({"SLURM_MEM_PER_CPU": "1024"}, 2) == 2**31
    assert slurm_memory({}, 2) is None


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.skipif(CPULimit.of_process({}).usable < 2, reason="needs two cores")
def test_a_job_of_one_core_computes_on_one_thread():
    hidden = ("PJRT_NPROC", "NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    plain = {name: value for name, value in os.environ.items() if name not in hidden}
    plain.pop("XLA_FLAGS", None)

    def measured(**more: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE],
            env={**plain, **more},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    one, all_ = measured(SLURM_CPUS_PER_TASK="1"), measured()
    assert one["set"]["PJRT_NPROC"] == "1"
    assert set(one["blas"]) == {1}
    assert one["share"] > 0.9
    assert all_["set"] == {}
    assert all_["share"] < 0.8
