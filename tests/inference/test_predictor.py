import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.backends import predictor_of

from pixelwise.errors import ConfigError, DataError
from pixelwise.grid import Grid
from pixelwise.inference.augmentation import mirrored_axes
from pixelwise.inference.blending import Tile, blend, gaussian
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.tile_result import TileResult
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.labels import Labels
from pixelwise.models.unet import UNet
from pixelwise.tiles import Window, windows
from pixelwise.types import ModelSpec

LABELS = Labels(("a", "b", "c"))
SPEC = ModelSpec(LABELS, 3)
REACH = 28  # pixels around one that a U-Net of two scales sees, rounded up


def full_image(height, width, seed=0, bands=3):
    return np.random.default_rng(seed).integers(0, 256, (bands, height, width), np.uint8)


def local(images):
    """Decide each pixel by its own value alone: tiles cannot matter."""
    weights = np.random.default_rng(5).normal(0, 0.02, (3, images.shape[1]))
    return np.einsum("kc,bchw->bkhw", weights, images.astype(np.float32)).astype(np.float32)


def softmax(logits):
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    model = UNet(3, 3, (4, 8), mean=(128,) * 3, std=(70,) * 3)
    with torch.no_grad():
        model.head.weight.normal_()
        model.train()(torch.from_numpy(np.stack([full_image(64, 64, seed) for seed in range(4)])))
    return model.eval()


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    tile=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    overlap=st.floats(0, 0.8),
    stride=st.sampled_from([1, 2, 4]),
    batch=st.integers(1, 5),
    flips=st.sampled_from([False, True, ("horizontal",)]),
)
def test_tiles_give_what_the_whole_image_gives(size, tile, overlap, stride, batch, flips):
    image = full_image(*size)
    predictor = predictor_of(
        local, LABELS, channels=3, stride=stride, tile=tile, overlap=overlap, batch_size=batch, flips=flips
    )
    found = predictor(image, probabilities=True)
    expected = softmax(local(image[None])[0])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert np.array_equal(found.mask, predictor(image).mask)
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    clear = first - second > 1e-4
    assert np.array_equal(found.mask[clear], expected.argmax(0)[clear])


@settings(max_examples=12, deadline=None)
@given(height=st.integers(140, 180), width=st.integers(140, 180), batch=st.integers(1, 4))
def test_a_unet_s_tiles_agree_with_the_whole_image_where_they_see_the_same(unet, height, width, batch):
    image, tile = full_image(height, width, seed=height), (128, 128)
    settings_ = {"channels": 3, "stride": unet.stride, "overlap": 0.8, "batch_size": batch}
    tiled = predictor_of(unet, LABELS, tile=tile, **settings_)(image, probabilities=True)
    whole = predictor_of(unet, LABELS, **settings_)(image, probabilities=True)
    same = np.ones((height, width), bool)
    count = np.zeros((height, width), int)
    for window in windows((height, width), tile, (round(0.8 * 128),) * 2, unet.stride):
        full = np.zeros((height, width), bool)
        full[
            tuple(
                slice(a + REACH * (a > 0), b - REACH * (b < s))
                for a, b, s in zip(window.start, window.stop, (height, width), strict=True)
            )
        ] = True
        same[window.slices] &= full[window.slices]
        count[window.slices] += 1
    assert (same & (count > 1)).any(), "no pixel lies in two tiles that both see all of its surroundings"
    np.testing.assert_allclose(tiled.probabilities[:, same], whole.probabilities[:, same], atol=1e-4)
    first, second = np.sort(whole.probabilities, axis=0)[[-1, -2]]
    clear = same & (first - second > 1e-3)
    assert np.array_equal(tiled.mask[clear], whole.mask[clear])


def test_without_aligned_starts_a_unet_s_tiles_disagree(unet):
    """Why tiles start at multiples of the stride."""
    image, settings_ = full_image(64, 250), {"channels": 3, "overlap": 0.5}
    whole = predictor_of(unet, LABELS, **settings_)(image, probabilities=True).probabilities
    off = softmax(TorchBackend(unet, SPEC)(image[None, :, :, 1:])[0])
    on = softmax(TorchBackend(unet, SPEC)(image[None, :, :, unet.stride :])[0])
    inside = slice(100, 200)
    assert np.abs(off[..., inside] - whole[..., 1:][..., inside]).max() > 1e-2
    assert np.abs(on[..., inside] - whole[..., unet.stride :][..., inside]).max() < 1e-4


@pytest.mark.parametrize("flips", [False, True])
def test_the_batch_size_changes_nothing(unet, flips):
    image = full_image(90, 131)
    found = [
        predictor_of(unet, LABELS, channels=3, stride=4, tile=(32, 32), flips=flips, batch_size=size)(
            image, probabilities=True
        )
        for size in (1, 3, 100)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.probabilities, found[0].probabilities, atol=1e-5)
        assert (other.mask != found[0].mask).mean() < 1e-3


def shapes_seen(**settings_):
    seen = []

    def backend(images):
        seen.append(images.shape)
        return local(images)

    return seen, predictor_of(backend, LABELS, channels=3, **settings_)


def test_a_image_that_fits_the_tile_is_taken_whole():
    seen, predictor = shapes_seen(tile=(32, 40), stride=16)
    predictor(full_image(32, 48))
    predictor(full_image(7, 5))
    assert seen == [(1, 3, 32, 48), (1, 3, 7, 5)]


def test_without_a_tile_every_image_is_taken_whole():
    seen, predictor = shapes_seen()
    predictor(full_image(301, 207))
    assert seen == [(1, 3, 301, 207)]


def test_tiles_are_rounded_up_to_the_stride_and_batches_hold_equal_shapes():
    seen, predictor = shapes_seen(tile=(10, 10), stride=4, overlap=0.0, batch_size=2)
    assert predictor.spec.tile == (12, 12)
    predictor(full_image(12, 42))
    assert seen == [(2, 3, 12, 12), (1, 3, 12, 12), (1, 3, 12, 10)]


@pytest.mark.parametrize("overlap", [0, 0.999, 1])
def test_any_share_of_overlap_ends(overlap):
    image = full_image(9, 9)
    predictor = predictor_of(local, LABELS, channels=3, tile=(4, 4), overlap=overlap)
    np.testing.assert_allclose(
        predictor(image, probabilities=True).probabilities, softmax(local(image[None])[0]), atol=1e-5
    )


@pytest.mark.parametrize("upright", [False, True])
def test_probabilities_are_averaged_and_not_logits(upright):
    answers = iter([(9.0, 0.0), (0.0, 1.0)])

    def backend(images):
        return np.broadcast_to(np.float32(next(answers)).reshape(1, 2, 1, 1), (1, 2, *images.shape[-2:])).copy()

    image = full_image(12, 8, bands=1) if upright else full_image(8, 12, bands=1)
    predictor = predictor_of(backend, Labels(("a", "b")), channels=1, tile=(8, 8), overlap=0.5)
    found = predictor(image, probabilities=True).probabilities
    if upright:
        found = found.transpose(0, 2, 1)
    weights = gaussian((8, 8))
    left, right = weights[:, 4:], weights[:, :4]
    first, second = softmax(np.array([9.0, 0.0])), softmax(np.array([0.0, 1.0]))
    for k in range(2):
        expected = (left * first[k] + right * second[k]) / (left + right)
        np.testing.assert_allclose(found[k, :, 4:8], expected, rtol=1e-5)
    np.testing.assert_allclose(found[0, :, :4], first[0], rtol=1e-5)
    np.testing.assert_allclose(found[0, :, 8:], second[0], rtol=1e-5)


@pytest.mark.parametrize("tile", [(1, 1), (1, 9), (16, 16), (512, 384)])
def test_weights_fall_from_the_centre_and_never_to_zero(tile):
    weights = gaussian(tile)
    assert weights.shape == tile
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert np.array_equal(weights, np.flip(weights, 0))
    assert np.array_equal(weights, np.flip(weights, 1))
    assert weights.argmax() in [(tile[0] - 1) // 2 * tile[1] + (tile[1] - 1) // 2]
    if min(tile) > 1:
        assert weights[0, 0] < 1e-2 * weights.max()


def result_of(window, value=0.0):
    """Return a tile of constant logits (value, 1)."""
    logits = np.stack([np.full(window.shape, value, np.float32), np.ones(window.shape, np.float32)])
    return Tile(window, TileResult(window.shape, [((), logits)]))


def test_only_rows_of_tiles_that_overlap_are_held():
    places = windows((1000, 30), (20, 20), (10, 10))
    asked = 0

    def tiles():
        nonlocal asked
        for window in places:
            asked += 1
            yield result_of(window)

    rows, columns = 0, sum(window.start[0] == 0 for window in places)
    for number, block in enumerate(blend(places, tiles(), (20, 20), 2, np.dtype(np.uint8)), start=1):
        assert asked == number * columns
        assert block.window.start[0] == rows
        assert len(block.mask) <= 20
        assert (block.mask == 1).all()
        rows += len(block.mask)
    assert rows == 1000


def test_rows_that_share_nothing_are_blended_too():
    places = [Window((0, 0), (2, 3)), Window((2, 0), (4, 3)), Window((4, 0), (5, 3))]
    tiles = [result_of(window, value) for window, value in zip(places, (0, 2, 0), strict=True)]
    blocks = list(blend(places, tiles, (2, 3), 2, np.dtype(np.uint8)))
    assert np.concatenate([block.mask for block in blocks])[:, 0].tolist() == [1, 1, 0, 0, 1]


def test_flips_are_the_mean_of_mirrored_answers(unet):
    image, backend = full_image(30, 41), TorchBackend(unet, SPEC)
    found = predictor_of(unet, LABELS, channels=3, flips=True)(image, probabilities=True).probabilities
    answers = []
    for axes in ((), (1,), (2,), (1, 2)):
        mirrored = np.flip(image, axes).copy()
        answers.append(np.flip(softmax(backend(mirrored[None])[0]), axes))
    np.testing.assert_allclose(found, np.mean(answers, axis=0), atol=1e-6)
    assert np.abs(found - answers[0]).max() > 1e-3


def test_axes_of_mirrored_copies():
    assert mirrored_axes(()) == ((),)
    assert mirrored_axes(("horizontal",)) == ((), (-1,))
    assert mirrored_axes(["vertical"]) == ((), (-2,))
    assert mirrored_axes(("horizontal", "vertical")) == ((), (-2,), (-1,), (-2, -1))
    assert len(mirrored_axes(("horizontal", "vertical", "depth"), dimensions=3)) == 8
    with pytest.raises(ConfigError, match=r"predict.flips: expected one or more of horizontal, vertical, found depth"):
        mirrored_axes(("depth",))


def test_the_prediction_lies_on_the_image_s_grid():
    grid = Grid((0.5, 0.25), "mm")
    found = predictor_of(local, LABELS, channels=3)(full_image(6, 5), grid, id="x.tif", probabilities=True)
    assert (found.grid, found.id, found.labels) == (grid, "x.tif", LABELS)
    assert found.mask.shape == (6, 5)
    assert found.mask.dtype == np.uint8
    assert found.probabilities.shape == (3, 6, 5)
    assert found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(0), 1, rtol=1e-5)
    assert predictor_of(local, LABELS, channels=3)(full_image(6, 5)).grid == Grid()
    assert predictor_of(local, LABELS, channels=3)(full_image(6, 5)).probabilities is None


@pytest.mark.parametrize("tile", [None, (4, 4)])
def test_many_classes_need_a_wider_mask(tile):
    labels = Labels(tuple(map(str, range(300))))

    def backend(images):
        logits = np.zeros((len(images), 300, *images.shape[-2:]), np.float32)
        logits[:, 299] = 1
        return logits

    mask = predictor_of(backend, labels, channels=3, tile=tile)(full_image(6, 7)).mask
    assert mask.dtype == np.uint16
    assert (mask == 299).all()


def test_of_equal_scores_the_first_class_wins():
    def backend(images):
        return np.zeros((len(images), 3, *images.shape[-2:]), np.float32)

    assert (predictor_of(backend, LABELS, channels=3)(full_image(50, 70)).mask == 0).all()


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i2", "i4", "f2", "f4", ">f4", "f8", "bool"])
def test_pixel_types_and_byte_orders(unet, dtype):
    image = (full_image(13, 17) // 128).astype(dtype)
    found = predictor_of(unet, LABELS, channels=3)(image, probabilities=True).probabilities
    expected = predictor_of(unet, LABELS, channels=3)(image.astype(np.float32), probabilities=True).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_views_and_read_only_images(unet):
    image = full_image(20, 30)
    image.setflags(write=False)
    view = image[:, ::-1, ::2]
    predictor = predictor_of(unet, LABELS, channels=3)
    assert np.array_equal(predictor(view).mask, predictor(view.copy()).mask)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            full_image(4, 4, bands=5),
            "x.tif: expected 3 bands, found 5. "
            "Use images of the kind that the model was trained on, or train a model on 5 bands.",
        ),
        (
            np.zeros((3, 0, 4)),
            "x.tif: expected an image (bands, height, width) with at least one pixel, found shape (3, 0, 4). "
            "Reorder the axes, or leave the image out.",
        ),
        (
            np.zeros((4, 4)),
            "x.tif: expected an image (bands, height, width) with at least one pixel, found shape (4, 4). "
            "Reorder the axes, or leave the image out.",
        ),
        (
            np.where(np.eye(4), np.nan, np.ones((3, 4, 4))),
            "x.tif: expected finite values, found NaN or infinity in 4 pixels. "
            "Replace these values, mark the pixels as nodata, or leave the image out.",
        ),
    ],
    ids=["bands", "empty", "axes", "nan"],
)
def test_images_it_cannot_predict_are_named(image, message):
    with pytest.raises(DataError) as caught:
        predictor_of(local, LABELS, channels=3)(image, id="x.tif")
    assert str(caught.value) == message


@pytest.mark.parametrize(("trained", "given"), [("uint8", np.uint16), ("uint16", np.uint8), ("int16", np.uint8)])
def test_images_of_another_depth_than_in_training_are_refused(trained, given):
    predictor = predictor_of(local, LABELS, channels=3, dtype=trained)
    with pytest.raises(DataError, match=rf"^a: expected \d+-bit values, as in training \({trained}\), found \d+-bit"):
        predictor(full_image(4, 4).astype(given), id="a")
    for fine in (trained, np.float32, np.int64):
        predictor(full_image(4, 4).astype(fine))


@pytest.mark.parametrize("tile", [None, (8, 8)])
@pytest.mark.parametrize("probabilities", [False, True])
def test_an_answer_that_is_not_finite_is_no_answer(tile, probabilities):
    """A nodata value of -1e308 is finite in its file, and infinite in float32: no class may be predicted from it."""

    def network(images):
        pixels = torch.from_numpy(images).float()
        return pixels - pixels  # infinity - infinity, as convolutions do; the three bands stand for three classes

    predictor = predictor_of(network, LABELS, channels=3, tile=tile)
    image = full_image(20, 20).astype(np.float64)
    image[0, 9, 9] = -1.797e308
    with pytest.raises(DataError, match=r"^scene.tif: expected values from which the model computes finite numbers"):
        predictor(image, id="scene.tif", probabilities=probabilities)


def test_tiles_as_small_as_the_stride_overlap_all_the_same():
    seen, predictor = shapes_seen(tile=(4, 4), stride=4, overlap=0.5)
    predictor(full_image(12, 12))
    assert seen == [(1, 3, 8, 8)] * 4


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(DataError) as caught:
        predictor_of(local, Labels(("a", "b")), channels=3)(full_image(4, 5))
    assert str(caught.value) == (
        "model: expected logits of shape (1, 2, 4, 5), found (1, 3, 4, 5). "
        "Use labels with as many classes as the model has."
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"tile": (0, 4)},
            "predict.tile: expected 2 positive sizes, found (0, 4). Correct the value.",
        ),
        ({"overlap": 1.5}, "predict.overlap: expected a share 0…1, found 1.5. Correct the value."),
        ({"batch_size": 0}, "predict.batch_size: expected at least 1, found 0. Correct the value."),
        (
            {"flips": ("diagonal",)},
            "predict.flips: expected one or more of horizontal, vertical, found diagonal. Correct the value.",
        ),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ConfigError) as caught:
        predictor_of(local, LABELS, channels=3, **wrong)
    assert str(caught.value) == message


def test_settings_replace_those_of_the_backend(unet):
    backend = TorchBackend(unet, ModelSpec(LABELS, 3, tile=(33, 40), overlap=0.5))
    predictor = Predictor(backend)
    assert (predictor.spec.tile, predictor.spec.overlap, predictor.spec.stride) == ((36, 40), 0.5, 4)
    assert Predictor(backend, tile=None, flips=True).spec.tile is None
    assert predictor(full_image(70, 50)).mask.shape == (70, 50)


def test_scoring_leaves_a_training_model_as_it_was():
    model = UNet(3, 3, (4,)).train()
    model.first[1].eval()  # frozen on purpose
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    strides = [parameter.stride() for parameter in model.parameters()]
    assert TorchBackend(model, SPEC)(full_image(16, 16)[None]).shape == (1, 3, 16, 16)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_modes_come_back_after_a_failure_too():
    model = UNet(3, 3, (4,)).train()
    with pytest.raises(DataError):
        TorchBackend(model, SPEC)(full_image(16, 16, bands=4)[None])
    assert model.training


@pytest.mark.parametrize(("precision", "channels_last"), list(itertools.product(["fp32", "bf16"], [False, True])))
def test_precision_and_layout_change_little(unet, precision, channels_last):
    images = full_image(24, 24)[None]
    logits = TorchBackend(unet, SPEC, "cpu", precision, channels_last)(images)
    assert logits.dtype == np.float32
    exact = unet(torch.from_numpy(images)).detach().numpy()
    close = 0.2 if precision == "bf16" else 1e-4
    assert np.abs(logits - exact).max() < close
    rounded = torch.from_numpy(logits.copy()).bfloat16().float().numpy()
    assert np.array_equal(logits, rounded) == (precision == "bf16")


def rough(images):
    """Draw logits that depend on the value of each pixel alone, some of them far apart."""
    values = torch.as_tensor(np.asarray(images, np.float32))[:, :1] / 255
    return torch.cat([values * 6 - 3, torch.sin(values * 9), 2 - values * 4], dim=1)


@pytest.mark.parametrize("size", [(16, 24), (60, 90)], ids=["whole", "tiled"])
def test_a_temperature_changes_probabilities_and_no_mask(size):
    """Divided logits for an image taken whole; for tiles, what is blended is made flatter in the same way."""
    image = np.random.default_rng(0).integers(0, 256, (1, *size)).astype(np.uint8)
    settings = {"channels": 1, "tile": (32, 32)}
    plain = predictor_of(rough, LABELS, **settings)(image, probabilities=True)
    tempered = predictor_of(rough, LABELS, **settings, temperature=2.5)(image, probabilities=True)
    np.testing.assert_array_equal(plain.mask, tempered.mask)
    expected = plain.probabilities ** (1 / 2.5)
    np.testing.assert_allclose(tempered.probabilities, expected / expected.sum(0), rtol=1e-4)
    assert tempered.probabilities.max() < plain.probabilities.max()


@pytest.mark.parametrize("size", [(16, 24), (60, 90)], ids=["whole", "tiled"])
def test_what_is_observed_is_the_probabilities_row_by_row(size):
    image = np.random.default_rng(0).integers(0, 256, (1, *size)).astype(np.uint8)
    predictor = predictor_of(rough, LABELS, channels=1, tile=(32, 32), temperature=1.5)
    whole, rows = predictor(image, probabilities=True), []

    def observe(top, band):
        assert top == sum(part.shape[1] for part in rows)
        rows.append(band)

    seen = predictor.observed(image, Grid(), None, "a", observe)
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), whole.probabilities)
    np.testing.assert_array_equal(seen.mask, whole.mask)
    np.testing.assert_array_equal(seen.mask, predictor(image).mask)


def test_equal_probabilities_of_different_logits_do_not_change_the_mask():
    """Softmax in float32 makes these two logits equal; the mask with and without probabilities must be the same."""

    def close(images):
        logits = torch.zeros(len(images), 3, *images.shape[-2:])
        logits[:, 1], logits[:, 2] = 20.0, 20.000002
        return logits

    predictor = predictor_of(close, LABELS, channels=1)
    image = np.zeros((1, 4, 4), np.uint8)
    with_ = predictor(image, probabilities=True)
    assert with_.probabilities[1, 0, 0] == pytest.approx(with_.probabilities[2, 0, 0], rel=1e-5)
    np.testing.assert_array_equal(with_.mask, predictor(image).mask)
    assert (with_.mask == 2).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_a_positive_number(temperature):
    with pytest.raises(ConfigError, match=r"predict.temperature: expected a positive number"):
        predictor_of(rough, LABELS, channels=1, temperature=temperature)
