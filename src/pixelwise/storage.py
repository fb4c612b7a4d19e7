"""Write files so that a crash, a kill or a full disk never leaves half of one.

Comes in: a path and what to write. Goes out: the whole file under its name, or the old one untouched. Knows nothing of
what the bytes mean.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelwise.errors import OutputExistsError, ResourceError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it is flushed to disk and takes the name.

    Raises:
        ResourceError: the disk is full or cannot be written; the file that was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise ResourceError(
            path,
            expected="room to write",
            found=str(error.strerror or error),
            do="Free space or choose another --out; what was there before is untouched.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` under `path`, whole or not at all (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, plain: Any) -> None:
    """Write plain values as readable JSON, whole or not at all."""
    write_atomic(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def claim_folder(folder: Path, overwrite: bool) -> None:
    """Make `folder`, which must be new or empty; `overwrite` empties it first.

    Raises:
        OutputExistsError: it holds something and `overwrite` is false.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not overwrite:
            raise OutputExistsError(
                folder,
                expected="a new or empty folder",
                found="files in it" if folder.is_dir() else "a file",
                do="Choose another --out, or add --overwrite to replace it.",
            )
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
