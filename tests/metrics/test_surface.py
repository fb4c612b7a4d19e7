"""Surfaces against the reference's printed figures, MONAI's copy of its tables, distance transforms and closed forms."""

from __future__ import annotations

import itertools
import json
import math

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics import surface
from pixelwise.metrics.surface import SurfaceDistances, surface_distances

shapes = hnp.array_shapes(min_dims=2, max_dims=3, max_side=7)
spacings = st.tuples(*[st.sampled_from([0.3, 0.7, 1.0, 2.5])] * 3)


@st.composite
def pairs(draw):
    """Draw two regions and a spacing."""
    shape = draw(shapes)
    regions = [draw(hnp.arrays(np.bool_, shape)) for _ in range(2)]
    return regions[0], regions[1], draw(spacings)[: len(shape)]


def scores(d, tolerance=1.0):
    """Give every score of a pair of surfaces."""
    return np.array(
        [
            surface.hausdorff(d),
            surface.hausdorff(d, 95),
            *surface.average_surface_distance(d),
            surface.symmetric_surface_distance(d),
            surface.surface_dice(d, tolerance),
            *surface.surface_overlap(d, tolerance),
        ]
    )


def box(shape, low, high):
    """Give a region of the pixels from low to before high."""
    region = np.zeros(shape, bool)
    region[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return region


def batched(region):
    return torch.from_numpy(region[None, None].astype(np.float32))


# --- the reference's own figures ---


def fixture_pair(folder, name):
    """Make the two regions of a pair as the fixture's description says."""
    if name.startswith("totalseg"):
        label = int(name.rpartition("label")[2])
        return tuple(np.asarray(nibabel.load(folder / f).dataobj) == label for f in FILES)
    _, case, number, kind = name.split("_")[:4]
    region = np.asarray(nibabel.load(folder / f"hippocampus_{case}.nii.gz").dataobj) == int(number[1:])
    return region, np.roll(region, (1, 0, 1), (0, 1, 2)) if kind == "roll101" else ndimage.binary_erosion(region)


FILES = "example_seg.nii.gz", "example_seg_fast.nii.gz"


def test_reference_values_are_reproduced(real):
    folder = real("fixtures") / "surface_distance"
    expected = json.loads((folder / "expected.json").read_text())
    assert len(expected) == 64
    for name, said in expected.items():
        truth, prediction = fixture_pair(folder, name)
        assert [truth.sum(), prediction.sum()] == said["voxels"], name
        d = surface_distances(truth, prediction, said["spacing"])
        ours = [*surface.average_surface_distance(d), surface.hausdorff(d, 95), surface.hausdorff(d)]
        ours += [surface.surface_dice(d, 1), surface.surface_dice(d, 3), *surface.surface_overlap(d, 1)]
        theirs = [*said["assd"], said["hd95"], said["hd100"], said["nsd_1mm"], said["nsd_3mm"], *said["overlap_1mm"]]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=name)


# --- the sizes of elements ---


@pytest.mark.parametrize("spacing", [(1, 1), (0.7, 2.5), (1, 1, 1), (3, 3, 3), (1, 1, 2.5), (5, 0.7, 0.9), (0.1, 2, 7)])
def test_sizes_match_the_published_table(spacing):
    theirs, _ = get_code_to_measure_table(spacing)
    theirs = np.array([float(size) for size in theirs])
    # Full neighbourhoods are no element in either, whatever the table holds there.
    np.testing.assert_allclose(surface._element_sizes(tuple(map(float, spacing)))[1:-1], theirs[1:-1], rtol=1e-6)


def test_ties_of_triangulations_hold_for_every_spacing():
    corners = list(itertools.product((0, 1), repeat=3))
    steps = np.random.default_rng(0).uniform(0.1, 5, (4, 3))
    ties = 0
    for picked in itertools.chain.from_iterable(itertools.combinations(corners, n) for n in range(1, 5)):
        for part in surface._components(list(picked)):
            rest = [corner for corner in corners if corner not in part]
            ways = [np.array(way) for way in surface._triangulations(surface._ring(surface._middles(part, rest)))]
            largest = max(surface._sizes(way).sum() for way in ways)
            best = [way for way in ways if surface._sizes(way).sum() > largest - 1e-9]
            ties += len(best) > 1
            for step in steps:
                assert np.ptp([surface._sizes(way * step).sum() for way in best]) < 1e-9
    assert ties > 20


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.4)])
def test_area_of_a_box_has_a_closed_form(spacing):
    n, s = (4, 6, 3), spacing
    region = box((9, 9, 9), (2, 1, 4), np.add((2, 1, 4), n))
    d = surface_distances(region, region, spacing)
    faces = sum(2 * (n[i] - 1) * (n[j] - 1) * s[i] * s[j] for i, j in ((0, 1), (0, 2), (1, 2)))
    # Edges and corners are cut at half a pixel.
    edges = sum(4 * (n[i] - 1) * s[i] * math.hypot(s[j], s[k]) / 2 for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1)))
    corners = 8 * math.sqrt((s[0] * s[1]) ** 2 + (s[0] * s[2]) ** 2 + (s[1] * s[2]) ** 2) / 8
    assert d.truth_sizes.sum() == pytest.approx(faces + edges + corners)
    assert d.truth_sizes.sum() == pytest.approx(d.prediction_sizes.sum())
    assert (d.truth_distances == 0).all()


def test_length_of_a_rectangle_has_a_closed_form():
    d = surface_distances(box((9, 9), (2, 1), (6, 7)), np.zeros((9, 9), bool), (0.5, 2.0))
    assert d.truth_sizes.sum() == pytest.approx(2 * 3 * 0.5 + 2 * 5 * 2 + 4 * math.hypot(0.5, 2) / 2)


# --- distances ---


@settings(max_examples=80, deadline=None)
@given(pairs())
def test_distances_match_a_distance_transform(pair):
    truth, prediction, spacing = pair
    d = surface_distances(truth, prediction, spacing)
    corners = list(itertools.product((0, 1), repeat=truth.ndim))
    edges = []
    for region in (truth, prediction):
        padded = np.pad(region, 3)  # a wider margin than needed
        parts = [padded[tuple(slice(c, n - 1 + c) for c, n in zip(o, padded.shape, strict=True))] for o in corners]
        edges.append(np.any(parts, 0) & ~np.all(parts, 0))
    for own, other, ours in ((*edges, d.truth_distances), (*edges[::-1], d.prediction_distances)):
        far = ndimage.distance_transform_edt(~other, sampling=spacing) if other.any() else np.full(own.shape, np.inf)
        np.testing.assert_allclose(ours, np.sort(far[own]), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.integers(0, 10**6))
def test_scores_are_invariant_to_rotation_and_mirroring(pair, seed):
    truth, prediction, spacing = pair
    expected = scores(surface_distances(truth, prediction, spacing))
    axes = np.random.default_rng(seed).permutation(truth.ndim)
    turned = [np.flip(region, seed % truth.ndim).transpose(axes) for region in (truth, prediction)]
    found = surface_distances(*turned, [spacing[a] for a in axes])
    # Percentiles may fall to either side of an element where sums differ in the last place: HD95 is left out.
    kept = [0, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(scores(found)[kept], expected[kept], rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_scores_are_symmetric(pair):
    truth, prediction, spacing = pair
    one, other = surface_distances(truth, prediction, spacing), surface_distances(prediction, truth, spacing)
    np.testing.assert_array_equal(one.truth_distances, other.prediction_distances)
    np.testing.assert_array_equal(one.prediction_sizes, other.truth_sizes)
    np.testing.assert_allclose(scores(one), scores(other)[[0, 1, 3, 2, 4, 5, 7, 6]], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(pairs(), st.sampled_from([1, 2, 9]))
def test_empty_space_around_changes_nothing(pair, margin):
    truth, prediction, spacing = pair
    inner = surface_distances(truth, prediction, spacing)
    outer = surface_distances(*(np.pad(region, (margin, 30)) for region in (truth, prediction)), spacing)
    for name in SurfaceDistances.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(inner, name), getattr(outer, name))


@settings(max_examples=40, deadline=None)
@given(pairs())
def test_elements_are_sorted_and_scores_are_ordered(pair):
    truth, prediction, spacing = pair
    d = surface_distances(truth, prediction, spacing)
    assert (np.diff(d.truth_distances[np.isfinite(d.truth_distances)]) >= 0).all()
    assert (d.truth_sizes > 0).all()
    if truth.any() and prediction.any():
        assert surface.hausdorff(d, 0) <= surface.hausdorff(d, 95) <= surface.hausdorff(d)
        assert surface.hausdorff(d) == max(d.truth_distances.max(), d.prediction_distances.max())
        low, high = sorted(surface.average_surface_distance(d))
        assert low - 1e-12 <= surface.symmetric_surface_distance(d) <= high + 1e-12
        assert surface.surface_dice(d, 0.5) <= surface.surface_dice(d, 1) <= surface.surface_dice(d, 99) == 1


@pytest.mark.parametrize(("axis", "steps"), [(0, 3), (1, 2), (2, 4)])
def test_distance_of_a_shifted_box_is_its_shift(axis, steps):
    spacing = (2.5, 0.7, 1.1)
    low = np.array([3, 3, 3])
    moved = low + steps * (np.arange(3) == axis)
    truth, prediction = box((20, 20, 20), low, low + 8), box((20, 20, 20), moved, moved + 8)
    d = surface_distances(truth, prediction, spacing)
    shift = steps * spacing[axis]
    assert surface.hausdorff(d) == pytest.approx(shift)
    assert surface.surface_dice(d, shift) == 1
    assert surface.surface_dice(d, shift * 0.99) < 1
    # Both directions see the same by symmetry.
    assert np.ptp(surface.average_surface_distance(d)) < 1e-12


def test_tolerance_allows_for_rounding():
    """Three steps of 0.1 are a little more than 0.3 in floating point."""
    truth, prediction = box((12, 12), (2, 2), (6, 6)), box((12, 12), (2, 5), (6, 9))
    d = surface_distances(truth, prediction, (0.1, 0.1))
    assert d.truth_distances.max() > 0.3
    assert surface.surface_dice(d, 0.3) == 1
    assert surface.surface_dice(d, 0.2999) < 1


def test_percentiles_by_hand():
    sizes = np.array([1.0, 2.0, 1.0])
    d = SurfaceDistances(np.array([0.0, 1.0, 5.0]), sizes, np.array([0.0, 0.0, 2.0]), sizes)
    # A quarter of the size lies at 0, three quarters within 1, all within 5.
    assert [surface.hausdorff(d, p) for p in (0, 25, 26, 75, 76, 100)] == [0, 0, 1, 1, 5, 5]
    assert surface.average_surface_distance(d) == (7 / 4, 2 / 4)
    assert surface.symmetric_surface_distance(d) == 9 / 8
    assert surface.surface_overlap(d, 1) == (3 / 4, 3 / 4)
    assert surface.surface_dice(d, 2) == 7 / 8


def test_assd_gives_more_weight_to_the_larger_surface():
    truth, prediction = box((40, 40), (2, 2), (34, 34)), box((40, 40), (10, 10), (12, 12))
    d = surface_distances(truth, prediction, (1, 1))
    there, back = surface.average_surface_distance(d)
    expected = (there * d.truth_sizes.sum() + back * d.prediction_sizes.sum()) / (
        d.truth_sizes.sum() + d.prediction_sizes.sum()
    )
    assert surface.symmetric_surface_distance(d) == pytest.approx(expected)
    assert abs(expected - (there + back) / 2) > 1


# --- closed forms: spheres and tilted boxes, whatever the spacing ---


def positions(shape, spacing):
    """Give pixel centres in the unit of the spacing, from the middle of the image, (*S, ndim)."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((70, 70, 70), (1, 1, 1)), ((28, 100, 84), (2.5, 0.7, 0.8)), ((90, 280), (0.8, 0.25))]
)
def test_distance_of_concentric_balls(shape, spacing):
    radius = np.linalg.norm(positions(shape, spacing), axis=-1)
    d = surface_distances(radius < 30, radius < 22, spacing)
    step = max(spacing)
    assert surface.hausdorff(d) == pytest.approx(8, abs=step)
    assert surface.hausdorff(d, 95) == pytest.approx(8, abs=step)
    for mean in (*surface.average_surface_distance(d), surface.symmetric_surface_distance(d)):
        # Short by less than half a pixel's diagonal, as elements lie in a layer.
        assert 8 - np.linalg.norm(spacing) / 2 < mean < 8 + 0.02 * step
    assert surface.surface_dice(d, 8 + step) == 1
    assert surface.surface_dice(d, 8 - np.linalg.norm(spacing)) == 0
    # Divided pixels overstate a slanting surface, more so where they are long; counted faces would by a half.
    true = (4 if len(shape) == 3 else 2) * math.pi * 30 ** (len(shape) - 1)
    assert 1 < d.truth_sizes.sum() / true < 1.2


def rotation(ndim, seed):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(ndim, ndim)))
    return turn


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing"), [((64, 64, 64), (1, 1, 1)), ((26, 100, 70), (2.5, 0.65, 0.9)), ((160, 70), (0.4, 1))]
)
def test_distance_of_tilted_boxes(shape, spacing, seed):
    place = np.abs(positions(shape, spacing) @ rotation(len(shape), seed))
    half = np.array([18, 14, 12])[: len(shape)]
    d = surface_distances((place < half).all(-1), (place < half - 6).all(-1), spacing)
    step = np.linalg.norm(spacing)
    there, back = surface.average_surface_distance(d)
    # From inside every face is 6 away; from outside the corners are √ndim times as far.
    assert 6 - step / 2 < back < 6 + 0.02 * step
    assert back < there < 6 * math.sqrt(len(shape))
    assert surface.hausdorff(d) == pytest.approx(6 * math.sqrt(len(shape)), abs=step)
    assert surface.surface_overlap(d, 6 + step)[1] == 1


# --- MONAI, which warns of its own deprecated calls ---

theirs_may_warn = pytest.mark.filterwarnings("ignore:monai:FutureWarning")


@theirs_may_warn
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 1.1)])
def test_monai_agrees_on_boxes_though_its_edges_are_pixels(spacing):
    """MONAI's edges are the inner pixels, half a pixel further in on all sides: shifts and margins stay the same."""
    shape = (24, 22, 20)
    truth = box(shape, (4, 4, 4), (16, 14, 15))
    for prediction in (box(shape, (6, 4, 4), (18, 14, 15)), box(shape, (7, 7, 7), (13, 11, 12)), truth):
        d = surface_distances(truth, prediction, spacing)
        theirs = compute_hausdorff_distance(batched(prediction), batched(truth), spacing=spacing)
        assert surface.hausdorff(d) == pytest.approx(float(theirs), rel=1e-6, abs=1e-9)
        if len(set(spacing)) == 1:
            average = compute_average_surface_distance(batched(prediction), batched(truth), symmetric=True)
            # They count edge pixels, we weigh areas: the means differ, and far more where pixels are no cubes.
            assert surface.symmetric_surface_distance(d) == pytest.approx(float(average), rel=0.2, abs=1e-9)


@theirs_may_warn
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_monai_agrees_on_surface_dice_with_divided_pixels(ndim, seed):
    generator = np.random.default_rng(seed)
    shape, spacing = (14, 17, 15)[:ndim], (2.5, 0.7, 1.1)[:ndim]
    noise = generator.normal(size=(2, *shape))
    truth, prediction = (ndimage.gaussian_filter(n, 1.5) > 0 for n in (noise[0], noise[0] + 0.4 * noise[1]))
    for tolerance in (0.0, 0.8, 1.5):
        theirs = compute_surface_dice(
            batched(prediction), batched(truth), [tolerance], True, spacing=spacing, use_subvoxels=True
        )
        ours = surface.surface_dice(surface_distances(truth, prediction, spacing), tolerance)
        assert ours == pytest.approx(float(theirs), abs=1e-5)
        assert 0 < ours < 1


# --- nothing there ---


def test_empty_regions():
    nothing, something = np.zeros((6, 6), bool), box((6, 6), (1, 1), (3, 3))
    np.testing.assert_array_equal(scores(surface_distances(nothing, nothing, (1, 1))), [np.nan] * 8)
    missed = scores(surface_distances(something, nothing, (1, 1)))
    np.testing.assert_array_equal(missed, [np.inf] * 5 + [0, 0, np.nan])
    invented = scores(surface_distances(nothing, something, (1, 1)))
    np.testing.assert_array_equal(invented, [np.inf] * 5 + [0, np.nan, 0])


def test_a_full_image_has_a_surface_at_its_border():
    full = np.ones((3, 4), bool)
    d = surface_distances(full, full, (1, 1))
    assert d.truth_sizes.sum() == pytest.approx(2 * 2 + 2 * 3 + 4 * math.sqrt(0.5))


def test_a_single_pixel_has_a_surface():
    dot = box((5, 5, 5), (2, 2, 2), (3, 3, 3))
    d = surface_distances(dot, np.roll(dot, 1, 2), (1, 1, 3))
    assert len(d.truth_sizes) == 8
    assert surface.hausdorff(d) == 3


# --- refusals ---


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, float("nan"), 1), (1, 1, 1, 1)])
def test_invalid_spacings_are_errors(spacing):
    region = np.ones((2, 2, 2), bool)
    with pytest.raises(UsageError) as error:
        surface_distances(region, region, spacing)
    assert str(error.value) == f"spacing: expected 3 positive distances, found {spacing}. Use Grid.spacing."


def test_regions_of_wrong_type_are_errors():
    good = np.ones((2, 2), bool)
    with pytest.raises(MaskError) as error:
        surface_distances(good, good.astype(np.uint8), (1, 1))
    assert str(error.value) == (
        "prediction: expected a bool array with two or three axes, found uint8 with 2. Compare the mask with one class."
    )
    with pytest.raises(MaskError, match=r"truth: expected a bool array with two or three axes, found bool with 1\."):
        surface_distances(np.ones(2, bool), np.ones(2, bool), (1,))
    with pytest.raises(MaskError, match=r"prediction: expected the size of the truth, \(2, 2\), found \(2, 3\)\."):
        surface_distances(good, np.ones((2, 3), bool), (1, 1))


def test_invalid_percentiles_and_tolerances_are_errors():
    d = surface_distances(np.ones((2, 2), bool), np.ones((2, 2), bool), (1, 1))
    for percentile in (-1, 101, float("nan")):
        with pytest.raises(UsageError) as error:
            surface.hausdorff(d, percentile)
        assert str(error.value) == (f"percentile: expected 0 to 100, found {percentile}. Use 95 for the usual HD95.")
    for tolerance in (-0.1, float("inf"), float("nan")):
        for score in (surface.surface_dice, surface.surface_overlap):
            with pytest.raises(UsageError) as error:
                score(d, tolerance)
            assert str(error.value) == f"tolerance: expected a distance, found {tolerance}. Use zero or more."


# --- sums per class ---


def scene(seed=0, shape=(50, 60)):
    """Draw four classes of which the fourth is rare, the same moved a little, and some void."""
    generator = np.random.default_rng(seed)
    truth = np.argmax([ndimage.gaussian_filter(generator.normal(size=shape), 4) for _ in range(3)], 0).astype(np.uint8)
    prediction = np.roll(truth, (1, 2), (0, 1))
    truth[30:34, 10:15] = 3
    truth[tuple(slice(20, 23) for _ in shape)] = 255
    truth[:5] = 255
    return truth, prediction


@pytest.mark.parametrize(("shape", "spacing"), [((50, 60), (0.5, 2.0)), ((40, 30, 26), (2.5, 1.0, 0.7))])
def test_sums_match_the_scores_of_each_class(shape, spacing):
    truth, prediction = scene(1, shape)
    prediction[-9:, :9] = 4
    sums = surface.surface_sums(truth, prediction, 6, 255, spacing, 1.5)
    assert surface.SUMS == (
        "both",
        "hausdorff",
        "hausdorff_95",
        "average_distance",
        "surface_dice",
        "either",
        "missed",
        "invented",
    )
    for value in range(3):
        d = surface_distances(truth == value, (prediction == value) & (truth != 255), spacing)
        far = surface.hausdorff(d), surface.hausdorff(d, 95), surface.symmetric_surface_distance(d)
        np.testing.assert_array_equal(sums[:, value], [1, *far, surface.surface_dice(d, 1.5), 1, 0, 0])
        assert 0 < far[2] < far[1] <= far[0]
    np.testing.assert_array_equal(sums[:, 3], [0, 0, 0, 0, 0, 1, 1, 0])  # missed
    np.testing.assert_array_equal(sums[:, 4], [0, 0, 0, 0, 0, 1, 0, 1])  # invented
    np.testing.assert_array_equal(sums[:, 5], 0)  # in neither
    assert sums.dtype == np.float64


def test_means_are_taken_over_the_images_that_define_them():
    images = [scene(seed) for seed in range(3)]
    images[2][1][0:8, 0:8] = 3  # found in one image of three, elsewhere
    sums = np.stack([surface.surface_sums(t, p, 5, 255, (1, 1), 2.0) for t, p in images])
    means = surface.mean_surface_scores(sums.sum(0))
    assert means.shape == (4, 5)
    np.testing.assert_allclose(means[:, 0], sums[:, 1:5, 0].mean(0))
    np.testing.assert_array_equal(sums.sum(0)[[0, 5, 6, 7], 3], [1, 3, 2, 0])
    np.testing.assert_array_equal(means[:3, 3], sums[2, 1:4, 3])
    assert means[3, 3] == pytest.approx(sums[2, 4, 3] / 3)
    assert np.isnan(means[:, 4]).all()
    np.testing.assert_array_equal(surface.mean_surface_scores(sums)[1], surface.mean_surface_scores(sums[1]))


def test_predictions_on_ignored_pixels_have_no_effect():
    truth, prediction = scene()
    before = truth.copy(), prediction.copy()
    expected = surface.surface_sums(truth, prediction, 5, 255, (1, 1), 1)
    for value in (0, 4, 200, -7):
        other = np.where(truth == 255, value, prediction.astype(int))
        np.testing.assert_array_equal(surface.surface_sums(truth, other, 5, 255, (1, 1), 1), expected)
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(prediction, before[1])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_perfect_prediction_has_distance_zero_with_ignored_pixels(data):
    shape = data.draw(shapes)
    truth = data.draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255])))
    drawn = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    sums = surface.surface_sums(truth, np.where(truth == 255, drawn, truth), 3, 255, (0.7,) * len(shape), 0)
    present = (np.bincount(truth.reshape(-1), minlength=256)[:3] > 0).astype(float)
    zero = np.zeros(3)
    np.testing.assert_array_equal(sums, [present, zero, zero, zero, present, present, zero, zero])


@settings(max_examples=15, deadline=None)
@given(pairs())
def test_sums_of_small_objects_in_large_images_are_those_of_the_objects(pair):
    truth, prediction, spacing = pair
    near = surface.surface_sums(truth.astype(np.uint8), prediction.astype(np.uint8), 2, 255, spacing, 1)
    padded = [np.pad(region, 12).astype(np.uint8) for region in (truth, prediction)]
    np.testing.assert_array_equal(surface.surface_sums(*padded, 2, 255, spacing, 1)[:, 1], near[:, 1])


@pytest.mark.parametrize("first", [(6, 9), (9, 6), (2, 15)])
def test_bounding_box_contains_both_regions(first):
    truth, prediction = box((24, 24), (9, 9), (13, 14)), box((24, 24), first, np.add(first, (5, 6)))
    sums = surface.surface_sums(truth.astype(np.uint8), prediction.astype(np.uint8), 2, 255, (1, 2), 1)
    d = surface_distances(truth, prediction, (1, 2))
    np.testing.assert_array_equal(sums[1:3, 1], [surface.hausdorff(d), surface.hausdorff(d, 95)])
    assert sums[1, 1] >= 3


def test_sums_raise_the_errors_of_their_parts():
    mask = np.zeros((4, 4), np.uint8)
    with pytest.raises(MaskError, match=r"a.png: expected the size of the truth, \(4, 4\), found \(4, 2\)\."):
        surface.surface_sums(mask, mask[:, :2], 2, 255, (1, 1), 1, "a.png")
    with pytest.raises(UsageError, match=r"spacing: expected 2 positive distances, found \(1,\)\."):
        surface.surface_sums(mask, mask, 2, 255, (1,), 1)
    with pytest.raises(UsageError, match=r"tolerance: expected a distance, found -1\."):
        surface.surface_sums(mask, mask, 2, 255, (1, 1), -1)
    with pytest.raises(UsageError, match="expected a value outside the class indices"):
        surface.surface_sums(mask, mask, 2, 0, (1, 1), 1)
