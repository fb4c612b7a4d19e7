"""`pixelwise check DATA`: find problems in a data set and how to fix them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, print_json, put

if TYPE_CHECKING:
    from pixelwise.api.checking import Checkup

_STYLES = {"error": "bold red", "warning": "bold yellow", "notice": "bold blue"}
_FILES = 3


def run(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml, a recipe or an annotation file.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Also rank labels that confident predictions of this model contradict."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write an HTML page with images of the problems.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find problems in a data set. Exits with 1 if any would block training."""
    from pixelwise import api

    progress = Progress()
    result = api.check(
        data,
        model=model,
        out=out,
        overrides=overrides or (),
        progress=lambda done, total: progress.line(f"checking {done} of {total}", last=done == total),
    )
    if as_json:
        print_json(result.to_dict())
    else:
        put(_table(result))
        put(_summary(result))
    if out is not None:
        progress.say(f"page: {out}")
    if result.blocks:
        raise typer.Exit(1)


def _table(result: Checkup) -> str:
    """Format the findings as a table: severity; what, where, why and fix; count."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not result.findings:
        return ""
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(no_wrap=True, justify="right")
    for finding in result.findings:
        files, rest = list(finding.where[:_FILES]), finding.unlisted(_FILES)
        files += [f"and {rest} more"] if rest else []
        lines: list[Any] = [(finding.what, "bold"), "\n"]
        lines += [(", ".join(files), "dim"), "\n"] if files else []
        lines += [finding.why, ("\n→ " + finding.fix, "green") if finding.fix else ""]
        count = f"{finding.count} of {finding.of}" if finding.of else str(finding.count) if finding.count > 1 else ""
        table.add_row(Text(finding.severity, _STYLES[finding.severity]), Text.assemble(*lines), Text(count, "dim"))
    with console.capture() as written:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in written.get().splitlines())


def _summary(result: Checkup) -> str:
    if not result.findings:
        return "no problems found: ready for training\n"
    counts = {severity: sum(one.severity == severity for one in result.findings) for severity in _STYLES}
    findings = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items() if count)
    images = sum(result.splits.values())
    verdict = "training would fail or be worthless" if result.blocks else "ready for training"
    return f"{findings} in {images} image{'s' * (images != 1)}: {verdict}\n"
