"""Images of masks over images, for people to look at.

Comes in: an image, masks, labels. Goes out: RGB arrays and PNG files. Knows nothing of models or of where masks come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise.imageio.images import to_rgb8
from pixelwise.labels import Labels
from pixelwise.storage import atomic_path

_VOID = (255, 255, 255)
_GAP = 6
# Rows that are mixed at once: floats of a whole scene would take ten times its memory.
_STRIP = 256
_INK = (226, 228, 234)
_PAPER = (24, 26, 31)


def colourise(mask: NDArray[Any], labels: Labels) -> NDArray[np.uint8]:
    """Paint class indices (H, W) in their colours, ignored pixels white: (H, W, 3) uint8."""
    table = np.full((labels.ignore_index + 1, 3), _VOID, np.uint8)
    table[: labels.num_classes] = labels.colours
    return table[mask]


def overlay(image: NDArray[Any], mask: NDArray[Any], labels: Labels, opacity: float = 0.55) -> NDArray[np.uint8]:
    """Lay a mask over its image: tinted areas with a darker rim. The first class stays clear where it is a background.

    Args:
        image: (C, H, W) raw values.
        mask: (H, W) class indices.
        labels: colours and names.
        opacity: share of the colour in the mix, 0…1.

    Returns:
        (H, W, 3) uint8.
    """
    rgb, rim = to_rgb8(image), _rim(mask)
    clear = labels.names[0].lower() in {"background", "other", "nothing", "unlabelled"}
    mixed = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(mask), _STRIP):
        rows = slice(top, top + _STRIP)
        below, paint = rgb[rows].astype(np.float32), colourise(mask[rows], labels).astype(np.float32)
        strength = np.full(paint.shape[:2], opacity, np.float32)
        if clear:
            strength[mask[rows] == 0] = 0
        below += (paint - below) * strength[..., None]
        below[rim[rows]] *= 0.45
        mixed[rows] = np.clip(below + 0.5, 0, 255).astype(np.uint8)
    return mixed


def _rim(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the pixels whose right or lower neighbour is of another class."""
    rim = np.zeros(mask.shape, bool)
    rim[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    rim[:-1] |= mask[:-1] != mask[1:]
    return rim


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")


def contact_sheet(
    rows: Sequence[tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]], labels: Labels, width: int = 320
) -> NDArray[np.uint8]:
    """Lay out image | truth | prediction | where they differ, a row per image, with a legend of the classes.

    Args:
        rows: (image (C, H, W), truth (H, W) or None, prediction (H, W)).
        labels: colours and names.
        width: of one panel, pixels.
    """
    titles = ["image", "truth", "prediction", "differs"]
    strips = [np.concatenate(_with_gaps([_fit(p, width) for p in _panels(*row, labels)], 1), 1) for row in rows]
    total = max(s.shape[1] for s in strips)
    body = np.concatenate(_with_gaps([_pad_right(s, total) for s in strips], 0), 0)
    return np.concatenate([_title_bar(titles, width, total), body, _legend(labels, total)], 0)


def _panels(
    image: NDArray[Any], truth: NDArray[Any] | None, prediction: NDArray[Any], labels: Labels
) -> list[NDArray[np.uint8]]:
    rgb = to_rgb8(image)
    if truth is None:
        return [rgb, np.full_like(rgb, _PAPER[0]), overlay(image, prediction, labels), rgb // 3]
    wrong = (truth != prediction) & (truth != labels.ignore_index)
    differs = (rgb // 4).astype(np.uint8)
    differs[wrong] = colourise(prediction, labels)[wrong]
    return [rgb, overlay(image, truth, labels), overlay(image, prediction, labels), differs]


def _fit(panel: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    height = max(round(panel.shape[0] * width / panel.shape[1]), 1)
    return np.asarray(Image.fromarray(panel).resize((width, height), Image.Resampling.LANCZOS))


def _with_gaps(panels: list[NDArray[np.uint8]], axis: int) -> list[NDArray[np.uint8]]:
    out: list[NDArray[np.uint8]] = []
    for panel in panels:
        shape = (panel.shape[0], _GAP, 3) if axis == 1 else (_GAP, panel.shape[1], 3)
        out += [panel, np.full(shape, _PAPER, np.uint8)]
    return out[:-1]


def _pad_right(strip: NDArray[np.uint8], total: int) -> NDArray[np.uint8]:
    rest = np.full((strip.shape[0], total - strip.shape[1], 3), _PAPER, np.uint8)
    return np.concatenate([strip, rest], 1)


def _title_bar(titles: Sequence[str], width: int, total: int) -> NDArray[np.uint8]:
    bar = Image.new("RGB", (total, 24), _PAPER)
    pen = ImageDraw.Draw(bar)
    for place, title in enumerate(titles):
        pen.text((place * (width + _GAP) + 4, 4), title, _INK, font=ImageFont.load_default(13))
    return np.asarray(bar)


def _legend(labels: Labels, total: int) -> NDArray[np.uint8]:
    """Draw a swatch and a name per class, wrapped to the sheet's width."""
    font, places, x, y = ImageFont.load_default(13), [], 6, 6
    for name, colour in zip(labels.names, labels.colours, strict=True):
        length = 24 + round(font.getlength(name)) + 18
        if x + length > total and x > 6:
            x, y = 6, y + 22
        places.append((x, y, name, colour))
        x += length
    bar = Image.new("RGB", (total, y + 24), _PAPER)
    pen = ImageDraw.Draw(bar)
    for x, y, name, colour in places:
        pen.rounded_rectangle((x, y + 2, x + 16, y + 14), 3, fill=colour, outline=_INK)
        pen.text((x + 24, y), name, _INK, font=font)
    return np.asarray(bar)
