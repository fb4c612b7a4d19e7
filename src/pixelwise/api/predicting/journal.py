"""The journal of an unfinished folder: what was requested, and which files are finished, so that the same call resumes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.errors import OutputExistsError
from pixelwise.formats.reading import file_hash
from pixelwise.storage import write_atomic

JOURNAL = "journal.jsonl"

# Keys of an entry that name files.
_FILES = ("mask", "masks", "overlay", "confidence", "probabilities", "frames_file")
# Larger files are hashed in three pieces of this size.
_HASHED = 1 << 30
_PIECE = 1 << 24

State = list[int | str]


def resumed(out: Path, request: Mapping[str, Any], overwrite: bool) -> dict[str, dict[str, Any]] | None:
    """Return the finished entries by name if `out` holds an unfinished result of the same request, else None.

    Raises:
        OutputExistsError: it holds an unfinished result of another request, and `overwrite` is false.
    """
    path = out / JOURNAL
    if not path.is_file():
        return None
    lines = journal_lines(path)
    if not lines:
        return {}
    different = next((key for key in request if request[key] != lines[0].get(key)), None)
    if different is not None and overwrite:
        return None
    if different is not None:
        raise OutputExistsError(
            out,
            expected=f"an unfinished prediction with the same {different}",
            found="one with another",
            do="Repeat its command to resume it, choose another --out, or add --overwrite to replace it.",
        )
    return {line["name"]: line for line in lines[1:] if "entry" in line}


def journal_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a journal up to the first one that was cut off; none without a journal."""
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


class Journal:
    """The finished files of an unfinished folder, and finished blocks of large ones, one JSON line each, behind the request."""

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        kept = journal_lines(path)
        self.written = [line["name"] for line in kept[1:] if "entry" in line]
        self._blocks = {line["name"]: line for line in kept[1:] if "entry" not in line}
        lines = [*kept[:1], *(line for line in kept[1:] if "entry" in line), *self._blocks.values()]
        write_atomic(path, "".join(journal_line(line) for line in lines or [dict(request)]).encode())
        self.file = path.open("a", encoding="ascii")
        self.lock = threading.Lock()

    def add(self, name: str, state: State, entry: Mapping[str, Any]) -> None:
        """Record a file whose outputs are on disk, and wait until the record is. Several threads may do so at once."""
        self._store({"name": name, "state": state, "entry": entry})
        self.written.append(name)

    def add_block(self, name: str, state: State, facts: Mapping[str, Any]) -> None:
        """Record how far a file has been predicted, and what is needed to continue, once that is on disk."""
        self._store({"name": name, "state": state, **facts})

    def block(self, name: str, state: State) -> dict[str, Any] | None:
        """Return what an earlier call recorded by `add_block`; None if there is nothing, or the file has changed since."""
        line = self._blocks.get(name)
        return line if line and line["state"][:1] + line["state"][2:] == state[:1] + state[2:] else None

    def _store(self, line: Mapping[str, Any]) -> None:
        with self.lock:
            self.file.write(journal_line(line))
            self.file.flush()
        os.fsync(self.file.fileno())  # outside of the lock: the disk stores several records in the time of one

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def journal_line(plain: Mapping[str, Any]) -> str:
    """Return a line of a journal."""
    return json.dumps(dict(plain)) + "\n"


def state_of(files: Sequence[Path]) -> State:
    """Return what tells changed files from those that were predicted: size, time of modification, SHA-256.

    Of several files, these are the sum, the latest one, and the SHA-256 of theirs. Of a file of more than a gigabyte, three
    pieces are hashed.
    """
    try:
        return [*_size_and_time(files), _contents(files)]
    except OSError:
        return []


def unchanged(files: Sequence[Path], state: State) -> bool:
    """Whether files are those that were predicted; a copy has another time of modification and the same contents."""
    try:
        size, changed = _size_and_time(files)
        return state[:2] == [size, changed] or (state[:1] == [size] and state[2:] == [_contents(files)])
    except OSError:
        return False


def _size_and_time(files: Sequence[Path]) -> tuple[int, int]:
    found = [path.stat() for path in files]
    return sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)


def _contents(files: Sequence[Path]) -> str:
    hashes = [_hash(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _hash(path: Path) -> str:
    size = path.stat().st_size
    if size <= _HASHED:
        return file_hash(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for place in (0, size // 2, size - _PIECE):
            file.seek(place)
            digest.update(file.read(_PIECE))
    return digest.hexdigest()


def complete(out: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the files of an entry are still there."""
    files = [entry[key] for key in _FILES if key in entry]
    return all((out / file).exists() for file in (*files, *entry.get("polygons", {}).values()))
