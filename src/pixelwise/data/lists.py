"""Divide one pool of pictures by lists of names, as many public data sets do.

Comes in: the `data` section, the folders, the pool that was found. Goes out: the parts. Knows nothing of pixels, masks or
random division.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pixelwise.config import DataConfig
from pixelwise.data.records import ORPHAN, PART_FOLDERS, PARTS, Layout, Problem, Record, short
from pixelwise.data.split import read_text
from pixelwise.errors import ConfigError, PairingError


def find_lists(config: DataConfig, root: Path, base: Path) -> dict[str, Path]:
    """Find the lists of the parts: those the configuration names, else splits/*.txt."""
    lists: dict[str, Path] = {}
    for part in PARTS:
        name = getattr(config, part)
        if isinstance(name, str):
            path = next((folder / name for folder in (base, root) if (folder / name).is_file()), None)
            if path is None:
                raise ConfigError(
                    f"data.{part}",
                    expected=f"the list {name}",
                    found=f"no such file in {base} or {root}",
                    do="Check the path.",
                )
            lists[part] = path
    if not lists and not any(getattr(config, part) for part in PARTS) and config.images is None:
        for part, names in PART_FOLDERS.items():
            files = (root / "splits" / f"{name}.txt" for name in names)
            found = next((path for path in files if path.is_file()), None)
            if found is not None:
                lists[part] = found
    return lists


def divide_by_lists(layout: Layout, lists: Mapping[str, Path], root: Path) -> Layout:
    """Put the pictures of the pool into the parts whose lists name them; without a list of train, the rest is train."""
    pool = layout.parts.get("pool")
    if pool is None:
        raise ConfigError(
            "data", expected="one pool of pictures for the lists", found=layout.kind, do="Name `images` and `masks`."
        )
    names = _names(pool, root)
    place: dict[str, str] = {}
    problems = [problem for problem in layout.problems if problem.why != ORPHAN]
    for part, path in lists.items():
        for line in _lines(path):
            record = names.get(line) or names.get(PurePosixPath(line).with_suffix("").as_posix())
            if record is None:
                why = "names several pictures" if line in names else "no such picture"
                problems.append(Problem(f"{path.name}: {line}", f"listed, but {why}"))
            elif place.setdefault(record.id, part) != part:
                raise PairingError(
                    path,
                    expected="every picture in one part",
                    found=f"{line} in {place[record.id]} and {part}",
                    do="Remove it from one of the lists.",
                )
    rest = sum(record.id not in place for record in pool)
    notices = layout.notices
    if rest:
        fate = "are left out" if "train" in lists else "make the train part"
        notices += (f"{rest} of {len(pool)} pictures are in no list and {fate}",)
    wanted = [*lists, *([] if "train" in lists or not rest else ["train"])]
    default = None if "train" in lists else "train"
    parts = {part: tuple(r for r in pool if place.get(r.id, default) == part) for part in wanted}
    others = {part: records for part, records in layout.parts.items() if part != "pool"}
    return Layout(f"{layout.kind}, divided by lists", parts | others, tuple(problems), notices)


def _lines(path: Path) -> list[str]:
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _names(records: Iterable[Record], root: Path) -> dict[str, Record | None]:
    """Give every name by which a list may call a picture; None where a name fits several."""
    names: dict[str, Record | None] = {}
    for record in records:
        path = PurePosixPath(short(record.image, root))
        mine = {record.id, record.id + path.suffix, str(path), str(path.with_suffix("")), path.name, path.stem}
        for name in mine:
            names[name] = None if name in names else record
    return names
