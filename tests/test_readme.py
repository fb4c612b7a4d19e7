"""Statements of the README and of the page about models that can be computed."""

import re
from pathlib import Path

import pytest

from pixelwise.models.catalogue import export_table, table

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


def test_the_table_of_exports_is_that_of_the_catalogue() -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert page.partition("<!-- networks -->\n")[2].partition("\n<!-- end -->")[0] == export_table()


def rows(page: str, mark: str | None = None) -> dict[str, list[str]]:
    """The rows of the tables of a page, or of the one behind a mark, by their first cell."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if mark is not None:
        text = text.partition(f"<!-- {mark} -->")[2].partition("<!-- end -->")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {row[0]: row[1:] for row in cells}


def test_the_scores_after_four_minutes_are_those_of_the_table() -> None:
    text = " ".join(README.split())
    table = rows("results.md", "quality per minute")
    by_method = dict(zip(table["mIoU"], table["camvid, 4 min"], strict=True))
    ours, smp = (by_method[method].split()[0] for method in ("pixelwise", "smp_pretrained"))
    assert f"CamVid test mIoU is {ours}, against {smp} for segmentation_models.pytorch's" in text


def test_the_figures_are_those_of_the_tables() -> None:
    text = " ".join(README.split())
    libraries = {name: cells for name, cells in rows("conformance.md").items() if len(cells) == 5 and "of" in cells[3]}
    right, _, _, answered, _ = libraries.pop("pixelwise")
    others = max(libraries.values(), key=lambda cells: int(cells[0]))
    assert f"Of {answered.split()[2]} known pitfalls" in text
    assert right == answered.split()[0], "all that it covers"
    assert f"pixelwise covers {right} and gets all of them right" in text
    assert f"covers {others[3].split()[0]} and gets {others[0]} right" in text
    counters = rows("results.md", "metrics")
    faster = {name.split()[0]: cells[1] for name, cells in counters.items()}
    assert f"{faster['torchmetrics']} times faster than in torchmetrics" in text
    assert f"{faster['segmentation_models.pytorch']} times faster than in segmentation_models.pytorch" in text


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
