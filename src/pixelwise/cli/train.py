"""`pixelwise train DATA`: train a model."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from pixelwise.cli.terminal import (
    Json,
    Overrides,
    Overwrite,
    Progress,
    counted,
    print_json,
    print_scores,
    put,
    training_listener,
)


def run(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml, a recipe or an annotation file.")],
    model: Annotated[
        str | None, typer.Option(help="The network; by default one with a pretrained encoder (fpn).")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: imagenet, coco, ade20k, cityscapes, a folder, a file or a Hub name; none: random."
        ),
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Layers to freeze: encoder, none, or the number of first layers.")
    ] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept weights with a non-commercial licence.")
    ] = False,
    time_limit: Annotated[str | None, typer.Option(help="Training time: 90s, 10m, 1h30m.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of optimizer steps.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="Number of passes over the images.")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder; runs/NAME by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The random seed.")] = None,
    overrides: Overrides = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip files that cannot be used, and report their number.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train on a data set. The same command resumes an unfinished run."""
    from pixelwise import api

    result = api.train(
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
    folder = result.folder
    if as_json:
        print_json({"run": str(folder), "scores": result.scores})
        return
    print_scores(result.scores, title=f"{folder} · validation, {counted(result.scores['images'], 'image')}")
    put(f"\nmodel    {folder / 'model'}\nconfig   {folder / 'config.yaml'}\n")
    if (folder / "report.html").is_file():
        put(f"report   {folder / 'report.html'}\n")
    # The config.yaml of the run, because it describes the same splits.
    split = "" if "test" in result.splits else " --split val"
    put(f"next     pixelwise evaluate {quote(str(folder))} {quote(str(folder / 'config.yaml'))}{split}\n")
