"""Scores: the headline and its conventions, in figures and in words."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelwise.errors import DataError
from pixelwise.labels import Labels
from pixelwise.metrics import confusion
from pixelwise.metrics.scores import Tally, scores

METHOD = (
    "with Student's t on the logit scale, the effective number of {} per class, and variances shrunk towards their "
    "mean over the classes; those of means over classes are combined from the classes"
)
LABELS = Labels(("background", "road", "vehicle", "tram"))
MEANS = ("miou", "miou_present", "mean_dice", "pixel_accuracy", "frequency_weighted_iou")
FIXED = np.array([[70, 5, 3, 0], [4, 60, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def matrices(n=20, k=4, seed=0):
    """Draw images that differ in how good they are."""
    generator = np.random.default_rng(seed)
    quality = generator.beta(6, 2, n)
    truth = generator.multinomial(1000, generator.dirichlet(np.ones(k), n))
    return np.stack(
        [
            [generator.multinomial(c, q * np.eye(k)[i] + (1 - q) / k) for i, c in enumerate(t)]
            for t, q in zip(truth, quality, strict=True)
        ]
    )


def every_score(result):
    """List all scores with their names."""
    yield from ((name, getattr(result, name)) for name in MEANS)
    for entry, name in itertools.product(result.classes, ("iou", "dice", "precision", "recall")):
        yield f"{entry.name} {name}", getattr(entry, name)


def test_values_are_those_of_one_matrix_over_all_images():
    drawn = matrices()
    total, result = drawn.sum(0), scores(drawn, LABELS, ignored_pixels=12)
    assert result.miou.value == confusion.mean_iou(total)
    assert result.mean_dice.value == pytest.approx(confusion.dice(total).mean())
    assert result.pixel_accuracy.value == confusion.pixel_accuracy(total)
    assert result.frequency_weighted_iou.value == confusion.frequency_weighted_iou(total)
    for name in ("iou", "dice", "precision", "recall"):
        found = [getattr(entry, name).value for entry in result.classes]
        np.testing.assert_array_equal(found, getattr(confusion, name)(total))
    assert [entry.pixels for entry in result.classes] == total.sum(1).tolist()
    assert (result.images, result.ignored_pixels) == (20, 12)
    np.testing.assert_array_equal(result.confusion, total)


def test_classes_without_a_union_are_left_out_and_named():
    result = scores([FIXED, FIXED], LABELS)
    iou = [70 / 82, 60 / 69, 0.0]
    assert result.miou.value == pytest.approx(np.mean(iou))
    assert result.miou_present.value == pytest.approx(np.mean(iou[:2]))
    assert result.excluded == ("tram",)
    tram, vehicle = result.classes[3], result.classes[2]
    assert (tram.iou.value, tram.iou.low, tram.iou.high) == (None, None, None)
    assert (vehicle.iou.value, vehicle.precision.value, vehicle.recall.value) == (0, 0, None)
    assert result.convention == (
        "one confusion matrix over all images; means over 3 of 4 classes in ground truth or prediction, without tram; "
        "miou_present over the 2 in the ground truth; ignored pixels are excluded"
    )


def test_convention_without_excluded_classes():
    assert "means over 4 of 4 classes in ground truth or prediction; miou" in scores(matrices(), LABELS).convention


def test_intervals_enclose_the_values_and_are_described():
    result = scores(matrices(40), LABELS)
    for name, score in every_score(result):
        assert 0 < score.low < score.value < score.high < 1, name
    assert result.interval == "95 % jackknife over 40 images, " + METHOD.format("images")
    assert result.interval_method == {"method": "jackknife-logit-t", "unit": "image", "n": 40, "effective_n": 40.0}


def test_intervals_of_many_images_match_resampling_matrices():
    drawn = matrices(200)
    generator = np.random.default_rng(5)
    totals = np.stack([drawn[generator.integers(0, 200, 200)].sum(0) for _ in range(2000)])
    result = scores(drawn, LABELS)
    for found, values in (
        (result.miou, confusion.mean_iou(totals)),
        (result.pixel_accuracy, confusion.pixel_accuracy(totals)),
        *((entry.iou, iou) for entry, iou in zip(result.classes, confusion.iou(totals).T, strict=True)),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        assert found.low == pytest.approx(low, abs=(high - low) / 8)
        assert found.high == pytest.approx(high, abs=(high - low) / 8)


def test_the_mean_is_over_the_same_classes_without_an_image():
    """A class that one image of ten shows, never found: without that image, the score must not be better."""
    matrix = np.zeros((10, 3, 3), np.int64)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 1] = 95, 5, 95
    matrix[0, 2, 0] = 50
    result = scores(matrix, Labels(("road", "car", "tram")))
    for score in (result.miou, result.miou_present, result.mean_dice):
        # The class of one image may have any score elsewhere, but no lower one.
        assert score.value - 0.15 < score.low <= score.value
        assert score.value < score.high < score.value + 1 / 3 + 0.05
    assert (result.classes[2].iou.low, result.classes[2].iou.high) == (None, None)


@pytest.mark.parametrize("present", [1, 4, 5])
def test_class_in_few_images_has_no_interval_and_is_named(present):
    drawn = matrices(30)
    drawn[present:, 3], drawn[present:, :, 3] = 0, 0
    result = scores(drawn, LABELS)
    tram = result.classes[3]
    for score in (tram.iou, tram.dice, tram.recall, tram.precision):
        assert (score.low is None, score.high is None, score.n) == (present < 5, present < 5, present)
    assert all(entry.iou.low < entry.iou.value < entry.iou.high for entry in result.classes[:3])
    assert result.miou.low < result.miou.value < result.miou.high
    named = f"; no interval for classes in fewer than 5 images: tram ({present}); they are 25 % of the mIoU, whose "
    assert (named in result.interval) is (present < 5)
    # Images of one group are one unit, so that a class of many images may be in few units.
    together = scores(drawn, LABELS, groups=[i // 2 for i in range(30)])
    assert together.classes[3].iou.low is None
    assert f"in fewer than 5 groups: tram ({(present + 1) // 2})" in together.interval


def test_the_mean_contains_a_class_that_is_only_predicted():
    """Its IoU is 0, which no lower value can be, so that half of the other class's margin is the margin of the mean."""
    right = np.random.default_rng(0).integers(60, 90, 20)
    drawn = np.zeros((20, 2, 2), np.int64)
    drawn[:, 0, 0], drawn[:, 0, 1] = right, 100 - right
    result = scores(drawn, Labels(("road", "tram")))
    road, tram = (entry.iou for entry in result.classes)
    assert (tram.value, tram.low) == (0, 0)
    assert result.miou.value - result.miou.low == pytest.approx((road.value - road.low) / 2)
    assert result.miou_present.low == pytest.approx(road.low)


def test_many_rare_classes_are_abbreviated():
    labels = Labels(tuple(f"c{i}" for i in range(12)))
    drawn = np.zeros((20, 12, 12), np.int64)
    drawn[:, 0, 0], drawn[:, 0, 1] = 90, np.arange(20)
    drawn[0, range(2, 12), range(2, 12)] = 7
    assert scores(drawn, labels).interval.endswith(
        "; no interval for classes in fewer than 5 images: c2 (1), c3 (1), c4 (1), c5 (1), c6 (1), c7 (1) and 4 more; they are "
        "83 % of the mIoU, whose interval is less certain for it"
    )


def test_groups_are_one_unit():
    drawn = matrices(12).repeat(5, axis=0)
    groups = [f"patient {i}" for i in range(12) for _ in range(5)]
    alone, together = scores(drawn, LABELS), scores(drawn, LABELS, groups=groups)
    single = scores(matrices(12), LABELS)
    assert replace(together.miou, n=12) == single.miou
    assert together.miou.high - together.miou.low > 1.8 * (alone.miou.high - alone.miou.low)
    assert together.miou.value == alone.miou.value
    assert together.interval == "95 % jackknife over 12 groups of 60 images, " + METHOD.format("groups")
    assert together.interval_method == {"method": "jackknife-logit-t", "unit": "group", "n": 12, "effective_n": 12.0}


def test_images_without_a_group_are_units_of_their_own():
    groups = ["a", None, "a", *[None] * 8, 3]
    result = scores(matrices(12), LABELS, groups=groups)
    assert result.interval.startswith("95 % jackknife over 11 groups of 12 images, ")
    # The group of two images has two elevenths of the pixels, and more weight than the others.
    assert result.interval_method["effective_n"] == round(12**2 / (10 + 2**2), 1)


@pytest.mark.parametrize(
    ("drawn", "options", "sentence"),
    [
        (matrices(1), {}, "none: 1 image is too few, at least 10 are needed"),
        (matrices(2), {}, "none: 2 images are too few, at least 10 are needed"),
        (matrices(9), {}, "none: 9 images are too few, at least 10 are needed"),
        (matrices(30), {"groups": ["a"] * 30}, "none: 1 group of 30 images is too few, at least 10 are needed"),
        (
            matrices(30),
            {"groups": [*range(8), *[8] * 22]},
            "none: 9 groups of 30 images are too few, at least 10 are needed",
        ),
        (matrices(3), {"intervals": False}, "none: not requested"),
        (matrices(30), {"intervals": False}, "none: not requested"),
    ],
)
def test_no_interval_of_few_units_or_unless_requested(drawn, options, sentence):
    result = scores(drawn, LABELS, **options)
    assert result.interval == sentence
    assert result.interval_method["method"] == "none"
    for name, score in every_score(result):
        assert score.value is not None, name
        assert (score.low, score.high) == (None, None), name


def test_nothing_counted_is_undefined():
    result = scores(np.zeros((2, 4, 4), np.int64), LABELS, ignored_pixels=9)
    assert all(score.value is None and score.low is None for _, score in every_score(result))
    assert all(
        score.value is None and score.low is None
        for _, score in every_score(scores(np.zeros((12, 4, 4), np.int64), LABELS))
    )
    assert result.excluded == LABELS.names


def test_no_images_is_an_error():
    with pytest.raises(DataError, match="scores: expected at least one image, found none"):
        scores([], LABELS)


def test_plain_form_is_json_with_intervals():
    plain = json.loads(json.dumps(scores([FIXED] * 12, LABELS).to_dict(), allow_nan=False))
    assert plain["miou_low"] <= plain["miou"] <= plain["miou_high"]
    assert plain["classes"][3] | {"name": "tram", "iou": None, "iou_low": None, "pixels": 0} == plain["classes"][3]


def test_constant_prediction_has_high_accuracy_and_low_miou():
    """I4, with the 80 % that the demonstration promises."""
    matrix = np.zeros((5, 4, 4), np.int64)
    matrix[:, range(4), range(4)] = [800, 100, 60, 40]  # a perfect model, so that the truths are known
    tally = Tally(LABELS)
    for one in matrix:
        tally.add(one)
    baseline = tally.majority()
    assert baseline.pixel_accuracy.value == pytest.approx(0.8)
    assert baseline.miou.value == pytest.approx(0.8 / 4)
    assert [entry.iou.value for entry in baseline.classes] == [pytest.approx(0.8), 0, 0, 0]
    assert baseline.convention.startswith("every pixel predicted as 'background'; one confusion matrix")
    np.testing.assert_array_equal(baseline.confusion[:, 0], [4000, 500, 300, 200])
    assert tally.scores().miou.value == 1


def test_baseline_matches_scoring_a_constant_prediction():
    drawn = matrices(15)
    best = int(drawn.sum((0, 2)).argmax())
    constant = np.zeros_like(drawn)
    constant[:, :, best] = drawn.sum(2)
    tally = Tally(LABELS)
    for one in drawn:
        tally.add(one)
    expected, found = scores(constant, LABELS), tally.majority()
    assert list(every_score(found)) == list(every_score(expected))
    np.testing.assert_array_equal(found.confusion, expected.confusion)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.int64,
        hnp.array_shapes(min_dims=1, max_dims=1, max_side=16).map(lambda n: (*n, 4, 4)),
        elements=st.integers(0, 50),
    )
)
def test_scores_are_in_0_to_1_and_do_not_depend_on_image_order(drawn):
    result, turned = scores(drawn, LABELS), scores(drawn[::-1], LABELS)
    for (name, score), (_, other) in zip(every_score(result), every_score(turned), strict=True):
        assert score.value == other.value, name
        if score.value is not None:
            assert 0 <= score.value <= 1, name
        if score.low is not None:
            assert 0 <= score.low <= score.value <= score.high <= 1, name
            assert (score.low, score.high) == (pytest.approx(other.low), pytest.approx(other.high)), name
    for entry in result.classes:
        if entry.iou.value is not None:
            assert entry.dice.value == pytest.approx(2 * entry.iou.value / (1 + entry.iou.value))
