"""Shared by the tests of checks: a small valid data set to corrupt, and surveys without files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.checking import Finding, Inspection, Survey, check, run_checks
from pixelwise.checking.regions import COLUMNS, Column
from pixelwise.config import Config, DataConfig, with_overrides
from pixelwise.datasets.dataset import Dataset, DataSplits, open_data
from pixelwise.formats.records import Record
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Labels

SIZE = 64
SPLITS = (("train", 12), ("val", 10))


def save(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def halves(column: int = SIZE // 2, left: int = 0, right: int = 1, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """Draw a mask of two classes, one left of a column and one right of it."""
    mask = np.full(size, left, np.uint8)
    mask[:, column:] = right
    return mask


def image_of(mask: np.ndarray, seed: int) -> np.ndarray:
    """Draw a unique image (H, W, 3) in which class 1 is brighter."""
    rng = np.random.default_rng(seed)
    height, width = mask.shape
    clouds = rng.integers(0, 90, (-(-height // 8), -(-width // 8), 3), np.uint8)
    clouds = np.kron(clouds, np.ones((8, 8, 1), np.uint8))[:height, :width]
    noise = rng.integers(0, 12, (height, width, 3), np.uint8)
    return (clouds + noise + 60 * (mask[..., None] > 0)).astype(np.uint8)


def draw_good(root: Path, splits: Sequence[tuple[str, int]] = SPLITS) -> None:
    """Draw a data set without problems."""
    for number, (split, count) in enumerate(splits):
        for k in range(count):
            mask = halves(20 + 2 * (k % 12))
            save(root / split / "images" / f"{split}{k:02}.png", image_of(mask, 100 * number + k))
            save(root / split / "masks" / f"{split}{k:02}.png", mask)
    (root / "labels.yaml").write_text("names: [ground, road]\n")


def findings(root: Path, *, skip_bad: bool = True, **config: object) -> list[Finding]:
    """Check a folder."""
    opened = open_data(DataConfig.model_validate({"skip_bad": True, **config}), root)
    return check(opened, skip_bad=skip_bad, workers=0)


def only(found: Iterable[Finding]) -> Finding:
    """Return the only finding."""
    found = list(found)
    assert len(found) == 1, [finding.what for finding in found]
    return found[0]


def of_kind(found: Iterable[Finding], kind: str) -> Finding:
    """Return the only finding of a kind."""
    return only(finding for finding in found if finding.kind == kind)


def kinds(found: Iterable[Finding]) -> list[str]:
    return [finding.kind for finding in found]


def typed(fix: str) -> Config:
    """Apply every --set of a fix as a shell would."""
    options = [shlex.split(text) for text in re.findall(r"--set ('[^']*'|[^\s;]+)", fix.rstrip("."))]
    assert options, fix
    assert all(len(words) == 1 for words in options), fix
    return with_overrides(Config(), [words[0] for words in options])


def row(index: int, pixels: int = 1000, **columns: int) -> list[int]:
    """Make a row of a table: class index, pixels, one region, and named columns (specks=3, lines=10)."""
    values = [0] * COLUMNS
    values[Column.CLASS], values[Column.PIXELS], values[Column.REGIONS] = index, pixels, 1
    for name, value in columns.items():
        values[Column[name.upper()]] = value
    return values


def survey_of(
    subsets: Mapping[str, Sequence[Inspection]],
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] = ("ground", "road"),
    description: Mapping[str, Any] | None = None,
) -> Survey:
    """Make a survey of images without files."""
    root = Path("/set")
    sets = {}
    inspections = []
    labels = Labels(tuple(classes))
    for split, own in subsets.items():
        files = names[split] if names else [f"{split}/images/{k}.png" for k in range(len(own))]
        records = tuple(
            Record(f"{k}", root / file, root / "masks" / file, groups[split][k] if groups else None)
            for k, file in enumerate(files)
        )
        sets[split] = Dataset(labels, records, MaskRule(), split)
        inspections += [replace(one, split=split, index=k) for k, one in enumerate(own)]
    splits = DataSplits(
        sets.get("train"),
        sets.get("val"),
        sets.get("test"),
        labels,
        (),
        (),
        {"root": str(root), "split": {"given": list(subsets)}, **(description or {})},
    )
    return Survey(splits, tuple(inspections))


def inspected(*rows: list[int], **fields: Any) -> Inspection:
    """Make the inspection of a valid image, with rows of its table."""
    table = np.array(rows or [row(0), row(1)], np.uint32)
    usual = {"size": (SIZE, SIZE), "bands": 3, "dtype": "uint8", "spread": 40.0}
    return Inspection("", 0, table=table, **{**usual, **fields})


def signature(vector: np.ndarray) -> bytes:
    """Make a signature from a vector of 143 numbers."""
    return np.rint(vector * (127 / np.linalg.norm(vector))).astype(np.int8).tobytes()


__all__ = [
    "SIZE",
    "SPLITS",
    "draw_good",
    "findings",
    "halves",
    "image_of",
    "inspected",
    "kinds",
    "of_kind",
    "only",
    "row",
    "run_checks",
    "save",
    "signature",
    "survey_of",
    "typed",
]
