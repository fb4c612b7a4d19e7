"""Predict large raster images block by block, in memory that does not grow with the file.

Every block is on disk before it is recorded, so that a stopped call continues with the next one. Each output is written to a
work file beside its place, and copied to a cloud-optimised GeoTIFF at the end.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.predicting.class_totals import ClassTotals
from pixelwise.api.predicting.journal import Journal, State
from pixelwise.api.predicting.outputs import Outputs, about
from pixelwise.api.predicting.polygons import scene_polygons, with_polygons
from pixelwise.api.predicting.spacing import resampled
from pixelwise.imageio.images import fill_invalid, read_mask_values
from pixelwise.imageio.resampling import ResampledSource
from pixelwise.imageio.scene_writing import (
    CONFIDENCE,
    SceneContent,
    SceneWriter,
    class_content,
    class_ids,
    probability_content,
    require_disk,
)
from pixelwise.imageio.sources import Readable, Source
from pixelwise.imageio.windows import LARGE
from pixelwise.inference.blending import Block
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.reporting.overlay import overlay, write_png
from pixelwise.tiles import Window
from pixelwise.types import ModelSpec

_FORMATS = ("TIFF", "GeoTIFF", "JPEG 2000")
# The longer side of the overlay, in pixels.
_PREVIEW = 2048

Said = Callable[[str], None]


def is_scene(source: Source, spec: ModelSpec) -> bool:
    """Whether an image is predicted block by block: a large one, read by windows, whose preparation does not need all of it."""
    large = len(source.shape) == 2 and math.prod(source.shape) > LARGE and spec.intensity == "data"
    return large and source.format in _FORMATS and importlib.util.find_spec("rasterio") is not None


def predict_scene(
    predictor: Predictor,
    source: Source,
    name: str,
    out: Path,
    outputs: Outputs,
    journal: Journal,
    state: State,
    say: Said,
) -> dict[str, Any]:
    """Predict a scene, or the rest of one, and return its entry in `predictions.json`.

    Args:
        predictor: the model.
        source: the image.
        name: of the outputs.
        out: folder.
        outputs: what is written.
        journal: gets a line for each block, and has those of an earlier call.
        state: of the image, which must not have changed since.
        say: called with the progress after each block.

    Raises:
        DataError: the image cannot be read, or is not one of the kind that the model was trained on.
        ResourceError: the disk is too small.
    """
    return _Scene(predictor, source, name, out, outputs).run(journal, state, say)


class _Scene:
    """One scene, its outputs, and what is counted on the way."""

    def __init__(self, predictor: Predictor, source: Source, name: str, out: Path, outputs: Outputs) -> None:
        self.predictor, self.source, self.name, self.out, self.outputs = predictor, source, name, out, outputs
        self.labels: Labels = predictor.labels
        self.preview = _Preview(source) if outputs.overlays else None
        read: Readable = source if self.preview is None else self.preview
        self.resampled = resampled(source, predictor.spec) if outputs.resample else None
        self.grid: Readable = read if self.resampled is None else replace(self.resampled, source=read)
        self.totals = ClassTotals(self.labels, source)
        self.contents: dict[str, SceneContent] = {"mask": class_content(self.labels)}
        if outputs.confidence:
            self.contents["confidence"] = CONFIDENCE
        if outputs.probabilities:
            self.contents["probabilities"] = probability_content(self.labels)
        folders = {"mask": "masks", "confidence": "confidence", "probabilities": "probabilities"}
        self.files = {key: f"{folders[key]}/{name}.tif" for key in self.contents}

    def run(self, journal: Journal, state: State, say: Said) -> dict[str, Any]:
        """Predict all blocks that are not done, and write the results."""
        wanted = self.outputs.computed
        blocks = self.predictor.blocks(self.grid.shape, probabilities=wanted)
        with ExitStack() as stack:
            done, writers = self._begin(journal.block(self.name, state))
            for writer in writers.values():
                stack.enter_context(writer)
            progress = _Rows(self.grid, blocks, done, say)
            for block in self.predictor.stream(self.grid, str(self.source.path), probabilities=wanted, done=done):
                self._write(writers, block if self.resampled is None else _restored(block, self.resampled))
                done += 1
                journal.add_block(self.name, state, {"blocks": done, **self.totals.state()})
                progress.advance(block.window)
            say("writing the result")
            for writer in writers.values():
                writer.finish()
        path, formats = self.out / self.files["mask"], self.outputs.polygons
        if formats:
            say("writing polygons")
        more = scene_polygons(self.name, self.source, path, self.labels, self.out, formats, self.outputs.simplify)
        return with_polygons(self._entry(blocks), more)

    def _begin(self, before: Mapping[str, Any] | None) -> tuple[int, dict[str, SceneWriter]]:
        """Return the number of finished blocks, and the writers: of the work files of an earlier call if all are there."""
        paths = {key: self.out / file for key, file in self.files.items()}
        if before is not None and "sizes" in before:
            found = {key: SceneWriter.reopen(paths[key], self.source, self.contents[key]) for key in paths}
            writers = {key: writer for key, writer in found.items() if writer is not None}
            if len(writers) == len(paths):
                self.totals.restore(before)
                return int(before["blocks"]), writers
            for writer in writers.values():
                writer.close()
        require_disk(paths["mask"], self.source.shape, list(self.contents.values()))
        return 0, {key: SceneWriter(paths[key], self.source, self.contents[key]) for key in paths}

    def _write(self, writers: Mapping[str, SceneWriter], block: Block) -> None:
        """Write a block to all outputs, and wait until it is on disk."""
        ids, _ = class_ids(self.labels)
        writers["mask"].write(block.window, ids[block.mask])
        if block.probabilities is not None:
            for key, values in (("confidence", block.probabilities.max(0)), ("probabilities", block.probabilities)):
                if key in writers:
                    writers[key].write(block.window, self.contents[key].encode(values, block.valid))
        for writer in writers.values():
            writer.commit()
        self.totals.add(block.window, block.mask)

    def _entry(self, blocks: list[Window]) -> dict[str, Any]:
        entry = about(self.source) | self.files
        if self.preview is not None:
            entry["overlay"] = f"overlays/{self.name}.png"
            write_png(
                self.out / entry["overlay"], self.preview.drawn(self.out / self.files["mask"], self.labels, blocks)
            )
        return entry | self.totals.entry()


def _restored(block: Block, source: ResampledSource) -> Block:
    """Return a block on the grid of the file that was resampled for it."""
    arrays: dict[str, Any] = {
        name: None if values is None else source.restore(values, block.window)
        for name, values in (("mask", block.mask), ("valid", block.valid), ("probabilities", block.probabilities))
    }
    return replace(block, window=source.source_window(block.window), **arrays)


class _Preview:
    """A source that keeps every n-th pixel of what is read, for a small image of the scene.

    Args:
        source: the scene.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.shape, self.dtype = source, source.shape, source.dtype
        self.step = max(1, math.ceil(max(source.shape) / _PREVIEW))
        size = tuple(len(range(0, side, self.step)) for side in source.shape)
        self.image = np.zeros((source.channels, *size), source.dtype)
        self.valid = np.zeros(size, bool)
        self.seen = np.zeros(size, bool)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window, and keep some of its pixels."""
        image, valid = self.source.read(window)
        place, taken = self._places(window)
        self.image[:, *place] = image[:, *taken]
        self.valid[place] = True if valid is None else valid[taken]
        self.seen[place] = True
        return image, valid

    def _places(self, window: Window) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return where the kept pixels of a window are in the small image, and in the window."""
        firsts = [-(-start // self.step) for start in window.start]
        ends = [-(-stop // self.step) for stop in window.stop]
        taken = tuple(
            slice(first * self.step - start, None, self.step) for first, start in zip(firsts, window.start, strict=True)
        )
        return tuple(slice(first, end) for first, end in zip(firsts, ends, strict=True)), taken

    def drawn(self, mask_file: Path, labels: Labels, blocks: list[Window]) -> NDArray[np.uint8]:
        """Return the mask over the small image, (H, W, 3); what an earlier call read is read again."""
        ids, _ = class_ids(labels)
        table = np.full(int(ids.max()) + 1, labels.ignore_index, labels.dtype)
        table[ids[: labels.num_classes]] = np.arange(labels.num_classes)
        mask = np.zeros(self.seen.shape, labels.dtype)
        for block in blocks:
            place, taken = self._places(block)
            if not self.seen[place].all():
                self.read(block)
            mask[place] = table[read_mask_values(mask_file, window=block).values[taken]]
        return overlay(fill_invalid(self.image, None if self.valid.all() else self.valid), mask, labels)


class _Rows:
    """The progress of a scene: share, rate, and time left."""

    def __init__(self, source: Readable, blocks: list[Window], done: int, say: Said) -> None:
        self.total = math.prod(source.shape)
        self.before = self.done = sum(math.prod(block.shape) for block in blocks[:done])
        self.began, self.say = time.monotonic(), say

    def advance(self, window: Window) -> None:
        """Report another block."""
        self.done += math.prod(window.shape)
        seconds = time.monotonic() - self.began
        rate = (self.done - self.before) / max(seconds, 1e-9)
        left = (self.total - self.done) / rate
        self.say(f"{self.done / self.total:.0%}, {rate / 1e6:.1f} million pixels per second, {left / 60:.0f} min left")
