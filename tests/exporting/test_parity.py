"""The comparison of engines, with engines that differ in a known way; counted again by hand."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.contracts.test_models import FIXED, MODELS, MORE, settled
from tests.exporting.drawn import draw

from pixelwise.api.exporting import _resolution
from pixelwise.errors import DataError, ParityError
from pixelwise.exporting import parity
from pixelwise.exporting.deepness import deepness_metadata
from pixelwise.exporting.files import Settings, write_model
from pixelwise.exporting.images import DrawnImages
from pixelwise.exporting.parity import Candidate, candidates, compare, differences, reference, require_agreement
from pixelwise.exporting.texts import licences
from pixelwise.inference.conversion import _ResizedByMatrices
from pixelwise.labels import Labels
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import CHECKPOINTS, ENTRIES
from pixelwise.types import ModelSpec

SPEC = ModelSpec(Labels(("a", "b", "c")), 3)


class Reference:
    """Logits are the bands."""

    spec = SPEC

    def __call__(self, images):
        return images.astype(np.float32)


class Shifted(Reference):
    """The first logit is larger."""

    def __init__(self, amount):
        self.amount = amount

    def __call__(self, images):
        logits = images.astype(np.float32)
        logits[:, 0] += self.amount
        return logits


class Given:
    """Images with ground truth."""

    source = "given"

    def __init__(self, *shapes):
        self.images = [draw((3, *shape), seed=k) for k, shape in enumerate(shapes)]
        self.truths = [np.random.default_rng(k).integers(0, 4, shape) for k, shape in enumerate(shapes)]
        for truth in self.truths:
            truth[truth == 3] = SPEC.labels.ignore_index

    def __len__(self):
        return len(self.images)

    def read(self, index):
        return self.images[index], self.truths[index].astype(np.uint8)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(parity, "_PAUSE", 0)


def miou(pairs):
    """Compute the mIoU of (truth, prediction) by hand."""
    scores = []
    for k in range(3):
        both = sum(((t == k) & (p == k)).sum() for t, p in pairs)
        either = sum((((t == k) | (p == k)) & (t != SPEC.labels.ignore_index)).sum() for t, p in pairs)
        scores += [both / either] if either else []
    return np.mean(scores)


@pytest.mark.parametrize("amount", [0, 3, 40, 300])
def test_differences_are_counted_over_whole_images_and_crops(amount, monkeypatch):
    seen = []

    class Seen(Shifted):
        def __call__(self, images):
            seen.append(images.copy())
            return super().__call__(images)

    monkeypatch.setattr(parity, "_times", lambda backends, batch: [2.0, 0.5])
    images = Given((40, 30), (1, 1), (17, 60), (8, 8), (20, 20))
    [found] = compare(Reference(), [Candidate("e", "fp32", Seen(amount))], images, "fp32")
    pairs = [(b.argmax(1), (b.astype(np.float32) + np.float32([amount, 0, 0])[:, None, None]).argmax(1)) for b in seen]
    pixels = sum(mask.size for mask, _ in pairs)
    assert found.different_pixels == pytest.approx(sum((a != b).sum() for a, b in pairs) / pixels)
    assert found.mask_miou == pytest.approx(miou(pairs))
    whole = [pair for batch, pair in zip(seen, pairs, strict=True) if len(batch) == 1]
    assert len(whole) == len(images)
    truths = [images.read(k)[1][None] for k in range(len(images))]
    assert found.reference_miou == pytest.approx(miou([(t, a) for t, (a, _) in zip(truths, whole, strict=True)]))
    assert found.miou == pytest.approx(miou([(t, b) for t, (_, b) in zip(truths, whole, strict=True)]))
    assert found.largest_logit_difference == amount
    assert found.within_tolerance is (amount == 0)
    plain = found.to_dict()
    assert plain["speed_ratio"] == 4
    assert plain["miou_difference"] == found.miou - found.reference_miou
    # Three odd sizes in batches of three, of each of the first four images.
    crops = [batch.shape for batch in seen if len(batch) == 3]
    assert len(crops) == 12
    assert all(height % 2 and width % 2 for *_, height, width in crops)
    assert len(set(crops[:3])) == 3


def agreement(**values):
    base = parity.Agreement("e", "fp32", True, 0.1, 9.0, 0.0, 1.0, 0.8, 0.8, 1.0, 2.0)
    return replace(base, **values)


@pytest.mark.parametrize(
    ("precision", "values", "good"),
    [
        ("fp32", {"different_pixels": 0.0001}, True),
        ("fp32", {"different_pixels": 0.00011}, False),
        ("fp16", {"different_pixels": 0.001, "mask_miou": 0.995}, True),
        ("fp16", {"different_pixels": 0.0011}, False),
        ("bf16", {"mask_miou": 0.9949}, False),
        ("int8", {"different_pixels": 0.1, "mask_miou": 0.8, "miou": 0.7901}, True),
        ("int8", {"miou": 0.7899}, False),
        ("int8", {"miou": 0.9}, True),
    ],
)
def test_tolerances(precision, values, good, tmp_path):
    found = agreement(**values)
    assert (not differences(found, precision)) is good
    require_agreement([replace(found, required=False)], precision, tmp_path)
    if good:
        require_agreement([found], precision, tmp_path)
        return
    with pytest.raises(ParityError, match=rf"masks of the {precision} export in e .* Nothing was written"):
        require_agreement([agreement(), found], precision, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_fail(value):
    with pytest.raises(ParityError, match="e in fp16: expected finite logits"):
        compare(Reference(), [Candidate("e", "fp16", Shifted(value))], Given((8, 8)), "fp16")


def test_engines_that_fail_for_a_size_are_named():
    class OneSize(Reference):
        def __call__(self, images):
            if images.shape[2:] != (40, 30):
                raise RuntimeError("bad\n reshape")
            return super().__call__(images)

    with pytest.raises(ParityError, match=r"e in fp32: expected logits for images of any size, found .*bad reshape"):
        compare(Reference(), [Candidate("e", "fp32", OneSize())], Given((40, 30)), "fp32")

    class Strict(Reference):
        def __call__(self, images):
            raise DataError("images", expected="this", found="that", do="Fix it.")

    with pytest.raises(DataError, match="expected this"):
        compare(Reference(), [Candidate("e", "fp32", Strict())], Given((8, 8)), "fp32")


# Networks of the catalogue

FAST = ("unet",)
CASES = [
    pytest.param(
        str(case),
        marks=() if case[0] in FAST and case == next(c for c in MODELS if c[0] == case[0]) else pytest.mark.slow,
    )
    for case in (*MODELS, *MORE)
]


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
@pytest.mark.parametrize("case", CASES)
def test_networks_are_exported_or_refused(case, format, tmp_path):
    name = next(name for name, _ in (*MODELS, *MORE) if str((name, _)) == case)
    model, spec = settled(case), ModelSpec(Labels(tuple("abcde")), 3)
    card = ModelCard({"name": name, "arguments": {}}, spec, mean=(0.0,) * 3, std=(1.0,) * 3)
    settings = Settings(format)
    path = tmp_path / f"model{settings.suffix}"
    write_model(path, model, card, settings)
    engines = [candidate for candidate in candidates(path, settings) if candidate.required]
    if any(kind in case for kind in FIXED):
        with pytest.raises(ParityError, match="expected logits for images of any size"):
            compare(reference(model, spec), engines, DrawnImages(spec), "fp32")
        return
    for found in compare(reference(model, spec), engines, DrawnImages(spec), "fp32"):
        assert found.within_tolerance, found


def test_the_catalogue_names_the_networks_that_are_refused():
    refused = {entry.name: entry.no_export for entry in (*ENTRIES, *CHECKPOINTS) if entry.no_export}
    assert set(refused) == {"microsoft/beit-base-finetuned-ade-640-640", "apple/deeplabv3-mobilevit-small"}
    assert {kind.strip("'") for kind in FIXED} == {"beit", "mobilevit"}
    assert all("only one size" in why for why in refused.values())


@pytest.mark.parametrize("size", [(2, 3), (6, 6), (1, 25), (40, 7)])
@pytest.mark.parametrize("sides", [(5, 14), (33, 7), (14, 14), (64, 97)])
def test_pooling_and_resizing_by_matrices_are_those_of_torch(size, sides):
    import torch.nn.functional as F

    images = torch.from_numpy(draw((2, 3, *sides), "float32"))
    for resize in (
        lambda: F.adaptive_avg_pool2d(images, size),
        lambda: torch.nn.AdaptiveAvgPool2d(size)(images),
        lambda: F.interpolate(images, size=size, mode="area"),
        lambda: F.interpolate(images, size, mode="bicubic", antialias=True),
    ):
        plain = resize()
        with _ResizedByMatrices():
            torch.testing.assert_close(resize(), plain, rtol=0, atol=2e-6)


class Pooled(SegmentationModel):
    """Pool to several bins, and resize with antialiasing, like networks of other libraries."""

    def __init__(self):
        super().__init__(3, 3, stride=1)
        self.pool = torch.nn.AdaptiveAvgPool2d((6, 3))
        self.head = torch.nn.Conv2d(3, 3, 1)

    def forward(self, images):
        from torch.nn.functional import interpolate

        x = self.pool(self.normalise(images))
        area = interpolate(self.normalise(images), size=(2, 2), mode="area").mean((2, 3), keepdim=True)
        return interpolate(self.head(x + area), images.shape[-2:], mode="bicubic", antialias=True)


def test_pooling_and_resizing_are_exported_for_any_size(tmp_path):
    torch.manual_seed(0)
    model = Pooled().eval()
    card = ModelCard({"name": "unet", "arguments": {}}, SPEC, mean=(0.0,) * 3, std=(1.0,) * 3)
    write_model(tmp_path / "model.onnx", model, card, Settings("onnx"))
    engines = [each for each in candidates(tmp_path / "model.onnx", Settings("onnx")) if each.required]
    assert len(engines) == 2
    for found in compare(reference(model, SPEC), engines, Given((24, 40), (250, 190)), "fp32"):
        assert found.largest_logit_difference < 1e-5 * found.largest_logit


# QGIS Deepness


def test_deepness_passes_raw_values_on():
    spec = replace(SPEC, channels=4, tile=(500, 400), overlap=0.25, stride=16, labels=Labels(("soil", "eau", 'a"b')))
    plain = {name: json.loads(text) for name, text in deepness_metadata(spec, 25.0).items()}
    assert plain["model_type"] == "Segmentor"
    assert plain["class_names"] == {"0": "soil", "1": "eau", "2": 'a"b'}
    assert plain["resolution"] == 25
    assert plain["tile_size"] == plain["tiles_size"] == 512
    assert plain["tiles_overlap"] == 25
    # As its preprocessing is documented: divided by 255, then standardised.
    pixels = np.arange(256, dtype=np.uint8)[:, None].repeat(4, 1)
    mean, std = (np.float32(plain[f"standardization_{name}"]) for name in ("mean", "std"))
    np.testing.assert_allclose((np.float32(pixels / 255) - mean) / std, pixels, rtol=1e-6)
    assert "resolution" not in deepness_metadata(spec)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"spacing": [0.25, 0.25], "spacing_unit": "m"}, 25.0),
        ({"spacing": [2.0, 2.0], "spacing_unit": "mm"}, 0.2),
        ({"spacing": [1.0, 1.0], "spacing_unit": "px"}, None),
        ({"spacing": [1.0, 2.0], "spacing_unit": "m"}, None),
        ({"spacing": [1.0, 1.0], "spacing_unit": "m", "spacings_differ": True}, None),
        ({}, None),
    ],
)
def test_the_resolution_is_that_of_the_training_images(facts, expected, tmp_path):
    (tmp_path / "data.json").write_text(json.dumps({"fingerprint": facts}))
    assert _resolution(tmp_path) == (None if expected is None else pytest.approx(expected))


# Texts


def test_licences_name_weights_and_code():
    trained = {"weights": "imagenet", "weights_license": "CC-BY-NC-4.0", "weights_origin": "Someone, 2020"}
    card = ModelCard({"name": "deeplabv3-resnet50", "arguments": {}}, SPEC, license="CC-BY-NC-4.0", trained=trained)
    text = licences(card)
    assert "Weights: CC-BY-NC-4.0.\n" in text
    assert "weights imagenet: Someone, 2020; licence: CC-BY-NC-4.0." in text
    assert "torchvision, BSD-3-Clause" in text
    own = licences(replace(card, architecture={"name": "unet/resnet18"}, license="user", trained=None))
    assert "chosen by the person who trained the model" in own
    assert "segmentation_models.pytorch, MIT" in own


def test_the_machine_is_named_without_proc(monkeypatch):
    monkeypatch.setattr(parity, "Path", lambda name: SimpleNamespace(is_file=lambda: False))
    assert parity.machine()["processor"]
