from pathlib import Path

import pytest
import torch

from pixelwise.errors import ModelFileError
from pixelwise.models.unet import UNet
from pixelwise.training.checkpoint import State, checkpoints, load_checkpoint, load_newest, save_checkpoint
from pixelwise.training.optim import AveragedWeights, adamw


def state_after(
    steps: int, features: tuple[int, ...] = (4,), layout: torch.memory_format = torch.channels_last
) -> State:
    torch.manual_seed(1)
    model = UNet(3, 2, features=features).to(memory_format=layout).train()
    optimizer, averaged = adamw(model, 1e-3, 0.01), AveragedWeights(model, 0.9)
    state = State(model, averaged.model, optimizer)
    for step in range(steps):
        model(torch.rand(2, 3, 16, 16)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        averaged.update(model, step)
        state.step += 1
    return state


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_checkpoint_round_trip_is_bit_identical(tmp_path: Path, layout: torch.memory_format) -> None:
    saved = state_after(3, layout=layout)
    saved.best_miou, saved.best_step, saved.scored_step, saved.skipped, saved.seconds = 0.1 + 0.2, 2, 2, 1, 7.25
    save_checkpoint(tmp_path, saved)
    fresh = state_after(0, layout=layout)
    assert load_newest(tmp_path, fresh) is not None
    assert fresh.facts() == saved.facts()
    for mine, theirs in ((fresh.model, saved.model), (fresh.averaged, saved.averaged)):
        for (name, a), b in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b), name
    moments = 0
    pairs = zip(fresh.model.parameters(), saved.model.parameters(), strict=True)
    for a, b in pairs:
        for name, value in saved.optimizer.state[b].items():
            assert torch.equal(fresh.optimizer.state[a][name], value), name
            assert fresh.optimizer.state[a][name].stride() == value.stride(), name
            moments += 1
    assert moments == 3 * len(list(saved.model.parameters()))


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    state = state_after(0)
    for step in (1, 2, 10):
        state.step = step
        save_checkpoint(tmp_path, state)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000002.safetensors", "step-00000010.safetensors"]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    state = state_after(1)
    save_checkpoint(tmp_path, state)
    state.step = 2
    newest = save_checkpoint(tmp_path, state)
    newest.write_bytes(newest.read_bytes()[:1000])
    fresh = state_after(0)
    assert load_newest(tmp_path, fresh) == tmp_path / "step-00000001.safetensors"
    assert fresh.step == 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state_after(1))
    with pytest.raises(
        ModelFileError, match=r"step-00000001.safetensors: expected tensors of this model, found .*Use another --out"
    ):
        load_checkpoint(path, state_after(0, features=(8,)))


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_newest(tmp_path, state_after(0)) is None


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_steps_after_a_checkpoint_are_those_without_it(tmp_path: Path, layout: torch.memory_format) -> None:
    """Bit for bit."""

    def more(state: State) -> None:
        torch.manual_seed(5)
        for _ in range(3):
            state.model(torch.rand(2, 3, 16, 16)).square().mean().backward()
            state.optimizer.step()
            state.optimizer.zero_grad()

    saved, fresh = state_after(3, layout=layout), state_after(0, layout=layout)
    save_checkpoint(tmp_path, saved)
    load_newest(tmp_path, fresh)
    more(saved)
    more(fresh)
    for (name, a), b in zip(fresh.model.state_dict().items(), saved.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    counts = {float(entries["step"]) for entries in fresh.optimizer.state.values()}
    assert counts == {6.0}
