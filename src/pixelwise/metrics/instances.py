"""How well objects were found: average precision of masks, boxes and boundaries, as COCO defines it.

Comes in: annotations and detections as plain COCO dictionaries, or the JSON files that hold them. Goes out: the twelve
numbers of COCO and AP per category. Knows nothing of pictures or models.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, MaskError, PairingError, UsageError
from pixelwise.metrics.boundary import boundary_band, boundary_width
from pixelwise.metrics.confusion import mean_defined

Kind = Literal["mask", "box", "boundary"]
Plain = Mapping[str, Any]
Source = str | Path


@dataclass(frozen=True)
class AveragePrecision:
    """The numbers of COCO, each in 0…1; NaN where no object of the truth calls for it.

    AP is the mean over the IoU thresholds 0.50, 0.55 … 0.95 and over the categories with an object in the truth. Small
    objects have an area below 32² pixels, large ones above 96². Recalls (AR) are at most 1, 10 or 100 detections per
    picture and category.
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
    """Score detections over all pictures of the truth.

    Args:
        truth: `images` (id; height and width unless for boxes), `categories` (id) and `annotations` (image_id,
            category_id; segmentation, bbox, area and iscrowd as far as there are), or the path of a JSON file of it.
            Segmentations are polygons, or run lengths with or without compression.
        detections: a list with image_id, category_id, score and segmentation or bbox, or the path of a JSON file of it.
        kind: which IoU is matched: of masks, of boxes, or the smaller one of mask and boundary IoU (Cheng et al. 2021,
            arXiv:2103.16562).
        boundary_share: width of boundaries as a share of the picture's diagonal.

    Raises:
        UsageError: pycocotools is not installed, a kind that is none, or a share that is no positive number.
        DataError: a file that cannot be read, or a key that is missing.
        PairingError: detections in pictures that the truth does not have.
        MaskError: segmentations that fit no picture, unknown categories, scores that are no numbers.

    """
    if kind not in ("mask", "box", "boundary"):
        raise UsageError("kind", expected="mask, box or boundary", found=str(kind), do="Choose one of them.")
    coco = _pycocotools()
    true, found = _read(truth, "truth", Mapping), _read(detections, "detections", Sequence)
    images = {_get(one, "id", "truth: images"): one for one in _get(true, "images", "truth")}
    categories = [{"id": _get(one, "id", "truth: categories")} for one in _get(true, "categories", "truth")]
    sizes = [{"id": i, "height": one.get("height"), "width": one.get("width")} for i, one in images.items()]
    known = {one["id"] for one in categories}
    sides = [
        _objects(annotations, images, known, kind, where, coco.masks)
        for annotations, where in ((_get(true, "annotations", "truth"), "truth"), (found, "detections"))
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
        raise UsageError(
            "average precision",
            expected="pycocotools",
            found="it is not installed",
            do="Say: pip install 'pixelwise[instances]'.",
        ) from error
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


def _objects(
    annotations: Iterable[Plain], images: Mapping[Any, Plain], known: set[Any], kind: Kind, where: str, masks: Any
) -> list[dict[str, Any]]:
    """Give annotations or detections with all that pycocotools reads, in new dictionaries, numbered from 1."""
    objects = []
    for number, one in enumerate(annotations, 1):
        name = f"{where}[{number - 1}]"
        image, category = _get(one, "image_id", name), _get(one, "category_id", name)
        if image not in images:
            raise PairingError(
                name,
                expected="a picture of the truth",
                found=f"image_id {image}",
                do="Score detections against the truth of the same pictures.",
            )
        if category not in known:
            raise MaskError(
                name,
                expected="one of the categories of the truth",
                found=f"category_id {category}",
                do="Give category ids, not class indices, and those of the truth.",
            )
        new = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
        if where == "truth":
            new["iscrowd"] = int(one.get("iscrowd", 0))
        else:
            new["score"] = _score(_get(one, "score", name), name)
        objects.append(new | _shape(one, images[image], kind, name, masks))
        if where == "truth" and "area" in one:
            objects[-1]["area"] = one["area"]
    return objects


def _score(score: Any, where: str) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float | np.number) or not math.isfinite(score):
        raise MaskError(where, expected="a finite score", found=repr(score), do="Remove it, or give it a score.")
    return float(score)


def _shape(one: Plain, image: Plain, kind: Kind, where: str, masks: Any) -> dict[str, Any]:
    """Give mask or box of an object, and the area that decides whether it is small."""
    if kind == "box" and one.get("bbox"):
        box = [float(value) for value in one["bbox"]]
        return {"bbox": box, "area": box[2] * box[3]}
    rle = _run_lengths(_get(one, "segmentation", where), image, where, masks)
    area = float(masks.area(rle))
    if kind == "box":
        return {"bbox": [float(value) for value in masks.toBbox(rle)], "area": area}
    return {"segmentation": rle, "area": area}


def _run_lengths(segmentation: Any, image: Plain, where: str, masks: Any) -> Any:
    """Give polygons or run lengths as compressed run lengths of the picture's size."""
    height, width = (int(_get(image, key, "truth: images")) for key in ("height", "width"))
    if isinstance(segmentation, Mapping):
        size = [int(value) for value in _get(segmentation, "size", where)]
        if size != [height, width]:
            raise MaskError(
                where,
                expected=f"a mask of the picture's size, {height} by {width}",
                found=f"{size[0]} by {size[1]}",
                do="Give masks at native size, height first.",
            )
        counts = _get(segmentation, "counts", where)
        whole = {"size": size, "counts": counts}
        return masks.frPyObjects(whole, height, width) if isinstance(counts, list) else whole
    # Four numbers would be taken for a box.
    if not isinstance(segmentation, Sequence) or not segmentation or any(len(ring) < 6 for ring in segmentation):
        raise MaskError(
            where,
            expected="polygons of three corners or more, or run lengths",
            found=json.dumps(segmentation, default=str)[:60],
            do="Remove objects without a mask.",
        )
    return masks.merge(masks.frPyObjects([list(map(float, ring)) for ring in segmentation], height, width))


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
    # Thresholds, recalls, categories, areas (the first: all), detections per picture (the last: 100).
    precision = np.where(evaluation.eval["precision"] > -1, evaluation.eval["precision"], np.nan)[:, :, :, 0, -1]
    means = mean_defined(precision.reshape(-1, precision.shape[2]).T)
    return AveragePrecision(
        kind=kind,
        **numbers,
        per_category=dict(zip(np.asarray(evaluation.params.catIds).tolist(), means.tolist(), strict=True)),
        images=len(evaluation.params.imgIds),
        categories=int((~np.isnan(means)).sum()),
    )
