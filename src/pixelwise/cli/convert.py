"""`pixelwise convert DATA --to FORMAT --out DIR`: write a data set in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, counted, print_json, put


def run(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml, a recipe or an annotation file.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="masks, coco, coco-panoptic, voc, yolo, labelme, cvat, …")],
    out: Annotated[str, typer.Option(metavar="DIR", help="A new folder.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write a data set in another format, read it back, and report how many pixels changed."""
    from pixelwise import api

    progress = Progress()
    result = api.convert(
        data,
        to=to,
        out=out,
        overrides=overrides or (),
        progress=lambda done, total: progress.line(f"converting {(done + 1) // 2} of {total // 2}", last=done == total),
    )
    for notice in result.notices:
        progress.say(f"note: {notice}")
    if as_json:
        print_json({"data": data, "format": to, "out": out, **result.to_dict()})
        return
    put(f"{counted(result.images, 'image')} with masks written as {to}: {out}\n")
    if not result.changed_pixels:
        put("read back: no pixel changed\n")
        return
    share = 100 * result.changed_pixels / result.pixels
    put(
        f"read back: {result.changed_pixels:,} of {result.pixels:,} pixels ({share:.3g} %) in {result.changed_images}"
        f" masks changed class. {to} loses {result.loses or 'nothing, so this is a bug: please report it'}.\n"
    )
    for name, pixels in result.worst:
        put(f"    {name}: {pixels:,} pixels\n")
