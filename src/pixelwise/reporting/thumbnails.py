"""Which images to look at, and what is shown of them.

Comes in: scores per image, and a way to fetch an image with truth and prediction. Goes out: ids, and small images
as data URIs. Knows nothing of models, files or of the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.imageio.images import to_rgb8
from pixelwise.labels import Labels
from pixelwise.reporting.overlay import overlay

Seen = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
Fetch = Callable[[str], Seen]
EACH = 4
_WIDTH, _HEIGHT = 480, 640
_WRONG, _VOID = (230, 0, 110), (255, 255, 255)
# Tried one after the other until a panel is small enough: share of the size, quality.
_SETTINGS = ((1.0, 82), (1.0, 65), (1.0, 45), (0.66, 60), (0.66, 40), (0.4, 40), (0.25, 30))


@dataclass(frozen=True)
class Panel:
    """Hold a small image as a data URI."""

    uri: str
    width: int
    height: int


def choose(scores: Mapping[str, Any]) -> dict[str, list[str]]:
    """Choose the images to look at, none twice.

    Args:
        scores: the plain form of an evaluation; `per_image` decides.

    Returns:
        Ids under "worst", "median" and "best" by the image's own mIoU and under "area" those of the largest
        `area_error`, about 4 of each; or all under "all" where there are no more than 4. Empty groups are left out.
    """
    images = [one for one in scores.get("per_image") or () if one.get("miou") is not None]
    ranked = [str(one["id"]) for one in sorted(images, key=lambda one: (one["miou"], str(one["id"])))]
    if len(ranked) <= EACH:
        return {"all": ranked} if ranked else {}
    each, middle = min(EACH, max(len(ranked) // 4, 1)), len(ranked) // 2
    by_area = sorted(images, key=lambda one: (-(area_error(one) or 0.0), str(one["id"])))
    wanted = {
        "worst": ranked,
        "best": ranked[::-1],
        "median": [ranked[i] for i in sorted(range(len(ranked)), key=lambda i: abs(i - middle))],
        "area": [str(one["id"]) for one in by_area if area_error(one)],
    }
    taken: set[str] = set()
    chosen: dict[str, list[str]] = {}
    for name, candidates in wanted.items():
        chosen[name] = [id for id in candidates if id not in taken][:each]
        taken |= set(chosen[name])
    return {name: chosen[name] for name in ("worst", "median", "best", "area") if chosen[name]}


def area_error(image: Mapping[str, Any]) -> float | None:
    """Give Σ over classes of |predicted − true pixels| / counted pixels of one entry of `per_image`.

    None without pixels; 0 where every class takes as many pixels as it should, wherever they lie; 2 at most.
    """
    pixels = image.get("pixels") or 0
    if not pixels or not image.get("counts"):
        return None
    return float(sum(abs(predicted - true) for _, _, true, predicted, *_ in image["counts"]) / pixels)


def flat(seen: Seen, ignore_index: int) -> tuple[Seen, int | None]:
    """Give an image with two axes: of a volume the slice with the most errors, and its number."""
    image, truth, prediction = seen
    if truth.ndim < 3:
        return seen, None
    wrong = ((truth != prediction) & (truth != ignore_index)).sum(axis=(1, 2))
    place = int(wrong.argmax())
    return (image[:, place], truth[place], prediction[place]), place


def crop(seen: Seen, box: Sequence[int]) -> Seen:
    """Cut out a box (top, left, bottom, right) with a margin: 4:3 where the image holds that, 64 columns at least."""
    image, truth, prediction = seen
    top, left, bottom, right = (int(v) for v in box)
    width = max(2 * (right - left), 8 * (bottom - top) // 3, 64)
    rows = _window(top + bottom, 3 * width // 4, truth.shape[0])
    columns = _window(left + right, width, truth.shape[1])
    return image[:, rows, columns], truth[rows, columns], prediction[rows, columns]


def _window(twice_middle: int, size: int, whole: int) -> slice:
    """Place a window around a middle, moved to lie inside; all where it is larger than the whole."""
    size = min(size, whole)
    start = min(max((twice_middle - size) // 2, 0), whole - size)
    return slice(start, start + size)


def panels(seen: Seen, labels: Labels, budget: int) -> dict[str, Panel]:
    """Give "image", "truth", "prediction" and "difference" as small images.

    Args:
        seen: image (C, H, W), truth (H, W), prediction (H, W), as they are; large ones are thinned out first.
        labels: colours and names.
        budget: about so many bytes each.
    """
    image, truth, prediction = seen
    step = max(1, min(truth.shape) // _WIDTH, max(truth.shape) // (2 * _HEIGHT))
    image, truth, prediction = image[:, ::step, ::step], truth[::step, ::step], prediction[::step, ::step]
    shown = {
        "picture": to_rgb8(image),
        "truth": overlay(image, truth, labels),
        "prediction": overlay(image, prediction, labels),
        "difference": difference(image, truth, prediction, labels),
    }
    return {name: encoded(pixels, budget) for name, pixels in shown.items()}


def difference(image: NDArray[Any], truth: NDArray[Any], prediction: NDArray[Any], labels: Labels) -> NDArray[np.uint8]:
    """Paint where truth and prediction differ magenta, ignored pixels white, all else pale grey: (H, W, 3)."""
    grey = to_rgb8(image).astype(np.float32).mean(axis=2)
    pale = np.repeat((grey * 0.45 + 95)[..., None], 3, axis=2).astype(np.uint8)
    void = truth == labels.ignore_index
    pale[(truth != prediction) & ~void] = _WRONG
    pale[void] = _VOID
    return pale


def encoded(pixels: NDArray[np.uint8], budget: int) -> Panel:
    """Make a data URI of about `budget` bytes at most from (H, W, 3) uint8: WebP, 480 pixels wide at most."""
    whole = Image.fromarray(pixels)
    whole.thumbnail((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
    data, image = b"", whole
    for share, quality in _SETTINGS:
        size = max(round(whole.width * share), 1), max(round(whole.height * share), 1)
        image = whole if share == 1 else whole.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=4)
        data = buffer.getvalue()
        if len(data) <= budget:
            break
    return Panel("data:image/webp;base64," + base64.b64encode(data).decode(), image.width, image.height)


def exact(pixels: NDArray[np.uint8]) -> Panel:
    """Make a data URI of (H, W, 3) uint8 as it is: PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Panel(uri, pixels.shape[1], pixels.shape[0])
