"""Volumes that are read whole are the stacks of their slices."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.formats.test_dicom import COLUMNS, ROWS, SLICES, label_volume, series
from tests.formats.test_nifti import pairs, volume

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.datasets.fingerprint import class_thickness, fingerprint
from pixelwise.formats.reading import image_size
from pixelwise.labels import Labels


def opened(root: Path, volumes: str, **config: object) -> DataSplits:
    section = {"split": {"val": 0, "test": 0}, "volumes": volumes, **config}
    return open_data(DataConfig.model_validate(section), root)


AFFINES = [
    np.diag([1.0, 1, 3, 1]),
    np.diag([-1.0, 2, 3, 1]),
    np.array([[0, 0, 2.0, 5], [-1, 0, 0, 6], [0, 1.5, 0, 7], [0, 0, 0, 1]]),
    np.array([[0.9, 0.1, 0, -3], [-0.1, 0.9, 0.05, 2], [0, -0.05, 1.1, 9], [0, 0, 0, 1]]),
]


@pytest.mark.parametrize("affine", AFFINES, ids=lambda affine: str(nibabel.aff2axcodes(affine)))
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 1), (1, 1, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_whole_volume_is_the_stack_of_its_slices(
    tmp_path: Path, affine: np.ndarray, shape: tuple[int, int, int], suffix: str
) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        volume(tmp_path / "images" / f"{name}{suffix}", rng.integers(-900, 900, shape).astype(np.int16), affine)
        volume(tmp_path / "labels" / f"{name}{suffix}", rng.integers(0, 3, shape).astype(np.uint8), affine)
    labels = {"labels": ["x", "y", "z"]}
    slices, whole = opened(tmp_path, "slices", **labels).train, opened(tmp_path, "whole", **labels).train
    assert slices is not None
    assert whole is not None
    assert [record.id for record in whole.records] == ["a", "b"]
    for k, name in enumerate("ab"):
        sample = whole.read(k)
        own = [slices.read(i) for i, record in enumerate(slices.records) if record.id.startswith(f"{name}/")]
        np.testing.assert_array_equal(sample.image, np.stack([one.image for one in own], axis=1))
        np.testing.assert_array_equal(sample.mask, np.stack([one.mask for one in own]))  # type: ignore[type-var,arg-type]
        assert sample.image.shape == image_size(whole.records[k])
        assert sample.grid.spacing[1:] == own[0].grid.spacing
        # The oracle: nibabel's affine takes each voxel, found by its value, to the same place.
        source = nibabel.load(tmp_path / "images" / f"{name}{suffix}")
        values = np.asarray(source.dataobj)
        for place in ((0, 0, 0), tuple(n - 1 for n in sample.image.shape[1:])):
            value = sample.image[0][place]
            spots = np.argwhere(values == value)
            world = sample.grid.to_world(np.array([place], float))[0]
            assert any(np.allclose(world, (affine @ (*spot, 1))[:3]) for spot in spots)


def test_a_series_is_the_stack_of_its_files(tmp_path: Path) -> None:
    series(tmp_path / "ct")
    label_volume(tmp_path / "seg.nii.gz", "RAS")
    slices, whole = (opened(tmp_path, volumes).train for volumes in ("slices", "whole"))
    assert slices is not None
    assert whole is not None
    assert len(slices) == SLICES
    assert len(whole) == 1
    sample, own = whole.read(0), [slices.read(k) for k in range(SLICES)]
    assert sample.image.shape == (1, SLICES, ROWS, COLUMNS) == image_size(whole.records[0])
    np.testing.assert_array_equal(sample.image, np.stack([one.image for one in own], axis=1))
    np.testing.assert_array_equal(sample.mask, np.stack([one.mask for one in own]))  # type: ignore[type-var,arg-type]
    assert sample.grid.unit == "mm"
    assert sample.grid.spacing == pytest.approx((2.5, 0.8, 0.6))
    assert sample.grid.pixel_size == pytest.approx(2.5 * 0.8 * 0.6)


def test_volumes_are_divided_and_counted_as_volumes(tmp_path: Path) -> None:
    splits = opened(pairs(tmp_path, "a b c d e"), "whole", split={"val": 0.4, "test": 0})
    assert splits.description["images"] == {"train": 3, "val": 2}
    assert (
        "5 volumes are read whole, as stacks of axial slices (3×1×1 mm between slices, rows, columns)" in splits.notices
    )


def test_the_hash_depends_on_every_file(tmp_path: Path) -> None:
    train = opened(pairs(tmp_path, "a b"), "whole").train
    assert train is not None
    before = train.hash()
    assert train.hash() == before
    volume(tmp_path / "images/a.nii.gz", np.ones((6, 5, 4), np.int16))
    assert train.hash() != before


def test_the_fingerprint_of_whole_volumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, gain in (("a", 1), ("b", 8)):
        values = np.where(rng.random((6, 8, 4)) < 0.5, 0, 100 * gain)
        ids = np.zeros((6, 8, 4), np.uint8)
        ids[..., 2:] = 1
        volume(tmp_path / "images" / f"{name}.nii.gz", values.astype(np.int16))
        volume(tmp_path / "labels" / f"{name}.nii.gz", ids)
    train = opened(tmp_path, "whole").train
    assert train is not None
    facts = fingerprint(train)
    assert facts.sizes == ((4, 8, 6),) * 3
    assert facts.spacing == (3.0, 1.0, 1.0)
    assert facts.pixel_counts == (192, 192)
    assert facts.contrast_ratio == pytest.approx(8, rel=0.05)
    assert facts.depth_spread == pytest.approx(1)
    assert facts.row_spread == pytest.approx(0)
    assert facts.column_spread == pytest.approx(0)


def test_the_thickness_of_a_plate() -> None:
    mask = np.zeros((20, 30, 30), np.uint8)
    mask[8:11] = 1
    background, plate = class_thickness(mask, Labels(("a", "b")))
    assert plate == pytest.approx(3)
    assert background == pytest.approx(17)
