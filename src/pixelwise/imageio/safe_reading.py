"""Files of strangers: what decoders raise on them, turned into one error with the path and a way out.

Comes in: the path of one local file, and the work to do with it. Goes out: what the work gives, or one `DataError`. Knows
nothing of what is in the file.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.imageio.raster import Refused

_CUT = re.compile(r"truncated|failed to read \d+ bytes|invalid offset|unexpected end|end-of-stream", re.I)


@dataclass
class Meant:
    """Say what the file is meant to be, in words: known better once its first bytes are read."""

    name: str


@contextmanager
def reading(path: Path, error: type[DataError], name: str) -> Iterator[Meant]:
    """Turn every failure within into one `error` that names the file; lack of memory and requests to stop pass through."""
    meant = Meant(name)
    try:
        yield meant
    except Refused as refusal:
        raise error(path, expected=refusal.expected, found=refusal.found, do=refusal.do) from refusal
    except (PixelwiseError, MemoryError):
        raise
    except PermissionError as problem:
        raise error(
            path, expected="a file that may be read", found="no permission", do="Change its permissions."
        ) from problem
    except Exception as problem:  # broken files make decoders raise nearly anything
        text = " ".join(str(problem).split()) or type(problem).__name__
        cut = isinstance(problem, EOFError) or _CUT.search(text)
        found = "one that ends early (truncated)" if cut else f"one that cannot be decoded ({text[:120]})"
        raise error(
            path, expected=f"a whole {meant.name}", found=found, do="Copy or export the file again, or take it out."
        ) from problem


def require_file(path: Path, wanted: str) -> None:
    """Refuse what is no regular file with something in it.

    Raises:
        Refused: it is not.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise Refused(wanted, "nothing", "Check the path.") from problem
    if stat.S_ISDIR(status.st_mode):
        raise Refused(wanted, "a folder", "Name a file inside it.")
    if not stat.S_ISREG(status.st_mode):
        raise Refused(wanted, "no regular file", "Name a file that lies on a disk.")
    if status.st_size == 0:
        raise Refused(wanted, "an empty file", "Copy or export the file again, or take it out.")


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
