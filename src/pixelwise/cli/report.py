"""`pixelwise report RUN`: the page that shows how good a run's model is."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, print_json, put


def run(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="A finished run.")],
    out: Annotated[str | None, typer.Option(help="The HTML file; report.html in the run where not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's report.html anew; `evaluate --out` writes one for other images."""
    from pixelwise import api

    path = api.report(folder, out=out)
    print_json({"report": str(path)}) if as_json else put(f"{path}\n")
