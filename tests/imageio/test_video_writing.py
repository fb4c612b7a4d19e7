import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.imageio.drawn_videos import av, decoded, scene

from pixelwise.errors import ConfigError, ImageError, ResourceError
from pixelwise.imageio.video_writing import CODECS, MASKS8, MASKS16, Codec, VideoWriter, join_segments, read_mask_video

UNEVEN = [0, 3000, 6100, 9000, 18000, 18300, 24000, 27001, 90000, 90900]
TB = Fraction(1, 90000)
ACCURACY = {"vp9": 0.5e-3, "mpeg4": 1e-9, "h264": 1e-9}  # WebM stores milliseconds


def write(folder: Path, codec: Codec, frames: list[NDArray[Any]], cuts: list[int], **options: Any) -> list[Path]:
    paths = []
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(frames)], strict=True)):
        paths.append(folder / f"{number}{codec.suffix}")
        with VideoWriter(paths[-1], codec, **options) as writer:
            for frame in frames[begin:end]:
                writer.add(frame)
    return paths


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (1, 1), (17, 300)])
@pytest.mark.parametrize("name", CODECS)
def test_joined_segments_hold_the_frames_at_their_times(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    codec = CODECS[name]
    frames = [scene(number, size) for number in range(10)]
    segments = write(tmp_path, codec, frames, [1, 6])
    path = tmp_path / f"whole{codec.suffix}"
    join_segments(segments, path, codec, UNEVEN, 4500, TB)
    found = decoded(path)
    assert [time for time, _ in found] == pytest.approx([tick / 90000 for tick in UNEVEN], abs=ACCURACY[name])
    parts = [pixels for segment in segments for _, pixels in decoded(segment)]
    for (_, pixels), part, frame in zip(found, parts, frames, strict=True):
        np.testing.assert_array_equal(pixels, part)
        shown = pixels[: size[0], : size[1]]
        assert shown.shape == frame.shape
        assert pixels.shape == frame.shape or (codec.even and np.subtract(pixels.shape, frame.shape).max() == 1)
    with av.open(str(path)) as container:
        assert container.duration / av.time_base == pytest.approx((90900 + 4500) / 90000, abs=2e-3)


def test_a_size_that_a_codec_cannot_encode_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a codec for frames of 9000×2 pixels, found mpeg4, which cannot"):
        write(tmp_path, CODECS["mpeg4"], [np.zeros((2, 9000, 3), np.uint8)], [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CODECS)
def test_colours_are_kept(name: str, tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 250, 250), (10, 10, 10), (120, 80, 200)]
    frames = [np.full((64, 64, 3), colour, np.uint8) for colour in colours]
    (path,) = write(tmp_path, CODECS[name], frames, [])
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.color_range in (0, 1)
        for frame, expected in zip(container.decode(video=0), frames, strict=True):
            assert frame.colorspace == 1 or name == "mpeg4"
            shown = frame.reformat(format="rgb24", src_colorspace="itu709").to_ndarray()
            assert np.abs(shown[8:-8, 8:-8].astype(int) - expected[8:-8, 8:-8]).mean() < 4


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(4, 3), (48, 85)), (Fraction(1, 2), (96, 64)), (Fraction(1), (48, 64))]
)
@pytest.mark.parametrize("name", CODECS)
def test_pixels_become_square(name: str, aspect: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.full((48, 64, 3), 40, np.uint8)
    pixels[24:, 32:] = 200
    (path,) = write(tmp_path, CODECS[name], [pixels], [], sample_aspect=aspect)
    ((_, shown),) = decoded(path)
    assert np.abs(np.subtract(shown.shape[:2], size)).max() <= CODECS[name].even
    bright = shown[..., 1] > 120
    height, width = size
    assert abs(bright.sum() / bright.size - 0.25) < 0.03
    assert bright[height // 2 + 3 :, width // 2 + 3 :].all()
    assert not bright[: height // 2 - 3].any()
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 0, 1)


@pytest.mark.parametrize("name", CODECS)
def test_equal_frames_give_equal_files(name: str, tmp_path: Path) -> None:
    frames = [scene(number, (90, 160)) for number in range(12)]
    (tmp_path / "b").mkdir()
    (first,), (second,) = (write(folder, CODECS[name], frames, []) for folder in (tmp_path, tmp_path / "b"))
    for (_, one), (_, other) in zip(decoded(first), decoded(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (1, 1), (5, 200)])
@pytest.mark.parametrize(("codec", "top"), [(MASKS8, 256), (MASKS16, 65536)])
def test_ids_are_read_again_exactly(codec: Codec, top: int, size: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, top, size).astype(np.uint8 if top == 256 else np.uint16) for _ in range(10)]
    masks[0][:] = top - 1
    path = tmp_path / "whole.mkv"
    join_segments(write(tmp_path, codec, masks, [3]), path, codec, UNEVEN, 100, TB)
    found = list(read_mask_video(path))
    assert [time for time, _ in found] == pytest.approx([tick / 90000 for tick in UNEVEN], abs=0.5e-3)
    for (_, mask), expected in zip(found, masks, strict=True):
        assert mask.dtype == expected.dtype
        np.testing.assert_array_equal(mask, expected)


def test_other_videos_are_no_masks(tmp_path: Path) -> None:
    (path,) = write(tmp_path, CODECS["vp9"], [scene(0, (48, 64))], [])
    with pytest.raises(ImageError, match=r"expected a complete video of masks, found .* not grey values"):
        list(read_mask_video(path))


def test_a_stopped_writer_leaves_no_file(tmp_path: Path) -> None:
    def stop() -> None:
        with VideoWriter(tmp_path / "a.webm", CODECS["vp9"]) as writer:
            writer.add(scene(0, (48, 64)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["more", "fewer", "missing", "broken"])
def test_changed_segments_are_an_error(change: str, tmp_path: Path) -> None:
    segments = write(tmp_path, CODECS["vp9"], [scene(0, (48, 64))] * 4, [2])
    ticks = list(range({"more": 3, "fewer": 5}.get(change, 4)))
    if change == "missing":
        segments[1].unlink()
    elif change == "broken":
        segments[1].write_bytes(b"no video at all")
    with pytest.raises(ImageError, match="expected a segment as it was written, found another file, or none"):
        join_segments(segments, tmp_path / "whole.webm", CODECS["vp9"], ticks, 1, TB)
    assert not (tmp_path / "whole.webm").exists()


class Full:
    """A file on a disk that takes a number of bytes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def close(self) -> None:
        pass

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_full_disk_is_a_resource_error(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = write(tmp_path, CODECS["vp9"], [scene(0, (48, 64))] * 4, [2])
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", *a: Full(room) if mode == "wb" else opened(path, mode, *a))
    with pytest.raises(ResourceError, match="No space left on device"):
        write(tmp_path / "b", CODECS["vp9"], [scene(0, (48, 64))] * 4, [])
    with pytest.raises(ResourceError, match="No space left on device"):
        join_segments(segments, tmp_path / "whole.webm", CODECS["vp9"], range(4), 1, TB)
    assert not (tmp_path / "whole.webm").exists()
    assert not list((tmp_path / "b").iterdir())
