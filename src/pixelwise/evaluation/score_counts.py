"""Pixel counts per image of several runs, read from `scores.json` and aligned for comparison."""

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
from pixelwise.evaluation.results import EVALUATE_AGAIN, Evaluation, TrainingRecipe, read_scores
from pixelwise.metrics.confusion import Counts

SCORES, CONFIG, REQUEST = "scores.json", "config.yaml", "request.json"
# Training keys that depend on the machine, do not affect the weights, or are what runs of a recipe differ in.
_NOT_IN_RECIPE = ("seed", "recounts", "workers", "cache", "device", "channels_last")
_FEW_RUNS = 5


@dataclass(frozen=True, eq=False)  # arrays have no boolean equality
class RunCounts:
    """The counts of one evaluated model.

    Args:
        name: display name.
        classes: class names.
        ids: one per image.
        groups: the group of each image, or None.
        truths: digest of each image's annotated mask.
        counts: int64 (N, 3, K), per image and class the true positives, true pixels and predicted pixels.
        recipe: hash of the training configuration without the seed; None if unknown.
        seed: random seed of the training.
        selected: whether the best weights of the run were chosen by these same scores.
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
    """Runs that are compared as one, by their positions."""

    name: str
    members: tuple[int, ...]


def read_run_counts(path: Path, name: str) -> RunCounts:
    """Read the counts from a `scores.json`; `path` is the file or its folder.

    Raises:
        DataError: no such file, an unreadable file, or a file without counts per image.
    """
    if not path.exists():
        raise DataError(path, expected="a folder with scores.json, or the file", found="nothing", do="Check the path.")
    file = path / SCORES if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            path,
            expected=SCORES,
            found="none",
            do="Use a finished run or the folder of evaluate --out, or name images with --data.",
        )
    scores = read_scores(file)
    run = run_counts(scores.evaluation, file, name)
    validated = scores.split == "val"
    if scores.model is None:
        return replace(with_recipe(run, file.parent), selected=validated)
    if scores.recipe is not None:
        run = replace(run, recipe=scores.recipe.hash, seed=scores.recipe.seed)
    elif Path(scores.model).is_absolute():  # a relative path starts from an unknown folder
        run = with_recipe(run, Path(scores.model))
    return replace(run, selected=validated and run.recipe is not None)


def run_counts(evaluation: Evaluation, where: object, name: str) -> RunCounts:
    """Collect the counts per image of an evaluation.

    Raises:
        DataError: there are no counts, they do not match the classes, or an image is listed twice.
    """
    images = evaluation.images
    if not images or not all(image.truth for image in images):
        found = "none: an older or another file"
        raise DataError(where, expected="counts per image", found=found, do=EVALUATE_AGAIN)
    classes = tuple(row.name for row in evaluation.scores.classes)
    counts = np.zeros((len(images), 3, len(classes)), np.int64)
    for place, image in enumerate(images):
        for k, hits, truth, predicted, _ in image.counts:
            if not 0 <= k < len(classes):
                expected = f"counts of {len(classes)} classes"
                raise DataError(where, expected=expected, found=f"class {k} in {image.id}", do=EVALUATE_AGAIN)
            counts[place, :, k] = hits, truth, predicted
    ids = tuple(image.id for image in images)
    if repeated := [id for id, n in Counter(ids).items() if n > 1]:
        found = f"{listed(repeated, 3)} more than once"
        raise DataError(where, expected="every image once", found=found, do=EVALUATE_AGAIN)
    groups, truths = tuple(image.group for image in images), tuple(image.truth for image in images)
    return RunCounts(name, classes, ids, groups, truths, counts)


def with_recipe(run: RunCounts, folder: Path) -> RunCounts:
    """Add recipe and seed of the training run in `folder`, if there is one: see `training_recipe`."""
    recipe = training_recipe(folder)
    return run if recipe is None else replace(run, recipe=recipe.hash, seed=recipe.seed)


def training_recipe(run_folder: str | Path) -> TrainingRecipe | None:
    """Identify how a run was trained: the hash of its configuration without the seed, and the seed.

    With a time limit, the number of steps and everything derived from it differ between runs of a recipe, so the hash is that
    of the request.

    Args:
        run_folder: a run folder, or the folder `model` in it.

    Returns:
        None if the folder is not that of a run.
    """
    folder = Path(run_folder).resolve()
    run = next((place for place in (folder, folder.parent) if (place / CONFIG).is_file()), None)
    if run is None or (run != folder and folder.name != "model"):
        return None
    config, _ = read_yaml(run / CONFIG)
    train = config.get("train")
    if not isinstance(train, dict):
        return None
    request = _read_request(run / REQUEST)
    source = config
    if request.get("time_limit") is not None and isinstance(request.get("config"), dict):
        source = {"time_limit": request["time_limit"], **request["config"]}
    training = {key: value for key, value in dict(source.get("train") or {}).items() if key not in _NOT_IN_RECIPE}
    recipe = {key: value for key, value in source.items() if key not in ("evaluate", "measure")} | {"train": training}
    text = json.dumps(recipe, sort_keys=True, default=str)
    return TrainingRecipe(hashlib.sha256(text.encode()).hexdigest(), train.get("seed"))


def _read_request(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def run_names(paths: Sequence[str | Path]) -> list[str]:
    """Return unique display names: the folder name, or the path if two folders have the same name."""
    texts = [str(Path(p).parent if Path(p).name == SCORES else p) for p in paths]
    short = [Path(text).resolve().name or text for text in texts]
    same_name = [{t for s, t in zip(short, texts, strict=True) if s == name} for name in short]
    names = [s if len(same) == 1 else t for s, t, same in zip(short, texts, same_name, strict=True)]
    return [name if (n := names[:i].count(name)) == 0 else f"{name} ({n + 1})" for i, name in enumerate(names)]


def aligned(runs: Sequence[RunCounts]) -> tuple[tuple[RunCounts, ...], list[str]]:
    """Sort the images of all runs by id and give them the same groups; return notices about groups that differ.

    Raises:
        DataError: the runs have other images, masks or classes, or groups that overlap without one containing the other.
    """
    for other in runs[1:]:
        _require_same(runs[0], other)
    coarsest, notices = _coarsest(runs)
    groups = dict(zip(coarsest.ids, coarsest.groups, strict=True))
    result = []
    for run in runs:
        order = sorted(range(len(run.ids)), key=run.ids.__getitem__)
        ids, truths = (tuple(values[i] for i in order) for values in (run.ids, run.truths))
        run_groups = tuple(groups[i] for i in ids)
        result.append(replace(run, ids=ids, truths=truths, groups=run_groups, counts=run.counts[order]))
    return tuple(result), notices


def _coarsest(runs: Sequence[RunCounts]) -> tuple[RunCounts, list[str]]:
    """Find the run whose groups contain the groups of all others; the names of the groups do not matter."""
    blocks = [_blocks(run) for run in runs]
    sizes = [len(set(block_of.values())) for block_of in blocks]
    place = sizes.index(min(sizes))
    coarse, notices = runs[place], []
    for run, block_of, size in zip(runs, blocks, sizes, strict=True):
        if len({(block, blocks[place][i]) for i, block in block_of.items()}) > size:
            raise _overlapping_groups(run, block_of, coarse, blocks[place])
        if size > sizes[place]:
            has = f"finer groups than {coarse.name}" if any(g is not None for g in run.groups) else "no groups"
            notices.append(f"{run.name} has {has}: images are grouped as in {coarse.name}")
    return coarse, notices


def _blocks(run: RunCounts) -> dict[str, tuple[str, str]]:
    """Return the group of each image; an image without a group is a group of its own."""
    entries = zip(run.ids, run.groups, strict=True)
    return {i: ("alone", i) if group is None else ("group", group) for i, group in entries}


def _overlapping_groups(
    run: RunCounts, fine: Mapping[str, tuple[str, str]], coarse: RunCounts, coarse_blocks: Mapping[str, tuple[str, str]]
) -> DataError:
    first: dict[tuple[str, str], str] = {}
    # The first pair of images that share a group in `run` but not in `coarse`.
    one, other = next(
        (first[block], i)
        for i, block in sorted(fine.items())
        if coarse_blocks[first.setdefault(block, i)] != coarse_blocks[i]
    )
    return DataError(
        f"{run.name} against {coarse.name}",
        expected="the same groups of images, or groups of one run within those of the other",
        found=f"{one} and {other} in one group in {run.name}, but not in {coarse.name}",
        do="Evaluate both with the same groups: name the images with --data.",
    )


def _require_same(a: RunCounts, b: RunCounts) -> None:
    where = f"{b.name} against {a.name}"
    if a.classes != b.classes:
        raise DataError(
            where,
            expected=f"the classes {listed(a.classes, 8)}",
            found=f"other classes: {listed(b.classes, 8)}",
            do="Compare models of the same classes in the same order.",
        )
    only_a, only_b = sorted(set(a.ids) - set(b.ids)), sorted(set(b.ids) - set(a.ids))
    if only_a or only_b:
        sides = [(a.name, only_a), (b.name, only_b)]
        differences = [f"{len(ids)} only in {name} ({listed(ids, 3)})" for name, ids in sides if ids]
        raise DataError(
            where,
            expected="the same images",
            found=" and ".join(differences),
            do="Evaluate both on the same images: name them with --data.",
        )
    expected = {i: (truth, *pixels) for i, truth, pixels in zip(a.ids, a.truths, a.counts[:, 1].tolist(), strict=True)}
    found = zip(b.ids, b.truths, b.counts[:, 1].tolist(), strict=True)
    if changed := sorted(i for i, truth, pixels in found if expected[i] != (truth, *pixels)):
        raise DataError(
            where,
            expected="the same masks",
            found=f"other masks for the same names: {listed(changed, 3)}",
            do="Evaluate both on the same masks: name them with --data.",
        )


def group_by_recipe(runs: Sequence[RunCounts]) -> tuple[tuple[Recipe, ...], list[str]]:
    """Group runs of one recipe with different seeds, and return notices about the groups.

    A run listed twice does not count as a second seed. If all runs have the same recipe, the runs themselves are compared.
    """
    members: dict[str | int, list[int]] = {}
    for i, run in enumerate(runs):
        members.setdefault(i if run.recipe is None else run.recipe, []).append(i)
    groups: list[list[int]] = []
    for places in members.values():
        seeds = {runs[i].seed for i in places}
        groups += [places] if len(seeds) == len(places) else [[i] for i in places]
    notices = []
    if len(groups) == 1:
        groups = [[i] for i in range(len(runs))]
        notices = ["these runs differ in their seed only: differences between them are due to the seed"]
    groups.sort(key=lambda places: places[0])
    names = [_common_name([runs[i].name for i in places]) for places in groups]
    names = [
        name if names.count(name) == 1 else "+".join(runs[i].name for i in places)
        for name, places in zip(names, groups, strict=True)
    ]
    for name, places in zip(names, groups, strict=True):
        if len(places) > 1:
            seeds_text = ", ".join(f"{runs[i].name} (seed {runs[i].seed})" for i in places)
            notices.append(f"{name} is the mean over {len(places)} runs of one recipe: {seeds_text}")
    return tuple(Recipe(name, tuple(places)) for name, places in zip(names, groups, strict=True)), notices


def cautions(runs: Sequence[RunCounts], recipes: Sequence[Recipe]) -> list[str]:
    """Return warnings about scores that are too optimistic, and about few runs; each recipe is compared with the first."""
    notices = []
    if any(run.selected for run in runs):
        notices.append(
            "these are scores on val, which each run used to select its best weights: they are optimistic, and not equally "
            "so. Name test images with --data."
        )
    first = len(recipes[0].members)
    for other in recipes[1:]:
        count = len(other.members)
        if max(first, count) > 1 and min(first, count) < _FEW_RUNS:
            notices.append(
                f"{first} and {count} runs give little information on the spread between seeds: intervals are wide"
            )
    return list(dict.fromkeys(notices))


def _common_name(names: Sequence[str]) -> str:
    """Abbreviate the names of runs by what they have in common: unet-s* for unet-s0 and unet-s1."""
    if len(names) == 1:
        return names[0]
    # commonprefix works on characters, as intended; trailing digits are removed so that numbers are not split.
    start = os.path.commonprefix(list(names)).rstrip("0123456789")  # noqa: RUF071
    end = os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1].lstrip("0123456789")  # noqa: RUF071
    return f"{start}*{end}" if start or end else "+".join(names)


def listed(names: Sequence[str], most: int) -> str:
    """Join names with commas: x, y, z and 4 more."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
