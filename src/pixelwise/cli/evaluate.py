"""`pixelwise evaluate MODEL DATA`: scores with intervals."""

from __future__ import annotations

from typing import Annotated

import typer

from pixelwise.cli.terminal import Json, Overrides, Progress, print_json, print_scores


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder or a model folder.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, a data.yaml or a recipe.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Score a model on pictures with masks, at their own size."""
    from pixelwise import api

    progress = Progress()
    result = api.evaluate(
        model,
        data,
        split=split,
        overrides=overrides or (),
        progress=lambda done, total: progress.line(f"scoring {done} of {total}", last=done == total),
    )
    for notice in result.notices:
        progress.say(f"note: {notice}")
    plain = {"model": model, "data": data, "split": split, **result.to_dict()}
    if as_json:
        print_json(plain)
    else:
        print_scores(plain, title=f"{model} · {split}, {plain['images']} pictures", baseline=plain["baseline"])
