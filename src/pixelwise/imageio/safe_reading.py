"""Convert the exceptions of decoders into errors with the path and advice."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.imageio.library_messages import silenced
from pixelwise.imageio.raster import Refused

_CUT = re.compile(r"truncated|failed to read \d+ bytes|invalid offset|unexpected end|end-of-stream", re.I)


@dataclass
class Content:
    """The name of what a file should contain; more precise once its first bytes are read."""

    name: str


@contextmanager
def reading(path: Path, error: type[DataError], name: str) -> Iterator[Content]:
    """Convert every exception into an `error` with the path, except lack of memory and pixelwise's own errors.

    Warnings and log records of libraries are dropped.
    """
    content = Content(name)
    try:
        with silenced():
            yield content
    except Refused as refusal:
        raise error(path, expected=refusal.expected, found=refusal.found, do=refusal.do) from refusal
    except (PixelwiseError, MemoryError):
        raise
    except PermissionError as problem:
        raise error(
            path, expected="a readable file", found="no permission to read it", do="Change its permissions."
        ) from problem
    except Exception as problem:  # broken files make decoders raise nearly anything
        text = " ".join(str(problem).split()) or type(problem).__name__
        cut = isinstance(problem, EOFError) or _CUT.search(text)
        found = "one that ends early (truncated)" if cut else f"one that cannot be decoded ({text[:120]})"
        raise error(
            path, expected=f"a complete {content.name}", found=found, do="Copy or export the file again, or remove it."
        ) from problem


def require_file(path: Path, expected: str) -> None:
    """Raise unless a path is a regular file that is not empty.

    Raises:
        Refused: it is not; `expected` describes the file in the message.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise Refused(expected, "nothing", "Check the path.") from problem
    if stat.S_ISDIR(status.st_mode):
        raise Refused(expected, "a folder", "Name a file inside it.")
    if not stat.S_ISREG(status.st_mode):
        raise Refused(expected, "not a regular file", "Name a file on a disk.")
    if status.st_size == 0:
        raise Refused(expected, "an empty file", "Copy or export the file again, or remove it.")


def read_text(path: Path) -> str:
    """Read a small text file that the user wrote.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        found = str(getattr(error, "strerror", None) or error)
        raise ConfigError(path, expected="a text file in UTF-8", found=found, do="Save it as UTF-8.") from error
