"""The recipes on their data sets: train for some minutes, score the test split at native size, draw a contact sheet.

    python -m benchmarks.recipes --root data --set camvid --out runs/recipes      # train, score, draw
    python -m benchmarks.recipes --table                                          # print the committed results as Markdown

`--root` has one folder per recipe. Writes per data set a run and `<set>.png` (image, ground truth, prediction, difference) to
`--out`, and a JSON file with all results to `benchmarks/results/recipes/`. Interrupted runs are resumed; finished ones are
scored and drawn again without training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.protocol import (
    NOT_MEASURED,
    RECIPES,
    SETS,
    machine,
    parse,
    parser_with_root,
    read_json,
    read_log,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "recipes"
# Further scores of the test split: key in the results → overrides.
VARIANTS = {"drive": {"field of view not regarded": ("data.train.valid=null", "data.test.valid=null")}}
LABELS = {"test": "", "field of view not regarded": ", with pixels outside the field of view"}


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help="data set (repeatable); default: all")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / "recipes")
    args = parse(parser)
    if not args.table:
        for name in args.sets or SETS:
            work(name, args)
    print(table())


def work(name: str, args: argparse.Namespace) -> None:
    import pixelwise

    recipe, root = RECIPES / f"{name}.yaml", (f"data.root={(args.root / name).resolve()}",)
    run = pixelwise.Run(args.out / name)
    if not (run.folder / "scores.json").exists():
        print(f"{name}: {args.minutes:g} minutes", file=sys.stderr, flush=True)
        pixelwise.train(recipe, out=run.folder, seed=args.seed, time_limit=args.minutes * 60, overrides=root)
    events = read_log(run.folder)
    steps = max(event.get("step", 0) for event in events)
    found: dict[str, Any] = {"set": name, "minutes": args.minutes, "seed": args.seed, "steps": steps}
    found |= {"seconds": max(event.get("seconds", 0.0) for event in events)} | machine() | {"val": run.scores}
    found["test"] = pixelwise.evaluate(run.model, recipe, overrides=root).scores.to_dict()
    for key, extra in VARIANTS.get(name, {}).items():
        found[key] = pixelwise.evaluate(run.model, recipe, overrides=(*root, *extra)).scores.to_dict()
    for scores in (value for value in found.values() if isinstance(value, dict)):
        scores.pop("confusion", None)
    write_json(RESULTS / f"{name}.json", found)
    sheet = pixelwise.api.draw_sheet(run.model, recipe, args.out / f"{name}.png", overrides=root)
    print(f"  test mIoU {found['test']['miou']:.4f}; {sheet}", file=sys.stderr, flush=True)


def table() -> str:
    """Return the tables of `docs/results.md`: a line per data set, then a line per class."""
    found = [read_json(path) for name in SETS if (path := RESULTS / f"{name}.json").exists()]
    if not found:
        return NOT_MEASURED
    lines = ["| set | mIoU | mean Dice | pixel accuracy | test images | steps | training |", "|---" * 7 + "|"]
    for facts in found:
        for key in ("test", *VARIANTS.get(facts["set"], {})):
            s = facts[key]
            cells = [_interval(s, metric) for metric in ("miou", "mean_dice", "pixel_accuracy")]
            cells += [str(s["images"]), str(facts["steps"]), f"{facts['seconds'] / 60:.1f} min"]
            lines.append(f"| {facts['set']}{LABELS[key]} | {' | '.join(cells)} |")
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
