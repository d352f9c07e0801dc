"""A SLURM cluster of three nodes on this machine, each with a device that counts as a GPU, in a folder of its own.

Debian's slurm-wlm and munge, started as root. Ports, key, socket and state are its own, so that a cluster that this
machine may belong to is not touched; what is stopped in the end are the processes started here.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

NODES = ("n1", "n2", "n3")  # of idle ones the first is preferred
GPU = "none"  # the type of their GPUs
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "squeue", "scontrol")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
# a requeued job waits until its old credentials have expired, by default two minutes
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
# no accounting, no cgroups: what a machine without a database and without systemd can do
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# processors, memory and devices are handed out, as on any GPU cluster
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# the nodes are larger than their share of this machine
SlurmdParameters=config_overrides
# a node that does not answer is lost, and comes back when it does
SlurmdTimeout=10
ReturnToService=2
# seconds from SIGTERM to SIGKILL, as by default; and for how long finished jobs are known
KillWait=30
MinJobAge=3600
{nodes}
# a job that asks for more than its time would wait for ever
PartitionName=main Nodes=ALL Default=YES MaxTime=60
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} Weight={weight}"
    " CPUs=8 RealMemory=200000 Gres=gpu:{gpu}:1"
)


def missing() -> list[str]:
    """The programs of a cluster that are not here."""
    path = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for found in sockets:
        found.bind(("127.0.0.1", 0))
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


class Cluster:
    """The cluster, started in `folder`; `environment` is that of its users."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin",
        }
        self._configure()
        try:
            self._start_munge()
            self._start("slurmctld", "-D")
            for name in NODES:
                self.start_node(name)
            self._wait_for("idle nodes", lambda: self.states() == dict.fromkeys(NODES, "idle"))
        except BaseException:
            self.stop()
            raise

    def _configure(self) -> None:
        self.folder.chmod(0o755)  # or munged refuses to open its socket there
        host, (port, *ports) = socket.gethostname(), free_ports(1 + len(NODES))
        nodes = [
            NODE.format(name=name, host=host, port=own, weight=weight, gpu=GPU)
            for weight, (name, own) in enumerate(zip(NODES, ports, strict=True), 1)
        ]
        text = CONFIGURATION.format(
            host=host, port=port, folder=self.folder, nodes="\n".join(nodes)
        )
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        (self.folder / "gres.conf").write_text(
            f"Name=gpu Type={GPU} File=/dev/null\n", encoding="utf-8"
        )
        (self.folder / "state").mkdir()
        # Snakemake's executor clears SLURM_CONF before it starts a step: no other cluster has one there
        srun = self.folder / "bin/srun"
        srun.parent.mkdir()
        conf, real = self.environment["SLURM_CONF"], shutil.which("srun")
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {real} "$@"\n', encoding="utf-8")
        srun.chmod(0o755)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {
            option: self.folder / f"munge.{name}"
            for option, name in {
                "key-file": "key",
                "socket": "socket",
                "pid-file": "pid",
                "log-file": "log",
                "seed-file": "seed",
            }.items()
        }
        self._start("munged", "--foreground", *(f"--{k}={v}" for k, v in files.items()))
        self._wait_for("munge", files["socket"].exists)

    def _start(self, name: str, *arguments: str, program: str | None = None) -> None:
        with open(self.folder / f"{name}.out", "w", encoding="utf-8") as output:
            self.processes[name] = subprocess.Popen(
                [program or name, *arguments],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def start_node(self, name: str) -> None:
        """Starts the daemon of a node."""
        self._start(name, "-D", "-N", name, program="slurmd")

    def kill_daemon(self, name: str) -> None:
        """Kills a node's daemon alone: its jobs run on, and SLURM takes the node for lost."""
        daemon = self.processes.pop(name)
        daemon.kill()
        daemon.wait()

    def lose_node(self, name: str) -> None:
        """Kills a node's daemon and all that runs on the node, at once, as a power cut does."""
        steps = self._steps(name)
        self.kill_daemon(name)
        for process in steps:  # or one would still report the end of another
            _send(process, signal.SIGSTOP)
        for process in steps:
            _send(process, signal.SIGKILL)

    def _steps(self, name: str | None = None) -> set[psutil.Process]:
        """The processes of this cluster's jobs, on a node or on all, and SLURM's daemons above them."""
        found = set()
        for process in psutil.process_iter(["environ"]):
            if self._runs_on([name] if name else NODES, process.info["environ"] or {}):
                found |= {process, *(p for p in process.parents() if p.name() == "slurmstepd")}
        return found

    def _runs_on(self, nodes: Iterable[str], environment: dict[str, str]) -> bool:
        ours = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
        return ours and environment.get("SLURMD_NODENAME") in nodes

    def call(self, *command: str) -> str:
        """Output of a command of SLURM's."""
        done = subprocess.run(
            command,
            env=self.environment,
            text=True,
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of every node, by name; nothing while the controller does not answer."""
        done = subprocess.run(
            ["sinfo", "--Node", "--noheader", "--format=%N %T"],
            env=self.environment,
            text=True,
            capture_output=True,
            check=False,
            encoding="utf-8",
        )
        return dict(line.split() for line in done.stdout.splitlines())

    def jobs(self) -> list[dict[str, str]]:
        """The jobs the controller knows, finished ones included."""
        keys = ("job", "state", "node", "comment")
        lines = self.call(
            "squeue", "--states=all", "--noheader", "--format=%i|%T|%N|%k"
        ).splitlines()
        return [dict(zip(keys, line.split("|"), strict=True)) for line in lines]

    def _wait_for(self, what: str, condition, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended or time.monotonic() > until:
                logs = [path for path in self.folder.glob("*.*") if path.suffix in (".out", ".log")]
                said = "\n".join(
                    f"{path.name}: {path.read_text(encoding='utf-8')[-2000:]}" for path in logs
                )
                raise RuntimeError(f"no {what}; ended: {ended}\n{said}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stops what was started here: jobs first, then the daemons."""
        for process in self._steps():
            _send(process, signal.SIGKILL)
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes.values()):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
