"""Time of dividing a mask of 4096×4096 into polygons with holes, compared with rasterio (GDAL).

    python -m benchmarks.vectors               # measure, write benchmarks/results/vectors.json, print the table
    python -m benchmarks.vectors --table       # only print the table of the results so far

The masks are those of `benchmarks.measuring`. Both methods return the coordinates of all polygons, with pixels connected by edges. Rounds
alternate between the methods, and times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import CLASSES, KINDS, SIDE, draw
from benchmarks.protocol import NOT_MEASURED, processor, read_json, version, write_json
from pixelwise.geometry.pixel_polygons import find_borders

RESULT = Path(__file__).parent / "results" / "vectors.json"
OURS, GDAL = "pixelwise", "rasterio"
_ROWS = 1024


def methods(mask: NDArray[np.uint8]) -> dict[str, Callable[[], int]]:
    """Return a function per method that divides a mask and returns the number of polygons."""

    def ours() -> int:
        bands = (mask[start : start + _ROWS] for start in range(0, len(mask), _ROWS))
        return sum(1 for _ in find_borders(bands).polygons())

    def gdal() -> int:
        from rasterio.features import shapes

        return sum(1 for _ in shapes(mask, connectivity=4))

    return {OURS: ours, GDAL: gdal}


def measure(side: int, rounds: int) -> list[dict[str, Any]]:
    """Return time and number of polygons per method and kind of mask."""
    rows = []
    for kind in KINDS:
        work = methods(draw(kind, side))
        found = {name: method() for name, method in work.items()}
        if len(set(found.values())) > 1:
            raise SystemExit(f"{kind}: expected the same number of polygons from all methods, found {found}.")
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds):
            for name, method in work.items():
                began = time.perf_counter()
                method()
                taken[name].append(time.perf_counter() - began)
        rows += [
            {"method": name, "kind": kind, "polygons": found[name], "ms": 1000 * statistics.median(seconds)}
            for name, seconds in taken.items()
        ]
    return rows


def table(path: Path = RESULT) -> str:
    """Return a table of the committed measurements with ratios to pixelwise."""
    if not path.exists():
        return NOT_MEASURED
    data = read_json(path)
    rows = {(row["method"], row["kind"]): row for row in data["rows"]}
    counts = [f"{rows[OURS, kind]['polygons']:,} {kind} polygons, ms | ratio" for kind in KINDS]
    lines = ["| method | " + " | ".join(counts) + " |", "|---" * (1 + 2 * len(KINDS)) + "|"]
    for name in (OURS, GDAL):
        cells = [
            f"{rows[name, kind]['ms']:.0f} | {rows[name, kind]['ms'] / rows[OURS, kind]['ms']:.1f}" for kind in KINDS
        ]
        lines.append(f"| {name} {data['versions'][name]} | " + " | ".join(cells) + " |")
    size = f"{data['side']:,} × {data['side']:,} pixels, {CLASSES} classes, {data['rounds']} rounds on one core"
    return "\n".join([*lines, "", f"{size} of {data['processor']}; pixelwise at {data['commit']}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=SIDE, help="of the masks, in pixels, a multiple of 4")
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    options = parser.parse_args()
    if not options.table:
        facts = {"processor": processor(), "commit": version(), "rounds": options.rounds, "side": options.side}
        facts |= {"versions": {name: installed(name) for name in (OURS, GDAL)}}
        write_json(RESULT, facts | {"rows": measure(options.side, options.rounds)})
    print(table())


if __name__ == "__main__":
    main()
