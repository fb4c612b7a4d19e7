"""Write a data set in another format, and read it back to tell what that cost.

Comes in: an opened data set, a format, an empty folder. Goes out: the files, a `data.yaml` that reads them as they were
meant, and how many pixels came back otherwise. Knows nothing of any one format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pixelwise.config import DataConfig
from pixelwise.data.dataset import Dataset, DataSplits, open_data
from pixelwise.data.formats.format import Format, Picture
from pixelwise.data.records import Record
from pixelwise.errors import UsageError
from pixelwise.labels import Labels

DESCRIPTION = "data.yaml"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """Tell what was written, and what came back otherwise.

    Args:
        pictures: how many were written.
        pixels: how many their masks have.
        changed_pixels: how many of those are another class when they are read back.
        changed_pictures: in how many masks those are.
        worst: up to five pictures with most of them: name and pixels.
        loses: what the format cannot hold, in words; empty where it can hold everything.

    """

    pictures: int
    pixels: int
    changed_pixels: int
    changed_pictures: int
    worst: tuple[tuple[str, int], ...]
    loses: str


def convert(splits: DataSplits, kind: Format, out: Path, progress: Progress | None = None) -> Converted:
    """Write every picture and mask of a data set in a format, and read all of it back.

    Args:
        splits: an opened data set; its parts are kept.
        kind: a format that can be written.
        out: an empty folder.
        progress: is called with (done, total): each picture counts twice, written and read.

    Raises:
        UsageError: the format can only be read.
        DataError: a picture or mask that cannot be read.
        ResourceError: the disk does not take it.

    """
    if kind.write is None:
        raise UsageError("convert", expected="a format that can be written", found=kind.name, do="Choose another.")
    total = 2 * sum(len(part) for part in splits)
    writer = kind.write(out, splits.labels)
    written: dict[Path, tuple[Dataset, int]] = {}
    with TemporaryDirectory() as folder:
        for part in splits:
            for index, name in enumerate(_names(part)):
                sample = part.read(index)
                assert sample.mask is not None, "data sets that are opened have masks"
                size = (sample.mask.shape[0], sample.mask.shape[1])
                file = _file_of(part.records[index], sample.image, Path(folder))
                written[writer.add(Picture(part.name, name, file, size, sample.mask))] = (part, index)
                if progress is not None:
                    progress(len(written), total)
    own = writer.close()  # with labels of its own where the format takes not every one: two classes of a colour, say
    section = {**own, "labels": own.get("labels", splits.labels.to_dict()), "split": {"val": 0.0, "test": 0.0}}
    (out / DESCRIPTION).write_text(yaml.safe_dump(section, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return _compared(open_data(DataConfig.model_validate(section), out), written, kind, progress)


def _file_of(record: Record, image: NDArray[Any], folder: Path) -> Path:
    """Give the file of a picture: a TIFF of its own in `folder`, the same each time, for a slice or a piece of another."""
    if record.plane is None and record.window is None:
        return record.image
    import tifffile  # takes long to import

    path = folder / "picture.tif"
    layout: Any = {"photometric": "minisblack", "planarconfig": "separate" if len(image) > 1 else None}
    tifffile.imwrite(path, image if len(image) > 1 else image[0], compression="zlib", **layout)
    return path


def _names(part: Dataset) -> list[str]:
    """Name the pictures of a part for their copies, each once: by their ids below the folders that all have in common.

    What would lead out of a folder is left away.
    """
    paths = [PurePosixPath(record.id.replace("\\", "/")).parts for record in part.records]
    whole = [tuple(piece for piece in pieces if piece not in ("/", "..")) or ("picture",) for pieces in paths]
    folders = [pieces[:-1] for pieces in whole]
    shared = 0
    while all(len(pieces) > shared and pieces[shared] == folders[0][shared] for pieces in folders):
        shared += 1
    names: dict[str, int] = {}
    given = []
    for pieces in whole:
        name = "/".join(pieces[shared:])
        count = names[name.lower()] = names.get(name.lower(), 0) + 1
        given.append(name if count == 1 else f"{name}_{count}")
    return given


def _compared(
    back: DataSplits, written: dict[Path, tuple[Dataset, int]], kind: Format, progress: Progress | None
) -> Converted:
    changed: dict[str, int] = {}
    pixels = done = 0
    for part in back:
        for index, record in enumerate(part.records):
            source, place = written[record.image]
            before, after = source.read(place).mask, part.read(index).mask
            assert before is not None
            assert after is not None
            pixels += before.size
            differ = int(np.count_nonzero(_same_classes(before, source.labels, part.labels) != after))
            if differ:
                changed[source.records[place].id] = differ
            done += 1
            if progress is not None:
                progress(len(written) + done, 2 * len(written))
    worst = sorted(changed.items(), key=lambda item: (-item[1], item[0]))[:5]
    return Converted(len(written), pixels, sum(changed.values()), len(changed), tuple(worst), kind.loses)


def _same_classes(mask: Any, ours: Labels, theirs: Labels) -> Any:
    """Translate indices of one set of labels into those of another, by name."""
    if ours.names == theirs.names and ours.ignore_index == theirs.ignore_index:
        return mask
    table = np.full(ours.ignore_index + 1, theirs.ignore_index, theirs.dtype)
    table[: ours.num_classes] = [theirs.names.index(name) for name in ours.names]
    return table[mask]
