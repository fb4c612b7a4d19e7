"""Chapter F: properties of training runs, tested with a few steps on synthetic images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conformance.case import Case, ExpectedError, Inputs


def _folder(folder: Path) -> tuple[Inputs, ...]:
    return ({"folder": folder},)


def _stopped(folder: Path, steps: int) -> Inputs:
    return {"folder": folder, "steps": steps}


def _difference(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Return the largest difference between two lists of arrays."""
    first, second = answers[0]
    assert len(first) == len(second), "the runs have different networks"
    return max(
        float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
        for a, b in zip(first, second, strict=True)
    )


def _difference_of_scores(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return abs(float(answers[0][0]) - float(answers[0][1]))


def _patients(_: Path) -> tuple[Inputs, ...]:
    groups = [f"patient{k // 6}" for k in range(60)]
    return ({"names": [f"{group}_{k}" for k, group in enumerate(groups)], "groups": groups, "val": 0.25},)


def _groups_in_both(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count the groups with images in both splits."""
    group_of = dict(zip(inputs[0]["names"], inputs[0]["groups"], strict=True))
    train, val = ({group_of[name] for name in names} for names in answers[0])
    return len(train & val)


def _near_duplicate(folder: Path) -> tuple[Inputs, ...]:
    """Write two training images and a validation image that is a copy of one of them under another name."""
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
        "A frozen encoder still updates its batch norms",
        "The largest change of a running mean or variance of a frozen encoder in one training step.",
        "frozen_statistics",
        lambda _: ({},),
        0.0,
        "Freezing includes the statistics; otherwise they no longer match the weights.",
        "segmentation_models.pytorch base/model.py, train",
        0.0,
    ),
    Case(
        "F2",
        "Resuming loses some of the state",
        "The largest difference of a weight between a run of 4 steps and one that was interrupted after 2 and resumed.",
        "resume",
        _folder,
        0.0,
        "Optimizer, weight averages, order of the images and random numbers are restored: on a CPU, the weights are "
        "identical bit for bit.",
        "Lightning, transformers Trainer: resume_from_checkpoint",
        0.0,
        _difference,
    ),
    Case(
        "F3",
        "The saved model is not the best one (also A9)",
        "The difference between the best score of the run and the score of its model on the same images.",
        "best_and_shipped",
        _folder,
        0.0,
        "The scored weights are the saved ones, and the metric is the same: no pseudo-score on patches.",
        "nnU-Net, pseudo Dice; EMA in Ultralytics",
        1e-9,
        _difference_of_scores,
    ),
    Case(
        "F4",
        "Resuming with a different length",
        "Interrupt a run of 4 steps after 2 and resume it with 8.",
        "resume_with",
        lambda folder: (_stopped(folder, 8),),
        ExpectedError("steps"),
        "The learning rate decays over 4 steps: with 8 it would jump up again. Changing the length must be explicit.",
        "transformers Trainer: num_train_epochs changed on resuming",
        control=lambda folder: _stopped(folder, 4),
    ),
    Case(
        "F5",
        "One group in two splits",
        "The number of patients in both training and validation, of 10 with 6 images each.",
        "split_by_group",
        _patients,
        0,
        "Images of one patient are similar: the score would reward memorisation.",
        "scikit-learn user guide, 3.1.2.4: group cross-validation",
        0.0,
        _groups_in_both,
    ),
    Case(
        "F6",
        "The same image in two splits",
        "Whether a check names the image that is in both training and validation.",
        "check_folder",
        _near_duplicate,
        True,
        "A memorised image says nothing about generalisation.",
        "CamVid's neighbouring frames",
        0.0,
        lambda _, answers: any("a.png" in text and "c.png" in text for text in answers[0]),
    ),
    Case(
        "F7",
        "Same seed, different result",
        "The largest difference of a weight between two runs with the same seed, with 0 and 2 worker processes.",
        "with_workers",
        _folder,
        0.0,
        "Random numbers depend on seed, epoch and image, not on the process.",
        "mmsegmentation issue 3795",
        0.0,
        _difference,
    ),
)
