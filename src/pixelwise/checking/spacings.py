"""Checks on the distance between pixels: images of one data set that differ in it, or lack it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import Finding, image_finding, plural
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Survey

# Ratios of spacings. Rounding and latitude (of maps in degrees) cause less than the first.
_SAME, _SIMILAR = 1.01, 1.5


def different_spacings(survey: Survey) -> Iterator[Finding]:
    """Find images whose pixels are larger or smaller than those of most, and volumes whose slices are."""
    known = [image for image in survey.usable if image.spacing]
    volumes = any(survey.record(image).plane is not None for image in known)
    pixels = np.array([image.spacing[-2:] for image in known])
    other = _others(known, pixels)
    if other:
        ratio = _largest_ratio(pixels)
        what = f"{plural(len(other), 'image differs', 'images differ')} in pixel spacing from most: {_range(pixels)}"
        why = (
            f"An object of the same size has up to {ratio:.3g} times as many pixels across in one image as in another."
        )
        why += " Images are trained as they are: a network has to learn all scales." if ratio > _SIMILAR else ""
        severity = "warning" if ratio > _SIMILAR else "notice"
        yield image_finding(survey, "different-spacings", severity, other, what, why, _fix(volumes), of=len(known))
    deep = [image for image in known if len(image.spacing) == 3]
    slices = np.array([image.spacing[:1] for image in deep])
    other = _others(deep, slices)
    if other:
        what = f"{plural(len(other), 'slice is', 'slices are')} of volumes that differ in slice spacing from most:"
        what += f" {_range(slices)}"
        why = "It does not matter to a network with two dimensions; one with three has to learn all of them."
        yield image_finding(survey, "different-slices", "notice", other, what, why, _fix(True), of=len(deep))


def missing_spacings(survey: Survey) -> Iterator[Finding]:
    """Find images without a spacing in a data set whose other images have one."""
    missing = [image for image in survey.usable if not image.spacing]
    if missing and len(missing) < len(survey.usable):
        what = f"{plural(len(missing), 'image has', 'images have')} no pixel spacing in a unit of length, the others do"
        why = "Their sizes can be measured in pixels only, and whether their pixels are as large as the others' is unknown."
        fix = "Export them again with their spacing or georeference. To measure, pixelwise measure --spacing takes it as well."
        yield image_finding(survey, "missing-spacings", "notice", missing, what, why, fix)


def _others(images: list[Inspection], spacings: NDArray[np.float64]) -> list[Inspection]:
    """Return the images whose spacings (N, axes) differ from the median."""
    if not images:
        return []
    median = np.median(spacings, axis=0)
    differ = (np.maximum(spacings / median, median / spacings) > _SAME).any(axis=1)
    return [images[i] for i in np.flatnonzero(differ)]


def _largest_ratio(spacings: NDArray[np.float64]) -> float:
    return float((spacings.max(axis=0) / spacings.min(axis=0)).max())


def _range(spacings: NDArray[np.float64]) -> str:
    """Return "0.5 to 1.2 mm, median 0.7 mm"."""
    middle = float(np.median(spacings))
    factor, unit = (1e3, "mm") if middle < 0.01 else (1.0, "m")
    low, high, middle = (factor * float(value) for value in (spacings.min(), spacings.max(), middle))
    return f"{low:.4g} to {high:.4g} {unit}, median {middle:.4g} {unit}"


def _fix(volumes: bool) -> str:
    if volumes:
        return "Train on whole volumes, which are resampled to one spacing: --set data.volumes=whole."
    return (
        "If objects have a typical size, resample images and masks to one spacing (masks by nearest neighbour); or widen"
        " augment.scale."
    )


CHECKS = (different_spacings, missing_spacings)
