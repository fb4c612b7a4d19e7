import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.checking.drawn import draw_good, findings, inspected, kinds, of_kind, signature, survey_of

from pixelwise.checking.adjacent_images import (
    adjacent_frames,
    adjacent_tiles,
    divided_groups,
    groups_in_names,
    parse_frame,
    parse_tile,
    suggest_groups,
)
from pixelwise.checking.inspection import Inspection
from pixelwise.datasets.split import name_groups
from pixelwise.imageio.volumes import Plane


def of(vector: np.ndarray) -> Inspection:
    return inspected(signature=signature(vector))


def drive(seed: int, count: int, step: float = 0.2) -> list[Inspection]:
    """Make a video whose images change slowly: each a step from the one before."""
    rng = np.random.default_rng(seed)
    place = rng.standard_normal(143)
    images = []
    for _ in range(count):
        place = place + step * rng.standard_normal(143)
        images.append(of(place))
    return images


def unrelated(seed: int, count: int) -> list[Inspection]:
    rng = np.random.default_rng(seed)
    return [of(rng.standard_normal(143)) for _ in range(count)]


def test_given_groups_in_two_splits() -> None:
    groups = {"train": ["a", "a", "b"], "val": ["b", "c", "c"]}
    found = list(divided_groups(survey_of({"train": unrelated(0, 3), "val": unrelated(1, 3)}, groups=groups)))
    assert [(one.severity, one.count, one.of, one.where) for one in found] == [("error", 1, 3, ("b: train, val",))]
    assert found[0].examples == (("train", 2), ("val", 0))
    assert found[0].fix == "Keep each group in one split; or divide all images again: --set data.split.anew=true."
    whole = {"train": ["a", "a", "b"], "val": ["c", "c", "d"]}
    assert not list(divided_groups(survey_of({"train": unrelated(0, 3), "val": unrelated(1, 3)}, groups=whole)))


def test_groups_of_the_configuration_are_checked(tmp_path: Path) -> None:
    draw_good(tmp_path)
    found = of_kind(findings(tmp_path, group=r"(?:train|val)(\d+)\.png"), "groups-across-parts")
    assert (found.severity, found.count, found.of) == ("error", 10, 12)
    assert found.what == "10 groups are in more than one split"
    assert found.where[0] == "00: train, val"


def test_videos_in_two_splits_by_name() -> None:
    one, two = drive(1, 20, 0.05), drive(2, 20, 0.05)
    names = {
        "train": [f"train/cam1_{k:03}.jpg" for k in range(20)] + [f"train/cam2_{k:03}.jpg" for k in range(12)],
        "val": [f"val/cam2_{k:03}.jpg" for k in range(12, 20)],
    }
    survey = survey_of({"train": one + two[:12], "val": two[12:]}, names=names)
    found = of_kind(groups_in_names(survey), "named-groups-across-parts")
    assert found.severity == "warning"
    assert found.what == "file names suggest 2 groups, 1 of them in more than one split: cam2 (20 images)"
    assert found.where == ("cam2: train, val",)
    rule = found.fix.split("group: '")[1].split("'")[0]
    assert set(name_groups([*names["train"], *names["val"]], rule)) == {"cam1", "cam2"}
    assert found.fix.endswith("; and, since the splits are given, divide all images again: --set data.split.anew=true.")
    drawn = survey_of({"train": one + two[:12], "val": two[12:]}, names=names, description={"split": {"given": []}})
    assert found.fix.startswith(of_kind(groups_in_names(drawn), "named-groups-across-parts").fix.rstrip("."))


def test_prefixes_without_similar_images_are_not_groups() -> None:
    """exp1 to exp3 are exposures: every split has all of them, and they show different scenes."""
    names = {
        split: [f"exp{k % 3}_num_{number + k}.jpg" for k in range(30)] for split, number in (("train", 0), ("val", 900))
    }
    survey = survey_of({"train": unrelated(0, 30), "val": unrelated(1, 30)}, names=names)
    assert not list(groups_in_names(survey))


def test_two_volumes_of_a_patient_in_two_splits() -> None:
    volumes = {
        "train": [f"p{p:02}/{kind}.nii.gz" for p in range(10) for kind in ("ct", "mr")][:-1],
        "val": ["p09/mr.nii.gz", *(f"p{p}/{kind}.nii.gz" for p in (10, 11) for kind in ("ct", "mr"))],
    }
    names = {split: [name for name in own for _ in range(3)] for split, own in volumes.items()}  # three slices of each
    survey = survey_of(
        {split: unrelated(k, len(own)) for k, (split, own) in enumerate(names.items())}, names=names, groups=names
    )
    assert not list(groups_in_names(survey))  # without slices of volumes, the groups are those configured
    splits = {
        split.name: replace(
            split, records=tuple(replace(one, plane=Plane(k % 3)) for k, one in enumerate(split.records))
        )
        for split in survey.splits
    }
    survey = replace(survey, splits=replace(survey.splits, train=splits["train"], val=splits["val"]))
    found = of_kind(groups_in_names(survey), "named-groups-across-parts")
    assert found.what == "file names suggest 12 groups, 1 of them in more than one split: p09 (2 volumes)"
    assert found.where == ("p09: train, val",)


def test_many_patients_in_names_need_no_similarity() -> None:
    names = {
        "train": [f"patient{p:02}_{k}.png" for p in range(10) for k in range(3)],
        "val": [f"patient{p:02}_{k}.png" for p in range(9, 14) for k in range(3, 6)],
    }
    survey = survey_of({"train": unrelated(0, 30), "val": unrelated(1, 15)}, names=names)
    found = of_kind(groups_in_names(survey), "named-groups-across-parts")
    assert found.what.startswith("file names suggest 14 groups, 1 of them in more than one split: patient09")
    groups = {split: ["x"] * len(own) for split, own in names.items()}
    assert not list(
        groups_in_names(survey_of({"train": unrelated(0, 30), "val": unrelated(1, 15)}, names=names, groups=groups))
    )
    names["val"] = [name.replace("patient09", "patient15") for name in names["val"]]
    assert not list(groups_in_names(survey_of({"train": unrelated(0, 30), "val": unrelated(1, 15)}, names=names)))


def test_adjacent_frames_in_two_splits() -> None:
    video = drive(3, 40, 0.1)
    other = unrelated(4, 20)
    names = {
        "train": [f"a_{30 * k:05}.jpg" for k in range(30)] + [f"b_{k}.jpg" for k in range(20)],
        "test": [f"a_{30 * k:05}.jpg" for k in range(30, 40)],
    }
    survey = survey_of({"train": [*video[:30], *other], "test": video[30:]}, names=names)
    found = of_kind(adjacent_frames(survey), "frames-across-parts")
    assert (found.severity, found.count, found.paired) == ("warning", 1, True)
    assert found.where == ("/set/a_00870.jpg → /set/a_00900.jpg",)
    assert "--set data.split.anew=true" in found.fix
    assert found.examples == (("train", 29), ("test", 0))


def test_a_gap_in_the_numbers_separates_videos() -> None:
    video = drive(3, 40, 0.1)
    names = {
        "train": [f"a_{30 * k:05}.jpg" for k in range(30)],
        "test": [f"a_{9000 + 30 * k:05}.jpg" for k in range(10)],
    }
    assert not list(adjacent_frames(survey_of({"train": video[:30], "test": video[30:]}, names=names)))


def test_numbered_images_of_different_scenes_are_not_a_video() -> None:
    names = {
        "train": [f"satImage_{k:03}.png" for k in range(30)],
        "val": [f"satImage_{k:03}.png" for k in range(30, 40)],
    }
    assert not list(adjacent_frames(survey_of({"train": unrelated(0, 30), "val": unrelated(1, 10)}, names=names)))


def grid(splits: dict[str, list[tuple[int, int]]], pattern: str) -> list:
    names = {split: [pattern.format(x=x, y=y) for x, y in places] for split, places in splits.items()}
    return list(
        adjacent_tiles(survey_of({split: unrelated(0, len(own)) for split, own in splits.items()}, names=names))
    )


@pytest.mark.parametrize("pattern", ["town_{x}_{y}.png", "town_x{x}_y{y}.png", "town_{x}.5_{y}.5.png"])
def test_adjacent_tiles_in_two_splits(pattern: str) -> None:
    places = [(512 * x, 512 * y) for x in range(4) for y in range(4)]
    found = grid({"train": places[:12], "val": places[12:]}, pattern)
    assert [(one.kind, one.severity, one.count) for one in found] == [("tiles-across-parts", "warning", 4)]
    assert (
        found[0].what
        == "names look like coordinates, and 4 of 4 images outside train are adjacent to one of another split"
    )
    assert found[0].fix.endswith("also divide all images again: --set data.split.anew=true.")
    if "." not in pattern[:-4]:
        rule = found[0].fix.split("group: '")[1].split("'")[0]
        names = [pattern.format(x=x, y=y) for x, y in places]
        assert len(set(name_groups(names, rule))) == 4
    else:
        assert "data.group takes a .csv table" in found[0].fix


def test_tiles_of_other_scenes_and_numbers_without_a_grid() -> None:
    places = [(512 * x, 512 * y) for x in range(3) for y in range(3)]
    apart = {"train": places, "val": [(x + 51200, y) for x, y in places]}
    names = {split: [f"{split}town_{x}_{y}.png" for x, y in own] for split, own in apart.items()}
    assert not list(adjacent_tiles(survey_of({split: unrelated(0, 9) for split in apart}, names=names)))
    larger = [(512 * x, 512 * y) for x in range(4) for y in range(4)]
    names = {
        "train": [f"train/valley/images/{x}_{y}.png" for x, y in larger],
        "val": [f"val/town/images/{x}_{y}.png" for x, y in places],
    }
    survey = {"train": unrelated(0, 16), "val": unrelated(1, 9)}
    assert not list(adjacent_tiles(survey_of(survey, names=names)))
    names["val"] = [f"val/valley/images/{x + 2048}_{y}.png" for x, y in places]
    assert len(list(adjacent_tiles(survey_of(survey, names=names)))) == 1
    dates = {
        "train": [(3 * k % 31, 17 * k % 101) for k in range(20)],
        "val": [(5 * k % 29, 23 * k % 97) for k in range(9)],
    }
    assert not grid(dates, "2015_{x}_{y}.png")


def test_one_part_cannot_leak() -> None:
    names = {"train": [f"cam{k % 2}_{k}.jpg" for k in range(20)]}
    survey = survey_of({"train": drive(1, 20)}, names=names)
    assert kinds([*groups_in_names(survey), *adjacent_frames(survey), *adjacent_tiles(survey)]) == []


def suggested(paths: list[str]) -> list[tuple[int, bool]]:
    return [(len(set(found.names)), found.conclusive) for found in suggest_groups(paths)]


def test_videos_by_the_text_before_the_number() -> None:
    paths = [f"train/0016E5_{k:05}.jpg" for k in range(5)] + [f"val/Seq05VD_f{k:05}.jpg" for k in range(5)]
    found = suggest_groups(paths)[0]
    assert set(found.names) == {"0016E5", "Seq05VD"}
    assert not found.conclusive
    assert [re.search(found.rule, path)[1] for path in paths] == list(found.names)  # type: ignore[index]


def test_many_patients_are_conclusive() -> None:
    paths = [f"images/patient{p:03}_slice{k}.png" for p in range(12) for k in range(4)]
    found = suggest_groups(paths)[0]
    assert (found.names[0], found.names[-1]) == ("patient000", "patient011")
    assert found.conclusive


def test_slides_by_the_text_before_two_numbers() -> None:
    paths = [f"slide{s}_{x}_{y}.png" for s in range(9) for x in (0, 512) for y in (0, 512)]
    assert {len(set(found.names)) for found in suggest_groups(paths)} == {18, 9}


def test_folders_may_be_groups() -> None:
    paths = [f"images/case{c}/{name}.png" for c in range(9) for name in "abc"]
    found = suggest_groups(paths)
    assert [sorted(set(one.names)) for one in found] == [[f"case{c}" for c in range(9)]]


@pytest.mark.parametrize(
    "paths",
    [
        [f"satImage_{k:03}.png" for k in range(20)],  # one sequence
        [f"{k:012}.jpg" for k in range(20)],
        [f"train/train-{k}.png" for k in range(9)] + [f"val/val-{k}.png" for k in range(9)],
        [f"crack_{k}.png" for k in range(9)] + [f"scratch_{k}.png" for k in range(9)],  # classes, not groups
        [f"{name}1.png" for name in ("a7", "b7", "c7", "d7")],  # every group alone
        [],
    ],
)
def test_names_without_groups(paths: list[str]) -> None:
    assert suggested(paths) == []


def test_frames_by_their_last_number() -> None:
    assert [parse_frame(path) for path in ["a/seq1_f007.png", "b/seq1_f8.png", "none.png", "c/9_left.png"]] == [
        ("seq1_f#", 7),
        ("seq1_f#", 8),
        None,
        ("#_left", 9),
    ]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("scene_512_1024.png", ("scene", 512, 1024)),
        ("scene3_x10_y22.tif", ("scene3_", 10, 22)),
        ("tile_r2_c5.png", ("tile_", 2, 5)),
        ("12.9716_77.5946.png", ("", 12.9716, 77.5946)),
        ("val/valley/images/512_1024.png", ("/valley/images/", 512, 1024)),
        ("train_valley/512_1024.png", ("_valley/", 512, 1024)),
        ("trains/512_1024.png", ("trains/", 512, 1024)),
        ("img_007.png", None),
        ("plain.png", None),
    ],
)
def test_places_of_tiles(name: str, place: tuple[str, float, float] | None) -> None:
    assert parse_tile(name) == place
