"""Predict a video: an overlay video, a line of shares per frame, and masks, in constant memory.

While the backend computes, one thread decodes the next frames, and another draws and encodes what was computed. A video is
predicted in segments of a fixed number of frames, which are joined at the end; a stopped run continues with the segment that is
not finished, and gives the same files as one that was not stopped.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.predicting.video_parts import Parts, join_text
from pixelwise.api.predicting.video_regions import Regions, read_regions, region_pixels
from pixelwise.api.scoring import require_sections
from pixelwise.config import Config, with_overrides
from pixelwise.errors import ConfigError, DataError, ImageError, convert_memory_errors
from pixelwise.grid import Grid
from pixelwise.imageio.video import Fault, Frame, Span, VideoHeader, read_frames, read_video_header
from pixelwise.imageio.video_writing import CODECS, MASKS8, MASKS16, Codec, VideoWriter, join_segments
from pixelwise.imageio.writing import write_prediction
from pixelwise.inference.engines import Example
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.temporal import Flicker, Smoothing
from pixelwise.reporting.overlay import overlay
from pixelwise.storage import write_atomic
from pixelwise.tiles import Window
from pixelwise.types import Prediction

# Keys of `predict` that are settings of videos, not fields of `ModelSpec`.
VIDEO_KEYS = frozenset({"every", "start", "stop", "smoothing", "video_codec", "video_masks", "regions"})
FILES = ("frames_file", "overlay", "masks")  # keys of an entry that name files or folders
SEGMENT = 100  # frames that are lost at most when a run is stopped
# Frames that are decoded ahead of the computation, and that wait to be encoded.
_AHEAD = 3
_BEHIND = 3
_ALONE = "Predict it on a machine with more memory, or scale the video down."

VideoProgress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class VideoSettings:
    """How a video is predicted.

    Args:
        every: predict each N-th frame.
        start, stop: seconds; frames with start ≤ time < stop are predicted. None for the whole video.
        smoothing: time constant of the exponential smoothing of probabilities, in seconds; None for none.
        codec: of the overlay, a key of `video_writing.CODECS`.
        masks: "png" or "ffv1" to write the masks, None for none.
        regions: polygons of the regions of interest, by name (see `video_regions`).
    """

    every: int = 1
    start: float | None = None
    stop: float | None = None
    smoothing: float | None = None
    codec: str = "vp9"
    masks: str | None = None
    regions: Regions = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)


def video_settings(overrides: Sequence[str]) -> VideoSettings:
    """Return the settings that `predict.a=b` texts set; keys that are not about videos have no effect.

    Raises:
        UsageError: a key of another section.
        ConfigError: an unknown key or an invalid value.
    """
    require_sections(overrides, "predict")
    config = with_overrides(Config(), overrides).predict
    if config.start is not None and config.stop is not None and config.stop <= config.start:
        found = f"start {config.start:g} and stop {config.stop:g}"
        raise ConfigError("predict.stop", expected="a time after predict.start", found=found, do="Correct the times.")
    return VideoSettings(
        config.every,
        config.start,
        config.stop,
        config.smoothing,
        config.video_codec,
        config.video_masks,
        read_regions(config.regions),
    )


def example_frame(path: Path) -> Example:
    """Return the first frame of a video as an example for the choice of an engine.

    Raises:
        ImageError: see `imageio.video.read_video_header`.
    """
    header = read_video_header(path)

    def read(window: Window) -> tuple[NDArray[Any], None]:
        with closing(read_frames(header)) as frames:
            return next(frames).image[:, *window.slices], None

    return Example(header.size, read)


def expected_frames(header: VideoHeader, settings: VideoSettings) -> int | None:
    """Return about how many frames will be predicted; None if the file states neither a duration nor a number of frames."""
    frames = header.frames
    if settings.start is not None or settings.stop is not None:
        stop = min(value for value in (settings.stop, header.seconds, math.inf) if value is not None)
        seconds = max(stop - (settings.start or 0.0), 0.0)
        frames = None if math.isinf(seconds) else round(seconds * header.rate)
    return None if frames is None else math.ceil(frames / settings.every)


def predict_video(
    predictor: Predictor,
    path: Path,
    out: Path,
    name: str,
    settings: VideoSettings = VideoSettings(),
    *,
    overlays: bool = True,
    model: str = "",
    progress: VideoProgress | None = None,
) -> dict[str, Any]:
    """Predict a video into the folder `out`: `overlays/NAME.webm`, `frames/NAME.jsonl`, and masks on request.

    Until `remove_parts` is called, the same call returns the same entry at once.

    Args:
        predictor: the way from image to Prediction.
        path: the video.
        out: the folder.
        name: of the outputs.
        settings: what is predicted, and how.
        overlays: also write the masks drawn over the frames.
        model: identifies the weights, so that another model does not continue the work of this one.
        progress: called with the number of frames that are finished and of those that are expected, if known.

    Returns:
        The entry in `predictions.json`. It has the key "error" if some frames could not be decoded.

    Raises:
        ImageError: the video cannot be read, or no frame of it.
        DataError: the frames are not of the kind that the model was trained on, or a region is outside of them.
        ResourceError: the disk is full.
        OutOfMemoryError: frames are too large for the memory.
    """
    header = read_video_header(path)
    pixels = region_pixels(settings.regions, header.size, path)
    codec = _mask_codec(predictor, path) if settings.masks == "ffv1" else None
    parts = Parts(_parts_folder(out, name), path, _request(predictor, settings, overlays, model))
    if parts.entry is not None and all((out / parts.entry[key]).exists() for key in FILES if key in parts.entry):
        return parts.entry | {"file": str(path)}
    run = _Run(
        predictor, header, out, name, settings, CODECS[settings.codec] if overlays else None, codec, pixels, parts
    )
    try:
        with convert_memory_errors(path, _ALONE):
            run.predict(progress)
        entry = run.join()
    except DataError:
        remove_parts(out, name)
        raise
    parts.finish(entry)
    return entry


def remove_parts(out: Path, name: str) -> None:
    """Remove what is kept to resume a video, once its entry is recorded elsewhere."""
    shutil.rmtree(_parts_folder(out, name), ignore_errors=True)


def _parts_folder(out: Path, name: str) -> Path:
    return out / "frames" / f"{name}.parts"


def _request(predictor: Predictor, settings: VideoSettings, overlays: bool, model: str) -> dict[str, Any]:
    spec = predictor.spec
    plain = {
        "model": model,
        "tile": spec.tile,
        "overlap": spec.overlap,
        "flips": [list(axes) for axes in predictor.copies],
        "overlays": overlays,
        "segment": SEGMENT,
        **settings.to_dict(),
    }
    restored: dict[str, Any] = json.loads(json.dumps(plain))  # as it is read again
    return restored


def _mask_codec(predictor: Predictor, path: Path) -> Codec:
    top = int(predictor.labels.decode(np.arange(predictor.labels.num_classes, dtype=predictor.labels.dtype)).max())
    if top > 65535:
        raise DataError(
            path,
            expected="class ids up to 65535, which a video of masks can hold",
            found=str(top),
            do="Renumber the classes.",
        )
    return MASKS8 if top < 256 else MASKS16


class _Run:
    """One call of `predict_video`.

    Args:
        overlay: codec of the overlay; None for none.
        mask_codec: codec of the masks; None if they are not written as a video.
        pixels: indices of the pixels of each region.
    """

    def __init__(
        self,
        predictor: Predictor,
        header: VideoHeader,
        out: Path,
        name: str,
        settings: VideoSettings,
        overlay: Codec | None,
        mask_codec: Codec | None,
        pixels: Mapping[str, NDArray[np.intp]],
        parts: Parts,
    ) -> None:
        self.predictor, self.header, self.out, self.name = predictor, header, out, name
        self.settings, self.overlay, self.mask_codec = settings, overlay, mask_codec
        self.pixels, self.parts = pixels, parts
        self.smoothing = None if settings.smoothing is None else Smoothing(settings.smoothing)
        self.flicker = Flicker()
        classes = predictor.labels.num_classes
        self.counts = {key: np.zeros(classes, np.int64) for key in ("", *pixels)}  # "": the whole frame
        self.faults: list[Fault] = []
        self.known = -math.inf  # ticks up to which faults are recorded
        self.last: Frame | None = None
        if parts.segments:
            self._restore(parts.segments[-1], parts.state())
        elif settings.masks == "png":
            shutil.rmtree(self.png_folder, ignore_errors=True)  # of another request

    @property
    def png_folder(self) -> Path:
        """The folder of masks as PNG."""
        return self.out / "masks" / f"{self.name}.frames"

    def predict(self, progress: VideoProgress | None) -> None:
        """Predict the frames behind the last finished segment."""
        span = Span(self.settings.start, self.settings.stop, self.settings.every)
        done = sum(len(segment["ticks"]) for segment in self.parts.segments)
        expected = expected_frames(self.header, self.settings)
        with (
            closing(read_frames(self.header, span, self.last, self._fault)) as frames,
            ThreadPoolExecutor(1, "decode") as reader,
            ThreadPoolExecutor(1, "encode") as writer,
        ):
            ahead = _ahead(frames, reader)
            while (first := next(ahead, None)) is not None:
                segment = _Segment(self, len(self.parts.segments))
                for _ in segment.written(self._masks(chain([first], islice(ahead, SEGMENT - 1))), writer):
                    done += 1
                    if progress is not None:
                        progress(done, expected)
                self._record(segment)

    def join(self) -> dict[str, Any]:
        """Join the segments, and return the entry of the video."""
        segments = self.parts.segments
        if not segments or self.last is None:
            raise self._no_frames()
        ticks = [tick for segment in segments for tick in segment["ticks"]]
        first = ticks[0] if self.settings.start is not None else min(ticks[0], 0)
        times = [tick - first for tick in ticks]
        entry: dict[str, Any] = {"file": str(self.header.path)}
        entry |= dict(zip(("height", "width"), self.header.size, strict=True))
        entry["frames"] = len(ticks)
        entry["seconds"] = round(self.header.time(self.last.ticks + self.last.duration - ticks[0]), 6)
        entry["frames_file"] = f"frames/{self.name}.jsonl"
        join_text(self.parts.files(".jsonl"), self.out / entry["frames_file"])
        for key, folder, codec in (("overlay", "overlays", self.overlay), ("masks", "masks", self.mask_codec)):
            if codec is not None:
                entry[key] = f"{folder}/{self.name}{codec.suffix}"
                files = self.parts.files(f".{folder}{codec.suffix}")
                join_segments(files, self.out / entry[key], codec, times, self.last.duration, self.header.time_base)
        if self.settings.masks == "png":
            entry["masks"] = self.png_folder.relative_to(self.out).as_posix()
        return entry | self._results(len(ticks))

    def _results(self, frames: int) -> dict[str, Any]:
        height, width = self.header.size
        sizes = {"": height * width, **{name: len(pixels) for name, pixels in self.pixels.items()}}
        shares = {key: self.shares(counts, frames * sizes[key]) for key, counts in self.counts.items()}
        results: dict[str, Any] = {"shares": shares.pop("")}
        if shares:
            results["regions"] = shares
        flicker = [None if share is None else round(share, 6) for share in self.flicker.shares()]
        results |= dict(zip(("flicker", "flicker_unsmoothed"), flicker, strict=False))
        if self.faults:
            results["error"] = str(self._damaged(frames))
        return results

    def shares(self, counts: NDArray[np.int64], total: int) -> dict[str, float]:
        """Return the share of each class among `total` pixels."""
        return {
            name: round(int(count) / total, 6) for name, count in zip(self.predictor.labels.names, counts, strict=True)
        }

    def _masks(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, tuple[NDArray[Any], ...]]]:
        """Yield each frame with its mask, and with the mask before smoothing."""
        for frame in frames:
            seconds = self.header.time(frame.ticks)
            where = f"{self.header.path}, frame at {seconds:.3f} s"
            if self.smoothing is None:
                yield frame, (self.predictor(frame.image, id=where).mask,)
            else:
                yield frame, self.smoothing(self.predictor, frame.image, seconds, where)
            self.last = frame

    def _record(self, segment: _Segment) -> None:
        """Record a segment whose files are on disk."""
        last = self.last
        assert last is not None
        line = {
            "ticks": segment.ticks,
            "last": [last.index, last.ticks, last.duration, last.in_order],
            "counts": {key: counts.tolist() for key, counts in self.counts.items()},
            "flicker": [self.flicker.pixels, list(self.flicker.changed)],
            "faults": [[fault.ticks, fault.found] for fault in self.faults if fault.ticks <= last.ticks],
        }
        arrays: dict[str, Any] = {f"mask{k}": mask for k, mask in enumerate(self.flicker.masks)}
        arrays["luminance"] = self.flicker.luminance
        if self.smoothing is not None:
            arrays["probabilities"] = self.smoothing.probabilities
        self.parts.add(line, arrays)

    def _restore(self, line: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue behind a recorded segment."""
        index, ticks, duration, in_order = line["last"]
        self.last, self.known = Frame(index, ticks, duration, np.zeros((3, 0, 0), np.uint8), in_order), ticks
        self.counts = {key: np.array(counts, np.int64) for key, counts in line["counts"].items()}
        self.faults = [Fault(*fault) for fault in line["faults"]]
        pixels, changed = line["flicker"]
        self.flicker = Flicker(pixels, tuple(changed))
        self.flicker.luminance = arrays["luminance"]
        self.flicker.masks = tuple(arrays[key] for key in sorted(arrays) if key.startswith("mask"))
        if self.settings.smoothing is not None:
            self.smoothing = Smoothing(self.settings.smoothing, arrays["probabilities"], self.header.time(ticks))

    def _fault(self, fault: Fault) -> None:
        """Note a fault, in the thread that decodes; those before the last finished segment are known."""
        if fault.ticks > self.known:
            self.faults.append(fault)

    def _damaged(self, frames: int) -> ImageError:
        first = min(self.faults, key=lambda fault: fault.ticks)
        more = len(self.faults) - 1
        others = f", and {more} more place{'s' if more > 1 else ''}" if more else ""
        return ImageError(
            self.header.path,
            expected=f"a complete {self.header.format} video",
            found=f"{first.found} at {self.header.time(first.ticks):.3f} s{others}",
            do=f"The {frames} other frames were predicted. Copy or export the file again to predict all.",
        )

    def _no_frames(self) -> DataError:
        if self.faults:
            return self._damaged(0)
        start, stop = self.settings.start, self.settings.stop
        wanted = f"frames from {start or 0:g} s" + ("" if stop is None else f" to {stop:g} s")
        found = "none" if self.header.seconds is None else f"a video of {self.header.seconds:.3f} s"
        do = "Choose other times with predict.start and predict.stop."
        return DataError(self.header.path, expected=wanted, found=found, do=do)


class _Segment:
    """The files of one segment while they are written, by one thread."""

    def __init__(self, run: _Run, number: int) -> None:
        self.run, self.number = run, number
        self.ticks: list[int] = []
        self.lines: list[str] = []
        self.overlay: VideoWriter | None = None
        self.masks: VideoWriter | None = None

    def written(
        self, masks: Iterator[tuple[Frame, tuple[NDArray[Any], ...]]], writer: ThreadPoolExecutor
    ) -> Iterator[None]:
        """Write frames and their masks while the next ones are computed; yield after each, and end when all are on disk."""
        run = self.run
        with ExitStack() as stack:
            if run.overlay is not None:
                path = run.parts.path(self.number, f".overlays{run.overlay.suffix}")
                self.overlay = stack.enter_context(VideoWriter(path, run.overlay, run.header.sample_aspect))
            if run.mask_codec is not None:
                path = run.parts.path(self.number, f".masks{run.mask_codec.suffix}")
                self.masks = stack.enter_context(VideoWriter(path, run.mask_codec))
            waiting: deque[Future[None]] = deque()
            try:
                for frame, kinds in masks:
                    waiting.append(writer.submit(self._add, frame, kinds))
                    while len(waiting) > _BEHIND:
                        waiting.popleft().result()
                        yield
                while waiting:
                    waiting.popleft().result()
                    yield
            finally:
                wait(waiting)  # files are closed only behind the last frame
        write_atomic(run.parts.path(self.number, ".jsonl"), "".join(self.lines))

    def _add(self, frame: Frame, kinds: tuple[NDArray[Any], ...]) -> None:
        """Measure, draw and encode one frame, in the thread of the writer."""
        run, mask = self.run, kinds[0]
        labels = run.predictor.labels
        run.flicker.add(frame.image, *kinds)
        self.ticks.append(frame.ticks)
        self.lines.append(self._line(frame, mask))
        if self.overlay is not None:
            self.overlay.add(overlay(frame.image, mask, labels))
        if self.masks is not None:
            self.masks.add(labels.decode(mask))
        if run.settings.masks == "png":
            write_prediction(Prediction(mask, labels, Grid()), run.png_folder / f"{frame.index:06}.png")

    def _line(self, frame: Frame, mask: NDArray[Any]) -> str:
        """Count the pixels of each class, and return the line of the frame."""
        run = self.run
        shares = {}
        for key in run.counts:
            values = mask.reshape(-1) if not key else mask.reshape(-1)[run.pixels[key]]
            counts = np.bincount(values, minlength=len(run.counts[key]))
            run.counts[key] += counts
            shares[key] = run.shares(counts, len(values))
        plain = {"frame": frame.index, "time": round(run.header.time(frame.ticks), 6), "shares": shares.pop("")}
        return json.dumps(plain | ({"regions": shares} if shares else {}), ensure_ascii=False) + "\n"


def _ahead(frames: Iterator[Frame], reader: ThreadPoolExecutor) -> Iterator[Frame]:
    """Yield frames that a thread decodes ahead."""
    queue = deque(reader.submit(next, frames, None) for _ in range(_AHEAD))
    while (frame := queue.popleft().result()) is not None:
        queue.append(reader.submit(next, frames, None))
        yield frame
