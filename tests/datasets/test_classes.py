"""Classes of a data set without a description and without annotated shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import LabelsError

NO_SPLIT = {"split": {"val": 0, "test": 0}}


def test_empty_annotations_are_an_error_unless_classes_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (3, 2)).save(tmp_path / f"{name}.png")
        plain = {"version": "5", "shapes": [], "imagePath": f"{name}.png", "imageHeight": 2, "imageWidth": 3}
        (tmp_path / f"{name}.json").write_text(json.dumps(plain))
    with pytest.raises(LabelsError) as caught:
        open_data(DataConfig.model_validate(NO_SPLIT), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected classes in the annotations, found none: nothing is annotated in 2 images. Annotate some of them;"
        " or, if they are meant to be empty, name the classes in a labels.yaml."
    )
    (tmp_path / "labels.yaml").write_text("names: [background, crack]")
    splits = open_data(DataConfig.model_validate(NO_SPLIT), tmp_path)
    assert splits.train is not None
    mask = splits.train.read(0).mask
    assert mask is not None
    assert mask.tolist() == [[0, 0, 0], [0, 0, 0]]
