"""Chapter H: files that are broken, or meant to harm."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conformance.case import Case, Inputs, Refusal


def _vrt(folder: Path) -> tuple[Inputs, ...]:
    """Write GDAL's XML under the name of a TIFF; it names another file of the machine."""
    secret = folder / "secret.raw"
    secret.write_bytes(bytes(range(64)))
    (folder / "field.tif").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativetoVRT="0">{secret}</SourceFilename></VRTRasterBand></VRTDataset>\n'
    )
    return ({"path": folder / "field.tif"},)


def _whole(folder: Path, suffix: str) -> Inputs:
    path = folder / f"whole.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return {"path": path}


def _chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def _bomb(folder: Path) -> tuple[Inputs, ...]:
    """Write a whole 1-bit PNG of 20,001×20,001 black pixels: some 50 kB."""
    side = 20_001
    rows = zlib.compressobj(6)
    data = b"".join(rows.compress(bytes((side + 7) // 8 + 1)) for _ in range(side)) + rows.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    splits = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(splits))
    return ({"path": folder / "bomb.png"},)


def _cut(folder: Path, suffix: str) -> tuple[Inputs, ...]:
    whole = _whole(folder, suffix)["path"].read_bytes()
    path = folder / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    return ({"path": path},)


class _Touch:
    """Make a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def _pickle(folder: Path) -> tuple[Inputs, ...]:
    """Write a checkpoint as torch's old format lays it out, whose loading makes a file."""
    buffer = io.BytesIO()
    pickle.dump(_Touch(folder / "touched"), buffer, protocol=2)
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", buffer.getvalue())
        archive.writestr("model/version", "3\n")
    return ({"path": folder / "model.pt"},)


def _plain_weights(folder: Path) -> Inputs:
    """Write a checkpoint of one tensor as torch does."""
    import torch

    torch.save({"weight": torch.from_numpy(_SIX)}, folder / "model.pt")
    return {"path": folder / "model.pt"}


def _are_six(_: Inputs, answer: Any) -> bool:
    return list(answer) == ["weight"] and np.array_equal(answer["weight"], _SIX)


def _listing(folder: Path, more: str = "") -> Inputs:
    """Lay out a data set as its own folders and as VOC2012; the lists of both may name `more` above the folder."""
    voc = folder / "data" / "VOCdevkit" / "VOC2012"
    places = {
        "images": folder / "data" / "images",
        "masks": folder / "data" / "masks",
        "JPEGImages": voc / "JPEGImages",
        "SegmentationClass": voc / "SegmentationClass",
        "Segmentation": voc / "ImageSets" / "Segmentation",
        "splits": folder / "data" / "splits",
    }
    for place in places.values():
        place.mkdir(parents=True)
    mask = Image.fromarray(np.eye(8, dtype=np.uint8))
    for name in "abcd":
        mask.save(places["images"] / f"{name}.png")
        mask.save(places["masks"] / f"{name}.png")
        mask.save(places["JPEGImages"] / f"{name}.jpg")
        mask.save(places["SegmentationClass"] / f"{name}.png")
    for suffix in ("jpg", "png"):
        mask.save(folder / f"private.{suffix}")
    (places["splits"] / "train.txt").write_text("a\nb\n")
    (places["splits"] / "val.txt").write_text(f"c\n../../{more}\n" if more else "c\n")
    (places["Segmentation"] / "train.txt").write_text(f"a\n../../../../{more}\n" if more else "a\n")
    return {"folder": folder / "data"}


def _archive(folder: Path, member: str) -> Inputs:
    (folder / "data").mkdir()
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        archive.writestr(member, "here")
    return {"path": folder / "bundle.zip", "out": folder / "data"}


def _weights(folder: Path) -> tuple[Inputs, ...]:
    return ({"folder": folder},)


def _pickles(inputs: tuple[Inputs, ...], _: list[Any]) -> Any:
    """Count the files that unpickling would open: zip archives with data.pkl, or bare pickles."""
    count = 0
    files = [path for path in sorted(inputs[0]["folder"].rglob("*")) if path.is_file()]
    assert files, "something was saved"
    for path in files:
        zipped = zipfile.is_zipfile(path) and any(n.endswith(".pkl") for n in zipfile.ZipFile(path).namelist())
        data = path.read_bytes()
        count += zipped or (data[:1] == b"\x80" and data[1:2] in b"\2\3\4\5" and data[-1:] == b".")
    return count


_SIX = np.arange(6, dtype=np.float32).reshape(2, 3)

CASES = (
    Case(
        "H1",
        "A raster that names another file",
        "A GDAL VRT renamed field.tif, which names another file, is read.",
        "read_image",
        _vrt,
        Refusal(),
        "An image is the file that was named, and no other; no file system of GDAL's is reached.",
        "GDAL VRT driver, raw bands",
        control=lambda folder: _whole(folder, "tif"),
    ),
    Case(
        "H2a",
        "A small file that fills the memory",
        "A PNG of 50 kB and 20,001×20,001 pixels is read.",
        "read_image",
        _bomb,
        Refusal(),
        "400 million pixels are announced in the header; it is refused there, unless somebody raises the limit.",
        "Pillow, MAX_IMAGE_PIXELS; PNG specification",
        control=lambda folder: _whole(folder, "png"),
    ),
    Case(
        "H2b",
        "Half a PNG",
        "A PNG that was cut in the middle is read.",
        "read_image",
        lambda folder: _cut(folder, "png"),
        Refusal(),
        "What is missing is not black.",
        "PNG specification, IEND",
        control=lambda folder: _whole(folder, "png"),
    ),
    Case(
        "H2c",
        "Half a JPEG, filled with grey",
        "A JPEG that was cut in the middle is read.",
        "read_image",
        lambda folder: _cut(folder, "jpg"),
        Refusal(),
        "What is missing is not grey.",
        "libjpeg, premature end of file",
        control=lambda folder: _whole(folder, "jpg"),
    ),
    Case(
        "H2d",
        "The broken file is not named",
        "The file's name in the error for the cut PNG.",
        "read_image",
        lambda folder: _cut(folder, "png"),
        Refusal("cut.png"),
        "An error that does not name the file cannot be mended.",
        "house rule",
        control=lambda folder: _whole(folder, "png"),
    ),
    Case(
        "H3a",
        "Weights that run code",
        "Whether a .pt file that makes a file when unpickled made it.",
        "load_weights",
        _pickle,
        False,
        "Weights are numbers.",
        "CVE-2025-32434; torch.load, weights_only",
        0.0,
        lambda inputs, _: (inputs[0]["path"].parent / "touched").exists(),
        looks_after=True,
        control=_plain_weights,
        sound=_are_six,
    ),
    Case(
        "H3b",
        "Models saved as pickles",
        "The number of pickles in what is saved of a model.",
        "save_model",
        _weights,
        0,
        "Whoever gets the model must be able to open it without trusting.",
        "safetensors",
        0.0,
        _pickles,
    ),
    Case(
        "H4a",
        "A list that names an image outside",
        "A data set whose list names ../…/private is opened and read.",
        "read_listed",
        lambda folder: (_listing(folder, "private"),),
        Refusal("private"),
        "A name found in a file is no path.",
        "CWE-22",
        0.0,
        lambda _, answers: len(answers[0]),
        control=_listing,
    ),
    Case(
        "H4b",
        "An archive that writes outside",
        "Whether unpacking an archive with ../outside.txt wrote beside the folder.",
        "unpack",
        lambda folder: (_archive(folder, "../outside.txt"),),
        False,
        "as H4a",
        "CWE-22, zip slip",
        0.0,
        lambda inputs, _: (inputs[0]["path"].parent / "outside.txt").exists(),
        looks_after=True,
        control=lambda folder: _archive(folder, "inside.txt"),
        sound=lambda inputs, _: (inputs["out"] / "inside.txt").read_text() == "here",
    ),
    Case(
        "H6",
        "A full disk takes the last checkpoint along",
        "Whether the previous checkpoint can still be read after saving the next one failed half-way.",
        "fail_while_saving",
        _weights,
        True,
        "It is written beside its place, flushed and renamed; what stood there stays until then.",
        "POSIX rename",
    ),
)
