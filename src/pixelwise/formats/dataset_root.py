"""The root of a data set: its files, its images by name, and the splits that folder and file names indicate.

Names found in annotation files are never used as paths: images are looked up among the files of the data set, so an
annotation cannot reach beyond it.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from pixelwise.config import DataConfig, SplitFilesConfig
from pixelwise.errors import ConfigError
from pixelwise.formats.records import SPLIT_FOLDERS, SPLITS, Layout, Problem, Record, composed
from pixelwise.imageio.file_formats import image_files
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.listing import is_system, walk
from pixelwise.imageio.safe_reading import decode

SPLIT_NAMES = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}


@dataclass(frozen=True)
class DatasetRoot:
    """The folder of a data set and its configuration.

    Args:
        root: the folder.
        base: the folder of the YAML file.
        config: the `data` section.
        used: the files that were read, beside those in records, or that a notice names; the others are reported.
        encodings: the files that are not Unicode, by encoding.
    """

    root: Path
    base: Path
    config: DataConfig
    used: set[Path] = field(default_factory=set, compare=False)
    encodings: dict[str, list[Path]] = field(default_factory=dict, compare=False)

    def use(self, *paths: Path) -> None:
        """Note that files were read, or are named in a notice."""
        self.used.update(paths)

    def decode(self, path: Path) -> str:
        """Read a text file, and note its encoding if it is not Unicode (see `safe_reading.decode`).

        Raises:
            OSError, UnicodeError: it cannot be read or decoded.
        """
        text, encoding = decode(path.read_bytes())
        if encoding:
            self.encodings.setdefault(encoding, []).append(path)
        return text

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files below the root, sorted, without hidden ones.

        Raises:
            DataError: a folder cannot be listed.
        """
        return tuple(sorted(walk(self.root)))

    @cached_property
    def images(self) -> ImageIndex:
        """The images below the root, or those that `data.images` names."""
        patterns = self.config.images
        files = self.files if patterns is None else sorted(set(files_in(self.matching(patterns, "data.images"))))
        return ImageIndex(self.root, files)

    @cached_property
    def named_splits(self) -> dict[str, SplitFilesConfig]:
        """The files that the configuration names: per split, and "pool" for those of `data.images`."""
        named = {split: value for split in SPLITS if isinstance(value := getattr(self.config, split), SplitFilesConfig)}
        if self.config.images is not None:
            named["pool"] = SplitFilesConfig(images=self.config.images)
        return named

    def annotations(self, suffix: str) -> tuple[Path, ...]:
        """Return the annotation files of a suffix: those that `data.annotations` names, otherwise all below the root.

        Raises:
            ConfigError: a pattern matches nothing.
        """
        patterns = self.config.annotations
        files: Iterable[Path] = self.files
        if patterns is not None:
            found = self.matching(patterns, "data.annotations")
            files = files_in([*(p for p in found if p.is_file()), *(p for p in found if p.is_dir())])
        return tuple(path for path in files if path.suffix.lower() == suffix)

    def matching(self, patterns: str | list[str], where: str) -> list[Path]:
        """Return the files and folders that patterns, relative to the root or absolute, match; `where` is for messages.

        Raises:
            ConfigError: a pattern matches nothing.
        """
        patterns = [patterns] if isinstance(patterns, str) else patterns
        return sorted({path for pattern in patterns for path in self._glob(pattern, where)})

    def _glob(self, pattern: str, where: str) -> list[Path]:
        path = Path(pattern)
        top = Path(path.anchor) if path.is_absolute() else self.root
        relative = str(path.relative_to(top)) if path.is_absolute() else pattern
        found = [path] if path.is_absolute() and path.exists() else []
        if not found and pattern != path.anchor:
            found = glob_files(top, relative, where)
        if not found and "[" in pattern and (top / relative).exists():  # a name with brackets, not a pattern
            found = [top / relative]
        if not found:
            expected = f"files that match {pattern!r} in {self.root}"
            raise ConfigError(where, expected=expected, found="none", do="Check the pattern.")
        return [path.resolve() for path in found] if ".." in path.parts else found


def glob_files(root: Path, pattern: str, where: str) -> list[Path]:
    """Return the files and folders that a relative pattern matches, without those of the system that it does not name.

    Raises:
        ConfigError: the pattern is absolute or malformed.
    """
    named = set(PurePosixPath(pattern).parts)
    try:
        paths = list(root.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        found = f"{pattern!r} ({error})"
        raise ConfigError(where, expected="a pattern relative to the root", found=found, do="Correct it.") from error
    return [p for p in paths if not any(is_system(n) and n not in named for n in p.relative_to(root).parts)]


def fill_template(template: str, stem: str, image: Path, parent: str, where: str) -> str:
    """Return the file name that a template with {stem}, {name} or {parent} gives for an image.

    Raises:
        ConfigError: the template has other fields.
    """
    try:
        return template.format(stem=stem, name=image.name, parent=parent)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        expected = "a template with {stem}, {name} or {parent}"
        raise ConfigError(where, expected=expected, found=repr(template), do="Correct it.") from error


class ImageIndex:
    """Finds images by the names that annotations use for them.

    Args:
        root: names may be relative to it.
        files: the files to search; those that are not images are skipped.
    """

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self.root = root
        self.paths = tuple(image_files(files))
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._by_path: dict[str, Path] = {}
        for path in self.paths:
            self._by_name[composed(path.name)].append(path)
            self._by_stem[composed(path.stem)].append(path)
            if path.is_relative_to(root):
                self._by_path[composed(path.relative_to(root).as_posix())] = path

    @cached_property
    def _common_folder(self) -> Path:
        """The folder that ids are relative to: the root, or the common folder if some images are outside the root."""
        if all(path.is_relative_to(self.root) for path in self.paths):
            return self.root
        return Path(os.path.commonpath([path.absolute().parent for path in self.paths]))

    def id_of(self, path: Path) -> str:
        """Return the id of an image: its path without suffix, relative to the root or the common folder."""
        path = path if self._common_folder is self.root else path.absolute()
        return path.relative_to(self._common_folder).with_suffix("").as_posix()

    def find(self, name: str, near: Path | None = None) -> Path | str:
        """Find an image by a name or path, which another machine may have written: only its end has to match.

        Args:
            name: a path or URL with either kind of slash; the suffix is optional if the stem is unique.
            near: the annotation file; among several images, one in its folder or of its split is preferred.

        Returns:
            The image, or the reason why there is none.
        """
        candidates = self.candidates(name, near)
        if not candidates:
            return "no such image"
        return candidates[0] if len(candidates) == 1 else f"{len(candidates)} images of that name"

    def candidates(self, name: str, near: Path | None = None) -> list[Path]:
        """Return the images that a name can mean (see `find`); several if it is ambiguous."""
        path = PurePosixPath(composed(name.replace("\\", "/")))
        if not (path.name in self._by_name or path.name in self._by_stem) or "?" not in path.name:
            path = PurePosixPath(str(path).split("?", 1)[0])  # the query of a URL, unless it is part of a file name
        exact = self._find_exactly(path, near)
        candidates = [exact] if exact is not None else self._by_name.get(path.name, [])
        if not candidates and path.suffix.lower() not in IMAGE_SUFFIXES:
            candidates = self._by_stem.get(path.name, [])
        if len(candidates) > 1:
            candidates = _longest_tail(candidates, path)
        if len(candidates) > 1 and near is not None:
            beside = [path for path in candidates if path.parent == near.parent]
            split = split_of_file(near, self.root)
            same_split = [path for path in candidates if split and split_of_folder(path, self.root) == split]
            candidates = beside or same_split or candidates
        if len(candidates) > 1:  # annotation tools omit the upper folders, not those between
            top = min(candidates, key=lambda path: len(path.parts))
            below = [path for path in candidates if path.parent != top.parent and path.is_relative_to(top.parent)]
            candidates = [top] if len(below) == len(candidates) - 1 else candidates
        return candidates

    def _find_exactly(self, name: PurePosixPath, near: Path | None) -> Path | None:
        """Find an image by its path relative to the annotation file or, if the name has folders, to the root."""
        if near is not None and near.is_relative_to(self.root):
            folder = PurePosixPath(composed(near.relative_to(self.root).parent.as_posix()))
            if (found := self._by_path.get((folder / name).as_posix())) is not None:
                return found
        return self._by_path.get(name.as_posix()) if len(name.parts) > 1 else None

    @cached_property
    def folders(self) -> frozenset[str]:
        """Names of all folders, below the root, that contain images at any depth."""
        return frozenset(name for path in self._by_path for name in PurePosixPath(path).parent.parts)


def _longest_tail(candidates: list[Path], name: PurePosixPath) -> list[Path]:
    """Return the paths that share most components, from the end, with a name."""

    def common(path: Path) -> int:
        path = path if name.suffix.lower() in IMAGE_SUFFIXES else path.with_suffix("")
        pairs = zip(map(composed, reversed(path.parts)), reversed(name.parts), strict=False)
        return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(path.parts), len(name.parts)))

    best = max(map(common, candidates))
    return [path for path in candidates if common(path) == best]


def split_of_folder(path: Path, root: Path) -> str | None:
    """Return the split that the outermost folder named after one indicates, below the root: train2017/, valid/."""
    folders = path.relative_to(root).parent.parts if path.is_relative_to(root) else ()
    names = (folder.lower().rstrip("0123456789_-") for folder in folders)
    return next((SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES), None)


def split_of_file(path: Path, root: Path) -> str | None:
    """Return the split in the name of an annotation file, otherwise of its folders: instances_val2017.json is val."""
    words = [word.rstrip("0123456789") for word in re.split(r"[^a-z0-9]+", path.stem.lower())]
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else split_of_folder(path, root)


def make_layout(
    kind: str, records: Mapping[str, list[Record]], problems: Iterable[Problem] = (), notices: Iterable[str] = ()
) -> Layout:
    """Return a layout of records per split; a pool beside a train split becomes part of train."""
    splits = {split: list(each) for split, each in records.items() if each}
    if "train" in splits and "pool" in splits:
        splits["train"] += splits.pop("pool")
    return Layout(kind, {split: tuple(each) for split, each in splits.items()}, tuple(problems), tuple(notices))


def files_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files among paths, and those below the folders among them, without hidden ones."""
    return [file for path in paths for file in (sorted(walk(path)) if path.is_dir() else [path])]
