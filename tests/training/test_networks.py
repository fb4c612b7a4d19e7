"""Train, interrupt, resume, score, predict and fine-tune every kind of network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import pixelwise
from pixelwise.config import load_config
from pixelwise.demo.synthetic import draw_discs
from pixelwise.errors import ConfigError, Interrupted, ModelFileError
from pixelwise.training.runlog import read_log

# A network of segmentation_models.pytorch; unet/resnet18 is tested below.
LIKE = pytest.param("deeplabv3plus/resnet18", marks=pytest.mark.slow)
NETWORKS = ["segformer-b0", "deeplabv3-mobilenetv3", LIKE, "unet"]
SMALL = ("train.batch_size=2", "train.crop=[64,64]", "train.precision=fp32", "train.channels_last=false")


@pytest.fixture(scope="module")
def four_bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write discs as TIFFs with four 16-bit bands."""
    folder = tmp_path_factory.mktemp("four")
    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        for what in ("images", "masks"):
            (folder / part / what).mkdir(parents=True)
        for k in range(count):
            image, mask = draw_discs(7, k + 100 * len(part))
            bands = np.concatenate([image, image[:1]]).astype(np.uint16) * 200
            path = folder / part / "images" / f"{k}.tif"
            tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="separate")
            Image.fromarray(mask).save(folder / part / "masks" / f"{k}.png")
    (folder / "labels.yaml").write_text("names: [background, disc]\n")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("name", NETWORKS)
def test_train_score_and_predict_with_four_bands(name: str, four_bands: Path, tmp_path: Path) -> None:
    run = pixelwise.train(four_bands, model=name, steps=3, out=tmp_path / "run", overrides=SMALL)
    assert run.model.card.spec.channels == 4
    scores = pixelwise.evaluate(run.model, four_bands).scores
    assert 0 <= (scores.miou.value or 0) <= 1
    image = np.random.default_rng(0).integers(0, 60000, (4, 37, 51), dtype=np.uint16)
    assert run.model.predict(image).mask.shape == (37, 51)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_interrupted_run_resumes_bit_for_bit(name: str, discs: Path, tmp_path: Path) -> None:
    whole = pixelwise.train(discs, model=name, steps=4, out=tmp_path / "whole", overrides=SMALL)

    def stop(event: dict[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            raise Interrupted(tmp_path, found="checkpoint saved")

    with pytest.raises(Interrupted):
        pixelwise.train(discs, model=name, steps=4, out=tmp_path / "cut", overrides=SMALL, listener=stop)
    cut = pixelwise.train(discs, model=name, steps=4, out=tmp_path / "cut", overrides=SMALL)
    assert any(event["event"] == "resume" for event in read_log(cut.folder / "log.jsonl"))
    one, other = weights(whole.folder), weights(cut.folder)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", NETWORKS)
def test_fine_tuning_starts_from_the_given_weights(name: str, discs: Path, four_bands: Path, tmp_path: Path) -> None:
    first = pixelwise.train(four_bands, model=name, steps=1, out=tmp_path / "first", overrides=SMALL)
    still = (*SMALL, "train.learning_rate=1.0e-12", "train.ema=0")
    tuned = pixelwise.train(
        four_bands, model=name, weights=first.folder / "model", steps=1, out=tmp_path / "tuned", overrides=still
    )
    one, other = weights(first.folder), weights(tuned.folder)
    learned = [key for key in one if key.endswith("weight") and one[key].ndim == 4]
    for key in learned:
        torch.testing.assert_close(other[key], one[key], atol=1e-6, rtol=0)
    said = (tuned.folder / "config.yaml").read_text()
    assert "pretrained weights" in said
    assert load_config(tuned.folder / "config.yaml").train.head_rate == 1.0  # the classes are the same


def test_train_from_a_transformers_checkpoint(discs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = {0: "wall", 1: "floor", 2: "sky"}
    sizes = {"hidden_sizes": [16, 32, 40, 64], "decoder_hidden_size": 32}
    library = SegformerForSemanticSegmentation(SegformerConfig(id2label=names, **sizes))
    library.save_pretrained(tmp_path / "checkpoint")
    said: list[str] = []
    run = pixelwise.train(
        discs,
        model=str(tmp_path / "checkpoint"),
        accept_license=True,
        steps=2,
        out=tmp_path / "run",
        overrides=(*SMALL, "train.learning_rate=1.0e-12", "train.ema=0"),
        listener=lambda event: said.append(str(event.get("text", ""))),
    )
    assert any("new: network.decode_head.classifier.weight" in text for text in said)
    mine = weights(run.folder)
    for key, tensor in load_file(tmp_path / "checkpoint" / "model.safetensors").items():
        if key.endswith("proj.weight"):
            torch.testing.assert_close(mine[key], tensor, atol=1e-6, rtol=0)
    again = pixelwise.load(run.folder)
    assert again.card.architecture["name"] == "transformers"
    assert "NVIDIA" in again.card.license
    assert again.card.trained["weights"].endswith("checkpoint")
    assert again.predict(np.zeros((3, 40, 30), np.uint8)).mask.shape == (40, 30)


def frozen(first: pixelwise.Run, data: Path, out: Path, *overrides: str, **more: Any) -> pixelwise.Run:
    """Fine-tune a model with a frozen encoder."""
    return pixelwise.train(
        data,
        model="unet/resnet18",
        weights=first.folder / "model",
        freeze="encoder",
        out=out,
        overrides=(*SMALL, "train.head_warmup=0", *overrides),
        **more,
    )


def test_a_frozen_encoder_does_not_change(discs: Path, tmp_path: Path) -> None:
    first = pixelwise.train(discs, model="unet/resnet18", steps=1, out=tmp_path / "first", overrides=SMALL)
    tuned = frozen(first, discs, tmp_path / "tuned", "train.ema=0", steps=3)
    one, other = weights(first.folder), weights(tuned.folder)
    encoder = [key for key in one if key.startswith("network.encoder.")]
    assert len(encoder) > 100
    assert all(torch.equal(one[key], other[key]) for key in encoder)
    assert not torch.equal(one["network.segmentation_head.0.weight"], other["network.segmentation_head.0.weight"])


def test_a_frozen_encoder_does_not_change_across_validations_and_interruption(discs: Path, tmp_path: Path) -> None:
    """Including the statistics of its norms, which `model.train()` after scoring or resuming would update."""
    first = pixelwise.train(discs, model="unet/resnet18", steps=1, out=tmp_path / "first", overrides=SMALL)

    def stop(event: dict[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            raise Interrupted(tmp_path, found="checkpoint saved")

    with pytest.raises(Interrupted):
        frozen(first, discs, tmp_path / "tuned", "train.validations=5", steps=5, listener=stop)
    run = frozen(first, discs, tmp_path / "tuned", "train.validations=5", steps=5)
    log = read_log(run.folder / "log.jsonl")
    assert any(event["event"] == "resume" for event in log)
    assert sum(event["event"] == "validation" for event in log) >= 3
    before = weights(first.folder)
    after = load_file(max((run.folder / "checkpoints").glob("*.safetensors")))
    moved = {key for key in before if not torch.equal(before[key], after[f"model.{key}"])}
    assert sum(key.startswith("network.encoder.") for key in before) > 100
    assert not [key for key in moved if key.startswith("network.encoder.")]
    assert [key for key in moved if key.startswith("network.decoder.") and key.endswith("running_mean")]


def test_too_many_frozen_layers_are_refused_before_training(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train.freeze: expected at most 3 layers"):
        pixelwise.train(discs, steps=1, freeze=9, out=tmp_path / "run", overrides=(*SMALL, "model.features=[4,8]"))


@pytest.mark.parametrize("freeze", [pytest.param("2", marks=pytest.mark.slow), "encoder"])
def test_recounts_keep_layers_frozen_and_unfreeze_them(discs: Path, tmp_path: Path, freeze: str) -> None:
    """The optimizer state belongs to the same parameters after a recount, and unfrozen layers learn."""
    file = tmp_path / "data.yaml"
    file.write_text(f"data: {{root: {discs}}}\ntrain: {{steps: 6, recounts: [[2, 8], [5, 9]]}}\n")
    overrides = (*SMALL, "train.unfreeze=0.5", "train.ema=0")
    whole = pixelwise.train(file, model="unet/resnet18", freeze=freeze, out=tmp_path / "a", overrides=overrides)

    def stop(event: dict[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 5:
            raise Interrupted(tmp_path, found="checkpoint saved")

    with pytest.raises(Interrupted):
        pixelwise.train(
            file, model="unet/resnet18", freeze=freeze, out=tmp_path / "b", overrides=overrides, listener=stop
        )
    cut = pixelwise.train(file, model="unet/resnet18", freeze=freeze, out=tmp_path / "b", overrides=overrides)
    one, other = weights(whole.folder), weights(cut.folder)
    assert all(torch.equal(one[key], other[key]) for key in one)
    never = (*SMALL, "train.ema=0")
    held = pixelwise.train(file, model="unet/resnet18", freeze=freeze, out=tmp_path / "c", overrides=never)
    still = weights(held.folder)
    assert not torch.equal(one["network.encoder.conv1.weight"], still["network.encoder.conv1.weight"])


def test_fit_unfreezes_the_model_at_the_end(discs: Path, tmp_path: Path) -> None:
    from pixelwise.training import loop

    seen = []
    real = loop.fit

    def spied(work: loop.Work, *args: object, **given: object) -> object:
        state = real(work, *args, **given)  # type: ignore[arg-type]
        seen.append(all(p.requires_grad for p in work.model.parameters()))
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixelwise.training.run.fit", spied)
        pixelwise.train(discs, model="unet/resnet18", freeze="encoder", steps=2, out=tmp_path / "run", overrides=SMALL)
    assert seen == [True]


def test_fine_tuning_keeps_the_size_of_the_unet(discs: Path, tmp_path: Path) -> None:
    own = (*SMALL, "model.features=[6,12]", "model.stem=1")
    first = pixelwise.train(discs, steps=1, out=tmp_path / "first", overrides=own)
    tuned = pixelwise.train(discs, weights=first.folder, steps=1, out=tmp_path / "tuned", overrides=SMALL)
    assert load_config(tuned.folder / "config.yaml").model.features == [6, 12]


def test_a_model_folder_of_a_transformers_network_is_a_model_name(discs: Path, tmp_path: Path) -> None:
    first = pixelwise.train(discs, model="segformer-b0", steps=1, out=tmp_path / "first", overrides=SMALL)
    folder = tmp_path / "segformer-roads"
    (first.folder / "model").rename(folder)
    tuned = pixelwise.train(discs, model=str(folder), steps=1, out=tmp_path / "tuned", overrides=SMALL)
    assert load_config(tuned.folder / "config.yaml").train.head_rate == 1.0  # the classes are the same


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unet/resnet18", r"model\.name: .* Did you mean 'unet/resnet18'\?"),
        ("unet++/resnet18", r"model\.name: .* Did you mean 'unet"),
    ],
)
def test_a_misspelt_network_is_not_searched_on_the_hub(name: str, message: str, discs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        pixelwise.train(discs, model=name, steps=1, out=tmp_path / "run", overrides=SMALL)


def test_a_pixelwise_model_as_a_name_is_refused(discs: Path, tmp_path: Path) -> None:
    first = pixelwise.train(
        discs, steps=1, out=tmp_path / "first", overrides=(*SMALL, "model.features=[4,8]", "model.stem=1")
    )
    with pytest.raises(ConfigError, match=r"found .*first, a pixelwise model\. Use it with --weights"):
        pixelwise.train(discs, model=str(first.folder), steps=1, out=tmp_path / "run", overrides=SMALL)


def test_a_git_lfs_pointer_is_refused(discs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelFileError, match=r"config\.json: expected a JSON object.* Copy the file again"):
        pixelwise.train(discs, model=str(folder), steps=1, out=tmp_path / "run", overrides=SMALL)
