"""`measure PREDICTIONS --truth LABELLED`: what is predicted, what is labelled, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.inference.backends import predictor_of

import pixelwise
from pixelwise.api.measuring.totals import estimate_truth
from pixelwise.api.predicting import predict_files
from pixelwise.errors import DataError, LabelsError, PairingError
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.measuring.grid_scale import grid_scale
from pixelwise.measuring.scale import AffineScale

POPULATION, LABELLED = 40, 14


@pytest.fixture
def survey(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Masks of 40 images, of which 14 are labelled: folders, and the true and predicted pixels of the classes (N, 2)."""
    rng = np.random.default_rng(0)
    truths = (rng.random((POPULATION, 20, 30)) < rng.uniform(0.1, 0.5, POPULATION)[:, None, None]).astype(np.uint8)
    predictions = truths * (rng.random(truths.shape) < 0.9).astype(np.uint8)
    chosen = rng.permutation(POPULATION)[:LABELLED]
    masks, labelled = tmp_path / "predicted", tmp_path / "labelled"
    for folder in (masks, labelled / "images", labelled / "masks"):
        folder.mkdir(parents=True)
    for number, mask in enumerate(predictions):
        Image.fromarray(mask).save(masks / f"{number:02}.png")
    for number in chosen:
        pixels = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(labelled / "images" / f"{number:02}.png")
        Image.fromarray(truths[number]).save(labelled / "masks" / f"{number:02}.png")
    (labelled / "labels.yaml").write_text("names: [ground, tree]\n")
    count = [np.stack([(each == k).sum((1, 2)) for k in (0, 1)], 1) for each in (truths, predictions)]
    return masks, labelled, count[0], count[1]


def test_the_total_is_that_of_the_difference_estimator(survey: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    masks, labelled, truth, predicted = survey
    report = estimate_truth(masks, labelled)
    chosen = [int(path.stem) for path in (labelled / "masks").iterdir()]
    tree = report.classes[1]
    expected = predicted[:, 1].sum() + POPULATION * (truth[chosen, 1] - predicted[chosen, 1]).mean()
    assert tree.total.value == pytest.approx(expected)
    assert tree.naive.value == predicted[:, 1].sum()
    assert (tree.name, tree.total.unit, tree.total.estimator) == ("tree", "px²", "difference estimator")
    assert tree.total.low is not None
    assert tree.total.high is not None
    assert tree.total.low < truth[:, 1].sum() < tree.total.high
    assert tree.naive_bias is not None
    assert -0.13 < tree.naive_bias < -0.07
    assert (report.images, report.units, report.population) == (LABELLED, LABELLED, POPULATION)
    assert "no pixel spacing" in report.provenance
    assert any("the model of the predictions is unknown" in notice for notice in report.notices)
    json.dumps(report.to_dict(), allow_nan=False)


def test_sizes_have_the_unit_of_the_scale(survey: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    masks, labelled, _, predicted = survey
    half = estimate_truth(masks, labelled, scale_of=lambda grid, shape: AffineScale(np.eye(2) / 2, "m", "--spacing"))
    whole = estimate_truth(masks, labelled)
    for a, b in zip(half.classes, whole.classes, strict=True):
        assert (a.total.unit, b.total.unit) == ("m²", "px²")
        assert a.total.value == pytest.approx(b.total.value / 4)
        assert a.total.high == pytest.approx((b.total.high or 0) / 4)
    assert half.provenance == "--spacing"
    assert half.classes[1].naive.value == pytest.approx(predicted[:, 1].sum() / 4)


def test_a_scale_that_varies_within_the_image(survey: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    """Rows of different areas, as in a scene in degrees."""
    masks, labelled, _, _ = survey

    class Rows(AffineScale):
        def sizes(self, window: object) -> np.ndarray:
            return np.arange(window.start[0], window.stop[0])[:, None] + 1.0  # type: ignore[attr-defined]

    report = estimate_truth(masks, labelled, scale_of=lambda grid, shape: Rows(np.eye(2), "m", "rows"))
    weights = np.arange(1.0, 21)[:, None]
    read = {path.stem: np.asarray(Image.open(path)) for path in masks.iterdir()}
    known = {path.stem: np.asarray(Image.open(path)) for path in (labelled / "masks").iterdir()}
    naive = sum(((mask == 1) * weights).sum() for mask in read.values())
    differences = [(((mask == 1) * 1.0 - (read[name] == 1)) * weights).sum() for name, mask in known.items()]
    assert report.classes[1].naive.value == pytest.approx(naive)
    assert report.classes[1].total.value == pytest.approx(naive + POPULATION * np.mean(differences))


def test_ignored_pixels_count_as_predicted_right(survey: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    masks, labelled, _, predicted = survey
    before = estimate_truth(masks, labelled).classes[1].total.value
    for path in (labelled / "masks").iterdir():
        wrong = np.asarray(Image.open(path)) != np.asarray(Image.open(masks / path.name))
        Image.fromarray(np.where(wrong, 255, np.asarray(Image.open(path))).astype(np.uint8)).save(path)
    after = estimate_truth(masks, labelled).classes[1]
    assert after.total.value == after.naive.value == predicted[:, 1].sum() < before


def test_groups_are_units(survey: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    masks, labelled, _, _ = survey
    with pytest.raises(DataError, match=r"expected 10 labelled groups of images or more, found 4.*Label 6 more"):
        estimate_truth(masks, labelled, overrides=["data.group=([0-9])[0-9].png"])


def test_few_labelled_images_are_refused(survey: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    masks, labelled, _, _ = survey
    for path in sorted((labelled / "masks").iterdir())[9:]:
        path.unlink()
        (labelled / "images" / path.name).unlink()
    with pytest.raises(DataError, match=r"expected 10 labelled images or more, found 9\. Label 1 more"):
        estimate_truth(masks, labelled)


def test_predictions_of_a_model(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    """The whole path: images that the model was trained on are refused, also under other names; others give a total."""
    from pixelwise.demo.synthetic import write_discs

    data = tmp_path / "data"
    write_discs(data, train=12, val=4, test=12, size=(32, 32), seed=0)
    run = pixelwise.train(data, out=tmp_path / "run", steps=2, overrides=tiny).folder
    for split in ("train", "test"):
        labelled = tmp_path / split
        for kind in ("images", "masks"):
            (labelled / kind).mkdir(parents=True)
            for number, path in enumerate(sorted((data / split / kind).iterdir())):
                shutil.copy(path, labelled / kind / f"copy-{number:02}.png")
        shutil.copy(data / "labels.yaml", labelled)
        out = tmp_path / f"{split}-predicted"
        pixelwise.predict(run, labelled / "images", out=out)
        if split == "train":
            with pytest.raises(DataError, match="neither trained nor validated on, found 12 of 12"):
                estimate_truth(out, labelled, model=run)
            continue
        report = estimate_truth(out, labelled, model=run)
        assert report.notices == ()
        assert [each.total.note for each in report.classes] == ["all images are labelled"] * 2
        truth = [np.asarray(Image.open(path)) for path in (labelled / "masks").iterdir()]
        assert report.classes[1].total.value == sum((mask == 1).sum() for mask in truth)
        (labelled / "labels.yaml").write_text("names: [ground, tree]\n")
        with pytest.raises(LabelsError, match="the classes of the predictions, background, disc"):
            estimate_truth(out, labelled)


def splits(root: Path, count: int = 12) -> Path:
    """Write the splits train and test, whose images have the same names."""
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            values = rng.integers(0, 200, (9, 11)).astype(np.uint8)
            Image.fromarray(values).save(root / split / f"images/{number:02}.png")
            Image.fromarray((values > 90).astype(np.uint8)).save(root / split / f"masks/{number:02}.png")
    (root / "labels.yaml").write_text("names: [dark, bright]\n")
    return root


def bright(images: Any) -> np.ndarray:
    values = np.asarray(images, np.float32)[:, :1]
    return np.concatenate([np.full_like(values, 100), values], 1)


def predicted(sources: list[Path], out: Path) -> Path:
    predict_files(predictor_of(bright, Labels(("dark", "bright")), channels=1), [str(each) for each in sources], out)
    return out


def test_splits_that_were_not_predicted_are_left_out(tmp_path: Path) -> None:
    data = splits(tmp_path / "data")
    report = estimate_truth(predicted([data / "test/images"], tmp_path / "out"), data)
    truth = [np.asarray(Image.open(path)) for path in (data / "test/masks").iterdir()]
    assert (report.images, report.population) == (12, 12)
    assert report.classes[1].total.value == sum(mask.sum() for mask in truth)
    assert "the split train is left out, since none of its images were predicted" in report.notices


def test_images_that_were_not_predicted_are_named_with_advice_that_works(tmp_path: Path) -> None:
    data = splits(tmp_path / "data")
    images = sorted((data / "test/images").iterdir())
    out = predicted(images[:10], tmp_path / "out")
    with pytest.raises(PairingError, match=r"none for 10, 11\. Predict all of them with one command, into one folder"):
        estimate_truth(out, data)
    assert estimate_truth(predicted(images, tmp_path / "all"), data).images == 12
    for path in images[10:]:
        path.unlink()
        (data / "test/masks" / path.name).unlink()
    assert estimate_truth(out, data).images == 10


@pytest.mark.parametrize("group", [None, "patient_([0-9]+)"])
def test_volumes_are_summed_over_their_slices(tmp_path: Path, group: str | None) -> None:
    """NIfTI volumes of 1 × 2 × 3 mm, in ml; the labelled data set is read as slices."""
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    places = {name: tmp_path / name for name in ("predicted", "labelled/images", "labelled/masks")}
    sizes = []
    for folder in places.values():
        folder.mkdir(parents=True)
    for number in range(16):
        truth = (rng.random((6, 5, 4)) < 0.5).astype(np.uint8)
        predicted = truth * (rng.random(truth.shape) < 0.8).astype(np.uint8)
        arrays = {"predicted": predicted}
        if number < 12:
            arrays |= {"labelled/images": rng.normal(0, 1, truth.shape).astype(np.float32), "labelled/masks": truth}
        for name, array in arrays.items():
            image = nibabel.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0]))
            image.header.set_xyzt_units("mm")
            nibabel.save(image, places[name] / f"patient_{number:02}.nii.gz")
        sizes.append((truth.sum(), predicted.sum()))
    (tmp_path / "labelled" / "labels.yaml").write_text("names: [background, lesion]\n")
    overrides = [f"data.group={group}"] if group else []
    report = estimate_truth(tmp_path / "predicted", tmp_path / "labelled", overrides=overrides)
    lesion = report.classes[1].total
    truth, predicted = np.array(sizes, float).T * 6 / 1000
    assert lesion.unit == "ml"
    assert lesion.value == pytest.approx(predicted.sum() + 16 * (truth - predicted)[:12].mean())
    assert (report.images, report.units, report.population) == (12, 12, 16)
    assert lesion.low is not None


def test_grids_of_files_give_units() -> None:

    grid = Grid((0.5, 0.25), "m", ((0.25, 0.0, 0.0), (0.0, -0.5, 0.0), (0.0, 0.0, 1.0)))
    scale = grid_scale(grid, (20, 30))
    assert scale.unit == "m"
    from pixelwise.tiles import Window

    assert scale.sizes(Window((0, 0), (20, 30))).item() == pytest.approx(0.125)
    assert grid_scale(Grid((1.0, 1.0), "deg"), (20, 30)).unit == "px"
