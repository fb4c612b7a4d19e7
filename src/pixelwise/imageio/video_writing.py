"""Write video files with PyAV: encode them in segments, and join segments without encoding them again.

Every segment begins with a key frame and holds one packet per frame, in the order in which frames are shown, so packets can be
joined and given the exact times of their frames. The same frames give the same segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, ImageError
from pixelwise.imageio.extras import need
from pixelwise.imageio.safe_reading import reading
from pixelwise.storage import atomic_path

_THREADS = "4"
_NOMINAL = 30  # frames per second of a segment, whose times are not used


@dataclass(frozen=True)
class Codec:
    """How frames are encoded.

    Args:
        encoder: its name in FFmpeg.
        container: name of the file format in FFmpeg.
        suffix: of the file.
        pixels: pixel format of the encoded frames.
        options: of the encoder. The quality and the number of threads are constant, so that frames do not depend on the machine.
        even: whether sizes must be even; the last row and column are then repeated if needed.
    """

    encoder: str
    container: str
    suffix: str
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    even: bool = False


CODECS = {
    "vp9": Codec(
        "libvpx-vp9",
        "webm",
        ".webm",
        options={
            "deadline": "realtime",
            "cpu-used": "8",
            "crf": "30",
            "b": "0",
            "row-mt": "1",
            "lag-in-frames": "0",
            "threads": _THREADS,
        },
    ),
    "mpeg4": Codec("mpeg4", "mp4", ".mp4", options={"qmin": "3", "qmax": "3", "threads": _THREADS}),
    # With several threads or a lookahead, libx264 may encode equal frames differently.
    "h264": Codec(
        "libx264",
        "mp4",
        ".mp4",
        options={"preset": "veryfast", "tune": "zerolatency", "crf": "22", "threads": "1"},
        even=True,
    ),
}
_FFV1 = {"level": "3", "g": "1", "slicecrc": "1", "threads": _THREADS}
MASKS8 = Codec("ffv1", "matroska", ".mkv", "gray", _FFV1)
MASKS16 = Codec("ffv1", "matroska", ".mkv", "gray16le", _FFV1)


class VideoWriter:
    """Encode frames of one size into a new file, which is there only once the writer is closed without an exception.

    Args:
        path: of the file.
        codec: how it is encoded.
        sample_aspect: width of a pixel divided by its height. Frames are enlarged so that pixels become square, since WebM files
            of PyAV cannot state another shape.

    Raises:
        ConfigError: the codec cannot encode frames of this size.
        ResourceError: the disk does not take the file.
    """

    def __init__(self, path: Path, codec: Codec, sample_aspect: Fraction = Fraction(1)) -> None:
        self.codec, self.sample_aspect = codec, sample_aspect
        self.av = need("av", "video", path)
        self.reformatter = self.av.video.reformatter.VideoReformatter()
        self.frames = 0
        self._stream: Any = None
        self._stack = ExitStack()
        file = self._stack.enter_context(self._stack.enter_context(atomic_path(path)).open("wb"))
        self._container = self.av.open(file, "w", format=codec.container)
        self._stack.push(self._close)

    def __enter__(self) -> VideoWriter:
        return self

    def add(self, pixels: NDArray[Any]) -> None:
        """Encode a frame: (H, W, 3) uint8 as RGB, or (H, W) integers for a codec of masks."""
        if self.codec.even and (pixels.shape[0] % 2 or pixels.shape[1] % 2):
            pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge")
        if self._stream is None:
            self._stream = self._start(*pixels.shape[:2])
        pixels = np.ascontiguousarray(pixels)
        if pixels.ndim == 3:
            raw = self.av.VideoFrame.from_ndarray(pixels, format="rgb24")
            options = {"width": self._stream.width, "height": self._stream.height, "format": self.codec.pixels}
            frame = self.reformatter.reformat(raw, dst_colorspace="itu709", dst_color_range="MPEG", **options)
        else:
            frame = self.av.VideoFrame.from_ndarray(pixels, format=self.codec.pixels)
        frame.pts, frame.time_base = self.frames, Fraction(1, _NOMINAL)
        self.frames += 1
        try:
            packets = self._stream.encode(frame)
        except ValueError as error:  # libav refuses the size
            raise ConfigError(
                "predict.video_codec",
                expected=f"a codec for frames of {self._stream.width}×{self._stream.height} pixels",
                found=f"{self.codec.encoder}, which cannot encode them",
                do="Choose another codec, or --no-overlays.",
            ) from error
        self._container.mux(packets)

    def _start(self, height: int, width: int) -> Any:
        stream = self._container.add_stream(self.codec.encoder, rate=_NOMINAL, options=dict(self.codec.options))
        stream.height, stream.width = _square(height, width, self.sample_aspect, 2 if self.codec.even else 1)
        stream.pix_fmt = self.codec.pixels
        context = stream.codec_context
        if self.codec.pixels == "yuv420p":
            context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
            context.color_range = 1  # limited
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def _close(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with nullcontext() if kind is None else suppress(Exception):  # what is not finished is not kept
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()


def _square(height: int, width: int, aspect: Fraction, multiple: int) -> tuple[int, int]:
    """Return the height and width of a frame with square pixels, rounded to a multiple."""
    wider, higher = max(aspect, Fraction(1)), max(1 / aspect, Fraction(1))
    return multiple * round(height * higher / multiple), multiple * round(width * wider / multiple)


def join_segments(
    segments: Sequence[Path], path: Path, codec: Codec, ticks: Sequence[int], duration: int, time_base: Fraction
) -> None:
    """Write the packets of segments into one file, with the times of their frames.

    Args:
        segments: files of `VideoWriter`.
        path: of the new file.
        codec: of the segments.
        ticks: the time of each frame, increasing from at least 0. WebM and Matroska store milliseconds.
        duration: of the last frame.
        time_base: seconds per tick.

    Raises:
        ImageError: a segment was changed, or there are not as many frames as times.
        ResourceError: the disk does not take the file.
    """
    av = need("av", "video", path)
    times = iter(zip(ticks, [*(late - early for early, late in pairwise(ticks)), duration], strict=True))
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        av.open(file, "w", format=codec.container) as output,
    ):
        stream = None
        for segment in segments:
            for packet in _packets(av, segment, codec):
                stream = stream or _copied(output, packet.stream, time_base)
                time = next(times, None)
                if time is None:
                    raise _changed(segment)
                packet.pts, packet.duration = time
                packet.dts, packet.time_base, packet.stream = packet.pts, time_base, stream
                output.mux(packet)
        if next(times, None) is not None:
            raise _changed(segments[-1])


def _packets(av: Any, segment: Path, codec: Codec) -> Iterator[Any]:
    demuxer = "mov" if codec.container == "mp4" else "matroska"
    try:
        with segment.open("rb") as source, av.open(source, format=demuxer) as part:
            for packet in part.demux(part.streams.video[0]):
                if packet.size:
                    yield packet
    except (FileNotFoundError, av.InvalidDataError) as error:
        raise _changed(segment) from error


def _changed(segment: Path) -> ImageError:
    return ImageError(
        segment,
        expected="a segment as it was written",
        found="another file, or none",
        do=f"Remove the folder {segment.parent.name} and predict the video again.",
    )


def _copied(output: Any, template: Any, time_base: Fraction) -> Any:
    stream = output.add_stream_from_template(template)
    stream.time_base = time_base
    return stream


def read_mask_video(path: Path | str) -> Iterator[tuple[float, NDArray[Any]]]:
    """Yield the time in seconds and the class ids (H, W) of each frame of a lossless video that `predict` wrote.

    Raises:
        ImageError: another file, or a broken one.
    """
    path = Path(path)
    av = need("av", "video", path)
    with (
        reading(path, ImageError, "video of masks"),
        path.open("rb") as file,
        av.open(file, format="matroska") as video,
    ):
        for frame in video.decode(video=0):
            if frame.format.name not in (MASKS8.pixels, MASKS16.pixels):
                raise ValueError(f"frames are {frame.format.name}, not grey values")
            yield frame.time, frame.to_ndarray()
