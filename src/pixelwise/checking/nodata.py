"""Checks on missing data: values that look like marks of it, and nodata values of masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelwise.checking.far_values import FarValue
from pixelwise.checking.findings import Finding, image_finding, plural
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.regions import Column
from pixelwise.checking.survey import Survey

_USELESS = 10.0  # ratio of standard deviations from which on the other values are hardly visible to a network
_LISTED_IDS = 40
_LISTED = "listed from the masks"


def unmarked_nodata(survey: Survey) -> Iterator[Finding]:
    """Find values far outside of all others, as -9999 without a nodata tag."""
    by_value: dict[float, list[Inspection]] = {}
    for image in survey.usable:
        for far in image.far:
            by_value.setdefault(far.value, []).append(image)
    for value, images in sorted(by_value.items(), key=lambda item: -len(item[1])):
        found = [each for image in images if (each := _of(image, value)) is not None]
        pixels = sum(far.pixels for far in found)
        total = sum(image.size[0] * image.size[1] for image in images)
        low, high = min(far.low for far in found), max(far.high for far in found)
        what = f"{_number(value)} in {_share(pixels, total)} of the pixels of {plural(len(images), 'image', 'images')} looks like"
        what += f" missing data: all other values are between {low:.6g} and {high:.6g}"
        ratio = _ratio(survey, value)
        why = "No file says so, so it is read as a measurement."
        if ratio > 1.5:
            why += f" It makes the standard deviation of the pixels {_times(ratio)} as large: a network hardly sees the"
            why += " differences between the other values."
        severity = "error" if ratio > _USELESS else "warning"
        yield image_finding(survey, "unmarked-nodata", severity, images, what, why, _declare(survey, images[0], value))


def _of(image: Inspection, value: float) -> FarValue | None:
    return next((far for far in image.far if far.value == value), None)


def _ratio(survey: Survey, value: float) -> float:
    """Return by what factor a value increases the standard deviation within images, over all images."""
    marked: list[float] = []
    rest: list[float] = []
    for image in survey.usable:
        far = _of(image, value)
        marked.append(image.spread if far is None else far.spread_with)
        rest.append(image.spread if far is None else far.spread)
    largest = max(marked)
    if not largest:
        return 1.0
    below = float(np.sqrt(np.square(np.divide(rest, largest)).mean()))
    return float(np.sqrt(np.square(np.divide(marked, largest)).mean())) / below if below else np.inf


def _declare(survey: Survey, image: Inspection, value: float) -> str:
    """Return how to declare a value as nodata."""
    known = survey.record(image).nodata
    if known is not None:
        return (
            f"data.nodata is {_number(known)}, and takes one value only: write that one into the files instead of"
            f" {_number(value)}, or {_number(value)} as their nodata value."
        )
    return f"Ignore these pixels: --set data.nodata={_number(value)}. If they are measurements, do nothing."


def _number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)


def _share(part: int, total: int) -> str:
    share = 100 * part / max(total, 1)
    return f"{share:.0f} %" if share >= 1 else f"{share:.2g} %"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio < 1e6 else "over a million times"


def mask_nodata(survey: Survey) -> Iterator[Finding]:
    """Find masks with a nodata value that is read as a class, or that the labels do not define."""
    by_value: dict[int, list[Inspection]] = {}
    for image in survey.inspections:
        value = image.mask_nodata
        if value is not None and float(value).is_integer() and _occurs(survey, image, int(value)):
            by_value.setdefault(int(value), []).append(image)
    for value, images in by_value.items():
        labels = survey.labels
        name = labels.names[labels.ids.index(value)] if value in labels.ids else None
        read_as = f"read as the class {name!r}" if name is not None else "not defined by the labels"
        what = f"{plural(len(images), 'mask defines', 'masks define')} {value} as nodata; in masks it is {read_as}"
        why = "Programs write nodata values into masks for various reasons, so they are not applied automatically."
        if name is not None:
            why += f" If {value} means that nothing is known there, the model learns {name!r} where it should learn nothing."
        fix = _ignore(survey, value)
        yield image_finding(
            survey, "mask-nodata", "notice", images, what, why, fix, of=len(survey.inspections), masks=True
        )


def _occurs(survey: Survey, image: Inspection, value: int) -> bool:
    """Whether a value of a mask file is used there other than as an ignored id."""
    if image.unknown is not None:
        return value in dict(image.unknown.ids)
    rule, labels = survey.datasets[image.split].rule, survey.labels
    if not rule.stored or value not in labels.ids:
        return False
    return labels.ids.index(value) in image.table[:, Column.CLASS]


def _ignore(survey: Survey, value: int) -> str:
    """Return how to ignore a value of mask files; the mapping names all values."""
    labels = survey.labels
    if len(labels.ids) > _LISTED_IDS:
        return f"To ignore it: ignore_index: {value} in labels.yaml, without this class; otherwise do nothing."
    ignored = (labels.ignore_ids or (255,))[0]
    pairs = {id_: id_ for id_ in labels.ids if id_ != value} | dict.fromkeys(
        (value, *(labels.ignore_ids or ())), ignored
    )
    mapping = ", ".join(f"{stored}: {id_}" for stored, id_ in sorted(pairs.items()))
    described = value in labels.ids and survey.splits.description.get("labels") != _LISTED
    also = ", and remove the class from the labels" if described else ""
    return f"To ignore it: --set 'data.mask_values={{{mapping}}}'{also}; otherwise do nothing."


CHECKS = (unmarked_nodata, mask_nodata)
