"""Paint roadside objects: buildings, trees, hedges, street furniture, the skyline. Coordinates as in `backdrop`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pixelwise.demo.backdrop import BUILDING, POLE, VEGETATION, Array, rgb
from pixelwise.demo.painter import Painter, faces_camera, inset, outward, paint_colour

# --- buildings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facade:
    """Appearance of a building: heights in metres, colours, windows."""

    storeys: int
    storey: float
    wall: Array
    trim: Array
    roof: Array
    pitched: bool
    shop: bool
    pitch: float
    town: bool
    window: tuple[float, float]


def draw_facade(rng: np.random.Generator, town: bool) -> Facade:
    """Draw a building: town houses are tall with shops and mostly flat roofs; others low, mostly with pitched roofs."""
    kind = rng.integers(5)
    base = ((0.62, 0.36, 0.28), (0.80, 0.73, 0.60), (0.62, 0.63, 0.65), (0.86, 0.84, 0.80), (0.52, 0.44, 0.40))[kind]
    wall = rgb(*base) * rng.uniform(0.8, 1.12, 3).astype(np.float32)
    if rng.random() < 0.12:  # some walls have the colours of cars
        wall = paint_colour(rng)
    storeys = int(rng.integers(2, 7)) if town else int(rng.integers(1, 4))
    trim = np.clip(wall * rng.choice([0.7, 1.2, 1.3]), 0.1, 0.95).astype(np.float32)
    roof = rgb(*((0.50, 0.27, 0.21), (0.30, 0.30, 0.33), (0.40, 0.33, 0.28))[rng.integers(3)])
    pitched = bool(rng.random() < (0.3 if town else 0.9))
    shape = (rng.uniform(0.22, 0.34), rng.uniform(0.22, 0.34)) if rng.random() < 0.75 else (0.46, rng.uniform(0.2, 0.3))
    shop = bool(town and rng.random() < 0.55)
    return Facade(storeys, rng.uniform(2.8, 3.4), wall, trim, roof, pitched, shop, rng.uniform(2.0, 3.4), town, shape)


def building(painter: Painter, rng: np.random.Generator, plan: Array, facade: Facade) -> None:
    """Paint a building on a ground plan (4, 2), (x, z): front near, front far, back far, back near."""
    height = facade.storeys * facade.storey
    middle = np.array([plan[:, 0].mean(), height / 2, plan[:, 1].mean()], np.float32)
    if facade.pitched:
        _roof(painter, facade, plan, height, middle)
    corners = np.insert(plan, 1, 0.0, axis=1).astype(np.float32)
    for a, b in ((2, 1), (3, 2), (0, 3), (0, 1)):  # the far gable, the back, the near gable, the front
        face = corners[[a, b, b, a]]
        face[2:, 1] = height
        normal = outward(face, middle)
        if faces_camera(painter, face, normal):
            _wall(painter, rng, facade, face, normal, (a, b) == (0, 1))


def _roof(painter: Painter, facade: Facade, plan: Array, height: float, middle: Array) -> None:
    rise = 0.32 * float(np.linalg.norm(plan[0] - plan[3])) if facade.storeys < 4 else 2.4
    eaves = [np.array([p[0], height, p[1]], np.float32) for p in plan]
    ridge = [(eaves[0] + eaves[3]) / 2 + (0, rise, 0), (eaves[1] + eaves[2]) / 2 + (0, rise, 0)]
    far = np.stack([eaves[3], eaves[2], ridge[1], ridge[0]])
    near = np.stack([eaves[0], eaves[1], ridge[1], ridge[0]])
    gable = np.stack([eaves[0], eaves[3], ridge[0]])
    tones = [painter.lit(facade.roof, outward(f, middle)) for f in (far, near)]
    side = painter.lit(facade.wall, outward(gable, middle))
    painter.paint([far, gable, near], np.stack([tones[0], side, tones[1]]), BUILDING)


def _wall(painter: Painter, rng: np.random.Generator, facade: Facade, face: Array, normal: Array, front: bool) -> None:
    """Paint a wall: weathered bands, cornice, windows with frames, and a shop or a door on the front."""
    wall, trim = painter.light.lit(np.stack([facade.wall, facade.trim]), normal[None])
    top, width = facade.storeys * facade.storey, float(np.linalg.norm(face[1] - face[0]))
    levels = np.linspace(0, 1, 5)
    boxes = [np.stack([np.zeros(4), levels[:-1] - 0.01, np.ones(4), levels[1:]], 1)]
    boxes.append(np.array([[0, 1 - 0.35 / top, 1, 1], [0, 0, 1, 0.4 / top]]))
    colours = [wall * np.linspace(0.86, 1.05, 4)[:, None], np.stack([trim, trim * 0.7])]
    panes = _windows(facade, width, int(front and facade.shop))
    blind = facade.town and not front  # party walls have no windows
    near = 0.0 if blind else painter.pixels(max(float(face[:, 2].min()), 3.0))
    if near > 14:
        boxes.append(panes + np.array([-0.12 / width, -0.14 / top, 0.12 / width, 0.10 / top]))
        colours.append(np.tile(trim, (len(panes), 1)))
    if near > 4:
        boxes.append(panes)
        colours.append(_glass(painter, rng, len(panes)))
    if near > 22:
        middle = (panes[:, 0] + panes[:, 2]) / 2
        boxes.append(np.stack([middle - 0.03 / width, panes[:, 1], middle + 0.03 / width, panes[:, 3]], 1))
        colours.append(np.tile(trim, (len(panes), 1)))
    if front:
        extra = _shop(painter, rng, normal, width, top) if facade.shop else _door(painter, rng, normal, width, top)
        boxes.append(extra[0])
        colours.append(extra[1])
    painter.paint(inset(face, np.concatenate(boxes)), np.concatenate(colours), BUILDING)
    if front and facade.shop and rng.random() < 0.5:
        _awning(painter, rng, inset(face, np.array([[0.05, 2.0 / top, 0.95, 2.5 / top]]))[0], normal)


def _windows(facade: Facade, width: float, first: int) -> Array:
    """Lay out windows (M, 4) in fractions of a wall, from storey `first` up."""
    count = max(int(width / facade.pitch), 1)
    centres = (np.arange(count) + 0.5) / count
    half = facade.window[0] * min(facade.pitch * count / width, 1.0) / count * 1.15
    floors = (np.arange(first, facade.storeys) + 0.55) / facade.storeys
    tall = facade.window[1] / facade.storeys * 1.05
    v, u = np.meshgrid(floors, centres, indexing="ij")
    return np.stack([u - half, v - tall, u + half, v + tall], -1).reshape(-1, 4)


def _glass(painter: Painter, rng: np.random.Generator, count: int) -> Array:
    """Draw the colours of panes: dark rooms, curtains, reflected sky, lamps in the evening."""
    sky = rng.uniform(0.05, 0.45, (count, 1))
    panes = rgb(0.10, 0.12, 0.15) * (1 - sky) + (painter.light.zenith + painter.light.horizon) * 0.5 * sky
    curtain = rng.random(count) < 0.15
    panes[curtain] = painter.light.ambient * 0.9
    if painter.light.lamps:
        panes[rng.random(count) < 0.45] = rgb(1.0, 0.80, 0.45)
    return panes.astype(np.float32)


def _shop(painter: Painter, rng: np.random.Generator, normal: Array, width: float, top: float) -> tuple[Array, Array]:
    """Return the windows and the sign of a shop: boxes (M, 4) and colours (M, 3)."""
    count = max(int(width / 3.4), 1)
    edges, gap = np.linspace(0, 1, count + 1), 0.18 / width
    panes = np.stack([edges[:-1] + gap, np.full(count, 0.5 / top), edges[1:] - gap, np.full(count, 2.4 / top)], 1)
    sign = painter.lit(paint_colour(rng), normal)
    boxes = np.concatenate([panes, [[0.01, 2.45 / top, 0.99, 3.0 / top]]])
    return boxes, np.concatenate([_glass(painter, rng, count), sign[None]])


def _door(painter: Painter, rng: np.random.Generator, normal: Array, width: float, top: float) -> tuple[Array, Array]:
    door = rng.uniform(0.1, 0.8)
    box = np.array([[door, 0, door + 1.1 / width, 2.2 / top]])
    return box, painter.lit(paint_colour(rng) * 0.7, normal)[None]


def _awning(painter: Painter, rng: np.random.Generator, face: Array, normal: Array) -> None:
    """Paint a striped awning."""
    face[:2] += normal * np.float32(1.1)
    marks = np.arange(9) / 8
    stripes = inset(face, np.stack([marks[:-1], np.zeros(8), marks[1:], np.ones(8)], 1))
    pair = painter.light.lit(np.stack([paint_colour(rng), rgb(0.9, 0.88, 0.84)]), normal[None])
    painter.paint(stripes, np.tile(pair, (4, 1)), BUILDING)


# --- trees, hedges, poles ----------------------------------------------------------------------------------------------


def discs(centres: Array, radii: Array, corners: int, ragged: Array) -> Array:
    """Return discs (M, corners, 3) facing the camera, with radii scaled by `ragged` (M, corners)."""
    angles = np.arange(corners) * (2 * math.pi / corners)
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(corners)], 1)
    discs: Array = (centres[:, None] + ring * (radii[:, None] * ragged)[..., None]).astype(np.float32)
    return discs


def tree(painter: Painter, rng: np.random.Generator, x: float, z: float, height: float, conifer: bool) -> None:
    """Paint a tree at (x, z), `height` metres tall."""
    trunk, thick = height * (0.12 if conifer else 0.34), height * 0.022
    bark = rgb(0.32, 0.25, 0.19) * np.float32(rng.uniform(0.7, 1.2))
    posts = [slab(x - thick, x + thick, 0, trunk * 1.3, z), slab(x, x + thick, 0, trunk * 1.3, z)]
    dim = painter.lit(bark, rgb(-painter.light.sun[0], 0, -0.5))
    painter.paint(posts, np.stack([dim, dim * 0.8]), VEGETATION)
    green = rgb(rng.uniform(0.18, 0.36), rng.uniform(0.31, 0.43), rng.uniform(0.08, 0.18))
    if conifer:
        _needles(painter, rng, rgb(x, trunk, z), height - trunk, green * rgb(0.6, 0.8, 1.0))
        return
    if rng.random() < 0.12:
        green = rgb(rng.uniform(0.50, 0.66), rng.uniform(0.30, 0.44), 0.12)  # autumn
    count = int(np.clip(painter.pixels(z) * height * 0.16, 14, 110))
    t = rng.random(count)
    wide = height * 0.30 * np.sqrt(np.clip(1 - (2 * t - 0.9) ** 2, 0.06, 1))
    offset = rng.uniform(-0.75, 0.75, (count, 2)) * wide[:, None]
    centres = np.stack([x + offset[:, 0], trunk + t * (height - trunk) * 0.92, z + offset[:, 1]], 1)
    _foliage(painter, rng, centres, np.maximum(wide * min(2.6 / math.sqrt(count), 0.42), height * 0.03), green, height)


def _needles(painter: Painter, rng: np.random.Generator, foot: Array, height: float, green: Array) -> None:
    """Paint a conifer as overlapping layers of branches, brighter towards the sun."""
    skirts, teeth = 7, 9
    across = np.linspace(-1, 1, teeth)
    polygons, shades = [], []
    for k in range(skirts):
        low, high = k / skirts * 0.92, min((k + 2.2) / skirts, 1.0)
        wide = 0.27 * height * (1 - low) * rng.uniform(0.9, 1.1)
        hem = low * height + rng.uniform(-0.5, 0.5, teeth) * height * 0.035 + height * 0.03 * across**2
        for part, tone in ((slice(0, 5), -1.0), (slice(4, 9), 1.0)):
            edge = np.stack([across[part] * wide, hem[part], np.zeros(5)], 1)
            polygons.append(np.concatenate([edge, [[0, high * height, 0]]]).astype(np.float32) + foot)
            shades.append((0.62 + 0.38 * k / skirts) * (1 + 0.16 * tone * float(np.sign(painter.light.sun[0]))))
    lit = green * (painter.light.ambient * 0.85 + painter.light.direct * 0.40)
    painter.paint(polygons, lit * np.array(shades)[:, None], VEGETATION)


def _foliage(
    painter: Painter, rng: np.random.Generator, centres: Array, radii: Array, green: Array, height: float
) -> None:
    """Paint clumps of leaves, back to front, brighter towards the sun."""
    order = np.argsort(-centres[:, 2])
    centres, radii = centres[order].astype(np.float32), radii[order] * rng.uniform(0.75, 1.25, len(radii))
    ragged = rng.uniform(0.75, 1.25, (len(radii), 9))
    away = (centres - centres.mean(0)) / (height * 0.3)
    facing = np.clip(0.42 + 0.5 * (away @ painter.light.sun), 0.08, 1.0)[:, None]
    light = painter.light.ambient * (0.62 + 0.28 * np.clip(away[:, 1:2], -1, 1)) + painter.light.direct * facing
    colours = green * light * rng.uniform(0.82, 1.18, (len(radii), 1))
    under = discs(centres - rgb(0, 0.03, 0) * height, radii * 1.04, 9, ragged)
    pairs = np.stack([under, discs(centres, radii * 0.9, 9, ragged)], 1).reshape(-1, 9, 3)
    shades = np.stack([colours * 0.76, colours], 1).reshape(-1, 3)
    painter.paint(pairs, shades, VEGETATION)


def hedge(painter: Painter, rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Paint a hedge from (x, z) to (x, z)."""
    height = rng.uniform(0.8, 1.6)
    count = 40
    t = rng.random(count)
    centres = np.stack(
        [
            start[0] + (end[0] - start[0]) * t,
            rng.uniform(0.1, 0.75, count) * height,
            start[1] + (end[1] - start[1]) * t,
        ],
        1,
    )
    green = rgb(rng.uniform(0.18, 0.30), rng.uniform(0.30, 0.40), 0.12)
    keep = centres[:, 2] > 1.5
    if keep.any():
        _foliage(painter, rng, centres[keep], np.full(int(keep.sum()), height * 0.36), green, height)


def slab(x0: float, x1: float, y0: float, y1: float, z: float) -> Array:
    """Return a vertical rectangle facing the camera."""
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], np.float32)


def pole(painter: Painter, rng: np.random.Generator, x: float, z: float, inward: float) -> None:
    """Paint street furniture at (x, z): a lamp with an arm towards `inward`, a sign, a bollard or a bin."""
    kind = rng.integers(4)
    grey = painter.lit(rgb(0.42, 0.43, 0.44) * np.float32(rng.uniform(0.5, 1.2)), rgb(0, 0, -1))
    if kind == 0:
        arm = sorted((x, x + inward * 1.5))
        bulb = rgb(1.0, 0.9, 0.6) if painter.light.lamps else grey * 1.4
        shapes = [slab(x - 0.07, x + 0.07, 0, 6.5, z), slab(arm[0], arm[1], 6.4, 6.52, z)]
        shapes.append(slab(x + inward * 1.5 - 0.3, x + inward * 1.5 + 0.3, 6.3, 6.45, z))
        painter.paint(shapes, np.stack([grey, grey, bulb]), POLE)
    elif kind == 1:
        colour = painter.lit(paint_colour(rng), rgb(0, 0, -1))
        disc = np.ones((1, 12))
        plate = [discs(np.array([[x, 2.4, z]]), np.array([r]), 12, disc)[0] for r in (0.38, 0.27)]
        white = painter.lit(rgb(0.9, 0.9, 0.9), rgb(0, 0, -1))
        painter.paint([slab(x - 0.04, x + 0.04, 0, 2.4, z), *plate], np.stack([grey, colour, white]), POLE)
    else:
        tall, wide = ((0.95, 0.09), (1.1, 0.28))[kind - 2]
        colour = painter.lit(paint_colour(rng) * 0.8, rgb(0, 0, -1))
        shapes = [
            slab(x - wide, x + wide, 0, tall, z),
            slab(x, x + wide, 0, tall, z),
            slab(x - wide, x + wide, tall, tall + 0.12, z),
        ]
        painter.paint(shapes, np.stack([colour, colour * 0.8, grey]), POLE)


def skyline(painter: Painter, rng: np.random.Generator, town: bool) -> None:
    """Paint hills, woods and roofs on the horizon."""
    for depth, tall, colour in ((900.0, 60.0, rgb(0.34, 0.40, 0.44)), (330.0, 11.0, rgb(0.22, 0.31, 0.17))):
        steps = 61
        x = np.linspace(-1.3, 1.3, steps) * depth
        waves = sum(np.sin(x / depth * f + rng.uniform(0, 6.3)) / f**0.8 for f in (2.1, 4.7, 11.0, 23.0, 47.0))
        y = tall * (0.55 + 0.3 * np.asarray(waves)) * rng.uniform(0.5, 1.2)
        if town and depth < 500:
            y, colour = np.repeat(rng.uniform(6, 26, steps // 2 + 1), 2)[:steps], rgb(0.46, 0.44, 0.43)
        top = np.stack([x, np.maximum(y, 0.5), np.full(steps, depth)], 1)
        low = np.array([[x[-1], -0.6, depth], [x[0], -0.6, depth]])
        shape = np.concatenate([top, low]).astype(np.float32)
        material = BUILDING if town and depth < 500 else VEGETATION
        painter.paint([shape], painter.lit(colour, rgb(0, 0.5, -0.8))[None], material)
