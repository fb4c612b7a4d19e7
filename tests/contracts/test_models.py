"""The contract of every model. A new model is one line in MODELS."""

import copy
import functools

import numpy as np
import pytest
import torch

from pixelwise.config import Config, draft, replace
from pixelwise.errors import ConfigError, DataError
from pixelwise.labels import Labels
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import available, build_model
from pixelwise.models.folding import fold_norms
from pixelwise.models.weights import load_model, save_model
from pixelwise.training.finetune import Frozen
from pixelwise.types import ModelSpec

# Like config.json of a checkpoint, but small.
TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
BEIT = {"model_type": "beit", **TRANSFORMER, "image_size": 64, "out_indices": [1, 2, 3, 4]}
BEIT |= {"use_relative_position_bias": True, "auxiliary_channels": 16}
DPT = {"model_type": "dpt", **TRANSFORMER, "image_size": 64, "backbone_out_indices": [0, 1, 2, 3]}
DPT |= {"neck_hidden_sizes": [16, 16, 16, 16], "fusion_hidden_size": 16}
CONVNEXT = {"model_type": "convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
CONVNEXT |= {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
UPERNET = {"model_type": "upernet", "hidden_size": 32, "auxiliary_in_channels": 24, "auxiliary_channels": 16}
UPERNET |= {"backbone_config": CONVNEXT}
MODELS = [
    ("unet", {"features": (4, 8)}),
    ("unet", {"features": (4, 8), "up": "bilinear"}),
    ("unet", {"features": (4, 8), "stem": 2}),
    ("unet", {"features": (4, 8), "stem": 4, "up": "bilinear"}),
    ("fpn", {"encoder": "mobilenetv3_small_050", "width": 8}),
    ("fpn", {"encoder": "tf_mobilenetv3_small_minimal_100", "width": 8, "fine": True, "norms": "folded"}),
    ("deeplabv3-mobilenetv3", {}),
    ("lraspp-mobilenetv3", {}),
    ("segformer-b0", {}),
    ("unet/resnet18", {}),
    ("transformers", {"config": UPERNET}),
]
# One of every other kind; many, and therefore slow.
MORE = [
    ("fpn", {}),
    ("fpn", {"encoder": "resnet18", "norms": "folded"}),
    ("fpn", {"encoder": "vit_tiny_patch16_224", "width": 8}),
    ("fpn", {"encoder": "swin_tiny_patch4_window7_224", "width": 8}),
    ("fcn-resnet50", {}),
    ("deeplabv3plus/mobilenet_v2", {}),
    ("pspnet/resnet18", {}),
    ("pan/resnet18", {}),
    ("upernet/resnet18", {}),
    ("segformer/tu-pvt_v2_b0", {}),
    ("segformer/mit_b0", {}),
    ("dpt/tu-vit_tiny_patch16_224", {}),
    ("transformers", {"config": BEIT}),
    ("transformers", {"config": DPT}),
    ("transformers", {"config": {"model_type": "mobilevit"}}),
    ("transformers", {"config": {"model_type": "mobilenet_v2"}}),
]
ALL = [*MODELS, *(pytest.param(case, marks=pytest.mark.slow, id=str(case)) for case in MORE)]
# Models with a global receptive field: by pooling, attention or depth.
GLOBAL = ("fcn", "fpn", "unet/", "deeplabv3", "lraspp", "segformer", "pspnet", "pan", "upernet", "dpt", "transformers")
# Layers that their libraries define but do not use.
UNUSED = {
    "pspnet": ("layer3", "layer4"),
    "dpt/tu-vit": ("encoder.model.norm", "encoder.model.head"),
    "'beit'": ("encoder.layer.3", "layers.3"),
    "'dpt'": ("dpt.layernorm", "fusion_stage.layers.0.residual_layer1"),
    "'mobilenet_v2'": ("conv_1x1",),
}
MEAN, STD = (100.0, 90.0, 80.0), (50.0, 40.0, 60.0)
SIZES = [(1, 1), (1, 40), (5, 7), (16, 16), (33, 18)]


@pytest.fixture(params=ALL, ids=str)
def model(request):
    return copy.deepcopy(settled(str(request.param)))


@functools.cache
def settled(case):
    torch.manual_seed(0)
    name, arguments = next(one for one in (*MODELS, *MORE) if str(one) == case)
    model = build_model(name, in_channels=3, num_classes=5, mean=MEAN, std=STD, **arguments)
    _settle(model)
    return model.eval()


def _settle(model):
    """Randomise batch norm statistics and head, so that outputs are not trivial."""
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.1 if parameter.ndim == 1 else 0.1 * parameter.abs().mean()
            parameter.add_(spread * torch.randn_like(parameter))
        norms = {m: m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
        for norm in norms:
            norm.momentum = 1.0
        model.train()
        model(images(4, 64, 64))
        for norm, momentum in norms.items():
            norm.momentum = momentum


def images(count=1, height=40, width=36, seed=1):
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed)).byte()


def test_every_family_of_the_catalogue_is_tested():
    covered = {name.rstrip("0123456789") for name, _ in (*MODELS, *MORE)}
    assert covered >= {"unet", "segformer-b", "fcn-resnet", "deeplabv3-mobilenetv", "lraspp-mobilenetv"}
    assert all(name in available() for name, _ in (*MODELS, *MORE) if "/" not in name and name != "transformers")


def test_attributes(model):
    assert isinstance(model, SegmentationModel)
    assert (model.in_channels, model.num_classes) == (3, 5)
    assert model.stride >= 1
    assert model.normalise.mean.tolist() == list(MEAN)
    assert model.normalise.std.tolist() == list(STD)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_output_has_the_size_of_the_input(model, size):
    with torch.inference_mode():
        logits = model(images(2, *size))
    assert logits.shape == (2, 5, *size)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.int32, torch.float16, torch.float32, torch.float64])
def test_the_type_of_the_pixels_does_not_matter(model, dtype):
    with torch.inference_mode():
        torch.testing.assert_close(model(images().to(dtype)), model(images()))


def test_normalisation_is_part_of_the_model(model):
    raw = copy.deepcopy(model)
    raw.normalise.mean.zero_()
    raw.normalise.std.fill_(1)
    with torch.inference_mode():
        normalised = (images() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(raw(normalised), model(images()))
        assert not torch.allclose(raw(images()), model(images()))


def test_clipping_is_part_of_the_model_and_its_weights(model, request, tmp_path):
    name, arguments = request.node.callspec.params["model"]
    ranges = [[20.0, 200.0], [0.0, 128.0], [60.5, 61.5]]
    plain = {**arguments, "in_channels": 3, "num_classes": 5, "mean": list(MEAN), "std": list(STD), "clip": ranges}
    clipping = build_model(name, **plain).eval()
    clipping.load_state_dict(model.state_dict(), strict=False)
    low, high = torch.tensor(ranges).view(3, 2, 1, 1).unbind(1)
    assert clipping.normalise.clip == tuple(map(tuple, ranges))
    assert model.normalise.clip is None
    save_model(
        tmp_path / "model",
        clipping,
        ModelCard({"name": name, "arguments": plain}, ModelSpec(Labels(tuple("abcde")), 3)),
    )
    loaded, card = load_model(tmp_path / "model")
    assert card.clip == loaded.normalise.clip == clipping.normalise.clip
    with torch.inference_mode():
        torch.testing.assert_close(clipping(images()), model(images().float().clamp(low, high)))
        assert not torch.allclose(clipping(images()), model(images()))
        assert torch.equal(loaded(images()), clipping(images()))


@pytest.mark.parametrize("case", [case for case in MODELS if case[0] == "unet"], ids=str)
def test_clipping_is_exported(case):
    name, arguments = case
    model = build_model(name, in_channels=3, num_classes=5, clip=[[20, 200]] * 3, **arguments).eval()
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (images(2, 37, 50),), dynamic_shapes=({0: free, 2: free, 3: free},))
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images(1, 91, 23)), model(images(1, 91, 23)))


def test_images_of_a_batch_are_independent(model):
    batch = images(3)
    with torch.inference_mode():
        torch.testing.assert_close(model(batch)[1:2], model(batch[1:2]), rtol=1e-4, atol=1e-4)


def test_the_model_has_no_side_effects(model):
    batch = images()
    before = batch.clone()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        assert torch.equal(model(batch), model(batch))
    assert torch.equal(batch, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_memory_layout_does_not_matter(model):
    with torch.inference_mode():
        plain = model(images())
        last = images().contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(model(last), plain, rtol=1e-4, atol=1e-4)
        twin = model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(twin(last), plain, rtol=1e-4, atol=1e-4)


def test_the_model_is_equivariant_to_shifts_by_the_stride(model, request):
    if request.node.callspec.params["model"][0].startswith(GLOBAL):
        pytest.skip("this network looks at the whole image")
    image, far = images(1, 32, 320), 128
    with torch.inference_mode():
        whole, moved = model(image), model(image[..., model.stride :])
    inside = whole[..., model.stride :][..., far:]
    torch.testing.assert_close(moved[..., far:], inside, rtol=1e-4, atol=1e-4)


def test_a_batch_of_one_trains_from_twice_the_stride_on(model, request):
    model.train()
    side = 2 * model.stride
    truth = torch.arange(side * side).view(1, side, side) % 5
    outputs = model.outputs(images(1, side, side))
    sum(torch.nn.functional.cross_entropy(logits, truth) for logits in (outputs.logits, *outputs.auxiliary)).backward()
    unused = next((parts for kind, parts in UNUSED.items() if kind in str(request.node.callspec.params["model"])), ())
    gradients = {n: p.grad for n, p in model.named_parameters() if not any(part in n for part in unused)}
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
    # After pooling of a single image a norm has no gradient.
    silent = [n for n, g in gradients.items() if n.endswith("weight") and not g.abs().sum() > 0]
    assert len(silent) <= 0.05 * len(gradients), silent


def test_outputs_are_logits_of_the_same_shape(model):
    assert model.train()(images(2, 33, 47)).shape == (2, 5, 33, 47)


def test_the_old_name_of_outputs_warns(model):
    with pytest.warns(DeprecationWarning, match="training_outputs is now called outputs"):
        logits = model.eval().training_outputs(images(1, 32, 32)).logits
    torch.testing.assert_close(logits, model.outputs(images(1, 32, 32)).logits)


def test_auxiliary_logits_exist_in_training_mode_only(model):
    for mode in (True, False):
        outputs = model.train(mode).outputs(images(2, 33, 47))
        assert outputs.logits.shape == (2, 5, 33, 47)
        assert all(logits.shape == (2, 5, 33, 47) for logits in outputs.auxiliary)
        assert mode or not outputs.auxiliary


NOT_SEPARABLE = ("dpt/", "'beit'", "'dpt'", "'mobilevit'", "'mobilenet_v2'", "'upernet'")


def test_the_encoder_and_the_decoder_make_the_model(model, request):
    case = str(request.node.callspec.params["model"])
    assert model.separable is not any(kind in case for kind in NOT_SEPARABLE)
    if not model.separable:
        with pytest.raises(NotImplementedError, match="does not compute its encoder separately"):
            model.encode(images())
        return
    for mode in (False, True):
        batch = images(2, 70, 53)
        twin = copy.deepcopy(model)
        with torch.no_grad():
            torch.manual_seed(1)
            whole = model.train(mode).outputs(batch)
            torch.manual_seed(1)
            apart = twin.train(mode).decode(twin.encode(batch), (70, 53))
        for one, other in zip((whole.logits, *whole.auxiliary), (apart.logits, *apart.auxiliary), strict=True):
            assert torch.equal(one, other)
        assert apart.logits.shape == (2, 5, 70, 53)
    # Stored features are not outdated by a step that changes only the decoder.
    prefixes = tuple(prefix for layer in model.encoder_stages() for prefix in layer)
    decoder = [p for name, p in model.named_parameters() if not name.startswith(prefixes)]
    features = model.eval().encode(images(1, 64, 64))
    gradients = torch.autograd.grad(sum(f.sum() for f in features), decoder, allow_unused=True)
    assert decoder
    assert all(gradient is None for gradient in gradients)


def test_encoder_stages_cover_the_encoder_once(model):
    names = [name for name, _ in model.named_parameters()]
    layers = model.encoder_stages()
    assert len(layers) >= 2
    owners = [[k for k, prefixes in enumerate(layers) if name.startswith(prefixes)] for name in names]
    assert all(len(found) <= 1 for found in owners)
    assert all(any(k in found for found in owners) for k in range(len(layers)))
    first = [found[0] for found in owners if found]
    assert first[0] == 0
    assert any(not found for found in owners)
    head = {id(p) for p in model.head.parameters()}
    assert head
    assert all(not found for name, found in zip(names, owners, strict=True) if id(model.get_parameter(name)) in head)


def test_weights_are_saved_bit_for_bit(model, request, tmp_path):
    name, arguments = request.node.callspec.params["model"]
    labels = Labels(tuple("abcde"))
    plain = {**arguments, "in_channels": 3, "num_classes": 5}
    save_model(tmp_path / "model", model, ModelCard({"name": name, "arguments": plain}, ModelSpec(labels, 3)))
    loaded, _ = load_model(tmp_path / "model")
    with torch.inference_mode():
        assert torch.equal(loaded(images()), model(images()))


# Pixels per coarse logit, of the networks that leave the enlargement to pixelwise.
LOGIT_SCALES = {
    "('segformer-b": 4,
    "fcn-resnet50": 8,
    "deeplabv3-mobilenetv3": 16,
    "lraspp-mobilenetv3": 8,
    "'beit'": 4,
    "'mobilevit'": 32,
    "'mobilenet_v2'": 32,
}


def test_coarse_logits_enlarged_are_the_logits(model, request):
    case = str(request.node.callspec.params["model"])
    expected = next((scale for kind, scale in LOGIT_SCALES.items() if kind in case), 1)
    state = {name: tensor.clone() for name, tensor in model.train().state_dict().items()}
    generator = torch.get_rng_state()
    assert model.logit_scale == expected
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    model.eval()
    for height, width in SIZES:
        with torch.inference_mode():
            coarse, full = model.coarse(images(2, height, width)), model(images(2, height, width))
        assert coarse.dtype == torch.float32
        assert coarse.shape[2] >= -(-height // expected)
        assert coarse.shape[3] >= -(-width // expected)
        if expected > 1:
            coarse = torch.nn.functional.interpolate(
                coarse, scale_factor=expected, mode="bilinear", align_corners=False
            )
        assert torch.equal(coarse[..., :height, :width], full)


def test_norms_can_be_folded_into_convolutions(model):
    folded = fold_norms(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    called = []
    for module in folded.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: called.append(1))
    with torch.inference_mode():
        logits = model(images(2, 70, 53))
        torch.testing.assert_close(
            folded(images(2, 70, 53)), logits, rtol=0, atol=1e-4 * float(logits.max() - logits.min())
        )
    assert not called
    assert folded is not model
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class Coarse(torch.nn.Module):
    """Exports `coarse` in place of `forward`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.coarse(images)


# Tracing takes half a minute with attention.
EXPORTS = [
    pytest.param(case, marks=() if "unet" in case[0] else pytest.mark.slow, id=str(case)) for case in (*MODELS, *MORE)
]
# Their libraries convert a size to a Python number.
FIXED = ("'beit'", "'mobilevit'")
# A guard of its program demands one size, though the program computes any; saved programs have no guards.
GUARDED = ("'mobilenet_v2'",)


@pytest.mark.parametrize("model", EXPORTS, indirect=True)
def test_export_with_dynamic_batch_height_and_width(model, request):
    if any(kind in str(request.node.callspec.params["model"]) for kind in (*FIXED, *GUARDED)):
        pytest.skip("this network exports with a fixed size only")
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (images(2, 37, 50),), dynamic_shapes=({0: free, 2: free, 3: free},))
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images(1, 91, 23)), model(images(1, 91, 23)))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, indirect=True, ids=str)
def test_export_of_coarse_logits(model):
    free = torch.export.Dim.DYNAMIC
    free_axes = ({0: free, 2: free, 3: free},)
    # Not asked for before, the scale is measured while the network is traced.
    program = torch.export.export(Coarse(model), (images(2, 37, 50),), dynamic_shapes=free_axes)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images(1, 91, 23)), model.coarse(images(1, 91, 23)))


@pytest.mark.parametrize("found", [1, 5])
def test_another_number_of_bands_is_refused(model, found):
    with pytest.raises(DataError) as caught:
        model(torch.zeros(1, found, 8, 8))
    assert str(caught.value) == (
        f"images: expected 3 bands, found {found}. Use images of the kind that the model was trained on, "
        f"or train a model on {found} bands."
    )


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 0, 8)])
def test_invalid_shapes_are_refused(model, shape):
    with pytest.raises(DataError, match=r"^images: expected (four axes|at least 1×1 pixels).*, found shape"):
        model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_channels": 0}, "model.in_channels: expected at least 1, found 0. Correct the value."),
        ({"num_classes": 0}, "model.num_classes: expected at least 1, found 0. Correct the value."),
        (
            {"mean": (1, 2)},
            "model.mean: expected 3 finite values, one per band, found [1.0, 2.0]. "
            "Give one raw pixel value per band, or remove the key.",
        ),
        (
            {"std": (1, 0, 1)},
            "model.std: expected 3 positive values, one per band, found [1.0, 0.0, 1.0]. "
            "Give one raw pixel value per band, or remove the key.",
        ),
        (
            {"clip": [(0, 1)]},
            "model.clip: expected 3 pairs of a smaller and a larger value, one per band, found [[0.0, 1.0]]. "
            "Give one pair of raw pixel values per band, or remove the key.",
        ),
        (
            {"clip": [(0, 1), (5, 5), (0, 1)]},
            "model.clip: expected 3 pairs of a smaller and a larger value, one per band, "
            "found [[0.0, 1.0], [5.0, 5.0], [0.0, 1.0]]. "
            "Give one pair of raw pixel values per band, or remove the key.",
        ),
    ],
)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_invalid_arguments_are_refused(case, wrong, message):
    name, arguments = case
    with pytest.raises(ConfigError) as caught:
        build_model(name, **(arguments | wrong))
    assert str(caught.value) == message


@pytest.mark.parametrize("case", ALL, ids=str)
def test_one_band_and_many_bands(case):
    name, arguments = case
    for bands in (1, 3, 4, 12):
        model = build_model(name, in_channels=bands, num_classes=2, **arguments).eval()
        with torch.inference_mode():
            assert model(torch.from_numpy(np.zeros((1, bands, 9, 9), np.uint16))).shape == (1, 2, 9, 9)


def test_reduced_precision_gives_nearly_the_same(model):
    with torch.inference_mode():
        plain = model(images(2, 64, 64))
        with torch.autocast("cpu", torch.bfloat16):
            reduced = model(images(2, 64, 64))
    assert reduced.dtype == torch.float32
    # Random weights amplify rounding errors more than trained ones do, especially in deep networks.
    assert torch.corrcoef(torch.stack([plain.flatten(), reduced.flatten()]))[0, 1] > 0.5


def test_frozen_layers_do_not_change(model):
    held = Frozen(model.train(), draft(replace(Config(), train={"steps": 10, "freeze": "encoder"})).train)
    held.hold(0)
    prefixes = tuple(prefix for layer in model.encoder_stages() for prefix in layer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(prefixes)}
    assert len(before) > 5
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
    model(images(2, 64, 64)).square().mean().backward()
    optimizer.step()
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    held.release()
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
def test_torch_compile(model):
    compiled = torch.compile(model, backend="aot_eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images(2, 64, 64)), model(images(2, 64, 64)), rtol=1e-4, atol=1e-4)
