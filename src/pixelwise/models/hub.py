"""A model folder as a repository of the Hugging Face Hub: its README, the way there and back.

Comes in: a model folder, or the name of a repository. Goes out: a README that says what one should know before using the
model; the folder over there; a folder from there. Knows nothing of training. The network is used only where a name is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError, ModelFileError, ResourceError
from pixelwise.models.card import CARD, ModelCard, read_card
from pixelwise.models.catalogue import origin
from pixelwise.models.fetching import README, network_errors
from pixelwise.models.transformers import CONFIG, PROCESSOR
from pixelwise.models.weights import WEIGHTS
from pixelwise.storage import write_atomic

# Terms that the Hub knows by these words; others are "other", with a name.
_LISTED = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail", "unlicense",
)  # fmt: skip
_NAMED = 12
FILES = (WEIGHTS, CARD, README, CONFIG, PROCESSOR)


def readme(card: ModelCard) -> str:
    """Write the model card: data, classes, scores with intervals, licence, limits; with the Hub's header."""
    name = card.architecture["name"]
    lines = [
        *_header(card.license),
        "",
        f"# {name}: {_heading(card.labels.names)}",
        "",
        f"A semantic segmentation model ({name}, code of {origin(name)}): it gives every pixel one of {card.labels.num_classes} classes.",
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
        f"Images of {card.spec.channels} band{'s' * (card.spec.channels != 1)}, {card.spec.dtype}, raw values: ",
    ]
    lines[-1] += "normalisation is the model's first layer."
    trained = card.trained or {}
    if trained:
        begun = {"none": "fresh weights"}.get(str(trained.get("weights")), f"the weights {trained.get('weights')}")
        lines += [
            f"Trained on {trained.get('pictures')} images of {trained.get('data')}, beginning with {begun}.",
            "",
        ]
    lines += [f"SHA-256 over names and contents of the training part: `{card.data_hash or 'not recorded'}`.", ""]
    lines += ["## Scores", "", *_scores(card.scores or {}, card.calibration), ""]
    terms = "those of whoever trained it; ask them" if card.license == "user" else card.license
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
    """Give what the Hub reads: YAML between two lines of three hyphens."""
    known = license.lower() in _LISTED
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
    """Escape what Markdown and HTML would read as theirs: names of classes are anybody's text."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~<>&])", lambda found: f"&#{ord(found[1])};", " ".join(name.split()))


def _heading(names: Sequence[str]) -> str:
    """List classes, or some of many."""
    rest = len(names) - _NAMED
    shown = ", ".join(map(_plain, names[:_NAMED] if rest > 0 else names))
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
    mean = f"mIoU **{_interval(held_out, 'miou')}** on the {held_out['images']} images of the validation part, "
    return [
        mean + "which also chose the weights, in brackets 95 % intervals; n counts the images behind a row.",
        "",
        *rows,
        "",
        *_calibration(held_out, calibration),
        re.sub(
            r"[\\\\`*\[\]|!~<>&]", lambda found: f"&#{ord(found[0])};", " ".join(str(held_out["convention"]).split())
        ),
    ]


def _calibration(scores: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> list[str]:
    """Say how far its probabilities can be believed."""
    if not calibration or scores.get("ece") is None:
        return []
    return [
        f"Probabilities are those of logits divided by {calibration['temperature']:.3g}, fitted on the same part: expected "
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
        f"- Trained on {card.spec.dtype} images of {card.spec.channels} band{'s' * (card.spec.channels != 1)}; other cameras, places and seasons were not scored.",
        "- Every pixel gets one of the classes above, also where none of them is right.",
        "- The scores hold for images like those of the validation part.",
    ]


def write_readme(folder: Path) -> Path:
    """Write the README of a model folder beside its files."""
    card = read_card(folder)
    write_atomic(folder / README, readme(card))
    return folder / README


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Copy a model folder to the Hub, its README with it.

    Args:
        folder: the model folder.
        repository: OWNER/NAME; is made where it does not exist.
        private: make it private where it is new.

    Returns:
        Its address.

    Raises:
        ModelFileError: the folder is no whole model.
        ResourceError: the Hub cannot be reached, or does not let one in.
    """
    write_readme(folder)
    hub = _library()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES))
    except network_errors() as error:
        raise ResourceError(
            repository,
            expected="a Hub that can be reached and lets you in",
            found=_problem(error),
            do="Log in with `hf auth login`, or copy the folder yourself: it is a whole repository.",
        ) from error
    return f"https://huggingface.co/{repository}"


def pull(repository: str) -> Path:
    """Fetch a model folder from the Hub; what is in the cache already is not fetched again.

    Raises:
        ModelFileError: the repository holds no model of pixelwise.
        ResourceError: it cannot be reached.
    """
    try:
        folder = Path(_library().snapshot_download(repository, allow_patterns=list(FILES)))
    except network_errors() as error:
        raise ResourceError(
            repository,
            expected="a folder here, or a Hub that can be reached",
            found=f"neither ({_problem(error)})",
            do=f"Fetch {', '.join(FILES[:2])} from https://huggingface.co/{repository} into a folder, and name that.",
        ) from error
    if not (folder / CARD).is_file():
        raise ModelFileError(
            repository, expected=f"a repository with {CARD}", found="another kind", do="Use it with --weights instead."
        )
    return folder


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "the Hub",
            expected="the library huggingface_hub",
            found="it is not installed",
            do="Say: pip install 'pixelwise[models]'.",
        ) from error
    return huggingface_hub


def _problem(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
