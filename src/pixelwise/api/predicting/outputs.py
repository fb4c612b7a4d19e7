"""Read a file, predict it, and write its mask, overlay and probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.predicting.class_totals import ClassTotals
from pixelwise.api.predicting.polygons import prediction_polygons, with_polygons
from pixelwise.api.predicting.video import VideoSettings
from pixelwise.errors import ImageError
from pixelwise.imageio.dicom_seg_writing import write_dicom_seg
from pixelwise.imageio.images import fill_invalid
from pixelwise.imageio.resampling import ResampledSource
from pixelwise.imageio.sources import Source
from pixelwise.imageio.volume_sources import VolumeSource
from pixelwise.imageio.writing import write_confidence, write_prediction, write_probabilities
from pixelwise.inference.predictor import Predictor
from pixelwise.measuring.vectors import VectorFormat
from pixelwise.reporting.overlay import overlay, write_png
from pixelwise.tiles import Window
from pixelwise.types import Prediction

DicomMasks = Literal["binary", "labelmap", "nifti"]


@dataclass(frozen=True)
class Loaded:
    """A decoded file."""

    source: Source
    image: NDArray[Any]
    valid: NDArray[np.bool_] | None
    resampled: ResampledSource | None = None  # at the spacing of the training


@dataclass(frozen=True)
class Outputs:
    """What is written, and how images and videos are predicted.

    Args:
        overlays: also write the masks drawn over the images.
        probabilities: also write them: of a GeoTIFF as bands of one, else (K, *S) float16 as `.npz` with key `probabilities`.
        confidence: also write the largest probability at each pixel, in percent.
        polygons: also write the regions of images as polygons, in these formats.
        simplify: largest distance in pixels by which their borders may move.
        mosaic: predict the GeoTIFFs of each source as one image.
        resample: predict images at the pixel spacing of the training, and return masks on their own grids.
        dicom: masks of DICOM series: segmentation objects of type "binary" or "labelmap", or "nifti".
        generate_uids: replace identifiers that a segmentation object needs and the series lacks.
        video: how videos are predicted.
    """

    overlays: bool = True
    probabilities: bool = False
    confidence: bool = False
    polygons: tuple[VectorFormat, ...] = ()
    simplify: float = 0.0
    mosaic: bool = False
    resample: bool = False
    dicom: DicomMasks = "binary"
    generate_uids: bool = False
    video: VideoSettings = field(default_factory=VideoSettings)

    @property
    def computed(self) -> bool:
        """Whether probabilities are needed."""
        return self.probabilities or self.confidence


def about(source: Source) -> dict[str, Any]:
    """Return what an entry in `predictions.json` says about the file: its path, size, and grid."""
    sizes = dict(zip(("width", "height", "depth"), reversed(source.shape), strict=False))
    grid = source.grid
    entry: dict[str, Any] = {"file": str(source.path)}
    entry |= {key: sizes[key] for key in ("depth", "height", "width") if key in sizes}
    if grid.unit != "px":
        entry["grid"] = {"spacing": list(grid.spacing), "unit": grid.unit}
        affine = None if grid.affine is None else [list(row) for row in grid.affine]
        more = (("crs", grid.crs), ("affine", affine), ("calibration", grid.calibration))
        entry["grid"] |= {key: value for key, value in more if value}
    return entry


def predict_source(predictor: Predictor, loaded: Loaded, probabilities: bool) -> Prediction:
    """Predict an image or a volume, at the spacing of the training if it was resampled to that."""
    source, other = loaded.source, loaded.resampled
    if other is None:
        return predictor(loaded.image, source.grid, loaded.valid, id=str(source.path), probabilities=probabilities)
    image, valid = other.read()
    found = predictor(image, None, valid, id=str(source.path), probabilities=probabilities)
    return _restored(found, other, loaded, predictor.spec.labels.ignore_index)


def _restored(found: Prediction, other: ResampledSource, loaded: Loaded, ignore_index: int) -> Prediction:
    """Return a prediction on the grid of the file that was resampled for it."""
    whole = Window((0,) * found.mask.ndim, found.mask.shape)
    mask = other.restore(found.mask, whole)
    if loaded.valid is not None:
        mask[~loaded.valid] = ignore_index
    probabilities = None if found.probabilities is None else other.restore(found.probabilities, whole)
    return replace(found, mask=mask, probabilities=probabilities, valid=loaded.valid, grid=loaded.source.grid)


def write_outputs(name: str, loaded: Loaded, prediction: Prediction, out: Path, outputs: Outputs) -> dict[str, Any]:
    """Write the outputs of one file; return its entry in `predictions.json`."""
    source = loaded.source
    written, notices = _write_mask(name, source, prediction, out, outputs)
    entry = about(source) | {"mask": written.relative_to(out).as_posix()} | ({"notices": notices} if notices else {})
    more = prediction_polygons(name, source, prediction, out, outputs.polygons, outputs.simplify)
    entry = with_polygons(entry, more)
    if outputs.overlays:
        entry["overlay"] = f"overlays/{name}.png"
        write_png(out / entry["overlay"], _overlay(loaded.image, prediction))
    probabilities = prediction.probabilities
    if outputs.confidence and probabilities is not None:
        place = out / "confidence" / f"{name}.png"
        written = write_confidence(probabilities.max(0), prediction.valid, place, source)
        entry["confidence"] = written.relative_to(out).as_posix()
    if outputs.probabilities and probabilities is not None:
        written = write_probabilities(probabilities, out / "probabilities" / f"{name}.png", source, prediction.labels)
        entry["probabilities"] = written.relative_to(out).as_posix()
    totals = ClassTotals(prediction.labels, source)
    totals.add_whole(prediction.mask)
    return entry | totals.entry()


def _write_mask(
    name: str, source: Source, prediction: Prediction, out: Path, outputs: Outputs
) -> tuple[Path, list[str]]:
    """Write the mask; return its path, and what is to be said about it.

    That of a DICOM series is a segmentation object, or NIfTI where the series lacks identifiers that such an object needs.
    """
    place, notices = out / "masks" / f"{name}.png", []
    if isinstance(source, VolumeSource) and source.format == "DICOM" and outputs.dicom != "nifti":
        path = place.with_name(f"{place.name.removesuffix('.png')}.dcm")
        mask, ignored = prediction.mask, prediction.labels.ignore_index
        if prediction.valid is not None:
            mask = np.where(prediction.valid, mask, mask.dtype.type(ignored))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            generated = write_dicom_seg(
                path,
                source.in_frame_order(mask),
                prediction.labels,
                source.files,
                segmentation_type=outputs.dicom,
                generate_uids=outputs.generate_uids,
            )
        except ImageError as error:
            notices.append(f"{error} The mask was written as NIfTI.")
        else:
            named = ", ".join(f"{key} {value}" for key, value in generated.items())
            return path, [f"{source.path}: generated {named}, which the series lacks"] if generated else []
    return write_prediction(prediction, place, like=source), notices


def _overlay(image: NDArray[Any], prediction: Prediction) -> NDArray[np.uint8]:
    """Draw the mask over the image; of a volume, over the slice with the fewest pixels of the most frequent class."""
    mask, valid, labels = prediction.mask, prediction.valid, prediction.labels
    if mask.ndim == 3:
        counts = np.stack([np.bincount(one.ravel(), minlength=labels.ignore_index + 1) for one in mask])
        index = int(counts[:, counts.sum(0).argmax()].argmin())
        image, mask = image[:, index], mask[index]
        valid = None if valid is None else valid[index]
    return overlay(fill_invalid(image, valid), mask, labels)
