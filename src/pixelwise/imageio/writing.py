"""Write predictions in the format and geometry of their image.

PNG for ordinary images, GeoTIFF for GeoTIFF, NRRD for NRRD, NIfTI for NIfTI and for DICOM series. Other formats would lose ids, or are lossy.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.imageio import nifti, nrrd, png
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.masks import encode_png, require_indices
from pixelwise.imageio.scene_writing import (
    CONFIDENCE,
    SceneContent,
    SceneWriter,
    class_content,
    class_ids,
    probability_content,
)
from pixelwise.imageio.sources import Source, VolumeSource
from pixelwise.labels import Labels
from pixelwise.storage import atomic_path, write_atomic
from pixelwise.tiles import Window
from pixelwise.types import Prediction

_LABEL_INTENT = 1002  # NIFTI_INTENT_LABEL
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_VOLUME_SUFFIXES = (*nifti.SUFFIXES[::-1], *nrrd.SUFFIXES)


def write_prediction(prediction: Prediction, path: Path | str, like: Source | None = None) -> Path:
    """Write the class ids of a prediction like its source: same size, same position in the world.

    Ignored and invalid pixels get the first ignore id of the labels; if there is none, the largest value of the written type
    that is not a class id. In a GeoTIFF this is also the nodata value.

    - PNG for ordinary images, and TIFFs without georeference: with the colours of the classes as palette for ids up to 255.
    - GeoTIFF for a GeoTIFF: its CRS, transform or ground control points, with colour table and class names (see `scene_writing`).
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
        _write_scene(path, ids, class_content(prediction.labels), like)
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
    table, ignore_id = class_ids(prediction.labels)
    ids = np.take(table, prediction.mask)
    if prediction.valid is not None:
        ids[~prediction.valid] = ignore_id
    return ids, ignore_id


def write_confidence(
    confidence: NDArray[np.float32], valid: NDArray[np.bool_] | None, path: Path | str, like: Source
) -> Path:
    """Write the largest probability at each pixel (*S), in percent, like its source: PNG, GeoTIFF or NIfTI.

    Args:
        confidence: 0–1.
        valid: (*S), false where the image has no data, which is 255 in the file; None if all pixels are valid.
        path: of the new file; its suffix is replaced by that of the format.
        like: the source that was predicted.

    Returns:
        The path that was written.

    Raises:
        ImageError: the source can no longer be read, or the extra "geo" or "volumes" is not installed.
        ResourceError: the disk does not take the file.
    """
    path = Path(path)
    values = CONFIDENCE.encode(confidence, valid)
    if isinstance(like, VolumeSource):
        path = _with_suffix(path, _nifti_suffix(like))
        _write_nifti(path, like.in_file_axes(values), like)
    elif like.format == "GeoTIFF":
        path = _with_suffix(path, ".tif")
        _write_scene(path, values, CONFIDENCE, like)
    else:
        path = _with_suffix(path, ".png")
        write_atomic(path, png.encode(values))
    return path


def write_probabilities(probabilities: NDArray[np.float32], path: Path | str, like: Source, labels: Labels) -> Path:
    """Write probabilities (K, *S): of a GeoTIFF as bands of one, else as float16 in an `.npz` with the key `probabilities`.

    Raises as `write_confidence`.
    """
    path = Path(path)
    if like.format == "GeoTIFF":
        path = _with_suffix(path, ".tif")
        content = probability_content(labels)
        _write_scene(path, content.encode(probabilities), content, like)
        return path
    path = path.with_name(f"{path.name.removesuffix('.png')}.npz")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=probabilities.astype(np.float16))
    return path


def _write_scene(path: Path, values: NDArray[Any], content: SceneContent, like: Source) -> None:
    writer = SceneWriter(path, like, content)
    try:
        writer.write(Window((0, 0), values.shape[-2:]), values)
        writer.finish()
    finally:
        writer.discard()


def _volume_suffix(like: VolumeSource) -> str:
    return ".seg.nrrd" if like.format == "NRRD" else _nifti_suffix(like)


def _nifti_suffix(like: VolumeSource) -> str:
    return ".nii" if like.format == "NIfTI" and not like.path.name.lower().endswith(".gz") else ".nii.gz"


def _write_volume(path: Path, ids: NDArray[Any], labels: Labels, like: VolumeSource) -> None:
    if like.format == "NRRD":
        write_atomic(path, nrrd.encode_mask(like.path, ids, labels))
    else:
        _write_nifti(path, ids, like, _LABEL_INTENT)


def _write_nifti(path: Path, values: NDArray[Any], like: VolumeSource, intent: int = 0) -> None:
    content = _encode_nifti(values, like, intent)
    write_atomic(path, gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)


def _encode_nifti(values: NDArray[Any], like: VolumeSource, intent: int) -> bytes:
    nibabel = need("nibabel", "volumes", like.path)
    if like.format == "NIfTI":
        header = nifti.read_raw_header(like.path)
        header.set_xyzt_units(header.get_xyzt_units()[0])
    else:
        header = nibabel.Nifti1Header()
        header.set_data_shape(values.shape)
        header.set_qform(like.header.affine, _SCANNER)
        header.set_sform(like.header.affine, _SCANNER)
        header.set_xyzt_units("mm")
    header.set_data_shape(values.shape)
    header.set_data_dtype(values.dtype)
    header["pixdim"][4:] = 1
    header["cal_max"] = header["cal_min"] = 0
    header["intent_code"] = intent
    header["intent_name"] = b""
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    # Without an affine, nibabel writes the header's own, bit for bit.
    content: bytes = kind(np.asfortranarray(values), None, header).to_bytes()
    return content
