"""How often intervals of sizes and of totals contain the truth, on held-out images of real data sets.

    python -m benchmarks.coverage_sizes --root data                 # resumable; trains 90 s per set
    python -m benchmarks.coverage_sizes --root data --runs runs     # take the run folders runs/camvid, runs/drive, … instead
    python -m benchmarks.coverage_sizes --table                     # print the committed results as Markdown

A model predicts all images of a set that it was not trained on. For intervals of one image, these are divided at random, 400 times: a
quarter chooses the score, half calibrates, and a quarter is tested, over classes that are predicted. Divided and calibrated by image,
by image but divided by group (patient, tile, sequence), or both by group. Coverage is a mean over units and classes; ± is the standard
deviation over the divisions. For totals, n of the images (or groups) are labelled at random, 400 times, and the interval contains the total of all or
not. Results are written to `benchmarks/results/coverage_sizes.json`.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import opened, settings, source
from benchmarks.protocol import NOT_MEASURED, parse, parser_with_root, read_json, write_json
from pixelwise.measuring.conformal import ImageSizes, calibrate, fewest_units, interval_of
from pixelwise.measuring.size_counts import SizeRecorder
from pixelwise.measuring.totals import estimate_totals

RESULTS = Path(__file__).parent / "results" / "coverage_sizes.json"
SETS = ("camvid", "drive", "magnetic_tile", "nuclei", "aerial_roads", "hippocampus")
DIVISIONS = 400
LABELLED = (10, 20, 50)
# What images of a set belong to, where its description does not say: the drives of CamVid, the patients of volumes.
GROUPS = {"camvid": r"([^/_]+)_[^/]*$", "hippocampus": r"(hippocampus_[0-9]+)"}
WAYS = {"images": "by image", "mixed": "calibrated by image, new groups", "groups": "by group, new groups"}


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--set", action="append", dest="sets", choices=SETS, help="repeatable; default: all")
    parser.add_argument("--runs", type=Path, help="folder with a run folder per set; default: train 90 s each")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs") / "coverage_sizes", help="trained models and their sizes"
    )
    args = parse(parser)
    for name in () if args.table else args.sets or SETS:
        results = read_json(RESULTS) if RESULTS.exists() else {}
        if name not in results:
            sizes = held_out(name, args)
            write_json(
                RESULTS, results | {name: {"conformal": conformal(sizes), "totals": totals(sizes), **about(sizes)}}
            )
    print(table())


def held_out(name: str, args: argparse.Namespace) -> ImageSizes:
    """Return the sizes in all images that a model was not trained on, made once and cached as .npz."""
    path = args.cache / f"{name}.npz"
    if not path.exists():
        print(f"{name}: predicting", file=sys.stderr, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        found = predicted(name, args)
        arrays = {key: getattr(found, key) for key in ("truth", "predicted", "boundary", "annotated", "pixels")}
        np.savez_compressed(path, **arrays, groups=np.array([group or "" for group in found.groups]))
    with np.load(path) as stored:
        arrays = dict(stored)
    groups = tuple(group or None for group in arrays.pop("groups").tolist())
    return ImageSizes(**arrays, groups=groups)


def predicted(name: str, args: argparse.Namespace) -> ImageSizes:
    """Predict the val and test splits with a run, which is trained if it is not given."""
    import pixelwise
    from pixelwise.evaluation import evaluate

    folder = args.runs / name if args.runs else args.cache / "runs" / name
    if not (folder / "scores.json").exists():
        overrides = (*settings(name, args), "train.size_calibration=0")
        pixelwise.train(source(name, args), out=folder, time_limit="90s", seed=0, overrides=overrides)
    splits = opened(args, name)
    predictor, parts = pixelwise.load(folder).predictor, []
    # The val split has chosen the checkpoint, which hardly matters for a model of 90 seconds, but is left out where test is large.
    for split in [splits.test] if splits.test is not None else [splits.val]:
        recorder = SizeRecorder(split.labels.num_classes)
        images = evaluate(split, predictor, metrics=(), intervals=False, keep=recorder.keep).images
        groups = [group_of(name, image.id, image.group) for image in images if image.pixels]
        parts.append(replace(recorder.sizes(images), groups=tuple(groups)))
    return parts[0]


def group_of(name: str, id: str, group: str | None) -> str | None:
    """Return what an image belongs to."""
    found = re.search(GROUPS[name], id) if name in GROUPS else None
    return found[1] if found else group


def about(sizes: ImageSizes) -> dict[str, int]:
    return {"images": len(sizes), "groups": len(set(sizes.groups)) if any(sizes.groups) else 0}


def conformal(sizes: ImageSizes, divisions: int = DIVISIONS) -> dict[str, dict[str, float]]:
    """Return coverage, its standard deviation and the median width, as a share of the predicted size, per way."""
    alone = replace(sizes, groups=(None,) * len(sizes))
    ways = {"images": (alone, alone.units())}
    if any(sizes.groups):
        ways |= {"mixed": (alone, sizes.units()), "groups": (sizes, sizes.units())}
    found = {}
    for way, (images, units) in ways.items():
        rng = np.random.default_rng(0)
        each = [outcome for _ in range(divisions) for outcome in [divided(images, units, rng)] if outcome is not None]
        if each:
            coverage, width = np.array(each).T
            found[way] = {
                "coverage": float(coverage.mean()),
                "deviation": float(coverage.std()),
                "width": float(np.median(width)),
                "units": len(np.unique(units)),
            }
    return found


def divided(images: ImageSizes, units: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float] | None:
    """Divide once by unit; return coverage and median relative width, or None if too few units calibrate."""
    order = rng.permutation(len(np.unique(units)))
    quarter = max(len(order) // 4, 1)
    choosing, test, calibrating = order[:quarter], order[quarter : 2 * quarter], order[2 * quarter :]
    parts = [np.flatnonzero(np.isin(units, chosen)) for chosen in (choosing, calibrating)]
    if len(np.unique(images.subset(parts[1]).units())) < fewest_units():
        return None
    calibration = calibrate(images.subset(parts[0]), images.subset(parts[1]))
    hits, widths = [], []
    for unit in test:
        covered = []
        for i in np.flatnonzero(units == unit):
            for k in np.flatnonzero(images.predicted[i]):
                size, pixels = int(images.predicted[i, k]), int(images.annotated[i])
                found = interval_of(calibration, int(k), size, int(images.boundary[i, k]), pixels)
                if found.low is not None and found.high is not None:
                    covered.append(found.low <= images.truth[i, k] <= found.high)
                    widths.append((found.high - found.low) / size)
        hits += [np.mean(covered)] if covered else []
    return (float(np.mean(hits)), float(np.median(widths))) if hits else None


def totals(sizes: ImageSizes, surveys: int = DIVISIONS) -> dict[str, dict[str, float]]:
    """Return the coverage of totals, their median width and the bias of the naive sum, by the number of labelled units."""
    units, found = sizes.units(), {}
    count = len(np.unique(units))
    truth, naive = sizes.truth.sum(0), sizes.predicted.sum(0)
    for n in LABELLED:
        if n >= count:
            continue
        rng, hits, widths = np.random.default_rng(0), [], []
        for _ in range(surveys):
            labelled = np.flatnonzero(np.isin(units, rng.permutation(count)[:n]))
            groups = [str(unit) for unit in units[labelled]]
            found_totals = estimate_totals(sizes.predicted, sizes.truth[labelled], labelled, groups)
            for k, total in enumerate(found_totals):
                if total.low is not None and total.high is not None and truth[k]:
                    hits.append(total.low <= truth[k] <= total.high)
                    widths.append((total.high - total.low) / truth[k])
        if hits:
            bias = np.abs(naive[truth > 0] / truth[truth > 0] - 1)
            found[str(n)] = {
                "coverage": float(np.mean(hits)),
                "width": float(np.median(widths)),
                "naive_bias": float(np.median(bias)),
            }
    return found


def table() -> str:
    if not RESULTS.exists():
        return NOT_MEASURED
    results = read_json(RESULTS)
    return "\n".join([*_conformal_rows(results), "", *_total_rows(results)])


def _conformal_rows(results: dict[str, Any]) -> Iterator[str]:
    yield "| set | held-out images | divided and calibrated | units | coverage of 90 % intervals | median width, of the predicted size |"
    yield "|---|---:|---|---:|---:|---:|"
    for name, result in results.items():
        for way, found in result["conformal"].items():
            coverage = f"{100 * found['coverage']:.1f} ± {100 * found['deviation']:.1f} %"
            yield (
                f"| {name} | {result['images']} | {WAYS[way]} | {found['units']:.0f} | {coverage} | {100 * found['width']:.0f} % |"
            )


def _total_rows(results: dict[str, Any]) -> Iterator[str]:
    yield f"| set | units | {' | '.join(f'n = {n}: coverage, width' for n in LABELLED)} | error of the sum of the predictions |"
    yield f"|---|---:|{'---:|' * (len(LABELLED) + 1)}"
    for name, result in results.items():
        cells, bias = [], math.nan
        for n in LABELLED:
            found = result["totals"].get(str(n))
            cells.append("–" if found is None else f"{100 * found['coverage']:.1f} %, {100 * found['width']:.0f} %")
            bias = bias if found is None else found["naive_bias"]
        shown = "–" if math.isnan(bias) else f"{100 * bias:.0f} %"
        yield f"| {name} | {result['groups'] or result['images']} | {' | '.join(cells)} | {shown} |"


if __name__ == "__main__":
    main()
