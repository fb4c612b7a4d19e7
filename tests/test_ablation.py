"""The ablation benchmark: its replacements are valid configurations, and its table compares runs of the same seed."""

import json
from pathlib import Path

import pytest
from benchmarks import ablation
from benchmarks.protocol import NOT_MEASURED

from pixelwise.config import Config, with_overrides
from pixelwise.models.catalogue import available


@pytest.mark.parametrize(
    ("network", "name", "choice"),
    [(n, name, choice) for n in ablation.CHOICES for name in ablation.SETS[n] for choice in ablation.choices(n, name)],
)
def test_every_plain_choice_is_a_configuration(network: str, name: str, choice: str) -> None:
    assert network in available()
    values = ablation.fixed(network, name, choice)
    config = with_overrides(Config(), [f"{key}={json.dumps(value)}" for key, value in values.items()])
    plain = config.model_dump(mode="json")
    assert values
    assert ablation.same(values, plain)  # as in config.yaml
    assert not ablation.same(values, Config().model_dump(mode="json"))


def test_all_combines_every_choice_but_the_network() -> None:
    everything = ablation.fixed("unet", "drive", ablation.ALL)
    others = [choice for choice in ablation.CHOICES["unet"] if choice != "network"]
    assert all(ablation.fixed("unet", "drive", choice).items() <= everything.items() for choice in others)
    assert ablation.fixed("unet", "drive", "crop") == {"train.crop": [576, 544]}
    assert ablation.fixed("unet", "drive", "normalisation")["model.mean"] == [127.5] * 3


def test_no_whole_image_crop_for_images_of_various_sizes() -> None:
    assert "crop" not in ablation.choices("unet", "fine_defects")
    assert "train.crop" not in ablation.fixed("unet", "fine_defects", ablation.ALL)
    assert ablation.fixed("unet", "fine_defects", "normalisation")["model.mean"] == [127.5]  # grey


def write(folder: Path, choice: str, seed: int, miou: float, weights: object = (1.0, 2.0)) -> None:
    config = {"model": {"mean": [1.0], "std": [1.0], "clip": "none"}, "train": {"crop": [256, 256]}}
    config |= {"augment": {}, "loss": {"class_weights": weights}}
    for key in (key for choices in ablation.UNET.values() for key in choices[1]):
        section, name = key.split(".")
        config[section].setdefault(name, None)
    path = ablation.result_path("unet", "camvid", choice, seed, "90s", folder)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"miou": miou, "config": config}))


def test_the_table_pairs_seeds_and_marks_equal_values(tmp_path: Path) -> None:
    assert ablation.table(results=tmp_path) == NOT_MEASURED
    for seed, derived, fixed in ((0, 0.30, 0.20), (1, 0.40, 0.41), (2, 0.5, None)):
        write(tmp_path, ablation.DERIVED, seed, derived)
        if fixed is not None:
            write(tmp_path, "class weights", seed, fixed)
    assert ablation.table(results=tmp_path).splitlines()[2:] == [
        "| camvid | class weights | none | 35.0 (30.0–40.0) | 30.5 (20.0–41.0) | +4.5 (-1.0 to +10.0), n = 2 |"
    ]
    for seed in range(3):
        write(tmp_path, ablation.DERIVED, seed, 0.3, weights="none")
    assert "| camvid | class weights | none | | | same value |" in ablation.table(results=tmp_path)
