"""Read the frames of video files with PyAV, in constant memory and with their presentation times.

- The container is recognised from the content. Only its own demuxer is used, on an open local file: playlists and references to
  other files or addresses are never followed.
- Frames are RGB in the orientation in which players show them (the display matrix is applied). Their pixels are those that are
  stored: pixels that are not square stay so, and `VideoHeader.sample_aspect` is their shape.
- Times are those of the file, in units of `VideoHeader.time_base`. A frame without a time, or one that is not later than the
  frame before it, is placed right behind that frame.
- A part of the file that cannot be decoded is a `Fault`. Decoding continues with the next key frame, since the frames between
  depend on what is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError
from pixelwise.imageio.extras import need
from pixelwise.imageio.images import Limits
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
READABLE_VIDEOS = "MP4, MOV, Matroska, WebM or AVI"
_DEMUXERS = {"MP4": "mov", "MOV": "mov", "Matroska": "matroska", "WebM": "matroska", "AVI": "avi"}
# Brands of files with boxes like those of MP4 that hold images or audio.
_NO_VIDEOS = (
    b"avif",
    b"avis",
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"mif1",
    b"msf1",
    b"crx ",
    b"M4A ",
    b"M4B ",
)
_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_EBML = b"\x1aE\xdf\xa3"
_SEGMENT = b"\x18S\x80g"
_WIDEST = 10  # a larger ratio of the sides of a pixel is an error of the file
_MICROSECOND = Fraction(1, 1_000_000)
_SLACK = 16  # bytes by which some programs write sizes too large
_BACK = (0, 2, 10, 60)  # seconds before the wanted time at which a key frame is sought


@dataclass(frozen=True)
class VideoHeader:
    """What is known of a video before its frames are decoded.

    Args:
        path: the file.
        format: "MP4", "MOV", "Matroska", "WebM" or "AVI".
        codec: its name, such as "h264".
        stored_size: (H, W) before `transposed`.
        transposed, mirrored: how stored frames are turned: rows become columns, then the axes (rows, columns) are mirrored.
        time_base: seconds per tick.
        sample_aspect: width of a pixel divided by its height, in the orientation that is shown.
        rate: frames per second on average.
        seconds: the duration that the file states; None if it does not.
        frames: the number of frames that the file states, or an estimate; None if it is unknown.
        complete: false if the file is shorter than its structure says.
    """

    path: Path
    format: str
    codec: str
    stored_size: tuple[int, int]
    transposed: bool
    mirrored: tuple[bool, bool]
    time_base: Fraction
    sample_aspect: Fraction
    rate: Fraction
    seconds: float | None
    frames: int | None
    complete: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames that are read."""
        return self.stored_size[::-1] if self.transposed else self.stored_size

    def time(self, ticks: int) -> float:
        """Return a time in seconds."""
        return float(ticks * self.time_base)


@dataclass(frozen=True)
class Span:
    """The frames to read: every `every`-th one of those with `start` ≤ time < `stop`, in seconds."""

    start: float | None = None
    stop: float | None = None
    every: int = 1

    def ticks(self, time_base: Fraction) -> tuple[Fraction | None, Fraction | None]:
        """Return start and stop in units of `time_base`; times rounded to microseconds mean the frame at that time."""
        start, stop = (
            None if value is None else (Fraction(str(value)) - _MICROSECOND) / time_base
            for value in (self.start, self.stop)
        )
        return start, stop


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Args:
        index: its number among the frames from the start of the span on, whether they are read or not.
        ticks: its presentation time.
        duration: how long it is shown, in ticks.
        image: (3, H, W) uint8, RGB.
        in_order: whether the times of all frames up to this one increase as the file states them.
    """

    index: int
    ticks: int
    duration: int
    image: NDArray[np.uint8]
    in_order: bool


@dataclass(frozen=True)
class Fault:
    """A time, in ticks, at which a video cannot be decoded, and what was found."""

    ticks: int
    found: str


def video_format(start: bytes) -> str | None:
    """Return the container whose file begins with these (at least 64) bytes, as in `VideoHeader.format`; None if none."""
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        return None if brand in _NO_VIDEOS else "MOV" if brand == b"qt  " else "MP4"
    if start[4:8] in _QUICKTIME:
        return "MOV"
    if start.startswith(_EBML):
        return "WebM" if b"webm" in start[:64] else "Matroska"
    return "AVI" if start[:4] == b"RIFF" and start[8:12] == b"AVI " else None


def is_video(path: Path) -> bool:
    """Whether a file is a video by its content; the package PyAV is not needed to find out."""
    try:
        with path.open("rb") as file:
            return video_format(file.read(64)) is not None
    except OSError:
        return False


def read_video_header(path: Path | str, limits: Limits = Limits()) -> VideoHeader:
    """Read the header of a video, and decode its first frame, which holds the orientation.

    Raises:
        ImageError: not a video, without a frame that can be decoded, frames beyond the limits, or the extra "video" is missing.
    """
    path = Path(path)
    with reading(path, ImageError, "video") as content:
        content.name = f"{_container(path)} video"
        return _read_header(path, limits)


def read_frames(
    header: VideoHeader,
    span: Span = Span(),
    after: Frame | None = None,
    fault: Callable[[Fault], None] = lambda fault: None,
    limits: Limits = Limits(),
) -> Generator[Frame, None, None]:
    """Decode frames one at a time, in the order in which they are shown.

    Args:
        header: of the video.
        span: the frames to read.
        after: a frame that was read before; reading continues behind it, from the key frame before it.
        fault: called with every place that cannot be decoded; frames before and behind it are yielded.
        limits: the largest frame to decode.

    Raises:
        ImageError: the file can no longer be opened.
    """
    start, stop = span.ticks(header.time_base)
    clock = _Clock(max(round(1 / (header.rate * header.time_base)), 1))
    index, skipped = -1, after is None

    def report(found: Fault) -> None:
        if start is None or found.ticks >= start:  # decoding begins before the span
            fault(found)

    with ExitStack() as stack:
        with reading(header.path, ImageError, f"{header.format} video"):
            video = stack.enter_context(_opened(header.path, header.format, limits))
        sought = after.ticks if after and after.in_order else None if after or start is None else int(start)
        for decoded in _decoded(video, clock, sought if header.format != "AVI" else None, report):
            ticks = clock.place(decoded)
            if stop is not None and ticks >= stop:
                return
            if start is not None and ticks < start:
                continue
            index += 1
            if not skipped and after is not None:
                skipped = ticks == after.ticks if video.sought else index == after.index
                index = after.index if skipped else index
                continue
            if index % span.every == 0:
                image = _image(decoded, header)
                yield Frame(index, ticks, decoded.duration or clock.step, image, clock.in_order)
    if after is not None and not skipped and after.in_order:
        yield from read_frames(header, span, replace(after, in_order=False), fault, limits)
    elif not header.complete:
        fault(Fault(clock.end, "one that ends early (truncated)"))


class _Clock:
    """Assigns presentation times: those of the file, or those of decoding if these are more plausible, always increasing.

    The choice between both is that of FFmpeg's `best_effort_timestamp`; it matters for AVI, which stores times of decoding only.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.ticks: int | None = None
        self.in_order = True
        self._last: list[int | None] = [None, None]  # presentation, decoding
        self._wrong = [0, 0]

    @property
    def end(self) -> int:
        """The time right behind the last frame."""
        return 0 if self.ticks is None else self.ticks + self.step

    def place(self, frame: Any) -> int:
        """Return the time of the next frame."""
        for kind, ticks in enumerate((frame.pts, frame.dts)):
            last = self._last[kind]
            if ticks is not None:
                self._wrong[kind] += last is not None and ticks <= last
                self._last[kind] = ticks
        usual = frame.pts is not None and (self._wrong[0] <= self._wrong[1] or frame.dts is None)
        ticks = frame.pts if usual else frame.dts
        self.in_order = self.in_order and usual
        if ticks is None:
            ticks, self.in_order = self.end, False
        elif self.ticks is not None and ticks <= self.ticks:
            ticks, self.in_order = self.ticks + 1, False
        self.ticks = ticks
        return int(ticks)


@dataclass
class _Video:
    """An open video; `sought` is whether reading began at a key frame that was sought."""

    av: Any
    container: Any
    stream: Any
    sought: bool = False


def _container(path: Path) -> str:
    require_file(path, f"a {READABLE_VIDEOS} video")
    with path.open("rb") as file:
        name = video_format(file.read(64))
    if name is None:
        raise Refused(f"a {READABLE_VIDEOS} video", "another file", "Convert it to MP4, or leave it out.")
    return name


def _read_header(path: Path, limits: Limits) -> VideoHeader:
    name = _container(path)
    with path.open("rb") as file:
        complete = _complete(file, name, path.stat().st_size)
    try:
        with _opened(path, name, limits) as video:
            frame = next(_decoded(video, _Clock(1)), None)
            if frame is None:
                raise EOFError
            container, stream = video.container, video.stream
            transposed, mirrored = _orientation(frame)
            rate = _fraction(stream.average_rate) or _fraction(stream.guessed_rate) or Fraction(25)
            seconds = None if container.duration is None else container.duration / video.av.time_base
            frames = stream.frames if _DEMUXERS[name] == "mov" else 0
            aspect = _fraction(stream.sample_aspect_ratio) or Fraction(1)
            aspect = aspect if Fraction(1, _WIDEST) <= aspect <= _WIDEST else Fraction(1)
            return VideoHeader(
                path,
                name,
                stream.codec_context.name,
                (frame.height, frame.width),
                transposed,
                mirrored,
                _fraction(stream.time_base) or Fraction(1),
                1 / aspect if transposed else aspect,
                rate,
                seconds,
                frames or (None if seconds is None else max(round(seconds * rate), 1)),
                complete,
            )
    except (ValueError, OSError, EOFError, MemoryError, Refused) as error:
        if complete and isinstance(error, MemoryError):  # libav reads a size that is too large
            raise ValueError("sizes that are too large") from error
        if complete:
            raise
        raise EOFError("truncated") from error


@contextmanager
def _opened(path: Path, name: str, limits: Limits) -> Iterator[_Video]:
    """Open a video for decoding; libav sees an open file only, no name or address."""
    av = need("av", "video", path)
    # The limit is also that of the first frames, which libav decodes to find what the header does not state.
    options = {"max_pixels": str(limits.pixels)}
    # Titles may be in any encoding; PyAV 19 replaces what it cannot decode.
    replacing = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
    with (
        path.open("rb") as file,
        av.open(file, format=_DEMUXERS[name], options=options, **replacing) as container,
    ):
        covers = av.stream.Disposition.attached_pic
        stream = next((one for one in container.streams.video if not one.disposition & covers), None)
        if stream is None:
            raise Refused("a video stream", "none in the file", "Leave it out.")
        context = stream.codec_context
        if context is None:
            raise Refused("a video codec that FFmpeg can decode", "another", "Convert it to H.264 in MP4.")
        if not 0 < context.width * context.height <= limits.pixels:  # libav states no size that is beyond the limit
            raise Refused(
                f"frames of at most {limits.pixels:,} pixels",
                "larger ones, or none",
                "Scale the video down, or leave it out.",
            )
        context.options = options
        context.thread_type = "SLICE"  # frames in flight in several threads would hide where a fault is
        yield _Video(av, container, stream)


def _decoded(
    video: _Video,
    clock: _Clock,
    ticks: int | None = None,
    fault: Callable[[Fault], None] = lambda fault: None,
) -> Iterator[Any]:
    """Yield the frames of libav, from the key frame before `ticks` on; without frames that are incomplete."""
    context, error = video.stream.codec_context, video.av.FFmpegError
    packets, first = _packets(video, clock, ticks, fault)
    waiting = started = False
    for packet in packets:
        if waiting and not packet.is_keyframe:
            continue
        if waiting:
            context.flush_buffers()
        try:
            waiting = packet.is_corrupt
            frames = _remaining(video) if waiting else packet.decode()
        except error:
            frames, waiting = _remaining(video), True
        if waiting:
            fault(Fault(clock.end if packet.pts is None else packet.pts, "damaged data"))
        for frame in frames:
            if first is not None and frame.pts is not None and frame.pts < first:
                continue  # it depends on frames before the key frame
            if frame.is_corrupt:
                fault(Fault(clock.end if frame.pts is None else frame.pts, "damaged data"))
                waiting = started
                break
            started = True
            yield frame
    if not waiting:
        yield from (frame for frame in _remaining(video) if not frame.is_corrupt)


def _remaining(video: _Video) -> list[Any]:
    """Return the frames that the decoder still holds."""
    with suppress(video.av.FFmpegError):
        return list(video.stream.codec_context.decode(None))
    return []


def _packets(
    video: _Video, clock: _Clock, ticks: int | None, fault: Callable[[Fault], None]
) -> tuple[Iterable[Any], int | None]:
    """Return the packets from the last key frame that is shown at `ticks` or before, and its time; or all, and None."""
    container, stream = video.container, video.stream
    if ticks is None:
        return _demuxed(video, clock, fault), None
    time_base = _fraction(stream.time_base) or Fraction(1)
    for seconds in _BACK:
        with suppress(video.av.FFmpegError):
            container.seek(ticks - round(seconds / time_base), stream=stream, backward=True)
            packets = _demuxed(video, clock, fault)
            packet = next(packets, None)
            if packet is not None and packet.is_keyframe and packet.pts is not None and packet.pts <= ticks:
                video.sought = True
                return chain([packet], packets), packet.pts
    container.seek(stream.start_time or 0, stream=stream, backward=True)
    return _demuxed(video, clock, fault), None


def _demuxed(video: _Video, clock: _Clock, fault: Callable[[Fault], None]) -> Iterator[Any]:
    try:
        for packet in video.container.demux(video.stream):
            if packet.size:
                yield packet
    except video.av.FFmpegError:
        fault(Fault(clock.end, "damaged data"))


def _fraction(value: Any) -> Fraction | None:
    """Return a rational number of PyAV, whose type depends on its version; None if it is not defined."""
    return None if value is None or not value.denominator else Fraction(value.numerator, value.denominator)


def _orientation(frame: Any) -> tuple[bool, tuple[bool, bool]]:
    """Return whether rows and columns are exchanged, and then which of (rows, columns) are mirrored.

    A display matrix maps (column, row) to a x + c y, b x + d y; of other angles than multiples of 90°, the nearest is used.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, (False, False)
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, (d < 0, a < 0)
    return True, (b < 0, c < 0)


def _image(decoded: Any, header: VideoHeader) -> NDArray[np.uint8]:
    """Convert a frame of libav to RGB (3, H, W)."""
    height, width = header.stored_size
    pixels = decoded.to_ndarray(format="rgb24", width=width, height=height)
    pixels = pixels.transpose(1, 0, 2) if header.transposed else pixels
    rows, columns = (slice(None, None, -1 if mirrored else None) for mirrored in header.mirrored)
    return np.ascontiguousarray(pixels[rows, columns].transpose(2, 0, 1))


def _complete(file: BinaryIO, name: str, size: int) -> bool:
    """Whether a file is as long as its structure says; true if that is not stated, as while a video is recorded."""
    with suppress(ValueError, IndexError):
        if name in ("MP4", "MOV"):
            return _boxes_end(file, size) <= size
        if name == "AVI":
            file.seek(4)
            return int.from_bytes(file.read(4), "little") + 8 <= size + _SLACK
        start = file.read(4096)
        head, offset = _vint(start, 4)
        at = offset + (head or 0)
        if start[at : at + 4] == _SEGMENT:
            length, offset = _vint(start, at + 4)
            return length is None or offset + length <= size + _SLACK
    return True


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Return where the last of the outer boxes of an MP4 ends."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        start = file.read(16)
        length = int.from_bytes(start[:4], "big")
        length = int.from_bytes(start[8:16], "big") if length == 1 else length
        if length < 8:  # 0: to the end of the file
            return at
        at += length
    return at


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Read a length of EBML: its value, None if it is unknown, and where it ends."""
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width
