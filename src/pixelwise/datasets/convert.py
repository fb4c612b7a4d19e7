"""Write a data set in another format, and read it back to count the pixels that changed.

A `data.yaml` next to the files makes them read as intended.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
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
from pixelwise.imageio.sidecars import has_sidecar
from pixelwise.labels import Labels
from pixelwise.types import Sample

DESCRIPTION, GROUPS = "data.yaml", "groups.csv"
Progress = Callable[[int, int], None]
_Written = dict[Path, tuple[Dataset, int]]  # file → its source


@dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Args:
        images: number of images written.
        pixels: number of pixels of their masks.
        changed_pixels: pixels whose class differs when read back.
        changed_images: number of masks with such pixels.
        worst: up to five images with most of them: split/name and pixels.
        loses: what the format cannot store; empty if it stores everything.
        notices: decisions made when the data set was opened, and every file that was left out.
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
        """Return plain values, as printed by `--json`."""
        keys = {"images": "pictures", "changed_images": "changed_pictures"}
        return {keys.get(name, name): value for name, value in asdict(self).items()}


def convert(splits: DataSplits, kind: Format, out: Path, progress: Progress | None = None) -> Converted:
    """Write all images and masks of a data set in a format, and read them back.

    Args:
        splits: an opened data set; its splits are kept.
        kind: a writable format.
        out: an empty folder.
        progress: called with (done, total): each image counts twice, written and read.

    Raises:
        UsageError: the format is read-only.
        DataError: an image or mask cannot be read.
        ResourceError: the disk is full.
    """
    if kind.write is None:
        raise UsageError("convert", expected="a writable format", found=kind.name, do="Choose another.")
    total = 2 * sum(len(split) for split in splits)
    writer = kind.write(out, splits.labels)
    written: _Written = {}
    without_grid = 0
    with TemporaryDirectory() as folder:
        for split in splits:
            for index, name in enumerate(_unique_names(split)):
                sample = split.read(index)
                mask = sample.truth(splits.labels.ignore_index)
                assert mask is not None, "opened data sets have masks"
                size = (mask.shape[0], mask.shape[1])
                file = _image_file(split.records[index], sample, Path(folder))
                without_grid += file != split.records[index].image and sample.grid.unit != "px"
                written[writer.add(ExportImage(split.name, name, file, size, mask))] = (split, index)
                if progress is not None:
                    progress(len(written), total)
    # The writer describes its own labels if the format does not take all of ours, such as two classes of one colour.
    section = dict(writer.close())
    section.setdefault("labels", splits.labels.to_dict())
    section |= {"split": {"val": 0.0, "test": 0.0}}
    bands = next(iter(splits)).bands
    section |= {} if bands is None else {"bands": bands}  # the copies have the original bands
    nodata = {record.nodata for split in splits for record in split.records}  # the same in all: `data.nodata`
    section |= {"nodata": nodata.pop()} if None not in nodata else {}
    section |= _write_groups(written, out)
    (out / DESCRIPTION).write_text(yaml.safe_dump(section, sort_keys=False, allow_unicode=True), encoding="utf-8")
    result = _compare(open_data(DataConfig.model_validate(section), out), written, kind, progress)
    notices = (*splits.notices, *splits.skipped)
    if without_grid:
        notices = (*notices, f"{without_grid} images were written as plain TIFFs, without spacing and georeferencing")
    return replace(result, notices=notices)


def _write_groups(written: _Written, out: Path) -> dict[str, Any]:
    """Write the groups as a table, since the new names no longer show them."""
    groups = {path: split.records[index].group for path, (split, index) in written.items()}
    if not any(groups.values()):
        return {}
    with (out / GROUPS).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("image", "group"))
        rows.writerows((short(path, out), group or short(path, out)) for path, group in groups.items())
    return {"group": GROUPS}


def _image_file(record: Record, sample: Sample, folder: Path) -> Path:
    """Return the file of an image, or a temporary TIFF if it is a slice or a window of a file.

    Float images with invalid pixels are also written anew, with these pixels filled: without the nodata tag, a copy of the
    file would have them as values, or NaN. So are images beside which a file marks invalid pixels.
    """
    image = sample.image
    filled = sample.valid is not None and (image.dtype.kind == "f" or has_sidecar(record.image))
    if record.plane is None and record.window is None and not filled:
        return record.image
    if image.dtype.kind == "f" or filled:
        image = fill_invalid(image, sample.valid)
    import tifffile  # slow to import

    path = folder / "image.tif"
    layout: Any = {"photometric": "minisblack", "planarconfig": "separate" if len(image) > 1 else None}
    tifffile.imwrite(path, image if len(image) > 1 else image[0], compression="zlib", **layout)
    return path


def _unique_names(split: Dataset) -> list[str]:
    """Return unique names for the copies: the ids without the folders common to all, and without ".."."""
    ids = [PurePosixPath(record.id.replace("\\", "/")).parts for record in split.records]
    paths = [tuple(part for part in parts if part not in ("/", "..")) or ("image",) for parts in ids]
    shared = 0
    while all(len(parts) > shared + 1 and parts[shared] == paths[0][shared] for parts in paths):
        shared += 1
    plain = ["/".join(parts[shared:]) for parts in paths]
    reserved = {name.lower() for name in plain}
    used: set[str] = set()
    names = []
    for base in plain:
        name, count = base, 1
        while name.lower() in used or (count > 1 and name.lower() in reserved):
            count += 1
            name = f"{base}_{count}"
        used.add(name.lower())
        names.append(name)
    return names


def _compare(back: DataSplits, written: _Written, kind: Format, progress: Progress | None) -> Converted:
    """Count the pixels whose class differs after reading back; all pixels of an image that is missing."""
    changed: list[tuple[str, int]] = []
    pixels = 0
    found = {record.image: (split, index) for split in back for index, record in enumerate(split.records)}
    for done, (path, (source, place)) in enumerate(written.items(), 1):
        before = source.read(place).truth(source.labels.ignore_index)
        assert before is not None
        pixels += before.size
        differ = before.size
        if path in found:
            split, index = found[path]
            after = split.read(index).truth(split.labels.ignore_index)
            differ = int(np.count_nonzero(_translate(before, source.labels, split.labels) != after))
        if differ:
            changed.append((f"{source.name}/{source.records[place].id}", differ))
        if progress is not None:
            progress(len(written) + done, 2 * len(written))
    worst = sorted(changed, key=lambda item: (-item[1], item[0]))[:5]
    lost = sum(differ for _, differ in changed)
    return Converted(len(written), pixels, lost, len(changed), tuple(worst), kind.loses)


def _translate(mask: Any, source: Labels, target: Labels) -> Any:
    """Translate class indices by class name."""
    if source.names == target.names and source.ignore_index == target.ignore_index:
        return mask
    table = np.full(source.ignore_index + 1, target.ignore_index, target.dtype)
    table[: source.num_classes] = [target.names.index(name) for name in source.names]
    return table[mask]
