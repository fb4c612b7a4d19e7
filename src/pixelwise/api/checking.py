"""`check`: find problems in a data set, and with a model also labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.api.loading import Model, load
from pixelwise.api.scoring import require_classes, require_sections
from pixelwise.errors import UsageError, renamed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelwise.checking import Finding, Survey
    from pixelwise.config import DataConfig
    from pixelwise.datasets.dataset import DataSplits

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Checkup:
    """Result of a check.

    Args:
        data: what was checked.
        splits: images per split, including those that cannot be used.
        findings: errors, then warnings, then notices.
        classes: name, and per split the pixels and the images that show it; one entry per class.
        ignored_share: share of ignored pixels, 0…1.
        suspects: regions in which a confident model predicts another class than the label, the most likely errors first;
            `id` is split/image.
        model: the model used for suspects, if any.
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
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as printed by `--json`."""
        plain: dict[str, Any] = {
            "data": self.data,
            "parts": self.splits,
            "findings": [finding.to_dict() for finding in self.findings],
            "classes": list(self.classes),
            "ignored_share": self.ignored_share,
        }
        return plain if self.model is None else plain | {"model": self.model, "suspects": list(self.suspects)}


def check(
    data: str | Path,
    *,
    model: str | Path | Model | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Checkup:
    """Find problems in a data set that would affect training.

    Args:
        data: a folder, a `data.yaml`, a recipe, or an annotation file.
        model: a run or model folder, or a loaded model, with the same classes: its confident
            predictions that contradict the labels are reported as suspects.
        out: an HTML file for the findings with example images; replaced if it exists.
        overrides: configuration overrides such as "data.skip_bad=true".
        progress: called with (done, total), first for inspecting files, then for predicting if a model is given.

    Raises:
        DataError: the data set cannot be opened, or the model has other classes.
        UsageError: a model with three dimensions.
    """
    from pixelwise.checking import by_severity, run_checks, take_survey
    from pixelwise.config import read_request

    config, base = read_request(Path(data), overrides)
    require_sections(overrides, "data")
    splits = _open(config.data, base)
    loaded = load(model) if isinstance(model, str | Path) else model
    if loaded is not None:
        if loaded.spec.dimensions != 2:
            raise UsageError(
                "--model",
                expected="a model with two dimensions, since volumes are checked slice by slice",
                found="one with three",
                do="Leave it out, or evaluate the model: its report shows the worst volumes.",
            )
        require_classes(next(iter(splits)), loaded, data)
    survey = take_survey(splits, progress, skip_bad=config.data.skip_bad)
    findings = run_checks(survey)
    suspects: list[dict[str, Any]] = []
    if loaded is not None:
        suspects, doubts = _label_doubts(survey, loaded, progress)
        findings = by_severity([*findings, *doubts])
    result = _checkup(data, survey, findings, suspects, loaded)
    if out is not None:
        _write_page(Path(out), result, survey, loaded)
    return result


def _open(config: DataConfig, base: Path) -> DataSplits:
    """Open a data set without the files that cannot be used, which are reported as findings.

    Raises:
        DataError: no file can be used.
    """
    from pixelwise.datasets.dataset import open_data
    from pixelwise.errors import DataError

    config = config.model_copy(update={"volumes": "slices", "neighbours": 0})
    try:
        return open_data(config.model_copy(update={"skip_bad": True}), base)
    except DataError:
        # The first error of training is more helpful than the message that nothing is left.
        open_data(config.model_copy(update={"skip_bad": False}), base)
        raise


def _label_doubts(
    survey: Survey, model: Model, progress: Progress | None
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Evaluate the model on every usable image: return the suspect regions of all splits, and findings about them."""
    from pixelwise.checking.label_doubts import doubt, labels_in_doubt
    from pixelwise.evaluation import evaluate
    from pixelwise.evaluation.diagnosis import MIN_CONFIDENCE, MOST_SUSPECTS

    done = 0
    suspects: list[dict[str, Any]] = []
    notices: dict[str, None] = {}
    for name, split in survey.datasets.items():
        usable = split.subset(image.index for image in survey.in_split(name))
        if not len(usable):
            continue

        def advance(now: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + now, len(survey.usable))

        result = evaluate(usable, model.predictor, metrics=("diagnosis",), intervals=False, progress=advance)
        for suspect in map(asdict, result.tables.suspects or ()):
            suspects.append(suspect | {"part": name, "id": f"{name}/{suspect['id']}"})
        notices |= dict.fromkeys(f"{name}: {notice}" for notice in result.notices)
        done += len(usable)
    suspects.sort(key=lambda suspect: (-doubt(suspect), suspect["id"]))
    return suspects, labels_in_doubt(survey, suspects, notices, confidence=MIN_CONFIDENCE, most_per_split=MOST_SUSPECTS)


def _checkup(
    data: str | Path,
    survey: Survey,
    findings: Sequence[Finding],
    suspects: Sequence[dict[str, Any]],
    model: Model | None,
) -> Checkup:
    splits = {name: len(split) for name, split in survey.datasets.items()}
    pixels = {name: survey.pixel_counts(name) for name in splits}
    images = {name: survey.image_counts(name) for name in splits}
    classes = tuple(
        {
            "name": label,
            "pixels": {name: int(pixels[name][k]) for name in splits},
            "pictures": {name: int(images[name][k]) for name in splits},
        }
        for k, label in enumerate(survey.labels.names)
    )
    counts = survey.pixel_counts()
    ignored = float(counts[-1] / max(1, counts.sum()))
    folder = None if model is None else str(model.folder)
    return Checkup(str(data), splits, tuple(findings), classes, ignored, tuple(suspects), folder)


def _write_page(path: Path, result: Checkup, survey: Survey, model: Model | None) -> None:
    from pixelwise.imageio.images import fill_invalid
    from pixelwise.reporting import write_checkup

    def read(split: str, index: int) -> tuple[str, NDArray[np.generic], NDArray[np.generic] | None]:
        sample = survey.datasets[split].read(index)
        return sample.id, fill_invalid(sample.image, sample.valid), sample.truth(survey.labels.ignore_index)

    def predict(id_: str) -> tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]:
        name, _, image = id_.partition("/")
        split = survey.datasets[name]
        sample = split.read(next(k for k, record in enumerate(split.records) if record.id == image))
        truth = sample.truth(survey.labels.ignore_index)
        assert model is not None
        assert truth is not None
        prediction = model.predictor(sample.image, sample.grid, sample.valid, id=image)
        return fill_invalid(sample.image, sample.valid), truth, prediction.mask

    fetch = None if model is None else predict
    write_checkup(path, result.to_dict(), labels=survey.labels, read_example=read, fetch=fetch)
