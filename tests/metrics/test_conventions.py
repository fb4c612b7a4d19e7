"""Conventions of peers, held against the peers' own calls."""

from __future__ import annotations

import monai.metrics
import numpy as np
import pytest
import segmentation_models_pytorch.metrics as smp
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import UsageError
from pixelwise.metrics.confusion import ConfusionMatrix, margins
from pixelwise.metrics.conventions import CONVENTIONS, peer_scores

K = 5


def drawn(seed, n=6, void=0.0):
    """Draw small images of which some lack classes, and one class is never true but sometimes predicted."""
    generator = np.random.default_rng(seed)
    truth, prediction = np.empty((2, n, 9, 11), np.int64)
    for i in range(n):
        some = generator.choice(K - 1, generator.integers(1, K - 1), replace=False)
        truth[i] = generator.choice(some, truth[i].shape)
        prediction[i] = np.where(generator.random(truth[i].shape) < 0.6, truth[i], generator.integers(0, K, (9, 11)))
    truth[generator.random(truth.shape) < void] = 255
    if void:
        truth[1] = 255  # an image in which nothing counts
    return truth, prediction


def counts_of(truth, prediction):
    """Count (N, 4, K) as the evaluation does."""
    counter, parts = ConfusionMatrix(K), []
    for t, p in zip(truth, prediction, strict=True):
        parts.append(np.stack([*margins(counter.update(t, p)), np.bincount(p[t == 255], minlength=K)]))
    return np.stack(parts)


def values(name, counts):
    scores = peer_scores(name, counts, [None] * len(counts))
    return {score.call: score.score.value for score in scores}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2]))
def test_smp(seed, void):
    truth, prediction = drawn(seed, void=void)
    stats = smp.get_stats(
        torch.tensor(prediction), torch.tensor(truth), mode="multiclass", num_classes=K, ignore_index=255
    )
    found = values("smp", counts_of(truth, prediction))
    for reduction in ("macro", "macro-imagewise", "micro", "micro-imagewise"):
        expected = float(smp.iou_score(*stats, reduction=reduction))
        assert found[f"iou_score(reduction='{reduction}')"] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2]))
def test_torchmetrics(seed, void):
    truth, prediction = drawn(seed, void=void)
    found = values("torchmetrics", counts_of(truth, prediction))
    for average in ("macro", "micro"):
        metric = torchmetrics.JaccardIndex(task="multiclass", num_classes=K, average=average, ignore_index=255)
        expected = float(metric(torch.tensor(prediction), torch.tensor(truth)))
        assert found[f"JaccardIndex(task='multiclass', average='{average}')"] == pytest.approx(expected, abs=1e-6)
    if void:  # MeanIoU refuses it
        return
    from torchmetrics.segmentation import MeanIoU

    expected = float(MeanIoU(num_classes=K, input_format="index")(torch.tensor(prediction), torch.tensor(truth)))
    assert found["segmentation.MeanIoU(input_format='index')"] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_monai(seed):
    truth, prediction = drawn(seed)
    found = values("monai", counts_of(truth, prediction))
    one_hot = [torch.nn.functional.one_hot(torch.tensor(a), K).movedim(-1, 1) for a in (prediction, truth)]
    metric = monai.metrics.MeanIoU()
    metric(*one_hot)
    assert found["MeanIoU(reduction='mean')"] == pytest.approx(float(metric.aggregate("mean")), abs=1e-6)
    expected = float(metric.aggregate("mean_batch").mean())
    assert found["MeanIoU(reduction='mean_batch').mean()"] == pytest.approx(expected, abs=1e-6)


def test_rules_of_libraries_that_are_not_installed_by_hand():
    """Three classes of which the last is only predicted: its IoU is 0, and the fourth is nowhere."""
    counts = np.zeros((1, 4, 4), np.int64)
    counts[0] = [[6, 3, 0, 0], [10, 3, 0, 0], [6, 5, 2, 0], [0, 4, 0, 0]]
    iou = [6 / 10, 3 / 5, 0]
    assert values("mmseg", counts) == pytest.approx(
        {"IoUMetric: mIoU": np.mean(iou), "IoUMetric: mAcc": (0.6 + 1) / 2, "IoUMetric: aAcc": 9 / 13}
    )
    assert values("ultralytics", counts) == pytest.approx({"SemanticMetrics: mIoU": np.mean(iou[:2])})
    assert values("sceneparsing", counts)["Mean IoU"] == pytest.approx(sum(iou) / 4)
    assert values("void-as-error", counts)["mIoU, void as error"] == pytest.approx((0.6 + 3 / 9 + 0) / 3)


def test_every_rule_is_described_and_has_no_interval():
    truth, prediction = drawn(0, n=30)
    for name, rules in CONVENTIONS.items():
        for score, rule in zip(peer_scores(name, counts_of(truth, prediction), [None] * 30), rules, strict=True):
            assert (score.score.low, score.score.high, score.score.n) == (None, None, 30), (name, rule.call)
            assert set(score.to_dict()) == {"call", "says", "value", "value_low", "value_high", "value_n"}


def test_unknown_convention_is_an_error():
    with pytest.raises(UsageError, match=r"^--convention: expected smp, torchmetrics, .*, found voc\. Choose"):
        peer_scores("voc", np.zeros((1, 4, 2), np.int64), [None])


def test_calls_that_cannot_ignore_pixels_are_noted():
    truth, prediction = drawn(0)
    counts = counts_of(truth, prediction)
    for void in (False, True):
        found = peer_scores("torchmetrics", counts, [None] * len(counts), ignored=void)
        said = [score.call for score in found if "ignored pixels are left out, which this call cannot do" in score.says]
        assert said == (["segmentation.MeanIoU(input_format='index')"] if void else [])
