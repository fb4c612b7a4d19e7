"""What is known of a difference between two models, and how it is said.

Comes in: differences with intervals and verdicts. Goes out: `Pair`, and sentences. Knows nothing of how they were found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pixelwise.metrics.intervals import LEVEL


@dataclass(frozen=True)
class Difference:
    """Hold how far a score of B lies above that of A.

    Args:
        name: of the score, or of the class whose IoU it is.
        a: the score of A; None where undefined.
        b: the score of B.
        difference: B less A.
        low: of the 95 % interval; None where there is nothing to draw from.
        high: the same.
        n: images on which it rests; for a class those in which the truth, A or B has it.
        p: two-sided, from the draws; never below the chance that as many coins fall alike, nor below that by which equal
            recipes of as many runs would lie as far apart (see `comparison`).
        shown: the interval excludes 0; of a class also after adjustment for the number of classes.
        p_adjusted: of a class: Holm 1979.
        shown_alone: of a class: as if it had been the only one.
    """

    name: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None
    shown: bool
    p_adjusted: float | None = None
    shown_alone: bool | None = None

    @property
    def margin(self) -> float:
        """Give half the width of the interval; 0 without one."""
        return 0.0 if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Pair:
    """Hold how B compares with A: `means` by the names of `MEANS`, the IoU of each class, and both in words."""

    a: str
    b: str
    means: dict[str, Difference]
    classes: tuple[Difference, ...]
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form."""
        means = {name: _mean_row(entry) for name, entry in self.means.items()}
        rows = [asdict(entry) for entry in self.classes]
        return {"a": self.a, "b": self.b, **means, "classes": rows, "sentences": list(self.sentences)}


@dataclass(frozen=True)
class Grounds:
    """Hold on what a pair rests.

    Args:
        units: over what was drawn, in words.
        runs: of A and of B.
        same: all counts are the same.
        few: so few units differ that by chance all could favour the same.
        by_seeds: the p of the mIoU that the runs allow; None for one run each.
    """

    units: str
    runs: tuple[int, int]
    same: bool
    few: bool
    by_seeds: float | None


def fall_apart(a: int, b: int) -> float:
    """Give the chance that all of `a` runs lie above or all below all of `b`, if their recipes are equally good."""
    return 2 / math.comb(a + b, a)


def sentences(pair: Pair, grounds: Grounds) -> tuple[str, ...]:
    """Say what the numbers say."""
    a, b, miou, units = pair.a, pair.b, pair.means["miou"], grounds.units
    if grounds.same:
        return (f"{b} and {a} have the same counts in every image: there is no difference ({units}).",)
    if miou.shown:
        word, more = _direction(miou)
        said = [f"{b} is {word} than {a}: its mIoU is {_points(miou)} {more} ({units})."]
    else:
        measured = (
            ""
            if miou.low is None or miou.difference is None
            else f" ({miou.difference * 100:+.1f} points, {_range(miou)})"
        )
        said = [f"No difference in mIoU between {b} and {a} can be shown with {units}{measured}."]
        said += _held_back(miou, grounds)
    defined = [entry for entry in pair.classes if entry.difference is not None]
    for entry in sorted((e for e in defined if e.shown), key=lambda e: -(e.difference or 0.0)):
        images = counted_of(entry.n, "image")
        said.append(f"{b} is {_direction(entry)[0]} than {a} on {entry.name} by {_points(entry)} ({images}).")
    if open_ := [entry.name for entry in defined if not entry.shown]:
        said.append(f"On {listed(open_, 6)} no difference can be shown with {units}.")
    if alone := [entry.name for entry in defined if entry.shown_alone and not entry.shown]:
        said.append(
            f"Taken alone, {listed(alone, 6)} would count as shown; among {len(defined)} classes this may be chance."
        )
    if 1 in grounds.runs:
        single = "One run each" if grounds.runs == (1, 1) else f"One run of {a if grounds.runs[0] == 1 else b}"
        said.append(f"{single}: what another seed would give is not in this interval.")
    return tuple(said)


def _held_back(miou: Difference, grounds: Grounds) -> list[str]:
    """Say what but the interval keeps a difference from being shown."""
    apart = miou.low is not None and miou.high is not None and miou.low * miou.high > 0
    if grounds.by_seeds is not None and (chance := fall_apart(*grounds.runs)) > 1 - LEVEL:
        return [
            f"{grounds.runs[0]} and {grounds.runs[1]} runs can show none: those of equal recipes fall wholly apart in "
            f"{100 * chance:.0f} % of comparisons."
        ]
    if apart and grounds.few:
        return ["Too few of them differ: by chance they could all fall the same way."]
    if apart and grounds.by_seeds is not None and grounds.by_seeds > 1 - LEVEL:
        return [f"Divided at random the same runs lie as far apart in {100 * grounds.by_seeds:.0f} % of cases."]
    return []


def _direction(entry: Difference) -> tuple[str, str]:
    return ("better", "higher") if (entry.difference or 0.0) > 0 else ("worse", "lower")


def _points(entry: Difference) -> str:
    digits = 1 if entry.margin >= 0.001 else 2
    return f"{abs(entry.difference or 0.0) * 100:.{digits}f} ± {entry.margin * 100:.{digits}f} points"


def _range(entry: Difference) -> str:
    assert entry.low is not None
    assert entry.high is not None
    return f"95 % interval {entry.low * 100:+.1f} to {entry.high * 100:+.1f}"


def counted_of(n: int, noun: str) -> str:
    """Write a number of things: 1 image, 2 images."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str], most: int) -> str:
    """Write names for people: x, y, z and 4 more."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _mean_row(entry: Difference) -> dict[str, Any]:
    return {k: v for k, v in asdict(entry).items() if k not in ("name", "p_adjusted", "shown_alone")}
