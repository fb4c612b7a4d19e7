"""Checks on what is twice in a data set: copies and near copies, in one part or across parts, with one mask or two.

Comes in: a `Survey`. Goes out: findings. Knows nothing of names and of what classes are.

Near is what looks alike from afar to within 0.02 of a correlation of 1, and is at least twenty times as alike as two images
of the set usually are: photographs of retinas are all round and dark outside, and none of them is a copy for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import Finding, some
from pixelwise.checking.image_signature import unpack
from pixelwise.checking.inspection import Seen
from pixelwise.checking.near_duplicates import nearest, usual_distance
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import Twins, by_split, in_groups, tell_pairs

_NEAR, _OF_USUAL = 0.02, 0.05
_LEAK = "What is scored was learned by heart: scores look better than the model is."


def copies(survey: Survey) -> Iterator[Finding]:
    """Find images whose files are equal, byte for byte: across parts, in one part, and with different masks."""
    across, inside, torn = [], [], []
    for group in _equal(survey.seen):
        first = group[0]
        across += [(first, one) for one in group[1:] if one.split != first.split]
        inside += [(first, one) for one in group[1:] if one.split == first.split]
        masked = [one for one in group if one.mask_digest]
        torn += [(masked[0], one) for one in masked[1:] if one.mask_digest != masked[0].mask_digest]
    if across:
        what = f"{some(len(across), 'image lies', 'images lie')} in more than one part"
        fix = f"Keep one of each; or {in_groups(survey, across)}."
        yield tell_pairs(
            survey, "same-pictures-across-parts", "warning", across, what, _LEAK, fix, of=len(survey.seen), sign="="
        )
    if inside:
        what = f"{some(len(inside), 'image is a copy', 'images are copies')} of another in the same part"
        why = "They weigh double, and make intervals narrower than they are."
        yield tell_pairs(
            survey, "same-pictures", "notice", inside, what, why, "Keep one of each.", of=len(survey.seen), sign="="
        )
    if torn:
        what = f"{some(len(torn), 'image is', 'images are')} there again with another mask"
        why = "One of the masks is wrong, or both are: the model is told two things about one image."
        fix = "Compare the masks, and keep the better one."
        yield tell_pairs(
            survey, "same-picture-different-masks", "warning", torn, what, why, fix, of=len(survey.seen), sign="="
        )


def _equal(seen: Sequence[Seen]) -> list[list[Seen]]:
    """Gather the images of equal files."""
    same: dict[bytes, list[Seen]] = {}
    for one in seen:
        if one.digest:
            same.setdefault(one.digest, []).append(one)
    return [group for group in same.values() if len(group) > 1]


def near_copies(survey: Survey) -> Iterator[Finding]:
    """Find images that look nearly the same: resized, compressed again, the next frame of a video."""
    seen = [one for one in survey.good if one.waves]
    if len(seen) < 2:
        return
    vectors = unpack([one.waves for one in seen])
    usual = usual_distance(vectors, _numbered(seen))
    limit = min(_NEAR, _OF_USUAL * usual)
    inside, across = nearest(vectors, [one.split for one in seen], limit)
    pairs = _pairs(survey, seen, across.place, across.distance)
    total = len(survey.seen)
    if pairs:
        touched = _touched(pairs)
        what = f"{len(touched)} of {total} images look nearly the same as one of another part ({by_split(touched)})"
        why = f"{_LEAK} Two images here usually differ {_times(usual, pairs[0][0])} as much as the closest of these."
        twins = [twins for _, twins in pairs]
        fix = f"Take them out; or keep them in one part: {in_groups(survey, twins)}."
        yield tell_pairs(
            survey, "near-duplicates-across-parts", "warning", twins, what, why, fix, count=len(touched), of=total
        )
    pairs = _pairs(survey, seen, inside.place, inside.distance)
    if pairs:
        touched = _touched(pairs)
        what = f"{len(touched)} of {total} images look nearly the same as another of their part ({by_split(touched)})"
        why = "They say little new, and make intervals narrower than they are; a random division would tear them apart."
        fix = "Nothing, if they are frames or exposures of one thing and stay in one part; else keep one of each."
        twins = [twins for _, twins in pairs]
        yield tell_pairs(survey, "near-duplicates", "notice", twins, what, why, fix, count=len(touched), of=total)


def _numbered(seen: Sequence[Seen]) -> NDArray[np.int64]:
    """Number the images, copies alike."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(one.digest or str(k).encode(), k) for k, one in enumerate(seen)], np.int64)


def _pairs(
    survey: Survey, seen: Sequence[Seen], place: NDArray[np.int64], distance: NDArray[np.float32]
) -> list[tuple[float, Twins]]:
    """Give each pair once, the closest first; copies, and slices or pieces of one file, are no near copies."""
    pairs: dict[tuple[int, int], float] = {}
    for one, other in enumerate(place.tolist()):
        if other < 0 or (seen[one].digest and seen[one].digest == seen[other].digest):
            continue
        if survey.record(seen[one]).image == survey.record(seen[other]).image:
            continue
        pairs[min(one, other), max(one, other)] = float(distance[one])
    order = sorted(pairs, key=lambda pair: (pairs[pair], pair))
    return [(pairs[pair], (seen[pair[0]], seen[pair[1]])) for pair in order]


def _touched(pairs: Sequence[tuple[float, Twins]]) -> list[Seen]:
    """List the images that are in any pair, by part and place."""
    touched = {one.example: one for _, twins in pairs for one in twins}
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(touched.values(), key=lambda one: (order.get(one.split, 3), one.index))


def _times(usual: float, closest: float) -> str:
    times = usual / max(closest, 1e-6)
    return "over a thousand times" if times > 1000 else f"{times:.0f} times"


CHECKS = (copies, near_copies)
