"""`check`: what is wrong with a data set, for Python.

Comes in: a data set, and a model where labels are to be doubted. Goes out: a `Checkup`, and a page where one is asked for.
Knows nothing of terminals or of how anything is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.api.loading import Model, load
from pixelwise.api.scoring import require_classes, require_sections
from pixelwise.errors import renamed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelwise.checking import Finding, Survey
    from pixelwise.config import DataConfig
    from pixelwise.datasets.dataset import Dataset, DataSplits

Progress = Callable[[int, int], None]
_SURE = 0.9
_MOST_EXAMPLES = 12


@dataclass(frozen=True)
class Checkup:
    """Hold what a check found.

    Args:
        data: what was checked.
        parts: images per part, those that cannot be used among them.
        findings: errors, then warnings, then notices.
        classes: name, and per part the pixels and the images that show it; one entry per class.
        ignored_share: share of the pixels that do not count, 0…1.
        suspects: regions where a sure model sees another class than the label, the most likely first; `id` is part/image.
        model: the model that was asked; None where none was.
    """

    data: str
    splits: dict[str, int]
    findings: tuple[Finding, ...]
    classes: tuple[dict[str, Any], ...]
    ignored_share: float
    suspects: tuple[dict[str, Any], ...] = ()
    model: str | None = None

    parts = renamed("parts", "splits")

    @property
    def blocks(self) -> bool:
        """Tell whether something would block training."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form that `--json` prints."""
        plain: dict[str, Any] = {"data": self.data, "parts": self.splits}
        plain |= {"findings": [finding.to_dict() for finding in self.findings], "classes": list(self.classes)}
        plain |= {"ignored_share": self.ignored_share}
        return plain if self.model is None else plain | {"model": self.model, "suspects": list(self.suspects)}


def check(
    data: str | Path,
    *,
    model: str | Path | Model | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Checkup:
    """Find what is wrong with a data set: everything that training would stumble over.

    Args:
        data: a folder, a `data.yaml`, a recipe, or an annotation file.
        model: a run or model folder, or a loaded model, of the same classes: images are ranked by how strongly it, where
            it is sure, disagrees with the label.
        out: an HTML file that shows all of it, with the offenders; replaced where it is there already.
        overrides: "data.b=c" texts for the configuration.
        progress: called with (done, total): looking at files first, then predicting where a model is given.

    Raises:
        DataError: it cannot even be opened as a data set, or the model has other classes.
    """
    from pixelwise.checking import judge, take_survey
    from pixelwise.config import read_request

    config, base = read_request(Path(data), overrides)
    require_sections(overrides, "data")
    splits = _open(config.data, base)
    loaded = None if model is None else model if isinstance(model, Model) else load(model)
    if loaded is not None:
        require_classes(next(iter(splits)), loaded, data)
    survey = take_survey(splits, progress, skip_bad=config.data.skip_bad)
    findings = judge(survey)
    suspects: list[dict[str, Any]] = []
    if loaded is not None:
        suspects, told = _suspects(survey, loaded, progress)
        findings = _with_doubts(findings, suspects, survey, told)
    result = _checkup(data, survey, findings, suspects, None if loaded is None else loaded.folder)
    if out is not None:
        _write(Path(out), result, survey, loaded)
    return result


def _open(config: DataConfig, base: Path) -> DataSplits:
    """Open a data set; a broken file must not hide the others: it is left out and reported.

    Raises:
        DataError: nothing in it can be used.
    """
    from pixelwise.datasets.dataset import open_data
    from pixelwise.errors import DataError

    try:
        return open_data(config.model_copy(update={"skip_bad": True}), base)
    except DataError:
        # What training would say of the first trouble tells more than that nothing is left.
        open_data(config.model_copy(update={"skip_bad": False}), base)
        raise


def _checkup(
    data: str | Path, survey: Survey, findings: Sequence[Finding], suspects: list[dict[str, Any]], model: Path | None
) -> Checkup:
    splits = {name: len(split) for name, split in survey.datasets.items()}
    pixels, images = ({name: of(name) for name in splits} for of in (survey.counts, survey.images))
    classes = tuple(
        {
            "name": label,
            "pixels": {name: int(pixels[name][k]) for name in splits},
            "pictures": {name: int(images[name][k]) for name in splits},
        }
        for k, label in enumerate(survey.labels.names)
    )
    counts = survey.counts()
    ignored = float(counts[-1] / max(1, counts.sum()))
    named = None if model is None else str(model)
    return Checkup(str(data), splits, tuple(findings), classes, ignored, tuple(suspects), named)


def _suspects(survey: Survey, model: Model, progress: Progress | None) -> tuple[list[dict[str, Any]], dict[str, None]]:
    """Predict every image that can be read; list the regions in doubt, over all parts, and what was told on the way."""
    from pixelwise.evaluation import evaluate

    total, done, found = len(survey.good), 0, []
    notices: dict[str, None] = {}
    for name, split in survey.datasets.items():
        good = split.subset(one.index for one in survey.of(name))
        if not len(good):
            continue

        def told(now: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + now, total)

        result = evaluate(good, model.predictor, metrics=("diagnosis",), resamples=0, progress=told)
        found += [one | {"part": name, "id": f"{name}/{one['id']}"} for one in result.tables["suspects"]]
        notices |= dict.fromkeys(f"{name}: {notice}" for notice in result.notices)
        done += len(good)
    return sorted(found, key=lambda one: (-_doubt(one), one["id"])), notices


def _doubt(suspect: dict[str, Any]) -> float:
    """Weigh a region by how many of its pixels are surely wrong, if the model is right."""
    return float(suspect["pixels"] * (2 * suspect["confidence"] - 1))


def _with_doubts(
    findings: list[Finding], suspects: list[dict[str, Any]], survey: Survey, told: Iterable[str]
) -> list[Finding]:
    """Add a warning that names the images whose labels are most in doubt, the strongest first, and what was told."""
    from pixelwise.checking import SEVERITIES, Finding
    from pixelwise.evaluation.diagnosis import MOST_SUSPECTS

    why, fix = "Labels there were not held against the model.", "Cut them into smaller images to have them looked at."
    findings = [
        *findings,
        *(Finding("not-doubted", "notice", one, (one.partition(":")[0],), 1, 0, why, fix) for one in told),
    ]
    ranks: dict[str, float] = {}
    for one in suspects:
        ranks[one["id"]] = ranks.get(one["id"], 0.0) + _doubt(one)
    if not ranks:
        return findings
    order = sorted(ranks, key=lambda id: (-ranks[id], id))
    places = {
        f"{name}/{record.id}": (name, k)
        for name, split in survey.datasets.items()
        for k, record in enumerate(split.records)
    }
    strongest = suspects[0]
    # Of each part the strongest are kept.
    least = "at least " * any(count >= MOST_SUSPECTS for count in Counter(one["part"] for one in suspects).values())
    what = (
        f"{least}{len(order)} image{'s have' if len(order) != 1 else ' has'} labels in doubt: a model that is at least"
        f" {_SURE:.0%} sure sees another class in {least}{len(suspects)} region{'s' * (len(suspects) != 1)}"
    )
    why = (
        f"The strongest: in {strongest['id']} it takes {strongest['pixels']:,} pixels of {strongest['truth']!r} for"
        f" {strongest['prediction']!r}. Either the label is wrong or the model is; wrong labels are learned and scored."
    )
    fix = "Look at these first, in this order; correct the masks where the model is right."
    examples = tuple(places[id] for id in order[:_MOST_EXAMPLES])
    doubts = Finding(
        "labels-in-doubt", "warning", what, tuple(order[:5]), len(order), len(survey.good), why, fix, examples
    )
    return sorted([*findings, doubts], key=lambda finding: SEVERITIES.index(finding.severity))


def _write(path: Path, result: Checkup, survey: Survey, model: Model | None) -> None:
    from pixelwise.imageio.images import fill_invalid
    from pixelwise.reporting import write_checkup

    def look(name: str, index: int) -> tuple[str, NDArray[np.generic], NDArray[np.generic] | None]:
        sample = survey.datasets[name].read(index)
        return sample.id, fill_invalid(sample.image, sample.valid), sample.truth(survey.labels.ignore_index)

    def fetch(id: str) -> tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]:
        name, _, image = id.partition("/")
        split: Dataset = survey.datasets[name]
        sample = split.read(next(k for k, record in enumerate(split.records) if record.id == image))
        assert model is not None
        truth = sample.truth(survey.labels.ignore_index)
        assert truth is not None
        prediction = model.predictor(sample.image, sample.grid, sample.valid, id=image)
        return fill_invalid(sample.image, sample.valid), truth, prediction.mask

    fetched = None if model is None else fetch
    write_checkup(path, result.to_dict(), labels=survey.labels, look=look, fetch=fetched)
