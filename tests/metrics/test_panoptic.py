"""Panoptic quality against hand, torchmetrics, a slow reading of the papers, and what panopticapi prints for COCO."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage
from torchmetrics.detection import PanopticQuality as TheirQuality

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics.intervals import Statistic, estimate
from pixelwise.metrics.panoptic import Segment, panoptic_means, panoptic_quality, panoptic_sums


def segments(**categories):
    """Read `segments(_7=1)` as: id 7 is of category 1."""
    return {int(name[1:]): Segment(category) for name, category in categories.items()}


def row(*runs):
    """Read `row((1, 4), (0, 2))` as an image of one line: four pixels of id 1, two of id 0."""
    return np.concatenate([np.full(length, value) for value, length in runs])[None]


def sums(truth, prediction, truth_segments, prediction_segments, k=2, **options):
    found = panoptic_sums(truth, prediction, truth_segments, prediction_segments, range(1, k + 1), **options)
    assert found.dtype == np.float64
    assert found.shape == (4, k)
    return found.tolist()


def drawn(seed=0, shape=(40, 50), regions=12, k=4, void=0.1, noise=0.15):
    """Draw regions around random points, and a prediction that has other points; the segments of both."""
    generator = np.random.default_rng(seed)
    places = np.indices(shape).reshape(len(shape), -1).T
    maps, known = [], []
    points = generator.random((regions, len(shape))) * shape
    of_category = generator.integers(1, k + 1, regions)
    for moved in (0, noise * min(shape)):
        shifted = points + generator.normal(size=points.shape) * moved
        ids = np.argmin(((places[:, None] - shifted) ** 2).sum(-1), 1).reshape(shape) + 1
        ids[generator.random(shape) < void] = 0
        categories = np.where(generator.random(regions) < (0.2 if moved else 0), 1, of_category)
        maps.append(ids)
        known.append({int(i): Segment(int(categories[i - 1])) for i in np.unique(ids) if i})
    return *maps, *known


def slow_sums(truth, prediction, truth_segments, prediction_segments, categories, boundary=None):
    """Follow the papers pair by pair, pixel set by pixel set."""

    def band(region):
        return region & ~ndimage.binary_erosion(region, np.ones((3,) * region.ndim), boundary, border_value=0)

    void = truth == 0
    result = np.zeros((4, len(categories)))
    matched = set()
    for t, (true, crowd) in truth_segments.items():
        hits = []
        for p, (predicted, _) in prediction_segments.items():
            a, b = truth == t, prediction == p
            iou = (a & b).sum() / (a | (b & ~void)).sum()
            if boundary is not None:
                x, y = band(a), band(b)
                iou = min(iou, (x & y).sum() / (x.sum() + (y & ~void).sum() - (x & y).sum()))
            if true == predicted and not crowd and iou > 0.5:
                hits.append(iou)
                matched.add(p)
        assert len(hits) <= 1
        if not crowd:
            result[0 if hits else 2, categories.index(true)] += 1
            result[3, categories.index(true)] += sum(hits)
    for p, (predicted, _) in prediction_segments.items():
        excused = void | np.isin(truth, [t for t, one in truth_segments.items() if one == (predicted, True)])
        if p not in matched and excused[prediction == p].mean() <= 0.5:
            result[1, categories.index(predicted)] += 1
    return result


# --- by hand: rows TP, FP, FN, ΣIoU; columns categories 1 and 2 ---


def test_a_match_counts_with_its_iou():
    truth, prediction = row((7, 6), (8, 4)), row((3, 8), (5, 2))
    found = sums(truth, prediction, segments(_7=1, _8=2), segments(_3=1, _5=2))
    assert found == [[1, 0], [0, 1], [0, 1], [6 / 8, 0]]  # category 2 meets with exactly one half: no match


def test_segments_of_other_categories_do_not_match():
    found = sums(row((1, 4)), row((1, 4)), segments(_1=1), segments(_1=2))
    assert found == [[0, 0], [0, 1], [1, 0], [0, 0]]


def test_only_one_prediction_matches_a_segment():
    found = sums(row((1, 10)), row((1, 7), (2, 3)), segments(_1=1), segments(_1=1, _2=1))
    assert found == [[1, 0], [1, 0], [0, 0], [0.7, 0]]
    halves = sums(row((1, 10)), row((1, 5), (2, 5)), segments(_1=1), segments(_1=1, _2=1))
    assert halves == [[0, 0], [2, 0], [1, 0], [0, 0]]


def test_unlabelled_pixels_are_left_out_of_the_union():
    truth, prediction = row((0, 5), (1, 4), (2, 1)), row((9, 10))
    found = sums(truth, prediction, segments(_1=1, _2=2), segments(_9=1))
    assert found == [[1, 0], [0, 0], [0, 1], [4 / 5, 0]]


@pytest.mark.parametrize(("in_void", "false"), [(5, 1), (6, 0)])
def test_predictions_mostly_on_unlabelled_pixels_are_not_false_positives(in_void, false):
    truth = row((0, in_void), (1, 10 - in_void), (1, 50))
    prediction = row((4, 10), (0, 50))
    found = sums(truth, prediction, segments(_1=2), segments(_4=1))
    assert found == [[0, 0], [false, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(("category", "false"), [(1, 0), (2, 1)])
def test_crowds_excuse_predictions_of_their_own_category(category, false):
    truth, prediction = row((3, 10)), row((4, 6), (0, 4))
    found = sums(truth, prediction, {3: Segment(1, crowd=True)}, segments(_4=category))
    assert np.sum(found) == found[1][category - 1] == false


def test_crowds_are_neither_matched_nor_missed():
    crowd = {3: Segment(1, crowd=True)}
    assert np.sum(sums(row((3, 10)), row((4, 10)), crowd, segments(_4=1))) == 0
    assert np.sum(sums(row((3, 10)), row((0, 10)), crowd, {})) == 0


def test_unlabelled_pixels_and_crowds_excuse_together():
    truth = row((0, 2), (3, 2), (4, 2), (5, 5))
    prediction = row((9, 11))
    both = {3: Segment(1, crowd=True), 4: Segment(1, crowd=True), 5: Segment(2)}
    assert sums(truth, prediction, both, segments(_9=1)) == [[0, 0], [0, 0], [0, 1], [0, 0]]
    other = {**both, 4: Segment(2, crowd=True)}
    assert sums(truth, prediction, other, segments(_9=1)) == [[0, 0], [1, 0], [0, 1], [0, 0]]


def test_crowd_flags_of_the_prediction_are_not_used():
    crowd = {1: Segment(1, crowd=True)}
    assert sums(row((1, 4)), row((1, 4)), segments(_1=1), crowd) == [[1, 0], [0, 0], [0, 0], [1, 0]]


def test_unlabelled_truth_counts_nothing():
    found = sums(row((0, 9)), row((1, 4), (2, 5)), {}, segments(_1=1, _2=2))
    assert np.sum(found) == 0
    assert np.isnan(panoptic_quality(np.array(found)).pq).all()


def test_empty_prediction_misses_everything():
    assert sums(row((1, 4), (2, 5)), row((0, 9)), segments(_1=1, _2=2), {}) == [[0, 0], [0, 0], [1, 1], [0, 0]]


def test_single_pixels_are_segments():
    truth = np.arange(1, 10).reshape(3, 3)
    every = {i: Segment(1) for i in range(1, 10)}
    for share in (None, 0.02, 5.0):
        assert sums(truth, truth, every, every, boundary_share=share) == [[9, 0], [0, 0], [0, 0], [9, 0]]


@pytest.mark.parametrize("share", [None, 0.02])
def test_empty_image_counts_nothing(share):
    empty = np.zeros((0, 4), np.int64)
    assert np.sum(sums(empty, empty, {}, {}, boundary_share=share)) == 0


def test_other_void_id_allows_segment_zero():
    truth, prediction = row((0, 6), (255, 4)), row((0, 8), (255, 2))
    found = sums(truth, prediction, {0: Segment(1)}, {0: Segment(1)}, void_id=255)
    assert found == [[1, 0], [0, 0], [0, 0], [1, 0]]
    small = panoptic_sums(
        truth.astype(np.uint8), prediction, segments(_0=1, _255=2), segments(_0=1, _255=2), (1, 2), void_id=-1
    )
    np.testing.assert_allclose(small, [[1, 0], [0, 1], [0, 1], [6 / 8, 0]])


def test_columns_follow_the_categories_given():
    truth, known = row((1, 3), (2, 4)), segments(_1=200, _2=13)
    np.testing.assert_array_equal(panoptic_sums(truth, truth, known, known, [13, 1, 200])[0], [1, 0, 1])


def shifted_square():
    """Draw a square of 15 × 15 before a ground, and one a column to the right: IoU 210 / 240."""
    truth, prediction = np.full((2, 21, 21), 2)
    truth[3:18, 3:18] = 1
    prediction[3:18, 4:19] = 1
    return truth, prediction, segments(_1=1, _2=2), segments(_1=1, _2=2)


def test_boundary_iou_applies_if_it_is_smaller():
    found = sums(*shifted_square(), boundary_share=None)
    assert found[3][0] == pytest.approx(210 / 240)
    # The diagonal is 29.7. A band of 3 has 15² - 9² = 144 pixels; shared are 6 rows of 14 and 9 rows of 4.
    found = sums(*shifted_square(), boundary_share=0.1)
    assert found[3][0] == pytest.approx(120 / (2 * 144 - 120))
    # A band of 1 has 56 pixels; shared are 2 rows of 14: one third is no match.
    found = sums(*shifted_square(), boundary_share=0.02)
    assert [rows[0] for rows in found] == [0, 1, 1, 0]


def test_unlabelled_pixels_are_left_out_of_the_boundary_too():
    truth, prediction, _, known = shifted_square()
    truth[truth == 2] = 0
    found = sums(truth, prediction, segments(_1=1), known, boundary_share=0.1)
    # The predicted band loses its last column, 15 pixels.
    assert found == [[1, 0], [0, 0], [0, 0], [pytest.approx(120 / (144 + 129 - 120)), 0]]


# --- volumes, types, views ---


@pytest.mark.parametrize("share", [None, 0.08])
def test_volumes_are_scored(share):
    truth, prediction, known, found = drawn(3, (9, 12, 14), regions=8)
    width = max(1, round(0.08 * np.sqrt(9**2 + 12**2 + 14**2)))
    expected = slow_sums(truth, prediction, known, found, [1, 2, 3, 4], None if share is None else width)
    np.testing.assert_allclose(
        panoptic_sums(truth, prediction, known, found, [1, 2, 3, 4], boundary_share=share), expected, atol=1e-12
    )
    assert expected[0].sum() > 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.uint64])
@pytest.mark.parametrize("share", [None, 0.02])
def test_every_integer_type_gives_the_same(dtype, share):
    truth, prediction, *known = drawn(1)
    np.testing.assert_array_equal(
        panoptic_sums(truth.astype(dtype), prediction.astype(dtype), *known, range(1, 5), boundary_share=share),
        panoptic_sums(truth, prediction, *known, range(1, 5), boundary_share=share),
    )


def test_large_ids_are_distinguished():
    truth, prediction, known, found = drawn(2)
    expected = panoptic_sums(truth, prediction, known, found, range(1, 5))
    for step in (2**24 // 13, 2**58):
        renamed = {i * step: one for i, one in known.items()}, {i * step: one for i, one in found.items()}
        np.testing.assert_array_equal(panoptic_sums(truth * step, prediction * step, *renamed, range(1, 5)), expected)


def test_views_work_and_inputs_are_not_modified():
    truth, prediction, *known = drawn(4)
    expected = panoptic_sums(truth, prediction, *known, range(1, 5))
    for array in (truth, prediction):
        array.setflags(write=False)
    np.testing.assert_array_equal(panoptic_sums(truth.T, prediction.T, *known, range(1, 5)), expected)
    turned = panoptic_sums(truth[::-1, ::-1], prediction[::-1, ::-1], *known, range(1, 5), boundary_share=0.02)
    np.testing.assert_allclose(
        turned, panoptic_sums(truth, prediction, *known, range(1, 5), boundary_share=0.02), atol=1e-12
    )


# --- others ---


@pytest.mark.parametrize("seed", range(4))
def test_sums_match_a_slow_implementation(seed):
    truth, prediction, known, found = drawn(seed)
    known = {i: Segment(one.category, crowd=i % 4 == 0) for i, one in known.items()}
    for share, width in ((None, None), (0.01, 1), (0.03, 2), (0.08, 5)):
        expected = slow_sums(truth, prediction, known, found, [1, 2, 3, 4], width)
        np.testing.assert_allclose(
            panoptic_sums(truth, prediction, known, found, [1, 2, 3, 4], boundary_share=share), expected, atol=1e-12
        )


def test_quality_matches_torchmetrics():
    theirs = TheirQuality(things={1, 2}, stuffs={3, 4}, return_sq_and_rq=True, return_per_class=True)
    total = np.zeros((4, 4))
    for seed in range(3):
        # Stuff is one segment per image for torchmetrics: merge it here.
        truth, prediction, *known = drawn(seed, void=0)
        images = []
        for i, ids in enumerate((truth, prediction)):
            category = np.vectorize(lambda value, of=known[i]: of[value].category)(ids)
            instance = np.where(category > 2, 0, ids)
            joined = np.where(category > 2, 1000 + category, ids)
            known[i] = {int(j): Segment(int(category[joined == j][0])) for j in np.unique(joined)}
            images.append((joined, torch.from_numpy(np.stack([category, instance], -1))[None]))
        theirs.update(images[1][1], images[0][1])
        total += panoptic_sums(images[0][0], images[1][0], *known, [1, 2, 3, 4])
    ours = panoptic_quality(total)
    np.testing.assert_allclose(np.stack(ours[:3], -1), theirs.compute().numpy(), rtol=1e-6)
    assert 0.2 < ours.pq.mean() < 0.9


@pytest.mark.parametrize(
    ("share", "name"), [(None, "expected_pq_panopticapi.json"), (0.02, "expected_boundary_pq.json")]
)
def test_reference_scores_on_coco_are_reproduced(real, share, name):
    folder = real("fixtures/panoptic_coco100")
    truth, prediction, expected = (json.loads((folder / file).read_text()) for file in ("gt.json", "pred.json", name))
    categories = [one["id"] for one in truth["categories"]]
    predicted = {one["image_id"]: one for one in prediction["annotations"]}
    total = np.zeros((4, len(categories)))
    for one in truth["annotations"]:
        pair = one, predicted[one["image_id"]]
        maps = [_ids(folder / part / each["file_name"]) for part, each in zip(("gt", "pred"), pair, strict=True)]
        known = [
            {s["id"]: Segment(s["category_id"], s["iscrowd"] == 1) for s in each["segments_info"]} for each in pair
        ]
        total += panoptic_sums(*maps, *known, categories, boundary_share=share, where=one["file_name"])
    quality = panoptic_quality(total)
    for k, category in enumerate(categories):
        theirs = expected["per_class"].get(str(category), {"pq": 0, "sq": 0, "rq": 0})
        ours = [quality.pq[k], quality.sq[k], quality.rq[k]]
        # panopticapi prints 0 for a category that is absent altogether.
        np.testing.assert_allclose(np.nan_to_num(ours), list(theirs.values()), rtol=0, atol=1e-9, err_msg=str(category))
    means = panoptic_means(total, [one["isthing"] == 1 for one in truth["categories"]])
    for ours, theirs in ((means.all, "All"), (means.things, "Things"), (means.stuff, "Stuff")):
        np.testing.assert_allclose(ours, list(expected[theirs].values()), rtol=0, atol=1e-9, err_msg=theirs)


def _ids(path):
    colours = np.asarray(Image.open(path)).astype(np.uint32)
    return colours @ np.array([1, 256, 65536], np.uint32)


# --- properties ---

maps = hnp.arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5))
shares = st.sampled_from([None, 0.02, 0.2])


def all_segments(ids, categories):
    return {int(i): Segment(categories[i]) for i in np.unique(ids) if i}


@settings(max_examples=60, deadline=None)
@given(maps, st.lists(st.integers(1, 3), min_size=6, max_size=6), shares)
def test_perfect_prediction_has_quality_one(ids, categories, share):
    known = all_segments(ids, categories)
    quality = panoptic_quality(panoptic_sums(ids, ids, known, known, [1, 2, 3], boundary_share=share))
    shown = {one.category for one in known.values()}
    for values in quality[:3]:
        np.testing.assert_array_equal(values, [1.0 if k in shown else np.nan for k in (1, 2, 3)])


@settings(max_examples=60, deadline=None)
@given(st.data(), maps, st.lists(st.integers(1, 3), min_size=12, max_size=12), shares)
def test_segment_ids_do_not_matter(data, truth, categories, share):
    prediction = data.draw(hnp.arrays(np.int64, truth.shape, elements=st.integers(0, 5)))
    known = all_segments(truth, categories[:6]), all_segments(prediction, categories[6:])
    expected = panoptic_sums(truth, prediction, *known, [1, 2, 3], boundary_share=share)
    names = np.array([0, *data.draw(st.permutations([17, 3, 2**24, 5, 90]))])
    renamed = [{int(names[i]): one for i, one in reversed(side.items())} for side in known]
    for pair in (
        (names[truth], prediction, renamed[0], known[1]),
        (truth, names[prediction], known[0], renamed[1]),
    ):
        np.testing.assert_allclose(panoptic_sums(*pair, [1, 2, 3], boundary_share=share), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data(), maps, st.lists(st.integers(1, 3), min_size=12, max_size=12), shares)
def test_quality_is_the_product_of_its_parts_and_no_segment_is_lost(data, truth, categories, share):
    prediction = data.draw(hnp.arrays(np.int64, truth.shape, elements=st.integers(0, 5)))
    known = all_segments(truth, categories[:6]), all_segments(prediction, categories[6:])
    total = panoptic_sums(truth, prediction, *known, [1, 2, 3], boundary_share=share)
    pq, sq, rq, present = panoptic_quality(total)
    np.testing.assert_allclose(pq, sq * rq, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(pq), present == 0)
    assert total[0].sum() + total[2].sum() == len(known[0])
    assert total[0].sum() + total[1].sum() <= len(known[1])
    slow = slow_sums(truth, prediction, *known, [1, 2, 3], None if share is None else _width(truth.shape, share))
    np.testing.assert_allclose(total, slow, atol=1e-12)


def _width(shape, share):
    return max(1, round(share * np.hypot(*shape)))


# --- quality and means ---


def test_quality_by_hand():
    total = np.array([[2, 0, 0, 0], [1, 3, 0, 0], [1, 0, 2, 0], [1.5, 0, 0, 0]])
    pq, sq, rq, present = panoptic_quality(total)
    np.testing.assert_allclose(pq, [0.5, 0, 0, np.nan])
    np.testing.assert_allclose(sq, [0.75, 0, 0, np.nan])
    np.testing.assert_allclose(rq, [2 / 3, 0, 0, np.nan])
    np.testing.assert_array_equal(present, [1, 1, 1, 0])
    means = panoptic_means(total, [True, False, False, True])
    assert [float(one.pq) for one in means] == pytest.approx([0.5 / 3, 0.5, 0])
    assert [int(one.categories) for one in means] == [3, 1, 2]


def test_means_without_categories_are_undefined():
    means = panoptic_means(np.zeros((4, 2)), [True, True])
    for one in means:
        assert np.isnan([one.pq, one.sq, one.rq]).all()
        assert one.categories == 0


def test_sums_keep_leading_axes_and_can_have_intervals():
    images = np.stack([panoptic_sums(*drawn(seed), range(1, 5)) for seed in range(6)])
    things = [True, True, False, False]
    for i, image in enumerate(images):
        for many, one in zip(panoptic_means(images, things), panoptic_means(image, things), strict=True):
            np.testing.assert_array_equal(np.stack(many)[:, i], np.stack(one))

    def statistic(totals, _):
        return np.stack([one.pq for one in panoptic_means(totals.reshape(-1, 4, 4), things)], -1)

    spread = estimate(images.reshape(6, -1), Statistic(statistic, ("pq", "pq_things", "pq_stuff")))
    low, high = spread.bounds()
    assert (low < spread.values).all()
    assert (spread.values < high).all()


def test_wrong_number_of_flags_is_an_error():
    with pytest.raises(UsageError) as error:
        panoptic_means(np.zeros((4, 3)), [True])
    assert str(error.value) == (
        "things: expected one flag for each of the 3 categories, found 1. "
        "Pass one flag per category, in the order of the columns, true for things."
    )


# --- what is refused ---


@pytest.mark.parametrize(
    ("truth", "prediction", "text"),
    [
        (
            segments(_1=1),
            {},
            "a.png: expected a segment for every id except 0, the id of unlabelled pixels, found none for id 1 in 3 pixels of the "
            "prediction. Add it to the segments, or set its pixels to void_id.",
        ),
        (
            segments(_1=1, _4=1),
            segments(_1=1),
            "a.png: expected pixels for every segment, found none for id 4 of the truth. "
            "Remove segments without pixels, and check that this is the right map.",
        ),
        (
            segments(_1=1),
            segments(_1=9),
            "a.png: expected one of the 2 categories, found 9 for id 1 of the prediction. "
            "Add it to the categories, or remove the segment and set its pixels to void_id.",
        ),
        (
            segments(_0=1, _1=1),
            segments(_1=1),
            "a.png: expected no segment with the id of unlabelled pixels, 0, found one in the truth. "
            "Give the segment another id, or set void_id.",
        ),
    ],
)
def test_inconsistent_maps_and_segments_are_errors(truth, prediction, text):
    ids = row((0, 2), (1, 3))
    with pytest.raises(MaskError) as error:
        panoptic_sums(ids, ids, truth, prediction, [1, 2], where="a.png")
    assert str(error.value) == text


def test_another_size_is_an_error():
    with pytest.raises(MaskError) as error:
        panoptic_sums(np.zeros((4, 6), int), np.zeros((2, 3), int), {}, {}, [1], where="b.png")
    assert str(error.value) == (
        "b.png: expected the size of the truth, (4, 6), found (2, 3). "
        "Score at native size: resize the model's output before making segments, never the truth."
    )


def test_floating_point_maps_are_an_error():
    with pytest.raises(MaskError, match="expected integers, found truth of float64"):
        panoptic_sums(np.zeros((2, 2)), np.zeros((2, 2), int), {}, {}, [1])


def test_repeated_category_is_an_error():
    with pytest.raises(UsageError, match="categories: expected each category once, found 1 listed again"):
        panoptic_sums(np.zeros((2, 2), int), np.zeros((2, 2), int), {}, {}, [1, 2, 1])


@pytest.mark.parametrize("share", [0, -0.1, float("nan")])
def test_invalid_share_is_an_error(share):
    with pytest.raises(UsageError, match="expected a positive share of the diagonal"):
        panoptic_sums(np.zeros((2, 2), int), np.zeros((2, 2), int), {}, {}, [1], boundary_share=share)
