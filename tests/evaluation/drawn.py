"""What the tests of comparing share: drawn counts, runs of recipes, and their files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import yaml

from pixelwise.evaluation.score_counts import RunCounts

NAMES = ("road", "car", "pole")


def counted(quality, *, n=40, seed=0, data=0, name="a", sizes=(5000, 800, 60), spread=20.0, **more):
    """Draw what a model of some quality per class would have counted; `data` draws the images, `seed` its luck."""
    images, luck = np.random.default_rng(data), np.random.default_rng([7, seed])
    truth = images.poisson(sizes, (n, len(sizes)))
    quality = np.broadcast_to(quality, len(sizes)).astype(float)
    share = luck.beta(quality * spread, (1 - quality) * spread, truth.shape)
    found = luck.binomial(truth, share)
    # What is not found is predicted as the next class: predicted and true pixels have the same sum.
    predicted = found + np.roll(truth - found, 1, axis=1)
    fields = {"groups": (None,) * n, "truths": ("t",) * n, "ids": tuple(f"{i:04d}" for i in range(n))} | more
    return RunCounts(name, NAMES[: len(sizes)], counts=np.stack([found, truth, predicted], 1), **fields)


def miou(counts):
    found, truth, predicted = counts.sum(0)
    return np.mean(found / (truth + predicted - found))


def seeds(quality, values, recipe):
    return [counted(quality, seed=s, name=f"{recipe}-s{s}", recipe=recipe) for s in values]


def with_seeds(runs):
    return [replace(run, seed=i) for i, run in enumerate(runs)]


def plain(run):
    images = [
        {
            "id": i,
            "group": g,
            "truth": t,
            "counts": [[k, *map(int, c[:, k]), 0] for k in np.flatnonzero(c.any(0)).tolist()],
        }
        for i, g, t, c in zip(run.ids, run.groups, run.truths, run.counts, strict=True)
    ]
    return {"classes": [{"name": name} for name in run.classes], "per_image": images}


def write_run(folder, run, *, config=None, request=None, **more):
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(plain(run) | more))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if request is not None:
        (folder / "request.json").write_text(json.dumps(request))
    return folder
