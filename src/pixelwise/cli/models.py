"""`pixelwise models`: list the available networks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, print_json, put


def run(
    search: Annotated[str, typer.Option(help="List only names that contain this text, among all combinations.")] = "",
    as_json: Json = False,
) -> None:
    """List the networks with their parameters, output stride, source, licence and pretrained weights."""
    from pixelwise import api

    found = api.models(search)
    if as_json:
        print_json({"models": [asdict(entry) for entry in found]})
        return
    width = max((len(entry.name) for entry in found), default=0)
    for entry in found:
        size = f"{entry.parameters / 1e6:7.1f} M" if entry.parameters else " " * 9
        stride = f"stride {entry.stride:2d}" if entry.stride else " " * 9
        by_licence: dict[str, list[str]] = {}
        for weights, licence in entry.weights:
            by_licence.setdefault(licence, []).append(weights)
        pretrained = "; ".join(f"{', '.join(names)} ({licence})" for licence, names in by_licence.items())
        put(
            f"{entry.name:{width}} {size}  {stride}  {entry.source}, {entry.license}; "
            f"{pretrained or 'no pretrained weights'}{f'; no export: {entry.no_export}' if entry.no_export else ''}\n"
        )
    if not search:
        put(
            "\nARCHITECTURE/ENCODER of segmentation_models.pytorch, such as unet/resnet34: --search resnet34 lists them."
            "\nSemantic segmentation checkpoints of transformers: a folder, or OWNER/NAME on the Hub."
            "\nAll models accept any number of bands and images of any size.\n"
        )
    elif not found:
        put(f"no name contains {search!r}\n")
