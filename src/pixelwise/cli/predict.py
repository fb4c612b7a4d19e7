"""`pixelwise predict MODEL SOURCE…`: masks for images."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overrides, Overwrite, Progress, percent, print_json, put


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder or a model folder.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE…", help="Images, folders, globs.")],
    out: Annotated[str, typer.Option(help="Folder for the masks.")],
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over mirrored copies: slower, a little better.")
    ] = False,
    overlays: Annotated[bool, typer.Option(help="Write the masks over the images, too.")] = True,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write every class's probability, too.")
    ] = False,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Predict masks. A bad file is named and left out, and the exit code is 3; the rest is done."""
    from pixelwise import api

    progress = Progress()
    result = api.predict(
        api.load(model, flips=flips or None),
        sources,
        out=out,
        overlays=overlays,
        probabilities=probabilities,
        overrides=overrides or (),
        overwrite=overwrite,
        progress=lambda done, total, name: progress.line(f"predicting {done} of {total}: {name}", last=done == total),
    )
    if as_json:
        print_json(result.to_dict())
    else:
        for entry in result.images[:8]:
            shares = ", ".join(f"{name} {percent(share)}" for name, share in entry["shares"].items() if share >= 0.0005)
            put(f"{entry['file']}: {shares}\n")
        if len(result.images) > 8:
            put(f"… and {len(result.images) - 8} more\n")
        put(f"\n{len(result.images)} predicted, {len(result.failed)} failed: {result.folder}\n")
    for failure in result.failed:
        progress.say(failure["error"])
    if result.failed:
        raise typer.Exit(3)
