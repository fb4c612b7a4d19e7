"""The masks that `measure` takes: output folders of `predict`, mask files of any tool, folders of them, and the masks of data sets.

Masks are opened by their headers and read by windows. Only DICOM segmentations, volumes and the masks of data sets are decoded as a
whole, one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.loading import load
from pixelwise.api.measuring.class_names import LABELS, Named, name_classes, raw_of, read_volume
from pixelwise.api.measuring.predicted import listed_images, read_summary, segmentation
from pixelwise.api.measuring.video_masks import frame_masks
from pixelwise.api.predicting.requests import SUMMARY
from pixelwise.config import Config, read_request, with_overrides
from pixelwise.config.tree import SplitConfig
from pixelwise.datasets.dataset import Dataset, open_data
from pixelwise.errors import DataError, MaskError, PixelwiseError, UsageError
from pixelwise.grid import Grid
from pixelwise.imageio import volume_files
from pixelwise.imageio.dicom_seg_header import segmentation_kind
from pixelwise.imageio.file_formats import READABLE
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.listing import walk
from pixelwise.imageio.masks import MaskRule, encode_values, read_mask
from pixelwise.imageio.scene_writing import class_ids
from pixelwise.imageio.sources import open_source
from pixelwise.labels import Labels
from pixelwise.measuring.conformal import SizeCalibration
from pixelwise.measuring.masks import ArrayMask, MaskSource, bands
from pixelwise.models.card import ModelCard
from pixelwise.tiles import Window

_DESCRIPTIONS = (".yaml", ".yml", ".json", ".geojson", ".xml", ".csv")
_VALUES = "data.mask_values"
_LOSSY = (".jpg", ".jpeg")
_OF_IMAGES = ("images", "image", "imgs")
_BAND_PIXELS = 1 << 24
_IDS = MaskRule(binary=False)  # 255 is an id like others, not the second of two classes
_ANOTHER_TOOL = "no interval: the masks are not predictions of a model whose sizes are calibrated"
_TRUTH = "no interval: the masks are ground truth"


class Measurable(MaskSource, Protocol):
    """A mask with the grid of its image, and windows that cover it, each of a size that fits into memory."""

    @property
    def grid(self) -> Grid:
        """Of the image."""

    def bands(self) -> list[Window]:
        """Return the windows from the start of the mask to its end."""


@dataclass(frozen=True, eq=False)
class TrueMask(ArrayMask):
    """A mask of a data set in memory."""

    grid: Grid = field(default_factory=Grid)

    def bands(self) -> list[Window]:
        """See `Measurable.bands`."""
        return bands(self.shape, self.shape[0])


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask file of any tool (see `Measurable`).

    Args:
        id: name of the mask.
        path: an image or a volume file.
        shape: *S.
        grid: of the file.
        known: the classes, and how values become ids.
    """

    id: str
    path: Path
    shape: tuple[int, ...]
    grid: Grid
    known: Named

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.known.labels

    def read(self, window: Window) -> NDArray[Any]:
        """See `MaskSource.read`."""
        labels, rule = self.known.labels, self.known.rule
        if volume_files.is_volume(self.path):
            volume = read_volume(self.path)
            mask = encode_values(self.path, raw_of(self.path, volume), labels, rule)[0]
            return mask.reshape(volume.shape)[window.slices]
        return read_mask(self.path, labels, rule, window=None if window.shape == self.shape else window)[0]

    def confidence(self, window: Window) -> None:
        """See `MaskSource.confidence`: unknown."""
        return

    def bands(self) -> list[Window]:
        """See `Measurable.bands`; a volume file is read as a whole."""
        whole = volume_files.is_volume(self.path)
        return bands(self.shape, self.shape[0] if whole else max(_BAND_PIXELS // math.prod(self.shape[1:]), 1))


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks to measure.

    Args:
        masks: one after the other; those of a data set are decoded on the way.
        calibration: of the model that predicted them; None without one.
        note: why there are no intervals, if that is not for lack of a calibration of the model; None if it may be.
        names: of the classes.
        rules: of the model, the plain form of `measuring.rules.Rules`; None if there are none.
        notices: what was assumed or left out.
    """

    masks: Iterable[Measurable]
    names: tuple[str, ...] = ()
    calibration: SizeCalibration | None = None
    note: str | None = None
    rules: Mapping[str, Any] | None = None
    notices: tuple[str, ...] = ()


def open_masks(path: Path, overrides: Sequence[str] = ()) -> Masks:
    """Find the masks at a path.

    Args:
        path: an output folder of `predict`; a mask file or a folder of them; or a data set, whose masks of all splits are measured.
        overrides: settings of `data`: for a data set, such as "data.volumes=whole", or "data.mask_values=…" for mask files.

    Raises:
        DataError: nothing that can be measured.
        UsageError: settings that have no effect, or do not exist.
    """
    _require_keys(overrides, "data.")
    if not path.exists():
        do = "Check the path."
        raise DataError(path, expected="predictions, mask files or a data set", found="nothing", do=do)
    summary = read_summary(path) if path.is_dir() else None
    if summary is not None:
        _require_keys(overrides)
        return _predictions(path, summary)
    if (path / SUMMARY).is_file():
        do = "Predict the images, or wait until predict has finished."
        raise DataError(path / SUMMARY, expected="the list of predicted images", found="none", do=do)
    if not _may_be_data(path):
        return _files(path, overrides)
    try:
        return _data_set(path, overrides)
    except DataError:
        if path.is_file() or any((path / name).is_dir() for name in _OF_IMAGES):
            raise
        try:
            return _files(path, overrides)
        except DataError as error:
            found = error
    # Neither: what a data set lacks is the more likely advice where there are no masks at all.
    raise found


def _require_keys(overrides: Sequence[str], *starts: str) -> None:
    """Raise a `UsageError` for settings of other keys, or with values that are not valid."""
    for text in overrides:
        if not text.strip().startswith(starts or "--"):
            expected = (
                f"a key of {starts[0].removesuffix('.')}, or of measure" if len(starts) == 1 else "a key of measure"
            )
            expected = f"--set {_VALUES}, or a key of measure" if starts == (_VALUES,) else expected
            raise UsageError(f"--set {text}", expected=expected, found="a key without effect here", do="Leave it out.")
    with_overrides(Config(), overrides)


def _may_be_data(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in _DESCRIPTIONS
    return any(
        each.is_dir()
        or each.suffix.lower() in (*_LOSSY, ".dcm")
        or (each.suffix.lower() in _DESCRIPTIONS and each.name != LABELS)
        for each in path.iterdir()
        if not each.name.startswith(".") and not each.name.endswith(".aux.xml")
    )


# Predictions


def _predictions(folder: Path, summary: dict[str, Any]) -> Masks:
    """Return the masks that `predictions.json` lists, those of videos frame by frame.

    Raises:
        DataError: only videos without masks.
    """
    labels = Labels.from_dict(summary["labels"], str(folder / SUMMARY))
    labels = labels if labels.ignore_ids else replace(labels, ignore_ids=(class_ids(labels)[1],))
    images, without = listed_images(folder, summary, labels, _IDS)
    card, notices = _model_card(summary)
    videos = [entry for entry in summary["images"] if "mask" not in entry and "masks" in entry]
    without = [name for name in without if name not in {str(entry["file"]) for entry in videos}]
    if not images and not videos:
        do = "Predict them again, with masks: --set predict.video_masks=png --overwrite."
        raise DataError(folder / SUMMARY, expected="images, or videos with masks", found="only videos without", do=do)
    notices += [
        f"{name}: not measured, since it has no masks; for those: predict --set predict.video_masks=png"
        for name in without
    ]
    calibration, rules = (
        (None, None) if card is None else (SizeCalibration.from_dict(card.size_calibration), card.rules)
    )
    return Masks(
        _Listed(images, folder, videos, labels), labels.names, calibration, rules=rules, notices=tuple(notices)
    )


@dataclass(frozen=True, eq=False)
class _Listed:
    """The masks of images, and of the frames of videos, which are decoded on the way."""

    images: Sequence[Measurable]
    folder: Path
    videos: Sequence[Mapping[str, Any]]
    labels: Labels

    def __iter__(self) -> Iterator[Measurable]:
        yield from self.images
        for entry in self.videos:
            for name, mask in frame_masks(self.folder, entry, self.labels):
                yield TrueMask(mask, self.labels, name)


def _model_card(known: dict[str, Any]) -> tuple[ModelCard | None, list[str]]:
    """Return the card of the model of predictions, and a notice if that model is not there."""
    place = known.get("model")
    if place is None:
        return None, ["the predictions do not name their model: sizes have no intervals"]
    try:
        card = load(place).card if Path(place).exists() else None
    except PixelwiseError:
        card = None
    if card is None:
        return None, [f"{place}: the model of the predictions is not there, so that sizes have no intervals"]
    if card.sha256 != known.get("model_sha256"):
        return None, [f"{place}: not the model of the predictions any more, so that sizes have no intervals"]
    return card, []


# Files of any tool


def _files(path: Path, overrides: Sequence[str]) -> Masks:
    """Return the mask files at a path; files that name no classes have those of the ids that occur in all of them."""
    _require_keys(overrides, _VALUES)
    files = [path] if path.is_file() else [each for each in sorted(walk(path)) if _is_mask(each)]
    if not files:
        expected = f"predictions, a data set, or mask files ({READABLE}, NIfTI, NRRD, DICOM segmentations)"
        raise DataError(path, expected=expected, found="none of them", do="Check the path.")
    segmented = [each for each in files if each.suffix.lower() == ".dcm" and segmentation_kind(each) == "SEG"]
    plain = [each for each in files if each not in segmented]
    images = [each for each in plain if each.suffix.lower() == ".dcm"]
    if images:
        found, do = "another DICOM object", "Name the folder with the series and its segmentation, as a data set."
        raise MaskError(images[0], expected="a DICOM segmentation (SEG)", found=found, do=do)
    given = with_overrides(Config(), overrides).data.mask_values
    known = name_classes(plain, path if path.is_dir() else path.parent, given) if plain else None
    masks: list[Measurable] = []
    every = dict.fromkeys(known.labels.names if known is not None else ())
    for each in files:
        if each in segmented:
            mask, names, grid = segmentation(each)
            masks.append(TrueMask(mask, names, str(each), grid=grid))
            every |= dict.fromkeys(names.names)
        elif known is not None:
            source = open_source(each)
            masks.append(MaskFile(str(each), each, tuple(source.shape), source.grid, known))
    return Masks(masks, tuple(every), note=_ANOTHER_TOOL, notices=known.notices if known is not None else ())


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() in (*IMAGE_SUFFIXES, ".dcm") or volume_files.is_volume(path)


# Data sets


def _data_set(path: Path, overrides: Sequence[str]) -> Masks:
    """Return the ground truth of the images of all splits that have one; volumes are whole."""
    config, base = read_request(path, overrides)
    section = config.data
    undivided = SplitConfig(val=0) if section.split == SplitConfig() else section.split
    section = section.model_copy(update={"split": undivided, "volumes": section.volumes or "whole"})
    splits = open_data(section, base)
    chosen = [(split, i) for split in splits for i, record in enumerate(split.records) if record.mask is not None]
    return Masks(_Truth(chosen), splits.labels.names, note=_TRUTH, notices=splits.notices)


@dataclass(frozen=True, eq=False)
class _Truth:
    """The masks of images of a data set, decoded on the way."""

    places: Sequence[tuple[Dataset, int]]

    def __iter__(self) -> Iterator[TrueMask]:
        for split, index in self.places:
            sample = split.read(index)
            mask: NDArray[Any] | None = sample.truth(split.labels.ignore_index)
            assert mask is not None  # the record has a mask
            yield TrueMask(np.asarray(mask), split.labels, f"{split.name}/{sample.id}", grid=sample.grid)
