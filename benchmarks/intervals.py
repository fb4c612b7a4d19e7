"""How often the 95 % intervals of scores contain the value of the whole population, by method and number of images.

    python -m benchmarks.intervals --root data      # resumable; one to two hours on one core
    python -m benchmarks.intervals --table          # print the committed results as Markdown

A population is the per-image sums of a data set with predictions: published masks of ESPNet on CamVid's test split, published
panoptic masks on 100 images of COCO, and our own models after a minute of training. n images (or groups) are drawn from it with
replacement, as if they were the test split, and the interval either contains the score of the population or not. Coverage is the
share of draws in which it does, over classes in at least 5 of the drawn images; the width is divided by that of an oracle, ±1.96
standard deviations of the score over the draws. The differences are those of `compare`: with a real difference (our model against
ESPNet), and with none (the two models are swapped at random in each image), where the share of shown differences is the error rate.
Results are written to `benchmarks/results/intervals.json`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.protocol import NOT_MEASURED, RECIPES, parse, parser_with_root, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "intervals.json"
SIZES = (5, 10, 20, 30, 50, 100)
DRAWS, RESAMPLES, INNER = 2000, 400, 100
FEWER_DRAWS = {"double bootstrap": 200}
SHOWN = ("miou", "iou", "mean_dice", "dice", "precision", "recall", "pixel_accuracy")
TITLES = {"camvid-espnet": "CamVid, ESPNet", "coco": "COCO, panoptic masks", "magnetic_tile": "magnetic tiles"}
Floats = NDArray[np.float64]
Bounds = tuple[Floats, Floats]


@dataclass(frozen=True)
class Population:
    """Per-image sums (N, M) of one statistic, and the number of the group of each image (N,)."""

    name: str
    sums: Floats
    groups: NDArray[np.int64]
    statistic: Any


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--population", action="append", dest="populations", help="repeatable; default: all")
    parser.add_argument("--cache", type=Path, default=Path("runs") / "intervals", help="trained models and their sums")
    args = parse(parser)
    if not args.table:
        for name, family, population in populations(args):
            study(name, family, population)
        compare_models(args)
    print(table())


# Populations


def populations(args: argparse.Namespace) -> Iterator[tuple[str, str, Population]]:
    """Yield (population, family of scores, sums), made once and cached as .npz."""
    from pixelwise.evaluation.base import meter_statistic
    from pixelwise.evaluation.meters import ImageMeter, MeterOptions, make_meters
    from pixelwise.labels import Labels
    from pixelwise.metrics.scores import overlap_statistic

    makers: dict[str, Callable[[argparse.Namespace], dict[str, NDArray[Any]]]] = {
        "camvid-espnet": espnet,
        "coco": coco,
        **{
            name: own_model(name)
            for name in ("camvid", "magnetic_tile", "nuclei", "aerial_roads", "drive", "hippocampus")
        },
    }
    for name, make in makers.items():
        if args.populations and name not in args.populations:
            continue
        path = args.cache / f"{name}.npz"
        if not path.exists():
            print(f"{name}: predicting", file=sys.stderr, flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, **make(args))
        with np.load(path) as stored:
            sums = dict(stored)
        k = sums["overlap"].shape[1] // 3
        labels = Labels(tuple(map(str, range(k))))
        options = MeterOptions(labels)
        meters = {
            "image": ImageMeter(options),
            **dict(
                zip(
                    ("boundary", "calibration"),
                    make_meters(["boundary", "calibration"], options, probabilities=True),
                    strict=True,
                )
            ),
        }
        statistics = {"overlap": overlap_statistic(k), **{key: meter_statistic(meter) for key, meter in meters.items()}}
        for family, statistic in statistics.items():
            if family in sums:
                yield name, family, Population(name, sums[family], sums["groups"], statistic)


def espnet(args: argparse.Namespace) -> dict[str, NDArray[Any]]:
    """Published masks of ESPNet on the test split of CamVid."""
    from pixelwise.evaluation.mask_folder import open_masks

    split = opened(args, "camvid").test
    return summed(
        split, open_masks(args.root / "fixtures" / "camvid_espnet_test" / "pred12", split), ("image", "boundary")
    )


def coco(args: argparse.Namespace) -> dict[str, NDArray[Any]]:
    """Published panoptic masks of 100 images of COCO, as semantic masks of 133 classes."""
    from PIL import Image

    folder = args.root / "fixtures" / "panoptic_coco100"
    truth, predicted = (read_json(folder / f"{name}.json") for name in ("gt", "pred"))
    classes = {category["id"]: place for place, category in enumerate(truth["categories"])}
    k = len(classes)
    by_image = {entry["image_id"]: entry for entry in predicted["annotations"]}

    def semantic(place: str, entry: dict[str, Any]) -> NDArray[np.int64]:
        pixels = np.asarray(Image.open(folder / place / entry["file_name"])).astype(np.int64)
        ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
        mask = np.full(ids.shape, k)
        for segment in entry["segments_info"]:
            mask[ids == segment["id"]] = classes[segment["category_id"]]
        return mask

    rows = []
    for entry in truth["annotations"]:
        t, p = semantic("gt", entry), semantic("pred", by_image[entry["image_id"]])
        counted = t < k
        counts = [np.bincount(x[counted], minlength=k + 1)[:k] for x in (np.where(t == p, t, k), t, p)]
        rows.append(np.concatenate(counts))
    return {"overlap": np.array(rows, np.float64), "groups": np.arange(len(rows))}


def own_model(name: str) -> Callable[[argparse.Namespace], dict[str, NDArray[Any]]]:
    """All images that a model of ours was not trained on, after a minute of training; of nuclei and volumes, also val."""

    def make(args: argparse.Namespace) -> dict[str, NDArray[Any]]:
        import pixelwise

        run = pixelwise.Run(args.cache / "runs" / name)
        if not (run.folder / "scores.json").exists():
            pixelwise.train(
                source(name, args), out=run.folder, time_limit="90s", seed=0, overrides=settings(name, args)
            )
        splits = opened(args, name)
        parts = [split for split in (splits.val, splits.test) if split is not None]
        found = [
            summed(part, run.model.predictor, ("image", "boundary", "calibration"), str(i))
            for i, part in enumerate(parts)
        ]
        joined = {key: np.concatenate([part[key] for part in found]) for key in found[0]}
        return joined | {"groups": np.unique(joined["groups"], return_inverse=True)[1]}

    return make


def source(name: str, args: argparse.Namespace) -> Path:
    recipe = RECIPES / f"{name}.yaml"
    return recipe if recipe.exists() else args.root / name


def settings(name: str, args: argparse.Namespace) -> tuple[str, ...]:
    # Half of the images of the sets without a test split are held out, so that the population is as large as possible.
    half = ("data.split.val=0.05", "data.split.test=0.7", "data.split.anew=true")
    root = f"data.root={(args.root / name).resolve()}"
    return {
        "nuclei": (root, "data.mask_values={objects: true}", "data.bands=rgb", *half),
        "hippocampus": (root, *half),
        "magnetic_tile": (root, "data.split.test=0.7", "data.split.val=0.05"),
    }.get(name, (root,))


def opened(args: argparse.Namespace, name: str) -> Any:
    from pixelwise.config import read_request
    from pixelwise.datasets.dataset import open_data

    config, base = read_request(source(name, args), settings(name, args))
    return open_data(config.data, base)


def summed(split: Any, predictor: Any, families: tuple[str, ...], prefix: str = "") -> dict[str, NDArray[Any]]:
    """Return the sums of every image: overlap, the families of scores, and the name of its group."""
    from pixelwise.evaluation.meters import ImageMeter, MeterOptions, make_meters
    from pixelwise.metrics.confusion import ConfusionMatrix
    from pixelwise.metrics.scores import Tally

    labels = split.labels
    options = MeterOptions(labels)
    meters: dict[str, Any] = {"image": ImageMeter(options)} if "image" in families else {}
    for family in ("boundary", "calibration"):
        if family in families:
            meters |= {family: make_meters([family], options, probabilities=True)[0]}
    tally = Tally(labels)
    rows: dict[str, list[Any]] = {"overlap": [], "groups": [], **{family: [] for family in meters}}
    counter = ConfusionMatrix(labels.num_classes, labels.ignore_index)
    for index in range(len(split)):
        sample = split.read(index)

        def band(top: int, probabilities: Any, sample: Any = sample) -> None:
            if "calibration" in meters:
                meters["calibration"].band(sample, top, probabilities)

        if "calibration" in meters:
            prediction = predictor.observed(sample.image, sample.grid, sample.valid, sample.id, band)
        else:
            prediction = predictor(sample.image, sample.grid, sample.valid, id=sample.id)
        mask = np.where(prediction.mask == labels.ignore_index, 0, prediction.mask)
        counts = tally.add(counter.update(sample.truth(labels.ignore_index), mask, sample.id))
        rows["overlap"].append(counts[:3].ravel())
        rows["groups"].append(f"{prefix} {sample.id if sample.group is None else sample.group}")
        for family, meter in meters.items():
            rows[family].append(meter.add(sample, prediction, counts))
    return {
        key: np.unique(value, return_inverse=True)[1] if key == "groups" and not prefix else np.asarray(value)
        for key, value in rows.items()
    }


# Methods: sums of the drawn units (n, M) → bounds (S,)


def ours(units: Floats, statistic: Any) -> Bounds:
    from pixelwise.metrics.intervals import estimate

    bounds: Bounds = estimate(units, statistic).bounds()
    return bounds


def drawn_values(units: Floats, statistic: Any, generator: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    times = generator.multinomial(len(units), np.full(len(units), 1 / len(units)), resamples)
    values: Floats = statistic.values(times @ units, units.sum(0, keepdims=True))
    return values


def percentile(units: Floats, statistic: Any) -> Bounds:
    """Efron & Tibshirani 1993, ch. 13: the method of earlier versions."""
    values = drawn_values(units, statistic, np.random.default_rng(0))
    low, high = np.nanquantile(values, (0.025, 0.975), axis=0)
    return low, high


def bca(units: Floats, statistic: Any) -> Bounds:
    """Bias-corrected and accelerated: Efron 1987."""
    values, (value, left) = drawn_values(units, statistic, np.random.default_rng(0)), jackknifed(units, statistic)
    deviations = np.nan_to_num(np.nanmean(left, 0) - left)
    with np.errstate(divide="ignore", invalid="ignore"):
        acceleration = np.nan_to_num((deviations**3).sum(0) / (6 * (deviations**2).sum(0) ** 1.5))
    bias = stats.norm.ppf(np.clip((values < value).mean(0) + (values == value).mean(0) / 2, 1e-3, 1 - 1e-3))
    bounds = []
    for tail in (-1.96, 1.96):
        level = stats.norm.cdf(bias + (bias + tail) / (1 - acceleration * (bias + tail)))
        bounds.append(np.array([np.nanquantile(values[:, s], level[s]) for s in range(len(value))]))
    return bounds[0], bounds[1]


def jackknifed(units: Floats, statistic: Any) -> tuple[Floats, Floats]:
    total = units.sum(0, keepdims=True)
    return statistic.values(total, total)[0], statistic.values(total - units, total)


def jackknife(units: Floats, statistic: Any) -> Bounds:
    """Jackknife with Student's t and n - 1 degrees of freedom: Tukey 1958."""
    return _t_interval(units, statistic, lambda squares: np.full(squares.shape[1], len(units) - 1.0))


def satterthwaite(units: Floats, statistic: Any) -> Bounds:
    """Jackknife with Student's t and degrees of freedom from the fourth moments of the deviations."""
    return _t_interval(
        units,
        statistic,
        lambda squares: np.maximum(squares.sum(0) ** 2 / np.maximum((squares**2).sum(0), 1e-300) - 1, 1),
    )


def _t_interval(units: Floats, statistic: Any, freedom: Callable[[Floats], Floats]) -> Bounds:
    value, left = jackknifed(units, statistic)
    squares = np.nan_to_num(np.nanmean(left, 0) - left) ** 2
    reach = stats.t.ppf(0.975, freedom(squares)) * np.sqrt((len(units) - 1) / len(units) * squares.sum(0))
    return value - reach, value + reach


def studentised(units: Floats, statistic: Any) -> Bounds:
    """Bootstrap-t on the logit scale, with jackknife standard errors: Efron & Tibshirani 1993, ch. 12."""
    generator = np.random.default_rng(0)
    value, error = _logit_error(units, statistic)
    pivots = []
    for _ in range(INNER):
        again, spread = _logit_error(units[generator.integers(0, len(units), len(units))], statistic)
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots.append((again - value) / spread)
    with np.errstate(invalid="ignore"):
        finite = np.where(np.isfinite(pivots), pivots, np.nan)
    low, high = np.nanquantile(finite, (0.025, 0.975), axis=0)
    return _expit(value - high * error), _expit(value - low * error)


def _logit_error(units: Floats, statistic: Any) -> tuple[Floats, Floats]:
    value, left = jackknifed(units, statistic)
    clipped = np.clip(value, 1e-3, 1 - 1e-3)
    squares = (np.nan_to_num(value - left) ** 2).sum(0)
    return np.log(clipped / (1 - clipped)), np.sqrt((len(units) - 1) / len(units) * squares) / (clipped * (1 - clipped))


def _expit(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def double_bootstrap(units: Floats, statistic: Any) -> Bounds:
    """Percentile bootstrap at the level whose resampled coverage is 95 %: Hall 1986; Loh 1987."""
    generator = np.random.default_rng(0)
    total = units.sum(0, keepdims=True)
    value = statistic.values(total, total)[0]
    places = []
    for _ in range(INNER):
        inner = drawn_values(units[generator.integers(0, len(units), len(units))], statistic, generator, INNER)
        places.append(np.abs(2 * np.nanmean(inner < value, axis=0) - 1))
    level = np.clip(np.quantile(places, 0.95, axis=0), 0.5, 1)
    values = drawn_values(units, statistic, generator, 2 * RESAMPLES)
    bounds = [
        np.array([np.nanquantile(values[:, s], (1 + sign * level[s]) / 2) for s in range(len(value))])
        for sign in (-1, 1)
    ]
    return bounds[0], bounds[1]


METHODS: Mapping[str, Callable[[Floats, Any], Bounds]] = {
    "pixelwise": ours,
    "percentile": percentile,
    "BCa": bca,
    "jackknife t": jackknife,
    "jackknife, effective df": satterthwaite,
    "bootstrap t, logit": studentised,
    "double bootstrap": double_bootstrap,
}


# Study


def study(name: str, family: str, population: Population) -> None:
    """Measure all cells of a population that are not in the results yet."""
    others = (
        ("percentile",) if family != "overlap" or name not in ("camvid-espnet", "magnetic_tile") else tuple(METHODS)[1:]
    )
    for method, n in itertools.product(("pixelwise", *others), SIZES):
        for grouped in (False, True):
            many = len(np.unique(population.groups))
            if grouped and (
                many == len(population.groups) or n > many / 2 or method not in ("pixelwise", "percentile")
            ):
                continue
            if method in FEWER_DRAWS and n not in (10, 20, 50):
                continue
            key = f"{name}|{family}|{method}|{n}|{'groups' if grouped else 'images'}"
            done = read_json(RESULTS) if RESULTS.exists() else {}
            if key not in done:
                print(key, file=sys.stderr, flush=True)
                found = measure(population, METHODS[method], n, grouped, FEWER_DRAWS.get(method, DRAWS))
                write_json(RESULTS, {**done, key: found})


def measure(
    population: Population, method: Callable[[Floats, Any], Bounds], n: int, grouped: bool, draws: int
) -> dict[str, Any]:
    """Return coverage, misses on each side and width by name of the score, over classes in at least 5 of the drawn units."""
    from pixelwise.metrics.intervals import FEWEST_WITH_CLASS

    statistic = population.statistic
    units = population.sums
    if grouped:
        units = np.zeros((population.groups.max() + 1, units.shape[1]))
        np.add.at(units, population.groups, population.sums)
    total = units.sum(0, keepdims=True)
    truth = statistic.values(total, total)[0]
    generator = np.random.default_rng(zlib.crc32(f"{population.name} {n}".encode()))
    names = np.array(statistic.names)
    means = np.array(
        [place for name in dict.fromkeys(statistic.names) if (place := int(np.flatnonzero(names == name)[0])) >= 0]
    )
    single = np.isin(np.arange(len(names)), means[[np.count_nonzero(names == names[m]) == 1 for m in means]])
    covered, width, values = (np.full((draws, len(names)), np.nan) for _ in range(3))
    below = np.full((draws, len(names)), np.nan)
    with np.errstate(all="ignore"):
        for draw in range(draws):
            drawn = units[generator.integers(0, len(units), n)]
            sums = drawn.sum(0, keepdims=True)
            value = statistic.values(sums, sums)[0]
            low, high = method(drawn, statistic)
            present = (statistic.unit_weights(drawn) > 0).sum(0)
            counted = ~np.isnan(value) & ~np.isnan(truth) & (single | (present >= FEWEST_WITH_CLASS))
            values[draw, counted] = value[counted]
            covered[draw, counted] = ((low <= truth) & (truth <= high))[counted]
            below[draw, counted] = (high < truth)[counted]
            width[draw, counted] = (high - low)[counted]
        oracle = 2 * 1.96 * np.nanstd(values, 0)
    return {
        name: {
            "coverage": round(float(np.nanmean(covered[:, names == name])), 4),
            "too_low": round(float(np.nanmean(below[:, names == name])), 4),
            "width": round(float(np.nanmean(width[:, names == name])), 4),
            "oracle": round(float(np.nanmean(oracle[names == name])), 4),
            "bias": round(float(np.nanmean(values[:, names == name] - truth[names == name])), 4),
        }
        for name in dict.fromkeys(statistic.names)
        if not np.isnan(covered[:, names == name]).all()
    }


def compare_models(args: argparse.Namespace) -> None:
    """Measure the intervals and verdicts of `compare`, with and without a difference."""
    from pixelwise.evaluation import paired_scores
    from pixelwise.evaluation.comparison import compare
    from pixelwise.evaluation.score_counts import RunCounts

    paired_scores._SWAPS = 999  # p is compared with 0.05 only

    paths = [args.cache / f"{name}.npz" for name in ("camvid-espnet", "camvid")]
    if not all(path.exists() for path in paths):
        return
    first, second = (np.load(path)["overlap"].reshape(-1, 3, 11).astype(np.int64) for path in paths)
    both = np.stack([first, second[-len(first) :]], 1)
    classes = tuple(map(str, range(11)))

    def compared(drawn: NDArray[np.int64]) -> Any:
        ids = tuple(map(str, range(len(drawn))))
        truths = tuple("" for _ in ids)
        runs = [
            RunCounts(name=name, ids=ids, counts=drawn[:, i], classes=classes, groups=(None,) * len(ids), truths=truths)
            for i, name in enumerate("ab")
        ]
        return compare(runs).pairs[0]

    for n, kind in itertools.product(SIZES[1:], ("difference", "none")):
        key = f"compare|{kind}|{n}"
        done = read_json(RESULTS) if RESULTS.exists() else {}
        if key in done:
            continue
        print(key, file=sys.stderr, flush=True)
        generator = np.random.default_rng(n)
        whole = compared(both)
        rows = []
        for _ in range(DRAWS // 2):
            drawn = both[generator.integers(0, len(both), n)]
            if kind == "none":
                swapped = generator.random(n) < 0.5
                drawn[swapped] = drawn[swapped][:, ::-1]
            pair = compared(drawn)
            true = {e.name: 0.0 if kind == "none" else e.difference for e in (*whole.means.values(), *whole.classes)}
            shown = pair.means["miou"].shown, any(e.shown for e in pair.classes)
            miou, *iou = (
                np.nan if e.low is None or e.high is None else e.low <= true[e.name] <= e.high
                for e in (pair.means["miou"], *pair.classes)
            )
            rows.append((miou, np.nanmean(iou), *shown))
        miou, iou, shown, any_class = np.nanmean(rows, 0).round(4).tolist()
        write_json(RESULTS, {**done, key: {"miou": miou, "iou": iou, "shown": shown, "any_class_shown": any_class}})


def table() -> str:
    """Return the results as Markdown."""
    if not RESULTS.exists():
        return NOT_MEASURED
    done = read_json(RESULTS)
    parts = [table_of_methods(done, name) for name in ("camvid-espnet", "magnetic_tile")]
    parts += [table_of_populations(done), table_of_scores(done), table_of_differences(done)]
    return "\n\n".join(part for part in parts if part)


def table_of_methods(done: Mapping[str, Any], name: str) -> str:
    rows = []
    for method in METHODS:
        for score in ("miou", "iou"):
            cells = [done.get(f"{name}|overlap|{method}|{n}|images") for n in SIZES]
            if any(cells):
                shown = [
                    f"{100 * c[score]['coverage']:.0f} % · {c[score]['width'] / c[score]['oracle']:.2f}" if c else ""
                    for c in cells
                ]
                rows.append(f"| {method} | {'mIoU' if score == 'miou' else 'class IoU'} | " + " | ".join(shown) + " |")
    head = f"| {TITLES.get(name, name)}: coverage · width | score | " + " | ".join(f"n = {n}" for n in SIZES) + " |"
    return "\n".join([head, "|---|---|" + "---:|" * len(SIZES), *rows]) if rows else ""


def table_of_populations(done: Mapping[str, Any]) -> str:
    names = dict.fromkeys(key.split("|")[0] for key in done if not key.startswith("compare"))
    rows = []
    for name, unit, score in itertools.product(names, ("images", "groups"), ("miou", "iou")):
        cells = [
            (done.get(f"{name}|overlap|{method}|{n}|{unit}")) for method in ("percentile", "pixelwise") for n in SIZES
        ]
        if any(cells):
            shown = [f"{100 * c[score]['coverage']:.0f}" if c and score in c else "" for c in cells]
            pairs = [f"{a} → {b}" if b else "" for a, b in zip(shown[: len(SIZES)], shown[len(SIZES) :], strict=True)]
            title = TITLES.get(name, name) + (", groups" if unit == "groups" else "")
            rows.append(f"| {title} | {'mIoU' if score == 'miou' else 'class IoU'} | " + " | ".join(pairs) + " |")
    head = "| percentile bootstrap → pixelwise, % | score | " + " | ".join(f"n = {n}" for n in SIZES) + " |"
    return "\n".join([head, "|---|---|" + "---:|" * len(SIZES), *rows]) if rows else ""


def table_of_scores(done: Mapping[str, Any]) -> str:
    """Return the lowest and highest coverage of each score over the populations of 100 images and more."""
    large = ("camvid-espnet", "coco", "camvid", "magnetic_tile", "nuclei")
    found: dict[str, dict[int, list[float]]] = {}
    for key, cell in done.items():
        parts = key.split("|")
        if parts[0] in large and parts[2] == "pixelwise" and parts[4] == "images":
            for score, figures in cell.items():
                found.setdefault(score, {}).setdefault(int(parts[3]), []).append(figures["coverage"])
    rows = [
        f"| `{score}` | "
        + " | ".join(f"{100 * min(c[n]):.0f}–{100 * max(c[n]):.0f}" if n in c else "" for n in SIZES[1:])
        + " |"
        for score, c in found.items()
    ]
    head = "| lowest–highest coverage, % | " + " | ".join(f"n = {n}" for n in SIZES[1:]) + " |"
    return "\n".join([head, "|---|" + "---:|" * len(SIZES[1:]), *rows]) if rows else ""


def table_of_differences(done: Mapping[str, Any]) -> str:
    rows = []
    for kind, score, title in (
        ("difference", "miou", "real difference: coverage, mIoU"),
        ("difference", "iou", "real difference: coverage, class IoU"),
        ("none", "miou", "no difference: coverage, mIoU"),
        ("none", "iou", "no difference: coverage, class IoU"),
        ("none", "shown", "no difference: mIoU shown as different"),
        ("none", "any_class_shown", "no difference: any class shown as different"),
    ):
        cells = [done.get(f"compare|{kind}|{n}") for n in SIZES[1:]]
        if any(cells):
            rows.append(f"| {title} | " + " | ".join(f"{100 * c[score]:.1f} %" if c else "" for c in cells) + " |")
    head = "| `compare` | " + " | ".join(f"n = {n}" for n in SIZES[1:]) + " |"
    return "\n".join([head, "|---|" + "---:|" * len(SIZES[1:]), *rows]) if rows else ""


if __name__ == "__main__":
    main()
