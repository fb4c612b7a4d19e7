"""Reports: what `report.html` shows of a run, or of masks that were scored.

Comes in: scores, the part of the data set they are of, what predicted it. Goes out: `report.html`. Knows nothing of terminals.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from pixelwise.api.loading import load
from pixelwise.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelwise.datasets.dataset import Dataset
    from pixelwise.evaluation import ImagePredictor

    Fetch = Callable[[str], tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]]

SCORES, REPORT, CONFIG = "scores.json", "report.html", "config.yaml"


def report(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a finished run anew: its best model on the validation part.

    For other images, `evaluate` writes a report beside its scores.

    Args:
        run: the run folder.
        out: the HTML file; `report.html` in the run folder where not given.

    Returns:
        The path of the file.

    Raises:
        DataError: no finished run there, or its images are gone.
    """
    from pixelwise.config import read_request
    from pixelwise.datasets.dataset import open_data

    folder = Path(run)
    for name in (SCORES, CONFIG):
        if not (folder / name).is_file():
            raise DataError(
                folder, expected="a finished run", found=f"no {name}", do="Train it to the end, or use evaluate --out."
            )
    config, base = read_request(folder / CONFIG)
    split = open_data(config.data, base).val
    if split is None:
        raise DataError(folder, expected="the run's validation images", found="none", do="Restore them.")
    path = folder / REPORT if out is None else Path(out)
    plain = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    again = [
        f"pixelwise train {quote(str(folder / CONFIG))} --out again",
        f"pixelwise evaluate {quote(str(folder))} {quote(str(folder / CONFIG))} --split val",
        f"pixelwise report {quote(str(folder))}",
    ]
    named = {"model": str(folder), "data": config.data.root or str(folder)}
    write(path, named | plain, split, load(folder).predictor, folder, again)
    return path


def write(
    path: Path,
    plain: Mapping[str, Any],
    split: Dataset,
    predictor: ImagePredictor,
    run: Path | None,
    commands: list[str],
) -> None:
    """Write a report; the images that it shows are read and predicted again.

    Args:
        path: the HTML file.
        plain: the scores, as `Evaluation.to_dict` gives them.
        split: the images that were scored.
        predictor: what was scored.
        run: its run folder, where there is one.
        commands: what to type to get the same again.

    Raises:
        ResourceError: the file cannot be written.
    """
    from pixelwise.reporting import write_report

    truths = {str(image["id"]): image.get("truth") for image in plain.get("per_image") or ()}
    write_report(
        path,
        dict(plain),
        labels=split.labels,
        fetch=_fetch(split, predictor, truths),
        run=run,
        environment=_environment(),
        commands=commands,
    )


def _fetch(split: Dataset, predictor: ImagePredictor, truths: Mapping[str, str | None]) -> Fetch:
    from pixelwise.evaluation import truth_digest
    from pixelwise.imageio.images import fill_invalid

    places = {record.id: index for index, record in enumerate(split.records)}

    def fetch(id: str) -> tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]:
        if id not in places:
            raise DataError(id, expected="the image that was scored", found="none", do="Restore it, or score anew.")
        sample = split.read(places[id])
        truth = sample.truth(split.labels.ignore_index)
        if truth is None or truths.get(id) not in (None, truth_digest(truth)):
            raise DataError(id, expected="the mask that was scored", found="another", do="Restore it, or score anew.")
        prediction = predictor(sample.image, sample.grid, sample.valid, id=id)
        return fill_invalid(sample.image, sample.valid), truth, prediction.mask

    return fetch


def _environment() -> dict[str, str]:
    """Name what computed: versions, system, processor."""
    import torch

    names = ("pixelwise", "torch", "torchvision", "numpy")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "Python": platform.python_version(),
        **{name: version(name) for name in names},
        "system": platform.platform(),
        "processor": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "GPU": device,
    }
