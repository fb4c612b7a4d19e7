"""Where to look on a map: a stratified random sample of its pixels, for areas and accuracy from the answers (see `area_estimates`).

Strata are the classes of the map, divided by the confidence of the model. They are cut so that the standard deviation of an error,
√(q (1 - q)) at a confidence of q, adds up to the same in each: few confident strata, several doubtful ones. Half of the points are allocated in proportion to
the pixels of the strata, half in proportion to their pixels times the expected standard deviation (Neyman 1934; Cochran 1977, ch. 5.5), since the confidences
of a model may be wrong. Without confidences the strata are the classes; half of the points are proportional, half equal for all.

In a stratum every pixel is equally likely to be drawn, also where pixels differ in area; the estimates weight points by area. Points are
drawn by rank, in the order of rows and columns, so that they depend on the seed, but not on the bands in which the map is read. Memory does not
grow with the map, which is read twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.measuring.masks import MaskSource, bands
from pixelwise.measuring.scale import Scale
from pixelwise.tiles import Window

Counts = NDArray[np.int64]
# Points of the smallest stratum, and those for which another stratum of a class is worth while, up to a number of strata per class.
FEWEST_POINTS, _POINTS_PER_STRATUM, _MOST_STRATA = 5, 20, 5
# Confidences are distinguished in steps of 0.01; those without one count as the lowest.
_LEVELS = 101
# A network is never sure that it is right, whatever it says.
_MOST_CERTAIN = 0.99
_BAND_PIXELS, _TILE_ROWS = 1 << 24, 512
_NO_STRATUM = -1


@dataclass(frozen=True)
class Stratum:
    """A part of a map from which points are drawn.

    Args:
        class_index: of all its pixels on the map.
        pixels: their number, N.
        area: their area in the unit of the map.
        points: number of points that are drawn, n.
        low, high: lowest and highest confidence of the pixels in percent; 0 and 100 without confidences.
    """

    class_index: int
    pixels: int
    area: float
    points: int = 0
    low: int = 0
    high: int = 100

    @property
    def probability(self) -> float:
        """The probability of each of its pixels to be drawn, n / N."""
        return self.points / self.pixels


@dataclass(frozen=True, eq=False)
class Sample:
    """Points on a map, in random order.

    Args:
        strata: all strata of the map.
        stratum: (n,) number of the stratum of each point, from 0 on.
        positions: (n, 2) int64, row and column.
        sizes: (n,) area of the pixel.
        seed: random seed.
        by_confidence: whether confidences divide the classes.
        excluded: pixels with a class in the windows that were left out, (K,).
    """

    strata: tuple[Stratum, ...]
    stratum: Counts
    positions: Counts
    sizes: NDArray[np.float64]
    seed: int
    by_confidence: bool
    excluded: Counts


@dataclass(frozen=True, eq=False)
class ClassTally:
    """What a map consists of.

    Args:
        pixels: (K, 101) number of pixels by class and confidence in percent.
        areas: (K, 101) their area.
        excluded: (K,) pixels in the windows that were left out.
        by_confidence: whether there are confidences.
    """

    pixels: Counts
    areas: NDArray[np.float64]
    excluded: Counts
    by_confidence: bool


def propose(
    mask: MaskSource,
    scale: Scale,
    size: int,
    *,
    seed: int = 0,
    excluded: Sequence[Window] = (),
    band_rows: int | None = None,
) -> Sample:
    """Draw a stratified random sample of the pixels of a map.

    Args:
        mask: the map, (H, W); pixels without data belong to no stratum.
        scale: the size of its pixels.
        size: number of points; maps of fewer pixels are drawn completely.
        seed: random seed.
        excluded: windows without points, which belong to no stratum either.
        band_rows: rows that are read at once; the points do not depend on it.

    Raises:
        ValueError: fewer points than `fewest_points`, or no pixels to draw from.
    """
    windows = _bands(mask.shape, band_rows)
    tally = tally_classes(mask, scale, excluded, windows)
    strata, table = stratify(tally, size)
    rng = np.random.default_rng(seed)
    ranks = [np.sort(rng.choice(each.pixels, each.points, replace=False)) for each in strata]
    positions = _located(mask, table, ranks, excluded, windows)
    stratum = np.repeat(np.arange(len(strata)), [each.points for each in strata])
    order = rng.permutation(len(stratum))
    positions, stratum = positions[order], stratum[order]
    sizes = sizes_at(scale, positions)
    return Sample(strata, stratum, positions, sizes, seed, tally.by_confidence, tally.excluded)


def fewest_points(tally: ClassTally) -> int:
    """Return how many points a map needs: some for each of its classes."""
    return int(np.minimum(tally.pixels.sum(1), FEWEST_POINTS).sum())


def tally_classes(
    mask: MaskSource, scale: Scale, excluded: Sequence[Window] = (), windows: Sequence[Window] | None = None
) -> ClassTally:
    """Count the pixels of a map, and sum up their areas, by class and confidence."""
    num_classes = mask.labels.num_classes
    pixels = np.zeros((num_classes, _LEVELS), np.int64)
    areas = np.zeros((num_classes, _LEVELS))
    left_out = np.zeros(num_classes, np.int64)
    by_confidence = False
    for band in _bands(mask.shape) if windows is None else windows:
        cells, levels, classes = _cells(mask, band, excluded)
        by_confidence = by_confidence or levels is not None
        count = num_classes * _LEVELS
        flat = (cells + 1).reshape(-1)
        found = np.bincount(flat, minlength=count + 1)[1:]
        pixels += found.reshape(pixels.shape)
        sizes = scale.sizes(band)
        if sizes.size == 1:
            areas += found.reshape(areas.shape) * float(sizes.item())
        else:
            weights = np.broadcast_to(sizes, cells.shape).reshape(-1)
            areas += np.bincount(flat, weights, count + 1)[1:].reshape(areas.shape)
        left_out += np.bincount(classes[(cells < 0) & (classes < num_classes)], minlength=num_classes)
    return ClassTally(pixels, areas, left_out, by_confidence)


def stratify(tally: ClassTally, size: int) -> tuple[tuple[Stratum, ...], Counts]:
    """Divide the classes of a map into strata, and allocate points to them.

    Returns:
        The strata, and the number of the stratum by class and confidence, (K, 101); -1 for combinations that do not occur.

    Raises:
        ValueError: fewer points than `fewest_points`, or a map without pixels.
    """
    if not tally.pixels.any():
        raise ValueError("the map has no pixels to draw points from")
    if size < fewest_points(tally):
        raise ValueError(f"the map needs {fewest_points(tally)} points or more, found {size}")
    doubts = _deviation(np.arange(_LEVELS) / 100)
    table = np.full(tally.pixels.shape, _NO_STRATUM, np.int64)
    cuts = _cuts(tally, size, doubts)
    strata: list[Stratum] = []
    expected: list[float] = []
    for k, level in zip(*np.nonzero(tally.pixels), strict=True):
        before = strata[-1] if strata and strata[-1].class_index == k else None
        if before is None or cuts[k, level] != cuts[k, before.high]:
            strata.append(Stratum(int(k), 0, 0.0, low=int(level)))
        low = strata[-1].low
        held = slice(low, level + 1)
        pixels = tally.pixels[k, held]
        strata[-1] = Stratum(int(k), int(pixels.sum()), float(tally.areas[k, held].sum()), 0, low, int(level))
        table[k, level] = len(strata) - 1
    for each in strata:
        held = slice(each.low, each.high + 1)
        confidence = tally.pixels[each.class_index, held] @ np.arange(_LEVELS)[held] / each.pixels / 100
        expected.append(float(_deviation(confidence)) if tally.by_confidence else 1.0 / each.pixels)
    points = allocate([each.pixels for each in strata], expected, size)
    whole = (0, 100)
    return tuple(
        Stratum(s.class_index, s.pixels, s.area, n, *((s.low, s.high) if tally.by_confidence else whole))
        for s, n in zip(strata, points, strict=True)
    ), table  # fmt: skip


def allocate(pixels: Sequence[int], deviations: Sequence[float], size: int) -> list[int]:
    """Allocate points to strata: half in proportion to their pixels, half to their pixels times the expected standard deviation.

    Each stratum gets 5 points, or as many as it has pixels, and none gets more than it has pixels.
    """
    count = np.asarray(pixels, np.float64)
    spread = count * np.asarray(deviations)
    wanted = size * (count / count.sum() + spread / spread.sum()) / 2
    least, most = np.minimum(FEWEST_POINTS, count), count
    size = min(size, int(count.sum()))
    # The factor by which what is wanted is multiplied so that the limits can be kept.
    low, high = 0.0, 1.0
    while np.clip(high * wanted, least, most).sum() < size:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if np.clip(middle * wanted, least, most).sum() >= size else (middle, high)
    share = np.clip(high * wanted, least, most)
    points = np.floor(share + 1e-9).astype(np.int64)
    rest = np.argsort(-(share - points), kind="stable")
    rest = rest[points[rest] < most[rest]]
    points[rest[: max(size - int(points.sum()), 0)]] += 1
    return [int(n) for n in points]


def _deviation(confidence: Any) -> Any:
    """Return the standard deviation of whether a pixel is right, from the probability that it is."""
    bounded = np.minimum(confidence, _MOST_CERTAIN)
    return np.sqrt(bounded * (1 - bounded))


def _cuts(tally: ClassTally, size: int, doubts: NDArray[np.float64]) -> Counts:
    """Return a number by class and confidence, (K, 101), which differs where a class is cut."""
    if not tally.by_confidence:
        return np.zeros(tally.pixels.shape, np.int64)
    doubtful = tally.pixels * np.maximum(doubts, doubts[-1])
    mass = doubtful.sum(1)
    share = (tally.pixels.sum(1) / tally.pixels.sum() + mass / mass.sum()) / 2
    number = np.clip(np.rint(share * size / _POINTS_PER_STRATUM), 1, _MOST_STRATA)
    # The part of the doubt of the class that lies below each level decides.
    below = (np.cumsum(doubtful, 1) - doubtful) / np.maximum(mass, np.finfo(float).tiny)[:, None]
    return np.floor(below * number[:, None] + 1e-9).astype(np.int64)


def _bands(shape: Sequence[int], rows: int | None = None) -> list[Window]:
    """Return windows of whole rows of tiles, as most large maps are stored."""
    height = max(_BAND_PIXELS // max(shape[1], 1) // _TILE_ROWS, 1) * _TILE_ROWS
    return bands(shape, height if rows is None else rows)


def _cells(
    mask: MaskSource, band: Window, excluded: Sequence[Window]
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None, NDArray[Any]]:
    """Return class · 101 + confidence in percent of the pixels of a band, -1 where nothing is drawn; the confidence; and the classes."""
    classes = mask.read(band)
    confidence = mask.confidence(band)
    cells = classes.astype(np.int32) * _LEVELS
    levels = None
    if confidence is not None:
        levels = np.rint(np.nan_to_num(np.clip(confidence, 0, 1), nan=0.0) * 100).astype(np.int32)
        cells += levels
    cells[classes >= mask.labels.num_classes] = _NO_STRATUM
    for window in excluded:
        start, stop = (
            [min(max(edge - at, 0), size) for edge, at, size in zip(edges, band.start, band.shape, strict=True)]
            for edges in (window.start, window.stop)
        )
        cells[start[0] : stop[0], start[1] : stop[1]] = _NO_STRATUM
    return cells, levels, classes


def _located(
    mask: MaskSource, table: Counts, ranks: Sequence[Counts], excluded: Sequence[Window], windows: Sequence[Window]
) -> Counts:
    """Return the row and column of the pixels with some ranks in each stratum, in their order, (n, 2)."""
    number = np.append(table.reshape(-1), _NO_STRATUM).astype(np.int32)
    before = np.zeros(len(ranks), np.int64)
    found: list[list[Counts]] = [[] for _ in ranks]
    for band in windows:
        stratum = number[_cells(mask, band, excluded)[0]]
        counts = np.bincount((stratum + 1).reshape(-1), minlength=len(ranks) + 1)[1:]
        for h, own in enumerate(ranks):
            here = own[(own >= before[h]) & (own < before[h] + counts[h])] - before[h]
            if len(here):
                flat = np.flatnonzero(stratum.reshape(-1) == h)[here]
                rows, columns = np.unravel_index(flat, stratum.shape)
                found[h].append(np.stack([rows + band.start[0], columns + band.start[1]], 1))
        before += counts
    return np.concatenate([part for parts in found for part in parts]).astype(np.int64)


def sizes_at(scale: Scale, positions: Counts) -> NDArray[np.float64]:
    """Return the area of single pixels, (n,), from their rows and columns (n, 2)."""
    return np.array([float(scale.sizes(Window(at, (at[0] + 1, at[1] + 1))).item()) for at in _pairs(positions)])


def classes_at(mask: MaskSource, positions: Counts) -> Counts:
    """Return the values of single pixels of a mask, (n,), from their rows and columns (n, 2)."""
    return np.array(
        [int(mask.read(Window(at, (at[0] + 1, at[1] + 1))).item()) for at in _pairs(positions)], np.int64
    )  # fmt: skip


def inside(positions: Counts, windows: Sequence[Window]) -> NDArray[np.bool_]:
    """Return whether positions (n, 2) are in any of some windows, (n,)."""
    found = np.zeros(len(positions), bool)
    for window in windows:
        found |= ((positions >= window.start) & (positions < window.stop)).all(1)
    return found


def _pairs(positions: Counts) -> Iterator[tuple[int, int]]:
    return ((int(row), int(column)) for row, column in positions)
