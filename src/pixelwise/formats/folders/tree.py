"""The images of a place by folder, and what the configuration says of masks where it names no globs.

Comes in: a place. Goes out: a tree to walk; the wish, understood. Knows nothing of what belongs together.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

import yaml

from pixelwise.errors import ConfigError
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders.pairing import Affix
from pixelwise.formats.records import short
from pixelwise.imageio.images import IMAGE_SUFFIXES

_SPECIAL = set("{}*?[")
# Images that nothing here decodes.
FOREIGN = (".bmp", ".gif", ".jp2", ".j2k", ".heic", ".heif", ".avif", ".pbm", ".pgm", ".ppm", ".tga")


def option(key: str, value: str) -> str:
    """Write an option as a shell and YAML read it."""
    try:
        plain = yaml.safe_load(value) == value
    except yaml.YAMLError:
        plain = False
    return f"--set {quote(f'{key}={value if plain else json.dumps(value, ensure_ascii=False)}')}"


class Tree:
    """Hold the images of a place by folder, and those of kinds that are not read."""

    def __init__(self, place: DatasetRoot) -> None:
        self.root = place.root
        self.own: dict[Path, list[Path]] = defaultdict(list)
        self.folders: dict[Path, list[Path]] = {self.root: []}
        self.foreign: list[Path] = []
        for path in place.files:
            self._add(path.parent)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self.own[path.parent].append(path)
            elif path.suffix.lower() in FOREIGN:
                self.foreign.append(path)

    def _add(self, folder: Path) -> None:
        if folder not in self.folders:
            self._add(folder.parent)
            self.folders[folder] = []
            self.folders[folder.parent].append(folder)

    def foreign_kinds(self) -> list[str]:
        """Give the suffixes of the images that are not read."""
        return sorted({path.suffix.lower() for path in self.foreign})

    def below(self, folder: Path) -> Iterator[Path]:
        """Give the images in a folder and in all below it."""
        yield from self.own.get(folder, ())
        for child in self.folders.get(folder, ()):
            yield from self.below(child)

    def holds(self, folder: Path) -> bool:
        """Say whether there is an image in a folder or below it."""
        return next(self.below(folder), None) is not None


@dataclass(frozen=True)
class Wanted:
    """Hold what `data.masks` and `data.valid` say where no globs are given: a folder, or how masks are named in it.

    Args:
        folder: name of the folder of masks, or its path below the root; "" where any will do.
        name: what stands around the image's stem in a mask's name; None where that is to be found out.
        suffix: of masks, with the dot; "" where any will do.
        valid: name of the folder of masks of valid pixels; "none": none is looked for; None: those of the table.

    """

    folder: str = ""
    name: Affix | None = None
    suffix: str = ""
    valid: str | None = None

    @classmethod
    def read(cls, masks: str | None, valid: str | None) -> Wanted:
        """Read `labels`, `{stem}_gt.png` or `labels/{stem}_gt.png`.

        Raises:
            ConfigError: another template, or a pattern: these need `data.images`.

        """
        pure = PurePosixPath(masks or "")
        template = pure.name if "{" in pure.name else ""
        folder = "" if masks is None else (pure.parent if template else pure).as_posix()
        folder = "" if folder == "." else folder
        if _SPECIAL & set(folder) or (template and not re.fullmatch(r"[^{}*?]*\{stem\}[^{}*?]*", template)):
            raise _not_without_images("data.masks", masks)
        if _SPECIAL & set(valid or ""):
            raise _not_without_images("data.valid", valid)
        if not template:
            return cls(folder, valid=valid)
        before, _, behind = template.partition("{stem}")
        suffix = PurePosixPath(template).suffix if PurePosixPath(template).suffix.lower() in IMAGE_SUFFIXES else ""
        return cls(folder, Affix(before, behind[: len(behind) - len(suffix)]), suffix.lower(), valid)

    def takes(self, folder: Path, root: Path) -> bool:
        """Say whether a folder is the one that is wanted."""
        return not self.folder or self.folder.strip("/") in (folder.name, short(folder, root))


def _not_without_images(where: str, found: str | None) -> ConfigError:
    return ConfigError(
        where,
        expected="the name of a folder, or of masks with {stem}, where data.images is not given",
        found=repr(found),
        do="Add where the images are: --set 'data.images=images/*'.",
    )
