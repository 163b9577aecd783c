"""One run on several devices and in several processes: the same numbers, one writer, one end."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shared_work
from hypercircuit import Brickwork, Cumulant
from hypercircuit._run_lock import hold_run
from hypercircuit._shards import AXIS, Shards, device_mesh
from hypercircuit.cli import main
from hypercircuit.cluster import connect, transport
from hypercircuit.cluster.processes import devices_of_task, tasks_of_step
from hypercircuit.config import Config
from hypercircuit.hamiltonian.mpo import compress_loss
from hypercircuit.run import train_run
from hypercircuit.state import ExactMPS, bit_cumulants, exact_mps
from hypercircuit.train.shards import EnergyShare
from hypercircuit.train.shared_state import SharedState

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


def finish(running: dict[Path, subprocess.Popen]) -> None:
    try:
        for file, process in running.items():
            assert process.wait(timeout=900) == 0, file.read_text()
    finally:
        for process in running.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process of two devices wrote."""
    folder = tmp_path_factory.mktemp("single")
    finish({folder / "stderr-0": start(folder, 1, 0, devices=2)})
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("pair")
    address = f"127.0.0.1:{free_port()}"
    finish({folder / f"stderr-{n}": start(folder, 2, n, address) for n in range(2)})
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote of a run that a signal to one of them stops, and nothing else."""
    folder = tmp_path_factory.mktemp("stopped")
    address = f"127.0.0.1:{free_port()}"
    finish({folder / f"stderr-{n}": start(folder, 2, n, address, "stop") for n in range(2)})
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        return shared_work.work(None, tmp_path_factory.mktemp("alone"))


def said(pair: Path, process: int) -> dict:
    return json.loads((pair / f"said-{process}.json").read_text())


def assert_expected(path: Path, expected: dict[str, np.ndarray]) -> None:
    with np.load(path) as found:
        assert set(found.files) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-10, err_msg=name)


def test_two_devices_find_the_numbers_of_one(single: Path, expected: dict[str, np.ndarray]):
    assert_expected(single / "found-0.npz", expected)


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_two_processes_find_the_numbers_of_one(
    pair: Path, expected: dict[str, np.ndarray], process: int
):
    assert_expected(pair / f"found-{process}.npz", expected)


@pytest.mark.slow
def test_resumed_run_equals_an_undisturbed_one(pair: Path):
    with np.load(pair / "found-1.npz") as found:
        np.testing.assert_array_equal(found["resumed-params"], found["cumulant-params"])


def test_signal_to_one_process_stops_both_after_the_same_step(
    stopped: Path, expected: dict[str, np.ndarray]
):
    """Their steps until then are those of one process."""
    first, second = (said(stopped, process)["stopped"] for process in range(2))
    assert first == second
    energies = expected["cumulant-energy"]
    np.testing.assert_allclose(first["energies"][: len(energies)], energies, rtol=1e-10)
    assert len(first["energies"]) == first["step"]
    assert first["status"] == "interrupted"
    assert "SIGTERM" in first["message"]
    # Compiling lays out one batch: the ninth is that of the eighth step.
    assert first["step"] in (7, 8, 9)
    names = [path.name for path in (stopped / "stopped" / "checkpoints").iterdir()]
    assert f"checkpoint-{first['step']:08d}.npz" in names


def waits() -> bool:
    """Whether the system says what threads wait for."""
    file = Path("/proc/self/task") / str(os.getpid()) / "wchan"
    return file.exists() and any(
        task.joinpath("wchan").read_text() != "0" for task in file.parent.parent.iterdir()
    )


@pytest.mark.skipif(not waits(), reason="the system does not say what threads wait for")
def test_the_thread_between_processes_interrupts_nothing(stopped: Path):
    assert [said(stopped, process)["batch_threads"] for process in range(2)] == [1, 1]


def test_threads_that_wait_for_sockets_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waiting = {2: "ep_poll", 3: "do_epoll_wait", 4: "0", 5: "futex_do_wait", 6: None, 7: "ep_poll"}
    for thread, where in waiting.items():
        (tmp_path / str(thread)).mkdir()
        if where is not None:
            (tmp_path / str(thread) / "wchan").write_text(where)
    made = []
    monkeypatch.setattr(transport, "_TASKS", tmp_path)
    monkeypatch.setattr(os, "sched_setscheduler", lambda thread, *_: made.append(thread))
    assert transport.threads() == set(waiting)
    assert transport.yield_to_computation({7}) == {2, 3} == set(made)
    assert transport.yield_to_computation({2, 3, 7}) == set()
    monkeypatch.setattr(transport, "_TASKS", tmp_path / "none")
    assert transport.threads() == set()


@pytest.mark.slow
def test_processes_that_do_not_belong_together_are_refused(pair: Path):
    for process in range(2):
        differing, whole = said(pair, process)["refused"]
        assert "must be the same on all processes, got another on process 1" in differing
        assert "energy statevector is one of all the examples at once" in whole


@pytest.mark.slow
def test_only_process_0_reports_and_writes(pair: Path, tmp_path: Path):
    first, second = (said(pair, process) for process in range(2))
    assert first["reports"][-1] == f"results in {pair / 'run'}"
    assert second["reports"] == []
    stored = json.loads((pair / "run" / "result.json").read_text())
    assert stored == first["run"]
    assert (stored["processes"], stored["devices"]) == (2, 2)
    alone = train_run(Config.from_dict(shared_work.RUN), tmp_path, report=lambda _: None)
    for name in ("energy", "best_loss", "test_accuracy"):
        assert stored[name] == pytest.approx(alone[name], abs=1e-10)
    names = {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in (pair / "run").iterdir()} == names


def both(tmp_path: Path, out: Path) -> tuple[list[int], list[str]]:
    """Train with two processes; their exit codes, and what they said."""
    config = tmp_path / "config.toml"
    config.write_text(Config.from_dict(shared_work.RUN).to_toml())
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "hypercircuit.cli", "train", config, "--out", out]
    more = ["--processes", "2", "--coordinator", address, "--process-id"]
    variables = os.environ | {"JAX_PLATFORMS": "cpu"}
    running, logs = [], [tmp_path / f"said-{number}" for number in range(2)]
    for number, log in enumerate(logs):
        with log.open("wb") as file:
            command = [*words, *more, str(number)]
            running.append(subprocess.Popen(command, env=variables, stdout=file, stderr=file))
    try:
        codes = [process.wait(timeout=400) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return codes, [log.read_text() for log in logs]


@pytest.mark.slow
def test_error_of_one_process_ends_both(tmp_path: Path):
    """Process 0 cannot write the angles; neither waits for the other for ever."""
    (tmp_path / "run" / "angles.npz").mkdir(parents=True)
    codes, said = both(tmp_path, tmp_path / "run")
    assert codes[0] == 2, said
    assert "hypercircuit: " in said[0]
    assert "angles.npz" in said[0]
    assert codes[1] != 0


@pytest.mark.slow
def test_folder_in_use_is_refused_by_both(tmp_path: Path):
    with hold_run(tmp_path / "run", print):
        codes, said = both(tmp_path, tmp_path / "run")
    assert codes == [2, 2], said
    for words in said:
        assert f"run is in use by process {os.getpid()} on" in words


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


@pytest.mark.parametrize(
    ("n_qubits", "depth", "rotations", "order", "n_shares"),
    [
        (16, 1, "ry-rz", 2, 3),
        (21, 2, "ry-rz", 2, 2),
        (24, 2, "ry-rz", 4, 3),
        (29, 3, "ry", 2, 2),
        (45, 4, "ry-rz", 2, 3),
        (59, 3, "ry-rz", 4, 2),
    ],
)
def test_shares_make_up_the_state(
    n_qubits: int, depth: int, rotations: str, order: int, n_shares: int
):
    """Also of odd chains, and of numbers of cells that the devices do not divide."""
    circuit = Brickwork(depth, rotations)
    params = 2 * jax.random.normal(jax.random.key(1), circuit.shape(n_qubits), np.float64)
    shared = SharedState(circuit, n_qubits, order, n_shares)
    assert shared.saves

    def gathered(params: jax.Array) -> ExactMPS:
        """`vmap` over shares in place of devices; all of them end with the same."""
        devices = jax.vmap(lambda _: shared(params), axis_name=AXIS, axis_size=n_shares)
        return jax.tree.map(lambda leaf: leaf[0], devices(jnp.arange(n_shares)))

    whole = exact_mps(circuit, params)
    probabilities, bands = bit_cumulants(whole, order)
    found = jax.jit(gathered)(params)
    assert found.cumulants is not None
    for each, expected in zip(found.cumulants[1], bands, strict=True):
        assert each.powers == expected.powers
    known = dataclasses.replace(whole, cumulants=(probabilities, bands))
    assert jax.tree.structure(found) == jax.tree.structure(known)
    for each, expected in zip(jax.tree.leaves(found), jax.tree.leaves(known), strict=True):
        np.testing.assert_allclose(each, expected, rtol=1e-12, atol=1e-13)


def test_a_chain_too_short_is_not_shared_out():
    """Nor one of which a device would get nothing."""
    assert not SharedState(Brickwork(4), 20, 2, 2).saves
    assert not SharedState(Brickwork(1), 10, 2, 4).saves
    assert SharedState(Brickwork(4), 7850, 2, 64).saves


def test_share_that_is_measured_is_smaller_and_finite():
    """What `estimate` measures of a step that several processes share."""
    loss = shared_work.hamiltonian()
    each = Cumulant().prepare(loss, shared_work.CIRCUIT, batch_size=3, dtype=np.float64)
    one = EnergyShare(each, 2)
    assert one.state is not None
    assert one.state.exchanged == loss.n_qubits * 3
    params = shared_work.CIRCUIT.init(jax.random.key(0), loss.n_qubits, dtype=np.float64)
    value, gradient = jax.jit(jax.value_and_grad(one))(params, one.batch(np.arange(3)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    # Nothing of angles that only the second device needs.
    assert (np.asarray(gradient)[:, 2 * one.state.width :] == 0).all()
    assert EnergyShare(each, 7).state is None


@pytest.mark.parametrize("n_shares", [1, 2, 5, 30])
def test_shares_of_terms_add_up_to_all(n_shares: int):
    """Also more shares than rows."""
    terms = shared_work.phases()
    shares = terms.share(n_shares)
    assert len(shares) == n_shares
    assert sum(share.n_terms for share in shares) == terms.n_terms
    bits = np.random.default_rng(1).integers(0, 2, (8, terms.n_sites))
    total = sum(share.values(bits) for share in shares)
    np.testing.assert_allclose(total, terms.values(bits), atol=1e-12)


def test_compression_on_a_mesh_has_no_cache(tmp_path: Path):
    with pytest.raises(ValueError, match="a cache is that of one device"):
        compress_loss(shared_work.hamiltonian(), 4, cache=tmp_path, mesh=device_mesh())


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
