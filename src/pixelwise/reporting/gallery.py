"""Images with their truth and prediction, and the places where the truth itself is in doubt.

Comes in: the plain scores, the classes, and a way to fetch an image with truth and prediction. Goes out: sections.
Knows nothing of models; only the images that are shown are fetched, each once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.errors import PixelwiseError
from pixelwise.labels import Labels
from pixelwise.reporting import thumbnails as images
from pixelwise.reporting.layout import Section, details, lead, paragraph, table
from pixelwise.reporting.markup import Child, Markup, join, named, tag
from pixelwise.reporting.numbers import count, decimal, percent
from pixelwise.reporting.thumbnails import Fetch, Panel, Seen

Plain = Mapping[str, Any]
# What all panels together may take, bytes before base64 makes a third more of them.
_BUDGET = 2_400_000
_LARGEST_PANEL = 60_000
_MOST_SUSPECTS, _MOST_LISTED = 12, 50
_SHOWN_CLASSES = 40
_GROUPS = {
    "all": ("Every image", "Worst first."),
    "worst": ("Worst", "The lowest mIoU of the image alone."),
    "median": ("Typical", "In the middle by the mIoU of the image alone."),
    "best": ("Best", "The highest mIoU of the image alone."),
    "area": (
        "Largest error of area",
        "Where the classes' areas are furthest from the truth, of the images not shown above.",
    ),
}
_TITLES = {"picture": "ExportImage", "truth": "Truth", "prediction": "Prediction", "difference": "Where they differ"}


@dataclass(frozen=True)
class _Shown:
    panels: Mapping[str, Panel]
    says: Mapping[str, str]
    note: str = ""


def galleries(scores: Plain, labels: Labels, fetch: Fetch | None) -> list[Section]:
    """Show the chosen images and the suspects; only lists without images where nothing fetches them."""
    chosen, suspects = images.choose(scores), list((scores.get("tables") or {}).get("suspects") or ())
    found: dict[str, _Shown] = {}
    if fetch is not None:
        found = _fetched(chosen, suspects[:_MOST_SUSPECTS], labels, fetch)
    sections = [_images(chosen, scores, labels, found) if fetch is not None else None, _suspects(suspects, found)]
    return [section for section in sections if section is not None]


def _fetched(
    chosen: Mapping[str, Sequence[str]], suspects: Sequence[Plain], labels: Labels, fetch: Fetch
) -> dict[str, _Shown]:
    """Fetch each image once, and keep small panels of it: by its id, and by "suspect" and its place."""
    wanted: dict[str, list[int]] = {id: [] for ids in chosen.values() for id in ids}
    whole = set(wanted)
    for place, suspect in enumerate(suspects):
        wanted.setdefault(str(suspect["id"]), []).append(place)
    budget = min(_BUDGET // max(4 * len(whole) + 3 * len(suspects), 1), _LARGEST_PANEL)
    found: dict[str, _Shown] = {}
    for id, places in wanted.items():
        try:
            seen, cut = images.flat(fetch(id), labels.ignore_index)
        except PixelwiseError as error:
            found |= {key: _Shown({}, {}, str(error)) for key in (id, *(f"suspect {place}" for place in places))}
            continue
        note = "" if cut is None else f"slice {cut}, the one with the most errors"
        if id in whole:
            found[id] = _shown(seen, labels, budget, note)
        for place in places:
            found[f"suspect {place}"] = _shown(images.crop(seen, suspects[place]["box"]), labels, budget)
    return found


def _shown(seen: Seen, labels: Labels, budget: int, note: str = "") -> _Shown:
    _, truth, prediction = seen
    wrong = (truth != prediction) & (truth != labels.ignore_index)
    says = {
        "picture": "the image itself",
        "truth": f"the truth: {_shares(truth, labels)}",
        "prediction": f"the prediction: {_shares(prediction, labels)}",
        "difference": f"{percent(float(wrong.mean()))} of the pixels differ",
    }
    return _Shown(images.panels(seen, labels, budget), says, note)


def _shares(mask: Any, labels: Labels) -> str:
    counts = np.bincount(mask.reshape(-1), minlength=labels.num_classes)[: labels.num_classes]
    most = np.argsort(-counts, kind="stable")[:4]
    return ", ".join(f"{labels.names[k]} {percent(counts[k] / mask.size)}" for k in most.tolist() if counts[k])


def _images(
    chosen: Mapping[str, Sequence[str]], scores: Plain, labels: Labels, found: Mapping[str, _Shown]
) -> Section | None:
    if not chosen:
        return None
    images = {str(one["id"]): one for one in scores.get("per_image") or ()}
    body: list[Child] = [
        lead(
            "Image, truth, prediction, and in magenta where they differ. White: void in the truth, left open in a prediction. "
            "mIoU is each image's own. Area error: over the classes, the sum of |predicted − true| pixels, by the counted pixels."
        ),
        legend(labels),
    ]
    for name, ids in chosen.items():
        title, says = _GROUPS[name]
        body += [tag("h3", title), paragraph(says, kind="quiet")]
        body += [_row(id, images.get(id) or {}, found[id]) for id in ids]
    return Section("pictures", "ImageIndex", join(body))


def _row(id: str, image: Plain, shown: _Shown) -> Markup:
    area = images.area_error(image)
    values = [
        f"mIoU {decimal(image.get('miou'))}",
        f"area error {percent(area)}",
        f"n {count(image.get('pixels'))} pixels",
    ]
    caption = tag("figcaption", tag("strong", named(id, 80)), " ", tag("span", " · ".join(values), class_="quiet"))
    note = paragraph(shown.note, kind="quiet") if shown.note else None
    return tag(
        "figure", caption, note, tag("div", _panels(id, shown, tuple(_TITLES)), class_="panels-row"), class_="picture"
    )


def _panels(id: str, shown: _Shown, names: Sequence[str]) -> list[Markup]:
    out = []
    for name in names:
        panel = shown.panels.get(name)
        if panel is None:
            continue
        alt, kind = f"{id}, {shown.says[name]}", "small" if panel.width < 120 else None
        image = tag(
            "img", src=panel.uri, width=panel.width, height=panel.height, alt=alt, decoding="async", class_=kind
        )
        out.append(tag("div", image, tag("small", _TITLES[name])))
    return out


def legend(labels: Labels) -> Markup:
    """Show which colour stands for which class."""
    chips = []
    for name, (r, g, b) in list(zip(labels.names, labels.colours, strict=True))[:_SHOWN_CLASSES]:
        swatch = tag("span", class_="swatch", style=f"background:rgb({r},{g},{b})", aria_hidden="true")
        chips.append(tag("li", swatch, named(name, 30)))
    if labels.num_classes > _SHOWN_CLASSES:
        chips.append(tag("li", f"and {count(labels.num_classes - _SHOWN_CLASSES)} more"))
    return tag("ul", chips, class_="legend")


def suspects_section(suspects: Sequence[Plain], labels: Labels, fetch: Fetch | None) -> Section | None:
    """Show regions where a sure model sees another class than the truth; None where there are none."""
    found = {} if fetch is None else _fetched({}, suspects[:_MOST_SUSPECTS], labels, fetch)
    return _suspects(suspects, found)


def _suspects(suspects: Sequence[Plain], found: Mapping[str, _Shown]) -> Section | None:
    if not suspects:
        return None
    body: list[Child] = [
        lead(
            "Regions where a sure model sees another class than the truth. Look at these labels first; the model may be wrong, too."
        )
    ]
    shown = [(place, one) for place, one in enumerate(suspects[:_MOST_SUSPECTS]) if f"suspect {place}" in found]
    cards = []
    for place, one in shown:
        seen = found[f"suspect {place}"]
        says = paragraph(_claim(one))
        where = tag("small", named(one.get("id"), 60), " · ", _place(one))
        note = paragraph(seen.note, kind="quiet") if seen.note else None
        row = tag(
            "div", _panels(str(one.get("id")), seen, ("picture", "truth", "prediction")), class_="panels-row three"
        )
        cards.append(tag("figure", row, tag("figcaption", says, where, note), class_="suspect"))
    if cards:
        body.append(tag("div", cards, class_="grid pair"))
    rest = suspects[len(shown) : _MOST_LISTED]
    rows = [[named(one.get("id"), 60), _claim(one), _place(one)] for one in rest]
    if rows:
        listed = table(["ExportImage", "What", "Where"], rows, "Further labels in doubt", kind="wordy")
        body.append(details(f"{count(len(rows))} more", listed) if cards else listed)
    return Section("suspects", "Labels in doubt", join(body))


def _claim(one: Plain) -> Markup:
    sure = percent(one.get("confidence"))
    return join(
        f"The model is {sure} sure that this ",
        named(one.get("truth"), 30),
        " is ",
        named(one.get("prediction"), 30),
        ".",
    )


def _place(one: Plain) -> str:
    top, left, bottom, right = (int(v) for v in one["box"])
    return f"rows {top}–{bottom}, columns {left}–{right}, {count(one.get('pixels'))} pixels"
