"""Chapter H: broken and malicious files."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conformance.case import Case, ExpectedError, Inputs


def _vrt(folder: Path) -> tuple[Inputs, ...]:
    """Write a GDAL VRT named field.tif that refers to another file."""
    secret = folder / "secret.raw"
    secret.write_bytes(bytes(range(64)))
    (folder / "field.tif").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativetoVRT="0">{secret}</SourceFilename></VRTRasterBand></VRTDataset>\n'
    )
    return ({"path": folder / "field.tif"},)


def _valid(folder: Path, suffix: str) -> Inputs:
    path = folder / f"valid.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return {"path": path}


def _chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def _bomb(folder: Path) -> tuple[Inputs, ...]:
    """Write a valid 1-bit PNG of 20,001×20,001 black pixels, about 50 kB."""
    side = 20_001
    rows = zlib.compressobj(6)
    data = b"".join(rows.compress(bytes((side + 7) // 8 + 1)) for _ in range(side)) + rows.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return ({"path": folder / "bomb.png"},)


def _cut(folder: Path, suffix: str) -> tuple[Inputs, ...]:
    data = _valid(folder, suffix)["path"].read_bytes()
    path = folder / f"cut.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    return ({"path": path},)


class _Touch:
    """Create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def _pickle(folder: Path) -> tuple[Inputs, ...]:
    """Write a checkpoint in torch's zip format that creates a file when unpickled."""
    buffer = io.BytesIO()
    pickle.dump(_Touch(folder / "touched"), buffer, protocol=2)
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", buffer.getvalue())
        archive.writestr("model/version", "3\n")
    return ({"path": folder / "model.pt"},)


def _plain_weights(folder: Path) -> Inputs:
    """Write a checkpoint of one tensor with torch."""
    import torch

    torch.save({"weight": torch.from_numpy(_SIX)}, folder / "model.pt")
    return {"path": folder / "model.pt"}


def _equals_six(_: Inputs, answer: Any) -> bool:
    return list(answer) == ["weight"] and np.array_equal(answer["weight"], _SIX)


def _listing(folder: Path, outside: str = "") -> Inputs:
    """Write a data set as image and mask folders and as VOC2012; both split lists may name `outside`, above the folder."""
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
    (places["splits"] / "val.txt").write_text(f"c\n../../{outside}\n" if outside else "c\n")
    (places["Segmentation"] / "train.txt").write_text(f"a\n../../../../{outside}\n" if outside else "a\n")
    return {"folder": folder / "data"}


def _archive(folder: Path, member: str) -> Inputs:
    (folder / "data").mkdir()
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        archive.writestr(member, "here")
    return {"path": folder / "bundle.zip", "out": folder / "data"}


def _weights(folder: Path) -> tuple[Inputs, ...]:
    return ({"folder": folder},)


def _pickles(inputs: tuple[Inputs, ...], _: list[Any]) -> Any:
    """Count the pickles: zip archives with a .pkl member, or bare pickle files."""
    count = 0
    files = [path for path in sorted(inputs[0]["folder"].rglob("*")) if path.is_file()]
    assert files, "nothing was saved"
    for path in files:
        zipped = zipfile.is_zipfile(path) and any(n.endswith(".pkl") for n in zipfile.ZipFile(path).namelist())
        data = path.read_bytes()
        count += zipped or (data[:1] == b"\x80" and data[1:2] in b"\2\3\4\5" and data[-1:] == b".")
    return count


_SIX = np.arange(6, dtype=np.float32).reshape(2, 3)

CASES = (
    Case(
        "H1",
        "A raster that refers to another file",
        "Read a GDAL VRT named field.tif that refers to another file.",
        "read_image",
        _vrt,
        ExpectedError(),
        "Only the named file may be read, and none of GDAL's virtual file systems.",
        "GDAL VRT driver, raw bands",
        control=lambda folder: _valid(folder, "tif"),
    ),
    Case(
        "H2a",
        "A decompression bomb",
        "Read a PNG of 50 kB with 20,001×20,001 pixels.",
        "read_image",
        _bomb,
        ExpectedError(),
        "The header declares 400 million pixels, so the file is rejected before decoding unless the limit is raised.",
        "Pillow, MAX_IMAGE_PIXELS; PNG specification",
        control=lambda folder: _valid(folder, "png"),
    ),
    Case(
        "H2b",
        "A truncated PNG",
        "Read the first half of a PNG file.",
        "read_image",
        lambda folder: _cut(folder, "png"),
        ExpectedError(),
        "Missing pixels must not become black.",
        "PNG specification, IEND",
        control=lambda folder: _valid(folder, "png"),
    ),
    Case(
        "H2c",
        "A truncated JPEG, filled with grey",
        "Read the first half of a JPEG file.",
        "read_image",
        lambda folder: _cut(folder, "jpg"),
        ExpectedError(),
        "Missing pixels must not become grey.",
        "libjpeg, premature end of file",
        control=lambda folder: _valid(folder, "jpg"),
    ),
    Case(
        "H2d",
        "The error does not name the broken file",
        "The file name in the error for the truncated PNG.",
        "read_image",
        lambda folder: _cut(folder, "png"),
        ExpectedError("cut.png"),
        "Without its name, the file cannot be found and replaced.",
        "convention of pixelwise",
        control=lambda folder: _valid(folder, "png"),
    ),
    Case(
        "H3a",
        "Weights that execute code",
        "Whether loading a .pt file that creates a file when unpickled creates it.",
        "load_weights",
        _pickle,
        False,
        "Weights are numbers; loading them must not execute code.",
        "CVE-2025-32434; torch.load, weights_only",
        0.0,
        lambda inputs, _: (inputs[0]["path"].parent / "touched").exists(),
        checks_side_effects=True,
        control=_plain_weights,
        control_is_right=_equals_six,
    ),
    Case(
        "H3b",
        "Models saved as pickles",
        "The number of pickles among the files of a saved model.",
        "save_model",
        _weights,
        0,
        "Opening a model must not require trust in its source.",
        "safetensors",
        0.0,
        _pickles,
    ),
    Case(
        "H4a",
        "A split list that refers to an image outside the folder",
        "Open and read a data set whose split list contains ../…/private.",
        "read_listed",
        lambda folder: (_listing(folder, "private"),),
        ExpectedError("private"),
        "Names in a file must not be followed out of the data set.",
        "CWE-22",
        0.0,
        lambda _, answers: len(answers[0]),
        control=_listing,
    ),
    Case(
        "H4b",
        "An archive that writes outside the folder",
        "Whether unpacking an archive that contains ../outside.txt writes outside the folder.",
        "unpack",
        lambda folder: (_archive(folder, "../outside.txt"),),
        False,
        "Extracted files must stay in the folder.",
        "CWE-22, zip slip",
        0.0,
        lambda inputs, _: (inputs[0]["path"].parent / "outside.txt").exists(),
        checks_side_effects=True,
        control=lambda folder: _archive(folder, "inside.txt"),
        control_is_right=lambda inputs, _: (inputs["out"] / "inside.txt").read_text() == "here",
    ),
    Case(
        "H6",
        "A full disk destroys the last checkpoint",
        "Whether the previous checkpoint is readable after saving the next one failed midway.",
        "fail_while_saving",
        _weights,
        True,
        "The new file is written under a temporary name, flushed and renamed; the old one stays until then.",
        "POSIX rename",
    ),
)
