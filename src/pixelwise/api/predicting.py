"""Predict many files into a folder: decoding, computing and writing overlap, and an unfinished folder is resumed.

While the backend computes, other threads decode the next files, and draw, compress and write what was computed. Writers mostly
wait until the disk has stored a file, so there are several.
"""

from __future__ import annotations

import glob
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.loading import Model
from pixelwise.api.scoring import require_sections
from pixelwise.config import Config, with_overrides
from pixelwise.errors import (
    DataError,
    Interrupted,
    OutOfMemoryError,
    OutputExistsError,
    UsageError,
    convert_memory_errors,
)
from pixelwise.formats.reading import file_hash
from pixelwise.imageio.file_formats import ARRAY_SUFFIXES, image_files
from pixelwise.imageio.images import IMAGE_SUFFIXES, fill_invalid
from pixelwise.imageio.listing import is_system, walk
from pixelwise.imageio.sources import Source, open_source
from pixelwise.imageio.writing import write_prediction
from pixelwise.inference.augmentation import mirrored_axes
from pixelwise.inference.engines import AUTO, Example
from pixelwise.inference.predictor import Predictor
from pixelwise.reporting.overlay import overlay, write_png
from pixelwise.storage import atomic_path, claim_folder, require_claimable, write_atomic, write_json
from pixelwise.types import ModelSpec, Prediction

SUMMARY = "predictions.json"
JOURNAL = "journal.jsonl"
SOURCE_SUFFIXES = (*IMAGE_SUFFIXES, ".nii", ".nii.gz")
RESULTS = (SUMMARY, JOURNAL, "masks", "overlays", "probabilities")
# Files that are decoded ahead of the computation; and results in writing, by number and by bytes.
_AHEAD = 2
_BEHIND = 8
_BEHIND_BYTES = 1 << 28
_WRITERS = 4
_ALONE = "Predict it on a machine with more memory, or leave it out."

Progress = Callable[[int, int, str], None]
State = list[int | str]


@dataclass(frozen=True)
class Loaded:
    """A decoded file."""

    source: Source
    image: NDArray[Any]
    valid: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Predicted:
    """What was written to `folder`: one entry per predicted file, one message per failed one; and the engine, if known."""

    folder: Path
    images: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, str], ...]
    engine: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of `predictions.json`."""
        plain = {"folder": str(self.folder), "images": list(self.images), "failed": list(self.failed)}
        return plain if self.engine is None else {"engine": dict(self.engine), **plain}


@dataclass(frozen=True)
class Outputs:
    """Which files are written beside the masks."""

    overlays: bool = True
    probabilities: bool = False


def find_sources(sources: Sequence[str]) -> dict[str, Path]:
    """List the images and volumes that files, folders and globs name, each once.

    Folders are searched recursively, as those of data sets: without hidden files and thumbnails of file servers.

    Returns:
        Name of the output, without suffix → path. Files found in a folder keep their place in it.

    Raises:
        UsageError: a source that does not exist or holds no image.
        DataError: a folder that cannot be listed.
    """
    found: list[tuple[Path, Path]] = []
    for source in sources:
        hits = list(_hits(source))
        if not hits:
            raise UsageError(
                source, expected="an image, a folder of images or a glob", found="none", do="Check the path."
            )
        images = set(image_files([path for path, _ in hits]))  # arrays beside images may be no images
        found += [hit for hit in hits if hit[0] in images or hit[0].suffix.lower() not in ARRAY_SUFFIXES]
    unique: dict[Path, tuple[Path, Path]] = {}
    for path, name in found:
        unique.setdefault(path.absolute(), (path, name))
    stems = Counter(_stem(name) for _, name in unique.values())
    named: dict[str, Path] = {}
    for path, name in unique.values():
        stem = _stem(name)
        key = stem if stems[stem] == 1 else f"{stem}-{_suffix(name)[1:].lower()}"
        while key in named:
            key += "-2"
        named[key] = path
    return named


def _hits(source: str) -> Iterator[tuple[Path, Path]]:
    """Yield each file that a source names, with its place in the output."""
    path = Path(source)
    if path.is_dir():
        for file in sorted(walk(path)):
            if _suffix(file).lower() in SOURCE_SUFFIXES and file.is_file():
                yield file, file.relative_to(path)
    elif path.exists():
        yield path, Path(path.name)
    else:
        for match in sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 - absolute patterns, too
            file = Path(match)
            named = set(path.parts)
            if file.is_file() and not any(is_system(part) and part not in named for part in file.parts):
                yield file, Path(file.name)


def _suffix(path: Path) -> str:
    """Return the suffix of a file, `.nii.gz` whole."""
    return "".join(path.suffixes[-2:]) if path.name.lower().endswith(".nii.gz") else path.suffix


def _stem(name: Path) -> str:
    return str(name).removesuffix(_suffix(name))


def predict_files(
    predictor: Predictor | Model,
    sources: Sequence[str],
    out: Path,
    *,
    model: str = "",
    overlays: bool = True,
    probabilities: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Predicted:
    """Predict every source and write `masks/`, `overlays/`, `probabilities/` and `predictions.json` into `out`.

    A mask has the format of its source where that keeps ids and geometry: GeoTIFF for GeoTIFF, NIfTI for NIfTI, else PNG.

    Args:
        predictor: the way from image to Prediction; or a model, whose engine is chosen by the first images. A folder that is
            resumed keeps its engine.
        sources: files, folders, globs.
        out: a new or empty folder, or an unfinished one of the same call, which is resumed.
        model: identifies the weights, so that another model does not resume the folder.
        overlays: also write the masks drawn over the images.
        probabilities: also write (K, *S) float16 as `.npz` with key `probabilities`.
        overwrite: replace an earlier result in `out`. Files in `out` are never sources.
        progress: called with (done, total, name) after each file.

    Raises:
        UsageError: a source without images.
        OutputExistsError: `out` holds other files, a finished result, or an unfinished one of another call.
        ResourceError: the disk is full.
        Interrupted: stopped by Ctrl-C; the same call resumes.
    """
    inside = out.resolve()
    named = {name: path for name, path in find_sources(sources).items() if inside not in path.resolve().parents}
    if not named:
        raise UsageError(out, expected="images outside of --out", found="none", do="Choose another --out.")
    outputs = Outputs(overlays, probabilities)
    request = _request(predictor, model, named, outputs)
    done = _resumed(out, request, overwrite)
    if done is None:
        require_claimable(out, overwrite, RESULTS, SUMMARY)
    begun = None if done is None else _lines(out / JOURNAL)[:1]
    predictor, engine = _opened(predictor, named, begun[0].get("engine") if begun else None, progress)
    if done is None:
        # Claimed only now, so that a model that cannot be opened does not remove an earlier result.
        claim_folder(out, overwrite, RESULTS, SUMMARY)
        # Written first, so that an unfinished folder is recognised as one of ours.
        write_json(out / SUMMARY, Predicted(out, (), ()).to_dict())
        done = {}
    with closing(_Journal(out / JOURNAL, request | {"engine": engine})) as journal:
        try:
            result = _Run(predictor, named, out, outputs, journal, progress).all(done)
        except KeyboardInterrupt:
            found = f"{len(journal.written)} of {len(named)} files are finished"
            raise Interrupted(out, found=found) from None
    result = replace(result, engine=engine)
    write_json(out / SUMMARY, {"labels": predictor.spec.labels.to_dict(), **result.to_dict()})
    (out / JOURNAL).unlink()
    return result


def _opened(
    predictor: Predictor | Model, named: Mapping[str, Path], begun: Mapping[str, Any] | None, progress: Progress | None
) -> tuple[Predictor, dict[str, Any] | None]:
    """Return the predictor, and what is recorded about its engine; None for a predictor that was given.

    Args:
        predictor: a predictor, or the model to open.
        named: the files.
        begun: the engine that an unfinished folder recorded, which is kept if it is available.
        progress: see `predict_files`.
    """
    if isinstance(predictor, Predictor):
        return predictor, None
    model = predictor.with_engine(begun)
    if model is None:

        def announce() -> None:
            if progress is not None:
                progress(0, len(named), "choosing the engine")

        model = predictor.for_images(_examples(named.values(), predictor.spec.nodata), len(named), announce)
    facts = {} if model.engine is None else model.engine.facts()
    if begun and [begun.get(key) for key in ("name", "precision")] != [facts["name"], facts["precision"]]:
        before = f"{begun.get('name')} {begun.get('precision')}, with which the folder was begun, is not available"
        facts["why"] = f"{before}; {facts['why']}"
    return model.predictor, facts


def _examples(paths: Iterable[Path], nodata: float | None) -> Iterator[Example]:
    """Open the files that can be opened."""
    for path in paths:
        with suppress(DataError):
            source = open_source(path, nodata=nodata)
            yield Example(source.shape, source.read)


def _request(predictor: Predictor | Model, model: str, named: Mapping[str, Path], outputs: Outputs) -> dict[str, Any]:
    """Return what must be equal for a folder to be resumed; the sources may have been moved."""
    spec = predictor.spec
    requested = predictor.engines if isinstance(predictor, Model) else None
    return {
        "model": model,
        "tile": None if spec.tile is None else list(spec.tile),
        "overlap": spec.overlap,
        "flips": [list(axes) for axes in mirrored_axes(spec.mirrors if spec.flips else (), spec.dimensions)],
        "overlays": outputs.overlays,
        "probabilities": outputs.probabilities,
        "backend": None if requested is None or requested.backend == AUTO else requested.backend,
        "precision": None if requested is None else requested.precision,
        "sources": list(named),
    }


def _resumed(out: Path, request: Mapping[str, Any], overwrite: bool) -> dict[str, dict[str, Any]] | None:
    """Return the finished entries by name if `out` holds an unfinished result of the same request, else None.

    Raises:
        OutputExistsError: it holds an unfinished result of another request, and `overwrite` is false.
    """
    path = out / JOURNAL
    if not path.is_file():
        return None
    lines = _lines(path)
    if not lines:
        return {}
    different = next((key for key in request if request[key] != lines[0].get(key)), None)
    if different is not None and overwrite:
        return None
    if different is not None:
        raise OutputExistsError(
            out,
            expected=f"an unfinished prediction with the same {different}",
            found="one with another",
            do="Repeat its command to resume it, choose another --out, or add --overwrite to replace it.",
        )
    return {line["name"]: line for line in lines[1:]}


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a journal up to the first one that was cut off."""
    lines = []
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


class _Journal:
    """The finished files of an unfinished folder, one JSON line each, behind a line with the request."""

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        kept = _lines(path) if path.is_file() else []
        self.written = [line["name"] for line in kept[1:]]
        write_atomic(path, "".join(_line(line) for line in kept or [dict(request)]).encode())
        self.file = path.open("a", encoding="ascii")
        self.lock = threading.Lock()

    def add(self, name: str, state: State, entry: Mapping[str, Any]) -> None:
        """Record a file whose outputs are on disk, and wait until the record is. Several threads may do so at once."""
        line = _line({"name": name, "state": state, "entry": entry})
        with self.lock:
            self.file.write(line)
            self.file.flush()
        os.fsync(self.file.fileno())  # outside of the lock: the disk stores several records in the time of one
        self.written.append(name)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _line(plain: Mapping[str, Any]) -> str:
    return json.dumps(dict(plain)) + "\n"


class _Run:
    """One call of `predict_files`: a thread decodes ahead of the computation, others write what was computed."""

    def __init__(
        self,
        predictor: Predictor,
        named: Mapping[str, Path],
        out: Path,
        outputs: Outputs,
        journal: _Journal,
        progress: Progress | None,
    ) -> None:
        self.predictor, self.named, self.out, self.outputs = predictor, named, out, outputs
        self.journal, self.progress = journal, progress
        self.entries: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, dict[str, str]] = {}
        self.writes: deque[tuple[str, int, Future[dict[str, Any]]]] = deque()  # name, bytes in memory, entry

    def all(self, done: Mapping[str, dict[str, Any]]) -> Predicted:
        """Predict the files that are not done, and return what is known of all in the order of `named`."""
        todo = [name for name, path in self.named.items() if not self._kept(name, path, done.get(name))]
        with ThreadPoolExecutor(1, "decode") as reader, ThreadPoolExecutor(_WRITERS, "write") as writer:
            try:
                reads = deque(reader.submit(self._read, name) for name in todo[:_AHEAD])
                following = iter(todo[_AHEAD:])
                for name in todo:
                    reads.extend(reader.submit(self._read, other) for other in islice(following, 1))
                    self._predict(name, reads.popleft(), writer)
                    while self._must_wait() or (self.writes and self.writes[0][-1].done()):
                        self._settle()
                while self.writes:
                    self._settle()
            except BaseException:
                reader.shutdown(wait=False, cancel_futures=True)  # what was computed is still written
                raise
        images = tuple(self.entries[name] for name in self.named if name in self.entries)
        return Predicted(self.out, images, tuple(self.failed[name] for name in self.named if name in self.failed))

    def _kept(self, name: str, path: Path, before: Mapping[str, Any] | None) -> bool:
        """Keep a file that an earlier call finished, unless it or its outputs have changed since."""
        if before is None or not _complete(self.out, before["entry"]) or not _unchanged(path, before["state"]):
            return False
        self.entries[name] = {**before["entry"], "file": str(path)}
        self._report(name)
        return True

    def _read(self, name: str) -> tuple[State, Loaded]:
        """Decode one file, in the thread of the reader; its state is from before, in case it changes meanwhile."""
        path = self.named[name]
        return _state(path), _read(path, self.predictor.spec)

    def _predict(self, name: str, read: Future[tuple[State, Loaded]], writer: ThreadPoolExecutor) -> None:
        """Predict one file and hand it to the writers."""
        try:
            with convert_memory_errors(self.named[name], _ALONE):
                state, loaded = read.result()
                prediction = _predict_source(self.predictor, loaded, self.outputs.probabilities)
        except (DataError, OutOfMemoryError) as error:
            self._fail(name, error)
            return
        arrays = (loaded.image, prediction.mask, prediction.probabilities)
        size = sum(array.nbytes for array in arrays if array is not None)
        self.writes.append((name, size, writer.submit(self._write, name, state, loaded, prediction)))

    def _write(self, name: str, state: State, loaded: Loaded, prediction: Prediction) -> dict[str, Any]:
        """Write the outputs of one file and record it, in the thread of a writer; return its entry."""
        with convert_memory_errors(self.named[name], _ALONE):
            entry = _write(name, loaded, prediction, self.out, self.outputs)
        self.journal.add(name, state, entry)
        return entry

    def _must_wait(self) -> bool:
        """Whether too many results wait to be written; of large images, one is written while the next is computed."""
        held = sum(size for _, size, _ in self.writes)
        return len(self.writes) > (_BEHIND if held <= _BEHIND_BYTES else 1)

    def _settle(self) -> None:
        """Report the oldest file in writing once it is recorded."""
        name, _, write = self.writes[0]
        error = write.exception()  # waits; an interrupt leaves the file in the queue
        self.writes.popleft()
        if isinstance(error, DataError | OutOfMemoryError):
            self._fail(name, error)
            return
        self.entries[name] = write.result()
        self._report(name)

    def _fail(self, name: str, error: Exception) -> None:
        self.failed[name] = {"file": str(self.named[name]), "error": str(error)}
        self._report(name)

    def _report(self, name: str) -> None:
        if self.progress is not None:
            self.progress(len(self.entries) + len(self.failed), len(self.named), str(self.named[name]))


def _read(path: Path, spec: ModelSpec) -> Loaded:
    source = open_source(path, across=spec.across, nodata=spec.nodata)
    return Loaded(source, *source.read())


def predict_file(model: Model, path: Path, *, probabilities: bool = False) -> tuple[NDArray[Any], Prediction]:
    """Read an image or a volume and predict it.

    Args:
        model: the model.
        path: of the file.
        probabilities: return them too, (K, *S) float32.

    Returns:
        The image (C, *S), and the prediction.

    Raises:
        ImageError: the file cannot be read.
        DataError: not an image of the kind that the model was trained on.
    """
    loaded = _read(path, model.spec)
    predictor = model.for_shape(loaded.image.shape[1:]).predictor
    return loaded.image, _predict_source(predictor, loaded, probabilities)


def _predict_source(predictor: Predictor, loaded: Loaded, probabilities: bool) -> Prediction:
    """Predict an image, or a volume slice by slice if the model has two dimensions."""
    source, image, valid = loaded.source, loaded.image, loaded.valid
    where = str(source.path)
    if image.ndim != 4 or predictor.spec.dimensions == 3:
        return predictor(image, source.grid, valid, id=where, probabilities=probabilities)
    slices = [
        predictor(
            image[:, index],
            valid=None if valid is None else valid[index],
            id=f"{where}, slice {index}",
            probabilities=probabilities,
        )
        for index in range(image.shape[1])
    ]
    stacked = [one.probabilities for one in slices if one.probabilities is not None]
    return Prediction(
        np.stack([one.mask for one in slices]),
        predictor.spec.labels,
        source.grid,
        where,
        np.stack(stacked, axis=1) if stacked else None,
        valid,
    )


def _write(name: str, loaded: Loaded, prediction: Prediction, out: Path, outputs: Outputs) -> dict[str, Any]:
    """Write the outputs of one file; return its entry in `predictions.json`."""
    source = loaded.source
    sizes = dict(zip(("width", "height", "depth"), reversed(prediction.mask.shape), strict=False))
    entry: dict[str, Any] = {"file": str(source.path)}
    entry |= {key: sizes[key] for key in ("depth", "height", "width") if key in sizes}
    written = write_prediction(prediction, out / "masks" / f"{name}.png", like=source)
    entry["mask"] = written.relative_to(out).as_posix()
    if outputs.overlays:
        entry["overlay"] = f"overlays/{name}.png"
        write_png(out / entry["overlay"], _overlay(loaded.image, prediction))
    if outputs.probabilities and prediction.probabilities is not None:
        entry["probabilities"] = f"probabilities/{name}.npz"
        with atomic_path(out / entry["probabilities"]) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, probabilities=prediction.probabilities.astype(np.float16))
    return entry | {"shares": {key: round(share, 6) for key, share in prediction.shares().items()}}


def _overlay(image: NDArray[Any], prediction: Prediction) -> NDArray[np.uint8]:
    """Draw the mask over the image; of a volume, over the slice with the fewest pixels of the most frequent class."""
    mask, valid, labels = prediction.mask, prediction.valid, prediction.labels
    if mask.ndim == 3:
        counts = np.stack([np.bincount(one.ravel(), minlength=labels.ignore_index + 1) for one in mask])
        index = int(counts[:, counts.sum(0).argmax()].argmin())
        image, mask = image[:, index], mask[index]
        valid = None if valid is None else valid[index]
    return overlay(fill_invalid(image, valid), mask, labels)


def _state(path: Path) -> State:
    """Return what tells a changed file from the one that was predicted: size, time of modification, SHA-256."""
    try:
        status = path.stat()
        return [status.st_size, status.st_mtime_ns, file_hash(path)]
    except OSError:
        return []


def _unchanged(path: Path, state: State) -> bool:
    """Whether a file is the one that was predicted; a copy has another time of modification and the same contents."""
    try:
        status = path.stat()
        return state[:2] == [status.st_size, status.st_mtime_ns] or (
            state[:1] == [status.st_size] and state[2:] == [file_hash(path)]
        )
    except OSError:
        return False


def _complete(out: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the files of an entry are still there."""
    written = [entry[key] for key in ("mask", "overlay", "probabilities") if key in entry]
    return all((out / name).is_file() for name in written)


def predict_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `ModelSpec` that `predict.a=b` texts set.

    Raises:
        UsageError: a key of another section.
        ConfigError: an unknown key or an invalid value.
    """
    require_sections(overrides, "predict")
    config = with_overrides(Config(), overrides).predict
    keys = {text.partition("=")[0].strip().removeprefix("predict.") for text in overrides}
    return {key: getattr(config, key) for key in keys}
