"""Several iterators at once, in threads, and what they give in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Full, Queue
from typing import TypeVar

__all__ = ["ordered_parallel"]

T = TypeVar("T")
POLL_S = 0.1


class _End:
    """The last thing a thread says: that it is through, or why not."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ordered_parallel(sources: Sequence[Callable[[], Iterator[T]]], n_threads: int, ahead: int) -> Iterator[T]:
    """Yield all of the first source, then all of the second, ...; ``n_threads`` of them are read at the same time.

    Each thread stays at most ``ahead`` items ahead. An error in a source is raised here, in its place. Leaving early
    ends the threads.
    """
    stopped = threading.Event()
    running: deque[Queue[T | _End]] = deque()
    waiting = iter(sources)

    def run(source: Callable[[], Iterator[T]], queue: Queue[T | _End]) -> None:
        try:
            for item in source():
                if not _put(queue, item, stopped):
                    return
            end = _End()
        except BaseException as error:
            end = _End(error)
        _put(queue, end, stopped)

    def start() -> None:
        for source in waiting:
            queue: Queue[T | _End] = Queue(ahead)
            running.append(queue)
            threading.Thread(target=run, args=(source, queue), daemon=True).start()
            return

    try:
        for _ in range(n_threads):
            start()
        while running:
            item = running[0].get()
            if not isinstance(item, _End):
                yield item
                continue
            if item.error:
                raise item.error
            running.popleft()
            start()
    finally:
        stopped.set()


def _put(queue: Queue[T | _End], item: T | _End, stopped: threading.Event) -> bool:
    """Put an item into a queue as soon as there is room; False if nobody wants it any more."""
    while not stopped.is_set():
        try:
            queue.put(item, timeout=POLL_S)
        except Full:
            continue
        return True
    return False
