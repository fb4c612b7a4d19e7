"""pixelwise: short training runs on synthetic discs, on the CPU."""

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
    """Return the tensors of the newest checkpoint: weights, averages and optimizer state."""
    newest = max((run.folder / "checkpoints").glob("*.safetensors"))
    return [tensor for _, tensor in sorted(load_file(newest).items())]


@functools.cache
def _uninterrupted() -> tuple[list[Any], tuple[float, float]]:
    """Return the weights of an uninterrupted run, its best score and the score of its model."""
    with tempfile.TemporaryDirectory() as name:
        data = _discs(Path(name) / "data")
        run = _run(data, Path(name) / "run")
        log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        best = max(event["miou"] for event in log if event["event"] == "validation")
        shipped = pixelwise.evaluate(run.model, data, split="val").scores.miou.value
        assert shipped is not None
        return _weights(run), (best, shipped)


def _interrupt(data: Path, out: Path) -> None:
    """Interrupt a run of 4 steps after 2, as by Ctrl-C."""

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        _run(data, out, listener=stop)
    except Interrupted:
        return
    raise AssertionError("the run was not interrupted")


def _resume(folder: Path) -> tuple[list[Any], list[Any]]:
    data = _discs(folder / "data")
    _interrupt(data, folder / "run")
    return _uninterrupted()[0], _weights(_run(data, folder / "run"))


def _resume_with(folder: Path, steps: int) -> int:
    data = _discs(folder / "data")
    _interrupt(data, folder / "run")
    return len(_weights(_run(data, folder / "run", steps=steps)))


def _best_and_shipped(folder: Path) -> tuple[float, float]:
    return _uninterrupted()[1]


def _with_workers(folder: Path) -> tuple[list[Any], list[Any]]:
    return _uninterrupted()[0], _weights(_run(_discs(folder / "data"), folder / "run", "train.workers=2"))


def _loss_settings(folder: Path) -> dict[str, Any]:
    run = _run(_discs(folder), folder.with_name(f"{folder.name}-run"), steps=1)
    settings: dict[str, Any] = yaml.safe_load((run.folder / "config.yaml").read_text())["loss"]
    return settings


def _split(names: Sequence[str], groups: Sequence[str], val: float) -> tuple[list[str], list[str]]:
    split_of = split_groups(names, groups, val, 0.0, 0)
    return [n for n in names if split_of[n] == "train"], [n for n in names if split_of[n] == "val"]


WAYS: Ways = {
    "resume": (Way("train, Ctrl-C, train", _resume),),
    "resume_with": (Way("train, Ctrl-C, train with other steps", _resume_with),),
    "best_and_shipped": (Way("train, evaluate", _best_and_shipped),),
    "with_workers": (Way("train with train.workers=0 and 2", _with_workers),),
    "loss_settings": (Way("train: loss in config.yaml", _loss_settings),),
    "split_by_group": (Way("datasets.split.split_groups", _split),),
}
