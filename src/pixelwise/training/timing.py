"""Measurements of time that one slow moment of a busy machine does not decide: alternating rounds and medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

_FEWEST_ROUNDS, _MOST_ROUNDS, _ENOUGH_SECONDS = 3, 11, 3.0
_CLEARLY_SLOWER, _ROUNDS_TO_DROP = 1.5, 2


def alternating(works: Sequence[Callable[[], object]], device: torch.device) -> list[list[float]]:
    """Time several pieces of work in alternating rounds, after a warm-up of each.

    There are at least 3 rounds, and up to 11 as long as they take less than 3 seconds together. Work that is clearly
    slower than another one in each of the first two rounds is not timed any further.

    Args:
        works: what to time.
        device: where it runs; on CUDA, its end is waited for.

    Returns:
        Seconds per round, for each piece of work; fewer for the work that is clearly slower.
    """
    for work in works:
        work()
    seconds: list[list[float]] = [[] for _ in works]
    timed = list(range(len(works)))
    began = time.perf_counter()
    for done in range(_MOST_ROUNDS):
        if done >= _FEWEST_ROUNDS and time.perf_counter() - began >= _ENOUGH_SECONDS:
            break
        if done == _ROUNDS_TO_DROP:
            limit = _CLEARLY_SLOWER * min(max(each) for each in seconds)
            timed = [k for k in timed if min(seconds[k]) <= limit]
        for k in timed:
            seconds[k].append(_seconds(works[k], device))
    return seconds


def first_or_clearly_faster(seconds: Sequence[Sequence[float]], share: float) -> int:
    """Return the index of the work to choose: the first one, or a later one that takes at most `share` of its time.

    Args:
        seconds: from `alternating`. Times of the same round are compared, and the median of their ratios decides.
        share: of the time of the earlier choice, below 1.
    """
    rounds = max(map(len, seconds))
    chosen, *others = (k for k, each in enumerate(seconds) if len(each) == rounds)
    for k in others:
        if median_ratio(seconds[k], seconds[chosen]) <= share:
            chosen = k
    return chosen


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(seconds, others, strict=False))


def typical(seconds: Sequence[float]) -> float:
    """Return the median; of two times, the smaller one, since the other one may be an outlier."""
    return statistics.median_low(seconds)


def mean_without_slowest(seconds: Sequence[float]) -> float:
    """Return the mean of all times but the largest one."""
    return statistics.fmean(sorted(seconds)[: max(len(seconds) - 1, 1)])


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
