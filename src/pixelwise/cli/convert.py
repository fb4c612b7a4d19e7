"""`pixelwise convert DATA --to FORMAT --out DIR`: the same masks in another format."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, print_json, put


def run(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml, a recipe or an annotation file.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="masks, coco, coco-panoptic, voc, yolo, labelme, cvat, …")],
    out: Annotated[str, typer.Option(metavar="DIR", help="A new folder.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write a data set in another format, read it back, and say how many pixels came back otherwise."""
    from pixelwise import api

    progress = Progress()
    done = api.convert(
        data,
        to=to,
        out=out,
        overrides=overrides or (),
        progress=lambda done, total: progress.line(f"converting {done // 2} of {total // 2}", last=done == total),
    )
    for notice in done.notices:
        progress.say(f"note: {notice}")
    if as_json:
        print_json({"data": data, "format": to, "out": out, **done.to_dict()})
        return
    put(f"{done.images} image{'s' * (done.images != 1)} and masks written as {to}: {out}\n")
    if not done.changed_pixels:
        put("read back: every pixel as it was\n")
        return
    share = 100 * done.changed_pixels / done.pixels
    put(
        f"read back: {done.changed_pixels:,} of {done.pixels:,} pixels ({share:.3g} %) in {done.changed_images} masks"
        f" are another class. {to} loses {done.loses or 'nothing, so this is a fault of pixelwise: please report it'}.\n"
    )
    for name, pixels in done.worst:
        put(f"    {name}: {pixels:,} pixels\n")
