"""Evaluation with a data set of arrays and predictors that are known to be good, bad or broken."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from pixelwise.errors import DataError, Interrupted, LabelsError, MaskError, UsageError
from pixelwise.evaluation import METRICS, Evaluation, Tables, evaluate, fitted_temperature, majority, quick_miou
from pixelwise.evaluation.base import MeterOptions, meter_statistic
from pixelwise.evaluation.meters import make_meters
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import ConfusionMatrix, mean_iou
from pixelwise.types import Prediction, Sample

LABELS = Labels(("background", "road", "vehicle"))


@dataclass
class ImageIndex:
    """Hold a data set in memory."""

    samples: list[Sample]
    labels: Labels = LABELS
    reads: list[int] = field(default_factory=list)

    def __len__(self):
        return len(self.samples)

    def read(self, index):
        self.reads.append(index)
        return self.samples[index]


def image_files(n=12, void=0.1, groups=None):
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
    return ImageIndex(samples)


def looks(image, grid, valid=None, *, id=""):
    """Predict what the image shows."""
    return Prediction(image[0], LABELS, grid, id)


def by_hand(dataset):
    matrix = ConfusionMatrix(3)
    for sample in dataset.samples:
        matrix.update(sample.mask, sample.image[0])
    return matrix.matrix


def test_scores_come_from_one_matrix_over_all_images():
    dataset = image_files()
    result, matrix = evaluate(dataset, looks), by_hand(dataset)
    np.testing.assert_array_equal(result.scores.confusion, matrix)
    assert result.scores.miou.value == mean_iou(matrix)
    assert result.scores.miou.low < result.scores.miou.value < result.scores.miou.high
    assert result.scores.images == 12
    assert result.scores.ignored_pixels == sum(int((s.mask == 255).sum()) for s in dataset.samples)
    assert result.scores.interval.startswith("95 % jackknife over 12 images, with Student")
    method = result.scores.interval_method
    assert {key: method[key] for key in ("method", "unit", "n")} == {
        "method": "jackknife-logit-t", "unit": "image", "n": 12
    }  # fmt: skip
    pixels = np.array([image.pixels for image in result.images])
    assert method["effective_n"] == round(pixels.sum() ** 2 / (pixels**2).sum(), 1) < 12
    assert dataset.reads == list(range(12))


def test_mean_over_images_is_not_the_miou():
    result = evaluate(image_files(), looks)
    per_image = [image.miou for image in result.images]
    assert abs(np.mean(per_image) - result.scores.miou.value) > 1e-3


def test_every_image_has_scores():
    dataset = image_files()
    dataset.samples[3] = replace(dataset.samples[3], mask=np.full_like(dataset.samples[3].mask, 255))
    images = evaluate(dataset, looks).images
    assert [image.id for image in images] == [f"{i:02}" for i in range(12)]
    assert [image.pixels for image in images] == [int((s.mask != 255).sum()) for s in dataset.samples]
    assert (images[3].miou, images[3].pixel_accuracy, images[3].pixels) == (None, None, 0)
    assert images[0].miou > images[11].miou


def test_predictor_gets_whole_images_with_grid_and_id():
    dataset, seen = image_files(), []

    def watch(image, grid, valid=None, *, id=""):
        seen.append((image.shape, grid, id))
        return looks(image, grid, valid, id=id)

    evaluate(dataset, watch, intervals=False)
    assert seen == [(s.image.shape, s.grid, s.id) for s in dataset.samples]


def test_groups_are_one_unit():
    result = evaluate(image_files(24, groups=[f"tile {i // 2}" for i in range(24)]), looks)
    assert "over 12 groups of 24 images" in result.scores.interval
    assert (result.scores.interval_method["unit"], result.scores.interval_method["n"]) == ("group", 12)
    few = evaluate(image_files(groups=[f"tile {i // 2}" for i in range(12)]), looks)
    assert few.scores.interval == "none: 6 groups of 12 images are too few, at least 10 are needed"
    assert few.scores.miou.low is few.baseline.miou.low is few.scores.more["boundary_miou"].low is None


def test_quick_miou_matches_evaluate():
    dataset = image_files()
    miou, matrix = quick_miou(dataset, looks)
    assert miou == evaluate(dataset, looks).scores.miou.value
    np.testing.assert_array_equal(matrix, by_hand(dataset))


def test_baseline_has_high_accuracy_and_low_miou():
    dataset = image_files()
    result = evaluate(dataset, looks)

    def background(image, grid, valid=None, *, id=""):
        return Prediction(np.zeros(image.shape[1:], np.uint8), LABELS, grid, id)

    guessed = evaluate(dataset, background).scores
    assert result.baseline_class == "background"
    assert result.baseline.pixel_accuracy == guessed.pixel_accuracy
    assert result.baseline.miou == guessed.miou
    assert result.baseline.pixel_accuracy.value > 0.77
    assert result.baseline.miou.value < 0.28
    assert result.scores.miou.value > 0.6


def test_the_majority_needs_no_predictor():
    dataset = image_files()
    found, expected = majority(dataset), evaluate(dataset, looks).baseline
    assert found.miou == expected.miou
    np.testing.assert_array_equal(found.confusion, expected.confusion)


def test_plain_form_has_scores_baseline_and_images():
    result = evaluate(image_files(), looks)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["miou"] == result.scores.miou.value
    assert plain["baseline"] == {
        "answer": "background",
        "pixel_accuracy": result.baseline.pixel_accuracy.value,
        "miou": result.baseline.miou.value,
    }
    assert plain["per_image"][0]["id"] == "00"


@pytest.mark.parametrize("metrics", [(), METRICS])
def test_plain_form_round_trip(metrics):
    dataset = image_files(groups=["a", None, *"cdefghijkl"])
    dataset.samples = [replace(sample, grid=Grid(unit="mm")) for sample in dataset.samples]
    result = evaluate(dataset, Sure(), metrics=metrics, convention="monai")
    plain = json.loads(json.dumps(result.to_dict()))
    found = Evaluation.from_dict(plain | {"unknown": 1})
    assert found.to_dict() == plain
    assert found.images == result.images
    assert found.tables == result.tables
    assert found.scores.classes == result.scores.classes
    assert found.scores.more == result.scores.more


def test_older_plain_form_is_read_and_damaged_one_is_an_error():
    old = Evaluation.from_dict({"miou": 0.5, "miou_n": 3, "classes": [{"name": "road", "iou": 0.5, "iou_n": 3}]})
    assert (old.scores.miou.value, old.scores.classes[0].iou.n, old.images, old.tables) == (0.5, 3, (), Tables())
    with pytest.raises(DataError, match=r"^here: expected the scores of an evaluation, found .*Evaluate it again"):
        Evaluation.from_dict({"tables": {"by_distance": {"pixels": "many"}}}, "here")


def test_intervals_are_deterministic_and_may_be_left_out():
    dataset = image_files()
    first = evaluate(dataset, Sure(), metrics=("boundary", "calibration")).scores
    assert evaluate(dataset, Sure(), metrics=("boundary", "calibration")).scores.to_dict() == first.to_dict()
    without = evaluate(dataset, Sure(), metrics=("boundary", "calibration"), intervals=False)
    assert without.scores.interval == "none: not requested"
    assert without.scores.interval_method["method"] == "none"
    for scores in (without.scores, without.baseline):
        plain = scores.to_dict()
        for row in (plain, *plain["classes"]):
            assert not [key for key, value in row.items() if key.endswith(("_low", "_high")) and value is not None]
    assert without.scores.miou.value == first.miou.value


def test_scores_of_every_family_are_within_their_interval():
    """Distances and losses on a log scale, shares on a logit scale; means over classes between those of the classes."""
    dataset = image_files(30, groups=None)
    dataset.samples = [replace(sample, grid=Grid(spacing=(2.0, 1.0), unit="mm")) for sample in dataset.samples]
    plain = evaluate(dataset, Noisy(), metrics=METRICS).scores.to_dict()
    seen = set()
    for row in (plain, *plain["classes"]):
        for key in (key.removesuffix("_low") for key in row if key.endswith("_low")):
            value, low, high = (row[f"{key}{end}"] for end in ("", "_low", "_high"))
            assert 0 <= low <= value <= high, key
            if key in ("hausdorff", "hausdorff95", "surface_distance", "brier", "nll"):
                assert np.isfinite(high), key
                assert value / 3 < low < value < high < 3 * value, key
            else:
                assert high <= 1, key
            if key not in ("missed", "invented"):  # every class is in every image: no uncertainty is seen
                assert low < high, key
                assert high - low < max(0.4, value), key
            seen.add(key)
    assert {"surface_dice", "boundary_miou", "mean_boundary_f1", "image_miou", "ece", "mce", "classwise_ece"} <= seen
    for mean, part in (("boundary_miou", "boundary_iou"), ("classwise_ece", "calibration_error"), ("miou", "iou")):
        ends = [np.mean([row[f"{part}{end}"] for row in plain["classes"]]) for end in ("_low", "", "_high")]
        assert plain[mean] == pytest.approx(ends[1])
        assert ends[0] <= plain[f"{mean}_low"] < plain[f"{mean}_high"] <= ends[2], mean


def test_brier_and_nll_by_hand():
    """Means over pixels of images of many sizes, on the log scale."""
    dataset = image_files(20, void=0)
    more = evaluate(dataset, Noisy(), metrics=("calibration",)).scores.more
    alone = [evaluate(ImageIndex([s]), Noisy(), metrics=("calibration",)).scores.more for s in dataset.samples]
    weight = np.array([s.mask.size for s in dataset.samples]) / sum(s.mask.size for s in dataset.samples)
    m = 1 / (weight**2).sum()
    for key in ("brier", "nll"):
        each = np.array([scores[key].value for scores in alone])
        mean = (weight * each).sum()
        variance = ((weight * (each - mean)) ** 2 / (1 - weight)).sum() * (1 + 1 / m)
        reach = stats.t.ppf(0.975, m) * np.sqrt(variance) / mean
        assert more[key].value == pytest.approx(mean)
        assert (more[key].low, more[key].high) == (
            pytest.approx(mean * np.exp(-reach)),
            pytest.approx(mean * np.exp(reach)),
        )


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("boundary", ("boundary_iou", "boundary_f1")),
        ("calibration", ("confidence", "brier", "nll", "accuracy_at_100", "calibration_error")),
    ],
)
def test_scores_are_means_over_images_by_the_weights_of_the_meter(family, keys):
    """The effective number of images is computed from these weights."""
    options = MeterOptions(LABELS)
    (meter,) = make_meters((family,), options, probabilities=True)
    predictor, sums = Noisy(), []
    for sample in image_files(8, void=0).samples:
        predictor.observed(sample.image, sample.grid, None, sample.id, partial(meter.band, sample))
        prediction = predictor(sample.image, sample.grid, id=sample.id)
        sums.append(meter.add(sample, prediction, np.zeros((4, 3), np.int64)))
    sums = np.stack(sums)
    sums[:2] *= 50  # as of large images
    statistic = meter_statistic(meter)
    weights, each = statistic.unit_weights(sums), statistic.values(sums, sums)
    total = statistic.values(*[sums.sum(0, keepdims=True)] * 2)[0]
    for place, (key, _) in enumerate(meter.figures):
        if key == "boundary_f1":  # of two ratios with almost the same weights
            assert total[place] == pytest.approx(np.average(each[:, place], weights=weights[:, place]), rel=0.01)
        elif key == "calibration_error":  # not a mean: errors of images cancel
            np.testing.assert_array_equal(weights[:, place], weights[:, 0])
        elif key in keys:
            assert total[place] == pytest.approx(np.average(each[:, place], weights=weights[:, place])), key
    assert {key for key, _ in meter.figures} >= set(keys)


def test_class_of_one_image_widens_every_mean_over_classes():
    dataset = image_files(20)
    for k, sample in enumerate(dataset.samples[1:], 1):
        truth, image = (np.where(a == 2, 0, a).astype(np.uint8) for a in (sample.mask, sample.image))
        dataset.samples[k] = replace(sample, mask=truth, image=image)
    scores = evaluate(dataset, Noisy(), metrics=("boundary", "calibration")).scores
    vehicle = scores.classes[2]
    for key in ("boundary_iou", "boundary_f1", "calibration_error"):
        assert (vehicle.more[key].low, vehicle.more[key].n) == (None, 1), key
    for key in ("boundary_miou", "mean_boundary_f1"):
        # A third of a class that may have nearly any score elsewhere.
        assert scores.more[key].high - scores.more[key].low > 0.2, key
    assert scores.miou.high - scores.miou.low > 0.2
    assert all(entry.more["boundary_iou"].high - entry.more["boundary_iou"].low < 0.3 for entry in scores.classes[:2])


def test_mean_over_images_has_the_interval_of_a_mean():
    """Each image counts alike, so the interval is that of n numbers."""
    result = evaluate(image_files(30), looks)
    values = np.array([image.miou for image in result.images])
    score = result.scores.more["image_miou"]
    p = values.mean()
    error = values.std(ddof=1) / np.sqrt(30) * np.sqrt(1 + 1 / 30) / (p * (1 - p))
    low, high = expit(logit(p) + np.array([-1, 1]) * stats.t.ppf(0.975, 30) * error)
    assert (score.low, score.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("work", [evaluate, quick_miou])
def test_progress_is_reported_after_each_image(work):
    told = []
    work(image_files(3), looks, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("work", [evaluate, quick_miou])
def test_stop_interrupts_between_images(work):
    dataset = image_files()

    def stop():
        if len(dataset.reads) == 2:
            raise Interrupted("run", found="checkpoint saved")

    with pytest.raises(Interrupted):
        work(dataset, looks, stop=stop)
    assert dataset.reads == [0, 1]


def test_prediction_of_another_size_is_an_error():
    def half(image, grid, valid=None, *, id=""):
        return Prediction(image[0, ::2, ::2], LABELS, grid, id)

    with pytest.raises(MaskError, match=r"^00: expected the size of the truth, \(20, 30\), found \(10, 15\)"):
        evaluate(image_files(), half)


def test_predictor_of_other_classes_is_an_error():
    def other(image, grid, valid=None, *, id=""):
        return Prediction(image[0], Labels(("background", "vehicle", "road")), grid, id)

    with pytest.raises(LabelsError) as error:
        evaluate(image_files(), other)
    assert str(error.value) == (
        "00: expected predictions of the data set's classes background, road, vehicle, found background, vehicle, road. "
        "Name the classes in labels.yaml as in the model's model.json, or train on this data set."
    )


def test_image_without_a_mask_is_an_error():
    dataset = image_files()
    dataset.samples[1] = replace(dataset.samples[1], mask=None)
    with pytest.raises(DataError, match="01: expected an annotated mask, found none"):
        evaluate(dataset, looks)


@pytest.mark.parametrize("dataset", [image_files(0), image_files(2, void=1.1)], ids=["no images", "all ignored"])
def test_no_counted_pixels_is_an_error_and_nan_in_quick_miou(dataset):
    with pytest.raises(DataError, match="evaluation: expected at least one counted pixel"):
        evaluate(dataset, looks)
    miou, matrix = quick_miou(dataset, looks)
    assert np.isnan(miou)
    assert matrix.sum() == 0


class Sure:
    """Give the class that the image shows a probability of nine tenths, in two bands."""

    def __call__(self, image, grid, valid=None, *, id=""):
        return Prediction(image[0], LABELS, grid, id)

    def observed(self, image, grid, valid, id, observe, /):
        probabilities = np.full((3, *image.shape[1:]), 0.05, np.float32)
        for k in range(3):
            probabilities[k][image[0] == k] = 0.9
        observe(0, probabilities[:, :7])
        observe(7, probabilities[:, 7:])
        return self(image, grid, valid, id=id)


class Noisy(Sure):
    """As sure, but of another certainty in each image."""

    def observed(self, image, grid, valid, id, observe, /):
        p = np.random.default_rng(int(id)).uniform(0.6, 0.95)
        probabilities = np.full((3, *image.shape[1:]), (1 - p) / 2, np.float32)
        np.put_along_axis(probabilities, image.astype(np.intp), np.float32(p), 0)
        observe(0, probabilities)
        return self(image, grid, valid, id=id)


def test_probabilities_are_scored_if_available():
    dataset = image_files()
    with_, without = evaluate(dataset, Sure()), evaluate(dataset, looks)
    matrix = by_hand(dataset)
    accuracy = np.trace(matrix) / matrix.sum()
    more = with_.scores.more
    assert more["confidence"].value == pytest.approx(0.9)
    assert more["ece"].value == pytest.approx(abs(0.9 - accuracy), abs=1e-6)
    brier = accuracy * (0.1**2 + 2 * 0.05**2) + (1 - accuracy) * (0.9**2 + 0.95**2 + 0.05**2)
    assert more["brier"].value == pytest.approx(brier, rel=1e-6)
    assert more["ece"].low < more["ece"].value < more["ece"].high
    assert sum(n for n in with_.tables.reliability.pixels) == matrix.sum()
    assert with_.tables.risk_coverage.pixel_accuracy[-1] == pytest.approx(accuracy)
    assert with_.tables.risk_coverage.miou[-1] == pytest.approx(with_.scores.miou.value)
    assert "ece" not in without.scores.more
    assert with_.scores.miou == without.scores.miou
    assert with_.scores.more["boundary_miou"] == without.scores.more["boundary_miou"]


def test_n_is_the_number_of_images_behind_a_score():
    dataset = image_files()
    for k, sample in enumerate(dataset.samples[:5]):
        truth, image = (np.where(a == 2, 0, a) for a in (sample.mask, sample.image))
        dataset.samples[k] = replace(sample, mask=truth.astype(np.uint8), image=image.astype(np.uint8))
    dataset.samples[11] = replace(dataset.samples[11], mask=np.full_like(dataset.samples[11].mask, 255))
    scores = evaluate(dataset, looks).scores
    assert scores.classes[2].iou.n == 6
    assert scores.classes[0].iou.n == scores.miou.n == scores.more["boundary_miou"].n == 11


def test_mean_over_images_has_its_own_name():
    result = evaluate(image_files(), looks)
    per_image = [image.miou for image in result.images]
    assert result.scores.more["image_miou"].value == pytest.approx(np.mean(per_image))
    assert result.scores.more["image_miou"].value != result.scores.miou.value


def test_unpredicted_pixels_are_misses():
    """As cityscapesScripts counts it: in the union of its true class, in no other."""
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    answer = np.array([[0, 255, 1, 1, 255]], np.uint8)
    dataset = ImageIndex([Sample(answer[None], truth, Grid(), "a")])
    result = evaluate(dataset, looks)
    assert result.unassigned_pixels == 1
    assert [entry.iou.value for entry in result.scores.classes] == [0.5, 1.0, None]
    assert result.scores.pixel_accuracy.value == 0.75
    assert (result.scores.classes[0].pixels, result.scores.ignored_pixels) == (2, 1)
    assert quick_miou(dataset, looks)[0] == result.scores.miou.value == 0.75
    assert result.images[0].counts == ((0, 1, 2, 1, 0), (1, 2, 2, 2, 0))
    assert result.images[0].miou == 0.75


def test_image_counts_add_up_to_the_scores():
    dataset = image_files(void=0.2, groups=["a", "b", *"cdefghijkl"])
    result = evaluate(dataset, looks, convention="void-as-error")
    total = np.zeros((3, 4), np.int64)
    for image in result.images:
        for k, *counts in image.counts:
            total[k] += counts
    hits, truth, predicted, on_void = total.T
    np.testing.assert_array_equal(hits, np.diag(result.scores.confusion))
    np.testing.assert_array_equal(truth, result.scores.confusion.sum(1))
    np.testing.assert_array_equal(predicted, result.scores.confusion.sum(0))
    assert on_void.sum() == result.scores.ignored_pixels
    expected = (hits / (truth + predicted + on_void - hits)).mean()
    assert result.peer[1][0].score.value == pytest.approx(expected)
    assert [image.group for image in result.images][:2] == ["a", "b"]


def test_truth_digest_identifies_the_mask():
    one, other = evaluate(image_files(3), looks).images, evaluate(image_files(3, void=0.5), looks).images
    assert [a.truth for a in one] == [a.truth for a in evaluate(image_files(3), looks, metrics=()).images]
    assert all(a.truth != b.truth for a, b in zip(one, other, strict=True))


def test_surface_distances_are_in_the_unit_of_the_grid():
    truth = np.zeros((20, 30), np.uint8)
    truth[5:10, 5:10] = 1
    answer = np.zeros_like(truth)
    answer[5:10, 7:12] = 1
    samples = [Sample(answer[None], truth, Grid(spacing=(2.0, 0.5), unit="mm"), "a")]
    result = evaluate(ImageIndex(samples), looks, metrics=("surface",), surface_tolerance=0.4)
    road = result.scores.classes[1].more
    assert road["hausdorff"].value == pytest.approx(1.0)
    assert road["hausdorff"].n == 1
    assert (road["missed"].value, road["invented"].value) == (0, 0)
    assert 0 < road["surface_dice"].value < 1
    assert "surface distances in mm" in result.scores.convention
    assert "surface_dice within 0.4 mm" in result.scores.convention
    assert result.scores.classes[2].more["hausdorff"].value is None


@pytest.mark.parametrize("wrong", [{"metrics": ["depth"]}, {"convention": "voc"}])
def test_unknown_metrics_and_conventions_are_errors_before_any_image_is_read(wrong):
    dataset = image_files(2)
    with pytest.raises(UsageError, match=r"^--(metrics|convention): expected .*, found (depth|voc)\."):
        evaluate(dataset, looks, **wrong)
    assert dataset.reads == []


def test_temperature_is_fitted_to_held_out_images():
    """Nine of ten in probability, and right less often: the temperature cools nothing and heats."""
    dataset = image_files()
    fitted = fitted_temperature(dataset, Sure(), images=5, pixels=50)
    assert fitted.pixels == 250
    assert dataset.reads == [0, 3, 6, 8, 11]
    assert fitted.nll_after < fitted.nll_before
    assert fitted == fitted_temperature(image_files(), Sure(), images=5, pixels=50)
    assert fitted != fitted_temperature(image_files(), Sure(), images=5, pixels=50, seed=1)


@pytest.mark.parametrize("count", [3, 254, 255, 256, 300])
def test_unpredicted_pixels_are_misses_with_any_number_of_classes(count):
    """With 255 classes, the class that is added for them has the number that void has elsewhere."""
    labels = Labels(tuple(f"c{k}" for k in range(count)), ignore_ids=(999,))
    void, last = labels.ignore_index, count - 1
    truth = np.array([[0, last, last, void]], labels.dtype)
    answer = np.array([[0, last, void, 0]], labels.dtype)

    def shown(image, grid, valid=None, *, id=""):
        return Prediction(image[0], labels, grid, id)

    dataset = ImageIndex([Sample(answer[None], truth, Grid(), "a")], labels)
    result = evaluate(dataset, shown, metrics=METRICS, intervals=False)
    assert result.unassigned_pixels == 1
    assert result.scores.classes[last].iou.value == 0.5
    assert result.scores.pixel_accuracy.value == pytest.approx(2 / 3)
    assert "1 counted pixels have no predicted class" in result.scores.convention


def test_images_of_different_units_are_an_error():
    samples = [replace(s, grid=Grid(unit=unit)) for s, unit in zip(image_files(2).samples, ("mm", "px"), strict=True)]
    with pytest.raises(DataError, match=r"^01: expected the same unit of length in all images, found px after mm\."):
        evaluate(ImageIndex(samples), looks, metrics=("surface",))
    degrees = [replace(samples[0], grid=Grid(unit="deg"))]
    with pytest.raises(DataError, match=r"^00: expected a unit of length, found degrees\."):
        evaluate(ImageIndex(degrees), looks, metrics=("surface",))


def test_only_requested_metrics_are_computed():
    result = evaluate(image_files(3), Sure(), metrics=())
    assert result.tables == Tables()
    assert set(result.scores.more) == {"image_miou", "image_dice"}


def test_suspects_need_no_calibration():
    truth, image = np.zeros((30, 30), np.uint8), np.zeros((30, 30), np.uint8)
    image[5:20, 5:20] = 1
    dataset = ImageIndex([Sample(image[None], truth, Grid(), "a")])
    (suspect,) = evaluate(dataset, Sure(), metrics=("diagnosis",)).tables.suspects
    assert (suspect.truth, suspect.prediction, suspect.pixels) == ("background", "road", 225)
    assert evaluate(dataset, looks, metrics=("diagnosis",)).tables.suspects == ()


def test_very_large_images_are_reported(monkeypatch):
    monkeypatch.setattr("pixelwise.evaluation.diagnosis.MOST_PIXELS", 10)
    assert evaluate(image_files(2), looks).notices == (
        "2 images are too large to analyse object sizes and possible annotation errors",
    )
