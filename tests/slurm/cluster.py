"""A throw-away SLURM of two nodes on this machine, every file of it in one folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")

# Two slurmd share the host, so they differ in port and, by %n, in files. Memory is what jobs ask for at a real site.
SLURM_CONF = """
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=100000 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=100000 Gres=gpu:1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE
PartitionName=mine Nodes=n1,n2 MaxTime=INFINITE
"""


def missing() -> str:
    """Why no cluster can be started here, or nothing."""
    if os.geteuid() != 0:
        return "a SLURM cluster is started by root"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    return ""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, held together so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """The daemons, as children of this process; `environment` is what reaches them."""

    def __init__(self, folder: Path):
        self.folder = folder
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": path}
        self.daemons: list[subprocess.Popen] = []
        for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir(mode=0o755)
        # inside a job Snakemake's plugin takes SLURM_CONF away from srun
        srun = folder / "bin/srun"
        srun.parent.mkdir()
        real = f'exec {shutil.which("srun")} "$@"'
        srun.write_text(f"#!/bin/sh\nexport SLURM_CONF={folder}/slurm.conf\n{real}\n")
        srun.chmod(0o755)
        text = SLURM_CONF.format(folder=folder, host=socket.gethostname(), ports=free_ports(3))
        (folder / "slurm.conf").write_text(text)
        # a device that is always there: SLURM counts it and looks no further
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")

    def start(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o600)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        options = [f"--{name}={munge / file}" for name, file in files.items()]
        # --force: the folders above are not of the owners munged likes
        self._daemon("munged", "--foreground", "--force", f"--seed-file={munge / 'seed'}", *options)
        self._wait(lambda: (munge / "socket").exists())
        self._daemon("slurmctld", "-D", "-c")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        self._wait(lambda: self.command("sinfo", "-h", "-p", "main", "-o", "%T %D") == "idle 2")

    def stop(self) -> None:
        """Ends the jobs, then the daemons, the last started first."""
        if len(self.daemons) == 2 + len(NODES) and self._alive():
            self.command("scancel", "--user=root")
            self._wait(lambda: not self.command("squeue", "-h", "-t", "PD,R,CG"))
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def command(self, *command: str) -> str:
        """What one of SLURM's commands prints, nothing while it fails."""
        # without a controller they ask for minutes
        limited = ("timeout", "10", *command)
        done = subprocess.run(
            limited, env=self.environment, text=True, capture_output=True, check=False
        )
        return done.stdout.strip()

    def completed(self) -> list[dict[str, str]]:
        """The jobs that ended so far, as SLURM recorded them."""
        path = self.folder / "completed.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(word.partition("=")[::2] for word in line.split()) for line in lines]

    def _daemon(self, *command: str) -> None:
        with open(self.folder / f"{len(self.daemons)}-{command[0]}.txt", "w") as output:
            daemon = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.daemons.append(daemon)

    def _alive(self) -> bool:
        return all(daemon.poll() is None for daemon in self.daemons)

    def _wait(self, condition, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or not self._alive():
                logs = sorted(self.folder.glob("*.txt")) + sorted(self.folder.glob("*.log"))
                texts = [f"{log.name}:\n{log.read_text()[-2000:]}" for log in logs]
                raise RuntimeError("the cluster does not answer\n" + "\n".join(texts))
            time.sleep(0.2)
