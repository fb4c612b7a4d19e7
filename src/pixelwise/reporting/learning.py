"""How training went: loss, validation and gradients over the steps.

Comes in: a run folder's events. Goes out: a section. Knows nothing of how training works.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pixelwise.reporting.charts import Line, Mark, Point, frame, nice_axis
from pixelwise.reporting.layout import Section, figure, grid, lead
from pixelwise.reporting.markup import Markup, join
from pixelwise.reporting.numbers import count, link, plural
from pixelwise.reporting.runfolder import Event, RunFolder

_SMOOTH = 9


def training(run: RunFolder) -> Section | None:
    """Show loss, validation mIoU and gradients; None where the log tells of no step."""
    pieces = [_loss(run), _validation(run), _gradients(run)]
    shown = [piece for piece in pieces if piece is not None]
    if not shown:
        return None
    steps, skipped = _points(run.of("step"), "step"), run.of("skipped")
    seconds = _points(run.of("step"), "seconds")
    text = plural(int(steps[-1][1]), "step") if steps else "The log tells of no step"
    text += f" in {_duration(seconds[-1][1])}." if seconds else "."
    if skipped:
        were = "was" if len(skipped) == 1 else "were"
        text += f" {plural(len(skipped), 'step')} had a loss or gradient that was no number, and {were} not made."
    return Section("training", "Training", join(lead(text), grid(shown, "triple")))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _points(events: Sequence[Event], key: str) -> list[Point]:
    pairs = [(_number(event.get("step")), _number(event.get(key))) for event in events]
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _loss(run: RunFolder) -> Markup | None:
    points = _points(run.of("step"), "loss")
    if not points:
        return None
    lines = [Line(points, kind="faint"), Line(_smooth(points), kind="first")]
    return _figure(points, lines, "Loss", f"On training crops; the strong line is the mean of {_SMOOTH} neighbours.")


def _validation(run: RunFolder) -> Markup | None:
    events = run.of("validation")
    points = _points(events, "miou")
    if not points:
        return None
    best = max(points, key=lambda point: point[1])
    marks = [Mark(*best, f"best {best[1]:.3f}")]
    lines = [Line(points, dots=(3,)), Line([best], joined=False, dots=(5.5,), kind="second")]
    words = join("On whole validation images (", link("miou"), f"); the weights of step {count(best[0])} were kept.")
    return _figure(points, lines, "Validation mIoU", words, marks)


def _gradients(run: RunFolder) -> Markup | None:
    points = [(step, math.log10(norm)) for step, norm in _points(run.of("step"), "gradient_norm") if norm > 0]
    if not points:
        return None
    skipped = [step for event in run.of("skipped") if (step := _number(event.get("step"))) is not None]
    low = min(value for _, value in points)
    lines = [
        Line(points, kind="first"),
        Line([(step, low) for step in skipped], kind="second", joined=False, dots=(5,)),
    ]
    words = "Before clipping, on a logarithmic scale." + (
        " Dots at the bottom: steps that were not made." if skipped else ""
    )
    x = nice_axis("step", [step for step, _ in points] + skipped, _thousands)
    y = nice_axis(
        "", [math.floor(low), math.ceil(max(value for _, value in points))], lambda v: f"{10**v:.3g}", zero=False
    )
    return figure(frame(x, y, lines, "Norm of the gradient over the steps"), "Gradient norm", words)


def _figure(
    points: list[Point], lines: Sequence[Line], title: str, words: str | Markup, marks: Sequence[Mark] = ()
) -> Markup:
    x = nice_axis("step", [step for step, _ in points], _thousands)
    y = nice_axis("", [value for _, value in points])
    says = f"{title} over the steps: from {points[0][1]:.3f} to {points[-1][1]:.3f}"
    return figure(frame(x, y, lines, says, marks), title, words)


def _smooth(points: Sequence[Point]) -> list[Point]:
    """Average each value with its neighbours on both sides, fewer at the ends."""
    half = _SMOOTH // 2
    out = []
    for i, (step, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        near = [value for _, value in points[i - reach : i + reach + 1]]
        out.append((step, sum(near) / len(near)))
    return out


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return plural(whole, "second")
    if whole < 3600:
        return f"{whole // 60}\u00a0min {whole % 60:02d}\u00a0s"
    return f"{whole // 3600}\u00a0h {whole % 3600 // 60:02d}\u00a0min"
