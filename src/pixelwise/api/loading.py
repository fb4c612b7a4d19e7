"""Load trained models and runs."""

from __future__ import annotations

import re
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
    from pixelwise.inference.predictor import Predictor
    from pixelwise.labels import Labels
    from pixelwise.models.card import ModelCard

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Model:
    """A trained model, ready to predict.

    Args:
        folder: the folder it was loaded from.
        predictor: computes predictions.
        card: content of `model.json`.
    """

    folder: Path
    predictor: Predictor = field(repr=False)
    card: ModelCard = field(repr=False)

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.card.labels

    def with_settings(self, **settings: Any) -> Model:
        """Return the model with other settings for prediction: `tile`, `overlap`, `flips` (fields of `ModelSpec`)."""
        from pixelwise.inference.predictor import Predictor

        if not settings:
            return self
        spec = self.predictor.spec
        chosen = {name: getattr(spec, name) for name in ("tile", "overlap", "mirrors", "flips", "temperature")}
        return replace(self, predictor=Predictor(self.predictor.backend, **(chosen | settings)))

    def predict(
        self, source: str | Path | NDArray[np.generic], grid: Grid | None = None, *, probabilities: bool = False
    ) -> Prediction:
        """Predict one image or volume.

        Pixels without data become `labels.ignore_index`.

        Args:
            source: a path, or an array (C, H, W) of raw pixel values; (H, W) for a single band.
            grid: spatial reference of an array; that of files is read.
            probabilities: also return probabilities (K, H, W), float32.

        Raises:
            ImageError: the file cannot be read.
            DataError: the number of bands differs from the training data.
        """
        if isinstance(source, str | Path):
            from pixelwise.api.predicting import predict_file

            return predict_file(self.predictor, Path(source), probabilities=probabilities)[1]
        from pixelwise.imageio.images import valid_voxels

        image = source[None] if source.ndim == 2 else source
        valid = valid_voxels(image, self.predictor.spec.nodata)
        return self.predictor(image, grid, valid, probabilities=probabilities)


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


def load(path: str | Path, *, device: str | None = None, flips: bool | None = None) -> Model:
    """Load a model folder, or the best model of a run folder.

    Args:
        path: the folder, or OWNER/NAME on the Hub if there is no such folder.
        device: "cpu", "cuda", …; the fastest available by default.
        flips: average over mirrored copies, in the directions used for augmentation; by default as the model was
            evaluated.

    Raises:
        ModelFileError: there is no model, or it is incomplete or modified.
    """
    folder = Path(path)
    folder = folder / "model" if _exists(folder / "model") else folder
    if not _exists(folder) and HUB_NAME.fullmatch(str(path)) and not folder.parent.exists():
        from pixelwise.models.hub import pull

        folder = pull(str(path))
    if not _exists(folder):
        found = "a file" if folder.exists() else "nothing"
        raise ModelFileError(path, expected="a model folder or a run folder", found=found, do="Check the path.")
    from pixelwise.inference.backend import open_backend
    from pixelwise.inference.predictor import Predictor
    from pixelwise.models.card import read_card

    settings: dict[str, Any] = {} if flips is None else {"flips": flips}
    predictor = Predictor(open_backend(folder, device=device), **settings)
    return Model(folder, predictor, read_card(folder))


def holds_masks(folder: Path) -> bool:
    """Whether a folder contains masks rather than a model."""
    from pixelwise.imageio.images import IMAGE_SUFFIXES

    if not folder.is_dir() or _exists(folder / "model") or (folder / "model.json").exists():
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
