"""Checks on classes: which occur, where, how often, and what a model that learned nothing would score.

Comes in: a `Survey`. Goes out: findings. Knows nothing of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pixelwise.checking.findings import EXAMPLES, SHOWN, Example, Finding, listed, some
from pixelwise.checking.regions import Column
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import anew, tell

_RARE, _MOST = 0.01, 0.9
_FEW = 10
_MUCH_IGNORED = 0.5


def one_class(survey: Survey) -> Iterator[Finding]:
    """Find a data set, or a train part, in which fewer than two classes occur."""
    split = "train" if survey.splits.train is not None else None
    if not any(split in (None, one.split) for one in survey.good):
        return
    present = np.flatnonzero(survey.counts(split)[:-1])
    if len(present) < 2:
        only = f"only {survey.labels.names[present[0]]!r}" if len(present) else "no class"
        what = f"{only} occurs in {split or 'the data'}"
        why = "A model needs at least two classes to tell apart."
        fix = "Check the masks, and that labels.yaml and data.mask_values name the ids that they hold."
        yield Finding("one-class", "error", what, (split or "data",), 1, 0, why, fix)


def absent_classes(survey: Survey) -> Iterator[Finding]:
    """Find classes that never occur, or not in every part."""
    anywhere = survey.images()[:-1] > 0
    if anywhere.sum() < 2:
        return
    total = survey.labels.num_classes
    never = _names(survey, ~anywhere)
    if never:
        what = f"{some(len(never), 'class never occurs', 'classes never occur')}: {listed(never)}"
        why = "What is never shown is never learned: such a class is predicted nowhere, and cannot be scored."
        fix = "Take them out of the labels, or add images that show them; if there should be some, check the ids."
        yield Finding("absent-classes", "warning", what, tuple(never[:SHOWN]), len(never), total, why, fix)
    for split in survey.datasets:
        lost = _names(survey, anywhere & (survey.images(split)[:-1] == 0))
        if not lost or not survey.of(split):
            continue
        what = (
            f"{some(len(lost), 'class never occurs', 'classes never occur')} in {split}, but elsewhere: {listed(lost)}"
        )
        why = f"What {split} does not show cannot be scored there."
        fix = f"{_otherwise(survey, split)}; or add images that show it."
        if split == "train":
            why = (
                "What train does not show is never learned: such a class is predicted nowhere, and scores 0 elsewhere."
            )
        severity = "warning" if split == "train" else "notice"
        examples = _showing(survey, [survey.labels.names.index(name) for name in lost])
        yield Finding(f"absent-in-{split}", severity, what, tuple(lost[:SHOWN]), len(lost), total, why, fix, examples)


def _otherwise(survey: Survey, split: str) -> str:
    """Say how another division is asked for."""
    options = anew(survey, [split])
    if options:
        return f"Divide all images anew: {options}"
    seed = survey.splits.description.get("split", {}).get("seed", 0)
    return f"Divide by another seed: --set data.split.seed={seed + 1}"


def uncounted_val(survey: Survey) -> Iterator[Finding]:
    """Find a val part in which no pixel counts."""
    seen = survey.of("val")
    if seen and not survey.counts("val")[:-1].any():
        why = "No step of the training can be called the best: it stops before the first."
        fix = "Name another val part, or correct ignore_index in labels.yaml."
        yield tell(survey, "uncounted-val", "error", seen, "no pixel of val counts", why, fix, masks=True)


def _names(survey: Survey, which: np.ndarray) -> list[str]:
    return [survey.labels.names[k] for k in np.flatnonzero(which).tolist()]


def _showing(survey: Survey, classes: Sequence[int], split: str | None = None) -> tuple[Example, ...]:
    """List images that show some of the classes, those with most of them first."""
    wanted = set(classes)
    found = []
    for one in survey.good:
        if split in (None, one.split):
            own = [row for row in one.table if int(row[Column.CLASS]) in wanted]
            if own:
                found.append((-sum(int(row[Column.PIXELS]) for row in own), one.example))
    return tuple(example for _, example in sorted(found)[:EXAMPLES])


def few_images(survey: Survey) -> Iterator[Finding]:
    """Find classes that fewer than ten images of train show, and how many do."""
    split = "train" if survey.splits.train is not None else None
    counts = survey.images(split)[:-1]
    few = [k for k in np.argsort(counts, kind="stable").tolist() if 0 < counts[k] < _FEW]
    looked = sum(split in (None, one.split) for one in survey.good)
    if few and looked >= _FEW:
        said = [f"{survey.labels.names[k]} {counts[k]}" for k in few]
        where = tuple(survey.labels.names[k] for k in few[:SHOWN])
        what = f"{some(len(few), 'class is', 'classes are')} in under {_FEW} images of {split or 'the data'}: {listed(said)}"
        why = "A class seen in so few places is learned by heart rather than understood."
        fix = "Label more images that show it, merge it with a class that is near to it, or expect little of it."
        examples = _showing(survey, few, split)
        total = survey.labels.num_classes
        yield Finding("few-pictures", "warning", what, where, len(few), total, why, fix, examples)


def rare_classes(survey: Survey) -> Iterator[Finding]:
    """Find classes with less than a hundredth of the counted pixels, or one with nine tenths; what would guessing score?"""
    counts = survey.counts()[:-1]
    total, present = int(counts.sum()), int((counts > 0).sum())
    rare = [k for k in np.argsort(counts, kind="stable").tolist() if 0 < counts[k] < _RARE * total]
    top = int(counts.argmax())
    if present < 2 or not (rare or counts[top] > _MOST * total):
        return
    told = rare or [top]
    shares = [f"{survey.labels.names[k]} {_percent(float(counts[k] / total))}" for k in told]
    what = f"{some(len(rare), 'class has', 'classes have')} under {_RARE:.0%} of the pixels: {listed(shares)}"
    what = what if rare else f"one class has most of the pixels: {shares[0]}"
    share = counts[top] / total
    why = (
        f"A model that says {survey.labels.names[top]!r} everywhere has {100 * share:.1f} % of the pixels right, and an"
        f" mIoU of {100 * share / present:.1f} %: judge by mIoU, not by pixel accuracy."
    )
    fix = "Leave loss.class_weights and train.class_crops to be derived, and see that val shows the rare ones."
    where = tuple(survey.labels.names[k] for k in told[:SHOWN])
    classes = survey.labels.num_classes
    yield Finding("rare-classes", "notice", what, where, len(told), classes, why, fix, _showing(survey, rare))


def ignored_share(survey: Survey) -> Iterator[Finding]:
    """Tell how many pixels do not count."""
    counts = survey.counts()
    share = float(counts[-1] / max(1, counts.sum()))
    if share == 0:
        return
    much = share > _MUCH_IGNORED
    count = survey.labels.num_classes
    showing = [one for one in survey.good if len(one.table) and int(one.table[-1, Column.CLASS]) == count]
    showing.sort(key=lambda one: -int(one.table[-1, Column.PIXELS]) / int(one.table[:, Column.PIXELS].sum()))
    what = (
        f"{_percent(share)} of the pixels are ignored, in {len(showing)} of {some(len(survey.good), 'mask', 'masks')}"
    )
    why = "Ignored pixels count in no loss and no metric."
    fix = "Correct ignore_index in labels.yaml if this is not meant." if much else "Nothing, if this is meant."
    severity = "warning" if much else "notice"
    yield tell(survey, "ignored-pixels", severity, showing, what, why, fix, masks=True)


def _percent(share: float) -> str:
    """Say a share in two digits; more where it is nearly all, none where it is nearly nothing."""
    if share < 1e-6:
        return "under 0.0001 %"
    return f"{100 * share:.2g} %" if share < 0.99 else f"{100 * share:.5g} %"


CHECKS = (one_class, uncounted_val, absent_classes, few_images, rare_classes, ignored_share)
