"""The log of a run: events as JSON lines in `log.jsonl`, and as calls of a listener."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelwise.storage import write_atomic

Listener = Callable[[dict[str, Any]], None]


class RunLog:
    """Append events to a file and pass them to a listener.

    Args:
        path: the JSON-lines file; steps after `step`, written before the run was killed, are removed.
        step: the step at which the run continues.
        listener: called with every event.
    """

    def __init__(self, path: Path, step: int, listener: Listener | None) -> None:
        self.listener = listener
        kept = [line for line in _lines(path) if json.loads(line).get("step", 0) <= step]
        write_atomic(path, "".join(f"{line}\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")

    def write(self, event: str, **facts: Any) -> None:
        """Write an event to the file and notify the listener."""
        self.file.write(json.dumps({"event": event, **facts}) + "\n")
        self.file.flush()
        self.notify(event, **facts)

    def notify(self, event: str, **facts: Any) -> None:
        """Notify the listener only, of progress that is not worth keeping."""
        if self.listener:
            self.listener({"event": event, **facts})

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the events of a run, without an incomplete last line."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("{") and line.endswith("}")]
