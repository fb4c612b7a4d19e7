import copy
import itertools
from typing import Literal

import pytest
import torch
from torch import nn

from pixelwise.config import Config, draft, replace
from pixelwise.models.unet import UNet
from pixelwise.training.optim import AveragedWeights, adamw, begin_at_prior, head_inputs, rate
from pixelwise.training.schedule import validation_steps


def test_the_rate_rises_to_the_peak_and_falls_to_a_hundredth() -> None:
    rates = [rate(step, 100, 1e-3, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) in (9, 10)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert 1e-5 <= rates[-1] < 2e-5


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_a_positive_rate(steps: int) -> None:
    assert all(rate(step, steps, 1e-3, 0.05) > 0 for step in range(steps))


def test_norms_and_biases_are_not_decayed_and_the_head_has_its_own_rate() -> None:
    model = UNet(3, 2, features=(4, 8))
    groups = adamw(model, 1e-3, 0.01, head_rate=8.0).param_groups
    kind = {id(p): (g["weight_decay"], g["factor"]) for g in groups for p in g["params"]}
    assert len(kind) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        assert kind[id(p)] == (0.01 if p.ndim > 1 else 0.0, 8.0 if name.startswith("head") else 1.0), name


def test_head_inputs_is_the_fan_in() -> None:
    assert head_inputs(UNet(3, 2, features=(4, 8))) == 4
    assert head_inputs(UNet(3, 2, features=(4, 8), stem=2)) == 4


@pytest.mark.parametrize("stem", [1, 2])
def test_a_new_model_predicts_the_class_frequencies(stem: Literal[1, 2]) -> None:
    torch.manual_seed(0)
    model = UNet(3, 3, features=(4,), stem=stem)
    with torch.no_grad():
        model.head.weight.zero_()
    begin_at_prior(model, [70.0, 30.0, 0.0])
    answer = model(torch.rand(1, 3, 16, 16)).softmax(1)[0]
    torch.testing.assert_close(answer[0], torch.full((16, 16), 0.7), rtol=1e-3, atol=0)
    torch.testing.assert_close(answer[2], torch.full((16, 16), 1e-4), rtol=1e-3, atol=0)


def test_a_head_without_bias_is_unchanged() -> None:
    model = UNet(3, 2, features=(4,))
    model.head = nn.Conv2d(4, 2, 1, bias=False)
    before = model.head.weight.clone()
    begin_at_prior(model, [1.0, 3.0])
    assert torch.equal(before, model.head.weight)


def test_averaged_weights_follow_the_formula() -> None:
    torch.manual_seed(0)
    model = UNet(3, 2, features=(4,))
    averaged = AveragedWeights(model, 0.5)
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(4):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1.0)
        now = [p.detach().clone() for p in model.parameters()]
        averaged.update(model, step)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = [keep * e + (1 - keep) * n for e, n in zip(expected, now, strict=True)]
        assert all(torch.equal(p, n) for p, n in zip(model.parameters(), now, strict=True))
    for mine, want in zip(averaged.model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, want)
    assert not averaged.model.training
    assert not any(p.requires_grad for p in averaged.model.parameters())


def test_decay_0_copies_the_model_with_norm_statistics() -> None:
    model = UNet(3, 2, features=(4,)).train()
    averaged = AveragedWeights(model, 0.0)
    model(torch.rand(2, 3, 16, 16))
    averaged.update(model, 5)
    for (name, mine), theirs in zip(averaged.model.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (1, 10), (7, 3), (1000, 10), (50, 50)])
def test_the_last_step_is_always_validated_and_the_gaps_shrink(steps: int, count: int) -> None:
    due = sorted(validation_steps(draft(replace(Config(), train={"steps": steps, "validations": count})).train))
    assert due[-1] == steps
    assert due[0] >= 1
    assert len(due) <= count
    if steps == 1000:
        gaps = [b - a for a, b in itertools.pairwise(due)]
        assert len(due) == count
        assert gaps[-1] <= gaps[0]


@pytest.mark.parametrize("of_weights", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("of_gradients", [torch.contiguous_format, torch.channels_last])
def test_the_fused_step_is_that_of_adamw_in_every_layout(
    of_weights: torch.memory_format, of_gradients: torch.memory_format
) -> None:
    """In torch 2.15, a fused step with gradients of another layout moves other weights."""
    torch.manual_seed(0)
    model = UNet(3, 2, features=(4, 8)).to(memory_format=of_weights)
    expected = copy.deepcopy(model)
    fused = adamw(model, 0.01, 0.1, head_rate=8.0)
    assert fused.defaults["fused"]
    plain = adamw(expected, 0.01, 0.1, head_rate=8.0)
    for group in plain.param_groups:
        group["fused"] = group["foreach"] = False
    for _ in range(3):
        for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
            theirs.grad = torch.randn(theirs.shape)
            layout = of_gradients if mine.ndim == 4 else torch.contiguous_format
            mine.grad = torch.empty(mine.shape, memory_format=layout).copy_(theirs.grad)
        fused.step()
        plain.step()
    for (name, mine), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6, msg=name)


def test_frozen_weights_are_averaged_without_a_change() -> None:
    """They are left out of the average, to the same bits, until they are unfrozen."""
    torch.manual_seed(0)
    model = UNet(3, 2, features=(4,)).train()
    first = copy.deepcopy(model)
    averaged, every = AveragedWeights(model, 0.9), AveragedWeights(model, 0.9)
    model.first.requires_grad_(False)
    for step in range(4):
        if step == 2:
            model.requires_grad_(True)
        model(torch.rand(2, 3, 16, 16))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 if p.requires_grad else 0.0)
        averaged.update(model, step)
        if step == 1:
            assert all(map(torch.equal, averaged.model.first.parameters(), first.first.parameters()))
        learns = [p.requires_grad for p in model.parameters()]
        every.update(model.requires_grad_(True), step)
        for p, kept in zip(model.parameters(), learns, strict=True):
            p.requires_grad_(kept)
    for (name, a), b in zip(averaged.model.state_dict().items(), every.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(averaged.model.first[0].weight, first.first[0].weight)
