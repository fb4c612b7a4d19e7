"""What was counted of models on the same images, ready to be compared.

Comes in: the content of `scores.json` and the folders that it lies in. Goes out: `Counted`, one per model, their images in
one order; and recipes, the runs that differ in their seed alone. Knows nothing of statistics.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.config import read_yaml
from pixelwise.errors import DataError
from pixelwise.evaluation.verdicts import listed
from pixelwise.metrics.confusion import Counts

SCORES, CONFIG, REQUEST = "scores.json", "config.yaml", "request.json"
# What the machine chooses, what changes no weight, and what is compared: no part of a recipe.
_NO_RECIPE = ("seed", "recounts", "workers", "cache", "device", "channels_last")
_FEW_RUNS = 5


@dataclass(frozen=True, eq=False)  # of arrays, equality is no yes or no
class Counted:
    """Hold what was counted of one model.

    Args:
        name: what it is called.
        classes: their names.
        ids: one per image.
        groups: what each image belongs to, or None.
        truths: a hash of each image's mask.
        counts: int64 (N, 3, K), per image and class the pixels found, true and predicted.
        recipe: a hash of all that made the run but its seed; None where that is not known.
        seed: the run's.
        selected: the run chose its best weights by these very scores.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    groups: tuple[str | None, ...]
    truths: tuple[str, ...]
    counts: Counts
    recipe: str | None = None
    seed: int | None = None
    selected: bool = False


@dataclass(frozen=True)
class Recipe:
    """Hold which runs, by their places, are compared as one."""

    name: str
    members: tuple[int, ...]


def read_counted(path: Path, name: str) -> Counted:
    """Read what a `scores.json` holds; `path` is the file or its folder.

    Raises:
        DataError: nothing there, nothing readable, or an older file without counts per image.
    """
    if not path.exists():
        raise DataError(path, expected="a folder with scores.json, or the file", found="nothing", do="Check the path.")
    file = path / SCORES if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            path,
            expected=SCORES,
            found="none",
            do="Name a finished run or what evaluate wrote with --out, or name images by --data.",
        )
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        problem = " ".join(str(error).split())
        raise DataError(file, expected="a readable scores.json", found=problem, do="Evaluate it again.") from error
    found = counted_of_scores(plain, file, name)
    validated, scored = plain.get("split") == "val", plain.get("model")
    if scored is None:
        return described(replace(found, selected=validated), file.parent)
    facts = plain.get("recipe")
    if isinstance(facts, Mapping) and facts.get("hash") is not None:
        found = replace(found, recipe=str(facts["hash"]), seed=facts.get("seed"))
    elif Path(str(scored)).is_absolute():
        found = described(found, Path(str(scored)))
    # A relative path is one from the folder in which it was evaluated, which nobody knows any more.
    return replace(found, selected=validated and found.recipe is not None)


def counted_of_scores(plain: Any, where: object, name: str) -> Counted:
    """Take the counts per image out of the content of a `scores.json`.

    Raises:
        DataError: there are none, or they are not what `evaluate` writes.
    """
    again = "Evaluate it again with --out, and compare what that writes; or compare with --data."
    images = plain.get("per_image") if isinstance(plain, Mapping) else None
    if not images or not all(isinstance(i, Mapping) and i.get("truth") and "counts" in i for i in images):
        raise DataError(where, expected="counts per image", found="none: an older or another file", do=again)
    try:
        classes = tuple(str(row["name"]) for row in plain["classes"])
        counts = np.zeros((len(images), 3, len(classes)), np.int64)
        for place, image in enumerate(images):
            for k, found, true, predicted, _ in image["counts"]:
                if not 0 <= k < len(classes):
                    raise ValueError(f"class {k} of {len(classes)}")
                counts[place, :, k] = found, true, predicted
        ids = tuple(str(image["id"]) for image in images)
        groups = tuple(None if image.get("group") is None else str(image["group"]) for image in images)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise DataError(where, expected="counts per image and class", found=repr(error), do=again) from error
    if twice := [key for key, n in Counter(ids).items() if n > 1]:
        raise DataError(where, expected="every image once", found=f"{listed(twice, 3)} more often", do=again)
    return Counted(name, classes, ids, groups, tuple(str(image["truth"]) for image in images), counts)


def described(found: Counted, folder: Path) -> Counted:
    """Add the recipe and seed of the run in `folder`, where there is one: see `recipe_facts`."""
    facts = recipe_facts(folder)
    return found if facts is None else replace(found, recipe=facts["hash"], seed=facts["seed"])


def recipe_facts(run_folder: str | Path) -> dict[str, Any] | None:
    """Tell by which recipe a run was made: "hash", of its configuration but for the seed, and "seed".

    Under a time limit the number of steps, and all that follows from it, is measured anew in each run: there the recipe is
    what was asked for.

    Args:
        run_folder: the run's, or the folder `model` in it.

    Returns:
        None where that is no run, and nothing says how the model was made.
    """
    folder = Path(run_folder).resolve()
    run = next((place for place in (folder, folder.parent) if (place / CONFIG).is_file()), None)
    if run is None or (run != folder and folder.name != "model"):
        return None
    config, _ = read_yaml(run / CONFIG)
    train = config.get("train")
    if not isinstance(train, dict):
        return None
    seed, asked = train.get("seed"), _request(run / REQUEST)
    if asked.get("time_limit") is not None and isinstance(asked.get("config"), dict):
        made = {"time_limit": asked["time_limit"], **asked["config"]}
    else:
        made = config
    learned = {key: value for key, value in dict(made.get("train") or {}).items() if key not in _NO_RECIPE}
    # How a run is scored afterwards makes it no other run.
    recipe = {key: value for key, value in made.items() if key != "evaluate"} | {"train": learned}
    text = json.dumps(recipe, sort_keys=True, default=str)
    return {"hash": hashlib.sha256(text.encode()).hexdigest(), "seed": seed}


def _request(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def names_of(paths: Sequence[str | Path]) -> list[str]:
    """Name models by their folder, or where two have the same by the path; each once."""
    texts = [str(Path(p).parent if Path(p).name == SCORES else p) for p in paths]
    short = [Path(text).resolve().name or text for text in texts]
    alike = [{t for s, t in zip(short, texts, strict=True) if s == own} for own in short]
    chosen = [s if len(a) == 1 else t for s, t, a in zip(short, texts, alike, strict=True)]
    return [name if (n := chosen[:i].count(name)) == 0 else f"{name} ({n + 1})" for i, name in enumerate(chosen)]


def aligned(runs: Sequence[Counted]) -> tuple[tuple[Counted, ...], list[str]]:
    """Bring the images of all runs into one order, that of their names, and into the same groups; say whose, if they differ.

    Raises:
        DataError: they were not scored on the same images, masks and classes, or have groups that cut through each other.
    """
    for other in runs[1:]:
        _require_same(runs[0], other)
    coarsest, notices = _coarsest(runs)
    groups = dict(zip(coarsest.ids, coarsest.groups, strict=True))
    done = []
    for run in runs:
        order = sorted(range(len(run.ids)), key=run.ids.__getitem__)
        ids, truths = (tuple(values[i] for i in order) for values in (run.ids, run.truths))
        done.append(
            replace(run, ids=ids, truths=truths, groups=tuple(groups[i] for i in ids), counts=run.counts[order])
        )
    return tuple(done), notices


def _coarsest(runs: Sequence[Counted]) -> tuple[Counted, list[str]]:
    """Find the run whose groups hold the groups of all others whole; what they are called does not matter."""
    blocks = [_blocks(run) for run in runs]
    sizes = [len(set(of.values())) for of in blocks]
    place = sizes.index(min(sizes))
    coarse, notices = runs[place], []
    for run, of, size in zip(runs, blocks, sizes, strict=True):
        if len({(block, blocks[place][i]) for i, block in of.items()}) > size:
            _refuse_groups(run, of, coarse, blocks[place])
        if size > sizes[place]:
            has = "finer groups" if any(group is not None for group in run.groups) else "no groups"
            notices.append(
                f"{run.name} has {has}, {coarse.name} coarser ones: images are drawn by those of {coarse.name}"
            )
    return coarse, notices


def _blocks(run: Counted) -> dict[str, tuple[str, str]]:
    """Give what each image belongs to; one without a group is a block of its own."""
    entries = zip(run.ids, run.groups, strict=True)
    return {i: ("alone", i) if group is None else ("group", group) for i, group in entries}


def _refuse_groups(
    run: Counted, of: Mapping[str, tuple[str, str]], coarse: Counted, held: Mapping[str, tuple[str, str]]
) -> None:
    first: dict[tuple[str, str], str] = {}
    # The first of each block in `run`, until one of the same block is held elsewhere.
    pair = next((first[block], i) for i, block in sorted(of.items()) if held[first.setdefault(block, i)] != held[i])
    raise DataError(
        f"{run.name} against {coarse.name}",
        expected="the same groups of images, or those of one within those of the other",
        found=f"{pair[0]} and {pair[1]} of one group in {run.name}, but not in {coarse.name}",
        do="Evaluate both with the same groups: name the images by --data.",
    )


def _require_same(a: Counted, b: Counted) -> None:
    where = f"{b.name} against {a.name}"
    if a.classes != b.classes:
        raise DataError(
            where,
            expected=f"the classes {listed(a.classes, 8)}",
            found=f"other classes: {listed(b.classes, 8)}",
            do="Compare models of the same classes in the same order.",
        )
    lacking, more = sorted(set(a.ids) - set(b.ids)), sorted(set(b.ids) - set(a.ids))
    if lacking or more:
        sides = [(a.name, lacking), (b.name, more)]
        told = [f"{len(ids)} only in {name} ({listed(ids, 3)})" for name, ids in sides if ids]
        raise DataError(
            where,
            expected="the same images",
            found=" and ".join(told),
            do="Evaluate both on the same images: name them by --data.",
        )
    truths, true_pixels = dict(zip(a.ids, a.truths, strict=True)), dict(zip(a.ids, a.counts[:, 1], strict=True))
    mine = zip(b.ids, b.truths, b.counts[:, 1], strict=True)
    other = sorted(i for i, t, true in mine if t != truths[i] or (true != true_pixels[i]).any())
    if other:
        raise DataError(
            where,
            expected="the same masks",
            found=f"other masks for the same names: {listed(other, 3)}",
            do="Evaluate both on the same masks: name them by --data.",
        )


def recipes_of(runs: Sequence[Counted]) -> tuple[tuple[Recipe, ...], list[str]]:
    """Take runs of one recipe with different seeds together; say what was taken together.

    The same run named twice is no second seed. Where all are of one recipe its runs are compared, for that is all there is
    to compare.
    """
    members: dict[str | int, list[int]] = {}
    for i, run in enumerate(runs):
        members.setdefault(i if run.recipe is None else run.recipe, []).append(i)
    parts: list[list[int]] = []
    for places in members.values():
        seeds = {runs[i].seed for i in places}
        parts += [places] if len(seeds) == len(places) else [[i] for i in places]
    notices = []
    if len(parts) == 1:
        parts = [[i] for i in range(len(runs))]
        notices = ["these are seeds of one recipe: a difference between them is none of the recipe"]
    parts.sort(key=lambda places: places[0])
    names = [_common([runs[i].name for i in places]) for places in parts]
    names = [
        name if names.count(name) == 1 else "+".join(runs[i].name for i in places)
        for name, places in zip(names, parts, strict=True)
    ]
    for name, places in zip(names, parts, strict=True):
        if len(places) > 1:
            who = ", ".join(f"{runs[i].name} (seed {runs[i].seed})" for i in places)
            notices.append(f"{name} is the mean over {len(places)} runs of one recipe: {who}")
    return tuple(Recipe(name, tuple(places)) for name, places in zip(names, parts, strict=True)), notices


def cautions(runs: Sequence[Counted], recipes: Sequence[Recipe]) -> list[str]:
    """Tell what flatters, and where there are few runs: each recipe is compared with the first."""
    told = []
    if any(run.selected for run in runs):
        told.append(
            "these are scores on val, by which each run chose its best weights: they flatter, and not all alike. "
            "Name test images by --data."
        )
    first = len(recipes[0].members)
    for other in recipes[1:]:
        count = len(other.members)
        if max(first, count) > 1 and min(first, count) < _FEW_RUNS:
            told.append(f"{first} and {count} runs tell little of the spread between seeds: intervals are too narrow")
    return list(dict.fromkeys(told))


def _common(names: Sequence[str]) -> str:
    """Name runs by what their names have in common: unet-s* for unet-s0 and unet-s1."""
    if len(names) == 1:
        return names[0]
    # Letter by letter is what is wanted here; a number is not cut in two.
    start = os.path.commonprefix(list(names)).rstrip("0123456789")  # noqa: RUF071
    end = os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1].lstrip("0123456789")  # noqa: RUF071
    return f"{start}*{end}" if start or end else "+".join(names)
