"""Load trained models and runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import DataError, ModelFileError, renamed
from pixelwise.types import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelwise.grid import Grid
    from pixelwise.inference.engines import Choice, Engines, Example
    from pixelwise.inference.predictor import Predictor
    from pixelwise.labels import Labels
    from pixelwise.models.card import ModelCard
    from pixelwise.types import ModelSpec

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Model:
    """A trained model, ready to predict.

    Args:
        folder: the folder or the exported file it was loaded from.
        card: content of `model.json`.
        engines: computes it; an engine is opened when it is first used.
        settings: fields of `ModelSpec` that replace those of the card.
        engine: the chosen engine and the reason; None before `for_images`.
    """

    folder: Path
    card: ModelCard = field(repr=False)
    engines: Engines = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: Choice | None = None

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.card.labels

    @property
    def spec(self) -> ModelSpec:
        """How images are prepared and predicted."""
        return replace(self.card.spec, **self.settings)

    @cached_property
    def predictor(self) -> Predictor:
        """Computes predictions with the chosen engine, or else with torch in fp32.

        Raises:
            ModelFileError: the model is incomplete or modified.
            ConfigError: the engine that was asked for cannot be used.
        """
        from pixelwise.inference.predictor import Predictor

        choice = self.engine or self.engines.default()
        return Predictor(self.engines.open(choice.engine), **self.settings)

    def with_settings(self, **settings: Any) -> Model:
        """Return the model with other settings for prediction: `tile`, `overlap`, `flips` (fields of `ModelSpec`)."""
        return replace(self, settings={**self.settings, **settings}) if settings else self

    def for_images(self, images: Iterable[Example], count: int, announce: Callable[[], None] | None = None) -> Model:
        """Return the model with the engine that is fastest for a job, if the job is large enough for a measurement to pay.

        Args:
            images: the first images of the job; they are read if needed.
            count: number of images in the job.
            announce: called before a measurement, which takes seconds.
        """
        copies = 2 ** len(self.spec.mirrors) if self.spec.flips else 1
        return replace(self, engine=self.engines.choose(images, count * copies, self.spec.tile, announce))

    def with_engine(self, facts: Mapping[str, Any] | None) -> Model | None:
        """Return the model with the engine of an earlier job (see `Choice.facts`); None if it is not available."""
        choice = self.engines.again(facts) if facts else None
        return replace(self, engine=choice) if choice else None

    def for_shape(self, shape: Sequence[int]) -> Model:
        """Return the model with the engine that was measured before for images of this size (*S), if there is one."""
        choice = self.engine or self.engines.cached(shape, self.spec.tile)
        return self if choice is self.engine else replace(self, engine=choice)

    def predict(
        self, source: str | Path | NDArray[np.generic], grid: Grid | None = None, *, probabilities: bool = False
    ) -> Prediction:
        """Predict one image or volume.

        Pixels without data become `labels.ignore_index`. No engines are measured; a choice that was made before is used.

        Args:
            source: a path, or an array (C, *S) of raw pixel values; (*S) for a single band.
            grid: spatial reference of an array; that of files is read.
            probabilities: also return probabilities (K, *S), float32.

        Raises:
            ImageError: the file cannot be read.
            DataError: the number of bands differs from the training data.
        """
        if isinstance(source, str | Path):
            from pixelwise.api.predicting import predict_file

            return predict_file(self, Path(source), probabilities=probabilities)[1]
        from pixelwise.imageio.images import valid_voxels

        image = source[None] if source.ndim == self.spec.dimensions else source
        valid = valid_voxels(image, self.spec.nodata)
        return self.for_shape(image.shape[1:]).predictor(image, grid, valid, probabilities=probabilities)


@dataclass(frozen=True)
class Run:
    """A run folder: configuration, log, scores, and the best model."""

    folder: Path

    @cached_property
    def scores(self) -> dict[str, Any]:
        """The content of `scores.json`: scores of the best model on the validation split.

        Raises:
            DataError: the run is not finished.
        """
        import json

        path = self.folder / "scores.json"
        if not path.is_file():
            raise DataError(self.folder, expected="a finished run", found="no scores.json", do="Finish the training.")
        scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return scores

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits of the data set: train, val, and test if there is one."""
        import json

        data = json.loads((self.folder / "data.json").read_text(encoding="utf-8"))
        return tuple(data["splits"]["images"])

    parts = renamed("parts", "splits")

    @cached_property
    def model(self) -> Model:
        """The best model."""
        return load(self.folder)


def load(
    path: str | Path,
    *,
    device: str | None = None,
    flips: bool | None = None,
    backend: str = "auto",
    precision: str | None = None,
) -> Model:
    """Load a model folder, the best model of a run folder, or an exported model.

    Args:
        path: the folder; an exported `.onnx` or `.xml` file, or a folder with one; or OWNER/NAME on the Hub if there is no
            such folder.
        device: "cpu", "cuda", …; the fastest available by default.
        flips: average over mirrored copies, in the directions used for augmentation; by default as the model was
            evaluated.
        backend: "torch", "openvino", "onnxruntime", or "auto" for the fastest of them with the same masks.
        precision: "fp32" or "bf16"; either by default.

    Raises:
        ModelFileError: there is no model, or its `model.json` is missing or invalid. Weights are read when they are used.
        UsageError: an unknown engine or precision.
        ConfigError: torch for an exported model, or no library that reads it is installed.
    """
    from pixelwise.inference.engines import Engines
    from pixelwise.inference.exported import exported_file, read_exported_card
    from pixelwise.models.card import read_card

    folder = Path(path)
    folder = folder / "model" if _exists(folder / "model") else folder
    if not _exists(folder) and not folder.is_file() and HUB_NAME.fullmatch(str(path)) and not folder.parent.exists():
        from pixelwise.models.hub import pull

        folder = pull(str(path))
    file = exported_file(folder)
    if file is None and not _exists(folder):
        found = "a file" if folder.exists() else "nothing"
        expected = "a model folder, a run folder or an exported .onnx or .xml file"
        raise ModelFileError(path, expected=expected, found=found, do="Check the path.")
    place = folder if file is None else file
    card = read_card(folder) if file is None else read_exported_card(file)
    settings: dict[str, Any] = {} if flips is None else {"flips": flips}
    return Model(place, card, Engines(place, card, backend, precision, device), settings)


def holds_masks(folder: Path) -> bool:
    """Whether a folder contains masks rather than a model."""
    from pixelwise.imageio.images import IMAGE_SUFFIXES
    from pixelwise.inference.exported import is_exported

    if not folder.is_dir() or _exists(folder / "model") or (folder / "model.json").exists():
        return False
    if any(map(is_exported, folder.iterdir())):
        return False
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))


def load_card(folder: Path) -> dict[str, Any] | None:
    """Read `model.json` of a run or model folder; None if there is none."""
    import json

    for place in (folder / "model", folder):
        if (place / "model.json").is_file():
            card: dict[str, Any] = json.loads((place / "model.json").read_text(encoding="utf-8"))
            return card
    return None


def _exists(folder: Path) -> bool:
    from pixelwise.storage import previous_folder

    # A process killed between two renames leaves the model under its previous name.
    return folder.is_dir() or previous_folder(folder).is_dir()
