"""ADE20K: 0 counts in nothing, 1–150 stay what they are, and nothing is shifted twice or not at all (TRAPS C7, A5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import ConfigError, DataError, LabelsError, MaskError, PairingError
from pixelwise.formats import find_format
from pixelwise.formats.ade20k import benchmark
from pixelwise.formats.dataset_root import Place
from pixelwise.imageio.masks import read_mask, write_mask

EVERY_ID = np.arange(151, dtype=np.uint8).reshape(1, 151)
TABLE = (
    "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1576\t11664\t1172\t1\twall\n2\t0.1072\t6046\t612\t1\tbuilding, edifice\n"
)
TABLE_CSV = "Idx,Ratio,Train,Val,Stuff,Name\n1,0.1576,11664,1172,1,wall\n8,0.0231,1906,199,0,bed\n"
THINGS = {  # column SceneParse150 of the instance track's mapping
    8, 9, 11, 13, 15, 16, 19, 20, 21, 23, 24, 25, 28, 31, 32, 33, 34, 36, 37, 38, 39, 40, 42, 43, 44, 45, 46, 48, 50, 51, 54, 56,
    57, 58, 59, 63, 65, 66, 67, 68, 70, 71, 72, 73, 74, 75, 76, 77, 79, 81, 82, 83, 84, 86, 87, 88, 89, 90, 91, 93, 94, 96, 98,
    99, 103, 104, 105, 108, 109, 111, 112, 113, 116, 117, 119, 120, 121, 122, 124, 125, 126, 127, 128, 130, 131, 133, 134, 135,
    136, 137, 138, 139, 140, 143, 144, 145, 147, 148, 149, 150,
}  # fmt: skip


def lay(root: Path, masks: dict[str, np.ndarray]) -> Path:
    """Write images and masks, by names such as training/ADE_train_00000001."""
    for name, mask in masks.items():
        for kind, pixels, suffix in (
            ("images", np.zeros((*mask.shape[:2], 3), np.uint8), "jpg"),
            ("annotations", mask, "png"),
        ):
            path = root / kind / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def first(splits: DataSplits) -> np.ndarray:
    assert splits.train is not None
    mask = splits.train.read(0).mask
    assert mask is not None
    return mask


def kind(root: Path, **config: Any) -> str:
    return find_format(Place(root, root, DataConfig.model_validate(config)))[0].name


def test_the_benchmark_has_150_names_and_the_instance_tracks_100_things() -> None:
    own = benchmark()
    assert list(own) == list(range(1, 151))
    assert len({name for name, _ in own.values()}) == 150
    assert {id_ for id_, (_, thing) in own.items() if thing} == THINGS
    names = {id_: name for id_, (name, _) in own.items()}
    some = {1: "wall", 13: "person", 21: "car", 45: "chest of drawers", 100: "buffet", 131: "screen", 150: "flag"}
    assert {id_: names[id_] for id_ in some} == some


def test_the_benchmark_as_it_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    lay(root, {"training/ADE_train_00000001": EVERY_ID, "validation/ADE_val_00000001": EVERY_ID[:, :3]})
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "\n".join(
        f"{id_}\t0.1\t1\t1\t{int(not thing)}\t{name}, other name   " for id_, (name, thing) in benchmark().items()
    ))  # fmt: skip
    (root / "sceneCategories.txt").write_text("ADE_train_00000001 airport_terminal\n")
    splits = opened(root)
    assert splits.description["format"] == "ade20k"
    assert {split.name: [record.id for record in split.records] for split in splits} == {
        "train": ["ADE_train_00000001"], "val": ["ADE_val_00000001"]
    }  # fmt: skip
    assert splits.labels.names == tuple(name for name, _ in benchmark().values())
    assert splits.labels.countable == tuple(thing for _, thing in benchmark().values())
    assert "150 classes by objectInfo150.txt; id 0 (other) counts in nothing" in splits.notices
    # The folder above may be named, too.
    assert opened(tmp_path).labels == splits.labels


def test_no_class_is_lost_and_none_is_shifted(tmp_path: Path) -> None:
    lay(tmp_path, {"training/ADE_train_00000001": EVERY_ID})
    splits = opened(tmp_path)
    assert splits.labels.ids == tuple(range(1, 151))
    assert splits.labels.ignore_ids == (0,)
    mask = first(splits)
    assert mask[0, 0] == splits.labels.ignore_index == 255
    assert mask[0, 1:].tolist() == list(range(150))  # once, and not twice
    assert splits.labels.names[mask[0, 150]] == "flag"


def test_a_prediction_as_written_holds_1_to_150_and_is_read_as_it_was(tmp_path: Path) -> None:
    labels = opened(lay(tmp_path / "in", {"training/ADE_train_00000001": EVERY_ID})).labels
    predicted = np.arange(150, dtype=np.uint8).reshape(10, 15)
    write_mask(tmp_path / "out.png", predicted, labels)
    assert np.asarray(Image.open(tmp_path / "out.png")).ravel().tolist() == list(range(1, 151))
    np.testing.assert_array_equal(read_mask(tmp_path / "out.png", labels)[0], predicted)
    # Ignored pixels become 0, and never 255 or 254.
    write_mask(tmp_path / "void.png", np.full((1, 2), labels.ignore_index, np.uint8), labels)
    assert np.asarray(Image.open(tmp_path / "void.png")).tolist() == [[0, 0]]


def test_255_never_becomes_a_class(tmp_path: Path) -> None:
    labels = opened(lay(tmp_path / "in", {"training/ADE_train_00000001": EVERY_ID})).labels
    indices, unknown = labels.encode(np.array([[255, 254, 151, 0, 1]], np.uint8))
    assert indices.tolist() == [[255, 255, 255, 255, 0]]
    assert unknown == {151: 1, 254: 1, 255: 1}


def test_masks_that_were_reduced_already_are_refused_with_the_fix(tmp_path: Path) -> None:
    reduced = (EVERY_ID - 1).astype(np.uint8)  # 0 became 255
    path = lay(tmp_path, {"training/ADE_train_00000001": reduced}) / "annotations/training/ADE_train_00000001.png"
    (tmp_path / "objectInfo150.txt").write_text(TABLE)
    with pytest.raises(MaskError) as caught:
        opened(tmp_path)
    assert str(caught.value) == (
        f"{path}: expected ids 0 (other) and 1–150, as the benchmark has them, found 255 in 1 pixel, as where 1 was already "
        "taken off (reduce_zero_label). Use the masks as they were published; or, where ids begin with 0 (wall), set "
        "data.format: masks and data.labels: {names: [wall, …], ignore_index: 255}."
    )
    names = [name for name, _ in benchmark().values()]
    splits = opened(tmp_path, format="masks", labels={"names": names, "ignore_index": 255})
    assert first(splits)[0].tolist() == [255, *range(150)]


def test_background_that_is_a_class_stays_one(tmp_path: Path) -> None:
    """Own masks in these folders, with 0 for a class: nothing says ADE20K, so nothing is taken off."""
    lay(tmp_path, {"training/a": np.array([[0, 1, 2]], np.uint8), "validation/b": np.array([[0, 1, 2]], np.uint8)})
    assert kind(tmp_path) == "masks"
    splits = opened(tmp_path)
    assert splits.labels.ids == (0, 1, 2)
    assert first(splits).tolist() == [[0, 1, 2]]


def test_names_of_images_make_it_only_where_the_masks_fit(tmp_path: Path) -> None:
    lay(tmp_path, {"training/ADE_train_00000001": EVERY_ID})
    assert kind(tmp_path) == "ade20k"
    assert kind(tmp_path, images="images/training/*", masks="annotations/training/{stem}.png") == "masks"
    lay(tmp_path, {"training/ADE_train_00000002": EVERY_ID + 1})
    assert kind(tmp_path) == "masks"
    lay(tmp_path, {"training/ADE_train_00000002": np.zeros((2, 2, 3), np.uint8)})
    assert kind(tmp_path) == "masks"


def test_tables_with_commas_tabs_or_spaces(tmp_path: Path) -> None:
    mask = {"training/a": np.array([[0, 1]], np.uint8)}
    lay(tmp_path, mask)
    (tmp_path / "objectInfo150.csv").write_text(TABLE_CSV.replace("bed", "bed;bedstead"))
    assert opened(tmp_path).labels.names == ("wall", "bed")
    assert opened(tmp_path).labels.ids == (1, 8)
    assert opened(tmp_path).labels.countable == (False, True)
    (tmp_path / "objectInfo150.txt").write_text(TABLE)
    assert opened(tmp_path).labels.names == ("wall", "building")
    without = (
        "Idx  Ratio  Train  Val  Name\n1  0.1576  11664  1172  wall\n45  0.0019  549  46  chest of drawers, chest\n"
    )
    (tmp_path / "objectInfo150.txt").write_text(without)
    assert opened(tmp_path).labels.names == ("wall", "chest of drawers")
    assert opened(tmp_path).labels.countable == (False, True)  # as the benchmark has it
    # A well-known copy has ";" between all words, so that several classes begin with "screen".
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx,Ratio,Train,Val,Stuff,Name".replace(",", "\t")
        + "\n59\t0\t0\t0\t0\tscreen;door\n131\t0\t0\t0\t0\tscreen;silver\n"
    )
    assert opened(tmp_path, skip_bad=True, ignored=[]).labels.names == ("screen", "screen 131")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", LabelsError, "expected the columns Idx and Name, found no row. Copy the file again."),
        ("Idx\tName\n", LabelsError, "found no row"),
        ("Idx\tName\n0\twall\n", LabelsError, "line 2: expected a new Idx from 1 on, and a Name, found '0\\twall'"),
        ("Idx\tName\n1\twall\n1\tsky\n", LabelsError, "line 3: expected a new Idx"),
        ("Idx\tName\n1\t\n", LabelsError, "line 2: expected"),
        ("<html>", LabelsError, "found no row"),
        (b"Idx\tName\n1\tw\xe4nde\n", ConfigError, "expected a text file in UTF-8"),
    ],
)
def test_broken_tables_fail_by_name(tmp_path: Path, text: str | bytes, error: type[Exception], words: str) -> None:
    lay(tmp_path, {"training/a": np.array([[0, 1]], np.uint8)})
    (tmp_path / "objectInfo150.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error) as caught:
        opened(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "objectInfo150.txt"))
    assert words in str(caught.value)


def test_ignored_classes_count_in_nothing(tmp_path: Path) -> None:
    lay(tmp_path, {"training/ADE_train_00000001": EVERY_ID})
    splits = opened(tmp_path, ignored=["wall", "flag"])
    assert splits.labels.num_classes == 148
    assert splits.labels.ignore_ids == (0, 1, 150)
    assert first(splits)[0, [0, 1, 2, 150]].tolist() == [255, 255, 0, 255]


def test_a_palette_means_its_indices_and_sixteen_bits_are_not_cut(tmp_path: Path) -> None:  # TRAPS C1, C6
    path = lay(tmp_path, {"training/ADE_train_00000001": EVERY_ID}) / "annotations/training/ADE_train_00000001.png"
    image = Image.fromarray(EVERY_ID)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)
    assert first(opened(tmp_path))[0, 1:].tolist() == list(range(150))
    (tmp_path / "objectInfo150.txt").write_text(TABLE)
    Image.fromarray(np.array([[257, 1]], np.uint16)).save(path)  # would be 1 in 8 bits
    Image.new("RGB", (2, 1)).save(tmp_path / "images/training/ADE_train_00000001.jpg")
    with pytest.raises(MaskError, match="found 257 in 1 pixel"):
        first(opened(tmp_path))


def test_names_without_ids_keep_the_ids_of_the_files(tmp_path: Path) -> None:
    """A list of names says nothing of ids: read as 0–149, every class would be its neighbour."""
    lay(tmp_path, {"training/ADE_train_00000001": EVERY_ID})
    names = [name for name, _ in benchmark().values()]
    splits = opened(tmp_path, labels=names)
    assert splits.labels.ids == tuple(range(1, 151))
    assert splits.labels.ignore_ids == (0,)
    assert first(splits)[0].tolist() == [255, *range(150)]
    assert "ids of the classes are taken from the annotations" in splits.notices
    # Whoever gives ids means them, and a class that is left out is an error, not void.
    assert opened(tmp_path, labels={"names": names, "ids": list(range(150))}).labels.ids == tuple(range(150))
    with pytest.raises(MaskError, match="found 150 in 1 pixel"):
        first(opened(tmp_path, labels=names[:-1]))


def test_the_full_ade20k_is_refused_with_the_fix(tmp_path: Path) -> None:
    folder = tmp_path / "ADE20K_2021_17_01/images/ADE/training/urban/street"
    folder.mkdir(parents=True)
    for name in ("ADE_train_00016869.jpg", "ADE_train_00016869_seg.png", "ADE_train_00016869.json"):
        (folder / name).touch()
    assert kind(tmp_path) == "ade20k"
    with pytest.raises(
        DataError, match=r"found the full ADE20K \(.*_seg\.png\).*\. Use the benchmark, which has the same"
    ):
        opened(tmp_path)
    (folder / "ADE_train_00016869_seg.png").unlink()
    (tmp_path / "index_ade20k.pkl").write_bytes(b"\x80\x04N.")  # never opened
    with pytest.raises(DataError, match=r"found the full ADE20K \(index_ade20k.pkl\)"):
        opened(tmp_path)
    (tmp_path / "index_ade20k.pkl").unlink()
    (folder / "tooth_seg.png").touch()  # somebody else's
    assert kind(tmp_path) == "masks"


def test_images_without_masks_are_told(tmp_path: Path) -> None:
    lay(tmp_path, {"training/ADE_train_00000001": EVERY_ID, "training/ADE_train_00000002": EVERY_ID})
    (tmp_path / "annotations/training/ADE_train_00000002.png").unlink()
    with pytest.raises(PairingError, match="image without a mask: 1"):
        opened(tmp_path)
