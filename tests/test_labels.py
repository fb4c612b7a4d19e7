import colorsys
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.errors import LabelsError
from pixelwise.labels import Labels, default_colours


def test_defaults() -> None:
    labels = Labels(("ground", "road"))
    assert (labels.ids, labels.countable, labels.ignore_ids) == ((0, 1), (False, False), (255,))
    assert labels.colours == default_colours(2)
    assert (labels.num_classes, labels.ignore_index, labels.dtype) == (2, 255, np.uint8)


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=20, unique=True),
    st.lists(st.integers(0, 300), max_size=3, unique=True),
    st.lists(st.integers(0, 255), max_size=12),
)
def test_8_bit_ids_are_encoded_like_wider_ids(ids: list[int], ignored: list[int], stored: list[int]) -> None:
    labels = Labels(tuple(map(str, ids)), tuple(ids), ignore_ids=tuple(set(ignored) - set(ids)))
    narrow, wide = (labels.encode(np.array([stored, stored[::-1]], dtype).T) for dtype in (np.uint8, np.int64))
    assert np.array_equal(narrow[0], wide[0])
    assert narrow[0].dtype == wide[0].dtype == labels.dtype
    assert narrow[0].flags.writeable
    assert narrow[1] == wide[1]


@given(st.integers(1, 40))
def test_default_colours_are_distinct_and_start_dark(count: int) -> None:
    colours = default_colours(count)
    assert len(set(colours)) == len(colours) == count
    assert max(colours[0]) < 60
    assert all(colorsys.rgb_to_hls(*(v / 255 for v in c))[1] > 0.3 for c in colours[1:])


def test_ids_with_gaps_and_in_any_order() -> None:
    labels = Labels(("a", "b", "c"), ids=(7, 2, 300), ignore_ids=(9, 11))
    ids = np.array([[7, 2, 300], [9, 11, 7]], np.uint16)
    indices, unknown = labels.encode(ids)
    assert indices.dtype == np.uint8
    assert indices.tolist() == [[0, 1, 2], [255, 255, 0]]
    assert unknown == {}
    back = labels.decode(indices)
    assert back.dtype == np.uint16
    # Ignored pixels are decoded to the first ignored id.
    assert back.tolist() == [[7, 2, 300], [9, 9, 7]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">u2"])
def test_unknown_ids_are_counted_and_ignored(dtype: object) -> None:
    indices, unknown = Labels(("a", "b")).encode(np.array([[0, 1, 3], [17, 17, 255]], np.dtype(dtype)))
    assert indices.tolist() == [[0, 1, 255], [255, 255, 255]]
    assert unknown == {3: 1, 17: 2}


def test_ids_are_not_truncated_to_8_or_16_bits() -> None:
    labels = Labels(("a", "b"), ids=(0, 70_000))
    indices, unknown = labels.encode(np.array([[0, 70_000, 256, -1, 65_536]], np.int64))
    assert indices.tolist() == [[0, 1, 255, 255, 255]]
    assert unknown == {256: 1, -1: 1, 65_536: 1}
    assert labels.decode(np.array([1, 0, 255])).tolist() == [70_000, 0, 255]


def test_empty_arrays() -> None:
    indices, unknown = Labels(("a",)).encode(np.zeros((0, 4), np.uint8))
    assert (indices.shape, unknown) == ((0, 4), {})


@pytest.mark.parametrize(("count", "ignore", "dtype"), [(255, 255, np.uint8), (256, 65535, np.uint16)])
def test_the_ignore_index_is_not_a_class(count: int, ignore: int, dtype: type) -> None:
    labels = Labels(tuple(f"c{k}" for k in range(count)), ignore_ids=(9999,))
    assert (labels.ignore_index, labels.dtype) == (ignore, dtype)
    indices, unknown = labels.encode(np.array([count - 1, 9999]))
    assert indices.tolist() == [count - 1, ignore]
    assert not unknown
    assert labels.decode(indices).tolist() == [count - 1, 9999]


@st.composite
def labels_and_ids(draw: st.DrawFn) -> tuple[Labels, np.ndarray]:
    numbers = draw(st.lists(st.integers(0, 2**24 - 1), min_size=2, max_size=12, unique=True))
    cut = draw(st.integers(1, len(numbers) - 1))
    labels = Labels(tuple(f"n{i}" for i in numbers[:cut]), ids=tuple(numbers[:cut]), ignore_ids=tuple(numbers[cut:]))
    values = draw(st.lists(st.sampled_from([*numbers[:cut], numbers[cut]]), min_size=1, max_size=20))
    return labels, np.array(values)[None]


@given(labels_and_ids())
def test_decode_inverts_encode(case: tuple[Labels, np.ndarray]) -> None:
    labels, ids = case
    indices, unknown = labels.encode(ids)
    assert not unknown
    assert set(np.unique(indices)) <= {*range(labels.num_classes), labels.ignore_index}
    np.testing.assert_array_equal(labels.decode(indices), ids)


def test_ignored_pixels_cannot_be_decoded_without_an_ignored_id() -> None:
    labels = Labels(("no", "yes"), ids=(0, 255))
    assert labels.ignore_ids == ()
    assert labels.decode(np.array([0, 1])).tolist() == [0, 255]
    with pytest.raises(LabelsError, match=r"labels\.ignore_index: expected an id for ignored pixels, found none\. Set"):
        labels.decode(np.array([0, 255]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ()}, "labels: expected at least one class name, found none. Name the classes."),
        (
            {"ids": (1,)},
            "labels.ids: expected 2 entries, one per class, found 1. Add one entry per class, or omit the key.",
        ),
        ({"ids": (3, 3)}, "labels.ids: expected unique entries, found 3 twice. Change one."),
        ({"names": ("a", "a")}, "labels.names: expected unique entries, found a twice. Change one."),
        (
            {"ids": (0, -1)},
            "labels.ids: expected ids 0–16777215, found -1. If it marks pixels without a label, set it as"
            " ignore_index instead; otherwise renumber the classes.",
        ),
        ({"ids": (0, 2**24)}, "labels.ids: expected ids 0–16777215, found 16777216. Renumber the classes."),
        ({"ids": (0.5, 1)}, "labels.ids: expected integers, found 0.5. Correct the value."),
        ({"ids": (False, 1)}, "labels.ids: expected integers, found False. Correct the value."),
        (
            {"ignore_ids": (1,)},
            "labels.ignore_index: expected an id that is not a class, found 1, which is class 'b'. "
            "Choose another ignore_index, or remove the class.",
        ),
        (
            {"colours": ((1, 2, 3), (1, 2, 256))},
            "labels.colours: expected three values 0–255 per class, found (1, 2, 256). Correct the colour.",
        ),
        (
            {"colours": ("#ff0000", "#00ff00")},
            "labels.colours: expected three values 0–255 per class, found #ff0000. Correct the colour.",
        ),
        (
            {"countable": ("a", "b")},
            "labels.countable: expected true or false per class, found ('a', 'b'). Correct the list.",
        ),
    ],
)
def test_invalid_labels(fields: dict[str, object], message: str) -> None:
    with pytest.raises(LabelsError) as error:
        Labels(**({"names": ("a", "b")} | fields))  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(
    "plain",
    [
        ["a", "b"],
        ("a", "b"),
        {"names": ["a", "b"]},
        {"names": {0: "a", 1: "b"}},
        {"names": {"0": "a", "1": "b"}},  # from JSON, where keys are text
        {"names": ["a", "b"], "ids": [0, 1], "ignore_index": 255},
        {"names": ["a", "b"], "ignore_index": "255"},
        {"names": ["a", "b"], "ignore_index": [255], "colours": None, "countable": [False, False]},
    ],
)
def test_equivalent_plain_forms(plain: object) -> None:
    assert Labels.from_dict(plain) == Labels(("a", "b"))  # type: ignore[arg-type]


def test_plain_forms_with_optional_keys() -> None:
    assert Labels.from_dict({"names": {4: "a", 2: "b"}, "ignore_index": [0, 9]}) == Labels(
        ("a", "b"), ids=(4, 2), ignore_ids=(0, 9)
    )
    assert Labels.from_dict({"names": ["a"], "ignore_index": []}).ignore_ids == ()
    assert Labels.from_dict({"names": ["a"], "colors": [[1, 2, 3]]}).colours == ((1, 2, 3),)
    assert Labels.from_dict({"names": [1, 2]}).names == ("1", "2")


@given(
    st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 300), max_size=2, unique=True),
)
def test_to_dict_and_back_through_json(names: list[str], ignore: list[int]) -> None:
    ids = tuple(range(1000, 1000 + len(names)))
    labels = Labels(tuple(names), ids=ids, countable=(True,) * len(names), ignore_ids=tuple(ignore))
    assert Labels.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (
            None,
            "l.yaml: expected a list of class names, or a mapping with `names`, found None. Write names: [a, b].",
        ),
        (
            "road",
            "l.yaml: expected a list of class names, or a mapping with `names`, found 'road'. Write names: [a, b].",
        ),
        ([], "l.yaml: expected `names` with a list of class names, found none. Add names: [a, b]."),
        ({}, "l.yaml: expected `names` with a list of class names, found none. Add names: [a, b]."),
        # A string is not a list of names.
        (
            {"names": "road"},
            "l.yaml: expected `names` with a list of class names, found 'road'. Add names: [a, b].",
        ),
        ({"names": 5}, "l.yaml: expected `names` with a list of class names, found 5. Add names: [a, b]."),
        (
            {"names": {0: "a", 1: "b"}, "ids": [3, 4]},
            "l.yaml: expected `names` with a list of class names, found {0: 'a', 1: 'b'}. Add names: [a, b].",
        ),
        # YAML parses no as false.
        ({"names": [False, True]}, "l.yaml: expected class names, found False. Put the name in quotes."),
        ({"names": ["a", None]}, "l.yaml: expected class names, found None. Put the name in quotes."),
        ({"names": ["a", ""]}, "l.yaml: expected class names, found ''. Put the name in quotes."),
        ({"names": ["a"], "ids": 3}, "l.yaml: expected `ids` with a list of numbers, found 3. Write ids: [0, 1]."),
        (
            {"names": ["a"], "kolours": [], "x": 1},
            "l.yaml: expected names, and optionally ids, colours, countable, ignore_index, found kolours, x. "
            "Correct the key.",
        ),
        ({"names": ["a"], "ids": ["x"]}, "l.yaml: ids: expected integers, found 'x'. Correct the value."),
        ({"names": ["a"], "ids": [1.5]}, "l.yaml: ids: expected integers, found 1.5. Correct the value."),
        (
            {"names": ["a"], "ignore_index": "x"},
            "l.yaml: ignore_index: expected integers, found 'x'. Correct the value.",
        ),
        ({"names": ["a", "a"]}, "l.yaml: names: expected unique entries, found a twice. Change one."),
        (
            {"names": ["a"], "colours": 3},
            "l.yaml: expected one entry per class, found 'int' object is not iterable. Write a list.",
        ),
        (
            {"names": ["a"], "colours": [7]},
            "l.yaml: colours: expected three values 0–255 per class, found 7. Correct the colour.",
        ),
    ],
)
def test_invalid_plain_forms(plain: object, message: str) -> None:
    with pytest.raises(LabelsError) as error:
        Labels.from_dict(plain, "l.yaml")  # type: ignore[arg-type]
    assert str(error.value) == message
