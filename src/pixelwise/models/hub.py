"""Model folders as repositories of the Hugging Face Hub: the README with the model card, upload and download."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.errors import ModelFileError, ResourceError
from pixelwise.models.card import CARD, ModelCard, read_card
from pixelwise.models.catalogue import origin
from pixelwise.models.fetching import README, network_errors
from pixelwise.models.transformers import CONFIG, PROCESSOR
from pixelwise.models.weights import WEIGHTS
from pixelwise.storage import write_atomic

# Licence identifiers of the Hub; others are written as "other" with a name.
_HUB_LICENSES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail", "unlicense",
)  # fmt: skip
_MAX_CLASSES_IN_HEADING = 12
FILES = (WEIGHTS, CARD, README, CONFIG, PROCESSOR)


def readme(card: ModelCard) -> str:
    """Return the README of a model: classes, data, scores with intervals, licence and limits, with the header of the Hub."""
    name = card.architecture["name"]
    lines = [
        *_header(card.license),
        "",
        f"# {name}: {_heading(card.labels.names)}",
        "",
        f"A semantic segmentation model ({name}, code from {origin(name)}). It assigns one of {card.labels.num_classes} classes to every pixel.",
        "",
        "```python",
        "import pixelwise",
        'model = pixelwise.load("this folder, or its name on the Hub")',
        'mask = model.predict("image.png").mask    # (H, W) class indices',
        "```",
        "",
        "## Classes",
        "",
        "| id | class | counted as objects |",
        "|---|---|---|",
    ]
    labels = card.labels
    lines += [
        f"| {i} | {_plain(n)} | {'yes' if c else 'no'} |"
        for i, n, c in zip(labels.ids, labels.names, labels.countable, strict=True)
    ]
    lines += [
        "",
        "## Data",
        "",
        f"Images of {card.spec.channels} band{'s' * (card.spec.channels != 1)}, {card.spec.dtype}, raw pixel values: ",
    ]
    lines[-1] += "normalisation is the first layer of the model."
    trained = card.trained or {}
    if trained:
        initial = {"none": "random weights"}.get(str(trained.get("weights")), f"the weights {trained.get('weights')}")
        lines += [f"Trained on {trained.get('pictures')} images of {trained.get('data')}, starting from {initial}.", ""]
    lines += [f"SHA-256 over names and contents of the training split: `{card.data_hash or 'not recorded'}`.", ""]
    lines += ["## Scores", "", *_scores(card.scores or {}, card.calibration), ""]
    terms = "chosen by the owner of the model; not stated here" if card.license == "user" else card.license
    lines += [
        "## Licence of the weights",
        "",
        f"{terms[0].upper()}{terms[1:]}.",
        "",
        "## Limits",
        "",
        *_limits(card),
        "",
    ]
    return "\n".join(lines)


def _header(license: str) -> list[str]:
    """Return the YAML header that the Hub reads."""
    known = license.lower() in _HUB_LICENSES
    named = [] if known else [f"license_name: {re.sub(r'[^a-z0-9.]+', '-', license.lower()).strip('-')}"]
    return [
        "---",
        "library_name: pixelwise",
        "pipeline_tag: image-segmentation",
        "tags: [semantic-segmentation]",
        f"license: {license.lower() if known else 'other'}",
        *named,
        "---",
    ]


def _plain(name: str) -> str:
    """Escape the markup characters of Markdown and HTML in a class name."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~<>&])", lambda found: f"&#{ord(found[1])};", " ".join(name.split()))


def _heading(names: Sequence[str]) -> str:
    """Return the class names, shortened if there are many."""
    rest = len(names) - _MAX_CLASSES_IN_HEADING
    shown = ", ".join(map(_plain, names[:_MAX_CLASSES_IN_HEADING] if rest > 0 else names))
    return f"{shown} and {rest} more" if rest > 0 else shown


def _scores(scores: Mapping[str, Any], calibration: Mapping[str, Any] | None = None) -> list[str]:
    held_out = scores.get("val")
    if not isinstance(held_out, Mapping):
        return ["Not scored yet."]
    keys = [("IoU", "iou"), ("Dice", "dice"), ("boundary IoU", "boundary_iou")]
    keys = [(title, key) for title, key in keys if any(key in entry for entry in held_out["classes"])]
    rows = [f"| class | {' | '.join(title for title, _ in keys)} | n |", "|---" * (len(keys) + 2) + "|"]
    for entry in held_out["classes"]:
        cells = " | ".join(_interval(entry, key) for _, key in keys)
        rows.append(f"| {_plain(entry['name'])} | {cells} | {entry.get('iou_n', '–')} |")
    mean = f"mIoU **{_interval(held_out, 'miou')}** on the {held_out['images']} images of the validation split, "
    return [
        mean + "which was also used to select the weights. 95 % intervals in brackets; n: number of images.",
        "",
        *rows,
        "",
        *_calibration(held_out, calibration),
        re.sub(
            r"[\\\\`*\[\]|!~<>&]", lambda found: f"&#{ord(found[0])};", " ".join(str(held_out["convention"]).split())
        ),
    ]


def _calibration(scores: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> list[str]:
    """Return a paragraph on the calibration of the probabilities."""
    if not calibration or scores.get("ece") is None:
        return []
    return [
        f"Logits are divided by a temperature of {calibration['temperature']:.3g}, fitted on the same split: expected "
        f"calibration error {_interval(scores, 'ece')}. Masks do not depend on it.",
        "",
    ]


def _interval(scores: Mapping[str, Any], key: str) -> str:
    value, low, high = (scores.get(f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" + (
        f" ({100 * low:.1f}–{100 * high:.1f})" if low is not None and high is not None else ""
    )


def _limits(card: ModelCard) -> list[str]:
    return [
        f"- Trained on {card.spec.dtype} images of {card.spec.channels} band{'s' * (card.spec.channels != 1)}; not evaluated on other cameras, places or seasons.",
        "- Every pixel is assigned one of the classes above, even if none of them applies.",
        "- The scores apply to images like those of the validation split.",
    ]


def write_readme(folder: Path) -> Path:
    """Write the README of a model folder."""
    card = read_card(folder)
    write_atomic(folder / README, readme(card))
    return folder / README


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload a model folder with its README to the Hub repository OWNER/NAME, which is created if it does not exist.

    Returns:
        The URL of the repository.

    Raises:
        ModelFileError: the folder is no complete model.
        ResourceError: the Hub cannot be reached, or access is denied.
    """
    import huggingface_hub

    write_readme(folder)
    try:
        huggingface_hub.create_repo(repository, private=private, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES))
    except network_errors() as error:
        raise ResourceError(
            repository,
            expected="access to the Hub",
            found=_problem(error),
            do="Log in with `hf auth login`, or upload the folder yourself: it is a complete repository.",
        ) from error
    return f"https://huggingface.co/{repository}"


def pull(repository: str) -> Path:
    """Download a model folder from the Hub, unless it is in the cache.

    Raises:
        ModelFileError: the repository contains no pixelwise model.
        ResourceError: the Hub cannot be reached.
    """
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(FILES)))
    except network_errors() as error:
        raise ResourceError(
            repository,
            expected="a local folder, or access to the Hub",
            found=f"neither ({_problem(error)})",
            do=f"Download {', '.join(FILES[:2])} from https://huggingface.co/{repository} to a folder, and use that.",
        ) from error
    if not (folder / CARD).is_file():
        raise ModelFileError(
            repository, expected=f"a repository with {CARD}", found="none", do="Use it with --weights instead."
        )
    return folder


def _problem(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
