"""Say what to do where an image has several masks, one for each class or object: they are not joined here.

Comes in: names below a folder of images, and those of masks that found no image. Goes out: words. Knows nothing of
pixels.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Collection, Sequence

from pixelwise.formats.folders.tree import option

OBJECTS = (
    "If each of them is one object, join them into one mask for every image, 0 where there is none and a number for each"
    " object: --set 'data.mask_values={objects: true}' reads such masks."
)
_SHOWN = 3
_SIGNS = re.compile(r"[_\-. (]+")


def advise(
    images: Collection[str], paired: Collection[str], masks: Sequence[str], image_folder: str, template: str
) -> str:
    """Say how masks become one for every image, where most of those left over are several of one; else "".

    Args:
        images: names of the images, without suffix; a collection that is quick to ask.
        paired: those of them that have a mask.
        masks: names of the masks that found no image.
        image_folder: their folder, as it is shown.
        template: the folder of masks, as it is shown, with {} for a folder in it and {stem} for an image.

    """
    classes = Counter(name for key in masks if (name := _class_of(key, images)) is not None)
    if len(classes) > 1 and 2 * classes.total() > len(masks):
        return _of_classes(sorted(classes), images, image_folder, template)
    owners = Counter(owner for key in masks if (owner := _owner(key, images)) is not None)
    several = sum(count for owner, count in owners.items() if count > 1 or owner in paired)
    # DSB 2018 has a folder for every image, and masks whose names say nothing.
    return OBJECTS if 2 * several > len(masks) or len(images) == 1 < len(masks) else ""


def _class_of(key: str, images: Collection[str]) -> str | None:
    """Give the folder without which a mask would lie as its image does: road in road/a.png, for a.jpg."""
    *folders, stem = key.split("/")
    for k, name in enumerate(folders):
        rest = "/".join([*folders[:k], *folders[k + 1 :], stem])
        if name not in images and _owner(rest, images) is not None:
            return name
    return None


def _owner(key: str, images: Collection[str]) -> str | None:
    """Give the image that a mask is called after: as a whole, up to one of its signs (a_2), or by its folder (a/2)."""
    folder, slash, stem = key.rpartition("/")
    names = [folder, *(folder + slash + stem[: sign.start()] for sign in _SIGNS.finditer(stem)), key]
    return next((name for name in reversed(names) if name in images), None)


def _of_classes(names: Sequence[str], images: Collection[str], image_folder: str, template: str) -> str:
    deep = any("/" in key for key in images)
    many = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    masks = template.partition("{}")[0] + ("…/" if deep else "")
    shown = ", ".join(f"{masks}{name}/" for name in names[:_SHOWN])
    options = (
        option("data.images", f"{glob.escape(image_folder)}/*"),
        option("data.masks", template.replace("{}", names[0])),
    )
    one = "" if deep else f" If one of them is the truth: {' '.join(options)}."
    return (
        f"If {shown}{many} hold the masks of one class each, join them into one mask for every image, with an id for each"
        f" class.{one}"
    )
