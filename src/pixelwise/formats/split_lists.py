"""Divide one pool of images by lists of names, as many public data sets do.

Comes in: the `data` section, the folders, the pool that was found. Goes out: the parts. Knows nothing of pixels, masks or
random division.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pixelwise.config import DataConfig
from pixelwise.errors import ConfigError, PairingError
from pixelwise.formats.records import ORPHAN, SPLIT_FOLDERS, SPLITS, Layout, Problem, Record, short
from pixelwise.imageio.safe_reading import read_text


def find_lists(config: DataConfig, root: Path, base: Path) -> dict[str, Path]:
    """Find the lists of the parts: those the configuration names, else splits/*.txt."""
    lists: dict[str, Path] = {}
    for split in SPLITS:
        name = getattr(config, split)
        if isinstance(name, str):
            path = next((folder / name for folder in (base, root) if (folder / name).is_file()), None)
            if path is None:
                raise ConfigError(
                    f"data.{split}",
                    expected=f"the list {name}",
                    found=f"no such file in {base} or {root}",
                    do="Check the path.",
                )
            lists[split] = path
    if not lists and not any(getattr(config, split) for split in SPLITS) and config.images is None:
        for split, names in SPLIT_FOLDERS.items():
            files = (root / "splits" / f"{name}.txt" for name in names)
            found = next((path for path in files if path.is_file()), None)
            if found is not None:
                lists[split] = found
    return lists


def divide_by_lists(layout: Layout, lists: Mapping[str, Path], root: Path) -> Layout:
    """Put the images of the pool into the parts whose lists name them; without a list of train, the rest is train."""
    pool = layout.splits.get("pool")
    if pool is None:
        raise ConfigError(
            "data", expected="one pool of images for the lists", found=layout.kind, do="Name `images` and `masks`."
        )
    names = _names(pool, root)
    place: dict[str, str] = {}
    problems = [problem for problem in layout.problems if problem.why != ORPHAN]
    for split, path in lists.items():
        for line in _lines(path):
            record = names.get(line) or names.get(PurePosixPath(line).with_suffix("").as_posix())
            if record is None:
                why = "names several images" if line in names else "no such image"
                problems.append(Problem(f"{path.name}: {line}", f"listed, but {why}"))
            elif place.setdefault(record.id, split) != split:
                raise PairingError(
                    path,
                    expected="every image in one part",
                    found=f"{line} in {place[record.id]} and {split}",
                    do="Remove it from one of the lists.",
                )
    rest = sum(record.id not in place for record in pool)
    notices = layout.notices
    if rest:
        fate = "are left out" if "train" in lists else "make the train part"
        notices += (f"{rest} of {len(pool)} images are in no list and {fate}",)
    wanted = [*lists, *([] if "train" in lists or not rest else ["train"])]
    default = None if "train" in lists else "train"
    splits = {split: tuple(r for r in pool if place.get(r.id, default) == split) for split in wanted}
    others = {split: records for split, records in layout.splits.items() if split != "pool"}
    return Layout(f"{layout.kind}, divided by lists", splits | others, tuple(problems), notices)


def _lines(path: Path) -> list[str]:
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _names(records: Iterable[Record], root: Path) -> dict[str, Record | None]:
    """Give every name by which a list may call an image; None where a name fits several."""
    names: dict[str, Record | None] = {}
    for record in records:
        path = PurePosixPath(short(record.image, root))
        mine = {record.id, record.id + path.suffix, str(path), str(path.with_suffix("")), path.name, path.stem}
        for name in mine:
            names[name] = None if name in names else record
    return names
