"""The masks of the frames of videos that `predict` wrote: a PNG per frame, or a lossless video."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.imageio.masks import MaskRule, read_ids
from pixelwise.imageio.video_writing import read_mask_video
from pixelwise.labels import Labels


def frame_masks(folder: Path, entry: Mapping[str, Any], labels: Labels) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the name and the class indices (H, W) of each frame of a video, one by one.

    Args:
        folder: the output folder of `predict`.
        entry: of the video in `predictions.json`.
        labels: the classes.

    Raises:
        DataError: masks that cannot be read, are missing, or have unknown ids.
    """
    place = folder / entry["masks"]
    numbers = _numbers(folder / entry["frames_file"])
    stored = (
        (read_ids(place / f"{number:06}.png", MaskRule(binary=False))[0] for number in numbers)
        if place.is_dir()
        else (ids for _, ids in read_mask_video(place))
    )
    count = 0
    for number, ids in zip(numbers, stored, strict=False):
        mask, unknown = labels.encode(ids)
        if unknown:
            found = ", ".join(map(str, sorted(unknown)[:5]))
            raise MaskError(place, expected="ids of the classes", found=found, do="Predict the video again.")
        count += 1
        yield f"{entry['file']} frame {number}", mask
    if count < len(numbers):
        raise MaskError(place, expected=f"{len(numbers)} frames", found=f"{count}", do="Predict the video again.")


def _numbers(path: Path) -> list[int]:
    """Return the numbers of the frames that were predicted, in their order."""
    try:
        return [int(json.loads(line)["frame"]) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MaskError(
            path, expected="a line for each frame", found=str(error), do="Predict the video again."
        ) from error
