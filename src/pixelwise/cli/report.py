"""`pixelwise report RUN`: write the report of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, print_json, put


def run(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="A finished run.")],
    out: Annotated[str | None, typer.Option(help="The HTML file; report.html in the run folder by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run again. For other images, use `evaluate --out`."""
    from pixelwise import api

    path = api.report(folder, out=out)
    print_json({"report": str(path)}) if as_json else put(f"{path}\n")
