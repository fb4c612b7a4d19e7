"""What happened, as one JSON object a line, and as events for whoever watches.

Comes in: events. Goes out: `log.jsonl`, and the same events to a listener. Knows nothing of training or of terminals.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelwise.storage import write_atomic

Listener = Callable[[dict[str, Any]], None]


class RunLog:
    """Append events to a file and hand them to a listener.

    Args:
        path: the JSON-lines file; lines of steps after `step` (written before a kill, done again now) are dropped.
        step: the step the run goes on from.
        listener: called with every event.
    """

    def __init__(self, path: Path, step: int, listener: Listener | None) -> None:
        self.listener = listener
        kept = [line for line in _lines(path) if json.loads(line).get("step", 0) <= step]
        write_atomic(path, "".join(f"{line}\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")

    def write(self, event: str, **facts: Any) -> None:
        """Record one event and tell the listener."""
        entry = {"event": event, **facts}
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        self.tell(event, **facts)

    def tell(self, event: str, **facts: Any) -> None:
        """Tell the listener only: progress that nobody wants to read again."""
        if self.listener:
            self.listener({"event": event, **facts})

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the events of a run, a torn last line left out."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("{") and line.endswith("}")]
