"""`pixelwise check DATA`: find problems in a data set and how to fix them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, counted, print_json, put, put_error, put_rich
from pixelwise.errors import DataError

if TYPE_CHECKING:
    from pixelwise.api.checking import Checkup

_STYLES = {"error": "bold red", "warning": "bold yellow", "notice": "bold blue"}
_FILES = 3


def run(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml, a recipe or an annotation file.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Also report labels that confident predictions of this model contradict."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write an HTML page with images of the problems.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find problems in a data set. The exit code is 1 if any would prevent training or make it useless."""
    from pixelwise import api

    progress = Progress()
    try:
        result = api.check(
            data,
            model=model,
            out=out,
            overrides=overrides or (),
            progress=lambda done, total: progress.line(f"checking {done} of {total}", last=done == total),
        )
    except DataError as error:
        if model is not None or not Path(data).exists():
            raise
        put_error(f"{error}\n")
        if as_json:
            print_json({"data": data, "parts": {}, "findings": [_unopened(error)], "classes": [], "ignored_share": 0.0})
        raise typer.Exit(1) from None  # as for any other problem that would stop training
    if as_json:
        print_json(result.to_dict())
    else:
        if result.findings:
            put_rich(_table(result), width=120)
        put(_summary(result))
    if out is not None:
        progress.say(f"page: {out}")
    if result.blocks:
        raise typer.Exit(1)


def _unopened(error: DataError) -> dict[str, Any]:
    """Return the finding for a data set that cannot be opened, in the form of the others."""
    return {
        "kind": "cannot-be-opened",
        "severity": "error",
        "what": f"expected {error.expected}, found {error.found}",
        "where": [error.where],
        "count": 1,
        "of": 0,
        "why": "The data set cannot be opened.",
        "fix": error.do,
        "examples": [],
        "paired": False,
    }


def _table(result: Checkup) -> Any:
    """Return a table of the findings: severity; what, where, why and fix; count."""
    from rich.table import Table
    from rich.text import Text

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
    return table


def _summary(result: Checkup) -> str:
    if not result.findings:
        return "no problems found: ready for training\n"
    counts = {severity: sum(one.severity == severity for one in result.findings) for severity in _STYLES}
    findings = ", ".join(counted(count, severity) for severity, count in counts.items() if count)
    images = sum(result.splits.values())
    verdict = "training would fail or be useless" if result.blocks else "ready for training"
    return f"{findings} in {counted(images, 'image')}: {verdict}\n"
