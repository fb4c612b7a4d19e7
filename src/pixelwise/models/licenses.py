"""Licences of pretrained weights, and whether the user must accept them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pixelwise.errors import ConfigError
from pixelwise.models import packaged

NVIDIA = "NVIDIA Source Code License for SegFormer: non-commercial"
UNKNOWN = "unknown"
_RESTRICTED = re.compile(r"\bnc\b|non-?commercial|research|amlr|seer-license|nvidia[ _-]source[ _-]code", re.I)
_ANCESTORS = re.compile(r"nvidia/(mit-b|segformer)", re.I)


def require_license(license: str, accepted: bool, what: str) -> None:
    """Raise if a licence excludes commercial use and was not accepted.

    Raises:
        ConfigError: the licence must be accepted.
    """
    if not accepted and _RESTRICTED.search(license):
        raise ConfigError(
            f"weights {what}",
            expected="a licence that you have accepted",
            found=license,
            do="Read it, and add --accept-license if it permits your use; it is recorded in model.json.",
        )


def license_of_repository(readme: Path, config: Mapping[str, Any], where: str = "") -> str:
    """Return the licence of a checkpoint, from the header of its README and the models that it derives from.

    The published weights of SegFormer are NVIDIA's; a SegFormer without a stated licence is assumed to derive from them.
    """
    header = _header(readme)
    ancestors = f"{where} {config.get('_name_or_path', '')} {header.get('base_model', '')}"
    if _ANCESTORS.search(ancestors):
        return NVIDIA
    license = header.get("license")
    license = " ".join(map(str, license)) if isinstance(license, list) else str(license or UNKNOWN)
    named = " ".join(str(header[key]) for key in ("license_name", "license_link") if header.get(key))
    terms = f"{license} ({named})" if named else license
    if license in (UNKNOWN, "other") and config.get("model_type") == "segformer":
        return f"{terms}; SegFormer's published weights: {NVIDIA}"
    return terms


def _header(readme: Path) -> dict[str, Any]:
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    parts = re.split(r"^---[ \t]*$", text, maxsplit=2, flags=re.M) if text.startswith("---") else []
    try:
        plain = yaml.safe_load(parts[1]) if len(parts) == 3 else None
    except (yaml.YAMLError, ValueError):  # an invalid date raises a plain ValueError
        plain = None
    return plain if isinstance(plain, dict) else {}


def license_of_encoder(encoder: str) -> str:
    """Return the licence of the weights of a segmentation_models.pytorch encoder.

    It is "" for encoders of timm without a package, whose Hub pages state it.
    """
    if encoder.startswith("mit_"):
        return NVIDIA
    if encoder.startswith("tu-"):
        weights = packaged.known(encoder[3:])
        return weights.license if weights else ""
    return "CC-BY-NC-4.0" if kind_of_encoder(encoder) in ("ssl", "swsl", "instagram") else UNKNOWN


def kind_of_encoder(encoder: str) -> str:
    """Return which weights of a segmentation_models.pytorch encoder `imagenet` stands for."""
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders.get(encoder, {}).get("pretrained_settings", {})
    return "imagenet" if "imagenet" in settings else str(next(iter(settings), "none"))
