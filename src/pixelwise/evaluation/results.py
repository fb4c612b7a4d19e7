"""Results of an evaluation as typed values, and their JSON form in `scores.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pixelwise.errors import DataError
from pixelwise.metrics.conventions import PeerScore
from pixelwise.types import Scores, unspread

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image, and the counts from which scores over any set of images can be computed.

    Args:
        id: the image.
        miou: of this image alone; None if no pixel counts.
        pixel_accuracy: of this image alone.
        pixels: number of counted pixels.
        group: what the image belongs to (patient, scene, sequence); None if unknown.
        truth: digest of the annotated mask, see `truth_digest`.
        counts: (class, true positives, true pixels, predicted pixels, pixels predicted where the truth is ignored) of every
            class for which these are not all zero.
    """

    id: str
    miou: float | None = None
    pixel_accuracy: float | None = None
    pixels: int = 0
    group: str | None = None
    truth: str = ""
    counts: tuple[tuple[int, int, int, int, int], ...] = ()


@dataclass(frozen=True)
class SizeCounts:
    """Objects of one class by size: their number, how many were found, their pixels, and the correct ones of these."""

    name: str
    objects: tuple[int, ...]
    found: tuple[int, ...]
    pixels: tuple[int, ...]
    hits: tuple[int, ...]


@dataclass(frozen=True)
class SizeTable:
    """Objects of each class in bins of size; `up_to_pixels` holds the upper limits, None for the last bin."""

    up_to_pixels: tuple[int | None, ...]
    classes: tuple[SizeCounts, ...]


@dataclass(frozen=True)
class DistanceTable:
    """Counted and wrong pixels in bins of distance to the nearest true border; `up_to_pixels` as in `SizeTable`."""

    up_to_pixels: tuple[int | None, ...]
    pixels: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True)
class Suspect:
    """A region where a confident model predicts another class than the ground truth.

    Args:
        id: the image.
        truth: name of the annotated class.
        prediction: name of the predicted class.
        pixels: size of the region.
        box: (top, left, bottom, right); bottom and right are exclusive.
        confidence: mean probability of the predicted class in the region.
    """

    id: str
    truth: str
    prediction: str
    pixels: int
    box: tuple[int, int, int, int]
    confidence: float


@dataclass(frozen=True)
class ReliabilityTable:
    """The reliability diagram: bin edges, and per bin the pixels, mean confidence and accuracy (None in empty bins)."""

    edges: tuple[float, ...]
    pixels: tuple[float, ...]
    confidence: Numbers
    accuracy: Numbers


@dataclass(frozen=True)
class CoverageTable:
    """Scores among the most confident share of pixels; `classes` is the number of classes in the mean."""

    coverage: tuple[float, ...]
    pixel_accuracy: Numbers
    miou: Numbers
    classes: tuple[int, ...]


@dataclass(frozen=True)
class RiskCurve:
    """The share of wrong pixels (risk) among the most confident share of pixels (coverage)."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]


@dataclass(frozen=True)
class Tables:
    """What a report shows in addition to scores; None for what was not computed.

    Args:
        by_size: objects found, by size.
        by_distance: errors, by distance to the nearest border.
        suspects: possible annotation errors, most likely first.
        too_large: number of images left out of `by_size` and `suspects` because of their size.
        reliability: reliability diagram over all images.
        risk_coverage: scores among the most confident pixels.
        curve: risk over coverage.
    """

    by_size: SizeTable | None = None
    by_distance: DistanceTable | None = None
    suspects: tuple[Suspect, ...] | None = None
    too_large: int | None = None
    reliability: ReliabilityTable | None = None
    risk_coverage: CoverageTable | None = None
    curve: RiskCurve | None = None


@dataclass(frozen=True)
class Evaluation:
    """How good a predictor is on a data set.

    Args:
        scores: over the whole data set, with intervals.
        images: one entry per image, in the order of the data set.
        baseline: scores of predicting the most frequent true class everywhere, on the same images. When read from a file, only
            its mIoU and pixel accuracy are known, without intervals.
        baseline_class: the name of that class.
        peer: name of another library's convention and the scores by it, if requested.
        tables: see `Tables`.
        unassigned_pixels: counted pixels without a predicted class; they count as misses of their true class.
        notices: what was decided or left out when the data set was opened.
        engine: name, precision and version of the engine that computed the predictions, and why it was chosen; None if unknown.
    """

    scores: Scores
    images: tuple[ImageScore, ...]
    baseline: Scores
    baseline_class: str
    peer: tuple[str, tuple[PeerScore, ...]] | None = None
    tables: Tables = Tables()
    unassigned_pixels: int = 0
    notices: tuple[str, ...] = ()
    engine: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form: that of the scores, followed by `baseline`, `per_image`, `tables` and `notices`."""
        accuracy, miou = self.baseline.pixel_accuracy.value, self.baseline.miou.value
        plain = self.scores.to_dict() | {"unassigned_pixels": self.unassigned_pixels}
        if self.engine is not None:
            plain["engine"] = dict(self.engine)
        if self.peer is not None:
            name, peer_scores = self.peer
            plain["peer"] = {"convention": name, "scores": [score.to_dict() for score in peer_scores]}
        plain["baseline"] = {"answer": self.baseline_class, "pixel_accuracy": accuracy, "miou": miou}
        plain["per_image"] = _adapter(tuple[ImageScore, ...]).dump_python(self.images, mode="json")
        tables = _adapter(Tables).dump_python(self.tables, mode="json", exclude_none=True)
        return plain | {"tables": tables, "notices": list(self.notices)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], where: object = "scores.json") -> Evaluation:
        """Read the plain form; missing keys take their defaults, and unknown keys are ignored.

        Raises:
            DataError: values that `evaluate` does not write.
        """
        try:
            peer, baseline, engine = plain.get("peer"), plain.get("baseline") or {}, plain.get("engine")
            return cls(
                scores=Scores.from_dict(plain),
                images=_adapter(tuple[ImageScore, ...]).validate_python(plain.get("per_image") or ()),
                baseline=Scores.from_dict(
                    {"miou_n": None, "pixel_accuracy_n": None}
                    | {key: baseline.get(key) for key in ("miou", "pixel_accuracy")}
                ),
                baseline_class=str(baseline.get("answer", "")),
                peer=peer and (str(peer["convention"]), tuple(map(_peer_score, peer.get("scores") or ()))),
                tables=_adapter(Tables).validate_python(plain.get("tables") or {}),
                unassigned_pixels=int(plain.get("unassigned_pixels") or 0),
                notices=tuple(map(str, plain.get("notices") or ())),
                engine=dict(engine) if isinstance(engine, Mapping) else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                where,
                expected="the scores of an evaluation",
                found=" ".join(f"{type(error).__name__}: {error}".split())[:160],
                do=EVALUATE_AGAIN,
            ) from error


EVALUATE_AGAIN = "Evaluate it again with --out, and use the new scores.json; or compare with --data."


@dataclass(frozen=True)
class TrainingRecipe:
    """Identifies how a run was trained: the hash of its configuration without the seed, and the seed."""

    hash: str
    seed: int | None = None


@dataclass(frozen=True)
class ScoresFile:
    """The content of a `scores.json`: an evaluation, and what was evaluated.

    Args:
        evaluation: the scores.
        model: path of the model or folder of masks; None in a run folder, whose own model was evaluated.
        data: the data set.
        split: train, val or test.
        recipe: of the run the model comes from; None if unknown.
    """

    evaluation: Evaluation
    model: str | None = None
    data: str | None = None
    split: str | None = None
    recipe: TrainingRecipe | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form; unknown values are left out."""
        facts = {"model": self.model, "data": self.data, "split": self.split}
        plain: dict[str, Any] = {key: value for key, value in facts.items() if value is not None}
        if self.recipe is not None:
            plain["recipe"] = {"hash": self.recipe.hash, "seed": self.recipe.seed}
        return plain | self.evaluation.to_dict()

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], where: object = "scores.json") -> ScoresFile:
        """Read the plain form; raises as `Evaluation.from_dict`."""
        model, data, split = (None if plain.get(k) is None else str(plain[k]) for k in ("model", "data", "split"))
        facts, recipe = plain.get("recipe"), None
        if isinstance(facts, Mapping) and facts.get("hash") is not None:
            recipe = TrainingRecipe(str(facts["hash"]), facts.get("seed"))
        return cls(Evaluation.from_dict(plain, where), model, data, split, recipe)


def read_scores(file: Path) -> ScoresFile:
    """Read a `scores.json`.

    Raises:
        DataError: it cannot be read, or holds values that `evaluate` does not write.
    """
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        problem = " ".join(str(error).split())
        raise DataError(file, expected="a readable scores.json", found=problem, do="Evaluate it again.") from error
    return ScoresFile.from_dict(plain if isinstance(plain, Mapping) else {}, file)


def _peer_score(plain: Mapping[str, Any]) -> PeerScore:
    return PeerScore(str(plain["call"]), str(plain["says"]), unspread("value", plain))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
