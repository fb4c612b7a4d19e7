"""Runs of pixelwise: a few steps on drawn discs, on the processor."""

from __future__ import annotations

import functools
import json
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

import pixelwise
from conformance.adapters import Way, Ways
from pixelwise.datasets.split import split_groups
from pixelwise.demo.synthetic import write_discs
from pixelwise.errors import Interrupted

_SETTINGS = (
    "model.features=[4,8]",
    "model.stem=1",
    "train.crop=[16,16]",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.device=cpu",
    "train.channels_last=false",
    "train.validations=2",
    "train.workers=0",
)


def _discs(folder: Path) -> Path:
    write_discs(folder, train=4, val=2, test=1, size=(32, 32), seed=0)
    return folder


def _run(data: Path, out: Path, *more: str, steps: int = 4, listener: Any = None) -> pixelwise.Run:
    return pixelwise.train(data, out=out, steps=steps, overrides=(*_SETTINGS, *more), listener=listener)


def _weights(run: pixelwise.Run) -> list[Any]:
    """Give the tensors of the newest checkpoint: weights, averages and the optimizer's state."""
    newest = max((run.folder / "checkpoints").glob("*.safetensors"))
    return [tensor for _, tensor in sorted(load_file(newest).items())]


@functools.cache
def _whole() -> tuple[list[Any], tuple[float, float]]:
    """Give the weights of an undisturbed run, its best score, and what its model scores: asked for by three cases."""
    with tempfile.TemporaryDirectory() as name:
        data = _discs(Path(name) / "data")
        run = _run(data, Path(name) / "run")
        log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        best = max(event["miou"] for event in log if event["event"] == "validation")
        shipped = pixelwise.evaluate(run.model, data, split="val").scores.miou.value
        assert shipped is not None
        return _weights(run), (best, shipped)


def _stopped(data: Path, out: Path) -> None:
    """Leave a run of 4 steps after 2, by Ctrl-C."""
    stopped = False

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        _run(data, out, listener=stop)
    except Interrupted:
        stopped = True
    assert stopped, "the run was stopped"


def _stop_and_go_on(folder: Path) -> tuple[list[Any], list[Any]]:
    data = _discs(folder / "data")
    _stopped(data, folder / "parts")
    return _whole()[0], _weights(_run(data, folder / "parts"))


def _go_on_with(folder: Path, steps: int) -> int:
    data = _discs(folder / "data")
    _stopped(data, folder / "parts")
    return len(_weights(_run(data, folder / "parts", steps=steps)))


def _best_and_shipped(folder: Path) -> tuple[float, float]:
    return _whole()[1]


def _workers_apart(folder: Path) -> tuple[list[Any], list[Any]]:
    return _whole()[0], _weights(_run(_discs(folder / "data"), folder / "run", "train.workers=2"))


def _loss_settings(folder: Path) -> dict[str, Any]:
    run = _run(_discs(folder), folder.with_name(f"{folder.name}-run"), steps=1)
    settings: dict[str, Any] = yaml.safe_load((run.folder / "config.yaml").read_text())["loss"]
    return settings


def _split(names: Sequence[str], groups: Sequence[str], val: float) -> tuple[list[str], list[str]]:
    place = split_groups(names, groups, val, 0.0, 0)
    return [n for n in names if place[n] == "train"], [n for n in names if place[n] == "val"]


WAYS: Ways = {
    "stop_and_go_on": (Way("train, Ctrl-C, train", _stop_and_go_on),),
    "go_on_with": (Way("train, Ctrl-C, train with other steps", _go_on_with),),
    "best_and_shipped": (Way("train, evaluate", _best_and_shipped),),
    "workers_apart": (Way("train with train.workers=0 and 2", _workers_apart),),
    "loss_settings": (Way("train: loss in config.yaml", _loss_settings),),
    "split_by_group": (Way("data.split.split_groups", _split),),
}
