"""Time and memory of the connected components of a mask of 4096×4096, compared with scikit-image and scipy.

    python -m benchmarks.measuring               # measure, write benchmarks/results/measuring.json, print the table
    python -m benchmarks.measuring --table       # only print the table of the results so far

The masks are synthetic, of eight classes: smooth regions, and the same with one pixel in a hundred replaced by a random class. All methods
find the number of pixels, the bounding box and the centroid of every region, with corners connected; ours finds holes and contact with the
border, too. Rounds alternate between the methods, and times are medians. Memory is the peak that a call adds to a fresh process, without
the mask (Linux). In addition, the memory for a mask of 12,000×12,000 that is read band by band, which only pixelwise does.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.protocol import NOT_MEASURED, added_memory, processor, read_json, version, write_json
from pixelwise.labels import Labels
from pixelwise.measuring.components import find_components
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.scale import pixels
from pixelwise.tiles import Window

RESULT = Path(__file__).parent / "results" / "measuring.json"
SIDE, STREAMED_SIDE, CLASSES = 4096, 12_000, 8
OURS, SKIMAGE, SCIPY = "pixelwise", "scikit-image", "scipy, class by class"
KINDS = ("smooth", "ragged")
PACKAGES = {OURS: "pixelwise", SKIMAGE: "scikit-image", SCIPY: "scipy"}
_LABELS = Labels(tuple(f"class {k}" for k in range(CLASSES)))
_TWO = Labels(("background", "rectangle"))
_PIXELS = pixels(2, "synthetic")


@dataclass(frozen=True)
class Stripes:
    """A mask of rectangles that is computed when it is read; a `measuring.masks.MaskSource`."""

    side: int
    id: str = "stripes"
    labels: Labels = _TWO

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.side, self.side

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return rectangles of 50×60 pixels, whose corners touch along diagonals."""
        rows, columns = (np.arange(a, b) for a, b in zip(window.start, window.stop, strict=True))
        return ((rows[:, None] // 50 + columns // 60) % 7 == 0).astype(np.uint8)

    def confidence(self, window: Window) -> None:
        """Return None: unknown."""


def draw(kind: str, side: int) -> NDArray[np.uint8]:
    """Return a mask (side, side) with regions of some thousand pixels; `side` is a multiple of 4."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(CLASSES, side // 4, side // 4))
    mask = np.kron(ndimage.gaussian_filter(noise, (0, 4, 4)).argmax(0).astype(np.uint8), np.ones((4, 4), np.uint8))
    if kind == "ragged":
        replaced = generator.random(mask.shape) < 0.01
        mask[replaced] = generator.integers(0, CLASSES, int(replaced.sum()))
    return mask


def methods(mask: NDArray[np.uint8]) -> dict[str, Callable[[], int]]:
    """Return a function per method that measures all regions and returns their number."""

    def skimage() -> int:
        from skimage.measure import label, regionprops_table

        # Index 0 is a class here, but the background there.
        numbered = label(mask + np.uint8(1), background=0, connectivity=2)
        return len(regionprops_table(numbered, properties=("area", "bbox", "centroid"))["area"])

    def scipy() -> int:
        total, ones = 0, np.ones(mask.shape, np.uint8)
        for k in range(CLASSES):
            numbered, count = ndimage.label(mask == k, np.ones((3, 3)))
            np.bincount(numbered.reshape(-1))
            ndimage.find_objects(numbered)
            ndimage.center_of_mass(ones, numbered, np.arange(1, count + 1))
            total += count
        return total

    source = ArrayMask(mask, _LABELS)
    return {OURS: lambda: len(find_components(source, _PIXELS).pixels), SKIMAGE: skimage, SCIPY: scipy}


def measure(side: int, rounds: int) -> list[dict[str, Any]]:
    """Measure all methods on both kinds of masks, in alternating rounds.

    Raises:
        SystemExit: the methods find different numbers of regions.
    """
    rows = []
    for kind in KINDS:
        work = methods(draw(kind, side))
        found = {name: method() for name, method in work.items()}
        if len(set(found.values())) > 1:
            raise SystemExit(f"{kind}: expected the same number of regions from all methods, found {found}.")
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds):
            for name, method in work.items():
                began = time.perf_counter()
                method()
                taken[name].append(time.perf_counter() - began)
        for name, seconds in taken.items():
            facts = {"method": name, "kind": kind, "regions": found[name], "ms": 1000 * statistics.median(seconds)}
            rows.append(facts | {"mib": peak(name, kind, side)})
    return rows


def peak(name: str, kind: str, side: int) -> float:
    """Return the peak memory that a method adds to a fresh process, MiB; of `Stripes` if the kind is "streamed"."""
    command = [sys.executable, "-m", "benchmarks.measuring", "--peak", name, "--kind", kind, "--side", str(side)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(name: str, kind: str, side: int) -> None:
    methods(draw("smooth", 64))[name]()  # load what is loaded on first use
    work = (lambda: find_components(Stripes(side), _PIXELS)) if kind == "streamed" else methods(draw(kind, side))[name]
    print(added_memory(work)[1] / 2**20)


def table(path: Path = RESULT) -> str:
    """Return a table of the committed measurements with ratios to pixelwise."""
    if not path.exists():
        return NOT_MEASURED
    data = read_json(path)
    rows = {(row["method"], row["kind"]): row for row in data["rows"]}
    counts = [f"{rows[OURS, kind]['regions']:,} {kind} regions, ms | ratio | memory, MiB" for kind in KINDS]
    lines = ["| method | " + " | ".join(counts) + " |", "|---" * (1 + 3 * len(KINDS)) + "|"]
    for name in PACKAGES:
        cells = [
            f"{rows[name, kind]['ms']:.0f} | {rows[name, kind]['ms'] / rows[OURS, kind]['ms']:.1f} | {rows[name, kind]['mib']:.0f}"
            for kind in KINDS
        ]
        lines.append(f"| {name} {data['versions'][name]} | " + " | ".join(cells) + " |")
    streamed = (
        f"{data['streamed_side']:,} × {data['streamed_side']:,} pixels band by band: {data['streamed_mib']:.0f} MiB."
    )
    where = f"{data['side']:,} × {data['side']:,} pixels, {CLASSES} classes, {data['rounds']} rounds on one core of {data['processor']}"
    return "\n".join([*lines, "", f"{where}; pixelwise at {data['commit']}. {streamed}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=SIDE, help="of the masks, in pixels, a multiple of 4")
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    parser.add_argument("--peak", choices=PACKAGES, help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=(*KINDS, "streamed"), default=KINDS[0], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        _print_peak(options.peak, options.kind, options.side)
        return
    if not options.table:
        facts = {"processor": processor(), "commit": version(), "rounds": options.rounds, "side": options.side}
        facts |= {"versions": {name: installed(package) for name, package in PACKAGES.items()}}
        facts |= {"streamed_side": STREAMED_SIDE, "streamed_mib": peak(OURS, "streamed", STREAMED_SIDE)}
        write_json(RESULT, facts | {"rows": measure(options.side, options.rounds)})
    print(table())


if __name__ == "__main__":
    main()
