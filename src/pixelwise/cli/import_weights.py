"""`pixelwise import-weights FILE`: convert a pickled checkpoint to safetensors."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overwrite, print_json, put, put_error


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .pt, .pth or .bin file.")],
    out: Annotated[str, typer.Option(help="The .safetensors file to write.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a pickled checkpoint to safetensors. Pickles can execute code: only use files from trusted sources."""
    from pixelwise import api

    put_error(f"note: {file} is a pickle: only tensors are read, but only use files from trusted sources\n")
    count = api.import_weights(file, out, overwrite=overwrite)
    if as_json:
        print_json({"file": out, "tensors": count})
        return
    put(f"{count} tensors in {out}\nnext     pixelwise train DATA --model NAME --weights {out}\n")
