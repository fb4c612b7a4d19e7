"""Predict many files: decoding, computing and writing overlap.

While the backend computes, other threads decode the next files, and draw, compress and write what was computed. Writers mostly
wait until the disk has stored a file, so there are several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pixelwise.api.predicting.journal import Journal, State, complete, state_of, unchanged
from pixelwise.api.predicting.outputs import Loaded, Outputs, predict_source, write_outputs
from pixelwise.api.predicting.scenes import is_scene, predict_scene
from pixelwise.api.predicting.spacing import resampled, spacing_notice
from pixelwise.errors import DataError, OutOfMemoryError, convert_memory_errors
from pixelwise.imageio.sources import Source, open_source
from pixelwise.inference.predictor import Predictor
from pixelwise.types import Prediction

# Files that are decoded ahead of the computation; and results in writing, by number and by bytes.
_AHEAD = 2
_BEHIND = 8
_BEHIND_BYTES = 1 << 28
_WRITERS = 4
_ALONE = "Predict it on a machine with more memory, or leave it out."

Progress = Callable[[int, int, str], None]


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


class Run:
    """One call of `predict_files`: a thread decodes ahead of the computation, others write what was computed."""

    def __init__(
        self,
        predictor: Predictor,
        named: Mapping[str, Path],
        out: Path,
        outputs: Outputs,
        journal: Journal,
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
        if before is None or not complete(self.out, before["entry"]) or not unchanged(path, before["state"]):
            return False
        self.entries[name] = {**before["entry"], "file": str(path)}
        self._report(name)
        return True

    def _read(self, name: str) -> tuple[State, Loaded | Source]:
        """Decode one file unless it is a scene, in the thread of the reader.

        Its state is from before, in case it changes meanwhile.
        """
        path = self.named[name]
        state = state_of(path)
        source = open_source(path, nodata=self.predictor.spec.nodata)
        if is_scene(source):
            return state, source
        return state, Loaded(
            source, *source.read(), resampled(source, self.predictor.spec) if self.outputs.resample else None
        )

    def _predict(self, name: str, read: Future[tuple[State, Loaded | Source]], writer: ThreadPoolExecutor) -> None:
        """Predict one file and hand it to the writers; or predict a scene, and write it on the way."""
        try:
            with convert_memory_errors(self.named[name], _ALONE):
                state, loaded = read.result()
                if not isinstance(loaded, Loaded):
                    self._predict_scene(name, loaded, state)
                    return
                prediction = predict_source(self.predictor, loaded, self.outputs.computed)
        except (DataError, OutOfMemoryError) as error:
            self._fail(name, error)
            return
        arrays = (loaded.image, prediction.mask, prediction.probabilities)
        size = sum(array.nbytes for array in arrays if array is not None)
        self.writes.append((name, size, writer.submit(self._write, name, state, loaded, prediction)))

    def _predict_scene(self, name: str, source: Source, state: State) -> None:
        def say(text: str) -> None:
            self._progress(f"{source.path}: {text}")

        entry = predict_scene(self.predictor, source, name, self.out, self.outputs, self.journal, state, say)
        entry |= self._notices(source)
        self.journal.add(name, state, entry)
        self.entries[name] = entry
        self._report(name)

    def _write(self, name: str, state: State, loaded: Loaded, prediction: Prediction) -> dict[str, Any]:
        """Write the outputs of one file and record it, in the thread of a writer; return its entry."""
        with convert_memory_errors(self.named[name], _ALONE):
            entry = write_outputs(name, loaded, prediction, self.out, self.outputs) | self._notices(loaded.source)
        self.journal.add(name, state, entry)
        return entry

    def _notices(self, source: Source) -> dict[str, Any]:
        text = spacing_notice(source, self.predictor.spec, self.outputs.resample)
        return {"notices": [text]} if text else {}

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
        self._progress(str(self.named[name]))

    def _progress(self, text: str) -> None:
        if self.progress is not None:
            self.progress(len(self.entries) + len(self.failed), len(self.named), text)
