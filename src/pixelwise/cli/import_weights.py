"""`pixelwise import-weights FILE`: a pickled checkpoint becomes safetensors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overwrite, print_json


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .pt, .pth or .bin file.")],
    out: Annotated[str, typer.Option(help="The .safetensors file to write.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn a pickled checkpoint into safetensors. A pickle can run its author's code: only for files of people you trust."""
    from pixelwise import api

    sys.stderr.write(f"note: {file} is a pickle; only tensors are read, but trust whoever made it\n")
    count = api.import_weights(file, out, overwrite=overwrite)
    if as_json:
        print_json({"file": out, "tensors": count})
        return
    sys.stdout.write(f"{count} tensors in {out}\nnext     pixelwise train DATA --model NAME --weights {out}\n")
