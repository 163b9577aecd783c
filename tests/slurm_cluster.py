"""A Slurm cluster of two nodes on this one machine, for tests: munged, slurmctld and two slurmd.

Everything it writes lies in one folder, but for a line with the nodes' names in /etc/hosts, taken
out again at the end, and its clients find it through SLURM_CONF alone::

    with slurm_cluster(folder) as cluster:
        cluster.run("sinfo")

It needs root and the programs of Debian's packages slurm-wlm and munge; `why_not` says what is
missing. The daemons end with the block, however that ends.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun")
NODES = ("n1", "n2")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
HOSTS = Path("/etc/hosts")
_CONFIG = """\
ClusterName=hypercircuit
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
MpiDefault=none
KillWait=5
MinJobAge=600
SlurmdTimeout=300
MessageTimeout=60
TCPTimeout=30
BatchStartTimeout=120
{nodes}
PartitionName=test Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What a cluster lacks here, None if nothing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a Slurm cluster on one machine needs root"
    missing = [name for name in PROGRAMS if _find(name) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return None


def _find(name: str) -> str | None:
    """Daemons lie in sbin, which is not on every PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up.

    **Attributes:**

    - `folder`: of its configuration, logs and sockets.
    - `daemons`: process ids by name.
    """

    folder: Path
    daemons: dict[str, int]

    @property
    def variables(self) -> dict[str, str]:
        """What the environment of its clients holds."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """What a client prints; fails with what it says."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | self.variables, timeout=120
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of every job and array task that the controller knows: {"12_3": "RUNNING"}."""
        lines = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        return dict(line.split() for line in lines.splitlines())

    def active(self) -> list[str]:
        """The jobs and array tasks that wait or run."""
        return self.run("squeue", "--noheader", "--array", "--format=%i").split()

    def wait(self, *jobs: str, seconds: float = 300) -> dict[str, str]:
        """The states of the jobs, once none of them waits or runs."""
        deadline = time.monotonic() + seconds
        while True:
            states = {job: state for job, state in self.states().items() if _belongs(job, jobs)}
            if states and set(states.values()) <= ENDED:
                return states
            assert time.monotonic() < deadline, f"{states}\n{self.logs()}"
            time.sleep(0.5)

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:])
            for path in sorted(self.folder.glob("*.log"))
        )


def _belongs(job: str, jobs: tuple[str, ...]) -> bool:
    return job in jobs or job.partition("_")[0] in jobs


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster in an empty folder, wait until its nodes are idle, and end it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    ports = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} "
        "CPUs=1 RealMemory=1024 State=UNKNOWN"
        for name, port in zip(NODES, ports[1:], strict=True)
    )
    (folder / "slurm.conf").write_text(
        _CONFIG.format(
            host=socket.gethostname(),
            folder=folder,
            controller=ports[0],
            nodes=nodes,
            names=",".join(NODES),
        )
    )
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    commands = {
        "munged": [
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={key}",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        ],
        "slurmctld": ["slurmctld", "-D", "-c"],
        **{f"slurmd {name}": ["slurmd", "-D", "-N", name] for name in NODES},
    }
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    try:
        _name_nodes(folder)
        for name, command in commands.items():
            daemons[name] = _start(folder, name, command)
            if name == "munged":
                _wait_for(lambda: (folder / "munge.socket").exists(), daemons, "munged's socket")
        cluster = Cluster(folder, {name: daemon.pid for name, daemon in daemons.items()})
        try:
            _wait_for(lambda: _idle(cluster), daemons, "two idle nodes")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{cluster.logs()}") from None
        yield cluster
    finally:
        try:
            _end(folder, daemons)
        finally:
            _forget_nodes(folder)


def _hosts_line(folder: Path) -> str:
    """Every cluster's own: another one on this machine keeps its line."""
    return f"127.0.0.1 {' '.join(NODES)}  # {folder}\n"


def _name_nodes(folder: Path) -> None:
    """Name the nodes in the hosts file, as on a real cluster: processes call each other."""
    begins = HOSTS.read_text().endswith("\n")
    with HOSTS.open("a") as file:
        file.write(f"{'' if begins else chr(10)}{_hosts_line(folder)}")


def _forget_nodes(folder: Path) -> None:
    """Take the line out again; in place, because a container cannot replace the file."""
    text = HOSTS.read_text()
    if _hosts_line(folder) in text:
        HOSTS.write_text(text.replace(_hosts_line(folder), ""))


def _start(folder: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    program = _find(command[0])
    assert program is not None
    with open(folder / f"{name.replace(' ', '-')}-output.log", "wb") as log:
        # A session of its own: an interrupt of the terminal does not reach it.
        return subprocess.Popen(
            [*_ends_with_us(), program, *command[1:]],
            env=os.environ | {"SLURM_CONF": str(folder / "slurm.conf")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _ends_with_us() -> list[str]:
    """A prefix by which a daemon ends even if this process is killed before it can end it."""
    return [] if shutil.which("setpriv") is None else ["setpriv", "--pdeathsig", "TERM"]


def _wait_for(ready, daemons: dict[str, subprocess.Popen[bytes]], what: str) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        for name, daemon in daemons.items():
            assert daemon.poll() is None, f"{name} ended with exit code {daemon.returncode}"
        assert time.monotonic() < deadline, f"no {what} after two minutes"
        time.sleep(0.1)


def _idle(cluster: Cluster) -> bool:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%N %T"],
        capture_output=True,
        text=True,
        env=os.environ | cluster.variables,
        timeout=120,
    )
    return sorted(done.stdout.split("\n")[:-1]) == [f"{name} idle" for name in NODES]


def _end(folder: Path, daemons: dict[str, subprocess.Popen[bytes]]) -> None:
    """End what the jobs left, then the daemons, the last started first."""
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    if "slurmctld" in daemons and daemons["slurmctld"].poll() is None:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            subprocess.run(["scancel", "--user=root"], env=environment, timeout=30)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                left = subprocess.run(
                    ["squeue", "--noheader"], env=environment, timeout=30, capture_output=True
                )
                if not left.stdout.strip():
                    break
                time.sleep(0.2)
    for name in reversed(daemons):
        daemons[name].send_signal(signal.SIGTERM)
        try:
            daemons[name].wait(20)
        except subprocess.TimeoutExpired:
            daemons[name].kill()
            daemons[name].wait()
    # The steps of jobs have daemons of their own.
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> list[int]:
    """The processes of the cluster: those that have its configuration in their environment.

    Jobs have it too; this process and those that started it do not.
    """
    wanted = f"SLURM_CONF={folder}/slurm.conf".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (path / "stat").read_text().rpartition(") ")[2][:1]
            if state != "Z" and wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return [pid for pid in found if pid != os.getpid()]


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
