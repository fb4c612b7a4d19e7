"""`pixelwise train DATA`."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from pixelwise.cli.terminal import (
    Json,
    Overrides,
    Overwrite,
    Progress,
    print_json,
    print_scores,
    put,
    training_listener,
)


def run(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml, a recipe or an annotation file.")],
    model: Annotated[str | None, typer.Option(help="Network; default: unet.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Pretrained weights: imagenet, coco, ade20k, cityscapes, a folder, a file, a Hub name."),
    ] = None,
    freeze: Annotated[str | None, typer.Option(help="Layers to freeze: encoder, none, or its first N layers.")] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept weights that exclude commercial use.")
    ] = False,
    time_limit: Annotated[str | None, typer.Option(help="Time limit: 90s, 10m, 1h30m.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of optimizer steps.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="Number of passes over the images.")] = None,
    out: Annotated[str | None, typer.Option(help="Run folder; default: runs/NAME.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed.")] = None,
    overrides: Overrides = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count files that cannot be used.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train on a data set. The same command resumes an unfinished run."""
    from pixelwise import api

    done = api.train(
        data,
        model=model,
        out=out,
        time_limit=time_limit,
        steps=steps,
        epochs=epochs,
        seed=seed,
        overrides=overrides or (),
        skip_bad=skip_bad,
        weights=weights,
        freeze=freeze,
        accept_license=accept_license,
        overwrite=overwrite,
        listener=training_listener(Progress()),
    )
    if as_json:
        print_json({"run": str(done.folder), "scores": done.scores})
        return
    print_scores(done.scores, title=f"{done.folder} · validation, {done.scores['images']} images")
    put(f"\nmodel    {done.folder / 'model'}\nconfig   {done.folder / 'config.yaml'}\n")
    if (done.folder / "report.html").is_file():
        put(f"report   {done.folder / 'report.html'}\n")
    # config.yaml of the run contains the split of the images.
    split = "" if "test" in done.splits else " --split val"
    named = f"{quote(str(done.folder))} {quote(str(done.folder / 'config.yaml'))}"
    put(f"next     pixelwise evaluate {named}{split}\n")
