"""A function of many items, computed by several processes; a process that is killed is reported with its item."""

import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from duodiff.running.signals import how_it_ended

T = TypeVar("T")
R = TypeVar("R")

_SPAWN = get_context("spawn")  # a forked process may hang if there are threads
_CHUNK = 64  # items a message
_AHEAD = 4  # chunks in flight or waiting for their turn, for each process


class Lost(Exception):
    """A process was killed, or had no memory left. `item` is the item that it was at; None if it had not begun.

    The message says what became of the process.
    """

    def __init__(self, item: Any, message: str):
        super().__init__(message)
        self.item = item


def mapped(
    function: Callable[[T], R], items: Iterable[T], processes: int, chunk: int | None = None
) -> Iterator[R]:
    """`function` of each item, in their order, computed by so many processes; 1 is this process itself.

    A process is given `chunk` items at a time: by default as many as hide the cost of a message.

    Memory does not grow with the number of items. Raises what `function` raises, and Lost for a process that is killed
    and for a MemoryError.
    """
    if processes == 1:
        for item in items:
            try:
                result = function(item)
            except MemoryError as error:
                raise Lost(item, _NO_MEMORY) from error
            yield result
        return
    team = [_Worker(function) for _ in range(processes)]
    try:
        yield from _in_order(team, iter(items), chunk or _CHUNK)
    finally:
        for worker in team:
            worker.end()


_NO_MEMORY = "had no memory left"


class _Worker(Generic[T, R]):
    """A process that computes one chunk at a time."""

    def __init__(self, function: Callable[[T], R]):
        self.connection, other = _SPAWN.Pipe()
        self._position = _SPAWN.RawValue("q", 0)  # in the chunk
        self._process = _SPAWN.Process(
            target=_serve, args=(function, other, self._position), daemon=True
        )
        self._process.start()
        other.close()
        self._number, self._chunk = 0, list[T]()

    def give(self, number: int, chunk: list[T]) -> None:
        """Sends a chunk, the `number`-th of all."""
        self._number, self._chunk, self._position.value = number, chunk, -1
        try:
            self.connection.send(chunk)
        except OSError:
            self._fail()

    def take(self) -> tuple[int, list[R]]:
        """The number and the results of the chunk; waits for them."""
        try:
            results = self.connection.recv()
        except (OSError, EOFError):
            self._fail()
        if isinstance(results, MemoryError):
            raise Lost(self._item(), _NO_MEMORY) from results
        if isinstance(results, BaseException):
            raise results
        return self._number, results

    def _fail(self) -> None:
        self._process.join()
        raise Lost(self._item(), how_it_ended(self._process.exitcode or 0))

    def _item(self) -> T | None:
        return self._chunk[self._position.value] if self._position.value >= 0 else None

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        self._process.terminate()
        self._process.join()
        self.connection.close()


def _serve(function: Callable[[T], R], connection: Connection, position: Any) -> None:
    """Computes chunks until the other end is closed."""
    # a Ctrl-C goes to all processes: the first one ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(_computed(function, connection.recv(), position))


def _computed(function: Callable[[T], R], chunk: list[T], position: Any) -> list[R] | Exception:
    """The results of a chunk, or the error that it raised, with its traceback as a note."""
    results = []
    try:
        for position.value, item in enumerate(chunk):
            results.append(function(item))
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error
    return results


def _in_order(team: list[_Worker], items: Iterator, size: int) -> Iterator:
    chunks = enumerate(iter(lambda: list(islice(items, size)), []))
    idle, working = list(team), []
    given = first = 0  # the number of chunks given, and of those whose results are out
    results: dict[int, list] = {}
    while True:
        while idle and given < first + _AHEAD * len(team) and (task := next(chunks, None)):
            worker = idle.pop()
            worker.give(*task)
            working.append(worker)
            given += 1
        if first == given:
            return
        while first in results:  # while the others work
            yield from results.pop(first)
            first += 1
        finished = wait([worker.connection for worker in working]) if working else []
        for worker in [worker for worker in working if worker.connection in finished]:
            working.remove(worker)
            number, computed = worker.take()
            results[number] = computed
            idle.append(worker)
