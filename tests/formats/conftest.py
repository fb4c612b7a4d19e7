"""A small data set in every format, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.formats.small_data import write_format, write_source


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of the data set in a format; it must not be changed."""
    splits = write_source(tmp_path_factory.mktemp("source"))
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in folders:
            folders[name] = write_format(splits, name, tmp_path_factory.mktemp(name.replace("/", "_")))
        return folders[name]

    return write
