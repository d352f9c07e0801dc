"""Several processes of a script: what their end is reported as."""

import runpy
import signal
import subprocess
from pathlib import Path

import pytest
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from duodiff.running import launch
from duodiff.running.signals import EXIT_CODE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def ended(monkeypatch, capsys):
    """Launches two processes, one of which ends with an exit code; the code of the launch, and what it says."""
    monkeypatch.setattr(launch, "claim", lambda gpus: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    handler = signal.getsignal(signal.SIGUSR1)

    def of(code: int) -> tuple[int, str]:
        def main(arguments):
            raise ChildFailedError("script", {1: ProcessFailure(1, 7, code, "none")})

        monkeypatch.setattr(run, "main", main)
        with pytest.raises(SystemExit) as end:
            launch.launch(2, ["script.py"])
        return end.value.code, capsys.readouterr().err

    yield of
    signal.signal(signal.SIGUSR1, handler)


def test_a_killed_process_is_named_with_the_likely_cause(ended):
    code, said = ended(-signal.SIGKILL)
    assert code == 1
    assert said.startswith(
        "process 1 of 2 was killed (SIGKILL), most likely because memory ran out;"
    )
    assert "give the job more memory" in said
    assert "process 1 of 2 was ended by SIGSEGV;" in ended(-signal.SIGSEGV)[1]


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (EXIT_CODE, EXIT_CODE)])
def test_a_process_that_ended_by_itself_has_said_why(ended, code, expected):
    assert ended(code) == (expected, "")


def test_a_report_whose_snakemake_is_killed_says_so(monkeypatch, tmp_path):
    def killed(command, **_):
        return subprocess.CompletedProcess(command, -signal.SIGKILL, "", "")

    script = runpy.run_path(str(ROOT / "workflow_scripts/make_report.py"))
    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(
        ValueError, match=r"not made: Snakemake was killed \(SIGKILL\), most likely"
    ):
        script["make_report"]({}, tmp_path / "report.html")
