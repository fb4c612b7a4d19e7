"""Where the numbers come from: data, configuration, machine, commands, and the definitions of all that was shown.

Comes in: a run folder's facts, what the caller says of the machine, and the plain scores. Goes out: sections. Knows
nothing of how any of it was made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pixelwise.metrics.definitions import DEFINITIONS, FAMILIES, SYMBOLS, Definition
from pixelwise.reporting.layout import Cell, Section, details, facts, lead, paragraph, table
from pixelwise.reporting.markup import Child, Markup, escape, join, named, tag
from pixelwise.reporting.numbers import NOTHING, count, percent, plural, short
from pixelwise.reporting.overview import class_keys, overall_keys
from pixelwise.reporting.runfolder import RunFolder
from pixelwise.types import Fingerprint

Plain = Mapping[str, Any]
_BETTER = {
    "higher": "Higher is better.",
    "lower": "Lower is better.",
    "neither": "Neither high nor low is good in itself.",
}
_SOURCE = re.compile(r"arXiv:(?P<arxiv>[0-9]{4}\.[0-9]{4,5})|doi:(?P<doi>10\.[^\s;]+(?:;[0-9])?)")
# Linked to by other parts beside those that the tables show.
_ALWAYS = ("miou", "iou", "recall", "precision", "pixel_accuracy")


def data(run: RunFolder, names: Sequence[str]) -> Section | None:
    """Show the facts of the training data; None without a fingerprint."""
    found = _fingerprint(run)
    if found is None:
        return None
    splits = _mapping(run.data.get("splits"))
    small, median, large = (_size(size) for size in found.sizes)
    entries: list[tuple[Child, Child]] = [
        ("ImageIndex", ", ".join(f"{name} {count(n)}" for name, n in _mapping(splits.get("images")).items())),
        ("Layout", splits.get("layout")),
        ("Root", named(splits["root"], 100) if splits.get("root") else None),
        ("Rows × columns", f"smallest {small}, median {median}, largest {large}"),
        ("Bands", f"{found.channels} of {found.dtype}"),
        ("Mean by band", ", ".join(f"{v:.4g}" for v in found.mean)),
        ("Deviation by band", ", ".join(f"{v:.4g}" for v in found.std)),
        ("Ignored pixels", percent(found.ignored_share)),
        ("Classes depend on the row", f"{found.row_spread:.2f} of 0…1"),
        ("SHA-256 of the training part", tag("code", found.hash)),
        ("Validation part", tag("code", run.data["val_hash"]) if run.data.get("val_hash") else None),
        ("Left out", plural(len(run.data["skipped"]), "file") if run.data.get("skipped") else None),
    ]
    says = lead("What the model learned from: the facts from which its configuration was derived.")
    shown = [(name, value) for name, value in entries if value]
    return Section("data", "Training data", join(says, facts(shown), _classes(found, names)))


def _fingerprint(run: RunFolder) -> Fingerprint | None:
    try:
        return Fingerprint.from_dict(run.data["fingerprint"])
    except (KeyError, TypeError, AttributeError):
        return None  # of a run that was stopped, or of another version


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _size(size: Sequence[int]) -> str:
    return " × ".join(count(n) for n in size)


def _classes(found: Fingerprint, names: Sequence[str]) -> Markup | None:
    if len(found.pixel_counts) != len(names):
        return None
    everything = sum(found.pixel_counts) or 1
    columns = zip(names, found.pixel_counts, found.image_counts, found.thickness, strict=False)
    rows: list[list[Child | Cell]] = []
    for name, n, shown, thick in columns:
        numbers = [
            Cell(percent(n / everything), n, "number"),
            Cell(short(n), n, "number"),
            Cell(count(shown), shown, "number"),
        ]
        rows.append(
            [Cell(named(name, 40), name), *numbers, Cell(NOTHING if thick is None else f"{thick:.1f}", thick, "number")]
        )
    heads = ["Class", "Share of pixels", "Pixels", "Images that show it", "Thickness, px"]
    return table(heads, rows, "Classes of the training data", kind="dense", sortable=True)


def configuration(run: RunFolder) -> Section | None:
    """Show every key of the configuration, with the reason where it was derived."""
    if run.settings:
        sections: dict[str, list[list[Child | Cell]]] = {}
        for one in run.settings:
            reason: Child = one.reason or None
            value = tag("code", one.value if len(one.value) <= 2000 else one.value[:2000] + "…")
            sections.setdefault(one.section, []).append(
                [Cell(one.key or one.section), Cell(value, kind="words"), Cell(reason, kind="words")]
            )
        derived = sum(bool(one.reason) for one in run.settings)
        text = f"All {count(len(run.settings))} settings of the run; the {count(derived)} that were derived say why."
        tables = [
            join(tag("h3", name), table(["Key", "Value", "Reason"], rows, f"Settings of {name}", kind="wordy"))
            for name, rows in sections.items()
        ]
        return Section("configuration", "Configuration", join(lead(text), details("Show all", tables)))
    if run.config:
        return Section("configuration", "Configuration", details("config.yaml", tag("pre", run.config)))
    return None


def repeat(environment: Mapping[str, Any] | None, commands: Sequence[str] | None) -> Section | None:
    """Show the machine, and how to get the same again."""
    body: list[Child] = []
    if commands:
        body += [tag("h3", "Commands"), tag("pre", "\n".join(commands))]
    if environment:
        body += [tag("h3", "Environment"), facts([(name, str(value)) for name, value in environment.items()])]
    return Section("repeat", "To repeat it", join(body)) if body else None


def definitions(scores: Plain) -> Section:
    """Define every score that the page shows."""
    used = {*overall_keys(scores), *class_keys(scores), *_ALWAYS}
    if (scores.get("tables") or {}).get("curve") or (scores.get("tables") or {}).get("reliability"):
        used |= {"ece", "aurc", "confidence"}
    body: list[Child] = [
        lead("What each score means. Beside every value stands n, the number of images on which it rests."),
        paragraph(SYMBOLS, kind="quiet"),
    ]
    for family, entries in FAMILIES.items():
        shown = [_definition(key, one) for key, one in entries.items() if key in used]
        if shown:
            body += [tag("h3", family), tag("div", shown, class_="definitions")]
    return Section("definitions", "Definitions", join(body))


def _definition(key: str, one: Definition) -> Markup:
    assert key in DEFINITIONS
    lines: list[tuple[Child, Child]] = [("Over", one.over), ("Unit", f"{one.unit}. {_BETTER[one.better]}")]
    if one.source:
        lines.append(("Source", _linked(one.source)))
    head = tag("h4", one.title, " ", tag("code", key))
    return tag(
        "article", head, paragraph(one.says), tag("p", one.formula, class_="formula"), facts(lines), id=f"def-{key}"
    )


def _linked(source: str) -> Markup:
    """Turn arXiv ids and DOIs into links."""
    parts: list[Markup] = []
    end = 0
    for match in _SOURCE.finditer(source):
        address = (
            f"https://arxiv.org/abs/{match['arxiv']}" if match["arxiv"] else f"https://doi.org/{quote(match['doi'])}"
        )
        parts += [escape(source[end : match.start()]), tag("a", match[0], href=address, rel="noreferrer")]
        end = match.end()
    return join(parts, source[end:])
