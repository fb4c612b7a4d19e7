"""scikit-learn: Jaccard score, confusion matrix, grouped splits, constant baseline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from conformance.adapters import Way, Ways

Masks = Sequence[NDArray[Any]]


def _flat(masks: Masks) -> NDArray[Any]:
    return np.concatenate([mask.ravel() for mask in masks])


def _jaccard(
    truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None, *, average: str = "macro",
    labelled: bool = False, **_: Any,
) -> float:  # fmt: skip
    labels, truth = list(range(num_classes)) if labelled else None, _flat(truths)
    weights = None if ignore_index is None or not labelled else truth != ignore_index
    return float(jaccard_score(truth, _flat(predictions), labels=labels, average=average, sample_weight=weights))


def _jaccard_of_labelled(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None) -> float:
    """Pass the labelled pixels only."""
    truth, prediction = _flat(truths), _flat(predictions)
    labelled = np.full(truth.shape, True) if ignore_index is None else truth != ignore_index
    return float(jaccard_score(truth[labelled], prediction[labelled], average="macro"))


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    pairs = zip(truths, predictions, strict=True)
    return int(sum(np.trace(confusion_matrix(t.ravel(), p.ravel(), labels=range(num_classes))) for t, p in pairs))


def _by_group(names: Sequence[str], groups: Sequence[str], val: float) -> tuple[list[str], list[str]]:
    train, test = next(GroupShuffleSplit(1, test_size=val, random_state=0).split(names, groups=groups))
    return [names[k] for k in train], [names[k] for k in test]


def _at_random(names: Sequence[str], groups: Sequence[str], val: float) -> tuple[list[str], list[str]]:
    train, test = train_test_split(names, test_size=val, random_state=0)
    return list(train), list(test)


def _constant(truths: Masks, num_classes: int) -> NDArray[Any]:
    truth = _flat(truths)
    features = np.zeros((len(truth), 1))
    guess = DummyClassifier(strategy="most_frequent").fit(features, truth).predict(features)
    return np.array([accuracy_score(truth, guess), jaccard_score(truth, guess, average="macro")])


WAYS: Ways = {
    "miou": (
        Way(
            "metrics.jaccard_score(truth[truth != 255], prediction[truth != 255], average='macro')",
            _jaccard_of_labelled,
        ),
        Way("metrics.jaccard_score(average='macro')", _jaccard),
        Way(
            "metrics.jaccard_score(labels=range(K), average='macro', sample_weight=truth != 255)",
            partial(_jaccard, labelled=True),
        ),
        Way("metrics.jaccard_score(average='micro')", partial(_jaccard, average="micro")),
    ),
    "weighted_iou": (Way("metrics.jaccard_score(average='weighted')", partial(_jaccard, average="weighted")),),
    "right_pixels": (Way("metrics.confusion_matrix", _right_pixels),),
    "split_by_group": (
        Way("model_selection.GroupShuffleSplit", _by_group),
        Way("default: model_selection.train_test_split", _at_random),
    ),
    "constant_guess": (Way("dummy.DummyClassifier(strategy='most_frequent')", _constant),),
}
