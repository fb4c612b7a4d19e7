"""Find the DICOM series in a folder, and order the slices of each by position.

A series is the files with one series identifier, or the frames of one file. Its slices must have one orientation and equal distances
along it; echoes and phases are volumes of their own. What cannot be used is returned with the reason, so that the user learns what was left out.
"""

from __future__ import annotations

import filecmp
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError
from pixelwise.grid import Grid
from pixelwise.imageio.dicom import PROJECTIONS, DicomFile, Slice, is_dicom, may_be_dicom, read_file, read_slices
from pixelwise.imageio.dicom_phases import split_phases
from pixelwise.imageio.dicom_pixels import Frame, decode
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.volume_values import Key, key_of
from pixelwise.imageio.volumes import VolumeHeader

_TOLERANCE = 0.02  # of the slice distance: deviation of a slice from its expected position
_SAME_DIRECTION = 1e-3  # programs round the directions of each slice separately
_SAME_SPACING = 1e-4
_LONGEST_NAME = 80


@dataclass(frozen=True, eq=False)
class Series:
    """A volume in DICOM.

    Args:
        name: number and description of the series, as a file name that is unique in its folder.
        header: of the volume; its path is the folder, or the file if there is only one.
        slices: from the first to the last along the header's third axis.
    """

    name: str
    header: VolumeHeader
    slices: tuple[Slice, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of each slice, in order; the same for all slices that are frames of one file."""
        return tuple(each.frame.path for each in self.slices)

    def read_box(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Decode a box of columns, rows and slices: real values (i, j, k). Only its files are read.

        Raises:
            ImageError: a broken file, or a compression that needs a further package.
        """
        chosen = [each.frame for each in self.slices[box[2]]]
        columns, rows = (len(range(size)[side]) for size, side in zip(self.header.shape[:2], box[:2], strict=True))
        values = np.empty((len(chosen), rows, columns), self.header.dtype)
        place = 0
        for frames in _by_file(chosen):
            with reading(frames[0].path, ImageError, "DICOM file"):
                for decoded in decode(frames):
                    values[place] = decoded[box[1], box[0]]
                    place += 1
        return values.transpose(2, 1, 0)


@dataclass(frozen=True, eq=False)
class FlatImage:
    """An image without a position in space: a projection, ultrasound or a photograph.

    Args:
        name: that of its file without suffix, and the number of the frame if the file has several; unique in its folder.
        frame: its values.
        grid: its spacing, and what that was taken from.
    """

    name: str
    frame: Frame
    grid: Grid


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Files that are not used.

    Args:
        files: their paths.
        error: why.
        expected: whether a folder of scans usually holds such files (localizers, reports, segmentations).
    """

    files: tuple[Path, ...]
    error: DataError
    expected: bool = False

    def __str__(self) -> str:
        """Describe the files and the reason on one line."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].name}{more} ({self.error.found})"


@dataclass(frozen=True)
class Contents:
    """What the DICOM files of a folder are."""

    series: tuple[Series, ...]
    images: tuple[FlatImage, ...]
    left_out: tuple[LeftOut, ...]


def series_in(folder: Path, paths: Iterable[Path] | None = None) -> Contents:
    """Find the DICOM series in a folder, but not in its subfolders.

    Images without a position in space are used as single images, unless they accompany slices (screenshots, dose reports).

    Args:
        folder: of the files.
        paths: the files to look at; None for all.
    """
    files: list[DicomFile] = []
    left_out: list[LeftOut] = []
    for path in sorted(folder.iterdir() if paths is None else paths):
        if not (may_be_dicom(path) and path.is_file() and is_dicom(path)):
            continue
        try:
            files.append(read_file(path))
        except ImageError as error:
            left_out.append(LeftOut((path,), error))
    with_slices = any(file.slices and not file.localizer for file in files)
    series: list[Series] = []
    images: list[FlatImage] = []
    for group in _by_series(files):
        reason = _reason_to_leave_out(group, with_slices)
        if reason is not None:
            left_out.append(LeftOut(tuple(file.path for file in group), reason, expected=True))
        elif group[0].slices:
            group, copies = _without_copies(group)
            left_out += copies
            try:
                series += _volumes(folder, group)
            except ImageError as error:
                left_out.append(LeftOut(tuple(file.path for file in group), error))
        else:
            images += [image for file in group for image in _images(file)]
    named = _unique([*series, *images])
    return Contents(tuple(named[: len(series)]), tuple(named[len(series) :]), tuple(left_out))


def series_of(path: Path) -> Series | FlatImage:
    """Return the series that a file belongs to, with the other files of its folder; or the image in it.

    Raises:
        ImageError: no image, several without a position in space, a series that is not complete, or a broken file beside it, which
            may be a slice of it.
    """
    file = read_file(path)
    if file.unusable is not None:
        expected, found, do = file.unusable
        raise ImageError(path, expected=expected, found=found, do=do)
    if not file.slices:
        images = _images(file)
        if len(images) > 1:
            do = "Name its folder to predict each frame."
            raise ImageError(path, expected="one image", found=f"{len(images)} frames without positions", do=do)
        return images[0]
    if len(file.slices) > 1:
        return volume_of([path])
    beside = (other for other in path.parent.iterdir() if may_be_dicom(other) and other.is_file() and is_dicom(other))
    group = [file]
    for other in sorted(beside):
        if other != path:
            group.append(read_file(other))
    key = _key(file)
    same, _ = _without_copies([each for each in group if _key(each) == key])
    return next((each for each in _volumes(path.parent, same) if path in each.files), _volumes(path.parent, same)[0])


def volume_of(paths: Sequence[Path]) -> Series:
    """Return the volume of the slices in files of one series, each of which may be named several times.

    Raises:
        ImageError: no slices, several volumes, or a series that is not complete.
    """
    files = tuple(dict.fromkeys(paths))
    for path in files:
        read_slices(path)
    return _volume_of(tuple(map(key_of, files)))


@lru_cache(maxsize=64)
def _volume_of(keys: tuple[Key, ...]) -> Series:
    paths = [path for path, _, _ in keys]
    where = paths[0] if len(paths) == 1 else paths[0].parent
    volumes = _volumes(where, [read_file(path) for path in paths])
    if len(volumes) > 1:
        found = f"{len(volumes)} ({', '.join(each.name for each in volumes)})"
        do = "Name its folder to predict each; for training, convert the file with dcm2niix."
        raise ImageError(where, expected="one volume", found=found, do=do)
    return volumes[0]


def read_series(paths: Sequence[Path]) -> tuple[Series, tuple[LeftOut, ...]]:
    """Return the only series among the files of a folder, and what is left out.

    Raises:
        ImageError: a broken file, an incomplete series, none, or several.
    """
    folder = paths[0].parent
    contents = series_in(folder, paths)
    for each in contents.left_out:
        if not each.expected:
            raise each.error
    if len(contents.series) > 1:
        found = "; ".join(sorted(_described(each.slices) for each in contents.series))
        shared = len({file for each in contents.series for file in set(each.files)}) < len(contents.series)
        do = "Convert them with dcm2niix." if shared else "Move each series to a separate folder."
        raise ImageError(folder, expected="one series", found=found, do=do)
    if not contents.series:
        if contents.left_out:
            raise contents.left_out[0].error
        found = f"{len(contents.images)} images without a position in space"
        do = "Save projections and other single images as 16-bit PNG or TIFF for training; they are predicted without that."
        raise ImageError(folder, expected="slices of a scan", found=found, do=do)
    frames = [each.frame for each in contents.series[0].slices]
    if any(frame.count > 1 and frame.path != frames[0].path for frame in frames):
        found = f"{len(_by_file(frames))} files of several frames"
        raise ImageError(folder, expected="one file with all slices", found=found, do="Convert it with dcm2niix.")
    return contents.series[0], contents.left_out


def _by_file(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group neighbouring frames of one file."""
    groups: list[list[Frame]] = []
    for frame in frames:
        if groups and groups[-1][0].path == frame.path:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return groups


def _key(file: DicomFile) -> tuple[Any, ...]:
    """Return what the files of one series have in common; without identifier, also their size."""
    size = file.frames[0].size if file.frames and not file.series else None
    return file.series, file.modality, file.localizer, bool(file.slices), file.unusable, size


def _by_series(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    """Group the files of each series; a file with several slices is one of its own."""
    groups: dict[Any, list[DicomFile]] = defaultdict(list)
    for file in files:
        groups[file.path if len(file.slices) > 1 else _key(file)].append(file)
    return list(groups.values())


def _without_copies(group: Sequence[DicomFile]) -> tuple[list[DicomFile], list[LeftOut]]:
    """Leave out the files of single slices that equal another byte by byte."""
    kept: list[DicomFile] = []
    copies = []
    at_height: dict[float, list[DicomFile]] = defaultdict(list)
    for file in group:
        same_place = at_height[file.slices[0].height]
        original = next((each for each in same_place if filecmp.cmp(each.path, file.path, shallow=False)), None)
        if original is None:
            same_place.append(file)
            kept.append(file)
        else:
            found = f"a copy of {original.path.name}"
            error = ImageError(file.path, expected="each slice once", found=found, do="Remove the copy.")
            copies.append(LeftOut((file.path,), error, expected=True))
    return kept, copies


def _reason_to_leave_out(group: Sequence[DicomFile], with_slices: bool) -> ImageError | None:
    first = group[0]
    if first.unusable is not None:
        expected, found, do = first.unusable
        return ImageError(first.path, expected=expected, found=found, do=do)
    if first.localizer and with_slices:
        return ImageError(first.path, expected="a slice of a scan", found="a localizer", do="Remove the file.")
    if not first.slices and with_slices and first.modality not in PROJECTIONS:
        found = f"an image without a position in space{f' ({first.modality})' if first.modality else ''}"
        return ImageError(first.path, expected="a slice of a scan", found=found, do="Move it to a separate folder.")
    return None


def _images(file: DicomFile) -> list[FlatImage]:
    stem = file.path.stem if file.path.suffix.lower() in (".dcm", ".dicom", ".ima") else file.path.name
    digits = len(str(len(file.frames)))
    return [
        FlatImage(stem if frame.count == 1 else f"{stem}-{frame.index + 1:0{digits}}", frame, file.grid)
        for frame in file.frames
    ]


def _volumes(where: Path, group: Sequence[DicomFile]) -> list[Series]:
    """Order the slices of the files of one series, which holds several volumes if it has several echoes or phases.

    Raises:
        ImageError: several orientations or sizes, two slices at one position, or a gap.
    """
    unordered = [each for file in group for each in file.slices]
    slices = sorted(unordered, key=lambda each: (each.height, each.frame.path.name, each.frame.index))
    _require_one_geometry(where, slices)
    number, description = group[0].number, group[0].description
    return [
        _volume(where, _safe_name(number, f"{description} {phase}"), volume)
        for phase, volume in split_phases(slices).items()
    ]


def _volume(where: Path, name: str, slices: Sequence[Slice]) -> Series:
    first = slices[0].header
    affine = first.affine.copy()
    if len(slices) > 1:
        affine[:3, 2] = _step(slices, where)
    dtype = np.result_type(*(each.header.dtype for each in slices))
    shape = (first.shape[0], first.shape[1], len(slices))
    size = first.bytes * len(slices)
    header = replace(first, path=where, shape=shape, dtype=dtype, affine=affine, bytes=size)
    return Series(name, header, tuple(slices))


def _require_one_geometry(where: Path, slices: Sequence[Slice]) -> None:
    kinds: list[list[Slice]] = []
    for each in slices:
        for kind in kinds:
            if _same_geometry(kind[0], each):
                kind.append(each)
                break
        else:
            kinds.append([each])
    if len(kinds) > 1:
        directions = {tuple(np.round(kind[0].geometry[:6], 2).tolist()) for kind in kinds}
        what = "orientation" if len(directions) > 1 else "size and spacing"
        found = "; ".join(sorted(map(_described, kinds)))
        raise ImageError(
            where, expected=f"slices of one {what}", found=found, do="Move each of these to a separate folder."
        )


def _same_geometry(one: Slice, other: Slice) -> bool:
    return (
        one.frame.size == other.frame.size
        and np.allclose(one.geometry[:6], other.geometry[:6], rtol=0, atol=_SAME_DIRECTION)
        and np.allclose(one.geometry[6:], other.geometry[6:], rtol=_SAME_SPACING, atol=0)
    )


def _step(slices: Sequence[Slice], where: Path) -> NDArray[np.float64]:
    """Return the vector from each slice to the next, which must be the same for all."""
    positions = np.array([each.header.affine[:3, 3] for each in slices])
    gaps = np.diff([each.height for each in slices])
    distance = float(np.median(gaps))
    same = int(np.count_nonzero(gaps < _TOLERANCE * max(distance, 1e-6)))
    if same:
        found = f"{same} at the position of another (several phases or echoes)"
        one_file = slices[0].frame.count > 1
        do = "Convert it with dcm2niix." if one_file else "Move each phase or echo to a separate folder."
        raise ImageError(where, expected="one slice at each position", found=found, do=do)
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(positions) - 1)
    deviation = np.linalg.norm(positions - positions[0] - np.arange(len(positions))[:, np.newaxis] * step, axis=1)
    if deviation.max() > _TOLERANCE * distance:
        frame = slices[int(np.argmax(gaps))].frame
        place = frame.path.name if frame.count == 1 else f"frame {frame.index + 1}"
        found = f"{gaps.min():.4g} to {gaps.max():.4g} mm, the widest after {place}"
        do = "Check whether a slice is missing, and export the series again."
        raise ImageError(where, expected="slices at equal distances", found=found, do=do)
    return step


def _described(slices: Sequence[Slice]) -> str:
    frame = slices[0].frame
    modality = read_file(frame.path).modality or "slices"
    height, width = frame.size
    return f"{len(slices)} {modality} of {width}×{height} ({frame.path.name}{', …' if len(slices) > 1 else ''})"


def _safe_name(number: str, description: str) -> str:
    """Return number and description of a series as a file name: letters, digits, dots and dashes; never a path."""
    words = unicodedata.normalize("NFC", f"{number} {description}")
    name = re.sub(r"[^\w.]+", "-", words).strip("-._")
    return name[:_LONGEST_NAME].rstrip("-._") or "series"


def _unique(found: Sequence[Any]) -> list[Any]:
    """Number those whose names, in any case, occur before."""
    taken: set[str] = set()
    unique = []
    for each in found:
        name, number = each.name, 1
        while name.lower() in taken:
            number += 1
            name = f"{each.name}-{number}"
        taken.add(name.lower())
        unique.append(replace(each, name=name))
    return unique
