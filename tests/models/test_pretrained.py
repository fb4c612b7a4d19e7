"""Finding and loading pretrained weights."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from pixelwise.errors import ConfigError, ModelFileError, ResourceError
from pixelwise.labels import Labels
from pixelwise.models.base import SegmentationModel, adapt_bands
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import build_model
from pixelwise.models.licenses import NVIDIA
from pixelwise.models.pretrained import Source, fill, read_foreign
from pixelwise.models.sources import find_weights
from pixelwise.models.weights import save_model
from pixelwise.types import ModelSpec


def network(seed: int, classes: int = 5, bands: int = 3, name: str = "unet/resnet18") -> SegmentationModel:
    torch.manual_seed(seed)
    return build_model(name, in_channels=bands, num_classes=classes)


def tensors(model: SegmentationModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(one: SegmentationModel, other: SegmentationModel) -> set[str]:
    a, b = one.state_dict(), other.state_dict()
    return {k for k in a if a[k].shape == b[k].shape and torch.equal(a[k], b[k])}


def test_equal_networks_load_everything() -> None:
    one, other = network(0), network(1)
    report = fill(other, Source("x", tensors(one)))
    assert same(one, other) == set(one.state_dict())
    assert report.new == ()
    assert report.unused == ()


def test_a_head_with_other_classes_is_new_and_reported() -> None:
    one, other = network(0), network(1, classes=3)
    fresh = other.network.segmentation_head[0].weight.clone()
    report = fill(other, Source("x", tensors(one), license="CC0"))
    assert set(report.new) == {"network.segmentation_head.0.weight", "network.segmentation_head.0.bias"}
    assert torch.equal(other.network.segmentation_head[0].weight, fresh)
    assert "new: network.segmentation_head.0.weight" in report.sentence()
    assert "CC0" in report.sentence()


def test_a_head_with_as_many_other_classes_can_be_excluded() -> None:
    one, other = network(0), network(1)
    report = fill(other, Source("x", tensors(one)), keep_head=False)
    assert set(report.new) == {"network.segmentation_head.0.weight", "network.segmentation_head.0.bias"}


@pytest.mark.parametrize("bands", [1, 4])
def test_the_first_convolution_is_adapted_to_the_bands(bands: int) -> None:
    one, other = network(0), network(1, bands=bands)
    fill(other, Source("x", tensors(one)))
    first = one.network.encoder.conv1.weight
    assert torch.equal(other.network.encoder.conv1.weight, adapt_bands(first, bands))


def test_names_of_the_library_and_encoders_alone_are_recognised() -> None:
    one, other = network(0), network(1)
    fill(other, Source("x", one.network.state_dict()))
    assert same(one, other) >= {k for k in one.state_dict() if k.startswith("network.")}
    third = network(2)
    report = fill(third, Source("x", one.network.encoder.state_dict()))
    assert report.encoder_only
    assert {k for k in one.state_dict() if k.startswith("network.encoder.")} <= same(one, third)
    assert any(name.startswith("network.decoder.") for name in report.new)


def test_weights_of_another_network_are_refused() -> None:
    other = network(0, name="unet/mobilenet_v2")
    with pytest.raises(ModelFileError, match=r"^x: expected .* Choose the network of these weights"):
        fill(other, Source("x", tensors(network(0))))


def test_a_model_folder(tmp_path: Path) -> None:
    labels, one = Labels(tuple("abcde")), network(0)
    card = ModelCard(
        {"name": "unet/resnet18", "arguments": {"in_channels": 3, "num_classes": 5}}, ModelSpec(labels, 3), license="L"
    )
    save_model(tmp_path / "m", one, card)
    source = find_weights("unet/resnet18", str(tmp_path / "m"))
    assert (source.license, source.classes) == ("L", tuple("abcde"))
    other = network(1)
    fill(other, source)
    assert same(one, other) == set(one.state_dict())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Make a folder as `save_pretrained` writes it, with the normalisation of a processor."""
    names = {0: "sky", 1: "tree", 2: "road"}
    folder = tmp_path / "checkpoint"
    torch.manual_seed(5)
    SegformerForSemanticSegmentation(SegformerConfig(id2label=names)).save_pretrained(folder)
    processor = {"do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255}
    numbers = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.1, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | numbers))
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    return folder


def test_a_transformers_checkpoint(checkpoint: Path) -> None:
    source = find_weights("segformer-b0", str(checkpoint))
    assert source.classes == ("sky", "tree", "road")
    assert source.mean == pytest.approx((127.5, 102.0, 76.5))
    assert source.std == pytest.approx((51.0, 25.5, 63.75))
    model = build_model("segformer-b0", num_classes=3)
    report = fill(model, source)
    assert report.new == ()
    library = SegformerForSemanticSegmentation.from_pretrained(checkpoint)
    assert all(torch.equal(t, model.network.state_dict()[k]) for k, t in library.state_dict().items())


def test_folders_and_files_without_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        ModelFileError, match=r"expected a folder with model.safetensors, found pytorch_model.bin\. Save"
    ):
        find_weights("segformer-b0", str(tmp_path))
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match="expected safetensors"):
        find_weights("segformer-b0", str(tmp_path / "x.safetensors"))
    with pytest.raises(ModelFileError, match=r"expected a .safetensors file, found nothing\. Check the path\."):
        find_weights("segformer-b0", str(tmp_path / "y.safetensors"))


def test_pickles_are_refused_and_can_be_imported(tmp_path: Path) -> None:
    one = network(0)
    torch.save({"state_dict": {f"module.{k}": v for k, v in one.network.state_dict().items()}}, tmp_path / "w.pth")
    with pytest.raises(
        ModelFileError, match=r"which may be a pickle.*pixelwise import-weights FILE --out FILE.safetensors"
    ):
        find_weights("unet/resnet18", str(tmp_path / "w.pth"))
    safetensors.torch.save_file(read_foreign(tmp_path / "w.pth"), tmp_path / "w.safetensors")
    other = network(1)
    fill(other, find_weights("unet/resnet18", str(tmp_path / "w.safetensors")))
    assert same(one, other) >= {k for k in one.state_dict() if k.startswith("network.")}


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (trace,)

    torch.save({"a": Hostile()}, tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match="expected a checkpoint with tensors only"):
        read_foreign(tmp_path / "w.pt")
    assert not trace.exists()


def test_without_a_network_the_error_names_what_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ResourceError) as caught:
        find_weights("segformer-b0", "someone/segformer-roads")
    assert str(caught.value) == (
        "someone/segformer-roads model.safetensors: expected the file, or a network connection to download it, found neither (Name "
        "or service not known). Download https://huggingface.co/someone/segformer-roads on a machine with a network. Copy "
        "its config.json, preprocessor_config.json, README.md and model.safetensors to a folder, and use --weights FOLDER."
    )


@pytest.fixture
def there(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    """Replace the Hub by a local folder, and record the requests."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    asked: list[tuple[str, str, str | None]] = []

    def from_folder(repository: str, name: str, revision: str | None = None) -> str:
        asked.append((repository, name, revision))
        if not (checkpoint / name).exists() or (repository.endswith("converted") and not revision):
            raise EntryNotFoundError("no such file there")
        return str(checkpoint / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_folder)
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda *_, **__: iter(()))
    return asked


def test_weights_on_the_hub_are_downloaded_file_by_file(there: list[tuple[str, str, str | None]]) -> None:
    source = find_weights("segformer-b0", "nvidia/segformer-b0-finetuned-ade-512-512", accept_license=True)
    assert source.license == NVIDIA
    assert source.classes == ("sky", "tree", "road")
    assert ("nvidia/segformer-b0-finetuned-ade-512-512", "preprocessor_config.json", None) in there
    word = find_weights("segformer-b0", "ade20k", accept_license=True)
    assert word.tensors.keys() == source.tensors.keys()
    find_weights("segformer-b5", "ade20k", accept_license=True)
    assert there[-1][0] == "nvidia/segformer-b5-finetuned-ade-640-640"


def test_safetensors_of_the_hub_converter_are_used(
    there: list[tuple[str, str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    @dataclasses.dataclass
    class Offer:
        author: str
        status: str
        git_reference: str

    offers = [Offer("somebody", "open", "refs/pr/1"), Offer("SFconvertbot", "open", "refs/pr/7")]
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda *_, **__: iter(offers))
    assert find_weights("segformer-b0", "me/converted").classes == ("sky", "tree", "road")
    assert {revision for _, name, revision in there if name == "config.json"} == {"refs/pr/7"}


def test_a_repository_without_safetensors_explains_import_weights(
    there: list[tuple[str, str, str | None]],
) -> None:
    with pytest.raises(
        ModelFileError, match=r"found no such file\. If you trust its author, .*import-weights pytorch_m"
    ):
        find_weights("segformer-b0", "me/converted")


def test_an_unreachable_hub_file_is_not_treated_as_missing(
    there: list[tuple[str, str, str | None]], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its processor, images would be normalised differently."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def flaky(_: str, name: str, revision: str | None = None) -> str:
        if name == "preprocessor_config.json":
            raise LocalEntryNotFoundError("timed out")
        return str(checkpoint / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", flaky)
    with pytest.raises(ResourceError, match=r"^me/roads preprocessor_config\.json: expected the file, .*timed out"):
        find_weights("segformer-b0", "me/roads")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("segformer-b0", "ade20k"),
        ("segformer-b2", "imagenet"),
        ("unet/mit_b0", "imagenet"),
        ("segformer-b0", "nvidia/mit-b0"),
    ],
)
def test_non_commercial_weights_need_consent(name: str, weights: str) -> None:
    with pytest.raises(
        ConfigError, match=r"expected a licence that you have accepted, found NVIDIA .* --accept-license"
    ):
        find_weights(name, weights)


@pytest.mark.parametrize(
    ("name", "weights"), [("unet", "imagenet"), ("deeplabv3-resnet50", "cityscapes"), ("unet", "best")]
)
def test_weights_that_do_not_exist_are_refused(name: str, weights: str) -> None:
    with pytest.raises(ConfigError, match=r"^model.weights: expected "):
        find_weights(name, weights)


def test_normalisation_buffers_are_not_loaded_as_weights() -> None:
    torch.manual_seed(0)
    one = build_model("unet", features=(4, 8), stem=2, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    other = build_model("unet", features=(4, 8), stem=2, in_channels=4, mean=(9.0,) * 4, std=(8.0,) * 4)
    report = fill(other, Source("x", tensors(one)))
    assert other.normalise.mean.tolist() == [9.0] * 4
    assert not any("normalise" in name for name in (*report.new, *report.unused))


def test_the_first_convolution_of_patches_is_adapted_band_by_band() -> None:
    torch.manual_seed(0)
    one = build_model("unet", features=(4, 8), stem=2).eval()
    other = build_model("unet", features=(4, 8), stem=2, in_channels=6).eval()
    fill(other, Source("x", tensors(one)))
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        # Red, green, blue twice, each with half the weight.
        torch.testing.assert_close(other(image.repeat(1, 2, 1, 1)), one(image), rtol=1e-4, atol=1e-4)


def test_weights_for_bgr_images_are_reversed() -> None:
    one, other = network(0), network(1)
    fill(other, Source("x", tensors(one), bgr=True))
    assert torch.equal(other.network.encoder.conv1.weight, one.network.encoder.conv1.weight.flip(1))


def test_flattened_names_of_timm_are_recognised() -> None:
    other = network(1, name="unet/tu-convnext_atto")
    given = {
        re.sub(r"^(\w+?)_(\d+)\.", r"\1.\2.", name): tensor.clone()
        for name, tensor in network(0, name="unet/tu-convnext_atto").network.encoder.model.state_dict().items()
    }
    assert any(name.startswith("stages.0.") for name in given)
    report = fill(other, Source("x", given))
    assert not any(name.startswith("network.encoder.") for name in report.new)


@pytest.mark.parametrize(
    ("plain", "mean", "bgr"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, (127.5,) * 3, False),
        ({"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}, (0.0,) * 3, False),
        ({"do_rescale": True, "do_flip_channel_order": True}, (0.0,) * 3, True),
        (
            {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "do_flip_channel_order": True},
            (76.5, 51, 25.5),
            True,
        ),
    ],
)
def test_normalisation_is_read_from_the_processor(checkpoint: Path, plain: dict, mean: tuple, bgr: bool) -> None:
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(plain))
    source = find_weights("segformer-b0", str(checkpoint))
    assert source.mean == pytest.approx(mean)
    assert source.bgr is bgr


@pytest.mark.parametrize("license", ["cc-by-nc-4.0", "apple-amlr", "fair-noncommercial-research-license"])
def test_the_licence_is_read_from_the_repository(checkpoint: Path, license: str) -> None:
    (checkpoint / "README.md").write_text(f"---\nlibrary_name: x\nlicense: {license}\n---\n# Hello\n")
    with pytest.raises(ConfigError, match=f"found {license}"):
        find_weights("segformer-b0", str(checkpoint))
    assert find_weights("segformer-b0", str(checkpoint), accept_license=True).license == license
    (checkpoint / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert find_weights("segformer-b0", str(checkpoint)).license == "apache-2.0"


@pytest.mark.parametrize(
    "header",
    [
        "license: other\nlicense_name: nvidia-source-code-license",
        "license: other\nlicense_link: LICENSE",
        "title: a --- b\ndate: 2023-00-00",
        "license: other\nbase_model: nvidia/mit-b0",
        "license: other\nbase_model:\n- nvidia/segformer-b0-finetuned-ade",
    ],
)
def test_weights_derived_from_restricted_ones_are_restricted(checkpoint: Path, header: str) -> None:
    (checkpoint / "README.md").write_text(f"---\n{header}\n---\n")
    with pytest.raises(ConfigError, match=r"(?i)found .*nvidia"):
        find_weights("segformer-b0", str(checkpoint))


def test_a_cached_missing_file_counts_without_a_network(
    there: list[tuple[str, str, str | None]], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def cached(_: str, name: str, revision: str | None = None) -> str:
        if not (checkpoint / name).exists():
            raise LocalEntryNotFoundError("no network")
        return str(checkpoint / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    with pytest.raises(ResourceError, match=r"^me/roads model\.json"):
        find_weights("segformer-b0", "me/roads")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: object())
    assert find_weights("segformer-b0", "me/roads").classes == ("sky", "tree", "road")


def test_a_segformer_without_licence_may_be_a_copy_of_nvidia_s(checkpoint: Path) -> None:
    (checkpoint / "README.md").unlink()
    with pytest.raises(ConfigError, match="found unknown; SegFormer's published weights: NVIDIA"):
        find_weights("segformer-b0", str(checkpoint))


def test_a_weights_file_inside_a_folder_stands_for_the_folder(checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(ConfigError, match=r"found cc-by-nc-4\.0"):
        find_weights("segformer-b0", str(checkpoint / "model.safetensors"))
    found = find_weights("segformer-b0", str(checkpoint / "model.safetensors"), accept_license=True)
    assert found.classes == ("sky", "tree", "road")
    assert found.mean is not None


def test_words_are_not_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cityscapes").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="weights cityscapes of segformer-b0: expected a licence"):
        find_weights("segformer-b0", "cityscapes")
    with pytest.raises(ConfigError, match=r"^model.weights: expected none, .* found 'run/modle'"):
        find_weights("segformer-b0", "run/modle")


@pytest.mark.parametrize(
    "config",
    [
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "input_range": [0, 1]},
        {"mean": [127.5, 102, 76.5], "std": [51, 51, 51], "input_range": [0, 255]},
        {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}},
    ],
)
def test_normalisation_is_read_from_folders_of_encoders(tmp_path: Path, config: dict) -> None:
    one, other = network(0), network(1)
    encoder = {name: tensor.contiguous() for name, tensor in one.network.encoder.state_dict().items()}
    safetensors.torch.save_file(encoder, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = find_weights("unet/resnet18", str(tmp_path))
    assert source.mean == pytest.approx((127.5, 102.0, 76.5))
    assert source.std == pytest.approx((51.0, 51.0, 51.0))
    report = fill(other, source)
    assert (report.encoder_only, report.head_new) == (True, True)


def test_encoders_with_restricted_weights_only() -> None:
    with pytest.raises(ConfigError, match=r"found CC-BY-NC-4\.0"):
        find_weights("unet/resnext101_32x16d", "imagenet")


def test_torchvision_files_are_read_as_tensors_only(monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    asked: dict[str, object] = {}

    def load(url: str, **given: object) -> dict[str, torch.Tensor]:
        asked.update(given)
        print("Downloading")
        return build_model("lraspp-mobilenetv3", num_classes=21).network.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    source = find_weights("lraspp-mobilenetv3", "coco")
    assert asked["weights_only"] is True
    assert asked["check_hash"] is True
    assert capsys.readouterr().out == ""  # type: ignore[attr-defined]
    assert source.license == "BSD-3-Clause"
    assert len(source.classes or ()) == 21
