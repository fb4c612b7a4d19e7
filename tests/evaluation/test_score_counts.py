"""What may be compared at all, and what is read from files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.drawn import counted, plain, write_run

from pixelwise.errors import DataError, UsageError
from pixelwise.evaluation import Evaluation
from pixelwise.evaluation.comparison import compare
from pixelwise.evaluation.score_counts import aligned, read_run_counts, run_counts, run_names


def test_other_images_are_an_error():
    a = counted(0.8, n=6)
    b = replace(counted(0.8, n=6, name="b"), ids=("0000", "x", "y", "z", "v", "w"))
    with pytest.raises(DataError) as error:
        aligned([a, b])
    assert str(error.value) == (
        "b against a: expected the same images, found 5 only in a (0001, 0002, 0003 and 2 more) and 5 only in b "
        "(v, w, x and 2 more). Evaluate both on the same images: name them with --data."
    )
    short = replace(a, name="c", ids=a.ids[:5], truths=a.truths[:5], groups=a.groups[:5], counts=a.counts[:5])
    with pytest.raises(DataError, match=r"found 1 only in a \(0005\)\. Evaluate"):
        aligned([a, short])


@pytest.mark.parametrize("what", ["hash", "pixels"])
def test_other_masks_of_the_same_names_are_an_error(what):
    a, b = counted(0.8), counted(0.8, name="b")
    if what == "hash":
        b = replace(b, truths=("t",) * 39 + ("u",))
    else:
        b.counts[39, 1, 0] += 1
    with pytest.raises(DataError) as error:
        aligned([a, b])
    assert str(error.value) == (
        "b against a: expected the same masks, found other masks for the same names: 0039. Evaluate both on the same masks: "
        "name them with --data."
    )


def test_other_classes_are_an_error():
    with pytest.raises(DataError) as error:
        aligned([counted(0.8), replace(counted(0.8, name="b"), classes=("road", "car", "tree"))])
    assert str(error.value) == (
        "b against a: expected the classes road, car, pole, found other classes: road, car, tree. Compare models of the same "
        "classes in the same order."
    )


def test_one_run_or_no_counted_pixel_is_an_error():
    with pytest.raises(UsageError, match=r"^compare: expected two runs or more, found 1\. List the runs to compare\.$"):
        compare([counted(0.8)])
    empty = replace(counted(0.8), counts=np.zeros((40, 3, 3), np.int64))
    with pytest.raises(DataError, match="expected at least one counted pixel, found none"):
        compare([empty, replace(empty, name="b")])


# Groups


def with_groups(*names, n=6):
    """Runs whose images have the given groups, a letter each; a point is none."""
    return [
        counted(0.8, n=n, seed=i, name=f"r{i}", groups=tuple(None if g == "." else g for g in groups))
        for i, groups in enumerate(names)
    ]


@pytest.mark.parametrize(("one", "other"), [("aabbcc", "aaabbb"), ("aab...", "..aabb")])
def test_overlapping_groups_are_an_error_in_either_order(one, other):
    for runs in (with_groups(one, other), with_groups(other, one)):
        with pytest.raises(
            DataError, match=r"expected the same groups of images, or groups of one run within those of the"
        ):
            compare(runs)


def test_error_about_groups_names_two_images():
    with pytest.raises(DataError) as error:
        aligned(with_groups("aaabbb", "aabbcc"))
    assert str(error.value) == (
        "r1 against r0: expected the same groups of images, or groups of one run within those of the other, found 0002 and 0003 "
        "in one group in r1, but not in r0. Evaluate both with the same groups: name the images with --data."
    )


@pytest.mark.parametrize("fine", ["aabbcc", "aab...", "......"])
def test_coarser_groups_are_used_and_reported(fine):
    coarse = "xxxxyy"
    for groups in ((coarse, fine), (fine, coarse)):
        runs, notices = aligned(with_groups(*groups))
        assert [run.groups for run in runs] == [tuple(coarse)] * 2
        name, other = (f"r{groups.index(part)}" for part in (fine, coarse))
        has = f"finer groups than {other}" if "a" in fine else "no groups"
        assert notices == [f"{name} has {has}: images are grouped as in {other}"]
    assert notices[0] in compare(with_groups(fine, coarse)).notices


def test_group_names_do_not_matter():
    runs, notices = aligned(with_groups("aabb.c", "ccaa.b", "zzyyx."))
    assert notices == []
    assert {run.groups for run in runs} == {("a", "a", "b", "b", None, "c")}


# Files


def test_counts_are_read_back(tmp_path):
    run = counted(0.8, sizes=(5000, 800, 1), groups=("g", None) * 20)
    found = read_run_counts(write_run(tmp_path / "a", run), "a")
    np.testing.assert_array_equal(found.counts, run.counts)
    for name in ("name", "classes", "ids", "groups", "truths", "recipe", "seed", "selected"):
        assert getattr(found, name) == getattr(run, name), name
    assert read_run_counts(tmp_path / "a" / "scores.json", "a").ids == run.ids


@pytest.mark.parametrize(
    "content",
    [
        {"classes": []},
        {"per_image": []},
        {"per_image": [{"id": "a", "miou": 0.5}]},
        [],
        None,
    ],
)
def test_file_without_counts_is_an_error(tmp_path, content):
    (tmp_path / "scores.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read_run_counts(tmp_path, "a")
    assert str(error.value) == (
        f"{tmp_path / 'scores.json'}: expected counts per image, found none: an older or another file. Evaluate it again with "
        "--out, and use the new scores.json; or compare with --data."
    )


@pytest.mark.parametrize("damage", ["class", "negative class", "short", "name", "text", "twice"])
def test_damaged_file_is_an_error(damage):
    content = plain(counted(0.8))
    first = content["per_image"][0]
    if damage.endswith("class"):
        first["counts"][0][0] = 3 if damage == "class" else -4
    elif damage == "short":
        first["counts"][0] = [0, 1]
    elif damage == "name":
        del first["id"]
    elif damage == "text":
        first["counts"][0][1] = "many"
    else:
        content["per_image"][1]["id"] = first["id"]
    with pytest.raises(DataError, match=r"here: expected .* Evaluate it again"):
        run_counts(Evaluation.from_dict(content, "here"), "here", "a")


def test_missing_and_unreadable_files_are_errors(tmp_path):
    with pytest.raises(DataError) as error:
        read_run_counts(tmp_path / "none", "a")
    assert str(error.value).endswith(
        "none: expected a folder with scores.json, or the file, found nothing. Check the path."
    )
    with pytest.raises(
        DataError, match=r"expected scores\.json, found none\. Use a finished run or the folder of evaluate"
    ):
        read_run_counts(tmp_path, "a")
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"expected a readable scores\.json, found .* Evaluate it again\."):
        read_run_counts(tmp_path, "a")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b/"], ["a", "b"]),
        (["a/scores.json", "b/scores.json"], ["a", "b"]),
        (["x/run", "y/run", "z"], ["x/run", "y/run", "z"]),
        (["runs/a", "runs/a"], ["a", "a (2)"]),
    ],
)
def test_run_names_are_short_and_unique(paths, names):
    assert run_names(paths) == names
