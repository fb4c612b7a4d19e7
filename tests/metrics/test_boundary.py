"""Bands against repeated erosion, contours against distance transforms class by class, both against hand-drawn cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics import boundary

regions = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9))
small = hnp.array_shapes(min_dims=2, max_dims=3, max_side=8)


@st.composite
def pairs(draw, k=4):
    """Draw a truth with ignored pixels (255) and a prediction of K classes."""
    shape = draw(small)
    truth = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([*range(k), 255])))
    return truth, draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, k - 1)))


def scene(k, shape=(60, 80), seed=0):
    """Draw soft regions of K classes and the same moved by a pixel or two, with a void strip and a void corner."""
    generator = np.random.default_rng(seed)
    truth = np.argmax([ndimage.gaussian_filter(generator.normal(size=shape), 4) for _ in range(k)], 0).astype(np.uint8)
    prediction = np.roll(truth, (1, 2), (0, 1))
    truth[20:23] = 255
    truth[:9, :9] = 255
    return truth, prediction


def eroded_band(region, width):
    """Do as the reference does: pad with outside, erode by 3×3 `width` times, subtract."""
    padded = np.pad(region, 1)
    structure = np.ones((3,) * region.ndim, bool)
    core = ndimage.binary_erosion(padded, structure, iterations=width)
    return region & ~core[(slice(1, -1),) * region.ndim]


# --- width ---


@pytest.mark.parametrize(
    ("shape", "share", "width"),
    [((480, 640), 0.02, 16), ((1024, 2048), 0.005, 11), ((3, 4), 0.02, 1), ((30, 40), 0.05, 2), ((30, 40), 0.07, 4)],
)
def test_width_is_a_share_of_the_diagonal_rounded_to_even(shape, share, width):
    # 0.05 × 50 = 2.5 goes to 2, 0.07 × 50 = 3.5 to 4, as Python and the reference round.
    assert boundary.boundary_width(shape, share) == width


@pytest.mark.parametrize("share", [0.0, -0.1, float("nan"), float("inf")])
def test_invalid_share_is_an_error(share):
    with pytest.raises(UsageError) as error:
        boundary.boundary_width((4, 4), share)
    assert str(error.value) == (
        f"share: expected a positive share of the diagonal, found {share}. Use 0.02, as the authors do."
    )


# --- bands ---


@settings(max_examples=150, deadline=None)
@given(regions, st.integers(1, 6))
def test_band_matches_repeated_erosion(region, width):
    np.testing.assert_array_equal(boundary.boundary_band(region, width), eroded_band(region, width))


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 16, 40])
def test_band_of_large_regions_matches_repeated_erosion(width):
    truth, _ = scene(3, (120, 150))
    for value in range(3):
        np.testing.assert_array_equal(boundary.boundary_band(truth == value, width), eroded_band(truth == value, width))


def test_band_by_hand():
    region = np.zeros((7, 9), bool)
    region[1:6, 2:9] = True  # touches the right border, which is outside
    expected = region.copy()
    expected[2:5, 3:8] = False
    np.testing.assert_array_equal(boundary.boundary_band(region, 1), expected)
    expected[2:5, 3:8] = True
    expected[3, 4:7] = False
    np.testing.assert_array_equal(boundary.boundary_band(region, 2.9), expected)
    np.testing.assert_array_equal(boundary.boundary_band(region, 3), region)
    assert not boundary.boundary_band(np.zeros((4, 4), bool), 2).any()


def test_region_is_not_modified_and_views_work():
    region = np.pad(np.ones((20, 12), bool), 3)
    before = region.copy()
    view = region.T[::2]
    np.testing.assert_array_equal(boundary.boundary_band(view, 1), eroded_band(view.copy(), 1))
    np.testing.assert_array_equal(region, before)


@pytest.mark.parametrize("width", [0, 0.9, -1, float("nan"), float("inf")])
def test_width_below_one_is_an_error(width):
    with pytest.raises(UsageError) as error:
        boundary.boundary_band(np.ones((3, 3), bool), width)
    assert str(error.value) == f"width: expected one pixel or more, found {width}. Use boundary_width(shape)."
    with pytest.raises(UsageError):
        boundary.class_bands(np.ones((3, 3), np.uint8), width)


def test_masks_of_wrong_type_are_errors():
    with pytest.raises(MaskError, match=r"region: expected bool, found uint8\. Compare the mask with one class."):
        boundary.boundary_band(np.ones((3, 3), np.uint8), 1)
    with pytest.raises(MaskError, match=r"mask: expected integers, found float64\. Pass class indices or ids."):
        boundary.class_bands(np.ones((3, 3)), 1)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.int64, small, elements=st.sampled_from([-(2**40), 0, 3, 2**40])), st.integers(1, 4))
def test_class_bands_match_the_bands_of_each_class(mask, width):
    bands = boundary.class_bands(mask, width)
    for value in np.unique(mask):
        np.testing.assert_array_equal(bands & (mask == value), eroded_band(mask == value, width))


@settings(max_examples=100, deadline=None)
@given(pairs(), st.integers(1, 4))
def test_ignored_pixels_are_neither_inside_nor_outside(pair, width):
    mask, _ = pair
    bands = boundary.class_bands(mask, width, 255)
    assert not bands[mask == 255].any()
    for value in range(4):
        # As if void belonged to the class itself: then it makes no edge.
        expected = eroded_band((mask == value) | (mask == 255), width) & (mask == value)
        np.testing.assert_array_equal(bands & (mask == value), expected)


@pytest.mark.parametrize("ignore", [0, 255])
def test_ignore_index_at_the_limits_of_the_type_makes_no_edge(ignore):
    mask = np.full((9, 9), 7, np.uint8)
    mask[4, 4] = ignore
    inside = boundary.class_bands(mask, 1, ignore)[1:-1, 1:-1]
    assert not inside.any()
    assert boundary.class_bands(mask, 1)[1:-1, 1:-1].sum() == 9


def test_an_empty_image_has_no_band():
    assert boundary.class_bands(np.zeros((0, 4), np.uint8), 1).shape == (0, 4)
    assert boundary.boundary_band(np.zeros((0, 4), bool), 1).shape == (0, 4)


# --- boundary IoU ---


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([0.02, 0.2, 0.4]))
def test_counts_match_each_class_alone(pair, share):
    truth, prediction = pair
    counts = boundary.boundary_counts(truth, prediction, 4, 255, share)
    width, void = boundary.boundary_width(truth.shape, share), truth == 255
    for value in range(4):
        bands = [eroded_band((m == value) | void, width) & (m == value) & ~void for m in (truth, prediction)]
        expected = [(bands[0] & bands[1]).sum(), bands[0].sum(), bands[1].sum()]
        np.testing.assert_array_equal(counts[:, value], expected)


def test_boundary_iou_by_hand():
    truth, prediction = np.zeros((2, 10, 10), np.uint8)
    truth[2:7, 2:7] = 1
    prediction[2:7, 3:8] = 1
    counts = boundary.boundary_counts(truth, prediction, 3)
    assert boundary.boundary_width((10, 10)) == 1
    # Rings of 16; they share four pixels of the upper and four of the lower side.
    np.testing.assert_array_equal(counts[:, 1], [8, 16, 16])
    # Background: the image's border (36) and the ring of 24 around each square; rows 1 and 7 share six pixels each.
    np.testing.assert_array_equal(counts[:, 0], [36 + 12, 36 + 24, 36 + 24])
    assert counts.dtype == np.int64
    np.testing.assert_allclose(boundary.boundary_iou(counts)[:2], [48 / 72, 8 / 24])
    assert np.isnan(boundary.boundary_iou(counts)[2])


def test_predictions_on_ignored_pixels_are_not_counted():
    truth, prediction = scene(5)
    expected = boundary.boundary_counts(truth, prediction, 5), boundary.contour_counts(truth, prediction, 5)
    for value in (0, 4, 200, -7):
        other = np.where(truth == 255, value, prediction.astype(int))
        np.testing.assert_array_equal(boundary.boundary_counts(truth, other, 5), expected[0])
        np.testing.assert_array_equal(boundary.contour_counts(truth, other, 5), expected[1])


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_perfect_prediction_scores_one_with_ignored_pixels(pair):
    truth, prediction = pair
    perfect = np.where(truth == 255, prediction, truth)
    scores = boundary.boundary_iou(boundary.boundary_counts(truth, perfect, 4))
    present = np.bincount(truth.reshape(-1), minlength=256)[:4] > 0
    assert (scores[~np.isnan(scores)] == 1).all()
    assert not (~np.isnan(scores) & ~present).any()
    f_score = boundary.boundary_f_score(boundary.contour_counts(truth, perfect, 4, tolerance=0))
    assert (f_score[~np.isnan(f_score)] == 1).all()


def test_boundary_iou_is_more_sensitive_to_coarse_predictions_than_iou():
    truth, _ = scene(2, (100, 100))
    prediction = (ndimage.gaussian_filter((truth == 1).astype(float), 5) > 0.5).astype(np.uint8)
    iou = ((truth == 1) & (prediction == 1)).sum() / (((truth == 1) | (prediction == 1)) & (truth != 255)).sum()
    assert boundary.boundary_iou(boundary.boundary_counts(truth, prediction, 2))[1] < iou - 0.1


def test_counts_add_up_and_ratios_keep_leading_axes():
    parts = [scene(4, seed=s) for s in range(6)]
    for count, score in (
        (boundary.boundary_counts, boundary.boundary_iou),
        (boundary.contour_counts, boundary.boundary_f_score),
        (boundary.contour_counts, boundary.contour_precision),
        (boundary.contour_counts, boundary.contour_recall),
    ):
        counts = np.stack([count(t, p, 5) for t, p in parts]).reshape(2, 3, -1, 5)
        scores = score(counts)
        assert scores.shape == (2, 3, 5)
        np.testing.assert_array_equal(scores[1, 2], score(counts[1, 2]))
        # Over the set it is the ratio of sums, not the mean of ratios.
        whole = score(counts.sum((0, 1)))
        assert np.isnan(whole[4])
        assert (whole[:4] != scores.mean((0, 1))[:4]).all()


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_every_integer_type_gives_the_same(kind):
    truth, prediction = scene(4)
    for count in (boundary.boundary_counts, boundary.contour_counts):
        np.testing.assert_array_equal(
            count(truth.astype(kind), prediction.astype(kind), 4), count(truth, prediction, 4)
        )
        np.testing.assert_array_equal(
            count(np.where(truth == 255, -1, truth.astype(int)), prediction, 4, -1), count(truth, prediction, 4)
        )


def test_more_than_256_classes():
    truth, prediction = scene(4)
    wide = [np.where(m == 255, 65535, m.astype(np.uint16) * 90) for m in (truth, prediction)]
    for count in (boundary.boundary_counts, boundary.contour_counts):
        np.testing.assert_array_equal(count(*wide, 300, 65535)[:, ::90], count(truth, prediction, 4))


@pytest.mark.parametrize("count", [boundary.boundary_counts, boundary.contour_counts])
def test_same_errors_as_confusion_matrix(count):
    with pytest.raises(MaskError, match=r"a.png: expected the size of the truth, \(4, 6\), found \(2, 3\)"):
        count(np.zeros((4, 6), np.uint8), np.zeros((2, 3), np.uint8), 2, where="a.png")
    with pytest.raises(MaskError, match="found 5 in the prediction"):
        count(np.zeros((2, 2), np.uint8), np.full((2, 2), 5, np.uint8), 2)
    with pytest.raises(UsageError, match="expected a value outside the class indices 0–2, found 0"):
        count(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 3, 0)


@pytest.mark.parametrize("count", [boundary.boundary_counts, boundary.contour_counts])
def test_masks_are_not_modified(count):
    truth, prediction = scene(4)
    before = truth.copy(), prediction.copy()
    count(truth, prediction, 4)
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(prediction, before[1])


# --- contours ---


def slow_contour(mask, value, void):
    """Give the class's pixels with a known face neighbour outside it, by shifting one step in every direction."""
    region, other = (mask == value) & ~void, (mask != value) & ~void
    touched = np.zeros(mask.shape, bool)
    for axis in range(mask.ndim):
        for step in (1, -1):
            moved = np.roll(other, step, axis)
            edge = (slice(None),) * axis + (0 if step == 1 else -1,)
            moved[edge] = False
            touched |= moved
    return region & touched


def slow_counts(truth, prediction, k, tolerance):
    """Measure every class's contours by a distance transform of its own."""
    void, counts = truth == 255, np.zeros((4, k), np.int64)
    for value in range(k):
        edges = [slow_contour(mask, value, void) for mask in (prediction, truth)]
        for row, (own, other) in zip((0, 2), (edges, edges[::-1]), strict=True):
            counts[row + 1, value] = own.sum()
            if other.any():
                counts[row, value] = (ndimage.distance_transform_edt(~other)[own] <= tolerance).sum()
    return counts


@settings(max_examples=80, deadline=None)
@given(pairs(), st.sampled_from([0, 0.5, 1, 1.42, 2, 5**0.5, 3.7, 20]))
def test_contour_matches_agree_with_a_distance_transform(pair, tolerance):
    truth, prediction = pair
    counts = boundary.contour_counts(truth, prediction, 4, 255, tolerance)
    np.testing.assert_array_equal(counts, slow_counts(truth, prediction, 4, tolerance))
    assert counts.dtype == np.int64


@pytest.mark.parametrize("tolerance", [0, 1, 3, 7.5])
def test_contour_matches_of_larger_scenes_agree_with_a_distance_transform(tolerance):
    truth, prediction = scene(6, (90, 120))
    prediction[40:50, 60:80] = 2
    expected = slow_counts(truth, prediction, 6, tolerance)
    np.testing.assert_array_equal(boundary.contour_counts(truth, prediction, 6, 255, tolerance), expected)


def test_contours_by_hand():
    mask = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 255]])
    expected = np.array([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 0, 0, 0]], bool)
    # Neither the lower border, nor the void beside the corner, nor a diagonal neighbour makes a contour.
    np.testing.assert_array_equal(boundary.contours(mask, 255), expected)
    expected[3, 3:] = True
    np.testing.assert_array_equal(boundary.contours(mask), expected)
    assert not boundary.contours(np.ones((4, 4), np.uint8)).any()


def test_shifted_square_matches_within_its_shift():
    truth, prediction = np.zeros((2, 20, 20), np.uint8)
    truth[5:10, 5:10] = 1
    prediction[5:10, 8:13] = 1
    scores = [
        boundary.boundary_f_score(boundary.contour_counts(truth, prediction, 2, tolerance=t))[1] for t in (0, 1, 2, 3)
    ]
    # 16 contour pixels each: 4 shared; the sides come in one column of pairs (3 pixels at rows 6–8) at distance 3.
    assert scores[0] == pytest.approx(4 / 16)
    assert scores[3] == 1
    assert scores == sorted(scores)
    assert scores[2] < 1


def test_f_score_of_missing_and_false_contours():
    counts = np.array([[0, 0, 0, 3], [0, 5, 0, 6], [0, 0, 0, 2], [4, 0, 0, 2]])
    np.testing.assert_array_equal(boundary.boundary_f_score(counts), [0, 0, np.nan, 2 * 0.5 / 1.5])
    np.testing.assert_array_equal(boundary.contour_precision(counts), [np.nan, 0, np.nan, 0.5])
    np.testing.assert_array_equal(boundary.contour_recall(counts), [0, np.nan, np.nan, 1])


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_invalid_tolerance_is_an_error(tolerance):
    with pytest.raises(UsageError) as error:
        boundary.contour_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 2, tolerance=tolerance)
    assert str(error.value) == (f"tolerance: expected a distance in pixels, found {tolerance}. Use zero or more.")


# --- a published network on CamVid's test part ---


def test_published_network_has_lower_boundary_scores(real):
    folder, truths = real("fixtures") / "camvid_espnet_test" / "pred12", real("camvid") / "testannot"
    counts, contour = np.zeros((3, 12), np.int64), np.zeros((4, 12), np.int64)
    for path in sorted(folder.glob("*.png"))[:6]:
        truth, prediction = np.asarray(Image.open(truths / path.name)), np.asarray(Image.open(path))
        truth = np.where(truth == 11, 255, truth)
        one = boundary.boundary_counts(truth, prediction, 12)
        void = truth == 255
        for value in np.unique(truth[~void]):
            bands = [eroded_band((m == value) | void, 12) & (m == value) & ~void for m in (truth, prediction)]
            assert one[:, value].tolist() == [(bands[0] & bands[1]).sum(), bands[0].sum(), bands[1].sum()]
        counts += one
        contour += boundary.contour_counts(truth, prediction, 12, tolerance=0.0075 * 600)
    assert boundary.boundary_width((360, 480)) == 12
    scores = boundary.boundary_iou(counts)[:11]
    assert 0.3 < np.nanmean(scores) < 0.5717
    assert 0.3 < np.nanmean(boundary.boundary_f_score(contour)[:11]) < 0.9
    assert counts[1, 11] == 0  # void in the truth, though the network predicts it
