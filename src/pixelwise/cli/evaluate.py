"""`pixelwise evaluate MODEL|MASKS DATA`: scores with intervals."""

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
    counted,
    print_json,
    print_peer,
    print_scores,
    put,
    say_engine,
)


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|MASKS",
            help="A run folder, a model folder, an exported file, or a folder of masks from any tool, named as the images.",
        ),
    ],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml, a recipe or an annotation file.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics in addition to overlap: boundary, surface, calibration, diagnosis (separated by commas), all or none."
        ),
    ] = None,
    convention: Annotated[
        str | None,
        typer.Option(
            help="Also report scores by another convention: smp, torchmetrics, mmseg, ultralytics, monai, sceneparsing or "
            "void-as-error."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for scores.json and report.html.")] = None,
    backend: Backend = "auto",
    precision: Precision = None,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Score a model, or masks written by any tool, on images with masks, at native size."""
    from pixelwise import api

    progress = Progress()
    result = api.evaluate(
        model,
        data,
        split=split,
        metrics=None if metrics is None else _families(metrics),
        convention=convention,
        out=out,
        overwrite=overwrite,
        overrides=overrides or (),
        backend=backend,
        precision=precision,
        progress=lambda done, total: progress.line(f"scoring {done} of {total}", last=done == total),
    )
    say_engine(progress, result.engine)
    for notice in result.notices:
        progress.say(f"note: {notice}")
    plain = {"model": model, "data": data, "split": split, **result.to_dict()}
    if as_json:
        print_json(plain)
    else:
        print_scores(plain, title=f"{model} · {split}, {counted(plain['images'], 'image')}", baseline=plain["baseline"])
        print_peer(plain)
        if out:
            put(f"\nreport   {out}/report.html\n")


def _families(text: str) -> tuple[str, ...]:
    from pixelwise import api

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == ("all",):
        return api.metric_names()
    return () if names == ("none",) else names
