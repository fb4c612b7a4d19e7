"""Find the files that the sources of a prediction name, and the names of their outputs."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pixelwise.errors import DataError, UsageError
from pixelwise.imageio import volume_files
from pixelwise.imageio.dicom import is_dicom, may_be_dicom
from pixelwise.imageio.file_formats import ARRAY_SUFFIXES, image_files
from pixelwise.imageio.images import IMAGE_SUFFIXES, read_header
from pixelwise.imageio.listing import is_system, walk
from pixelwise.imageio.mosaic import MosaicSource, files_of_vrt, is_vrt, open_mosaic
from pixelwise.imageio.sources import Source, open_source
from pixelwise.imageio.video import VIDEO_SUFFIXES, is_video
from pixelwise.imageio.volume_sources import DicomImage, VolumeSource, dicom_sources
from pixelwise.types import ModelSpec

SOURCE_SUFFIXES = (*IMAGE_SUFFIXES, *volume_files.SUFFIXES, *VIDEO_SUFFIXES)


@dataclass(frozen=True, eq=False)
class Item:
    """A file to predict, or a DICOM series.

    Args:
        path: the file; of a series, the folder.
        name: place and name of its outputs, without suffix.
        source: what was opened to find it; None if it is opened by its path.
        error: why it cannot be predicted; "" if that is not known yet.
    """

    path: Path
    name: str
    source: Source | None = None
    error: str = ""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its content."""
        return self.source is None and not self.error and is_video(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it consists of."""
        return (self.path,) if self.source is None else _files(self.source)

    def open(self, spec: ModelSpec) -> Source:
        """Open it for a model; raises ImageError."""
        return self.source or open_source(self.path, across=spec.across, nodata=spec.nodata)


@dataclass(frozen=True)
class Found:
    """The items by the names of their outputs, and what was left out, for the user."""

    items: dict[str, Item]
    notices: tuple[str, ...] = ()


def find_sources(sources: Sequence[str], spec: ModelSpec | None = None, *, mosaic: bool = False) -> Found:
    """List the images, volumes and videos that files, folders and globs name, each once.

    Folders are searched recursively, as those of data sets: without hidden files and thumbnails of file servers. The DICOM files
    of a folder are its series, and images without a position in space. Files found in a folder keep their place in it.

    Args:
        sources: files, folders, globs.
        spec: of the model.
        mosaic: take the GeoTIFFs of each source for one image, and read the files that a VRT lists as one.

    Raises:
        UsageError: a source that does not exist or holds no image.
        DataError: a folder that cannot be listed.
    """
    found: list[Item] = []
    notices: list[str] = []
    for source in sources:
        hits = [*_hits(source)]
        dicom, others = _divided(hits)
        images = set(image_files([item.path for item in others]))  # arrays beside images may be no images
        known = [
            item
            for item in others
            if item.path in images
            or (item.path.suffix.lower() not in ARRAY_SUFFIXES and (_is_known(item.path) or not Path(source).is_dir()))
        ]
        if not (known or dicom):
            raise UsageError(
                source, expected="an image, a folder of images or a glob", found="none", do="Check the path."
            )
        series, left_out = _series(dicom, spec, whole_folders=Path(source).is_dir())
        found += [*(_mosaics(Path(source), known, None if spec is None else spec.nodata) if mosaic else known), *series]
        notices += left_out
    return Found(_named(found), tuple(notices))


def _files(source: Source) -> tuple[Path, ...]:
    return source.files if isinstance(source, VolumeSource | MosaicSource) else (source.path,)


def _mosaics(source: Path, items: Sequence[Item], nodata: float | None) -> list[Item]:
    """Replace the GeoTIFFs of a source by one item, and a VRT by the files that it lists."""
    if is_vrt(source):
        return [Item(source, source.stem, open_mosaic(source, files_of_vrt(source), nodata))]
    rasters = [item for item in items if _is_geotiff(item.path)]
    if len(rasters) < 2:
        return [*items]
    name = source.name if source.is_dir() else "mosaic"
    whole = Item(source, name, open_mosaic(source, [item.path for item in rasters], nodata))
    chosen = set(map(id, rasters))
    return [*(item for item in items if id(item) not in chosen), whole]


def _is_geotiff(path: Path) -> bool:
    try:
        return not is_video(path) and read_header(path).georeferenced
    except DataError:
        return False  # reported when it is predicted


def _divided(items: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """Return the DICOM files, and the others."""
    both: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        both[not (may_be_dicom(item.path) and is_dicom(item.path))].append(item)
    return both


def _is_known(path: Path) -> bool:
    return _suffix(path).lower() in SOURCE_SUFFIXES


def _named(found: Iterable[Item]) -> dict[str, Item]:
    """Return each item once, by a name that is unique."""
    unique: dict[tuple[str, ...], Item] = {}
    for item in found:
        frame = item.name if isinstance(item.source, DicomImage) else ""  # of a file with several images
        unique.setdefault((frame, *(str(file.absolute()) for file in item.files)), item)
    stems = Counter(_stem(item) for item in unique.values())
    named: dict[str, Item] = {}
    for item in unique.values():
        stem, suffix = _stem(item), _suffix(item.path)[1:].lower()
        key = stem if stems[stem] == 1 or not suffix or item.source else f"{stem}-{suffix}"
        while key in named:
            key += "-2"
        named[key] = replace(item, name=key)
    return named


def _series(files: Iterable[Item], spec: ModelSpec | None, *, whole_folders: bool) -> tuple[list[Item], list[str]]:
    """Return the DICOM series and images of some files; what is left out in named folders is reported."""
    folders: dict[Path, list[Item]] = {}
    for item in files:
        folders.setdefault(item.path.parent, []).append(item)
    items: list[Item] = []
    notices: list[str] = []
    for folder, members in folders.items():
        paths, place = {item.path for item in members}, Path(members[0].name).parent
        across, nodata = (None, None) if spec is None else (spec.across, spec.nodata)
        sources, left_out = dicom_sources(folder, across, nodata=nodata)
        items += [
            Item(source.path, str(place / name), source)
            for name, source in sources.items()
            if paths & set(_files(source))
        ]
        for one in left_out:
            if one.expected and whole_folders:
                notices.append(f"{folder}: {one}")
            elif paths & set(one.files) and not (one.expected and whole_folders):
                items.append(Item(one.files[0], str(place / one.files[0].stem), error=str(one.error)))
    return items, notices


def _hits(source: str) -> Iterator[Item]:
    """Yield each file that a source names; in a folder, those that may be images, volumes or videos by their names."""
    path = Path(source)
    if path.is_dir():
        for file in sorted(walk(path)):
            if (_is_known(file) or may_be_dicom(file)) and file.is_file():
                yield Item(file, str(file.relative_to(path)))
    elif path.exists():
        yield Item(path, path.name)
    else:
        for match in sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 - absolute patterns, too
            file = Path(match)
            named = set(path.parts)
            if file.is_file() and not any(is_system(part) and part not in named for part in file.parts):
                yield Item(file, file.name)


def _suffix(path: Path) -> str:
    """Return the suffix of a file; those of volumes whole, such as `.nii.gz`."""
    name = path.name.lower()
    known = next(
        (suffix for suffix in sorted(volume_files.SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), ""
    )
    return path.name[len(name) - len(known) :] if known else path.suffix


def _stem(item: Item) -> str:
    """Return the name without suffix; names of DICOM series have none."""
    return item.name if item.source or item.error else item.name.removesuffix(_suffix(Path(item.name)))
