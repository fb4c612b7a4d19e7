"""The first look: the headline, what it means, and every score over all classes and of each class.

Comes in: the plain scores. Goes out: the head of the page and sections. Knows nothing of runs or images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pixelwise.metrics.definitions import DEFINITIONS, FAMILIES
from pixelwise.reporting.charts import whisker
from pixelwise.reporting.layout import Cell, Section, details, grid, lead, paragraph, table
from pixelwise.reporting.markup import Child, Markup, join, named, tag
from pixelwise.reporting.numbers import (
    Value,
    cell,
    count,
    decimal,
    interval,
    is_share,
    link,
    percent,
    plural,
    short,
    title_of,
    value_of,
)

Plain = Mapping[str, Any]
_KEY_FIGURES = ("mean_dice", "pixel_accuracy", "boundary_miou", "ece")
_MAIN = ("iou", "dice", "precision", "recall", "boundary_iou", "boundary_f1")
# Classes beyond so many are shown when asked for.
_MOST_ROWS = 40
_BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": "neither is better"}


def headline(scores: Plain) -> Markup:
    """Show the mIoU with its interval, the constant guess beside it, and what both mean in one sentence."""
    miou, baseline = value_of(scores, "miou"), value_of(scores.get("baseline") or {}, "miou").value
    guess = named((scores.get("baseline") or {}).get("answer", "one class"), 24)
    big = tag("p", link("miou"), tag("span", decimal(miou.value), class_="big"), class_="headline-value")
    beneath: list[Child] = [f"95\u00a0% interval {interval(miou)}" if miou.bounded else "no interval"]
    if miou.n is not None:
        beneath.append(f" · n\u00a0{count(miou.n)} images" if miou.n != 1 else " · n\u00a01 image")
    says = f"mIoU {decimal(miou.value)}, interval {interval(miou) or 'none'}, constant guess {decimal(baseline)}"
    chart = whisker(miou.value, miou.low, miou.high, says, reference=baseline)
    scale = tag("div", tag("span", "0"), tag("span", "1"), class_="scale", aria_hidden="true")
    parts: list[Child] = [big, paragraph(beneath, kind="quiet")]
    told: Child = None
    if baseline is not None:
        left = min(max(100 * baseline, 0.0), 100.0)
        # On whichever side there is more room.
        side, place = ("left", left) if left <= 50 else ("right", 100 - left)
        style = f"{side}:{place:.2f}%;max-width:{100 - place:.2f}%"
        told = tag("div", tag("span", "always “", guess, f"” {decimal(baseline)}", style=style), class_="told")
    plot = tag("div", told, chart, scale, class_="headline-plot")
    return tag("div", tag("div", parts), tag("div", plot, paragraph(sentence(scores), kind="plain")), class_="headline")


def sentence(scores: Plain) -> Markup:
    """Say in plain words what the headline means."""
    miou, images = value_of(scores, "miou"), int(scores.get("images") or 0)
    classes, excluded = len(scores.get("classes") or ()), len(scores.get("excluded") or ())
    if miou.value is None:
        return join("No class has a union of truth and prediction, so there is no mIoU.")
    over = f"the {plural(classes - excluded, 'class')}" if classes - excluded != 1 else "the one class"
    left = f" ({count(excluded)} that occur nowhere are left out)" if excluded else ""
    text = f"On {plural(images, 'image')}, prediction and truth overlap by {percent(miou.value)} on average over {over}{left}."
    if miou.bounded:
        low, high = miou.bounded
        text += f" With other images of the same kind it would likely be between {percent(low)} and {percent(high)}."
    baseline = scores.get("baseline") or {}
    guess = value_of(baseline, "miou").value
    if guess is None:
        return join(text)
    accuracy = value_of(baseline, "pixel_accuracy").value
    right = f" and be right at {percent(accuracy)} of the pixels" if accuracy is not None else ""
    return join(
        text, " Always answering “", named(baseline.get("answer", ""), 40), f"” would give {percent(guess)}{right}."
    )


def key_figures(scores: Plain) -> Markup | None:
    """Show a few scores over all classes in small, where they are known."""
    known = [value_of(scores, key) for key in _KEY_FIGURES if value_of(scores, key).value is not None]
    if not known:
        return None
    return grid([_small(value, _reference(scores, value.key)) for value in known], "figures")


def _reference(scores: Plain, key: str) -> float | None:
    return value_of(scores.get("baseline") or {}, key).value


def _small(value: Value, reference: float | None) -> Markup:
    said = f"{title_of(value.key)} {decimal(value.value, value.key)}, interval {interval(value) or 'none'}"
    better = _BETTER[DEFINITIONS[value.key].better]
    beneath = " · ".join(part for part in (interval(value), f"n\u00a0{count(value.n)}") if part)
    chart = whisker(value.value, value.low, value.high, said, reference=reference)
    shown = tag("span", decimal(value.value, value.key), class_="medium")
    return tag(
        "div", link(value.key), shown, chart, tag("small", beneath), tag("small", better), class_="small-multiple"
    )


def all_scores(scores: Plain) -> Section:
    """List every score over all classes with interval, n and meaning."""
    rows: list[list[Child | Cell]] = []
    for key in overall_keys(scores):
        value = value_of(scores, key)
        better = _BETTER[DEFINITIONS[key].better]
        rows.append(
            [
                link(key),
                Cell(decimal(value.value, key), kind="number"),
                Cell(interval(value) or "–", kind="number"),
                Cell(count(value.n), kind="number"),
                Cell(
                    join(DEFINITIONS[key].says, " ", tag("small", f"{DEFINITIONS[key].unit}, {better}.")), kind="words"
                ),
            ]
        )
    body: list[Child] = [lead("Each name leads to the definition: formula, what it is taken over, and source.")]
    body.append(
        table(["Score", "Value", "95 % interval", "n", "What it says"], rows, "Scores over all classes", kind="scores")
    )
    body += [_peer(scores)]
    notes = [paragraph(tag("strong", name), " ", text, kind="quiet") for name, text in _notes(scores)]
    return Section("scores", "All scores", join(body, notes))


def overall_keys(scores: Plain) -> list[str]:
    """Give the keys of defined scores over all classes, in the order of the definitions."""
    return [key for family in FAMILIES.values() for key in family if key in scores and f"{key}_n" in scores]


def class_keys(scores: Plain) -> list[str]:
    """Give the keys of scores of classes, in the order of the definitions; unknown ones last."""
    held = {key for row in scores.get("classes") or () for key in row}
    keys = [key.removesuffix("_n") for key in held if key.endswith("_n")]
    known = [key for key in DEFINITIONS if key in keys]
    return known + sorted(set(keys) - set(known))


def _notes(scores: Plain) -> list[tuple[str, str]]:
    """Say how absent classes, void pixels and open ones were treated."""
    notes = [("Convention.", _capital(scores.get("convention"))), ("Intervals.", _capital(scores.get("interval")))]
    notes.append(("Ignored pixels.", f"{count(scores.get('ignored_pixels'))}; they count in nothing."))
    if scores.get("unassigned_pixels"):
        text = f"{count(scores['unassigned_pixels'])} counted pixels that the prediction gave no class; misses of their class."
        notes.append(("Open pixels.", text))
    if scores.get("excluded") and not scores.get("convention"):
        notes.append(("Left out of the means.", ", ".join(map(str, scores["excluded"][:50]))))
    notes += [("Note.", str(text)) for text in (scores.get("notices") or ())[:50]]
    return [(name, text) for name, text in notes if text]


def _capital(text: Any) -> str:
    text = str(text or "")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _peer(scores: Plain) -> Markup | None:
    peer = scores.get("peer")
    if not peer:
        return None
    rows: list[list[Child | Cell]] = []
    for one in peer.get("scores") or ():
        value = value_of(one, "value")
        shown = [decimal(value.value), interval(value) or "–", count(value.n)]
        rows.append(
            [
                tag("code", one.get("call")),
                *(Cell(text, kind="number") for text in shown),
                Cell(one.get("says"), kind="words"),
            ]
        )
    head = ["Call", "Value", "95 % interval", "n", "Rule"]
    name = peer.get("convention")
    inner = table(head, rows, f"The same masks by the rule of {name}")
    return join(tag("h3", f"The same masks by the rules of {name}"), inner)


def by_class(scores: Plain) -> Section | None:
    """Show each class: IoU as dot and whisker, and all its scores in a table."""
    classes: Sequence[Plain] = scores.get("classes") or ()
    if not classes:
        return None
    ranked = sorted(classes, key=_by_iou, reverse=True)
    rows = [_class_row(row) for row in ranked]
    ends = tag("div", tag("span"), tag("div", tag("span", "0"), tag("span", "1"), class_="scale"), tag("span"))
    chart: Child = join(
        tag("ol", rows[:_MOST_ROWS], class_="whiskers"), tag("div", ends, class_="whiskers", aria_hidden="true")
    )
    if len(rows) > _MOST_ROWS:
        rest = tag("ol", rows[_MOST_ROWS:], class_="whiskers")
        chart = join(chart, details(f"The other {count(len(rows) - _MOST_ROWS)} classes", rest))
    keys = class_keys(scores)
    main, more = [k for k in keys if k in _MAIN], [k for k in keys if k not in _MAIN]
    body: list[Child] = [
        lead(link("iou"), " of each class, best first: the value as a dot, its 95\u00a0% interval as a line.")
    ]
    whole = _class_table(classes, main)
    body += [chart, tag("h3", "Every score of every class")]
    body.append(whole if len(rows) <= _MOST_ROWS else details(f"All {count(len(rows))} classes", whole))
    if more:
        body.append(details("Further scores of every class", _class_table(classes, more)))
    return Section("classes", "Scores by class", join(body))


def _by_iou(row: Plain) -> float:
    value = value_of(row, "iou").value
    return -1.0 if value is None else value


def _class_row(row: Plain) -> Markup:
    value = value_of(row, "iou")
    says = f"IoU {decimal(value.value)}, interval {interval(value) or 'none'}"
    numbers = join(tag("span", decimal(value.value), class_="v"), tag("small", f"n\u00a0{count(value.n)}"))
    chart = whisker(value.value, value.low, value.high, says)
    return tag("li", tag("span", named(row.get("name"), 40), class_="who"), chart, tag("span", numbers, class_="what"))


def _class_table(classes: Sequence[Plain], keys: Sequence[str]) -> Markup:
    rows: list[list[Child | Cell]] = []
    for row in classes:
        values = [value_of(row, key) for key in keys]
        cells = [Cell(cell(value), value.value, "number") for value in values]
        pixels = row.get("pixels")
        name = Cell(named(row.get("name"), 40), str(row.get("name")))
        rows.append([name, *cells, Cell(short(pixels or 0), pixels, "number")])
    heads: list[Child] = ["Class", *(_head(key) for key in keys), "True pixels"]
    return table(
        heads, rows, f"Scores by class: {', '.join(title_of(key) for key in keys)}", kind="dense", sortable=True
    )


def _head(key: str) -> Markup:
    unit = None if is_share(key) or key not in DEFINITIONS else tag("small", DEFINITIONS[key].unit)
    return join(link(key), unit)
