"""Chapter C: what a file holds, and what becomes of it on the way in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from conformance.case import Case, Inputs, Refusal

_VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
_ORIENTATION = 0x0112


def _ids(*values: int) -> NDArray[np.uint8]:
    """Give an 8×8 mask of vertical stripes, one per value."""
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


def _lossy(folder: Path) -> tuple[Inputs, ...]:
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
    """Write a JPEG whose pixels lie on their side, EXIF orientation 6; upright, its left half is bright."""
    upright = np.zeros((size[1], size[0]), np.uint8)
    upright[:, : size[0] // 2] = 240
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "images" / "a.jpg"
    stored = np.rot90(upright)  # orientation 6: turned clockwise it is upright
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(path, exif=exif, quality=95)
    return path


def _turned_image(folder: Path) -> tuple[Inputs, ...]:
    return ({"path": _sideways(folder)},)


def _upright(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Give height and width, and whether the left half is bright and the right half dark."""
    grey = np.asarray(answers[0])[0].astype(int)
    half = grey.shape[1] // 2
    return np.array([*grey.shape, int(grey[4:-4, : half - 4].min() > 200), int(grey[4:-4, half + 4 :].max() < 50)])


def _mask_as_stored(folder: Path, size: tuple[int, int]) -> tuple[Inputs, ...]:
    """Put a mask beside it that was drawn on the pixels as they are stored."""
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


def _floats(folder: Path, odd: float) -> tuple[Inputs, ...]:
    values = np.ones((4, 4), np.float32)
    values[1, 1] = odd
    tifffile.imwrite(folder / "image.tif", values)
    return ({"path": folder / "image.tif"},)


def _unpaired(folder: Path, skip_bad: bool) -> tuple[Inputs, ...]:
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for name in "abcdef":
            Image.fromarray(_ids(0, 1)).save(folder / kind / f"{name}.png")
    (folder / "masks" / "c.png").unlink()
    return ({"folder": folder, "skip_bad": skip_bad},)


def _void_of_file(folder: Path) -> tuple[Inputs, ...]:
    Image.fromarray(_ids(0, 1, 9, 9)).save(folder / "mask.png")
    return ({"path": folder / "mask.png", "ids": (0, 1), "ignored": (9,)},)


_INKED = np.array([[[255, 0, 0, 204]], [[255, 255, 0, 0]], [[255, 255, 0, 0]]], np.uint8)

CASES = (
    Case(
        "C1a",
        "A palette turned into greys",
        "The ids of a palette PNG with the colours of PASCAL VOC.",
        "read_mask",
        _palette,
        _ids(0, 1, 2, 3),
        "A palette mask holds indices; its colours are for people to look at.",
        "PNG specification, colour type 3; PASCAL VOC development kit",
    ),
    Case(
        "C1b",
        "A palette of greys read as greys",
        "The ids of a palette PNG whose two colours are black and white.",
        "read_mask",
        _grey_palette,
        _ids(0, 1),
        "as C1a",
        "Ultralytics 8.4, data/utils.py",
    ),
    Case(
        "C2",
        "255 is the second class, and is ignored",
        "The ids of a mask of 0 and 255, in a data set of two classes, 0 and 1.",
        "read_mask",
        _binary,
        _ids(0, 1),
        "There is no other second class. Asking is right, too.",
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
        "One bit holds 0 and 1.",
        "PNG specification, bit depth 1",
    ),
    Case(
        "C4",
        "JPEG invents ids",
        "The ids of a mask of 0 and 200 that was saved as JPEG.",
        "read_mask",
        _lossy,
        Refusal(),
        "The compression made other values along the edges, which are no ids.",
        "ITU-T T.81",
        control=lambda folder: _palette(folder)[0],
    ),
    Case(
        "C6",
        "Ids beyond 255 wrap around",
        "The ids of a 16-bit PNG that holds 7 and 307.",
        "read_mask",
        _deep,
        _ids(0, 1).astype(np.int64) * 300 + 7,
        "307 is 307, not 51.",
        "mmsegmentation datasets/transforms/loading.py, astype(uint8)",
    ),
    Case(
        "C7a",
        "255 becomes 254",
        "The class indices of ids 0 (no label), 1, 150 and 255 (no label) where classes begin at id 1.",
        "reduce_labels",
        _reduced,
        _ids(255, 0, 149, 255),
        "k becomes k − 1; what is no label stays none.",
        "ADE20K, Zhou et al. 2017",
    ),
    Case(
        "C7b",
        "A prediction is one id off",
        "The ids in the file that is written for indices 0–2 of classes with ids 1–3.",
        "write_mask",
        _written,
        _ids(1, 2, 3, 1),
        "What reading subtracts, writing adds.",
        "ADE20K, Zhou et al. 2017",
        0.0,
        _stored,
    ),
    Case(
        "C8a",
        "EXIF orientation is overlooked",
        "Height, width and content of a sideways JPEG.",
        "read_image",
        _turned_image,
        np.array([64, 32, 1, 1]),
        "Orientation 6: turned clockwise by 90° it is upright.",
        "Exif 2.3, tag 274",
        0.0,
        _upright,
    ),
    Case(
        "C8b",
        "The mask lies otherwise than the image",
        "A data set whose mask was drawn on the pixels of a sideways image as they are stored.",
        "open_folder",
        lambda folder: _mask_as_stored(folder, (32, 64)),
        Refusal("a.png"),
        "Their sizes differ once the image is upright.",
        "detectron2 issue 788; labelme pull request 1873",
    ),
    Case(
        "C8c",
        "A square hides the turn",
        "Whether a check speaks of the orientation where the sideways image is square.",
        "check_folder",
        lambda folder: _mask_as_stored(folder, (64, 64)),
        True,
        "Sizes agree, so only a warning can help.",
        "D-FINE issue 308",
        0.0,
        lambda _, answers: any("a.jpg" in text and ("EXIF" in text or "orientation" in text) for text in answers[0]),
    ),
    Case(
        "C9",
        "16 bits are clipped to 8",
        "The values of a 16-bit PNG.",
        "read_image",
        _sixteen,
        np.array([[[0, 255, 256, 300], [1000, 4095, 40000, 65535]]]),
        "A band of 16 bits holds them all.",
        "PNG specification, bit depth 16",
        0.0,
        lambda _, answers: np.asarray(answers[0])[:1],
    ),
    Case(
        "C10a",
        "Colours behind alpha 0 leak",
        "Whether the red that lies under transparent pixels is in the image.",
        "read_image",
        _hidden,
        False,
        "Nobody who looked at the image saw it.",
        "PNG specification, alpha",
        0.0,
        _leak,
        may_refuse=True,
        control=_opaque,
    ),
    Case(
        "C10b",
        "CMYK taken for something else",
        "Red, green and blue of a CMYK TIFF: white, cyan, black, red with 20 % black.",
        "read_image",
        _inks,
        _INKED,
        "(1 − C) · (1 − K) for each of them.",
        "TIFF 6.0, section 16",
        1.0,
    ),
    Case(
        "C10c",
        "Bands stored one after the other",
        "The four bands of a planar 16-bit TIFF.",
        "read_image",
        _bands,
        _four_bands(),
        "PlanarConfiguration 2: bands first.",
        "TIFF 6.0, tag 284",
    ),
    Case(
        "C10d",
        "NaN walks into training",
        "A float TIFF with one NaN pixel.",
        "read_image",
        lambda folder: _floats(folder, np.nan),
        Refusal(),
        "One NaN makes every weight NaN; it has to be filled or ignored by whoever knows what it means.",
        "IEEE 754",
        control=lambda folder: _floats(folder, 2.0)[0],
    ),
    Case(
        "C11a",
        "An image without a mask is dropped",
        "A data set of six images with five masks is opened.",
        "open_folder",
        lambda folder: _unpaired(folder, False),
        Refusal("c.png"),
        "A set that shrinks in silence is another set.",
        "Ultralytics 8.4, data/dataset.py",
    ),
    Case(
        "C11b",
        "What was dropped is not counted",
        "How many files were left out where that was asked for.",
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
        "Ignored in the loss, counted in the score",
        "Pixels that count in the loss and in the score, file id 9 ignored in half of 64.",
        "counted_pixels",
        _void_of_file,
        np.array([32, 32]),
        "One statement of what is ignored holds for both.",
        "torchgeo-bench issue 49",
    ),
)
