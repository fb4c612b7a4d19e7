"""The training loop.

A step sums the gradients of `accumulate` batches, clips them, makes one AdamW step at the scheduled rate, and updates the
averaged weights. A step whose loss or gradient is not finite is skipped. The averaged weights with the best validation
score are saved as the model; a checkpoint allows any later call to resume bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelwise.batch import Batch
from pixelwise.config import ResolvedConfig, ResolvedTrain
from pixelwise.errors import DivergedError, Interrupted
from pixelwise.losses import Loss, accumulated
from pixelwise.models.base import SegmentationModel, memory_layout
from pixelwise.training.checkpoint import State, load_newest, save_checkpoint
from pixelwise.training.features import FeatureBank
from pixelwise.training.finetune import Frozen, is_encoder_frozen
from pixelwise.training.interrupt import StopSignal
from pixelwise.training.loader import Crops, batches
from pixelwise.training.optim import AveragedWeights, adamw, rate
from pixelwise.training.runlog import RunLog
from pixelwise.training.schedule import last_step, steps_at, validation_steps

CHECKPOINT_SECONDS = 60.0
_MAX_SKIPPED_IN_A_ROW = 3


@dataclass(frozen=True)
class Work:
    """The input of `fit`.

    Args:
        config: the resolved configuration.
        model: with initial weights.
        loss: to minimise.
        crops: the training images.
        validate: computes the mIoU of a model on the validation split: (model, stop check) → mIoU.
        keep: saves the averaged model as the best so far: (model, mIoU, step) → None.
        folder: the run folder.
        bank: features of the training images while the encoder is frozen; None: the encoder is computed in every step.
        fill_limit: seconds that storing the features may take.
    """

    config: ResolvedConfig
    model: SegmentationModel
    loss: Loss
    crops: Crops
    validate: Callable[[SegmentationModel, Callable[[], None]], float]
    keep: Callable[[SegmentationModel, float, int], None]
    folder: Path
    bank: FeatureBank | None = None
    fill_limit: float = math.inf

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of the steps from `start` to `stop`: of features while the encoder is frozen, then of images."""
        train = self.config.train
        size, each = train.batch_size, train.accumulate
        pin = torch.device(train.device).type == "cuda"
        border = start
        if self.bank is not None:
            border = self.frozen_until(start, stop)
            if border > start:
                stored = self.bank.batches(batch_size=size, start=start * each, count=(border - start) * each)
                yield from (batch.pin_memory() for batch in stored) if pin else stored
            self.bank.clear()
        count = (stop - border) * each
        yield from batches(
            self.crops, batch_size=size, start=border * each, count=count, workers=train.workers, pin=pin
        )

    def frozen_until(self, start: int, stop: int) -> int:
        """Return the first step from `start` on in which the encoder is not completely frozen, at most `stop`."""
        layers = len(self.model.encoder_stages())
        return next((s for s in range(start, stop) if not is_encoder_frozen(self.config.train, layers, s)), stop)


def fit(
    work: Work,
    listener: Callable[[dict[str, Any]], None] | None = None,
    until: int | None = None,
    recounted: bool = False,
) -> State:
    """Train to the last step, from the newest checkpoint if there is one.

    Args:
        work: model, data and configuration.
        listener: called with every event.
        until: return before this step, after writing a checkpoint.
        recounted: whether this call continues such a run with a new number of steps.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        DivergedError: the loss or gradient was not finite in three steps in a row.
        ResourceError: the disk is full; earlier checkpoints are kept.
    """
    train = work.config.train
    steps = last_step(train)
    model = on_device(work.model, train)
    optimizer = adamw(
        model, train.learning_rate, train.weight_decay, train.head_rate, train.layer_decay, train.encoder_rate
    )
    averaged = AveragedWeights(model, train.ema)
    state = State(model, averaged.model, optimizer)
    resumed = load_newest(work.folder / "checkpoints", state)
    log = RunLog(work.folder / "log.jsonl", state.step, listener)
    log.write("recount" if recounted else "resume" if resumed else "start", step=state.step, steps=steps)
    due = validation_steps(train)
    stream = work.batches(state.step, steps)
    with closing(log), StopSignal(work.folder, "checkpoint saved") as stop:
        run = _Run(work, state, averaged, log, stop)
        try:
            if work.bank is not None and work.frozen_until(state.step, steps) > state.step:
                run.store_features(work.bank)
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


def on_device(model: SegmentationModel, train: ResolvedTrain) -> SegmentationModel:
    """Move a model to the device and memory format of the configuration, in place, and set training mode."""
    layout = memory_layout(model.dimensions, train.channels_last)
    return model.to(torch.device(train.device)).to(memory_format=layout).train()


class _Run:
    """Steps, validations and checkpoints of one call of `fit`; the state is consistent between two steps."""

    def __init__(self, work: Work, state: State, averaged: AveragedWeights, log: RunLog, stop: StopSignal):
        self.work = work
        self.state = state
        self.averaged = averaged
        self.log = log
        self.stop = stop
        self.steps = last_step(work.config.train)
        self.began = time.monotonic() - state.seconds
        self.saved = time.monotonic()
        self.buffers = _buffers(state.model)  # after the last complete step
        self.frozen = Frozen(state.model, work.config.train)

    def store_features(self, bank: FeatureBank) -> None:
        """Compute and store the features of the training images, which is not part of the time of the steps."""
        if bank.stored:
            return
        began = time.monotonic()
        total = self.work.config.train.copies * len(self.work.crops)

        def progress(done: int, _: int) -> None:
            self.log.notify("features", done=done, total=total)

        bank.fill(lambda: began + self.work.fill_limit - time.monotonic(), progress, self.stop.check)
        seconds = time.monotonic() - began
        self.began += seconds
        self.log.write(
            "features stored",
            step=self.state.step,
            stored=len(bank.stored),
            total=total,
            bytes=bank.bytes,
            place=bank.place,
            seconds=round(seconds, 1),
        )

    def step(self, group: list[Batch]) -> None:
        """Make one step with the batches of `group`, or skip it if loss or gradient is not finite."""
        state, train = self.state, self.work.config.train
        torch.manual_seed(train.seed * 1_000_003 + state.step)
        learning_rate = rate(state.step, steps_at(train, state.step), train.learning_rate, train.warmup)
        for entry in state.optimizer.param_groups:
            entry["lr"] = learning_rate * entry["factor"]
        self.frozen.hold(state.step)
        value = gradients(state.model, self.work.loss, group, train)
        length = nn.utils.clip_grad_norm_(state.model.parameters(), train.clip)
        # One transfer, since each waits for the device.
        loss, norm = torch.stack([value, length.to(value)]).tolist()
        finite = math.isfinite(loss) and math.isfinite(norm)
        with self.stop.held():
            if finite:
                state.optimizer.step()
                self.averaged.update(state.model, state.step)
            else:
                _restore(state.model, self.buffers)
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            state.seconds = time.monotonic() - self.began
            self.buffers = _buffers(state.model)
            if finite:
                self.report(loss, norm)
            else:
                self.skip(loss, norm, [name for batch in group for name in batch.ids])

    def report(self, loss: float, norm: float) -> None:
        """Report a finished step; about 200 steps per run are written to the log."""
        state = self.state
        state.skipped_in_a_row = 0
        facts = {"step": state.step, "steps": self.steps, "loss": loss, "gradient_norm": norm, "miou": state.best_miou}
        facts |= {"seconds": state.seconds, "eta": (self.steps - state.step) * state.seconds / state.step}
        kept = state.step % max(self.steps // 200, 1) == 0 or state.step == self.steps
        (self.log.write if kept else self.log.notify)("step", **facts)

    def skip(self, loss: float, norm: float, ids: list[str]) -> None:
        """Log a skipped step; the third in a row ends the run, with the weights before the first."""
        self.state.skipped_in_a_row += 1
        self.state.skipped += 1
        self.log.write("skipped", step=self.state.step, loss=str(loss), gradient_norm=str(norm), samples=ids)
        if self.state.skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            raise _diverged(self.work.folder, ids)

    def validate(self) -> None:
        """Score the averaged weights on the validation split; save them if they are the best so far."""
        state = self.state
        started = time.monotonic()
        miou = self.work.validate(self.averaged.model, self.stop.check)
        with self.stop.held():
            better = state.best_miou is None or miou > state.best_miou
            state.seconds = time.monotonic() - self.began
            state.validation_seconds = time.monotonic() - started
            if better:
                state.best_miou, state.best_step = miou, state.step
                self.work.keep(self.averaged.model, miou, state.step)
            state.scored_step = state.step
            facts = {"step": state.step, "miou": miou, "best": better, "seconds": state.seconds}
            self.log.write("validation", **facts, images=self.work.config.train.validation_images)
            self.save()

    def save_if_due(self, before_validation: bool) -> None:
        """Write a checkpoint before each validation, and every minute."""
        if before_validation or time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            with self.stop.held():
                self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(self.work.folder / "checkpoints", self.state)
        self.saved = time.monotonic()

    def save_after_stop(self) -> None:
        """Write a checkpoint of the last complete step.

        A forward pass may have been interrupted, so the statistics of the norms are restored; weights change only at the
        end of a step.
        """
        _restore(self.state.model, self.buffers)
        self.save()
        self.log.write("stopped", step=self.state.step)


def gradients(model: SegmentationModel, loss: Loss, group: list[Batch], train: ResolvedTrain) -> torch.Tensor:
    """Add up the gradients of a group of batches as if it were one batch, and return its loss, a float64 scalar.

    The CPU does not wait for the device, so that it prepares the next batch meanwhile.
    """
    device = torch.device(train.device)
    layout = memory_layout(model.dimensions, train.channels_last)
    masks = [batch.masks.to(device, non_blocking=True) for batch in group]
    part_loss = accumulated(loss, masks)
    values = []
    for batch, mask in zip(group, masks, strict=True):
        images = batch.images.to(device, non_blocking=True, memory_format=layout)
        features = [
            each.to(device, non_blocking=True).to(torch.float32, memory_format=layout) for each in batch.features
        ]
        with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            outputs = model.decode(features, images.shape[2:]) if features else model.outputs(images)
        value = part_loss(outputs, replace(batch, images=images, masks=mask))
        value.backward()  # type: ignore[no-untyped-call]
        values.append(value.detach().double())
    return torch.stack(values).sum()


def _buffers(model: nn.Module) -> list[torch.Tensor]:
    return [b.detach().clone() for b in model.buffers()]


def _restore(model: nn.Module, buffers: list[torch.Tensor]) -> None:
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)


def _diverged(folder: Path, ids: list[str]) -> DivergedError:
    return DivergedError(
        folder,
        expected="a finite loss",
        found=f"NaN or infinity in {_MAX_SKIPPED_IN_A_ROW} steps in a row, last on {', '.join(ids[:4])}",
        do="Check these images, or lower --set train.learning_rate; log.jsonl lists every skipped step.",
    )
