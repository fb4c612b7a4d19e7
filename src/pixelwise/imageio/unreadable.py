"""Kinds of image and volume files that are recognised by their names but cannot be read, and how to convert them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

IMAGE_SUFFIXES = (".heic", ".heif", ".tga", ".jxl", ".jxr", ".jls", ".psd", ".exr")
_BY_SLICER = (".mha", ".mhd")
_BY_NIBABEL = (".mgz", ".mgh")
VOLUME_SUFFIXES = (*_BY_SLICER, *_BY_NIBABEL)


def suffixes(paths: Collection[Path]) -> str:
    """Return the suffixes of files, as a list for messages."""
    return ", ".join(sorted({path.suffix.lower() for path in paths}))


def conversion(paths: Collection[Path]) -> str:
    """Return how to convert files of these kinds into some that can be read; "" without files."""
    volumes = [path for path in paths if path.suffix.lower() in VOLUME_SUFFIXES]
    advice = ["Save them as PNG, with the same values."] if len(volumes) < len(paths) else []
    if volumes:
        first = min(volumes)
        target = f"{first.name[: -len(first.suffix)]}.nii.gz"
        nibabel = first.suffix.lower() in _BY_NIBABEL
        calls = (
            f"nibabel.save(nibabel.load('{first.name}'), '{target}')"
            if nibabel
            else f"SimpleITK.WriteImage(SimpleITK.ReadImage('{first.name}'), '{target}')"
        )
        advice.append(f"Convert the volumes to NIfTI: {calls} in Python, or in 3D Slicer export them as .nii.gz.")
    return " ".join(advice)
