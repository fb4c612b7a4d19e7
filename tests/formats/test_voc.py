"""Pascal VOC as distributed, as written by CVAT and labelme2voc, and similar layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, LabelsError, MaskError, PairingError, PixelwiseError
from pixelwise.formats import FORMATS, find_format, read_dataset
from pixelwise.formats.base import ReadResult
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.voc import voc_colour
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels

NONE = {"val": 0, "test": 0}
PALETTE = [band for k in range(256) for band in voc_colour(k)]
IDS = np.array(
    [[0, 0, 1, 1], [0, 255, 255, 1], [20, 20, 15, 15]], np.uint8
)  # background, aeroplane, tv, person, border
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:204,153,51:door,wheel:\nsky:50,183,250::fly\n"


def put(root: Path, files: dict[str, str | np.ndarray], palette: list[int] | None = PALETTE) -> Path:
    """Write texts, images of the masks' size where the content is "", and masks: palette, grey, or RGB arrays."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            image = Image.fromarray(content)
            if content.ndim == 2 and palette is not None:
                image.putpalette(palette)
            image.save(path)
        elif path.suffix in (".jpg", ".png"):
            Image.new("RGB", (4, 3), (len(name), 90, 120)).save(path)
        else:
            path.write_text(content, "utf-8")
    return root


def usual(root: Path, **masks: np.ndarray) -> Path:
    """Create VOC's layout without lists."""
    files: dict[str, str | np.ndarray] = {}
    for name, mask in (masks or {"a": IDS, "b": IDS}).items():
        files |= {f"JPEGImages/{name}.jpg": "", f"SegmentationClass/{name}.png": mask}
    return put(root, files)


def look(root: Path, **config: object) -> ReadResult:
    return read_dataset(DataConfig.model_validate(config), root, root)[1]


def opened(root: Path, **config: object) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": NONE} | config), root)


def subsets(found: ReadResult) -> dict[str, list[str]]:
    return {split: [record.id for record in records] for split, records in found.layout.splits.items()}


def mask_of(splits: DataSplits, id_: str) -> np.ndarray:
    """Return a mask as the ids of its classes."""
    for split in splits:
        for index, record in enumerate(split.records):
            if record.id == id_:
                return split.labels.decode(split.read(index).mask)
    raise AssertionError(id_)


def why(found: ReadResult) -> list[tuple[str, str]]:
    return sorted((one.file, one.why) for one in found.layout.problems)


# VOC itself ----------------------------------------------------------------------------------------------------------


def test_the_palette_is_that_of_the_development_kit():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    known |= {20: (0, 64, 128), 21: (128, 64, 128), 64: (32, 0, 0), 255: (224, 224, 192)}
    assert {k: voc_colour(k) for k in known} == known
    assert len({voc_colour(k) for k in range(256)}) == 256


def test_voc_as_distributed(tmp_path):
    home = usual(tmp_path / "VOCdevkit/VOC2012", **{"2007_000032": IDS, "2007_000033": IDS[::-1], "2008_1": IDS})
    put(home, {f"JPEGImages/2009_{k}.jpg": "" for k in range(5)})
    put(home, {"ImageSets/Segmentation/train.txt": "2007_000032\n", "ImageSets/Segmentation/val.txt": "2007_000033\n"})
    put(home, {"ImageSets/Segmentation/trainval.txt": "2007_000032\n2007_000033\n", "ImageSets/Main/train.txt": "x\n"})
    put(home, {"SegmentationObject/2007_000032.png": IDS, "Annotations/2007_000032.xml": "<annotation/>"})
    found = look(tmp_path)
    assert subsets(found) == {"train": ["2007_000032"], "val": ["2007_000033"]}
    assert found.layout.problems == ()
    lists = "VOCdevkit/VOC2012/ImageSets/Segmentation"
    assert found.layout.notices[1:] == (
        "no labelmap.txt: the classes are the 21 of Pascal VOC",
        f"6 of 8 images are in no list of {lists} and are left out; masks in none: 1",
        "not used: 3 files (1 .png: VOCdevkit/VOC2012/SegmentationObject/2007_000032.png;"
        " 1 .txt: VOCdevkit/VOC2012/ImageSets/Main/train.txt;"
        " 1 .xml: VOCdevkit/VOC2012/Annotations/2007_000032.xml)",
    )
    splits = opened(tmp_path)
    assert (splits.labels.num_classes, splits.labels.names[0], splits.labels.names[20]) == (
        21,
        "background",
        "tvmonitor",
    )
    assert splits.labels.colours[15] == (192, 128, 128)
    assert splits.labels.countable == (False, *[True] * 20)
    np.testing.assert_array_equal(mask_of(splits, "2007_000032"), IDS)
    assert (splits.train.read(0).mask == splits.labels.ignore_index).sum() == 2


def test_without_lists_all_is_one_pool_and_files_without_a_partner_are_problems(tmp_path):
    usual(tmp_path)
    put(tmp_path, {"SegmentationClass/lost.png": IDS, "JPEGImages/bare.jpg": "", "JPEGImages/a.png": ""})
    found = look(tmp_path)
    assert subsets(found) == {"pool": ["b"]}
    assert why(found) == [
        ("JPEGImages/a.jpg", "image without a mask"),
        ("JPEGImages/a.png", "image without a mask"),
        ("JPEGImages/bare.jpg", "image without a mask"),
        ("SegmentationClass/a.png", "2 images of that name"),
        ("SegmentationClass/lost.png", "mask without an image"),
    ]


def test_listed_files_that_are_not_there_are_problems(tmp_path):
    usual(tmp_path)
    (tmp_path / "JPEGImages/b.jpg").unlink()
    put(tmp_path, {"ImageSets/Segmentation/train.txt": "a\n\nnone\r\nb\na\n../../b\n", "JPEGImages/none.jpg": ""})
    found = look(tmp_path)
    assert subsets(found) == {"train": ["a"]}
    where = "ImageSets/Segmentation/train.txt"
    assert why(found) == [
        (f"{where}: ../../b", "listed, but there is no mask"),
        (f"{where}: b", "listed, but no such image"),
        (f"{where}: none", "listed, but there is no mask"),
    ]
    assert not any("in no list" in notice for notice in found.layout.notices)


def test_a_test_split_without_masks_is_left_out_and_reported(tmp_path):
    usual(tmp_path)
    put(tmp_path, {"ImageSets/Segmentation/train.txt": "a.jpg\nb\n", "ImageSets/Segmentation/test.txt": "s\nt\n"})
    found = look(put(tmp_path, {"JPEGImages/s.jpg": "", "JPEGImages/t.jpg": ""}))
    assert subsets(found) == {"train": ["a", "b"]}
    assert found.layout.problems == ()
    assert "test.txt: no image has a mask (2 listed): there is no test split" in found.layout.notices


def test_lists_that_are_not_of_a_split(tmp_path):
    usual(tmp_path)
    put(tmp_path, {"ImageSets/Segmentation/trainval.txt": "a\n"})
    assert subsets(look(tmp_path)) == {"pool": ["a"]}
    put(tmp_path, {"ImageSets/Segmentation/train.txt": "b\n", "ImageSets/Segmentation/trainaug.txt": "a\nb\n"})
    found = look(tmp_path)
    assert subsets(found) == {"train": ["b"]}
    assert "ImageSets/Segmentation: not read beside the lists of splits: trainaug.txt" in found.layout.notices


def test_an_image_in_two_lists_is_refused(tmp_path):
    usual(tmp_path)
    put(tmp_path, {"ImageSets/Segmentation/train.txt": "a\nb\n", "ImageSets/Segmentation/val.txt": "b\n"})
    with pytest.raises(PairingError, match=r"val\.txt: expected every image in one split, found b in train and val"):
        look(tmp_path)


def test_ids_beyond_voc_are_the_usual_error(tmp_path):
    usual(tmp_path, **{"2007_000001": IDS + np.uint8(14) * (IDS == 20)})
    with pytest.raises(
        MaskError, match=r"2007_000001\.png: expected class ids 0–20, found 34 in 2 pixels\. Add class 34 to labels"
    ):
        mask_of(opened(tmp_path), "2007_000001")
    labels = {"names": ["sky", "sea", "sand", "snow", "salt"], "ids": [0, 1, 15, 20, 34]}
    np.testing.assert_array_equal(mask_of(opened(tmp_path, labels=labels), "2007_000001")[2], [34, 34, 15, 15])


def test_other_sets_that_are_laid_out_like_voc_have_classes_of_their_own(tmp_path):
    splits = opened(usual(tmp_path))
    assert splits.labels.names == ("class_0", "class_1", "class_15", "class_20")
    assert splits.labels.ids == (0, 1, 15, 20)
    assert (splits.train.read(0).mask == splits.labels.ignore_index).sum() == 2
    assert any("no image is named like Pascal VOC's" in told for told in splits.notices)
    inside = opened(usual(tmp_path / "VOCdevkit/VOC2007", a=IDS)).labels.names
    assert inside[:2] == ("background", "aeroplane")


def test_masks_saved_in_colour_are_read_by_the_palette_and_the_border_still_does_not_count(tmp_path):
    coloured = np.array([voc_colour(k) for k in range(256)], np.uint8)[IDS]
    usual(tmp_path, a=coloured)
    splits = opened(tmp_path)
    np.testing.assert_array_equal(mask_of(splits, "a"), IDS)
    assert splits.description["mask_values"] == {"colours": True, "ignored": [[224, 224, 192]]}


def test_a_class_may_be_ignored(tmp_path):
    splits = opened(usual(tmp_path, **{"2007_000001": IDS}), ignored=["person"])
    assert "person" not in splits.labels.names
    assert (splits.train.read(0).mask == splits.labels.ignore_index).sum() == 4


def test_copies_of_the_masks_are_read_where_there_is_nothing_else_or_they_are_named(tmp_path):
    usual(tmp_path, a=IDS)
    put(tmp_path, {"SegmentationClassRaw/a.png": IDS * 0, "SegmentationClassAug/a.png": IDS // 20}, None)
    assert look(tmp_path).layout.splits["pool"][0].mask == tmp_path / "SegmentationClass/a.png"
    named = look(tmp_path, annotations="SegmentationClassAug")
    assert named.layout.splits["pool"][0].mask == tmp_path / "SegmentationClassAug/a.png"
    (tmp_path / "SegmentationClass/a.png").unlink()
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), IDS // 20)


def test_several_years_are_one_set(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        put(usual(tmp_path / year, a=IDS), {"ImageSets/Segmentation/train.txt": "a\n"})
    assert subsets(look(tmp_path)) == {"train": ["VOC2007/a", "VOC2012/a"]}


def test_sbd_is_refused_with_the_fix(tmp_path):
    put(
        tmp_path,
        {"dataset/img/a.jpg": "", "dataset/cls/a.mat": "MATLAB 5.0", "dataset/inst/a.mat": "", "dataset/t.txt": ""},
    )
    with pytest.raises(DataError) as error:
        look(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected masks as PNG in SegmentationClass/, found .mat files as in SBD (1: dataset/cls/a.mat)."
        " Save the content of each, scipy.io.loadmat(file)['GTcls']['Segmentation'][0, 0], as PNG of the same name in"
        " SegmentationClass/; or use SegmentationClassAug/, which was made from them."
    )


def test_the_advice_for_sbd_works(tmp_path):
    from scipy.io import loadmat, savemat

    inner = np.zeros((1, 1), [("Boundaries", object), ("Segmentation", object), ("CategoriesPresent", object)])
    inner["Segmentation"][0, 0] = IDS
    savemat(tmp_path / "a.mat", {"GTcls": inner})
    np.testing.assert_array_equal(loadmat(tmp_path / "a.mat")["GTcls"]["Segmentation"][0, 0], IDS)


def test_boxes_alone_are_refused(tmp_path):
    put(tmp_path, {"JPEGImages/a.jpg": "", "Annotations/a.xml": "<annotation><object><bndbox/></object></annotation>"})
    with pytest.raises(
        DataError, match=r"found only boxes \(Annotations/a\.xml\)\. Annotate the contours of objects: boxes are not"
    ):
        look(tmp_path)
    with pytest.raises(DataError, match=r"expected masks as PNG in SegmentationClass/, found none\. Check the path"):
        look(put(tmp_path / "other", {"x.txt": ""}), format="voc")


# CVAT ----------------------------------------------------------------------------------------------------------------


def cvat(root: Path, mask: np.ndarray, table: str = CVAT, palette: list[int] | None = None) -> Path:
    files: dict[str, str | np.ndarray] = {"SegmentationClass/sub/a.png": mask, "SegmentationObject/sub/a.png": mask}
    files |= {"labelmap.txt": table, "ImageSets/Segmentation/default.txt": "sub/a\n", "JPEGImages/sub/a.jpg": ""}
    return put(root, files, palette)


KINDS = np.array([[0, 1, 2, 2], [1, 1, 0, 2], [0, 0, 0, 0]], np.uint8)
COLOURS = np.array([(0, 0, 0), (204, 153, 51), (50, 183, 250)], np.uint8)


@pytest.mark.parametrize("stored", ["rgb", "palette", "shuffled palette", "grey"])
def test_masks_of_cvat_are_read_by_colour_or_by_the_places_in_the_table(stored, tmp_path):
    palette, mask = None, KINDS
    if stored == "rgb":
        mask = COLOURS[KINDS]
    elif stored == "palette":
        palette = COLOURS.reshape(-1).tolist()
    elif stored == "shuffled palette":
        palette, mask = COLOURS[[2, 0, 1]].reshape(-1).tolist(), np.array([1, 2, 0], np.uint8)[KINDS]
    splits = opened(cvat(tmp_path, mask, palette=palette))
    assert splits.labels.names == ("background", "car", "sky")
    assert splits.labels.colours == tuple(map(tuple, COLOURS.tolist()))
    np.testing.assert_array_equal(mask_of(splits, "sub/a"), KINDS)


def test_a_run_that_notes_how_masks_were_read_reads_them_the_same_way(tmp_path):
    first = opened(cvat(tmp_path, COLOURS[KINDS]))
    again = opened(tmp_path, labels=first.labels.to_dict(), mask_values=first.description["mask_values"])
    np.testing.assert_array_equal(mask_of(again, "sub/a"), KINDS)


def test_pixels_of_vocs_border_do_not_count_though_the_table_does_not_name_them(tmp_path):
    mask = COLOURS[KINDS]
    mask[0, 0] = (224, 224, 192)
    assert mask_of(opened(cvat(tmp_path, mask)), "sub/a")[0, 0] == 255


def test_ignored_in_the_table_is_ignored_and_that_is_reported(tmp_path):
    splits = opened(cvat(tmp_path, COLOURS[KINDS], CVAT.replace("sky", "ignored")))
    assert splits.labels.names == ("background", "car")
    assert (splits.train.read(0).mask == 255).sum() == (KINDS == 2).sum()
    assert "ignored classes of labelmap.txt: ignored" in splits.notices


def test_an_export_without_images_is_paired_with_images_beside_it(tmp_path):
    cvat(tmp_path, COLOURS[KINDS])
    (tmp_path / "JPEGImages").rename(tmp_path / "pictures")
    found = look(tmp_path)
    assert [record.image for record in found.layout.splits["pool"]] == [tmp_path / "pictures/sub/a.jpg"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "car:0,0,0::\nsky:0,0,0::\n",
            "expected a different colour for every class, found (0, 0, 0) for 'car' and 'sky'",
        ),
        ("car:0,0,256::\n", "expected three values 0–255, found"),
        ("car:1,2,3::\ncar:4,5,6::\n", "expected unique entries, found car twice"),
        ("", "expected classes with colours or values, found none"),
    ],
)
def test_invalid_tables_are_refused(table, message, tmp_path):
    with pytest.raises(LabelsError) as error:
        look(cvat(tmp_path, COLOURS[KINDS], table))
    assert message in str(error.value)
    assert "labelmap.txt" in str(error.value)


def test_tables_that_differ_are_refused(tmp_path):
    cvat(tmp_path / "one", COLOURS[KINDS])
    cvat(tmp_path / "two", COLOURS[KINDS], CVAT.replace("car", "bus"))
    with pytest.raises(
        LabelsError, match=r"the same classes in each labelmap\.txt, found one/labelmap\.txt, two/labelmap"
    ):
        look(tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_table_or_list_gives_a_traceback(tmp_path_factory, table, names):
    root = cvat(tmp_path_factory.mktemp("any"), COLOURS[KINDS])
    (root / "labelmap.txt").write_bytes(table)
    (root / "ImageSets/Segmentation/default.txt").write_bytes(b"sub/a\n" + names)
    try:
        told = ""
        opened(root)
    except PixelwiseError as error:
        told = str(error)
    assert not told or ": expected " in told


def test_the_border_does_not_count_where_the_table_names_another_class_that_does_not(tmp_path):
    mask = np.array([[0, 1, 2, 255]] * 3, np.uint8)
    splits = opened(cvat(tmp_path, mask, CVAT.replace("sky", "ignored")))
    assert splits.labels.ignore_ids == (2, 255)
    assert splits.train.read(0).mask[0].tolist() == [0, 1, 255, 255]


# labelme2voc ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationClassPNG"])
def test_labelme2voc_names_its_classes_line_by_line(folder, tmp_path):
    files: dict[str, str | np.ndarray] = {f"{folder}/a b.png": np.array([[0, 1, 2, 255]] * 3, np.uint8)}
    files |= {"SegmentationClassVisualization/a b.jpg": "", "SegmentationClass/a b.npy": ""}
    put(tmp_path, files | {"JPEGImages/a b.jpg": "", "class_names.txt": "_background_\ncrack\r\nRöst"})
    found = look(tmp_path)
    assert subsets(found) == {"pool": ["a b"]}
    assert (found.labels.names, found.labels.ids) == (("_background_", "crack", "Röst"), (0, 1, 2))
    assert not any("21 of Pascal VOC" in notice for notice in found.layout.notices)
    assert opened(tmp_path).train.read(0).mask[0].tolist() == [0, 1, 2, 255]
    put(tmp_path, {"labelmap.txt": CVAT})  # says more
    assert look(tmp_path).labels.names == ("background", "car", "sky")


def test_empty_or_different_class_names_are_refused(tmp_path):
    put(usual(tmp_path / "one"), {"class_names.txt": " \n"})
    with pytest.raises(LabelsError, match=r"class_names\.txt: expected names of classes, found none\. Write one class"):
        look(tmp_path)
    put(tmp_path / "one", {"class_names.txt": "a\nb"})
    put(usual(tmp_path / "two"), {"class_names.txt": "b\na"})
    with pytest.raises(
        LabelsError, match=r"same classes in each class_names\.txt, found one/class_names\.txt, two/class"
    ):
        look(tmp_path)


def test_masks_of_labelme2voc_without_their_names_are_not_taken_for_vocs(tmp_path):
    put(tmp_path, {"JPEGImages/a.jpg": "", "SegmentationClassPNG/a.png": IDS})
    assert find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))[0].name != "voc"


# Writing -------------------------------------------------------------------------------------------------------------


def written(folder: Path, masks: dict[str, np.ndarray], labels: Labels) -> tuple[DataSplits, Path]:
    """Create masks of one split each, such as "train/a"; return the opened data set and a folder to write to."""
    for name, mask in masks.items():
        split, stem = name.split("/", 1)
        image, path = folder / "in" / split / "images" / f"{stem}.jpg", folder / "in" / split / "masks" / f"{stem}.png"
        for each in (image, path):
            each.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1], (len(stem), 90, 120)).save(image)
        write_mask(path, mask, labels)
    (folder / "out").mkdir()
    return opened(folder / "in", labels=labels.to_dict()), folder / "out"


def test_what_is_written_is_vocs_layout(tmp_path):
    labels = Labels(("background", "a: b", "tree"), (0, 7, 3))
    masks = {"train/x": KINDS, "train/y z": KINDS, "val/x": KINDS.T.copy(), "test/sub/w.v1": KINDS, "test/v": KINDS}
    masks["train/x"] = np.where(KINDS == 2, 255, KINDS).astype(np.uint8)
    splits, out = written(tmp_path, masks, labels)
    assert convert(splits, FORMATS["voc"], out).changed_pixels == 0
    lists = {path.stem: path.read_text().splitlines() for path in (out / "ImageSets/Segmentation").iterdir()}
    assert lists == {
        "train": ["x", "y z"],
        "val": ["val_x"],
        "test": ["v", "sub/w.v1"],
        "trainval": ["x", "y z", "val_x"],
    }
    colours = [",".join(map(str, colour)) for colour in labels.colours]
    assert (out / "labelmap.txt").read_text().splitlines() == [
        "# label:color_rgb:parts:actions",
        f"background:{colours[0]}::",
        f"a: b:{colours[1]}::",
        f"tree:{colours[2]}::",
        "ignored:224,224,192::",
    ]
    with Image.open(out / "SegmentationClass/x.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), np.array([0, 7, 255])[KINDS])
        assert mask.getpalette()[21:24] == list(labels.colours[1])
        assert mask.getpalette()[765:768] == [224, 224, 192]
    assert (out / "JPEGImages/sub/w.v1.jpg").read_bytes() == (tmp_path / "in/test/images/sub/w.v1.jpg").read_bytes()


def test_without_our_description_the_same_classes_are_found_by_their_colours(tmp_path):
    labels = Labels(("background", "road", "tree"), (4, 0, 9))
    mask = np.where(KINDS == 0, 255, KINDS).astype(np.uint8)
    splits, out = written(tmp_path, {"train/x": mask}, labels)
    convert(splits, FORMATS["voc"], out)
    (out / "data.yaml").unlink()
    back = opened(out)
    assert back.labels.names == labels.names
    np.testing.assert_array_equal(back.train.read(0).mask, mask)


@pytest.mark.parametrize(
    "labels",
    [
        Labels(("a", "b", "c"), (0, 1, 255)),
        Labels(("a", "b", "c"), (70_000, 1, 300)),
        Labels(("a", "b", "c"), ignore_ids=(250,)),
        Labels(("a", "b", "c"), ignore_ids=(9, 255)),
        Labels(("a", "b", "c"), ignore_ids=()),
        Labels(("a", "b", "c"), colours=((1, 1, 1), (1, 1, 1), (224, 224, 192))),
        Labels(("a", "ignored", "void")),
        Labels(tuple(f"class {k}" for k in range(255))),
    ],
)
def test_every_kind_of_labels_is_read_back(labels, tmp_path):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, labels.num_classes, (30, 40)).astype(np.uint8)
    if labels.ignore_ids:
        mask[rng.random(mask.shape) < 0.3] = labels.ignore_index
    for path, content in (("images/a.png", mask), ("masks/a.tif", labels.decode(mask).astype(np.int32))):
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(tmp_path / "in" / path)
    (tmp_path / "out").mkdir()
    splits = opened(tmp_path / "in", labels=labels.to_dict(), mask_values={"binary": False})
    done = convert(splits, FORMATS["voc"], tmp_path / "out")
    assert (done.pixels, done.changed_pixels) == (1200, 0)
    assert find_format(DatasetRoot(tmp_path / "out", tmp_path, DataConfig()))[0].name == "voc"


def test_more_classes_than_a_palette_holds_are_refused(tmp_path):
    with pytest.raises(
        LabelsError, match=r"convert: expected at most 255 classes, found 256\. Convert it to folders of"
    ):
        FORMATS["voc"].write(tmp_path, Labels(tuple(f"class {k}" for k in range(256))))


def test_real_masks_are_read_back(real, tmp_path):
    splits = open_data(DataConfig.model_validate({"split": NONE}), real("camvid"))
    few = DataSplits(splits.train.subset(range(5)), splits.val.subset(range(2)), None, splits.labels, (), (), {})
    (tmp_path / "out").mkdir()
    done = convert(few, FORMATS["voc"], tmp_path / "out")
    assert (done.images, done.pixels, done.changed_pixels) == (7, 7 * 480 * 360, 0)
