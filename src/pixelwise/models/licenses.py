"""Terms of the weights that others made: what is known of them, and who has to agree.

Comes in: the README of a repository, the name of an encoder, terms as text. Goes out: terms as text, or a refusal. Knows
nothing of tensors or of where files come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pixelwise.errors import ConfigError

NVIDIA = "NVIDIA Source Code License for SegFormer: non-commercial"
UNKNOWN = "unknown"
_RESTRICTED = re.compile(r"\bnc\b|non-?commercial|research|amlr|seer-license|nvidia[ _-]source[ _-]code", re.I)
_ANCESTORS = re.compile(r"nvidia/(mit-b|segformer)", re.I)


def require_license(license: str, accepted: bool, what: str) -> None:
    """Refuse weights that allow no commercial use where nobody has said that this is fine.

    Raises:
        ConfigError: nobody has.
    """
    if not accepted and _RESTRICTED.search(license):
        raise ConfigError(
            f"weights {what}",
            expected="a licence that you have accepted",
            found=license,
            do="Read it, and add --accept-license where your use is allowed; it is written into model.json.",
        )


def license_of_repository(readme: Path, config: Mapping[str, Any], where: str = "") -> str:
    """Read the terms of a checkpoint from the header of its README, and from what it says it descends from.

    SegFormer's published weights are NVIDIA's; a copy of which nobody says anything counts as one of them.

    Args:
        readme: README.md of the repository, which may be missing.
        config: plain form of its config.json.
        where: its name or folder.
    """
    header = _header(readme)
    ancestors = f"{where} {config.get('_name_or_path', '')} {header.get('base_model', '')}"
    if _ANCESTORS.search(ancestors):
        return NVIDIA
    said = header.get("license")
    said = " ".join(map(str, said)) if isinstance(said, list) else str(said or UNKNOWN)
    named = " ".join(str(header[key]) for key in ("license_name", "license_link") if header.get(key))
    terms = f"{said} ({named})" if named else said
    if said in (UNKNOWN, "other") and config.get("model_type") == "segformer":
        return f"{terms}; SegFormer's published weights: {NVIDIA}"
    return terms


def _header(readme: Path) -> dict[str, Any]:
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    parts = re.split(r"^---[ \t]*$", text, maxsplit=2, flags=re.M) if text.startswith("---") else []
    try:
        plain = yaml.safe_load(parts[1]) if len(parts) == 3 else None
    except (yaml.YAMLError, ValueError):  # an impossible date is a plain ValueError
        plain = None
    return plain if isinstance(plain, dict) else {}


def license_of_encoder(encoder: str) -> str:
    """Give the terms of the weights that segmentation_models.pytorch offers for an encoder; of timm's, the Hub tells."""
    if encoder.startswith("mit_"):
        return NVIDIA
    if encoder.startswith("tu-"):
        return ""
    return "CC-BY-NC-4.0" if kind_of_encoder(encoder) in ("ssl", "swsl", "instagram") else UNKNOWN


def kind_of_encoder(encoder: str) -> str:
    """Give which of the weights of an encoder of segmentation_models.pytorch the word imagenet means."""
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders.get(encoder, {}).get("pretrained_settings", {})
    return "imagenet" if "imagenet" in settings else str(next(iter(settings), "none"))
