from __future__ import annotations

import time
import tracemalloc
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.formats import FORMATS, find_format, read_dataset
from pixelwise.formats.base import ExportImage
from pixelwise.formats.cvat import FORMAT
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.labels import Labels

# A task as exported by CVAT 2, without dates and segments.
META = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <{level}>
      <id>12</id>
      <name>fields &amp; roads</name>
      <size>2</size>
      <mode>annotation</mode>
      <overlap>0</overlap>
      <subset>{subset}</subset>
      <start_frame>0</start_frame>
      <stop_frame>1</stop_frame>
      <labels>
{labels}
      </labels>
      <owner>
        <username>ada</username>
        <email>ada@example.org</email>
      </owner>
    </{level}>
    <dumped>2026-11-20 10:00:00.000000+00:00</dumped>
  </meta>
"""
LABEL = """        <label>
          <name>{}</name>
          <color>{}</color>
          <type>{}</type>
          <attributes>
            <attribute>
              <name>quality</name>
              <mutable>False</mutable>
              <input_type>select</input_type>
              <default_value>good</default_value>
              <values>good
bad</values>
            </attribute>
          </attributes>
        </label>"""
ROAD_AND_FIELD = (("road", "#c06060", "any"), ("field", "#0102ff", "polygon"))


def document(*images: str, labels: Any = ROAD_AND_FIELD, level: str = "task", subset: str = "") -> str:
    rows = "\n".join(LABEL.format(*label) for label in labels)
    return META.format(level=level, subset=subset, labels=rows) + "".join(images) + "</annotations>\n"


def image(*shapes: str, name: str = "a.png", size: tuple[int, int] = (8, 10), more: str = "") -> str:
    inner = "".join(f"    {shape}\n" for shape in shapes)
    return f'  <image id="0" name="{name}"{more} width="{size[1]}" height="{size[0]}">\n{inner}  </image>\n'


def mask(rle: str, left: int, top: int, width: int, height: int, label: str = "road", z: int = 0) -> str:
    box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'<mask label="{label}" source="manual" occluded="0" rle="{rle}" {box} z_order="{z}">\n    </mask>'


def polygon(points: str, label: str = "field", z: int = 0) -> str:
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" z_order="{z}">\n    </polygon>'


FIRST = next(number for number, line in enumerate(document(image()).splitlines(), 1) if "<image" in line)


def write_dataset(
    root: Path, text: str | None, *names: str, size: tuple[int, int] = (8, 10), at: str = "annotations.xml"
) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1]).save(root / name)
    if text is not None:
        (root / at).parent.mkdir(parents=True, exist_ok=True)
        (root / at).write_text(text, encoding="utf-8")
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


def test_a_task_with_label_order_and_colours(tmp_path: Path) -> None:
    box = '<box label="road" source="manual" occluded="1" xtl="1.00" ytl="2.00" xbr="4.00" ybr="5.00" z_order="0">\n</box>'
    write_dataset(tmp_path, document(image(box, polygon("6.00,0.00;10.00,0.00;10.00,4.00;6.00,4.00"))), "images/a.png")
    place = DatasetRoot(tmp_path, tmp_path, DataConfig())
    assert FORMAT.detect(place) == "annotations.xml has <annotations> of CVAT"
    assert find_format(place)[0] is FORMATS["cvat"] is FORMAT
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "road", "field")
    assert splits.labels.ids == (0, 1, 2)
    assert splits.labels.colours[1:] == ((0xC0, 0x60, 0x60), (1, 2, 255))
    expected = np.zeros((8, 10), np.uint8)
    expected[2:5, 1:4] = 1
    expected[0:4, 6:10] = 2
    np.testing.assert_array_equal(splits.train.read(0).mask, expected)
    assert splits.train.records[0].id == "images/a"
    assert splits.notices == ("read as CVAT XML 1.1: annotations.xml has <annotations> of CVAT",)


def test_run_lengths_are_row_by_row_in_their_box(tmp_path: Path) -> None:
    write_dataset(tmp_path, document(image(mask("1, 2, 1, 3, 0, 1", 4, 3, 4, 2))), "a.png")
    expected = np.zeros((8, 10), np.uint8)
    expected[3:5, 4:8] = [[0, 1, 1, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(mask_of(tmp_path), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_run_lengths_match_a_pixelwise_decoder(tmp_path_factory: Any, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    top, left = data.draw(st.integers(0, 8 - height)), data.draw(st.integers(0, 10 - width))
    cuts = data.draw(st.lists(st.integers(0, height * width), max_size=8).map(sorted))
    runs = np.diff([0, *cuts, height * width]).tolist()
    expected = np.zeros((8, 10), np.uint8)
    offset, value = 0, 0
    for run in runs:
        for _ in range(run):
            expected[top + offset // width, left + offset % width] = value
            offset += 1
        value = 1 - value
    text = document(image(mask(", ".join(map(str, runs)), left, top, width, height)))
    np.testing.assert_array_equal(mask_of(write_dataset(tmp_path_factory.mktemp("runs"), text, "a.png")), expected)


def test_z_order_and_file_order(tmp_path: Path) -> None:
    whole, middle = "0,0;10,0;10,8;0,8", "2,2;8,2;8,6;2,6"
    shapes = (
        polygon(middle, "road", z=1),
        polygon(whole, "field"),
        polygon("0,0;10,0;10,1;0,1", "road"),
        polygon("4,3;5,3;5,4;4,4", "field", z=-3),
    )
    write_dataset(tmp_path, document(image(*shapes)), "a.png")
    expected = np.full((8, 10), 2, np.uint8)
    expected[0] = 1
    expected[2:6, 2:8] = 1
    np.testing.assert_array_equal(mask_of(tmp_path), expected)


def rotated_back(points: np.ndarray, centre: tuple[float, float], degrees: float) -> np.ndarray:
    """Undo a clockwise rotation (y points down) with complex numbers."""
    z = points[..., 0] + 1j * points[..., 1] - complex(*centre)
    z = z * np.exp(-1j * np.deg2rad(degrees))
    return np.stack([z.real, z.imag], -1)


@pytest.mark.parametrize("degrees", [0, 30, 90, 200.5, 359.99])
def test_boxes_and_ellipses_rotate_clockwise_around_their_centre(tmp_path: Path, degrees: float) -> None:
    size = (60, 80)
    centres = np.stack(np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5), -1)
    rotation = f' rotation="{degrees:.2f}"' if degrees else ""
    box = f'<box label="road" occluded="0" xtl="20.00" ytl="25.00" xbr="50.00" ybr="35.00"{rotation} z_order="0"></box>'
    oval = f'<ellipse label="road" occluded="0" cx="40.00" cy="30.00" rx="22.00" ry="7.00"{rotation} z_order="0"></ellipse>'
    write_dataset(tmp_path / "box", document(image(box, size=size)), "a.png", size=size)
    write_dataset(tmp_path / "oval", document(image(oval, size=size)), "a.png", size=size)
    x, y = np.moveaxis(rotated_back(centres, (35, 30), degrees), -1, 0)
    sure = np.minimum(np.abs(np.abs(x) - 15), np.abs(np.abs(y) - 5)) > 1e-6
    inside = (np.abs(x) < 15) & (np.abs(y) < 5)
    np.testing.assert_array_equal(mask_of(tmp_path / "box")[sure] == 1, inside[sure])
    x, y = np.moveaxis(rotated_back(centres, (40, 30), degrees), -1, 0)
    share = (x / 22) ** 2 + (y / 7) ** 2
    sure = np.abs(share - 1) > 0.01
    np.testing.assert_array_equal(mask_of(tmp_path / "oval")[sure] == 1, share[sure] < 1)
    assert sure.mean() > 0.98


def test_projects_have_a_folder_for_each_subset(tmp_path: Path) -> None:
    one = image(mask("0, 1", 0, 0, 1, 1), more=' subset="Train" task_id="1"')
    two = image(mask("0, 2", 0, 0, 2, 1), more=' subset="Validation" task_id="2"')
    three = image(mask("0, 3", 0, 0, 3, 1), name="Train/a.png", more=' subset="Validation" task_id="2"')
    names = ("images/Train/a.png", "images/Validation/a.png", "images/Validation/Train/a.png")
    layout = find(write_dataset(tmp_path, document(one, two, three, level="project"), *names)).layout
    assert not layout.problems
    assert {split: [record.id for record in items] for split, items in layout.splits.items()} == {
        "train": ["images/Train/a"],
        "val": ["images/Validation/a", "images/Validation/Train/a"],
    }
    splits = opened(tmp_path)
    pixels = [int((splits.val.read(k).mask == 1).sum()) for k in range(2)]
    assert pixels == [2, 3]


def test_splits_come_from_subset_folders_names_and_file(tmp_path: Path) -> None:
    shape = mask("0, 1", 0, 0, 1, 1)
    names = ("1/images/a.png", "2/images/val/a.png", "3/a.png", "4/a.png")
    write_dataset(tmp_path, document(image(shape), level="job", subset="test"), *names, at="1/annotations.xml")
    write_dataset(tmp_path, document(image(shape, name="val/a.png")), at="2/annotations.xml")
    write_dataset(tmp_path, document(image(shape, name="training\\a.png")), at="3/annotations.xml")
    write_dataset(tmp_path, document(image(shape)), at="4/valid_2.xml")
    layout = find(tmp_path).layout
    assert not layout.problems
    assert {split: [record.id for record in items] for split, items in layout.splits.items()} == {
        "test": ["1/images/a"],
        "val": ["2/images/val/a", "4/a"],
        "train": ["3/a"],
    }


def test_shapes_without_area_are_counted_and_are_not_classes(tmp_path: Path) -> None:
    labels = (
        ("road", "#c06060", "any"),
        ("good image", "", "tag"),
        ("lane", "#00ff00", "polyline"),
        ("corner", "#00ff01", "points"),
        ("wall", "#00ff02", "cuboid"),
        ("both", "#00ff03", "points"),
    )
    shapes = (
        '<polyline label="lane" source="manual" occluded="0" points="0.00,0.00;5.00,5.00" z_order="0"></polyline>',
        '<points label="corner" source="manual" occluded="0" points="1.00,1.00;5.00,5.00" z_order="0"></points>',
        '<points label="corner" source="manual" occluded="0" points="2.00,1.00" z_order="0"></points>',
        polygon("0,0;2,0;2,2;0,2", "both"),
        '<tag label="good image" source="manual">\n    </tag>',
    )
    text = document(image(*shapes), image(name="b.png"), labels=labels)
    splits = opened(write_dataset(tmp_path, text, "a.png", "b.png"))
    assert splits.labels.names == ("background", "road", "both")
    assert splits.notices[1:] == (
        "not used as classes, because they are for tags, points, lines, cuboids or skeletons: good image, lane, corner, wall",
        "not drawn, because they cover no pixels: 2 points, 1 polyline, 1 tag",
        "1 of 2 images have no shapes: all their pixels are background",
    )
    assert int((splits.train.read(0).mask > 0).sum()) == 4
    assert not splits.train.read(1).mask.any()


def test_skeleton_points_are_not_classes_and_missing_colours_are_added(tmp_path: Path) -> None:
    text = document(image(polygon("0,0;2,0;2,2;0,2", "new")), labels=(("road", "", "any"), ("field", "#010203", "any")))
    knee = LABEL.format("knee", "#ffffff", "rectangle").replace("</attributes>", "</attributes><parent>leg</parent>")
    splits = opened(write_dataset(tmp_path, text.replace("      </labels>", knee + "\n      </labels>"), "a.png"))
    assert splits.labels.names == ("background", "road", "field", "new")
    assert splits.labels.colours[2] == (1, 2, 3)
    assert len(set(splits.labels.colours)) == 4


def test_ignored_and_unlabelled(tmp_path: Path) -> None:
    shapes = (polygon("0,0;2,0;2,2;0,2", "field"), polygon("5,5;6,5;6,6;5,6", "road"))
    write_dataset(tmp_path, document(image(*shapes)), "a.png")
    splits = opened(tmp_path, ignored=["field"], unlabelled="road")
    assert splits.labels.names == ("road",)
    found = splits.train.read(0).mask
    assert (found[:2, :2] == splits.labels.ignore_index).all()
    assert int((found == 0).sum()) == 76


SKELETON = """<skeleton label="person" source="manual" z_order="0">
      <points label="knee" source="manual" outside="0" occluded="0" points="1.00,1.00">
      </points>
    </skeleton>"""
CUBOID = '<cuboid label="wall" occluded="0" xtl1="1" ytl1="1" xbl1="1" ybl1="2" z_order="0"></cuboid>'


@pytest.mark.parametrize(("shape", "kind"), [(SKELETON, "skeleton"), (CUBOID, "cuboid"), ("<blob/>", "blob")])
def test_unsupported_shapes_are_errors(tmp_path: Path, shape: str, kind: str) -> None:
    write_dataset(tmp_path, document(image(polygon("0,0;2,0;2,2;0,2")), image(shape, name="b.png")), "a.png", "b.png")
    with pytest.raises(MaskError) as error:
        find(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/annotations.xml:{error.value.where.rpartition(':')[2]}: expected polygon, box, ellipse or mask, "
        f"found a {kind} in b.png. Draw it as one of these in CVAT."
    )
    splits = opened(tmp_path, skip_bad=True)
    assert [record.id for record in splits.train.records] == ["a"]
    assert splits.skipped == (f"{error.value.where}: expected polygon, box, ellipse or mask, found a {kind} in b.png",)


def test_videos_are_errors(tmp_path: Path) -> None:
    track = (
        '  <track id="0" label="road" source="manual">\n    <polygon frame="0" keyframe="1" outside="0" occluded="0"'
    )
    track += ' points="0,0;1,0;1,1" z_order="0"></polygon>\n  </track>\n'
    write_dataset(tmp_path, document(track), "images/frame_000000.png")
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is not None
    with pytest.raises(
        MaskError,
        match=rf'xml:{FIRST}: expected shapes in images, found a <track> of a video\. Export the annotations as "CVAT',
    ):
        find(tmp_path)


def test_unmatched_images_and_annotations_are_problems(tmp_path: Path) -> None:
    shape = mask("0, 1", 0, 0, 1, 1)
    text = document(*(image(shape, name=name) for name in ("a.png", "gone.png", "../../etc/a.png", "x/b.png")))
    write_dataset(tmp_path, text, "images/a.png", "images/c.png", "p/b.png", "q/b.png")
    layout = find(tmp_path).layout
    assert problems_of(layout) == [
        ("annotations.xml: ../../etc/a.png", "second annotation of a.png (also annotations.xml)"),
        ("annotations.xml: gone.png", "annotation without its image (no such image)"),
        ("annotations.xml: x/b.png", "annotation without its image (2 images of that name)"),
        ("images/c.png", "image without a mask"),
        ("p/b.png", "image without a mask"),
        ("q/b.png", "image without a mask"),
    ]
    with pytest.raises(PairingError, match=r"second annotation of a\.png \(also annotations\.xml\): 1 \(annotations"):
        opened(tmp_path)


def test_names_with_folders_backslashes_and_special_characters(tmp_path: Path) -> None:
    names = ("cam 1/straße & <1>.png", "cam2/1.png", "cam3/1.png", "what?.png")
    given_names = ("cam 1\\straße &amp; &lt;1&gt;.png", "cam2/1.png", "D:\\data\\cam3\\1.png", "what?.png")
    text = document(*(image(mask(f"0, {k + 1}", 0, 0, k + 1, 1), name=name) for k, name in enumerate(given_names)))
    layout = find(write_dataset(tmp_path, text, *(f"images/{name}" for name in names))).layout
    assert not layout.problems
    assert [record.image for record in layout.splits["pool"]] == [tmp_path / "images" / name for name in names]


def test_a_size_other_than_the_images_is_an_error(tmp_path: Path) -> None:
    write_dataset(tmp_path, document(image(mask("0, 1", 0, 0, 1, 1), size=(9, 10))), "a.png")
    with pytest.raises(PairingError, match=r"annotations\.xml: expected 8×10 pixels.* found 9×10"):
        opened(tmp_path)


ENTITIES = "\n".join(f'<!ENTITY z{k} "{f"&z{k - 1};" * 10}">' for k in range(1, 10))
BOMB = f"""<?xml version="1.0"?>
<!DOCTYPE annotations [
<!ENTITY z0 "ha">
{ENTITIES}]>
<annotations><version>&z9;</version><image id="0" name="a.png" width="10" height="8"/></annotations>
"""
EXTERNAL = """<!DOCTYPE annotations [<!ENTITY secret SYSTEM "file:///etc/passwd">]>
<annotations><version>1.1</version><image id="0" name="&secret;" width="10" height="8"/></annotations>"""


@pytest.mark.parametrize(
    "text", [BOMB, EXTERNAL, '<!DOCTYPE annotations SYSTEM "http://example.org/a.dtd"><annotations/>']
)
def test_dtds_and_entities_are_errors(tmp_path: Path, text: str) -> None:
    write_dataset(tmp_path, text, "a.png")
    tracemalloc.start()
    begin = time.perf_counter()
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is not None
    with pytest.raises(
        MaskError, match=r"xml:\d: expected XML without a DTD, found <!DOCTYPE>, which can define entities\. Export"
    ):
        find(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert time.perf_counter() - begin < 5


def test_undefined_entities_are_errors(tmp_path: Path) -> None:
    write_dataset(tmp_path, document(image(name="&undefined;.png")), "a.png")
    with pytest.raises(
        MaskError, match=rf"annotations\.xml:{FIRST}: expected an XML file, found undefined entity\. Export the"
    ):
        find(tmp_path)


def test_malformed_xml_is_an_error_with_its_line(tmp_path: Path) -> None:
    whole = document(image(mask("0, 1", 0, 0, 1, 1)))
    write_dataset(tmp_path, whole[: whole.index("</image>")], "a.png")
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is not None
    with pytest.raises(MaskError) as error:
        find(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/annotations.xml:{FIRST + 3}: expected an XML file, found no element found. Export the annotations again."
    )
    write_dataset(tmp_path, whole.replace('encoding="utf-8"', 'encoding="klingon"'))
    with pytest.raises(MaskError, match=r"annotations\.xml: expected an XML file, found unknown encoding: klingon\."):
        find(tmp_path, format="cvat")
    (tmp_path / "annotations.xml").write_bytes(whole.replace("fields", "\xff").encode("latin-1"))
    with pytest.raises(MaskError, match=r"annotations\.xml:7: expected an XML file, found text in another encoding"):
        find(tmp_path, format="cvat")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "iso-8859-1"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    text = document(image(polygon("0,0;2,0;2,2;0,2", "Äcker")), labels=(("Äcker", "#010203", "any"),))
    write_dataset(tmp_path, None, "a.png")
    named = text.replace('encoding="utf-8"', f'encoding="{encoding.removesuffix("-sig")}"')
    (tmp_path / "annotations.xml").write_bytes(named.encode(encoding))
    assert opened(tmp_path).labels.names == ("background", "Äcker")


def test_xml_of_other_tools_is_not_read(tmp_path: Path) -> None:
    write_dataset(tmp_path, document(image(mask("0, 1", 0, 0, 1, 1))), "a.png")
    write_dataset(tmp_path, "<annotation><filename>a.png</filename></annotation>", at="voc/a.xml")
    write_dataset(tmp_path, '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd"><svg/>', at="plan.xml")
    assert not find(tmp_path).layout.problems
    write_dataset(tmp_path, "<annotation><object/></annotation>", at="annotations.xml")
    assert FORMAT.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None
    with pytest.raises(
        DataError,
        match=r'expected an annotations\.xml of CVAT, found none\. Export the annotations as "CVAT for images',
    ):
        find(tmp_path, format="cvat")


GOOD_MASK = {"label": "road", "rle": "0, 1", "left": "0", "top": "0", "width": "1", "height": "1"}
GOOD_BOX = {"label": "road", "xtl": "0", "ytl": "0", "xbr": "3", "ybr": "3"}
GOOD_OVAL = {"label": "road", "cx": "4", "cy": "4", "rx": "3", "ry": "3"}
GOOD_POLYGON = {"label": "road", "points": "0,0;1,0;1,1"}
BAD = [
    (
        "mask",
        GOOD_MASK | {"width": "1000000000", "rle": "1000000000"},
        "1000000000×1 pixels at 0, 0, which is outside",
    ),
    ("mask", GOOD_MASK | {"width": "-1"}, "-1×1 pixels at 0, 0"),
    ("mask", GOOD_MASK | {"height": "0"}, "1×0 pixels"),
    ("mask", GOOD_MASK | {"left": "-1"}, "1×1 pixels at -1, 0"),
    ("mask", GOOD_MASK | {"top": "10"}, "1×1 pixels at 0, 10"),
    ("mask", GOOD_MASK | {"rle": "0, 2"}, "run lengths of 2 for 1 pixels"),
    ("mask", GOOD_MASK | {"rle": "0, 99999999999"}, "run lengths of 99999999999 for 1 pixels"),
    ("mask", GOOD_MASK | {"rle": "9223372036854775807, 9223372036854775807, 3"}, "run lengths of 18446744073709551616"),
    ("mask", GOOD_MASK | {"rle": "9" * 40}, "too large"),
    ("mask", GOOD_MASK | {"rle": "9" * 5000}, "limit"),
    ("mask", GOOD_MASK | {"rle": "2, -1"}, "negative run lengths"),
    ("mask", GOOD_MASK | {"rle": ""}, "invalid literal"),
    ("mask", GOOD_MASK | {"rle": "0.5, 0.5"}, "invalid literal"),
    ("mask", GOOD_MASK | {"z_order": "top"}, "invalid literal"),
    ("box", GOOD_BOX | {"xbr": "-1"}, "a negative size"),
    ("box", GOOD_BOX | {"xbr": "nan"}, "coordinates that are not finite or out of range"),
    ("box", GOOD_BOX | {"ybr": "1e300"}, "coordinates that are not finite or out of range"),
    ("box", GOOD_BOX | {"rotation": "inf"}, "a rotation that is not finite"),
    ("ellipse", GOOD_OVAL | {"rx": "-3"}, "a negative size"),
    ("ellipse", GOOD_OVAL | {"cy": "NaN"}, "coordinates that are not finite or out of range"),
    ("ellipse", GOOD_OVAL | {"cy": "middle"}, "could not convert string to float"),
    ("polygon", GOOD_POLYGON | {"points": "0,0;1,0;nan,1"}, "coordinates that are not finite or out of range"),
    ("polygon", GOOD_POLYGON | {"points": "0,0;1,0"}, "points that are not three or more of x,y"),
    ("polygon", GOOD_POLYGON | {"points": "0,0,0;1,0,0;1,1,0"}, "points that are not three or more of x,y"),
    ("polygon", GOOD_POLYGON | {"points": ""}, "points that are not three or more of x,y"),
    ("polygon", GOOD_POLYGON | {"points": "0,0;1,0;1,"}, "could not convert string to float"),
]
BAD += [
    (kind, {key: value for key, value in good.items() if key != missing}, f"no '{missing}'")
    for kind, good in (("mask", GOOD_MASK), ("box", GOOD_BOX), ("ellipse", GOOD_OVAL), ("polygon", GOOD_POLYGON))
    for missing in good
]


def element(kind: str, attributes: dict[str, str]) -> str:
    return f"<{kind} " + " ".join(f'{key}="{value}"' for key, value in attributes.items()) + "/>"


@pytest.mark.parametrize(("kind", "attributes", "found"), BAD)
def test_malformed_shapes_are_errors_with_line_and_image(
    tmp_path: Path, kind: str, attributes: dict[str, str], found: str
) -> None:
    write_dataset(tmp_path, document(image(element(kind, attributes))), "a.png")
    with pytest.raises(MaskError) as error:
        find(tmp_path)
    assert str(error.value).startswith(
        f"{tmp_path}/annotations.xml:{FIRST + 1}: expected shapes as CVAT writes them, found a {kind}"
    )
    assert found in str(error.value)
    assert str(error.value).endswith("Export the annotations again.")
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_the_valid_variants_are_read(tmp_path: Path) -> None:
    kinds = {"mask": GOOD_MASK, "box": GOOD_BOX, "ellipse": GOOD_OVAL, "polygon": GOOD_POLYGON}
    write_dataset(tmp_path, document(image(*(element(kind, good) for kind, good in kinds.items()))), "a.png")
    assert mask_of(tmp_path).any()


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('name="a.png" ', "", "no 'name'"),
        ('width="10"', "", "no 'width'"),
        ('width="10"', 'width="1000000000"', "1000000000×8 pixels"),
        ('height="8"', 'height="-8"', "10×-8 pixels"),
        ('height="8"', 'height="8.5"', "invalid literal"),
    ],
)
def test_malformed_image_elements_are_errors(tmp_path: Path, old: str, new: str, found: str) -> None:
    text = document(image())
    assert old in text
    write_dataset(tmp_path, text.replace(old, new), "a.png")
    expected = rf"xml:{FIRST}: expected an image with name, width and height, of at most 400,000,000 pixels, found "
    with pytest.raises(MaskError, match=expected + found):
        find(tmp_path)


def test_nesting_is_limited(tmp_path: Path) -> None:
    write_dataset(tmp_path, "<annotations><version>1.1</version>" + "<meta>" * 100_000, "a.png")
    with pytest.raises(MaskError, match=r"expected at most 64 nested elements, found more"):
        find(tmp_path)


def test_points_outside_the_image_are_clipped(tmp_path: Path) -> None:
    write_dataset(
        tmp_path, document(image(polygon("-1000000,-1000000;1000000,-1000000;1000000,4;-1000000,4"))), "a.png"
    )
    found = mask_of(tmp_path)
    assert (found[:4] == 2).all()
    assert (found[4:] == 0).all()


def loaded(path: Path) -> dict[str, tuple[tuple[int, int], list[tuple[str, list[int]]]]]:
    """Read masks as CVAT's importer does: run lengths, then left, top, right, bottom."""
    images = {}
    for image_ in ElementTree.parse(path).getroot().iter("image"):
        shapes = []
        for one in image_.iter("mask"):
            points = [int(run) for run in one.attrib["rle"].split(",")]
            left, top = int(one.attrib["left"]), int(one.attrib["top"])
            points += [left, top, left + int(one.attrib["width"]) - 1, top + int(one.attrib["height"]) - 1]
            assert one.attrib["occluded"] == "0"
            assert int(one.attrib["z_order"]) == 0
            shapes.append((one.attrib["label"], points))
        size = int(image_.attrib["height"]), int(image_.attrib["width"])
        assert int(image_.attrib["id"]) == len(images)
        images[image_.attrib["name"]] = (size, shapes)
    return images


def painted(size: tuple[int, int], shapes: list[tuple[str, list[int]]], labels: Labels, background: int) -> np.ndarray:
    canvas = np.full(size, background, np.uint8)
    for name, points in shapes:
        *runs, left, top, right, _ = points
        index = labels.ignore_index if name == "__ignore__" else labels.names.index(name)
        offset = 0
        for number, run in enumerate(runs):
            for pixel in range(offset, offset + run):
                if number % 2:
                    canvas[top + pixel // (right - left + 1), left + pixel % (right - left + 1)] = index
            offset += run
    return canvas


def test_written_files_are_read_by_cvat(tmp_path: Path) -> None:
    labels = Labels(("background", "a < b & 'c'", "tree"), colours=((0, 0, 0), (1, 2, 3), (255, 0, 16)))
    rng = np.random.default_rng(3)
    Image.new("RGB", (9, 7)).save(tmp_path / "p.png")
    (tmp_path / "out").mkdir()
    writer = FORMAT.write(tmp_path / "out", labels)
    masks = {}
    for number, name in enumerate(("x", 'sub/"quoted" & <y>', "ctrl\x01", "ctrl_", "nl\nname")):
        values = rng.choice([0, 1, 2, 255], (7, 9)).astype(np.uint8)
        target = writer.add(ExportImage(("train", "val")[number % 2], name, tmp_path / "p.png", (7, 9), values))
        assert target.is_file()
        assert target not in masks
        masks[target] = values
    assert writer.close() == {"format": "cvat", "unlabelled": "background"}
    assert "subset" not in (tmp_path / "out" / "annotations.xml").read_text()  # as CVAT exports a task
    back = loaded(tmp_path / "out" / "annotations.xml")
    assert len(back) == 5
    for target, values in masks.items():
        size, shapes = back[target.relative_to(tmp_path / "out" / "images").as_posix()]
        np.testing.assert_array_equal(painted(size, shapes, labels, 0), values)
    meta = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot().find("meta/task/labels")
    named = [(one.findtext("name"), one.findtext("color")) for one in meta]
    assert named[:3] == [("background", "#000000"), ("a < b & 'c'", "#010203"), ("tree", "#ff0010")]
    assert named[3][0] == "__ignore__"
    splits = opened(tmp_path / "out", labels=labels.to_dict())
    records = {record.image: (split, k) for split in splits for k, record in enumerate(split.records)}
    assert {split.name: len(split) for split in splits} == {"train": 3, "val": 2}
    for target, values in masks.items():
        split, k = records[target]
        np.testing.assert_array_equal(split.read(k).mask, values)


def test_large_files_are_streamed(tmp_path: Path) -> None:
    filler = image('<points label="road" occluded="0" points="' + "1.00,1.00;" * 2000 + '" z_order="0"></points>')
    write_dataset(tmp_path, document(*[filler] * 500), "b.png")
    assert (tmp_path / "annotations.xml").stat().st_size > 10_000_000
    tracemalloc.start()
    layout = find(tmp_path).layout
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(layout.problems) == 501
    assert peak < 6_000_000
