"""A small valid data set, for each test to corrupt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.checking.drawn import draw_good


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve valid images for train and ten for val, read-only."""
    root = tmp_path_factory.mktemp("good")
    draw_good(root)
    return root


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of the valid data set, to be corrupted."""
    shutil.copytree(good, tmp_path / "set")
    return tmp_path / "set"
