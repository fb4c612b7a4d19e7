"""Recognise objects and soft edges by the values of masks, and leave classes as they are."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pixelwise.config import Config, DataConfig, with_overrides
from pixelwise.datasets.dataset import DataSplits, open_data, pin_paths
from pixelwise.errors import LabelsError, MaskError
from pixelwise.imageio.images import RawMask, read_mask_values
from pixelwise.imageio.mask_heuristics import MaskStatistics, MaskValues, count_off_border, count_regions
from pixelwise.imageio.masks import MaskRule, read_ids, read_mask
from pixelwise.labels import Labels

TWO = Labels(("ground", "cell"))
FIVE = Labels(tuple("abcde"))


def save(path: Path, values: np.ndarray, palette: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def refusal(path: Path, labels: Labels, rule: MaskRule = MaskRule()) -> str:
    with pytest.raises(MaskError) as caught:
        read_mask(path, labels, rule)
    return str(caught.value).removeprefix(f"{path}: ")


class Seen(NamedTuple):
    objects: bool
    soft: bool


def seen_raw(masks: list[RawMask]) -> Seen:
    statistics = MaskStatistics()
    for mask in masks:
        statistics.add(MaskValues.of(mask))
    return Seen(statistics.objects(map(count_regions, masks)), statistics.soft(map(count_off_border, masks)))


def seen(masks: Iterable[np.ndarray], kind: str = "index") -> Seen:
    return seen_raw([RawMask(mask, kind, None, "PNG") for mask in masks])


def cells(count: int, seed: int = 0, dtype: type[np.generic] = np.uint16, touching: bool = False) -> np.ndarray:
    """Number discs, or the pieces of a plane, from 1 on."""
    chance = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    mask = np.zeros((side * 9 + 2, side * 9 + 2), dtype)
    for k, place in enumerate(chance.permutation(side * side)[:count]):
        top, left = (int(v) * 9 for v in divmod(int(place), side))
        size = 9 if touching else int(chance.integers(3, 8))
        mask[top : top + size, left : left + size] = k + 1
    return mask


def scene(
    classes: Iterable[int], seed: int, size: int = 96, each: int = 4, dtype: type[np.generic] = np.uint8
) -> np.ndarray:
    """Lay patches of classes on a ground of one of them, as in an image of a street or a room."""
    chance = np.random.default_rng(seed)
    classes = list(classes)
    mask = np.full((size, size), classes[0], dtype)
    for k in classes * each:
        top, left = chance.integers(0, size - 8, 2)
        height, width = chance.integers(4, size // 3, 2)
        mask[top : top + height, left : left + width] = k
    return mask


# Objects -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(3, 12), (30, 9, 17, 55), (1, 1, 2, 40), (200, 90)])
@pytest.mark.parametrize("touching", [False, True])
def test_numbered_objects_are_recognised(counts: tuple[int, ...], touching: bool) -> None:
    dtype = np.uint8 if max(counts) < 256 else np.uint16
    assert seen(cells(n, k, dtype, touching) for k, n in enumerate(counts)).objects
    assert seen((cells(n, k, dtype, touching) for k, n in enumerate(counts)), "palette").objects


def test_a_few_gaps_and_split_objects_are_allowed() -> None:
    masks = [cells(n, n) for n in (40, 55, 70, 23)]
    masks[0][masks[0] == 17] = 0
    masks[1][0, 0] = masks[1][-1, -1] = 5
    assert seen(masks).objects


def test_empty_masks_are_no_evidence_of_objects() -> None:
    assert seen([cells(30, 1), np.zeros((9, 9), np.uint16), cells(12, 2)]).objects
    assert not seen([np.zeros((9, 9), np.uint16)] * 3).objects


@pytest.mark.parametrize(
    "masks",
    [
        pytest.param([scene(range(12), k) for k in range(8)], id="every class in every mask, as in CamVid"),
        pytest.param(
            [scene(sorted({0, *np.random.default_rng(k).integers(1, 12, 8)}), k) for k in range(8)],
            id="some of a few classes",
        ),
        pytest.param(
            [scene(np.unique(np.random.default_rng(k).zipf(1.3, 30) % 151), k, 128) for k in range(8)],
            id="some of 150 classes, the first of them nearly always, as in ADE20K",
        ),
        pytest.param([cells(18, k, np.uint8) for k in range(8)], id="the same 18 parts in all, each one region"),
        pytest.param([cells(18 - k % 2, k, np.uint8) for k in range(8)], id="one part is lacking now and then"),
        pytest.param(
            [np.where(np.isin(m := cells(24, k, np.uint8), range(k, k + 9)), m, 0) for k in range(1, 9)],
            id="neighbouring parts of 24, as vertebrae in slices",
        ),
        pytest.param([cells(k % 5 + 1, k, np.uint8) for k in range(8)], id="no more than a handful"),
        pytest.param([np.where(cells(9, k) > 0, 255, 0).astype(np.uint8) for k in range(8)], id="0 and 255"),
        pytest.param([np.where(cells(9, k) > 0, 1, 0).astype(np.uint8) for k in range(8)], id="0 and 1"),
        pytest.param(
            [*(np.where(cells(9, k) > 5, 1, 0) for k in range(19)), np.array([[0, 1, 255]])], id="0, 1 and void"
        ),
        pytest.param([cells(30, 1)], id="one mask alone cannot tell"),
        pytest.param([cells(30, 1) - 1, cells(50, 2).astype(np.int32) - 1], id="numbers below 0"),
    ],
)
def test_classes_are_never_taken_for_objects(masks: list[np.ndarray]) -> None:
    assert not seen(masks).objects


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(6, 150), st.integers(0, 10**6))
def test_drawn_sets_of_classes_are_never_taken_for_objects(classes: int, seed: int) -> None:
    """Classes of an image come in several places, and not all of those before the last occur."""
    chance = np.random.default_rng(seed)
    masks = []
    for k in range(6):
        some = chance.choice(classes, int(chance.integers(2, min(classes, 30))), replace=False)
        masks.append(scene(some, seed + k, 64, 2))
    assert not seen(masks).objects


def test_colour_masks_are_neither() -> None:
    masks = [RawMask(cells(count, count), "index", None, "PNG") for count in (20, 9)]
    assert seen_raw(masks).objects
    colours = RawMask(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "colour", None, "PNG")
    both = seen_raw([*masks, colours])
    assert not both.objects
    assert not both.soft


def set_of(root: Path, masks: Iterable[np.ndarray]) -> Path:
    for k, mask in enumerate(masks):
        save(root / "images" / f"{k}.png", np.full(mask.shape, k, np.uint8))
        save(root / "masks" / f"{k}.png", mask)
    return root


def opened(root: Path, **config: object) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0}} | config), root)


def test_a_folder_of_objects_is_read_as_background_and_object(tmp_path: Path) -> None:
    masks = [cells(n, n) for n in (300, 4, 17)]
    splits = opened(set_of(tmp_path, masks))
    assert (splits.labels.names, splits.labels.countable) == (("background", "object"), (False, True))
    assert splits.notices == (
        "no labels.yaml: the masks number objects (1 to 4 in one, 1 to 300 in another, nearly each id one region), so 0 is "
        "background (id 0) and every other id is one object (id 1). Are they classes? --set 'data.mask_values={objects: false}'",
    )
    assert splits.train is not None
    for k, mask in enumerate(masks):
        np.testing.assert_array_equal(splits.train.read(k).mask, mask > 0)


def test_the_config_of_a_run_reads_objects_in_the_same_way(tmp_path: Path) -> None:
    splits = opened(set_of(tmp_path, [cells(n, n) for n in (30, 4, 17)]))
    pinned = pin_paths(DataConfig(), tmp_path).model_dump()
    as_read = {"labels": splits.labels.to_dict(), "mask_values": splits.description["mask_values"], "split": {"val": 0}}
    again = open_data(DataConfig.model_validate(pinned | as_read), tmp_path / "elsewhere")
    assert again.description["mask_values"] == splits.description["mask_values"] == {"objects": True}
    assert splits.train is not None
    assert again.train is not None
    assert again.labels == splits.labels
    for k in range(3):
        np.testing.assert_array_equal(again.train.read(k).mask, splits.train.read(k).mask)


def test_a_stated_rule_is_followed(tmp_path: Path) -> None:
    set_of(tmp_path, [cells(n, n, np.uint8) for n in (30, 4, 17)])
    words = shlex.split(opened(tmp_path).notices[-1].partition("--set ")[2])
    as_classes = opened(tmp_path, **with_overrides(Config(), words).data.model_dump(include={"mask_values"}))
    assert (as_classes.labels.num_classes, as_classes.description["mask_values"]) == (31, {"binary": True})
    assert as_classes.notices[-1].endswith("10 class_10, … 30 class_30 (31)")
    named = opened(tmp_path, labels=["ground", "nucleus"], mask_values={"objects": True})
    assert named.labels.names == ("ground", "nucleus")
    set_of(tmp_path / "few", [cells(3, 1, np.uint8)])
    few = opened(tmp_path / "few", mask_values={"objects": True})
    assert few.labels.names == ("background", "object")
    assert few.notices == ("no labels.yaml: 0 is background (id 0), every other id in the masks is one object (id 1)",)


def test_objects_with_gaps_and_many_ids_get_the_command(tmp_path: Path) -> None:
    set_of(tmp_path, [cells(300, 1) * 3, cells(20, 2)])
    with pytest.raises(
        LabelsError, match=r"If each id is one object: --set 'data\.mask_values=\{objects: true\}'\. Else name"
    ):
        opened(tmp_path)
    assert opened(tmp_path, mask_values={"objects": True}).labels.num_classes == 2


def test_real_nuclei(real: Callable[[str], Path]) -> None:
    root = real("nuclei")
    splits = open_data(DataConfig(), root)
    assert {part.name: len(part) for part in splits} == {"train": 128, "val": 32}
    assert splits.description["mask_values"] == {"objects": True}
    for part in splits:
        record = part.records[0]
        assert record.mask is not None
        with Image.open(record.mask) as stored:
            np.testing.assert_array_equal(part.read(0).mask, np.asarray(stored) > 0)


def test_camvid_and_retinas_have_classes(real: Callable[[str], Path]) -> None:
    for pattern in ("camvid/trainannot/*.png", "drive/train/gt/*.png"):
        folder, _, rest = pattern.partition("/")
        paths = sorted(real(folder).glob(rest))[::5][:64]
        assert paths
        assert seen_raw([read_mask_values(path) for path in paths]) == (False, False)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_every_object_is_the_second_class(tmp_path: Path, dtype: type[np.generic]) -> None:
    values = np.array([[0, 1, 2], [7, 0, 255]], dtype)
    if dtype == np.int32:
        tifffile.imwrite(tmp_path / "a.tif", values)
    else:
        save(tmp_path / "a.tif", values)
    mask, notices = read_mask(tmp_path / "a.tif", TWO, MaskRule(objects=True))
    assert (mask.tolist(), notices) == ([[0, 1, 1], [1, 0, 1]], [])


def test_objects_of_other_kinds_of_masks(tmp_path: Path) -> None:
    rule = MaskRule(objects=True)
    palette = save(tmp_path / "p.png", np.array([[0, 1, 2]], np.uint8), palette=[9, 9, 9, 0, 0, 0, 1, 1, 1])
    assert read_mask(palette, TWO, rule)[0].tolist() == [[0, 1, 1]]
    colours = save(tmp_path / "c.png", np.array([[[0, 0, 0], [0, 0, 9], [200, 1, 1]]], np.uint8))
    assert read_mask(colours, TWO, rule)[0].tolist() == [[0, 1, 1]]
    assert read_ids(colours, rule)[0].tolist() == [[0, 1, 1]]
    tifffile.imwrite(tmp_path / "n.tif", np.array([[0, -1, 3]], np.int16))
    assert refusal(tmp_path / "n.tif", TWO, rule) == (
        "expected 0, or the number of an object, found -1 in 1 pixel. Number the objects from 1 on; background is 0."
    )
    lossy = save(tmp_path / "l.jpg", np.zeros((8, 8), np.uint8))
    assert refusal(lossy, TWO, rule).startswith("expected a lossless mask")


def test_numbered_objects_with_the_names_of_two_classes_are_recognised(tmp_path: Path) -> None:
    mask = cells(36, 0, np.uint8)
    text = refusal(save(tmp_path / "a.png", mask), TWO)
    assert text.endswith("If each id is one object, read them as such: --set 'data.mask_values={objects: true}'.")
    assert "If each id" not in refusal(tmp_path / "a.png", FIVE)
    scattered = save(tmp_path / "b.png", mask % 5)
    assert "If each id" not in refusal(scattered, TWO), "class ids, each in several regions"


# Soft edges --------------------------------------------------------------------------------------------------------------


def drawn(seed: int, bright: int = 255, scale: int = 4, size: int = 64) -> np.ndarray:
    """Draw a blob as drawing programs do: at a larger size, scaled down with soft edges."""
    chance = np.random.default_rng(seed)
    image = Image.new("L", (size * scale, size * scale))
    points = [tuple(float(v) for v in chance.integers(0, size * scale, 2)) for _ in range(5)]
    ImageDraw.Draw(image).polygon(points, fill=bright)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("bright", [255, 237])
def test_soft_edges_are_recognised(bright: int) -> None:
    masks = [drawn(k, bright) for k in range(6)]
    assert seen(masks).soft
    assert seen([*masks, np.zeros((64, 64), np.uint8), np.full((64, 64), bright, np.uint8)]).soft
    assert not seen(masks).objects


def test_masks_that_were_once_jpeg_are_recognised(tmp_path: Path) -> None:
    masks = []
    for k in range(4):
        Image.fromarray(np.where(drawn(k) > 127, 255, 0).astype(np.uint8)).save(tmp_path / "a.jpg", quality=90)
        with Image.open(tmp_path / "a.jpg") as image:
            masks.append(np.asarray(image).copy())
    assert seen(masks).soft


@pytest.mark.parametrize(
    "masks",
    [
        pytest.param([np.where(drawn(k) > 127, 255, 0).astype(np.uint8) for k in range(4)], id="0 and 255"),
        pytest.param(
            [np.where(scene(range(12), k) == 11, 255, scene(range(12), k)) for k in range(4)], id="11 and void"
        ),
        pytest.param([scene(range(0, 250, 10), k) for k in range(4)], id="ids far apart"),
        pytest.param([scene([0, 128, 255], k) for k in range(4)], id="0, 128 and 255"),
        pytest.param([scene(range(34), k).astype(np.uint8) for k in range(4)], id="34 classes"),
        pytest.param([np.tile(np.arange(256, dtype=np.uint8), (64, 1))] * 4, id="a slope"),
        pytest.param([cells(240, 1, np.uint8), cells(220, 2, np.uint8)], id="objects in 8 bits"),
    ],
)
def test_other_masks_have_no_soft_edges(masks: list[np.ndarray]) -> None:
    assert not seen(masks).soft


def test_a_folder_of_soft_masks_asks_for_a_threshold_in_one_command(tmp_path: Path) -> None:
    set_of(tmp_path, [drawn(k) for k in range(5)])
    with pytest.raises(LabelsError) as error:
        opened(tmp_path)
    assert "expected class ids in the masks, found dark and bright, and " in str(error.value)
    assert error.value.do == (
        "Read them as two classes divided at 128: --set 'data.mask_values={threshold: 128}'. "
        "If they are class ids after all, name these in a labels.yaml."
    )
    words = shlex.split(error.value.do.partition("--set ")[2].partition(". ")[0])
    splits = opened(tmp_path, **with_overrides(Config(), words).data.model_dump(include={"mask_values"}))
    assert splits.train is not None
    np.testing.assert_array_equal(splits.train.read(0).mask, drawn(0) >= 128)


def test_aerial_roads_ask_for_a_threshold(real: Callable[[str], Path]) -> None:
    root = real("aerial_roads")
    with pytest.raises(LabelsError, match=r"--set 'data\.mask_values=\{threshold: 128\}'"):
        open_data(DataConfig(), root)
    splits = open_data(DataConfig(mask_values={"threshold": 128}), root)
    assert {part.name: len(part) for part in splits} == {"train": 40, "val": 10}
    assert splits.labels.names == ("background", "foreground")
