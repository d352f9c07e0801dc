"""How a job is asked to stop: SIGTERM and SIGUSR1 of a scheduler, SIGINT of a keyboard (standard library only)."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 75
"""Of a job that was asked to stop and continues when it is run again (EX_TEMPFAIL of sysexits.h)."""

_ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(BaseException):
    """The process was asked to stop and has done what it had to; the message says what the next run does.

    Like KeyboardInterrupt it passes by whoever handles errors.
    """


class Request:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self):
        self.signal: str | None = None

    def note(self, number: int, frame) -> None:
        """The handler: remembers the signal, and lets what runs go on."""
        self.signal = signal.Signals(number).name


@contextmanager
def noted() -> Iterator[Request]:
    """Inside the block a request to stop is only noted, in what this yields; the block ends where it can."""
    request = Request()
    before = {number: signal.signal(number, request.note) for number in _ASKING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_at_once() -> None:
    """From now on a request to stop raises Stopped where it finds the process."""
    for number in _ASKING:
        signal.signal(number, _stop)


def _stop(number: int, frame) -> None:
    for asking in _ASKING:  # a second request does not interrupt the clearing up
        signal.signal(asking, signal.SIG_IGN)
    raise Stopped(f"stopped by {signal.Signals(number).name}; run again to continue")
