"""Predict many files into a folder; one bad file among a thousand stops nothing and hides nowhere.

Comes in: a predictor, paths, folders and globs. Goes out: masks, overlays, probabilities, and `predictions.json`.
Knows nothing of models beyond their predictor, and nothing of the command line.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, OutOfMemoryError, UsageError, memory_respected
from pixelwise.imageio.images import IMAGE_SUFFIXES, fill_invalid, read_with_validity
from pixelwise.imageio.masks import write_mask
from pixelwise.inference.predictor import Predictor
from pixelwise.reporting.overlay import overlay, write_png
from pixelwise.storage import atomic_path, claim_folder, write_json
from pixelwise.types import Prediction

SUMMARY = "predictions.json"
_VOLUMES = (".nii", ".nii.gz", ".dcm")
RESULTS = (SUMMARY, "masks", "overlays", "probabilities")


@dataclass(frozen=True)
class Predicted:
    """Say what was written: one entry per good file, one message per bad one, all in `folder`."""

    folder: Path
    images: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form of `predictions.json`."""
        return {"folder": str(self.folder), "images": list(self.images), "failed": list(self.failed)}


def find_sources(sources: Sequence[str]) -> dict[str, Path]:
    """List the images that files, folders (searched to the bottom, hidden files left out) and globs name, each once.

    Returns:
        Name of the output, without suffix → path. Images of a folder keep their place in it.

    Raises:
        UsageError: a source that is not there or holds no image.
    """
    found: list[tuple[Path, Path]] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            hits = [(p, p.relative_to(path)) for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]
            hits = [(p, name) for p, name in hits if p.is_file() and not any(n.startswith(".") for n in name.parts)]
        elif path.exists():
            hits = [(path, Path(path.name))]
        else:
            matches = [Path(p) for p in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207 - any pattern, also absolute
            hits = [(p, Path(p.name)) for p in matches if p.is_file()]
        if path.name.lower().endswith(_VOLUMES) and path.is_file():
            do = "Volumes are not predicted yet: save their slices as TIFF, with the values they have."
            raise UsageError(source, expected="an image, a folder of images or a glob", found="a volume", do=do)
        if not hits:
            raise UsageError(
                source, expected="an image, a folder of images or a glob", found="none", do="Check the path."
            )
        found += hits
    unique: dict[Path, tuple[Path, Path]] = {}
    for path, name in found:
        unique.setdefault(path.absolute(), (path, name))
    stems = Counter(str(name.with_suffix("")) for _, name in unique.values())
    named: dict[str, Path] = {}
    for path, name in unique.values():
        stem = str(name.with_suffix(""))
        key = stem if stems[stem] == 1 else f"{stem}-{name.suffix[1:].lower()}"
        while key in named:
            key += "-2"
        named[key] = path
    return named


def predict_files(
    predictor: Predictor,
    sources: Sequence[str],
    out: Path,
    *,
    overlays: bool = True,
    probabilities: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Predicted:
    """Predict every source and write `masks/`, `overlays/`, `probabilities/` and `predictions.json` into `out`.

    Args:
        predictor: the way from image to Prediction.
        sources: files, folders, globs.
        out: a new or empty folder.
        overlays: write the masks over the images, too.
        probabilities: write (K, H, W) float16 as `.npz` with key `probabilities`, too.
        overwrite: replace an earlier result in `out`; what lies there is never a source.
        progress: called with (done, total, name) after each file.

    Raises:
        UsageError: a source without images, or an `out` that holds files (with `overwrite`: other files than ours).
        ResourceError: the disk is full.
    """
    inside = out.resolve()
    named = {name: path for name, path in find_sources(sources).items() if inside not in path.resolve().parents}
    if not named:
        raise UsageError(out, expected="images outside of --out", found="none", do="Choose another --out.")
    claim_folder(out, overwrite, RESULTS, SUMMARY)
    # Before the first mask, so that a folder that was left half done is known as ours.
    write_json(out / SUMMARY, Predicted(out, (), ()).to_dict())
    images: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for done, (name, path) in enumerate(named.items(), 1):
        try:
            with memory_respected(path, "Predict it alone, on a machine with more memory, or leave it out."):
                images.append(_one(predictor, name, path, out, overlays, probabilities))
        except (DataError, OutOfMemoryError) as error:
            failed.append({"file": str(path), "error": str(error)})
        if progress:
            progress(done, len(named), str(path))
    result = Predicted(out, tuple(images), tuple(failed))
    write_json(out / SUMMARY, {"labels": predictor.labels.to_dict(), **result.to_dict()})
    return result


def predict_file(predictor: Predictor, path: Path, *, probabilities: bool = False) -> tuple[NDArray[Any], Prediction]:
    """Read an image and predict it.

    Where the file names a value for "nothing was measured here", such pixels are read as in training, and no class is given to
    them: they are ignored pixels, if the labels have an id for those.

    Args:
        predictor: the way from image to Prediction.
        path: of the image.
        probabilities: keep (K, H, W) float32, too.

    Returns:
        The image (C, H, W), and what was predicted.

    Raises:
        ImageError: the file cannot be read.
        DataError: it is no image of the kind that the model was trained on.
    """
    image, grid, valid = read_with_validity(path)
    prediction = predictor(image, grid, valid, id=str(path), probabilities=probabilities)
    image = fill_invalid(image, valid)
    labels = prediction.labels
    if valid is None or not labels.ignore_ids:
        return image, prediction
    mask = np.where(valid, prediction.mask, prediction.mask.dtype.type(labels.ignore_index))
    return image, replace(prediction, mask=mask)


def _one(predictor: Predictor, name: str, path: Path, out: Path, overlays: bool, probabilities: bool) -> dict[str, Any]:
    image, prediction = predict_file(predictor, path, probabilities=probabilities)
    entry: dict[str, Any] = {"file": str(path), "height": image.shape[1], "width": image.shape[2]}
    for kind, target in _targets(name, overlays, probabilities):
        entry[kind] = target
        _write(kind, out / target, image, prediction)
    return entry | {"shares": {k: round(v, 6) for k, v in prediction.shares().items()}}


def _targets(name: str, overlays: bool, probabilities: bool) -> Iterator[tuple[str, str]]:
    yield "mask", f"masks/{name}.png"
    if overlays:
        yield "overlay", f"overlays/{name}.png"
    if probabilities:
        yield "probabilities", f"probabilities/{name}.npz"


def _write(kind: str, path: Path, image: np.ndarray, prediction: Prediction) -> None:
    if kind == "mask":
        write_mask(path, prediction.mask, prediction.labels)
    elif kind == "overlay":
        write_png(path, overlay(image, prediction.mask, prediction.labels))
    elif prediction.probabilities is not None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, probabilities=prediction.probabilities.astype(np.float16))
