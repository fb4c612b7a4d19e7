"""`convert`: write a data set in another format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.api.scoring import require_sections
from pixelwise.errors import DataError, OutputExistsError, UsageError, nearest

if TYPE_CHECKING:
    from pixelwise.datasets.convert import Converted


def convert(
    data: str | Path,
    *,
    to: str,
    out: str | Path,
    overrides: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Converted:
    """Write a data set in another format, read it back, and count the pixels that changed.

    Images are copied and splits are kept. A `data.yaml` next to the files describes what the format cannot: class ids and
    colours, the meaning of unlabelled pixels, groups of images.

    Args:
        data: a folder, a `data.yaml`, a recipe, or an annotation file.
        to: name of the format: masks, coco, coco-panoptic, voc, yolo, labelme, cvat, label-studio, …
        out: a new or empty folder; it is written completely or not at all.
        overrides: configuration overrides such as "data.skip_bad=true".
        progress: called with (done, total); each image counts twice, written and read back.

    Raises:
        UsageError: an unknown or read-only format.
        OutputExistsError: `out` is not empty.
        DataError: the data set cannot be opened, or one of its files cannot be read.
    """
    from pixelwise.config import read_request
    from pixelwise.datasets.convert import convert as convert_splits
    from pixelwise.datasets.dataset import open_data, without_unreadable
    from pixelwise.formats import FORMATS
    from pixelwise.storage import atomic_folder

    writable = [name for name, kind in FORMATS.items() if kind.write is not None]
    if to not in writable:
        found = f"{to!r}, which is read-only" if to in FORMATS else repr(to)
        do = nearest(to, () if to in FORMATS else writable)
        raise UsageError("--to", expected=f"one of {', '.join(writable)}", found=found, do=do)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "existing files" if folder.is_dir() else "a file"
        raise OutputExistsError(folder, expected="a new or empty folder", found=found, do="Choose another --out.")
    config, base = read_request(Path(data), overrides)
    require_sections(overrides, "data")
    splits = open_data(config.data.model_copy(update={"volumes": "slices", "neighbours": 0}), base)
    splits = without_unreadable(splits) if config.data.skip_bad else splits
    if not any(splits):
        do = "Run `pixelwise check` to see why."
        raise DataError(data, expected="images with masks", found="none that can be used", do=do)
    with atomic_folder(folder) as fresh:
        return convert_splits(splits, FORMATS[to], fresh, progress)
