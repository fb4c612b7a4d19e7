"""Read DICOM segmentation objects (SEG): binary, fractional and label maps, on the voxels of the series they refer to.

Frames are placed by their position and orientation in the body, in whatever order they are stored; where there is no frame, there is no
segment. A segmentation on part of the series, or with its axes in other directions, is placed too; one on other voxels is refused.

Source: DICOM PS3.3, A.51, A.86 and C.8.20 (Segmentation), C.7.6.16 (Multi-frame Functional Groups).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, GridMismatchError, MaskError
from pixelwise.imageio.dicom_seg_header import (
    Key,
    SegmentationHeader,
    key_of,
    read_data_set,
    read_segmentation_header,
)
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import Limits
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.volumes import VolumeHeader, require_within
from pixelwise.labels import Colour

_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "SegmentIdentificationSequence",
)
_KEPT_BYTES = 1 << 28
_TOLERANCE = 0.05  # of a voxel, as in `volumes.require_same_place`
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class LabelVolume:
    """Segments on the voxels of a volume.

    Args:
        header: the voxels.
        names: the segments' names, each once.
        colours: a colour per name, None if the files recommend none.
        numbers: voxels (i, j, k) of `header`: 0 for no segment, otherwise 1 + the position in `names`.
    """

    header: VolumeHeader
    names: tuple[str, ...]
    colours: tuple[Colour | None, ...]
    numbers: NDArray[Any]


def read_dicom_seg(paths: Path | Sequence[Path], header: VolumeHeader | None = None) -> LabelVolume:
    """Read segmentation objects of one series; segments with the same name are one class.

    Pixels of a fractional segment belong to it if their value is more than half of the largest one. This process keeps the last
    two volumes, or more up to 256 MiB.

    Args:
        paths: one file, or several that complement each other.
        header: the voxels of the series; None for those of the frames, from the first to the last.

    Raises:
        MaskError: a broken file, overlapping segments, or pixels of segments that are not described.
        GridMismatchError: frames that are not on the voxels of the series.
    """
    files = (paths,) if isinstance(paths, Path) else tuple(paths)
    headers = [read_segmentation_header(path) for path in files]
    key = (tuple(map(key_of, files)), None if header is None else (header.shape, header.affine.tobytes()))
    if key not in _KEPT:
        try:
            _KEPT[key] = _read_volume(headers, header)
        except (MaskError, GridMismatchError) as error:
            _KEPT[key] = error  # every slice would read the files again
        while len(_KEPT) > 2 and sum(map(_bytes, _KEPT.values())) > _KEPT_BYTES:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(key)
    found = _KEPT[key]
    if isinstance(found, DataError):
        raise type(found)(found.where, expected=found.expected, found=found.found, do=found.do)
    return found


_KEPT: OrderedDict[tuple[tuple[Key, ...], tuple[Any, ...] | None], LabelVolume | DataError] = OrderedDict()


def _bytes(kept: LabelVolume | DataError) -> int:
    return kept.numbers.nbytes if isinstance(kept, LabelVolume) else 0


@dataclass(frozen=True, eq=False)
class _Frames:
    """The frames of a file.

    Args:
        plain: the data set, with its pixels.
        segments: the segment number of each frame (F,), 0 in a label map.
        linear: (3, 3) per frame, from a step along a row, down a column and across, to millimetres right, front, head.
        first: position of the first pixel (F, 3) in millimetres right, front, head.
        distance: between slices, as the file says; 0 if it does not.
    """

    plain: Any
    segments: NDArray[np.int64]
    linear: list[NDArray[np.float64]]
    first: NDArray[np.float64]
    distance: float


def _read_volume(headers: Sequence[SegmentationHeader], header: VolumeHeader | None) -> LabelVolume:
    colours: dict[str, Colour | None] = {}
    for segment in (segment for each in headers for segment in each.segments):
        colours[segment.name] = colours.get(segment.name) or segment.colour
    names = tuple(colours)
    if header is None:
        with reading(headers[0].path, MaskError, "DICOM segmentation"):
            header = _own_header(headers[0].path, [_frames(each) for each in headers])
    numbers = np.zeros(header.shape, np.min_scalar_type(len(names)), order="F")  # slices are usually along k
    overlaps: Counter[tuple[int, int]] = Counter()
    for each in headers:
        with reading(each.path, MaskError, "DICOM segmentation"):
            table = {segment.number: names.index(segment.name) + 1 for segment in each.segments}
            _paint(numbers, each, table, header, overlaps)
    if overlaps:
        (one, other), count = overlaps.most_common(1)[0]
        more = f", and {len(overlaps) - 1} more pairs" if len(overlaps) > 1 else ""
        raise MaskError(
            headers[0].path if len(headers) == 1 else headers[0].path.parent,
            expected="segments that do not overlap, since a pixel has one class",
            found=f"{count:,} pixels in both {names[one - 1]!r} and {names[other - 1]!r}{more}",
            do="Remove the overlap in the program that the segmentation was made with, or export one of the segments.",
        )
    return LabelVolume(header, names, tuple(colours.values()), numbers)


def _frames(header: SegmentationHeader) -> _Frames:
    """Read a file, and where its frames are.

    Raises:
        Refused: frames without a position.
    """
    plain = read_data_set(header.path)
    count = int(plain.get("NumberOfFrames") or 1)
    items = plain.get("PerFrameFunctionalGroupsSequence") or ()
    shared: Any = (plain.get("SharedFunctionalGroupsSequence") or ({},))[0]
    if len(items) != count:
        raise Refused(f"{count} frames with their position", str(len(items)), "Export the segmentation again.")
    segments, linear, first, distance = [], [], [], 0.0
    known: dict[tuple[float, ...], NDArray[np.float64]] = {}
    for item in items:
        groups = [_group(item, shared, name) for name in _GROUPS]
        if not all(groups[:3]):
            do = "Export it with its position: in 3D Slicer, with the series as reference."
            raise Refused("frames with position, orientation and spacing", "frames without", do)
        place, orientation, measures, segment = groups
        key = (*map(float, orientation.ImageOrientationPatient), *map(float, measures.PixelSpacing))
        if key not in known:
            known[key] = _linear(key)
            distance = abs(float(measures.get("SpacingBetweenSlices") or 0))
        linear.append(known[key])
        first.append([float(value) for value in place.ImagePositionPatient])
        segments.append(int(segment.ReferencedSegmentNumber) if segment else 0)
    return _Frames(plain, np.array(segments), linear, np.array(first).reshape(-1, 3) @ _TO_RAS, distance)


def _group(item: Any, shared: Any, name: str) -> Any:
    """Return a functional group of a frame, its own or that of all frames; None if there is none."""
    sequence = item.get(name) or shared.get(name)
    return sequence[0] if sequence else None


def _linear(key: tuple[float, ...]) -> NDArray[np.float64]:
    along, down = np.array(key[:3]), np.array(key[3:6])
    rows, columns = key[6:]
    return np.asarray(_TO_RAS @ np.stack([along * columns, down * rows, np.cross(along, down)], axis=1))


def _own_header(path: Path, files: Sequence[_Frames]) -> VolumeHeader:
    """Return the voxels of the frames, from the first slice to the last, with those between that are not stored.

    Raises:
        Refused: beyond the limits, or not one volume.
    """
    linear, plain = files[0].linear[0], files[0].plain
    first = np.concatenate([file.first for file in files])
    heights = np.unique(np.round(first @ linear[:, 2], 4))
    gaps = np.diff(heights)
    steps = [step for step in (files[0].distance, float(gaps.min(initial=np.inf))) if 0 < step < np.inf]
    even = (step for step in steps if np.abs((heights - heights[0]) / step % 1 - 0.5).min() > 0.5 - _TOLERANCE)
    step = next(even, steps[-1] if steps else 1.0)
    affine = np.eye(4)
    affine[:3, :2], affine[:3, 2] = linear[:, :2], linear[:, 2] * step
    affine[:3, 3] = first[np.argmin(first @ linear[:, 2])]
    count = round((heights[-1] - heights[0]) / step) + 1
    shape = (int(plain.Columns), int(plain.Rows), count)
    header = VolumeHeader(path, shape, 1, np.dtype(np.uint8), affine, "PixelSpacing", shape[0] * shape[1] * count)
    require_within(header, header.across(), Limits())
    return header


def _paint(
    numbers: NDArray[Any],
    file: SegmentationHeader,
    table: Mapping[int, int],
    header: VolumeHeader,
    overlaps: Counter[tuple[int, int]],
) -> None:
    """Write the segments of a file into a volume, as the numbers in `table`; count pixels of two segments in `overlaps`.

    Raises:
        Refused: frames that cannot be decoded, or of segments that are not described.
        GridMismatchError: frames that are not on the voxels of the volume.
    """
    frames = _frames(file)
    for index, frame in enumerate(_decoded(file, frames, table)):
        if not frame.any():
            continue
        target, inside = _place(numbers, frames, index, header, file.path)
        cut = frame[inside]
        outside = np.count_nonzero(frame) - np.count_nonzero(cut)
        if outside:
            raise _mismatch(file.path, header, f"{outside:,} pixels of frame {index + 1} outside")
        labelled = cut != 0
        both = labelled & (target != 0) & (target != cut)
        if both.any():
            pairs = np.sort(np.stack([target[both], cut[both]]), axis=0)
            (ones, others), counts = np.unique(pairs, axis=1, return_counts=True)
            overlaps.update(dict(zip(zip(ones.tolist(), others.tolist(), strict=True), counts.tolist(), strict=True)))
        np.copyto(target, cut, where=labelled)


def _decoded(file: SegmentationHeader, frames: _Frames, table: Mapping[int, int]) -> Iterator[NDArray[Any]]:
    """Decode the frames of a file, one by one, as numbers in `table` (rows, columns), 0 for no segment.

    Raises:
        Refused: frames that cannot be decoded, or of segments that are not described.
    """
    plain = frames.plain
    pydicom = need("pydicom", "volumes", file.path)
    if int(plain.Rows) * int(plain.Columns) > Limits().pixels:
        raise Refused(f"at most {Limits().pixels:,} pixels per frame", "more", "Split the segmentation.")
    if "TransferSyntaxUID" not in plain.file_meta:  # files without preamble
        implicit, _ = plain.original_encoding
        uids = pydicom.uid
        plain.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
    dtype = np.min_scalar_type(max(table.values()))
    half = int(plain.get("MaximumFractionalValue") or 255) / 2 if file.kind == "FRACTIONAL" else 0
    lookup = _lookup(table, plain)
    for segment, pixels in zip(frames.segments.tolist(), _stored(pydicom, plain), strict=True):
        if file.kind == "LABELMAP":
            values = lookup[pixels]
            if (values < 0).any():
                segment = int(pixels[values < 0][0])
                raise Refused("a description of every segment", f"none of {segment}", "Export the segmentation again.")
            yield values.astype(dtype)
        else:
            if segment not in table:
                raise Refused("a description of every segment", f"none of {segment}", "Export the segmentation again.")
            yield (pixels > half) * dtype.type(table[segment])


def _stored(pydicom: Any, plain: Any) -> Iterator[NDArray[Any]]:
    """Decode the frames of a file (rows, columns) as they are stored.

    Raises:
        EOFError: fewer pixels than frames.
    """
    syntax = plain.file_meta.TransferSyntaxUID
    if int(plain.BitsAllocated) != 1 or syntax.is_encapsulated or not syntax.is_little_endian:
        yield from pydicom.pixels.iter_pixels(plain, raw=True)
        return
    # Frames of single bits begin within a byte if their size is no multiple of 8, which pydicom cannot read one by one.
    packed = np.frombuffer(plain.PixelData, np.uint8)
    size = int(plain.Rows) * int(plain.Columns)
    count = int(plain.get("NumberOfFrames") or 1)
    if len(packed) * 8 < count * size:
        raise EOFError("truncated")
    for start in range(0, count * size, size):
        bits = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
        yield bits[start % 8 : start % 8 + size].reshape(int(plain.Rows), int(plain.Columns))


def _lookup(table: Mapping[int, int], plain: Any) -> NDArray[np.int32]:
    """Return the number for every value of a label map: 0 for the background, -1 for what is not described."""
    lookup = np.full(1 << 16, -1, np.int32)
    lookup[[0, int(plain.get("PixelPaddingValue") or 0)]] = 0
    for segment, number in table.items():
        lookup[segment] = number
    return lookup


def _place(
    numbers: NDArray[Any], frames: _Frames, index: int, header: VolumeHeader, path: Path
) -> tuple[NDArray[Any], tuple[slice, slice]]:
    """Find the voxels of a frame.

    Returns:
        A view (rows, columns) of the part of `numbers` that the frame covers, and that part of the frame.

    Raises:
        GridMismatchError: the frame is not on the voxels.
    """
    inverse = np.linalg.inv(header.affine)
    linear = inverse[:3, :3] @ frames.linear[index][:, :2]
    start = inverse[:3, :3] @ frames.first[index] + inverse[:3, 3]
    along, down = np.abs(linear).argmax(axis=0).tolist()
    steps = np.zeros((3, 2))
    steps[along, 0], steps[down, 1] = np.sign(linear[along, 0]), np.sign(linear[down, 1])
    size = int(frames.plain.Columns), int(frames.plain.Rows)
    corners = np.array([[0, 0], [size[0] - 1, 0], [0, size[1] - 1], [size[0] - 1, size[1] - 1]], float)
    distance = np.abs(start + corners @ linear.T - np.rint(start) - corners @ steps.T).max()
    if along == down or distance > _TOLERANCE:
        raise _mismatch(path, header, f"frame {index + 1} on others")
    first = np.rint(start).astype(int).tolist()
    through = 3 - along - down
    box: list[Any] = [first[through]] * 3
    box[along], columns = _overlap(first[along], int(steps[along, 0]), size[0], header.shape[along])
    box[down], rows = _overlap(first[down], int(steps[down, 1]), size[1], header.shape[down])
    if not 0 <= first[through] < header.shape[through]:
        box[through], rows = 0, slice(0, 0)
        box[down] = slice(0, 0)
    view = numbers[tuple(box)]
    return view if down < along else view.T, (rows, columns)


def _overlap(first: int, step: int, count: int, size: int) -> tuple[slice, slice]:
    """Return which voxels of an axis a frame covers, in its order, and which of its pixels these are.

    Args:
        first: voxel of its first pixel.
        step: 1 or -1, voxels per pixel.
        count: its pixels.
        size: voxels of the axis.
    """
    if step > 0:
        start, stop = max(0, -first), max(0, -first, min(count, size - first))
        return slice(first + start, first + stop), slice(start, stop)
    start = max(0, first - size + 1)
    stop = max(start, min(count, first + 1))
    end = first - stop
    return slice(first - start, end if end >= 0 else None, -1) if stop > start else slice(0, 0), slice(start, stop)


def _mismatch(path: Path, header: VolumeHeader, found: str) -> GridMismatchError:
    size = "×".join(map(str, header.size(header.across())))
    return GridMismatchError(
        path,
        expected=f"frames on the {size} voxels of {header.path.name} (slices, rows, columns)",
        found=found,
        do="Resample the segmentation to the voxels of the series by nearest neighbour (in 3D Slicer, with the series as"
        " source geometry), and export it again.",
    )
