"""Checks on sizes: of splits, of images, and of objects relative to the output stride of networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import EXAMPLES, SHOWN, Finding, image_finding, join_names, plural
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.regions import STRIDES, Column
from pixelwise.checking.survey import Survey

_FEW = 10
_SPLIT_SHARE = 0.2  # share of val and of test if images are divided again
_STRIDE = 32  # greatest stride of usual encoders
_LONG = 5.0
_MIXED = 4.0
_CROP = 256
_LARGE = 8 * _CROP
_MOSTLY = 0.5
_MIN_REGIONS = 20


def small_splits(survey: Survey) -> Iterator[Finding]:
    """Find val and test splits with too few images for reliable scores."""
    for split, dataset in survey.datasets.items():
        if split == "train" or len(dataset) >= _FEW:
            continue
        what = f"{split} has {plural(len(dataset), 'image', 'images')}"
        why = "Scores on so few images depend on which they are: expect wide intervals, or none below 10 images, and inconclusive comparisons."
        fix = f"Enlarge it: a larger share (data.split.{split}), or more annotated images."
        options = survey.redivide_options([split])
        if options:
            enough = len(survey.inspections) >= _FEW / _SPLIT_SHARE
            fix = f"Add annotated images{f'; or divide all images again: {options}' if enough else ''}."
        examples = tuple((split, k) for k in range(len(dataset)))
        yield Finding("small-part", "warning", what, (split,), 1, len(survey.datasets), why, fix, examples)


def missing_splits(survey: Survey) -> Iterator[Finding]:
    """Find a missing train or val split."""
    for split, option in (("train", "anew=true"), ("val", "val=0.2")):
        if split not in survey.datasets:
            what = f"there is no {split} split"
            why = "Training learns from train and keeps the checkpoint that is best on val: without either it stops."
            fix = f"Provide one, or split it off: --set data.split.{option}."
            yield Finding("missing-part", "error", what, (split,), 1, 0, why, fix)


def extreme_shapes(survey: Survey) -> Iterator[Finding]:
    """Find images that are tiny or very long."""
    tiny = [image for image in survey.usable if min(image.size) < _STRIDE]
    if tiny:
        what = f"{plural(len(tiny), 'image has a side', 'images have a side')} of under {_STRIDE} pixels"
        why = "Most encoders downsample by 32: a single cell without neighbours is left of such a side."
        fix = "Remove them, or scale all images up."
        yield image_finding(survey, "tiny-pictures", "warning", tiny, what, why, fix)
    long = [image for image in survey.usable if max(image.size) >= _LONG * min(image.size)]
    if long:
        longest = max(long, key=lambda image: max(image.size) / min(image.size))
        what = f"{plural(len(long), 'image is', 'images are')} at least {_LONG:g} times as long as wide"
        what += f" (at most {_describe(longest)})"
        why = "A square crop of them is mostly padding, from which nothing is learned."
        crop = _crop(_median_size(long), 2 * _CROP)
        fix = f"Choose a crop of their shape: --set 'train.crop={crop}'; or cut them into pieces."
        yield image_finding(survey, "long-pictures", "notice", long, what, why, fix)


def _describe(image: Inspection) -> str:
    return f"{image.size[0]}×{image.size[1]}"


def _area(image: Inspection) -> int:
    return image.size[0] * image.size[1]


def _median_size(images: list[Inspection]) -> tuple[int, int]:
    return sorted(image.size for image in images)[len(images) // 2]


def _crop(size: Iterable[float], most: float = np.inf) -> list[int]:
    """Return a crop within a size: sides are multiples of 32 and at most `most`."""
    return [max(int(min(side, most)) // _STRIDE, 1) * _STRIDE for side in size]


def mixed_sizes(survey: Survey) -> Iterator[Finding]:
    """Find data sets whose images differ greatly in size."""
    if len(survey.usable) < 2:
        return
    by_area = sorted(survey.usable, key=lambda image: (_area(image), image.size))
    smallest, largest = by_area[0], by_area[-1]
    ratio = (_area(largest) / _area(smallest)) ** 0.5
    if ratio >= _MIXED:
        distinct = len({image.size for image in survey.usable})
        what = f"images come in {distinct} sizes from {_describe(smallest)} to {_describe(largest)} (height × width)"
        why = (
            f"If objects are {ratio:.1f} times as large in one image as in another, the model has to learn all scales."
        )
        fix = (
            "Nothing, if a pixel has the same size in all of them; otherwise scale them alike, or widen augment.scale."
        )
        where = (survey.image_name(smallest), survey.image_name(largest))
        examples = (smallest.example, largest.example)
        yield Finding("mixed-sizes", "notice", what, where, distinct, len(survey.usable), why, fix, examples)


def smaller_than_crop(survey: Survey) -> Iterator[Finding]:
    """Find images smaller than the default training crop: multiples of 32, within 256 and the median size."""
    images = survey.in_split("train") or list(survey.usable)
    if not images:
        return
    sides = np.array([image.size for image in images])
    crop = _crop(np.median(sides, 0), _CROP)
    small = [image for image in images if image.size[0] < crop[0] or image.size[1] < crop[1]]
    if len(small) > 0.05 * len(images):
        what = f"{len(small)} of {len(images)} training images are smaller than the training crop of about"
        what += f" {crop[0]}×{crop[1]}"
        why = "The rest of such a crop is padding, which is ignored but takes time."
        fix = f"Use a smaller crop: --set 'train.crop={_crop(np.quantile(sides, 0.05, 0))}'."
        yield image_finding(survey, "smaller-than-the-crop", "notice", small, what, why, fix, of=len(images))


def large_images(survey: Survey) -> Iterator[Finding]:
    """Find data sets whose images are far larger than the training crop."""
    sides = [min(image.size) for image in survey.usable]
    if not sides or float(np.median(sides)) < _LARGE:
        return
    large = [image for image in survey.usable if min(image.size) >= _LARGE]
    height, width = _median_size(large)
    what = (
        f"{len(large)} of {len(survey.usable)} images have sides of {_LARGE} pixels or more (median {height}×{width})"
    )
    share = 100 * _CROP * _CROP / (height * width)
    why = f"A training crop of {_CROP}×{_CROP} covers {share:.2g} % of such an image, without any context."
    fix = "If objects are hundreds of pixels wide, scale the images down or use larger crops:"
    fix += " --set 'train.crop=[768, 768]'."
    yield image_finding(survey, "large-pictures", "notice", large, what, why, fix)


def thin_objects(survey: Survey) -> Iterator[Finding]:
    """Find classes whose pixels are mostly in regions thinner than an output stride of 4, 8 or 16 pixels."""
    table = survey.table()[:-1]
    majority = _MOSTLY * np.maximum(table[:, Column.PIXELS], 1)
    strides: dict[int, int] = {}
    for place, stride in reversed(list(enumerate(STRIDES[:-1]))):
        thin = (table[:, Column.THIN_PIXELS + place] >= majority) & (table[:, Column.REGIONS] >= _MIN_REGIONS)
        strides |= dict.fromkeys(np.flatnonzero(thin).tolist(), stride)
    if not strides:
        return
    order = sorted(strides, key=lambda k: (strides[k], k))
    names = [survey.labels.names[k] for k in order]
    each = [f"{name} (under {strides[k]} pixels)" for name, k in zip(names, order, strict=True)]
    what = f"{plural(len(order), 'class is', 'classes are')} mostly in thin regions: {join_names(each)}"
    shares = "; ".join(f"{name}: {_thickness_shares(table[k])}" for name, k in zip(names[:SHOWN], order, strict=False))
    why = f"Share of the regions by thickness: {shares}. Objects thinner than the output stride of a network"
    why += " (4 in SegFormer, 8 or 16 in DeepLab) are mostly missed."
    fix = "Choose a network with full resolution: --model unet --set model.stem=1; or scale the images up."
    pixels = {image.example: _thin_pixels(image, strides) for image in survey.usable}
    examples = tuple(sorted((e for e in pixels if pixels[e]), key=lambda e: -pixels[e])[:EXAMPLES])
    yield Finding("thin-objects", "notice", what, tuple(names[:SHOWN]), len(order), len(table), why, fix, examples)


def _thickness_shares(row: NDArray[np.int64]) -> str:
    """Return the shares of a class's regions, without specks, that are thinner than each stride."""
    regions = max(int(row[Column.REGIONS] - row[Column.SPECKS]), 1)
    shares = (row[Column.THIN : Column.THIN + len(STRIDES)] - row[Column.SPECKS]) / regions
    return ", ".join(f"{100 * share:.0f} % under {stride}" for share, stride in zip(shares, STRIDES, strict=True))


def _thin_pixels(image: Inspection, classes: Iterable[int]) -> int:
    """Count the pixels of some classes in regions thinner than 4 pixels."""
    return sum(int(row[Column.THIN_PIXELS]) for row in image.table if int(row[Column.CLASS]) in classes)


CHECKS = (missing_splits, small_splits, extreme_shapes, mixed_sizes, smaller_than_crop, large_images, thin_objects)
