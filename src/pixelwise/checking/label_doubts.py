"""Rank the images whose labels a confident model contradicts.

Suspect regions are plain values as listed by the diagnosis of an evaluation; this module depends on no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixelwise.checking.findings import EXAMPLES, SHOWN, Finding, plural
from pixelwise.checking.survey import Survey

Suspect = Mapping[str, Any]


def doubt(suspect: Suspect) -> float:
    """Return the weight of a suspect region: its pixels times how much more likely a wrong label is than a right one."""
    return float(suspect["pixels"] * (2 * suspect["confidence"] - 1))


def labels_in_doubt(
    survey: Survey, suspects: Sequence[Suspect], notices: Iterable[str], *, confidence: float, most_per_split: int
) -> list[Finding]:
    """Make the findings about labels that a model contradicts.

    Args:
        survey: the inspected data set.
        suspects: regions with "id" (split/image), "part" (split), "truth", "prediction", "pixels" and "confidence".
        notices: "split: reason" for images that were not compared with the model.
        confidence: minimum confidence of the model in a suspect region.
        most_per_split: maximum number of suspects listed per split.

    Returns:
        A notice per entry of `notices`, and a warning with the images in decreasing order of `doubt`.
    """
    why, fix = (
        "Labels there were not compared with the model.",
        "Cut the images into smaller ones to have them compared.",
    )
    findings = [
        Finding("not-doubted", "notice", notice, (notice.partition(":")[0],), 1, 0, why, fix) for notice in notices
    ]
    weights: dict[str, float] = {}
    for suspect in suspects:
        weights[suspect["id"]] = weights.get(suspect["id"], 0.0) + doubt(suspect)
    if not weights:
        return findings
    order = sorted(weights, key=lambda id_: (-weights[id_], id_))
    places = {
        f"{name}/{record.id}": (name, k)
        for name, split in survey.datasets.items()
        for k, record in enumerate(split.records)
    }
    strongest = max(suspects, key=doubt)
    is_cut = max(Counter(suspect["part"] for suspect in suspects).values()) >= most_per_split
    prefix = "at least " if is_cut else ""
    what = (
        f"{prefix}{plural(len(order), 'image has', 'images have')} labels in doubt: a model with a confidence of at least"
        f" {confidence:.0%} predicts another class in {prefix}{plural(len(suspects), 'region', 'regions')}"
    )
    why = (
        f"The strongest: in {strongest['id']}, {strongest['pixels']:,} pixels of {strongest['truth']!r} are predicted as"
        f" {strongest['prediction']!r}. Either the label or the model is wrong; wrong labels are learned and scored."
    )
    fix = "Inspect these first, in this order; correct the masks where the model is right."
    examples = tuple(places[id_] for id_ in order[:EXAMPLES])
    where, count, total = tuple(order[:SHOWN]), len(order), len(survey.usable)
    return [*findings, Finding("labels-in-doubt", "warning", what, where, count, total, why, fix, examples)]
