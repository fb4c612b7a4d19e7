"""Checks on sizes: of parts, of images, and of things against what a network can still see.

Comes in: a `Survey`. Goes out: findings. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import EXAMPLES, SHOWN, Finding, listed, some
from pixelwise.checking.inspection import Seen
from pixelwise.checking.regions import STRIDES, Column
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import anew, name_image, tell

_FEW = 10
_SHARE = 0.2  # of all images, for val and for test, where they are divided anew
_TINY = 32  # the deepest stride: less is one cell
_LONG = 5.0
_MIXED = 4.0
_CROP = 256
_LARGE = 8 * _CROP
_MOSTLY = 0.5
_FEWEST_REGIONS = 20


def small_splits(survey: Survey) -> Iterator[Finding]:
    """Find parts of too few images to score a model by."""
    for split, dataset in survey.datasets.items():
        if split == "train" or len(dataset) >= _FEW:
            continue
        what = f"{split} has {some(len(dataset), 'image', 'images')}"
        why = "Scores of so few images depend on which they are: intervals will be wide, and comparisons undecided."
        fix = f"Give it more: a larger share (data.split.{split}), or more labelled images."
        options = anew(survey, [split])
        if options:
            enough = len(survey.seen) >= _FEW / _SHARE
            fix = f"Give it more labelled images{f'; or divide all anew: {options}' if enough else ''}."
        examples = tuple((split, k) for k in range(len(dataset)))
        yield Finding("small-part", "warning", what, (split,), 1, len(survey.datasets), why, fix, examples)


def missing_splits(survey: Survey) -> Iterator[Finding]:
    """Find what training needs and is not there: a train part, or a val part."""
    for split, option in (("train", "anew=true"), ("val", "val=0.2")):
        if split not in survey.datasets:
            what = f"there is no {split} part"
            why = "Training learns from train and keeps what is best on val: without one of them it stops."
            fix = f"Name one, or have it drawn: --set data.split.{option}."
            yield Finding("missing-part", "error", what, (split,), 1, 0, why, fix)


def odd_shapes(survey: Survey) -> Iterator[Finding]:
    """Find images that are tiny, or very long."""
    tiny = [one for one in survey.good if min(one.size) < _TINY]
    if tiny:
        what = f"{some(len(tiny), 'image has a side', 'images have a side')} of under {_TINY} pixels"
        why = "Most networks halve an image five times: of such a side one cell is left, and it sees no neighbours."
        fix = "Leave them out, or scale all images up."
        yield tell(survey, "tiny-pictures", "warning", tiny, what, why, fix)
    long = [one for one in survey.good if max(one.size) >= _LONG * min(one.size)]
    if long:
        most = max(long, key=lambda one: max(one.size) / min(one.size))
        what = f"{some(len(long), 'image is', 'images are')} at least {_LONG:g} times as long as wide ({_by(most)} the most)"
        why = "A square crop of them is mostly padding, which is learned from as little as it looks."
        middle = sorted(long, key=lambda one: one.size)[len(long) // 2]
        crop = [max(min(side, 2 * _CROP) // _TINY, 1) * _TINY for side in middle.size]
        fix = f"Choose a crop of their shape: --set 'train.crop=[{crop[0]}, {crop[1]}]'; or cut them into pieces."
        yield tell(survey, "long-pictures", "notice", long, what, why, fix)


def _by(one: Seen) -> str:
    return f"{one.size[0]}×{one.size[1]}"


def mixed_sizes(survey: Survey) -> Iterator[Finding]:
    """Find sets whose images differ much in size, and those smaller than the crop that training would take."""
    if len(survey.good) < 2:
        return
    by_area = sorted(survey.good, key=lambda one: (one.size[0] * one.size[1], one.size))
    least, most = by_area[0], by_area[-1]
    ratio = (most.size[0] * most.size[1] / (least.size[0] * least.size[1])) ** 0.5
    if ratio >= _MIXED:
        distinct = len({one.size for one in survey.good})
        what = f"images come in {distinct} sizes from {_by(least)} to {_by(most)} (height × width)"
        why = (
            f"If a thing is {ratio:.1f} times as large in one as in another, the model has to learn it at every scale."
        )
        fix = "Nothing, if a pixel means the same in all of them; else scale them alike, or widen augment.scale."
        where = tuple(name_image(survey, one) for one in (least, most))
        shown = (least.example, most.example)
        yield Finding("mixed-sizes", "notice", what, where, distinct, len(survey.good), why, fix, shown)


def smaller_than_the_crop(survey: Survey) -> Iterator[Finding]:
    """Find images smaller than the crop that training would take: multiples of 32, within 256 and the median image."""
    looked = survey.of("train") or list(survey.good)
    if not looked:
        return
    sides = np.array([one.size for one in looked])
    crop = [max(min(int(side), _CROP) // _TINY, 1) * _TINY for side in np.median(sides, 0)]
    small = [one for one in looked if one.size[0] < crop[0] or one.size[1] < crop[1]]
    if len(small) > 0.05 * len(looked):
        what = f"{len(small)} of {len(looked)} training images are smaller than the crop of about {crop[0]}×{crop[1]}"
        what += " that training takes"
        why = "The rest of such a crop is padding, which counts in nothing: time is spent on it."
        least = [max(int(side) // _TINY, 1) * _TINY for side in np.quantile(sides, 0.05, 0)]
        fix = f"Take a smaller crop: --set 'train.crop=[{least[0]}, {least[1]}]'."
        yield tell(survey, "smaller-than-the-crop", "notice", small, what, why, fix, of=len(looked))


def large_images(survey: Survey) -> Iterator[Finding]:
    """Find sets whose images are far larger than what a network sees at once."""
    sides = [min(one.size) for one in survey.good]
    if not sides or float(np.median(sides)) < _LARGE:
        return
    large = [one for one in survey.good if min(one.size) >= _LARGE]
    middle = sorted(large, key=lambda one: one.size)[len(large) // 2]
    share = _CROP * _CROP / (middle.size[0] * middle.size[1])
    what = f"{len(large)} of {len(survey.good)} images have sides of {_LARGE} pixels or more ({_by(middle)}, say)"
    why = f"A training crop of {_CROP}×{_CROP} sees {100 * share:.2g} % of such an image, and nothing around it."
    fix = "Where things are hundreds of pixels wide, scale the images down or take larger crops:"
    fix += " --set 'train.crop=[768, 768]'."
    yield tell(survey, "large-pictures", "notice", large, what, why, fix)


def thin_objects(survey: Survey) -> Iterator[Finding]:
    """Find classes whose pixels lie mostly in regions thinner than the cells a network works on: 4, 8 or 16 pixels."""
    table = survey.table()[:-1]
    mostly = _MOSTLY * np.maximum(table[:, Column.PIXELS], 1)
    strides: dict[int, int] = {}
    for place, stride in reversed(list(enumerate(STRIDES[:-1]))):
        thin = (table[:, Column.THIN_PIXELS + place] >= mostly) & (table[:, Column.REGIONS] >= _FEWEST_REGIONS)
        strides |= dict.fromkeys(np.flatnonzero(thin).tolist(), stride)
    if not strides:
        return
    order = sorted(strides, key=lambda k: (strides[k], k))
    names = [survey.labels.names[k] for k in order]
    each = [f"{name} (under {strides[k]} pixels)" for name, k in zip(names, order, strict=True)]
    what = f"{some(len(order), 'class lies', 'classes lie')} mostly in thin regions: {listed(each)}"
    said = [f"{name}: {_under(table[k])}" for name, k in zip(names, order, strict=True)]
    why = (
        f"Share of the regions by thickness: {'; '.join(said[:SHOWN])}. What is thinner than a network's output stride"
    )
    why += " (4 in SegFormer, 8 or 16 in DeepLab) is mostly lost to it."
    fix = "Choose a network that works at full resolution: --model unet --set model.stem=1; or scale the images up."
    found = sorted(survey.good, key=lambda one: -_thin(one, set(order)))[:EXAMPLES]
    examples = tuple(one.example for one in found if _thin(one, set(order)))
    yield Finding("thin-objects", "notice", what, tuple(names[:SHOWN]), len(order), len(table), why, fix, examples)


def _under(row: NDArray[np.int64]) -> str:
    """Say how many of a class's regions are thinner than each stride; specks do not count."""
    real = max(int(row[Column.REGIONS] - row[Column.SPECKS]), 1)
    shares = (row[Column.THIN : Column.THIN + len(STRIDES)] - row[Column.SPECKS]) / real
    return ", ".join(f"{100 * share:.0f} % under {stride}" for share, stride in zip(shares, STRIDES, strict=True))


def _thin(one: Seen, classes: set[int]) -> int:
    """Count the pixels of some classes in thin regions."""
    return sum(int(row[Column.THIN_PIXELS]) for row in one.table if int(row[Column.CLASS]) in classes)


CHECKS = (missing_splits, small_splits, odd_shapes, mixed_sizes, smaller_than_the_crop, large_images, thin_objects)
