"""One case: what is asked, of which inputs, and the one right answer.

Comes in: plain values and numpy arrays. Goes out: a verdict on what a library answered. Knows nothing of libraries.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Inputs = Mapping[str, Any]
Call = Callable[..., Any]


@dataclass(frozen=True)
class Refusal:
    """Stand for the right answer of a case that must be refused; `naming` must be part of the message."""

    naming: str = ""


@dataclass(frozen=True)
class Case:
    """Hold one question with its right answer.

    Args:
        id: the trap's number, with a letter where it has several cases.
        title: what goes wrong.
        asks: what is asked, in a sentence.
        question: the capability that an adapter implements.
        inputs: make the keyword arguments of each call, given an empty folder; usually one call.
        right: the right answer; a number, text, array, or `Refusal`.
        because: why it is right.
        source: paper, standard, documentation or thread.
        tolerance: largest difference that is still right.
        take: what is compared with `right`, of the inputs and answers of all calls; the first answer where not given.
        may_refuse: an error is right, too.
        looks_after: an error is right, too, but undoes nothing: `take` looks at the disk after it as after an answer.
        control: what must be answered without an error before a refusal says anything: a library that reads no TIFF at
            all has not understood what is wrong with this one.
        sound: whether the answer to the control is right; any answer where not given.
    """

    id: str
    title: str
    asks: str
    question: str
    inputs: Callable[[Path], tuple[Inputs, ...]]
    right: Any
    because: str
    source: str
    tolerance: float = 0.0
    take: Callable[[tuple[Inputs, ...], list[Any]], Any] = field(default=lambda _, answers: answers[0])
    may_refuse: bool = False
    looks_after: bool = False
    control: Callable[[Path], Inputs] | None = None
    sound: Callable[[Inputs, Any], bool] = field(default=lambda _, answer: True)

    @property
    def lets_refuse(self) -> bool:
        """Say whether any error is right, whatever it names: then a control tells a refusal from a failure."""
        return self.may_refuse or self.looks_after or (isinstance(self.right, Refusal) and not self.right.naming)


class Unsupported(Exception):  # noqa: N818 - no error: a library need not have everything
    """Say that a library has the function, but not the option that a case asks for."""


@dataclass(frozen=True)
class Verdict:
    """Say what a library made of a case: "right", "wrong", "raises" or "absent"; by how much, or with which words."""

    kind: str
    detail: str = ""

    @property
    def text(self) -> str:
        """Give it as the table shows it."""
        return {"wrong": f"**{self.detail}**", "raises": "raises", "absent": "–"}.get(self.kind, self.kind)


def judge(case: Case, call: Call) -> Verdict:
    """Ask a library, and compare."""
    trouble = _controlled(case, call)
    if trouble is not None:
        return trouble
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls = case.inputs(folder)
        try:
            answers = [call(**inputs) for inputs in calls]
            found = case.take(calls, answers)
        except Unsupported as error:
            return Verdict("absent", str(error))
        except Exception as error:  # whatever a library raises is its answer
            if not case.looks_after:
                return _refused(case, error, folder)
            found = case.take(calls, [])
    if isinstance(case.right, Refusal):
        return Verdict("wrong", f"accepted, {shown(found)}")
    off = difference(found, case.right, case.tolerance)
    return Verdict("wrong", off) if off else Verdict("right")


def _controlled(case: Case, call: Call) -> Verdict | None:
    """Ask what has nothing wrong with it; give a verdict where even that fails."""
    if case.control is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        inputs = case.control(Path(name))
        try:
            sound = case.sound(inputs, call(**inputs))
        except Unsupported as error:
            return Verdict("absent", str(error))
        except Exception as error:
            return Verdict("raises", f"where nothing is wrong: {_said(error, Path(name))}")
    return None if sound else Verdict("wrong", "another answer where nothing is wrong")


def _refused(case: Case, error: Exception, folder: Path) -> Verdict:
    said = _said(error, folder)
    if isinstance(case.right, Refusal):
        named = case.right.naming in str(error)
        return Verdict("right", said) if named else Verdict("wrong", f"does not name {case.right.naming}")
    return Verdict("right" if case.may_refuse else "raises", said)


def _said(error: Exception, folder: Path) -> str:
    """Give an error's first line, without what changes from run to run."""
    lines = str(error).replace(str(folder), "…").strip().splitlines()
    text = re.sub(r"\x1b\[[0-9;]*m|0x[0-9a-f]+", "", lines[0]) if lines else ""
    return f"{type(error).__name__}: {text[:140]}" if text else type(error).__name__


def difference(found: Any, right: Any, tolerance: float) -> str:
    """Say by how much an answer is off; nothing where it is right."""
    if isinstance(right, str | bool):
        return "" if found == right else shown(found)
    mine, wanted = np.asarray(found), np.asarray(right)
    if mine.shape != wanted.shape:
        return f"shape {_plain(mine.shape)} for {_plain(wanted.shape)}"
    if mine.dtype.kind not in "buif":
        return "" if np.array_equal(mine, wanted) else shown(found)
    if not np.isfinite(mine.astype(float)).all():
        return "NaN"
    off = np.abs(mine.astype(float) - wanted.astype(float))
    if not off.size or float(off.max()) <= tolerance:
        return ""
    if mine.dtype.kind in "bui" and wanted.dtype.kind in "bui" and mine.ndim:
        return f"{int((off > tolerance).sum())} of {off.size} values"
    if mine.ndim == 0:
        sign = "+" if float(mine) > float(wanted) else "−"
        return f"{sign}{_number(float(off))}"
    return f"by {_number(float(off.max()))}"


def shown(value: Any) -> str:
    """Give an answer in few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, np.ndarray) and value.size and value.min() == value.max():
        return f"{_number(float(value.min()))} everywhere in {_plain(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"array {_plain(value.shape)} from {_number(float(value.min()))} to {_number(float(value.max()))}"
    if isinstance(value, float | np.floating):
        return _number(float(value))
    text = " ".join(str(value).split())
    return text if len(text) <= 48 else f"{text[:47]}…"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _plain(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
