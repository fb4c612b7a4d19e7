"""The place where a data set lies: its files, its images by name, and the parts that names tell.

Comes in: the root folder and the `data` section. Goes out: lists of files, and the image that a name in an annotation
means. Knows nothing of any format. A name found in a file is never used as a path: images are looked up among the files
that lie below the root, so no annotation can reach beyond it.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pixelwise.config import DataConfig
from pixelwise.errors import ConfigError, DataError
from pixelwise.formats.records import SPLIT_FOLDERS, Layout, Problem, Record, composed
from pixelwise.imageio.images import IMAGE_SUFFIXES

# Thumbnails of a file server, resource forks from a Mac, what a drive's own system keeps.
_NOBODYS = {"@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
_PART_WORDS = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}


@dataclass(frozen=True)
class DatasetRoot:
    """Name where a data set lies.

    Args:
        root: its folder.
        base: the folder of the YAML file.
        config: the `data` section.

    """

    root: Path
    base: Path
    config: DataConfig

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """List every file below the root, sorted; hidden ones are left out.

        Raises:
            DataError: a folder that cannot be listed.

        """
        return tuple(sorted(walk(self.root)))

    @cached_property
    def images(self) -> ImageIndex:
        """Give the images below the root, or those that `data.images` names."""
        wanted = self.config.images
        if wanted is None:
            return ImageIndex(self.root, self.files)
        patterns = [wanted] if isinstance(wanted, str) else wanted
        found = {path for pattern in patterns for path in self._glob(pattern, "data.images")}
        inside = {below for path in found if path.is_dir() for below in walk(path)}
        return ImageIndex(self.root, sorted(inside | {path for path in found if path.is_file()}))

    def annotations(self, suffix: str) -> tuple[Path, ...]:
        """Give the annotation files of a suffix: those that `data.annotations` names, else all below the root.

        Raises:
            ConfigError: a pattern that matches nothing.

        """
        wanted = self.config.annotations
        if wanted is None:
            return tuple(path for path in self.files if path.suffix.lower() == suffix)
        patterns = [wanted] if isinstance(wanted, str) else wanted
        found = sorted({path for pattern in patterns for path in self._glob(pattern, "data.annotations")})
        inside = (below for path in found if path.is_dir() for below in sorted(walk(path)))
        return tuple(path for path in (*(p for p in found if p.is_file()), *inside) if path.suffix.lower() == suffix)

    def matching(self, patterns: str | list[str], where: str) -> list[Path]:
        """Find the files and folders that patterns, relative to the root or absolute, name; `where` is for messages.

        Raises:
            ConfigError: a pattern that matches nothing.

        """
        patterns = [patterns] if isinstance(patterns, str) else patterns
        return sorted({path for pattern in patterns for path in self._glob(pattern, where)})

    def _glob(self, pattern: str, where: str) -> list[Path]:
        """Find what a pattern, relative to the root or absolute, names."""
        whole = Path(pattern)
        top = Path(whole.anchor) if whole.is_absolute() else self.root
        inner = str(whole.relative_to(top)) if whole.is_absolute() else pattern
        found = [whole] if whole.is_absolute() and whole.exists() else []
        if not found and pattern != whole.anchor:
            try:
                found = [path for path in top.glob(inner) if not path.name.startswith(".")]
                found = [path.resolve() for path in found] if ".." in whole.parts else found
            except (ValueError, NotImplementedError) as error:
                raise ConfigError(
                    where, expected="a pattern relative to the root", found=f"{pattern!r} ({error})", do="Correct it."
                ) from error
        if not found and "[" in pattern and (top / inner).exists():  # a name with brackets, and no pattern
            found = [(top / inner).resolve() if ".." in whole.parts else top / inner]
        if not found:
            raise ConfigError(
                where, expected=f"files that match {pattern!r} in {self.root}", found="none", do="Check the pattern."
            )
        return found


class ImageIndex:
    """Find the image that an annotation means by the name it gives.

    Args:
        root: names may be relative to it.
        files: where images are looked for; other files are passed over.
    """

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self.root = root
        self.paths = tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
        self._names: dict[str, list[Path]] = defaultdict(list)
        self._stems: dict[str, list[Path]] = defaultdict(list)
        self._inside: dict[str, Path] = {}
        for path in self.paths:
            self._names[composed(path.name)].append(path)
            self._stems[composed(path.stem)].append(path)
            if path.is_relative_to(root):
                self._inside[composed(path.relative_to(root).as_posix())] = path

    @cached_property
    def _above(self) -> Path:
        """Give the folder that ids start from: the root, or what all images share where some lie elsewhere."""
        if all(path.is_relative_to(self.root) for path in self.paths):
            return self.root
        return Path(os.path.commonpath([path.absolute().parent for path in self.paths]))

    def id_of(self, path: Path) -> str:
        """Give one of the images its id: its path, without suffix, below the root or the folder that all share."""
        below = path if self._above is self.root else path.absolute()
        return below.relative_to(self._above).with_suffix("").as_posix()

    def find(self, name: str, near: Path | None = None) -> Path | str:
        """Find an image by name or path, as some tool on some machine wrote it: only its end needs to agree.

        Args:
            name: with either kind of slash, as a path or an address; a suffix is not needed where the stem is unique.
            near: the annotation file; of several images, one in its folder, or in one of the same part, is meant.

        Returns:
            The image; or why there is none, in words.

        """
        pure = PurePosixPath(composed(name.replace("\\", "/")))
        if not (pure.name in self._names or pure.name in self._stems) or "?" not in pure.name:
            pure = PurePosixPath(str(pure).split("?", 1)[0])  # what an address asks for, unless a file is called so
        exact = self._exactly(pure, near)
        candidates = [exact] if exact is not None else self._names.get(pure.name, [])
        if not candidates and pure.suffix.lower() not in IMAGE_SUFFIXES:
            candidates = self._stems.get(pure.name, [])
        if len(candidates) > 1:
            candidates = _longest_tail(candidates, pure)
        if len(candidates) > 1 and near is not None:
            beside = [path for path in candidates if path.parent == near.parent]
            split = split_of_file(near, self.root)
            of_split = [path for path in candidates if split and split_of_folder(path, self.root) == split]
            candidates = beside or of_split or candidates
        if len(candidates) > 1:  # a tool leaves out the folders above, not those between
            top = min(candidates, key=lambda path: len(path.parts))
            below = [path for path in candidates if path.parent != top.parent and path.is_relative_to(top.parent)]
            candidates = [top] if len(below) == len(candidates) - 1 else candidates
        if not candidates:
            return "no such image"
        return candidates[0] if len(candidates) == 1 else f"{len(candidates)} images of that name"

    def _exactly(self, name: PurePosixPath, near: Path | None) -> Path | None:
        """Find an image whose path, from the annotation file or, where it has folders, from the root, is just that."""
        if near is not None and near.is_relative_to(self.root):
            above = PurePosixPath(composed(near.relative_to(self.root).parent.as_posix()))
            if (found := self._inside.get((above / name).as_posix())) is not None:
                return found
        return self._inside.get(name.as_posix()) if len(name.parts) > 1 else None

    @cached_property
    def folders(self) -> frozenset[str]:
        """Give the names of all folders, below the root, that images lie in or below."""
        return frozenset(name for path in self._inside for name in PurePosixPath(path).parent.parts)


def _longest_tail(candidates: list[Path], name: PurePosixPath) -> list[Path]:
    """Keep the paths that have most folder names, from the end, in common with a name."""

    def common(path: Path) -> int:
        own = path if name.suffix.lower() in IMAGE_SUFFIXES else path.with_suffix("")
        pairs = zip(map(composed, reversed(own.parts)), reversed(name.parts), strict=False)
        return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(path.parts), len(name.parts)))

    best = max(map(common, candidates))
    return [path for path in candidates if common(path) == best]


def split_of_folder(path: Path, root: Path) -> str | None:
    """Tell the part that one of a file's folders below the root is called after, the outermost first: train2017/, valid/."""
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    names = (folder.lower() for folder in inside.parent.parts)
    return next((_PART_WORDS[bare] for name in names if (bare := name.rstrip("0123456789_-")) in _PART_WORDS), None)


def split_of_file(path: Path, root: Path) -> str | None:
    """Tell the part that an annotation file's name says, else its folders: annotations/instances_val2017.json is val."""
    words = [word.rstrip("0123456789") for word in re.split(r"[^a-z0-9]+", path.stem.lower())]
    splits = {_PART_WORDS[word] for word in words if word in _PART_WORDS}
    return splits.pop() if len(splits) == 1 else split_of_folder(path, root)


def make_layout(
    kind: str, records: Mapping[str, list[Record]], problems: Iterable[Problem] = (), notices: Iterable[str] = ()
) -> Layout:
    """Make a layout of records per part; those of "pool" join train where there is one."""
    splits = {split: list(own) for split, own in records.items() if own}
    if "train" in splits and "pool" in splits:
        splits["train"] += splits.pop("pool")
    return Layout(kind, {split: tuple(own) for split, own in splits.items()}, tuple(problems), tuple(notices))


def _circle(here: Path, name: str) -> bool:
    """Tell whether a folder is a link that leads back above itself."""
    folder = here / name
    return folder.is_symlink() and folder.resolve() in {path.resolve() for path in (here, *here.parents)}


def walk(folder: Path) -> Iterator[Path]:
    """Give every file below a folder, through links to folders too (each folder once a branch).

    Hidden ones are left out, and what systems keep for themselves.

    Raises:
        DataError: a folder that cannot be listed: what is in it would be missing without a word.

    """

    def refuse(error: OSError) -> None:
        raise DataError(
            error.filename or folder,
            expected="a folder that can be read",
            found=error.strerror or str(error),
            do="Change its permissions, or take it out.",
        ) from error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(place)
        folders[:] = [n for n in folders if not n.startswith(".") and n not in _NOBODYS and not _circle(here, n)]
        yield from (here / name for name in names if not name.startswith("."))
