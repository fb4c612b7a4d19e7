"""Verdicts on images by the rules that the user gives, or that the model brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pixelwise.api.measuring.sources import Masks, Measurable
from pixelwise.api.measuring.tables import Column
from pixelwise.config import Config, read_rules, with_overrides
from pixelwise.measuring.grid_scale import size_unit
from pixelwise.measuring.rules import Inspected, Rules, Verdict
from pixelwise.measuring.scale import Scale
from pixelwise.types import Measurement, Region


def rules_of(overrides: Sequence[str], source: Masks) -> Rules | None:
    """Return the rules of "measure.rules=FILE" among overrides, otherwise those of the model; None without any.

    Raises:
        ConfigError: rules that cannot be read, or for other classes.
    """
    given = with_overrides(Config(), overrides).measure.rules
    if given is None:
        return None if source.rules is None else Rules.from_dict(source.rules, source.names, "rules of the model")
    return Rules.from_dict(read_rules(given), source.names, str(given) if isinstance(given, str) else "measure.rules")


def inspected(
    image: Measurable, scale: Scale, classes: Mapping[str, tuple[float, Measurement]], regions: Sequence[Region]
) -> Inspected:
    """Return what rules need to know about an image."""
    unit = size_unit(scale, len(image.shape))[0]
    area = sum(size.value for _, size in classes.values())
    middle = (np.array(image.shape, np.float64) - 1) / 2
    height = float(np.linalg.norm(scale.jacobians(middle[None])[0][:, 0]))
    return Inspected(
        image.id, classes, regions, Measurement(area, unit, "pixel count"), Measurement(height, scale.unit, "spacing")
    )


def verdict_columns(verdicts: Sequence[Verdict]) -> list[Column]:
    """Return a row per verdict."""
    return [
        Column("image", str, [each.image for each in verdicts]),
        Column("verdict", str, [each.outcome for each in verdicts]),
        Column("points", float, [each.points for each in verdicts], ".6g"),
        Column("reasons", str, ["; ".join(each.reasons) for each in verdicts]),
    ]
