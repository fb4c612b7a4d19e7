"""`convert`: the same masks in another format, and an honest word about what that cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelwise
from pixelwise.data.formats import FORMATS
from pixelwise.errors import MaskError, OutputExistsError, PairingError, UsageError


def lay(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    for name, mask in masks.items():
        for kind in ("images", "masks"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*mask.shape, 3), len(name), np.uint8)).save(folder / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    (folder / "labels.yaml").write_text("names: [background, ring, core]\nignore_index: 255\n")
    return folder


def ring() -> np.ndarray:
    mask = np.zeros((12, 16), np.uint8)
    mask[2:10, 2:10] = 1
    mask[4:8, 4:8] = 0
    mask[5:7, 5:7] = 2
    mask[0, 0] = 255
    return mask


def read_back(folder: Path) -> dict[str, np.ndarray]:
    from pixelwise.config import read_request
    from pixelwise.data.dataset import open_data

    config, base = read_request(folder)
    back = {}
    for part in open_data(config.data, base):
        for index, record in enumerate(part.records):
            back[record.image.stem] = part.read(index).mask
    return back


@pytest.mark.parametrize("kind", [name for name, one in FORMATS.items() if one.write is not None and not one.loses])
def test_holes_islands_and_ignored_pixels_survive(kind, tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": ring().T.copy(), "c": np.full((3, 4), 2, np.uint8)})
    done = pixelwise.convert(data, to=kind, out=tmp_path / "out")
    assert (done.pictures, done.changed_pixels, done.changed_pictures, done.worst) == (3, 0, 0, ())
    assert done.pixels == 2 * 12 * 16 + 12
    back = read_back(tmp_path / "out")
    np.testing.assert_array_equal(back["a"], ring())
    np.testing.assert_array_equal(back["b"], ring().T)
    np.testing.assert_array_equal(back["c"], np.full((3, 4), 2))


def test_pictures_are_copied_byte_for_byte_and_parts_are_kept(tmp_path):
    for part in ("train", "val"):
        lay(tmp_path / "in" / part, {f"{part}{k}": ring() for k in range(2)})
    (tmp_path / "in" / "labels.yaml").write_text("names: [background, ring, core]\n")
    pixelwise.convert(tmp_path / "in", to="labelme", out=tmp_path / "out")
    for part in ("train", "val"):
        for k in range(2):
            before = (tmp_path / "in" / part / "images" / f"{part}{k}.jpg").read_bytes()
            assert (tmp_path / "out" / part / f"{part}{k}.jpg").read_bytes() == before


def test_names_that_differ_in_case_or_suffix_only_do_not_overwrite_each_other(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "A": ring().T.copy()})
    done = pixelwise.convert(data, to="masks", out=tmp_path / "out")
    assert done.pictures == 2
    assert done.changed_pixels == 0


def test_folders_that_all_pictures_have_in_common_are_left_away(tmp_path):
    data = lay(tmp_path / "in", {"deep/one/a": ring(), "deep/two/a": ring().T.copy()})
    pixelwise.convert(data, to="masks", out=tmp_path / "out", overrides=["data.split.val=0"])
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg")) == [
        "train/images/one/a.jpg",
        "train/images/two/a.jpg",
    ]


def test_what_is_there_is_not_touched(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": ring()})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"out: expected a new or empty folder, found files in it\. Choose"):
        pixelwise.convert(data, to="masks", out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_mask_that_cannot_be_read_leaves_nothing_behind(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": np.full((5, 5), 77, np.uint8)})
    with pytest.raises(MaskError, match="77"):
        pixelwise.convert(data, to="labelme", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_picture_without_a_mask_stops_it_unless_it_may_be_left_out(tmp_path):
    data = lay(tmp_path / "in", {"a": ring(), "b": ring(), "c": ring()})
    (data / "masks" / "c.png").unlink()
    with pytest.raises(PairingError, match="picture without a mask: 1"):
        pixelwise.convert(data, to="masks", out=tmp_path / "out")
    assert pixelwise.convert(data, to="masks", out=tmp_path / "out", overrides=["data.skip_bad=true"]).pictures == 2


def test_unknown_formats_are_named_with_the_nearest(tmp_path):
    with pytest.raises(
        UsageError, match=r"--to: expected one of .*labelme.*, found 'labellme'\. Did you mean 'labelme'\?"
    ):
        pixelwise.convert(tmp_path, to="labellme", out=tmp_path / "out")


def test_the_command_says_what_it_did(tmp_path, capsys, monkeypatch):
    import sys

    from pixelwise import cli

    data = lay(tmp_path / "in", {"a": ring(), "b": ring()})
    for options, out in ((["--json"], "one"), ([], "two")):
        arguments = ["pixelwise", "convert", str(data), "--to", "labelme", "--out", str(tmp_path / out), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        said = capsys.readouterr().out
        if options:
            plain = json.loads(said)
            assert (plain["format"], plain["pictures"], plain["changed_pixels"]) == ("labelme", 2, 0)
        else:
            assert said.splitlines() == [
                f"2 pictures and masks written as labelme: {tmp_path / out}",
                "read back: every pixel as it was",
            ]
