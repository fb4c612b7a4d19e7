"""Where SegFormer's loss should be taken: of logits enlarged to the mask's size, or of the quarter with a reduced mask.

    python -m benchmarks.quarter --root data

Comes in: the folder with the sets. Goes out: one JSON file per run in `benchmarks/results/quarter/`, and a table. SegFormer b0
from fresh weights on CamVid, equal time, three seeds; both score whole images at native size: every fourth of the
validation part, so that there is time to learn. Runs that are done are not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.pretraining import subset
from benchmarks.protocol import TRAINING_ALONE, processor

RESULTS = Path(__file__).parent / "results" / "quarter"
ARMS, SEEDS = ("full", "quarter"), (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the data sets")
    parser.add_argument("--model", default="segformer-b0")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("runs") / "quarter")
    parser.add_argument("--table", action="store_true", help="print the results so far and stop")
    args = parser.parse_args()
    if not args.table:
        if args.root is None:
            parser.error("--root: expected the folder with the data sets, found none. Name it, or say --table.")
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

    described = subset(args.root / "camvid", 367, 0, args.out / "camvid")
    lines = sorted((described.parent / "val.txt").read_text().split())
    (described.parent / "val.txt").write_text("".join(f"{line}\n" for line in lines[::4]))
    before = transformers.TransformersModel.outputs, loop.gradients
    if arm == "quarter":
        transformers.TransformersModel.outputs = quarter_outputs  # type: ignore[method-assign]
        loop.gradients = budget.gradients = reduced(loop.gradients)
    try:
        run = pixelwise.train(
            described,
            model=args.model,
            out=args.out / f"{args.model}-{arm}-{seed}",
            seed=seed,
            time_limit=args.minutes * 60,
            overrides=TRAINING_ALONE,
        )
    finally:
        transformers.TransformersModel.outputs, loop.gradients = before  # type: ignore[method-assign]
        budget.gradients = before[1]
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = {"model": args.model, "arm": arm, "seed": seed, "minutes": args.minutes, "processor": processor()}
    facts |= {"steps": max(event.get("step", 0) for event in events), "miou": run.scores["miou"]}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{arm}, seed {seed}: mIoU {facts['miou']:.4f}, {facts['steps']} steps", file=sys.stderr, flush=True)


def quarter_outputs(model: Any, images: torch.Tensor) -> Any:
    """Give the network's own logits in training, enlarged ones elsewhere."""
    from pixelwise.batch import Outputs
    from pixelwise.models.base import AdaptedModel, pad_end

    if not model.training:
        return AdaptedModel.outputs(model, images)
    found = model._logits(pad_end(model.normalise(images), model.stride, model.smallest))
    return Outputs(found[0].float(), tuple(logits.float() for logits in found[1:]))


def reduced(gradients: Any) -> Any:
    """Take the loss of masks at a quarter of the size, by half-pixel nearest."""

    def run(model: Any, loss: Any, group: Any, train: Any) -> float:
        def quarter(masks: torch.Tensor) -> torch.Tensor:
            size = [side // 4 for side in masks.shape[-2:]]
            return torch.nn.functional.interpolate(masks[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()

        return float(gradients(model, loss, [type(b)(b.images, quarter(b.masks), b.ids) for b in group], train))

    return run


def table(model: str, minutes: float) -> str:
    """Give the mean, and the least and most over the seeds, of validation mIoU and of the steps."""
    lines = ["| loss taken at | validation mIoU | steps |", "|---|---|---|"]
    for arm in ARMS:
        paths = [RESULTS / f"{model}-{minutes:g}min-{arm}-{seed}.json" for seed in SEEDS]
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        values = [100 * facts["miou"] for facts in found]
        cells = ["–", "–"]
        if found:
            steps = [facts["steps"] for facts in found]
            cells = [
                f"{statistics.mean(values):.1f} ({min(values):.1f}–{max(values):.1f}, n = {len(values)})",
                f"{min(steps)}–{max(steps)}",
            ]
        lines.append(f"| {arm} size | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
