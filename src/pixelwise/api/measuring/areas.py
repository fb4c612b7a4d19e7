"""Areas of classes on a map, and its accuracy, from the answers at a sample of points (see `api.measuring.sampling`)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.measuring.maps import (
    PredictedMap,
    described_windows,
    left_out_notices,
    open_map,
    positions_of,
    training_windows,
)
from pixelwise.api.measuring.sample_files import (
    ANSWERS,
    NO_ANSWER,
    POINTS,
    SAMPLE,
    UNSURE,
    Answers,
    Design,
    numbered,
    placed,
    read_answers,
    read_design,
)
from pixelwise.api.measuring.scales import ScaleOf, scale_rule
from pixelwise.errors import DataError, UsageError
from pixelwise.evaluation.score_counts import listed
from pixelwise.formats.reading import file_hash
from pixelwise.labels import Labels
from pixelwise.measuring.area_estimates import (
    LEVEL,
    AreaEstimates,
    Estimate,
    Estimator,
    TooFewAnswersError,
    estimate_areas,
    plain,
)
from pixelwise.measuring.grid_scale import size_unit
from pixelwise.measuring.sampling import (
    Stratum,
    classes_at,
    inside,
    sizes_at,
    tally_classes,
)
from pixelwise.storage import write_atomic, write_json
from pixelwise.types import Measurement

AREAS, MATRIX, REPORT = FILES = "areas.csv", "error_matrix.csv", "areas.json"
# A larger share of points without an answer is pointed out.
_MANY_MISSING = 0.05
# Classes that fewer answers name have intervals that rest on few points.
_FEW_NAMED = 5
_ESTIMATORS = {
    "stratified": "stratified estimator with score intervals",
    "olofsson": "Olofsson et al. 2014, ± 1.96 standard errors",
}


@dataclass(frozen=True)
class ClassArea:
    """The area of one class, from the answers.

    Args:
        name: of the class.
        area: the estimate with its interval.
        mapped: the pixel count of the map beside it.
        bias: error of the pixel count, as a share of the estimate; None if that is 0.
        share: of the area of the map, 0…1.
        users: user's accuracy (precision by area); None for a class that is not on the map.
        producers: producer's accuracy (recall by area); None if no answer names the class.
        answers: number of answers that name it.
    """

    name: str
    area: Measurement
    mapped: Measurement
    bias: float | None
    share: Estimate
    users: Estimate | None
    producers: Estimate | None
    answers: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        accuracies = {name: plain(getattr(self, name)) for name in ("share", "users", "producers")}
        sizes = {name: vars(getattr(self, name)) for name in ("area", "mapped")}
        return {"name": self.name, **sizes, "bias": self.bias, **accuracies, "answers": self.answers}


@dataclass(frozen=True, eq=False)
class AreaReport:
    """Areas and accuracy of a map, from answers at a sample of points.

    Args:
        classes: one entry per class.
        overall: share of the area that is mapped right.
        matrix: (K, K) estimated shares of the area, rows map, columns answers; `counts`: numbers of points.
        total: area of the map, without pixels that were left out.
        strata: number of strata.
        points, answered, unsure, missing: number of points.
        estimator: what was computed, in a few words.
        provenance: where the unit comes from, or why there is none.
        notices: what was assumed or left out.
    """

    classes: tuple[ClassArea, ...]
    overall: Estimate
    matrix: NDArray[np.float64]
    counts: NDArray[np.int64]
    total: Measurement
    strata: int
    points: int
    answered: int
    unsure: int
    missing: int
    estimator: str
    provenance: str
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of `areas.json`."""
        numbers = ("strata", "points", "answered", "unsure", "missing", "estimator", "provenance")
        return {
            "classes": [each.to_dict() for each in self.classes],
            "overall": plain(self.overall),
            "matrix": self.matrix.tolist(),
            "counts": self.counts.tolist(),
            "total": vars(self.total),
            **{name: getattr(self, name) for name in numbers},
            "notices": list(self.notices),
        }

    def table(self) -> str:
        """Return a row per class as CSV."""
        accuracies = [
            f"{name}{end}" for name in ("share", "users", "producers") for end in ("", "_error", "_low", "_high")
        ]
        head = [
            "class",
            "area",
            "low",
            "high",
            "unit",
            "mapped_area",
            "bias",
            *accuracies,
            "answers",
            "estimator",
            "note",
        ]
        rows: list[list[Any]] = [head]
        for each in self.classes:
            area = each.area
            numbers = [
                "" if value is None else f"{value:.6g}"
                for estimate in (each.share, each.users, each.producers)
                for value in ((None,) * 4 if estimate is None else (plain(estimate) or {}).values())
            ]
            sizes = [f"{value:.6g}" for value in (area.value, area.low or 0.0, area.high or 0.0)]
            bias = "" if each.bias is None else f"{each.bias:.6g}"
            rows.append(
                [
                    each.name,
                    *sizes,
                    area.unit,
                    f"{each.mapped.value:.6g}",
                    bias,
                    *numbers,
                    each.answers,
                    self.estimator,
                    area.note,
                ]
            )
        return _csv(rows)

    def matrix_table(self) -> str:
        """Return the error matrix as CSV: shares of the area, then numbers of points."""
        names = [each.name for each in self.classes]
        rows: list[list[Any]] = [["map", *names, *(f"{name} (points)" for name in names)]]
        for name, shares, counts in zip(names, self.matrix, self.counts, strict=True):
            rows.append([name, *(f"{share:.6g}" for share in shares), *counts.tolist()])
        return _csv(rows)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@dataclass(frozen=True, eq=False)
class _Survey:
    """Answers at points of strata.

    Args:
        labels: the classes.
        strata: all of the map.
        stratum: (n,) of each point.
        sizes: (n,) areas of their pixels.
        answers: (n,) class index, -1 without an answer, -2 if unsure.
        unit: of areas; `provenance`: where it comes from.
        names: (n,) of the points.
        notices: what was assumed.
    """

    labels: Labels
    strata: tuple[Stratum, ...]
    stratum: NDArray[np.int64]
    sizes: NDArray[np.float64]
    answers: NDArray[np.int64]
    unit: str
    provenance: str
    names: tuple[str, ...]
    notices: tuple[str, ...]


def estimate_from_answers(
    map: str | Path,
    answers: str | Path,
    *,
    estimator: str = "stratified",
    sample: str | Path | None = None,
    spacing: str | None = None,
) -> AreaReport:
    """Estimate the area of each class on a map, and the accuracy of the map, from answers at points.

    Args:
        map: the map that the points were drawn from; see `propose_sample`.
        answers: the `answers.csv` of the page, a `sample.csv` with its last column filled in, or the folder of the sample. With
            "olofsson" also a table of other points, drawn at random in each class of the map: columns `answer`, and `row` and `column`,
            `x` and `y`, or `longitude` and `latitude`.
        estimator: "stratified", or "olofsson" for the intervals of Olofsson et al. 2014.
        sample: the folder of the sample; by default that of the answers.
        spacing: distance between neighbouring pixels, for a table of other points; the sample knows its own.

    Raises:
        UsageError: another estimator.
        DataError: answers that cannot be read, of another sample or map, too few, or at pixels that the model was trained on.
    """
    if estimator not in _ESTIMATORS:
        choices = " or ".join(_ESTIMATORS)
        raise UsageError("--estimator", expected=choices, found=estimator, do="Leave it out for the first one.")
    path = Path(answers)
    if path.is_dir():
        path = next((path / name for name in (ANSWERS, POINTS) if (path / name).is_file()), path / ANSWERS)
    folder = path.parent if sample is None else Path(sample)
    found = open_map(map)
    if (folder / SAMPLE).is_file():
        design = read_design(folder / SAMPLE)
        _require_same_map(found, design, folder / SAMPLE)
        survey = _of_sample(design, read_answers(path, design.labels), path)
    elif estimator == "olofsson":
        survey = _of_other_points(found, read_answers(path, found.labels), path, scale_rule(spacing))
    else:
        do = (
            f"Move {path.name} into the folder that --sample wrote. For points of your own, drawn at random in each class of the map, add "
            "--estimator olofsson."
        )
        raise DataError(folder, expected=f"the {SAMPLE} of the sample", found="none", do=do)
    return _report(survey, cast(Estimator, estimator), path)


def write_area_report(report: AreaReport, folder: str | Path) -> tuple[str, ...]:
    """Write `areas.csv`, `error_matrix.csv` and `areas.json` into a folder, and return these names."""
    write_atomic(Path(folder) / AREAS, report.table())
    write_atomic(Path(folder) / MATRIX, report.matrix_table())
    write_json(Path(folder) / REPORT, report.to_dict())
    return FILES


def _require_same_map(found: PredictedMap, design: Design, path: Path) -> None:
    if file_hash(found.path) != design.map_hash:
        raise DataError(
            found.path,
            expected=f"the map {design.map_file} that the points of {path} were drawn from",
            found="another one, or one that was changed",
            do="Name that map, or draw a new sample with --sample.",
        )


def _of_sample(design: Design, answers: Answers, path: Path) -> _Survey:
    sample = design.sample
    return _Survey(
        design.labels,
        sample.strata,
        sample.stratum,
        sample.sizes,
        numbered(answers, design, path),
        design.unit,
        design.provenance,
        tuple(str(i + 1) for i in range(len(sample.stratum))),
        design.notices,
    )


def _of_other_points(found: PredictedMap, answers: Answers, path: Path, scale_of: ScaleOf) -> _Survey:
    """Return a survey of points that were drawn at random in each class of the map, without a sample of ours."""
    names, values = placed(answers, path)
    at = _pixels(found, names, values, path)
    lines = [line for line, _ in answers.rows]
    outside = ((at < 0) | (at >= found.shape)).any(1)
    if outside.any():
        where = f"{path}, line {lines[int(outside.argmax())]}"
        size = "×".join(map(str, found.shape))
        do = "Check the columns of the positions, and the map."
        raise DataError(where, expected=f"a position on the map of {size} pixels", found="one beside it", do=do)
    windows, notices = training_windows(found)
    trained = inside(at, windows)
    if trained.any():
        raise DataError(
            path,
            expected="points that the model was neither trained nor validated on",
            found=f"{int(trained.sum())} of {len(at)} in {described_windows(windows)}",
            do="Remove these points, or draw others with --sample.",
        )
    scale = scale_of(found.grid, found.shape)
    tally = tally_classes(found, scale, windows)
    notices += left_out_notices(found, int(tally.excluded.sum()))
    classes = classes_at(found, at)
    known = classes < found.labels.num_classes
    if not known.all():
        notices.append(f"{int((~known).sum())} points at pixels without a class are left out")
    present = np.flatnonzero(tally.pixels.any(1))
    strata = tuple(Stratum(int(k), int(tally.pixels[k].sum()), float(tally.areas[k].sum())) for k in present)
    return _Survey(
        found.labels,
        strata,
        np.searchsorted(present, classes[known]),
        sizes_at(scale, at[known]),
        answers.answers[known],
        size_unit(scale, 2)[0],
        scale.reason or scale.provenance,
        tuple(f"line {line}" for line, one in zip(lines, known, strict=True) if one),
        (*notices, "the points are taken as drawn at random in each class of the map, all equally likely"),
    )


def _pixels(found: PredictedMap, names: tuple[str, str], values: NDArray[np.float64], path: Path) -> NDArray[np.int64]:
    """Return the row and column of positions in one of the three kinds of coordinates."""
    positions: NDArray[Any] | None = values
    if names == ("x", "y"):
        positions = found.grid.to_pixels(values) if found.grid.affine is not None else None
    elif names == ("longitude", "latitude"):
        positions = positions_of(found.grid, values)
    if positions is None:
        do = "Add the columns row and column."
        raise DataError(path, expected="positions in pixels", found="coordinates, which this map does not have", do=do)
    return np.where(np.isfinite(positions), np.rint(positions), -1).astype(np.int64)


def _report(survey: _Survey, estimator: Estimator, path: Path) -> AreaReport:
    """Estimate areas from the answered points of a survey."""
    answered = survey.answers >= 0
    names = survey.labels.names
    if not answered.any():
        raise DataError(path, expected="answers", found="none", do="Fill in the column answer.")
    try:
        found = estimate_areas(
            survey.strata,
            survey.stratum[answered],
            survey.answers[answered],
            len(names),
            sizes=survey.sizes[answered],
            estimator=estimator,
        )
    except TooFewAnswersError as error:
        raise _too_few(survey, error, path) from error
    total = sum(each.area for each in survey.strata)
    counts = [int((survey.answers == kind).sum()) for kind in (UNSURE, NO_ANSWER)]
    points = len(survey.answers)
    return AreaReport(
        classes=tuple(_class_area(survey, found, estimator, k, total, int(answered.sum())) for k in range(len(names))),
        overall=found.overall,
        matrix=found.matrix,
        counts=found.counts,
        total=Measurement(total, survey.unit, "pixel count"),
        strata=len(survey.strata),
        points=points,
        answered=int(answered.sum()),
        unsure=counts[0],
        missing=counts[1],
        estimator=_ESTIMATORS[estimator],
        provenance=survey.provenance,
        notices=(*survey.notices, *_notices_about(survey, found, *counts)),
    )


def _class_area(
    survey: _Survey, found: AreaEstimates, estimator: Estimator, k: int, total: float, answered: int
) -> ClassArea:
    share, name = found.shares[k], survey.labels.names[k]
    named = int(found.counts[:, k].sum())
    note = f"{100 * LEVEL:g} % confidence interval, from {answered} points answered in {len(survey.strata)} strata, if the answers are right"
    if named < _FEW_NAMED:
        note += f"; {named} of them name the class, so that the interval rests on few points"
    value, low, high = (total * each for each in (share.value, share.low, share.high))
    area = Measurement(value, survey.unit, _ESTIMATORS[estimator], low=low, high=high, note=note)
    mapped = Measurement(total * float(found.mapped[k]), survey.unit, "pixel count", note="has the bias of the model")
    bias = (mapped.value - value) / value if value else None
    return ClassArea(name, area, mapped, bias, share, found.users[k], found.producers[k], named)


def _too_few(survey: _Survey, error: TooFewAnswersError, path: Path) -> DataError:
    """Return the error for a class of the map without enough answers, with the points to answer."""
    own = np.array([each.class_index for each in survey.strata])[survey.stratum] == error.class_index
    names = [survey.names[i] for i in np.flatnonzero(own & (survey.answers < 0)).tolist()]
    some = f"Answer more of its points: {listed(names, 5)}." if names else "Add points in it."
    return DataError(
        path,
        expected=f"2 answers or more where the map says {survey.labels.names[error.class_index]}",
        found=str(error.found),
        do=some,
    )


def _notices_about(survey: _Survey, found: AreaEstimates, unsure: int, missing: int) -> list[str]:
    """Return what a user should know about the answers."""
    notices = []
    points = len(survey.answers)
    if unsure + missing:
        text = f"{unsure + missing} of {points} points have no answer ({unsure} unsure, {missing} missing): taken to be like the answered ones of their strata"
        if unsure + missing > _MANY_MISSING * points:
            text += "; if they differ, because difficult points were left out, the intervals are wrong"
        notices.append(text)
    if found.joined:
        numbers = listed([str(h + 1) for h in found.joined], 8)
        notices.append(
            f"the strata {numbers} were joined with a neighbour of their class, since a stratum needs 2 answers"
        )
    return notices
