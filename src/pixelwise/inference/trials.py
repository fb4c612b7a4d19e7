"""Compare engines on a few images: are the masks those of the reference, and how long does a pass take?

Nothing is opened or stored here. This module must not import an engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError

# Parity: a faster engine may differ from the reference in at most this many pixels, and in these masks.
EQUAL, IOU = 0.999, 0.995
# Smaller gains are not worth another engine.
_LEAST_GAIN = 1.1
# An engine that needs this many times as long as the fastest one is not measured further.
_HOPELESS = 1.5
_ROUNDS, _FEWEST_ROUNDS = 5, 2
# Of passes, without opening engines and without those of the reference.
_SECONDS = 4.0
# Before an engine is measured: the threads of other engines keep a core busy for a while after their last pass.
_PAUSE = 0.1
# Shorter passes are preceded by one that is not measured, since the first one after a pause is slower.
_SHORT = 0.2

Mask = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Engine:
    """The name of an engine in `BACKENDS`, and its precision."""

    name: str
    precision: str = "fp32"

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


@dataclass(frozen=True)
class Trial:
    """What was found out about an engine.

    Args:
        engine: the engine.
        seconds: median time of a pass; None if it was not measured.
        equal: share of pixels with the class of the reference, 0…1; None if it was not compared.
        iou: mean IoU of the two masks, 0…1.
        problem: why the engine cannot be used, or was not measured; "" otherwise.
    """

    engine: Engine
    seconds: float | None = None
    equal: float | None = None
    iou: float | None = None
    problem: str = ""


def parity(found: Sequence[Mask], expected: Sequence[Mask], ignore_index: int) -> tuple[float, float]:
    """Compare masks with those of the reference.

    Args:
        found: masks (*S).
        expected: the masks of the reference, equal in number and shapes.
        ignore_index: value of pixels without data in `expected`, which are not compared.

    Returns:
        The share of equal pixels; and the mean over classes present in either of the IoU of the two masks, over all images.
    """
    ours, theirs = (np.concatenate([mask.ravel() for mask in masks]).astype(np.int64) for masks in (found, expected))
    counted = theirs != ignore_index
    ours, theirs = ours[counted], theirs[counted]
    if not theirs.size:
        return 0.0, 0.0
    size = int(max(ours.max(), theirs.max())) + 1
    both = np.bincount(theirs[ours == theirs], minlength=size)
    either = np.bincount(ours, minlength=size) + np.bincount(theirs, minlength=size) - both
    present = either > 0
    return float(both.sum() / theirs.size), float((both[present] / either[present]).mean())


@dataclass
class Trials(Generic[T]):
    """Compare engines with the reference on examples, and measure those whose masks have parity.

    That takes a few seconds: an engine is dropped when it is clearly slower than another one, and when the time is used up and
    another engine is known, further ones are not opened.

    Args:
        reference: the engine whose masks are right.
        predict: computes the mask of an example with it.
        seconds: measured times of its passes over the first example; at least one.
        examples: at least one; the first is used for measuring.
        expected: the masks of the reference for them.
        open_engine: opens an engine, and returns a function from an example to its mask.
        ignore_index: see `parity`.
        clock: returns the time in seconds.
        sleep: waits for some seconds.
    """

    reference: Engine
    predict: Callable[[T], Mask]
    seconds: Sequence[float]
    examples: Sequence[T]
    expected: Sequence[Mask]
    open_engine: Callable[[Engine], Callable[[T], Mask]]
    ignore_index: int
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    _spent: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._found = {self.reference: Trial(self.reference, equal=1.0, iou=1.0)}
        self._times = {self.reference: list(self.seconds)}
        self._running = {self.reference: self.predict}

    def run(self, candidates: Iterable[Engine]) -> tuple[Trial, ...]:
        """Return the trial of the reference, followed by those of the candidates.

        Args:
            candidates: other engines, those expected to be the fastest first.
        """
        not_converted = ""
        for engine in candidates:
            problem = self._reason_to_stop() or (not_converted if engine.name != self.reference.name else "")
            if problem:
                self._found[engine] = Trial(engine, problem=problem)
                continue
            try:
                self._add(engine, self.open_engine(engine))
            except Exception as error:  # those of engines are of any kind
                problem = " ".join(str(error).split())[:200] or type(error).__name__
                self._times.pop(engine, None)
                self._found[engine] = Trial(engine, problem=problem)
                if isinstance(error, ConfigError) and error.where == "export":
                    not_converted = problem
            self._drop_slow()
        self._alternate()
        times = {engine: median(seconds) for engine, seconds in self._times.items()}
        return tuple(replace(trial, seconds=times.get(engine)) for engine, trial in self._found.items())

    def _reason_to_stop(self) -> str:
        if self._spent <= _SECONDS or not self._running.keys() - {self.reference}:
            return ""
        return "not measured, since a faster one had been found"

    def _add(self, engine: Engine, predict: Callable[[T], Mask]) -> None:
        """Compare the masks of an engine, and measure it if they have parity."""
        started = self.clock()
        masks = [predict(example) for example in self.examples]  # the first pass is the slowest
        equal, iou = parity(masks, self.expected, self.ignore_index)
        self._found[engine] = Trial(engine, equal=equal, iou=iou)
        if equal < EQUAL or iou < IOU:
            self._found[engine] = Trial(engine, equal=equal, iou=iou, problem="other masks")
        else:
            self._times[engine] = [self._seconds(predict)]
            self._running[engine] = predict
            if self._is_slow(engine):
                self._times[engine].append(self._seconds(predict))
        self._spent += self.clock() - started

    def _alternate(self) -> None:
        """Measure the reference and the engines of similar speed in alternating rounds."""
        for done in range(_ROUNDS if len(self._running) > 1 else 0):
            if self._spent > _SECONDS and done >= _FEWEST_ROUNDS:
                return
            started = self.clock()
            for engine, predict in self._running.items():
                self._times[engine].append(self._seconds(predict))
            self._spent += self.clock() - started

    def _seconds(self, predict: Callable[[T], Mask]) -> float:
        self.sleep(_PAUSE)
        if min(self.seconds) < _SHORT:
            predict(self.examples[0])
        started = self.clock()
        predict(self.examples[0])
        return self.clock() - started

    def _drop_slow(self) -> None:
        for engine in [*self._running]:
            if engine != self.reference and (engine not in self._times or self._is_slow(engine)):
                del self._running[engine]

    def _is_slow(self, engine: Engine) -> bool:
        """Whether an engine needs much longer than another one; the least time of each is the one with the least noise."""
        return min(self._times[engine]) > _HOPELESS * min(map(min, self._times.values()))


def fastest(trials: Iterable[Trial], allowed: Iterable[Engine], default: Engine) -> Engine:
    """Return the fastest of the allowed engines with parity, or the default if that is nearly as fast or none has parity."""
    times = {trial.engine: trial.seconds for trial in trials if trial.seconds is not None}
    best = min((engine for engine in allowed if engine in times), key=times.__getitem__, default=default)
    return default if default in times and times[default] < _LEAST_GAIN * times[best] else best
