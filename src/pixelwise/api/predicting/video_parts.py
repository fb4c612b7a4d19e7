"""The finished segments of a video that is being predicted, in a folder with a journal, so that a stopped run is resumed.

The journal is a file of JSON lines: the request, one line per segment, and the entry of the finished video. The line of a segment
is written only after its files are on disk; files without a line are written again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.predicting.journal import JOURNAL, journal_line, journal_lines, state_of, unchanged
from pixelwise.storage import atomic_path, write_atomic


class Parts:
    """The segments of one video.

    Args:
        folder: made if it does not exist.
        path: the video.
        request: what must be equal for the segments to be used again. If it is not, or if the video has changed since, they are
            removed.
    """

    def __init__(self, folder: Path, path: Path, request: Mapping[str, Any]) -> None:
        self.folder = folder
        lines = journal_lines(folder / JOURNAL)
        if not (lines and lines[0]["request"] == dict(request) and unchanged((path,), lines[0]["video"])):
            shutil.rmtree(folder, ignore_errors=True)
            lines = [{"request": dict(request), "video": state_of((path,))}]
        write_atomic(folder / JOURNAL, "".join(map(journal_line, lines)))  # without a line that was cut off
        self.segments: list[dict[str, Any]] = [line for line in lines[1:] if "entry" not in line]
        self.entry: dict[str, Any] | None = next((line["entry"] for line in lines[1:] if "entry" in line), None)

    def path(self, number: int, suffix: str) -> Path:
        """Return the path of a file of a segment."""
        return self.folder / f"{number:06}{suffix}"

    def files(self, suffix: str) -> list[Path]:
        """Return these files of all segments."""
        return [self.path(number, suffix) for number in range(len(self.segments))]

    def add(self, segment: Mapping[str, Any], state: Mapping[str, NDArray[Any]]) -> None:
        """Record a segment whose files are on disk, with the arrays from which its successor continues."""
        number = len(self.segments)
        with atomic_path(self.path(number, ".npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, **state)  # type: ignore[arg-type]
        self._append(segment)
        self.segments.append(dict(segment))
        self.path(number - 1, ".npz").unlink(missing_ok=True)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the last segment."""
        with np.load(self.path(len(self.segments) - 1, ".npz"), allow_pickle=False) as archive:
            return dict(archive)

    def finish(self, entry: Mapping[str, Any]) -> None:
        """Record the entry of the video, whose files are complete, and remove the segments."""
        self._append({"entry": dict(entry)})
        for file in self.folder.iterdir():
            if file.name != JOURNAL:
                file.unlink()

    def _append(self, line: Mapping[str, Any]) -> None:
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(journal_line(line))
            file.flush()
            os.fsync(file.fileno())


def join_text(files: Iterable[Path], path: Path) -> None:
    """Write the contents of files one after another into a new file."""
    with atomic_path(path) as temporary, temporary.open("wb") as target:
        for file in files:
            with file.open("rb") as source:
                shutil.copyfileobj(source, target)
