"""Time from image to mask: the engines against plain loops, and `predict` on a folder against the model alone.

    python -m benchmarks.inference --root data        # trains five networks first (once), then an hour
    python -m benchmarks.inference --table            # print the committed results as Markdown

Engines: one image at a time, from its pixels in memory to its mask, in rounds that alternate between all methods; medians. The
networks are trained on CamVid for `--train-steps` steps and kept in `--models`, since the two best classes of random weights
nearly tie everywhere. Images are test images of CamVid, enlarged or cut to the size of the case. `equal` and `mIoU` compare the
masks with those of the plain loop. A network with 150 classes cannot be trained on CamVid: `segformer-b0, 150 classes` has the
trained encoder, a random head and no comparison; that of its masks is in the row of 11 classes.

- `eager`: the loop of the network's documentation in fp32: normalise, forward, enlarge the logits if they are coarse, argmax.
- `compiled`: the same under `torch.compile`.
- all others: `Predictor` with this engine and precision.

End to end: a folder of `--images` files of 480×360, test images of CamVid repeated under other names, with the default network.
`model alone` is `Predictor.concurrent` on decoded images in the same rounds, from as many threads as it computes for. The two
peers read with Pillow, normalise, compute, take the argmax and save the mask with Pillow, one image after the other, without
overlays. With `--ultralytics PYTHON`, an interpreter that can import ultralytics (AGPL, installed apart), its command predicts
the folder with its smallest semantic model, untrained and exported to OpenVINO; it writes overlays only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchmarks.peers import IMAGENET_MEAN, IMAGENET_STD, Input, Padded, pretrained_unet
from benchmarks.protocol import (
    NOT_MEASURED,
    RECIPES,
    TRAINING_ALONE,
    machine,
    parse,
    parser_with_root,
    read_json,
    version,
    write_json,
)
from pixelwise.api.predicting import predict_files
from pixelwise.errors import PixelwiseError
from pixelwise.inference.backend import BACKENDS, open_backend
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.models.base import SegmentationModel
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import load_model, save_model
from pixelwise.tiles import padded

RESULT = Path(__file__).parent / "results" / "inference.json"
PRECISIONS = ("fp32", "bf16")
# Seconds before an engine is called: the threads of other engines keep a core busy for a while after their last call.
PAUSE = 0.3
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
PACKAGES = ("torch", "openvino", "onnxruntime", "transformers", "torchvision", "segmentation-models-pytorch", "pillow")

Masker = Callable[[NDArray[np.uint8]], NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A network and the size (H, W) of its images; `classes` replaces those of CamVid.

    `settings` are those of its training, without which `train` chooses a smaller network; `kind` names them.
    """

    model: str
    size: tuple[int, int]
    classes: int | None = None
    kind: str = ""
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in the table."""
        size = "×".join(map(str, self.size))
        return f"{self.model}{self.kind}, {size}" + (f", {self.classes} classes" if self.classes else "")


DEFAULT = Case("fpn", (360, 480))
FOLDER, COMMAND = "folder", "command"
ULTRALYTICS = "command of Ultralytics, YOLO26n-sem, OpenVINO"
# The reference, what `auto` takes where masks have parity, and the fastest one.
FOLDER_ENGINES = ("torch fp32", "openvino fp32", "openvino bf16")
CASES = (
    Case("unet", (512, 512), kind=" of 31 M", settings=("model.stem=1", "model.features=[64,128,256,512]")),
    Case("unet", (360, 480)),
    Case("segformer-b0", (512, 512)),
    Case("segformer-b0", (512, 512), 150),
    Case("deeplabv3-resnet50", (512, 512)),
    DEFAULT,
)


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--models", type=Path, default=Path("runs/inference"), help="folder of the trained networks")
    parser.add_argument("--train-steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=11, help="images per method")
    parser.add_argument("--compared", type=int, default=20, help="images whose masks are compared")
    parser.add_argument("--images", type=int, default=1000, help="files in the folder")
    parser.add_argument("--folder-rounds", type=int, default=3, help="how often the folder is predicted")
    parser.add_argument("--case", choices=[*(case.name for case in CASES), FOLDER], action="append", dest="cases")
    parser.add_argument("--ultralytics", type=Path, help="interpreter that can import ultralytics")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--results", type=Path, default=RESULT, help="JSON file")
    args = parse(parser)
    if args.table:
        print(table(args.results))
        return
    images = sorted((args.root / "camvid" / "test").glob("*.jpg"))
    for case in CASES:
        if not args.cases or case.name in args.cases:
            chosen = images[:: max(1, len(images) // args.compared)][: args.compared]
            rows = measure_engines(case, trained(case, args), chosen, args.rounds, compiled=not args.no_compile)
            _record(args, {case.name: {"rounds": args.rounds, "steps": args.train_steps, "rows": rows}})
    if not args.cases or FOLDER in args.cases:
        folder = trained(DEFAULT, args)
        rows = measure_folder(
            folder,
            images,
            args.images,
            args.folder_rounds,
            compiled=not args.no_compile,
            ultralytics=args.ultralytics,
        )
        _record(args, {}, {"images": args.images, "rounds": args.folder_rounds, "rows": rows})
    print(table(args.results))


def _record(args: argparse.Namespace, cases: Mapping[str, Any], folder: Mapping[str, Any] | None = None) -> None:
    """Add measurements to the results, which keep those of other cases."""
    before = read_json(args.results) if args.results.exists() else {}
    facts = {**machine(), "features": cpu_features(), "commit": version(), "versions": versions()}
    content = {"machine": facts, "engines": {**before.get("engines", {}), **cases}}
    write_json(args.results, content | {"folder": folder or before.get("folder")})


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return which of `FEATURES` the processor has (Linux)."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return [feature for feature in FEATURES if feature in flags]


def versions() -> dict[str, str]:
    """Return the versions of the engines and peers that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = installed(package)
        except PackageNotFoundError:
            continue
    return found


# Networks ------------------------------------------------------------------------------------------------------------


def trained(case: Case, args: argparse.Namespace) -> Path:
    """Train a network on CamVid unless `--models` has it; return the model folder."""
    import pixelwise

    run = args.models / f"{case.model}{case.kind.replace(' ', '-')}-{args.train_steps}"
    if not (run / "scores.json").exists():
        print(f"training {case.model} for {args.train_steps} steps", file=sys.stderr, flush=True)
        root = f"data.root={(args.root / 'camvid').resolve()}"
        overrides = [root, *TRAINING_ALONE, *case.settings]
        recipe = RECIPES / "camvid.yaml"
        pixelwise.train(recipe, model=case.model, out=run, steps=args.train_steps, seed=0, overrides=overrides)
    if case.classes is None:
        return run / "model"
    return with_classes(run / "model", case.classes, run.with_name(f"{run.name}-{case.classes}"))


def with_classes(folder: Path, classes: int, out: Path) -> Path:
    """Write a model folder with another number of classes, whose head has random weights."""
    model, card = load_model(folder)
    arguments = {**card.architecture["arguments"], "num_classes": classes}
    torch.manual_seed(0)
    other = build_model(card.architecture["name"], **arguments)
    own = other.state_dict()
    own.update({name: t for name, t in model.state_dict().items() if own[name].shape == t.shape})
    other.load_state_dict(own)
    spec = replace(card.spec, labels=Labels(tuple(f"class {k}" for k in range(classes))))
    architecture = {**card.architecture, "arguments": arguments}
    save_model(out, other, replace(card, architecture=architecture, spec=spec))
    return out


def plain_network(model: SegmentationModel) -> nn.Module:
    """Return the network in the form of its library's documentation: raw pixel values (B, C, H, W) → class indices (B, H, W)."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()
            self.normalise = model.normalise
            self.kind = type(model).__name__

        def forward(self, images: Tensor) -> Tensor:
            if self.kind == "TransformersModel":
                logits = self.model.network(pixel_values=self.normalise(images)).logits
                logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
            elif self.kind == "TorchvisionModel":
                logits = self.model.network(self.normalise(images))["out"]
            else:
                logits = self.model(images)
            return logits.argmax(1)

    return Plain()


def masker(network: Callable[[Tensor], Tensor]) -> Masker:
    """Return a function of an image (C, H, W) that gives the class indices (H, W) of a torch network."""

    def work(image: NDArray[np.uint8]) -> NDArray[Any]:
        with torch.inference_mode():
            return network(torch.from_numpy(image[None]).float())[0].numpy()

    return work


def engines(folder: Path) -> Iterator[tuple[str, Predictor | str]]:
    """Yield name and Predictor of each engine with each precision, or the reason why it is not available."""
    for engine in BACKENDS:
        for precision in PRECISIONS:
            name = f"{engine} {precision}"
            try:
                backend = open_backend(folder, engine, precision=precision)
            except PixelwiseError as error:
                yield name, str(error)
            else:
                yield name, Predictor(backend, tile=None, flips=False)


# Engines -------------------------------------------------------------------------------------------------------------


def measure_engines(
    case: Case, folder: Path, files: Sequence[Path], rounds: int, *, compiled: bool = True
) -> list[dict[str, Any]]:
    """Time all methods in alternating rounds, and compare their masks of all images with those of the eager loop."""
    images = [resized(path, case.size) for path in files]
    network = plain_network(load_model(folder)[0])
    methods: dict[str, Masker] = {"eager": masker(network)}
    rows: dict[str, dict[str, Any]] = {}
    if compiled:
        methods["compiled"] = masker(torch.compile(network))
    for name, found in engines(folder):
        if isinstance(found, str):
            rows[name] = {"method": name, "unavailable": found}
        else:
            methods[name] = lambda image, predictor=found: predictor(image).mask
    expected = [methods["eager"](image) for image in images]
    for name, method in list(methods.items()):
        print(f"{case.name}: {name}", file=sys.stderr, flush=True)
        try:
            masks = [method(image) for image in images]
        except Exception as error:  # a network that an engine cannot compute is a result
            rows[name] = {
                "method": name,
                "unavailable": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            }
            del methods[name]
            continue
        rows[name] = {"method": name} | ({} if case.classes else agreement(expected, masks))
    calls = {name: lambda k, m=m: m(images[k % len(images)]) for name, m in methods.items()}
    seconds = alternate(calls, rounds, warm=True)
    for name, taken in seconds.items():
        rows[name] |= {"seconds": statistics.median(taken), "fastest": min(taken), "slowest": max(taken)}
    return [rows[name] for name in sorted(rows, key=[*methods, *rows].index)]


def resized(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read an image (3, H, W), enlarged so that it covers `size`, and cut to its centre."""
    image = Image.open(path).convert("RGB")
    scale = max(size[0] / image.height, size[1] / image.width)
    if scale != 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
    pixels = np.asarray(image.crop((left, top, left + size[1], top + size[0])))
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def alternate(
    methods: Mapping[str, Callable[[int], object]], rounds: int, *, warm: bool = False
) -> dict[str, list[float]]:
    """Return the seconds of each method in each round, called with the number of the round.

    With `warm`, a call that is not measured goes before, since the first one after a pause is slower.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(rounds):
        for name, method in methods.items():
            time.sleep(PAUSE)
            if warm:
                method(turn)
            began = time.perf_counter()
            method(turn)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def agreement(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Return the share of equal pixels, and the mean IoU of the two masks over the classes in either of them."""
    one, other = (np.concatenate([mask.ravel() for mask in masks]).astype(np.int64) for masks in (expected, found))
    count = int(max(one.max(), other.max())) + 1
    confusion = np.bincount(count * one + other, minlength=count**2).reshape(count, count)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    ious = confusion.diagonal()[union > 0] / union[union > 0]
    return {"equal": float(confusion.trace() / confusion.sum()), "miou": float(ious.mean())}


# A folder of images --------------------------------------------------------------------------------------------------


def measure_folder(
    folder: Path,
    files: Sequence[Path],
    count: int,
    rounds: int,
    *,
    compiled: bool = True,
    ultralytics: Path | None = None,
) -> list[dict[str, Any]]:
    """Time `predict` with each engine on a folder of `count` images, the model alone, and the loops of peers."""
    pixels = [resized(path, DEFAULT.size) for path in files]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        few, every = (copies(files, number, out / f"images-{number}") for number in (2, count))
        methods: dict[str, Callable[[Path], object]] = {}
        for name, predictor in engines(folder):
            if isinstance(predictor, str) or name not in FOLDER_ENGINES:
                continue
            methods[f"{name}: model alone"] = partial(_alone, predictor, pixels)
            for label, overlays in (("masks and overlays", True), ("masks", False)):
                methods[f"{name}: {label}"] = partial(_predict, predictor, out / "ours", overlays)
        for name, mask_of in peers(folder, compiled):
            methods[f"{name}: masks"] = partial(plain_loop, mask_of, out / "peer")
        methods[COMMAND] = partial(_command, folder, out / "ours")
        if ultralytics is not None:
            methods[f"{ULTRALYTICS}: overlays"] = partial(_ultralytics, ultralytics, out / "peer")
        for name, work in list(methods.items()):
            print(f"{count} images: {name}", file=sys.stderr, flush=True)
            try:
                work(few)
            except Exception as error:  # torch.compile does not work everywhere
                print(f"left out: {error}", file=sys.stderr, flush=True)
                del methods[name]
        seconds = alternate({name: lambda _, w=work: w(every) for name, work in methods.items()}, rounds)
        if COMMAND in seconds:
            engine = read_json(out / "ours" / "predictions.json")["engine"]
            title = f"command, {engine['name']} {engine['precision']}: masks and overlays"
            seconds[title] = seconds.pop(COMMAND)
    rates = {name: count / statistics.median(taken) for name, taken in seconds.items()}
    return [
        {"method": name, "per_second": rate, "alone": rates.get(f"{name.partition(':')[0]}: model alone")}
        for name, rate in rates.items()
    ]


def copies(files: Sequence[Path], count: int, folder: Path) -> Path:
    """Write a folder with `count` images, the given ones repeated under other names."""
    folder.mkdir()
    for number, path in enumerate(islice(cycle(files), count)):
        (folder / f"{number:05}.jpg").write_bytes(path.read_bytes())
    return folder


def _alone(predictor: Predictor, pixels: Sequence[NDArray[np.uint8]], sources: Path) -> None:
    """Predict as many images as the folder has, from memory."""
    several = predictor.concurrent()
    with ThreadPoolExecutor(several.calls) as pool:
        for _ in pool.map(several, islice(cycle(pixels), len(list(sources.iterdir())))):
            pass


def _predict(predictor: Predictor, out: Path, overlays: bool, sources: Path) -> None:
    predict_files(predictor, [str(sources)], out, overlays=overlays, overwrite=True)


def peers(folder: Path, compiled: bool) -> Iterator[tuple[str, Masker]]:
    """Yield the networks of the peers' loops: the default network in eager torch, and a U-Net of SMP under torch.compile."""
    model, card = load_model(folder)
    yield "plain loop", masker(plain_network(model))
    given = Input(IMAGENET_MEAN, IMAGENET_STD, DEFAULT.size)
    network = Padded(pretrained_unet(3, card.labels.num_classes), given).eval()
    called = torch.compile(network) if compiled else network
    yield f"SMP U-Net, {'torch.compile' if compiled else 'eager'}", masker(lambda images: called(images).argmax(1))


def plain_loop(mask_of: Masker, out: Path, sources: Path) -> None:
    """Read, compute and save one image after the other, as in the examples of the libraries."""
    out.mkdir(exist_ok=True)
    for path in sorted(sources.iterdir()):
        image = np.moveaxis(np.asarray(Image.open(path).convert("RGB")), -1, 0)
        Image.fromarray(mask_of(np.ascontiguousarray(image)).astype(np.uint8)).save(out / f"{path.stem}.png")


def _command(folder: Path, out: Path, sources: Path) -> None:
    """Run `pixelwise predict` as a user does: the whole process."""
    command = [sys.executable, "-m", "pixelwise", "predict", str(folder), str(sources), "--out", str(out)]
    subprocess.run([*command, "--overwrite", "--json"], check=True, capture_output=True)


def _ultralytics(python: Path, place: Path, sources: Path) -> None:
    """Run the command of Ultralytics: once to export its model, then to predict the folder."""
    place.mkdir(exist_ok=True)
    size = ",".join(str(padded(side, 32)) for side in DEFAULT.size)
    program = "import sys; from ultralytics.cfg import entrypoint; sys.argv[0] = 'yolo'; entrypoint()"
    environment = os.environ | {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(place)}

    def yolo(*arguments: str) -> None:
        command = [str(python), "-c", program, "semantic", *arguments, f"imgsz={size}"]
        subprocess.run(command, check=True, capture_output=True, cwd=place, env=environment)

    exported = place / "yolo26n-sem_openvino_model"
    if not exported.exists():
        yolo("export", "model=yolo26n-sem.yaml", "format=openvino")
    yolo(
        "predict", f"model={exported}", f"source={sources}", "save=True", f"project={place}", "exist_ok=True",
        "verbose=False",
    )  # fmt: skip


# Tables --------------------------------------------------------------------------------------------------------------


def table(path: Path = RESULT) -> str:
    """Return both tables as Markdown."""
    if not path.exists():
        return NOT_MEASURED
    data = read_json(path)
    lines = ["| network | method | ms | × eager | equal pixels | mIoU of the masks |", "|---|---|---:|---:|---:|---:|"]
    for case, content in data["engines"].items():
        measured = [row for row in content["rows"] if "seconds" in row]
        eager = next(row["seconds"] for row in measured if row["method"] == "eager")
        for row in measured:
            share = [f"{row[key]:.3%}" if key in row else "–" for key in ("equal", "miou")]
            cells = [case, row["method"], f"{1e3 * row['seconds']:.1f}", f"{eager / row['seconds']:.2f}", *share]
            lines.append(f"| {' | '.join(cells)} |")
    if data["folder"]:
        lines += [
            "",
            f"| {data['folder']['images']} images of 480×360 | per second | of the model alone |",
            "|---|---:|---:|",
        ]
        for row in data["folder"]["rows"]:
            share = f"{row['per_second'] / row['alone']:.0%}" if row["alone"] else "–"
            lines.append(f"| {row['method']} | {row['per_second']:.1f} | {share} |")
    return "\n".join([*lines, "", _facts(data)])


def _facts(data: Mapping[str, Any]) -> str:
    about = data["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    steps = sorted({content["steps"] for content in data["engines"].values()})
    rounds = sorted({content["rounds"] for content in data["engines"].values()})
    return (
        f"{about['cores']} cores of {about['processor']} ({', '.join(about['features']) or 'features unknown'}); "
        f"networks after {'/'.join(map(str, steps))} steps, {'/'.join(map(str, rounds))} rounds; "
        f"{packages}; pixelwise at {about['commit']}."
    )


if __name__ == "__main__":
    main()
