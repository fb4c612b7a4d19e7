"""Print the table, and write docs/conformance.md where every installed library was asked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conformance.adapters import LIBRARIES
from conformance.cases import CASES, OURS_LACKS
from conformance.table import Results, installed, page, run, summary

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"


def main(arguments: list[str] | None = None) -> int:
    """Run the suite; give 1 where pixelwise is not right in all that it has a function for."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    names = [library.name for library in LIBRARIES]
    parser.add_argument(
        "--library",
        dest="chosen",
        action="append",
        choices=names,
        help="ask this one only; may be repeated; writes no page",
    )
    chosen = parser.parse_args(arguments).chosen
    there = installed()
    asked = [library for library in there if not chosen or library.name in chosen]
    absent = sorted(set(chosen or ()) - {library.name for library in asked})
    if absent:
        print(
            f"{', '.join(absent)}: expected to be installed, found not. Install it, or leave it out.", file=sys.stderr
        )
        return 2
    results = run(asked)
    _show(results)
    if not chosen:
        PAGE.write_text(page(results, {library.name: library.version() for library in LIBRARIES}), encoding="utf-8")
        print(PAGE)
    return _failed(results)


def _failed(results: Results) -> int:
    ours = results.get("pixelwise", {})
    return int(any(found.verdict.kind != "right" for id, found in ours.items() if id not in OURS_LACKS))


def _show(results: Results) -> None:
    console = Console()
    if console.is_terminal:
        table = Table("", "trap", *results)
        for case in CASES:
            table.add_row(
                case.id, case.title, *(found[case.id].verdict.text.replace("*", "") for found in results.values())
            )
        console.print(table)
    else:
        for case in CASES:
            for name, found in results.items():
                verdict = found[case.id].verdict
                print(f"{case.id}\t{name}\t{verdict.kind}\t{verdict.detail}")
    for name, good, bad, failed in summary(results):
        print(f"{name}: {good} right, {bad} wrong, {failed} raise, {len(CASES) - good - bad - failed} have no function")


if __name__ == "__main__":
    sys.exit(main())
