"""Write files and folders atomically: after a crash or on a full disk, the previous content is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from pixelwise.errors import OutputExistsError, ResourceError

# The content of a run folder (see training.run).
RUN = ("config.yaml", "request.json", "data.json", "log.jsonl", "scores.json", "report.html", "checkpoints", "model")
# The first file written to a run folder; a folder without it is not a run folder.
RUN_MARKER = "request.json"
_LONGEST_NAME = 255


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success, it is flushed to disk and renamed to `path`.

    Raises:
        ResourceError: the disk is full or cannot be written; an existing file is unchanged.
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
        raise write_error(path, error) from error


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success, it is flushed to disk and renamed to `folder`.

    A folder cannot replace another in one rename: between two renames, the old one is at `previous_folder(folder)`.

    Raises:
        ResourceError: the disk is full or cannot be written; an existing folder is unchanged.
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
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)


def _temporary(name: str) -> str:
    """Return the name of the temporary file, with a hash instead of `name` if it would be too long."""
    raw = os.fsencode(name)
    return f".{name}.tmp" if len(raw) <= _LONGEST_NAME - 5 else f".{hashlib.sha256(raw).hexdigest()}.tmp"


def previous_folder(folder: Path) -> Path:
    """Return the path at which `atomic_folder` keeps the old folder between its two renames."""
    return _beside(folder, "previous")


def _beside(folder: Path, state: str) -> Path:
    absolute = folder.absolute()  # "." has no name
    return absolute.with_name(f".{absolute.name}.{state}")


def write_error(path: Path, error: OSError) -> ResourceError:
    """Return the error for a file that cannot be written."""
    return ResourceError(
        path,
        expected="a writable disk with free space",
        found=str(error.strerror or error),
        do="Free disk space or choose another --out. Existing files are unchanged.",
    )


def _flush(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # Windows cannot flush folders
    # Windows can only flush files opened for writing.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` atomically (see `atomic_path`)."""
    # File names may contain bytes that are not valid UTF-8. They become escapes that JSON decodes again.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, plain: Any) -> None:
    """Write plain values as indented JSON, atomically."""
    write_atomic(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def require_claimable(
    folder: Path, overwrite: bool, results: Collection[str] = RUN, marker: str = RUN_MARKER
) -> list[Path]:
    """Raise as `claim_folder` would, and return what it would remove, without removing it."""
    try:
        return _removable(folder, overwrite, results, marker)
    except OSError as error:
        raise write_error(folder, error) from error


def claim_folder(folder: Path, overwrite: bool, results: Collection[str] = RUN, marker: str = RUN_MARKER) -> None:
    """Create `folder`, which must be new or empty; `overwrite` empties it first.

    Args:
        folder: the output folder.
        overwrite: remove an earlier result.
        results: names of files and folders in such a result. Nothing else is removed, in case --out was mistyped.
        marker: the file that identifies a result, since other folders may also contain `masks` or `model`; the caller must
            write it first.

    Raises:
        OutputExistsError: it is not empty and `overwrite` is false, or it contains other files than those of a result.
        ResourceError: it cannot be created or emptied.
    """
    try:
        for path in _removable(folder, overwrite, results, marker):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def _removable(folder: Path, overwrite: bool, results: Collection[str], marker: str) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(
            folder, expected="a new or empty folder", found="a file", do="Choose another --out, or remove the file."
        )
    found = sorted(folder.iterdir()) if folder.exists() else []
    if found and not overwrite:
        raise OutputExistsError(
            folder,
            expected="a new or empty folder",
            found="files in it",
            do="Choose another --out, or add --overwrite to replace it.",
        )
    kept = [p.name for p in found if not (p.name[0] == "." and p.suffix in (".tmp", ".previous"))]
    foreign = kept if marker not in kept else [name for name in kept if name not in results]
    if foreign:
        raise OutputExistsError(
            folder,
            expected="only an earlier result to replace",
            found=", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""),
            do="Choose another --out, or empty the folder manually.",
        )
    return found


def cache_folder() -> Path | None:
    """Return the platform's folder for files that can be made again; None if the user has no home folder."""
    try:
        folder = user_cache_path("pixelwise")
    except RuntimeError:
        return None
    # Earlier versions of platformdirs return ~/.cache, which would be a folder named ~ in the current one.
    return folder if folder.is_absolute() else None


def write_cache(path: Path, content: bytes) -> bool:
    """Write a file of the cache atomically, also while other processes write it; return whether it was possible."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            staged = Path(folder) / path.name
            staged.write_bytes(content)
            staged.replace(path)
            return True
    return False


def trim_cache(folder: Path, most_bytes: int) -> None:
    """Remove the files of a cache folder beyond a total size, those first whose time of modification is the earliest.

    The latest file is kept in any case.
    """
    with suppress(OSError):
        files = sorted(
            (path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.iterdir() if path.is_file()
        )
        total = 0
        for _, size, path in reversed(files):
            total += size
            if most_bytes < total != size:
                path.unlink(missing_ok=True)
