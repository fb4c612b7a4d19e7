"""Every file of a data set is read, or named: other suffixes and encodings, second annotations, forgotten lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.formats.small_data import CASES, NAMES, annotation_files, copied, read_masks

from pixelwise.checking import check
from pixelwise.config import DataConfig, read_request
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, MaskError
from pixelwise.formats import read_dataset
from pixelwise.imageio.safe_reading import decode

TEXTS = (".json", ".geojson", ".xml", ".txt")
DATA = {
    "extra.json": "{}",
    "volume.nrrd": "NRRD0004",
    "more/list.TXT": "a b c",
    "archive.zip": "PK",
    "table.csv": "a,b",
}
OTHER = (
    "README.txt",
    "LICENSE.txt",
    "readme.md",
    "md5sums.txt",
    "run.py",
    "Thumbs.db",
    ".hidden.json",
    "a.tif.aux.xml",
)


def opened(root: Path) -> DataSplits:
    config, base = read_request(root)
    return open_data(config.data.model_copy(update={"skip_bad": True}), base)


def unused(root: Path) -> list[str]:
    return [notice for notice in opened(root).notices if notice.startswith("not used: ")]


@pytest.mark.parametrize("name", CASES)
def test_every_file_of_a_whole_data_set_is_used(name: str, written: Callable[[str], Path]) -> None:
    assert unused(written(name)) == []


@pytest.mark.parametrize("name", CASES)
def test_other_files_that_may_hold_data_are_named_in_one_line(
    name: str, written: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copied(written(name), tmp_path)
    for file, text in (DATA | dict.fromkeys(OTHER, "words")).items():
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text("<PAMDataset/>" if file.endswith(".xml") else text)
    [line] = unused(root)
    # Folders of images name volumes that cannot be read in a notice of its own, with the call that converts them.
    volume = [notice for notice in opened(root).notices if "volume.nrrd" in notice]
    assert len(volume) == 1
    if volume[0] == line:
        line = line.replace(" 1 .nrrd: volume.nrrd;", "").replace("5 files", "4 files")
    assert (
        line == "not used: 4 files (1 .TXT: more/list.TXT; 1 .csv: table.csv; 1 .json: extra.json; 1 .zip: archive.zip)"
    )
    findings = [one for one in check(opened(root), workers=0) if one.kind == "files-not-used"]
    assert [(one.severity, one.what) for one in findings] == [("notice", unused(root)[0])]


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("masks", "colours")])
def test_suffixes_may_be_in_capitals(name: str, written: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied(written(name), tmp_path)
    truth = read_masks(root)
    paths = [path for path in annotation_files(root) if path.suffix in TEXTS]
    for path in paths:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert unused(root) == []
    found = read_masks(root)
    assert found.keys() == truth.keys()
    assert all(np.array_equal(found[key], truth[key]) for key in truth)


WITH_A_MARK = [
    (name, encoding)
    for name in CASES
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32")
    # XML parsers need not read UTF-32, and expat does not.
    if name not in ("masks", "colours", "voc") and (not name.startswith("cvat") or encoding != "utf-32")
]


@pytest.mark.parametrize(("name", "encoding"), WITH_A_MARK)
def test_unicode_in_any_encoding_with_a_mark_is_read(
    name: str, encoding: str, written: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copied(written(name), tmp_path)
    truth = read_masks(root)
    for path in annotation_files(root):
        if path.suffix in TEXTS:
            mark = "\ufeff" if encoding == "utf-16-be" else ""
            text = path.read_text().replace('encoding="utf-8"', 'encoding="utf-16"' if "16" in encoding else "")
            path.write_bytes((mark + text.replace('?xml version="1.0" ?>', '?xml version="1.0"?>')).encode(encoding))
    found = read_masks(root)
    assert found.keys() == truth.keys()
    assert all(np.array_equal(found[key], truth[key]) for key in truth)


def labelme(root: Path, label: str, encoding: str) -> None:
    for number in range(3):
        Image.new("RGB", (16, 12)).save(root / f"p{number}.png")
        shape = {"label": label, "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
        plain = {"shapes": [shape], "imagePath": f"p{number}.png", "imageHeight": 12, "imageWidth": 16}
        (root / f"p{number}.json").write_bytes(json.dumps(plain, ensure_ascii=False).encode(encoding))


@pytest.mark.parametrize("label", ["汽车", "道路标线", "行人"])
@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "gb18030"])
def test_gb_18030_is_read_and_reported(label: str, encoding: str, tmp_path: Path) -> None:
    labelme(tmp_path, label, encoding)
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), tmp_path)
    assert splits.labels.names == ("background", label)
    assert "read as GB 18030, since they are not UTF-8: 3 files (p0.json, p1.json, …)" in splits.notices


def test_an_annotation_file_in_gb_18030_may_be_named_itself(tmp_path: Path) -> None:
    labelme(tmp_path, "汽车", "gb18030")
    config, base = read_request(tmp_path / "p1.json")
    assert config.data.annotations == "p1.json"
    _, found = read_dataset(config.data.model_copy(update={"images": "p1.png"}), base, base)
    assert [record.id for record in found.layout.records] == ["p1"]


@pytest.mark.parametrize("label", ["Straße", "café", "Bäume", "ñandú", "naïve", "Grüße"])
def test_latin_1_is_not_taken_for_chinese_and_its_files_are_named(label: str, tmp_path: Path) -> None:
    labelme(tmp_path, label, "latin-1")
    with pytest.raises(UnicodeDecodeError):
        decode(label.encode("latin-1"))
    with pytest.raises(DataError) as error:
        opened(tmp_path)
    assert re.search(
        r"found 3 loose images; annotations of no known format, 3 files \(p0\.json, p1\.json, …\): p0\.json is text in"
        r" another encoding, such as Latin-1 or Windows-1252 \(byte 0x.. at \d+\)\.",
        str(error.value),
    )
    with pytest.raises(
        MaskError, match=r"p0\.json: expected a JSON file in UTF-8, found text in another.* Save it as UTF-8"
    ):
        open_data(DataConfig(format="labelme"), tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("ann.json", '{"images": [', "ann.json: Expecting value"),
        ("ann.xml", "<annotations><image", "ann.xml: unclosed token"),
        ("ann.json", "{}", ""),
    ],
)
def test_annotations_that_no_format_recognises_are_named_beside_loose_images(
    tmp_path: Path, file: str, content: str, why: str
) -> None:
    Image.new("RGB", (16, 12)).save(tmp_path / "a.png")
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError) as error:
        opened(tmp_path)
    assert f"found 1 loose image; annotations of no known format, 1 file ({file}){': ' if why else ''}{why}" in str(
        error.value
    )


def test_the_yaml_and_lists_of_another_format_are_named(tmp_path: Path, written: Callable[[str], Path]) -> None:
    root = copied(written("coco"), tmp_path)
    (root / "yolo.yaml").write_text("train: images\nnames: [car]\n")
    (root / "train.txt").write_text("\n".join(NAMES))
    (root / "recipe.yaml").write_text("data: {format: coco}\ntrain: {steps: 5}\n")  # one of pixelwise
    assert unused(root) == ["not used: 2 files (1 .txt: train.txt; 1 .yaml: yolo.yaml)"]


def test_many_files_are_searched_in_no_time(tmp_path: Path) -> None:
    """A hundred thousand files are compared by their names, once each."""
    import time

    from pixelwise.formats.dataset_root import DatasetRoot
    from pixelwise.formats.records import Layout, Record
    from pixelwise.formats.unused import describe_files, find_unused

    dataset = DatasetRoot(tmp_path, tmp_path, DataConfig())
    files = tuple(tmp_path / f"{number}.{suffix}" for number in range(50_000) for suffix in ("jpg", "txt"))
    dataset.__dict__["files"] = files
    records = tuple(Record(path.stem, path, path) for path in files[:50_000:2])
    start = time.perf_counter()
    rest = find_unused(dataset, Layout("x", {"pool": records}))
    assert time.perf_counter() - start < 5
    assert len(rest) == 75_000
    assert (
        describe_files(rest, tmp_path)
        == "75000 files (50000 .txt: 0.txt, 1.txt, …; 25000 .jpg: 25000.jpg, 25001.jpg, …)"
    )
