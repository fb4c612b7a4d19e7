"""Pixels without data, pixel values of another scale, volumes and coarse logits."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from tests.inference.backends import predictor_of

from pixelwise.errors import DataError
from pixelwise.grid import Grid
from pixelwise.inference import decision
from pixelwise.inference.augmentation import mirrored_axes
from pixelwise.inference.decision import enlarge, softmax
from pixelwise.labels import Labels

LABELS = Labels(("a", "b", "c"))


def by_value(images):
    """Class c where the first band is above 100, b where it is above 50, else a."""
    values = np.asarray(images, np.float32)[:, :1]
    return np.concatenate([np.full_like(values, 60), values, 2 * values - 100], 1)


@pytest.mark.parametrize("tile", [None, (8, 8)])
def test_pixels_without_data_are_filled_and_get_the_ignore_index(tile):
    seen = []

    def watch(images):
        seen.append(images.copy())
        return by_value(images)

    image = np.full((1, 20, 16), 120, np.uint8)
    valid = np.ones((20, 16), bool)
    valid[3:6, 2:9] = False
    image[:, ~valid] = 255
    predictor = predictor_of(watch, LABELS, channels=1, tile=tile, fill=(37.4,))
    found = predictor(image, valid=valid)
    assert max(batch.max() for batch in seen) == 120
    assert {int(value) for batch in seen for value in np.unique(batch)} == {37, 120}
    assert seen[0].dtype == np.uint8
    assert (found.mask[~valid] == LABELS.ignore_index).all()
    assert (found.mask[valid] == 2).all()
    assert found.valid is valid
    assert image.max() == 255  # the caller's array is left alone


def test_nan_is_refused_only_where_there_is_data():
    image = np.full((1, 6, 6), 70, np.float32)
    image[0, 2, 2] = np.nan
    valid = np.ones((6, 6), bool)
    predictor = predictor_of(by_value, LABELS, channels=1, fill=(0.0,))
    with pytest.raises(DataError, match=r"expected finite values, found NaN or infinity in 1 pixel\."):
        predictor(image, valid=valid)
    valid[2, 2] = False
    assert predictor(image, valid=valid).mask[2, 2] == LABELS.ignore_index


def test_an_image_without_any_data_is_all_ignored():
    found = predictor_of(by_value, LABELS, channels=1)(np.full((1, 4, 4), np.nan), valid=np.zeros((4, 4), bool))
    assert (found.mask == LABELS.ignore_index).all()


def test_a_validity_mask_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"expected a validity mask of shape \(4, 5\), found \(5, 4\)"):
        predictor_of(by_value, LABELS, channels=1)(np.zeros((1, 4, 5), np.uint8), valid=np.ones((5, 4), bool))


@pytest.mark.parametrize(
    ("values", "trained", "typical", "refused"),
    [
        (np.linspace(0, 1, 16), "uint8", (0.0, 255.0), True),
        (np.linspace(0, 0.5, 16), "uint16", (3.0, 4000.0), True),
        (np.linspace(0, 1.01, 16), "uint8", (0.0, 255.0), False),
        (np.linspace(-0.1, 1, 16), "uint8", (0.0, 255.0), False),
        (np.linspace(0, 1, 16), "uint8", (0.0, 1.0), False),  # trained on masks of 0 and 1, say
        (np.linspace(0, 1, 16), "float32", (0.0, 200.0), False),
        (np.linspace(0, 1, 16), None, None, False),
        (np.linspace(0, 1, 16), "uint8", None, False),
        (np.zeros(16), "uint8", (0.0, 255.0), False),  # 0 is 0 on either scale
        ((np.arange(16) % 2).astype(np.uint8), "uint8", (0.0, 255.0), False),  # a dark image
    ],
)
def test_floats_between_0_and_1_are_refused_by_a_model_of_integers(values, trained, typical, refused):
    predictor = predictor_of(by_value, LABELS, channels=1, dtype=trained, typical_range=typical)
    image = values.reshape(1, 4, 4)
    if not refused:
        assert predictor(image).mask.shape == (4, 4)
        return
    with pytest.raises(DataError) as caught:
        predictor(image, id="a.tif")
    top = {"uint8": 255, "uint16": 65535}[trained]
    assert str(caught.value) == (
        f"a.tif: expected values as in training ({trained}, up to about {typical[1]:g}), found floats between 0 and 1. "
        f"Undo the scaling first, e.g. (image * {top}).round().astype('{trained}')."
    )


def test_only_valid_values_decide_whether_an_image_was_scaled():
    image = np.full((1, 4, 4), 0.5)
    image[0, 0, 0] = -9999
    valid = image[0] > -9999
    predictor = predictor_of(by_value, LABELS, channels=1, dtype="uint8", typical_range=(0, 250))
    with pytest.raises(DataError, match="found floats between 0 and 1"):
        predictor(image, valid=valid)


@pytest.mark.parametrize("tile", [None, (4, 8, 8)])
@pytest.mark.parametrize("flips", [False, True])
def test_volumes_are_predicted_like_images(tile, flips):
    volume = np.random.default_rng(0).integers(0, 150, (1, 9, 13, 17)).astype(np.int16)
    predictor = predictor_of(
        by_value,
        LABELS,
        channels=1,
        dimensions=3,
        tile=tile,
        overlap=0.5,
        flips=("depth", "vertical") if flips else False,
    )
    found = predictor(volume, probabilities=True)
    np.testing.assert_array_equal(found.mask, by_value(volume[None])[0].argmax(0))
    assert found.probabilities.shape == (3, 9, 13, 17)
    assert found.grid == Grid((1.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"expected an image \(bands, depth, height, width\)"):
        predictor(volume[:, 0])


@pytest.mark.parametrize("shape", [(30, 41), (8, 8), (1, 1)])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_coarse_logits_are_enlarged_before_the_decision(shape, tile):
    def quarter(images):
        padded = np.pad(images, [(0, 0), (0, 0), *((0, -size % 4) for size in images.shape[2:])], mode="edge")
        return by_value(padded[:, :, ::4, ::4])

    image = np.random.default_rng(2).integers(0, 150, (1, *shape)).astype(np.uint8)
    found = predictor_of(quarter, LABELS, channels=1, logit_scale=4, stride=4, tile=tile)(image)
    assert found.mask.shape == shape
    if tile is None or max(shape) <= 16:
        expected = enlarge(quarter(image[None])[0], 4, shape).argmax(0)
        np.testing.assert_array_equal(found.mask, expected)


def fifths(extra):
    """Return a function that computes logits of every fifth pixel, and of `extra` rows and columns beyond the image."""

    def compute(images):
        ends = ((0, 0), (0, 0), *((0, -size % 5 + 5 * extra) for size in images.shape[2:]))
        return by_value(np.pad(images, ends, mode="edge")[:, :, ::5, ::5])

    return compute


@pytest.mark.parametrize("flips", [False, ("vertical",), ("horizontal", "vertical")])
@pytest.mark.parametrize("height", [63, 64])
@pytest.mark.parametrize("extra", [0, 2])
def test_bands_of_an_image_are_those_of_the_whole(monkeypatch, flips, height, extra):
    """Mirrored copies are enlarged in bands, too: the last rows of a copy are the first ones of the image."""
    image = np.random.default_rng(3).integers(0, 150, (1, height, 31)).astype(np.uint8)
    mirrored = mirrored_axes(flips or ())
    answers = []
    for axes in mirrored:
        logits = fifths(extra)(np.flip(image, axes)[None])[0]
        answers.append(np.flip(softmax(enlarge(logits, 5, image.shape[1:]), 0), axes))
    expected = np.mean(answers, axis=0) ** (1 / 1.5)
    monkeypatch.setattr(decision, "_BAND", 10 * 31 * 3)
    settings = {"channels": 1, "logit_scale": 5, "stride": 5, "flips": flips, "temperature": 1.5}
    predictor = predictor_of(fifths(extra), LABELS, **settings)
    heights = []
    seen = predictor.observed(image, Grid(), None, "", lambda top, band: heights.append((top, band.shape[1])))
    assert heights == [(top, min(10, height - top)) for top in range(0, height, 10)]
    found = predictor(image, probabilities=True)
    np.testing.assert_allclose(found.probabilities, expected / expected.sum(0), atol=1e-5)
    np.testing.assert_array_equal(found.mask, seen.mask)
    np.testing.assert_array_equal(found.mask, predictor(image).mask)
    assert (found.mask == found.probabilities.argmax(0)).mean() > 0.999


def test_too_few_coarse_logits_are_refused():
    predictor = predictor_of(
        lambda images: by_value(images)[:, :, ::4, ::4][:, :, 1:], LABELS, channels=1, logit_scale=4
    )
    with pytest.raises(DataError) as caught:
        predictor(np.zeros((1, 18, 16), np.uint8))
    assert str(caught.value) == (
        "model: expected logits of shape (1, 3, 5, 4), or more rows and columns, found (1, 3, 4, 4). "
        "Use labels with as many classes as the model has."
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("observed", [False, True])
def test_coarse_logits_that_are_not_finite_are_found(value, observed):
    def compute(images):
        logits = by_value(images)[:, :, ::4, ::4]
        logits[0, 1, 2, 3] = value
        return logits

    predictor = predictor_of(compute, LABELS, channels=1, logit_scale=4)
    with pytest.raises(DataError, match=r"^a.tif: expected values from which the model computes finite numbers"):
        predictor(np.zeros((1, 20, 20), np.uint8), id="a.tif", probabilities=observed)


def test_predicting_many_classes_needs_no_array_of_all_classes_and_pixels():
    """Neither the mask nor calibrated probabilities in bands, as used for confidence and intervals."""
    logits = np.random.default_rng(0).normal(size=(1, 150, 256, 64)).astype(np.float32)
    labels = Labels(tuple(map(str, range(150))))
    predictor = predictor_of(lambda _: logits, labels, channels=1, logit_scale=4, temperature=2.0)
    image = np.zeros((1, 1024, 256), np.uint8)
    tracemalloc.start()
    mask = predictor(image).mask
    alone = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    seen = predictor.observed(image, None, None, "", lambda top, band: None).mask
    observed = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(seen, mask)
    whole = 150 * 1024 * 256 * 4
    assert alone < whole / 4
    assert observed < whole / 4


def test_predicting_with_a_numpy_backend_needs_no_torch():
    code = (
        "import sys, numpy as np\n"
        "from pixelwise.inference.predictor import Predictor\n"
        "from pixelwise.labels import Labels\n"
        "from pixelwise.types import ModelSpec\n"
        "class Backend:\n"
        "    spec = ModelSpec(Labels(('a', 'b')), 1, tile=(8, 8), flips=True, temperature=2.0)\n"
        "    def __call__(self, images):\n"
        "        return np.concatenate([images, 255 - images], 1).astype(np.float32)\n"
        "found = Predictor(Backend())(np.zeros((1, 20, 30), np.uint8), probabilities=True)\n"
        "assert (found.mask == 1).all()\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
