"""Splits and class names of a YOLO data set: from its YAML, or from its list of classes and darknet's lists of images.

Paths in a YAML are matched with folders below the root by their end, since they can be from another machine. They never
lead outside the root.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.config import is_yolo, read_yaml, yolo_home
from pixelwise.errors import ConfigError, LabelsError, MaskError
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.records import SPLIT_FOLDERS, short
from pixelwise.imageio.safe_reading import read_text

_CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_MAX_CLASSES = 65_535


@dataclass(frozen=True)
class Description:
    """The content of a data set's YAML, or of its list of classes."""

    file: Path  # the YAML or list; the root if there is neither
    names: dict[int, str] | None  # by class id in the text files; None if there are no names
    splits: Mapping[str, list[str]]  # folders of images, or lists of them, by split; empty if given by folder names
    home: Path  # the folder to which their paths are relative
    notices: tuple[str, ...] = ()


def yaml_files(dataset: DatasetRoot) -> Iterator[Path]:
    """Find YAML files of YOLO: those in `data.annotations`, else those at the root."""
    for path in (*dataset.annotations(".yaml"), *dataset.annotations(".yml")):
        if dataset.config.annotations is not None or path.parent == dataset.root:
            try:
                found = is_yolo(read_yaml(path)[0])
            except ConfigError:
                if dataset.config.format is not None and dataset.config.annotations is not None:
                    raise  # the user asked for this file
                continue
            if found:
                yield path


def _require_readable_yaml(dataset: DatasetRoot) -> None:
    """Refuse a YAML at the root that cannot be parsed: without its names and splits, classes would be numbers.

    Raises:
        ConfigError: there is one.
    """
    for path in dataset.files:
        if path.suffix.lower() in (".yaml", ".yml") and path.parent == dataset.root:
            try:
                read_yaml(path)
            except ConfigError as error:
                if error.expected == "a readable YAML file":
                    raise


def describe(dataset: DatasetRoot) -> Description:
    """Read the YAML, or else the list of classes and darknet's lists of images."""
    files = list(yaml_files(dataset))
    if not files:
        _require_readable_yaml(dataset)
    dataset.use(*files)
    if len(files) > 1:
        found = ", ".join(short(path, dataset.root) for path in files)
        do = f"Choose one: --set data.annotations={short(files[0], dataset.root)}"
        raise ConfigError(dataset.root, expected="one YAML with splits and names", found=found, do=do)
    if not files:
        if dataset.config.annotations is not None:
            found = repr(dataset.config.annotations)
            do = "Set it to the YAML with `names` and `train`, or remove it."
            raise ConfigError("data.annotations", expected="the YAML of a YOLO data set", found=found, do=do)
        return _without_yaml(dataset)
    file = files[0]
    content = read_yaml(file)[0]
    _require_segmentation(file, content)
    splits: dict[str, list[str]] = {}
    for split, words in SPLIT_FOLDERS.items():
        entries: Any = next((content[word] for word in words if content.get(word)), [])
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            expected = "a folder, a list of folders, or a .txt list of images"
            raise ConfigError(f"{file}: {split}", expected=expected, found=repr(entries)[:80], do="Correct it.")
        if entries:
            splits[split] = entries
    names = _class_names(file, content.get("names"), content.get("nc"))
    return Description(file, names, splits, *_home(dataset, file, content))


def _home(dataset: DatasetRoot, file: Path, content: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
    """Return the folder to which paths in a YAML are relative, with a notice if it is not the YAML's own."""
    home = yolo_home(file, content)
    inside = None if home is None else _inside(dataset, home)
    if inside is None:
        reason = "does not exist on this machine" if home is None else "is outside the data set's folder"
        notice = f"`path` in {file.name} ({content.get('path')}) {reason}: images are looked up in {dataset.root}"
        return _inside(dataset, file.parent) or dataset.root, (notice,)
    if home != file.parent and inside == dataset.root:
        return inside, (f"images are read from {dataset.root}, the `path` in {file.name}",)
    return inside, ()


def _inside(dataset: DatasetRoot, folder: Path) -> Path | None:
    """Return a folder as a path below the root; None if it is outside."""
    if folder.is_relative_to(dataset.root):
        return folder
    resolved, root = folder.resolve(), dataset.root.resolve()
    return dataset.root / resolved.relative_to(root) if resolved.is_relative_to(root) else None


def _without_yaml(dataset: DatasetRoot) -> Description:
    """Read the names from a list of classes, and the splits from lists of images at the root, as in darknet."""
    lists = [path for path in dataset.files if path.name in _CLASS_LISTS or path.suffix == ".names"]
    dataset.use(*lists)
    texts = {path: read_label_text(dataset, path).rstrip() for path in lists}
    if len(set(texts.values())) > 1:
        found = ", ".join(short(path, dataset.root) for path in lists[:3])
        raise LabelsError(dataset.root, expected="one list of classes", found=found, do="Remove the wrong ones.")
    names = _class_names(lists[0], [line.strip() for line in texts[lists[0]].splitlines()], None) if lists else None
    splits: dict[str, list[str]] = {}
    for split, words in SPLIT_FOLDERS.items():
        files = [f"{word}.txt" for word in words if dataset.root / f"{word}.txt" in dataset.files]
        if files:
            splits[split] = files[:1]
    file = lists[0] if lists else dataset.root
    return Description(file, names, splits if "train" in splits else {}, dataset.root)


def _require_segmentation(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse data sets for other tasks, which have the same YAML."""
    if "kpt_shape" in content:
        do = "Export the data set as YOLO segmentation."
        raise MaskError(file, expected="a data set for segmentation", found="kpt_shape, for keypoints", do=do)
    if "masks_dir" in content:
        found = f"masks_dir {str(content['masks_dir'])!r}, masks as PNG"
        do = "Read them as folders of masks: --set data.format=masks --set 'data.labels=[the names]'."
        raise MaskError(file, expected="text files with polygons", found=found, do=do)


def _class_names(file: Path, given: Any, count: Any) -> dict[int, str] | None:
    """Read names from a list or a mapping by id; `nc` alone gives class_0, class_1 and so on."""

    def invalid(key: str, expected: str, found: object, do: str) -> LabelsError:
        return LabelsError(f"{file}: {key}", expected=expected, found=f"{found!r:.40}", do=do)

    if count is not None and (type(count) is not int or not 0 <= count <= _MAX_CLASSES):
        raise invalid("nc", "a number of classes", count, "Correct it.")
    if given is None:
        return None if count is None else {kind: f"class_{kind}" for kind in range(count)}
    if not isinstance(given, list | Mapping):
        raise invalid("names", "a list of names", given, "Write names: [a, b].")
    names: dict[int, str] = {}
    used: set[str] = set()
    for kind, name in given.items() if isinstance(given, Mapping) else enumerate(given):
        if not re.fullmatch(r"\d{1,6}", str(kind)):
            raise invalid("names", "integer class ids", kind, "Write 0: name.")
        if not isinstance(name, str | int | float) or isinstance(name, bool) or not str(name).strip():
            raise invalid("names", "class names", name, "Put the name in quotes.")
        if str(name) in used or int(kind) in names:
            raise invalid("names", "unique names and ids", name, "Rename one of the duplicates.")
        used.add(str(name))
        names[int(kind)] = str(name)
    if count is not None and count != len(names):
        raise invalid("nc", f"{len(names)}, the number of names", count, "Correct nc, or add the names.")
    return names


def read_label_text(dataset: DatasetRoot, path: Path) -> str:
    """Read a list of classes, and note its encoding.

    Raises:
        ConfigError: it cannot be read, or its encoding is unknown.
    """
    try:
        return dataset.decode(path)
    except (OSError, UnicodeError):
        return read_text(path)  # raises the error with the advice
