"""Chapter F: what a run promises. Runs are short, on drawn discs of 32×32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conformance.case import Case, Inputs, Refusal


def _folder(folder: Path) -> tuple[Inputs, ...]:
    return ({"folder": folder},)


def _stopped(folder: Path, steps: int) -> Inputs:
    return {"folder": folder, "steps": steps}


def _difference(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Give the largest difference between two lists of arrays."""
    first, second = answers[0]
    assert len(first) == len(second), "two runs of the same network"
    return max(
        float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
        for a, b in zip(first, second, strict=True)
    )


def _gap(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return abs(float(answers[0][0]) - float(answers[0][1]))


def _patients(_: Path) -> tuple[Inputs, ...]:
    groups = [f"patient{k // 6}" for k in range(60)]
    return ({"names": [f"{group}_{k}" for k, group in enumerate(groups)], "groups": groups, "val": 0.25},)


def _on_both_sides(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count the groups that have images on both sides."""
    of = dict(zip(inputs[0]["names"], inputs[0]["groups"], strict=True))
    train, val = ({of[name] for name in names} for names in answers[0])
    return len(train & val)


def _twins(folder: Path) -> tuple[Inputs, ...]:
    """Write two images for training and one for validation, which is one of the two under another name."""
    generator = np.random.default_rng(0)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 4:9] = 1
    images = [generator.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(2)]
    for split, name, image in (("train", "a", images[0]), ("train", "b", images[1]), ("val", "c", images[0])):
        for kind, values in (("images", image), ("masks", mask)):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / split / kind / f"{name}.png")
    return ({"folder": folder},)


CASES = (
    Case(
        "F1",
        "A frozen encoder whose norms go on",
        "The largest change of a running mean or variance of a frozen encoder in one training step.",
        "frozen_statistics",
        lambda _: ({},),
        0.0,
        "What is frozen stands still, its statistics included; else weights and norms come apart.",
        "segmentation_models.pytorch base/model.py, train",
        0.0,
    ),
    Case(
        "F2",
        "Resuming loses a part of the state",
        "The largest difference of a weight between a run of 4 steps and one that was stopped after 2 and went on.",
        "stop_and_go_on",
        _folder,
        0.0,
        "Optimizer, averages, order of the images and chance are functions of the step: on a processor every "
        "bit is the same.",
        "Lightning, transformers Trainer: resume_from_checkpoint",
        0.0,
        _difference,
    ),
    Case(
        "F3",
        "The best weights are not those that are shipped (A9 too)",
        "The difference between the best score of the run and what its model scores on the same images.",
        "best_and_shipped",
        _folder,
        0.0,
        "What was scored is what was saved, and by the same metric: no pseudo-score on patches.",
        "nnU-Net, pseudo Dice; EMA in Ultralytics",
        1e-9,
        _gap,
    ),
    Case(
        "F4",
        "Going on with another length",
        "A run of 4 steps is stopped after 2, and asked to go on to 8.",
        "go_on_with",
        lambda folder: (_stopped(folder, 8),),
        Refusal("steps"),
        "The learning rate falls over 4 steps: with 8 it would jump up again. A longer run is another run, "
        "unless one says so.",
        "transformers Trainer: num_train_epochs changed on resuming",
        control=lambda folder: _stopped(folder, 4),
    ),
    Case(
        "F5",
        "Tiles of one scene on both sides",
        "Patients who are in training and validation, of 10 with 6 images each.",
        "split_by_group",
        _patients,
        0,
        "A patient's images look alike: the score would be of what was learned by heart.",
        "scikit-learn user guide, 3.1.2.4: group cross-validation",
        0.0,
        _on_both_sides,
    ),
    Case(
        "F6",
        "The same image on both sides",
        "Whether a check names the image that is in training and in validation.",
        "check_folder",
        _twins,
        True,
        "It was learned by heart, and says nothing of others.",
        "CamVid's neighbouring frames",
        0.0,
        lambda _, answers: any("a.png" in text and "c.png" in text for text in answers[0]),
    ),
    Case(
        "F7",
        "The same seed, another result",
        "The largest difference of a weight between two runs with one seed, with 0 and with 2 worker processes.",
        "workers_apart",
        _folder,
        0.0,
        "What is drawn depends on seed, epoch and image, not on who draws it.",
        "mmsegmentation issue 3795",
        0.0,
        _difference,
    ),
)
