import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.checking.drawn import findings, halves, kinds, of_kind, save

from pixelwise import checking
from pixelwise.checking import CHECKS, SEVERITIES, Finding, check
from pixelwise.checking.findings import join_names, plural
from pixelwise.config import DataConfig, read_request
from pixelwise.datasets.dataset import open_data
from pixelwise.demo.synthetic import write_road_scenes

RECIPES = Path(__file__).parents[2] / "recipes"


def test_a_good_data_set_has_no_findings(good: Path) -> None:
    calls: list[tuple[int, int]] = []
    assert check(open_data(DataConfig(), good), lambda done, total: calls.append((done, total)), workers=0) == []
    assert calls[-1] == (22, 22)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_findings_are_sorted_by_severity(folder: Path) -> None:
    (folder / "val/images/val02.png").write_bytes((folder / "train/images/train05.png").read_bytes())
    save(folder / "train/masks/train04.png", halves(right=9))
    severities = [finding.severity for finding in findings(folder, skip_bad=False)]
    assert severities[0] == "error"
    assert severities == sorted(severities, key=SEVERITIES.index)


def test_every_check_is_registered() -> None:
    modules = [
        importlib.import_module(found.name) for found in pkgutil.iter_modules(checking.__path__, "pixelwise.checking.")
    ]
    defined = {
        value
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
        and getattr(value, "__annotations__", {}).get("return") == "Iterator[Finding]"
    }
    assert defined == set(CHECKS)
    assert len(CHECKS) == len(set(CHECKS))


def test_plain_values_are_json_with_the_keys_in_order(folder: Path) -> None:
    save(folder / "train/masks/train04.png", halves(right=9))
    plain = of_kind(findings(folder), "unknown-ids").to_dict()
    assert list(plain) == [
        *("kind", "severity", "what", "where", "count", "of", "why", "fix", "examples", "paired"),
    ]
    assert json.loads(json.dumps(plain)) == plain
    assert plain["where"] == [str(folder / "train/masks/train04.png")]
    assert (plain["examples"], plain["count"], plain["of"]) == ([["train", 4]], 1, 22)


def test_at_most_five_files_and_twelve_examples_are_listed(folder: Path) -> None:
    for split, count in (("train", 12), ("val", 10)):
        for k in range(count):
            save(folder / f"{split}/masks/{split}{k:02}.png", halves(right=9))
    finding = of_kind(findings(folder), "unknown-ids")
    assert (len(finding.where), len(finding.examples), finding.count, finding.of) == (5, 12, 22, 22)


def test_every_example_can_be_read_from_the_splits(folder: Path) -> None:
    (folder / "labels.yaml").write_text("names: [ground, road, car]\n")
    save(folder / "val/images/val02.png", np.full((64, 64, 3), 7, np.uint8))
    (folder / "val/images/val03.png").write_bytes((folder / "train/images/train05.png").read_bytes())
    opened = open_data(DataConfig(), folder)
    splits = {dataset.name: dataset for dataset in opened}
    found = check(opened, workers=0)
    assert len(found) >= 3
    for finding in found:
        for split, index in finding.examples:
            assert splits[split].read(index).image.shape == (3, 64, 64)
        assert not finding.paired or len(finding.examples) % 2 == 0


def test_plurals_and_lists_in_words() -> None:
    assert (plural(1, "mask", "masks"), plural(3, "mask", "masks")) == ("1 mask", "3 masks")
    assert [join_names(list("abcdefg")[:count], 3) for count in (0, 1, 2, 3, 5)] == [
        *("none", "a", "a and b", "a, b and c", "a, b, c and 2 more"),
    ]


def test_synthetic_road_scenes_have_only_notices(tmp_path: Path) -> None:
    write_road_scenes(tmp_path, train=16, val=10, test=10, size=(120, 160))
    found = check(open_data(DataConfig(), tmp_path), workers=0)
    assert set(kinds(found)) <= {"specks", "rare-classes", "smaller-than-the-crop", "thin-objects"}, found


REAL = {
    "camvid": {"named-groups-across-parts", "frames-across-parts"},
    "drive": {"small-part"},
    "magnetic_tile": {"forgotten-masks"},
    "aerial_roads": set(),
}


@pytest.mark.parametrize("name", ["drive", "aerial_roads"])
def test_real_data_sets_have_exactly_the_known_problems(name: str, real: Callable[[str], Path]) -> None:
    config, base = read_request(RECIPES / f"{name}.yaml", [f"data.root={real(name)}"])
    found = check(open_data(config.data, base), workers=0)
    assert {finding.kind for finding in found if finding.severity != "notice"} == REAL[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["camvid", "magnetic_tile"])
def test_larger_real_data_sets_have_exactly_the_known_problems(name: str, real: Callable[[str], Path]) -> None:
    config, base = read_request(RECIPES / f"{name}.yaml", [f"data.root={real(name)}"])
    found = check(open_data(config.data, base))
    assert {finding.kind for finding in found if finding.severity != "notice"} == REAL[name]
    if name == "camvid":
        groups = of_kind(found, "named-groups-across-parts")
        assert groups.where == ("0001TP: train, test", "0016E5: train, val")
        frames = of_kind(found, "frames-across-parts")
        assert [text.rsplit("/", 1)[1] for text in frames.where] == [
            *("0001TP_008550.jpg", "0016E5_07959.jpg", "0016E5_08190.jpg"),
        ]
    else:
        forgotten = of_kind(found, "forgotten-masks")
        assert forgotten.count == 4
        assert all("MT_Uneven" in text for text in forgotten.where)


def test_a_colour_data_set_with_one_grey_image(real: Callable[[str], Path]) -> None:
    opened = open_data(DataConfig(skip_bad=True), real("coco_panoptic"))
    found = check(opened)
    assert "1 of 100 images is grey: converted to RGB (data.bands=rgb)" in [one.what for one in found]
    assert of_kind(found, "grey-pictures").what == "8 of 100 images are grey, as stored or converted"
    assert "mixed-pictures" not in kinds(found)
    assert not {"shifted-masks", "some-masks-shifted", "blended-ids", "near-duplicates"} & set(kinds(found))


def test_findings_are_frozen() -> None:
    finding = Finding("kind", "notice", "what", (), 1, 1, "why", "fix")
    with pytest.raises(AttributeError):
        finding.kind = "other"  # type: ignore[misc]
