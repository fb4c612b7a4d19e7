"""`pixelwise check DATA`: what is wrong with the data, and the fix."""

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
        typer.Option(metavar="MODEL", help="Also rank the labels that this model, where it is sure, doubts."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write it as an HTML page, too, with images of the offenders.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with a data set. Leaves with 1 where something would block training."""
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
        put(_verdict(result))
    if out is not None:
        progress.say(f"page: {out}")
    if result.blocks:
        raise typer.Exit(1)


def _table(result: Checkup) -> str:
    """Lay the findings out: severity, what and where and why and the fix, how often."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pixelwise.checking.findings import more

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(no_wrap=True, justify="right")
    for one in result.findings:
        files, rest = list(one.where[:_FILES]), more(one.where, one.count, _FILES)
        files += [f"and {rest} more"] if rest else []
        said: list[Any] = [(one.what, "bold"), "\n"]
        said += [(", ".join(files), "dim"), "\n"] if files else []
        said += [one.why, ("\n→ " + one.fix, "green") if one.fix else ""]
        often = f"{one.count} of {one.of}" if one.of else str(one.count) if one.count > 1 else ""
        table.add_row(Text(one.severity, _STYLES[one.severity]), Text.assemble(*said), Text(often, "dim"))
    with console.capture() as written:
        console.print(table)
    lines = (line.rstrip() for line in written.get().splitlines())
    return "".join(f"{line}\n" for line in lines) if result.findings else ""


def _verdict(result: Checkup) -> str:
    if not result.findings:
        return "nothing found: the data can be trained on\n"
    counts = {kind: sum(one.severity == kind for one in result.findings) for kind in _STYLES}
    said = ", ".join(f"{many} {kind}{'s' * (many != 1)}" for kind, many in counts.items() if many)
    images = sum(result.splits.values())
    ending = "training would stop, or be worthless" if result.blocks else "the data can be trained on"
    return f"{said} in {images} image{'s' * (images != 1)}: {ending}\n"
