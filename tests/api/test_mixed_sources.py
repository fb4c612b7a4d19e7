"""One call predicts images, scenes, volumes, DICOM series and videos together, each by its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.imageio.dicom_files import series, slice_file
from tests.imageio.drawn_videos import draw_video
from tests.inference.backends import predictor_of

from pixelwise.api.predicting import find_sources, predict_files
from pixelwise.api.predicting.video import VideoSettings
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels

LABELS = Labels(("dark", "bright"))


def bright(images: NDArray[Any]) -> NDArray[Any]:
    values = np.asarray(images, np.float32)[:, :1]
    return np.concatenate([np.full_like(values, 100), values], 1)


def predictor(channels: int, **spec: Any) -> Predictor:
    return predictor_of(bright, LABELS, channels=channels, **spec)


def test_videos_are_predicted_beside_images(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    draw_video(folder / "drive.mp4", 12)
    Image.fromarray(np.full((40, 50, 3), 200, np.uint8)).save(folder / "a.png")
    (folder / "drive.txt").write_text("notes")
    result = predict_files(predictor(3), [str(folder)], tmp_path / "out", video=VideoSettings(every=2))
    image, video = result.images
    assert image["mask"] == "masks/a.png"
    assert video["frames"] == 6
    lines = (tmp_path / "out" / video["frames_file"]).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    assert (tmp_path / "out" / video["overlay"]).is_file()
    assert not result.failed
    assert not list((tmp_path / "out").rglob("*.parts"))


def test_a_dicom_series_is_one_volume_and_a_localizer_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "patient"
    series(folder, 4)
    slice_file(
        folder / "scout.dcm",
        np.zeros((8, 8), np.int16),
        (0, 0, 0),
        SeriesInstanceUID="1.2.3",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    result = predict_files(predictor(1), [str(folder)], tmp_path / "out")
    (entry,) = result.images
    assert not result.failed
    assert entry["depth"] == 4
    assert entry["grid"]["unit"] == "mm"
    assert any("localizer" in notice for notice in result.notices)
    plain = json.loads((tmp_path / "out" / "predictions.json").read_bytes())
    assert plain["notices"] == list(result.notices)


def test_a_file_of_a_series_names_the_series(tmp_path: Path) -> None:
    files = series(tmp_path / "patient", 3)
    for sources in ([str(files[1])], [str(files[0].parent / "*")], [str(file) for file in files]):
        found = find_sources(sources)
        (item,) = found.items.values()
        assert set(item.files) == set(files)


def test_two_series_in_a_folder_are_two_results(tmp_path: Path) -> None:
    folder = tmp_path / "patient"
    series(folder, 3)
    for file in series(tmp_path / "other", 2, SeriesInstanceUID="1.2.9", SeriesNumber=9):
        file.rename(folder / f"second-{file.name}")
    result = predict_files(predictor(1), [str(folder)], tmp_path / "out")
    assert sorted(entry["depth"] for entry in result.images) == [2, 3]
    assert len({entry["mask"] for entry in result.images}) == 2


def test_a_broken_series_fails_alone(tmp_path: Path) -> None:
    good, bad = tmp_path / "in" / "good", tmp_path / "in" / "bad"
    series(good, 3)
    for file in series(bad, 6)[2:3]:
        file.unlink()
    result = predict_files(predictor(1), [str(tmp_path / "in")], tmp_path / "out")
    assert len(result.images) == 1
    assert len(result.failed) == 1
    assert "equal distances" in result.failed[0]["error"]


def test_volumes_keep_their_format(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 255, (8, 9, 5)).astype(np.int16)
    nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])).to_filename(folder / "mr.v1.nii.gz")
    result = predict_files(predictor(1), [str(folder)], tmp_path / "out", confidence=True)
    (entry,) = result.images
    assert entry["mask"] == "masks/mr.v1.nii.gz"
    mask = np.asarray(nibabel.load(tmp_path / "out" / entry["mask"]).dataobj)
    np.testing.assert_array_equal(mask, values > 100)
    assert entry["confidence"] == "confidence/mr.v1.nii.gz"


def test_a_changed_slice_is_noticed_when_a_folder_is_resumed(tmp_path: Path) -> None:
    from pixelwise.api.predicting.journal import state_of, unchanged

    files = series(tmp_path / "patient", 3)
    before = state_of(files)
    assert unchanged(files, before)
    slice_file(files[1], np.full((8, 8), 9, np.int16), (0, 0, 0))
    assert not unchanged(files, before)


@pytest.mark.parametrize("name", ["drive.mp4", "drive.png"])
def test_a_video_is_recognised_by_its_content(tmp_path: Path, name: str) -> None:
    draw_video(tmp_path / "real.mp4", 3).rename(tmp_path / name)
    (item,) = find_sources([str(tmp_path)]).items.values()
    assert item.is_video


def read_frames(path: Path) -> list[tuple[int, str, int]]:
    """Return segment, referenced image and number of pixels of each frame of a segmentation, read by pydicom."""
    import pydicom

    file = pydicom.dcmread(path)
    pixels = file.pixel_array.reshape(int(file.NumberOfFrames), file.Rows, file.Columns)
    found = []
    for frame, groups in zip(pixels, file.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found.append((int(segment), str(source), int(frame.sum())))
    return found


def test_the_mask_of_a_dicom_series_is_a_segmentation_object(tmp_path: Path) -> None:
    import pydicom

    files = series(tmp_path / "patient", 4, StudyInstanceUID="1.2.826.1", FrameOfReferenceUID="1.2.826.2")
    (entry,) = predict_files(predictor(1), [str(tmp_path / "patient")], tmp_path / "out").images
    assert "notices" not in entry
    assert entry["mask"].endswith(".dcm")
    expected = {}
    for file in files:
        plain = pydicom.dcmread(file)
        values = plain.pixel_array * float(plain.get("RescaleSlope", 1)) + float(plain.get("RescaleIntercept", 0))
        expected[str(plain.SOPInstanceUID)] = int((values > 100).sum())
    names = [s.SegmentLabel for s in pydicom.dcmread(tmp_path / "out" / entry["mask"]).SegmentSequence]
    assert names == ["dark", "bright"]
    bright_frames = {
        source: pixels for segment, source, pixels in read_frames(tmp_path / "out" / entry["mask"]) if segment == 2
    }
    assert bright_frames == expected
    (other,) = predict_files(predictor(1), [str(tmp_path / "patient")], tmp_path / "nifti", dicom="nifti").images
    assert other["mask"].endswith(".nii.gz")


def test_a_series_without_identifiers_gets_nifti_or_new_identifiers(tmp_path: Path) -> None:
    import pydicom

    for file in series(tmp_path / "patient", 3):
        plain = pydicom.dcmread(file)
        plain.StudyInstanceUID = ""
        plain.save_as(file)
    sources = [str(tmp_path / "patient")]
    (entry,) = predict_files(predictor(1), sources, tmp_path / "out").images
    assert entry["mask"].endswith(".nii.gz")
    assert "--set predict.generate_uids=true" in entry["notices"][0]
    assert entry["notices"][0].endswith("The mask was written as NIfTI.")
    (entry,) = predict_files(predictor(1), sources, tmp_path / "new", generate_uids=True).images
    assert entry["mask"].endswith(".dcm")
    assert "generated StudyInstanceUID" in entry["notices"][0]
