"""The section of the report about calibration: the reliability diagram and the risk-coverage curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelwise.evaluation.results import ReliabilityTable, RiskCurve
from pixelwise.reporting.charts import Axis, Chart, Line, Mark
from pixelwise.reporting.numbers import percent, short
from pixelwise.reporting.rendering import Section
from pixelwise.reporting.results import Results

_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_HEIGHT = 300


def _percentage(value: float) -> str:
    return f"{100 * value:.3g}"


@dataclass(frozen=True)
class Bin:
    """The pixels of a range of confidence: their number, mean confidence and accuracy."""

    low: float
    high: float
    pixels: int
    confidence: float
    accuracy: float


def calibration(results: Results, card: Mapping[str, Any]) -> Section | None:
    """Show reliability, risk and coverage; None if no probabilities were scored.

    Args:
        results: the evaluation.
        card: how the probabilities were calibrated, as in `model.json`.
    """
    tables = results.evaluation.tables
    bins = _bins(tables.reliability)
    kept: list[tuple[Any, ...]] = []
    if (table := tables.risk_coverage) is not None:
        kept = list(zip(table.coverage, table.pixel_accuracy, table.miou, table.classes, strict=True))
    coverage = _coverage(tables.curve, {share: accuracy for share, accuracy, _, _ in kept})
    if not bins and coverage is None:
        return None
    values = {
        "confidence": results.score("confidence").value,
        "accuracy": results.score("accuracy_at_100").value,
        "card": dict.fromkeys(("temperature", "fitted_on", "ece_before", "ece_after", "reason")) | dict(card),
        "reliability": _reliability(bins),
        "bins": bins,
        "ece": results.score("ece"),
        "coverage": coverage,
        "kept": kept,
    }
    return Section("calibration", "Calibration", values)


def _bins(table: ReliabilityTable | None) -> list[Bin]:
    """Return the bins that have pixels."""
    if table is None:
        return []
    columns = zip(table.edges, table.edges[1:], table.pixels, table.confidence, table.accuracy, strict=False)
    return [
        Bin(low, high, int(pixels), confidence, accuracy)
        for low, high, pixels, confidence, accuracy in columns
        if pixels and confidence is not None and accuracy is not None
    ]


def _reliability(bins: list[Bin]) -> Chart | None:
    if not bins:
        return None
    total = sum(b.pixels for b in bins)
    tooltips = [
        f"confidence {percent(b.confidence)}, accuracy {percent(b.accuracy)}, {short(b.pixels)} pixels" for b in bins
    ]
    dots = Line(
        [(b.confidence, b.accuracy) for b in bins],
        joined=False,
        radii=[2.5 + 9 * (b.pixels / total) ** 0.5 for b in bins],
        tooltips=tooltips,
    )
    x = Axis("confidence, %", 0, 1, _FIFTHS, _percentage)
    y = Axis("accuracy, %", 0, 1, _FIFTHS, _percentage)
    lines = (Line(((0, 0), (1, 1)), kind="guide"), dots)
    return Chart("Reliability diagram: " + "; ".join(tooltips), x, y, lines, height=_HEIGHT)


def _coverage(curve: RiskCurve | None, accuracies: Mapping[float, float | None]) -> Chart | None:
    """Draw the risk-coverage curve, with the risk of all pixels and of the most confident 80 % marked."""
    if curve is None or len(curve.coverage) < 2:
        return None
    points = list(zip(curve.coverage, curve.risk, strict=True))
    highest = max(risk for _, risk in points)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if highest <= 5 * s), 0.25)
    ticks = tuple(i * step for i in range(max(int(highest / step + 0.999), 1) + 1))
    marked = [(share, 1 - accuracy) for share in (0.8, 1.0) if (accuracy := accuracies.get(share)) is not None]
    marks = [Mark(coverage, risk, f"{percent(risk)} at {100 * coverage:.0f}\u202f%") for coverage, risk in marked]
    return Chart(
        f"Share of wrong pixels over coverage: {'; '.join(mark.text for mark in marks)}",
        Axis("most confident pixels, %", 0, 1, _FIFTHS, _percentage),
        Axis("wrong, %", 0, ticks[-1], ticks, _percentage),
        (Line(points), Line(marked, joined=False, radii=(4,))),
        marks,
        height=_HEIGHT,
    )
