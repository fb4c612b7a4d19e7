"""A small good data set, for each test to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.checking.drawn import draw_good


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve good images for train and ten for val, to be looked at only."""
    root = tmp_path_factory.mktemp("good")
    draw_good(root)
    return root


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of the good data set, to be spoiled."""
    shutil.copytree(good, tmp_path / "set")
    return tmp_path / "set"
