"""Advance an iterator, or apply a function, in threads, so that the work overlaps with that of the consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
_END = object()


def ahead(items: Iterator[T], count: int) -> Iterator[T]:
    """Yield the items of an iterator, of which up to `count` are computed in advance by one thread, in their order.

    An exception of the iterator is raised where its item would have been yielded.
    """
    with ThreadPoolExecutor(1, "ahead") as pool:
        waiting = deque(pool.submit(next, items, _END) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, items, _END))
                yield item  # type: ignore[misc]  # not the sentinel
        finally:
            for future in waiting:
                future.cancel()


def mapped(function: Callable[[S], T], items: Iterator[S], threads: int, count: int) -> Iterator[T]:
    """Yield the results of a function of items, in their order, of which up to `count` are computed in advance by `threads` threads.

    An exception of the function, or of the iterator, is raised where the result would have been yielded.
    """
    waiting: deque[Future[T]] = deque()

    def submit(pool: ThreadPoolExecutor) -> None:
        try:
            waiting.append(pool.submit(function, next(items)))
        except StopIteration:
            return
        except Exception as error:
            failed: Future[T] = Future()
            failed.set_exception(error)
            waiting.append(failed)

    with ThreadPoolExecutor(threads, "mapped") as pool:
        try:
            for _ in range(count):
                submit(pool)
            while waiting:
                result = waiting.popleft().result()
                submit(pool)
                yield result
        finally:
            for future in waiting:
                future.cancel()
