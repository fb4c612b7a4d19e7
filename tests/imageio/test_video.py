import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.imageio.drawn_videos import av, decoded, draw_video, scene

from pixelwise.errors import ImageError
from pixelwise.imageio import video
from pixelwise.imageio.images import Limits
from pixelwise.imageio.video import Fault, Frame, Span, is_video, read_frames, read_video_header

UNEVEN = (0, 3000, 6100, 9000, 18000, 18300, 24000, 27001, 36000, 36090, 45000, 90000)
TB = Fraction(1, 90000)
H264 = {"codec": "libx264", "options": {"preset": "ultrafast"}}


def frames(path: Path, span: Span = Span(), after: Frame | None = None) -> tuple[list[Frame], list[Fault]]:
    faults: list[Fault] = []
    return list(read_frames(read_video_header(path), span, after, faults.append)), faults


def times(path: Path, found: list[Frame]) -> list[float]:
    header = read_video_header(path)
    return [header.time(frame.ticks) for frame in found]


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "mp4": ("a.mp4", {}),
    "mp4 h264 b-frames": ("a.mp4", {**H264, "b_frames": 2, "options": {"preset": "veryfast"}}),
    "mp4 uneven": ("a.mp4", {**H264, "ticks": UNEVEN, "time_base": TB}),
    "mp4 uneven b-frames": ("a.mp4", {"codec": "libx264", "ticks": UNEVEN, "time_base": TB, "b_frames": 3}),
    "mp4 late start": ("a.mp4", {**H264, "ticks": [t + 123456 for t in UNEVEN], "time_base": TB}),
    "mp4 fragments": ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mov": ("a.mov", {**H264, "b_frames": 2}),
    "mkv uneven": ("a.mkv", {**H264, "ticks": UNEVEN, "time_base": TB}),
    "mkv late start": ("a.mkv", {"ticks": range(300, 330)}),
    "webm": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "avi": ("a.avi", {}),
    "avi b-frames": ("a.avi", {"b_frames": 2}),
    "one frame": ("a.mp4", {"ticks": 1}),
    "odd size": ("a.mp4", {"size": (33, 47)}),
    "tiny": ("a.mkv", {"size": (1, 1), "codec": "ffv1"}),
    "10 bit": ("a.mp4", {**H264, "pixels": "yuv420p10le"}),
    "4:4:4": ("a.mkv", {**H264, "pixels": "yuv444p"}),
    "grey": ("a.mkv", {"codec": "ffv1", "pixels": "gray"}),
    "audio": ("a.mp4", {"audio": True}),
    "mp4 open gop": ("a.mp4", {"codec": "libx264", "b_frames": 3, "options": {"x264-params": "open-gop=1:scenecut=0"}}),
    "mkv open gop": ("a.mkv", {"codec": "libx264", "b_frames": 3, "options": {"x264-params": "open-gop=1:scenecut=0"}}),
    "mov hevc": (
        "a.mov",
        {
            "codec": "libx265",
            "b_frames": 3,
            "options": {"preset": "ultrafast", "x265-params": "open-gop=1:log-level=none"},
        },
    ),
    "mkv mpeg-2": ("a.mkv", {"codec": "mpeg2video", "b_frames": 2}),
    "avi motion jpeg": ("a.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    "mov prores": ("a.mov", {"codec": "prores_ks", "pixels": "yuv422p10le"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_times_are_those_of_pyav(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    path = draw_video(tmp_path / name, **options)
    found, faults = frames(path)
    expected = decoded(path)
    assert not faults
    assert times(path, found) == pytest.approx([time for time, _ in expected], abs=1e-9)
    assert [frame.index for frame in found] == list(range(len(expected)))
    for frame, (_, pixels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(frame.image, pixels.transpose(2, 0, 1))
    assert found[0].image.flags.c_contiguous
    assert found[0].image.dtype == np.uint8
    header = read_video_header(path)
    assert header.size == expected[0][1].shape[:2]
    assert header.complete
    assert header.frames is None or abs(header.frames - len(expected)) <= 2 or len(set(np.diff(UNEVEN))) > 1


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv uneven", "webm", "avi"])
def test_the_content_tells_a_video_not_the_name(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    path = draw_video(tmp_path / name, **options).rename(tmp_path / "a.png")
    assert is_video(path)
    assert frames(path)[0]


def test_what_is_no_video(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(scene(0, (16, 16))).save(tmp_path / "a.avif")
    Image.fromarray(scene(0, (16, 16))).save(tmp_path / "a.webp")
    (tmp_path / "a.mp4").write_bytes(b"#EXTM3U\n")
    (tmp_path / "empty.mp4").touch()
    for name in ("a.avif", "a.webp", "a.mp4", "empty.mp4", "missing.mp4", "."):
        assert not is_video(tmp_path / name), name
        with pytest.raises(ImageError, match="expected a MP4, MOV, Matroska, WebM or AVI video"):
            read_video_header(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("mirrors", [(False, False), (True, False)])
@pytest.mark.parametrize("angle", [0, 90, 180, -90])
def test_frames_are_turned_as_players_show_them(
    angle: int, mirrors: tuple[bool, bool], suffix: str, tmp_path: Path
) -> None:
    path = draw_video(tmp_path / f"a{suffix}", 2, rotation=(angle, *mirrors), aspect=Fraction(4, 3))
    stored = decoded(path)[0][1]
    expected = np.rot90(stored, angle // 90)
    expected = expected[:, ::-1] if mirrors[0] else expected
    expected = expected[::-1] if mirrors[1] else expected
    found, _ = frames(path)
    np.testing.assert_array_equal(found[0].image, expected.transpose(2, 0, 1))
    header = read_video_header(path)
    assert header.size == expected.shape[:2]
    assert header.sample_aspect == (Fraction(3, 4) if angle in (90, -90) else Fraction(4, 3))


SEEKABLE = [
    "mp4 h264 b-frames",
    "mp4 uneven b-frames",
    "mp4 late start",
    "mkv uneven",
    "mkv late start",
    "webm",
    "avi",
    "mp4 fragments",
    "mp4 open gop",
    "mkv open gop",
    "mov hevc",
    "mkv mpeg-2",
]


@pytest.mark.parametrize("kind", SEEKABLE)
def test_every_start_and_stop_select_from_all_frames(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    path = draw_video(tmp_path / name, **options)
    whole, _ = frames(path)
    at = times(path, whole)
    ends = [None, at[1], at[len(at) // 2], (at[2] + at[3]) / 2, at[-1], at[-1] + 1, 0.0]
    for start in ends:
        for stop, every in ((None, 1), (at[-2], 2), (at[len(at) // 2 + 1], 3)):
            inside = [
                frame
                for frame, time in zip(whole, at, strict=True)
                if (start is None or time >= start) and (stop is None or time < stop)
            ]
            found, faults = frames(path, Span(start, stop, every))
            assert not faults
            assert [frame.ticks for frame in found] == [frame.ticks for frame in inside[::every]]
            assert [frame.index for frame in found] == list(range(len(inside)))[::every]
            for frame, expected in zip(found, inside[::every], strict=True):
                np.testing.assert_array_equal(frame.image, expected.image)


@pytest.mark.parametrize("kind", SEEKABLE)
def test_reading_continues_behind_any_frame(kind: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    path = draw_video(tmp_path / name, **options)
    for span in (Span(), Span(start=0.05, every=3)):
        whole, _ = frames(path, span)
        for number, last in list(enumerate(whole))[:: 2 if len(whole) < 15 else 5]:
            found, _ = frames(path, span, last)
            assert [(frame.index, frame.ticks) for frame in found] == [(f.index, f.ticks) for f in whole[number + 1 :]]
            for frame, expected in zip(found, whole[number + 1 :], strict=True):
                np.testing.assert_array_equal(frame.image, expected.image)


def test_a_start_is_found_without_decoding_what_is_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw_video(tmp_path / "a.mp4", 200, key_every=10)
    header = read_video_header(path)
    count = 0
    original = video._Clock.place

    def place(self: Any, frame: Any) -> int:
        nonlocal count
        count += 1
        return original(self, frame)

    monkeypatch.setattr(video._Clock, "place", place)
    found = list(read_frames(header, Span(start=6.5)))
    assert len(found) == 5
    assert count <= 15


@pytest.mark.parametrize("times", [(5, 5, 5, 9, 9, 12), (0, 4, 2, 3, 8)])
def test_times_that_do_not_increase_are_moved_and_no_frame_is_lost(times: tuple[int, ...]) -> None:
    clock = video._Clock(3)
    placed = [clock.place(type("F", (), {"pts": t, "dts": None})) for t in times]
    assert all(np.diff(placed) > 0)
    assert placed[0] == times[0]
    assert not clock.in_order
    missing = video._Clock(3)
    assert [missing.place(type("F", (), {"pts": None, "dts": None})) for _ in range(3)] == [0, 3, 6]


def test_reading_continues_where_times_are_not_in_order(tmp_path: Path) -> None:
    # H.264 with B-frames in AVI, which stores no times of presentation.
    path = draw_video(tmp_path / "a.avi", 30, codec="libx264", b_frames=2)
    whole, _ = frames(path)
    assert len(whole) == 30
    assert all(np.diff([frame.ticks for frame in whole]) > 0)
    assert not whole[-1].in_order
    for number in (0, 3, 11, 29):
        found, _ = frames(path, after=whole[number])
        assert [frame.ticks for frame in found] == [frame.ticks for frame in whole[number + 1 :]]
    mkv = draw_video(tmp_path / "a.mkv", 30, **H264)
    some = frames(mkv)[0]
    assert [f.ticks for f in frames(mkv, after=replace(some[9], in_order=False))[0]] == [f.ticks for f in some[10:]]


def test_frames_that_change_in_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    quick = {"deadline": "realtime", "cpu-used": "8"}
    large = draw_video(tmp_path / "large.webm", 5, codec="libvpx-vp9", options=quick)
    small = draw_video(tmp_path / "small.webm", 5, size=(24, 32), codec="libvpx-vp9", options=quick)
    path = tmp_path / "both.webm"
    with av.open(str(path), "w") as out, av.open(str(large)) as first, av.open(str(small)) as second:
        stream = out.add_stream_from_template(first.streams.video[0])
        for shift, container in ((0, first), (200, second)):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.pts + shift, stream
                    out.mux(packet)
    found, faults = frames(path)
    assert not faults
    assert [frame.image.shape for frame in found] == [(3, 48, 64)] * 10
    assert abs(found[7].image.astype(float).mean() - decoded(small)[2][1].mean()) < 3


def noisy(path: Path, **options: Any) -> Path:
    """A video whose frames are large, so that each cut is inside of one."""
    return draw_video(path, 60, size=(96, 128), key_every=10, **options)


DAMAGED: dict[str, tuple[str, dict[str, Any]]] = {
    "mp4 h264": ("a.mp4", {**H264, "container_options": {"movflags": "faststart"}}),
    "mp4 mpeg4": ("a.mp4", {"container_options": {"movflags": "faststart"}, "options": {"qmin": "3", "qmax": "3"}}),
    "mp4 fragments": ("a.mp4", {**H264, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mkv h264": ("a.mkv", H264),
    "webm": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "avi": ("a.avi", {"options": {"qmin": "3", "qmax": "3"}}),
}


@pytest.mark.parametrize("share", [0.4, 0.7, 0.97])
@pytest.mark.parametrize("kind", DAMAGED)
def test_of_a_truncated_video_the_frames_before_the_end_are_read(kind: str, share: float, tmp_path: Path) -> None:
    name, options = DAMAGED[kind]
    path = noisy(tmp_path / name, **options)
    whole, _ = frames(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert not read_video_header(path).complete
    found, faults = frames(path)
    assert 0 < len(found) < len(whole) or (kind, share) == ("avi", 0.97)  # of which only the index is missing
    for frame, expected in zip(found, whole[: len(found)], strict=True):
        assert frame.ticks == expected.ticks
        np.testing.assert_array_equal(frame.image, expected.image)
    end = min(fault.ticks for fault in faults)
    assert 0 < end - whole[len(found) - 1].ticks <= 3 * (whole[1].ticks - whole[0].ticks)


def damage(path: Path, number: int) -> None:
    """Overwrite a packet with noise."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
    noise = np.random.default_rng(1).integers(0, 256, packet.size, np.uint8).tobytes()
    with path.open("r+b") as file:
        file.seek(packet.pos)
        file.write(noise)


@pytest.mark.parametrize("kind", ["mp4 h264", "mp4 fragments", "mp4 mpeg4"])
def test_frames_behind_damaged_data_are_read_from_the_next_key_frame_on(kind: str, tmp_path: Path) -> None:
    name, options = DAMAGED[kind]
    path = noisy(tmp_path / name, **options)
    whole, _ = frames(path)
    damage(path, 33)
    found, faults = frames(path)
    assert [frame.ticks for frame in found] == [frame.ticks for frame in (*whole[:33], *whole[40:])]
    for frame, expected in zip(found, (*whole[:33], *whole[40:]), strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)
    assert [fault.ticks for fault in faults] == [whole[33].ticks]


def test_a_recording_without_its_index_is_an_error(tmp_path: Path) -> None:
    path = noisy(tmp_path / "a.mp4", **H264)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ImageError, match=r"expected a complete MP4 video, found one that ends early \(truncated\)"):
        read_video_header(path)


def test_limits_apply_before_a_frame_is_decoded(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mp4", 2)
    with pytest.raises(ImageError, match="frames of at most 3,000 pixels, found larger ones, or none"):
        read_video_header(path, Limits(pixels=3000))


def test_a_file_without_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=44100)
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        wave.sample_rate = 44100
        out.mux(sound.encode(wave))
        out.mux(sound.encode())
    with pytest.raises(ImageError, match="expected a video stream, found none in the file"):
        read_video_header(path)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw_video(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert is_video(path)
    with pytest.raises(ImageError, match=r"the package av for this file.*pip install 'pixelwise\[video\]'"):
        read_video_header(path)


@pytest.fixture
def canary() -> Any:
    """A server on this machine that notes what is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def reference_movie(content: bytes, address: str) -> bytes:
    """Replace the "data is in this file" entry of an MP4 by an address."""
    at = content.index(b"url \x00\x00\x00\x01")
    target = address.encode() + b"\0"
    # The box has no room for the address, so it names the first bytes of it; what counts is that it is not opened.
    return content[: at + 7] + b"\0" + content[at + 8 :] + target


PLAYLISTS: dict[str, Callable[[str, Path], bytes]] = {
    "hls": lambda url, other: f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}/a.ts\n#EXT-X-ENDLIST\n".encode(),
    "concat": lambda url, other: f"ffconcat version 1.0\nfile '{other}'\n".encode(),
    "dash": lambda url, other: f'<?xml version="1.0"?><MPD><BaseURL>{url}/</BaseURL></MPD>'.encode(),
    "sdp": lambda url, other: (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    ),
    "reference": lambda url, other: reference_movie(other.read_bytes(), url),
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_no_other_file_and_no_address_is_opened(
    kind: str, tmp_path: Path, canary: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = canary
    other = draw_video(tmp_path / "other.mp4", 2)
    before = other.stat().st_atime_ns
    path = tmp_path / "a.mp4"
    path.write_bytes(PLAYLISTS[kind](url, other))
    monkeypatch.chdir(tmp_path)
    with suppress(ImageError) if kind == "reference" else pytest.raises(ImageError):  # its own data may be used
        read_video_header(path)
    assert not asked
    assert kind == "reference" or other.stat().st_atime_ns == before


def test_an_address_as_name_is_a_local_file(
    tmp_path: Path, canary: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = canary
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="found nothing"):
        read_video_header(f"{url}/a.mp4")
    draw_video(tmp_path / "a.mp4", 2).rename(tmp_path / "concat:a.mp4")
    assert len(frames(Path("concat:a.mp4"))[0]) == 2
    assert not asked


@pytest.mark.parametrize("kind", ["mp4 h264", "mp4 fragments", "mkv h264", "webm", "avi", "mp4 mpeg4"])
def test_broken_bytes_give_frames_or_an_image_error(kind: str, tmp_path: Path) -> None:
    name, options = DAMAGED[kind]
    path = draw_video(tmp_path / name, 12, **options)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(25):
        broken = content.copy()
        # Half of the changes are in the structure at the beginning and at the end.
        places = (
            rng.integers(0, len(content), 8) if rng.random() < 0.5 else rng.choice([*range(800), *range(-800, 0)], 8)
        )
        broken[places] = rng.integers(0, 256, 8)
        path.write_bytes(broken.tobytes())
        with suppress(ImageError):
            found, _ = frames(path)
            assert all(frame.image.ndim == 3 for frame in found)
            assert all(late.ticks > early.ticks for early, late in pairwise(found))
            read += 1
    assert read


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_title_in_another_encoding_is_no_fault(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "xyz Café"
        stream = out.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(scene(0, (48, 64)), format="rgb24")))
        out.mux(stream.encode())
    content = path.read_bytes()
    assert content.count("xyz Café".encode()) == 1
    path.write_bytes(content.replace("xyz Café".encode(), b"xyz Caf\xe9 "))
    assert len(frames(path)[0]) == 1


def test_a_codec_that_is_unknown(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mkv", 2, codec="ffv1")
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_FFVX"))
    with pytest.raises(ImageError, match="expected a video codec that FFmpeg can decode, found another"):
        read_video_header(path)


@pytest.mark.parametrize(("aspect", "expected"), [(Fraction(100), 1), (Fraction(1, 100), 1), (Fraction(2), 2)])
def test_a_shape_of_pixels_that_cannot_be_is_ignored(aspect: Fraction, expected: int, tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mkv", 2, aspect=aspect, **H264)
    assert read_video_header(path).sample_aspect == expected
