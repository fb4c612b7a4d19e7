"""Write the findings of a data check as one self-contained HTML file, with fixes and example images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixelwise.checking.findings import more
from pixelwise.errors import PixelwiseError
from pixelwise.evaluation import Suspect
from pixelwise.imageio.images import to_rgb8
from pixelwise.labels import Labels
from pixelwise.reporting.gallery import fetch_views, suspects_section
from pixelwise.reporting.overlay import overlay
from pixelwise.reporting.rendering import Section, render_page
from pixelwise.reporting.thumbnails import Fetch, Panel, encode
from pixelwise.storage import write_atomic

Plain = Mapping[str, Any]
Example = tuple[str, int]
ReadExample = Callable[[str, int], tuple[str, NDArray[Any], NDArray[Any] | None]]

_BUDGET, _LARGEST = 2_400_000, 24_000
_MOST_SHOWN, _WIDTH = 6, 320
SEVERITIES = {
    "error": ("Errors", "Prevent training or make its result useless."),
    "warning": ("Warnings", "Training works, but the model or its scores are affected."),
    "notice": ("Notices", "For information."),
}


def write_checkup(
    path: str | Path,
    plain: Plain,
    *,
    labels: Labels,
    read_example: ReadExample | None = None,
    fetch: Fetch | None = None,
) -> None:
    """Write the page of a data check as one HTML file.

    Args:
        path: the HTML file, written atomically.
        plain: "data", "parts" (number of images by split), "classes", "findings", and "suspects" with "model" if a model
            was given.
        labels: names and colours of the classes.
        read_example: returns name, image (C, H, W) and mask (H, W) for (split, index); called once for each image shown.
        fetch: returns (image, annotated mask, predicted mask) for the id of a suspect.

    Raises:
        ResourceError: the file cannot be written.
    """
    findings = list(plain.get("findings") or ())
    suspects = [
        Suspect(**{key: value for key, value in suspect.items() if key != "part"})
        for suspect in plain.get("suspects") or ()
    ]
    thumbnails = {} if read_example is None else _thumbnails(findings, labels, read_example)
    views = {} if fetch is None else fetch_views({}, suspects, labels, fetch)[1]
    data = str(plain.get("data") or "")
    html = render_page(
        "check.html",
        f"check of {data}",
        [
            *(_findings(severity, findings, thumbnails, labels) for severity in SEVERITIES),
            _class_shares(plain, labels),
            suspects_section(suspects, views),
        ],
        name=Path(data).name or data,
        data=data,
        model=plain.get("model"),
        splits=plain.get("parts") or {},
        num_classes=len(plain.get("classes") or ()),
        severities=SEVERITIES,
        counts=dict.fromkeys(SEVERITIES, 0) | Counter(finding["severity"] for finding in findings),
    )
    write_atomic(Path(path), html)


def _findings(
    severity: str, findings: Sequence[Plain], thumbnails: Mapping[Example, Plain], labels: Labels
) -> Section | None:
    """Show the findings of one severity."""
    heading, meaning = SEVERITIES[severity]
    shown: list[dict[str, Any]] = []
    kinds: Counter[str] = Counter()
    for finding in findings:
        if finding["severity"] != severity:
            continue
        kind = str(finding["kind"])
        kinds[kind] += 1
        where = list(finding.get("where") or ())
        examples = [thumbnails[key] for key in _examples(finding) if key in thumbnails]
        shown.append(
            {
                "severity": severity,
                "id": kind if kinds[kind] == 1 else f"{kind}-{kinds[kind]}",
                "what": finding["what"],
                "why": finding["why"],
                "fix": finding.get("fix"),
                "paired": finding.get("paired"),
                "where": where,
                "more": more(where, int(finding.get("count") or 0)),
                "thumbnails": examples,
            }
        )
    if not shown:
        return None
    legend = labels if any(finding["thumbnails"] for finding in shown) else None
    values = {"meaning": meaning, "findings": shown, "labels": legend}
    return Section(f"{severity}s", heading, values, macro="findings")


def _examples(finding: Plain) -> list[Example]:
    return [(split, int(index)) for split, index in list(finding.get("examples") or ())[:_MOST_SHOWN]]


def _thumbnails(findings: Sequence[Plain], labels: Labels, read_example: ReadExample) -> dict[Example, Plain]:
    """Read each example once, and make thumbnails of the image and of the mask over the image."""
    examples = list(dict.fromkeys(example for finding in findings for example in _examples(finding)))
    budget = min(_BUDGET // max(2 * len(examples), 1), _LARGEST)
    made: dict[Example, Plain] = {}
    for split, index in examples:
        try:
            name, image, mask = read_example(split, index)
        except PixelwiseError as error:
            made[split, index] = {"note": str(error)}
            continue
        step = max(1, min(image.shape[1:]) // _WIDTH)
        image = image[:, ::step, ::step]
        panels = {"image": Panel("", "image", encode(to_rgb8(image), budget))}
        if mask is not None:
            panels["mask"] = Panel(
                "", "mask over the image", encode(overlay(image, mask[::step, ::step], labels), budget)
            )
        made[split, index] = {"note": "", "split": split, "name": name, "title": f"{split}, {name}", "panels": panels}
    return made


def _class_shares(plain: Plain, labels: Labels) -> Section | None:
    """Show how often each class occurs, by split."""
    classes = list(plain.get("classes") or ())
    splits = dict(plain.get("parts") or {})
    total = sum(sum(entry["pixels"].values()) for entry in classes)
    if not total:
        return None
    rows = [
        {
            "name": entry["name"],
            "colour": colour,
            "share": sum(entry["pixels"].values()) / total,
            "images": entry["pictures"],
        }
        for entry, colour in zip(classes, labels.colours, strict=False)
    ]
    heads = ["Class", "Share of pixels", *(f"Images in {split}" for split in splits)]
    values = {"heads": heads, "classes": rows, "splits": splits, "ignored_share": plain.get("ignored_share")}
    return Section("classes", "Classes", values, macro="class_shares")
