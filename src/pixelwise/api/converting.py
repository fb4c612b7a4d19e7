"""`convert`: a data set in another format, for Python.

Comes in: a data set and the name of a format. Goes out: a folder, and what the way there and back cost. Knows nothing of
how formats are written.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.api.scoring import require_sections
from pixelwise.errors import DataError, OutputExistsError, UsageError

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
    """Write a data set in another format, and read it back to tell how many pixels that changed.

    Images are copied as they are, parts (train, val, test) are kept, and a `data.yaml` beside the files says what the
    format itself cannot: the classes with ids and colours, what unlabelled pixels are, which images belong together.

    Args:
        data: a folder, a `data.yaml`, a recipe, or an annotation file.
        to: name of the format: masks, coco, coco-panoptic, voc, yolo, labelme, cvat, label-studio, …
        out: a new or empty folder. It appears whole or not at all.
        overrides: "data.b=c" texts for the configuration.
        progress: is called with (done, total); each image counts twice, written and read back.

    Raises:
        UsageError: an unknown format, or one that can only be read.
        OutputExistsError: `out` holds something.
        DataError: the data set cannot be opened, or a file of it cannot be read.
    """
    from pixelwise.config import read_request
    from pixelwise.datasets.convert import convert as convert_splits
    from pixelwise.datasets.dataset import open_data, without_unreadable
    from pixelwise.formats import FORMATS
    from pixelwise.storage import atomic_folder

    writable = [name for name, one in FORMATS.items() if one.write is not None]
    if to not in writable:
        near = [] if to in FORMATS else difflib.get_close_matches(to, writable, 1, 0.4)
        do = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        found = f"{to!r}, which can only be read" if to in FORMATS else repr(to)
        raise UsageError("--to", expected=f"one of {', '.join(writable)}", found=found, do=do)
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "files in it" if folder.is_dir() else "a file"
        raise OutputExistsError(folder, expected="a new or empty folder", found=found, do="Choose another --out.")
    config, base = read_request(Path(data), overrides)
    require_sections(overrides, "data")
    splits = open_data(config.data, base)
    splits = without_unreadable(splits) if config.data.skip_bad else splits
    if not any(splits):
        raise DataError(
            data, expected="images with masks", found="none that can be used", do="Run `pixelwise check` to see why."
        )
    with atomic_folder(folder) as fresh:
        return convert_splits(splits, FORMATS[to], fresh, progress)
