"""Predict many files: decoding, computing and writing overlap.

While the backend computes, in as many threads as it can serve at the same time, other threads decode the next files, and draw,
compress and write what was computed. Writers mostly wait until the disk has stored a file, so there are several.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pixelwise.api.predicting.bands import bands_notice, require_bands
from pixelwise.api.predicting.journal import Journal, State, complete, state_of, unchanged
from pixelwise.api.predicting.outputs import Loaded, Outputs, predict_source, write_outputs
from pixelwise.api.predicting.scenes import is_scene, predict_scene
from pixelwise.api.predicting.sources import Item
from pixelwise.api.predicting.spacing import resampled, spacing_notice
from pixelwise.api.predicting.video import predict_video, remove_parts
from pixelwise.errors import DataError, OutOfMemoryError, convert_memory_errors
from pixelwise.imageio.sources import Source
from pixelwise.inference.predictor import Predictor
from pixelwise.types import Prediction

# Files that are decoded ahead of the computation; and results in writing, by number and by bytes.
_AHEAD = 2
_BEHIND = 8
_BEHIND_BYTES = 1 << 28
_WRITERS = 4
# Files for which it pays to prepare the backend for several calls at the same time.
_MANY = 8
_ALONE = "Predict it on a machine with more memory, or leave it out."

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Predicted:
    """What was written to `folder`.

    Args:
        folder: the folder.
        images: one entry per predicted file.
        failed: one message per failed file.
        engine: the engine, if known.
        notices: what was left out in folders, such as localizers beside a DICOM series.
        model: folder or file of the model, and the SHA-256 of its weights; empty if unknown.
    """

    folder: Path
    images: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, str], ...]
    engine: Mapping[str, Any] | None = None
    notices: tuple[str, ...] = ()
    model: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of `predictions.json`."""
        plain: dict[str, Any] = {"folder": str(self.folder), "images": list(self.images), "failed": list(self.failed)}
        plain |= {"notices": list(self.notices)} if self.notices else {}
        plain |= dict(self.model)
        return plain if self.engine is None else {"engine": dict(self.engine), **plain}


@dataclass(frozen=True)
class _Task:
    """A file that is predicted and then written: the bytes that it holds in memory, and the future of the future of its entry."""

    name: str
    size: int
    computed: Future[Future[dict[str, Any]]]

    def done(self) -> bool:
        """Whether it failed or is written."""
        return self.computed.done() and (self.computed.exception() is not None or self.computed.result().done())

    def error(self) -> BaseException | None:
        """Wait for it and return its error."""
        return self.computed.exception() or self.computed.result().exception()


class Run:
    """One call of `predict_files`: a thread decodes ahead of the computation, others write what was computed."""

    def __init__(
        self,
        predictor: Predictor,
        named: Mapping[str, Item],
        out: Path,
        outputs: Outputs,
        journal: Journal,
        progress: Progress | None,
        model: str = "",
    ) -> None:
        self.model = model
        self.predictor, self.named, self.out, self.outputs = predictor, named, out, outputs
        self.journal, self.progress = journal, progress
        self.entries: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, dict[str, str]] = {}
        self.tasks: deque[_Task] = deque()

    def all(self, done: Mapping[str, dict[str, Any]]) -> Predicted:
        """Predict the files that are not done, and return what is known of all in the order of `named`."""
        for name, item in self.named.items():
            if item.error:
                self._fail(name, item.error)
        todo = [name for name, item in self.named.items() if not (item.error or self._kept(name, item, done.get(name)))]
        if len(todo) >= _MANY:
            self.predictor = self.predictor.concurrent()
        with (
            ThreadPoolExecutor(1, "decode") as reader,
            ThreadPoolExecutor(self.predictor.calls, "compute") as computer,
            ThreadPoolExecutor(_WRITERS, "write") as writer,
        ):
            try:
                ahead = _AHEAD + self.predictor.calls - 1
                reads = deque(reader.submit(self._read, name) for name in todo[:ahead])
                following = iter(todo[ahead:])
                for name in todo:
                    reads.extend(reader.submit(self._read, other) for other in islice(following, 1))
                    self._predict(name, reads.popleft(), computer, writer)
                    while self._must_wait() or (self.tasks and self.tasks[0].done()):
                        self._settle()
                while self.tasks:
                    self._settle()
            except BaseException:
                reader.shutdown(wait=False, cancel_futures=True)  # what was computed is still written
                computer.shutdown(wait=True, cancel_futures=True)
                raise
        images = tuple(self.entries[name] for name in self.named if name in self.entries)
        return Predicted(self.out, images, tuple(self.failed[name] for name in self.named if name in self.failed))

    def _kept(self, name: str, item: Item, before: Mapping[str, Any] | None) -> bool:
        """Keep a file that an earlier call finished, unless it or its outputs have changed since."""
        if before is None or not complete(self.out, before["entry"]) or not unchanged(item.files, before["state"]):
            return False
        self._keep(name, {**before["entry"], "file": str(item.path)})
        return True

    def _keep(self, name: str, entry: dict[str, Any]) -> None:
        """Report a finished file; a damaged video has an entry, and is a failure."""
        self.entries[name] = entry
        if "error" in entry:
            self.failed[name] = {"file": entry["file"], "error": entry["error"]}
        self._report(name)

    def _read(self, name: str) -> tuple[State, Loaded | Source | None]:
        """Open one file, and decode it unless it is a scene or a video (None), in the thread of the reader.

        Its state is from before, in case it changes meanwhile.
        """
        item = self.named[name]
        state = state_of(item.files)
        if item.is_video:
            return state, None
        source = item.open(self.predictor.spec)
        require_bands(source, self.predictor.spec)
        if is_scene(source, self.predictor.spec):
            return state, source
        other = resampled(source, self.predictor.spec) if self.outputs.resample else None
        return state, Loaded(source, *source.read(), other)

    def _predict(
        self,
        name: str,
        read: Future[tuple[State, Loaded | Source | None]],
        computer: ThreadPoolExecutor,
        writer: ThreadPoolExecutor,
    ) -> None:
        """Hand one file to the threads that compute; or predict a scene or a video, and write it on the way."""
        try:
            with convert_memory_errors(self.named[name].path, _ALONE):
                state, loaded = read.result()
                if not isinstance(loaded, Loaded):
                    entry = self._predict_video(name) if loaded is None else self._predict_scene(name, loaded, state)
                    self.journal.add(name, state, entry)
                    remove_parts(self.out, name)
                    self._keep(name, entry)
                    return
        except (DataError, OutOfMemoryError) as error:
            self._fail(name, error)
            return
        computed = computer.submit(self._compute, name, state, loaded, writer)
        self.tasks.append(_Task(name, self._bytes(loaded), computed))

    def _compute(self, name: str, state: State, loaded: Loaded, writer: ThreadPoolExecutor) -> Future[dict[str, Any]]:
        """Predict one file and hand it to the writers, in a thread that computes."""
        with convert_memory_errors(self.named[name].path, _ALONE):
            prediction = predict_source(self.predictor, loaded, self.outputs.computed)
        return writer.submit(self._write, name, state, loaded, prediction)

    def _bytes(self, loaded: Loaded) -> int:
        """Return the bytes that an image and its prediction hold in memory."""
        pixels, labels = loaded.image[0].size, self.predictor.labels
        probabilities = 4 * labels.num_classes if self.outputs.computed else 0
        return loaded.image.nbytes + pixels * (labels.dtype.itemsize + probabilities)

    def _predict_scene(self, name: str, source: Source, state: State) -> dict[str, Any]:
        def say(text: str) -> None:
            self._progress(f"{source.path}: {text}")

        entry = predict_scene(
            self.predictor.concurrent(), source, name, self.out, self.outputs, self.journal, state, say
        )
        return self._noticed(entry, source)

    def _predict_video(self, name: str) -> dict[str, Any]:
        path, began = self.named[name].path, time.monotonic()

        def progress(done: int, expected: int | None) -> None:
            rate = done / max(time.monotonic() - began, 1e-9)
            self._progress(f"{path}: frame {done} of {expected or 'an unknown number'}, {rate:.1f} per second")

        return predict_video(
            self.predictor,
            path,
            self.out,
            name,
            self.outputs.video,
            overlays=self.outputs.overlays,
            model=self.model,
            progress=progress,
        )

    def _write(self, name: str, state: State, loaded: Loaded, prediction: Prediction) -> dict[str, Any]:
        """Write the outputs of one file and record it, in the thread of a writer; return its entry."""
        with convert_memory_errors(self.named[name].path, _ALONE):
            entry = write_outputs(name, loaded, prediction, self.out, self.outputs)
            entry = self._noticed(entry, loaded.source)
        self.journal.add(name, state, entry)
        return entry

    def _noticed(self, entry: dict[str, Any], source: Source) -> dict[str, Any]:
        spec = self.predictor.spec
        texts = [
            text for text in (spacing_notice(source, spec, self.outputs.resample), bands_notice(source, spec)) if text
        ]
        return entry | {"notices": [*entry.get("notices", ()), *texts]} if texts else entry

    def _must_wait(self) -> bool:
        """Whether too many files are computed or wait to be written; of large images, one is written while the next is computed."""
        held = sum(task.size for task in self.tasks)
        return len(self.tasks) > (_BEHIND + self.predictor.calls if held <= _BEHIND_BYTES else 1)

    def _settle(self) -> None:
        """Report the oldest file once it is recorded."""
        task = self.tasks[0]
        error = task.error()  # waits; an interrupt leaves the file in the queue
        self.tasks.popleft()
        if isinstance(error, DataError | OutOfMemoryError):
            self._fail(task.name, error)
            return
        self._keep(task.name, task.computed.result().result())

    def _fail(self, name: str, error: Exception | str) -> None:
        self.failed[name] = {"file": str(self.named[name].path), "error": str(error)}
        self._report(name)

    def _report(self, name: str) -> None:
        self._progress(str(self.named[name].path))

    def _progress(self, text: str) -> None:
        if self.progress is not None:
            self.progress(len(self.entries.keys() | self.failed.keys()), len(self.named), text)
