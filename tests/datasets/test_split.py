import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.datasets.split import name_groups, split_groups
from pixelwise.errors import ConfigError, DataError, PairingError


def parts_of(place: dict[str, str]) -> dict[str, set[str]]:
    return {split: {i for i, p in place.items() if p == split} for split in ("train", "val", "test")}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=8, max_size=80), st.integers(0, 99))
def test_groups_stay_together_and_every_split_has_one(numbers: list[int], seed: int) -> None:
    ids = [f"p{k}" for k in range(len(numbers))]
    groups = [f"g{n}" for n in numbers]
    if len(set(groups)) < 3:
        with pytest.raises(PairingError):
            split_groups(ids, groups, 0.2, 0.2, seed)
        return
    place = split_groups(ids, groups, 0.2, 0.2, seed)
    assert set(place.values()) == {"train", "val", "test"}
    for group in set(groups):
        assert len({place[i] for i, g in zip(ids, groups, strict=True) if g == group}) == 1


def test_order_of_files_does_not_matter() -> None:
    ids = [f"p{k}" for k in range(50)]
    assert split_groups(ids, ids, 0.2, 0.1, 3) == split_groups(ids[::-1], ids[::-1], 0.2, 0.1, 3)


def test_division_is_pinned() -> None:
    ids = [f"p{k}" for k in range(10)]
    place = split_groups(ids, ids, 0.2, 0.2, 0)
    assert parts_of(place)["val"] == {"p4", "p5"}
    assert parts_of(place)["test"] == {"p2", "p7"}
    assert parts_of(split_groups(ids, ids, 0.2, 0.2, 1))["val"] == {"p3", "p4"}


def test_single_images_give_the_requested_shares() -> None:
    ids = [f"p{k}" for k in range(200)]
    splits = parts_of(split_groups(ids, ids, 0.2, 0.1, 0))
    assert {split: len(names) for split, names in splits.items()} == {"train": 140, "val": 40, "test": 20}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=30, max_size=60), st.integers(0, 20))
def test_shares_of_groups_are_close_to_the_requested_ones(sizes: list[int], seed: int) -> None:
    groups = [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)]
    ids = [f"p{k}" for k in range(len(groups))]
    splits = parts_of(split_groups(ids, groups, 0.2, 0.1, seed))
    assert abs(len(splits["val"]) - 0.2 * len(ids)) <= 3
    assert abs(len(splits["test"]) - 0.1 * len(ids)) <= 3


def test_one_more_file_moves_few_others() -> None:
    ids = [f"p{k}" for k in range(200)]
    before = split_groups(ids, ids, 0.2, 0.1, 0)
    after = split_groups([*ids, "new"], [*ids, "new"], 0.2, 0.1, 0)
    assert sum(before[i] != after[i] for i in ids) <= 2


def test_the_share_of_val_does_not_change_test() -> None:
    ids = [f"p{k}" for k in range(100)]
    assert (
        parts_of(split_groups(ids, ids, 0.1, 0.2, 0))["test"] == parts_of(split_groups(ids, ids, 0.4, 0.2, 0))["test"]
    )


def test_groups_larger_than_a_share() -> None:
    place = split_groups(["a", "b", "c", "d", "e"], ["x", "x", "x", "y", "y"], 0.05, 0.0, 0)
    assert parts_of(place)["val"] == {"d", "e"}


def test_one_image_cannot_be_divided() -> None:
    with pytest.raises(PairingError) as error:
        split_groups(["a"], ["a"], 0.2, 0.0, 0)
    assert str(error.value) == (
        "data.split: expected at least 2 groups of images and shares below 1 for train, val, found 1 (1 images), "
        "shares 0.2 and 0. Add images, name the splits yourself (val: …), or set split.val and split.test to 0."
    )


def test_shares_without_a_rest_for_train() -> None:
    with pytest.raises(PairingError, match=r"shares 0.6 and 0.4"):
        split_groups(["a", "b", "c", "d"], ["a", "b", "c", "d"], 0.6, 0.4, 0)


def test_group_by_expression() -> None:
    assert name_groups(["scans/pat01_s3.png", "scans/pat02_s1.png"], r"(pat\d+)_") == ["pat01", "pat02"]


def test_group_expression_that_does_not_match_every_image() -> None:
    with pytest.raises(DataError) as error:
        name_groups(["pat01_s3.png", "x.png"], r"(pat\d+)_")
    assert str(error.value) == (
        "data.group '(pat\\\\d+)_': expected a group for every image, found none for 1 of 2 (x.png). "
        "Correct the expression; it is searched for in the path relative to the data set's root."
    )


@pytest.mark.parametrize(
    ("rule", "text"), [(r"pat\d+", "with a group in parentheses"), ("(pat", "a regular expression")]
)
def test_invalid_group_expressions(rule: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        name_groups(["pat1.png"], rule)


def test_group_by_table(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("patient,image,group\n1,a,north\n2,sub/b.png,south\n3,c.png,south\n")
    assert name_groups(["x/a.png", "sub/b.png", "c.png"], "g.csv", [tmp_path]) == ["north", "south", "south"]


def test_group_table_without_an_image_a_column_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("image,group\na,north\n")
    with pytest.raises(DataError, match=r"g.csv: expected a group for every image, found none for 1 of 2 \(b.png\)"):
        name_groups(["a.png", "b.png"], "g.csv", [tmp_path])
    (tmp_path / "h.csv").write_text("image,patient\na,north\n")
    with pytest.raises(ConfigError, match="found no column group"):
        name_groups(["a.png"], "h.csv", [tmp_path])
    with pytest.raises(ConfigError, match=r"expected the table none.csv, found no such file"):
        name_groups(["a.png"], "none.csv", [tmp_path])


def test_names_that_are_not_valid_unicode() -> None:
    names = [os.fsdecode(b"caf\xe9%d" % k) for k in range(10)]
    place = split_groups(names, names, 0.2, 0.0, 0)
    assert sorted(place.values()).count("val") == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,group\nStraße,1\n".encode("cp1252"), "expected a text file in UTF-8"),
        (b"image,group\n" + b"a" * 200_000 + b",1\n", r"expected a \.csv table, found field larger"),
    ],
)
def test_unreadable_tables_are_errors(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "groups.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        name_groups(["a.png"], "groups.csv", [tmp_path])


def test_a_table_with_two_groups_for_one_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("image,group\nscan.png,patient1\nscan.png,patient2\n")
    with pytest.raises(ConfigError, match=r"one group for every image, found scan\.png in patient1 and in patient2"):
        name_groups(["a/scan.png", "b/scan.png"], "g.csv", [tmp_path])


def test_a_table_from_windows(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("image,group\na\\scan.png,patient1\n.\\b\\scan.png,patient2\n")
    assert name_groups(["a/scan.png", "b/scan.png"], "g.csv", [tmp_path]) == ["patient1", "patient2"]


def test_many_images_are_divided_quickly() -> None:
    names = [str(k) for k in range(200_000)]
    start = time.process_time()
    place = split_groups(names, names, 0.4, 0.4, 0)
    assert time.process_time() - start < 5
    assert sum(split == "train" for split in place.values()) == 40_000
