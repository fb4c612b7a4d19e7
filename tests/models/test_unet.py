import pytest
import torch

from pixelwise.errors import ConfigError
from pixelwise.models.base import pad_end
from pixelwise.models.unet import DoubleConv, Down, UNet, Up


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def shapes(model, images):
    """Return the shape (channels, height, width) of the output of each block."""
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    model(images)
    return seen


@pytest.mark.parametrize(("up", "parameters"), [("transposed", 31_037_698), ("bilinear", 31_384_898)])
def test_the_number_of_parameters_of_the_paper_s_network(up, parameters):
    with torch.device("meta"):
        assert size(UNet(in_channels=3, num_classes=2, features=(64, 128, 256, 512), up=up)) == parameters


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_shapes_at_every_scale_are_those_of_the_paper(up):
    with torch.device("meta"):
        seen = shapes(UNet(up=up), torch.empty(1, 3, 256, 256))
    assert seen["first"] == (64, 256, 256)
    assert [seen[f"down.{k}"] for k in range(4)] == [(128, 128, 128), (256, 64, 64), (512, 32, 32), (1024, 16, 16)]
    assert [seen[f"up.{k}"] for k in range(4)] == [(512, 32, 32), (256, 64, 64), (128, 128, 128), (64, 256, 256)]
    below = (512, 32, 32) if up == "transposed" else (1024, 32, 32)
    assert seen["up.0.up"] == below
    assert seen[""] == (2, 256, 256)


@pytest.mark.parametrize(("up", "joined"), [("transposed", 512 + 512), ("bilinear", 512 + 1024)])
def test_the_decoder_joins_skip_and_upsampled_channels(up, joined):
    with torch.device("meta"):
        block = Up(1024, 512, up)
    assert block.conv[0].in_channels == joined


def test_blocks_have_the_documented_shapes():
    x = torch.randn(2, 3, 8, 12)
    assert DoubleConv(3, 5)(x).shape == (2, 5, 8, 12)
    assert Down(3, 5)(x).shape == (2, 5, 4, 6)
    assert Up(6, 4, "transposed")(torch.randn(2, 6, 4, 6), torch.randn(2, 4, 8, 12)).shape == (2, 4, 8, 12)


@pytest.mark.parametrize(("stem", "stride"), [(1, 16), (2, 32), (4, 64)])
def test_the_stride_includes_stem_and_scales(stem, stride):
    with torch.device("meta"):
        assert UNet(stem=stem).stride == stride


def test_a_patch_stem_works_at_a_fraction_of_the_size():
    with torch.device("meta"):
        seen = shapes(UNet(features=(8, 16), stem=2), torch.empty(1, 3, 64, 64))
    assert seen["patches"] == (12, 32, 32)
    assert seen["first"] == (8, 32, 32)
    assert seen["head"] == (2 * 2**2, 32, 32)
    assert seen[""] == (2, 64, 64)


def test_the_head_of_a_patch_stem_has_logits_per_pixel():
    model = UNet(3, 2, features=(4,), stem=2).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(8.0))
        logits = model(torch.rand(1, 3, 5, 6))
    assert logits[0, 0, :2, :2].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert logits[0, 1, 2:4, 4:].tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_a_fresh_patch_stem_shows_no_checkerboard():
    logits = UNet(3, 2, features=(4,), stem=4).eval()(torch.rand(1, 3, 8, 8))
    patches = logits.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
    assert torch.equal(patches, patches[..., :1].expand_as(patches))
    assert len(patches[..., 0].unique()) > 1


def test_bilinear_upsampling_has_half_pixel_centres():
    ramp = torch.tensor([[[[0.0, 1.0]]]])
    expected = torch.tensor([0.0, 0.25, 0.75, 1.0])
    torch.testing.assert_close(Up(1, 1, "bilinear").up(ramp)[0, 0, 0], expected)


def test_padding_repeats_the_last_row_and_column():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_end(image, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert torch.equal(padded[..., :2, :3], image)
    assert padded[0, 0, :, 3].tolist() == [2, 5, 5, 5]
    assert padded[0, 0, 3].tolist() == [3, 4, 5, 5]
    assert torch.equal(pad_end(padded, 4), padded)


@pytest.mark.parametrize("stem", [1, 2])
def test_a_crop_from_the_corner_has_the_same_logits(stem):
    """A tile at the end of the image is padded like the image."""
    torch.manual_seed(0)
    model = UNet(features=(4, 8), stem=stem).eval()
    image = torch.randn(1, 3, 150, 149)
    with torch.inference_mode():
        whole, corner = model(image), model(image[..., 64:, 64:])
    torch.testing.assert_close(corner[..., 60:, 60:], whole[..., 124:, 124:], rtol=1e-4, atol=1e-6)


def test_activations_keep_their_variance_and_new_logits_are_small():
    torch.manual_seed(0)
    model = UNet(features=(8, 16, 32)).train()
    seen = {}
    for name in ("first.0", "down.2.conv.3", "up.0.up", "up.2.conv.3"):
        model.get_submodule(name).register_forward_hook(lambda _, __, out, n=name: seen.update({n: out.std().item()}))
    probabilities = torch.softmax(model(torch.randn(4, 3, 64, 64)), 1)
    assert all(0.3 < deviation < 3 for deviation in seen.values()), seen
    assert (probabilities - 0.5).abs().max() < 0.2


def test_a_small_unet_learns_which_pixels_are_bright():
    torch.manual_seed(0)
    model = UNet(1, 2, (4, 8), mean=(128,), std=(64,)).train()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        images = torch.randint(0, 256, (2, 1, 4, 4)).float().repeat_interleave(8, 2).repeat_interleave(8, 3)
        loss = torch.nn.functional.cross_entropy(model(images), (images[:, 0] > 128).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.25


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": ()}, "model.features: expected at least one positive width, found (). Correct the value."),
        (
            {"features": (8, 0)},
            "model.features: expected at least one positive width, found (8, 0). Correct the value.",
        ),
        ({"up": "nearest"}, "model.up: expected transposed or bilinear, found 'nearest'. Correct the value."),
        ({"stem": 3}, "model.stem: expected 1, 2 or 4, found 3. Correct the value."),
    ],
)
def test_invalid_values_are_refused(wrong, message):
    with pytest.raises(ConfigError) as caught:
        UNet(**wrong)
    assert str(caught.value) == message
