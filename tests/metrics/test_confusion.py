"""Counts against sklearn and torchmetrics, ratios against hand and a published network's printed figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn import metrics as sk
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics import confusion
from pixelwise.metrics.confusion import ConfusionMatrix

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def drawn(k, shape=(40, 50), void=0.1, seed=0, ignore=255, dtype=np.uint8):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, k, shape).astype(dtype)
    prediction = np.where(generator.random(shape) < 0.6, truth, generator.integers(0, k, shape)).astype(dtype)
    truth[generator.random(shape) < void] = ignore
    return truth, prediction


def counted(truth, prediction, k, ignore=255):
    matrix = ConfusionMatrix(k, ignore)
    matrix.update(truth, prediction)
    return matrix.matrix


@pytest.mark.parametrize("k", [2, 19, 255])
def test_counts_match_sklearn(k):
    truth, prediction = drawn(k)
    kept = truth != 255
    expected = sk.confusion_matrix(truth[kept], prediction[kept], labels=range(k))
    found = counted(truth, prediction, k)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_one_class_is_counted():
    truth, prediction = drawn(1)
    np.testing.assert_array_equal(counted(truth, prediction, 1), [[(truth == 0).sum()]])


@pytest.mark.parametrize("k", [256, 400])
def test_counts_of_more_than_256_classes_match_torchmetrics(k):
    truth, prediction = drawn(k, ignore=65535, dtype=np.uint16)
    other = MulticlassConfusionMatrix(k, ignore_index=65535)
    expected = other(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)))
    np.testing.assert_array_equal(counted(truth, prediction, k, 65535), expected.numpy())


def test_more_than_256_classes_in_an_image_of_small_values():
    # Nothing in the image is above 255, no pixel is ignored: the short way must not be taken all the same.
    truth, prediction = drawn(200, void=0, dtype=np.uint16)
    found = counted(truth, prediction, 300, 65535)
    assert found.shape == (300, 300)
    np.testing.assert_array_equal(found[:200, :200], counted(truth, prediction, 200, 65535))
    assert found.sum() == truth.size


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.uint64])
def test_every_integer_type_gives_the_same(dtype):
    truth, prediction = drawn(7)
    expected = counted(truth, prediction, 7)
    np.testing.assert_array_equal(counted(truth.astype(dtype), prediction.astype(dtype), 7), expected)


@pytest.mark.parametrize("ignore", [-1, 300, 65535])
def test_ignore_index_above_255(ignore):
    truth, prediction = drawn(7)
    other = np.where(truth == 255, ignore, truth.astype(np.int64))
    np.testing.assert_array_equal(counted(other, prediction, 7, ignore), counted(truth, prediction, 7))


def test_all_chunks_are_counted():
    truth, prediction = drawn(3, (1100, 1000))
    kept = truth != 255
    assert truth.size > 4 * confusion._CHUNK
    expected = sk.confusion_matrix(truth[kept], prediction[kept], labels=range(3))
    np.testing.assert_array_equal(counted(truth, prediction, 3), expected)
    wide = counted(np.where(kept, truth.astype(np.int64), -1), prediction, 3, -1)
    np.testing.assert_array_equal(wide, expected)


def test_volumes_and_views_are_counted():
    truth, prediction = drawn(4, (6, 8, 10))
    np.testing.assert_array_equal(
        counted(truth[::2, :, ::-1], prediction[::2, :, ::-1], 4), counted(truth[::2].copy(), prediction[::2].copy(), 4)
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_parts_add_up_to_the_whole(data, k):
    cells = hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([*range(k), 255]))
    truth = data.draw(cells)
    prediction = data.draw(hnp.arrays(np.uint8, (4, 5), elements=st.integers(0, k - 1)))
    cut = data.draw(st.integers(0, 4))
    whole, first, second = ConfusionMatrix(k), ConfusionMatrix(k), ConfusionMatrix(k)
    whole.update(truth, prediction)
    first.update(truth[:cut], prediction[:cut])
    second.update(truth[cut:], prediction[cut:])
    np.testing.assert_array_equal((first + second).matrix, whole.matrix)
    np.testing.assert_array_equal(whole.matrix.sum(1), np.bincount(truth[truth != 255], minlength=k))
    assert whole.matrix.sum() == (truth != 255).sum()


def test_counts_are_exact_beyond_float32():
    """A7: 2^24 + 1 is no float32."""
    matrix = ConfusionMatrix(2)
    matrix.matrix[0, 0] = 2**53
    matrix.update(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    assert matrix.matrix[0, 0] == 2**53 + 1


def test_update_returns_the_matrix_of_the_image():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 1]), np.array([1, 1]))
    one = matrix.update(np.array([0]), np.array([0]))
    one[0, 1] = 99  # the caller's own
    np.testing.assert_array_equal(matrix.matrix, [[1, 1], [0, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("at_void", [0, 2, 200, 255])
def test_predictions_on_ignored_pixels_are_not_counted(dtype, at_void):
    truth, prediction = drawn(3)
    changed = np.where(truth == 255, at_void, prediction).astype(dtype)
    np.testing.assert_array_equal(counted(truth, changed, 3), counted(truth, prediction, 3))


def test_predictions_on_ignored_pixels_may_have_any_value():
    truth, prediction = drawn(3)
    expected = counted(truth, prediction, 3)
    np.testing.assert_array_equal(counted(truth, np.where(truth == 255, -7, prediction.astype(int)), 3), expected)


@pytest.mark.parametrize(("odd", "dtype"), [(3, np.uint8), (255, np.uint8), (-1, np.int64), (300, np.int64)])
def test_predictions_outside_the_classes_are_errors(odd, dtype):
    truth = np.array([[0, 1], [2, 255]], np.uint8)
    prediction = np.array([[0, odd], [2, 0]], dtype)
    matrix = ConfusionMatrix(3)
    with pytest.raises(MaskError) as error:
        matrix.update(truth, prediction, "a.png")
    assert str(error.value) == (
        f"a.png: expected class indices 0–2 where the truth is not ignored, found {odd} in the prediction. "
        "Check that truth and prediction use the same labels."
    )
    assert matrix.matrix.sum() == 0


@pytest.mark.parametrize(("odd", "dtype"), [(3, np.uint8), (254, np.uint8), (-1, np.int64), (300, np.int64)])
def test_truths_outside_the_classes_are_errors(odd, dtype):
    with pytest.raises(MaskError, match=rf"class indices 0–2 or the ignore index 255, found {odd} in the truth"):
        counted(np.array([0, odd], dtype), np.array([0, 0]), 3)


def test_another_size_is_an_error():
    with pytest.raises(MaskError) as error:
        ConfusionMatrix(2).update(np.zeros((4, 6), np.uint8), np.zeros((2, 3), np.uint8), "b.png")
    assert str(error.value) == (
        "b.png: expected the size of the truth, (4, 6), found (2, 3). "
        "Score at native size: resize logits before deciding, never the truth."
    )


def test_probabilities_are_an_error():
    with pytest.raises(MaskError, match="expected integers, found prediction of float64"):
        counted(np.zeros((2, 2), np.uint8), np.zeros((2, 2)), 2)


def test_ignore_index_must_not_be_a_class():
    """A5: ignore_index=0 beside a class 0."""
    with pytest.raises(UsageError, match="expected a value outside the class indices 0–2, found 0"):
        ConfusionMatrix(3, ignore_index=0)


def test_matrices_of_other_labels_cannot_be_added():
    with pytest.raises(UsageError, match="expected 2 classes and ignore index 255, found 3 and 255"):
        ConfusionMatrix(2) + ConfusionMatrix(3)


# --- ratios ---


def test_ratios_match_sklearn():
    truth, prediction = drawn(5)
    matrix = counted(truth, prediction, 5)
    t, p = truth[truth != 255], prediction[truth != 255]
    np.testing.assert_allclose(confusion.iou(matrix), sk.jaccard_score(t, p, average=None))
    np.testing.assert_allclose(confusion.dice(matrix), sk.f1_score(t, p, average=None))
    np.testing.assert_allclose(confusion.precision(matrix), sk.precision_score(t, p, average=None))
    np.testing.assert_allclose(confusion.recall(matrix), sk.recall_score(t, p, average=None))
    assert confusion.pixel_accuracy(matrix) == pytest.approx(sk.accuracy_score(t, p))
    assert confusion.frequency_weighted_iou(matrix) == pytest.approx(sk.jaccard_score(t, p, average="weighted"))


def test_ratios_without_pixels_are_undefined():
    """A2: class 2 is neither shown nor predicted, class 1 predicted only, class 3 shown only."""
    matrix = np.array([[5, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0]])
    np.testing.assert_array_equal(np.isnan(confusion.iou(matrix)), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(confusion.dice(matrix)), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(confusion.precision(matrix)), [False, False, True, True])
    np.testing.assert_array_equal(np.isnan(confusion.recall(matrix)), [False, True, True, False])
    assert confusion.mean_iou(matrix) == pytest.approx((5 / 10 + 0 + 0) / 3)
    empty = np.zeros((3, 3), np.int64)
    assert np.isnan(confusion.pixel_accuracy(empty))
    assert np.isnan(confusion.frequency_weighted_iou(empty))
    assert np.isnan(confusion.mean_iou(empty))


def test_ratios_keep_leading_axes():
    matrices = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4))
    for name in ("iou", "dice", "precision", "recall", "pixel_accuracy", "frequency_weighted_iou", "mean_iou"):
        function = getattr(confusion, name)
        np.testing.assert_array_equal(function(matrices)[1, 2], function(matrices[1, 2]), err_msg=name)


# --- conventions (A0): what the same predictions score elsewhere ---


def one_rare_class():
    """Draw four images; class 3 is in one, class 4 is only ever predicted, class 5 is nowhere."""
    generator = np.random.default_rng(4)
    truth = generator.integers(0, 3, (4, 16, 16)).astype(np.uint8)
    truth[0, :2, :2] = 3
    prediction = np.where(generator.random(truth.shape) < 0.7, truth, generator.integers(0, 3, truth.shape))
    prediction[1, 0, :5] = 4
    truth[:, -1] = 255
    return truth, prediction.astype(np.uint8)


def test_mean_iou_matches_torchmetrics_jaccard_index():
    truth, prediction = one_rare_class()
    theirs = MulticlassJaccardIndex(6, ignore_index=255)
    for t, p in zip(truth, prediction, strict=True):
        theirs.update(torch.from_numpy(p.astype(np.int64)), torch.from_numpy(t.astype(np.int64)))
    assert confusion.mean_iou(counted(truth, prediction, 6)) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_absent_classes_are_left_out_unless_predicted():
    truth, prediction = one_rare_class()
    matrix = counted(truth, prediction, 6)
    iou = confusion.iou(matrix)
    ours = float(confusion.mean_iou(matrix))
    assert iou[4] == 0
    assert np.isnan(iou[5])
    assert ours == pytest.approx(iou[:5].mean())
    assert np.where(np.isnan(iou), 1.0, iou).mean() > ours + 0.05  # absent counts one: smp, PaddleSeg
    assert iou[:4].mean() > ours + 0.05  # falsely predicted classes cost nothing: Ultralytics
    assert confusion.mean_iou(matrix[:5, :5]) == pytest.approx(ours)


def test_mean_over_images_differs():
    """A1, I4: per-image and per-batch means depend on how pixels are cut into images."""
    truth, prediction = one_rare_class()
    ours = float(confusion.mean_iou(counted(truth, prediction, 6)))
    per_image = np.mean([confusion.mean_iou(counted(t, p, 6)) for t, p in zip(truth, prediction, strict=True)])
    per_batch = np.mean([confusion.mean_iou(counted(truth[i : i + 2], prediction[i : i + 2], 6)) for i in (0, 2)])
    assert abs(per_image - ours) > 0.02
    assert abs(per_batch - ours) > 0.02
    sure = np.where(truth == 255, 0, truth)
    theirs = MeanIoU(6, per_class=False, input_format="index")
    theirs.update(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(sure.astype(np.int64)))
    same_void = float(confusion.mean_iou(counted(sure, prediction, 6)))
    assert abs(float(theirs.compute()) - same_void) > 0.01


def test_perfect_prediction_scores_one_with_ignored_pixels():
    """A3, A5: 0.25 and 0.603 elsewhere."""
    truth, _ = drawn(4, void=0.2)
    matrix = counted(truth, np.where(truth == 255, 1, truth), 4)
    assert confusion.mean_iou(matrix) == 1
    assert confusion.frequency_weighted_iou(matrix) == 1


# --- a published network on CamVid's test part ---


def test_published_scores_on_camvid_are_reproduced():
    """ESPNet: an int64 matrix and cityscapesScripts agree on these figures; class 11 is void, yet sometimes predicted."""
    folder, truths = DATA / "fixtures" / "camvid_espnet_test", DATA / "camvid" / "testannot"
    if not (folder.is_dir() and truths.is_dir()):
        pytest.skip(f"needs CamVid and the fixture in {DATA}")
    expected = json.loads((folder / "expected.json").read_text())
    rows = np.loadtxt(folder / "confusion_gtrow_predcol.csv", delimiter=",", dtype=np.int64)
    matrix = ConfusionMatrix(12)
    paths = sorted((folder / "pred12").glob("*.png"))
    for path in paths:
        truth = np.asarray(Image.open(truths / path.name))
        matrix.update(np.where(truth == 11, 255, truth), np.asarray(Image.open(path)), path.name)
    assert len(paths) == 233
    np.testing.assert_array_equal(matrix.matrix[:11], rows[:11])
    assert matrix.matrix[11].sum() == 0
    iou = confusion.iou(matrix.matrix)[:11]
    np.testing.assert_allclose(iou, expected["iou_ignore_void"], rtol=0, atol=1e-12)
    assert iou.mean() == pytest.approx(expected["miou_ignore_void"], abs=1e-6)
    assert confusion.recall(matrix.matrix)[:11].mean() == pytest.approx(expected["class_acc"], abs=1e-6)
