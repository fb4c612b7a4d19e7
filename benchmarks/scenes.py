"""Predicting large images: speed against the model alone, and memory, beside a plain windowed loop and one whole pass.

    python -m benchmarks.scenes --model runs/camvid/model --images data/camvid/test           # a quarter of an hour
    python -m benchmarks.scenes --model runs/camvid/model --images data/camvid/test --huge    # also 40,000 × 40,000
    python -m benchmarks.scenes --table                             # print the committed results as Markdown

Scenes consist of images of the model's own kind, put side by side, since a model is undecided on others and tiles then differ in
many pixels: 8-bit RGB, tiled GeoTIFF with DEFLATE, in a projected reference system. Each
method runs in a process of its own, whose largest resident memory is recorded; times leave out starting and opening the model.

- `model alone`: `Predictor.concurrent` on one tile in memory, as often as the scene has tiles.
- `predict`: as by `pixelwise predict`: the scene as a file, the mask as a cloud-optimised GeoTIFF. Without overlay.
- `plain loop`: rasterio and the same network by hand, as in tutorials: windows of the same size and overlap, the probabilities
  added to an array of the whole scene, divided, argmax, and written as GeoTIFF. Eager torch in fp32.
- `whole`: the scene read, passed through the network at once, and written. Eager torch in fp32.

Methods that would not fit into the memory are not run; their memory is computed and marked with ≥.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.protocol import NOT_MEASURED, machine, read_json, version, write_json
from pixelwise.machine import free_memory

RESULT = Path(__file__).parent / "results" / "scenes.json"
SIDES = (2_000, 8_000)
HUGE = 40_000
IMAGES = 40
METHODS = ("model alone", "predict", "plain loop", "whole")
# Bytes per pixel that the peers hold at least: probabilities of 11 classes and the number of windows in float32; activations.
_HELD = {"plain loop": 48, "whole": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--images", type=Path, help="folder with images of one size, of which scenes are made")
    parser.add_argument("--side", type=int, action="append", dest="sides", help="height and width (repeatable)")
    parser.add_argument("--huge", action="store_true", help=f"also predict {HUGE:,} × {HUGE:,}, only with pixelwise")
    parser.add_argument("--backend", default="openvino", help="engine of `model alone` and `predict`")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", type=Path, help="folder for the scenes; default: a temporary one")
    parser.add_argument("--results", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SCENE", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args, *args.one)))
        return
    if not args.table:
        measure(args)
    print(table(args.results))


def measure(args: argparse.Namespace) -> None:
    """Measure all methods on all scenes in alternating rounds, and write the results beside those of other sides."""
    about = machine() | {"backend": args.backend, "precision": args.precision}
    rows, commits = earlier(args.results, about)
    with tempfile.TemporaryDirectory(dir=args.place) as place:
        for side in (*(args.sides or SIDES), *((HUGE,) if args.huge else ())):
            scene = draw(Path(place) / f"scene-{side}.tif", side, args.images)
            found = rows[str(side)] = {}
            for turn in range(1 if side == HUGE else args.rounds):
                for method in METHODS:
                    if fits(method, side):
                        facts = process(args, method, scene, Path(place) / method)
                        found.setdefault(method, []).append(facts)
                        print(f"{side}, round {turn}: {method}: {facts}", file=sys.stderr, flush=True)
            scene.unlink()
    commit = ", ".join(sorted({*commits, version()}))
    ordered = {side: rows[side] for side in sorted(rows, key=int)}
    write_json(args.results, about | {"commit": commit, "rows": ordered})


def earlier(path: Path, facts: Mapping[str, Any]) -> tuple[dict[str, dict[str, list[dict[str, Any]]]], set[str]]:
    """Return the rows of earlier results of the same machine, engine and precision, and their commits."""
    data = read_json(path) if path.exists() else {}
    if any(data.get(key) != value for key, value in facts.items()):
        return {}, set()
    return dict(data["rows"]), set(data["commit"].split(", "))


def fits(method: str, side: int) -> bool:
    """Whether a method is run: peers where what they hold is less than half of the memory."""
    if method in ("predict", "model alone"):
        return True
    return side != HUGE and 1e9 * _computed(method, side) < (free_memory() or 0) / 2


def draw(path: Path, side: int, images: Path) -> Path:
    """Write a scene of images side by side, in rows of blocks, one after the other."""
    import rasterio
    from rasterio.transform import Affine

    pixels = [np.moveaxis(np.asarray(Image.open(file).convert("RGB")), -1, 0) for file in chosen(images)]
    profile = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    place = {"transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_600_000), "crs": "EPSG:32632"}
    with rasterio.open(path, "w", "GTiff", side, side, 3, dtype="uint8", **profile, **place) as file:
        for top in range(0, side, 512):
            rows = min(512, side - top)
            file.write(stripe(pixels, top, rows, side), window=((top, top + rows), (0, side)))
    return path


def chosen(folder: Path) -> list[Path]:
    """Return evenly spaced images of a folder."""
    every = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    return every[:: max(1, len(every) // IMAGES)][:IMAGES]


def stripe(pixels: Sequence[NDArray[np.uint8]], top: int, rows: int, side: int) -> NDArray[np.uint8]:
    """Return rows (3, rows, side) of a scene of images, each row of images shifted by one to the one above."""
    height, width = pixels[0].shape[1:]
    found = np.empty((3, rows, side), np.uint8)
    first = top // height
    for row in range(first, -(-(top + rows) // height)):
        start, stop = max(row * height, top), min((row + 1) * height, top + rows)
        for column, left in enumerate(range(0, side, width)):
            image = pixels[(row * (len(pixels) // 2 + 1) + column) % len(pixels)]
            part = image[:, start - row * height : stop - row * height, : side - left]
            found[:, start - top : stop - top, left : left + width] = part
    return found


def process(args: argparse.Namespace, method: str, scene: Path, out: Path) -> dict[str, Any]:
    """Run one method in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scenes", "--model", str(args.model), "--backend", args.backend]
    command += ["--precision", args.precision, "--one", method, str(scene), str(out)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    facts: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return facts


def run(args: argparse.Namespace, method: str, scene: str, out: str) -> dict[str, Any]:
    """Run one method in this process; return its seconds and largest resident memory in bytes."""
    works: Mapping[str, Callable[[argparse.Namespace, Path, Path], float]] = {
        "model alone": alone,
        "predict": ours,
        "plain loop": plain_loop,
        "whole": whole,
    }
    seconds = works[method](args, Path(scene), Path(out))
    return {"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def alone(args: argparse.Namespace, scene: Path, out: Path) -> float:
    """Predict a tile in memory as often as the scene has tiles."""
    import rasterio

    predictor = _predictor(args).concurrent()
    with rasterio.open(scene) as file:
        places = predictor.layout((file.height, file.width)).places
        tile = file.read(window=((0, places[0].shape[0]), (0, places[0].shape[1])))
    count = min(len(places), 2_000)
    predictor(tile)
    began = time.perf_counter()
    with ThreadPoolExecutor(predictor.calls) as pool:
        for _ in pool.map(lambda _: predictor(tile), range(count)):
            pass
    return (time.perf_counter() - began) * len(places) / count


def ours(args: argparse.Namespace, scene: Path, out: Path) -> float:
    """Predict the scene as `pixelwise predict` does."""
    from pixelwise.api.predicting import predict_files

    predictor = _predictor(args)
    predictor(np.zeros((3, 512, 512), np.uint8))
    began = time.perf_counter()
    result = predict_files(predictor, [str(scene)], out, overlays=False, overwrite=True)
    assert not result.failed, result.failed
    return time.perf_counter() - began


def plain_loop(args: argparse.Namespace, scene: Path, out: Path) -> float:
    """Predict windows by hand, and add their probabilities to an array of the whole scene."""
    import rasterio
    import torch

    from pixelwise.models.weights import load_model

    model, card = load_model(args.model)
    model.eval()
    predictor = _predictor(args)
    began = time.perf_counter()
    with rasterio.open(scene) as file, torch.inference_mode():
        shape, profile = (file.height, file.width), file.profile
        total = np.zeros((card.labels.num_classes, *shape), np.float32)
        count = np.zeros(shape, np.float32)
        for place in predictor.layout(shape).places:
            rows, columns = place.slices
            image = file.read(window=((rows.start, rows.stop), (columns.start, columns.stop)))
            total[:, rows, columns] += model(torch.from_numpy(image)[None].float())[0].softmax(0).numpy()
            count[rows, columns] += 1
    mask = (total / count).argmax(0).astype(np.uint8)
    _write(out, mask, profile)
    return time.perf_counter() - began


def whole(args: argparse.Namespace, scene: Path, out: Path) -> float:
    """Predict the scene in one pass."""
    import rasterio
    import torch

    from pixelwise.models.weights import load_model

    model, _ = load_model(args.model)
    model.eval()
    began = time.perf_counter()
    with rasterio.open(scene) as file, torch.inference_mode():
        mask = model(torch.from_numpy(file.read())[None].float())[0].argmax(0).numpy().astype(np.uint8)
        _write(out, mask, file.profile)
    return time.perf_counter() - began


def _write(out: Path, mask: NDArray[np.uint8], profile: Mapping[str, Any]) -> None:
    import rasterio

    out.mkdir(exist_ok=True)
    with rasterio.open(out / "mask.tif", "w", **{**profile, "count": 1}) as file:
        file.write(mask, 1)


def _predictor(args: argparse.Namespace) -> Any:
    from pixelwise.inference.backend import open_backend
    from pixelwise.inference.predictor import Predictor

    return Predictor(open_backend(args.model, args.backend, precision=args.precision), flips=False)


def table(path: Path = RESULT) -> str:
    """Return the results as Markdown."""
    if not path.exists():
        return NOT_MEASURED
    data = read_json(path)
    lines = [
        "| scene | method | seconds | million pixels per second | of the model alone | memory |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for side, methods in data["rows"].items():
        medians = {name: sorted(row["seconds"] for row in rows)[len(rows) // 2] for name, rows in methods.items()}
        for name in METHODS:
            title = f"{int(side):,} × {int(side):,}"
            if name not in methods:
                lines.append(f"| {title} | {name} | – | – | – | ≥ {_computed(name, int(side)):.0f} GB |")
                continue
            seconds = medians[name]
            memory = max(row["bytes"] for row in methods[name]) / 1e9
            share = f"{medians['model alone'] / seconds:.0%}"
            lines.append(
                f"| {title} | {name} | {seconds:,.1f} | {int(side) ** 2 / seconds / 1e6:.2f} | {share} | {memory:.2f} GB |"
            )
    about = (
        f"{data['cores']} cores of {data['processor']}, torch {data['torch']}, {data['backend']} {data['precision']}"
    )
    return "\n".join([*lines, "", f"Medians; {about}; pixelwise at {data['commit']}."])


def _computed(method: str, side: int) -> float:
    """Return the gigabytes that a method needs at least: of the arrays that it holds for the whole scene."""
    return _HELD[method] * side**2 / 1e9


if __name__ == "__main__":
    main()
