"""Videos that are drawn for tests, and their frames decoded with PyAV alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av")

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}


def scene(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A dark frame with noise that stays, a bright square that moves right, and a brightness that tells the number."""
    height, width = size
    still = np.random.default_rng(0).integers(20, 60, (height, width, 1))
    pixels = np.repeat(still, 3, 2).astype(np.uint8)
    side = max(min(size) // 3, 1)
    left = (3 * number) % max(width - side, 1)
    pixels[:side, left : left + side] = (230, 200, 160)
    pixels[-max(height // 8, 1) :] = 8 * (number % 30)
    return pixels


def draw_video(
    path: Path,
    ticks: Sequence[int] | int = 30,
    time_base: Fraction = Fraction(1, 30),
    size: tuple[int, int] = (48, 64),
    codec: str = "mpeg4",
    *,
    pixels: str = "yuv420p",
    b_frames: int = 0,
    key_every: int = 12,
    rotation: tuple[int, bool, bool] = (0, False, False),
    aspect: Fraction = Fraction(1),
    audio: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Draw a video whose frames are shown at the given ticks (or at 0, 1, …)."""
    times = range(ticks) if isinstance(ticks, int) else ticks
    with av.open(str(path), "w", format=CONTAINERS[path.suffix], options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = key_every
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.sample_aspect_ratio = aspect
        if any(rotation):
            stream.set_display_rotation(*rotation)
        sound = out.add_stream("aac" if path.suffix in (".mp4", ".mov") else "mp3", rate=44100) if audio else None
        for number, tick in enumerate(times):
            frame = av.VideoFrame.from_ndarray(scene(number, size), format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            out.mux(stream.encode(frame))
            if sound is not None:
                wave = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
                wave.sample_rate = 44100
                out.mux(sound.encode(wave))
        out.mux(stream.encode())
        if sound is not None:
            out.mux(sound.encode())
    return path


def decoded(path: Path) -> list[tuple[float, NDArray[Any]]]:
    """The time and the RGB pixels (H, W, 3) of each frame, by PyAV alone."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
