"""The README of a model folder, which is its model card on the Hugging Face Hub: `templates/README.md`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pixelwise.models.card import ModelCard, read_card
from pixelwise.models.catalogue import origin
from pixelwise.storage import write_atomic

# Licence identifiers of the Hub; others are written as "other" with a name.
_HUB_LICENSES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail", "unlicense",
)  # fmt: skip
README = "README.md"
_MAX_CLASSES_IN_HEADING = 12
_COLUMNS = {"iou": "IoU", "dice": "Dice", "boundary_iou": "boundary IoU"}


def write_readme(folder: Path) -> None:
    """Write the README of a model folder."""
    write_atomic(folder / README, readme(read_card(folder)))


def readme(card: ModelCard) -> str:
    """Return the README of a model, with the YAML header that the Hub reads."""
    labels, spec = card.labels, card.spec
    license = card.license.lower()
    scores = (card.scores or {}).get("val") or {}
    trained = card.trained or {}
    weights = trained.get("weights")
    return _environment().get_template("README.md").render(
        card=card,
        name=card.architecture["name"],
        origin=origin(card.architecture["name"]),
        hub_license=license if license in _HUB_LICENSES else "other",
        license_name=re.sub(r"[^a-z0-9.]+", "-", license).strip("-"),
        heading=_heading(labels.names),
        classes=list(zip(labels.ids, labels.names, labels.countable, strict=True)),
        bands=f"{spec.channels} band{'s' * (spec.channels != 1)} of {spec.dtype or 'any type'}",
        trained=trained,
        # Cards of earlier versions have the number of images under the other key.
        images=trained.get("images", trained.get("pictures")),
        initial="random weights" if weights == "none" else f"the weights {weights}",
        scores=scores,
        columns={k: v for k, v in _COLUMNS.items() if any(k in entry for entry in scores.get("classes", ()))},
        calibration=card.calibration if scores.get("ece") is not None else None,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pixelwise.models"),
        autoescape=False,  # Markdown: `plain` escapes what comes from the data
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "interval": _interval}
    return environment


def _plain(text: str) -> str:
    """Escape the markup characters of Markdown and HTML."""
    return re.sub(r"[\\`*_{}\[\]()#+!|~<>&]", lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))


def _heading(names: tuple[str, ...]) -> str:
    """Return the class names, shortened if there are many."""
    shown = ", ".join(map(_plain, names[:_MAX_CLASSES_IN_HEADING]))
    rest = len(names) - _MAX_CLASSES_IN_HEADING
    return f"{shown} and {rest} more" if rest > 0 else shown


def _interval(scores: Mapping[str, Any], key: str) -> str:
    value, low, high = (scores.get(f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    interval = "" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    return f"{100 * value:.1f} %{interval}"
