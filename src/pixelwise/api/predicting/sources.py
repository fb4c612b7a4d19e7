"""Find the files that the sources of a prediction name, and the names of their outputs."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pixelwise.errors import UsageError
from pixelwise.imageio.file_formats import ARRAY_SUFFIXES, image_files
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.listing import is_system, walk

SOURCE_SUFFIXES = (*IMAGE_SUFFIXES, ".nii", ".nii.gz")


def find_sources(sources: Sequence[str]) -> dict[str, Path]:
    """List the images and volumes that files, folders and globs name, each once.

    Folders are searched recursively, as those of data sets: without hidden files and thumbnails of file servers.

    Returns:
        Name of the output, without suffix → path. Files found in a folder keep their place in it.

    Raises:
        UsageError: a source that does not exist or holds no image.
        DataError: a folder that cannot be listed.
    """
    found: list[tuple[Path, Path]] = []
    for source in sources:
        hits = list(_hits(source))
        if not hits:
            raise UsageError(
                source, expected="an image, a folder of images or a glob", found="none", do="Check the path."
            )
        images = set(image_files([path for path, _ in hits]))  # arrays beside images may be no images
        found += [hit for hit in hits if hit[0] in images or hit[0].suffix.lower() not in ARRAY_SUFFIXES]
    unique: dict[Path, tuple[Path, Path]] = {}
    for path, name in found:
        unique.setdefault(path.absolute(), (path, name))
    stems = Counter(_stem(name) for _, name in unique.values())
    named: dict[str, Path] = {}
    for path, name in unique.values():
        stem = _stem(name)
        key = stem if stems[stem] == 1 else f"{stem}-{_suffix(name)[1:].lower()}"
        while key in named:
            key += "-2"
        named[key] = path
    return named


def _hits(source: str) -> Iterator[tuple[Path, Path]]:
    """Yield each file that a source names, with its place in the output."""
    path = Path(source)
    if path.is_dir():
        for file in sorted(walk(path)):
            if _suffix(file).lower() in SOURCE_SUFFIXES and file.is_file():
                yield file, file.relative_to(path)
    elif path.exists():
        yield path, Path(path.name)
    else:
        for match in sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 - absolute patterns, too
            file = Path(match)
            named = set(path.parts)
            if file.is_file() and not any(is_system(part) and part not in named for part in file.parts):
                yield file, Path(file.name)


def _suffix(path: Path) -> str:
    """Return the suffix of a file, `.nii.gz` whole."""
    return "".join(path.suffixes[-2:]) if path.name.lower().endswith(".nii.gz") else path.suffix


def _stem(name: Path) -> str:
    return str(name).removesuffix(_suffix(name))
