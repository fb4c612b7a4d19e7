"""Predicting volumes with many classes: memory and time, beside MONAI's sliding window and one pass over the whole volume.

    python -m benchmarks.volumes            # about a quarter of an hour
    python -m benchmarks.volumes --table    # print the committed results as Markdown

The volumes are drawn: 16-bit NIfTI with values as in CT. The network is a small 3-D U-Net with 100 classes and random weights, since its
memory and time do not depend on what it has learned. All methods compute the same network in the same tiles (96³, a quarter overlapping) with
eager torch in fp32, each in a process of its own, whose largest resident memory is recorded; times leave out starting and opening the model.

- `predict`: as by `pixelwise predict`, from the file to a NIfTI mask.
- `MONAI`: `monai.inferers.sliding_window_inference`, then argmax; reading and writing by nibabel.
- `whole`: one pass, then argmax.

Methods that would not fit into half of the memory are not run; what they hold at least is computed and marked with ≥.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol import NOT_MEASURED, machine, read_json, version, write_json
from pixelwise.machine import free_memory

RESULT = Path(__file__).parent / "results" / "volumes.json"
SIDES = (128, 256, 384)
CLASSES = 100
FEATURES = (8, 16)
TILE = 96
OVERLAP = 0.25
METHODS = ("predict", "MONAI", "whole")
# Bytes per voxel and class that the peers hold at least: the sum of logits in float32; logits, and what the network computes from.
_HELD = {"MONAI": 4.0, "whole": 4.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, action="append", dest="sides", help="side of the cube (repeatable)")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--place", type=Path, help="folder for the volumes; default: a temporary one")
    parser.add_argument("--results", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    parser.add_argument("--one", nargs=4, metavar=("METHOD", "MODEL", "VOLUME", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(*args.one)))
        return
    if not args.table:
        measure(args)
    print(table(args.results))


def measure(args: argparse.Namespace) -> None:
    """Measure all methods on all volumes in alternating rounds, and write the results."""
    import monai

    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory(dir=args.place) as place:
        model = Path(place) / "model"
        write_model(model, args.classes)
        for side in args.sides or SIDES:
            volume = draw(Path(place) / f"volume-{side}.nii", side)
            found = rows.setdefault(str(side), {})
            for turn in range(args.rounds):
                for method in METHODS:
                    if method == "predict" or 1e9 * computed(method, side, args.classes) < (free_memory() or 0) / 2:
                        facts = process(method, model, volume, Path(place) / method)
                        found.setdefault(method, []).append(facts)
                        print(f"{side}, round {turn}: {method}: {facts}", file=sys.stderr, flush=True)
            volume.unlink()
    facts = {"classes": args.classes, "monai": monai.__version__, "commit": version()}
    write_json(args.results, machine() | facts | {"rows": rows})


def write_model(folder: Path, classes: int) -> None:
    """Write a 3-D U-Net with random weights."""
    import torch

    from pixelwise.labels import Labels
    from pixelwise.models.card import ModelCard
    from pixelwise.models.catalogue import build_model
    from pixelwise.models.weights import save_model
    from pixelwise.types import ModelSpec

    torch.manual_seed(0)
    arguments = {
        "in_channels": 1,
        "num_classes": classes,
        "features": FEATURES,
        "dimensions": 3,
        "mean": [0.0],
        "std": [300.0],
    }
    labels = Labels(("background", *(f"organ {k}" for k in range(1, classes))))
    spec = ModelSpec(
        labels,
        1,
        dimensions=3,
        dtype="int16",
        stride=2 ** len(FEATURES),
        tile=(TILE,) * 3,
        overlap=OVERLAP,
        fill=(0.0,),
    )
    save_model(folder, build_model("unet", **arguments), ModelCard({"name": "unet", "arguments": arguments}, spec))


def draw(path: Path, side: int) -> Path:
    """Write a volume of smooth values between -1000 and 1000, of 0.8 mm."""
    import nibabel

    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 300, (side // 8 + 1,) * 3).clip(-1000, 1000).astype(np.int16)
    values = coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2)[:side, :side, :side]
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-0.8, -0.8, 0.8, 1.0])), path)  # columns to the left, as in DICOM
    return path


def process(method: str, model: Path, volume: Path, out: Path) -> dict[str, Any]:
    """Run one method in a process of its own; return its seconds and memory, or the signal that ended it."""
    command = [sys.executable, "-m", "benchmarks.volumes", "--one", method, str(model), str(volume), str(out)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    if found.returncode < 0:  # torch crashes on some large tensors
        return {"signal": -found.returncode}
    found.check_returncode()
    facts: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return facts


def run(method: str, model: str, volume: str, out: str) -> dict[str, Any]:
    """Run one method in this process; return its seconds and largest resident memory in bytes."""
    works: Mapping[str, Callable[[Path, Path, Path], float]] = {"predict": ours, "MONAI": monai_window, "whole": whole}
    seconds = works[method](Path(model), Path(volume), Path(out))
    return {"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def ours(model: Path, volume: Path, out: Path) -> float:
    """Predict the volume as `pixelwise predict --backend torch` does."""
    from pixelwise.api.predicting import predict_files
    from pixelwise.inference.backend import open_backend
    from pixelwise.inference.predictor import Predictor

    predictor = Predictor(open_backend(model, "torch", precision="fp32"))
    began = time.perf_counter()
    result = predict_files(predictor, [str(volume)], out, overlays=False, overwrite=True)
    assert not result.failed, result.failed
    return time.perf_counter() - began


def monai_window(model: Path, volume: Path, out: Path) -> float:
    """Predict the volume by MONAI's sliding window."""
    from monai.inferers.utils import sliding_window_inference

    def predict(network: Any, image: Any) -> Any:
        return sliding_window_inference(image, (TILE,) * 3, 1, network, overlap=OVERLAP, mode="gaussian")

    return _by_hand(model, volume, out, predict)


def whole(model: Path, volume: Path, out: Path) -> float:
    """Predict the volume in one pass."""
    return _by_hand(model, volume, out, lambda network, image: network(image))


def _by_hand(model: Path, volume: Path, out: Path, predict: Callable[[Any, Any], Any]) -> float:
    import nibabel
    import torch

    from pixelwise.models.weights import load_model

    network, _ = load_model(model)
    network.eval()
    began = time.perf_counter()
    file = nibabel.load(volume)
    assert isinstance(file, nibabel.Nifti1Image)
    image = torch.from_numpy(file.get_fdata(dtype=np.float32).T)[None, None]  # slices, rows, columns, as in training
    with torch.inference_mode():
        mask = predict(network, image)[0].argmax(0).numpy().astype(np.uint8)
    out.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask.T, file.affine), out / "mask.nii.gz")
    return time.perf_counter() - began


def computed(method: str, side: int, classes: int) -> float:
    """Return the gigabytes that a method holds at least."""
    return _HELD[method] * classes * side**3 / 1e9


def table(path: Path = RESULT) -> str:
    """Return the results as Markdown."""
    if not path.exists():
        return NOT_MEASURED
    data = read_json(path)
    lines = ["| volume | method | seconds | memory |", "|---|---|---:|---:|"]
    for side, methods in data["rows"].items():
        for name in METHODS:
            title = f"{side}³, {data['classes']} classes"
            if name not in methods:
                lines.append(f"| {title} | {name} | – | ≥ {computed(name, int(side), data['classes']):.0f} GB |")
                continue
            if any("signal" in row for row in methods[name]):
                lines.append(f"| {title} | {name} | crashes | – |")
                continue
            seconds = sorted(row["seconds"] for row in methods[name])[len(methods[name]) // 2]
            memory = max(row["bytes"] for row in methods[name]) / 1e9
            lines.append(f"| {title} | {name} | {seconds:,.0f} | {memory:.2f} GB |")
    about = f"{data['cores']} cores of {data['processor']}, torch {data['torch']}, MONAI {data['monai']}"
    return "\n".join([*lines, "", f"{about}; pixelwise at {data['commit']}."])


if __name__ == "__main__":
    main()
