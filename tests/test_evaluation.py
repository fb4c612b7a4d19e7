"""Evaluation with a data set of arrays and predictors that are known to be good, bad or broken."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from pixelwise.errors import DataError, Interrupted, LabelsError, MaskError
from pixelwise.evaluation import evaluate, majority, quick_miou
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import ConfusionMatrix, mean_iou
from pixelwise.types import Prediction, Sample

LABELS = Labels(("background", "road", "vehicle"))


@dataclass
class Pictures:
    """Hold a data set in memory."""

    samples: list[Sample]
    labels: Labels = LABELS
    reads: list[int] = field(default_factory=list)

    def __len__(self):
        return len(self.samples)

    def read(self, index):
        self.reads.append(index)
        return self.samples[index]


def pictures(n=12, void=0.1, groups=None):
    """Draw masks that are mostly background, of many sizes; the image shows the mask, with noise."""
    generator = np.random.default_rng(0)
    samples = []
    for i in range(n):
        shape = (20 + i, 30)
        mask = generator.choice(3, shape, p=[0.8, 0.15, 0.05]).astype(np.uint8)
        flip = generator.random(shape) < 0.02 * (i + 1)
        image = np.where(flip, generator.integers(0, 3, shape), mask)[None].astype(np.uint8)
        mask[generator.random(shape) < void] = 255
        grid = Grid(spacing=(1.0 + i, 1.0), unit="mm")
        samples.append(Sample(image, mask, grid, f"{i:02}", groups and groups[i]))
    return Pictures(samples)


def looks(image, grid, *, id=""):
    """Predict what the image shows."""
    return Prediction(image[0], LABELS, grid, id)


def by_hand(dataset):
    matrix = ConfusionMatrix(3)
    for sample in dataset.samples:
        matrix.update(sample.mask, sample.image[0])
    return matrix.matrix


def test_scores_are_those_of_one_matrix_over_all_pictures():
    dataset = pictures()
    result, matrix = evaluate(dataset, looks), by_hand(dataset)
    np.testing.assert_array_equal(result.scores.confusion, matrix)
    assert result.scores.miou.value == mean_iou(matrix)
    assert result.scores.miou.low < result.scores.miou.value < result.scores.miou.high
    assert result.scores.images == 12
    assert result.scores.ignored_pixels == sum(int((s.mask == 255).sum()) for s in dataset.samples)
    assert result.scores.interval.startswith("95 % percentile bootstrap over 12 images, 1000 resamples, seed 0; ")
    assert dataset.reads == list(range(12))


def test_the_mean_over_pictures_is_not_the_headline():
    result = evaluate(pictures(), looks)
    per_image = [image.miou for image in result.images]
    assert abs(np.mean(per_image) - result.scores.miou.value) > 1e-3


def test_each_picture_has_its_line():
    dataset = pictures()
    dataset.samples[3] = replace(dataset.samples[3], mask=np.full_like(dataset.samples[3].mask, 255))
    images = evaluate(dataset, looks).images
    assert [image.id for image in images] == [f"{i:02}" for i in range(12)]
    assert [image.pixels for image in images] == [int((s.mask != 255).sum()) for s in dataset.samples]
    assert (images[3].miou, images[3].pixel_accuracy, images[3].pixels) == (None, None, 0)
    assert images[0].miou > images[11].miou


def test_the_predictor_gets_each_picture_whole_with_its_grid_and_id():
    dataset, seen = pictures(), []

    def watch(image, grid, *, id=""):
        seen.append((image.shape, grid, id))
        return looks(image, grid, id=id)

    evaluate(dataset, watch, resamples=0)
    assert seen == [(s.image.shape, s.grid, s.id) for s in dataset.samples]


def test_groups_are_drawn_together():
    result = evaluate(pictures(groups=[f"tile {i // 2}" for i in range(12)]), looks)
    assert "over 6 groups of 12 images" in result.scores.interval


def test_the_short_way_gives_the_same_headline():
    dataset = pictures()
    miou, matrix = quick_miou(dataset, looks)
    assert miou == evaluate(dataset, looks).scores.miou.value
    np.testing.assert_array_equal(matrix, by_hand(dataset))


def test_the_baseline_is_accurate_and_worthless():
    dataset = pictures()
    result = evaluate(dataset, looks)

    def background(image, grid, *, id=""):
        return Prediction(np.zeros(image.shape[1:], np.uint8), LABELS, grid, id)

    guessed = evaluate(dataset, background).scores
    assert result.baseline_class == "background"
    assert result.baseline.pixel_accuracy == guessed.pixel_accuracy
    assert result.baseline.miou == guessed.miou
    assert result.baseline.pixel_accuracy.value > 0.77
    assert result.baseline.miou.value < 0.28
    assert result.scores.miou.value > 0.6


def test_the_majority_needs_no_predictor():
    dataset = pictures()
    found, expected = majority(dataset), evaluate(dataset, looks).baseline
    assert found.miou == expected.miou
    np.testing.assert_array_equal(found.confusion, expected.confusion)


def test_the_plain_form_is_that_of_the_scores_with_baseline_and_pictures():
    result = evaluate(pictures(), looks)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["miou"] == result.scores.miou.value
    assert plain["baseline"] == {
        "answer": "background",
        "pixel_accuracy": result.baseline.pixel_accuracy.value,
        "miou": result.baseline.miou.value,
    }
    assert plain["per_image"][0]["id"] == "00"


def test_equal_seeds_give_equal_intervals():
    dataset = pictures()
    assert evaluate(dataset, looks, seed=1).scores.miou == evaluate(dataset, looks, seed=1).scores.miou
    assert evaluate(dataset, looks, seed=1).scores.miou != evaluate(dataset, looks, seed=2).scores.miou


@pytest.mark.parametrize("work", [evaluate, quick_miou])
def test_progress_is_told_after_each_picture(work):
    told = []
    work(pictures(3), looks, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("work", [evaluate, quick_miou])
def test_a_stop_ends_the_work_between_pictures(work):
    dataset = pictures()

    def stop():
        if len(dataset.reads) == 2:
            raise Interrupted("run", expected="time", found="a stop", do="Go on.")

    with pytest.raises(Interrupted):
        work(dataset, looks, stop=stop)
    assert dataset.reads == [0, 1]


def test_a_prediction_of_another_size_is_refused_by_name():
    def half(image, grid, *, id=""):
        return Prediction(image[0, ::2, ::2], LABELS, grid, id)

    with pytest.raises(MaskError, match=r"^00: expected the size of the truth, \(20, 30\), found \(10, 15\)"):
        evaluate(pictures(), half)


def test_a_predictor_of_other_classes_is_refused():
    def other(image, grid, *, id=""):
        return Prediction(image[0], Labels(("background", "vehicle", "road")), grid, id)

    with pytest.raises(LabelsError) as error:
        evaluate(pictures(), other)
    assert str(error.value) == (
        "00: expected predictions of the data set's classes background, road, vehicle, found background, vehicle, road. "
        "Name the classes in labels.yaml as the model's model.json does, or train on this data set."
    )


def test_a_picture_without_a_mask_is_refused():
    dataset = pictures()
    dataset.samples[1] = replace(dataset.samples[1], mask=None)
    with pytest.raises(DataError, match="01: expected a mask to score against, found none"):
        evaluate(dataset, looks)


@pytest.mark.parametrize("dataset", [pictures(0), pictures(2, void=1.1)], ids=["no pictures", "all ignored"])
def test_nothing_to_score_is_refused_and_undefined_for_a_part(dataset):
    with pytest.raises(DataError, match="evaluation: expected at least one pixel that counts"):
        evaluate(dataset, looks)
    miou, matrix = quick_miou(dataset, looks)
    assert np.isnan(miou)
    assert matrix.sum() == 0
