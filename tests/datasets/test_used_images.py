"""Images that a model was trained on are recognised by their contents, and parts of them by their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pixelwise.datasets.used_images import shared_images, used_images
from pixelwise.formats.records import Record
from pixelwise.imageio.volumes import Plane


def record(path: Path, content: bytes, **fields: Any) -> Record:
    path.write_bytes(content)
    return Record(path.stem, path, None, **fields)


def test_contents_count_and_names_do_not(tmp_path: Path) -> None:
    used = json.loads(json.dumps(used_images([record(tmp_path / "a.png", b"one"), record(tmp_path / "b.png", b"two")])))
    copy, other = record(tmp_path / "c.png", b"one"), record(tmp_path / "d.png", b"three")
    (tmp_path / "new").mkdir()
    same_name = record(tmp_path / "new" / "a.png", b"four")
    assert shared_images([copy, other, same_name], used) == ["c"]


@pytest.mark.parametrize(
    ("window", "shared"),
    [(None, True), ((0, 0, 10, 10), True), ((9, 9, 5, 5), True), ((10, 0, 10, 10), False), ((0, 10, 5, 5), False)],
)
def test_windows_of_a_scene_are_shared_if_they_overlap(
    tmp_path: Path, window: tuple[int, int, int, int] | None, shared: bool
) -> None:
    used = json.loads(json.dumps(used_images([record(tmp_path / "a.tif", b"scene", window=(0, 0, 10, 10))])))
    assert bool(shared_images([record(tmp_path / "b.tif", b"scene", window=window)], used)) == shared


@pytest.mark.parametrize(
    ("plane", "shared"), [(Plane(3), True), (Plane(4), False), (None, True), (Plane(9, "coronal"), True)]
)
def test_slices_of_a_volume_are_shared_if_they_meet(tmp_path: Path, plane: Plane | None, shared: bool) -> None:
    used = json.loads(json.dumps(used_images([record(tmp_path / "a.nii", b"volume", plane=Plane(3))])))
    assert bool(shared_images([record(tmp_path / "b.nii", b"volume", plane=plane)], used)) == shared
