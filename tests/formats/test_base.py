"""Labels of annotated shapes: the class of unlabelled pixels."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelwise.config import DataConfig
from pixelwise.errors import DataError
from pixelwise.formats.base import drawn_labels
from pixelwise.formats.dataset_root import DatasetRoot


@pytest.mark.parametrize(
    ("names", "classes", "ground"),
    [
        (["road"], ("background", "road"), "background"),
        (["road", "background"], ("road", "background"), "background"),
        (["road", "Background"], ("road", "Background"), "Background"),
        (["Background", "background"], ("Background", "background"), "background"),
        (["Unlabeled", "BACKGROUND"], ("Unlabeled", "BACKGROUND"), "BACKGROUND"),
        (["road", "__ignore__"], ("background", "road"), "background"),
    ],
)
def test_background_is_the_class_of_that_name_in_any_case_or_a_new_one(
    tmp_path: Path, names: list[str], classes: tuple[str, ...], ground: str
) -> None:
    labels, unlabelled = drawn_labels(DatasetRoot(tmp_path, tmp_path, DataConfig()), names)
    assert (labels.names, unlabelled) == (classes, ground)


def test_pixels_without_a_shape_are_ignored_on_request(tmp_path: Path) -> None:
    place = DatasetRoot(tmp_path, tmp_path, DataConfig(unlabelled="ignore"))
    labels, unlabelled = drawn_labels(place, ["road"])
    assert (labels.names, unlabelled) == (("road",), None)
    with pytest.raises(DataError, match=r"expected classes in the annotations, found none\. Label some images\."):
        drawn_labels(place, ["__ignore__"])
