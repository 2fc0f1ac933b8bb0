"""A real Slurm of two nodes on this machine, without systemd: controller, two daemons, and munge."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "munged")
_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")


def install() -> None:
    """Install Slurm by apt where it is missing; skip where that is not possible."""
    if all(shutil.which(name) for name in PROGRAMS):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("Slurm is not installed, and only root can install it by apt-get")
    command = ["apt-get", "install", "-y", "--no-install-recommends", *_PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"apt-get cannot install Slurm: {done.stderr.strip().splitlines()[-1:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Slurm:
    """The cluster.

    Args:
        folder: Short: the path of a socket in it must have less than 108 bytes.
        environment: Of the commands, and so of the jobs.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the daemons and wait for the nodes."""
        folder = self._folder
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        controller, *ports = _free_ports(3)
        nodes = "\n".join(
            f"NodeName=n{k} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=2 "
            "RealMemory=2000 State=UNKNOWN"
            for k, port in enumerate(ports, 1)
        )
        (folder / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MaxArraySize=1001
KillWait=5
MinJobAge=3600
SchedulerParameters=sched_interval=1,bf_interval=1
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""
        )
        for name in ("state", "spool-n1", "spool-n2"):
            (folder / name).mkdir()
        self._start(
            "munged", "munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
            f"--key-file={folder}/munge.key", f"--pid-file={folder}/munge.pid",
            f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        self.wait_until((folder / "munge.socket").exists)
        self._start("slurmctld", "slurmctld", "-D", "-i", "-f", folder / "slurm.conf")
        for node in ("n1", "n2"):
            self.start_node(node)
        self.wait_until(lambda: self.states() == ["idle", "idle"], 20)

    def _start(self, name: str, *command: object) -> None:
        with (self._folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [str(word) for word in command], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                env=self._environment,
            )  # fmt: skip

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", self._folder / "slurm.conf")

    def stop_node(self, node: str) -> None:
        """Kill the daemon of a node."""
        self._daemons[node].kill()
        self._daemons[node].wait()

    def stop(self) -> None:
        """End all jobs and daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--signal=KILL", "--user=root")
        for daemon in reversed(self._daemons.values()):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command: object, cwd: Path | None = None) -> str:
        """Run one of Slurm's commands and return its output."""
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=60, cwd=cwd,
            env=self._environment, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise subprocess.SubprocessError(f"{command}: {done.stderr} {done.stdout}")
        return done.stdout

    def states(self) -> list[str]:
        """Return the states of the two nodes."""
        try:
            return self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T").split()
        except subprocess.SubprocessError:
            return []

    def jobs(self, name: str) -> dict[str, dict[str, str]]:
        """Return {job: its fields as `scontrol show job` has them} of the jobs with this name."""
        found = {}
        for line in self.run("scontrol", "--oneliner", "show", "job").splitlines():
            fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if fields.get("JobName") == name:
                found[fields["JobId"]] = fields
        return found

    def wait_until(self, happened: Callable[[], bool], seconds: float = 120) -> None:
        """Wait for an event."""
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in self._folder.glob("*.out"))
                raise TimeoutError(logs)
            time.sleep(0.1)


@contextlib.contextmanager
def cluster(folder: Path, environment: dict[str, str]) -> Iterator[Slurm]:
    """Install and start Slurm."""
    install()
    with contextlib.ExitStack() as stack:
        slurm = Slurm(folder, environment)
        stack.callback(slurm.stop)
        slurm.start()
        yield slurm
