"""Advice for folders in which images and masks cannot be paired: what is missing, and the command that may help."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.formats.folders.names import SHOWN_MASKS, folder_roles, has_role
from pixelwise.formats.folders.search import OBJECTS, Tree, option
from pixelwise.formats.records import short
from pixelwise.imageio.file_formats import LOSSLESS_SUFFIXES, READABLE
from pixelwise.imageio.unreadable import conversion, suffixes

_LAYOUTS = (
    "images and masks in folders (images/ and masks/, or train/ and train_masks/) or side by side (a.jpg and"
    " a_mask.png)"
)
_MOST_FOLDERS = 200  # that are compared with each other
_MOST_CLASSES = 3
_SEPARATORS = re.compile(r"[_\-. (]+")


def nothing_found(tree: Tree) -> DataError:
    """Return the error for a data set without any pair of image and mask."""
    count = len(tree.unreadable)
    if count and 2 * count >= sum(map(len, tree.images.values())):
        return DataError(
            tree.root,
            expected=f"images and masks as {READABLE}",
            found=f"{count} file{'s' * (count != 1)} of other kinds ({suffixes(tree.unreadable)})",
            do=conversion(tree.unreadable),
        )
    folders = [path for path in tree.folders if path != tree.root and has_role("image", path.name)]
    full = [path for path in folders if tree.has_images(path)]
    if full:
        return _no_masks(tree, full[0])
    if folders:
        expected = f"images ({READABLE})"
        do = "Put them there, or name them in a data.yaml."
        return DataError(folders[0], expected=expected, found="none", do=do)
    names = sorted(path.name for path in tree.root.iterdir())
    found = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "an empty folder"
    loose = len(tree.images.get(tree.root, ()))
    return DataError(
        tree.root,
        expected=_LAYOUTS,
        found=f"{loose} loose image{'s' * (loose != 1)}" if loose else found,
        do=_command(tree) or "Set their paths: --set 'data.images=…/*' --set 'data.masks=…/{stem}.png'.",
    )


def _no_masks(tree: Tree, images: Path) -> DataError:
    """Return the error for images/ without masks, or with masks that are not image files."""
    found = f"{images.name}/ only"
    for path in tree.folders[images.parent]:
        if any(role.kind == "mask" for role in folder_roles(path.name)) and not tree.has_images(path):
            suffixes = Counter(file.suffix for file in path.iterdir() if file.is_file())
            found = f"{path.name}/ with only {', '.join(suffixes) or 'folders'}"
    pattern = f"{glob.escape(short(images, tree.root))}/*"
    return DataError(
        images.parent,
        expected=f"masks beside {images.name}/, in one of {SHOWN_MASKS} as PNG or TIFF",
        found=found,
        do=_command(tree)
        or f"Add them, or set their path: {option('data.images', pattern)} --set 'data.masks=…/{{stem}}.png'.",
    )


def _command(tree: Tree) -> str | None:
    """Find the two folders with most file names in common, and return the command that names them."""
    stems = {folder: {path.stem for path in paths} for folder, paths in tree.images.items() if paths}
    if not 2 <= len(stems) <= _MOST_FOLDERS:
        return None
    common = {(a, b): len(stems[a] & stems[b]) for a in stems for b in stems if a < b}
    common = {pair: count for pair, count in common.items() if count > len(stems[pair[0]]) / 2}
    if not common:
        return None

    def like_masks(folder: Path) -> tuple[bool, bool]:
        named = any(role.kind == "mask" for role in folder_roles(folder.name))
        return named, all(path.suffix.lower() in LOSSLESS_SUFFIXES for path in tree.images[folder])

    best = max(common, key=common.__getitem__)
    images, masks = sorted(best, key=like_masks)
    image_name, mask_name = short(images, tree.root), short(masks, tree.root)
    image_option = option("data.images", f"{glob.escape(image_name)}/*")
    mask_option = option("data.masks", f"{mask_name}/{{stem}}{tree.images[masks][0].suffix}")
    return f"If {mask_name}/ holds the masks of {image_name}/: {image_option} {mask_option}."


def advise_on_several_masks(
    images: Collection[str], paired: Collection[str], masks: Sequence[str], image_folder: str, template: str
) -> str:
    """Advise how to join masks, if most of those without an image belong to an image with several; otherwise return "".

    Args:
        images: names of the images, without suffix; a collection with fast lookup.
        paired: those that have a mask.
        masks: names of the masks without an image.
        image_folder: the folder of images, for messages.
        template: the folder of masks, with {} for a subfolder and {stem} for an image.
    """
    classes = Counter(name for key in masks if (name := _class_of(key, images)) is not None)
    if len(classes) > 1 and 2 * classes.total() > len(masks):
        return _advise_on_classes(sorted(classes), images, image_folder, template)
    owners = Counter(owner for key in masks if (owner := _owner(key, images)) is not None)
    several = sum(count for owner, count in owners.items() if count > 1 or owner in paired)
    # DSB 2018 has a folder for every image, and masks with unrelated names.
    return OBJECTS if 2 * several > len(masks) or len(images) == 1 < len(masks) else ""


def _class_of(key: str, images: Collection[str]) -> str | None:
    """Return the folder that the image does not have in its path: road in road/a.png, for a.jpg."""
    *folders, stem = key.split("/")
    for k, name in enumerate(folders):
        rest = "/".join([*folders[:k], *folders[k + 1 :], stem])
        if name not in images and _owner(rest, images) is not None:
            return name
    return None


def _owner(key: str, images: Collection[str]) -> str | None:
    """Return the image that a mask is named after: entirely, up to a separator (a_2), or by its folder (a/2)."""
    folder, slash, stem = key.rpartition("/")
    names = [folder, *(folder + slash + stem[: match.start()] for match in _SEPARATORS.finditer(stem)), key]
    return next((name for name in reversed(names) if name in images), None)


def _advise_on_classes(names: Sequence[str], images: Collection[str], image_folder: str, template: str) -> str:
    deep = any("/" in key for key in images)
    many = f" and {len(names) - _MOST_CLASSES} more" if len(names) > _MOST_CLASSES else ""
    folder = template.partition("{}")[0] + ("…/" if deep else "")
    shown = ", ".join(f"{folder}{name}/" for name in names[:_MOST_CLASSES])
    advice = (
        f"If {shown}{many} hold the masks of one class each, merge them into one mask per image, with an id for each"
        " class."
    )
    if deep:
        return advice
    image_option = option("data.images", f"{glob.escape(image_folder)}/*")
    mask_option = option("data.masks", template.replace("{}", names[0]))
    return f"{advice} If one of them is the ground truth: {image_option} {mask_option}."
