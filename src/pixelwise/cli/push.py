"""`pixelwise push MODEL OWNER/NAME`: a model folder becomes a repository of the Hub."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, print_json


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder or a model folder.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made where there is none.")],
    public: Annotated[bool, typer.Option("--public", help="Let everyone see a new repository.")] = False,
    as_json: Json = False,
) -> None:
    """Copy a model to the Hugging Face Hub, with a README that tells classes, scores, licence and limits."""
    from pixelwise import api

    address = api.push(model, repository, public=public)
    if as_json:
        print_json({"address": address})
        return
    sys.stdout.write(f"{address}\nnext     pixelwise predict {repository} IMAGES --out DIR\n")
