"""`pixelwise predict MODEL SOURCE…`: predict masks."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import (
    Backend,
    Json,
    Overrides,
    Overwrite,
    Precision,
    Progress,
    percent,
    print_json,
    put,
    say_engine,
)

_SHOWN = 8


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder, a model folder or an exported file.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE…", help="Images, folders or glob patterns.")],
    out: Annotated[str, typer.Option(help="Folder for the masks.")],
    flips: Annotated[
        bool, typer.Option("--flips", help="Average over mirrored copies: slower, slightly better.")
    ] = False,
    overlays: Annotated[bool, typer.Option(help="Also write the masks drawn over the images.")] = True,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of each class.")
    ] = False,
    backend: Backend = "auto",
    precision: Precision = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Predict masks. Files that cannot be read are reported and skipped, with exit code 3."""
    from pixelwise import api

    progress = Progress()
    result = api.predict(
        api.load(model, flips=flips or None, backend=backend, precision=precision),
        sources,
        out=out,
        overlays=overlays,
        probabilities=probabilities,
        overrides=overrides or (),
        overwrite=overwrite,
        progress=lambda done, total, name: progress.line(f"predicting {done} of {total}: {name}", last=done == total),
    )
    say_engine(progress, result.engine)
    if as_json:
        print_json(result.to_dict())
    else:
        for entry in result.images[:_SHOWN]:
            shares = ", ".join(f"{name} {percent(share)}" for name, share in entry["shares"].items() if share >= 0.0005)
            put(f"{entry['file']}: {shares}\n")
        if len(result.images) > _SHOWN:
            put(f"… and {len(result.images) - _SHOWN} more\n")
        put(f"\n{len(result.images)} predicted, {len(result.failed)} failed: {result.folder}\n")
    for entry in result.images:
        for notice in entry.get("notices", ()):
            progress.say(notice)
    for failure in result.failed:
        progress.say(failure["error"])
    if result.failed:
        raise typer.Exit(3)
