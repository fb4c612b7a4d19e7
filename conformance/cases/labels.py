"""Chapter C: reading and writing of images, masks and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from conformance.case import Case, ExpectedError, Inputs

_VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
_ORIENTATION = 0x0112


def _ids(*values: int) -> NDArray[np.uint8]:
    """Return an 8×8 mask of vertical stripes, one per value."""
    return np.repeat(np.array(values, np.uint8), 8 // len(values))[None].repeat(8, 0)


def _reads(path: Path, ids: tuple[int, ...], ignored: tuple[int, ...] = (255,)) -> tuple[Inputs, ...]:
    return ({"path": path, "ids": ids, "ignored": ignored},)


def _palette(folder: Path) -> tuple[Inputs, ...]:
    image = Image.fromarray(_ids(0, 1, 2, 3), "P")
    image.putpalette(_VOC)
    image.save(folder / "mask.png")
    return _reads(folder / "mask.png", (0, 1, 2, 3))


def _grey_palette(folder: Path) -> tuple[Inputs, ...]:
    image = Image.fromarray(_ids(0, 1), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(folder / "mask.png")
    return _reads(folder / "mask.png", (0, 1))


def _binary(folder: Path) -> tuple[Inputs, ...]:
    Image.fromarray(_ids(0, 255)).save(folder / "mask.png")
    return _reads(folder / "mask.png", (0, 1))


def _one_bit(folder: Path) -> tuple[Inputs, ...]:
    Image.fromarray(_ids(0, 255)).convert("1").save(folder / "mask.png")
    return _reads(folder / "mask.png", (0, 1))


def _jpeg(folder: Path) -> tuple[Inputs, ...]:
    mask = np.zeros((32, 32), np.uint8)
    mask[6:20, 9:23] = 5
    Image.fromarray(mask * 40).save(folder / "mask.jpg", quality=75)
    return _reads(folder / "mask.jpg", (0, 200))


def _deep(folder: Path) -> tuple[Inputs, ...]:
    Image.fromarray(_ids(0, 1).astype(np.uint16) * 300 + 7).save(folder / "mask.png")
    return _reads(folder / "mask.png", (7, 307), ())


def _reduced(_: Path) -> tuple[Inputs, ...]:
    return ({"ids": _ids(0, 1, 150, 255)},)


def _written(folder: Path) -> tuple[Inputs, ...]:
    return ({"indices": _ids(0, 1, 2, 0), "ids": (1, 2, 3), "path": folder / "mask.png"},)


def _stored(inputs: tuple[Inputs, ...], _: list[Any]) -> Any:
    with Image.open(inputs[0]["path"]) as image:
        return np.array(image)


def _sideways(folder: Path, size: tuple[int, int] = (32, 64)) -> Path:
    """Write a sideways JPEG with EXIF orientation 6; once rotated, its left half is bright."""
    upright = np.zeros((size[1], size[0]), np.uint8)
    upright[:, : size[0] // 2] = 240
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "images" / "a.jpg"
    stored = np.rot90(upright)  # orientation 6: rotate clockwise to display
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(path, exif=exif, quality=95)
    return path


def _turned_image(folder: Path) -> tuple[Inputs, ...]:
    return ({"path": _sideways(folder)},)


def _upright(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Return height and width, and whether the left half is bright and the right half dark."""
    grey = np.asarray(answers[0])[0].astype(int)
    half = grey.shape[1] // 2
    return np.array([*grey.shape, int(grey[4:-4, : half - 4].min() > 200), int(grey[4:-4, half + 4 :].max() < 50)])


def _mask_as_stored(folder: Path, size: tuple[int, int]) -> tuple[Inputs, ...]:
    """Write a data set with a sideways JPEG and a mask that was drawn on the stored pixels."""
    _sideways(folder, size)
    (folder / "masks").mkdir()
    mask = np.zeros((size[0], size[1]), np.uint8)
    mask[size[0] // 2 :] = 1
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    for name in "bcd":
        for kind in ("images", "masks"):
            Image.fromarray(mask).save(folder / kind / f"{name}.png")
    return ({"folder": folder},)


def _sixteen(folder: Path) -> tuple[Inputs, ...]:
    values = np.array([[0, 255, 256, 300], [1000, 4095, 40000, 65535]], np.uint16)
    Image.fromarray(values).save(folder / "image.png")
    return ({"path": folder / "image.png"},)


def _hidden(folder: Path) -> tuple[Inputs, ...]:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = (10, 200, 30, 255)
    pixels[:, 2:] = (255, 0, 0, 0)
    Image.fromarray(pixels, "RGBA").save(folder / "image.png")
    return ({"path": folder / "image.png"},)


def _opaque(folder: Path) -> Inputs:
    Image.fromarray(np.full((4, 4, 4), 255, np.uint8), "RGBA").save(folder / "image.png")
    return {"path": folder / "image.png"}


def _leak(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return bool((np.asarray(answers[0])[:3, :, 2:] == np.array([255, 0, 0])[:, None, None]).all())


def _inks(folder: Path) -> tuple[Inputs, ...]:
    pixels = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [0, 255, 255, 51]]], np.uint8)
    Image.fromarray(pixels, "CMYK").save(folder / "image.tif")
    return ({"path": folder / "image.tif"},)


def _bands(folder: Path) -> tuple[Inputs, ...]:
    tifffile.imwrite(folder / "image.tif", _four_bands(), planarconfig="separate", photometric="minisblack")
    return ({"path": folder / "image.tif"},)


def _four_bands() -> NDArray[np.uint16]:
    return np.arange(4 * 6 * 5, dtype=np.uint16).reshape(4, 6, 5) * 500


def _floats(folder: Path, value: float) -> tuple[Inputs, ...]:
    values = np.ones((4, 4), np.float32)
    values[1, 1] = value
    tifffile.imwrite(folder / "image.tif", values)
    return ({"path": folder / "image.tif"},)


def _unpaired(folder: Path, skip_bad: bool) -> tuple[Inputs, ...]:
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for name in "abcdef":
            Image.fromarray(_ids(0, 1)).save(folder / kind / f"{name}.png")
    (folder / "masks" / "c.png").unlink()
    return ({"folder": folder, "skip_bad": skip_bad},)


def _ignored_id(folder: Path) -> tuple[Inputs, ...]:
    Image.fromarray(_ids(0, 1, 9, 9)).save(folder / "mask.png")
    return ({"path": folder / "mask.png", "ids": (0, 1), "ignored": (9,)},)


_INKED = np.array([[[255, 0, 0, 204]], [[255, 255, 0, 0]], [[255, 255, 0, 0]]], np.uint8)

CASES = (
    Case(
        "C1a",
        "Palette colours converted to grey values",
        "The ids of a palette PNG with the colours of PASCAL VOC.",
        "read_mask",
        _palette,
        _ids(0, 1, 2, 3),
        "A palette mask stores class indices; the colours are for display only.",
        "PNG specification, colour type 3; PASCAL VOC development kit",
    ),
    Case(
        "C1b",
        "A palette of grey values read as grey values",
        "The ids of a palette PNG with the colours black and white.",
        "read_mask",
        _grey_palette,
        _ids(0, 1),
        "As in C1a.",
        "Ultralytics 8.4, data/utils.py",
    ),
    Case(
        "C2",
        "255 means the second class, but is ignored",
        "The ids of a mask of 0 and 255 in a data set of two classes, 0 and 1.",
        "read_mask",
        _binary,
        _ids(0, 1),
        "255 can only be the second class. Raising an error is right, too.",
        "PaddleSeg issue 1110; mmsegmentation issue 1609",
        may_refuse=True,
        control=lambda folder: _grey_palette(folder)[0],
    ),
    Case(
        "C3",
        "1-bit masks become 0 and 255",
        "The ids of a 1-bit PNG.",
        "read_mask",
        _one_bit,
        _ids(0, 1),
        "One bit stores 0 or 1.",
        "PNG specification, bit depth 1",
    ),
    Case(
        "C4",
        "JPEG creates false ids",
        "The ids of a mask of 0 and 200 that was saved as JPEG.",
        "read_mask",
        _jpeg,
        ExpectedError(),
        "Compression creates other values along the edges, which are not ids.",
        "ITU-T T.81",
        control=lambda folder: _palette(folder)[0],
    ),
    Case(
        "C6",
        "Ids beyond 255 wrap around",
        "The ids of a 16-bit PNG with the values 7 and 307.",
        "read_mask",
        _deep,
        _ids(0, 1).astype(np.int64) * 300 + 7,
        "307 is 307, not 51.",
        "mmsegmentation datasets/transforms/loading.py, astype(uint8)",
    ),
    Case(
        "C7a",
        "255 becomes 254",
        "The class indices of ids 0 (no label), 1, 150 and 255 (no label) if classes begin at id 1.",
        "reduce_labels",
        _reduced,
        _ids(255, 0, 149, 255),
        "Id k becomes index k − 1; unlabelled pixels stay unlabelled.",
        "ADE20K, Zhou et al. 2017",
    ),
    Case(
        "C7b",
        "Predicted ids are off by one",
        "The ids in the file written for indices 0–2 of classes with ids 1–3.",
        "write_mask",
        _written,
        _ids(1, 2, 3, 1),
        "Writing is the inverse of reading.",
        "ADE20K, Zhou et al. 2017",
        0.0,
        _stored,
    ),
    Case(
        "C8a",
        "EXIF orientation is ignored",
        "The height, width and content of a sideways JPEG.",
        "read_image",
        _turned_image,
        np.array([64, 32, 1, 1]),
        "Orientation 6: rotate by 90° clockwise to display.",
        "Exif 2.3, tag 274",
        0.0,
        _upright,
    ),
    Case(
        "C8b",
        "Mask and image have different orientations",
        "Open a data set with a sideways image whose mask was drawn on the stored pixels.",
        "open_folder",
        lambda folder: _mask_as_stored(folder, (32, 64)),
        ExpectedError("a.png"),
        "Their sizes differ once the orientation is applied.",
        "detectron2 issue 788; labelme pull request 1873",
    ),
    Case(
        "C8c",
        "A square image hides the orientation",
        "Whether a check reports the orientation if the sideways image is square.",
        "check_folder",
        lambda folder: _mask_as_stored(folder, (64, 64)),
        True,
        "The sizes agree, so only a warning reveals the problem.",
        "D-FINE issue 308",
        0.0,
        lambda _, answers: any("a.jpg" in text and ("EXIF" in text or "orientation" in text) for text in answers[0]),
    ),
    Case(
        "C9",
        "16-bit values are clipped to 8 bits",
        "The values of a 16-bit PNG.",
        "read_image",
        _sixteen,
        np.array([[[0, 255, 256, 300], [1000, 4095, 40000, 65535]]]),
        "A 16-bit band can store all of them.",
        "PNG specification, bit depth 16",
        0.0,
        lambda _, answers: np.asarray(answers[0])[:1],
    ),
    Case(
        "C10a",
        "Colours of transparent pixels leak",
        "Whether the red of fully transparent pixels is in the image.",
        "read_image",
        _hidden,
        False,
        "Transparent pixels were not visible to the annotator.",
        "PNG specification, alpha",
        0.0,
        _leak,
        may_refuse=True,
        control=_opaque,
    ),
    Case(
        "C10b",
        "CMYK is misread",
        "The RGB values of a CMYK TIFF: white, cyan, black, and red with 20 % black.",
        "read_image",
        _inks,
        _INKED,
        "(1 − C) · (1 − K), and likewise for M and Y.",
        "TIFF 6.0, section 16",
        1.0,
    ),
    Case(
        "C10c",
        "Planar bands",
        "The four bands of a planar 16-bit TIFF.",
        "read_image",
        _bands,
        _four_bands(),
        "PlanarConfiguration 2: the bands are stored one after the other.",
        "TIFF 6.0, tag 284",
    ),
    Case(
        "C10d",
        "NaN reaches training",
        "Read a float TIFF with one NaN pixel.",
        "read_image",
        lambda folder: _floats(folder, np.nan),
        ExpectedError(),
        "One NaN makes all weights NaN. Whether to fill or ignore it must be decided explicitly.",
        "IEEE 754",
        control=lambda folder: _floats(folder, 2.0)[0],
    ),
    Case(
        "C11a",
        "An image without a mask is dropped",
        "Open a data set of six images with five masks.",
        "open_folder",
        lambda folder: _unpaired(folder, False),
        ExpectedError("c.png"),
        "A data set must not shrink silently.",
        "Ultralytics 8.4, data/dataset.py",
    ),
    Case(
        "C11b",
        "Dropped images are not counted",
        "The number of files left out if this was requested.",
        "open_folder",
        lambda folder: _unpaired(folder, True),
        1,
        "One image has no mask.",
        "as C11a",
        0.0,
        lambda _, answers: answers[0]["skipped"],
    ),
    Case(
        "C12",
        "Ignored in the loss, but not in the score",
        "The numbers of pixels that count in the loss and in the score if file id 9, half of 64 pixels, is ignored.",
        "counted_pixels",
        _ignored_id,
        np.array([32, 32]),
        "One definition of the ignored pixels applies to both.",
        "torchgeo-bench issue 49",
    ),
)
