"""Freezing, unfreezing and learning rates per layer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import Config, ResolvedTrain, draft
from pixelwise.errors import ConfigError
from pixelwise.models.catalogue import build_model
from pixelwise.training.finetune import Frozen, frozen_layers, head_alone, rate_factors


def train(**values: object) -> ResolvedTrain:
    return draft(Config.model_validate({"train": {"steps": 100, **values}})).train


@pytest.mark.parametrize(("freeze", "held"), [(None, 0), ("none", 0), ("encoder", 5), (0, 0), (2, 2), (5, 5)])
def test_layers_stay_frozen_without_unfreeze(freeze: object, held: int) -> None:
    assert {frozen_layers(train(freeze=freeze), 5, step) for step in (0, 50, 99)} == {held}


def test_layers_are_unfrozen_one_by_one_from_the_last() -> None:
    run = train(freeze="encoder", unfreeze=0.5)
    assert [frozen_layers(run, 5, step) for step in (0, 9, 10, 20, 30, 40, 49, 50, 99)] == [5, 5, 4, 3, 2, 1, 1, 0, 0]


@given(st.integers(0, 7), st.floats(0.01, 1.0), st.integers(1, 300), st.integers(1, 400), st.floats(0.1, 2.0))
def test_no_layer_is_frozen_again(layers: int, unfreeze: float, steps: int, border: int, more: float) -> None:
    run = train(
        freeze=layers, unfreeze=unfreeze, head_warmup=0.3, steps=steps, recounts=[[border, int(steps * more) + 1]]
    )
    held = [frozen_layers(run, 7, step) for step in range(2 * steps)]
    assert held == sorted(held, reverse=True)
    assert held[0] == layers
    alone = [head_alone(run, step) for step in range(2 * steps)]
    assert alone == sorted(alone, reverse=True)


def test_more_layers_than_there_are_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"^train.freeze: expected at most 5 layers, .* found 6\. Freeze fewer layers, or none\.$"
    ):
        frozen_layers(train(freeze=6), 5, 0)
    with pytest.raises(ConfigError, match="expected a model with an encoder, found encoder"):
        frozen_layers(train(freeze="encoder"), 0, 0)


def test_the_head_learns_alone_at_first() -> None:
    assert [head_alone(train(head_warmup=0.05), step) for step in (0, 4, 5)] == [True, True, False]
    assert not head_alone(train(), 0)


def test_rates_decrease_towards_the_input() -> None:
    model = build_model("unet", features=(4, 8))
    factors = rate_factors(model, 10.0, 0.5)
    assert factors["head.weight"] == 10.0
    assert factors["up.0.up.weight"] == 1.0
    assert [factors[f"down.{k}.conv.0.weight"] for k in (1, 0)] == [0.5, 0.25]
    assert factors["first.0.weight"] == 0.125
    assert set(rate_factors(model, 1.0, 1.0).values()) == {1.0}


def test_norms_without_weights_are_frozen_with_their_layer() -> None:
    model = build_model("unet", features=(4, 8), num_classes=3)
    model.down[0].conv[1] = torch.nn.BatchNorm2d(8, affine=False)
    held = Frozen(model.train(), train(freeze=1))
    held.hold(0)
    assert model.down[0].conv[1].training
    held = Frozen(model.train(), train(freeze=2))
    held.hold(0)
    assert not model.down[0].conv[1].training


def test_frozen_layers_do_not_change_including_norms() -> None:
    model = build_model("unet", features=(4, 8), num_classes=3).train()
    held = Frozen(model, train(freeze=2, unfreeze=0.5, head_warmup=0.1))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
    images, masks = torch.rand(2, 3, 16, 16) * 255, torch.randint(0, 3, (2, 16, 16))
    moved = {}
    for step in (0, 10, 60):
        held.hold(step)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        torch.nn.functional.cross_entropy(model(images), masks).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        moved[step] = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved[0] == {"head.weight", "head.bias"}
    assert not any(name.startswith(("first.", "down.0.")) for name in moved[10])
    assert any(name.startswith("down.1.") and "running_mean" in name for name in moved[10])
    assert any(name.startswith("first.") and "running_mean" in name for name in moved[60])
    assert any(name.startswith("first.") and name.endswith("0.weight") for name in moved[60])


def test_frozen_layers_are_computed_without_gradients() -> None:
    model = build_model("unet", features=(4, 8), num_classes=3).train()
    tracked: dict[str, bool] = {}
    for name in ("first", "down.0", "up.0"):
        model.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: tracked.update({name: output.requires_grad})
        )
    Frozen(model, train(freeze=2)).hold(0)
    model(torch.rand(2, 3, 16, 16))
    assert tracked == {"first": False, "down.0": False, "up.0": True}
