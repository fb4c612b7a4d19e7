"""The sections of the report about the run: training curves, training data, configuration, and how to reproduce it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pixelwise.reporting.charts import Axis, Chart, Line, Mark, Point
from pixelwise.reporting.numbers import count, percent, plural
from pixelwise.reporting.rendering import Section, named
from pixelwise.reporting.runfolder import Event, RunFolder, Setting
from pixelwise.types import Fingerprint

# Number of values in the moving average of the loss.
_SMOOTHED = 9


def training(run: RunFolder) -> Section | None:
    """Show loss, validation mIoU and gradient norm; None if no steps were logged."""
    losses = _points(run.of("step"), "loss")
    scores = _points(run.of("validation"), "miou")
    gradients = [(step, norm) for step, norm in _points(run.of("step"), "gradient_norm") if norm > 0]
    if not (losses or scores or gradients):
        return None
    steps = _points(run.of("step"), "step")
    seconds = _points(run.of("step"), "seconds")
    skipped = run.of("skipped")
    best = max(scores, key=lambda point: point[1], default=(0.0, 0.0))
    values = {
        "steps": int(steps[-1][1]) if steps else 0,
        "duration": _duration(seconds[-1][1]) if seconds else "",
        "skipped": len(skipped),
        "loss": _curve("Loss", losses, [Line(losses, kind="faint"), Line(_smooth(losses))]),
        "validation": _curve(
            "Validation mIoU",
            scores,
            [Line(scores, radii=(3,)), Line([best], joined=False, radii=(5.5,), kind="second")],
            [Mark(*best, f"best {best[1]:.3f}")],
        ),
        "best_step": best[0],
        "gradients": _gradients(gradients, [step for step, _ in _points(skipped, "step")]),
        "smoothed": _SMOOTHED,
    }
    return Section("training", "Training", values)


def _number(value: object) -> float | None:
    """Return a finite number; the log also has numbers as text, such as "nan"."""
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


def _curve(title: str, points: Sequence[Point], lines: Sequence[Line], marks: Sequence[Mark] = ()) -> Chart | None:
    if not points:
        return None
    label = f"{title} over the steps: from {points[0][1]:.3f} to {points[-1][1]:.3f}"
    x = Axis.fitting("step", [step for step, _ in points], _thousands)
    return Chart(label, x, Axis.fitting("", [value for _, value in points]), lines, marks)


def _gradients(points: Sequence[Point], skipped: list[float]) -> Chart | None:
    if not points:
        return None
    logarithms = [(step, math.log10(norm)) for step, norm in points]
    low = min(value for _, value in logarithms)
    high = max(value for _, value in logarithms)
    lines = [Line(logarithms), Line([(step, low) for step in skipped], kind="second", joined=False, radii=(5,))]
    x = Axis.fitting("step", [step for step, _ in points] + skipped, _thousands)
    y = Axis.fitting("", [math.floor(low), math.ceil(high)], lambda value: f"{10**value:.3g}", zero=False)
    return Chart("Gradient norm over the steps", x, y, lines)


def _smooth(points: Sequence[Point]) -> list[Point]:
    """Return the moving average, over fewer values at both ends."""
    out = []
    for i, (step, _) in enumerate(points):
        reach = min(_SMOOTHED // 2, i, len(points) - 1 - i)
        values = [value for _, value in points[i - reach : i + reach + 1]]
        out.append((step, sum(values) / len(values)))
    return out


def _duration(seconds: float) -> str:
    total = round(seconds)
    if total < 60:
        return plural(total, "second")
    if total < 3600:
        return f"{total // 60}\u00a0min {total % 60:02d}\u00a0s"
    return f"{total // 3600}\u00a0h {total % 3600 // 60:02d}\u00a0min"


def data(run: RunFolder, names: Sequence[str]) -> Section | None:
    """Show the properties of the training data; None without a fingerprint."""
    try:
        found = Fingerprint.from_dict(run.data["fingerprint"])
    except (KeyError, TypeError, AttributeError):
        return None  # the run was interrupted early, or written by another version
    splits = run.data.get("splits")
    splits = splits if isinstance(splits, Mapping) else {}
    images = splits.get("images")
    images = images if isinstance(images, Mapping) else {}
    small, median, large = (" × ".join(map(count, size)) for size in found.sizes)
    entries: list[tuple[str, Any]] = [
        ("Images", ", ".join(f"{name} {count(n)}" for name, n in images.items())),
        ("Layout", splits.get("layout")),
        ("Root", named(splits["root"], 100) if splits.get("root") else None),
        (
            "Slices × rows × columns" if len(found.sizes[0]) == 3 else "Rows × columns",
            f"smallest {small}, median {median}, largest {large}",
        ),
        ("Bands", f"{found.channels} of {found.dtype}"),
        ("Mean per band", ", ".join(f"{v:.4g}" for v in found.mean)),
        ("Standard deviation per band", ", ".join(f"{v:.4g}" for v in found.std)),
        ("Ignored pixels", percent(found.ignored_share)),
        ("Dependence of classes on the row", f"{found.row_spread:.2f} (0 none, 1 complete)"),
        ("SHA-256 of the training split", _code(found.hash)),
        ("SHA-256 of the validation split", _code(run.data.get("val_hash"))),
        ("Skipped", plural(len(run.data["skipped"]), "file") if run.data.get("skipped") else None),
    ]
    return Section("data", "Training data", {"entries": entries, "classes": _class_rows(found, names)})


def _code(text: object) -> Markup | None:
    return Markup("<code>{}</code>").format(text) if text else None


def _class_rows(found: Fingerprint, names: Sequence[str]) -> list[dict[str, Any]]:
    if len(found.pixel_counts) != len(names):
        return []
    total = sum(found.pixel_counts) or 1
    columns = zip(names, found.pixel_counts, found.image_counts, found.thickness, strict=False)
    return [
        {"name": name, "pixels": pixels, "share": pixels / total, "images": images, "thickness": thickness}
        for name, pixels, images, thickness in columns
    ]


def configuration(run: RunFolder) -> Section | None:
    """Show all configuration keys, with the reasons of derived values."""
    if not run.config:
        return None
    settings: dict[str, list[Setting]] = {}
    for setting in run.settings:
        settings.setdefault(setting.section, []).append(setting)
    derived = sum(bool(setting.reason) for setting in run.settings)
    values = {"settings": settings, "total": len(run.settings), "derived": derived, "text": run.config}
    return Section("configuration", "Configuration", values)


def repeat(environment: Mapping[str, Any] | None, commands: Sequence[str] | None) -> Section | None:
    """Show the commands and the environment that reproduce the results."""
    if not environment and not commands:
        return None
    return Section("repeat", "Reproduce", {"commands": commands or (), "environment": environment or {}})
