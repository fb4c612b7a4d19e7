"""Statements of the README and of the page about models that can be computed."""

import re
from pathlib import Path

import pytest

from pixelwise.models.catalogue import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_fits_on_three_screens() -> None:
    assert len(README.splitlines()) <= 150


def test_the_size_of_the_unet() -> None:
    from pixelwise import UNet

    parameters = re.search(r"([\d,]+), as in Ronneberger", README)
    lines = re.search(r"about (\d+) lines \(`(src/[\w/.]+)`\)", README)
    assert parameters is not None
    assert lines is not None
    model = UNet(in_channels=3, num_classes=2, features=(64, 128, 256, 512), up="transposed")
    assert f"{sum(p.numel() for p in model.parameters()):,}" == parameters[1]
    assert abs(len((ROOT / lines[2]).read_text(encoding="utf-8").splitlines()) - int(lines[1])) <= 20


def test_the_table_of_networks_is_that_of_the_catalogue() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page.partition("<!-- models -->\n")[2].partition("\n<!-- end -->")[0] == table()


@pytest.mark.slow
def test_the_scores_of_always_predicting_background(tmp_path: Path) -> None:
    from pixelwise.api import draw_demo_data
    from pixelwise.config import DataConfig
    from pixelwise.datasets.dataset import open_data
    from pixelwise.evaluation import majority

    test = open_data(DataConfig(), draw_demo_data(tmp_path / "demo")).test
    assert test is not None
    scores = majority(test)
    statement = re.search(
        r"On the (\d+) test images of the demo, always predicting \*(\w+)\* has a pixel accuracy of \*\*(\d+) %\*\* and an mIoU "
        r"of \*\*(\d+) %\*\*",
        " ".join(README.split()),
    )
    assert statement is not None
    accuracy, miou = scores.pixel_accuracy.value or 0, scores.miou.value or 0
    assert statement.groups() == (str(len(test)), "background", f"{100 * accuracy:.0f}", f"{100 * miou:.0f}")
