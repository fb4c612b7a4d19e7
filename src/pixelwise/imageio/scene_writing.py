"""Write masks, confidences and probabilities of a scene window by window, as a cloud optimised GeoTIFF (COG).

Windows are written to a work file beside the target (see `tile_file`); what was committed survives a kill. `SceneWriter.finish`
copies the work file once, with overviews, and renames the copy. Memory is bounded by GDAL's block cache, whatever the size of the
scene.

Class names are stored as band tag CLASSES (JSON by id), and as category names in `NAME.aux.xml`, where QGIS and GDAL expect them.

Source: the COG driver of GDAL; its class GDALPamDataset (.aux.xml).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ResourceError
from pixelwise.imageio.extras import need
from pixelwise.imageio.masks import IGNORED_COLOUR
from pixelwise.imageio.mosaic import MosaicSource
from pixelwise.imageio.silencing import silenced
from pixelwise.imageio.sources import Source
from pixelwise.imageio.tile_file import TileFile
from pixelwise.labels import Colour, Labels
from pixelwise.storage import atomic_path, write_atomic, write_error
from pixelwise.tiles import Window

_BLOCK = 512  # side of a tile
_CACHE = 64  # MB of GDAL's block cache
_LARGE = 1 << 24  # pixels; smaller masks are written while others are computed, so they do not take all processors
_LAYOUT = {
    **{"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "INTERLEAVE": "BAND"},
    **{"SPARSE_OK": True, "BIGTIFF": "YES"},
}
_BESIDE = (".aux.xml", ".ovr", ".msk")  # files that GDAL reads together with an image
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_DATA = 255  # of confidences and probabilities


@dataclass(frozen=True)
class SceneContent:
    """The bands of a scene.

    Args:
        bands: description of each band.
        dtype: numpy name of the type of the stored values.
        nodata: stored value of pixels without a value.
        overviews: how pixels are combined for overviews: "mode" keeps ids, "average" is for quantities.
        steps: stored value of a probability of 1; 0 if the values are no probabilities.
        colours: colour per id, for types of at most 16 bits.
        names: name of the class per id.
    """

    bands: tuple[str, ...]
    dtype: str
    nodata: float
    overviews: Literal["mode", "average"]
    steps: int = 0
    colours: Mapping[int, Colour] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def encode(self, probabilities: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Convert probabilities 0–1 (*B, H, W) to stored values; pixels that are not valid (H, W) become nodata."""
        stored = np.rint(np.clip(probabilities, 0, 1) * self.steps).astype(np.uint8)
        return stored if valid is None else np.where(valid, stored, np.uint8(self.nodata))


CONFIDENCE = SceneContent(("confidence in percent",), "uint8", _NO_DATA, "average", steps=100)


def class_content(labels: Labels) -> SceneContent:
    """Return the content of a mask: one band of class ids; nodata is the id of ignored pixels."""
    table, ignore_id = class_ids(labels)
    colours = {ignore_id: IGNORED_COLOUR} | dict(zip(labels.ids, labels.colours, strict=True))
    names = {id_: _NOT_IN_XML.sub("\ufffd", name) for id_, name in zip(labels.ids, labels.names, strict=True)}
    return SceneContent(("class",), table.dtype.name, ignore_id, "mode", colours=colours, names=names)


def probability_content(labels: Labels) -> SceneContent:
    """Return the content of probabilities: one band per class, named after it, in steps of 0.004."""
    # GDAL does not keep white space at the ends of descriptions, nor empty ones.
    bands = tuple(" ".join(_NOT_IN_XML.sub("\ufffd", name).split()) or "-" for name in labels.names)
    return SceneContent(bands, "uint8", _NO_DATA, "average", steps=250)


def class_ids(labels: Labels) -> tuple[NDArray[Any], int]:
    """Return the id of each class index and of the ignore index, in the smallest unsigned type, and the id of ignored pixels.

    The latter is the first ignore id of the labels, or else the largest value of the type that is not a class id.
    """
    used = set(labels.ids)
    if labels.ignore_ids:
        ignore_id = labels.ignore_ids[0]
        dtype = np.min_scalar_type(max(*used, ignore_id))
    else:
        dtype = np.min_scalar_type(max(max(used), len(used)))  # so that one value is free
        ignore_id = next(value for value in range(np.iinfo(dtype).max, -1, -1) if value not in used)
    table = np.full(labels.ignore_index + 1, ignore_id, dtype)
    table[: labels.num_classes] = labels.ids
    return table, ignore_id


def partial_path(path: Path) -> Path:
    """Return the path of the work file of a scene."""
    return path.with_name(f"{path.stem}.partial.tif")


class SceneWriter:
    """Write a scene on the grid of its source; to be used in one thread.

    Args:
        path: of the new file, ending in .tif or .tiff; it is replaced by `finish`, until then it is unchanged.
        like: the source, whose size and position in the world are taken over.
        content: what the bands hold.

    Raises:
        ImageError: the source can no longer be read, or the extra "geo" is not installed.
        ResourceError: the disk does not take the file.
    """

    def __init__(self, path: Path | str, like: Source, content: SceneContent) -> None:
        self._prepare(path, like, content)
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_with_companions(self.partial)
            self._tiles = self._create()

    def _prepare(self, path: Path | str, like: Source, content: SceneContent) -> None:
        self._gdal = need("rasterio", "geo", like.path)
        self.path, self.partial, self.content = Path(path), partial_path(Path(path)), content
        place, self._meaning = _place(self._gdal, like)
        height, width = like.shape
        size = {"width": width, "height": height, "count": len(content.bands)}
        self._profile = size | {"dtype": content.dtype, "nodata": content.nodata} | place

    def _create(self) -> TileFile:
        try:
            with self._gdal.open(self.partial, "w", driver="GTiff", **self._profile, **_LAYOUT) as file:
                _describe(file, self.content, self._meaning)
            with self._gdal.open(self.partial, driver="GTiff") as file:
                if not self._is_like(file):
                    raise ValueError("an incomplete file")
            return TileFile(self.partial, self.content.nodata)
        except Exception as error:  # on a full disk, GDAL may not report that it could not write
            raise OSError(str(error)) from error

    @classmethod
    def reopen(cls, path: Path | str, like: Source, content: SceneContent) -> Self | None:
        """Continue in the work file of a writer that was closed or killed; None without one, or if it is of another scene."""
        writer = cls.__new__(cls)
        writer._prepare(path, like, content)
        if not writer.partial.is_file():
            return None
        with silenced():
            try:
                with writer._gdal.open(writer.partial, driver="GTiff") as file:
                    if not (writer._is_like(file) and _same_place(file, writer._profile)):
                        return None
                writer._tiles = TileFile(writer.partial, content.nodata)
            except Exception:  # killed while it was created, or not such a file
                return None
        return writer

    def _is_like(self, file: Any) -> bool:
        """Whether a file has the size, type and description of the scene."""
        content = self.content
        if any(getattr(file, key) != self._profile[key] for key in ("width", "height", "count", "nodata")):
            return False
        described = (file.dtypes[0], file.descriptions, file.tags(1).get("CLASSES"))
        return described == (content.dtype, content.bands, _classes(content))

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write the stored values of a window, (H, W) or (bands, H, W)."""
        with self._errors():
            self._tiles.write(window, values if values.ndim == 3 else values[np.newaxis])

    def commit(self) -> None:
        """Make everything that was written survive a kill of this process and a crash of the machine."""
        with self._errors():
            self._tiles.commit()

    def finish(self) -> Path:
        """Write the final file atomically, with overviews and category names; the work file is removed."""
        with self._errors(), atomic_path(self.path) as temporary:
            self._tiles.close(durable=False)
            _copy(self._gdal, self.partial, temporary, self.content)
            for suffix in _BESIDE:
                _beside(self.path, suffix).unlink(missing_ok=True)
        _write_categories(self.path, self.content)
        _remove_with_companions(self.partial)
        return self.path

    def close(self) -> None:
        """Commit, and close the work file, which is kept for `reopen`."""
        with self._errors():
            self._tiles.close()

    def discard(self) -> None:
        """Close and remove the work file."""
        with suppress(ResourceError):
            self.close()
        _remove_with_companions(self.partial)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the work file; see `close`."""
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Silence GDAL, bound its block cache, and convert errors in writing to `ResourceError`."""
        try:
            with silenced(), self._gdal.Env(GDAL_CACHEMAX=_CACHE):
                yield
        except OSError as error:  # also those of GDAL
            raise write_error(self.path, error) from error


def _copy(gdal: Any, source: Path, target: Path, content: SceneContent) -> None:
    """Copy a work file to a COG with overviews.

    Raises:
        OSError: the disk does not take it; GDAL reports this by other exceptions, or not at all while it closes the file.
    """
    files = need("rasterio.shutil", "geo", source)
    try:
        with gdal.open(source, driver="GTiff") as file:
            threads = "ALL_CPUS" if file.width * file.height > _LARGE else "1"  # they do not change the bytes
            files.copy(file, target, driver="COG", NUM_THREADS=threads, **_copy_options(content))
        _require_complete(target)
    except Exception as error:
        raise OSError(str(error)) from error


def _require_complete(path: Path) -> None:
    """Raise unless a TIFF contains all its tiles.

    Raises:
        ValueError: it ends early, or has no image.
    """
    import tifffile  # slow to import

    with tifffile.TiffFile(path) as tif:
        ends = [
            place + count
            for page in tif.pages
            for place, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    if not ends or max(ends) > path.stat().st_size:
        raise ValueError("no space left for the whole file")


def _place(rasterio: Any, like: Source) -> tuple[dict[str, Any], str]:
    """Return the position of a source in the world, as options of rasterio, and its AREA_OR_POINT."""
    if like.format != "GeoTIFF":
        return {}, "Area"
    file, (top, left) = like.reference if isinstance(like, MosaicSource) else (like.path, (0, 0))
    # Sources with ground control points make rasterio warn.
    with silenced(), rasterio.open(file.resolve(), driver="GTiff") as source:
        points, points_crs = source.gcps
        a, b, c, d, e, f = source.transform[:6]
        transform = rasterio.Affine(a, b, c + a * left + b * top, d, e, f + d * left + e * top)
        place = {"gcps": points, "crs": points_crs} if points else {"transform": transform, "crs": source.crs}
        return place, source.tags().get("AREA_OR_POINT", "Area")


def _same_place(file: Any, place: dict[str, Any]) -> bool:
    """Whether a file has the position that `_place` returned, which is empty without georeference."""
    points, crs = file.gcps
    if "gcps" in place:
        return bool(crs == place["crs"] and list(map(_corner, points)) == list(map(_corner, place["gcps"])))
    if "transform" not in place:
        return bool(file.transform.is_identity and not points)
    return bool(file.transform == place["transform"] and (file.crs or None) == (place["crs"] or None))


def _corner(point: Any) -> tuple[float, ...]:
    return point.row, point.col, point.x, point.y, point.z or 0.0


def _describe(file: Any, content: SceneContent, meaning: str) -> None:
    """Write colours, names and descriptions while the file is empty, so that its directory is written only once."""
    if content.colours and np.dtype(content.dtype).itemsize <= 2:
        file.write_colormap(1, {id_: (*colour, 255) for id_, colour in content.colours.items()})
    file.update_tags(AREA_OR_POINT=meaning)
    if content.names:
        file.update_tags(1, CLASSES=_classes(content))
    file.descriptions = content.bands
    if content.overviews == "average":
        file.scales = (1 / content.steps,) * len(content.bands)


def _classes(content: SceneContent) -> str | None:
    return json.dumps(dict(content.names), ensure_ascii=False) if content.names else None


def _copy_options(content: SceneContent) -> dict[str, Any]:
    return {
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "YES" if np.dtype(content.dtype).itemsize == 2 else "NO",
        "OVERVIEW_RESAMPLING": content.overviews.upper(),  # the default, cubic, would make ids that do not exist
        "BIGTIFF": "IF_SAFER",
        "BLOCKSIZE": _BLOCK,
    }


def _write_categories(path: Path, content: SceneContent) -> None:
    """Write the class names as a list by id to the side-car file of GDAL; the names of other ids are empty."""
    if not content.names or np.dtype(content.dtype).itemsize > 2:
        return
    names = (content.names.get(id_, "") for id_ in range(max(content.names) + 1))
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    write_atomic(
        _beside(path, ".aux.xml"),
        "<PAMDataset>\n"
        f'  <PAMRasterBand band="1">\n    <CategoryNames>\n{lines}    </CategoryNames>\n  </PAMRasterBand>\n'
        "</PAMDataset>\n",
    )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove_with_companions(path: Path) -> None:
    for file in (path, *(_beside(path, suffix) for suffix in _BESIDE)):
        file.unlink(missing_ok=True)


def disk_needed(shape: Sequence[int], contents: Sequence[SceneContent]) -> int:
    """Return an upper bound for the bytes that work files and copies of a scene (H, W) take on the disk together.

    The copy has overviews, which add a third, and is made beside the work file; in the worst case it cannot be compressed. Work files
    are removed one by one, but all exist until the scene is complete.
    """
    tiles = int(np.prod([-(-size // _BLOCK) for size in shape]))
    work = [tiles * _BLOCK**2 * np.dtype(content.dtype).itemsize * len(content.bands) for content in contents]
    copies = [size * 4 // 3 for size in work]
    overviews_beside = max(work) // 3  # a temporary file of GDAL
    entries = 64 * tiles * sum(len(content.bands) for content in contents)
    return int((sum(work) + sum(copies) + overviews_beside) * 1.01) + entries + (1 << 20)


def require_disk(path: Path | str, shape: Sequence[int], contents: Sequence[SceneContent]) -> None:
    """Raise unless the disk of a new file has the free space that `disk_needed` returns.

    Raises:
        ResourceError: it has less.
    """
    folder = next(parent for parent in Path(path).absolute().parents if parent.is_dir())
    needed, free = disk_needed(shape, contents), shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            path,
            expected=f"{needed / 1e9:.1f} GB of free disk space for {shape[1]}×{shape[0]} pixels and their work files",
            found=f"{free / 1e9:.1f} GB",
            do="Free disk space or choose another --out.",
        )
