"""SegFormer's loss at full size, from upsampled logits, or at a quarter of the size, from a downsampled mask.

    python -m benchmarks.quarter --root data

Writes one JSON file per run to `benchmarks/results/quarter/` and prints the table. SegFormer b0 with random weights on CamVid,
equal time, three seeds; both are scored on every fourth val image at native size. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.pretraining import subset
from benchmarks.protocol import (
    TRAINING_ALONE,
    last_step,
    parse,
    parser_with_root,
    processor,
    read_json,
    spread,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "quarter"
ARMS, SEEDS = ("full", "quarter"), (0, 1, 2)


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--model", default="segformer-b0")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("runs") / "quarter")
    args = parse(parser)
    if not args.table:
        for seed in SEEDS:
            for arm in ARMS:
                path = RESULTS / f"{args.model}-{args.minutes:g}min-{arm}-{seed}.json"
                if not path.exists():
                    work(args, arm, seed, path)
    print(table(args.model, args.minutes))


def work(args: argparse.Namespace, arm: str, seed: int, path: Path) -> None:
    import pixelwise
    from pixelwise.models import transformers
    from pixelwise.training import budget, loop

    description = subset(args.root / "camvid", 367, 0, args.out / "camvid")
    lines = sorted((description.parent / "val.txt").read_text().split())
    (description.parent / "val.txt").write_text("".join(f"{line}\n" for line in lines[::4]))
    before = transformers.TransformersModel.outputs, loop.gradients
    if arm == "quarter":
        transformers.TransformersModel.outputs = quarter_outputs  # type: ignore[method-assign]
        loop.gradients = budget.gradients = reduced(loop.gradients)
    try:
        run = pixelwise.train(
            description,
            model=args.model,
            out=args.out / f"{args.model}-{arm}-{seed}",
            seed=seed,
            time_limit=args.minutes * 60,
            overrides=TRAINING_ALONE,
        )
    finally:
        transformers.TransformersModel.outputs, loop.gradients = before  # type: ignore[method-assign]
        budget.gradients = before[1]
    facts = {"model": args.model, "arm": arm, "seed": seed, "minutes": args.minutes, "processor": processor()}
    facts |= {"steps": last_step(run.folder), "miou": run.scores["miou"]}
    write_json(path, facts)
    print(f"{arm}, seed {seed}: mIoU {facts['miou']:.4f}, {facts['steps']} steps", file=sys.stderr, flush=True)


def quarter_outputs(model: Any, images: torch.Tensor) -> Any:
    """Return the logits of the network in training mode, upsampled logits otherwise."""
    from pixelwise.batch import Outputs
    from pixelwise.models.base import AdaptedModel, pad_end

    if not model.training:
        return AdaptedModel.outputs(model, images)
    found = model._logits(pad_end(model.normalise(images), model.stride, model.smallest))
    return Outputs(found[0].float(), tuple(logits.float() for logits in found[1:]))


def reduced(gradients: Any) -> Any:
    """Downsample the masks to a quarter of the size before computing the loss."""

    def run(model: Any, loss: Any, group: Any, train: Any) -> Any:
        def quarter(masks: torch.Tensor) -> torch.Tensor:
            size = [side // 4 for side in masks.shape[-2:]]
            return torch.nn.functional.interpolate(masks[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()

        return gradients(model, loss, [type(b)(b.images, quarter(b.masks), b.ids) for b in group], train)

    return run


def table(model: str, minutes: float) -> str:
    """Return a table of validation mIoU and steps over the seeds."""
    lines = ["| loss computed at | val mIoU | steps |", "|---|---|---|"]
    for arm in ARMS:
        paths = [RESULTS / f"{model}-{minutes:g}min-{arm}-{seed}.json" for seed in SEEDS]
        found = [read_json(path) for path in paths if path.exists()]
        steps = [facts["steps"] for facts in found]
        step_range = f"{min(steps)}–{max(steps)}" if steps else "–"
        lines.append(f"| {arm} size | {spread([100 * facts['miou'] for facts in found])} | {step_range} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
