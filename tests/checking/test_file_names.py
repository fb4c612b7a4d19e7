import re

import pytest

from pixelwise.checking.adjacent_images import parse_frame, parse_tile, suggest_groups


def groups(paths: list[str]) -> list[tuple[int, bool]]:
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
    assert groups(paths) == []


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
