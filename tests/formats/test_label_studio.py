from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, MaskError
from pixelwise.formats import FORMATS, find_format, label_studio, read_dataset
from pixelwise.formats.base import ExportImage, mentions
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.label_studio import FORMAT
from pixelwise.formats.label_studio_brush import decode_brush, encode_brush
from pixelwise.labels import Labels

SIZE = (8, 10)


def bit_by_bit(coded: list[int]) -> list[int]:
    """Decode a string of bits from its beginning, as a simple reference."""
    stream = "".join(f"{value:08b}" for value in coded)

    def take(count: int) -> int:
        nonlocal stream
        taken, stream = stream[:count], stream[count:]
        assert len(taken) == count
        return int(taken, 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = take(1)
        count = take(sizes[take(2)]) + 1
        values += [take(word)] * count if repeated else [take(word) for _ in range(count)]
    assert len(values) == total
    assert set(stream) <= {"0"}
    return values


def coded(*records: tuple[bool, int, list[int]], total: int, sizes: tuple[int, ...] = (3, 4, 8, 16)) -> list[int]:
    """Encode records: repeated or not, which size of count, the values."""
    stream = f"{total:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for repeated, which, values in records:
        stream += f"{int(repeated)}{which:02b}{len(values) - 1:0{sizes[which]}b}"
        stream += "".join(f"{value:08b}" for value in (values[:1] if repeated else values))
    stream += "0" * (-len(stream) % 8)
    return [int(stream[k : k + 8], 2) for k in range(0, len(stream), 8)]


def pixels_of(runs: np.ndarray) -> list[bool]:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).tolist()


def region(value: dict[str, Any], number: int = 0, size: tuple[int, int] = SIZE, **more: Any) -> dict[str, Any]:
    """Return a result as exported by Label Studio 1."""
    kind = next((key for key in value if key.endswith("labels")), "polygon")
    given_more = {"id": f"r{number}", "from_name": "label", "to_name": "image", "type": kind, "origin": "manual"}
    sizes = {"original_width": size[1], "original_height": size[0], "image_rotation": 0}
    return {**sizes, "value": value, **given_more, **more}


def polygon(label: str, *points: tuple[float, float]) -> dict[str, Any]:
    percent = [[x * 100 / SIZE[1], y * 100 / SIZE[0]] for x, y in points]
    return {"points": percent, "closed": True, "polygonlabels": [label]}


def square(label: str, left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    return polygon(label, (left, top), (right, top), (right, bottom), (left, bottom))


def annotation(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": 1552, "completed_by": 1, "result": list(results), "was_cancelled": False, "ground_truth": False,
        "created_at": "2026-05-07T12:34:36.829143Z", "updated_at": "2026-05-07T16:27:17.914777Z", "lead_time": 831.8,
        "prediction": {}, "result_count": 0, "task": 1, "project": 7, "updated_by": 1, **more,
    }  # fmt: skip


def task(*annotations: dict[str, Any], image: str = "/data/upload/7/0a1b2c3d-a.png", **more: Any) -> dict[str, Any]:
    return {
        "id": 1, "annotations": list(annotations), "file_upload": image.rpartition("/")[2], "drafts": [],
        "predictions": [], "data": {"image": image}, "meta": {}, "created_at": "2026-05-07T12:22:30.126803Z",
        "inner_id": 1, "total_annotations": 1, "project": 7, "comment_authors": [], **more,
    }  # fmt: skip


def write_dataset(
    root: Path, plain: Any, *names: str, at: str = "project-7.json", size: tuple[int, int] = SIZE
) -> Path:
    for name in names or ("a.png",):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1]).save(root / name)
    (root / at).write_text(json.dumps(plain), encoding="utf-8")
    return root


def find(root: Path, **config: Any) -> Any:
    return read_dataset(DataConfig.model_validate(config), root, root)[1]


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def mask_of(root: Path, **config: Any) -> np.ndarray:
    splits = opened(root, **config)
    assert splits.train is not None
    return splits.train.read(0).mask


def problems_of(layout: Any) -> list[tuple[str, str]]:
    return sorted((problem.file, problem.why) for problem in layout.problems)


def test_full_export_with_later_regions_on_top(tmp_path: Path) -> None:
    low = {"x": 0, "y": 0, "width": 100, "height": 50, "rotation": 0, "rectanglelabels": ["sky"]}
    results = [region(low, 0), region(square("tree", 2, 2, 5, 6), 1), region({"choices": ["good"]}, 2, type="choices")]
    results.append({"from_id": "r0", "to_id": "r1", "type": "relation", "direction": "right"})
    write_dataset(tmp_path, [task(annotation(*results))])
    place = DatasetRoot(tmp_path, tmp_path, DataConfig())
    assert FORMAT.detect(place) == "project-7.json has tasks of Label Studio"
    assert find_format(place)[0] is FORMATS["label-studio"] is FORMAT
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "sky", "tree")
    expected = np.zeros(SIZE, np.uint8)
    expected[:4] = 1
    expected[2:6, 2:5] = 2
    np.testing.assert_array_equal(splits.train.read(0).mask, expected)
    assert splits.notices == ("read as Label Studio JSON: project-7.json has tasks of Label Studio",)
    assert splits.train.records[0].id == "a"


def corners_of(value: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Return the corners as in Label Studio's documentation: x and y stay, the sides rotate in pixels."""
    x, y = value["x"] / 100 * size[1], value["y"] / 100 * size[0]
    w, h = value["width"] / 100 * size[1], value["height"] / 100 * size[0]
    cos, sin = np.cos(np.radians(value["rotation"])), np.sin(np.radians(value["rotation"]))
    return np.array(
        [(x, y), (x + w * cos, y + w * sin), (x + w * cos - h * sin, y + w * sin + h * cos), (x - h * sin, y + h * cos)]
    )


@pytest.mark.parametrize("degrees", [0, 31.5, 90, 180, 300])
def test_rectangles_rotate_around_their_upper_left_corner(tmp_path: Path, degrees: float) -> None:
    size = (60, 100)
    value = {"x": 45, "y": 50, "width": 20, "height": 15, "rotation": degrees, "rectanglelabels": ["car"]}
    write_dataset(tmp_path, [task(annotation(region(value, size=size)))], size=size)
    corners = corners_of(value, size)
    centres = np.stack(np.meshgrid(np.arange(100) + 0.5, np.arange(60) + 0.5), -1)
    inside, sure = np.ones(size, bool), np.ones(size, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side = (x1 - x0) * (centres[..., 1] - y0) - (y1 - y0) * (centres[..., 0] - x0)
        inside &= side > 0
        sure &= np.abs(side) > 1e-6
    found = mask_of(tmp_path) == 1
    np.testing.assert_array_equal(found[sure], inside[sure])
    assert abs(int(found.sum()) - 180) <= 15


@pytest.mark.parametrize("degrees", [0, 25, 90])
def test_ellipses_rotate_around_their_centre(tmp_path: Path, degrees: float) -> None:
    size = (60, 100)
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": degrees, "ellipselabels": ["cell"]}
    write_dataset(tmp_path, [task(annotation(region(value, size=size)))], size=size)
    centres = (np.arange(100) + 0.5 - 50)[None] + 1j * (np.arange(60) + 0.5 - 30)[:, None]
    centres = centres * np.exp(-1j * np.radians(degrees))
    share = (centres.real / 20) ** 2 + (centres.imag / 6) ** 2
    sure = np.abs(share - 1) > 0.01
    np.testing.assert_array_equal((mask_of(tmp_path) == 1)[sure], (share < 1)[sure])


def test_the_reference_decoder_reads_an_example() -> None:
    """The example is from the tests of label-studio-converter."""
    example = [0, 0, 0, 18, 57, 27, 252, 96, 32, 1, 0, 6, 0, 40, 0, 192, 3, 128, 17, 56, 32]
    assert bit_by_bit(example) == [1, 1, 1, 1, 2, 3, 5, 6, 7, 8, *[4] * 8]


RECORDS = st.lists(
    st.tuples(
        st.booleans(), st.integers(0, 3), st.lists(st.sampled_from([0, 0, 1, 128, 255]), min_size=1, max_size=20)
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None, database=None)
@given(RECORDS, st.sampled_from([(3, 4, 8, 16), (5, 5, 5, 5), (16, 16, 16, 16)]))
def test_decoding_random_streams(records: Any, sizes: tuple[int, ...]) -> None:
    records = [(repeated, which, values[: 1 << sizes[which]]) for repeated, which, values in records]
    plain = [value for repeated, _, values in records for value in (values[:1] * len(values) if repeated else values)]
    missing = -len(plain) % 4
    records += [(False, 0, [7] * missing)] if missing else []
    plain += [7] * missing
    stream = coded(*records, total=len(plain), sizes=sizes)
    assert bit_by_bit(stream) == plain
    runs = decode_brush(stream, len(plain) // 4)
    assert pixels_of(runs) == [alpha > 0 for alpha in plain[3::4]]
    assert runs.sum() == len(plain) // 4
    assert (runs[1:] > 0).all()


@settings(max_examples=200, deadline=None, database=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30)))
def test_encoded_masks_are_read_by_both_decoders(mask: np.ndarray) -> None:
    stream = encode_brush(mask)
    assert all(0 <= value < 256 for value in stream)
    values = np.array(bit_by_bit(stream), np.uint8).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(values, np.where(mask, 255, 0)[..., None].repeat(4, axis=-1))
    assert pixels_of(decode_brush(stream, mask.size)) == mask.reshape(-1).tolist()


def test_long_runs() -> None:
    mask = np.zeros((300, 400), bool)
    mask[10:290] = True
    stream = encode_brush(mask)
    assert len(stream) < 60
    assert bit_by_bit(stream)[3::4] == np.where(mask.reshape(-1), 255, 0).tolist()
    assert pixels_of(decode_brush(stream, mask.size)) == mask.reshape(-1).tolist()


def brush(mask: np.ndarray, label: str = "road", **more: Any) -> dict[str, Any]:
    return {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label], **more}


def test_brush_masks(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((2, *SIZE)) < 0.4
    results = [region(brush(mask, label), k) for k, (mask, label) in enumerate(zip(masks, ("a", "b"), strict=True))]
    write_dataset(tmp_path, [task(annotation(*results))])
    np.testing.assert_array_equal(mask_of(tmp_path), np.where(masks[1], 2, masks[0]))


def one_pixel(label: str, column: int) -> dict[str, Any]:
    return region(square(label, column, 0, column + 1, 1), column)


def test_ground_truth_is_preferred_then_the_newest_annotation(tmp_path: Path) -> None:
    old, new = {"updated_at": "2026-01-01T00:00:00Z"}, {"updated_at": "2026-02-01T01:00:00.5+02:00"}
    newest = {"updated_at": "2026-03-01T00:00:00Z", "was_cancelled": True}
    write_dataset(
        tmp_path,
        [
            task(annotation(one_pixel("new", 0), **new), annotation(one_pixel("old", 1), **old), image="a.png"),
            task(annotation(one_pixel("x", 2), **newest), annotation(one_pixel("new", 3), **old), image="b.png"),
            task(
                annotation(one_pixel("old", 4), **old, ground_truth=True),
                annotation(one_pixel("new", 5), **new),
                image="c.png",
            ),
            task(annotation(one_pixel("new", 6), updated_at=None, created_at=None), image="d.png"),
        ],
        *("a.png", "b.png", "c.png", "d.png"),
    )
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "new", "old")
    found = [np.argwhere(splits.train.read(k).mask).tolist() for k in range(4)]
    assert found == [[[0, 0]], [[0, 3]], [[0, 4]], [[0, 6]]]
    notice = "2 images have several annotations: ground truth is used, else the newest that is not cancelled"
    assert splits.notices[1:] == (notice,)


def test_older_exports_have_completions_and_times_in_seconds(tmp_path: Path) -> None:
    """As written by Label Studio 0.7: no size, and the key of the image in `source`."""
    old = {"from_name": "tag", "to_name": "img", "source": "$photo", "type": "polygonlabels"}
    results = [{**old, "id": "XSM", "value": square("Hello", 1, 1, 3, 4)}]
    later = {"id": 2, "lead_time": 3, "created_at": 1590000001, "result": results}
    earlier = {"id": 1, "created_at": 1590000000, "result": []}
    skipped = {"id": 3, "created_at": 1590000002, "skipped": True, "result": []}
    data = {"photo": "https://user.fm/files/v2-901/a.png", "thumbnail": "https://user.fm/files/b.png"}
    write_dataset(tmp_path, {"id": 0, "data": data, "completions": [later, earlier, skipped]})
    mask = mask_of(tmp_path)
    assert np.argwhere(mask).tolist() == [[row, column] for row in (1, 2, 3) for column in (1, 2)]


def flat(label: str, column: int, **more: Any) -> dict[str, Any]:
    """Return a record of JSON-MIN."""
    value = {**square(label, column, 0, column + 1, 1), "original_width": SIZE[1], "original_height": SIZE[0]}
    return {
        "image": "/data/upload/7/0a1b2c3d-a.png",
        "id": 1,
        "label": [value],
        "annotator": 1,
        "annotation_id": 5,
        **more,
    }


def test_flat_export_with_several_records_of_a_task(tmp_path: Path) -> None:
    records = [
        flat("new", 0, updated_at="2026-02-01T00:00:00Z"),
        flat("old", 1, updated_at="2026-01-01T00:00:00Z"),
        flat("new", 2, id=2, image="/data/upload/7/0a1b2c3e-b.png"),
        {"image": "c.png", "id": 3, "annotator": 1, "annotation_id": 7, "created_at": "2026-01-01T00:00:00Z"},
    ]
    write_dataset(tmp_path, records, "a.png", "b.png", "c.png")
    assert (
        FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig()))
        == "project-7.json has flat records of Label Studio"
    )
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "new")
    assert [np.argwhere(splits.train.read(k).mask).tolist() for k in range(3)] == [[[0, 0]], [[0, 2]], []]
    assert splits.notices[1:] == (
        "1 images have several annotations: ground truth is used, else the newest that is not cancelled",
        "1 of 3 images have no shapes: all their pixels are background",
    )


@pytest.mark.parametrize("export", ["full", "flat"])
def test_a_brush_and_its_labels_from_two_tags_are_one_region(tmp_path: Path, export: str) -> None:
    mask = np.eye(*SIZE, dtype=bool)
    bare, labelled = (
        {"format": "rle", "rle": encode_brush(mask)},
        {"format": "rle", "rle": encode_brush(mask), "labels": ["a"]},
    )
    results = [region(bare, 1, type="brush"), region(labelled, 1, type="labels")]
    sizes = {"original_width": SIZE[1], "original_height": SIZE[0]}
    record = {"image": "a.png", "id": 1, "brush": [bare | sizes], "labels": [labelled | sizes], "annotator": 1}
    write_dataset(tmp_path, [task(annotation(*results), image="a.png")] if export == "full" else [record])
    np.testing.assert_array_equal(mask_of(tmp_path), mask.astype(np.uint8))


def test_regions_with_the_same_id_are_all_drawn(tmp_path: Path) -> None:
    results = [
        region(square("a", 0, 0, 1, 1), 7),
        region(square("b", 5, 0, 6, 1), 7),
        region(square("a", 8, 0, 9, 1), 7),
    ]
    write_dataset(tmp_path, [task(annotation(*results))])
    assert mask_of(tmp_path)[0].tolist() == [1, 0, 0, 0, 0, 2, 0, 0, 1, 0]


def test_detection_reads_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path, [task(annotation(one_pixel("a", 0)))], at="z.json")
    (tmp_path / "more").mkdir()
    for number in range(80):
        (tmp_path / "more" / f"{number}.json").write_text("{}")
    read: list[Path] = []

    def noted(path: Path, *words: str) -> bool:
        read.append(path)
        return mentions(path, *words)

    monkeypatch.setattr(label_studio, "mentions", noted)
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) == "z.json has tasks of Label Studio"
    assert set(read) == {tmp_path / "z.json"}
    (tmp_path / "z.json").unlink()
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None
    assert len(set(read)) <= 51


def test_predictions_drafts_and_cancelled_annotations_are_not_read(tmp_path: Path) -> None:
    guess = [{"model_version": "1", "score": 0.9, "result": [one_pixel("guess", 0)]}]
    plain = [
        task(annotation(one_pixel("real", 1)), image="a.png", predictions=guess),
        task(image="b.png", predictions=guess, drafts=guess),
        task(annotation(one_pixel("x", 2), was_cancelled=True), image="c.png"),
        task(image="gone.png", predictions=guess),
        {"data": {"image": "d.png"}},
    ]
    found = find(write_dataset(tmp_path, plain, "a.png", "b.png", "c.png", "d.png"))
    assert found.labels.names == ("background", "real")
    assert problems_of(found.layout) == [
        ("b.png", "image without a mask"),
        ("c.png", "image without a mask"),
        ("d.png", "image without a mask"),
        ("project-7.json: task 1 (gone.png)", "task without an annotation and without its image (no such image)"),
    ]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (square("a", 0, 0, 1, 1) | {"polygonlabels": ["a", "b"]}, "a polygon with 'a' and 'b'"),
        (square("a", 0, 0, 1, 1) | {"polygonlabels": []}, "a polygon with no label"),
        ({key: v for key, v in square("a", 0, 0, 1, 1).items() if key != "polygonlabels"}, "a polygon with no label"),
    ],
)
def test_regions_with_several_labels_or_none_are_errors(tmp_path: Path, value: dict[str, Any], found: str) -> None:
    plain = [task(annotation(region(value))), task(annotation(one_pixel("a", 0)), image="b.png", id=2)]
    write_dataset(tmp_path, plain, "a.png", "b.png")
    with pytest.raises(MaskError) as error:
        find(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/project-7.json: task 1: expected one label for every region, found {found}. "
        'Give every region one label in Label Studio (choice="single"), and export again.'
    )
    splits = opened(tmp_path, skip_bad=True)
    assert [record.id for record in splits.train.records] == ["b"]
    assert splits.skipped == (f"{tmp_path}/project-7.json: task 1: expected one label for every region, found {found}",)


def test_regions_on_a_rotated_view_are_errors(tmp_path: Path) -> None:
    write_dataset(tmp_path, [task(annotation(region(square("a", 0, 0, 1, 1), image_rotation=90)))])
    with pytest.raises(MaskError) as error:
        find(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/project-7.json: task 1: expected regions on the unrotated image, found a region on the image "
        "rotated by 90 degrees. Rotate the image back in Label Studio and draw again, or rotate the file itself before "
        "annotating."
    )


def test_keypoints_are_counted_and_bitmasks_are_errors(tmp_path: Path) -> None:
    spot = {"x": 5, "y": 5, "width": 0.4, "keypointlabels": ["nose"]}
    write_dataset(tmp_path, [task(annotation(region(spot, 0), region(spot, 1), one_pixel("a", 2)))])
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "a")
    assert splits.notices[1:] == ("not drawn, because they cover no pixels: 2 keypointlabels",)
    for labels in ("bitmasklabels", "labels"):  # the latter for the tag BitMask with a Labels tag
        write_dataset(tmp_path, [task(annotation(region({"imageDataURL": "data:image/png;base64,", labels: ["a"]})))])
        with pytest.raises(
            MaskError, match=r"found bitmasklabels\. Draw with BrushLabels, or convert the bitmasks to PNG"
        ):
            find(tmp_path)


def test_several_images_in_a_task(tmp_path: Path) -> None:
    write_dataset(tmp_path, [task(annotation(region(square("a", 0, 0, 1, 1), item_index=1)))])
    with pytest.raises(MaskError, match=r"expected one image per task, found a region on another of several"):
        find(tmp_path)
    two = {"left": "a.png", "right": "b.png"}
    write_dataset(tmp_path, [task(annotation(one_pixel("a", 0)), data=two)], "a.png", "b.png")
    assert problems_of(find(tmp_path).layout)[-1] == (
        "project-7.json: task 1",
        "task with several texts that could be its image",
    )
    result = one_pixel("a", 0) | {"to_name": "right"}
    write_dataset(tmp_path, [task(annotation(result), data=two, file_upload=None)])
    layout = find(tmp_path).layout
    assert [record.image.name for record in layout.splits["pool"]] == ["b.png"]
    assert problems_of(layout) == [("a.png", "image without a mask")]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/data/upload/7/0a1b2c3d-a.png", "0a1b2c3d-a.png"),
        ("/data/upload/7/0a1b2c3d-a.png", "images/a.png"),
        ("/data/upload/7/0a1b2c3d-my_photo_1.png", "my photo (1).png"),
        ("/data/upload/7/0a1b2c3d-Stra%C3%9Fe.png", "Straße.png"),
        ("/data/local-files/?d=field/day%201/a.png", "day 1/a.png"),
        ("/data/local-files/?d=field%5Cday%201%5Ca.png", "day 1/a.png"),
        ("http://localhost:8080/data/local-files/?x=1&d=day%201/a.png&t=2", "day 1/a.png"),
        ("s3://bucket/key/100%25%20a.png", "100% a.png"),
        ("https://example.org/x/a.png?X-Amz-Signature=1%2F2", "x/a.png"),
        ("gs://bucket/a%20b.png", "a%20b.png"),
        ("images/what%3F.png", "images/what?.png"),
        ("C:\\data\\a.png", "a.png"),
        ("/image1", "image1.png"),
    ],
)
def test_images_are_found_by_the_end_of_their_url(tmp_path: Path, image: str, name: str) -> None:
    layout = find(
        write_dataset(tmp_path, [task(annotation(one_pixel("a", 0)), image=image, file_upload=None)], name)
    ).layout
    assert not layout.problems
    assert [record.image for record in layout.splits["pool"]] == [tmp_path / name]


def test_a_date_in_a_name_is_not_an_upload_prefix(tmp_path: Path) -> None:
    plain = [task(annotation(one_pixel("a", 0)), image="/data/local-files/?d=cam/20240101-7.png", file_upload=None)]
    layout = find(write_dataset(tmp_path, plain, "cam/7.png")).layout
    assert not layout.splits
    assert any("annotation without its image" in problem.why for problem in layout.problems)


def test_the_upload_name_is_used_if_the_url_matches_nothing(tmp_path: Path) -> None:
    plain = [
        task(annotation(one_pixel("a", 0)), image="https://example.org/tasks/1/resolve", file_upload="0a1b2c3d-a.png")
    ]
    assert [record.image.name for record in find(write_dataset(tmp_path, plain)).layout.splits["pool"]] == ["a.png"]


def test_urls_never_lead_outside_the_root(tmp_path: Path) -> None:
    write_dataset(tmp_path / "outside", [], "secret.png")
    names = (
        "../outside/secret.png",
        str(tmp_path / "outside" / "secret.png"),
        "/data/local-files/?d=../outside/secret.png",
        "0a1b2c3d-.",
        "",
    )
    plain = [task(annotation(one_pixel("a", 0)), image=name, id=k, file_upload="..") for k, name in enumerate(names)]
    layout = find(write_dataset(tmp_path / "near", plain)).layout
    assert not layout.splits
    assert len(layout.problems) == len(names) + 1


def test_two_tasks_for_an_image_and_an_ambiguous_name(tmp_path: Path) -> None:
    plain = [
        task(annotation(one_pixel("a", 0)), image=name, id=k) for k, name in enumerate(("a.png", "x/a.png", "b.png"))
    ]
    layout = find(write_dataset(tmp_path, plain, "a.png", "p/b.png", "q/b.png")).layout
    assert problems_of(layout) == [
        ("p/b.png", "image without a mask"),
        ("project-7.json: task 1", "second annotation of a.png (also project-7.json: task 0)"),
        ("project-7.json: task 2 (b.png)", "annotation without its image (2 images of that name)"),
        ("q/b.png", "image without a mask"),
    ]


def test_splits_come_from_folders_or_the_name_of_the_export(tmp_path: Path) -> None:
    first = [
        task(annotation(one_pixel("a", 0)), image="a.png"),
        task(annotation(one_pixel("a", 0)), image="b.png", id=2),
    ]
    write_dataset(tmp_path, first, "train/a.png", "b.png", at="labels_val.json")
    layout = find(tmp_path).layout
    assert {split: [record.id for record in items] for split, items in layout.splits.items()} == {
        "train": ["train/a"],
        "val": ["b"],
    }


RECTANGLE = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["a"]}
ELLIPSE = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 20, "rotation": 0, "ellipselabels": ["a"]}
BRUSH = brush(np.eye(*SIZE, dtype=bool), "a")
NUMBER = "coordinates that are not finite or out of range"
BAD = [
    (RECTANGLE | {"x": float("nan")}, f"a rectangle with {NUMBER}"),
    (RECTANGLE | {"x": float("inf")}, f"a rectangle with {NUMBER}"),
    (RECTANGLE | {"width": 1e308}, f"a rectangle with {NUMBER}"),
    (RECTANGLE | {"width": 10**400}, "a rectangle with int too large to convert to float"),
    (RECTANGLE | {"width": -20}, "a rectangle with a negative size"),
    (RECTANGLE | {"rotation": "left"}, "a rectangle with could not convert string to float"),
    (RECTANGLE | {"rotation": float("inf")}, "a rectangle with a rotation that is not finite"),
    (RECTANGLE | {"y": None}, f"a rectangle with {NUMBER}"),
    (RECTANGLE | {"y": {}}, "a rectangle with float() argument must be"),
    (RECTANGLE | {"y": [1, 2]}, "a rectangle with setting an array element"),
    (ELLIPSE | {"radiusX": -1}, "an ellipse with a negative size"),
    (ELLIPSE | {"radiusY": 1e300}, f"an ellipse with {NUMBER}"),
    ({key: value for key, value in ELLIPSE.items() if key != "radiusY"}, "an ellipse with no 'radiusY'"),
    ({"points": [[0, 0], [1, 1]], "polygonlabels": ["a"]}, "a polygon with fewer than three points"),
    ({"points": [[0, 0], [1, 1], [float("nan"), 0]], "polygonlabels": ["a"]}, f"a polygon with {NUMBER}"),
    ({"points": [[0, 0], [1, 1], [2]], "polygonlabels": ["a"]}, "a polygon with setting an array element"),
    ({"points": "0,0", "polygonlabels": ["a"]}, "a polygon with could not convert string to float"),
    ({"points": None, "polygonlabels": ["a"]}, "a polygon with"),
    (BRUSH | {"rle": []}, "a brush mask with 0 values of 1 bits for 80 pixels of 4 × 8 bits"),
    (BRUSH | {"rle": BRUSH["rle"][:-2]}, "a brush mask with a stream that ends early"),
    (BRUSH | {"rle": BRUSH["rle"][:9]}, "a brush mask with a stream that ends early"),
    (BRUSH | {"rle": [*BRUSH["rle"], 256]}, "a brush mask with bytes must be in range(0, 256)"),
    (BRUSH | {"rle": [*BRUSH["rle"], "0"]}, "a brush mask with"),
    (BRUSH | {"rle": 10**12}, "a brush mask with 'int' object is not iterable"),
    (BRUSH | {"rle": "AAAA"}, "a brush mask with"),
    (BRUSH | {"rle": None}, "a brush mask with"),
    (BRUSH | {"rle": encode_brush(np.ones((8, 11)))}, "a brush mask with 352 values of 8 bits for 80 pixels"),
    (BRUSH | {"rle": coded((True, 3, [255] * 321), total=320)}, "a stream longer than the image"),
    (BRUSH | {"rle": coded((False, 3, [255] * 321), total=320)}, "a stream longer than the image"),
    (BRUSH | {"rle": coded((False, 3, [255] * 320), total=320)[:-5]}, "a stream that ends early"),
    (BRUSH | {"rle": [255] * 60}, "4294967295 values of 32 bits for 80 pixels"),
]


@pytest.mark.parametrize(("value", "found"), BAD)
def test_malformed_regions_are_errors(tmp_path: Path, value: dict[str, Any], found: str) -> None:
    write_dataset(tmp_path, [task(annotation(region(value)))])
    tracemalloc.start()
    with pytest.raises(MaskError) as error:
        find(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    start = f"{tmp_path}/project-7.json: task 1: expected regions as Label Studio writes them, found a"
    assert str(error.value).startswith(start)
    assert found in str(error.value)
    assert str(error.value).endswith("Export the annotations again.")


@pytest.mark.parametrize(
    ("width", "height"),
    [(10**9, 8), (10**9, 10**9), (-10, 8), (0, 8), ("10", 8), (None, 8), (10.5, 8), (float("nan"), 8), ({}, [])],
)
def test_malformed_sizes_are_errors(tmp_path: Path, width: Any, height: Any) -> None:
    write_dataset(tmp_path, [task(annotation(region(BRUSH, original_width=width, original_height=height)))])
    with pytest.raises(
        MaskError, match=r"expected one original_width and original_height, of at most 400,000,000 pixels, f"
    ):
        find(tmp_path)


def test_different_sizes_for_an_image_are_an_error(tmp_path: Path) -> None:
    write_dataset(tmp_path, [task(annotation(one_pixel("a", 0), region(square("a", 0, 0, 1, 1), 1, size=(9, 10))))])
    with pytest.raises(MaskError, match=r"found 10×9 and 10×8\."):
        find(tmp_path)


@pytest.mark.parametrize("value", [BRUSH, RECTANGLE | {"rotation": 5}])
def test_regions_that_need_a_missing_size_are_errors(tmp_path: Path, value: dict[str, Any]) -> None:
    write_dataset(tmp_path, [task(annotation(region(value, original_width=None, original_height=None)))])
    with pytest.raises(MaskError, match=r"found a (brush mask|rectangle) with no original_width and original_height"):
        find(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": "none"}, {"annotations": [None, 3, []]}, {"data": []}, {"data": {"image": 5}}, {"id": {}},
        {"annotations": [{"result": [None, 3, {"value": 3}]}]}, {"file_upload": 3}, {"data": {"image": ["a.png"]}},
        {"annotations": [annotation(updated_at={}), annotation(updated_at=10**400)]},
    ],
)  # fmt: skip
def test_unusable_tasks_are_reported(tmp_path: Path, changes: dict[str, Any]) -> None:
    plain = [task(annotation(), image="b.png"), task(annotation()) | changes]
    layout = find(write_dataset(tmp_path, plain, "a.png", "b.png"), skip_bad=True).layout
    assert layout.splits["pool"][-1].id in ("a", "b")
    assert layout.notices or layout.problems


def test_an_annotation_without_results_is_an_error(tmp_path: Path) -> None:
    write_dataset(tmp_path, [task({"id": 5})])
    with pytest.raises(
        MaskError, match=r"task 1: expected a list of results, found none\. Export the annotations again"
    ):
        find(tmp_path)


@pytest.mark.parametrize(
    "plain",
    [
        {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "data": 3}], "categories": []},
        {"shapes": [], "imagePath": "a.png"},
        [{"image": "a.png", "annotations": [{"label": "x", "coordinates": {"x": 1, "y": 1, "width": 1, "height": 1}}]}],
        {"data": {"annotations": []}},
        [1, [2], {}],
        [],
        "annotations",
    ],
)
def test_files_of_other_tools_are_not_recognised(tmp_path: Path, plain: Any) -> None:
    write_dataset(tmp_path, plain)
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None
    with pytest.raises(DataError, match=r"expected a JSON export of Label Studio, found none\. Export as"):
        find(tmp_path, format="label-studio")


def test_malformed_json(tmp_path: Path) -> None:
    write_dataset(tmp_path, [task(annotation(one_pixel("a", 0)))])
    (tmp_path / "notes.json").write_text('{"by": "someone else"')
    assert not find(tmp_path).layout.problems
    whole = (tmp_path / "project-7.json").read_text()
    (tmp_path / "project-7.json").write_text(whole[:-9])
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None
    with pytest.raises(
        MaskError, match=r"project-7\.json: expected a JSON file, found .*\. Export the annotations again"
    ):
        find(tmp_path, format="label-studio")


def test_written_files_are_read_by_label_studio(tmp_path: Path) -> None:
    labels = Labels(("background", 'a "b" <c>', "tree"), colours=((0, 0, 0), (1, 2, 3), (255, 0, 16)))
    rng = np.random.default_rng(3)
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "p.png")
    (tmp_path / "out").mkdir()
    writer = FORMAT.write(tmp_path / "out", labels)
    masks = {}
    names = ("x", "sub/100% a?#ä", "12345678-x", "a%20b", "a b")
    for number, name in enumerate(names):
        values = rng.choice([0, 1, 2, 255], SIZE).astype(np.uint8)
        target = writer.add(ExportImage(("train", "val")[number % 2], name, tmp_path / "p.png", SIZE, values))
        masks[target] = values
    assert writer.close() == {"format": "label-studio", "unlabelled": "background"}
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert len({one["id"] for one in tasks}) == len(names)
    for one in tasks:
        canvas = np.zeros(SIZE, np.uint8)
        (items,) = one["annotations"]
        for result in items["result"]:
            assert (result["type"], result["to_name"], result["value"]["format"]) == ("brushlabels", "image", "rle")
            assert (result["original_height"], result["original_width"]) == SIZE
            alpha = np.array(bit_by_bit(result["value"]["rle"])).reshape(*SIZE, 4)[..., 3]
            (name,) = result["value"]["brushlabels"]
            canvas[alpha > 0] = 255 if name == "__ignore__" else labels.names.index(name)
        np.testing.assert_array_equal(canvas, masks[tmp_path / "out" / unquote(one["data"]["image"])])
    view = (tmp_path / "out" / "interface.xml").read_text()
    assert '<Label value=\'a "b" &lt;c&gt;\' background="#010203"/>' in view
    splits = opened(tmp_path / "out", labels=labels.to_dict())
    assert {split.name: len(split) for split in splits} == {"train": 3, "val": 2}
    for split in splits:
        for k, record in enumerate(split.records):
            np.testing.assert_array_equal(split.read(k).mask, masks[record.image])


def test_large_brush_masks_are_decoded_quickly() -> None:
    mask = np.kron(np.random.default_rng(0).random((30, 40)) < 0.5, np.ones((40, 40), bool))
    stream = encode_brush(mask)
    begin = time.perf_counter()
    runs = decode_brush(stream, mask.size)
    assert time.perf_counter() - begin < 2
    assert pixels_of(runs) == mask.reshape(-1).tolist()
