"""Advance an iterator in a thread, so that its work overlaps with that of its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
