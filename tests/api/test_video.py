import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.imageio.drawn_videos import decoded, draw_video
from tests.inference.backends import predictor_of

from pixelwise.api.predicting import video
from pixelwise.api.predicting.video import VideoSettings, example_frame, predict_video, remove_parts, video_settings
from pixelwise.errors import ConfigError, DataError, ImageError, UsageError
from pixelwise.imageio.masks import read_mask
from pixelwise.imageio.video import read_video_header
from pixelwise.imageio.video_writing import read_mask_video
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.tiles import Window

LABELS = Labels(("dark", "middle", "bright"), ids=(3, 1, 200), ignore_ids=(9,))
UNEVEN = tuple(np.cumsum([0, *([3000, 3100, 2900, 9000, 300, 6000] * 6)]).tolist())
TB = Fraction(1, 90000)


def by_brightness(images: NDArray[Any]) -> NDArray[Any]:
    """Logits of three classes by brightness."""
    values = np.asarray(images, np.float32).mean(1, keepdims=True)
    return np.concatenate([120 - values, 30 - np.abs(values - 130), values - 140], 1) / 8


def predictor(model: Any = by_brightness, labels: Labels = LABELS, **settings: Any) -> Predictor:
    return predictor_of(model, labels, **({"channels": 3} | settings))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "uneven.mp4"
    return draw_video(path, UNEVEN, TB, codec="libx264", b_frames=2, options={"preset": "veryfast"})


def lines(out: Path, entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / entry["frames_file"]).read_text(encoding="utf-8").splitlines()]


def test_every_frame_is_predicted_at_its_time(uneven: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    settings = VideoSettings(masks="ffv1")
    by = predictor()
    entry = predict_video(by, uneven, tmp_path, "x/clip", settings, progress=lambda *t: told.append(t))
    frames = decoded(uneven)
    rows = lines(tmp_path, entry)
    shown = decoded(tmp_path / entry["overlay"])
    masks = list(read_mask_video(tmp_path / entry["masks"]))
    assert len(frames) == len(rows) == len(shown) == len(masks) == entry["frames"] == len(UNEVEN)
    total = np.zeros(3)
    for number, ((at, pixels), row, (at_shown, over), (at_mask, ids)) in enumerate(
        zip(frames, rows, shown, masks, strict=True)
    ):
        expected = by(pixels.transpose(2, 0, 1)).mask
        np.testing.assert_array_equal(ids, np.array(LABELS.ids)[expected])
        assert row["frame"] == number
        assert row["time"] == round(at, 6)
        assert at_shown == pytest.approx(at, abs=5e-4)
        assert at_mask == pytest.approx(at, abs=5e-4)
        shares = [float((expected == k).mean()) for k in range(3)]
        assert list(row["shares"].values()) == pytest.approx(shares, abs=1e-6)
        total += shares
        assert over.shape == pixels.shape
    assert list(entry["shares"].values()) == pytest.approx(list(total / len(frames)), abs=1e-6)
    assert list(entry) == [
        "file", "height", "width", "frames", "seconds", "frames_file", "overlay", "masks", "shares", "flicker",
    ]  # fmt: skip
    assert entry | {"file": str(uneven), "height": 48, "width": 64, "frames_file": "frames/x/clip.jsonl"} == entry
    assert entry["seconds"] == pytest.approx((UNEVEN[-1] + 6000) / 90000, abs=0.04)
    assert [done for done, _ in told] == list(range(1, len(frames) + 1))
    assert told[-1][1] == len(frames)


def test_masks_as_png(uneven: Path, tmp_path: Path) -> None:
    by = predictor()
    entry = predict_video(by, uneven, tmp_path, "clip", VideoSettings(masks="png", every=5), overlays=False)
    files = sorted((tmp_path / entry["masks"]).iterdir())
    frames = decoded(uneven)[::5]
    assert "overlay" not in entry
    assert not (tmp_path / "overlays").exists()
    assert [file.name for file in files] == [f"{5 * number:06}.png" for number in range(len(frames))]
    for file, (_, pixels) in zip(files, frames, strict=True):
        np.testing.assert_array_equal(read_mask(file, LABELS)[0], by(pixels.transpose(2, 0, 1)).mask)


def test_turned_frames_and_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mp4", 3, rotation=(90, False, False), aspect=Fraction(4, 3))
    entry = predict_video(predictor(), path, tmp_path, "clip", VideoSettings(masks="ffv1"))
    assert (entry["height"], entry["width"]) == (64, 48)
    assert next(read_mask_video(tmp_path / entry["masks"]))[1].shape == (64, 48)
    assert decoded(tmp_path / entry["overlay"])[0][1].shape == (85, 48, 3)


@pytest.mark.parametrize("codec", ["vp9", "mpeg4", "h264"])
def test_codecs_and_spans(codec: str, uneven: Path, tmp_path: Path) -> None:
    at = [time for time, _ in decoded(uneven)]
    settings = VideoSettings(every=2, start=at[4], stop=at[25], codec=codec)
    entry = predict_video(predictor(), uneven, tmp_path, "clip", settings)
    rows = lines(tmp_path, entry)
    assert [row["time"] for row in rows] == [round(time, 6) for time in at[4:25:2]]
    assert [row["frame"] for row in rows] == list(range(0, 21, 2))
    shown = [time for time, _ in decoded(tmp_path / entry["overlay"])]
    assert shown == pytest.approx([time - at[4] for time in at[4:25:2]], abs=5e-4)
    assert Path(entry["overlay"]).suffix == (".webm" if codec == "vp9" else ".mp4")


def test_regions_of_interest(uneven: Path, tmp_path: Path) -> None:
    square = [[0, 0], [20, 0], [20, 10], [0, 10]]
    holed = [[[30, 10], [60, 10], [60, 40], [30, 40]], [[40, 20], [50, 20], [50, 30], [40, 30]]]
    feature = {
        "type": "Feature",
        "properties": {"name": "right"},
        "geometry": {"type": "Polygon", "coordinates": holed},
    }
    (tmp_path / "regions.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (tmp_path / "regions.json").write_text(json.dumps({"left": square, "right": holed}))
    from_geojson = video_settings([f"predict.regions={tmp_path / 'regions.geojson'}"])
    settings = video_settings([f"predict.regions={tmp_path / 'regions.json'}"])
    inline = video_settings([f"predict.regions={json.dumps({'left': square, 'right': holed})}"])
    assert inline == settings
    assert from_geojson.regions["right"] == settings.regions["right"]
    by = predictor()
    entry = predict_video(by, uneven, tmp_path, "clip", settings, overlays=False)
    inside = {"left": np.zeros((48, 64), bool), "right": np.zeros((48, 64), bool)}
    inside["left"][:10, :20] = inside["right"][10:40, 30:60] = True
    inside["right"][20:30, 40:50] = False
    totals = {name: np.zeros(3) for name in inside}
    for row, (_, pixels) in zip(lines(tmp_path, entry), decoded(uneven), strict=True):
        mask = by(pixels.transpose(2, 0, 1)).mask
        for name, where in inside.items():
            shares = np.bincount(mask[where], minlength=3) / where.sum()
            assert list(row["regions"][name].values()) == pytest.approx(list(shares), abs=1e-6)
            totals[name] += shares / len(UNEVEN)
    for name, shares in totals.items():
        assert list(entry["regions"][name].values()) == pytest.approx(list(shares), abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", '{"a": 3}', '{"a": []}', '{"a": [[0, 0], [1, 1]]}', '{"a": [[0, 0], [1, "x"], [2, 2]]}', "{", "3",
     '{"type": "FeatureCollection", "features": []}', '{"type": "FeatureCollection", "features": [3]}',
     '{"type": "Feature", "properties": null, "geometry": {"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,1]]]}}',
     '{"type": "Feature", "properties": {"name": "a"}, "geometry": {"type": "Point", "coordinates": [0, 0]}}',
     '{"type": "Feature", "properties": {"name": "a"}, "geometry": null}', '{"a": [[0, 0], [1, NaN], [2, 2]]}'],
)  # fmt: skip
def test_invalid_regions(text: str, tmp_path: Path) -> None:
    (tmp_path / "regions.json").write_text(text)
    with pytest.raises(ConfigError, match="regions"):
        video_settings([f"predict.regions={tmp_path / 'regions.json'}"])


def test_a_region_outside_of_the_frames(uneven: Path, tmp_path: Path) -> None:
    settings = VideoSettings(regions={"door": [[[[100, 0], [120, 0], [120, 20]]]]})
    with pytest.raises(DataError, match="region 'door', found frames of 64×48 pixels"):
        predict_video(predictor(), uneven, tmp_path, "clip", settings)


# Smoothing


def test_smoothing_lowers_the_flicker_of_a_noisy_model(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mp4", 40)
    calls = iter(range(1000))

    def noisy(images: NDArray[Any]) -> NDArray[Any]:
        noise = np.random.default_rng(next(calls)).normal(0, 6, (1, 3, *images.shape[2:]))
        return by_brightness(images) + noise

    entry = predict_video(predictor(noisy), path, tmp_path, "clip", VideoSettings(smoothing=0.3))
    assert entry["flicker"] < 0.3 * entry["flicker_unsmoothed"]
    assert entry["flicker_unsmoothed"] > 0.05


def test_smoothing_and_flicker_by_hand(uneven: Path, tmp_path: Path) -> None:
    by = predictor(temperature=1.5)
    settings = VideoSettings(smoothing=0.2, masks="ffv1", every=2)
    entry = predict_video(by, uneven, tmp_path, "clip", settings)
    state: Any = None
    before: Any = None
    still = changed = changed_raw = 0
    for (at, pixels), (_, ids) in zip(decoded(uneven)[::2], read_mask_video(tmp_path / entry["masks"]), strict=True):
        raw = by(pixels.transpose(2, 0, 1), probabilities=True)
        weight = 1.0 if state is None else 1 - np.exp(-(at - before[0]) / 0.2)
        state = raw.probabilities if state is None else state + weight * (raw.probabilities - state)
        top = np.sort(state, 0)
        mask = state.argmax(0)
        clear = top[-1] - top[-2] > 1e-4
        smooth = np.searchsorted(np.sort(LABELS.ids), ids)
        smooth = np.argsort(LABELS.ids)[smooth]
        np.testing.assert_array_equal(smooth[clear], mask[clear])
        grey = (pixels.astype(int) @ (77, 150, 29)) >> 8
        if before is not None:
            same = np.abs(grey - before[1]) <= 4
            still += same.sum()
            changed += (same & (smooth != before[2])).sum()
            changed_raw += (same & (raw.mask != before[3])).sum()
        before = (at, grey, smooth, raw.mask)
    assert entry["flicker"] == round(changed / still, 6)
    assert entry["flicker_unsmoothed"] == round(changed_raw / still, 6)


def test_a_single_frame_has_no_flicker(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mp4", 1)
    entry = predict_video(predictor(), path, tmp_path, "clip", VideoSettings(smoothing=1))
    assert entry["frames"] == 1
    assert entry["flicker"] is None
    assert entry["flicker_unsmoothed"] is None


# Resuming


def content(out: Path, entry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"jsonl": (out / entry["frames_file"]).read_bytes()}
    found["overlay"] = [(at, pixels.tobytes()) for at, pixels in decoded(out / entry["overlay"])]
    if entry["masks"].endswith(".mkv"):
        found["masks"] = [(at, ids.tobytes()) for at, ids in read_mask_video(out / entry["masks"])]
    else:
        found["masks"] = {file.name: file.read_bytes() for file in (out / entry["masks"]).iterdir()}
    return found


RESUMED = {
    "plain": VideoSettings(masks="ffv1"),
    "smoothed": VideoSettings(masks="ffv1", smoothing=0.5),
    "span": VideoSettings(masks="png", smoothing=0.1, start=0.2, stop=1.4, every=2, codec="mpeg4"),
    "regions": VideoSettings(masks="ffv1", regions={"a": [[[[0, 0], [20, 0], [20, 20]]]]}, codec="h264"),
}
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "mp4": ("a.mp4", {"ticks": UNEVEN, "time_base": TB, "codec": "libx264", "b_frames": 2}),
    "mkv": ("a.mkv", {"ticks": UNEVEN, "time_base": TB, "codec": "libx264"}),
    "avi": ("a.avi", {"ticks": 37, "b_frames": 2}),
}


@pytest.mark.parametrize(
    ("kind", "source"),
    [("plain", "avi"), ("smoothed", "mp4"), ("smoothed", "mkv"), ("span", "mp4"), ("regions", "mkv")],
)
def test_stopped_runs_give_the_same_files(
    kind: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "SEGMENT", 4)
    name, options = SOURCES[source]
    path = draw_video(tmp_path / name, **options)
    settings = RESUMED[kind]
    whole = tmp_path / "whole"
    expected = predict_video(predictor(), path, whole, "clip", settings)
    rng = np.random.default_rng(0)
    computed = 0

    def stopping(images: NDArray[Any]) -> NDArray[Any]:
        nonlocal computed
        computed += 1
        if rng.random() < 0.1:
            raise KeyboardInterrupt
        return by_brightness(images)

    out = tmp_path / "out"
    for _ in range(1000):
        try:
            entry = predict_video(predictor(stopping), path, out, "clip", settings)
            break
        except KeyboardInterrupt:
            leave_traces(out, rng)
    assert computed > expected["frames"]
    assert computed < 6 * expected["frames"]
    assert entry == expected
    assert content(out, entry) == content(whole, expected)
    assert [file.name for file in (out / "frames" / "clip.parts").iterdir()] == ["journal.jsonl"]


def leave_traces(out: Path, rng: np.random.Generator) -> None:
    """Leave what a process may leave that is killed: half a line of the journal, and half of a file that is not recorded."""
    parts = out / "frames" / "clip.parts"
    done = len((parts / "journal.jsonl").read_bytes().splitlines()) - 1
    if rng.random() < 0.5:
        with (parts / "journal.jsonl").open("a") as file:
            file.write('{"ticks": [1, 2')
    for suffix in (".overlays.webm", ".masks.mkv", ".jsonl", ".npz"):
        if rng.random() < 0.5:
            (parts / f"{done:06}{suffix}").write_bytes(b"half")


def test_a_process_that_is_killed_is_resumed(uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
import sys, time
sys.path[:0] = {[*sys.path, str(Path.cwd())]!r}
from pathlib import Path
from tests.api.test_video import predictor, by_brightness, VideoSettings, video
video.SEGMENT = 4
def slow(images):
    time.sleep(0.03)
    return by_brightness(images)
video.predict_video(predictor(slow), Path({str(uneven)!r}), Path({str(tmp_path / "out")!r}), "clip",
    VideoSettings(masks="ffv1", smoothing=0.5))
"""
    monkeypatch.setattr(video, "SEGMENT", 4)
    settings = VideoSettings(masks="ffv1", smoothing=0.5)
    expected = predict_video(predictor(), uneven, tmp_path / "whole", "clip", settings)
    journal = tmp_path / "out" / "frames" / "clip.parts" / "journal.jsonl"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path.cwd())
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    entry = predict_video(predictor(), uneven, tmp_path / "out", "clip", settings)
    assert entry == expected
    assert content(tmp_path / "out", entry) == content(tmp_path / "whole", expected)


def test_a_finished_video_is_not_predicted_again_until_its_parts_are_removed(uneven: Path, tmp_path: Path) -> None:
    entry = predict_video(predictor(), uneven, tmp_path, "clip")

    def never(images: NDArray[Any]) -> NDArray[Any]:
        raise AssertionError

    assert predict_video(predictor(never), uneven, tmp_path, "clip") == entry
    for change in ({"model": "other"}, {"settings": VideoSettings(every=2)}, {"overlays": False}):
        with pytest.raises(AssertionError):
            predict_video(predictor(never), uneven, tmp_path, "clip", **change)
        predict_video(predictor(), uneven, tmp_path, "clip")
    remove_parts(tmp_path, "clip")
    assert [file.name for file in (tmp_path / "frames").iterdir()] == ["clip.jsonl"]
    with pytest.raises(AssertionError):
        predict_video(predictor(never), uneven, tmp_path, "clip")


def test_a_video_that_changes_is_predicted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SEGMENT", 4)
    path = draw_video(tmp_path / "a.mp4", 20)
    count = 0

    def stopping(images: NDArray[Any]) -> NDArray[Any]:
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt
        return by_brightness(images)

    with pytest.raises(KeyboardInterrupt):
        predict_video(predictor(stopping), path, tmp_path, "clip")
    os.utime(path, (1, 1))  # a copy
    predict_video(predictor(stopping), path, tmp_path, "clip")
    assert count == 10 + 12
    remove_parts(tmp_path, "clip")
    count = 0
    with pytest.raises(KeyboardInterrupt):
        predict_video(predictor(stopping), path, tmp_path, "clip")
    draw_video(path, 25, size=(32, 32))
    entry = predict_video(predictor(stopping), path, tmp_path, "clip")
    assert count == 10 + 25
    assert entry["frames"] == 25
    assert entry["width"] == 32


# Faults


def test_of_a_truncated_video_the_frames_before_the_end_are_predicted(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mkv", 60, codec="libx264", key_every=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    entry = predict_video(predictor(), path, tmp_path, "clip")
    assert 10 < entry["frames"] < 60
    assert len(decoded(tmp_path / entry["overlay"])) == len(lines(tmp_path, entry)) == entry["frames"]
    end = lines(tmp_path, entry)[-1]["time"] + 1 / 30
    assert entry["error"] == (
        f"{path}: expected a complete Matroska video, found one that ends early (truncated) at {end:.3f} s. "
        f"The {entry['frames']} other frames were predicted. Copy or export the file again to predict all."
    )


def test_faults_are_the_same_after_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.imageio.test_video import damage

    monkeypatch.setattr(video, "SEGMENT", 4)
    path = draw_video(tmp_path / "a.mp4", 60, codec="libx264", key_every=5)
    for number in (12, 33, 51):
        damage(path, number)
    whole = predict_video(predictor(), path, tmp_path / "whole", "clip", VideoSettings(masks="ffv1"))
    assert "damaged data at 0.400 s, and 2 more places" in whole["error"]
    assert 40 < whole["frames"] < 60
    rng = np.random.default_rng(3)

    def stopping(images: NDArray[Any]) -> NDArray[Any]:
        if rng.random() < 0.08:
            raise KeyboardInterrupt
        return by_brightness(images)

    for _ in range(1000):
        try:
            entry = predict_video(predictor(stopping), path, tmp_path, "clip", VideoSettings(masks="ffv1"))
            break
        except KeyboardInterrupt:
            pass
    assert entry == whole
    assert content(tmp_path, entry) == content(tmp_path / "whole", whole)


def test_errors_leave_nothing_behind(uneven: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 5 bands, found 3"):
        predict_video(predictor(channels=5), uneven, tmp_path, "clip")
    with pytest.raises(DataError, match=r"expected frames from 100 s to 200 s, found a video of 1\.\d+ s"):
        predict_video(predictor(), uneven, tmp_path, "clip", VideoSettings(start=100, stop=200))
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ImageError, match="expected a MP4, MOV"):
        predict_video(predictor(), tmp_path / "a.mp4", tmp_path, "clip")
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "a.mp4"]


def test_large_class_ids(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mp4", 2)
    labels = Labels(LABELS.names, ids=(0, 300, 65535))
    entry = predict_video(predictor(labels=labels), path, tmp_path, "clip", VideoSettings(masks="ffv1"))
    assert {int(i) for _, ids in read_mask_video(tmp_path / entry["masks"]) for i in np.unique(ids)} <= {0, 300, 65535}
    labels = Labels(LABELS.names, ids=(0, 300, 70000))
    with pytest.raises(DataError, match="class ids up to 65535, which a video of masks can hold, found 70000"):
        predict_video(predictor(labels=labels), path, tmp_path, "clip", VideoSettings(masks="ffv1"))


# Memory, threads and settings


def test_frames_in_memory_do_not_depend_on_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw_video(tmp_path / "a.mp4", 250)
    alive = most = 0
    lock = threading.Lock()
    original = video.read_frames

    def forget() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def counting(*args: Any) -> Any:
        nonlocal alive, most
        for frame in original(*args):
            with lock:
                alive += 1
                most = max(most, alive)
            weakref.finalize(frame.image, forget)
            yield frame
            del frame

    monkeypatch.setattr(video, "read_frames", counting)
    entry = predict_video(predictor(), path, tmp_path, "clip")
    assert entry["frames"] == 250
    assert 2 < most <= 12


def test_settings() -> None:
    texts = ["predict.every=3", "predict.start=1.5", "predict.stop=2", "predict.smoothing=0.5", "predict.tile=[64,64]"]
    assert video_settings(texts) == VideoSettings(every=3, start=1.5, stop=2.0, smoothing=0.5)
    assert video_settings([]) == VideoSettings()
    assert json.loads(json.dumps(VideoSettings().to_dict())) == VideoSettings().to_dict()
    for text in ("every=0", "every=1.5", "start=-1", "stop=0", "smoothing=0", "video_codec=av1", "video_masks=gif"):
        with pytest.raises(ConfigError, match=f"predict.{text.partition('=')[0]}"):
            video_settings([f"predict.{text}"])
    with pytest.raises(
        ConfigError, match=r"predict.stop: expected a time after predict.start, found start 2 and stop 1"
    ):
        video_settings(["predict.start=2", "predict.stop=1"])
    with pytest.raises(UsageError):
        video_settings(["train.steps=3"])


def test_an_example_for_the_choice_of_an_engine(uneven: Path) -> None:
    example = example_frame(uneven)
    image, valid = example.read(Window((0, 0), example.shape))
    assert example.shape == (48, 64) == image.shape[1:]
    assert valid is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(VideoSettings(), 30), (VideoSettings(every=4), 8), (VideoSettings(start=0.5), 15), (VideoSettings(stop=0.2), 6)],
)
def test_the_number_of_frames_is_expected(settings: VideoSettings, expected: int, tmp_path: Path) -> None:
    header = read_video_header(draw_video(tmp_path / "a.mp4", 30))
    assert video.expected_frames(header, settings) == expected
