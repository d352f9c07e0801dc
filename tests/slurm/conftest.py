"""One cluster for all tests here, and the profile of its site."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Workflow

from slurm.cluster import GPU, Cluster, missing

PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
SITE = {
    # a site without accounting
    "slurm-no-account": True,
    "slurm-status-command": "squeue",
    # a machine whose jobs take seconds
    "slurm-init-seconds-before-status-checks": 3,
    "latency-wait": 5,
    "default-resources": ["slurm_partition=main", f"gpu_model={GPU}", "runtime=60"],
}


@pytest.fixture(scope="session")
def cluster():
    """A cluster of three nodes, stopped in the end. To start one needs root."""
    if os.geteuid() != 0 or missing():
        pytest.fail(f"a cluster needs root, and slurm-wlm and munge: missing {missing()}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        started = Cluster(Path(folder))
        yield started
        started.stop()


class Submitted:
    """A copy of the project whose jobs go to the cluster, by profiles/slurm and, over it, a site's profile."""

    def __init__(self, workflow: Workflow, cluster: Cluster, resources: dict):
        self.workflow, self.cluster = workflow, cluster
        self._others = {job["job"] for job in cluster.jobs()}
        (workflow.folder / "site").mkdir()
        site = SITE | {"set-resources": resources}
        (workflow.folder / "site/config.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")

    @contextmanager
    def running(self, *targets: str, config: str) -> Iterator[subprocess.Popen]:
        """Snakemake at work inside the block, its output in output.txt. If it is not done by the end it is interrupted,
        on which it cancels its jobs."""
        environment = {
            k: v
            for k, v in self.cluster.environment.items()
            if k not in ("OMP_NUM_THREADS", "PYTHONPATH")
        }
        profiles = ["--profile", "profiles/slurm", "--profile", "site"]
        with open(self.workflow.folder / "output.txt", "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                ["snakemake", *targets, *profiles, "--configfile", config],
                cwd=self.workflow.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()

    def run(self, *targets: str, config: str) -> None:
        """A run that must succeed."""
        with self.running(*targets, config=config) as process:
            assert process.wait() == 0, self.output

    def jobs(self) -> list[dict[str, str]]:
        """The jobs sent since this copy was made, finished ones included."""
        return [job for job in self.cluster.jobs() if job["job"] not in self._others]

    @property
    def output(self) -> str:
        """What Snakemake has said so far."""
        return (self.workflow.folder / "output.txt").read_text(encoding="utf-8")
