"""List the files below a folder, without those that operating systems and file servers add.

The rule is the same for data sets and for images to predict: hidden files and folders (also resource forks, `._a.jpg`), and
the folders and thumbnails of file servers are not content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pixelwise.errors import DataError

# Thumbnails and recycle bins of file servers, resource forks of macOS, folders of the operating system.
_SYSTEM_FOLDERS = {
    "@eadir", "__macosx", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
_THUMBNAILS = ("synophoto_thumb", "synophoto_film", "synovideo_")  # of Synology's servers


def is_system(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or written by an operating system or a file server."""
    lower = name.lower()
    return lower.startswith((".", *_THUMBNAILS)) or lower in _SYSTEM_FOLDERS or lower in _SYSTEM_FILES


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, following links to folders, without those of the system (see `is_system`).

    Raises:
        DataError: a folder cannot be listed; skipping it would lose its files silently.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            error.filename or folder,
            expected="a folder that can be read",
            found=error.strerror or str(error),
            do="Change its permissions, or remove it.",
        ) from error

    for path, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        parent = Path(path)
        folders[:] = [name for name in folders if not is_system(name) and not _is_loop(parent, name)]
        yield from (parent / name for name in names if not is_system(name))


def _is_loop(parent: Path, name: str) -> bool:
    """Whether a folder is a link to itself or a folder above."""
    folder = parent / name
    return folder.is_symlink() and folder.resolve() in {path.resolve() for path in (parent, *parent.parents)}
