"""Libraries print nothing about damaged files beside pixelwise's own messages."""

import io
import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pixelwise.errors import ImageError
from pixelwise.imageio.safe_reading import reading
from pixelwise.imageio.silencing import silenced

rng = np.random.default_rng(0)
SCRIPT = """
import sys
from pathlib import Path
from pixelwise.cli import main
from pixelwise.checking.survey import take_survey
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
for root in sys.argv[1:]:
    config = DataConfig(skip_bad=True)
    take_survey(open_data(config, Path(root)), workers=2)
    print("surveyed", flush=True)
    sys.argv = ["pixelwise", "check", root, "--json"]
    try:
        main()
    except SystemExit as end:
        print("ended", end.code, flush=True)
"""


def damaged(content: bytes, place: float) -> bytes:
    start, length = int(len(content) * place), max(8, len(content) // 8)
    return content[:start] + rng.bytes(length) + content[start + length :]


def encoded(kind: str, values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    if kind == "TIFF":
        tifffile.imwrite(buffer, values, photometric="rgb", **options)
    elif kind in ("npy", "npz"):
        (np.save if kind == "npy" else np.savez_compressed)(buffer, values)
    else:
        Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def images(root: Path) -> Path:
    """One whole image, and damaged ones of every kind, with masks."""
    values = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30)
    made = {
        "png": encoded("PNG", values),
        "jpg": encoded("JPEG", values, exif=exif),
        "webp": encoded("WEBP", values),
        "gif": encoded("GIF", values),
        "bmp": encoded("BMP", values),
        "ppm": encoded("PPM", values),
        "jp2": encoded("JPEG2000", values),
        "npy": encoded("npy", values),
        "npz": encoded("npz", values),
        "tif": encoded("TIFF", values),
    }
    compressed = {name: encoded("TIFF", values, compression=name) for name in ("lzw", "zlib", "zstd", "jpeg", "lerc")}
    contents = {"whole.png": made["png"], "exif.jpg": made["jpg"]}
    for suffix, content in made.items():
        contents |= {f"cut_{suffix}.{suffix}": content[: len(content) * 2 // 3]}
        contents |= {
            f"start_{suffix}.{suffix}": damaged(content, 0.02),
            f"mid_{suffix}.{suffix}": damaged(content, 0.5),
        }
    for name, content in compressed.items():
        contents |= {f"{name}{k}.tif": damaged(content, place) for k, place in enumerate((0.02, 0.4, 0.85))}
        contents[f"{name}_cut.tif"] = content[: len(content) // 2]
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for name, content in contents.items():
        (root / "images" / name).write_bytes(content)
        Image.fromarray(values[..., 0] // 128).save(root / "masks" / f"{Path(name).stem}.png")
    return root


def volumes(root: Path) -> Path:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
        for name in "abcd":
            image = nibabel.Nifti1Image(rng.integers(0, 2, (9, 8, 4)).astype(np.uint8), np.eye(4))
            nibabel.save(image, root / folder / f"{name}.nii")
    cut, kind, turned = (root / "images" / f"{name}.nii" for name in "bcd")
    cut.write_bytes(cut.read_bytes()[:400])
    header = bytearray(kind.read_bytes())
    header[70:72] = b"\x4d\0"  # an unknown type
    kind.write_bytes(header)
    header = bytearray(turned.read_bytes())
    header[252:256] = b"\x77\0\x77\0"  # unknown codes of orientation
    header[76:80] = np.float32(5).tobytes()
    turned.write_bytes(header)
    return root


def series(root: Path) -> Path:
    """DICOM slices with invalid values, of which pydicom warns, one with too many pixels and one with too few."""
    (root / "ct").mkdir(parents=True)
    for k in range(4):
        one = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SeriesInstanceUID, one.Modality, one.PhotometricInterpretation = "1.2.3", "CT", "MONOCHROME2"
        one.StudyDate, one.PatientName = "20200101", "A^B"
        one.Rows, one.Columns, one.SamplesPerPixel, one.BitsAllocated, one.BitsStored = 8, 9, 1, 16, 12
        one.HighBit, one.PixelRepresentation, one.PixelSpacing = 11, 0, [1, 1]
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, float(k)], [1, 0, 0, 0, 1, 0]
        one.PixelData = rng.integers(0, 4096, 8 * 9 + (k == 1) * 7 - (k == 2) * 10).astype(np.uint16).tobytes()
        one.save_as(root / "ct" / f"{k}", enforce_file_format=True)
        content = (root / "ct" / f"{k}").read_bytes()
        content = content.replace(b"20200101", b"2020-1-1").replace(b"1.2.3\0", b"1..03\0")
        (root / "ct" / f"{k}").write_bytes(content)
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 8, 4), np.uint8), np.diag([-1.0, -1, 1, 1])), root / "seg.nii")
    return root


@pytest.mark.parametrize("make", [images, volumes, series])
def test_check_prints_no_lines_of_libraries(tmp_path, make):
    command = [sys.executable, "-c", SCRIPT, str(make(tmp_path / "data"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("surveyed")
    assert "cannot be read" in done.stdout
    assert [line for line in done.stderr.splitlines() if not line.startswith("checking ")] == []


def test_only_what_happens_while_a_file_is_read_is_silenced(capfd):
    logger = logging.getLogger("nibabel.global")
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    try:
        with reading(Path("a"), ImageError, "file"), silenced():
            logger.error("inside")
            warnings.warn("inside", stacklevel=1)
        assert capfd.readouterr() == ("", "")
        logger.error("outside")
        assert "outside" in capfd.readouterr().err
        with pytest.warns(UserWarning, match="outside"):
            warnings.warn("outside", stacklevel=1)
    finally:
        logger.removeHandler(handler)


def test_threads_that_end_in_any_order_restore_the_filters():
    before = list(warnings.filters)
    first, second = threading.Event(), threading.Event()

    def read() -> None:
        with silenced():
            first.set()
            second.wait(5)

    thread = threading.Thread(target=read)
    with silenced():
        thread.start()
        first.wait(5)
    assert warnings.filters[0][0] == "ignore"
    second.set()
    thread.join()
    assert list(warnings.filters) == before
