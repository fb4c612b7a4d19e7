"""Tables beside masks, as written by various tools and data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.errors import LabelsError, PixelwiseError
from pixelwise.formats.colour_maps import Entry, by_colour, by_value, find_map, holds_values, in_colour, read_map

ROAD, SKY = Entry("road", (128, 64, 128)), Entry("sky", (70, 130, 180))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\nsky,70,130,180\n"),
        ("class_dict_seg.csv", "\ufeffname, r, g, b\r\nroad, 128, 64, 128\r\nsky, 70, 130, 180\r\n"),
        ("class_dict.csv", "r,g,b,name,class_11\n128,64,128,road,3\n70,130,180,sky,0\n"),
        ("class_dict.csv", "Class,Red,Green,Blue\nroad,128,64,128\n\nsky,70,130,180\n"),
        ("class_dict.csv", "road,128,64,128\nsky,70,130,180\n"),
        ("class_dict.csv", "name;r;g;b\r\nroad;128;64;128\r\nsky;70;130;180\r\n"),
        ("label_colors.txt", "128 64 128\troad\n70 130 180\t\tsky\n"),
        ("label_colors.txt", "r,g,b,name\n128 64 128 road\n70 130 180 sky\n"),
        ("label_colors.txt", "# color_rgb (RGB) label\n128 64 128 road\n70 130 180 sky"),
        ("label_colors.txt", "road 128 64 128\nsky 70, 130, 180\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\nsky:70,130,180::\n"),
        ("colormap.json", '{"road": [128, 64, 128], "sky": "#4682b4"}'),
        ("colormap.json", '{"road": {"color": [128, 64, 128]}, "sky": {"color": [70, 130, 180]}}'),
        ("classes.json", '[{"name": "road", "color": [128, 64, 128]}, {"title": "sky", "colour": "#4682b4ff"}]'),
        (
            "classes.json",
            '{"classes": [{"name": "road", "color": [128, 64, 128]}, {"name": "sky", "rgb": [70, 130, 180]}]}',
        ),
    ],
)
def test_colours(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert find_map(tmp_path) == path
    assert read_map(path) == (ROAD, SKY)


@pytest.mark.parametrize(
    ("name", "text", "entries"),
    [
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, big crack\n", [("background", 0), ("big crack", 1)]),
        ("classes.json", '{"names": ["a", "b"]}', [("a", 0), ("b", 1)]),
        ("classes.json", '["a", "b"]', [("a", 0), ("b", 1)]),
        ("classes.json", '{"a": 0, "b": 7}', [("a", 0), ("b", 7)]),
        ("classes.json", '{"0": "a", "7": "b"}', [("a", 0), ("b", 7)]),
        ("classes.json", '[{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]', [("a", 3), ("b", 7)]),
        ("classes.json", '{"1": {"name": "a"}, "2": {"label": "b"}}', [("a", 1), ("b", 2)]),
        ("classes.json", '{"1": {"name": "a", "id": 0}, "2": {"name": "b", "value": 5}}', [("a", 0), ("b", 5)]),
    ],
)
def test_values(tmp_path: Path, name: str, text: str, entries: list[tuple[str, int]]) -> None:
    (tmp_path / name).write_text(text)
    assert [(each.name, each.id) for each in read_map(tmp_path / name)] == entries


def test_names_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_text(
        'name,r,g,b\n"road, wet",1,2,3\n"say ""x""",4,5,6\nstraße\u2009und,7,8,9\n', "utf-8"
    )
    assert [each.name for each in read_map(tmp_path / "class_dict.csv")] == ["road, wet", 'say "x"', "straße\u2009und"]
    (tmp_path / "label_colors.txt").write_text("1 2 3 road 7 wet\n4 5 6 2nd floor\n", "utf-8")
    assert [each.name for each in read_map(tmp_path / "label_colors.txt")] == ["road 7 wet", "2nd floor"]
    (tmp_path / "labelmap.txt").write_text("a: b:1,2,3::\nc:4,5,6:hand,foot:walk\n", "utf-8")
    assert [(each.name, each.colour) for each in read_map(tmp_path / "labelmap.txt")] == [
        ("a: b", (1, 2, 3)),
        ("c", (4, 5, 6)),
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("class_dict.csv", "", "expected classes with colours or values, found none. Write name,r,g,b."),
        ("class_dict.csv", "name,r,g,b\n", "found none"),
        ("class_dict.csv", "name,r,g,b\na,1,2\n", "row 2: expected 4 columns, found 3. Correct the row."),
        ("class_dict.csv", "a,1,2\n", "row 1: expected 4 columns, found 3. Correct the row."),
        ("class_dict.csv", "name,r,g,b\na,1,2,256\n", "row 2: expected three values 0–255, found ['1', '2', '256']"),
        ("class_dict.csv", "name,r,g,b\na,1,2,x\n", "row 2: expected whole numbers, found 'x'. Correct it."),
        ("class_dict.csv", "name,r,g,b\na,1,2,-3\n", "expected whole numbers"),
        ("class_dict.csv", "name,r,g,b\na,1,2,\u0663\n", "expected whole numbers"),
        (
            "label_colors.txt",
            "1 2 3 a\n1 2 b\n",
            "line 2: expected a name and three values, found '1 2 b'. Correct the line.",
        ),
        ("label_colors.txt", "1 2 999 a\n", "line 1: expected three values 0–255"),
        ("classes.json", "7", "expected names with colours: {road: [128, 64, 128]}"),
        ("classes.json", "[7]", "found 7"),
        ("classes.json", '[{"color": [1, 2, 3]}]', "found {'color': [1, 2, 3]}"),
        ("classes.json", '{"a": [1, 2]}', "expected three values 0–255, found [1, 2]"),
        ("classes.json", '{"a": [1, 2, 2.5]}', "expected whole numbers"),
        ("classes.json", '{"a": [1, 2, true]}', "expected whole numbers"),
        ("classes.json", '{"a": "red"}', "found 'red'"),
        ("classes.json", '{"names": ["a"], "palette": 7}', "found 7"),
        ("classes.json", "{}", "found none"),
    ],
)
def test_broken_tables_fail_by_name(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(LabelsError) as caught:
        read_map(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert words in str(caught.value)


def test_a_huge_file_is_not_a_table(tmp_path: Path) -> None:
    with (tmp_path / "classes.json").open("wb") as file:
        file.truncate(5_000_000_000)
    with pytest.raises(LabelsError, match="found 5,000,000,000 bytes"):
        read_map(tmp_path / "classes.json")


def attempt(work: Callable[..., Any], *given: Any) -> tuple[Any, str]:
    """Return the result and the message of a PixelwiseError; other errors are raised."""
    try:
        return work(*given), ""
    except PixelwiseError as error:
        return None, str(error)


@settings(max_examples=150, deadline=None, database=None)
@given(st.one_of(st.text(), st.binary()), st.sampled_from(["a.csv", "a.txt", "a.json"]))
def test_any_text_is_a_table_or_a_clear_error(tmp_path_factory: Any, text: str | bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    entries, said = attempt(read_map, path)
    assert entries or said.startswith(str(path))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 300)
    | st.text(max_size=8)
    | st.sampled_from(["names", "palette", "#010203"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["names", "name", "palette", "color", "classes", "ignore", "id", "7"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, database=None)
@given(PLAIN)
def test_any_json_is_a_table_or_a_clear_error(tmp_path_factory: Any, plain: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(plain))
    entries, said = attempt(read_map, path)
    assert entries or said.startswith(str(path))
    for make in (by_colour, by_value):
        labels, said = attempt(make, path, entries or ())
        assert labels or said.startswith(str(path))


def test_labels_of_colours() -> None:
    labels, rule = by_colour("t", [ROAD, Entry("Void", (0, 0, 0)), SKY, Entry("ignore", (1, 1, 1))])
    assert (labels.names, labels.ids, labels.colours) == (("road", "sky"), (0, 1), (ROAD.colour, SKY.colour))
    assert rule.ignored == ((0, 0, 0), (1, 1, 1))
    labels, rule = by_colour("t", [Entry("Void", (0, 0, 0)), SKY, Entry("__ignore__", (1, 1, 1))])
    assert (labels.names, rule.ignored) == (("Void", "sky"), ((1, 1, 1),))
    assert by_colour("t", [ROAD, SKY], ["sky"])[1].ignored == (SKY.colour,)
    with pytest.raises(
        LabelsError, match=r"t: expected a different colour for every class, found \(128, 64, 128\) for 'road'"
    ):
        by_colour("t", [ROAD, Entry("sky", ROAD.colour)])
    with pytest.raises(LabelsError, match="t: expected unique entries, found road twice"):
        by_colour("t", [ROAD, Entry("road", (1, 2, 3))])
    with pytest.raises(LabelsError, match="t: expected a colour for every class, found none for sky"):
        by_colour("t", [ROAD, Entry("sky")])
    with pytest.raises(LabelsError, match="t: expected a class that is not ignored, found none"):
        by_colour("t", [Entry("void", (0, 0, 0))])


def test_labels_of_values() -> None:
    labels, rule = by_value("t", [Entry("a", None, 3), Entry("b", None, 300), Entry("c", None, 5, True)])
    assert (labels.names, labels.ids, labels.ignore_ids) == (("a", "b"), (3, 300), (5,))
    assert rule.binary
    labels, rule = by_value("t", [ROAD, SKY, Entry("ignore", (0, 0, 0), 255)])
    assert (labels.ids, labels.ignore_ids, labels.colours) == ((0, 1), (255,), (ROAD.colour, SKY.colour))
    assert not rule.binary  # 0 and 255 in a mask are road and ignored
    with pytest.raises(LabelsError, match="t: expected unique entries, found 1 twice"):
        by_value("t", [Entry("a", None, 1), Entry("b", None, 1)])


@pytest.mark.parametrize(
    ("pixels", "palette", "values"),
    [
        ([[0, 1, 1]], None, True),
        ([[0, 1, 255]], None, True),  # 255 is ignored by convention
        ([[0, 1, 9]], None, False),  # not in the table: the error shows its colour
        ([[[128, 64, 128]]], None, False),
        ([[0, 1]], [128, 64, 128, 70, 130, 180], False),  # a palette of the table's colours, in whatever order
        ([[0, 1]], [0, 0, 0, 9, 9, 9], True),
    ],
)
def test_whether_masks_hold_values_or_colours(tmp_path: Path, pixels: Any, palette: Any, values: bool) -> None:
    image = Image.fromarray(np.array(pixels, np.uint8))
    if palette:
        image.putpalette(palette)
    image.save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    masks = [tmp_path / "broken.png", tmp_path / "a.png"]
    assert holds_values([ROAD, SKY], masks) is values
    assert in_colour(masks) is (np.ndim(pixels) == 3)


@pytest.mark.parametrize(
    ("masks", "colours"),
    [
        ([[[0] * 3, [3] * 3]], False),  # equal bands of ids
        ([[[0] * 3]], True),
        ([[[0] * 3, [128] * 3]], True),
        ([[[0] * 3, [3] * 3], [[0, 0, 200]]], True),
        ([[[0] * 3, [200] * 3], [[0]]], False),
    ],
)
def test_equal_bands_are_colours_or_ids(tmp_path: Path, masks: Any, colours: bool) -> None:
    for k, pixels in enumerate(masks):
        values = np.array([pixels], np.uint8)
        Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(tmp_path / f"{k}.png")
    assert in_colour(sorted(tmp_path.glob("*.png"))) is colours


def test_grey_values_that_are_colours_of_the_table_are_read_as_these(tmp_path: Path) -> None:
    entries = [Entry("road", (255, 255, 255)), Entry("ground", (0, 0, 0))]
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "a.png")
    assert not holds_values(entries, [tmp_path / "a.png"])
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert not holds_values(entries, [tmp_path / "a.png"])
