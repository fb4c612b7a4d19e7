"""Write predictions in the format and geometry of their image.

PNG for ordinary images, GeoTIFF for GeoTIFF, NRRD for NRRD, NIfTI for NIfTI and for DICOM series. Other formats would lose ids, or are lossy.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.imageio import nifti, nrrd
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.masks import IGNORED_COLOUR, encode_png, require_indices
from pixelwise.imageio.silencing import silenced
from pixelwise.imageio.sources import Source, VolumeSource
from pixelwise.labels import Labels
from pixelwise.storage import atomic_path, write_atomic
from pixelwise.types import Prediction

_LABEL_INTENT = 1002  # NIFTI_INTENT_LABEL
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_VOLUME_SUFFIXES = (*nifti.SUFFIXES[::-1], *nrrd.SUFFIXES)
_TILE = 256


def write_prediction(prediction: Prediction, path: Path | str, like: Source | None = None) -> Path:
    """Write the class ids of a prediction like its source: same size, same position in the world.

    Ignored and invalid pixels get the first ignore id of the labels; if there is none, the largest value of the written type
    that is not a class id. In a GeoTIFF this is also the nodata value.

    - PNG for ordinary images, and TIFFs without georeference: with the colours of the classes as palette for ids up to 255.
    - GeoTIFF for a GeoTIFF: its CRS, transform or ground control points, with colour table and class names, tiled, DEFLATE.
    - NIfTI for a NIfTI: its affine, sform and qform codes and spatial units, in the smallest unsigned type that holds the ids. NIfTI
      for a DICOM series: on its voxels, in the order of its columns, rows and slices.
    - NRRD for an NRRD: its fields of space, and the classes as segments of 3D Slicer (`.seg.nrrd`).

    Args:
        prediction: of a whole image.
        path: of the new file; its suffix is replaced by that of the format.
        like: the source that was predicted; None for a PNG.

    Returns:
        The path that was written.

    Raises:
        MaskError: a mask that is not class indices in the size of the source, or ids that the format cannot hold.
        ImageError: the source can no longer be read, or the extra "geo" or "volumes" is not installed.
        ResourceError: the disk does not take the file.
    """
    path = Path(path)
    if like is not None and prediction.mask.shape != like.shape:
        raise MaskError(
            path,
            expected=f"a mask of shape {like.shape}, as {like.path.name} has",
            found=f"shape {prediction.mask.shape}",
            do="Write the prediction of the whole image.",
        )
    require_indices(path, prediction.mask, prediction.labels)
    ids, ignore_id = _ids(prediction)
    if isinstance(like, VolumeSource):
        path = _with_suffix(path, _volume_suffix(like))
        _write_volume(path, like.in_file_axes(ids), prediction.labels, like)
    elif like is not None and like.format == "GeoTIFF":
        path = path if path.suffix.lower() in (".tif", ".tiff") else _with_suffix(path, ".tif")
        _write_geotiff(path, ids, ignore_id, prediction.labels, like)
    else:
        path = _with_suffix(path, ".png")
        write_atomic(path, encode_png(path, ids, prediction.labels, ignore_id))
    return path


def _with_suffix(path: Path, suffix: str) -> Path:
    """Replace the suffix of an image file; other endings are part of the name."""
    name = path.name
    known = next((end for end in (*_VOLUME_SUFFIXES, *IMAGE_SUFFIXES) if name.lower().endswith(end)), "")
    return path.with_name(name[: len(name) - len(known)] + suffix)


def _ids(prediction: Prediction) -> tuple[NDArray[Any], int]:
    """Return class ids (*S) in the smallest unsigned type, and the id of ignored and invalid pixels."""
    labels = prediction.labels
    used = set(labels.ids)
    if labels.ignore_ids:
        ignore_id = labels.ignore_ids[0]
        dtype = np.min_scalar_type(max(*used, ignore_id))
    else:
        dtype = np.min_scalar_type(max(max(used), len(used)))  # so that one value is free
        ignore_id = next(value for value in range(np.iinfo(dtype).max, -1, -1) if value not in used)
    table = np.full(labels.ignore_index + 1, ignore_id, dtype)
    table[: labels.num_classes] = labels.ids
    ids = np.take(table, prediction.mask)
    if prediction.valid is not None:
        ids[~prediction.valid] = ignore_id
    return ids, ignore_id


def _write_geotiff(path: Path, ids: NDArray[Any], ignore_id: int, labels: Labels, like: Source) -> None:
    rasterio = need("rasterio", "geo", like.path)
    profile: dict[str, Any] = {"width": ids.shape[1], "height": ids.shape[0], "count": 1, "dtype": ids.dtype.name}
    layout = {"tiled": True, "blockxsize": _TILE, "blockysize": _TILE, "compress": "deflate"}
    colours = {ignore_id: (*IGNORED_COLOUR, 255)} | {
        id_: (*colour, 255) for id_, colour in zip(labels.ids, labels.colours, strict=True)
    }
    with silenced(), atomic_path(path) as temporary:  # sources with ground control points make rasterio warn
        with rasterio.open(like.path.resolve(), driver="GTiff") as source:
            points, points_crs = source.gcps
            place = (
                {"gcps": points, "crs": points_crs} if points else {"transform": source.transform, "crs": source.crs}
            )
            meaning = source.tags().get("AREA_OR_POINT", "Area")
        with rasterio.open(temporary, "w", driver="GTiff", nodata=ignore_id, **profile, **layout, **place) as file:
            if ids.dtype.itemsize <= 2:
                file.write_colormap(1, colours)
            file.update_tags(AREA_OR_POINT=meaning)
            file.update_tags(
                1, CLASSES=json.dumps(dict(zip(labels.ids, labels.names, strict=True)), ensure_ascii=False)
            )
            file.write(ids, 1)


def _volume_suffix(like: VolumeSource) -> str:
    if like.format == "NRRD":
        return ".seg.nrrd"
    return ".nii" if like.format == "NIfTI" and not like.path.name.lower().endswith(".gz") else ".nii.gz"


def _write_volume(path: Path, ids: NDArray[Any], labels: Labels, like: VolumeSource) -> None:
    if like.format == "NRRD":
        write_atomic(path, nrrd.encode_mask(like.path, ids, labels))
        return
    content = _encode_nifti(ids, like)
    write_atomic(path, gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)


def _encode_nifti(ids: NDArray[Any], like: VolumeSource) -> bytes:
    nibabel = need("nibabel", "volumes", like.path)
    if like.format == "NIfTI":
        header = nifti.read_raw_header(like.path)
        header.set_xyzt_units(header.get_xyzt_units()[0])
    else:
        header = nibabel.Nifti1Header()
        header.set_data_shape(ids.shape)
        header.set_qform(like.header.affine, _SCANNER)
        header.set_sform(like.header.affine, _SCANNER)
        header.set_xyzt_units("mm")
    header.set_data_shape(ids.shape)
    header.set_data_dtype(ids.dtype)
    header["pixdim"][4:] = 1
    header["cal_max"] = header["cal_min"] = 0
    header["intent_code"] = _LABEL_INTENT
    header["intent_name"] = b""
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    # Without an affine, nibabel writes the header's own, bit for bit.
    content: bytes = kind(np.asfortranarray(ids), None, header).to_bytes()
    return content
