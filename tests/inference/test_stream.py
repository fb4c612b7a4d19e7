"""Predicting block by block: the masks are those of the whole image, whatever the strips, and an earlier call is continued."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.inference import predictor as module
from pixelwise.inference.ahead import ahead, mapped
from pixelwise.inference.decision import enlarge, enlarge_at
from pixelwise.inference.layout import _intersect
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.tile_result import TileResult
from pixelwise.labels import Labels
from pixelwise.tiles import Window
from pixelwise.types import ModelSpec

LABELS = Labels(("a", "b", "c", "d"))


@dataclass
class Image:
    """An image whose windows are counted."""

    image: NDArray[Any]
    valid: NDArray[np.bool_] | None = None
    reads: list[Window] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.dtype

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        self.reads.append(window)
        return self.image[:, *window.slices], None if self.valid is None else self.valid[window.slices]


class Rough:
    """Logits that depend on the place in the tile, so that overlapping tiles differ in many pixels."""

    def __init__(self, **spec: Any) -> None:
        self.spec = ModelSpec(LABELS, 2, **spec)
        self.calls = 0

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        self.calls += 1
        scale, found = self.spec.logit_scale, []
        for image in images:
            small = image.astype(np.float32)[(slice(None), *(slice(None, None, scale) for _ in image.shape[1:]))]
            place = sum(np.indices(small.shape[1:], np.float32) * (1.3, 2.7, 0.9)[: small.ndim - 1][0])
            angles = [small[0] * 0.02 + place * 0.1 + k + small[1] * 0.001 * k for k in range(len(LABELS.names))]
            found.append(np.sin(np.stack(angles)) * 3)
        return np.stack(found).astype(np.float32)


def image_of(*size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (2, *size), np.uint8)


def mask_of(predictor: Predictor, source: Image, **options: Any) -> NDArray[Any]:
    mask = np.full(source.shape, 99, np.int64)
    for block in predictor.stream(source, "a", **options):
        assert (mask[block.window.slices] == 99).all()
        mask[block.window.slices] = block.mask
    return mask


SIZES = st.one_of(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 20)),
)


@settings(max_examples=60, deadline=None)
@given(
    size=SIZES,
    tile=st.tuples(st.integers(8, 24), st.integers(8, 24), st.integers(8, 16)),
    overlap=st.floats(0, 0.7),
    scale=st.sampled_from([1, 2, 4]),
    flips=st.booleans(),
    batch=st.integers(1, 4),
    held=st.sampled_from([1, 20_000, 1 << 28]),
    probabilities=st.booleans(),
    seed=st.integers(0, 9),
)
def test_blocks_are_pieces_of_the_prediction_of_the_whole(
    size: tuple[int, ...],
    tile: tuple[int, ...],
    overlap: float,
    scale: int,
    flips: bool,
    batch: int,
    held: int,
    probabilities: bool,
    seed: int,
) -> None:
    """With and without probabilities, in strips of any width, and with pixels without data."""
    dimensions = len(size)
    backend = Rough(dimensions=dimensions, stride=4, logit_scale=scale)
    predictor = Predictor(backend, batch_size=batch, tile=tile[:dimensions], overlap=overlap, flips=flips)
    valid = np.random.default_rng(seed).random(size) < 0.9
    valid[: size[0] // 2, : size[1] // 2] = False
    source = Image(image_of(*size, seed=seed), valid if seed % 2 else None)
    whole = Predictor(backend, tile=predictor.spec.tile, overlap=overlap, flips=flips)(
        source.image, valid=source.valid, probabilities=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_HELD_BYTES", held)
        blocks = list(predictor.stream(source, "a", probabilities=probabilities))
        assert [block.window for block in blocks] == predictor.blocks(size, probabilities=probabilities)
    found = np.full(size, 99)
    for block in blocks:
        assert (found[block.window.slices] == 99).all()
        found[block.window.slices] = block.mask
        assert (block.probabilities is not None) == probabilities
        if block.probabilities is not None:
            expected = whole.probabilities[:, *block.window.slices]  # type: ignore[index]
            known = slice(None) if source.valid is None else source.valid[block.window.slices]
            np.testing.assert_allclose(block.probabilities[:, known], expected[:, known], atol=1e-6)
    np.testing.assert_array_equal(found, whole.mask)


@pytest.mark.parametrize("held", [1, 1 << 28])
def test_finished_blocks_are_neither_read_nor_computed_again(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(module, "_HELD_BYTES", held)
    predictor = Predictor(Rough(stride=4), tile=(16, 16), overlap=0.25)
    source = Image(image_of(90, 70))
    expected = mask_of(predictor, source)
    blocks = predictor.blocks(source.shape)
    for done in range(len(blocks) + 1):
        source.reads.clear()
        found = mask_of(predictor, source, done=done)
        for number, window in enumerate(blocks):
            wanted = np.full(window.shape, 99) if number < done else expected[window.slices]
            np.testing.assert_array_equal(found[window.slices], wanted)
        needed = [
            place
            for place in predictor.layout(source.shape).places
            if any(_intersect(place, window) for window in blocks[done:])
        ]
        assert set(map(str, source.reads)) == set(map(str, needed))


def test_strips_are_as_wide_as_their_logits_allow() -> None:
    few, many = (Predictor(Rough(stride=4), tile=(512, 512)) for _ in range(2))
    assert {window.start[1] for window in few.blocks((5000, 5000))} == {0}
    many.spec = ModelSpec(Labels(tuple(f"c{k}" for k in range(400))), 2, stride=4, tile=(512, 512))
    starts = sorted({window.start[1] for window in many.blocks((5000, 5000))})
    assert len(starts) > 3
    assert {window.start[1] for window in few.blocks((5000, 500_000))} != {0}


def test_tiles_without_data_are_not_computed() -> None:
    backend = Rough(stride=4)
    valid = np.zeros((200, 200), bool)
    valid[:10, :10] = True
    predictor = Predictor(backend, tile=(32, 32), overlap=0.25)
    source = Image(image_of(200, 200), valid)
    found = mask_of(predictor, source)
    assert backend.calls == 1
    assert (found[valid] < 4).all()
    assert (found[~valid] == LABELS.ignore_index).all()


def test_where_the_tiles_agree_their_class_is_taken() -> None:
    """Also where softmax in float32 rounds two logits to equal probabilities."""

    def close(images: NDArray[Any]) -> NDArray[np.float32]:
        logits = np.zeros((len(images), 4, *images.shape[2:]), np.float32)
        logits[:, 1], logits[:, 2] = 20.0, 20.000002
        return logits

    class Backend(Rough):
        def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
            return close(images)

    predictor = Predictor(Backend(), tile=(8, 8))
    image = image_of(30, 20)
    for probabilities in (False, True):
        assert (predictor(image, probabilities=probabilities).mask == 2).all()


def test_float_images_of_another_range_are_refused_before_anything_is_computed() -> None:
    backend = Rough(dtype="uint8", typical_range=(3.0, 250.0))
    predictor = Predictor(backend, tile=(16, 16))
    values = np.random.default_rng(0).random((2, 60, 60), np.float32)
    with pytest.raises(DataError, match="expected values as in training"):
        list(predictor.stream(Image(values), "scene.tif"))
    assert backend.calls == 0
    values[:, :16, :16] *= 200  # a scene may have dark tiles
    assert len(list(predictor.stream(Image(values), "scene.tif"))) == len(predictor.blocks((60, 60)))


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    scale=st.sampled_from([1, 2, 3, 4, 8]),
    seed=st.integers(0, 99),
)
def test_single_pixels_are_enlarged_like_all(counts: list[int], scale: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 5, (3, *counts)).astype(np.float32)
    shape = tuple(int(random.integers((n - 1) * scale + 1, n * scale + 1)) for n in counts)
    points = [random.integers(0, size, 40) for size in shape]
    np.testing.assert_array_equal(enlarge_at(logits, scale, points), enlarge(logits, scale, shape)[:, *points])


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("mirrored", [False, True])
def test_probabilities_at_pixels_are_those_of_all_pixels(count: int, scale: int, mirrored: bool) -> None:
    random = np.random.default_rng(count)
    copies = [(axes, random.normal(0, 3, (40, 9, 12)).astype(np.float32)) for axes in ((), (-1,), (-2, -1))]
    result = TileResult((9 * scale, 12 * scale - scale // 2), copies if mirrored else copies[:1], scale)
    points = [random.integers(0, size, count) for size in result.shape]
    everywhere = result.probabilities(slice(0, result.shape[0]))
    np.testing.assert_array_equal(result.probabilities_at(points), everywhere[:, *points])


@pytest.mark.parametrize("count", [1, 3, 10])
def test_an_iterator_in_a_thread_keeps_order_and_errors(count: int) -> None:
    def items() -> Any:
        yield from range(5)
        raise ValueError("the sixth")

    found: list[int] = []
    with pytest.raises(ValueError, match="the sixth"):
        found.extend(ahead(items(), count))
    assert found == list(range(5))
    assert list(ahead(iter(()), count)) == []
    assert next(ahead(iter(range(9)), count)) == 0


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 4, 20])
def test_a_function_in_threads_keeps_order_and_errors(threads: int, count: int) -> None:
    def slow(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        if item == 7:
            raise ValueError("the eighth")
        return 10 * item

    def items() -> Any:
        yield from range(5)
        raise ValueError("the sixth")

    assert list(mapped(slow, iter(range(7)), threads, count)) == list(range(0, 70, 10))
    for source, length, text in ((iter(range(12)), 7, "the eighth"), (items(), 5, "the sixth")):
        found: list[int] = []
        with pytest.raises(ValueError, match=text):
            found.extend(mapped(slow, source, threads, count))
        assert found == list(range(0, 10 * length, 10))


class Several(Rough):
    """A backend for two calls at the same time, which waits for the second one, as long as there is one."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**spec)
        self.most = self.now = 0
        self.lock = threading.Lock()

    @property
    def concurrent(self) -> Any:
        other = Several(**{key: getattr(self.spec, key) for key in ("tile", "stride", "logit_scale")})
        other.calls, other.parent = 2, self  # type: ignore[attr-defined]
        return other

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        calls = self.calls
        logits = super().__call__(images)
        with self.lock:
            self.calls = calls
            self.now -= 1
        return logits


def test_tiles_are_computed_at_the_same_time_where_the_backend_can() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 50, 70), np.uint8)
    single = Predictor(Several(tile=(16, 16), stride=4))
    several = single.concurrent()
    assert (single.calls, several.calls) == (1, 2)
    found = np.concatenate([block.mask for block in several.stream(Image(image), "image")])
    np.testing.assert_array_equal(found, single(image).mask)
    assert (single.backend.most, several.backend.most) == (1, 2)  # type: ignore[attr-defined]
