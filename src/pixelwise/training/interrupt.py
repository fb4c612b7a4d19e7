"""Stopping on request: Ctrl-C and SIGTERM become one exception, at a moment when nothing is half done.

Comes in: signals. Goes out: `Interrupted`, raised in the main thread. Knows nothing of what is being interrupted.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pixelwise.errors import Interrupted


class StopSignal:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; the second ends the process as usual.

    Inside `with stop:` signals are caught. Inside `with stop.held():` (weights being moved, files being written) the
    exception waits until the block ends. Outside the main thread nothing is caught.
    """

    def __init__(self, where: object) -> None:
        self.where = where
        self.requested = False
        self._held = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, self._before[number])
        self.requested = True
        if not self._held:
            self.check()

    def check(self) -> None:
        """Raise where a stop was asked for.

        Raises:
            Interrupted: always then.
        """
        if self.requested:
            raise Interrupted(
                self.where, expected="to finish", found="a request to stop", do="Type the same command again to go on."
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put the exception off until the block is done."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()
