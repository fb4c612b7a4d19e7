"""Open a data set as train, val and test splits.

An image without a mask, a mask without an image, a duplicate name and a different size are errors. With `skip_bad` those files
are left out, and all of them are listed in `DataSplits.skipped`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.config import DataConfig, SplitConfig
from pixelwise.datasets.classes import find_labels
from pixelwise.datasets.scenes import Division, apart_notices, divide_scenes, keep_apart
from pixelwise.datasets.split import name_groups, split_groups
from pixelwise.errors import ConfigError, DataError, MaskError, PairingError
from pixelwise.formats import read_dataset
from pixelwise.formats.reading import (
    as_bands,
    file_hash,
    image_digest,
    read_record_image,
    read_truth,
    require_pair,
    require_size,
    window_of,
)
from pixelwise.formats.records import ORPHAN, SPLITS, UNMASKED, Problem, Record, short
from pixelwise.formats.shape_placement import place_shapes
from pixelwise.imageio.images import Limits, read_mask_values
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.raster import Header
from pixelwise.imageio.sidecars import mask_file, read_nodata_file
from pixelwise.imageio.windows import LARGE, WINDOWED
from pixelwise.labels import Labels
from pixelwise.tiles import Window
from pixelwise.types import Sample

Forms = Counter[tuple[int, str] | None]
_GREY, _COLOUR = (1, "uint8"), (3, "uint8")

__all__ = ["DataSplits", "Dataset", "Record", "open_data", "pin_paths", "without_unreadable"]


@dataclass(frozen=True)
class Dataset:
    """The samples of one split; immutable, and small enough to send to worker processes.

    Args:
        labels: the classes.
        records: the files, one entry per image.
        rule: how mask values are converted to class ids.
        name: "train", "val" or "test".
        limits: the largest image to decode.
        bands: "rgb" or "grey" to convert images of one or three bands (see `reading.as_bands`).
    """

    labels: Labels
    records: tuple[Record, ...]
    rule: MaskRule
    name: str = ""
    limits: Limits = field(default_factory=Limits)
    bands: str | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.records)

    def read(self, index: int) -> Sample:
        """Decode the image (C, *S) in the file's type, and the mask (*S) as class indices; *S is (D, H, W) for whole volumes.

        The mask has the ignore index where the record's validity mask (`data.valid`) is zero. `Sample.valid` is about the
        image: false where it holds no data (see `imageio.images`).

        Raises:
            ImageError: the image cannot be decoded.
            MaskError: the mask cannot be interpreted.
            PairingError: the two differ in size.
        """
        return self.inspect(index)[0]

    def inspect(self, index: int) -> tuple[Sample, tuple[str, ...]]:
        """Read a sample, and return notices of what was assumed (such as a {0, 255} mask read as two classes)."""
        record = self.records[index]
        image, grid, valid = read_record_image(record, self.limits)
        image = as_bands(image, self.bands)
        if record.mask is None:
            return Sample(image, None, grid, record.id, record.group, valid), ()
        mask, notices = read_truth(record, self.labels, self.rule, self.limits)
        size = image.shape[1:]
        require_size(record.mask, mask.shape, record.image, size)
        if record.valid is not None:
            annotated = _read_valid(record.valid, self.limits, window_of(record))
            require_size(record.valid, annotated.shape, record.image, size)
            mask = np.where(annotated, mask, self.labels.dtype.type(self.labels.ignore_index))
        return Sample(image, mask, grid, record.id, record.group, valid), notices

    def groups(self) -> int:
        """Return the number of groups; an image without one is its own group."""
        return len({(record.group is None, _group_of(record)) for record in self.records})

    def subset(self, indices: Iterable[int]) -> Dataset:
        """Return a data set of some of the images, in the given order."""
        return replace(self, records=tuple(self.records[i] for i in indices))

    def names_hash(self) -> str:
        """Return the SHA-256, in hex, over the names of the images, which identifies a split."""
        names = "\n".join(sorted(record.id for record in self.records))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def hash(self) -> str:
        """Return the SHA-256, in hex, over the names and contents of all files, in any order."""
        digest = hashlib.sha256()
        for record in sorted(self.records, key=lambda record: record.id):
            digest.update(f"{record.id}\n".encode("utf-8", "surrogateescape"))
            for what in ("image", "mask", "valid"):
                path: Path | None = getattr(record, what)
                if what == "mask" and record.source is not None:  # the file may have the annotations of all images
                    digest.update(f"{what} {record.source.digest()}\n".encode())
                    continue
                digest.update(f"{what} {file_hash(path) if path else 'none'}\n".encode())
            if (shown := mask_file(record.image)).is_file():
                digest.update(f"valid pixels {file_hash(shown)}\n".encode())
            if (nodata := read_nodata_file(record.image)) is not None:
                digest.update(f"nodata {nodata}\n".encode())
            if record.plane is not None or record.window is not None:
                digest.update(f"piece {image_digest(record)}\n".encode())
        return digest.hexdigest()


def _read_valid(path: Path, limits: Limits, window: Window | None) -> NDArray[np.bool_]:
    """Read a validity mask, or a window of it: (H, W), false where it is zero.

    Raises:
        MaskError: it cannot be read, or is lossy.
    """
    raw = read_mask_values(path, limits, window)
    if raw.kind == "lossy":
        raise MaskError(
            path,
            expected="a lossless mask of valid pixels, PNG or TIFF",
            found=f"lossy {raw.format}, in which black is not exactly zero",
            do="Save it as PNG.",
        )
    return np.any(raw.values != 0, axis=-1) if raw.values.ndim == 3 else raw.values != 0


@dataclass(frozen=True)
class DataSplits:
    """An opened data set.

    Args:
        train, val, test: the splits; None if missing.
        labels: the classes.
        notices: decisions made automatically, one sentence each.
        problems: with `skip_bad`, all files left out.
        description: root, format and splits, as plain values for `data.json`.
    """

    train: Dataset | None
    val: Dataset | None
    test: Dataset | None
    labels: Labels
    notices: tuple[str, ...]
    problems: tuple[Problem, ...]
    description: dict[str, Any]

    @property
    def skipped(self) -> tuple[str, ...]:
        """The files left out, as "file: reason"."""
        return tuple(map(str, self.problems))

    def __iter__(self) -> Iterator[Dataset]:
        """Iterate over the existing splits: train, val, test."""
        return iter([split for split in (self.train, self.val, self.test) if split is not None])


def pin_paths(config: DataConfig, base: Path) -> DataConfig:
    """Make all paths absolute, so that the section is valid from any folder (such as a run's config.yaml)."""
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
    except (OSError, ValueError):  # the value may be a long expression for groups
        return False


def open_data(config: DataConfig, base: Path) -> DataSplits:
    """Find, pair, check, group and split the files of a data set.

    All headers are read, but no pixels (except to list the ids of masks without labels).

    Args:
        config: the `data` section.
        base: the folder that `config.root` is relative to (see `config.read_request`).

    Raises:
        DataError: no folder, no images, no masks (including PairingError, ImageError, LabelsError).
        ConfigError: an invalid list, template or expression.
    """
    root = base / config.root if config.root else base
    kind, found = read_dataset(config, root, base)
    layout = found.layout
    rule = MaskRule.from_config(config.mask_values) if config.mask_values is not None else found.rule or MaskRule()
    if layout.problems and not config.skip_bad:
        raise _unpaired(root, layout.problems)
    found_splits = layout.splits if config.nodata is None else _with_nodata(layout.splits, float(config.nodata))
    splits, unusable, forms, large = _check_headers(found_splits, config.skip_bad)
    splits, shape_notices = place_shapes(splits, root)
    problems = layout.problems + unusable
    if not any(splits.values()):
        raise _none_left(root, problems)
    if config.neighbours:
        _require_slices(splits, config)
    if config.group:
        splits = _with_groups(splits, config.group, root, base)
    divided = divide_scenes(_together(splits) if config.split.anew else splits, large, config.split, config.group)
    splits, division, split_notices = _divide(divided, config.split, root)
    records = [record for split in splits.values() for record in split]
    labels, rule, source, label_notices = find_labels(config, root, base, records, rule, found.labels)
    bands, band_notices = _choose_bands(config.bands, forms)
    sets = {split: Dataset(labels, splits[split], rule, split, bands=bands) for split in SPLITS if splits.get(split)}
    description = {
        "root": str(root),
        "format": kind.name,
        "layout": layout.kind,
        "labels": source,
        "bands": bands,
        "mask_values": rule.to_config(),  # complete, so that a run's config.yaml reads the masks in the same way
        "images": {split: len(dataset) for split, dataset in sets.items()},
        "split": division,
        "skipped": len(problems),
    }
    notices = (
        *layout.notices,
        *shape_notices,
        *divided.notices,
        *split_notices,
        *label_notices,
        *band_notices,
        *_left_out(problems),
    )
    train, val, test = (sets.get(split) for split in SPLITS)
    return DataSplits(train, val, test, labels, notices, problems, description)


def _require_slices(splits: Mapping[str, Sequence[Record]], config: DataConfig) -> None:
    """Raise unless all images are slices of volumes, which have neighbours."""
    if all(record.plane is not None and not record.stack for split in splits.values() for record in split):
        return
    whole = config.volumes == "whole"
    raise ConfigError(
        "data.neighbours",
        expected="volumes that are read as slices",
        found="whole volumes" if whole else "images",
        do="Leave it out." if not whole else "Leave out one of data.neighbours and data.volumes=whole.",
    )


def without_unreadable(splits: DataSplits) -> DataSplits:
    """Decode every file once and leave out those that fail, for `skip_bad`: a header does not show a truncated image."""
    subsets: dict[str, Dataset | None] = {}
    problems = list(splits.problems)
    for dataset in splits:
        good = []
        for index in range(len(dataset)):
            try:
                dataset.read(index)
            except DataError as error:
                why = str(error).removeprefix(f"{error.where}: ")
                problems.append(replace(Problem.from_error(error), why=why))
            else:
                good.append(index)
        subsets[dataset.name] = dataset.subset(good) if good else None
    images = {name: len(split) for name, split in subsets.items() if split}
    description = splits.description | {"skipped": len(problems), "images": images}
    train, val, test = (subsets.get(split) for split in SPLITS)
    notices = (*splits.notices[: -1 if splits.problems else None], *_left_out(problems))
    return DataSplits(train, val, test, splits.labels, notices, tuple(problems), description)


def _left_out(problems: Sequence[Problem]) -> tuple[str, ...]:
    """Return the last notice: how many files were left out."""
    count = "1 file was" if len(problems) == 1 else f"{len(problems)} files were"
    return (f"{count} left out by skip_bad",) if problems else ()


_MAX_REASONS = 4
_REPAIR = "Add or remove the files, or leave them out with --skip-bad (data.skip_bad: true); they are then counted and recorded."


def _unpaired(root: Path, problems: Sequence[Problem]) -> PairingError:
    files = _by_reason(problems)
    hint = next((problem.do for problem in problems if problem.do), "") or _hint(
        files.get(UNMASKED, []), files.get(ORPHAN, [])
    )
    return PairingError(
        root,
        expected="one mask for every image and one image for every mask",
        found=_counted(problems),
        do=hint or _REPAIR,
    )


def _none_left(root: Path, problems: Sequence[Problem]) -> DataError:
    """Make the error for a data set of which no file can be used."""
    why = f" ({_counted(problems)})" if problems else ""
    do = next((problem.do for problem in problems if problem.do), "Add the missing files, or repair them.")
    return DataError(root, expected="images with masks", found=f"none that can be used{why}", do=do)


def _by_reason(problems: Sequence[Problem]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for problem in problems:
        files.setdefault(problem.why, []).append(problem.file)
    return files


def _counted(problems: Sequence[Problem]) -> str:
    """Format the problems by reason, with the number of files and the first of them."""
    files = _by_reason(problems)
    reasons = [
        f"{why}: {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" for why, names in files.items()
    ]
    more = sum(map(len, files.values())) - sum(len(names) for names in list(files.values())[:_MAX_REASONS])
    return "; ".join(reasons[:_MAX_REASONS]) + (f"; and {more} more" if more else "")


def _hint(images: Sequence[str], masks: Sequence[str]) -> str | None:
    """Recognise masks with the name of their image and a prefix or suffix (a_mask.png for a.png), and return advice."""
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
) -> tuple[dict[str, tuple[Record, ...]], tuple[Problem, ...], Forms, dict[Path, Header]]:
    """Compare sizes and georeferences by the headers, count the forms of the images, and keep the headers of scenes.

    Unreadable and different files are left out, or raise.
    """
    good: dict[str, tuple[Record, ...]] = {}
    problems: list[Problem] = []
    forms: Forms = Counter()
    large: dict[Path, Header] = {}
    for split, records in splits.items():
        kept = []
        for record in records:
            try:
                record, header = require_pair(record)
            except DataError as error:
                if not skip_bad:
                    raise
                problems.append(Problem.from_error(error))
            else:
                kept.append(record)
                forms[None if header is None else (header.bands, header.read_dtype.name)] += 1
                if header is not None and header.format in WINDOWED and math.prod(header.size) > LARGE:
                    large[record.image] = header
        good[split] = tuple(kept)
    return good, tuple(dict.fromkeys(problems)), forms, large


def _choose_bands(given: str | None, forms: Forms) -> tuple[str | None, tuple[str, ...]]:
    """Choose how bands are converted: to RGB if grey and colour images of 8 bits are mixed, as is common on the web.

    Other mixtures are not converted without being told, since their bands may be anything.
    """
    if given is not None or set(forms) != {_GREY, _COLOUR}:
        return given, ()
    are = "is" if forms[_GREY] == 1 else "are"
    return "rgb", (f"{forms[_GREY]} of {forms.total()} images {are} grey: converted to RGB (data.bands=rgb)",)


def _with_nodata(splits: Mapping[str, tuple[Record, ...]], nodata: float) -> dict[str, tuple[Record, ...]]:
    return {split: tuple(replace(record, nodata=nodata) for record in records) for split, records in splits.items()}


def _with_groups(
    splits: Mapping[str, tuple[Record, ...]], rule: str, root: Path, base: Path
) -> dict[str, tuple[Record, ...]]:
    grouped = {}
    for split, records in splits.items():
        groups = name_groups([short(r.image, root) for r in records], rule, (base, root))
        grouped[split] = tuple(replace(r, group=group) for r, group in zip(records, groups, strict=True))
    return grouped


def _group_of(record: Record) -> str:
    """Return the group of an image, which may have an empty name, or its id without a group."""
    return record.id if record.group is None else record.group


def _together(splits: Mapping[str, tuple[Record, ...]]) -> dict[str, tuple[Record, ...]]:
    """Join all splits to one pool; ids that occur twice get the split as prefix."""
    ids = Counter(record.id for records in splits.values() for record in records)
    pool = tuple(
        record if ids[record.id] == 1 else replace(record, id=f"{split}/{record.id}")
        for split, records in splits.items()
        for record in records
    )
    return {"pool": pool}


def _divide(
    divided: Division, split: SplitConfig, root: Path
) -> tuple[dict[str, tuple[Record, ...]], dict[str, Any], tuple[str, ...]]:
    """Take the missing splits from train (or from the pool, which becomes train), with a buffer between blocks of a scene."""
    splits = {("train" if subset == "pool" else subset): records for subset, records in divided.splits.items()}
    shares = {
        subset: share for subset, share in (("val", split.val), ("test", split.test)) if subset not in splits and share
    }
    train = splits.get("train", ())
    blocks = _described_blocks(divided)
    if not train or not shares:
        return splits, {"given": sorted(splits), **blocks}, ()
    place = split_groups(
        [record.id for record in train],
        [_group_of(record) for record in train],
        shares.get("val", 0.0),
        shares.get("test", 0.0),
        split.seed,
        root,
    )
    given = sorted(set(splits) - {"train"})
    drawn = {subset: tuple(record for record in train if place[record.id] == subset) for subset in ("train", *shares)}
    by = "block" if divided.sides else "group" if train[0].group is not None else "image"
    notices = [
        f"{len(drawn[subset])} of {len(train)} images were taken from train for {subset}, by {by} (split.seed {split.seed})"
        for subset in shares
    ]
    achieved = {subset: len(drawn[subset]) / len(train) for subset in shares}
    if divided.places:
        apart = keep_apart(drawn, divided, split.buffer)
        drawn = apart.splits
        notices += apart_notices(apart)
        blocks |= {"buffer": dict(apart.buffers), "left_out": dict(apart.lost)}
    facts = {"given": given, "seed": split.seed, "by": by, "asked": shares, "achieved": achieved}
    return splits | drawn, facts | blocks, tuple(notices)


def _described_blocks(divided: Division) -> dict[str, Any]:
    """Return the sides of blocks by unit, for `data.json`."""
    sides = {unit: side for unit, side in divided.sides.items() if math.isfinite(side)}
    return {"block": sides} if sides else {}
