"""Say what is missing in a place where no images and masks belong together, and the command that may help.

Comes in: the tree of a place. Goes out: an error. Knows nothing of pixels.
"""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.formats.folders.roles import SHOWN_MASKS, folder_roles, is_folder_of
from pixelwise.formats.folders.tree import Tree, option
from pixelwise.formats.records import short
from pixelwise.imageio.images import IMAGE_SUFFIXES

_LAYOUTS = "images and masks in folders called so (images/ and masks/, train/ and train_masks/) or side by side (a.jpg and a_mask.png)"
_MOST = 200  # folders that are compared with each other


def nothing_here(tree: Tree) -> DataError:
    """Make the error: images/ without masks, or without images, or folders that are called otherwise."""
    if tree.foreign and 2 * len(tree.foreign) >= sum(map(len, tree.own.values())):
        many = len(tree.foreign)
        return DataError(
            tree.root,
            expected=f"images and masks as {', '.join(IMAGE_SUFFIXES)}",
            found=f"{many} file{'s' * (many != 1)} of other kinds ({', '.join(tree.foreign_kinds())})",
            do="Save those as PNG, with the same values.",
        )
    called = [path for path in tree.folders if path != tree.root and is_folder_of("image", path.name)]
    full = [path for path in called if tree.holds(path)]
    if full:
        return _no_masks(tree, full[0])
    if called:
        return DataError(
            called[0],
            expected=f"images ({', '.join(IMAGE_SUFFIXES)})",
            found="none",
            do="Put them there, or name them in a data.yaml.",
        )
    loose = len(tree.own.get(tree.root, ()))
    names = sorted(path.name for path in tree.root.iterdir())
    found = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "an empty folder"
    return DataError(
        tree.root,
        expected=_LAYOUTS,
        found=f"{loose} loose images" if loose else found,
        do=_command(tree) or "Say where they are: --set 'data.images=…/*' --set 'data.masks=…/{stem}.png'.",
    )


def _no_masks(tree: Tree, images: Path) -> DataError:
    """Say that there are no masks beside images/; or that there are some which are no images."""
    found = f"{images.name}/ alone"
    for path in tree.folders[images.parent]:
        if any(role.kind == "mask" for role in folder_roles(path.name)) and not tree.holds(path):
            kinds = Counter(file.suffix for file in path.iterdir() if file.is_file())
            found = f"{path.name}/ with none but {', '.join(kinds) or 'folders'}"
    return DataError(
        images.parent,
        expected=f"masks beside {images.name}/, in one of {SHOWN_MASKS} as PNG or TIFF",
        found=found,
        do=_command(tree)
        or f"Add them, or say where they are: {option('data.images', glob.escape(short(images, tree.root)) + '/*')}"
        " --set 'data.masks=…/{stem}.png'.",
    )


def _command(tree: Tree) -> str | None:
    """Find two folders that hold files of the same names, and write the command that names them."""
    stems = {folder: {path.stem for path in own} for folder, own in tree.own.items() if own}
    if not 2 <= len(stems) <= _MOST:
        return None
    best = None
    most = 0
    for one in stems:
        for other in stems:
            common = len(stems[one] & stems[other])
            if one < other and common > max(most, len(stems[one]) / 2):
                best, most = (one, other), common
    if best is None:
        return None
    images, masks = sorted(best, key=lambda folder: _like_masks(tree, folder))
    suffix = tree.own[masks][0].suffix
    first, second = short(images, tree.root), short(masks, tree.root)
    options = option("data.images", f"{glob.escape(first)}/*"), option("data.masks", f"{second}/{{stem}}{suffix}")
    return f"If {second}/ holds the masks of {first}/: {' '.join(options)}."


def _like_masks(tree: Tree, folder: Path) -> tuple[bool, bool]:
    """Sort folders of masks last: by name, then by files that keep ids."""
    says = any(role.kind == "mask" for role in folder_roles(folder.name))
    return says, all(path.suffix.lower() in (".png", ".tif", ".tiff") for path in tree.own[folder])
