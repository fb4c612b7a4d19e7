"""Every recipe runs two steps on its real images, and finds what its comments promise."""

from collections.abc import Callable
from pathlib import Path

import pytest

import pixelwise

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def test_there_is_one_recipe_for_each_kind_of_user() -> None:
    assert {r.stem for r in RECIPES} >= {"camvid", "drive", "magnetic_tile", "aerial_roads"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_two_steps(recipe: Path, real: Callable[[str], Path], tmp_path: Path) -> None:
    few = (
        "model.features=[4,8]",
        "train.crop=[64,64]",
        "train.batch_size=2",
        "train.cache=false",
        "train.validations=1",
        "evaluate.metrics=[]",
        "evaluate.temperature=false",
        "evaluate.report=false",
    )
    root = f"data.root={real(recipe.stem)}"
    run = pixelwise.train(recipe, out=tmp_path / "run", steps=2, overrides=(root, *few))
    assert 0 <= run.scores["miou"] <= 1
    assert run.scores["images"] > 0
