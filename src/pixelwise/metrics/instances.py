"""How well objects were found: average precision of masks, boxes and boundaries, as COCO defines it.

Comes in: annotations and detections as plain COCO dictionaries, or the JSON files that hold them. Goes out: the twelve
numbers of COCO and AP per category. Knows nothing of images or models.

Matching and averaging are those of pycocotools, an optional extra, so that the numbers are those that papers print
(Lin et al. 2014, arXiv:1405.0312). What it is given is put in order first: pycocotools takes an annotation with id 0
for "no match", the area of the box for that of the mask where a detection has both, and writes into its input.
"""

from __future__ import annotations

import importlib
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
    """The numbers of COCO, each in 0…1; NaN where no object of the truth calls for it.

    AP is the mean over the IoU thresholds 0.50, 0.55 … 0.95 and over the categories with an object in the truth. Small
    objects have an area below 32² pixels, large ones above 96². Recalls (AR) are at most 1, 10 or 100 detections per
    image and category.
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
    """AP of each category by its id; NaN for one without an object in the truth."""
    images: int
    categories: int
    """How many categories the means are taken over."""


class _Coco(NamedTuple):
    """What is used of pycocotools: its index, its evaluation, its run-length masks."""

    index: Any
    evaluation: Any
    masks: Any


def average_precision(
    truth: Plain | Source, detections: Sequence[Plain] | Source, kind: Kind = "mask", *, boundary_share: float = 0.02
) -> AveragePrecision:
    """Score detections over all images of the truth.

    Args:
        truth: `images` (id; height and width unless for boxes), `categories` (id) and `annotations` (image_id,
            category_id; segmentation, bbox, area and iscrowd as far as there are), or the path of a JSON file of it.
            Segmentations are polygons, or run lengths with or without compression.
        detections: a list with image_id, category_id, score and segmentation or bbox, or the path of a JSON file of it.
        kind: which IoU is matched: of masks, of boxes, or the smaller one of mask and boundary IoU (Cheng et al. 2021,
            arXiv:2103.16562).
        boundary_share: width of boundaries as a share of the image's diagonal.

    Raises:
        UsageError: pycocotools is not installed, a kind that is none, or a share that is no positive number.
        DataError: a file that cannot be read, a key that is missing, no images or categories, or ids that stand twice.
        PairingError: detections in images that the truth does not have.
        MaskError: segmentations that fit no image, unknown categories; scores, boxes, areas and sizes that are no
            finite numbers of their kind.

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
    # Named at run time: an optional extra must not be needed by whoever imports or checks this module.
    try:
        modules = [importlib.import_module(f"pycocotools.{name}") for name in ("coco", "cocoeval", "mask")]
    except ImportError as error:
        found, fix = "it is not installed", "Say: pip install pycocotools."
        raise UsageError("average precision", expected="pycocotools", found=found, do=fix) from error
    return _Coco(modules[0].COCO, modules[1].COCOeval, modules[2])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pycocotools prints off standard output, and its older way with numpy arrays off the warnings."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        yield


def _read(source: Any, name: str, kind: type) -> Any:
    """Give what a path leads to, or the thing itself, if it is of the kind."""
    where = name
    if isinstance(source, str | Path):
        where = str(source)
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())[:160]
            raise DataError(where, expected="a JSON file in COCO's format", found=said, do="Check the path.") from error
    if not isinstance(source, kind) or isinstance(source, str):
        raise DataError(
            where,
            expected="an object with images, categories and annotations" if kind is Mapping else "a list of detections",
            found=type(source).__name__,
            do="Give truth and detections as COCO's own evaluation takes them.",
        )
    return source


def _get(one: Plain, key: str, where: str) -> Any:
    if not isinstance(one, Mapping) or key not in one:
        found = ", ".join(map(str, one)) if isinstance(one, Mapping) and one else "none"
        raise DataError(where, expected=f"the key {key!r}", found=found, do="See COCO's data format.")
    return one[key]


def _list(truth: Plain, key: str) -> Sequence[Any]:
    entries = _get(truth, key, "truth")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise DataError(f"truth: {key}", expected="a list", found=_short(entries), do="See COCO's data format.")
    return entries


def _by_id(truth: Plain, key: str) -> Entries:
    """Give the images or categories of the truth by their ids, in their order."""
    where, entries = f"truth: {key}", Entries()
    for one in _list(truth, key):
        name = _get(one, "id", where)
        if name is None or not isinstance(name, Hashable) or name in entries:
            again = " twice" if isinstance(name, Hashable) and name in entries else ""
            raise DataError(where, expected="ids, each once", found=f"{_short(name)}{again}", do="Give each its own.")
        entries[name] = one
    if not entries:
        raise DataError(where, expected="one or more", found="none", do="Give the truth that the detections belong to.")
    # pycocotools sorts them: numbers beside words would become words, and lose what they name.
    if len({isinstance(name, str) for name in entries}) > 1:
        raise DataError(where, expected="ids of one kind", found="words beside numbers", do="Give whole numbers.")
    return entries


def _objects(
    annotations: Iterable[Plain], images: Entries, known: Entries, kind: Kind, side: str, masks: Any
) -> list[dict[str, Any]]:
    """Give annotations or detections with all that pycocotools reads, in new dictionaries, numbered from 1."""
    objects = []
    for number, one in enumerate(annotations, 1):
        name = f"{side}[{number - 1}]"
        image, category = _get(one, "image_id", name), _get(one, "category_id", name)
        if not isinstance(image, Hashable) or image not in images:
            fix = "Score detections against the truth of the same images."
            raise PairingError(name, expected="an image of the truth", found=f"image_id {image}", do=fix)
        if not isinstance(category, Hashable) or category not in known:
            wanted, found = "one of the categories of the truth", f"category_id {category}"
            fix = "Give category ids, not class indices, and those of the truth."
            raise MaskError(name, expected=wanted, found=found, do=fix)
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
    """Say what numbers a key holds: in words, how many (None: any number), whether whole, from where on; and the fix."""

    words: str
    number: int | None
    whole: bool
    low: float
    fix: str = "See COCO's data format."


_RULES = {
    "score": _Rule("a finite score", 1, False, -math.inf, "Remove it, or give it a score."),
    "iscrowd": _Rule("iscrowd 0 or 1", 1, True, 0),
    "area": _Rule("an area from 0 on", 1, False, 0, "Leave it out to have it counted, or give pixels."),
    "bbox": _Rule("a box of four finite numbers", 4, False, -math.inf, "Give left, top, width and height, in pixels."),
    "sides": _Rule("a box of a width and height from 0 on", 2, False, 0, "Remove it, or give it corners in order."),
    "height": _Rule("a height from 1 on", 1, True, 1),
    "width": _Rule("a width from 1 on", 1, True, 1),
    "size": _Rule("a size of two whole numbers", 2, True, 0, "Give height and width of the mask."),
    "counts": _Rule("run lengths from 0 on", None, True, 0, "Give the lengths of runs, those of zeros first."),
    "ring": _Rule("polygons of finite numbers", None, False, -math.inf, "Remove objects without a mask."),
}


def _numbers(values: Any, where: str, key: str, high: float = math.inf) -> NDArray[np.float64]:
    """Give the numbers (N,) of a key, or refuse what they should not be: pycocotools crashes on some, and scores others."""
    rule = _RULES[key]
    try:
        given = np.asarray(values)
    except ValueError:  # rows of unequal length
        given = np.asarray(None)
    numbers = given.astype(np.float64) if given.dtype.kind in "iuf" and given.ndim == 1 else np.full(1, np.nan)
    # Written so that NaN fails, too.
    whole = np.trunc(numbers) == numbers if rule.whole else True
    good = np.isfinite(numbers) & (numbers >= rule.low) & (numbers <= high) & whole
    if not good.all() or rule.number not in (None, numbers.size):
        found = _short(values[0] if rule.number == 1 else values)
        raise MaskError(where, expected=rule.words, found=found, do=rule.fix)
    return numbers


def _short(value: Any) -> str:
    return " ".join(repr(value.tolist() if isinstance(value, np.ndarray) else value).split())[:60]


def _shape(one: Plain, image: Plain, kind: Kind, where: str, masks: Any) -> dict[str, Any]:
    """Give mask or box of an object, and the area that decides whether it is small."""
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
    """Give polygons or run lengths as compressed run lengths of the image's size."""
    place = "truth: images"
    height, width = (int(_numbers([_get(image, key, place)], place, key)[0]) for key in ("height", "width"))
    if isinstance(segmentation, Mapping):
        size = _numbers(_get(segmentation, "size", where), where, "size").astype(int).tolist()
        if size != [height, width]:
            wanted, found = f"a mask of the image's size, {height} by {width}", f"{size[0]} by {size[1]}"
            raise MaskError(where, expected=wanted, found=found, do="Give masks at native size, height first.")
        return _of_counts(_get(segmentation, "counts", where), size, where, masks)
    # Four numbers would be taken for a box.
    rings = [_numbers(ring, where, "ring") for ring in segmentation] if isinstance(segmentation, Sequence) else []
    if not rings or any(ring.size < 6 or ring.size % 2 for ring in rings):
        found, fix = json.dumps(segmentation, default=str)[:60], "Remove objects without a mask."
        raise MaskError(where, expected="polygons of three corners or more, or run lengths", found=found, do=fix)
    # pycocotools walks along every edge: one that leads to nowhere takes all memory.
    reach = np.array([width, height]) * 1.5
    far = [ring for ring in rings if (np.abs(ring.reshape(-1, 2) - reach / 3) > reach).any()]
    if far:
        wanted, fix = f"polygons in or near the image, {height} by {width}", "Give corners x, y in its pixels."
        raise MaskError(where, expected=wanted, found=_short(far[0]), do=fix)
    return masks.merge(masks.frPyObjects([ring.tolist() for ring in rings], height, width))


def _of_counts(counts: Any, size: list[int], where: str, masks: Any) -> Any:
    """Give run lengths, compressed or not, as compressed ones; they must fill the image."""
    plain = not isinstance(counts, str | bytes)
    runs = _numbers(counts, where, "counts") if plain else unpack(counts)
    if runs is None or (runs < 0).any() or runs.sum(dtype=np.float64) != size[0] * size[1]:
        wanted = f"run lengths that add up to {size[0]} by {size[1]}, {size[0] * size[1]} pixels"
        found = _short(counts) if runs is None or (runs < 0).any() else f"{runs.sum(dtype=np.float64):.0f}"
        fix = "Give run lengths as COCO writes them, column by column."
        raise MaskError(where, expected=wanted, found=found, do=fix)
    whole = {"size": size, "counts": runs.astype(int).tolist() if plain else counts}
    return masks.frPyObjects(whole, *size) if plain else whole


def _index(coco: _Coco, plain: dict[str, Any]) -> Any:
    index = coco.index()
    index.dataset = plain
    index.createIndex()
    return index


def _smaller_iou(evaluation: Any, share: float, masks: Any) -> Callable[[Any, Any], NDArray[np.float64]]:
    """Give what replaces the IoU of masks: the smaller one of mask and boundary IoU; for crowds that of masks.

    Pairs whose masks do not reach the lowest threshold match nothing whatever their boundaries do, so that only
    the boundaries of likely partners are ever drawn, each once.
    """
    boundary_width((1, 1), share)  # refuses a bad share even where no pair comes near
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
        # The rows of the matrix: the best first, ties as they came.
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
    """Give the band along an object's boundary as run lengths; only the box around the object is looked at."""
    region = masks.decode(rle)
    left, top, width, height = (int(value) for value in masks.toBbox(rle))
    box = region[top : top + height, left : left + width]
    box[...] = boundary_band(box.astype(bool), boundary_width(region.shape, share))
    return masks.encode(region)


def _result(kind: Kind, evaluation: Any) -> AveragePrecision:
    # pycocotools writes -1 where there is nothing to average; its twelve numbers have the order of the fields.
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
