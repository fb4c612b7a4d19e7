"""Write a data set in another format, and read it back to tell what that cost.

Comes in: an opened data set, a format, an empty folder. Goes out: the files, a `data.yaml` that reads them as they were
meant, and how many pixels came back otherwise. Knows nothing of any one format.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import Dataset, DataSplits, open_data
from pixelwise.errors import UsageError, renamed
from pixelwise.formats.base import ExportImage, Format
from pixelwise.formats.records import Record, short
from pixelwise.imageio.images import fill_invalid
from pixelwise.labels import Labels
from pixelwise.types import Sample

DESCRIPTION, GROUPS = "data.yaml", "groups.csv"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """Tell what was written, and what came back otherwise.

    Args:
        images: how many were written.
        pixels: how many their masks have.
        changed_pixels: how many of those are another class when they are read back.
        changed_images: in how many masks those are.
        worst: up to five images with most of them: part/name and pixels.
        loses: what the format cannot hold, in words; empty where it can hold everything.
        notices: what was decided on opening the data set, and every file that was left out.

    """

    images: int
    pixels: int
    changed_pixels: int
    changed_images: int
    worst: tuple[tuple[str, int], ...]
    loses: str
    notices: tuple[str, ...] = ()

    pictures = renamed("pictures", "images")
    changed_pictures = renamed("changed_pictures", "changed_images")

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form that `--json` prints."""
        keys = {"images": "pictures", "changed_images": "changed_pictures"}
        return {keys.get(name, name): value for name, value in asdict(self).items()}


def convert(splits: DataSplits, kind: Format, out: Path, progress: Progress | None = None) -> Converted:
    """Write every image and mask of a data set in a format, and read all of it back.

    Args:
        splits: an opened data set; its parts are kept.
        kind: a format that can be written.
        out: an empty folder.
        progress: is called with (done, total): each image counts twice, written and read.

    Raises:
        UsageError: the format can only be read.
        DataError: an image or mask that cannot be read.
        ResourceError: the disk does not take it.

    """
    if kind.write is None:
        raise UsageError("convert", expected="a format that can be written", found=kind.name, do="Choose another.")
    total = 2 * sum(len(split) for split in splits)
    writer = kind.write(out, splits.labels)
    written: dict[Path, tuple[Dataset, int]] = {}
    moved = 0
    with TemporaryDirectory() as folder:
        for split in splits:
            for index, name in enumerate(_names(split)):
                sample = split.read(index)
                mask = sample.truth(splits.labels.ignore_index)
                assert mask is not None, "data sets that are opened have masks"
                size = (mask.shape[0], mask.shape[1])
                file = _file_of(split.records[index], sample, Path(folder))
                moved += file != split.records[index].image and sample.grid.unit != "px"
                written[writer.add(ExportImage(split.name, name, file, size, mask))] = (split, index)
                if progress is not None:
                    progress(len(written), total)
    own = writer.close()  # with labels of its own where the format takes not every one: two classes of a colour, say
    section = {**own, "labels": own.get("labels", splits.labels.to_dict()), "split": {"val": 0.0, "test": 0.0}}
    section |= _as_opened(splits) | _grouped(written, out)
    (out / DESCRIPTION).write_text(yaml.safe_dump(section, sort_keys=False, allow_unicode=True), encoding="utf-8")
    done = _compared(open_data(DataConfig.model_validate(section), out), written, kind, progress)
    told = (f"{moved} images are plain TIFFs now: spacing and place in the world are not in them",) if moved else ()
    return replace(done, notices=(*splits.notices, *splits.skipped, *told))


def _as_opened(splits: DataSplits) -> dict[str, Any]:
    """Say what images are brought to, which their copies are not."""
    bands = next(iter(splits)).bands
    return {} if bands is None else {"bands": bands}


def _grouped(written: Mapping[Path, tuple[Dataset, int]], out: Path) -> dict[str, Any]:
    """Write down which images belong together, where some do: names alone no longer tell."""
    groups = {path: split.records[index].group for path, (split, index) in written.items()}
    if not any(groups.values()):
        return {}
    with (out / GROUPS).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("image", "group"))
        rows.writerows((short(path, out), group or short(path, out)) for path, group in groups.items())
    return {"group": GROUPS}


def _file_of(record: Record, sample: Sample, folder: Path) -> Path:
    """Return the file of an image: a new TIFF in `folder`, always of the same name, for a slice or a window.

    Also for floats with invalid pixels, which are filled: without the nodata tag the copy would have them as values, or NaN.
    """
    image = sample.image
    floats = image.dtype.kind == "f"
    if record.plane is None and record.window is None and (sample.valid is None or not floats):
        return record.image
    if floats:
        image = fill_invalid(image, sample.valid)
    import tifffile  # takes long to import

    path = folder / "picture.tif"
    layout: Any = {"photometric": "minisblack", "planarconfig": "separate" if len(image) > 1 else None}
    tifffile.imwrite(path, image if len(image) > 1 else image[0], compression="zlib", **layout)
    return path


def _names(split: Dataset) -> list[str]:
    """Name the images of a part for their copies, each once: by their ids below the folders that all have in common.

    What would lead out of a folder is left away.
    """
    paths = [PurePosixPath(record.id.replace("\\", "/")).parts for record in split.records]
    whole = [tuple(piece for piece in pieces if piece not in ("/", "..")) or ("picture",) for pieces in paths]
    folders = [pieces[:-1] for pieces in whole]
    shared = 0
    while all(len(pieces) > shared and pieces[shared] == folders[0][shared] for pieces in folders):
        shared += 1
    taken = {"/".join(pieces[shared:]).lower() for pieces in whole}
    used: set[str] = set()
    given = []
    for pieces in whole:
        name = plain = "/".join(pieces[shared:])
        count = 1
        while name.lower() in used or (count > 1 and name.lower() in taken):
            count += 1
            name = f"{plain}_{count}"
        used.add(name.lower())
        given.append(name)
    return given


def _compared(
    back: DataSplits, written: dict[Path, tuple[Dataset, int]], kind: Format, progress: Progress | None
) -> Converted:
    changed: list[tuple[str, int]] = []
    pixels = 0
    found = {record.image: (split, index) for split in back for index, record in enumerate(split.records)}
    for done, (path, (source, place)) in enumerate(written.items(), 1):
        before = source.read(place).truth(source.labels.ignore_index)
        assert before is not None
        pixels += before.size
        differ = before.size  # of an image that does not come back, every pixel
        if path in found:
            split, index = found[path]
            after = split.read(index).truth(split.labels.ignore_index)
            assert after is not None
            differ = int(np.count_nonzero(_same_classes(before, source.labels, split.labels) != after))
        if differ:
            changed.append((f"{source.name}/{source.records[place].id}", differ))
        if progress is not None:
            progress(len(written) + done, 2 * len(written))
    worst = sorted(changed, key=lambda item: (-item[1], item[0]))[:5]
    lost = sum(differ for _, differ in changed)
    return Converted(len(written), pixels, lost, len(changed), tuple(worst), kind.loses)


def _same_classes(mask: Any, ours: Labels, theirs: Labels) -> Any:
    """Translate indices of one set of labels into those of another, by name."""
    if ours.names == theirs.names and ours.ignore_index == theirs.ignore_index:
        return mask
    table = np.full(ours.ignore_index + 1, theirs.ignore_index, theirs.dtype)
    table[: ours.num_classes] = [theirs.names.index(name) for name in ours.names]
    return table[mask]
