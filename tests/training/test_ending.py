"""The end of a run within a time limit: fewer images when it is late, and a report of that."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import pixelwise
from pixelwise.api.reporting import report_run
from pixelwise.config import load_config, resolve
from pixelwise.datasets.dataset import Dataset, open_data
from pixelwise.evaluation.kept import KeptMasks
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.training import ending
from pixelwise.training.validation import CachedImages, evenly_spaced, spread

VAL = 24


@pytest.fixture(scope="module")
def trained(tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pixelwise.demo.synthetic import write_discs

    folder = tmp_path_factory.mktemp("ending")
    write_discs(folder / "data", train=4, val=VAL, test=1, size=(32, 32), seed=0)
    return pixelwise.train(folder / "data", out=folder / "run", steps=2, overrides=tiny).folder


def validation(run: Path) -> Dataset:
    split = open_data(load_config(run / "config.yaml").data, run).val
    assert split is not None
    return split


def finished(run: Path, deadline: float | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Finish the run again with a deadline; return its scores and events."""
    events: list[dict[str, Any]] = []
    ending.finish(resolve(load_config(run / "config.yaml")), validation(run), run, events.append, deadline)
    return json.loads((run / "scores.json").read_text()), events


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event"] == "notice"]


def test_with_enough_time_the_end_is_that_without_a_limit(trained: Path) -> None:
    without, events = finished(trained, None)
    assert not texts(events)
    within, events = finished(trained, time.monotonic() + 1000)
    assert within == without
    assert within["images"] == VAL
    assert not texts(events)


def test_a_late_end_uses_fewer_images_and_reports_it(trained: Path) -> None:
    scores, events = finished(trained, time.monotonic() - 1)
    assert scores["images"] == len(scores["per_image"]) == 10
    [text] = texts(events)
    assert text.startswith(f"10 of {VAL} validation images were scored, to keep the time limit. For all of them: ")
    assert scores["notices"][0] == text
    assert next(event["total"] for event in events if event["event"] == "calibrating") == 10
    # Evenly spaced, the first and the last one included.
    ids = [record.id for record in validation(trained).records]
    assert [image["id"] for image in scores["per_image"]] == [
        record.id for record in spread(validation(trained), 10).records
    ]
    assert {ids[0], ids[-1]} <= {image["id"] for image in scores["per_image"]}


def test_the_command_of_the_notice_scores_all_images(trained: Path) -> None:
    _, events = finished(trained, time.monotonic() - 1)
    command = re.search(r"pixelwise evaluate (\S+) (\S+) --split (\w+)", texts(events)[0])
    assert command is not None
    model, data, split = command.groups()
    assert pixelwise.evaluate(model, data, split=split).to_dict()["images"] == VAL


def test_a_late_report_shows_a_few_images(trained: Path, tmp_path: Path) -> None:
    finished(trained, None)
    shown = {}
    for name, deadline in (("all", None), ("late", time.monotonic() - 1)):
        html = report_run(trained, tmp_path / f"{name}.html", deadline).read_text()
        shown[name] = html.count("found the time limit. Run `pixelwise report` to show all images.")
    assert shown["all"] == 0
    assert shown["late"] >= 4


@pytest.mark.parametrize(("left", "images"), [(-5.0, 10), (0.0, 10), (10.0, 10), (14.0, 13), (38.0, 37), (500.0, 80)])
def test_scoring_leaves_time_for_the_report(left: float, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 s an image; 0.6 s for six images of the report come on top."""
    cost = ending.EndCost(scoring=1.0, fitting=0.5, calibrated=64, scored=80, shown=6, kept=64)
    assert cost.seconds == 80 + 0.6
    assert dataclasses.replace(cost, kept=60).seconds == 80 + 0.5 * 4 + 0.6  # four images are predicted twice
    monkeypatch.setattr(ending.time, "monotonic", lambda: 100.0)
    assert ending._Deadline(100.0 + left, cost).scored() == images


def test_a_slower_machine_scores_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = ending.EndCost(scoring=1.0, fitting=0.5, calibrated=64, scored=80, shown=0, kept=20)
    monkeypatch.setattr(ending.time, "monotonic", lambda: 0.0)
    deadline = ending._Deadline(60.0, cost)
    assert deadline.scored() == 60
    deadline.measured(seconds=32.0, images=32)  # twice as slow as estimated; 20 images need not be predicted again
    assert deadline.scored() == 30 + 10
    deadline.measured(seconds=8.0, images=32)  # faster: no reason to expect less time than estimated
    assert deadline.scored() == 60 + 10


@pytest.mark.parametrize("temperature", [True, False])
@pytest.mark.parametrize("metrics", [["boundary"], ["boundary", "calibration", "diagnosis"]])
def test_each_image_is_predicted_once(
    trained: Path, tmp_path: Path, temperature: bool, metrics: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration, scores and report need a prediction of the same images; the network computes each of them once."""
    images, real = [], TorchBackend.__call__

    def counted(backend: TorchBackend, batch: np.ndarray) -> np.ndarray:
        images.extend(image.tobytes() for image in batch)
        return real(backend, batch)

    monkeypatch.setattr(TorchBackend, "__call__", counted)
    config = resolve(load_config(trained / "config.yaml"))
    evaluate = config.evaluate.model_copy(update={"temperature": temperature, "metrics": metrics})
    masks = KeptMasks()
    config = config.model_copy(update={"evaluate": evaluate})
    ending.finish(config, validation(trained), trained, lambda _: None, masks=masks)
    assert len(images) == len(set(images)) == VAL
    once = report_run(trained, tmp_path / "once.html", masks=masks).read_text()
    assert len(images) == VAL
    again = report_run(trained, tmp_path / "again.html").read_text()
    assert len(images) > VAL
    assert re.sub(r"\b(once|again)\.html", "", once) == re.sub(r"\b(once|again)\.html", "", again)


def test_the_scores_do_not_depend_on_the_memory(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory, the images that are calibrated on are predicted and decoded twice."""
    enough, _ = finished(trained, None)
    for left in (0, 10 * 4 * 2 * 32 * 32):
        monkeypatch.setattr(ending, "free_memory", lambda left=left: left / ending._MEMORY_SHARE)
        monkeypatch.setattr(ending, "image_memory", lambda left=left: left)
        assert finished(trained, None)[0] == enough


def test_fewer_images_are_taken_from_those_that_were_calibrated_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "IMAGES", 8)
    images = CachedImages(cast(Dataset, range(24)), 0)
    calibrated = images.subset(evenly_spaced(24, 8)).indices
    assert ending._fewer(images, 24) is images
    assert ending._fewer(images, 8).indices == calibrated
    assert set(ending._fewer(images, 5).indices) < set(calibrated)
    assert ending._fewer(images, 20).indices == evenly_spaced(24, 20)


def test_the_estimate_counts_every_part_of_the_end(trained: Path) -> None:
    from pixelwise.models.weights import load_model

    config, val = load_config(trained / "config.yaml"), validation(trained)
    model, card = load_model(trained / "model")
    cost = ending.end_cost(config, model, card, val)
    assert (cost.calibrated, cost.scored, cost.shown, cost.kept) == (VAL, VAL, VAL, VAL)
    assert min(cost.scoring, cost.fitting) > 0
    assert model.training
    lean = config.model_copy(
        update={"evaluate": config.evaluate.model_copy(update={"report": False, "temperature": False})}
    )
    cost = ending.end_cost(lean, model, card, val)
    assert (cost.calibrated, cost.shown, cost.fitting, cost.kept) == (0, 0, 0.0, 0)
