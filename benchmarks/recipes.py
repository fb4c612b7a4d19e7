"""The recipes on their real data sets: train for some minutes, score the test part at native size, draw a sheet.

    python -m benchmarks.recipes --root data --set camvid --out runs/recipes      # train, score, draw
    python -m benchmarks.recipes --table                                          # the committed figures as Markdown

Comes in: the folder with the sets, one folder per recipe. Goes out: in `--out` a run and an image `<set>.png` (image,
truth, prediction, difference) per set; in `benchmarks/results/recipes/` one JSON file per set with all that was measured.
A run that was stopped goes on; a finished one is scored and drawn again without training.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.protocol import RECIPES, SETS, processor

RESULTS = Path(__file__).parent / "results" / "recipes"
# The same test part read in another way, told beside the headline.
VARIANTS = {"drive": {"field of view not regarded": ("data.train.valid=null", "data.test.valid=null")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the data sets")
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help="one set; all where not given")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / "recipes")
    parser.add_argument("--table", action="store_true", help="print the committed figures and stop")
    args = parser.parse_args()
    if not args.table:
        if args.root is None:
            parser.error("--root: expected the folder with the data sets, found none. Name it, or say --table.")
        for name in args.sets or SETS:
            work(name, args)
    print(table())


def work(name: str, args: argparse.Namespace) -> None:
    import torch

    import pixelwise

    recipe, root = RECIPES / f"{name}.yaml", (f"data.root={(args.root / name).resolve()}",)
    run = pixelwise.Run(args.out / name)
    if not (run.folder / "scores.json").exists():
        print(f"{name}: {args.minutes:g} minutes", file=sys.stderr, flush=True)
        pixelwise.train(recipe, out=run.folder, seed=args.seed, time_limit=args.minutes * 60, overrides=root)
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = max(event.get("step", 0) for event in events)
    found: dict[str, Any] = {"set": name, "minutes": args.minutes, "seed": args.seed, "steps": steps}
    found |= {"seconds": max(event.get("seconds", 0.0) for event in events), "torch": torch.__version__}
    found |= {"processor": processor(), "cores": torch.get_num_threads(), "val": run.scores}
    found["test"] = pixelwise.evaluate(run.model, recipe, overrides=root).scores.to_dict()
    for title, extra in VARIANTS.get(name, {}).items():
        found[title] = pixelwise.evaluate(run.model, recipe, overrides=(*root, *extra)).scores.to_dict()
    for scores in (value for value in found.values() if isinstance(value, dict)):
        scores.pop("confusion", None)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sheet = pixelwise.api.draw_sheet(run.model, recipe, args.out / f"{name}.png", overrides=root)
    print(f"  test mIoU {found['test']['miou']:.4f}; {sheet}", file=sys.stderr, flush=True)


def table() -> str:
    """Give what was measured, as `docs/results.md` shows it: a line per set, then a line per class."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) for name in SETS if (path := RESULTS / f"{name}.json").exists()
    ]
    if not found:
        return "Not measured yet: the command above does it."
    lines = ["| set | mIoU | mean Dice | pixel accuracy | test images | steps | training |", "|---" * 7 + "|"]
    for facts in found:
        for title in ("test", *VARIANTS.get(facts["set"], {})):
            label, s = facts["set"] + ("" if title == "test" else f", {title}"), facts[title]
            means = " | ".join(_interval(s, key) for key in ("miou", "mean_dice", "pixel_accuracy"))
            lines.append(f"| {label} | {means} | {s['images']} | {facts['steps']} | {facts['seconds'] / 60:.1f} min |")
    lines += ["", "| set | class | IoU | Dice | precision | recall |", "|---" * 6 + "|"]
    for facts in found:
        for c in facts["test"]["classes"]:
            cells = " | ".join(_interval(c, key) for key in ("iou", "dice", "precision", "recall"))
            lines.append(f"| {facts['set']} | {c['name']} | {cells} |")
    return "\n".join(lines)


def _interval(scores: dict[str, Any], key: str) -> str:
    value, low, high = (scores[f"{key}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" ({100 * low:.1f}–{100 * high:.1f})" if low is not None else "")


if __name__ == "__main__":
    main()
