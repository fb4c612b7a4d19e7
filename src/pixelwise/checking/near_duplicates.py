"""Checks for duplicated images: identical files and near-duplicates, within a split or across splits.

The distance of two images is 1 - the correlation of their signatures. Near-duplicates are at most 0.02 apart, and at most
a twentieth of the typical distance in the data set: retina photographs all look similar without being copies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import Finding, Pair, count_by_split, grouping_advice, pair_finding, plural
from pixelwise.checking.image_signature import typical_distance, unpack
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Survey

_LIMIT, _TYPICAL_SHARE = 0.02, 0.05
_BLOCK = 4096
_NONE = 9.0  # distance of images without a neighbour
_LEAK = "Scores on images seen in training are too optimistic."


class Nearest(NamedTuple):
    """Index of the nearest other image (`neighbour`) of each image, -1 if none is within the limit, and its distance."""

    neighbour: NDArray[np.int64]
    distance: NDArray[np.float32]

    def update(self, rows: slice, columns: slice, distance: NDArray[np.float32], limit: float) -> None:
        """Replace neighbours by nearer ones in a block of distances (rows, columns)."""
        place = distance.argmin(1)
        found = distance[np.arange(len(distance)), place]
        nearer = (found <= limit) & (found < self.distance[rows])
        self.neighbour[rows][nearer] = place[nearer] + columns.start
        self.distance[rows][nearer] = found[nearer]


def nearest(vectors: NDArray[np.float32], splits: Sequence[str], limit: float) -> tuple[Nearest, Nearest]:
    """Find the nearest image of the same split and of any other split, by comparing all pairs block by block.

    Args:
        vectors: (N, D) of length 1.
        splits: the split of each image; images of one split are adjacent.
        limit: greatest distance of neighbours.
    """
    count = len(vectors)
    inside, across = (Nearest(np.full(count, -1), np.full(count, _NONE, np.float32)) for _ in range(2))
    borders = [0, *(k for k in range(1, count) if splits[k] != splits[k - 1]), count]
    blocks = [
        slice(start, min(start + _BLOCK, end))
        for begin, end in itertools.pairwise(borders)
        for start in range(begin, end, _BLOCK)
    ]
    for rows, columns in itertools.combinations_with_replacement(blocks, 2):
        correlation = vectors[rows] @ vectors[columns].T
        if rows == columns:
            np.fill_diagonal(correlation, -1)
        if correlation.max() >= 1 - limit:
            distance = np.clip(1 - correlation, 0, _NONE)
            found = inside if splits[rows.start] == splits[columns.start] else across
            found.update(rows, columns, distance, limit)
            found.update(columns, rows, distance.T, limit)
    return inside, across


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


def near_duplicates(survey: Survey) -> Iterator[Finding]:
    """Find images that look nearly the same: resized or recompressed copies, consecutive video frames."""
    images = [image for image in survey.usable if image.signature]
    if len(images) < 2:
        return
    vectors = unpack([image.signature for image in images])
    typical = typical_distance(vectors, _identity(images))
    limit = min(_LIMIT, _TYPICAL_SHARE * typical)
    inside, across = nearest(vectors, [image.split for image in images], limit)
    total = len(survey.inspections)
    pairs, closest = _pairs(survey, images, across)
    if pairs:
        affected = _affected(survey, pairs)
        what = f"{len(affected)} of {total} images look nearly the same as an image of another split"
        what += f" ({count_by_split(affected)})"
        ratio = typical / max(closest, 1e-6)
        times = "over a thousand times" if ratio > 1000 else f"{ratio:.0f} times"
        why = f"{_LEAK} Two images of this data set typically differ {times} as much as the closest of these pairs."
        fix = f"Remove them; or keep them in one split: {grouping_advice(survey, pairs)}."
        kind = "near-duplicates-across-parts"
        yield pair_finding(survey, kind, "warning", pairs, what, why, fix, count=len(affected), of=total)
    pairs, _ = _pairs(survey, images, inside)
    if pairs:
        affected = _affected(survey, pairs)
        what = f"{len(affected)} of {total} images look nearly the same as another image of their split"
        what += f" ({count_by_split(affected)})"
        why = (
            "They add little information and make confidence intervals too narrow; a random split would separate them."
        )
        fix = "Nothing, if they are frames or exposures of one scene and stay in one split; otherwise keep one of each."
        yield pair_finding(survey, "near-duplicates", "notice", pairs, what, why, fix, count=len(affected), of=total)


def _identity(images: Sequence[Inspection]) -> NDArray[np.int64]:
    """Number the images; identical files get the same number."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(image.digest or str(k).encode(), k) for k, image in enumerate(images)])


def _pairs(survey: Survey, images: Sequence[Inspection], found: Nearest) -> tuple[list[Pair], float]:
    """Return each pair once, the closest first, and the least distance; without copies and pieces of one file."""
    pairs: dict[tuple[int, int], float] = {}
    for k in np.flatnonzero(found.neighbour >= 0).tolist():
        other = int(found.neighbour[k])
        identical = images[k].digest and images[k].digest == images[other].digest
        if not identical and survey.record(images[k]).image != survey.record(images[other]).image:
            pairs[min(k, other), max(k, other)] = float(found.distance[k])
    order = sorted(pairs, key=lambda pair: (pairs[pair], pair))
    return [(images[first], images[second]) for first, second in order], min(pairs.values(), default=_NONE)


def _affected(survey: Survey, pairs: Sequence[Pair]) -> list[Inspection]:
    """List the images that occur in any pair, in the order of the survey."""
    examples = {image.example for pair in pairs for image in pair}
    return [image for image in survey.usable if image.example in examples]


CHECKS = (identical_images, near_duplicates)
