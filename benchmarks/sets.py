"""The data sets of the benchmarks: those of `recipes/*.yaml`, and two that are written to a folder first.

- `hippocampus`: axial slices of MR volumes (Medical Segmentation Decathlon, task 4) as 8-bit images. Each volume is scaled
  linearly from its 0.5 % and 99.5 % percentiles to 0–255, the usual preparation: the scanners' raw values differ by a
  factor of 3,000. 50 patients, one volume each; all slices of a patient are in one split.
- `aerial_roads_4band`: the images of `aerial_roads` with 16 bits and a fourth band, excess green; split as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray
from PIL import Image

from benchmarks import protocol
from benchmarks.protocol import RECIPES
from pixelwise.config import read_request
from pixelwise.datasets.dataset import open_data, pin_paths
from pixelwise.datasets.split import split_groups

VOLUME_SHARES, VOLUME_SEED = {"val": 0.15, "test": 0.2}, 0


def describe(name: str, root: Path, folder: Path) -> Path:
    """Write the description of a data set for training; everything but the data is derived from it.

    Args:
        name: one of `SETS`.
        root: folder with the data sets.
        folder: gets the description and, for prepared sets, the images.

    Returns:
        The path of the description, with train, val and test splits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name in PREPARED:
        return PREPARED[name](root, folder)
    config, base = read_request(RECIPES / f"{name}.yaml", (f"data.root={(root / name).resolve()}",))
    data = pin_paths(config.data, base).model_dump(mode="json", exclude_defaults=True)
    return _write(folder, data)


def _write_hippocampus(root: Path, folder: Path) -> Path:
    slices = {
        f"{path.name.removesuffix('.nii.gz')}_{number:02}": pair
        for path in sorted((root / "hippocampus" / "images").glob("*.nii.gz"))
        for number, pair in enumerate(_axial_slices(path, root / "hippocampus" / "labels" / path.name))
    }
    patients = [name.rpartition("_")[0] for name in slices]
    splits = split_groups(list(slices), patients, VOLUME_SHARES["val"], VOLUME_SHARES["test"], VOLUME_SEED)
    for name, pair in slices.items():
        for what, array in zip(("images", "masks"), pair, strict=True):
            Image.fromarray(array).save(_place(folder, splits[name], what) / f"{name}.png")
    names = ("background", "anterior", "posterior")
    return _write_description(folder, names, "png", {"group": "(hippocampus_[0-9]+)_[0-9]+"})


def _axial_slices(image: Path, mask: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield slices (H, W) of a volume and its mask from inferior to superior, the front of the head on top."""
    import nibabel

    values, truth = (
        np.rot90(np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)) for path in (image, mask)
    )
    scaled = to_bytes(values)
    for number in range(values.shape[2]):
        yield np.ascontiguousarray(scaled[..., number]), np.ascontiguousarray(truth[..., number], np.uint8)


def to_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale values linearly from their 0.5 % and 99.5 % percentiles to 0–255; values outside are clipped."""
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = (values - low) * (255 / max(high - low, 1e-9))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _write_four_bands(root: Path, folder: Path) -> Path:
    config, base = read_request(RECIPES / "aerial_roads.yaml", (f"data.root={(root / 'aerial_roads').resolve()}",))
    splits = open_data(config.data, base)
    for dataset in (splits.train, splits.val, splits.test):
        assert dataset is not None
        for index, record in enumerate(dataset.records):
            sample = dataset.read(index)
            assert sample.mask is not None
            bands = with_excess_green(sample.image)
            path = _place(folder, dataset.name, "images") / f"{record.image.stem}.tif"
            tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="separate")
            Image.fromarray(sample.mask.astype(np.uint8)).save(
                _place(folder, dataset.name, "masks") / f"{record.image.stem}.png"
            )
    return _write_description(folder, splits.labels.names, "tif", {})


def with_excess_green(image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return an 8-bit RGB image (3, H, W) as 16-bit values (4, H, W), the last band 2·green − red − blue, at least 0."""
    red, green, blue = image.astype(int) * 200
    return np.stack([red, green, blue, np.clip(2 * green - red - blue, 0, 65535)]).astype(np.uint16)


def _place(folder: Path, split: str, what: str) -> Path:
    place = folder / split / what
    place.mkdir(parents=True, exist_ok=True)
    return place


def _write_description(folder: Path, names: Iterable[str], suffix: str, more: Mapping[str, str]) -> Path:
    data = {
        split: {"images": f"{split}/images/*.{suffix}", "masks": f"{split}/masks/{{stem}}.png"}
        for split in ("train", "val", "test")
    }
    return _write(folder, data | {"labels": {"names": list(names)}} | more)


def _write(folder: Path, data: Mapping[str, Any]) -> Path:
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"data": dict(data)}, sort_keys=False), encoding="utf-8")
    return path


PREPARED: Mapping[str, Callable[[Path, Path], Path]] = {
    "hippocampus": _write_hippocampus,
    "aerial_roads_4band": _write_four_bands,
}
SETS = (*protocol.SETS, "nuclei", *PREPARED)
