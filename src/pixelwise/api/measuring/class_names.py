"""Name the classes of mask files that come without a model: by a labels.yaml, by tables in the files, or by their ids."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pixelwise.config.files import read_yaml
from pixelwise.datasets.mask_values import read_middle, read_values, without_errors
from pixelwise.errors import MaskError
from pixelwise.geometry.contours import components
from pixelwise.imageio import volume_files
from pixelwise.imageio.images import RawMask, as_integers, read_header
from pixelwise.imageio.mask_heuristics import MaskStatistics, count_off_border, count_regions
from pixelwise.imageio.masks import MaskRule, advise_on_negative_ids, read_ids, values_as_ids
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.sources import open_source
from pixelwise.labels import Labels
from pixelwise.measuring.masks import bands

LABELS = "labels.yaml"
_TIFF = (".tif", ".tiff")
_METADATA = 42112  # GDAL_METADATA, XML
_KEY = "data.mask_values"
_IGNORED = 255
_BAND_PIXELS = 1 << 24
_MOST = 1000
# Images have more values than these, in regions of fewer pixels on average; masks of many objects have larger ones.
_MANY, _PIXELS_OF_REGION = 64, 8
_IDS = MaskRule(binary=False)  # 255 is an id like others, not the second of two classes
_OBJECTS = Labels(("background", "object"), countable=(False, True))


class Named(NamedTuple):
    """The classes of mask files, the rule by which their values become ids, and what was assumed."""

    labels: Labels
    rule: MaskRule
    notices: tuple[str, ...] = ()


def name_classes(files: Sequence[Path], root: Path, given: Any = None) -> Named:
    """Return the classes of mask files, one or more.

    They are those of a `labels.yaml` in `root`; otherwise, those that the files name, and all ids that occur, as "class 3". The nodata
    value of the files is ignored, and so is 255, unless it is named or 0 is the only other id.

    Args:
        files: images and volumes.
        root: their folder.
        given: `data.mask_values`; None if the values are ids, or number objects.

    Raises:
        MaskError: colours, fractions, negative ids, soft edges, more than 1,000 ids, or an image that is no mask.
        LabelsError: two ids of one name.
    """
    rule = _IDS if given is None else MaskRule.from_config(given)
    described = root / LABELS
    if described.is_file():
        return Named(Labels.from_dict(read_yaml(described)[0], str(described)), rule)
    if rule.threshold is not None:
        return Named(Labels(("background", "foreground")), rule)
    if given is None and _number_objects([path for path in files if not volume_files.is_volume(path)]):
        text = "the masks number objects, so that every id but 0 is an object; objects that touch are one region."
        rule, notices = MaskRule(objects=True), (f"{text} Are they classes? --set '{_KEY}={{objects: false}}'",)
        return Named(_OBJECTS, rule, notices)
    if rule.objects:
        return Named(_OBJECTS, rule)
    return Named(_labels_of_ids(files, rule), rule)


def _labels_of_ids(files: Sequence[Path], rule: MaskRule) -> Labels:
    names: dict[int, str] = {}
    ignored: set[int] = set()
    ids: set[int] = set()
    for path in files:
        found = _ids_in(path, rule)
        negative = sorted(id_ for id_ in found if id_ < 0)
        if negative and not ignored.issuperset(negative) and not _nodata(path).issuperset(negative):
            do = advise_on_negative_ids(negative, {id_: id_ for id_ in sorted(found) if id_ >= 0}, None)
            raise MaskError(path, expected="class ids from 0 on", found=str(negative[0]), do=do)
        names |= _names_in(path)
        ignored |= _nodata(path)
        ids |= found
    if _IGNORED not in names and (rule.values is not None or ids - {0, _IGNORED}):
        ignored.add(_IGNORED)
    ignored -= set(names)
    every = sorted((ids | set(names)) - ignored) or [0]
    texts = tuple(names.get(each, f"class {each}") for each in every)
    return Labels(texts, tuple(every), ignore_ids=tuple(sorted(ignored)))


def _number_objects(images: Sequence[Path]) -> bool:
    """Whether each id of image files is one object.

    Raises:
        MaskError: they are two classes with soft edges.
    """
    statistics = MaskStatistics()
    for values in without_errors(read_values, images):
        statistics.add(values)
    if statistics.soft(without_errors(lambda path: count_off_border(read_middle(path)), images)):
        for path in images:
            _ids_in(path, _IDS)  # a noisy image has values like those of soft edges
        raise MaskError(
            images[0] if len(images) == 1 else images[0].parent,
            expected="class ids",
            found=f"dark and bright, and {len(statistics.greys)} grey values along the edges between them (smoothed masks)",
            do=f"Read them as two classes divided at 128: --set '{_KEY}={{threshold: 128}}'."
            " If they are class ids after all, name these in a labels.yaml.",
        )
    return statistics.objects(without_errors(lambda path: count_regions(read_middle(path)), images))


def _names_in(path: Path) -> dict[int, str]:
    """Return the names by id that a file holds."""
    if volume_files.is_volume(path):
        return volume_files.read_label_table(path)
    if path.suffix.lower() not in _TIFF:
        return {}
    import tifffile

    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags.get(_METADATA)
        return {} if tag is None else _classes(str(tag.value))  # read only now


def _classes(metadata: str) -> dict[int, str]:
    """Return the table that `predict` writes as the item CLASSES: JSON, from id to name."""
    try:
        for item in ElementTree.fromstring(metadata.strip("\0")).iter("Item"):
            if item.get("name") == "CLASSES":
                plain: Mapping[str, Any] = json.loads(html.unescape(item.text or "{}"))  # GDAL escapes twice
                return {int(key): str(value) for key, value in plain.items()}
    except (ElementTree.ParseError, ValueError, AttributeError):
        return {}  # of another program
    return {}


def _nodata(path: Path) -> set[int]:
    if volume_files.is_volume(path):
        return set()
    value = read_header(path).nodata
    return {int(value)} if value is not None and float(value).is_integer() else set()


def _ids_in(path: Path, rule: MaskRule) -> set[int]:
    """Return the ids that occur in a file, read by bands of rows; a volume is read as a whole.

    Raises:
        MaskError: see `name_classes`.
    """
    if volume_files.is_volume(path):
        values = read_volume(path)
        return _checked(path, set(np.unique(_by_rule(path, values, rule)).tolist()), values[len(values) // 2])
    stored = read_values(path) if rule.stored else None  # kept from `_number_objects`
    if stored is not None and stored.kind in ("index", "palette", "binary"):
        found = set(stored.values.tolist())
        return _checked(path, found, _middle_of(path, found))
    found = set()
    shape = tuple(open_source(path).shape)
    for window in bands(shape, max(_BAND_PIXELS // int(np.prod(shape[1:])), 1)):
        found |= set(np.unique(read_ids(path, rule, window=window)[0]).tolist())
        if len(found) > _MOST:
            break
    return _checked(path, found, _middle_of(path, found))


def _middle_of(path: Path, ids: Collection[int]) -> NDArray[Any]:
    """Return the values (H, W) in the middle of an image file, if they have to be looked at."""
    many = _MANY < len(ids) <= _MOST
    return read_middle(path).single_band().values if many else np.zeros((1, 1), np.uint8)


def _checked(path: Path, ids: set[int], flat: NDArray[Any]) -> set[int]:
    """Return ids, unless there are too many, or the regions of the values (H, W) are as small as in an image."""
    do = (
        "Name a mask, not an image; if it is a mask, name its classes in a labels.yaml, or if each id is one object: --set "
        f"'{_KEY}={{objects: true}}'."
    )
    if len(ids) > _MOST:
        raise MaskError(path, expected="class ids", found=f"more than {_MOST:,} different values", do=do)
    if len(ids) > _MANY and components(flat)[1] > flat.size / _PIXELS_OF_REGION:
        found = f"an image: {len(ids)} different values in regions of few pixels"
        raise MaskError(path, expected="class ids", found=found, do=do)
    return ids


def read_volume(path: Path) -> NDArray[Any]:
    """Return the ids of a volume file, (D, H, W).

    Raises:
        MaskError: several bands, or fractions.
    """
    source = open_source(path)
    if source.channels != 1:
        found, do = f"{source.channels} bands", "Save the labels as one volume of class ids."
        raise MaskError(path, expected="one band of class ids", found=found, do=do)
    with reading(path, MaskError, "volume"):
        return np.ascontiguousarray(as_integers(source.read()[0][0]))


def raw_of(path: Path, volume: NDArray[Any]) -> RawMask:
    """Return slices below each other, since three axes would be those of an image with colours."""
    return RawMask(volume.reshape(-1, volume.shape[-1]), "index", None, volume_files.format_of(path))


def _by_rule(path: Path, volume: NDArray[Any], rule: MaskRule) -> NDArray[Any]:
    return values_as_ids(path, raw_of(path, volume), rule)[0]
