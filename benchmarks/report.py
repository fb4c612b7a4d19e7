"""Write the tables of docs/results.md from the committed measurements in `benchmarks/results/`.

python -m benchmarks.report
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    ablation,
    checking,
    coverage_sizes,
    estimators,
    feature_cache,
    few_labels,
    inference,
    intervals,
    losses,
    metrics,
    pretraining,
    quality_per_minute,
    quarter,
    recipes,
    scenes,
    time_limit,
    training,
    volumes,
)

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
TABLES: dict[str, Callable[[], str]] = {
    "recipes": recipes.table,
    "quality per minute": quality_per_minute.table,
    "few labels": few_labels.table,
    "ablation": ablation.table,
    "ablation fpn": lambda: ablation.table("fpn"),
    "pretraining": lambda: pretraining.table("unet", 1.5),
    "feature cache": feature_cache.table,
    "inference": inference.table,
    "scenes": scenes.table,
    "volumes": volumes.table,
    "metrics": metrics.table,
    "checking": checking.table,
    "losses": losses.table,
    "quarter": lambda: quarter.table("segformer-b0", 2.0),
    "training": training.table,
    "time limits": time_limit.table,
    "intervals": intervals.table,
    "sizes": coverage_sizes.table,
    "estimators": estimators.table,
}


def filled(text: str) -> str:
    """Return the page with all tables regenerated; every table needs its mark exactly once."""
    for mark, table in TABLES.items():
        text, count = re.subn(
            rf"(<!-- {mark} -->\n).*?(<!-- end -->)",
            lambda found, table=table: f"{found[1]}{table()}\n{found[2]}",
            text,
            flags=re.S,
        )
        if count != 1:
            raise SystemExit(f"{PAGE}: expected one mark <!-- {mark} -->, found {count}.")
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)
