"""COCO average precision of masks, boxes and boundaries.

Matching and averaging are done by pycocotools, so that the numbers are those of published papers (Lin et al. 2014,
arXiv:1405.0312). The input is validated and copied first, because pycocotools treats an annotation with id 0 as "no match", takes
the area of the box instead of the mask if a detection has both, and modifies its input.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, MaskError, PairingError, UsageError
from pixelwise.geometry.run_lengths import unpack
from pixelwise.metrics.boundary import boundary_band, boundary_width
from pixelwise.metrics.confusion import mean_defined

Kind = Literal["mask", "box", "boundary"]
Plain = Mapping[str, Any]
Entries = dict[Any, Plain]
Source = str | Path


@dataclass(frozen=True)
class AveragePrecision:
    """The COCO metrics, each in 0…1; NaN if the truth has no such object.

    AP is the mean over the IoU thresholds 0.50, 0.55 … 0.95 and over the categories with an object in the truth. Small objects
    have an area below 32² pixels, large ones above 96². Recalls (AR) are for at most 1, 10 or 100 detections per image and
    category.
    """

    kind: Kind
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_category: Mapping[int, float]
    """AP of each category by id; NaN for a category without an object in the truth."""
    images: int
    categories: int
    """Number of categories in the means."""


class _Coco(NamedTuple):
    """The parts of pycocotools in use: index, evaluation and run-length masks."""

    index: Any
    evaluation: Any
    masks: Any


def average_precision(
    truth: Plain | Source, detections: Sequence[Plain] | Source, kind: Kind = "mask", *, boundary_share: float = 0.02
) -> AveragePrecision:
    """Score detections over all images of the truth.

    Args:
        truth: `images` (id; height and width, not needed for boxes), `categories` (id) and `annotations` (image_id,
            category_id; optionally segmentation, bbox, area and iscrowd), or the path of such a JSON file.
            Segmentations are polygons, or compressed or uncompressed run lengths.
        detections: a list with image_id, category_id, score and segmentation or bbox, or the path of such a JSON file.
        kind: the IoU used for matching: of masks, of boxes, or the smaller of mask and boundary IoU (Cheng et al. 2021,
            arXiv:2103.16562).
        boundary_share: width of boundaries as a share of the image's diagonal.

    Raises:
        UsageError: an unknown kind, or the share is not a positive number.
        DataError: an unreadable file, a missing key, no images or categories, or repeated ids.
        PairingError: detections in images that are not in the truth.
        MaskError: segmentations that do not match their image, unknown categories, or invalid scores, boxes, areas or sizes.
    """
    if kind not in ("mask", "box", "boundary"):
        raise UsageError("kind", expected="mask, box or boundary", found=str(kind), do="Choose one of them.")
    coco = _pycocotools()
    true, found = _read(truth, "truth", Mapping), _read(detections, "detections", Sequence)
    images, known = _by_id(true, "images"), _by_id(true, "categories")
    sizes = [{"id": i, "height": one.get("height"), "width": one.get("width")} for i, one in images.items()]
    categories = [{"id": i} for i in known]
    sides = [
        _objects(annotations, images, known, kind, where, coco.masks)
        for annotations, where in ((_list(true, "annotations"), "truth"), (found, "detections"))
    ]
    with _quiet():
        indices = [_index(coco, {"images": sizes, "categories": categories, "annotations": side}) for side in sides]
        evaluation = coco.evaluation(*indices, iouType="bbox" if kind == "box" else "segm")
        if kind == "boundary":
            evaluation.computeIoU = _smaller_iou(evaluation, boundary_share, coco.masks)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return _result(kind, evaluation)


def _pycocotools() -> _Coco:
    from pycocotools import coco, cocoeval, mask

    return _Coco(coco.COCO, cocoeval.COCOeval, mask)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what pycocotools prints, and its deprecation warning for numpy arrays."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        yield


def _read(source: Any, name: str, kind: type) -> Any:
    """Return the content of a JSON file, or the value itself, if it is of the given kind."""
    where = name
    if isinstance(source, str | Path):
        where = str(source)
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problem = " ".join(str(error).split())[:160]
            expected = "a JSON file in COCO format"
            raise DataError(where, expected=expected, found=problem, do="Check the path.") from error
    if not isinstance(source, kind) or isinstance(source, str):
        raise DataError(
            where,
            expected="an object with images, categories and annotations" if kind is Mapping else "a list of detections",
            found=type(source).__name__,
            do="Pass truth and detections as for COCO's own evaluation.",
        )
    return source


def _get(one: Plain, key: str, where: str) -> Any:
    if not isinstance(one, Mapping) or key not in one:
        found = ", ".join(map(str, one)) if isinstance(one, Mapping) and one else "none"
        raise DataError(where, expected=f"the key {key!r}", found=found, do="See the COCO data format.")
    return one[key]


def _list(truth: Plain, key: str) -> Sequence[Any]:
    entries = _get(truth, key, "truth")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise DataError(f"truth: {key}", expected="a list", found=_short(entries), do="See the COCO data format.")
    return entries


def _by_id(truth: Plain, key: str) -> Entries:
    """Return the images or categories of the truth by id, in order."""
    where, entries = f"truth: {key}", Entries()
    for one in _list(truth, key):
        name = _get(one, "id", where)
        if name is None or not isinstance(name, Hashable) or name in entries:
            again = " twice" if isinstance(name, Hashable) and name in entries else ""
            raise DataError(
                where, expected="unique ids", found=f"{_short(name)}{again}", do="Give each entry its own id."
            )
        entries[name] = one
    if not entries:
        raise DataError(where, expected="one or more", found="none", do="Pass the truth that the detections belong to.")
    # pycocotools sorts ids with numpy, which would convert a mixture of numbers and strings to strings.
    if len({isinstance(name, str) for name in entries}) > 1:
        raise DataError(where, expected="ids of one type", found="strings and numbers", do="Use integers.")
    return entries


def _objects(
    annotations: Iterable[Plain], images: Entries, known: Entries, kind: Kind, side: str, masks: Any
) -> list[dict[str, Any]]:
    """Return annotations or detections as pycocotools needs them, as new dictionaries numbered from 1."""
    objects = []
    for number, one in enumerate(annotations, 1):
        name = f"{side}[{number - 1}]"
        image, category = _get(one, "image_id", name), _get(one, "category_id", name)
        if not isinstance(image, Hashable) or image not in images:
            fix = "Score detections against the truth of the same images."
            raise PairingError(name, expected="an image of the truth", found=f"image_id {image}", do=fix)
        if not isinstance(category, Hashable) or category not in known:
            expected, found = "one of the categories of the truth", f"category_id {category}"
            fix = "Use the category ids of the truth, not class indices."
            raise MaskError(name, expected=expected, found=found, do=fix)
        new = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
        if side == "truth":
            crowd = one.get("iscrowd", 0)
            new["iscrowd"] = int(_numbers([+crowd if isinstance(crowd, bool) else crowd], name, "iscrowd", high=1)[0])
        else:
            new["score"] = float(_numbers([_get(one, "score", name)], name, "score")[0])
        objects.append(new | _shape(one, images[image], kind, name, masks))
        if side == "truth" and "area" in one:
            objects[-1]["area"] = float(_numbers([one["area"]], name, "area")[0])
    return objects


class _Rule(NamedTuple):
    """What a key may hold: in words, the number of values (None: any), whether integers, the minimum; and the fix."""

    expected: str
    number: int | None
    integer: bool
    low: float
    fix: str = "See the COCO data format."


_RULES = {
    "score": _Rule("a finite score", 1, False, -math.inf, "Remove it, or add a score."),
    "iscrowd": _Rule("iscrowd 0 or 1", 1, True, 0),
    "area": _Rule("an area of at least 0", 1, False, 0, "Leave it out to have it computed, or use pixels."),
    "bbox": _Rule("a box of four finite numbers", 4, False, -math.inf, "Use left, top, width and height, in pixels."),
    "sides": _Rule("a box of width and height of at least 0", 2, False, 0, "Remove it, or order its corners."),
    "height": _Rule("a height of at least 1", 1, True, 1),
    "width": _Rule("a width of at least 1", 1, True, 1),
    "size": _Rule("a size of two integers", 2, True, 0, "Use height and width of the mask."),
    "counts": _Rule("run lengths of at least 0", None, True, 0, "Use the lengths of runs, starting with zeros."),
    "ring": _Rule("polygons of finite numbers", None, False, -math.inf, "Remove objects without a mask."),
}


def _numbers(values: Any, where: str, key: str, high: float = math.inf) -> NDArray[np.float64]:
    """Return the numbers (N,) of a key, or raise a `MaskError`: pycocotools crashes on some invalid values and scores others."""
    rule = _RULES[key]
    try:
        given = np.asarray(values)
    except ValueError:  # rows of unequal length
        given = np.asarray(None)
    numbers = given.astype(np.float64) if given.dtype.kind in "iuf" and given.ndim == 1 else np.full(1, np.nan)
    valid = np.isfinite(numbers) & (numbers >= rule.low) & (numbers <= high)
    if rule.integer:
        valid &= np.trunc(numbers) == numbers
    if not valid.all() or rule.number not in (None, numbers.size):
        found = _short(values[0] if rule.number == 1 else values)
        raise MaskError(where, expected=rule.expected, found=found, do=rule.fix)
    return numbers


def _short(value: Any) -> str:
    return " ".join(repr(value.tolist() if isinstance(value, np.ndarray) else value).split())[:60]


def _shape(one: Plain, image: Plain, kind: Kind, where: str, masks: Any) -> dict[str, Any]:
    """Return the mask or box of an object, and the area that determines its size class."""
    box = one.get("bbox")
    if kind == "box" and box is not None and not (isinstance(box, Sized) and not len(box)):
        corner = _numbers(box, where, "bbox")
        sides = _numbers(corner[2:], where, "sides")
        return {"bbox": corner.tolist(), "area": float(sides.prod())}
    rle = _run_lengths(_get(one, "segmentation", where), image, where, masks)
    area = float(masks.area(rle))
    if kind == "box":
        return {"bbox": [float(value) for value in masks.toBbox(rle)], "area": area}
    return {"segmentation": rle, "area": area}


def _run_lengths(segmentation: Any, image: Plain, where: str, masks: Any) -> Any:
    """Convert polygons or run lengths to compressed run lengths of the image's size."""
    place = "truth: images"
    height, width = (int(_numbers([_get(image, key, place)], place, key)[0]) for key in ("height", "width"))
    if isinstance(segmentation, Mapping):
        size = _numbers(_get(segmentation, "size", where), where, "size").astype(int).tolist()
        if size != [height, width]:
            expected, found = f"a mask of the image's size, {height} by {width}", f"{size[0]} by {size[1]}"
            raise MaskError(where, expected=expected, found=found, do="Use masks at native size, height first.")
        return _of_counts(_get(segmentation, "counts", where), size, where, masks)
    # pycocotools would take four numbers for a box.
    rings = [_numbers(ring, where, "ring") for ring in segmentation] if isinstance(segmentation, Sequence) else []
    if not rings or any(ring.size < 6 or ring.size % 2 for ring in rings):
        found, fix = json.dumps(segmentation, default=str)[:60], "Remove objects without a mask."
        raise MaskError(where, expected="polygons of three or more corners, or run lengths", found=found, do=fix)
    # pycocotools rasterises every edge: one that leads far outside the image exhausts the memory.
    reach = np.array([width, height]) * 1.5
    far = [ring for ring in rings if (np.abs(ring.reshape(-1, 2) - reach / 3) > reach).any()]
    if far:
        expected, fix = f"polygons in or near the image, {height} by {width}", "Use corners x, y in pixels."
        raise MaskError(where, expected=expected, found=_short(far[0]), do=fix)
    return masks.merge(masks.frPyObjects([ring.tolist() for ring in rings], height, width))


def _of_counts(counts: Any, size: list[int], where: str, masks: Any) -> Any:
    """Convert run lengths to compressed ones; they must fill the image."""
    plain = not isinstance(counts, str | bytes)
    runs = _numbers(counts, where, "counts") if plain else unpack(counts)
    if runs is None or (runs < 0).any() or runs.sum(dtype=np.float64) != size[0] * size[1]:
        expected = f"run lengths that add up to {size[0]} by {size[1]}, {size[0] * size[1]} pixels"
        found = _short(counts) if runs is None or (runs < 0).any() else f"{runs.sum(dtype=np.float64):.0f}"
        fix = "Use COCO run lengths, column by column."
        raise MaskError(where, expected=expected, found=found, do=fix)
    whole = {"size": size, "counts": runs.astype(int).tolist() if plain else counts}
    return masks.frPyObjects(whole, *size) if plain else whole


def _index(coco: _Coco, plain: dict[str, Any]) -> Any:
    index = coco.index()
    index.dataset = plain
    index.createIndex()
    return index


def _smaller_iou(evaluation: Any, share: float, masks: Any) -> Callable[[Any, Any], NDArray[np.float64]]:
    """Return a replacement for the IoU of masks: the smaller of mask and boundary IoU; mask IoU for crowds.

    Pairs whose mask IoU is below the lowest threshold cannot match, so their boundaries are not computed.
    """
    boundary_width((1, 1), share)  # validates the share even if no boundary is computed
    of_masks, lowest = evaluation.computeIoU, float(evaluation.params.iouThrs[0])

    def band(one: dict[str, Any]) -> Any:
        if "band" not in one:
            one["band"] = _boundary(one["segmentation"], share, masks)
        return one["band"]

    def smaller(image: Any, category: Any) -> NDArray[np.float64]:
        iou = np.array(of_masks(image, category), np.float64)
        if not iou.size:
            return iou
        true = evaluation._gts[image, category]
        # The rows of the matrix: sorted by score, stable.
        found = sorted(evaluation._dts[image, category], key=lambda one: -one["score"])[: len(iou)]
        near = (iou >= lowest) & np.array([not one["iscrowd"] for one in true])
        rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        if len(rows):
            bands = [band(found[row]) for row in rows], [band(true[column]) for column in columns]
            pairs = np.ix_(rows, columns)
            iou[pairs] = np.minimum(iou[pairs], masks.iou(*bands, [0] * len(columns)))
        return iou

    return smaller


def _boundary(rle: Any, share: float, masks: Any) -> Any:
    """Return the band along an object's boundary as run lengths, computed within its bounding box."""
    region = masks.decode(rle)
    left, top, width, height = (int(value) for value in masks.toBbox(rle))
    box = region[top : top + height, left : left + width]
    box[...] = boundary_band(box.astype(bool), boundary_width(region.shape, share))
    return masks.encode(region)


def _result(kind: Kind, evaluation: Any) -> AveragePrecision:
    # pycocotools returns -1 if there is nothing to average; its twelve numbers are in the order of the fields.
    stats = [float(value) if value > -1 else math.nan for value in evaluation.stats]
    numbers: dict[str, Any] = dict(zip([field.name for field in fields(AveragePrecision)][1:13], stats, strict=True))
    # Thresholds, recalls, categories, areas (the first: all), detections per image (the last: 100).
    precision = np.where(evaluation.eval["precision"] > -1, evaluation.eval["precision"], np.nan)[:, :, :, 0, -1]
    means = mean_defined(precision.reshape(-1, precision.shape[2]).T)
    return AveragePrecision(
        kind=kind,
        **numbers,
        per_category=dict(zip(np.asarray(evaluation.params.catIds).tolist(), means.tolist(), strict=True)),
        images=len(evaluation.params.imgIds),
        categories=int((~np.isnan(means)).sum()),
    )
