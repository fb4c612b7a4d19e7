"""`pixelwise export MODEL --format FORMAT --out OUT`: write a model as a file for other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overrides, Overwrite, Progress, percent, print_json, put


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder or a model folder.")],
    format: Annotated[str, typer.Option(metavar="FORMAT", help="onnx, openvino or torch-export.")],
    out: Annotated[str, typer.Option(help="A new folder, or only the file: .onnx, .xml or .pt2.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 (openvino) or int8 (onnx, openvino).")] = "fp32",
    with_mask: Annotated[bool, typer.Option("--with-mask", help="The file also returns the mask.")] = False,
    data: Annotated[
        str | None,
        typer.Option(help="Images for the comparison, and for int8; by default those of the run."),
    ] = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a model as a file for other programs. If its masks differ from those of the model, nothing is written (exit code 1)."""
    from pixelwise import api

    progress = Progress()
    result = api.export(
        model,
        format=format,
        out=out,
        precision=precision,
        with_mask=with_mask,
        data=data,
        overrides=overrides or (),
        overwrite=overwrite,
        progress=lambda what, done, total: progress.line(f"{what}: {done} of {total}" if done else what, done == total),
    )
    for notice in result.notices:
        progress.say(f"note: {notice}")
    if as_json:
        print_json(result.to_dict())
        return
    put(f"{', '.join(result.files)}: {result.bytes / 2**20:.1f} MB, compared with torch on {result.parity['images']}\n")
    for engine in result.parity["engines"]:
        put(
            f"{engine['engine']:12} {engine['precision']:13} equal pixels {100 * (1 - engine['different_pixels']):.4f} %  "
            f"mIoU {percent(engine['miou'])} (torch {percent(engine['reference_miou'])})  "
            f"speed {engine['speed_ratio']:.2f} × torch{'' if engine['required'] else '  (for information)'}\n"
        )
    if format != "torch-export":
        put(f"next     pixelwise predict {out} IMAGES --out DIR\n")
