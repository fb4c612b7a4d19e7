"""`measure` on masks of other tools that need a rule, and on files that are no masks: what is counted, and what is advised."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.imageio.dicom_objects import write_series

import pixelwise
from pixelwise.errors import ConfigError, DataError, MaskError, UsageError
from pixelwise.imageio.dicom_seg_writing import write_dicom_seg
from pixelwise.labels import Labels

MASK = np.zeros((40, 50), np.uint8)
MASK[5:20, 5:30], MASK[25:35, 10:40] = 1, 2
ADVISED = re.compile(r"--set '(data\.mask_values=\{[^']*\})'")


def save(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, values)
    elif path.suffix == ".gz":
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    else:
        Image.fromarray(values).save(path)
    return path


def counts(path: Path, *overrides: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in pixelwise.measure(path, overrides=overrides).classes:
        found[each.name] = found.get(each.name, 0) + each.pixels
    return found


def refused(path: Path) -> str:
    with pytest.raises(MaskError) as error:
        pixelwise.measure(path)
    return str(error.value)


def smoothed() -> NDArray[np.uint8]:
    return (gaussian_filter((MASK > 0).astype(float), 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.jpg", "soft.png", "negative.tif", "negative.nii.gz"])
def test_the_advice_for_masks_that_need_a_rule_works_when_it_is_typed(tmp_path: Path, name: str) -> None:
    signed = MASK.astype(np.int16) - 1
    values = {"a.jpg": (MASK > 0) * np.uint8(255), "soft.png": smoothed(), "negative.tif": signed}
    path = save(tmp_path / name, values.get(name, np.stack([signed] * 3)))
    advised = ADVISED.search(refused(path))
    assert advised is not None
    found = counts(path, advised[1])
    if name.startswith("negative"):
        slices = 3 if name.endswith("gz") else 1
        assert found == {"class 0": 375 * slices, "class 1": 300 * slices}
    else:
        assert found["foreground"] == pytest.approx(675, abs=10)
        assert found["background"] + found["foreground"] == MASK.size


@pytest.mark.parametrize("sigma", [0, 1, 4])
@pytest.mark.parametrize("kind", ["grey.png", "dark.png", "deep.tif", "colour.png", "colour.jpg", "scan.nii.gz"])
def test_images_are_no_masks(tmp_path: Path, kind: str, sigma: float) -> None:
    rng = np.random.default_rng(1)
    smooth = gaussian_filter(rng.normal(0, 1, (90, 90, 3)), (sigma, sigma, 0))
    light = np.clip(128 + 45 * smooth / smooth.std(), 0, 255)
    light = np.clip(light + rng.normal(0, 3, light.shape), 0, 255).astype(np.uint8)
    values: Any = light[..., 0]
    values = {"deep.tif": values * np.uint16(200), "dark.png": values // 3}.get(kind, values)
    values = light if kind.startswith("colour") else np.stack([values] * 3) if kind == "scan.nii.gz" else values
    assert re.search("found (an image|more than|colours|lossy)", refused(save(tmp_path / kind, values)))


def test_a_volume_of_several_bands_is_refused_and_not_measured_in_part(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.ones((5, 6, 7, 3), np.uint8))
    assert "expected one band of class ids, found 3 bands" in refused(path)


def test_numbered_objects_are_one_class_with_a_region_each(tmp_path: Path) -> None:
    objects = np.zeros((60, 60), np.uint8)
    for k in range(36):
        objects[k // 6 * 10 + 1 : k // 6 * 10 + 8, k % 6 * 10 + 1 : k % 6 * 10 + 8] = k + 1
    for name, most in (("a", 36), ("b", 20)):
        save(tmp_path / f"m/{name}.png", np.where(objects > most, 0, objects).astype(np.uint8))
    result = pixelwise.measure(tmp_path / "m")
    assert counts(tmp_path / "m") == {"background": 7200 - 56 * 49, "object": 56 * 49}
    assert sum(region.class_name == "object" for region in result.regions) == 56
    assert "the masks number objects" in result.notices[0]
    assert len(counts(tmp_path / "m", "data.mask_values={objects: false}")) == 37
    assert counts(tmp_path / "m/a.png", "data.mask_values={objects: true}")["object"] == 36 * 49
    many = save(tmp_path / "many.tif", np.arange(1600, dtype=np.uint16).reshape(40, 40).repeat(3, 0).repeat(3, 1))
    advised = ADVISED.search(refused(many))
    assert advised is not None
    assert counts(many, advised[1])["object"] == 1599 * 9


def test_many_classes_and_many_objects_are_no_image(tmp_path: Path) -> None:
    blocks = np.arange(400, dtype=np.uint16).reshape(20, 20).repeat(6, 0).repeat(6, 1)
    assert len(counts(save(tmp_path / "a.tif", blocks))) == 399  # without 255
    save(tmp_path / "v/a.nii.gz", np.stack([blocks] * 2))
    assert sum(counts(tmp_path / "v").values()) == 2 * (blocks.size - 36)


def test_an_unknown_id_is_named_whatever_the_format(tmp_path: Path) -> None:
    for name, values in (("p/a.png", MASK), ("v/a.nii.gz", np.stack([MASK] * 2))):
        path = save(tmp_path / name, values)
        (path.parent / "labels.yaml").write_text("names: [soil, wheat]\n")
        assert re.search("class ids 0, 1, found 2 in .00 pixels. Add class 2 to labels.yaml", refused(path))
        (path.parent / "labels.yaml").write_text("names: [soil, wheat, rye]\n")
        assert counts(path)["rye"] == int((values == 2).sum())


def test_a_series_is_no_mask_and_with_its_segmentation_a_data_set(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", (4, 6, 5))
    for path in (tmp_path / "ct", files[0]):
        assert "expected a DICOM segmentation (SEG), found another DICOM object" in refused(path)
    mask = np.random.default_rng(0).integers(0, 2, (4, 6, 5)).astype(np.uint8)
    write_dicom_seg(tmp_path / "ct/seg.dcm", mask, Labels(("background", "organ")), files)
    for path in (tmp_path / "ct", tmp_path / "ct/seg.dcm"):
        assert counts(path) == {"background": int((mask == 0).sum()), "organ": int(mask.sum())}


@pytest.mark.parametrize("text", ["foo.bar=1", "train.steps=1", "data.volumes=whole", "data.maskvalues=1"])
def test_settings_without_effect_are_errors(tmp_path: Path, text: str) -> None:
    path = save(tmp_path / "a.png", MASK)
    with pytest.raises(UsageError, match=r"found (a key without effect here|unknown key)"):
        pixelwise.measure(path, overrides=[text])
    with pytest.raises(ConfigError, match=r"data\.mask_values"):
        pixelwise.measure(path, overrides=["data.mask_values=3"])


def test_a_folder_without_masks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text("names: [a]\n")
    with pytest.raises(DataError, match="expected predictions, a data set, or mask files"):
        pixelwise.measure(tmp_path)
