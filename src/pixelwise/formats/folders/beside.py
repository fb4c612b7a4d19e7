"""Pair images with masks that lie beside them in the same folder.

Comes in: the tree of a place. Goes out: records, and files without a partner. Opens no file.

    a.jpg a_mask.png     a word of `roles` behind or before, on the mask, or on both (a_sat.jpg, a_mask.png)
    a.jpg a.png          equal names, where one is a lossy image and the other can be a mask (PNG, TIFF)

Any number of folders may hold such pairs. Two masks that claim one image are asked about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.errors import PairingError
from pixelwise.formats.folders.pairing import Affix, key_of
from pixelwise.formats.folders.roles import stem_role
from pixelwise.formats.folders.tree import Tree, Wanted, option
from pixelwise.formats.records import ORPHAN, Record, composed, short

Named = dict[str, list[Path]]
_LOSSY, _LOSSLESS = (".jpg", ".jpeg", ".webp"), (".png", ".tif", ".tiff")


@dataclass
class Beside:
    """Hold what lies side by side.

    Args:
        records: pairs.
        odd: files without a partner in a folder that has pairs, each with the reason.
        folders: those with pairs.
        shown: one pair for each way in which they are named.

    """

    records: list[Record] = field(default_factory=list)
    odd: list[tuple[Path, str]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)

    def notice(self, root: Path) -> str:
        """Say how they were paired."""
        how = " and ".join(self.shown.values())
        many = f", in {len(self.folders)} folders, whose names are not read as classes" if len(self.folders) > 1 else ""
        where = f" in {short(self.folders[0], root)}/" if not many and self.folders[0] != root else ""
        return f"masks lie beside their images{where}: {how}{many}"


def find_beside(tree: Tree, wanted: Wanted) -> Beside:
    """Find every image that has its mask beside it.

    Raises:
        PairingError: two masks claim one image, or of two files either may be the image.

    """
    found = Beside()
    for folder, paths in sorted(tree.own.items()):
        if not paths or not wanted.takes(folder, tree.root):
            continue
        pairs = list(_by_wish(paths, wanted)) if wanted.name is not None else list(_pairs(paths, tree.root))
        used = {path for one in pairs for path in one[:2]}
        if not pairs:
            continue
        found.folders.append(folder)
        for image, mask, how in pairs:
            found.records.append(Record(key_of(image, tree.root), image, mask))
            found.shown.setdefault(how, f"{image.name} with {mask.name}")
        for path in paths:
            # Where the configuration says which are the masks, others that are named as masks are none.
            if path not in used and not (wanted.name is not None and _is_mask(path)):
                found.odd.append((path, ORPHAN if _is_mask(path) else "image without a mask"))
    return found


def _is_mask(path: Path) -> bool:
    role = stem_role(path.stem)
    return role is not None and role.kind == "mask"


def _by_wish(paths: Sequence[Path], wanted: Wanted) -> Iterator[tuple[Path, Path, str]]:
    """Pair as `data.masks` says: {stem}_seg.png."""
    affix = wanted.name or Affix()
    plain, bare, _ = _sorted(paths)
    for mask in paths:
        core = affix.core(composed(mask.stem))
        if core is None or (wanted.suffix and mask.suffix.lower() != wanted.suffix):
            continue
        images = [path for path in plain.get(core, []) if path != mask] or bare.get(core, [])
        if len(images) == 1:
            yield images[0], mask, "wish"


def _sorted(paths: Iterable[Path]) -> tuple[Named, Named, Named]:
    """Sort files by their stems; images with a word of their own, and masks, by what is left without it."""
    plain: Named = defaultdict(list)
    bare: Named = defaultdict(list)
    masks: Named = defaultdict(list)
    for path in paths:
        stem = composed(path.stem)
        role = stem_role(stem)
        plain[stem].append(path)
        if role is not None:
            (masks if role.kind == "mask" else bare)[role.base].append(path)
    return plain, bare, masks


def _pairs(paths: Iterable[Path], root: Path) -> Iterator[tuple[Path, Path, str]]:
    """Give image, mask, and the way in which they are named."""
    plain, bare, masks = _sorted(paths)
    used: set[Path] = set()
    for core, truths in masks.items():
        images = [*plain.get(core, ()), *bare.get(core, ())]
        if len(images) == 1 and len(truths) == 1:
            used |= {images[0], truths[0]}
            yield images[0], truths[0], composed(truths[0].stem).replace(core, "x", 1)
        elif images:
            _require_one(core, images, truths, root)
    yield from _equal(plain, used, root)


def _require_one(core: str, images: list[Path], truths: list[Path], root: Path) -> None:
    """Ask which file is meant, where several say mask, or an image and a mask have equal names and another says mask, too."""
    if len(truths) > 1 and any(role.number for path in truths if (role := stem_role(path.stem)) is not None):
        return  # a_mask.png, a_mask_1.png: parts of one truth, perhaps; each is told as without a partner
    templates = [composed(path.name).replace(core, "{stem}", 1) for path in truths]
    options = [option("data.masks", template) for template in templates]
    if len(truths) == 1:
        chosen = option("data.images", f"**/*{images[0].suffix}")
        options = [
            option("data.masks", composed(images[1].name).replace(core, "{stem}", 1)),
            f"{chosen} {option('data.masks', '{parent}/' + templates[0])}",
        ]
    raise PairingError(
        short(images[0], root),
        expected="one image and one mask",
        found=" and ".join(path.name for path in (*images, *truths)),
        do=f"Say which is the mask: {', or '.join(options[:3])}.",
    )


def _equal(plain: Named, used: set[Path], root: Path) -> Iterator[tuple[Path, Path, str]]:
    """Pair files of equal names where one is a lossy image and the other can be a mask."""
    for paths in plain.values():
        if len(paths) < 2 or used & set(paths):
            continue
        lossy = [path for path in paths if path.suffix.lower() in _LOSSY]
        others = [path for path in paths if path.suffix.lower() in _LOSSLESS]
        if len(lossy) == 1 and len(others) == 1:
            yield lossy[0], others[0], others[0].suffix.lower()
        elif len(paths) == 2 and len(others) == 2:
            options = [option("data.masks", f"{{stem}}{path.suffix}") for path in paths]
            raise PairingError(
                short(paths[0], root),
                expected="an image and its mask",
                found=f"{paths[0].name} and {paths[1].name}, either of which may be the mask",
                do=f"Say which is: {', or '.join(options)}.",
            )
