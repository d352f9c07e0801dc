"""Requests to stop a job: SIGTERM and SIGUSR1 from a scheduler, SIGINT from the keyboard (standard library only)."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 75
"""The exit code of a job that was asked to stop and continues when it is run again (EX_TEMPFAIL of sysexits.h)."""

_ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def how_it_ended(code: int) -> str:
    """What became of a process, from its exit code; that of one that a signal ended is the signal's number, negative.

    The system kills a process where memory runs out, and a scheduler kills one that takes more than it asked for.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), most likely because memory ran out"
    names = {number.value: number.name for number in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"


class Stopped(BaseException):
    """The process was asked to stop and can end now. The message says what the next run does.

    Like KeyboardInterrupt it is no Exception, so code that handles errors does not catch it.
    """


class Request:
    """The name of the signal that asked the process to stop; None before."""

    def __init__(self):
        self.signal: str | None = None

    def note(self, number: int, frame) -> None:
        """The signal handler: remembers the signal and lets the process go on."""
        self.signal = signal.Signals(number).name


@contextmanager
def noted() -> Iterator[Request]:
    """Inside the block, a request to stop is only noted in the yielded Request. The block decides when to end."""
    request = Request()
    before = {number: signal.signal(number, request.note) for number in _ASKING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_at_once() -> None:
    """From now on, a request to stop raises Stopped at once, wherever the process is."""
    for number in _ASKING:
        signal.signal(number, _stop)


def _stop(number: int, frame) -> None:
    for asking in _ASKING:  # a second request does not interrupt the cleanup
        signal.signal(asking, signal.SIG_IGN)
    raise Stopped(f"stopped by {signal.Signals(number).name}; run again to continue")
