"""Synthetic data sets with exact ground truth: road scenes for demonstrations, and discs for fast tests.

Scenes are drawn at twice their size; every polygon writes colour and material together, so that image and ground truth
agree. The image is then downsampled, and lens and sensor effects are added; the materials are subsampled without mixing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageFilter

from pixelwise.demo.backdrop import MATERIALS, Array, Light, Scene, cut_noise
from pixelwise.demo.street import paint_street
from pixelwise.errors import OutputExistsError, UsageError
from pixelwise.labels import Labels

ROAD_CLASSES = ("background", "road", "vehicle", "pedestrian")
_COLOURS = {
    "background": (38, 40, 48), "road": (128, 100, 160), "vehicle": (50, 120, 220), "pedestrian": (230, 70, 70),
    "sky": (130, 185, 225), "terrain": (150, 190, 90), "vegetation": (60, 130, 60), "building": (150, 120, 100),
    "pole": (220, 190, 60), "pavement": (200, 150, 190), "lane marking": (240, 240, 240),
}  # fmt: skip
_COUNTABLE = ("vehicle", "pedestrian", "pole")
_SCENE_SIDE, _DISC_SIDE = 64, 16  # minimum image sides
_FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # so far apart that splits never share an image


def road_labels(classes: tuple[str, ...] = ROAD_CLASSES) -> Labels:
    """Return the labels of road scenes: ids 0…K-1; vehicles, pedestrians and poles are countable.

    Raises:
        UsageError: a name that is not a material of the scenes.
    """
    known = ("background", *MATERIALS)
    unknown = [name for name in classes if name not in known]
    if unknown or not classes:
        raise UsageError(
            "classes",
            expected=f"names out of {', '.join(known)}",
            found=repr(unknown[0]) if unknown else "none",
            do="Name materials of the scenes; all others belong to the first class.",
        )
    countable = tuple(name in _COUNTABLE for name in classes)
    return Labels(tuple(classes), colours=tuple(_COLOURS[name] for name in classes), countable=countable)


def disc_labels() -> Labels:
    """Return the labels of the disc images: background and countable discs."""
    return Labels(("background", "disc"), colours=((38, 40, 48), (240, 170, 60)), countable=(False, True))


def draw_scene(
    seed: int, index: int, size: tuple[int, int] = (240, 320), classes: tuple[str, ...] = ROAD_CLASSES
) -> tuple[Scene, Scene]:
    """Draw one road scene.

    Args:
        seed: random seed of the series, ≥ 0; equal arguments give identical images.
        index: index of the scene in the series, ≥ 0.
        size: (H, W), each at least 64.
        classes: names out of "background" and `MATERIALS`. Other materials belong to the first class, except that lane
            markings belong to road.

    Returns:
        The image, uint8 (3, H, W), and its class indices, uint8 (H, W).

    Raises:
        UsageError: a smaller size, or a class that is not a material.
    """
    table = _class_of_material(classes)
    _require_size(size, _SCENE_SIDE)
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    painted, light = paint_street(rng, size)
    materials: Scene = np.asarray(painted)[1::2, 1::2, 3]
    return _develop(painted, light, rng), table[materials]


def _require_size(size: tuple[int, int], smallest: int) -> None:
    if min(size) < smallest:
        raise UsageError(
            "size",
            expected=f"at least {smallest} × {smallest} pixels",
            found=f"{size[0]} × {size[1]}",
            do="Choose a larger size.",
        )


def _class_of_material(classes: tuple[str, ...]) -> Scene:
    """Return the class index of every material."""
    names = road_labels(classes).names
    table = np.zeros(len(MATERIALS), np.uint8)
    for k, material in enumerate(MATERIALS):
        fallback = "road" if material == "lane marking" else names[0]
        name = next((n for n in (material, fallback) if n in names), names[0])
        table[k] = names.index(name)
    return table


# Texture contrast of each material, in the order of `MATERIALS`.
_GRAIN = np.array([0.0, 0.02, 0.09, 0.045, 0.03, 0.02, 0.015, 0.02, 0.02, 0.05], np.float32)


def _develop(painted: Image.Image, light: Light, rng: np.random.Generator) -> Scene:
    """Make the image (3, H, W) from the painted canvas (2H × 2W): downsampling, texture, vignette, blur, exposure, noise."""
    small = np.asarray(painted.convert("RGB").reduce(2)).astype(np.float32)
    rows, columns = small.shape[:2]
    y, x = np.linspace(-1, 1, rows, dtype=np.float32)[:, None], np.linspace(-1, 1, columns, dtype=np.float32)[None]
    vignette = 1 - np.float32(rng.uniform(0.0, 0.11)) * (x * x + y * y)
    rough = _GRAIN[np.asarray(painted)[::2, ::2, 3]]
    small *= (vignette * (1 + cut_noise(0.7, (rows, columns), rng) * rough))[..., None]
    image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))
    blur = (0.0, rng.uniform(0.2, 0.45), rng.uniform(0.45, 0.75))[int(rng.choice(3, p=(0.4, 0.5, 0.1)))]
    image = image.filter(ImageFilter.BoxBlur(blur)) if blur else image
    curve = _curve(float(small.mean()), light, rng)
    grain = np.float32(rng.uniform(1.0, 8.0 if light.lamps else 5.0))
    finished = np.empty((3, rows, columns), np.uint8)
    for k, band in enumerate(image.split()):
        values = curve[k][np.asarray(band)]
        sigma = grain * (np.float32(0.6) + values * np.float32(0.4 / 255))  # shot noise
        finished[k] = np.clip(values + cut_noise(0.0, (rows, columns), rng) * sigma + 0.5, 0, 255)
    return finished


def _curve(level: float, light: Light, rng: np.random.Generator) -> Array:
    """Draw exposure (for a mean `level`, 0…255), contrast and white balance: tone curves (3, 256)."""
    t = np.linspace(0, 1, 256, dtype=np.float32)
    target = rng.uniform(80, 100) if light.lamps else rng.uniform(105, 135)
    gains = rng.uniform(0.96, 1.04, 3) * float(np.clip(target / max(level, 1.0), 0.85, 1.9))
    contrast = rng.uniform(0.0, 0.5)
    lifted = [1 - (1 - t) ** g if g > 1 else t * g for g in gains]  # highlights are compressed instead of clipped
    return np.stack([(v * (1 - contrast) + contrast * v * v * (3 - 2 * v)) * 255 for v in lifted]).astype(np.float32)


def draw_discs(seed: int, index: int, size: tuple[int, int] = (64, 64)) -> tuple[Scene, Scene]:
    """Draw one to four discs on a noisy background; they differ from it in brightness and texture.

    Args:
        seed: random seed of the series, ≥ 0; equal arguments give identical images.
        index: index of the image in the series, ≥ 0.
        size: (H, W), each at least 16.

    Returns:
        The image, uint8 (3, H, W), and its class indices, uint8 (H, W): 1 on discs, else 0.

    Raises:
        UsageError: a smaller size.
    """
    _require_size(size, _DISC_SIDE)
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, 1]))  # a stream other than that of scenes
    rows, columns = np.ogrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for _ in range(int(rng.integers(1, 5))):
        radius = min(size) * rng.uniform(0.08, 0.2)
        row, column = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    level, step = rng.uniform(90, 160), rng.choice([-1, 1]) * rng.uniform(25, 50)
    tint = rng.uniform(0.85, 1.15, (3, 1, 1)).astype(np.float32)
    smooth, sharp = cut_noise(1.2, size, rng) * 14, cut_noise(0.4, size, rng) * 14
    image = np.where(mask, level + step + sharp, level + smooth) * tint
    image += rng.standard_normal((3, *size), np.float32) * np.float32(6)
    return np.clip(image, 0, 255).astype(np.uint8), mask.astype(np.uint8)


Progress = Callable[[int, int], None]
_Draw = Callable[[int], tuple[Scene, Scene]]


def write_road_scenes(
    folder: Path, *, train: int = 120, val: int = 20, test: int = 40, size: tuple[int, int] = (240, 320), seed: int = 0,
    classes: tuple[str, ...] = ROAD_CLASSES, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Write a data set of road scenes, reproducibly: train|val|test/images|masks/*.png and labels.yaml.

    Args:
        folder: created; must be empty if it exists.
        train: number of training scenes.
        val: number of validation scenes.
        test: number of test scenes.
        size: (H, W), each at least 64.
        seed: random seed of the series, ≥ 0.
        classes: as for `draw_scene`.
        progress: called with (written, total) after each scene.

    Raises:
        OutputExistsError: the folder is not empty.
        UsageError: as for `draw_scene`.
    """
    counts = {"train": train, "val": val, "test": test}
    labels = road_labels(classes)
    _require_size(size, _SCENE_SIDE)
    _write(folder, labels, counts, lambda index: draw_scene(seed, index, size, classes), progress)


def write_discs(
    folder: Path, *, train: int = 24, val: int = 8, test: int = 8, size: tuple[int, int] = (64, 64), seed: int = 0
) -> None:
    """Write a data set of disc images, in the layout of `write_road_scenes`.

    Raises:
        OutputExistsError: the folder is not empty.
        UsageError: as for `draw_discs`.
    """
    counts = {"train": train, "val": val, "test": test}
    _require_size(size, _DISC_SIDE)
    _write(folder, disc_labels(), counts, lambda index: draw_discs(seed, index, size), None)


def _write(folder: Path, labels: Labels, counts: dict[str, int], draw: _Draw, progress: Progress | None) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(
            folder, expected="a new or empty folder", found="existing files", do="Choose another folder, or empty it."
        )
    done, total = 0, sum(counts.values())
    for split, count in counts.items():
        for kind in ("images", "masks") if count else ():
            (folder / split / kind).mkdir(parents=True)
        for k in range(count):
            image, mask = draw(_FIRST[split] + k)
            name = f"{split}-{k:04d}.png"
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / split / "images" / name)
            _palette_image(mask, labels).save(folder / split / "masks" / name)
            done += 1
            if progress:
                progress(done, total)
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(labels.to_dict(), sort_keys=False, default_flow_style=None, allow_unicode=True)
    (folder / "labels.yaml").write_text(text, encoding="utf-8")


def _palette_image(mask: Scene, labels: Labels) -> Image.Image:
    """Return a mask as a palette image: pixel values are class ids, colours are for display."""
    image = Image.fromarray(mask)
    image.putpalette([value for colour in labels.colours for value in colour])
    return image
