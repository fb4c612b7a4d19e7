"""Networks with three dimensions, from NIfTI volumes to predictions in NIfTI."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pixelwise
from pixelwise.config import load_config
from pixelwise.errors import ConfigError, DataError, UsageError
from pixelwise.training import checkpoint, loop
from pixelwise.training.runlog import read_log

# Voxels along right, front and head, with their sizes: odd sides, smaller than a crop, one slice, thick slices.
SHAPES = [((17, 13, 9), (1.0, 1.0, 3.0)), ((12, 15, 5), (1.0, 1.0, 3.0)), ((11, 12, 1), (1.2, 1.0, 3.0))]
SHAPES += [((14, 14, 12), (1.0, 1.0, 1.5)), ((16, 9, 8), (0.7, 1.4, 3.0)), ((13, 17, 7), (1.0, 1.0, 3.1))]
TINY = (
    "model.dimensions=3",
    "model.features=[4,8]",
    "train.crop=[8,12,12]",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.channels_last=false",
    "train.validations=2",
    "evaluate.report=false",
)


def write_volumes(root: Path, classes: int = 3, gain: float = 1000.0) -> Path:
    """Draw balls in millimetres, brighter by class, each volume with its own scale of values."""
    rng = np.random.default_rng(0)
    for k, (shape, spacing) in enumerate(SHAPES):
        places = np.indices(shape) * np.reshape(spacing, (3, 1, 1, 1))
        mask = np.zeros(shape, np.uint8)
        for label in range(1, classes):
            at = rng.uniform(0.2, 0.8, 3) * shape * spacing
            mask[((places - at[:, None, None, None]) ** 2).sum(0) < 4.0**2] = label
        values = (mask * 3 + rng.normal(size=shape)) * gain ** (k % 2)
        affine = np.diag([-spacing[0], spacing[1], spacing[2], 1])
        for folder, array in (("images", values.astype(np.float32)), ("labels", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / f"case_{k}.nii.gz")
    names = json.dumps({str(k): f"organ_{k}" for k in range(classes)})
    (root / "dataset.json").write_text(f'{{"labels": {names}}}')
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    pixelwise.train(data, out=out, steps=8, overrides=TINY)
    return out


def test_the_configuration_says_what_was_chosen_and_why(run: Path) -> None:
    config = load_config(run / "config.yaml")
    assert (config.model.name, config.model.dimensions, config.data.volumes) == ("unet", 3, "whole")
    assert (config.model.intensity, config.model.spacing) == ("image", [3.0, 1.0, 1.0])
    assert config.model.flat >= 1  # type: ignore[operator]
    text = (run / "config.yaml").read_text()
    assert "each volume has its own scale, as in MR" in text
    assert re.search(r"spacing: \[3\.0, 1\.0, 1\.0\]  # median of 5 training volumes, mm; others are resampled", text)


def test_the_model_folder_says_how_volumes_are_prepared(run: Path) -> None:
    card = json.loads((run / "model" / "model.json").read_text())
    assert (card["dimensions"], card["intensity"], card["spacing"]) == (3, "image", [3.0, 1.0, 1.0])
    assert len(card["tile"]) == 3
    readme = (run / "model" / "README.md").read_text()
    assert 'mask = model.predict("volume.nii.gz").mask  # (D, H, W) class indices' in readme
    assert "Volumes with 1 band of any type as raw pixel values" in readme
    assert "each of them is brought to mean 0 and standard deviation 1 per band" in readme
    assert "resampled to 3.0 × 1.0 × 1.0 mm between slices, rows and columns" in readme


def test_the_scores_of_training_and_evaluation_are_equal(run: Path) -> None:
    trained = json.loads((run / "scores.json").read_text())
    assert trained["images"] == 1
    again = pixelwise.evaluate(run, run / "config.yaml", split="val", metrics=["surface"])
    assert again.scores.miou.value == trained["miou"]
    assert again.scores.images == 1
    assert "surface distances in mm" in again.scores.convention


def test_a_folder_is_evaluated_by_volumes(run: Path, data: Path) -> None:
    """The data set itself does not say how volumes are read; the model does."""
    scores = pixelwise.evaluate(run, data, split="train", metrics=[]).scores
    assert scores.images == 5


def test_predictions_have_the_voxels_of_their_volume(run: Path, data: Path, tmp_path: Path) -> None:
    model = pixelwise.load(run)
    result = pixelwise.predict(model, [str(data / "images")], out=tmp_path / "out")
    assert not result.failed
    for k, (shape, _) in enumerate(SHAPES):
        source = nibabel.load(data / "images" / f"case_{k}.nii.gz")
        mask = nibabel.load(tmp_path / "out" / "masks" / f"case_{k}.nii.gz")
        assert mask.shape == shape
        np.testing.assert_array_equal(mask.affine, source.affine)
        assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_predictions_do_not_depend_on_the_scale_of_the_values(run: Path) -> None:
    model = pixelwise.load(run)
    image = np.random.default_rng(3).normal(size=(1, 6, 12, 13)).astype(np.float32)
    one, other = model.predict(image), model.predict((image * 3000 + 500).astype(np.float64))
    assert (one.mask == other.mask).mean() > 0.999
    assert (model.predict(image[0]).mask == one.mask).all()


def test_volumes_are_stacked_as_in_training_whatever_their_spacing(run: Path, tmp_path: Path) -> None:
    """By its own spacing, this volume would be cut across the columns."""
    values = np.random.default_rng(3).normal(size=(6, 12, 13)).astype(np.float32)
    paths = []
    for name, spacing in (("as_trained", (1.0, 1.0, 3.0)), ("coarse_columns", (3.5, 1.0, 3.0))):
        paths.append(tmp_path / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1])), paths[-1])
    model = pixelwise.load(run)
    assert model.spec.across == "axial"
    axial = pixelwise.load(run).with_settings(spacing=None)
    masks = [axial.predict(path).mask for path in paths]
    assert masks[0].shape == masks[1].shape == (13, 12, 6)
    np.testing.assert_array_equal(*masks)


def test_large_volumes_are_predicted_in_tiles(run: Path) -> None:
    image = np.random.default_rng(3).normal(size=(1, 9, 40, 50)).astype(np.float32)
    tiled = pixelwise.load(run).with_settings(tile=(8, 16, 16), overlap=0.5)
    whole = pixelwise.load(run).with_settings(tile=None)
    assert (tiled.predict(image).mask == whole.predict(image).mask).mean() > 0.8


class StoppedError(Exception):
    """As if the process had ended."""


@pytest.mark.parametrize("stop", [2, 7])
def test_a_stopped_run_resumes_bit_for_bit(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)  # one after each step

    def listener(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == stop:
            raise StoppedError

    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        pixelwise.train(data, out=out, steps=8, overrides=TINY, listener=listener)
    pixelwise.train(data, out=out, steps=8, overrides=TINY)
    assert any(event["event"] == "resume" for event in read_log(out / "log.jsonl"))
    one, other = (load_file(each / "model" / "model.safetensors") for each in (run, out))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    newest = [load_file(checkpoint.checkpoints(each / "checkpoints")[-1]) for each in (run, out)]
    assert all(torch.equal(newest[0][key], newest[1][key]) for key in newest[0])


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    data = write_volumes(tmp_path / "data", classes)
    pixelwise.train(data, out=tmp_path / "run", steps=2, overrides=(*TINY, "evaluate.metrics=[]"))
    assert pixelwise.load(tmp_path / "run").labels.num_classes == classes


def test_whole_volumes_are_chosen_by_either_key(data: Path, tmp_path: Path) -> None:
    settings = (*TINY[1:], "data.volumes=whole", "evaluate.metrics=[]")
    pixelwise.train(data, out=tmp_path / "run", steps=1, overrides=settings)
    assert load_config(tmp_path / "run" / "config.yaml").model.dimensions == 3
    with pytest.raises(ConfigError, match=r"model.dimensions: expected one that fits data.volumes=slices, found 3"):
        pixelwise.train(data, out=tmp_path / "other", steps=1, overrides=(*TINY, "data.volumes=slices"))


def test_images_are_no_volumes(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected volumes \(NIfTI or DICOM\) for a network with three dimensions"):
        pixelwise.train(discs, out=tmp_path / "run", steps=1, overrides=TINY)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.crop=[8,8]",
            r"train.crop: expected \(depth, height, width\), as for model.dimensions=3, found \[8, 8\]",
        ),
        ("model.spacing=[1,1]", r"model.spacing: expected \(depth, height, width\)"),
        ("model.stem=2", "model.stem: expected 1 in three dimensions, found 2"),
        ("train.copies=3", "train.copies: expected a network whose features can be stored"),
    ],
)
def test_settings_for_images_are_refused(data: Path, tmp_path: Path, override: str, message: str) -> None:
    more = ("train.freeze=encoder",) if "copies" in override else ()
    with pytest.raises(ConfigError, match=message):
        pixelwise.train(data, out=tmp_path / "run", steps=1, overrides=(*TINY, *more, override))


@pytest.mark.parametrize("key", ["augment.elastic", "augment.flip_depth", "model.spacing"])
def test_settings_for_volumes_are_refused_for_images(discs: Path, tmp_path: Path, key: str) -> None:
    value = "[1,1,1]" if key == "model.spacing" else "0.5"
    settings = ("model.features=[4,8]", "train.crop=[32,32]", f"{key}={value}")
    with pytest.raises(ConfigError, match=f"{key}: expected (0|none) in two dimensions"):
        pixelwise.train(discs, model="unet", out=tmp_path / "run", steps=1, overrides=settings)


def test_a_single_volume_cannot_be_divided(tmp_path: Path) -> None:
    write_volumes(tmp_path)
    for k in range(1, len(SHAPES)):
        for folder in ("images", "labels"):
            (tmp_path / folder / f"case_{k}.nii.gz").unlink()
    with pytest.raises(DataError):
        pixelwise.train(tmp_path, out=tmp_path / "run", steps=1, overrides=TINY)


def test_a_network_for_images_is_scored_by_volumes_slice_by_slice(data: Path, tmp_path: Path) -> None:
    settings = ("model.features=[4,8]", "train.crop=[12,12]", "evaluate.report=false", "data.volumes=slices")
    pixelwise.train(data, model="unet", out=tmp_path / "run", steps=2, overrides=settings)
    by_slices = pixelwise.evaluate(tmp_path / "run", data, split="train")
    by_volumes = pixelwise.evaluate(tmp_path / "run", data, split="train", overrides=["data.volumes=whole"])
    assert by_volumes.scores.images == 5
    model = pixelwise.load(tmp_path / "run")
    image = np.random.default_rng(0).normal(size=(1, 4, 12, 13)).astype(np.float32)
    volume = model.predict(image, probabilities=True)
    apart = [model.predict(image[:, k], probabilities=True) for k in range(4)]
    np.testing.assert_array_equal(volume.mask, np.stack([one.mask for one in apart]))
    np.testing.assert_array_equal(volume.probabilities, np.stack([one.probabilities for one in apart], axis=1))  # type: ignore[type-var,arg-type]
    assert by_slices.scores.images > 5


def test_three_dimensions_are_not_exported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a network with two dimensions, found one with three"):
        pixelwise.export(run, format="onnx", out=tmp_path / "model.onnx")


def test_check_and_convert_read_slices(data: Path, run: Path, tmp_path: Path) -> None:
    assert sum(pixelwise.check(run / "config.yaml").splits.values()) > len(SHAPES)
    with pytest.raises(UsageError, match="volumes are checked slice by slice"):
        pixelwise.check(run / "config.yaml", model=run)
    pixelwise.convert(run / "config.yaml", to="masks", out=tmp_path / "converted")
    assert len(list((tmp_path / "converted").rglob("*.tif"))) > len(SHAPES)
