"""What tests share: small drawn data sets, tiny settings, and the real images where they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pixelwise import storage

# Tests that import openvino themselves report nothing to its makers.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's cache folder out of the tests, in which engines chosen before would change results."""
    folder = tmp_path_factory.mktemp("user_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "user_cache_path", lambda name: folder / name)
        yield folder / "pixelwise"


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few images of discs: background and disc."""
    from pixelwise.demo.synthetic import write_discs

    folder = tmp_path_factory.mktemp("discs")
    write_discs(folder, train=12, val=4, test=4, size=(64, 64), seed=0)
    return folder


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make a run take seconds."""
    return (
        "model.features=[4,8]",
        "model.stem=1",
        "train.crop=[32,32]",
        "train.batch_size=4",
        "train.precision=fp32",
        "train.channels_last=false",
        "train.validations=2",
    )


@pytest.fixture
def real() -> Callable[[str], Path]:
    """Give the folder of a real data set, or skip."""

    def find(name: str) -> Path:
        if not (REAL / name).exists():
            pytest.skip(f"real images are not at hand: {REAL / name}")
        return REAL / name

    return find
