"""`pixelwise models`: what can be trained."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, print_json


def run(
    search: Annotated[str, typer.Option(help="Only names that hold this word; of all combinations, too.")] = "",
    as_json: Json = False,
) -> None:
    """List the networks: parameters, coarsest cell, whose code, and which pretrained weights there are under which licence."""
    from pixelwise import api

    found = api.models(search)
    if as_json:
        print_json({"models": [asdict(entry) for entry in found]})
        return
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        size = f"{entry.parameters / 1e6:7.1f} M" if entry.parameters else " " * 9
        stride = f"stride {entry.stride:2d}" if entry.stride else " " * 9
        words: dict[str, list[str]] = {}
        for word, terms in entry.weights:
            words.setdefault(terms, []).append(word)
        weights = (
            "; ".join(f"{', '.join(known)} ({terms})" for terms, known in words.items()) or "no pretrained weights"
        )
        sys.stdout.write(f"{entry.name:{width}} {size}  {stride}  {entry.source}, {entry.license}; {weights}\n")
    if not search:
        sys.stdout.write(
            "\nARCHITECTURE/ENCODER of segmentation_models.pytorch, unet/resnet34 say: --search resnet34 lists them."
            "\nA semantic segmentation checkpoint of transformers: its folder, or OWNER/NAME on the Hub."
            "\nAll take any number of bands, and images of any size.\n"
        )
    elif not found:
        sys.stdout.write(f"no name holds {search!r}\n")
