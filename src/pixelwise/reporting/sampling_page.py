"""A page on which a person answers what is at the points of a sample: it works from disk, keeps the answers, and saves them as CSV.

It shows the image around each point, but not the class of the map, so that the answers do not depend on it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pixelwise.imageio.images import to_rgb8
from pixelwise.labels import Labels
from pixelwise.reporting.rendering import environment, package_file
from pixelwise.storage import write_atomic
from pixelwise.tiles import Window

# Pixels from the point to the edge of its chip, and to the frame that marks it: black inside, white outside.
_REACH, _FRAME = 50, 3


def chip_window(shape: Sequence[int], position: Sequence[int]) -> Window:
    """Return the window of an image (H, W) that the chip of a pixel (row, column) shows."""
    return Window(
        tuple(max(at - _REACH, 0) for at in position),
        tuple(min(at + _REACH + 1, size) for at, size in zip(position, shape, strict=True)),
    )


def chip(
    image: NDArray[Any], window: Window, position: Sequence[int], limits: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Draw the surroundings of a pixel, with a frame around it.

    Args:
        image: (C, h, w), the window.
        window: of `chip_window`.
        position: row and column of the pixel.
        limits: values that are shown as black and white, the same for all chips, see `images.to_rgb8`.

    Returns:
        (101, 101, 3) uint8 with the pixel in the centre; black beyond the image.
    """
    side = 2 * _REACH + 1
    pixels = np.zeros((side, side, 3), np.uint8)
    first = [start - at + _REACH for start, at in zip(window.start, position, strict=True)]
    height, width = window.shape
    pixels[first[0] : first[0] + height, first[1] : first[1] + width] = to_rgb8(image, limits)
    distance = np.abs(np.arange(side) - _REACH)
    ring = np.maximum(distance[:, None], distance)
    pixels[ring == _FRAME] = 0
    pixels[ring == _FRAME + 1] = 255
    return pixels


def write_sampling_page(
    path: Path,
    name: str,
    sample: str,
    labels: Labels,
    points: Sequence[Mapping[str, Any]],
    unsure: str,
    *,
    stretched: bool = False,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        name: of the map.
        sample: identifies the sample; answers are kept under this name, and saved with it.
        labels: names and colours of the classes.
        points: "point", "row" and "column" of each, "place" as text, and "chip", the path of its image relative to the page, or None.
        unsure: what is saved for points at which the person is unsure.
        stretched: whether values were stretched for display.

    Raises:
        ResourceError: the file cannot be written.
    """
    script = package_file("sampling.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    classes = [
        {"name": each, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
        for each, colour in zip(labels.names, labels.colours, strict=True)
    ]
    data = {"sample": sample, "classes": classes, "points": list(points), "unsure": unsure}
    html = environment().get_template("sampling.html").render(
        title=f"points on {name}",
        name=name,
        style=package_file("style.css"),
        script=script,
        policy=policy,
        count=len(points),
        stretched=stretched,
        data=_script_json(data),
    )  # fmt: skip
    write_atomic(path, html)


def _script_json(plain: Any) -> Markup:
    """Return JSON that cannot end the element that holds it."""
    text = json.dumps(plain, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
