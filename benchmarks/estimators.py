"""Accuracy of perimeters, lengths, widths and surfaces of drawn shapes, compared with scikit-image, SimpleITK and counts of pixels.

    python -m benchmarks.estimators             # a few minutes
    python -m benchmarks.estimators --table     # print the committed results as Markdown

Each shape is drawn at random angles and places between the pixels, on square pixels of side 1: a pixel belongs to it if its centre does. An error is the
difference from the length or area of the drawn shape, as a share of it. SimpleITK is measured where it can be imported.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ellipe

from benchmarks.drawn_shapes import Thin, arc, body, filled, ring, spiral, star, strip, wave
from benchmarks.protocol import NOT_MEASURED, read_json, version, write_json
from pixelwise.measuring.region_contour import contour, perimeter
from pixelwise.measuring.region_length import centre_line, length_and_width, ribbon_length
from pixelwise.measuring.region_surface import surface, surface_area
from pixelwise.measuring.scale import AffineScale
from pixelwise.types import Measurement

RESULT = Path(__file__).parent / "results" / "estimators.json"
DRAWS, DRAWS_3D = 100, 12
OURS = "pixelwise"
Mask = NDArray[np.bool_]
Method = Callable[[Mask], float]
_PIXELS, _VOXELS = (AffineScale(np.eye(n), "px", "none") for n in (2, 3))


# Drawn shapes: a function that draws one, and the true value


def solids() -> dict[str, tuple[Callable[[np.random.Generator], Mask], float]]:
    """Return shapes with their perimeters."""

    def ellipse(a: float, b: float) -> Callable[[np.random.Generator], Mask]:
        return lambda rng: filled(lambda u, v: (u / a) ** 2 + (v / b) ** 2 <= 1, a, rng)

    def rectangle(a: float, b: float) -> Callable[[np.random.Generator], Mask]:
        return lambda rng: filled(lambda u, v: (abs(u) <= a / 2) & (abs(v) <= b / 2), np.hypot(a, b) / 2, rng)

    return {
        "disc of 10": (ellipse(5, 5), 10 * np.pi),
        "disc of 40": (ellipse(20, 20), 40 * np.pi),
        "disc of 200": (ellipse(100, 100), 200 * np.pi),
        "ellipse of 120 × 30": (ellipse(60, 15), 240 * float(ellipe(1 - 1 / 16))),
        "square of 80": (rectangle(80, 80), 320),
        "strip of 120 × 4": (rectangle(120, 4), 248),
    }


def thin_shapes() -> dict[str, list[Thin]]:
    """Return shapes of widths 2, 3, 5 and 10, each 10 to 30 times as long."""
    widths = (2, 3, 5, 10)
    return {
        "strip": [strip(k * w, w) for w in widths for k in (10, 30)],
        "strip, round ends": [strip(k * w, w, flat=False) for w in widths for k in (10, 30)],
        "arc of 90°": [arc(k * w, w, np.pi / 2) for w in widths for k in (10, 30)],
        "arc of 180°": [arc(k * w, w, np.pi, flat=False) for w in widths for k in (10, 30)],
        "ring": [ring(k * w, w) for w in widths for k in (12, 30)],
        "two waves": [wave(30 * w, w, 2, 1.0) for w in widths],
        "spiral": [spiral(30 * w, w, 1.5) for w in widths],
        "Y": [star(k * w, w, (0, 120, 240)) for w in widths for k in (15, 30)],
        "T": [star(k * w, w, (0, 90, 180)) for w in widths for k in (15, 30)],
        "branches at 60°": [star(k * w, w, (0, 60, 200)) for w in widths for k in (15, 30)],
    }


def bodies() -> dict[str, tuple[Callable[[np.random.Generator], Mask], float]]:
    """Return bodies with their surfaces."""

    def ellipsoid(*axes: float) -> Callable[[np.random.Generator], Mask]:
        return lambda rng: body(lambda x: ((x / np.array(axes)) ** 2).sum(-1) <= 1, max(axes), rng)

    def box(*sides: float) -> Callable[[np.random.Generator], Mask]:
        half = np.array(sides) / 2
        return lambda rng: body(lambda x: (np.abs(x) <= half).all(-1), float(np.linalg.norm(half)), rng)

    return {
        "sphere of 10": (ellipsoid(5, 5, 5), 100 * np.pi),
        "sphere of 20": (ellipsoid(10, 10, 10), 400 * np.pi),
        "sphere of 40": (ellipsoid(20, 20, 20), 1600 * np.pi),
        "ellipsoid of 40 × 24 × 24": (ellipsoid(20, 12, 12), 288 * np.pi * (1 + 20 / 9.6 * float(np.arcsin(0.8)))),
        "box of 30 × 20 × 16": (box(30, 20, 16), 2720),
    }


# Methods


def perimeters() -> dict[str, Method]:
    """Return the methods for perimeters by name."""
    from skimage.measure import perimeter as skimage_perimeter
    from skimage.measure import perimeter_crofton

    return {
        OURS: lambda region: perimeter(contour(region, _PIXELS), _PIXELS),
        "skimage perimeter": lambda region: float(skimage_perimeter(np.pad(region, 2))),
        "skimage crofton": lambda region: float(perimeter_crofton(np.pad(region, 2))),
        "pixel edges": faces,
        **_simpleitk(),
    }


def lengths() -> dict[str, Method]:
    """Return the methods for lengths by name."""
    from skimage.morphology import skeletonize

    return {
        OURS: lambda region: thin_sizes(region).get("length", Measurement(np.nan, "", "")).value,
        "perimeter and area": by_perimeter,
        "skimage skeleton pixels": lambda region: float(skeletonize(region).sum()),
    }


def surfaces() -> dict[str, Method]:
    """Return the methods for surfaces by name."""
    return {
        OURS: lambda region: surface_area(surface(region, _VOXELS), _VOXELS),
        "voxel faces": faces,
        **_simpleitk(),
    }


def faces(region: Mask) -> float:
    """Return the number of edges of pixels, or faces of voxels, between the inside and the outside."""
    padded = np.pad(region, 1)
    return float(sum((np.diff(padded, axis=axis)).sum() for axis in range(region.ndim)))


def by_perimeter(region: Mask) -> float:
    """Return the length from the perimeter and area."""
    return ribbon_length(perimeter(contour(region, _PIXELS), _PIXELS), float(region.sum()), holes(region))


def thin_sizes(region: Mask) -> dict[str, Measurement]:
    """Return length and width."""
    around = perimeter(contour(region, _PIXELS), _PIXELS)
    line = centre_line(region, _PIXELS, around, holes(region))
    return length_and_width(line, _PIXELS, around, float(region.sum()), holes(region))


def holes(region: Mask) -> int:
    """Return the number of holes."""
    return int(ndimage.label(~np.pad(region, 1))[1]) - 1


def _simpleitk() -> dict[str, Method]:
    if importlib.util.find_spec("SimpleITK") is None:
        return {}
    import SimpleITK  # type: ignore[import-not-found]

    def measured(region: Mask) -> float:
        found = SimpleITK.LabelShapeStatisticsImageFilter()
        found.ComputePerimeterOn()
        found.Execute(SimpleITK.GetImageFromArray(np.pad(region, 2).astype(np.uint8)))
        return float(found.GetPerimeter(1))

    return {"SimpleITK": measured}


# Measuring


def errors(method: Method, masks: list[tuple[Mask, float]]) -> dict[str, float]:
    """Return the largest error of a method, its mean, and the root of its mean square, as shares of the truth."""
    found = np.array([method(region) / truth - 1 for region, truth in masks])
    found = found[np.isfinite(found)]
    worst = found[np.abs(found).argmax()]
    return {"worst": float(worst), "mean": float(found.mean()), "rms": float(np.sqrt((found**2).mean()))}


def measure(draws: int, draws_3d: int) -> dict[str, Any]:
    """Measure all methods on all shapes."""
    found: dict[str, Any] = {"perimeter": {}, "length": {}, "surface": {}}
    for quantity, shapes, methods, count in (
        ("perimeter", solids(), perimeters(), draws),
        ("surface", bodies(), surfaces(), draws_3d),
    ):
        for name, (draw, truth) in shapes.items():
            rng = np.random.default_rng(0)
            masks = [(draw(rng), truth) for _ in range(count)]
            found[quantity][name] = {method: errors(work, masks) for method, work in methods.items()}
    held = []
    for name, thin in thin_shapes().items():
        rng = np.random.default_rng(0)
        masks = []
        for k in range(draws):
            shape = thin[k % len(thin)]
            region = shape.draw(rng.uniform(0, np.pi), rng.random(2), np.eye(2))
            masks.append((region, shape.length))
            sizes = thin_sizes(region)
            held.append([_within(sizes["length"], shape.length), _within(sizes["width"], shape.width)])
        found["length"][name] = {method: errors(work, masks) for method, work in lengths().items()}
    found["held"] = dict(zip(("length", "width"), np.mean(held, 0).tolist(), strict=True))
    return found


def _within(found: Measurement, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


# Table


def table(path: Path = RESULT) -> str:
    """Return tables of the committed errors: the largest, and the root of the mean square in brackets."""
    if not path.exists():
        return NOT_MEASURED
    data = read_json(path)
    parts = [_table(quantity, data[quantity]) for quantity in ("perimeter", "length", "surface")]
    packages = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    held = data["held"]
    parts.append(
        f"The intervals held {100 * held['length']:.1f} % of the lengths and {100 * held['width']:.1f} % of the widths. "
        f"{data['draws']} drawings of each shape, {data['draws_3d']} of each body; {packages}; pixelwise at {data['commit']}."
    )
    return "\n\n".join(parts)


def _table(quantity: str, rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    methods = list(next(iter(rows.values())))
    if quantity != "length" and "SimpleITK" not in methods:
        methods.append("SimpleITK")
    lines = [f"| {quantity} | " + " | ".join(methods) + " |", "|---" * (1 + len(methods)) + "|"]
    for name, found in rows.items():
        cells = [
            f"{100 * found[method]['worst']:+.1f} % ({100 * found[method]['rms']:.1f})" if method in found else "–"
            for method in methods
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--draws-3d", type=int, default=DRAWS_3D)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    options = parser.parse_args()
    if not options.table:
        packages = ["scikit-image", *(["SimpleITK"] if _simpleitk() else [])]
        facts = {"commit": version(), "draws": options.draws, "draws_3d": options.draws_3d}
        facts |= {"versions": {name: installed(name) for name in packages}}
        write_json(RESULT, facts | measure(options.draws, options.draws_3d))
    print(table())


if __name__ == "__main__":
    main()
