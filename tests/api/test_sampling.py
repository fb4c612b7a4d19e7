"""Samples of predicted maps: the files to answer, and areas from the answers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform
from tests.inference.backends import predictor_of

from pixelwise.api.measuring.areas import AREAS, MATRIX, REPORT, AreaReport, estimate_from_answers, write_area_report
from pixelwise.api.measuring.maps import open_map
from pixelwise.api.measuring.sampling import ProposedSample, propose_sample
from pixelwise.api.predicting import predict_files
from pixelwise.errors import DataError, OutputExistsError, UsageError
from pixelwise.formats.reading import file_hash
from pixelwise.labels import Labels

LABELS = Labels(("field", "forest, old"), ids=(1, 4))
SHAPE = (90, 120)
PLACES = {
    "utm": {"crs": "EPSG:32643", "transform": Affine(10, 0, 400_000, 0, -10, 2_340_000)},
    "degrees": {"crs": "EPSG:4326", "transform": Affine(0.1, 0, 70, 0, -0.1, 55)},
    "rotated": {
        "crs": "EPSG:3857",
        "transform": Affine(8.66, 5, 8.8e6, 5, -8.66, 2.4e6),
    },
}


def brighter(images: NDArray[Any]) -> NDArray[Any]:
    """The second class is the more probable, the brighter a pixel is."""
    values = (np.asarray(images, np.float32)[:, :1] - 128) / 40
    return np.concatenate([np.zeros_like(values), values], 1)


def scene() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    values = rng.normal(90, 30, SHAPE)
    values[:, 80:] += 80
    return np.clip(values, 0, 250).astype(np.uint8)


def predicted(folder: Path, place: str | None = "utm", *, confidence: bool = True) -> Path:
    """Predict one image with rows without data, and return the folder of the predictions."""
    folder.mkdir(exist_ok=True)
    values = scene()
    if place is None:
        Image.fromarray(values).save(folder / "map.png")
    else:
        values[-3:] = 255
        about: dict[str, Any] = {"dtype": "uint8", "nodata": 255, **PLACES[place]}
        with rasterio.open(folder / "map.tif", "w", "GTiff", SHAPE[1], SHAPE[0], 1, **about) as file:
            file.write(values, 1)
    source = folder / ("map.png" if place is None else "map.tif")
    predict_files(predictor_of(brighter, LABELS, channels=1), [str(source)], folder / "out", confidence=confidence)
    return folder / "out"


def truth() -> NDArray[np.int64]:
    return (np.arange(SHAPE[1])[None] >= 80).astype(np.int64) + np.zeros(SHAPE, np.int64)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


Edit = Callable[[dict[str, str]], dict[str, str]]


def answer(folder: Path, edit: Edit = lambda row: row, name: str = "answers.csv", delimiter: str = ",") -> Path:
    """Answer all points by the truth, in a copy of the points."""
    rows = []
    for row in table(folder / "sample.csv"):
        row["answer"] = LABELS.names[truth()[int(row["row"]), int(row["column"])]]
        rows.append(edit(row))
    with (folder / name).open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def drawn(folder: Path, place: str | None = "utm", size: int = 150, **options: Any) -> tuple[Path, ProposedSample]:
    out = predicted(folder, place, confidence=options.pop("confidence", True))
    return out, propose_sample(out, size=size, out=folder / "survey", **options)


# Proposing


def test_all_files_name_the_same_points(tmp_path: Path) -> None:
    _, sample = drawn(tmp_path)
    folder = sample.folder
    assert set(sample.files) == {path.name for path in folder.iterdir()}
    points = table(folder / "sample.csv")
    assert [int(row["point"]) for row in points] == list(range(1, 151))
    assert not {"class", "map"} & set(points[0]), "what the map says is not shown"
    record = json.loads((folder / "sample.json").read_text())
    assert [(p["row"], p["column"], p["stratum"]) for p in record["points"]] == [
        (int(row["row"]), int(row["column"]), int(row["stratum"])) for row in points
    ]
    for row in points:
        stratum = record["strata"][int(row["stratum"]) - 1]
        assert float(row["inclusion_probability"]) == pytest.approx(stratum["points"] / stratum["pixels"], rel=1e-5)
    features = json.loads((folder / "sample.geojson").read_text())["features"]
    assert [f["geometry"]["coordinates"] for f in features] == [
        [float(row["longitude"]), float(row["latitude"])] for row in points
    ]
    space = {"k": "http://www.opengis.net/kml/2.2"}
    kml = ElementTree.parse(folder / "sample.kml").getroot()
    found = [each.text for each in kml.iterfind(".//k:Point/k:coordinates", space)]
    assert found == [f"{row['longitude']},{row['latitude']}" for row in points]
    assert len(list((folder / "chips").iterdir())) == 150
    assert sample.notices == (
        "the model is unknown: make sure that no point is answered by the labels that the model was trained on",
    )


@pytest.mark.parametrize("place", list(PLACES))
def test_positions_are_those_of_gdal(tmp_path: Path, place: str) -> None:
    out, sample = drawn(tmp_path, place, 40)
    with rasterio.open(out / "masks" / "map.tif") as file:
        for row in table(sample.folder / "sample.csv"):
            x, y = file.xy(int(row["row"]), int(row["column"]))
            (longitude,), (latitude,) = transform(file.crs, "EPSG:4326", [x], [y])
            assert (float(row["longitude"]), float(row["latitude"])) == pytest.approx((longitude, latitude), abs=1e-8)
            assert (float(row["x"]), float(row["y"])) == pytest.approx((x, y))


def test_the_border_of_a_pixel_in_kml_encloses_its_centre(tmp_path: Path) -> None:
    _, sample = drawn(tmp_path, "rotated", 30)
    space = {"k": "http://www.opengis.net/kml/2.2"}
    for mark in ElementTree.parse(sample.folder / "sample.kml").getroot().iterfind(".//k:MultiGeometry", space):
        texts = [mark.find(f"k:{kind}/k:coordinates", space) for kind in ("Point", "LineString")]
        centre, ring = (
            np.array([[float(v) for v in pair.split(",")] for pair in text.text.split()])
            for text in texts
            if text is not None and text.text
        )
        assert (ring[0] == ring[-1]).all()
        assert np.ptp(ring, axis=0).max() < 2e-4
        assert ring[:-1].mean(0) == pytest.approx(centre[0], abs=1e-9)


def test_chips_show_the_image_around_the_point(tmp_path: Path) -> None:
    _, sample = drawn(tmp_path, None, 60)
    values = np.pad(scene(), 50)
    for row in table(sample.folder / "sample.csv"):
        shown = np.asarray(Image.open(sample.folder / "chips" / f"{int(row['point']):02}.png"))
        expected = values[int(row["row"]) :, int(row["column"]) :][:101, :101]
        ring = np.maximum(*np.abs(np.mgrid[-50:51, -50:51]))
        assert (shown[..., 0] == expected)[(ring != 3) & (ring != 4)].all()
        assert set(np.unique(shown[ring == 3])) == {0}
        assert set(np.unique(shown[ring == 4])) == {255}


@pytest.mark.parametrize(("dtype", "bands"), [("uint16", 1), ("int16", 4), ("float32", 3)])
def test_images_of_more_than_8_bits_are_stretched_alike_at_every_point(tmp_path: Path, dtype: str, bands: int) -> None:
    """Each band between its 2nd and 98th percentile in the valid pixels around the points."""
    values = np.stack([scene().astype(np.float64) * (30 + 10 * band) - 20 * band for band in range(bands)]).astype(
        dtype
    )
    values[:, 30:50] = -9 if dtype != "uint16" else 65535
    about = {"dtype": dtype, "nodata": values[0, 30, 0], **PLACES["utm"]}
    with rasterio.open(tmp_path / "map.tif", "w", "GTiff", SHAPE[1], SHAPE[0], bands, **about) as file:
        file.write(values)
    Image.fromarray(truth().astype(np.uint8)).save(tmp_path / "map.png")
    sample = propose_sample(tmp_path / "map.png", size=60, out=tmp_path / "survey", image=tmp_path / "map.tif")
    shown_bands = values[: 3 if bands >= 3 else 1].astype(np.float64)
    seen = np.full(SHAPE, np.nan)
    points = [(int(row["row"]), int(row["column"])) for row in table(sample.folder / "sample.csv")]
    around = [
        shown_bands[:, max(row - 50, 0) : row + 51, max(column - 50, 0) : column + 51].reshape(len(shown_bands), -1)
        for row, column in points
    ]
    pixels = np.concatenate([each[:, each[0] != about["nodata"]] for each in around], 1)
    low, high = np.percentile(pixels, (2, 98), axis=1)
    expected = 255 * np.clip((shown_bands - low[:, None, None]) / (high - low)[:, None, None], 0, 1)
    ring = np.maximum(*np.abs(np.mgrid[-50:51, -50:51]))
    for number, (row, column) in enumerate(points, 1):
        shown = np.asarray(Image.open(sample.folder / "chips" / f"{number:02}.png")).astype(float)
        rows, columns = np.mgrid[row - 50 : row + 51, column - 50 : column + 51]
        inside = (rows >= 0) & (rows < SHAPE[0]) & (columns >= 0) & (columns < SHAPE[1]) & (ring != 3) & (ring != 4)
        inside[inside] = (shown_bands[0] != about["nodata"])[rows[inside], columns[inside]]
        for band in range(3):
            wanted = expected[min(band, len(expected) - 1)][rows[inside], columns[inside]]
            assert np.abs(shown[inside][:, band] - wanted).max() <= 0.6
        seen[rows[inside], columns[inside]] = 1
    assert np.isfinite(seen).sum() > 5000
    assert "stretched from its 2nd to its 98th percentile" in (sample.folder / "index.html").read_text()


def test_images_of_8_bits_are_shown_as_they_are(tmp_path: Path) -> None:
    _, sample = drawn(tmp_path, None, 60)
    assert "percentile" not in (sample.folder / "index.html").read_text()


def test_without_a_reference_system_there_are_pixels(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, None, 60)
    assert sample.unit == "px²"
    assert "sample.geojson" not in sample.files
    assert any("no GeoJSON and KML" in notice for notice in sample.notices)
    assert "longitude" not in table(sample.folder / "sample.csv")[0]
    found = estimate_from_answers(out, answer(sample.folder))
    assert found.total.value == SHAPE[0] * SHAPE[1]


def test_without_confidences_the_strata_are_the_classes(tmp_path: Path) -> None:
    _, sample = drawn(tmp_path, confidence=False)
    assert [each["class"] for each in sample.strata] == list(LABELS.names)
    assert any("predict.confidence=true" in notice for notice in sample.notices)
    _, with_confidence = drawn(tmp_path / "more")
    assert len(with_confidence.strata) > 2


def test_a_sample_is_not_overwritten_by_accident_and_answers_never(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, None, 60)
    with pytest.raises(OutputExistsError, match="overwrite"):
        propose_sample(out, size=60, out=sample.folder)
    again = propose_sample(out, size=60, out=sample.folder, overwrite=True)
    assert again.id == sample.id
    written = answer(sample.folder)
    with pytest.raises(OutputExistsError, match=r"answers\.csv"):
        propose_sample(out, size=60, out=sample.folder, overwrite=True)
    written.replace(sample.folder / "sample.csv")
    with pytest.raises(OutputExistsError, match="expected no answers to replace"):
        propose_sample(out, size=60, out=sample.folder, overwrite=True)


def test_too_few_points_are_an_error(tmp_path: Path) -> None:
    out = predicted(tmp_path)
    with pytest.raises(UsageError, match="expected 10 points or more, 5 for each class of the map, found 9"):
        propose_sample(out, size=9, out=tmp_path / "survey")
    assert not (tmp_path / "survey").exists()


def test_names_from_files_are_no_markup(tmp_path: Path) -> None:
    name = "a&b]]><script>x"
    mask = tmp_path / f"{name}.tif"
    with rasterio.open(mask, "w", "GTiff", 30, 30, 1, dtype="uint8", **PLACES["utm"]) as file:
        file.write(np.random.default_rng(0).integers(0, 2, (30, 30)).astype(np.uint8), 1)
    (tmp_path / "labels.yaml").write_text("names: ['</script><b>', '\"; alert(1)']")
    sample = propose_sample(mask, size=20, out=tmp_path / "survey")
    root = ElementTree.parse(sample.folder / "sample.kml").getroot()
    assert root[0][0].text == mask.name
    page = (sample.folder / "index.html").read_text()
    assert page.count("<script") == 2
    assert "<b>" not in page


# Estimating


@pytest.mark.parametrize("place", ["utm", "degrees", None])
def test_areas_are_those_of_the_truth(tmp_path: Path, place: str | None) -> None:
    out, sample = drawn(tmp_path, place, 400)
    found = estimate_from_answers(out, answer(sample.folder))
    assert (found.points, found.answered, found.unsure, found.missing) == (400, 400, 0, 0)
    rows = SHAPE[0] - (3 if place else 0)
    weights = np.ones(rows)
    if place == "degrees":
        weights = np.cos(np.deg2rad(55 - 0.1 * (np.arange(rows) + 0.5)))
    share = float((truth()[:rows].mean(1) * weights).sum() / weights.sum())
    forest = found.classes[1]
    assert forest.share.low < share < forest.share.high
    assert forest.area.low is not None
    assert forest.area.high is not None
    assert forest.area.value == pytest.approx(found.total.value * forest.share.value)
    assert sum(each.area.value for each in found.classes) == pytest.approx(found.total.value)
    assert found.total.unit == ("m²" if place else "px²")
    if place == "utm":
        assert found.total.value == pytest.approx(rows * SHAPE[1] * 100 / 0.9996**2, rel=2e-3)
    mask = open_map(out)
    assert forest.mapped.value > 0
    assert mask.labels.names == LABELS.names
    assert forest.area.note is not None
    assert "95 % confidence interval, from 400 points" in forest.area.note


def test_answers_come_from_the_page_or_the_table_of_points(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, size=120)
    expected = estimate_from_answers(out, answer(sample.folder)).to_dict()
    assert estimate_from_answers(out, sample.folder).to_dict() == expected
    ids = answer(
        sample.folder, lambda row: row | {"answer": str(LABELS.ids[LABELS.names.index(row["answer"])])}, "a.csv", ";"
    )
    assert estimate_from_answers(out, ids).to_dict() == expected
    only = answer(sample.folder, lambda row: {"answer": row["answer"].upper(), "point": row["point"]}, "b.csv", "\t")
    assert estimate_from_answers(out, only).to_dict() == expected
    moved = tmp_path / "downloads"
    moved.mkdir()
    only.rename(moved / "answers.csv")
    with pytest.raises(DataError, match=r"expected the sample\.json of the sample"):
        estimate_from_answers(out, moved / "answers.csv")
    assert estimate_from_answers(out, moved / "answers.csv", sample=sample.folder).to_dict() == expected
    assert estimate_from_answers(out / "masks" / "map.tif", sample.folder).to_dict() == expected


def test_points_without_an_answer_are_counted(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, size=120)

    def some(row: dict[str, str]) -> dict[str, str]:
        return row | {"answer": {1: "unsure", 2: ""}.get(int(row["point"]), row["answer"])}

    found = estimate_from_answers(out, answer(sample.folder, some))
    assert (found.answered, found.unsure, found.missing) == (118, 1, 1)
    assert any("2 of 120 points have no answer (1 unsure, 1 missing)" in notice for notice in found.notices)


ERRORS: list[tuple[str, Edit, str]] = [
    (
        "class",
        lambda row: row | {"answer": "Forest"},
        "line 2: expected one of the classes field, forest, old, unsure.*Did you mean",
    ),
    ("point", lambda row: row | {"point": "500"}, "expected a point from 1 to 60, found 500"),
    ("sample", lambda row: {"sample": "abc", **row}, "expected answers of the sample [0-9a-f]{12}, found abc"),
    ("place", lambda row: row | {"row": "0", "column": "0"}, "of this sample is, found row 0 and column 0"),
    ("two", lambda row: row | {"point": "1"}, "expected one answer for point 1, found two that differ"),
    ("none", lambda row: row | {"answer": ""}, "expected answers, found none"),
    (
        "column",
        lambda row: {"point": row["point"], "class": row["answer"]},
        "expected a column named answer, found point, class",
    ),
]


@pytest.mark.parametrize(("edit", "text"), [each[1:] for each in ERRORS], ids=[each[0] for each in ERRORS])
def test_wrong_answers_are_errors(tmp_path: Path, edit: Edit, text: str) -> None:
    out, sample = drawn(tmp_path, None, 60)
    with_place = "row 0" in text

    def edited(row: dict[str, str]) -> dict[str, str]:
        return edit(row if with_place else {key: row[key] for key in row if key not in ("row", "column")})

    path = answer(sample.folder, edited)
    with pytest.raises(DataError, match=text):
        estimate_from_answers(out, path)


def test_a_class_with_too_few_answers_names_its_points(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, None, 60, confidence=False)

    def some(row: dict[str, str]) -> dict[str, str]:
        return row | {"answer": "" if row["stratum"] == "2" else row["answer"]}

    with pytest.raises(
        DataError,
        match=r"expected 2 answers or more where the map says forest, old, found 0\. Answer more of its points: \d+",
    ):
        estimate_from_answers(out, answer(sample.folder, some))


def test_another_or_a_changed_map_is_an_error(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, None, 60)
    path = answer(sample.folder)
    Image.fromarray(np.full(SHAPE, 4, np.uint8)).save(out / "masks" / "map.png")
    with pytest.raises(DataError, match=r"expected the map map\.png that the points of .* were drawn from"):
        estimate_from_answers(out, path)


def test_the_report_is_written_as_tables(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, size=200)
    found = estimate_from_answers(out, answer(sample.folder))
    assert write_area_report(found, sample.folder) == (AREAS, MATRIX, REPORT)
    rows = table(sample.folder / AREAS)
    assert [row["class"] for row in rows] == list(LABELS.names)
    for row, each in zip(rows, found.classes, strict=True):
        assert float(row["area"]) == pytest.approx(each.area.value, rel=1e-5)
        assert each.producers is not None
        assert float(row["producers_low"]) == pytest.approx(each.producers.low, rel=1e-4)
        assert float(row["low"]) <= float(row["area"]) <= float(row["high"])
    matrix = table(sample.folder / MATRIX)
    assert sum(float(row[name]) for row in matrix for name in LABELS.names) == pytest.approx(1, abs=1e-4)
    assert sum(int(row[f"{name} (points)"]) for row in matrix for name in LABELS.names) == 200
    assert json.loads((sample.folder / REPORT).read_text()) == json.loads(json.dumps(found.to_dict()))


# Olofsson, and maps and points of other programs

COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])


def published(folder: Path, columns: Sequence[str] = ("row", "column")) -> tuple[Path, Path]:
    """Write a map with the areas of Olofsson et al. 2014 (1 : 1000), and 640 points with the published answers."""
    mask = np.repeat(np.arange(1, 5), [200, 150, 3200, 6450]).astype(np.uint8).reshape(100, 100)
    with rasterio.open(
        folder / "change.tif", "w", "GTiff", 100, 100, 1, dtype="uint8", nodata=0, **PLACES["utm"]
    ) as file:
        file.write(mask, 1)
        lines = [",".join((*columns, "answer"))]
        rng = np.random.default_rng(0)
        for k, counts in enumerate(COUNTS):
            places = rng.permutation(np.argwhere(mask == k + 1))[: counts.sum()]
            for (row, column), reference in zip(places, np.repeat(np.arange(1, 5), counts), strict=True):
                at = (int(row), int(column)) if columns[0] == "row" else file.xy(row, column)
                if columns[0] == "longitude":
                    at = tuple(each[0] for each in transform(file.crs, "EPSG:4326", [at[0]], [at[1]]))
                lines.append(",".join(map(str, map(float, at))) + f",{reference}")
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    return folder / "change.tif", folder / "points.csv"


@pytest.mark.parametrize("columns", [("row", "column"), ("x", "y"), ("longitude", "latitude")])
def test_the_published_example_from_a_map_and_points(tmp_path: Path, columns: tuple[str, str]) -> None:
    found = estimate_from_answers(*published(tmp_path, columns), estimator="olofsson")
    assert [each.name for each in found.classes] == ["1", "2", "3", "4"]
    assert found.counts.tolist() == COUNTS.tolist()
    # Pixels of UTM are a little smaller or larger than 100 m²; shares are those of the publication.
    assert [round(1e7 * each.share.value / 1e3) for each in found.classes] == pytest.approx(
        [235, 130, 3175, 6460], abs=1
    )
    margin = (found.classes[0].share.high - found.classes[0].share.low) / 2
    assert round(1e7 * margin / 1e3) == 68
    assert found.notices[-1].startswith("the points are taken as drawn at random in each class")


def test_points_of_others_need_the_estimator_for_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="add --estimator olofsson"):
        estimate_from_answers(*published(tmp_path))


@pytest.mark.parametrize(("text", "found"), [("100,3,1", "one beside it"), ("a,3,1", "a, 3"), ("nan,3,1", "nan, 3")])
def test_wrong_positions_are_errors(tmp_path: Path, text: str, found: str) -> None:
    mask, points = published(tmp_path)
    points.write_text(points.read_text() + text + "\n")
    with pytest.raises(DataError, match=rf"line 642: expected .*, found {found}"):
        estimate_from_answers(mask, points, estimator="olofsson")


def test_ids_of_a_mask_of_0_and_255_are_two_classes(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :9] = 255
    Image.fromarray(mask).save(tmp_path / "binary.png")
    assert open_map(tmp_path / "binary.png").labels.names == ("0", "255")
    mask[0] = 7
    Image.fromarray(mask).save(tmp_path / "ids.png")
    assert open_map(tmp_path / "ids.png").labels.names == ("0", "7")


def test_a_folder_of_several_maps_asks_for_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(scene()).save(tmp_path / f"{name}.png")
    sources = [str(tmp_path / f"{name}.png") for name in ("a", "b")]
    predict_files(predictor_of(brighter, LABELS, channels=1), sources, tmp_path / "out", confidence=True)
    with pytest.raises(DataError, match=r"one map, found 2\. Name one of the masks, such as .*a\.png"):
        open_map(tmp_path / "out")
    found = open_map(tmp_path / "out" / "masks" / "b.png")
    assert found.source == tmp_path / "b.png"
    assert found.image.confidences is not None
    with pytest.raises(DataError, match="expected an output folder of predict with one map, found none"):
        open_map(tmp_path)


# Training pixels


def trained_on(folder: Path, out: Path, windows: Sequence[Any]) -> None:
    """Let the predictions name a model whose run was trained on windows of the image."""
    run = folder / "run"
    (run / "model").mkdir(parents=True)
    (run / "request.json").write_text("{}")
    digits = file_hash(folder / "map.tif")[:16]
    used = {"train": {str(i): [digits, None, window] for i, window in enumerate(windows)}, "val": {}}
    (run / "data.json").write_text(json.dumps({"used": used}))
    summary = json.loads((out / "predictions.json").read_text())
    (out / "predictions.json").write_text(json.dumps(summary | {"model": str(run / "model")}))


def test_windows_of_the_training_are_left_out(tmp_path: Path) -> None:
    out = predicted(tmp_path)
    trained_on(tmp_path, out, [[[0, 0], [40, 120]]])
    sample = propose_sample(out, size=100, out=tmp_path / "survey")
    assert min(int(row["row"]) for row in table(sample.folder / "sample.csv")) >= 40
    assert any("4,800 pixels (44.4% of the map) are left out" in notice for notice in sample.notices)
    found = estimate_from_answers(out, answer(sample.folder))
    assert found.total.value == pytest.approx(47 * 120 * 100 / 0.9996**2, rel=2e-3)
    assert any("4,800 pixels" in notice for notice in found.notices)


def test_a_map_that_was_trained_on_is_refused(tmp_path: Path) -> None:
    out = predicted(tmp_path)
    trained_on(tmp_path, out, [None])
    with pytest.raises(DataError, match="the model was trained or validated on all of the map"):
        propose_sample(out, size=100, out=tmp_path / "survey")


def test_answers_at_training_pixels_are_refused(tmp_path: Path) -> None:
    out = predicted(tmp_path)
    trained_on(tmp_path, out, [[[0, 0], [40, 120]]])
    lines = [f"{row},{column},field" for row in range(30, 60, 3) for column in range(0, 120, 10)]
    (tmp_path / "points.csv").write_text("\n".join(["row,column,answer", *lines]))
    with pytest.raises(DataError, match="found 48 of 120 in rows 0–39, columns 0–119"):
        estimate_from_answers(out, tmp_path / "points.csv", estimator="olofsson")


def test_reports_are_plain(tmp_path: Path) -> None:
    out, sample = drawn(tmp_path, size=120)
    found: AreaReport = estimate_from_answers(out, answer(sample.folder))
    json.dumps([sample.to_dict(), found.to_dict()])
    assert math.isclose(sum(map(sum, found.to_dict()["matrix"])), 1)
