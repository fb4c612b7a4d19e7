"""Pair images with masks in the same folder.

    a.jpg a_mask.png     a word of `names` in the name of the mask, or of both (a_sat.jpg, a_mask.png)
    a.jpg a.png          equal names, if one is usually lossy and the other can be a mask (PNG, TIFF)

Any number of folders may hold such pairs. If two masks match one image, an error lists them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.errors import PairingError
from pixelwise.formats.folders.names import key_of, stem_role
from pixelwise.formats.folders.search import MaskRequest, Tree, option
from pixelwise.formats.records import ORPHAN, UNMASKED, Record, composed, short
from pixelwise.imageio.file_formats import LOSSLESS_SUFFIXES, LOSSY_SUFFIXES

Named = dict[str, list[Path]]


@dataclass
class SideBySide:
    """Pairs of files in the same folder."""

    records: list[Record] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)  # in a folder that has pairs, with the reason
    folders: list[Path] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)  # one pair per way of naming

    def notice(self, root: Path) -> str:
        """Describe how images and masks were paired."""
        many = f", in {len(self.folders)} folders, whose names are not read as classes" if len(self.folders) > 1 else ""
        where = f" in {short(self.folders[0], root)}/" if not many and self.folders[0] != root else ""
        return f"masks are beside their images{where}: {' and '.join(self.examples.values())}{many}"


def find_side_by_side(tree: Tree, request: MaskRequest) -> SideBySide:
    """Find every image with a mask in the same folder.

    Raises:
        PairingError: two masks match one image, or either of two files may be the image.
    """
    found = SideBySide()
    for folder, paths in sorted(tree.images.items()):
        if not paths or not request.accepts_folder(folder, tree.root):
            continue
        pairs = list(_pairs(paths, tree.root) if request.affix is None else _requested_pairs(paths, request))
        if not pairs:
            continue
        used = {path for image, mask, _ in pairs for path in (image, mask)}
        found.folders.append(folder)
        for image, mask, naming in pairs:
            found.records.append(Record(key_of(image, tree.root), image, mask))
            found.examples.setdefault(naming, f"{image.name} with {mask.name}")
        for path in paths:
            # If the configuration names the masks, other files named like masks are not masks of this data set.
            if path not in used and not (request.affix is not None and _is_mask(path)):
                found.problems.append((path, ORPHAN if _is_mask(path) else UNMASKED))
    return found


def _is_mask(path: Path) -> bool:
    role = stem_role(path.stem)
    return role is not None and role.kind == "mask"


def _by_stem(paths: Iterable[Path]) -> tuple[Named, Named, Named]:
    """Group all files by their stem; images and masks with a word of the table by the rest of their stem."""
    files: Named = defaultdict(list)
    images: Named = defaultdict(list)
    masks: Named = defaultdict(list)
    for path in paths:
        stem = composed(path.stem)
        files[stem].append(path)
        role = stem_role(stem)
        if role is not None:
            (masks if role.kind == "mask" else images)[role.base].append(path)
    return files, images, masks


def _requested_pairs(paths: Sequence[Path], request: MaskRequest) -> Iterator[tuple[Path, Path, str]]:
    """Pair as `data.masks` requests, such as {stem}_seg.png."""
    assert request.affix is not None
    by_stem, named_images, _ = _by_stem(paths)
    for mask in paths:
        core = request.affix.core(composed(mask.stem))
        if core is not None and request.suffix in ("", mask.suffix.lower()):
            images = [path for path in by_stem.get(core, []) if path != mask] or named_images.get(core, [])
            if len(images) == 1:
                yield images[0], mask, "requested"


def _pairs(paths: Iterable[Path], root: Path) -> Iterator[tuple[Path, Path, str]]:
    """Yield image, mask, and the way in which the mask is named."""
    by_stem, named_images, named_masks = _by_stem(paths)
    used: set[Path] = set()
    for core, masks in named_masks.items():
        images = [*by_stem.get(core, ()), *named_images.get(core, ())]
        if len(images) == len(masks) == 1:
            used |= {images[0], masks[0]}
            yield images[0], masks[0], composed(masks[0].stem).replace(core, "x", 1)
        elif images:
            _require_one(core, images, masks, root)
    for files in by_stem.values():  # equal names
        if len(files) < 2 or used & set(files):
            continue
        lossy = [path for path in files if path.suffix.lower() in LOSSY_SUFFIXES]
        lossless = [path for path in files if path.suffix.lower() in LOSSLESS_SUFFIXES]
        if len(lossy) == len(lossless) == 1:
            yield lossy[0], lossless[0], lossless[0].suffix.lower()
        elif len(files) == len(lossless) == 2:
            options = ", or ".join(option("data.masks", f"{{stem}}{path.suffix}") for path in files)
            raise PairingError(
                short(files[0], root),
                expected="an image and its mask",
                found=f"{files[0].name} and {files[1].name}, either of which may be the mask",
                do=f"Choose the mask: {options}.",
            )


def _require_one(core: str, images: list[Path], masks: list[Path], root: Path) -> None:
    """Raise if several files are named as masks, or two as images; the error lists the options."""
    if len(masks) > 1 and any(role.number for path in masks if (role := stem_role(path.stem)) is not None):
        return  # a_mask.png, a_mask_1.png: probably objects of one image; each is reported as without a partner

    def template(path: Path) -> str:
        return composed(path.name).replace(core, "{stem}", 1)

    options = [option("data.masks", template(path)) for path in masks]
    if len(masks) == 1:
        only_images = option("data.images", f"**/*{images[0].suffix}")
        options = [
            option("data.masks", template(images[1])),
            f"{only_images} {option('data.masks', '{parent}/' + template(masks[0]))}",
        ]
    raise PairingError(
        short(images[0], root),
        expected="one image and one mask",
        found=" and ".join(path.name for path in (*images, *masks)),
        do=f"Choose the mask: {', or '.join(options[:3])}.",
    )
