"""Panoptic quality (PQ, SQ, RQ) of segments, from sums per category and image that add up over images.

Source: Kirillov et al. 2019, "Panoptic Segmentation", arXiv:1801.00868; unlabelled pixels (`void_id`) and crowds are treated as in the
authors' panopticapi. Boundary PQ: Cheng et al. 2021, "Boundary IoU", arXiv:2103.16562.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics.boundary import boundary_width, class_bands
from pixelwise.metrics.confusion import Counts, Ratios, mean_defined, ratio

Flags = NDArray[np.bool_]


class Segment(NamedTuple):
    """The category of a segment id, and whether it is a crowd: several objects annotated as one."""

    category: int
    crowd: bool = False


Segments = Mapping[int, Segment]


class PanopticQuality(NamedTuple):
    """PQ = SQ · RQ and the number of categories, arrays of the same shape; NaN without categories.

    `pq` is panoptic quality, `sq` segmentation quality (the mean IoU of matched segments, 0 without a match), `rq`
    recognition quality (F1 of the matches), `categories` the number of categories with a segment in truth or prediction.
    """

    pq: Ratios
    sq: Ratios
    rq: Ratios
    categories: Counts


class PanopticMeans(NamedTuple):
    """Means over the categories present: all, things, stuff."""

    all: PanopticQuality
    things: PanopticQuality
    stuff: PanopticQuality


class _Pairs(NamedTuple):
    """All P pairs of a true and a predicted id that overlap, and their shared pixels.

    Pixel counts are three rows (3, P): in both, in the truth, in the prediction. The rows differ only for boundaries, where they
    count the shared pixels in the bands of both segments, of the true one, and of the predicted one.
    """

    truth: Counts  # (P,), positions among the ids of the truth
    prediction: Counts  # (P,)
    whole: Counts  # (3, P)
    boundary: Counts | None  # (3, P)


def panoptic_sums(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    truth_segments: Segments,
    prediction_segments: Segments,
    categories: Sequence[int],
    *,
    void_id: int = 0,
    boundary_share: float | None = None,
    where: object = "prediction",
) -> Ratios:
    """Match the segments of one image and count, per category: (4, K) in rows TP, FP, FN and the sum of IoUs.

    A predicted segment matches a true one of its category if their IoU is above 0.5; unlabelled pixels of the truth are left out
    of the union. Crowds are neither matched nor missed. Unmatched predictions with more than half of their pixels in unlabelled
    pixels or crowds of their category are not false positives. (panopticapi considers only the last crowd of each category, since
    COCO has at most one; here all are considered.)

    Args:
        truth: integers (*S), segment ids.
        prediction: integers (*S), segment ids, unrelated to those of the truth.
        truth_segments: the segments of the truth by id.
        prediction_segments: the segments of the prediction by id; their crowd flag is not used.
        categories: the K categories, in the order of the columns.
        void_id: id of pixels without a segment, in both maps; 0 in the COCO format.
        boundary_share: None for PQ. For boundary PQ, the width of boundaries as a share of the image's diagonal, 0.02
            in the paper: the IoU of a pair is then the smaller of mask IoU and boundary IoU.
        where: name of the image in error messages.

    Returns:
        Sums in float64 with exact counts, which add up over images. Pass a total to `panoptic_quality`, or one row per image to
        `metrics.intervals.estimate`.

    Raises:
        MaskError: different shapes, ids without a segment, segments without a pixel, or unknown categories.
        UsageError: a category is listed twice, or the share is not a positive number.
    """
    column = _columns(categories)
    _require_maps(truth, prediction, where)
    ids, pairs = _overlay(truth, prediction, boundary_share)
    rows, columns = pairs.truth, pairs.prediction
    area = _add_up(rows, pairs.whole[1], len(ids[0])), _add_up(columns, pairs.whole[2], len(ids[1]))
    true, crowd = _resolve(ids[0], area[0], truth_segments, column, void_id, where, "truth")
    predicted, _ = _resolve(ids[1], area[1], prediction_segments, column, void_id, where, "prediction")
    on_unlabelled, same = true[rows] < 0, true[rows] == predicted[columns]
    shared = _iou(pairs, pairs.whole, on_unlabelled)
    if pairs.boundary is not None:
        shared = np.minimum(shared, _iou(pairs, pairs.boundary, on_unlabelled))
    # With an IoU above 0.5 the match is unique.
    matched = same & ~on_unlabelled & ~crowd[rows] & (shared > 0.5)
    excusing = on_unlabelled | (same & crowd[rows])
    excused = _add_up(columns[excusing], pairs.whole[0, excusing], len(ids[1]))
    missed, false = (true >= 0) & ~crowd, (predicted >= 0) & (2 * excused <= area[1])
    missed[rows[matched]], false[columns[matched]] = False, False
    hits, k = true[rows[matched]], len(column)
    counts = [np.bincount(classes, minlength=k) for classes in (hits, predicted[false], true[missed])]
    return np.stack([*counts, np.bincount(hits, shared[matched], k)]).astype(np.float64)


def panoptic_quality(sums: NDArray[Any]) -> PanopticQuality:
    """Compute PQ, SQ and RQ per category, (…, K) each, from sums (…, 4, K).

    PQ = ΣIoU / (TP + FP/2 + FN/2), SQ = ΣIoU / TP, RQ = TP / (TP + FP/2 + FN/2): Kirillov et al. 2019, equations 1–2.
    NaN for a category without segments; 0 in all three for a category without matches, as in panopticapi.
    """
    hits, false, missed, shared = np.moveaxis(np.asarray(sums, np.float64), -2, 0)
    whole = hits + (false + missed) / 2
    pq, rq = ratio(shared, whole), ratio(hits, whole)
    sq = np.where(whole > 0, ratio(shared, np.maximum(hits, 1)), np.nan)
    return PanopticQuality(pq, sq, rq, (whole > 0).astype(np.int64))


def panoptic_means(sums: NDArray[Any], things: Sequence[bool] | Flags) -> PanopticMeans:
    """Compute the means over the present categories, (…) each, from sums (…, 4, K).

    Args:
        sums: from `panoptic_sums`, added up over images.
        things: K flags, true for things, false for stuff.

    Raises:
        UsageError: the number of flags is not the number of categories.
    """
    countable = np.asarray(things, bool)
    quality = panoptic_quality(sums)
    if countable.shape != quality.pq.shape[-1:]:
        raise UsageError(
            "things",
            expected=f"one flag for each of the {quality.pq.shape[-1]} categories",
            found=str(countable.size),
            do="Pass one flag per category, in the order of the columns, true for things.",
        )
    return PanopticMeans(*(_mean(quality, chosen) for chosen in (np.ones_like(countable), countable, ~countable)))


def _mean(quality: PanopticQuality, chosen: Flags) -> PanopticQuality:
    pq, sq, rq = (mean_defined(values[..., chosen]) for values in quality[:3])
    return PanopticQuality(pq, sq, rq, quality.categories[..., chosen].sum(-1))


def _iou(pairs: _Pairs, pixels: Counts, on_unlabelled: Flags) -> Ratios:
    """Compute the IoU of every pair, (P,), without predicted pixels that are unlabelled in the truth."""
    shared, in_truth, in_prediction = pixels
    true = _add_up(pairs.truth, in_truth, len(in_truth))
    predicted = _add_up(pairs.prediction, np.where(on_unlabelled, 0, in_prediction), len(in_prediction))
    return ratio(shared, true[pairs.truth] + predicted[pairs.prediction] - shared)


def _columns(categories: Sequence[int]) -> dict[int, int]:
    column = {category: k for k, category in enumerate(categories)}
    if len(column) != len(categories):
        raise UsageError(
            "categories",
            expected="each category once",
            found=f"{len(categories) - len(column)} listed again",
            do="Remove the duplicates.",
        )
    return column


def _require_maps(truth: NDArray[Any], prediction: NDArray[Any], where: object) -> None:
    if truth.shape != prediction.shape:
        raise MaskError(
            where,
            expected=f"the size of the truth, {truth.shape}",
            found=str(prediction.shape),
            do="Score at native size: resize the model's output before making segments, never the truth.",
        )
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype.kind not in "ui":
            raise MaskError(
                where, expected="integers", found=f"{name} of {array.dtype}", do="Pass maps of segment ids."
            )


def _overlay(
    truth: NDArray[Any], prediction: NDArray[Any], boundary_share: float | None
) -> tuple[tuple[NDArray[Any], NDArray[Any]], _Pairs]:
    """Return the ids in both maps and the pixel counts of all pairs, in one pass over the image.

    For speed, only the first pixel of each run of equal pixels is processed; a run ends where either id, or membership in a
    boundary band, changes.
    """
    layers = [truth.reshape(-1), prediction.reshape(-1)]
    if boundary_share is not None:
        width = boundary_width(truth.shape, boundary_share)
        layers += [class_bands(ids, width).reshape(-1) for ids in (truth, prediction)]
    starts = np.ones(truth.size, bool)
    starts[1:] = False
    for layer in layers:
        starts[1:] |= layer[1:] != layer[:-1]
    first = np.flatnonzero(starts)
    length = np.diff(first, append=truth.size)
    true_ids, t = np.unique(layers[0][first], return_inverse=True)
    predicted_ids, p = np.unique(layers[1][first], return_inverse=True)
    keys, pair = np.unique(t * max(1, len(predicted_ids)) + p, return_inverse=True)
    rows, columns = np.divmod(keys, max(1, len(predicted_ids)))
    whole = np.stack([_add_up(pair, length, len(keys))] * 3)
    boundary = None
    if boundary_share is not None:
        bands = [layer[first] for layer in layers[2:]]
        boundary = np.stack([_add_up(pair, length * band, len(keys)) for band in (bands[0] & bands[1], *bands)])
    return (true_ids, predicted_ids), _Pairs(rows, columns, whole, boundary)


def _add_up(index: NDArray[Any], pixels: Counts, size: int) -> Counts:
    # Sums below 2^53: exact in the float64 in which bincount adds.
    return np.bincount(index, weights=pixels, minlength=size).astype(np.int64)


def _resolve(
    ids: NDArray[Any],
    area: Counts,
    segments: Segments,
    column: Mapping[int, int],
    void_id: int,
    where: object,
    name: str,
) -> tuple[Counts, Flags]:
    """Return the column of each id in a map, -1 for unlabelled pixels, and whether it is a crowd."""
    found = {int(value): int(pixels) for value, pixels in zip(ids, area, strict=True)}
    _require_segments(found, segments, column, void_id, where, name)
    columns = [-1 if value == void_id else column[segments[value].category] for value in found]
    crowds = [value != void_id and bool(segments[value].crowd) for value in found]
    return np.array(columns, np.int64), np.array(crowds, bool)


def _require_segments(
    found: Mapping[int, int], segments: Segments, column: Mapping[int, int], void_id: int, where: object, name: str
) -> None:
    unlisted = [value for value in found if value not in segments and value != void_id]
    absent = [value for value in segments if value not in found]
    unknown = [value for value, segment in segments.items() if segment.category not in column]
    if void_id in segments:
        raise MaskError(
            where,
            expected=f"no segment with the id of unlabelled pixels, {void_id}",
            found=f"one in the {name}",
            do="Give the segment another id, or set void_id.",
        )
    if unlisted:
        raise MaskError(
            where,
            expected=f"a segment for every id except {void_id}, the id of unlabelled pixels",
            found=f"none for id {unlisted[0]} in {found[unlisted[0]]} pixels of the {name}",
            do="Add it to the segments, or set its pixels to void_id.",
        )
    if absent:
        raise MaskError(
            where,
            expected="pixels for every segment",
            found=f"none for id {absent[0]} of the {name}",
            do="Remove segments without pixels, and check that this is the right map.",
        )
    if unknown:
        raise MaskError(
            where,
            expected=f"one of the {len(column)} categories",
            found=f"{segments[unknown[0]].category} for id {unknown[0]} of the {name}",
            do="Add it to the categories, or remove the segment and set its pixels to void_id.",
        )
