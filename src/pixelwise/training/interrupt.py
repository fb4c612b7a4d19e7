"""Turn Ctrl-C and SIGTERM into an exception that is raised only when the state is consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pixelwise.errors import Interrupted


class StopSignal:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; the second one terminates the process as usual.

    Signals are caught inside `with stop:`, in the main thread only. Inside `with stop.held():` (while weights or files
    are written) the exception is deferred to the end of the block.

    Args:
        where: the run folder, for the message.
        saved: what is saved when the exception is reported, for the message.
    """

    def __init__(self, where: object, saved: str) -> None:
        self.where = where
        self.saved = saved
        self.requested = False
        self._held = 0
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, self._previous_handlers[number])
        self.requested = True
        if not self._held:
            self.check()

    def check(self) -> None:
        """Raise if a stop was requested.

        Raises:
            Interrupted: a signal was received.
        """
        if self.requested:
            raise Interrupted(self.where, found=self.saved)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer the exception to the end of the block."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()
