"""Contract of annotation formats: written data is recognised, and masks are read back unchanged or the loss is documented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import open_data
from pixelwise.formats import FORMATS, find_format
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels

WRITERS = [name for name, one in FORMATS.items() if one.write is not None]
LABELS = (
    Labels(("background", "road", "tree")),
    Labels(("sky", "road", "tree"), (4, 0, 9)),  # without background
    Labels(("_background_", "road", "tree")),  # LabelMe's name
)
ROUNDS, EACH = 51, 20  # 1020 masks a writer
MASKS = st.lists(
    arrays(
        np.uint8,
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements=st.sampled_from([0, 1, 2, 255]),
    ),
    min_size=EACH,
    max_size=EACH,
)


def lay(folder: Path, masks: list[np.ndarray], labels: Labels) -> DataConfig:
    """Write images and masks in folders of splits; some names have folders, spaces and non-ASCII letters."""
    for number, mask in enumerate(masks):
        part = ("train", "val", "test")[number % 3]
        name = (f"a {number}", f"straße/{number}", f"train_{number}.v2")[number // 3 % 3]
        image, target = folder / part / "images" / f"{name}.png", folder / part / "masks" / f"{name}.png"
        for path in (image, target):
            path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (*mask.shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
        write_mask(target, mask, labels)
    return DataConfig.model_validate({"labels": labels.to_dict(), "split": {"val": 0, "test": 0}})


@pytest.mark.parametrize("labels", LABELS, ids=["with background", "without", "with another name for it"])
@pytest.mark.parametrize("name", WRITERS)
def test_masks_are_read_back_or_the_loss_is_documented(name, labels, tmp_path_factory):
    rounds = ROUNDS // len(LABELS)

    @settings(max_examples=rounds, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(MASKS)
    def come_back(masks):
        folder = tmp_path_factory.mktemp("masks")
        splits = open_data(lay(folder, masks, labels), folder)
        done = convert(splits, FORMATS[name], tmp_path_factory.mktemp(name))
        assert done.images == EACH
        assert done.pixels == sum(mask.size for mask in masks)
        if not FORMATS[name].loses:
            assert done.changed_pixels == 0, done.worst

    come_back()


@pytest.mark.parametrize("name", WRITERS)
def test_written_data_sets_are_recognised_with_their_splits_and_images(name, tmp_path):
    labels = LABELS[0]
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.integers(0, 3, (4, 5)), np.ones((8, 8))).astype(np.uint8) for _ in range(6)]
    (tmp_path / "in").mkdir()
    splits = open_data(lay(tmp_path / "in", masks, labels), tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    done = convert(splits, FORMATS[name], out)
    (out / "data.yaml").unlink()  # the rest is what the other tool would write
    config = DataConfig.model_validate({"labels": labels.to_dict(), "split": {"val": 0, "test": 0}})
    assert find_format(DatasetRoot(out, out, config))[0].name == name
    back = open_data(config, out)
    assert {part.name: len(part) for part in back} == {"train": 2, "val": 2, "test": 2}
    for part, own in zip(back, splits, strict=True):
        images = sorted(record.image.read_bytes() for record in part.records)
        assert images == sorted(record.image.read_bytes() for record in own.records)
    assert done.changed_pixels == 0 or FORMATS[name].loses


@pytest.mark.parametrize("name", FORMATS)
def test_detection_rejects_empty_folders_and_does_not_raise_on_noise(name, tmp_path):
    rng = np.random.default_rng(0)
    assert FORMATS[name].detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None
    for suffix in ("json", "xml", "txt", "yaml", "yml", "csv", "png"):
        (tmp_path / f"noise.{suffix}").write_bytes(rng.bytes(200))
        (tmp_path / f"empty.{suffix}").touch()
        (tmp_path / f"list.{suffix}").write_text("[1, [2], {}]")
    assert FORMATS[name].detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None


@pytest.mark.parametrize("name", WRITERS)
def test_the_hash_of_a_data_set_does_not_depend_on_its_place(name, tmp_path):
    masks = [np.kron(np.arange(6).reshape(2, 3) % 3, np.ones((8, 8))).astype(np.uint8)] * 3
    config = lay(tmp_path / "in", masks, LABELS[0])
    out = tmp_path / "out"
    out.mkdir()
    convert(open_data(config, tmp_path / "in"), FORMATS[name], out)
    before = [split.hash() for split in open_data(DataConfig(), out)]
    assert len(before) == 3
    assert before == [split.hash() for split in open_data(DataConfig(), out.rename(tmp_path / "moved"))]
