"""Paint vehicles and pedestrians. Coordinates and colours as in `backdrop`."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from pixelwise.demo.backdrop import PEDESTRIAN, VEHICLE, Array, rgb
from pixelwise.demo.painter import Painter, inset, outward, paint_colour

_GLASS = (0.12, 0.14, 0.18)
_SKINS = ((0.93, 0.74, 0.62), (0.80, 0.60, 0.46), (0.58, 0.40, 0.28), (0.36, 0.24, 0.17))


@dataclass(frozen=True)
class Body:
    """Shape of a vehicle, or a part of one: a side view extruded to its width.

    Args:
        length, width: metres.
        profile: ten corners (fraction of the length from the middle, metres up) from the rear bumper over the roof to the
            front bumper; between them bumper, lights, boot, rear window, roof, windscreen, bonnet, headlights, bumper.
        taper: width of the roof as a fraction of `width`.
        panes: side windows (u0, v0, u1, v1) in fractions of the cabin.
        wheels: fraction of the length from the middle, and radius in metres.
    """

    length: float
    width: float
    profile: tuple[tuple[float, float], ...]
    taper: float
    panes: tuple[tuple[float, float, float, float], ...]
    wheels: tuple[tuple[float, float], ...]
    glazed: bool = True


_TWO = ((0.13, 0.10, 0.50, 0.84), (0.53, 0.10, 0.87, 0.84))
_ROW = tuple((0.02 + k * 0.163, 0.05, 0.165 + k * 0.163, 0.72) for k in range(6))
SALOON = Body(
    4.6, 1.82,
    ((-.5, .28), (-.5, .60), (-.487, .93), (-.35, .98), (-.20, 1.40), (.06, 1.43), (.25, .97), (.45, .83), (.5, .62), (.5, .26)),
    0.76, _TWO, ((-.31, .33), (.32, .33)),
)  # fmt: skip
HATCHBACK = Body(
    4.0, 1.76,
    ((-.5, .28), (-.5, .62), (-.49, .95), (-.46, 1.0), (-.39, 1.44), (.05, 1.49), (.26, 1.0), (.45, .86), (.5, .62), (.5, .26)),
    0.78, _TWO, ((-.32, .32), (.32, .32)),
)  # fmt: skip
OFFROADER = Body(
    4.6, 1.9,
    ((-.5, .36), (-.5, .74), (-.492, 1.06), (-.475, 1.12), (-.42, 1.66), (.06, 1.71), (.23, 1.14), (.44, 1.02), (.5, .76), (.5, .34)),
    0.82, _TWO, ((-.31, .38), (.32, .38)),
)  # fmt: skip
VAN = Body(
    5.3, 2.0,
    ((-.5, .34), (-.5, .80), (-.5, 1.20), (-.498, 1.30), (-.49, 2.16), (.24, 2.20), (.37, 1.30), (.48, 1.05), (.5, .76), (.5, .32)),
    0.88, ((0.70, 0.06, 0.88, 0.66),), ((-.31, .36), (.33, .36)),
)  # fmt: skip
BUS = Body(
    10.8, 2.5,
    ((-.5, .40), (-.5, .86), (-.5, 1.20), (-.499, 1.40), (-.495, 3.02), (.488, 3.05), (.5, 1.15), (.5, .95), (.5, .72), (.5, .38)),
    0.95, _ROW, ((-.28, .48), (.34, .48)),
)  # fmt: skip
CAB = Body(
    7.4, 2.3,
    ((.20, .50), (.20, .9), (.20, 1.3), (.20, 1.45), (.20, 2.62), (.40, 2.70), (.49, 1.50), (.498, 1.15), (.5, .80), (.5, .38)),
    0.94, ((0.45, 0.05, 0.85, 0.80),), ((.34, .46),),
)  # fmt: skip
BOX = Body(
    7.4, 2.45,
    ((-.5, .85), (-.5, 1.1), (-.5, 1.3), (-.5, 1.5), (-.5, 3.4), (.185, 3.4), (.185, 1.5), (.185, 1.3), (.185, 1.1), (.185, .85)),
    1.0, (), ((-.30, .46), (-.16, .46)), False,
)  # fmt: skip
KINDS: tuple[tuple[Body, ...], ...] = ((SALOON,), (HATCHBACK,), (OFFROADER,), (VAN,), (BOX, CAB), (BUS,))
_CHANCES = (0.30, 0.28, 0.20, 0.11, 0.07, 0.04)


def draw_vehicle(rng: np.random.Generator, parked: bool = False) -> tuple[Body, ...]:
    """Draw a vehicle; trucks and buses are not parked."""
    kind = int(rng.choice(len(KINDS), p=_CHANCES))
    return KINDS[kind % 4 if parked else kind]


# Surfaces of a vehicle: indices into the tables of `_surface_colours`.
_BODY, _GREY, _PLATE, _REAR, _FRONT, _PANE = range(6)
_Decal = tuple[tuple[float, float, float, float], int, float]
_ENDS: dict[int, tuple[_Decal, ...]] = {  # strip of the profile → boxes (u0, v0, u1, v1), surface, brightness
    0: (((0.0, 0.0, 1.0, 0.35), _GREY, 0.10), ((0.37, 0.50, 0.63, 0.85), _PLATE, 1.0)),
    1: (((0.03, 0.15, 0.24, 0.90), _REAR, 1.0), ((0.76, 0.15, 0.97, 0.90), _REAR, 1.0)),
    3: (((0.09, 0.10, 0.91, 0.88), _PANE, 1.0),),
    5: (((0.07, 0.08, 0.93, 0.93), _PANE, 1.0),),
    7: (((0.04, 0.05, 0.26, 0.8), _FRONT, 1.0), ((0.74, 0.05, 0.96, 0.8), _FRONT, 1.0), ((0.32, 0.0, 0.68, 0.7), _GREY, 0.1)),
    8: (((0.0, 0.65, 1.0, 1.0), _GREY, 0.10), ((0.37, 0.12, 0.63, 0.42), _PLATE, 1.0)),
}  # fmt: skip


_DOORS: dict[int, tuple[_Decal, ...]] = {  # the same for the box of a truck
    0: (((0.0, 0.0, 1.0, 1.0), _GREY, 0.12), ((0.04, 0.25, 0.15, 0.80), _REAR, 1.0), ((0.85, 0.25, 0.96, 0.80), _REAR, 1.0)),
    1: (((0.0, 0.0, 1.0, 0.3), _GREY, 0.35), ((0.49, 0.0, 0.51, 1.0), _BODY, 0.6)),
    2: (((0.49, 0.0, 0.51, 1.0), _BODY, 0.6),),
    3: (((0.49, 0.0, 0.51, 1.0), _BODY, 0.6), ((0.44, 0.0, 0.455, 0.95), _GREY, 0.5), ((0.545, 0.0, 0.56, 0.95), _GREY, 0.5)),
}  # fmt: skip


@dataclass(frozen=True)
class _Mesh:
    """Polygons of a body in its own coordinates (right, up, forward).

    Args:
        points: (P, 3), the points of all polygons.
        pieces: per face, the (first, last) point, surface and brightness of its polygons in painting order.
        normals, centres: (F, 3) per face; the first face is the underside, the last two are the flanks.
    """

    points: Array
    pieces: tuple[tuple[tuple[int, int, int, float], ...], ...]
    normals: Array
    centres: Array


def _half(body: Body, up: Array, ahead: Array) -> Array:
    """Return half the width at a height and a position along the length: the roof and the ends are narrower."""
    waist, roof = body.profile[3][1], body.profile[4][1]
    share = np.clip((up - waist) / (roof - waist), 0, 1)
    ends = 1 - 0.08 * np.clip((np.abs(ahead) / body.length - 0.44) / 0.06, 0, 1) * body.glazed
    half: Array = body.width / 2 * (1 - (1 - body.taper) * share) * ends
    return half


def _side(body: Body, points: Array, sign: float, out: float = 0.0) -> Array:
    """Place side-view points (N, 2), (forward, up), on the right (1) or left (-1) flank."""
    ahead, up = points[:, 0], points[:, 1]
    return np.stack([sign * (_half(body, up, ahead) + out), up, ahead], 1)


_Shape = tuple[Array, int, float]


@functools.cache
def _mesh(body: Body) -> _Mesh:
    outline = np.array([(z * body.length, y) for z, y in body.profile], np.float32)
    inside = np.array([0, outline[:, 1].mean() * 0.8, outline[:, 0].mean()], np.float32)
    faces = [_underside(body, outline)]
    normals = [rgb(0, -1, 0)]
    for k in range(len(outline) - 1):
        pair = outline[[k, k, k + 1, k + 1]]
        half = _half(body, pair[:, 1], pair[:, 0]) * (-1, 1, 1, -1)
        face = np.stack([half, pair[:, 1], pair[:, 0]], 1)
        decals = (_ENDS if body.glazed else _DOORS).get(k, ()) if not (body is CAB and k < 4) else ()
        faces.append(
            [(face, _BODY, 1.0), *((inset(face, np.array([box]))[0], surface, b) for box, surface, b in decals)]
        )
        normals.append(outward(face, inside))
    for sign in (-1.0, 1.0):
        faces.append(_flank(body, outline, sign))
        normals.append(rgb(sign, 0, 0))
    pieces, points, at = [], [], 0
    for shapes in faces:
        row = []
        for shape, surface, bright in shapes:
            row.append((at, at + len(shape), surface, bright))
            points.append(shape)
            at += len(shape)
        pieces.append(tuple(row))
    centres = np.stack([shapes[0][0].mean(0) for shapes in faces])
    return _Mesh(np.concatenate(points).astype(np.float32), tuple(pieces), np.stack(normals), centres)


def _underside(body: Body, outline: Array) -> list[_Shape]:
    """Return the dark underside and the treads of the wheels."""
    low, a = float(outline[0, 1]) + 0.1, body.width / 2 * 0.92
    shapes: list[_Shape] = []
    for end in (outline[0, 0] * 0.94, outline[-1, 0] * 0.94):
        corners = [[-a, 0.12, end], [a, 0.12, end], [a, low, end], [-a, low, end]]
        shapes.append((np.array(corners, np.float32), _GREY, 0.03))
    for ahead, radius in body.wheels:
        z = ahead * body.length
        for sign, near in ((-1, -radius), (1, -radius), (-1, radius), (1, radius)):
            tread = [[a - 0.2, 0, z + near * 0.6], [a, 0, z + near * 0.6], [a, low, z + near], [a - 0.2, low, z + near]]
            shapes.append((np.array(tread, np.float32) * (sign, 1, 1), _GREY, 0.05))
    return shapes


def _flank(body: Body, outline: Array, sign: float) -> list[_Shape]:
    """Return a flank: body, sill, side windows, doors, wheels."""
    low, waist = float(outline[0, 1]), float(outline[3, 1])
    lower = outline[[0, 1, 8, 9]] if body.glazed else outline[[0, 1, 7, 9]]
    shapes: list[_Shape] = [(_side(body, outline, sign), _BODY, 1.0), (_side(body, lower, sign), _BODY, 0.84)]
    if body.panes:
        cabin = np.concatenate([outline[[3, 6, 5, 4]], np.zeros((4, 1), np.float32)], 1)
        if body in (CAB, BUS):
            cabin[1, 1] = cabin[0, 1]
        panes = inset(cabin, np.array(body.panes))[..., :2]
        shapes += [(_side(body, pane, sign), _PANE, 1.0) for pane in panes]
    for ahead in (-0.12, 0.07, 0.24) if body.glazed and body is not BUS else ():
        z = ahead * body.length + (1.9 if body is CAB else 0.0)
        seam = np.array([[z, low + 0.1], [z + 0.035, low + 0.1], [z + 0.035, waist], [z, waist]], np.float32)
        shapes.append((_side(body, seam, sign), _BODY, 0.55))
    turn = np.arange(14) * (2 * math.pi / 14)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    for ahead, radius in body.wheels:
        for share, tone in ((1.18, 0.05), (1.0, 0.09), (0.58, 0.45), (0.22, 0.2)):
            wheel = _side(body, ring * radius * share + (ahead * body.length, radius), sign, 0.02)
            if share > 1:
                wheel[:, 1] = np.maximum(wheel[:, 1], radius * 0.5)  # the arch stays on the body
            shapes.append((wheel, _GREY, tone))
    return shapes


def _turn(heading: float) -> Array:
    """Return the matrix that rotates row vectors (right, up, forward) to world coordinates."""
    s, c = math.sin(heading), math.cos(heading)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)


def footprint(parts: tuple[Body, ...], x: float, z: float, heading: float) -> Array:
    """Return the footprint (4, 2), (x, z), of a vehicle."""
    a, b = parts[0].width / 2, parts[0].length / 2
    corners = np.array([[-a, 0, -b], [a, 0, -b], [a, 0, b], [-a, 0, b]], np.float32)
    foot: Array = (corners @ _turn(heading))[:, [0, 2]] + rgb(x, z)
    return foot


def vehicle(
    painter: Painter, rng: np.random.Generator, parts: tuple[Body, ...], x: float, z: float, heading: float
) -> None:
    """Paint a vehicle centred at (x, z) with a heading in radians from z towards x."""
    colour = paint_colour(rng)
    front_far = math.cos(heading) * z + math.sin(heading) * x > 0
    for body in reversed(parts) if front_far else parts:
        _body(painter, body, rgb(x, 0, z), _turn(heading), colour if body.glazed else paint_colour(rng))


def _body(painter: Painter, body: Body, spot: Array, turn: Array, colour: Array) -> None:
    """Paint the visible faces of a body, far ones first, then the flank."""
    mesh, light = _mesh(body), painter.light
    points, normals = mesh.points @ turn + spot, mesh.normals @ turn
    away = mesh.centres @ turn + spot - rgb(0, painter.camera.height, 0)
    visible = (away * normals).sum(1) < 0
    far = (away * away).sum(1)
    far[0], far[-2:] = np.inf, -1.0
    visible[0] = True
    albedo, glow = _surface_colours(painter, colour)
    shades = light.lit(np.tile(albedo, (len(normals), 1)), np.repeat(normals, len(albedo), 0))
    shades = shades.reshape(len(normals), len(albedo), 3) + glow
    up = np.maximum(normals[:, 1:2], 0)
    shades[:, _BODY] += light.horizon * 0.12 * up
    shades[:, _PANE] += light.zenith * 0.25 * up
    polygons, colours = [], []
    for face in np.argsort(-far).tolist():
        if visible[face]:
            for first, last, surface, bright in mesh.pieces[face]:
                polygons.append(points[first:last])
                colours.append(shades[face, surface] * bright)
    painter.paint(polygons, np.array(colours), VEHICLE)


def _surface_colours(painter: Painter, colour: Array) -> tuple[Array, Array]:
    """Return albedo (6, 3) and emitted light (6, 3) per surface."""
    light = painter.light
    albedo = np.array(
        [colour, (1, 1, 1), (0.9, 0.88, 0.74), (0.70, 0.08, 0.07), (0.92, 0.93, 0.95), _GLASS], np.float32
    )
    glow = np.zeros((6, 3), np.float32)
    glow[_PANE] = (light.zenith + light.horizon) * 0.09
    if light.lamps:
        albedo[[_REAR, _FRONT]] = 0
        glow[_REAR], glow[_FRONT] = (0.95, 0.12, 0.08), (1.0, 0.98, 0.85)
    return albedo, glow


# --- people ------------------------------------------------------------------------------------------------------------

_Point = tuple[float, float]
_Shapes = list[tuple[list[_Point], Array]]


def pedestrian(
    painter: Painter, rng: np.random.Generator, x: float, z: float, height: float, profile: bool, facing: int
) -> None:
    """Paint a person at (x, z), in `profile` or frontal view, facing right (1) or left (-1)."""
    top, trousers, skin = paint_colour(rng), paint_colour(rng) * 0.8, rgb(*_SKINS[rng.integers(4)])
    hair = rgb(*((0.10, 0.08, 0.07), (0.24, 0.15, 0.09), (0.55, 0.42, 0.22), (0.6, 0.6, 0.6))[rng.integers(4)])
    step = rng.uniform(0.03, 0.13) if profile else rng.uniform(0.0, 0.03)
    shapes = _legs(rng, step, profile, facing, trousers, skin)
    shapes += _trunk(rng, step, profile, facing, top, skin)
    shapes += _head(rng, profile, facing, skin, hair)
    flat = np.array([point for outline, _ in shapes for point in outline], np.float32) * height
    points = np.stack([flat[:, 0] + x, flat[:, 1], np.full(len(flat), z)], 1).astype(np.float32)
    ends = np.cumsum([len(outline) for outline, _ in shapes])
    tilt = np.clip(np.array([sum(p[0] for p in outline) / len(outline) for outline, _ in shapes]) * 8, -1, 1)
    side = 1 + tilt[:, None] * (0.12 * painter.light.sun[0])
    colours = painter.light.lit(np.stack([c for _, c in shapes]), rgb(0, 0.2, -0.98)[None]) * side
    painter.paint(np.split(points, ends[:-1]), colours, PEDESTRIAN)


def _limb(a: _Point, b: _Point, wide: float, narrow: float) -> list[_Point]:
    """Return a limb from a to b, (across, up) each, as a quadrilateral."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    norm = max(math.hypot(dx, dy), 1e-6)
    nx, ny = -dy / norm, dx / norm
    return [(a[0] + nx * wide, a[1] + ny * wide), (b[0] + nx * narrow, b[1] + ny * narrow),
            (b[0] - nx * narrow, b[1] - ny * narrow), (a[0] - nx * wide, a[1] - ny * wide)]  # fmt: skip


def _legs(rng: np.random.Generator, step: float, profile: bool, facing: int, trousers: Array, skin: Array) -> _Shapes:
    """Return two legs in a stride, some with a skirt; lengths are fractions of the person's height."""
    apart = 0.0 if profile else 0.047
    shapes: _Shapes = []
    bare = rng.random() < 0.2
    for swing, tone in ((-1, 0.72), (1, 1.0)):
        hip, foot = (swing * apart, 0.50), (swing * (apart + step) * (facing if profile else 1), 0.035)
        knee = ((hip[0] + foot[0]) / 2 + (0.02 * facing if profile else 0.0), 0.27)
        colour = (skin if bare else trousers) * np.float32(tone)
        shapes += [(_limb(hip, knee, 0.052, 0.042), colour), (_limb(knee, foot, 0.043, 0.028), colour)]
        toe = (foot[0] + (0.06 * facing if profile else 0.012 * swing), 0.012)
        shapes.append((_limb((foot[0] - 0.015 * facing, 0.03), toe, 0.024, 0.016), rgb(0.12, 0.10, 0.10)))
    if bare or rng.random() < 0.2:  # a skirt or a long coat
        hem = rng.uniform(0.28, 0.38)
        skirt = [(-0.07, 0.56), (0.07, 0.56), (0.10 + step * 0.5, hem), (-0.10 - step * 0.5, hem)]
        shapes.append((skirt, trousers))
    return shapes


def _trunk(rng: np.random.Generator, step: float, profile: bool, facing: int, top: Array, skin: Array) -> _Shapes:
    """Return torso and arms, some with a bag."""
    wide = rng.uniform(0.072, 0.085) if profile else rng.uniform(0.105, 0.125)
    waist, hang = wide * rng.uniform(0.72, 0.95), 0.0 if profile else wide
    arms = []
    for side in (-1, 1):
        elbow_out = side * (step * 1.1 + hang * 1.1)
        arms.append(((side * hang * 0.92, 0.79), (elbow_out if profile else side * (0.02 + hang * 1.1), 0.47)))
    left = [(-waist, 0.48), (-wide, 0.70), (-wide * 0.9, 0.80), (-0.03, 0.84)]
    shapes = _arm(*arms[0], top * np.float32(0.75), skin, facing) if profile else []
    shapes.append(([*left, *((-a, b) for a, b in reversed(left))], top))
    shapes.append(([*left, (0.0, 0.84), (0.0, 0.48)], top * np.float32(0.86)))
    if rng.random() < 0.3:
        away = -facing * wide * 1.05 if profile else 0.0
        pack = [(-0.06 + away, 0.56), (0.06 + away, 0.56), (0.055 + away, 0.78), (-0.055 + away, 0.78)]
        shapes.append((pack, paint_colour(rng)))
    for arm in arms[1:] if profile else arms:
        shapes += _arm(*arm, top * np.float32(0.92), skin, facing)
    return shapes


def _arm(a: _Point, b: _Point, sleeve: Array, skin: Array, facing: int) -> _Shapes:
    elbow = ((a[0] + b[0]) / 2 - 0.012 * facing, (a[1] + b[1]) / 2)
    hand = (b[0] + (b[0] - elbow[0]) * 0.15, b[1] - 0.03)
    upper, lower, palm = _limb(a, elbow, 0.031, 0.027), _limb(elbow, b, 0.027, 0.021), _limb(b, hand, 0.020, 0.014)
    return [(upper, sleeve), (lower, sleeve), (palm, skin)]


_CIRCLE = tuple((math.cos(k * math.pi / 6), math.sin(k * math.pi / 6)) for k in range(12))


def _oval(x: float, y: float, wide: float, tall: float) -> list[_Point]:
    return [(x + c * wide, y + s * tall) for c, s in _CIRCLE]


def _head(rng: np.random.Generator, profile: bool, facing: int, skin: Array, hair: Array) -> _Shapes:
    lean = 0.012 * facing if profile else 0.0
    shapes: _Shapes = []
    if rng.random() < 0.35:  # long hair
        shapes.append(([(-0.05, 0.80), (0.05, 0.80), (0.052, 0.93), (-0.052, 0.93)], hair))
    shapes.append(([(-0.022, 0.82), (0.022, 0.82), (0.02, 0.88), (-0.02, 0.88)], skin * np.float32(0.85)))
    shapes.append((_oval(lean * 0.3, 0.938, 0.050, 0.062), hair))
    if profile or rng.random() < 0.5:
        shapes.append((_oval(lean * 2.2, 0.915, 0.040, 0.056), skin))
    return shapes
