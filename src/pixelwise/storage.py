"""Write files so that a crash, a kill or a full disk never leaves half of one.

Comes in: a path and what to write. Goes out: the whole file under its name, or the old one untouched. Knows nothing of
what the bytes mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelwise.errors import OutputExistsError, ResourceError

# What a run folder is made of (see training.run).
RUN = ("config.yaml", "request.json", "data.json", "log.jsonl", "scores.json", "report.html", "checkpoints", "model")
# Written first into a run folder: where it is missing, the folder is no run, whatever else is in it.
RUN_MARKER = "request.json"
_LONGEST_NAME = 255


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it is flushed to disk and takes the name.

    Raises:
        ResourceError: the disk is full or cannot be written; the file that was there before is untouched.
    """
    temporary = path.with_name(_temporary(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _no_room(path, error) from error


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`; when the block ends well it is flushed to disk and takes its place.

    One folder cannot be renamed onto another: between two renames the previous one stands under the name that
    `previous_folder` gives.

    Raises:
        ResourceError: the disk is full or cannot be written; the folder that was there before is untouched.
    """
    fresh, previous = _beside(folder, "tmp"), previous_folder(folder)
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        for path in (*fresh.iterdir(), fresh):
            _flush(path)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        fresh.rename(folder)
        _flush(folder.absolute().parent)
    except OSError as error:
        if previous.exists() and not folder.exists():
            previous.rename(folder)
        raise _no_room(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)


def _temporary(name: str) -> str:
    """Name the file while it is written; a name as long as names may be leaves no room for more."""
    raw = os.fsencode(name)
    return f".{name}.tmp" if len(raw) <= _LONGEST_NAME - 5 else f".{hashlib.sha256(raw).hexdigest()}.tmp"


def previous_folder(folder: Path) -> Path:
    """Name the place where `atomic_folder` keeps the old folder between its two renames."""
    return _beside(folder, "previous")


def _beside(folder: Path, state: str) -> Path:
    whole = folder.absolute()  # "." has no name of its own
    return whole.with_name(f".{whole.name}.{state}")


def _no_room(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        path,
        expected="room to write",
        found=str(error.strerror or error),
        do="Free space or choose another --out; what was there before is untouched.",
    )


def _flush(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # Windows syncs no folders
    # Windows flushes only what may be written to.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` under `path`, whole or not at all (see `atomic_path`)."""
    # File names are any bytes; those that UTF-8 cannot hold become escapes, which JSON reads back as they were.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, plain: Any) -> None:
    """Write plain values as readable JSON, whole or not at all."""
    write_atomic(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def require_claimable(
    folder: Path, overwrite: bool, results: Collection[str] = RUN, marker: str = RUN_MARKER
) -> list[Path]:
    """Raise where `claim_folder` would, and remove nothing; give what it would remove.

    Arguments and errors as there.
    """
    try:
        return _held(folder, overwrite, results, marker)
    except OSError as error:
        raise _no_room(folder, error) from error


def claim_folder(folder: Path, overwrite: bool, results: Collection[str] = RUN, marker: str = RUN_MARKER) -> None:
    """Make `folder`, which must be new or empty; `overwrite` empties it first.

    Args:
        folder: where the output goes.
        overwrite: remove an earlier result.
        results: what such a result is made of; nothing else is ever removed, so that a mistyped --out costs nothing.
        marker: the file among them that tells a result from other people's `masks` or `model`; the caller writes it first.

    Raises:
        OutputExistsError: it holds something and `overwrite` is false, or something that is no earlier result.
        ResourceError: it cannot be made or emptied.
    """
    try:
        for path in _held(folder, overwrite, results, marker):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_room(folder, error) from error


def _held(folder: Path, overwrite: bool, results: Collection[str], marker: str) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(
            folder, expected="a new or empty folder", found="a file", do="Choose another --out, or remove it."
        )
    held = sorted(folder.iterdir()) if folder.exists() else []
    if held and not overwrite:
        raise OutputExistsError(
            folder,
            expected="a new or empty folder",
            found="files in it",
            do="Choose another --out, or add --overwrite to replace it.",
        )
    kept = [p.name for p in held if not (p.name[0] == "." and p.suffix in (".tmp", ".previous"))]
    foreign = kept if marker not in kept else [name for name in kept if name not in results]
    if foreign:
        raise OutputExistsError(
            folder,
            expected="nothing but an earlier result to replace",
            found=", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""),
            do="Choose another --out, or empty the folder yourself.",
        )
    return held
