"""A function of many items in several processes: order, errors, and processes that are killed."""

import os
import signal
from itertools import count, islice
from multiprocessing import active_children

import pytest

from duodiff.running import pool
from duodiff.running.pool import Lost, mapped
from duodiff.running.signals import how_it_ended


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(pool, "_CHUNK", 3)


def square(x):
    return x * x


def killed_at_25(x):
    if x == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def without_memory_at_25(x):
    if x == 25:
        raise MemoryError
    return x


def wrong_at_25(x):
    if x == 25:
        raise ValueError("wrong value")
    return x


class EndsItsReader:
    def __reduce__(self):
        return os._exit, (9,)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_results_are_in_the_order_of_the_items(processes, n):
    assert list(mapped(square, range(n), processes)) == [i * i for i in range(n)]
    assert active_children() == []


def test_items_are_read_as_they_are_needed_and_processes_end_with_their_reader():
    read = count()
    results = mapped(square, read, 2)
    assert list(islice(results, 10)) == [i * i for i in range(10)]
    assert len(active_children()) == 2
    results.close()
    assert active_children() == []
    assert next(read) <= 10 + 2 * 3 * pool._AHEAD + 3


def test_a_killed_process_is_reported_with_the_item_it_had():
    results = mapped(killed_at_25, range(50), 2)
    with pytest.raises(Lost, match=r"was killed \(SIGKILL\), most likely because memory") as lost:
        list(results)
    assert lost.value.item == 25
    assert active_children() == []


def test_a_process_that_ends_before_its_first_item_is_reported_without_one():
    with pytest.raises(Lost, match="ended with exit code 9") as lost:
        list(mapped(square, [EndsItsReader()], 2))
    assert lost.value.item is None


@pytest.mark.parametrize("processes", [1, 2])
def test_a_lack_of_memory_is_reported_with_the_item(processes):
    with pytest.raises(Lost, match="had no memory left") as lost:
        list(mapped(without_memory_at_25, range(50), processes))
    assert lost.value.item == 25


@pytest.mark.parametrize("processes", [1, 2])
def test_other_errors_are_raised_as_they_are(processes):
    with pytest.raises(ValueError, match="wrong value") as error:
        list(mapped(wrong_at_25, range(50), processes))
    shown = "\n".join(getattr(error.value, "__notes__", [])) or str(error.traceback[-1])
    assert "wrong_at_25" in shown


def test_how_a_process_ended_is_said_in_words():
    assert "memory" in how_it_ended(-signal.SIGKILL)
    assert how_it_ended(-signal.SIGSEGV) == "was ended by SIGSEGV"
    assert how_it_ended(-40) == "was ended by signal 40"
    assert how_it_ended(1) == "ended with exit code 1"
