"""Run the conformance suite and print the results; without --library, also write docs/conformance.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conformance.adapters import LIBRARIES
from conformance.cases import CASES, UNSUPPORTED
from conformance.table import Results, installed, page, run, summary

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"


def main(arguments: list[str] | None = None) -> int:
    """Run the suite; return 1 if pixelwise fails a case that it supports, 2 if a requested library is not installed."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    names = [library.name for library in LIBRARIES]
    parser.add_argument(
        "--library",
        dest="chosen",
        action="append",
        choices=names,
        help="run only this library (repeatable); the page is not written",
    )
    chosen = parser.parse_args(arguments).chosen
    libraries = [library for library in installed() if not chosen or library.name in chosen]
    missing = sorted(set(chosen or ()) - {library.name for library in libraries})
    if missing:
        print(f"--library: expected installed libraries, found none for {', '.join(missing)}.", file=sys.stderr)
        return 2
    results = run(libraries)
    _show(results)
    if not chosen:
        PAGE.write_text(page(results, {library.name: library.version() for library in LIBRARIES}), encoding="utf-8")
        print(PAGE)
    ours = results.get("pixelwise", {})
    return int(any(found.verdict.kind != "right" for id, found in ours.items() if id not in UNSUPPORTED))


def _show(results: Results) -> None:
    console = Console()
    if console.is_terminal:
        table = Table("", "pitfall", *results)
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
        print(f"{name}: {good} right, {bad} wrong, {failed} raised, {len(CASES) - good - bad - failed} not supported")


if __name__ == "__main__":
    sys.exit(main())
