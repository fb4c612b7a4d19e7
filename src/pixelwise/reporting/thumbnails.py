"""Small versions of images and masks as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.imageio.images import to_rgb8
from pixelwise.labels import Labels
from pixelwise.reporting.numbers import percent
from pixelwise.reporting.overlay import overlay

# Image (C, *S), annotated mask (*S), predicted mask (*S).
ScoredImage = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
Fetch = Callable[[str], ScoredImage]
WIDTH, HEIGHT = 480, 640
_WRONG, _IGNORED = (230, 0, 110), (255, 255, 255)
# (scale, quality), tried in order until a thumbnail fits its budget.
_SETTINGS = ((1.0, 82), (1.0, 65), (1.0, 45), (0.66, 60), (0.66, 40), (0.4, 40), (0.25, 30))


@dataclass(frozen=True)
class Thumbnail:
    """A small image as a data URI."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Panel:
    """A thumbnail with its title and a description for screen readers."""

    title: str
    description: str
    image: Thumbnail


@dataclass(frozen=True)
class View:
    """The panels of an image by name, and a note, such as why it cannot be shown."""

    panels: dict[str, Panel] = field(default_factory=dict)
    note: str = ""


def view(scored: ScoredImage, labels: Labels, budget: int, note: str = "") -> View:
    """Return the panels "image", "truth", "prediction" and "difference" of an image.

    Args:
        scored: image (C, H, W) of raw values, annotated and predicted mask (H, W); large ones are subsampled first.
        labels: names and colours of the classes.
        budget: approximate size of one panel in bytes.
        note: note of the view.
    """
    _, truth, prediction = scored
    wrong = float(((truth != prediction) & (truth != labels.ignore_index)).mean())
    truth_shares = f"the ground truth: {_class_shares(truth, labels)}"
    prediction_shares = f"the prediction: {_class_shares(prediction, labels)}"
    step = max(1, min(truth.shape) // WIDTH, max(truth.shape) // (2 * HEIGHT))
    image, truth, prediction = (array[..., ::step, ::step] for array in scored)
    shown = {
        "image": ("Image", "the image", to_rgb8(image)),
        "truth": ("Ground truth", truth_shares, overlay(image, truth, labels)),
        "prediction": ("Prediction", prediction_shares, overlay(image, prediction, labels)),
        "difference": (
            "Difference",
            f"{percent(wrong)} of the pixels differ",
            difference(image, truth, prediction, labels),
        ),
    }
    return View({name: Panel(title, text, encode(rgb, budget)) for name, (title, text, rgb) in shown.items()}, note)


def _class_shares(mask: NDArray[Any], labels: Labels) -> str:
    """Describe the four most frequent classes of a mask."""
    counts = np.bincount(mask.reshape(-1), minlength=labels.num_classes)[: labels.num_classes]
    most = np.argsort(-counts, kind="stable")[:4].tolist()
    return ", ".join(f"{labels.names[k]} {percent(counts[k] / mask.size)}" for k in most if counts[k])


def worst_slice(scored: ScoredImage, ignore_index: int) -> tuple[ScoredImage, int | None]:
    """Return the slice of a volume with the most errors, and its index; images are returned unchanged, with None."""
    image, truth, prediction = scored
    if truth.ndim < 3:
        return scored, None
    wrong = ((truth != prediction) & (truth != ignore_index)).sum(axis=(1, 2))
    index = int(wrong.argmax())
    return (image[:, index], truth[index], prediction[index]), index


def crop(scored: ScoredImage, box: Sequence[int]) -> ScoredImage:
    """Crop to a box (top, left, bottom, right) with a margin: an aspect ratio of 4:3 and at least 64 columns, if possible."""
    image, truth, prediction = scored
    top, left, bottom, right = (int(v) for v in box)
    width = max(2 * (right - left), 8 * (bottom - top) // 3, 64)
    rows = _centred(top + bottom, 3 * width // 4, truth.shape[0])
    columns = _centred(left + right, width, truth.shape[1])
    return image[:, rows, columns], truth[rows, columns], prediction[rows, columns]


def _centred(twice_centre: int, size: int, total: int) -> slice:
    """Return a slice of at most `size` around a centre, moved so that it stays within `total`."""
    size = min(size, total)
    start = min(max((twice_centre - size) // 2, 0), total - size)
    return slice(start, start + size)


def difference(image: NDArray[Any], truth: NDArray[Any], prediction: NDArray[Any], labels: Labels) -> NDArray[np.uint8]:
    """Draw wrong pixels in magenta, ignored pixels in white and all others in pale grey: (H, W, 3)."""
    grey = to_rgb8(image).astype(np.float32).mean(axis=2)
    pale = np.repeat((grey * 0.45 + 95)[..., None], 3, axis=2).astype(np.uint8)
    ignored = truth == labels.ignore_index
    pale[(truth != prediction) & ~ignored] = _WRONG
    pale[ignored] = _IGNORED
    return pale


def encode(pixels: NDArray[np.uint8], budget: int) -> Thumbnail:
    """Encode (H, W, 3) uint8 as WebP of about `budget` bytes, at most 480 × 640 pixels."""
    full = Image.fromarray(pixels)
    full.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    for scale, quality in _SETTINGS:
        size = max(round(full.width * scale), 1), max(round(full.height * scale), 1)
        image = full if scale == 1 else full.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=4)
        if buffer.tell() <= budget:
            break
    return _thumbnail(image, "webp", buffer)


def encode_png(pixels: NDArray[np.uint8]) -> Thumbnail:
    """Encode (H, W, 3) uint8 losslessly as PNG."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _thumbnail(image, "png", buffer)


def _thumbnail(image: Image.Image, kind: str, buffer: io.BytesIO) -> Thumbnail:
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Thumbnail(uri, image.width, image.height)
