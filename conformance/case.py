"""One case: a task, its inputs and the one right answer, and the verdict on what a library answers."""

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
class ExpectedError:
    """The right answer of a case that must raise an error; `naming` must be in its message."""

    naming: str = ""


@dataclass(frozen=True)
class Case:
    """A task with its right answer.

    Args:
        id: number of the pitfall, with a letter if it has several cases.
        title: what goes wrong.
        task: what the library must compute or do.
        capability: key in the adapters' `WAYS`.
        inputs: makes the keyword arguments of each call, given an empty folder; usually one call.
        right: the right answer: a number, text, array, or `ExpectedError`.
        reason: why it is right.
        source: paper, standard, documentation or issue.
        tolerance: largest accepted difference.
        extract: computes what is compared with `right` from the inputs and answers of all calls; default: first answer.
        may_refuse: an error is right, too.
        checks_side_effects: an error is right, too, but `extract` is compared with `right` even then, with no answers.
        control: makes valid input that must be accepted before an error counts as right: a library that cannot read any
            TIFF has not detected what is wrong with this one.
        control_is_right: whether the answer to the control is right; by default any answer is.
    """

    id: str
    title: str
    task: str
    capability: str
    inputs: Callable[[Path], tuple[Inputs, ...]]
    right: Any
    reason: str
    source: str
    tolerance: float = 0.0
    extract: Callable[[tuple[Inputs, ...], list[Any]], Any] = field(default=lambda _, answers: answers[0])
    may_refuse: bool = False
    checks_side_effects: bool = False
    control: Callable[[Path], Inputs] | None = None
    control_is_right: Callable[[Inputs, Any], bool] = field(default=lambda _, answer: True)

    @property
    def accepts_any_error(self) -> bool:
        """Whether any error is right, whatever its message: such a case needs a control."""
        expects_any = isinstance(self.right, ExpectedError) and not self.right.naming
        return self.may_refuse or self.checks_side_effects or expects_any


class Unsupported(Exception):  # noqa: N818 - not an error: no library supports everything
    """Raised by an adapter if the library has the function, but not the option that a case needs."""


@dataclass(frozen=True)
class Verdict:
    """The verdict "right", "wrong", "raises" or "absent", with the deviation or the error message."""

    kind: str
    detail: str = ""

    @property
    def text(self) -> str:
        """The cell of the table."""
        return {"wrong": f"**{self.detail}**", "raises": "raises", "absent": "–"}.get(self.kind, self.kind)


def assess(case: Case, call: Call) -> Verdict:
    """Call a library and compare its answer with the right one."""
    failure = _control_failure(case, call)
    if failure is not None:
        return failure
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls = case.inputs(folder)
        try:
            answers = [call(**inputs) for inputs in calls]
            found = case.extract(calls, answers)
        except Unsupported as error:
            return Verdict("absent", str(error))
        except Exception as error:  # libraries raise all kinds of errors
            if not case.checks_side_effects:
                return _assess_error(case, error, folder)
            found = case.extract(calls, [])
    if isinstance(case.right, ExpectedError):
        return Verdict("wrong", f"accepted, {shown(found)}")
    deviation = difference(found, case.right, case.tolerance)
    return Verdict("wrong", deviation) if deviation else Verdict("right")


def _control_failure(case: Case, call: Call) -> Verdict | None:
    """Run the control, if there is one; return a verdict if even that fails."""
    if case.control is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        inputs = case.control(Path(name))
        try:
            passed = case.control_is_right(inputs, call(**inputs))
        except Unsupported as error:
            return Verdict("absent", str(error))
        except Exception as error:
            return Verdict("raises", f"on valid input: {_message(error, Path(name))}")
    return None if passed else Verdict("wrong", "wrong answer on valid input")


def _assess_error(case: Case, error: Exception, folder: Path) -> Verdict:
    message = _message(error, folder)
    if isinstance(case.right, ExpectedError):
        named = case.right.naming in str(error)
        return Verdict("right", message) if named else Verdict("wrong", f"does not name {case.right.naming}")
    return Verdict("right" if case.may_refuse else "raises", message)


def _message(error: Exception, folder: Path) -> str:
    """Return the first line of an error, without what varies between runs."""
    lines = str(error).replace(str(folder), "…").strip().splitlines()
    text = re.sub(r"\x1b\[[0-9;]*m|0x[0-9a-f]+", "", lines[0]) if lines else ""
    return f"{type(error).__name__}: {text[:140]}" if text else type(error).__name__


def difference(found: Any, right: Any, tolerance: float) -> str:
    """Describe the deviation of an answer; empty if it is right."""
    if isinstance(right, str | bool):
        return "" if found == right else shown(found)
    answer, expected = np.asarray(found), np.asarray(right)
    if answer.shape != expected.shape:
        return f"shape {_dimensions(answer.shape)} for {_dimensions(expected.shape)}"
    if answer.dtype.kind not in "buif":
        return "" if np.array_equal(answer, expected) else shown(found)
    if not np.isfinite(answer.astype(float)).all():
        return "NaN"
    off = np.abs(answer.astype(float) - expected.astype(float))
    if not off.size or float(off.max()) <= tolerance:
        return ""
    if answer.dtype.kind in "bui" and expected.dtype.kind in "bui" and answer.ndim:
        return f"{int((off > tolerance).sum())} of {off.size} values"
    if answer.ndim == 0:
        sign = "+" if float(answer) > float(expected) else "−"
        return f"{sign}{_number(float(off))}"
    return f"by {_number(float(off.max()))}"


def shown(value: Any) -> str:
    """Describe an answer in a few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, np.ndarray) and value.size and value.min() == value.max():
        return f"{_number(float(value.min()))} everywhere in {_dimensions(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"array {_dimensions(value.shape)} from {_number(float(value.min()))} to {_number(float(value.max()))}"
    if isinstance(value, float | np.floating):
        return _number(float(value))
    text = " ".join(str(value).split())
    return text if len(text) <= 48 else f"{text[:47]}…"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _dimensions(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
