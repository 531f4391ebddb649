"""Items of an iterator, taken ahead of their use by a thread: decoding goes on while a network computes."""

import threading
from collections.abc import Generator, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")
_POLL_S = 0.1
_END = object()


def prefetch(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items in the same order, at most `count` of them waiting.

    An exception of the iterator is raised where it occurred, after the items before it. The thread ends with this generator.
    """
    queue: Queue[Any] = Queue(maxsize=count)
    stopped = threading.Event()

    def put(entry: Any) -> bool:
        while not stopped.is_set():
            try:
                queue.put(entry, timeout=_POLL_S)
                return True
            except Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((_END, None))
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        while True:  # a full queue must not keep the thread
            try:
                queue.get_nowait()
            except Empty:
                break
        thread.join()
