"""`measure` on masks of any tool and on data sets, against counts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tests.api.test_measure import predicted
from tests.imageio.dicom_files import series
from tests.inference.backends import predictor_of

import pixelwise
from pixelwise.api.predicting import predict_files
from pixelwise.config import read_request
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import DataError, MaskError
from pixelwise.formats import FORMATS
from pixelwise.labels import Labels


def write(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def counts(result: Any) -> dict[str, dict[str, int]]:
    """Return the pixels by image and class."""
    found: dict[str, dict[str, int]] = {}
    for each in result.classes:
        found.setdefault(each.image, {})[each.name] = each.pixels
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_ids_of_mask_files_without_names(tmp_path: Path, seed: int, suffix: str) -> None:
    rng = np.random.default_rng(seed)
    ids = np.unique(rng.choice([0, 1, 3, 20, 100, 255], 4))
    masks = [rng.choice(ids, (int(rng.integers(1, 9)), 5)).astype(np.uint8) for _ in range(2)]
    paths = [write(tmp_path / "m" / f"{number}{suffix}", mask) for number, mask in enumerate(masks)]
    result = pixelwise.measure(tmp_path / "m")
    present = {int(each) for mask in masks for each in np.unique(mask)}
    expected = present - {255} if present - {0, 255} else present
    assert counts(result) == {
        str(path): {f"class {k}": int((mask == k).sum()) for k in expected}
        for path, mask in zip(paths, masks, strict=True)
    }
    assert all(each.size.low is None and "not predictions" in str(each.size.note) for each in result.classes)
    alone = pixelwise.measure(paths[0], spacing="2mm")
    assert [each.size.value for each in alone.classes] == [4.0 * each.pixels for each in alone.classes]


def test_a_labels_file_beside_masks_names_their_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "m/a.png", np.array([[0, 1, 1, 255]], np.uint8))
    (tmp_path / "m/labels.yaml").write_text("names: [soil, wheat]\n")
    assert counts(pixelwise.measure(tmp_path / "m")) == {str(path): {"soil": 1, "wheat": 2}}


def test_every_mask_of_predict_is_measured_alone_as_with_its_list(tmp_path: Path) -> None:
    folder = predicted(tmp_path)
    by_list = counts(pixelwise.measure(folder))
    alone = counts(pixelwise.measure(folder / "masks"))
    assert sorted(Path(name).name for name in alone) == sorted(Path(name).name for name in by_list)
    for name, found in by_list.items():
        ids = {"class 0": found["dark"], "class 7": found["bright"]}
        single = counts(pixelwise.measure(folder / "masks" / Path(name).name))
        (values,) = single.values()
        assert {key: value for key, value in values.items() if value} in (found, ids), name


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_segmentation_in_dicom_names_its_segments(tmp_path: Path, kind: str) -> None:
    series(tmp_path / "series", 4, StudyInstanceUID="1.2.826.1", FrameOfReferenceUID="1.2.826.2")
    labels = Labels(("background", "organ"))

    def organ(images: NDArray[Any]) -> NDArray[Any]:
        values = np.asarray(images, np.float32)[:, :1]
        return np.concatenate([np.full_like(values, 100), values], 1)

    predict_files(predictor_of(organ, labels, channels=1), [str(tmp_path / "series")], tmp_path / "out", dicom=kind)
    (with_list,) = counts(pixelwise.measure(tmp_path / "out")).values()
    (path,) = (tmp_path / "out" / "masks").glob("*.dcm")
    alone = pixelwise.measure(path)
    assert counts(alone) == {str(path): with_list}
    assert alone.classes[1].size.unit == "ml"


@pytest.mark.parametrize("to", [name for name in FORMATS if FORMATS[name].write is not None])
def test_every_format_of_data_sets_is_measured(tmp_path: Path, to: str) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        write(tmp_path / f"d/images/{number}.png", rng.integers(0, 255, (16, 24, 3), dtype=np.uint8))
        mask = np.zeros((16, 24), np.uint8)
        mask[4 : 6 + number, 3:20] = 1
        write(tmp_path / f"d/masks/{number}.png", mask)
    (tmp_path / "d/labels.yaml").write_text("names: [soil, wheat]\n")
    pixelwise.convert(tmp_path / "d", to=to, out=tmp_path / "c")
    config, base = read_request(tmp_path / "c")
    splits = open_data(config.data, base)
    expected = {}
    for split in splits:
        for i, record in enumerate(split.records):
            truth = split.read(i).truth(split.labels.ignore_index)
            assert truth is not None
            expected[f"{split.name}/{record.id}"] = {
                name: int((truth == k).sum()) for k, name in enumerate(split.labels.names)
            }
    result = pixelwise.measure(tmp_path / "c")
    assert counts(result) == expected
    assert len(expected) == 4
    assert sum(values["wheat"] for values in expected.values()) == 17 * (2 + 3 + 4 + 5)
    assert {each.size.note for each in result.classes} == {"no interval: the masks are ground truth"}


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected predictions, a data set, or mask files"):
        pixelwise.measure(tmp_path / "empty")
    with pytest.raises(DataError, match=r"found nothing\. Check the path"):
        pixelwise.measure(tmp_path / "missing")
    (tmp_path / "empty/predictions.json").write_text("{}")
    with pytest.raises(DataError, match="expected the list of predicted images"):
        pixelwise.measure(tmp_path / "empty")
    photo = write(tmp_path / "photo.png", np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    with pytest.raises(MaskError):
        pixelwise.measure(photo)
    many = write(tmp_path / "many.tif", np.arange(2000, dtype=np.uint16).reshape(40, 50))
    with pytest.raises(MaskError, match="more than 1,000 different values"):
        pixelwise.measure(many)
    fractions = write(tmp_path / "fractions.tif", np.full((3, 3), 0.5, np.float32))
    with pytest.raises(MaskError, match=r"fractions|whole numbers|class ids"):
        pixelwise.measure(fractions)


def test_a_data_set_without_masks_says_what_it_lacks(tmp_path: Path) -> None:
    write(tmp_path / "d/images/a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="mask"):
        pixelwise.measure(tmp_path / "d")
