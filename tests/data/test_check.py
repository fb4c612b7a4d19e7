from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.data import check as module
from pixelwise.data.check import Finding, check
from pixelwise.data.dataset import open_data


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def halves(low: int = 0, high: int = 1) -> np.ndarray:
    mask = np.full((20, 20), low, np.uint8)
    mask[:, 10:] = high
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six good pictures for train and three for val; each test spoils something."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for k in range(count):
            save(tmp_path / part / "images" / f"{part}{k}.png", rng.integers(0, 256, (20, 20, 3), np.uint8))
            save(tmp_path / part / "masks" / f"{part}{k}.png", halves())
    (tmp_path / "labels.yaml").write_text("names: [ground, road]\n")
    return tmp_path


def findings(root: Path, **config: object) -> list[Finding]:
    return check(open_data(DataConfig.model_validate(config), root))


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def test_a_good_data_set_has_no_findings(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert check(open_data(DataConfig(), folder), lambda done, total: seen.append((done, total))) == []
    assert seen == [(k, 9) for k in range(1, 10)]


def test_unreadable_pictures_and_masks(folder: Path) -> None:
    for name in ("train/images/train0.png", "val/images/val1.png", "train/masks/train2.png"):
        path = folder / name
        content = path.read_bytes()
        place = content.index(b"IDAT") + 8
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    pictures, masks = findings(folder)
    assert (pictures.severity, pictures.what, pictures.count) == ("error", "2 pictures cannot be read", 2)
    assert pictures.where == (str(folder / "train/images/train0.png"), str(folder / "val/images/val1.png"))
    assert pictures.why.startswith(f"In {pictures.where[0]}: expected a whole PNG, found one that cannot be decoded")
    assert (masks.what, masks.where) == ("1 mask cannot be understood", (str(folder / "train/masks/train2.png"),))


def test_ids_outside_the_labels(folder: Path) -> None:
    save(folder / "train/masks/train4.png", halves(0, 9))
    finding = only(findings(folder))
    assert finding.severity == "error"
    assert finding.why.endswith("train4.png: expected class ids 0, 1, found 9 in 200 pixels.")
    assert finding.fix == "Add class 9 to labels.yaml, or set ignore_index."


def test_at_most_five_files_are_named_and_all_are_counted(folder: Path) -> None:
    for k in range(6):
        save(folder / f"train/masks/train{k}.png", halves(0, 9))
    first = findings(folder)[0]
    assert (len(first.where), first.count) == (5, 6)


def test_sizes_that_changed_since_opening(folder: Path) -> None:
    splits = open_data(DataConfig(), folder)
    save(folder / "val/masks/val0.png", np.zeros((20, 30), np.uint8))
    assert only(check(splits)).what == "1 mask has not its picture's size"


def test_pictures_of_another_kind(folder: Path) -> None:
    save(folder / "train/images/train1.png", np.zeros((20, 20), np.uint8))
    finding = only(findings(folder))
    assert finding.what == "1 picture has another form than most (3 bands of uint8)"
    assert finding.why.endswith("train1.png has 1 band of uint8.")
    assert finding.severity == "error"


def test_a_mask_that_is_all_ignored(folder: Path) -> None:
    (folder / "labels.yaml").write_text("names: [ground, road]\nignore_index: 7\n")
    save(folder / "train/masks/train3.png", np.full((20, 20), 7, np.uint8))
    ignored, share = findings(folder)
    assert (ignored.severity, ignored.what) == ("warning", "1 mask is ignored in every pixel")
    assert ignored.where == (str(folder / "train/masks/train3.png"),)
    assert (share.severity, share.what) == ("notice", "11 % of the pixels are ignored")


def test_much_ignored_is_a_warning(folder: Path) -> None:
    (folder / "labels.yaml").write_text("names: [ground, road]\nignore_index: 7\n")
    for k in range(6):
        mask = np.full((20, 20), 7, np.uint8)
        mask[:2] = halves()[:2]
        save(folder / f"train/masks/train{k}.png", mask)
    assert (only(findings(folder)).severity, only(findings(folder)).count) == ("warning", 6)


def test_only_one_class(folder: Path) -> None:
    for part, count in (("train", 6), ("val", 3)):
        for k in range(count):
            save(folder / part / "masks" / f"{part}{k}.png", halves(0, 0))
    finding = only(findings(folder))
    assert (finding.severity, finding.what) == ("error", "only 'ground' occurs in train")


def test_classes_that_a_part_does_not_show(folder: Path) -> None:
    (folder / "labels.yaml").write_text("names: [ground, road, car, tram]\n")
    save(folder / "val/masks/val0.png", halves(0, 2))
    save(folder / "train/masks/train0.png", halves(0, 3))
    train, val = findings(folder)
    assert train.what == "1 class never occurs in train: car"
    assert "never learned" in train.why
    assert (val.what, val.severity, val.where) == ("1 class never occurs in val: tram", "warning", ("tram",))


def test_rare_classes_are_told_with_their_shares(folder: Path) -> None:
    for part, count in (("train", 6), ("val", 3)):
        for k in range(count):
            mask = np.zeros((20, 20), np.uint8)
            mask[0, :2] = 1
            save(folder / part / "masks" / f"{part}{k}.png", mask)
    finding = only(findings(folder))
    assert finding.what == "1 class has under 1% of the pixels: road 0.5 %"
    assert "'ground' everywhere has 99.5 % of the pixels right" in finding.why
    assert finding.severity == "notice"


def test_the_same_picture_in_two_parts(folder: Path) -> None:
    (folder / "val/images/val2.png").write_bytes((folder / "train/images/train5.png").read_bytes())
    finding = only(findings(folder))
    assert (finding.severity, finding.what) == ("warning", "1 picture lies in more than one part")
    assert finding.where == (f"{folder / 'train/images/train5.png'} = {folder / 'val/images/val2.png'}",)


def test_the_same_picture_twice_in_one_part_is_no_leak(folder: Path) -> None:
    (folder / "train/images/train4.png").write_bytes((folder / "train/images/train5.png").read_bytes())
    assert findings(folder) == []


def test_a_group_in_two_parts(folder: Path) -> None:
    finding = only(findings(folder, group=r"(?:train|val)(\d)\.png"))
    assert (finding.severity, finding.count) == ("error", 3)
    assert finding.what == "3 groups lie in more than one part"
    assert finding.where[0] == "0: train, val"


def test_files_that_cannot_be_paired_or_opened(folder: Path) -> None:
    (folder / "train/masks/train1.png").unlink()
    path = folder / "train/images/train2.png"
    path.write_bytes(path.read_bytes()[:-30])
    splits = open_data(DataConfig(skip_bad=True), folder)
    warning = only(check(splits))
    assert (warning.severity, warning.what) == ("warning", "2 files were left out by skip_bad")
    error = only(check(splits, skip_bad=False))
    assert (error.severity, error.what, error.count) == ("error", "2 files cannot be used", 2)
    assert error.where[0] == "train/images/train1.png: picture without a mask"
    assert "found one that ends early (truncated)" in error.where[1]


def test_what_was_decided_is_told(tmp_path: Path) -> None:
    for k in range(5):
        save(tmp_path / f"images/{k}.png", np.full((20, 20, 3), k, np.uint8))
        save(tmp_path / f"masks/{k}.png", halves())
    first, second = findings(tmp_path)
    assert first.what == "1 of 5 pictures were taken from train for val, by picture (split.seed 0)"
    assert second.what.startswith("no labels.yaml")
    assert first.severity == "notice"


def test_notices_of_masks_are_passed_on(folder: Path) -> None:
    for part, count in (("train", 6), ("val", 3)):
        for k in range(count):
            save(folder / part / "masks" / f"{part}{k}.png", halves(0, 255))
    finding = only(findings(folder))
    assert (finding.severity, finding.count, len(finding.where)) == ("notice", 9, 5)
    assert finding.what.startswith("values 0 and 255 are read as class ids 0 and 1")


@pytest.mark.parametrize(("orientation", "told"), [(1, False), (3, True), (6, True)])
def test_pictures_that_exif_turns_beside_masks_that_it_does_not(folder: Path, orientation: int, told: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / "train/images/train3.png"
    Image.open(path).save(path, exif=exif)
    found = findings(folder)
    assert len(found) == told
    if told:
        assert (found[0].severity, found[0].where) == ("warning", (str(path),))
        assert found[0].what == "1 picture is turned by EXIF, and the mask is not"
        mask = folder / "train/masks/train3.png"
        Image.open(mask).save(mask, exif=exif)
        assert not findings(folder)


def test_the_worst_comes_first(folder: Path) -> None:
    (folder / "val/images/val2.png").write_bytes((folder / "train/images/train5.png").read_bytes())
    save(folder / "train/masks/train4.png", halves(0, 9))
    assert [finding.severity for finding in findings(folder)] == ["error", "warning"]


def test_every_check_is_registered() -> None:
    defined = {
        name
        for name, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", "") == module.__name__
        and not name.startswith("_")
        and value.__annotations__.get("return") == "Iterator[Finding]"
    }
    assert {one.__name__ for one in module.CHECKS} == defined


def test_plain_form(folder: Path) -> None:
    save(folder / "train/masks/train4.png", halves(0, 9))
    plain = only(findings(folder)).to_dict()
    assert list(plain) == ["severity", "what", "where", "count", "why", "fix"]
    assert plain["where"] == [str(folder / "train/masks/train4.png")]
