"""Convert the exceptions of decoders into errors with the path and advice."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.silencing import silenced

_CUT = re.compile(
    r"truncated|failed to read \d+ bytes|invalid offset|unexpected end|end-of-stream|is less than expected", re.I
)
_GB18030_PAIRS = re.compile(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]")
_COMMON_SHARE = 0.75  # of the characters, at least, are in GB 2312


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
        ConfigError: it cannot be read, or its encoding is unknown (see `decode`).
    """
    try:
        return decode(path.read_bytes())[0].replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeError) as error:
        found = describe_unreadable(error)
        raise ConfigError(path, expected="a text file in UTF-8", found=found, do="Save it as UTF-8.") from error


def decode(data: bytes) -> tuple[str, str]:
    """Decode text in UTF-8, UTF-16 or UTF-32, or in GB 18030 if nearly all its characters are common Chinese ones.

    Returns:
        The text, and "GB 18030" if it is in that encoding, otherwise "".

    Raises:
        UnicodeError: another encoding, such as Latin-1, which cannot be told from the content.
    """
    unicode = json.detect_encoding(data)  # by a byte order mark or by zero bytes
    try:
        return data.decode(unicode, "surrogatepass"), ""
    except UnicodeDecodeError:
        pairs = _GB18030_PAIRS.findall(data)
        common = sum(0xA1 <= first <= 0xF7 and second >= 0xA1 for first, second in pairs)
        # A single accented letter of Latin-1 and the ASCII letter behind it would be a rare character.
        if unicode.startswith("utf-8") and pairs and common >= _COMMON_SHARE * len(pairs):
            with suppress(UnicodeDecodeError):
                return data.decode("gb18030"), "GB 18030"
        raise


def describe_unreadable(error: Exception) -> str:
    """Describe why a text file cannot be read, on one line of at most 160 characters."""
    if isinstance(error, UnicodeDecodeError) and error.encoding.startswith("utf-8"):
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        return f"text in another encoding, such as Latin-1 or Windows-1252 ({byte})"
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:160]
