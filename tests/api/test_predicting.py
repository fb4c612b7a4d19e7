import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pixelwise import storage
from pixelwise.api import predicting as files
from pixelwise.api.predicting import Predicted, find_sources, predict_files
from pixelwise.errors import DataError, OutputExistsError, ResourceError, UsageError
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.types import Prediction


class Bright:
    """A predictor without a model: what is brighter than 100 is the second class."""

    labels = Labels(("dark", "bright"), ids=(0, 7), ignore_ids=(9,))

    def __call__(self, image: NDArray[Any], grid: Grid, id: str = "", probabilities: bool = False) -> Prediction:
        if len(image) != 3:
            raise DataError(id, expected="3 bands", found=str(len(image)), do="Give RGB.")
        mask = (image[0] > 100).astype(np.uint8)
        both = np.stack([1 - mask, mask]).astype(np.float32) if probabilities else None
        return Prediction(mask, self.labels, grid, id, both)


def put(root: Path, *names: str, size: tuple[int, int] = (4, 6)) -> Path:
    """Write images whose right half is bright."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, size[1] // 2 :] = 200
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


def run(sources: list[Path] | Path, out: Path, **options: Any) -> Predicted:
    texts = [str(s) for s in (sources if isinstance(sources, list) else [sources])]
    return predict_files(Bright(), texts, out, **options)  # type: ignore[arg-type]


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# Finding


def found(*sources: object) -> dict[str, str]:
    return {name: str(path) for name, path in find_sources([str(s) for s in sources]).items()}


def test_a_folder_is_searched_to_the_bottom_and_keeps_its_shape(tmp_path: Path) -> None:
    put(tmp_path, "b.png", "a.JPG", "x/a.png", "x/y/v1.2.tif")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    assert list(find_sources([str(tmp_path)])) == ["a", "b", "x/a", "x/y/v1.2"]


def test_hidden_files_of_a_folder_are_no_images(tmp_path: Path) -> None:
    put(tmp_path, "a.png", ".ipynb_checkpoints/a-checkpoint.png")
    (tmp_path / "._a.png").write_bytes(b"what a Mac leaves on a stick")
    assert list(find_sources([str(tmp_path)])) == ["a"]
    # Named, they are wanted; and a hidden folder above is no reason.
    assert list(find_sources([str(tmp_path / "._a.png"), str(tmp_path / ".ipynb_checkpoints")])) == [
        "._a",
        "a-checkpoint",
    ]


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


def test_a_volume_is_told_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(
        UsageError, match=r"a\.nii\.gz: expected an image, .*, found a volume\. Volumes are not predicted yet"
    ):
        find_sources([str(tmp_path / "a.nii.gz")])


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
    }
    assert plain["labels"] == Bright.labels.to_dict()
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


def test_pixels_without_data_keep_a_class_where_no_id_stands_for_none(tmp_path: Path) -> None:
    class Full(Bright):
        labels = Labels(("dark", "bright"), ids=(0, 255))

    path = scene(tmp_path / "a.tif", "0", "uint8")
    image, prediction = files.predict_file(Full(), path)  # type: ignore[arg-type]
    assert image.shape == (3, 4, 6)
    assert prediction.mask.tolist() == [[0, 0, 0, 1, 1, 1]] * 4


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
    real = files.read_measured

    def short_of_memory(path: Path, nodata: float | None) -> Any:
        if path.name == "huge.png":
            raise error
        return real(path, nodata)

    monkeypatch.setattr(files, "read_measured", short_of_memory)
    result = run(tmp_path / "in", tmp_path / "out")
    assert [Path(e["file"]).name for e in result.images] == ["a.png", "z.png"]
    assert f"huge.png: expected enough memory, found {error}. Predict it alone" in result.failed[0]["error"]


def test_masks_that_somebody_drew_are_no_earlier_result(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png")
    put(tmp_path / "drawn" / "masks", "a.png")
    before = (tmp_path / "drawn" / "masks" / "a.png").read_bytes()
    with pytest.raises(OutputExistsError, match=r"found masks\. Choose another --out"):
        run(tmp_path / "in", tmp_path / "drawn", overwrite=True)
    assert (tmp_path / "drawn" / "masks" / "a.png").read_bytes() == before


def test_what_was_left_half_done_can_be_replaced(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", progress=stop)
    assert "predictions.json" in tree(tmp_path / "out")
    run(tmp_path / "in", tmp_path / "out", overwrite=True)


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
