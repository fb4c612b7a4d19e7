"""Say what is wrong with a data set, and the fix, before anybody waits for a training that cannot work.

Comes in: `DataSplits`. Goes out: a list of `Finding`s, the worst first. Knows nothing of models, training or printing.

Every file is decoded once; what was seen of it is kept as a few numbers. A check is one function from all that was seen
to findings: a new one is written and added to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import Dataset, DataSplits, file_hash
from pixelwise.data.images import read_orientation
from pixelwise.data.records import Record
from pixelwise.errors import DataError, ImageError, MaskError, PairingError
from pixelwise.labels import Labels

Progress = Callable[[int, int], None]

SEVERITIES = ("error", "warning", "notice")
_SHOWN = 5
_RARE = 0.01
_MUCH_IGNORED = 0.5


@dataclass(frozen=True)
class Finding:
    """Tell one thing about a data set.

    Args:
        severity: "error" (training would stop or be worthless), "warning" (scores or results would suffer), "notice".
        what: what is the case, in one line.
        where: up to five files or places.
        count: how many there are.
        why: why it matters.
        fix: what to do about it.

    """

    severity: str
    what: str
    where: tuple[str, ...]
    count: int
    why: str
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form."""
        return {**self.__dict__, "where": list(self.where)}


@dataclass(frozen=True)
class Seen:
    """Hold what one look at a picture and its mask gave; `error` is set where they cannot be used.

    Args:
        part: the part that the picture is in.
        record: its files.
        error: why it cannot be read.
        notices: what was noticed while reading.
        form: bands and pixel type, in words.
        counts: pixels per class, the ignored ones last: (K + 1).
        digest: SHA-256 of the picture's file; empty where it cannot be opened.
        turned: the picture is turned by its EXIF orientation and the mask by none, or by another, and their size does
            not tell whether that is right.

    """

    part: str
    record: Record
    error: DataError | None
    notices: tuple[str, ...]
    form: str
    counts: NDArray[np.int64]
    digest: str
    turned: bool = False


@dataclass(frozen=True)
class Survey:
    """Hold everything that checks are made from."""

    splits: DataSplits
    seen: tuple[Seen, ...]
    skip_bad: bool = True

    @property
    def labels(self) -> Labels:
        """Give the classes."""
        return self.splits.labels

    @property
    def good(self) -> list[Seen]:
        """Give what could be read."""
        return [one for one in self.seen if one.error is None]

    def counts(self, part: str | None = None) -> NDArray[np.int64]:
        """Sum up the pixels per class (K + 1, the ignored ones last), of one part or all."""
        rows = [one.counts for one in self.good if part in (None, one.part)]
        return np.sum([np.zeros(self.labels.num_classes + 1, np.int64), *rows], axis=0)


Check = Callable[[Survey], Iterable[Finding]]


def check(splits: DataSplits, progress: Progress | None = None, *, skip_bad: bool = True) -> list[Finding]:
    """Decode every file once and report all that training would stumble over.

    To have every bad file reported, and not only the first, open the data set with `skip_bad` and say here whether
    training will do so too.

    Args:
        splits: an opened data set.
        progress: is called with (done, total) after each picture.
        skip_bad: False where training will not leave files out: what opening left out then is an error.

    Returns:
        Findings: errors, then warnings, then notices.

    """
    total = sum(len(dataset) for dataset in splits)
    seen: list[Seen] = []
    for dataset in splits:
        for index in range(len(dataset)):
            seen.append(_look(dataset, index))
            if progress is not None:
                progress(len(seen), total)
    survey = Survey(splits, tuple(seen), skip_bad)
    findings = [finding for one in CHECKS for finding in one(survey)]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _look(dataset: Dataset, index: int) -> Seen:
    record, count = dataset.records[index], dataset.labels.num_classes
    nothing = np.zeros(count + 1, np.int64)
    try:
        digest = file_hash(record.image)
    except OSError:
        digest = ""
    try:
        sample, notices = dataset.inspect(index)
    except DataError as error:
        return Seen(dataset.name, record, error, (), "", nothing, digest)
    bands, kind = sample.image.shape[0], sample.image.dtype.name
    if sample.mask is not None:
        nothing = np.bincount(np.minimum(sample.mask, count).reshape(-1), minlength=count + 1)
    form = f"{bands} band{'s' * (bands != 1)} of {kind}"
    return Seen(dataset.name, record, None, notices, form, nothing, digest, _turned(record, sample.image.shape[1:]))


def _turned(record: Record, size: Sequence[int]) -> bool:
    if record.mask is None:
        return False
    picture = read_orientation(record.image)
    mask = 1 if record.source is not None else read_orientation(record.mask)
    return picture != mask and ((picture >= 5) == (mask >= 5) or size[0] == size[1])


def _images(seen: Iterable[Seen]) -> tuple[str, ...]:
    return tuple(str(one.record.image) for one in seen)[:_SHOWN]


def _masks(seen: Iterable[Seen]) -> tuple[str, ...]:
    return tuple(str(one.record.mask) for one in seen)[:_SHOWN]


def _some(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


# Files that cannot be used -------------------------------------------------------------------------------------------


def left_out(survey: Survey) -> Iterator[Finding]:
    """Tell what could not be paired or opened."""
    skipped = survey.splits.skipped
    if not skipped:
        return
    if survey.skip_bad:
        what = f"{_some(len(skipped), 'file was', 'files were')} left out by skip_bad"
        why = "What is left out is neither learned nor scored."
        yield Finding("warning", what, skipped[:_SHOWN], len(skipped), why, "Repair the files.")
    else:
        what = f"{_some(len(skipped), 'file', 'files')} cannot be used"
        why = "A picture needs its mask, of its own size, and both must open; training stops at the first that fails."
        fix = "Repair, add or remove the files, or leave them out with --skip-bad."
        yield Finding("error", what, skipped[:_SHOWN], len(skipped), why, fix)


def unreadable_pictures(survey: Survey) -> Iterator[Finding]:
    """Find pictures that cannot be decoded."""
    yield from _failed(survey, ImageError, "picture cannot be read", "pictures cannot be read")


def unreadable_masks(survey: Survey) -> Iterator[Finding]:
    """Find masks that cannot be understood: broken files, unknown ids, colours, lossy formats."""
    yield from _failed(survey, MaskError, "mask cannot be understood", "masks cannot be understood")


def unequal_sizes(survey: Survey) -> Iterator[Finding]:
    """Find masks of another size than their picture."""
    yield from _failed(survey, PairingError, "mask has not its picture's size", "masks have not their picture's size")


def _failed(survey: Survey, kind: type[DataError], one: str, many: str) -> Iterator[Finding]:
    """Give a finding per distinct fix, with the whole message of its first file."""
    errors = [seen.error for seen in survey.seen if isinstance(seen.error, kind)]
    for do, group in groupby(sorted(errors, key=lambda error: error.do), key=lambda error: error.do):
        same = list(group)
        where = tuple(error.where for error in same)[:_SHOWN]
        why = f"In {same[0].where}: expected {same[0].expected}, found {same[0].found}."
        yield Finding("error", _some(len(same), one, many), where, len(same), why, do)


def turned_pictures(survey: Survey) -> Iterator[Finding]:
    """Find pictures that EXIF turns and masks that it does not, where equal sizes cannot show who is right."""
    turned = [one for one in survey.good if one.turned]
    if turned:
        what = f"{_some(len(turned), 'picture is', 'pictures are')} turned by EXIF, and the mask is not"
        why = "A mask that was drawn by a tool that does not know EXIF lies upside down, or on its side."
        fix = "Look at some. Where they do not fit, save the pictures as they were drawn on, without the EXIF tag."
        yield Finding("warning", what, _images(turned), len(turned), why, fix)


def mixed_pictures(survey: Survey) -> Iterator[Finding]:
    """Find pictures whose bands or pixel type differ from most."""
    forms = [one.form for one in survey.good]
    usual = max(sorted(set(forms)), key=forms.count, default="")
    odd = [one for one in survey.good if one.form != usual]
    if odd:
        what = f"{_some(len(odd), 'picture has', 'pictures have')} another form than most ({usual})"
        why = f"A model takes one number of bands and one range of values; {odd[0].record.image} has {odd[0].form}."
        yield Finding("error", what, _images(odd), len(odd), why, "Convert the pictures to one kind.")


# What the masks hold -------------------------------------------------------------------------------------------------


def ignored_masks(survey: Survey) -> Iterator[Finding]:
    """Find masks in which no pixel counts."""
    empty = [one for one in survey.good if one.record.mask and not one.counts[:-1].sum()]
    if empty:
        what = f"{_some(len(empty), 'mask is', 'masks are')} ignored in every pixel"
        why = "Nothing can be learned from these pictures, nor scored on them."
        fix = "Draw the masks, take the pictures out, or correct ignore_index in labels.yaml."
        yield Finding("warning", what, _masks(empty), len(empty), why, fix)


def one_class(survey: Survey) -> Iterator[Finding]:
    """Find a data set, or a train part, in which fewer than two classes occur."""
    part = "train" if survey.splits.train is not None else None
    if not any(part in (None, one.part) for one in survey.good):
        return
    present = np.flatnonzero(survey.counts(part)[:-1])
    if len(present) < 2:
        only = f"only {survey.labels.names[present[0]]!r}" if len(present) else "no class"
        what = f"{only} occurs in {part or 'the data'}"
        why = "A model needs at least two classes to tell apart."
        fix = "Check the masks, and that labels.yaml and data.mask_values name the ids that they hold."
        yield Finding("error", what, (part or "data",), 1, why, fix)


def absent_classes(survey: Survey) -> Iterator[Finding]:
    """Find classes that a part does not show."""
    parts = {dataset.name: survey.counts(dataset.name)[:-1] > 0 for dataset in survey.splits}
    if sum(survey.counts()[:-1] > 0) < 2:
        return
    for part, shown in parts.items():
        absent = [name for name, there in zip(survey.labels.names, shown, strict=True) if not there]
        if not absent:
            continue
        what = f"{_some(len(absent), 'class never occurs', 'classes never occur')} in {part}: {', '.join(absent)}"
        why = f"What {part} does not show cannot be scored there."
        if part == "train":
            why = "What train does not show is never learned: such a class is predicted nowhere, and scores 0."
        fix = "Add pictures that show it, divide by another split.seed, or take it out of the labels."
        yield Finding("warning", what, tuple(absent)[:_SHOWN], len(absent), why, fix)


def rare_classes(survey: Survey) -> Iterator[Finding]:
    """Find classes with less than a hundredth of the counted pixels."""
    counts = survey.counts()[:-1]
    total = int(counts.sum())
    rare = [k for k in np.argsort(counts, kind="stable").tolist() if 0 < counts[k] < _RARE * total]
    if rare:
        shares = [f"{survey.labels.names[k]} {100 * counts[k] / total:.2g} %" for k in rare]
        top = int(counts.argmax())
        what = f"{_some(len(rare), 'class has', 'classes have')} under {_RARE:.0%} of the pixels: {', '.join(shares)}"
        why = (
            f"A model that says {survey.labels.names[top]!r} everywhere has {100 * counts[top] / total:.1f} % of the"
            " pixels right: judge by mIoU, not by pixel accuracy."
        )
        fix = "Leave loss.class_weights and train.class_crops to be derived, and see that val shows these classes."
        yield Finding("notice", what, tuple(survey.labels.names[k] for k in rare)[:_SHOWN], len(rare), why, fix)


def ignored_share(survey: Survey) -> Iterator[Finding]:
    """Tell how many pixels do not count."""
    counts = survey.counts()
    share = counts[-1] / max(1, counts.sum())
    if share > 0:
        much = share > _MUCH_IGNORED
        showing = [one for one in survey.good if one.counts[-1]]
        fix = "Correct ignore_index in labels.yaml if this is not meant." if much else "Nothing, if this is meant."
        why = "Ignored pixels count in no loss and no metric."
        what = f"{100 * share:.2g} % of the pixels are ignored"
        yield Finding("warning" if much else "notice", what, _masks(showing), len(showing), why, fix)


def told_by_masks(survey: Survey) -> Iterator[Finding]:
    """Pass on what was noticed while masks were read, once per notice."""
    where: dict[str, list[Seen]] = {}
    for one in survey.good:
        for notice in one.notices:
            where.setdefault(notice, []).append(one)
    for notice, seen in where.items():
        why = "It was decided for you."
        yield Finding("notice", notice, _masks(seen), len(seen), why, "Set data.mask_values if this is not meant.")


def told_by_opening(survey: Survey) -> Iterator[Finding]:
    """Pass on what was decided when the data set was opened."""
    for notice in survey.splits.notices[: -1 if survey.splits.skipped else None]:  # the last repeats `left_out`
        where = (str(survey.splits.description.get("root", "data")),)
        yield Finding(
            "notice", notice, where, 1, "It was decided for you.", "Say it in a data.yaml if it is not meant."
        )


# What lies in two parts ----------------------------------------------------------------------------------------------


def same_pictures(survey: Survey) -> Iterator[Finding]:
    """Find pictures whose files are equal, byte for byte, in different parts."""
    twins = _across([one for one in survey.seen if one.digest], [one.digest for one in survey.seen if one.digest])
    if twins:
        count = sum(len(seen) - 1 for seen in twins)
        where = tuple(" = ".join(str(one.record.image) for one in seen) for seen in twins)[:_SHOWN]
        what = f"{_some(count, 'picture lies', 'pictures lie')} in more than one part"
        why = "A model scored on what it has learned by heart looks better than it is."
        yield Finding("warning", what, where, count, why, "Keep one of each, or set data.group.")


def same_groups(survey: Survey) -> Iterator[Finding]:
    """Find groups that lie in different parts (which happens only where the parts were given)."""
    grouped = [one for one in survey.seen if one.record.group is not None]
    torn = _across(grouped, [str(one.record.group) for one in grouped])
    if torn:
        where = tuple(f"{seen[0].record.group}: {', '.join(sorted({s.part for s in seen}))}" for seen in torn)
        what = f"{_some(len(torn), 'group lies', 'groups lie')} in more than one part"
        why = "Pictures of one group are alike: the model is scored on what it has nearly seen."
        fix = "Give each group to one part, or name one pool and let `split` divide it."
        yield Finding("error", what, where[:_SHOWN], len(torn), why, fix)


def _across(seen: Sequence[Seen], keys: Sequence[str]) -> list[list[Seen]]:
    """Gather what shares a key, where that reaches over different parts."""
    same: dict[str, list[Seen]] = {}
    for one, key in zip(seen, keys, strict=True):
        same.setdefault(key, []).append(one)
    return [group for group in same.values() if len({one.part for one in group}) > 1]


CHECKS: tuple[Check, ...] = (
    unreadable_pictures,
    unreadable_masks,
    unequal_sizes,
    turned_pictures,
    mixed_pictures,
    one_class,
    same_groups,
    left_out,
    ignored_masks,
    absent_classes,
    same_pictures,
    rare_classes,
    ignored_share,
    told_by_masks,
    told_by_opening,
)
