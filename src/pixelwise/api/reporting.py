"""Write the report of a run, or of an evaluation."""

from __future__ import annotations

import functools
import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from pixelwise.api.loading import load
from pixelwise.errors import DataError, ResourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelwise.datasets.dataset import Dataset
    from pixelwise.evaluation import ImagePredictor
    from pixelwise.evaluation.kept import KeptMasks

    Fetch = Callable[[str], tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]]

SCORES, REPORT, CONFIG = "scores.json", "report.html", "config.yaml"
_ALWAYS_SHOWN = 4


def report(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a finished run: its best model on the validation split.

    For other images, `evaluate` writes a report with its scores.

    Args:
        run: the run folder.
        out: the HTML file; `report.html` in the run folder by default.

    Returns:
        The path of the file.

    Raises:
        DataError: `run` is not a finished run, or its images do not exist any more.
    """
    folder = Path(run)
    return report_run(folder, folder / REPORT if out is None else Path(out))


def report_run(folder: Path, path: Path, deadline: float | None = None, masks: KeptMasks | None = None) -> Path:
    """Write the report of a finished run, as `report`.

    Args:
        folder: the run folder.
        path: the HTML file.
        deadline: when no further images are read, in seconds of `time.monotonic`; None: all are shown.
        masks: masks that its model has predicted for its validation images; others are predicted.
    """
    from pixelwise.config import read_request
    from pixelwise.datasets.dataset import open_data
    from pixelwise.evaluation.kept import KeptMasks

    for name in (SCORES, CONFIG):
        if not (folder / name).is_file():
            raise DataError(
                folder, expected="a finished run", found=f"no {name}", do="Finish the training, or use evaluate --out."
            )
    config, base = read_request(folder / CONFIG)
    split = open_data(config.data, base).val
    if split is None:
        raise DataError(folder, expected="the run's validation images", found="none", do="Restore the images.")
    plain = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    commands = [
        f"pixelwise train {quote(str(folder / CONFIG))} --out again",
        f"pixelwise evaluate {quote(str(folder))} {quote(str(folder / CONFIG))} --split val",
        f"pixelwise report {quote(str(folder))}",
    ]
    model = functools.cache(lambda: load(folder))
    evaluated = {"model": str(folder), "data": config.data.root or str(folder)}
    predictor = (masks or KeptMasks()).predictor(lambda: model().predictor)
    write(path, evaluated | plain, split, predictor, folder, commands, deadline)
    return path


def write(
    path: Path,
    plain: Mapping[str, Any],
    split: Dataset,
    predictor: ImagePredictor,
    run: Path | None,
    commands: list[str],
    deadline: float | None = None,
) -> None:
    """Write a report. The images it shows are read again.

    Args:
        path: the HTML file.
        plain: the plain form of the `Evaluation`.
        split: the evaluated images.
        predictor: returns the evaluated masks.
        run: its run folder; None if there is none.
        commands: commands that reproduce the results.
        deadline: when no further images are read, in seconds of `time.monotonic`.

    Raises:
        ResourceError: the file cannot be written.
    """
    from pixelwise.reporting import write_report

    truths = {str(image["id"]): image.get("truth") for image in plain.get("per_image") or ()}
    write_report(
        path,
        dict(plain),
        labels=split.labels,
        fetch=_fetch(split, predictor, truths, deadline),
        run=run,
        environment=_environment(),
        commands=commands,
    )


def _fetch(
    split: Dataset, predictor: ImagePredictor, truths: Mapping[str, str | None], deadline: float | None
) -> Fetch:
    from pixelwise.evaluation import truth_digest
    from pixelwise.imageio.images import fill_invalid

    indices = {record.id: index for index, record in enumerate(split.records)}
    fetched = 0

    def fetch(id: str) -> tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]:
        nonlocal fetched
        fetched += 1
        if deadline is not None and fetched > _ALWAYS_SHOWN and time.monotonic() > deadline:
            raise ResourceError(
                id,
                expected="time to show it",
                found="the time limit",
                do="Run `pixelwise report` to show all images.",
            )
        if id not in indices:
            raise DataError(id, expected="the evaluated image", found="none", do="Restore it, or evaluate again.")
        sample = split.read(indices[id])
        truth = sample.truth(split.labels.ignore_index)
        if truth is None or truths.get(id) not in (None, truth_digest(truth)):
            raise DataError(
                id, expected="the evaluated mask", found="another mask", do="Restore it, or evaluate again."
            )
        prediction = predictor(sample.image, sample.grid, sample.valid, id=id)
        return fill_invalid(sample.image, sample.valid), truth, prediction.mask

    return fetch


def _environment() -> dict[str, str]:
    """Return the versions, system and hardware."""
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
