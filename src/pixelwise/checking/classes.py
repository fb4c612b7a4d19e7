"""Checks on classes: which occur, where and how often, and what a constant prediction would score."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import EXAMPLES, SHOWN, Example, Finding, image_finding, join_names, plural
from pixelwise.checking.regions import Column
from pixelwise.checking.survey import Survey

_RARE, _DOMINANT = 0.01, 0.9
_FEW = 10
_MUCH_IGNORED = 0.5


def _training_split(survey: Survey) -> str | None:
    return "train" if survey.splits.train is not None else None


def one_class(survey: Survey) -> Iterator[Finding]:
    """Find a data set, or a train split, in which fewer than two classes occur."""
    split = _training_split(survey)
    if not survey.in_split(split):
        return
    present = np.flatnonzero(survey.pixel_counts(split)[:-1])
    if len(present) < 2:
        found = f"only {survey.labels.names[present[0]]!r}" if len(present) else "no class"
        what = f"{found} occurs in {split or 'the data'}"
        why = "A model needs at least two classes to distinguish."
        fix = "Check the masks, and that labels.yaml and data.mask_values name the ids that they hold."
        yield Finding("one-class", "error", what, (split or "data",), 1, 0, why, fix)


def absent_classes(survey: Survey) -> Iterator[Finding]:
    """Find classes that never occur, or not in every split."""
    anywhere = survey.image_counts()[:-1] > 0
    if anywhere.sum() < 2:
        return
    total = survey.labels.num_classes
    never = _names(survey, ~anywhere)
    if never:
        what = f"{plural(len(never), 'class never occurs', 'classes never occur')}: {join_names(never)}"
        why = "Such a class cannot be learned, is never predicted, and cannot be scored."
        fix = "Remove them from the labels, or add images that show them; if there should be some, check the ids."
        yield Finding("absent-classes", "warning", what, tuple(never[:SHOWN]), len(never), total, why, fix)
    for split in survey.datasets:
        absent = anywhere & (survey.image_counts(split)[:-1] == 0)
        names = _names(survey, absent)
        if not names or not survey.in_split(split):
            continue
        what = f"{plural(len(names), 'class occurs', 'classes occur')} elsewhere, but never in {split}:"
        what += f" {join_names(names)}"
        severity, why = "notice", f"A class that {split} does not show cannot be scored there."
        if split == "train":
            severity = "warning"
            why = "A class that train does not show is never learned: it is never predicted, and scores 0 elsewhere."
        fix = f"{_redivide(survey, split)}; or add images that show it."
        examples = _examples(survey, np.flatnonzero(absent).tolist())
        where = tuple(names[:SHOWN])
        yield Finding(f"absent-in-{split}", severity, what, where, len(names), total, why, fix, examples)


def _redivide(survey: Survey, split: str) -> str:
    """Describe how to request a different division into splits."""
    options = survey.redivide_options([split])
    if options:
        return f"Divide all images again: {options}"
    seed = survey.splits.description.get("split", {}).get("seed", 0)
    return f"Divide with another seed: --set data.split.seed={seed + 1}"


def uncounted_val(survey: Survey) -> Iterator[Finding]:
    """Find a val split in which all pixels are ignored."""
    images = survey.in_split("val")
    if images and not survey.pixel_counts("val")[:-1].any():
        why = "No checkpoint can be chosen as the best: training stops before the first step."
        fix = "Choose another val split, or correct ignore_index in labels.yaml."
        what = "all pixels of val are ignored"
        yield image_finding(survey, "uncounted-val", "error", images, what, why, fix, masks=True)


def _names(survey: Survey, selected: NDArray[np.bool_]) -> list[str]:
    return [survey.labels.names[k] for k in np.flatnonzero(selected).tolist()]


def _examples(survey: Survey, classes: Collection[int], split: str | None = None) -> tuple[Example, ...]:
    """Return images that show some of the classes, those with most pixels of them first."""
    found = []
    for image in survey.in_split(split):
        pixels = [int(row[Column.PIXELS]) for row in image.table if int(row[Column.CLASS]) in classes]
        if pixels:
            found.append((-sum(pixels), image.example))
    return tuple(example for _, example in sorted(found)[:EXAMPLES])


def few_images(survey: Survey) -> Iterator[Finding]:
    """Find classes that occur in fewer than ten images of train."""
    split = _training_split(survey)
    counts = survey.image_counts(split)[:-1]
    few = [k for k in np.argsort(counts, kind="stable").tolist() if 0 < counts[k] < _FEW]
    if few and len(survey.in_split(split)) >= _FEW:
        names = [survey.labels.names[k] for k in few]
        each = join_names([f"{name} {counts[k]}" for name, k in zip(names, few, strict=True)])
        what = f"{plural(len(few), 'class is', 'classes are')} in under {_FEW} images of {split or 'the data'}: {each}"
        why = "A class in so few images is memorised rather than learned."
        fix = "Annotate more images that show it, merge it with a similar class, or expect low scores."
        total = survey.labels.num_classes
        examples = _examples(survey, few, split)
        yield Finding("few-pictures", "warning", what, tuple(names[:SHOWN]), len(few), total, why, fix, examples)


def rare_classes(survey: Survey) -> Iterator[Finding]:
    """Find classes with under 1 % of the pixels, or one with over 90 %, and the scores of a constant prediction."""
    counts = survey.pixel_counts()[:-1]
    total, present = int(counts.sum()), int((counts > 0).sum())
    rare = [k for k in np.argsort(counts, kind="stable").tolist() if 0 < counts[k] < _RARE * total]
    top = int(counts.argmax())
    if present < 2 or not (rare or counts[top] > _DOMINANT * total):
        return
    listed = rare or [top]
    shares = [f"{survey.labels.names[k]} {_percent(float(counts[k] / total))}" for k in listed]
    what = f"{plural(len(rare), 'class has', 'classes have')} under {_RARE:.0%} of the pixels: {join_names(shares)}"
    what = what if rare else f"one class has most of the pixels: {shares[0]}"
    share = 100 * counts[top] / total
    why = (
        f"Predicting {survey.labels.names[top]!r} everywhere has a pixel accuracy of {share:.1f} % and an mIoU of"
        f" {share / present:.1f} %: judge models by mIoU, not by pixel accuracy."
    )
    fix = "Leave loss.class_weights and train.class_crops to be derived, and make sure that val shows the rare classes."
    where = tuple(survey.labels.names[k] for k in listed[:SHOWN])
    classes, examples = survey.labels.num_classes, _examples(survey, rare)
    yield Finding("rare-classes", "notice", what, where, len(listed), classes, why, fix, examples)


def ignored_share(survey: Survey) -> Iterator[Finding]:
    """Report the share of ignored pixels."""
    counts = survey.pixel_counts()
    share = float(counts[-1] / max(1, counts.sum()))
    if share == 0:
        return
    much = share > _MUCH_IGNORED
    images = [image for image in survey.usable if survey.labels.num_classes in image.classes]
    images.sort(key=lambda image: -int(image.table[-1, Column.PIXELS]) / int(image.table[:, Column.PIXELS].sum()))
    what = f"{_percent(share)} of the pixels are ignored, in {len(images)} of"
    what += f" {plural(len(survey.usable), 'mask', 'masks')}"
    why = "Ignored pixels are excluded from every loss and metric."
    fix = "Correct ignore_index in labels.yaml if this is not intended." if much else "Nothing, if this is intended."
    severity = "warning" if much else "notice"
    yield image_finding(survey, "ignored-pixels", severity, images, what, why, fix, masks=True)


def _percent(share: float) -> str:
    """Format a share with two digits, more if it is nearly 1, and a limit if it is nearly 0."""
    if share < 1e-6:
        return "under 0.0001 %"
    return f"{100 * share:.2g} %" if share < 0.99 else f"{100 * share:.5g} %"


CHECKS = (one_class, uncounted_val, absent_classes, few_images, rare_classes, ignored_share)
