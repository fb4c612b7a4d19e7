"""A new loss term, metric, format or backend is one module and one registration line: shown with toys, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.inference.backends import FunctionBackend
from torch import Tensor

import pixelwise
from pixelwise import formats
from pixelwise.errors import ConfigError
from pixelwise.evaluation import meters
from pixelwise.evaluation.base import Meter, MeterOptions, class_figures
from pixelwise.formats.base import Format, ReadResult
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.records import Layout, Record
from pixelwise.inference import backend as backends
from pixelwise.inference.backend import open_backend
from pixelwise.inference.predictor import Predictor
from pixelwise.losses import combined
from pixelwise.losses.combined import TermInputs
from pixelwise.types import ModelSpec


def confidence_penalty(weight: float, x: TermInputs) -> Tensor:
    """Penalise confident predictions at counted pixels."""
    log_p = x.logits.float().log_softmax(1)
    counted = x.masks != x.ignore_index
    return weight * x.pixel_share * (log_p.exp() * log_p).sum(1)[counted].sum() / counted.sum().clamp_min(1)


class SpecificityMeter(Meter):
    """Specificity, TN / (TN + FP), per class."""

    def __init__(self, options: MeterOptions) -> None:
        super().__init__(options)
        self.figures = class_figures(options.labels, (), ("specificity",))

    def add(self, sample: Any, prediction: Any, counts: Any) -> Any:
        hits, truth, predicted, _ = counts
        false_positives = predicted - hits
        return np.concatenate([truth.sum() - truth - false_positives, false_positives]).astype(float)

    def values(self, totals: Any, reference: Any) -> Any:
        negatives, positives = np.split(totals, 2, axis=1)
        with np.errstate(invalid="ignore"):
            return negatives / (negatives + positives)


def detect(dataset: DatasetRoot) -> str | None:
    return "pairs.csv" if (dataset.root / "pairs.csv").is_file() else None


def read(dataset: DatasetRoot) -> ReadResult:
    records: dict[str, list[Record]] = {}
    for line in (dataset.root / "pairs.csv").read_text().splitlines():
        split, image, mask = line.split(",")
        record = Record(str(Path(image).with_suffix("")), dataset.root / image, dataset.root / mask)
        records.setdefault(split, []).append(record)
    return ReadResult(Layout("pairs.csv", {split: tuple(found) for split, found in records.items()}))


PAIRS = Format("pairs", "a table of image and mask files", detect, read)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register one toy of each kind."""
    monkeypatch.setitem(combined.TERMS, "confidence_penalty", confidence_penalty)
    monkeypatch.setitem(meters.METERS, "specificity", SpecificityMeter)
    monkeypatch.setattr(formats, "_ALL", (PAIRS, *formats._ALL))
    monkeypatch.setitem(formats.FORMATS, "pairs", PAIRS)
    monkeypatch.setitem(backends.BACKENDS, "toy", f"{__name__}:open_toy")


@pytest.fixture
def pairs(discs: Path, tmp_path: Path) -> Path:
    """The discs again, in the toy format."""
    lines = []
    for split in ("train", "val", "test"):
        for image in sorted((discs / split / "images").iterdir()):
            mask = discs / split / "masks" / f"{image.stem}.png"
            lines.append(f"{split},{image},{mask}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    (tmp_path / "labels.yaml").write_text((discs / "labels.yaml").read_text())
    return tmp_path


@pytest.mark.usefixtures("toys")
def test_a_run_with_a_toy_loss_metric_and_format(pairs: Path, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    overrides = (*tiny, "loss.terms.confidence_penalty=0.1", 'evaluate.metrics=["specificity"]')
    with_toy = pixelwise.train(pairs, steps=3, out=tmp_path / "run", overrides=overrides)
    plain = json.loads((tmp_path / "run" / "scores.json").read_text())
    for entry in plain["classes"]:
        assert 0 <= entry["specificity"] <= 1
        assert (entry["specificity_low"], entry["specificity_n"]) == (
            None,
            4,
        )  # four images are too few for an interval
    for row in pixelwise.evaluate(tmp_path / "run", pairs, split="train", metrics=("specificity",)).scores.classes:
        score = row.more["specificity"]
        assert score.n == 12
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert score.low < score.high
    assert "pecificity" in (tmp_path / "run" / "report.html").read_text()
    without = pixelwise.train(
        pairs, steps=3, out=tmp_path / "other", overrides=(*tiny, "evaluate.metrics=[]", "evaluate.report=false")
    )
    weights = [dict(run.model.predictor.backend.model.named_parameters()) for run in (with_toy, without)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.usefixtures("toys")
def test_a_toy_backend(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(pixelwise.Labels(("dark", "bright")), 1)
    toy = type("Module", (), {"open_toy": staticmethod(lambda folder: FunctionBackend(_two, spec))})
    monkeypatch.setitem(__import__("sys").modules, __name__, toy)
    assert (Predictor(open_backend(discs, "toy"))(np.full((1, 5, 7), 200, np.uint8)).mask == 1).all()


def _two(images: Any) -> Any:
    values = images[:, :1].astype(np.float32) - 128
    return np.concatenate([-values, values], 1)


def test_an_unknown_term_is_named() -> None:
    from pixelwise.config import LossConfig

    with pytest.raises(
        ConfigError, match=r"loss.terms: expected registered terms \(none so far\), found dise\. Did you"
    ):
        combined.combined_loss(LossConfig(terms={"dise": 1.0}), num_classes=2)
    with pytest.raises(ConfigError, match=r"found dice\. Set loss\.dice\."):
        combined.combined_loss(LossConfig(terms={"dice": 1.0}), num_classes=2)
