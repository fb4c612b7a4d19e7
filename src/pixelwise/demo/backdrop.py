"""Camera, light, sky and ground of a synthetic road scene.

World coordinates are metres: x to the right, y up, z ahead; the camera is at x = z = 0 and looks along z. Colours are
(red, green, blue) in 0…1; the canvas is uint8 (rows, columns, 4): red, green, blue, material.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  # float32 wherever it is large
Scene = NDArray[np.uint8]
MATERIALS = (
    "sky", "terrain", "vegetation", "building", "pole", "pavement", "road", "lane marking", "vehicle", "pedestrian",
)  # fmt: skip
SKY, TERRAIN, VEGETATION, BUILDING, POLE, PAVEMENT, ROAD, MARKING, VEHICLE, PEDESTRIAN = range(len(MATERIALS))
_TILE = 512
_FAR = 400.0


def rgb(*values: float) -> Array:
    """Return a colour as float32 (3,)."""
    return np.array(values, np.float32)


@functools.cache
def noise_tile(roughness: float) -> Array:
    """Return a seamless noise image (512, 512) of unit deviation whose power falls as frequency^(-2·roughness).

    It is the same in all scenes, which read it at random places.
    """
    white = np.random.default_rng(7).standard_normal((_TILE, _TILE))
    rows, columns = np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None]
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(white) * radius**-roughness
    spectrum[0, 0] = 0.0
    tile = np.fft.irfft2(spectrum, s=white.shape)
    return (tile / tile.std()).astype(np.float32)


@functools.cache
def _four_tiles(roughness: float) -> Array:
    """Return a noise tile repeated 2 × 2, so that any piece up to (512, 512) is a slice."""
    return np.tile(noise_tile(roughness), (2, 2))


def cut_noise(roughness: float, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Return a piece (rows, columns) of any size from a random place of a noise tile."""
    r, c = int(rng.integers(_TILE)), int(rng.integers(_TILE))
    if max(shape) <= _TILE:
        return _four_tiles(roughness)[r : r + shape[0], c : c + shape[1]]
    places = np.ix_(np.arange(r, r + shape[0]) % _TILE, np.arange(c, c + shape[1]) % _TILE)
    return noise_tile(roughness)[places]


def _read(tile: Array, rows: Array, columns: Array) -> Array:
    """Read a tile at any position in pixels, wrapping around."""
    place = (rows.astype(np.int32) & (_TILE - 1)) * _TILE + (columns.astype(np.int32) & (_TILE - 1))
    return tile.reshape(-1)[place]


def _fraction(values: Array) -> Array:
    """Return the fractional part: `np.mod(values, 1)`, but several times faster."""
    return values - np.floor(values)


@dataclass(frozen=True)
class Camera:
    """Pinhole camera with lens shift and roll.

    Args:
        shape: (rows, columns) of the canvas.
        height: metres above the ground.
        focal: focal length in canvas pixels.
        horizon: rows from the middle of the canvas down to the horizon.
        roll: radians, clockwise.
    """

    shape: tuple[int, int]
    height: float
    focal: float
    horizon: float
    roll: float

    def halved(self) -> Camera:
        """Return the same view on a canvas of half the size."""
        shape = (self.shape[0] // 2, self.shape[1] // 2)
        return replace(self, shape=shape, focal=self.focal / 2, horizon=self.horizon / 2)

    def project(self, points: Array) -> Array:
        """Project world points (N, 3), z > 0, to canvas positions (N, 2), (x, y)."""
        scale = self.focal / points[:, 2]
        u, v = points[:, 0] * scale, (self.height - points[:, 1]) * scale + self.horizon
        c, s = math.cos(self.roll), math.sin(self.roll)
        rows, columns = self.shape
        return np.stack((c * u - s * v + columns / 2, s * u + c * v + rows / 2), axis=1)

    def rays(self, step: int) -> tuple[Array, Array]:
        """Return (u, v) of every `step`-th canvas pixel without roll, v down from the horizon."""
        rows, columns = self.shape
        y = (np.arange(0, rows, step, dtype=np.float32) + step / 2 - rows / 2)[:, None]
        x = (np.arange(0, columns, step, dtype=np.float32) + step / 2 - columns / 2)[None]
        c, s = np.float32(math.cos(self.roll)), np.float32(math.sin(self.roll))
        return c * x + s * y, c * y - s * x - np.float32(self.horizon)


@dataclass(frozen=True)
class Road:
    """Geometry of a road: a centre line that bends up to `reach`, lanes, parking strips, pavements.

    Args:
        offset, slope, bend, reach: centre line x = offset + slope·z + bend·z²/2 up to z = reach, straight beyond.
        lanes: number of lanes over both directions.
        lane: width of a lane, metres.
        parking: width of the strip on each side, metres; 0 for none.
        pavement: width on each side, metres; 0 for none.
        side: 1 for right-hand traffic, -1 for left-hand traffic.
        style: 0 no markings, 1 dashes, 2 a solid middle line.
        zebra: distance of a crossing, metres; negative for none.
    """

    offset: float
    slope: float
    bend: float
    reach: float
    lanes: int
    lane: float
    parking: float
    pavement: float
    side: int
    style: int
    zebra: float

    @property
    def half(self) -> float:
        """Half the width of the carriageway with its parking strips, metres."""
        return self.lanes * self.lane / 2 + self.parking

    def centre(self, z: Array) -> Array:
        """Return x of the centre line at z."""
        near = np.minimum(z, np.float32(self.reach))
        run = near * (z - near * np.float32(0.5))  # a parabola up to `near`, straight beyond
        return np.float32(self.offset) + np.float32(self.slope) * z + np.float32(self.bend) * run

    def direction(self, z: Array) -> Array:
        """Return dx/dz of the centre line at z."""
        return np.float32(self.slope) + np.float32(self.bend) * np.minimum(z, np.float32(self.reach))

    def place(self, along: float, across: float) -> tuple[float, float, float]:
        """Return (x, z) of a point `across` metres right of the centre line at z = `along`, and the heading there."""
        near = min(along, self.reach)
        slope = self.slope + self.bend * near
        norm = math.hypot(1.0, slope)
        centre = self.offset + self.slope * along + self.bend * near * (along - near * 0.5)
        return centre + across / norm, along - across * slope / norm, math.atan(slope)


@dataclass(frozen=True)
class Light:
    """Illumination of a scene.

    Args:
        sun: unit vector towards the sun.
        direct, ambient: intensity of sunlight and of ambient light, per colour.
        zenith, horizon: colours of the sky.
        haze: share of light lost to the haze per metre.
        cover: cloud cover, 0…1.
        lamps: whether windows and lamps are lit.
    """

    sun: Array
    direct: Array
    ambient: Array
    zenith: Array
    horizon: Array
    haze: float
    cover: float
    lamps: bool

    def lit(self, colours: Array, normals: Array) -> Array:
        """Shade colours (N, 3) of surfaces with outward unit normals (N, 3)."""
        facing = np.maximum(normals @ self.sun, 0.0)[:, None]
        return colours * (self.ambient * (0.86 + 0.14 * normals[:, 1:2]) + self.direct * facing)

    def hazed(self, colours: Array, depth: Array) -> Array:
        """Blend colours (N, 3) with the horizon according to their depth (N,)."""
        keep = np.exp(-self.haze * depth)[:, None]
        return colours * keep + self.horizon * (1 - keep)


_HOURS = (  # chance, elevation in degrees, direct, ambient, zenith, horizon, haze, cover, lamps
    (0.34, (32, 62), (0.78, 0.73, 0.63), (0.40, 0.45, 0.52), (0.22, 0.45, 0.80), (0.72, 0.84, 0.95), 0.002, 0.4, False),
    (0.18, (14, 30), (0.80, 0.68, 0.48), (0.38, 0.41, 0.50), (0.33, 0.50, 0.76), (0.90, 0.84, 0.74), 0.004, 0.4, False),
    (0.14, (8, 15), (0.82, 0.55, 0.28), (0.36, 0.35, 0.44), (0.36, 0.44, 0.64), (0.98, 0.74, 0.48), 0.005, 0.45, False),
    (0.18, (40, 60), (0.07, 0.07, 0.07), (0.70, 0.72, 0.75), (0.56, 0.60, 0.66), (0.79, 0.81, 0.83), 0.004, 1.0, False),
    (0.10, (25, 40), (0.12, 0.12, 0.11), (0.66, 0.68, 0.70), (0.64, 0.67, 0.70), (0.77, 0.79, 0.80), 0.016, 0.8, False),
    (0.06, (6, 10), (0.05, 0.03, 0.03), (0.34, 0.33, 0.43), (0.13, 0.17, 0.36), (0.80, 0.50, 0.42), 0.005, 0.5, True),
)


def draw_light(rng: np.random.Generator) -> Light:
    """Draw a time of day and weather."""
    hour = _HOURS[int(rng.choice(len(_HOURS), p=[h[0] for h in _HOURS]))]
    up, turn = math.radians(rng.uniform(*hour[1])), rng.uniform(-math.pi, math.pi)
    sun = rgb(math.sin(turn) * math.cos(up), math.sin(up), math.cos(turn) * math.cos(up))
    level = np.float32(rng.uniform(0.9, 1.12))
    tints = [rgb(*c) * level * rng.uniform(0.95, 1.05, 3).astype(np.float32) for c in hour[2:6]]
    cover = float(np.clip(hour[7] + rng.uniform(-0.3, 0.3), 0.0, 1.0))
    haze = hour[6] * rng.uniform(0.6, 1.6)
    return Light(sun, tints[0], tints[1], tints[2], tints[3], haze, cover, hour[8])


def paint_sky(small: Scene, camera: Camera, light: Light, rng: np.random.Generator) -> None:
    """Paint the sky on (H, W, 4), half the canvas: gradient, clouds in perspective, a glow around the sun."""
    u, v = camera.rays(2)
    rows = int((v < 0).any(axis=1).sum())  # above the horizon
    small[...] = (*np.clip(light.horizon * 255, 0, 255).astype(np.uint8), SKY)
    if not rows:
        return
    ahead, up = u[:rows] * np.float32(1 / camera.focal), np.maximum(v[:rows] * np.float32(-1 / camera.focal), 0)
    low = np.exp(-3.2 * up)
    flat = 42 / (up + np.float32(0.07))
    drift, across = flat + np.float32(rng.integers(_TILE)), ahead * flat + np.float32(rng.integers(_TILE) + 2 * _TILE)
    tile = noise_tile(1.45)
    edge = np.float32(1.5 - 3.2 * light.cover)
    cloud = np.clip((_read(tile, drift, across) - edge) * 0.9, 0, 0.9) * np.clip(up * 14, 0, 1)
    thick = np.clip(_read(tile, drift + 9, across + 9) * 0.22 + 0.5, 0, 1)
    bright = np.minimum(light.ambient * 0.75 + light.direct * 0.75 + light.horizon * 0.22, 1.0)
    dull = light.ambient * 0.85 + light.horizon * 0.25
    glow = np.float32(0)
    if light.sun[2] > 0.1:
        dx, dy = ahead - light.sun[0] / light.sun[2], up - light.sun[1] / light.sun[2]
        glow = 0.6 * np.exp(-5 * np.sqrt(dx * dx + dy * dy))
    for k in range(3):
        sky = light.zenith[k] + (light.horizon[k] - light.zenith[k]) * low
        sky += cloud * (bright[k] + (dull[k] - bright[k]) * thick - sky) + glow * light.direct[k]
        small[:rows, :, k] = np.clip(sky * 255, 0, 255)


@dataclass(frozen=True)
class Ground:
    """Ground surfaces of a scene: colours and texture contrasts, in the order of `_REGIONS`."""

    colours: Array
    fine: Array
    coarse: Array


_REGIONS = np.array([ROAD, POLE, PAVEMENT, TERRAIN, MARKING], np.uint8)  # the kerb counts as pavement, set below
_REGIONS[1] = PAVEMENT


def draw_ground(rng: np.random.Generator, town: bool) -> Ground:
    """Draw the colours of asphalt, kerb, pavement, surroundings, and markings."""
    asphalt = rng.uniform(0.24, 0.50) * rng.uniform(0.95, 1.05, 3)
    stone = rng.uniform(0.42, 0.66) * np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.84, 1.0)])
    grass = np.array([rng.uniform(0.24, 0.46), rng.uniform(0.36, 0.50), rng.uniform(0.13, 0.24)])
    beyond = stone * rng.uniform(0.85, 1.05) if town else grass
    paint = np.array([0.86, 0.86, 0.84]) if rng.random() < 0.8 else np.array([0.88, 0.70, 0.24])
    colours = np.stack([asphalt, stone * rng.uniform(0.75, 1.2), stone, beyond, paint]).astype(np.float32)
    fine = rgb(rng.uniform(0.04, 0.10), 0.05, 0.05, 0.05 if town else 0.15, 0.06)
    return Ground(colours, fine, rgb(rng.uniform(0.03, 0.10), 0.06, 0.07, 0.07 if town else 0.16, 0.05))


def paint_ground(
    small: Scene, camera: Camera, road: Road, light: Light, ground: Ground, shadow: Scene,
    rng: np.random.Generator,
) -> Scene:  # fmt: skip
    """Paint the ground below the horizon and return the canvas (2H, 2W, 4) with sky and ground.

    Surfaces are determined for every pixel of the canvas; their shaded colours are averaged in `small` (H, W, 4), so that
    edges are anti-aliased. `shadow` (H, W) is 0…255.
    """
    u, v = camera.rays(1)
    below = v > 0.5
    first = int(np.argmax(below.any(axis=1))) // 2 * 2 if below.any() else len(v) - 2
    u, v, below = u[first:], v[first:], below[first:]
    z = np.minimum(np.float32(camera.focal * camera.height) / np.maximum(v, np.float32(0.5)), np.float32(_FAR))
    slope = road.direction(z)
    across = (u * z * np.float32(1 / camera.focal) - road.centre(z)) / np.sqrt(1 + slope * slope)
    half = (slice(None, None, 2), slice(None, None, 2))
    x2, z2, across2, below2 = u[half] * z[half] * np.float32(1 / camera.focal), z[half], across[half], below[half]
    coarse = _read(noise_tile(1.3), x2 * 9 + int(rng.integers(_TILE)), z2 * 9 + int(rng.integers(_TILE)))
    fine = _read(noise_tile(0.5), x2 * 24 + int(rng.integers(_TILE)), z2 * 24 + int(rng.integers(_TILE)))
    region = _regions(road, across, z, coarse.repeat(2, 0).repeat(2, 1), camera.focal, rng)
    region2 = region[half]
    tone = 1 + ground.coarse[region2] * coarse + ground.fine[region2] * fine * np.minimum(14 / z2, 1)
    tone *= _wear(road, across2, z2, region2, rng)
    keep, dark = np.exp(np.float32(-light.haze) * z2), shadow[first // 2 :] * np.float32(1 / 255)
    sunny = np.float32(max(light.sun[1], 0.0)) * light.direct
    for k in range(3):
        flat = ground.colours[:, k].take(region, mode="clip")
        mixed = (flat[::2, ::2] + flat[1::2, ::2] + flat[::2, 1::2] + flat[1::2, 1::2]) * np.float32(0.25)
        shade = light.ambient[k] + sunny[k] - (sunny[k] + light.ambient[k] * np.float32(0.22)) * dark
        plane = mixed * tone * shade * keep + light.horizon[k] * (1 - keep)
        np.copyto(small[first // 2 :, :, k], np.clip(plane * 255, 0, 255), where=below2, casting="unsafe")
    canvas = small.view(np.uint32).repeat(2, 0).repeat(2, 1).view(np.uint8).reshape(*camera.shape, 4)
    np.copyto(canvas[first:, :, 3], _REGIONS.take(region, mode="clip"), where=below)
    return canvas


def _regions(road: Road, across: Array, z: Array, coarse: Array, focal: float, rng: np.random.Generator) -> Scene:
    """Return the surface of every ground pixel, as an index into `_REGIONS`."""
    aside = np.abs(across)
    ragged = aside + coarse * np.float32(0.0 if road.pavement else 0.09)  # irregular edge without a kerb
    region = np.zeros(z.shape, np.uint8)
    region += ragged > road.half
    region += ragged > road.half + (0.16 if road.pavement else 0.0)
    region += ragged > road.half + road.pavement
    inner = road.lanes * road.lane / 2
    line = (across + np.float32(inner)) / np.float32(road.lane)
    number = np.rint(line)
    near = np.abs(line - number) * np.float32(road.lane) < np.maximum(0.065, z * np.float32(0.55 / focal))
    middle, rim = number * 2 == road.lanes, (number <= 0) | (number >= road.lanes)
    dash = _fraction(z * np.float32(1 / 9) + np.float32(rng.random())) < 0.38
    if road.style == 2:
        dash |= middle
    painted = near & (dash | rim) & (aside < inner + 0.3) & (coarse < 1.7) & (z < 160)
    if road.style == 0:
        painted = np.zeros_like(painted)
    if road.zebra > 0:
        band = (z > road.zebra) & (z < road.zebra + 3.4) & (aside < road.half - 0.25)
        painted = (painted & ~band) | (band & (_fraction(across + np.float32(0.25)) < 0.5) & (coarse < 1.9))
    region[painted] = 4
    return region


def _wear(road: Road, across: Array, z: Array, region: Scene, rng: np.random.Generator) -> Array:
    """Return the brightness of wheel tracks, repairs, cracks and paving joints."""
    lane = _fraction(across * np.float32(1 / road.lane) + np.float32(road.lanes % 2 * 0.5))
    tracks = 1 - np.float32(0.07) * np.maximum(1 - np.abs(np.abs(lane - 0.5) - 0.25) * 7, 0)
    for _ in range(int(rng.integers(0, 4))):
        aside, ahead, wide, long = rng.uniform(-road.half, road.half), rng.uniform(4, 40), *rng.uniform(0.3, 2.5, 2)
        mended = (np.abs(across - np.float32(aside)) < wide) & (np.abs(z - np.float32(ahead)) < long)
        tracks *= 1 + mended * np.float32(rng.uniform(-0.22, 0.12))
    for _ in range(int(rng.integers(0, 3))):
        crack = (
            across
            - np.float32(rng.uniform(-road.half, road.half))
            - 0.25 * np.sin(z * np.float32(rng.uniform(0.3, 1.2)))
        )
        tracks *= 1 - ((np.abs(crack) < 0.035) & (z < 30)) * np.float32(0.3)
    joints = (_fraction(across * np.float32(1 / 0.75)) < 0.06) | (_fraction(z) < 0.06)
    paving = 1 - np.float32(0.2) * joints * np.clip(np.float32(1.4) - z * np.float32(0.07), 0, 1)
    kerb = np.where(region == 1, np.float32(0.88), np.float32(1.0))
    return np.where(region == 0, tracks, np.where(region == 2, paving, kerb)).astype(np.float32)
