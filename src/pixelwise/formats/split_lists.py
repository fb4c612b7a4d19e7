"""Divide one pool of images by text files that list image names, as many public data sets do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pixelwise.config import DataConfig
from pixelwise.errors import ConfigError, PairingError
from pixelwise.formats.records import ORPHAN, SPLIT_FOLDERS, SPLITS, Layout, Problem, Record, short
from pixelwise.imageio.safe_reading import read_text


def find_lists(config: DataConfig, root: Path, base: Path) -> dict[str, Path]:
    """Return the list file of each split: those that the configuration names, otherwise splits/*.txt."""
    lists: dict[str, Path] = {}
    for split in SPLITS:
        name = getattr(config, split)
        if isinstance(name, str):
            path = next((folder / name for folder in (base, root) if (folder / name).is_file()), None)
            if path is None:
                found = f"no such file in {base} or {root}"
                raise ConfigError(f"data.{split}", expected=f"the list {name}", found=found, do="Check the path.")
            lists[split] = path
    if not lists and not any(getattr(config, split) for split in SPLITS) and config.images is None:
        for split, names in SPLIT_FOLDERS.items():
            files = (root / "splits" / f"{name}.txt" for name in names)
            default = next((path for path in files if path.is_file()), None)
            if default is not None:
                lists[split] = default
    return lists


def divide_by_lists(layout: Layout, lists: Mapping[str, Path], root: Path) -> Layout:
    """Divide the pool by the lists; without a list of train, the remaining images are train."""
    pool = layout.splits.get("pool")
    if pool is None:
        do = "Name `images` and `masks`."
        raise ConfigError("data", expected="one pool of images for the lists", found=layout.kind, do=do)
    records = _records_by_name(pool, root)
    split_of: dict[str, str] = {}
    problems = [problem for problem in layout.problems if problem.why != ORPHAN]
    for split, path in lists.items():
        for line in _lines(path):
            record = records.get(line) or records.get(PurePosixPath(line).with_suffix("").as_posix())
            if record is None:
                why = "names several images" if line in records else "no such image"
                problems.append(Problem(f"{path.name}: {line}", f"listed, but {why}"))
            elif split_of.setdefault(record.id, split) != split:
                found = f"{line} in {split_of[record.id]} and {split}"
                do = "Remove it from one of the lists."
                raise PairingError(path, expected="every image in one split", found=found, do=do)
    unlisted = sum(record.id not in split_of for record in pool)
    notices = layout.notices
    if unlisted:
        fate = "are left out" if "train" in lists else "become the train split"
        notices += (f"{unlisted} of {len(pool)} images are in no list and {fate}",)
    names = [*lists, *([] if "train" in lists or not unlisted else ["train"])]
    default = None if "train" in lists else "train"
    splits = {split: tuple(r for r in pool if split_of.get(r.id, default) == split) for split in names}
    others = {split: records for split, records in layout.splits.items() if split != "pool"}
    return Layout(f"{layout.kind}, divided by lists", splits | others, tuple(problems), notices)


def _lines(path: Path) -> list[str]:
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _records_by_name(records: Iterable[Record], root: Path) -> dict[str, Record | None]:
    """Return the record for every name that a list may use for an image; None where a name fits several."""
    names: dict[str, Record | None] = {}
    for record in records:
        path = PurePosixPath(short(record.image, root))
        for name in {record.id, record.id + path.suffix, str(path), str(path.with_suffix("")), path.name, path.stem}:
            names[name] = None if name in names else record
    return names
