"""Checks on files: what cannot be paired or read, sizes that differ, EXIF, and what was decided on opening.

Comes in: a `Survey`. Goes out: findings. Knows nothing of what images and masks show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePath

from pixelwise.checking.findings import SHOWN, Finding, some
from pixelwise.checking.inspection import Seen
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import tell
from pixelwise.errors import DataError, ImageError, MaskError, PairingError

_SIZES = "the height and width of"
_OTHER_SIZE = "of another size than"
_GRIDS = re.compile(r"'s (spacing|unit|affine|crs) ")
_UNPAIRED = re.compile(r"without (a|its) |several |second |no such image|no mask|in two files|images of that name")


def left_out(survey: Survey) -> Iterator[Finding]:
    """Tell what could not be paired or opened, and so was left out: without partner, of another size, unreadable."""
    kinds: dict[str, list[str]] = {kind: [] for kind in _LEFT_OUT}
    for text in survey.splits.skipped:
        kinds[_kind(text.partition(": ")[2])].append(text)
    for kind, texts in kinds.items():
        if texts:
            yield _left_out(survey, kind, texts)


_LEFT_OUT = {
    "unpaired-files": ("without a partner", "Add or remove the files"),
    "unequal-sizes": ("of another size than the image", ""),
    "unequal-grids": (
        "not on the image's grid",
        "Resample the masks to their images' grids, by nearest neighbour only",
    ),
    "unreadable-files": ("that cannot be read", "Copy or export the files again, or remove them"),
}


def _kind(why: str) -> str:
    if _SIZES in why or _OTHER_SIZE in why:
        return "unequal-sizes"
    if "expected " in why:
        return "unequal-grids" if _GRIDS.search(why) else "unreadable-files"
    return "unpaired-files" if _UNPAIRED.search(why) else "unreadable-files"


def _left_out(survey: Survey, kind: str, texts: list[str]) -> Finding:
    trouble, fix = _LEFT_OUT[kind]
    advice = (survey.splits.advice[text] for text in texts if text in survey.splits.advice)
    fix = next(advice, "").rstrip(".") or fix or _same_size(texts)
    total = len(survey.seen) + len(survey.splits.skipped)
    files, count = tuple(texts[:SHOWN]), len(texts)
    if survey.skip_bad:
        what = f"{some(count, 'file', 'files')} {trouble}, left out by skip_bad"
        why = "What is left out is neither learned nor scored."
        return Finding(kind, "warning", what, files, count, total, why, f"{fix}.")
    why = "An image needs its mask, of its own size, and both must open: training stops at the first that fails."
    fix = f"{fix}; or leave them out: --skip-bad, or data.skip_bad: true."
    return Finding(kind, "error", f"{some(count, 'file', 'files')} {trouble}", files, count, total, why, fix)


def _same_size(texts: list[str]) -> str:
    """Say how to repair sizes; where height and width are swapped everywhere, it is EXIF."""
    swapped = 0
    for text in texts:
        found = re.search(r"expected (\d+)×(\d+) pixels.*found (\d+)×(\d+)", text)
        swapped += bool(found and (found[1], found[2]) == (found[4], found[3]) and found[1] != found[2])
    if swapped == len(texts):
        return (
            "Height and width are swapped: save the images upright, without the EXIF orientation, and draw the masks on"
            " those"
        )
    return "Export the masks again at their images' size; scale them by nearest neighbour only"


def unreadable(survey: Survey) -> Iterator[Finding]:
    """Find images and masks that cannot be decoded or understood, and sizes that differ; one finding per distinct fix."""
    rest = [seen for seen in survey.seen if seen.error is not None and seen.unknown is None]
    for error, kind, one, many in (
        (ImageError, "unreadable-pictures", "image cannot be read", "images cannot be read"),
        (MaskError, "unreadable-masks", "mask cannot be understood", "masks cannot be understood"),
        (PairingError, "unequal-sizes", "mask has not its image's size", "masks have not their image's size"),
        (DataError, "unreadable-files", "file cannot be used", "files cannot be used"),
    ):
        failed = [seen for seen in rest if isinstance(seen.error, error)]
        rest = [seen for seen in rest if not isinstance(seen.error, error)]
        for _, group in groupby(sorted(failed, key=_remedy), key=_remedy):
            same = list(group)
            yield _failed(survey, kind, some(len(same), one, many), same)


def _remedy(seen: Seen) -> str:
    """Give the fix without what it lists of this file alone, such as its colours."""
    return re.sub(r"\[[^\]]*\]", "[…]", seen.error.do) if seen.error is not None else ""


def _failed(survey: Survey, kind: str, what: str, same: list[Seen]) -> Finding:
    """Tell with the whole message of the first file."""
    errors = [seen.error for seen in same if seen.error is not None]
    first = errors[0]
    lossy = kind == "unreadable-masks" and first.expected.startswith("a lossless mask")
    if lossy:
        kind, what = "lossy-masks", f"{some(len(same), 'mask is a JPEG', 'masks are JPEGs')} or lossy otherwise"
    where = tuple(error.where for error in errors[:SHOWN])
    why = f"In {PurePath(first.where).name}: expected {first.expected}, found {first.found}."
    if survey.leaves_out:
        return Finding(
            kind, "warning", f"{what}: left out by skip_bad", where, len(same), len(survey.seen), why, first.do
        )
    fix = f"{first.do.rstrip('.')}; or leave them out: --skip-bad, or data.skip_bad: true."
    return Finding(kind, "error", what, where, len(same), len(survey.seen), why, fix)


def turned_images(survey: Survey) -> Iterator[Finding]:
    """Find images that EXIF turns and masks that it does not, where equal sizes cannot show who is right."""
    turned = [one for one in survey.good if one.turned]
    if turned:
        what = f"{some(len(turned), 'image is', 'images are')} turned by EXIF, and the mask is not"
        why = "A mask that was drawn by a tool that does not know EXIF lies upside down, or on its side."
        fix = "Look at some. Where they do not fit, save the images as they were drawn on, without the EXIF tag."
        yield tell(survey, "turned-by-exif", "warning", turned, what, why, fix)


def told_by_opening(survey: Survey) -> Iterator[Finding]:
    """Pass on what was decided when the data set was opened."""
    where = (str(survey.splits.description.get("root", "data")),)
    why, fix = "It was decided for you.", "Say it in a data.yaml if it is not meant."
    for notice in survey.splits.notices[: -1 if survey.splits.skipped else None]:  # the last repeats `left_out`
        yield Finding("decided-on-opening", "notice", notice, where, 1, 0, why, fix)


CHECKS = (unreadable, left_out, turned_images, told_by_opening)
