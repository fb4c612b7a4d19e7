"""What the benchmarks hold equal: the real data sets, their recipes, and the machine, which is named."""

from __future__ import annotations

import platform
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"
# Minutes of training are compared: none goes into calibrating, further scores or a report.
TRAINING_ALONE = ("evaluate.metrics=[]", "evaluate.temperature=false", "evaluate.report=false")
SETS = ("camvid", "drive", "magnetic_tile", "aerial_roads")


def processor() -> str:
    """Name the processor as the system does."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
