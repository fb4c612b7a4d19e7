"""`pixelwise train DATA`: a run folder with the best model."""

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
    model: Annotated[str | None, typer.Option(help="The network; unet where not given.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Begin with: imagenet, coco, ade20k, cityscapes, a folder, a file, a Hub name.")
    ] = None,
    freeze: Annotated[str | None, typer.Option(help="What stands still: encoder, none, or its first N layers.")] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Take weights that allow no commercial use.")
    ] = False,
    time_limit: Annotated[str | None, typer.Option(help="How long it may take: 90s, 10m, 1h30m.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How many optimizer steps.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="How many passes over the images.")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder; runs/NAME where not given.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything drawn.")] = None,
    overrides: Overrides = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out files that cannot be used, and count them.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train on a data set; the same command goes on with an unfinished run."""
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
    # The run's own config.yaml, since it divides the images as they were divided.
    split = "" if "test" in done.splits else " --split val"
    named = f"{quote(str(done.folder))} {quote(str(done.folder / 'config.yaml'))}"
    put(f"next     pixelwise evaluate {named}{split}\n")
