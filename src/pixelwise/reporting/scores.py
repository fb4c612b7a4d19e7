"""The sections of the report about scores: by class, over all classes, and the definitions of all scores shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pixelwise.metrics.definitions import FAMILIES, SYMBOLS
from pixelwise.reporting.numbers import count
from pixelwise.reporting.rendering import Section
from pixelwise.reporting.results import ClassResult, Results, Value

_KEY_FIGURES = ("mean_dice", "pixel_accuracy", "boundary_miou", "ece")
_MAIN = ("iou", "dice", "precision", "recall", "boundary_iou", "boundary_f1")
# The report always links to these.
_ALWAYS = ("miou", "iou", "recall", "precision", "pixel_accuracy")
# Further classes are collapsed.
_MOST_CLASSES = 40
_MOST_NOTES = 50


def key_figures(results: Results) -> list[Value]:
    """Return the scores shown in small beside the mIoU, as far as they are defined."""
    values = [results.score(key) for key in _KEY_FIGURES]
    return [value for value in values if value.value is not None]


def by_class(results: Results) -> Section | None:
    """Show the IoU of each class as a dot and whisker, and all its scores in a table."""
    if not results.classes:
        return None
    keys = results.class_score_keys
    return Section(
        "classes",
        "Scores by class",
        {
            "results": results,
            "ranked": sorted(results.classes, key=_iou, reverse=True),
            "main_keys": [key for key in keys if key in _MAIN],
            "further_keys": [key for key in keys if key not in _MAIN],
            "most": _MOST_CLASSES,
        },
    )


def _iou(entry: ClassResult) -> float:
    value = entry.score("iou").value
    return -1.0 if value is None else value


def all_scores(results: Results) -> Section:
    """List every score over all classes with its interval, n and meaning."""
    peer = None
    if results.evaluation.peer is not None:
        name, entries = results.evaluation.peer
        peer = name, [(entry.call, entry.says, Value.of("", entry.score)) for entry in entries]
    return Section("scores", "All scores", {"results": results, "peer": peer, "notes": _notes(results)})


def _notes(results: Results) -> list[tuple[str, str]]:
    """Describe how absent classes, ignored pixels and pixels without a predicted class were treated."""
    unassigned = results.evaluation.unassigned_pixels
    scores = results.evaluation.scores
    notes = [
        ("Convention.", _sentence(scores.convention)),
        ("Intervals.", _sentence(scores.interval)),
        ("Ignored pixels.", f"{count(scores.ignored_pixels)}, excluded from all scores."),
        ("Engine.", _engine(results.evaluation.engine or {})),
        ("Pixels without a predicted class.", f"{count(unassigned)}, counted as errors." if unassigned else ""),
        *(("Note.", notice) for notice in results.evaluation.notices[:_MOST_NOTES]),
    ]  # fmt: skip
    return [(name, text) for name, text in notes if text]


def _engine(facts: Mapping[str, Any]) -> str:
    words = [str(facts[key]) for key in ("name", "version", "precision", "why") if facts.get(key)]
    return f"{', '.join(words)}." if words else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def definitions(results: Results) -> Section:
    """Define every score that the page shows or links to."""
    used = {*results.score_keys, *results.class_score_keys, *_ALWAYS}
    if results.evaluation.tables.curve or results.evaluation.tables.reliability:
        used |= {"ece", "aurc", "confidence"}
    families = {
        name: {key: definition for key, definition in entries.items() if key in used}
        for name, entries in FAMILIES.items()
    }
    return Section("definitions", "Definitions", {"families": families, "symbols": SYMBOLS})
