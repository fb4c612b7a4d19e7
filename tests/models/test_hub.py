"""Model folders as repositories of the Hub, which a local folder replaces."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from pixelwise import load
from pixelwise.errors import ModelFileError, ResourceError
from pixelwise.labels import Labels
from pixelwise.models import hub
from pixelwise.models.card import ModelCard, read_card
from pixelwise.models.catalogue import build_model
from pixelwise.models.readme import readme, write_readme
from pixelwise.models.weights import save_model
from pixelwise.types import ModelSpec

CLASSES = [
    {"name": "soil", "iou": 0.9, "iou_low": 0.8, "iou_high": 0.95, "dice": 0.95, "dice_low": None, "dice_high": None},
    {"name": "crop", "iou": None, "iou_low": None, "iou_high": None, "dice": None, "dice_low": None, "dice_high": None},
]
SCORES = {"val": {"miou": 0.9, "miou_low": 0.8, "miou_high": 0.95, "images": 7, "classes": CLASSES, "convention": "C."}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plain = {"in_channels": 4, "num_classes": 2, "features": [4]}
    card = ModelCard(
        {"name": "unet", "arguments": plain}, ModelSpec(Labels(("soil", "crop")), 4, dtype="uint16"), scores=SCORES
    )
    card = dataclasses.replace(card, trained={"data": "fields", "images": 12, "weights": "me/older"})
    save_model(tmp_path / "model", build_model("unet", **plain), card)
    return tmp_path / "model"


@pytest.mark.parametrize("key", ["images", "pictures"])  # the second one in cards of earlier versions
def test_the_readme_has_the_number_of_images(folder: Path, key: str) -> None:
    card = dataclasses.replace(read_card(folder), trained={"data": "fields", key: 1, "weights": "none"})
    assert "Trained on 1 image of fields, starting from random weights." in readme(card)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the Hub by a folder."""
    import huggingface_hub

    root = tmp_path / "hub"

    def upload(*, repo_id: str, folder_path: str, allow_patterns: list[str]) -> None:
        (root / repo_id).mkdir(parents=True, exist_ok=True)
        for name in {p.name for p in Path(folder_path).iterdir()}.intersection(allow_patterns):
            shutil.copy(Path(folder_path) / name, root / repo_id / name)

    def download(repo_id: str, allow_patterns: list[str]) -> str:
        if not (root / repo_id).is_dir():
            raise ConnectionError("no such host")
        return str(root / repo_id)

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return root


def test_push_and_pull(folder: Path, there: Path) -> None:
    assert hub.push(folder, "me/fields") == "https://huggingface.co/me/fields"
    assert {p.name for p in (there / "me" / "fields").iterdir()} == {"README.md", "model.json", "model.safetensors"}
    model = load("me/fields")
    image = torch.randint(0, 9999, (4, 20, 30), dtype=torch.int32).numpy().astype("uint16")
    assert (model.predict(image).mask == load(folder).predict(image).mask).all()


def test_the_content_of_the_readme(folder: Path) -> None:
    write_readme(folder)
    text = (folder / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "pixelwise"
    assert header["license"] == "other"
    assert header["license_name"] == "user"
    for line in (
        "Trained on 12 images of fields, starting from the weights me/older.",
        "Images with 4 bands of uint16 as raw pixel values",
        "| 1 | crop |",
        "90.0 % (80.0–95.0)",
        "7 images",
        "## Limits",
        "| crop | – | – |",
    ):
        assert line in text


def test_without_a_network_the_error_says_what_to_download(there: Path) -> None:
    with pytest.raises(
        ResourceError,
        match=r"^me/nothing: expected a local folder, or access to the Hub.*no such host.* Download model.safe",
    ):
        load("me/nothing")


def test_a_repository_without_model_is_refused(there: Path) -> None:
    (there / "me" / "other").mkdir(parents=True)
    with pytest.raises(ModelFileError, match=r"expected a repository with model\.json, found none"):
        load("me/other")
