"""Predict the images that arrive in a folder, each once, also after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelwise.api.loading import Model
from pixelwise.api.predicting.journal import JOURNAL, Journal, journal_lines, resumed, unchanged
from pixelwise.api.predicting.outputs import Outputs
from pixelwise.api.predicting.requests import RESULTS, SUMMARY, model_facts, open_engine, request_for, write_summary
from pixelwise.api.predicting.run import Predicted, Progress, Run
from pixelwise.api.predicting.sources import Item, find_sources
from pixelwise.errors import DataError, Interrupted, UsageError
from pixelwise.inference.predictor import Predictor
from pixelwise.storage import claim_folder, require_claimable

# Of a folder whose number of images is not known, for the choice of the engine.
_MANY = 100_000

Status = tuple[tuple[int, int], ...]


def watch_folder(
    predictor: Predictor | Model,
    folder: Path,
    out: Path,
    *,
    model: str = "",
    outputs: Outputs = Outputs(),
    overwrite: bool = False,
    progress: Progress | None = None,
    interval: float = 1.0,
    stop: Callable[[], bool] = lambda: False,
) -> Predicted:
    """Predict every image in a folder, and those that are added to it, until the call is stopped.

    An image is predicted once its size and time have not changed between two looks at the folder, so that files are not read
    while they are copied; one that is replaced later is predicted again. After each group of images `predictions.json` is written.

    Args:
        predictor: see `predict_files`.
        folder: searched with its subfolders.
        out: a new or empty folder, or that of an earlier call for the same folder, which is continued.
        model: see `predict_files`.
        outputs: what is written.
        overwrite: replace an earlier result in `out`.
        progress: see `predict_files`.
        interval: seconds between two looks.
        stop: asked after each look; true ends the call.

    Raises:
        UsageError: no such folder.
        OutputExistsError: `out` holds other files, or results of another call.
        Interrupted: stopped by Ctrl-C; the same call continues.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UsageError(folder, expected="a folder to watch", found=found, do="Check the path, or create the folder.")
    request = request_for(predictor, model, None, outputs) | {"watch": str(folder.resolve())}
    done = resumed(out, request, overwrite)
    if done is None:
        require_claimable(out, overwrite, RESULTS, SUMMARY)
        claim_folder(out, overwrite, RESULTS, SUMMARY)
        write_summary(Predicted(out, (), ()), predictor.spec.labels)
    watch = _Watch(predictor, folder, out, outputs, request, model, done or {}, progress)
    try:
        while True:
            watch.look()
            if stop():
                return watch.result()
            time.sleep(interval)
    except KeyboardInterrupt:
        watch.write()
        raise Interrupted(out, found=f"{len(watch.entries)} files are predicted") from None


class _Watch:
    """The state of a watched folder: what was seen, predicted, and failed."""

    def __init__(
        self,
        predictor: Predictor | Model,
        folder: Path,
        out: Path,
        outputs: Outputs,
        request: Mapping[str, Any],
        model: str,
        done: Mapping[str, dict[str, Any]],
        progress: Progress | None,
    ) -> None:
        self.given, self.folder, self.out, self.outputs = predictor, folder, out, outputs
        self.request, self.model, self.progress = request, model, progress
        self.done = done  # lines of an earlier call
        self.opened: tuple[Predictor, dict[str, Any] | None] | None = None
        self.seen: dict[str, Status] = {}  # at the last look
        self.finished: dict[str, Status] = {}  # predicted or failed, by the status at that time
        self.entries: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, dict[str, str]] = {}

    def look(self) -> None:
        """Predict the files that have not changed since the last look and are not predicted yet."""
        inside = self.out.resolve()
        items: dict[str, Item] = {}
        with suppress(UsageError, DataError):  # an empty folder, or one that is being written
            items = find_sources([str(self.folder)], self.given.spec).items
        items = {name: item for name, item in items.items() if inside not in item.files[0].resolve().parents}
        status = {name: found for name, item in items.items() if (found := _status(item)) is not None}
        due = {
            name: item
            for name, item in items.items()
            if name in status and self.finished.get(name) != status[name] and not self._known(name, item, status[name])
        }
        ready = {name: item for name, item in due.items() if self.seen.get(name) == status[name]}
        self.seen = status
        if ready:
            self._predict(ready)
            self.finished |= {name: status[name] for name in ready}
            self.write()

    def _known(self, name: str, item: Item, status: Status) -> bool:
        """Whether an earlier call predicted the file as it is now."""
        line = self.done.get(name)
        if line is None or name in self.finished or not unchanged(item.files, line["state"]):
            return False
        self.finished[name] = status
        self.entries[name] = line["entry"]
        return True

    def _predict(self, ready: Mapping[str, Item]) -> None:
        if self.opened is None:
            begun = journal_lines(self.out / JOURNAL)[:1]
            engine = begun[0].get("engine") if begun else None
            self.opened = open_engine(self.given, ready, engine, self.progress, count=_MANY)
        predictor, facts = self.opened
        with closing(Journal(self.out / JOURNAL, dict(self.request) | {"engine": facts})) as journal:
            result = Run(predictor, ready, self.out, self.outputs, journal, self.progress, self.model).all({})
        names = {str(item.path): name for name, item in ready.items()}
        for entry in result.images:
            self.entries[names[entry["file"]]] = entry
            self.failed.pop(names[entry["file"]], None)
        self.failed |= {names[failure["file"]]: failure for failure in result.failed}

    def result(self) -> Predicted:
        """Return what has been predicted so far."""
        facts = None if self.opened is None else self.opened[1]
        images = tuple(self.entries[name] for name in sorted(self.entries))
        failed = tuple(self.failed.values())
        return replace(Predicted(self.out, images, failed), engine=facts, model=model_facts(self.given))

    def write(self) -> None:
        """Write `predictions.json`."""
        write_summary(self.result(), self.given.spec.labels)


def _status(item: Item) -> Status | None:
    """Return size and time of modification of the files; None if one was removed meanwhile."""
    try:
        found = [path.stat() for path in item.files]
    except OSError:
        return None
    return tuple((status.st_size, status.st_mtime_ns) for status in found)
