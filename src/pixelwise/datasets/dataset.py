"""Open a data set: from what the user points at to train, val and test parts that read samples.

Comes in: a folder, a data.yaml or a recipe. Goes out: `DataSplits` of `Dataset`s, whose `read(i)` gives a `Sample`.
Knows nothing of tensors, augmentation or batches.

Nothing is dropped in silence: an image without a mask, a mask without an image, a name used twice and a size that
differs are errors. With `skip_bad` those files are left out, and every one is told in `DataSplits.skipped`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.config import DataConfig, SplitConfig
from pixelwise.datasets.classes import find_labels
from pixelwise.datasets.split import name_groups, split_groups
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.formats import read_dataset
from pixelwise.formats.reading import (
    as_bands,
    file_hash,
    image_digest,
    read_record_image,
    read_truth,
    require_pair,
    require_size,
)
from pixelwise.formats.records import SPLITS, Problem, Record, short
from pixelwise.imageio.images import Limits, read_mask_values
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Labels
from pixelwise.types import Sample

__all__ = ["DataSplits", "Dataset", "Record", "open_data", "pin_paths", "without_unreadable"]


@dataclass(frozen=True)
class Dataset:
    """Read the samples of one part; immutable, and small enough to send to worker processes.

    Args:
        labels: the classes.
        records: the files, one entry per image.
        rule: how mask values become class ids.
        name: "train", "val" or "test".
        limits: what a file may claim before it is decoded.
        bands: what images of one and of three bands are brought to (see `images.as_bands`).

    """

    labels: Labels
    records: tuple[Record, ...]
    rule: MaskRule
    name: str = ""
    limits: Limits = field(default_factory=Limits)
    bands: str | None = None

    def __len__(self) -> int:
        """Count the images."""
        return len(self.records)

    def read(self, index: int) -> Sample:
        """Decode image and mask: image (C, H, W) in the file's type, mask (H, W) of class indices.

        Pixels that the mask of valid pixels leaves out become `labels.ignore_index`.

        Raises:
            ImageError: the image cannot be decoded.
            MaskError: the mask cannot be understood.
            PairingError: the two differ in size.

        """
        return self.inspect(index)[0]

    def inspect(self, index: int) -> tuple[Sample, tuple[str, ...]]:
        """Do what `read` does, and tell what was noticed on the way (a {0, 255} mask taken as two classes, say)."""
        record = self.records[index]
        image, grid, measured = read_record_image(record, self.limits)
        image = as_bands(image, self.bands)
        if record.mask is None:
            return Sample(image, None, grid, record.id, record.group), ()
        mask, notices = read_truth(record, self.labels, self.rule, self.limits)
        size = (image.shape[1], image.shape[2])
        require_size(record.mask, mask.shape, record.image, size)
        if record.valid is not None:
            valid = _read_valid(record.valid, self.limits)
            require_size(record.valid, valid.shape, record.image, size)
            measured = valid if measured is None else measured & valid
        if measured is not None:
            mask = np.where(measured, mask, self.labels.dtype.type(self.labels.ignore_index))
        return Sample(image, mask, grid, record.id, record.group), notices

    def groups(self) -> int:
        """Count the groups; an image without one stands for itself."""
        return len({(record.group is None, _group_of(record)) for record in self.records})

    def subset(self, indices: Iterable[int]) -> Dataset:
        """Give a data set of some of the images, in the given order."""
        return replace(self, records=tuple(self.records[i] for i in indices))

    def names_hash(self) -> str:
        """Give the SHA-256, in hex, over the names of the images: what tells one division of a data set from another."""
        names = "\n".join(sorted(record.id for record in self.records))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def hash(self) -> str:
        """Give the SHA-256, in hex, over the names and contents of every file; the order of the records is nothing."""
        total = hashlib.sha256()
        for record in sorted(self.records, key=lambda record: record.id):
            total.update(f"{record.id}\n".encode("utf-8", "surrogateescape"))
            for what in ("image", "mask", "valid"):
                path: Path | None = getattr(record, what)
                if what == "mask" and record.source is not None:  # its file may hold the annotations of all images
                    total.update(f"{what} {record.source.digest()}\n".encode())
                    continue
                total.update(f"{what} {file_hash(path) if path else 'none'}\n".encode())
            if record.plane is not None or record.window is not None:
                total.update(f"piece {image_digest(record)}\n".encode())
        return total.hexdigest()


def _read_valid(path: Path, limits: Limits) -> NDArray[np.bool_]:
    """Read a mask of valid pixels: (H, W), false where it is zero.

    Raises:
        MaskError: it cannot be read, or is lossy.

    """
    raw = read_mask_values(path, limits)
    if raw.kind == "lossy":
        raise MaskError(
            path,
            expected="a lossless mask of valid pixels, PNG or TIFF",
            found=f"lossy {raw.format}, which is not zero where it was black",
            do="Save it as PNG.",
        )
    return np.any(raw.values != 0, axis=-1) if raw.values.ndim == 3 else raw.values != 0


@dataclass(frozen=True)
class DataSplits:
    """Hold a data set that was opened.

    Args:
        train, val, test: the parts; None where there is none.
        labels: the classes.
        notices: what was decided for the user, one sentence each.
        skipped: with `skip_bad`, every file left out, as "file: why".
        description: where it lies, how it was found and divided; plain values for `data.json`.
        advice: what to do about some of `skipped`, where their format knows.

    """

    train: Dataset | None
    val: Dataset | None
    test: Dataset | None
    labels: Labels
    notices: tuple[str, ...]
    skipped: tuple[str, ...]
    description: dict[str, Any]
    advice: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Dataset]:
        """Go through the parts that exist: train, val, test."""
        return iter([split for split in (self.train, self.val, self.test) if split is not None])


def pin_paths(config: DataConfig, base: Path) -> DataConfig:
    """Make every path absolute, so that the section means the same from any folder (a run's config.yaml, say)."""
    root = (base / config.root if config.root else base).resolve()
    update: dict[str, Any] = {"root": str(root)}
    for key in ("train", "val", "test", "group", "labels"):
        value = getattr(config, key)
        if isinstance(value, str):
            path = next((folder / value for folder in (base, root) if _is_file(folder / value)), None)
            update[key] = str(path.resolve()) if path else value
    return config.model_copy(update=update)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long expression that names groups, say
        return False


def open_data(config: DataConfig, base: Path) -> DataSplits:
    """Find, pair, check by header, group and divide the files of a data set.

    Every header is read, no pixel is decoded (save to list the ids of masks where no labels are given).

    Args:
        config: the `data` section.
        base: the folder that `config.root` starts from (see `config.read_request`).

    Raises:
        DataError: no folder, no images, no masks (PairingError, ImageError, LabelsError are kinds of it).
        ConfigError: a list, template or expression that makes no sense.

    """
    root = base / config.root if config.root else base
    kind, found = read_dataset(config, root, base)
    layout = found.layout
    rule = MaskRule.from_config(config.mask_values) if config.mask_values is not None else found.rule or MaskRule()
    if layout.problems and not config.skip_bad:
        raise _unpaired(root, layout.problems)
    splits, unusable = _check_headers(layout.splits, config.skip_bad)
    problems = layout.problems + unusable
    if not any(splits.values()):
        raise _none_left(root, problems)
    if config.group:
        splits = _with_groups(splits, config.group, root, base)
    splits, division, told = _divide(splits, config.split, root)
    everything = [record for records in splits.values() for record in records]
    labels, rule, source, listed = find_labels(config, root, base, everything, rule, found.labels)
    sets = {
        split: Dataset(labels, splits[split], rule, split, bands=config.bands) for split in SPLITS if splits.get(split)
    }
    skipped = tuple(f"{problem.file}: {problem.why}" for problem in problems)
    description = {
        "root": str(root),
        "format": kind.name,
        "layout": layout.kind,
        "labels": source,
        "mask_values": rule.to_config(),  # in full, so that a run's config.yaml reads the same masks the same way
        "images": {split: len(dataset) for split, dataset in sets.items()},
        "split": division,
        "skipped": len(skipped),
    }
    notices = (*layout.notices, *told, *listed, *_left_out(skipped))
    train, val, test = (sets.get(split) for split in SPLITS)
    advice = {text: problem.do for text, problem in zip(skipped, problems, strict=True) if problem.do}
    return DataSplits(train, val, test, labels, notices, skipped, description, advice)


def without_unreadable(splits: DataSplits) -> DataSplits:
    """Decode every file once and leave out those that fail, for `skip_bad`: headers do not tell a truncated image."""
    subsets: dict[str, Dataset | None] = {}
    skipped = list(splits.skipped)
    for dataset in splits:
        good = []
        for index in range(len(dataset)):
            try:
                dataset.read(index)
            except DataError as error:
                skipped.append(str(error))
            else:
                good.append(index)
        subsets[dataset.name] = dataset.subset(good) if good else None
    images = {name: len(split) for name, split in subsets.items() if split}
    description = splits.description | {"skipped": len(skipped), "images": images}
    train, val, test = (subsets.get(split) for split in SPLITS)
    notices = (*splits.notices[: -1 if splits.skipped else None], *_left_out(skipped))
    return DataSplits(train, val, test, splits.labels, notices, tuple(skipped), description, splits.advice)


def _left_out(skipped: Sequence[str]) -> tuple[str, ...]:
    """Say how many files were left out: the last of the notices, where there are any."""
    many = "1 file was" if len(skipped) == 1 else f"{len(skipped)} files were"
    return (f"{many} left out by skip_bad",) if skipped else ()


_KINDS = 4
_REPAIR = "Add or remove the files, or leave them out with --skip-bad (data.skip_bad: true): counted and recorded."


def _unpaired(root: Path, problems: Sequence[Problem]) -> PairingError:
    files: dict[str, list[str]] = {}
    for problem in problems:
        files.setdefault(problem.why, []).append(problem.file)
    hint = next((problem.do for problem in problems if problem.do), "") or _hint(
        files.get("image without a mask", []), files.get("mask without an image", [])
    )
    return PairingError(
        root,
        expected="one mask for every image and one image for every mask",
        found=_counted(problems),
        do=hint or _REPAIR,
    )


def _none_left(root: Path, problems: Sequence[Problem]) -> DataError:
    """Say why of all the files none can be used: those that are wrong have been left out already."""
    why = f" ({_counted(problems)})" if problems else ""
    do = next((problem.do for problem in problems if problem.do), "Add the files that are missing, or repair them.")
    return DataError(root, expected="images with masks", found=f"none that can be used{why}", do=do)


def _counted(problems: Sequence[Problem]) -> str:
    """Count problems of a kind, each with its first files; there may be as many kinds as files."""
    files: dict[str, list[str]] = {}
    for problem in problems:
        files.setdefault(problem.why, []).append(problem.file)
    kinds = [
        f"{why}: {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" for why, names in files.items()
    ]
    more = sum(map(len, files.values())) - sum(len(names) for names in list(files.values())[:_KINDS])
    return "; ".join(kinds[:_KINDS]) + (f"; and {more} more" if more else "")


def _hint(images: Sequence[str], masks: Sequence[str]) -> str | None:
    """Recognise masks that are named as their images with something before or behind: a_mask.png for a.png."""
    stems = {Path(name).stem for name in images}
    if not stems or not masks:
        return None
    first = Path(masks[0])
    inner = max((stem for stem in stems if stem in first.stem), key=len, default=None)
    if inner is None:
        return None
    before, behind = first.stem.split(inner, 1)
    named = {before + stem + behind for stem in stems}
    if sum(Path(name).stem in named for name in masks) < len(masks) / 2:
        return None
    template = (first.parent / f"{before}{{stem}}{behind}{first.suffix}").as_posix()
    folder = Path(images[0]).parent.as_posix()
    return f"Write a data.yaml with images: '{folder}/*' and masks: '{template}'."


def _check_headers(
    splits: Mapping[str, tuple[Record, ...]], skip_bad: bool
) -> tuple[dict[str, tuple[Record, ...]], tuple[Problem, ...]]:
    """Compare the sizes that the headers give; leave unreadable and unequal files out, or raise."""
    good: dict[str, tuple[Record, ...]] = {}
    problems: list[Problem] = []
    for split, records in splits.items():
        kept = []
        for record in records:
            try:
                kept.append(require_pair(record))
            except DataError as error:
                if not skip_bad:
                    raise
                problems.append(Problem(error.where, f"expected {error.expected}, found {error.found}"))
        good[split] = tuple(kept)
    return good, tuple(dict.fromkeys(problems))


def _with_groups(
    splits: Mapping[str, tuple[Record, ...]], rule: str, root: Path, base: Path
) -> dict[str, tuple[Record, ...]]:
    grouped = {}
    for split, records in splits.items():
        groups = name_groups([short(r.image, root) for r in records], rule, (base, root))
        grouped[split] = tuple(replace(r, group=group) for r, group in zip(records, groups, strict=True))
    return grouped


def _group_of(record: Record) -> str:
    """Give what stays together with an image: its group, be its name empty, else the image itself."""
    return record.id if record.group is None else record.group


def _together(splits: Mapping[str, tuple[Record, ...]]) -> tuple[Record, ...]:
    """Make one pool of all parts; where two images share an id, it begins with the part."""
    ids = Counter(record.id for records in splits.values() for record in records)
    return tuple(
        record if ids[record.id] == 1 else replace(record, id=f"{split}/{record.id}")
        for split, records in splits.items()
        for record in records
    )


def _divide(
    splits: Mapping[str, tuple[Record, ...]], split: SplitConfig, root: Path
) -> tuple[dict[str, tuple[Record, ...]], dict[str, Any], tuple[str, ...]]:
    """Take the parts that are missing from train (or from the pool, which then is train)."""
    if split.anew:
        splits = {"pool": _together(splits)}
    splits = {("train" if subset == "pool" else subset): records for subset, records in splits.items()}
    shares = {
        subset: share for subset, share in (("val", split.val), ("test", split.test)) if subset not in splits and share
    }
    train = splits.get("train", ())
    if not train or not shares:
        return splits, {"given": sorted(splits)}, ()
    place = split_groups(
        [record.id for record in train],
        [_group_of(record) for record in train],
        shares.get("val", 0.0),
        shares.get("test", 0.0),
        split.seed,
        root,
    )
    given = sorted(set(splits) - {"train"})
    for subset in ("train", *shares):
        splits[subset] = tuple(record for record in train if place[record.id] == subset)
    by = "group" if train[0].group is not None else "image"
    told = tuple(
        f"{len(splits[subset])} of {len(train)} images were taken from train for {subset}, by {by} (split.seed {split.seed})"
        for subset in shares
    )
    achieved = {subset: len(splits[subset]) / len(train) for subset in shares}
    return splits, {"given": given, "seed": split.seed, "by": by, "asked": shares, "achieved": achieved}, told
