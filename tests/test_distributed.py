"""One run on several devices and in several processes: the same numbers, one writer, one end."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import shared_work
from hypercircuit._shards import Shards, device_mesh
from hypercircuit.cli import main
from hypercircuit.cluster import connect
from hypercircuit.cluster.processes import devices_of_task, tasks_of_step
from hypercircuit.config import Config
from hypercircuit.run import train_run

PROGRAM = Path(shared_work.__file__)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(folder: Path, processes: int, process: int, *more: str, devices: int = 1):
    flags = f"--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count={devices}"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    with (folder / f"stderr-{process}").open("wb") as file:
        return subprocess.Popen(
            [sys.executable, PROGRAM, folder, str(processes), str(process), *more],
            env=variables | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=file,
            stderr=file,
        )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two processes and one of two devices, side by side; the folders that they wrote to."""
    pair, single = (tmp_path_factory.mktemp(name) for name in ("pair", "single"))
    address = f"127.0.0.1:{free_port()}"
    running = {pair / f"stderr-{n}": start(pair, 2, n, address) for n in range(2)}
    running[single / "stderr-0"] = start(single, 1, 0, devices=2)
    try:
        for file, process in running.items():
            assert process.wait(timeout=900) == 0, file.read_text()
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return {"pair": pair, "single": single}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        return shared_work.work(None, tmp_path_factory.mktemp("alone"))


def said(outcome: dict[str, Path], process: int) -> dict:
    return json.loads((outcome["pair"] / f"said-{process}.json").read_text())


@pytest.mark.parametrize(("where", "process"), [("pair", 0), ("pair", 1), ("single", 0)])
def test_numbers_are_those_of_one_device(
    outcome: dict[str, Path], expected: dict[str, np.ndarray], where: str, process: int
):
    with np.load(outcome[where] / f"found-{process}.npz") as found:
        assert set(found.files) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-10, err_msg=name)


def test_resumed_run_equals_an_undisturbed_one(outcome: dict[str, Path]):
    with np.load(outcome["pair"] / "found-1.npz") as found:
        np.testing.assert_array_equal(found["resumed-params"], found["cumulant-params"])


def test_signal_to_one_process_stops_both_after_the_same_step(outcome: dict[str, Path]):
    first, second = (said(outcome, process)["stopped"] for process in range(2))
    assert first == second
    assert first["status"] == "interrupted"
    assert "SIGTERM" in first["message"]
    # Compiling lays out one batch: the ninth is that of the eighth step.
    assert first["step"] in (7, 8, 9)
    names = [path.name for path in (outcome["pair"] / "stopped" / "checkpoints").iterdir()]
    assert f"checkpoint-{first['step']:08d}.npz" in names


def test_processes_that_do_not_belong_together_are_refused(outcome: dict[str, Path]):
    for process in range(2):
        differing, whole = said(outcome, process)["refused"]
        assert "must be the same on all processes, got another on process 1" in differing
        assert "energy statevector is one of all the examples at once" in whole


def test_only_process_0_reports_and_writes(outcome: dict[str, Path], tmp_path: Path):
    first, second = (said(outcome, process) for process in range(2))
    assert first["reports"][-1] == f"results in {outcome['pair'] / 'run'}"
    assert second["reports"] == []
    stored = json.loads((outcome["pair"] / "run" / "result.json").read_text())
    assert stored == first["run"]
    assert (stored["processes"], stored["devices"]) == (2, 2)
    alone = train_run(Config.from_dict(shared_work.RUN), tmp_path, report=lambda _: None)
    for name in ("energy", "best_loss", "test_accuracy"):
        assert stored[name] == pytest.approx(alone[name], abs=1e-10)
    names = {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in (outcome["pair"] / "run").iterdir()} == names


def test_number_of_processes_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(ValueError, match=r"must be 2 .*, got 1: 2 independent runs instead"):
        connect(expected=2, environment={})
    with pytest.raises(ValueError, match=r"must be 3 .*, got 2"):
        connect(expected=3, environment={"SLURM_STEP_NUM_TASKS": "2"})
    arguments = ["train", "--processes", "2", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "independent runs instead of one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "a:1"}, "needs --processes N and --process-id I"),
        ({"coordinator": "a:1", "expected": 2, "process_id": 2}, "got N=2 and I=2"),
        ({"coordinator": "a", "expected": 2, "process_id": 0}, "must be HOST:PORT, got 'a'"),
        ({"process_id": 1}, "--process-id 1 needs --coordinator"),
        ({"expected": -1}, "must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        connect(environment={}, **arguments)


def test_one_device_needs_no_mesh_and_a_batch_script_is_one_process():
    assert connect(expected=1, environment={}) is None
    assert tasks_of_step({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}) == 1
    assert tasks_of_step({"SLURM_STEP_NUM_TASKS": "2"}) == 2


def test_mesh_of_another_axis_is_refused():
    mesh = jax.make_mesh((1,), ("x",))
    with pytest.raises(ValueError, match=r"one axis 'devices', got \('x',\)"):
        Shards(mesh)
    assert len(Shards(device_mesh())) == len(jax.devices())


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, None),
        ({"SLURM_GPUS_PER_TASK": "2", "CUDA_VISIBLE_DEVICES": "4,5"}, [0, 1]),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [0, 1, 2, 3]),
        (
            {
                "CUDA_VISIBLE_DEVICES": "0,1,2,3",
                "SLURM_STEP_TASKS_PER_NODE": "1(x3),2",
                "SLURM_NODEID": "3",
                "SLURM_LOCALID": "1",
            },
            [2, 3],
        ),
    ],
)
def test_accelerators_of_a_task(variables: dict[str, str], devices: list[int] | None):
    assert devices_of_task(variables) == devices


def test_more_tasks_than_accelerators_are_refused():
    variables = {"CUDA_VISIBLE_DEVICES": "0", "SLURM_STEP_TASKS_PER_NODE": "2"}
    with pytest.raises(ValueError, match="2 processes on this node share 1 GPUs"):
        devices_of_task(variables)
