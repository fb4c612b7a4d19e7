"""Draw masks over images, as RGB arrays and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise.imageio import png
from pixelwise.imageio.images import to_rgb8
from pixelwise.labels import Colour, Labels
from pixelwise.storage import write_atomic

_IGNORED = (255, 255, 255)
_GAP = 6
_TITLE_HEIGHT = 24
# Rows blended at once: few enough that their 16-bit values stay in the cache.
_STRIP = 64
_CONTOUR = 0.45  # brightness of contours
_INK = (226, 228, 234)
_PAPER = (24, 26, 31)


def colourise(mask: NDArray[Any], labels: Labels) -> NDArray[np.uint8]:
    """Return class indices (H, W) in the colours of their classes, ignored pixels in white: (H, W, 3) uint8."""
    table = np.full((labels.ignore_index + 1, 3), _IGNORED, np.uint8)
    table[: labels.num_classes] = labels.colours
    return table[mask]


def overlay(image: NDArray[Any], mask: NDArray[Any], labels: Labels, opacity: float = 0.55) -> NDArray[np.uint8]:
    """Draw a mask over its image, with darker contours. The first class is not tinted if it is a background.

    Args:
        image: (C, H, W) raw pixel values.
        mask: (H, W) class indices.
        labels: colours and names.
        opacity: weight of the class colour, 0…1.

    Returns:
        (H, W, 3) uint8.
    """
    planes = image[:3] if image.dtype == np.uint8 and len(image) >= 3 else np.moveaxis(to_rgb8(image), -1, 0)
    weights, tints = _blending(labels, opacity)
    contours = _contours(mask)
    blended = np.empty((*mask.shape, 3), np.uint8)
    for top in range(0, len(mask), _STRIP):
        rows = slice(top, top + _STRIP)
        entries = mask[rows].astype(np.intp)
        entries += entries
        entries += contours[rows]
        weight = np.take(weights, entries)
        for channel, plane in enumerate(planes):
            values = plane[rows] * weight
            values += np.take(tints[channel], entries)
            values >>= 8
            blended[rows, :, channel] = values
    return blended


def _blending(labels: Labels, opacity: float) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the weight of the image (2 N) and the tint to add (3, 2 N), in 1/256: of each class, and of its contours."""
    share = np.full(labels.ignore_index + 1, opacity)
    if labels.names[0].lower() in {"background", "other", "nothing", "unlabelled"}:
        share[0] = 0
    colours = np.full((3, len(share)), _IGNORED[0], np.float64)
    colours[:, : labels.num_classes] = np.transpose(labels.colours)
    brightness = np.array([256, 256 * _CONTOUR])
    weights = np.rint(np.multiply.outer(1 - share, brightness)).ravel()
    tints = np.floor(np.multiply.outer(colours * share, brightness) + 128).reshape(3, -1)
    return weights.astype(np.uint16), tints.astype(np.uint16)


def _contours(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask of the pixels whose right or lower neighbour has another class."""
    contours = np.zeros(mask.shape, bool)
    contours[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    contours[:-1] |= mask[:-1] != mask[1:]
    return contours


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 as PNG, atomically."""
    write_atomic(path, png.encode(pixels))


def contact_sheet(
    rows: Sequence[tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]], labels: Labels, width: int = 320
) -> NDArray[np.uint8]:
    """Draw image | ground truth | prediction | difference, one row per image, with a legend of the classes.

    Args:
        rows: (image (C, H, W), annotated mask (H, W) or None, predicted mask (H, W)).
        labels: names and colours of the classes.
        width: width of one panel in pixels.

    Returns:
        (H, W, 3) uint8.
    """
    strips = [[_resized(panel, width) for panel in _panels(*row, labels)] for row in rows]
    total = 4 * width + 3 * _GAP
    legend, legend_height = _legend_entries(labels, total)
    height = _TITLE_HEIGHT + sum(strip[0].height + _GAP for strip in strips) - _GAP + legend_height
    sheet = Image.new("RGB", (total, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for column, title in enumerate(("image", "ground truth", "prediction", "difference")):
        pen.text((column * (width + _GAP) + 4, 4), title, _INK, font=font)
    top = _TITLE_HEIGHT
    for strip in strips:
        for column, panel in enumerate(strip):
            sheet.paste(panel, (column * (width + _GAP), top))
        top += strip[0].height + _GAP
    top -= _GAP
    for x, y, name, colour in legend:
        pen.rounded_rectangle((x, top + y + 2, x + 16, top + y + 14), 3, fill=colour, outline=_INK)
        pen.text((x + 24, top + y), name, _INK, font=font)
    return np.asarray(sheet)


def _panels(
    image: NDArray[Any], truth: NDArray[Any] | None, prediction: NDArray[Any], labels: Labels
) -> list[NDArray[np.uint8]]:
    rgb = to_rgb8(image)
    if truth is None:
        return [rgb, np.full_like(rgb, _PAPER[0]), overlay(image, prediction, labels), rgb // 3]
    wrong = (truth != prediction) & (truth != labels.ignore_index)
    difference = (rgb // 4).astype(np.uint8)
    difference[wrong] = colourise(prediction, labels)[wrong]
    return [rgb, overlay(image, truth, labels), overlay(image, prediction, labels), difference]


def _resized(panel: NDArray[np.uint8], width: int) -> Image.Image:
    height = max(round(panel.shape[0] * width / panel.shape[1]), 1)
    return Image.fromarray(panel).resize((width, height), Image.Resampling.LANCZOS)


def _legend_entries(labels: Labels, total: int) -> tuple[list[tuple[int, int, str, Colour]], int]:
    """Return the position, name and colour of each class, wrapped to the width of the sheet, and the height of the legend."""
    font = ImageFont.load_default(13)
    entries = []
    x = y = 6
    for name, colour in zip(labels.names, labels.colours, strict=True):
        length = 24 + round(font.getlength(name)) + 18
        if x + length > total and x > 6:
            x = 6
            y += 22
        entries.append((x, y, name, colour))
        x += length
    return entries, y + 24
