import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tests.inference.backends import FunctionBackend, predictor_of

from pixelwise import storage
from pixelwise.api.predicting import Predicted, find_sources, predict_files, predict_settings
from pixelwise.api.predicting import journal as journals
from pixelwise.api.predicting import outputs as files
from pixelwise.api.predicting import run as runs
from pixelwise.api.predicting import sources as places
from pixelwise.config import DataConfig
from pixelwise.errors import ConfigError, Interrupted, OutputExistsError, ResourceError, UsageError
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels

LABELS = Labels(("dark", "bright"), ids=(0, 7), ignore_ids=(9,))


def bright(images: NDArray[Any]) -> NDArray[Any]:
    """Logits by which everything brighter than 100 is the second class."""
    values = np.asarray(images, np.float32)[:, :1]
    return np.concatenate([np.full_like(values, 100), values], 1)


def predictor(labels: Labels = LABELS, **settings: Any) -> Predictor:
    return predictor_of(bright, labels, **({"channels": 3} | settings))


def put(root: Path, *names: str, size: tuple[int, int] = (4, 6)) -> Path:
    """Write images whose right half is bright."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, size[1] // 2 :] = 200
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


def run(sources: list[Path] | Path, out: Path, by: Predictor | None = None, **options: Any) -> Predicted:
    texts = [str(s) for s in (sources if isinstance(sources, list) else [sources])]
    return predict_files(by or predictor(), texts, out, **options)


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# Finding


def found(*sources: object) -> dict[str, str]:
    return {name: str(item.path) for name, item in find_sources([str(s) for s in sources]).items.items()}


def test_a_folder_is_searched_to_the_bottom_and_keeps_its_shape(tmp_path: Path) -> None:
    put(tmp_path, "b.png", "a.JPG", "x/a.png", "x/y/v1.2.tif")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    assert list(find_sources([str(tmp_path)]).items) == ["a", "b", "x/a", "x/y/v1.2"]


def test_hidden_files_of_a_folder_are_no_images(tmp_path: Path) -> None:
    put(tmp_path, "a.png", ".ipynb_checkpoints/a-checkpoint.png")
    (tmp_path / "._a.png").write_bytes(b"what a Mac leaves on a stick")
    assert list(find_sources([str(tmp_path)]).items) == ["a"]
    # Named, they are wanted; and a hidden folder above is no reason.
    assert list(find_sources([str(tmp_path / "._a.png"), str(tmp_path / ".ipynb_checkpoints")]).items) == [
        "._a",
        "a-checkpoint",
    ]


SYSTEM = (
    "@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg", "x/@eaDir/b.png", "SYNOPHOTO_THUMB_M.jpg", "__MACOSX/x/a.png", "x/._a.png",
    "#recycle/c.png", "$RECYCLE.BIN/c.png", "@Recycle/c.png", ".@__thumb/a.png", "lost+found/c.png",
)  # fmt: skip


def test_files_of_operating_systems_and_file_servers_are_neither_predicted_nor_read_as_data(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "x/b.png", *SYSTEM)
    own = sorted(str(tmp_path / name) for name in ("a.png", "x/b.png"))
    assert sorted(found(tmp_path).values()) == own
    assert sorted(found(tmp_path / "**" / "*.*g").values()) == own
    dataset = DatasetRoot(tmp_path, tmp_path, DataConfig())
    assert sorted(map(str, dataset.files)) == own
    assert sorted(map(str, dataset.matching("**/*.*g", "data.images"))) == own
    assert list(found(tmp_path / "x" / "@eaDir")) == ["b"]  # named


def test_files_folders_and_globs_in_the_order_given_each_once(tmp_path: Path) -> None:
    put(tmp_path, "p/a.png", "p/x/b.png", "q/c.png")
    sources = (tmp_path / "q" / "c.png", tmp_path / "p", tmp_path / "p" / "*" / "*.png", tmp_path / "p" / "a.png")
    assert found(*sources) == {
        "c": str(tmp_path / "q/c.png"),
        "a": str(tmp_path / "p/a.png"),
        "x/b": str(tmp_path / "p/x/b.png"),
    }
    assert list(found(tmp_path / "**" / "*.png")) == ["a", "b", "c"]


def test_equal_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    put(tmp_path, "p/a.png", "p/a.jpg", "q/a.png", "q/a-png.png")
    names = found(tmp_path / "p", tmp_path / "q")
    assert sorted(Path(p).name for p in names.values()) == ["a-png.png", "a.jpg", "a.png", "a.png"]
    assert len(names) == 4
    assert found(tmp_path / "p", tmp_path / "q") == names


def test_a_name_with_signs_of_a_glob_is_a_name_first(tmp_path: Path) -> None:
    put(tmp_path, "a[1].png", "a1.png")
    assert found(tmp_path / "a[1].png") == {"a[1]": str(tmp_path / "a[1].png")}


@pytest.mark.parametrize("source", ["none.png", "empty", "*.tif"])
def test_a_source_without_images_is_named(tmp_path: Path, source: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as error:
        find_sources([str(tmp_path / "a.png"), str(tmp_path / source)])
    assert str(error.value) == (
        f"{tmp_path / source}: expected an image, a folder of images or a glob, found none. Check the path."
    )


# Predicting


def test_what_is_written(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png", "x/b.jpg")
    result = run(tmp_path / "in", tmp_path / "out", probabilities=True)
    assert tree(tmp_path / "out") == [
        "masks/a.png",
        "masks/x/b.png",
        "overlays/a.png",
        "overlays/x/b.png",
        "predictions.json",
        "probabilities/a.npz",
        "probabilities/x/b.npz",
    ]
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert mask.mode == "P"
        assert np.asarray(mask)[0].tolist() == [0, 0, 0, 7, 7, 7]  # ids of files, not indices
    with np.load(tmp_path / "out/probabilities/a.npz") as both:
        assert both["probabilities"].dtype == np.float16
        assert both["probabilities"].shape == (2, 4, 6)
    plain = json.loads((tmp_path / "out/predictions.json").read_bytes())
    assert plain["images"][0] == {
        "file": str(tmp_path / "in/a.png"),
        "height": 4,
        "width": 6,
        "mask": "masks/a.png",
        "overlay": "overlays/a.png",
        "probabilities": "probabilities/a.npz",
        "shares": {"dark": 0.5, "bright": 0.5},
        "classes": {"dark": {"pixels": 12}, "bright": {"pixels": 12}},
    }
    assert plain["totals"]["bright"]["pixels"] > 12
    assert plain["labels"] == LABELS.to_dict()
    assert plain["failed"] == []
    assert {k: plain[k] for k in ("folder", "images", "failed")} == json.loads(json.dumps(result.to_dict()))


def scene(path: Path, nodata: str, dtype: str) -> Path:
    """Write a raster whose right half is bright, and whose first two columns hold nothing."""
    pixels = np.full((4, 6, 3), 50, dtype)
    pixels[:, :2], pixels[:, 3:] = float(nodata), 200
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(42113, "s", 0, nodata, True)])
    return path


@pytest.mark.parametrize(("nodata", "dtype"), [("0", "uint8"), ("nan", "float32"), ("-9999", "float32")])
def test_pixels_without_data_get_no_class(tmp_path: Path, nodata: str, dtype: str) -> None:
    result = run(scene(tmp_path / "in/a.tif", nodata, dtype), tmp_path / "out")
    assert not result.failed
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert np.asarray(mask).tolist() == [[9, 9, 0, 7, 7, 7]] * 4
    assert result.images[0]["shares"] == {"dark": 0.166667, "bright": 0.5}


def test_labels_without_an_ignored_id_mark_nodata_by_the_largest_unused_value(tmp_path: Path) -> None:
    full = Labels(("dark", "bright"), ids=(0, 255))
    run(scene(tmp_path / "in/a.tif", "0", "uint8"), tmp_path / "out", predictor(full))
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert np.asarray(mask).tolist() == [[254, 254, 0, 255, 255, 255]] * 4


def test_only_masks(tmp_path: Path) -> None:
    run(put(tmp_path / "in", "a.png"), tmp_path / "out", overlays=False)
    assert tree(tmp_path / "out") == ["masks/a.png", "predictions.json"]


def test_a_bad_file_among_good_ones_is_named_and_stops_nothing(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png", "z.png")
    (tmp_path / "in/b.png").write_text("no image")
    (tmp_path / "in/c.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:60])
    Image.new("L", (4, 4)).save(tmp_path / "in/d.png")
    seen: list[tuple[int, int, str]] = []
    result = run(tmp_path / "in", tmp_path / "out", progress=lambda *event: seen.append(event))
    assert [Path(e["file"]).name for e in result.images] == ["a.png", "z.png"]
    assert [Path(f["file"]).name for f in result.failed] == ["b.png", "c.png", "d.png"]
    for failure in result.failed:
        assert failure["error"].startswith(f"{failure['file']}: expected ")
    assert json.loads((tmp_path / "out/predictions.json").read_bytes())["failed"] == list(result.failed)
    assert [p.name for p in sorted((tmp_path / "out/masks").iterdir())] == ["a.png", "z.png"]
    assert [(done, total) for done, total, _ in seen] == [(k, 5) for k in range(1, 6)]


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 16 GiB"), RuntimeError("can't allocate memory: 12")])
def test_a_image_too_large_for_the_memory_is_named_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put(tmp_path / "in", "a.png", "huge.png", "z.png")
    real = places.open_source

    def short_of_memory(path: Path, **options: Any) -> Any:
        if path.name == "huge.png":
            raise error
        return real(path, **options)

    monkeypatch.setattr(places, "open_source", short_of_memory)
    result = run(tmp_path / "in", tmp_path / "out")
    assert [Path(e["file"]).name for e in result.images] == ["a.png", "z.png"]
    assert (
        f"huge.png: expected enough memory, found {error}. Predict it on a machine with more memory"
        in result.failed[0]["error"]
    )


def test_masks_that_somebody_drew_are_no_earlier_result(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png")
    put(tmp_path / "drawn" / "masks", "a.png")
    before = (tmp_path / "drawn" / "masks" / "a.png").read_bytes()
    with pytest.raises(OutputExistsError, match=r"found masks\. Choose another --out"):
        run(tmp_path / "in", tmp_path / "drawn", overwrite=True)
    assert (tmp_path / "drawn" / "masks" / "a.png").read_bytes() == before


# Stopping and resuming


class Counting:
    """Count the images that are computed; stop before image number `stop`."""

    def __init__(self, stop: int = -1) -> None:
        self.count = 0
        self.stop = stop

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        if self.count == self.stop:
            raise KeyboardInterrupt
        self.count += 1
        return bright(images)


def interrupted(folder: Path, out: Path, after: int = 3, **options: Any) -> None:
    with pytest.raises(Interrupted) as error:
        run(folder, out, predictor_of(Counting(after), LABELS, channels=3), **options)
    assert error.value.exit_code == 130
    expected = r"interrupted; \d+ of \d+ files are finished\. Run the same command again to resume\."
    assert re.fullmatch(f"{re.escape(str(out))}: {expected}", str(error.value))


def test_an_interrupted_folder_is_resumed_and_equals_one_that_was_not(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(8)))
    run(tmp_path / "in", tmp_path / "whole")
    interrupted(tmp_path / "in", tmp_path / "out", after=5)
    assert "journal.jsonl" in tree(tmp_path / "out")
    done = len((tmp_path / "out/journal.jsonl").read_text().splitlines()) - 1
    assert done == 5
    seen: list[tuple[int, int]] = []
    rest = Counting()
    again = predictor_of(rest, LABELS, channels=3)
    result = run(tmp_path / "in", tmp_path / "out", again, progress=lambda n, of, _: seen.append((n, of)))
    assert rest.count == 8 - done
    assert seen == [(k, 8) for k in range(1, 9)]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    for name in tree(tmp_path / "whole"):
        one, other = (tmp_path / place / name for place in ("whole", "out"))
        assert one.read_bytes().replace(b"whole", b"out") == other.read_bytes().replace(b"whole", b"out")
    assert len(result.images) == 8


def test_even_with_overwrite_the_same_command_resumes(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(6)))
    interrupted(tmp_path / "in", tmp_path / "out", after=4)
    rest = Counting()
    run(tmp_path / "in", tmp_path / "out", predictor_of(rest, LABELS, channels=3), overwrite=True)
    assert rest.count == 2


@pytest.mark.parametrize("change", ["sources", "tile", "overlays", "model"])
def test_another_command_does_not_resume(tmp_path: Path, change: str) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(6)))
    interrupted(tmp_path / "in", tmp_path / "out")
    sources = tmp_path / "in" / "0.png" if change == "sources" else tmp_path / "in"
    by = predictor(tile=(64, 64)) if change == "tile" else predictor()
    options: dict[str, Any] = {"overlays": change != "overlays", "model": "another" if change == "model" else ""}
    with pytest.raises(
        OutputExistsError, match=rf"expected an unfinished prediction with the same {change}, found one"
    ):
        run(sources, tmp_path / "out", by, **options)
    run(sources, tmp_path / "out", by, **options, overwrite=True)
    assert "journal.jsonl" not in tree(tmp_path / "out")


def test_changed_inputs_and_lost_outputs_are_predicted_again(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(6)))
    interrupted(tmp_path / "in", tmp_path / "out", after=5)
    lines = (tmp_path / "out/journal.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 5
    put(tmp_path / "in", "0.png", size=(6, 8))
    (tmp_path / "out/masks/1.png").unlink()
    rest = Counting()
    run(tmp_path / "in", tmp_path / "out", predictor_of(rest, LABELS, channels=3))
    assert rest.count == 1 + 2
    with Image.open(tmp_path / "out/masks/0.png") as mask:
        assert mask.size == (8, 6)
    assert (tmp_path / "out/masks/1.png").exists()


def test_an_image_that_changes_while_it_is_computed_is_predicted_again(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(4)))
    count = Counting(3)

    def change(images: NDArray[Any]) -> NDArray[Any]:
        if count.count == 1:
            put(tmp_path / "in", "1.png", size=(6, 8))
        return count(images)

    with pytest.raises(Interrupted):
        run(tmp_path / "in", tmp_path / "out", predictor_of(change, LABELS, channels=3))
    rest = Counting()
    run(tmp_path / "in", tmp_path / "out", predictor_of(rest, LABELS, channels=3))
    assert rest.count == 1 + 1
    with Image.open(tmp_path / "out/masks/1.png") as mask:
        assert mask.size == (8, 6)


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_moved_inputs_and_outputs_are_resumed(tmp_path: Path, how: str) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(6)))
    interrupted(tmp_path / "in", tmp_path / "out", after=4)
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "elsewhere" / "images"
    if how == "moved":
        (tmp_path / "in").rename(place)
    else:
        place.mkdir()
        for path in (tmp_path / "in").iterdir():
            (place / path.name).write_bytes(path.read_bytes())
    put(place, "1.png", size=(6, 8))  # changed in its new place
    out = (tmp_path / "out").rename(tmp_path / "renamed")
    rest = Counting()
    result = run(place, out, predictor_of(rest, LABELS, channels=3))
    assert rest.count == 2 + 1
    assert [image["file"] for image in result.images] == [str(place / f"{k}.png") for k in range(6)]


def test_a_journal_that_was_cut_in_a_line_is_resumed(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(6)))
    interrupted(tmp_path / "in", tmp_path / "out", after=5)
    journal = tmp_path / "out/journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert len(run(tmp_path / "in", tmp_path / "out").images) == 6


def test_volumes_are_predicted_slice_by_slice(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    values = np.zeros((6, 5, 4), np.int16)
    values[:3, :, 1:] = 200
    affine = np.array([[0, -2, 0, 5], [3, 0, 0, -7], [0, 0, 9, 1], [0, 0, 0, 1.0]])
    (tmp_path / "in").mkdir()
    nibabel.Nifti1Image(values, affine).to_filename(tmp_path / "in/scan.nii.gz")
    result = run(tmp_path / "in", tmp_path / "out", predictor(channels=1), probabilities=True)
    assert not result.failed
    assert {key: result.images[0][key] for key in ("depth", "mask", "overlay")} == {
        "depth": 4, "mask": "masks/scan.nii.gz", "overlay": "overlays/scan.png",
    }  # fmt: skip
    found = nibabel.load(tmp_path / "out/masks/scan.nii.gz")
    np.testing.assert_array_equal(found.affine, affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.where(values > 100, 7, 0))
    with np.load(tmp_path / "out/probabilities/scan.npz") as both:
        assert both["probabilities"].shape[:2] == (2, 4)
    assert result.images[0]["shares"]["bright"] == 0.375


def test_a_geotiff_is_predicted_as_a_geotiff(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    pixels = np.full((3, 4, 6), 50, np.uint8)
    pixels[:, :, 3:] = 200
    pixels[:, 0] = 0
    transform = rasterio.Affine(0.5, 0.1, 300_000, 0.1, -0.5, 5_000_000)
    (tmp_path / "in").mkdir()
    place = {"crs": "EPSG:32632", "transform": transform, "nodata": 0}
    with rasterio.open(
        tmp_path / "in/a.tif", "w", driver="GTiff", width=6, height=4, count=3, dtype="uint8", **place
    ) as f:
        f.write(pixels)
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.images[0]["mask"] == "masks/a.tif"
    with rasterio.open(tmp_path / "out/masks/a.tif") as found:
        assert found.crs == rasterio.CRS.from_epsg(32632)
        assert found.transform.almost_equals(transform)
        assert found.nodata == 9
        assert found.read(1).tolist() == [[9] * 6] + [[0, 0, 0, 7, 7, 7]] * 3
        assert found.colormap(1)[7][:3] == LABELS.colours[1]


def test_a_killed_process_loses_no_finished_file(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(10)))
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.api.test_predicting import LABELS, Counting, predictor_of, run\n"
        "seen = []\n"
        "def kill(done, total, name):\n"
        "    if done == 4: os.kill(os.getpid(), 9)\n"
        f"run(Path({str(tmp_path / 'in')!r}), Path({str(tmp_path / 'out')!r}), progress=kill)\n"
    )
    top = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=top, check=False).returncode == -9
    rest = Counting()
    result = run(tmp_path / "in", tmp_path / "out", predictor_of(rest, LABELS, channels=3))
    assert len(result.images) == 10
    assert rest.count <= 6


def test_decoding_computing_and_writing_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an image is computed, the next one is decoded and the one before is written, in other threads."""
    put(tmp_path / "in", *(f"{k}.png" for k in range(6)))
    threads: dict[str, set[str]] = {"read": set(), "write": set(), "compute": set()}
    real = places.open_source

    def read(path: Path, **options: Any) -> Any:
        threads["read"].add(threading.current_thread().name)
        return real(path, **options)

    written = files.write_prediction

    def write(*arguments: Any, **options: Any) -> Any:
        threads["write"].add(threading.current_thread().name)
        return written(*arguments, **options)

    def compute(images: NDArray[Any]) -> NDArray[Any]:
        threads["compute"].add(threading.current_thread().name)
        return bright(images)

    monkeypatch.setattr(places, "open_source", read)
    monkeypatch.setattr(files, "write_prediction", write)
    run(tmp_path / "in", tmp_path / "out", predictor_of(compute, LABELS, channels=3))
    assert len(threads["compute"]) == 1
    assert len(threads["read"]) == 1
    assert all(name.startswith("write") for name in threads["write"])
    assert not threads["compute"] & (threads["read"] | threads["write"])
    assert not threads["read"] & threads["write"]


def test_many_files_are_computed_at_the_same_time_where_the_backend_can(tmp_path: Path) -> None:
    """Two calls meet: each waits for the other. A few files are not worth preparing the backend for it."""
    put(tmp_path / "in", *(f"{k}.png" for k in range(10)))
    meeting = threading.Barrier(2)

    class Several(FunctionBackend):
        calls = 2

        @property
        def concurrent(self) -> "Several":
            def compute(images: NDArray[Any]) -> NDArray[Any]:
                meeting.wait(timeout=20)
                return bright(images)

            return Several(compute, self.spec)

    one = predictor()
    several = Predictor(Several(bright, one.spec))
    expected = run(tmp_path / "in", tmp_path / "one", one)
    result = run(tmp_path / "in", tmp_path / "several", several)
    assert [entry["file"] for entry in result.images] == [entry["file"] for entry in expected.images]
    for entry in result.images:
        mask = entry["mask"]
        assert (tmp_path / "several" / mask).read_bytes() == (tmp_path / "one" / mask).read_bytes()
    meeting.abort()
    assert len(run(put(tmp_path / "few", "a.png", "b.png"), tmp_path / "others", several).images) == 2


def test_a_file_is_recorded_once_its_outputs_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(9)))
    flushed: list[Path] = []
    flush, add, recorded = storage._flush, journals.Journal.add, []

    def record(journal: Any, name: str, state: Any, entry: dict[str, Any]) -> None:
        outputs = [tmp_path / "out" / entry[key] for key in ("mask", "overlay")]
        assert all(output.is_file() for output in outputs)
        seen = list(flushed)
        assert all(output.with_name(f".{output.name}.tmp") in seen and output.parent in seen for output in outputs)
        recorded.append(name)
        add(journal, name, state, entry)

    def flushing(path: Path) -> None:
        flush(path)
        flushed.append(path)

    monkeypatch.setattr(storage, "_flush", flushing)
    monkeypatch.setattr(journals.Journal, "add", record)
    assert len(run(tmp_path / "in", tmp_path / "out").images) == 9
    assert sorted(recorded) == [str(k) for k in range(9)]


def test_results_are_in_the_order_of_the_sources_however_long_they_take_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(6)))
    write, rest_written = files.write_prediction, threading.Event()
    finished: list[str] = []

    def slow_first(prediction: Any, path: Path, like: Any) -> Path:
        if path.stem == "0":
            assert rest_written.wait(10)
        written = write(prediction, path, like)
        finished.append(path.stem)
        if len(finished) == 5:
            rest_written.set()
        return written

    monkeypatch.setattr(files, "write_prediction", slow_first)
    seen: list[str] = []
    result = run(tmp_path / "in", tmp_path / "out", progress=lambda done, total, name: seen.append(Path(name).stem))
    assert finished[-1] == "0"
    assert seen == [str(k) for k in range(6)]
    assert [Path(image["file"]).stem for image in result.images] == seen


def test_of_large_images_one_waits_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", *(f"{k}.png" for k in range(8)))
    write, writing, most = files.write_prediction, [], [0]
    pixels = 4 * 6 * 4  # the image and its mask

    def counted(prediction: Any, path: Path, like: Any) -> Path:
        writing.append(path)
        time.sleep(0.01)
        most[0] = max(most[0], len(writing))
        written = write(prediction, path, like)
        writing.remove(path)
        return written

    monkeypatch.setattr(files, "write_prediction", counted)
    run(tmp_path / "in", tmp_path / "many")
    assert most[0] > 2
    most[0] = 0
    monkeypatch.setattr(runs, "_BEHIND_BYTES", pixels)
    run(tmp_path / "in", tmp_path / "few")
    assert most[0] <= 2


def test_lack_of_memory_while_writing_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", "a.png", "b.png", "c.png")
    write = files.write_prediction

    def short_of_memory(prediction: Any, path: Path, like: Any) -> Path:
        if path.stem == "b":
            raise MemoryError
        return write(prediction, path, like)

    monkeypatch.setattr(files, "write_prediction", short_of_memory)
    result = run(tmp_path / "in", tmp_path / "out")
    assert [Path(image["file"]).stem for image in result.images] == ["a", "c"]
    assert "b.png: expected enough memory" in result.failed[0]["error"]


def test_settings_of_the_configuration(tmp_path: Path) -> None:
    assert predict_settings(()) == ({}, {})
    fields, outputs = predict_settings(("predict.tile=[64, 32]", "predict.flips=true", "predict.confidence=true"))
    assert fields == {"tile": (64, 32), "flips": True}
    assert outputs == {"confidence": True}
    assert predict_settings(("predict.tile=null",)) == ({"tile": None}, {})
    with pytest.raises(UsageError, match=r"--set train.steps=3: expected a key of predict"):
        predict_settings(("train.steps=3",))
    with pytest.raises(ConfigError, match=r"unknown key `predict.tyle`\. Did you mean 'tile'"):
        predict_settings(("predict.tyle=3",))


def test_a_full_disk_is_not_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_flush", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        run(put(tmp_path / "in", "a.png"), tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_file_name_that_is_no_text_spoils_nothing(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        put(tmp_path / "in", "a.png", name)
    except OSError:
        pytest.skip("this file system takes text only")
    result = run(tmp_path / "in", tmp_path / "out")
    assert len(result.images) == 2
    plain = json.loads((tmp_path / "out/predictions.json").read_bytes())
    assert [Path(e["file"]).name for e in plain["images"]] == ["a.png", name]


# Where it goes


def test_what_stands_in_out_is_kept_unless_it_is_an_earlier_result(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png", "b.png")
    run(tmp_path / "in", tmp_path / "out")
    with pytest.raises(OutputExistsError, match=r"found files in it\. Choose another --out, or add --overwrite"):
        run(tmp_path / "in" / "b.png", tmp_path / "out")
    run(tmp_path / "in" / "b.png", tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == ["masks/b.png", "overlays/b.png", "predictions.json"]
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(OutputExistsError, match=r"expected only an earlier result to replace, found notes\.txt\."):
        run(tmp_path / "in", tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_images_are_never_what_is_replaced(tmp_path: Path, overwrite: bool) -> None:
    put(tmp_path / "in", "a.png", "masks/b.png")
    for out in (tmp_path / "in", tmp_path / "in" / "masks"):
        with pytest.raises(UsageError):
            run(tmp_path / "in" / "masks", out, overwrite=overwrite)
    assert tree(tmp_path / "in") == ["a.png", "masks/b.png"]


def test_results_inside_the_source_folder_are_no_images_the_next_time(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png")
    for overwrite in (False, True):
        result = run(tmp_path / "in", tmp_path / "in" / "out", overwrite=overwrite)
        assert [e["file"] for e in result.images] == [str(tmp_path / "in/a.png")]
        assert not result.failed


def test_a_missing_source_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()
