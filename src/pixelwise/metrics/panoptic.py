"""How well segments were found and outlined: panoptic quality.

Comes in: truth and prediction as maps of segment ids (*S), and what each id is: its category, and whether it is a
crowd. Goes out: sums per category and image that add up over images, and PQ, SQ, RQ taken from them. Knows nothing
of files, names or intervals.

Source: Kirillov et al. 2019, "Panoptic Segmentation", arXiv:1801.00868; the treatment of void and crowd is that of the
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
    """What an id in a map stands for: a category, and whether it is a crowd, many objects that nobody took apart."""

    category: int
    crowd: bool = False


Segments = Mapping[int, Segment]


class PanopticQuality(NamedTuple):
    """PQ = SQ · RQ, and how many categories it was taken over, arrays of one shape; NaN where there are none.

    `pq` is panoptic quality, `sq` segmentation quality (the mean IoU of matched segments, 0 where none matched), `rq`
    recognition quality (their F1), `categories` the number of categories with a segment in truth or prediction.
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
    """All P pairs of a true and a predicted id that share a pixel, and the pixels that each pair shares.

    Pixels are three rows (3, P): in both, in the truth, in the prediction. They differ for boundaries only: there, both
    sides, the true one, or the predicted one lie in the band of their own segment.
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

    A predicted segment matches a true one of its category where their IoU is above 0.5; void pixels of the truth are
    left out of the union. Crowds are never matched and never missed. Unmatched predictions that lie by more than half
    in void, or in crowds of their own category, are no false positives. (panopticapi looks at one crowd per category,
    the last: COCO has no more. Here all count.)

    Args:
        truth: integers (*S), ids of segments.
        prediction: integers (*S), ids of segments; they need not be those of the truth.
        truth_segments: what each id of the truth is.
        prediction_segments: what each id of the prediction is; crowds mean nothing here.
        categories: the K categories, in the order of the columns.
        void_id: pixels with this id belong to no segment, in either map; 0 in the format of COCO.
        boundary_share: None for PQ. For boundary PQ the width of boundaries as a share of the image's diagonal, 0.02
            in the paper: the IoU of a pair is then the smaller one of mask IoU and boundary IoU.
        where: what messages call the image.

    Returns:
        Sums in float64, the counts among them exact. They add up over images: give a total to `panoptic_quality`, or
        one row per image to a bootstrap.

    Raises:
        MaskError: shapes that differ, ids without a segment, segments without a pixel, unknown categories.
        UsageError: a category listed twice, or a share that is no positive number.

    """
    column = _columns(categories)
    _require_maps(truth, prediction, where)
    ids, pairs = _overlay(truth, prediction, boundary_share)
    rows, columns = pairs.truth, pairs.prediction
    area = _add_up(rows, pairs.whole[1], len(ids[0])), _add_up(columns, pairs.whole[2], len(ids[1]))
    true, crowd = _resolve(ids[0], area[0], truth_segments, column, void_id, where, "truth")
    predicted, _ = _resolve(ids[1], area[1], prediction_segments, column, void_id, where, "prediction")
    on_void, same = true[rows] < 0, true[rows] == predicted[columns]
    shared = _iou(pairs, pairs.whole, on_void)
    if pairs.boundary is not None:
        shared = np.minimum(shared, _iou(pairs, pairs.boundary, on_void))
    # Above one half, a segment has no second partner: nothing is left to choose between.
    matched = same & ~on_void & ~crowd[rows] & (shared > 0.5)
    excusing = on_void | (same & crowd[rows])
    excused = _add_up(columns[excusing], pairs.whole[0, excusing], len(ids[1]))
    missed, false = (true >= 0) & ~crowd, (predicted >= 0) & (2 * excused <= area[1])
    missed[rows[matched]], false[columns[matched]] = False, False
    hits, k = true[rows[matched]], len(column)
    counts = [np.bincount(classes, minlength=k) for classes in (hits, predicted[false], true[missed])]
    return np.stack([*counts, np.bincount(hits, shared[matched], k)]).astype(np.float64)


def panoptic_quality(sums: NDArray[Any]) -> PanopticQuality:
    """Take PQ, SQ and RQ per category, (…, K) each, from sums (…, 4, K).

    PQ = ΣIoU / (TP + FP/2 + FN/2), SQ = ΣIoU / TP, RQ = TP / (TP + FP/2 + FN/2): Kirillov et al. 2019, equations 1–2.
    A category without a segment in truth and prediction has NaN; one whose segments never matched has 0 in all three,
    as in panopticapi.
    """
    hits, false, missed, shared = np.moveaxis(np.asarray(sums, np.float64), -2, 0)
    whole = hits + (false + missed) / 2
    pq, rq = ratio(shared, whole), ratio(hits, whole)
    sq = np.where(whole > 0, ratio(shared, np.maximum(hits, 1)), np.nan)
    return PanopticQuality(pq, sq, rq, (whole > 0).astype(np.int64))


def panoptic_means(sums: NDArray[Any], things: Sequence[bool] | Flags) -> PanopticMeans:
    """Take the means over the categories that are present, (…) each, from sums (…, 4, K).

    Args:
        sums: as `panoptic_sums` gives them, added up over images.
        things: K flags, true for countable categories; the others are stuff.

    Raises:
        UsageError: another number of flags than of categories.

    """
    countable = np.asarray(things, bool)
    quality = panoptic_quality(sums)
    if countable.shape != quality.pq.shape[-1:]:
        raise UsageError(
            "things",
            expected=f"one flag for each of the {quality.pq.shape[-1]} categories",
            found=str(countable.size),
            do="Say of every category, in the order of the columns, whether it is a thing.",
        )
    return PanopticMeans(*(_mean(quality, chosen) for chosen in (np.ones_like(countable), countable, ~countable)))


def _mean(quality: PanopticQuality, chosen: Flags) -> PanopticQuality:
    pq, sq, rq = (mean_defined(values[..., chosen]) for values in quality[:3])
    return PanopticQuality(pq, sq, rq, quality.categories[..., chosen].sum(-1))


def _iou(pairs: _Pairs, pixels: Counts, on_void: Flags) -> Ratios:
    """Give the IoU of every pair, (P,), without the pixels of the prediction that lie on void."""
    shared, in_truth, in_prediction = pixels
    true = _add_up(pairs.truth, in_truth, len(in_truth))
    predicted = _add_up(pairs.prediction, np.where(on_void, 0, in_prediction), len(in_prediction))
    return ratio(shared, true[pairs.truth] + predicted[pairs.prediction] - shared)


def _columns(categories: Sequence[int]) -> dict[int, int]:
    column = {category: k for k, category in enumerate(categories)}
    if len(column) != len(categories):
        raise UsageError(
            "categories",
            expected="each category once",
            found=f"{len(categories) - len(column)} listed again",
            do="Remove what is listed twice.",
        )
    return column


def _require_maps(truth: NDArray[Any], prediction: NDArray[Any], where: object) -> None:
    if truth.shape != prediction.shape:
        raise MaskError(
            where,
            expected=f"the size of the truth, {truth.shape}",
            found=str(prediction.shape),
            do="Score at native size: resize what the model gives before segments are decided, never the truth.",
        )
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype.kind not in "ui":
            raise MaskError(
                where, expected="whole numbers", found=f"{name} of {array.dtype}", do="Give maps of segment ids."
            )


def _overlay(
    truth: NDArray[Any], prediction: NDArray[Any], boundary_share: float | None
) -> tuple[tuple[NDArray[Any], NDArray[Any]], _Pairs]:
    """Give the ids in both maps, and count the pixels of all pairs of them, in one pass over the image.

    Maps of segments are made of runs: only the first pixel of each run is looked at, which is what makes this fast.
    Bands along boundaries are a further property of a pixel, and end a run like a change of id.
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
    """Give the column of each id found in a map, -1 for void, and whether it is a crowd."""
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
            expected=f"no segment for the void id {void_id}",
            found=f"one in the {name}",
            do="Give the segment another id, or say with void_id which id is void.",
        )
    if unlisted:
        raise MaskError(
            where,
            expected=f"a segment for every id but {void_id}, which is void",
            found=f"none for id {unlisted[0]} in {found[unlisted[0]]} pixels of the {name}",
            do="List it among the segments, or make its pixels void.",
        )
    if absent:
        raise MaskError(
            where,
            expected="pixels for every segment",
            found=f"none for id {absent[0]} of the {name}",
            do="Remove segments of which no pixel is left, and make sure that the map is the right one.",
        )
    if unknown:
        raise MaskError(
            where,
            expected=f"one of the {len(column)} categories",
            found=f"{segments[unknown[0]].category} for id {unknown[0]} of the {name}",
            do="Add it to the categories, or make the segment void.",
        )
