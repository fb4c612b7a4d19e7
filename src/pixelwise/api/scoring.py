"""The verbs that judge: evaluate, compare.

Comes in: models or folders of masks, data sets, options. Goes out: an `Evaluation`, and where asked its files; or a
`Comparison`. Knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pixelwise.api import reporting
from pixelwise.api.loading import Model, holds_masks, load, load_card
from pixelwise.api.reporting import SCORES
from pixelwise.errors import DataError, UsageError

if TYPE_CHECKING:
    from pixelwise.config import Config
    from pixelwise.datasets.dataset import Dataset, DataSplits
    from pixelwise.evaluation import Evaluation, ImagePredictor
    from pixelwise.evaluation.comparison import Comparison
    from pixelwise.models.card import ModelCard


def evaluate(
    model: str | Path | Model,
    data: str | Path,
    *,
    split: str = "test",
    metrics: Sequence[str] | None = None,
    convention: str | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a model, or masks that any tool wrote, on one part of a data set: at native size, with intervals over images.

    Args:
        model: a folder, or a loaded model, which predicts as it does anywhere else; or a folder of mask files, which are
            named as the images are.
        data: a folder, a `data.yaml`, a recipe, or the `config.yaml` of a run.
        split: train, val or test.
        metrics: families beside the overlap of areas: boundary, surface, calibration, and diagnosis (where the errors
            lie); as the configuration's `evaluate.metrics` where not given. Masks have no probabilities, and so no calibration.
        convention: also give the number by another library's rule: smp, torchmetrics, mmseg, ultralytics, monai,
            sceneparsing or void-as-error.
        out: a new folder for `scores.json` and `report.html`.
        overrides: "data.b=c" and "evaluate.b=c" texts for the configuration.
        overwrite: replace an earlier result in `out`.
        progress: called with (images done, images in all).

    Raises:
        DataError: the data set has no such part, or other classes than the model.
        OutputExistsError: `out` holds files.
    """
    from pixelwise.config import read_request
    from pixelwise.evaluation import evaluate as score
    from pixelwise.storage import claim_folder, require_claimable

    config, base = read_request(Path(data), overrides)
    require_sections(overrides, "data", "evaluate")
    subset, predictor, notices = _opened(model, data, split, config, base, metrics or ())
    settings = config.evaluate
    ours = (SCORES, reporting.REPORT)
    if out is not None:
        require_claimable(Path(out), overwrite, ours, SCORES)
    result = score(
        subset,
        predictor,
        metrics=settings.metrics if metrics is None else metrics,
        convention=convention,
        surface_tolerance=settings.surface_tolerance,
        resamples=settings.resamples,
        progress=progress,
    )
    result = replace(result, notices=(*notices, *result.notices))
    if out is not None:
        # Only now: what stands there is not given up for a command that fails.
        claim_folder(Path(out), overwrite, ours, SCORES)
        options = {"split": split, "metrics": ",".join(metrics) or "none" if metrics is not None else None}
        again = _spelled(model, data, options | {"convention": convention}, overrides)
        _write(Path(out), model, data, split, result, subset, predictor, again)
    return result


def _opened(
    model: str | Path | Model, data: str | Path, split: str, config: Config, base: Path, asked: Sequence[str]
) -> tuple[Dataset, ImagePredictor, tuple[str, ...]]:
    """Open what is to be scored and the images it is scored on; with what there is to be told."""
    from pixelwise.datasets.dataset import open_data, without_unreadable
    from pixelwise.evaluation.mask_folder import open_masks

    loaded = _loaded(model)
    splits = open_data(config.data, base)
    splits = without_unreadable(splits) if config.data.skip_bad else splits
    subset = split_of(splits, split, data)
    notices = (*splits.notices, *splits.skipped)
    if loaded is None:
        masks = open_masks(Path(str(model)), subset, config.evaluate.masks)
        none = ("masks have no probabilities: there is no calibration to score",) if "calibration" in asked else ()
        return subset, masks, (*notices, *masks.notices, *none)
    require_classes(subset, loaded, data)
    return subset, loaded.predictor, (*notices, *_divided_otherwise(splits, split, loaded.card))


def _spelled(
    model: str | Path | Model, data: str | Path, options: dict[str, str | None], overrides: Sequence[str]
) -> str:
    """Spell the command that gives the same again."""
    words = ["pixelwise", "evaluate", str(_folder(model)), str(data)]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", value]
    for text in overrides:
        words += ["--set", text]
    return " ".join(map(quote, [*words, "--out", "again"]))


def _folder(model: str | Path | Model) -> Path:
    return model.folder if isinstance(model, Model) else Path(model)


def _write(
    out: Path,
    model: str | Path | Model,
    data: str | Path,
    split: str,
    result: Evaluation,
    subset: Dataset,
    predictor: ImagePredictor,
    again: str,
) -> None:
    """Write scores and report; the model by its whole path, so that it is known from any folder."""
    from pixelwise.evaluation.score_counts import recipe_facts
    from pixelwise.storage import RUN_MARKER, write_json

    folder = _folder(model)
    known = folder.resolve() if folder.exists() else folder
    facts = recipe_facts(folder)
    recipe = {} if facts is None else {"recipe": facts}
    plain = {"model": str(known), "data": str(data), "split": split, **recipe, **result.to_dict()}
    write_json(out / SCORES, plain)
    card = load_card(folder)
    run = None if card is None else next((p for p in (folder, folder.parent) if (p / RUN_MARKER).is_file()), None)
    shown = plain if card is None else plain | {"calibration": card.get("calibration")}
    reporting.write(out / reporting.REPORT, shown, subset, predictor, run, [again])


def _loaded(model: str | Path | Model) -> Model | None:
    """Load a model; None where it is a folder of masks."""
    if isinstance(model, Model):
        return model
    return None if holds_masks(Path(model)) else load(model)


def require_sections(overrides: Sequence[str], *sections: str) -> None:
    """Refuse overrides that a verb would not look at.

    Raises:
        UsageError: there is one.
    """
    for text in overrides:
        if text.strip().partition(".")[0] not in sections:
            raise UsageError(
                f"--set {text}",
                expected=f"a key of {' or '.join(sections)}",
                found="one that this verb does not use",
                do="Leave it out: a model predicts as its model.json says.",
            )


def split_of(splits: DataSplits, name: str, where: object) -> Dataset:
    """Give one part of a data set, or say which there are.

    Raises:
        DataError: no such part.
    """
    subsets = {split.name: split for split in splits}
    if name not in subsets:
        there = list(subsets)
        raise DataError(where, expected=f"a part {name!r}", found=", ".join(there), do=f"Choose --split {there[-1]}.")
    return subsets[name]


def require_classes(split: Dataset, loaded: Model, data: object) -> None:
    """Raise where data and model have other classes.

    Raises:
        DataError: they do.
    """
    if split.labels.names != loaded.labels.names:
        raise DataError(
            data,
            expected=f"the model's classes {', '.join(loaded.labels.names)}",
            found=", ".join(split.labels.names),
            do="Name the same classes in the same order in labels.yaml.",
        )


def _divided_otherwise(splits: DataSplits, split: str, card: ModelCard) -> tuple[str, ...]:
    """Warn where a part was drawn from train, and the model learned from another train."""
    drawn = split in splits.description["split"].get("achieved", {}) and splits.train is not None
    if not drawn or card.names_hash is None or splits.train is None or splits.train.names_hash() == card.names_hash:
        return ()
    return (
        f"{split} was drawn from the images, and not as when the model was trained: it may have learned from some of these. "
        "Name the run's config.yaml as DATA to score the same part.",
    )


def compare(
    runs: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    split: str | None = None,
    resamples: int | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Tell whether the difference between models is real: each against the first, on the same images.

    Args:
        runs: two or more: run folders, what `evaluate` wrote to `out`, or a `scores.json` itself. With `data` also model
            folders and folders of masks. Runs that differ in their seed alone are compared as one recipe.
        data: evaluate all on one part of this data set first.
        split: that part; test where not given.
        resamples: draws of the bootstrap (see `evaluation.comparison.compare`).
        overrides: "data.b=c" and "evaluate.b=c" texts for the configuration of `data`.
        progress: called with (name, images done, images in all) after each image that is evaluated.

    Raises:
        UsageError: fewer than two runs, or a part of no data.
        DataError: no counts per image there, or other images, masks or classes.
    """
    from pixelwise.evaluation.comparison import compare as compare_counted
    from pixelwise.evaluation.score_counts import counted_of_scores, described, names_of, read_counted

    if len(runs) < 2:
        raise UsageError("compare", expected="two runs or more", found=str(len(runs)), do="Name what to compare.")
    if data is None and (split is not None or overrides):
        raise UsageError(
            f"--split {split}" if split is not None else f"--set {overrides[0]}",
            expected="--data, which it is about",
            found="none",
            do="Name the images by --data, or leave this out: what was scored is compared as it is.",
        )
    subset = split or "test"
    counted, notices = [], []
    for path, name in zip(map(Path, runs), names_of(runs), strict=True):
        if data is None or path.is_file():
            counted.append(read_counted(path, name))
            continue
        tell = partial(progress, name) if progress is not None else None
        # Neither intervals nor other metrics of each alone are asked for.
        alone = (*overrides, "evaluate.resamples=0")
        result = evaluate(path, data, split=subset, metrics=(), overrides=alone, progress=tell)
        notices += [f"{name}: {notice}" for notice in result.notices]
        found = described(counted_of_scores(result.to_dict(), path, name), path)
        counted.append(replace(found, selected=subset == "val" and found.recipe is not None))
    return compare_counted(counted, resamples=resamples, notices=notices)
