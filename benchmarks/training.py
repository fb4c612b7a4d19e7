"""Where the time of a training step goes, and how whole steps compare with the training loops of tutorials and libraries.

    python -m benchmarks.training                                     # six networks, about half an hour on two quiet cores
    python -m benchmarks.training --network unet-31m --rounds 5 --out unet.json
    python -m benchmarks.training --table                             # print the committed results as Markdown

Drawn road scenes of 360×480 pixels, batches of 4 crops of 256×256, with precision and memory format as `train` chooses them by
its own measurement. A step reads a batch, computes the gradients, clips them, changes the weights and averages them. In each round,
pixelwise and its peer make one step each; times are medians over the rounds, and the ratio is the median of the ratios of the
rounds. The loss is timed once more on logits of the same shape, and the rest of the gradients counts as the model. Peers compute in
fp32, as documented, with pixelwise's data loading. Writes `benchmarks/results/training.json` and prints the table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pixelwise.config as configs
from benchmarks.protocol import NOT_MEASURED, machine, read_json, version, write_json
from pixelwise.batch import Batch, Outputs
from pixelwise.config import ResolvedConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.datasets.fingerprint import fingerprint
from pixelwise.evaluation import quick_miou
from pixelwise.training import assembly, budget, plan
from pixelwise.training.assembly import Components
from pixelwise.training.finetune import Frozen
from pixelwise.training.loader import batches
from pixelwise.training.loop import gradients, on_device
from pixelwise.training.machine import keep_freed_memory
from pixelwise.training.network_plan import Machine
from pixelwise.training.optim import AveragedWeights, adamw
from pixelwise.training.timing import median_ratio
from pixelwise.training.validation import seconds_per_image

RESULT = Path(__file__).parent / "results" / "training.json"
SIZE, TRAIN, VAL = (360, 480), 16, 4
PARTS = ("loader", "model", "loss", "optimizer", "averaging")
Step = Callable[[], None]


@dataclass(frozen=True)
class Network:
    """A network to measure.

    Args:
        title: for the table.
        overrides: of the configuration.
        peer: key of `PEERS`; None: only the parts of a step are measured.
    """

    title: str
    overrides: tuple[str, ...]
    peer: str | None = None


NETWORKS: Mapping[str, Network] = {
    "unet": Network("U-Net as chosen by `--model unet`", ("model.name=unet",)),
    "unet-31m": Network(
        "U-Net, 31 M", ("model.name=unet", "model.features=[64,128,256,512]", "model.stem=1"), "tutorial"
    ),
    "segformer-b0": Network("SegFormer-b0", ("model.name=segformer-b0",), "transformers"),
    "deeplabv3": Network("DeepLabV3, ResNet-50", ("model.name=deeplabv3-resnet50",)),
    "smp": Network("U-Net of smp, ResNet-34", ("model.name=unet/resnet34",), "smp"),
    "fpn": Network(
        "default: fpn, whole network trained",
        ("model.name=fpn", "model.encoder=tf_efficientnet_lite0", "model.weights=imagenet", "train.freeze=none"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--network", choices=NETWORKS, action="append", dest="networks", help="network (repeatable); default: all"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", type=int, default=256, help="height and width of a crop, pixels")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file with the results")
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    args = parser.parse_args()
    if not args.table:
        run(args.networks or list(NETWORKS), args.rounds, args.side, args.out)
    print(table(args.out))


def run(names: list[str], rounds: int, side: int, out: Path) -> None:
    """Measure networks, and write the results."""
    from pixelwise.demo.synthetic import write_road_scenes

    rows = []
    with tempfile.TemporaryDirectory() as place, keep_freed_memory():
        write_road_scenes(Path(place) / "data", train=TRAIN, val=VAL, test=1, size=SIZE)
        for name in names:
            rows.append(measure(name, Path(place), rounds, side))
            print(rows[-1], flush=True)
    packages = ("segmentation-models-pytorch", "transformers")
    facts = machine() | {"commit": version(), "versions": {name: installed(name) for name in packages}}
    write_json(out, facts | {"rounds": rounds, "batch": 4, "side": side, "rows": rows})


def measure(name: str, place: Path, rounds: int, side: int) -> dict[str, Any]:
    """Measure one network beside its peer."""
    network = NETWORKS[name]
    ours = Ours(place / "data", network.overrides, side, place / "run")
    theirs = None if network.peer is None else PEERS[network.peer](ours)
    whole: list[float] = []
    others: list[float] = []
    for turn in range(rounds + 1):
        seconds = ours.step()
        other = 0.0 if theirs is None else _seconds(theirs)
        if turn:  # the first is a warm-up
            whole.append(seconds)
            others.append(other)
        else:
            ours.seconds = {part: [] for part in PARTS}
    parts = {part: statistics.median(values) for part, values in ours.seconds.items()}
    train = ours.config.train
    row: dict[str, Any] = {"network": name, "parameters": sum(p.numel() for p in ours.model.parameters())}
    row |= {"precision": train.precision, "channels_last": train.channels_last}
    row |= {"seconds": statistics.median(whole), "parts": parts, "validation": ours.validation()}
    if theirs is not None:
        row["peer"] = {
            "name": network.peer,
            "seconds": statistics.median(others),
            "ratio": median_ratio(others, whole),
        }
    return row


class Ours:
    """The training of pixelwise, planned as by `train`, one step at a time, with the seconds of its parts.

    Args:
        data: the data set.
        overrides: of the configuration.
        side: height and width of a crop.
        out: run folder; nothing is written.
    """

    def __init__(self, data: Path, overrides: tuple[str, ...], side: int, out: Path) -> None:
        sets = (
            *overrides,
            f"train.crop=[{side},{side}]",
            "train.batch_size=4",
            "train.steps=1000",
            "train.validations=10",
        )
        config, base = configs.read_request(data, sets)
        splits = open_data(config.data, base)
        train, val = splits.train, splits.val
        assert train is not None
        assert val is not None
        self.data, self.val = train, val
        facts = fingerprint(train)
        source = assembly.pretrained(config)
        initial = None
        device = Machine("cpu", torch.get_num_threads(), True)
        if source is not None:
            initial = assembly.initial_weights(plan.derive(config, facts, device)[0], train, facts, source)
        config, _ = plan.derive(config, facts, device, initial)
        components = assembly.build(configs.draft(config), train, facts, source)
        config, _ = budget.choose_precision(config, components)
        config, _ = plan.settle(config, facts, train.groups())
        self.config: ResolvedConfig = configs.draft(config)
        self.card = assembly.model_card(config, splits, facts)
        components.crops.transform = assembly.transform(self.config, train)
        self._prepare(components)

    def _prepare(self, components: Components) -> None:
        train = self.config.train
        self.components = components
        self.model = on_device(components.model, train)
        rates = (train.learning_rate, train.weight_decay, train.head_rate, train.layer_decay, train.encoder_rate)
        self.optimizer = adamw(self.model, *rates)
        self.averaged = AveragedWeights(self.model, train.ema)
        self.frozen = Frozen(self.model, train.model_copy(update={"head_warmup": 0.0}))
        self.stream = self.batches()
        self.steps = count()
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}

    def batches(self) -> Iterator[Batch]:
        """Return a stream of batches as pixelwise loads them."""
        return batches(self.components.crops, batch_size=self.config.train.batch_size, start=0, count=10**6, workers=0)

    def step(self) -> float:
        """Make one step as `training.loop` does, note the seconds of its parts, and return those of the whole."""
        train, step = self.config.train, next(self.steps)
        marks = [time.perf_counter()]
        batch = next(self.stream)
        marks.append(time.perf_counter())
        self.frozen.hold(step)
        value = gradients(self.model, self.components.loss, [batch], train)
        marks.append(time.perf_counter())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.clip)
        torch.stack([value, norm.to(value)]).tolist()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        marks.append(time.perf_counter())
        self.averaged.update(self.model, step)
        marks.append(time.perf_counter())
        loader, both, optimizer, averaging = (after - before for before, after in pairwise(marks))
        loss = self._loss_seconds(batch)
        found = (loader, max(both - loss, 0.0), loss, optimizer, averaging)
        for part, seconds in zip(PARTS, found, strict=True):
            self.seconds[part].append(seconds)
        return marks[-1] - marks[0]

    def _loss_seconds(self, batch: Batch) -> float:
        """Time the loss, forward and backward, on random logits."""
        masks, train = batch.masks, self.config.train
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        shape = (len(masks), self.model.num_classes, *masks.shape[1:])
        logits = torch.empty(shape, memory_format=layout).normal_().requires_grad_()
        return _seconds(lambda: self.components.loss(Outputs(logits), batch).backward())

    def validation(self) -> float:
        """Return the seconds per image of a validation."""
        predictor = assembly.make_predictor(self.config, self.averaged.model, self.card)
        return seconds_per_image(lambda split: quick_miou(split, predictor), self.val)


def _seconds(work: Step) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def tutorial(ours: Ours) -> Step:
    """A plain U-Net of the same width: AdamW 1e-3, CE + Dice 0.5/0.5, clip 1.0, as in `benchmarks.peers`."""
    from benchmarks.peers import IMAGENET_MEAN, IMAGENET_STD, Padded, describe_input, plain_dice
    from pixelwise.models.unet import UNet

    features = tuple(ours.config.model.features or ())
    network = UNet(3, ours.model.num_classes, features=features)
    model = Padded(network, describe_input(ours.data, IMAGENET_MEAN, IMAGENET_STD)).train()
    ignore_index = ours.data.labels.ignore_index

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        entropy = nn.functional.cross_entropy(logits, masks, ignore_index=ignore_index)
        return 0.5 * entropy + 0.5 * plain_dice(logits, masks, ignore_index)

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    return _plain_step(ours, model, optimizer, lambda batch: loss(model(batch.images), batch.masks), clip=1.0)


def smp(ours: Ours) -> Step:
    """smp.Unet("resnet34") as in the CamVid example of smp: DiceLoss, Adam 2e-4."""
    import segmentation_models_pytorch as library

    from benchmarks.peers import IMAGENET_MEAN, IMAGENET_STD, Padded, describe_input

    network = library.Unet("resnet34", encoder_weights=None, in_channels=3, classes=ours.model.num_classes)
    model = Padded(network, describe_input(ours.data, IMAGENET_MEAN, IMAGENET_STD)).train()
    ignore_index = ours.data.labels.ignore_index
    loss = library.losses.DiceLoss(library.losses.MULTICLASS_MODE, from_logits=True, ignore_index=ignore_index)
    optimizer = torch.optim.Adam(model.parameters(), 2e-4)
    return _plain_step(ours, model, optimizer, lambda batch: loss(model(batch.images), batch.masks), clip=None)


def transformers(ours: Ours) -> Step:
    """SegFormer-b0 as in the documentation of transformers: the loss of the model itself, AdamW 6e-5."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from benchmarks.peers import IMAGENET_MEAN, IMAGENET_STD

    labels = ours.data.labels
    config = SegformerConfig(num_labels=labels.num_classes, semantic_loss_ignore_index=labels.ignore_index)
    model = SegformerForSemanticSegmentation(config).train()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    optimizer = torch.optim.AdamW(model.parameters(), 6e-5)

    def loss(batch: Batch) -> Tensor:
        value: Tensor = model(pixel_values=(batch.images - mean) / std, labels=batch.masks).loss
        return value

    return _plain_step(ours, model, optimizer, loss, clip=None)


def _plain_step(
    ours: Ours, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[Batch], Tensor], clip: float | None
) -> Step:
    """Return a step of a plain loop: batch, loss, backward, optimizer."""
    stream = ours.batches()

    def step() -> None:
        value = loss(next(stream))
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        value.item()

    return step


PEERS: Mapping[str, Callable[[Ours], Step]] = {"tutorial": tutorial, "smp": smp, "transformers": transformers}


def table(path: Path = RESULT) -> str:
    """Return the results as Markdown."""
    if not path.exists():
        return NOT_MEASURED
    data = read_json(path)
    lines = [
        f"| network | step | {' | '.join(PARTS)} | validation of an image | peer | its step | × pixelwise |",
        "|---|---:|" + "---:|" * (len(PARTS) + 1) + "---|---:|---:|",
    ]
    for row in data["rows"]:
        layout = ", channels-last" if row["channels_last"] else ""
        title = f"{NETWORKS[row['network']].title} ({row['parameters'] / 1e6:.1f} M, {row['precision']}{layout})"
        shares = [f"{100 * row['parts'][part] / sum(row['parts'].values()):.0f} %" for part in PARTS]
        peer = row.get("peer")
        compared = ["–"] * 3 if peer is None else [peer["name"], _milliseconds(peer["seconds"]), f"{peer['ratio']:.2f}"]
        cells = [title, _milliseconds(row["seconds"]), *shares, _milliseconds(row["validation"]), *compared]
        lines.append(f"| {' | '.join(cells)} |")
    features = ", ".join(data["cpu_features"]) or "neither AVX-512 nor AMX"
    about = f"{data['cores']} cores of {data['processor']} ({features}), torch {data['torch']}"
    libraries = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {data['rounds']} alternating rounds, {data['batch']} crops of {data['side']}×{data['side']}; {about}; "
            f"{libraries}; pixelwise at {data['commit']}.",
        ]
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"


if __name__ == "__main__":
    main()
