import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise.batch import Batch
from pixelwise.config import DataConfig, ResolvedAugment
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ImageError
from pixelwise.grid import Grid
from pixelwise.training import loader
from pixelwise.training.loader import Crops, Stream, batches, cache_fits
from pixelwise.training.transforms import CropTransform
from pixelwise.types import Sample

ALL = ResolvedAugment(rotate=20, scale=(0.7, 1.4), flip_horizontal=0.5, brightness=0.2, contrast=0.2, noise=0.1)


class Drawn:
    """A data set in memory: image i has the value i and class i % 2."""

    def __init__(self, count: int, dtype: str = "uint8", bands: int = 3, size: tuple[int, int] = (20, 24)) -> None:
        self.count, self.dtype, self.bands, self.size, self.reads = count, np.dtype(dtype), bands, size, 0

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        self.reads += 1
        image = np.full((self.bands, *self.size), index, self.dtype)
        return Sample(image, np.full(self.size, index % 2, np.uint8), Grid(), f"p{index}")


def crops(
    dataset: object,
    *,
    seed: int = 0,
    cache: bool = False,
    bands: int = 3,
    crop: int = 16,
    augment: ResolvedAugment = ALL,
) -> Crops:
    transform = CropTransform((crop, crop), augment, 0.5, 255, (100.0,) * bands, (50.0,) * bands)
    return Crops(dataset, transform, seed, cache)  # type: ignore[arg-type]


def take(source: Crops, *, batch_size: int = 3, start: int = 0, count: int = 4, workers: int = 0) -> list[Batch]:
    return list(batches(source, batch_size=batch_size, start=start, count=count, workers=workers))


def same(one: list[Batch], two: list[Batch]) -> bool:
    return len(one) == len(two) and all(
        a.ids == b.ids and torch.equal(a.images, b.images) and torch.equal(a.masks, b.masks)
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture(scope="module")
def source(discs: Path) -> Crops:
    part = open_data(DataConfig(), discs).train
    assert part is not None
    return crops(part, crop=32)


def test_batches_have_shapes_types_and_ids(source: Crops) -> None:
    for batch in take(source):
        assert (batch.images.shape, batch.images.dtype) == ((3, 3, 32, 32), torch.float32)
        assert (batch.masks.shape, batch.masks.dtype) == ((3, 32, 32), torch.int64)
        assert type(batch.images) is type(batch.masks) is torch.Tensor
        assert len(batch.ids) == 3
        assert set(batch.masks.unique().tolist()) <= {0, 1, 255}


def test_no_workers_and_two_give_the_same_batches(source: Crops) -> None:
    # 12 images in batches of 5: an epoch ends inside a batch.
    assert same(take(source, batch_size=5, count=5), take(source, batch_size=5, count=5, workers=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_at_batch_n_equals_skipping_n(source: Crops, workers: int) -> None:
    whole = take(source, batch_size=5, count=6)
    assert same(take(source, batch_size=5, start=4, count=2, workers=workers), whole[4:])


def test_the_cache_changes_nothing(source: Crops) -> None:
    kept = Crops(source.dataset, source.transform, source.seed, cache=True)
    assert same(take(source), take(kept))
    # Cached images are not modified.
    assert same(take(source), take(kept))


def test_the_seed_changes_order_and_crops(source: Crops) -> None:
    other = Crops(source.dataset, source.transform, 1, cache=False)
    assert [b.ids for b in take(source)] != [b.ids for b in take(other)]
    assert not torch.equal(source[(0, 0)][0], other[(0, 0)][0])


def test_a_crop_depends_only_on_seed_epoch_and_index(source: Crops) -> None:
    first = source[(2, 5)]
    np.random.default_rng(0).random(7)
    torch.rand(3)
    source[(0, 1)]
    again = source[(2, 5)]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], source[(3, 5)][0])


def test_the_global_generators_are_not_used(source: Crops) -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    take(source, count=1)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]


def test_every_epoch_is_a_complete_permutation() -> None:
    keys = list(Stream(7, 3, 0, 7 * 20))
    assert [epoch for epoch, _ in keys] == [k // 7 for k in range(140)]
    orders = [tuple(index for _, index in keys[at : at + 7]) for at in range(0, 140, 7)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len(set(orders)) > 15
    assert orders != [tuple(i for _, i in list(Stream(7, 4, 0, 140))[at : at + 7]) for at in range(0, 140, 7)]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 5), (6, 8), (13, 14), (3, 30)])
def test_a_stream_can_start_at_any_position(start: int, stop: int) -> None:
    piece = Stream(7, 0, start, stop)
    assert list(piece) == list(itertools.islice(Stream(7, 0, 0, 100), start, stop))
    assert len(piece) == stop - start


def test_one_image_fills_any_batch() -> None:
    batch = take(crops(Drawn(1)), batch_size=4, count=1)[0]
    assert batch.ids == ("p0",) * 4
    # Each from another epoch, so all differ.
    assert not torch.equal(batch.images[0], batch.images[1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "int32", "float32", "float64", ">u2", ">f4"])
@pytest.mark.parametrize("bands", [1, 5])
def test_images_of_any_type(dtype: str, bands: int) -> None:
    plain = ResolvedAugment(flip_horizontal=0.5)
    batch = take(crops(Drawn(4, dtype, bands), bands=bands, augment=plain), batch_size=4, count=1)[0]
    assert batch.images.shape == (4, bands, 16, 16)
    for name, image, mask in zip(batch.ids, batch.images, batch.masks, strict=True):
        assert (image == int(name[1:])).all()
        assert (mask == int(name[1:]) % 2).all()


@pytest.mark.parametrize("value", [65_535, 40_000, 32_768])
def test_large_16_bit_values_do_not_turn_negative(value: int) -> None:
    class Bright(Drawn):
        def read(self, index: int) -> Sample:
            return replace(super().read(index), image=np.full((1, 20, 24), value, np.uint16))

    batch = take(crops(Bright(2), bands=1, augment=ResolvedAugment()), batch_size=2, count=1)[0]
    assert (batch.images == value).all()


def test_masks_of_more_than_255_classes() -> None:
    class Many(Drawn):
        def read(self, index: int) -> Sample:
            return replace(super().read(index), mask=np.full((20, 24), 300 + index, np.uint16))

    transform = CropTransform((32, 32), ResolvedAugment(), 0.5, 65535, (0.0,) * 3, (1.0,) * 3)
    batch = take(Crops(Many(2), transform, 0, False), batch_size=2, count=1)[0]  # type: ignore[arg-type]
    assert sorted(batch.masks.unique().tolist()) == [300, 301, 65535]


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_are_copied() -> None:
    class Fixed(Drawn):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            sample.image.flags.writeable = False
            return sample

    assert take(crops(Fixed(2)), batch_size=2, count=1)


def test_cached_images_are_read_once() -> None:
    drawn = Drawn(3)
    source = crops(drawn, cache=True)
    assert drawn.reads == 3
    take(source, count=3)
    assert drawn.reads == 3
    source = crops(drawn)
    take(source, count=1)
    assert drawn.reads == 6


def test_the_cache_uses_at_most_a_quarter_of_the_free_memory(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = open_data(DataConfig(), discs).train
    assert part is not None
    needed = len(part) * 64 * 64 * (3 + 1)
    for quarter, dtype, fits in (
        (needed, "uint8", True),
        (needed - 1, "uint8", False),
        (needed, "uint16", False),  # stored as int32
        (len(part) * 64 * 64 * (3 * 4 + 1), "uint16", True),
        (len(part) * 64 * 64 * (3 * 8 + 1), "float64", True),
    ):
        monkeypatch.setattr(loader, "free_memory", lambda quarter=quarter: 4 * quarter)
        assert cache_fits(part, dtype) is fits, (quarter, dtype)
    monkeypatch.setattr(loader, "free_memory", lambda: None)
    assert not cache_fits(part, "uint8")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_with_any_number_of_workers(discs: Path, tmp_path: Path, workers: int) -> None:
    shutil.copytree(discs, tmp_path / "d")
    part = open_data(DataConfig(), tmp_path / "d").train
    assert part is not None
    broken = part.records[5].image
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(
        ImageError, match=rf"{broken.name}: expected a complete PNG, found one that ends early"
    ) as caught:
        take(crops(part), count=6, workers=workers)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (3, "uint16")])
def test_an_image_with_other_bands_or_dtype_is_named(discs: Path, bands: int, dtype: str) -> None:
    part = open_data(DataConfig(), discs).train
    assert part is not None
    transform = CropTransform((16, 16), ResolvedAugment(), 0.5, 255, (100.0,) * bands, (50.0,) * bands)
    source = Crops(part, transform, 0, False, (bands, dtype))
    with pytest.raises(
        ImageError, match=rf"expected {bands} bands? of {dtype}, as in the other images, found 3 of uint8"
    ):
        take(source, count=1)


@pytest.mark.parametrize(("dtype", "nodata", "fill"), [("float32", np.nan, 100.5), ("int16", -9999, 100)])
def test_invalid_pixels_are_filled_and_ignored(dtype: str, nodata: float, fill: float) -> None:
    class WithGap(Drawn):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            valid = np.ones(self.size, bool)
            valid[:, :5] = False
            return replace(sample, image=np.where(valid, sample.image, nodata).astype(dtype), valid=valid)

    transform = CropTransform((20, 24), ResolvedAugment(), 0.0, 255, (100.5, 100.5), (50.0, 50.0))
    images, masks, _ = Crops(WithGap(2, dtype, 2), transform, 0, False)[0, 1]  # type: ignore[misc,arg-type]
    assert images[..., :5].unique().tolist() == [fill]
    assert images[..., 5:].unique().tolist() == [1]
    assert masks[:, :5].unique().tolist() == [255]
    assert masks[:, 5:].unique().tolist() == [1]
