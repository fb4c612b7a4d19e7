"""Warnings about images that are not independent: frames of a video, tiles of a scene."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from pixelwise.datasets.sequences import rows_of_tiles, sequences
from pixelwise.evaluation import evaluate
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.intervals import narrowness
from pixelwise.types import Prediction, Sample

LABELS = Labels(("background", "road"))
N, SIDE = 60, 20


@dataclass
class Samples:
    samples: list[Sample]
    labels: Labels = LABELS

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> Sample:
        return self.samples[index]


def drawn(names: list[str], grids: list[Grid], smooth: int, groups: list[str] | None = None) -> Samples:
    """Draw images whose share of errors varies slowly, over about `smooth` of them."""
    generator = np.random.default_rng(0)
    noise = np.convolve(generator.normal(size=N + smooth), np.ones(smooth) / np.sqrt(smooth), "valid")[:N]
    samples = []
    for k in range(N):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, : SIDE // 2] = 1
        wrong = generator.random(mask.shape) < 0.25 + 0.08 * np.clip(noise[k], -3, 3)
        image = np.where(wrong, 1 - mask, mask)[None].astype(np.uint8)
        samples.append(Sample(image, mask, grids[k], names[k], groups and groups[k]))
    return Samples(samples)


def shown(image: np.ndarray, grid: Grid, valid: np.ndarray | None = None, *, id: str = "") -> Prediction:
    return Prediction(image[0], LABELS, grid, id)


def factor(dataset: Samples) -> float | None:
    """Evaluate, and return the factor of the warning; None without one."""
    texts = [text for text in evaluate(dataset, shown, metrics=()).notices if "similar errors" in text]
    assert len(texts) <= 1
    match = (
        re.search(r"about ([\d.]+) times too narrow. Name the videos or scenes with data.group", texts[0])
        if texts
        else None
    )
    assert (match is None) == (not texts)
    return None if match is None else float(match[1])


def tile(row: int, column: int) -> Grid:
    affine = ((2.0, 0.0, 500_000 + 2 * SIDE * column), (0.0, -2.0, 5_000_000 - 2 * SIDE * row), (0.0, 0.0, 1.0))
    return Grid((2.0, 2.0), "m", affine, "EPSG:32632", "GeoTransform")


FRAMES = [f"drive_{30 * k:05}" for k in range(N)]
TILES = [tile(*divmod(k, 15)) for k in range(N)]


def test_frames_with_similar_errors_are_reported() -> None:
    found = factor(drawn(FRAMES, [Grid()] * N, smooth=6))
    assert found is not None
    assert 1.5 < found < 3


@pytest.mark.parametrize("case", ["independent errors", "named groups", "no order"])
def test_other_images_are_not_reported(case: str) -> None:
    names = [f"drive_{k:05}" for k in np.random.default_rng(2).permutation(N)] if case == "no order" else FRAMES
    groups = [f"g{k // 5}" for k in range(N)] if case == "named groups" else None
    assert factor(drawn(names, [Grid()] * N, smooth=1 if case == "independent errors" else 6, groups=groups)) is None


def test_neighbouring_georeferenced_tiles_are_reported_whatever_their_names() -> None:
    letters = ["".join(chr(97 + int(digit)) for digit in str(k * 7919 % 100_003)) for k in range(N)]
    assert factor(drawn(letters, TILES, smooth=5)) is not None
    assert factor(drawn(letters, [Grid()] * N, smooth=5)) is None


def test_sequences_are_ordered_by_their_numbers() -> None:
    names = ["a/x_2", "a/x_10", "b/x_1", "a/x_1", "single", "b/x_3", "c/y_1"]
    assert sequences(names) == [[3, 0, 1], [2, 5]]


def test_rows_of_tiles_are_ordered_from_west_to_east() -> None:
    order = np.random.default_rng(3).permutation(N)
    rows = rows_of_tiles([TILES[k] for k in order], [(SIDE, SIDE)] * N)
    assert sorted([int(order[position]) for position in row] for row in rows) == [
        list(range(start, start + 15)) for start in range(0, N, 15)
    ]
    assert rows_of_tiles([Grid(), tile(0, 0), tile(5, 0)], [(SIDE, SIDE)] * 3) == []


def test_narrowness_of_an_autoregressive_series() -> None:
    """The variance of a mean of x(t) = r·x(t - 1) + noise is (1 + r) / (1 - r) times that of independent values."""
    generator, r, n = np.random.default_rng(0), 0.6, 4000
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = r * x[t - 1] + generator.normal()
    assert narrowness(x, [list(range(n))]) == pytest.approx(np.sqrt((1 + r) / (1 - r)), rel=0.1)
    assert narrowness(generator.permutation(x), [list(range(n))]) == 1
    assert narrowness(x, []) == 1
    assert narrowness(np.zeros(30), [list(range(30))]) == 1
