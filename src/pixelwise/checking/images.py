"""Checks on images: mixed bands and pixel types, constant images, unused bit depth, grey images stored as colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from pixelwise.checking.findings import Finding, image_finding, plural
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Survey
from pixelwise.formats import reading

# An image is constant if its pixels vary by less than this share of the median, or by less than one of 255 grey levels;
# camera noise alone is one to three.
_CONSTANT_SHARE, _CONSTANT_LEVEL = 0.02, 1.0
_SCALED = 64.0  # minimum ratio of values if some images were reduced from 16 to 8 bits, a factor of 256
_DEPTHS = {
    "low": "hold no value above 255",
    "high": "hold only multiples of 256",
    "copied": "hold only multiples of 257",
}


def mixed_forms(survey: Survey) -> Iterator[Finding]:
    """Find images whose bands or pixel type differ from most."""
    forms = Counter(image.form for image in survey.usable)
    usual = max(sorted(forms), key=lambda form: forms[form], default="")
    others = [image for image in survey.usable if image.form != usual]
    if others:
        what = f"{plural(len(others), 'image differs', 'images differ')} in bands or pixel type from most ({usual})"
        why = "A model needs a fixed number of bands and one range of values;"
        why += f" {survey.image_name(others[0])} has {others[0].form}."
        fix = reading.mixed_forms({(image.bands, image.dtype) for image in survey.usable})
        yield image_finding(survey, "mixed-pictures", "error", others, what, why, fix)


def constant_images(survey: Survey) -> Iterator[Finding]:
    """Find (nearly) constant images: a lens cap, an empty export, a broken stretch of a scan."""
    for form in sorted({image.form for image in survey.usable}):
        same = [image for image in survey.usable if image.form == form]
        usual = float(np.median([image.spread for image in same]))
        limit = max(_CONSTANT_SHARE * usual, _CONSTANT_LEVEL if same[0].dtype == "uint8" else 0.0)
        flat = [image for image in same if image.spread < limit or image.spread == 0]
        if flat and len(flat) < len(survey.usable):
            what = f"{plural(len(flat), 'image is', 'images are')} nearly constant"
            why = "There is nothing to learn from them."
            if len(flat) < len(same):
                lowest = min(image.spread for image in flat)
                why = f"The standard deviation of the pixels is usually {usual:.3g}, here as low as {lowest:.2g}."
            fix = "Inspect them, and remove those that show nothing."
            yield image_finding(survey, "constant-pictures", "warning", flat, what, why, fix, of=len(same))
        elif flat:
            what = f"all {len(flat)} images are nearly constant"
            why = "There is nothing to learn."
            fix = "Check how they were exported: wrong band, clipped range, fractions stored as integers."
            yield image_finding(survey, "constant-pictures", "error", flat, what, why, fix, of=len(same))


def shallow_images(survey: Survey) -> Iterator[Finding]:
    """Find 16-bit images that hold 8-bit values."""
    deep = [image for image in survey.usable if image.dtype == "uint16"]
    shallow: dict[str, list[Inspection]] = {}
    for image in deep:
        if image.depth:
            shallow.setdefault(image.depth, []).append(image)
    for depth, images in shallow.items():
        if len(images) < len(deep) and depth == "low" and not _scaled_differently(images, deep):
            continue  # merely dark
        if len(images) == len(deep):
            severity = "notice"
            what = f"all {len(images)} 16-bit images {_DEPTHS[depth]}: they are 8-bit images stored as 16-bit"
            why = "Nothing is lost, but they have less detail than 16 bits suggest; the originals may have had more."
            fix = "Use the originals if they have a greater bit depth; if there are none, ignore this."
        else:
            severity = "warning"
            what = f"{len(images)} of {len(deep)} 16-bit images {_DEPTHS[depth]}, the others do not"
            why = "The same brightness is stored as different values, which no common normalisation can correct."
            why = why if depth != "low" else f"Unless they are very dark: {why[0].lower()}{why[1:]}"
            fix = "Export all images in the same way."
        yield image_finding(survey, "shallow-pictures", severity, images, what, why, fix, of=len(deep))


def _scaled_differently(images: list[Inspection], deep: list[Inspection]) -> bool:
    """Whether values up to 255 may be on another scale: they then vary about 256 times less than the others."""
    others = [image.spread for image in deep if image.depth != "low"]
    return float(np.median([image.spread for image in images])) * _SCALED < float(np.median(others))


def grey_images(survey: Survey) -> Iterator[Finding]:
    """Find images with three identical bands: grey images stored as colour, or converted to it on reading."""
    converted = any(split.bands == "rgb" for split in survey.splits)
    colour = [image for image in survey.usable if image.bands == 3]
    grey = [image for image in colour if image.grey]
    if not grey:
        return
    if len(grey) == len(colour) and converted:
        what = f"all {len(grey)} images are grey, and converted to colour"
        why = "This only costs time."
        fix = "Nothing, if images for prediction may have colours; otherwise omit data.bands=rgb."
    elif len(grey) == len(colour):
        what = f"all {len(grey)} images are grey but stored as colour: their three bands are identical"
        why = "This only costs storage and time."
        fix = "Nothing, if this is intended. Images for prediction must be stored in the same way."
    else:
        what = f"{len(grey)} of {len(colour)} colour images are grey: their three bands are identical"
        what = (
            f"{len(grey)} of {len(colour)} images {'is' if len(grey) == 1 else 'are'} grey, as stored or converted"
            if converted
            else what
        )
        why = "The model is trained on both kinds. If colour distinguishes the classes, grey images are harder."
        fix = "Nothing, if images for prediction may be grey, too; otherwise remove them."
    yield image_finding(survey, "grey-pictures", "notice", grey, what, why, fix, of=len(colour))


CHECKS = (mixed_forms, constant_images, shallow_images, grey_images)
