"""Where the errors lie, on images small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pixelwise.evaluation import diagnosis as module
from pixelwise.evaluation.base import MeterOptions
from pixelwise.evaluation.diagnosis import DISTANCES, SIZES, Diagnosis
from pixelwise.evaluation.results import Suspect, Tables
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.types import Prediction, Sample

LABELS = Labels(("ground", "car"))


def diagnosed(truth, mask, probabilities=None, labels=LABELS):
    diagnosis = Diagnosis(MeterOptions(labels))
    sample, prediction = (
        Sample(np.zeros((1, *truth.shape), np.uint8), truth, Grid(), "street"),
        Prediction(mask, labels, Grid()),
    )
    if probabilities is not None:
        for row in range(0, truth.shape[0], 5):  # in bands, as a predictor shows them
            diagnosis.band(sample, row, probabilities[:, row : row + 5])
    diagnosis.add(sample, prediction, np.zeros((4, labels.num_classes), np.int64))
    return Tables(**diagnosis.tables())


def test_objects_are_found_if_half_of_their_pixels_are():
    truth = np.zeros((40, 40), np.uint8)
    truth[2:6, 2:6] = 1  # 16 pixels: the first class
    truth[10:20, 10:20] = 1  # 100 pixels: the third
    truth[30:35, 30:35] = 255
    mask = np.zeros_like(truth)
    mask[2:4, 2:6] = 1  # just half of the small one
    mask[10:20, 10:14] = 1  # 40 of 100
    car = diagnosed(truth, mask).by_size.classes[1]
    assert (car.objects[0], car.found[0], car.pixels[0], car.hits[0]) == (1, 1, 16, 8)
    assert (car.objects[2], car.found[2], car.pixels[2], car.hits[2]) == (1, 0, 100, 40)
    assert sum(car.objects) == 2
    ground = diagnosed(truth, mask).by_size.classes[0]
    assert sum(ground.pixels) == (truth == 0).sum()


def test_errors_are_counted_by_their_distance_to_a_true_border():
    truth = np.zeros((8, 80), np.uint8)
    truth[:, 40:] = 1
    mask = truth.copy()
    mask[:, 40] = 0  # at the border
    mask[:, 50] = 0  # 10.5 pixels from it
    table = diagnosed(truth, mask).by_distance
    assert table.up_to_pixels == (*DISTANCES, None)
    assert sum(table.pixels) == truth.size
    assert table.pixels[0] == 2 * 8
    assert table.wrong == (8, 0, 0, 0, 8, 0, 0)


def test_ignored_pixels_make_no_border_and_are_not_counted():
    truth = np.zeros((10, 10), np.uint8)
    truth[:, 5:] = 255
    table = diagnosed(truth, np.ones_like(truth)).by_distance
    assert table.pixels == (0,) * len(DISTANCES) + (50,)
    assert table.wrong == (0,) * len(DISTANCES) + (50,)


def test_confident_disagreement_is_a_suspect():
    truth = np.zeros((30, 40), np.uint8)
    mask = truth.copy()
    mask[4:16, 8:20] = 1
    mask[20:22, :] = 1  # a thin line is a border drawn otherwise
    probabilities = np.stack([np.where(mask == 0, 0.97, 0.03), np.where(mask == 1, 0.97, 0.03)]).astype(np.float32)
    (suspect,) = diagnosed(truth, mask, probabilities).suspects
    assert suspect.confidence == pytest.approx(0.97, abs=1 / 255)
    assert replace(suspect, confidence=0) == Suspect("street", "ground", "car", 144, (4, 8, 16, 20), 0)
    unsure = np.full_like(probabilities, 0.5)
    assert diagnosed(truth, mask, unsure).suspects == ()


def test_last_size_bin_has_no_limit():
    assert list(SIZES) == sorted(SIZES)
    truth = np.zeros((300, 300), np.uint8)
    assert diagnosed(truth, truth).by_size.classes[0].objects == (0,) * len(SIZES) + (1,)


def test_unpredicted_pixels_are_not_suspects():
    """The ignore index taken for a class would name another one."""
    labels = Labels(tuple(f"k{i}" for i in range(64)))
    truth = np.zeros((20, 20), np.uint8)
    probabilities = np.zeros((64, 20, 20), np.float32)
    probabilities[5] = 1
    assert diagnosed(truth, np.full_like(truth, 255), probabilities, labels).suspects == ()
    mask = np.full_like(truth, 63)
    (suspect,) = diagnosed(mask, np.full_like(truth, 62), probabilities, labels).suspects
    assert (suspect.truth, suspect.prediction) == ("k63", "k62")


def test_strips_match_the_whole_image(monkeypatch):
    generator = np.random.default_rng(0)
    truth = np.kron(generator.integers(0, 2, (5, 3)), np.ones((50, 60), int)).astype(np.uint8)
    truth[generator.random(truth.shape) < 0.02] = 255
    mask = np.where(generator.random(truth.shape) < 0.2, 1 - (truth == 1), truth == 1).astype(np.uint8)
    whole = diagnosed(truth, mask)
    monkeypatch.setattr(module, "_STRIP", 40)
    assert diagnosed(truth, mask) == whole
    assert min(whole.by_distance.pixels) > 0


def test_only_distances_are_computed_for_very_large_images(monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 99)
    truth = np.zeros((10, 10), np.uint8)
    truth[:, 5:] = 1
    tables = diagnosed(truth, 1 - truth, np.stack([truth == 1, truth == 0]).astype(np.float32))
    assert tables.too_large == 1
    assert sum(tables.by_distance.wrong) == 100
    assert tables.suspects == ()
    assert not any(sum(entry.objects) for entry in tables.by_size.classes)
