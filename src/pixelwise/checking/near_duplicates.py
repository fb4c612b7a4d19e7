"""Checks for duplicated images: identical files and near-duplicates, within a split or across splits.

The distance of two images is 1 - the correlation of their signatures, the largest over the eight symmetries of the square.
Near-duplicates are at most 0.02 apart, and at most a twentieth of the typical distance in the data set: retina photographs
all look similar without being copies. Cropped copies are searched across splits only, with a lower limit, since the crop is
chosen so that it fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.crop_search import nearest_crops
from pixelwise.checking.findings import Finding, Pair, count_by_split, grouping_advice, pair_finding, plural
from pixelwise.checking.image_signature import unpack
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.signature_search import SYMMETRIES, Nearest, correlations, nearest, typical_distance
from pixelwise.checking.survey import Survey

_LIMIT, _TYPICAL_SHARE = 0.02, 0.05
_CROP_REACH, _TYPICAL_REACH, _TYPICAL_CROP_SHARE = 0.25, 0.35, 0.03
_AT_ONCE = 1 << 16  # pairs compared at once
_LEAK = "Scores on images seen in training are too optimistic."


def identical_images(survey: Survey) -> Iterator[Finding]:
    """Find identical image files: across splits, within a split, and with different masks."""
    across: list[Pair] = []
    inside: list[Pair] = []
    different_masks: list[Pair] = []
    for first, *others in _identical(survey.inspections):
        across += [(first, other) for other in others if other.split != first.split]
        inside += [(first, other) for other in others if other.split == first.split]
        masked = [image for image in (first, *others) if image.mask_digest]
        different_masks += [(masked[0], other) for other in masked[1:] if other.mask_digest != masked[0].mask_digest]
    total = len(survey.inspections)
    if across:
        what = f"{plural(len(across), 'image is', 'images are')} in more than one split"
        fix = f"Keep one copy of each; or {grouping_advice(survey, across)}."
        yield pair_finding(
            survey, "same-pictures-across-parts", "warning", across, what, _LEAK, fix, of=total, sign="="
        )
    if inside:
        what = f"{plural(len(inside), 'image is a copy', 'images are copies')} of another image of the same split"
        why = "Copies count twice and make confidence intervals too narrow."
        fix = "Keep one copy of each."
        yield pair_finding(survey, "same-pictures", "notice", inside, what, why, fix, of=total, sign="=")
    if different_masks:
        what = f"{plural(len(different_masks), 'image occurs', 'images occur')} again with a different mask"
        why = "At least one of the masks is wrong: the model is trained on contradictory labels."
        fix = "Compare the masks and keep the better one."
        kind = "same-picture-different-masks"
        yield pair_finding(survey, kind, "warning", different_masks, what, why, fix, of=total, sign="=")


def _identical(images: Sequence[Inspection]) -> list[list[Inspection]]:
    """Group the images whose files are identical."""
    groups: dict[bytes, list[Inspection]] = {}
    for image in images:
        if image.digest:
            groups.setdefault(image.digest, []).append(image)
    return [group for group in groups.values() if len(group) > 1]


class _NearPairs(NamedTuple):
    """Pairs of near-duplicates, the closest first; how the second image was made of the first; and the least distance."""

    pairs: list[Pair]
    changes: list[str]
    least: float

    def describe(self, affected: Sequence[Inspection]) -> str:
        """Return how many images are affected per split, and how many pairs are turned, mirrored or cropped."""
        count = sum(map(bool, self.changes))
        changes = (
            f"; {count} of {plural(len(self.pairs), 'pair', 'pairs')} turned, mirrored or cropped" if count else ""
        )
        return f"({count_by_split(affected)}{changes})"


def near_duplicates(survey: Survey) -> Iterator[Finding]:
    """Find images that look nearly the same: turned, mirrored, resized or recompressed copies, consecutive video frames."""
    images = [image for image in survey.usable if image.signature]
    if len(images) < 2:
        return
    vectors = unpack([image.signature for image in images])
    typical = typical_distance(vectors, _identity(images))
    limit = min(_LIMIT, _TYPICAL_SHARE * typical)
    splits = [image.split for image in images]
    inside, across = nearest(vectors, splits, limit)
    reach, crop_limit = min(_CROP_REACH, _TYPICAL_REACH * typical), min(_LIMIT, _TYPICAL_CROP_SHARE * typical)
    crops = nearest_crops(vectors, splits, reach, crop_limit, across)
    total = len(survey.inspections)
    near = _near_pairs(survey, images, vectors, limit, across, crops)
    if near.pairs:
        affected = _affected(survey, near.pairs)
        what = f"{len(affected)} of {total} images look nearly the same as an image of another split"
        what += f" {near.describe(affected)}"
        ratio = typical / max(near.least, 1e-6)
        times = "over a thousand times" if ratio > 1000 else f"{ratio:.0f} times"
        why = f"{_LEAK} Two images of this data set typically differ {times} as much as the closest of these pairs."
        fix = f"Remove them; or keep them in one split: {grouping_advice(survey, near.pairs)}."
        kind, count = "near-duplicates-across-parts", len(affected)
        yield pair_finding(
            survey, kind, "warning", near.pairs, what, why, fix, count=count, of=total, notes=near.changes
        )
    near = _near_pairs(survey, images, vectors, limit, inside)
    if near.pairs:
        affected = _affected(survey, near.pairs)
        what = f"{len(affected)} of {total} images look nearly the same as another image of their split"
        what += f" {near.describe(affected)}"
        why = (
            "They add little information and make confidence intervals too narrow; a random split would separate them."
        )
        fix = "Nothing, if they are frames or exposures of one scene and stay in one split; otherwise keep one of each."
        kind, count = "near-duplicates", len(affected)
        yield pair_finding(
            survey, kind, "notice", near.pairs, what, why, fix, count=count, of=total, notes=near.changes
        )


def _identity(images: Sequence[Inspection]) -> NDArray[np.int64]:
    """Number the images; identical files get the same number."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(image.digest or str(k).encode(), k) for k, image in enumerate(images)])


def _near_pairs(
    survey: Survey,
    images: Sequence[Inspection],
    vectors: NDArray[np.float32],
    limit: float,
    found: Nearest,
    crops: Nearest | None = None,
) -> _NearPairs:
    """Return each pair once, the closest first."""
    near = _distances(survey, images, found)
    distances = near if crops is None else _distances(survey, images, crops) | near
    order = sorted(distances, key=lambda pair: (distances[pair], pair))
    if not order:
        return _NearPairs([], [], limit)
    changes = [
        ", ".join(filter(None, (turned, "cropped" if pair not in near else "")))
        for turned, pair in zip(_turned(vectors, np.array(order), limit), order, strict=True)
    ]
    return _NearPairs([(images[first], images[second]) for first, second in order], changes, distances[order[0]])


def _distances(survey: Survey, images: Sequence[Inspection], found: Nearest) -> dict[tuple[int, int], float]:
    """Return the distance of each pair of neighbours, without copies and pieces of one file."""
    distances = {}
    for k in np.flatnonzero(found.neighbour >= 0).tolist():
        other = int(found.neighbour[k])
        identical = images[k].digest and images[k].digest == images[other].digest
        if not identical and survey.record(images[k]).image != survey.record(images[other]).image:
            distances[min(k, other), max(k, other)] = float(found.distance[k])
    return distances


def _turned(vectors: NDArray[np.float32], pairs: NDArray[np.int64], limit: float) -> list[str]:
    """Return what turns the first image of each pair into the second; "" if they are about as similar as they are."""
    names = []
    for start in range(0, len(pairs), _AT_ONCE):
        first, second = pairs[start : start + _AT_ONCE].T
        near = correlations(vectors[first], vectors[second])
        # An image that is nearly symmetric resembles its mirrored copies, too.
        unchanged = near[:, 0] >= near.max(axis=1) - limit
        names += [SYMMETRIES[k] for k in np.where(unchanged, 0, near.argmax(axis=1)).tolist()]
    return names


def _affected(survey: Survey, pairs: Sequence[Pair]) -> list[Inspection]:
    """List the images that occur in any pair, in the order of the survey."""
    examples = {image.example for pair in pairs for image in pair}
    return [image for image in survey.usable if image.example in examples]


CHECKS = (identical_images, near_duplicates)
