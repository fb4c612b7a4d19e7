"""Average precision against hand, pycocotools as it stands, and what the references print for COCO."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from dataclasses import astuple

import numpy as np
import pytest
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from pixelwise.errors import DataError, MaskError, PairingError, UsageError
from pixelwise.geometry.run_lengths import unpack
from pixelwise.metrics.instances import average_precision

SIZE = (100, 120)
# pycocotools adds a tiny number to what it divides by.
PERFECT = pytest.approx(1)


def square(top, left, side=20):
    """Give a square as polygon."""
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def counts(region):
    rle = masks.encode(np.asfortranarray(region, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def truth_of(*annotations, images=2, categories=(5, 9)):
    return {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
        "categories": [{"id": i} for i in categories],
        "annotations": [
            {"id": i + 1, "image_id": 0, "category_id": 5, "iscrowd": 0} | one for i, one in enumerate(annotations)
        ],
    }


def detection(segmentation, score=0.5, image=0, category=5, **more):
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "score": score} | more


def numbers(result):
    return astuple(result)[1:13]


def drawn(seed=0, objects=40, images=6):
    """Draw discs, and detections of them that are moved, doubled and missing."""
    generator = np.random.default_rng(seed)
    rows, columns = np.indices(SIZE)
    annotations, detections = [], []
    for i in range(objects):
        place, radius = generator.uniform(10, 90, 2), generator.uniform(3, 30)
        shared = {"image_id": int(generator.integers(images)), "category_id": int(generator.choice([5, 9]))}
        region = np.hypot(rows - place[0], columns - place[1]) < radius
        area = int(region.sum())
        box = masks.toBbox(masks.encode(np.asfortranarray(region, np.uint8))).tolist()
        crowd = int(i % 9 == 0)
        annotations.append({"segmentation": counts(region), "area": area, "bbox": box, "iscrowd": crowd, **shared})
        for _ in range(generator.integers(0, 3)):
            moved = place + generator.normal(0, radius / 10, 2)
            disc = np.hypot(rows - moved[0], columns - moved[1]) < radius * generator.uniform(0.9, 1.1)
            detections.append({"segmentation": counts(disc), "score": round(generator.random(), 2), **shared})
    return truth_of(*annotations, images=images), detections


def theirs(truth, detections, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = copy.deepcopy(truth)
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes(copy.deepcopy(detections)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


# --- by hand ---


def test_one_object_found_and_one_missed():
    truth = truth_of({"segmentation": square(10, 10)}, {"segmentation": square(50, 50)})
    result = average_precision(truth, [detection(square(10, 10))])
    # Precision is 1 up to recall 0.5: 51 of the 101 recalls.
    assert result.ap == result.ap50 == result.ap75 == result.ap_small == pytest.approx(51 / 101)
    assert result.ar1 == result.ar10 == result.ar100 == result.ar_small == 0.5
    assert math.isnan(result.ap_medium)
    assert math.isnan(result.ar_large)
    assert result.per_category == {5: pytest.approx(51 / 101), 9: pytest.approx(math.nan, nan_ok=True)}
    assert (result.kind, result.images, result.categories) == ("mask", 2, 1)


def test_the_more_confident_of_two_detections_counts():
    truth = truth_of({"segmentation": square(10, 10)})
    sure = average_precision(truth, [detection(square(10, 10), 0.9), detection(square(10, 10), 0.8)])
    assert sure.ap == PERFECT  # the second comes after all recall is reached
    unsure = average_precision(truth, [detection(square(60, 60), 0.9), detection(square(10, 10), 0.8)])
    assert unsure.ap == pytest.approx(0.5)


def test_thresholds_are_those_of_iou():
    truth = truth_of({"segmentation": square(10, 10)})
    # 20 rows of 16 columns in common: 320 / 480 reaches 0.50, 0.55, 0.60 and 0.65.
    result = average_precision(truth, [detection(square(10, 14))])
    assert result.ap50 == PERFECT
    assert result.ap75 == 0
    assert result.ap == pytest.approx(0.4)
    assert average_precision(truth, [detection(square(10, 14))], "box").ap == pytest.approx(0.4)


def test_detections_in_a_crowd_are_ignored():
    truth = truth_of({"segmentation": square(10, 10, 60), "iscrowd": 1}, {"segmentation": square(75, 75)})
    found = [detection(square(20, 20), 0.9), detection(square(40, 40), 0.8), detection(square(75, 75), 0.7)]
    for kind in ("mask", "box", "boundary"):
        assert average_precision(truth, found, kind).ap == PERFECT
    alone = truth_of({"segmentation": square(75, 75)})
    assert average_precision(alone, found).ap == pytest.approx(1 / 3)


def test_boundary_iou_applies_if_it_is_smaller():
    truth = truth_of({"segmentation": square(20, 20, 40)})
    hollow = np.zeros(SIZE, bool)
    hollow[20:60, 20:60] = True
    hollow[30:50, 30:50] = False
    # Masks: 1200 / 1600 reaches six thresholds.
    assert average_precision(truth, [detection(counts(hollow))]).ap == pytest.approx(0.6)
    # Bands of round(0.02 · 156.2) = 3: 40² - 34² = 444 in both, 26² - 20² = 276 more around the hole. 0.617 reaches three.
    assert average_precision(truth, [detection(counts(hollow))], "boundary").ap == pytest.approx(0.3)
    # Bands as wide as the square leave the mask.
    assert average_precision(truth, [detection(counts(hollow))], "boundary", boundary_share=1).ap == pytest.approx(0.6)


@pytest.mark.parametrize("kind", ["mask", "box", "boundary"])
def test_no_detections_score_zero_and_no_objects_are_undefined(kind):
    some = truth_of({"segmentation": square(10, 10)})
    nothing = average_precision(some, [], kind)
    assert (nothing.ap, nothing.ar100, nothing.categories) == (0, 0, 1)
    for found in ([], [detection(square(10, 10))]):
        result = average_precision(truth_of(), found, kind)
        assert np.isnan(numbers(result)).all()
        assert (result.images, result.categories, len(result.per_category)) == (2, 0, 2)


def test_single_pixels_are_objects():
    dot = np.zeros(SIZE, bool)
    dot[7, 9] = True
    for kind in ("mask", "box", "boundary"):
        result = average_precision(truth_of({"segmentation": counts(dot)}), [detection(counts(dot))], kind)
        assert result.ap == result.ap_small == PERFECT


# --- pycocotools ---


@pytest.mark.parametrize(("kind", "name"), [("mask", "segm"), ("box", "bbox")])
def test_numbers_match_pycocotools(kind, name):
    truth, found = drawn()
    result, expected = average_precision(truth, found, kind), theirs(truth, found, name)
    np.testing.assert_array_equal(np.nan_to_num(numbers(result), nan=-1), expected.stats)
    assert 0.2 < result.ap < 0.9
    assert result.ap == pytest.approx(np.mean(list(result.per_category.values())))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_boundary_numbers_match_full_bands():
    truth, found = drawn(1)

    def banded(one):
        region = masks.decode(one["segmentation"])
        inner = ndimage.binary_erosion(region, np.ones((3, 3)), 3, border_value=0)
        return masks.encode(np.asfortranarray(region & ~inner, np.uint8))

    evaluation = theirs(truth, found, "segm")
    of_masks = evaluation.computeIoU

    def smaller(image, category):
        iou = np.array(of_masks(image, category))
        true, seen = evaluation._gts[image, category], evaluation._dts[image, category]
        if iou.size:
            seen = [seen[i] for i in np.argsort([-one["score"] for one in seen], kind="stable")]
            plain = np.array([not one["iscrowd"] for one in true])
            bands = np.array(masks.iou([banded(one) for one in seen], [banded(one) for one in true], [0] * len(true)))
            iou[:, plain] = np.minimum(iou, bands)[:, plain]
        return iou

    evaluation.computeIoU = smaller
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    result = average_precision(truth, found, "boundary")
    np.testing.assert_array_equal(np.nan_to_num(numbers(result), nan=-1), evaluation.stats)
    assert 0.1 < result.ap < average_precision(truth, found).ap


@pytest.mark.parametrize(
    ("kind", "file", "key"),
    [
        ("mask", "expected_pycocotools.json", "segm"),
        ("box", "expected_pycocotools.json", "bbox"),
        ("boundary", "expected_boundary_ap.json", None),
    ],
)
def test_reference_scores_on_coco_are_reproduced(real, kind, file, key):
    folder = real("fixtures/instances_coco100")
    expected = json.loads((folder / file).read_text())
    result = average_precision(folder / "gt_instances.json", str(folder / "pred_instances.json"), kind)
    np.testing.assert_allclose(numbers(result), expected if key is None else expected[key], rtol=0, atol=1e-9)
    assert (result.images, result.categories, len(result.per_category)) == (100, 72, 80)


def test_annotation_ids_do_not_matter():
    """Elsewhere id 0 reads as "no match": a perfect detection becomes a false positive."""
    truth = truth_of({"segmentation": square(10, 10), "id": 0}, {"segmentation": square(50, 50), "id": 0})
    found = [detection(square(10, 10)), detection(square(50, 50))]
    assert average_precision(truth, found).ap == PERFECT
    for one in truth["annotations"]:
        del one["id"]
    assert average_precision(truth, found).ap == PERFECT


def test_size_of_objects_is_that_of_their_masks():
    """Elsewhere a detection with a box has the area of the box, and changes sides at 32²."""
    corner = [[10, 10, 50, 10, 10, 50]]  # 800 pixels and some in a box of 1600
    truth = truth_of({"segmentation": corner, "category_id": 9}, {"segmentation": square(60, 60)})
    wrong = detection([[60, 10, 100, 10, 60, 50]], 0.9, category=9, bbox=[60, 10, 40, 40])
    result = average_precision(truth, [wrong, detection(corner, 0.8, category=9), detection(square(60, 60))])
    assert result.ap_small == pytest.approx((0.5 + 1) / 2)
    assert average_precision(truth, [wrong], "box").ar100 == 0


def test_all_mask_encodings_are_equivalent():
    region = np.zeros(SIZE, bool)
    region[10:30, 10:30] = True
    plain = {"size": list(SIZE), "counts": [10 * 100 + 10, *[20, 80] * 19, 20, SIZE[0] * 90 + 70]}
    for segmentation in (square(10, 10), counts(region), plain, [*square(10, 10), *square(10, 10, 5)]):
        assert average_precision(truth_of({"segmentation": segmentation}), [detection(counts(region))]).ap == PERFECT
        assert average_precision(truth_of({"segmentation": counts(region)}), [detection(segmentation)]).ap == PERFECT


def test_boxes_need_no_masks_and_no_sizes():
    truth = truth_of({"bbox": [10, 10, 20, 20]})
    for one in truth["images"]:
        del one["height"], one["width"]
    result = average_precision(truth, [{"image_id": 0, "category_id": 5, "bbox": [10, 10, 20, 20], "score": 1}], "box")
    assert result.ap == result.ap_small == PERFECT


# --- manners ---


def test_nothing_is_printed_and_inputs_are_not_modified(capsys):
    truth, found = drawn()
    before = copy.deepcopy((truth, found))
    for kind in ("mask", "box", "boundary"):
        average_precision(truth, found, kind)
    assert (truth, found) == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (
            {"image_id": 7},
            PairingError,
            "detections[0]: expected an image of the truth, found image_id 7. "
            "Score detections against the truth of the same images.",
        ),
        (
            {"category_id": 0},
            MaskError,
            "detections[0]: expected one of the categories of the truth, found category_id 0. "
            "Use the category ids of the truth, not class indices.",
        ),
        (
            {"score": math.nan},
            MaskError,
            "detections[0]: expected a finite score, found nan. Remove it, or add a score.",
        ),
        (
            {"segmentation": {"size": [120, 100], "counts": "PPYo1"}},
            MaskError,
            "detections[0]: expected a mask of the image's size, 100 by 120, found 120 by 100. "
            "Use masks at native size, height first.",
        ),
        (
            {"segmentation": [[10, 10, 20, 20]]},
            MaskError,
            "detections[0]: expected polygons of three or more corners, or run lengths, found [[10, 10, 20, 20]]. "
            "Remove objects without a mask.",
        ),
        ({"segmentation": []}, MaskError, r"detections[0]: expected polygons of three or more corners"),
    ],
)
def test_unmatched_detections_are_errors(change, kind, text):
    with pytest.raises(kind) as error:
        average_precision(truth_of({"segmentation": square(10, 10)}), [detection(square(10, 10)) | change])
    assert str(error.value).startswith(text)


POLYGONS = "expected polygons of three or more corners, or run lengths, found"
WHOLE = "expected run lengths that add up to 100 by 120, 12000 pixels, found"


@pytest.mark.parametrize(
    ("segmentation", "text"),
    [
        ({"size": [*SIZE], "counts": [1, 2]}, f"{WHOLE} 3. Use COCO run lengths, column by column."),
        ({"size": [*SIZE], "counts": counts(np.ones((100, 119), bool))["counts"]}, f"{WHOLE} 11900."),
        ({"size": [*SIZE], "counts": "\x01\x02"}, f"{WHOLE} '\\x01\\x02'."),
        ({"size": [*SIZE], "counts": ""}, f"{WHOLE} ''."),
        ({"size": [*SIZE], "counts": "oooooooo1"}, f"{WHOLE} 'oooooooo1'."),
        ({"size": [*SIZE], "counts": [-1, 12001]}, "expected run lengths of at least 0, found [-1, 12001]."),
        ({"size": [*SIZE], "counts": [0.5, 11999.5]}, "expected run lengths of at least 0, found [0.5, 11999.5]."),
        ({"size": [*SIZE], "counts": None}, "expected run lengths of at least 0, found None."),
        ({"size": None, "counts": "0"}, "expected a size of two integers, found None. Use height and width"),
        ({"size": [100], "counts": "0"}, "expected a size of two integers, found [100]."),
        (None, f"{POLYGONS} null."),
        ([5, 6], "expected polygons of finite numbers, found 5."),
        ([[[1, 2], [3]]], "expected polygons of finite numbers, found [[1, 2], [3]]."),
        ([[1, 2, 3, 4, 5, 6, 7]], f"{POLYGONS} [[1, 2, 3, 4, 5, 6, 7]]."),
        ([[1, 2, 3, 4, 5, math.nan]], "expected polygons of finite numbers, found [1, 2, 3, 4, 5, nan]."),
        (
            [[1, 2, 3, 4, 5, 1e9]],
            "expected polygons in or near the image, 100 by 120, found [1.0, 2.0, 3.0, 4.0, 5.0, 1",
        ),
    ],
)
def test_invalid_masks_are_errors(segmentation, text):
    """pycocotools takes run lengths of any sum, and with corners that are no numbers all memory."""
    with pytest.raises(MaskError) as error:
        average_precision(truth_of({"segmentation": square(10, 10)}), [detection(segmentation)])
    assert str(error.value).startswith(f"detections[0]: {text}")


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (
            [math.nan] * 4,
            "four finite numbers, found [nan, nan, nan, nan]. Use left, top, width and height, in pixels.",
        ),
        ([1, 2, math.inf, 4], "four finite numbers, found [1, 2, inf, 4]."),
        ([1, 2, 3], "four finite numbers, found [1, 2, 3]."),
        (["1", "2", "3", "4"], "four finite numbers, found ['1', '2', '3', '4']."),
        (7, "four finite numbers, found 7."),
        ([[1, 2], [3]], "four finite numbers, found [[1, 2], [3]]."),
        ([10, 10, -5, 5], "width and height of at least 0, found [-5.0, 5.0]. Remove it, or order its corners."),
    ],
)
def test_invalid_boxes_are_errors(box, text):
    """A box of NaN overlaps all boxes in pycocotools, and scored a perfect AP."""
    truth = truth_of({"bbox": [10, 10, 20, 20]})
    found = {"image_id": 0, "category_id": 5, "score": 0.5, "bbox": box}
    with pytest.raises(MaskError) as error:
        average_precision(truth, [found], "box")
    assert str(error.value).startswith(f"detections[0]: expected a box of {text}")
    with pytest.raises(MaskError, match=r"^truth\[0\]: expected a box of"):
        average_precision(truth_of({"bbox": box}), [], "box")


def test_boxes_may_be_arrays():
    truth = truth_of({"bbox": np.array([10, 10, 20, 20])})
    found = {"image_id": 0, "category_id": 5, "score": np.float32(0.5), "bbox": np.array([10.0, 10.0, 20.0, 20.0])}
    assert average_precision(truth, [found], "box").ap == PERFECT


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"iscrowd": None}, "iscrowd 0 or 1, found None. See the COCO data format."),
        ({"iscrowd": 2}, "iscrowd 0 or 1, found 2."),
        ({"iscrowd": "no"}, "iscrowd 0 or 1, found 'no'."),
        ({"area": None}, "an area of at least 0, found None. Leave it out to have it computed, or use pixels."),
        ({"area": math.nan}, "an area of at least 0, found nan."),
        ({"area": -1}, "an area of at least 0, found -1."),
    ],
)
def test_annotations_with_invalid_numbers_are_errors(change, text):
    with pytest.raises(MaskError) as error:
        average_precision(truth_of({"segmentation": square(10, 10)} | change), [])
    assert str(error.value).startswith(f"truth[0]: expected {text}")


def test_crowd_flags_may_be_bool():
    truth = truth_of(
        {"segmentation": square(10, 10), "iscrowd": True}, {"segmentation": square(60, 60), "iscrowd": False}
    )
    assert average_precision(truth, [detection(square(60, 60))]).ap == PERFECT


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"images": []},
            "truth: images: expected one or more, found none. Pass the truth that the detections belong to.",
        ),
        ({"categories": []}, "truth: categories: expected one or more, found none."),
        ({"images": None}, "truth: images: expected a list, found None. See the COCO data format."),
        ({"annotations": {}}, "truth: annotations: expected a list, found {}."),
        (
            {"categories": [{"id": 5}, {"id": 5}]},
            "truth: categories: expected unique ids, found 5 twice. Give each entry its own id.",
        ),
        (
            {"categories": [{"id": 5}, {"id": "9"}]},
            "truth: categories: expected ids of one type, found strings and numbers. Use integers",
        ),
        ({"categories": [{"id": [5]}]}, "truth: categories: expected unique ids, found [5]."),
    ],
)
def test_invalid_truth_is_an_error(change, text):
    with pytest.raises(DataError) as error:
        average_precision(truth_of() | change, [])
    assert str(error.value).startswith(text)


@pytest.mark.parametrize("height", [None, 0, 99.5, "100"])
def test_images_without_a_size_are_errors(height):
    truth = truth_of({"segmentation": square(10, 10)})
    truth["images"][0]["height"] = height
    with pytest.raises(MaskError, match="truth: images: expected a height of at least 1, found"):
        average_precision(truth, [])


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (40, 61), (700, 900)])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_compressed_run_lengths_are_decoded(shape, share):
    region = np.random.default_rng(0).random(shape) < share
    flat = region.ravel("F").astype(np.int8)
    borders = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
    np.testing.assert_array_equal(unpack(counts(region)["counts"]), np.diff(borders, prepend=0))
    assert unpack(counts(region)["counts"].encode()).sum() == region.size


def test_missing_keys_are_errors():
    with pytest.raises(DataError) as error:
        average_precision(truth_of(), [{"image_id": 0, "category_id": 5, "bbox": [0, 0, 1, 1], "score": 1}])
    assert str(error.value) == (
        "detections[0]: expected the key 'segmentation', found image_id, category_id, bbox, score. "
        "See the COCO data format."
    )
    with pytest.raises(DataError, match="truth: expected the key 'images', found annotations"):
        average_precision({"annotations": []}, [])


def test_unreadable_files_are_errors(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(DataError, match=r"a\.json: expected a JSON file in COCO format, found Expecting"):
        average_precision(tmp_path / "a.json", [])
    with pytest.raises(DataError, match=r"none\.json: expected a JSON file in COCO format, found .*No such file"):
        average_precision(truth_of(), tmp_path / "none.json")
    with pytest.raises(DataError, match=r"b\.json: expected a list of detections, found dict\. Pass truth"):
        average_precision(truth_of(), tmp_path / "b.json")


def test_invalid_arguments_are_errors():
    with pytest.raises(UsageError, match="kind: expected mask, box or boundary, found segm"):
        average_precision(truth_of(), [], "segm")
    with pytest.raises(UsageError, match="expected a positive share of the diagonal, found 0"):
        average_precision(truth_of(), [], "boundary", boundary_share=0)
