"""Whether the probabilities can be believed: the reliability diagram, and what doubtful pixels cost.

Comes in: the plain scores, and what a model's card says of its temperature. Goes out: a section. Knows nothing of
models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pixelwise.reporting.charts import Axis, Line, Mark, frame
from pixelwise.reporting.layout import Section, details, figure, grid, lead, table
from pixelwise.reporting.markup import Child, Markup, join, tag
from pixelwise.reporting.numbers import count, decimal, link, percent, short, value_of

Plain = Mapping[str, Any]
_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def calibration(scores: Plain, card: Plain) -> Section | None:
    """Show reliability, risk and coverage; None where no probabilities were scored."""
    tables = scores.get("tables") or {}
    kept = tables.get("risk_coverage") or {}
    pieces = [_reliability(tables.get("reliability") or {}, scores), _coverage(tables.get("curve") or {}, kept)]
    shown = [piece for piece in pieces if piece is not None]
    if not shown:
        return None
    confidence, accuracy = value_of(scores, "confidence").value, value_of(scores, "accuracy_at_100").value
    text: Child = None
    if confidence is not None and accuracy is not None:
        gap = confidence - accuracy
        verdict = (
            "They agree closely"
            if abs(gap) < 0.01
            else f"It is {'over' if gap > 0 else 'under'}confident by {percent(abs(gap))}"
        )
        words = f") and right at {percent(accuracy)} of the pixels. {verdict}. "
        text = lead(
            f"On average the model is {percent(confidence)} sure (", link("confidence"), words, _temperature(card)
        )
    body: list[Child] = [text, grid(shown), _table(tables.get("reliability") or {}), _kept(kept)]
    return Section("calibration", "Can the probabilities be believed?", join(body))


def _temperature(card: Plain) -> Markup | None:
    """Tell the temperature that the probabilities were corrected by."""
    found = card.get("calibration")
    if not isinstance(found, Mapping) or not isinstance(found.get("temperature"), int | float):
        return None
    part = found.get("fitted_on", "validation")
    text = f"Its logits are divided by the temperature {found['temperature']:.3g}, fitted on the {part} part"
    before, after = (found.get(key) for key in ("ece_before", "ece_after"))
    if isinstance(before, int | float) and isinstance(after, int | float):
        text += f", which moved the calibration error there from {before:.3f} to {after:.3f}"
    reason = found.get("reason")
    return join(text, f" ({reason})" if reason else None, ".")


def _bins(found: Plain) -> list[tuple[float, float, float, float, float]]:
    """Give (from, to, pixels, confidence, accuracy) of each bin with pixels."""
    edges, parts = found.get("edges") or [], [found.get(key) or [] for key in ("pixels", "confidence", "accuracy")]
    rows = zip(edges, edges[1:], *parts, strict=False)
    return [row for row in rows if row[2] and row[3] is not None and row[4] is not None]


def _reliability(found: Plain, scores: Plain) -> Markup | None:
    bins = _bins(found)
    if not bins:
        return None
    everything = sum(row[2] for row in bins)
    radii = [2.5 + 9 * (row[2] / everything) ** 0.5 for row in bins]
    told = [f"{percent(p)} sure, {percent(a)} right, {short(n)} pixels" for _, _, n, p, a in bins]
    points = [(row[3], row[4]) for row in bins]
    lines = (
        Line(((0, 0), (1, 1)), kind="guide"),
        Line(points, joined=False, dots=radii, told=told),
    )
    says = "Reliability diagram: " + "; ".join(told)
    x, y = (Axis(name, 0, 1, _FIFTHS, lambda v: f"{100 * v:.0f}") for name in ("confidence, %", "right, %"))
    ece = value_of(scores, "ece")
    words = join(
        "Dots on the dashed line mean what they say; larger ones hold more pixels. ",
        link("ece"),
        f" {decimal(ece.value)}, n\u00a0{count(ece.n)}.",
    )
    return figure(frame(x, y, lines, says, height=300), "Reliability", words)


def _coverage(found: Plain, exact: Plain) -> Markup | None:
    points = [
        (c, r)
        for c, r in zip(found.get("coverage") or (), found.get("risk") or (), strict=False)
        if c is not None and r is not None
    ]
    if len(points) < 2:
        return None
    top = max(r for _, r in points)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if top <= 5 * s), 0.25)
    ticks = tuple(i * step for i in range(int(top / step + 0.999) + 1))
    y = Axis("wrong, %", 0, ticks[-1] or 1.0, ticks if len(ticks) > 1 else (0.0, 1.0), lambda v: f"{100 * v:g}")
    x = Axis("most certain pixels kept, %", 0, 1, _FIFTHS, lambda v: f"{100 * v:.0f}")
    pairs = zip(exact.get("coverage") or (), exact.get("pixel_accuracy") or (), strict=False)
    told = [(c, 1 - a) for c, a in pairs if c in (0.8, 1.0) and a is not None]
    marks = [Mark(c, r, f"{percent(r)} at {100 * c:.0f}\u202f%") for c, r in told]
    dots = Line(told, joined=False, dots=(4,))
    says = f"Share of wrong pixels over coverage: {'; '.join(mark.text for mark in marks)}"
    words = join(
        "The share of wrong pixels among those the model is most certain of (", link("aurc"), " is the area beneath)."
    )
    return figure(frame(x, y, (Line(points, kind="first"), dots), says, marks, height=300), "Risk and coverage", words)


def _table(found: Plain) -> Markup | None:
    bins = _bins(found)
    if not bins:
        return None
    rows: list[Sequence[Child]] = [
        [f"{100 * low:.0f}–{100 * high:.0f}\u202f%", percent(p), percent(a), count(n)] for low, high, n, p, a in bins
    ]
    return details(
        "The bins in numbers",
        table(["Confidence", "Mean confidence", "Right", "Pixels"], rows, "Reliability by bin", kind="numbers"),
    )


def _kept(found: Plain) -> Markup | None:
    coverages = found.get("coverage") or []
    if not coverages:
        return None
    columns = [found.get(key) or [None] * len(coverages) for key in ("pixel_accuracy", "miou", "classes")]
    rows: list[Sequence[Child]] = [
        [f"{100 * c:.0f}\u202f%", decimal(a), decimal(m), count(k)]
        for c, a, m, k in zip(coverages, *columns, strict=False)
    ]
    heads: list[Child] = ["Kept", link("pixel_accuracy"), link("miou"), "Classes with a union"]
    note = "Over all images together; how sure is sure enough depends on all of them, so these have no interval."
    shown = join(tag("p", note, class_="quiet"), table(heads, rows, "Scores by coverage", kind="numbers"))
    return details("Scores among the most certain pixels", shown)
