"""The training loop, to be read from top to bottom.

Comes in: a model, its loss, a stream of batches, and how to score it. Goes out: the averaged weights that scored best,
saved as a model folder, and a state that any later call goes on from. Knows nothing of how these were chosen.

What one step does: gradients of `accumulate` batches, clipped, one AdamW step at the scheduled rate, averaged weights
moved along. What never happens: a NaN in a weight, a step that counts half, a draw that depends on the past.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelwise.batch import Batch
from pixelwise.config import Config, TrainConfig
from pixelwise.errors import DivergedError, Interrupted
from pixelwise.losses import Loss, accumulated
from pixelwise.models.base import SegmentationModel
from pixelwise.training.checkpoint import State, load_newest, save_checkpoint
from pixelwise.training.finetune import Frozen
from pixelwise.training.interrupt import StopSignal
from pixelwise.training.loader import Crops, batches
from pixelwise.training.optim import AveragedWeights, adamw, rate
from pixelwise.training.runlog import RunLog
from pixelwise.training.schedule import last_step, steps_at, validation_steps

CHECKPOINT_SECONDS = 60.0
_MOST_SKIPPED_IN_A_ROW = 3


@dataclass(frozen=True)
class Work:
    """Bring together what `fit` needs.

    Args:
        config: resolved; every value of `train` that the loop reads is set.
        model: with fresh weights, a function of the seed.
        loss: what is made small.
        crops: the training stream.
        validate: scores a model on whole images: (model, stop check) → mIoU.
        keep: saves the averaged model as the best so far: (model, mIoU, step) → None.
        folder: of the run.
    """

    config: Config
    model: SegmentationModel
    loss: Loss
    crops: Crops
    validate: Callable[[SegmentationModel, Callable[[], None]], float]
    keep: Callable[[SegmentationModel, float, int], None]
    folder: Path


def fit(
    work: Work,
    listener: Callable[[dict[str, Any]], None] | None = None,
    until: int | None = None,
    recounted: bool = False,
) -> State:
    """Train to the last step, from the newest checkpoint where there is one.

    Args:
        work: what there is to do.
        listener: called with every event.
        until: leave before this step is made, with a checkpoint, to be called again.
        recounted: this call goes on with one that left so, after its steps were counted again.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        DivergedError: three steps in a row had a loss or gradient that was not finite.
        ResourceError: the disk is full; the checkpoints before stay.
    """
    train, device = work.config.train, torch.device(work.config.train.device or "cpu")
    steps, layout = last_step(train), torch.channels_last if train.channels_last else torch.contiguous_format
    model = work.model.to(device).to(memory_format=layout).train()
    rates = (train.learning_rate or 1e-3, train.weight_decay, train.head_rate or 1.0, train.layer_decay or 1.0)
    optimizer = adamw(model, *rates)
    averaged = AveragedWeights(model, train.ema or 0.0)
    state = State(model, averaged.model, optimizer)
    resumed = load_newest(work.folder / "checkpoints", state)
    log = RunLog(work.folder / "log.jsonl", state.step, listener)
    log.write("recount" if recounted else "resume" if resumed else "start", step=state.step, steps=steps)
    due = validation_steps(train)
    stream = batches(
        work.crops,
        batch_size=train.batch_size or 1,
        start=state.step * train.accumulate,
        count=(steps - state.step) * train.accumulate,
        workers=train.workers or 0,
    )
    with closing(log), StopSignal(work.folder) as stop:
        run = _Run(work, state, averaged, log, stop)
        try:
            while True:
                if state.step in due and state.scored_step < state.step:
                    run.validate()
                if state.step == until:
                    with stop.held():
                        run.save()
                if state.step in (steps, until):
                    return state
                run.step([next(stream) for _ in range(train.accumulate)])
                run.save_if_due(state.step in due)
        except Interrupted:
            run.save_after_stop()
            raise
        finally:
            run.frozen.release()


class _Run:
    """Make steps; between two of them the state is whole."""

    def __init__(self, work: Work, state: State, averaged: AveragedWeights, log: RunLog, stop: StopSignal):
        self.work, self.state, self.averaged, self.log, self.stop = work, state, averaged, log, stop
        self.steps = last_step(work.config.train)
        self.began = time.monotonic() - state.seconds
        self.saved = time.monotonic()
        self.border = _buffers(state.model)
        self.frozen = Frozen(state.model, work.config.train)

    def step(self, group: list[Batch]) -> None:
        """Make one step of the batches in `group`, or skip it where loss or gradient is not finite."""
        state, train = self.state, self.work.config.train
        torch.manual_seed(train.seed * 1_000_003 + state.step)
        now = rate(state.step, steps_at(train, state.step), train.learning_rate or 1e-3, train.warmup)
        for entry in state.optimizer.param_groups:
            entry["lr"] = now * entry["factor"]
        self.frozen.hold(state.step)
        loss = gradients(state.model, self.work.loss, group, train)
        norm = float(nn.utils.clip_grad_norm_(state.model.parameters(), train.clip))
        finite = math.isfinite(loss) and math.isfinite(norm)
        with self.stop.held():
            if finite:
                state.optimizer.step()
                self.averaged.update(state.model, state.step)
            else:
                _restore(state.model, self.border)
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            state.seconds = time.monotonic() - self.began
            self.border = _buffers(state.model)
            self.report(loss, norm) if finite else self.skip(loss, norm, [i for batch in group for i in batch.ids])

    def report(self, loss: float, norm: float) -> None:
        """Tell of a finished step; about 200 of them are written down."""
        state = self.state
        state.skipped_in_a_row = 0
        facts = {"step": state.step, "steps": self.steps, "loss": loss, "gradient_norm": norm, "miou": state.best_miou}
        facts |= {"seconds": state.seconds, "eta": (self.steps - state.step) * state.seconds / state.step}
        kept = state.step % max(self.steps // 200, 1) == 0 or state.step == self.steps
        (self.log.write if kept else self.log.tell)("step", **facts)

    def skip(self, loss: float, norm: float, ids: list[str]) -> None:
        """Write down a step that was not made; the third in a row ends the run, whose weights are those before the first."""
        self.state.skipped_in_a_row += 1
        self.state.skipped += 1
        self.log.write("skipped", step=self.state.step, loss=str(loss), gradient_norm=str(norm), samples=ids)
        if self.state.skipped_in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise _diverged(self.work.folder, ids)

    def validate(self) -> None:
        """Score the averaged weights on whole images; keep them where they are the best so far."""
        state = self.state
        miou = self.work.validate(self.averaged.model, self.stop.check)
        with self.stop.held():
            better = state.best_miou is None or miou > state.best_miou
            state.seconds = time.monotonic() - self.began
            if better:
                state.best_miou, state.best_step = miou, state.step
                self.work.keep(self.averaged.model, miou, state.step)
            state.scored_step = state.step
            self.log.write("validation", step=state.step, miou=miou, best=better, seconds=state.seconds)
            self.save()

    def save_if_due(self, border: bool) -> None:
        """Write a checkpoint before each validation, and every minute."""
        if border or time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            with self.stop.held():
                self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(self.work.folder / "checkpoints", self.state)
        self.saved = time.monotonic()

    def save_after_stop(self) -> None:
        """Write a checkpoint of the last border between two steps.

        A forward pass may have been cut in two, so the norms' statistics are put back; weights move only at the border.
        """
        _restore(self.state.model, self.border)
        self.save()
        self.log.write("stopped", step=self.state.step)


def gradients(model: SegmentationModel, loss: Loss, group: list[Batch], train: TrainConfig) -> float:
    """Add up the gradients of a group of batches as if it were one batch, and return its loss."""
    device, total = torch.device(train.device or "cpu"), 0.0
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    part_loss = accumulated(loss, [batch.masks.to(device) for batch in group])
    for batch in group:
        images = batch.images.to(device, memory_format=layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            outputs = model.training_outputs(images)
        value = part_loss(outputs, replace(batch, images=images, masks=batch.masks.to(device)))
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
    return total


def _buffers(model: nn.Module) -> list[torch.Tensor]:
    return [b.detach().clone() for b in model.buffers()]


def _restore(model: nn.Module, before: list[torch.Tensor]) -> None:
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)


def _diverged(folder: Path, ids: list[str]) -> DivergedError:
    return DivergedError(
        folder,
        expected="a finite loss",
        found=f"NaN or infinity in {_MOST_SKIPPED_IN_A_ROW} steps in a row, last on {', '.join(ids[:4])}",
        do="Look at these images, or lower --set train.learning_rate; log.jsonl lists every skipped step.",
    )
