"""Read what a run folder contains, for the report.

Runs may be unfinished or damaged: missing or unreadable files lead to empty values, never to an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Event = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A configuration key, its value as text, and the reason for a derived value; empty for given or default values."""

    section: str
    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class RunFolder:
    """The content of a run folder.

    Args:
        settings: settings in `config.yaml`; empty if it is not valid YAML.
        config: text of `config.yaml`.
        data: content of `data.json`.
        card: content of `model/model.json`.
        events: events in `log.jsonl`, in order.
    """

    settings: tuple[Setting, ...] = ()
    config: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()

    def of(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.get("event") == kind]

    @property
    def calibration(self) -> Mapping[str, Any]:
        """How the probabilities were calibrated; empty if they were not."""
        found = self.card.get("calibration")
        return found if isinstance(found, Mapping) else {}


def read_run(folder: Path) -> RunFolder:
    """Read a run folder."""
    config = _text(folder / "config.yaml")
    return RunFolder(
        settings=tuple(read_settings(config)),
        config=config,
        data=_mapping(_text(folder / "data.json")),
        card=_mapping(_text(folder / "model" / "model.json")),
        # A process killed while writing leaves an incomplete last line.
        events=tuple(event for line in _text(folder / "log.jsonl").splitlines() if (event := _mapping(line))),
    )


def read_settings(text: str) -> list[Setting]:
    """Read `section: {key: value  # reason}` from a YAML text; empty if it has another form."""
    try:
        return list(_settings(yaml.compose(text, Loader=yaml.SafeLoader), text))
    except (yaml.YAMLError, ValueError, RecursionError):
        return []


def _settings(root: Any, text: str) -> Iterator[Setting]:
    if not isinstance(root, yaml.MappingNode):
        return
    for section, values in root.value:
        entries = values.value if isinstance(values, yaml.MappingNode) else [(section, values)]
        for key, value in entries:
            # Block values end at the start of a later line, so that what follows them is not a comment.
            written = text[value.start_mark.index : value.end_mark.index]
            rest = "" if written.endswith("\n") else text[value.end_mark.index :].partition("\n")[0].strip()
            reason = rest.removeprefix("#").strip() if rest.startswith("#") else ""
            yield Setting(str(section.value), "" if key is section else str(key.value), written.strip(), reason)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return ""


def _mapping(text: str) -> dict[str, Any]:
    """Parse a JSON object; empty if the text is not one."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}
