"""Ask every library every case, and lay the answers out.

Comes in: cases, libraries. Goes out: results, and the page docs/conformance.md. Knows nothing of how a question is
answered.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from conformance.adapters import LIBRARIES, Library, Ways
from conformance.case import Case, Refusal, Verdict, judge, shown
from conformance.cases import CASES, CHAPTERS, NOT_ASKED, OURS_LACKS


@dataclass(frozen=True)
class Result:
    """Hold what a library made of a case: each way with its verdict, the one that counts first; none: no function."""

    case: Case
    ways: tuple[tuple[str, Verdict], ...]

    @property
    def verdict(self) -> Verdict:
        """Give the verdict of the way that counts."""
        return self.ways[0][1] if self.ways else Verdict("absent")


Results = dict[str, dict[str, Result]]


def run(libraries: Sequence[Library], cases: Iterable[Case] = CASES) -> Results:
    """Ask, one library after the other: library → case → result."""
    cases = tuple(cases)
    return {library.name: dict(_answers(library.ways(), cases)) for library in libraries}


def _answers(ways: Ways, cases: Sequence[Case]) -> Iterator[tuple[str, Result]]:
    verdicts: dict[str, list[tuple[str, Verdict]]] = {}
    for case in cases:
        with _quiet():
            verdicts[case.id] = [(way.name, judge(case, way.call)) for way in ways.get(case.question, ())]
    for case in cases:
        alike = [verdicts[other.id] for other in cases if other.question == case.question]
        yield case.id, Result(case, tuple(verdicts[case.id][k] for k in _by_merit(alike)))


def _by_merit(answers: Sequence[Sequence[tuple[str, Verdict]]]) -> list[int]:
    """Order the ways to answer a question, the one that is right most often first; of equals, the one named first.

    One way counts for all cases of a question: a user chooses a function once, before knowing which trap will come.
    """
    right = [sum(verdict.kind == "right" for _, verdict in way) for way in zip(*answers, strict=True)]
    return sorted(range(len(right)), key=lambda k: -right[k])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings and logs of libraries out of the table."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def installed() -> list[Library]:
    """List the libraries that can be asked here."""
    return [library for library in LIBRARIES if library.version() is not None]


def summary(results: Results) -> list[tuple[str, int, int, int]]:
    """Count per library: right, wrong, raised an error."""
    kinds = {name: [r.verdict.kind for r in found.values()] for name, found in results.items()}
    return [(name, k.count("right"), k.count("wrong"), k.count("raises")) for name, k in kinds.items()]


def page(results: Results, versions: dict[str, str | None]) -> str:
    """Write docs/conformance.md."""
    asked = len(CASES)
    lines = [
        "# What a segmentation library should get right",
        "",
        "Every case is a trap that released software fell into. It has one right answer, known by hand or by "
        "definition, and every",
        "library is asked through its own functions, in the way its documentation tells. Where a library has "
        "several ways to answer a",
        "question, the one that is right most often counts for all cases of that question; the others are listed "
        "behind it, below the",
        "tables. Where conventions differ honestly (absent classes, means per image, the divisor of a loss), "
        "right is what the source",
        "of the case says. Where any error is right, the same is asked first where nothing is wrong, so that a function "
        "that fails at",
        "everything has refused nothing. This page is written by `make conformance`; do not edit it.",
        "",
        "**right**, or by how much it is wrong: `+0.12` and `−0.12` against the right number, `by 0.3` for the "
        "largest difference in an",
        "array, or what was answered. *raises*: an error instead of an answer. –: no such function or option. A "
        "library that was made for",
        "one part is not asked for the others, so the numbers of right answers compare how much ground is "
        "covered, and no more.",
        "",
        "| library | right | wrong | raises | has a function for | version |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {name} | {good} | {bad} | {failed} | {good + bad + failed} of {asked} | {versions[name]} |"
        for name, good, bad, failed in summary(results)
    ]
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        lines += [
            "",
            f"Not installed where this page was written, so not asked: {', '.join(missing)}. Their adapters are "
            f"there, written from"
            " their documentation and not run yet.",
        ]
    for chapter, cases in CHAPTERS.items():
        lines += ["", f"## {chapter}", "", *_table(cases, results)]
    lines += ["", "## What pixelwise has no function for", "", *(f"- **{id}** {why}" for id, why in OURS_LACKS.items())]
    lines += ["", "## Not asked yet", "", *(f"- **{name}** {why}" for name, why in NOT_ASKED.items())]
    lines += ["", "## What was asked, and how", ""]
    for case in CASES:
        lines += _notes(case, results)
    return "\n".join(lines).rstrip() + "\n"


def _table(cases: Sequence[Case], results: Results) -> Iterator[str]:
    yield f"| | trap | {' | '.join(results)} |"
    yield f"|---|---|{'---|' * len(results)}"
    for case in cases:
        cells = " | ".join(found[case.id].verdict.text for found in results.values())
        yield f"| {case.id} | {case.title} | {cells} |"


def _notes(case: Case, results: Results) -> Iterator[str]:
    yield f"**{case.id} {case.title}.** {case.asks} Right: {expected(case)}. {case.because} *Source: {case.source}.*"
    yield ""
    for name, found in results.items():
        ways = found[case.id].ways
        told = [f"`{way}` {_words(v) if k == 0 or v != ways[0][1] else v.kind}" for k, (way, v) in enumerate(ways)]
        if told:
            yield f"- {name}: {'; '.join(told)}"
    yield ""


def _words(verdict: Verdict) -> str:
    if verdict.kind == "absent":
        return f"has no such option ({verdict.detail})"
    return f"{verdict.kind} ({verdict.detail})" if verdict.detail and verdict.kind != "right" else verdict.kind


def expected(case: Case) -> str:
    """Say the right answer in words."""
    if isinstance(case.right, Refusal):
        return f"an error that names {case.right.naming}" if case.right.naming else "an error"
    within = f" ± {case.tolerance:g}" if case.tolerance > 1e-3 else ""
    value = case.right
    if getattr(value, "ndim", 0) and value.size <= 8:
        return f"{value.tolist()}{within}"
    return f"{shown(value)}{within}"
