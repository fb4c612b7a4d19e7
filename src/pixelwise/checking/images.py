"""Checks on images: bands and pixel types that differ, images that show nothing, bits and bands that say nothing.

Comes in: a `Survey`. Goes out: findings. Knows nothing of masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from pixelwise.checking.findings import Finding, some
from pixelwise.checking.inspection import Seen
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import name_image, tell
from pixelwise.formats.reading import mixed_bands

# An image is constant where its pixels vary by less than this share of what is usual, or by less than one grey level of
# 255; camera noise alone is one to three.
_SHARE, _LEVEL = 0.02, 1.0
_CUT = 64.0  # how much smaller values are at the least where 16 bits were cut down to 8, a factor of 256
_DEPTHS = {
    "low": "hold nothing above 255",
    "high": "hold multiples of 256 alone",
    "copied": "hold multiples of 257 alone",
}


def mixed_forms(survey: Survey) -> Iterator[Finding]:
    """Find images whose bands or pixel type differ from most."""
    forms = Counter(one.form for one in survey.good)
    usual = max(sorted(forms), key=lambda form: forms[form], default="")
    odd = [one for one in survey.good if one.form != usual]
    if odd:
        what = f"{some(len(odd), 'image has', 'images have')} another form than most ({usual})"
        why = f"A model takes one number of bands and one range of values; {name_image(survey, odd[0])} has {odd[0].form}."
        # What brings bands to one kind leaves pixel types as they are.
        fix = mixed_bands({one.bands for one in survey.good} if len({one.dtype for one in survey.good}) == 1 else ())
        yield tell(survey, "mixed-pictures", "error", odd, what, why, fix)


def constant_images(survey: Survey) -> Iterator[Finding]:
    """Find images that show (nearly) one value: a lens cap, an empty export, a broken stretch of a scan."""
    for form in sorted({one.form for one in survey.good}):
        same = [one for one in survey.good if one.form == form]
        usual = float(np.median([one.spread for one in same]))
        least = max(_SHARE * usual, _LEVEL if same[0].dtype == "uint8" else 0.0)
        flat = [one for one in same if one.spread < least or one.spread == 0]
        if flat and len(flat) < len(survey.good):
            what = f"{some(len(flat), 'image shows', 'images show')} next to nothing: all pixels are nearly equal"
            why = f"Pixels usually vary by {usual:.3g}, here by {min(one.spread for one in flat):.2g} at the least."
            why = why if len(flat) < len(same) else "There is nothing to learn from them."
            fix = "Look at them, and take out what shows nothing."
            yield tell(survey, "constant-pictures", "warning", flat, what, why, fix, of=len(same))
        elif flat:
            what = f"all {len(flat)} images show next to nothing: their pixels are nearly equal"
            why = "There is nothing to learn from."
            fix = "Check how they were exported: the wrong band, a range cut off, fractions stored as whole numbers."
            yield tell(survey, "constant-pictures", "error", flat, what, why, fix, of=len(same))


def shallow_images(survey: Survey) -> Iterator[Finding]:
    """Find images of 16 bits that hold 8."""
    deep = [one for one in survey.good if one.dtype == "uint16"]
    shallow: dict[str, list[Seen]] = {}
    for one in deep:
        if one.depth:
            shallow.setdefault(one.depth, []).append(one)
    for depth, seen in shallow.items():
        if len(seen) < len(deep) and depth == "low" and not _scaled_otherwise(seen, deep):
            continue  # they are dark, no more
        holds = _DEPTHS[depth]
        if len(seen) == len(deep):
            what = f"all {len(seen)} images of 16 bits {holds}: they are 8 bits, stored as 16"
            why = "Nothing is lost, but no detail is there that 16 bits promise. Was the original cut down on its way here?"
            fix = "Go back to the originals if they are deeper; else nothing."
            yield tell(survey, "shallow-pictures", "notice", seen, what, why, fix, of=len(deep))
        else:
            what = f"{len(seen)} of {len(deep)} images of 16 bits {holds}, the others do not"
            why = "The same brightness is stored as different values, which one normalisation cannot mend."
            why = why if depth != "low" else f"Unless they are very dark: {why[0].lower()}{why[1:]}"
            fix = "Export all images in the same way."
            yield tell(survey, "shallow-pictures", "warning", seen, what, why, fix, of=len(deep))


def _scaled_otherwise(seen: list[Seen], deep: list[Seen]) -> bool:
    """Tell whether values up to 255 may be another scale: then they vary some 256 times less than the others."""
    others = [one.spread for one in deep if one.depth != "low"]
    return float(np.median([one.spread for one in seen])) * _CUT < float(np.median(others))


def grey_images(survey: Survey) -> Iterator[Finding]:
    """Find colour images whose bands are all equal."""
    colour = [one for one in survey.good if one.bands == 3]
    grey = [one for one in colour if one.grey]
    if not grey:
        return
    if len(grey) == len(colour):
        what = f"all {len(grey)} images are grey, stored as colour: their three bands are equal"
        why = "Three bands hold what one would; that costs space and time, no more."
        fix = "Nothing, if this is meant. What is predicted later must be stored in the same way."
    else:
        what = f"{len(grey)} of {len(colour)} colour images are grey: their three bands are equal"
        why = "The model will meet both kinds. If colour tells the classes apart, these are harder."
        fix = "Nothing, if what is predicted later is grey now and then, too; else take them out."
    yield tell(survey, "grey-pictures", "notice", grey, what, why, fix, of=len(colour))


CHECKS = (mixed_forms, constant_images, shallow_images, grey_images)
