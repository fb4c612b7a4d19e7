"""The contract of `measure`: it accepts every file that `predict` writes and every mask that is read, with the counts of numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import nrrd
import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from tests.contracts.test_evaluated_predictions import KINDS, LABELS, Backend, image, small
from tests.imageio.dicom_objects import write_series
from tests.imageio.drawn_videos import decoded, draw_video

import pixelwise
from pixelwise.api.predicting import predict_files
from pixelwise.api.predicting.video import VideoSettings
from pixelwise.errors import DataError, GridMismatchError
from pixelwise.imageio.dicom_seg_writing import write_dicom_seg
from pixelwise.imageio.sources import open_source
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels

__all__ = ["small"]

SIZE = (23, 17)
SHAPE = (4, 6, 5)
Values = NDArray[Any]


def counts(result: Any) -> Counter[str]:
    """Return the pixels by class, after comparing them with those of the regions."""
    found: Counter[str] = Counter()
    for each in result.classes:
        found[each.name] += each.pixels
    regions: Counter[str] = Counter()
    for each in result.regions:
        regions[each.class_name] += each.pixels
    assert +found == +regions
    return +found


# What `predict` writes


def classes_of(source: Path) -> Values:
    """Return the classes that `Backend` gives, (*S), without pixels that hold no data."""
    values, valid = open_source(source).read()
    scores = np.stack([np.sin(values[0].astype(np.float32) + 2 * k) for k in range(3)])
    found = scores.argmax(0)
    return found if valid is None else found[valid]


def bitmaps(suffix: str, **options: Any) -> Callable[[Path], list[Path]]:
    def write(root: Path) -> list[Path]:
        (root / "images").mkdir()
        Image.fromarray(np.moveaxis(image(3), 0, -1)).save(root / f"images/a{suffix}", **options)
        return [root / f"images/a{suffix}"]

    return write


PREDICTED: dict[str, tuple[Callable[[Path], list[Path]], int, dict[str, Any]]] = {
    **KINDS,
    "jpeg": (bitmaps(".jpg"), 3, {}),
    "webp": (bitmaps(".webp", lossless=True), 3, {}),
    "bmp": (bitmaps(".bmp"), 3, {}),
    "jpeg 2000": (bitmaps(".jp2"), 3, {}),
    "pnm": (bitmaps(".ppm"), 3, {}),
    "confidence": (KINDS["geotiff"][0], 3, {"confidence": True}),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", PREDICTED)
def test_masks_that_predict_writes(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write, channels, options = PREDICTED[kind]
    if kind == "scene":
        request.getfixturevalue("small")
    (tmp_path / "data").mkdir()
    sources = write(tmp_path / "data")
    done = predict_files(Predictor(Backend(channels)), [*map(str, sources)], tmp_path / "out", **options)
    assert not done.failed, done.failed
    files = [path for source in sources for path in (sorted(source.rglob("*.*")) if source.is_dir() else [source])]
    files = sources if kind.startswith("dicom") else [path for path in files if path.is_file()]
    every = np.concatenate([classes_of(path).reshape(-1) for path in files])
    expected = Counter({name: int((every == k).sum()) for k, name in enumerate(LABELS.names)})
    listed = pixelwise.measure(tmp_path / "out")
    assert counts(listed) == expected
    # Without their list, the masks name their classes or not; the numbers are the same.
    alone = counts(pixelwise.measure(tmp_path / "out/masks"))
    assert sorted(alone.values()) == sorted(expected.values())
    masks = sorted(path for path in (tmp_path / "out/masks").rglob("*") if path.suffix not in ("", ".xml"))
    single = sum((counts(pixelwise.measure(path)) for path in masks), Counter())
    assert sorted(single.values()) == sorted(expected.values())
    units = {each.size.unit for each in listed.classes}
    assert {each.size.unit for each in pixelwise.measure(tmp_path / "out/masks").classes} == units


@pytest.mark.parametrize("masks", ["png", "ffv1"])
def test_masks_of_videos_that_predict_writes(masks: str, tmp_path: Path) -> None:
    path = draw_video(tmp_path / "clip.mp4", 7)
    backend = Predictor(Backend(3))
    settings = VideoSettings(masks=masks, every=2)
    done = predict_files(backend, [str(path)], tmp_path / "out", video=settings)
    assert not done.failed
    result = pixelwise.measure(tmp_path / "out")
    found = {(each.image, each.name): each.pixels for each in result.classes}
    for number, (_, pixels) in enumerate(decoded(path)):
        values = np.stack([np.sin(pixels[..., 0].astype(np.float32) + 2 * k) for k in range(3)]).argmax(0)
        for k, name in enumerate(LABELS.names):
            expected = int((values == k).sum()) if number % 2 == 0 else None
            assert found.get((f"{path} frame {number}", name)) == expected
    assert not any("not measured" in notice for notice in result.notices)


def test_videos_without_masks_are_named_with_advice(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "clip.mp4", 3)
    predict_files(Predictor(Backend(3)), [str(path)], tmp_path / "out", video=VideoSettings())
    with pytest.raises(DataError, match=r"found only videos without\. Predict them again, with masks"):
        pixelwise.measure(tmp_path / "out")


# Masks of any tool


def pillow(mode: str = "L", **options: Any) -> Callable[[Path, Values], None]:
    def write(path: Path, mask: Values) -> None:
        picture = Image.fromarray(mask)
        if mode == "P":
            picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
        (picture if mode == "P" else picture.convert(mode)).save(path, **options)

    return write


def tiff(dtype: str, **options: Any) -> Callable[[Path, Values], None]:
    return lambda path, mask: tifffile.imwrite(path, mask.astype(dtype), **options)


def geotiff(crs: str, transform: Affine, **options: Any) -> Callable[[Path, Values], None]:
    def write(path: Path, mask: Values) -> None:
        about = {"dtype": mask.dtype, "crs": crs, "transform": transform, **options}
        with rasterio.open(path, "w", "GTiff", mask.shape[1], mask.shape[0], 1, **about) as file:
            file.write(mask, 1)

    return write


def nifti(dtype: str = "uint8", slope: float = 1, affine: Values | None = None) -> Callable[[Path, Values], None]:
    def write(path: Path, mask: Values) -> None:
        file = nibabel.Nifti1Image(mask.astype(dtype), np.diag([-0.8, 0.7, 2.5, 1]) if affine is None else affine)
        file.header.set_slope_inter(slope, 0)
        nibabel.save(file, path)

    return write


def write_nrrd(path: Path, mask: Values, **fields: Any) -> None:
    place = {
        "space": "left-posterior-superior",
        "space directions": np.diag([0.8, 0.7, 2.5]),
        "space origin": [1, 2, 3],
    }
    nrrd.write(str(path), mask, {**place, **fields})


def segmentation(kind: Any) -> Callable[[Path, Values], None]:
    def write(path: Path, mask: Values) -> None:
        names = ("background", *(f"organ {k}" for k in range(1, 4)))
        write_dicom_seg(
            path, mask, Labels(names), write_series(path.parent.parent / "series", mask.shape), segmentation_type=kind
        )

    return write


UTM, TURNED = Affine(2, 0, 5e5, 0, -2, 5.6e6), Affine(1.7, 1, 5e5, 1, -1.7, 5.6e6)
SHEARED = np.array([[-0.8, 0.2, 0, 1], [0, 0.7, 0.1, 2], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])
FEW, MANY = (0, 1, 2, 3), (0, 1, 7, 300, 999)
READ: dict[str, tuple[str, Callable[[Path, Values], Any], tuple[int, ...]]] = {
    "grey PNG": (".png", pillow(), FEW),
    "palette PNG": (".png", pillow("P"), FEW),
    "PNG of 1 bit": (".png", lambda path, mask: Image.fromarray(mask > 0).save(path), (0, 1)),
    "PNG of 16 bits": (".png", lambda path, mask: path.write_bytes(imagecodecs.png_encode(mask.astype("u2"))), MANY),
    "PNG of equal bands": (".png", pillow("RGB"), FEW),
    "BMP": (".bmp", pillow(), FEW),
    "GIF": (".gif", pillow(), FEW),
    "lossless WebP": (".webp", pillow("RGB", lossless=True), FEW),
    "PGM": (".pgm", pillow(), FEW),
    "NumPy": (".npy", np.save, FEW),
    "NumPy of int64": (".npy", lambda path, mask: np.save(path, mask.astype(np.int64)), MANY),
    "NumPy archive": (".npz", lambda path, mask: np.savez_compressed(path, mask=mask), FEW),
    "TIFF": (".tif", tiff("uint8"), FEW),
    "TIFF of 16 bits": (".tiff", tiff("uint16", compression="zlib", tile=(16, 16)), MANY),
    "TIFF of int32": (".tif", tiff("int32", byteorder=">"), MANY),
    "TIFF of whole float32": (".tif", tiff("float32"), MANY),
    "BigTIFF": (".tif", tiff("uint8", bigtiff=True, compression="lzw"), FEW),
    "GeoTIFF": (".tif", geotiff("EPSG:32632", UTM, tiled=True, blockxsize=16, blockysize=16), FEW),
    "turned GeoTIFF": (".tif", geotiff("EPSG:32632", TURNED, compress="deflate"), FEW),
    "GeoTIFF in degrees": (".tif", geotiff("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 50)), MANY),
    "NIfTI": (".nii", nifti(), FEW),
    "compressed NIfTI": (".nii.gz", nifti("int16"), MANY),
    "NIfTI of whole float64": (".nii.gz", nifti("float64"), MANY),
    "sheared NIfTI": (".nii.gz", nifti(affine=SHEARED), FEW),
    "NRRD": (".nrrd", write_nrrd, FEW),
    "raw NRRD": (".nrrd", lambda path, mask: write_nrrd(path, mask.astype(np.int16), encoding="raw"), MANY),
    "NRRD with a header of its own": (".nhdr", write_nrrd, FEW),
    "DICOM binary": (".dcm", segmentation("binary"), FEW),
    "DICOM label map": (".dcm", segmentation("labelmap"), FEW),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", READ)
def test_masks_of_any_tool(kind: str, tmp_path: Path) -> None:
    suffix, write, ids = READ[kind]
    folder = tmp_path / "some masks"
    folder.mkdir()
    flat = suffix not in (".nii", ".nii.gz", ".nrrd", ".nhdr", ".dcm")
    masks = []
    for number in range(1 if suffix == ".dcm" else 2):
        rng = np.random.default_rng(number)
        mask = rng.choice(ids, SIZE if flat else SHAPE).astype(np.uint8 if ids != MANY else np.int32)
        mask.reshape(-1)[: len(ids)] = ids
        write(folder / f"{number}{suffix}", mask)
        masks.append(mask)
    result = pixelwise.measure(folder)
    every = np.concatenate([mask.reshape(-1) for mask in masks])
    expected = Counter({id_: int((every == id_).sum()) for id_ in ids})
    found = counts(result)
    if suffix == ".dcm":
        assert [found[name] for name in ("background", *(f"organ {k}" for k in FEW[1:]))] == [*expected.values()]
    else:
        assert found == {f"class {id_}": count for id_, count in expected.items()}
    for each in result.classes:
        assert each.size.low is each.size.high is None
        assert each.size.note
    single = counts(pixelwise.measure(folder / f"0{suffix}"))
    assert sum(single.values()) == masks[0].size
    if not flat:
        volume = {".dcm": 2.5 * 0.8 * 0.6}.get(
            suffix, abs(np.linalg.det(SHEARED[:3, :3])) if "sheared" in kind else 1.4
        )
        total = sum(each.size.value for each in result.classes)
        assert {each.size.unit for each in result.classes} == {"ml"}
        assert total == pytest.approx(every.size * volume / 1000, rel=1e-5)
    elif "turned" in kind:
        total = sum(each.size.value for each in result.classes)
        assert total == pytest.approx(every.size * (1.7**2 + 1) / 0.9996**2, rel=1e-3)


def test_ground_truth_on_another_grid_than_its_image_is_refused(tmp_path: Path) -> None:
    for name, shift in (("images", 0), ("masks", 1)):
        (tmp_path / name).mkdir()
        write = geotiff("EPSG:32632", Affine(2, 0, 5e5 + shift, 0, -2, 5.6e6))
        write(tmp_path / name / "a.tif", np.eye(20, dtype=np.uint8))
    with pytest.raises(GridMismatchError):
        pixelwise.measure(tmp_path)
