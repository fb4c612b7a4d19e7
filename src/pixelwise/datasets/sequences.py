"""Sequences of images that their names suggest, such as the frames of a video."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath


def parse_frame(path: str) -> tuple[str, int] | None:
    """Return the sequence of a file name, which is the name without its last number, and that number."""
    match = re.search(r"^(.*?)(\d{1,12})(\D*)$", PurePosixPath(path).stem)
    return None if match is None else (f"{match[1]}#{match[3]}", int(match[2]))


def sequences(names: Iterable[str]) -> list[list[int]]:
    """Return the positions of the images of each sequence of at least two, in the order of their numbers."""
    found: dict[str, list[tuple[int, int]]] = {}
    for position, name in enumerate(names):
        frame = parse_frame(name)
        if frame is not None:
            found.setdefault(f"{PurePosixPath(name).parent}/{frame[0]}", []).append((frame[1], position))
    return [[position for _, position in sorted(frames)] for frames in found.values() if len(frames) > 1]
