"""The interface between losses and the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pixelwise.batch import Batch, Outputs

Loss = Callable[[Outputs, Batch], Tensor]
"""Maps what a model computed for a batch to a scalar. Ignored pixels are excluded; a batch of ignored pixels alone gives 0."""


@runtime_checkable
class NormalisedLoss(Protocol):
    """A loss that can be computed in parts: its divisors depend on the masks alone and can be summed over the parts."""

    def normaliser(self, masks: Tensor) -> Tensor:
        """Return what masks (B, *S) add to the divisors."""
        ...

    def __call__(self, outputs: Outputs, batch: Batch, normaliser: Tensor | None = None) -> Tensor:
        """Return the share of this batch in the loss of a step whose normalisers sum to `normaliser`."""
        ...


def accumulated(loss: Loss, masks: Sequence[Tensor]) -> Loss:
    """Return a loss whose values add up over the micro-batches of one step.

    Args:
        loss: the loss of a whole batch. A `NormalisedLoss` gets the sum of its normalisers; any other is divided by the
            number of micro-batches.
        masks: the masks of each micro-batch, (B, *S) each.
    """
    if len(masks) == 1:
        return loss
    if isinstance(loss, NormalisedLoss):
        return partial(loss, normaliser=torch.stack([loss.normaliser(part) for part in masks]).sum(0))

    def mean_of_parts(outputs: Outputs, batch: Batch) -> Tensor:
        return loss(outputs, batch) / len(masks)

    return mean_of_parts
