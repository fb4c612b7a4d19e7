"""What the verbs give back: a model that is ready to predict, and a run.

Comes in: folders. Goes out: `Model` and `Run`. Knows nothing of terminals or of how runs are made.
"""

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
    """Hold a trained model, ready to predict.

    Args:
        folder: where it was loaded from.
        predictor: the only way from image to `Prediction`.
        card: what `model.json` says.
    """

    folder: Path
    predictor: Predictor = field(repr=False)
    card: ModelCard = field(repr=False)

    @property
    def labels(self) -> Labels:
        """Give the classes."""
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

        Pixels that a file marks as nodata get `labels.ignore_index`.

        Args:
            source: a path, or an array (C, H, W) of raw values; (H, W) for a single band.
            grid: where an array lies in the world; files bring their own.
            probabilities: return them too, (K, H, W) float32.

        Raises:
            ImageError: the file cannot be read.
            DataError: the image has not as many bands as the model was trained on.
        """
        if isinstance(source, str | Path):
            from pixelwise.api.predicting import predict_file

            return predict_file(self.predictor, Path(source), probabilities=probabilities)[1]
        image = source[None] if source.ndim == 2 else source
        return self.predictor(image, grid, probabilities=probabilities)


@dataclass(frozen=True)
class Run:
    """Hold a run folder: configuration, log, scores, and the best model."""

    folder: Path

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Read `scores.json`: the best model on the validation part.

        Raises:
            DataError: no finished run there.
        """
        import json

        path = self.folder / "scores.json"
        if not path.is_file():
            raise DataError(self.folder, expected="a finished run", found="no scores.json", do="Train it to the end.")
        scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return scores

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Name the parts of the data set that it was trained on: train, val, and test where there is one."""
        import json

        known = json.loads((self.folder / "data.json").read_text(encoding="utf-8"))
        return tuple(known["splits"]["images"])

    parts = renamed("parts", "splits")

    @cached_property
    def model(self) -> Model:
        """Load the best model."""
        return load(self.folder)


def load(path: str | Path, *, device: str | None = None, flips: bool | None = None) -> Model:
    """Load a model folder, or the best model of a run folder.

    Args:
        path: the folder, or OWNER/NAME on the Hub where there is no such folder.
        device: "cpu", "cuda", …; the fastest there is where not given.
        flips: average over mirrored copies when predicting, in the directions that training mirrored; where not given,
            as the model was scored.

    Raises:
        ModelFileError: no model there, or one that is incomplete or altered.
    """
    folder = Path(path)
    folder = folder / "model" if _there(folder / "model") else folder
    if not _there(folder) and HUB_NAME.fullmatch(str(path)) and not folder.parent.exists():
        from pixelwise.models.hub import pull

        folder = pull(str(path))
    if not _there(folder):
        found = "a file" if folder.exists() else "nothing"
        raise ModelFileError(path, expected="a model folder or a run folder", found=found, do="Check the path.")
    from pixelwise.inference.backend import open_backend
    from pixelwise.inference.predictor import Predictor
    from pixelwise.models.card import read_card

    settings: dict[str, Any] = {} if flips is None else {"flips": flips}
    predictor = Predictor(open_backend(folder, device=device), **settings)
    return Model(folder, predictor, read_card(folder))


def holds_masks(folder: Path) -> bool:
    """Tell a folder of images from one with a model: by what lies in it, not by its name."""
    from pixelwise.imageio.images import IMAGE_SUFFIXES

    if not folder.is_dir() or _there(folder / "model") or (folder / "model.json").exists():
        return False
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))


def load_card(folder: Path) -> dict[str, Any] | None:
    """Read `model.json` of a run or model folder, without the model; None where there is none."""
    import json

    for place in (folder / "model", folder):
        if (place / "model.json").is_file():
            card: dict[str, Any] = json.loads((place / "model.json").read_text(encoding="utf-8"))
            return card
    return None


def _there(folder: Path) -> bool:
    from pixelwise.storage import previous_folder

    # A process that was killed between two renames leaves the model under the other name.
    return folder.is_dir() or previous_folder(folder).is_dir()
