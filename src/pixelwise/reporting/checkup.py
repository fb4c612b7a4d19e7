"""What is wrong with a data set, as one page: every finding with its fix and with images of the offenders.

Comes in: findings, classes and suspects as plain values, and a way to fetch an image with its mask. Goes out: one HTML
file. Knows nothing of how anything was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.findings import more
from pixelwise.errors import PixelwiseError
from pixelwise.imageio.images import to_rgb8
from pixelwise.labels import Labels
from pixelwise.reporting.gallery import legend, suspects_section
from pixelwise.reporting.layout import Cell, Section, details, grid, lead, paragraph, table
from pixelwise.reporting.markup import Child, Markup, join, named, tag
from pixelwise.reporting.numbers import count, percent, plural
from pixelwise.reporting.overlay import overlay
from pixelwise.reporting.page import document, today
from pixelwise.reporting.thumbnails import Fetch, encoded
from pixelwise.storage import write_atomic

Plain = Mapping[str, Any]
Look = Callable[[str, int], tuple[str, NDArray[Any], NDArray[Any] | None]]

_BUDGET, _LARGEST = 2_400_000, 24_000
_MOST_SHOWN, _WIDTH = 6, 320
_TITLES = {"error": "Errors", "warning": "Warnings", "notice": "Notices"}
_MEANS = {
    "error": "Training would stop, or be worthless.",
    "warning": "Training works, but results or scores would suffer.",
    "notice": "Good to know.",
}


def write_checkup(
    path: str | Path, plain: Plain, *, labels: Labels, look: Look | None = None, fetch: Fetch | None = None
) -> None:
    """Write the page of a check as one HTML file.

    Args:
        path: the file, written whole or not at all.
        plain: "data", "parts" (images per part), "classes", "findings", and "suspects" with "model" where one was asked.
        labels: names and colours of the classes.
        look: gives name, image (C, H, W) and mask (H, W) of (part, index); called once for each image that is shown.
        fetch: gives (image, truth, prediction) of a suspect's id.

    Raises:
        ResourceError: the file cannot be written.
    """
    findings = list(plain.get("findings") or ())
    thumbnails = {} if look is None else _thumbnails(findings, labels, look)
    sections = [
        *(section for kind in _TITLES if (section := _group(kind, findings, thumbnails, labels)) is not None),
        _classes(plain, labels),
        suspects_section(list(plain.get("suspects") or ()), labels, fetch),
    ]
    head = _masthead(plain, findings)
    whole = [section for section in sections if section is not None]
    write_atomic(Path(path), document(f"check of {plain.get('data')}", head, whole, "Skip to the findings"))


def _masthead(plain: Plain, findings: Sequence[Plain]) -> Markup:
    splits = dict(plain.get("parts") or {})
    facts = [f"{name} {count(many)}" for name, many in splits.items()]
    facts = [plural(sum(splits.values()), "image"), *facts, plural(len(plain.get("classes") or ()), "class"), today()]
    figures = []
    for kind, title in _TITLES.items():
        many = sum(one["severity"] == kind for one in findings)
        value = (
            tag("a", tag("span", count(many), class_="medium"), href=f"#{kind}s")
            if many
            else tag("span", "0", class_="medium")
        )
        figures.append(tag("div", value, title, paragraph(_MEANS[kind], kind="quiet"), class_="small-multiple"))
    origin = [
        tag("li", f"{name} ", tag("code", named(plain[name], 90))) for name in ("data", "model") if plain.get(name)
    ]
    return tag(
        "header",
        tag("p", "Data check", class_="eyebrow"),
        tag("h1", named(Path(str(plain.get("data") or "")).name or plain.get("data"), 90)),
        tag("ul", [tag("li", fact) for fact in facts], class_="facts-line"),
        tag("ul", origin, class_="facts-line origin"),
        paragraph(_verdict(findings), kind="plain"),
        grid(figures, "figures"),
    )


def _verdict(findings: Sequence[Plain]) -> str:
    blocking = sum(one["severity"] == "error" for one in findings)
    if blocking:
        return f"{plural(blocking, 'finding')} would block training or make it worthless. Each says how to mend it."
    if any(one["severity"] == "warning" for one in findings):
        return "The data can be trained on; the warnings would cost quality, or flatter the scores."
    return "The data can be trained on."


def _group(
    kind: str, findings: Sequence[Plain], thumbnails: Mapping[tuple[str, int], Markup], labels: Labels
) -> Section | None:
    own = [one for one in findings if one["severity"] == kind]
    if not own:
        return None
    any_shown = any(tuple(example) in thumbnails for one in own for example in one.get("examples") or ())
    body: list[Child] = [lead(_MEANS[kind]), legend(labels) if any_shown else None]
    kinds = [str(one["kind"]) for one in own]
    body += [_finding(one, thumbnails, kinds[:k].count(kinds[k])) for k, one in enumerate(own)]
    return Section(f"{kind}s", _TITLES[kind], join(body))


def _finding(one: Plain, thumbnails: Mapping[tuple[str, int], Markup], before: int) -> Markup:
    """Show a finding; `before` findings of its kind and severity stand above it."""
    where = [tag("li", tag("code", named(name, 160))) for name in one.get("where") or ()]
    rest = more(one.get("where") or (), int(one.get("count") or 0))
    if rest:
        where.append(tag("li", f"and {count(rest)} more"))
    shown = [thumbnails[key] for e in one.get("examples") or () if (key := (e[0], int(e[1]))) in thumbnails]
    return tag(
        "article",
        tag("h3", one["what"]),
        paragraph(one["why"]),
        tag("p", one["fix"], class_="fix") if one.get("fix") else None,
        grid(shown[:_MOST_SHOWN], "thumbnails paired" if one.get("paired") else "thumbnails") if shown else None,
        details(f"Where ({count(len(one['where']) + rest)})", tag("ul", where, class_="files")) if where else None,
        class_=f"finding {one['severity']}",
        id=f"{one['kind']}-{before + 1}" if before else str(one["kind"]),
    )


def _thumbnails(findings: Sequence[Plain], labels: Labels, look: Look) -> dict[tuple[str, int], Markup]:
    """Fetch each image that is shown once, and keep it small: beside it, the mask laid over it."""
    wanted: dict[tuple[str, int], None] = {}
    for one in findings:
        for split, index in list(one.get("examples") or ())[:_MOST_SHOWN]:
            wanted[split, int(index)] = None
    budget = min(_BUDGET // max(2 * len(wanted), 1), _LARGEST)
    made = {}
    for split, index in wanted:
        try:
            name, image, mask = look(split, index)
        except PixelwiseError as error:
            made[split, index] = tag("figure", paragraph(str(error), kind="quiet"))
            continue
        step = max(1, min(image.shape[1:]) // _WIDTH)
        image = image[:, ::step, ::step]
        shown = [(to_rgb8(image), "image")]
        if mask is not None:
            shown.append((overlay(image, mask[::step, ::step], labels), "its mask laid over it"))
        images = [_image(pixels, f"{split}, {name}: {says}", budget) for pixels, says in shown]
        caption = tag("small", f"{split} · ", named(name, 60))
        made[split, index] = tag("figure", tag("div", images, class_="panels-row two"), caption)
    return made


def _image(pixels: NDArray[np.uint8], alt: str, budget: int) -> Markup:
    panel = encoded(pixels, budget)
    kind = "small" if panel.width < 120 else None
    return tag("img", src=panel.uri, width=panel.width, height=panel.height, alt=alt, decoding="async", class_=kind)


def _classes(plain: Plain, labels: Labels) -> Section | None:
    """Show how often each class occurs, by part."""
    classes, splits = list(plain.get("classes") or ()), list(plain.get("parts") or {})
    total = sum(sum(one["pixels"].values()) for one in classes)
    if not classes or not total:
        return None
    head: list[Child] = ["Class", "Share of the pixels", *(f"Images in {split}" for split in splits)]
    rows: list[list[Child | Cell]] = []
    for one, colour in zip(classes, labels.colours, strict=False):
        share = sum(one["pixels"].values()) / total
        swatch = tag("span", class_="swatch inline", style=f"background:rgb{tuple(colour)}", aria_hidden="true")
        cells: list[Child | Cell] = [
            join(swatch, " ", named(one["name"], 40)),
            Cell(percent(share), share, "number hit", 100 * share),
        ]
        for split in splits:
            many, of = int(one["pictures"].get(split, 0)), int(plain["parts"][split])
            cells.append(
                Cell(f"{count(many)} of {count(of)}", many, "number" if many else "number miss", None if many else 60)
            )
        rows.append(cells)
    body = table(head, rows, "How often each class occurs", kind="heat", sortable=True)
    ignored = plain.get("ignored_share")
    note = paragraph(f"{percent(ignored)} of the pixels are ignored.", kind="quiet") if ignored else None
    return Section("classes", "Classes", join(lead("Over all parts, of the pixels that count."), body, note))
