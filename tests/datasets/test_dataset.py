import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from pixelwise.config import DataConfig, read_request
from pixelwise.datasets.dataset import Dataset, DataSplits, open_data, pin_paths, without_unreadable
from pixelwise.errors import ConfigError, DataError, ImageError, LabelsError, MaskError, PairingError
from pixelwise.formats.records import SPLITS

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def scene(root: Path, name: str, mask: np.ndarray, images: str = "images", masks: str = "masks") -> None:
    value = sum(name.encode()) % 250
    save(root / images / f"{name}.png", np.full((*mask.shape, 3), value, np.uint8))
    save(root / masks / f"{name}.png", mask)


def halves(low: int = 0, high: int = 1, size: tuple[int, int] = (4, 6)) -> np.ndarray:
    mask = np.full(size, low, np.uint8)
    mask[:, size[1] // 2 :] = high
    return mask


def opened(root: Path, **config: object) -> DataSplits:
    return open_data(DataConfig.model_validate(config), root)


def train_of(splits: DataSplits) -> Dataset:
    assert splits.train is not None
    return splits.train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(10):
        scene(tmp_path, f"p{k}", halves())
    (tmp_path / "labels.yaml").write_text("names: [ground, road]\n")
    return tmp_path


def test_a_folder_is_opened_split_and_read(folder: Path) -> None:
    splits = opened(folder)
    assert splits.val is not None
    assert (len(train_of(splits)), len(splits.val), splits.test) == (8, 2, None)
    assert splits.labels.names == ("ground", "road")
    assert splits.notices == ("2 of 10 images were taken from train for val, by image (split.seed 0)",)
    assert splits.description["split"]["achieved"] == {"val": 0.2}
    assert splits.description["images"] == {"train": 8, "val": 2}
    sample = splits.val.read(0)
    assert sample.image.shape == (3, 4, 6)
    assert sample.mask is not None
    np.testing.assert_array_equal(sample.mask, halves())
    assert sample.mask.dtype == np.uint8
    assert sample.id == splits.val.records[0].id
    assert sample.grid.spacing == (1.0, 1.0)


def test_splits_are_disjoint_and_depend_on_the_seed(folder: Path) -> None:
    one, other = opened(folder, split={"test": 0.3}), opened(folder, split={"test": 0.3, "seed": 5})
    names = [{record.id for record in split.records} for split in one]
    assert [len(split) for split in names] == [5, 2, 3]
    assert len(set.union(*names)) == 10
    assert one.test is not None
    assert other.test is not None
    assert one.test.records != other.test.records
    assert opened(folder, split={"test": 0.3}).test == one.test


def test_no_val_is_taken_if_not_requested_or_given(folder: Path) -> None:
    assert opened(folder, split={"val": 0}).val is None
    for split in ("train", "val"):
        scene(folder / "parted" / split, "same", halves())
    splits = opened(folder / "parted")
    assert [split.name for split in splits] == ["train", "val"]
    assert splits.description["split"] == {"given": ["train", "val"]}


def test_a_test_split_alone_needs_no_train(tmp_path: Path) -> None:
    scene(tmp_path / "test", "a", halves())
    splits = opened(tmp_path)
    assert [split.name for split in splits] == ["test"]


def test_groups_stay_together(tmp_path: Path) -> None:
    for k in range(12):
        scene(tmp_path, f"pat{k % 4}_{k}", halves())
    splits = opened(tmp_path, group=r"(pat\d)_", split={"val": 0.25})
    groups = [{record.group for record in split.records} for split in splits]
    assert [len(g) for g in groups] == [3, 1]
    assert [split.groups() for split in splits] == [3, 1]
    assert not groups[0] & groups[1]
    assert train_of(splits).read(0).group in groups[0]
    assert splits.description["split"]["by"] == "group"


def test_one_image_gives_no_val(tmp_path: Path) -> None:
    scene(tmp_path, "a", halves())
    with pytest.raises(PairingError, match=r"at least 2 groups of images .* found 1 \(1 images\).* set split.val"):
        opened(tmp_path)


def test_unpaired_files_are_an_error(folder: Path) -> None:
    (folder / "masks" / "p3.png").unlink()
    (folder / "masks" / "p4.png").unlink()
    save(folder / "masks" / "zz.png", halves())
    with pytest.raises(PairingError) as error:
        opened(folder)
    assert str(error.value) == (
        f"{folder}: expected one mask for every image and one image for every mask, found image without a mask: 2 "
        "(images/p3.png, images/p4.png); mask without an image: 1 (masks/zz.png). "
        "Add or remove the files, or leave them out with --skip-bad (data.skip_bad: true); they are then counted and recorded."
    )
    splits = opened(folder, skip_bad=True)
    assert splits.skipped == (
        "images/p3.png: image without a mask",
        "images/p4.png: image without a mask",
        "masks/zz.png: mask without an image",
    )
    assert sum(len(split) for split in splits) == 8
    assert splits.notices[-1] == "3 files were left out by skip_bad"
    assert splits.description["skipped"] == 3


def test_masks_with_another_name_are_recognised(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / "images" / f"p{k}.jpg", np.zeros((4, 6, 3), np.uint8))
        save(tmp_path / "masks" / f"p{k}_mask.png", halves())
    splits = opened(tmp_path, split={"val": 0.34})
    assert sum(len(split) for split in splits) == 3
    assert splits.notices[0] == "masks are named differently from their images: x with x_mask"
    splits = opened(tmp_path, images="images/*", masks="masks/{stem}_mask.png", split={"val": 0.34})
    assert sum(len(split) for split in splits) == 3


def test_sizes_that_differ(folder: Path) -> None:
    save(folder / "masks" / "p5.png", halves(size=(4, 8)))
    with pytest.raises(PairingError) as error:
        opened(folder)
    assert str(error.value) == (
        f"{folder / 'masks/p5.png'}: expected 4×6 pixels, the height and width of p5.png, found 4×8. "
        "Export the mask again at the image's size; scale it by nearest neighbour only."
    )
    skipped = opened(folder, skip_bad=True).skipped
    assert skipped == (f"{folder / 'masks/p5.png'}: expected 4×6 pixels, the height and width of p5.png, found 4×8",)


def test_sizes_that_an_exif_orientation_swaps(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / "images" / "p5.png", exif=exif)
    with pytest.raises(PairingError, match=r"expected 6×4 pixels.*, found 4×6. Height and width are swapped: .* EXIF"):
        opened(folder)


def test_a_broken_header_is_an_error_or_skipped(folder: Path) -> None:
    (folder / "images" / "p2.png").write_text("no image at all")
    with pytest.raises(ImageError, match=r"p2.png: expected .* found a text file"):
        opened(folder)
    splits = opened(folder, skip_bad=True)
    assert len(splits.skipped) == 1
    assert splits.skipped[0].startswith(str(folder / "images/p2.png"))


def test_nothing_left(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="expected images with masks, found none that can be used"):
        opened(tmp_path, skip_bad=True)


def test_truncated_pixels_are_an_error_on_reading(folder: Path) -> None:
    splits = opened(folder, split={"val": 0})
    data = train_of(splits)
    save(data.records[1].mask or folder, halves(0, 7))
    with pytest.raises(MaskError, match="found 7 in 12 pixels"):
        data.read(1)
    save(data.records[2].mask or folder, halves(size=(5, 6)))
    with pytest.raises(PairingError, match="found 5×6"):
        data.read(2)
    save(data.records[0].image, np.zeros((64, 64, 3), np.uint8))
    data.records[0].image.write_bytes(data.records[0].image.read_bytes()[:80])
    with pytest.raises(ImageError):
        data.read(0)


def test_validity_masks_belong_to_the_annotation_and_transparency_of_a_geotiff_to_the_image(tmp_path: Path) -> None:
    scene(tmp_path, "a", halves())
    image = np.full((4, 6, 4), 255, np.uint8)
    image[:, 5, 3] = 0
    (tmp_path / "images" / "a.png").unlink()
    place = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
    tifffile.imwrite(
        tmp_path / "images" / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"], extratags=place
    )
    save(tmp_path / "fov" / "a.png", np.repeat(np.array([[0], [255], [1], [0]], np.uint8), 6, 1))
    config = {"images": "images/*.tif", "masks": "masks/{stem}.png", "valid": "fov/{stem}.png", "split": {"val": 0}}
    sample = train_of(opened(tmp_path, **config)).read(0)
    expected = halves()
    expected[[0, 3]] = 255
    np.testing.assert_array_equal(sample.mask, expected)
    assert sample.valid is not None
    np.testing.assert_array_equal(sample.valid, image[..., 3] > 0)
    expected[:, 5] = 255
    np.testing.assert_array_equal(sample.truth(255), expected)


def test_without_nodata_all_pixels_are_valid(folder: Path) -> None:
    sample = train_of(opened(folder)).read(0)
    assert sample.valid is None
    assert sample.truth(255) is sample.mask


def test_pixels_that_are_not_valid_are_ignored(tmp_path: Path) -> None:
    scene(tmp_path, "a", halves())
    save(tmp_path / "fov" / "a.png", np.repeat(np.array([[0], [255], [1], [0]], np.uint8), 6, 1))
    config = {"images": "images/*", "masks": "masks/{stem}.png", "valid": "fov/{stem}.png", "split": {"val": 0}}
    mask = train_of(opened(tmp_path, **config)).read(0).mask
    assert mask is not None
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask[[0, 3]], 255)
    np.testing.assert_array_equal(mask[1:3], halves()[1:3])
    save(tmp_path / "fov" / "a.png", np.ones((3, 6), np.uint8))
    with pytest.raises(PairingError, match="found 3×6"):
        opened(tmp_path, **config)


def test_validity_masks_must_be_lossless(tmp_path: Path) -> None:
    scene(tmp_path, "a", halves(size=(16, 16)))
    save(tmp_path / "fov" / "a.jpg", np.zeros((16, 16), np.uint8))
    config = {"images": "images/*", "masks": "masks/{stem}.png", "valid": "fov/{stem}.jpg", "split": {"val": 0}}
    with pytest.raises(MaskError, match=r"a\.jpg: expected a lossless mask of valid pixels.*, found lossy JPEG"):
        train_of(opened(tmp_path, **config)).read(0)


@pytest.mark.parametrize("inline", [False, True])
def test_255_is_ignored_if_the_labels_say_so(tmp_path: Path, inline: bool) -> None:
    scene(tmp_path, "a", halves(0, 255))
    plain = {"names": ["ground", "crack"], "ignore_index": 255}
    if not inline:
        (tmp_path / "labels.yaml").write_text(yaml.safe_dump(plain))
    splits = opened(tmp_path, split={"val": 0}, **({"labels": plain} if inline else {}))
    mask = train_of(splits).read(0).mask
    assert mask is not None
    np.testing.assert_array_equal(mask, halves(0, 255))
    # A run writes the labels out in full, and reads its masks the same way again.
    again = {"labels": splits.labels.to_dict(), "mask_values": splits.description["mask_values"]}
    mask = train_of(opened(tmp_path, split={"val": 0}, **again)).read(0).mask
    assert mask is not None
    np.testing.assert_array_equal(mask, halves(0, 255))


def test_the_config_of_a_run_reads_binary_masks_in_the_same_way(tmp_path: Path) -> None:
    scene(tmp_path, "a", halves(0, 255))
    (tmp_path / "labels.yaml").write_text("names: [ground, crack]\n")
    splits = opened(tmp_path, split={"val": 0})
    again = {"labels": splits.labels.to_dict(), "mask_values": splits.description["mask_values"]}
    for one in (splits, opened(tmp_path, split={"val": 0}, **again)):
        mask = train_of(one).read(0).mask
        assert mask is not None
        np.testing.assert_array_equal(mask, halves())


def test_a_broken_mask_does_not_hide_the_ids_of_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        scene(tmp_path, name, halves(3, 5))
    path = tmp_path / "masks" / "b.png"
    content = path.read_bytes()
    place = content.index(b"IDAT") + 8
    path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    splits = without_unreadable(opened(tmp_path, split={"val": 0}, skip_bad=True))
    assert splits.labels.names == ("class_3", "class_5")
    assert len(train_of(splits)) == 2
    assert splits.description["images"] == {"train": 2}
    assert splits.description["skipped"] == 1
    assert splits.notices[-1] == "1 file was left out by skip_bad"
    for name in ("a", "c"):
        (tmp_path / "masks" / f"{name}.png").write_bytes(path.read_bytes())
    with pytest.raises(MaskError, match=r"a\.png: expected a complete PNG"):
        opened(tmp_path, split={"val": 0})


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_that_are_no_text_can_be_hashed_and_split(tmp_path: Path) -> None:
    try:
        for k in range(4):
            scene(tmp_path, "a", halves())
            for kind in ("images", "masks"):
                (tmp_path / kind / "a.png").rename(tmp_path / kind / os.fsdecode(b"caf\xe9%d.png" % k))
    except OSError:
        pytest.skip("this file system takes text only")
    splits = opened(tmp_path)
    assert len(train_of(splits)) == 3
    assert len(train_of(splits).hash()) == len(train_of(splits).names_hash()) == 64


def test_a_long_expression_for_groups_can_be_pinned(folder: Path) -> None:
    rule = f"(p[0-9])(?:{'x' * 300})?"
    assert pin_paths(DataConfig(group=rule), folder).group == rule


def test_subset_keeps_the_order_and_the_data_set_is_frozen(folder: Path) -> None:
    data = train_of(opened(folder))
    some = data.subset([3, 1])
    assert [record.id for record in some.records] == [data.records[3].id, data.records[1].id]
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


def test_a_data_set_survives_pickling(folder: Path) -> None:
    data = train_of(opened(folder, mask_values={0: 0, 1: 1}))
    copy = pickle.loads(pickle.dumps(data))
    assert copy == data
    np.testing.assert_array_equal(copy.read(0).mask, data.read(0).mask)


def test_hash_depends_on_contents_and_names_but_not_order_or_root(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = train_of(opened(folder))
    before = data.hash()
    assert data.subset(range(len(data) - 1, -1, -1)).hash() == before
    assert data.subset(range(len(data) - 1)).hash() != before
    moved = tmp_path_factory.mktemp("other")
    for k in range(10):
        scene(moved, f"p{k}", halves())
    assert train_of(opened(moved)).hash() == before
    save(data.records[0].mask or folder, halves()[:, ::-1])
    assert data.hash() != before


def write_masks(root: Path, *masks: np.ndarray) -> None:
    for k, mask in enumerate(masks):
        scene(root, f"p{k}", mask)


def test_binary_masks_without_labels(tmp_path: Path) -> None:
    write_masks(tmp_path, halves(0, 255), halves(255, 255), halves(0, 0))
    splits = opened(tmp_path, split={"val": 0})
    assert (splits.labels.names, splits.labels.ids) == (("background", "foreground"), (0, 1))
    assert splits.notices == (
        "no labels.yaml: the masks hold 0 and 255 only, read as background (id 0) and foreground (id 1)",
    )
    read = [train_of(splits).read(k).mask for k in range(3)]
    for mask, truth in zip(read, [halves(), halves(1, 1), halves(0, 0)], strict=True):
        np.testing.assert_array_equal(mask, truth)
    assert splits.description["mask_values"] == {0: 0, 255: 1}


def test_ids_0_1_255_without_labels_keep_255_for_ignored(tmp_path: Path) -> None:
    ignoring = halves(0, 255)
    ignoring[0, 0] = 1
    write_masks(tmp_path, halves(0, 1), ignoring)
    splits = opened(tmp_path, split={"val": 0})
    assert splits.labels.names == ("background", "foreground")
    assert splits.notices == (
        "no labels.yaml: the ids in the masks make the classes 0 background, 1 foreground; 255 is ignored",
    )
    np.testing.assert_array_equal(train_of(splits).read(1).mask, ignoring)
    again = {"labels": splits.labels.to_dict(), "mask_values": splits.description["mask_values"], "split": {"val": 0}}
    np.testing.assert_array_equal(train_of(opened(tmp_path, **again)).read(1).mask, ignoring)


def test_other_ids_without_labels_are_listed_and_named(tmp_path: Path) -> None:
    write_masks(tmp_path, halves(2, 7), halves(5, 2))
    splits = opened(tmp_path, split={"val": 0})
    assert (splits.labels.names, splits.labels.ids) == (("class_2", "class_5", "class_7"), (2, 5, 7))
    np.testing.assert_array_equal(train_of(splits).read(1).mask, halves(1, 0))


def test_a_threshold_needs_no_labels(tmp_path: Path) -> None:
    write_masks(tmp_path, halves(120, 130))
    splits = opened(tmp_path, mask_values={"threshold": 128}, split={"val": 0})
    assert splits.labels.names == ("background", "foreground")
    np.testing.assert_array_equal(train_of(splits).read(0).mask, halves())


def test_masks_that_cannot_be_listed(tmp_path: Path) -> None:
    ids = np.arange(400, dtype=np.uint16).reshape(20, 20)
    save(tmp_path / "images" / "a.png", np.zeros((20, 20), np.uint8))
    save(tmp_path / "masks" / "a.png", ids)
    with pytest.raises(
        LabelsError, match=r"expected at most 256 class ids in the masks, found more. If each id is one"
    ):
        opened(tmp_path, split={"val": 0})
    save(tmp_path / "masks" / "a.png", np.full((20, 20), 255, np.uint8))
    assert opened(tmp_path, split={"val": 0}).labels.num_classes == 2
    with pytest.raises(LabelsError, match="expected names and colours of the classes"):
        opened(tmp_path, split={"val": 0}, mask_values={"colours": True})
    with pytest.raises(LabelsError, match=r"data.labels: expected the file classes.yaml, found none in"):
        opened(tmp_path, split={"val": 0}, labels="classes.yaml")


def test_labels_from_a_list_or_a_file(folder: Path) -> None:
    assert opened(folder, labels=["a", "b"]).labels.names == ("a", "b")
    (folder / "mine.yaml").write_text("names: {0: x, 1: y}\ncolours: [[0, 0, 0], [9, 9, 9]]\nignore_index: 4\n")
    labels = opened(folder, labels="mine.yaml").labels
    assert (labels.names, labels.ignore_ids, labels.colours[1]) == (("x", "y"), (4,), (9, 9, 9))


def data_config(path: Path) -> tuple[DataConfig, Path]:
    config, base = read_request(path)
    return config.data, base


def test_data_config_reads_folder_data_yaml_and_recipe(folder: Path) -> None:
    assert data_config(folder) == (DataConfig(), folder)
    plain = {"images": "images/*", "masks": "masks/{stem}.png", "split": {"val": 0.3}}
    (folder / "data.yaml").write_text(yaml.safe_dump(plain))
    config, base = data_config(folder)
    assert (config.split.val, base) == (0.3, folder)
    recipe = folder / "sub" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text(yaml.safe_dump({"data": {"root": ".."} | plain, "train": {"steps": 3}}))
    config, base = data_config(recipe)
    splits = open_data(config, base)
    assert splits.val is not None
    assert len(splits.val) == 3


def test_data_config_refuses_unknown_keys(folder: Path) -> None:
    (folder / "data.yaml").write_text("imags: a\n")
    with pytest.raises(ConfigError, match=r"data.yaml:1: .* found unknown key `imags`. Did you mean 'images'"):
        data_config(folder)
    with pytest.raises(
        DataError, match=r"expected a folder, a data.yaml, a recipe or .*, found nothing. Check the path"
    ):
        data_config(folder / "none.yaml")
    with pytest.raises(DataError, match=r"found a file of type .png"):
        data_config(folder / "images" / "p0.png")


def test_pinned_paths_are_valid_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "list.txt").write_text("p1\n")
    (folder / "g.csv").write_text("image,group\n" + "".join(f"p{k},{k % 3}\n" for k in range(10)))
    monkeypatch.chdir(folder.parent)
    config = DataConfig(root=folder.name, test="list.txt", group="g.csv")
    pinned = pin_paths(config, Path())
    monkeypatch.chdir("/")
    here, there = open_data(pinned, Path("/")), open_data(config, folder.parent)
    assert [split.hash() for split in here] == [split.hash() for split in there]
    assert here.test is not None
    assert [record.id for record in here.test.records] == ["p1"]


def real(name: str, **update: object) -> DataSplits:
    if not (REAL / name).is_dir():
        pytest.skip(f"the {name} data set is not here")
    config, base = data_config(RECIPES / f"{name}.yaml")
    return open_data(config.model_copy(update={"root": str(REAL / name), **update}), base)


def test_recipe_camvid() -> None:
    splits = real("camvid")
    assert splits.description["images"] == {"train": 367, "val": 101, "test": 233}
    sample = train_of(splits).read(0)
    assert sample.image.shape == (3, 360, 480)
    assert sample.mask is not None
    assert set(np.unique(sample.mask)) <= {*range(11), 255}
    assert splits.labels.ignore_ids == (11,)


def test_recipe_drive() -> None:
    splits = real("drive")
    assert splits.description["images"] == {"train": 16, "val": 4, "test": 20}
    sample = train_of(splits).read(0)
    assert sample.image.shape == (3, 584, 565)
    assert sample.mask is not None
    assert set(np.unique(sample.mask)) == {0, 1, 255}
    assert 0.25 < (sample.mask == 255).mean() < 0.35


def test_recipe_aerial_roads() -> None:
    splits = real("aerial_roads")
    assert splits.description["images"] == {"train": 30, "val": 10, "test": 10}
    mask = train_of(splits).read(0).mask
    assert mask is not None
    assert set(np.unique(mask)) == {0, 1}


def test_recipe_magnetic_tile_keeps_tiles_together() -> None:
    splits = real("magnetic_tile")
    place = {record.image.stem: split.name for split in splits for record in split.records}
    assert len(place) == 492
    assert abs(splits.description["split"]["achieved"]["test"] - 0.2) < 0.01
    assert abs(splits.description["split"]["achieved"]["val"] - 0.15) < 0.01
    six = ["exp1_num_3191", "exp2_num_3211", "exp3_num_3223", "exp4_num_3234", "exp5_num_3247", "exp6_num_3279"]
    assert len({place[name] for name in six}) == 1
    assert place["exp1_num_276355"] == place["exp2_num_276373"]  # one tile, filed under Crack and under Break
    assert place["exp4_num_53049"] == place["exp1_num_65001"]  # one tile, photographed again much later
    tiles = {(split.name, r.image.parts[-3], r.group) for split in splits for r in split.records}
    for kind in {kind for _, kind, _ in tiles}:
        shares = [sum(t[:2] == (split, kind) for t in tiles) / sum(t[1] == kind for t in tiles) for split in SPLITS]
        assert shares == pytest.approx([0.65, 0.15, 0.2], abs=0.085), kind


@pytest.mark.parametrize("name", ["camvid", "drive", "magnetic_tile", "aerial_roads"])
def test_recipes_state_where_to_put_the_data(name: str) -> None:
    config, base = data_config(RECIPES / f"{name}.yaml")
    assert (base / str(config.root)).resolve() == RECIPES.parent / "data" / name


def test_given_splits_can_be_split_again(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for k in range(10):
            for kind in ("images", "masks"):
                path = tmp_path / split / kind / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.eye(8, dtype=np.uint8) * (kind == "masks")).save(path)
    given = open_data(DataConfig(), tmp_path)
    assert {split.name: len(split) for split in given} == {"train": 10, "val": 10}
    anew = open_data(DataConfig.model_validate({"split": {"anew": True, "val": 0.25}}), tmp_path)
    assert {split.name: len(split) for split in anew} == {"train": 15, "val": 5}
    ids = [record.id for split in anew for record in split.records]
    assert sorted(ids) == sorted(f"{split}/{k}" for split in ("train", "val") for k in range(10))
    assert "by image (split.seed 0)" in anew.notices[0]


def test_a_group_with_an_empty_name_stays_together(tmp_path: Path) -> None:
    for k in range(6):
        scene(tmp_path, f"_{k}", halves())
        scene(tmp_path, f"pat1_{k}", halves())
    splits = opened(tmp_path, group=r"([^/]*)_\d", split={"val": 0.5})
    assert [{record.group for record in split.records} for split in splits] in ([{""}, {"pat1"}], [{"pat1"}, {""}])
    assert [split.groups() for split in splits] == [1, 1]


def test_a_message_counts_all_reasons(tmp_path: Path) -> None:
    for name in "abcdefg":
        scene(tmp_path, name, halves())
        save(tmp_path / "images" / f"{name}.jpg", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(PairingError, match=r"also d\.png\): 1 \(images/d\.jpg\); and 3 more\. Add or remove"):
        opened(tmp_path)
