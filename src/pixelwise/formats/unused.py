"""Name the files of a data set that were not read, so that a forgotten or unrecognised file is noticed.

Only files that may hold data count: images, annotations, tables, volumes and archives, but not documentation, code and
checksums.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from xml.parsers import expat

from pixelwise.config import Config, DataConfig, is_yolo, read_yaml
from pixelwise.errors import ConfigError, MaskError
from pixelwise.formats.base import load_json
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders.search import UNREADABLE
from pixelwise.formats.records import Layout, short
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.safe_reading import decode, describe_unreadable

UNUSED = "not used: "
ANNOTATIONS = (".json", ".jsonl", ".ndjson", ".geojson", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml")
_SUFFIXES = frozenset((
    *IMAGE_SUFFIXES, *UNREADABLE, *ANNOTATIONS, ".jfif", ".npy", ".npz", ".mat", ".nii", ".gz", ".nrrd", ".nhdr", ".mha",
    ".mhd", ".dcm", ".h5", ".hdf5", ".parquet", ".tfrecord", ".shp", ".gpkg", ".kml", ".zip", ".tar", ".tgz", ".7z", ".rar",
    ".names",
))  # fmt: skip
_DOCUMENTATION = re.compile(
    r"(read[_-]?me|licen[cs]e|copying|notice|citation|change(log|s)|authors|requirements|robots|notes?)\b.*\.txt"
    r"|.*(checksums?|md5(sums?)?|sha(1|256|512)(sums?)?)\.txt|.*\.aux\.xml",
    re.IGNORECASE,
)
_SHOWN = 2
_PARSED = 20


def find_unused(dataset: DatasetRoot, layout: Layout) -> list[Path]:
    """Return the files of a read data set that neither a record, a problem nor a notice is about."""
    used = dataset.used | _configured(dataset)
    for record in layout.records:
        used.update(path for path in (record.image, record.mask, record.valid) if path is not None)
        used.update(record.plane.more if record.plane is not None else ())
    rest = [path for path in dataset.files if path not in used and is_data(path)]
    if not rest:
        return []
    named = {name for problem in layout.problems for name in (problem.file, problem.file.partition(": ")[0])}
    if named:
        rest = [path for path in rest if short(path, dataset.root) not in named and str(path) not in named]
    return [path for path in rest if not _is_own(dataset, path)]


def is_data(path: Path) -> bool:
    """Return whether a file may hold data, by its name."""
    suffix = path.suffix.lower()
    return suffix in _SUFFIXES and not (suffix in (".txt", ".xml") and _DOCUMENTATION.fullmatch(path.name))


def _configured(dataset: DatasetRoot) -> set[Path]:
    """Return the files that the configuration names."""
    config = dataset.config
    names = [name for name in (config.train, config.val, config.test, config.group) if isinstance(name, str)]
    names.append(config.labels if isinstance(config.labels, str) else "labels.yaml")
    return {folder / name for folder in (dataset.base, dataset.root) for name in names if "\0" not in name}


def _is_own(dataset: DatasetRoot, path: Path) -> bool:
    """Return whether a file is a YAML for pixelwise: a description of this data set, or a recipe."""
    if path.suffix.lower() not in (".yaml", ".yml") or path.parent not in (dataset.root, dataset.base):
        return False
    try:
        plain = read_yaml(path)[0]
    except ConfigError:
        return False
    keys = {*Config.model_fields, *DataConfig.model_fields}
    return bool(plain) and plain.keys() <= keys and not is_yolo(plain)


def describe_files(paths: Sequence[Path], root: Path) -> str:
    """Return the number of files and the first of each suffix: "3 files (2 .TXT: a.TXT, b.TXT; 1 .nrrd: c.nrrd)"."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[path.suffix].append(path)
    order = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    shown = (f"{len(group)} {suffix}: {_first(group, root)}" for suffix, group in order)
    many = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    return f"{many} ({_first(paths, root) if len(groups) == 1 else '; '.join(shown)})"


def _first(paths: Sequence[Path], root: Path) -> str:
    return ", ".join(short(path, root) for path in paths[:_SHOWN]) + (", …" if len(paths) > _SHOWN else "")


def describe_unrecognised(dataset: DatasetRoot) -> str:
    """Describe the annotation files of a data set that no format recognises, with what is wrong with them; "" if none."""
    paths = [path for path in dataset.files if path.suffix.lower() in ANNOTATIONS and is_data(path)]
    known = dataset.used | _configured(dataset)
    paths = [path for path in paths if path not in known and not _is_own(dataset, path)]
    if not paths:
        return ""
    reasons = dict.fromkeys(filter(None, map(_fault, _spread(paths))))
    why = f": {next(iter(reasons))}" if reasons else ""
    return f"annotations of no known format, {describe_files(paths, dataset.root)}{why}"


def _spread(paths: Sequence[Path]) -> Iterable[Path]:
    """Return the first files of each suffix."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[path.suffix.lower()].append(path)
    return chain.from_iterable(group[:_PARSED] for group in groups.values())


def _fault(path: Path) -> str:
    """Return why a file cannot be parsed; "" if it can."""
    try:
        if path.suffix.lower() in (".json", ".geojson"):
            load_json(path)
        elif path.suffix.lower() == ".xml":
            expat.ParserCreate().Parse(path.read_bytes(), True)
        else:
            decode(path.read_bytes())
    except MaskError as error:
        return f"{path.name} is {error.found}" if error.found.startswith("text in") else f"{path.name}: {error.found}"
    except (expat.ExpatError, OSError, UnicodeError, ValueError) as error:
        return f"{path.name}: {describe_unreadable(error)}"
    return ""
