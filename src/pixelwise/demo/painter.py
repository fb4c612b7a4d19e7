"""Paint polygons in world coordinates on a canvas of colour and material, later ones over earlier ones.

Polygons are clipped at a near plane, and fade into haze with their depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pixelwise.demo.backdrop import Array, Camera, Light, rgb

_NEAR = 0.6


def clip_near(points: Array) -> Array:
    """Clip a polygon (N, 3) at the plane z = 0.6 m, so that it can be projected; (0, 3) if nothing is left."""
    kept: list[Array] = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] < _NEAR) != (b[2] < _NEAR):
            kept.append(a + (b - a) * ((_NEAR - a[2]) / (b[2] - a[2])))
    return np.array(kept, np.float32).reshape(-1, 3)


@dataclass(frozen=True)
class Painter:
    """Collect polygons in world coordinates and paint them together, which is fast.

    Args:
        camera, light: of the scene; `within` changes the light for one object.
        strokes: polygons, colours and material added so far.
    """

    camera: Camera
    light: Light
    strokes: list[tuple[Sequence[Array], Array, int]] = field(default_factory=list)

    def within(self, share: float) -> Painter:
        """Return a painter for an object that receives `share` of the direct light."""
        return replace(self, light=replace(self.light, direct=self.light.direct * np.float32(share)))

    def pixels(self, z: float) -> float:
        """Return the canvas pixels per metre at depth z."""
        return self.camera.focal / max(z, _NEAR)

    def lit(self, colour: Array, normal: Array) -> Array:
        """Shade one colour (3,) of a surface with outward normal (3,)."""
        shaded: Array = self.light.lit(colour[None], normal[None])[0]
        return shaded

    def paint(self, polygons: Sequence[Array] | Array, colours: Array, material: int) -> None:
        """Add polygons, each (N, 3), with shaded colours (M, 3)."""
        if len(polygons):
            self.strokes.append((list(polygons), colours, material))

    def finish(self, canvas: Image.Image) -> None:
        """Paint everything on an RGBA canvas whose fourth band is the material."""
        polygons = [p for stroke in self.strokes for p in stroke[0]]
        materials = [stroke[2] for stroke in self.strokes for _ in stroke[0]]
        colours = np.concatenate([stroke[1] for stroke in self.strokes]).astype(np.float32)
        sizes = np.array([len(p) for p in polygons])
        depth = np.add.reduceat(np.concatenate(polygons)[:, 2], np.cumsum(sizes) - sizes) / sizes
        fills = np.clip(self.light.hazed(colours, np.maximum(depth, 0)) * 255, 0, 255).astype(np.uint8)
        fill_polygons(canvas, self.camera, polygons, [(*f, m) for f, m in zip(fills.tolist(), materials, strict=True)])


def fill_polygons(canvas: Image.Image, camera: Camera, polygons: Sequence[Array], fills: Sequence[Any]) -> None:
    """Fill polygons in world coordinates, each (N, 3), in order, except those behind the camera, outside or tiny."""
    if not polygons:
        return
    sizes = np.array([len(p) for p in polygons])
    points = np.concatenate(polygons).astype(np.float32)
    starts = np.cumsum(sizes) - sizes
    cut = np.minimum.reduceat(points[:, 2], starts) < _NEAR
    points[:, 2] = np.maximum(points[:, 2], _NEAR)
    flat = camera.project(points)
    low, high = np.minimum.reduceat(flat, starts), np.maximum.reduceat(flat, starts)
    rows, columns = camera.shape
    visible = ((high - low).max(1) > 0.8) & (high > 0).all(1) & (low < (columns, rows)).all(1)
    coordinates, begin, end = flat.ravel().tolist(), (2 * starts).tolist(), (2 * (starts + sizes)).tolist()
    pen = ImageDraw.Draw(canvas)
    for k in np.flatnonzero(visible & ~cut | cut).tolist():
        if cut[k]:
            left = clip_near(polygons[k])
            if len(left) > 2:
                pen.polygon(camera.project(left).ravel().tolist(), fill=fills[k])
        else:
            pen.polygon(coordinates[begin[k] : end[k]], fill=fills[k])


def inset(face: Array, boxes: Array) -> Array:
    """Place boxes (M, 4), (u0, v0, u1, v1) in 0…1, on a face (4, 3): bottom left, bottom right, top right, top left."""
    u, v = boxes[:, [0, 2, 2, 0], None], boxes[:, [1, 1, 3, 3], None]
    bottom, top = face[0] * (1 - u) + face[1] * u, face[3] * (1 - u) + face[2] * u
    placed: Array = (bottom * (1 - v) + top * v).astype(np.float32)
    return placed


_PAINTS = (
    (0.88, 0.88, 0.87), (0.88, 0.88, 0.87), (0.62, 0.64, 0.66), (0.40, 0.42, 0.45), (0.13, 0.13, 0.15), (0.13, 0.13, 0.15),
    (0.62, 0.12, 0.11), (0.14, 0.26, 0.50), (0.30, 0.45, 0.62), (0.16, 0.34, 0.26), (0.78, 0.62, 0.20), (0.60, 0.50, 0.40),
    (0.50, 0.32, 0.24),
)  # fmt: skip


def paint_colour(rng: np.random.Generator) -> Array:
    """Draw a colour shared by cars, doors, signs and clothes, so that colour alone does not distinguish them."""
    colour = np.array(_PAINTS[rng.integers(len(_PAINTS))]) * rng.uniform(0.8, 1.1, 3)
    return np.clip(colour, 0.05, 0.95).astype(np.float32)


def outward(face: Array, inside: Array) -> Array:
    """Return the unit normal of a planar face (N, 3) that points away from `inside` (3,)."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = face[:3].tolist()
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    ix, iy, iz = inside.tolist()
    norm = math.copysign(math.sqrt(x * x + y * y + z * z) + 1e-9, x * (ax - ix) + y * (ay - iy) + z * (az - iz))
    return rgb(x / norm, y / norm, z / norm)


def faces_camera(painter: Painter, face: Array, normal: Array) -> bool:
    """Whether the camera is on the outer side of a face."""
    return float((rgb(0, painter.camera.height, 0) - face[0]) @ normal) > 0
