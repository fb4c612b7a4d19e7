"""Checks on files: unpaired or unreadable files, size mismatches, EXIF orientation, decisions made on opening."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import PurePath

from pixelwise.checking.findings import SHOWN, Finding, image_finding, plural
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Survey
from pixelwise.errors import DataError, GridMismatchError, ImageError, MaskError, PairingError
from pixelwise.formats.records import Problem
from pixelwise.formats.shape_placement import UNCOVERED
from pixelwise.formats.unused import UNUSED

_RESAMPLE = "Resample the masks to the grids of their images by nearest neighbour"
_LEFT_OUT = {  # kind of problem → kind of finding, description, default fix
    "unpaired": ("unpaired-files", "without a partner", "Add or remove the files"),
    "size": ("unequal-sizes", "of another size than the image", ""),
    "grid": ("unequal-grids", "not on the image's grid", _RESAMPLE),
    "unreadable": ("unreadable-files", "that cannot be read", "Copy or export the files again, or remove them"),
}
_OPENING = {  # text of a notice on opening → kind of finding, severity, reason, fix
    UNUSED: (
        "files-not-used",
        "notice",
        "These files are in the data set's folder, and nothing was read from them.",
        "If they hold annotations or images of this data set, correct their names or format; data.annotations and"
        " data.format select what is read.",
    ),
    UNCOVERED: (
        "uncovered-shapes",
        "warning",
        "A shape outside of its image, or thinner than a pixel, leaves no trace in the mask: its object becomes background.",
        "Compare the coordinates with the sizes of the images; if the images were resized, scale the shapes alike.",
    ),
}


def left_out(survey: Survey) -> Iterator[Finding]:
    """Report the files left out on opening: unpaired, of another size, on another grid, unreadable."""
    for kind in _LEFT_OUT:
        problems = [problem for problem in survey.splits.problems if problem.kind == kind]
        if problems:
            yield _left_out(survey, problems)


def _left_out(survey: Survey, problems: Sequence[Problem]) -> Finding:
    """Make the finding about problems of one kind."""
    kind, description, default = _LEFT_OUT[problems[0].kind]
    texts = [str(problem) for problem in problems]
    advice = next((problem.do for problem in problems if problem.do), "")
    fix = advice.rstrip(".") or default or _resize_advice(texts)
    total = len(survey.inspections) + len(survey.splits.problems)
    where, count = tuple(texts[:SHOWN]), len(texts)
    what = f"{plural(count, 'file', 'files')} {description}"
    if survey.skip_bad:
        why = "Files that are left out are neither used for training nor scored."
        return Finding(kind, "warning", f"{what}, left out by skip_bad", where, count, total, why, f"{fix}.")
    why = "Every image needs a mask of its size, and both must be readable: training stops at the first failure."
    fix = f"{fix}; or leave them out: --skip-bad, or data.skip_bad: true."
    return Finding(kind, "error", what, where, count, total, why, fix)


def _resize_advice(texts: list[str]) -> str:
    """Return how to repair sizes; if height and width are swapped in all files, EXIF orientation is the cause."""
    sizes = [re.search(r"expected (\d+)×(\d+) pixels.*found (\d+)×(\d+)", text) for text in texts]
    if all(m and (m[1], m[2]) == (m[4], m[3]) and m[1] != m[2] for m in sizes):
        return (
            "Height and width are swapped: save the images upright, without EXIF orientation, and annotate the masks on"
            " those"
        )
    return "Export the masks again at the size of their images; resize them by nearest neighbour only"


def unreadable(survey: Survey) -> Iterator[Finding]:
    """Find images and masks that cannot be decoded or interpreted, or do not fit; one finding per distinct fix."""
    rest = [image for image in survey.inspections if image.error is not None and image.unknown is None]
    for error, kind, one, many in (
        (ImageError, "unreadable-pictures", "image cannot be read", "images cannot be read"),
        (MaskError, "unreadable-masks", "mask cannot be interpreted", "masks cannot be interpreted"),
        (
            GridMismatchError,
            "unequal-grids",
            "mask is not on the grid of its image",
            "masks are not on the grids of their images",
        ),
        (
            PairingError,
            "unequal-sizes",
            "mask differs in size from its image",
            "masks differ in size from their images",
        ),
        (DataError, "unreadable-files", "file cannot be used", "files cannot be used"),
    ):
        failed = [image for image in rest if isinstance(image.error, error)]
        rest = [image for image in rest if not isinstance(image.error, error)]
        for _, group in groupby(sorted(failed, key=_remedy), key=_remedy):
            same = list(group)
            yield _failed(survey, kind, plural(len(same), one, many), same)


def _remedy(image: Inspection) -> str:
    """Return the fix without lists of values, such as colours, that are specific to one file."""
    return re.sub(r"\[[^\]]*\]", "[…]", image.error.do) if image.error is not None else ""


def _failed(survey: Survey, kind: str, what: str, images: list[Inspection]) -> Finding:
    """Report files with the same fix; the message of the first is quoted."""
    errors = [image.error for image in images if image.error is not None]
    first = errors[0]
    if kind == "unreadable-masks" and first.expected.startswith("a lossless mask"):
        kind, what = (
            "lossy-masks",
            f"{plural(len(images), 'mask is', 'masks are')} compressed lossily (JPEG or similar)",
        )
    where = tuple(error.where for error in errors[:SHOWN])
    count, total = len(images), len(survey.inspections)
    why = f"In {PurePath(first.where).name}: expected {first.expected}, found {first.found}."
    if survey.skips_unusable:
        return Finding(kind, "warning", f"{what}: left out by skip_bad", where, count, total, why, first.do)
    fix = f"{first.do.rstrip('.')}; or leave them out: --skip-bad, or data.skip_bad: true."
    return Finding(kind, "error", what, where, count, total, why, fix)


def exif_mismatches(survey: Survey) -> Iterator[Finding]:
    """Find images with an EXIF orientation that their masks lack, if sizes do not show which is right."""
    images = [image for image in survey.usable if image.exif_mismatch]
    if images:
        what = f"{plural(len(images), 'image is', 'images are')} rotated by EXIF orientation, but the mask is not"
        why = "A mask drawn with a tool that ignores EXIF is upside down or rotated."
        fix = "Inspect some of them. If the masks do not fit, save the images as they were annotated, without the EXIF tag."
        yield image_finding(survey, "turned-by-exif", "warning", images, what, why, fix)


def opening_notices(survey: Survey) -> Iterator[Finding]:
    """Report the decisions made when the data set was opened."""
    where = (str(survey.splits.description.get("root", "data")),)
    why, fix = "This was decided automatically.", "Write it in a data.yaml if it is not intended."
    notices = survey.splits.notices
    for notice in notices[:-1] if survey.splits.problems else notices:  # the last one repeats `left_out`
        finding = next((each for text, each in _OPENING.items() if text in notice), None)
        kind, severity, own_why, own_fix = finding or ("decided-on-opening", "notice", why, fix)
        yield Finding(kind, severity, notice, where, 1, 0, own_why, own_fix)


CHECKS = (unreadable, left_out, exif_mismatches, opening_notices)
