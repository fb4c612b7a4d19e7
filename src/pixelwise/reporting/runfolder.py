"""What a run folder tells of itself, as far as it does.

Comes in: the folder of a run, finished or not, whole or not. Goes out: its configuration with reasons, its curves, the
facts of its data and of its model. Knows nothing of training, nor of how anything is shown.

Nothing here raises for what is missing or broken: a report shows what there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Event = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Hold one key of the configuration, as text, and why it is so; empty where it was given or is the default."""

    section: str
    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class RunFolder:
    """Hold what a run folder tells.

    Args:
        settings: of `config.yaml`; none where it is no readable YAML.
        config: the text of `config.yaml`.
        data: `data.json`.
        card: `model/model.json`.
        events: of `log.jsonl`, in order.
    """

    settings: tuple[Setting, ...] = ()
    config: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()

    def of(self, kind: str) -> list[Event]:
        """Give the events of one kind."""
        return [event for event in self.events if event.get("event") == kind]


def read_run(folder: Path) -> RunFolder:
    """Read what there is of a run."""
    config = _text(folder / "config.yaml")
    return RunFolder(
        settings=tuple(settings(config)),
        config=config,
        data=_mapping(folder / "data.json"),
        card=_mapping(folder / "model" / "model.json"),
        events=tuple(_events(_text(folder / "log.jsonl"))),
    )


def settings(text: str) -> list[Setting]:
    """Read `section: {key: value  # reason}` from the text of a YAML file; nothing where it is no such file."""
    lines = text.splitlines()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return list(_walk(root, lines))
    except (yaml.YAMLError, ValueError, RecursionError, IndexError):
        return []


def _walk(root: Any, lines: list[str]) -> Iterator[Setting]:
    if not isinstance(root, yaml.MappingNode):
        return
    for section, values in root.value:
        entries = values.value if isinstance(values, yaml.MappingNode) else [(section, values)]
        for key, value in entries:
            start, end = value.start_mark, value.end_mark
            first, last = (start.line, start.column), (end.line, end.column)
            # A value ends where its own characters do: what the line has behind it can only be a comment.
            inside = lines[first[0] : last[0] + 1]
            if len(inside) > 1 and last[1] == 0:
                inside, last = inside[:-1], (last[0] - 1, len(inside[-2]))
            if not inside:
                continue
            rest = inside[-1][last[1] :] if last[0] < len(lines) else ""
            inside[-1] = inside[-1][: last[1]]
            inside[0] = inside[0][first[1] :]
            reason = rest.strip().removeprefix("#").strip() if rest.strip().startswith("#") else ""
            written = "\n".join(inside).strip()
            yield Setting(str(section.value), "" if key is section else str(key.value), written, reason)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return ""


def _mapping(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _events(text: str) -> Iterator[Event]:
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a line that a kill tore
        if isinstance(event, dict):
            yield event
