"""Ground truth in DICOM: segmentation objects (SEG) and contours (RTSTRUCT), paired with series by the identifiers that they refer to.

Segments are classes by their names: numbers may differ from file to file. Several files of one series complement each other, unless
they describe the same segments. Pixels in no segment are background (`data.unlabelled`). Segments must not overlap; contours may,
since structure sets are made so: the structure with the smaller volume is on top.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.formats.base import ReadResult, drawn_labels, shape_name
from pixelwise.formats.dataset_root import DatasetRoot, files_in, fill_template, make_layout, split_of_folder
from pixelwise.formats.reading import file_hash, image_size
from pixelwise.formats.records import ORPHAN, Layout, MaskSource, Record, StackedMask, short
from pixelwise.formats.shapes import Drawing, Polygon, Shape, class_indices
from pixelwise.formats.split_lists import divide_by_lists, find_lists
from pixelwise.formats.volume_pairs import UNMASKED, VolumePairs, ambiguous, is_named_mask, named_series
from pixelwise.formats.volume_slices import Volume, volume_records
from pixelwise.imageio.dicom_contours import Ring, read_contour_header, read_contours, total_area
from pixelwise.imageio.dicom_seg import read_dicom_seg
from pixelwise.imageio.dicom_seg_header import (
    SegmentationHeader,
    read_identifiers,
    read_segmentation_header,
    segmentation_kind,
)
from pixelwise.imageio.volume_files import is_volume
from pixelwise.imageio.volumes import Plane, VolumeHeader
from pixelwise.labels import Colour, Labels, default_colours

Pairs = Mapping[Path, Sequence[SegmentationHeader]]
_Contours = Sequence[tuple[str, Mapping[int, Sequence[Ring]]]]  # by structure, then by slice


@dataclass(frozen=True, eq=False)
class SegmentedSlice:
    """The mask of a slice in segmentation objects: a `MaskSource`.

    Args:
        files: the segmentation objects of the series.
        header: the voxels of the series.
        plane: the slice.
        segments: the names of all segments in the files.
        ignored: those whose pixels are ignored.
        unlabelled: class of the pixels in no segment; None: they are ignored.
    """

    files: tuple[Path, ...]
    header: VolumeHeader
    plane: Plane
    segments: tuple[str, ...]
    ignored: frozenset[str]
    unlabelled: str | None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.header.size(self.plane.across)[1:]

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes that occur in the files."""
        return frozenset({*self.segments, *filter(None, (self.unlabelled,))} - self.ignored)

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Return class indices (H, W); the size is always that of the series.

        Raises:
            MaskError: a broken file, overlapping segments, or a class that is not in the labels.
            GridMismatchError: a segmentation on other voxels than the series.
        """
        index = class_indices(self.files[0], self.names, labels)
        volume = read_dicom_seg(self.files, self.header)
        classes = (self.unlabelled, *(None if name in self.ignored else name for name in volume.names))
        table = np.array([index[name] for name in classes], labels.dtype)
        return table[self.header.arrange(volume.numbers, self.plane.across)[0, self.plane.index]]

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the files, the slice, and how segments become classes."""
        parts = (self.plane.index, self.plane.across, sorted(self.ignored), self.unlabelled)
        return hashlib.sha256(repr((*parts, *map(file_hash, self.files))).encode("utf-8", "surrogatepass")).hexdigest()


def read_segmentations(volumes: VolumePairs, found: Sequence[Path]) -> ReadResult | None:
    """Read the series of a data set with their segmentation objects; None if it has no such objects.

    Args:
        volumes: the data set, with its series.
        found: the segmentation objects below the root. If the configuration names masks, those are used instead.

    Raises:
        DataError: objects that fit no series or contradict each other, or label volumes in other formats besides.
    """
    dataset = volumes.dataset
    files_by_split = _files_by_split(volumes, found)
    if not any(files for _, files in files_by_split.values()):
        return None
    missing = [name for name, (_, files) in files_by_split.items() if not files]
    if missing:
        do = "Name the DICOM segmentations of all splits, or label volumes for all."
        raise DataError(dataset.root, expected="ground truth of one kind", found=f"none for {missing[0]}", do=do)
    pairs: dict[Path, list[SegmentationHeader]] = {}
    contours: dict[Path, _Contours] = {}
    for split, (folders, files) in files_by_split.items():
        of_split = _pair(volumes, folders, files)
        contours |= _read_contours(volumes, of_split)
        pairs |= of_split
        for folder in of_split:
            name = split or split_of_folder(folder, dataset.root) or "pool"
            mask = of_split[folder][0].path
            volumes.splits[name].append(Record(_id(folder, dataset.root), folder, mask))
    if not dataset.named_splits:
        _require_no_other_masks(dataset, pairs)
    dataset.use(*(each.path for group in pairs.values() for each in group))
    return _result(volumes, pairs, contours)


def _files_by_split(volumes: VolumePairs, found: Sequence[Path]) -> dict[str, tuple[list[Path], list[Path]]]:
    """Return the series and the segmentation objects of each split that the configuration names; "" if it names none."""
    dataset = volumes.dataset
    if not dataset.named_splits:
        return {"": (list(volumes.series), list(found))}
    result = {}
    for name, split in dataset.named_splits.items():
        where = "data" if name == "pool" else f"data.{name}"
        folders = named_series(volumes, dataset.matching(split.images, f"{where}.images"))
        template = split.masks or dataset.config.masks
        files: Iterable[Path] = ()
        if template is not None and "{" in template:
            parents = [(folder, _id(folder, dataset.root).rpartition("/")[0] or ".") for folder in folders]
            filled = (fill_template(template, f.name, f, parent, f"{where}.masks") for f, parent in parents)
            files = (dataset.root / each for each in filled)
        elif template is not None:
            files = files_in(dataset.matching(template, f"{where}.masks"))
        result[name] = (folders, sorted({path for path in files if segmentation_kind(path)}))
    return result


def _id(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.name


def _pair(volumes: VolumePairs, folders: Sequence[Path], files: Sequence[Path]) -> dict[Path, list[SegmentationHeader]]:
    """Return the segmentation objects of each series that has some; others become problems or notices.

    Raises:
        PairingError: several series with one identifier, or several objects with the same segments.
        MaskError: a broken object; with `data.skip_bad` it becomes a problem.
    """
    root = volumes.dataset.root
    identifiers = {folder: read_identifiers(volumes.series[folder][1][0]) for folder in folders} if files else {}
    pairs: dict[Path, list[SegmentationHeader]] = defaultdict(list)
    for path in files:
        try:
            is_seg = segmentation_kind(path) == "SEG"
            header = read_segmentation_header(path) if is_seg else read_contour_header(path)
        except DataError as error:
            volumes.problems.append(volumes.skip(error))
            continue
        fitting = [folder for folder in folders if identifiers[folder].series in header.series]
        fitting = fitting or [folder for folder in folders if _has_images(volumes.series[folder][1], header)]
        if len(fitting) > 1:
            raise ambiguous(root, {folder: [path] for folder in fitting}, "several series with the same identifiers")
        if fitting:
            pairs[fitting[0]].append(header)
        else:
            volumes.add_problem(path, f"{ORPHAN}: no series with an identifier that it refers to")
    _require_distinct(root, pairs)
    _report_others(volumes, folders if files else (), pairs)
    return dict(pairs)


def _report_others(volumes: VolumePairs, folders: Sequence[Path], pairs: Pairs) -> None:
    """Report series without a segmentation: as a notice if another series of their study has one, else as a problem."""
    root = volumes.dataset.root
    identifiers = {folder: read_identifiers(volumes.series[folder][1][0]) for folder in folders}
    studies = {identifiers[folder].study for folder in pairs} - {""}
    others = [folder for folder in identifiers if folder not in pairs]
    in_study = [folder for folder in others if identifiers[folder].study in studies]
    for folder in others:
        if folder not in in_study:
            volumes.add_problem(folder, UNMASKED)
    if in_study:
        first = f"{short(in_study[0], root)}{', …' if len(in_study) > 1 else ''}"
        many = "1 series that no segmentation refers to is" if len(in_study) == 1 else f"{len(in_study)} series that no"
        many += "" if len(in_study) == 1 else " segmentation refers to are"
        volumes.notices.append(f"{many} left out, since others of their studies have one ({first})")
        volumes.dataset.use(*(file for folder in in_study for file in volumes.series[folder][1]))


def _has_images(files: Iterable[Path], header: SegmentationHeader) -> bool:
    """Whether a segmentation refers to one of some images; for series without identifier."""
    return bool(header.images) and any(read_identifiers(path).image in header.images for path in files)


def _require_distinct(root: Path, pairs: Pairs) -> None:
    """Raise PairingError if segmentations of one series describe the same segments, or are of different kinds."""
    for folder, headers in pairs.items():
        if len({header.kind == "CONTOURS" for header in headers}) > 1:
            found = "segmentations (SEG) and contours (RTSTRUCT) of one series"
            raise ambiguous(root, {folder: [header.path for header in headers]}, found)
        names = Counter(name for header in headers for name in {segment.name for segment in header.segments})
        if max(names.values(), default=0) > 1:
            found = "several segmentations of one series with the same segments"
            raise ambiguous(root, {folder: [header.path for header in headers]}, found)


def _require_no_other_masks(dataset: DatasetRoot, pairs: Pairs) -> None:
    """Raise PairingError if there are label volumes, too: it is not clear which are the ground truth."""
    others = [path for path in dataset.files if is_volume(path) and is_named_mask(path)]
    if others and pairs:
        listed = {folder: [*(header.path for header in headers), *others] for folder, headers in pairs.items()}
        raise ambiguous(dataset.root, listed, "DICOM segmentations and label volumes")


def _result(volumes: VolumePairs, pairs: Pairs, contours: Mapping[Path, _Contours]) -> ReadResult:
    """Cut the series into slices, each with its mask."""
    dataset = volumes.dataset
    layout = make_layout("DICOM series with segmentations", volumes.splits, volumes.problems)
    lists = find_lists(dataset.config, dataset.root, dataset.base)
    dataset.use(*lists.values())
    layout = divide_by_lists(layout, lists, dataset.root) if lists else layout
    by_split = {
        split: [Volume(each.id, *_with_mask(volumes, each)) for each in group] for split, group in layout.splits.items()
    }
    whole = dataset.config.volumes == "whole"
    records, notices = volume_records(by_split, whole, dataset.config.neighbours)
    labels, unlabelled = _labels(dataset, pairs)
    masks = _masks(dataset, volumes, pairs, contours, unlabelled)
    folders = {file: folder for folder in masks for file in volumes.series[folder][1]}
    drawn = {
        split: tuple(replace(each, source=_source(each, masks[folders[each.image]])) for each in group)
        for split, group in records.items()
    }
    count = sum(map(len, pairs.values()))
    if count:
        many = (
            "1 DICOM segmentation, paired with its" if count == 1 else f"{count} DICOM segmentations, paired with their"
        )
        notices.append(f"the masks are those of {many} series by identifiers")
    fractional = sum(header.kind == "FRACTIONAL" for group in pairs.values() for header in group)
    if fractional:
        many = "1 segmentation is" if fractional == 1 else f"{fractional} segmentations are"
        notices.append(f"{many} fractional: pixels with more than half of the largest value belong to a segment")
    if contours:
        notices.append("where contours (RTSTRUCT) overlap, the structure with the smaller volume is on top")
    notices = [*volumes.notices, *layout.notices, *notices]
    kind = f"{layout.kind}, {'whole' if whole else 'cut into slices'}"
    return ReadResult(Layout(kind, drawn, layout.problems, tuple(notices)), labels)


def _with_mask(volumes: VolumePairs, record: Record) -> tuple[VolumeHeader, Path, tuple[Path, ...]]:
    header, files = volumes.series[record.image]
    assert record.mask is not None
    return header, record.mask, files


def _masks(
    dataset: DatasetRoot, volumes: VolumePairs, pairs: Pairs, contours: Mapping[Path, _Contours], unlabelled: str | None
) -> dict[Path, Callable[[Plane], MaskSource]]:
    """Return how the mask of a slice is made, for each series."""
    masks: dict[Path, Callable[[Plane], MaskSource]] = {}
    for folder, headers in pairs.items():
        header = volumes.series[folder][0]
        names = tuple(dict.fromkeys(segment.name for each in headers for segment in each.segments))
        ignored = frozenset(name for name in names if shape_name(dataset, name) is None)
        files = tuple(each.path for each in headers)
        if folder in contours:
            masks[folder] = partial(_drawing, files[0], header, contours[folder], ignored, unlabelled)
        else:
            masks[folder] = partial(
                SegmentedSlice, files, header, segments=names, ignored=ignored, unlabelled=unlabelled
            )
    return masks


def _source(record: Record, mask_of: Callable[[Plane], MaskSource]) -> MaskSource:
    """Return the mask of a slice, or of the slices of a whole volume."""
    assert record.plane is not None
    if not record.stack:
        return mask_of(replace(record.plane, beside=()))
    depth = image_size(record)[1]
    return StackedMask(tuple(mask_of(replace(record.plane, index=k)) for k in range(depth)))


def _drawing(
    file: Path,
    header: VolumeHeader,
    contours: _Contours,
    ignored: frozenset[str],
    unlabelled: str | None,
    plane: Plane,
) -> Drawing:
    """Return the contours of a slice, in pixels."""
    shapes = tuple(
        Shape(None if name in ignored else name, Polygon(tuple(slices[plane.index])))
        for name, slices in contours
        if plane.index in slices
    )
    return Drawing(file, shapes, header.size(plane.across)[1:], unlabelled)


def _read_contours(volumes: VolumePairs, pairs: dict[Path, list[SegmentationHeader]]) -> dict[Path, _Contours]:
    """Read the contours of all series that have some, with the largest structure first, so that smaller ones are on top.

    Raises:
        MaskError: a broken file; with `data.skip_bad` it becomes a problem, and its series is removed from `pairs`.
        GridMismatchError: contours that are in no slice; likewise.
    """
    contours: dict[Path, _Contours] = {}
    for folder, headers in list(pairs.items()):
        if headers[0].kind != "CONTOURS":
            continue
        header = volumes.series[folder][0]
        try:
            found = [item for each in headers for item in read_contours(each.path, header, header.across()).items()]
        except DataError as error:
            volumes.problems.append(volumes.skip(error))
            del pairs[folder]
            continue
        contours[folder] = sorted(found, key=lambda item: -total_area(item[1]))
    return contours


def _labels(dataset: DatasetRoot, pairs: Pairs) -> tuple[Labels, str | None]:
    """Merge the segments of all files by name: their classes, and the class of the pixels in no segment."""
    colours: dict[str, Colour | None] = {}
    for segment in (segment for headers in pairs.values() for header in headers for segment in header.segments):
        colours[segment.name] = colours.get(segment.name) or segment.colour
    chosen = [
        colour or default
        for colour, default in zip(colours.values(), default_colours(len(colours) + 1)[1:], strict=True)
    ]
    return drawn_labels(dataset, colours, colours=chosen if any(colours.values()) else (), things=())
