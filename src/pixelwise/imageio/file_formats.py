"""Detect the format of an image file from its first bytes, and open it with the decoder for that format.

| Suffixes | Decoded by |
|---|---|
| .png, .jpg, .webp | Pillow, see `raster` |
| .tif | tifffile, see `tiff` |
| .bmp, .gif, .avif | Pillow, see `bitmaps` |
| .jp2, .j2k | imagecodecs, see `jpeg2000` |
| .pbm, .pgm, .ppm, .pam, .pfm | see `netpbm` |
| .npy, .npz | NumPy, see `arrays` |

Suffixes only tell which files of a folder are images. The format is always that of the content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pixelwise.imageio.raster import Decoder, Header, Refused, open_webp, open_with_pillow

# Masks in these formats would usually be lossy, so that of two files of one name the other is the mask.
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")
ARRAY_SUFFIXES = (".npy", ".npz")
LOSSLESS_SUFFIXES = (
    *(".png", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm"),
    *ARRAY_SUFFIXES,
)
TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (*LOSSLESS_SUFFIXES, *LOSSY_SUFFIXES)
READABLE = "PNG, JPEG, TIFF, WebP, BMP, GIF, AVIF, JPEG 2000, PNM or NumPy"

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x93NUMPY", "NPY"),
    (b"PK\x03\x04", "NPZ"),
)
_FOREIGN = (
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"NRRD0", "an NRRD volume"),
    (b"8BPS", "a Photoshop file"),
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"<", "a web page or XML"),
)
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the header in all versions of BMP
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def is_image(path: Path) -> bool:
    """Whether a file has the name of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Return the images among files, by their names, in the same order.

    NumPy arrays beside other images are no images unless their name adds something to that of an image (a.jpg, a_mask.npy):
    some programs cache each image as an array of its name, or write features of all images into one.
    """
    images = [path for path in paths if is_image(path)]
    arrays = [path for path in images if path.suffix.lower() in ARRAY_SUFFIXES]
    if not arrays:
        return images
    stems: dict[Path, set[str]] = defaultdict(set)
    for path in images:
        if path.suffix.lower() not in ARRAY_SUFFIXES:
            stems[path.parent].add(path.stem)
    beside = {
        path
        for path in arrays
        if (others := stems.get(path.parent))
        and not any(path.stem[:end] in others or path.stem[end:] in others for end in range(1, len(path.stem)))
    }
    return [path for path in images if path not in beside]


def detect(file: BinaryIO) -> str:
    """Return the name of the format of an open file.

    Raises:
        Refused: no format that can be read; the error names the one found.
    """
    start = file.read(132)
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if start[:1] == b"P" and start[1:2] in b"1234567Ff" and start[2:3] in b" \t\r\n#" and start[2:3]:
        return "PNM"
    foreign = next((name for magic, name in _FOREIGN if start.startswith(magic)), None)
    foreign = "a DICOM file" if start[128:] == b"DICM" else foreign
    if start[4:8] == b"ftyp":
        brands = [start[8:12], *(start[k : k + 4] for k in range(16, min(int.from_bytes(start[:4], "big"), 64), 4))]
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF"
        foreign = "a HEIC" if any(brand in _HEIC_BRANDS for brand in brands) else "a video"
    if foreign is None:
        text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start[:32])
        foreign = f"a text file that begins with {start[:20].decode()!r}" if text else "an unknown format"
    raise Refused(f"a {READABLE} file", foreign, "Save the image as PNG or TIFF, or remove the file.")


def open_as(file: BinaryIO, name: str) -> tuple[Header, Decoder]:
    """Read the header of a file whose format is known; decoders are imported when they are needed.

    Raises:
        Refused: a kind of image that is not supported. Exceptions of the decoder if the file is broken.
    """
    file.seek(0)
    if name in ("PNG", "JPEG"):
        return open_with_pillow(file, name)
    if name == "WebP":
        return open_webp(file)
    if name == "TIFF":
        from pixelwise.imageio.tiff import open_tiff

        return open_tiff(file)
    if name == "JPEG 2000":
        from pixelwise.imageio.jpeg2000 import open_jpeg2000

        return open_jpeg2000(file)
    if name == "PNM":
        from pixelwise.imageio.netpbm import open_pnm

        return open_pnm(file)
    if name in ("NPY", "NPZ"):
        from pixelwise.imageio.arrays import open_archive, open_array

        return open_array(file) if name == "NPY" else open_archive(file)
    from pixelwise.imageio.bitmaps import open_avif, open_bmp, open_gif

    return {"BMP": open_bmp, "GIF": open_gif, "AVIF": open_avif}[name](file)
