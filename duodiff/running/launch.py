"""Starts a script in one process, or with torchrun in one process for each GPU.

    python -m duodiff.running.launch GPUS SCRIPT ...

It exits with the script's own exit code (`duodiff.running.job`); torchrun would exit with 1 for every failure. The
processes share the CPU threads of OMP_NUM_THREADS. A single process starts without importing torch.
"""

import os
import signal
import sys

from duodiff.running.gpus import claim
from duodiff.running.signals import EXIT_CODE, how_it_ended

_ADVICE = (
    "give the job more memory (mem_mb), if that is the cause. The same command continues from what"
    " was saved"
)


def launch(gpus: int, command: list[str]) -> None:
    """Runs `command`, a script and its arguments, in `gpus` processes (at least 1), and exits with its exit code."""
    if gpus <= 1:
        os.execv(sys.executable, [sys.executable, *command])
    try:
        claim(gpus)
    except OSError as error:
        sys.exit(str(error))
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(os.environ.get("OMP_NUM_THREADS", 1)) // gpus))

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # torchrun passes SIGTERM on to its processes. SIGUSR1 would end torchrun alone, so it is turned into SIGTERM.
    signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        # Without the "--", torchrun takes the script's --monitor for its own --monitor-interval.
        run.main(["--standalone", "--nproc-per-node", str(gpus), "--", *command])
    except SignalException:
        sys.exit(EXIT_CODE)
    except ChildFailedError as failed:
        for failure in failed.failures.values():
            if failure.exitcode < 0:  # an error of its own it has logged itself
                ended = f"process {failure.local_rank} of {gpus} {how_it_ended(failure.exitcode)}"
                print(f"{ended}; {_ADVICE}", file=sys.stderr)
        codes = {failure.exitcode for failure in failed.failures.values()}
        sys.exit(EXIT_CODE if EXIT_CODE in codes else 1)


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
