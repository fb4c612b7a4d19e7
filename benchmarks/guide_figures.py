"""Draw the figures of the guides.

python -m benchmarks.guide_figures      # writes docs/images/guide-*.jpg
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.measuring.ground_plane import GroundPlane
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.regions import find_regions
from pixelwise.measuring.scale import AffineScale

FOLDER = Path(__file__).parents[1] / "docs" / "images"
_WIDTH, _HEIGHT = 1200, 640
_STAIN, _HOLE, _YARN = (214, 96, 24), (30, 90, 200), (150, 40, 120)


def main() -> None:
    for name, image in {
        "guide-fabric-roll": fabric(),
        "guide-areas-by-district": districts(),
        "guide-drive": road(),
        "guide-organ-volumes": organ(),
    }.items():
        image.save(FOLDER / f"{name}.jpg", quality=65, optimize=True)
        print(FOLDER / f"{name}.jpg")


def fabric() -> Image.Image:
    """Draw a piece of cloth with a stain, a hole and a missing yarn, and their sizes as `measure` gives them."""
    mask = _defects()
    image = Image.fromarray(_cloth(mask))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(26)
    labels = Labels(("cloth", "stain", "hole", "missing yarn"))
    scale = AffineScale(np.eye(2) * 0.2, "mm", "spacing of 0.2 mm")
    for region in find_regions(ArrayMask(mask, labels), scale, Grid(), ("mm²", 1.0)):
        if region.class_name == "cloth":
            continue
        sizes = region.measurements
        (top, left), (bottom, right) = region.window.start, region.window.stop
        colour = {"stain": _STAIN, "hole": _HOLE}.get(region.class_name, _YARN)
        draw.rectangle((left - 8, top - 8, right + 7, bottom + 7), outline=colour, width=3)
        text = (
            f"{region.class_name}  {sizes['area'].value:.0f} sq. mm, longest axis {sizes['longest_axis'].value:.1f} mm"
        )
        if "length" in sizes:
            text = f"{region.class_name}  length {sizes['length'].value:.1f} mm, width {sizes['width'].value:.1f} mm"
        at = (min(left - 2, _WIDTH - 20 - round(font.getlength(text))), bottom + 18)
        box = draw.textbbox(at, text, font)
        draw.rectangle((box[0] - 6, box[1] - 5, box[2] + 6, box[3] + 6), fill=(255, 255, 255))
        draw.text(at, text, (20, 20, 20), font)
    return image


def districts() -> Image.Image:
    """Draw a map of grass, wheat and roads with two districts, and the hectares of each class in them."""
    rows, columns = np.indices((_HEIGHT, _WIDTH))
    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    mask[(columns > 430 + 60 * np.sin(rows / 110)) & (columns < 1010 + 40 * np.cos(rows / 70)) & (rows > 60)] = 1
    mask[np.abs(rows - 330 - 50 * np.sin(columns / 190)) < 8] = 2
    mask[np.abs(columns - 700 - 0.3 * rows) < 7] = 2
    colours = np.array([(150, 178, 118), (226, 200, 112), (98, 98, 104)])
    rng = np.random.default_rng(0)
    image = Image.fromarray((colours[mask] + rng.normal(0, 3, (*mask.shape, 1))).clip(0, 255).astype(np.uint8))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(26)
    border = [(540, -10), (575, 210), (515, 420), (560, 650)]
    draw.line(border, (255, 255, 255), 9)
    draw.line(border, (30, 30, 30), 4)
    west = columns < np.interp(rows, [y for _, y in border], [x for x, _ in border])
    hectares = 0.02  # a pixel of about 14 m
    for name, inside, x in (("west", west, 40), ("east", ~west, 850)):
        lines = [f"{name}:"]
        lines += [
            f"{label}  {(inside & (mask == k)).sum() * hectares:,.0f} ha"
            for k, label in enumerate(("grass", "wheat", "road"))
        ]
        text = "\n".join(lines)
        box = draw.textbbox((x, 440), text, font)
        draw.rectangle((box[0] - 12, box[1] - 10, box[2] + 12, box[3] + 12), fill=(255, 255, 255))
        draw.text((x, 440), text, (20, 20, 20), font)
    return image


def road() -> Image.Image:
    """Draw a road with a vehicle, lines of equal distance on the ground plane, and the distance of the vehicle."""
    corners = np.array([(220, 460), (420, 460), (352, 270), (288, 270)])
    plane = GroundPlane.from_points(corners, np.array([(-2, 5), (2, 5), (2, 18), (-2, 18)]))
    zoom = _HEIGHT / 480
    image = Image.new("RGB", (round(640 * zoom), _HEIGHT), (178, 202, 224))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(24)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * zoom, y * zoom) for x, y in points]

    draw.rectangle((*at((0, 181))[0], image.width, _HEIGHT), fill=(150, 172, 128))
    draw.polygon(at((320, 181), (625, 520), (15, 520)), fill=(120, 120, 126))
    rows = np.arange(250.0, 480.0)
    ahead = plane.to_ground(np.stack([rows, np.full_like(rows, 320)], 1))[:, 1]
    for metres in (6, 8, 10, 15, 20):
        row = float(np.interp(-metres, -ahead, rows))
        half = 0.9 * (row - 181)
        draw.line(at((320 - half, row), (320 + half, row)), fill=(240, 240, 240), width=2)
        draw.text(at((326 + half, row - 9))[0], f"{metres:g} m", (20, 20, 20), font)
    draw.rectangle(at((296, 262), (345, 319.5)), fill=(64, 84, 160), outline=(20, 20, 20), width=2)
    draw.rectangle(at((302, 268), (339, 284)), fill=(190, 206, 222))
    draw.ellipse((*at((317, 316))[0], *at((324, 323))[0]), fill=(220, 40, 30))
    draw.text(at((60, 296))[0], "vehicle: 11.2 m ahead", (20, 20, 20), font)
    draw.line(at((252, 307), (312, 319)), fill=(20, 20, 20), width=2)
    return image


def organ() -> Image.Image:
    """Draw three slices of a volume with an organ and a lesion, with the volumes and the longest axis in a slice."""
    slices, rows, columns = np.indices((33, 300, 360))
    x, y, z = (columns - 180) * 0.5, (rows - 150) * 0.5, (slices - 16) * 2.5
    bumps = 1 + 0.05 * np.sin(3 * np.arctan2(y, x)) + 0.04 * np.cos(z / 9)
    liver = (x / 72) ** 2 + (y / 55) ** 2 + (z / 38) ** 2 <= bumps
    lesion = ((x - 22) / 17) ** 2 + ((y + 6) / 11) ** 2 + (z / 13) ** 2 <= 1
    mask = (liver.astype(np.uint8) + (liver & lesion)).astype(np.uint8)
    scale = AffineScale(np.diag([2.5, 0.5, 0.5]), "mm", "drawn")
    labels = Labels(("background", "liver", "lesion"))
    regions = find_regions(ArrayMask(mask, labels), scale, Grid((2.5, 0.5, 0.5), "mm"), ("ml", 1e-3))
    sizes = {region.class_name: region.measurements for region in regions}
    rng = np.random.default_rng(0)
    light = np.array([28.0, 128.0, 82.0])[mask] + rng.normal(0, 9, mask.shape)
    image = Image.new("RGB", (3 * 360 + 40, 300 + 96), (255, 255, 255))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(24)
    for n, k in enumerate((11, 16, 21)):
        left = 10 + 370 * n
        image.paste(Image.fromarray(light[k].clip(0, 255).astype(np.uint8)), (left, 10))
        draw.text((left + 8, 14), f"z = {(k - 16) * 2.5:+.1f} mm", (255, 255, 255), font)
    middle = (10 + 370 + 180 + 44, 10 + 150 - 12)
    draw.line((middle[0] - 34, middle[1], middle[0] + 34, middle[1]), fill=(255, 210, 40), width=3)
    axis = sizes["lesion"]["longest_axis_in_slice"].value
    text = (
        f"liver without lesion {sizes['liver']['volume'].value:.0f} ml, lesion {sizes['lesion']['volume'].value:.1f} ml"
    )
    draw.text((14, 322), text, (20, 20, 20), font)
    draw.text((14, 354), f"longest axis of the lesion in a slice {axis:.1f} mm (yellow)", (20, 20, 20), font)
    return image


def _defects() -> NDArray[np.uint8]:
    rows, columns = np.indices((_HEIGHT, _WIDTH))
    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    angle = np.arctan2(rows - 190, columns - 260)
    mask[np.hypot((rows - 190) * 1.4, columns - 260) < 85 + 14 * np.sin(3 * angle) + 8 * np.cos(5 * angle + 1)] = 1
    mask[np.hypot(rows - 150, columns - 840) < 38 + 5 * np.sin(4 * np.arctan2(rows - 150, columns - 840))] = 2
    mask[(np.abs(rows - 460 - 6 * np.sin(columns / 160)) < 5) & (columns > 380) & (columns < 1080)] = 3
    return mask


def _cloth(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) of a plain weave with the defects of a mask."""
    rows, columns = np.indices(mask.shape)
    rng = np.random.default_rng(0)
    over = (rows // 6 + columns // 6) % 2
    thread = np.where(over, np.sin(np.pi * (rows % 6 + 0.5) / 6), np.sin(np.pi * (columns % 6 + 0.5) / 6))
    light = 140 + 45 * thread + rng.normal(0, 2, mask.shape) + 6 * np.sin(columns / 90)
    image = light[..., None] * np.array([0.92, 0.96, 1.0])
    image[mask == 1] = image[mask == 1] * (0.72, 0.62, 0.5)
    image[mask == 3] *= 0.55
    image[mask == 2] = 25 + 0.08 * image[mask == 2]
    return image.clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
