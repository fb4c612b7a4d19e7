"""Large images are predicted block by block into cloud-optimised GeoTIFFs, and a stopped call is continued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.transform import Affine

from pixelwise.api.predicting import predict_files, scenes
from pixelwise.errors import Interrupted
from pixelwise.imageio.images import fill_invalid
from pixelwise.imageio.scene_writing import SceneWriter
from pixelwise.inference import predictor as predictors
from pixelwise.inference.layout import _intersect
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.reporting.overlay import overlay
from pixelwise.types import ModelSpec

LABELS = Labels(("dark", "mid", "bright"), ids=(0, 7, 9), ignore_ids=(255,))
TURNED = Affine(0.5, 0.1, 500_000, 0.1, -0.5, 5_600_000)


class Backend:
    """Classes by brightness, and by the place in the tile, so that overlapping tiles differ."""

    def __init__(self) -> None:
        self.spec = ModelSpec(LABELS, 3, tile=(64, 64), stride=4)
        self.calls = 0

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        self.calls += 1
        value = images[:, 0].astype(np.float32) / 60 + np.arange(images.shape[-1], dtype=np.float32) * 0.01
        return np.stack([2 - value, 1 - np.abs(value - 2), value - 2], 1)


def scene(path: Path, height: int = 300, width: int = 220, *, nodata: bool = True, **profile: Any) -> Path:
    """Write a tiled GeoTIFF of three bands whose upper left corner has no data."""
    values = np.random.default_rng(0).integers(1, 250, (3, height // 10, width // 10)).astype(np.uint8)
    values = values.repeat(10, 1).repeat(10, 2)
    if nodata:
        values[:, :90, :120] = 0
        profile["nodata"] = 0
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "transform": TURNED, "crs": "EPSG:32632"} | profile
    with rasterio.open(path, "w", "GTiff", width, height, 3, dtype="uint8", **options) as file:
        file.write(values)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict small images as scenes, in strips."""
    monkeypatch.setattr(scenes, "LARGE", 10_000)
    monkeypatch.setattr(scenes, "_PREVIEW", 100)
    monkeypatch.setattr(predictors, "_HELD_BYTES", 400_000)


def read(path: Path) -> tuple[NDArray[Any], Any]:
    with rasterio.open(path) as file:
        return file.read(), file.profile | {
            "colours": file.colormap(1) if file.count == 1 and path.parent.name == "masks" else None
        }


def test_a_scene_gets_the_mask_of_the_whole_image_with_its_geometry(tmp_path: Path) -> None:
    source = scene(tmp_path / "a.tif")
    result = predict_files(Predictor(Backend()), [str(source)], tmp_path / "out", confidence=True, probabilities=True)
    (entry,) = result.images
    assert not result.failed
    with rasterio.open(source) as file:
        image, valid = file.read(), file.dataset_mask() > 0
    whole = Predictor(Backend())(image, valid=valid, probabilities=True)
    mask, profile = read(tmp_path / "out" / entry["mask"])
    expected = np.array([0, 7, 9, 255], np.uint8)[np.minimum(whole.mask, 3)]
    np.testing.assert_array_equal(mask[0], np.where(valid, expected, 255))
    assert (profile["transform"], profile["crs"].to_epsg(), profile["nodata"]) == (TURNED, 32632, 255)
    assert profile["colours"][7][:3] == LABELS.colours[1]
    assert entry["shares"] == {name: pytest.approx(share, abs=1e-6) for name, share in whole.shares().items()}
    assert (entry["height"], entry["width"]) == (300, 220)
    assert entry["grid"]["unit"] == "m"
    assert entry["grid"]["crs"] == "EPSG:32632"
    assert whole.probabilities is not None
    probabilities, _ = read(tmp_path / "out" / entry["probabilities"])
    np.testing.assert_allclose(probabilities[:, valid] * 0.004, whole.probabilities[:, valid], atol=0.0021)
    confidence, _ = read(tmp_path / "out" / entry["confidence"])
    np.testing.assert_allclose(confidence[0][valid], whole.probabilities.max(0)[valid] * 100, atol=0.51)
    assert (confidence[0][~valid] == 255).all()
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("ignored", [(255,), ()])
def test_the_overlay_of_a_scene_is_small(tmp_path: Path, ignored: tuple[int, ...]) -> None:
    from PIL import Image

    backend, source = Backend(), scene(tmp_path / "a.tif")
    labels = Labels(LABELS.names, ids=LABELS.ids, ignore_ids=ignored)
    backend.spec = replace(backend.spec, labels=labels)
    (entry,) = predict_files(Predictor(backend), [str(source)], tmp_path / "out").images
    with rasterio.open(source) as file:
        image, valid = file.read(), file.dataset_mask() > 0
    mask = Predictor(backend)(image, valid=valid).mask
    expected = overlay(fill_invalid(image[:, ::3, ::3], valid[::3, ::3]), mask[::3, ::3], labels)
    with Image.open(tmp_path / "out" / entry["overlay"]) as shown:
        np.testing.assert_array_equal(np.asarray(shown), expected)


def test_what_is_said_about_the_progress(tmp_path: Path) -> None:
    said: list[str] = []
    source = scene(tmp_path / "a.tif")
    predict_files(Predictor(Backend()), [str(source)], tmp_path / "out", progress=lambda _, __, text: said.append(text))
    assert said[-2:] == [f"{source}: writing the result", str(source)]
    assert said[-3].startswith(f"{source}: 100%, ")
    assert said[-3].endswith(" million pixels per second, 0 min left")


@pytest.mark.parametrize("stop_after", [0, 1, 3, 7])
def test_an_interrupted_scene_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int) -> None:
    """Finished blocks are not computed again, and every file is that of an uninterrupted call."""
    source = scene(tmp_path / "a.tif")
    options = {"confidence": True}
    predict_files(Predictor(Backend()), [str(source)], tmp_path / "expected", **options)
    commits, commit = [0], SceneWriter.commit

    def stopping(writer: SceneWriter) -> None:
        if commits[0] == 2 * stop_after:
            raise KeyboardInterrupt
        commits[0] += 1
        commit(writer)

    with monkeypatch.context() as patch:
        patch.setattr(SceneWriter, "commit", stopping)
        with pytest.raises(Interrupted):
            predict_files(Predictor(Backend()), [str(source)], tmp_path / "out", **options)
    backend, predictor = Backend(), Predictor(Backend())
    blocks = predictor.blocks((300, 220), probabilities=True)
    needed = sum(
        any(_intersect(place, block) for block in blocks[stop_after:] if block.start[1:] == strip)
        for strip in {block.start[1:] for block in blocks}
        for place in predictor.layout((300, 220)).places
    )
    result = predict_files(Predictor(backend), [str(source)], tmp_path / "out", **options)
    assert backend.calls <= needed
    for name in ("masks/a.tif", "confidence/a.tif", "overlays/a.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    plain = json.loads((tmp_path / "expected" / "predictions.json").read_bytes())
    assert [*result.images] == plain["images"]


def test_a_scene_that_changed_meanwhile_is_predicted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scene(tmp_path / "a.tif")
    commits, commit = [0], SceneWriter.commit

    def stopping(writer: SceneWriter) -> None:
        commits[0] += 1
        if commits[0] == 4:
            raise KeyboardInterrupt
        commit(writer)

    with monkeypatch.context() as patch:
        patch.setattr(SceneWriter, "commit", stopping)
        with pytest.raises(Interrupted):
            predict_files(Predictor(Backend()), [str(source)], tmp_path / "out")
    scene(source, nodata=False)
    predict_files(Predictor(Backend()), [str(source)], tmp_path / "out")
    predict_files(Predictor(Backend()), [str(source)], tmp_path / "expected")
    assert (tmp_path / "out/masks/a.tif").read_bytes() == (tmp_path / "expected/masks/a.tif").read_bytes()


def test_a_scene_of_another_kind_fails_alone(tmp_path: Path) -> None:
    good, bad = scene(tmp_path / "a.tif"), tmp_path / "b.tif"
    with rasterio.open(bad, "w", "GTiff", 200, 200, 1, dtype="uint8", transform=TURNED) as file:
        file.write(np.ones((1, 200, 200), np.uint8))
    result = predict_files(Predictor(Backend()), [str(good), str(bad)], tmp_path / "out")
    assert [entry["file"] for entry in result.images] == [str(good)]
    assert "bands" in result.failed[0]["error"]


def test_a_large_image_without_georeference_gets_a_tiff(tmp_path: Path) -> None:
    path = tmp_path / "line-scan.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (2000, 110, 3), np.uint8), photometric="rgb")
    (entry,) = predict_files(Predictor(Backend()), [str(path)], tmp_path / "out").images
    assert entry["mask"] == "masks/line-scan.tif"
    assert tifffile.imread(tmp_path / "out" / entry["mask"]).shape == (2000, 110)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_small_images_have_a_confidence_too(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        scene(path, 60, 50, nodata=False)
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 50, 3), np.uint8)).save(path)
    (entry,) = predict_files(Predictor(Backend()), [str(path)], tmp_path / "out", confidence=True).images
    assert entry["confidence"] == f"confidence/a{suffix}"
    with Image.open(tmp_path / "out" / entry["confidence"]) as image:
        values = np.asarray(image)
    assert values.shape == (60, 50)
    known = values[values != 255]
    assert known.min() >= 33
    assert known.max() <= 100


def trained_at(spacing: float) -> Predictor:
    backend = Backend()
    backend.spec = replace(backend.spec, trained_spacing=(spacing, spacing), trained_unit="m")
    return Predictor(backend)


@pytest.mark.parametrize("size", [(300, 220), (60, 50)], ids=["scene", "image"])
def test_another_pixel_spacing_than_in_training_is_reported_or_resampled(tmp_path: Path, size: tuple[int, int]) -> None:
    source = scene(tmp_path / "a.tif", *size, nodata=False, transform=Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000))
    (plain,) = predict_files(trained_at(1.0), [str(source)], tmp_path / "plain").images
    (notice,) = plain["notices"]
    assert "expected pixels of about 1 × 1 m, as in training, found 0.5 × 0.5 m" in notice
    (entry,) = predict_files(trained_at(1.0), [str(source)], tmp_path / "out", resample=True).images
    assert "notices" not in entry
    with rasterio.open(source) as file:
        image = file.read()
    half = image.reshape(3, size[0] // 2, 2, size[1] // 2, 2).mean((2, 4)).round().astype(np.uint8)
    expected = trained_at(1.0)(half).mask.repeat(2, 0).repeat(2, 1)
    mask, profile = read(tmp_path / "out" / entry["mask"])
    assert mask.shape == (1, *size)
    assert profile["transform"] == Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000)
    ids = np.array([0, 7, 9])
    assert (mask[0] == ids[expected]).mean() > 0.9  # the filter is wider than the mean of 2 × 2 pixels
    similar = trained_at(0.6)
    assert "notices" not in predict_files(similar, [str(source)], tmp_path / "similar").images[0]


def test_images_of_unknown_spacing_are_not_resampled(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((30, 30, 3), np.uint8), photometric="rgb")
    (entry,) = predict_files(trained_at(1.0), [str(tmp_path / "a.tif")], tmp_path / "out", resample=True).images
    assert "not resampled, since the spacing of its pixels or of the training is unknown" in entry["notices"][0]


PROGRAM = """
import sys, time
from pathlib import Path
from pixelwise.api.predicting import predict_files, scenes
from pixelwise.inference import predictor as predictors
from pixelwise.inference.predictor import Predictor
from tests.api.test_scenes import Backend

scenes.LARGE, predictors._HELD_BYTES = 10_000, 400_000
say = lambda done, total, text: print(text, flush=True)
predict_files(Predictor(Backend()), [sys.argv[1]], Path(sys.argv[2]), confidence=True, overlays=False, progress=say)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_scene_that_is_killed_again_and_again_is_finished_with_the_same_bytes(tmp_path: Path, kills: int) -> None:
    """Killed after one or two more blocks each time, or while the result is copied."""
    size = (260 + 48 * kills, 110)
    source, out = scene(tmp_path / "a.tif", *size, nodata=False), tmp_path / "out"
    whole = Backend()
    rest = Backend()
    expected = predict_files(Predictor(whole), [str(source)], tmp_path / "expected", confidence=True, overlays=False)
    command = [sys.executable, "-c", PROGRAM, str(source), str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = [0]
    for number in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for _ in range(1 + number % 2):
                process.stdout.readline()
            process.kill()
        lines = [
            json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()[1:] if line.endswith("}")
        ]
        done.append(max(line["blocks"] for line in lines if "blocks" in line))
        assert [line["blocks"] for line in lines] == sorted({line["blocks"] for line in lines})
    assert done == sorted(done)
    assert done[-1] >= kills
    result = predict_files(Predictor(rest), [str(source)], out, confidence=True, overlays=False)
    assert rest.calls < whole.calls
    for name in ("masks/a.tif", "confidence/a.tif"):
        assert (out / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert result.images == expected.images
