"""Items taken ahead by a thread: their order, their number, errors, and the end of the thread."""

import threading
import time
from collections.abc import Iterator

import pytest

from stages.media.prefetch import prefetch


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_items_come_in_order_and_few_wait() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    ahead = []
    for number in prefetch(items(), 3):
        time.sleep(0.001)
        ahead.append(len(taken) - number)
    assert len(ahead) == 50
    assert max(ahead) <= 6  # three wait, one is in use, one is being put, one is being taken
    assert not _threads()


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("broken")

    ahead = prefetch(items(), 5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="broken"):
        next(ahead)
    assert not _threads()


def test_the_thread_ends_with_its_reader() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    reader = prefetch(endless(), 2)
    assert next(reader) == 0
    assert _threads()
    reader.close()
    assert not _threads()
