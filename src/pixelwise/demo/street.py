"""Lay out a synthetic road scene and paint it, far objects first. Coordinates and colours as in `backdrop`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from pixelwise.demo import backdrop, roadside, traffic
from pixelwise.demo.backdrop import Array, Camera, Light, Road
from pixelwise.demo.painter import Painter, fill_polygons

Scene = backdrop.Scene


@dataclass(frozen=True)
class _Object:
    """An object of the scene.

    Args:
        depth: objects are painted in order of decreasing depth.
        foot: corners (N, 2), (x, z), of its footprint.
        rise: lowest and highest height in metres that casts a shadow.
        on_street: whether it is small, on the street, and darkened by the shadows of others.
        paint: paints it.
    """

    depth: float
    foot: Array
    rise: tuple[float, float]
    on_street: bool
    paint: Callable[[Painter, np.random.Generator], None]


_SETTINGS = ("town", "suburb", "country")


def paint_street(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Image.Image, Light]:
    """Lay out a scene and paint it at twice its size; the bands are red, green, blue and material."""
    setting = _SETTINGS[int(rng.choice(3, p=(0.45, 0.35, 0.20)))]
    light = backdrop.draw_light(rng)
    road = _draw_road(rng, setting)
    camera = _draw_camera(rng, (2 * size[0], 2 * size[1]))
    objects = [*_sides(rng, road, setting), *_traffic(rng, road, setting), *_people(rng, road)]
    objects = sorted(objects, key=lambda o: -o.depth)
    small = np.empty((*size, 4), np.uint8)
    backdrop.paint_sky(small, camera, light, rng)
    shadow, shaded = _shadows(objects, camera, light)
    ground = backdrop.draw_ground(rng, setting == "town")
    canvas = backdrop.paint_ground(small, camera, road, light, ground, shadow, rng)
    painter = Painter(camera, light)
    roadside.skyline(painter, rng, setting == "town")
    dim = painter.within(0.25)
    for item, dark in zip(objects, shaded, strict=True):
        if _in_view(camera, item):
            item.paint(dim if dark else painter, rng)
    painted = Image.fromarray(canvas)
    painter.finish(painted)
    return painted, light


def _in_view(camera: Camera, item: _Object) -> bool:
    """Whether an object may be visible, with a margin of two metres around its footprint."""
    reach = (camera.shape[1] + camera.shape[0] * abs(math.sin(camera.roll)) * 2) / 2 / camera.focal
    x, z = item.foot[:, 0], item.foot[:, 1] + 2
    return bool(z.max() > 2.6 and (x - 2 < reach * z).any() and (x + 2 > -reach * z).any())


def _draw_camera(rng: np.random.Generator, shape: tuple[int, int]) -> Camera:
    reach = math.sqrt(shape[0] * shape[1])
    focal = reach * rng.uniform(0.85, 1.35)
    height = float(rng.choice([rng.uniform(1.2, 1.7), rng.uniform(1.7, 3.2)], p=(0.6, 0.4)))
    horizon = shape[0] * rng.uniform(-0.17, 0.12)
    return Camera(shape, height, focal, horizon, math.radians(float(np.clip(rng.normal(0, 1.8), -5, 5))))


def _draw_road(rng: np.random.Generator, setting: str) -> Road:
    lanes, lane = int(rng.choice([2, 2, 2, 3, 4])), rng.uniform(2.9, 3.5)
    parking = rng.uniform(2.1, 2.5) if setting != "country" and rng.random() < 0.6 else 0.0
    pavement = {"town": rng.uniform(2.4, 4.2), "suburb": rng.uniform(1.5, 2.4), "country": 0.0}[setting]
    side = 1 if rng.random() < 0.5 else -1
    half = lanes * lane / 2 + parking
    if rng.random() < 0.62:  # the camera drives in a lane
        position = side * lane * (0.5 * (lanes % 2 == 0) + int(rng.integers(lanes // 2))) + float(rng.normal(0, 0.4))
        offset, slope = -position, float(rng.normal(0, 0.09))
    else:  # the camera is beside the road
        where = 1 if rng.random() < 0.5 else -1
        offset = -where * (half + rng.uniform(-1.5, max(pavement - 0.8, 0.4)))
        slope = where * rng.uniform(0.02, 0.42)
    bend = float(rng.choice([-1, 1])) / rng.uniform(35, 160) if rng.random() < 0.75 else 0.0
    zebra = rng.uniform(8, 26) if setting != "country" and rng.random() < 0.25 else -1.0
    style = int(rng.choice([0, 1, 2], p=(0.15, 0.55, 0.30)))
    return Road(offset, slope, bend, rng.uniform(25, 60), lanes, lane, parking, pavement, side, style, zebra)


def _sides(rng: np.random.Generator, road: Road, setting: str) -> list[_Object]:
    """Place buildings, trees, hedges and poles along both sides."""
    objects: list[_Object] = []
    for side in (-1, 1):
        front = road.half + road.pavement + {"town": 0.0, "suburb": rng.uniform(3, 6), "country": 12.0}[setting]
        z = -9.0
        while z < (140 if setting == "town" else 110):
            length = rng.uniform(9, 20) if setting == "town" else rng.uniform(8, 13)
            built = rng.random() < {"town": 0.93, "suburb": 0.8, "country": 0.12}[setting]
            if built:
                objects.append(_house(rng, road, side, z, length, front, setting == "town"))
            elif z > 6:
                objects += [_tree(rng, road, side, z + rng.uniform(0, length), front + rng.uniform(0, 8)) for _ in "ab"]
            gap = 0.02 if setting == "town" and rng.random() < 0.8 else rng.uniform(2.5, 9)
            z += length + gap
        objects += _verge(rng, road, side, setting, front)
    return objects


def _verge(rng: np.random.Generator, road: Road, side: int, setting: str, front: float) -> list[_Object]:
    """Place trees, hedges and street furniture between the road and the houses."""
    objects: list[_Object] = []
    kerb = road.half + 0.5
    if setting == "town":
        spots = np.arange(rng.uniform(6, 14), 95, rng.uniform(9, 16)) if rng.random() < 0.55 else np.array([])
        objects += [_tree(rng, road, side, z, kerb + 0.4, 0.75) for z in spots]
    else:
        count = 9 if setting == "suburb" else 13
        spread = (front - road.half - road.pavement) if setting == "suburb" else 26.0
        for z in rng.uniform(7, 100, count):
            objects.append(_tree(rng, road, side, z, road.half + road.pavement + 1.2 + rng.random() ** 2 * spread))
        for z in rng.uniform(5, 60, 3):
            objects.append(_hedge(road, side, z, road.half + road.pavement + 0.8, rng.uniform(4, 9)))
    for z in rng.uniform(6, 55, int(rng.integers(2, 7))):
        x, depth, _ = road.place(z, side * kerb)
        foot = np.array([[x - 0.1, depth], [x + 0.1, depth], [x, depth + 0.2]], np.float32)
        inward = -float(side)
        objects.append(_Object(depth, foot, (0.0, 1.0), True, partial(roadside.pole, x=x, z=depth, inward=inward)))
    return objects


def _house(
    rng: np.random.Generator, road: Road, side: int, z: float, length: float, front: float, town: bool
) -> _Object:
    depth = rng.uniform(8, 12)
    front = front + (0.0 if town else rng.uniform(0, 3))
    corners = [(z, front), (z + length, front), (z + length, front + depth), (z, front + depth)]
    plan = np.array([road.place(a, side * b)[:2] for a, b in corners], np.float32)
    facade = roadside.draw_facade(rng, town)
    tall = facade.storeys * facade.storey
    far = float(plan[:, 1].max()) if not town else z + length
    return _Object(far, plan, (0.0, tall), False, partial(roadside.building, plan=plan, facade=facade))


def _tree(rng: np.random.Generator, road: Road, side: int, z: float, across: float, scale: float = 1.0) -> _Object:
    x, depth, _ = road.place(z, side * across)
    height = rng.uniform(4.5, 10) * scale
    turn = np.arange(9) * (2 * math.pi / 9)
    foot = np.stack([x + np.cos(turn) * height * 0.26, depth + np.sin(turn) * height * 0.26], 1).astype(np.float32)
    conifer = bool(rng.random() < 0.25 and scale == 1.0)
    draw = partial(roadside.tree, x=x, z=depth, height=height, conifer=conifer)
    return _Object(depth, foot, (height * 0.35, height * 0.9), False, draw)


def _hedge(road: Road, side: int, z: float, across: float, length: float) -> _Object:
    a, b = road.place(z, side * across)[:2], road.place(z + length, side * across)[:2]
    foot = np.array([(a[0] - 0.5, a[1]), (a[0] + 0.5, a[1]), (b[0] + 0.5, b[1]), (b[0] - 0.5, b[1])], np.float32)
    return _Object((a[1] + b[1]) / 2, foot, (0.0, 1.1), False, partial(roadside.hedge, start=a, end=b))


def _traffic(rng: np.random.Generator, road: Road, setting: str) -> list[_Object]:
    """Place vehicles in the lanes, in both directions, and parked ones at the kerb."""
    objects: list[_Object] = []
    for lane in range(road.lanes):
        across = (lane + 0.5 - road.lanes / 2) * road.lane
        onward = across * road.side > 0 or (road.lanes == 3 and lane == 1)
        z = rng.uniform(7, 26)
        while z < 85:
            if rng.random() < 0.62:
                parts = traffic.draw_vehicle(rng)
                z += parts[0].length / 2
                objects.append(_vehicle(rng, road, parts, z, across + rng.normal(0, 0.15), onward))
                z += parts[0].length / 2
            z += rng.uniform(4, 26)
    for side in (-1, 1):
        if road.parking and rng.random() < 0.75:
            z = rng.uniform(5, 14)
            while z < 70:
                parts = traffic.draw_vehicle(rng, parked=True)
                if rng.random() < 0.6:
                    place = side * (road.half - 0.25 - parts[0].width / 2)
                    objects.append(_vehicle(rng, road, parts, z, place, rng.random() < 0.8))
                z += parts[0].length + rng.uniform(0.8, 2.0)
    return objects


def _vehicle(
    rng: np.random.Generator, road: Road, parts: tuple[traffic.Body, ...], z: float, across: float, onward: bool
) -> _Object:
    x, depth, heading = road.place(z, across)
    heading += (0.0 if onward else math.pi) + rng.normal(0, 0.02)
    foot = traffic.footprint(parts, x, depth, heading)
    tall = parts[0].profile[4][1] * 0.9
    draw = partial(traffic.vehicle, parts=parts, x=x, z=depth, heading=heading)
    return _Object(depth, foot, (0.0, tall), True, draw)


def _people(rng: np.random.Generator, road: Road) -> list[_Object]:
    """Place pedestrians on the pavements, some crossing the road, some in pairs."""
    objects: list[_Object] = []
    for _ in range(int(rng.integers(3, 10))):
        z = 4.5 + 30 * rng.random() ** 1.5
        crossing = rng.random() < 0.22
        if crossing:
            z = road.zebra + rng.uniform(0.5, 3) if road.zebra > 0 else z + 3
            across = rng.uniform(-1, 1) * road.half
        else:
            across = float(rng.choice([-1, 1])) * (road.half + rng.uniform(0.6, max(road.pavement - 0.4, 1.6)))
        for beside in (0.0, rng.uniform(0.6, 0.8)) if rng.random() < 0.3 else (0.0,):
            objects.append(_person(rng, road, z + beside * 0.3, across + beside, crossing))
    return objects


def _person(rng: np.random.Generator, road: Road, z: float, across: float, crossing: bool) -> _Object:
    x, depth, _ = road.place(z, across)
    height = rng.uniform(1.1, 1.4) if rng.random() < 0.1 else rng.uniform(1.55, 1.92)
    profile = bool(crossing or rng.random() < 0.25)
    foot = np.array(
        [[x - 0.22, depth - 0.1], [x + 0.22, depth - 0.1], [x + 0.22, depth + 0.14], [x - 0.22, depth + 0.14]],
        np.float32,
    )
    facing = 1 if rng.random() < 0.5 else -1
    draw = partial(traffic.pedestrian, x=x, z=depth, height=height, profile=profile, facing=facing)
    return _Object(depth, foot, (0.0, height), True, draw)


def _shadows(objects: list[_Object], camera: Camera, light: Light) -> tuple[Scene, list[bool]]:
    """Draw the shadows on the ground, 0…255 (H, W), and return which objects are in a shadow.

    A shadow is the footprint of an object swept away from the sun. Only houses and trees darken other objects.
    """
    small = camera.halved()
    layer = Image.new("L", (small.shape[1], small.shape[0]))
    near = [t for t in objects if t.foot[:, 1].min() < 80]
    away = -light.sun[[0, 2]] / max(float(light.sun[1]), 0.3)
    shaded = [False] * len(objects)
    for on_street in (False, True) if light.direct.max() > 0.3 else ():
        swept = [polygon for t in near if t.on_street == on_street for polygon in _swept(t, away)]
        fill_polygons(layer, small, swept, [235] * len(swept))
        if not on_street:
            shaded = _shaded(objects, small, np.array(layer))
    below = [_on_ground(t.foot[None])[0] for t in near if t.on_street]  # dark in any light
    fill_polygons(layer, small, below, [255] * len(below))
    return np.asarray(layer.filter(ImageFilter.BoxBlur(0.8))), shaded


def _swept(item: _Object, away: Array) -> list[Array]:
    """Return the shadow of an object as polygons (N, 3) on the ground; `away` is the offset per metre of height."""
    low, high = item.foot + away * item.rise[0], item.foot + away * item.rise[1]
    walls = np.concatenate([low, high], 1).reshape(-1, 2, 2)
    walls = np.concatenate([walls, walls[np.arange(len(low)) - 1, ::-1]], 1)
    return [*_on_ground(low[None]), *_on_ground(high[None]), *_on_ground(walls)]


def _on_ground(shapes: Array) -> Array:
    """Return shapes (M, N, 2) of (x, z) as polygons (M, N, 3) on the ground."""
    flat = np.zeros((*shapes.shape[:2], 3), np.float32)
    flat[..., 0], flat[..., 2] = shapes[..., 0], shapes[..., 1]
    return flat


def _shaded(objects: list[_Object], camera: Camera, dark: Scene) -> list[bool]:
    spots = np.array([(t.foot[:, 0].mean(), 0, max(t.foot[:, 1].mean(), 1)) for t in objects], np.float32)
    columns, rows = camera.project(spots).astype(int).T
    inside = (columns >= 0) & (columns < dark.shape[1]) & (rows >= 0) & (rows < dark.shape[0])
    return [t.on_street and i and bool(dark[r, c]) for t, i, r, c in zip(objects, inside, rows, columns, strict=True)]
