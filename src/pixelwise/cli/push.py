"""`pixelwise push MODEL OWNER/NAME`: upload a model to the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, print_json, put


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder or a model folder.")],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The repository; created if it does not exist.")
    ],
    public: Annotated[bool, typer.Option("--public", help="Create new repositories as public.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a model to the Hugging Face Hub, with a model card: classes, scores, licence and limitations."""
    from pixelwise import api

    address = api.push(model, repository, public=public)
    if as_json:
        print_json({"address": address})
        return
    put(f"{address}\nnext     pixelwise predict {repository} IMAGES --out DIR\n")
